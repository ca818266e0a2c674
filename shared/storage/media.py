"""Media bytes: objects of the product's bucket, or files at public https addresses.

A file is looked at first; what is read of it then is of the version that was found. No more of it
is held than a block, and nothing is kept on disk: on Cloud Functions that is memory too.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Protocol, cast

from shared.domain.bulk import ChangedFileError, MissingFileError
from shared.domain.failures import PermanentError, TransientError, UnavailableError
from shared.domain.media import FoundItem, MediaItem
from shared.storage.files import Files
from shared.storage.web import Web, changed

BLOCK_BYTES = 4 * 1024 * 1024  # read from the bucket at a time: each costs a round trip


class Source(Protocol):
    """Where files lie. Raises `PermanentError` for what cannot be had, `TransientError` for now,
    `TimeoutError` past `ends_at` (monotonic)."""

    def look(self, item: MediaItem, ends_at: float) -> FoundItem: ...

    def blocks(
        self, item: FoundItem, first: int, length: int, ends_at: float
    ) -> Iterator[bytes]: ...


class MediaStorage:
    """Opens items for upload, and gives the platforms that fetch by themselves a URL."""

    def __init__(self, *, bucket: str | None, web: Web | None = None) -> None:
        """`bucket`: the only bucket that may be read."""
        self._bucket = Bucket(bucket)
        self._web = web or Web()

    def look(self, item: MediaItem, *, ends_at: float) -> FoundItem:
        """The item as its file is now; raises as a `Source`."""
        return self._source(item).look(item, ends_at)

    def open(
        self, item: MediaItem, span: tuple[int, int] | None = None, *, ends_at: float
    ) -> IO[bytes]:
        """The whole item as a stream; or a piece of it, first byte and length, in memory. Raises as
        a `Source`, and so does reading it."""
        found = item if isinstance(item, FoundItem) else self.look(item, ends_at=ends_at)

        def blocks(first: int, length: int) -> Iterator[bytes]:
            read = self._source(item).blocks(found, first, length, ends_at)
            return _exactly(length, read, found)

        if span is None:
            return cast(IO[bytes], _Stream(found.size_bytes, blocks))
        return io.BytesIO(b"".join(blocks(*span)))

    def public_url(self, item: MediaItem) -> str:
        """An https URL that anyone may fetch for an hour."""
        return self._bucket.signed_url(item) if _in_bucket(item) else item.uri

    def _source(self, item: MediaItem) -> Source:
        return self._bucket if _in_bucket(item) else self._web


class Bucket:
    """The objects of one bucket; a version is a generation."""

    def __init__(self, name: str | None) -> None:
        self._name = name
        self._files = Files(bucket=name)

    def look(self, item: MediaItem, ends_at: float) -> FoundItem:
        with _told(item, ends_at):
            file = self._files.look(self._object(item), ends_at=ends_at)
        return FoundItem.of(item, file.size_bytes, str(file.generation))

    def blocks(self, item: FoundItem, first: int, length: int, ends_at: float) -> Iterator[bytes]:
        name, generation = self._object(item), int(item.version) if item.version else None
        for begin in range(first, first + length, BLOCK_BYTES):
            size = min(BLOCK_BYTES, first + length - begin)
            with _told(item, ends_at):
                block = self._files.read(name, generation, begin, size, ends_at=ends_at)
            yield block

    def signed_url(self, item: MediaItem) -> str:
        return self._files.signed_url(self._object(item))

    def _object(self, item: MediaItem) -> str:
        bucket, _, name = item.uri.removeprefix("gs://").partition("/")
        if bucket != self._name:
            message = f"The media asset {item.id} lies in another bucket than MEDIA_BUCKET."
            raise PermanentError(message, code="media_foreign_bucket")
        return name


@contextmanager
def _told(item: MediaItem, ends_at: float) -> Iterator[None]:
    """What the bucket says, as failures of ours."""
    try:
        yield
    except MissingFileError:
        message = f"The media asset {item.id} is not in the bucket."
        raise PermanentError(message, code="media_missing") from None
    except ChangedFileError:
        raise changed(item) from None
    except UnavailableError as error:
        if time.monotonic() >= ends_at:
            raise TimeoutError from error
        raise TransientError(error.message, code="media_unavailable") from error


def _in_bucket(item: MediaItem) -> bool:
    return item.uri.startswith("gs://")


def _exactly(length: int, blocks: Iterator[bytes], item: MediaItem) -> Iterator[bytes]:
    """As many bytes as were found: more or fewer are of another file."""
    for block in blocks:
        length -= len(block)
        if length < 0:
            break
        yield block
    if length:
        raise changed(item)


class _Stream(io.RawIOBase):
    """A file that is fetched as it is read, from wherever it is read. It knows its length, so that
    it is sent with one."""

    def __init__(self, size_bytes: int, fetch: Callable[[int, int], Iterator[bytes]]) -> None:
        self._size = size_bytes
        self._fetch = fetch
        self._at = self._fetched_to = 0
        self._blocks: Iterator[bytes] | None = None
        self._block = memoryview(b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        if self._at >= self._size:
            return 0
        if self._blocks is None or self._at != self._fetched_to:
            self._block = memoryview(b"")
            self._blocks = self._fetch(self._at, self._size - self._at)
        while not self._block:
            self._block = memoryview(next(self._blocks))
        size = min(len(buffer), len(self._block))
        buffer[:size], self._block = self._block[:size], self._block[size:]
        self._at += size
        self._fetched_to = self._at
        return size

    def close(self) -> None:
        self._blocks, self._block = None, memoryview(b"")  # the connection goes with them
        super().close()
