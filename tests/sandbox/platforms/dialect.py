"""What every platform of the sandbox has: routes, tokens, posts, and its own words for failures."""

from __future__ import annotations

import io
import re
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Protocol

from werkzeug.formparser import FormDataParser

from tests.sandbox.platforms.values import Answer, Content, Media, Post, Received, Refused, Token

Handler = Callable[[Any, Received], Answer]


class Now(Protocol):
    def now(self) -> datetime: ...


class Route:
    """`"GET /2/users/{id}/tweets"`, as a pattern."""

    def __init__(self, line: str, call: str, handler: Handler) -> None:
        self.method, _, template = line.partition(" ")
        self.call, self.handler = call, handler
        self._pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template))

    def match(self, method: str, path: str) -> Mapping[str, str] | None:
        found = self._pattern.fullmatch(path) if method == self.method else None
        return found.groupdict() if found else None


class Dialect:
    """One platform. Calls run one at a time, under its lock."""

    name: ClassVar[str]
    user_id: ClassVar[str] = "{}"  # of an account, by its number
    access_life: ClassVar[timedelta] = timedelta(days=60)
    duplicate_window: timedelta = timedelta(hours=24)

    def __init__(self, clock: Now, base_url: Callable[[], str]) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self.base_url = base_url
        self.client_id = f"{self.name}-client"
        self.client_secret = f"{self.name}-secret"
        self.routes: list[Route] = self.make_routes()
        self.clear()

    def clear(self) -> None:
        self.posts: list[Post] = []
        self.tokens: dict[str, Token] = {}
        self.refresh_tokens: dict[str, str] = {}  # to the access token that it came with
        self.media: dict[str, Media] = {}
        self.figures: dict[str, dict[str, int | float | None]] = {}  # by post, its own names
        self._serial = 0
        self.duplicate_window = type(self).duplicate_window

    def make_routes(self) -> list[Route]:
        raise NotImplementedError

    def name_call(self, call: str, parts: Mapping[str, str]) -> str:
        """`call`, where the path alone does not tell what is asked for."""
        return call

    # its own words

    def unknown_route(self, received: Received) -> Answer:
        return self.failure(404, "Not found")

    def failure(self, status: int, message: str, **more: Any) -> Answer:
        raise NotImplementedError

    def throttled(
        self, *, seconds: int = 900, daily: bool = False, scope: str = "account"
    ) -> Answer:
        raise NotImplementedError

    def without_id(self, answer: Answer) -> Answer:
        raise NotImplementedError

    # tokens

    def authorize(self, received: Received) -> Token:
        """The token that this request carries, or a refusal."""
        token = self.tokens.get(received.token or "")
        if token is None or token.revoked or self.clock.now() >= token.expires_at:
            raise Refused(self.token_refused(token))
        return token

    def token_refused(self, token: Token | None) -> Answer:
        raise NotImplementedError

    def secret_of(self, received: Received) -> str:
        """Where this request says who makes it: in a header, or in the path."""
        return received.headers.get("authorization", "") + received.path

    def issue(self, old: Token | None, user_ids: set[str], handle: str | None) -> str:
        access = f"{self.name}-access-{secrets.token_hex(8)}"
        now = self.clock.now()
        self.tokens[access] = Token(
            platform=self.name,
            user_ids=user_ids,
            issued_at=now,
            expires_at=now + self.access_life,
            handle=handle,
        )
        return access

    def exchange(self, refresh_token: str, *, rotate: bool) -> dict[str, Any] | None:
        """A new access token; None where the refresh token is dead."""
        access = self.refresh_tokens.get(refresh_token)
        if access is None or self.tokens[access].revoked:
            return None
        old = self.tokens[access]
        newer = self.issue(old, old.user_ids, old.handle)
        kept = refresh_token
        if rotate:
            del self.refresh_tokens[refresh_token]
            kept = f"{self.name}-refresh-{secrets.token_hex(8)}"
        self.refresh_tokens[kept] = newer
        life = int(self.access_life.total_seconds())
        return {"access_token": newer, "refresh_token": kept, "expires_in": life}

    # media and posts

    def number(self, epoch: datetime) -> int:
        """A number whose upper bits tell the time, as these platforms make theirs."""
        self._serial += 1
        milliseconds = int((self.clock.now() - epoch) / timedelta(milliseconds=1))
        return (milliseconds << 22) | (self._serial & 0x3FFFFF)

    def hold_media(
        self, media_id: str, content: Content, content_type: str, url: str | None = None
    ) -> Media:
        held = Media(
            id=media_id,
            content_type=content_type,
            size_bytes=content.size_bytes,
            sha256=content.sha256,
            url=url,
        )
        self.media[media_id] = held
        return held

    @property
    def standalone(self) -> list[Post]:
        """Posts, without the comments on them."""
        return [post for post in self.posts if post.comment_on is None]

    def duplicate_of(self, account: str, text: str, media: tuple[Media, ...]) -> Post | None:
        """A recent post of this account with the same text and pictures."""
        since = self.clock.now() - self.duplicate_window
        shown = [item.sha256 for item in media]
        for post in self.standalone:
            same = post.account == account and post.text == text and post.at > since
            if same and [item.sha256 for item in post.media] == shown:
                return post
        return None


class Pieces:
    """A file that comes in pieces, all of one size but the last; one that comes again replaces the
    first. They lie on disk."""

    def __init__(self, piece_bytes: int) -> None:
        self._piece_bytes = piece_bytes
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - goes when nobody holds it
        self.lengths: dict[int, int] = {}

    def put(self, index: int, body: bytes) -> None:
        self._file.seek(index * self._piece_bytes)
        self._file.write(body)
        self.lengths[index] = len(body)

    def content(self) -> Content:
        """Of all that is there, in its order."""
        return Content.of(self._read())

    def _read(self) -> Iterator[bytes]:
        for index in sorted(self.lengths):
            self._file.seek(index * self._piece_bytes)
            yield self._file.read(self.lengths[index])


@dataclass(frozen=True, slots=True)
class Part:
    """A file inside a multipart body."""

    filename: str
    content_type: str
    body: bytes

    @property
    def content(self) -> Content:
        return Content.of([self.body])


def multipart(received: Received) -> tuple[dict[str, str], dict[str, Part]]:
    """The fields and the files of a body. Raises ValueError where it is no multipart body."""
    if received.content_type != "multipart/form-data":
        raise ValueError("the body is not multipart/form-data")
    options = received.headers["content-type"].split(";")[1:]
    _, form, files = FormDataParser(silent=False).parse(
        io.BytesIO(received.body),
        received.content_type,
        len(received.body),
        dict(pair.strip().split("=", 1) for pair in options),
    )
    parts = {
        name: Part(file.filename or "", file.content_type or "", file.read())
        for name, file in files.items()
    }
    return form.to_dict(), parts


def content_type_of(body: bytes) -> str | None:
    """By its first bytes; None for what is neither an image nor a video."""
    if body.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if body.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if body.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if body.startswith(b"RIFF") and body[8:12] == b"WEBP":
        return "image/webp"
    return "video/mp4" if body[4:8] == b"ftyp" else None


def check_fields(
    given: Any, allowed: Mapping[str, type | tuple[type, ...]], required: tuple[str, ...] = ()
) -> str | None:
    """What is wrong with an object's names and types; None when nothing is."""
    if not isinstance(given, dict):
        return "the body is not an object"
    for name, value in given.items():
        if name not in allowed:
            return f"unknown field {name}"
        if not isinstance(value, allowed[name]):
            return f"{name} has the wrong type"
    missing = [name for name in required if name not in given]
    return f"{missing[0]} is required" if missing else None
