from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.sandbox.children import Children, free_port

ROOT = Path(__file__).resolve().parents[2]
SLEEPS = "import time; print('up', flush=True); time.sleep(60)"
IGNORES_SIGTERM = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPS}"
HAS_A_CHILD = (
    "import subprocess, sys; "
    "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    "print(p.pid, flush=True); p.wait()"
)


@pytest.fixture
def children() -> Iterator[Children]:
    with Children() as started:
        yield started


def python(source: str) -> list[str]:
    return [sys.executable, "-S", "-c", source]


def soon(condition: Callable[[], bool], within: float = 5) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


def exists(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits to be reaped does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(state.stdout.strip()) and not state.stdout.startswith("Z")


def test_each_line_of_output_and_errors_reaches_the_callback(children: Children) -> None:
    lines: list[str] = []

    child = children.start(
        python("import sys; print('out'); print('err', file=sys.stderr); print('ü')"),
        name="talker",
        on_line=lines.append,
    )
    child.wait()

    assert sorted(lines) == ["err", "out", "ü"]
    assert sorted(child.tail) == ["err", "out", "ü"]
    assert child.returncode == 0


def test_a_callback_that_raises_does_not_block_the_child(
    children: Children, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(line: str) -> None:
        raise ValueError(line)

    child = children.start(
        python("print(*['x' * 1_000] * 200, sep='\\n')"), name="talker", on_line=refuse
    )

    assert child.wait(timedelta(seconds=5))
    assert child.returncode == 0
    assert capsys.readouterr().err.count("Traceback") == 1


def test_stopping_asks_with_sigterm_first(children: Children) -> None:
    child = children.start(python(SLEEPS), name="sleeper")
    soon(lambda: bool(child.tail))

    child.stop()

    assert child.returncode == -signal.SIGTERM


def test_a_child_that_ignores_sigterm_is_killed_after_the_grace(children: Children) -> None:
    child = children.start(python(IGNORES_SIGTERM), name="stubborn")
    soon(lambda: bool(child.tail))

    child.stop(grace=timedelta(seconds=0.2))

    assert child.returncode == -signal.SIGKILL


def test_what_a_child_started_ends_with_it(children: Children) -> None:
    child = children.start(python(HAS_A_CHILD), name="parent")
    soon(lambda: bool(child.tail))
    grandchild = int(child.tail[0])

    child.stop()

    assert soon(lambda: not exists(grandchild))


def test_stopping_all_twice_is_the_same_as_once(children: Children) -> None:
    for number in range(3):
        children.start(python(SLEEPS), name=f"sleeper {number}")

    children.stop_all()
    children.stop_all()

    assert children.running() == []


def test_a_process_started_by_someone_else_is_left_alone(children: Children) -> None:
    with subprocess.Popen(python(SLEEPS), stdout=subprocess.DEVNULL) as stranger:
        children.start(python(SLEEPS), name="ours")

        children.stop_all()

        assert stranger.poll() is None
        stranger.kill()


def test_the_starting_thread_may_end_before_its_child(children: Children) -> None:
    thread = threading.Thread(target=children.start, args=(python(SLEEPS),), kwargs={"name": "x"})
    thread.start()
    thread.join()

    (child,) = children.running()
    assert not child.wait(timedelta(seconds=0.3))


@pytest.mark.parametrize("suspended", [False, True], ids=["running", "suspended"])
def test_killing_the_parent_with_sigkill_ends_children_and_grandchildren(suspended: bool) -> None:
    parent = subprocess.Popen(
        python(
            "import time\n"
            "from tests.sandbox.children import Children\n"
            f"c = Children().start({python(HAS_A_CHILD)!r}, name='c', on_line=print)\n"
            "print(c.pid, flush=True)\n"
            "time.sleep(60)\n"
        ),
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    family = [int(parent.stdout.readline()), int(parent.stdout.readline())]
    if suspended:
        for pid in family:
            os.kill(pid, signal.SIGSTOP)

    parent.kill()
    parent.communicate()

    assert soon(lambda: not any(exists(pid) for pid in family))


def test_a_port_is_handed_out_once() -> None:
    ports = [free_port() for _ in range(50)]

    assert len(set(ports)) == 50
