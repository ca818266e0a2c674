"""Pause and resume: a queue, a platform, an account, a company; with a reason, and until when.

The record in `controls/publish` is what holds a delivery; a paused queue also stands still itself.
What has written `committing` goes on, and both answers say so. A pause that ends, by hand or by its
time, stays on record until its queue runs and everything it held is awake: a crash in between is
made good by the next sweep.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from shared.domain import changes
from shared.domain.controls import Pause
from shared.domain.deliveries import PublishLog, Status
from shared.domain.failures import (
    ConflictError,
    JobError,
    NotFoundError,
    Problem,
    RefusedError,
    UnavailableError,
)
from shared.domain.redrives import Person
from shared.jobs.publish import tell_failed
from shared.queue.tasks import DEAD_LETTER_QUEUE
from shared.runtime import Runtime

BATCH = 200
SHOWN = 50
SWEEP_SECONDS = 60.0
PUBLISH = "publish-"

_FIELDS = {"platform": "platform", "account": "accountId", "company": "companyId"}


def pause(
    scope: str, name: str, until: datetime | None, person: Person, rt: Runtime
) -> dict[str, Any]:
    if until is not None:
        rt.store.switches.read()  # brings the time
        if until <= rt.store.clock.now():
            raise RefusedError([Problem("until", "in_the_past", "until must be in the future.")])
    _check(scope, name, rt)
    why = person.why or ""
    held = Pause(scope=scope, name=name, by=person.email, why=why, until=until)
    rt.store.switches.pause(held, _audit("pause", scope, name, person, until=until))
    stands = _queue_stands(scope, name, rt)
    _tell("pause", scope, name, person, rt)
    return {
        "success": True,
        "pause": _shown(held),
        "queuePaused": stands,
        "underWay": _under_way(scope, name, rt),
        "message": _says(held, stands),
    }


def _check(scope: str, name: str, rt: Runtime) -> None:
    """A pause of something that is not there would hold nothing, and nobody would notice."""
    if scope == "platform" and name not in rt.platforms:
        known = ", ".join(sorted(rt.platforms))
        sentence = f"{name!r} is not one of {known}."
        raise RefusedError([Problem("name", "platform_unknown", sentence)])
    if scope == "account" and rt.store.accounts.read(name) is None:
        raise NotFoundError(f"There is no account {name!r}.")
    if scope == "queue":
        check_queue(name, rt)


def check_queue(name: str, rt: Runtime) -> None:
    known = rt.queue.queues()
    if name not in known:
        sentence = f"{name!r} is not one of {', '.join(known)}."
        raise RefusedError([Problem("queue", "queue_unknown", sentence)])


def _queue_stands(scope: str, name: str, rt: Runtime) -> bool | None:
    """Whether the queue itself stands still; None where the pause is of no queue."""
    if scope != "queue":
        return None
    try:
        rt.queue.pause(name)
    except UnavailableError:
        return False
    return True


def _says(pause: Pause, stands: bool | None) -> str:
    until = f"until {pause.until.isoformat()}" if pause.until else "until somebody resumes it"
    message = f"The {pause.scope} {pause.name} is paused {until}."
    if stands is False and not pause.name.startswith(PUBLISH):
        return message + " But Cloud Tasks did not answer and its queue still runs: pause again."
    return message + (
        " What is already being sent goes on; what comes due waits, spends no attempts, and is "
        "missed if it waits beyond its latestAt."
    )


def resume(scope: str, name: str, person: Person, rt: Runtime, ends_at: float) -> dict[str, Any]:
    if scope == "queue":
        check_queue(name, rt)
        if name == DEAD_LETTER_QUEUE:
            message = "This queue only holds copies and stays paused. Redrive the letters instead."
            raise ConflictError(message, code="stays_paused")
    before = rt.store.switches.end(scope, name, _audit("resume", scope, name, person))
    if before is None and scope == "queue":  # paused past us, perhaps
        rt.store.audit.add(_audit("resume", scope, name, person))
    woken = _finish(_pause_of(scope, name, before), rt, ends_at)
    _tell("resume", scope, name, person, rt)
    was = "was paused" if before else "was not paused by us"
    message = f"The {scope} {name} {was}. {woken} deliveries that waited are woken."
    return {
        "success": True,
        "resumed": before is not None,
        "pause": _shown(before) if before else None,
        "woken": woken,
        "underWay": _under_way(scope, name, rt),
        "message": message,
    }


def _pause_of(scope: str, name: str, before: Pause | None) -> Pause:
    return before or Pause(scope=scope, name=name, by="", why="")


def end_expired(rt: Runtime, ends_at: float) -> int:
    """What pauses that have ended still hold is woken. Called by every sweep."""
    woken = 0
    ends_at = min(ends_at, time.monotonic() + SWEEP_SECONDS)
    for pause in rt.store.switches.expired():
        try:
            woken += _finish(pause, rt, ends_at)
        except JobError as error:
            rt.log.event("request.failed", error.message, severity="WARNING", code=error.code)
    return woken


def _finish(pause: Pause, rt: Runtime, ends_at: float) -> int:
    """Start the queue, wake what waits, forget the pause, in this order."""
    if pause.scope == "queue":
        rt.queue.resume(pause.name)
    woken = 0
    while time.monotonic() < ends_at:
        logs = rt.store.oversight.paused(_where(pause.scope, pause.name), BATCH)
        moved = [log for log in (_awake(log, rt) for log in logs) if log]
        tell_failed(rt.queue.wake_all([log.wake() for log in moved]), rt)
        woken += len(moved)
        if not moved:
            for held in rt.store.switches.expired():
                if (held.scope, held.name) == (pause.scope, pause.name):
                    rt.store.switches.forget(held)
            break
    return woken


def _awake(log: PublishLog, rt: Runtime) -> PublishLog | None:
    change = rt.store.oversight.move(log.id, changes.wake)
    return change.log if change else None


def _where(scope: str, name: str) -> dict[str, str]:
    """The deliveries of a scope, by a field of theirs."""
    if scope == "queue":
        return {"platform": name.removeprefix(PUBLISH)}
    return {_FIELDS[scope]: name}


def _under_way(scope: str, name: str, rt: Runtime) -> list[dict[str, Any]]:
    """What is being sent right now, or worked on by the platform: no pause holds it."""
    found = []
    for status in (Status.PROCESSING, Status.ACCEPTED):
        found += rt.store.oversight.in_state(status, _where(scope, name), limit=SHOWN)
    return [
        {
            "deliveryId": log.id,
            "postId": log.post_id,
            "platform": log.platform,
            "accountId": log.account_id,
            "status": str(log.status),
            "committing": log.committing is not None,
        }
        for log in found
    ]


def listed(rt: Runtime) -> dict[str, Any]:
    """Every pause that holds, and the platforms that throttle all of our accounts."""
    controls, now = rt.store.switches.read(), rt.store.clock.now()
    throttled = {name: controls.throttled_until(name) for name in controls.throttled}
    return {
        "success": True,
        "pauses": [_shown(held) for held in controls.pauses.values() if held.holds(now)],
        "throttled": {name: at.isoformat() for name, at in throttled.items() if at > now},
    }


def _shown(pause: Pause) -> dict[str, Any]:
    return pause.model_dump(by_alias=True, mode="json")


def _audit(
    action: str, scope: str, name: str, person: Person, *, until: datetime | None = None
) -> dict[str, Any]:
    told: dict[str, Any] = {
        "action": action,
        "by": person.email,
        "why": person.why,
        "scope": scope,
        "name": name,
        "until": until,
    }
    return told | ({"companyId": name} if scope == "company" else {})


def _tell(action: str, scope: str, name: str, person: Person, rt: Runtime) -> None:
    rt.log.event("operator.acted", action=action, by=person.email, scope=scope, name=name)
