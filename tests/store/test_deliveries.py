"""Verbs of the store where no entry point leads: commits whose answer is lost, and attempts whose
fencing token is stale."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest

from shared.domain.claims import Begun, Knock, Posted
from shared.domain.failures import TransientError, UnavailableError
from shared.store.clock import Clock
from shared.store.deliveries import Held, LeaseLostError, UnrecordedError
from shared.store.store import Store
from tests.world import Account, World

POSTED = Posted("42", "https://x.com/i/status/42", None, found=False, raw="{}")
LEASE = timedelta(seconds=61)


class Desk:
    """One due delivery, and a store that works on it through the wire."""

    def __init__(self, world: World, store: Store, account: Account, post_id: str) -> None:
        self.world = world
        self.store = store
        self.account = account
        self.post_id = post_id

    def begin(self, owner: str) -> Held:
        decision, held = self.store.deliveries.begin(
            post_id=self.post_id,
            platform=self.account.platform,
            account_id=self.account.id,
            knock=Knock(),
            owner=owner,
            looks=lambda account: False,
        )
        assert isinstance(decision, Begun), decision
        assert held is not None
        return held

    def settle(self, held: Held, result: Any = POSTED, *, within: float = 10) -> Any:
        ends_at = time.monotonic() + within
        return self.store.deliveries.settle(held, result, jitter=0, looks=False, ends_at=ends_at)

    def mark(self, held: Held) -> Held:
        return self.store.deliveries.mark_committing(held, request_hash="h")

    @property
    def log(self) -> dict[str, Any]:
        [record] = self.world.stack.records("publishLogs").values()
        return record

    @property
    def post(self) -> dict[str, Any]:
        [record] = self.world.stack.records("scheduledPosts").values()
        return record


@pytest.fixture
def desk(world: World, monkeypatch: pytest.MonkeyPatch) -> Desk:
    stack = world.stack
    stack.tasks.faults.lose_task(times=None)
    account = world.account("twitter")
    post_id = world.schedule(account)
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", stack.proxy.door("store"))
    store = Store(project=stack.project, database="(default)", clock=Clock())
    return Desk(world, store, account, post_id)


def test_a_claim_whose_answer_is_lost_is_recognised_as_our_own(desk: Desk) -> None:
    lost = desk.world.stack.proxy.lose_answer("Commit")

    held = desk.begin("me")

    assert lost.hits == 1
    assert held.log.owner == desk.log["owner"] == "me"
    assert desk.log["fencingToken"] == 1
    assert len(desk.log["attempts"]) == 1


def test_a_claim_that_never_arrived_is_written_again(desk: Desk) -> None:
    desk.world.stack.proxy.refuse("Commit")

    held = desk.begin("me")

    assert (held.log.owner, desk.log["owner"]) == ("me", "me")
    assert desk.log["fencingToken"] == 1


def test_a_mark_whose_answer_is_lost_counts_once_a_read_shows_it(desk: Desk) -> None:
    held = desk.begin("me")
    desk.world.stack.proxy.lose_answer("Commit")
    before = desk.world.stack.proxy.counts("store")

    marked = desk.mark(held)
    kept = desk.store.deliveries.keep(marked, {"container": "7"})

    spent = desk.world.stack.proxy.counts("store") - before
    assert desk.log["committing"]["owner"] == "me"
    assert kept.log.committing is not None
    assert desk.log["state"] == {"container": "7"}
    assert dict(spent.calls) == {"Commit": 2, "BatchGetDocuments": 1}


def test_a_mark_that_never_arrived_is_written_again_while_nobody_else_has(desk: Desk) -> None:
    held = desk.begin("me")
    desk.world.stack.proxy.refuse("Commit")

    desk.mark(held)

    assert desk.log["committing"]["owner"] == "me"


def test_a_stale_token_can_neither_mark_nor_keep(desk: Desk) -> None:
    stale = desk.begin("first")
    desk.world.stack.clock.turn(LEASE)
    desk.begin("second")
    then = desk.log

    with pytest.raises(LeaseLostError):
        desk.mark(stale)
    with pytest.raises(LeaseLostError):
        desk.store.deliveries.keep(stale, {"container": "7"})

    assert desk.log == then
    assert then["fencingToken"] == 2


def test_a_guard_refuses_a_stale_token_even_where_its_own_clock_sees_no_end(desk: Desk) -> None:
    """The first attempt's instance has not read since: to its clock the lease still runs."""
    stale = desk.begin("first")
    desk.world.stack.clock.turn(LEASE)
    desk.world.deliver(desk.post_id, desk.account)
    then = desk.log

    with pytest.raises(LeaseLostError):
        desk.mark(stale)

    assert then["status"] == "success"
    assert desk.log == then


def test_a_lease_that_has_run_out_can_not_be_used_though_nobody_took_over(desk: Desk) -> None:
    held = desk.begin("me")
    desk.world.stack.clock.turn(LEASE)
    desk.store.deliveries.read(held.log.id)  # the clock sees the time
    before = desk.world.stack.proxy.counts("store")

    with pytest.raises(LeaseLostError):
        desk.mark(held)

    spent = desk.world.stack.proxy.counts("store") - before
    assert dict(spent.calls) == {}
    assert desk.log["committing"] is None


def test_a_settlement_whose_answer_is_lost_is_recorded_once_and_the_post_hears_of_it(
    desk: Desk,
) -> None:
    held = desk.mark(desk.begin("me"))
    desk.world.stack.proxy.lose_answer("Commit")

    change = desk.settle(held)

    assert change.log.remote_id == "42"
    assert (desk.log["status"], desk.log["remoteId"]) == ("success", "42")
    assert (desk.post["open"], desk.post["status"]) == (0, "published")


def test_a_settlement_is_tried_until_firestore_is_back(desk: Desk) -> None:
    held = desk.mark(desk.begin("me"))
    refused = desk.world.stack.proxy.refuse(times=5)

    desk.settle(held)

    assert refused.hits == 5
    assert desk.log["status"] == "success"


def test_a_settlement_that_finds_no_firestore_in_time_says_so(desk: Desk) -> None:
    held = desk.mark(desk.begin("me"))
    desk.world.stack.proxy.refuse(times=None)

    with pytest.raises(UnavailableError):
        desk.settle(held, within=0.5)


def test_an_answer_that_no_record_can_take_is_told_apart_from_one_that_is_not_needed(
    desk: Desk,
) -> None:
    stale = desk.begin("first")
    desk.world.stack.clock.turn(LEASE)
    taken_over = desk.mark(desk.begin("second"))
    desk.settle(taken_over)
    then = desk.log

    with pytest.raises(UnrecordedError):
        desk.settle(stale, Posted("43", None, None, found=False, raw=None))
    with pytest.raises(LeaseLostError):
        desk.settle(stale, POSTED)  # the id is on record
    with pytest.raises(LeaseLostError):
        desk.settle(stale, TransientError("503", code="http_503"))

    assert desk.log == then


def test_a_sweep_whose_answer_is_lost_makes_one_hop(desk: Desk) -> None:
    desk.world.stack.clock.turn(timedelta(minutes=3))
    desk.world.stack.proxy.lose_answer("Commit")
    [overdue] = desk.store.deliveries.overdue(10)

    change = desk.store.deliveries.sweep(
        overdue.id, overdue.account_id, looks=lambda account: False
    )

    assert change is not None
    assert (change.wakes, change.log.hop) == (True, 2)
    assert desk.log["hop"] == 2
