"""A delivery: one post to one account, and its PublishLog.

Every change of a log's status goes through `NEXT`; an illegal one raises and changes nothing. The
log is the only point of serialisation: each change is one commit guarded by the log's update time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import Field

from shared.domain import keys, leases
from shared.domain.dead_letters import DeadLetter
from shared.domain.media import MediaItem
from shared.domain.records import Instant, Record, Value

ATTEMPTS_KEPT = 40  # on the log; older ones are in Cloud Logging
RAW_CHARS = 2000


class Status(StrEnum):
    PENDING = "pending"  # its time has not come, or its task is on the way
    PROCESSING = "processing"  # an attempt holds the lease
    RETRY = "retry"  # not accepted; tried again at `dueAt`
    WAITING = "waiting"  # paused or throttled; spends no attempts
    ACCEPTED = "accepted"  # the platform has it and works on it
    UNKNOWN = "unknown"  # it may be there; never sent again blindly
    SUCCESS = "success"  # a remote id is on record that belongs to this delivery
    PARTIAL = "partial"  # a thread of posts, of which the first parts are there
    FAILED = "failed"  # the platform holds no such post
    CANCELLED = "cancelled"  # by its owner, before it was sent
    MISSED = "missed"  # not begun before `latestAt`


S = Status
NEXT: dict[Status, frozenset[Status]] = {
    S.PENDING: frozenset(
        {S.PENDING, S.PROCESSING, S.WAITING, S.FAILED, S.MISSED, S.CANCELLED, S.UNKNOWN}
    ),
    S.RETRY: frozenset(
        {S.PENDING, S.RETRY, S.PROCESSING, S.WAITING, S.FAILED, S.MISSED, S.CANCELLED, S.UNKNOWN}
    ),
    S.WAITING: frozenset(
        {S.PENDING, S.WAITING, S.PROCESSING, S.FAILED, S.MISSED, S.CANCELLED, S.UNKNOWN}
    ),
    S.PROCESSING: frozenset(Status) - {S.PENDING, S.CANCELLED},
    S.ACCEPTED: frozenset({S.ACCEPTED, S.PROCESSING, S.WAITING, S.FAILED, S.MISSED, S.UNKNOWN}),
    S.UNKNOWN: frozenset({S.UNKNOWN, S.PROCESSING, S.SUCCESS, S.FAILED, S.PENDING}),
    S.FAILED: frozenset({S.PENDING}),
    S.MISSED: frozenset({S.PENDING}),
    S.PARTIAL: frozenset({S.PENDING}),
    S.SUCCESS: frozenset(),
    S.CANCELLED: frozenset(),
}
ENDED = frozenset({S.SUCCESS, S.PARTIAL, S.FAILED, S.CANCELLED, S.MISSED})
CHANGEABLE = frozenset({S.PENDING, S.RETRY, S.WAITING})  # by its owner
BURIED = frozenset({S.FAILED, S.MISSED, S.PARTIAL})  # each with exactly one dead letter


class IllegalMoveError(Exception):
    pass


class Committing(Value):
    """Written before the one call that creates the post, with all that a repeat would need."""

    at: Instant
    send_by: Instant
    owner: str
    part: int = 0
    native_key: str
    request_hash: str


class Attempt(Value):
    """One attempt; `outcome` is None while it runs, and stays so when it crashed."""

    number: int
    generation: int
    hop: int
    owner: str
    started_at: Instant
    lateness_ms: int
    ended_at: Instant | None = None
    outcome: str | None = None
    code: str | None = None
    message: str | None = None
    http_status: int | None = None
    request_id: str | None = None


class PublishLog(Record):
    """`publishLogs/{deliveryId}`. `content`, `media` and `options` are what this delivery sends:
    an edit that may still change two of three deliveries leaves the third one's true."""

    post_id: str
    company_id: str
    platform: str
    account_id: str
    content: str
    media: tuple[MediaItem, ...] = ()
    options: dict[str, Any] = Field(default_factory=dict)

    status: Status = Status.PENDING
    generation: int = 1
    version: int = 1
    commit_id: str = ""
    due_at: Instant
    latest_at: Instant
    hop: int = 1

    owner: str | None = None
    lease_ends_at: Instant | None = None
    fencing_token: int = 0
    committing: Committing | None = None
    unsettled_since: Instant | None = None
    lookups: int = 0
    state: dict[str, Any] = Field(default_factory=dict)
    parts: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    attempts_spent: int = 0
    sweep_hops: int = 0
    sweep_at: Instant | None = None
    promote_at: Instant | None = None

    remote_id: str | None = None
    remote_url: str | None = None
    published_at: Instant | None = None
    error_code: str | None = None
    error_message: str | None = None
    next_retry_at: Instant | None = None
    raw_response: str | None = None
    idempotency_key: str
    duration_ms: int | None = None
    traceparent: str | None = None
    created_at: Instant
    updated_at: Instant

    @property
    def id(self) -> str:
        return keys.delivery_id(self.post_id, self.platform, self.account_id)

    @property
    def native_key(self) -> str:
        return keys.native_key(
            self.id, self.content, [item.uri for item in self.media], self.options
        )

    @property
    def is_open(self) -> bool:
        """Something may still happen to it by itself."""
        if self.status is Status.UNKNOWN:
            return self.next_retry_at is not None
        return self.status not in ENDED

    @property
    def reconciling(self) -> bool:
        """What happens now only looks into an earlier call; nothing new was ordered since."""
        return self.unsettled_since is not None and self.lookups > 0

    def wake(self) -> Wake:
        """The task that the log has on record."""
        return Wake(
            task_id=keys.task_id(self.id, self.generation, self.hop),
            post_id=self.post_id,
            platform=self.platform,
            account_id=self.account_id,
            generation=self.generation,
            idempotency_key=self.idempotency_key,
            at=self.due_at,
            traceparent=self.traceparent,
        )


@dataclass(frozen=True, slots=True)
class Wake:
    """A publish task to be created: a wake-up, never a permission."""

    task_id: str
    post_id: str
    platform: str
    account_id: str
    generation: int
    idempotency_key: str
    at: datetime
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """What one guarded commit writes. `log` is the whole new log.

    `wakes`: after the commit, create the task that the new log has on record. `letter` is written
    in the same commit; `pause_account` (epoch ms) raises the account's pause, `pause_platform` the
    app-wide one; `next_free_at` (epoch ms) hands the account's next slot on, guarded by the account
    as it was read. `by_evidence`: the commit also claims the remote id for this delivery.
    """

    log: PublishLog
    wakes: bool = False
    letter: DeadLetter | None = None
    pause_account: int | None = None
    pause_platform: int | None = None
    next_free_at: int | None = None
    by_evidence: bool = False


def evolve(log: PublishLog, now: datetime, **fields: Any) -> PublishLog:
    """The next version of a log. Raises `IllegalMoveError` when `NEXT` forbids its status."""
    status = fields.get("status", log.status)
    if status not in NEXT[log.status] and not (status is log.status and status not in ENDED):
        raise IllegalMoveError(f"{log.status} cannot become {status}")
    fields |= {"version": log.version + 1, "updated_at": now}
    return log.model_copy(update=fields)


def sweep_at(due: datetime, latest: datetime, hops: int = 0) -> datetime:
    """When the sweep should have a look: the grace doubles with each hop that it made."""
    grace: timedelta = leases.SWEEP_GRACE * 2**hops
    return min(due + grace, max(due, latest) + leases.LEASE)


def hop_to(log: PublishLog, now: datetime, at: datetime, **fields: Any) -> PublishLog:
    """A version with one more hop, due at `at` or at `latestAt` if that comes first."""
    due = min(at, log.latest_at)
    fields.setdefault("next_retry_at", due)
    fields.setdefault("sweep_hops", 0)
    return evolve(
        log,
        now,
        hop=log.hop + 1,
        due_at=due,
        sweep_at=sweep_at(due, log.latest_at),
        owner=None,
        lease_ends_at=None,
        **fields,
    )


def ended(log: PublishLog, now: datetime, status: Status, **fields: Any) -> PublishLog:
    """A version that nothing will wake again."""
    at_rest: dict[str, Any] = {
        "owner": None,
        "lease_ends_at": None,
        "next_retry_at": None,
        "sweep_at": None,
        "promote_at": None,
    }
    return evolve(log, now, status=status, **(at_rest | fields))


def letter(log: PublishLog, now: datetime) -> DeadLetter:
    """The dead letter of a log that has just ended without success."""
    attempts = [a.document() for a in log.attempts if a.generation == log.generation]
    return DeadLetter(
        reason=log.error_code or str(log.status),
        message=log.error_message or "",
        delivery_id=log.id,
        generation=log.generation,
        post_id=log.post_id,
        company_id=log.company_id,
        platform=log.platform,
        account_id=log.account_id,
        payload={
            "scheduledPostId": log.post_id,
            "platform": log.platform,
            "accountId": log.account_id,
            "generation": log.generation,
            "idempotencyKey": log.idempotency_key,
        },
        evidence={
            "status": str(log.status),
            "attempts": attempts,
            "rawResponse": log.raw_response,
            "latestAt": log.latest_at,
        },
        created_at=now,
        updated_at=now,
    )


def bury(
    log: PublishLog, now: datetime, status: Status, *, code: str, message: str, **fields: Any
) -> Change:
    """End without success, with the dead letter in the same commit.

    Where an earlier call may have created the post, only `unknown` is true.
    """
    about = {"error_code": code, "error_message": message, **fields}
    if log.unsettled_since is not None:
        return Change(ended(log, now, Status.UNKNOWN, **about))
    end = ended(log, now, status, committing=None, **about)
    return Change(end, letter=letter(end, now))


def lateness(log: PublishLog, now: datetime) -> timedelta:
    return max(timedelta(0), now - log.due_at)
