"""Every query, as data: Terraform's indexes are held against this list.

Equality filters alone, and one range or order on a single field, are served by Firestore's
automatic indexes; equality with an order on another field needs a composite one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.cloud.firestore_v1.base_query import BaseQuery, FieldFilter

from shared.store.firestore import Firestore


@dataclass(frozen=True, slots=True)
class Query:
    collection: str
    equal: tuple[str, ...] = ()
    order: str | None = None

    @property
    def needs_composite(self) -> bool:
        return bool(self.equal) and self.order is not None


TO_SWEEP = Query("publishLogs", order="sweepAt")
TO_PROMOTE = Query("publishLogs", order="promoteAt")
BY_REMOTE_ID = Query("publishLogs", equal=("platform", "remoteId"))
STALE_POSTS = Query("scheduledPosts", equal=("open", "status"))
POSTS = Query("scheduledPosts", equal=("companyId",), order="scheduledAt")
POSTS_BY_STATUS = Query("scheduledPosts", equal=("companyId", "status"), order="scheduledAt")
ACCOUNT_LETTERS = Query("deadLetters", equal=("accountId", "reason", "status"))

QUERIES = (
    TO_SWEEP,
    TO_PROMOTE,
    BY_REMOTE_ID,
    STALE_POSTS,
    POSTS,
    POSTS_BY_STATUS,
    ACCOUNT_LETTERS,
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
        built = built.order_by(query.order)
    return built.limit(limit)
