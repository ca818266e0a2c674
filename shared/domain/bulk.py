"""Imports and exports: how far each has come, and what a task may do to it.

    an import ─ check ──> every row read and looked at; nothing is done before the file's last byte
              ─ apply ──> rows become posts, batch by batch
              ─ report ─> the bad rows, in a file of the same format
    an export ─ write ──> page by page into parts
    both      ─ join ───> the parts into one file, its checksum

The job's record is the only point of serialisation. A batch's posts, the cursor behind them and the
counts are one commit guarded by the record: what a killed or late attempt has not committed never
was, and what it has is not done again. So two attempts at one chunk double nothing, and what is
cancelled stops at the next batch.

Rows refused on the way (each with a reason): a record of each row that went well. The post says so
itself, and a million writes say it no better.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import Field

from shared.domain import leases
from shared.domain.controls import Controls
from shared.domain.posts import PostStatus
from shared.domain.records import Instant, Record, Value
from shared.domain.rows_file import Fault, Format, Shape

QUEUE = "bulk"
JOBS_KEPT = timedelta(days=30)
STALLED = timedelta(minutes=5)  # after its lease; the queue has tried again by then
NOTES_KEPT = 20
FILE_BYTES = 2 * 1024**3


class JobType(StrEnum):
    IMPORT = "BULK_IMPORT"
    EXPORT = "BULK_EXPORT"


class Records(StrEnum):
    """What can be exported."""

    POSTS = "posts"
    LOGS = "publishLogs"
    METRICS = "postMetrics"


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"  # the file is not one that can be read; nothing of it was taken in
    CANCELLED = "cancelled"


S = State
ENDED = frozenset({S.COMPLETED, S.FAILED, S.CANCELLED})
NEXT: Mapping[State, frozenset[State]] = {
    S.QUEUED: frozenset({S.QUEUED, S.RUNNING, S.CANCELLED}),
    S.RUNNING: frozenset(State) - {S.QUEUED},
    S.COMPLETED: frozenset(),
    S.FAILED: frozenset(),
    S.CANCELLED: frozenset(),
}


class Phase(StrEnum):
    CHECK = "check"
    APPLY = "apply"
    WRITE = "write"
    REPORT = "report"
    JOIN = "join"


class IllegalMoveError(Exception):
    pass


class ChangedFileError(Exception):
    """The object is not the one that was seen first."""


class MissingFileError(Exception):
    pass


class Source(Value):
    """The object that is read, as it was when the import was accepted."""

    name: str
    generation: int
    size_bytes: int
    ours: bool = False  # made of the request's own content


@dataclass(frozen=True, slots=True)
class Wish:
    """An import as it is asked for: `content`, or the `uri` of an object in the bucket."""

    content: str | None
    uri: str | None
    format: Format | None
    timezone: str | None
    user_id: str | None
    dry_run: bool


class Import(Value):
    """What an import was asked for, and how its file turned out to be written."""

    source: Source
    format: Format
    timezone: str | None = None
    user_id: str | None = None
    dry_run: bool = False
    shape: Shape | None = None


class Export(Value):
    """What an export was asked for. All of it is read as of one instant: `as_of`."""

    records: Records
    format: Format
    since: Instant | None = None
    until: Instant | None = None
    status: PostStatus | None = None
    as_of: Instant | None = None


class Cursor(Value):
    """How far the phase has come. Checking: the `offset` behind `row`, and the next `part`.
    Applying: the next `line` of `part`. Writing: what comes `after`, and the next `part`."""

    offset: int = 0
    row: int = 0
    part: int = 0
    line: int = 0
    after: tuple[Any, ...] = ()


class Counts(Value):
    """Rows, by what became of them. A dry run counts what would."""

    rows: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0
    failed: int = 0

    def plus(self, more: Mapping[str, int]) -> Counts:
        return self.model_copy(update={name: getattr(self, name) + n for name, n in more.items()})


class Artifact(Value):
    """A file that the job has made. `sha256` is in hex, `crc32c` as Cloud Storage writes it."""

    name: str
    rows: int
    size_bytes: int
    crc32c: str = Field(alias="crc32c")
    sha256: str | None = None


class Note(Value):
    """What was made of a row's wish, such as an hour that a change of clocks skips."""

    row: int
    note: str


class BulkJob(Record):
    """`bulkJobs/{jobId}`. `parts` is how many the check has made; `paused` says that a pause held
    its chunk; `waking` are the deliveries of the last batch, whose tasks may not have been made
    yet."""

    type: JobType
    company_id: str
    asked: Import | Export
    state: State = State.QUEUED
    phase: Phase
    cursor: Cursor = Field(default_factory=Cursor)
    counts: Counts = Field(default_factory=Counts)
    parts: int = 0
    paused: bool = False
    waking: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()
    fault: Fault | None = None
    file: Artifact | None = None
    hop: int = 1
    owner: str | None = None
    lease_ends_at: Instant | None = None
    sweep_at: Instant | None = None
    commit_id: str = ""
    idempotency_key: str
    traceparent: str | None = None
    started_at: Instant | None = None
    completed_at: Instant | None = None
    expire_at: Instant
    created_at: Instant
    updated_at: Instant

    @property
    def is_open(self) -> bool:
        return self.state not in ENDED

    @property
    def importing(self) -> Import:
        assert isinstance(self.asked, Import)
        return self.asked

    @property
    def exporting(self) -> Export:
        assert isinstance(self.asked, Export)
        return self.asked


class RefusedRow(Record):
    """`bulkJobs/{jobId}/rows/{row}`: a row that was not taken in: where, why, and as it stood in
    the file (JSON). The instants are those of the commit that keeps it."""

    row: int
    column: str | None
    reason: str
    cells: str
    created_at: Instant | None = None
    updated_at: Instant | None = None
    expire_at: Instant | None = None


def job(
    asked: Import | Export,
    *,
    company_id: str,
    key: str,
    traceparent: str | None,
    now: datetime,
) -> BulkJob:
    importing = isinstance(asked, Import)
    return BulkJob(
        type=JobType.IMPORT if importing else JobType.EXPORT,
        company_id=company_id,
        asked=asked,
        phase=Phase.CHECK if importing else Phase.WRITE,
        idempotency_key=key,
        traceparent=traceparent,
        sweep_at=now + STALLED,
        expire_at=now + JOBS_KEPT,
        created_at=now,
        updated_at=now,
    )


# --- one task ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begun:
    """The claim: this attempt may go on where the last one stood."""

    job: BulkJob


@dataclass(frozen=True, slots=True)
class Over:
    """The job has ended."""

    job: BulkJob


@dataclass(frozen=True, slots=True)
class Stale:
    """A task of an earlier chunk: the one on record only has to exist."""

    job: BulkJob


@dataclass(frozen=True, slots=True)
class Busy:
    """Another attempt at this chunk is alive."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Paused:
    """A pause holds the chunk: resume makes its task again, or the sweep, which looks."""

    job: BulkJob


Decision = Begun | Over | Stale | Busy | Paused


def begin(
    job: BulkJob, *, hop: int, owner: str, now: datetime, controls: Controls | None = None
) -> Decision:
    """What a task that has come for a chunk may do."""
    if not job.is_open:
        return Over(job)
    if hop != job.hop:
        return Stale(job)
    if job.owner not in (None, owner) and job.lease_ends_at and now < job.lease_ends_at:
        return Busy(job.lease_ends_at)
    if controls and controls.pause_of(company_id=job.company_id, queue=QUEUE, now=now):
        return Paused(evolve(job, now, owner=None, paused=True, sweep_at=now + leases.PAUSE_LOOK))
    started_at = job.started_at or now
    return Begun(
        evolve(job, now, state=S.RUNNING, owner=owner, paused=False, started_at=started_at)
    )


def evolve(job: BulkJob, now: datetime, **fields: Any) -> BulkJob:
    """The next version; whoever owns it has the lease anew. Raises `IllegalMoveError`."""
    state = fields.get("state", job.state)
    if state not in NEXT[job.state]:
        raise IllegalMoveError(f"{job.state} cannot become {state}")
    owner = fields.get("owner", job.owner)
    lease = now + leases.LEASE if owner else None
    timed = {"lease_ends_at": lease, "sweep_at": (lease or now) + STALLED, "updated_at": now}
    return job.model_copy(update=timed | fields)


def handed_over(job: BulkJob, now: datetime) -> BulkJob:
    """The next chunk is on record; its task is to be made."""
    return evolve(job, now, hop=job.hop + 1, owner=None, waking=())


def released(job: BulkJob, now: datetime) -> BulkJob:
    """Nobody works on it now: the next attempt need not wait for the lease."""
    return evolve(job, now, owner=None)


def revived(job: BulkJob, now: datetime) -> BulkJob:
    """A new chunk for a job that nobody works on. What the last one did not come to wake stays on
    record for it."""
    return evolve(job, now, hop=job.hop + 1, owner=None, paused=False)


def ended(job: BulkJob, now: datetime, state: State, **fields: Any) -> BulkJob:
    at_rest: dict[str, Any] = {
        "owner": None,
        "lease_ends_at": None,
        "sweep_at": None,
        "paused": False,
        "waking": (),
        "completed_at": now,
    }
    return evolve(job, now, state=state, **(at_rest | fields))


# --- keys that were seen -------------------------------------------------------------------------

HASH_BYTES, ROW_BYTES = 12, 4
ENTRY_BYTES = HASH_BYTES + ROW_BYTES


def key_hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:HASH_BYTES]


class SeenKeys:
    """The rows' keys of a file so far, 16 bytes each: a million rows are 16 MB.

    What earlier chunks saw is `packed`, sorted; what this one sees comes beside it.
    """

    def __init__(self, packed: bytes = b"") -> None:
        self._packed = packed
        self._fresh: dict[bytes, int] = {}

    def first(self, key: str, row: int) -> int | None:
        """The row that had this key before; None, and remembered, if none had."""
        digest = key_hash(key)
        if digest in self._fresh:
            return self._fresh[digest]
        place = self._place(digest)
        entry = self._packed[place * ENTRY_BYTES : (place + 1) * ENTRY_BYTES]
        if entry[:HASH_BYTES] == digest:
            return int.from_bytes(entry[HASH_BYTES:])
        self._fresh[digest] = row
        return None

    def _place(self, digest: bytes) -> int:
        packed = self._packed
        return bisect.bisect_left(
            range(len(packed) // ENTRY_BYTES),
            digest,
            key=lambda i: packed[i * ENTRY_BYTES : i * ENTRY_BYTES + HASH_BYTES],
        )

    def pack(self) -> bytes:
        """All of them, sorted."""
        merged = bytearray()
        taken = 0
        for digest, row in sorted(self._fresh.items()):
            place = self._place(digest) * ENTRY_BYTES
            merged += self._packed[taken:place] + digest + row.to_bytes(ROW_BYTES)
            taken = place
        merged += self._packed[taken:]
        return bytes(merged)


def kept(notes: Iterable[Note]) -> tuple[Note, ...]:
    return tuple(notes)[:NOTES_KEPT]
