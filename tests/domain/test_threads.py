"""A thread goes out part by part: its log is about the part that comes next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.domain import changes, claims
from shared.domain.changes import Correction
from shared.domain.claims import InWork, Posted, Result
from shared.domain.deliveries import (
    Arrived,
    Attempt,
    Change,
    Committing,
    Part,
    PublishLog,
    Status,
    letter,
)
from shared.domain.failures import (
    AuthExpiredError,
    OutcomeUnknownError,
    PermanentError,
    ThrottledError,
    TransientError,
)

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
S = Status
FIRST, SECOND_PART, THIRD = (Part(content=text) for text in ("One", "Two", "Three"))


# --- while it runs --------------------------------------------------------------------------------


def test_the_mark_of_the_next_part_puts_the_one_before_on_record() -> None:
    log = a_running_log(
        committing=a_mark(), unsettled_since=NOW, state={"media": "1"}, attempts_spent=3
    )

    change = claims.mark(log, NOW + SECOND, owner="me", request_hash="h2", before=posted("1"))

    assert change is not None
    after = change.log
    assert after.remote_ids == ("1",)
    assert (after.remote_id, after.remote_url, after.published_at) == ("1", "https://x/1", NOW)
    assert after.committing == Committing(
        at=NOW + SECOND,
        send_by=NOW + 21 * SECOND,
        owner="me",
        part=1,
        native_key=after.native_key,
        request_hash="h2",
    )
    assert after.unsettled_since == NOW + SECOND  # of the second part: the first one is settled
    assert (after.state, after.attempts_spent, after.status) == ({}, 1, S.PROCESSING)
    assert not change.by_evidence


def test_a_mark_that_brings_nothing_follows_a_refusal_of_the_same_part() -> None:
    log = a_running_log(committing=a_mark(part=1), unsettled_since=NOW, parts=out("1"))

    change = claims.mark(log, NOW + SECOND, owner="me", request_hash="h")

    assert change is not None
    assert change.log.remote_ids == ("1",)
    assert change.log.committing is not None
    assert change.log.committing.part == 1
    assert change.log.unsettled_since == NOW + SECOND


def test_state_of_the_next_part_is_kept_with_the_part_before() -> None:
    log = a_running_log(committing=a_mark(), unsettled_since=NOW, state={"media": "1"})

    change = claims.keep(log, NOW, owner="me", state={"media": "2"}, before=posted("1"))

    assert change is not None
    after = change.log
    assert (after.remote_ids, after.state) == (("1",), {"media": "2"})
    assert (after.committing, after.unsettled_since) == (None, None)


def test_nothing_is_marked_or_kept_once_the_lease_has_run_out() -> None:
    log = a_running_log(committing=a_mark(), lease_ends_at=NOW)

    assert claims.mark(log, NOW, owner="me", request_hash="h", before=posted("1")) is None
    assert claims.keep(log, NOW, owner="me", state={}, before=posted("1")) is None


def test_each_part_has_a_key_of_its_own_be_its_words_the_same() -> None:
    log = a_log(content="La", thread=(Part(content="La"), Part(content="La")))
    alone = a_log(content="La")

    keys = [log.model_copy(update={"parts": out(*"123"[:n])}).native_key for n in range(3)]

    assert len(set(keys)) == 3
    assert keys[0] == alone.native_key


# --- what came of a part --------------------------------------------------------------------------

PARTS_OUT = [
    # result of the second of three                    is                               parts
    (Posted("2", None, NOW, found=False, raw=None), "accepted + task", ("1", "2")),
    (Posted("2", None, NOW, found=True, raw=None), "unknown: evidence_too_old", ("1",)),
    (InWork({"c": 1}, 10 * SECOND), "accepted + task", ("1",)),
    (TransientError("503", code="http_503"), "retry: http_503 + task", ("1",)),
    (ThrottledError("429", until=MINUTE), "waiting: throttled + task", ("1",)),
    (PermanentError("no", code="refused"), "partial: refused + letter", ("1",)),
    (AuthExpiredError("401", code="x"), "partial: auth_expired + letter", ("1",)),
    (OutcomeUnknownError("no", code="no_answer"), "unknown: no_answer", ("1",)),
]


@pytest.mark.parametrize(("result", "expected", "ids"), PARTS_OUT)
def test_every_result_of_a_part_leads_to_one_change(
    result: Result, expected: str, ids: tuple[str, ...]
) -> None:
    change = settle(a_running_log(parts=out("1")), result)

    assert (shown(change), change.log.remote_ids) == (expected, ids)
    assert change.log.remote_id == "1"


def test_the_last_part_is_the_end() -> None:
    change = settle(a_running_log(parts=out("1", "2"), attempts_spent=2), posted("3"))

    assert shown(change) == "success"
    assert change.log.remote_ids == ("1", "2", "3")
    assert (change.log.remote_id, change.log.remote_url) == ("1", "https://x/1")
    assert change.log.attempts_spent == 2


def test_a_part_that_is_there_lets_a_task_go_on_at_once_with_all_its_attempts() -> None:
    log = a_running_log(parts=out("1"), attempts_spent=4, state={"media": "2"}, lookups=2)

    after = settle(log, posted("2")).log

    assert (after.status, after.due_at, after.hop) == (S.ACCEPTED, NOW, log.hop + 1)
    assert (after.attempts_spent, after.state, after.lookups) == (0, {}, 0)
    assert (after.committing, after.unsettled_since, after.owner) == (None, None, None)


def test_a_part_that_was_found_goes_on_record_by_evidence() -> None:
    log = a_running_log(parts=out("1"), committing=a_mark(part=1), unsettled_since=NOW, lookups=1)

    change = settle(log, posted("2", found=True))

    assert shown(change) == "accepted by evidence + task"
    assert change.log.remote_ids == ("1", "2")


def test_a_part_is_no_evidence_of_another_one() -> None:
    log = a_running_log(parts=out("1"), committing=a_mark(part=1), unsettled_since=NOW, lookups=1)

    change = settle(log, posted("1", found=True))

    assert shown(change) == "unknown: evidence_taken"
    assert change.log.remote_ids == ("1",)


def test_a_part_that_is_on_record_already_is_not_put_there_twice() -> None:
    """The mark of the second part landed, its answer was lost, and so nothing was sent by it."""
    log = a_running_log(parts=out("1"), committing=a_mark(part=1), unsettled_since=NOW)

    change = settle(log, posted("1"))

    assert shown(change) == "accepted + task"
    assert change.log.remote_ids == ("1",)
    assert (change.log.committing, change.log.unsettled_since) == (None, None)


def test_an_unknown_part_stays_unknown_whatever_else_is_refused() -> None:
    mark = a_mark(part=1).model_copy(update={"owner": "another"})
    log = a_running_log(parts=out("1"), committing=mark, unsettled_since=NOW - MINUTE)

    assert shown(settle(log, PermanentError("no", code="refused"))) == "unknown: refused"


@pytest.mark.parametrize(
    ("result", "parts", "expected"),
    [
        (PermanentError("no", code="refused"), ("1",), "partial: refused + letter"),
        (PermanentError("no", code="refused"), (), "failed: refused + letter"),
    ],
)
def test_a_late_refusal_ends_what_it_is_about(
    result: Result, parts: tuple[str, ...], expected: str
) -> None:
    log = unknown_log(*parts)

    change = claims.late_answer(log, result, now=NOW, owner="me")

    assert change is not None
    assert shown(change) == expected


def test_a_late_answer_of_a_part_goes_on_with_the_next_one() -> None:
    log = unknown_log("1")

    change = claims.late_answer(log, posted("2"), now=NOW, owner="me")

    assert change is not None
    assert (shown(change), change.log.remote_ids) == ("accepted + task", ("1", "2"))


def test_a_late_answer_that_is_on_record_changes_nothing() -> None:
    assert claims.late_answer(unknown_log("1"), posted("1"), now=NOW, owner="me") is None


@pytest.mark.parametrize("status", [S.PENDING, S.RETRY, S.WAITING, S.ACCEPTED])
def test_too_late_for_the_rest_is_partial(status: Status) -> None:
    log = a_log(status=status, parts=out("1"), latest_at=NOW, sweep_at=NOW)
    seen = claims.Seen(log, None, claims.Controls())

    change = claims.sweep(seen, now=NOW, looks=True)

    assert change is not None
    assert shown(change) == "partial: missed + letter"
    assert change.letter is not None
    assert [part["remoteId"] for part in change.letter.evidence["parts"]] == ["1"]


# --- what its owner may do ------------------------------------------------------------------------


@pytest.mark.parametrize("status", [S.PENDING, S.RETRY, S.WAITING])
def test_what_is_partly_out_cannot_be_cancelled_edited_or_moved(status: Status) -> None:
    assert not changes.changeable(a_log(status=status, parts=out("1")))


def test_a_retry_goes_on_after_the_last_part_that_is_there() -> None:
    log = a_log(status=S.PARTIAL, parts=out("1"), state={"media": "2"})

    change = changes.retry(log, Correction(), NOW, latest_at=NOW + HOUR, letter=letter(log, NOW))

    after = change.log
    assert (after.status, after.generation, after.part) == (S.PENDING, 2, 1)
    assert (after.remote_ids, after.remote_id, after.state) == (("1",), "1", {})
    assert after.wanted == (FIRST, SECOND_PART, THIRD)


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        ((), (FIRST, Part(content="New"))),
        (("1",), (FIRST, Part(content="New"))),
        (("1", "2"), (FIRST, SECOND_PART, Part(content="New"))),
    ],
)
def test_a_correction_is_about_the_missing_parts(
    parts: tuple[str, ...], wanted: tuple[Part, ...]
) -> None:
    log = a_log(status=S.PARTIAL if parts else S.FAILED, parts=out(*parts))
    correction = Correction(thread=(Part(content="New"),))

    change = changes.retry(log, correction, NOW, latest_at=NOW + HOUR, letter=None)

    assert change.log.wanted == wanted


@pytest.mark.parametrize(
    ("correction", "rewrites"),
    [
        (Correction(content="Else"), True),
        (Correction(media=()), True),
        (Correction(thread=()), True),
        (Correction(thread=(Part(content="New"),)), False),
        (Correction(options={"sensitive": True}), False),
        (Correction(), False),
    ],
)
def test_what_is_published_cannot_be_rewritten(correction: Correction, rewrites: bool) -> None:
    assert correction.rewrites(a_log(parts=out("1"))) is rewrites
    assert not correction.rewrites(a_log())


def test_a_person_who_finds_a_part_lets_the_thread_go_on() -> None:
    change = changes.found(unknown_log("1"), NOW, remote_id="2", remote_url=None, published_at=None)

    assert shown(change) == "accepted by evidence + task"
    assert change.log.remote_ids == ("1", "2")


# --- making them ----------------------------------------------------------------------------------


def a_log(**fields: Any) -> PublishLog:
    about: dict[str, Any] = {
        "post_id": "p1",
        "company_id": "acme",
        "platform": "twitter",
        "account_id": "a1",
        "content": "One",
        "thread": (SECOND_PART, THIRD),
        "due_at": NOW,
        "latest_at": NOW + 24 * HOUR,
        "idempotency_key": "k",
        "created_at": NOW,
        "updated_at": NOW,
    }
    if fields.get("parts"):
        about["remote_id"] = fields["parts"][0].remote_id
    return PublishLog(**(about | fields))


def a_running_log(**fields: Any) -> PublishLog:
    attempt = Attempt(
        number=1, generation=1, hop=1, owner="me", started_at=NOW - SECOND, lateness_ms=0
    )
    about: dict[str, Any] = {
        "status": S.PROCESSING,
        "owner": "me",
        "lease_ends_at": NOW + MINUTE,
        "attempts": (attempt,),
        "attempts_spent": 1,
    }
    return a_log(**(about | fields))


def unknown_log(*parts: str) -> PublishLog:
    """The mark of its next part was never answered, as far as anybody knows."""
    mark = a_mark(part=len(parts))
    return a_log(status=S.UNKNOWN, parts=out(*parts), committing=mark, unsettled_since=mark.at)


def a_mark(part: int = 0) -> Committing:
    return Committing(
        at=NOW,
        send_by=NOW + 20 * SECOND,
        owner="me",
        part=part,
        native_key="k",
        request_hash="h",
    )


def out(*ids: str) -> tuple[Arrived, ...]:
    return tuple(
        Arrived(remote_id=one, remote_url=f"https://x/{one}", published_at=NOW) for one in ids
    )


def posted(remote_id: str, *, found: bool = False) -> Posted:
    return Posted(remote_id, f"https://x/{remote_id}", NOW, found=found, raw=None)


def settle(log: PublishLog, result: Result) -> Change:
    return claims.settle(log, result, now=NOW, jitter=0.5, looks=False)


def shown(change: Change) -> str:
    """`status: code + letter + task`, as far as there are."""
    code = f": {change.log.error_code}" if change.log.error_code else ""
    by = " by evidence" if change.by_evidence else ""
    buried = " + letter" if change.letter else ""
    task = " + task" if change.wakes else ""
    return f"{change.log.status}{code}{by}{buried}{task}"
