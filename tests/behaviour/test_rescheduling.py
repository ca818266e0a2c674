"""Rescheduled never runs at the old time: once, at the last time given."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import httpx

from tests.world import World

HOUR = timedelta(hours=1)


def test_moved_five_times_it_is_published_once_at_the_last_time(world: World) -> None:
    twitter = world.account("twitter")
    start = world.stack.clock.now()
    post_id = world.schedule(twitter, after=start + HOUR)
    world.stack.tasks.faults.refuse("DeleteTask", times=None)
    stale = [world.stack.tasks.tasks("publish-twitter")[0].request]
    for minutes in (180, 30, 120, 10, 90):
        answer = move(world, post_id, start + timedelta(minutes=minutes))
        assert answer.status_code == 200
    tasks = world.stack.tasks.tasks("publish-twitter")

    for minutes in (10, 30, 60):
        world.stack.clock.turn_to(start + timedelta(minutes=minutes, seconds=1))
        world.stack.settle()
        world.stack.tasks.deliver(stale[0])
        assert world.stack.platforms.calls("twitter") == []
    for minutes in (90, 120, 180):
        world.stack.clock.turn_to(start + timedelta(minutes=minutes, seconds=1))
        world.stack.settle()

    assert len(tasks) == 6  # nobody took the old ones away: each came at its time
    assert world.stack.tasks.tasks("publish-twitter") == []
    [post] = world.stack.platforms.posts("twitter")
    assert timedelta(minutes=90) <= post.at - start < timedelta(minutes=91)
    delivery = world.delivery(post_id, twitter)
    assert (delivery["generation"], len(delivery["attempts"])) == (6, 1)


def test_a_task_of_before_the_move_is_void_even_when_the_new_time_has_come(world: World) -> None:
    twitter = world.account("twitter")
    post_id = world.schedule(twitter, after=HOUR)
    [old] = world.stack.tasks.tasks("publish-twitter")
    move(world, post_id, world.stack.clock.now() + timedelta(minutes=5))
    world.stack.tasks.faults.lose_task(times=None)
    world.stack.turn(timedelta(minutes=5))

    stale = world.deliver(post_id, twitter, generation=1)
    before = world.stack.platforms.calls("twitter")
    fresh = world.deliver(post_id, twitter, generation=2)

    assert old.schedule_at > world.stack.clock.now()
    assert (stale.status_code, stale.json()["success"]) == (200, False)
    assert before == []
    assert fresh.json()["success"] is True


def test_moving_takes_the_old_task_out_of_the_queue(world: World) -> None:
    post_id = world.schedule(world.account("twitter"), after=HOUR)
    at = world.stack.clock.now() + 2 * HOUR

    answer = move(world, post_id, at)

    [task] = world.stack.tasks.tasks("publish-twitter")
    assert task.schedule_at == at
    assert answer.json()["scheduledAt"] == at.isoformat()
    assert [one["generation"] for one in answer.json()["applied"]] == [2]


def test_a_delivery_that_waits_for_its_next_attempt_moves_with_a_fresh_start(world: World) -> None:
    twitter = world.account("twitter")
    world.stack.platforms.misbehave("twitter", "upload", "error_before", times=3)
    post_id = world.schedule(twitter, mediaAssetIds=[world.image()])
    world.run_until(
        lambda: world.delivery(post_id, twitter)["attemptsSpent"] == 3, step=timedelta(seconds=11)
    )
    before = world.delivery(post_id, twitter)["status"]

    move(world, post_id, world.stack.clock.now() + HOUR)
    moved = world.delivery(post_id, twitter)
    world.stack.turn(timedelta(minutes=59))
    early = len(world.stack.platforms.posts("twitter"))
    world.stack.turn(timedelta(minutes=2))

    assert before == "retry"
    assert (moved["status"], moved["attemptsSpent"], moved["errorCode"]) == ("pending", 0, None)
    assert early == 0
    assert len(world.stack.platforms.posts("twitter")) == 1
    assert world.status(post_id)["status"] == "published"


def test_a_move_into_the_past_is_refused_and_changes_nothing(world: World) -> None:
    twitter = world.account("twitter")
    post_id = world.schedule(twitter, after=HOUR)
    before = world.delivery(post_id, twitter)

    answer = move(world, post_id, world.stack.clock.now() - timedelta(seconds=61))

    assert answer.status_code == 422
    assert [(e["field"], e["code"]) for e in answer.json()["errors"]] == [
        ("scheduledAt", "in_the_past")
    ]
    assert world.delivery(post_id, twitter) == before


def test_what_is_published_cannot_be_moved(world: World) -> None:
    post_id = world.schedule(world.account("twitter"))
    world.stack.settle()

    answer = move(world, post_id, world.stack.clock.now() + HOUR)

    assert answer.status_code == 409
    assert [one["message"] for one in answer.json()["refused"]] == ["It is published."]


def test_a_move_that_comes_between_reading_and_claiming_wins(world: World) -> None:
    twitter = world.account("twitter")
    post_id = world.schedule(twitter, after=HOUR)
    claim = world.stack.proxy.hold("Commit", when=writes("fencingToken"))
    world.stack.clock.turn(HOUR)
    claim.arrived()

    answer = move(world, post_id, world.stack.clock.now() + HOUR)
    claim.open()
    world.stack.settle()
    early = len(world.stack.platforms.calls("twitter"))
    world.stack.turn(HOUR)

    assert answer.status_code == 200
    assert early == 0
    assert len(world.stack.platforms.posts("twitter")) == 1


def test_a_wall_clock_time_is_moved_in_its_own_zone(world: World) -> None:
    world.stack.clock.turn_to(datetime.fromisoformat("2030-06-01T12:00:00+00:00"))
    post_id = world.schedule(world.account("twitter"), after=HOUR)

    answer = world.command(
        "/reschedule", post_id, scheduledAt="2030-06-02T09:00:00", timezone="America/New_York"
    )

    assert answer.status_code == 200
    assert answer.json()["scheduledAt"] == "2030-06-02T13:00:00+00:00"


def move(world: World, post_id: str, at: datetime) -> httpx.Response:
    return world.command("/reschedule", post_id, scheduledAt=at.isoformat())


def writes(field: str) -> Callable[[Any], bool]:
    return lambda commit: any(field in write.update_mask.field_paths for write in commit.writes)
