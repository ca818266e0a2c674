"""Our adapters before a platform server, with what one attempt would lend them."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import IO, Any

from shared.domain.accounts import Tokens
from shared.domain.media import FoundItem, MediaItem
from shared.platforms.base import (
    App,
    Delivery,
    Grant,
    Platform,
    Processing,
    Published,
)
from shared.platforms.driver import Driver
from shared.platforms.session import Permit, Session
from tests.sandbox.platforms.server import PlatformServer

JPEG = b"\xff\xd8\xff\xe0" + b"a small picture" * 20
PNG = b"\x89PNG\r\n\x1a\n" + b"a small picture" * 20
GIF = b"GIF89a" + b"a small film" * 20
MP4 = b"\x00\x00\x00\x18ftypisom" + b"a small film" * 20
BYTES = {"image/jpeg": JPEG, "image/png": PNG, "image/gif": GIF, "video/mp4": MP4}


@dataclass(slots=True)
class Files:
    """Media kept in memory; `public_url` hosts them on the platform server."""

    server: PlatformServer

    def look(self, item: MediaItem, *, ends_at: float) -> FoundItem:
        return FoundItem.of(item, len(bytes_of(item)), "1")

    def open(
        self, item: MediaItem, span: tuple[int, int] | None = None, *, ends_at: float
    ) -> IO[bytes]:
        first, length = span or (0, None)
        return io.BytesIO(bytes_of(item)[first:][:length])

    def public_url(self, item: MediaItem) -> str:
        if item.uri.startswith("http"):
            return item.uri
        return self.server.host(item.id, bytes_of(item), item.content_type)


def bytes_of(item: MediaItem) -> bytes:
    """As many as the item says that it has, if it says so."""
    return (BYTES[item.content_type] + item.id.encode()).ljust(item.size_bytes or 0, b".")


def item(number: int, content_type: str = "image/jpeg", **about: Any) -> MediaItem:
    uri = f"gs://bucket/{number}"
    return MediaItem(id=f"asset-{number}", uri=uri, content_type=content_type, **about)


@dataclass(slots=True)
class Stage:
    """Publishes through the real driver. `kept` and `marks` are what was put on record."""

    server: PlatformServer
    driver: Driver  # lent by the run: each one reads the certificates of the machine
    kept: list[Mapping[str, Any]] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)
    seconds: float = 45  # that a request has

    def app(self, name: str) -> App:
        settings = self.server.settings()
        upper = name.upper()
        return App(
            api_url=settings[f"{upper}_API_URL"],
            auth_url=settings.get(f"{upper}_AUTH_URL"),
            client_id=settings.get(f"{upper}_CLIENT_ID"),
            client_secret=settings.get(f"{upper}_CLIENT_SECRET"),
        )

    def session(self) -> Session:
        return Session(
            mark_committing=self._mark,
            keep=self.kept.append,
            now=self.server.clock.now,
            ends_at=time.monotonic() + self.seconds,
        )

    def _mark(self, request_hash: str) -> Permit:
        self.marks.append(request_hash)
        send_by = self.server.clock.now() + timedelta(seconds=10)
        return Permit(send_by=send_by, send_by_monotonic=time.monotonic() + 10)

    def publish(self, platform: Platform, delivery: Delivery, token: str) -> Published | Processing:
        return self.driver.publish(platform, delivery, token, self.session()).value

    def lookup(self, platform: Platform, delivery: Delivery, token: str) -> Published:
        """What a lookup finds, by the very driver that publishes."""

        class Finds(type(platform)):  # type: ignore[misc]
            publish = platform.__class__.lookup

        found = self.publish(Finds(platform.app), delivery, token)
        assert isinstance(found, Published)
        return found

    def refresh(self, platform: Platform, tokens: Tokens) -> Grant:
        return self.driver.refresh(platform, tokens, ends_at=time.monotonic() + 10)
