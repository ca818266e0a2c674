"""X, by its API v2.

Source: https://docs.x.com/x-api/posts/manage-tweets/introduction, …/x-api/media/quickstart,
…/x-api/fundamentals/rate-limits, …/metrics, …/response-codes-and-errors,
/fundamentals/counting-characters.
"""

from __future__ import annotations

import html
import re
import unicodedata
import warnings
from base64 import b64encode
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, ClassVar, Literal

import httpx

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
from shared.domain.media import FoundItem, MediaItem
from shared.platforms.base import (
    READ_METRICS,
    Call,
    Delivery,
    Draft,
    Flow,
    Grant,
    Keep,
    Limits,
    Look,
    MetricsFlow,
    MetricsQuery,
    Options,
    Platform,
    Processing,
    Published,
    ReadBack,
    Reading,
    RefreshFlow,
    Request,
    Step,
    TimeIsShort,
    Unread,
    answered_at,
    fields_of,
    pieces,
)

MEGABYTE = 1024 * 1024
GIF = "image/gif"
PIECE_BYTES = 4 * MEGABYTE
AT_ONCE = timedelta(seconds=1)  # the next request goes on
ALT_TEXT_CHARS = 1000
TO_SPARE = timedelta(minutes=5)  # before uploads expire
CLOCKS_APART = timedelta(seconds=60)  # theirs and ours
FIRST_SNOWFLAKE = 1288834974657  # the millisecond from which X numbers its posts
RATE_LIMITED = 88
DUPLICATE = 187
LINK = r"\S*\w\.\w\S*"  # as written, with or without https://
SHORT_LINK = re.compile(r"https://t\.co/\w+")
FIND_REPLY = "find reply"
# Of the last 30 days X tells an author more of each post; asked of an older one it is a fault.
PRIVATE_FOR = timedelta(days=29)
# Version 2.167 of the API renames the one to the other; which the service takes, it says itself.
FIELD_NAMES = ("tweet.fields", "post.fields")


class TwitterOptions(Options):
    reply_settings: Literal["following", "mentionedUsers", "subscribers", "verified"] | None = None
    made_with_ai: bool | None = None
    paid_partnership: bool | None = None


class Twitter(Platform):
    """`platform_user_id` is the account's number, `handle` its name."""

    name = "twitter"
    label = "X"
    api_url = "https://api.x.com"
    guarantee = ReadBack(
        rests_on="the account's timeline, looked through seven times in half an hour",
        risk="no second post without a person's order; a post that X shows later than that, or "
        "whose text it changes, is left to one",
    )
    limits = Limits(
        text_chars=280,
        media_items=4,
        media_types={
            "image/jpeg": 5 * MEGABYTE,
            "image/png": 5 * MEGABYTE,
            "image/webp": 5 * MEGABYTE,
            GIF: 15 * MEGABYTE,
            "video/mp4": 512 * MEGABYTE,
            "video/quicktime": 512 * MEGABYTE,
        },
        text_unit="weighted: a link counts 23, CJK and emoji 2",
    )
    options = TwitterOptions
    lacks: ClassVar[Mapping[str, str]] = {
        "link card": "X makes its own of a link in the text",
        "first comment": "the second part of a `thread` is one",
    }
    built_to = "its published OpenAPI description"
    threads = True
    opening = frozenset({"reply_settings"})  # a conversation has one rule
    refreshes = True
    metrics_batch = 100

    # flows

    def publish(self, delivery: Delivery, token: str) -> Flow:
        auth = {"Authorization": f"Bearer {token}"}
        options = TwitterOptions.model_validate(delivery.options)
        uploads = _Uploads.of(delivery)
        working = yield from self._upload(delivery.media, uploads, auth)
        if working is not None:
            return working
        kept = uploads.ids
        for item in delivery.media:
            if item.alt_text and not item.is_video:  # may be set again and again
                about = {"id": kept[item.id], "metadata": {"alt_text": {"text": item.alt_text}}}
                url = f"{self.app.api_url}/2/media/metadata"
                yield Call(Request("POST", url, auth, json=about), "describe media")

        post: dict[str, Any] = {"text": delivery.text, **options.model_dump(exclude_none=True)}
        if delivery.reply_to is not None:
            post["reply"] = {"in_reply_to_tweet_id": delivery.reply_to}
        if delivery.media:
            post["media"] = {"media_ids": [kept[item.id] for item in delivery.media]}
        create = Request("POST", f"{self.app.api_url}/2/tweets", auth, json=post)
        reply = yield Call(create, "create post", commits=True)
        post_id: str = reply.json()["data"]["id"]
        return Published(post_id, _permalink(delivery.handle, post_id), _made_at(post_id))

    def _upload(
        self, media: tuple[MediaItem, ...], uploads: _Uploads, auth: Mapping[str, str]
    ) -> Generator[Step, Any, Processing | None]:
        """Give each item a media id; `Processing` while X works on one."""
        url = f"{self.app.api_url}/2/media/upload"
        for item in media:
            slow = _is_slow(item)
            if item.id not in uploads.ids:
                if slow:
                    data = yield from self._upload_in_pieces(item, uploads, auth)
                    if data is None:
                        return Processing(uploads.state(), AT_ONCE)
                else:
                    form, files = {"media_category": "tweet_image"}, {"media": item}
                    request = Request("POST", url, auth, form=form, files=files)
                    data = (yield Call(request, "upload")).json()["data"]
                uploads.add(item, data)
                yield Keep(uploads.state())
            elif slow:
                params = {"command": "STATUS", "media_id": uploads.ids[item.id]}
                reply = yield Call(Request("GET", url, auth, params=params), "read media")
                data = reply.json()["data"]
            else:
                continue
            check_after = _working(data)
            if check_after is not None:
                return Processing(uploads.state(), check_after)
        return None

    def _upload_in_pieces(
        self, item: MediaItem, uploads: _Uploads, auth: Mapping[str, str]
    ) -> Generator[Step, Any, dict[str, Any] | None]:
        """From where an earlier request stopped; None when this one's time is short too."""
        url = f"{self.app.api_url}/2/media/upload"
        if uploads.sending is None:
            yield from self._begin(item, uploads, auth)
        sending = uploads.sending
        assert sending is not None
        found = FoundItem.of(item, sending["bytes"], sending.get("version", ""))
        spans = pieces(sending["bytes"], PIECE_BYTES)
        for index in range(sending["sent"], len(spans)):
            if (yield TimeIsShort()):
                return None
            form, files = {"segment_index": str(index)}, {"media": found}
            place = f"{url}/{sending['id']}/append"
            append = Request("POST", place, auth, form=form, files=files, span=spans[index])
            yield Call(append, "upload")
            sending["sent"] = index + 1
        reply = yield Call(Request("POST", f"{url}/{sending['id']}/finalize", auth), "end upload")
        uploads.sending = None
        uploaded: dict[str, Any] = reply.json()["data"]
        return uploaded

    def _begin(
        self, item: MediaItem, uploads: _Uploads, auth: Mapping[str, str]
    ) -> Generator[Step, Any, None]:
        found: FoundItem = yield Look(item)
        begin = {
            "media_category": "tweet_video" if item.is_video else "tweet_gif",
            "media_type": item.content_type,
            "total_bytes": found.size_bytes,
        }
        url = f"{self.app.api_url}/2/media/upload/initialize"
        reply = yield Call(Request("POST", url, auth, json=begin), "begin upload")
        uploads.begin(reply.json()["data"], found)
        if found.size_bytes > PIECE_BYTES:
            yield Keep(uploads.state())

    def lookup(self, delivery: Delivery, token: str) -> Flow:
        if delivery.unsettled_since is None:
            raise OutcomeUnknownError("Nothing of this delivery is unsettled", code="not_unsettled")
        since = delivery.unsettled_since - CLOCKS_APART
        posts = yield from self._posts_since(since, delivery, token)
        found = [
            post["id"]
            for post in posts
            if (made_at := _made_at(post["id"])) is not None
            and made_at >= since
            and _same(delivery, post["text"])
            and _of_thread(delivery, post)
        ]
        if len(found) != 1:
            message = f"{len(found)} posts of that time have this text"
            raise OutcomeUnknownError(message, code="not_found" if not found else "ambiguous")
        post_id = found[0]
        link = _permalink(delivery.handle, post_id)
        return Published(post_id, link, _made_at(post_id), found=True)

    def _posts_since(
        self, since: datetime, delivery: Delivery, token: str
    ) -> Generator[Step, Any, list[dict[str, Any]]]:
        """The account's posts; where a reply is looked for, with the conversation of each."""
        params = {
            "max_results": "100",
            "start_time": since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "exclude": "retweets",
        }
        url = f"{self.app.api_url}/2/users/{delivery.platform_user_id}/tweets"
        auth = {"Authorization": f"Bearer {token}"}
        if not delivery.above:  # neither name of the fields is needed: an id tells its time
            reply = yield Call(Request("GET", url, auth, params=params), "find post")
            return list(reply.json().get("data", []))
        for name in FIELD_NAMES:  # what is replied to has no name that both versions take
            asked = {**params, name: "conversation_id"}
            reply = yield Call(Request("GET", url, auth, params=asked), FIND_REPLY)
            if reply.status_code == 200:
                break
            if name not in _wrong_parameters(reply.json()):  # a 400, let pass by `classify`
                break
        if reply.status_code != 200:
            code = self.code(reply) or "http_400"
            raise PermanentError(self.message(reply), code=code, status=reply.status_code)
        return list(reply.json().get("data", []))

    def metrics(self, query: MetricsQuery, token: str) -> MetricsFlow:
        since = query.asked_at - PRIVATE_FOR
        ages = {post_id: _made_at(post_id) for post_id in query.remote_ids}
        young = tuple(post_id for post_id, at in ages.items() if at is not None and at >= since)
        old = tuple(post_id for post_id in query.remote_ids if post_id not in young)
        for ids, fields in ((young, "public_metrics,non_public_metrics"), (old, "public_metrics")):
            if ids:
                yield from self._metrics_of(ids, fields, FIELD_NAMES, token)

    def _metrics_of(
        self, ids: tuple[str, ...], fields: str, names: tuple[str, ...], token: str
    ) -> MetricsFlow:
        """An id that X cannot read spoils the whole call, so that each half is asked for then."""
        params = {"ids": ",".join(ids), names[0]: fields}
        auth = {"Authorization": f"Bearer {token}"}
        request = Request("GET", f"{self.app.api_url}/2/tweets", auth, params=params)
        reply = yield Call(request, READ_METRICS)
        body = reply.json()
        if reply.status_code == 400:  # let pass by `classify`
            message, code = self.message(reply), self.code(reply) or "http_400"
            if names[0] in _wrong_parameters(body):
                if len(names) == 1:
                    raise PermanentError(message, code=code, status=400)
                yield from self._metrics_of(ids, fields, names[1:], token)
            elif len(ids) == 1:
                yield Unread(ids[0], code, message)
            else:
                middle = len(ids) // 2
                for half in (ids[:middle], ids[middle:]):
                    yield from self._metrics_of(half, fields, names, token)
            return
        errors = body.get("errors", [])
        for error in errors:
            post_id = error.get("resource_id") or error.get("value")
            if post_id in ids:
                code = str(error.get("type", "")).rpartition("/")[2] or "refused"
                yield Unread(post_id, code, str(error.get("detail", "")))
        posts = body.get("data", []) if errors else body["data"]
        for post in posts:  # last: an error may be about one field of a post alone
            yield Reading(post["id"], _metrics(post), answered_at(reply))

    def refresh(self, tokens: Tokens) -> RefreshFlow:
        if tokens.refresh_token is None:
            raise AuthExpiredError("There is no refresh token", code="no_refresh_token")
        form = {"grant_type": "refresh_token", "refresh_token": tokens.refresh_token}
        headers = {}
        client_id = self.app.client_id or ""
        if self.app.client_secret:  # a confidential client
            pair = b64encode(f"{client_id}:{self.app.client_secret}".encode()).decode()
            headers["Authorization"] = f"Basic {pair}"
        else:
            form["client_id"] = client_id
        request = Request("POST", f"{self.app.api_url}/2/oauth2/token", headers, form=form)
        reply = yield Call(request, "refresh")
        body = reply.json()
        return Grant(
            access_token=body["access_token"],
            refresh_token=body.get("refresh_token"),  # the one just used is dead
            expires_in=timedelta(seconds=body["expires_in"]),
        )

    # reading answers

    def classify(self, call: Call, reply: httpx.Response) -> PlatformError | None:
        status = reply.status_code
        if 200 <= status < 300:
            whole = call.commits or call.name == READ_METRICS
            return None if whole else self._half_success(call, reply)
        if status == 400 and call.name in (READ_METRICS, FIND_REPLY) and fields_of(reply):
            return None  # one of many ids, or a parameter: the flow looks at it
        body: Mapping[str, Any] = reply.json()
        message, code = self.said(call, reply), self.code(reply)
        about: dict[str, Any] = {"status": status, "request_id": self.request_id(reply)}
        if call.name == "refresh":
            return self._refresh_refused(body, status, message, about)
        # 403 {"detail": "You are not allowed to create a Tweet with duplicate content."}, no id
        if status == 403 and (code == f"x_{DUPLICATE}" or "duplicate" in message.lower()):
            return PermanentError(message, code="duplicate", **about)
        if code == "usage-capped" and body.get("period") != "Daily":
            return PermanentError(message, code=code, **about)  # until it resets or is paid
        if status == 429 or code in ("usage-capped", f"x_{RATE_LIMITED}"):
            until, scope = self.reset_at(reply), self._scope(body, reply)
            code = code or "throttled"
            return ThrottledError(message, until=until, scope=scope, code=code, **about)
        return super().classify(call, reply)

    def _half_success(self, call: Call, reply: httpx.Response) -> PlatformError | None:
        """A read or an upload that names errors instead of data fails, whatever its status."""
        body = fields_of(reply)
        if not body.get("errors") or "data" in body:
            return None
        return PermanentError(
            self.said(call, reply),
            code=self.code(reply) or "refused",
            status=reply.status_code,
            request_id=self.request_id(reply),
        )

    def _refresh_refused(
        self, body: Mapping[str, Any], status: int, message: str, about: dict[str, Any]
    ) -> PlatformError:
        code = str(body.get("error") or f"http_{status}")
        if code in ("invalid_grant", "invalid_request"):
            return AuthExpiredError(message, code=code, **about)
        if status == 429:
            return ThrottledError(message, code=code, **about)
        if status >= 500:
            return TransientError(message, code=code, **about)
        return PermanentError(message, code=code, **about)  # our own credentials are refused

    def _scope(
        self, body: Mapping[str, Any], reply: httpx.Response
    ) -> Literal["account", "platform"]:
        """The app shares 10,000 posts in 24 h, and what it pays for."""
        spent = reply.headers.get("x-app-limit-24hour-remaining") == "0"
        return "platform" if spent or "period" in body else "account"

    def reset_at(self, reply: httpx.Response) -> datetime | timedelta | None:
        """Unix seconds; of several limits that are spent, the one that lasts longest."""
        kinds = ("x-rate-limit", "x-user-limit-24hour", "x-app-limit-24hour")
        spent = [kind for kind in kinds if reply.headers.get(f"{kind}-remaining") == "0"]
        resets = [reply.headers.get(f"{kind}-reset", "") for kind in spent or kinds[:1]]
        ends = [int(reset) for reset in resets if reset.isdigit() and len(reset) < 12]
        return datetime.fromtimestamp(max(ends), UTC) if ends else super().reset_at(reply)

    def message(self, reply: httpx.Response) -> str:
        body = fields_of(reply)
        first = _first_error(body)
        sentences = (
            body.get("detail"),
            first.get("detail"),
            first.get("message"),
            body.get("error_description"),
            body.get("title"),
        )
        return next((str(sentence) for sentence in sentences if sentence), super().message(reply))

    def code(self, reply: httpx.Response) -> str | None:
        """The last part of the problem's type, or the number of the error."""
        body = fields_of(reply)
        first = _first_error(body)
        for kind in (body.get("type"), first.get("type")):
            if "/problems/" in str(kind):
                return str(kind).rpartition("/")[2]
        return f"x_{first['code']}" if first.get("code") else None

    def request_id(self, reply: httpx.Response) -> str | None:
        transaction: str | None = reply.headers.get("x-transaction-id")
        return transaction

    # limits

    def text_length(self, text: str) -> int:
        """Weighted: 1 for most letters, 2 for CJK and any emoji, 23 for a link."""
        length: int = _parser()(text).weightedLength
        return length

    def check(self, draft: Draft) -> list[Problem]:
        problems = super().check(draft)
        if len(draft.media) > 1 and any(item.content_type == GIF for item in draft.media):
            sentence = "X takes up to four images, or one GIF."
            problems.append(Problem("media", "media_mix", sentence))
        for index, item in enumerate(draft.media):
            if len(item.alt_text or "") > ALT_TEXT_CHARS:
                sentence = f"X takes an alt text of at most {ALT_TEXT_CHARS} characters."
                problems.append(Problem(f"media[{index}]", "alt_text_too_long", sentence))
        return problems


@cache
def _parser() -> Any:
    """X's own rules. Loading them costs half a second, and only scheduling counts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses pkg_resources; our setuptools still has that
        from twitter_text import parse_tweet
    return parse_tweet


def _first_error(body: Mapping[str, Any]) -> Mapping[str, Any]:
    match body.get("errors"):
        case [Mapping() as first, *_]:
            return first
    return {}


def _wrong_parameters(body: Mapping[str, Any]) -> set[str]:
    """{"errors": [{"parameters": {"ids": ["x"]}, "message": "The `ids` query parameter …"}]}"""
    return {name for error in body.get("errors", []) for name in error.get("parameters", {})}


def _metrics(post: Mapping[str, Any]) -> dict[str, Any]:
    public = post.get("public_metrics", {})
    own = post.get("non_public_metrics", {})
    return {
        "impressions": public.get("impression_count"),
        "likes": public.get("like_count"),
        "shares": public.get("retweet_count", public.get("repost_count")),
        "comments": public.get("reply_count"),
        "quotes": public.get("quote_count"),
        "saves": public.get("bookmark_count"),
        "clicks": own.get("url_link_clicks"),
        "profileClicks": own.get("user_profile_clicks"),
        "engagements": own.get("engagements"),
    }


@dataclass(slots=True)
class _Uploads:
    """The media id of each item, and when X will forget the first of them."""

    ids: dict[str, str]
    end: datetime | None
    begun: datetime | None
    sending: dict[str, Any] | None = None  # the file on its way: its media id, size, …

    @classmethod
    def of(cls, delivery: Delivery) -> _Uploads:
        state, begun = delivery.state, delivery.attempted_at
        end = datetime.fromisoformat(state["end"]) if state.get("end") else None
        if end is not None and begun is not None and begun >= end - TO_SPARE:
            return cls({}, None, begun)
        sending = dict(state["sending"]) if state.get("sending") else None
        return cls(dict(state.get("media", {})), end, begun, sending)

    def begin(self, data: Mapping[str, Any], found: FoundItem) -> None:
        about = {"bytes": found.size_bytes, "version": found.version}
        self.sending = {"id": data["id"], "sent": 0, **about}
        self._ends(data)

    def add(self, item: MediaItem, data: Mapping[str, Any]) -> None:
        self.ids[item.id] = data["id"]
        self._ends(data)

    def _ends(self, data: Mapping[str, Any]) -> None:
        life = data.get("expires_after_secs")
        if life and self.begun is not None:
            end = self.begun + timedelta(seconds=life)
            self.end = min(self.end or end, end)

    def state(self) -> dict[str, Any]:
        end = self.end.isoformat() if self.end else None
        return {"media": dict(self.ids), "end": end, "sending": self.sending}


def _is_slow(item: MediaItem) -> bool:
    """Sent in pieces, and worked on before it can be shown; images alone go in one shot."""
    return item.is_video or item.content_type == GIF


def _working(data: Mapping[str, Any]) -> timedelta | None:
    """When to look again at media that X works on; no `processing_info` is as good as succeeded."""
    info = data.get("processing_info") or {}
    match info.get("state", "succeeded"):
        case "succeeded":
            return None
        case "failed":
            raise PermanentError("X could not process the media", code="media_failed")
    return timedelta(seconds=info.get("check_after_secs", 5))


def _same(delivery: Delivery, text: str) -> bool:
    """Whether X's `text` is ours: it escapes `&`, shortens links and appends one to media."""
    theirs, ours = _plain(html.unescape(text)), _plain(delivery.text)
    shapes = [theirs]
    if delivery.media:
        shapes.append(re.sub(rf"\s*{SHORT_LINK.pattern}$", "", theirs))
    patterns = (LINK.join(map(re.escape, SHORT_LINK.split(shape))) for shape in shapes)
    return any(re.fullmatch(pattern, ours) for pattern in patterns)


def _of_thread(delivery: Delivery, post: Mapping[str, Any]) -> bool:
    """Whether a post may be this part: a conversation is named by the post that began it."""
    if not delivery.above:
        return True
    return post.get("conversation_id") == delivery.above[0] and post["id"] not in delivery.above


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _permalink(handle: str | None, post_id: str) -> str:
    name = (handle or "").lstrip("@") or "i"
    return f"https://x.com/{name}/status/{post_id}"


def _made_at(post_id: str) -> datetime | None:
    """The upper bits of a post's number are the milliseconds at which it was made."""
    milliseconds = int(post_id) >> 22 if post_id.isdigit() else 0
    if not 0 < milliseconds < 1 << 42:
        return None
    made_at = timedelta(milliseconds=FIRST_SNOWFLAKE + milliseconds)
    return datetime(1970, 1, 1, tzinfo=UTC) + made_at
