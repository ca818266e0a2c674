from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from google.cloud import firestore

from tests.sandbox.children import Children, SandboxError, free_port
from tests.sandbox.firestore import FirestoreEmulator, find_jar, find_java

REAL = {key: value for key, value in os.environ.items() if key != "FIRESTORE_EMULATOR_HOST"}


@pytest.fixture(scope="module")
def emulator() -> Iterator[FirestoreEmulator]:
    with FirestoreEmulator(env=REAL) as running:
        yield running


@pytest.fixture
def children() -> Iterator[Children]:
    with Children() as started:
        yield started


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(path: str, script: str) -> Path:
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"#!/bin/sh\n{script}\n")
        place.chmod(0o755)
        return place

    return write


def client(emulator: FirestoreEmulator, project: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", emulator.address)
    return firestore.Client(project=project)


def test_the_real_client_works_with_it_and_a_wiped_project_is_empty(
    emulator: FirestoreEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = client(emulator, "wiped", monkeypatch)
    db.collection("posts").document("1").create({"text": "hi"})

    emulator.wipe("wiped")

    assert list(db.collection("posts").stream()) == []


def test_an_emulator_named_in_the_environment_is_used_and_never_wiped_or_stopped(
    emulator: FirestoreEmulator,
) -> None:
    borrowed = FirestoreEmulator(env=REAL | {"FIRESTORE_EMULATOR_HOST": emulator.address})

    assert borrowed.start() == emulator.address
    with pytest.raises(SandboxError, match="not ours to wipe"):
        borrowed.wipe("anything")
    borrowed.stop()

    emulator.wipe("still-there")


@pytest.mark.parametrize("silent", [False, True], ids=["refusing", "silent"])
def test_a_named_emulator_that_does_not_answer_is_told_within_seconds(silent: bool) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if silent:
            listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        began = time.monotonic()

        with pytest.raises(SandboxError, match=f"No Firestore emulator answers at {address}"):
            FirestoreEmulator(env=REAL | {"FIRESTORE_EMULATOR_HOST": address}).start()

        assert time.monotonic() - began < 10


def test_no_java_names_the_package_to_install(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="there is none: `apt-get install openjdk-17-jre"):
        FirestoreEmulator(env={"PATH": str(tmp_path)}).start()


def test_a_java_home_without_java_is_named(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match=f"JAVA_HOME is {tmp_path}, where there is no bin/java"):
        find_java(REAL | {"JAVA_HOME": str(tmp_path)})


@pytest.mark.parametrize(("version", "feature"), [("1.8.0_292", 8), ("11.0.2", 11), ("16", 16)])
def test_a_java_that_is_too_old_is_named(
    program: Callable[[str, str], Path], tmp_path: Path, version: str, feature: int
) -> None:
    program("bin/java", f"echo 'openjdk version \"{version}\" 2018' >&2")

    with pytest.raises(SandboxError, match=f"needs Java 17 or newer and .*bin/java is {feature}"):
        find_java({"PATH": "", "JAVA_HOME": str(tmp_path)})


def test_java_home_wins_over_path(program: Callable[[str, str], Path], tmp_path: Path) -> None:
    program("path/java", "echo 'openjdk version \"11\"' >&2")
    program("home/bin/java", "echo 'openjdk version \"21.0.1\"' >&2")

    java = find_java({"PATH": str(tmp_path / "path"), "JAVA_HOME": str(tmp_path / "home")})

    assert java == tmp_path / "home" / "bin" / "java"


def test_a_java_that_only_tells_where_to_get_one_is_none(
    program: Callable[[str, str], Path], tmp_path: Path
) -> None:
    program("java", "echo 'Unable to locate a Java Runtime.' >&2; exit 1")

    with pytest.raises(SandboxError, match="names no Java version: `apt-get install"):
        find_java({"PATH": str(tmp_path)})


def test_no_google_cloud_sdk_tells_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match=r"there is none on PATH.*cloud\.google\.com/sdk"):
        find_jar({"PATH": str(tmp_path)}, well_known=[tmp_path / "absent"])


def test_an_sdk_without_the_emulator_names_the_component(
    program: Callable[[str, str], Path], tmp_path: Path
) -> None:
    program("sdk/bin/gcloud", "exit 1")

    with pytest.raises(SandboxError, match="gcloud components install cloud-firestore-emulator"):
        find_jar({"PATH": str(tmp_path / "sdk" / "bin")}, well_known=[])


def test_gcloud_is_followed_through_links_without_being_run(
    program: Callable[[str, str], Path], tmp_path: Path
) -> None:
    gcloud = program("sdk/bin/gcloud", f": > {tmp_path}/was-run")
    jar = program("sdk/platform/cloud-firestore-emulator/cloud-firestore-emulator.jar", "")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gcloud").symlink_to(gcloud)

    assert find_jar({"PATH": str(tmp_path / "bin")}, well_known=[]) == jar
    assert not (tmp_path / "was-run").exists()


def test_a_gcloud_that_is_a_wrapper_is_asked_for_its_root(
    program: Callable[[str, str], Path], tmp_path: Path
) -> None:
    jar = program("real/platform/cloud-firestore-emulator/cloud-firestore-emulator.jar", "")
    (tmp_path / "real" / "bin").mkdir()
    program("shims/gcloud", f"echo {tmp_path / 'real'}")

    assert find_jar({"PATH": str(tmp_path / "shims")}, well_known=[]) == jar


def test_a_start_that_fails_tells_what_java_said(
    program: Callable[[str, str], Path], tmp_path: Path, children: Children
) -> None:
    program("sdk/bin/gcloud", "exit 1")
    program("sdk/platform/cloud-firestore-emulator/cloud-firestore-emulator.jar", "no jar")
    env = REAL | {"PATH": f"{tmp_path}/sdk/bin:{REAL['PATH']}"}

    with pytest.raises(SandboxError, match=r"ended with 1; it said: .*ClassNotFoundException"):
        FirestoreEmulator(children, env=env).start()

    assert children.running() == []


def test_a_port_that_a_stranger_took_meanwhile_is_replaced_even_if_it_answers_ok(
    children: Children,
) -> None:
    class Ok(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"Ok")

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Ok) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        ports = iter([stranger.server_port, free_port()])

        with FirestoreEmulator(children, env=REAL, ports=lambda: next(ports)) as ours:
            assert ours.address != f"127.0.0.1:{stranger.server_port}"
        stranger.shutdown()
