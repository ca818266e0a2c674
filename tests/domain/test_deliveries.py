"""Every change of a log's status goes through `NEXT`; an illegal one raises and changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.domain import deliveries, posts
from shared.domain.dead_letters import LetterStatus
from shared.domain.deliveries import NEXT, IllegalMoveError, PublishLog, Status

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
S = Status

# What must never be possible, whatever else the table learns.
FORBIDDEN = [
    (S.SUCCESS, S.PENDING),
    (S.SUCCESS, S.PROCESSING),
    (S.SUCCESS, S.UNKNOWN),
    (S.SUCCESS, S.FAILED),
    (S.CANCELLED, S.PENDING),
    (S.CANCELLED, S.PROCESSING),
    (S.PROCESSING, S.PENDING),
    (S.PROCESSING, S.CANCELLED),
    (S.ACCEPTED, S.CANCELLED),
    (S.ACCEPTED, S.SUCCESS),
    (S.UNKNOWN, S.CANCELLED),
    (S.UNKNOWN, S.RETRY),
    (S.UNKNOWN, S.MISSED),
    (S.PENDING, S.SUCCESS),
    (S.RETRY, S.SUCCESS),
    (S.FAILED, S.SUCCESS),
    (S.FAILED, S.PROCESSING),
    (S.MISSED, S.PROCESSING),
]
PAIRS = [(before, after) for before in Status for after in Status]
ENDS = {S.SUCCESS, S.PARTIAL, S.FAILED, S.CANCELLED, S.MISSED}


@pytest.mark.parametrize(("before", "after"), FORBIDDEN)
def test_the_table_forbids(before: Status, after: Status) -> None:
    assert after not in NEXT[before]


@pytest.mark.parametrize(
    ("before", "after"),
    [pair for pair in PAIRS if pair[1] not in NEXT[pair[0]] and pair[0] is not pair[1]],
)
def test_an_illegal_move_raises_and_changes_nothing(before: Status, after: Status) -> None:
    log = a_log(status=before)
    copy = log.model_copy(deep=True)

    with pytest.raises(IllegalMoveError, match=f"{before} cannot become {after}"):
        deliveries.evolve(log, NOW, status=after, error_code="x")

    assert log == copy


@pytest.mark.parametrize(("before", "after"), [pair for pair in PAIRS if pair[1] in NEXT[pair[0]]])
def test_a_legal_move_makes_a_new_version(before: Status, after: Status) -> None:
    log = a_log(status=before, version=4)

    moved = deliveries.evolve(log, NOW + timedelta(seconds=1), status=after)

    assert (moved.status, moved.version) == (after, 5)
    assert moved.updated_at == NOW + timedelta(seconds=1)
    assert (log.status, log.version) == (before, 4)


@pytest.mark.parametrize("status", sorted(ENDS))
def test_what_has_ended_is_not_even_written_again(status: Status) -> None:
    with pytest.raises(IllegalMoveError):
        deliveries.evolve(a_log(status=status), NOW, error_message="once more")


@pytest.mark.parametrize(
    ("status", "next_retry_at", "is_open"),
    [
        (S.PENDING, None, True),
        (S.PROCESSING, None, True),
        (S.RETRY, NOW, True),
        (S.WAITING, NOW, True),
        (S.ACCEPTED, NOW, True),
        (S.UNKNOWN, NOW, True),  # a look into it is planned
        (S.UNKNOWN, None, False),  # a person's turn
        (S.SUCCESS, None, False),
        (S.PARTIAL, None, False),
        (S.FAILED, None, False),
        (S.CANCELLED, None, False),
        (S.MISSED, None, False),
    ],
)
def test_open_is_what_something_may_still_happen_to_by_itself(
    status: Status, next_retry_at: datetime | None, is_open: bool
) -> None:
    assert a_log(status=status, next_retry_at=next_retry_at).is_open is is_open


def test_an_end_without_success_has_a_dead_letter_with_its_evidence() -> None:
    log = a_log(status=S.PROCESSING, generation=2, raw_response="what it said")

    change = deliveries.bury(log, NOW, S.FAILED, code="refused", message="Not like this.")

    letter = change.letter
    assert letter is not None
    assert (change.log.status, change.log.sweep_at, change.log.owner) == (S.FAILED, None, None)
    assert (letter.status, letter.reason, letter.message) == (
        LetterStatus.OPEN,
        "refused",
        "Not like this.",
    )
    assert (letter.delivery_id, letter.generation) == (log.id, 2)
    assert letter.payload["scheduledPostId"] == "p1"
    assert letter.evidence["rawResponse"] == "what it said"


def test_an_end_after_a_call_that_was_never_settled_is_unknown_without_a_dead_letter() -> None:
    log = a_log(status=S.PROCESSING, unsettled_since=NOW - timedelta(minutes=1))

    change = deliveries.bury(log, NOW, S.FAILED, code="refused", message="Not like this.")

    assert (change.log.status, change.log.error_code) == (S.UNKNOWN, "refused")
    assert change.letter is None
    assert not change.log.is_open


def test_a_hop_is_due_at_latest_at_at_the_latest_and_has_a_task_of_its_own() -> None:
    log = a_log(status=S.PROCESSING, latest_at=NOW + timedelta(hours=1))

    hop = deliveries.hop_to(log, NOW, NOW + timedelta(hours=5), status=S.WAITING)

    assert (hop.due_at, hop.hop) == (NOW + timedelta(hours=1), 2)
    assert hop.wake().at == hop.due_at
    assert hop.wake().task_id != log.wake().task_id


def test_the_native_key_belongs_to_the_content() -> None:
    log = a_log()

    same, edited = log.model_copy(update={"hop": 9}), log.model_copy(update={"content": "Hi"})

    assert same.native_key == log.native_key
    assert edited.native_key != log.native_key


@pytest.mark.parametrize(
    ("before", "after", "shown", "opened"),
    [
        (S.PENDING, S.PROCESSING, False, 0),
        (S.PROCESSING, S.SUCCESS, True, -1),
        (S.PROCESSING, S.RETRY, True, 0),
        (S.FAILED, S.PENDING, True, 1),
        (S.UNKNOWN, S.SUCCESS, True, 0),
    ],
)
def test_a_post_hears_of_moves_but_not_of_claims(
    before: Status, after: Status, shown: bool, opened: int
) -> None:
    log, moved = a_log(status=before), a_log(status=after)

    assert posts.shows(log, moved) is shown
    assert posts.opened(log, moved) == opened


def a_log(**fields: Any) -> PublishLog:
    base: dict[str, Any] = {
        "post_id": "p1",
        "company_id": "acme",
        "platform": "twitter",
        "account_id": "a1",
        "content": "Hello",
        "due_at": NOW,
        "latest_at": NOW + timedelta(hours=24),
        "idempotency_key": "publish-p1",
        "created_at": NOW,
        "updated_at": NOW,
    }
    return PublishLog(**(base | fields))
