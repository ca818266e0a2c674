"""Tasks in Cloud Tasks, through its own client.

A task's name is the hash of what it is for (a delivery, its generation and hop), so creating it
again is harmless: ALREADY_EXISTS means that it was made, now or before.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import grpc
from google.api_core import exceptions
from google.cloud import tasks_v2
from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport

from shared.domain import keys
from shared.domain.deliveries import PublishLog, Wake
from shared.domain.failures import NotFoundError, UnavailableError

CALL_SECONDS = 4.0
TRIES = 2
DISPATCH_DEADLINE = timedelta(seconds=75)
PARALLEL = 16
COUNTED = 5000  # tasks of a queue, when its depth is asked for: Cloud Tasks has no number
DEAD_LETTER_QUEUE = "default-dlq"

_DOWN = (
    exceptions.ServiceUnavailable,
    exceptions.DeadlineExceeded,
    exceptions.InternalServerError,
    exceptions.Unknown,
)


@dataclass(frozen=True, slots=True)
class Task:
    """A call to one of our functions, at `at` or as soon as may be.

    `id` makes creating it idempotent; `within` is how long Cloud Tasks waits for the answer.
    """

    id: str
    queue: str
    function: str
    path: str
    body: Mapping[str, Any]
    at: datetime | None = None
    traceparent: str | None = None
    within: timedelta = DISPATCH_DEADLINE


@dataclass(frozen=True, slots=True)
class Failure:
    task: Task
    reason: str


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """A queue as Cloud Tasks tells. `in_flight`: dispatched and not answered yet."""

    name: str
    state: str
    depth: int
    counted_all: bool
    in_flight: int
    oldest_due_at: datetime | None
    most_per_second: float
    most_at_once: int


@dataclass(slots=True)
class TaskQueue:
    """`url` gives a function's address; tasks call it as `service_account`, with `secret` where
    one is set. `alerts`: there is somebody to be told."""

    project: str
    location: str
    url: Callable[[str], str]
    service_account: str
    secret: str | None
    emulator_host: str | None = None
    default_queue: str = "default"
    alerts: bool = False
    _client: tasks_v2.CloudTasksClient | None = None
    _pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(PARALLEL, thread_name_prefix="tasks")
    )

    @property
    def client(self) -> tasks_v2.CloudTasksClient:
        if self._client is None:
            self._client = _connect(self.emulator_host)
        return self._client

    def wake_all(self, wakes: Sequence[Wake]) -> list[Failure]:
        """Make sure that these deliveries' tasks exist."""
        return self.create_all([publish_task(wake) for wake in wakes])

    def forget_all(self, wakes: Sequence[Wake]) -> list[Failure]:
        """Delete tasks that are not needed any more: it saves work, nothing depends on it."""
        tasks = [publish_task(wake) for wake in wakes]
        return [failure for failure in self._pool.map(self._delete, tasks) if failure]

    def create_all(self, tasks: Sequence[Task]) -> list[Failure]:
        """In parallel; never raises, gives the failures: a sweep closes whatever gap is left."""
        if len(tasks) <= 1:
            return [failure for failure in map(self._create, tasks) if failure]
        return [failure for failure in self._pool.map(self._create, tasks) if failure]

    def announce(
        self,
        about: str,
        *,
        attempt: int = 1,
        at: datetime | None = None,
        traceparent: str | None = None,
    ) -> list[Failure]:
        """Have somebody told of a dead letter or an unknown delivery, where alerts are set up.
        Best effort, once per attempt."""
        if not self.alerts:
            return []
        task = Task(
            id=keys.alert_task_id(about, attempt),
            queue=self.default_queue,
            function="console",
            path="/alerts/send",
            body={"about": about, "attempt": attempt},
            at=at,
            traceparent=traceparent,
        )
        return self.create_all([task])

    def bury(self, letter_id: str, payload: Mapping[str, Any]) -> list[Failure]:
        """A copy in the paused dead-letter queue, for whoever lists tasks there. By hand it is
        void: its delivery has ended."""
        return self.create_all([buried_task(letter_id, payload)])

    def unbury(self, letter_id: str) -> Failure | None:
        return self._delete(buried_task(letter_id, {}))

    # queues

    def info(self, queue: str) -> QueueInfo | None:
        """How full a queue is, counted up to `COUNTED` tasks; None when there is no such queue."""
        try:
            found = self.client.get_queue(name=self._queue(queue), timeout=CALL_SECONDS, retry=None)
            tasks = self._listed(queue)
        except exceptions.NotFound:
            return None
        except exceptions.GoogleAPICallError as error:
            raise _no_answer(error) from error
        due = [task.schedule_time for task in tasks if task.schedule_time]
        return QueueInfo(
            name=queue,
            state=tasks_v2.Queue.State(found.state).name.lower(),
            depth=len(tasks),
            counted_all=len(tasks) < COUNTED,
            in_flight=sum(task.dispatch_count > task.response_count for task in tasks),
            oldest_due_at=min(due, default=None),
            most_per_second=found.rate_limits.max_dispatches_per_second,
            most_at_once=found.rate_limits.max_concurrent_dispatches,
        )

    def _listed(self, queue: str) -> list[tasks_v2.Task]:
        request = tasks_v2.ListTasksRequest(parent=self._queue(queue), page_size=1000)
        pages = self.client.list_tasks(request=request, timeout=CALL_SECONDS, retry=None)
        return list(itertools.islice(pages, COUNTED))

    def queues(self) -> list[str]:
        parent = f"projects/{self.project}/locations/{self.location}"
        try:
            found = self.client.list_queues(parent=parent, timeout=CALL_SECONDS, retry=None)
            return sorted(queue.name.rpartition("/")[2] for queue in found)
        except exceptions.GoogleAPICallError as error:
            raise _no_answer(error) from error

    def pause(self, queue: str) -> None:
        self._order("pause_queue", queue)

    def resume(self, queue: str) -> None:
        self._order("resume_queue", queue)

    def purge(self, queue: str) -> None:
        self._order("purge_queue", queue)

    def _order(self, method: str, queue: str) -> None:
        try:
            name = self._queue(queue)
            getattr(self.client, method)(name=name, timeout=CALL_SECONDS, retry=None)
        except exceptions.NotFound as error:
            raise NotFoundError(f"There is no queue {queue!r}.") from error
        except exceptions.GoogleAPICallError as error:
            raise _no_answer(error) from error

    def _create(self, task: Task) -> Failure | None:
        parent, request = self._queue(task.queue), self._request(task)
        for attempt in range(TRIES):
            try:
                self.client.create_task(
                    parent=parent, task=request, timeout=CALL_SECONDS, retry=None
                )
            except exceptions.AlreadyExists:
                return None
            except _DOWN as error:
                if attempt == TRIES - 1:
                    return Failure(task, str(error.message))
            except exceptions.GoogleAPICallError as error:
                return Failure(task, str(error.message))
            else:
                return None
        raise AssertionError("unreachable")

    def _delete(self, task: Task) -> Failure | None:
        name = f"{self._queue(task.queue)}/tasks/{task.id}"
        try:
            self.client.delete_task(name=name, timeout=CALL_SECONDS, retry=None)
        except exceptions.NotFound:
            return None
        except exceptions.GoogleAPICallError as error:
            return Failure(task, str(error.message))
        return None

    def _queue(self, name: str) -> str:
        return f"projects/{self.project}/locations/{self.location}/queues/{name}"

    def _request(self, task: Task) -> tasks_v2.Task:
        headers = {"Content-Type": "application/json"}
        if task.traceparent:
            headers["traceparent"] = task.traceparent
        if self.secret:
            headers["X-Webhook-Secret"] = self.secret
        audience = self.url(task.function)
        return tasks_v2.Task(
            name=f"{self._queue(task.queue)}/tasks/{task.id}",
            schedule_time=task.at,
            dispatch_deadline=task.within,
            http_request=tasks_v2.HttpRequest(
                url=audience + task.path,
                http_method=tasks_v2.HttpMethod.POST,
                headers=headers,
                body=json.dumps(task.body).encode(),
                oidc_token=tasks_v2.OidcToken(
                    service_account_email=self.service_account, audience=audience
                ),
            ),
        )


def publish_task(wake: Wake) -> Task:
    """What a publish task says. It is a wake-up: the record decides."""
    return Task(
        id=wake.task_id,
        queue=keys.queue(wake.platform),
        function="publish_post",
        path="",
        body={
            "scheduledPostId": wake.post_id,
            "platform": wake.platform,
            "accountId": wake.account_id,
            "generation": wake.generation,
            "idempotencyKey": wake.idempotency_key,
        },
        at=wake.at,
        traceparent=wake.traceparent,
    )


_PUBLISH_FIELDS = ("scheduledPostId", "platform", "accountId", "generation", "idempotencyKey")


def buried_task(letter_id: str, payload: Mapping[str, Any]) -> Task:
    """The copy of a dead letter's task, without what a person has corrected in the letter."""
    return Task(
        id=letter_id,
        queue=DEAD_LETTER_QUEUE,
        function="publish_post",
        path="",
        body={name: payload[name] for name in _PUBLISH_FIELDS if name in payload},
    )


def _no_answer(error: exceptions.GoogleAPICallError) -> UnavailableError:
    message = f"Cloud Tasks does not answer as it should: {error.message}. Try again."
    return UnavailableError(message, code="queue_down")


def metrics_task(log: PublishLog, at: datetime) -> Task:
    """A content sync of a post that was published: one for all of its deliveries whose first
    numbers are due in the same hour. Not created is not lost: the next full sync reads them."""
    key = keys.metrics_due_key(log.post_id, at)
    return Task(
        id=keys.sync_task_id(key, "plan", 1),
        queue=keys.ANALYTICS_QUEUE,
        function="sync_analytics",
        path="",
        body={
            "companyId": log.company_id,
            "contentIds": [log.post_id],
            "idempotencyKey": key,
        },
        at=at,
        traceparent=log.traceparent,
    )


def _connect(emulator_host: str | None) -> tasks_v2.CloudTasksClient:
    """Google's own client; like Firestore's, it can be pointed at an emulator."""
    if emulator_host is None:
        return tasks_v2.CloudTasksClient()
    channel = grpc.insecure_channel(emulator_host)
    return tasks_v2.CloudTasksClient(transport=CloudTasksGrpcTransport(channel=channel))
