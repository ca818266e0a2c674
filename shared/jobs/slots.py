"""Slots that nobody ran: Scheduler was down, or its calls did not get through."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from shared.domain import slots
from shared.runtime import Runtime


def watch(rt: Runtime) -> int:
    """Tell of each missed slot once; how many there were."""
    missed = rt.store.slots.missed(tuple(slots.WATCHED))
    for job, at in missed:
        tell(job, [at], rt)
    return len(missed)


def tell(job: str, missed: Iterable[datetime], rt: Runtime) -> None:
    for at in missed:
        rt.log.event(
            "schedule.slot_missed",
            f"Nobody ran the slot {at.isoformat()} of {job}.",
            severity="ERROR",
            job=job,
            slot=at,
        )
