"""What a sync plans, claims, counts and leaves out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.domain import analytics
from shared.domain.accounts import AccountStatus, RefreshRefusal, SocialAccount
from shared.domain.analytics import (
    NEXT,
    Begun,
    Busy,
    IllegalMoveError,
    Item,
    ItemFailure,
    Lock,
    Moved,
    Page,
    Part,
    PartStatus,
    Read,
    Replay,
    Results,
    Scope,
    Seen,
    Sized,
    Stale,
)
from shared.domain.controls import Controls, Pause

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
SIZED = Sized(batch=50)


def a_part(**fields: Any) -> Part:
    known: dict[str, Any] = {
        "sync_id": "s1",
        "account_id": "a1",
        "company_id": "acme",
        "platform": "twitter",
        "start": NOW - 90 * 24 * HOUR,
        "until": NOW,
        "due_at": NOW,
        "expire_at": NOW + 30 * 24 * HOUR,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Part(**known | fields)


def an_account(**fields: Any) -> SocialAccount:
    known: dict[str, Any] = {
        "company_id": "acme",
        "platform": "twitter",
        "status": AccountStatus.ACTIVE,
        "platform_user_id": "1",
        "created_at": NOW,
        "updated_at": NOW,
    }
    return SocialAccount(**known | fields)


def begin(part: Part | None = None, *, hop: int | None = None, **seen: Any) -> Any:
    part = part or a_part()
    known: dict[str, Any] = {
        "part": part,
        "lock": None,
        "account": an_account(),
        "sized": SIZED,
        "syncing": Controls(),
        "publishing": Controls(),
    }
    given = part.hop if hop is None else hop
    return analytics.begin(Seen(**known | seen), hop=given, now=NOW, owner="me")


def locked(**fields: Any) -> Lock:
    return Lock(**{"owner": "other", "lease_ends_at": NOW + HOUR, "fencing_token": 7} | fields)


def ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


# metrics


def test_numbers_are_numbers_and_the_rest_is_a_gap() -> None:
    told = {
        "likes": 3,
        "views": "12",
        "engagementRate": 0.5,
        "reach": None,
        "shares": True,
        "saves": float("nan"),
        "clicks": "many",
        "comments": 0,
    }

    assert analytics.numbers(told) == {
        "likes": 3,
        "views": 12,
        "engagementRate": 0.5,
        "comments": 0,
    }


def test_a_metric_of_another_name_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError):
        analytics.numbers({"hearts": 3})


# planning


@pytest.mark.parametrize(
    ("scope", "kind", "priority"),
    [
        (Scope(), "full", "low"),
        (Scope(platform="twitter"), "platform", "normal"),
        (Scope(company_id="acme", platform="twitter"), "company", "normal"),
        (Scope(company_id="acme", content_ids=("p1",)), "content", "high"),
    ],
)
def test_a_scope_has_a_kind(scope: Scope, kind: str, priority: str) -> None:
    job = analytics.job(scope, key="k", now=NOW, slot=None, by=None, traceparent=None)

    assert (job.kind, job.priority) == (kind, priority)


@pytest.mark.parametrize(
    ("start", "named", "since"),
    [
        (None, (), NOW - timedelta(days=90)),
        (NOW - HOUR, (), NOW - HOUR),
        (None, ("d1",), datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_posts_are_read_for_ninety_days_unless_somebody_asks_for_more(
    start: datetime | None, named: tuple[str, ...], since: datetime
) -> None:
    scope = Scope(start=start)
    job = analytics.job(scope, key="k", now=NOW, slot=None, by=None, traceparent=None)

    part = analytics.part("s1", job, "a1", an_account(), NOW + HOUR, named)

    assert (part.start, part.until) == (since, NOW)


@pytest.mark.parametrize(
    ("account", "sized", "reason"),
    [
        (an_account(), SIZED, None),
        (None, None, "disconnected"),
        (an_account(status=AccountStatus.DISABLED), SIZED, "disconnected"),
        (an_account(status=AccountStatus.EXPIRED), SIZED, "expired"),
        (
            an_account(refresh_refusal=RefreshRefusal(token_version=1, at=NOW - HOUR)),
            SIZED,
            "expired",
        ),
        (an_account(), None, "unsupported"),
        (an_account(), Sized(batch=0), "unsupported"),
        (an_account(), Sized(batch=50, refusal="member_metrics_closed"), "member_metrics_closed"),
    ],
)
def test_an_account_is_left_out_for_a_reason(
    account: SocialAccount | None, sized: Sized | None, reason: str | None
) -> None:
    assert analytics.left_out(account, sized, NOW) == reason


# one account


def test_a_part_is_claimed_with_a_token_that_no_earlier_holder_had() -> None:
    decision = begin(lock=locked(lease_ends_at=NOW))

    assert isinstance(decision, Begun)
    part = decision.part
    assert (part.status, part.owner, part.fencing_token, part.attempts_spent) == (
        PartStatus.RUNNING,
        "me",
        8,
        1,
    )
    assert analytics.claim(locked(), "me", NOW).fencing_token == 8


def test_a_task_of_another_hop_only_makes_sure_of_the_recorded_one() -> None:
    assert isinstance(begin(a_part(hop=2), hop=1), Stale)


@pytest.mark.parametrize("status", sorted(analytics.ENDED))
def test_a_part_that_has_ended_is_replayed(status: PartStatus) -> None:
    assert isinstance(begin(a_part(status=status)), Replay)


def test_a_live_attempt_at_the_same_part_is_let_work() -> None:
    running = a_part(status=PartStatus.RUNNING, owner="other")

    assert begin(running, lock=locked()) == Busy(NOW + HOUR)


def test_an_attempt_that_died_is_taken_over_when_its_lease_has_run_out() -> None:
    running = a_part(status=PartStatus.RUNNING, owner="other", attempts_spent=1)

    decision = begin(running, lock=locked(lease_ends_at=NOW))

    assert isinstance(decision, Begun)
    assert decision.part.attempts_spent == 2


@pytest.mark.parametrize(
    ("seen", "code", "until"),
    [
        ({"lock": locked()}, "locked", NOW + HOUR),
        ({"account": an_account(paused_until=ms(NOW + HOUR))}, "throttled", NOW + HOUR),
        ({"lock": locked(owner=None, paused_until=ms(NOW + HOUR))}, "throttled", NOW + HOUR),
        ({"syncing": Controls(throttled={"twitter": ms(NOW + HOUR)})}, "throttled", NOW + HOUR),
        ({"publishing": Controls(throttled={"twitter": ms(NOW + HOUR)})}, "throttled", NOW + HOUR),
    ],
)
def test_what_has_to_wait_waits_without_an_attempt(
    seen: dict[str, Any], code: str, until: datetime
) -> None:
    decision = begin(**seen)

    assert isinstance(decision, Moved)
    part = decision.part
    assert (part.status, part.code, part.due_at) == (PartStatus.WAITING, code, until)
    assert (part.hop, part.attempts_spent) == (2, 0)


def test_another_platforms_limit_holds_up_nobody() -> None:
    assert isinstance(begin(syncing=Controls(throttled={"linkedin": ms(NOW + HOUR)})), Begun)


@pytest.mark.parametrize(
    ("part", "seen", "status", "code"),
    [
        (a_part(), {"account": None, "sized": None}, "skipped", "disconnected"),
        (a_part(attempts_spent=4, code="http_500"), {}, "failed", "http_500"),
        (a_part(attempts_spent=4), {}, "failed", "attempts_exhausted"),
        (a_part(created_at=NOW - 24 * HOUR, code="throttled"), {}, "failed", "throttled"),
        (
            a_part(created_at=NOW - 23 * HOUR),
            {"account": an_account(paused_until=ms(NOW + 2 * HOUR))},
            "failed",
            "throttled",
        ),
    ],
)
def test_what_cannot_be_read_ends(part: Part, seen: dict[str, Any], status: str, code: str) -> None:
    decision = begin(part, **seen)

    assert isinstance(decision, Moved)
    assert (decision.part.status, decision.part.code) == (status, code)


@pytest.mark.parametrize(
    ("scope", "name", "skipped"),
    [
        ("platform", "twitter", True),
        ("account", "a1", True),
        ("company", "acme", True),
        ("queue", "analytics", True),
        ("platform", "linkedin", False),
    ],
)
def test_a_pause_leaves_out_what_it_names(scope: str, name: str, skipped: bool) -> None:
    pause = Pause(scope=scope, name=name, by="ops", why="costs")

    decision = begin(syncing=Controls(pauses={"one": pause}))

    assert isinstance(decision, Moved if skipped else Begun)


def test_every_status_has_its_moves_and_an_end_has_none() -> None:
    assert set(NEXT) == set(PartStatus)
    for status in analytics.ENDED:
        with pytest.raises(IllegalMoveError):
            analytics.evolve(a_part(status=status), NOW, status=PartStatus.RUNNING)


# one batch


def items(*ids: str) -> tuple[Item, ...]:
    return tuple(
        Item(f"d-{name}", f"p-{name}", name, NOW + n * HOUR, None) for n, name in enumerate(ids)
    )


def running(**fields: Any) -> Part:
    return a_part(
        status=PartStatus.RUNNING, owner="me", attempts_spent=2, code="http_500", **fields
    )


def test_a_batch_moves_the_cursor_behind_it_and_counts_each_post_once() -> None:
    page = Page(items("1", "2", "3"), last=False, cursor=(NOW + 5 * HOUR, "d-9"))
    failure = ItemFailure(delivery_id="d-2", code="gone")

    done = analytics.progress(
        running(), page, {"1", "2"}, Results({"1": Read({"likes": 1})}, {"2": failure}), NOW
    )

    part = done.part
    assert (part.cursor_at, part.cursor_id) == (NOW + 5 * HOUR, "d-9")
    assert (part.items_processed, part.items_failed, part.items_skipped) == (1, 1, 1)
    assert (part.attempts_spent, part.code, part.failures) == (0, None, (failure,))
    assert [item.delivery_id for item, _ in done.kept] == ["d-1"]
    assert done.left == 0


def test_the_cursor_never_jumps_over_a_post_that_was_not_come_to() -> None:
    page = Page(items("1", "2", "3"), last=True, cursor=(NOW + 5 * HOUR, "d-3"))
    told = Results({"1": Read({}), "3": Read({})})

    done = analytics.progress(running(), page, {"1", "2", "3"}, told, NOW)

    assert (done.part.cursor_at, done.part.cursor_id) == (NOW, "d-1")
    assert (done.part.items_processed, done.left) == (1, 2)
    assert [item.delivery_id for item, _ in done.kept] == ["d-1"]


def test_an_attempt_that_gets_nowhere_is_counted() -> None:
    page = Page(items("1"), last=True, cursor=(NOW, "d-1"))

    done = analytics.progress(running(cursor_at=NOW, cursor_id="d-0"), page, {"1"}, Results(), NOW)

    assert (done.part.cursor_id, done.part.attempts_spent, done.part.code) == ("d-0", 2, "http_500")


def test_a_page_of_named_posts_that_were_never_published_is_left_behind() -> None:
    page = Page((), last=False, cursor=(None, "d-7"))

    done = analytics.progress(running(), page, set(), Results(), NOW)

    assert (done.part.cursor_at, done.part.cursor_id, done.left) == (None, "d-7", 0)


def test_a_part_keeps_twenty_failures_and_counts_them_all() -> None:
    names = [str(number) for number in range(30)]
    unread = {name: ItemFailure(delivery_id=f"d-{name}", code="gone") for name in names}

    done = analytics.progress(
        running(), Page(items(*names), last=True), set(names), Results({}, unread), NOW
    )

    assert (len(done.part.failures), done.part.items_failed) == (20, 30)


@pytest.mark.parametrize(
    ("age", "fresh"),
    [(timedelta(0), True), (timedelta(minutes=59), True), (HOUR, False), (None, False)],
)
def test_what_was_read_within_the_hour_is_fresh(age: timedelta | None, fresh: bool) -> None:
    read_at = None if age is None else NOW - age

    assert Item("d", "p", "r", NOW, read_at).fresh(NOW) is fresh
