"""Instagram's publishing API, as far as we use it.

What it is strict about: media that cannot be fetched or are no JPEG, containers that are not
ready, expired, of another account or published before.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from tests.sandbox.platforms.dialect import Route, check_fields
from tests.sandbox.platforms.graph import Container, ContainersDialect, timestamp
from tests.sandbox.platforms.values import Media, Post, Received, Refused

CONTAINER_FIELDS: dict[str, type | tuple[type, ...]] = {
    "image_url": str,
    "video_url": str,
    "media_type": str,
    "caption": str,
    "alt_text": str,
    "children": list,
    "is_carousel_item": bool,
    "location_id": str,
    "collaborators": list,
    "share_to_feed": bool,
    "thumb_offset": str,
}


class InstagramDialect(ContainersDialect):
    name = "instagram"
    user_id = "1784140000000{:04d}"
    version = "v25.0"
    posts_path = "media"
    quota_path = "content_publishing_limit"
    text_field = "caption"
    daily_cap = 100
    comment_chars = 2200
    refresh_grant = "ig_refresh_token"
    metric_names = frozenset(
        {"views", "reach", "likes", "comments", "saved", "shares", "total_interactions"}
    )

    def make_routes(self) -> list[Route]:
        line = f"POST /{self.version}/{{post}}/comments"
        return [Route(line, "create comment", InstagramDialect.comment), *super().make_routes()]

    def comment_seen(self, comment: Post) -> dict[str, Any]:
        return {
            "id": comment.id,
            "text": comment.text,
            "timestamp": timestamp(comment.at),
            "username": f"user{comment.account}",
        }

    def _object(self, received: Received, names: dict[str, Any], *required: str) -> dict[str, Any]:
        try:
            body = received.json() if received.content_type == "application/json" else None
        except ValueError:
            body = None
        wrong = check_fields(body, names, required)
        if wrong or body is None:
            raise self.wrong(f"(#100) {wrong or 'the body is not JSON'}")
        return dict(body)

    def contents(self, received: Received, user: str) -> tuple[dict[str, Any], tuple[Media, ...]]:
        fields = self._object(received, CONTAINER_FIELDS)
        caption = fields.get("caption", "")
        tags, mentions = re.findall(r"#\w+", caption), re.findall(r"@\w+", caption)
        if len(caption) > 2200 or len(tags) > 30 or len(mentions) > 20:
            raise self._unfit("The caption was too long", 2207010, code=36004)
        if fields.get("media_type") != "CAROUSEL":
            return fields, (self._shown(fields),)
        children = fields.get("children", [])
        if not 2 <= len(children) <= 10 or "image_url" in fields or "video_url" in fields:
            raise self._unfit("The carousel takes 2 to 10 children", 2207028, code=100)
        unfit = self._unfit("A child of the carousel cannot be used", 2207028, code=100)
        return fields, self.children(user, children, unfit)

    def _unfit(self, message: str, subcode: int, code: int = 9004) -> Refused:
        return self.wrong(message, code=code, error_subcode=subcode)

    def _shown(self, fields: dict[str, Any]) -> Media:
        image, video = fields.get("image_url"), fields.get("video_url")
        if (image is None) == (video is None):
            raise self.wrong("(#100) one of image_url and video_url is required")
        if video and fields.get("media_type") != "REELS" and not fields.get("is_carousel_item"):
            raise self._unfit("The video format is not supported", 2207026, code=352)
        held = self.fetched(str(image or video))
        if held is None or held.content_type.startswith("video/") != bool(video):
            raise self._unfit("Only photo or video can be accepted as media type.", 2207052)
        if image and held.content_type != "image/jpeg":
            raise self._unfit("The image format is not supported", 2207005, code=36001)
        return replace(held, alt_text=fields.get("alt_text"))

    def creation_id(self, received: Received) -> str:
        return str(self._object(received, {"creation_id": int}, "creation_id")["creation_id"])

    def not_publishable(self, container: Container | None, status: str) -> Refused:
        match status:
            case "GONE":
                return self._unfit("The media builder was not found", 2207008, code=24)
            case "CHILD":
                return self._unfit("A carousel item cannot be published alone", 2207028, code=100)
            case "EXPIRED":
                return self._unfit("The media builder has expired", 2207020, code=24)
            case "PUBLISHED":
                return self.wrong("(#100) The container was published before")
        return self._unfit("Media ID is not available", 2207027, code=9007)

    def standing(self, container: Container, status: str) -> dict[str, Any]:
        words = {
            "ERROR": f"Error: Media upload has failed with error code {container.error}",
            "FINISHED": "Finished: Media has been uploaded and it is ready to be published.",
        }
        return {"status_code": status, "status": words.get(status, status)}

    def seen(self, post: Post) -> dict[str, Any]:
        return {
            "id": post.id,
            "caption": post.text,
            "timestamp": timestamp(post.at),
            "permalink": f"https://www.instagram.com/p/{int(post.id):x}/",
            "media_type": post.fields.get("media_type", "IMAGE"),
            "username": f"user{post.account}",
        }
