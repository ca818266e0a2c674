"""What `make cost` multiplies by prices is what is counted at the wire."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from tests.sandbox import bench_sync
from tests.sandbox.stack import Stack
from tests.world import World
from tools import cost

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
POSTS = 100  # as many as X tells of at once
ROUGHLY = ("logBytes", "storedBytes")
SCHEDULES = ("sweep", "promote", "retention", "aggregate", "sync-analytics")
KEPT = ("scheduledPosts", "publishLogs", "idempotencyMarkers", "remoteIds")


def test_what_each_story_comes_to_is_what_was_counted(world: World) -> None:
    known = cost.read("operations.json")["stories"]

    found = dict(stories(world))

    assert {name: exact(story) for name, story in found.items()} == {
        name: exact(story) for name, story in known.items()
    }
    for name, story in found.items():
        for rough in ROUGHLY:
            assert story.get(rough, 0) == pytest.approx(known[name].get(rough, 0), rel=0.3), name


def exact(story: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in story.items() if key not in (*ROUGHLY, "seconds")}


def stories(world: World) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each thing that happens, by name, with what it comes to."""
    stack = world.stack
    stack.get("bulk", "/jobs", companyId="acme", jobId="none")
    for name in SCHEDULES:
        stack.scheduler.fire(name)  # the first one puts its own records down
    stack.clock.turn(DAY)
    stack.scheduler.fire("sweep")  # and this one tells of the slots that were jumped over
    for name in SCHEDULES:
        function = "sync_analytics" if name == "sync-analytics" else "maintain"
        fire = stack.scheduler.fire
        yield f"idle {name}", counted(stack, function, lambda name=name, fire=fire: fire(name))

    x = world.account("twitter")
    stack.platforms.twitter.tokens[x.access_token].expires_at += 9 * DAY
    yield "schedule", counted(stack, "schedule_post", lambda: world.schedule(x, after=HOUR))
    published = counted(stack, "publish_post", lambda: stack.turn(HOUR))
    yield "publish", published | {"storedBytes": stored(stack)}
    yield "read after an hour", counted(stack, "sync_analytics", lambda: stack.turn(HOUR))

    bench_sync.seed(world, 1, POSTS)
    asked = {"idempotencyKey": "k"}
    read = counted(
        stack,
        "sync_analytics",
        lambda: (stack.post("sync_analytics", "/", asked), stack.settle(60)),
    )
    yield "read a batch", read | {"posts": POSTS}
    stack.clock.turn(DAY)
    aggregated = counted(stack, "maintain", lambda: stack.scheduler.fire("aggregate"))
    yield "add up a day", aggregated | {"posts": POSTS}


def counted(stack: Stack, function: str, work: Callable[[], object]) -> dict[str, Any]:
    """What a function does meanwhile. A query that finds nothing is billed as one read."""
    before, lines = stack.proxy.counts(function), len(stack.lines)
    attempts, waiting = len(stack.tasks.attempts), tasks(stack)
    work()
    told = [line for name, line in stack.lines[lines:] if name == function]
    spent = stack.proxy.counts(function) - before
    delivered = len(stack.tasks.attempts) - attempts
    made = tasks(stack) - waiting + delivered
    queries = spent.calls.get("RunQuery", 0) + spent.calls.get("RunAggregationQuery", 0)
    return {
        "function": function,
        "requests": sum(line["event"] == "request.served" for line in told),
        "reads": spent.documents_read + (0 if spent.documents_written else queries),
        "writes": spent.documents_written,
        "taskOperations": made + delivered,
        "logBytes": sum(len(json.dumps(line, ensure_ascii=False)) for line in told),
    }


def tasks(stack: Stack) -> int:
    return sum(len(stack.tasks.tasks(queue.name)) for queue in stack.tasks.queues())


def stored(stack: Stack) -> int:
    """Bytes of the records that a published post leaves; as much again goes to their indexes."""
    records = [record for name in KEPT for record in stack.records(name).values()]
    return 2 * sum(len(json.dumps(record, default=str)) for record in records)
