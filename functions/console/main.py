"""What is stuck, why, and how it is sent again without posting twice. For operators.

Reading is for viewers, acting for operators, what reaches beyond single posts for admins. Who calls
is known from a verified identity alone; whatever changes something is POST, and audited.
"""

from collections.abc import Mapping
from typing import Any

import flask
import functions_framework

from shared.edge import answers
from shared.edge.answers import Answer
from shared.edge.console_requests import (
    AlertTask,
    AuditQuery,
    DiscardRequest,
    EditLetterRequest,
    IsThereRequest,
    JobQuery,
    JobsQuery,
    KeepRequest,
    LetterFilter,
    LetterQuery,
    LettersQuery,
    PauseRequest,
    PurgeRequest,
    QueueJobRequest,
    QueuesQuery,
    RedriveRequest,
    ResumeRequest,
    SendAgainRequest,
    StatusQuery,
    TriggerRequest,
    UnknownQuery,
    equal,
    person,
)
from shared.edge.serve import (
    ADMIN,
    OPERATOR,
    TASKS,
    VIEWER,
    Context,
    Route,
    admits,
    at_least,
    serve,
)
from shared.jobs import (
    audit,
    controls,
    jobs_queue,
    notify,
    platforms,
    queues,
    redrive,
    retention,
    settle_unknown,
)
from shared.jobs.redrive import Edit, Redrive, Where
from shared.jobs.settle_unknown import Sighting


def where(body: LetterFilter, **more: Any) -> Where:
    return Where(**{name: getattr(body, name) for name in LetterFilter.model_fields}, **more)


# --- looking --------------------------------------------------------------------------------------


def handle_status(_: StatusQuery, context: Context) -> Answer:
    return Answer(200, audit.status(context.rt))


def handle_letters(query: LettersQuery, context: Context) -> Answer:
    wanted = where(query, status=query.status)
    return Answer(200, redrive.listed(wanted, query.cursor, query.limit, context.rt))


def handle_letter(query: LetterQuery, context: Context) -> Answer:
    return Answer(200, redrive.inspected(query.id, context.rt))


def handle_unknown(query: UnknownQuery, context: Context) -> Answer:
    named = equal(query, "company_id", "platform", "account_id")
    return Answer(200, settle_unknown.listed(named, query.cursor, query.limit, context.rt))


def handle_queues(query: QueuesQuery, context: Context) -> Answer:
    return Answer(200, queues.listed(query.queue, context.rt))


def handle_pauses(_: StatusQuery, context: Context) -> Answer:
    return Answer(200, controls.listed(context.rt))


def handle_platforms(_: StatusQuery, context: Context) -> Answer:
    return Answer(200, platforms.listed(context.rt))


def handle_jobs(query: JobsQuery, context: Context) -> Answer:
    named = equal(query, "status", "type")
    return Answer(200, jobs_queue.listed(named, query.cursor, query.limit, context.rt))


def handle_job(query: JobQuery, context: Context) -> Answer:
    return Answer(200, jobs_queue.inspected(query.id, context.rt))


def handle_audit(query: AuditQuery, context: Context) -> Answer:
    named = equal(query, "company_id", "by", "action")
    entries = audit.listed(named, query.since, query.until, query.cursor, query.limit, context.rt)
    return Answer(200, entries)


# --- acting ---------------------------------------------------------------------------------------


def handle_redrive(body: RedriveRequest, context: Context) -> Answer:
    wanted = Redrive(
        person=person(context, body.reason),
        latest_at=body.latest_at,
        dry_run=body.dry_run,
        ids=body.ids,
        where=redrive.open_ones(where(body.filter)) if body.filter is not None else None,
        cursor=body.cursor,
        limit=body.limit,
    )
    return Answer(200, redrive.redrive(wanted, context.rt, context.ends_at))


def handle_edit(body: EditLetterRequest, context: Context) -> Answer:
    wanted = Edit(body.content, body.options, body.media_asset_ids)
    return Answer(200, redrive.edit(body.id, wanted, person(context, body.reason), context.rt))


def handle_discard(body: DiscardRequest, context: Context) -> Answer:
    return Answer(200, redrive.discard(body.ids, person(context, body.reason), context.rt))


def handle_pause(body: PauseRequest, context: Context) -> Answer:
    who = person(context, body.reason)
    return Answer(
        200, controls.pause(body.kind, body.scope, body.name, body.until, who, context.rt)
    )


def handle_resume(body: ResumeRequest, context: Context) -> Answer:
    who = person(context, body.reason)
    ending = body.kind, body.scope, body.name
    return Answer(200, controls.resume(*ending, who, context.rt, context.ends_at))


def handle_is_there(body: IsThereRequest, context: Context) -> Answer:
    seen = Sighting(body.remote_id, body.remote_url, body.published_at)
    who = person(context, body.reason)
    return Answer(200, settle_unknown.is_there(body.delivery_id, seen, who, context.rt))


def handle_send_again(body: SendAgainRequest, context: Context) -> Answer:
    who = person(context, body.reason)
    sent = settle_unknown.send_again(body.delivery_id, body.latest_at, who, context.rt)
    return Answer(200, sent)


def handle_trigger(body: TriggerRequest, context: Context) -> Answer:
    payload = body.model_dump(
        by_alias=True,
        mode="json",
        exclude={"type", "idempotency_key", "reason"},
        exclude_defaults=True,
    )
    order = jobs_queue.Order("sync_analytics", payload, body.company_id, None, body.idempotency_key)
    return queued(order, body.reason, context)


def handle_purge(body: PurgeRequest, context: Context) -> Answer:
    return Answer(200, queues.purge(body.queue, person(context, body.reason), context.rt))


def handle_queue_job(body: QueueJobRequest, context: Context) -> Answer:
    order = jobs_queue.Order(
        body.type, body.payload, body.company_id, body.scheduled_for, body.idempotency_key
    )
    return queued(order, body.reason, context)


def queued(order: jobs_queue.Order, why: str | None, context: Context) -> Answer:
    who = person(context, why)
    return Answer(202, jobs_queue.queue(order, who, context.rt, context.trace.traceparent))


def handle_keep(body: KeepRequest, context: Context) -> Answer:
    who = person(context, body.reason)
    kept = retention.keep(body.company_id, body.jobs_days, body.audit_days, who, context.rt)
    return Answer(200, kept)


def handle_alert(task: AlertTask, context: Context) -> Answer:
    sent = notify.run(task.about, task.attempt, context.rt, context.trace.traceparent)
    if sent is None:
        busy = "Another attempt is sending this alert."
        return answers.problem(503, "busy", busy, retry_after=answers.RETRY_AFTER_SECONDS)
    return Answer(200, sent)


LOOKS, ACTS, RULES = at_least(VIEWER), at_least(OPERATOR), at_least(ADMIN)
CONSOLE = {
    "/status": Route(StatusQuery, handle_status, admits=LOOKS, method="GET"),
    "/dead-letters": Route(LettersQuery, handle_letters, admits=LOOKS, method="GET"),
    "/dead-letters/inspect": Route(LetterQuery, handle_letter, admits=LOOKS, method="GET"),
    "/dead-letters/redrive": Route(RedriveRequest, handle_redrive, admits=ACTS),
    "/dead-letters/edit": Route(EditLetterRequest, handle_edit, admits=ACTS),
    "/dead-letters/discard": Route(DiscardRequest, handle_discard, admits=ACTS),
    "/unknown": Route(UnknownQuery, handle_unknown, admits=LOOKS, method="GET"),
    "/unknown/is-there": Route(IsThereRequest, handle_is_there, admits=ACTS),
    "/unknown/send-again": Route(SendAgainRequest, handle_send_again, admits=ACTS),
    "/pauses": Route(StatusQuery, handle_pauses, admits=LOOKS, method="GET"),
    "/pause": Route(PauseRequest, handle_pause, admits=ACTS),
    "/resume": Route(ResumeRequest, handle_resume, admits=ACTS),
    "/queues": Route(QueuesQuery, handle_queues, admits=LOOKS, method="GET"),
    "/queues/purge": Route(PurgeRequest, handle_purge, admits=RULES),
    "/jobs": Route(JobsQuery, handle_jobs, admits=LOOKS, method="GET"),
    "/jobs/inspect": Route(JobQuery, handle_job, admits=LOOKS, method="GET"),
    "/jobs/queue": Route(QueueJobRequest, handle_queue_job, admits=RULES),
    "/trigger": Route(TriggerRequest, handle_trigger, admits=ACTS),
    "/platforms": Route(StatusQuery, handle_platforms, admits=LOOKS, method="GET"),
    "/audit": Route(AuditQuery, handle_audit, admits=LOOKS, method="GET"),
    "/retention": Route(KeepRequest, handle_keep, admits=RULES),
}
ROUTES: Mapping[str, Route] = {
    "/": CONSOLE["/status"],
    **CONSOLE,
    **{f"/sync{path}": route for path, route in CONSOLE.items()},
    "/alerts/send": Route(AlertTask, handle_alert, admits=admits(TASKS)),
}


@functions_framework.http
def console(request: flask.Request) -> flask.Response:
    return serve(request, "console", ROUTES)
