"""What the console's routes take. A person who overrides something gives a reason."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from shared.domain.controls import Kind
from shared.domain.dead_letters import LetterStatus
from shared.domain.redrives import Person
from shared.domain.scheduled_jobs import JobStatus
from shared.edge.bodies import Body, Id, Instant, Key, Options, Text
from shared.edge.requests import MOST_MEDIA, SyncRequest
from shared.edge.serve import Context

MOST_IDS = 500
MOST_DAYS = 3650

Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=3, max_length=500)]
QueueName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,100}$")]
RemoteId = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]
WebUrl = Annotated[str, StringConstraints(max_length=2000, pattern=r"^https?://\S+$")]


class PageQuery(Body):
    cursor: str | None = Field(default=None, max_length=2000)
    limit: int = Field(default=50, ge=1, le=200)


class StatusQuery(Body):
    pass


# --- dead letters ---------------------------------------------------------------------------------


class LetterFilter(Body):
    """Every field that is given must match; times are the letters' own."""

    company_id: Id | None = None
    platform: Id | None = None
    account_id: Id | None = None
    reason: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    since: Instant | None = None
    until: Instant | None = None


class LettersQuery(LetterFilter):
    status: LetterStatus | None = None
    cursor: str | None = Field(default=None, max_length=2000)
    limit: int = Field(default=50, ge=1, le=200)


class LetterQuery(Body):
    id: Id


class RedriveRequest(Body):
    """Either `ids`, or a `filter` of open letters (`{}` for all), page by page with `cursor`."""

    ids: tuple[Id, ...] = Field(default=(), max_length=MOST_IDS)
    filter: LetterFilter | None = None
    cursor: str | None = Field(default=None, max_length=2000)
    limit: int = Field(default=100, ge=1, le=MOST_IDS)
    latest_at: Instant | None = None
    dry_run: bool = False
    reason: Reason | None = None

    @model_validator(mode="after")
    def _either(self) -> RedriveRequest:
        if bool(self.ids) == (self.filter is not None):
            raise ValueError("give either ids or a filter")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("ids names a letter twice")
        return self


class EditLetterRequest(Body):
    id: Id
    content: Text | None = None
    options: Options | None = None
    media_asset_ids: tuple[Id, ...] | None = Field(default=None, max_length=MOST_MEDIA)
    reason: Reason | None = None

    @model_validator(mode="after")
    def _something(self) -> EditLetterRequest:
        if self.content is None and self.options is None and self.media_asset_ids is None:
            raise ValueError("nothing to edit: give content, options or mediaAssetIds")
        return self


class DiscardRequest(Body):
    ids: tuple[Id, ...] = Field(min_length=1, max_length=MOST_IDS)
    reason: Reason


# --- pauses and queues ----------------------------------------------------------------------------


class ScopeBody(Body):
    """`kind` says what of the scope; a queue has one kind of work anyway."""

    kind: Kind = Kind.PUBLISH
    scope: Literal["queue", "platform", "account", "company"]
    name: Id


class PauseRequest(ScopeBody):
    """`until` absent: until somebody resumes it."""

    reason: Reason
    until: Instant | None = None


class ResumeRequest(ScopeBody):
    reason: Reason | None = None


class QueuesQuery(Body):
    queue: QueueName | None = None


class PurgeRequest(Body):
    queue: QueueName
    reason: Reason


# --- unknown deliveries ---------------------------------------------------------------------------


class UnknownQuery(PageQuery):
    company_id: Id | None = None
    platform: Id | None = None
    account_id: Id | None = None


class IsThereRequest(Body):
    """The post as a person has found it on the platform."""

    delivery_id: Id
    remote_id: RemoteId
    remote_url: WebUrl | None = None
    published_at: Instant | None = None
    reason: Reason


class SendAgainRequest(Body):
    delivery_id: Id
    accept_duplicate_risk: bool = False
    latest_at: Instant | None = None
    reason: Reason

    @model_validator(mode="after")
    def _accepted(self) -> SendAgainRequest:
        if not self.accept_duplicate_risk:
            raise ValueError("acceptDuplicateRisk must be true: the first post may be there")
        return self


# --- jobs, audit, retention -----------------------------------------------------------------------


class QueueJobRequest(Body):
    type: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    payload: Options = Field(default_factory=dict)
    company_id: Id | None = None
    scheduled_for: Instant | None = None
    idempotency_key: Key | None = None
    reason: Reason


class JobsQuery(PageQuery):
    status: JobStatus | None = None
    type: Annotated[str, StringConstraints(max_length=100)] | None = None


class JobQuery(Body):
    id: Id


class TriggerRequest(SyncRequest):
    """A sync as `sync_analytics` takes it; what is not named is not limited."""

    reason: Reason | None = None


class AuditQuery(PageQuery):
    company_id: Id | None = None
    by: Annotated[str, StringConstraints(max_length=300)] | None = None
    action: Annotated[str, StringConstraints(max_length=100)] | None = None
    since: Instant | None = None
    until: Instant | None = None


class KeepRequest(Body):
    """Absent or null: as for everybody."""

    company_id: Id
    jobs_days: int | None = Field(default=None, ge=1, le=MOST_DAYS)
    audit_days: int | None = Field(default=None, ge=30, le=MOST_DAYS)
    reason: Reason


# --- tasks ----------------------------------------------------------------------------------------


class AlertTask(Body):
    about: Id
    attempt: int = Field(ge=1, le=1000)


class JobTask(Body):
    job_id: Id


def person(context: Context, why: str | None) -> Person:
    """Who acts, as a verified identity says, and why."""
    return Person(context.caller.email, why)


def equal(body: Body, *names: str) -> dict[str, Any]:
    """The fields that a query names, as records keep them."""
    given = body.model_dump(by_alias=True, mode="json", include=set(names), exclude_none=True)
    return dict(given)
