"""`python -m tests.chaos points`: breaks a delivery at every point, alone and in pairs, shows what
came of it, and fails on a finding."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from tests.chaos.points import SCENARIOS, Campaign, Plan, Run, chosen, pairs, plain, singles
from tests.chaos.promises import summary, table
from tests.chaos.wires import FUNCTIONS
from tests.sandbox.program import Program
from tests.sandbox.stack import Stack, only
from tests.sandbox.terminal import Terminal, listed
from tests.world import World

LINE_EVERY_SECONDS = 10.0  # of progress, where no terminal shows it
SHOWN = 40  # findings


def add_options(parser: argparse.ArgumentParser) -> None:
    platforms = sorted({scenario.platform for scenario in SCENARIOS})
    parser.add_argument("--seed", type=int, help="which pairs are chosen")
    parser.add_argument("--pairs", default="all", help="how many, or all (all)")
    parser.add_argument("--platform", choices=platforms, help="this one alone")


def tell(program: Program, options: argparse.Namespace) -> int:
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    terminal, started = Terminal(), time.monotonic()
    scenarios = [one for one in SCENARIOS if options.platform in (None, one.platform)]
    terminal.note("Starting the system …")
    stack = program.start(Stack(instances=only(FUNCTIONS), schedules=False), watch=False)
    with Campaign(World(stack)).opened() as campaign:

        def play(what: str, plans: Sequence[Plan]) -> list[Run]:
            return campaign.run(plans, _progress(terminal, what, len(plans)))

        runs = play("in one piece", plain(scenarios))
        unlisted = [run for run in runs if run.effects != run.scenario.points]
        for run in unlisted:
            terminal.say(f"  {run.scenario.name} is not as it is written down: {run.effects}")
        runs = play("broken once", singles(scenarios))
        _show(terminal, "Broken once, at every point in each way", runs)
        twice = pairs(runs)
        many = len(twice) if options.pairs == "all" else int(options.pairs)
        plans = chosen(twice, many, seed)
        broken_twice = play("broken twice", plans)
        title = f"Broken twice: {len(plans)} of {len(twice)} pairs, seed {seed}"
        _show(terminal, title, broken_twice)
    took = timedelta(seconds=round(time.monotonic() - started))
    again = f"--seed {seed} --pairs {options.pairs}"
    again += f" --platform {options.platform}" if options.platform else ""
    terminal.say(f"\nIt took {took}. The same pairs again: {again}")
    found = sum(bool(run.verdict.findings) for run in [*runs, *broken_twice])
    if found or unlisted:
        program.end(1, f"points: {found} broken promises, {len(unlisted)} effects not written down")
    return 0


def _progress(terminal: Terminal, what: str, plans: int) -> Callable[[int], None]:
    said_at = time.monotonic()

    def note(begun: int) -> None:
        nonlocal said_at
        text = f"{what}: {begun} of {plans} …"
        terminal.note(text)
        if not sys.stdout.isatty() and time.monotonic() - said_at > LINE_EVERY_SECONDS:
            said_at = time.monotonic()
            terminal.say(text)

    return note


def _show(terminal: Terminal, title: str, runs: Sequence[Run]) -> None:
    verdicts = [run.verdict for run in runs]
    terminal.title(title)
    if not runs:
        return
    terminal.table(table(verdicts))
    ended = listed(f"{many} {status}" for status, many in summary(verdicts).items())
    terminal.say(f"  ended: {ended}")
    for run in [run for run in runs if run.verdict.findings][:SHOWN]:
        says = "; ".join(finding.says for finding in run.verdict.findings)
        kinds = listed(str(finding.kind) for finding in run.verdict.findings)
        terminal.say(f"  {terminal.paint(kinds, 'red')}  {run.name} ({says})")
