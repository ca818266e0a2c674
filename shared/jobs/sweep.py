"""What nobody woke: deliveries past their grace, leases that ran out, roll-ups never stored; and
unknown outcomes that somebody may not have been told of.

Its cost follows what is wrong, not what exists: each query reads only what it will act on.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from shared.domain import changes
from shared.domain.deliveries import Change, PublishLog
from shared.domain.failures import UnavailableError
from shared.jobs import bulk, slots
from shared.jobs.publish import after, announce, looks_up
from shared.runtime import Runtime

BATCH = 200


def run(rt: Runtime, ends_at: float) -> dict[str, Any]:
    """Sweep until nothing is left or the time is up (monotonic seconds)."""
    woken = ended = finished = skipped = 0
    seen: set[str] = set()
    while time.monotonic() < ends_at:
        overdue = [log for log in rt.store.deliveries.overdue(BATCH) if log.id not in seen]
        if not overdue:
            break
        for log in overdue:
            seen.add(log.id)
            change = _sweep(log, rt)
            if change is None:
                skipped += 1
                continue
            woken += change.wakes
            ended += log.is_open and not change.log.is_open
            if time.monotonic() >= ends_at:
                break
    for post_id in rt.store.posts.stale(BATCH):
        rt.store.posts.finish(post_id)
        finished += 1
    slots.watch(rt)
    bulk.revive(rt)
    done: dict[str, Any] = {
        "woken": woken,
        "ended": ended,
        "finished": finished,
        "skipped": skipped,
    }
    rt.log.event("sweep.done", **done)
    return {"success": True, **done}


def _sweep(log: PublishLog, rt: Runtime) -> Change | None:
    if not log.is_open:
        return _told(log, rt)
    platform = rt.platforms.get(log.platform)
    looks = partial(looks_up, platform)
    try:
        change = rt.store.deliveries.sweep(log.id, log.account_id, looks=looks)
    except UnavailableError:
        return None  # the next sweep finds it again
    if change is not None:
        event = "sweep.woke" if change.wakes else "publish.moved"
        if change.log.error_code == "cannot_start":
            event = "delivery.cannot_start"
        after(change, rt, event=event)
    return change


def _told(log: PublishLog, rt: Runtime) -> Change | None:
    """An unknown outcome that has come to rest. Its alert has a task by now, or had one: the name
    is the same, and so is the mark of whoever sends it."""
    if not announce(log, rt):
        return None
    try:
        return rt.store.oversight.move(log.id, changes.told)
    except UnavailableError:
        return None
