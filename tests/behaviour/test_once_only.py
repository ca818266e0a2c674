"""Never twice: whatever is delivered again, at once, or late."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from tests.world import World


def test_a_scheduled_post_is_published_once_to_each_account(world: World) -> None:
    linkedin, twitter = world.account("linkedin"), world.account("twitter")

    post_id = world.schedule(linkedin, twitter, after=timedelta(minutes=5))
    world.stack.turn(timedelta(minutes=5))

    status = world.status(post_id)
    assert status["status"] == "published"
    assert status["message"] == "2 of 2 platforms published"
    assert len(world.stack.platforms.posts("linkedin")) == 1
    assert len(world.stack.platforms.posts("twitter")) == 1


def test_a_task_delivered_twice_at_the_same_moment_posts_once(world: World) -> None:
    twitter = world.account("twitter")
    post_id = world.schedule(twitter, after=timedelta(hours=1))
    world.stack.clock.turn(timedelta(hours=1))

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: world.deliver(post_id, twitter), range(4)))
    world.stack.settle()
    again = world.deliver(post_id, twitter)

    assert len(world.stack.platforms.posts("twitter")) == 1
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert again.json()["result"] == world.stack.platforms.posts("twitter")[0].id
