"""Media that a platform works on: before the post is made, or after it was accepted."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.sandbox.stack import BUCKET
from tests.world import World

MP4 = b"\x00\x00\x00\x18ftypisom" + b"a small film" * 20


def film(world: World) -> str:
    world.stack.storage.put(BUCKET, "film.mp4", MP4, "video/mp4")
    world.media("film", f"gs://{BUCKET}/film.mp4", contentType="video/mp4", sizeBytes=len(MP4))
    return "film"


def test_a_video_that_was_accepted_is_asked_for_and_never_sent_again(world: World) -> None:
    page, platforms = world.account("facebook"), world.stack.platforms
    platforms.misbehave("facebook", "create video", "processing", polls=2)
    platforms.misbehave("facebook", "read video", "throttle", seconds=60)

    post_id = world.schedule(page, mediaAssetIds=[film(world)])
    world.stack.settle()
    accepted = world.delivery(post_id, page)
    world.stack.turn(timedelta(seconds=31))
    waiting = world.delivery(post_id, page)
    edited = world.command("/edit", post_id, content="Other words")
    world.run_until(
        lambda: world.delivery(post_id, page)["status"] == "success", step=timedelta(seconds=30)
    )

    assert (accepted["status"], accepted["attemptsSpent"]) == ("accepted", 0)
    assert (waiting["status"], waiting["errorCode"]) == ("waiting", "throttled")
    assert edited.status_code == 409
    (post,) = platforms.posts("facebook")
    delivery = world.delivery(post_id, page)
    assert (delivery["remoteId"], post.text) == (post.id, "Hello from Acme")
    outcomes = [attempt["outcome"] for attempt in delivery["attempts"]]
    assert outcomes == ["accepted", "throttled", "accepted", "accepted", "success"]
    assert len(platforms.calls("facebook", "create video")) == 1


@pytest.mark.parametrize("kind", ["drop_after", "error_after"])
def test_a_video_whose_answer_was_lost_is_found_among_the_pages_posts(
    world: World, kind: Any
) -> None:
    page, platforms = world.account("facebook"), world.stack.platforms
    platforms.misbehave("facebook", "create video", kind)

    post_id = world.schedule(page, mediaAssetIds=[film(world)])
    world.run_until(lambda: world.delivery(post_id, page)["status"] == "success")

    (post,) = platforms.posts("facebook")
    assert world.delivery(post_id, page)["remoteId"] == post.id
    assert len(platforms.calls("facebook", "create video")) == 1
    assert world.letters() == []


def test_a_carousel_is_made_when_its_videos_are_ready_and_its_lost_answer_is_settled(
    world: World,
) -> None:
    threads, platforms = world.account("threads"), world.stack.platforms
    filmed = lambda received: b"media_type=VIDEO" in received.body  # noqa: E731
    platforms.misbehave("threads", "create container", "processing", when=filmed, polls=1)
    platforms.misbehave("threads", "publish container", "drop_after")

    post_id = world.schedule(threads, mediaAssetIds=[world.image(), film(world)])
    world.stack.settle()
    at_first = world.delivery(post_id, threads)
    world.run_until(
        lambda: world.delivery(post_id, threads)["status"] == "success", step=timedelta(seconds=10)
    )

    (post,) = platforms.posts("threads")
    assert at_first["status"] == "accepted"
    assert world.delivery(post_id, threads)["remoteId"] == post.id
    assert len(platforms.calls("threads", "create container")) == 3
    assert len(platforms.calls("threads", "publish container")) == 1
