"""What `make cost` multiplies by prices is what is counted at the wire."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from tests.sandbox import bench_sync
from tests.sandbox.children import SandboxError
from tests.sandbox.stack import Stack
from tests.world import World
from tools import cost

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
POSTS = 100  # as many as X tells of at once
ROUGHLY = ("logBytes", "storedBytes")
SCHEDULES = ("sweep", "promote", "refresh", "retention", "aggregate", "sync-analytics")
KEPT = ("scheduledPosts", "publishLogs", "idempotencyMarkers", "remoteIds")


def test_what_each_story_comes_to_is_what_was_counted(world: World) -> None:
    known = cost.read("operations.json")["stories"]

    found = dict(stories(world, {name: story["requests"] for name, story in known.items()}))

    assert {name: exact(story) for name, story in found.items()} == {
        name: exact(story) for name, story in known.items()
    }
    for name, story in found.items():
        for rough in ROUGHLY:
            assert story.get(rough, 0) == pytest.approx(known[name].get(rough, 0), rel=0.3), name


def exact(story: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in story.items() if key not in (*ROUGHLY, "seconds")}


def stories(world: World, requests: Mapping[str, int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each thing that happens, by name, with what it comes to. `requests` are those whose log
    lines are waited for."""
    stack = world.stack
    stack.post("sync_analytics", "/", {})  # it starts at its first request, as the next one does
    stack.post("maintain", "/promote", {}, role="scheduler")
    for name in SCHEDULES:
        stack.scheduler.fire(name)  # the first one puts its own records down
    stack.clock.turn(DAY)
    stack.scheduler.fire("sweep")  # and this one tells of the slots that were jumped over

    def counts(
        name: str, function: str, work: Callable[[], object], **more: Any
    ) -> tuple[str, dict[str, Any]]:
        return name, counted(stack, function, work, requests[name]) | more

    for name in SCHEDULES:
        function = "sync_analytics" if name == "sync-analytics" else "maintain"
        yield counts(f"idle {name}", function, partial(stack.scheduler.fire, name))

    x = world.account("twitter")
    connected = ("schedule_post", "request.served")  # its line is not one of the next story's
    stack.until(lambda: connected in [(name, line["event"]) for name, line in stack.lines])
    stack.platforms.twitter.tokens[x.access_token].expires_at += 9 * DAY
    yield counts("schedule", "schedule_post", lambda: world.schedule(x, after=HOUR))
    name, published = counts("publish", "publish_post", partial(turn, stack))
    yield name, published | {"storedBytes": stored(stack)}
    yield counts("read after an hour", "sync_analytics", partial(turn, stack))

    bench_sync.seed(world, 1, POSTS)
    yield counts("read a batch", "sync_analytics", lambda: sync(stack), posts=POSTS)
    stack.clock.turn(DAY)
    fire = partial(stack.scheduler.fire, "aggregate")
    yield counts("add up a day", "maintain", fire, posts=POSTS)


def turn(stack: Stack) -> None:
    stack.clock.turn(HOUR)
    stack.settle(60)


def sync(stack: Stack) -> None:
    stack.post("sync_analytics", "/", {"idempotencyKey": "k"})
    stack.settle(60)


def counted(
    stack: Stack, function: str, work: Callable[[], object], requests: int
) -> dict[str, Any]:
    """What a function does meanwhile. A query that finds nothing is billed as one read."""
    before, lines = stack.proxy.counts(function), len(stack.lines)
    attempts, waiting = len(stack.tasks.attempts), tasks(stack)
    work()

    def told(event: str | None = None) -> list[dict[str, Any]]:
        of_function = [line for name, line in stack.lines[lines:] if name == function]
        return [line for line in of_function if event in (None, line["event"])]

    with suppress(SandboxError):  # too few show in what is compared
        stack.until(lambda: len(told("request.served")) >= requests)
    spent = stack.proxy.counts(function) - before
    delivered = len(stack.tasks.attempts) - attempts
    made = tasks(stack) - waiting + delivered
    queries = spent.calls.get("RunQuery", 0) + spent.calls.get("RunAggregationQuery", 0)
    return {
        "function": function,
        "requests": len(told("request.served")),
        "reads": spent.documents_read + (0 if spent.documents_written else queries),
        "writes": spent.documents_written,
        "taskOperations": made + delivered,
        "logBytes": sum(len(json.dumps(line, ensure_ascii=False)) for line in told()),
    }


def tasks(stack: Stack) -> int:
    return sum(len(stack.tasks.tasks(queue.name)) for queue in stack.tasks.queues())


def stored(stack: Stack) -> int:
    """Bytes of the records that a published post leaves; as much again goes to their indexes."""
    records = [record for name in KEPT for record in stack.records(name).values()]
    return 2 * sum(len(json.dumps(record, default=str)) for record in records)
