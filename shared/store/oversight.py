"""What an operator asks of deliveries: how many are stuck, which ones, and whose a post is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from shared.domain import changes, keys
from shared.domain.dead_letters import LetterStatus
from shared.domain.deliveries import Change, PublishLog, Status
from shared.store import queries
from shared.store.deliveries import parse, writes
from shared.store.firestore import (
    Firestore,
    LostRaceError,
    UncertainError,
    fresh_id,
    races,
)

_NO_ORDER = datetime.min.replace(tzinfo=UTC)  # a query by id alone ignores the instant
HELD_BY_A_PAUSE = (Status.WAITING, Status.UNKNOWN, Status.ACCEPTED, Status.PROCESSING)


class Oversight:
    def __init__(self, db: Firestore) -> None:
        self._db = db

    def counts(self) -> dict[str, int]:
        """Open letters, overdue deliveries, and how many deliveries are in each troubled state."""
        now = self._db.read_the_time()
        counted = {
            "openDeadLetters": self._count(queries.OPEN_LETTERS, str(LetterStatus.OPEN)),
            "overdue": self._count(queries.TO_SWEEP, until=now),
        }
        states = (Status.UNKNOWN, Status.PROCESSING, Status.RETRY, Status.WAITING, Status.ACCEPTED)
        return counted | {str(state): self._count(queries.IN_STATE, str(state)) for state in states}

    def _count(self, query: queries.Query, *values: Any, until: datetime | None = None) -> int:
        most = 1_000_000
        return self._db.count(queries.build(self._db, query, *values, until=until, limit=most))

    def in_state(
        self, status: Status, where: Mapping[str, Any], *, after: str | None = None, limit: int
    ) -> list[PublishLog]:
        """Deliveries in a state, by id; `where` names company, platform or account."""
        query = queries.page(
            self._db,
            queries.IN_STATE,
            str(status),
            optional=where,
            after=(_NO_ORDER, after) if after else None,
            limit=limit,
        )
        return [parse(seen) for seen in self._db.query(query)]

    def paused(self, where: Mapping[str, Any], limit: int) -> list[PublishLog]:
        """Deliveries that a pause of this scope has put to sleep."""
        found: list[PublishLog] = []
        for status in HELD_BY_A_PAUSE:
            found += self._with_code("paused", status, where, limit)
        return found

    def unlooked(self, account_id: str, limit: int) -> list[PublishLog]:
        """An account's deliveries that are unknown and that there was no token to look for."""
        where = {"accountId": account_id}
        found = [self._with_code(code, Status.UNKNOWN, where, limit) for code in changes.TOKENLESS]
        return [log for logs in found for log in logs]

    def _with_code(
        self, code: str, status: Status, where: Mapping[str, Any], limit: int
    ) -> list[PublishLog]:
        query = queries.page(
            self._db, queries.IN_STATE_BY_CODE, code, str(status), optional=where, limit=limit
        )
        return [parse(seen) for seen in self._db.query(query)]

    def last_success(self, platform: str) -> datetime | None:
        query = queries.build(
            self._db, queries.LAST_SUCCESS, platform, str(Status.SUCCESS), limit=1
        )
        return next((parse(seen).published_at for seen in self._db.query(query)), None)

    def move(
        self, delivery: str, decide: Callable[[PublishLog, datetime], Change | None]
    ) -> Change | None:
        """One change of a delivery, guarded by its log; None when there was nothing to change."""
        ref = self._db.ref("publishLogs", delivery)
        commit_id = fresh_id()
        written: Change | None = None
        for _ in races():
            [seen] = self._db.read([ref])
            if not seen.exists:
                return None
            log = parse(seen)
            if written is not None and log.commit_id == commit_id:
                return written
            written = decide(log, self._db.clock.now())
            if written is None:
                return None
            stamped = written.log.model_copy(update={"commit_id": commit_id})
            change = Change(stamped, wakes=written.wakes)
            try:
                self._db.commit(writes(self._db, log, change, seen.update_time))
            except (LostRaceError, UncertainError):
                continue
            return change
        raise AssertionError("unreachable")

    def owner_of(self, platform: str, remote_id: str) -> str | None:
        """The delivery that a post on the platform belongs to; None when nobody's."""
        claimed = self._db.ref("remoteIds", keys.remote_id(platform, remote_id))
        [owner] = self._db.read([claimed])
        if owner.exists:
            return str(owner.get("deliveryId"))
        query = queries.build(self._db, queries.BY_REMOTE_ID, platform, remote_id, limit=1)
        return next((seen.id for seen in self._db.query(query)), None)
