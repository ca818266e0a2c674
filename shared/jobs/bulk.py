"""Imports and exports: asked for, done chunk by chunk, looked at, cancelled.

A chunk is one task. It works until its time is nearly up, puts its successor on record and makes
the successor's task. Whatever ends it early leaves the record where its last commit left it, and
the same task, delivered again, goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from shared.domain import bulk, keys
from shared.domain.bulk import (
    QUEUE,
    Begun,
    BulkJob,
    Busy,
    ChangedFileError,
    Export,
    Import,
    MissingFileError,
    Over,
    Paused,
    Phase,
    RefusedRow,
    Stale,
    State,
)
from shared.domain.failures import BadRequestError, NotFoundError, Problem, UnavailableError
from shared.domain.markers import Keyed
from shared.domain.rows_file import Fault, FileFaultError
from shared.jobs.publish import tell_failed
from shared.jobs.schedule import Order
from shared.queue.tasks import Task
from shared.runtime import Runtime
from shared.store.bulk import Held, OvertakenError
from shared.store.firestore import fresh_id

REVIVED_AT_ONCE = 50
# Folders of the bucket that are ours, each with one folder per job.
FILES, PARTS = "bulk", "bulk-parts"
OURS = (FILES, PARTS)
# The body of a schedule request as the function's own model reads it. Raises `RefusedError`.
Orders = Callable[[Mapping[str, Any]], Order]


@dataclass(slots=True)
class Work:
    """One chunk under way: what is held, until when it begins new steps and until when it must
    have answered (monotonic seconds), and what it keeps in memory from one step to the next."""

    held: Held
    rt: Runtime
    soon: float
    ends_at: float
    orders: Orders
    seen: bulk.SeenKeys | None = None
    part: tuple[int, list[str]] = (-1, [])

    @property
    def job(self) -> BulkJob:
        return self.held.job

    @property
    def has_time(self) -> bool:
        return time.monotonic() < self.soon

    def now(self) -> datetime:
        return self.rt.now()

    def advance(self, refused: tuple[RefusedRow, ...] = (), **fields: Any) -> None:
        """One commit; it renews the lease. Raises `OvertakenError`."""
        job = bulk.evolve(self.job, self.now(), **fields)
        self.held = self.rt.store.bulk.advance(self.held, job, refused)

    def end(self, state: State, **fields: Any) -> None:
        job = bulk.ended(self.job, self.now(), state, **fields)
        self.held = self.rt.store.bulk.advance(self.held, job)


Step = Callable[[Work], None]


# --- asking --------------------------------------------------------------------------------------


def accept(
    asked: Callable[[str], Import | Export], keyed: Keyed, rt: Runtime, traceparent: str
) -> dict[str, Any]:
    """The job's id. `asked` is called with it, once, and may refuse by raising; a request that was
    answered before gets its first answer, and the task that it may not have come to."""
    known = rt.store.bulk.answered(keyed)
    if known is not None:
        return _replayed(known, rt)
    job_id = fresh_id() + fresh_id()
    make = partial(
        bulk.job,
        asked(job_id),
        company_id=keyed.company_id,
        key=keyed.key,
        traceparent=traceparent,
    )
    response = {"success": True, "jobId": job_id, "type": keyed.job_type, "state": "queued"}
    accepted = rt.store.bulk.accept(job_id, keyed, response, make)
    if accepted.job is None:
        return _replayed(accepted.response, rt)
    _wake(job_id, accepted.job, rt)
    _tell("bulk.accepted", job_id, accepted.job, rt)
    return response


def _replayed(response: dict[str, Any], rt: Runtime) -> dict[str, Any]:
    with suppress(NotFoundError):  # its record is not kept longer than the answer
        job = rt.store.bulk.read(response["jobId"])
        if job.is_open:
            _wake(response["jobId"], job, rt)
    return {**response, "alreadyProcessed": True}


def _wake(job_id: str, job: BulkJob, rt: Runtime) -> None:
    """Make sure that the task on record exists."""
    task = Task(
        id=keys.bulk_task_id(job_id, job.hop),
        queue=QUEUE,
        function="bulk",
        path="/run",
        body={"jobId": job_id, "chunk": job.hop},
        traceparent=job.traceparent,
    )
    tell_failed(rt.queue.create_all([task]), rt)


# --- one chunk -----------------------------------------------------------------------------------


def run(
    job_id: str,
    chunk: int,
    *,
    steps: Mapping[Phase, Step],
    orders: Orders,
    ends_at: float,
    rt: Runtime,
) -> dict[str, Any]:
    """Do one chunk. Raises `UnavailableError` when it is to be delivered again."""
    decision, held = rt.store.bulk.begin(job_id, hop=chunk, owner=fresh_id())
    match decision:
        case None:
            sentence = f"There is no job {job_id!r}."
            raise BadRequestError([Problem("jobId", "job_unknown", sentence)])
        case Over(job):
            return {"success": True, "alreadyProcessed": True, "state": str(job.state)}
        case Stale(job):
            _wake(job_id, job, rt)
            return {"success": True, "alreadyProcessed": True, "chunk": job.hop}
        case Paused(job):
            _tell("bulk.paused", job_id, job, rt)
            return {"success": True, "paused": True, "state": str(job.state)}
        case Busy():
            raise UnavailableError("Another attempt holds this chunk.", code="busy")
        case Begun():
            assert held is not None
    soon = time.monotonic() + rt.environment.settings.bulk_seconds
    return _work(Work(held, rt, min(soon, ends_at), ends_at, orders), steps)


def _work(work: Work, steps: Mapping[Phase, Step]) -> dict[str, Any]:
    rt, job_id = work.rt, work.held.id
    try:
        rewake(work.job.waking, rt)
        _step(work, steps[work.job.phase])  # one at least, or no chunk would ever come further
        while work.job.is_open and work.has_time:
            _step(work, steps[work.job.phase])
        if work.job.is_open:
            handed = bulk.handed_over(work.job, work.now())
            work.held = rt.store.bulk.advance(work.held, handed)
            _wake(job_id, work.job, rt)
    except OvertakenError:
        job = rt.store.bulk.read(job_id)
        if job.is_open:
            raise UnavailableError("Another attempt has taken over.", code="busy") from None
        return {"success": True, "state": str(job.state)}
    except UnavailableError:
        _release(work)
        raise
    _tell(_EVENTS[work.job.state], job_id, work.job, rt)
    return {"success": True, "state": str(work.job.state), **work.job.counts.document()}


_EVENTS = {
    State.RUNNING: "bulk.handed_over",
    State.COMPLETED: "bulk.completed",
    State.FAILED: "bulk.failed",
}


def _step(work: Work, step: Step) -> None:
    try:
        step(work)
    except FileFaultError as error:
        work.end(State.FAILED, fault=error.fault)
    except ChangedFileError:
        reason = "The file was changed while it was read. Nothing was imported. Import it again."
        work.end(State.FAILED, fault=Fault(code="file_changed", reason=reason))
    except MissingFileError:
        reason = (
            "A part of this job's own files is gone. Ask for it again: what was imported is "
            "found and not imported twice."
        )
        work.end(State.FAILED, fault=Fault(code="part_missing", reason=reason))


def _release(work: Work) -> None:
    """Best effort: a lease that stays runs out by itself."""
    try:
        work.rt.store.bulk.advance(work.held, bulk.released(work.job, work.now()))
    except (OvertakenError, UnavailableError):
        return


def rewake(delivery_ids: tuple[str, ...], rt: Runtime) -> None:
    """Tasks that an attempt which died after its commit did not come to make."""
    logs = rt.store.bulk.deliveries(delivery_ids)
    due = [log.wake() for log in logs if log.is_open and log.promote_at is None]
    tell_failed(rt.queue.wake_all(due), rt)


def revive(rt: Runtime) -> int:
    """New chunks for jobs whose tasks the queue gave up or lost, or whose pause may be over; how
    many."""
    return sum(_revive(job_id, rt) for job_id in rt.store.bulk.stalled(REVIVED_AT_ONCE))


def resume(where: Mapping[str, str], rt: Runtime, ends_at: float) -> tuple[int, bool]:
    """Wake what a pause of this scope held: how many jobs, and whether these were all."""
    woken = 0
    while time.monotonic() < ends_at:
        revived = sum(_revive(name, rt) for name in rt.store.bulk.paused(where, REVIVED_AT_ONCE))
        if not revived:
            return woken, True
        woken += revived
    return woken, False


def _revive(job_id: str, rt: Runtime) -> bool:
    held = rt.store.bulk.revive(job_id)
    if held is None:
        return False
    _wake(job_id, held.job, rt)
    _tell("bulk.revived", job_id, held.job, rt)
    return True


# --- looking, cancelling -------------------------------------------------------------------------


def progress(job_id: str, company_id: str, rt: Runtime) -> dict[str, Any]:
    return _shown(job_id, rt.store.bulk.read(job_id, company_id), rt)


def cancel(job_id: str, company_id: str, rt: Runtime) -> dict[str, Any]:
    job = rt.store.bulk.cancel(job_id, company_id)
    _tell("bulk.cancelled", job_id, job, rt)
    return _shown(job_id, job, rt)


def _shown(job_id: str, job: BulkJob, rt: Runtime) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "success": True,
        "jobId": job_id,
        "type": str(job.type),
        "companyId": job.company_id,
        "state": str(job.state),
        "phase": str(job.phase) if job.is_open else None,
        "paused": job.paused,
        "counts": job.counts.document(),
        "cursor": {"row": job.cursor.row, "part": job.cursor.part, "chunk": job.hop},
        "notes": [note.document() for note in job.notes],
        "error": job.fault.document() if job.fault else None,
        "createdAt": job.created_at.isoformat(),
        "startedAt": job.started_at.isoformat() if job.started_at else None,
        "completedAt": job.completed_at.isoformat() if job.completed_at else None,
    }
    if isinstance(job.asked, Import):
        shown["dryRun"] = job.asked.dry_run
    if job.file is not None:
        filename = job.file.name.rpartition("/")[2]
        shown["file"] = {
            "uri": f"gs://{rt.files.bucket}/{job.file.name}",
            "url": rt.files.link(job.file.name, filename),
            **job.file.model_dump(by_alias=True, exclude={"name"}),
        }
    return shown


def _tell(event: str, job_id: str, job: BulkJob, rt: Runtime) -> None:
    rt.log.event(
        event,
        severity="WARNING" if job.state is State.FAILED else "INFO",
        jobId=job_id,
        companyId=job.company_id,
        type=str(job.type),
        chunk=job.hop,
        phase=str(job.phase),
        code=job.fault.code if job.fault else None,
        **job.counts.document(),
    )
