"""The life of a delivery, as decisions: given what was read, what is to be written.

    a task arrives ─ begin ──> settled? replay · cancelled, other generation? void
                               before its time? early · live lease? busy
                               lease ran out with `committing`? unknown
                               past latestAt? missed · paused, throttled? waiting
                               account gone? failed · attempts spent? failed
                               else claim: fresh owner, lease, fencing token + 1, attempt on record
                   ─ mark ───> `committing`, just before the one call that creates the post
                   ─ settle ─> success | accepted | retry | waiting | failed | partial | unknown

A thread goes through this part by part: its log is about the part that comes next, and whatever is
written next puts the part before it on record (`stepped`).

A task is a wake-up, never a permission: `begin` decides from the record alone, so an early, stale
or doubled task does no harm. Nothing here reads a clock or draws a random number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from shared.domain import keys, leases, retries
from shared.domain.accounts import AccountStatus, SocialAccount, pause_until
from shared.domain.controls import Controls
from shared.domain.deliveries import (
    ATTEMPTS_KEPT,
    ENDED,
    RAW_CHARS,
    Arrived,
    Attempt,
    Change,
    Committing,
    PublishLog,
    Status,
    advanced,
    arrived,
    bury,
    ended,
    evolve,
    going_on,
    hop_to,
    lateness,
    sweep_at,
)
from shared.domain.failures import (
    AuthExpiredError,
    DuplicateError,
    OutcomeUnknownError,
    PermanentError,
    PlatformError,
    ThrottledError,
    TransientError,
)

THROTTLE_DEFAULT = timedelta(seconds=60)  # where the platform does not say when to come back


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read together: one instant's view of a delivery. `account` is None when gone."""

    log: PublishLog
    account: SocialAccount | None
    controls: Controls


@dataclass(frozen=True, slots=True)
class Knock:
    """A task at the door: what it claims to be. None where it does not say."""

    generation: int | None = None
    task_id: str | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """The claim: this attempt may publish. `change` is written first."""

    change: Change


@dataclass(frozen=True, slots=True)
class Moved:
    """Nothing to publish now; `change` says what becomes of the delivery instead."""

    change: Change


@dataclass(frozen=True, slots=True)
class Replay:
    """Settled before: the answer is on record."""

    log: PublishLog


@dataclass(frozen=True, slots=True)
class Void:
    """The task's delivery is cancelled, redone under another generation, or was never there."""

    reason: str
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class Busy:
    """Another attempt holds the lease."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Early:
    """Before its time: the task on record only has to exist."""

    log: PublishLog


@dataclass(frozen=True, slots=True)
class Done:
    """What is now on record for the delivery."""

    log: PublishLog


Outcome = Done | Replay | Busy | Void | Early
Decision = Begun | Moved | Replay | Void | Busy | Early


def begin(seen: Seen, knock: Knock, *, now: datetime, owner: str, looks: bool) -> Decision:
    """What to do with a task that has arrived. `looks`: an unknown outcome on this account can be
    looked into without a person."""
    log = seen.log
    if knock.generation is not None and knock.generation != log.generation:
        return Void("another generation")
    if log.status is Status.CANCELLED:
        return Void("cancelled")
    if not log.is_open:
        return Replay(log)
    if log.status is Status.PROCESSING:
        if _leased(log, now):
            return Busy(log.lease_ends_at or now)
        log = _crashed(log)
        if log.committing is not None:
            return Moved(unknown(log, now, looks=looks, code="attempt_lost"))
    elif now < log.due_at - leases.EARLY:
        if knock.task_id == keys.task_id(log.id, log.generation, log.hop):
            # This very task is the one on record and is gone once we answer: it needs a successor.
            waits_on = {"status": log.status, "next_retry_at": log.next_retry_at}
            return Moved(Change(hop_to(log, now, log.due_at, **waits_on), wakes=True))
        return Early(log)
    held = _held_back(Seen(log, seen.account, seen.controls), now, looks=looks)
    if held is not None:
        return Moved(held)
    slot = _slot(log, seen.account, now) if seen.account is not None else None
    claimed = _claimed(log, now, owner)
    return Begun(Change(claimed, next_free_at=slot.next_free_at if slot else None))


def _leased(log: PublishLog, now: datetime) -> bool:
    return log.lease_ends_at is not None and now < log.lease_ends_at


def _crashed(log: PublishLog) -> PublishLog:
    """The log with its last attempt marked as one that never answered."""
    if not log.attempts or log.attempts[-1].outcome is not None:
        return log
    last = log.attempts[-1].model_copy(update={"outcome": "crashed", "code": "attempt_lost"})
    return log.model_copy(update={"attempts": (*log.attempts[:-1], last)})


def _held_back(seen: Seen, now: datetime, *, looks: bool) -> Change | None:
    """Why this delivery may not be tried now, as what becomes of it; None when it may."""
    log, account, controls = seen.log, seen.account, seen.controls
    if now >= log.latest_at:
        message = f"Not published by {log.latest_at.isoformat()}, the latest time it may be."
        return bury(log, now, Status.MISSED, code="missed", message=message)
    where = {
        "platform": log.platform,
        "account_id": log.account_id,
        "company_id": log.company_id,
        "queue": keys.queue(log.platform),
    }
    pause = controls.pause_of(**where, now=now)
    if pause is not None:
        return Change(_paused(log, now, until=pause.until))
    if account is None or account.status is AccountStatus.DISABLED:
        message = "The account was disconnected. Connect it again and retry the delivery."
        return _tokenless(log, now, looks=looks, code="account_disconnected", message=message)
    if account.status is AccountStatus.EXPIRED or account.refused_for_good(now):
        return _tokenless(log, now, looks=looks)
    free_at = max(account_free_at(account, log), controls.throttled_until(log.platform))
    if free_at > now:
        return waiting(log, now, free_at, code="throttled")
    slot = _slot(log, account, now)
    if slot is not None and slot.starts_at > now:
        change = waiting(log, now, slot.starts_at, code="spaced")
        return replace(change, next_free_at=slot.next_free_at)
    if log.attempts_spent >= retries.policy(log.platform).attempts:
        message = f"No attempt of {log.attempts_spent} came to an end."
        return bury(log, now, Status.FAILED, code="attempts_exhausted", message=message)
    return None


def _tokenless(
    log: PublishLog,
    now: datetime,
    *,
    looks: bool,
    code: str = "auth_expired",
    message: str = "The platform refuses the account's token. Reconnect the account.",
) -> Change:
    """No token to send with: a failure. Nor to look with, where an earlier call may have made the
    post: that look told nothing, and by the next one the account may be connected again."""
    if log.reconciling or log.committing is not None:
        return unknown(log, now, looks=looks, code=code, message=message)
    return bury(log, now, Status.FAILED, code=code, message=message)


@dataclass(frozen=True, slots=True)
class Slot:
    """A turn in one account's backlog, and where the one after it begins (epoch ms)."""

    starts_at: datetime
    next_free_at: int


def _slot(log: PublishLog, account: SocialAccount, now: datetime) -> Slot | None:
    """After an outage or a throttle one account's backlog goes out one by one: all at once would
    be throttled again, and look like a machine. None: on time, or its turn has come."""
    late = log.error_code == "throttled" or lateness(log, now) > leases.BACKLOG
    if not late or log.error_code == "spaced" or log.reconciling:
        return None
    free_at = datetime.fromtimestamp(account.next_free_at / 1000, tz=now.tzinfo)
    starts_at = max(now, free_at)
    after = starts_at + retries.policy(log.platform).spacing
    return Slot(starts_at, int(after.timestamp() * 1000))


def _slot_again(log: PublishLog, account: SocialAccount | None, now: datetime) -> Slot | None:
    """For one that nobody woke: its turn, if it had one, has passed. One that the platform has
    accepted only has to be asked after."""
    if account is None or log.committing is not None:
        return None
    return _slot(log.model_copy(update={"error_code": None}), account, now)


def account_free_at(account: SocialAccount, log: PublishLog) -> datetime:
    """When the account's throttle ends; the delivery's own time where there is none."""
    return datetime.fromtimestamp(account.paused_until / 1000, tz=log.due_at.tzinfo)


def _paused(log: PublishLog, now: datetime, *, until: datetime | None) -> PublishLog:
    """No successor: a resume, or the sweep, wakes it. A pause may be taken away before its end."""
    status = _meanwhile(log, Status.WAITING)
    ends_at = min(until or log.latest_at, log.latest_at)
    look = min(ends_at, now + leases.PAUSE_LOOK)
    fields: dict[str, Any] = {"error_code": "paused", "next_retry_at": ends_at, "sweep_at": look}
    return evolve(log, now, status=status, owner=None, lease_ends_at=None, **fields)


def waiting(log: PublishLog, now: datetime, until: datetime, *, code: str, **about: Any) -> Change:
    """Throttled: come back then, without spending an attempt."""
    fields = {"status": _meanwhile(log, Status.WAITING), "error_code": code, **about}
    return Change(hop_to(log, now, until, **fields), wakes=True)


def _meanwhile(log: PublishLog, otherwise: Status) -> Status:
    """What a delivery is until its next attempt. One that the platform has accepted stays so, or
    its owner could change it and have it posted twice."""
    if log.reconciling:
        return Status.UNKNOWN
    return Status.ACCEPTED if log.committing is not None else otherwise


def _claimed(log: PublishLog, now: datetime, owner: str) -> PublishLog:
    lease_ends_at = now + leases.LEASE
    attempt = Attempt(
        number=log.attempts_spent + 1,
        generation=log.generation,
        hop=log.hop,
        owner=owner,
        started_at=now,
        lateness_ms=int(lateness(log, now) / timedelta(milliseconds=1)),
    )
    look = max(log.sweep_at or now, lease_ends_at)  # kept where possible: it is an indexed field
    return evolve(
        log,
        now,
        status=Status.PROCESSING,
        owner=owner,
        lease_ends_at=lease_ends_at,
        fencing_token=log.fencing_token + 1,
        attempts=(*log.attempts, attempt)[-ATTEMPTS_KEPT:],
        attempts_spent=log.attempts_spent + 1,
        next_retry_at=None,
        sweep_hops=0,
        sweep_at=look,
        promote_at=None,
    )


# --- while it runs --------------------------------------------------------------------------------


def mark(
    log: PublishLog, now: datetime, *, owner: str, request_hash: str, before: Posted | None = None
) -> Change | None:
    """The `committing` mark; None when the lease has run out and nothing may be sent.

    An attempt that marks again either brings the part `before` this one, which its first call
    created, or had that call refused (a token that was renewed since): it would not have come this
    far otherwise.
    """
    if log.owner != owner or not _leased(log, now):
        return None
    log = stepped(log, before, now) if before else _refused(log)
    committing = Committing(
        at=now,
        send_by=min(now + leases.SEND_WITHIN, log.lease_ends_at or now),
        owner=owner,
        part=log.part,
        native_key=log.native_key,
        request_hash=request_hash,
    )
    since = log.unsettled_since or now
    return Change(evolve(log, now, committing=committing, unsettled_since=since))


def keep(
    log: PublishLog,
    now: datetime,
    *,
    owner: str,
    state: Mapping[str, Any],
    before: Posted | None = None,
) -> Change | None:
    """State on record before it is used; None when the lease has run out."""
    if log.owner != owner or not _leased(log, now):
        return None
    log = stepped(log, before, now) if before else log
    return Change(evolve(log, now, state=dict(state)))


# --- what came of it ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Posted:
    """The platform has the post. `found`: no answer to our call said so, a lookup did."""

    remote_id: str
    remote_url: str | None
    published_at: datetime | None
    found: bool
    raw: str | None

    def part(self, now: datetime) -> Arrived:
        at = self.published_at or now
        return Arrived(remote_id=self.remote_id, remote_url=self.remote_url, published_at=at)


def stepped(log: PublishLog, posted: Posted, now: datetime) -> PublishLog:
    """The log once a part of its thread is created and its attempt is on the way to the next one.

    Where that part is on record already, so is the mark of the next: the answer to that commit was
    lost, and without it nothing was sent.
    """
    if posted.remote_id in log.remote_ids:
        return _refused(log)
    return advanced(log, posted.part(now))


@dataclass(frozen=True, slots=True)
class InWork:
    """The platform works on it; look again after `check_after` with `state`."""

    state: Mapping[str, Any]
    check_after: timedelta


Result = Posted | InWork | PlatformError


def settle(
    log: PublishLog,
    result: Result,
    *,
    now: datetime,
    jitter: float,
    looks: bool,
    taken: bool = False,
) -> Change:
    """What an attempt's result makes of its log. Total: every result leads to one change.

    `taken`: the post that was found belongs to another delivery, and proves nothing.
    """
    log = _answered(log, result, now)
    if isinstance(result, PlatformError) and not isinstance(result, OutcomeUnknownError):
        log = _refused(log)
    match result:
        case Posted(found=False):
            return _there(log, result, now)
        case Posted() if taken:
            return unknown(log, now, looks=looks, code="evidence_taken")
        case Posted():
            return _by_evidence(log, result, now, looks=looks)
        case InWork(state, check_after):
            unspent = {"attempts_spent": log.attempts_spent - 1, "state": dict(state)}
            status = Status.UNKNOWN if log.reconciling else Status.ACCEPTED
            at = now + check_after
            return Change(hop_to(log, now, at, status=status, **unspent), wakes=True)
        case DuplicateError() if log.unsettled_since is not None and not taken:
            found = Posted(result.remote_id, result.remote_url, result.published_at, True, None)
            return _by_evidence(log, found, now, looks=looks)
        case OutcomeUnknownError():
            return unknown(log, now, looks=looks, code=result.code, message=result.message)
        case ThrottledError():
            return _throttled(log, result, now)
        case TransientError():
            return _again(log, result, now, jitter=jitter, looks=looks)
        case AuthExpiredError():
            return _tokenless(log, now, looks=looks)
        case PermanentError():
            if result.absent:
                log = log.model_copy(update={"unsettled_since": None})
            about = {"code": result.code, "message": result.message}
            return bury(log, now, Status.FAILED, **about)
    raise AssertionError(f"{type(result).__name__} is no result")


def _answered(log: PublishLog, result: Result, now: datetime) -> PublishLog:
    """The log with its last attempt completed."""
    fields: dict[str, Any] = {"ended_at": now, "outcome": _OUTCOME[_kind(result)]}
    if isinstance(result, PlatformError):
        fields |= {
            "code": result.code,
            "message": result.message,
            "http_status": result.status,
            "request_id": result.request_id,
        }
    if not log.attempts:
        return log
    last = log.attempts[-1].model_copy(update=fields)
    duration = int((now - last.started_at) / timedelta(milliseconds=1))
    raw = (result.raw or "")[:RAW_CHARS] if isinstance(result, Posted) else ""
    update = {"attempts": (*log.attempts[:-1], last), "duration_ms": duration}
    return log.model_copy(update=update | ({"raw_response": raw} if raw else {}))


_OUTCOME: dict[type, str] = {
    Posted: "success",
    InWork: "accepted",
    ThrottledError: "throttled",
    TransientError: "transient",
    AuthExpiredError: "auth_expired",
    OutcomeUnknownError: "unknown",
    PermanentError: "permanent",
}


def _kind(result: Result) -> type:
    return next(kind for kind in _OUTCOME if isinstance(result, kind))


def _refused(log: PublishLog) -> PublishLog:
    """Not accepted, in the platform's own words: this mark leaves nothing unsettled."""
    mark = log.committing
    if mark is None or mark.owner != log.owner:
        return log
    first = log.unsettled_since == mark.at
    return log.model_copy(
        update={"committing": None, "unsettled_since": None if first else log.unsettled_since}
    )


def _there(log: PublishLog, posted: Posted, now: datetime) -> Change:
    if posted.remote_id in log.remote_ids:
        return Change(going_on(stepped(log, posted, now), now), wakes=True)
    return arrived(log, now, posted.part(now))


def _by_evidence(log: PublishLog, posted: Posted, now: datetime, *, looks: bool) -> Change:
    """A post that was found is ours only if we may have created it, and not before we tried."""
    since = log.unsettled_since
    if posted.remote_id in log.remote_ids:
        return unknown(log, now, looks=looks, code="evidence_taken")  # by another part of it
    too_old = (
        since is not None
        and posted.published_at is not None
        and posted.published_at < since - leases.EVIDENCE_SLACK
    )
    if since is None or too_old:
        return unknown(log, now, looks=looks, code="evidence_too_old")
    return arrived(log, now, posted.part(now), by_evidence=True)


def unknown(
    log: PublishLog, now: datetime, *, looks: bool, code: str, message: str | None = None
) -> Change:
    """It may be there. Where repeating the same call is safe it is looked into by itself."""
    sentence = message or "The platform may have taken the post; no readable answer came."
    about: dict[str, Any] = {"error_code": code, "error_message": sentence}
    since = log.unsettled_since or now
    look = retries.next_lookup(log.lookups, since, now) if looks else None
    if look is None or now >= log.latest_at:
        return Change(ended(log, now, Status.UNKNOWN, **about))
    about |= {"lookups": log.lookups + 1, "attempts_spent": 0}
    return Change(hop_to(log, now, look, status=Status.UNKNOWN, **about), wakes=True)


def _throttled(log: PublishLog, error: ThrottledError, now: datetime) -> Change:
    until = (
        error.until
        if isinstance(error.until, datetime)
        else now + (error.until or THROTTLE_DEFAULT)
    )
    until_ms = pause_until(until, now)
    at = datetime.fromtimestamp(until_ms / 1000, tz=now.tzinfo)
    about = {"error_message": error.message, "attempts_spent": log.attempts_spent - 1}
    change = waiting(log, now, max(at, now), code="throttled", **about)
    if error.scope == "platform":
        return replace(change, pause_platform=until_ms)
    return replace(change, pause_account=until_ms)


def _again(
    log: PublishLog, error: TransientError, now: datetime, *, jitter: float, looks: bool
) -> Change:
    about = {"error_code": error.code, "error_message": error.message}
    if log.reconciling:
        return unknown(log, now, looks=looks, code=error.code, message=error.message)
    policy = retries.policy(log.platform)
    if log.attempts_spent >= policy.attempts:
        if log.committing is not None:  # the platform has it and works on it, as far as we know
            return unknown(log, now, looks=looks, code=error.code, message=error.message)
        return bury(log, now, Status.FAILED, code=error.code, message=error.message)
    at = now + retries.backoff(log.attempts_spent, jitter=jitter, policy=policy)
    return Change(hop_to(log, now, at, status=_meanwhile(log, Status.RETRY), **about), wakes=True)


def snooze(log: PublishLog, now: datetime, until: datetime, *, code: str) -> Change:
    """This attempt found that it has to wait for something of ours, and spends no attempt."""
    log = _refused(log)
    last = log.attempts[-1].model_copy(update={"ended_at": now, "outcome": "snoozed", "code": code})
    log = log.model_copy(update={"attempts": (*log.attempts[:-1], last)})
    return waiting(log, now, until, code=code, attempts_spent=log.attempts_spent - 1)


def late_answer(log: PublishLog, result: Result, *, now: datetime, owner: str) -> Change | None:
    """The platform's own answer, after the delivery was taken for unknown: only the owner of the
    `committing` mark may still say what came of it, and only that it is there or was refused."""
    mark = log.committing
    if log.status is not Status.UNKNOWN or mark is None or mark.owner != owner:
        return None
    if isinstance(result, Posted) and not result.found:
        known = result.remote_id in log.remote_ids
        return None if known else arrived(log, now, result.part(now))
    refused = isinstance(result, PermanentError) and log.unsettled_since == mark.at
    if isinstance(result, PermanentError) and refused:
        log = log.model_copy(update={"committing": None, "unsettled_since": None})
        return bury(log, now, Status.FAILED, code=result.code, message=result.message)
    return None


# --- what nobody woke ----------------------------------------------------------------------------


def sweep(seen: Seen, *, now: datetime, looks: bool) -> Change | None:
    """What the sweep makes of a delivery that is still open after its grace; None: leave it.

    An outage of hours outlasts every task, so that one account's backlog is woken here: each of it
    gets a slot, in the order in which the sweep goes through them, which is the oldest first.
    """
    log = seen.log
    if not log.is_open or log.sweep_at is None or now < log.sweep_at:
        return None
    if log.status is Status.PROCESSING:
        if _leased(log, now):
            return None
        log = _crashed(log)
        if log.committing is not None:
            return unknown(log, now, looks=looks, code="attempt_lost")
    held = _held_back(Seen(log, seen.account, seen.controls), now, looks=looks)
    if held is not None and (not held.wakes or held.log.status in ENDED):
        return held
    if log.sweep_hops >= leases.SWEEP_HOPS and log.committing is None:
        message = f"Its task was made {log.sweep_hops} times and never reached the function."
        return bury(log, now, Status.FAILED, code="cannot_start", message=message)
    hops = log.sweep_hops + 1
    slot = _slot_again(log, seen.account, now)
    if slot is not None and slot.starts_at > now:
        change = waiting(log, now, slot.starts_at, code="spaced", sweep_hops=hops)
    else:
        status = log.status if log.status is not Status.PROCESSING else Status.RETRY
        again = hop_to(log, now, now, status=status, sweep_hops=hops)
        change = Change(again, wakes=True)
    look = sweep_at(change.log.due_at, log.latest_at, hops)
    return replace(
        change,
        log=change.log.model_copy(update={"sweep_at": look}),
        next_free_at=slot.next_free_at if slot else None,
    )
