"""A day of an account's engagement, made of what was read of its posts on that day.

A day is one of UTC's, and is made when it is over: by then its readings do not change any more, so
making it again gives the same. `totals` are the last numbers read that day, added up over the posts
that told them; `gained` is how much they grew, over the posts of which the day before is known too,
or that came out since. A metric that no post tells is a gap in both, never a zero.

Refused: the numbers as they stand when the day is made. A late run would put today's likes down as
yesterday's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from pydantic import Field

from shared.domain.analytics import Number
from shared.domain.records import Instant, Record

MOST_BACK = timedelta(days=7)  # of days that nobody made: an outage of a week is made good
SETTLED = timedelta(minutes=15)  # after midnight: whoever read before it has written by then
RATES = frozenset({"engagementRate"})  # adding them up means nothing
DAY = timedelta(days=1)


class DailyMetrics(Record):
    """`dailyMetrics/{…}`. `day` is an ISO date; `posts` were read that day, `published` of them
    came out that day; `told` says of how many posts each total is."""

    company_id: str
    account_id: str
    platform: str
    day: str
    posts: int
    published: int
    totals: dict[str, Number] = Field(default_factory=dict)
    told: dict[str, int] = Field(default_factory=dict)
    gained: dict[str, Number] = Field(default_factory=dict)
    created_at: Instant
    updated_at: Instant


class Days(Record):
    """`locks/daily-metrics`: which day is being made, and behind which account. Without an account
    and `done`, the whole day stands."""

    day: str
    after: str | None = None
    done: bool = False
    created_at: Instant
    updated_at: Instant


@dataclass(frozen=True, slots=True)
class ReadPost:
    """A post and what was read of it, oldest first: on the day itself and the one before."""

    published_at: datetime
    readings: Sequence[tuple[datetime, Mapping[str, Number]]]


def starts(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def due(seen: Days | None, now: datetime) -> Days | None:
    """The day to be made next, as far as it is; None when every day that is over stands."""
    yesterday = (now - SETTLED).date() - DAY
    if seen is None:
        return _begun(yesterday, now, now)
    day = date.fromisoformat(seen.day)
    if seen.done:
        day = max(day + DAY, yesterday - MOST_BACK)
        return _begun(day, seen.created_at, now) if day <= yesterday else None
    return seen


def _begun(day: date, created_at: datetime, now: datetime) -> Days:
    return Days(day=day.isoformat(), created_at=created_at, updated_at=now)


def of_account(
    day: date,
    posts: Iterable[ReadPost],
    *,
    company_id: str,
    account_id: str,
    platform: str,
    now: datetime,
) -> DailyMetrics | None:
    """None when nothing was read: a day without figures is a gap, too."""
    start = starts(day)
    read = published = 0
    totals: dict[str, Number] = {}
    told: dict[str, int] = {}
    gained: dict[str, Number] = {}
    for post in posts:
        before, on_day = _split(post, start)
        if on_day is None:
            continue
        read += 1
        published += start <= post.published_at < start + DAY
        if before is None and post.published_at >= start - DAY:
            before = dict.fromkeys(on_day, 0)  # it came out since: all of it was gained
        for name in on_day.keys() - RATES:
            totals[name] = totals.get(name, 0) + on_day[name]
            told[name] = told.get(name, 0) + 1
            if before is not None and name in before:
                gained[name] = gained.get(name, 0) + on_day[name] - before[name]
    if not read:
        return None
    return DailyMetrics(
        company_id=company_id,
        account_id=account_id,
        platform=platform,
        day=day.isoformat(),
        posts=read,
        published=published,
        totals=totals,
        told=told,
        gained=gained,
        created_at=now,
        updated_at=now,
    )


def _split(
    post: ReadPost, start: datetime
) -> tuple[dict[str, Number] | None, dict[str, Number] | None]:
    """The last number of each metric before the day and on it; None where nothing was read."""
    before = [numbers for at, numbers in post.readings if at < start]
    on_day = [numbers for at, numbers in post.readings if start <= at < start + DAY]
    return _last(before), _last(on_day)


def _last(readings: Sequence[Mapping[str, Number]]) -> dict[str, Number] | None:
    if not readings:
        return None
    return {name: value for numbers in readings for name, value in numbers.items()}
