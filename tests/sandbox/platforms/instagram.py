"""Instagram's publishing API, as far as we use it.

What it is strict about: media that cannot be fetched or are no JPEG, containers that are not
ready, expired, of another account or published before.
"""

from __future__ import annotations

import re
import secrets
import urllib.request
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.sandbox.platforms import metrics
from tests.sandbox.platforms.dialect import Dialect, Route, check_fields, content_type_of
from tests.sandbox.platforms.values import Answer, Media, Post, Received, Refused, Token

UNIX = datetime(1970, 1, 1, tzinfo=UTC)
CONTAINER_LIFE = timedelta(hours=24)
YOUNGEST_REFRESH = timedelta(hours=24)
DAILY_CAP = 100
FETCH_SECONDS = 10
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


@dataclass(slots=True)
class Container:
    id: str
    user_id: str
    made_at: datetime
    fields: dict[str, Any]
    media: tuple[Media, ...]
    polls: int = 0
    published: bool = False
    error: str | None = None


class InstagramDialect(Dialect):
    name = "instagram"

    def clear(self) -> None:
        super().clear()
        self.containers: dict[str, Container] = {}

    def make_routes(self) -> list[Route]:
        cls = InstagramDialect
        return [
            Route("POST /v25.0/{user}/media", "create container", cls.create),
            Route("GET /v25.0/{user}/media", "find post", cls.find_posts),
            Route("POST /v25.0/{user}/media_publish", "publish container", cls.publish),
            Route("GET /v25.0/{node}/insights", "read metrics", metrics.of_instagram),
            Route("GET /v25.0/{node}", "read post", cls.read),
            Route("GET /refresh_access_token", "refresh", cls.refresh),
        ]

    def name_call(self, call: str, parts: Any) -> str:
        return "read container" if parts.get("node") in self.containers else call

    def fail_container(self, container_id: str, subcode: int) -> None:
        """Let a container end in ERROR, as media that cannot be processed do."""
        self.containers[container_id].error = str(subcode)

    # its words

    def failure(self, status: int, message: str, **more: Any) -> Answer:
        if status >= 500:
            message = "An unexpected error has occurred. Please retry your request later."
            more = {"code": 2, "is_transient": True, **more}
        error = {
            "message": message,
            "type": "OAuthException",
            "code": 100,
            "fbtrace_id": secrets.token_urlsafe(8),
        }
        return Answer(status, {"error": error | more})

    def throttled(
        self, *, seconds: int = 900, daily: bool = False, scope: str = "account"
    ) -> Answer:
        if daily:
            return self._capped()
        if scope == "platform":
            refused = self.failure(403, "Application request limit reached", code=4)
        else:
            refused = self.failure(400, "User request limit reached", code=17)
        use = f'{{"call_count": 100, "estimated_time_to_regain_access": {-(-seconds // 60)}}}'
        header = {"X-Business-Use-Case-Usage": f'{{"17841400000000000": [{use}]}}'}
        return Answer(refused.status, refused.body, header)

    def _capped(self) -> Answer:
        message = "Application request limit reached"
        more = {"code": 9, "error_subcode": 2207042, "error_user_title": "Media posting limit"}
        return self.failure(400, message, **more)

    def without_id(self, answer: Answer) -> Answer:
        return Answer(answer.status, {})

    def token_refused(self, token: Token | None) -> Answer:
        subcode = 463 if token is not None and not token.revoked else 467
        message = "Error validating access token: the session is invalid."
        return self.failure(400, message, code=190, error_subcode=subcode)

    def no_such(self, node: str) -> Refused:
        message = f"Unsupported get request. Object with ID '{node}' does not exist"
        return Refused(self.failure(400, message, type="GraphMethodException", error_subcode=33))

    # calls

    def _user(self, received: Received) -> str:
        token, user = self.authorize(received), received.parts["user"]
        if user not in token.user_ids:
            raise self.no_such(user)
        return user

    def _object(self, received: Received, names: dict[str, Any], *required: str) -> dict[str, Any]:
        try:
            body = received.json() if received.content_type == "application/json" else None
        except ValueError:
            body = None
        wrong = check_fields(body, names, required)
        if wrong or body is None:
            message = f"(#100) {wrong or 'the body is not JSON'}"
            raise Refused(self.failure(400, message))
        return dict(body)

    def create(self, received: Received) -> Answer:
        user = self._user(received)
        fields = self._object(received, CONTAINER_FIELDS)
        caption = fields.get("caption", "")
        tags, mentions = re.findall(r"#\w+", caption), re.findall(r"@\w+", caption)
        if len(caption) > 2200 or len(tags) > 30 or len(mentions) > 20:
            raise self._unfit("The caption was too long", 2207010, code=36004)
        if fields.get("media_type") == "CAROUSEL":
            media = self._children(user, fields)
        else:
            media = (self._fetched(fields),)
        container = Container(
            id=str(self.number(UNIX)),
            user_id=user,
            made_at=received.at,
            fields=fields,
            media=media,
            polls=received.polls,
        )
        self.containers[container.id] = container
        return Answer(200, {"id": container.id})

    def _unfit(self, message: str, subcode: int, code: int = 9004) -> Refused:
        return Refused(self.failure(400, message, code=code, error_subcode=subcode))

    def _children(self, user: str, fields: dict[str, Any]) -> tuple[Media, ...]:
        children = fields.get("children", [])
        if not 2 <= len(children) <= 10 or "image_url" in fields or "video_url" in fields:
            raise self._unfit("The carousel takes 2 to 10 children", 2207028, code=100)
        media: tuple[Media, ...] = ()
        for child_id in children:
            child = self.containers.get(child_id)
            fit = child is not None and child.user_id == user and not self._expired(child)
            if child is None or not fit or not child.fields.get("is_carousel_item"):
                raise self._unfit("A child of the carousel cannot be used", 2207028, code=100)
            media += child.media
        return media

    def _fetched(self, fields: dict[str, Any]) -> Media:
        """The media themselves, read from where the caller said they are."""
        image, video = fields.get("image_url"), fields.get("video_url")
        if (image is None) == (video is None):
            raise Refused(self.failure(400, "(#100) one of image_url and video_url is required"))
        if video and fields.get("media_type") != "REELS" and not fields.get("is_carousel_item"):
            raise self._unfit("The video format is not supported", 2207026, code=352)
        url = str(image or video)
        try:
            with urllib.request.urlopen(url, timeout=FETCH_SECONDS) as reply:
                body = reply.read()
        except (OSError, ValueError) as error:
            message = "Only photo or video can be accepted as media type."
            raise self._unfit(message, 2207052) from error
        content_type = content_type_of(body)
        if content_type is None or content_type.startswith("video/") != bool(video):
            raise self._unfit("Only photo or video can be accepted as media type.", 2207052)
        if image and content_type != "image/jpeg":
            raise self._unfit("The image format is not supported", 2207005, code=36001)
        held = self.hold_media(secrets.token_hex(8), body, content_type, url)
        return replace(held, alt_text=fields.get("alt_text"))

    def _expired(self, container: Container) -> bool:
        return self.clock.now() >= container.made_at + CONTAINER_LIFE

    def _status(self, container: Container) -> str:
        if container.published:
            return "PUBLISHED"
        if container.error:
            return "ERROR"
        if self._expired(container):
            return "EXPIRED"
        return "IN_PROGRESS" if container.polls > 0 else "FINISHED"

    def publish(self, received: Received) -> Answer:
        user = self._user(received)
        body = self._object(received, {"creation_id": int}, "creation_id")
        container = self.containers.get(str(body["creation_id"]))
        if container is None or container.user_id != user:
            raise self._unfit("The media builder was not found", 2207008, code=24)
        if container.fields.get("is_carousel_item"):
            raise self._unfit("A carousel item cannot be published alone", 2207028, code=100)
        match self._status(container):
            case "EXPIRED":
                raise self._unfit("The media builder has expired", 2207020, code=24)
            case "IN_PROGRESS" | "ERROR":
                raise self._unfit("Media ID is not available", 2207027, code=9007)
            case "PUBLISHED":
                raise Refused(self.failure(400, "(#100) The container was published before"))
        since = self.clock.now() - timedelta(hours=24)
        if sum(p.account == user and p.at > since for p in self.posts) >= DAILY_CAP:
            raise Refused(self._capped())
        container.published = True
        post = Post(
            platform=self.name,
            id=str(self.number(UNIX)),
            account=user,
            text=container.fields.get("caption", ""),
            at=received.at,
            media=container.media,
            headers=received.headers,
            fields=container.fields | {"container": container.id},
        )
        self.posts.append(post)
        return Answer(200, {"id": post.id})

    # reading

    def read(self, received: Received) -> Answer:
        token, node = self.authorize(received), received.parts["node"]
        wanted = set(received.params.get("fields", "id").split(",")) | {"id"}
        container = self.containers.get(node)
        if container is not None and container.user_id in token.user_ids:
            status = self._status(container)
            container.polls = max(0, container.polls - 1)
            words = {
                "ERROR": f"Error: Media upload has failed with error code {container.error}",
                "FINISHED": "Finished: Media has been uploaded and it is ready to be published.",
            }
            seen = {"id": node, "status_code": status, "status": words.get(status, status)}
            return Answer(200, {name: seen[name] for name in seen if name in wanted})
        for post in self.posts:
            if post.id == node and post.account in token.user_ids:
                return Answer(200, _seen(post, wanted))
        raise self.no_such(node)

    def find_posts(self, received: Received) -> Answer:
        user, params = self._user(received), received.params
        wanted = set(params.get("fields", "id").split(",")) | {"id"}
        limit = int(params.get("limit", "25"))
        own = [_seen(p, wanted) for p in reversed(self.posts) if p.account == user][:limit]
        cursors = {"before": "QVFI", "after": "QVFJ"}
        return Answer(200, {"data": own, "paging": {"cursors": cursors}})

    def refresh(self, received: Received) -> Answer:
        token = self.authorize(received)
        if received.params != {"grant_type": "ig_refresh_token"}:
            return self.failure(400, "(#100) grant_type must be ig_refresh_token")
        if self.clock.now() - token.issued_at < YOUNGEST_REFRESH:
            return self.failure(400, "(#100) The token is not a day old")
        newer = self.issue(token, token.user_ids, token.handle)
        life = int(self.access_life.total_seconds())
        return Answer(200, {"access_token": newer, "token_type": "bearer", "expires_in": life})


def _seen(post: Post, wanted: set[str]) -> dict[str, Any]:
    everything = {
        "id": post.id,
        "caption": post.text,
        "timestamp": post.at.strftime("%Y-%m-%dT%H:%M:%S+0000"),
        "permalink": f"https://www.instagram.com/p/{int(post.id):x}/",
        "media_type": post.fields.get("media_type", "IMAGE"),
    }
    return {name: everything[name] for name in everything if name in wanted}
