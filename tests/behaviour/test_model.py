"""Whatever happens, in whatever order, the promises hold: hypothesis draws the order.

The rules are what owners, operators, queue, platforms and machines do; `model.py` knows what was
ordered and judges, after each of them, what the platforms have and what the records say. Time is
the sandbox's. The short run of the suite is the same each time; `MODEL_EXAMPLES=500 pytest
tests/behaviour/test_model.py` draws longer ones anew, `--hypothesis-seed` the same ones again.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import grpc
import httpx
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.behaviour import model
from tests.behaviour.model import Delivery, Order, Post, Seen
from tests.console import Console
from tests.sandbox.children import SandboxError
from tests.sandbox.firestore_proxy import FirestoreCall, Refused
from tests.sandbox.platforms.values import Received
from tests.sandbox.stack import Stack
from tests.world import COMPANY, Account, World

SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=s) for s in (1, 60, 3600, 86400))
# Two of one platform; exact, windowed, readback and no guarantee.
ACCOUNTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("twitter", {}),
    ("twitter", {}),
    ("bluesky", {"user_id": "did:plc:acme", "server": "bread.example"}),
    ("mastodon", {"user_id": "109348", "server": "bread.example"}),
    ("linkedin", {}),
)
LOOKED_AT = (
    (
        "publishLogs",
        (
            *("platform", "status", "generation", "fencingToken", "remoteId", "errorCode"),
            *("nextRetryAt", "dueAt", "unsettledSince", "lookups"),
        ),
    ),
    ("scheduledPosts", ("status", "open", "results")),
    ("deadLetters", ("status", "deliveryId")),
)
SCOPES = ("account", "platform", "queue", "company")

numbers = st.integers(0, len(ACCOUNTS) - 1)
aheads = st.sampled_from([5 * MINUTE, 0 * SECOND, 30 * SECOND, HOUR, DAY, 40 * DAY, 400 * DAY])
zones = st.sampled_from([None, None, "Europe/Berlin", "America/New_York", "Pacific/Kiritimati"])
jumps = st.sampled_from(
    [5 * SECOND, 31 * SECOND, 61 * SECOND, 3 * MINUTE, 20 * MINUTE, 2 * HOUR, 26 * HOUR, 29 * DAY]
)
soon = st.sampled_from([0 * SECOND, 11 * SECOND, 61 * SECOND])
troubles = st.sampled_from(
    [
        *("refuse", "throttle", "error_before", "error_after", "drop_before", "drop_after"),
        *("garbage", "no_id", "crash_before", "crash_after", "crash_after", "crash_after", "slow"),
    ]
)
tended = st.sampled_from(["/sweep", "/promote", "/retention"])
# What becomes of a commit of Firestore, and of the process that makes it.
mishaps = st.none() | st.tuples(
    st.sampled_from(["refused", "answer lost", "killed before", "killed after"]), st.integers(1, 5)
)


class Promises(RuleBasedStateMachine):
    """One company with five accounts, and everybody who may disturb it."""

    posts = Bundle("posts")

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        stack.reset()
        self.stack, self.world = stack, World(stack)
        self.console = Console(self.world)
        self.ordered: list[Post] = []
        self.asked: list[tuple[datetime, str, dict[str, Any], httpx.Response]] = []
        self.pauses: dict[tuple[str, str], datetime | None] = {}
        self.held: frozenset[str] = frozenset()  # accounts paused when it was last looked at
        self.troubled: set[str] = set()  # accounts
        self.armed: list[Any] = []
        self.accounts: list[Account] = []
        self.keys = itertools.count(1)
        self.swept_at = stack.clock.now()
        self.out_by = self.swept_at, self.swept_at  # what is calm and was due between is out

    # owners

    @initialize(target=posts)
    def begin(self) -> Post | Any:
        self.accounts = [self.world.account(platform, **more) for platform, more in ACCOUNTS]
        for account in self.accounts:
            self._platform(account).duplicate_window = timedelta(0)  # none takes care for us
            for token in self._tokens(account):  # how they end is a rule of its own
                token.expires_at += 4000 * DAY
        soon, later = (
            self.schedule(accounts=accounts, ahead=ahead, zone=None, brief=False, luck="")
            for accounts, ahead in (({0, 2, 4}, 5 * MINUTE), ({1, 3}, 10 * MINUTE))
        )
        return multiple(soon, later)

    @rule(
        target=posts,
        accounts=st.sets(numbers, min_size=1, max_size=3),
        ahead=aheads,
        zone=zones,
        brief=st.booleans(),
        luck=st.sampled_from(["", "", "", "answer lost", "reply lost", "no task"]),
    )
    def schedule(
        self, accounts: set[int], ahead: timedelta, zone: str | None, brief: bool, luck: str
    ) -> Post | Any:
        chosen = [self.accounts[number] for number in sorted(accounts)]
        number = len(self.ordered) + 1
        asked_at, (due_at, when) = self.now, self._when(ahead, zone)
        latest_at = max(due_at, asked_at) + (30 * MINUTE if brief else DAY)
        more = {"latestAt": latest_at.isoformat()} if brief else {}
        body = self.world.order(chosen, content=model.text_of(number, 1), **when, **more)
        match luck:
            case "answer lost":
                self.stack.fronts["schedule_post"].drop_answer()
                with suppress(httpx.TransportError):
                    self.world.call("/schedule", body)
            case "reply lost":
                self.stack.tasks.faults.lose_reply()
            case "no task":
                self.stack.tasks.faults.refuse(times=None)
        answer = self._ask("/schedule", body)
        self.stack.tasks.faults.clear()
        if answer.status_code == 422 and any(one.id in self.troubled for one in chosen):
            return multiple()  # a token of theirs is refused by now
        assert answer.status_code == 201, answer.text
        told = answer.json()
        assert datetime.fromisoformat(told["scheduledAt"]) == due_at
        calm = luck != "no task"
        order = Order(asked_at, self.now, body["content"], due_at, latest_at)
        deliveries = [
            Delivery(one["deliveryId"], told["postId"], account, [order], calm)
            for one, account in zip(told["deliveries"], chosen, strict=True)
        ]
        for delivery in deliveries:
            delivery.calm &= delivery.account.id not in self.troubled | self._paused()
        self.ordered.append(Post(told["postId"], number, deliveries))
        return self.ordered[-1]

    @rule(post=posts, whole=st.booleans())
    def edit(self, post: Post, whole: bool) -> None:
        text, asked_at = post.edition(), self.now
        for delivery, _ in self._command("/edit", post, whole, content=text):
            self._order(delivery, asked_at, text=text)

    @rule(post=posts, whole=st.booleans(), ahead=aheads, zone=zones)
    def reschedule(self, post: Post, whole: bool, ahead: timedelta, zone: str | None) -> None:
        asked_at, (due_at, when) = self.now, self._when(ahead, zone)
        latest_at = max(due_at, asked_at) + DAY
        for delivery, shown in self._command("/reschedule", post, whole, **when):
            assert datetime.fromisoformat(shown["dueAt"]) == due_at
            self._order(delivery, asked_at, due_at=due_at, latest_at=latest_at)
            delivery.generation += 1

    @rule(post=posts, whole=st.booleans())
    def cancel(self, post: Post, whole: bool) -> None:
        for delivery, shown in self._command("/cancel", post, whole):
            if shown["status"] == "cancelled":
                delivery.cancelled_at = self.now
            else:  # sent once before, with an outcome that nobody knows
                assert (shown["status"], delivery.sends) == ("unknown", 2)

    @precondition(lambda self: self._with("failed", "missed", "unknown"))
    @rule(number=st.integers(0, 9), corrected=st.booleans())
    def retry(self, number: int, corrected: bool) -> None:
        """A known failure alone is sent again without more ado."""
        post, delivery = self._pick(number, "failed", "missed", "unknown")
        asked_at = self.now
        text = post.edition() if corrected else delivery.order.text
        body = {"companyId": COMPANY, "postId": post.id, **delivery.account.target}
        answer = self._ask("/retry", body | {"content": text, "idempotencyKey": self._key()})
        status = self.seen.logs[delivery.id]["status"]
        if answer.status_code == 200:
            assert status in model.BURIED
            latest_at = max(delivery.order.latest_at, self.now + DAY)
            self._order(delivery, asked_at, text=text, due_at=asked_at, latest_at=latest_at)
            delivery.generation += 1
            return
        expired = answer.status_code == 422 and delivery.account.id in self.troubled
        assert expired or (answer.status_code == 409 and status not in model.BURIED), answer.text

    @rule(number=st.integers(0, 99), other=st.booleans())
    def ask_again(self, number: int, other: bool) -> None:
        """P6: the same answer for the same key and payload, 409 for another payload."""
        at, path, body, first = self.asked[number % len(self.asked)]
        if self.now >= at + model.KEY_KEPT - MINUTE:
            return
        if other:
            changed = {"deliveries": []} if path == "/cancel" else {"content": "Something else"}
            if path == "/reschedule":
                changed = {"latestAt": (self.now + 900 * DAY).isoformat()}
            answer = self.world.call(path, body | changed)
            assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_reused")
        else:
            answer = self.world.call(path, body)
            assert (answer.status_code, answer.json()) == (first.status_code, first.json())

    # operators

    @precondition(lambda self: self._with("unknown"))
    @rule(number=st.integers(0, 9))
    def look_on_the_platform(self, number: int) -> None:
        """Of an unknown delivery a person says that it is there, or has it sent again."""
        (_, delivery), asked_at = self._pick(number, "unknown"), self.now
        about = {"deliveryId": delivery.id, "reason": "has looked"}
        if there := self.seen.published[delivery.id]:
            self.console.act("/unknown/is-there", about | {"remoteId": there[-1].id})
            return
        latest_at = asked_at + HOUR
        sent = about | {"acceptDuplicateRisk": True, "latestAt": latest_at.isoformat()}
        answer = self.console.act("/unknown/send-again", sent)
        if answer.status_code == 200:
            delivery.sends += 1
            self._order(delivery, asked_at, due_at=asked_at, latest_at=latest_at)
            delivery.generation += 1
            self._disturb([delivery.account])

    @precondition(lambda self: self._letters())
    @rule()
    def redrive(self) -> None:
        asked_at, latest_at = self.now, self.now + DAY
        body = {"filter": {}, "latestAt": latest_at.isoformat(), "reason": "mended"}
        answer = self.console.act("/dead-letters/redrive", body)
        assert answer.status_code in (200, 409), answer.text
        by_id = {delivery.id: delivery for delivery in self._deliveries()}
        for one in answer.json()["results"]:
            if one["outcome"] == "redriven":
                delivery = by_id[one["deliveryId"]]
                self._order(delivery, asked_at, due_at=asked_at, latest_at=latest_at)
                delivery.generation += 1

    @precondition(lambda self: self._letters())
    @rule(number=st.integers(0, 9))
    def discard(self, number: int) -> None:
        letters = self._letters()
        letter_id = letters[number % len(letters)]
        self.console.done("/dead-letters/discard", {"ids": [letter_id], "reason": "too late"})
        for delivery in self._deliveries():
            delivery.discarded.add(letter_id)

    @rule(scope=st.sampled_from(SCOPES), number=numbers, brief=st.booleans())
    def pause(self, scope: str, number: int, brief: bool) -> None:
        name = self._name(scope, self.accounts[number])
        until = self.now + 10 * MINUTE if brief else None
        body = {"scope": scope, "name": name, "reason": "a fire", "until": until and str(until)}
        self.console.done("/pause", body)
        self.pauses[scope, name] = until
        self._disturb([one for one in self.accounts if self._name(scope, one) == name], ever=False)

    @precondition(lambda self: self.pauses)
    @rule(number=st.integers(0, 9))
    def resume(self, number: int) -> None:
        scope, name = sorted(self.pauses)[number % len(self.pauses)]
        self.console.done("/resume", {"scope": scope, "name": name, "reason": "out"})
        del self.pauses[scope, name]

    @rule(number=numbers)
    def purge(self, number: int) -> None:
        platform = self.accounts[number].platform
        body = {"queue": f"publish-{platform}", "reason": "a mistake"}
        self.console.done("/queues/purge", body, role="admin")
        self._disturb([one for one in self.accounts if one.platform == platform], ever=False)

    # platforms

    @rule(number=numbers, dead=st.booleans())
    def lose_token(self, number: int, dead: bool) -> None:
        """Refused from now on; not `dead`: a refresh mends it, where the platform has one."""
        account = self.accounts[number]
        self._disturb([account])
        for token in self._tokens(account):
            token.revoked, token.expires_at = token.revoked or dead, min(token.expires_at, self.now)

    @precondition(lambda self: self.troubled)
    @rule(number=numbers)
    def reconnect(self, number: int) -> None:
        account, asked_at = self.accounts[number], self.now
        more = dict(ACCOUNTS[number][1])
        more.pop("user_id", None)
        access, refresh = self._key(), self._key()
        self.stack.platforms.add_account(
            account.platform, account.user_id, access, refresh, expires_in=4000 * DAY
        )
        answer = self.world.connect(account, **more, accessToken=access, refreshToken=refresh)
        assert answer.status_code == 200, answer.text
        for delivery in self._deliveries():
            if delivery.id in answer.json()["redriven"]:
                self._order(delivery, asked_at, due_at=asked_at)
                delivery.generation += 1

    # time, the queue, and machines that die

    @precondition(lambda self: self._next_due())
    @rule(luck=st.sampled_from(["", "at once", "twice", "shuffled", "late", "lost"]))
    def come_due(self, luck: str) -> None:
        """What is calm is out then, whoever else is not."""
        faults = self.stack.tasks.faults
        match luck:
            case "at once":
                faults.deliver_twice(at_once=True, times=None)
            case "twice":
                faults.deliver_twice(after=7 * SECOND, times=None)
            case "shuffled":
                faults.deliver_out_of_order()
            case "late":
                faults.deliver_late(by=3 * MINUTE, times=1)
            case "lost":
                faults.lose_task(times=1)
        if luck in ("late", "lost"):
            self._disturb(due_by=self._next_due())
        self._turn_to_next_due()
        faults.clear()

    @precondition(lambda self: self._next_due())
    @rule(kind=troubles, times=st.integers(1, 4), mishap=mishaps, then=soon)
    def come_due_in_trouble(
        self, kind: str, times: int, mishap: tuple[str, int] | None, then: timedelta
    ) -> None:
        """Its platform, or the instance that publishes it, fails; and is asked again `then`."""
        due_at = self._next_due()
        account = next(d.account for d in self._open() if d.order.due_at == due_at)
        self._trouble(account, kind, times)
        if mishap:
            self._disturb(due_by=due_at)
        with self._mishap("publish_post", mishap):
            self._turn_to_next_due()
        self._turn_to(self.now + then)

    @precondition(lambda self: self._next_due())
    @rule()
    def rush(self) -> None:
        """Two instances get a delivery's task, and both have read when the first one writes."""
        due_at = self._next_due() or self.now
        delivery = next(one for one in self._open() if one.order.due_at == due_at)
        self.stack.tasks.faults.lose_task(times=None)
        self._disturb(due_by=due_at)
        self._turn_to(due_at)
        self.stack.tasks.faults.clear()
        both = self.stack.proxy.hold("BatchGetDocuments", times=2, after=True)
        with ThreadPoolExecutor(2) as pool:
            for _ in range(2):
                pool.submit(self.world.deliver, delivery.post_id, delivery.account)
            both.arrived(2)
            both.open()
        self.stack.proxy.heal()

    @rule(post=posts, number=numbers)
    def knock(self, post: Post, number: int) -> None:
        """A task that nobody ordered, for whatever generation there is."""
        delivery = post.deliveries[number % len(post.deliveries)]
        self.world.deliver(post.id, delivery.account)

    @precondition(lambda self: self._sent())
    @rule(number=st.integers(0, 99))
    def bring_an_old_task(self, number: int) -> None:
        sent = self._sent()
        self.stack.tasks.deliver(sent[number % len(sent)].request)

    @rule(by=jumps)
    def pass_time(self, by: timedelta) -> None:
        self._turn_to(self.now + by)

    @rule(path=tended, mishap=mishaps)
    def tend(self, path: str, mishap: tuple[str, int] | None) -> None:
        """What Scheduler calls."""
        with self._mishap("maintain", mishap):
            self._maintain(path, dies=mishap is not None)

    # what must hold

    @invariant()
    def the_promises_hold(self) -> None:
        if self.ordered:
            self._look()

    def teardown(self) -> None:
        try:
            if sys.exception() is None and self.ordered:
                self._come_to_rest()
        finally:
            self._no_more_trouble()
            for account in self.accounts:
                vars(self._platform(account)).pop("duplicate_window", None)

    def _come_to_rest(self) -> None:
        """Nothing goes wrong any more: everything ends, or is unknown where a person sees it."""
        self._no_more_trouble()
        while self.pauses:
            self.resume(number=0)
        step = MINUTE
        for _ in range(30):
            self._maintain("/promote")
            self._maintain("/sweep")
            self._look()
            if not self._open():
                break
            step = step * 3 / 2
            ahead = min(d.order.due_at for d in self._open())
            self._turn_to(max(self.now + step, min(ahead, self.now + model.HORIZON)))
        assert self._open() == []
        for post in self.ordered:
            model.rolled_up(post, self.seen)
            shown = self.world.status(post.id)
            assert shown["status"] == self.seen.posts[post.id]["status"]
            for delivery in post.deliveries:
                assert not delivery.calm or self._status(delivery) in ("success", "cancelled")

    def _look(self) -> None:
        """See everything at rest, and judge it."""
        while True:
            self.stack.settle()
            attempts = len(self.stack.tasks.attempts)
            logs, posts, letters = (self._records(name, fields) for name, fields in LOOKED_AT)
            published, strange = model.owners(self.ordered, self.stack.platforms.posts())
            if self.stack.tasks.idle(0) and attempts == len(self.stack.tasks.attempts):
                break
        paused = self._paused()
        held, self.held = self.held & paused, paused
        self.seen = Seen(logs, posts, letters, published, self.swept_at, held)
        assert strange == []
        model.judge(self.ordered, self.seen)
        since, until = self.out_by
        for delivery in self._deliveries():
            if delivery.calm and since < delivery.order.due_at <= until:
                assert self._status(delivery) in ("success", "cancelled")

    # --- on the way ---

    def _records(self, name: str, fields: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        found = self.stack.db.collection(name).select(fields).stream()
        return {one.id: one.to_dict() for one in found}

    def _with(self, *statuses: str) -> list[tuple[Post, Delivery]]:
        """The deliveries in one of these states."""
        each = ((post, delivery) for post in self.ordered for delivery in post.deliveries)
        return [(post, delivery) for post, delivery in each if self._status(delivery) in statuses]

    def _pick(self, number: int, *statuses: str) -> tuple[Post, Delivery]:
        found = self._with(*statuses)
        return found[number % len(found)]

    def _letters(self) -> list[str]:
        return sorted(k for k, v in self.seen.letters.items() if v["status"] == "open")

    def _next_due(self) -> datetime | None:
        ahead = (one.order.due_at for one in self._open())
        return min((due_at for due_at in ahead if due_at > self.now), default=None)

    def _turn_to_next_due(self) -> None:
        """As Scheduler has it: promoted in time."""
        before, due_at = self.now, self._next_due() or self.now
        self._maintain("/promote")
        if due_at > before + model.HORIZON:
            self.stack.turn(due_at - before - DAY)
            self._maintain("/promote")
        self._turn_to(due_at)
        self.out_by = before, due_at

    def _sent(self) -> list[Any]:
        return [one for one in self.stack.tasks.attempts if one.queue.startswith("publish-")]

    @property
    def now(self) -> datetime:
        return self.stack.clock.now()

    def _key(self) -> str:
        return f"model-{next(self.keys)}"

    def _when(self, ahead: timedelta, zone: str | None) -> tuple[datetime, dict[str, str]]:
        """An instant, or noon in a zone; as it is meant and as it is said."""
        at = self.now + ahead
        if zone is None:
            return at, {"scheduledAt": at.isoformat()}
        noon = datetime.combine((at + 2 * DAY).date(), time(12))  # it is tomorrow somewhere
        meant = noon.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
        return meant, {"scheduledAt": noon.isoformat(), "timezone": zone}

    def _ask(self, path: str, body: dict[str, Any]) -> httpx.Response:
        at = self.now
        answer = self.world.call(path, body)
        if answer.is_success:
            self.asked.append((at, path, body, answer))
        return answer

    def _command(
        self, path: str, post: Post, whole: bool, **more: Any
    ) -> list[tuple[Delivery, dict[str, Any]]]:
        """What it was applied to; it says of each of the others why not."""
        wanted = post.deliveries if whole else post.deliveries[:1]
        targets = [delivery.account.target for delivery in wanted]
        body = {"companyId": COMPANY, "postId": post.id, "deliveries": targets, **more}
        answer = self._ask(path, body | {"idempotencyKey": self._key()})
        assert answer.status_code in (200, 409), answer.text
        applied = {one["deliveryId"]: one for one in answer.json().get("applied", ())}
        refused = {one["deliveryId"]: one["status"] for one in answer.json()["refused"]}
        assert sorted([*applied, *refused]) == sorted(delivery.id for delivery in wanted)
        assert not model.CHANGEABLE & set(refused.values())
        return [(one, applied[one.id]) for one in wanted if one.id in applied]

    def _order(self, delivery: Delivery, asked_at: datetime, **new: Any) -> None:
        kept = {name: getattr(delivery.order, name) for name in ("text", "due_at", "latest_at")}
        delivery.orders.append(Order(asked_at, self.now, **kept | new))

    def _deliveries(self) -> list[Delivery]:
        return [delivery for post in self.ordered for delivery in post.deliveries]

    def _open(self) -> list[Delivery]:
        return [delivery for delivery in self._deliveries() if self.seen.is_open(delivery)]

    def _status(self, delivery: Delivery) -> str:
        return str(self.seen.logs[delivery.id]["status"])

    def _platform(self, account: Account) -> Any:
        return getattr(self.stack.platforms, account.platform)

    def _tokens(self, account: Account) -> list[Any]:
        tokens = self._platform(account).tokens
        return [token for token in tokens.values() if account.user_id in token.user_ids]

    def _token_names(self, account: Account) -> set[str]:
        tokens = self._platform(account).tokens
        return {name for name, token in tokens.items() if account.user_id in token.user_ids}

    def _name(self, scope: str, account: Account) -> str:
        platform = account.platform
        names = {"account": account.id, "platform": platform, "queue": f"publish-{platform}"}
        return names.get(scope, COMPANY)

    def _paused(self) -> frozenset[str]:
        """The accounts that a pause holds."""
        return frozenset(
            account.id
            for account in self.accounts
            for (scope, name), until in self.pauses.items()
            if self._name(scope, account) == name and (until is None or self.now < until)
        )

    def _disturb(
        self,
        accounts: list[Account] | None = None,
        *,
        ever: bool = True,
        due_by: datetime | None = None,
    ) -> None:
        """What is waiting there is no longer calm; `ever`: nor is what comes there later."""
        names = {account.id for account in accounts or self.accounts}
        if ever and accounts is not None:
            self.troubled |= names
        for delivery in self._deliveries():
            due = due_by is None or delivery.order.due_at <= due_by
            if delivery.account.id in names and due and not self._is_out(delivery):
                delivery.calm = False

    def _is_out(self, delivery: Delivery) -> bool:
        return delivery.id in self.seen.logs and self._status(delivery) in ("success", "cancelled")

    def _turn_to(self, at: datetime) -> None:
        for delivery in self._deliveries():  # nobody turned the queue's clock in between
            if delivery.order.latest_at <= at and not self._is_out(delivery):
                delivery.calm = False
        self.stack.clock.turn_to(at)
        self.stack.settle(60)

    def _maintain(self, path: str, *, dies: bool = False) -> None:
        at = self.now
        answer = self.stack.post("maintain", path, {}, role="scheduler")
        assert answer.status_code == 200 or dies, answer.text
        if path == "/sweep" and answer.status_code == 200:
            self.swept_at = at
            ended = [key for key, until in self.pauses.items() if until and until <= at]
            for key in ended:
                del self.pauses[key]

    @contextmanager
    def _mishap(self, function: str, mishap: tuple[str, int] | None) -> Iterator[None]:
        """Something happens to the n-th commit of a function."""
        what, nth = mishap or ("", 0)
        count = itertools.count(1)

        def strike(call: FirestoreCall) -> None:
            if call.caller != function or next(count) != nth:
                return
            if "killed" in what:
                self._kill(function)
            raise Refused(grpc.StatusCode.UNAVAILABLE, what)

        if what:
            after = what in ("answer lost", "killed after")
            self.stack.proxy.on_call(strike, "Commit", after=after)
        yield
        self.stack.proxy.heal()

    def _trouble(self, account: Account, kind: str, times: int) -> None:
        """Its next calls that would create a post go wrong."""
        self._disturb([account])

        def strikes(received: Received) -> bool:
            mine = received.token in self._token_names(account)
            return mine and (kind != "crash_before" or self._kill("publish_post"))

        kinds = {"crash_before": "drop_before", "crash_after": "hook", "slow": "hook"}
        how: dict[str, Any] = {
            "refuse": {"status": 403, "body": {"title": "Forbidden", "detail": "Not permitted."}},
            "throttle": {"seconds": 900},
            "crash_after": {"hook": lambda *_: self._kill("publish_post")},
            "slow": {"hook": lambda *_: self._oversleep()},
        }.get(kind, {})
        self.armed.append(
            self.stack.platforms.misbehave(
                account.platform, "create post", kinds.get(kind, kind), times, strikes, **how
            )
        )

    def _kill(self, function: str) -> bool:
        self._disturb()
        for process in self.stack.processes[function]:
            with suppress(SandboxError, ProcessLookupError):  # dead already
                process.kill_worker()
        return True

    def _oversleep(self) -> None:
        self._disturb()
        self.stack.clock.turn(model.LEASE + SECOND)

    def _no_more_trouble(self) -> None:
        for misbehaviour in self.armed:
            misbehaviour.left = 0
        self.stack.heal()


LONG = os.environ.get("MODEL_EXAMPLES")
RUN = settings(
    max_examples=int(LONG or 8),
    stateful_step_count=40 if LONG else 18,
    derandomize=not LONG,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


def test_the_promises_hold_whatever_happens_in_whatever_order(running: Stack) -> None:
    run_state_machine_as_test(lambda: Promises(running), settings=RUN)
