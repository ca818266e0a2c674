"""Instagram, by the API with Instagram Login: feed images, carousels, reels.

Source: https://developers.facebook.com/docs/instagram-platform/content-publishing,
…/reference/instagram-media/insights, …/instagram-graph-api/reference/error-codes,
…/graph-api/guides/error-handling, …/rate-limiting.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Generator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from pydantic import Field

from shared.domain.accounts import Tokens
from shared.domain.failures import (
    AuthExpiredError,
    OutcomeUnknownError,
    PermanentError,
    PlatformError,
    Problem,
    ThrottledError,
    TransientError,
)
from shared.domain.media import MediaItem
from shared.platforms.base import (
    READ_METRICS,
    Call,
    Delivery,
    Draft,
    Exact,
    Flow,
    Grant,
    Keep,
    Limits,
    MetricsFlow,
    MetricsQuery,
    Options,
    Platform,
    Processing,
    PublicUrl,
    Published,
    Reading,
    RefreshFlow,
    Request,
    Step,
    Unread,
    fields_of,
)

VERSION = "v25.0"
MEGABYTE = 1024 * 1024
REFRESH_AHEAD = timedelta(days=7)
REFRESH_AGE = timedelta(hours=25)  # a token younger than a day is not exchanged
HASHTAGS = 30
MENTIONS = 20
ALT_TEXT_CHARS = 1000
TALLEST, WIDEST = 4 / 5, 1.91  # width by height of a feed image
SHORTEST_REEL, LONGEST_REEL = timedelta(seconds=3), timedelta(minutes=15)
CLOCKS_APART = timedelta(seconds=60)  # theirs and ours
METRICS = {  # ours and theirs, without those that ask for a kind of media
    "views": "views",
    "reach": "reach",
    "likes": "likes",
    "comments": "comments",
    "saves": "saved",
    "shares": "shares",
    "engagements": "total_interactions",
}

CHECK_IMAGE = timedelta(seconds=10)
CHECK_VIDEO = timedelta(minutes=1)  # as often as the documentation asks for

# What the numbers in `error` mean. A subcode says more than its code, and is looked at first: the
# code of "action blocked as spam", 2207051, is 4, which alone would be a rate limit.
REFUSED_SUBCODES = frozenset(
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
NOT_READY = 2207027  # with HTTP 400, in answer to media_publish
DAILY_CAP = 2207042  # of posts through the API in any 24 h
TRY_AGAIN_SUBCODES = frozenset({NOT_READY, 2207001, 2207032, 2207053, 2207082, 2207020, 2207008})
TOKEN_REFUSED = frozenset({190, 102})
APP_THROTTLED = frozenset({4, 341})
ACCOUNT_THROTTLED = frozenset({17, 32, 613})
USE_CASE_THROTTLED = range(80000, 80100)
UNWELCOME = 368  # blocked for a while for what it posts
SERVER_TROUBLE = frozenset({1, 2})
NO_SUCH_OBJECT = (100, 33)
BAD_PARAMETER = 100
TOO_FEW_VIEWERS = 10  # with "Not enough viewers …"; otherwise a permission is missing
CAP_WAIT = timedelta(hours=1)
UNWELCOME_WAIT = timedelta(hours=6)

STATUS_NUMBER = re.compile(r"\b22\d{5}\b")  # "Error: Media upload has failed with error code 22…"


class InstagramOptions(Options):
    location_id: str | None = Field(None, pattern=r"^\d+$")
    collaborators: tuple[str, ...] = Field((), max_length=3)
    share_to_feed: bool | None = None  # reels
    thumb_offset: int | None = Field(None, ge=0)  # reels: milliseconds into the video


class Instagram(Platform):
    """`platform_user_id` is the Instagram user's id.

    A post is a container that is published once. The container is on record before it is
    published, so an unanswered `media_publish` is settled by reading the container and, while that
    is still FINISHED, repeating the same call.
    """

    name = "instagram"
    label = "Instagram"
    api_url = "https://graph.instagram.com"
    guarantee = Exact()
    limits = Limits(
        text_chars=2200,
        media_items=10,
        media_types={
            "image/jpeg": 8 * MEGABYTE,
            "video/mp4": 300 * MEGABYTE,
            "video/quicktime": 300 * MEGABYTE,
        },
        required_media=True,
        daily_posts=100,  # its own reference has shown 50: an account's `limits` may say so
    )
    options = InstagramOptions
    refreshes = True
    metrics_batch = 25  # one call each
    shares_limits = True  # Meta counts an account's calls, whatever they are for

    # flows

    def publish(self, delivery: Delivery, token: str) -> Flow:
        unsettled = delivery.unsettled_since is not None
        state = dict(delivery.state)
        if "container" not in state:
            state = yield from self._contain(delivery, state, token)
        standing = yield from self._standing(state, token)
        if standing["status_code"] == "EXPIRED" and not unsettled:
            state = yield from self._contain(delivery, {}, token)
            standing = yield from self._standing(state, token)
        match standing["status_code"]:
            case "IN_PROGRESS":
                return Processing(state, CHECK_VIDEO if _is_reel(delivery) else CHECK_IMAGE)
            case "FINISHED":
                pass
            case "ERROR":
                if not unsettled:
                    yield Keep({})  # this container is lost; another attempt makes a new one
                raise self._spoilt(standing.get("status", ""), unsettled, state)
            case "EXPIRED" if not unsettled:
                raise TransientError("A new container has expired", code="container_expired")
            case "PUBLISHED" | "EXPIRED":
                return (yield from self.lookup(delivery, token))
            case other:
                raise TransientError(f"A container is {other}", code="container_status")

        url = f"{self._user(delivery)}/media_publish"
        publish = Request("POST", url, _auth(token), json={"creation_id": int(state["container"])})
        reply = yield Call(publish, "publish container", commits=True)
        media_id: str = reply.json()["id"]
        params = {"fields": "id,permalink,timestamp"}
        read = Request("GET", f"{self._graph}/{media_id}", _auth(token), params=params)
        seen = yield Call(read, "read post", optional=True)
        post = fields_of(seen) if seen is not None else {}
        return Published(media_id, post.get("permalink"), _instant(post.get("timestamp")))

    def _contain(
        self, delivery: Delivery, state: dict[str, Any], token: str
    ) -> Generator[Step, Any, dict[str, Any]]:
        """The state with a container: one per item of a carousel, and the one to publish."""
        media = delivery.media
        options = InstagramOptions.model_validate(delivery.options)
        fields: dict[str, Any] = {"caption": delivery.text} if delivery.text else {}
        if options.location_id:
            fields["location_id"] = options.location_id
        if options.collaborators:
            fields["collaborators"] = list(options.collaborators)
        if len(media) > 1:
            children: dict[str, str] = dict(state.get("children", {}))
            for item in media:
                if item.id not in children:
                    source = yield from _source(item)
                    child = {**source, "is_carousel_item": True}
                    children[item.id] = yield from self._create(delivery, child, token)
                    state = {**state, "children": dict(children)}
                    yield Keep(state)
            fields |= {
                "media_type": "CAROUSEL",
                "children": [children[item.id] for item in media],
            }
        else:
            fields |= yield from _source(media[0])
            if _is_reel(delivery):
                fields["media_type"] = "REELS"
                if options.share_to_feed is not None:
                    fields["share_to_feed"] = options.share_to_feed
                if options.thumb_offset is not None:
                    fields["thumb_offset"] = str(options.thumb_offset)
        state = {**state, "container": (yield from self._create(delivery, fields, token))}
        if delivery.unsettled_since is not None:
            state["second"] = True  # ordered by a person: what it proves is not about the first
        yield Keep(state)
        return state

    def _create(
        self, delivery: Delivery, fields: dict[str, Any], token: str
    ) -> Generator[Step, Any, str]:
        request = Request("POST", f"{self._user(delivery)}/media", _auth(token), json=fields)
        reply = yield Call(request, "create container")
        container: str = reply.json()["id"]
        return container

    def _standing(
        self, state: Mapping[str, Any], token: str
    ) -> Generator[Step, Any, Mapping[str, Any]]:
        """What the container says of itself; one that is gone has expired."""
        params = {"fields": "id,status_code,status"}
        url = f"{self._graph}/{state['container']}"
        reply = yield Call(Request("GET", url, _auth(token), params=params), "read container")
        if reply.status_code == 400:  # let pass by `classify`
            return {"status_code": "EXPIRED"}
        standing: Mapping[str, Any] = reply.json()
        return standing

    def _spoilt(self, status: str, unsettled: bool, state: Mapping[str, Any]) -> PlatformError:
        """A container in ERROR was not published and never will be."""
        found = STATUS_NUMBER.search(status)
        number = int(found[0]) if found else 0
        code = f"ig_{number}" if number else "container_error"
        message = "Instagram could not make a post of this container"
        if not unsettled and number in TRY_AGAIN_SUBCODES:
            return TransientError(message, code=code)
        refusal = PermanentError(message, code=code)
        return refusal.but_absent() if unsettled and "second" not in state else refusal

    def lookup(self, delivery: Delivery, token: str) -> Flow:
        if delivery.unsettled_since is None:
            message = "The container is published, and no call of ours is on record"
            raise OutcomeUnknownError(message, code="not_unsettled")
        params = {"fields": "id,caption,timestamp,permalink", "limit": "50"}
        request = Request("GET", f"{self._user(delivery)}/media", _auth(token), params=params)
        reply = yield Call(request, "find post")
        since, ours = delivery.unsettled_since - CLOCKS_APART, _plain(delivery.text)
        found = [
            post
            for post in reply.json()["data"]
            if (made_at := _instant(post.get("timestamp"))) is not None
            and made_at >= since
            and _plain(post.get("caption") or "") == ours
        ]
        if len(found) != 1:
            message = f"{len(found)} posts of that time have this caption"
            raise OutcomeUnknownError(message, code="not_found" if not found else "ambiguous")
        post = found[0]
        made_at = _instant(post["timestamp"])
        return Published(post["id"], post.get("permalink"), made_at, found=True)

    def metrics(self, query: MetricsQuery, token: str) -> MetricsFlow:
        def ask(media_id: str) -> Request:
            params = {"metric": ",".join(METRICS.values())}
            return Request("GET", f"{self._graph}/{media_id}/insights", _auth(token), params=params)

        def read(media_id: str, reply: httpx.Response) -> Reading | Unread:
            if reply.status_code < 400:
                return Reading(media_id, _metrics(reply))
            if _error(reply)["code"] == TOO_FEW_VIEWERS:  # let pass by `classify`
                return Reading(media_id, {})
            return Unread(media_id, self.code(reply) or "refused", self.message(reply))

        return self.metrics_one_by_one(query.remote_ids, ask, read)

    def refresh(self, tokens: Tokens) -> RefreshFlow:
        """The access token itself is exchanged, while it is alive and at least a day old."""
        params = {"grant_type": "ig_refresh_token"}
        url = f"{self.app.api_url}/refresh_access_token"
        request = Request("GET", url, _auth(tokens.access_token), params=params)
        reply = yield Call(request, "refresh")
        body = reply.json()
        return Grant(body["access_token"], expires_in=timedelta(seconds=body["expires_in"]))

    def refresh_at(self, ends_at: datetime, now: datetime) -> datetime:
        """Long before its end: there is no refresh token, and one that has ended is lost."""
        return max(ends_at - REFRESH_AHEAD, now + REFRESH_AGE)

    @property
    def _graph(self) -> str:
        return f"{self.app.api_url}/{VERSION}"

    def _user(self, delivery: Delivery) -> str:
        return f"{self._graph}/{delivery.platform_user_id}"

    # reading answers

    def classify(self, call: Call, reply: httpx.Response) -> PlatformError | None:
        """Meta answers most failures with 400; what happened is in the numbers of the body."""
        status = reply.status_code
        if 200 <= status < 300:
            return None
        error: Mapping[str, Any] = reply.json()["error"]
        number, subcode = error["code"], error.get("error_subcode")
        if call.name == "read container" and status == 400 and (number, subcode) == NO_SUCH_OBJECT:
            return None
        if call.name == READ_METRICS and _about_one_post(error):
            return None
        about: dict[str, Any] = {
            "code": self.code(reply) or f"http_{status}",
            "status": status,
            "request_id": self.request_id(reply),
        }
        message = self.said(call, reply)
        if number in TOKEN_REFUSED:
            return AuthExpiredError(message, **about)
        if subcode == DAILY_CAP:
            return ThrottledError(message, until=CAP_WAIT, **about)
        if subcode in TRY_AGAIN_SUBCODES:
            return TransientError(message, **about)
        if subcode in REFUSED_SUBCODES:
            return PermanentError(message, **about)
        if number in APP_THROTTLED:
            return ThrottledError(message, until=self.reset_at(reply), scope="platform", **about)
        if number in ACCOUNT_THROTTLED or number in USE_CASE_THROTTLED:
            return ThrottledError(message, until=self.reset_at(reply), **about)
        if number == UNWELCOME:
            return ThrottledError(message, until=UNWELCOME_WAIT, **about)
        if number in SERVER_TROUBLE or error.get("is_transient"):
            # Whether a post came of it, nobody says.
            trouble = OutcomeUnknownError if call.commits else TransientError
            return trouble(message, **about)
        return super().classify(call, reply)

    def reset_at(self, reply: httpx.Response) -> datetime | timedelta | None:
        """{"17841…": [{"call_count": 100, "estimated_time_to_regain_access": 19}]}, in minutes."""
        try:
            usage = json.loads(reply.headers.get("X-Business-Use-Case-Usage", "{}"))
            cases = [case for cases in usage.values() for case in cases]
            minutes = max(case.get("estimated_time_to_regain_access", 0) for case in cases)
            return timedelta(minutes=minutes) if minutes else None
        except (ValueError, TypeError, AttributeError):
            return super().reset_at(reply)

    def message(self, reply: httpx.Response) -> str:
        return str(_error(reply).get("message") or super().message(reply))

    def code(self, reply: httpx.Response) -> str | None:
        error = _error(reply)
        number = error.get("error_subcode") or error.get("code")
        return f"ig_{number}" if number else None

    def request_id(self, reply: httpx.Response) -> str | None:
        trace = _error(reply).get("fbtrace_id") or reply.headers.get("x-fb-trace-id")
        return str(trace) if trace else None

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


def _source(item: MediaItem) -> Generator[Step, Any, dict[str, Any]]:
    """Where Meta fetches the item from, and what it shows."""
    url = yield PublicUrl(item)
    if item.is_video:
        return {"video_url": url}
    return {"image_url": url} | ({"alt_text": item.alt_text} if item.alt_text else {})


def _is_reel(delivery: Delivery) -> bool:
    return len(delivery.media) == 1 and delivery.media[0].is_video


def _auth(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}  # not `access_token=`: URLs get logged


def _error(reply: httpx.Response) -> Mapping[str, Any]:
    error = fields_of(reply).get("error")
    return error if isinstance(error, dict) else {}


def _about_one_post(error: Mapping[str, Any]) -> bool:
    """Whether an answer about insights says something of the post, and not of the account."""
    if error["code"] == TOO_FEW_VIEWERS:
        return "viewers" in str(error.get("message", "")).lower()
    return bool(error["code"] == BAD_PARAMETER)


def _metrics(reply: httpx.Response) -> dict[str, Any]:
    """{"data": [{"name": "reach", "values": [{"value": 3}]}, {"name": "views", "total_value":
    {"value": 5}}]}; what there is too little of is left out, the list may be empty."""
    told: dict[str, Any] = {}
    for metric in reply.json()["data"]:
        values = metric.get("values") or [metric.get("total_value") or {}]
        told[metric["name"]] = values[-1].get("value")
    return {ours: told.get(theirs) for ours, theirs in METRICS.items()}


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _instant(timestamp: object) -> datetime | None:
    """ISO 8601 ("2026-11-22T10:00:00+0000") or Unix seconds."""
    try:
        if isinstance(timestamp, int):
            return datetime.fromtimestamp(timestamp, UTC)
        at = datetime.fromisoformat(str(timestamp))
    except (ValueError, OverflowError, OSError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
