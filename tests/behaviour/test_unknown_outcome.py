"""When the call that creates the post leaves and no readable answer comes: it may be there. It is
settled by evidence or by a person, never sent again blindly."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.children import free_port
from tests.sandbox.functions import FunctionProcess, build
from tests.world import World

WITHOUT_AN_ANSWER = [
    pytest.param("error_after", {"status": 502}, id="502"),
    pytest.param("drop_after", {}, id="dropped"),
    pytest.param("garbage", {}, id="garbage"),
    pytest.param("no_id", {}, id="no-id"),
]


@pytest.mark.parametrize(("kind", "how"), WITHOUT_AN_ANSWER)
def test_where_nothing_can_be_looked_up_it_is_unknown_and_never_sent_again(
    world: World, kind: Any, how: dict[str, Any]
) -> None:
    platform = "linkedin"  # a member's posts cannot be read back
    account = world.account(platform)
    world.stack.platforms.misbehave(platform, "create post", kind, **how)
    post_id = world.schedule(account)
    world.stack.settle()
    at_first = world.delivery(post_id, account)

    for wait in (timedelta(seconds=61), timedelta(days=2)):
        again = world.deliver(post_id, account)
        world.stack.turn(wait)
        world.sweep()

    assert at_first["status"] == "unknown"
    assert at_first["evidence"]["committing"]["requestHash"]
    assert at_first["evidence"]["unsettledSince"] == at_first["evidence"]["committing"]["at"]
    assert at_first["attempts"][-1]["outcome"] == "unknown"
    assert (again.status_code, again.json()["status"]) == (200, "unknown")
    assert again.json()["success"] is False
    assert world.delivery(post_id, account) == at_first
    assert len(world.stack.platforms.calls(platform, "create post")) == 1
    assert world.letters() == []
    [line] = world.stack.events("delivery.unknown")
    assert (line["severity"], line["deliveryId"]) == ("ERROR", at_first["deliveryId"])
    assert world.status(post_id)["summary"] == {"unknown": 1}


def test_an_unknown_one_is_sent_again_only_by_a_person_who_takes_the_risk(world: World) -> None:
    account = world.account("linkedin")
    world.stack.platforms.misbehave("linkedin", "create post", "error_before", status=502)
    post_id = world.schedule(account)
    world.stack.settle()

    plain = world.retry(post_id, account)
    without_reason = world.retry(post_id, account, acceptDuplicateRisk=True)
    unmoved = world.delivery(post_id, account)
    ordered = world.retry(
        post_id, account, acceptDuplicateRisk=True, reason="Looked: it is not on the profile"
    )
    world.stack.settle()

    assert (plain.status_code, plain.json()["code"]) == (409, "not_retryable")
    assert without_reason.status_code == 400
    assert (unmoved["status"], unmoved["generation"]) == ("unknown", 1)
    assert ordered.status_code == 200
    assert world.status(post_id)["status"] == "published"
    assert len(world.stack.platforms.posts("linkedin")) == 1
    [entry] = world.stack.records("auditLog").values()
    assert entry["action"] == "send_again"
    assert entry["by"] == world.stack.email("backend")
    assert entry["why"] == "Looked: it is not on the profile"
    assert entry["deliveryId"] == unmoved["deliveryId"]


def test_a_second_send_that_is_refused_does_not_make_the_first_one_a_failure(
    world: World,
) -> None:
    account = world.account("linkedin")
    world.stack.platforms.misbehave("linkedin", "create post", "drop_after")
    post_id = world.schedule(account)
    world.stack.settle()
    world.stack.platforms.misbehave("linkedin", "create post", "refuse", status=400, body={})

    world.retry(post_id, account, acceptDuplicateRisk=True, reason="I did not look")
    world.stack.settle()

    delivery = world.delivery(post_id, account)
    assert delivery["attempts"][-1]["outcome"] == "permanent"
    assert delivery["status"] == "unknown"
    assert world.letters() == []


def test_a_call_that_never_connected_is_retried_and_published_once(
    world: World, tmp_path: Path
) -> None:
    twitter, front = world.account("twitter"), world.stack.fronts["publish_post"]
    nobody_listens = f"http://127.0.0.1:{free_port()}/twitter"
    cut_off = FunctionProcess(
        "publish_post",
        build("publish_post", tmp_path),
        free_port(),
        world.stack.environment("publish_post") | {"TWITTER_API_URL": nobody_listens},
        children=world.stack.children,
    )
    world.stack.tasks.faults.lose_task(times=None)  # each attempt is brought by hand
    post_id = world.schedule(twitter)
    connected, front.backends = front.backends, [cut_off.start().wait_until_ready().port]
    try:
        world.deliver(post_id, twitter)
    finally:
        front.backends = connected
        cut_off.kill()
    at_first = world.delivery(post_id, twitter)
    world.stack.clock.turn(timedelta(seconds=6))
    world.deliver(post_id, twitter)

    assert at_first["status"] == "retry"
    assert at_first["attempts"][0]["code"] == "no_answer"
    assert "committing" not in at_first["evidence"]
    assert world.status(post_id)["status"] == "published"
    assert len(world.stack.platforms.posts("twitter")) == 1


def test_instagram_finds_its_container_published_and_does_not_publish_again(
    world: World,
) -> None:
    instagram = world.account("instagram")
    world.stack.platforms.misbehave("instagram", "publish container", "drop_after")

    post_id = world.schedule(instagram, mediaAssetIds=[world.image()])
    world.stack.settle()
    at_first, answer_while_open = world.delivery(post_id, instagram), world.status(post_id)
    world.stack.turn(timedelta(seconds=31))

    [post] = world.stack.platforms.posts("instagram")
    assert at_first["status"] == "unknown"
    assert answer_while_open["status"] == "processing"
    assert world.delivery(post_id, instagram)["status"] == "success"
    assert world.delivery(post_id, instagram)["remoteId"] == post.id
    assert len(world.stack.platforms.calls("instagram", "publish container")) == 1
    [claimed] = world.stack.records("remoteIds").values()
    assert (claimed["remoteId"], claimed["deliveryId"]) == (post.id, at_first["deliveryId"])
    assert world.stack.events("delivery.unknown") == []


def test_instagram_repeats_the_same_container_where_nothing_was_published(world: World) -> None:
    instagram = world.account("instagram")
    world.stack.platforms.misbehave("instagram", "publish container", "drop_before")

    post_id = world.schedule(instagram, mediaAssetIds=[world.image()])
    world.stack.settle()
    world.stack.turn(timedelta(seconds=31))

    first, second = world.stack.platforms.calls("instagram", "publish container")
    assert world.delivery(post_id, instagram)["status"] == "success"
    assert first.json() == second.json()
    assert len(world.stack.platforms.posts("instagram")) == 1
    assert len(world.stack.platforms.instagram.containers) == 1


def test_a_found_post_that_belongs_to_another_delivery_proves_nothing(world: World) -> None:
    """Two posts of one account with the same words: the one that is there is the other's."""
    instagram = world.account("instagram")
    first = world.schedule(instagram, mediaAssetIds=[world.image("one.jpg")])
    world.stack.settle()
    world.stack.platforms.misbehave("instagram", "publish container", "drop_before")
    second = world.schedule(instagram, mediaAssetIds=[world.image("two.jpg")])
    world.stack.settle()
    for container in world.stack.platforms.instagram.containers.values():
        container.published = True  # by whom, Instagram does not say

    for _ in range(9):
        world.stack.turn(timedelta(minutes=5))

    assert world.status(first)["status"] == "published"
    assert world.delivery(second, instagram)["status"] == "unknown"
    assert world.delivery(second, instagram)["errorCode"] == "evidence_taken"
    assert len(world.stack.platforms.posts("instagram")) == 1
    assert len(world.stack.events("delivery.unknown")) == 1


def test_a_container_in_work_is_polled_by_successor_tasks_without_spending_attempts(
    world: World,
) -> None:
    instagram = world.account("instagram")
    world.stack.platforms.misbehave("instagram", "create container", "processing", polls=6)

    post_id = world.schedule(instagram, mediaAssetIds=[world.image()])
    world.stack.settle()
    at_first = world.delivery(post_id, instagram)
    world.run_until(
        lambda: world.status(post_id)["status"] == "published", step=timedelta(seconds=10)
    )

    delivery = world.delivery(post_id, instagram)
    assert (at_first["status"], at_first["attemptsSpent"]) == ("accepted", 0)
    assert delivery["attemptsSpent"] == 1
    assert [a["outcome"] for a in delivery["attempts"]] == ["accepted"] * 6 + ["success"]
    tasks = [one for one in world.stack.tasks.attempts if one.queue == "publish-instagram"]
    assert [one.status for one in tasks] == [200] * 7
    assert len(world.stack.platforms.instagram.containers) == 1
    assert len(world.stack.platforms.posts("instagram")) == 1


def test_a_container_is_gone_on_with_after_an_error_and_not_made_again(world: World) -> None:
    instagram = world.account("instagram")
    world.stack.platforms.misbehave("instagram", "read container", "error_before", times=2)

    post_id = world.schedule(instagram, mediaAssetIds=[world.image()])
    world.run_until(lambda: world.status(post_id)["status"] == "published")

    assert len(world.stack.platforms.calls("instagram", "create container")) == 1
    assert len(world.stack.platforms.posts("instagram")) == 1
    assert world.delivery(post_id, instagram)["attemptsSpent"] == 3
