"""One system for the whole run, a fresh world in it for each test."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator

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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With a failure, what the system went through: without that, a rare one tells nothing."""
    report = yield
    stack = getattr(item, "funcargs", {}).get("running")
    if report.when == "call" and report.failed and stack is not None:
        report.sections.append(("what the system went through", "\n".join(_history(stack))))
    return report


def _history(stack: Stack) -> Iterator[str]:
    yield f"sandbox's clock: {stack.clock.now():%H:%M:%S.%f}"
    for one in stack.tasks.attempts[-20:]:
        path, answer = one.request.url.rpartition("/")[2], one.answer[:300].decode(errors="replace")
        yield f"{one.dispatched_at:%H:%M:%S.%f} {one.queue} /{path} {one.status} {answer}"
    for function, line in stack.lines[-40:]:
        yield f"{function}: {json.dumps(line)[:400]}"


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
