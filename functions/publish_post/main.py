"""Publish one delivery, or fan a whole post out into its deliveries. Called by Cloud Tasks."""

from typing import Any

import flask
import functions_framework
from pydantic import BaseModel

from shared.edge import answers
from shared.edge.answers import Answer
from shared.edge.bodies import DeliveryTask, PostTask
from shared.edge.serve import BACKEND, TASKS, Context, Route, admits, serve
from shared.jobs import fan_out, publish
from shared.jobs.publish import Knocked


def either(body: dict[str, Any]) -> type[BaseModel]:
    """The whole-post form names a `postId`, the delivery form a `scheduledPostId`."""
    return PostTask if "postId" in body else DeliveryTask


def handle(task: DeliveryTask | PostTask, context: Context) -> Answer:
    if isinstance(task, PostTask):
        return Answer(200, fan_out.run(task.post_id, context.rt))
    knocked = Knocked(
        post_id=task.scheduled_post_id,
        platform=task.platform,
        account_id=task.account_id,
        generation=task.generation,
        task_id=context.task_id,
        ends_at=context.ends_at,
    )
    return answers.published(publish.run(knocked, context.rt))


PUBLISH = Route(either, handle, admits=admits(TASKS, BACKEND))
ROUTES = {
    "/": PUBLISH,
    "/api/jobs/publish-post": PUBLISH,
    "/api/jobs/social-post": PUBLISH,
    "/api/webhooks/publish-post": PUBLISH,
}


@functions_framework.http
def publish_post(request: flask.Request) -> flask.Response:
    return serve(request, "publish_post", ROUTES)
