"""HTTP servers of the sandbox: a port of this machine, and a thread for each connection."""

from __future__ import annotations

import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from tests.sandbox.children import SandboxError


class Handler(BaseHTTPRequestHandler):
    """A connection, kept alive. Callers that hang up are nothing to tell of."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave together; apart, a delayed ACK costs 40 ms

    def handle_one_request(self) -> None:
        with suppress(ConnectionError):
            super().handle_one_request()
            return
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet: what was refused is in the answer."""


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    block_on_close = False


class Listener:
    """Answers on `port`, or a free one, between `start` and `stop`; `handler` is what answers."""

    def __init__(self, port: int | None) -> None:
        self._port = port
        self._http: ThreadingHTTPServer | None = None

    def handler(self) -> type[Handler]:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        if self._http is None:
            raise SandboxError(f"This {type(self).__name__} is not started.")
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> str:
        self._http = _Http(("127.0.0.1", self._port or 0), self.handler())
        threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        return self.url

    def stop(self) -> None:
        """Close the port; a second call does nothing."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None
