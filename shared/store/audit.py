"""Who did what, when and why: one entry in the commit that does it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from shared.domain import retention
from shared.domain.failures import UnavailableError
from shared.domain.records import SCHEMA_VERSION
from shared.store import queries
from shared.store.firestore import Firestore, UncertainError, Write, fresh_id


def entry(db: Firestore, entry_id: str, audit: Mapping[str, Any], now: datetime) -> Write:
    """The entry as a write. A commit that is tried again writes the same entry: one act, one id."""
    data = {
        **audit,
        "at": now,
        "expireAt": retention.audit_expires(now),
        "createdAt": now,
        "updatedAt": now,
        "schemaVersion": SCHEMA_VERSION,
    }
    return Write(db.ref("auditLog", entry_id), data, replace=True)


class Audit:
    def __init__(self, db: Firestore) -> None:
        self._db = db

    def add(self, audit: Mapping[str, Any]) -> None:
        """For what is done outside Firestore: the entry stands before it is done."""
        entry_id = fresh_id()
        for _ in range(2):
            try:
                self._db.commit([entry(self._db, entry_id, audit, self._db.clock.now())])
            except UncertainError:
                continue
            return
        message = "The audit entry could not be written, so nothing was done. Try again."
        raise UnavailableError(message, code="database_down")

    def page(
        self,
        equal: Mapping[str, Any],
        *,
        since: datetime | None,
        until: datetime | None,
        after: tuple[datetime, str] | None,
        limit: int,
    ) -> list[tuple[str, dict[str, Any]]]:
        """Entries, newest first."""
        query = queries.page(
            self._db,
            queries.AUDIT,
            optional=equal,
            since=since,
            until=until,
            after=after,
            limit=limit,
        )
        return [(seen.id, seen.to_dict() or {}) for seen in self._db.query(query)]
