"""Pause and resume: a queue, a platform, an account, a company; with a reason, and until when.

A pause is of publishing, of syncs, or of imports and exports. The record in `controls/{kind}` is
what holds a delivery, an account's share of a sync, a chunk; a paused queue also stands still
itself. What has written `committing` goes on, and both answers say so. A pause that ends, by hand
or by its time, stays on record until its queue runs and everything it held is awake: a crash in
between is made good by the next sweep.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from shared.domain import bulk, changes, keys
from shared.domain.controls import Kind, Pause
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
from shared.jobs import bulk as chunks
from shared.jobs import collect
from shared.jobs.publish import tell_failed
from shared.queue.tasks import DEAD_LETTER_QUEUE
from shared.runtime import Runtime

BATCH = 200
SHOWN = 50
SWEEP_SECONDS = 60.0
PUBLISH = "publish-"

_FIELDS = {"platform": "platform", "account": "accountId", "company": "companyId"}
_QUEUES = {keys.ANALYTICS_QUEUE: Kind.SYNC, bulk.QUEUE: Kind.BULK}
_HELD = {Kind.PUBLISH: "deliveries", Kind.SYNC: "accounts' readings", Kind.BULK: "files"}


def pause(
    kind: Kind, scope: str, name: str, until: datetime | None, person: Person, rt: Runtime
) -> dict[str, Any]:
    rt.store.switches.read()  # brings the time
    if until is not None and until <= rt.store.clock.now():
        raise RefusedError([Problem("until", "in_the_past", "until must be in the future.")])
    kind = _kind(kind, scope, name)
    _check(kind, scope, name, rt)
    why = person.why or ""
    held = Pause(kind=kind, scope=scope, name=name, by=person.email, why=why, until=until)
    rt.store.switches.pause(held, _audit("pause", held, person, until=until))
    stands = _queue_stands(scope, name, rt)
    _tell("pause", held, person, rt)
    return {
        "success": True,
        "pause": _shown(held),
        "queuePaused": stands,
        "underWay": _under_way(held, rt),
        "message": _says(held, stands),
    }


def _kind(kind: Kind, scope: str, name: str) -> Kind:
    """A queue has one kind of work, whatever was said."""
    return _QUEUES.get(name, Kind.PUBLISH) if scope == "queue" else kind


def _check(kind: Kind, scope: str, name: str, rt: Runtime) -> None:
    """A pause of something that is not there would hold nothing, and nobody would notice."""
    if kind is Kind.BULK and scope in ("platform", "account"):
        sentence = "A file is a company's: pause its company, or the queue bulk."
        raise RefusedError([Problem("scope", "scope_unknown", sentence)])
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
    return message + _CONSEQUENCES[pause.kind]


_CONSEQUENCES = {
    Kind.PUBLISH: " What is already being sent goes on; what comes due waits, spends no attempts, "
    "and is missed if it waits beyond its latestAt.",
    Kind.SYNC: " What is being read is read to the end of its request; what comes due waits for a "
    "day at most, by when later syncs have taken over. Publishing goes on.",
    Kind.BULK: " A chunk under way is finished; the next one waits. Publishing goes on.",
}


def resume(
    kind: Kind, scope: str, name: str, person: Person, rt: Runtime, ends_at: float
) -> dict[str, Any]:
    kind = _kind(kind, scope, name)
    if scope == "queue":
        check_queue(name, rt)
        if name == DEAD_LETTER_QUEUE:
            message = "This queue only holds copies and stays paused. Redrive the letters instead."
            raise ConflictError(message, code="stays_paused")
    ending = Pause(kind=kind, scope=scope, name=name, by="", why="")
    told = _audit("resume", ending, person)
    before = rt.store.switches.end(kind, scope, name, told)
    if before is None and scope == "queue":  # paused past us, perhaps
        rt.store.audit.add(told)
    woken = _finish(before or ending, rt, ends_at)
    _tell("resume", ending, person, rt)
    was = "was paused" if before else "was not paused by us"
    message = f"The {scope} {name} {was}. {woken} {_HELD[kind]} that waited are woken."
    return {
        "success": True,
        "resumed": before is not None,
        "pause": _shown(before) if before else None,
        "woken": woken,
        "underWay": _under_way(ending, rt),
        "message": message,
    }


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
    where = _where(pause.scope, pause.name)
    match pause.kind:
        case Kind.PUBLISH:
            woken, all_awake = _wake(where, rt, ends_at)
        case Kind.SYNC:
            woken, all_awake = collect.resume(where, rt, ends_at)
        case Kind.BULK:
            woken, all_awake = chunks.resume(where, rt, ends_at)
    if all_awake:
        _forget(pause, rt)
    return woken


def _wake(where: Mapping[str, str], rt: Runtime, ends_at: float) -> tuple[int, bool]:
    """How many deliveries, and whether these were all."""
    woken = 0
    while time.monotonic() < ends_at:
        logs = rt.store.oversight.paused(where, BATCH)
        moved = [log for log in (_awake(log, rt) for log in logs) if log]
        tell_failed(rt.queue.wake_all([log.wake() for log in moved]), rt)
        woken += len(moved)
        if not moved:
            return woken, True
    return woken, False


def _forget(pause: Pause, rt: Runtime) -> None:
    for held in rt.store.switches.expired():
        if (held.kind, held.scope, held.name) == (pause.kind, pause.scope, pause.name):
            rt.store.switches.forget(held)


def _awake(log: PublishLog, rt: Runtime) -> PublishLog | None:
    change = rt.store.oversight.move(log.id, changes.wake)
    return change.log if change else None


def _where(scope: str, name: str) -> dict[str, str]:
    """What a scope holds, by a field of it; nothing named is all of its kind."""
    if scope != "queue":
        return {_FIELDS[scope]: name}
    return {} if name in _QUEUES else {"platform": name.removeprefix(PUBLISH)}


def _under_way(pause: Pause, rt: Runtime) -> list[dict[str, Any]]:
    """What is being sent right now, or worked on by the platform: no pause holds it."""
    if pause.kind is not Kind.PUBLISH:
        return []
    found = []
    for status in (Status.PROCESSING, Status.ACCEPTED):
        where = _where(pause.scope, pause.name)
        found += rt.store.oversight.in_state(status, where, limit=SHOWN)
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
    kinds, now = rt.store.switches.read(), rt.store.clock.now()
    pauses = [held for controls in kinds.values() for held in controls.pauses.values()]
    controls = kinds[Kind.PUBLISH]
    throttled = {name: controls.throttled_until(name) for name in controls.throttled}
    return {
        "success": True,
        "pauses": [_shown(held) for held in pauses if held.holds(now)],
        "throttled": {name: at.isoformat() for name, at in throttled.items() if at > now},
    }


def _shown(pause: Pause) -> dict[str, Any]:
    return pause.model_dump(by_alias=True, mode="json")


def _audit(
    action: str, pause: Pause, person: Person, *, until: datetime | None = None
) -> dict[str, Any]:
    told: dict[str, Any] = {
        "action": action,
        "by": person.email,
        "why": person.why,
        "kind": str(pause.kind),
        "scope": pause.scope,
        "name": pause.name,
        "until": until,
    }
    return told | ({"companyId": pause.name} if pause.scope == "company" else {})


def _tell(action: str, pause: Pause, person: Person, rt: Runtime) -> None:
    rt.log.event(
        "operator.acted",
        action=action,
        by=person.email,
        kind=str(pause.kind),
        scope=pause.scope,
        name=pause.name,
    )
