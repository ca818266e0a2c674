"""A job of any registered type, queued by a person: claimed, run, tried again, ended.

The record decides, its task only wakes it, as with a delivery. Jobs are safe to run again: a crash
in the middle repeats them from the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import Field

from shared.domain import keys, leases, retention, retries
from shared.domain.records import Instant, Record

LEASE = timedelta(minutes=9, seconds=30)  # the longest function's timeout, and slack
ATTEMPTS = 4
ERROR_CHARS = 500


class JobStatus(StrEnum):
    PENDING = "pending"
    PROCESSING = "processing"
    RETRY = "retry"
    COMPLETED = "completed"
    FAILED = "failed"


FINISHED = frozenset({JobStatus.COMPLETED, JobStatus.FAILED})


class ScheduledJob(Record):
    """`scheduledJobs/{jobId}`."""

    type: str
    payload: dict[str, Any] = Field(default_factory=dict)
    company_id: str | None = None
    by: str
    why: str | None = None
    status: JobStatus = JobStatus.PENDING
    scheduled_for: Instant
    due_at: Instant
    hop: int = 1
    sweep_at: Instant | None = None
    sweep_hops: int = 0
    owner: str | None = None
    lease_ends_at: Instant | None = None
    fencing_token: int = 0
    attempts: int = 0
    last_attempt_at: Instant | None = None
    completed_at: Instant | None = None
    result: dict[str, Any] = Field(default_factory=dict)
    error: str | None = None
    traceparent: str | None = None
    expire_at: Instant | None = None
    created_at: Instant
    updated_at: Instant

    def task_id(self, job_id: str) -> str:
        return keys.job_task_id(job_id, self.hop)


@dataclass(frozen=True, slots=True)
class Claimed:
    job: ScheduledJob


@dataclass(frozen=True, slots=True)
class Woken:
    """Not now: the task of the job's new hop has to be made."""

    job: ScheduledJob


@dataclass(frozen=True, slots=True)
class Held:
    """Another run holds the lease."""


@dataclass(frozen=True, slots=True)
class Finished:
    job: ScheduledJob


Decision = Claimed | Woken | Held | Finished


def begin(job: ScheduledJob, now: datetime, *, owner: str) -> Decision:
    if job.status in FINISHED:
        return Finished(job)
    if job.lease_ends_at is not None and now < job.lease_ends_at:
        return Held()
    if now < job.due_at - leases.EARLY:
        return Woken(_hop(job, now, job.due_at))
    if job.attempts >= ATTEMPTS:
        return Finished(_ended(job, now, JobStatus.FAILED, error="No attempt came to an end."))
    claim: dict[str, Any] = {
        "status": JobStatus.PROCESSING,
        "owner": owner,
        "lease_ends_at": now + LEASE,
        "fencing_token": job.fencing_token + 1,
        "attempts": job.attempts + 1,
        "last_attempt_at": now,
        "sweep_at": now + LEASE + leases.SWEEP_GRACE,
        "sweep_hops": 0,
        "updated_at": now,
    }
    return Claimed(job.model_copy(update=claim))


def completed(job: ScheduledJob, result: dict[str, Any], now: datetime) -> ScheduledJob:
    return _ended(job, now, JobStatus.COMPLETED, result=result)


def failed(
    job: ScheduledJob, error: str, now: datetime, *, again: bool, jitter: float
) -> ScheduledJob:
    """Tried again while attempts are left and it may help."""
    if not again or job.attempts >= ATTEMPTS:
        return _ended(job, now, JobStatus.FAILED, error=error[:ERROR_CHARS])
    at = now + retries.backoff(job.attempts, jitter=jitter)
    return _hop(job, now, at, status=JobStatus.RETRY, error=error[:ERROR_CHARS])


def sweep(job: ScheduledJob, now: datetime) -> ScheduledJob | None:
    """A new hop for a job whose task is overdue; None: leave it."""
    if job.status in FINISHED or job.sweep_at is None or now < job.sweep_at:
        return None
    hops = job.sweep_hops + 1
    look = now + leases.SWEEP_GRACE * 2 ** min(hops, 6)
    return _hop(job, now, max(now, job.due_at)).model_copy(
        update={"sweep_hops": hops, "sweep_at": look}
    )


def _hop(job: ScheduledJob, now: datetime, at: datetime, **fields: Any) -> ScheduledJob:
    moved = {
        "hop": job.hop + 1,
        "due_at": at,
        "sweep_at": at + leases.SWEEP_GRACE,
        "owner": None,
        "lease_ends_at": None,
        "updated_at": now,
    }
    return job.model_copy(update=moved | fields)


def _ended(job: ScheduledJob, now: datetime, status: JobStatus, **fields: Any) -> ScheduledJob:
    rest: dict[str, Any] = {
        "status": status,
        "completed_at": now,
        "expire_at": retention.job_expires(now),
        "owner": None,
        "lease_ends_at": None,
        "sweep_at": None,
        "updated_at": now,
    }
    return job.model_copy(update=rest | fields)
