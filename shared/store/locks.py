"""Who may run: locks with a lease and a fencing token, and the slots of a schedule that are spent.

A lock is taken, renewed and given back by writes that stand in the commits of the work it protects,
each guarded by the lock's update time: a holder that was overtaken cannot commit anything more.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from google.cloud import firestore
from google.cloud.firestore_v1.document import DocumentReference

from shared.domain import leases, slots
from shared.domain.analytics import Lock
from shared.domain.records import SCHEMA_VERSION
from shared.domain.slots import LastSlot
from shared.store.firestore import (
    Firestore,
    LostRaceError,
    Snapshot,
    UncertainError,
    Write,
    races,
)


class Slots:
    """`locks/slot-{job}`, for each job that Cloud Scheduler calls and that runs once a slot."""

    def __init__(self, db: Firestore) -> None:
        self._db = db

    def missed(self, jobs: Sequence[str]) -> list[tuple[str, datetime]]:
        """The slots that passed without a run, each told once. A job seen for the first time is
        watched from now on."""
        found = self._db.read([slot_ref(self._db, job) for job in jobs])
        missed = zip(jobs, map(self._missed, jobs, found), strict=True)
        return [(job, at) for job, slots in missed for at in slots]

    def _missed(self, job: str, seen: Snapshot) -> list[datetime]:
        for attempt in races():
            if attempt:
                [seen] = self._db.read([seen.reference])
            now = self._db.clock.now()
            last = last_slot(seen)
            if last is None:
                write = Write(seen.reference, slots.watched(job, now).document(), create=True)
                missed = []
            else:
                missed = slots.missed(last, now - slots.GRACE)
                if not missed:
                    return []
                data = {"missedUntil": missed[-1], "updatedAt": now}
                write = Write(seen.reference, data, guard=seen.update_time)
            try:
                self._db.commit([write])
            except LostRaceError:
                continue
            except UncertainError:
                return missed  # told of twice rather than not at all
            return missed
        raise AssertionError("unreachable")


def slot_ref(db: Firestore, job: str) -> DocumentReference:
    return db.ref("locks", f"slot-{job}")


def last_slot(seen: Snapshot) -> LastSlot | None:
    return LastSlot.model_validate(seen.to_dict()) if seen.exists else None


def lock_ref(db: Firestore, account_id: str) -> DocumentReference:
    return db.ref("locks", f"sync-{account_id}")


def lock_of(seen: Snapshot) -> Lock | None:
    return Lock.model_validate(seen.to_dict()) if seen.exists else None


def take(seen: Snapshot, lock: Lock, now: datetime) -> Write:
    data = {**lock.document(), "updatedAt": now}
    if seen.exists:
        return Write(seen.reference, data, guard=seen.update_time)
    data |= {"createdAt": now, "schemaVersion": SCHEMA_VERSION}
    return Write(seen.reference, data, create=True)


def renew(ref: DocumentReference, guard: datetime, now: datetime) -> Write:
    data = {"leaseEndsAt": now + leases.LEASE, "updatedAt": now}
    return Write(ref, data, guard=guard)


def release(
    ref: DocumentReference, guard: datetime, now: datetime, pause_until: int | None = None
) -> Write:
    """Given back. `pause_until` (epoch ms) tells the next holder when reading is welcome again."""
    data: dict[str, Any] = {"owner": None, "leaseEndsAt": now, "updatedAt": now}
    if pause_until is not None:
        data["pausedUntil"] = firestore.Maximum(pause_until)
    return Write(ref, data, guard=guard)
