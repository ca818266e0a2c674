"""An unanswered call is looked into: found is success, not found is never sent again by itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.world import Account, World

ORGANIZATION = "urn:li:organization:77"


@pytest.mark.parametrize(("platform", "user_id"), [("twitter", None), ("linkedin", ORGANIZATION)])
@pytest.mark.parametrize("lost", ["drop_after", "error_after", "garbage", "no_id"])
def test_a_post_that_was_taken_and_not_answered_is_found(
    world: World, platform: str, user_id: str | None, lost: str
) -> None:
    account = world.account(platform, user_id=user_id)
    world.stack.platforms.misbehave(platform, "create post", lost)

    post_id = world.schedule(account)
    world.stack.settle()
    before = world.delivery(post_id, account)
    world.run_until(lambda: world.delivery(post_id, account)["status"] == "success")

    assert before["status"] == "unknown"
    [post] = world.stack.platforms.posts(platform)
    after = world.delivery(post_id, account)
    assert after["remoteId"] == post.id
    assert world.status(post_id)["status"] == "published"
    [owner] = world.stack.records("remoteIds").values()
    assert owner["deliveryId"] == after["deliveryId"]


def test_a_post_that_was_never_taken_stays_unknown_and_is_not_sent_again(world: World) -> None:
    account = world.account("twitter")
    world.stack.platforms.misbehave("twitter", "create post", "error_before", status=502)

    post_id = world.schedule(account)
    closed = world.stack.events("delivery.unknown")
    for _ in range(40):
        world.stack.turn(timedelta(minutes=1))

    delivery = world.delivery(post_id, account)
    assert closed == []
    assert delivery["status"] == "unknown"
    assert delivery["nextRetryAt"] is None
    assert len(world.stack.platforms.calls("twitter", "create post")) == 1
    assert len(world.stack.platforms.calls("twitter", "find post")) == 7
    assert [a["code"] for a in delivery["attempts"][1:]] == ["not_found"] * 7
    assert len(world.stack.events("delivery.unknown")) == 1
    assert world.status(post_id)["status"] == "failed"
    assert world.letters() == []


@pytest.mark.parametrize("gone", ["revoked", "disconnected"])
def test_looking_goes_on_when_the_account_is_connected_again(world: World, gone: str) -> None:
    account = world.account("twitter", refreshToken=None)
    world.stack.platforms.misbehave("twitter", "create post", "drop_after")
    post_id = world.schedule(account)
    world.stack.settle()
    if gone == "revoked":
        world.stack.platforms.revoke(account.access_token)
    else:
        body = {"companyId": "acme", "accountId": account.id}
        assert world.call("/accounts/disconnect", body).status_code == 200

    for _ in range(4):
        world.stack.turn(timedelta(minutes=1))
    without_token = world.delivery(post_id, account)
    world.stack.platforms.add_account("twitter", account.user_id, "newer")
    world.connect(account, accessToken="newer", refreshToken=None)
    world.run_until(lambda: world.status(post_id)["status"] == "published")

    code = {"revoked": "auth_expired", "disconnected": "account_disconnected"}[gone]
    assert (without_token["status"], without_token["errorCode"]) == ("unknown", code)
    assert without_token["nextRetryAt"] is not None
    assert len(world.stack.platforms.posts("twitter")) == 1
    assert world.delivery(post_id, account)["status"] == "success"


def test_looking_goes_on_when_our_own_credentials_are_refused_for_a_while(world: World) -> None:
    account, platforms = world.account("twitter"), world.stack.platforms
    platforms.misbehave("twitter", "create post", "drop_after")
    post_id = world.schedule(account)
    world.stack.settle()
    token = platforms.twitter.tokens[account.access_token]
    token.expires_at = platforms.clock.now()
    refused = {"error": "unauthorized_client"}
    platforms.misbehave("twitter", "refresh", "refuse", times=2, status=401, body=refused)

    world.stack.turn(timedelta(minutes=1))
    without_token = world.delivery(post_id, account)
    world.run_until(lambda: world.status(post_id)["status"] == "published")

    told = (without_token["status"], without_token["errorCode"])
    assert told == ("unknown", "unauthorized_client")
    assert without_token["nextRetryAt"] is not None
    assert world.delivery(post_id, account)["status"] == "success"
    assert len(platforms.posts("twitter")) == 1


def _unlooked(world: World, account: Account, lost: str, **more: Any) -> str:
    """A post whose call was never answered, and whose account lost its token before anyone could
    look; the half hour is over."""
    world.stack.platforms.misbehave(account.platform, "create post", lost)
    post_id = world.schedule(account, **more)
    world.stack.settle()
    world.stack.platforms.revoke(account.access_token)
    for _ in range(35):
        world.stack.turn(timedelta(minutes=1))
    delivery = world.delivery(post_id, account)
    assert (delivery["status"], delivery["errorCode"]) == ("unknown", "auth_expired")
    assert delivery["nextRetryAt"] is None
    return post_id


def _reconnect(world: World, account: Account, **more: Any) -> list[str]:
    """With a token that is good; which deliveries are looked for again."""
    world.stack.platforms.add_account(account.platform, account.user_id, "newer")
    answer = world.connect(account, accessToken="newer", refreshToken=None, **more)
    assert answer.status_code == 200, answer.text
    world.stack.settle()
    looking: list[str] = answer.json()["lookingAgain"]
    return looking


def test_connecting_again_looks_again_for_what_nobody_could_look_for(world: World) -> None:
    account = world.account("twitter", refreshToken=None)
    post_id = _unlooked(world, account, "drop_after")

    looking = _reconnect(world, account)

    after = world.delivery(post_id, account)
    [post] = world.stack.platforms.posts("twitter")
    assert looking == [after["deliveryId"]]
    assert (after["status"], after["remoteId"]) == ("success", post.id)
    assert len(world.stack.platforms.calls("twitter", "create post")) == 1
    assert world.status(post_id)["status"] == "published"


def test_looking_again_ends_where_nothing_is_found_and_sends_nothing(world: World) -> None:
    account = world.account("twitter", refreshToken=None)
    post_id = _unlooked(world, account, "drop_before")

    first = _reconnect(world, account)
    in_between = _reconnect(world, account)
    for _ in range(35):
        world.stack.turn(timedelta(minutes=1))
    second = _reconnect(world, account)

    delivery = world.delivery(post_id, account)
    assert (first, in_between, second) == ([delivery["deliveryId"]], [], [])
    assert (delivery["status"], delivery["errorCode"]) == ("unknown", "not_found")
    assert delivery["nextRetryAt"] is None
    assert len(world.stack.platforms.calls("twitter", "create post")) == 1
    assert len(world.stack.platforms.calls("twitter", "find post")) <= 8  # one of them refused
    assert world.stack.platforms.posts("twitter") == []


def test_looking_again_repeats_the_very_same_call_where_that_is_the_look(world: World) -> None:
    account = world.account("bluesky", refreshToken=None, server="bread.example")
    post_id = _unlooked(world, account, "drop_before")

    _reconnect(world, account, server="bread.example")

    first, *_, last = world.stack.platforms.calls("bluesky", "create post")
    assert world.delivery(post_id, account)["status"] == "success"
    assert first.json() == last.json()
    assert len(world.stack.platforms.posts("bluesky")) == 1


def test_nothing_is_looked_for_again_past_the_latest_time(world: World) -> None:
    account = world.account("twitter", refreshToken=None)
    latest = world.stack.clock.now() + timedelta(minutes=50)
    post_id = _unlooked(world, account, "drop_after", latestAt=latest.isoformat())
    world.stack.clock.turn(timedelta(minutes=20))

    looking = _reconnect(world, account)

    assert looking == []
    assert world.delivery(post_id, account)["status"] == "unknown"


def test_a_person_who_takes_the_risk_sends_it_again(world: World) -> None:
    account = world.account("linkedin")
    world.stack.platforms.misbehave("linkedin", "create post", "error_before", status=502)
    post_id = world.schedule(account)
    world.stack.settle()

    refused = world.retry(post_id, account)
    again = world.retry(
        post_id, account, acceptDuplicateRisk=True, reason="It is not on the profile."
    )
    world.stack.settle()

    assert refused.status_code == 409
    assert again.status_code == 200
    assert world.delivery(post_id, account)["status"] == "success"
    assert len(world.stack.platforms.posts("linkedin")) == 1


def test_what_a_person_sent_again_and_the_platform_names_as_its_own_is_success(
    world: World,
) -> None:
    account = world.account("linkedin")
    world.stack.platforms.misbehave("linkedin", "create post", "drop_after")
    post_id = world.schedule(account)
    world.stack.settle()

    world.retry(post_id, account, acceptDuplicateRisk=True, reason="Nobody sees it.")
    world.stack.settle()

    [post] = world.stack.platforms.posts("linkedin")
    delivery = world.delivery(post_id, account)
    assert delivery["status"] == "success"
    assert delivery["remoteId"] == post.id


def test_a_post_of_another_delivery_is_no_evidence(world: World) -> None:
    account = world.account("twitter")
    first = world.schedule(account, content="The same words")
    world.stack.settle()
    world.stack.platforms.twitter.duplicate_window = timedelta(0)
    world.stack.platforms.misbehave("twitter", "create post", "error_before", status=502)

    second = world.schedule(account, content="The same words")
    for _ in range(35):
        world.stack.turn(timedelta(minutes=1))

    assert world.delivery(first, account)["status"] == "success"
    assert world.delivery(second, account)["status"] == "unknown"
    assert len(world.stack.platforms.posts("twitter")) == 1


def test_a_lookup_that_is_throttled_waits_and_goes_on(world: World) -> None:
    account = world.account("twitter")
    world.stack.platforms.misbehave("twitter", "create post", "drop_after")
    world.stack.platforms.misbehave("twitter", "find post", "throttle", seconds=120)

    post_id = world.schedule(account)
    world.stack.settle()
    world.run_until(lambda: world.delivery(post_id, account)["status"] == "success")

    assert len(world.stack.platforms.posts("twitter")) == 1
