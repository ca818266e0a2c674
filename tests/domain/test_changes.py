from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.domain import changes
from shared.domain.changes import Correction
from shared.domain.dead_letters import LetterStatus
from shared.domain.deliveries import Committing, PublishLog, Status, letter
from shared.domain.schedules import Plan

NOW = datetime(2030, 1, 15, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
S = Status


def a_log(**fields: Any) -> PublishLog:
    about: dict[str, Any] = {
        "post_id": "p1",
        "company_id": "acme",
        "platform": "twitter",
        "account_id": "a1",
        "content": "Hello",
        "due_at": NOW,
        "latest_at": NOW + 24 * HOUR,
        "idempotency_key": "k",
        "created_at": NOW,
        "updated_at": NOW,
    }
    return PublishLog(**(about | fields))


@pytest.mark.parametrize("status", list(Status))
def test_what_an_owner_may_change_has_not_begun_or_waits(status: Status) -> None:
    assert changes.changeable(a_log(status=status)) is (status in {S.PENDING, S.RETRY, S.WAITING})


@pytest.mark.parametrize("status", [S.RETRY, S.WAITING])
def test_what_the_platform_has_taken_and_works_on_is_not_changed_any_more(status: Status) -> None:
    mark = Committing(at=NOW, send_by=NOW, owner="o", native_key="k", request_hash="h")

    assert not changes.changeable(a_log(status=status, committing=mark, unsettled_since=NOW))


@pytest.mark.parametrize("status", list(Status))
def test_only_a_known_failure_can_be_retried(status: Status) -> None:
    log = a_log(status=status)

    assert changes.retryable(log, accepts_risk=False) is (status in {S.FAILED, S.MISSED, S.PARTIAL})


def test_an_unknown_outcome_is_sent_again_only_at_a_persons_risk_and_at_rest() -> None:
    at_rest = a_log(status=S.UNKNOWN)
    looked_into = a_log(status=S.UNKNOWN, next_retry_at=NOW + HOUR)

    assert changes.retryable(at_rest, accepts_risk=True)
    assert not changes.retryable(looked_into, accepts_risk=True)


@pytest.mark.parametrize("status", [S.PENDING, S.RETRY, S.WAITING])
def test_cancelling_ends_a_delivery(status: Status) -> None:
    log = a_log(status=status, sweep_at=NOW, promote_at=NOW, next_retry_at=NOW, state={"id": "1"})

    after = changes.cancel(log, NOW).log

    assert after.status is S.CANCELLED
    assert (after.sweep_at, after.promote_at, after.next_retry_at) == (None, None, None)
    assert (after.state, after.version, after.is_open) == ({}, log.version + 1, False)


def an_unlooked_log(**fields: Any) -> PublishLog:
    """Unknown and at rest, since there was no token to look with."""
    about = {"status": S.UNKNOWN, "error_code": "auth_expired", "unsettled_since": NOW - HOUR}
    return a_log(**(about | {"lookups": 7} | fields))


def test_looking_again_is_one_more_round_of_looks_and_no_order_to_send() -> None:
    change = changes.look_again(an_unlooked_log(), NOW)

    assert change is not None
    assert change.wakes
    after = change.log
    assert (after.status, after.reconciling, after.is_open) == (S.UNKNOWN, True, True)
    assert (after.due_at, after.lookups, after.generation) == (NOW, 1, 1)


@pytest.mark.parametrize(
    "otherwise",
    [
        pytest.param({"error_code": "not_found"}, id="it was looked for"),
        pytest.param({"next_retry_at": NOW + HOUR}, id="it is being looked for"),
        pytest.param({"lookups": 0}, id="a person has ordered a second send since"),
        pytest.param({"latest_at": NOW}, id="too late"),
        pytest.param({"status": S.FAILED, "unsettled_since": None}, id="a failure"),
    ],
)
def test_what_is_at_rest_for_another_reason_is_not_looked_for_again(
    otherwise: dict[str, Any],
) -> None:
    assert changes.look_again(an_unlooked_log(**otherwise), NOW) is None


def test_cancelling_what_may_have_been_sent_leaves_it_unknown() -> None:
    log = a_log(status=S.WAITING, unsettled_since=NOW - HOUR)

    after = changes.cancel(log, NOW).log

    assert (after.status, after.is_open) == (S.UNKNOWN, False)
    assert after.error_code == "cancelled_after_unknown"


def test_an_edit_changes_what_it_names_and_drops_what_was_made_for_the_old_content() -> None:
    log = a_log(options={"replySettings": "following"}, state={"media": "1"})

    after = changes.edit(log, Correction(content="Better"), NOW).log

    assert (after.content, after.options) == ("Better", {"replySettings": "following"})
    assert after.state == {}
    assert (after.hop, after.generation, after.version) == (1, 1, 2)


def test_a_move_is_a_new_generation_that_starts_afresh() -> None:
    log = a_log(
        status=S.RETRY, hop=3, attempts_spent=3, sweep_hops=2, error_code="http_503", state={"a": 1}
    )
    wanted = Plan(NOW + HOUR, NOW + 9 * HOUR, ())

    change = changes.reschedule(log, wanted, NOW)

    after = change.log
    assert change.wakes
    assert (after.status, after.generation, after.hop) == (S.PENDING, 2, 4)
    assert (after.due_at, after.latest_at) == (NOW + HOUR, NOW + 9 * HOUR)
    assert (after.attempts_spent, after.sweep_hops, after.error_code, after.state) == (
        0,
        0,
        None,
        {},
    )
    assert after.wake().task_id != log.wake().task_id


def test_a_move_beyond_the_horizon_makes_no_task_yet() -> None:
    far = NOW + timedelta(days=400)

    change = changes.reschedule(a_log(), Plan(far, far + HOUR, ()), NOW)

    assert not change.wakes
    assert change.log.promote_at == far - timedelta(days=28)


def test_a_retry_redrives_its_dead_letter_in_the_same_commit() -> None:
    log = a_log(status=S.FAILED, error_code="http_422", attempts_spent=4)
    buried = letter(log, NOW)

    change = changes.retry(
        log, Correction(content="Better"), NOW + HOUR, latest_at=NOW + 25 * HOUR, letter=buried
    )

    assert change.wakes
    assert (change.log.status, change.log.generation) == (S.PENDING, 2)
    assert (change.log.content, change.log.attempts_spent) == ("Better", 0)
    assert change.log.due_at == NOW + HOUR
    assert change.letter is not None
    assert change.letter.status is LetterStatus.REDRIVEN
    assert change.letter.redriven_to == f"{log.id}-2"
    assert change.letter.generation == 1


def test_a_letter_that_was_discarded_stays_discarded() -> None:
    log = a_log(status=S.MISSED)
    discarded = letter(log, NOW).model_copy(update={"status": LetterStatus.DISCARDED})

    change = changes.retry(log, Correction(), NOW, latest_at=NOW + HOUR, letter=discarded)

    assert change.letter is None
