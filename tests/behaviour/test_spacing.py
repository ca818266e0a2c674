"""After a throttle or an outage one account's backlog goes out one by one; others do not wait."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

from shared.domain import retries
from tests.world import Account, World

SPACING = retries.policy("twitter").spacing


def sent(world: World, account: Account) -> list[datetime]:
    posts = world.stack.platforms.posts("twitter")
    return [post.at for post in posts if post.account == account.user_id]


def test_a_throttled_accounts_backlog_is_spaced_and_spends_no_attempts(world: World) -> None:
    busy, calm = world.account("twitter"), world.account("twitter")
    world.stack.platforms.misbehave("twitter", "create post", "throttle", seconds=600)

    posts = [world.schedule(busy, content=f"Post {number}") for number in range(4)]
    world.stack.settle()
    other = world.schedule(calm)
    world.stack.settle()
    on_time = world.delivery(other, calm)["status"]
    world.stack.turn(timedelta(seconds=600))
    world.run_until(lambda: len(sent(world, busy)) == 4, step=SPACING / 4)

    assert on_time == "success"
    after_the_pause = [at for at in sent(world, busy) if at >= sent(world, calm)[0]]
    assert all(b - a >= SPACING * 0.9 for a, b in pairwise(after_the_pause))
    assert all(world.delivery(post, busy)["attemptsSpent"] == 1 for post in posts)


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
    world.run_until(lambda: len(sent(world, account)) == 3, step=SPACING / 4)

    assert all(b - a >= SPACING * 0.9 for a, b in pairwise(sent(world, account)))
    assert world.delivery(late, account)["status"] == "missed"
    assert {world.delivery(post, account)["status"] for post in posts} == {"success"}
