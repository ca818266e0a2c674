"""Films, syncs and files at size, beside their budgets: `make bench ARGS=--long`, some ten minutes.

What is counted has a budget, and a broken one ends it with exit code 1; seconds are this machine's.
`--accounts` and `--rows` set other sizes.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.sandbox import bench_bulk, bench_films, bench_sync
from tests.sandbox.figures import Figure
from tests.sandbox.program import Program
from tests.sandbox.stack import Stack, only
from tests.sandbox.terminal import Terminal
from tests.world import World

NEEDED = ("publish_post", "schedule_post", "sync_analytics", "bulk")


def tell(program: Program, accounts: int = bench_sync.ACCOUNTS, rows: int = bench_bulk.ROWS) -> int:
    terminal = Terminal()
    terminal.note("Starting the system …")
    stack = program.start(Stack(instances=only(NEEDED), schedules=False))
    figures = list(bench_films.figures(World(stack), terminal.note))
    show(figures, terminal)
    stack.reset()
    more = list(bench_sync.figures(World(stack), accounts, bench_sync.POSTS_EACH, terminal.note))
    show(more, terminal)
    figures += more
    stack.reset()
    more = list(bench_bulk.figures(World(stack), rows, terminal.note))
    show(more, terminal)
    figures += more
    broken = sum(figure.broken for figure in figures)
    if broken:
        program.end(1, f"bench: {broken} budgets are broken.")
    return 0


def show(figures: Sequence[Figure], terminal: Terminal) -> None:
    terminal.table(
        [
            {
                "what": figure.what,
                "counted": f"{figure.counted:.4g}",
                "budget": "" if figure.budget is None else f"{figure.budget:g}",
                "floor": "" if figure.floor is None else f"{figure.floor:g}",
                "": terminal.paint("BROKEN", "red") if figure.broken else "",
            }
            for figure in figures
        ]
    )
    terminal.say()
