"""Read engagement back from the platforms: plan a sync, collect an account. Called by Cloud
Scheduler, the product's backend, and by Cloud Tasks with the steps that this function makes."""

from typing import Any

import flask
import functions_framework
from pydantic import BaseModel

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
    return Answer(200, collect.run(task, context.rt))


def wanted(body: SyncRequest, context: Context) -> Wanted:
    return Wanted(
        company_id=body.company_id,
        platform=body.platform,
        content_ids=body.content_ids,
        start=body.start,
        force=body.force,
        key=body.idempotency_key,
        asked=body.model_dump(mode="json"),
        call=context.call,
        by=context.caller.email,
        traceparent=context.trace.traceparent,
        ends_at=context.ends_at,
    )


SYNC = Route(either, handle, admits=admits(SCHEDULER, BACKEND, TASKS))
ROUTES = {
    "/": SYNC,
    "/api/jobs/sync-analytics": SYNC,
    "/api/webhooks/sync-analytics": SYNC,
}


@functions_framework.http
def sync_analytics(request: flask.Request) -> flask.Response:
    return serve(request, "sync_analytics", ROUTES)
