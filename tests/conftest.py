"""One system for the whole run, a fresh world in it for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from tests.sandbox.stack import Stack
from tests.world import World

# By the seconds that they take. Begun last, one of them would be waited for alone.
LONGEST = (
    "tests/chaos/test_points.py",
    "tests/deploy/test_terraform",
    "tests/test_front_door.py",
    "tests/behaviour/test_bulk_import.py",
    "tests/behaviour/test_sync.py",
    "tests/behaviour/test_model.py",
    "tests/behaviour/test_notifier.py",
    "tests/behaviour/test_callers.py",
    "tests/behaviour/test_threads.py",
    "tests/behaviour/test_bulk_export.py",
    "tests/deploy/test_archives.py",
)


class LongestFirst(LoadFileScheduling):
    """Files in the order of their collection, not of how many tests they hold; those that look at
    what Terraform deploys go to one worker, which makes it once."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return next((name for name in LONGEST if file.startswith(name)), file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def turn(item: pytest.Item) -> int:
        begun = (at for at, name in enumerate(LONGEST) if item.nodeid.startswith(name))
        return next(begun, len(LONGEST))

    items.sort(key=turn)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LongestFirst:
    config.option.loadscopereorder = False
    return LongestFirst(config, log)


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
