"""Slots of a schedule: which call is whose run, and what was missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import pytest
from cronsim import CronSim

from shared.domain import slots
from shared.domain.slots import SYNC_JOB, WATCHED, Call, LastSlot
from tests.sandbox.stack import TOPOLOGY

NOON = datetime(2026, 10, 16, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("said", "at"),
    [
        ("2026-10-16T12:00:00Z", NOON),
        ("2026-10-16T05:00:00-07:00", NOON),
        ("2026-10-16T12:00:00", None),
        ("noon", None),
        ("", None),
        (None, None),
    ],
)
def test_a_slot_is_an_instant_however_it_is_spelt(said: str | None, at: datetime | None) -> None:
    assert slots.heard("job", said) == Call("job", at)
    assert slots.heard(None, said) is None


@pytest.mark.parametrize(
    ("ahead", "is_slot"),
    [
        (timedelta(seconds=-1), True),
        (timedelta(0), True),
        (timedelta(seconds=5), True),
        (timedelta(seconds=6), False),
        (HOUR, False),
    ],
)
def test_a_call_that_names_a_time_ahead_is_nobodys_slot(ahead: timedelta, is_slot: bool) -> None:
    assert (slots.slot(Call("job", NOON), NOON - ahead) == NOON) is is_slot


def test_the_key_of_a_slot_has_one_spelling() -> None:
    assert slots.key("job", NOON) == "job:2026-10-16T12:00:00Z"


@pytest.mark.parametrize(
    ("ran", "told", "until", "missed"),
    [
        (0, None, 5.9, []),
        (0, None, 6, [6]),
        (0, None, 17, [6, 12]),
        (0, 6, 17, [12]),
        (6, 0, 17, [12]),
        (12, 6, 17, []),
        (-1, None, 6, [0, 6]),
        (0, None, 6 * 100, [6 * n for n in range(91, 101)]),
    ],
)
def test_missed_are_the_slots_that_nobody_ran_or_was_told_of(
    ran: int, told: int | None, until: float, missed: list[int]
) -> None:
    last = LastSlot(
        job=SYNC_JOB,
        scheduled_for=NOON + ran * HOUR,
        missed_until=None if told is None else NOON + told * HOUR,
        created_at=NOON - 100 * HOUR,
        updated_at=NOON,
    )

    assert slots.missed(last, NOON + until * HOUR) == [NOON + n * HOUR for n in missed]


def test_a_slot_that_comes_late_does_not_hide_a_later_one() -> None:
    first = slots.taken(None, SYNC_JOB, NOON, NOON)

    late = slots.taken(first, SYNC_JOB, NOON - 6 * HOUR, NOON)

    assert late.scheduled_for == NOON


@pytest.mark.parametrize("job", WATCHED)
def test_watched_slots_lie_where_the_schedule_has_them(job: str) -> None:
    schedule = TOPOLOGY["schedules"][job]
    start = datetime(2026, 3, 28, 23, 59, tzinfo=UTC)

    listed = list(islice(CronSim(schedule["cron"], start), 20))

    watched = LastSlot(job=job, created_at=start, updated_at=start)
    found = [slots.missed(watched, at)[-1] for at in listed]
    assert schedule["timeZone"] == "Etc/UTC"
    assert found == listed
    assert {later - at for at, later in pairwise(listed)} == {WATCHED[job]}
