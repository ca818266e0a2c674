"""Idempotency markers: the same caller, key and payload get the first answer, for 30 days.

A marker is created in the commit that does the work, so there is no "started" state to be stuck
in: either the work and its answer are on record, or neither is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import Field

from shared.domain import keys, leases
from shared.domain.records import Instant, Record


class Marker(Record):
    """`idempotencyMarkers/{hash of job type, company and key}` (a JobLog)."""

    job_type: str
    company_id: str
    key: str
    state: str = "completed"
    fingerprint: str
    lease_ends_at: Instant | None = None
    fencing_token: int = 0
    response: dict[str, Any] = Field(default_factory=dict)
    started_at: Instant
    completed_at: Instant | None = None
    duration_ms: int | None = None
    expire_at: Instant
    created_at: Instant
    updated_at: Instant


@dataclass(frozen=True, slots=True)
class Keyed:
    """A request's idempotency key and what it asked for."""

    job_type: str
    company_id: str
    key: str
    fingerprint: str

    @property
    def marker_id(self) -> str:
        return keys.marker_id(self.job_type, self.company_id, self.key)


@dataclass(frozen=True, slots=True)
class Fresh:
    """Not seen before, or its marker has expired and only the TTL has not come by yet."""


@dataclass(frozen=True, slots=True)
class Answered:
    response: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The key was used for another payload."""


def look(marker: Marker | None, fingerprint: str, now: datetime) -> Fresh | Answered | Mismatch:
    if marker is None or now >= marker.expire_at:
        return Fresh()
    return Answered(marker.response) if marker.fingerprint == fingerprint else Mismatch()


def completed(keyed: Keyed, response: dict[str, Any], now: datetime) -> Marker:
    return Marker(
        job_type=keyed.job_type,
        company_id=keyed.company_id,
        key=keyed.key,
        fingerprint=keyed.fingerprint,
        response=response,
        started_at=now,
        completed_at=now,
        expire_at=now + leases.MARKER_KEPT,
        created_at=now,
        updated_at=now,
    )
