"""The sandbox's time: real time plus an offset that a test may turn."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


def real_now() -> datetime:
    return datetime.now(UTC)


class Clock:
    """Real time shifted by `offset`, shared by every server of the sandbox.

    It runs on at the speed of real time. Whoever sleeps until an instant listens with
    `on_turn`, so that a turn of thirty days wakes it at once. Safe to use from any thread.
    """

    def __init__(self, *, real: Callable[[], datetime] = real_now) -> None:
        self._real = real
        self._lock = threading.Lock()
        self._offset = timedelta(0)
        self._turns = [(datetime.min.replace(tzinfo=UTC), timedelta(0))]
        self._listeners: list[Callable[[], None]] = []

    @property
    def offset(self) -> timedelta:
        with self._lock:
            return self._offset

    def now(self) -> datetime:
        """The sandbox's instant, aware UTC."""
        with self._lock:
            return self._real() + self._offset

    def offset_at(self, instant: datetime) -> timedelta:
        """The offset that held when the sandbox showed `instant`, which may lie turns back."""
        with self._lock:
            return next(offset for since, offset in reversed(self._turns) if since <= instant)

    def turn(self, by: timedelta) -> None:
        """Turn forward, or backward with a negative `by`."""
        with self._lock:
            self._offset += by
            self._turns.append((self._real() + self._offset, self._offset))
        self._tell()

    def turn_to(self, instant: datetime) -> None:
        """Turn so that now is `instant`, which must be aware."""
        if instant.tzinfo is None:
            raise ValueError("turn_to() takes an aware datetime")
        with self._lock:
            self._offset = instant - self._real()
            self._turns.append((instant, self._offset))
        self._tell()

    def reset(self) -> None:
        """Back to real time; listeners stay."""
        with self._lock:
            self._offset = timedelta(0)
            self._turns = self._turns[:1]
        self._tell()

    def on_turn(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after every turn, in the turning thread; returns what ends that."""
        with self._lock:
            self._listeners.append(callback)

        def forget() -> None:
            with self._lock:
                if callback in self._listeners:
                    self._listeners.remove(callback)

        return forget

    def _tell(self) -> None:
        with self._lock:
            listeners = tuple(self._listeners)
        for listener in listeners:  # outside the lock: a listener may well ask for the time
            listener()
