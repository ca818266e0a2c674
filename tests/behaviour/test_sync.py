"""Engagement read back: planned, fanned out, collected, resumed, counted."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import httpx
import pytest

from shared import config
from shared.domain import keys
from shared.jobs import collect, sync
from shared.jobs.collect import Collecting
from shared.runtime import Runtime
from tests.console import Console
from tests.sandbox.firestore_proxy import FirestoreCall, Refused
from tests.world import Account, World

HOUR = timedelta(hours=1)
ORGANIZATION = "urn:li:organization:{}"
NUMBERS = itertools.count(1)
CUT = (grpc.StatusCode.UNAVAILABLE, "sandbox: the caller is gone")


# what it reads


def test_a_full_sync_reads_every_account_once(world: World) -> None:
    x, linkedin, instagram = three_accounts(world)
    tweet, share, image = (publish(world, one)[0] for one in (x, linkedin, instagram))
    count(world, x, like_count=3, retweet_count=2, impression_count=70)
    count(world, linkedin, likeCount=4, clickCount=9)
    count(world, instagram, likes=5, views=50)

    answer = world.stack.scheduler.fire("sync-analytics").json()
    world.stack.settle()

    assert (answer["jobs"], answer["planned"]) == (3, True)
    assert metrics(world, tweet) == {
        "impressions": 70,
        "likes": 3,
        "shares": 2,
        "comments": 0,
        "quotes": 0,
        "saves": 0,
    }
    assert metrics(world, share) == {"likes": 4, "clicks": 9}
    assert metrics(world, image) == {"likes": 5, "views": 50}
    assert [len(snapshots(world, one)) for one in (tweet, share, image)] == [1, 1, 1]
    assert counts(world, answer["syncId"]) == {
        "status": "completed",
        "open": 0,
        "accounts": (3, 3, 0, 0),  # planned, done, failed, skipped
        "items": (3, 0, 0),  # processed, failed, skipped
    }
    assert len(world.stack.events("sync.completed")) == 1


def test_a_number_that_is_not_told_is_a_gap_and_the_one_before_stays(world: World) -> None:
    x = world.account("twitter")
    [delivery] = publish(world, x)
    count(world, x, like_count=3, impression_count=70, url_link_clicks=5)
    synced(world, platform="twitter")
    first = record(world, delivery)
    count(world, x, like_count=None, impression_count=80, url_link_clicks=None)
    world.stack.clock.turn(2 * HOUR)
    refresh_token(world, x)

    synced(world, platform="twitter")

    latest, [earlier, later] = record(world, delivery), snapshots(world, delivery)
    assert (earlier["metrics"]["likes"], earlier["metrics"]["clicks"]) == (3, 5)
    assert "likes" not in later["metrics"]
    assert "clicks" not in later["metrics"]
    assert (latest["metrics"]["likes"], latest["metrics"]["impressions"]) == (3, 80)
    assert latest["metricsAt"]["likes"] == first["metricsAt"]["likes"]
    assert latest["metricsAt"]["impressions"] - first["metricsAt"]["impressions"] >= 2 * HOUR
    assert later["expireAt"] - later["fetchedAt"] == timedelta(days=400)
    assert abs(later["sourceAt"] - later["fetchedAt"]) < timedelta(seconds=5)


def test_a_sync_reads_what_it_was_asked_for_and_nothing_else(world: World) -> None:
    x, other = world.account("twitter"), world.account("twitter", companyId="globex")
    linkedin = organization(world)
    tweet, linked = publish(world, x)[0], publish(world, linkedin)[0]
    [foreign] = publish(world, other, companyId="globex")
    everything = {tweet, linked, foreign}
    since = (world.stack.clock.now() + HOUR).isoformat()

    read = {
        name: fetched_by(world, everything, **scope)
        for name, scope in {
            "company": {"companyId": "acme"},
            "platform": {"platform": "twitter"},
            "both": {"companyId": "acme", "platform": "linkedin"},
            "content": {"contentIds": [post_of(world, tweet), "no-such-post"]},
            "content of another company": {
                "companyId": "acme",
                "contentIds": [post_of(world, foreign)],
            },
            "since": {"startDate": since},
            "all": {},
        }.items()
    }

    assert read == {
        "company": {tweet, linked},
        "platform": {tweet, foreign},
        "both": {linked},
        "content": {tweet},
        "content of another company": set(),
        "since": set(),
        "all": everything,
    }


def test_what_was_read_within_the_hour_is_not_read_again_unless_forced(world: World) -> None:
    x = world.account("twitter")
    publish(world, x, 2)
    synced(world)
    before = reads(world, x)

    again = synced(world)
    calls_again = reads(world, x) - before
    forced = synced(world, force=True)

    assert calls_again == 0
    assert reads(world, x) == before + 1
    assert counts(world, again)["items"] == (0, 0, 2)
    assert counts(world, forced)["items"] == (2, 0, 0)


def test_a_post_that_is_gone_costs_no_other_post(world: World) -> None:
    x = world.account("twitter")
    deliveries = publish(world, x, 3)
    gone = world.stack.platforms.posts("twitter")[1].id
    world.stack.platforms.delete("twitter", gone)

    sync_id = synced(world)

    [part] = parts(world, sync_id)
    assert counts(world, sync_id)["items"] == (2, 1, 0)
    assert part["status"] == "done"
    assert [failure["code"] for failure in part["failures"]] == ["resource-not-found"]
    assert set(world.stack.records("postMetrics")) == set(deliveries) - {
        failure["deliveryId"] for failure in part["failures"]
    }


def test_publishing_asks_for_the_posts_numbers_an_hour_later(world: World) -> None:
    x, linkedin = world.account("twitter"), organization(world)
    post_id = world.schedule(x, linkedin)
    world.stack.settle()

    [task] = world.stack.tasks.tasks("analytics")
    world.stack.turn(timedelta(minutes=59))
    early = world.stack.records("postMetrics")
    world.stack.turn(timedelta(minutes=1))

    assert early == {}
    assert set(world.stack.records("postMetrics")) == {
        delivery_of(post_id, x),
        delivery_of(post_id, linkedin),
    }
    [sync] = world.stack.records("analyticsSyncJobs").values()
    assert (sync["kind"], sync["scope"]["contentIds"]) == ("content", [post_id])
    assert task.id == keys.sync_task_id(sync["idempotencyKey"], "plan", 1)


# keys


def test_a_key_is_one_sync_whoever_asks_again(world: World) -> None:
    publish(world, world.account("twitter"))

    first, again = ask(world, idempotencyKey="k"), ask(world, idempotencyKey="k")
    other = ask(world, idempotencyKey="k", force=True)
    none = world.stack.post("sync_analytics", "/", {})

    assert again.json() == first.json() | {"alreadyProcessed": True}
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    assert (none.status_code, none.json()["errors"][0]["field"]) == (400, "idempotencyKey")
    assert len(world.stack.records("analyticsSyncJobs")) == 1


def test_every_public_path_takes_a_sync(world: World) -> None:
    paths = ("/", "/api/jobs/sync-analytics", "/api/webhooks/sync-analytics")

    answers = [
        world.stack.post("sync_analytics", path, {"type": "SYNC_ANALYTICS", "idempotencyKey": path})
        for path in paths
    ]

    assert [answer.json()["jobs"] for answer in answers] == [0, 0, 0]
    statuses = [sync["status"] for sync in world.stack.records("analyticsSyncJobs").values()]
    assert statuses == ["completed"] * 3


def test_a_platform_that_does_not_exist_is_a_400(world: World) -> None:
    answer = ask(world, platform="friendster")

    assert (answer.status_code, answer.json()["code"]) == (400, "platform_unknown")


def test_a_task_of_a_sync_that_is_not_there_is_void(world: World) -> None:
    bodies = [{"syncId": "s", "hop": 1}, {"syncId": "s", "accountId": "a", "hop": 1}]

    answers = [world.stack.post("sync_analytics", "/", body, role="tasks") for body in bodies]

    assert [(one.status_code, one.json()["void"]) for one in answers] == [(200, True)] * 2


# trouble


def test_a_platform_that_is_down_fails_its_own_accounts_only(world: World) -> None:
    x, linkedin = world.account("twitter"), organization(world)
    publish(world, x)
    [share] = publish(world, linkedin)
    world.stack.platforms.misbehave("twitter", "read metrics", "error_before", times=None)

    sync_id = started(world)
    share_read_at_once = "fetchedAt" in record(world, share)
    world.run_until(lambda: counts(world, sync_id)["status"] == "completed")

    assert share_read_at_once
    assert reads(world, x) == 4
    assert counts(world, sync_id)["accounts"] == (2, 1, 1, 0)
    assert counts(world, sync_id)["items"] == (1, 1, 0)
    [failed] = [part for part in parts(world, sync_id) if part["status"] == "failed"]
    assert failed["platform"] == "twitter"


def test_a_limit_on_reading_waits_and_holds_up_no_post(world: World) -> None:
    x = world.account("twitter")
    [delivery] = publish(world, x)
    world.stack.platforms.misbehave("twitter", "read metrics", "throttle", seconds=900)

    sync_id = started(world)
    [waiting] = parts(world, sync_id)
    world.schedule(x, content="While reading waits")
    world.stack.settle()
    sent_meanwhile = len(world.stack.platforms.posts("twitter"))
    world.stack.turn(timedelta(minutes=14))
    still = reads(world, x)
    world.stack.turn(timedelta(minutes=2))

    assert (waiting["status"], waiting["code"], waiting["attemptsSpent"]) == (
        "waiting",
        "throttled",
        0,
    )
    assert sent_meanwhile == 2
    assert (still, reads(world, x)) == (1, 2)
    assert "likes" in metrics(world, delivery)
    assert counts(world, sync_id)["accounts"] == (1, 1, 0, 0)


def test_a_limit_on_all_calls_raises_the_accounts_pause(world: World) -> None:
    instagram = world.account("instagram")
    publish(world, instagram)
    world.stack.platforms.misbehave("instagram", "read metrics", "throttle", seconds=900)

    sync_id = started(world)
    account = world.stack.record("socialAccounts", instagram.id) or {}
    until = datetime.fromtimestamp(account["pausedUntil"] / 1000, UTC)
    world.stack.turn(timedelta(minutes=16))

    assert abs(until - world.stack.clock.now() + timedelta(minutes=1)) < timedelta(seconds=20)
    assert counts(world, sync_id)["items"] == (1, 0, 0)


def test_a_refused_token_is_renewed_and_the_account_read(world: World) -> None:
    x = world.account("twitter")
    [delivery] = publish(world, x)
    world.stack.platforms.revoke(x.access_token)
    revive(world, x)

    sync_id = synced(world)

    assert "likes" in metrics(world, delivery)
    assert counts(world, sync_id)["accounts"] == (1, 1, 0, 0)
    assert len(world.stack.events("account.refreshed")) == 1


def test_accounts_that_cannot_be_read_are_skipped_and_counted(world: World) -> None:
    expired, gone = world.account("twitter"), world.account("twitter")
    member, live = world.account("linkedin"), world.account("twitter")
    for account in (expired, gone, member, live):
        publish(world, account)
    world.stack.db.document("socialAccounts", expired.id).update({"status": "expired"})
    world.call("/accounts/disconnect", {"companyId": "acme", "accountId": gone.id})

    answer = ask(world).json()
    world.stack.settle()

    reasons = {"expired": 1, "disconnected": 1, "member_metrics_closed": 1}
    assert (answer["jobs"], answer["skipped"]) == (1, reasons)
    assert counts(world, answer["syncId"])["accounts"] == (1, 1, 0, 3)
    assert reads(world, live) == 1


def test_an_account_whose_token_dies_meanwhile_is_expired_and_skipped(world: World) -> None:
    x = world.account("twitter")
    publish(world, x)
    world.stack.platforms.revoke(x.access_token)
    world.stack.platforms.revoke(x.refresh_token)

    sync_id = started(world)
    world.run_until(lambda: counts(world, sync_id)["status"] == "completed")

    assert counts(world, sync_id)["accounts"] == (1, 0, 0, 1)
    assert (world.stack.record("socialAccounts", x.id) or {})["status"] == "expired"
    assert len(world.stack.events("account.expired")) == 1


@pytest.mark.parametrize("scope", ["platform", "account", "company"])
def test_what_is_paused_is_read_once_it_is_resumed_and_posts_go_out_meanwhile(
    world: World, scope: str
) -> None:
    console, x, linkedin = Console(world), world.account("twitter"), organization(world)
    publish(world, x)
    publish(world, linkedin)
    name = {"platform": "twitter", "account": x.id, "company": "acme"}[scope]
    pause = {"kind": "sync", "scope": scope, "name": name}
    console.done("/pause", pause | {"reason": "costs"})

    sync_id = started(world)
    world.stack.turn(timedelta(minutes=61))  # it looks again by itself
    while_paused = reads(world, x), reads(world, linkedin)
    held = [part["code"] for part in parts(world, sync_id) if part["status"] == "waiting"]
    publish(world, x)
    resumed = console.done("/resume", pause)
    world.stack.settle()

    assert while_paused == (0, 0 if scope == "company" else 1)
    assert held == ["paused"] * (2 if scope == "company" else 1)
    assert len(world.stack.platforms.posts("twitter")) == 2
    assert resumed["woken"] == len(held)
    assert (reads(world, x), reads(world, linkedin)) == (1, 1)
    assert counts(world, sync_id)["accounts"] == (2, 2, 0, 0)
    assert [part["attemptsSpent"] for part in parts(world, sync_id)] == [0, 0]


def test_a_pause_of_publishing_holds_no_reading(world: World) -> None:
    x = world.account("twitter")
    publish(world, x)
    pause = {"scope": "platform", "name": "twitter", "reason": "its API is down"}
    Console(world).done("/pause", pause)

    synced(world)

    assert reads(world, x) == 1


def test_a_pause_of_reading_that_is_over_is_ended_by_the_sweep(world: World) -> None:
    x = world.account("twitter")
    publish(world, x)
    until = (world.stack.clock.now() + timedelta(minutes=10)).isoformat()
    pause = {"kind": "sync", "scope": "account", "name": x.id, "reason": "costs", "until": until}
    Console(world).done("/pause", pause)

    sync_id = started(world)
    world.stack.turn(timedelta(minutes=9))
    early = reads(world, x)
    world.stack.clock.turn(timedelta(minutes=2))
    world.sweep()
    world.stack.settle()

    assert (early, reads(world, x)) == (0, 1)
    assert counts(world, sync_id)["accounts"] == (1, 1, 0, 0)
    assert world.stack.records("controls")["sync"]["pauses"] == {}


# at once, and killed


def test_two_full_syncs_at_once_collect_each_account_once(world: World) -> None:
    x, linkedin = world.account("twitter"), organization(world)
    deliveries = [*publish(world, x, 2), *publish(world, linkedin, 2)]
    both_reading = world.stack.platforms.misbehave("twitter", "read metrics", "hold", times=None)

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: ask(world).json()["syncId"], range(2)))
    both_reading.wait_until_held()
    world.stack.until(lambda: len(world.stack.events("sync.waiting")) >= 1)
    both_reading.release()
    world.run_until(lambda: {counts(world, one)["status"] for one in answers} == {"completed"})

    assert (reads(world, x), reads(world, linkedin)) == (1, 1)
    assert [len(snapshots(world, one)) for one in deliveries] == [1, 1, 1, 1]
    done = [counts(world, one) for one in answers]
    assert [one["accounts"] for one in done] == [(2, 2, 0, 0)] * 2
    assert sum(one["items"][0] for one in done) == 4
    assert sum(one["items"][2] for one in done) == 4


def test_a_task_delivered_twice_at_once_reads_once(world: World) -> None:
    x = world.account("twitter")
    [delivery] = publish(world, x)
    world.stack.tasks.faults.deliver_twice(at_once=True, times=None, queue="analytics")

    sync_id = started(world)
    world.run_until(lambda: counts(world, sync_id)["status"] == "completed")

    assert len(snapshots(world, delivery)) == 1
    assert counts(world, sync_id)["items"] == (1, 0, 0)


# The commits of a sync of one account that has 51 posts, 50 to a batch. Death before a commit is
# unlike death after the one before it where something is done in between: tasks, reading.
COMMITS = ("opened", "page", "planned", "claimed", "first batch", "last batch", "completed")
DEATHS = [("before", "opened"), ("before", "planned"), ("before", "last batch")]
DEATHS += [("after", commit) for commit in COMMITS]


@pytest.mark.parametrize(("when", "commit"), DEATHS)
def test_a_sync_killed_at_a_commit_leaves_what_one_that_ran_through_leaves(
    world: World, when: str, commit: str
) -> None:
    linkedin = organization(world)
    deliveries = seeded(world, linkedin, 51)
    killed = kill_at(world, COMMITS.index(commit) + 1, written=when == "after")

    answer = ask_until_heard(world, idempotencyKey="k")
    sync_id = answer["syncId"]
    world.run_until(
        lambda: counts(world, sync_id)["status"] == "completed", step=timedelta(seconds=40)
    )

    assert killed() == 1
    assert counts(world, sync_id) == {
        "status": "completed",
        "open": 0,
        "accounts": (1, 1, 0, 0),
        "items": (51, 0, 0),
    }
    known = world.stack.records("postMetrics")
    assert {one: known[one]["metrics"] for one in known} == {
        delivery: {"likes": number} for number, delivery in enumerate(deliveries)
    }
    assert snapshots_in_all(world) == 51
    assert len(world.stack.records("analyticsSyncJobs")) == 1
    [part] = parts(world, sync_id)
    assert (part["status"], part["itemsProcessed"], part["owner"]) == ("done", 51, None)


def test_a_wait_that_was_on_record_when_its_attempt_died_is_woken(world: World) -> None:
    x = world.account("twitter")
    [delivery] = publish(world, x)
    world.stack.platforms.misbehave("twitter", "read metrics", "throttle", seconds=60)
    killed = kill_at(world, 5, written=True)  # opened, page, planned, claimed, the wait

    sync_id = ask(world).json()["syncId"]
    world.run_until(lambda: counts(world, sync_id)["status"] == "completed")

    assert killed() == 1
    assert len(snapshots(world, delivery)) == 1
    assert counts(world, sync_id)["items"] == (1, 0, 0)


def test_a_sync_whose_tasks_are_gone_is_ended_by_a_later_one(world: World) -> None:
    x = world.account("twitter")
    publish(world, x)
    world.stack.tasks.faults.lose_task(queue="analytics")
    lost = started(world)
    world.stack.clock.turn(26 * HOUR)
    refresh_token(world, x)

    synced(world)

    assert counts(world, lost) == {
        "status": "completed",
        "open": 0,
        "accounts": (1, 0, 1, 0),
        "items": (0, 0, 0),
    }
    [part] = parts(world, lost)
    assert (part["status"], part["code"]) == ("failed", "abandoned")


# what it costs


def test_a_batch_costs_three_round_trips_whatever_its_size(world: World) -> None:
    linkedin = organization(world)
    seeded(world, linkedin, 501)
    before = world.stack.proxy.counts("sync_analytics")

    sync_id = synced(world)

    spent = world.stack.proxy.counts("sync_analytics") - before
    planning = 4 + 3  # marker, plan, accounts, unfinished; opened, page, planned
    claims = 2 * 2  # after 10 batches the account is handed on to a second request
    batches, completed = 3 * 11, 2
    print(f"\n{spent.round_trips} round trips for 501 posts of one account")
    assert counts(world, sync_id)["items"] == (501, 0, 0)
    assert reads(world, linkedin) == 11
    assert spent.round_trips == planning + claims + batches + completed


def test_more_accounts_than_one_request_can_plan_are_planned_by_the_next(world: World) -> None:
    live = world.account("twitter")
    publish(world, live)
    seed_accounts(world, live, 1000)

    answer = ask(world).json()
    handed_on = world.stack.record("analyticsSyncJobs", answer["syncId"]) or {}
    world.run_until(lambda: counts(world, answer["syncId"])["status"] == "completed")

    assert (answer["jobs"], answer["planned"]) == (0, False)
    assert handed_on["cloudTaskName"] == keys.sync_task_id(answer["syncId"], "plan", 2)
    assert counts(world, answer["syncId"])["accounts"] == (1, 1, 0, 1000)


def test_what_stops_before_its_own_deadline_is_gone_on_with_by_a_successor(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    linkedin = organization(world)
    seeded(world, linkedin, 120)  # 50 to a batch
    rt = runtime(world, monkeypatch)
    world.stack.tasks.faults.lose_task(queue="analytics", times=None)

    planned = sync.start(wanted(world, ends_at=time.monotonic() + sync.PLAN_MARGIN - 5), rt)
    hop = world.stack.record("analyticsSyncJobs", planned["syncId"]) or {}
    sync.go_on(planned["syncId"], 2, rt, time.monotonic() + 45)
    world.stack.settle(60)
    world.stack.tasks.faults.clear()
    task = Collecting(planned["syncId"], linkedin.id, 1, time.monotonic() + collect.MARGIN)
    collected = collect.run(task, rt)
    world.stack.until(lambda: counts(world, planned["syncId"])["status"] == "completed", timeout=60)

    assert (planned["jobs"], planned["planned"]) == (0, False)
    assert hop["cloudTaskName"] == keys.sync_task_id(planned["syncId"], "plan", 2)
    assert (collected["status"], collected["code"]) == ("waiting", "continues")
    assert collected["itemsProcessed"] == 50
    assert counts(world, planned["syncId"])["items"] == (120, 0, 0)
    assert (reads(world, linkedin), snapshots_in_all(world)) == (3, 120)


# the cast


def runtime(world: World, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """The handles of one more instance, here, so that a deadline can be set."""
    environment = world.stack.environment("sync_analytics")
    for name in ("FIRESTORE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.setenv(name, environment[name])
    return Runtime(config.load(environment), "sync_analytics")


def wanted(world: World, *, ends_at: float) -> sync.Wanted:
    """A full sync as the backend asks for it."""
    return sync.Wanted(
        company_id=None,
        platform=None,
        content_ids=(),
        start=None,
        force=False,
        key=f"sync-{next(NUMBERS)}",
        asked={},
        call=None,
        by=None,
        traceparent=None,
        ends_at=ends_at,
    )


def three_accounts(world: World) -> tuple[Account, Account, Account]:
    return world.account("twitter"), organization(world), world.account("instagram")


def organization(world: World) -> Account:
    return world.account("linkedin", user_id=ORGANIZATION.format(next(NUMBERS)))


def publish(world: World, account: Account, posts: int = 1, **more: Any) -> list[str]:
    """The deliveries of posts that are there, the hour's own content sync taken away."""
    if account.platform == "instagram":
        more["mediaAssetIds"] = [world.image()]
    ids = [world.schedule(account, content=f"Post {next(NUMBERS)}", **more) for _ in range(posts)]
    world.stack.settle()
    for task in world.stack.tasks.tasks("analytics"):
        world.stack.tasks_client.delete_task(name=task.name)
    return [delivery_of(post_id, account) for post_id in ids]


def delivery_of(post_id: str, account: Account) -> str:
    return keys.delivery_id(post_id, account.platform, account.id)


def post_of(world: World, delivery: str) -> str:
    log = world.stack.record("publishLogs", delivery) or {}
    post_id: str = log["postId"]
    return post_id


def count(world: World, account: Account, **figures: float | None) -> None:
    """What the platform tells of the account's one post from now on."""
    [post] = [
        one
        for one in world.stack.platforms.posts(account.platform)
        if one.account == account.user_id
    ]
    world.stack.platforms.count(account.platform, post.id, **figures)


def refresh_token(world: World, account: Account) -> None:
    """X's tokens live for two hours; this one for longer."""
    world.stack.platforms.twitter.tokens[account.access_token].expires_at += 24 * HOUR


def revive(world: World, account: Account) -> None:
    """The refresh token of a revoked access token still works."""
    tokens = world.stack.platforms.twitter
    tokens.tokens["older"] = tokens.tokens[account.access_token]
    tokens.issue(None, {account.user_id}, None)
    tokens.refresh_tokens[account.refresh_token] = list(tokens.tokens)[-1]


def seeded(world: World, account: Account, posts: int) -> list[str]:
    """Published posts as their records lie, on our side and on LinkedIn's."""
    [first] = publish(world, account)
    log = world.stack.record("publishLogs", first) or {}
    [post] = world.stack.platforms.posts("linkedin")
    world.stack.platforms.count("linkedin", post.id, likeCount=0)
    logs: dict[str, dict[str, Any]] = {}
    for number in range(1, posts):
        post_id, urn = f"post-{number}", f"{post.id}{number:04d}"
        world.stack.platforms.linkedin.posts.append(
            type(post)("linkedin", urn, post.account, f"Post {number}", post.at)
        )
        world.stack.platforms.count("linkedin", urn, likeCount=number)
        delivery = delivery_of(post_id, account)
        at = log["publishedAt"] - timedelta(seconds=number // 7)  # some share an instant
        logs[delivery] = log | {"postId": post_id, "remoteId": urn, "publishedAt": at}
    world.put("publishLogs", logs)
    return [first, *logs]


def seed_accounts(world: World, like: Account, accounts: int) -> None:
    """Expired accounts that come before `like`."""
    known = world.stack.record("socialAccounts", like.id) or {}
    expired = known | {"status": "expired"}
    world.put("socialAccounts", {f"aa-{number:05d}": expired for number in range(accounts)})


# asking


def ask(world: World, **body: Any) -> httpx.Response:
    key = {"idempotencyKey": f"sync-{next(NUMBERS)}"}
    return world.stack.post("sync_analytics", "/", key | body)


def ask_until_heard(world: World, **body: Any) -> dict[str, Any]:
    """As a caller does that got no answer: the same request again."""
    for _ in range(5):
        answer = ask(world, **body)
        if answer.status_code == 200:
            known: dict[str, Any] = answer.json()
            return known
    raise AssertionError(answer.text)


def started(world: World, **scope: Any) -> str:
    """The id of a sync whose tasks have had their first turn."""
    answer = ask(world, **scope)
    assert answer.status_code == 200, answer.text
    world.stack.settle(60)
    sync_id: str = answer.json()["syncId"]
    return sync_id


def synced(world: World, **scope: Any) -> str:
    """The id of a sync that ran through."""
    sync_id = started(world, **scope)
    assert counts(world, sync_id)["status"] == "completed"
    return sync_id


def fetched_by(world: World, deliveries: set[str], **scope: Any) -> set[str]:
    """The posts that a forced sync of this scope reads."""
    sync_id = synced(world, force=True, **scope)
    known = world.stack.records("postMetrics")
    return {one for one in deliveries if known.get(one, {}).get("syncId") == sync_id}


# looking


def record(world: World, delivery: str) -> dict[str, Any]:
    return world.stack.record("postMetrics", delivery) or {}


def metrics(world: World, delivery: str) -> dict[str, Any]:
    told: dict[str, Any] = record(world, delivery)["metrics"]
    return told


def snapshots(world: World, delivery: str) -> list[dict[str, Any]]:
    """Oldest first."""
    found = world.stack.db.collection("postMetrics", delivery, "snapshots").stream()
    return [seen.to_dict() for seen in sorted(found, key=lambda one: one.id)]


def snapshots_in_all(world: World) -> int:
    return len(list(world.stack.db.collection_group("snapshots").stream()))


def parts(world: World, sync_id: str) -> list[dict[str, Any]]:
    """The accounts' parts, without the plan."""
    found = world.stack.db.collection("analyticsSyncJobs", sync_id, "parts").stream()
    return [seen.to_dict() for seen in found if seen.id != "plan"]


def counts(world: World, sync_id: str) -> dict[str, Any]:
    sync = world.stack.record("analyticsSyncJobs", sync_id) or {}
    accounts = ("accountsPlanned", "accountsDone", "accountsFailed", "accountsSkipped")
    items = ("itemsProcessed", "itemsFailed", "itemsSkipped")
    return {
        "status": sync["status"],
        "open": sync["open"],
        "accounts": tuple(sync[name] for name in accounts),
        "items": tuple(sync[name] for name in items),
    }


def reads(world: World, account: Account) -> int:
    """How often the platform was asked for numbers with a token of this account."""
    return len(world.stack.platforms.calls(account.platform, "read metrics"))


# breaking


def kill_at(world: World, commit: int, *, written: bool) -> Any:
    """Kill the worker at its `commit`-th commit, before or after Firestore has it; gives a
    function that tells how often that came to pass."""
    [process] = world.stack.processes["sync_analytics"]
    seen = itertools.count(1)

    def strike(call: FirestoreCall) -> None:
        if call.caller != "sync_analytics" or next(seen) != commit:
            return
        struck.append(commit)
        process.kill_worker()
        if not written:
            raise Refused(*CUT)

    struck: list[int] = []
    world.stack.proxy.on_call(strike, "Commit", after=written)
    return lambda: len(struck)
