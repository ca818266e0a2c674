"""Unknown outcomes on platforms that take a key: looked for, then repeated while that is safe."""

from __future__ import annotations

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
