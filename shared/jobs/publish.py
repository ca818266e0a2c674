"""Publish one post to one account, at most once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from shared.domain import claims, keys, leases
from shared.domain.accounts import SocialAccount
from shared.domain.claims import (
    Begun,
    Busy,
    Done,
    Early,
    InWork,
    Knock,
    Moved,
    Outcome,
    Posted,
    Result,
    Void,
)
from shared.domain.deliveries import Change, PublishLog, Status
from shared.domain.failures import (
    AuthExpiredError,
    BadRequestError,
    OutcomeUnknownError,
    PermanentError,
    PlatformError,
    Problem,
    UnavailableError,
)
from shared.jobs import refresh
from shared.jobs.refresh import Renewed, Wait
from shared.observability import Log, trace_of
from shared.platforms.base import (
    Delivery,
    Exact,
    NoGuarantee,
    Platform,
    Published,
    Windowed,
)
from shared.platforms.session import Outcome as Answered
from shared.platforms.session import Permit, Session, TooLateToSendError
from shared.queue.tasks import Failure, metrics_task
from shared.runtime import Runtime
from shared.security.tokens import UnsealError
from shared.store.deliveries import Held, LeaseLostError, UnrecordedError
from shared.store.firestore import fresh_id

METRICS_AFTER = timedelta(hours=1)  # a post's first numbers
# With less left of a request a thread's next part is another task's: one call takes up to 20 s.
PART_SECONDS = 25.0


@dataclass(frozen=True, slots=True)
class Knocked:
    """A publish task as it arrived; None where it does not say. `ends_at` is the request's own
    deadline, monotonic."""

    post_id: str
    platform: str
    account_id: str
    generation: int | None
    task_id: str | None
    ends_at: float


def run(task: Knocked, rt: Runtime) -> Outcome:
    """Raises `BadRequestError` for a delivery that there is not."""
    platform = rt.platforms.get(task.platform)
    if platform is None:
        known = ", ".join(sorted(rt.platforms))
        sentence = f"{task.platform!r} is not one of {known}."
        raise BadRequestError([Problem("platform", "platform_unknown", sentence)])
    decision, held = rt.store.deliveries.begin(
        post_id=task.post_id,
        platform=task.platform,
        account_id=task.account_id,
        knock=Knock(generation=task.generation, task_id=task.task_id),
        owner=fresh_id(),
        looks=partial(looks_up, platform),
    )
    match decision:
        case Moved(change):
            if held is not None and change.log.error_code == "auth_expired" and held.account:
                expire(held, held.account.token_version, rt)
            after(change, rt, event="publish.moved")
            return Done(change.log)
        case Early(log):
            wake(log, rt)
            return decision
        case Begun():
            assert held is not None
            return _attempt(task, platform, held, rt)
        case Void(reason, unknown=True):
            sentence = f"The post {task.post_id!r} has no such delivery."
            raise BadRequestError([Problem("scheduledPostId", "post_unknown", sentence)])
        case Void(reason):
            rt.log.event("publish.void", reason, postId=task.post_id, platform=task.platform)
            return decision
        case _:
            return decision


def _attempt(task: Knocked, platform: Platform, held: Held, rt: Runtime) -> Outcome:
    attempt = _Attempt(platform, held, rt, task.ends_at)
    log = _log(held.log, rt)
    log.event("publish.begun", **_about(held.log))
    try:
        result = attempt.publish()
    except (LeaseLostError, TooLateToSendError, UnavailableError) as error:
        if attempt.before is not None:
            result = attempt.before  # the next part was not sent; this one is there all the same
        elif isinstance(error, UnavailableError):
            raise
        else:
            return Busy(held.log.lease_ends_at or rt.now())
    answer = result.result if isinstance(result, Wait) else result
    try:
        change = rt.store.deliveries.settle(
            attempt.held,
            answer,
            jitter=rt.jitter(),
            looks=looks_up(platform, held.account),
            ends_at=task.ends_at,
            snooze_until=result.until if isinstance(result, Wait) else None,
            before=attempt.before if attempt.before is not result else None,
        )
    except LeaseLostError:
        return Busy(held.log.lease_ends_at or rt.now())
    except UnrecordedError:
        _unrecorded(held.log, attempt.before or answer, log)
        return Busy(held.log.lease_ends_at or rt.now())
    except UnavailableError:
        _unrecorded(held.log, attempt.before or answer, log)
        raise
    after(change, rt, event="publish.settled")
    return Done(change.log)


class _Attempt:
    """One attempt on its way: `held` moves on with each commit that it makes. `before` is a part of
    a thread that it has created and that goes on record with its next commit."""

    def __init__(self, platform: Platform, held: Held, rt: Runtime, ends_at: float) -> None:
        self.platform = platform
        self.held = held
        self.before: Posted | None = None
        self._rt = rt
        self._ends_at = ends_at

    def publish(self) -> Result | Wait:
        """The platform's outcome; a refused token is refreshed once."""
        account = self.held.account
        assert account is not None  # `begin` claims nothing for an account that is gone
        try:
            token = refresh.usable(account, self.held.log.account_id, self._rt)
            if token is None:
                return self._renewed(account.token_version)
            return self._send(token)
        except UnsealError:
            message = "The account's token cannot be opened: is its key still in TOKEN_KEYS?"
            return self._without_token(PermanentError(message, code="token_sealed"))
        except AuthExpiredError:
            return self._renewed(account.token_version)
        except PlatformError as error:
            return error

    def _renewed(self, used_version: int) -> Result | Wait:
        try:
            renewed = self._renew(used_version)
            if isinstance(renewed, Wait):
                return renewed
            used_version = renewed.version
            return self._send(renewed.tokens.access_token)
        except AuthExpiredError as error:
            expire(self.held, used_version, self._rt)
            return error
        except PlatformError as error:
            return error

    def _renew(self, used_version: int) -> Renewed | Wait:
        about: dict[str, Any] = {"used_version": used_version, "ends_at": self._ends_at}
        try:
            return refresh.renew(self.platform, self.held.log.account_id, rt=self._rt, **about)
        except PermanentError as error:  # our app's own credentials are refused
            raise self._without_token(error) from error

    def _without_token(self, error: PermanentError) -> PlatformError:
        """A failure; but it says nothing of a post that an earlier attempt may have made, and the
        next look may have a token. This attempt's own call was refused, if there was one."""
        log = self._log()
        if log.reconciling or (log.committing and log.committing.owner != log.owner):
            return OutcomeUnknownError(error.message, code=error.code, status=error.status)
        return error

    def _send(self, token: str) -> Result:
        """What the last part came to that there was time for."""
        result = self._send_part(token)
        while isinstance(result, Posted) and self._goes_on(result):
            self.before = result
            result = self._send_part(token)
        return result

    def _goes_on(self, posted: Posted) -> bool:
        """Whether there is a next part, and time for it. One that was found is only evidence."""
        log = self._log()
        more = log.part + 1 < len(log.wanted)
        return more and not posted.found and time.monotonic() + PART_SECONDS < self._ends_at

    def _log(self) -> PublishLog:
        """The log as the part that is on its way sees it."""
        log = self.held.log
        return claims.stepped(log, self.before, log.updated_at) if self.before else log

    def _send_part(self, token: str) -> Result:
        session = Session(
            mark_committing=self._mark, keep=self._keep, now=self._rt.now, ends_at=self._ends_at
        )
        outcome = self._flow(token, session)
        value = outcome.value
        if isinstance(value, Published):
            if not value.found and value.remote_id in self._log().remote_ids:
                message = "The answer names the post of another part"
                raise OutcomeUnknownError(message, code="known_remote_id")
            return Posted(
                remote_id=value.remote_id,
                remote_url=value.remote_url,
                published_at=value.published_at,
                found=value.found,
                raw=outcome.raw,
            )
        return InWork(value.state, value.check_after)

    def _flow(self, token: str, session: Session) -> Answered:
        """Publish; or, when an earlier call was never answered, look first whether it did."""
        rt, delivery = self._rt, self._delivery()
        guarantee = self.platform.guarantee_of(delivery)
        since = delivery.unsettled_since
        if since is None or not self._log().reconciling or isinstance(guarantee, Exact):
            return rt.driver.publish(self.platform, delivery, token, session)
        try:
            return rt.driver.lookup(self.platform, delivery, token, session)
        except OutcomeUnknownError:
            age = self._rt.now() - since
            if not isinstance(guarantee, Windowed):
                raise
            if not guarantee.earliest <= age <= guarantee.latest:
                raise
            return rt.driver.publish(self.platform, delivery, token, session)

    def _delivery(self) -> Delivery:
        log, account = self._log(), self.held.account
        assert account is not None
        wanted = log.wanted[log.part]
        return Delivery(
            id=log.id,
            key=log.native_key,
            text=wanted.content,
            platform_user_id=account.platform_user_id,
            media=wanted.media,
            options=self.platform.options_of(log.part, log.options),
            state=log.state,
            handle=account.handle,
            server=account.server,
            unsettled_since=log.unsettled_since,
            attempted_at=log.attempts[-1].started_at if log.attempts else None,
            above=log.remote_ids,
        )

    def _mark(self, request_hash: str) -> Permit:
        started = time.monotonic()
        self.held = self._rt.store.deliveries.mark_committing(
            self.held, request_hash=request_hash, before=self.before
        )
        self.before = None
        committing = self.held.log.committing
        assert committing is not None
        within = leases.SEND_WITHIN.total_seconds()
        return Permit(committing.send_by, started + within)

    def _keep(self, state: Mapping[str, Any]) -> None:
        self.held = self._rt.store.deliveries.keep(self.held, state, before=self.before)
        self.before = None


def looks_up(platform: Platform | None, account: SocialAccount | None) -> bool:
    """Whether an unknown outcome on this account can be looked into without a person."""
    if platform is None or account is None:
        return False
    return not isinstance(platform.guarantee_for(account.platform_user_id), NoGuarantee)


def expire(held: Held, used_version: int, rt: Runtime) -> None:
    """Best effort: what became of this delivery is still to be put on record, and the account's
    next one finds out again."""
    log = held.log
    try:
        refresh.expire(log.account_id, used_version=used_version, platform=log.platform, rt=rt)
    except UnavailableError as error:
        rt.log.event("request.failed", error.message, severity="WARNING", code=error.code)


def after(change: Change, rt: Runtime, *, event: str) -> None:
    """What follows a recorded move: its successor task, and the lines that alerts read."""
    log = change.log
    line = _log(log, rt)
    line.event(event, severity=_severity(log), **_about(log))
    if change.wakes:
        wake(log, rt)
    if log.status is Status.SUCCESS:
        due_at = rt.now() + METRICS_AFTER
        tell_failed(rt.queue.create_all([metrics_task(log, due_at)]), rt)
    if change.letter is not None and change.letter.redriven_to is None:
        line.event("delivery.dead_lettered", severity="ERROR", **_about(log))
        announce(log, rt)
    if log.status is Status.UNKNOWN and not log.is_open:
        line.event("delivery.unknown", severity="ERROR", **_about(log))
        announce(log, rt)


def announce(log: PublishLog, rt: Runtime) -> bool:
    """Somebody should hear of it, in a task of its own; False where none could be made. Not made is
    not lost: the sweep makes it."""
    about = keys.dead_letter_id(log.id, log.generation)
    failures = rt.queue.announce(about, traceparent=log.traceparent)
    tell_failed(failures, rt)
    return not failures


def wake(log: PublishLog, rt: Runtime) -> None:
    """Create the task on record. Not created is not lost: the sweep makes another one."""
    tell_failed(rt.queue.wake_all([log.wake()]), rt)


def tell_failed(
    failures: Sequence[Failure], rt: Runtime, *, event: str = "task.create_failed"
) -> None:
    """Tasks that could not be created: the sweep will, and somebody should know."""
    for failure in failures:
        task = failure.task
        rt.log.bind(trace_of(task.traceparent)).event(
            event,
            failure.reason,
            severity="WARNING",
            queue=task.queue,
            taskId=task.id,
            postId=task.body.get("scheduledPostId"),
        )


def _unrecorded(log: PublishLog, result: Result, line: Log) -> None:
    """The last trace of an answer that no record could take: the id must not be lost."""
    remote = {"remoteId": result.remote_id} if isinstance(result, Posted) else {}
    line.event("publish.unrecorded", severity="CRITICAL", **(_about(log) | remote))


def _log(log: PublishLog, rt: Runtime) -> Log:
    return rt.log.bind(trace_of(log.traceparent).child())


def _severity(log: PublishLog) -> str:
    if log.status in (Status.FAILED, Status.MISSED, Status.PARTIAL, Status.UNKNOWN):
        return "ERROR"
    return "WARNING" if log.status is Status.RETRY else "INFO"


def _about(log: PublishLog) -> dict[str, Any]:
    """The ids and counts of a delivery; never its text."""
    last = log.attempts[-1] if log.attempts else None
    return {
        "deliveryId": log.id,
        "postId": log.post_id,
        "companyId": log.company_id,
        "platform": log.platform,
        "accountId": log.account_id,
        "status": str(log.status),
        "generation": log.generation,
        "hop": log.hop,
        "attempt": last.number if last else None,
        "outcome": last.outcome if last else None,
        "code": log.error_code,
        "remoteId": log.remote_id,
        "remoteUrl": log.remote_url,
        "nextRetryAt": _instant(log.next_retry_at),
        "parts": f"{log.part} of {len(log.wanted)}" if len(log.wanted) > 1 else None,
        "durationMs": log.duration_ms,
        "latenessMs": last.lateness_ms if last else None,
    }


def _instant(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
