"""Files at public https addresses.

What a customer typed as an address is not to be trusted: it must be https, resolve to public
addresses alone, and one of those that were checked is connected to; no redirect is followed. Its
server may answer as it likes: it is read for as long, and up to as many bytes, as we chose.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpcore
import httpx

from shared.domain.addresses import Admits, admitted, is_public
from shared.domain.failures import PermanentError, TransientError
from shared.domain.media import FoundItem, MediaItem

MOST_BYTES = 1024 * 1024 * 1024  # no platform takes more
COUNTED_BYTES = 100 * 1024 * 1024  # of a file whose server does not say how large it is
WAIT_SECONDS = 10.0  # for the next bytes

FAILURES = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
)


class Web:
    """`admits` says which addresses may be connected to, `tls` whose certificates are believed:
    those of the public authorities, unless it is given."""

    def __init__(self, *, admits: Admits = is_public, tls: ssl.SSLContext | None = None) -> None:
        self._admits = admits
        self._given_tls = tls

    def look(self, item: MediaItem, ends_at: float) -> FoundItem:
        """By asking for the first byte: the answer to that tells the size of the whole."""
        with self._get(item, "bytes=0-0", ends_at) as reply:
            size = reply.size()
            if size is None:
                size = _counted(reply, item)
            if size > MOST_BYTES:
                raise _too_large(item, MOST_BYTES)
            return FoundItem.of(item, size, reply.version)

    def blocks(self, item: FoundItem, first: int, length: int, ends_at: float) -> Iterator[bytes]:
        """Of the version that was found. A server may give no pieces, only the whole."""
        is_whole = (first, length) == (0, item.size_bytes)
        span = None if is_whole else f"bytes={first}-{first + length - 1}"
        with self._get(item, span, ends_at) as reply:
            if item.version and reply.version and reply.version != item.version:
                raise changed(item)
            if span and reply.status == 200:
                message = f"The server of the media asset {item.id} gives no pieces of it."
                raise PermanentError(message, code="media_unavailable")
            if span and reply.span != f"bytes {first}-{first + length - 1}/{item.size_bytes}":
                raise changed(item)
            if not span and reply.size() not in (None, item.size_bytes):
                raise changed(item)
            yield from reply.blocks

    @contextmanager
    def _get(self, item: MediaItem, span: str | None, ends_at: float) -> Iterator[_Reply]:
        url = _url(item)
        headers = [("Accept-Encoding", "identity"), *([("Range", span)] if span else [])]
        backend = _Backend(item, self._admits, ends_at)
        try:
            # A connection is for one request: another host may share its address.
            with (
                httpcore.ConnectionPool(self._tls, network_backend=backend) as pool,
                pool.stream("GET", url, headers=headers) as answer,
            ):
                reply = _Reply(answer.status, httpx.Headers(answer.headers), answer.iter_stream())
                _check(reply, item)
                yield reply
        except FAILURES as error:
            if time.monotonic() >= ends_at:
                raise TimeoutError from error
            message = f"The media asset {item.id} cannot be fetched: {type(error).__name__}."
            raise TransientError(message, code="media_unavailable") from error

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """One for all: making one costs 45 ms of CPU."""
        return self._given_tls or httpx.create_ssl_context(trust_env=False)


def changed(item: MediaItem) -> PermanentError:
    message = f"The file of the media asset {item.id} was changed while it was being sent."
    return PermanentError(message, code="media_changed")


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    headers: httpx.Headers
    blocks: Iterable[bytes]

    @property
    def version(self) -> str:
        """Its ETag, or when it was last changed; "" where the server tells neither."""
        return str(self.headers.get("ETag") or self.headers.get("Last-Modified") or "")

    @property
    def span(self) -> str:
        return str(self.headers.get("Content-Range", ""))

    def size(self) -> int | None:
        """Of the whole file, by the answer to a question for its first byte."""
        if self.status == 206:
            told = re.fullmatch(r"bytes 0-0/(\d+)", self.span)
            return int(told[1]) if told else None
        length = self.headers.get("Content-Length", "")
        return int(length) if length.isdigit() else None


def _url(item: MediaItem) -> httpcore.URL:
    try:
        url = httpx.URL(item.uri)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme != "https" or not url.host:
        message = f"The media asset {item.id} is neither in the bucket nor an https address."
        raise PermanentError(message, code="media_address")
    return httpcore.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )


def _check(reply: _Reply, item: MediaItem) -> None:
    if reply.status not in (200, 206):
        message = f"The media asset {item.id} answered {reply.status}."
        kind = TransientError if reply.status >= 500 else PermanentError
        raise kind(message, code="media_unavailable", status=reply.status)
    if reply.headers.get("Content-Encoding", "identity") != "identity":
        message = f"The server of the media asset {item.id} gives it compressed only."
        raise PermanentError(message, code="media_unavailable")


def _counted(reply: _Reply, item: MediaItem) -> int:
    """The size of a file whose server does not tell it."""
    if reply.status == 206:
        message = f"The server of the media asset {item.id} does not say how large it is."
        raise PermanentError(message, code="media_unavailable")
    size = 0
    for block in reply.blocks:
        size += len(block)
        if size > COUNTED_BYTES:
            raise _too_large(item, COUNTED_BYTES, ", and its server does not say how large it is")
    return size


def _too_large(item: MediaItem, most_bytes: int, besides: str = "") -> PermanentError:
    message = f"The media asset {item.id} exceeds {most_bytes} bytes{besides}."
    return PermanentError(message, code="media_too_large")


class _Backend(httpcore.NetworkBackend):
    """Connects to nothing but what `admits` lets pass, and waits for nothing past `ends_at`."""

    def __init__(self, item: MediaItem, admits: Admits, ends_at: float) -> None:
        self._item = item
        self._admits = admits
        self._ends_at = ends_at

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        address, wait = self._address(host, port), _left(self._ends_at)
        inner = httpcore.SyncBackend().connect_tcp(address, port, wait)
        return _Stream(inner, self._ends_at)

    def _address(self, host: str, port: int) -> str:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            message = f"The address of the media asset {self._item.id} does not resolve."
            raise TransientError(message, code="media_unavailable") from error
        address = admitted(found, self._admits)
        if address is None:
            message = f"The media asset {self._item.id} lies at an address that is not public."
            raise PermanentError(message, code="media_not_public")
        return address


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, ends_at: float) -> None:
        self._inner = inner
        self._ends_at = ends_at

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _left(self._ends_at))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, _left(self._ends_at))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        inner = self._inner.start_tls(ssl_context, server_hostname, _left(self._ends_at))
        return _Stream(inner, self._ends_at)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _left(ends_at: float) -> float:
    left = ends_at - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return min(left, WAIT_SECONDS)
