"""After a throttle or an outage one account's backlog goes out one by one; others do not wait."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise

from shared.domain import leases, retries
from tests.world import Account, World

SPACING = retries.policy("twitter").spacing
PROMPT = SPACING / timedelta(milliseconds=1)  # in ms: no turn of another account was waited for


def sent(world: World, account: Account) -> list[str]:
    """The texts of an account's posts, in the order in which they came."""
    posts = world.stack.platforms.posts("twitter")
    return [post.text for post in posts if post.account == account.user_id]


def assert_one_by_one(world: World, account: Account, posts: Sequence[str]) -> None:
    """Each had a turn of its own, and was not sent before it. When it then arrived is a matter of
    how long the machine took."""
    logs = [log for log in world.stack.records("publishLogs").values() if log["postId"] in posts]
    turns = sorted(log["dueAt"] for log in logs)
    arrived = sorted(
        post.at
        for post in world.stack.platforms.posts("twitter")
        if post.account == account.user_id
    )

    assert len(turns) == len(arrived) == len(posts)
    assert all(b - a >= SPACING - leases.EARLY for a, b in pairwise(turns))
    assert all(at >= turn - leases.EARLY for at, turn in zip(arrived, turns, strict=True))


def test_a_backlog_that_only_the_sweep_finds_is_spaced_too_oldest_first(world: World) -> None:
    """An outage of hours outlasts every task: what comes due meanwhile, the sweep wakes at once."""
    account, calm = world.account("twitter"), world.account("twitter")
    world.stack.tasks.faults.lose_task(times=None)
    posts = [
        world.schedule(account, after=timedelta(minutes=minutes), content=f"After {minutes}")
        for minutes in (70, 50, 60)
    ]
    soon = (world.stack.clock.now() + timedelta(hours=2)).isoformat()
    late = world.schedule(account, after=timedelta(minutes=40), content="Too late", latestAt=soon)
    world.stack.turn(timedelta(hours=4))
    world.stack.tasks.faults.clear()

    swept = world.sweep()
    other = world.schedule(calm)
    world.run_until(lambda: len(sent(world, account)) == 3, step=SPACING / 2)

    assert (swept["woken"], swept["ended"]) == (3, 1)
    assert sent(world, account) == ["After 50", "After 60", "After 70"]
    assert_one_by_one(world, account, posts)
    assert world.delivery(late, account)["status"] == "missed"
    assert world.delivery(other, calm)["attempts"][0]["latenessMs"] < PROMPT


def test_a_throttled_accounts_backlog_is_spaced_and_spends_no_attempts(world: World) -> None:
    busy, calm = world.account("twitter"), world.account("twitter")
    world.stack.platforms.misbehave("twitter", "create post", "throttle", seconds=600)

    posts = [world.schedule(busy, content="Post 0")]
    world.stack.settle()  # the throttle strikes this one, and is on record
    posts += [world.schedule(busy, content=f"Post {number}") for number in range(1, 4)]
    world.stack.settle()
    others = [world.schedule(calm, content="While it waits")]
    world.stack.settle()
    waiting = [world.delivery(post, busy)["attemptsSpent"] for post in posts]
    world.stack.turn(timedelta(seconds=600))
    others.append(world.schedule(calm, content="While it catches up"))
    world.run_until(lambda: len(sent(world, busy)) == 4, step=SPACING / 2)

    assert waiting == [0, 0, 0, 0]
    assert all(world.delivery(post, busy)["attemptsSpent"] == 1 for post in posts)
    assert_one_by_one(world, busy, posts)
    assert sent(world, calm) == ["While it waits", "While it catches up"]
    lateness = [world.delivery(post, calm)["attempts"][0]["latenessMs"] for post in others]
    assert max(lateness) < PROMPT


def test_after_an_outage_the_backlog_keeps_its_distance_and_what_is_too_late_is_missed(
    world: World,
) -> None:
    account, hour = world.account("twitter"), timedelta(hours=1)
    soon = (world.stack.clock.now() + hour * 1.5).isoformat()
    late = world.schedule(account, after=hour, content="Too late", latestAt=soon)
    posts = [world.schedule(account, after=hour, content=f"Post {n}") for n in range(3)]
    world.stack.proxy.down()
    world.stack.clock.turn(hour)
    world.stack.until(lambda: len(world.stack.tasks.attempts) >= 4)
    world.stack.proxy.up()

    world.stack.clock.turn(3 * hour)
    world.run_until(lambda: len(sent(world, account)) == 3, step=SPACING / 2)

    assert_one_by_one(world, account, posts)
    assert world.delivery(late, account)["status"] == "missed"
    assert {world.delivery(post, account)["status"] for post in posts} == {"success"}
