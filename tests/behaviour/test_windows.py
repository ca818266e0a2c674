"""Unknown outcomes on platforms that take a key: looked for, then repeated while that is safe."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.world import Account, World


def account(world: World, platform: str) -> Account:
    match platform:
        case "mastodon":
            return world.account(platform, user_id="109348", server="bread.example")
        case "bluesky":
            return world.account(platform, user_id="did:plc:acme", server="bread.example")
    return world.account(platform, user_id="41771983423143937")


@pytest.mark.parametrize("platform", ["mastodon", "bluesky", "discord"])
@pytest.mark.parametrize("kind", ["drop_after", "drop_before"])
def test_a_lost_answer_is_settled_without_a_person_and_without_a_copy(
    world: World, platform: str, kind: Any
) -> None:
    target = account(world, platform)
    world.stack.platforms.misbehave(platform, "create post", kind)

    post_id = world.schedule(target)
    world.run_until(lambda: world.delivery(post_id, target)["status"] == "success")

    (post,) = world.stack.platforms.posts(platform)
    assert world.delivery(post_id, target)["remoteId"] == post.id
    assert world.letters() == []


@pytest.mark.parametrize(
    ("platform", "age", "calls"),
    [
        # The call was lost; how old it is when somebody looks, and how often it was made then.
        ("discord", timedelta(seconds=50), 1),
        ("discord", timedelta(seconds=70), 2),
        ("discord", timedelta(seconds=125), 1),
        ("mastodon", timedelta(seconds=80), 1),
        ("mastodon", timedelta(seconds=100), 2),
        ("mastodon", timedelta(minutes=51), 1),
    ],
)
def test_a_key_is_used_again_inside_its_window_alone(
    world: World, platform: str, age: timedelta, calls: int
) -> None:
    target = account(world, platform)
    world.stack.tasks.faults.lose_task(times=None)
    world.stack.platforms.misbehave(platform, "create post", "drop_before")
    post_id = world.schedule(target)
    world.deliver(post_id, target)
    since = datetime.fromisoformat(world.delivery(post_id, target)["evidence"]["unsettledSince"])

    world.stack.clock.turn_to(since + age)
    world.deliver(post_id, target)

    assert len(world.stack.platforms.calls(platform, "find post")) == 1
    assert len(world.stack.platforms.calls(platform, "create post")) == calls
    assert world.delivery(post_id, target)["status"] == ("success" if calls == 2 else "unknown")


@pytest.mark.parametrize(
    ("platform", "user_id"), [("discord", "webhook:2233"), ("telegram", "@acme_bread")]
)
def test_where_nothing_can_be_looked_up_a_lost_answer_is_left_to_a_person(
    world: World, platform: str, user_id: str
) -> None:
    target = world.account(platform, user_id=user_id)
    world.stack.platforms.misbehave(platform, "create post", "drop_before")

    post_id = world.schedule(target)
    world.stack.settle()

    shown = world.delivery(post_id, target)
    assert (shown["status"], shown["nextRetryAt"]) == ("unknown", None)
    assert len(world.stack.platforms.calls(platform, "create post")) == 1
    assert target.access_token not in str(world.stack.events())
