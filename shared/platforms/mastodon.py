"""Mastodon, and servers that speak its API.

Source: https://docs.joinmastodon.org/methods/statuses/, …/methods/media/, …/entities/Instance/,
…/api/rate-limits/; StatusLengthValidator and Extractor of the server for what counts.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal

import httpx
from pydantic import Field

from shared.domain.failures import (
    OutcomeUnknownError,
    PlatformError,
    Problem,
    TransientError,
)
from shared.domain.media import MediaItem
from shared.platforms.base import (
    READ_LIMITS,
    READ_METRICS,
    Call,
    Delivery,
    Draft,
    Flow,
    Keep,
    Limits,
    LimitsFlow,
    MetricsFlow,
    MetricsQuery,
    Options,
    Platform,
    Processing,
    Published,
    Reading,
    Request,
    Step,
    TimeIsShort,
    Unread,
    Windowed,
    answered_at,
    fields_of,
)
from shared.platforms.graphemes import graphemes

MEGABYTE = 1024 * 1024
ALT_TEXT_CHARS = 1500
LINK_CHARS = 23  # whatever a link's length
CHECK_MEDIA = timedelta(seconds=5)
UPLOADS_LAST = timedelta(hours=23)  # what no status shows is removed after a day
CLOCKS_APART = timedelta(seconds=60)  # theirs and ours

# Ours and theirs. `quotes_count` came with 4.5: where it is missing it is a gap.
METRICS = {
    "likes": "favourites_count",
    "shares": "reblogs_count",
    "comments": "replies_count",
    "quotes": "quotes_count",
}

# What the server takes for a link: with a scheme, and not its closing punctuation.
_HOST = r"(?:[^\W_](?:[\w-]*[^\W_])?\.)+[^\W\d_]{2,}(?::\d+)?"
_PATH = r"(?:[^\s<>()?]|\([^\s<>()]*\))*(?:[^\s<>()?!*\"'「」;:=,.$%\[\]~&|@]|\([^\s<>()]*\))"
_QUERY = r"\?[\w!?*'();:&=+$/%#\[\].,~|@-]*[\w&=#/-]"
LINK = rf"(?<![A-Za-z0-9@$#@＠＃])https?://{_HOST}(?:/(?:{_PATH})?)?(?:{_QUERY})?"
MENTION = r"(?<![=/\w])@(?P<name>[a-z0-9_]+(?:[.-]+[a-z0-9_]+)*)(?:@\w+(?:[.-]+\w+)*)?"
COUNTED = re.compile(rf"(?P<link>{LINK})|{MENTION}", re.IGNORECASE)
MENTIONED = re.compile(MENTION, re.IGNORECASE)


class MastodonOptions(Options):
    """Absent means what the account has chosen on its server."""

    visibility: Literal["public", "unlisted", "private", "direct"] | None = None
    spoiler_text: str | None = None
    sensitive: bool | None = None
    language: str | None = Field(None, pattern=r"^[a-z]{2,3}(-[A-Za-z]{2,8})?$")


class Mastodon(Platform):
    """`server` is the account's server, `platform_user_id` the account's id there."""

    name = "mastodon"
    label = "Mastodon"
    api_url = "https://{server}"
    # A key is kept for up to an hour. A copy that is under way at the same moment may still become
    # a second status, and not every server keeps keys: what can be read comes first.
    guarantee = Windowed(
        earliest=timedelta(seconds=90),
        latest=timedelta(minutes=50),
        rests_on="the account's statuses, looked through first; then the idempotency key, which "
        "the server keeps for an hour",
        risk="a second status where a server keeps no keys and shows the first one late",
    )
    limits = Limits(  # a server's defaults; an account brings its own server's
        text_chars=500,
        media_items=4,
        media_types={
            "image/jpeg": 16 * MEGABYTE,
            "image/png": 16 * MEGABYTE,
            "image/gif": 16 * MEGABYTE,
            "image/webp": 16 * MEGABYTE,
            "video/mp4": 99 * MEGABYTE,
            "video/quicktime": 99 * MEGABYTE,
            "video/webm": 99 * MEGABYTE,
        },
        text_unit="graphemes; a link counts 23, a mention without its server",
    )
    options = MastodonOptions
    lacks: ClassVar[Mapping[str, str]] = {
        "link card": "the server makes its own of a link in the text",
        "first comment": "the second part of a `thread` is one",
        "token refresh": "a token has no end",
    }
    built_to = "an OpenAPI description that is made from its documentation"
    threads = True
    tells_limits = True
    metrics_batch = 25  # one call each, of the 300 in five minutes

    # flows

    def publish(self, delivery: Delivery, token: str) -> Flow:
        options = MastodonOptions.model_validate(delivery.options)
        uploads = _Uploads.of(delivery)
        working = yield from self._upload(delivery, uploads, token)
        if working:
            return Processing(uploads.state(), CHECK_MEDIA)
        # As JSON: some servers make an empty status of a form.
        status: dict[str, Any] = {
            "status": delivery.text,
            **options.model_dump(exclude_none=True),
        }
        if delivery.reply_to is not None:
            status["in_reply_to_id"] = delivery.reply_to
        if delivery.media:
            status["media_ids"] = [uploads.ids[item.id] for item in delivery.media]
        headers = _auth(token) | {"Idempotency-Key": delivery.key}
        url = f"{self.host(delivery.server)}/api/v1/statuses"
        reply = yield Call(Request("POST", url, headers, json=status), "create post", commits=True)
        return _published(reply.json())

    def _upload(
        self, delivery: Delivery, uploads: _Uploads, token: str
    ) -> Generator[Step, Any, bool]:
        """Give each item its id; True while the server still works on one of them, and where the
        next request has to go on."""
        api, auth = f"{self.host(delivery.server)}/api", _auth(token)
        sent = False
        for item in delivery.media:
            if item.id in uploads.ids:
                continue
            if sent and (yield TimeIsShort()):
                return True
            about = {"description": item.alt_text} if item.alt_text else {}
            request = Request("POST", f"{api}/v2/media", auth, form=about, files={"file": item})
            reply = yield Call(request, "upload")
            uploads.add(item, reply.json()["id"], working=reply.status_code == 202)
            yield Keep(uploads.state())
            sent = True
        for media_id in tuple(uploads.working):
            reply = yield Call(Request("GET", f"{api}/v1/media/{media_id}", auth), "read media")
            if reply.status_code == 206:
                return True
            uploads.working.remove(media_id)
        return sent and bool((yield TimeIsShort()))

    def lookup(self, delivery: Delivery, token: str) -> Flow:
        if delivery.unsettled_since is None:
            raise OutcomeUnknownError("Nothing of this delivery is unsettled", code="not_unsettled")
        url = f"{self.host(delivery.server)}/api/v1/accounts/{delivery.platform_user_id}/statuses"
        params = {"limit": "40", "exclude_reblogs": "true"}
        reply = yield Call(Request("GET", url, _auth(token), params=params), "find post")
        since = delivery.unsettled_since - CLOCKS_APART
        found = [
            post
            for post in reply.json()
            if (made_at := _instant(post.get("created_at"))) is not None
            and made_at >= since
            and post.get("in_reply_to_id") == delivery.reply_to
            and _same(delivery, post)
        ]
        if len(found) != 1:
            message = f"{len(found)} posts of that time have this text"
            raise OutcomeUnknownError(message, code="not_found" if not found else "ambiguous")
        return _published(found[0], found=True)

    def metrics(self, query: MetricsQuery, token: str) -> MetricsFlow:
        """One by one: a call for many is there since 4.3 only, and not everywhere."""
        statuses = f"{self.host(query.server)}/api/v1/statuses"

        def ask(status_id: str) -> Request:
            return Request("GET", f"{statuses}/{status_id}", _auth(token))

        def read(status_id: str, reply: httpx.Response) -> Reading | Unread:
            if reply.status_code == 404:  # let pass by `classify`
                return Unread(status_id, "not_found", self.message(reply))
            told = reply.json()
            numbers = {ours: told.get(theirs) for ours, theirs in METRICS.items()}
            return Reading(status_id, numbers, answered_at(reply))

        return self.metrics_one_by_one(query.remote_ids, ask, read)

    def own_limits(self, platform_user_id: str, server: str | None, token: str) -> LimitsFlow:
        """The server's: {"configuration": {"statuses": {"max_characters": 500,
        "max_media_attachments": 4}, "media_attachments": {"image_size_limit": 16777216,
        "video_size_limit": 103809024}}}"""
        url = f"{self.host(server)}/api/v2/instance"
        reply = yield Call(Request("GET", url, _auth(token)), READ_LIMITS)
        told = reply.json()["configuration"]
        return {
            "textChars": told["statuses"]["max_characters"],
            "mediaItems": told["statuses"]["max_media_attachments"],
            "imageBytes": told["media_attachments"]["image_size_limit"],
            "videoBytes": told["media_attachments"]["video_size_limit"],
        }

    # reading answers

    def classify(self, call: Call, reply: httpx.Response) -> PlatformError | None:
        status = reply.status_code
        if 200 <= status < 300:
            return None
        if call.name == READ_METRICS and status == 404 and "error" in fields_of(reply):
            return None  # removed, or no longer shown to us
        error = str(reply.json()["error"])  # a page of a proxy is not the server's word
        # 422 {"error": "Cannot attach files that have not finished processing. Try again in a …"}
        if status == 422 and "not finished processing" in error:
            return TransientError(self.said(call, reply), code="media_processing", status=status)
        return super().classify(call, reply)

    def message(self, reply: httpx.Response) -> str:
        return str(fields_of(reply).get("error") or super().message(reply))

    def request_id(self, reply: httpx.Response) -> str | None:
        request: str | None = reply.headers.get("X-Request-Id")
        return request

    def reset_at(self, reply: httpx.Response) -> datetime | timedelta | None:
        """`X-RateLimit-Reset: 2026-11-22T10:05:00.123456Z`"""
        return _instant(reply.headers.get("X-RateLimit-Reset")) or super().reset_at(reply)

    # limits

    def text_length(self, text: str) -> int:
        """In graphemes; a link counts 23, a mention without its server."""
        return graphemes(_counted(text))

    def draft_length(self, draft: Draft) -> int:
        """The content warning counts too."""
        warning = draft.options.get("spoilerText") or draft.options.get("spoiler_text") or ""
        return graphemes(f"{warning}{_counted(draft.text)}")

    def check(self, draft: Draft) -> list[Problem]:
        problems = super().check(draft)
        for index, item in enumerate(draft.media):
            if graphemes(item.alt_text or "") > ALT_TEXT_CHARS:
                sentence = f"Mastodon takes an alt text of at most {ALT_TEXT_CHARS} characters."
                problems.append(Problem(f"media[{index}]", "alt_text_too_long", sentence))
        return problems


@dataclass(slots=True)
class _Uploads:
    """The media id of each item, those that are still worked on, and when the first was sent."""

    ids: dict[str, str] = field(default_factory=dict)
    working: list[str] = field(default_factory=list)
    begun: datetime | None = None

    @classmethod
    def of(cls, delivery: Delivery) -> _Uploads:
        state, now = delivery.state, delivery.attempted_at
        begun = datetime.fromisoformat(state["begun"]) if state.get("begun") else None
        if begun is not None and now is not None and now - begun > UPLOADS_LAST:
            return cls(begun=now)
        return cls(dict(state.get("media", {})), list(state.get("working", ())), begun or now)

    def add(self, item: MediaItem, media_id: str, *, working: bool) -> None:
        self.ids[item.id] = media_id
        if working:
            self.working.append(media_id)

    def state(self) -> dict[str, Any]:
        begun = self.begun.isoformat() if self.begun else None
        return {"media": dict(self.ids), "working": list(self.working), "begun": begun}


def _auth(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _published(post: Mapping[str, Any], *, found: bool = False) -> Published:
    link = post.get("url") or post.get("uri")
    return Published(post["id"], link, _instant(post.get("created_at")), found=found)


def _counted(text: str) -> str:
    """`text` with what counts in place of its links and mentions."""
    return COUNTED.sub(
        lambda found: "x" * LINK_CHARS if found["link"] else f"@{found['name']}", text
    )


def _same(delivery: Delivery, post: Mapping[str, Any]) -> bool:
    """Whether the server's HTML shows our text, and as many media."""
    shown = html.unescape(re.sub(r"<[^>]*>", "", re.sub(r"<br ?/?>|</p>", " ", post["content"])))
    media = post.get("media_attachments", ())
    return _plain(shown) == _plain(delivery.text) and len(media) == len(delivery.media)


def _plain(text: str) -> str:
    """What survives a server's formatting: no spaces, and mentions without their server."""
    bare = MENTIONED.sub(r"@\g<name>", unicodedata.normalize("NFC", text))
    return re.sub(r"\s+", "", bare)


def _instant(timestamp: object) -> datetime | None:
    try:
        at = datetime.fromisoformat(str(timestamp))
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
