"""A worker that dies in the middle: what it left on record decides, never what it may have done."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.sandbox.functions import FunctionProcess
from tests.world import World


@pytest.fixture
def worker(world: World) -> Iterator[FunctionProcess]:
    """The one instance of `publish_post` that answers in this test."""
    front, instance = world.stack.fronts["publish_post"], world.stack.processes["publish_post"][0]
    everyone, front.backends = front.backends, [instance.port]
    yield instance
    front.backends = everyone


def test_a_crash_after_the_platform_accepted_where_nothing_can_be_read_stays_unknown(
    world: World, worker: FunctionProcess
) -> None:
    account = world.account("linkedin")
    world.stack.platforms.misbehave(
        "linkedin", "create post", "hook", hook=lambda *_: worker.kill_worker()
    )

    post_id = world.schedule(account)
    world.stack.settle()
    held = world.delivery(post_id, account)
    world.run_until(lambda: world.delivery(post_id, account)["status"] != "processing")
    world.stack.turn(timedelta(hours=1))
    world.sweep()

    delivery = world.delivery(post_id, account)
    assert held["status"] == "processing"
    assert delivery["status"] == "unknown"
    assert delivery["errorCode"] == "attempt_lost"
    assert delivery["attempts"][0]["outcome"] == "crashed"
    assert delivery["evidence"]["committing"] == held["evidence"]["committing"]
    assert len(world.stack.platforms.posts("linkedin")) == 1
    assert len(world.stack.platforms.calls("linkedin", "create post")) == 1
    assert len(world.stack.events("delivery.unknown")) == 1
    assert world.letters() == []


def test_a_crash_after_x_accepted_is_settled_by_looking(
    world: World, worker: FunctionProcess
) -> None:
    account = world.account("twitter")
    world.stack.platforms.misbehave(
        "twitter", "create post", "hook", hook=lambda *_: worker.kill_worker()
    )

    post_id = world.schedule(account)
    world.stack.settle()
    world.run_until(lambda: world.delivery(post_id, account)["status"] == "success")

    [post] = world.stack.platforms.posts("twitter")
    assert world.delivery(post_id, account)["remoteId"] == post.id
    assert len(world.stack.platforms.calls("twitter", "create post")) == 1
    assert world.stack.events("delivery.unknown") == []


def test_a_crash_after_instagram_accepted_is_settled_by_its_container(
    world: World, worker: FunctionProcess
) -> None:
    instagram = world.account("instagram")
    world.stack.platforms.misbehave(
        "instagram", "publish container", "hook", hook=lambda *_: worker.kill_worker()
    )

    post_id = world.schedule(instagram, mediaAssetIds=[world.image()])
    world.run_until(lambda: world.status(post_id)["status"] == "published")

    [post] = world.stack.platforms.posts("instagram")
    assert world.delivery(post_id, instagram)["remoteId"] == post.id
    assert len(world.stack.platforms.calls("instagram", "publish container")) == 1


def test_a_crash_before_the_committing_mark_is_published_once_after_the_lease(
    world: World, worker: FunctionProcess
) -> None:
    linkedin = world.account("linkedin")
    world.stack.platforms.misbehave(
        "linkedin", "upload", "hook", hook=lambda *_: worker.kill_worker()
    )

    post_id = world.schedule(linkedin, mediaAssetIds=[world.image()])
    world.stack.settle()
    world.stack.turn(timedelta(seconds=40))
    within_the_lease = world.delivery(post_id, linkedin)
    world.run_until(lambda: world.status(post_id)["status"] == "published")

    delivery = world.delivery(post_id, linkedin)
    assert within_the_lease["status"] == "processing"
    assert [a["outcome"] for a in delivery["attempts"]] == ["crashed", "success"]
    assert len(world.stack.platforms.posts("linkedin")) == 1
    assert world.letters() == []


def test_a_container_made_before_a_crash_is_gone_on_with(
    world: World, worker: FunctionProcess
) -> None:
    instagram = world.account("instagram")
    world.stack.platforms.misbehave(
        "instagram", "read container", "hook", hook=lambda *_: worker.kill_worker()
    )

    post_id = world.schedule(instagram, mediaAssetIds=[world.image()])
    world.run_until(lambda: world.status(post_id)["status"] == "published")

    assert len(world.stack.platforms.calls("instagram", "create container")) == 1
    assert len(world.stack.platforms.posts("instagram")) == 1


def test_a_delivery_that_crashes_its_worker_every_time_ends_with_a_dead_letter(
    world: World, worker: FunctionProcess
) -> None:
    twitter = world.account("twitter")
    world.stack.platforms.misbehave(
        "twitter", "upload", "hook", times=None, hook=lambda *_: worker.kill_worker()
    )

    post_id = world.schedule(twitter, mediaAssetIds=[world.image()])
    world.run_until(lambda: world.status(post_id)["status"] == "failed")

    delivery = world.delivery(post_id, twitter)
    assert delivery["errorCode"] == "attempts_exhausted"
    assert [attempt["outcome"] for attempt in delivery["attempts"]] == ["crashed"] * 4
    assert len(world.letters(reason="attempts_exhausted")) == 1
    assert world.stack.platforms.posts("twitter") == []


def test_an_answer_that_the_queue_never_hears_is_given_again_and_nothing_is_posted(
    world: World,
) -> None:
    twitter = world.account("twitter")
    lost = world.stack.fronts["publish_post"].drop_answer()

    post_id = world.schedule(twitter)
    world.stack.settle()
    world.stack.turn(timedelta(seconds=6))

    first, second = (one for one in world.stack.tasks.attempts if one.queue == "publish-twitter")
    assert lost.hits == 1
    assert (first.status, second.status) == (None, 200)
    assert first.task == second.task
    assert world.status(post_id)["status"] == "published"
    assert len(world.stack.platforms.calls("twitter", "create post")) == 1
