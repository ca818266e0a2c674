"""Media bytes: objects of the product's bucket, or public https addresses.

What a customer typed as an address is not to be trusted: it must be https, resolve to public
addresses alone, and is connected to by the address that was checked. It is read up to a size.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import SEEK_END, BytesIO
from typing import IO, Any, cast
from urllib.parse import urlsplit

import httpx

from shared.domain.addresses import public_one
from shared.domain.failures import PermanentError, TransientError
from shared.domain.media import MediaItem
from shared.storage.signing import signing_credentials

SIGNED_FOR = timedelta(hours=1)
FETCH_BYTES = 100 * 1024 * 1024
FETCH_SECONDS = 20.0
IN_MEMORY_BYTES = 8 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024  # read from the bucket at a time: each costs a round trip


class MediaStorage:
    """Opens items for upload, and gives the platforms that fetch by themselves a URL."""

    def __init__(self, *, bucket: str | None) -> None:
        """`bucket`: the only bucket that may be read."""
        self._bucket = bucket
        self._client: Any = None
        self._signer: Any = None

    def open(self, item: MediaItem, span: tuple[int, int] | None = None) -> IO[bytes]:
        """The whole item as a stream; or a piece of it, first byte and length, in memory.

        Raises `PermanentError` for what cannot be had, `TransientError` for now.
        """
        in_bucket = item.uri.startswith("gs://")
        if span is None:
            return self._open_object(item) if in_bucket else _fetch(item)
        return self._read_object(item, *span) if in_bucket else _fetch(item, span)

    def public_url(self, item: MediaItem) -> str:
        """An https URL that anyone may fetch for an hour."""
        if not item.uri.startswith("gs://"):
            return item.uri
        if self._signer is None:
            self._signer = signing_credentials()
        url = self._blob(item).generate_signed_url(
            version="v4", expiration=SIGNED_FOR, method="GET", credentials=self._signer
        )
        return cast(str, url)

    def _open_object(self, item: MediaItem) -> IO[bytes]:
        blob = self._blob(item)
        with _told(item):
            blob.reload(timeout=FETCH_SECONDS)
        return cast(IO[bytes], blob.open("rb", chunk_size=CHUNK_BYTES))

    def _read_object(self, item: MediaItem, first: int, length: int) -> IO[bytes]:
        last = first + length - 1
        with _told(item):
            piece = self._blob(item).download_as_bytes(
                start=first, end=last, timeout=FETCH_SECONDS, retry=None
            )
        return _whole(piece, length, item)

    def _blob(self, item: MediaItem) -> Any:
        bucket, _, name = item.uri.removeprefix("gs://").partition("/")
        if bucket != self._bucket:
            message = f"The media asset {item.id} lies in another bucket than MEDIA_BUCKET."
            raise PermanentError(message, code="media_foreign_bucket")
        return self._storage().bucket(bucket).blob(name)

    def _storage(self) -> Any:
        if self._client is None:
            from google.cloud import storage  # a third of the function's imports: only where used

            self._client = storage.Client()
        return self._client


@contextmanager
def _told(item: MediaItem) -> Iterator[None]:
    """What the bucket says, as failures of ours."""
    from google.api_core import exceptions

    try:
        yield
    except exceptions.NotFound:
        message = f"The media asset {item.id} is not in the bucket."
        raise PermanentError(message, code="media_missing") from None
    except exceptions.RequestRangeNotSatisfiable:
        raise _changed(item) from None
    except (exceptions.GoogleAPICallError, OSError) as error:
        raise TransientError(str(error), code="media_unavailable") from error


def _whole(piece: bytes, length: int, item: MediaItem) -> IO[bytes]:
    if len(piece) != length:
        raise _changed(item)
    return BytesIO(piece)


def _changed(item: MediaItem) -> PermanentError:
    message = f"The media asset {item.id} is shorter than it was said to be when registered."
    return PermanentError(message, code="media_changed")


def _fetch(item: MediaItem, span: tuple[int, int] | None = None) -> IO[bytes]:
    parts = urlsplit(item.uri)
    if parts.scheme != "https" or not parts.hostname:
        message = f"The media asset {item.id} is neither in the bucket nor an https address."
        raise PermanentError(message, code="media_address")
    address = _public_address(parts.hostname, parts.port or 443, item)
    pinned = httpx.URL(item.uri).copy_with(host=address)
    headers = {"Host": parts.netloc}
    if span is not None:
        headers["Range"] = f"bytes={span[0]}-{span[0] + span[1] - 1}"
    request = {
        "headers": headers,
        "extensions": {"sni_hostname": parts.hostname},
        "timeout": FETCH_SECONDS,
        "follow_redirects": False,
    }
    try:
        with (
            httpx.Client(trust_env=False) as client,
            client.stream("GET", pinned, **cast(Any, request)) as reply,
        ):
            _check(reply, item, wanted=200 if span is None else 206)
            fetched = _spool(reply, item, FETCH_BYTES if span is None else span[1])
    except httpx.HTTPError as error:
        message = f"The media asset {item.id} cannot be fetched: {type(error).__name__}."
        raise TransientError(message, code="media_unavailable") from error
    if span is not None and fetched.seek(0, SEEK_END) != span[1]:
        raise _changed(item)
    fetched.seek(0)
    return fetched


def _check(reply: httpx.Response, item: MediaItem, *, wanted: int) -> None:
    if reply.status_code == wanted:
        return
    if reply.status_code == 200:
        message = f"The server of the media asset {item.id} gives no pieces of it, only the whole."
        raise PermanentError(message, code="media_unavailable")
    message = f"The media asset {item.id} answered {reply.status_code}."
    kind = TransientError if reply.status_code >= 500 else PermanentError
    raise kind(message, code="media_unavailable", status=reply.status_code)


def _spool(reply: httpx.Response, item: MediaItem, most_bytes: int) -> IO[bytes]:
    spool = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115 - the caller's
    for chunk in reply.iter_bytes(CHUNK_BYTES):
        spool.write(chunk)
        if spool.tell() > most_bytes:
            message = f"The media asset {item.id} exceeds {most_bytes} bytes."
            raise PermanentError(message, code="media_too_large")
    return cast(IO[bytes], spool)


def _public_address(host: str, port: int, item: MediaItem) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        message = f"The address of the media asset {item.id} does not resolve."
        raise TransientError(message, code="media_unavailable") from error
    address = public_one(found)
    if address is None:
        message = f"The media asset {item.id} lies at an address that is not public."
        raise PermanentError(message, code="media_not_public")
    return address
