"""Make `.venv` hold what the pinned requirement files say: `tools/set-up runtime` or `… dev`.

`.venv/installed.json` says what was installed from which files; when that still holds, nothing is
done and nobody is asked. A set-up that was interrupted leaves no such file behind, and the next one
starts from an empty folder. Set-ups of one clone wait for each other.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
INSTALLED = VENV / "installed.json"
UNFINISHED = VENV / "unfinished"
FILES = {"runtime": "requirements.txt", "dev": "requirements-dev.txt"}
INSTALL_VENV = "`apt-get install python3-venv` installs it"
# The pins name every package there is, so nothing has to be resolved. One retry for each file; an
# index that gives nothing at all for so long is out of reach.
PIP = ["-m", "pip", "install", "--no-deps", "--disable-pip-version-check", "--no-input"]
PIP += ["--progress-bar", "off", "--retries", "1", "--timeout", "15"]
SILENCE_SECONDS = 30.0
GIVEN = re.compile(
    r"^\s*(Downloading|Using cached|Processing|Requirement already satisfied|Obtaining)"
)
OUT_OF_REACH = re.compile("NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError|NameResolution")


class SetUpError(Exception):
    """One sentence: what is missing, and what mends it."""


def pins(kind: str) -> str:
    return hashlib.sha256((ROOT / FILES[kind]).read_bytes()).hexdigest()[:16]


def is_ready(kind: str) -> bool:
    """Whether everything was installed from the files as they are now, into this very folder."""
    try:
        installed = json.loads(INSTALLED.read_text())
        return bool(
            installed["folder"] == str(VENV.resolve()) and installed[kind] == pins(kind)
        ) and os.access(PYTHON, os.X_OK)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def set_up(kind: str) -> None:
    if is_ready(kind):
        return
    check_machine()
    with Path(__file__).open() as turn:  # the lock needs a file that is always there
        take_turn(turn)
        if is_ready(kind):
            return
        started = time.monotonic()
        packages = sum(line[:1].isalnum() for line in (ROOT / FILES[kind]).open())
        say(f"Setting up .venv with the {packages} packages of {FILES[kind]}; once only …")
        make_venv()
        install(kind)
        say(f"… done in {time.monotonic() - started:.0f} s.")


def check_machine() -> None:
    """What would be missing later is said before anything is downloaded."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        raise SetUpError(
            f"{sys.executable} has no {error.name}, which makes virtual environments: "
            f"{INSTALL_VENV}."
        ) from error
    if os.environ.get("FIRESTORE_EMULATOR_HOST"):
        return
    sys.path.insert(0, str(ROOT))
    from tests.sandbox.children import SandboxError
    from tests.sandbox.firestore import find_jar, find_java

    try:
        find_java(os.environ)
        find_jar(os.environ)
    except SandboxError as error:
        raise SetUpError(str(error)) from error


def take_turn(turn: Any) -> None:
    try:
        fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        say("Another set-up of this clone is under way; waiting for it …")
        fcntl.flock(turn, fcntl.LOCK_EX)


def make_venv() -> None:
    """An environment to install into: the one there is, unless it is broken or half made."""
    if UNFINISHED.exists() or not _works() or _moved():
        if VENV.is_symlink():
            raise SetUpError(
                f".venv leads to {VENV.resolve()}, which is not usable: remove the link."
            )
        shutil.rmtree(VENV, ignore_errors=True)
        VENV.mkdir()
        UNFINISHED.touch()
        made = subprocess.run(
            [sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True
        )
        if made.returncode:
            raise SetUpError(f"{sys.executable} -m venv .venv failed: {INSTALL_VENV}.")
    INSTALLED.unlink(missing_ok=True)
    UNFINISHED.touch()


def _works() -> bool:
    """Whether it has a Python that runs, is new enough, and has pip."""
    probe = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
    try:
        return not subprocess.run([PYTHON, "-c", probe], capture_output=True).returncode
    except OSError:
        return False


def _moved() -> bool:
    """Whether it was made in another folder: its scripts name that one."""
    try:
        return bool(json.loads(INSTALLED.read_text())["folder"] != str(VENV.resolve()))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def install(kind: str) -> None:
    pip = subprocess.Popen(
        [str(PYTHON), *PIP, "-r", FILES[kind]],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    impatience = threading.Timer(SILENCE_SECONDS, pip.kill)
    impatience.start()
    try:
        said = _follow(pip, impatience)
        given_up = pip.wait() < 0
    finally:
        impatience.cancel()
        pip.kill()
        pip.wait()
    if pip.returncode:
        raise SetUpError(_why_not_installed(kind, said, given_up=given_up))
    # What tests need holds all that the system needs.
    pinned = {name: pins(name) for name in FILES if name in (kind, "runtime")}
    INSTALLED.write_text(json.dumps({"folder": str(VENV.resolve()), **pinned}))
    UNFINISHED.unlink()


def _follow(pip: subprocess.Popen[str], impatience: threading.Timer) -> list[str]:
    """What it says; the first file that it was given ends the impatience."""
    said = []
    packages = 0
    assert pip.stdout is not None
    for line in pip.stdout:
        said.append(line.rstrip())
        packages += line.startswith("Collecting")
        if GIVEN.match(line):
            impatience.cancel()
        if packages and sys.stdout.isatty():
            print(f"\r  {packages} packages …", end="", flush=True)
    if packages and sys.stdout.isatty():
        print("\r\033[K", end="")
    return said


def _why_not_installed(kind: str, said: list[str], *, given_up: bool) -> str:
    if given_up or any(OUT_OF_REACH.search(line) for line in said):
        return (
            "The package index does not answer, and a first set-up needs it: connect to the "
            "network, or name a mirror in PIP_INDEX_URL, and run the same command again."
        )
    errors = [line for line in said if line.startswith("ERROR")] or said or ["it said nothing"]
    return f"pip could not install {FILES[kind]}: {errors[-1].removeprefix('ERROR: ')}"


def say(line: str) -> None:
    print(line, flush=True)


def main() -> NoReturn:
    *flags, kind = sys.argv[1:]
    if "--ready" in flags:
        sys.exit(0 if is_ready(kind) else 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        set_up(kind)
    except SetUpError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("\nInterrupted: the same command starts over.", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


if __name__ == "__main__":
    main()
