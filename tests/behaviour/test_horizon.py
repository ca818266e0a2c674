"""No horizon: what lies beyond the queue's thirty days is promoted later, once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import grpc
import pytest

from tests.sandbox.children import free_port
from tests.sandbox.firestore_proxy import FirestoreCall, Refused
from tests.sandbox.functions import FunctionProcess, build
from tests.sandbox.stack import Stack
from tests.world import Account, World

DAY = timedelta(days=1)
AHEAD = 400 * DAY
WITHIN = AHEAD - 28 * DAY + timedelta(minutes=1)  # when promote may make the task


@pytest.fixture(scope="module")
def other(running: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FunctionProcess]:
    """A second instance of `maintain`: it serves one request at a time."""
    process = FunctionProcess(
        "maintain",
        build("maintain", tmp_path_factory.mktemp("functions")),
        free_port(),
        running.environment("maintain"),
        threads=1,
        children=running.children,
    )
    yield process.start().wait_until_ready()
    process.kill()


@pytest.fixture
def backends(stack: Stack) -> Iterator[list[int]]:
    """The ports behind `maintain`'s front, to be changed by a test."""
    front = stack.fronts["maintain"]
    before = list(front.backends)
    yield front.backends
    front.backends[:] = before


def test_a_post_400_days_ahead_is_published_once_and_on_time(world: World) -> None:
    twitter, post_id, due = far_ahead(world)
    assert tasks(world) == []
    assert world.promote()["promoted"] == 0

    world.stack.clock.turn(WITHIN)
    promoted, again = world.promote(), world.promote()
    [task] = tasks(world)
    world.stack.clock.turn_to(due - timedelta(seconds=30))
    world.stack.settle()
    early = len(world.stack.platforms.calls("twitter"))
    world.stack.turn(timedelta(seconds=31))

    assert (promoted["promoted"], again["promoted"]) == (1, 0)
    assert task.schedule_at == due
    assert early == 0
    [post] = world.stack.platforms.posts("twitter")
    assert timedelta(0) <= post.at - due < timedelta(seconds=30)
    assert world.delivery(post_id, twitter)["attempts"][0]["latenessMs"] < 30_000


def test_two_promotes_at_once_make_one_task(
    world: World, other: FunctionProcess, backends: list[int]
) -> None:
    backends.append(other.port)
    far_ahead(world)
    world.stack.clock.turn(WITHIN)
    both = world.stack.proxy.hold("RunQuery", times=2, after=True)

    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(world.promote) for _ in range(2)]
        both.arrived(2)
        both.open()
        done = [one.result() for one in asked]

    assert [one["failed"] for one in done] == [0, 0]
    assert len(tasks(world)) == 1
    assert world.promote()["promoted"] == 0


def test_a_promote_that_died_after_making_the_task_is_finished_by_the_next(
    world: World, other: FunctionProcess, backends: list[int]
) -> None:
    due = far_ahead(world)[2]
    world.stack.clock.turn(WITHIN)
    mine = list(backends)
    backends[:] = [other.port]

    def die(_: FirestoreCall) -> None:
        other.kill()
        raise Refused(grpc.StatusCode.UNAVAILABLE, "its caller is dead")

    world.stack.proxy.on_call(die, "Commit", times=1)
    died = world.stack.post("maintain", "/promote", {}, role="scheduler")
    backends[:] = mine
    again = world.promote()
    world.stack.clock.turn_to(due)
    world.stack.turn(timedelta(seconds=5))

    assert died.status_code == 503
    assert (again["promoted"], again["failed"]) == (1, 0)
    assert len(world.stack.platforms.posts("twitter")) == 1


def test_a_promote_without_cloud_tasks_is_repaired_by_the_next(world: World) -> None:
    far_ahead(world)
    world.stack.clock.turn(WITHIN)
    world.stack.tasks.faults.refuse("CreateTask", times=None)
    failed = world.promote()
    world.stack.tasks.faults.clear()

    again = world.promote()

    assert (failed["promoted"], failed["failed"]) == (0, 1)
    assert (again["promoted"], again["failed"]) == (1, 0)
    assert len(tasks(world)) == 1


def test_a_post_moved_from_beyond_the_horizon_to_near_needs_no_promote(world: World) -> None:
    post_id = far_ahead(world)[1]
    near = world.stack.clock.now() + DAY

    world.command("/reschedule", post_id, scheduledAt=near.isoformat())
    made = len(tasks(world))
    world.stack.turn(DAY)
    world.stack.clock.turn(WITHIN)
    promoted = world.promote()

    assert made == 1
    assert promoted["promoted"] == 0
    assert len(world.stack.platforms.posts("twitter")) == 1


def test_a_post_moved_beyond_the_horizon_waits_for_its_promote(world: World) -> None:
    post_id = world.schedule(world.account("twitter"), after=DAY)
    far = world.stack.clock.now() + AHEAD

    world.command("/reschedule", post_id, scheduledAt=far.isoformat())
    left = len(tasks(world))
    world.stack.clock.turn(WITHIN)
    promoted = world.promote()
    world.stack.platforms.twitter.tokens["twitter-access-1"].expires_at = far + DAY
    world.stack.clock.turn_to(far)
    world.stack.turn(timedelta(seconds=5))

    assert left == 0
    assert promoted["promoted"] == 1
    [post] = world.stack.platforms.posts("twitter")
    assert post.at >= far - timedelta(seconds=2)


def far_ahead(world: World) -> tuple[Account, str, Any]:
    twitter = world.account("twitter")
    due = world.stack.clock.now() + AHEAD
    # A token that lives as long as the post waits: what is tested here is the waiting.
    world.stack.platforms.twitter.tokens[twitter.access_token].expires_at = due + DAY
    return twitter, world.schedule(twitter, after=due), due


def tasks(world: World) -> list[Any]:
    return world.stack.tasks.tasks("publish-twitter")
