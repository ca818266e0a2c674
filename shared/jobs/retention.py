"""Remove what is finished and old, a batch at a time, until nothing is left or the time is up.

Never a live job, an open dead letter or a key inside its window: the queries ask for what has ended
and expired, and each record goes only as it was read. Idempotency markers are not asked for at all:
their window is their `expireAt`, by which Firestore's own TTL removes them, and an index on it
would limit how fast posts can be scheduled.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from shared.domain import retention
from shared.domain.redrives import Person
from shared.domain.retention import Kept, Rules
from shared.domain.scheduled_jobs import JobStatus
from shared.runtime import Runtime


def run(rt: Runtime, ends_at: float) -> dict[str, Any]:
    """How much of what was removed; `finished` is false when the time was up before the end."""
    store, rules = rt.store.retention, rt.store.switches.rules()
    steps: list[tuple[str, Callable[[], tuple[int, int]]]] = [
        ("jobs", lambda: store.jobs(rules)),
        ("audit", lambda: store.audit(rules)),
        ("letters", lambda: (store.letters(), 0)),
        ("jobs", lambda: (store.surplus(JobStatus.COMPLETED, retention.MOST_COMPLETED), 0)),
        ("jobs", lambda: (store.surplus(JobStatus.FAILED, retention.MOST_FAILED), 0)),
        *_sooner(rules, rt),
    ]
    removed: dict[str, Any] = {"jobs": 0, "audit": 0, "letters": 0}
    finished = True
    for kind, step in steps:
        while finished:
            gone, kept = step()
            removed[kind] += gone
            if not gone and not kept:
                break
            finished = time.monotonic() < ends_at
    rt.log.event("retention.done", finished=finished, **removed)
    return {"success": True, "finished": finished, "removed": removed}


def _sooner(rules: Rules, rt: Runtime) -> list[tuple[str, Callable[[], tuple[int, int]]]]:
    """Companies that keep less than the rule."""
    store = rt.store.retention
    steps: list[tuple[str, Callable[[], tuple[int, int]]]] = []
    for company, own in rules.companies.items():
        if own.jobs_days is not None and own.jobs_days < retention.JOBS_DAYS:
            steps.append(("jobs", _of(store.jobs_of, company, own.jobs_days)))
        if own.audit_days is not None and own.audit_days < retention.AUDIT_DAYS:
            steps.append(("audit", _of(store.audit_of, company, own.audit_days)))
    return steps


def _of(
    verb: Callable[[str, timedelta], int], company: str, days: int
) -> Callable[[], tuple[int, int]]:
    return lambda: (verb(company, timedelta(days=days)), 0)


def keep(
    company_id: str, jobs_days: int | None, audit_days: int | None, person: Person, rt: Runtime
) -> dict[str, Any]:
    """A company's own numbers of days; None is the general rule again."""
    kept = Kept(jobs_days=jobs_days, audit_days=audit_days, by=person.email, why=person.why)
    told = {
        "action": "retention.keep",
        "by": person.email,
        "why": person.why,
        "companyId": company_id,
        "jobsDays": jobs_days,
        "auditDays": audit_days,
    }
    rt.store.switches.keep(company_id, kept, told)
    rt.log.event("operator.acted", action="retention.keep", by=person.email, companyId=company_id)
    rules = Rules(companies={company_id: kept})
    jobs, audit = rules.jobs(company_id).days, rules.audit(company_id).days
    message = (
        f"From the next run on, finished jobs of {company_id} are kept for {jobs} days and its "
        f"audit entries for {audit}. What is removed by then does not come back."
    )
    return {"success": True, "companyId": company_id, "message": message}
