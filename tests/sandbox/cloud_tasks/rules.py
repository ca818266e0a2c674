"""What CreateQueue and CreateTask refuse, in the service's own words.

Texts marked `recorded` were recorded from the real service by the conformance suite of
https://github.com/aertje/cloud-tasks-emulator (2026) or quoted in public bug reports. The others
are ours: only their code is to be relied on.
"""

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from tests.sandbox.cloud_tasks.values import (
    USER_AGENT,
    Draft,
    HttpRequest,
    Queue,
    RateLimits,
    RefusalError,
    RetryConfig,
    parent_of,
)

HORIZON = timedelta(days=30)
RETENTION = timedelta(days=31)
DEADLINES = (timedelta(seconds=15), timedelta(minutes=30))
MAX_URL_CHARS = 2083
MAX_HEADER_BYTES = 80 * 1024

LOCATION = r"projects/[A-Za-z0-9:.\-]+/locations/[A-Za-z0-9\-]+"
LOCATION_NAME = re.compile(LOCATION)
QUEUE_NAME = re.compile(LOCATION + r"/queues/[A-Za-z0-9\-]{1,100}")
TASK_NAME = re.compile(LOCATION + r"/queues/[A-Za-z0-9\-]{1,100}/tasks/.*", re.DOTALL)
TASK_ID = re.compile(r"[A-Za-z0-9_\-]{1,500}")

NO_QUEUE = (  # recorded
    "Queue does not exist. If you just created the queue, wait at least a minute for the queue"
    " to initialize."
)
NO_ENTITY = "Requested entity was not found."  # recorded
NO_LONGER = (  # recorded
    "The task no longer exists, though a task with this name existed recently. The task either"
    " successfully completed or was deleted."
)
QUEUE_EXISTS = "Queue already exists"  # recorded
QUEUE_TOO_RECENT = (  # recorded
    "The queue cannot be created because a queue with this name existed too recently."
)
TASK_EXISTS = "Requested entity already exists"  # recorded
BAD_QUEUE_NAME = (  # recorded
    'Queue name must be formatted: "projects/<PROJECT_ID>/locations/<LOCATION_ID>'
    '/queues/<QUEUE_ID>".'
)
BAD_TASK_NAME = (
    'Task name must be formatted: "projects/<PROJECT_ID>/locations/<LOCATION_ID>'
    '/queues/<QUEUE_ID>/tasks/<TASK_ID>"'
)
UNAVAILABLE = "The service is currently unavailable."

# The service prints the instant it refuses in its own zone (recorded).
SERVICE_ZONE = ZoneInfo("America/Los_Angeles")


def invalid(message: str) -> RefusalError:
    return RefusalError("INVALID_ARGUMENT", message)


def check_location(parent: str) -> None:
    if not LOCATION_NAME.fullmatch(parent):
        # Recorded: a malformed parent is read as a project that the caller may not use.
        raise RefusalError("PERMISSION_DENIED", f"Permission denied on resource project {parent}.")


def check_queue_name(name: str) -> None:
    if not QUEUE_NAME.fullmatch(name):
        raise invalid(BAD_QUEUE_NAME)


def check_new_queue(parent: str, queue: Queue) -> None:
    check_location(parent)
    check_queue_name(queue.name)
    if parent_of(queue.name) != parent:
        raise invalid(f"{queue.name} must begin with {parent}.")
    check_rate(queue.rate)
    check_retry(queue.retry)


def check_rate(rate: RateLimits) -> None:  # recorded texts
    if rate.max_dispatches_per_second < 0:
        raise invalid("RateLimits.maxDispatchesPerSecond cannot be negative.")
    if rate.max_dispatches_per_second > 500:
        raise invalid("RateLimits.maxDispatchesPerSecond must be less than or equal to 500.")
    if rate.max_concurrent_dispatches < 0:
        raise invalid("RateLimits.maxConcurrentDispatches cannot be negative.")
    if rate.max_concurrent_dispatches > 5000:
        raise invalid("RateLimits.maxConcurrentDispatches must be less than or equal to 5000.")


def check_retry(retry: RetryConfig) -> None:  # recorded texts, but for maxBackoff's
    if retry.max_attempts < -1:
        raise invalid("RetryConfig.maxAttempts must be greater or equal to -1.")
    if retry.max_doublings < 0:
        raise invalid("RetryConfig.maxDoublings cannot be negative.")
    if retry.min_backoff < timedelta(0):
        raise invalid("RetryConfig.minBackoff cannot be negative.")
    if retry.max_backoff < timedelta(0):
        raise invalid("RetryConfig.maxBackoff cannot be negative.")
    if retry.min_backoff > retry.max_backoff:
        raise invalid(
            "RetryConfig.minBackoff must be less than or equal to RetryConfig.maxBackoff."
        )


def check_task_name(parent: str, name: str) -> None:
    """A caller's own task name: its form, its queue, its id."""
    if not TASK_NAME.fullmatch(name):
        raise invalid(BAD_TASK_NAME)
    queue_name, _, task_id = name.partition("/tasks/")
    if queue_name != parent:
        raise invalid(
            f"The queue name from request ('{parent}') must be the same as the queue name in the"
            f" named task ('{queue_name}')."  # recorded
        )
    if not TASK_ID.fullmatch(task_id):
        raise invalid(
            f'Task ID "{task_id}" can contain only letters ([A-Za-z]), numbers ([0-9]), hyphens'
            " (-), or underscores (_). Task ID must between 1 and 500 characters."  # recorded
        )


def check_draft(draft: Draft, *, now: datetime, max_bytes: int) -> None:
    check_request(draft.request)
    if draft.retry is not None:
        check_retry(draft.retry)
    shortest, longest = DEADLINES
    if draft.dispatch_deadline is not None and not (shortest <= draft.dispatch_deadline <= longest):
        raise invalid("Task.dispatchDeadline must be between [15s, 30m].")  # recorded
    if draft.schedule_at is not None and draft.schedule_at > now + HORIZON:
        raise invalid(
            f"The Task.scheduleTime, {service_time(draft.schedule_at)}, is too far in the future."
            " Schedule time must be no more than 720h in the future."  # recorded
        )
    if size_bytes(draft) > max_bytes:
        raise invalid("Task size too large")  # recorded


def check_request(request: HttpRequest) -> None:
    if not request.url:
        raise invalid("HttpRequest.url is required.")  # recorded
    if not request.url.startswith(("http://", "https://")):
        # Recorded. Nothing else of a URL is checked: a broken escape fails when dispatched.
        raise invalid("HttpTarget.url must start with 'http://' or 'https://'.")
    if len(request.url) > MAX_URL_CHARS:
        raise invalid(f"HttpRequest.url must not be longer than {MAX_URL_CHARS} characters.")
    if _header_bytes(request) >= MAX_HEADER_BYTES:
        raise invalid("HttpRequest.headers must be smaller than 80KB.")
    if request.body and request.method not in ("POST", "PUT", "PATCH"):
        raise invalid("HttpRequest.body is only allowed for POST, PUT and PATCH.")
    if request.oidc is not None and not request.oidc.email:
        raise invalid("OidcToken.serviceAccountEmail is required.")


def stored_headers(request: HttpRequest) -> dict[str, str]:
    """The caller's headers as kept: the service's own removed, the case as given."""
    kept = {name: value for name, value in request.headers.items() if not _reserved(name)}
    return kept | {"User-Agent": USER_AGENT}


def size_bytes(draft: Draft) -> int:
    """A task's size, a few dozen bytes below the real one.

    Measured by the same suite: the service takes the size of the encoded task with its name,
    URL, headers and body, at most 1 MiB less 7 bytes, while the reference says 100 KB.
    """
    request = draft.request
    return len(draft.name) + len(request.url) + _header_bytes(request) + len(request.body)


def service_time(instant: datetime) -> str:
    """RFC 3339 in the service's zone, a fraction without its trailing zeros."""
    local = instant.astimezone(SERVICE_ZONE)
    offset = local.strftime("%z")
    fraction = f".{local.microsecond:06d}".rstrip("0") if local.microsecond else ""
    return f"{local:%Y-%m-%dT%H:%M:%S}{fraction}{offset[:3]}:{offset[3:]}"


def epoch_seconds(instant: datetime) -> str:
    """An instant as the TaskETA header has it: seconds with a fraction."""
    return f"{instant.astimezone(UTC).timestamp():.6f}"


def _header_bytes(request: HttpRequest) -> int:
    return sum(len(name.encode()) + len(value.encode()) for name, value in request.headers.items())


def _reserved(header: str) -> bool:
    name = header.lower()
    return name in ("host", "content-length", "user-agent") or name.startswith(
        ("x-google-", "x-appengine-")
    )
