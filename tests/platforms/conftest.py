"""One platform server for the run, forgetting everything between tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shared.platforms.driver import Driver
from tests.platforms.stage import Files, Stage
from tests.sandbox.clock import Clock
from tests.sandbox.platforms.server import PlatformServer


@pytest.fixture(scope="session")
def platform_server() -> Iterator[PlatformServer]:
    server = PlatformServer(Clock()).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def driver(platform_server: PlatformServer) -> Driver:
    return Driver(Files(platform_server))


@pytest.fixture
def stage(platform_server: PlatformServer, driver: Driver) -> Iterator[Stage]:
    yield Stage(platform_server, driver)
    platform_server.reset()
    clock = platform_server.clock
    assert isinstance(clock, Clock)
    clock.reset()
