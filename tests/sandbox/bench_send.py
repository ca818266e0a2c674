"""How long a committing call lies between the last look at the clocks and the socket.

Past `sendBy` nothing is sent, but the look at the clock and the write are two steps: a process that
is frozen exactly between them does not know it. What lies there is measured, not counted as zero:
from just before the clocks are read until the kernel has the bytes, through the client that
publishes, to a server in another process. A request is two writes, its head and its body.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from shared.platforms.driver import in_time
from shared.platforms.session import Permit
from shared.platforms.wire import Client, Wire

SENDS = 1000
BODY = {"text": "What somebody has to say, of the length of a post. " * 4}


@dataclass(slots=True)
class Timed(Wire):
    """A call on its way that knows how long each of its writes took, in microseconds."""

    looked_at: int | None = None
    writes: list[float] = field(default_factory=list)

    def remaining(self, asked: float | None) -> float:
        """Asked before each use of the socket, so that one write is over when the next begins."""
        if self.looked_at is not None:
            self.writes.append((time.perf_counter_ns() - self.looked_at) / 1000)
            self.looked_at = None
        return super(Timed, self).remaining(asked)


def gaps(url: str) -> list[float]:
    """Microseconds between looking and having written, ascending; two for each request."""
    client = Client(keep_alive=False)  # as committing calls are sent
    return sorted(gap for _ in range(SENDS) for gap in _send(client, url))


def _send(client: Client, url: str) -> Iterator[float]:
    now = datetime.now(UTC)
    permit = Permit(now + timedelta(seconds=20), time.monotonic() + 20)

    def look() -> None:
        wire.looked_at = time.perf_counter_ns()
        in_time(permit, lambda: datetime.now(UTC) + timedelta(0))

    wire = Timed(ends_at=time.monotonic() + 20, before_write=look)
    client.send(wire, "POST", url, json=BODY)
    yield from wire.writes


def share(of: list[float], part: float) -> float:
    """The value that this part of them does not exceed."""
    return of[min(len(of) - 1, int(len(of) * part))]
