"""Queues seen and purged, jobs of any registered type queued, syncs triggered."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.console import Console
from tests.world import COMPANY, World


@pytest.fixture
def console(world: World) -> Console:
    return Console(world)


def test_a_purge_says_what_it_means_and_the_sweep_loses_nothing(console: Console) -> None:
    world = console.world
    accounts = [world.account("twitter") for _ in range(2)]
    posts = [world.schedule(account, after=timedelta(minutes=10)) for account in accounts]
    [full] = console.look("/queues", queue="publish-twitter")["queues"]

    purged = console.done("/queues/purge", {"queue": "publish-twitter", "reason": "flood"}, "admin")
    console.stack.turn(timedelta(minutes=1))
    [empty] = console.look("/queues", queue="publish-twitter")["queues"]
    console.stack.turn(timedelta(minutes=12))
    world.sweep()
    console.stack.settle()

    assert (full["depth"], full["inFlight"], full["depthIsExact"]) == (2, 0, True)
    assert purged["tasks"] == 2
    assert "wake-ups, not posts" in purged["message"]
    assert empty["depth"] == 0
    assert [world.status(post)["status"] for post in posts] == ["published", "published"]
    assert len(console.stack.platforms.posts("twitter")) == 2
    assert console.audit("action", "by", "why", "queue", "tasks") == [
        ("queue.purge", console.stack.email("admin"), "flood", "publish-twitter", 2)
    ]


def test_every_queue_is_shown_with_its_state(console: Console) -> None:
    queues = {one["queue"]: one for one in console.look("/sync/queues")["queues"]}

    assert {"publish-twitter", "publish-linkedin", "default", "default-dlq"} <= set(queues)
    assert queues["publish-twitter"]["mostPerSecond"] == 10
    assert queues["publish-twitter"]["mostAtOnce"] == 5


def test_a_queued_job_runs_when_due_and_once_for_its_key(console: Console) -> None:
    world, twitter = console.world, console.world.account("twitter")
    console.stack.tasks.faults.lose_task(times=1, queue="publish-twitter")
    post_id = world.schedule(twitter)
    console.stack.settle()
    job = {
        "type": "publish_post",
        "payload": {"postId": post_id},
        "companyId": COMPANY,
        "scheduledFor": (console.stack.clock.now() + timedelta(minutes=1)).isoformat(),
        "idempotencyKey": "once",
        "reason": "its task was lost",
    }

    first = console.done("/jobs/queue", job, "admin")
    again = console.done("/jobs/queue", job, "admin")
    other = console.act("/jobs/queue", {**job, "payload": {"postId": "another"}}, "admin")
    before = console.look("/jobs/inspect", id=first["jobId"])
    console.stack.turn(timedelta(minutes=1))
    after = console.look("/jobs/inspect", id=first["jobId"])

    assert first == again
    assert other.status_code == 409
    assert (before["status"], before["attempts"]) == ("pending", 0)
    assert (after["status"], after["attempts"]) == ("completed", 1)
    assert len(console.stack.records("scheduledJobs")) == 1
    assert console.audit("action", "type", "companyId") == [("job.queue", "publish_post", COMPANY)]


def test_a_job_of_an_unknown_type_is_refused_naming_the_known_ones(console: Console) -> None:
    unknown = console.act("/jobs/queue", {"type": "mine_bitcoin", "reason": "money"}, "admin")
    unread = console.act(
        "/jobs/queue", {"type": "publish_post", "payload": {"id": 1}, "reason": "a test"}, "admin"
    )

    assert unknown.status_code == 422
    assert "promote, publish_post, retention, sweep, sync_analytics" in unknown.json()["detail"]
    assert unread.status_code == 422
    assert {one["field"] for one in unread.json()["errors"]} == {"payload.postId", "payload.id"}
    assert console.stack.records("scheduledJobs") == {}


def test_a_job_that_is_refused_fails_with_its_reason(console: Console) -> None:
    job = {"type": "publish_post", "payload": {"postId": "nowhere"}, "reason": "a test"}

    queued = console.done("/jobs/queue", job, "admin")
    console.stack.settle()

    shown = console.look("/jobs", status="failed")["jobs"]
    assert [(one["jobId"], one["error"]) for one in shown] == [
        (queued["jobId"], "There is no post 'nowhere'.")
    ]
    assert len(console.stack.events("job.failed")) == 1


def test_a_job_whose_task_is_lost_is_run_after_a_sweep(console: Console) -> None:
    console.stack.tasks.faults.lose_task(times=1, queue="default")

    queued = console.done("/jobs/queue", {"type": "promote", "reason": "a test"}, "admin")
    console.stack.turn(timedelta(minutes=3))
    lost = console.look("/jobs/inspect", id=queued["jobId"])["status"]
    swept = console.world.sweep()
    console.stack.settle()

    assert lost == "pending"
    assert swept["jobs"] == 1
    assert console.look("/jobs/inspect", id=queued["jobId"])["status"] == "completed"


def test_a_sync_is_triggered_with_its_scope(console: Console) -> None:
    asked = {"companyId": COMPANY, "platform": "twitter", "reason": "numbers look old"}

    queued = console.done("/sync/trigger", asked)
    console.stack.settle()

    job = console.look("/jobs/inspect", id=queued["jobId"])
    assert (job["type"], job["status"]) == ("sync_analytics", "completed")
    assert job["payload"] == {"companyId": COMPANY, "platform": "twitter"}
    [attempt] = [one for one in console.stack.tasks.attempts if one.queue == "analytics"]
    assert attempt.status == 200
    assert console.audit("action", "why") == [("job.queue", "numbers look old")]


def test_each_platform_says_what_it_accepts(console: Console) -> None:
    platforms = {one["platform"]: one for one in console.look("/platforms")["platforms"]}

    assert set(platforms) >= {"instagram", "linkedin", "twitter"}
    twitter = platforms["twitter"]
    assert twitter["limits"]["textChars"] == 280
    assert twitter["options"]["type"] == "object"
    [account] = twitter["accounts"]
    assert (account["kind"], account["guarantee"]["kind"]) == (None, "readback")
    assert (account["features"]["thread"], account["features"]["linkCard"]) == (True, False)
    assert "X makes its own" in twitter["lacks"]["linkCard"]
    instagram = platforms["instagram"]
    assert (instagram["limits"]["requiredMedia"], instagram["limits"]["dailyPosts"]) == (True, 100)


def test_each_kind_of_account_says_what_it_can_do_and_how_an_unknown_outcome_is_settled(
    console: Console,
) -> None:
    platforms = {one["platform"]: one for one in console.look("/platforms")["platforms"]}

    kinds = {one["kind"]: one for one in platforms["linkedin"]["accounts"]}
    assert {kind: one["guarantee"]["kind"] for kind, one in kinds.items()} == {
        "organization": "readback",
        "member": "none",
    }
    assert {kind: one["features"]["metrics"] for kind, one in kinds.items()} == {
        "organization": True,
        "member": False,
    }
    bot, webhook = platforms["discord"]["accounts"]
    window = bot["guarantee"]["earliestSeconds"], bot["guarantee"]["latestSeconds"]
    assert (bot["kind"], window) == ("bot", (60, 120))
    assert (webhook["kind"], webhook["guarantee"]["kind"]) == ("webhook", "none")


def test_the_backend_is_told_the_same(console: Console) -> None:
    answer = console.stack.get("schedule_post", "/platforms")

    assert answer.status_code == 200
    assert answer.json() == console.look("/platforms")
