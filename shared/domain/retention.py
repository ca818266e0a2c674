"""How long finished things are kept. What is live, open or inside its window is never removed.

Records carry `expireAt`, so that what is removed costs and what is kept does not. A company may
keep its own longer or shorter: its record that has expired too early is given a later `expireAt`
once, what may go sooner is looked for by company.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from pydantic import Field

from shared.domain.records import Instant, Record, Value

JOBS_DAYS = 7
AUDIT_DAYS = 90
LETTERS_DAYS = 90  # of a letter that is closed; an open one stays
MOST_COMPLETED = 1000
MOST_FAILED = 5000


class Kept(Value):
    """One company's own numbers of days; None is the general rule."""

    jobs_days: int | None = None
    audit_days: int | None = None
    by: str | None = None
    why: str | None = None


class Rules(Record):
    """`controls/retention`."""

    companies: dict[str, Kept] = Field(default_factory=dict)
    updated_at: Instant | None = None

    def jobs(self, company_id: str | None) -> timedelta:
        own = self.companies.get(company_id or "", Kept()).jobs_days
        return timedelta(days=JOBS_DAYS if own is None else own)

    def audit(self, company_id: str | None) -> timedelta:
        own = self.companies.get(company_id or "", Kept()).audit_days
        return timedelta(days=AUDIT_DAYS if own is None else own)


def job_expires(finished_at: datetime) -> datetime:
    return finished_at + timedelta(days=JOBS_DAYS)


def audit_expires(at: datetime) -> datetime:
    return at + timedelta(days=AUDIT_DAYS)
