"""The bodies that the backend's routes take. Unknown fields are refused: they are misspelt."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from shared.domain.accounts import Tokens
from shared.domain.bulk import Export, JobType, Records, Wish
from shared.domain.failures import Problem, RefusedError
from shared.domain.markers import Keyed
from shared.domain.media import MediaAsset
from shared.domain.posts import PostStatus, Target, TargetPart
from shared.domain.rows_file import Format
from shared.edge.bodies import LARGEST, TEXT_CHARS, Body, Id, Instant, Key, Options, Text

MOST_TARGETS = 50
MOST_MEDIA = 40
MOST_CONTENT = 100
MOST_PARTS = 25  # of a thread, the content with them


class PartBody(Body):
    content: Text = ""
    media_asset_ids: tuple[Id, ...] = Field(default=(), max_length=MOST_MEDIA)

    def part(self) -> TargetPart:
        return TargetPart(content=self.content, media_asset_ids=self.media_asset_ids)


Thread = Annotated[tuple[PartBody, ...], Field(max_length=MOST_PARTS - 1)]


class TargetBody(Body):
    """`thread` is what follows the content, each part in reply to the one before."""

    platform: Id
    account_id: Id
    custom_content: Text | None = None
    options: Options = Field(default_factory=dict)
    thread: Thread = ()

    def target(self) -> Target:
        return Target.model_validate(self.model_dump(exclude_unset=True))


class ScheduleRequest(Body):
    company_id: Id
    user_id: Id
    content: Text
    media_asset_ids: tuple[Id, ...] = Field(default=(), max_length=MOST_MEDIA)
    scheduled_at: datetime
    timezone: str | None = None
    latest_at: datetime | None = None
    idempotency_key: Key
    platforms: tuple[TargetBody, ...] = Field(min_length=1, max_length=MOST_TARGETS)


class DeliveryBody(Body):
    platform: Id
    account_id: Id


class CommandRequest(Body):
    """`deliveries` names those that are meant; all of the post's where it is absent."""

    company_id: Id
    post_id: Id
    deliveries: tuple[DeliveryBody, ...] = Field(default=(), max_length=MOST_TARGETS)
    idempotency_key: Key | None = None

    def keyed(self, job_type: str) -> Keyed | None:
        return _keyed(job_type, self.company_id, self.idempotency_key, self.fingerprint)


class CancelRequest(CommandRequest):
    pass


class RescheduleRequest(CommandRequest):
    scheduled_at: datetime
    timezone: str | None = None
    latest_at: datetime | None = None


class EditRequest(CommandRequest):
    content: Text | None = None
    media_asset_ids: tuple[Id, ...] | None = Field(default=None, max_length=MOST_MEDIA)
    platforms: tuple[TargetBody, ...] = Field(default=(), max_length=MOST_TARGETS)

    @model_validator(mode="after")
    def _something(self) -> EditRequest:
        if self.content is None and self.media_asset_ids is None and not self.platforms:
            raise ValueError("nothing to edit: give content, mediaAssetIds or platforms")
        return self


class RetryRequest(Body):
    """`thread` is what is to follow the parts that are published, or the content if none is."""

    company_id: Id
    post_id: Id
    platform: Id
    account_id: Id
    content: Text | None = None
    options: Options | None = None
    media_asset_ids: tuple[Id, ...] | None = Field(default=None, max_length=MOST_MEDIA)
    thread: Thread | None = None
    latest_at: datetime | None = None
    timezone: str | None = None
    accept_duplicate_risk: bool = False
    reason: Annotated[str, StringConstraints(strip_whitespace=True, max_length=500)] | None = None
    idempotency_key: Key | None = None

    @model_validator(mode="after")
    def _reasoned(self) -> RetryRequest:
        if self.accept_duplicate_risk and not self.reason:
            raise ValueError("acceptDuplicateRisk needs a reason")
        return self

    def keyed(self, job_type: str) -> Keyed | None:
        return _keyed(job_type, self.company_id, self.idempotency_key, self.fingerprint)


def _keyed(job_type: str, company_id: str, key: str | None, fingerprint: str) -> Keyed | None:
    """The key under which an answer is remembered, where the caller gave one."""
    return Keyed(job_type, company_id, key, fingerprint) if key is not None else None


class StatusQuery(Body):
    company_id: Id
    post_id: Id


class ListQuery(Body):
    company_id: Id
    status: PostStatus | None = None
    since: Instant | None = None
    until: Instant | None = None
    cursor: str | None = None
    limit: int = Field(default=50, ge=1, le=200)


class ForecastQuery(Body):
    company_id: Id
    cursor: str | None = None
    limit: int = Field(default=50, ge=1, le=200)


class LimitsBody(Body):
    """What an account may do that differs from its platform."""

    text_chars: int | None = Field(default=None, ge=1, le=TEXT_CHARS)
    media_items: int | None = Field(default=None, ge=1, le=MOST_MEDIA)
    image_bytes: int | None = Field(default=None, ge=1)
    video_bytes: int | None = Field(default=None, ge=1)
    daily_posts: int | None = Field(default=None, ge=1)


class ConnectRequest(Body):
    """`platformUserId` is the account's own id there: a URN, a page or user id. `limits` win over
    what its platform tells of them and over those that it had before."""

    company_id: Id
    account_id: Id
    platform: Id
    platform_user_id: Annotated[str, StringConstraints(min_length=1, max_length=300)]
    handle: str | None = Field(default=None, max_length=300)
    server: str | None = Field(default=None, max_length=300)
    limits: LimitsBody | None = None
    access_token: str = Field(min_length=1, max_length=10_000, repr=False)
    refresh_token: str | None = Field(default=None, min_length=1, max_length=10_000, repr=False)
    expires_at: Instant | None = None

    def tokens(self) -> Tokens:
        return Tokens(self.access_token, self.refresh_token, self.expires_at)

    def own_limits(self) -> dict[str, int] | None:
        return self.limits.model_dump(by_alias=True, exclude_none=True) if self.limits else None


class DisconnectRequest(Body):
    company_id: Id
    account_id: Id


class SyncRequest(Body):
    """What is not named is not limited. `contentIds` are posts; `startDate` a day or an instant.
    Scheduler's calls alone need no key."""

    type: Literal["SYNC_ANALYTICS"] = "SYNC_ANALYTICS"
    company_id: Id | None = None
    platform: Id | None = None
    content_ids: tuple[Id, ...] = Field(default=(), max_length=MOST_CONTENT)
    start_date: Instant | date | None = None
    force: bool = False
    idempotency_key: Key | None = None

    @property
    def start(self) -> datetime | None:
        if self.start_date is None or isinstance(self.start_date, datetime):
            return self.start_date
        return datetime.combine(self.start_date, time(), UTC)


class SyncTask(Body):
    """One step of a sync: its plan's next pages, or one account."""

    sync_id: Id
    account_id: Id | None = None
    hop: int = Field(ge=1, le=LARGEST)


class ImportData(Body):
    """`content` holds the file itself, `uri` names an object in the bucket."""

    content: str | None = None
    uri: str | None = Field(default=None, max_length=2000, pattern=r"^gs://[^/]+/.+$")
    format: Format | None = None
    timezone: str | None = Field(default=None, max_length=100)
    user_id: Id | None = None
    dry_run: bool = False

    @model_validator(mode="after")
    def _one(self) -> ImportData:
        if (self.content is None) == (self.uri is None):
            raise ValueError("give either content or uri")
        return self


class ExportData(Body):
    """`since` and `until` bound when posts and deliveries are due, metrics when they came out."""

    records: Records = Records.POSTS
    format: Format = Format.CSV
    since: Instant | None = None
    until: Instant | None = None
    status: PostStatus | None = None

    @model_validator(mode="after")
    def _of_posts(self) -> ExportData:
        if self.status is not None and self.records is not Records.POSTS:
            raise ValueError("status chooses among posts alone")
        return self


class BulkRequest(Body):
    type: JobType
    company_id: Id
    idempotency_key: Key

    @property
    def keyed(self) -> Keyed:
        return Keyed(self.type, self.company_id, self.idempotency_key, self.fingerprint)


class BulkImportRequest(BulkRequest):
    data: ImportData

    def wish(self) -> Wish:
        return Wish(**self.data.model_dump())


class BulkExportRequest(BulkRequest):
    data: ExportData = Field(default_factory=ExportData)

    def wish(self) -> Export:
        return Export(**self.data.model_dump())


def bulk_request(body: Mapping[str, Any]) -> type[BulkRequest]:
    return BulkExportRequest if body.get("type") == JobType.EXPORT else BulkImportRequest


class BulkJobBody(Body):
    company_id: Id
    job_id: Id


class ChunkTask(Body):
    """One chunk of an import or export."""

    job_id: Id
    chunk: int = Field(ge=1, le=LARGEST)


def scheduling(row: Mapping[str, Any]) -> ScheduleRequest:
    """A row of a file as the schedule request that it is. Raises `RefusedError`."""
    try:
        return ScheduleRequest.model_validate(row)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        problems = []
        for fault in faults:
            where = ".".join(map(str, fault["loc"])) or "row"
            message = fault["msg"].removeprefix("Value error, ")
            problems.append(Problem(where, fault["type"], f"{where}: {message}."))
        raise RefusedError(problems) from None


class MediaRequest(Body):
    company_id: Id
    media_asset_id: Id
    uri: Annotated[str, StringConstraints(max_length=2000, pattern=r"^(gs://[^/]+/.+|https://.+)$")]
    content_type: Annotated[str, StringConstraints(pattern=r"^[a-z]+/[a-zA-Z0-9.+-]+$")]
    size_bytes: int | None = Field(default=None, ge=0, le=LARGEST)
    width: int | None = Field(default=None, ge=1, le=LARGEST)
    height: int | None = Field(default=None, ge=1, le=LARGEST)
    duration_ms: int | None = Field(default=None, ge=0, le=LARGEST)
    alt_text: str | None = Field(default=None, max_length=2000)

    def asset(self, now: datetime) -> MediaAsset:
        about = self.model_dump(exclude={"media_asset_id"})
        return MediaAsset(**about, created_at=now, updated_at=now)
