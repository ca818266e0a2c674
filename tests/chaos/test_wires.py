"""Whom a fault strikes, and who dies with whom."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from tests.chaos.wires import Case, Fault, Mode, Process
from tests.sandbox.functions import Gate

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


def test_a_fault_strikes_the_effect_that_so_many_precede_and_the_next_counts_from_there() -> None:
    case = Case("mark", (Fault(2, Mode.BEFORE), Fault(1, Mode.LOST)))

    met = [case.meets(f"effect {number}", NOW) for number in range(6)]

    assert met == [None, None, Mode.BEFORE, None, Mode.LOST, None]
    assert [effect for effect, _, _ in case.struck] == ["effect 2", "effect 4"]
    assert (len(case.effects), case.later) == (6, 1)


def test_those_who_are_to_die_die_of_one_kill() -> None:
    kills: list[int] = []
    process = Process(lambda: kills.append(1), at_once=3)
    for _ in range(3):
        process.enter()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: process.die(), range(3)))

    assert kills == [1]


def test_whoever_is_not_to_die_is_answered_first() -> None:
    happened: list[str] = []
    process = Process(lambda: happened.append("killed"), at_once=2)
    process.enter()
    process.enter()
    waits = Gate()

    def die() -> None:
        waits()
        process.die()

    dying = threading.Thread(target=die)
    dying.start()
    waits.arrived()
    waits.open()
    happened.append("answered")
    process.leave()
    dying.join()

    assert happened == ["answered", "killed"]
