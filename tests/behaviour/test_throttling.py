"""One account's bad hour is nobody else's, and waiting because a platform said so is not trying."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.sandbox.platforms.values import Received
from tests.world import Account, World

# What throttles, in the platform's own words, and how long it then asks to wait.
IN_OWN_WORDS = [
    pytest.param("twitter", "create post", {"seconds": 900}, 900, id="x-rate-limit-reset"),
    pytest.param("linkedin", "create post", {}, 60, id="linkedin-does-not-say"),
    pytest.param("instagram", "create container", {"seconds": 900}, 900, id="meta-usage-header"),
]


@pytest.mark.parametrize(("platform", "call", "how", "wait"), IN_OWN_WORDS)
def test_a_throttle_delays_that_account_alone_and_spends_no_attempt(
    world: World, platform: str, call: str, how: dict[str, Any], wait: int
) -> None:
    throttled, other = world.account(platform), world.account(platform)
    world.stack.platforms.misbehave(platform, call, "throttle", when=of(throttled), **how)
    started = world.stack.clock.now()

    post_id = world.schedule(throttled, other, mediaAssetIds=[world.image()])
    world.stack.settle()
    waiting, sent = world.delivery(post_id, throttled), world.delivery(post_id, other)
    world.stack.turn(timedelta(seconds=wait - 20))
    still = world.delivery(post_id, throttled)
    world.stack.turn(timedelta(seconds=25))
    at_last = world.delivery(post_id, throttled)

    assert sent["status"] == "success"
    assert waiting["status"] == "waiting"
    assert waiting["attemptsSpent"] == 0
    paused_until = pause_of(world, throttled)
    assert timedelta(seconds=wait - 2) < paused_until - started < timedelta(seconds=wait + 10)
    assert pause_of(world, other) == datetime.fromtimestamp(0, UTC)
    assert still == waiting
    assert at_last["status"] == "success"
    assert [attempt["outcome"] for attempt in at_last["attempts"]] == ["throttled", "success"]
    assert at_last["attemptsSpent"] == 1
    assert len(world.stack.platforms.posts(platform)) == 2


def test_what_comes_due_on_a_throttled_account_waits_without_asking(world: World) -> None:
    twitter = world.account("twitter")
    world.stack.platforms.misbehave("twitter", "create post", "throttle", seconds=900)
    first = world.schedule(twitter, content="The first one")
    world.stack.settle()

    second = world.schedule(twitter, content="The second one")
    world.stack.settle()
    waiting = world.delivery(second, twitter)
    asked = len(world.stack.platforms.calls("twitter"))
    world.stack.turn(timedelta(seconds=905))
    world.run_until(
        lambda: all(world.status(post)["status"] == "published" for post in (first, second)),
        step=timedelta(seconds=5),
    )

    assert waiting["status"] == "waiting"
    assert waiting["attempts"] == []
    assert asked == 1
    assert len(world.stack.platforms.posts("twitter")) == 2


def test_a_pause_is_capped_at_a_day(world: World) -> None:
    twitter = world.account("twitter")
    five_days = 5 * 24 * 3600
    world.stack.platforms.misbehave("twitter", "create post", "throttle", seconds=five_days)
    started = world.stack.clock.now()

    post_id = world.schedule(twitter, latestAt=(started + timedelta(days=10)).isoformat())
    world.stack.settle()
    paused_until = pause_of(world, twitter)
    world.stack.turn(timedelta(days=1, seconds=5))

    assert timedelta(days=1) <= paused_until - started < timedelta(days=1, seconds=10)
    assert world.status(post_id)["status"] == "published"


def test_a_shorter_throttle_does_not_shorten_a_longer_one(world: World) -> None:
    twitter = world.account("twitter")
    platforms = world.stack.platforms
    late = platforms.misbehave(
        "twitter", "create post", "hold", when=lambda received: b"slow" in received.body
    )
    slow = world.schedule(twitter, content="A slow one")
    late.wait_until_held()
    platforms.misbehave("twitter", "create post", "throttle", seconds=3600)
    long = world.schedule(twitter, content="A throttled one")
    world.stack.until(lambda: world.delivery(long, twitter)["status"] == "waiting")
    before = pause_of(world, twitter)

    late.kind, late.how = "throttle", {"seconds": 60}
    late.release()
    world.stack.settle()

    assert world.delivery(slow, twitter)["status"] == "waiting"
    assert pause_of(world, twitter) == before


def test_a_limit_of_the_whole_app_holds_its_accounts_and_no_other_platform(world: World) -> None:
    one, other = world.account("twitter"), world.account("twitter")
    linkedin = world.account("linkedin")
    world.stack.platforms.misbehave(
        "twitter", "create post", "throttle", seconds=1800, daily=True, scope="platform"
    )
    first = world.schedule(one)
    world.stack.settle()

    second = world.schedule(other, linkedin)
    world.stack.settle()
    waiting = world.delivery(second, other)
    asked = len(world.stack.platforms.calls("twitter"))
    world.stack.turn(timedelta(seconds=1805))

    assert waiting["status"] == "waiting"
    assert asked == 1
    assert world.delivery(second, linkedin)["status"] == "success"
    assert world.status(first)["status"] == "published"
    assert world.status(second)["status"] == "published"


def test_a_wait_beyond_latest_at_ends_missed_then_with_one_dead_letter(world: World) -> None:
    twitter = world.account("twitter")
    world.stack.platforms.misbehave("twitter", "create post", "throttle", seconds=7200)
    latest = world.stack.clock.now() + timedelta(minutes=30)

    post_id = world.schedule(twitter, latestAt=latest.isoformat())
    world.stack.settle()
    waiting = world.delivery(post_id, twitter)
    world.stack.turn(timedelta(minutes=30, seconds=2))
    world.stack.turn(timedelta(hours=3))

    assert waiting["status"] == "waiting"
    assert datetime.fromisoformat(waiting["dueAt"]) == latest
    assert world.delivery(post_id, twitter)["status"] == "missed"
    [letter] = world.letters()
    assert (letter["reason"], letter["status"]) == ("missed", "open")
    assert timedelta(0) <= letter["createdAt"] - latest < timedelta(minutes=1)
    assert world.stack.platforms.posts("twitter") == []


def test_an_upload_that_the_platform_forgot_while_we_waited_is_made_again(world: World) -> None:
    twitter = world.account("twitter")
    world.stack.platforms.misbehave(
        "twitter", "create post", "throttle", seconds=24 * 3600, daily=True
    )
    latest = world.stack.clock.now() + timedelta(days=3)

    post_id = world.schedule(twitter, latestAt=latest.isoformat(), mediaAssetIds=[world.image()])
    world.stack.settle()
    world.stack.platforms.add_account(
        "twitter", twitter.user_id, "token-of-tomorrow", expires_in=timedelta(days=3)
    )
    reconnected = world.connect(twitter, accessToken="token-of-tomorrow")
    world.stack.turn(timedelta(days=1, seconds=5))

    assert reconnected.status_code == 200
    assert world.status(post_id)["status"] == "published"
    assert len(world.stack.platforms.calls("twitter", "upload")) == 2


def of(account: Account) -> Callable[[Received], bool]:
    return lambda received: received.token == account.access_token


def pause_of(world: World, account: Account) -> datetime:
    record = world.stack.record("socialAccounts", account.id)
    assert record is not None
    return datetime.fromtimestamp(record["pausedUntil"] / 1000, UTC)
