"""Days of engagement as values: what is added up, what is a gap, which day is next."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from shared.domain import daily
from shared.domain.analytics import Number
from shared.domain.daily import DailyMetrics, Days, ReadPost

DAY = date(2027, 3, 2)
MIDNIGHT = datetime(2027, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
OLD = MIDNIGHT - timedelta(days=30)


def test_the_last_number_of_the_day_counts_and_growth_is_since_the_day_before() -> None:
    post = read(
        OLD, (-20, {"likes": 5}), (-4, {"likes": 7}), (3, {"likes": 8}), (21, {"likes": 12})
    )
    other = read(OLD, (-4, {"likes": 1}), (9, {"likes": 1}))

    made = made_of(post, other)

    assert (made.posts, made.totals, made.gained) == (2, {"likes": 13}, {"likes": 5})
    assert made.told == {"likes": 2}


def test_a_metric_that_is_not_told_is_a_gap_and_no_zero() -> None:
    told = read(OLD, (-4, {"likes": 1}), (3, {"likes": 4, "views": 9}))
    silent = read(OLD, (-4, {"likes": 1}), (3, {}))

    made = made_of(told, silent)

    assert made.posts == 2
    assert (made.totals, made.told) == ({"likes": 4, "views": 9}, {"likes": 1, "views": 1})
    assert made.gained == {"likes": 3}


def test_a_number_that_is_told_in_the_morning_alone_is_the_days_last() -> None:
    made = made_of(read(OLD, (3, {"likes": 4, "views": 9}), (9, {"likes": 5})))

    assert made.totals == {"likes": 5, "views": 9}


def test_all_of_a_new_post_was_gained_and_of_an_old_one_that_is_read_anew_nobody_knows() -> None:
    today, yesterday = MIDNIGHT + HOUR, MIDNIGHT - HOUR

    made = made_of(
        read(today, (3, {"likes": 4})),
        read(yesterday, (3, {"likes": 20})),
        read(OLD, (3, {"likes": 300})),
    )

    assert (made.totals, made.gained) == ({"likes": 324}, {"likes": 24})
    assert (made.posts, made.published) == (3, 1)


def test_a_rate_is_not_added_up() -> None:
    assert made_of(read(OLD, (3, {"engagementRate": 0.5, "likes": 2}))).totals == {"likes": 2}


def test_a_day_on_which_nothing_was_read_is_a_gap() -> None:
    assert made(read(OLD, (-4, {"likes": 1}), (25, {"likes": 2}))) is None
    assert made() is None


@pytest.mark.parametrize(
    ("seen", "now", "next_day"),
    [
        (None, MIDNIGHT + HOUR, "2027-03-01"),
        (None, MIDNIGHT + timedelta(minutes=14), "2027-02-28"),
        (("2027-03-01", True), MIDNIGHT + HOUR, None),
        (("2027-02-28", True), MIDNIGHT + HOUR, "2027-03-01"),
        (("2027-02-25", True), MIDNIGHT + HOUR, "2027-02-26"),
        (("2027-02-01", True), MIDNIGHT + HOUR, "2027-02-22"),
        (("2027-02-25", False), MIDNIGHT + HOUR, "2027-02-25"),
    ],
)
def test_the_oldest_day_that_nobody_made_is_next_but_none_before_a_week(
    seen: tuple[str, bool] | None, now: datetime, next_day: str | None
) -> None:
    known = seen and Days(day=seen[0], done=seen[1], created_at=OLD, updated_at=OLD)

    due = daily.due(known or None, now)

    assert (due.day if due else None) == next_day


def read(published_at: datetime, *readings: tuple[float, dict[str, Number]]) -> ReadPost:
    """A post and its readings, by hours after midnight."""
    return ReadPost(published_at, [(MIDNIGHT + hours * HOUR, told) for hours, told in readings])


def made_of(*posts: ReadPost) -> DailyMetrics:
    found = made(*posts)
    assert found is not None
    return found


def made(*posts: ReadPost) -> DailyMetrics | None:
    return daily.of_account(
        DAY, posts, company_id="acme", account_id="a", platform="twitter", now=MIDNIGHT
    )
