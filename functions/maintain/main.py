"""What has to be done from time to time, called by Cloud Scheduler; and the jobs that people have
queued, called by Cloud Tasks."""

from datetime import timedelta

import flask
import functions_framework

from shared.edge import answers
from shared.edge.answers import Answer
from shared.edge.bodies import Nothing
from shared.edge.console_requests import JobTask
from shared.edge.serve import SCHEDULER, TASKS, Context, Route, admits, serve
from shared.jobs import (
    aggregate,
    controls,
    jobs_queue,
    promote,
    redrive,
    refresh,
    retention,
    sweep,
)

LASTS = timedelta(seconds=500)


def handle_sweep(_: Nothing, context: Context) -> Answer:
    swept = sweep.run(context.rt, context.ends_at)
    more = {
        "resumed": controls.end_expired(context.rt, context.ends_at),
        "jobs": jobs_queue.wake_overdue(context.rt),
        "copied": redrive.copy_new(context.rt),
    }
    return Answer(200, {**swept, **more})


def handle_promote(_: Nothing, context: Context) -> Answer:
    return Answer(200, promote.run(context.rt, context.ends_at))


def handle_refresh(_: Nothing, context: Context) -> Answer:
    return Answer(200, refresh.run(context.rt, context.ends_at))


def handle_retention(_: Nothing, context: Context) -> Answer:
    return Answer(200, retention.run(context.rt, context.ends_at))


def handle_aggregate(_: Nothing, context: Context) -> Answer:
    return Answer(200, aggregate.run(context.rt, context.ends_at))


def handle_job(task: JobTask, context: Context) -> Answer:
    done = jobs_queue.run(task.job_id, context.rt, context.ends_at)
    if done is None:
        busy = "Another run of this job is under way."
        return answers.problem(503, "busy", busy, retry_after=answers.RETRY_AFTER_SECONDS)
    return Answer(200, done)


ROUTES = {
    "/sweep": Route(Nothing, handle_sweep, admits=admits(SCHEDULER), lasts=LASTS),
    "/promote": Route(Nothing, handle_promote, admits=admits(SCHEDULER), lasts=LASTS),
    "/refresh": Route(Nothing, handle_refresh, admits=admits(SCHEDULER), lasts=LASTS),
    "/retention": Route(Nothing, handle_retention, admits=admits(SCHEDULER), lasts=LASTS),
    "/aggregate": Route(Nothing, handle_aggregate, admits=admits(SCHEDULER), lasts=LASTS),
    "/jobs/run": Route(JobTask, handle_job, admits=admits(TASKS), lasts=LASTS),
}


@functions_framework.http
def maintain(request: flask.Request) -> flask.Response:
    return serve(request, "maintain", ROUTES)
