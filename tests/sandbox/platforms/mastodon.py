"""A Mastodon server's API, as far as we use it; every server under its own first segment.

What it is strict about: text as it counts it, media that are not ready, a body that is no JSON. It
keeps idempotency keys for an hour, unless `keeps_keys` is turned off: not every server does.
"""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import regex

from tests.sandbox.platforms import metrics
from tests.sandbox.platforms.dialect import (
    Dialect,
    Route,
    check_fields,
    content_type_of,
    multipart,
)
from tests.sandbox.platforms.values import Answer, Media, Post, Received, Refused, Token

UNIX = datetime(1970, 1, 1, tzinfo=UTC)
TEXT_GRAPHEMES = 500
ALT_TEXT_CHARS = 1500
KEY_LIFE = timedelta(hours=1)
IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
STATUS_FIELDS: dict[str, type | tuple[type, ...]] = {
    "status": str,
    "media_ids": list,
    "in_reply_to_id": str,
    "visibility": str,
    "spoiler_text": str,
    "sensitive": bool,
    "language": str,
}
LINK = re.compile(r"https?://[^\s()<>]+\.[^\s()<>]*[^\s()<>.,!?;:]")
MENTION = re.compile(r"(?<![\w/])@(\w+)(?:@[\w.-]*\w)?")


class MastodonDialect(Dialect):
    name = "mastodon"
    user_id = "109348{:06d}"
    access_life = timedelta(days=3650)  # until it is revoked

    def clear(self) -> None:
        super().clear()
        self.keeps_keys = True
        self.most_graphemes = TEXT_GRAPHEMES
        self._owners: dict[str, str] = {}
        self._polls: dict[str, int] = {}
        self._broken: set[str] = set()
        self._keys: dict[tuple[str, str], tuple[datetime, Post]] = {}

    def make_routes(self) -> list[Route]:
        cls = MastodonDialect
        return [
            Route("POST /{server}/api/v1/statuses", "create post", cls.create_post),
            Route("GET /{server}/api/v1/accounts/{id}/statuses", "find post", cls.find_posts),
            Route("GET /{server}/api/v1/statuses/{id}", "read metrics", metrics.of_mastodon),
            Route("POST /{server}/api/v2/media", "upload", cls.upload),
            Route("GET /{server}/api/v1/media/{id}", "read media", cls.read_media),
            Route("GET /{server}/api/v2/instance", "read limits", cls.read_instance),
        ]

    def break_media(self, media_id: str) -> None:
        """Let the processing of an upload fail."""
        self._broken.add(media_id)

    # its words

    def failure(self, status: int, message: str, **more: Any) -> Answer:
        return Answer(status, {"error": message} | more, {"X-Request-Id": f"request-{status}"})

    def throttled(
        self, *, seconds: int = 900, daily: bool = False, scope: str = "account"
    ) -> Answer:
        reset = self.clock.now() + timedelta(seconds=seconds)
        headers = {
            "X-RateLimit-Limit": "300",
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": reset.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        return Answer(429, {"error": "Too many requests"}, headers)

    def without_id(self, answer: Answer) -> Answer:
        body = {name: value for name, value in answer.body.items() if name != "id"}
        return Answer(answer.status, body, answer.headers)

    def token_refused(self, token: Token | None) -> Answer:
        return self.failure(401, "The access token was revoked" if token else "Not authorized")

    def _invalid(self, sentence: str) -> Refused:
        return Refused(self.failure(422, f"Validation failed: {sentence}"))

    # the server

    def read_instance(self, received: Received) -> Answer:
        """Nobody has to be known for it."""
        media = {
            "supported_mime_types": [*IMAGES, "video/mp4"],
            "image_size_limit": 16 * 1024 * 1024,
            "image_matrix_limit": 33_177_600,
            "video_size_limit": 99 * 1024 * 1024,
            "video_frame_rate_limit": 120,
            "video_matrix_limit": 8_294_400,
        }
        statuses = {
            "max_characters": self.most_graphemes,
            "max_media_attachments": 4,
            "characters_reserved_per_url": 23,
        }
        polls = {
            "max_options": 4,
            "max_characters_per_option": 50,
            "min_expiration": 300,
            "max_expiration": 2_629_746,
        }
        return Answer(
            200,
            {
                "domain": received.parts["server"],
                "title": "Bread",
                "version": "4.5.0",
                "api_versions": {"mastodon": 7},
                "source_url": "https://github.com/mastodon/mastodon",
                "description": "For bakers",
                "usage": {"users": {"active_month": 12}},
                "thumbnail": {"url": "https://bread.example/thumbnail.png"},
                "icon": [],
                "languages": ["en"],
                "configuration": {
                    "accounts": {"max_featured_tags": 10, "max_pinned_statuses": 5},
                    "statuses": statuses,
                    "media_attachments": media,
                    "polls": polls,
                    "translation": {"enabled": False},
                    "urls": {},
                },
                "registrations": {"enabled": False, "approval_required": False},
                "contact": {"email": "hello@bread.example"},
                "rules": [],
            },
        )

    # statuses

    def _account(self, received: Received) -> str:
        return next(iter(self.authorize(received).user_ids))

    def create_post(self, received: Received) -> Answer:
        account = self._account(received)
        body = self._body(received)
        wrong = check_fields(body, STATUS_FIELDS)
        if wrong:
            raise self._invalid(wrong)
        copied = self._kept(account, received)
        if copied is not None:
            return Answer(200, self.shown(copied))
        text, warning = body.get("status", "").strip(), body.get("spoiler_text", "")
        media = self._attached(account, body.get("media_ids", []))
        if not text and not media:
            raise self._invalid("Text can't be blank")
        if _length(warning, text) > self.most_graphemes:
            raise self._invalid(f"Text character limit of {self.most_graphemes} exceeded")
        above = body.get("in_reply_to_id")
        if above is not None and all(post.id != above for post in self.posts):
            sentence = "The post you are trying to reply to does not appear to exist."
            raise Refused(self.failure(404, sentence))
        if body.get("visibility", "public") not in ("public", "unlisted", "private", "direct"):
            raise Refused(self.failure(422, f"'{body['visibility']}' is not a valid visibility"))
        post = Post(
            platform=self.name,
            id=str(self.number(UNIX)),
            account=account,
            text=text,
            at=received.at,
            media=media,
            headers=received.headers,
            fields=body | {"server": received.parts["server"]},
        )
        self.posts.append(post)
        key = received.headers.get("idempotency-key")
        if key and self.keeps_keys:
            self._keys[account, key] = (received.at, post)
        return Answer(200, self.shown(post))

    def _body(self, received: Received) -> Any:
        """JSON alone: a form's fields are not read, as on some servers."""
        try:
            return received.json() if received.content_type == "application/json" else {}
        except ValueError:
            raise Refused(self.failure(400, "Problems parsing JSON")) from None

    def _kept(self, account: str, received: Received) -> Post | None:
        at, post = self._keys.get(
            (account, received.headers.get("idempotency-key", "")), (UNIX, None)
        )
        return post if received.at - at < KEY_LIFE else None

    def _attached(self, account: str, media_ids: list[str]) -> tuple[Media, ...]:
        if len(media_ids) > 4:
            raise self._invalid("Cannot attach more than 4 files")
        held = []
        for media_id in media_ids:
            if self._owners.get(media_id) != account:
                raise self._invalid("Media not found")
            if self._polls[media_id] > 0 or media_id in self._broken:
                sentence = "Cannot attach files that have not finished processing."
                raise self._invalid(f"{sentence} Try again in a moment!")
            held.append(self.media[media_id])
        if len(held) > 1 and any(item.content_type == "video/mp4" for item in held):
            raise self._invalid("Cannot attach a video to a post that already contains images")
        return tuple(held)

    def find_posts(self, received: Received) -> Answer:
        self._account(received)
        params = received.params
        unknown = set(params) - {"limit", "exclude_reblogs", "since_id", "max_id", "min_id"}
        if unknown:
            raise self._invalid(f"unknown parameters {sorted(unknown)}")
        own = [post for post in reversed(self.posts) if post.account == received.parts["id"]]
        most = min(int(params.get("limit", "20")), 40)
        return Answer(200, [self.shown(post) for post in own[:most]])

    def shown(self, post: Post) -> dict[str, Any]:
        server = post.fields["server"]
        return {
            "id": post.id,
            "created_at": _iso(post.at),
            "uri": f"https://{server}/users/acme/statuses/{post.id}",
            "url": f"https://{server}/@acme/{post.id}",
            "account": _account(server, post.account),
            "in_reply_to_id": post.fields.get("in_reply_to_id"),
            "content": _html(post.text, server),
            "visibility": post.fields.get("visibility", "public"),
            "sensitive": post.fields.get("sensitive", False),
            "spoiler_text": post.fields.get("spoiler_text", ""),
            "media_attachments": [self._attachment(item) for item in post.media],
            **{name: [] for name in ("mentions", "tags", "emojis")},
            **dict.fromkeys(("reblogs_count", "favourites_count", "replies_count"), 0),
            **self.figures.get(post.id, {}),
        }

    # media

    def upload(self, received: Received) -> Answer:
        account = self._account(received)
        try:
            form, files = multipart(received)
        except ValueError as error:
            raise self._invalid(str(error)) from None
        if set(files) != {"file"} or set(form) - {"description"}:
            raise self._invalid(f"File can't be blank, or unknown fields in {sorted(form)}")
        content_type = content_type_of(files["file"].body)
        if content_type not in (*IMAGES, "video/mp4"):
            raise self._invalid("File content type is invalid")
        if len(form.get("description", "")) > ALT_TEXT_CHARS:
            raise self._invalid("Description is too long (maximum is 1500 characters)")
        media_id = str(self.number(UNIX))
        held = self.hold_media(media_id, files["file"].content, content_type)
        self.media[media_id] = Media(
            id=held.id,
            content_type=held.content_type,
            size_bytes=held.size_bytes,
            sha256=held.sha256,
            alt_text=form.get("description"),
        )
        self._owners[media_id], self._polls[media_id] = account, received.polls
        return Answer(202 if received.polls else 200, self._attachment(self.media[media_id]))

    def read_media(self, received: Received) -> Answer:
        account = self._account(received)
        media_id = received.parts["id"]
        if self._owners.get(media_id) != account:
            raise Refused(self.failure(404, "Record not found"))
        if media_id in self._broken:
            raise Refused(self.failure(422, "Error processing thumbnail for uploaded media"))
        working = self._polls[media_id] > 0
        self._polls[media_id] = max(0, self._polls[media_id] - 1)
        return Answer(206 if working else 200, self._attachment(self.media[media_id]))

    def _attachment(self, item: Media) -> dict[str, Any]:
        ready = self._polls.get(item.id, 0) == 0
        return {
            "id": item.id,
            "type": "image" if item.content_type in IMAGES else "video",
            "url": f"https://files.example/{item.id}" if ready else None,
            "preview_url": f"https://files.example/small/{item.id}",
            "description": item.alt_text,
        }


def _length(warning: str, text: str) -> int:
    short = MENTION.sub(r"@\1", LINK.sub("x" * 23, text))
    return len(regex.findall(r"\X", warning + short))


def _html(text: str, server: str) -> str:
    """As a status is shown: links cut short for the eye, mentions without their server."""

    def link(found: re.Match[str]) -> str:
        address = found[0]
        scheme, _, rest = address.partition("://")
        invisible, shown, hidden = f"{scheme}://", rest[:30], rest[30:]
        return (
            f'<a href="{address}" target="_blank" rel="nofollow noopener" translate="no">'
            f'<span class="invisible">{invisible}</span><span class="ellipsis">{shown}</span>'
            f'<span class="invisible">{hidden}</span></a>'
        )

    def mention(found: re.Match[str]) -> str:
        address = f"https://{server}/@{found[1]}"
        inner = f'<a href="{address}" class="u-url mention">@<span>{found[1]}</span></a>'
        return f'<span class="h-card" translate="no">{inner}</span>'

    pieces, end = [], 0
    for found in re.finditer(f"({LINK.pattern})|{MENTION.pattern}", text):
        pieces.append(html.escape(text[end : found.start()], quote=False))
        linked = LINK.fullmatch(html.escape(found[0], quote=False)) if found[1] else None
        pieces.append(link(linked) if linked else MENTION.sub(mention, found[0]))
        end = found.end()
    pieces.append(html.escape(text[end:], quote=False))
    return "<p>" + "".join(pieces).replace("\n\n", "</p><p>").replace("\n", "<br />") + "</p>"


def _account(server: str, user_id: str) -> dict[str, Any]:
    page, image = f"https://{server}/@acme", f"https://{server}/avatar.png"
    return {
        "id": user_id,
        **dict.fromkeys(("username", "acct", "display_name"), "acme"),
        **dict.fromkeys(("avatar", "avatar_static", "header", "header_static"), image),
        **dict.fromkeys(("bot", "group", "indexable", "locked"), False),
        **dict.fromkeys(("followers_count", "following_count", "statuses_count"), 0),
        **{name: [] for name in ("emojis", "fields")},
        "created_at": "2022-11-05T00:00:00.000Z",
        "note": "",
        "uri": page,
        "url": page,
    }


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
