"""One queue's line of waiting tasks, and the token bucket at its head."""

import heapq
from collections.abc import Iterator
from datetime import datetime, timedelta

from tests.sandbox.cloud_tasks.values import RateLimits


class Line:
    """Task names by the instant they come due, and by arrival among equals."""

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, int, str]] = []
        self._place: dict[str, int] = {}
        self._arrivals = 0

    def put(self, name: str, at: datetime) -> None:
        """Queue a task, or move one that is queued."""
        self._arrivals += 1
        self._place[name] = self._arrivals
        heapq.heappush(self._heap, (at, self._arrivals, name))

    def drop(self, name: str) -> None:
        self._place.pop(name, None)

    def first(self) -> tuple[datetime, str] | None:
        """When the next task is due, and which."""
        while self._heap:
            at, place, name = self._heap[0]
            if self._place.get(name) == place:
                return at, name
            heapq.heappop(self._heap)
        return None

    def is_due(self, now: datetime) -> bool:
        first = self.first()
        return first is not None and first[0] <= now

    def in_order(self, now: datetime) -> Iterator[str]:
        """The due tasks one by one; the taker drops or moves each before asking for the next."""
        while (first := self.first()) is not None and first[0] <= now:
            yield first[1]

    def all_due(self, now: datetime) -> list[str]:
        due = [entry for entry in self._heap if entry[0] <= now]
        return [name for _, place, name in sorted(due) if self._place.get(name) == place]


class Bucket:
    """The token bucket of a queue: one token per dispatch, filled by the rate up to the burst.

    It is slowed while the target pushes back. The service says only that it uses "a higher
    backoff rate" after 429 and 503; here each one halves the refill, down to an eighth, and
    each success doubles it again.
    """

    SLOWEST = 0.125

    def __init__(self, limits: RateLimits, now: datetime) -> None:
        self.limits = limits
        self.speed = 1.0
        self._tokens = float(limits.max_burst_size)
        self._filled_at = now

    def change(self, limits: RateLimits) -> None:
        self.limits = limits
        self._tokens = min(self._tokens, float(limits.max_burst_size))

    def refill(self, now: datetime) -> None:
        """Add what has flowed in since; a clock turned back adds nothing."""
        elapsed = max(timedelta(0), now - self._filled_at).total_seconds()
        self._filled_at = now
        self._tokens = min(self._tokens + elapsed * self._rate(), float(self.limits.max_burst_size))

    def has_token(self) -> bool:
        return self._tokens >= 1

    def take(self) -> None:
        self._tokens -= 1

    def next_token_at(self, now: datetime) -> datetime:
        self.refill(now)
        missing = max(0.0, 1 - self._tokens)
        # A microsecond more than exact, so that rounding never wakes anyone a hair too early.
        return now + timedelta(seconds=missing / self._rate(), microseconds=1 if missing else 0)

    def slow_down(self) -> None:
        self.speed = max(self.SLOWEST, self.speed / 2)

    def recover(self) -> None:
        self.speed = min(1.0, self.speed * 2)

    def _rate(self) -> float:
        return self.limits.max_dispatches_per_second * self.speed
