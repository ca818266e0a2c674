"""One system for the whole run, a fresh world in it for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sandbox.stack import Stack
from tests.world import World


@pytest.fixture(scope="session")
def running() -> Iterator[Stack]:
    """The whole system, with two instances of what races are played with. Scheduler's jobs are
    fired by hand."""
    instances = {"publish_post": 2, "schedule_post": 3, "console": 2}
    with Stack(instances=instances, schedules=False) as stack:
        yield stack


@pytest.fixture
def stack(running: Stack) -> Iterator[Stack]:
    running.reset()
    yield running
    running.heal()


@pytest.fixture
def world(stack: Stack) -> World:
    return World(stack)
