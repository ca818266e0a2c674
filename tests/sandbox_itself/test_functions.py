from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.sandbox.children import Children, SandboxError, free_port
from tests.sandbox.functions import Front, FunctionProcess, build, start_all
from tests.sandbox_itself.test_children import soon

MAIN = """
import os, sys, threading, time
import functions_framework
from shared.words import GREETING

print("loaded", flush=True)

@functions_framework.http
def hello(request):
    time.sleep(float(request.args.get("sleep", 0)))
    print("called", request.args.get("name"), flush=True)
    return {
        "greeting": GREETING,
        "pid": os.getpid(),
        "method": request.method,
        "body": request.get_data(as_text=True),
        "authorization": request.headers.get("Authorization"),
        "env": dict(os.environ),
        "path": sys.path,
    }
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkout")
    written = {
        "functions/hello/main.py": MAIN,
        "functions/hello/requirements.txt": "functions-framework\n",
        "functions/hello/notes.md": "not deployed",
        "shared/__init__.py": "",
        "shared/words.py": "GREETING = 'hi'\n",
        "shared/words.txt": "not deployed",
        "shared/deep/__init__.py": "",
    }
    for name, text in written.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return build("hello", tmp_path_factory.mktemp("built"), root=root)


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    with Children() as started:
        yield started


@pytest.fixture(scope="module")
def instances(source: Path, children: Children) -> list[FunctionProcess]:
    return start_all(
        FunctionProcess("hello", source, free_port(), {"MODE": str(number)}, children=children)
        for number in range(2)
    )


@pytest.fixture
def one(instances: list[FunctionProcess]) -> Iterator[FunctionProcess]:
    yield instances[0]
    instances[0].resume()
    if not instances[0].alive:
        instances[0].start()
    instances[0].wait_until_ready()


@pytest.fixture
def front(one: FunctionProcess) -> Iterator[Front]:
    with Front([one.port]) as started:
        yield started


@pytest.fixture
def later() -> Iterator[Callable[..., Future[httpx.Response]]]:
    with ThreadPoolExecutor(8) as pool:
        yield lambda url, **options: pool.submit(httpx.get, url, **options)


def url(process: FunctionProcess, query: str = "") -> str:
    return f"http://127.0.0.1:{process.port}/{query}"


def verify(token: str) -> Mapping[str, Any]:
    """Tokens of this test are `header.<who>.<signature>`."""
    _, who, signature = token.split(".")
    if signature != "genuine":
        raise ValueError(token)
    if who != "invoker":
        raise PermissionError(who)
    return {"email": who}


def test_the_layout_holds_main_requirements_and_the_modules_of_shared(source: Path) -> None:
    files = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}

    assert {name for name in files if "__pycache__" not in name} == {
        "main.py",
        "requirements.txt",
        "shared/__init__.py",
        "shared/deep/__init__.py",
        "shared/words.py",
    }


def test_a_function_sees_its_archive_and_its_settings_and_not_the_checkout(
    one: FunctionProcess, source: Path
) -> None:
    told = httpx.get(url(one)).json()

    assert told["greeting"] == "hi"
    assert told["env"]["MODE"] == "0"
    assert told["env"]["FUNCTION_TARGET"] == "hello"
    assert told["env"]["THREADS"] == "8"
    assert told["env"]["HOME"] == str(source)
    assert "PYTHONPATH" not in told["env"]
    assert "PYTEST_CURRENT_TEST" not in told["env"]
    assert str(source) in told["path"]
    assert str(Path(__file__).resolve().parents[2]) not in told["path"]


def test_what_it_prints_arrives_line_by_line(source: Path, children: Children) -> None:
    lines: list[str] = []
    process = FunctionProcess("hello", source, free_port(), {}, lines.append, children=children)
    process.start().wait_until_ready()

    httpx.get(url(process, "?name=ann"))
    process.stop()

    assert lines[:2] == ["loaded", "called ann"]


def test_a_function_that_does_not_load_is_told_with_its_last_lines(
    tmp_path: Path, children: Children
) -> None:
    (tmp_path / "main.py").write_text("import nowhere_to_be_found\n")
    process = FunctionProcess("broken", tmp_path, free_port(), {}, children=children).start()

    with pytest.raises(SandboxError, match=r"(?s)broken on port .*No module named 'nowhere_to_be"):
        process.wait_until_ready()


def test_a_stranger_that_answers_on_the_port_is_not_taken_for_it(
    source: Path, one: FunctionProcess
) -> None:
    with Children() as own:
        second = FunctionProcess("hello", source, one.port, {}, children=own).start()

        with pytest.raises(SandboxError, match=r"did not answer(?s:.*)Connection in use"):
            second.wait_until_ready(timedelta(seconds=1.5))
        second.kill()  # gunicorn does not hear SIGTERM while it waits for the port


def test_requests_run_side_by_side_up_to_the_threads(
    one: FunctionProcess, later: Callable[..., Future[httpx.Response]]
) -> None:
    began = time.monotonic()

    answers = [later(url(one, "?sleep=0.5")) for _ in range(8)]

    assert {answer.result().status_code for answer in answers} == {200}
    assert time.monotonic() - began < 1.5


def test_a_killed_worker_breaks_its_requests_off_and_is_replaced(
    one: FunctionProcess, later: Callable[..., Future[httpx.Response]]
) -> None:
    broken = later(url(one, "?sleep=5"))
    time.sleep(0.5)
    first = one.worker()

    one.kill_worker()

    with pytest.raises(httpx.RemoteProtocolError):
        broken.result()
    one.wait_until_ready()
    assert httpx.get(url(one)).json()["pid"] != first


def test_a_killed_instance_leaves_no_worker_and_can_be_restarted(one: FunctionProcess) -> None:
    worker = one.worker()

    one.kill()

    with pytest.raises(httpx.ConnectError):
        httpx.get(url(one))
    assert _gone(worker, within=1)
    one.restart()
    assert httpx.get(url(one)).status_code == 200


def test_a_suspended_instance_hangs_until_it_is_resumed(one: FunctionProcess) -> None:
    one.suspend()

    with pytest.raises(httpx.ReadTimeout):
        httpx.get(url(one), timeout=0.3)

    one.resume()
    assert httpx.get(url(one)).status_code == 200


def test_stopping_answers_the_requests_in_work_first(
    one: FunctionProcess, later: Callable[..., Future[httpx.Response]]
) -> None:
    answer = later(url(one, "?sleep=0.5"))
    time.sleep(0.2)

    one.stop()

    assert answer.result().status_code == 200
    assert not one.alive


def test_a_killed_parent_leaves_no_worker_behind(source: Path, tmp_path: Path) -> None:
    script = (
        "import pathlib, time\n"
        "from tests.sandbox.functions import FunctionProcess\n"
        f"p = FunctionProcess('hello', pathlib.Path({str(source)!r}), {free_port()}, {{}})\n"
        "print(p.start().wait_until_ready().worker(), flush=True)\n"
        "time.sleep(60)\n"
    )
    root = Path(__file__).resolve().parents[2]
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=root, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())

    parent.send_signal(signal.SIGKILL)
    parent.communicate()

    assert _gone(worker, within=5)


def _gone(pid: int, within: float) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_the_front_passes_requests_untouched_without_iam(front: Front) -> None:
    answer = httpx.put(front.url, content=b"text", headers={"Authorization": "Bearer a.b.c"})

    assert answer.json()["method"] == "PUT"
    assert answer.json()["body"] == "text"
    assert answer.json()["authorization"] == "Bearer a.b.c"


def test_the_front_puts_chunked_bodies_together(front: Front) -> None:
    answer = httpx.post(front.url, content=iter([b"a", b"b" * 70_000]))

    assert len(answer.json()["body"]) == 70_001


def test_the_front_refuses_a_body_above_32_mib(front: Front) -> None:
    with socket.create_connection(("127.0.0.1", front.port)) as caller:
        caller.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 33554433\r\n\r\n")
        caller.sendall(b"x" * 33_554_433)
        assert caller.recv(100).startswith(b"HTTP/1.1 413 ")


def test_the_front_takes_instances_in_turn_and_passes_over_a_dead_one(
    instances: list[FunctionProcess],
) -> None:
    with Front([instances[0].port, instances[1].port]) as front:
        modes = [httpx.get(front.url).json()["env"]["MODE"] for _ in range(4)]
        front.backends = [free_port(), instances[1].port]
        survived = {httpx.get(front.url).json()["env"]["MODE"] for _ in range(4)}

    assert sorted(modes) == ["0", "0", "1", "1"]
    assert survived == {"1"}


def test_without_an_instance_the_front_answers_503() -> None:
    with Front([free_port()]) as front:
        assert httpx.get(front.url).status_code == 503


def test_an_instance_that_dies_over_a_request_is_a_503(
    front: Front, one: FunctionProcess, later: Callable[..., Future[httpx.Response]]
) -> None:
    answer = later(f"{front.url}/?sleep=5")
    time.sleep(0.2)

    one.kill()

    assert answer.result().status_code == 503


def test_an_instance_that_is_too_slow_is_a_504(one: FunctionProcess) -> None:
    with Front([one.port], timeout=timedelta(seconds=0.2)) as front:
        assert httpx.get(f"{front.url}/?sleep=0.5").status_code == 504


def test_iam_lets_an_invoker_in_and_takes_the_signature_off(one: FunctionProcess) -> None:
    with Front([one.port], verify=verify) as front:
        answer = httpx.get(front.url, headers={"Authorization": "Bearer head.invoker.genuine"})

    assert answer.json()["authorization"] == "Bearer head.invoker.SIGNATURE_REMOVED_BY_GOOGLE"


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 403),
        ("Basic abc", 403),
        ("Bearer head.stranger.genuine", 403),
        ("Bearer head.invoker.forged", 401),
        ("Bearer head.invoker.SIGNATURE_REMOVED_BY_GOOGLE", 401),
        ("Bearer nonsense", 401),
    ],
)
def test_iam_refuses_without_asking_the_function(authorization: str | None, status: int) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    with Front([free_port()], verify=verify) as front:
        answer = httpx.get(front.url, headers=headers)

    assert answer.status_code == status


def test_a_dropped_request_never_reaches_the_function(front: Front, one: FunctionProcess) -> None:
    fault = front.drop_request()

    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{front.url}/?name=dropped")

    assert httpx.get(front.url).status_code == 200
    assert fault.hits == 1
    assert "called dropped" not in one.tail


def test_a_dropped_answer_comes_after_the_function_worked(
    front: Front, one: FunctionProcess
) -> None:
    front.drop_answer()

    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{front.url}/?name=worked")

    assert soon(lambda: "called worked" in one.tail)  # it passes through a pipe first


def test_a_held_request_waits_for_the_gate(
    front: Front, later: Callable[..., Future[httpx.Response]]
) -> None:
    gate = front.hold()
    answer = later(front.url)
    gate.arrived()

    assert front.in_flight == 1
    assert not answer.done()
    gate.open()
    assert answer.result().status_code == 200
    assert front.in_flight == 0


def test_two_requests_meet_at_a_barrier_before_the_function(
    front: Front, later: Callable[..., Future[httpx.Response]]
) -> None:
    barrier = threading.Barrier(2, timeout=5)
    front.before.arm(lambda call: barrier.wait(), times=2)

    answers = [later(front.url) for _ in range(2)]

    assert [answer.result().status_code for answer in answers] == [200, 200]


def test_the_front_costs_little(front: Front, one: FunctionProcess) -> None:
    def median_ms(target: str) -> float:
        with httpx.Client() as client:
            took = []
            for _ in range(60):
                began = time.perf_counter()
                client.get(target)
                took.append(time.perf_counter() - began)
        return sorted(took)[30] * 1000

    direct, through = median_ms(url(one)), median_ms(front.url)

    print(json.dumps({"direct_ms": round(direct, 2), "through_front_ms": round(through, 2)}))
    assert through - direct < 20
