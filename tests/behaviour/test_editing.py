"""What arrives is the edited post; what is published stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from tests.world import World

HOUR = timedelta(hours=1)


def test_the_edited_text_and_media_are_what_arrives(world: World) -> None:
    twitter, linkedin = world.account("twitter"), world.account("linkedin")
    post_id = world.schedule(twitter, linkedin, after=HOUR)

    answer = world.command("/edit", post_id, content="Better", mediaAssetIds=[world.image()])
    world.stack.turn(HOUR)

    assert answer.status_code == 200
    for platform in ("twitter", "linkedin"):
        [post] = world.stack.platforms.posts(platform)
        assert post.text == "Better"
        assert len(post.media) == 1


def test_an_edit_of_one_target_changes_that_one_alone(world: World) -> None:
    twitter, linkedin = world.account("twitter"), world.account("linkedin")
    post_id = world.schedule(twitter, linkedin, after=HOUR)

    answer = world.command(
        "/edit", post_id, platforms=[twitter.target | {"customContent": "For X"}]
    )
    world.stack.turn(HOUR)

    assert [one["platform"] for one in answer.json()["applied"]] == ["twitter"]
    assert [post.text for post in world.stack.platforms.posts("twitter")] == ["For X"]
    assert [post.text for post in world.stack.platforms.posts("linkedin")] == ["Hello from Acme"]


def test_an_edit_of_the_shared_text_leaves_a_targets_own_text(world: World) -> None:
    twitter, linkedin = world.account("twitter"), world.account("linkedin")
    targets = [twitter.target | {"customContent": "For X"}, linkedin.target]
    post_id = world.schedule(platforms=targets, after=HOUR)

    world.command("/edit", post_id, content="Better")
    world.stack.turn(HOUR)

    assert [post.text for post in world.stack.platforms.posts("twitter")] == ["For X"]
    assert [post.text for post in world.stack.platforms.posts("linkedin")] == ["Better"]


def test_an_edit_leaves_a_published_sibling_as_it_is(world: World) -> None:
    twitter, linkedin = world.account("twitter"), world.account("linkedin")
    world.stack.platforms.misbehave("linkedin", "create post", "throttle", seconds=600)
    post_id = world.schedule(twitter, linkedin)
    world.stack.settle()

    answer = world.command("/edit", post_id, content="Better")
    world.stack.turn(HOUR)

    assert [one["platform"] for one in answer.json()["applied"]] == ["linkedin"]
    assert [one["message"] for one in answer.json()["refused"]] == ["It is published."]
    assert [post.text for post in world.stack.platforms.posts("twitter")] == ["Hello from Acme"]
    assert [post.text for post in world.stack.platforms.posts("linkedin")] == ["Better"]


def test_an_edit_that_breaks_a_limit_is_refused_and_changes_nothing(world: World) -> None:
    twitter, linkedin = world.account("twitter"), world.account("linkedin")
    post_id = world.schedule(twitter, linkedin, after=HOUR)

    answer = world.command("/edit", post_id, content="a" * 281, mediaAssetIds=["asset-missing"])
    world.stack.turn(HOUR)

    assert answer.status_code == 422
    assert [(e["field"], e["code"]) for e in answer.json()["errors"]] == [
        ("mediaAssetIds[0]", "media_unknown"),
        ("platforms[0].content", "text_too_long"),
    ]
    assert {post.text for post in world.stack.platforms.posts()} == {"Hello from Acme"}


def test_an_edit_of_an_account_that_the_post_does_not_go_to_is_refused(world: World) -> None:
    post_id = world.schedule(world.account("twitter"), after=HOUR)
    stranger = {"platform": "linkedin", "accountId": "linkedin-9", "customContent": "Hi"}

    answer = world.command("/edit", post_id, platforms=[stranger])

    assert answer.status_code == 404
    assert answer.json()["detail"] == "The post has no delivery to linkedin 'linkedin-9'."


def test_an_edit_that_comes_between_reading_and_claiming_is_what_arrives(world: World) -> None:
    post_id = world.schedule(world.account("twitter"), after=HOUR)
    claim = world.stack.proxy.hold("Commit", when=writes("fencingToken"))
    world.stack.clock.turn(HOUR)
    claim.arrived()

    answer = world.command("/edit", post_id, content="Better")
    claim.open()
    world.stack.settle()

    assert answer.status_code == 200
    assert [post.text for post in world.stack.platforms.posts("twitter")] == ["Better"]


def test_an_edit_that_comes_after_the_claim_is_refused(world: World) -> None:
    post_id = world.schedule(world.account("twitter"), after=HOUR)
    edit = world.stack.proxy.hold("Commit", when=writes("content"))

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(world.command, "/edit", post_id, content="Better")
        edit.arrived()
        world.stack.turn(HOUR)
        edit.open()
        answer = asked.result()

    assert answer.status_code == 409
    assert answer.json()["code"] == "too_late"
    assert [post.text for post in world.stack.platforms.posts("twitter")] == ["Hello from Acme"]
    kept = world.stack.record("scheduledPosts", post_id)
    assert kept is not None
    assert kept["content"] == "Hello from Acme"


def test_two_edits_at_once_leave_one_of_them_whole(world: World) -> None:
    twitter, linkedin = world.account("twitter"), world.account("linkedin")
    post_id = world.schedule(twitter, linkedin, after=HOUR)
    both = world.stack.proxy.hold("Commit", times=2)

    with ThreadPoolExecutor(2) as pool:
        asked = [
            pool.submit(world.command, "/edit", post_id, content=text) for text in ("One", "Two")
        ]
        both.arrived(2)
        both.open()
        answers = [one.result() for one in asked]
    world.stack.turn(HOUR)

    assert [answer.status_code for answer in answers] == [200, 200]
    texts = {post.text for post in world.stack.platforms.posts()}
    kept = world.stack.record("scheduledPosts", post_id)
    assert kept is not None
    assert texts in ({"One"}, {"Two"})
    assert texts == {kept["content"]}


def test_an_edit_makes_what_was_uploaded_anew(world: World) -> None:
    twitter = world.account("twitter")
    world.stack.platforms.misbehave("twitter", "create post", "throttle", seconds=60)
    post_id = world.schedule(twitter, mediaAssetIds=[world.image("old.jpg")])
    world.stack.settle()

    answer = world.command("/edit", post_id, mediaAssetIds=[world.image("new.jpg")])
    world.stack.turn(timedelta(minutes=2))

    assert answer.status_code == 200
    assert len(world.stack.platforms.calls("twitter", "upload")) == 2
    assert world.status(post_id)["status"] == "published"


def writes(field: str) -> Callable[[Any], bool]:
    return lambda commit: any(field in write.update_mask.field_paths for write in commit.writes)
