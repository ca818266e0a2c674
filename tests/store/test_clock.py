"""One clock for every decision: instances whose own clocks are off agree by Firestore's time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from shared.store.clock import Clock

LOCAL = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
MS = timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("ahead", "offset"),
    [
        # By how much Firestore is ahead of us; what is then added to the local clock, at least
        # and at most: the read time lies between sending and receiving, 40 ms apart.
        (timedelta(minutes=5), timedelta(minutes=5)),
        (timedelta(minutes=-5), timedelta(minutes=-5)),
        (timedelta(days=400), timedelta(days=400)),
    ],
)
def test_a_clock_that_is_off_is_corrected_by_one_read(ahead: timedelta, offset: timedelta) -> None:
    clock = Clock()

    clock.observe(LOCAL + 20 * MS + ahead, sent=LOCAL, received=LOCAL + 40 * MS)

    assert abs(clock.offset - offset) <= 20 * MS
    assert abs(clock.now() - (datetime.now(UTC) + offset)) <= 25 * MS


def test_latency_alone_does_not_make_it_wander() -> None:
    clock = Clock()

    for taken in (1, 900, 40, 3000):
        halfway = LOCAL + taken / 2 * MS
        clock.observe(halfway, sent=LOCAL, received=LOCAL + taken * MS)

    assert clock.offset == timedelta(0)


def test_it_changes_only_as_far_as_it_is_proven_wrong() -> None:
    clock = Clock()

    clock.observe(LOCAL + 1000 * MS, sent=LOCAL, received=LOCAL + 40 * MS)
    at_first = clock.offset
    clock.observe(LOCAL + 985 * MS, sent=LOCAL, received=LOCAL + 10 * MS)

    assert at_first == 960 * MS
    assert clock.offset == 975 * MS


def test_two_instances_with_opposite_errors_agree_on_what_is_due() -> None:
    """One is 10 minutes fast, the other 10 minutes slow; each reads at the same true instant."""
    fast, slow = Clock(), Clock()
    true, error = LOCAL, timedelta(minutes=10)

    for clock, local in ((fast, true + error), (slow, true - error)):
        clock.observe(true, sent=local - 5 * MS, received=local + 5 * MS)

    fast_now = true + error + fast.offset
    slow_now = true - error + slow.offset
    assert abs(fast_now - slow_now) <= 10 * MS
    assert abs(fast_now - true) <= 5 * MS
