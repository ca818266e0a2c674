"""The life of a delivery, as decisions: what was read, what is to be written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.domain import claims, keys
from shared.domain.accounts import AccountStatus, RefreshRefusal, SocialAccount
from shared.domain.claims import (
    Begun,
    Busy,
    Decision,
    Early,
    InWork,
    Knock,
    Moved,
    Posted,
    Replay,
    Result,
    Seen,
    Void,
)
from shared.domain.controls import Controls, Pause
from shared.domain.deliveries import Attempt, Change, Committing, PublishLog, Status
from shared.domain.failures import (
    AuthExpiredError,
    DuplicateError,
    OutcomeUnknownError,
    PermanentError,
    ThrottledError,
    TransientError,
)

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
S = Status


# --- a task arrives -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        ({}, "begun"),
        ({"due_at": NOW + 2 * SECOND}, "begun"),  # 2 s ahead of its time is on time
        ({"due_at": NOW + 3 * SECOND}, "early"),
        ({"status": S.RETRY}, "begun"),
        ({"status": S.RETRY, "due_at": NOW + 5 * SECOND}, "early"),
        ({"status": S.WAITING}, "begun"),
        ({"status": S.ACCEPTED}, "begun"),
        ({"status": S.UNKNOWN, "next_retry_at": NOW}, "begun"),
        ({"status": S.UNKNOWN}, "replay"),
        ({"status": S.SUCCESS}, "replay"),
        ({"status": S.FAILED}, "replay"),
        ({"status": S.PARTIAL}, "replay"),
        ({"status": S.MISSED}, "replay"),
        ({"status": S.CANCELLED}, "void"),
        ({"generation": 2}, "void"),
        ({"generation": 2, "status": S.PROCESSING}, "void"),
        ({"status": S.PROCESSING, "lease_ends_at": NOW + SECOND}, "busy"),
        ({"status": S.PROCESSING, "lease_ends_at": NOW}, "begun"),
        ({"latest_at": NOW + SECOND}, "begun"),
        ({"latest_at": NOW}, "missed: missed + letter"),
        ({"latest_at": NOW, "status": S.RETRY}, "missed: missed + letter"),
        (
            {"latest_at": NOW, "status": S.PROCESSING, "lease_ends_at": NOW},
            "missed: missed + letter",
        ),
        ({"latest_at": NOW, "status": S.RETRY, "unsettled_since": NOW}, "unknown: missed"),
        ({"attempts_spent": 3}, "begun"),
        ({"attempts_spent": 4}, "failed: attempts_exhausted + letter"),
    ],
)
def test_a_task_is_a_wake_up_and_the_record_decides(read: dict[str, Any], expected: str) -> None:
    assert told(begin(a_log(**read), Knock(generation=1))) == expected


@pytest.mark.parametrize(
    ("account", "expected"),
    [
        ({}, "begun"),
        ({"status": AccountStatus.DISABLED}, "failed: account_disconnected + letter"),
        ({"status": AccountStatus.EXPIRED}, "failed: auth_expired + letter"),
        ({"paused_until": NOW + SECOND}, "waiting: throttled + task"),
        ({"paused_until": NOW}, "begun"),
        # Its refresh was refused: the end only one lock length later, for the same version.
        ({"refused_at": NOW - 30 * SECOND}, "failed: auth_expired + letter"),
        ({"refused_at": NOW - 29 * SECOND}, "begun"),
        ({"refused_at": NOW - MINUTE, "token_version": 2}, "begun"),
    ],
)
def test_an_account_may_hold_its_deliveries_back(account: dict[str, Any], expected: str) -> None:
    assert told(begin(a_log(), account=an_account(**account))) == expected


def test_an_account_that_is_gone_fails_its_deliveries() -> None:
    seen = Seen(a_log(), None, Controls())

    decision = claims.begin(seen, Knock(), now=NOW, owner="me", looks=False)

    assert told(decision) == "failed: account_disconnected + letter"


@pytest.mark.parametrize(
    ("controls", "expected"),
    [
        ({"pauses": {"x": ("platform", "twitter", None)}}, "waiting: paused"),
        ({"pauses": {"x": ("account", "a1", None)}}, "waiting: paused"),
        ({"pauses": {"x": ("company", "acme", None)}}, "waiting: paused"),
        ({"pauses": {"x": ("queue", "publish-twitter", None)}}, "waiting: paused"),
        ({"pauses": {"x": ("platform", "twitter", NOW + SECOND)}}, "waiting: paused"),
        ({"pauses": {"x": ("platform", "twitter", NOW)}}, "begun"),
        ({"pauses": {"x": ("platform", "linkedin", None)}}, "begun"),
        ({"throttled": {"twitter": NOW + SECOND}}, "waiting: throttled + task"),
        ({"throttled": {"linkedin": NOW + SECOND}}, "begun"),
    ],
)
def test_a_pause_or_the_whole_apps_limit_holds_what_it_names(
    controls: dict[str, Any], expected: str
) -> None:
    assert told(begin(a_log(), controls=some_controls(**controls))) == expected


def test_a_claim_is_a_fresh_owner_a_lease_a_higher_token_and_an_attempt_on_record() -> None:
    log = a_log(fencing_token=6, attempts_spent=1, due_at=NOW - 5 * SECOND, hop=3)

    decision = begin(log, owner="me")

    assert isinstance(decision, Begun)
    claimed = decision.change.log
    assert (claimed.status, claimed.owner, claimed.fencing_token) == (S.PROCESSING, "me", 7)
    assert claimed.lease_ends_at == NOW + 60 * SECOND
    assert claimed.attempts_spent == 2
    attempt = claimed.attempts[-1]
    assert (attempt.number, attempt.hop, attempt.lateness_ms) == (2, 3, 5000)
    assert attempt.outcome is None


def test_a_lease_that_ran_out_with_a_committing_mark_is_unknown() -> None:
    log = a_running_log(lease_ends_at=NOW, committing=a_mark())

    decision = begin(log)

    assert told(decision) == "unknown: attempt_lost"
    assert isinstance(decision, Moved)
    assert not decision.change.log.is_open
    assert decision.change.log.attempts[-1].outcome == "crashed"


def test_where_repeating_is_safe_such_an_unknown_is_looked_into_by_itself() -> None:
    log = a_running_log(lease_ends_at=NOW, committing=a_mark(), unsettled_since=NOW - MINUTE)

    decision = begin(log, looks=True)

    assert told(decision) == "unknown: attempt_lost + task"
    assert isinstance(decision, Moved)
    assert decision.change.log.due_at == NOW + 30 * SECOND
    assert decision.change.log.lookups == 1


def test_a_crash_is_an_attempt() -> None:
    log = a_running_log(lease_ends_at=NOW, attempts_spent=1)

    decision = begin(log)

    assert isinstance(decision, Begun)
    assert [a.outcome for a in decision.change.log.attempts] == ["crashed", None]
    assert decision.change.log.attempts_spent == 2


def test_an_early_task_that_is_the_one_on_record_gets_a_successor_and_no_other_does() -> None:
    log = a_log(due_at=NOW + timedelta(hours=1), hop=2)
    own, stale = (keys.task_id(log.id, 1, hop) for hop in (2, 1))

    decision = begin(log, Knock(task_id=own))

    assert isinstance(decision, Moved)
    assert decision.change.wakes
    assert (decision.change.log.hop, decision.change.log.due_at) == (3, log.due_at)
    assert decision.change.log.status is S.PENDING
    assert isinstance(begin(log, Knock(task_id=stale)), Early)


# --- the committing mark, and state ---------------------------------------------------------------


def test_the_mark_carries_what_a_repeat_needs_and_a_time_to_send_by() -> None:
    log = a_running_log()

    change = claims.mark(log, NOW, owner="me", request_hash="h")

    assert change is not None
    assert change.log.committing == Committing(
        at=NOW,
        send_by=NOW + 20 * SECOND,
        owner="me",
        native_key=log.native_key,
        request_hash="h",
    )
    assert change.log.unsettled_since == NOW


def test_the_time_to_send_by_never_outlasts_the_lease() -> None:
    log = a_running_log(lease_ends_at=NOW + 5 * SECOND)

    change = claims.mark(log, NOW, owner="me", request_hash="h")

    assert change is not None
    assert change.log.committing is not None
    assert change.log.committing.send_by == NOW + 5 * SECOND


@pytest.mark.parametrize(
    "log",
    [
        pytest.param({"owner": "another"}, id="taken over"),
        pytest.param({"owner": None}, id="given up"),
        pytest.param({"lease_ends_at": NOW}, id="run out"),
        pytest.param({"lease_ends_at": None}, id="no lease"),
    ],
)
def test_without_its_lease_an_attempt_neither_marks_nor_keeps(log: dict[str, Any]) -> None:
    held = a_running_log(**log)

    assert claims.mark(held, NOW, owner="me", request_hash="h") is None
    assert claims.keep(held, NOW, owner="me", state={"container": "1"}) is None


def test_a_second_mark_of_an_attempt_forgets_the_first_which_was_refused() -> None:
    log = a_running_log(committing=a_mark(at=NOW - SECOND), unsettled_since=NOW - SECOND)

    change = claims.mark(log, NOW, owner="me", request_hash="h")

    assert change is not None
    assert change.log.unsettled_since == NOW


def test_a_mark_does_not_forget_an_earlier_attempts_call() -> None:
    earlier = a_mark(owner="another", at=NOW - MINUTE)
    log = a_running_log(committing=earlier, unsettled_since=NOW - MINUTE)

    change = claims.mark(log, NOW, owner="me", request_hash="h")

    assert change is not None
    assert change.log.unsettled_since == NOW - MINUTE


# --- what came of it ------------------------------------------------------------------------------

FOUND = Posted("42", None, NOW, found=True, raw=None)
TAKEN = OutcomeUnknownError("no answer", code="no_answer")
OURS = NOW - 5 * SECOND  # when the earlier call was sent

# `fresh`: the outcome of this attempt alone. `unsettled`: an earlier call may have made the post.
SETTLED = [
    # result                                          fresh                        unsettled
    (Posted("42", "u", NOW, False, "raw"), "success", "success"),
    (FOUND, "unknown: evidence_too_old", "success by evidence"),
    (InWork({"c": 1}, 10 * SECOND), "accepted + task", "unknown + task"),
    (TransientError("503", code="http_503"), "retry: http_503 + task", "unknown: http_503"),
    (ThrottledError("429", until=MINUTE), "waiting: throttled + task", "unknown: throttled + task"),
    (PermanentError("no", code="refused"), "failed: refused + letter", "unknown: refused"),
    (
        PermanentError("no", code="spoilt").but_absent(),
        "failed: spoilt + letter",
        "failed: spoilt + letter",
    ),
    (
        AuthExpiredError("401", code="token_refused"),
        "failed: auth_expired + letter",
        "unknown: auth_expired",
    ),
    (
        DuplicateError("a copy", remote_id="42", published_at=NOW),
        "failed: duplicate + letter",
        "success by evidence",
    ),
    (TAKEN, "unknown: no_answer", "unknown: no_answer"),
]


@pytest.mark.parametrize(("result", "fresh", "unsettled"), SETTLED)
def test_every_result_leads_to_one_change(result: Result, fresh: str, unsettled: str) -> None:
    new = a_running_log()
    mark = a_mark(owner="another", at=OURS)
    old = a_running_log(committing=mark, unsettled_since=OURS, lookups=1)

    assert shown(settle(new, result)) == fresh
    assert shown(settle(old, result)) == unsettled


def test_a_refusal_of_the_committing_call_leaves_nothing_unsettled() -> None:
    log = a_running_log(committing=a_mark(), unsettled_since=NOW)

    change = settle(log, TransientError("409", code="http_409"))

    assert shown(change) == "retry: http_409 + task"
    assert (change.log.committing, change.log.unsettled_since) == (None, None)


def test_the_last_of_four_transient_failures_is_a_failure() -> None:
    third, fourth = a_running_log(attempts_spent=3), a_running_log(attempts_spent=4)
    failure = TransientError("500", code="http_500")

    assert shown(settle(third, failure)) == "retry: http_500 + task"
    assert shown(settle(fourth, failure)) == "failed: http_500 + letter"


def test_what_the_platform_works_on_is_looked_for_when_it_cannot_be_asked() -> None:
    accepted = {"committing": a_mark(owner="another", at=OURS), "unsettled_since": OURS}
    log = a_running_log(attempts_spent=4, **accepted)

    down = TransientError("down", code="http_503", status=503)
    change = claims.settle(log, down, now=NOW, jitter=0, looks=True)

    assert (change.log.status, change.log.lookups) == (S.UNKNOWN, 1)
    assert (change.log.is_open, change.wakes, change.letter) == (True, True, None)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"published_at": OURS - 60 * SECOND}, "success by evidence"),
        ({"published_at": OURS - 61 * SECOND}, "unknown: evidence_too_old"),
        ({"published_at": None}, "success by evidence"),
        ({"taken": True}, "unknown: evidence_taken"),
    ],
)
def test_a_found_post_counts_if_it_is_not_older_than_our_call_and_nobody_elses(
    found: dict[str, Any], expected: str
) -> None:
    log = a_running_log(committing=a_mark(owner="another", at=OURS), unsettled_since=OURS)
    taken = found.pop("taken", False)
    post = Posted("42", None, found.get("published_at", NOW), found=True, raw=None)

    change = claims.settle(log, post, now=NOW, jitter=0, looks=False, taken=taken)

    assert shown(change) == expected


@pytest.mark.parametrize(
    ("until", "scope", "account", "platform"),
    [
        (NOW + MINUTE, "account", MINUTE, None),
        (MINUTE, "account", MINUTE, None),
        (None, "account", MINUTE, None),  # where the platform does not say
        (timedelta(days=9), "account", timedelta(hours=24), None),
        (MINUTE, "platform", None, MINUTE),
    ],
)
def test_a_throttle_pauses_its_scope_for_a_day_at_most_and_spends_no_attempt(
    until: Any, scope: Any, account: timedelta | None, platform: timedelta | None
) -> None:
    log = a_running_log(attempts_spent=1, latest_at=NOW + timedelta(days=30))

    change = settle(log, ThrottledError("429", until=until, scope=scope))

    assert change.pause_account == (ms(NOW + account) if account else None)
    assert change.pause_platform == (ms(NOW + platform) if platform else None)
    assert change.log.due_at == NOW + (account or platform or MINUTE)
    assert change.log.attempts_spent == 0


def test_a_wait_ends_at_latest_at() -> None:
    log = a_running_log(latest_at=NOW + MINUTE)

    change = settle(log, ThrottledError("429", until=timedelta(hours=1)))

    assert change.log.due_at == NOW + MINUTE


def test_a_snooze_spends_no_attempt_and_forgets_a_refused_mark() -> None:
    log = a_running_log(attempts_spent=2, committing=a_mark(), unsettled_since=NOW)

    change = claims.snooze(log, NOW, NOW + 3 * SECOND, code="token_refreshing")

    assert shown(change) == "waiting: token_refreshing + task"
    assert change.log.attempts_spent == 1
    assert change.log.attempts[-1].outcome == "snoozed"


def test_what_the_platform_has_accepted_stays_accepted_while_it_waits() -> None:
    """Its owner may change what waits or is tried again; this would then be posted twice."""
    accepted = {"committing": a_mark(owner="an earlier attempt"), "unsettled_since": NOW}
    log, running = a_log(status=S.ACCEPTED, **accepted), a_running_log(**accepted)
    pause = some_controls(pauses={"p": ("platform", log.platform, None)})

    waits = [
        told(begin(log, account=an_account(paused_until=NOW + SECOND))),
        told(begin(log, controls=pause)),
        shown(settle(running, ThrottledError("429", until=MINUTE))),
        shown(settle(running, TransientError("503", code="http_503"))),
        shown(claims.snooze(running, NOW, NOW + MINUTE, code="token_refreshing")),
    ]

    assert waits == [
        "accepted: throttled + task",
        "accepted: paused",
        "accepted: throttled + task",
        "accepted: http_503 + task",
        "accepted: token_refreshing + task",
    ]


# --- a late answer --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "owner", "expected"),
    [
        (Posted("42", None, NOW, False, None), "me", "success"),
        (PermanentError("no", code="refused"), "me", "failed: refused + letter"),
        (FOUND, "me", None),  # a lookup's word, not the platform's answer
        (TransientError("503", code="http_503"), "me", None),
        (TAKEN, "me", None),
        (InWork({}, SECOND), "me", None),
        (Posted("42", None, NOW, False, None), "another", None),
    ],
)
def test_only_the_owner_of_the_mark_may_turn_unknown_into_success_or_failed(
    result: Result, owner: str, expected: str | None
) -> None:
    log = a_log(status=S.UNKNOWN, committing=a_mark(at=OURS), unsettled_since=OURS)

    change = claims.late_answer(log, result, now=NOW, owner=owner)

    assert (shown(change) if change else None) == expected


@pytest.mark.parametrize("status", [S.PROCESSING, S.PENDING, S.SUCCESS, S.FAILED, S.WAITING])
def test_a_late_answer_changes_nothing_but_an_unknown(status: Status) -> None:
    log = a_log(status=status, committing=a_mark(), unsettled_since=NOW)

    answer = Posted("42", None, NOW, False, None)

    assert claims.late_answer(log, answer, now=NOW, owner="me") is None


def test_a_late_refusal_says_nothing_of_an_earlier_call() -> None:
    log = a_log(status=S.UNKNOWN, committing=a_mark(at=NOW), unsettled_since=NOW - MINUTE)

    refusal = PermanentError("no", code="refused")

    assert claims.late_answer(log, refusal, now=NOW, owner="me") is None


# --- what nobody woke -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        ({}, "pending + task"),
        ({"sweep_at": NOW + SECOND}, None),
        ({"sweep_at": None}, None),
        ({"status": S.SUCCESS}, None),
        ({"status": S.UNKNOWN}, None),
        ({"status": S.UNKNOWN, "next_retry_at": NOW, "unsettled_since": NOW}, "unknown + task"),
        ({"status": S.RETRY}, "retry + task"),
        ({"status": S.ACCEPTED}, "accepted + task"),
        ({"status": S.PROCESSING, "lease_ends_at": NOW + SECOND}, None),
        ({"status": S.PROCESSING, "lease_ends_at": NOW}, "retry + task"),
        ({"latest_at": NOW}, "missed: missed + letter"),
        ({"sweep_hops": 4}, "pending + task"),
        ({"sweep_hops": 5}, "failed: cannot_start + letter"),
        ({"attempts_spent": 4, "status": S.RETRY}, "failed: attempts_exhausted + letter"),
    ],
)
def test_the_sweep_makes_a_new_hop_or_an_end(read: dict[str, Any], expected: str | None) -> None:
    log = a_log(**({"sweep_at": NOW} | read))

    change = claims.sweep(Seen(log, an_account(), Controls()), now=NOW, looks=False)

    assert (shown(change) if change else None) == expected


def test_the_sweep_takes_a_lease_that_ran_out_with_a_mark_for_unknown() -> None:
    log = a_running_log(lease_ends_at=NOW, committing=a_mark(), sweep_at=NOW)

    change = claims.sweep(Seen(log, an_account(), Controls()), now=NOW, looks=False)

    assert change is not None
    assert shown(change) == "unknown: attempt_lost"


def test_the_grace_doubles_with_each_hop_that_the_sweep_makes() -> None:
    log = a_log(sweep_at=NOW, sweep_hops=2)

    change = claims.sweep(Seen(log, an_account(), Controls()), now=NOW, looks=False)

    assert change is not None
    assert change.log.sweep_hops == 3
    assert change.log.sweep_at == NOW + timedelta(minutes=16)


def test_the_sweep_gives_a_late_delivery_its_accounts_next_slot() -> None:
    free_at = NOW + 20 * SECOND
    account = an_account(next_free_at=free_at)
    log = a_log(due_at=NOW - 3 * MINUTE, sweep_at=NOW, sweep_hops=1)

    first = claims.sweep(Seen(log, an_account(), Controls()), now=NOW, looks=False)
    later = claims.sweep(Seen(log, account, Controls()), now=NOW, looks=False)

    assert first is not None
    assert (first.log.status, first.log.due_at) == (S.PENDING, NOW)
    assert first.next_free_at == ms(NOW + 10 * SECOND)
    assert later is not None
    assert (later.log.status, later.log.due_at) == (S.WAITING, free_at)
    assert (later.log.error_code, later.log.sweep_hops) == ("spaced", 2)
    assert later.log.sweep_at == free_at + 8 * MINUTE
    assert later.next_free_at == ms(free_at + 10 * SECOND)


def test_what_the_platform_has_accepted_needs_no_slot_to_be_asked_after() -> None:
    account = an_account(next_free_at=NOW + 20 * SECOND)
    log = a_log(
        status=S.ACCEPTED, committing=a_mark(), due_at=NOW - 3 * MINUTE, sweep_at=NOW, sweep_hops=1
    )

    change = claims.sweep(Seen(log, account, Controls()), now=NOW, looks=False)

    assert change is not None
    assert (change.log.status, change.log.due_at) == (S.ACCEPTED, NOW)
    assert change.next_free_at is None


def test_the_sweep_makes_no_hop_while_its_scope_is_paused() -> None:
    log = a_log(sweep_at=NOW)
    paused = some_controls(pauses={"x": ("platform", "twitter", None)})

    change = claims.sweep(Seen(log, an_account(), paused), now=NOW, looks=False)

    assert change is not None
    assert shown(change) == "waiting: paused"


# --- the cast -------------------------------------------------------------------------------------


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


def a_running_log(**fields: Any) -> PublishLog:
    """Claimed by `me`, with 30 s of the lease left."""
    attempt = Attempt(
        number=1, generation=1, hop=1, owner="me", started_at=NOW - 30 * SECOND, lateness_ms=0
    )
    base = {
        "status": S.PROCESSING,
        "owner": "me",
        "lease_ends_at": NOW + 30 * SECOND,
        "attempts": (attempt,),
        "attempts_spent": 1,
    }
    return a_log(**(base | fields))


def a_mark(*, owner: str = "me", at: datetime = NOW) -> Committing:
    return Committing(
        at=at, send_by=at + 20 * SECOND, owner=owner, native_key="k", request_hash="h"
    )


def an_account(
    *,
    paused_until: datetime | None = None,
    refused_at: datetime | None = None,
    token_version: int = 1,
    next_free_at: datetime | None = None,
    status: AccountStatus = AccountStatus.ACTIVE,
) -> SocialAccount:
    return SocialAccount(
        company_id="acme",
        platform="twitter",
        status=status,
        platform_user_id="1",
        token_version=token_version,
        paused_until=ms(paused_until) if paused_until else 0,
        next_free_at=ms(next_free_at) if next_free_at else 0,
        refresh_refusal=RefreshRefusal(token_version=1, at=refused_at) if refused_at else None,
        created_at=NOW,
        updated_at=NOW,
    )


def some_controls(
    *,
    pauses: dict[str, tuple[str, str, datetime | None]] | None = None,
    throttled: dict[str, datetime] | None = None,
) -> Controls:
    return Controls(
        pauses={
            key: Pause(scope=scope, name=name, by="ann", why="their outage", until=until)
            for key, (scope, name, until) in (pauses or {}).items()
        },
        throttled={platform: ms(until) for platform, until in (throttled or {}).items()},
    )


def begin(
    log: PublishLog,
    knock: Knock | None = None,
    *,
    account: SocialAccount | None = None,
    controls: Controls | None = None,
    owner: str = "me",
    looks: bool = False,
) -> Decision:
    seen = Seen(log, account or an_account(), controls or Controls())
    return claims.begin(seen, knock or Knock(), now=NOW, owner=owner, looks=looks)


def settle(log: PublishLog, result: Result) -> Change:
    return claims.settle(log, result, now=NOW, jitter=0.5, looks=False)


def told(decision: Decision) -> str:
    match decision:
        case Begun():
            return "begun"
        case Moved(change):
            return shown(change)
        case Replay():
            return "replay"
        case Void():
            return "void"
        case Busy():
            return "busy"
        case Early():
            return "early"


def shown(change: Change) -> str:
    """`status: code + letter + task`, as far as there are."""
    code = f": {change.log.error_code}" if change.log.error_code else ""
    by = " by evidence" if change.by_evidence else ""
    letter = " + letter" if change.letter else ""
    task = " + task" if change.wakes else ""
    return f"{change.log.status}{code}{by}{letter}{task}"


def ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
