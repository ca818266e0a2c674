"""What Meta's platforms have in common: their words for failures, media that they fetch, and
containers that are published once."""

from __future__ import annotations

import json
import re
import secrets
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar

from tests.sandbox.platforms import metrics
from tests.sandbox.platforms.dialect import Dialect, Route, check_fields, content_type_of
from tests.sandbox.platforms.values import Answer, Content, Media, Post, Received, Refused, Token

UNIX = datetime(1970, 1, 1, tzinfo=UTC)
CONTAINER_LIFE = timedelta(hours=24)
YOUNGEST_REFRESH = timedelta(hours=24)
FETCH_SECONDS = 10
BLOCK_BYTES = 1024 * 1024  # held at a time of what is fetched


class GraphDialect(Dialect):
    """Failures are HTTP 400, told apart by numbers in the body."""

    comment_chars: ClassVar[int] = 0

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
            return self.capped()
        if scope == "platform":
            refused = self.failure(403, "Application request limit reached", code=4)
        else:
            refused = self.failure(400, "User request limit reached", code=17)
        case = {"call_count": 100, "estimated_time_to_regain_access": -(-seconds // 60)}
        header = {"X-Business-Use-Case-Usage": json.dumps({"17841400000000000": [case]})}
        return Answer(refused.status, refused.body, header)

    def capped(self) -> Answer:
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

    def wrong(self, message: str, **more: Any) -> Refused:
        return Refused(self.failure(400, message, **more))

    def owned(self, received: Received, part: str) -> str:
        """The account that the path names, if the token speaks for it."""
        token, account = self.authorize(received), received.parts[part]
        if account not in token.user_ids:
            raise self.no_such(account)
        return account

    # comments

    def comment(self, received: Received) -> Answer:
        token, post_id = self.authorize(received), received.parts["post"]
        post = next((one for one in self.standalone if one.id == post_id), None)
        if post is None or post.account not in token.user_ids:
            raise self.no_such(post_id)
        body = received.json() if received.content_type == "application/json" else None
        wrong = check_fields(body, {"message": str}, ("message",))
        if wrong or not body["message"].strip() or len(body["message"]) > self.comment_chars:
            raise self.wrong(f"(#100) {wrong or 'Param message cannot be posted'}")
        comment = Post(
            platform=self.name,
            id=f"{post.id}_{self.number(UNIX)}",
            account=post.account,
            text=body["message"],
            at=received.at,
            headers=received.headers,
            fields=body,
            comment_on=post.id,
        )
        self.posts.append(comment)
        return Answer(200, {"id": comment.id})

    def told(self, post: Post, query: str, everything: dict[str, Any]) -> dict[str, Any]:
        """What of a post is asked for: `id,from,comments.limit(50){id,text}`."""
        fields = _expanded(query)
        comments = [one for one in self.posts if one.comment_on == post.id]
        if "comments" in fields and comments:
            wanted = set(_expanded(fields["comments"]))
            told = [self.comment_seen(one) for one in reversed(comments)]
            data = [{name: one[name] for name in one if name in wanted} for one in told]
            everything = everything | {"comments": {"data": data}}
        return {name: everything[name] for name in everything if name in fields or name == "id"}

    def comment_seen(self, comment: Post) -> dict[str, Any]:
        """A comment, as its reader sees it."""
        raise NotImplementedError

    def fetched(self, url: str) -> Media | None:
        """The media themselves, read from where the caller said they are; None where that fails."""
        try:
            with urllib.request.urlopen(url, timeout=FETCH_SECONDS) as reply:
                content = Content.of(iter(partial(reply.read, BLOCK_BYTES), b""))
        except (OSError, ValueError):
            return None
        content_type = content_type_of(content.head)
        if content_type is None:
            return None
        return self.hold_media(secrets.token_hex(8), content, content_type, url)


@dataclass(slots=True)
class Container:
    id: str
    user_id: str
    made_at: datetime
    fields: Mapping[str, Any]
    media: tuple[Media, ...]
    polls: int = 0
    published: bool = False
    error: str | None = None

    @property
    def is_child(self) -> bool:
        return self.fields.get("is_carousel_item") in (True, "true")


class ContainersDialect(GraphDialect):
    """Containers that are read, published once, and die after a day."""

    version: ClassVar[str]
    posts_path: ClassVar[str]
    quota_path: ClassVar[str]
    text_field: ClassVar[str]
    daily_cap: ClassVar[int]
    refresh_grant: ClassVar[str]
    metric_names: ClassVar[frozenset[str]]

    def clear(self) -> None:
        super().clear()
        self.containers: dict[str, Container] = {}
        self.quota = self.daily_cap

    def make_routes(self) -> list[Route]:
        cls = type(self)
        base = f"/{self.version}/{{user}}/{self.posts_path}"
        return [
            Route(f"POST {base}", "create container", cls.create),
            Route(f"GET {base}", "find post", cls.find_posts),
            Route(f"POST {base}_publish", "publish container", cls.publish),
            Route(f"GET /{self.version}/{{user}}/{self.quota_path}", "read limits", cls.read_quota),
            Route(f"GET /{self.version}/{{node}}/insights", "read metrics", metrics.of_containers),
            Route(f"GET /{self.version}/{{node}}", "read post", cls.read),
            Route("GET /refresh_access_token", "refresh", cls.refresh),
        ]

    def name_call(self, call: str, parts: Any) -> str:
        return "read container" if parts.get("node") in self.containers else call

    def fail_container(self, container_id: str, error: str) -> None:
        """Let a container end in ERROR, as media that cannot be processed do."""
        self.containers[container_id].error = error

    # what each says in its own words

    def contents(self, received: Received, user: str) -> tuple[dict[str, Any], tuple[Media, ...]]:
        """The fields of a new container and its media, all of them fit."""
        raise NotImplementedError

    def creation_id(self, received: Received) -> str:
        raise NotImplementedError

    def standing(self, container: Container, status: str) -> dict[str, Any]:
        raise NotImplementedError

    def not_publishable(self, container: Container | None, status: str) -> Refused:
        """`status`: GONE, CHILD, or how the container stands."""
        raise NotImplementedError

    def seen(self, post: Post) -> dict[str, Any]:
        """A post as its reader sees it."""
        raise NotImplementedError

    # calls

    def create(self, received: Received) -> Answer:
        user = self.owned(received, "user")
        fields, media = self.contents(received, user)
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

    def children(self, user: str, ids: list[str], refused: Refused) -> tuple[Media, ...]:
        media: tuple[Media, ...] = ()
        for child_id in ids:
            child = self.containers.get(child_id)
            if child is None or child.user_id != user or not child.is_child:
                raise refused
            # A film that is still worked on cannot be shown.
            if self.status_of(child) in ("EXPIRED", "ERROR") or (child.polls and _films(child)):
                raise refused
            media += child.media
        return media

    def status_of(self, container: Container) -> str:
        if container.published:
            return "PUBLISHED"
        if container.error:
            return "ERROR"
        if self.clock.now() >= container.made_at + CONTAINER_LIFE:
            return "EXPIRED"
        return "IN_PROGRESS" if container.polls > 0 else "FINISHED"

    def publish(self, received: Received) -> Answer:
        user = self.owned(received, "user")
        container = self.containers.get(self.creation_id(received))
        if container is None or container.user_id != user:
            raise self.not_publishable(None, "GONE")
        if container.is_child:
            raise self.not_publishable(container, "CHILD")
        if (status := self.status_of(container)) != "FINISHED":
            raise self.not_publishable(container, status)
        since = self.clock.now() - timedelta(hours=24)
        if sum(p.account == user and p.at > since for p in self.standalone) >= self.quota:
            raise Refused(self.capped())
        container.published = True
        post = Post(
            platform=self.name,
            id=str(self.number(UNIX)),
            account=user,
            text=container.fields.get(self.text_field, ""),
            at=received.at,
            media=container.media,
            headers=received.headers,
            fields={**container.fields, "container": container.id},
        )
        self.posts.append(post)
        return Answer(200, {"id": post.id})

    def read(self, received: Received) -> Answer:
        token, node = self.authorize(received), received.parts["node"]
        wanted = _wanted(received)
        container = self.containers.get(node)
        if container is not None and container.user_id in token.user_ids:
            status = self.status_of(container)
            container.polls = max(0, container.polls - 1)
            return Answer(200, _only({"id": node} | self.standing(container, status), wanted))
        for post in self.standalone:
            if post.id == node and post.account in token.user_ids:
                query = received.params.get("fields", "id")
                return Answer(200, self.told(post, query, self.seen(post)))
        raise self.no_such(node)

    def find_posts(self, received: Received) -> Answer:
        return self.listed(received, lambda post: "reply_to_id" not in post.fields)

    def listed(self, received: Received, fits: Callable[[Post], bool]) -> Answer:
        user, wanted = self.owned(received, "user"), _wanted(received)
        limit = int(received.params.get("limit", "25"))
        own = [p for p in reversed(self.standalone) if p.account == user and fits(p)][:limit]
        cursors = {"before": "QVFI", "after": "QVFJ"}
        data = [_only(self.seen(post), wanted) for post in own]
        return Answer(200, {"data": data, "paging": {"cursors": cursors}})

    def read_quota(self, received: Received) -> Answer:
        self.owned(received, "user")
        if received.params != {"fields": "config"}:
            raise self.wrong("(#100) fields must be config here")
        config = {"quota_total": self.quota, "quota_duration": 86_400}
        return Answer(200, {"data": [{"config": config}]})

    def refresh(self, received: Received) -> Answer:
        token = self.authorize(received)
        if received.params != {"grant_type": self.refresh_grant}:
            return self.failure(400, f"(#100) grant_type must be {self.refresh_grant}")
        if self.clock.now() - token.issued_at < YOUNGEST_REFRESH:
            return self.failure(400, "(#100) The token is not a day old")
        newer = self.issue(token, token.user_ids, token.handle)
        life = int(self.access_life.total_seconds())
        return Answer(200, {"access_token": newer, "token_type": "bearer", "expires_in": life})


def _expanded(query: str) -> dict[str, str]:
    """Fields with what is asked of each: {"id": "", "comments": "id,text"}."""
    found = re.findall(r"(\w+)(?:\.\w+\([^)]*\))*(?:\{([^{}]*)\})?(?:,|$)", query)
    return dict(found)


def timestamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S+0000")


def _films(container: Container) -> bool:
    return any(shown.content_type.startswith("video/") for shown in container.media)


def _wanted(received: Received) -> set[str]:
    return set(received.params.get("fields", "id").split(",")) | {"id"}


def _only(everything: dict[str, Any], wanted: set[str]) -> dict[str, Any]:
    return {name: value for name, value in everything.items() if name in wanted}
