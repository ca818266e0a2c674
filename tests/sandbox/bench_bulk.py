"""What rows in and out of a file cost: `python -m tests.sandbox.bench_bulk [rows]`.

Round trips and writes are counted at the wire, memory is the most that the function's process ever
had. Seconds are this machine's, and told for comparison only.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from tests.sandbox.functions import FunctionProcess
from tests.sandbox.stack import BUCKET, Stack
from tests.world import COMPANY, World

ROWS = 10_000
PATIENCE = 3600.0
MEMORY_MIB = 256


@dataclass(frozen=True)
class Figure:
    """`budget` is None for what depends on the machine."""

    what: str
    counted: float
    budget: float | None = None
    floor: float | None = None


def figures(world: World, rows: int = ROWS) -> Iterator[Figure]:
    """`rows` posts in from the bucket, the same file again, and out of there."""
    stack = world.stack
    stack.storage.put(BUCKET, "bench.csv", sheet(world, rows), "text/csv")
    data = {"uri": f"gs://{BUCKET}/bench.csv", "userId": "user-1"}
    stack.get("bulk", "/jobs", companyId=COMPANY, jobId="none")  # it starts at its first request
    first = timed(stack, "BULK_IMPORT", data)
    again = timed(stack, "BULK_IMPORT", data)
    out = timed(stack, "BULK_EXPORT", {"records": "posts"})
    assert first.counts["created"] == again.counts["unchanged"] == out.counts["rows"] == rows

    yield Figure(f"Firestore round trips per 1,000 rows, {rows} in", first.per_thousand, 50, 40)
    yield Figure("document writes per row in (post, delivery)", first.writes / rows, 2.05, 2)
    yield Figure("round trips per 1,000 rows, the same file again", again.per_thousand, 50, 40)
    yield Figure("document writes per row, the same file again", again.writes / rows, 0.05, 0)
    yield Figure(f"round trips per 1,000 rows, {rows} out", out.per_thousand, 12, 5)
    yield Figure("most memory of the function, MiB", peak_mib(stack), MEMORY_MIB)
    for what, run in (("in", first), ("in again", again), ("out", out)):
        yield Figure(f"seconds, {rows} rows {what}", run.seconds)
        yield Figure(f"CPU seconds of the function, {rows} rows {what}", run.cpu_seconds)


@dataclass(frozen=True)
class Run:
    counts: dict[str, int]
    round_trips: int
    writes: int
    seconds: float
    cpu_seconds: float

    @property
    def per_thousand(self) -> float:
        return self.round_trips * 1000 / self.counts["rows"]


def timed(stack: Stack, type: str, data: dict[str, Any]) -> Run:
    """One job from its request to its end."""
    [process] = stack.processes["bulk"]
    before, started, worked = stack.proxy.counts("bulk"), time.monotonic(), cpu_seconds(process)
    job_id = ask(stack, type, data)
    end = started + PATIENCE
    while (job := stack.record("bulkJobs", job_id) or {})["state"] in ("queued", "running"):
        assert time.monotonic() < end, job
        time.sleep(0.05)
    seconds = time.monotonic() - started
    spent = stack.proxy.counts("bulk") - before
    assert job["state"] == "completed", job
    return Run(
        counts=job["counts"],
        round_trips=spent.round_trips,
        writes=spent.documents_written,
        seconds=seconds,
        cpu_seconds=cpu_seconds(process) - worked,
    )


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


def peak_mib(stack: Stack) -> float:
    [process] = stack.processes["bulk"]
    status = Path(f"/proc/{process.worker()}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def cpu_seconds(process: FunctionProcess) -> float:
    stat = Path(f"/proc/{process.worker()}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with Stack(schedules=False) as stack:
        for figure in figures(World(stack), rows):
            budget = f"(budget {figure.budget:g})" if figure.budget is not None else ""
            print(f"{figure.what:60} {figure.counted:10.2f} {budget}", flush=True)


if __name__ == "__main__":
    main()
