"""Plan a sync of engagement: which accounts, and one task for each.

    request ─ open ──> the sync under its key, or the one made before
            ─ plan ──> page by page: one part per account, one task per part; a successor goes on
    task    ─ collect > `collect.py`: one account
            ─ end ───> whoever ends the last part completes the sync

Each step is on record before the task that follows it is made, under a name that cannot be made
twice: whoever is killed is followed by a delivery that reads the record and goes on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from shared.domain import analytics, keys, slots
from shared.domain.accounts import SocialAccount
from shared.domain.analytics import AnalyticsSyncJob, Part, Plan, Scope, Sized
from shared.domain.failures import BadRequestError, Problem, UnavailableError
from shared.domain.markers import Keyed
from shared.jobs import slots as slot_jobs
from shared.observability import trace_of
from shared.queue.tasks import Task
from shared.runtime import Runtime
from shared.store.analytics import PLAN, Asked, Planning, PlanStep
from shared.store.firestore import fresh_id

ACCOUNTS_PAGE = 200
PLAN_PAGES = 5  # in one request; the rest is the successor's
PLAN_MARGIN = 15.0  # seconds that a page may take, with its tasks
UNFINISHED = 20
QUIET = timedelta(minutes=15)  # a younger sync may well be running


@dataclass(frozen=True, slots=True)
class Wanted:
    """A sync as it is asked for. `call` is Scheduler's, where it is Scheduler who calls; such a
    call needs no key. `asked` is the whole request, whose key may not be used for another one;
    `ends_at` is the request's own deadline, monotonic."""

    company_id: str | None
    platform: str | None
    content_ids: tuple[str, ...]
    start: datetime | None
    force: bool
    key: str | None
    asked: Mapping[str, Any]
    call: slots.Call | None
    by: str | None
    traceparent: str | None
    ends_at: float


def start(wanted: Wanted, rt: Runtime) -> dict[str, Any]:
    """Make the sync, or find it under its key, and plan it as far as this request can."""
    _check(wanted, rt)
    opened = rt.store.analytics.open(
        lambda now: _asked(wanted, now), job=slots.SYNC_JOB if wanted.call else None
    )
    slot_jobs.tell(slots.SYNC_JOB, opened.missed, rt)
    held = _planning(opened.sync_id, rt)
    mine = held.plan.hop == 1 and not held.plan.done
    if mine:
        held = _plan(held, rt, wanted.ends_at)
    elif not held.plan.done:
        create([_plan_task(held)], rt)  # in its tasks' hands: the one on record has to exist
    replay = {"alreadyProcessed": True} if opened.replayed else {}
    return _answer(opened.sync_id, held.plan) | replay


def go_on(sync_id: str, hop: int, rt: Runtime, ends_at: float) -> dict[str, Any]:
    """A planner's task: go on where the hop before stopped."""
    held = rt.store.analytics.planning(sync_id)
    if held is None:
        return {"success": False, "void": True, "message": "no such sync"}
    if held.plan.done:
        return _answer(sync_id, held.plan) | {"alreadyProcessed": True}
    if hop != held.plan.hop:
        create([_plan_task(held)], rt)
        return _answer(sync_id, held.plan) | {"alreadyProcessed": True}
    return _answer(sync_id, _plan(held, rt, ends_at).plan)


def _check(wanted: Wanted, rt: Runtime) -> None:
    if wanted.platform is not None and wanted.platform not in rt.platforms:
        known = ", ".join(sorted(rt.platforms))
        sentence = f"{wanted.platform!r} is not one of {known}."
        raise BadRequestError([Problem("platform", "platform_unknown", sentence)])
    if wanted.key is None and wanted.call is None:
        sentence = "An idempotencyKey is required."
        raise BadRequestError([Problem("idempotencyKey", "missing", sentence)])


def _asked(wanted: Wanted, now: datetime) -> Asked:
    """A call of Scheduler is the run of its slot, under the slot's key. One made by hand is
    nobody's slot: it gets a key that nothing else has."""
    slot = slots.slot(wanted.call, now) if wanted.call else None
    key = wanted.key
    if key is None:
        key = slots.key(slots.SYNC_JOB, slot) if slot else f"by-hand-{fresh_id()}"
    fingerprint = keys.fingerprint(wanted.asked)
    scope = Scope(
        company_id=wanted.company_id,
        platform=wanted.platform,
        content_ids=wanted.content_ids,
        start=wanted.start,
        force=wanted.force,
    )
    return Asked(
        keyed=Keyed(analytics.JOB_TYPE, wanted.company_id or "", key, fingerprint),
        scope=scope,
        slot=slot,
        by=wanted.by,
        traceparent=wanted.traceparent,
    )


def _planning(sync_id: str, rt: Runtime) -> Planning:
    held = rt.store.analytics.planning(sync_id)
    if held is None:  # the commit that made the marker made it too
        raise UnavailableError(f"The sync {sync_id!r} cannot be read.", code="sync_unreadable")
    return held


def _plan(held: Planning, rt: Runtime, ends_at: float) -> Planning:
    """Page through the accounts: their parts on record first, then their tasks."""
    _wake(held, rt)  # those of a planner that died before it had made them
    for pages in range(PLAN_PAGES + 1):
        if held.plan.all_seen:
            return _planned(held, rt)
        if pages == PLAN_PAGES or time.monotonic() > ends_at - PLAN_MARGIN:
            break
        held = rt.store.analytics.add(held, _step(held, rt))
        _wake(held, rt)
    held = rt.store.analytics.go_on_later(
        held, lambda hop: keys.sync_task_id(held.plan.sync_id, PLAN, hop)
    )
    create([_plan_task(held)], rt)
    return held


def _step(held: Planning, rt: Runtime) -> PlanStep:
    scope = held.sync.scope
    if scope.content_ids:
        return _named(held, rt)
    found = rt.store.analytics.accounts(scope, held.plan.cursor, ACCOUNTS_PAGE)
    return PlanStep(
        *_parts(held, [(account_id, account, ()) for account_id, account in found], rt),
        cursor=found[-1][0] if found else held.plan.cursor,
        all_seen=len(found) < ACCOUNTS_PAGE,
    )


def _named(held: Planning, rt: Runtime) -> PlanStep:
    """The accounts that the named posts went to, each with its deliveries."""
    scope = held.sync.scope
    posts = rt.store.analytics.posts(scope.content_ids)
    wanted: dict[str, list[str]] = {}
    for post_id, post in posts.items():
        for target in post.platforms:
            of_company = scope.company_id in (None, post.company_id)
            if of_company and scope.platform in (None, target.platform):
                delivery = keys.delivery_id(post_id, target.platform, target.account_id)
                wanted.setdefault(target.account_id, []).append(delivery)
    accounts = rt.store.analytics.named_accounts(wanted)
    found = [(name, accounts.get(name), ids) for name, ids in sorted(wanted.items())]
    return PlanStep(*_parts(held, found, rt), cursor=None, all_seen=True)


def _parts(
    held: Planning,
    found: Sequence[tuple[str, SocialAccount | None, Sequence[str]]],
    rt: Runtime,
) -> tuple[tuple[Part, ...], dict[str, int]]:
    """A part for each account that can be read, and how many cannot for which reason."""
    now = rt.now()
    parts: list[Part] = []
    skipped: dict[str, int] = {}
    for account_id, account, deliveries in found:
        reason = analytics.left_out(account, sized(account, rt), now)
        if reason is not None or account is None:
            reason = reason or "disconnected"
            skipped[reason] = skipped.get(reason, 0) + 1
            continue
        sync_id = held.plan.sync_id
        parts.append(analytics.part(sync_id, held.sync, account_id, account, now, deliveries))
    return tuple(parts), skipped


def sized(account: SocialAccount | None, rt: Runtime) -> Sized | None:
    platform = rt.platforms.get(account.platform) if account else None
    if account is None or platform is None:
        return None
    return Sized(platform.metrics_batch, platform.metrics_refusal(account.platform_user_id))


def _wake(held: Planning, rt: Runtime) -> None:
    create([_first_task(held, account_id) for account_id in held.plan.waking], rt)


def _planned(held: Planning, rt: Runtime) -> Planning:
    held, all_ended = rt.store.analytics.planned(held)
    plan, sync = held.plan, held.sync
    rt.log.bind(trace_of(sync.traceparent)).event(
        "sync.planned",
        syncId=plan.sync_id,
        kind=sync.kind,
        companyId=sync.scope.company_id,
        accounts=plan.planned,
        skipped=plan.skipped or None,
        slot=sync.slot,
    )
    if all_ended:
        finish(plan.sync_id, rt)
    if sync.kind == "full":
        _finish_others(rt)
    return held


def _finish_others(rt: Runtime) -> None:
    """Earlier syncs whose last finisher died before it said so, and those whose tasks are gone."""
    now = rt.now()
    for sync_id, sync in rt.store.analytics.unfinished(now - QUIET, UNFINISHED):
        lost = now >= sync.created_at + analytics.GIVE_UP + QUIET
        if sync.open == 0 or (lost and rt.store.analytics.abandon(sync_id, ACCOUNTS_PAGE)):
            finish(sync_id, rt)


def finish(sync_id: str, rt: Runtime) -> None:
    """Nothing of the sync is open: store that, and tell of it, once."""
    done = rt.store.analytics.finish(sync_id)
    if done is None:
        return
    rt.log.bind(trace_of(done.traceparent)).event(
        "sync.completed",
        severity="WARNING" if done.accounts_failed else "INFO",
        syncId=sync_id,
        **_counts(done),
    )


def _counts(done: AnalyticsSyncJob) -> dict[str, Any]:
    took = (done.completed_at or done.updated_at) - done.created_at
    return {
        "kind": done.kind,
        "accountsPlanned": done.accounts_planned,
        "accountsDone": done.accounts_done,
        "accountsFailed": done.accounts_failed,
        "accountsSkipped": done.accounts_skipped,
        "itemsProcessed": done.items_processed,
        "itemsFailed": done.items_failed,
        "itemsSkipped": done.items_skipped,
        "durationMs": int(took / timedelta(milliseconds=1)),
    }


def _answer(sync_id: str, plan: Plan) -> dict[str, Any]:
    """`jobs` counts the accounts' tasks so far; `planned` says that there will be no more."""
    return {
        "success": True,
        "syncId": sync_id,
        "jobs": plan.planned,
        "skipped": plan.skipped,
        "planned": plan.done,
    }


# --- tasks ---------------------------------------------------------------------------------------


def _plan_task(held: Planning) -> Task:
    plan = held.plan
    name = keys.sync_task_id(plan.sync_id, PLAN, plan.hop)
    return task(name, held.sync.traceparent, {"syncId": plan.sync_id, "hop": plan.hop})


def _first_task(held: Planning, account_id: str) -> Task:
    sync_id = held.plan.sync_id
    name = keys.sync_task_id(sync_id, keys.sync_part_id(account_id), 1)
    body = {"syncId": sync_id, "accountId": account_id, "hop": 1}
    return task(name, held.sync.traceparent, body)


def task(name: str, traceparent: str | None, body: dict[str, Any]) -> Task:
    return Task(
        id=name,
        queue=keys.ANALYTICS_QUEUE,
        function="sync_analytics",
        path="",
        body=body,
        traceparent=traceparent,
    )


def create(tasks: Sequence[Task], rt: Runtime) -> None:
    """Raises `UnavailableError` when one could not be made: the delivery that follows makes it."""
    failures = rt.queue.create_all(tasks)
    for failure in failures:
        rt.log.event(
            "task.create_failed",
            failure.reason,
            severity="WARNING",
            queue=failure.task.queue,
            taskId=failure.task.id,
        )
    if failures:
        message = f"{len(failures)} of {len(tasks)} tasks could not be created. Try again."
        raise UnavailableError(message, code="queue_down")
