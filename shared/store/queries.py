"""Every query, as data: Terraform's indexes are held against this list.

Equality filters alone, and one range or order on a single field, are served by Firestore's
automatic indexes; equality with an order on another field needs a composite one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from google.cloud.firestore_v1.base_query import BaseQuery, FieldFilter

from shared.store.firestore import Firestore


@dataclass(frozen=True, slots=True)
class Query:
    """`optional`: equalities of which each call may ask for any; Firestore merges the composite
    indexes of one field and the order each. `newest`: the order is descending."""

    collection: str
    equal: tuple[str, ...] = ()
    order: str | None = None
    optional: tuple[str, ...] = ()
    newest: bool = False

    @property
    def needs_composite(self) -> bool:
        return bool(self.equal or self.optional) and self.order is not None


TO_SWEEP = Query("publishLogs", order="sweepAt")
TO_PROMOTE = Query("publishLogs", order="promoteAt")
BY_REMOTE_ID = Query("publishLogs", equal=("platform", "remoteId"))
STALE_POSTS = Query("scheduledPosts", equal=("open", "status"))
POSTS = Query("scheduledPosts", equal=("companyId",), order="scheduledAt")
POSTS_BY_STATUS = Query("scheduledPosts", equal=("companyId", "status"), order="scheduledAt")
ACCOUNT_LETTERS = Query("deadLetters", equal=("accountId", "reason", "status"))
OPEN_BY_ACCOUNT = Query("publishLogs", equal=("accountId",), order="sweepAt")
PUBLISHED_BY_ACCOUNT = Query("publishLogs", equal=("accountId", "status"), order="publishedAt")
TO_REFRESH = Query("socialAccounts", equal=("status",), order="refreshAt")
ACCOUNTS = Query("socialAccounts")
ACCOUNTS_OF_COMPANY = Query("socialAccounts", equal=("companyId",))
ACCOUNTS_OF_PLATFORM = Query("socialAccounts", equal=("platform",))
ACCOUNTS_OF_BOTH = Query("socialAccounts", equal=("companyId", "platform"))
LOGS_OF_COMPANY = Query("publishLogs", equal=("companyId",))
METRICS_OF_COMPANY = Query("postMetrics", equal=("companyId",))
READ_BY_ACCOUNT = Query("postMetrics", equal=("accountId",), order="fetchedAt")
SNAPSHOTS = Query("snapshots")  # below one of `postMetrics`
STALLED_BULK_JOBS = Query("bulkJobs", order="sweepAt")
REFUSED_ROWS = Query("rows")  # below one of `bulkJobs`
UNFINISHED_SYNCS = Query("analyticsSyncJobs", equal=("completedAt",), order="createdAt")
PARTS = Query("parts", equal=("status",))  # below one of `analyticsSyncJobs`
PAUSED_PARTS = Query(
    "parts", equal=("code", "status"), optional=("companyId", "platform", "accountId")
)
PAUSED_BULK_JOBS = Query("bulkJobs", equal=("paused",), optional=("companyId",))

LETTERS = Query(
    "deadLetters",
    order="createdAt",
    newest=True,
    optional=("status", "companyId", "platform", "accountId", "reason"),
)
CLOSED_LETTERS = Query("deadLetters", equal=("status",), order="updatedAt")
OPEN_LETTERS = Query("deadLetters", equal=("status",))
UNCOPIED_LETTERS = Query("deadLetters", equal=("copied", "status"))
IN_STATE = Query("publishLogs", equal=("status",), optional=("companyId", "platform", "accountId"))
IN_STATE_BY_CODE = Query(
    "publishLogs",
    equal=("errorCode", "status"),
    optional=("companyId", "platform", "accountId"),
)
LAST_SUCCESS = Query("publishLogs", equal=("platform", "status"), order="publishedAt", newest=True)
AUDIT = Query("auditLog", order="at", newest=True, optional=("companyId", "by", "action"))
JOBS = Query("scheduledJobs", order="createdAt", newest=True, optional=("status", "type"))
JOBS_TO_SWEEP = Query("scheduledJobs", order="sweepAt")
FINISHED_JOBS = Query("scheduledJobs", equal=("status",), order="completedAt")
FINISHED_JOBS_OF_COMPANY = Query("scheduledJobs", equal=("companyId",), order="completedAt")
AUDIT_OF_COMPANY = Query("auditLog", equal=("companyId",), order="at")
EXPIRED_JOBS = Query("scheduledJobs", order="expireAt")
EXPIRED_AUDIT = Query("auditLog", order="expireAt")

QUERIES = (
    TO_SWEEP,
    TO_PROMOTE,
    BY_REMOTE_ID,
    STALE_POSTS,
    POSTS,
    POSTS_BY_STATUS,
    ACCOUNT_LETTERS,
    OPEN_BY_ACCOUNT,
    PUBLISHED_BY_ACCOUNT,
    TO_REFRESH,
    ACCOUNTS,
    ACCOUNTS_OF_COMPANY,
    ACCOUNTS_OF_PLATFORM,
    ACCOUNTS_OF_BOTH,
    LOGS_OF_COMPANY,
    METRICS_OF_COMPANY,
    READ_BY_ACCOUNT,
    SNAPSHOTS,
    STALLED_BULK_JOBS,
    REFUSED_ROWS,
    UNFINISHED_SYNCS,
    PARTS,
    PAUSED_PARTS,
    PAUSED_BULK_JOBS,
    LETTERS,
    CLOSED_LETTERS,
    OPEN_LETTERS,
    UNCOPIED_LETTERS,
    IN_STATE,
    IN_STATE_BY_CODE,
    LAST_SUCCESS,
    AUDIT,
    JOBS,
    JOBS_TO_SWEEP,
    FINISHED_JOBS,
    FINISHED_JOBS_OF_COMPANY,
    AUDIT_OF_COMPANY,
    EXPIRED_JOBS,
    EXPIRED_AUDIT,
)


def build(
    db: Firestore,
    query: Query,
    *values: Any,
    since: Any = None,
    until: Any = None,
    limit: int,
) -> BaseQuery:
    """`values` answer `equal` in order; `since` and `until` bound `order`, both inclusive."""
    built: BaseQuery = db.collection(query.collection)
    for field, value in zip(query.equal, values, strict=True):
        built = built.where(filter=FieldFilter(field, "==", value))
    if since is not None and query.order is not None:
        built = built.where(filter=FieldFilter(query.order, ">=", since))
    if until is not None and query.order is not None:
        built = built.where(filter=FieldFilter(query.order, "<=", until))
    if query.order is not None:
        built = built.order_by(query.order, direction="DESCENDING" if query.newest else "ASCENDING")
    return built.limit(limit)


def page(
    db: Firestore,
    query: Query,
    *values: Any,
    optional: Mapping[str, Any],
    since: datetime | None = None,
    until: datetime | None = None,
    after: tuple[datetime, str] | None = None,
    limit: int,
) -> BaseQuery:
    """One page of what is asked for; `after` is the instant and id of the last one before it, of a
    query without order the id alone counts."""
    unknown = optional.keys() - set(query.optional)
    assert not unknown, f"{unknown} has no index"
    built = build(db, query, *values, since=since, until=until, limit=limit)
    for field, value in optional.items():
        built = built.where(filter=FieldFilter(field, "==", value))
    direction = "DESCENDING" if query.newest else "ASCENDING"
    built = built.order_by("__name__", direction=direction)
    if after is None:
        return built
    at, last = after
    place: dict[str, Any] = {"__name__": db.ref(query.collection, last)}
    if query.order is not None:
        place = {query.order: at, **place}
    return built.start_after(place)
