"""What is finished and old goes; what is live, open or inside its window stays."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.console import Console
from tests.world import COMPANY, World

DAY = timedelta(days=1)


@pytest.fixture
def console(world: World) -> Console:
    return Console(world)


def test_finished_jobs_go_after_a_week_and_live_ones_never(console: Console) -> None:
    old = queued(console)
    console.stack.turn(2 * DAY)
    failed = queued(console, type="publish_post", payload={"postId": "nowhere"})
    ahead = console.stack.clock.now() + 20 * DAY
    live = queued(console, scheduledFor=ahead.isoformat())

    at_once = retention(console)
    console.stack.turn(6 * DAY)
    after_a_week = retention(console)
    left = set(console.stack.records("scheduledJobs"))
    console.stack.turn(2 * DAY)
    retention(console)

    assert at_once["removed"]["jobs"] == 0
    assert after_a_week == {
        "success": True,
        "finished": True,
        "removed": {"jobs": 1, "audit": 0, "letters": 0},
    }
    assert old not in left
    assert left >= {failed, live}
    assert live in console.stack.records("scheduledJobs")
    assert failed not in console.stack.records("scheduledJobs")
    [line, *_] = console.stack.events("retention.done")
    assert line["finished"] is True


def test_a_key_inside_its_window_and_an_open_dead_letter_outlive_it(console: Console) -> None:
    world, twitter = console.world, console.world.account("twitter")
    order = world.order((twitter,), after=DAY)
    first = world.call("/schedule", order)
    letter = console.letter_of(console.refused(twitter, content="refused"), twitter)
    closed = console.letter_of(console.refused(twitter, content="thrown away"), twitter)
    console.done("/dead-letters/discard", {"ids": [closed], "reason": "out of date"})

    console.stack.clock.turn(29 * DAY)
    retention(console)
    within = world.call("/schedule", order)
    console.stack.clock.turn(62 * DAY)
    done = retention(console)

    assert within.json() == first.json()
    letters = console.stack.records("deadLetters")
    assert letter in letters
    assert closed not in letters
    assert done["removed"]["letters"] == 1
    assert done["removed"]["audit"] == 1
    assert console.audit("action") == []


def test_a_company_keeps_its_own_for_longer_or_shorter(console: Console) -> None:
    for company in ("short", "long", "usual"):
        rule = {"short": 1, "long": 30}.get(company)
        body = {"companyId": company, "jobsDays": rule, "reason": "by contract"}
        console.done("/retention", body, "admin")
    jobs = {name: queued(console, companyId=name) for name in ("short", "long", "usual")}

    left = []
    for days in (2, 6, 23):
        console.stack.clock.turn(days * DAY)
        retention(console)
        left.append([name for name, job in jobs.items() if job in finished(console)])

    assert left == [["long", "usual"], ["long"], []]


def test_of_the_young_ones_the_last_thousand_and_five_thousand_are_kept(console: Console) -> None:
    fill(console, "completed", 1003)
    fill(console, "failed", 5002)

    done = retention(console)

    left = console.stack.records("scheduledJobs")
    assert done["removed"]["jobs"] == 5
    assert {"completed-0", "completed-1", "completed-2", "failed-0", "failed-1"}.isdisjoint(left)
    assert len(left) == 6000


def test_a_run_that_is_cut_off_goes_on_where_it_stopped_and_costs_what_it_removes(
    console: Console,
) -> None:
    fill(console, "completed", 500, age=10 * DAY)
    fill(console, "failed", 300)
    wire = console.stack.proxy
    second = iter((False, True))
    wire.on_call(lambda call: wire.down(), "Commit", when=lambda request: next(second, False))

    cut_off = console.stack.post("maintain", "/retention", {}, role="scheduler")
    wire.heal()
    left = len(console.stack.records("scheduledJobs"))
    rest = retention(console)
    before = wire.counts("maintain")
    nothing = retention(console)
    spent = wire.counts("maintain") - before

    assert cut_off.status_code == 503
    assert left == 400  # the cut took the second answer, not what it answered
    assert rest["removed"]["jobs"] == 100
    assert nothing["removed"]["jobs"] == 0
    assert spent.documents_read < 20
    assert spent.documents_written == 0


def queued(console: Console, **more: Any) -> str:
    """A job that has run by the time this returns, unless it is for later; its id."""
    job = {"type": "promote", "reason": "a test", **more}
    answer = console.done("/jobs/queue", job, "admin")
    console.stack.settle()
    job_id: str = answer["jobId"]
    return job_id


def retention(console: Console) -> dict[str, Any]:
    answer = console.stack.post("maintain", "/retention", {}, role="scheduler")
    assert answer.status_code == 200, answer.text
    done: dict[str, Any] = answer.json()
    return done


def finished(console: Console) -> set[str]:
    jobs = console.stack.records("scheduledJobs")
    return {name for name, job in jobs.items() if job.get("completedAt")}


def fill(console: Console, status: str, count: int, age: timedelta = timedelta(0)) -> None:
    """Finished jobs, one a second, the last one `age` ago."""
    end = console.stack.clock.now() - age
    for start in range(0, count, 500):
        batch = console.stack.db.batch()
        for number in range(start, min(start + 500, count)):
            at = end - timedelta(seconds=count - number)
            job = {
                "type": "promote",
                "payload": {},
                "companyId": COMPANY,
                "status": status,
                "completedAt": at,
                "expireAt": at + 7 * DAY,
            }
            batch.set(console.stack.db.document("scheduledJobs", f"{status}-{number}"), job)
        batch.commit()
