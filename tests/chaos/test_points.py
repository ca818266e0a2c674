"""A delivery broken at every effect on its way, in each way, and at two of them: the system
recovers by itself, and every promise holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from shared.domain.deliveries import Status
from shared.platforms.registry import NAMES
from tests.chaos.points import (
    SCENARIOS,
    Campaign,
    Plan,
    Run,
    Scenario,
    chosen,
    of_each_guarantee,
    own_singles,
    pairs,
    plain,
    singles,
)
from tests.chaos.promises import GUARANTEES, table
from tests.sandbox.stack import Stack
from tests.sandbox.terminal import Terminal
from tests.world import World

# Of each guarantee one scenario's single faults, of the others' own points this many, and this many
# pairs; `python -m tests.chaos points` plays all of everything.
MORE, PAIRS, SEED = 40, 120, 4
# After one fault: the call may have left, and nothing that can be read tells.
UNKNOWN = [
    "discord webhook: `committing` after",
    "discord webhook: `create post` after",
    "discord webhook: `create post` before",
    "discord webhook: `create post` lost",
    "discord webhook: `read channel` after",
    "discord webhook: `read channel` before",
    "discord webhook: `settle` before",
    "facebook with a comment: `committing` after",  # of either part
    "facebook with a comment: `create comment` before",
    "facebook with a comment: `create post` before",
    "facebook with a film: `committing` after",
    "facebook with a film: `create video` before",
    "facebook: `committing` after",
    "facebook: `create post` before",
    "instagram with a comment: `committing` after",  # of the comment
    "instagram with a comment: `create comment` before",
    "linkedin member: `committing` after",
    "linkedin member: `create post` after",
    "linkedin member: `create post` before",
    "linkedin member: `create post` lost",
    "linkedin member: `settle` before",
    "linkedin with a comment: `committing` after",
    "linkedin with a comment: `create comment` before",
    "linkedin with a comment: `create post` before",
    "linkedin with a film: `committing` after",
    "linkedin with a film: `create post` before",
    "slack with a film: `committing` after",
    "slack with a film: `create post` before",
    "slack with an image: `committing` after",
    "slack with an image: `create post` before",
    "slack: `committing` after",
    "slack: `create post` before",
    "telegram with images: `committing` after",
    "telegram with images: `create post` after",
    "telegram with images: `create post` before",
    "telegram with images: `create post` lost",
    "telegram with images: `settle` before",
    "telegram: `committing` after",
    "telegram: `create post` after",
    "telegram: `create post` before",
    "telegram: `create post` lost",
    "telegram: `settle` before",
    "thread on x: `committing` after",  # of any part
    "thread on x: `create post` before",
    "x with a film: `committing` after",
    "x with a film: `create post` before",
    "x with an image: `committing` after",
    "x with an image: `create post` before",
]


@dataclass(frozen=True)
class Played:
    plain: Sequence[Run]
    once: Sequence[Run]
    twice: Sequence[Run]


@pytest.fixture(scope="module")
def played(running: Stack) -> Iterator[Played]:
    running.reset()
    with Campaign(World(running)).opened() as campaign:
        undisturbed = campaign.run(plain())
        others = own_singles(one for one in SCENARIOS if one not in of_each_guarantee())
        once = campaign.run([*of_all_guarantees(), *chosen(others, MORE, SEED)])
        twice = campaign.run(chosen(pairs(once), PAIRS, SEED))
    yield Played(undisturbed, once, twice)
    running.heal()


def test_every_platform_and_every_guarantee_has_its_points() -> None:
    guarantees = {scenario.guarantee for scenario in SCENARIOS}

    assert {scenario.platform for scenario in SCENARIOS} == set(NAMES)
    assert guarantees == set(GUARANTEES.values())


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_effects_of_a_delivery_are_those_written_down(
    played: Played, scenario: Scenario
) -> None:
    [run] = [run for run in played.plain if run.scenario is scenario]

    assert run.effects == scenario.points
    assert (run.verdict.status, run.verdict.findings) == ("success", ())


def test_no_promise_breaks_at_any_point(played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    show("broken once, at every point of one account of each guarantee", played.once, capsys)

    every = {(run.scenario.name, run.faults) for run in played.once}
    assert {(plan.name, faults) for plan, faults in of_all_guarantees()} <= every
    assert [run.name for run in played.once if not run.struck] == []
    assert findings(played.once) == []


def test_no_promise_breaks_at_two_points(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    show(f"broken at two of them, {PAIRS} pairs, seed {SEED}", played.twice, capsys)

    assert len(played.twice) == PAIRS
    assert findings(played.twice) == []


def test_one_fault_leaves_an_outcome_unknown_only_where_nothing_can_tell(played: Played) -> None:
    unknown = [run for run in played.once if run.verdict.status is Status.UNKNOWN]
    others = {run.verdict.status for run in played.once if run not in unknown}

    assert unknown == [run for run in played.once if run.name in UNKNOWN]
    assert others == {Status.SUCCESS}


def of_all_guarantees() -> list[Plan]:
    """What comes before and after publishing is the same for all, and played with one of them."""
    first, *others = of_each_guarantee()
    return [*singles([first]), *own_singles(others)]


def findings(runs: Sequence[Run]) -> list[str]:
    return [
        f"{finding.kind}: {run.name}: {finding.says}"
        for run in runs
        for finding in run.verdict.findings
    ]


def show(title: str, runs: Sequence[Run], capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        terminal = Terminal()
        terminal.title(f"One delivery {title}")
        terminal.table(table([run.verdict for run in runs]))
