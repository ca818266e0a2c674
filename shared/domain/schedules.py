"""When a post is due: an instant, or a wall-clock time in an IANA time zone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from shared.domain import leases
from shared.domain.failures import Problem, RefusedError

PAST_SLACK = timedelta(seconds=60)
FARTHEST = timedelta(days=5 * 366)  # beyond that it is a typing error


@dataclass(frozen=True, slots=True)
class Moment:
    """`note` says what a change of clocks made of the wall-clock time, None if nothing."""

    at: datetime
    note: str | None = None


def zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        sentence = f"{name!r} is no IANA time zone, such as Europe/Berlin."
        raise RefusedError([Problem("timezone", "timezone_unknown", sentence)]) from None


def moment(wanted: datetime, timezone: str | None, *, field: str) -> Moment:
    """The instant meant by `wanted`: itself when it has an offset, else the wall clock's.

    A time that a change of clocks skips moves to the first instant after it; one that happens
    twice means the first.
    """
    tz = zone(timezone) if timezone is not None else None
    try:
        if wanted.tzinfo is not None:
            return Moment(wanted.astimezone(UTC))
        if tz is None:
            sentence = f"{field} needs an offset, such as Z, or a timezone beside it."
            raise RefusedError([Problem(field, "timezone_required", sentence)])
        return _on_the_wall(wanted, tz)
    except OverflowError:
        sentence = f"{field} is out of range."
        raise RefusedError([Problem(field, "out_of_range", sentence)]) from None


def _on_the_wall(wanted: datetime, tz: ZoneInfo) -> Moment:
    first = wanted.replace(tzinfo=tz, fold=0)
    second = wanted.replace(tzinfo=tz, fold=1)
    if first.utcoffset() == second.utcoffset():
        return Moment(first.astimezone(UTC))
    as_first = first.astimezone(UTC)
    if as_first.astimezone(tz).replace(tzinfo=None) == wanted:
        note = f"{wanted.isoformat()} happens twice in {tz.key}; the first one is meant."
        return Moment(as_first, note)
    at = _transition(second.astimezone(UTC), as_first, tz)
    local = at.astimezone(tz).replace(tzinfo=None)
    return Moment(at, f"{wanted.isoformat()} does not exist in {tz.key}; moved to {local}.")


def _transition(before: datetime, after: datetime, tz: ZoneInfo) -> datetime:
    """The first instant, to the second, with the offset that holds at `after`."""
    offset = after.astimezone(tz).utcoffset()
    low, high = int(before.timestamp()), int(after.timestamp())
    while low < high:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, tz).utcoffset() == offset:
            high = middle
        else:
            low = middle + 1
    return datetime.fromtimestamp(low, UTC)


@dataclass(frozen=True, slots=True)
class Plan:
    due_at: datetime
    latest_at: datetime
    notes: tuple[str, ...]

    def promote_at(self, now: datetime) -> datetime | None:
        """When `promote` has to make the task; None when it can be made at once."""
        return None if self.due_at <= now + leases.HORIZON else self.due_at - leases.HORIZON


def plan(
    scheduled_at: datetime, timezone: str | None, latest_at: datetime | None, *, now: datetime
) -> Plan:
    """Raises `RefusedError` for a time that cannot be kept."""
    due = moment(scheduled_at, timezone, field="scheduledAt")
    if due.at < now - PAST_SLACK:
        sentence = "Scheduled time must be in the future"
        raise RefusedError([Problem("scheduledAt", "in_the_past", sentence)])
    if due.at > now + FARTHEST:
        sentence = "Scheduled time must be within the next 5 years"
        raise RefusedError([Problem("scheduledAt", "too_far", sentence)])
    base = max(due.at, now)
    latest = Moment(base + leases.LATEST_AFTER)
    if latest_at is not None:
        latest = moment(latest_at, timezone, field="latestAt")
    if latest.at <= base:
        sentence = "latestAt must be after scheduledAt and in the future"
        raise RefusedError([Problem("latestAt", "before_scheduled", sentence)])
    notes = tuple(note for note in (due.note, latest.note) if note)
    return Plan(due.at, latest.at, notes)
