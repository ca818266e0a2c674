"""`python -m tests.chaos storm`: plays a storm, shows what came of it, and fails on a finding."""

from __future__ import annotations

import argparse
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from tests.chaos import promises
from tests.chaos.plan import plan
from tests.chaos.storm import Outcome, Storm, clock_face
from tests.sandbox.program import Program
from tests.sandbox.stack import ROOT, Stack, only
from tests.sandbox.terminal import Terminal

POSTS_A_MINUTE = 20
LINE_EVERY_SECONDS = 10.0  # of progress, where no terminal shows it
SHOWN = 25  # findings
USED = ("publish_post", "schedule_post", "maintain")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--posts", type=int, default=1000, help="how many are ordered (1000)")
    parser.add_argument(
        "--minutes", type=int, help="how long it blows, on the sandbox's clock (posts / 20)"
    )
    parser.add_argument("--seed", type=int, help="what is ordered and which faults are played")
    parser.add_argument("--log", type=Path, help="where faults are put down (below .build)")


def tell(program: Program, options: argparse.Namespace) -> int:
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    minutes = options.minutes or max(5, options.posts // POSTS_A_MINUTE)
    log = options.log or ROOT / ".build" / f"storm-{seed}.jsonl"
    command = f"python -m tests.chaos storm --posts {options.posts} --minutes {minutes}"
    command += f" --seed {seed}"
    terminal, stop = Terminal(), threading.Event()
    terminal.say(f"{command}\nEvery fault is put down in {log}")
    terminal.note("Starting the system …")
    instances = only(USED) | {"publish_post": 2, "schedule_post": 2}
    stack = program.start(Stack(instances=instances, schedules=False), watch=False)
    program.on_first_interrupt(stop.set)
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("w") as file:
        storm = Storm(
            stack, plan(seed, options.posts, minutes), note=_Notes(terminal), file=file, stop=stop
        )
        outcome = storm.run()
    show(outcome, terminal)
    took = timedelta(seconds=time.monotonic() - started)
    terminal.say(f"\nIt took {clock_face(took)} min. To repeat it: {command}")
    if stop.is_set():
        program.end(130, "storm: interrupted; what had not come to its end was not judged.")
    return int(outcome.failed)


class _Notes:
    """Progress: a passing note on a terminal, else a line now and then."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._said_at = time.monotonic()

    def __call__(self, text: str) -> None:
        self._terminal.note(text)
        if not self._terminal.lively and time.monotonic() - self._said_at > LINE_EVERY_SECONDS:
            self._said_at = time.monotonic()
            self._terminal.say(text)


def show(outcome: Outcome, terminal: Terminal) -> None:
    findings = [
        f"{finding.kind}: {verdict.ordered.delivery_id} ({verdict.ordered.platform}): "
        f"{finding.says}"
        for verdict in outcome.verdicts
        for finding in verdict.findings
    ]
    for line in (*findings, *outcome.broken)[:SHOWN]:
        terminal.say(terminal.paint(line, "red"))
    terminal.title("Promises")
    terminal.table(promises.table(outcome.verdicts))
    terminal.title("Outcomes")
    terminal.table([*_by_platform(outcome)])
    terminal.title("Lateness, s")
    terminal.table([*_lateness(outcome)])
    terminal.title("Faults")
    terminal.table(
        [
            {"fault": kind, "played": played, "struck": outcome.struck.get(kind, 0)}
            for kind, played in sorted(outcome.played.items())
        ]
    )
    terminal.say()
    for line in _sentences(outcome):
        terminal.say(line)


def _sentences(outcome: Outcome) -> Iterator[str]:
    yield (
        f"{outcome.accepted} posts accepted, {outcome.refused} refused; "
        f"{len(outcome.verdicts)} deliveries; against their owner's last order: "
        f"{len(outcome.broken)}; answers 500: {outcome.errors}."
    )
    took = sorted(one.recovery for one in outcome.verdicts if one.recovery is not None)
    if took:
        middle, worst = clock_face(took[len(took) // 2]), clock_face(took[-1])
        yield (
            f"{len(took)} deliveries that had come due were open when the last fault ended: "
            f"half of them rested after {middle} min, all after {worst} min."
        )
    if outcome.rested_after is not None:
        yield f"Nothing was open any more {clock_face(outcome.rested_after)} min after it."


def _by_platform(outcome: Outcome) -> Iterator[dict[str, object]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for verdict in outcome.verdicts:
        counts[verdict.ordered.platform][str(verdict.status)] += 1
    statuses = sorted({status for counted in counts.values() for status in counted})
    for platform, counted in sorted(counts.items()):
        yield {"platform": platform, **{status: counted[status] for status in statuses}}


def _lateness(outcome: Outcome) -> Iterator[dict[str, object]]:
    begun = outcome.begun
    yield _percentiles("begun, warm", [one.late_seconds for one in begun if not one.cold])
    yield _percentiles("begun, cold", [one.late_seconds for one in begun if one.cold])
    yield _percentiles("on the platform", outcome.late_seconds)


def _percentiles(what: str, seconds: Sequence[float]) -> dict[str, object]:
    """By nearest rank."""
    ranked = sorted(seconds)

    def at(share: float) -> str:
        return f"{ranked[min(len(ranked) - 1, int(share * len(ranked)))]:.1f}" if ranked else ""

    return {
        "": what,
        "n": len(ranked),
        "p50": at(0.5),
        "p95": at(0.95),
        "p99": at(0.99),
        "max": at(1.0),
    }
