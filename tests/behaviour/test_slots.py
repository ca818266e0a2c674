"""One run per slot of the schedule, and no slot lost without a word."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from tests.sandbox.stack import TOPOLOGY
from tests.world import World

JOB = "sync-analytics"
DAY = timedelta(days=1)


@pytest.fixture
def noon(world: World) -> datetime:
    """Noon of tomorrow, a slot; it is a minute past it now."""
    today = world.stack.clock.now().replace(hour=12, minute=0, second=0, microsecond=0)
    world.stack.clock.turn_to(today + DAY + timedelta(minutes=1))
    return today + DAY


def test_a_slot_that_is_repeated_runs_once(world: World, noon: datetime) -> None:
    first = world.stack.scheduler.fire(JOB)
    again = world.stack.scheduler.repeat(JOB)

    assert "alreadyProcessed" not in first.json()
    assert again.json() == first.json() | {"alreadyProcessed": True}
    assert slots_run(world) == [noon]


def test_a_slot_that_comes_four_times_at_once_runs_once(world: World, noon: datetime) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: called(world, noon), range(4)))

    again = called(world, noon)

    assert {answer.status_code for answer in answers} <= {200, 503}
    assert again.json()["alreadyProcessed"] is True
    assert slots_run(world) == [noon]


def test_one_instant_spelt_in_two_zones_is_one_slot(world: World, noon: datetime) -> None:
    called(world, noon)
    elsewhere = called(world, noon.astimezone(timezone(-timedelta(hours=7))))

    assert elsewhere.json()["alreadyProcessed"] is True
    assert slots_run(world) == [noon]


def test_the_next_slot_runs_too(world: World, noon: datetime) -> None:
    called(world, noon)
    world.stack.clock.turn(timedelta(hours=6))

    later = called(world, noon + timedelta(hours=6))

    assert "alreadyProcessed" not in later.json()
    assert slots_run(world) == [noon, noon + timedelta(hours=6)]


@pytest.mark.parametrize("with_time", [True, False], ids=["the coming slot", "no slot"])
def test_a_run_by_hand_runs_and_does_not_swallow_the_coming_slot(
    world: World, noon: datetime, with_time: bool
) -> None:
    by_hand = [
        world.stack.scheduler.fire(JOB, manual=True, with_time=with_time).json() for _ in range(2)
    ]
    world.stack.clock.turn(timedelta(hours=6))
    scheduled = world.stack.scheduler.fire(JOB).json()

    assert all("alreadyProcessed" not in answer for answer in (*by_hand, scheduled))
    assert slots_run(world) == [noon + timedelta(hours=6)]
    assert len(world.stack.records("analyticsSyncJobs")) == 3


def test_nobody_but_scheduler_has_slots(world: World, noon: datetime) -> None:
    headers = {
        "X-CloudScheduler-JobName": JOB,
        "X-CloudScheduler-ScheduleTime": noon.isoformat(),
    }

    pretended = world.stack.post("sync_analytics", "/", {}, **headers)

    assert pretended.status_code == 400
    assert slots_run(world) == []


def test_a_slot_whose_first_try_was_cut_off_is_run_by_the_next(
    world: World, noon: datetime
) -> None:
    world.account("twitter")
    world.stack.proxy.down()
    with ThreadPoolExecutor(1) as pool:
        cut_off = pool.submit(called, world, noon).result()
    world.stack.proxy.up()

    again = called(world, noon)

    assert cut_off.status_code == 503
    assert again.json()["jobs"] == 1
    assert slots_run(world) == [noon]


def test_a_missed_slot_is_told_of_once_by_the_sweep(world: World, noon: datetime) -> None:
    called(world, noon)
    world.stack.clock.turn(timedelta(hours=6, minutes=5))
    world.sweep()
    in_its_grace = missed(world)
    world.stack.clock.turn(timedelta(minutes=15))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: world.sweep(), range(2)))
    world.sweep()

    assert in_its_grace == []
    assert missed(world) == [noon + timedelta(hours=6)]
    assert world.stack.events("schedule.slot_missed")[0]["severity"] == "ERROR"


def test_a_job_that_has_never_run_is_watched_from_the_first_sweep(
    world: World, noon: datetime
) -> None:
    world.sweep()
    world.stack.clock.turn(timedelta(hours=12, minutes=20))
    world.sweep()

    assert missed(world) == [noon + timedelta(hours=6), noon + timedelta(hours=12)]


def test_slots_that_the_sweep_missed_too_are_told_of_by_the_next_run(
    world: World, noon: datetime
) -> None:
    called(world, noon)
    world.stack.clock.turn(timedelta(hours=18))

    called(world, noon + timedelta(hours=18))
    world.sweep()

    assert missed(world) == [noon + timedelta(hours=6), noon + timedelta(hours=12)]


def called(world: World, slot: datetime) -> Any:
    """Scheduler's call for a slot, as its headers spell it."""
    entry = TOPOLOGY["schedules"][JOB]
    headers = {"X-CloudScheduler-JobName": JOB, "X-CloudScheduler-ScheduleTime": slot.isoformat()}
    return world.stack.post(
        "sync_analytics", entry["path"], entry["body"], role="scheduler", **headers
    )


def slots_run(world: World) -> list[datetime]:
    """The slots that have a sync, oldest first."""
    syncs = world.stack.records("analyticsSyncJobs").values()
    return sorted(sync["slot"].astimezone(UTC) for sync in syncs if sync["slot"])


def missed(world: World) -> list[datetime]:
    events = world.stack.events("schedule.slot_missed")
    return [datetime.fromisoformat(event["slot"]) for event in events]
