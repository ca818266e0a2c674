"""Instagram, by the API with Instagram Login: feed images, carousels, reels.

Source: https://developers.facebook.com/docs/instagram-platform/content-publishing,
…/reference/instagram-media/insights, …/instagram-graph-api/reference/ig-media/comments and
…/error-codes.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from datetime import timedelta
from typing import Any, ClassVar

from pydantic import Field

from shared.domain.failures import Problem
from shared.domain.media import MediaItem
from shared.platforms.base import (
    Delivery,
    Draft,
    Flow,
    Guarantee,
    Limits,
    Options,
    PublicUrl,
    Request,
    Step,
)
from shared.platforms.containers import ContainerPlatform, Fields
from shared.platforms.graph import COMMENTS_GUARANTEE, MEGABYTE, auth

HASHTAGS = 30
MENTIONS = 20
ALT_TEXT_CHARS = 1000
COMMENT_CHARS = 2200
TALLEST, WIDEST = 4 / 5, 1.91  # width by height of a feed image
SHORTEST_REEL, LONGEST_REEL = timedelta(seconds=3), timedelta(minutes=15)
NOT_READY = 2207027  # with HTTP 400, in answer to media_publish
METRICS = {  # ours and theirs, without those that ask for a kind of media
    "views": "views",
    "reach": "reach",
    "likes": "likes",
    "comments": "comments",
    "saves": "saved",
    "shares": "shares",
    "engagements": "total_interactions",
}

STATUS_NUMBER = re.compile(r"\b22\d{5}\b")  # "Error: Media upload has failed with error code 22…"


class InstagramOptions(Options):
    location_id: str | None = Field(None, pattern=r"^\d+$")
    collaborators: tuple[str, ...] = Field((), max_length=3)
    share_to_feed: bool | None = None  # reels
    thumb_offset: int | None = Field(None, ge=0)  # reels: milliseconds into the video
    first_comment: str | None = Field(None, pattern=r"\S", max_length=COMMENT_CHARS)


class Instagram(ContainerPlatform):
    """`platform_user_id` is the Instagram user's id."""

    name = "instagram"
    label = "Instagram"
    api_url = "https://graph.instagram.com"
    version = "v25.0"
    posts_path = "media"
    quota_path = "content_publishing_limit"
    text_field = "caption"
    status_fields = ("status_code", "status")
    refresh_grant = "ig_refresh_token"
    code_prefix = "ig"
    comment_fields = ("username", "text", "timestamp")
    check_image = timedelta(seconds=10)
    check_video = timedelta(minutes=1)  # as often as the documentation asks for
    limits = Limits(
        text_chars=2200,
        media_items=10,
        media_types={
            "image/jpeg": 8 * MEGABYTE,
            "video/mp4": 300 * MEGABYTE,
            "video/quicktime": 300 * MEGABYTE,
        },
        required_media=True,
        daily_posts=100,  # its own reference has shown 50: an account's own limit is read
    )
    options = InstagramOptions
    lacks: ClassVar[Mapping[str, str]] = {
        "text alone": "there is no post without media",
        "link card": "a link in a caption is plain text",
        "thread": "posts follow no other",
    }
    built_to = (
        "the parameters of its published SDK; its answers by documentation alone; how long a "
        "comment may be, by what its clients say"
    )
    metric_names = METRICS
    refused_subcodes = frozenset(
        {
            2207003,  # the download of the media timed out
            2207004,  # too large
            2207005,  # format
            2207009,  # aspect ratio
            2207010,  # caption
            2207023,  # media type
            2207026,  # video format
            2207028,  # carousel
            2207050,  # the account is restricted
            2207051,  # blocked as spam
            2207052,  # the media could not be fetched
            2207057,  # thumb offset
        }
    )
    repeatable_subcodes = frozenset(
        {NOT_READY, 2207001, 2207032, 2207053, 2207082, 2207020, 2207008}
    )

    # a comment is no container

    def guarantee_of(self, delivery: Delivery) -> Guarantee:
        return COMMENTS_GUARANTEE if delivery.above else super().guarantee_of(delivery)

    def publish(self, delivery: Delivery, token: str) -> Flow:
        flow = self.comment if delivery.above else super().publish
        return (yield from flow(delivery, token))

    def lookup(self, delivery: Delivery, token: str) -> Flow:
        flow = self.find_comment if delivery.above else super().lookup
        return (yield from flow(delivery, token))

    # containers

    def post(self, url: str, token: str, fields: Fields) -> Request:
        return Request("POST", url, auth(token), json=fields)

    def text_fields(self, delivery: Delivery) -> Fields:
        options = InstagramOptions.model_validate(delivery.options)
        fields: Fields = {"caption": delivery.text} if delivery.text else {}
        if options.location_id:
            fields["location_id"] = options.location_id
        if options.collaborators:
            fields["collaborators"] = list(options.collaborators)
        return fields

    def item_fields(self, item: MediaItem) -> Generator[Step, Any, Fields]:
        url = yield PublicUrl(item)
        if item.is_video:
            return {"video_url": url}
        return {"image_url": url} | ({"alt_text": item.alt_text} if item.alt_text else {})

    def single_fields(self, delivery: Delivery) -> Generator[Step, Any, Fields]:
        options = InstagramOptions.model_validate(delivery.options)
        fields = yield from self.item_fields(delivery.media[0])
        if delivery.media[0].is_video:
            fields["media_type"] = "REELS"
            if options.share_to_feed is not None:
                fields["share_to_feed"] = options.share_to_feed
            if options.thumb_offset is not None:
                fields["thumb_offset"] = str(options.thumb_offset)
        return fields

    def carousel_fields(self, children: list[str]) -> Fields:
        return {"media_type": "CAROUSEL", "children": children}

    def spoilt(self, why: str) -> tuple[str, bool]:
        found = STATUS_NUMBER.search(why)
        if found is None:
            return "container_error", False
        return f"ig_{found[0]}", int(found[0]) in self.repeatable_subcodes

    # limits

    def check(self, draft: Draft) -> list[Problem]:
        problems = super().check(draft)
        hashtags = len(re.findall(r"(?<!\w)#\w+", draft.text))
        if hashtags > HASHTAGS:
            sentence = f"Instagram takes at most {HASHTAGS} hashtags, not {hashtags}."
            problems.append(Problem("content", "too_many_hashtags", sentence))
        mentions = len(re.findall(r"(?<!\w)@\w", draft.text))
        if mentions > MENTIONS:
            sentence = f"Instagram takes at most {MENTIONS} mentions, not {mentions}."
            problems.append(Problem("content", "too_many_mentions", sentence))
        for index, item in enumerate(draft.media):
            problems += _check_item(item, f"media[{index}]")
        for name in ("share_to_feed", "thumb_offset"):
            alias = InstagramOptions.model_fields[name].alias or name
            given = draft.options.get(alias, draft.options.get(name)) is not None
            if given and not any(item.is_video for item in draft.media):
                sentence = f"{alias} is for videos only."
                problems.append(Problem(f"options.{alias}", "option_invalid", sentence))
        return problems


def _check_item(item: MediaItem, field: str) -> list[Problem]:
    problems = []
    if item.is_video and item.duration_ms is not None:
        length = timedelta(milliseconds=item.duration_ms)
        if not SHORTEST_REEL <= length <= LONGEST_REEL:
            sentence = "Instagram takes videos of 3 seconds to 15 minutes."
            problems.append(Problem(field, "media_duration", sentence))
    if not item.is_video and item.width and item.height:
        ratio = item.width / item.height
        if not TALLEST <= round(ratio, 2) <= WIDEST:
            sentence = f"Instagram takes images from 4:5 to 1.91:1; this one is {ratio:.2f}:1."
            problems.append(Problem(field, "media_aspect", sentence))
    if len(item.alt_text or "") > ALT_TEXT_CHARS:
        sentence = f"Instagram takes an alt text of at most {ALT_TEXT_CHARS} characters."
        problems.append(Problem(field, "alt_text_too_long", sentence))
    return problems
