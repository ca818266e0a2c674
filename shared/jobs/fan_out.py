"""The whole-post form of a publish task: it only makes sure that each delivery has its own task."""

from __future__ import annotations

from typing import Any

from shared.domain.failures import BadRequestError, Problem
from shared.jobs.publish import tell_failed
from shared.runtime import Runtime


def run(post_id: str, rt: Runtime) -> dict[str, Any]:
    """Create the recorded task of each open delivery; those that exist stay as they are."""
    found = rt.store.posts.deliveries(post_id)
    if found is None:
        sentence = f"There is no post {post_id!r}."
        raise BadRequestError([Problem("postId", "post_unknown", sentence)])
    _, logs = found
    waking = [log for log in logs if log.is_open and log.promote_at is None]
    failures = rt.queue.wake_all([log.wake() for log in waking])
    tell_failed(failures, rt)
    return {
        "success": True,
        "postId": post_id,
        "jobs": len(waking) - len(failures),
        "deliveries": [
            {
                "deliveryId": log.id,
                "platform": log.platform,
                "accountId": log.account_id,
                "status": str(log.status),
            }
            for log in logs
        ],
    }
