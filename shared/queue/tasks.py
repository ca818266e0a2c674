"""Publish tasks in Cloud Tasks, through its own client.

A task's name is the hash of delivery, generation and hop, so creating it again is harmless:
ALREADY_EXISTS means that this hop's task was made, now or before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
from google.api_core import exceptions
from google.cloud import tasks_v2
from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport

from shared.domain import keys
from shared.domain.deliveries import Wake

CALL_SECONDS = 4.0
TRIES = 2
DISPATCH_DEADLINE = timedelta(seconds=75)
PARALLEL = 16

_DOWN = (
    exceptions.ServiceUnavailable,
    exceptions.DeadlineExceeded,
    exceptions.InternalServerError,
    exceptions.Unknown,
)


@dataclass(frozen=True, slots=True)
class Target:
    """Who is called and as whom."""

    url: str
    service_account: str
    secret: str | None


@dataclass(frozen=True, slots=True)
class Failure:
    wake: Wake
    reason: str


@dataclass(slots=True)
class TaskQueue:
    project: str
    location: str
    target: Target
    emulator_host: str | None = None
    _client: tasks_v2.CloudTasksClient | None = None
    _pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(PARALLEL, thread_name_prefix="tasks")
    )

    @property
    def client(self) -> tasks_v2.CloudTasksClient:
        if self._client is None:
            self._client = _connect(self.emulator_host)
        return self._client

    def wake(self, wake: Wake) -> Failure | None:
        """Make sure that the task exists; never raises: the sweep closes whatever gap is left."""
        queue = self._queue(keys.queue(wake.platform))
        task = self._task(queue, wake)
        for attempt in range(TRIES):
            try:
                self.client.create_task(parent=queue, task=task, timeout=CALL_SECONDS, retry=None)
            except exceptions.AlreadyExists:
                return None
            except _DOWN as error:
                if attempt == TRIES - 1:
                    return Failure(wake, str(error.message))
            except exceptions.GoogleAPICallError as error:
                return Failure(wake, str(error.message))
            else:
                return None
        raise AssertionError("unreachable")

    def wake_all(self, wakes: Sequence[Wake]) -> list[Failure]:
        """In parallel; the failures alone."""
        if len(wakes) <= 1:
            return [failure for failure in map(self.wake, wakes) if failure]
        return [failure for failure in self._pool.map(self.wake, wakes) if failure]

    def forget(self, wakes: Iterable[Wake]) -> list[Failure]:
        """Delete tasks that are not needed any more: it saves work, nothing depends on it."""
        return [failure for failure in self._pool.map(self._forget, list(wakes)) if failure]

    def _forget(self, wake: Wake) -> Failure | None:
        name = f"{self._queue(keys.queue(wake.platform))}/tasks/{wake.task_id}"
        try:
            self.client.delete_task(name=name, timeout=CALL_SECONDS, retry=None)
        except exceptions.NotFound:
            return None
        except exceptions.GoogleAPICallError as error:
            return Failure(wake, str(error.message))
        return None

    def _queue(self, name: str) -> str:
        return f"projects/{self.project}/locations/{self.location}/queues/{name}"

    def _task(self, queue: str, wake: Wake) -> tasks_v2.Task:
        headers = {"Content-Type": "application/json"}
        if wake.traceparent:
            headers["traceparent"] = wake.traceparent
        if self.target.secret:
            headers["X-Webhook-Secret"] = self.target.secret
        return tasks_v2.Task(
            name=f"{queue}/tasks/{wake.task_id}",
            schedule_time=wake.at,
            dispatch_deadline=DISPATCH_DEADLINE,
            http_request=tasks_v2.HttpRequest(
                url=self.target.url,
                http_method=tasks_v2.HttpMethod.POST,
                headers=headers,
                body=json.dumps(body(wake)).encode(),
                oidc_token=tasks_v2.OidcToken(
                    service_account_email=self.target.service_account, audience=self.target.url
                ),
            ),
        )


def body(wake: Wake) -> dict[str, Any]:
    """What a publish task says. It is a wake-up: the record decides."""
    return {
        "scheduledPostId": wake.post_id,
        "platform": wake.platform,
        "accountId": wake.account_id,
        "generation": wake.generation,
        "idempotencyKey": wake.idempotency_key,
    }


def _connect(emulator_host: str | None) -> tasks_v2.CloudTasksClient:
    """Google's own client; like Firestore's, it can be pointed at an emulator."""
    if emulator_host is None:
        return tasks_v2.CloudTasksClient()
    channel = grpc.insecure_channel(emulator_host)
    return tasks_v2.CloudTasksClient(transport=CloudTasksGrpcTransport(channel=channel))
