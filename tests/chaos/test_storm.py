"""A short storm on the running system, and what a storm must be able to notice."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import timedelta

from shared.platforms import registry
from tests.chaos.plan import ACCOUNTS, POINTS, RARE, SPANS, Command, Order, Plan, plan
from tests.chaos.promises import Kind
from tests.chaos.storm import Begun, Storm, first_attempts
from tests.chaos.weather import PLAYED
from tests.sandbox.platforms.values import Answer, Received
from tests.sandbox.stack import Stack

NOTHING, MINUTE = timedelta(0), timedelta(minutes=1)


def test_a_seed_plans_the_same_orders_and_the_same_faults_every_time() -> None:
    first, again, other = plan(7, 200, 30), plan(7, 200, 30), plan(8, 200, 30)

    assert first == again
    assert first.faults != other.faults
    assert first.orders != other.orders


def test_every_kind_of_fault_can_be_planned_and_played() -> None:
    planned = {fault.kind for fault in plan(1, 200, 60).faults}

    assert planned == {*POINTS, *SPANS, *RARE}
    assert set(PLAYED) == planned


def test_a_storm_goes_over_every_platform_of_the_registry() -> None:
    assert {kind.platform for kind in ACCOUNTS} == set(registry.NAMES)


def test_no_promise_is_broken_in_a_short_storm_and_all_is_whole_after_it(stack: Stack) -> None:
    diary = io.StringIO()

    outcome = Storm(stack, plan(11, 50, 3), file=diary).run()

    assert [one for one in outcome.verdicts if one.findings] == []
    assert (outcome.broken, outcome.errors) == ([], 0)
    assert outcome.accepted + outcome.refused == 50
    assert outcome.rested_after is not None
    struck = [line for line in map(json.loads, diary.getvalue().splitlines()) if "what" in line]
    assert len(struck) > 10
    assert all(process.alive and not process.suspended for process in stack.everyone)
    assert not stack.proxy.before
    assert not stack.proxy.after


def test_a_post_that_the_platform_has_twice_is_noticed(stack: Stack) -> None:
    posts = stack.platforms.dialect("twitter").posts

    def again(received: Received, answer: Answer) -> None:
        posts.append(replace(posts[-1], id="4711"))

    stack.platforms.misbehave("twitter", "create post", "hook", hook=again)
    outcome = Storm(stack, one_post()).run()

    assert [found.kind for one in outcome.verdicts for found in one.findings] == [Kind.DOUBLE]
    assert outcome.failed


def test_a_post_that_comes_before_its_time_or_after_its_end_is_noticed(stack: Stack) -> None:
    edit = Command(timedelta(seconds=10), "edit", order=0)

    def early(received: Received, answer: Answer) -> None:
        posts[-1] = replace(posts[-1], at=posts[-1].at - MINUTE, text=posts[-1].text[:-6])

    posts = stack.platforms.dialect("twitter").posts
    stack.platforms.misbehave("twitter", "create post", "hook", hook=early)
    outcome = Storm(stack, replace(one_post(), commands=(edit,))).run()

    before, without = outcome.broken
    assert "before its time" in before
    assert "without the edit" in without


def test_the_first_attempt_of_a_fresh_instance_is_a_cold_one() -> None:
    lines = [
        {"instance": "a-1", "deliveryId": "one", "generation": 1, "latenessMs": 1500},
        {"instance": "a-1", "deliveryId": "two", "generation": 1, "latenessMs": 20},
        {"instance": "a-2", "deliveryId": "two", "generation": 1, "latenessMs": 900},
        {"instance": "a-2", "deliveryId": "two", "generation": 2, "latenessMs": 30},
    ]

    assert [*first_attempts(lines)] == [Begun(1.5, True), Begun(0.02, False), Begun(0.03, False)]


def one_post() -> Plan:
    """To X, in calm weather."""
    [kind] = [kind for kind in ACCOUNTS if kind.platform == "twitter"]
    order = Order(0, NOTHING, MINUTE, targets=(0,), shows=False, goes_on=False, latest_after=None)
    return Plan(5, MINUTE, (kind,), (order,), commands=(), faults=())
