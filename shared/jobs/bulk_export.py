"""Records into a file: page by page into parts, the parts into one file, a checksum of it.

All pages are read as of one instant, so that a page read again is the same page, and a post that is
moved meanwhile is neither lost nor there twice. The report of an import is written the same way.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from shared.domain import analytics, posts, rows
from shared.domain.bulk import Artifact, Cursor, Export, Phase, Records, RefusedRow, State
from shared.domain.deliveries import PublishLog
from shared.domain.markers import Keyed
from shared.domain.rows_file import Format, Shape
from shared.jobs import bulk as chunks
from shared.jobs.bulk import Work
from shared.runtime import Runtime
from shared.store import queries

PAGE_ROWS = 200
# Firestore reads the past of the last hour; a longer export goes on with what is there now.
SNAPSHOT_LASTS = timedelta(minutes=50)
TYPES = {
    Format.CSV: "text/csv; charset=utf-8",
    Format.JSONL: "application/jsonl; charset=utf-8",
}

LOG_COLUMNS = (
    "deliveryId",
    "postId",
    "platform",
    "accountId",
    "status",
    "generation",
    "dueAt",
    "latestAt",
    "publishedAt",
    "remoteId",
    "remoteUrl",
    "attempts",
    "errorCode",
    "errorMessage",
    "durationMs",
    "idempotencyKey",
    "createdAt",
    "updatedAt",
)
METRIC_COLUMNS = (
    "deliveryId",
    "postId",
    "platform",
    "accountId",
    "remoteId",
    "publishedAt",
    "sourceAt",
    "fetchedAt",
    *sorted(analytics.METRICS),
)


def accept(asked: Export, keyed: Keyed, rt: Runtime, traceparent: str) -> dict[str, Any]:
    return chunks.accept(lambda _: asked, keyed, rt, traceparent)


@dataclass(frozen=True, slots=True)
class _Page:
    rows: Sequence[Mapping[str, Any]]
    read: int
    after: tuple[Any, ...]


def write(work: Work) -> None:
    """The next page into the next part."""
    job = work.job
    asked = job.exporting
    if asked.as_of is None:
        # Of the database's own clock: an instant that is still to come could not be read.
        asked = asked.model_copy(update={"as_of": work.held.update_time})
    page = _PAGES[asked.records](work, asked)
    text = _text(page.rows, _columns(asked.records), asked.format, first=job.cursor.part == 0)
    _keep(work, text, asked.format)
    work.advance(
        asked=asked,
        counts=job.counts.plus({"rows": len(page.rows)}),
        cursor=_behind(job.cursor, page.after, page.read),
        phase=Phase.WRITE if page.read == PAGE_ROWS else Phase.JOIN,
    )


def report(work: Work) -> None:
    """The next refused rows of an import, in the format that they came in."""
    job = work.job
    shape = job.importing.shape
    assert shape is not None
    after = job.cursor.after
    refused = work.rt.store.bulk.refused(work.held.id, after=after, limit=PAGE_ROWS)
    text = _report(refused, shape, first=job.cursor.part == 0)
    _keep(work, text, shape.format)
    last = (f"r{refused[-1].row:010}",) if refused else after
    work.advance(
        cursor=_behind(job.cursor, last, len(refused)),
        phase=Phase.REPORT if len(refused) == PAGE_ROWS else Phase.JOIN,
    )


def join(work: Work) -> None:
    """All parts into one file; the checksum is of the bytes that lie there."""
    job, files = work.job, work.rt.files
    if isinstance(job.asked, Export):
        format, name, count = job.asked.format, str(job.asked.records), job.counts.rows
    else:
        format, name, count = job.asked.format, "errors", job.counts.failed
    parts = [_part_name(work, part) for part in range(job.cursor.part)]
    final = files.join(parts, f"{chunks.FILES}/{work.held.id}/{name}.{format}", TYPES[format])
    artifact = Artifact(
        name=final.name,
        rows=count,
        size_bytes=final.size_bytes,
        crc32c=final.crc32c,
        sha256=files.sha256(final, work.ends_at),
    )
    work.end(State.COMPLETED, file=artifact)


def _keep(work: Work, text: str, format: Format) -> None:
    name = _part_name(work, work.job.cursor.part)
    work.rt.files.write(name, text.encode("utf-8", "replace"), TYPES[format])


def _part_name(work: Work, part: int) -> str:
    return f"{chunks.PARTS}/{work.held.id}/out/{part:08}"


def _behind(cursor: Cursor, after: tuple[Any, ...], read: int) -> Cursor:
    return Cursor(part=cursor.part + 1, row=cursor.row + read, after=after)


# --- what is read --------------------------------------------------------------------------------


def _posts(work: Work, asked: Export) -> _Page:
    found = work.rt.store.bulk.posts(
        work.job.company_id,
        since=asked.since,
        until=asked.until,
        after=work.job.cursor.after,
        limit=PAGE_ROWS,
        as_of=_as_of(work, asked),
    )
    derived = [(name, post, posts.derive(post.results.values())) for name, post in found]
    last = (found[-1][1].scheduled_at, found[-1][0]) if found else ()
    shown = [
        rows.of_post(name, post, status)
        for name, post, status in derived
        if asked.status in (None, status)
    ]
    return _Page(shown, len(found), last)


def _logs(work: Work, asked: Export) -> _Page:
    def shown(name: str, document: Mapping[str, Any]) -> dict[str, Any] | None:
        log = PublishLog.model_validate(document)
        if not _within(log.due_at, asked):
            return None
        return {**_chosen(document, LOG_COLUMNS), "deliveryId": name, "attempts": len(log.attempts)}

    return _documents(work, asked, queries.LOGS_OF_COMPANY, shown)


def _metrics(work: Work, asked: Export) -> _Page:
    def shown(name: str, document: Mapping[str, Any]) -> dict[str, Any] | None:
        if not _within(document.get("publishedAt"), asked):
            return None
        numbers = _chosen(document.get("metrics") or {}, METRIC_COLUMNS)
        return {**_chosen(document, METRIC_COLUMNS), **numbers, "deliveryId": name}

    return _documents(work, asked, queries.METRICS_OF_COMPANY, shown)


_PAGES = {Records.POSTS: _posts, Records.LOGS: _logs, Records.METRICS: _metrics}


def _documents(work: Work, asked: Export, query: queries.Query, shown: Any) -> _Page:
    found = work.rt.store.bulk.documents(
        query,
        work.job.company_id,
        after=work.job.cursor.after,
        limit=PAGE_ROWS,
        as_of=_as_of(work, asked),
    )
    kept = [row for name, document in found if (row := shown(name, document)) is not None]
    return _Page(kept, len(found), (found[-1][0],) if found else ())


def _as_of(work: Work, asked: Export) -> datetime | None:
    as_of = asked.as_of
    return as_of if as_of and work.now() < as_of + SNAPSHOT_LASTS else None


def _within(at: datetime | None, asked: Export) -> bool:
    if at is None:
        return asked.since is None and asked.until is None
    return (asked.since is None or asked.since <= at) and (asked.until is None or at <= asked.until)


def _chosen(document: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in document.items()
        if name in columns and value is not None
    }


def _columns(records: Records) -> tuple[str, ...]:
    return {
        Records.POSTS: rows.COLUMNS,
        Records.LOGS: LOG_COLUMNS,
        Records.METRICS: METRIC_COLUMNS,
    }[records]


# --- how it is written ---------------------------------------------------------------------------


def _text(
    found: Iterable[Mapping[str, Any]], columns: Sequence[str], format: Format, *, first: bool
) -> str:
    if format is Format.JSONL:
        told = ({name: row[name] for name in columns if row.get(name) is not None} for row in found)
        return "".join(_line(row) for row in told)
    lines = [columns] if first else []
    lines += [[rows.cell(name, row.get(name)) for name in columns] for row in found]
    return _csv(lines, ",")


def _report(refused: Sequence[RefusedRow], shape: Shape, *, first: bool) -> str:
    if shape.format is Format.JSONL:
        return "".join(_line(_reported(row)) for row in refused)
    kept = [at for at, name in enumerate(shape.columns) if name not in rows.REPORTED]
    columns = [shape.columns[at] for at in kept]
    lines: list[Sequence[str]] = [[*columns, *rows.REPORTED]] if first else []
    for row in refused:
        cells = json.loads(row.cells)
        own = [cells[at] if at < len(cells) else "" for at in kept]
        surplus = cells[len(shape.columns) :]
        told = [str(row.row), row.column or "", row.reason]
        lines.append([_as_it_was(cell) for cell in (*own, *told, *surplus)])
    return _csv(lines, shape.delimiter)


def _as_it_was(cell: str) -> str:
    """A cell of the file as it stood there, unless a spreadsheet would run it."""
    return rows.harmless(rows.undone(cell))


def _reported(row: RefusedRow) -> dict[str, Any]:
    [line] = json.loads(row.cells)
    told = {"errorRow": row.row, "errorColumn": row.column, "errorReason": row.reason}
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    return {**found, **told} if isinstance(found, dict) else {"line": line, **told}


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, default=str) + "\n"


def _csv(lines: Iterable[Sequence[str]], delimiter: str) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="\r\n").writerows(lines)
    return out.getvalue()


STEPS = {Phase.WRITE: write, Phase.REPORT: report, Phase.JOIN: join}
