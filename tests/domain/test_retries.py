"""How often a delivery is tried and how long it waits in between."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from shared.domain import retries
from shared.domain.retries import Policy

T0 = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("attempt", "jitter", "seconds"),
    [
        (1, 0.0, 2.5),
        (1, 0.5, 3.75),
        (1, 0.999, 4.9975),
        (2, 0.0, 5),
        (2, 0.5, 7.5),
        (3, 0.0, 10),
        (3, 0.5, 15),
        (8, 0.0, 300),  # 5 s * 2**7 would be 640 s: capped at 10 min
        (8, 0.5, 450),
        (1000, 0.0, 300),
    ],
)
def test_the_wait_lies_between_half_and_all_of_a_step_that_doubles(
    attempt: int, jitter: float, seconds: float
) -> None:
    wait = retries.backoff(attempt, jitter=jitter)

    assert wait.total_seconds() == pytest.approx(seconds)


def test_a_policy_has_its_own_steps() -> None:
    slow = Policy(first_wait=timedelta(minutes=1), longest_wait=timedelta(minutes=3))

    waits = [retries.backoff(n, jitter=0, policy=slow) for n in (1, 2, 3)]

    assert waits == [timedelta(seconds=30), timedelta(minutes=1), timedelta(seconds=90)]


def test_every_platform_has_four_attempts() -> None:
    assert [retries.policy(name).attempts for name in ("linkedin", "twitter", "instagram")] == [
        4,
        4,
        4,
    ]


@pytest.mark.parametrize(
    ("lookups", "after", "expected"),
    [
        (0, timedelta(0), timedelta(seconds=30)),
        (1, timedelta(seconds=31), timedelta(seconds=60)),
        (3, timedelta(seconds=130), timedelta(seconds=300)),
        (6, timedelta(minutes=21), timedelta(minutes=30)),
        (7, timedelta(minutes=31), None),  # half an hour has not settled it: a person has to
        # Overslept: not in the past, but soon.
        (1, timedelta(minutes=10), timedelta(minutes=10, seconds=30)),
    ],
)
def test_an_unknown_outcome_is_looked_into_seven_times_in_half_an_hour(
    lookups: int, after: timedelta, expected: timedelta | None
) -> None:
    at = retries.next_lookup(lookups, T0, T0 + after)

    assert at == (None if expected is None else T0 + expected)
