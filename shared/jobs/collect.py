"""Collect one account of a sync.

    task ─ begin ─> the part and its account's lock, claimed
         ─ read ──> batch by batch: posts, the platform's numbers, one commit
         ─ end ───> done, failed or skipped; or on record for a successor: a limit, a trouble that
                    may pass, a request's time that is up

What a killed attempt had not committed never was; the task that is delivered again goes on behind
what it had.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from shared.domain import analytics, keys, retries
from shared.domain.accounts import AccountStatus, pause_until
from shared.domain.analytics import (
    Begun,
    Busy,
    Item,
    ItemFailure,
    Moved,
    Page,
    Part,
    PartStatus,
    Read,
    Replay,
    Results,
    Stale,
    Void,
)
from shared.domain.failures import (
    MESSAGE_CHARS,
    AuthExpiredError,
    PermanentError,
    PlatformError,
    ThrottledError,
    TransientError,
    UnavailableError,
)
from shared.jobs import refresh, sync
from shared.jobs.refresh import Wait
from shared.observability import trace_of
from shared.platforms.base import MetricsQuery, Platform, Reading, Unread
from shared.platforms.session import Collected
from shared.queue.tasks import Task
from shared.runtime import Runtime
from shared.security.tokens import UnsealError
from shared.store.analytics import Held, Kept
from shared.store.firestore import fresh_id

BATCHES = 10  # in one request
SYNCS_WOKEN = 500
MARGIN = 10.0  # seconds for the commit, and for the successor's task


@dataclass(frozen=True, slots=True)
class Collecting:
    """An account's task as it arrived. `ends_at` is the request's own deadline, monotonic."""

    sync_id: str
    account_id: str
    hop: int
    ends_at: float


def run(task: Collecting, rt: Runtime) -> dict[str, Any]:
    """Read one account as far as this request can; what is on record for it then. Raises
    `UnavailableError` while another attempt at it is alive."""
    decision, held, all_ended = rt.store.analytics.begin(
        task.sync_id,
        task.account_id,
        hop=task.hop,
        owner=fresh_id(),
        sized=lambda account: sync.sized(account, rt),
    )
    match decision:
        case Begun():
            assert held is not None
            part, all_ended = _Collection(held, rt, task.ends_at).run()
            _tell(part, rt)
        case Moved(part):
            _tell(part, rt)
            if part.code == "expired":
                _expire(part, rt)
        case Replay(part) | Stale(part):
            pass
        case Busy():
            raise UnavailableError("Another attempt is reading this account.", code="busy")
        case Void():
            return {"success": False, "void": True, "message": "no such sync"}
    if part.is_open:
        sync.create([_next_task(part)], rt)
    if all_ended:
        sync.finish(task.sync_id, rt)
    return _answer(part) | ({"alreadyProcessed": True} if isinstance(decision, Replay) else {})


def resume(where: Mapping[str, str], rt: Runtime, ends_at: float) -> tuple[int, bool]:
    """Wake what a pause of this scope held: how many accounts, and whether these were all. What
    is missed looks again by itself within the hour."""
    woken = 0
    for sync_id, _ in rt.store.analytics.unfinished(rt.now(), SYNCS_WOKEN):
        if time.monotonic() >= ends_at:
            return woken, False
        parts = rt.store.analytics.wake_paused(sync_id, where, sync.ACCOUNTS_PAGE)
        sync.create([_next_task(part) for part in parts], rt)
        woken += len(parts)
    return woken, True


def _answer(part: Part) -> dict[str, Any]:
    answer = {
        "success": True,
        "status": str(part.status),
        "itemsProcessed": part.items_processed,
        "itemsFailed": part.items_failed,
        "itemsSkipped": part.items_skipped,
        "code": part.code,
        "nextRetryAt": part.due_at.isoformat() if part.is_open else None,
    }
    return {name: value for name, value in answer.items() if value is not None}


def _expire(part: Part, rt: Runtime) -> None:
    """An account whose refresh was refused for good is not marked as expired yet."""
    account = rt.store.accounts.read(part.account_id)
    if account is not None and account.status is AccountStatus.ACTIVE:
        version = account.token_version
        refresh.expire(part.account_id, used_version=version, platform=part.platform, rt=rt)


def _next_task(part: Part) -> Task:
    """The task that the part has on record."""
    name = keys.sync_task_id(part.sync_id, keys.sync_part_id(part.account_id), part.hop)
    body = {"syncId": part.sync_id, "accountId": part.account_id, "hop": part.hop}
    return replace(sync.task(name, part.traceparent, body), at=part.due_at)


def _tell(part: Part, rt: Runtime) -> None:
    line = rt.log.bind(trace_of(part.traceparent).child())
    failed = part.status is PartStatus.FAILED
    line.event(
        "sync.waiting" if part.is_open else "sync.collected",
        severity="WARNING" if failed else "INFO",
        syncId=part.sync_id,
        companyId=part.company_id,
        platform=part.platform,
        accountId=part.account_id,
        status=str(part.status),
        hop=part.hop,
        attempt=part.attempts_spent,
        code=part.code,
        nextRetryAt=part.due_at if part.is_open else None,
        itemsProcessed=part.items_processed,
        itemsFailed=part.items_failed,
        itemsSkipped=part.items_skipped,
    )


class _Collection:
    """One attempt at one account: `held` moves on with each commit that it makes."""

    def __init__(self, held: Held, rt: Runtime, ends_at: float) -> None:
        self._held = held
        self._rt = rt
        self._ends_at = ends_at
        self._platform: Platform = rt.platforms[held.part.platform]
        self._version = held.account.token_version
        self._token: str | None = None

    def run(self) -> tuple[Part, bool]:
        """The part as it is left, and whether it was the last of its sync."""
        batches = 0
        while True:
            batches += 1
            page = self._rt.store.analytics.page(self._held.part, self._platform.metrics_batch)
            kept = self._batch(page, over=batches >= BATCHES)
            self._held, all_ended = self._rt.store.analytics.keep(self._held, kept)
            if kept.part.status is not PartStatus.RUNNING:
                return kept.part, all_ended

    def _batch(self, page: Page, *, over: bool) -> Kept:
        """What one page of posts comes to, and what becomes of the part behind it."""
        part = self._held.part
        now = self._rt.now()
        wanted = [item for item in page.items if part.force or not item.fresh(now)]
        told = self._read([item.remote_id for item in wanted]) if wanted else Collected({})
        now = self._rt.now()
        if isinstance(told, Wait):
            return self._later(part, now, told.until, told.result.code)
        asked = {item.remote_id for item in wanted}
        done = analytics.progress(part, page, asked, _results(wanted, told), now)
        if told.failure is not None:
            kept = self._failed(done.part, told.failure, done.left, now)
            return replace(kept, items=done.kept)
        if page.last:
            return Kept(analytics.ended(done.part, now, PartStatus.DONE), done.kept)
        if over or time.monotonic() > self._ends_at - MARGIN:
            return Kept(analytics.waiting(done.part, now, now, code="continues"), done.kept)
        return Kept(done.part, done.kept)

    def _read(self, remote_ids: Sequence[str]) -> Collected | Wait:
        """What the platform tells; a refused token is renewed once."""
        part, account = self._held.part, self._held.account
        try:
            if self._token is None:
                self._token = refresh.usable(account, part.account_id, self._rt)
            told = self._ask(remote_ids)
            if told is not None and not isinstance(told.failure, AuthExpiredError):
                return told
            renewed = refresh.renew(
                self._platform,
                part.account_id,
                used_version=self._version,
                rt=self._rt,
                ends_at=self._ends_at - MARGIN / 2,
            )
        except UnsealError:
            message = "The account's token cannot be opened: is its key still in TOKEN_KEYS?"
            return Collected({}, PermanentError(message, code="token_sealed"))
        except PlatformError as error:
            return Collected({}, error)
        if isinstance(renewed, Wait):
            return renewed
        self._token, self._version = renewed.tokens.access_token, renewed.version
        told = self._ask(remote_ids)
        assert told is not None
        return told

    def _ask(self, remote_ids: Sequence[str]) -> Collected | None:
        """None without a token that could be used."""
        if self._token is None:
            return None
        account = self._held.account
        query = MetricsQuery(
            platform_user_id=account.platform_user_id,
            remote_ids=tuple(remote_ids),
            asked_at=self._rt.now(),
            server=account.server,
        )
        ends_at = self._ends_at - MARGIN / 2
        return self._rt.driver.metrics(self._platform, query, self._token, ends_at=ends_at)

    def _failed(self, part: Part, error: PlatformError, left: int, now: datetime) -> Kept:
        """`left` posts of the page were not come to."""
        about = {"code": error.code, "message": error.message}
        match error:
            case ThrottledError():
                return self._throttled(part, error, now)
            case AuthExpiredError():
                self._expire()
                return Kept(analytics.ended(part, now, PartStatus.SKIPPED, code="expired"))
            case TransientError() if part.attempts_spent < self._attempts:
                attempt = max(1, part.attempts_spent)
                at = now + retries.backoff(attempt, jitter=self._rt.jitter())
                return Kept(analytics.waiting(part, now, at, **about))
        failed = part.items_failed + left
        return Kept(analytics.ended(part, now, PartStatus.FAILED, items_failed=failed, **about))

    @property
    def _attempts(self) -> int:
        return retries.policy(self._platform.name).attempts

    def _throttled(self, part: Part, error: ThrottledError, now: datetime) -> Kept:
        """A limit on reading holds up reading alone, unless the platform counts all calls as one:
        a day without figures is no reason for a day without posts."""
        wait = error.until or analytics.THROTTLE_DEFAULT
        until = pause_until(wait if isinstance(wait, datetime) else now + wait, now)
        at = max(now, datetime.fromtimestamp(until / 1000, UTC))
        kept = self._later(part, now, at, "throttled")
        shared = self._platform.shares_limits
        if error.scope == "platform":
            return replace(kept, pause_platform={"publish" if shared else "sync": until})
        if shared:
            return replace(kept, pause_account=until)
        return replace(kept, pause_reading=until)

    def _later(self, part: Part, now: datetime, until: datetime, code: str) -> Kept:
        """Waiting because somebody said so is no attempt."""
        spent = max(0, part.attempts_spent - 1)
        return Kept(analytics.waiting(part, now, until, code=code, attempts_spent=spent))

    def _expire(self) -> None:
        refresh.expire(
            self._held.part.account_id,
            used_version=self._version,
            platform=self._platform.name,
            rt=self._rt,
        )


def _results(wanted: Sequence[Item], told: Collected) -> Results:
    """What was told in our words. A post of which nothing was said, though all was, is unread."""
    read: dict[str, Read] = {}
    unread: dict[str, ItemFailure] = {}
    for item in wanted:
        match told.told.get(item.remote_id):
            case Reading(metrics=metrics, source_at=source_at):
                read[item.remote_id] = Read(analytics.numbers(metrics), source_at)
            case Unread(code=code, message=message):
                unread[item.remote_id] = _failure(item, code, message)
            case None if told.failure is None:
                unread[item.remote_id] = _failure(item, "not_told", "")
    return Results(read, unread)


def _failure(item: Item, code: str, message: str) -> ItemFailure:
    return ItemFailure(delivery_id=item.delivery_id, code=code, message=message[:MESSAGE_CHARS])
