"""How a platform misbehaves on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.sandbox.platforms.values import Answer, Received

Kind = Literal[
    "refuse",  # answer `status`, `body`, `headers`; nothing is accepted
    "throttle",  # the platform's own 429, ending in `seconds`; `daily`, `scope` where it has them
    "error_before",  # `status` (500); nothing is accepted
    "error_after",  # accept, then `status` (500)
    "drop_before",  # hang up without an answer; nothing is accepted
    "drop_after",  # accept, hang up without an answer
    "slow",  # accept, answer after `seconds`
    "garbage",  # accept, answer 200 with HTML
    "no_id",  # accept, answer without the id
    "processing",  # accept; the media are IN_PROGRESS for `polls` readings
    "hold",  # stand still, before accepting or `after`, until `release()`
    "hook",  # accept, call `hook(received, answer)`, answer
]
HOLD_SECONDS = 30.0


@dataclass(slots=True)
class Misbehaviour:
    """A fault in waiting. `left` counts down; None is for ever."""

    platform: str
    call: str
    kind: Kind
    left: int | None
    when: Callable[[Received], bool] | None = None
    how: dict[str, Any] = field(default_factory=dict)
    hits: int = 0
    arrivals: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    released: threading.Event = field(default_factory=threading.Event)

    def applies(self, received: Received) -> bool:
        return (
            self.left != 0
            and self.platform == received.platform
            and self.call in (received.call, "*")
            and (self.when is None or self.when(received))
        )

    def wait_until_held(self, timeout: float = 10.0) -> None:
        """Return when one more request stands at the barrier."""
        if not self.arrivals.acquire(timeout=timeout):
            raise AssertionError(f"no {self.platform} {self.call} arrived in {timeout} s")

    def release(self) -> None:
        """Let go whoever is held, now and later."""
        self.released.set()

    def stand_still(self) -> None:
        self.arrivals.release()
        self.released.wait(HOLD_SECONDS)

    def after(self, received: Received, answer: Answer) -> None:
        if self.kind == "hook":
            self.how["hook"](received, answer)
        if self.kind == "hold" and self.how.get("after"):
            self.stand_still()
