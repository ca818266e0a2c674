"""What Cloud Tasks keeps, as frozen values.

Field meanings, limits and defaults are those of the v2 API:
https://docs.cloud.google.com/tasks/docs/reference/rest/v2/projects.locations.queues.tasks
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, TypeVar

RUNNING = "RUNNING"
PAUSED = "PAUSED"

USER_AGENT = "Google-Cloud-Tasks"


class RefusalError(Exception):
    """A call that the service refuses: a gRPC status code by name, and its message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True)
class RetryConfig:
    """When a failed task is tried again; the defaults are those of a new queue.

    Real queues keep 0.100 s as the default minimum although the reference says that backoffs
    are truncated to whole seconds; fractions are therefore kept here.
    """

    max_attempts: int = 100  # counts the first; -1 is unlimited
    max_retry_duration: timedelta = timedelta(0)  # since the first attempt; 0 is unlimited
    min_backoff: timedelta = timedelta(seconds=0.1)
    max_backoff: timedelta = timedelta(hours=1)
    max_doublings: int = 16


@dataclass(frozen=True)
class RateLimits:
    max_dispatches_per_second: float = 500.0
    max_concurrent_dispatches: int = 1000

    @property
    def max_burst_size(self) -> int:
        """Output only. The service shows 100 at 500/s and 10 at 10/s and below; between is a guess.

        "Generally at least equal to max_dispatches_per_second", says the reference, yet the
        default queue shows 100 for 500/s.
        """
        return min(100, max(10, math.ceil(self.max_dispatches_per_second)))


@dataclass(frozen=True)
class Queue:
    name: str
    rate: RateLimits = RateLimits()
    retry: RetryConfig = RetryConfig()
    state: str = RUNNING
    purged_at: datetime | None = None
    sampling_ratio: float | None = None

    @property
    def id(self) -> str:
        return short(self.name)


@dataclass(frozen=True)
class OidcToken:
    email: str
    audience: str = ""  # empty: the task's whole URL


@dataclass(frozen=True)
class HttpRequest:
    url: str
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    oidc: OidcToken | None = None


@dataclass(frozen=True)
class Draft:
    """A task as the caller of CreateTask describes it."""

    request: HttpRequest
    name: str = ""  # empty: the service picks one
    schedule_at: datetime | None = None
    dispatch_deadline: timedelta | None = None
    retry: RetryConfig | None = None


@dataclass(frozen=True)
class TaskAttempt:
    """What the API tells of a task's first and last attempt."""

    dispatched_at: datetime
    scheduled_at: datetime | None = None
    answered_at: datetime | None = None
    status: int | None = None  # HTTP; 504 when the deadline passed, 503 when nothing answered


@dataclass(frozen=True)
class Task:
    name: str
    request: HttpRequest
    schedule_at: datetime
    created_at: datetime
    dispatch_deadline: timedelta = timedelta(minutes=10)
    retry: RetryConfig | None = None
    dispatch_count: int = 0
    response_count: int = 0
    first_attempt: TaskAttempt | None = None
    last_attempt: TaskAttempt | None = None
    executions: int = 0  # answers that were not 5xx: the ExecutionCount header
    previous_status: int | None = None
    serial: int = 0  # tells a task from a later one of the same name

    @property
    def id(self) -> str:
        return short(self.name)

    @property
    def queue_id(self) -> str:
        return short(parent_of(self.name))


@dataclass(frozen=True)
class Dispatch:
    """One request to be sent now; `headers` lack only the Authorization."""

    id: int
    task_name: str
    request: HttpRequest
    headers: Mapping[str, str]
    deadline: timedelta
    scheduled_at: datetime
    dispatched_at: datetime
    serial: int
    forced: bool = False  # by RunTask: outside rate and concurrency
    copy: bool = False  # a doubled delivery: its answer changes nothing

    @property
    def task_id(self) -> str:
        return short(self.task_name)

    @property
    def queue_id(self) -> str:
        return short(parent_of(self.task_name))


@dataclass(frozen=True)
class Outcome:
    """What came back. 504 and not answered: the deadline passed. None: nobody answered."""

    status: int | None
    answered: bool = True
    retry_after: timedelta = timedelta(0)

    @property
    def succeeded(self) -> bool:
        return self.status is not None and 200 <= self.status <= 299


Item = TypeVar("Item")


@dataclass(frozen=True)
class Page(Generic[Item]):
    items: tuple[Item, ...]
    next_token: str = ""


def short(name: str) -> str:
    """The last part of a resource name."""
    return name.rpartition("/")[2]


def parent_of(name: str) -> str:
    """The resource name two parts up: a task's queue, a queue's location."""
    return name.rpartition("/")[0].rpartition("/")[0]
