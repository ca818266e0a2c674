"""Posts: what was scheduled, and the roll-up of its deliveries.

The commit that moves a log also writes `results.<delivery>` and `open: Increment(±1)` on the post,
unguarded: a read-modify-write of one parent by three deliveries that end at the same moment takes
seconds where this takes milliseconds. Whoever gets 0 back stores the derived status.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from pydantic import Field

from shared.domain.deliveries import PublishLog, Status
from shared.domain.media import MediaItem
from shared.domain.records import Instant, Record, Value


class PostStatus(StrEnum):
    PENDING = "pending"
    PROCESSING = "processing"
    PUBLISHED = "published"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TargetPart(Value):
    """A post that follows in a thread, as it was ordered."""

    content: str = ""
    media_asset_ids: tuple[str, ...] = ()


class Target(Value):
    """One account that a post goes to; `thread` is what follows there as replies."""

    platform: str
    account_id: str
    custom_content: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    thread: tuple[TargetPart, ...] = ()


class Result(Value):
    """A delivery as its post shows it."""

    platform: str
    account_id: str
    status: Status
    is_open: bool
    remote_url: str | None = None
    error_code: str | None = None
    error_message: str | None = None


class ScheduledPost(Record):
    """`scheduledPosts/{postId}`."""

    company_id: str
    user_id: str
    content: str
    media_asset_ids: tuple[str, ...] = ()
    media: tuple[MediaItem, ...] = ()
    scheduled_at: Instant
    timezone: str | None = None
    latest_at: Instant
    status: PostStatus = PostStatus.PENDING
    platforms: tuple[Target, ...]
    cloud_task_names: tuple[str, ...] = ()
    results: dict[str, Result] = Field(default_factory=dict)
    open: int
    last_attempt_at: Instant | None = None
    error_message: str | None = None
    idempotency_key: str
    row_key: str | None = None  # of the file that it came with, and what that row said
    row_fingerprint: str | None = None
    traceparent: str | None = None
    created_at: Instant
    updated_at: Instant


def result(log: PublishLog) -> Result:
    return Result(
        platform=log.platform,
        account_id=log.account_id,
        status=log.status,
        is_open=log.is_open,
        remote_url=log.remote_url,
        error_code=log.error_code,
        error_message=log.error_message,
    )


def shows(before: PublishLog, after: PublishLog) -> bool:
    """Whether the post has to hear of a move. A claim, and what an attempt writes on its way, say
    nothing to it: a published delivery costs its post one write, not three."""
    begins = after.status is Status.PROCESSING and before.is_open
    return not begins and result(before) != result(after)


def opened(before: PublishLog, after: PublishLog) -> int:
    """What a move adds to the post's `open`: 1, 0 or -1."""
    return int(after.is_open) - int(before.is_open)


def derive(results: Iterable[Result]) -> PostStatus:
    """The five public words, from the deliveries."""
    seen = list(results)
    statuses = {result.status for result in seen}
    if any(result.is_open for result in seen):
        begun = statuses != {Status.PENDING}
        return PostStatus.PROCESSING if begun else PostStatus.PENDING
    if statuses == {Status.SUCCESS}:
        return PostStatus.PUBLISHED
    if statuses == {Status.CANCELLED}:
        return PostStatus.CANCELLED
    return PostStatus.FAILED


def summary(results: Iterable[Result]) -> dict[str, int]:
    """How many deliveries have each status."""
    return dict(Counter(str(result.status) for result in results))


def sentence(results: Iterable[Result]) -> str:
    """For a person: "2 of 3 platforms published"."""
    seen = list(results)
    done = sum(result.status is Status.SUCCESS for result in seen)
    return f"{done} of {len(seen)} platforms published"


def errors(results: Iterable[Result]) -> str | None:
    """Why some did not make it, in one line; None when there is nothing to say."""
    said = [
        f"{result.platform}: {result.error_message or result.error_code}"
        for result in results
        if not result.is_open and result.status not in (Status.SUCCESS, Status.CANCELLED)
    ]
    return "; ".join(sorted(said)) or None
