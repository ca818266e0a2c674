"""Which alerts have been sent: a marker per dead letter or unknown delivery, claimed while it is
being sent. A sender that dies leaves its lease to run out; its task comes again."""

from __future__ import annotations

from datetime import timedelta

from shared.domain import keys, leases
from shared.domain.markers import Marker
from shared.store.firestore import (
    Firestore,
    LostRaceError,
    UncertainError,
    Write,
    races,
)

JOB_TYPE = "notify"
LEASE = timedelta(seconds=30)


class Alerts:
    def __init__(self, db: Firestore) -> None:
        self._db = db

    def claim(self, about: str, owner: str) -> bool | None:
        """True: send it now. False: it was sent, or given up. None: somebody is sending it."""
        ref = self._db.ref("idempotencyMarkers", keys.marker_id(JOB_TYPE, "", about))
        for _ in races():
            [seen] = self._db.read([ref])
            now = self._db.clock.now()
            if not seen.exists:
                marker = Marker(
                    job_type=JOB_TYPE,
                    company_id="",
                    key=about,
                    state="started",
                    fingerprint=owner,
                    lease_ends_at=now + LEASE,
                    fencing_token=1,
                    started_at=now,
                    expire_at=now + leases.MARKER_KEPT,
                    created_at=now,
                    updated_at=now,
                )
                write = Write(ref, marker.document(), create=True)
            else:
                known = Marker.model_validate(seen.to_dict())
                if known.state in ("completed", "failed"):
                    return False
                if known.lease_ends_at is not None and now < known.lease_ends_at:
                    return True if known.fingerprint == owner else None
                again = {
                    "fingerprint": owner,
                    "leaseEndsAt": now + LEASE,
                    "fencingToken": known.fencing_token + 1,
                    "updatedAt": now,
                }
                write = Write(ref, again, guard=seen.update_time)
            try:
                self._db.commit([write])
            except (LostRaceError, UncertainError):
                continue
            return True
        raise AssertionError("unreachable")

    def settle(self, about: str, owner: str, *, state: str) -> None:
        """`started` gives the claim back for a later attempt; best effort, the lease runs out."""
        ref = self._db.ref("idempotencyMarkers", keys.marker_id(JOB_TYPE, "", about))
        for _ in races():
            [seen] = self._db.read([ref])
            if not seen.exists or seen.get("fingerprint") != owner:
                return
            now = self._db.clock.now()
            ended = None if state == "started" else now
            data = {
                "state": state,
                "leaseEndsAt": None,
                "completedAt": ended,
                "updatedAt": now,
            }
            try:
                self._db.commit([Write(ref, data, guard=seen.update_time)])
            except (LostRaceError, UncertainError):
                continue
            return
