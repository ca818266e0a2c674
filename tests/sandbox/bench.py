"""What a post costs, counted in units that do not depend on the machine: `make bench`.

Each number stands beside its budget and its floor (what no design could go below). A budget that is
broken ends the bench with exit code 1.
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

from tests.sandbox.firestore_proxy import Counts
from tests.sandbox.functions import build
from tests.sandbox.program import Program
from tests.sandbox.stack import Stack, only
from tests.sandbox.terminal import Terminal
from tests.world import Account, World
from tools import imports

COUNTED = ("schedule_post", "publish_post", "maintain")
TARGETS = 3
HISTORY_RECORDS, LONG_HISTORY_RECORDS = 100, 20_000
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


def waiting(stack: Stack) -> int:
    """Tasks in all queues."""
    return sum(len(stack.tasks.tasks(queue.name)) for queue in stack.tasks.queues())


def history(world: World, note: Callable[[str], None]) -> Iterator[Row]:
    """Documents read with a short and with a long history behind."""
    stack, account = world.stack, world.account("linkedin")
    reads = []
    for records in (HISTORY_RECORDS, LONG_HISTORY_RECORDS):
        note(f"Writing a history of {records} records …")
        grow(stack, records)
        world.sweep()  # the first one puts its own records down
        reads.append(
            [
                counted(stack, "publish_post", lambda: publish(world, account)).documents_read,
                counted(stack, "schedule_post", lambda: world.schedule(account)).documents_read,
                counted(stack, "maintain", world.sweep).documents_read,
            ]
        )
    grown = f"{LONG_HISTORY_RECORDS} records more"
    names = ("a delivery", "scheduling", "a sweep")
    for name, short, long in zip(names, *reads, strict=True):
        yield Row(f"documents read, {name}, {grown}", long, short, short)


def publish(world: World, account: Account) -> None:
    world.stack.tasks.faults.lose_task()
    deliver(world, world.schedule(account, content=f"Hello {secrets.token_hex(4)}"), account)


def deliver(world: World, post_id: str, account: Account) -> None:
    answer = world.deliver(post_id, account)
    assert answer.json()["success"] is True, answer.text


def counted(stack: Stack, function: str, work: Callable[[], object]) -> Counts:
    before = stack.proxy.counts(function)
    work()
    return stack.proxy.counts(function) - before


def grow(stack: Stack, records: int) -> None:
    """Copies of what is there, under other ids, in the collections that grow with every post."""
    kept = {
        name: next(iter(stack.records(name).values()))
        for name in ("publishLogs", "scheduledPosts", "idempotencyMarkers")
    }
    each = -(-records // len(kept))
    batches = [
        (name, record, range(first, min(first + COMMIT_RECORDS, each)))
        for name, record in kept.items()
        for first in range(0, each, COMMIT_RECORDS)
    ]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda batch: _copy(stack, *batch), batches))


def _copy(stack: Stack, collection: str, record: dict[str, Any], numbers: range) -> None:
    batch = stack.db.batch()
    for number in numbers:
        batch.set(stack.db.document(collection, f"history-{number}"), record)
    batch.commit()


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
