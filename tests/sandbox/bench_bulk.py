"""What rows in and out of a file cost.

Round trips and writes are counted at the wire, and their budgets are exactly what they come to: one
more, and something is done twice. Memory is what the function's process has. Seconds are this
machine's, and told for comparison only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx

from shared.jobs.bulk_export import PAGE_ROWS
from shared.jobs.bulk_import import BATCH_ROWS
from tests.sandbox.figures import Figure, Watch
from tests.sandbox.stack import BUCKET, Stack
from tests.world import COMPANY, World

ROWS = 10_000
PATIENCE = 7200.0
MEMORY_MIB = 256
# Asked for (3), its one task begun (2), checked, ended; an export has no check.
IMPORT_TRIPS, EXPORT_TRIPS = 7, 6
IMPORT_WRITES = 5  # its key, the job; the task begun, the check's end and the job's
# A chunk whose time is up: its end, the next begun (2); a check that it breaks is kept once more.
HANDED_OVER_TRIPS, HANDED_OVER_WRITES = 4, 3
GROWTH_MIB = 8  # 1 was measured; the rest is the allocator's


def figures(world: World, rows: int, note: Callable[[str], None]) -> Iterator[Figure]:
    """`rows` posts in from the bucket, the same file again, and out of there."""
    stack = world.stack
    stack.storage.put(BUCKET, "bench.csv", sheet(world, rows), "text/csv")
    data = {"uri": f"gs://{BUCKET}/bench.csv", "userId": "user-1"}
    stack.get("bulk", "/jobs", companyId=COMPANY, jobId="none")  # it starts at its first request

    def share(doing: str) -> Callable[[float], None]:
        return lambda done: note(f"{doing}: {done:.0%} …")

    first = timed(stack, "BULK_IMPORT", data, rows, share(f"Taking {rows} rows in"))
    same = f"Taking the same {rows} rows in again"
    again = timed(stack, "BULK_IMPORT", data, rows, share(same))
    out = timed(stack, "BULK_EXPORT", {"records": "posts"}, rows, share(f"Writing {rows} rows out"))
    assert first.counts["created"] == again.counts["unchanged"] == out.counts["rows"] == rows

    batches, pages = -(-rows // BATCH_ROWS), rows // PAGE_ROWS + 1
    for name, run, each in ((f"{rows:,} in", first, 2), ("the same file again", again, 0)):
        trips = 2 * batches + IMPORT_TRIPS + HANDED_OVER_TRIPS * run.handed_over
        yield trips_figure(name, rows, run, trips, floor=2 * batches)
        writes = each * rows + batches + IMPORT_WRITES + HANDED_OVER_WRITES * run.handed_over
        yield Figure(f"document writes per row, {name}", run.writes / rows, writes / rows, each)
    trips = 2 * pages + EXPORT_TRIPS + HANDED_OVER_TRIPS * out.handed_over
    yield trips_figure(f"{rows:,} out", rows, out, trips, floor=pages)
    runs = {"in": first, "in again": again, "out": out}
    most = max(run.watch.late_mib for run in runs.values())
    yield Figure("bulk: most memory, MiB", most, MEMORY_MIB)
    for what, run in runs.items():
        growth = run.watch.growth_mib
        yield Figure(f"rows {what}: MiB more than after the first tenth", growth, GROWTH_MIB)
    for what, run in runs.items():
        yield Figure(f"rows {what}: seconds", run.seconds)
        yield Figure(f"rows {what}: CPU seconds of the function", run.watch.cpu_seconds)


@dataclass(frozen=True)
class Run:
    counts: dict[str, int]
    round_trips: int
    writes: int
    seconds: float
    handed_over: int
    watch: Watch


def trips_figure(name: str, rows: int, run: Run, budget: int, floor: int) -> Figure:
    counted, most, least = (trips * 1000 / rows for trips in (run.round_trips, budget, floor))
    return Figure(f"Firestore round trips per 1,000 rows, {name}", counted, most, least)


def timed(
    stack: Stack, type: str, data: dict[str, Any], rows: int, tell: Callable[[float], None]
) -> Run:
    """One job from its request to its end; `tell` hears how much of it is done."""
    [process] = stack.processes["bulk"]
    before, started = stack.proxy.counts("bulk"), time.monotonic()
    job_id = ask(stack, type, data)

    def job() -> dict[str, Any]:
        return stack.record("bulkJobs", job_id) or {}

    with Watch(process, lambda: done(job(), rows)) as watch:
        while (seen := job())["state"] in ("queued", "running"):
            assert time.monotonic() < started + PATIENCE, seen
            tell(done(seen, rows))
            time.sleep(0.2)
    seconds, spent = time.monotonic() - started, stack.proxy.counts("bulk") - before
    assert job()["state"] == "completed", job()
    return Run(
        job()["counts"],
        spent.round_trips,
        spent.documents_written,
        seconds,
        handed_over=job()["hop"] - 1,
        watch=watch,
    )


def done(job: dict[str, Any], rows: int) -> float:
    """How much of the rows, by what the job has counted; an import first counts them all."""
    counts = job["counts"]
    if job["type"] == "BULK_EXPORT":
        return float(counts["rows"] / rows)
    return float(sum(counts[name] for name in counts if name != "rows") / rows)


def ask(stack: Stack, type: str, data: dict[str, Any]) -> str:
    key = f"bench-{time.monotonic_ns()}"
    body = {"type": type, "companyId": COMPANY, "idempotencyKey": key, "data": data}
    answer: httpx.Response = stack.post("bulk", "/", body)
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["jobId"]
    return job_id


def sheet(world: World, rows: int) -> bytes:
    account = world.account("linkedin")
    start = world.stack.clock.now() + timedelta(days=3)
    lines = ["key,scheduledAt,content,platforms"]
    for n in range(rows):
        at = (start + timedelta(seconds=n)).isoformat(timespec="seconds")
        lines.append(f"k{n},{at},Post number {n} of many,linkedin:{account.id}")
    return "\r\n".join(lines).encode() + b"\r\n"
