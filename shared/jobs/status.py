"""What became of a post, and a company's posts by time. Read from the deliveries themselves."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from shared.domain import cursors, posts
from shared.domain.deliveries import Arrived, PublishLog
from shared.domain.posts import PostStatus, ScheduledPost
from shared.runtime import Runtime


def of_post(post_id: str, company_id: str, rt: Runtime) -> dict[str, Any]:
    whole = rt.store.posts.whole(post_id, company_id)
    results = {name: posts.result(log) for name, log in whole.logs.items()}
    return {
        **_summary(post_id, whole.post, results),
        "deliveries": [_delivery(log) for log in whole.logs.values()],
    }


def of_company(
    company_id: str,
    *,
    status: PostStatus | None,
    since: datetime | None,
    until: datetime | None,
    cursor: str | None,
    limit: int,
    rt: Runtime,
) -> dict[str, Any]:
    page = rt.store.posts.page(
        company_id,
        status=status,
        since=since,
        until=until,
        after=cursors.decode(cursor),
        limit=limit,
    )
    return {
        "success": True,
        "posts": [_summary(post_id, post, post.results) for post_id, post in page.posts],
        "nextCursor": cursors.encode(*page.last) if page.last else None,
    }


def _summary(
    post_id: str, post: ScheduledPost, results: Mapping[str, posts.Result]
) -> dict[str, Any]:
    seen = list(results.values())
    return {
        "success": True,
        "postId": post_id,
        "companyId": post.company_id,
        "status": str(posts.derive(seen)),
        "message": posts.sentence(seen),
        "summary": posts.summary(seen),
        "errorMessage": posts.errors(seen),
        "scheduledAt": post.scheduled_at.isoformat(),
        "timezone": post.timezone,
        "latestAt": post.latest_at.isoformat(),
    }


def _delivery(log: PublishLog) -> dict[str, Any]:
    evidence = {
        "unsettledSince": _iso(log.unsettled_since),
        "lookups": log.lookups,
        "committing": _json(log.committing.document()) if log.committing else None,
        "rawResponse": log.raw_response,
    }
    return {
        "deliveryId": log.id,
        "platform": log.platform,
        "accountId": log.account_id,
        "status": str(log.status),
        "generation": log.generation,
        "dueAt": _iso(log.due_at),
        "attempts": [_json(attempt.document()) for attempt in log.attempts],
        "attemptsSpent": log.attempts_spent,
        "nextRetryAt": _iso(log.next_retry_at),
        "remoteId": log.remote_id,
        "remoteUrl": log.remote_url,
        "publishedAt": _iso(log.published_at),
        **_parts(log),
        "errorCode": log.error_code,
        "errorMessage": log.error_message,
        "durationMs": log.duration_ms,
        "evidence": {name: value for name, value in evidence.items() if value},
    }


def _parts(log: PublishLog) -> dict[str, Any]:
    """Of several, where each part is; those that are not published yet have no id."""
    if len(log.wanted) == 1:
        return {}
    missing: list[Arrived | None] = [None] * (len(log.wanted) - log.part)
    return {
        "parts": [
            {
                "remoteId": part.remote_id if part else None,
                "remoteUrl": part.remote_url if part else None,
                "publishedAt": _iso(part.published_at) if part else None,
            }
            for part in [*log.parts, *missing]
        ]
    }


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None


def _json(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in document.items()
    }
