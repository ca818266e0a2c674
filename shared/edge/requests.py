"""The bodies that the backend's routes take. Unknown fields are refused: they are misspelt."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from shared.domain.posts import PostStatus
from shared.edge.bodies import Body, Id, Key, Text

MOST_TARGETS = 50
MOST_MEDIA = 40


class TargetBody(Body):
    platform: Id
    account_id: Id
    custom_content: Text | None = None
    options: dict[str, Any] = Field(default_factory=dict)


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
    company_id: Id
    post_id: Id
    platform: Id
    account_id: Id
    content: Text | None = None
    options: dict[str, Any] | None = None
    media_asset_ids: tuple[Id, ...] | None = Field(default=None, max_length=MOST_MEDIA)
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


class StatusQuery(Body):
    company_id: Id
    post_id: Id


class ListQuery(Body):
    company_id: Id
    status: PostStatus | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    cursor: str | None = None
    limit: int = Field(default=50, ge=1, le=200)


class ConnectRequest(Body):
    """`platformUserId` is the account's own id there: a URN, a page or user id."""

    company_id: Id
    account_id: Id
    platform: Id
    platform_user_id: Annotated[str, StringConstraints(min_length=1, max_length=300)]
    handle: str | None = Field(default=None, max_length=300)
    server: str | None = Field(default=None, max_length=300)
    access_token: str = Field(min_length=1, max_length=10_000, repr=False)
    refresh_token: str | None = Field(default=None, min_length=1, max_length=10_000, repr=False)
    expires_at: AwareDatetime | None = None


class DisconnectRequest(Body):
    company_id: Id
    account_id: Id


class MediaRequest(Body):
    company_id: Id
    media_asset_id: Id
    uri: Annotated[str, StringConstraints(max_length=2000, pattern=r"^(gs://[^/]+/.+|https://.+)$")]
    content_type: Annotated[str, StringConstraints(pattern=r"^[a-z]+/[a-zA-Z0-9.+-]+$")]
    size_bytes: int | None = Field(default=None, ge=0)
    width: int | None = Field(default=None, ge=1)
    height: int | None = Field(default=None, ge=1)
    duration_ms: int | None = Field(default=None, ge=0)
    alt_text: str | None = Field(default=None, max_length=2000)
