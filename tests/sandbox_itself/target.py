"""An HTTP server for tests that records what it is sent and answers as told."""

import http.server
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Got:
    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes


@dataclass(frozen=True)
class Reply:
    status: int = 200
    headers: Mapping[str, str] | None = None
    body: bytes = b""
    after: float = 0.0  # real seconds
    until: threading.Event | None = None  # held back until it is set, at most 10 s


Answer = Callable[[Got], Reply]


class Target:
    """Listens on loopback; `answer` may be replaced at any time."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.answer: Answer = answer or (lambda got: Reply())
        self.got: list[Got] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> "Target":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def statuses(self, *statuses: int) -> None:
        """Answer these one after the other, then the last for ever."""
        left = list(statuses)
        self.answer = lambda got: Reply(left.pop(0) if len(left) > 1 else left[0])

    def clear(self) -> None:
        self.got.clear()
        self.answer = lambda got: Reply()

    def take(self, got: Got) -> Reply:
        with self._lock:
            self.got.append(got)
            reply = self.answer(got)
        time.sleep(reply.after)
        if reply.until is not None:
            reply.until.wait(timeout=10)
        return reply


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def handle_error(self, *_: object) -> None: ...  # the other side hung up


def _handler(target: Target) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): text for name, text in self.headers.items()}
            reply = target.take(Got(self.command, self.path, headers, body))
            self.send_response(reply.status)
            for name, text in (reply.headers or {}).items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_POST = do_PUT = do_DELETE = _serve

        def log_message(self, *_: object) -> None: ...

    return Handler
