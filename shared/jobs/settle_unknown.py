"""Deliveries whose outcome nobody knows: a person looks at the platform and says what is there.

"It is there" needs the post's id, which then belongs to this delivery and to no other. "Send it
again" is the one way to a second post, so it needs a reason, and is audited with a name.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.domain import changes, cursors, leases, posts
from shared.domain.deliveries import PublishLog, Status
from shared.domain.failures import ConflictError, NotFoundError, Problem, RefusedError
from shared.domain.redrives import Person
from shared.jobs import commands
from shared.jobs.commands import Retry, Which
from shared.jobs.publish import tell_failed
from shared.runtime import Runtime
from shared.store.posts import Command, Whole


def listed(where: dict[str, str], cursor: str | None, limit: int, rt: Runtime) -> dict[str, Any]:
    """Unknown deliveries, those still being looked up among them, with what there is to go by."""
    place = cursors.decode(cursor)
    found = rt.store.oversight.in_state(
        Status.UNKNOWN, where, after=place[1] if place else None, limit=limit
    )
    full = len(found) == limit
    return {
        "success": True,
        "deliveries": [_shown(log) for log in found],
        "nextCursor": cursors.encode(rt.now(), found[-1].id) if full else None,
    }


@dataclass(frozen=True, slots=True)
class Sighting:
    """The post as a person has found it."""

    remote_id: str
    remote_url: str | None
    published_at: datetime | None


def is_there(delivery: str, seen: Sighting, person: Person, rt: Runtime) -> dict[str, Any]:
    log = _read(delivery, rt)

    def decide(whole: Whole, now: datetime) -> Command:
        current = whole.logs[delivery]
        known = {current.remote_id, *current.remote_ids}
        if current.status is not Status.UNKNOWN and seen.remote_id in known:
            return Command((), _settled(current, whole))  # said before
        _need_unknown(current)
        _need_later(current, seen)
        _need_nobodys(current, seen, rt)
        change = changes.found(
            current,
            now,
            remote_id=seen.remote_id,
            remote_url=seen.remote_url,
            published_at=seen.published_at,
        )
        told = {
            "action": "unknown.is_there",
            "by": person.email,
            "why": person.why,
            "companyId": current.company_id,
            "deliveryId": delivery,
            "remoteId": seen.remote_id,
        }
        after = Whole(
            whole.post_id,
            whole.post,
            {**whole.logs, delivery: change.log},
            whole.letters,
            whole.assets,
        )
        return Command((change,), _settled(change.log, after), audit=told)

    stored = rt.store.posts.command(log.post_id, log.company_id, decide)
    if stored.logs:  # a thread goes on with its next part
        tell_failed(rt.queue.wake_all([one.wake() for one in stored.logs if one.is_open]), rt)
        _tell("unknown.is_there", log, person, rt)
    return stored.response


def _need_unknown(log: PublishLog) -> None:
    if log.status is Status.UNKNOWN:
        return
    message = f"It is {log.status}, not unknown: there is nothing for a person to settle."
    raise ConflictError(message, code="not_unknown")


def _need_later(log: PublishLog, seen: Sighting) -> None:
    """A post that was there before we tried is another one."""
    since = log.unsettled_since
    if since is None or seen.published_at is None:
        return
    if seen.published_at < since - leases.EVIDENCE_SLACK:
        sentence = f"That post is older than our first call of {since.isoformat()}."
        raise RefusedError([Problem("publishedAt", "evidence_too_old", sentence)])


def _need_nobodys(log: PublishLog, seen: Sighting, rt: Runtime) -> None:
    if seen.remote_id in log.remote_ids:
        message = f"The post {seen.remote_id!r} is another part of the same thread. Look again."
        raise ConflictError(message, code="evidence_taken", details={"belongsTo": log.id})
    owner = rt.store.oversight.owner_of(log.platform, seen.remote_id)
    if owner in (None, log.id):
        return
    message = f"The post {seen.remote_id!r} belongs to another delivery, {owner}. Look again."
    raise ConflictError(message, code="evidence_taken", details={"belongsTo": owner})


def _settled(log: PublishLog, whole: Whole) -> dict[str, Any]:
    results = [posts.result(one) for one in whole.logs.values()]
    return {
        "success": True,
        "deliveryId": log.id,
        "postId": log.post_id,
        "status": str(log.status),
        "result": log.remote_id,
        "remoteUrl": log.remote_url,
        "postStatus": str(posts.derive(results)),
        "message": f"The delivery is settled: {posts.sentence(results)}.",
    }


def send_again(
    delivery: str, latest_at: datetime | None, person: Person, rt: Runtime
) -> dict[str, Any]:
    """Sent once more at the risk of a second post, on this person's word."""
    log = _read(delivery, rt)
    which = Which(log.company_id, log.post_id, ((log.platform, log.account_id),))
    again = Retry(
        content=None,
        options=None,
        media_asset_ids=None,
        thread=None,
        latest_at=latest_at,
        timezone=None,
        risk=person.why,
        by=person.email,
    )
    _need_unknown(log)
    answer = commands.retry(which, again, rt)
    _tell("unknown.send_again", log, person, rt)
    message = "It is sent again. If the first one is there after all, there will be two."
    return {**answer, "success": True, "message": message}


def _read(delivery: str, rt: Runtime) -> PublishLog:
    log = rt.store.deliveries.read(delivery)
    if log is None:
        raise NotFoundError(f"There is no delivery {delivery!r}.")
    return log


def _tell(action: str, log: PublishLog, person: Person, rt: Runtime) -> None:
    rt.log.event(
        "operator.acted",
        action=action,
        by=person.email,
        deliveryId=log.id,
        postId=log.post_id,
        companyId=log.company_id,
        platform=log.platform,
    )


def _shown(log: PublishLog) -> dict[str, Any]:
    last = log.attempts[-1] if log.attempts else None
    return {
        "deliveryId": log.id,
        "postId": log.post_id,
        "companyId": log.company_id,
        "platform": log.platform,
        "accountId": log.account_id,
        "generation": log.generation,
        "unsettledSince": log.unsettled_since.isoformat() if log.unsettled_since else None,
        "nextLookAt": log.next_retry_at.isoformat() if log.next_retry_at else None,
        "lookups": log.lookups,
        "code": log.error_code,
        "problem": log.error_message,
        "part": f"{log.part + 1} of {len(log.wanted)}" if len(log.wanted) > 1 else None,
        "content": log.wanted[log.part].content,
        "lastAttempt": last.model_dump(by_alias=True, mode="json") if last else None,
        "options": ["is-there, with the post's id", "send-again, at the risk of a second post"],
    }
