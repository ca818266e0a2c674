"""Cancelled never runs, whatever task still arrives; what cannot be cancelled is named."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from tests.world import World

HOUR = timedelta(hours=1)


def test_a_cancelled_post_is_never_published_whatever_task_arrives(world: World) -> None:
    twitter = world.account("twitter")
    post_id = world.schedule(twitter, after=HOUR)
    [task] = world.stack.tasks.tasks("publish-twitter")
    world.stack.tasks.faults.refuse("DeleteTask", times=None)

    answer = world.command("/cancel", post_id)
    early = world.stack.tasks.deliver(task.request)
    world.stack.turn(HOUR)
    by_hand = world.deliver(post_id, twitter)
    late = world.stack.tasks.deliver(task.id)
    world.stack.turn(timedelta(days=2))
    world.sweep()

    assert answer.status_code == 200
    assert [one["status"] for one in answer.json()["applied"]] == ["cancelled"]
    assert (early.status, by_hand.status_code, late.status) == (200, 200, 200)
    assert by_hand.json()["void"] is True
    assert [attempt.status for attempt in world.stack.tasks.attempts if not attempt.copy] == [200]
    assert world.stack.platforms.calls("twitter") == []
    assert world.status(post_id)["status"] == "cancelled"
    assert world.letters() == []


def test_cancelling_takes_the_tasks_out_of_the_queue(world: World) -> None:
    post_id = world.schedule(world.account("twitter"), world.account("linkedin"), after=HOUR)

    world.command("/cancel", post_id)

    assert world.stack.tasks.tasks("publish-twitter") == []
    assert world.stack.tasks.tasks("publish-linkedin") == []
    assert world.stack.record("scheduledPosts", post_id)["status"] == "cancelled"


def test_what_is_being_published_cannot_be_cancelled(world: World) -> None:
    post_id = world.schedule(world.account("twitter"), after=HOUR)
    held = world.stack.platforms.misbehave("twitter", "create post", "hold")
    world.stack.clock.turn(HOUR)
    held.wait_until_held()

    answer = world.command("/cancel", post_id)
    held.release()
    world.stack.settle()

    assert answer.status_code == 409
    assert answer.json()["code"] == "too_late"
    [refused] = answer.json()["refused"]
    assert (refused["status"], refused["message"]) == (
        "processing",
        "It is being published right now.",
    )
    assert world.status(post_id)["status"] == "published"


def test_cancelling_a_mixed_post_applies_to_what_it_can_and_names_the_rest(world: World) -> None:
    twitter, linkedin = world.account("twitter"), world.account("linkedin")
    world.stack.platforms.misbehave("linkedin", "create post", "throttle", seconds=600)
    post_id = world.schedule(twitter, linkedin)
    world.stack.settle()

    answer = world.command("/cancel", post_id)
    world.stack.turn(HOUR)
    again = world.command("/cancel", post_id)

    assert answer.status_code == 200
    assert [shown(one) for one in answer.json()["applied"]] == [("linkedin", "cancelled")]
    [refused] = answer.json()["refused"]
    assert (*shown(refused), refused["message"]) == ("twitter", "success", "It is published.")
    assert world.stack.platforms.posts("linkedin") == []
    assert world.status(post_id)["summary"] == {"success": 1, "cancelled": 1}
    assert again.status_code == 409
    assert {one["message"] for one in again.json()["refused"]} == {
        "It is published.",
        "It was cancelled.",
    }


def test_one_delivery_can_be_cancelled_alone(world: World) -> None:
    twitter, linkedin = world.account("twitter"), world.account("linkedin")
    post_id = world.schedule(twitter, linkedin, after=HOUR)

    answer = world.command("/cancel", post_id, deliveries=[linkedin.target, linkedin.target])
    world.stack.turn(HOUR)

    assert [shown(one) for one in answer.json()["applied"]] == [("linkedin", "cancelled")]
    assert len(world.stack.platforms.posts("twitter")) == 1
    assert world.stack.platforms.posts("linkedin") == []


def test_a_delivery_that_waits_for_its_next_attempt_can_be_cancelled(world: World) -> None:
    twitter = world.account("twitter")
    world.stack.platforms.misbehave("twitter", "upload", "error_before")
    post_id = world.schedule(twitter, mediaAssetIds=[world.image()], after=HOUR)
    world.stack.tasks.faults.refuse("CreateTask", times=None)  # it stays as it is
    world.stack.turn(HOUR)
    before = world.delivery(post_id, twitter)["status"]

    answer = world.command("/cancel", post_id)
    world.stack.tasks.faults.clear()
    world.stack.turn(HOUR)
    world.sweep()
    world.stack.settle()

    assert before == "retry"
    assert answer.status_code == 200
    assert world.stack.platforms.posts("twitter") == []
    assert world.status(post_id)["status"] == "cancelled"


def test_a_cancel_that_comes_between_reading_and_claiming_wins(world: World) -> None:
    twitter = world.account("twitter")
    post_id = world.schedule(twitter, after=HOUR)
    claim = world.stack.proxy.hold("Commit", when=writes("fencingToken"))
    world.stack.clock.turn(HOUR)
    claim.arrived()

    answer = world.command("/cancel", post_id)
    claim.open()
    world.stack.settle()

    assert answer.status_code == 200
    assert world.stack.platforms.calls("twitter") == []
    assert world.status(post_id)["status"] == "cancelled"


def test_a_claim_that_comes_between_reading_and_cancelling_wins(world: World) -> None:
    twitter = world.account("twitter")
    post_id = world.schedule(twitter, after=HOUR)
    cancel = world.stack.proxy.hold("Commit", when=becomes("cancelled"))

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(world.command, "/cancel", post_id)
        cancel.arrived()
        world.stack.turn(HOUR)
        cancel.open()
        answer = asked.result()

    assert answer.status_code == 409
    assert [shown(one) for one in answer.json()["refused"]] == [("twitter", "success")]
    assert len(world.stack.platforms.posts("twitter")) == 1


def test_cancel_and_claim_at_the_same_moment_never_both_win(world: World) -> None:
    twitter = world.account("twitter")
    ways = []
    for turn in range(4):
        posted = len(world.stack.platforms.posts("twitter"))
        post_id = world.schedule(twitter, after=HOUR, content=f"Round {turn}")
        both = world.stack.proxy.hold("Commit", times=2)
        world.stack.clock.turn(HOUR)

        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(world.command, "/cancel", post_id)
            both.arrived(2)
            both.open()
            answer = asked.result()
        world.stack.settle()

        posts = len(world.stack.platforms.posts("twitter")) - posted
        ways.append((answer.status_code, posts, world.status(post_id)["status"]))

    assert set(ways) <= {(200, 0, "cancelled"), (409, 1, "published")}


def test_nobody_cancels_another_companys_post(world: World) -> None:
    post_id = world.schedule(world.account("twitter"), after=HOUR)

    answer = world.call("/cancel", {"companyId": "umbrella", "postId": post_id})

    assert answer.status_code == 404
    assert world.status(post_id)["status"] == "pending"


def test_a_delivery_that_the_post_does_not_have_is_named(world: World) -> None:
    post_id = world.schedule(world.account("twitter"), after=HOUR)
    deliveries = [{"platform": "linkedin", "accountId": "linkedin-9"}]

    answer = world.command("/cancel", post_id, deliveries=deliveries)

    assert answer.status_code == 404
    assert answer.json()["detail"] == "The post has no delivery to linkedin 'linkedin-9'."
    assert world.status(post_id)["status"] == "pending"


def shown(delivery: dict[str, Any]) -> tuple[str, str]:
    return delivery["platform"], delivery["status"]


def writes(field: str) -> Callable[[Any], bool]:
    return lambda commit: any(field in write.update_mask.field_paths for write in commit.writes)


def becomes(status: str) -> Callable[[Any], bool]:
    def matches(commit: Any) -> bool:
        return any(
            write.update.fields["status"].string_value == status
            for write in commit.writes
            if "status" in write.update.fields
        )

    return matches
