"""Threads, of Meta: text, images, videos, carousels of both, and threads of these.

Source: https://developers.facebook.com/docs/threads/posts, …/reference/publishing, …/overview,
…/troubleshooting, …/insights, …/reply-management, …/get-started/long-lived-tokens. That a container
which has just been made may be "not found" by threads_publish, and that a user's replies are listed
at {user}/replies, is what its clients say.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from datetime import timedelta
from typing import Any, ClassVar, Literal

from pydantic import Field

from shared.domain.failures import Problem
from shared.domain.media import MediaItem
from shared.platforms.base import (
    Delivery,
    Draft,
    Limits,
    Options,
    PublicUrl,
    Request,
    Step,
)
from shared.platforms.containers import ContainerPlatform, Fields
from shared.platforms.graph import MEGABYTE, Country, auth
from shared.platforms.graphemes import clusters, is_emoji

ALT_TEXT_CHARS = 1000
LINKS = 5
WIDEST = 10  # width by height of an image, and the other way round
LONGEST_VIDEO = timedelta(minutes=5)
LINK = re.compile(r"(?:https?://|www\.)[^\s<>\"]*[^\s<>\".,;:!?')\]]", re.IGNORECASE)
METRICS = {  # ours and theirs
    "views": "views",
    "likes": "likes",
    "comments": "replies",
    "shares": "reposts",
    "quotes": "quotes",
}

# 400 {"error": {"message": "The requested resource does not exist", "code": 24, "error_subcode":
# 4279009, "error_user_title": "Media Not Found"}}, of a container that FINISHED a moment ago.
NOT_THERE_YET = 4279009
NOT_FETCHED = 2207052  # in answer to the making of a container: the media could not be fetched
# What `error_message` says of a container where another one may do better.
PASSING = frozenset(
    {"FAILED_DOWNLOADING_VIDEO", "FAILED_PROCESSING_AUDIO", "FAILED_PROCESSING_VIDEO", "UNKNOWN"}
)


class ThreadsOptions(Options):
    reply_control: (
        Literal[
            "everyone",
            "accounts_you_follow",
            "mentioned_only",
            "parent_post_author_only",
            "followers_only",
        ]
        | None
    ) = None
    topic_tag: str | None = Field(None, min_length=1, max_length=50, pattern=r"^[^.&]+$")
    link_attachment: str | None = Field(None, pattern=r"^https?://")  # of posts without media
    quote_post_id: str | None = Field(None, pattern=r"^\d+$")
    location_id: str | None = Field(None, pattern=r"^\d+$")
    allowlisted_country_codes: tuple[Country, ...] = ()  # of where it is shown


class Threads(ContainerPlatform):
    """`platform_user_id` is the Threads user's id."""

    name = "threads"
    label = "Threads"
    api_url = "https://graph.threads.net"
    version = "v1.0"
    posts_path = "threads"
    quota_path = "threads_publishing_limit"
    replies_path = "replies"
    text_field = "text"
    status_fields = ("status", "error_message")
    refresh_grant = "th_refresh_token"
    code_prefix = "threads"
    check_image = timedelta(seconds=10)
    check_video = timedelta(seconds=30)  # what the documentation expects a container to take
    limits = Limits(
        text_chars=500,
        text_unit="characters, an emoji counting its bytes",
        media_items=20,
        media_types={
            "image/jpeg": 8 * MEGABYTE,
            "image/png": 8 * MEGABYTE,
            "video/mp4": 1024 * MEGABYTE,
            "video/quicktime": 1024 * MEGABYTE,
        },
        mixed_media=True,
        video_items=20,
        daily_posts=250,
        daily_replies=False,  # they have 1,000 of their own
    )
    options = ThreadsOptions
    link_card = "link_attachment"
    lacks: ClassVar[Mapping[str, str]] = {
        "first comment": "the second part of a `thread` is one",
    }
    built_to = "documentation alone; the list of replies by what its clients call"
    threads = True
    opening = frozenset(
        {"reply_control", "topic_tag", "link_attachment", "quote_post_id", "location_id"}
    )
    metric_names = METRICS
    refused_subcodes = frozenset({NOT_FETCHED})  # its code, 1, alone would be a passing trouble
    repeatable_subcodes = frozenset({NOT_THERE_YET})

    # containers

    def post(self, url: str, token: str, fields: Fields) -> Request:
        """As a form, which is all that the documentation knows."""
        form = {name: "true" if value is True else str(value) for name, value in fields.items()}
        return Request("POST", url, auth(token), form=form)

    def text_fields(self, delivery: Delivery) -> Fields:
        options = ThreadsOptions.model_validate(delivery.options)
        fields: Fields = {"text": delivery.text} if delivery.text else {}
        fields |= options.model_dump(exclude_none=True, exclude={"allowlisted_country_codes"})
        if options.allowlisted_country_codes:
            fields["allowlisted_country_codes"] = ",".join(options.allowlisted_country_codes)
        return fields | ({"reply_to_id": delivery.reply_to} if delivery.reply_to else {})

    def item_fields(self, item: MediaItem) -> Generator[Step, Any, Fields]:
        kind = "video" if item.is_video else "image"
        url = yield PublicUrl(item)
        fields: Fields = {"media_type": kind.upper(), f"{kind}_url": url}
        return fields | ({"alt_text": item.alt_text} if item.alt_text else {})

    def single_fields(self, delivery: Delivery) -> Generator[Step, Any, Fields]:
        # Not `auto_publish_text`: one call that makes and publishes cannot be repeated.
        if not delivery.media:
            return {"media_type": "TEXT"}
        return (yield from self.item_fields(delivery.media[0]))

    def carousel_fields(self, children: list[str]) -> Fields:
        return {"media_type": "CAROUSEL", "children": ",".join(children)}

    def spoilt(self, why: str) -> tuple[str, bool]:
        return f"threads_{why.lower()}" if why else "container_error", why in PASSING

    # limits

    def text_length(self, text: str) -> int:
        """In characters, of which an emoji counts as many as its UTF-8 has bytes."""
        if text.isascii():
            return len(text)
        return sum(len(c.encode()) if is_emoji(c) else len(c) for c in clusters(text))

    def check(self, draft: Draft) -> list[Problem]:
        problems = super().check(draft)
        attached = draft.options.get("linkAttachment", draft.options.get("link_attachment"))
        links = {*LINK.findall(draft.text), *([attached] if attached else [])}
        if len(links) > LINKS:
            sentence = f"Threads takes at most {LINKS} links, not {len(links)}."
            problems.append(Problem("content", "too_many_links", sentence))
        if attached and draft.media:
            sentence = "A Threads post shows either a link or media, not both."
            problems.append(Problem("options.linkAttachment", "media_mix", sentence))
        for index, item in enumerate(draft.media):
            problems += _check_item(item, f"media[{index}]")
        return problems


def _check_item(item: MediaItem, field: str) -> list[Problem]:
    problems = []
    length = timedelta(milliseconds=item.duration_ms or 0)
    if item.is_video and length > LONGEST_VIDEO:
        problems.append(
            Problem(field, "media_duration", "Threads takes videos of up to 5 minutes.")
        )
    if item.width and item.height and not 1 / WIDEST <= item.width / item.height <= WIDEST:
        sentence = f"Threads takes media of up to {WIDEST}:1, wide or high."
        problems.append(Problem(field, "media_aspect", sentence))
    if len(item.alt_text or "") > ALT_TEXT_CHARS:
        sentence = f"Threads takes an alt text of at most {ALT_TEXT_CHARS} characters."
        problems.append(Problem(field, "alt_text_too_long", sentence))
    return problems
