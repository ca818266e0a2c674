"""Posts, their deliveries, accounts and media, as the product's backend handles them."""

import flask
import functions_framework

from shared.edge.answers import Answer
from shared.edge.bodies import Nothing
from shared.edge.requests import (
    CancelRequest,
    CommandRequest,
    ConnectRequest,
    DisconnectRequest,
    EditRequest,
    ForecastQuery,
    ListQuery,
    MediaRequest,
    RescheduleRequest,
    RetryRequest,
    ScheduleRequest,
    StatusQuery,
)
from shared.edge.serve import BACKEND, Context, Route, admits, serve
from shared.jobs import accounts, commands, forecasts, media, platforms, schedule, status
from shared.jobs.commands import Edit, Retry, Which
from shared.jobs.schedule import Order


def handle_schedule(body: ScheduleRequest, context: Context) -> Answer:
    order = Order(
        company_id=body.company_id,
        user_id=body.user_id,
        content=body.content,
        media_asset_ids=body.media_asset_ids,
        scheduled_at=body.scheduled_at,
        timezone=body.timezone,
        latest_at=body.latest_at,
        targets=tuple(one.target() for one in body.platforms),
        idempotency_key=body.idempotency_key,
        fingerprint=body.fingerprint,
    )
    return Answer(201, schedule.create(order, context.rt, context.trace.traceparent))


def handle_cancel(body: CancelRequest, context: Context) -> Answer:
    return Answer(200, commands.cancel(which("cancel", body), context.rt))


def handle_edit(body: EditRequest, context: Context) -> Answer:
    targets = {(one.platform, one.account_id): one.target() for one in body.platforms}
    wanted = Edit(body.content, body.media_asset_ids, targets)
    return Answer(200, commands.edit(which("edit", body), wanted, context.rt))


def handle_reschedule(body: RescheduleRequest, context: Context) -> Answer:
    moved = commands.reschedule(
        which("reschedule", body), body.scheduled_at, body.timezone, body.latest_at, context.rt
    )
    return Answer(200, moved)


def handle_retry(body: RetryRequest, context: Context) -> Answer:
    wanted = Retry(
        content=body.content,
        options=body.options,
        media_asset_ids=body.media_asset_ids,
        thread=None if body.thread is None else tuple(one.part() for one in body.thread),
        latest_at=body.latest_at,
        timezone=body.timezone,
        risk=body.reason if body.accept_duplicate_risk else None,
        by=context.caller.email,
    )
    one = Which(
        company_id=body.company_id,
        post_id=body.post_id,
        targets=((body.platform, body.account_id),),
        keyed=body.keyed("retry"),
    )
    return Answer(200, commands.retry(one, wanted, context.rt))


def handle_status(query: StatusQuery, context: Context) -> Answer:
    return Answer(200, status.of_post(query.post_id, query.company_id, context.rt))


def handle_posts(query: ListQuery, context: Context) -> Answer:
    page = status.of_company(
        query.company_id,
        status=query.status,
        since=query.since,
        until=query.until,
        cursor=query.cursor,
        limit=query.limit,
        rt=context.rt,
    )
    return Answer(200, page)


def handle_connect(body: ConnectRequest, context: Context) -> Answer:
    wanted = accounts.Connection(
        company_id=body.company_id,
        account_id=body.account_id,
        platform=body.platform,
        platform_user_id=body.platform_user_id,
        handle=body.handle,
        server=body.server,
        tokens=body.tokens(),
        limits=body.own_limits(),
    )
    return Answer(200, accounts.connect(wanted, context.caller.email, context.rt))


def handle_disconnect(body: DisconnectRequest, context: Context) -> Answer:
    return Answer(200, accounts.disconnect(body.company_id, body.account_id, context.rt))


def handle_forecast(query: ForecastQuery, context: Context) -> Answer:
    told = forecasts.of_company(query.company_id, query.cursor, query.limit, context.rt)
    return Answer(200, told)


def handle_platforms(_: Nothing, context: Context) -> Answer:
    return Answer(200, platforms.listed(context.rt))


def handle_media(body: MediaRequest, context: Context) -> Answer:
    return Answer(200, media.register(body.media_asset_id, body.asset, context.rt))


def which(job_type: str, body: CommandRequest) -> Which:
    return Which(
        company_id=body.company_id,
        post_id=body.post_id,
        targets=tuple((one.platform, one.account_id) for one in body.deliveries),
        keyed=body.keyed(job_type),
    )


BY_BACKEND = admits(BACKEND)
SCHEDULE = Route(ScheduleRequest, handle_schedule, admits=BY_BACKEND)
ROUTES = {
    "/": SCHEDULE,
    "/schedule": SCHEDULE,
    "/api/social-posts/schedule": SCHEDULE,
    "/cancel": Route(CancelRequest, handle_cancel, admits=BY_BACKEND),
    "/edit": Route(EditRequest, handle_edit, admits=BY_BACKEND),
    "/reschedule": Route(RescheduleRequest, handle_reschedule, admits=BY_BACKEND),
    "/retry": Route(RetryRequest, handle_retry, admits=BY_BACKEND),
    "/status": Route(StatusQuery, handle_status, admits=BY_BACKEND, method="GET"),
    "/posts": Route(ListQuery, handle_posts, admits=BY_BACKEND, method="GET"),
    "/accounts/connect": Route(ConnectRequest, handle_connect, admits=BY_BACKEND),
    "/accounts/disconnect": Route(DisconnectRequest, handle_disconnect, admits=BY_BACKEND),
    "/accounts/forecast": Route(ForecastQuery, handle_forecast, admits=BY_BACKEND, method="GET"),
    "/media": Route(MediaRequest, handle_media, admits=BY_BACKEND),
    "/platforms": Route(Nothing, handle_platforms, admits=BY_BACKEND, method="GET"),
}


@functions_framework.http
def schedule_post(request: flask.Request) -> flask.Response:
    return serve(request, "schedule_post", ROUTES)
