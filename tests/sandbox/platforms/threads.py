"""Threads' publishing API, as far as we use it.

What it is strict about: a body that is no form, text and links as it counts them, media that cannot
be fetched, links beside media, replies to what is not there, containers that are not ready,
expired, of another account or published before.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from typing import Any

from tests.sandbox.platforms.dialect import Route, check_fields
from tests.sandbox.platforms.graph import Container, ContainersDialect, timestamp
from tests.sandbox.platforms.values import Answer, Media, Post, Received, Refused

TEXT_UNITS = 500
ALT_TEXT_CHARS = 1000
LINKS = 5
CONTAINER_FIELDS: dict[str, type | tuple[type, ...]] = dict.fromkeys(
    (
        *("media_type", "text", "image_url", "video_url", "alt_text", "is_carousel_item"),
        *("children", "reply_control", "topic_tag", "link_attachment", "quote_post_id"),
        *("location_id", "allowlisted_country_codes", "reply_to_id"),
    ),
    str,
)
REPLY_CONTROLS = (
    *(None, "everyone", "accounts_you_follow", "mentioned_only"),
    *("parent_post_author_only", "followers_only"),
)
MEDIA_TYPES = {
    "IMAGE": ("image_url", ("image/jpeg", "image/png")),
    "VIDEO": ("video_url", ("video/mp4",)),
}
SHOWN_AS = {"TEXT": "TEXT_POST", "CAROUSEL": "CAROUSEL_ALBUM"}


class ThreadsDialect(ContainersDialect):
    name = "threads"
    user_id = "1784150000000{:04d}"
    version = "v1.0"
    posts_path = "threads"
    quota_path = "threads_publishing_limit"
    text_field = "text"
    daily_cap = 250
    refresh_grant = "th_refresh_token"
    metric_names = frozenset({"views", "likes", "replies", "reposts", "quotes", "shares"})

    def make_routes(self) -> list[Route]:
        replies = f"GET /{self.version}/{{user}}/replies"
        return [Route(replies, "find post", ThreadsDialect.find_replies), *super().make_routes()]

    def find_replies(self, received: Received) -> Answer:
        return self.listed(received, lambda post: "reply_to_id" in post.fields)

    def _form(self, received: Received, names: dict[str, Any], *required: str) -> dict[str, Any]:
        is_form = received.content_type == "application/x-www-form-urlencoded"
        form = received.form() if is_form else None
        wrong = check_fields(form, names, required)
        if wrong or form is None:
            raise self.wrong(f"(#100) {wrong or 'the body is no form'}")
        return dict(form)

    def contents(self, received: Received, user: str) -> tuple[dict[str, Any], tuple[Media, ...]]:
        fields = self._form(received, CONTAINER_FIELDS, "media_type")
        kind, text = fields["media_type"], fields.get("text", "")
        if fields.get("reply_control") not in REPLY_CONTROLS:
            raise self.wrong("(#100) Param reply_control is not one of its values")
        if units(text) > TEXT_UNITS:
            raise self.wrong("(#100) Param text must be at most 500 characters long.")
        if re.search(r"[.&]", fields.get("topic_tag", "")):
            raise self.wrong("(#100) Param topic_tag must not contain '.' or '&'")
        if len({*re.findall(r"https?://\S+", text), fields.get("link_attachment")} - {None}) > 5:
            raise self.wrong("THREADS_API__LINK_LIMIT_EXCEEDED")
        if kind != "TEXT" and "link_attachment" in fields:
            raise self.wrong("(#100) Param link_attachment is for text posts only")
        above = fields.get("reply_to_id")
        if above is not None and not any(post.id == above for post in self.posts):
            raise self.wrong("(#100) Param reply_to_id is not the id of a post")
        if len(fields.get("alt_text", "")) > ALT_TEXT_CHARS:
            raise self.wrong("(#100) Param alt_text is too long")
        match kind:
            case "TEXT" if text and not {"image_url", "video_url", "children"} & fields.keys():
                return fields, ()
            case "CAROUSEL":
                return fields, self._carousel(user, fields)
            case "IMAGE" | "VIDEO":
                return fields, (self._shown(fields),)
        raise self.wrong("(#100) Param media_type does not fit the post")

    def _carousel(self, user: str, fields: dict[str, Any]) -> tuple[Media, ...]:
        children = fields.get("children", "").split(",")
        unfit = self.wrong("(#100) The carousel takes 2 to 20 children that are ready")
        if not 2 <= len(children) <= 20 or {"image_url", "video_url"} & fields.keys():
            raise unfit
        return self.children(user, children, unfit)

    def _shown(self, fields: dict[str, Any]) -> Media:
        name, content_types = MEDIA_TYPES[fields["media_type"]]
        if not fields.get(name):
            raise self.wrong(f"(#100) The parameter {name} is required.")
        held = self.fetched(fields[name])
        if held is None or held.content_type not in content_types:
            raise self.wrong("The media could not be fetched", code=1, error_subcode=2207052)
        return replace(held, alt_text=fields.get("alt_text"))

    def creation_id(self, received: Received) -> str:
        form = self._form(received, {"creation_id": str}, "creation_id")
        return str(form["creation_id"])

    def not_publishable(self, container: Container | None, status: str) -> Refused:
        if status == "PUBLISHED":
            return self.wrong("(#100) The container was published before")
        title = {"error_user_title": "Media Not Found"}
        message = "The requested resource does not exist"
        return self.wrong(message, code=24, error_subcode=4279009, **title)

    def standing(self, container: Container, status: str) -> dict[str, Any]:
        why = {"error_message": container.error} if status == "ERROR" else {}
        return {"status": status, **why}

    def seen(self, post: Post) -> dict[str, Any]:
        kind = post.fields["media_type"]
        shown = {
            "id": post.id,
            "timestamp": timestamp(post.at),
            "permalink": f"https://www.threads.com/@acme/post/{int(post.id):x}",
            "media_type": SHOWN_AS.get(kind, kind),
        }
        above = post.fields.get("reply_to_id")
        shown |= {"replied_to": {"id": above}} if above else {}
        return shown | ({"text": post.text} if post.text else {})


def units(text: str) -> int:
    """An emoji counts its bytes; so does what joins, colours and ends one."""
    joins = {"\u200d", "\ufe0f", "\u20e3"}
    return sum(
        len(one.encode())
        if one in joins or unicodedata.category(one) == "So" or 0x1F3FB <= ord(one) <= 0x1F3FF
        else 1
        for one in text
    )
