"""HTTP as spoken to platforms: one deadline for a whole call, and certainty about the first byte.

httpx's time-outs bound each wait on the socket, not the call: a server that sends a byte every ten
seconds holds it for ever. And its errors do not say whether the request had been written. Both
matter here, so httpx runs over an httpcore pool whose sockets know their call: every wait ends at
the call's deadline, and `Wire.written` turns true just before the first byte of the request leaves.
No redirect is followed, nothing is retried, no proxy of the environment is used.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpcore
import httpx

from shared.domain.addresses import admitted

BODY_BYTES = 2 * 1024 * 1024  # of an answer; no platform's answer to a post comes near
CONNECT_SECONDS = 5.0

# httpx tells every URL to whoever listens, and some platforms want their token in it.
logging.getLogger("httpx").disabled = True

# What httpcore raises when the other side, or the way there, fails.
FAILURES = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
    httpcore.ConnectionNotAvailable,
)


class NotPublicError(Exception):
    """The host that an account names leads into a network of ours."""


class AnswerTooLargeError(httpcore.ProtocolError):
    pass


@dataclass(slots=True)
class Wire:
    """One call on its way. `before_write` is asked before each write, head and body: where it
    raises, nothing more leaves. `public`: it goes to a host that an account names, and must not
    lead into a network of ours; `NotPublicError` else."""

    ends_at: float  # monotonic seconds
    before_write: Callable[[], None] = field(default=lambda: None)
    written: bool = False
    public: bool = False

    def remaining(self, asked: float | None) -> float:
        left = self.ends_at - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the call's deadline has passed")
        return left if asked is None else min(asked, left)


_current: ContextVar[Wire] = ContextVar("current_wire")


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _current.get().remaining(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        wire = _current.get()
        left = wire.remaining(timeout)
        wire.before_write()
        wire.written = True
        self._inner.write(buffer, left)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = _current.get().remaining(timeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Backend(httpcore.NetworkBackend):
    def __init__(self) -> None:
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        wire = _current.get()
        if wire.public:
            host = _looked_at(host, port)
        left = wire.remaining(timeout)
        return _Stream(self._sockets.connect_tcp(host, port, left, local_address, socket_options))

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing is retried here")


def _looked_at(host: str, port: int) -> str:
    """A public address of the host."""
    try:
        address = admitted(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except OSError as error:
        raise httpcore.ConnectError(str(error)) from error
    if address is None:
        raise NotPublicError(host)
    return address


@cache
def _ssl_context() -> ssl.SSLContext:
    """One for all: making one costs 45 ms of CPU."""
    return httpx.create_ssl_context(trust_env=False)


class _Transport(httpx.BaseTransport):
    def __init__(self, *, keep_alive: bool) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=_ssl_context(),
            max_connections=64,
            max_keepalive_connections=16 if keep_alive else 0,
            keepalive_expiry=20,
            network_backend=_Backend(),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        inner = httpcore.Request(
            method=request.method,
            url=httpcore.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=request.url.raw_path,
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions={"timeout": {"connect": CONNECT_SECONDS, "pool": CONNECT_SECONDS}},
        )
        answer = self._pool.handle_request(inner)
        try:
            body = bytearray()
            for chunk in answer.iter_stream():
                body += chunk
                if len(body) > BODY_BYTES:
                    raise AnswerTooLargeError(f"the answer exceeds {BODY_BYTES} bytes")
        finally:
            answer.close()
        return httpx.Response(
            answer.status, headers=answer.headers, content=bytes(body), request=request
        )

    def close(self) -> None:
        self._pool.close()


class Client:
    """Sends requests, each within its own deadline."""

    def __init__(self, *, keep_alive: bool) -> None:
        self._client = httpx.Client(
            transport=_Transport(keep_alive=keep_alive),
            follow_redirects=False,
            trust_env=False,
            headers={"Accept-Encoding": "identity", "User-Agent": "TendSocialJobs/1"},
        )

    def send(self, wire: Wire, method: str, url: str, **content: Any) -> httpx.Response:
        """The answer; else one of `FAILURES`, with `wire.written` telling whether it had left."""
        token = _current.set(wire)
        try:
            return self._client.request(method, url, **content)
        finally:
            _current.reset(token)
