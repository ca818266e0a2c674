"""Facebook's API for Pages, as far as we use it.

What it is strict about: names and types in a body, media that cannot be fetched, photos that are
another page's or shown already, the same post twice in a row, questions that it does not know. A
video's post is seen once the video is ready.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.sandbox.platforms.dialect import Route, check_fields
from tests.sandbox.platforms.graph import UNIX, GraphDialect, timestamp
from tests.sandbox.platforms.values import Answer, Media, Post, Received, Refused

TEXT_CHARS = 63_206
BATCH = 50
PROCESSED_BY = timedelta(minutes=5)
IMAGES = ("image/jpeg", "image/png", "image/gif")
Types = dict[str, type | tuple[type, ...]]
POST: Types = {"message": str, "link": str, "attached_media": list, "targeting": dict}
PHOTO: Types = {"url": str, "published": bool, "alt_text_custom": str}
VIDEO: Types = {"file_url": str, "description": str, "title": str, "targeting": dict}
INSIGHTS = frozenset({"post_media_view", "post_total_media_view_unique", "post_clicks"})
COUNTED = re.compile(r"(\w+)((?:\.\w+\([^)]*\))*)(?:,|$)")


@dataclass(slots=True)
class Photo:
    page: str
    media: Media
    shown: bool = False


@dataclass(slots=True)
class Video:
    """`polls` is how often it is still processing, if nobody waits for `PROCESSED_BY`; its post is
    seen after that."""

    post: Post
    polls: int
    error: bool = False


class FacebookDialect(GraphDialect):
    name = "facebook"
    user_id = "10000000000{:04d}"
    access_life = timedelta(days=3650)  # until it is revoked
    comment_chars = 8000

    def clear(self) -> None:
        super().clear()
        self.photos: dict[str, Photo] = {}
        self.videos: dict[str, Video] = {}
        self.insights = INSIGHTS  # the metrics that it knows
        self.slow: set[str] = set()  # posts that a bundle has no time for
        self.throttled_inside = False  # a bundle's answers are refusals, under a 200

    def make_routes(self) -> list[Route]:
        cls = FacebookDialect
        return [
            Route("POST /v25.0/{page}/feed", "create post", cls.create_post),
            Route("POST /v25.0/{page}/photos", "upload", cls.upload),
            Route("POST /v25.0/{page}/videos", "create video", cls.create_video),
            Route("GET /v25.0/{page}/published_posts", "find post", cls.find_posts),
            Route("POST /v25.0/{post}/comments", "create comment", cls.comment),
            Route("GET /v25.0/{node}", "read post", cls.read),
            Route("POST /v25.0/", "read metrics", cls.answer_batch),
        ]

    def name_call(self, call: str, parts: Any) -> str:
        return "read video" if parts.get("node") in self.videos else call

    def fail_video(self, video_id: str) -> None:
        """Let Facebook be unable to make anything of a video."""
        self.videos[video_id].error = True

    # publishing

    def _object(self, received: Received, names: Types, *required: str) -> dict[str, Any]:
        try:
            body = received.json() if received.content_type == "application/json" else None
        except ValueError:
            body = None
        wrong = check_fields(body, names, required)
        if wrong or body is None:
            raise self.wrong(f"(#100) {wrong or 'the body is not JSON'}")
        countries = body.get("targeting", {}).get("geo_locations", {}).get("countries", [])
        if any(not re.fullmatch("[A-Z]{2}", country) for country in countries):
            raise self.wrong("(#100) Param targeting must name countries")
        return dict(body)

    def upload(self, received: Received) -> Answer:
        page = self.owned(received, "page")
        fields = self._object(received, PHOTO, "url", "published")
        held = self.fetched(fields["url"])
        if held is None or held.content_type not in IMAGES:
            raise self.wrong("Missing or invalid image file", code=324, error_subcode=2069019)
        if fields["published"]:
            raise self.wrong("(#100) photos are shown by a post here")
        photo_id = str(self.number(UNIX))
        media = replace(held, alt_text=fields.get("alt_text_custom"))
        self.photos[photo_id] = Photo(page, media)
        return Answer(200, {"id": photo_id})

    def create_post(self, received: Received) -> Answer:
        page = self.owned(received, "page")
        fields = self._object(received, POST)
        link, text = fields.get("link"), fields.get("message", "")
        if not (text or link or fields.get("attached_media")):
            raise self.wrong("(#100) Missing message or attachment")
        if link is not None and not re.match("https?://", link):
            raise self.wrong("(#1609005) The link could not be read", code=1609005)
        photos = [self._photo(page, one) for one in fields.get("attached_media", [])]
        post = self._made(received, page, text, tuple(photo.media for photo in photos), fields)
        for photo in photos:
            photo.shown = True
        self.posts.append(post)
        return Answer(200, {"id": post.id})

    def _photo(self, page: str, attached: Any) -> Photo:
        named = attached.get("media_fbid") if isinstance(attached, dict) else None
        photo = self.photos.get(str(named))
        if photo is None or photo.page != page or photo.shown or set(attached) != {"media_fbid"}:
            raise self.wrong("(#100) Param attached_media names no photo that can be shown")
        return photo

    def create_video(self, received: Received) -> Answer:
        page = self.owned(received, "page")
        fields = self._object(received, VIDEO, "file_url")
        held = self.fetched(fields["file_url"])
        if held is None or held.content_type != "video/mp4":
            message = "Unable to fetch video file from URL."
            raise self.wrong(message, code=389, error_subcode=1363030)
        text = fields.get("description", "")
        post = self._made(received, page, text, (held,), fields)
        video_id = str(self.number(UNIX))
        self.videos[video_id] = Video(post, received.polls)
        if not received.polls:
            self.posts.append(post)
        return Answer(200, {"id": video_id})

    def _made(
        self, received: Received, page: str, text: str, media: tuple[Media, ...], fields: Any
    ) -> Post:
        if len(text) > TEXT_CHARS:
            raise self.wrong("(#100) The text is too long")
        last = next((post for post in reversed(self.standalone) if post.account == page), None)
        if last is not None and last is self.duplicate_of(page, text, media):
            raise self.wrong("(#506) Duplicate status message", code=506)
        return Post(
            platform=self.name,
            id=f"{page}_{self.number(UNIX)}",
            account=page,
            text=text,
            at=received.at,
            media=media,
            headers=received.headers,
            fields=fields,
        )

    # reading

    def read(self, received: Received) -> Answer:
        token, node = self.authorize(received), received.parts["node"]
        fields, video = received.params.get("fields", "id"), self.videos.get(node)
        if video is not None and video.post.account in token.user_ids:
            return Answer(200, self.told(video.post, fields, self._video(node, video)))
        post = self._post(node, token.user_ids)
        return Answer(200, self.told(post, fields, _seen(post)))

    def comment_seen(self, comment: Post) -> dict[str, Any]:
        return _seen(comment)

    def _post(self, post_id: str, pages: set[str]) -> Post:
        post = next((post for post in self.standalone if post.id == post_id), None)
        if post is None or post.account not in pages:
            raise self.no_such(post_id)
        return post

    def _video(self, video_id: str, video: Video) -> dict[str, Any]:
        if video.error:
            return {"id": video_id, "status": {"video_status": "error"}}
        if video.polls:
            video.polls -= 1
            if not video.polls:
                self.posts.append(video.post)
            return {"id": video_id, "status": {"video_status": "processing"}}
        page, _, number = video.post.id.partition("_")
        return {
            "id": video_id,
            "status": {"video_status": "ready"},
            "post_id": number,
            "permalink_url": f"/{page}/videos/{video_id}/",
            "created_time": timestamp(video.post.at),
        }

    def find_posts(self, received: Received) -> Answer:
        page, params = self.owned(received, "page"), received.params
        for video in self.videos.values():
            if video.polls and self.clock.now() >= video.post.at + PROCESSED_BY:
                video.polls = 0
                self.posts.append(video.post)
        wanted = set(params.get("fields", "id").split(",")) | {"id"}
        if not params.get("since", "0").isdigit() or int(params.get("limit", "25")) > 100:
            raise self.wrong("(#100) since must be a time, and limit at most 100")
        since = datetime.fromtimestamp(int(params.get("since", "0")), UTC)
        own = [p for p in reversed(self.standalone) if p.account == page and p.at >= since]
        shown = [_seen(post) for post in own[: int(params.get("limit", "25"))]]
        data = [{name: one[name] for name in one if name in wanted} for one in shown]
        return Answer(200, {"data": data, "paging": {}})

    # metrics

    def answer_batch(self, received: Received) -> Answer:
        token = self.authorize(received)
        questions = json.loads(received.form().get("batch", "[]"))
        if not 0 < len(questions) <= BATCH:
            raise self.wrong("(#100) A batch takes 1 to 50 requests")
        told = [self._told(question, token.user_ids) for question in questions]
        return Answer(200, told)

    def _told(self, question: dict[str, str], pages: set[str]) -> dict[str, Any] | None:
        post_id, _, query = question["relative_url"].partition("?fields=")
        if question["method"] != "GET" or post_id in self.slow:
            return None
        try:
            if self.throttled_inside:
                raise Refused(self.throttled())
            answer = Answer(200, self._counts(self._post(post_id, pages), query))
        except Refused as refused:
            answer = refused.answer
        return {"code": answer.status, "headers": [], "body": json.dumps(answer.body)}

    def _counts(self, post: Post, query: str) -> dict[str, Any]:
        """Fields with what is asked of each: `comments.limit(0).summary(true)`."""
        counts, told = self.figures.get(post.id, {}), {"id": post.id}
        for name, how in COUNTED.findall(query):
            match name:
                case "shares" if counts.get("shares"):
                    told["shares"] = {"count": counts["shares"]}
                case "comments" | "reactions" if how == ".limit(0).summary(true)":
                    total = {"total_count": counts.get(name, 0)}
                    told[name] = {"data": [], "summary": total}
                case "insights":
                    told["insights"] = {"data": self._insights(counts, how)}
        return told

    def _insights(self, counts: dict[str, Any], how: str) -> list[dict[str, Any]]:
        names = how.partition("metric(")[2].partition(")")[0].split(",")
        if not set(names) <= self.insights:
            raise self.wrong("(#100) The value must be a valid insights metric")
        return [
            {"name": name, "period": "lifetime", "values": [{"value": counts[name]}]}
            for name in names
            if counts.get(name) is not None
        ]


def _seen(post: Post) -> dict[str, Any]:
    number = post.id.partition("_")[2]
    films = any(shown.content_type.startswith("video/") for shown in post.media)
    kind = "added_video" if films else "added_photos" if post.media else "mobile_status_update"
    seen = {
        "id": post.id,
        "from": {"id": post.account, "name": "Acme"},
        "status_type": kind,
        "permalink_url": f"https://www.facebook.com/{post.account}/posts/{number}",
        "created_time": timestamp(post.at),
    }
    return seen | ({"message": post.text} if post.text else {})
