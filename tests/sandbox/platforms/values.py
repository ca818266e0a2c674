"""What the platform server remembers and answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

HEAD_BYTES = 64  # which tell a file's kind


@dataclass(frozen=True, slots=True)
class Content:
    """What is remembered of bytes that went by."""

    size_bytes: int
    sha256: str
    head: bytes

    @classmethod
    def of(cls, blocks: Iterable[bytes]) -> Content:
        digest, size, head = hashlib.sha256(), 0, b""
        for block in blocks:
            digest.update(block)
            size += len(block)
            head += block[: HEAD_BYTES - len(head)]
        return cls(size, digest.hexdigest(), head)


@dataclass(frozen=True, slots=True)
class Received:
    """One request, as it arrived. `call` is named as the adapter names it; "" is no such route.

    `parts` are the variable segments of the path, `path` is without the platform's prefix. Of a
    large body `body` is the beginning: `content` tells of all of it.
    """

    platform: str
    call: str
    method: str
    path: str
    query: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    content: Content
    at: datetime
    parts: Mapping[str, str] = field(default_factory=dict)
    polls: int = 0  # how often media made by this call will still be IN_PROGRESS

    @property
    def token(self) -> str | None:
        kind, _, token = self.headers.get("authorization", "").partition(" ")
        return token if kind == "Bearer" and token else None

    @property
    def params(self) -> dict[str, str]:
        return dict(parse_qsl(self.query, keep_blank_values=True))

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip()

    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))

    def json(self) -> Any:
        """The body; None where it is none. Raises ValueError where it is broken."""
        return json.loads(self.body) if self.body else None


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Any = None  # JSON, or bytes as they are; None is no body
    headers: Mapping[str, str] = field(default_factory=dict)

    def encoded(self) -> tuple[bytes, str]:
        if self.body is None:
            return b"", "text/plain"
        if isinstance(self.body, bytes):
            return self.body, "text/html"
        return json.dumps(self.body).encode(), "application/json"


class Refused(Exception):
    """Raised by a dialect to answer with a refusal from anywhere inside a call."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Media:
    """An image or video that the platform holds: its bytes, or where it was fetched from."""

    id: str
    content_type: str
    size_bytes: int
    sha256: str
    url: str | None = None
    alt_text: str | None = None


@dataclass(frozen=True, slots=True)
class Post:
    """A post, or a comment on one, that exists on a platform. `text` is as a reader sees it."""

    platform: str
    id: str
    account: str
    text: str
    at: datetime
    media: tuple[Media, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)  # all that was sent
    comment_on: str | None = None  # the id of a post


@dataclass(slots=True)
class Token:
    platform: str
    user_ids: set[str]
    issued_at: datetime
    expires_at: datetime
    revoked: bool = False
    handle: str | None = None
