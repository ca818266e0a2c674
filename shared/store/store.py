"""All of Firestore that the jobs use, over one client."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from google.cloud import firestore

from shared.store.accounts import Accounts
from shared.store.clock import Clock
from shared.store.deliveries import Deliveries
from shared.store.firestore import Firestore

if TYPE_CHECKING:
    from shared.store.alerts import Alerts
    from shared.store.analytics import Analytics
    from shared.store.audit import Audit
    from shared.store.bulk import BulkJobs
    from shared.store.controls import Switches
    from shared.store.daily import Daily
    from shared.store.dead_letters import DeadLetters
    from shared.store.locks import Slots
    from shared.store.media_assets import MediaAssets
    from shared.store.oversight import Oversight
    from shared.store.posts import Posts
    from shared.store.retention import Retention
    from shared.store.scheduled_jobs import ScheduledJobs


class Store:
    def __init__(self, *, project: str, database: str, clock: Clock) -> None:
        """Connects lazily; `FIRESTORE_EMULATOR_HOST` is the client library's own setting."""
        db = Firestore(firestore.Client(project=project, database=database), clock)
        self._db = db
        self.clock = clock
        self.accounts = Accounts(db)
        self.deliveries = Deliveries(db)

    # What other functions ask for: one that publishes never loads it.

    @cached_property
    def alerts(self) -> Alerts:
        from shared.store.alerts import Alerts

        return Alerts(self._db)

    @cached_property
    def analytics(self) -> Analytics:
        from shared.store.analytics import Analytics

        return Analytics(self._db)

    @cached_property
    def audit(self) -> Audit:
        from shared.store.audit import Audit

        return Audit(self._db)

    @cached_property
    def bulk(self) -> BulkJobs:
        from shared.store.bulk import BulkJobs

        return BulkJobs(self._db, self.posts)

    @cached_property
    def daily(self) -> Daily:
        from shared.store.daily import Daily

        return Daily(self._db)

    @cached_property
    def dead_letters(self) -> DeadLetters:
        from shared.store.dead_letters import DeadLetters

        return DeadLetters(self._db)

    @cached_property
    def media_assets(self) -> MediaAssets:
        from shared.store.media_assets import MediaAssets

        return MediaAssets(self._db)

    @cached_property
    def oversight(self) -> Oversight:
        from shared.store.oversight import Oversight

        return Oversight(self._db)

    @cached_property
    def posts(self) -> Posts:
        from shared.store.posts import Posts

        return Posts(self._db)

    @cached_property
    def retention(self) -> Retention:
        from shared.store.retention import Retention

        return Retention(self._db)

    @cached_property
    def scheduled_jobs(self) -> ScheduledJobs:
        from shared.store.scheduled_jobs import ScheduledJobs

        return ScheduledJobs(self._db)

    @cached_property
    def slots(self) -> Slots:
        from shared.store.locks import Slots

        return Slots(self._db)

    @cached_property
    def switches(self) -> Switches:
        from shared.store.controls import Switches

        return Switches(self._db)
