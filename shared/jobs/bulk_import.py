"""Posts from a file: looked at as a whole first, then taken in row by row.

Nothing is done before the last byte has been read: a file that breaks off, changes under our hands
or cannot be read is an error and nothing else. What the check has read lies in parts of our own,
and the rows are taken from there. Each row goes through scheduling's own validation and creation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from shared.domain import bulk, changes, keys, rows, rows_file, schedules
from shared.domain.bulk import (
    FILE_BYTES,
    BulkJob,
    ChangedFileError,
    Cursor,
    Import,
    MissingFileError,
    Note,
    Phase,
    RefusedRow,
    SeenKeys,
    Source,
    State,
    Wish,
)
from shared.domain.changes import Correction
from shared.domain.deliveries import Change, PublishLog
from shared.domain.failures import NotFoundError, Problem, RefusedError
from shared.domain.markers import Keyed
from shared.domain.media import MediaItem
from shared.domain.posts import ScheduledPost, Target
from shared.domain.rows import Defaults, Row
from shared.domain.rows_file import Format, Record, Shape
from shared.jobs import bulk as chunks
from shared.jobs import schedule
from shared.jobs.bulk import Orders, Work
from shared.jobs.commands import too_late
from shared.jobs.publish import tell_failed
from shared.jobs.schedule import Order, draft_problems, resolve_media, resolve_thread
from shared.runtime import Runtime
from shared.store.bulk import Around, Step, Wanted
from shared.store.posts import Command, Creation, Whole

PART_ROWS = 500
PART_BYTES = 1024 * 1024
CHECKED_ROWS = 50_000  # between two commits of the check
BATCH_ROWS = 50
BATCH_WRITES = 400
BATCH_BYTES = 2 * 1024 * 1024  # a commit takes 10 MiB, the emulator 4


# --- asking --------------------------------------------------------------------------------------


def accept(asked: Wish, keyed: Keyed, rt: Runtime, traceparent: str) -> dict[str, Any]:
    """Raises `RefusedError` for what no import can be made of."""

    def make(job_id: str) -> Import:
        if asked.timezone is not None:
            schedules.zone(asked.timezone)
        given = asked.content
        return Import(
            source=_inline(given, job_id, rt)
            if given is not None
            else _object(asked.uri or "", keyed.company_id, rt),
            format=asked.format or _format(asked),
            timezone=asked.timezone,
            user_id=asked.user_id,
            dry_run=asked.dry_run,
        )

    return chunks.accept(make, keyed, rt, traceparent)


def _format(asked: Wish) -> Format:
    """By the object's name, or by how the content begins."""
    if asked.uri is not None:
        name = asked.uri.lower()
        return Format.JSONL if name.endswith((".jsonl", ".ndjson", ".json")) else Format.CSV
    begins = (asked.content or "").lstrip("\ufeff \r\n\t")
    return Format.JSONL if begins.startswith("{") else Format.CSV


def _inline(content: str, job_id: str, rt: Runtime) -> Source:
    name = f"{chunks.PARTS}/{job_id}/content"
    stored = rt.files.write(name, content.encode(), "text/plain; charset=utf-8")
    return Source(name=name, generation=stored.generation, size_bytes=stored.size_bytes, ours=True)


def _object(uri: str, company_id: str, rt: Runtime) -> Source:
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    if bucket != rt.files.bucket:
        sentence = f"Only objects of gs://{rt.files.bucket}/ can be imported."
        raise RefusedError([Problem("data.uri", "foreign_bucket", sentence)])
    try:
        _refuse_anothers(name, company_id, rt)
        stored = rt.files.look(name)
    except (MissingFileError, NotFoundError):
        sentence = f"There is no object {name[:200]!r} in the bucket."
        raise RefusedError([Problem("data.uri", "file_missing", sentence)]) from None
    if stored.encoding not in (None, "", "identity"):
        sentence = f"The object is stored as {stored.encoding}. Upload the plain file."
        raise RefusedError([Problem("data.uri", "encoded", sentence)])
    if stored.size_bytes > FILE_BYTES:
        sentence = f"The file exceeds {FILE_BYTES} bytes. Split it: keys hold across files."
        raise RefusedError([Problem("data.uri", "too_large", sentence)])
    return Source(name=name, generation=stored.generation, size_bytes=stored.size_bytes)


def _refuse_anothers(name: str, company_id: str, rt: Runtime) -> None:
    """What we wrote ourselves is the company's whose job wrote it. Raises `NotFoundError`."""
    folder, _, rest = name.partition("/")
    if folder in chunks.OURS:
        rt.store.bulk.read(rest.partition("/")[0] or "none", company_id)


# --- checking ------------------------------------------------------------------------------------


def check(work: Work) -> None:
    """Read on from the cursor: rows into parts, keys among those seen. One commit at the end of
    some ten thousand rows; an attempt that dies before it reads them again into the same parts."""
    job, files = work.job, work.rt.files
    source = job.importing.source
    shape = job.importing.shape or _shape(work)
    cursor = job.cursor if job.cursor.row else Cursor(offset=shape.begins, row=shape.first_row)
    seen = work.seen or SeenKeys(_keys_so_far(work))
    blocks = files.blocks(source.name, source.generation, cursor.offset, source.size_bytes)
    found = rows_file.records(blocks, shape, offset=cursor.offset, number=cursor.row)
    counted, ended = 0, False
    while counted < CHECKED_ROWS and (counted == 0 or work.has_time):
        part = _Part(cursor)
        ended = part.fill(found, shape, seen, work)
        if part.lines:
            text = "".join(part.lines).encode()
            files.write(_part_name(work, cursor.part), text, "application/jsonl")
        counted += len(part.lines)
        cursor = part.cursor
        if ended:
            break
    asked = job.importing.model_copy(update={"shape": shape})
    counts = job.counts.plus({"rows": counted})
    if ended:
        _still_the_same(work)
        work.seen = None
        notes = (Note(row=1, note="The file has no rows."),) if counts.rows == 0 else ()
        work.advance(
            asked=asked,
            counts=counts,
            phase=Phase.APPLY,
            parts=cursor.part,
            cursor=Cursor(),
            notes=notes,
        )
        return
    packed = seen.pack()
    files.write(_keys_name(work, cursor.part), packed, "application/octet-stream")
    work.seen = SeenKeys(packed)
    work.advance(asked=asked, counts=counts, cursor=cursor)


@dataclass(slots=True)
class _Part:
    """Rows on their way into one part; the cursor moves behind each."""

    cursor: Cursor
    lines: list[str] = field(default_factory=list)
    size: int = 0

    def fill(self, found: Iterator[Record], shape: Shape, seen: SeenKeys, work: Work) -> bool:
        """Whether that was the last of them."""
        part = self.cursor.part
        while len(self.lines) < PART_ROWS and self.size < PART_BYTES:
            record = next(found, None)
            if record is None:
                if self.lines:
                    self.cursor = self.cursor.model_copy(update={"part": part + 1})
                return True
            row = _read(record.number, record.cells, shape, work.job)
            first = seen.first(row.key, record.number) if row.key is not None else None
            line = json.dumps([record.number, record.cells, first], ensure_ascii=False) + "\n"
            self.lines.append(line)
            self.size += len(line)
            self.cursor = Cursor(offset=record.ends, row=record.number + 1, part=part)
        self.cursor = self.cursor.model_copy(update={"part": part + 1})
        return False


def _shape(work: Work) -> Shape:
    source = work.job.importing.source
    length = min(rows_file.HEAD_BYTES, source.size_bytes)
    head = b""
    if length:
        head = work.rt.files.read(source.name, source.generation, 0, length)
    whole = length == source.size_bytes
    return rows_file.shape(head, work.job.importing.format, whole=whole)


def _still_the_same(work: Work) -> None:
    """A bucket that keeps old versions serves them on: the live one must still be this one."""
    source = work.job.importing.source
    try:
        live = work.rt.files.look(source.name)
    except MissingFileError:
        raise ChangedFileError from None
    if live.generation != source.generation:
        raise ChangedFileError


def _keys_so_far(work: Work) -> bytes:
    part = work.job.cursor.part
    return work.rt.files.load(_keys_name(work, part)) if part else b""


def _keys_name(work: Work, part: int) -> str:
    return f"{chunks.PARTS}/{work.held.id}/keys/{part:08}"


def _part_name(work: Work, part: int) -> str:
    return f"{chunks.PARTS}/{work.held.id}/rows/{part:08}.jsonl"


def _read(number: int, cells: Sequence[str], shape: Shape, job: BulkJob) -> Row:
    named = rows_file.named(tuple(cells), shape)
    if isinstance(named, str):
        return Row(None, {}, problems=(Problem("", "row_malformed", named),))
    asked = job.importing
    try:
        return rows.read(named, Defaults(job.company_id, asked.user_id, asked.timezone))
    except RecursionError:
        sentence = "The row is nested too deeply."
        return Row(None, {}, problems=(Problem("", "row_malformed", sentence),))


# --- applying ------------------------------------------------------------------------------------


def apply(work: Work) -> None:
    """Take in the next batch of the current part."""
    job = work.job
    if job.cursor.part >= job.parts:
        if job.counts.failed:
            work.advance(phase=Phase.REPORT, cursor=Cursor(), waking=())
        else:
            work.end(State.COMPLETED)
        return
    if work.part[0] != job.cursor.part:
        text = work.rt.files.load(_part_name(work, job.cursor.part)).decode()
        work.part = (job.cursor.part, text.removesuffix("\n").split("\n"))
    lines = work.part[1]
    try:
        _apply(work, _batch(work, lines, BATCH_ROWS))
    except RefusedError:  # a record too large to be kept: which one shows when each stands alone
        alone = _batch(work, lines, 1)
        try:
            _apply(work, alone)
        except RefusedError as error:
            _apply(work, alone.refusing(error.problems))


def _apply(work: Work, batch: _Batch) -> None:
    work.held, step = work.rt.store.bulk.apply(work.held, batch)
    _wake(step, work.rt)


def _wake(step: Step, rt: Runtime) -> None:
    due = _due(step.creations, [command for _, command in step.changes])
    tell_failed(rt.queue.wake_all([log.wake() for log in due]), rt)


def _due(creations: Sequence[Creation], commands: Sequence[Command]) -> list[PublishLog]:
    """The deliveries that a batch made or moved, and that need a task now."""
    made = [log for creation in creations for log in creation.logs if log.promote_at is None]
    moved = [change.log for one in commands for change in one.changes if change.wakes]
    return [*made, *moved]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A row of a part, and the order that it comes to where nothing speaks against it."""

    number: int
    cells: tuple[str, ...]
    row: Row
    order: Order | None
    problems: tuple[Problem, ...]

    def post_ids(self, company_id: str) -> tuple[str, ...]:
        """Where the post can be: under its key, or it is the post whose id the key is."""
        key = self.row.key
        if key is None:
            return ()
        own = keys.row_post_id(company_id, key)
        return (own, key) if keys.is_post_id(key) else (own,)


def _batch(work: Work, lines: Sequence[str], most: int) -> _Batch:
    """The next rows, as many as one commit takes."""
    job = work.job
    shape = job.importing.shape
    assert shape is not None
    entries: list[_Entry] = []
    writes = size = 0
    for line in lines[job.cursor.line : job.cursor.line + most]:
        number, cells, first = json.loads(line)
        entry = _entry(number, tuple(cells), first, shape, job, work.orders)
        targets = len(entry.order.targets) if entry.order else 0
        writes += targets + 1
        size += len(line.encode()) * (targets + 1)
        if entries and (writes > BATCH_WRITES or size > BATCH_BYTES):
            break
        entries.append(entry)
    return _Batch(entries, job.company_id, len(lines), work.rt, job.importing.dry_run)


def _entry(
    number: int,
    cells: tuple[str, ...],
    first: int | None,
    shape: Shape,
    job: BulkJob,
    orders: Orders,
) -> _Entry:
    row = _read(number, cells, shape, job)
    problems = list(row.problems)
    if first is not None:
        sentence = f"Row {first} has the same key, or says the same. Give each row its own key."
        problems.append(Problem("key", "key_repeated", sentence))
    if problems:
        return _Entry(number, cells, row, None, tuple(problems))
    try:
        order = orders({**row.values, "idempotencyKey": f"import-{row.key}"})
        schedule.refuse_repeats(order)
    except RefusedError as error:
        return _Entry(number, cells, row, None, tuple(error.problems))
    return _Entry(number, cells, row, order, ())


@dataclass(slots=True)
class _Batch:
    """A batch of rows as the store asks about it."""

    entries: Sequence[_Entry]
    company_id: str
    part_rows: int
    rt: Runtime
    dry_run: bool

    @property
    def wanted(self) -> Wanted:
        orders = [entry.order for entry in self.entries if entry.order]
        return Wanted(
            post_ids=_distinct(
                name
                for entry in self.entries
                if entry.order
                for name in entry.post_ids(self.company_id)
            ),
            account_ids=_distinct(t.account_id for order in orders for t in order.targets),
            asset_ids=_distinct(name for order in orders for name in order.asset_ids),
        )

    def changed(self, around: Around) -> list[str]:
        found = []
        for entry in self.entries:
            known = self._known(entry, around)
            with suppress(RefusedError):  # which `decide` will meet again
                if known is not None and not _unchanged(entry, known[1]):
                    found.append(known[0])
        return list(_distinct(found))

    def refusing(self, problems: Sequence[Problem]) -> _Batch:
        refused = [replace(one, order=None, problems=tuple(problems)) for one in self.entries]
        return replace(self, entries=refused)

    def _known(self, entry: _Entry, around: Around) -> tuple[str, ScheduledPost] | None:
        if entry.order is None:
            return None
        for name in entry.post_ids(self.company_id):
            post = around.posts.get(name)
            if post is not None and post.company_id == self.company_id:
                return name, post
        return None

    def decide(self, around: Around, job: BulkJob, now: datetime) -> Step:
        done = _Done()
        for entry in self.entries:
            try:
                self._decide(entry, around, job, now, done)
            except RefusedError as error:
                done.refuse(entry, error.problems)
        cursor = job.cursor
        line = cursor.line + len(self.entries)
        at_end = line >= self.part_rows
        after = bulk.evolve(
            job,
            now,
            cursor=Cursor(
                part=cursor.part + at_end,
                line=0 if at_end else line,
                row=self.entries[-1].number if self.entries else cursor.row,
            ),
            counts=job.counts.plus(done.counts),
            notes=bulk.kept((*job.notes, *done.notes)),
            waking=() if self.dry_run else done.waking(),
        )
        if self.dry_run:
            return Step(after, refused=tuple(done.refused))
        return Step(after, tuple(done.creations), tuple(done.changes), tuple(done.refused))

    def _decide(
        self, entry: _Entry, around: Around, job: BulkJob, now: datetime, done: _Done
    ) -> None:
        if entry.order is None:
            raise RefusedError(list(entry.problems))
        known = self._known(entry, around)
        if known is not None:
            post_id, post = known
            if post_id in done.touched:
                sentence = f"Row {done.touched[post_id]} means the same post."
                raise RefusedError([Problem("key", "key_repeated", sentence)])
            if _unchanged(entry, post):
                done.count("unchanged")
                return
            command, notes = _changed(entry, around.wholes[post_id], around, now, self.rt)
            done.change(entry, post_id, command, notes)
        elif entry.row.status in rows.ENDED:
            done.count("skipped")
        else:
            done.create(entry, self._creation(entry, around, job, now))

    def _creation(self, entry: _Entry, around: Around, job: BulkJob, now: datetime) -> Creation:
        assert entry.order is not None
        key = entry.row.key or ""
        made = schedule.creation(
            entry.order,
            around.surroundings,
            now,
            self.rt,
            keys.row_post_id(self.company_id, key),
            job.traceparent or "",
        )
        of_row = {"row_key": key, "row_fingerprint": entry.row.fingerprint}
        return replace(made, post=made.post.model_copy(update=of_row))


@dataclass(slots=True)
class _Done:
    """What a batch has come to so far."""

    counts: dict[str, int] = field(default_factory=dict)
    creations: list[Creation] = field(default_factory=list)
    changes: list[tuple[str, Command]] = field(default_factory=list)
    refused: list[RefusedRow] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    touched: dict[str, int] = field(default_factory=dict)

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def create(self, entry: _Entry, creation: Creation) -> None:
        self.count("created")
        self.touched[creation.post_id] = entry.number
        self.creations.append(creation)
        self.notes += [Note(row=entry.number, note=note) for note in creation.response["notes"]]

    def change(self, entry: _Entry, post_id: str, command: Command, notes: Sequence[str]) -> None:
        self.count("updated")
        self.touched[post_id] = entry.number
        self.changes.append((post_id, command))
        self.notes += [Note(row=entry.number, note=note) for note in notes]

    def refuse(self, entry: _Entry, problems: Sequence[Problem]) -> None:
        self.count("failed")
        columns = _distinct(rows.column_of(problem.field) for problem in problems)
        self.refused.append(
            RefusedRow(
                row=entry.number,
                column=", ".join(name for name in columns if name) or None,
                reason=" ".join(_distinct(problem.message for problem in problems)),
                cells=json.dumps(entry.cells, ensure_ascii=False),
            )
        )

    def waking(self) -> tuple[str, ...]:
        due = _due(self.creations, [command for _, command in self.changes])
        return tuple(log.id for log in due)


# --- a row whose post is known -------------------------------------------------------------------


def _unchanged(entry: _Entry, post: ScheduledPost) -> bool:
    """The row said the same when it was taken in last, or the post is what it wants anyway."""
    assert entry.order is not None
    return post.row_fingerprint == entry.row.fingerprint or rows.same(
        post, entry.row, entry.order.targets
    )


def _changed(
    entry: _Entry, whole: Whole, around: Around, now: datetime, rt: Runtime
) -> tuple[Command, tuple[str, ...]]:
    """The post as the row wants it, all of it or nothing. Raises `RefusedError`."""
    order, post = entry.order, whole.post
    assert order is not None
    problems: list[Problem] = []
    wanted = {(target.platform, target.account_id): target for target in order.targets}
    if set(wanted) != {(target.platform, target.account_id) for target in post.platforms}:
        sentence = (
            "A scheduled post keeps its accounts. Cancel it, and give this row a new key to "
            "schedule it to others."
        )
        raise RefusedError([Problem("platforms", "accounts_changed", sentence)])
    problems += [
        Problem("key", "too_late", f"{log.platform}: {too_late(log)}")
        for log in whole.logs.values()
        if not changes.changeable(log)
    ]
    media: tuple[MediaItem, ...] | None = None
    if order.media_asset_ids != post.media_asset_ids:
        known = around.surroundings.assets
        media = resolve_media(order.media_asset_ids, known, order.company_id, problems)
    moved = []
    when = _plan(order, post, now)
    for index, target in enumerate(order.targets):
        log = next(log for log in whole.logs.values() if _is(log, target))
        field, assets = f"platforms[{index}]", around.surroundings.assets
        thread = resolve_thread(field, target.thread, assets, order.company_id, problems)
        content = target.custom_content or order.content
        correction = Correction(content, media, target.options, thread)
        if problems:
            continue
        change = changes.edit(log, correction, now)
        problems += draft_problems(
            field,
            log.platform,
            change.log.posts,
            target.options,
            rt,
            account=around.surroundings.accounts.get(target.account_id),
        )
        if when is not None:
            change = changes.reschedule(change.log, when, now)
        moved.append(change)
    if problems:
        raise RefusedError(problems)
    command = Command(tuple(moved), {}, post=_fields(entry, order, media, when, moved))
    return command, when.notes if when else ()


def _is(log: PublishLog, target: Target) -> bool:
    return (log.platform, log.account_id) == (target.platform, target.account_id)


def _plan(order: Order, post: ScheduledPost, now: datetime) -> schedules.Plan | None:
    """The new time; None where the row wants the one that it has."""
    at = schedules.moment(order.scheduled_at, order.timezone, field="scheduledAt").at
    latest = post.latest_at
    if order.latest_at is not None:
        latest = schedules.moment(order.latest_at, order.timezone, field="latestAt").at
    zoned = order.timezone in (None, post.timezone)
    if (at, latest) == (post.scheduled_at, post.latest_at) and zoned:
        return None
    return schedules.plan(order.scheduled_at, order.timezone, order.latest_at, now=now)


def _fields(
    entry: _Entry,
    order: Order,
    media: tuple[MediaItem, ...] | None,
    when: schedules.Plan | None,
    moved: Sequence[Change],
) -> Mapping[str, Any]:
    fields: dict[str, Any] = {
        "content": order.content,
        "platforms": [target.document() for target in order.targets],
        "rowKey": entry.row.key,
        "rowFingerprint": entry.row.fingerprint,
    }
    if media is not None:
        fields["mediaAssetIds"] = list(order.media_asset_ids)
        fields["media"] = [item.document() for item in media]
    if when is not None:
        fields |= {
            "scheduledAt": when.due_at,
            "timezone": order.timezone,
            "latestAt": when.latest_at,
            "cloudTaskNames": [change.log.wake().task_id for change in moved],
        }
    return fields


def _distinct(names: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


STEPS = {Phase.CHECK: check, Phase.APPLY: apply}
