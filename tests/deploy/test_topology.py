"""`terraform/topology.json` and the code agree: what is deployed is what is tested."""

from __future__ import annotations

import importlib.util
import json
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from shared.domain import keys, leases
from shared.edge.serve import SCHEDULER, Route
from shared.platforms import registry
from shared.queue import tasks

ROOT = Path(__file__).resolve().parents[2]
TOPOLOGY: dict[str, Any] = json.loads((ROOT / "terraform" / "topology.json").read_text())
FUNCTIONS: dict[str, Any] = TOPOLOGY["functions"]
PUBLISH_QUEUES = {
    name: queue for name, queue in TOPOLOGY["queues"].items() if queue.get("platform")
}
CLIENT_PATIENCE = timedelta(seconds=5)  # an answer on its way when the request's time is up


def test_every_function_is_in_the_topology_and_back() -> None:
    folders = {main.parent.name for main in (ROOT / "functions").glob("*/main.py")}

    assert set(FUNCTIONS) == folders


@pytest.mark.parametrize("function", sorted(FUNCTIONS))
def test_a_function_admits_the_callers_that_the_topology_names(function: str) -> None:
    admitted = {role for route in routes(function).values() for role in route.admits}

    assert admitted == set(FUNCTIONS[function]["callers"])


@pytest.mark.parametrize("function", sorted(FUNCTIONS))
def test_a_request_ends_before_its_function_is_stopped(function: str) -> None:
    rules = FUNCTIONS[function]
    longest = max(route.lasts for route in routes(function).values())

    assert timedelta(seconds=rules["requestSeconds"]) == longest
    assert longest + CLIENT_PATIENCE <= timedelta(seconds=rules["timeoutSeconds"])


def test_nobody_takes_over_an_attempt_that_may_still_act() -> None:
    stopped_after = timedelta(seconds=FUNCTIONS["publish_post"]["timeoutSeconds"])

    assert leases.SEND_WITHIN < leases.REQUEST < stopped_after <= leases.LEASE
    assert leases.LEASE <= tasks.DISPATCH_DEADLINE


def test_every_platform_has_a_queue_and_back() -> None:
    platforms = {queue["platform"]: name for name, queue in PUBLISH_QUEUES.items()}

    assert platforms == {name: keys.queue(name) for name in registry.NAMES}


@pytest.mark.parametrize("queue", sorted(PUBLISH_QUEUES))
def test_busy_answers_outlast_the_lease(queue: str) -> None:
    rules = PUBLISH_QUEUES[queue]

    assert backoffs(rules) > leases.LEASE
    assert rules["target"] == "publish_post"
    assert timedelta(seconds=rules["dispatchDeadlineSeconds"]) == tasks.DISPATCH_DEADLINE


@pytest.mark.parametrize("schedule", sorted(TOPOLOGY["schedules"]))
def test_a_schedule_calls_a_route_that_admits_it_and_waits_long_enough(schedule: str) -> None:
    rules = TOPOLOGY["schedules"][schedule]

    route = routes(rules["function"])[rules["path"]]

    assert SCHEDULER in route.admits
    assert route.method == "POST"
    assert timedelta(seconds=rules["attemptDeadlineSeconds"]) > route.lasts


def backoffs(rules: dict[str, Any]) -> timedelta:
    """All of a task's waits: doubling `maxDoublings` times, then at most `maxBackoffSeconds`."""
    least, most = rules["minBackoffSeconds"], rules["maxBackoffSeconds"]
    waits = [
        min(least * 2 ** min(retry, rules["maxDoublings"]), most)
        for retry in range(rules["maxAttempts"] - 1)
    ]
    return timedelta(seconds=sum(waits))


def routes(function: str) -> dict[str, Route]:
    found: dict[str, Route] = main_of(function).ROUTES
    return found


def main_of(function: str) -> ModuleType:
    file = ROOT / "functions" / function / "main.py"
    spec = importlib.util.spec_from_file_location(f"main_of_{function}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
