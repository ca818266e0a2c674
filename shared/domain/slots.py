"""One run per slot of a schedule.

Cloud Scheduler calls at least once, and names the slot in a header: RFC 3339 with any offset, the
same over all tries of one run. On a run forced by hand it may name the *coming* slot, or none. So a
call that names no slot, or one still ahead, is nobody's slot: it runs, and the coming one runs too.

The record of a job's last slot shows, besides, which slots nobody ran. Slots are reckoned without
the cron line: those of a watched job lie at whole multiples of its interval, counted in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from shared.domain.records import Instant, Record

SYNC_JOB = "sync-analytics"
WATCHED: Mapping[str, timedelta] = {SYNC_JOB: timedelta(hours=6)}

GRACE = timedelta(minutes=15)  # Scheduler's own retries have had their time by then
CLOCKS_APART = timedelta(seconds=5)  # Scheduler's and ours
MOST_TOLD = 10  # of the slots that an outage has swallowed, the latest
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Call:
    """A call of Cloud Scheduler. `at` is the slot that it names; None where it names none."""

    job: str
    at: datetime | None


class LastSlot(Record):
    """`locks/slot-{job}`: the slot that ran last, and the last missed one that was told of."""

    job: str
    scheduled_for: Instant | None = None
    missed_until: Instant | None = None
    last_attempt_at: Instant | None = None
    created_at: Instant
    updated_at: Instant


def heard(job: str | None, schedule_time: str | None) -> Call | None:
    """What Scheduler's headers say; None without a job. A time that cannot be read is none."""
    if not job:
        return None
    try:
        at = datetime.fromisoformat(schedule_time or "")
    except ValueError:
        return Call(job, None)
    return Call(job, at.astimezone(UTC) if at.tzinfo else None)


def slot(call: Call, now: datetime) -> datetime | None:
    """The slot that this call is the run of; None for a run by hand."""
    if call.at is None or call.at > now + CLOCKS_APART:
        return None
    return call.at


def key(job: str, slot: datetime) -> str:
    """The idempotency key of a slot's run: one spelling for one instant."""
    return f"{job}:{slot.astimezone(UTC).strftime('%Y-%m-%dT%H:%M:%SZ')}"


def taken(seen: LastSlot | None, job: str, slot: datetime, now: datetime) -> LastSlot:
    """The record once `slot` runs. A slot that comes late does not hide a later one."""
    last = seen.scheduled_for if seen and seen.scheduled_for else slot
    return LastSlot(
        job=job,
        scheduled_for=max(last, slot),
        missed_until=seen.missed_until if seen else None,
        last_attempt_at=now,
        created_at=seen.created_at if seen else now,
        updated_at=now,
    )


def watched(job: str, now: datetime) -> LastSlot:
    """The record of a job that has not run yet: from here on its slots are expected."""
    return LastSlot(job=job, created_at=now, updated_at=now)


def missed(seen: LastSlot, until: datetime) -> list[datetime]:
    """The slots up to `until` that nobody ran and nobody was told of, oldest first."""
    every = WATCHED[seen.job]
    known = (seen.scheduled_for, seen.missed_until, seen.created_at)
    since = max(at for at in known if at is not None)
    latest = until - (until - EPOCH) % every
    count = min(MOST_TOLD, (latest - since) // every + 1) if latest > since else 0
    slots = [latest - n * every for n in range(count)]
    return [at for at in reversed(slots) if at > since]
