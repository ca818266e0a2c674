"""Who did what, when and why; and the one page that says whether anything is stuck."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from shared.domain import cursors
from shared.jobs import controls
from shared.runtime import Runtime


def listed(
    equal: dict[str, str],
    since: datetime | None,
    until: datetime | None,
    cursor: str | None,
    limit: int,
    rt: Runtime,
) -> dict[str, Any]:
    found = rt.store.audit.page(
        equal, since=since, until=until, after=cursors.decode(cursor), limit=limit
    )
    full = len(found) == limit
    return {
        "success": True,
        "entries": [{"id": entry_id, **_plain(entry)} for entry_id, entry in found],
        "nextCursor": cursors.encode(found[-1][1]["at"], found[-1][0]) if full else None,
    }


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    hidden = ("createdAt", "updatedAt", "schemaVersion", "expireAt")
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in entry.items()
        if name not in hidden
    }


def status(rt: Runtime) -> dict[str, Any]:
    counts = rt.store.oversight.counts()
    stuck = {
        "dead letters are open": counts["openDeadLetters"],
        "deliveries are unknown": counts["unknown"],
        "deliveries are overdue": counts["overdue"],
    }
    said = [f"{number} {what}" for what, number in stuck.items() if number]
    message = "; ".join(said) + "." if said else "Nothing is stuck."
    return {**controls.listed(rt), "counts": counts, "message": message}
