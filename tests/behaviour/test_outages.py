"""An outage is an honest 503, nothing half done, and everything in its place once it is over."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx

from tests.world import World

HOUR = timedelta(hours=1)


def test_without_firestore_every_call_is_answered_503_at_once_and_can_be_repeated(
    world: World,
) -> None:
    twitter = world.account("twitter")
    kept = world.schedule(twitter, after=HOUR, content="Cancelled")
    due = world.schedule(twitter, after=HOUR, content="Published")
    world.command("/cancel", kept, idempotencyKey="first")
    order = world.order([twitter], after=2 * HOUR, content="Scheduled")

    world.stack.proxy.down()
    world.stack.clock.turn(HOUR)
    down = [
        world.call("/schedule", order),
        world.deliver(due, twitter),
        world.command("/cancel", due),
        world.stack.get("schedule_post", "/status", companyId="acme", postId=due),
        world.stack.post("maintain", "/sweep", {}, role="scheduler"),
    ]
    world.stack.proxy.up()
    up = world.call("/schedule", order)
    world.run_until(lambda: world.status(due)["status"] == "published", step=timedelta(seconds=10))

    for answer in down:
        assert_unavailable(answer)
    assert up.status_code == 201
    assert len(world.stack.records("scheduledPosts")) == 3
    assert [post.text for post in world.stack.platforms.posts("twitter")] == ["Published"]


def test_a_firestore_that_says_nothing_costs_no_caller_more_than_twelve_seconds(
    world: World,
) -> None:
    twitter, linkedin = world.account("twitter"), world.account("linkedin")
    post_id = world.schedule(twitter, after=HOUR)
    order = world.order([linkedin], after=HOUR)
    asked_again = world.order([linkedin], after=HOUR)
    silent = world.stack.proxy.lose_answer("Commit", when=creates_a_post, silent=True)
    before = time.monotonic()

    with ThreadPoolExecutor(1) as pool:
        uncertain = pool.submit(world.call, "/schedule", asked_again)
        world.stack.until(lambda: silent.hits == 1)
        time.sleep(0.2)  # what was silent has been forwarded: it stands
        world.stack.proxy.down(silent=True)
        with ThreadPoolExecutor(3) as others:
            asked = [
                others.submit(world.call, "/schedule", order),
                others.submit(world.deliver, post_id, twitter),
                others.submit(world.command, "/cancel", post_id),
            ]
            answers = [one.result() for one in asked]
        took = time.monotonic() - before
        world.stack.proxy.up()
        first = uncertain.result()
    again = world.call("/schedule", asked_again)
    world.call("/schedule", order)

    for answer in answers:
        assert_unavailable(answer)
    assert took < 12
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert len(world.stack.records("scheduledPosts")) == 3
    assert world.status(post_id)["status"] == "pending"


def test_without_cloud_tasks_scheduling_and_changing_still_succeed(world: World) -> None:
    twitter = world.account("twitter")
    world.stack.tasks.faults.refuse("CreateTask", times=None)
    world.stack.tasks.faults.refuse("DeleteTask", times=None)
    post_id = world.schedule(twitter, after=HOUR)
    gone = world.schedule(twitter, after=HOUR, content="Cancelled")
    at = world.stack.clock.now() + 2 * HOUR

    moved = world.command("/reschedule", post_id, scheduledAt=at.isoformat())
    cancelled = world.command("/cancel", gone)
    world.stack.tasks.faults.clear()
    world.stack.turn(2 * HOUR + timedelta(minutes=2, seconds=1))
    world.sweep()
    world.stack.settle()

    assert (moved.status_code, cancelled.status_code) == (200, 200)
    assert [post.text for post in world.stack.platforms.posts("twitter")] == ["Hello from Acme"]
    assert len(world.stack.events("task.create_failed")) == 3


def test_a_retry_whose_task_cannot_be_created_is_woken_by_the_sweep(world: World) -> None:
    twitter = world.account("twitter")
    post_id = world.schedule(twitter, mediaAssetIds=[world.image()], after=HOUR)
    world.stack.platforms.misbehave("twitter", "upload", "error_before")
    world.stack.tasks.faults.refuse("CreateTask", times=None)
    world.stack.turn(HOUR)
    waiting = world.delivery(post_id, twitter)["status"]
    world.stack.tasks.faults.clear()

    world.stack.turn(timedelta(minutes=3))
    world.sweep()
    world.stack.settle()

    assert waiting == "retry"
    assert world.status(post_id)["status"] == "published"


def test_an_answer_of_the_platform_is_kept_when_firestore_is_cut_at_that_moment(
    world: World,
) -> None:
    twitter = world.account("twitter")
    post_id = world.schedule(twitter, after=HOUR)

    def cut(*_: Any) -> None:
        world.stack.proxy.down()
        threading.Timer(1.0, world.stack.proxy.up).start()

    world.stack.platforms.misbehave("twitter", "create post", "hook", hook=cut)
    world.stack.turn(HOUR)

    [post] = world.stack.platforms.posts("twitter")
    delivery = world.delivery(post_id, twitter)
    assert (delivery["status"], delivery["remoteId"]) == ("success", post.id)
    assert len(delivery["attempts"]) == 1
    assert world.stack.record("scheduledPosts", post_id)["status"] == "published"
    assert world.stack.events("publish.unrecorded") == []


def test_without_the_issuers_keys_nobody_is_let_in_and_nobody_is_refused_for_good(
    world: World,
) -> None:
    world.stack.issuer.certs_down = True
    world.stack.issuer.rotate()
    try:
        answers = [world.call("/schedule", world.order([])) for _ in range(3)]
    finally:
        world.stack.issuer.certs_down = False

    assert {answer.status_code for answer in answers} <= {401, 503}
    assert world.stack.records("scheduledPosts") == {}


def creates_a_post(commit: Any) -> bool:
    return any("/scheduledPosts/" in write.update.name for write in commit.writes)


def assert_unavailable(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert int(answer.headers["Retry-After"]) > 0
    assert "Traceback" not in answer.text
