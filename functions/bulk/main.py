"""Posts in from a file, and posts, publish logs and metrics out into one; chunk by chunk."""

from collections.abc import Mapping
from typing import Any

import flask
import functions_framework

from shared.edge.answers import Answer
from shared.edge.requests import (
    BulkExportRequest,
    BulkImportRequest,
    BulkJobBody,
    ChunkTask,
    bulk_request,
    scheduling,
)
from shared.edge.serve import BACKEND, TASKS, Context, Route, admits, serve
from shared.jobs import bulk as chunks
from shared.jobs import bulk_export, bulk_import
from shared.jobs.schedule import Order

STEPS = {**bulk_import.STEPS, **bulk_export.STEPS}


def handle(body: BulkImportRequest | BulkExportRequest, context: Context) -> Answer:
    traceparent = context.trace.traceparent
    if isinstance(body, BulkExportRequest):
        return Answer(202, bulk_export.accept(body.wish(), body.keyed, context.rt, traceparent))
    return Answer(202, bulk_import.accept(body.wish(), body.keyed, context.rt, traceparent))


def handle_chunk(task: ChunkTask, context: Context) -> Answer:
    done = chunks.run(
        task.job_id,
        task.chunk,
        steps=STEPS,
        orders=order,
        ends_at=context.ends_at,
        rt=context.rt,
    )
    return Answer(200, done)


def order(row: Mapping[str, Any]) -> Order:
    """A row as scheduling takes it: nothing is checked less than there."""
    body = scheduling(row)
    return Order(
        company_id=body.company_id,
        user_id=body.user_id,
        content=body.content,
        media_asset_ids=body.media_asset_ids,
        scheduled_at=body.scheduled_at,
        timezone=body.timezone,
        latest_at=body.latest_at,
        targets=tuple(one.target() for one in body.platforms),
        idempotency_key=body.idempotency_key,
        fingerprint="",
    )


def handle_progress(query: BulkJobBody, context: Context) -> Answer:
    return Answer(200, chunks.progress(query.job_id, query.company_id, context.rt))


def handle_cancel(body: BulkJobBody, context: Context) -> Answer:
    return Answer(200, chunks.cancel(body.job_id, body.company_id, context.rt))


ASK = Route(bulk_request, handle, admits=admits(BACKEND, TASKS))
ROUTES = {
    "/": ASK,
    "/api/jobs/bulk": ASK,
    "/run": Route(ChunkTask, handle_chunk, admits=admits(TASKS)),
    "/jobs": Route(BulkJobBody, handle_progress, admits=admits(BACKEND), method="GET"),
    "/cancel": Route(BulkJobBody, handle_cancel, admits=admits(BACKEND)),
}


@functions_framework.http
def bulk(request: flask.Request) -> flask.Response:
    return serve(request, "bulk", ROUTES)
