"""Jobs that a person queued: created with their audit entry, claimed, settled under the claim."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from shared.domain import keys, markers, scheduled_jobs
from shared.domain.failures import ConflictError
from shared.domain.markers import Answered, Keyed, Marker, Mismatch
from shared.domain.scheduled_jobs import Claimed, Decision, Held, ScheduledJob
from shared.store import audit, queries
from shared.store.firestore import (
    Firestore,
    LostRaceError,
    Snapshot,
    UncertainError,
    Write,
    fresh_id,
    races,
)


class ScheduledJobs:
    def __init__(self, db: Firestore) -> None:
        self._db = db

    def create(
        self,
        keyed: Keyed,
        build: Callable[[datetime], ScheduledJob],
        told: Mapping[str, Any],
    ) -> tuple[dict[str, Any], ScheduledJob | None]:
        """The answer, the same for the same key, and the job itself: None when it has been removed
        since. Raises `ConflictError` for the key of another job."""
        job_id = keys.job_id(keyed.job_type, keyed.key)
        ref, marker_ref = self._ref(job_id), self._db.ref("idempotencyMarkers", keyed.marker_id)
        for _ in races():
            marker, seen = self._db.read([marker_ref, ref])
            now = self._db.clock.now()
            known = Marker.model_validate(marker.to_dict()) if marker.exists else None
            match markers.look(known, keyed.fingerprint, now):
                case Answered(response):
                    return response, _parse(seen) if seen.exists else None
                case Mismatch():
                    message = f"The idempotency key {keyed.key!r} was used for another job."
                    raise ConflictError(message, code="idempotency_key_reused")
            job = build(now)
            response = {
                "jobId": job_id,
                "type": job.type,
                "scheduledFor": job.scheduled_for.isoformat(),
            }
            kept = markers.completed(keyed, response, now).document()
            batch = [
                Write(marker_ref, kept, guard=marker.update_time)
                if marker.exists
                else Write(marker_ref, kept, create=True),
                Write(ref, job.document(), replace=True),
                audit.entry(self._db, fresh_id(), {**told, "jobId": job_id}, now),
            ]
            try:
                self._db.commit(batch)
            except (LostRaceError, UncertainError):
                continue  # the marker shows whose commit it was
            return response, job
        raise AssertionError("unreachable")

    def begin(self, job_id: str) -> Decision | None:
        """Claim a job for one run; None when there is no such job."""
        owner = fresh_id()
        for _ in races():
            [seen] = self._db.read([self._ref(job_id)])
            if not seen.exists:
                return None
            job = _parse(seen)
            if job.owner == owner:
                return Claimed(job)
            decision = scheduled_jobs.begin(job, self._db.clock.now(), owner=owner)
            if isinstance(decision, Held) or decision.job is job:
                return decision
            if self._write(seen, decision.job):
                return decision
        raise AssertionError("unreachable")

    def settle(
        self, job_id: str, claimed: ScheduledJob, decide: Callable[[datetime], ScheduledJob]
    ) -> ScheduledJob | None:
        """What became of a run; None when another run has taken over."""
        after: ScheduledJob | None = None
        for _ in races():
            [seen] = self._db.read([self._ref(job_id)])
            if not seen.exists:
                return None
            job = _parse(seen)
            if after is not None and (job.hop, job.status) == (after.hop, after.status):
                return after
            if job.owner != claimed.owner:
                return None
            after = decide(self._db.clock.now())
            if self._write(seen, after):
                return after
        raise AssertionError("unreachable")

    def sweep(self, limit: int) -> list[tuple[str, ScheduledJob]]:
        """New hops for jobs that nobody woke, or whose run died: their tasks are to be made."""
        now = self._db.clock.now()
        query = queries.build(self._db, queries.JOBS_TO_SWEEP, until=now, limit=limit)
        woken = []
        for seen in self._db.query(query):
            again = scheduled_jobs.sweep(_parse(seen), now)
            if again is not None and self._write(seen, again):
                woken.append((seen.id, again))
        return woken

    def read(self, job_id: str) -> ScheduledJob | None:
        [seen] = self._db.read([self._ref(job_id)])
        return _parse(seen) if seen.exists and "payload" in (seen.to_dict() or {}) else None

    def page(
        self, equal: Mapping[str, Any], *, after: tuple[datetime, str] | None, limit: int
    ) -> tuple[list[tuple[str, ScheduledJob]], tuple[datetime, str] | None]:
        """Jobs, newest first, and where the page ended if it is full. The last slots of Scheduler's
        jobs lie beside them and are none."""
        query = queries.page(self._db, queries.JOBS, optional=equal, after=after, limit=limit)
        found = self._db.query(query)
        last = (found[-1].get("createdAt"), found[-1].id) if len(found) == limit else None
        jobs = [seen for seen in found if "payload" in (seen.to_dict() or {})]
        return [(seen.id, _parse(seen)) for seen in jobs], last

    def _ref(self, job_id: str) -> Any:
        return self._db.ref("scheduledJobs", job_id)

    def _write(self, seen: Snapshot, job: ScheduledJob) -> bool:
        try:
            self._db.commit([Write(seen.reference, job.document(), guard=seen.update_time)])
        except (LostRaceError, UncertainError):
            return False
        return True


def _parse(seen: Snapshot) -> ScheduledJob:
    return ScheduledJob.model_validate(seen.to_dict())
