"""What every platform of Meta's has alike: the errors and limits of the Graph API, and comments.

Most failures come as HTTP 400; what happened is in the numbers of the body. A subcode says more
than its code, and is looked at first: the code of Instagram's "action blocked as spam", 2207051, is
4, which alone would be a rate limit.

Source: https://developers.facebook.com/docs/graph-api/guides/error-handling,
…/graph-api/overview/rate-limiting.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar

import httpx
from pydantic import Field

from shared.domain.failures import (
    AuthExpiredError,
    OutcomeUnknownError,
    PermanentError,
    PlatformError,
    ThrottledError,
    TransientError,
)
from shared.platforms.base import (
    Call,
    Delivery,
    Flow,
    Platform,
    Published,
    ReadBack,
    Request,
    fields_of,
)

Country = Annotated[str, Field(pattern=r"^[A-Z]{2}$")]  # ISO 3166

CREATE_COMMENT = "create comment"
MEGABYTE = 1024 * 1024
CLOCKS_APART = timedelta(seconds=60)  # theirs and ours

TOKEN_REFUSED = frozenset({190, 102})
APP_THROTTLED = frozenset({4, 341})
ACCOUNT_THROTTLED = frozenset({17, 32, 613})
USE_CASE_THROTTLED = range(80000, 80100)
UNWELCOME = 368  # blocked for a while for what it posts
SERVER_TROUBLE = frozenset({1, 2})
NO_SUCH_OBJECT = (100, 33)
BAD_PARAMETER = 100
UNWELCOME_WAIT = timedelta(hours=6)
USAGE_WINDOW = timedelta(hours=1)  # that the percentages of calls are about; it moves along

COMMENTS_GUARANTEE = ReadBack(
    rests_on="the account's own comments on the post, looked through seven times in half an hour",
    risk="no second comment without a person's order",
)


class GraphPlatform(Platform):
    """The numbers of a failure are its code: `ig_190`, under the platform's own `code_prefix`."""

    code_prefix: ClassVar[str]
    version: ClassVar[str]
    # What a post tells of its comments: the author, who is the post's own in ours, text and time.
    comment_fields: ClassVar[tuple[str, str, str]]
    refused_subcodes: ClassVar[frozenset[int]] = frozenset()
    repeatable_subcodes: ClassVar[frozenset[int]] = frozenset()
    shares_limits = True  # Meta counts an account's calls, whatever they are for

    @property
    def graph(self) -> str:
        return f"{self.app.api_url}/{self.version}"

    def comment(self, delivery: Delivery, token: str) -> Flow:
        comment = {"message": delivery.text}
        url = f"{self.graph}/{delivery.above[0]}/comments"
        create = Request("POST", url, auth(token), json=comment)
        reply = yield Call(create, CREATE_COMMENT, commits=True)
        return Published(reply.json()["id"])

    def find_comment(self, delivery: Delivery, token: str) -> Flow:
        """{"from": {"id": "7"}, "comments": {"data": [{"id": "7_8_9", "from": {"id": "7"},
        "message": "…", "created_time": "…"}]}}; no `comments` where there are none."""
        if delivery.unsettled_since is None:
            raise OutcomeUnknownError("No comment of ours is unsettled", code="not_unsettled")
        author, text, time = self.comment_fields
        params = {"fields": f"{author},comments.limit(50){{id,{author},{text},{time}}}"}
        url = f"{self.graph}/{delivery.above[0]}"
        reply = yield Call(Request("GET", url, auth(token), params=params), "find comment")
        post, since = reply.json(), delivery.unsettled_since - CLOCKS_APART
        found = [
            Published(one["id"], published_at=made_at, found=True)
            for one in post.get("comments", {}).get("data", ())
            if one.get(author) == post[author]
            and plain(one.get(text) or "") == plain(delivery.text)
            and (made_at := instant(one.get(time))) is not None
            and made_at >= since
        ]
        if len(found) != 1:
            message = f"{len(found)} comments of ours have this text"
            raise OutcomeUnknownError(message, code="not_found" if not found else "ambiguous")
        return found[0]

    def classify(self, call: Call, reply: httpx.Response) -> PlatformError | None:
        status = reply.status_code
        if 200 <= status < 300:
            return None
        error: Mapping[str, Any] = reply.json()["error"]
        number, subcode = error["code"], error.get("error_subcode")
        message, about = self.said(call, reply), self.about(reply)
        if number in TOKEN_REFUSED:
            return AuthExpiredError(message, **about)
        unseen = call.name == CREATE_COMMENT and (number, subcode) == NO_SUCH_OBJECT
        if subcode in self.repeatable_subcodes or unseen:  # its post, made a moment ago
            return TransientError(message, **about)
        if subcode in self.refused_subcodes:
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

    def about(self, reply: httpx.Response) -> dict[str, Any]:
        """What every error carries beside its message."""
        status = reply.status_code
        code = self.code(reply) or f"http_{status}"
        return {"code": code, "status": status, "request_id": self.request_id(reply)}

    def reset_at(self, reply: httpx.Response) -> datetime | timedelta | None:
        """The longest wait that a header asks for."""
        waits = [*_use_case_waits(reply), *_usage_waits(reply)]
        return max(waits) if waits else super().reset_at(reply)

    def message(self, reply: httpx.Response) -> str:
        return str(error_of(reply).get("message") or super().message(reply))

    def code(self, reply: httpx.Response) -> str | None:
        error = error_of(reply)
        number = error.get("error_subcode") or error.get("code")
        return f"{self.code_prefix}_{number}" if number else None

    def request_id(self, reply: httpx.Response) -> str | None:
        trace = error_of(reply).get("fbtrace_id") or reply.headers.get("x-fb-trace-id")
        return str(trace) if trace else None


def _use_case_waits(reply: httpx.Response) -> Iterator[timedelta]:
    """X-Business-Use-Case-Usage: {"17841…": [{"call_count": 100, "type": "pages",
    "estimated_time_to_regain_access": 19}]}, in minutes."""
    cases = [case for cases in _usage(reply, "X-Business-Use-Case-Usage") for case in _list(cases)]
    for case in cases:
        minutes = case.get("estimated_time_to_regain_access") if isinstance(case, dict) else None
        if isinstance(minutes, int) and minutes > 0:
            yield timedelta(minutes=minutes)


def _usage_waits(reply: httpx.Response) -> Iterator[timedelta]:
    """X-App-Usage, X-Page-Usage: {"call_count": 110, "total_time": 25, "total_cputime": 25}, in
    percent of what an hour allows. Calls that came evenly are below it again when what is over a
    hundred has left the hour."""
    for name in ("X-App-Usage", "X-Page-Usage"):
        for percent in _usage(reply, name):
            if isinstance(percent, int | float) and percent > 100:
                yield USAGE_WINDOW * ((percent - 100) / percent)


def _usage(reply: httpx.Response, header: str) -> list[Any]:
    try:
        usage = json.loads(reply.headers.get(header, "{}"))
    except ValueError:
        return []
    return list(usage.values()) if isinstance(usage, dict) else []


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def auth(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}  # not `access_token=`: URLs get logged


def error_of(reply: httpx.Response) -> Mapping[str, Any]:
    error = fields_of(reply).get("error")
    return error if isinstance(error, dict) else {}


def plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def instant(timestamp: object) -> datetime | None:
    """ISO 8601 ("2026-11-22T10:00:00+0000") or Unix seconds."""
    try:
        if isinstance(timestamp, int):
            return datetime.fromtimestamp(timestamp, UTC)
        at = datetime.fromisoformat(str(timestamp))
    except (ValueError, OverflowError, OSError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
