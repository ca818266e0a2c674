"""What reading engagement back costs: every account of a company, planned, fanned out, collected.

Round trips, reads and writes are counted at the wire, and their budgets are exactly what they come
to: one more, and something is done twice. A machine so busy that the emulator misses the 3 s that a
read is given shows as that, too. Memory is what the function's process has. Seconds are this
machine's; the queue's own rate, 10 tasks a second, bounds them from below.

The emulator looks at every log for each account's posts: with 10,000 of them, five accounts at a
time, as the queue is set up, keep two processors busy for longer than the 3 s of a read. Here it is
one account at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from google.cloud import tasks_v2

from shared.domain import keys
from shared.domain.accounts import Tokens
from shared.jobs.sync import ACCOUNTS_PAGE, PLAN_PAGES
from shared.security.tokens import Vault, parse_keys
from tests.sandbox.figures import Figure, Watch
from tests.sandbox.stack import Stack
from tests.world import Account, World

ACCOUNTS, POSTS_EACH = 1_000, 10
PATIENCE = 3600.0
MEMORY_MIB = 256
GROWTH_MIB = 8  # 1 was measured; the rest is the allocator's
# The part is begun (read, claimed), its posts and their numbers are read, all is kept and ended.
TRIPS_PER_ACCOUNT = 5
# The part made, begun and ended; the lock taken and given back; the sync told of an end, twice.
WRITES_PER_ACCOUNT = 7
# The account for the plan; its part, lock, record and sync and two controls when it is begun.
READS_PER_ACCOUNT = 7
# The sync itself: its key, its plan opened and closed, the unfinished looked for, its end.
TRIPS_OF_A_SYNC, WRITES_OF_A_SYNC, READS_OF_A_SYNC = 7, 7, 4


def figures(
    world: World, accounts: int, posts_each: int, note: Callable[[str], None]
) -> Iterator[Figure]:
    stack, posts = world.stack, accounts * posts_each
    note(f"Writing {accounts} accounts with {posts} posts …")
    seed(world, accounts, posts_each)
    stack.post("sync_analytics", "/", {"idempotencyKey": "none", "companyId": "none"})
    [process] = stack.processes["sync_analytics"]
    one_at_a_time(stack)
    before, started = stack.proxy.counts("sync_analytics"), time.monotonic()
    calls = len(stack.platforms.calls("twitter", "read metrics"))
    sync_id = asked(world)

    def sync() -> dict[str, Any]:
        return stack.record("analyticsSyncJobs", sync_id) or {}

    with Watch(process, lambda: sync()["accountsDone"] / accounts) as watch:
        while (seen := sync())["status"] != "completed":
            assert time.monotonic() < started + PATIENCE, seen
            note(f"Reading {posts} posts: {seen['accountsDone']} of {accounts} accounts …")
            time.sleep(0.2)
    seconds, spent = time.monotonic() - started, stack.proxy.counts("sync_analytics") - before
    calls = len(stack.platforms.calls("twitter", "read metrics")) - calls
    assert (sync()["accountsDone"], sync()["itemsProcessed"]) == (accounts, posts), sync()

    pages = accounts // ACCOUNTS_PAGE + 1  # the last one is not full
    handed_over = (pages - 1) // PLAN_PAGES
    more = 2 * pages + 2 * handed_over  # query and commit; a plan given on is told and found again
    trips = (TRIPS_PER_ACCOUNT * accounts + TRIPS_OF_A_SYNC + more) / accounts
    writes = (WRITES_PER_ACCOUNT * accounts + WRITES_OF_A_SYNC + more) / accounts
    reads = (READS_PER_ACCOUNT * accounts + READS_OF_A_SYNC + 2 * handed_over) / accounts
    each = spent.round_trips / accounts
    name = f"{accounts:,} accounts, {posts:,} posts"
    yield Figure(f"Firestore round trips per account, {name}", each, trips, TRIPS_PER_ACCOUNT)
    yield Figure("calls of the platform per account", calls / accounts, 1, 1)
    written = (spent.documents_written - 2 * posts) / accounts
    yield Figure("document writes per account beside 2 per post", written, writes, 5)
    read = (spent.documents_read - 2 * posts) / accounts
    yield Figure("documents read per account beside 2 per post", read, reads, READS_PER_ACCOUNT)
    yield Figure("sync_analytics: most memory, MiB", watch.late_mib, MEMORY_MIB)
    yield Figure("sync: MiB more than after the first tenth", watch.growth_mib, GROWTH_MIB)
    yield Figure("sync: seconds", seconds)
    yield Figure("sync: CPU seconds of the function", watch.cpu_seconds)


def one_at_a_time(stack: Stack) -> None:
    [queue] = (one for one in stack.tasks.queues() if one.name.endswith("/analytics"))
    rates = tasks_v2.RateLimits(max_concurrent_dispatches=1)
    mask = {"paths": ["rate_limits.max_concurrent_dispatches"]}
    changed = tasks_v2.Queue(name=queue.name, rate_limits=rates)
    stack.tasks_client.update_queue(queue=changed, update_mask=mask)


def asked(world: World) -> str:
    """The id of a sync; 503 means the same request again, as to every caller."""
    while True:
        answer = world.stack.post("sync_analytics", "/", {"idempotencyKey": "bench"})
        if answer.status_code != 503:
            assert answer.status_code == 200, answer.text
            sync_id: str = answer.json()["syncId"]
            return sync_id


def seed(world: World, accounts: int, posts_each: int) -> None:
    """Copies of one account, each with published posts, as their records lie on our side and on
    X's. The one that they were copied from goes."""
    stack, first = world.stack, world.account("twitter")
    stack.platforms.twitter.tokens[first.access_token].expires_at += timedelta(days=1)
    log, post = published(world, first)
    account = stack.record("socialAccounts", first.id) or {}
    vault = Vault(parse_keys(stack.environment("sync_analytics")["TOKEN_KEYS"]))
    tokens = Tokens(first.access_token, first.refresh_token, None)
    seeded: dict[str, dict[str, Any]] = {}
    logs: dict[str, dict[str, Any]] = {}
    for number in range(accounts):
        name = f"seeded-{number:05}"
        sealed = {"sealedToken": vault.seal(tokens, name)}  # it opens for its own account alone
        seeded[name] = account | sealed
        for n in range(posts_each):
            remote = str(int(post.id) + 1 + number * posts_each + n)
            post_id = f"post-{number}-{n}"
            at: datetime = log["publishedAt"] - timedelta(seconds=n)
            stack.platforms.twitter.posts.append(
                type(post)("twitter", remote, post.account, f"Post {remote}", post.at)
            )
            known = log | {"postId": post_id, "accountId": name, "remoteId": remote}
            delivery = keys.delivery_id(post_id, "twitter", name)
            logs[delivery] = known | {"publishedAt": at}
    world.put("socialAccounts", seeded)
    world.put("publishLogs", logs)
    stack.db.document("socialAccounts", first.id).delete()


def published(world: World, account: Account) -> tuple[dict[str, Any], Any]:
    """The log of a post that is out, and the post; the hour's own content sync taken away."""
    stack, post_id = world.stack, world.schedule(account)
    stack.settle(60)
    for task in stack.tasks.tasks("analytics"):
        stack.tasks_client.delete_task(name=task.name)
    log = stack.record("publishLogs", keys.delivery_id(post_id, account.platform, account.id))
    assert log is not None
    assert log["status"] == "success", log
    return log, stack.platforms.posts("twitter")[-1]
