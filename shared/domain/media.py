"""Media assets: what a post carries beside its text."""

from __future__ import annotations

from datetime import datetime

from shared.domain.records import Record, Value

_EXTENSIONS = {"quicktime": "mov"}  # the others are called as their type is


class MediaItem(Value):
    """A media asset as it was when the post was scheduled.

    `uri` is gs://bucket/object or https; what is not known about it is None.
    """

    id: str
    uri: str
    content_type: str
    size_bytes: int | None = None
    width: int | None = None
    height: int | None = None
    duration_ms: int | None = None
    alt_text: str | None = None

    @property
    def is_video(self) -> bool:
        return self.content_type.startswith("video/")

    @property
    def file_name(self) -> str:
        """For platforms that tell a file's kind by its name."""
        kind = self.content_type.partition("/")[2]
        return f"{self.id}.{_EXTENSIONS.get(kind, kind)}"


class FoundItem(MediaItem):
    """An item as its file is, whatever was said of it when it was registered.

    Nothing is read of it but what is of this `version`, which its storage understands; "" where
    one version cannot be told from another.
    """

    size_bytes: int
    version: str

    @classmethod
    def of(cls, item: MediaItem, size_bytes: int, version: str) -> FoundItem:
        return cls(**item.model_dump() | {"size_bytes": size_bytes, "version": version})


class MediaAsset(Record):
    """`mediaAssets/{id}`: registered by the backend, resolved onto a post when it is scheduled."""

    company_id: str
    uri: str
    content_type: str
    size_bytes: int | None = None
    width: int | None = None
    height: int | None = None
    duration_ms: int | None = None
    alt_text: str | None = None
    created_at: datetime
    updated_at: datetime

    def item(self, asset_id: str) -> MediaItem:
        shared = self.model_dump(include=set(MediaItem.model_fields) - {"id"})
        return MediaItem(id=asset_id, **shared)
