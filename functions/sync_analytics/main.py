"""Read engagement back from the platforms: plan a sync, collect an account. Called by Cloud
Scheduler, the product's backend, and by Cloud Tasks with the steps that this function makes."""

from typing import Any

import flask
import functions_framework
from pydantic import BaseModel

from shared.domain import keys
from shared.domain.analytics import Busy, Decision, Moved, Part, Replay, Scope, Stale, Void
from shared.domain.failures import BadRequestError, Problem
from shared.edge import answers
from shared.edge.answers import Answer
from shared.edge.requests import SyncRequest, SyncTask
from shared.edge.serve import BACKEND, SCHEDULER, TASKS, Context, Route, admits, serve
from shared.jobs import collect, sync
from shared.jobs.collect import Collecting
from shared.jobs.sync import Wanted


def either(body: dict[str, Any]) -> type[BaseModel]:
    """A step names the `syncId` that it belongs to."""
    return SyncTask if "syncId" in body else SyncRequest


def handle(body: SyncRequest | SyncTask, context: Context) -> Answer:
    if isinstance(body, SyncRequest):
        return Answer(200, sync.start(wanted(body, context), context.rt))
    if body.account_id is None:
        return Answer(200, sync.go_on(body.sync_id, body.hop, context.rt, context.ends_at))
    task = Collecting(body.sync_id, body.account_id, body.hop, context.ends_at)
    return collected(collect.run(task, context.rt))


def wanted(body: SyncRequest, context: Context) -> Wanted:
    if body.platform is not None and body.platform not in context.rt.platforms:
        known = ", ".join(sorted(context.rt.platforms))
        sentence = f"{body.platform!r} is not one of {known}."
        raise BadRequestError([Problem("platform", "platform_unknown", sentence)])
    if body.idempotency_key is None and context.call is None:
        sentence = "An idempotencyKey is required."
        raise BadRequestError([Problem("idempotencyKey", "missing", sentence)])
    scope = Scope(
        company_id=body.company_id,
        platform=body.platform,
        content_ids=body.content_ids,
        start=body.start,
        force=body.force,
    )
    return Wanted(
        scope=scope,
        key=body.idempotency_key,
        fingerprint=keys.fingerprint(body.model_dump(mode="json")),
        call=context.call,
        by=context.caller.email,
        traceparent=context.trace.traceparent,
        ends_at=context.ends_at,
    )


def collected(decision: Decision) -> Answer:
    """The same answer for the first delivery of a step and for each one after it."""
    match decision:
        case Busy():
            busy = "Another attempt is reading this account."
            return answers.problem(503, "busy", busy, retry_after=answers.RETRY_AFTER_SECONDS)
        case Void():
            return Answer(200, {"success": False, "void": True, "message": "no such sync"})
        case Replay(part):
            return Answer(200, shown(part) | {"alreadyProcessed": True})
        case Moved(part) | Stale(part):
            return Answer(200, shown(part))
    raise AssertionError("collecting leaves no claim behind")


def shown(part: Part) -> dict[str, Any]:
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


SYNC = Route(either, handle, admits=admits(SCHEDULER, BACKEND, TASKS))
ROUTES = {
    "/": SYNC,
    "/api/jobs/sync-analytics": SYNC,
    "/api/webhooks/sync-analytics": SYNC,
}


@functions_framework.http
def sync_analytics(request: flask.Request) -> flask.Response:
    return serve(request, "sync_analytics", ROUTES)
