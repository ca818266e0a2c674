"""Any job of a registered type, queued by a person and run when it is due.

`TYPES` is the register. A job runs in `maintain`, from the start each time: every one of them may
be run again. Its record decides, its task wakes it, a sweep makes the task again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from shared.domain import cursors, keys, leases, scheduled_jobs
from shared.domain.failures import (
    JobError,
    NotFoundError,
    Problem,
    RefusedError,
    UnavailableError,
)
from shared.domain.markers import Keyed
from shared.domain.redrives import Person
from shared.domain.scheduled_jobs import (
    FINISHED,
    Claimed,
    Finished,
    Held,
    JobStatus,
    ScheduledJob,
    Woken,
)
from shared.jobs import fan_out, promote, retention, sweep
from shared.jobs.publish import tell_failed
from shared.queue.tasks import Failure, Task
from shared.runtime import Runtime
from shared.store.firestore import fresh_id

WITHIN = timedelta(minutes=9, seconds=15)  # Cloud Tasks waits longer than the function may run
BATCH = 200
RESULT_CHARS = 2000


class Payload(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, defer_build=True
    )


class NoPayload(Payload):
    pass


class PostPayload(Payload):
    post_id: str = Field(min_length=1, max_length=200)


class SyncPayload(Payload):
    company_id: str | None = None
    platform: str | None = None
    content_ids: tuple[str, ...] = ()
    start_date: str | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """A job's run: `ends_at` is the monotonic second by which it has to be done."""

    job_id: str
    payload: Any
    rt: Runtime
    ends_at: float


@dataclass(frozen=True, slots=True)
class JobType:
    payload: type[Payload]
    run: Callable[[Run], dict[str, Any]]


def _sync(run: Run) -> dict[str, Any]:
    """Planning and collecting are `sync_analytics`'s: the job is to ask it, once."""
    asked = run.payload.model_dump(by_alias=True, mode="json", exclude_defaults=True)
    key = f"queued-{run.job_id}"
    task = Task(
        id=keys.sync_task_id(key, "plan", 1),
        queue="analytics",
        function="sync_analytics",
        path="",
        body={"type": "SYNC_ANALYTICS", **asked, "idempotencyKey": key},
    )
    failures = run.rt.queue.create_all([task])
    if failures:
        raise UnavailableError(failures[0].reason, code="queue_down")
    return {"idempotencyKey": key}


TYPES: Mapping[str, JobType] = {
    "publish_post": JobType(PostPayload, lambda run: fan_out.run(run.payload.post_id, run.rt)),
    "sweep": JobType(NoPayload, lambda run: sweep.run(run.rt, run.ends_at)),
    "promote": JobType(NoPayload, lambda run: promote.run(run.rt, run.ends_at)),
    "retention": JobType(NoPayload, lambda run: retention.run(run.rt, run.ends_at)),
    "sync_analytics": JobType(SyncPayload, _sync),
}


@dataclass(frozen=True, slots=True)
class Order:
    type: str
    payload: dict[str, Any]
    company_id: str | None
    scheduled_for: datetime | None
    idempotency_key: str | None


def queue(order: Order, person: Person, rt: Runtime, traceparent: str) -> dict[str, Any]:
    """Raises `RefusedError` for a type that is not registered, naming those that are."""
    _check(order)

    def build(now: datetime) -> ScheduledJob:
        _check_time(order, now)
        at = max(order.scheduled_for or now, now)
        return ScheduledJob(
            type=order.type,
            payload=order.payload,
            company_id=order.company_id,
            by=person.email,
            why=person.why,
            scheduled_for=at,
            due_at=at,
            sweep_at=at + leases.SWEEP_GRACE,
            traceparent=traceparent,
            created_at=now,
            updated_at=now,
        )

    wanted = [order.type, order.payload, order.company_id, order.scheduled_for]
    key = order.idempotency_key or fresh_id()
    keyed = Keyed(f"scheduled:{order.type}", "", key, keys.fingerprint(wanted))
    told = {
        "action": "job.queue",
        "by": person.email,
        "why": person.why,
        "companyId": order.company_id,
        "type": order.type,
    }
    response, job = rt.store.scheduled_jobs.create(keyed, build, told)
    if job is not None and job.status not in FINISHED:
        tell_failed(_wake(response["jobId"], job, rt), rt)
    rt.log.event(
        "operator.acted",
        action="job.queue",
        by=person.email,
        jobId=response["jobId"],
        type=order.type,
    )
    return {"success": True, "message": "The job is queued.", **response}


def _check(order: Order) -> None:
    kind = TYPES.get(order.type)
    if kind is None:
        sentence = f"{order.type!r} is not one of {', '.join(sorted(TYPES))}."
        raise RefusedError([Problem("type", "type_unknown", sentence)])
    try:
        kind.payload.model_validate(order.payload)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        problems = [
            Problem(".".join(["payload", *map(str, fault["loc"])]), fault["type"], fault["msg"])
            for fault in faults
        ]
        raise RefusedError(problems) from None


def _check_time(order: Order, now: datetime) -> None:
    if order.scheduled_for and order.scheduled_for > now + leases.HORIZON:
        sentence = f"scheduledFor must be within {leases.HORIZON.days} days."
        raise RefusedError([Problem("scheduledFor", "too_far", sentence)])


def _wake(job_id: str, job: ScheduledJob, rt: Runtime) -> list[Failure]:
    """Make sure that the job's task exists. Not made is not lost: the sweep makes it."""
    task = Task(
        id=job.task_id(job_id),
        queue=rt.environment.settings.default_queue,
        function="maintain",
        path="/jobs/run",
        body={"jobId": job_id},
        at=job.due_at,
        traceparent=job.traceparent,
        within=WITHIN,
    )
    return rt.queue.create_all([task])


def run(job_id: str, rt: Runtime, ends_at: float) -> dict[str, Any] | None:
    """Run a job whose task has come; None when another run of it holds the lease."""
    match rt.store.scheduled_jobs.begin(job_id):
        case None:
            return {"success": False, "void": True, "message": "no such job"}
        case Held():
            return None
        case Finished(job):
            return {"success": job.status is JobStatus.COMPLETED, "alreadyProcessed": True}
        case Woken(job):
            tell_failed(_wake(job_id, job, rt), rt)
            return {"success": False, "early": True}
        case Claimed(job):
            return _run(job_id, job, rt, ends_at)


def _run(job_id: str, job: ScheduledJob, rt: Runtime, ends_at: float) -> dict[str, Any]:
    decide = _attempt(job_id, job, rt, ends_at)
    after = rt.store.scheduled_jobs.settle(job_id, job, decide)
    if after is None:
        return {"success": False, "void": True, "message": "another run has taken over"}
    if after.status not in FINISHED:
        tell_failed(_wake(job_id, after, rt), rt)
    failed = after.status is JobStatus.FAILED
    rt.log.event(
        "job.failed" if failed else "job.done",
        severity="ERROR" if failed else "INFO",
        jobId=job_id,
        type=job.type,
        status=str(after.status),
        attempt=after.attempts,
        error=after.error,
    )
    return {"success": after.status is JobStatus.COMPLETED, "status": str(after.status)}


def _attempt(
    job_id: str, job: ScheduledJob, rt: Runtime, ends_at: float
) -> Callable[[datetime], ScheduledJob]:
    """One run, as what it makes of the record. A refusal is final, all else is tried again."""
    jitter = rt.jitter()

    def failed(error: str, *, again: bool) -> Callable[[datetime], ScheduledJob]:
        return lambda now: scheduled_jobs.failed(job, error, now, again=again, jitter=jitter)

    kind = TYPES.get(job.type)
    if kind is None:
        return failed(f"{job.type!r} is no registered type any more.", again=False)
    try:
        result = kind.run(Run(job_id, kind.payload.model_validate(job.payload), rt, ends_at))
    except UnavailableError as error:
        return failed(error.message, again=True)
    except JobError as error:
        return failed(error.message, again=False)
    except Exception as error:
        rt.log.bug(error, type=job.type)
        return failed(type(error).__name__, again=True)
    small = {name: value for name, value in result.items() if len(str(value)) < RESULT_CHARS}
    return lambda now: scheduled_jobs.completed(job, small, now)


def wake_overdue(rt: Runtime) -> int:
    """Jobs whose task was lost, or whose run died. Called by every sweep."""
    woken = rt.store.scheduled_jobs.sweep(BATCH)
    for job_id, job in woken:
        tell_failed(_wake(job_id, job, rt), rt)
    return len(woken)


def listed(equal: dict[str, str], cursor: str | None, limit: int, rt: Runtime) -> dict[str, Any]:
    place = cursors.decode(cursor)
    found, last = rt.store.scheduled_jobs.page(equal, after=place, limit=limit)
    return {
        "success": True,
        "types": sorted(TYPES),
        "jobs": [_shown(job_id, job) for job_id, job in found],
        "nextCursor": cursors.encode(*last) if last else None,
    }


def inspected(job_id: str, rt: Runtime) -> dict[str, Any]:
    job = rt.store.scheduled_jobs.read(job_id)
    if job is None:
        raise NotFoundError(f"There is no job {job_id!r}.")
    return {"success": True, **_shown(job_id, job)}


def _shown(job_id: str, job: ScheduledJob) -> dict[str, Any]:
    hidden = {"owner", "lease_ends_at", "fencing_token", "sweep_at", "sweep_hops", "hop"}
    return {"jobId": job_id, **job.model_dump(by_alias=True, mode="json", exclude=hidden)}
