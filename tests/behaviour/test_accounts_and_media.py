"""Accounts: connected, sealed, disconnected, reconnected. Media: registered once."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from tests.world import JPEG, World

HOUR = timedelta(hours=1)


def test_a_token_is_kept_sealed_and_never_logged(world: World) -> None:
    twitter = world.account("twitter")
    world.schedule(twitter)
    world.stack.settle()

    kept = json.dumps(world.stack.records("socialAccounts"), default=str)
    said = json.dumps(world.stack.events(), default=str)

    assert len(world.stack.platforms.posts("twitter")) == 1
    for secret in (twitter.access_token, twitter.refresh_token, world.stack.secret):
        assert secret not in kept
        assert secret not in said
    assert "Hello from Acme" not in said


def test_connecting_again_brings_a_newer_token(world: World) -> None:
    twitter = world.account("twitter")
    world.stack.platforms.revoke(twitter.access_token)
    world.stack.platforms.add_account("twitter", twitter.user_id, "newer", "newer-refresh")

    answer = world.connect(twitter, accessToken="newer", refreshToken="newer-refresh")
    world.schedule(twitter)
    world.stack.settle()

    assert answer.json()["tokenVersion"] == 2
    assert len(world.stack.platforms.posts("twitter")) == 1


def test_an_account_id_of_another_company_is_refused(world: World) -> None:
    twitter = world.account("twitter")
    before = world.stack.record("socialAccounts", twitter.id)

    answer = world.connect(twitter, companyId="umbrella")

    assert answer.status_code == 409
    assert answer.json()["code"] == "account_exists"
    assert world.stack.record("socialAccounts", twitter.id) == before


def test_an_unknown_platform_cannot_be_connected(world: World) -> None:
    answer = world.connect(world.account("twitter"), platform="friendster", accountId="f-1")

    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["platform"]
    assert world.stack.record("socialAccounts", "f-1") is None


def test_what_comes_due_for_a_disconnected_account_fails_and_reconnecting_lets_it_be_retried(
    world: World,
) -> None:
    twitter = world.account("twitter")
    post_id = world.schedule(twitter, after=HOUR)
    gone = world.call("/accounts/disconnect", {"companyId": "acme", "accountId": twitter.id})
    world.stack.turn(HOUR)
    failed = world.delivery(post_id, twitter)
    account = world.stack.record("socialAccounts", twitter.id)

    world.connect(twitter)
    retried = world.retry(post_id, twitter)
    world.stack.settle()

    assert (gone.status_code, gone.json()["status"]) == (200, "disabled")
    assert account is not None
    assert account["sealedToken"] is None
    assert (failed["status"], failed["errorCode"]) == ("failed", "account_disconnected")
    assert len(world.letters(reason="account_disconnected")) == 1
    assert retried.status_code == 200
    assert len(world.stack.platforms.posts("twitter")) == 1


def test_nobody_disconnects_another_companys_account(world: World) -> None:
    twitter = world.account("twitter")

    answer = world.call("/accounts/disconnect", {"companyId": "umbrella", "accountId": twitter.id})

    assert answer.status_code == 404
    account = world.stack.record("socialAccounts", twitter.id)
    assert account is not None
    assert account["status"] == "active"


def test_reconnecting_sends_again_what_failed_for_want_of_a_token(world: World) -> None:
    linkedin = world.account("linkedin", refreshToken=None)
    now = world.stack.clock.now()
    latest = (now + 2 * HOUR).isoformat()
    late = world.schedule(linkedin, content="Too late", after=HOUR, latestAt=latest)
    failed = world.schedule(linkedin, content="In time", after=HOUR)
    world.stack.platforms.revoke(linkedin.access_token)
    world.stack.turn(HOUR)
    world.stack.platforms.add_account("linkedin", linkedin.user_id, "newer")
    world.stack.turn(2 * HOUR)

    answer = world.connect(linkedin, accessToken="newer", refreshToken=None)
    world.stack.settle()

    assert world.delivery(late, linkedin)["errorCode"] == "auth_expired"
    assert answer.json()["redriven"] == [world.delivery(failed, linkedin)["deliveryId"]]
    assert [post.text for post in world.stack.platforms.posts("linkedin")] == ["In time"]
    assert {one["status"] for one in world.letters()} == {"open", "redriven"}


def test_registering_the_same_asset_again_changes_nothing(world: World) -> None:
    asset_id = world.image("one.jpg")
    before = world.stack.record("mediaAssets", asset_id)

    world.media(asset_id, "gs://tendsocial-media/one.jpg")

    assert world.stack.record("mediaAssets", asset_id) == before


@pytest.mark.parametrize("other", [{"uri": "https://cdn.example/two.jpg"}, {"companyId": "umbra"}])
def test_another_asset_under_the_same_id_is_refused(world: World, other: dict[str, str]) -> None:
    asset_id = world.image("one.jpg")
    same = {
        "companyId": "acme",
        "mediaAssetId": asset_id,
        "uri": "gs://tendsocial-media/one.jpg",
        "contentType": "image/jpeg",
        "sizeBytes": len(JPEG),
    }

    answer = world.call("/media", same | other)

    assert answer.status_code == 409
    assert answer.json()["code"] == "asset_exists"


@pytest.mark.parametrize(
    "uri", ["http://cdn.example/a.jpg", "ftp://cdn.example/a.jpg", "gs://bucket", "/etc/passwd"]
)
def test_an_address_that_is_neither_https_nor_in_a_bucket_is_refused(
    world: World, uri: str
) -> None:
    body = {"companyId": "acme", "mediaAssetId": "asset-1", "uri": uri, "contentType": "image/jpeg"}

    answer = world.call("/media", body)

    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == ["uri"]
    assert world.stack.records("mediaAssets") == {}
