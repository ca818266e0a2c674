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
# The option, of platforms that have it, whose text follows the post as a comment on it.
FIRST_COMMENT = ("firstComment", "first_comment")


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
    S.PENDING: frozenset(Status) - {S.RETRY, S.ACCEPTED, S.SUCCESS},
    S.RETRY: frozenset(Status) - {S.ACCEPTED, S.SUCCESS},
    S.WAITING: frozenset(Status) - {S.RETRY, S.ACCEPTED, S.SUCCESS},
    S.PROCESSING: frozenset(Status) - {S.PENDING, S.CANCELLED},
    S.ACCEPTED: frozenset(Status) - {S.PENDING, S.RETRY, S.SUCCESS, S.CANCELLED},
    S.UNKNOWN: frozenset(Status) - {S.RETRY, S.WAITING, S.CANCELLED, S.MISSED},
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
    """Written before the one call that creates the post, or the `part` of a thread, with all that
    a repeat would need."""

    at: Instant
    send_by: Instant
    owner: str
    part: int = 0
    native_key: str
    request_hash: str


class Part(Value):
    """One post of a thread."""

    content: str
    media: tuple[MediaItem, ...] = ()


class Arrived(Value):
    """A part that is on the platform; a delivery of one post has one."""

    remote_id: str
    remote_url: str | None = None
    published_at: Instant | None = None


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
    an edit that may still change two of three deliveries leaves the third one's true.

    `thread` is what follows as replies, each to the one before; a first comment follows its post
    in the same way. `parts` are those on the platform, in their order, and `remote_id` is the first
    one's: what is claimed, tried and settled at any time is the part that comes next.
    """

    post_id: str
    company_id: str
    platform: str
    account_id: str
    content: str
    media: tuple[MediaItem, ...] = ()
    options: dict[str, Any] = Field(default_factory=dict)
    thread: tuple[Part, ...] = ()

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
    parts: tuple[Arrived, ...] = ()
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
    def posts(self) -> tuple[Part, ...]:
        """The posts that it sends, the first one first."""
        return (Part(content=self.content, media=self.media), *self.thread)

    @property
    def wanted(self) -> tuple[Part, ...]:
        """All that it sends: its posts, and the first comment where there is to be one."""
        comments = (self.options[name] for name in FIRST_COMMENT if self.options.get(name))
        return (*self.posts, *(Part(content=text) for text in comments))

    @property
    def part(self) -> int:
        """Which part comes next, from 0."""
        return len(self.parts)

    @property
    def remote_ids(self) -> tuple[str, ...]:
        return tuple(part.remote_id for part in self.parts)

    @property
    def native_key(self) -> str:
        """Of the part that comes next."""
        wanted = self.wanted[self.part]
        uris = [item.uri for item in wanted.media]
        return keys.native_key(self.id, wanted.content, uris, self.options, self.part)

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
    as it was read. `by_evidence`: the commit also claims the newest part's remote id for this
    delivery.
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
    """A version that nothing will wake again. Of an unknown one somebody has to hear: the sweep
    sees to it."""
    at_rest: dict[str, Any] = {
        "owner": None,
        "lease_ends_at": None,
        "next_retry_at": None,
        "sweep_at": now + leases.SWEEP_GRACE if status is Status.UNKNOWN else None,
        "promote_at": None,
    }
    return evolve(log, now, status=status, **(at_rest | fields))


def advanced(log: PublishLog, part: Arrived) -> PublishLog:
    """The log with one more part on the platform. Marks and state are about the next one from here
    on, if there is one, and the attempt that runs is its first."""
    parts = (*log.parts, part)
    first = parts[0]
    update: dict[str, Any] = {
        "parts": parts,
        "remote_id": first.remote_id,
        "remote_url": first.remote_url,
        "published_at": first.published_at,
        "committing": None,
        "unsettled_since": None,
        "lookups": 0,
        "error_code": None,
        "error_message": None,
    }
    if len(parts) < len(log.wanted):
        update |= {"state": {}, "attempts_spent": min(log.attempts_spent, 1)}
    return log.model_copy(update=update)


def arrived(log: PublishLog, now: datetime, part: Arrived, *, by_evidence: bool = False) -> Change:
    """One more part is on the platform: the end, or a task that goes on with the next one."""
    log = advanced(log, part)
    if log.part == len(log.wanted):
        return Change(ended(log, now, Status.SUCCESS), by_evidence=by_evidence)
    return Change(going_on(log, now), wakes=True, by_evidence=by_evidence)


def going_on(log: PublishLog, now: datetime) -> PublishLog:
    """A thread of which parts are published, and a task for the next one."""
    return hop_to(log, now, now, status=Status.ACCEPTED, attempts_spent=0)


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
            "parts": [part.document() for part in log.parts],
            "latestAt": log.latest_at,
        },
        created_at=now,
        updated_at=now,
    )


def bury(
    log: PublishLog, now: datetime, status: Status, *, code: str, message: str, **fields: Any
) -> Change:
    """End without success, with the dead letter in the same commit.

    Where an earlier call may have created the post, only `unknown` is true; where parts of it are
    published, only `partial`.
    """
    about = {"error_code": code, "error_message": message, **fields}
    if log.unsettled_since is not None:
        return Change(ended(log, now, Status.UNKNOWN, **about))
    end = ended(log, now, Status.PARTIAL if log.parts else status, committing=None, **about)
    return Change(end, letter=letter(end, now))


def lateness(log: PublishLog, now: datetime) -> timedelta:
    return max(timedelta(0), now - log.due_at)
