"""Social accounts: whose token is used, and whether it may be used now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import Field

from shared.domain.records import Instant, Record, Value

# A refused refresh token expires the account only when the same version is still current one
# lock length later: a refresher that died between the platform's answer and our record of it
# looks exactly like a revoked token, until its lock has run out.
REFRESH_LOCK = timedelta(seconds=30)
REFRESH_AGAIN = timedelta(seconds=3)  # another attempt is refreshing: look again this soon
LONGEST_PAUSE = timedelta(hours=24)


class AccountStatus(StrEnum):
    ACTIVE = "active"
    EXPIRED = "expired"  # the platform refuses its token; reconnecting mends it
    DISABLED = "disabled"  # disconnected by its owner


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the OAuth dance gave us. Never logged, sealed wherever it is kept.

    `server` is the account's own, where the platform has many.
    """

    access_token: str
    refresh_token: str | None = None
    expires_at: datetime | None = None
    server: str | None = None

    def __repr__(self) -> str:
        return f"Tokens(expires_at={self.expires_at})"


class RefreshRefusal(Value):
    """The platform refused to refresh this version; it may have been rotated by someone else."""

    token_version: int
    at: Instant


class SocialAccount(Record):
    """`socialAccounts/{accountId}`. `paused_until` is in epoch milliseconds, so that `Maximum`
    can raise it without a read; so is `next_free_at`, where the account's backlog has come to.
    `limits` are those that may differ from its platform's: `textChars`, `mediaItems`, `imageBytes`,
    `videoBytes`, `dailyPosts`.
    `refresh_at` is when a newer token is fetched, whether or not a post needs one then."""

    company_id: str
    platform: str
    status: AccountStatus
    platform_user_id: str
    handle: str | None = None
    server: str | None = None
    sealed_token: str | None = None
    token_version: int = 1
    token_expires_at: Instant | None = None
    refreshable: bool = False
    refresh_at: Instant | None = None
    refresh_refusal: RefreshRefusal | None = None
    paused_until: int = 0
    next_free_at: int = 0
    limits: dict[str, Any] = Field(default_factory=dict)
    created_at: Instant
    updated_at: Instant

    def refused_for_good(self, now: datetime) -> bool:
        """The current version was refused one lock length ago, and nobody stored a newer one."""
        refusal = self.refresh_refusal
        return (
            refusal is not None
            and refusal.token_version == self.token_version
            and now >= refusal.at + REFRESH_LOCK
        )

    @property
    def usable_until(self) -> datetime | None:
        """When what comes due on this account begins to fail, unless its owner connects it again:
        None for never, the beginning of time for one that fails already."""
        if self.status is not AccountStatus.ACTIVE:
            return datetime.min.replace(tzinfo=UTC)
        return None if self.refreshable else self.token_expires_at


def pause_until(wanted: datetime, now: datetime) -> int:
    """`paused_until` for a platform's wish, capped at a day: a wrong header must not park it."""
    return int(min(wanted, now + LONGEST_PAUSE).timestamp() * 1000)
