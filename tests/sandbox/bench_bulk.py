"""What rows in and out of a file cost.

Round trips and writes are counted at the wire, memory is what the function's process has. Seconds
are this machine's, and told for comparison only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx

from tests.sandbox.figures import Figure, Watch
from tests.sandbox.stack import BUCKET, Stack
from tests.world import COMPANY, World

ROWS = 10_000
PATIENCE = 7200.0
MEMORY_MIB = 256
GROWTH_MIB = 24  # 16 bytes a row are kept of a million rows' keys; the rest is the allocator's


def figures(world: World, rows: int, note: Callable[[str], None]) -> Iterator[Figure]:
    """`rows` posts in from the bucket, the same file again, and out of there."""
    stack = world.stack
    stack.storage.put(BUCKET, "bench.csv", sheet(world, rows), "text/csv")
    data = {"uri": f"gs://{BUCKET}/bench.csv", "userId": "user-1"}
    stack.get("bulk", "/jobs", companyId=COMPANY, jobId="none")  # it starts at its first request
    note(f"Taking {rows} rows in …")
    first = timed(stack, "BULK_IMPORT", data, rows)
    note(f"Taking the same {rows} rows in again …")
    again = timed(stack, "BULK_IMPORT", data, rows)
    note(f"Writing {rows} rows out …")
    out = timed(stack, "BULK_EXPORT", {"records": "posts"}, rows)
    assert first.counts["created"] == again.counts["unchanged"] == out.counts["rows"] == rows

    yield Figure(f"Firestore round trips per 1,000 rows, {rows:,} in", first.per_thousand, 50, 40)
    yield Figure("document writes per row in (post, delivery)", first.writes / rows, 2.05, 2)
    yield Figure("round trips per 1,000 rows, the same file again", again.per_thousand, 50, 40)
    yield Figure("document writes per row, the same file again", again.writes / rows, 0.05, 0)
    yield Figure(f"round trips per 1,000 rows, {rows:,} out", out.per_thousand, 12, 5)
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
    watch: Watch

    @property
    def per_thousand(self) -> float:
        return self.round_trips * 1000 / self.counts["rows"]


def timed(stack: Stack, type: str, data: dict[str, Any], rows: int) -> Run:
    """One job from its request to its end."""
    [process] = stack.processes["bulk"]
    before, started = stack.proxy.counts("bulk"), time.monotonic()
    job_id = ask(stack, type, data)

    def job() -> dict[str, Any]:
        return stack.record("bulkJobs", job_id) or {}

    with Watch(process, lambda: done(job(), rows)) as watch:
        while job()["state"] in ("queued", "running"):
            assert time.monotonic() < started + PATIENCE, job()
            time.sleep(0.2)
    seconds, spent = time.monotonic() - started, stack.proxy.counts("bulk") - before
    assert job()["state"] == "completed", job()
    return Run(job()["counts"], spent.round_trips, spent.documents_written, seconds, watch)


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
