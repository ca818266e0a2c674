"""Pause and resume: what is held, what goes on, and that nothing is lost or sent twice by it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.console import Console
from tests.world import COMPANY, World


@pytest.fixture
def console(world: World) -> Console:
    return Console(world)


def test_a_paused_platform_holds_a_due_post_and_resume_publishes_it_once(
    console: Console,
) -> None:
    world = console.world
    twitter, linkedin = world.account("twitter"), world.account("linkedin")
    pause = {"scope": "platform", "name": "twitter", "reason": "its API is down"}

    paused = console.done("/pause", pause)
    post_id = world.schedule(twitter, linkedin)
    console.stack.settle()
    held = world.status(post_id)["summary"]
    shown = console.look("/pauses")["pauses"]
    resumed = console.done("/resume", {"scope": "platform", "name": "twitter"})
    console.stack.settle()
    again = console.done("/resume", {"scope": "platform", "name": "twitter"})
    console.stack.turn(timedelta(minutes=6))
    world.sweep()
    console.stack.settle()

    assert "is paused until somebody resumes it" in paused["message"]
    assert held == {"waiting": 1, "success": 1}
    assert [(one["name"], one["why"]) for one in shown] == [("twitter", "its API is down")]
    assert (resumed["resumed"], resumed["woken"]) == (True, 1)
    assert (again["resumed"], again["woken"]) == (False, 0)
    assert world.status(post_id)["status"] == "published"
    assert len(console.stack.platforms.calls("twitter", "create post")) == 1
    assert len(world.delivery(post_id, twitter)["attempts"]) == 1
    assert console.look("/pauses")["pauses"] == []
    operator = console.stack.email("operator")
    assert console.audit("action", "by", "why", "name") == [
        ("pause", operator, "its API is down", "twitter"),
        ("resume", operator, None, "twitter"),
    ]


@pytest.mark.parametrize("scope", ["account", "company"])
def test_a_pause_holds_its_scope_and_no_other(console: Console, scope: str) -> None:
    world = console.world
    one, other = world.account("twitter"), world.account("twitter")
    name = {"account": one.id, "company": COMPANY}[scope]

    console.done("/pause", {"scope": scope, "name": name, "reason": "asked for"})
    post_id = world.schedule(one, other)
    console.stack.settle()
    held = {account.id: world.delivery(post_id, account)["status"] for account in (one, other)}
    console.done("/resume", {"scope": scope, "name": name})
    console.stack.settle()

    assert held[one.id] == "waiting"
    assert held[other.id] == ("success" if scope == "account" else "waiting")
    assert world.status(post_id)["status"] == "published"
    assert len(console.stack.platforms.posts("twitter")) == 2


def test_a_paused_queue_stands_still_and_runs_again_when_its_time_is_up(console: Console) -> None:
    world, twitter = console.world, console.world.account("twitter")
    until = console.stack.clock.now() + timedelta(hours=1)
    pause = {
        "scope": "queue",
        "name": "publish-twitter",
        "reason": "to look at it",
        "until": until.isoformat(),
    }

    paused = console.done("/pause", pause)
    post_id = world.schedule(twitter)
    console.stack.turn(timedelta(minutes=10))
    world.sweep()
    [still] = console.look("/queues", queue="publish-twitter")["queues"]
    held = world.delivery(post_id, twitter)["status"]
    console.stack.turn(timedelta(minutes=51))
    world.sweep()
    console.stack.settle()
    [runs] = console.look("/queues", queue="publish-twitter")["queues"]

    assert paused["queuePaused"] is True
    assert (still["state"], [one["why"] for one in still["pauses"]]) == (
        "paused",
        ["to look at it"],
    )
    assert still["depth"] >= 1
    assert held in ("pending", "waiting")
    assert (runs["state"], runs["pauses"]) == ("running", [])
    assert runs["lastSuccessAt"] is not None
    assert world.delivery(post_id, twitter)["status"] == "success"
    assert len(console.stack.platforms.calls("twitter", "create post")) == 1


def test_what_is_being_sent_goes_on_and_both_answers_say_so(console: Console) -> None:
    world, twitter = console.world, console.world.account("twitter")
    sending = console.stack.platforms.misbehave("twitter", "create post", "hold")
    post_id = world.schedule(twitter)
    sending.wait_until_held()
    scope = {"scope": "account", "name": twitter.id}

    paused = console.done("/pause", {**scope, "reason": "a wrong picture"})
    resumed = console.done("/resume", scope)
    sending.release()
    console.stack.settle()

    delivery = world.delivery(post_id, twitter)
    for answer in (paused, resumed):
        [under_way] = answer["underWay"]
        assert under_way["deliveryId"] == delivery["deliveryId"]
        assert under_way["committing"] is True
    assert delivery["status"] == "success"


def test_a_resume_that_dies_half_way_is_finished_by_the_sweep(console: Console) -> None:
    world, twitter = console.world, console.world.account("twitter")
    scope = {"scope": "platform", "name": "twitter"}
    console.done("/pause", {**scope, "reason": "its API is down"})
    post_id = world.schedule(twitter)
    console.stack.settle()
    console.stack.proxy.on_call(
        lambda call: console.stack.proxy.down(),
        "RunQuery",
        when=lambda request: "publishLogs" in str(request),
    )

    died = console.act("/resume", scope)
    console.stack.proxy.heal()
    swept = world.sweep()
    console.stack.settle()

    assert died.status_code == 503
    assert swept["resumed"] == 1
    assert world.delivery(post_id, twitter)["status"] == "success"
    assert console.stack.records("controls")["publish"]["pauses"] == {}


def test_a_pause_of_what_is_not_there_is_refused(console: Console) -> None:
    reason = {"reason": "by mistake"}

    queue = console.act("/pause", {"scope": "queue", "name": "publish-myspace", **reason})
    platform = console.act("/pause", {"scope": "platform", "name": "myspace", **reason})
    account = console.act("/pause", {"scope": "account", "name": "nobody", **reason})
    unreasoned = console.act("/pause", {"scope": "platform", "name": "twitter"})
    letters = console.act("/resume", {"scope": "queue", "name": "default-dlq"})

    assert [queue.status_code, platform.status_code, account.status_code] == [422, 422, 404]
    assert "publish-twitter" in queue.json()["detail"]
    assert unreasoned.status_code == 400
    assert letters.status_code == 409
    assert console.audit("action") == []


def test_whether_a_pause_would_end_in_the_past_is_told_by_firestores_clock(
    console: Console,
) -> None:
    """However far an instance's own clock is behind: such a pause would hold nothing."""
    for _ in range(2):  # both instances know the time
        console.look("/pauses")
    console.stack.clock.turn(timedelta(days=1))
    until = console.stack.clock.now() - timedelta(hours=1)
    pause = {"scope": "company", "name": COMPANY, "reason": "asked for", "until": str(until)}

    answer = console.act("/pause", pause)

    assert (answer.status_code, answer.json()["code"]) == (422, "in_the_past")
    assert console.look("/pauses")["pauses"] == []
