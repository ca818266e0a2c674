"""Files in the bucket: read by ranges, written in parts, joined on the service's side.

Nothing here ever holds a whole file. A read is pinned to one generation of its object; an object
that was overwritten meanwhile is a `ChangedFileError`, an answer that broke off is never taken for
the end of the file.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from shared.domain.bulk import ChangedFileError, MissingFileError
from shared.domain.failures import UnavailableError
from shared.storage.signing import signing_credentials

CALL_SECONDS = 10.0
RETRIED_FOR_SECONDS = 12.0
BLOCK_BYTES = 1024 * 1024
COMPOSED_AT_ONCE = 32  # what Cloud Storage takes
LINK_LASTS = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class StoredFile:
    name: str
    generation: int
    size_bytes: int
    crc32c: str
    encoding: str | None


class Files:
    def __init__(self, *, bucket: str | None) -> None:
        self.bucket = bucket
        self._client: Any = None
        self._signer: Any = None

    def look(self, name: str, *, ends_at: float | None = None) -> StoredFile:
        """The live object. Raises `MissingFileError`; past `ends_at` (monotonic) `TimeoutError`."""
        blob, patience = self._blob(name), _patience(ends_at)
        with _bounded(missing=MissingFileError):
            blob.reload(**patience)
        return _stored(blob)

    def read(
        self,
        name: str,
        generation: int | None,
        start: int,
        length: int,
        *,
        ends_at: float | None = None,
    ) -> bytes:
        """Exactly these bytes of this very generation. Raises `ChangedFileError`; past `ends_at`
        (monotonic) `TimeoutError`."""
        patience = _patience(ends_at)
        blob = self._blob(name, generation)
        with _bounded(missing=ChangedFileError):
            block = blob.download_as_bytes(
                start=start,
                end=start + length - 1,
                raw_download=True,
                checksum=None,  # the service has one for the whole object alone
                **patience,
            )
        if len(block) != length:
            raise UnavailableError("The file was read short. Try again.", code="storage_down")
        return cast(bytes, block)

    def blocks(self, name: str, generation: int, start: int, size: int) -> Iterator[bytes]:
        """The object from `start` on, block by block."""
        while start < size:
            length = min(BLOCK_BYTES, size - start)
            yield self.read(name, generation, start, length)
            start += length

    def load(self, name: str) -> bytes:
        """A small file of our own. Raises `MissingFileError`."""
        with _bounded(missing=MissingFileError):
            data = self._blob(name).download_as_bytes(timeout=CALL_SECONDS, retry=_retry())
        return cast(bytes, data)

    def write(self, name: str, data: bytes, content_type: str) -> StoredFile:
        """The same bytes under the same name again change nothing that anyone sees."""
        blob = self._blob(name)
        with _bounded(missing=MissingFileError):
            blob.upload_from_string(
                data, content_type=content_type, timeout=CALL_SECONDS, retry=_retry()
            )
        return _stored(blob)

    def join(self, names: Sequence[str], into: str, content_type: str) -> StoredFile:
        """One file of many, made by the service: no byte of it passes through here."""
        level = 0
        while len(names) > COMPOSED_AT_ONCE:
            level += 1
            groups = [
                names[at : at + COMPOSED_AT_ONCE] for at in range(0, len(names), COMPOSED_AT_ONCE)
            ]
            names = [
                self._compose(group, f"{names[0]}.{level}-{n}", content_type).name
                for n, group in enumerate(groups)
            ]
        return self._compose(names, into, content_type)

    def _compose(self, names: Sequence[str], into: str, content_type: str) -> StoredFile:
        blob = self._blob(into)
        blob.content_type = content_type
        with _bounded(missing=MissingFileError):
            blob.compose([self._blob(name) for name in names], timeout=CALL_SECONDS, retry=_retry())
        return _stored(blob)

    def sha256(self, file: StoredFile, ends_at: float) -> str | None:
        """Of the bytes as they lie there, in hex, held against the service's own checksum. None
        when `ends_at` (monotonic) came first: a hash cannot be gone on with later."""
        import google_crc32c

        digest, check = hashlib.sha256(), google_crc32c.Checksum()
        for block in self.blocks(file.name, file.generation, 0, file.size_bytes):
            if time.monotonic() >= ends_at:
                return None
            digest.update(block)
            check.update(block)
        if base64.b64encode(check.digest()).decode() != file.crc32c:
            raise UnavailableError("The file was read wrong. Try again.", code="storage_down")
        return digest.hexdigest()

    def link(self, name: str, filename: str) -> str:
        """An https URL that anyone who has it may fetch for an hour. It is not kept anywhere."""
        return self.signed_url(name, response_disposition=f'attachment; filename="{filename}"')

    def signed_url(self, name: str, **more: Any) -> str:
        if self._signer is None:
            self._signer = signing_credentials()
        url = self._blob(name).generate_signed_url(
            version="v4", expiration=LINK_LASTS, method="GET", credentials=self._signer, **more
        )
        return cast(str, url)

    def _blob(self, name: str, generation: int | None = None) -> Any:
        if self._client is None:
            from google.cloud import storage  # a third of the function's imports: only where used

            self._client = storage.Client()
        return self._client.bucket(self.bucket).blob(name, generation=generation)


def _stored(blob: Any) -> StoredFile:
    return StoredFile(
        name=blob.name,
        generation=int(blob.generation),
        size_bytes=int(blob.size),
        crc32c=blob.crc32c,
        encoding=blob.content_encoding,
    )


def _retry(seconds: float = RETRIED_FOR_SECONDS) -> Any:
    """All calls here can be repeated: they read, or write the same bytes again."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(min(seconds, RETRIED_FOR_SECONDS))


def _patience(ends_at: float | None) -> dict[str, Any]:
    """How long a call that reads may take, and be repeated."""
    left = RETRIED_FOR_SECONDS if ends_at is None else ends_at - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return {"timeout": min(left, CALL_SECONDS), "retry": _retry(left)}


@contextmanager
def _bounded(*, missing: type[Exception]) -> Iterator[None]:
    from google.api_core import exceptions

    try:
        yield
    except (exceptions.NotFound, exceptions.PreconditionFailed) as error:
        raise missing(str(error)) from error
    except (exceptions.GoogleAPICallError, exceptions.RetryError, OSError) as error:
        message = "The bucket does not answer. Try again shortly."
        raise UnavailableError(message, code="storage_down") from error
