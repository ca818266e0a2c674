"""Syncs of engagement: what is planned, how far each account has come, what was read.

    a sync ─ plan ────> one part per account, `open` counts them and the plan itself
    a part ─ begin ───> ended? replay · another hop's task? stale · held? busy
                        account gone or expired? skipped · paused, throttled, locked? waiting
                        else claimed, together with the account's lock
           ─ progress > a batch is read: numbers, cursor, counts in one commit, fenced by the lock
           ─ ended ───> done | failed | skipped, `open` falls; who makes it 0 completes the sync

A part moves by commits guarded by its own update time and the lock's, so what a killed or late
attempt has not committed never was, and what it has is not done again. A metric that a platform
does not give is a gap: no zero is ever written for it, and the number known before stays, with the
instant of its own reading.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import Field

from shared.domain import keys, leases, retries
from shared.domain.accounts import AccountStatus, SocialAccount
from shared.domain.controls import Controls
from shared.domain.records import Instant, Record, Value

JOB_TYPE = "SYNC_ANALYTICS"
WINDOW = timedelta(days=90)  # of a sync without `startDate`: older posts hardly move any more
FRESH = timedelta(hours=1)  # what was read so recently is not read again
THROTTLE_DEFAULT = timedelta(minutes=15)  # where the platform does not say when to come back
GIVE_UP = timedelta(hours=24)  # of waiting: by then the next syncs have taken over
PAUSE_LOOK = timedelta(hours=1)  # how soon a part sees by itself that a pause was taken away
SYNCS_KEPT = timedelta(days=30)
SNAPSHOTS_KEPT = timedelta(days=400)
FAILURES_KEPT = 20  # on a part; all of them are counted

# What is kept of a post, whatever its platform calls it.
METRICS = frozenset(
    {
        "impressions",  # times shown
        "views",  # times seen or played, as the platform defines it
        "reach",  # people
        "likes",
        "comments",
        "shares",
        "quotes",
        "saves",
        "clicks",
        "profileClicks",
        "engagements",
        "engagementRate",
    }
)

Number = int | float


def numbers(given: Mapping[str, Any]) -> dict[str, Number]:
    """The metrics that `given` really has; counts may come as strings. Raises `KeyError` for a
    name that is none of `METRICS`."""
    unknown = set(given) - METRICS
    if unknown:
        raise KeyError(*unknown)
    read = ((name, _number(value)) for name, value in given.items())
    return {name: value for name, value in read if value is not None}


def _number(value: Any) -> Number | None:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


# --- records -------------------------------------------------------------------------------------


class Scope(Value):
    """What a sync is about; the whole of it where nothing is named. `content_ids` are posts."""

    company_id: str | None = None
    platform: str | None = None
    content_ids: tuple[str, ...] = ()
    start: Instant | None = None
    force: bool = False

    @property
    def kind(self) -> str:
        if self.content_ids:
            return "content"
        if self.company_id:
            return "company"
        return "platform" if self.platform else "full"


class SyncStatus(StrEnum):
    PENDING = "pending"  # being planned
    PROCESSING = "processing"
    COMPLETED = "completed"


class AnalyticsSyncJob(Record):
    """`analyticsSyncJobs/{syncId}`. The counts grow by `Increment` as accounts end; `open` is how
    many parts have not, the plan among them."""

    kind: str
    scope: Scope
    status: SyncStatus = SyncStatus.PENDING
    priority: str
    open: int = 1
    accounts_planned: int = 0
    accounts_done: int = 0
    accounts_failed: int = 0
    accounts_skipped: int = 0
    skipped: dict[str, int] = Field(default_factory=dict)  # accounts, by reason
    items_processed: int = 0
    items_failed: int = 0
    items_skipped: int = 0
    cloud_task_name: str | None = None  # of the planner's successor, while it has one
    idempotency_key: str
    slot: Instant | None = None
    requested_by: str | None = None
    traceparent: str | None = None
    completed_at: Instant | None = None
    expire_at: Instant
    created_at: Instant
    updated_at: Instant


class Plan(Record):
    """`analyticsSyncJobs/{syncId}/parts/plan`: how far the accounts have been gone through.
    `waking` are those of the last page, whose tasks may not have been made yet."""

    sync_id: str
    cursor: str | None = None
    all_seen: bool = False
    done: bool = False
    hop: int = 1
    waking: tuple[str, ...] = ()
    planned: int = 0
    skipped: dict[str, int] = Field(default_factory=dict)
    expire_at: Instant
    created_at: Instant
    updated_at: Instant


class PartStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


P = PartStatus
ENDED = frozenset({P.DONE, P.FAILED, P.SKIPPED})
OPEN = frozenset(PartStatus) - ENDED
NEXT: dict[PartStatus, frozenset[PartStatus]] = {
    P.PENDING: frozenset(PartStatus) - {P.PENDING},
    P.RUNNING: frozenset(PartStatus) - {P.PENDING},  # again: taken over once its lease ran out
    P.WAITING: frozenset(PartStatus) - {P.PENDING},
    P.DONE: frozenset(),
    P.FAILED: frozenset(),
    P.SKIPPED: frozenset(),
}


class IllegalMoveError(Exception):
    pass


class ItemFailure(Value):
    """A post that could not be read."""

    delivery_id: str
    code: str
    message: str = ""


class Part(Record):
    """`analyticsSyncJobs/{syncId}/parts/{…}`: one account's share of a sync.

    `delivery_ids` names the posts of a content sync; otherwise they are all that were published
    between `start` and `until`. The cursor is the last post that has been dealt with.
    """

    sync_id: str
    account_id: str
    company_id: str
    platform: str
    delivery_ids: tuple[str, ...] = ()
    start: Instant
    until: Instant
    force: bool = False

    status: PartStatus = PartStatus.PENDING
    hop: int = 1
    due_at: Instant
    cursor_at: Instant | None = None
    cursor_id: str | None = None
    owner: str | None = None
    fencing_token: int = 0
    attempts_spent: int = 0
    items_processed: int = 0
    items_failed: int = 0
    items_skipped: int = 0
    failures: tuple[ItemFailure, ...] = ()
    code: str | None = None
    message: str | None = None
    traceparent: str | None = None
    expire_at: Instant
    created_at: Instant
    updated_at: Instant

    @property
    def is_open(self) -> bool:
        return self.status not in ENDED


class Lock(Value):
    """`locks/sync-{accountId}`: one collector per account, whatever sync it works for.

    `paused_until` (epoch ms) is a limit on reading alone; it must not hold up publishing.
    """

    owner: str | None = None
    lease_ends_at: Instant
    fencing_token: int = 0
    paused_until: int = 0

    def held(self, now: datetime) -> bool:
        return self.owner is not None and now < self.lease_ends_at


class Measured(Record):
    """What a platform told of a post at `fetched_at`, as of `source_at` where it says so."""

    delivery_id: str
    post_id: str
    company_id: str
    platform: str
    account_id: str
    remote_id: str
    published_at: Instant
    source_at: Instant | None = None
    fetched_at: Instant
    sync_id: str
    fencing_token: int
    metrics: dict[str, Number] = Field(default_factory=dict)
    created_at: Instant
    updated_at: Instant


class PostMetrics(Measured):
    """`postMetrics/{deliveryId}`: the latest number of each metric, and when each is from."""

    metrics_at: dict[str, Instant] = Field(default_factory=dict)


class MetricsSnapshot(Measured):
    """`postMetrics/{deliveryId}/snapshots/{fetchedAt}`: one reading."""

    expire_at: Instant


# --- planning ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sized:
    """A platform as planning sees it: how many posts it tells of at once, and why it tells nothing
    of a kind of account, if it does not."""

    batch: int
    refusal: str | None = None


def job(
    scope: Scope,
    *,
    key: str,
    now: datetime,
    slot: datetime | None,
    by: str | None,
    traceparent: str | None,
) -> AnalyticsSyncJob:
    priority = {"content": "high", "full": "low"}.get(scope.kind, "normal")
    return AnalyticsSyncJob(
        kind=scope.kind,
        scope=scope,
        priority=priority,
        idempotency_key=key,
        slot=slot,
        requested_by=by,
        traceparent=traceparent,
        expire_at=now + SYNCS_KEPT,
        created_at=now,
        updated_at=now,
    )


def plan(sync_id: str, now: datetime) -> Plan:
    return Plan(sync_id=sync_id, expire_at=now + SYNCS_KEPT, created_at=now, updated_at=now)


def part(
    sync_id: str,
    sync: AnalyticsSyncJob,
    account_id: str,
    account: SocialAccount,
    now: datetime,
    delivery_ids: Sequence[str] = (),
) -> Part:
    scope = sync.scope
    oldest = datetime(1970, 1, 1, tzinfo=UTC)  # posts that were named are read at any age
    return Part(
        sync_id=sync_id,
        account_id=account_id,
        company_id=account.company_id,
        platform=account.platform,
        delivery_ids=tuple(sorted(delivery_ids)),
        start=scope.start or (oldest if delivery_ids else sync.created_at - WINDOW),
        until=sync.created_at,
        force=scope.force,
        due_at=now,
        traceparent=sync.traceparent,
        expire_at=now + SYNCS_KEPT,
        created_at=now,
        updated_at=now,
    )


def left_out(account: SocialAccount | None, sized: Sized | None, now: datetime) -> str | None:
    """Why nothing is read of an account; None when it is."""
    if account is None or account.status is AccountStatus.DISABLED:
        return "disconnected"
    if account.status is AccountStatus.EXPIRED or account.refused_for_good(now):
        return "expired"
    if sized is None or not sized.batch:
        return "unsupported"
    return sized.refusal


# --- one account ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read together: one instant's view of a part. None for what is not there."""

    part: Part
    lock: Lock | None
    account: SocialAccount | None
    sized: Sized | None
    syncing: Controls
    publishing: Controls


@dataclass(frozen=True, slots=True)
class Begun:
    """The claim: `part` is written together with the account's lock."""

    part: Part


@dataclass(frozen=True, slots=True)
class Moved:
    """Nothing to read now; `part` says what becomes of it instead."""

    part: Part


@dataclass(frozen=True, slots=True)
class Replay:
    part: Part


@dataclass(frozen=True, slots=True)
class Stale:
    """A task of an earlier hop: the one on record only has to exist."""

    part: Part


@dataclass(frozen=True, slots=True)
class Busy:
    """Another attempt at this very part is alive."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Void:
    """There is no such sync, or no such part of it."""


Decision = Begun | Moved | Replay | Stale | Busy | Void


def begin(seen: Seen, *, hop: int, now: datetime, owner: str) -> Decision:
    """What to do with a task that has come for a part."""
    part, lock = seen.part, seen.lock
    if not part.is_open:
        return Replay(part)
    if hop != part.hop:
        return Stale(part)
    held = lock is not None and lock.held(now)
    if held and lock and lock.owner == part.owner and part.status is P.RUNNING:
        return Busy(lock.lease_ends_at)
    reason = left_out(seen.account, seen.sized, now)
    if reason is not None:
        return Moved(ended(part, now, P.SKIPPED, code=reason))
    free_at, why = _held_until(seen, now)
    if max(free_at, now) >= part.created_at + GIVE_UP:
        return Moved(ended(part, now, P.FAILED, code=part.code or why))
    if free_at > now:
        return Moved(waiting(part, now, free_at, code=why))
    if held and lock:
        return Moved(waiting(part, now, lock.lease_ends_at, code="locked"))
    if part.attempts_spent >= retries.policy(part.platform).attempts:
        return Moved(ended(part, now, P.FAILED, code=part.code or "attempts_exhausted"))
    claimed = evolve(
        part,
        now,
        status=P.RUNNING,
        owner=owner,
        fencing_token=(lock.fencing_token if lock else 0) + 1,
        attempts_spent=part.attempts_spent + 1,
    )
    return Begun(claimed)


def _held_until(seen: Seen, now: datetime) -> tuple[datetime, str]:
    """When this part may read, as far as that can be said, and why not before."""
    part = seen.part
    pause = seen.syncing.pause_of(
        platform=part.platform,
        account_id=part.account_id,
        company_id=part.company_id,
        queue=keys.ANALYTICS_QUEUE,
        now=now,
    )
    if pause is None:
        return _free_at(seen), "throttled"
    look = now + PAUSE_LOOK
    return (min(pause.until, look) if pause.until else look), "paused"


def _free_at(seen: Seen) -> datetime:
    """When nobody throttles this account any more, neither all calls nor reading alone."""
    until = max(
        seen.account.paused_until if seen.account else 0,
        seen.lock.paused_until if seen.lock else 0,
    )
    return max(
        datetime.fromtimestamp(until / 1000, UTC),
        seen.syncing.throttled_until(seen.part.platform),
        seen.publishing.throttled_until(seen.part.platform),
    )


def claim(lock: Lock | None, owner: str, now: datetime) -> Lock:
    return Lock(
        owner=owner,
        lease_ends_at=now + leases.LEASE,
        fencing_token=(lock.fencing_token if lock else 0) + 1,
        paused_until=lock.paused_until if lock else 0,
    )


def evolve(part: Part, now: datetime, **fields: Any) -> Part:
    """The next state of a part. Raises `IllegalMoveError` when `NEXT` forbids its status."""
    status = fields.get("status", part.status)
    if status not in NEXT[part.status]:
        raise IllegalMoveError(f"{part.status} cannot become {status}")
    return part.model_copy(update={**fields, "updated_at": now})


def waiting(part: Part, now: datetime, until: datetime, *, code: str, **fields: Any) -> Part:
    """Come back at `until`, by a task of the next hop."""
    about = {"status": P.WAITING, "hop": part.hop + 1, "due_at": until, "owner": None}
    return evolve(part, now, code=code, **about, **fields)


def woken(part: Part, now: datetime) -> Part | None:
    """What a pause held, due now; None for what waits for something else, or no more."""
    held = part.status is P.WAITING and part.code == "paused"
    return waiting(part, now, now, code="paused") if held else None


def ended(part: Part, now: datetime, status: PartStatus, **fields: Any) -> Part:
    return evolve(part, now, status=status, owner=None, **fields)


# --- one batch -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Item:
    """A published post, and when it was last read."""

    delivery_id: str
    post_id: str
    remote_id: str
    published_at: datetime
    fetched_at: datetime | None

    def fresh(self, now: datetime) -> bool:
        return self.fetched_at is not None and now < self.fetched_at + FRESH


@dataclass(frozen=True, slots=True)
class Page:
    """The next posts of a part. `last`: there are none after them. A named post that is not
    published has no item; `cursor` is past it all the same."""

    items: tuple[Item, ...]
    last: bool
    cursor: tuple[datetime | None, str] | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """One post's metrics as the platform told them, as of `source_at` where it says so."""

    metrics: Mapping[str, Number]
    source_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """What came of asking for some posts, by remote id. What is in neither was not come to."""

    read: Mapping[str, Read] = field(default_factory=dict)
    unread: Mapping[str, ItemFailure] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Progress:
    """A batch dealt with: the part behind it, what is to be kept of which post, and how many of
    the posts were not come to."""

    part: Part
    kept: tuple[tuple[Item, Read], ...]
    left: int


def progress(
    part: Part, page: Page, asked: Collection[str], results: Results, now: datetime
) -> Progress:
    """How far the part has come: to the first post that was asked for and not come to, so that
    the cursor never jumps over one. An attempt that gets on is not counted against the part."""
    kept: list[tuple[Item, Read]] = []
    failures: list[ItemFailure] = []
    dealt = 0
    for item in page.items:
        if item.remote_id in results.read:
            kept.append((item, results.read[item.remote_id]))
        elif item.remote_id in results.unread:
            failures.append(results.unread[item.remote_id])
        elif item.remote_id in asked:
            break
        dealt += 1
    left = len(page.items) - dealt
    if not left and page.cursor is not None:
        cursor_at, cursor_id = page.cursor
    elif dealt:
        last = page.items[dealt - 1]
        cursor_at, cursor_id = last.published_at, last.delivery_id
    else:
        cursor_at, cursor_id = part.cursor_at, part.cursor_id or ""
    after = evolve(
        part,
        now,
        cursor_at=cursor_at,
        cursor_id=cursor_id or None,
        attempts_spent=0 if dealt else part.attempts_spent,
        code=None if dealt else part.code,
        message=None if dealt else part.message,
        items_processed=part.items_processed + len(kept),
        items_failed=part.items_failed + len(failures),
        items_skipped=part.items_skipped + dealt - len(kept) - len(failures),
        failures=(*part.failures, *failures)[:FAILURES_KEPT],
    )
    return Progress(after, tuple(kept), left)
