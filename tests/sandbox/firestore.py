"""Google's Firestore emulator, its jar started directly: a JVM in 1.5 to 2.5 s.

`FIRESTORE_EMULATOR_HOST` names an emulator that someone else runs: it is used, never stopped or
wiped. What is missing is told in one sentence, with the command that mends it.

The emulator's gRPC messages end at 4 MiB (production: 10 MiB); it has no TTL, needs no indexes, and
every project id is a separate, empty world.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType

from tests.sandbox.children import Child, Children, SandboxError, free_port

HOST = "FIRESTORE_EMULATOR_HOST"
JAR = Path("platform/cloud-firestore-emulator/cloud-firestore-emulator.jar")
MAIN_CLASS = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"
FAST_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")  # a third less time
OLDEST_JAVA = 17
PATIENCE = timedelta(seconds=60)  # it takes 2 s alone, and half a minute on a machine that is full
PROBE = timedelta(seconds=5)
POLL_SECONDS = 0.02
PORTS_TRIED = 3
WELL_KNOWN_ROOTS = (Path("/usr/lib/google-cloud-sdk"), Path.home() / "google-cloud-sdk")

INSTALL_JAVA = f"`apt-get install openjdk-{OLDEST_JAVA}-jre-headless` installs it"
INSTALL_EMULATOR = (
    "`gcloud components install cloud-firestore-emulator` or "
    "`apt-get install google-cloud-cli-firestore-emulator` installs it"
)


class FirestoreEmulator:
    """An emulator of our own, or the one that `FIRESTORE_EMULATOR_HOST` names (`borrowed`).

    `env` is the environment it is looked for in; `address` is `host:port` once it is started.
    """

    def __init__(
        self,
        children: Children | None = None,
        *,
        env: Mapping[str, str] = os.environ,
        well_known: Sequence[Path] = WELL_KNOWN_ROOTS,
        ports: Callable[[], int] = free_port,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        self.borrowed = bool(env.get(HOST))
        self.address = env.get(HOST, "")
        self._children = children or Children()
        self._env = env
        self._well_known = well_known
        self._ports = ports
        self._on_line = on_line
        self._child: Child | None = None

    def __enter__(self) -> FirestoreEmulator:
        self.start()
        return self

    @property
    def alive(self) -> bool:
        """Whether it runs, as far as we can see: a borrowed one is not ours to watch."""
        return self.borrowed or (self._child is not None and self._child.alive)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> str:
        """Start it and wait until it answers; gives the address.

        Raises `SandboxError`: within 2 s for what is missing, within 20 s for what does not start.
        """
        if self.borrowed:
            self._probe_borrowed()
            return self.address
        java = find_java(self._env)
        jar = find_jar(self._env, self._well_known)
        for _ in range(PORTS_TRIED):
            if self._started(java, jar, port=self._ports()):
                return self.address
        raise SandboxError(
            f"The Firestore emulator found {PORTS_TRIED} ports taken, one after the other: "
            "stop what takes them, or name a running emulator in FIRESTORE_EMULATOR_HOST."
        )

    def stop(self) -> None:
        """Stop it, if it is ours; a second call does nothing."""
        if self._child is not None:
            self._child.stop()
            self._child = None
            self.address = ""

    def wipe(self, project: str, *, database: str = "(default)") -> None:
        """Delete every document of a project: 10 ms when nearly empty, 0.3 s after 3,000."""
        if self.borrowed:
            raise SandboxError(
                f"The Firestore emulator at {self.address} is not ours to wipe: use a new project "
                "id, or unset FIRESTORE_EMULATOR_HOST."
            )
        documents = f"/emulator/v1/projects/{project}/databases/{database}/documents"
        status, body = _request("DELETE", self.address, urllib.parse.quote(documents), PATIENCE)
        if status != 200:
            raise SandboxError(f"The Firestore emulator did not wipe {project}: {status} {body}.")

    def _probe_borrowed(self) -> None:
        if not _answers(self.address, PROBE):
            raise SandboxError(
                f"No Firestore emulator answers at {self.address}, which FIRESTORE_EMULATOR_HOST "
                "names: start it there, or unset FIRESTORE_EMULATOR_HOST to have one started."
            )

    def _started(self, java: Path, jar: Path, *, port: int) -> bool:
        """Whether it answers on `port`; False when someone else took the port meanwhile."""
        command: list[str | Path] = [java, *FAST_START, "-cp", jar, MAIN_CLASS, "start"]
        child = self._children.start(
            [*command, "--host=127.0.0.1", f"--port={port}"],
            name="firestore",
            env={**self._env},
            on_line=self._on_line,
        )
        if _wait_until_up(child, f"127.0.0.1:{port}"):
            self._child, self.address = child, f"127.0.0.1:{port}"
            return True
        child.kill()
        lines = "\n".join(child.tail)
        if "java.net.BindException" in lines:
            return False
        raise SandboxError(_why_not_started(child, lines, java))


def find_java(env: Mapping[str, str]) -> Path:
    """The `java` of JAVA_HOME, else of PATH; raises unless it runs and is 17 or newer."""
    java = _java_home(env["JAVA_HOME"]) if env.get("JAVA_HOME") else _on_path("java", env)
    if java is None:
        raise SandboxError(f"The Firestore emulator needs Java and there is none: {INSTALL_JAVA}.")
    found = _java_version(java)
    if found < OLDEST_JAVA:
        raise SandboxError(
            f"The Firestore emulator needs Java {OLDEST_JAVA} or newer and {java} is "
            f"{found}: {INSTALL_JAVA} (and JAVA_HOME chooses it)."
        )
    return java


def _java_home(home: str) -> Path:
    java = Path(home) / "bin" / "java"
    if not os.access(java, os.X_OK):
        raise SandboxError(
            f"JAVA_HOME is {home}, where there is no bin/java: unset it, or point it at a Java of "
            f"{OLDEST_JAVA} or newer ({INSTALL_JAVA})."
        )
    return java


def _on_path(program: str, env: Mapping[str, str]) -> Path | None:
    found = shutil.which(program, path=env.get("PATH", ""))
    return Path(found) if found else None


def _java_version(java: Path) -> int:
    """The feature release: 17 for `version "17.0.15"`, 8 for `version "1.8.0_292"`."""
    try:
        ran = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxError(f"`{java} -version` does not run ({error}): {INSTALL_JAVA}.") from error
    said = re.search(r'version "(?:1\.)?(\d+)', ran.stderr + ran.stdout)
    if ran.returncode or not said:  # macOS ships a `java` that only says where to get one
        raise SandboxError(f"`{java} -version` names no Java version: {INSTALL_JAVA}.")
    return int(said.group(1))


def find_jar(env: Mapping[str, str], well_known: Sequence[Path] = WELL_KNOWN_ROOTS) -> Path:
    """The emulator's jar in the first Google Cloud SDK that has it."""
    without = []
    for root in sdk_roots(env, well_known):
        if (root / JAR).is_file():
            return root / JAR
        without += [root] if (root / "bin").is_dir() else []
    if without:
        raise SandboxError(
            f"The Google Cloud SDK in {without[0]} has no Firestore emulator: {INSTALL_EMULATOR}."
        )
    raise SandboxError(
        "The Firestore emulator comes with the Google Cloud SDK and there is none on PATH, in "
        "CLOUDSDK_ROOT_DIR or in its usual places: install it as "
        "https://cloud.google.com/sdk/docs/install says, then "
        "`gcloud components install cloud-firestore-emulator`."
    )


def sdk_roots(env: Mapping[str, str], well_known: Sequence[Path]) -> Iterator[Path]:
    """Where a Google Cloud SDK may lie; asks gcloud itself (0.5 to 3 s) only last."""
    gcloud = _on_path("gcloud", env)
    if gcloud is not None:
        yield gcloud.resolve().parent.parent
    if env.get("CLOUDSDK_ROOT_DIR"):
        yield Path(env["CLOUDSDK_ROOT_DIR"])
    yield from well_known
    if gcloud is not None:
        yield from _root_that_gcloud_names(gcloud, env)


def _root_that_gcloud_names(gcloud: Path, env: Mapping[str, str]) -> Iterator[Path]:
    command = [str(gcloud), "info", "--format=value(installation.sdk_root)"]
    with suppress(OSError, subprocess.TimeoutExpired):
        told = subprocess.run(command, capture_output=True, text=True, timeout=8, env={**env})
        if told.returncode == 0 and told.stdout.strip():
            yield Path(told.stdout.strip())


def _wait_until_up(child: Child, address: str) -> bool:
    end = time.monotonic() + PATIENCE.total_seconds()
    while child.alive and time.monotonic() < end:
        # The line tells our emulator from a stranger's answer on the same port.
        if any("is now running" in line for line in list(child.tail)) and _answers(address, PROBE):
            return True
        time.sleep(POLL_SECONDS)
    return False


def _why_not_started(child: Child, lines: str, java: Path) -> str:
    if "UnsupportedClassVersionError" in lines:
        return f"This Firestore emulator needs a newer Java than {java}: install it, set JAVA_HOME."
    if child.returncode == -9:
        return (
            f"The Firestore emulator did not answer within {PATIENCE.total_seconds():.0f} s; "
            f"its last line: {child.tail[-1] if child.tail else 'none'}"
        )
    return f"The Firestore emulator ended with {child.returncode}; it said: {_reason(lines)}"


def _reason(lines: str) -> str:
    """The line that says why, out of a Java stack trace."""
    told = [line for line in lines.splitlines() if not line.startswith(("\tat ", "INFO"))]
    errors = [line for line in told if re.search("Error|Exception|Could not|error", line)]
    return (errors or told or ["nothing"])[-1].strip()


def _answers(address: str, patience: timedelta) -> bool:
    with suppress(OSError, http.client.HTTPException, ValueError):
        return _request("GET", address, "/", patience) == (200, "Ok")
    return False


def _request(method: str, address: str, path: str, patience: timedelta) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=patience.total_seconds())
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode().strip()
    finally:
        connection.close()
