"""The misbehaviour of Cloud Tasks that callers must stand, on request."""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

Predicate = Callable[[str, str], bool]


class Kind(StrEnum):
    TWICE = "deliver twice"
    LATE = "deliver late"
    SHUFFLED = "deliver out of order"
    LOST = "lose the task"
    REPLY_LOST = "create the task, lose the reply"
    REFUSED = "refuse the call"
    QUEUE_NOT_READY = "queue not found"


@dataclass(eq=False)
class Fault:
    """One misbehaviour, played up to `times` times (None: until cleared); `used` counts.

    It strikes where queue id, task id and `when(queue id, task id)` agree, and of those by
    `chance`, drawn from `seed`. A queue-wide call has an empty task id.
    """

    kind: Kind
    times: int | None = 1
    queue: str | None = None
    task: str | None = None
    when: Predicate | None = None
    chance: float = 1.0
    seed: int = 0
    delay: timedelta = timedelta(0)
    at_once: bool = False
    method: str = ""
    used: int = 0
    dice: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    def strikes(self, queue: str, task: str, method: str) -> bool:
        return (
            (self.times is None or self.used < self.times)
            and self.queue in (None, queue)
            and self.task in (None, task)
            and self.method in ("", method)
            and (self.when is None or self.when(queue, task))
            and (self.chance >= 1 or self.dice.random() < self.chance)
        )


class Faults:
    """The faults in force. Each verb adds one and returns it, so that a test can read `used`.

    All take `times`, `queue`, `task`, `when`, `chance` and `seed` as `Fault` has them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def deliver_twice(
        self, *, at_once: bool = False, after: timedelta = timedelta(0), **where: Any
    ) -> Fault:
        """Send the attempt a second time: beside the first, or `after` its answer."""
        return self.add(Fault(Kind.TWICE, at_once=at_once, delay=after, **where))

    def deliver_late(self, by: timedelta, **where: Any) -> Fault:
        """Dispatch `by` after the task has come due; its ETA stays as it was."""
        return self.add(Fault(Kind.LATE, delay=by, **where))

    def deliver_out_of_order(self, **where: Any) -> Fault:
        """Shuffle the tasks that are due at the same moment, until cleared."""
        return self.add(Fault(Kind.SHUFFLED, **({"times": None} | where)))

    def lose_task(self, **where: Any) -> Fault:
        """Forget a task when it comes due, silently; its name stays taken."""
        return self.add(Fault(Kind.LOST, **where))

    def lose_reply(self, **where: Any) -> Fault:
        """CreateTask creates the task and answers UNAVAILABLE."""
        return self.add(Fault(Kind.REPLY_LOST, **where))

    def refuse(self, method: str = "CreateTask", **where: Any) -> Fault:
        """Answer UNAVAILABLE and do nothing."""
        return self.add(Fault(Kind.REFUSED, method=method, **where))

    def queue_not_ready(self, **where: Any) -> Fault:
        """CreateTask answers NOT_FOUND, as new and long idle queues do."""
        return self.add(Fault(Kind.QUEUE_NOT_READY, **where))

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self, fault: Fault | None = None) -> None:
        """Take back one fault, or all."""
        with self._lock:
            self._faults = [
                kept for kept in self._faults if fault is not None and kept is not fault
            ]

    def take(self, kind: Kind, queue: str, task: str = "", *, method: str = "") -> Fault | None:
        """The first fault that strikes here, counted as used."""
        with self._lock:
            for fault in self._faults:
                if fault.kind is kind and fault.strikes(queue, task, method):
                    fault.used += 1
                    return fault
        return None
