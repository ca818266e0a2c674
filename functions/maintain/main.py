"""What has to be done from time to time. Called by Cloud Scheduler."""

from datetime import timedelta

import flask
import functions_framework

from shared.edge.answers import Answer
from shared.edge.bodies import Nothing
from shared.edge.serve import SCHEDULER, Context, Route, admits, serve
from shared.jobs import promote, sweep

LASTS = timedelta(seconds=500)


def handle_sweep(_: Nothing, context: Context) -> Answer:
    return Answer(200, sweep.run(context.rt, context.ends_at))


def handle_promote(_: Nothing, context: Context) -> Answer:
    return Answer(200, promote.run(context.rt, context.ends_at))


ROUTES = {
    "/sweep": Route(Nothing, handle_sweep, admits=admits(SCHEDULER), lasts=LASTS),
    "/promote": Route(Nothing, handle_promote, admits=admits(SCHEDULER), lasts=LASTS),
}


@functions_framework.http
def maintain(request: flask.Request) -> flask.Response:
    return serve(request, "maintain", ROUTES)
