"""What a platform would refuse is refused when it is scheduled, by name, and nothing is stored."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.world import World

LINK = "https://example.com/" + "x" * 200
FAMILY = "👨‍👩‍👧‍👦"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a" * 280, id="280 letters"),
        pytest.param("漢" * 140, id="140 of two"),
        pytest.param(FAMILY * 140, id="140 emoji"),
        pytest.param("a" * 256 + " " + LINK, id="a link counts 23"),
    ],
)
def test_a_text_that_x_just_takes_is_accepted(world: World, text: str) -> None:
    answer = world.call("/schedule", world.order([world.account("twitter")], content=text))

    assert answer.status_code == 201


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a" * 281, id="281 letters"),
        pytest.param("漢" * 140 + "a", id="140 of two and one"),
        pytest.param(FAMILY * 140 + "a", id="140 emoji and one"),
        pytest.param("a" * 257 + " " + LINK, id="a link and one too many"),
    ],
)
def test_a_text_that_counts_281_on_x_is_refused(world: World, text: str) -> None:
    answer = world.call("/schedule", world.order([world.account("twitter")], content=text))

    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {
            "field": "platforms[0].content",
            "code": "text_too_long",
            "message": "The text counts 281 on X, which takes at most 280.",
        }
    ]
    assert_nothing_is_stored(world)


@pytest.mark.parametrize(
    ("platform", "order", "images", "problem"),
    [
        ("linkedin", {"content": "a" * 3001}, 0, ("content", "text_too_long")),
        ("instagram", {}, 0, ("media", "media_required")),
        ("instagram", {"content": "a" * 2201}, 1, ("content", "text_too_long")),
        ("instagram", {"content": "#tag " * 31}, 1, ("content", "too_many_hashtags")),
        ("twitter", {}, 5, ("media", "too_many_media")),
        ("twitter", {"content": "  "}, 0, ("content", "content_required")),
    ],
)
def test_a_post_that_breaks_a_limit_is_refused(
    world: World, platform: str, order: dict[str, Any], images: int, problem: tuple[str, str]
) -> None:
    account = world.account(platform)
    assets = [world.image() for _ in range(images)]

    answer = world.call("/schedule", world.order([account], mediaAssetIds=assets, **order))

    field, code = problem
    assert answer.status_code == 422
    assert named(answer.json()) == [(f"platforms[0].{field}", code)]
    assert_nothing_is_stored(world)


def test_every_target_and_rule_has_its_own_problem(world: World) -> None:
    accounts = [world.account(name) for name in ("twitter", "linkedin", "instagram")]
    png = world.image(contentType="image/png")
    text = "#tag " * 601  # 3005 characters, 601 hashtags

    order = world.order(accounts, content=text, mediaAssetIds=[png])
    answer = world.call("/schedule", order)

    assert answer.status_code == 422
    assert sorted(named(answer.json())) == [
        ("platforms[0].content", "text_too_long"),
        ("platforms[1].content", "text_too_long"),
        ("platforms[2].content", "text_too_long"),
        ("platforms[2].content", "too_many_hashtags"),
        ("platforms[2].media[0]", "media_type"),
    ]
    assert_nothing_is_stored(world)


def test_a_target_is_judged_by_its_own_text(world: World) -> None:
    twitter, linkedin = world.account("twitter"), world.account("linkedin")
    targets = [twitter.target | {"customContent": "Short"}, linkedin.target]

    post_id = world.schedule(platforms=targets, content="a" * 300)
    world.stack.settle()

    assert world.status(post_id)["status"] == "published"
    assert [post.text for post in world.stack.platforms.posts("twitter")] == ["Short"]
    assert [post.text for post in world.stack.platforms.posts("linkedin")] == ["a" * 300]


def test_an_option_that_the_platform_does_not_know_is_named(world: World) -> None:
    twitter = world.account("twitter")
    options = {"replySettings": "nobody", "sparkle": True}

    order = world.order([], platforms=[twitter.target | {"options": options}])
    answer = world.call("/schedule", order)

    assert answer.status_code == 422
    assert named(answer.json()) == [
        ("platforms[0].options.replySettings", "option_invalid"),
        ("platforms[0].options.sparkle", "option_invalid"),
    ]
    assert_nothing_is_stored(world)


def test_a_limit_is_checked_before_the_time_comes(world: World) -> None:
    linkedin = world.account("linkedin")

    order = world.order([linkedin], content="a" * 3001, after=timedelta(days=300))
    answer = world.call("/schedule", order)

    assert answer.status_code == 422
    assert named(answer.json()) == [("platforms[0].content", "text_too_long")]


def named(problem: dict[str, Any]) -> list[tuple[str, str]]:
    return [(error["field"], error["code"]) for error in problem["errors"]]


def assert_nothing_is_stored(world: World) -> None:
    for name in ("scheduledPosts", "publishLogs", "idempotencyMarkers"):
        assert world.stack.records(name) == {}
    for queue in world.stack.tasks.queues():
        assert world.stack.tasks.tasks(queue.id) == []
