"""What is sent back: the outcome of a job as JSON, a failure as RFC 9457 problem JSON.

2xx tells Cloud Tasks not to deliver the task again; any other code, 4xx too, makes it try again. So
503 is kept for a claim that is held and for a store that does not answer: an error answer slows the
whole queue.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flask

from shared.domain.claims import Busy, Done, Early, Outcome, Replay, Void
from shared.domain.deliveries import PublishLog, Status
from shared.domain.failures import Problem

RETRY_AFTER_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> flask.Response:
        kind = "application/json" if self.status < 400 else "application/problem+json"
        # Firestore keeps no order of fields: sorted, a remembered answer is the first one's bytes.
        text = json.dumps(self.body, ensure_ascii=False, sort_keys=True)
        return flask.Response(text, self.status, dict(self.headers), content_type=kind)


def published(outcome: Outcome) -> Answer:
    """The same answer for the first task and for each one after it."""
    match outcome:
        case Done(log) | Replay(log):
            return Answer(200, _delivery(log))
        case Early(log):
            return Answer(200, _delivery(log) | {"early": True})
        case Void(reason):
            return Answer(200, {"success": False, "void": True, "message": reason})
        case Busy():
            busy = "Another attempt holds this delivery."
            return problem(503, "busy", busy, retry_after=RETRY_AFTER_SECONDS)


def _delivery(log: PublishLog) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "success": log.status is Status.SUCCESS,
        "result": log.remote_id,
        "status": str(log.status),
        "remoteUrl": log.remote_url,
        "nextRetryAt": log.next_retry_at.isoformat() if log.next_retry_at else None,
        "code": log.error_code,
        "message": log.error_message,
    }
    return {name: value for name, value in answer.items() if value is not None}


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    problems: Sequence[Problem] = (),
    more: Mapping[str, Any] | None = None,
    retry_after: int | None = None,
) -> Answer:
    """RFC 9457. `errors` names each field that is wrong."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "code": code,
        "detail": detail,
        "success": False,
    }
    if problems:
        body["errors"] = [
            {"field": p.field, "code": p.code, "message": p.message} for p in problems
        ]
    headers = {"Retry-After": str(retry_after)} if retry_after is not None else {}
    return Answer(status, body | dict(more or {}), headers)


_TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    422: "Unprocessable Content",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
