"""Queues: how full they are, and emptied. A queue holds wake-ups; posts are in the records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared.domain.controls import Pause
from shared.domain.failures import NotFoundError
from shared.domain.redrives import Person
from shared.jobs.controls import PUBLISH, check_queue
from shared.queue.tasks import QueueInfo
from shared.runtime import Runtime


def listed(queue: str | None, rt: Runtime) -> dict[str, Any]:
    names = [queue] if queue else rt.queue.queues()
    controls = rt.store.switches.read().values()
    pauses = [one for kind in controls for one in kind.pauses.values()]
    return {"success": True, "queues": [_queue(name, pauses, rt) for name in names]}


def _queue(name: str, known: Sequence[Pause], rt: Runtime) -> dict[str, Any]:
    info = rt.queue.info(name)
    if info is None:
        raise NotFoundError(f"There is no queue {name!r}.")
    platform = name.removeprefix(PUBLISH) if name.startswith(PUBLISH) else None
    succeeded = rt.store.oversight.last_success(platform) if platform else None
    now = rt.store.clock.now()
    pauses = [
        held.model_dump(by_alias=True, mode="json")
        for held in known
        if held.holds(now) and (held.scope, held.name) in (("queue", name), ("platform", platform))
    ]
    return {
        **_info(info),
        "lastSuccessAt": succeeded.isoformat() if succeeded else None,
        "pauses": pauses,
    }


def _info(info: QueueInfo) -> dict[str, Any]:
    return {
        "queue": info.name,
        "state": info.state,
        "depth": info.depth,
        "depthIsExact": info.counted_all,
        "inFlight": info.in_flight,
        "oldestDueAt": info.oldest_due_at.isoformat() if info.oldest_due_at else None,
        "mostPerSecond": info.most_per_second,
        "mostAtOnce": info.most_at_once,
    }


def purge(queue: str, person: Person, rt: Runtime) -> dict[str, Any]:
    check_queue(queue, rt)
    info = rt.queue.info(queue)
    depth = info.depth if info else 0
    rt.store.audit.add(
        {
            "action": "queue.purge",
            "by": person.email,
            "why": person.why,
            "queue": queue,
            "tasks": depth,
        }
    )
    rt.queue.purge(queue)
    rt.log.event(
        "operator.acted",
        severity="WARNING",
        action="queue.purge",
        by=person.email,
        queue=queue,
        tasks=depth,
    )
    message = (
        f"About {depth} tasks of {queue} are thrown away; it takes Cloud Tasks up to a minute. "
        "They were wake-ups, not posts: nothing is cancelled, and the sweep makes them again when "
        "they are two minutes overdue. To stop posts, pause the queue or cancel them."
    )
    return {"success": True, "queue": queue, "tasks": depth, "message": message}
