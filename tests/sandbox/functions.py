"""Functions as they are deployed: the archive's layout, the production command, Cloud Run in front.

`build` lays a function out as its archive does, `FunctionProcess` runs it as the Python buildpack
does (`functions-framework`, which starts gunicorn), `Front` is the public address. `Faults` is how
tests make `Front` (and the other servers of the sandbox) misbehave, `Gate` how they hold a request.

What gunicorn 27 does under functions-framework 3.10, each seen here: the function is imported in
the master, requests run in a forked worker; `THREADS` above 1 makes it a threaded worker, 1 a
synchronous one. On SIGTERM requests in work are answered; with one thread, those waiting to be
accepted are reset. A killed worker is replaced within 20 ms, on the same port. A worker whose
master was killed goes on serving for up to 5 s, so `kill` ends both at once, as a container's end
does.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

from tests.sandbox.children import Child, Children, SandboxError
from tests.sandbox.listener import Handler, Listener

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = timedelta(seconds=30)
POLL_SECONDS = 0.01
BODY_BYTES = 32 * 1024 * 1024  # of a request and of an answer, on Cloud Run
# The container has an environment of its own; these alone are the machine's.
FROM_THE_MACHINE = ("PATH", "TMPDIR", "LANG", "TZ", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
# Headers of one connection, and those that say how its body is cut: made anew for the next.
REMADE = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "expect"}
REMADE |= {"transfer-encoding", "content-length"}

Call = TypeVar("Call")


# --- Misbehaving on demand --------------------------------------------------------------------


@dataclass
class Armed(Generic[Call]):
    """An act waiting for the calls that match; `hits` counts those it struck."""

    act: Callable[[Call], object]
    matches: Callable[[Call], bool]
    left: int | None
    hits: int = 0


class Faults(Generic[Call]):
    """What is to happen to which of the next calls: an act raises, waits, or only looks."""

    def __init__(self) -> None:
        self._armed: list[Armed[Call]] = []
        self._lock = threading.Lock()

    def arm(
        self,
        act: Callable[[Call], object],
        *,
        when: Callable[[Call], bool] | None = None,
        times: int | None = 1,
    ) -> Armed[Call]:
        """Have `act` done at the next `times` calls that match; None: at every one."""
        armed = Armed(act, when or (lambda call: True), times)
        with self._lock:
            self._armed.append(armed)
        return armed

    def strike(self, call: Call) -> None:
        """Do what is armed for this call, in the order of arming; raises what an act raises."""
        for armed in self._due(call):
            armed.act(call)

    def clear(self) -> None:
        with self._lock:
            self._armed.clear()

    def __bool__(self) -> bool:
        return bool(self._armed)

    def _due(self, call: Call) -> list[Armed[Call]]:
        with self._lock:
            due = [armed for armed in self._armed if armed.left != 0 and armed.matches(call)]
            for armed in due:
                armed.hits += 1
                armed.left = None if armed.left is None else armed.left - 1
            return due


class Gate:
    """An act that holds calls until a test opens it: `faults.arm(gate)`, `arrived`, `open`."""

    def __init__(self, patience: timedelta = PATIENCE) -> None:
        self._patience = patience.total_seconds()
        self._changed = threading.Condition()
        self._arrivals = 0
        self._open = False

    def __call__(self, call: object = None) -> None:
        with self._changed:
            self._arrivals += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._open, self._patience)

    def arrived(self, count: int = 1) -> None:
        """Wait until `count` calls have come; raises `SandboxError` after the gate's patience."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._arrivals >= count, self._patience):
                raise SandboxError(f"{self._arrivals} of {count} calls came to the gate.")

    def open(self) -> None:
        """Let through all that wait and all that come."""
        with self._changed:
            self._open = True
            self._changed.notify_all()


# --- The archive ------------------------------------------------------------------------------


def build(function: str, into: Path, *, root: Path = ROOT) -> Path:
    """Lay `function` out under `into/<function>` as its archive does; gives that folder."""
    folder = into / function
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("main.py", "requirements.txt"):
        shutil.copy2(root / "functions" / function / name, folder / name)
    for module in sorted((root / "shared").rglob("*.py")):
        place = folder / module.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(module, place)
    return folder


# --- One instance -----------------------------------------------------------------------------


class FunctionProcess:
    """One instance of the function `name`, served from the folder `source` on `port`.

    `env` holds the function's settings and is, with what Cloud Run sets, all that it sees of the
    environment. `threads` is the function's concurrency in `topology.json`.
    """

    def __init__(
        self,
        name: str,
        source: Path,
        port: int,
        env: Mapping[str, str],
        on_line: Callable[[str], None] | None = None,
        *,
        threads: int = 8,
        children: Children | None = None,
    ) -> None:
        self.name = name
        self.port = port
        self._source = source
        self._env = container_env(name, port=port, threads=threads, home=source) | dict(env)
        self._on_line = on_line
        self._children = children or Children()
        self._child: Child | None = None
        self._suspended = False
        self._starts = 0

    @property
    def instance(self) -> str:
        """Its name of this run, as Cloud Run gives every container one."""
        return f"{self.name}-{self.port}-{self._starts}"

    @property
    def suspended(self) -> bool:
        return self._suspended and self.alive

    @property
    def started(self) -> bool:
        """It was started at some time."""
        return self._child is not None

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.alive

    @property
    def tail(self) -> list[str]:
        """The last lines it wrote, of this run."""
        return list(self._child.tail) if self._child else []

    def start(self) -> FunctionProcess:
        """Start it; `wait_until_ready` says when it answers."""
        if self.alive:
            raise SandboxError(f"{self.name} on port {self.port} runs already: stop it first.")
        command = Path(sys.executable).with_name("functions-framework")
        self._suspended = False
        self._starts += 1
        self._child = self._children.start(
            [command], name=self.name, env=self._env, cwd=self._source, on_line=self._on_line
        )
        return self

    def move_to(self, port: int) -> None:
        """Another port for the next start: one that was free a while ago may be taken."""
        self.port = port
        self._env["PORT"] = str(port)

    def wait_until_ready(self, patience: timedelta = PATIENCE) -> FunctionProcess:
        """Wait for its first answer; raises `SandboxError` with its last lines if none comes."""
        end = time.monotonic() + patience.total_seconds()
        while time.monotonic() < end:
            if not self.alive:
                raise SandboxError(self._why("ended before it answered"))
            # Workers come once the port is ours: a stranger may answer on it.
            if _children_of(self._pid) and _answers(self.port):
                return self
            time.sleep(POLL_SECONDS)
        raise SandboxError(self._why(f"did not answer within {patience.total_seconds():.0f} s"))

    def stop(self, grace: timedelta = timedelta(seconds=10)) -> None:
        """SIGTERM, and SIGKILL after Cloud Run's 10 s; a suspended instance is killed at once."""
        if self._child is not None:
            self._child.kill() if self._suspended else self._child.stop(grace)

    def kill(self) -> None:
        """SIGKILL to master and workers at once: the instance is gone."""
        if self._child is not None:
            self._child.kill()

    def restart(self) -> FunctionProcess:
        self.kill()
        return self.start().wait_until_ready()

    def worker(self) -> int:
        """The process id that serves requests."""
        workers = _children_of(self._pid) if self.alive else []
        if not workers:
            raise SandboxError(self._why("has no worker"))
        return workers[0]

    def kill_worker(self) -> None:
        """SIGKILL to the worker: its requests break off, and gunicorn starts another."""
        os.kill(self.worker(), signal.SIGKILL)

    def suspend(self) -> None:
        """SIGSTOP to master and worker: requests hang, leases run out."""
        self._signal_group(signal.SIGSTOP)
        self._suspended = True

    def resume(self) -> None:
        self._signal_group(signal.SIGCONT)
        self._suspended = False

    @property
    def _pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def _signal_group(self, signum: int) -> None:
        if self._child is not None:
            self._child.signal(signum, group=True)

    def _why(self, happened: str) -> str:
        if self._child is not None:
            self._child.wait(timedelta(0))
        lines = "\n".join(self.tail[-20:]) or "nothing"
        return f"{self.name} on port {self.port} {happened}; its last lines:\n{lines}"


def start_all(processes: Iterable[FunctionProcess]) -> list[FunctionProcess]:
    """Start every process, then wait for each: they load side by side."""
    started = [process.start() for process in processes]
    return [process.wait_until_ready() for process in started]


def container_env(name: str, *, port: int, threads: int, home: Path) -> dict[str, str]:
    """What Cloud Run sets, and THREADS, without which gunicorn takes 4 for each CPU.

    Of the machine come `FROM_THE_MACHINE` alone: no PYTHONPATH leads back into the checkout, and
    neither a developer's own gcloud login nor a metadata server lends its credentials.
    """
    ours = {key: os.environ[key] for key in FROM_THE_MACHINE if key in os.environ}
    service = name.replace("_", "-")
    return ours | {
        "FUNCTION_TARGET": name,
        "FUNCTION_SIGNATURE_TYPE": "http",
        "HOME": str(home),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "THREADS": str(threads),
        "WORKERS": "1",
        "K_SERVICE": service,
        "K_REVISION": f"{service}-00001-loc",
        "K_CONFIGURATION": service,
        "NO_GCE_CHECK": "true",
        "PYTHONUNBUFFERED": "1",
    }


def _answers(port: int) -> bool:
    """Whether the framework answers; it answers this path itself, the function is not called."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/robots.txt")
        connection.getresponse().read()
        return True
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _children_of(pid: int) -> list[int]:
    kernel = Path(f"/proc/{pid}/task/{pid}/children")
    with suppress(FileNotFoundError):  # macOS, some Linux kernels, or `pid` has ended
        return [int(child) for child in kernel.read_text().split()]
    told = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    return [int(child) for child in told.stdout.split()]


# --- The public address -----------------------------------------------------------------------


class DropConnection(Exception):
    """Raised by an act: the caller's connection is closed without an answer."""


@dataclass(frozen=True)
class FrontCall:
    """One request as it came to the public port."""

    method: str
    path: str  # with the query
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class FrontAnswer:
    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes = field(repr=False)


class Front(Listener):
    """The public address of a function: spreads requests over its instances in turn.

    With `verify` it plays Cloud Run's IAM check. `verify(token)` gives the claims; it raises
    `PermissionError` for a caller that may not invoke (403) and anything else for a token that
    can't be verified (401). A request without a token is answered 403. The function then gets the
    token with its signature replaced. Without `verify` requests pass untouched.

    `before` and `after` arm what happens to a request ahead of the function and to its answer. An
    instance that refuses the connection is passed over; with none left, or when one breaks off, the
    caller gets 503; after `timeout` 504, and the function works on unheard. `backends` may be
    changed at any time. `cold`, where given, is called once, at the first request: it starts the
    instances, as Cloud Run does for a function at rest.
    """

    def __init__(
        self,
        backends: Iterable[int],
        *,
        port: int | None = None,
        verify: Callable[[str], Mapping[str, Any]] | None = None,
        timeout: timedelta = timedelta(seconds=60),
        cold: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(port)
        self.backends = list(backends)
        self._cold = cold
        self._starting = threading.Lock()
        self.before: Faults[FrontCall] = Faults()
        self.after: Faults[FrontCall] = Faults()
        self._verify = verify
        self._timeout = timeout.total_seconds()
        self._turn = 0
        self._in_flight = 0
        self._held: Counter[int] = Counter()
        self._lock = threading.Lock()

    def handler(self) -> type[Handler]:
        return type("FrontHandler", (_FrontHandler,), {"front": self})

    @property
    def in_flight(self) -> int:
        """Requests that have come and have no answer yet."""
        return self._in_flight

    def held_by(self, port: int) -> int:
        """Requests that this instance has and has not answered."""
        return self._held[port]

    def rest(self, cold: Callable[[], None]) -> None:
        """Nothing serves any more: the next request calls `cold`, which starts the instances."""
        with self._starting:
            self.backends, self._cold = [], cold

    def drop_request(self, *, times: int = 1) -> Armed[FrontCall]:
        """Close the next connections before the function hears of them."""
        return self.before.arm(_drop, times=times)

    def drop_answer(self, *, times: int = 1) -> Armed[FrontCall]:
        """Close the next connections after the function has answered."""
        return self.after.arm(_drop, times=times)

    def hold(self, *, times: int | None = 1) -> Gate:
        """Hold the next requests, ahead of the function, until the gate is opened."""
        gate = Gate()
        self.before.arm(gate, times=times)
        return gate

    def answer(self, call: FrontCall) -> FrontAnswer:
        """Check, forward and answer one request; raises `DropConnection`."""
        with self._counted():
            headers = dict(call.headers)
            refusal = self._admit(headers) if self._verify else None
            if refusal is not None:
                return refusal
            self.before.strike(call)
            self._start_if_cold()
            answer = self._forward(call, headers)
            self.after.strike(call)
            return answer

    def _start_if_cold(self) -> None:
        with self._starting:
            if self._cold is not None:
                self._cold()
                self._cold = None

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._in_flight += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_flight -= 1

    def _admit(self, headers: dict[str, str]) -> FrontAnswer | None:
        """Refuse, or take the signature off the token that was checked."""
        names = {name.lower(): name for name in headers}
        # Where both are there, Cloud Run looks at X-Serverless-Authorization alone.
        name = names.get("x-serverless-authorization") or names.get("authorization", "")
        scheme, _, token = headers.get(name, "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return _refusal(403, "Your client does not have permission to get URL from this server")
        assert self._verify is not None
        try:
            self._verify(token)
        except PermissionError:
            return _refusal(403, "Your client does not have permission to get URL from this server")
        except Exception:
            return _refusal(401, "The access token could not be verified")
        headers[name] = f"{scheme} {token.rpartition('.')[0]}.SIGNATURE_REMOVED_BY_GOOGLE"
        return None

    def _forward(self, call: FrontCall, headers: Mapping[str, str]) -> FrontAnswer:
        for port in self._in_turn():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=self._timeout)
            with suppress(ConnectionRefusedError), self._holding(port):
                connection.connect()
                return _exchange(connection, call, headers)
        return _refusal(503, "The request failed because no instance was available")

    @contextmanager
    def _holding(self, port: int) -> Iterator[None]:
        with self._lock:
            self._held[port] += 1
        try:
            yield
        finally:
            with self._lock:
                self._held[port] -= 1

    def _in_turn(self) -> list[int]:
        with self._lock:
            backends = list(self.backends)
            self._turn += 1
        turn = self._turn % len(backends) if backends else 0
        return backends[turn:] + backends[:turn]


def _exchange(
    connection: http.client.HTTPConnection, call: FrontCall, headers: Mapping[str, str]
) -> FrontAnswer:
    try:
        connection.putrequest(call.method, call.path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(call.body or None)
        response = connection.getresponse()
        return FrontAnswer(response.status, response.getheaders(), response.read())
    except TimeoutError:
        return _refusal(504, "The request has been terminated because it has reached the timeout")
    except (OSError, http.client.HTTPException):
        return _refusal(503, "The request failed because the instance broke off the connection")
    finally:
        connection.close()


def _drop(call: object) -> None:
    raise DropConnection


def _refusal(status: int, why: str) -> FrontAnswer:
    headers = [("Content-Type", "text/html; charset=UTF-8")]
    if status == 401:
        told = f'Bearer error="invalid_token" error_description="{why}"'
        headers.append(("WWW-Authenticate", told))
    return FrontAnswer(status, headers, f"<html><body>{why}.</body></html>".encode())


class _FrontHandler(Handler):
    front: Front

    def _serve(self) -> None:
        body = self._read()
        if len(body) > BODY_BYTES:
            self.close_connection = True
            self._send(_refusal(413, "Your client issued a request that was too large"))
            return
        call = FrontCall(self.command, self.path, self._kept_headers(body), body)
        try:
            self._send(self.front.answer(call))
        except DropConnection:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve

    def _kept_headers(self, body: bytes) -> dict[str, str]:
        kept = {name: value for name, value in self.headers.items() if name.lower() not in REMADE}
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            kept["Content-Length"] = str(len(body))
        return kept

    def _read(self) -> bytes:
        """The whole body, chunked ones put together; of one too large, a byte more than allowed."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return b"".join(iter(self._chunk, b""))
        return self.rfile.read(min(int(self.headers.get("Content-Length") or 0), BODY_BYTES + 1))

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().partition(b";")[0], 16)
        chunk = self.rfile.read(size)
        self.rfile.readline()
        return chunk

    def _send(self, answer: FrontAnswer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            if name.lower() not in REMADE:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
