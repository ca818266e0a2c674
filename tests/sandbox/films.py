"""Videos of any size that take no room: sparse files, no two of whose megabytes are alike."""

from __future__ import annotations

import hashlib
from pathlib import Path

MEGABYTE = 1024 * 1024
HEAD = b"\x00\x00\x00\x18ftypisom"


def film(path: Path, size_bytes: int, take: int = 1) -> str:
    """Write one; its SHA-256. Two takes of one size differ in each megabyte."""
    with path.open("wb") as file:
        file.truncate(size_bytes)
        file.write(HEAD)
        for number in range(size_bytes // MEGABYTE):
            file.seek(number * MEGABYTE + len(HEAD))
            file.write(b"take %d, megabyte %d" % (take, number))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
