"""Attempts are ours to count: four in all, each retry a successor task, the last one's end a dead
letter. And one trace runs through them."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from tests.world import World


def test_three_errors_before_the_commit_and_then_success_publishes_with_four_attempts(
    world: World,
) -> None:
    linkedin = world.account("linkedin")
    world.stack.platforms.misbehave("linkedin", "begin upload", "error_before", times=3)

    post_id = world.schedule(linkedin, mediaAssetIds=[world.image()])
    world.run_until(lambda: world.status(post_id)["status"] == "published")

    delivery = world.delivery(post_id, linkedin)
    outcomes = [attempt["outcome"] for attempt in delivery["attempts"]]
    assert outcomes == ["transient", "transient", "transient", "success"]
    assert [attempt["number"] for attempt in delivery["attempts"]] == [1, 2, 3, 4]
    assert [attempt["hop"] for attempt in delivery["attempts"]] == [1, 2, 3, 4]
    assert delivery["attempts"][0]["httpStatus"] == 500
    assert len(world.stack.platforms.posts("linkedin")) == 1
    tasks = [one for one in world.stack.tasks.attempts if one.queue == "publish-linkedin"]
    assert len({one.task for one in tasks}) == 4
    assert [one.status for one in tasks] == [200] * 4
    assert world.letters() == []


def test_the_fourth_failure_before_the_commit_ends_with_exactly_one_dead_letter(
    world: World,
) -> None:
    twitter, sibling = world.account("twitter"), world.account("twitter")
    world.stack.platforms.misbehave(
        "twitter",
        "upload",
        "error_before",
        times=None,
        when=lambda received: received.token == twitter.access_token,
    )

    post_id = world.schedule(twitter, sibling, mediaAssetIds=[world.image()])
    world.run_until(lambda: world.status(post_id)["status"] == "failed")
    world.deliver(post_id, twitter)
    world.sweep()

    delivery = world.delivery(post_id, twitter)
    assert delivery["status"] == "failed"
    assert delivery["errorCode"] == "http_500"
    assert [attempt["outcome"] for attempt in delivery["attempts"]] == ["transient"] * 4
    assert world.delivery(post_id, sibling)["status"] == "success"
    [letter] = world.letters()
    assert letter["status"] == "open"
    assert letter["reason"] == "http_500"
    assert letter["deliveryId"] == delivery["deliveryId"]
    assert letter["payload"] == {
        "scheduledPostId": post_id,
        "platform": "twitter",
        "accountId": twitter.id,
        "generation": 1,
        "idempotencyKey": f"publish-{post_id}-twitter-{twitter.id}",
    }
    assert len(letter["evidence"]["attempts"]) == 4
    assert letter["evidence"]["status"] == "failed"
    assert len(world.stack.events("delivery.dead_lettered")) == 1


def test_a_retry_closes_the_dead_letter_and_publishes(world: World) -> None:
    twitter = world.account("twitter")
    broken = world.stack.platforms.misbehave("twitter", "upload", "error_before", times=4)
    post_id = world.schedule(twitter, mediaAssetIds=[world.image()])
    world.run_until(lambda: world.status(post_id)["status"] == "failed")

    answer = world.retry(post_id, twitter)
    world.stack.settle()
    again = world.retry(post_id, twitter)

    assert broken.left == 0
    assert answer.status_code == 200
    delivery = world.delivery(post_id, twitter)
    assert (delivery["status"], delivery["generation"]) == ("success", 2)
    [letter] = world.letters()
    assert letter["status"] == "redriven"
    assert letter["redrivenTo"] == f"{delivery['deliveryId']}-2"
    assert again.status_code == 409
    assert len(world.stack.platforms.posts("twitter")) == 1


def test_each_wait_is_between_half_and_all_of_a_step_that_doubles(world: World) -> None:
    twitter = world.account("twitter")
    world.stack.tasks.faults.lose_task(times=None)  # each attempt is brought by hand, when due
    world.stack.platforms.misbehave("twitter", "upload", "error_before", times=4)
    post_id = world.schedule(twitter, mediaAssetIds=[world.image()])
    waits = []

    for _ in range(3):
        answer = world.deliver(post_id, twitter).json()
        delivery = world.delivery(post_id, twitter)
        waits.append(seconds_between(delivery["attempts"][-1]["endedAt"], delivery["dueAt"]))
        assert delivery["status"] == answer["status"] == "retry"
        assert delivery["nextRetryAt"] == answer["nextRetryAt"] == delivery["dueAt"]
        world.stack.clock.turn(timedelta(seconds=waits[-1]))

    assert 2.5 <= waits[0] <= 5.1
    assert 5 <= waits[1] <= 10.1
    assert 10 <= waits[2] <= 20.1


def test_one_trace_runs_through_a_post_and_no_line_tells_text_or_token(world: World) -> None:
    linkedin, twitter = world.account("linkedin"), world.account("twitter")
    instagram = world.account("instagram")
    trace = "0af7651916cd43dd8448eb211c80319c"
    text = "Nobody but our readers may see these words (yet)."
    platforms = world.stack.platforms
    platforms.misbehave("linkedin", "begin upload", "error_before", times=1)
    platforms.misbehave("instagram", "create container", "error_before", times=4)
    platforms.misbehave("linkedin", "create post", "error_after", status=502)
    order = world.order((linkedin, twitter, instagram), content=text, mediaAssetIds=[world.image()])

    scheduled = world.stack.post(
        "schedule_post", "/schedule", order, traceparent=f"00-{trace}-b7ad6b7169203331-01"
    )
    post_id = scheduled.json()["postId"]
    world.run_until(lambda: world.status(post_id)["status"] == "failed")
    world.retry(post_id, instagram)
    world.run_until(lambda: world.delivery(post_id, instagram)["status"] == "success")
    world.sweep()

    lines = world.stack.events()
    about_it = [line for line in lines if line.get("postId") == post_id]
    served = [line for line in world.stack.events("request.served") if line.get("taskId")]
    expected = f"projects/{world.stack.project}/traces/{trace}"
    assert {line["event"] for line in about_it} >= {
        "post.scheduled",
        "publish.begun",
        "publish.settled",
        "delivery.unknown",
        "delivery.dead_lettered",
        "post.changed",
    }
    without = [
        line["event"]
        for line in about_it + served
        if line.get("logging.googleapis.com/trace") != expected
    ]
    assert without == []
    told = json.dumps(lines, ensure_ascii=False)
    assert text not in told
    assert "Nobody but our readers" not in told
    for account in (linkedin, twitter, instagram):
        assert account.access_token not in told
        assert account.refresh_token not in told
    assert world.stack.secret not in told


def seconds_between(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
