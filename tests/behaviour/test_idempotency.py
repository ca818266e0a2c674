"""The same caller, key and payload get the first answer; another payload gets a refusal."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from tests.world import World

HOUR = timedelta(hours=1)


def test_the_same_request_again_gets_the_same_answer_and_creates_nothing(world: World) -> None:
    order = world.order([world.account("twitter"), world.account("linkedin")], after=HOUR)

    first, again = world.call("/schedule", order), world.call("/schedule", order)

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert len(world.stack.records("scheduledPosts")) == 1
    assert len(world.stack.records("publishLogs")) == 2
    assert tasks(world) == 2


def test_the_same_request_eight_times_at_once_creates_one_post(world: World) -> None:
    order = world.order([world.account("twitter"), world.account("linkedin")], after=HOUR)
    before = world.stack.proxy.hold("Commit", times=3)

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(world.call, "/schedule", order) for _ in range(8)]
        before.arrived(3)  # one of each process at least has found nothing there
        before.open()
        answers = [one.result() for one in asked]

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert len(world.stack.records("scheduledPosts")) == 1
    assert len(world.stack.records("publishLogs")) == 2
    assert tasks(world) == 2


def test_a_request_written_differently_is_the_same_request(world: World) -> None:
    order = world.order([world.account("twitter")], after=HOUR)
    same = {
        **dict(reversed(order.items())),
        "mediaAssetIds": [],
        "scheduledAt": order["scheduledAt"].replace("+00:00", "Z"),
    }

    first, again = world.call("/schedule", order), world.call("/schedule", same)

    assert again.content == first.content
    assert len(world.stack.records("scheduledPosts")) == 1


@pytest.mark.parametrize(
    "other", [{"content": "Something else"}, {"mediaAssetIds": ["asset-9"]}, {"userId": "user-2"}]
)
def test_the_same_key_with_another_body_is_refused(world: World, other: dict[str, Any]) -> None:
    order = world.order([world.account("twitter")], after=HOUR)
    first = world.call("/schedule", order)

    answer = world.call("/schedule", order | other)
    again = world.call("/schedule", order)

    assert answer.status_code == 409
    assert answer.json()["code"] == "idempotency_key_reused"
    assert again.content == first.content
    assert len(world.stack.records("scheduledPosts")) == 1
    assert tasks(world) == 1


def test_a_refused_request_leaves_its_key_free(world: World) -> None:
    order = world.order([world.account("twitter")], after=HOUR)
    refused = world.call("/schedule", order | {"content": "a" * 281})

    answer = world.call("/schedule", order)

    assert refused.status_code == 422
    assert answer.status_code == 201


def test_another_company_has_the_same_key_for_itself(world: World) -> None:
    ours = world.account("twitter")
    theirs = world.account("twitter", companyId="umbrella")
    order = world.order([ours], after=HOUR)

    first = world.call("/schedule", order)
    second = world.call(
        "/schedule", order | {"companyId": "umbrella", "platforms": [theirs.target]}
    )

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["postId"] != second.json()["postId"]
    assert len(world.stack.records("scheduledPosts")) == 2


def test_a_key_is_kept_for_thirty_days_and_then_free(world: World) -> None:
    order = world.order([world.account("twitter")], after=timedelta(days=40))
    first = world.call("/schedule", order)

    world.stack.clock.turn(timedelta(days=29, hours=23))
    kept = world.call("/schedule", order)
    world.stack.clock.turn(timedelta(days=1))
    free = world.call("/schedule", order)
    again = world.call("/schedule", order)

    assert kept.content == first.content
    assert free.status_code == 201
    assert free.json()["postId"] != first.json()["postId"]
    assert again.content == free.content
    assert len(world.stack.records("scheduledPosts")) == 2


def test_a_lost_reply_of_create_task_makes_neither_two_tasks_nor_an_error(world: World) -> None:
    order = world.order([world.account("twitter")], after=HOUR)
    world.stack.tasks.faults.lose_reply(times=2)

    answer = world.call("/schedule", order)
    world.stack.turn(HOUR)

    assert answer.status_code == 201
    assert len(world.stack.platforms.posts("twitter")) == 1


def test_a_replay_creates_the_tasks_that_the_first_request_could_not(world: World) -> None:
    order = world.order([world.account("twitter"), world.account("linkedin")], after=HOUR)
    world.stack.tasks.faults.refuse("CreateTask", times=None)
    first = world.call("/schedule", order)
    before = tasks(world)
    world.stack.tasks.faults.clear()

    again = world.call("/schedule", order)

    assert first.status_code == 201
    assert again.content == first.content
    assert (before, tasks(world)) == (0, 2)


def test_without_a_replay_the_sweep_creates_the_tasks(world: World) -> None:
    world.stack.tasks.faults.refuse("CreateTask", times=None)
    post_id = world.schedule(world.account("twitter"), world.account("linkedin"), after=HOUR)
    world.stack.tasks.faults.clear()
    world.stack.turn(HOUR + timedelta(minutes=2, seconds=1))

    swept = world.sweep()
    world.stack.settle()

    assert swept["woken"] == 2
    assert world.status(post_id)["status"] == "published"


def test_a_lost_answer_of_the_commit_creates_one_post(world: World) -> None:
    order = world.order([world.account("twitter")], after=HOUR)
    lost = world.stack.proxy.lose_answer("Commit")

    first = world.call("/schedule", order)
    again = world.call("/schedule", order)

    assert lost.hits == 1
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert len(world.stack.records("scheduledPosts")) == 1
    assert tasks(world) == 1


def test_a_lost_answer_of_a_cancels_commit_is_a_cancel(world: World) -> None:
    post_id = world.schedule(world.account("twitter"), world.account("linkedin"), after=HOUR)
    lost = world.stack.proxy.lose_answer("Commit")

    answer = world.command("/cancel", post_id)

    assert lost.hits == 1
    assert answer.status_code == 200
    assert len(answer.json()["applied"]) == 2
    assert answer.json()["refused"] == []
    assert world.stack.record("scheduledPosts", post_id)["status"] == "cancelled"


@pytest.mark.parametrize(
    ("path", "more"), [("/cancel", {}), ("/edit", {"content": "New"}), ("/reschedule", {})]
)
def test_a_command_with_a_key_is_done_once(world: World, path: str, more: dict[str, Any]) -> None:
    post_id = world.schedule(world.account("twitter"), after=HOUR)
    if path == "/reschedule":
        at = world.stack.clock.now() + timedelta(hours=2)
        more = {"scheduledAt": at.isoformat()}
    deliveries = [{"platform": "twitter", "accountId": "twitter-1"}]

    first = world.command(path, post_id, idempotencyKey="once", **more)
    version = versions(world)
    again = world.command(path, post_id, idempotencyKey="once", **more)
    other = world.command(path, post_id, idempotencyKey="once", deliveries=deliveries, **more)

    assert first.status_code == 200
    assert (again.status_code, again.content) == (200, first.content)
    assert other.status_code == 409
    assert other.json()["code"] == "idempotency_key_reused"
    assert versions(world) == version


def tasks(world: World) -> int:
    queues = world.stack.tasks.queues()
    return sum(len(world.stack.tasks.tasks(queue.id)) for queue in queues)


def versions(world: World) -> list[int]:
    return [log["version"] for log in world.stack.records("publishLogs").values()]
