"""Tokens are renewed ahead of their end, and what falls after one that cannot be is foretold."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.world import COMPANY, Account, World

SOON = timedelta(minutes=29)
LATER = timedelta(minutes=40)


def test_what_ends_within_half_an_hour_is_refreshed_and_nothing_else(world: World) -> None:
    soon = world.account("twitter", **ending(world, SOON))
    later = world.account("twitter", **ending(world, LATER))
    no_end = world.account("twitter")
    with_none = world.account("linkedin", refreshToken=None, **ending(world, SOON))

    done = world.refresh()

    assert done == {"success": True, "refreshed": 1, "expired": 0, "waiting": 0, "failed": 0}
    assert [version(world, one) for one in (soon, later, no_end, with_none)] == [2, 1, 1, 1]
    assert len(world.stack.platforms.calls("twitter", "refresh")) == 1
    [line] = world.stack.events("account.refreshed")
    assert line["accountId"] == soon.id


@pytest.mark.parametrize(
    ("platform", "ends_in"),
    [
        ("twitter", timedelta(minutes=5)),
        ("linkedin", timedelta(minutes=5)),
        ("bluesky", timedelta(minutes=5)),
        ("instagram", timedelta(days=6)),  # itself is exchanged: long before its end
    ],
)
def test_each_kind_of_token_is_refreshed_and_publishes(
    world: World, platform: str, ends_in: timedelta
) -> None:
    who = {"user_id": "did:plc:acme", "server": "bread.example"} if platform == "bluesky" else {}
    account = world.account(platform, **who, **ending(world, ends_in))
    world.stack.clock.turn(timedelta(hours=26) if platform == "instagram" else timedelta(0))

    done = world.refresh()
    images = [world.image()] if platform == "instagram" else []
    post_id = world.schedule(account, mediaAssetIds=images)
    world.run_until(lambda: world.status(post_id)["status"] == "published")

    assert done["refreshed"] == 1
    assert version(world, account) == 2
    assert len(world.stack.platforms.calls(platform, "refresh")) == 1
    assert record(world, account)["refreshAt"] > world.stack.clock.now()


def test_a_token_that_a_delivery_is_refreshing_is_left_to_it(world: World) -> None:
    twitter = world.account("twitter", **ending(world, -timedelta(minutes=1)))
    exchange = world.stack.platforms.misbehave("twitter", "refresh", "hold", after=True)
    post_id = world.schedule(twitter)
    exchange.wait_until_held()

    done = world.refresh()
    exchange.release()
    world.stack.settle()

    assert (done["refreshed"], done["waiting"]) == (0, 1)
    assert len(world.stack.platforms.calls("twitter", "refresh")) == 1
    assert version(world, twitter) == 2
    assert world.status(post_id)["status"] == "published"


def test_one_platform_that_is_down_keeps_no_other_from_being_refreshed(world: World) -> None:
    twitter = [world.account("twitter", **ending(world, SOON)) for _ in range(3)]
    linkedin = world.account("linkedin", **ending(world, SOON))
    world.stack.platforms.misbehave("twitter", "refresh", "error_before", times=None)

    done = world.refresh()

    assert (done["refreshed"], done["failed"]) == (1, 3)
    assert version(world, linkedin) == 2
    assert [record(world, one)["status"] for one in twitter] == ["active"] * 3
    assert len(world.stack.events("account.refresh_failed")) == 3


def test_a_refusal_ends_the_account_at_the_next_run(world: World) -> None:
    twitter = world.account("twitter", **ending(world, SOON))
    world.stack.platforms.revoke(twitter.refresh_token)

    first = world.refresh()
    between = record(world, twitter)["status"]
    world.stack.clock.turn(timedelta(minutes=15))
    second = world.refresh()
    third = world.refresh()

    assert (first["waiting"], second["expired"], third["expired"]) == (1, 1, 0)
    assert between == "active"
    assert record(world, twitter)["status"] == "expired"
    assert len(world.stack.events("account.expired")) == 1


def test_posts_after_a_tokens_end_are_foretold_and_reconnecting_ends_that(world: World) -> None:
    ends = ending(world, timedelta(days=3))
    lost = world.account("linkedin", refreshToken=None, **ends)
    kept = world.account("twitter", **ends)
    world.schedule(lost, kept, after=timedelta(days=2))
    doomed = world.schedule(lost, kept, after=timedelta(days=4))

    before = forecast(world)
    world.connect(lost, **ending(world, timedelta(days=60)))
    after = forecast(world)

    [told] = before
    [delivery] = told["deliveries"]
    assert (told["accountId"], told["status"], told["more"]) == (lost.id, "active", False)
    assert told["tokenExpiresAt"] == ends["expiresAt"]
    assert delivery["postId"] == doomed
    assert after == []


def test_an_expired_account_loses_all_that_is_due_and_that_is_foretold(world: World) -> None:
    linkedin = world.account("linkedin", refreshToken=None)
    waiting = world.schedule(linkedin, after=timedelta(days=2))
    world.stack.platforms.revoke(linkedin.access_token)
    world.schedule(linkedin)
    world.stack.settle()

    [told] = forecast(world)

    assert (told["accountId"], told["status"]) == (linkedin.id, "expired")
    assert [one["postId"] for one in told["deliveries"]] == [waiting]


def test_forecasts_come_page_by_page(world: World) -> None:
    ends = ending(world, timedelta(days=1))
    accounts = [world.account("linkedin", refreshToken=None, **ends) for _ in range(3)]
    for account in accounts:
        world.schedule(account, after=timedelta(days=2))

    told = []
    page = forecast_page(world, limit=2)
    while page["nextCursor"]:
        told += page["accounts"]
        page = forecast_page(world, limit=2, cursor=page["nextCursor"])
    told += page["accounts"]

    assert sorted(one["accountId"] for one in told) == sorted(one.id for one in accounts)


def test_a_day_that_holds_as_many_posts_as_the_platform_takes_is_a_warning(world: World) -> None:
    """A tier of its own: three posts a day."""
    twitter = world.account("twitter", limits={"dailyPosts": 3})
    at = world.stack.clock.now() + timedelta(days=2)
    hours = (0, 8, 16)
    quiet = [warnings(world, twitter, at + timedelta(hours=hour)) for hour in hours]

    full = warnings(world, twitter, at + timedelta(hours=20))
    room = warnings(world, twitter, at + timedelta(hours=60))

    assert quiet == [[], [], []]
    assert full == ["daily_cap_reached"]
    assert room == []


def test_each_part_of_a_thread_counts_against_the_cap(world: World) -> None:
    twitter = world.account("twitter", limits={"dailyPosts": 5})
    at = world.stack.clock.now() + timedelta(days=2)
    hours = [at + timedelta(hours=hour) for hour in range(4)]

    first = warnings(world, twitter, hours[0], parts=3)
    too_long = warnings(world, twitter, hours[1] + timedelta(days=7), parts=6)
    no_room = warnings(world, twitter, hours[1], parts=3)
    room = warnings(world, world.account("twitter", limits={"dailyPosts": 5}), hours[1], parts=5)

    assert (first, room) == ([], [])
    assert (too_long, no_room) == (["daily_cap_reached"], ["daily_cap_reached"])


def test_a_thread_that_went_out_today_counts_with_each_of_its_parts(world: World) -> None:
    twitter = world.account("twitter", limits={"dailyPosts": 4})
    now = world.stack.clock.now()
    warnings(world, twitter, now, parts=3)
    world.stack.settle()

    one_more = warnings(world, twitter, now + timedelta(hours=1))
    full = warnings(world, twitter, now + timedelta(hours=2))

    assert len(world.stack.platforms.posts("twitter")) == 3
    assert (one_more, full) == ([], ["daily_cap_reached"])


def test_replies_have_a_cap_of_their_own_on_threads(world: World) -> None:
    threads = world.account("threads", limits={"dailyPosts": 2})
    at = world.stack.clock.now() + timedelta(days=2)
    hours = [at + timedelta(hours=hour) for hour in range(3)]

    told = [warnings(world, threads, hour, parts=3) for hour in hours]

    assert told == [[], [], ["daily_cap_reached"]]


def test_what_went_out_today_counts_against_the_cap(world: World) -> None:
    twitter = world.account("twitter", limits={"dailyPosts": 2})
    for text in ("The first", "The second"):
        world.schedule(twitter, content=text)
    world.stack.settle()

    soon = warnings(world, twitter, world.stack.clock.now() + timedelta(hours=1))
    tomorrow = warnings(world, twitter, world.stack.clock.now() + timedelta(hours=25))

    assert soon == ["daily_cap_reached"]
    assert tomorrow == []


def test_a_post_beyond_the_cap_waits_as_the_platform_says_and_then_goes_out(world: World) -> None:
    twitter = world.account("twitter")
    world.stack.platforms.misbehave(
        "twitter", "create post", "throttle", seconds=6 * 3600, daily=True
    )

    post_id = world.schedule(twitter)
    world.stack.settle()
    waiting = world.delivery(post_id, twitter)
    world.stack.turn(timedelta(hours=6, minutes=1))

    assert (waiting["status"], waiting["attemptsSpent"]) == ("waiting", 0)
    assert world.status(post_id)["status"] == "published"


def ending(world: World, after: timedelta) -> dict[str, str]:
    return {"expiresAt": (world.stack.clock.now() + after).isoformat()}


def record(world: World, account: Account) -> dict[str, Any]:
    found = world.stack.record("socialAccounts", account.id)
    assert found is not None
    return found


def version(world: World, account: Account) -> int:
    number: int = record(world, account)["tokenVersion"]
    return number


def forecast_page(world: World, **query: Any) -> dict[str, Any]:
    path = "/accounts/forecast"
    answer = world.stack.get("schedule_post", path, companyId=COMPANY, **query)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


def forecast(world: World) -> Sequence[dict[str, Any]]:
    told: Sequence[dict[str, Any]] = forecast_page(world)["accounts"]
    return told


def warnings(world: World, account: Account, at: datetime, *, parts: int = 1) -> list[str]:
    """What is said of a post, or a thread of so many, that is scheduled for then."""
    thread = [{"content": f"Part {number}"} for number in range(2, parts + 1)]
    target = account.target | ({"thread": thread} if thread else {})
    order = world.order([], after=at, content=f"At {at}", platforms=[target])
    answer = world.call("/schedule", order)
    assert answer.status_code == 201, answer.text
    return [warning["code"] for warning in answer.json()["warnings"]]
