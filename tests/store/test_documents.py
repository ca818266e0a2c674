"""Documents as the wire takes them, held against what Google's client makes of the same values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import firestore

from shared.domain.deliveries import PublishLog, Status
from shared.domain.posts import Result, ScheduledPost, Target
from shared.store.documents import Batch

NOON = datetime(2027, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
CLIENT = firestore.Client(project="p", credentials=AnonymousCredentials())
POST = ScheduledPost(
    company_id="acme",
    user_id="user-1",
    content="Grüße 👋",
    scheduled_at=NOON,
    latest_at=NOON,
    platforms=(Target(platform="x", account_id="a", options={"deep": [{"er": [1, 2.5]}]}),),
    results={
        "d.1/`2": Result(platform="x", account_id="a", status=Status.PENDING, is_open=True),
    },
    open=1,
    idempotency_key="k",
    created_at=NOON,
    updated_at=NOON,
)
LOG = PublishLog(
    post_id="p1",
    company_id="acme",
    platform="x",
    account_id="a",
    content="",
    due_at=NOON,
    latest_at=NOON,
    idempotency_key="k",
    created_at=NOON,
    updated_at=NOON,
)


@pytest.mark.parametrize(
    "data",
    [
        POST.document(),
        LOG.document(),
        {},
        {"none": None, "true": True, "zero": 0, "most": 2**63 - 1, "least": -(2**63)},
        {"half": 0.5, "endless": float("inf"), "text": "", "long": "x" * 1000},
        {"empty": {}, "nothing": [], "in": {"in": {"in": {}}}, "pair": ("a", {"b": ()})},
        {
            "east": NOON.astimezone(timezone(timedelta(hours=9))),
            "old": datetime(1, 1, 1, tzinfo=UTC),
        },
        {"a.b": 1, "__c__": 2, "d e": {"f.g": 3}},
    ],
)
@pytest.mark.parametrize("create", [True, False])
def test_a_document_is_the_one_that_the_client_would_send(
    data: dict[str, Any], create: bool
) -> None:
    ref = CLIENT.document("things", "one")
    ours, theirs = Batch(CLIENT), CLIENT.batch()

    ours.add(ref, data, create=create)
    theirs.create(ref, data) if create else theirs.set(ref, data)

    assert ours._write_pbs == theirs._write_pbs


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object(), firestore.SERVER_TIMESTAMP])
def test_a_value_that_no_record_holds_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        Batch(CLIENT).add(CLIENT.document("things", "one"), {"value": value}, create=True)


def test_a_number_that_the_database_has_no_room_for_is_refused() -> None:
    with pytest.raises(ValueError, match="out of range"):
        Batch(CLIENT).add(CLIENT.document("things", "one"), {"big": 2**63}, create=True)
