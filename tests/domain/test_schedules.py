from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from shared.domain.failures import RefusedError
from shared.domain.schedules import moment, plan

NOW = datetime(2030, 1, 15, 12, tzinfo=UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("wanted", "zone", "at"),
    [
        ("2030-07-01T12:00:00+02:00", None, "2030-07-01T10:00:00"),
        ("2030-07-01T12:00:00+02:00", "America/New_York", "2030-07-01T10:00:00"),  # it has one
        ("2030-07-01T12:00:00", "Europe/Berlin", "2030-07-01T10:00:00"),
        ("2030-12-01T12:00:00", "Europe/Berlin", "2030-12-01T11:00:00"),
        ("2030-07-01T12:00:00", "Asia/Kathmandu", "2030-07-01T06:15:00"),
        ("2030-03-31T01:59:59", "Europe/Berlin", "2030-03-31T00:59:59"),
        ("2030-03-31T03:00:00", "Europe/Berlin", "2030-03-31T01:00:00"),
        ("2030-10-27T03:00:00", "Europe/Berlin", "2030-10-27T02:00:00"),
    ],
)
def test_an_ordinary_time_is_taken_as_it_is(wanted: str, zone: str | None, at: str) -> None:
    meant = moment(datetime.fromisoformat(wanted), zone, field="scheduledAt")

    assert (meant.at, meant.note) == (utc(at), None)


@pytest.mark.parametrize(
    ("wanted", "zone", "at", "local"),
    [
        ("2030-03-31T02:00:00", "Europe/Berlin", "2030-03-31T01:00:00", "2030-03-31 03:00:00"),
        ("2030-03-31T02:30:00", "Europe/Berlin", "2030-03-31T01:00:00", "2030-03-31 03:00:00"),
        ("2030-03-31T02:59:59", "Europe/Berlin", "2030-03-31T01:00:00", "2030-03-31 03:00:00"),
        ("2030-03-10T02:30:00", "America/New_York", "2030-03-10T07:00:00", "2030-03-10 03:00:00"),
        # Half an hour is skipped here, a whole day there.
        (
            "2030-10-06T02:10:00",
            "Australia/Lord_Howe",
            "2030-10-05T15:30:00",
            "2030-10-06 02:30:00",
        ),
        ("2011-12-30T12:00:00", "Pacific/Apia", "2011-12-30T10:00:00", "2011-12-31 00:00:00"),
    ],
)
def test_a_skipped_time_moves_to_the_first_instant_after_it(
    wanted: str, zone: str, at: str, local: str
) -> None:
    meant = moment(datetime.fromisoformat(wanted), zone, field="scheduledAt")

    assert meant.at == utc(at)
    assert meant.note == f"{wanted} does not exist in {zone}; moved to {local}."


@pytest.mark.parametrize(
    ("wanted", "zone", "at"),
    [
        ("2030-10-27T02:00:00", "Europe/Berlin", "2030-10-27T00:00:00"),
        ("2030-10-27T02:59:59", "Europe/Berlin", "2030-10-27T00:59:59"),
        ("2030-11-03T01:30:00", "America/New_York", "2030-11-03T05:30:00"),
    ],
)
def test_a_repeated_time_means_the_first_one(wanted: str, zone: str, at: str) -> None:
    for fold in (0, 1):
        meant = moment(datetime.fromisoformat(wanted).replace(fold=fold), zone, field="scheduledAt")

        assert meant.at == utc(at)
        assert meant.note == f"{wanted} happens twice in {zone}; the first one is meant."


@pytest.mark.parametrize(
    ("wanted", "zone", "field", "code"),
    [
        (datetime(2030, 7, 1, 12), None, "scheduledAt", "timezone_required"),  # noqa: DTZ001
        (datetime(2030, 7, 1, 12), "Mars/Olympus", "timezone", "timezone_unknown"),  # noqa: DTZ001
        (NOW, "Mars/Olympus", "timezone", "timezone_unknown"),
        (NOW, "", "timezone", "timezone_unknown"),
        (NOW, "../../etc/passwd", "timezone", "timezone_unknown"),
        (NOW, "/etc/localtime", "timezone", "timezone_unknown"),
        (NOW, "Europe/Berlin\0", "timezone", "timezone_unknown"),
        (NOW, "Europe", "timezone", "timezone_unknown"),  # a folder
        (NOW, "x" * 5000, "timezone", "timezone_unknown"),
        (
            datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
            None,
            "scheduledAt",
            "out_of_range",
        ),
        (
            datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=14))),
            None,
            "scheduledAt",
            "out_of_range",
        ),
        (datetime(1, 1, 1), "Asia/Tokyo", "scheduledAt", "out_of_range"),  # noqa: DTZ001
        (datetime(9999, 12, 31, 23), "America/New_York", "scheduledAt", "out_of_range"),  # noqa: DTZ001
    ],
)
def test_a_time_that_means_nothing_is_refused(
    wanted: datetime, zone: str | None, field: str, code: str
) -> None:
    with pytest.raises(RefusedError) as refused:
        moment(wanted, zone, field="scheduledAt")

    assert [(p.field, p.code) for p in refused.value.problems] == [(field, code)]


@pytest.mark.parametrize(
    ("due", "latest", "expected"),
    [
        (timedelta(hours=1), None, (timedelta(hours=1), timedelta(hours=25))),
        (-timedelta(seconds=60), None, (-timedelta(seconds=60), timedelta(hours=24))),
        (timedelta(hours=1), timedelta(hours=2), (timedelta(hours=1), timedelta(hours=2))),
        (timedelta(days=1829), None, (timedelta(days=1829), timedelta(days=1830))),
    ],
)
def test_a_plan_that_can_be_kept(
    due: timedelta, latest: timedelta | None, expected: tuple[timedelta, timedelta]
) -> None:
    made = plan(NOW + due, None, NOW + latest if latest else None, now=NOW)

    assert (made.due_at - NOW, made.latest_at - NOW) == expected


@pytest.mark.parametrize(
    ("due", "latest", "field", "code"),
    [
        (-timedelta(seconds=60, microseconds=1), None, "scheduledAt", "in_the_past"),
        (timedelta(days=1830, seconds=1), None, "scheduledAt", "too_far"),
        (timedelta(hours=2), timedelta(hours=2), "latestAt", "before_scheduled"),
        (timedelta(hours=2), timedelta(hours=1), "latestAt", "before_scheduled"),
        (-timedelta(seconds=30), -timedelta(seconds=10), "latestAt", "before_scheduled"),
    ],
)
def test_a_plan_that_cannot_be_kept_is_refused(
    due: timedelta, latest: timedelta | None, field: str, code: str
) -> None:
    with pytest.raises(RefusedError) as refused:
        plan(NOW + due, None, NOW + latest if latest else None, now=NOW)

    assert [(p.field, p.code) for p in refused.value.problems] == [(field, code)]


def test_a_plan_beyond_the_horizon_says_when_its_task_can_be_made() -> None:
    within = plan(NOW + timedelta(days=28), None, None, now=NOW)
    beyond = plan(NOW + timedelta(days=400), None, None, now=NOW)

    assert within.promote_at(NOW) is None
    assert beyond.promote_at(NOW) == NOW + timedelta(days=372)


def test_what_a_change_of_clocks_made_of_both_times_is_noted() -> None:
    made = plan(
        datetime(2030, 3, 31, 2, 30),  # noqa: DTZ001
        "Europe/Berlin",
        datetime(2030, 10, 27, 2, 30),  # noqa: DTZ001
        now=NOW,
    )

    assert made.notes == (
        "2030-03-31T02:30:00 does not exist in Europe/Berlin; moved to 2030-03-31 03:00:00.",
        "2030-10-27T02:30:00 happens twice in Europe/Berlin; the first one is meant.",
    )
