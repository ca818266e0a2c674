"""Child processes that never outlive the process that started them.

Each child leads a session and process group of its own. A small guard process, itself in a session
of its own, holds the other end of a pipe to us and the list of those groups; when we end in any way
(`kill -9` included) the pipe closes and the guard kills every group on the list.

Refused: Linux's PR_SET_PDEATHSIG. It fires when the *thread* that started the child ends, does not
reach grandchildren (a suspended gunicorn worker would stay for ever), needs a `preexec_fn` (unsafe
beside gRPC's threads) and exists on Linux alone. This file is also the guard's program, so it
imports the standard library only.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType

TAIL_LINES = 40
GRACE = timedelta(seconds=5)
GUARD_LOOKS_EVERY = timedelta(seconds=1)
# Below the range from which Linux (32768 up) and macOS (49152 up) take the ports of outgoing
# connections, so that no client's connection takes the port between our looking and its use.
PORTS = range(20_000, 32_000)

# A child becomes what it is to be only when the guard knows of it: killed before that, we leave a
# shell behind that reads the end of its pipe and ends.
GATE = ("/bin/sh", "-c", 'read -r _ && exec "$@" </dev/null', "sh")

_handed_out: set[int] = set()
_ports_lock = threading.Lock()


class SandboxError(Exception):
    """The sandbox can't do what was asked; one sentence says why and what mends it."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on, never handed out before by this process."""
    with _ports_lock:
        for port in random.sample(PORTS, 200):
            if port not in _handed_out and _is_free(port):
                _handed_out.add(port)
                return port
    raise SandboxError("None of 200 ports between 20000 and 32000 is free: stop what holds them.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Child:
    """One started process: `name`, `pid`, whether it is `alive`, and its last lines (`tail`)."""

    def __init__(
        self, process: subprocess.Popen[bytes], name: str, on_line: Callable[[str], None] | None
    ) -> None:
        self.name = name
        self.pid = process.pid
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._process = process
        self._on_line = on_line
        self._reaping = threading.Lock()
        self._ended = threading.Event()
        self._pump = threading.Thread(target=self._read, name=f"{name} output", daemon=True)
        self._pump.start()
        threading.Thread(target=self._reap, name=f"{name} end", daemon=True).start()

    @property
    def alive(self) -> bool:
        return not self._ended.is_set()

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.returncode if self._ended.is_set() else None

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Whether it has ended, at the latest after `timeout`; if so, all its lines are out."""
        ended = self._ended.wait(timeout.total_seconds() if timeout is not None else None)
        if ended and threading.current_thread() is not self._pump:
            self._pump.join(timeout=1)
        return ended

    def signal(self, signum: int, *, group: bool = False) -> None:
        """Send a signal to the process, or to it and all that it started; none if it has ended."""
        with self._reaping, contextlib.suppress(ProcessLookupError):
            if self.alive:
                (os.killpg if group else os.kill)(self.pid, signum)

    def stop(self, grace: timedelta = GRACE) -> None:
        """SIGTERM to the process, as a container's first process gets it; SIGKILL after `grace`."""
        self.signal(signal.SIGTERM)
        if not self.wait(grace):
            self.kill()

    def kill(self) -> None:
        """SIGKILL to it and all that it started."""
        self.signal(signal.SIGKILL, group=True)
        self.wait(GRACE)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for raw in output:
                self._line(raw.decode(errors="replace").rstrip("\r\n"))

    def _line(self, line: str) -> None:
        self.tail.append(line)
        if self._on_line is None:
            return
        try:
            self._on_line(line)
        except Exception:  # the pipe must be read on, or the child blocks once it is full
            self._on_line = None
            traceback.print_exc()

    def _reap(self) -> None:
        """Wait for the process and end what it leaves behind, as a container's end does."""
        if hasattr(os, "waitid"):  # not on macOS before Python 3.13
            with contextlib.suppress(ChildProcessError):
                # Not yet reaped, its number can't be given to a stranger.
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        else:
            self._process.wait()
        with self._reaping:
            _kill_group(self.pid)
            self._process.wait()
            self._ended.set()
        _guard.forget(self.pid)


class Children:
    """The processes that one owner has started; `stop_all` (or leaving the `with`) ends them."""

    def __init__(self) -> None:
        self._all: list[Child] = []
        self._closed = False
        self._lock = threading.Lock()

    def __enter__(self) -> Children:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop_all()

    def start(
        self,
        command: Sequence[str | Path],
        *,
        name: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> Child:
        """Start `command`; `on_line` gets each line of its output and errors, until it raises.

        `env` is the child's whole environment; None hands ours on.
        """
        with self._lock:
            if self._closed:
                raise SandboxError(f"{name} is not started: everything is being stopped.")
            process = subprocess.Popen(
                [*GATE, *(str(part) for part in command)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )
            _guard.remember(process.pid)
            child = Child(process, name, on_line)
            self._all.append(child)
            _open_gate(process)
        return child

    def running(self) -> list[Child]:
        with self._lock:
            return [child for child in self._all if child.alive]

    def stop_all(self, grace: timedelta = GRACE) -> None:
        """Stop every child, all at once; a second call finds nothing to do."""
        stopping = [
            threading.Thread(target=child.stop, args=(grace,), daemon=True)
            for child in self.running()
        ]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()

    def close(self) -> None:
        """Kill every child now, and start none from now on, whichever thread is about to."""
        with self._lock:
            self._closed = True
        for child in self.running():
            child.signal(signal.SIGKILL, group=True)
        for child in self.running():
            child.wait(GRACE)


def _open_gate(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:  # killed already
        process.stdin.write(b"\n")


def _kill_group(pgid: int) -> None:
    # macOS answers EPERM for a group that holds nothing but a process not yet reaped.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, signal.SIGKILL)


class _Guard:
    """Our end of the guard process; started with the first child, one for each process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._groups: set[int] = set()

    def remember(self, pgid: int) -> None:
        with self._lock:
            if self._owner != os.getpid():  # first use, or we are a fork of the owner
                self._owner, self._process, self._groups = os.getpid(), None, set()
            self._groups.add(pgid)
            self._tell(f"+{pgid}\n")

    def forget(self, pgid: int) -> None:
        with self._lock:
            self._groups.discard(pgid)
            self._tell(f"-{pgid}\n")

    def _tell(self, line: str) -> None:
        if self._process is None or self._process.poll() is not None:
            self._process = self._start()
            line = "".join(f"+{pgid}\n" for pgid in self._groups)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode())

    @staticmethod
    def _start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            bufsize=0,
            start_new_session=True,
        )


_guard = _Guard()


def _lines_until_orphaned(parent: int) -> Iterator[bytes]:
    """What the parent tells, to the last line; ends when its pipe closes or the parent is gone.

    The pipe alone does not say it: a fork of the parent may hold it open.
    """
    pending = b""
    while True:
        ready, _, _ = select.select([0], [], [], GUARD_LOOKS_EVERY.total_seconds())
        told = os.read(0, 65_536) if ready else b""
        if not told and (ready or os.getppid() != parent):
            return
        *lines, pending = (pending + told).split(b"\n")
        yield from lines


def _guard_until_orphaned(parent: int) -> None:
    groups: set[int] = set()
    for line in _lines_until_orphaned(parent):
        keep, pgid = line[:1] == b"+", int(line[1:])
        (groups.add if keep else groups.discard)(pgid)
    for pgid in groups:
        _kill_group(pgid)


if __name__ == "__main__":
    _guard_until_orphaned(int(sys.argv[1]))
