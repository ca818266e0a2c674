"""Posts that are containers first, as on Instagram and Threads.

A container is made, looked at until Meta has fetched and understood its media, and published once.
It is on record before it is published, so an unanswered call is settled by reading the container
and, while that is still FINISHED, repeating the same call.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar

import httpx

from shared.domain.accounts import Tokens
from shared.domain.failures import (
    OutcomeUnknownError,
    PermanentError,
    PlatformError,
    ThrottledError,
    TransientError,
)
from shared.domain.media import MediaItem
from shared.platforms.base import (
    READ_LIMITS,
    READ_METRICS,
    Call,
    Delivery,
    Exact,
    Flow,
    Grant,
    Keep,
    LimitsFlow,
    MetricsFlow,
    MetricsQuery,
    Processing,
    Published,
    Reading,
    RefreshFlow,
    Request,
    Step,
    Unread,
    fields_of,
)
from shared.platforms.graph import (
    BAD_PARAMETER,
    CLOCKS_APART,
    NO_SUCH_OBJECT,
    GraphPlatform,
    auth,
    error_of,
    instant,
    plain,
)

READ_CONTAINER = "read container"
DAILY_CAP = 2207042  # of posts through the API in any 24 h
CAP_WAIT = timedelta(hours=1)
TOO_FEW_VIEWERS = 10  # with "Not enough viewers …"; otherwise a permission is missing
REFRESH_AHEAD = timedelta(days=7)
REFRESH_AGE = timedelta(hours=25)  # a token younger than a day is not exchanged

Fields = dict[str, Any]


class ContainerPlatform(GraphPlatform):
    """`platform_user_id` is the user's id on the platform."""

    posts_path: ClassVar[str]  # below the user: where containers are made and posts are listed
    replies_path: ClassVar[str]  # where it takes threads
    quota_path: ClassVar[str]  # what it allows in a day
    text_field: ClassVar[str]
    status_fields: ClassVar[tuple[str, str]]  # how a container stands, and why
    refresh_grant: ClassVar[str]
    metric_names: ClassVar[Mapping[str, str]]  # ours and theirs
    check_image: ClassVar[timedelta]
    check_video: ClassVar[timedelta]
    guarantee = Exact(
        rests_on="the container: it is read first, and is published at most once",
        risk="none known; a container lives 24 h, and what is then still open is for a person",
    )
    refreshes = True
    tells_limits = True
    metrics_batch = 25  # one call each

    # what each says in its own words

    def post(self, url: str, token: str, fields: Fields) -> Request:
        """The request that sends `fields`."""
        raise NotImplementedError

    def text_fields(self, delivery: Delivery) -> Fields:
        """The text and the options, which belong to the post as a whole."""
        raise NotImplementedError

    def item_fields(self, item: MediaItem) -> Generator[Step, Any, Fields]:
        """Where Meta fetches the item from, and what it shows."""
        raise NotImplementedError

    def single_fields(self, delivery: Delivery) -> Generator[Step, Any, Fields]:
        """What a post of at most one item is made of."""
        raise NotImplementedError

    def carousel_fields(self, children: list[str]) -> Fields:
        raise NotImplementedError

    def spoilt(self, why: str) -> tuple[str, bool]:
        """The code of a container in ERROR, and whether a new one may do better."""
        raise NotImplementedError

    # flows

    def publish(self, delivery: Delivery, token: str) -> Flow:
        unsettled = delivery.unsettled_since is not None
        state = dict(delivery.state)
        if "container" not in state:
            state = yield from self._contain(delivery, state, token)
            if "container" not in state:
                return Processing(state, self.check_video)
        standing, why = yield from self._standing(state["container"], token)
        if standing == "EXPIRED" and not unsettled:
            state = yield from self._contain(delivery, {}, token)
            if "container" not in state:
                return Processing(state, self.check_video)
            standing, why = yield from self._standing(state["container"], token)
        match standing:
            case "IN_PROGRESS":
                filmed = any(item.is_video for item in delivery.media)
                return Processing(state, self.check_video if filmed else self.check_image)
            case "FINISHED":
                pass
            case "ERROR":
                if not unsettled:
                    yield Keep({})  # this container is lost; another attempt makes a new one
                raise self._spoilt(why, unsettled, state)
            case "EXPIRED" if not unsettled:
                raise TransientError("A new container has expired", code="container_expired")
            case "PUBLISHED" | "EXPIRED":
                return (yield from self.lookup(delivery, token))
            case other:
                raise TransientError(f"A container is {other}", code="container_status")

        url = f"{self._user(delivery)}/{self.posts_path}_publish"
        publish = self.post(url, token, {"creation_id": int(state["container"])})
        reply = yield Call(publish, "publish container", commits=True)
        media_id: str = reply.json()["id"]
        params = {"fields": "id,permalink,timestamp"}
        read = Request("GET", f"{self.graph}/{media_id}", auth(token), params=params)
        seen = yield Call(read, "read post", optional=True)
        post = fields_of(seen) if seen is not None else {}
        return Published(media_id, post.get("permalink"), instant(post.get("timestamp")))

    def _contain(
        self, delivery: Delivery, state: dict[str, Any], token: str
    ) -> Generator[Step, Any, dict[str, Any]]:
        """The state with a container: one per item of a carousel, and the one to publish. Without
        it while a video of the carousel is worked on: only finished children are taken."""
        if len(delivery.media) > 1:
            state = yield from self._children(delivery, state, token)
            children = state["children"]
            for item in delivery.media:
                if item.is_video:
                    standing, why = yield from self._standing(children[item.id], token)
                    if standing == "IN_PROGRESS":
                        return state
                    if standing != "FINISHED":
                        yield Keep({})
                        if standing == "EXPIRED":
                            raise TransientError("A child has expired", code="container_expired")
                        raise self._spoilt(why, False, {})
            fields = self.carousel_fields([children[item.id] for item in delivery.media])
        else:
            fields = yield from self.single_fields(delivery)
        fields |= self.text_fields(delivery)
        state = {**state, "container": (yield from self._create(delivery, fields, token))}
        if delivery.unsettled_since is not None:
            state["second"] = True  # ordered by a person: what it proves is not about the first
        yield Keep(state)
        return state

    def _children(
        self, delivery: Delivery, state: dict[str, Any], token: str
    ) -> Generator[Step, Any, dict[str, Any]]:
        children: dict[str, str] = dict(state.get("children", {}))
        for item in delivery.media:
            if item.id not in children:
                source = yield from self.item_fields(item)
                child = {**source, "is_carousel_item": True}
                children[item.id] = yield from self._create(delivery, child, token)
                state = {**state, "children": dict(children)}
                yield Keep(state)
        return state

    def _create(self, delivery: Delivery, fields: Fields, token: str) -> Generator[Step, Any, str]:
        request = self.post(f"{self._user(delivery)}/{self.posts_path}", token, fields)
        reply = yield Call(request, "create container")
        container: str = reply.json()["id"]
        return container

    def _standing(self, container: str, token: str) -> Generator[Step, Any, tuple[str, str]]:
        """How the container stands, and why; one that is gone has expired."""
        status, why = self.status_fields
        params = {"fields": f"id,{status},{why}"}
        request = Request("GET", f"{self.graph}/{container}", auth(token), params=params)
        reply = yield Call(request, READ_CONTAINER)
        if reply.status_code == 400:  # let pass by `classify`
            return "EXPIRED", ""
        body = reply.json()
        return body[status], str(body.get(why) or "")

    def _spoilt(self, why: str, unsettled: bool, state: Mapping[str, Any]) -> PlatformError:
        """A container in ERROR was not published and never will be."""
        code, repeatable = self.spoilt(why)
        message = f"{self.label} could not make a post of this container"
        if repeatable and not unsettled:
            return TransientError(message, code=code)
        refusal = PermanentError(message, code=code)
        return refusal.but_absent() if unsettled and "second" not in state else refusal

    def lookup(self, delivery: Delivery, token: str) -> Flow:
        if delivery.unsettled_since is None:
            message = "The container is published, and no call of ours is on record"
            raise OutcomeUnknownError(message, code="not_unsettled")
        path, fields = self.posts_path, f"id,{self.text_field},timestamp,permalink"
        if delivery.above:  # replies have a list of their own
            path, fields = self.replies_path, f"{fields},replied_to"
        params = {"fields": fields, "limit": "50"}
        url = f"{self._user(delivery)}/{path}"
        reply = yield Call(Request("GET", url, auth(token), params=params), "find post")
        since, ours = delivery.unsettled_since - CLOCKS_APART, plain(delivery.text)
        found = [
            post
            for post in reply.json()["data"]
            if (made_at := instant(post.get("timestamp"))) is not None
            and made_at >= since
            and plain(post.get(self.text_field) or "") == ours
            and (post.get("replied_to") or {}).get("id") == delivery.reply_to
        ]
        if len(found) != 1:
            message = f"{len(found)} posts of that time have this text"
            raise OutcomeUnknownError(message, code="not_found" if not found else "ambiguous")
        post = found[0]
        made_at = instant(post["timestamp"])
        return Published(post["id"], post.get("permalink"), made_at, found=True)

    def own_limits(self, platform_user_id: str, server: str | None, token: str) -> LimitsFlow:
        """{"data": [{"config": {"quota_total": 100, "quota_duration": 86400}}]}"""
        url = f"{self.graph}/{platform_user_id}/{self.quota_path}"
        ask = Request("GET", url, auth(token), params={"fields": "config"})
        reply = yield Call(ask, READ_LIMITS)
        return {"dailyPosts": reply.json()["data"][0]["config"]["quota_total"]}

    def metrics(self, query: MetricsQuery, token: str) -> MetricsFlow:
        def ask(media_id: str) -> Request:
            params = {"metric": ",".join(self.metric_names.values())}
            return Request("GET", f"{self.graph}/{media_id}/insights", auth(token), params=params)

        def read(media_id: str, reply: httpx.Response) -> Reading | Unread:
            if reply.status_code < 400:
                return Reading(media_id, self._metrics(reply))
            if error_of(reply)["code"] == TOO_FEW_VIEWERS:  # let pass by `classify`
                return Reading(media_id, {})
            return Unread(media_id, self.code(reply) or "refused", self.message(reply))

        return self.metrics_one_by_one(query.remote_ids, ask, read)

    def _metrics(self, reply: httpx.Response) -> dict[str, Any]:
        """{"data": [{"name": "reach", "values": [{"value": 3}]}, {"name": "views", "total_value":
        {"value": 5}}]}; what there is too little of is left out, the list may be empty."""
        told: dict[str, Any] = {}
        for metric in reply.json()["data"]:
            values = metric.get("values") or [metric.get("total_value") or {}]
            told[metric["name"]] = values[-1].get("value")
        return {ours: told.get(theirs) for ours, theirs in self.metric_names.items()}

    def refreshable(self, tokens: Tokens) -> bool:
        """There is no refresh token: the access token is exchanged itself."""
        return True

    def refresh(self, tokens: Tokens) -> RefreshFlow:
        """The access token itself is exchanged, while it is alive and at least a day old."""
        params = {"grant_type": self.refresh_grant}
        url = f"{self.app.api_url}/refresh_access_token"
        request = Request("GET", url, auth(tokens.access_token), params=params)
        reply = yield Call(request, "refresh")
        body = reply.json()
        return Grant(body["access_token"], expires_in=timedelta(seconds=body["expires_in"]))

    def refresh_at(self, ends_at: datetime, now: datetime) -> datetime:
        """Long before its end: there is no refresh token, and one that has ended is lost."""
        return max(ends_at - REFRESH_AHEAD, now + REFRESH_AGE)

    def _user(self, delivery: Delivery) -> str:
        return f"{self.graph}/{delivery.platform_user_id}"

    # reading answers

    def classify(self, call: Call, reply: httpx.Response) -> PlatformError | None:
        if reply.status_code >= 400:
            error: Mapping[str, Any] = reply.json()["error"]
            numbers = error["code"], error.get("error_subcode")
            gone = reply.status_code == 400 and numbers == NO_SUCH_OBJECT
            if error.get("error_subcode") == DAILY_CAP:
                return ThrottledError(self.said(call, reply), until=CAP_WAIT, **self.about(reply))
            if call.name == READ_CONTAINER and gone:
                return None
            if call.name == READ_METRICS and _about_one_post(error):
                return None
        return super().classify(call, reply)


def _about_one_post(error: Mapping[str, Any]) -> bool:
    """Whether an answer about insights says something of the post, and not of the account."""
    if error["code"] == TOO_FEW_VIEWERS:
        return "viewers" in str(error.get("message", "")).lower()
    return bool(error["code"] == BAD_PARAMETER)
