"""Between the API's protobuf messages and the engine's values.

The raw messages, not their proto-plus wrappers: they tell an unset field from a zero.
"""

from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

from google.cloud.tasks_v2.types import cloudtasks, queue, target, task
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status

from tests.sandbox.cloud_tasks.values import (
    Draft,
    HttpRequest,
    OidcToken,
    Page,
    Queue,
    RateLimits,
    RefusalError,
    RetryConfig,
    Task,
    TaskAttempt,
)

QueueMessage = queue.Queue.pb()
TaskMessage = task.Task.pb()
AttemptMessage = task.Attempt.pb()
ListQueuesResponse = cloudtasks.ListQueuesResponse.pb()
ListTasksResponse = cloudtasks.ListTasksResponse.pb()

FULL = int(task.Task.View.FULL)
BASIC = int(task.Task.View.BASIC)

RATE_FIELDS = ("max_dispatches_per_second", "max_concurrent_dispatches")
RETRY_FIELDS = tuple(field.name for field in fields(RetryConfig))

# google.rpc.Code of the HTTP answers that have one of their own, and its name.
RPC_CODES = {
    400: (3, "INVALID_ARGUMENT"),
    401: (16, "UNAUTHENTICATED"),
    403: (7, "PERMISSION_DENIED"),
    404: (5, "NOT_FOUND"),
    409: (10, "ABORTED"),
    429: (8, "RESOURCE_EXHAUSTED"),
    499: (1, "CANCELLED"),
    500: (13, "INTERNAL"),
    501: (12, "UNIMPLEMENTED"),
    503: (14, "UNAVAILABLE"),
    504: (4, "DEADLINE_EXCEEDED"),
}


def draft_from(message: Any) -> Draft:
    """The task of a CreateTaskRequest; output-only fields are ignored."""
    if not message.HasField("http_request"):
        raise RefusalError("UNIMPLEMENTED", "The sandbox has HTTP targets only.")
    return Draft(
        request=_request_from(message.http_request),
        name=message.name,
        schedule_at=_instant(message, "schedule_time"),
        dispatch_deadline=_span(message, "dispatch_deadline"),
        # Whether fields left out fall back to the queue's or to the service's defaults is not
        # documented; here to the service's.
        retry=RetryConfig(**_set_fields(message.retry_config, RETRY_FIELDS))
        if message.HasField("retry_config")
        else None,
    )


def queue_from(message: Any) -> Queue:
    _only_what_we_play(message)
    return Queue(
        name=message.name,
        rate=RateLimits(**_set_fields(message.rate_limits, RATE_FIELDS)),
        retry=RetryConfig(**_set_fields(message.retry_config, RETRY_FIELDS)),
        sampling_ratio=_sampling_ratio(message),
    )


def changes_from(message: Any, paths: list[str]) -> dict[str, Any]:
    """What an UpdateQueueRequest changes; no paths means every field.

    A masked field that is unset goes back to its default.
    """
    _only_what_we_play(message)
    wanted = queue_from(message)
    changes: dict[str, Any] = {
        "rate": _masked(wanted.rate, "rate_limits", RATE_FIELDS, paths),
        "retry": _masked(wanted.retry, "retry_config", RETRY_FIELDS, paths),
    }
    if wanted.sampling_ratio is not None:
        changes["sampling_ratio"] = wanted.sampling_ratio
    return changes


def queue_message(value: Queue) -> Any:
    message = QueueMessage(name=value.name, state=value.state)
    message.rate_limits.max_dispatches_per_second = value.rate.max_dispatches_per_second
    message.rate_limits.max_concurrent_dispatches = value.rate.max_concurrent_dispatches
    message.rate_limits.max_burst_size = value.rate.max_burst_size
    _write_retry(message.retry_config, value.retry)
    if value.purged_at is not None:
        message.purge_time.FromDatetime(value.purged_at)
    if value.sampling_ratio is not None:
        message.stackdriver_logging_config.sampling_ratio = value.sampling_ratio
    return message


def task_message(value: Task, view: int = BASIC) -> Any:
    """A task as the API shows it; only the FULL view has the body. Headers are in both."""
    shown = FULL if view == FULL else BASIC
    message = TaskMessage(
        name=value.name,
        schedule_time=_timestamp(value.schedule_at),
        create_time=_timestamp(value.created_at.replace(microsecond=0)),
        dispatch_deadline=_duration(value.dispatch_deadline),
        dispatch_count=value.dispatch_count,
        response_count=value.response_count,
        view=shown,
    )
    _write_request(message.http_request, value.request, with_body=shown == FULL)
    if value.retry is not None:
        _write_retry(message.retry_config, value.retry)
    if value.first_attempt is not None:
        message.first_attempt.dispatch_time.FromDatetime(value.first_attempt.dispatched_at)
    if value.last_attempt is not None:
        message.last_attempt.CopyFrom(_attempt_message(value.last_attempt))
    return message


def queues_message(page: Page[Queue]) -> Any:
    shown = [queue_message(item) for item in page.items]
    return ListQueuesResponse(queues=shown, next_page_token=page.next_token)


def tasks_message(page: Page[Task], view: int) -> Any:
    shown = [task_message(item, view) for item in page.items]
    return ListTasksResponse(tasks=shown, next_page_token=page.next_token)


def _request_from(message: Any) -> HttpRequest:
    if message.HasField("oauth_token"):
        raise RefusalError("UNIMPLEMENTED", "The sandbox signs OIDC tokens only.")
    method = target.HttpMethod(message.http_method or target.HttpMethod.POST).name
    return HttpRequest(
        url=message.url,
        method=method,
        headers=dict(message.headers),
        body=message.body,
        oidc=OidcToken(message.oidc_token.service_account_email, message.oidc_token.audience)
        if message.HasField("oidc_token")
        else None,
    )


def _write_request(message: Any, value: HttpRequest, *, with_body: bool) -> None:
    message.url = value.url
    message.http_method = getattr(target.HttpMethod, value.method).value
    message.headers.update(value.headers)
    if with_body:
        message.body = value.body
    if value.oidc is not None:
        message.oidc_token.service_account_email = value.oidc.email
        message.oidc_token.audience = value.oidc.audience or value.url


def _write_retry(message: Any, value: RetryConfig) -> None:
    message.max_attempts = value.max_attempts
    message.max_doublings = value.max_doublings
    message.min_backoff.FromTimedelta(value.min_backoff)
    message.max_backoff.FromTimedelta(value.max_backoff)
    if value.max_retry_duration:
        message.max_retry_duration.FromTimedelta(value.max_retry_duration)


def _attempt_message(value: TaskAttempt) -> Any:
    message = AttemptMessage(dispatch_time=_timestamp(value.dispatched_at))
    if value.scheduled_at is not None:
        message.schedule_time.FromDatetime(value.scheduled_at)
    if value.answered_at is not None and value.status is not None:
        message.response_time.FromDatetime(value.answered_at)
        message.response_status.CopyFrom(_status_message(value.status))
    return message


def _status_message(status: int) -> Status:
    if 200 <= status <= 299:
        return Status()
    code, name = RPC_CODES.get(status, (2, "UNKNOWN"))
    return Status(code=code, message=f"{name}({code}): HTTP status code {status}")


def _only_what_we_play(message: Any) -> None:
    for field in ("http_target", "app_engine_routing_override"):
        if message.HasField(field):
            raise RefusalError("UNIMPLEMENTED", f"The sandbox does not play Queue.{field}.")


def _masked(
    wanted: RateLimits | RetryConfig, group: str, names: tuple[str, ...], paths: list[str]
) -> Mapping[str, Any]:
    return {
        name: getattr(wanted, name)
        for name in names
        if not paths or group in paths or f"{group}.{name}" in paths
    }


def _set_fields(message: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The fields that are set and not zero: in proto3 a zero number is an unset one."""
    found: dict[str, Any] = {}
    for name in names:
        value = getattr(message, name)
        if isinstance(value, Duration):
            if message.HasField(name):
                found[name] = value.ToTimedelta()
        elif value:
            found[name] = value
    if "max_retry_duration" in found:  # truncated to the second, says the reference
        found["max_retry_duration"] = timedelta(
            seconds=int(found["max_retry_duration"].total_seconds())
        )
    return found


def _sampling_ratio(message: Any) -> float | None:
    if not message.HasField("stackdriver_logging_config"):
        return None
    return float(message.stackdriver_logging_config.sampling_ratio)


def _instant(message: Any, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    return getattr(message, field).ToDatetime(tzinfo=UTC)  # type: ignore[no-any-return]


def _span(message: Any, field: str) -> timedelta | None:
    if not message.HasField(field):
        return None
    return getattr(message, field).ToTimedelta()  # type: ignore[no-any-return]


def _timestamp(instant: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(instant)
    return stamp


def _duration(span: timedelta) -> Duration:
    duration = Duration()
    duration.FromTimedelta(span)
    return duration
