"""Never twice: whatever is delivered again, at once, or late. And what that costs, at the wire."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from tests.world import Account, World


def test_a_scheduled_post_is_published_once_to_each_account(world: World) -> None:
    linkedin, twitter = world.account("linkedin"), world.account("twitter")

    post_id = world.schedule(linkedin, twitter, after=timedelta(minutes=5))
    world.stack.turn(timedelta(minutes=5))

    status = world.status(post_id)
    assert status["status"] == "published"
    assert status["message"] == "2 of 2 platforms published"
    assert len(world.stack.platforms.posts("linkedin")) == 1
    assert len(world.stack.platforms.posts("twitter")) == 1


def test_a_task_delivered_again_gets_the_first_answer_and_posts_nothing(world: World) -> None:
    post_id, twitter = due_by_hand(world)

    first = world.deliver(post_id, twitter)
    again = world.deliver(post_id, twitter)

    [post] = world.stack.platforms.posts("twitter")
    assert first.json()["success"] is True
    assert first.json()["result"] == post.id
    assert (again.status_code, again.json()) == (first.status_code, first.json())


def test_two_processes_that_read_the_same_record_post_once(world: World) -> None:
    post_id, twitter = due_by_hand(world)
    both_read = world.stack.proxy.hold("BatchGetDocuments", times=2, after=True)

    with ThreadPoolExecutor(2) as pool:
        racing = [pool.submit(world.deliver, post_id, twitter) for _ in range(2)]
        both_read.arrived(2)
        both_read.open()
        answers = [one.result() for one in racing]
    again = world.deliver(post_id, twitter)

    [post] = world.stack.platforms.posts("twitter")
    won = [answer for answer in answers if answer.status_code == 200]
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert won[0].json()["result"] == post.id
    assert all(answer.json() == again.json() for answer in won)
    assert len(world.delivery(post_id, twitter)["attempts"]) == 1


def test_a_task_delivered_by_many_at_the_same_moment_posts_once(world: World) -> None:
    post_id, twitter = due_by_hand(world)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: world.deliver(post_id, twitter), range(8)))
    again = world.deliver(post_id, twitter)

    [post] = world.stack.platforms.posts("twitter")
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert again.json()["result"] == post.id


def test_a_queue_that_delivers_each_task_twice_at_once_publishes_once(world: World) -> None:
    linkedin, twitter = world.account("linkedin"), world.account("twitter")
    world.stack.tasks.faults.deliver_twice(at_once=True, times=None)

    post_id = world.schedule(linkedin, twitter)
    world.run_until(lambda: world.status(post_id)["status"] == "published")

    assert len(world.stack.platforms.calls("linkedin", "create post")) == 1
    assert len(world.stack.platforms.calls("twitter", "create post")) == 1


def test_one_published_delivery_costs_four_round_trips_and_four_writes(world: World) -> None:
    post_id, first, _ = two_due_by_hand(world)
    before = world.stack.proxy.counts("publish_post")

    answer = world.deliver(post_id, first)

    spent = world.stack.proxy.counts("publish_post") - before
    assert answer.json()["success"] is True
    assert dict(spent.calls) == {"BatchGetDocuments": 1, "Commit": 3}
    assert spent.documents_written == 4


def test_the_last_delivery_of_a_post_costs_six_round_trips_and_five_writes(world: World) -> None:
    post_id, first, last = two_due_by_hand(world)
    world.deliver(post_id, first)
    before = world.stack.proxy.counts("publish_post")

    answer = world.deliver(post_id, last)

    spent = world.stack.proxy.counts("publish_post") - before
    assert answer.json()["success"] is True
    assert dict(spent.calls) == {"BatchGetDocuments": 2, "Commit": 4}
    assert spent.documents_written == 5
    assert stored_status(world, post_id) == "published"


def test_a_duplicate_of_a_settled_delivery_costs_one_round_trip(world: World) -> None:
    post_id, twitter = due_by_hand(world)
    world.deliver(post_id, twitter)
    before = world.stack.proxy.counts("publish_post")

    answer = world.deliver(post_id, twitter)

    spent = world.stack.proxy.counts("publish_post") - before
    assert answer.json()["success"] is True
    assert dict(spent.calls) == {"BatchGetDocuments": 1}
    assert spent.documents_written == 0


def test_a_task_that_comes_early_publishes_nothing_and_is_made_again(world: World) -> None:
    twitter = world.account("twitter")
    post_id = world.schedule(twitter, after=timedelta(hours=1))
    [task] = world.stack.tasks.tasks("publish-twitter")

    early = world.stack.tasks.deliver(task.id)
    posts_before_its_time = world.stack.platforms.posts("twitter")
    world.stack.turn(timedelta(hours=1))

    assert early.status == 200
    assert posts_before_its_time == []
    assert len(world.stack.platforms.posts("twitter")) == 1
    assert world.status(post_id)["status"] == "published"


def test_a_task_of_a_post_that_does_not_exist_is_buried_once(world: World) -> None:
    twitter = world.account("twitter")

    answers = [world.deliver("nowhere", twitter) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert world.stack.platforms.calls("twitter") == []
    assert len(world.letters(reason="malformed_task")) == 1


def due_by_hand(world: World) -> tuple[str, Account]:
    """A due delivery whose tasks the queue loses: it is delivered by hand alone."""
    twitter = world.account("twitter")
    world.stack.tasks.faults.lose_task(times=None)
    return world.schedule(twitter), twitter


def two_due_by_hand(world: World) -> tuple[str, Account, Account]:
    one, other = world.account("twitter"), world.account("linkedin")
    world.stack.tasks.faults.lose_task(times=None)
    return world.schedule(one, other), one, other


def stored_status(world: World, post_id: str) -> str:
    post = world.stack.record("scheduledPosts", post_id)
    assert post is not None
    return str(post["status"])
