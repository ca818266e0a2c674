"""Federated platforms: an account's own server and its own limits."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.world import Account, World


def mastodon(world: World, **more: object) -> Account:
    return world.account("mastodon", user_id="109348", server="bread.example", **more)


@pytest.mark.parametrize("server", [None, "10.0.0.1", "bread.example/x", "localhost"])
def test_an_account_without_a_proper_server_is_not_connected(
    world: World, server: str | None
) -> None:
    account = mastodon(world)

    answer = world.connect(account, accountId="another", server=server)

    assert answer.status_code == 422
    errors = [(error["field"], error["code"]) for error in answer.json()["errors"]]
    assert errors == [("server", "server_required")]


def test_a_post_goes_to_the_accounts_server(world: World) -> None:
    account = mastodon(world)

    post_id = world.schedule(account)
    world.stack.settle()

    (post,) = world.stack.platforms.posts("mastodon")
    assert post.fields["server"] == "bread.example"
    shown = world.delivery(post_id, account)
    assert shown["remoteUrl"] == f"https://bread.example/@acme/{post.id}"


def test_an_accounts_own_limits_are_read_and_hold_when_scheduling_and_editing(
    world: World,
) -> None:
    world.stack.platforms.mastodon.most_graphemes = 600
    account = mastodon(world)

    hour = timedelta(hours=1)
    refused = world.call("/schedule", world.order([account], after=hour, content="x" * 601))
    post_id = world.schedule(account, after=hour, content="x" * 600)
    edited = world.command("/edit", post_id, content="y" * 600)
    too_long = world.command("/edit", post_id, content="y" * 601)

    assert [error["code"] for error in refused.json()["errors"]] == ["text_too_long"]
    assert edited.status_code == 200
    assert [error["code"] for error in too_long.json()["errors"]] == ["text_too_long"]


def test_limits_that_are_given_win_and_those_that_cannot_be_read_are_kept(world: World) -> None:
    platforms = world.stack.platforms
    platforms.mastodon.most_graphemes = 600
    account = mastodon(world, limits={"mediaItems": 2})
    platforms.misbehave("mastodon", "read limits", "error_before")

    silent = world.connect(account, server="bread.example").json()
    told = world.connect(account, server="bread.example").json()

    assert (silent["limits"]["textChars"], silent["limits"]["mediaItems"]) == (600, 2)
    assert [warning["code"] for warning in silent["warnings"]] == ["limits_unread"]
    assert (told["limits"]["mediaItems"], told["warnings"]) == (4, [])


def test_a_daily_cap_is_the_accounts_own(world: World) -> None:
    world.stack.platforms.instagram.quota = 1
    account, media = world.account("instagram"), [world.image()]
    world.schedule(account, after=timedelta(hours=2), mediaAssetIds=media)

    order = world.order([account], after=timedelta(hours=3), mediaAssetIds=media)
    answer = world.call("/schedule", order)

    assert [warning["code"] for warning in answer.json()["warnings"]] == ["daily_cap_reached"]


def test_a_session_is_refreshed_at_the_accounts_server(world: World) -> None:
    account = world.account("bluesky", user_id="did:plc:acme", server="bread.example")
    world.stack.platforms.revoke(account.access_token)
    bluesky = world.stack.platforms.bluesky
    world.stack.platforms.add_account("bluesky", "did:plc:acme", "live", account.refresh_token)

    world.schedule(account)
    world.stack.settle()

    assert len(world.stack.platforms.posts("bluesky")) == 1
    (refresh,) = world.stack.platforms.calls("bluesky", "refresh")
    assert refresh.path == "/bread.example/xrpc/com.atproto.server.refreshSession"
    assert len(bluesky.records) == 1
