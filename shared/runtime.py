"""Builds the handles that jobs use, once per instance and only when first needed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING

from shared import config
from shared.observability import Log
from shared.platforms.base import App, Platform
from shared.platforms.registry import Registry
from shared.queue.tasks import TaskQueue
from shared.security.callers import Callers
from shared.security.tokens import Vault, parse_keys
from shared.store.clock import Clock
from shared.store.store import Store

if TYPE_CHECKING:
    from shared.platforms.driver import Driver
    from shared.storage.files import Files
    from shared.storage.media import MediaStorage


@dataclass
class Runtime:
    """Handles of one function's instance. Safe to use from several threads."""

    environment: config.Environment
    function: str
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.log = Log(self.environment.settings.project)

    def now(self) -> datetime:
        return self.clock.now()

    def jitter(self) -> float:
        return random.random()

    @cached_property
    def callers(self) -> Callers:
        settings = self.environment.settings
        return Callers(
            mode=settings.auth_mode,
            signatures=settings.signatures,
            certs_url=settings.certs_url,
            audience=self.environment.url(self.function),
            roles=settings.callers(),
            secrets=settings.secrets,
        )

    @cached_property
    def store(self) -> Store:
        settings = self.environment.settings
        return Store(project=settings.project, database=settings.database, clock=self.clock)

    @cached_property
    def queue(self) -> TaskQueue:
        settings = self.environment.settings
        return TaskQueue(
            project=settings.project,
            location=settings.location,
            url=self.environment.url,
            service_account=settings.tasks_account,
            secret=settings.webhook_secret,
            emulator_host=settings.tasks_host,
            default_queue=settings.default_queue,
            alerts=settings.alert_webhook_url is not None,
        )

    @cached_property
    def platforms(self) -> Mapping[str, Platform]:
        return Registry(self._app)

    def _app(self, platform: type[Platform]) -> App:
        setting = self.environment.app
        return App(
            api_url=(setting(platform.name, "API_URL") or platform.api_url).rstrip("/"),
            auth_url=setting(platform.name, "AUTH_URL") or platform.auth_url,
            client_id=setting(platform.name, "CLIENT_ID"),
            client_secret=setting(platform.name, "CLIENT_SECRET"),
            api_version=setting(platform.name, "API_VERSION"),
        )

    @cached_property
    def driver(self) -> Driver:
        from shared.platforms.driver import Driver  # HTTP: not for a task that only replays

        return Driver(self.media)

    @cached_property
    def media(self) -> MediaStorage:
        from shared.storage.media import MediaStorage

        return MediaStorage(bucket=self.environment.settings.media_bucket)

    @cached_property
    def files(self) -> Files:
        from shared.storage.files import Files

        settings = self.environment.settings
        bucket = settings.bulk_bucket or settings.media_bucket
        if bucket is None:
            raise config.SettingsError("BULK_BUCKET or MEDIA_BUCKET is needed for files.")
        return Files(bucket=bucket)

    @cached_property
    def vault(self) -> Vault:
        try:
            return Vault(parse_keys(self.environment.settings.token_keys))
        except ValueError as error:
            raise config.SettingsError(f"TOKEN_KEYS: {error}") from None


_runtimes: dict[str, Runtime] = {}
_building = Lock()


def runtime(function: str) -> Runtime:
    """The instance's runtime. Raises `SettingsError` for an environment that cannot be used."""
    with _building:
        if function not in _runtimes:
            _runtimes[function] = Runtime(config.load(), function)
        return _runtimes[function]
