"""Media bytes: objects of the product's bucket, or public https addresses.

What a customer typed as an address is not to be trusted: it must be https, resolve to public
addresses alone, and is connected to by the address that was checked. It is read up to a size.
"""

from __future__ import annotations

import ipaddress
import socket
import tempfile
from datetime import timedelta
from typing import IO, Any, cast
from urllib.parse import urlsplit

import httpx

from shared.domain.failures import PermanentError, TransientError
from shared.domain.media import MediaItem
from shared.storage.signing import signing_credentials

SIGNED_FOR = timedelta(hours=1)
FETCH_BYTES = 100 * 1024 * 1024
FETCH_SECONDS = 20.0
IN_MEMORY_BYTES = 8 * 1024 * 1024
CHUNK_BYTES = 256 * 1024


class MediaStorage:
    """Opens items for upload, and gives the platforms that fetch by themselves a URL."""

    def __init__(self, *, bucket: str | None) -> None:
        """`bucket`: the only bucket that may be read."""
        self._bucket = bucket
        self._client: Any = None
        self._signer: Any = None

    def open(self, item: MediaItem) -> IO[bytes]:
        """Raises `PermanentError` for what cannot be had, `TransientError` for now."""
        if item.uri.startswith("gs://"):
            return self._open_object(item)
        return _fetch(item)

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
        from google.api_core import exceptions

        blob = self._blob(item)
        try:
            blob.reload(timeout=FETCH_SECONDS)
        except exceptions.NotFound:
            message = f"The media asset {item.id} is not in the bucket."
            raise PermanentError(message, code="media_missing") from None
        except (exceptions.GoogleAPICallError, OSError) as error:
            raise TransientError(str(error), code="media_unavailable") from error
        return cast(IO[bytes], blob.open("rb", chunk_size=CHUNK_BYTES))

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


def _fetch(item: MediaItem) -> IO[bytes]:
    parts = urlsplit(item.uri)
    if parts.scheme != "https" or not parts.hostname:
        message = f"The media asset {item.id} is neither in the bucket nor an https address."
        raise PermanentError(message, code="media_address")
    address = _public_address(parts.hostname, parts.port or 443, item)
    pinned = httpx.URL(item.uri).copy_with(host=address)
    spool = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115 - the caller's
    request = {
        "headers": {"Host": parts.netloc},
        "extensions": {"sni_hostname": parts.hostname},
        "timeout": FETCH_SECONDS,
        "follow_redirects": False,
    }
    try:
        with (
            httpx.Client(trust_env=False) as client,
            client.stream("GET", pinned, **cast(Any, request)) as reply,
        ):
            if reply.status_code != 200:
                message = f"The media asset {item.id} answered {reply.status_code}."
                kind = TransientError if reply.status_code >= 500 else PermanentError
                raise kind(message, code="media_unavailable", status=reply.status_code)
            for chunk in reply.iter_bytes(CHUNK_BYTES):
                spool.write(chunk)
                if spool.tell() > FETCH_BYTES:
                    message = f"The media asset {item.id} exceeds {FETCH_BYTES} bytes."
                    raise PermanentError(message, code="media_too_large")
    except httpx.HTTPError as error:
        message = f"The media asset {item.id} cannot be fetched: {type(error).__name__}."
        raise TransientError(message, code="media_unavailable") from error
    spool.seek(0)
    return cast(IO[bytes], spool)


def _public_address(host: str, port: int, item: MediaItem) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        message = f"The address of the media asset {item.id} does not resolve."
        raise TransientError(message, code="media_unavailable") from error
    addresses = [str(entry[4][0]) for entry in found]
    if not all(ipaddress.ip_address(address).is_global for address in addresses):
        message = f"The media asset {item.id} lies at an address that is not public."
        raise PermanentError(message, code="media_not_public")
    return addresses[0]
