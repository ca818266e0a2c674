"""What an operator has paused, and what a platform has throttled for all of our accounts."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

from pydantic import Field

from shared.domain.records import Instant, Record, Value


class Kind(StrEnum):
    """What can be paused, each in a document of its own: `controls/publish` and so on."""

    PUBLISH = "publish"
    SYNC = "sync"
    BULK = "bulk"


class Pause(Value):
    """One pause. `scope` is platform, account, company or queue; without `until` it holds."""

    kind: Kind = Kind.PUBLISH
    scope: str
    name: str
    by: str
    why: str
    until: Instant | None = None

    def holds(self, now: datetime) -> bool:
        return self.until is None or now < self.until


class Controls(Record):
    """`controls/{kind}`: every pause of that kind, and app-wide limits in epoch milliseconds."""

    pauses: dict[str, Pause] = Field(default_factory=dict)
    throttled: dict[str, int] = Field(default_factory=dict)

    def pause_of(
        self,
        *,
        platform: str | None = None,
        account_id: str | None = None,
        company_id: str,
        queue: str,
        now: datetime,
    ) -> Pause | None:
        named = {
            "platform": platform,
            "account": account_id,
            "company": company_id,
            "queue": queue,
        }
        held = (p for p in self.pauses.values() if named.get(p.scope) == p.name and p.holds(now))
        return next(held, None)

    def throttled_until(self, platform: str) -> datetime:
        return datetime.fromtimestamp(self.throttled.get(platform, 0) / 1000, UTC)
