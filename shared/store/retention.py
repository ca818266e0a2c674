"""Removes what is finished and old. Each record goes only as it was read: one that came to life
again meanwhile stays."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from shared.domain import retention
from shared.domain.dead_letters import LetterStatus
from shared.domain.retention import Rules
from shared.domain.scheduled_jobs import JobStatus
from shared.store import queries
from shared.store.firestore import Firestore, LostRaceError, Snapshot, UncertainError, Write

BATCH = 200


class Retention:
    """Each verb removes one batch, and says how many records it dealt with: 0 when all is done."""

    def __init__(self, db: Firestore) -> None:
        self._db = db

    def jobs(self, rules: Rules) -> tuple[int, int]:
        """Removed, and kept longer because their company wants it."""
        return self._expired(queries.EXPIRED_JOBS, "completedAt", rules.jobs)

    def audit(self, rules: Rules) -> tuple[int, int]:
        return self._expired(queries.EXPIRED_AUDIT, "at", rules.audit)

    def _expired(
        self, query: queries.Query, since: str, kept: Callable[[str | None], timedelta]
    ) -> tuple[int, int]:
        now = self._now()
        gone: list[Snapshot] = []
        longer = 0
        for seen in self._db.query(queries.build(self._db, query, until=now, limit=BATCH)):
            data = seen.to_dict() or {}
            expires = data[since] + kept(data.get("companyId"))
            if expires <= now:
                gone.append(seen)
            else:
                longer += self._keep(seen, expires)
        return self._remove(gone), longer

    def _keep(self, seen: Snapshot, until: datetime) -> int:
        try:
            self._db.commit([Write(seen.reference, {"expireAt": until}, guard=seen.update_time)])
        except (LostRaceError, UncertainError):
            return 0
        return 1

    def jobs_of(self, company_id: str, days: timedelta) -> int:
        """Of a company that keeps less than the rule."""
        return self._sooner(queries.FINISHED_JOBS_OF_COMPANY, company_id, days)

    def audit_of(self, company_id: str, days: timedelta) -> int:
        return self._sooner(queries.AUDIT_OF_COMPANY, company_id, days)

    def _sooner(self, query: queries.Query, company_id: str, days: timedelta) -> int:
        until = self._now() - days
        built = queries.build(self._db, query, company_id, until=until, limit=BATCH)
        return self._remove(self._db.query(built))

    def surplus(self, status: JobStatus, most: int) -> int:
        """Of finished jobs, the oldest beyond the number that is kept at most."""
        counted = queries.build(self._db, queries.FINISHED_JOBS, str(status), limit=most + BATCH)
        over = self._db.count(counted) - most
        if over <= 0:
            return 0
        oldest = queries.build(self._db, queries.FINISHED_JOBS, str(status), limit=over)
        return self._remove(self._db.query(oldest))

    def letters(self) -> int:
        """Closed dead letters; an open one is never asked for."""
        until = self._now() - timedelta(days=retention.LETTERS_DAYS)
        removed = 0
        for status in (LetterStatus.REDRIVEN, LetterStatus.DISCARDED):
            query = queries.build(
                self._db, queries.CLOSED_LETTERS, str(status), until=until, limit=BATCH
            )
            removed += self._remove(self._db.query(query))
        return removed

    def _remove(self, gone: list[Snapshot]) -> int:
        return self._db.remove(gone) if gone else 0

    def _now(self) -> datetime:
        """A query that finds nothing brings no read time; one small read does."""
        self._db.read([self._db.ref("controls", "retention")])
        return self._db.clock.now()
