"""What a post costs, counted in units that do not depend on the machine: `make bench`.

Times there are two: what loading costs, as a ratio, and what lies unguarded between the last check
of `sendBy` and the socket, with budgets that any machine keeps. Each number stands beside its
budget and its floor (what no design could go below). A broken budget ends it with exit code 1.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
from google.cloud.firestore_v1._helpers import encode_dict
from google.cloud.firestore_v1.types import document, firestore

from tests.sandbox import bench_send
from tests.sandbox.firestore_proxy import SERVICE, UNLIMITED, Counts
from tests.sandbox.functions import build
from tests.sandbox.program import Program
from tests.sandbox.stack import Stack, only
from tests.sandbox.terminal import Terminal
from tests.world import Account, World
from tools import imports

COUNTED = ("schedule_post", "publish_post", "maintain")
TARGETS = 3
HISTORY = ("publishLogs", "scheduledPosts", "idempotencyMarkers")
HISTORY_RECORDS, LONG_HISTORY_RECORDS = 100, 100_000
COMMIT_RECORDS = 500  # the most that one commit takes
IMPORT_RUNS = 8
TIMED = "import time; started = time.process_time()\n{}\nprint(time.process_time() - started)"


@dataclass(frozen=True)
class Row:
    what: str
    counted: float
    budget: float
    floor: float

    @property
    def broken(self) -> bool:
        return self.counted > self.budget


def tell(program: Program) -> int:
    terminal = Terminal()
    terminal.note("Starting the system …")
    stack = program.start(Stack(instances=only(COUNTED), schedules=False))
    terminal.note("Counting …")
    world = World(stack)
    rows = [*round_trips(world), *history(world, terminal.note)]
    terminal.note("Sending …")
    rows += unguarded(stack)
    terminal.note("Loading publish_post in fresh interpreters …")
    rows.append(import_ratio())
    terminal.table(
        [
            {
                "what": row.what,
                "counted": f"{row.counted:g}",
                "budget": f"{row.budget:g}",
                "floor": f"{row.floor:g}",
                "": terminal.paint("BROKEN", "red") if row.broken else "",
            }
            for row in rows
        ]
    )
    broken = sum(row.broken for row in rows)
    if broken:
        program.end(1, f"bench: {broken} of {len(rows)} budgets are broken.")
    return 0


def round_trips(world: World) -> Iterator[Row]:
    """One post to two accounts, delivered by hand, and one scheduled to three."""
    stack = world.stack
    accounts = [world.account("twitter"), world.account("linkedin"), world.account("twitter")]
    one, last = accounts[:2]
    stack.tasks.faults.lose_task(times=None)
    post_id = world.schedule(one, last)
    first = counted(stack, "publish_post", lambda: deliver(world, post_id, one))
    final = counted(stack, "publish_post", lambda: deliver(world, post_id, last))
    again = counted(stack, "publish_post", lambda: deliver(world, post_id, one))
    stack.tasks.faults.clear()

    before = waiting(stack)
    scheduled = counted(
        stack, "schedule_post", lambda: world.schedule(*accounts, after=timedelta(hours=1))
    )
    made = waiting(stack) - before

    yield Row("Firestore round trips, one published delivery", first.round_trips, 4, 4)
    yield Row("the same, a post's last delivery", final.round_trips, 6, 6)
    yield Row("document writes, one published delivery", first.documents_written, 4, 4)
    yield Row("the same, a post's last delivery", final.documents_written, 5, 4)
    yield Row("round trips, a duplicate of a settled delivery", again.round_trips, 1, 1)
    yield Row(f"round trips, scheduling to {TARGETS}", scheduled.round_trips, 2, 2)
    yield Row(f"tasks made, scheduling to {TARGETS}", made, TARGETS, TARGETS)


def unguarded(stack: Stack) -> Iterator[Row]:
    """What lies between the last look at the clocks and the socket; the framework answers."""
    [instance] = stack.processes["publish_post"]
    gaps = bench_send.gaps(f"http://127.0.0.1:{instance.port}/robots.txt")
    for name, part, budget in (
        ("median", 0.5, 200),
        ("p99", 0.99, 10_000),
        ("longest", 1, 100_000),
    ):
        took = round(bench_send.share(gaps, part))
        yield Row(f"µs from the last check of sendBy to the socket, {name}", took, budget, 0)


def waiting(stack: Stack) -> int:
    """Tasks in all queues."""
    return sum(len(stack.tasks.tasks(queue.name)) for queue in stack.tasks.queues())


def history(world: World, note: Callable[[str], None]) -> Iterator[Row]:
    """Documents read with a short and with a long history behind."""
    stack, account = world.stack, world.account("linkedin")
    reads = []
    for records in (HISTORY_RECORDS, LONG_HISTORY_RECORDS):
        grow(stack, records, lambda n, of=records: note(f"Writing a history: {n:,} of {of:,} …"))
        stack.settle()
        world.sweep()  # the first one puts its own records down, and finds what was wrong before
        reads.append(
            [
                counted(stack, "publish_post", lambda: publish(world, account)).documents_read,
                counted(stack, "schedule_post", lambda: later(world, account)).documents_read,
                counted(stack, "maintain", world.sweep).documents_read,
            ]
        )
    grown = f"{LONG_HISTORY_RECORDS:,} records for {HISTORY_RECORDS}"
    names = ("a delivery", "scheduling", "a sweep")
    for name, short, long in zip(names, *reads, strict=True):
        yield Row(f"documents read, {name}, {grown}", long, short, short)


def publish(world: World, account: Account) -> None:
    world.stack.tasks.faults.lose_task()
    deliver(world, world.schedule(account, content=f"Hello {secrets.token_hex(4)}"), account)


def later(world: World, account: Account) -> None:
    """Scheduled, and not due while the bench lasts: nothing of it runs beside what is counted."""
    world.schedule(account, after=timedelta(days=1))


def deliver(world: World, post_id: str, account: Account) -> None:
    answer = world.deliver(post_id, account)
    assert answer.json()["success"] is True, answer.text


def counted(stack: Stack, function: str, work: Callable[[], object]) -> Counts:
    before = stack.proxy.counts(function)
    work()
    return stack.proxy.counts(function) - before


def grow(stack: Stack, records: int, tell: Callable[[int], object] = lambda _: None) -> None:
    """Copies of what is there, under other ids, in the collections that grow with every post.

    As the bytes that the emulator takes, past the client, which would take ten times as long.
    `tell` hears how many are written.
    """
    root = f"projects/{stack.project}/databases/(default)"
    each = -(-records // len(HISTORY))
    batches: list[Any] = []
    for name in HISTORY:
        record = next(iter(stack.records(name).values()))
        copy = document.Document(fields=encode_dict(record))._pb
        for first in range(0, each, COMMIT_RECORDS):
            numbers = range(first, min(first + COMMIT_RECORDS, each))
            batches.append((copy, [f"{root}/documents/{name}/history-{n}" for n in numbers]))
    written = 0
    with grpc.insecure_channel(stack.emulator.address, options=UNLIMITED) as channel:
        commit = channel.unary_unary(
            f"{SERVICE}Commit", request_serializer=lambda request: request.SerializeToString()
        )
        with ThreadPoolExecutor(2) as pool:
            for many in pool.map(lambda batch: _copy(commit, root, *batch), batches):
                written += many
                tell(written)


def _copy(commit: Callable[..., object], root: str, copy: Any, names: list[str]) -> int:
    request = firestore.CommitRequest.pb()(database=root)
    for name in names:
        update = request.writes.add().update
        update.CopyFrom(copy)
        update.name = name
    commit(request, metadata=[("authorization", "Bearer owner")])
    return len(names)


def import_ratio() -> Row:
    """CPU to load `publish_post`, over that of its third parties' imports alone."""
    with tempfile.TemporaryDirectory() as folder:
        archive = build("publish_post", Path(folder))
        third_parties = "\n".join(sorted(imports.of_function("publish_post").statements))
        pairs = [
            (_cpu(third_parties, archive), _cpu("import main", archive)) for _ in range(IMPORT_RUNS)
        ]
    alone, whole = (min(times) for times in zip(*pairs, strict=True))
    return Row("CPU to load publish_post, over its third parties", round(whole / alone, 2), 1.15, 1)


def _cpu(statements: str, folder: Path) -> float:
    command = [sys.executable, "-c", TIMED.format(statements)]
    # As deployed, where the image holds the compiled modules: the warm-up run compiles ours.
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, env=kept)
    return float(ran.stdout.splitlines()[-1])
