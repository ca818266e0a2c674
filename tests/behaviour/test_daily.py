"""Each day of an account's engagement: made once, of what was read, whatever happens meanwhile."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest

from shared.domain import keys
from tests.sandbox.firestore_proxy import FirestoreCall
from tests.world import COMPANY, Account, World

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def midnight(world: World) -> datetime:
    """The last midnight; it is an hour past it."""
    today = world.stack.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    world.stack.clock.turn_to(today + DAY + HOUR)
    return today + DAY


def test_yesterday_is_made_of_what_syncs_have_read(world: World) -> None:
    x = world.account("twitter")
    world.schedule(x)
    world.stack.settle()
    [post] = world.stack.platforms.posts("twitter")
    world.stack.platforms.count("twitter", post.id, like_count=3, impression_count=70)
    world.stack.post("sync_analytics", "/", {"idempotencyKey": "k"})
    world.stack.settle()
    day = world.stack.clock.now().date()
    world.stack.clock.turn(DAY)

    done = world.stack.scheduler.fire("aggregate").json()

    assert (done["finished"], done["days"], done["accounts"]) == (True, 1, 1)
    [made] = world.stack.records("dailyMetrics").values()
    assert (made["companyId"], made["accountId"], made["platform"]) == (COMPANY, x.id, "twitter")
    assert (made["day"], made["posts"], made["published"]) == (day.isoformat(), 1, 1)
    assert (made["totals"]["likes"], made["gained"]["impressions"]) == (3, 70)
    assert "clicks" not in made["totals"]


def test_made_again_it_is_the_same_and_a_day_that_stands_costs_one_read(
    world: World, midnight: datetime
) -> None:
    accounts = seeded(world, 2)
    readings(world, accounts[0], midnight, {-30: 5, -3: 9, 0.5: 90})
    aggregate(world)
    first = made(world)
    before = world.stack.proxy.counts("maintain")

    again = aggregate(world)
    spent = world.stack.proxy.counts("maintain") - before
    world.stack.db.document("locks", "daily-metrics").delete()
    aggregate(world)

    assert (again["days"], again["finished"], spent.documents_read) == (0, True, 1)
    assert first == made(world) == {(accounts[0].id, -1): ({"likes": 9}, {"likes": 4})}


def test_days_that_nobody_made_are_made_later(world: World, midnight: datetime) -> None:
    [x] = seeded(world, 1)
    readings(world, x, midnight, {-20: 1})
    aggregate(world)
    world.stack.clock.turn(3 * DAY)
    readings(world, x, midnight, {12: 4, 60: 6})

    done = aggregate(world)

    assert done["days"] == 3
    assert {day: totals["likes"] for (_, day), (totals, _) in made(world).items()} == {
        -1: 1,
        0: 4,
        2: 6,
    }


@pytest.mark.parametrize(("commit", "landed"), [(1, True), (2, False), (3, True)])
def test_a_run_killed_at_a_commit_is_followed_by_one_that_goes_on(
    world: World, midnight: datetime, commit: int, landed: bool
) -> None:
    accounts = seeded(world, 120)  # 50 to a commit
    for account in (accounts[0], accounts[60], accounts[119]):
        readings(world, account, midnight, {-3: 7})
    [process] = world.stack.processes["maintain"]
    numbers = itertools.count(1)

    def kill(call: FirestoreCall) -> None:
        if call.caller == "maintain" and next(numbers) == commit:
            process.kill_worker()

    world.stack.proxy.on_call(kill, "Commit", after=landed)
    answer = world.stack.post("maintain", "/aggregate", {}, role="scheduler")
    done = aggregate(world)

    assert answer.status_code >= 500
    assert done["finished"] is True
    assert {name for name, _ in made(world)} == {accounts[n].id for n in (0, 60, 119)}
    assert (world.stack.record("locks", "daily-metrics") or {})["done"] is True


def test_two_runs_at_once_make_a_day_once(world: World, midnight: datetime) -> None:
    accounts = seeded(world, 60)
    readings(world, accounts[0], midnight, {-3: 7})

    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: aggregate(world), range(2)))
    aggregate(world)

    assert sum(run["days"] for run in runs) <= 1
    assert made(world) == {(accounts[0].id, -1): ({"likes": 7}, {"likes": 7})}


def aggregate(world: World) -> dict[str, Any]:
    answer = world.stack.post("maintain", "/aggregate", {}, role="scheduler")
    assert answer.status_code == 200, answer.text
    done: dict[str, Any] = answer.json()
    return done


def seeded(world: World, accounts: int) -> list[Account]:
    """One connected account and copies of its record, in the order of their ids."""
    first = world.account("twitter")
    known = world.stack.record("socialAccounts", first.id) or {}
    more = [
        Account(f"{first.id}-{number:03}", "twitter", "1", "none", "none")
        for number in range(1, accounts)
    ]
    world.put("socialAccounts", {account.id: known for account in more})
    return [first, *more]


def readings(world: World, account: Account, midnight: datetime, likes: dict[float, int]) -> None:
    """What syncs read of the account's one post, by hours after midnight."""
    post = world.stack.db.document("postMetrics", f"d-{account.id}")
    for hours, number in likes.items():
        at = midnight + hours * HOUR
        about = {
            "deliveryId": post.id,
            "postId": "p",
            "companyId": COMPANY,
            "platform": "twitter",
            "accountId": account.id,
            "remoteId": "1",
            "publishedAt": midnight - 2 * DAY + 12 * HOUR,
            "sourceAt": at,
            "fetchedAt": at,
            "syncId": "s",
            "fencingToken": 1,
            "metrics": {"likes": number},
            "createdAt": at,
            "updatedAt": at,
            "expireAt": at + 400 * DAY,
        }
        post.set({name: value for name, value in about.items() if name != "expireAt"})
        post.collection("snapshots").document(keys.snapshot_id(at)).set(about)


def made(world: World) -> dict[tuple[str, int], tuple[dict[str, int], dict[str, int]]]:
    """Totals and what was gained, by account and days from today (as it was at midnight)."""
    found = world.stack.records("dailyMetrics").values()
    first = min((one["day"] for one in found), default="")
    return {
        (one["accountId"], _days(first, one["day"]) - 1): (one["totals"], one["gained"])
        for one in found
    }


def _days(since: str, day: str) -> int:
    return (datetime.fromisoformat(day) - datetime.fromisoformat(since)).days
