"""Figures of a long run: counted beside their budgets, measured beside nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.sandbox.children import SandboxError
from tests.sandbox.functions import FunctionProcess

LOOKS_EVERY_SECONDS = 0.2


@dataclass(frozen=True)
class Figure:
    """`budget` is None for what depends on the machine."""

    what: str
    counted: float
    budget: float | None = None
    floor: float | None = None

    @property
    def broken(self) -> bool:
        return self.budget is not None and self.counted > self.budget


class Watch:
    """A function's memory and CPU while something is done: `done` tells how much of it, from 0 to
    1. Memory is flat when what comes after the first tenth needs no more than that did."""

    def __init__(self, process: FunctionProcess, done: Callable[[], float]) -> None:
        self._process = process
        self._done = done
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._cpu_before = cpu_seconds(process)
        self.early_mib = self.late_mib = resident_mib(process)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.cpu_seconds = cpu_seconds(self._process) - self._cpu_before

    def _look(self) -> None:
        while not self._over.wait(LOOKS_EVERY_SECONDS):
            try:
                resident = resident_mib(self._process)
            except (SandboxError, FileNotFoundError):
                return  # the bench was interrupted, and the function has gone first
            if self._done() < 0.1:
                self.early_mib = max(self.early_mib, resident)
            else:
                self.late_mib = max(self.late_mib, resident)

    @property
    def growth_mib(self) -> float:
        return max(0.0, self.late_mib - self.early_mib)


def resident_mib(process: FunctionProcess) -> float:
    return _memory_mib(process, "VmRSS")


def peak_mib(process: FunctionProcess) -> float:
    """The most that it has had since it started, or since its peak was forgotten."""
    return _memory_mib(process, "VmHWM")


def forget_peak(process: FunctionProcess) -> None:
    Path(f"/proc/{process.worker()}/clear_refs").write_text("5")


def _memory_mib(process: FunctionProcess, field: str) -> float:
    status = Path(f"/proc/{process.worker()}/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) / 1024


def cpu_seconds(process: FunctionProcess) -> float:
    stat = Path(f"/proc/{process.worker()}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
