"""One clock for every decision: the local one, corrected by what Firestore's read times show.

Two instances whose clocks differ by minutes would disagree about leases and about what is due. Each
read of Firestore bounds the difference: its read time lies between sending and receiving. The
correction changes only when it is proven wrong, so that latency does not make it wander.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta


class Clock:
    """The time, as aware UTC. `observe` is called by the store with every read.

    `local` is this machine's own time, right or wrong.
    """

    def __init__(self, local: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.local = local
        self._offset = timedelta(0)

    def now(self) -> datetime:
        return self.local() + self._offset

    def observe(self, read_time: datetime, *, sent: datetime, received: datetime) -> None:
        """`sent` and `received` are local, uncorrected instants around the read."""
        least, most = read_time - received, read_time - sent
        self._offset = min(max(self._offset, least), most)

    @property
    def offset(self) -> timedelta:
        """How far the local clock is behind Firestore's."""
        return self._offset
