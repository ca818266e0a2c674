"""A refused token: refreshed once, by one at a time, and never lost; refused for good, the account
is expired until its owner connects it again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from shared.jobs.refresh import AT_ONCE
from tests.world import Account, World


def test_a_refused_token_is_refreshed_once_and_the_post_goes_out(world: World) -> None:
    twitter = world.account("twitter")
    expire_access(world, twitter)

    first = world.schedule(twitter, content="With a token that has ended")
    world.stack.settle()
    second = world.schedule(twitter, content="With the newer one")
    world.stack.settle()

    assert world.status(first)["status"] == "published"
    assert world.status(second)["status"] == "published"
    assert len(world.delivery(first, twitter)["attempts"]) == 1
    [refresh] = world.stack.platforms.calls("twitter", "refresh")
    assert refresh.form()["refresh_token"] == twitter.refresh_token
    assert kept(world, twitter)["tokenVersion"] == 2
    assert len(world.stack.events("account.refreshed")) == 1


def test_a_token_refused_again_after_its_refresh_expires_the_account(world: World) -> None:
    twitter = world.account("twitter")
    world.stack.platforms.misbehave("twitter", "create post", "refuse", times=2, status=401)

    post_id = world.schedule(twitter)
    world.stack.settle()
    later = world.call("/schedule", world.order([twitter]))

    delivery = world.delivery(post_id, twitter)
    assert (delivery["status"], delivery["errorCode"]) == ("failed", "auth_expired")
    assert len(world.stack.platforms.calls("twitter", "refresh")) == 1
    assert kept(world, twitter)["status"] == "expired"
    [letter] = world.letters()
    assert (letter["reason"], letter["status"]) == ("auth_expired", "open")
    [line] = world.stack.events("account.expired")
    assert (line["severity"], line["accountId"]) == ("ERROR", twitter.id)
    assert (later.status_code, later.json()["code"]) == (422, "account_expired")


def test_a_refresh_refused_for_our_own_sake_is_a_failure_of_what_was_not_sent(
    world: World,
) -> None:
    twitter = world.account("twitter")
    platforms, refused = world.stack.platforms, {"error": "unauthorized_client"}
    platforms.misbehave("twitter", "create post", "refuse", status=401)
    platforms.misbehave("twitter", "refresh", "refuse", status=401, body=refused)

    post_id = world.schedule(twitter)
    world.stack.settle()

    delivery = world.delivery(post_id, twitter)
    assert (delivery["status"], delivery["errorCode"]) == ("failed", "unauthorized_client")
    assert kept(world, twitter)["status"] == "active"
    assert len(world.letters(reason="unauthorized_client")) == 1


def test_an_account_without_a_refresh_token_is_expired_at_once(world: World) -> None:
    linkedin = world.account("linkedin", refreshToken=None)
    world.stack.platforms.revoke(linkedin.access_token)

    post_id = world.schedule(linkedin)
    world.stack.settle()

    delivery = world.delivery(post_id, linkedin)
    assert (delivery["status"], delivery["errorCode"]) == ("failed", "auth_expired")
    assert kept(world, linkedin)["status"] == "expired"
    assert len(delivery["attempts"]) == 1
    assert len(world.letters(reason="auth_expired")) == 1
    assert len(world.stack.events("account.expired")) == 1


def test_a_refusal_is_on_record_though_the_account_cannot_be_expired(world: World) -> None:
    linkedin = world.account("linkedin", refreshToken=None)
    world.stack.platforms.revoke(linkedin.access_token)
    world.stack.proxy.refuse("Commit", when=expires_an_account, times=None)

    first = world.schedule(linkedin)
    world.stack.settle()
    account_then = kept(world, linkedin)["status"]
    world.stack.proxy.heal()
    second = world.schedule(linkedin)
    world.stack.settle()

    ends = [world.delivery(post_id, linkedin) for post_id in (first, second)]
    assert [(end["status"], end["errorCode"]) for end in ends] == [("failed", "auth_expired")] * 2
    assert (account_then, kept(world, linkedin)["status"]) == ("active", "expired")
    assert len(world.letters(reason="auth_expired")) == 2


def test_an_account_that_cannot_be_expired_keeps_no_other_from_being_refreshed(
    world: World,
) -> None:
    refused = world.account("twitter", expiresAt=soon(world))
    world.stack.platforms.revoke(refused.refresh_token)
    world.refresh()
    world.stack.clock.turn(timedelta(minutes=15))
    behind = [world.account("twitter", expiresAt=soon(world)) for _ in range(AT_ONCE)]
    world.stack.proxy.refuse("Commit", when=expires_an_account, times=None)

    first = world.refresh()
    world.stack.proxy.heal()
    second = world.refresh()

    assert (first["refreshed"], first["expired"], first["failed"]) == (AT_ONCE, 0, 1)
    assert [kept(world, one)["tokenVersion"] for one in behind] == [2] * AT_ONCE
    assert (second["refreshed"], second["expired"], second["failed"]) == (0, 1, 0)
    assert kept(world, refused)["status"] == "expired"


def test_what_comes_due_on_an_expired_account_fails_without_asking(world: World) -> None:
    linkedin = world.account("linkedin", refreshToken=None)
    later = world.schedule(linkedin, content="A later one", after=timedelta(hours=1))
    world.stack.platforms.revoke(linkedin.access_token)
    world.schedule(linkedin)
    world.stack.settle()
    waiting = world.delivery(later, linkedin)
    asked = len(world.stack.platforms.calls("linkedin"))

    world.stack.turn(timedelta(hours=1))

    assert waiting["status"] == "pending"
    assert world.delivery(later, linkedin)["errorCode"] == "auth_expired"
    assert len(world.stack.platforms.calls("linkedin")) == asked
    assert len(world.letters(reason="auth_expired", status="open")) == 2


def test_two_that_need_a_newer_token_at_once_lose_none_and_both_publish(world: World) -> None:
    twitter = world.account("twitter")
    expire_access(world, twitter)
    exchange = world.stack.platforms.misbehave("twitter", "refresh", "hold", after=True)

    first = world.schedule(twitter, content="The first")
    exchange.wait_until_held()
    second = world.schedule(twitter, content="The second")
    world.stack.until(lambda: world.delivery(second, twitter)["status"] == "waiting")
    snoozed = world.delivery(second, twitter)
    exchange.release()
    world.stack.settle()
    world.stack.turn(timedelta(seconds=4))

    assert snoozed["errorCode"] == "token_refreshing"
    assert snoozed["attemptsSpent"] == 0
    assert world.status(first)["status"] == "published"
    assert world.status(second)["status"] == "published"
    assert len(world.stack.platforms.calls("twitter", "refresh")) == 1
    assert kept(world, twitter)["tokenVersion"] == 2


def test_a_refresher_that_lost_its_lock_does_not_lose_the_only_token_there_is(
    world: World,
) -> None:
    """The platform has rotated: the second refresher is refused, the first one's answer counts."""
    twitter = world.account("twitter")
    expire_access(world, twitter)
    exchange = world.stack.platforms.misbehave("twitter", "refresh", "hold", after=True)
    first = world.schedule(twitter, content="The first")
    exchange.wait_until_held()
    world.stack.clock.turn(timedelta(seconds=31))

    second = world.schedule(twitter, content="The second")
    world.stack.until(lambda: world.delivery(second, twitter)["status"] == "waiting")
    refused, account_then = world.delivery(second, twitter), kept(world, twitter)
    exchange.release()
    world.stack.until(lambda: world.delivery(first, twitter)["status"] == "success")
    world.stack.turn(timedelta(seconds=35))

    assert refused["errorCode"] == "refresh_refused"
    assert account_then["status"] == "active"
    assert len(world.stack.platforms.calls("twitter", "refresh")) == 2
    assert world.status(second)["status"] == "published"
    assert kept(world, twitter)["status"] == "active"
    assert world.stack.events("account.expired") == []


def test_a_refused_refresh_expires_the_account_one_lock_length_later(world: World) -> None:
    """Other deliveries that come due meanwhile neither hasten the end nor put it off."""
    twitter = world.account("twitter")
    world.stack.platforms.revoke(twitter.access_token)
    world.stack.platforms.revoke(twitter.refresh_token)

    first = world.schedule(twitter, content="The first")
    world.stack.settle()
    world.stack.clock.turn(timedelta(seconds=20))
    second = world.schedule(twitter, content="The second")
    world.stack.settle()
    waiting = [world.delivery(first, twitter), world.delivery(second, twitter)]
    account_then = kept(world, twitter)
    world.stack.turn(timedelta(seconds=13))
    account_after = kept(world, twitter)
    world.stack.turn(timedelta(seconds=20))

    assert [(one["status"], one["attemptsSpent"]) for one in waiting] == [("waiting", 0)] * 2
    assert account_then["status"] == "active"
    assert account_after["status"] == "expired"
    for post_id in (first, second):
        delivery = world.delivery(post_id, twitter)
        assert (delivery["status"], delivery["errorCode"]) == ("failed", "auth_expired")
    assert len(world.letters(reason="auth_expired")) == 2
    assert len(world.stack.events("account.expired")) == 1


def test_a_refreshed_token_is_kept_though_a_throttle_is_written_at_the_same_moment(
    world: World,
) -> None:
    twitter = world.account("twitter")
    platforms = world.stack.platforms
    platforms.misbehave(
        "twitter", "create post", "refuse", status=401, when=lambda r: b"refused" in r.body
    )
    platforms.misbehave(
        "twitter", "create post", "throttle", seconds=900, when=lambda r: b"throttled" in r.body
    )
    storing = world.stack.proxy.hold("Commit", when=stores_tokens)

    first = world.schedule(twitter, content="The one whose token is refused")
    storing.arrived()
    second = world.schedule(twitter, content="The one that is throttled")
    world.stack.until(lambda: world.delivery(second, twitter)["status"] == "waiting")
    storing.open()
    world.stack.settle()
    world.stack.turn(timedelta(seconds=905))

    account = kept(world, twitter)
    assert account["tokenVersion"] == 2
    assert account["pausedUntil"] > 0
    assert world.status(first)["status"] == "published"
    assert world.status(second)["status"] == "published"
    assert len(platforms.calls("twitter", "refresh")) == 1


def test_connecting_again_revives_the_account_and_sends_what_is_not_too_late(
    world: World,
) -> None:
    linkedin = world.account("linkedin", refreshToken=None)
    world.stack.platforms.revoke(linkedin.access_token)
    due = world.stack.clock.now() + timedelta(minutes=5)
    soon = (due + timedelta(minutes=10)).isoformat()
    in_time = world.schedule(linkedin, content="Still in time", after=due)
    too_late = world.schedule(linkedin, content="Too late by then", after=due, latestAt=soon)
    world.stack.turn(timedelta(minutes=5))
    world.stack.clock.turn(timedelta(minutes=11))

    world.stack.platforms.add_account("linkedin", linkedin.user_id, "a-new-token")
    answer = world.connect(linkedin, accessToken="a-new-token")
    world.stack.settle()

    assert answer.json()["status"] == "active"
    assert answer.json()["redriven"] == [world.delivery(in_time, linkedin)["deliveryId"]]
    assert world.status(in_time)["status"] == "published"
    assert world.delivery(too_late, linkedin)["status"] == "failed"
    assert [post.text for post in world.stack.platforms.posts("linkedin")] == ["Still in time"]
    assert len(world.letters(status="redriven")) == 1
    assert len(world.letters(status="open")) == 1


def test_connecting_again_while_a_refresh_is_under_way_wins(world: World) -> None:
    twitter = world.account("twitter")
    expire_access(world, twitter)
    exchange = world.stack.platforms.misbehave("twitter", "refresh", "hold", after=True)
    post_id = world.schedule(twitter)
    exchange.wait_until_held()

    world.stack.platforms.add_account("twitter", twitter.user_id, "a-new-token", "and-its-refresh")
    world.connect(twitter, accessToken="a-new-token", refreshToken="and-its-refresh")
    exchange.release()
    world.stack.settle()

    [post] = world.stack.platforms.posts("twitter")
    assert post.headers["authorization"] == "Bearer a-new-token"
    assert world.status(post_id)["status"] == "published"
    assert kept(world, twitter)["tokenVersion"] == 2


def test_a_disconnected_account_publishes_nothing(world: World) -> None:
    twitter = world.account("twitter")
    post_id = world.schedule(twitter, after=timedelta(minutes=5))

    world.call("/accounts/disconnect", {"companyId": "acme", "accountId": twitter.id})
    world.stack.turn(timedelta(minutes=5))

    delivery = world.delivery(post_id, twitter)
    assert (delivery["status"], delivery["errorCode"]) == ("failed", "account_disconnected")
    assert world.stack.platforms.calls("twitter") == []
    assert kept(world, twitter)["sealedToken"] is None
    assert len(world.letters(reason="account_disconnected")) == 1


def expire_access(world: World, account: Account) -> None:
    """Its access token is refused from now on; the refresh token is good."""
    tokens = world.stack.platforms.twitter.tokens
    tokens[account.access_token].expires_at = world.stack.clock.now()


def soon(world: World) -> str:
    """When a token ends that is refreshed now."""
    return (world.stack.clock.now() + timedelta(minutes=29)).isoformat()


def kept(world: World, account: Account) -> dict[str, Any]:
    record = world.stack.record("socialAccounts", account.id)
    assert record is not None
    return record


def expires_an_account(request: Any) -> bool:
    return any(
        "/socialAccounts/" in write.update.name
        and write.update.fields["status"].string_value == "expired"
        for write in request.writes
        if "status" in write.update.fields
    )


def stores_tokens(request: Any) -> bool:
    return any(
        "/socialAccounts/" in write.update.name and "sealedToken" in write.update.fields
        for write in request.writes
        if write.HasField("current_document") and write.current_document.HasField("update_time")
    )
