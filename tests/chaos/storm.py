"""The chaos run: posts of many accounts are scheduled, changed and sent while everything around
them breaks; then the faults stop, the system recovers by itself, and every promise is judged.

The sandbox's clock is turned to the next instant at which something happens, and only while nothing
is under way. So an attempt lives as long on that clock as on its own, and hours pass in minutes.
A frozen instance alone lives through turns: it is thawed when its own clocks, too, know that its
time to send is over.

The seed decides what is ordered, and which faults are played when and at which call from then on.
Which thread makes that call is the machine's business: two runs of a seed need not strike the same
attempt. The diary says what was struck.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TextIO

import httpx
from google.cloud.firestore_v1.base_query import FieldFilter

from shared.domain.deliveries import Status
from shared.platforms.registry import platform_class
from tests.chaos.plan import MINUTE, Command, Fault, Order, Plan
from tests.chaos.promises import Kind, Ordered, Verdict, judge
from tests.chaos.weather import Diary, Weather
from tests.sandbox.children import SandboxError
from tests.sandbox.platforms.values import Post
from tests.sandbox.scheduler import NoAnswerError
from tests.sandbox.stack import LOCATION, Stack
from tests.world import COMPANY, Account, World

LEAST_STEP = timedelta(seconds=3)  # what comes due within it is taken together
CUT_OFF = timedelta(seconds=4)  # real: when the queue gives up a request that nobody answers
REST_SECONDS = 120.0  # real: longer than any deadline of ours
RECONNECTED_AFTER = 4 * MINUTE
PROMOTE_EVERY = 15 * MINUTE
RECOVERY = timedelta(hours=30)  # more than any `latestAt` leaves
SLACK = timedelta(seconds=5)  # a task may be 2 s early, and clocks differ by a read's latency
REPEATED = (408, 429, 500, 502, 503, 504)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Owned:
    """One delivery as its owner knows it: what was ordered last and answered with success."""

    ordered: Ordered
    due: datetime
    word: str = ""  # of its edit
    cancelled: bool = False
    retried: int = 0  # by a person


@dataclass(frozen=True)
class Call:
    """A request of the backend's, repeated as it is until somebody answers."""

    path: str
    body: Mapping[str, Any]
    heard: Callable[[httpx.Response], None]


@dataclass(frozen=True)
class Begun:
    """A delivery's first attempt. `cold`: it was the first one of a fresh instance."""

    late_seconds: float
    cold: bool


@dataclass(frozen=True)
class Outcome:
    """What is known at the end. `rested_after`: from the last fault until nothing was open any
    more; None where it did not come to that."""

    plan: Plan
    verdicts: Sequence[Verdict]
    broken: Sequence[str]  # what became of a delivery against its owner's last order
    accepted: int
    refused: int
    begun: Sequence[Begun]
    late_seconds: Sequence[float]  # from the time ordered until the platform had the post
    played: Mapping[str, int]
    struck: Mapping[str, int]
    errors: int  # answers 500: bugs of ours
    rested_after: timedelta | None

    @property
    def failed(self) -> bool:
        found = any(verdict.findings for verdict in self.verdicts)
        return found or bool(self.broken) or bool(self.errors)


class Storm:
    """Plays a plan against a running system. `stop` ends it early, with what is known then."""

    def __init__(
        self,
        stack: Stack,
        planned: Plan,
        *,
        note: Callable[[str], None] = lambda text: None,
        file: TextIO | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        stack.clock.turn_to(_next_minute(stack.clock.now()))
        self.stack, self.plan, self.world = stack, planned, World(stack)
        self.diary = Diary(stack.clock, file)
        self.weather = Weather(stack, self.diary, self._revoke)
        self.owned: dict[str, Owned] = {}  # by delivery
        self._note, self._stop = note, stop or threading.Event()
        self._posts: dict[int, str] = {}  # by order
        self._refused: dict[int, tuple[str, ...]] = {}  # the marks of orders that were not taken
        self._orders = {order.number: order for order in planned.orders}
        self._again: deque[Call] = deque()
        self._reconnects: list[tuple[datetime, int]] = []
        self._start = self._sweep_at = self.diary.started_at
        self._pool = ThreadPoolExecutor(6, thread_name_prefix="backend")

    def run(self) -> Outcome:
        self.stack.tasks.longest_wait = CUT_OFF
        try:
            self._open()
            self._blow()
        finally:
            self.weather.clear()
        healed_at = self.stack.clock.now()
        self.diary.write("healed")
        rested_after = self._recover(healed_at)
        self._pool.shutdown()
        return self._outcome(healed_at, rested_after)

    # before

    def _open(self) -> None:
        """Accounts and an image; what the storm is not about stays quiet."""
        parent = f"projects/{self.stack.project}/locations/{LOCATION}"
        self.stack.tasks_client.pause_queue(name=f"{parent}/queues/analytics")
        self.image = self.world.image()
        numbers = range(len(self.plan.accounts))
        self.accounts = list(self._pool.map(self._account, numbers))

    def _account(self, number: int) -> Account:
        kind = self.plan.accounts[number]
        more = {"server": kind.server} if kind.server else {}
        return self.world.account(kind.platform, user_id=kind.user_id.format(number), **more)

    # while it blows

    def _blow(self) -> None:
        ends_at = self._start + self.plan.length
        moments = deque(sorted(self._moments().items()))
        while not self._stop.is_set():
            coming = self._start + moments[0][0] if moments else ends_at
            at = self._next(coming)
            self._step(at, moments.popleft()[1] if moments and at >= coming else ())
            if not moments and self.stack.clock.now() >= ends_at:
                return

    def _moments(self) -> dict[timedelta, list[Any]]:
        """What happens when, from the start."""
        moments: dict[timedelta, list[Any]] = defaultdict(list)
        for planned in (*self.plan.faults, *self.plan.orders, *self.plan.commands):
            moments[planned.at].append(planned)
        for at in self.plan.persons:
            moments[at].append(None)
        return moments

    def _next(self, at_most: datetime) -> datetime:
        """The next instant at which something happens."""
        now, wake_at = self.stack.clock.now(), self.stack.tasks.next_wake()
        instants = [at_most, self._sweep_at, self.weather.next_lift()]
        instants += [at for at, _ in self._reconnects]
        if wake_at is not None:
            instants.append(max(wake_at, now + LEAST_STEP))
        return max(now, min(at for at in instants if at is not None))

    def _step(self, at: datetime, events: Iterable[Any]) -> None:
        """Turn to that instant, let happen what happens then, and wait until nothing is under way.
        Faults are armed before what they strike sets out."""
        events = list(events)
        for event in events:
            if isinstance(event, Fault):
                self.weather.play(event)
        if at > self.stack.clock.now():
            self.stack.clock.turn_to(at)
        acts = [*self._due(), *(act for event in events for act in self._acts(event))]
        for done in [self._pool.submit(act) for act in acts]:
            done.result()
        self._rest()
        self.weather.tend()
        self._tell()

    def _acts(self, event: Any) -> Iterator[Callable[[], None]]:
        match event:
            case Order():
                yield partial(self._order, event)
            case Command():
                yield partial(self._command, event)
            case None:
                yield self._mend_what_failed

    def _due(self) -> Iterator[Callable[[], None]]:
        """What is repeated, what Scheduler does, who reconnects."""
        now = self.stack.clock.now()
        while self._again and (call := self._again.popleft()):
            yield partial(self._send, call)
        if now >= self._sweep_at:
            yield from self._slots(self._sweep_at)
            self._sweep_at = _next_minute(now)
        for entry in [entry for entry in self._reconnects if entry[0] <= now]:
            self._reconnects.remove(entry)
            yield partial(self._reconnect, entry[1])

    def _slots(self, slot: datetime) -> Iterator[Callable[[], None]]:
        weather = self.weather
        if weather.scheduler_down:
            return
        if weather.skips > 0:
            weather.skips -= 1
            return
        yield partial(self._fire, "sweep", slot)
        if weather.repeats > 0:
            weather.repeats -= 1
            yield partial(self._fire, "sweep", slot)
        if not (slot - self._start) % PROMOTE_EVERY:
            yield partial(self._fire, "promote", slot)

    def _fire(self, job: str, slot: datetime) -> None:
        """Whatever the answer is, Scheduler leaves it at that: the next slot comes."""
        try:
            answer = self.stack.scheduler.fire(job, scheduled_at=slot)
        except NoAnswerError as error:
            self.diary.write(job, answer=str(error))
        else:
            self.diary.write(job, answer=answer.text)

    def _rest(self) -> None:
        """Wait until nothing is under way, but at frozen instances."""
        ends_at = time.monotonic() + REST_SECONDS
        while not self.stack.tasks.still(1) or self.weather.busy():
            if time.monotonic() > ends_at:
                raise SandboxError(f"Nothing came to rest within {REST_SECONDS:.0f} s.")
            time.sleep(0.005)

    def _tell(self) -> None:
        at, platforms = self.stack.clock.now() - self._start, self.stack.platforms
        there = sum(len(platforms.dialect(name).posts) for name in platforms.names)
        self._note(
            f"{clock_face(at)} of {clock_face(self.plan.length)}  "
            f"{len(self._posts)} of {len(self.plan.orders)} posts ordered, "
            f"{there} of {len(self.owned)} deliveries there, "
            f"{self.diary.played.total()} faults played"
        )

    # the backend

    def _order(self, order: Order) -> None:
        due = self.stack.clock.now() if order.due is None else self._start + order.due
        owned = [self.accounts[target] for target in order.targets]
        marks = [self._marks(order, target) for target in order.targets]
        body = {
            "companyId": COMPANY,
            "userId": "user-1",
            "content": f"Post {order.number}",
            "mediaAssetIds": [self.image] if order.shows else [],
            "scheduledAt": due.isoformat(),
            "latestAt": (due + order.latest_after).isoformat() if order.latest_after else None,
            "idempotencyKey": f"order-{order.number}",
            "platforms": [
                {
                    **account.target,
                    "customContent": f"Post {order.number} {first} as planned",
                    **_following(account.platform, more),
                }
                for account, (first, *more) in zip(owned, marks, strict=True)
            ],
        }

        def heard(answer: httpx.Response) -> None:
            if answer.status_code != 201:
                self._refused[order.number] = tuple(itertools.chain(*marks))
                self.diary.write("refused", order=order.number, why=answer.text)
                return
            self._posts[order.number] = post_id = answer.json()["postId"]
            for account, each in zip(owned, marks, strict=True):
                ordered = Ordered(post_id, account.platform, account.id, account.user_id, each)
                self.owned[ordered.delivery_id] = Owned(ordered, due)
                self.diary.write("ordered", marks=each, delivery=ordered.delivery_id, due=due)

        self._send(Call("/schedule", body, heard))

    def _marks(self, order: Order, target: int) -> tuple[str, ...]:
        """What the text of each part holds."""
        first = f"seed{self.plan.seed}post{order.number}to{target}"
        known = platform_class(self.accounts[target].platform)()
        follows = order.goes_on and (known.threads or known.first_comment)
        return (first, first.replace("post", "more")) if follows else (first,)

    def _command(self, command: Command) -> None:
        post_id = self._posts.get(command.order)
        if post_id is None:
            return
        key = f"{command.verb}-{command.order}"
        body: dict[str, Any] = {"companyId": COMPANY, "postId": post_id, "idempotencyKey": key}
        if command.due is not None:
            body["scheduledAt"] = (self._start + command.due).isoformat()
        if command.verb == "edit":
            body["platforms"] = [
                {"platform": one.platform, "accountId": one.account_id, "customContent": text}
                for one, text in self._edited(command.order, post_id)
            ]
        self._send(Call(f"/{command.verb}", body, partial(self._commanded, command)))

    def _edited(self, order: int, post_id: str) -> Iterator[tuple[Ordered, str]]:
        for target in self._orders[order].targets:
            account = self.accounts[target]
            marks = self._marks(self._orders[order], target)
            ordered = Ordered(post_id, account.platform, account.id, account.user_id, marks)
            yield ordered, f"Post {order} {marks[0]} edited"

    def _commanded(self, command: Command, answer: httpx.Response) -> None:
        if answer.status_code != 200:
            return  # too late, or in the past: nothing was promised
        for shown in answer.json()["applied"]:
            owned = self.owned[shown["deliveryId"]]
            self.diary.write(command.verb, delivery=shown["deliveryId"])
            match command.verb:
                case "edit":
                    owned.word = "edited"
                case "cancel":
                    owned.cancelled = True
                case "reschedule":
                    assert command.due is not None
                    owned.due = self._start + command.due

    def _mend_what_failed(self) -> None:
        """A person reconnects what has expired, and goes through the open dead letters, twice for
        each delivery at most."""
        states = self.stack.records("socialAccounts")
        for number, account in enumerate(self.accounts):
            if states[account.id]["status"] == "expired":
                self._reconnect(number)
        letters = self.stack.db.collection("deadLetters")
        for found in letters.where(filter=FieldFilter("status", "==", "open")).stream():
            letter = found.to_dict()
            owned = self.owned.get(letter["deliveryId"])
            if owned is None or owned.retried > 1:
                continue
            owned.retried += 1
            body = {
                "companyId": COMPANY,
                "postId": owned.ordered.post_id,
                "platform": owned.ordered.platform,
                "accountId": owned.ordered.account_id,
                "idempotencyKey": f"retry-{found.id}-{owned.retried}",
            }
            self._send(Call("/retry", body, lambda answer: None))

    def _revoke(self, number: int) -> None:
        """The platform takes none of the account's tokens any more, until it is reconnected."""
        account = self.accounts[number]
        dialect = self.stack.platforms.dialect(account.platform)
        with dialect.lock:
            for token in dialect.tokens.values():
                token.revoked = token.revoked or account.user_id in token.user_ids
        self._reconnects.append((self.stack.clock.now() + RECONNECTED_AFTER, number))

    def _reconnect(self, number: int) -> None:
        old, at = self.accounts[number], self.stack.clock.now().timestamp()
        fresh = {"access_token": f"fresh-access-{number}-{at}"}
        fresh |= {"refresh_token": f"fresh-refresh-{number}-{at}"}
        account = self.accounts[number] = replace(old, **fresh)
        self.stack.platforms.add_account(
            account.platform, account.user_id, account.access_token, account.refresh_token
        )
        body = {
            "companyId": COMPANY,
            "accountId": account.id,
            "platform": account.platform,
            "platformUserId": account.user_id,
            "accessToken": account.access_token,
            "refreshToken": account.refresh_token,
            "server": self.plan.accounts[number].server,
        }
        self._send(Call("/accounts/connect", body, lambda answer: None))

    def _send(self, call: Call) -> None:
        try:
            answer = self.world.call(call.path, dict(call.body))
        except httpx.HTTPError:
            self._again.append(call)
            return
        if answer.status_code in REPEATED:
            self._again.append(call)
        else:
            call.heard(answer)

    # after

    def _recover(self, healed_at: datetime) -> timedelta | None:
        """Turn the clock until nothing is open; nobody helps but Scheduler."""
        while not self._stop.is_set():
            self._step(self._next(self._sweep_at), ())
            took = self.stack.clock.now() - healed_at
            if took > RECOVERY:
                return None
            if not (self._again or self._reconnects or self._anything_open()):
                for _ in range(2):  # roll-ups that no last delivery stored
                    self._step(self._next(self._sweep_at), ())
                return took
        return None

    def _anything_open(self) -> bool:
        """Whatever is open has a time at which the sweep would look."""
        logs = self.stack.db.collection("publishLogs")
        due = logs.where(filter=FieldFilter("sweepAt", ">", EPOCH)).limit(1)
        return any(True for _ in due.stream())

    def _outcome(self, healed_at: datetime, rested_after: timedelta | None) -> Outcome:
        self._note("Judging …")
        judged = judge(self.stack, [owned.ordered for owned in self.owned.values()])
        rested = rested_after is not None
        verdicts = [_of_what_rests(self._with_recovery(one, healed_at), rested) for one in judged]
        there = _by_word(self.stack.platforms.posts())
        failures = self.stack.events("request.failed")
        return Outcome(
            plan=self.plan,
            verdicts=verdicts,
            broken=[*self._broken(verdicts, there, rested)],
            accepted=len(self._posts),
            refused=len(self._refused),
            begun=[*first_attempts(self.stack.events("publish.begun"))],
            late_seconds=[*self._late(there)],
            played=dict(self.diary.played),
            struck=dict(self.diary.struck),
            errors=sum(line["message"].endswith(" 500") for line in failures),
            rested_after=rested_after,
        )

    def _with_recovery(self, verdict: Verdict, healed_at: datetime) -> Verdict:
        """For what was due in the storm and came to its end after it."""
        owned = self.owned[verdict.ordered.delivery_id]
        since = verdict.rests_since
        if since is None or since < healed_at or owned.due > healed_at:
            return verdict
        return replace(verdict, recovery=since - healed_at)

    def _broken(
        self, verdicts: Sequence[Verdict], there: Mapping[str, list[Post]], rested: bool
    ) -> Iterator[str]:
        for number, marks in self._refused.items():
            if any(there.get(mark) for mark in marks):
                yield f"order {number} was refused, and is there"
        for verdict in verdicts:
            owned = self.owned[verdict.ordered.delivery_id]
            for why in _against_orders(owned, verdict, there, rested):
                yield f"{verdict.ordered.delivery_id} ({owned.ordered.platform}): {why}"

    def _late(self, there: Mapping[str, list[Post]]) -> Iterator[float]:
        """How late posts came that no person had to send again."""
        for owned in self.owned.values():
            for post in there.get(owned.ordered.marks[0], ()):
                if not owned.retried:
                    yield (post.at - owned.due).total_seconds()


def _following(platform: str, marks: Sequence[str]) -> dict[str, Any]:
    """What comes after a post: replies to it, or its first comment."""
    if not marks:
        return {}
    if platform_class(platform)().threads:
        return {"thread": [{"content": f"More {mark}"} for mark in marks]}
    return {"options": {"firstComment": f"More {marks[0]}"}}


def _of_what_rests(verdict: Verdict, rested: bool) -> Verdict:
    """Interrupted, a roll-up may be on its way: the sweep has not had its time."""
    kept = tuple(found for found in verdict.findings if rested or found.kind is not Kind.ROLL_UP)
    return replace(verdict, findings=kept)


def _against_orders(
    owned: Owned, verdict: Verdict, there: Mapping[str, list[Post]], rested: bool
) -> Iterator[str]:
    posts = there.get(owned.ordered.marks[0], [])
    if owned.cancelled and verdict.status not in (Status.CANCELLED, Status.UNKNOWN):
        yield f"it was cancelled, and is {verdict.status}"
    if rested and verdict.rests_since is None:
        yield f"it is {verdict.status}, and nothing will wake it"
    for post in posts:
        if post.at < owned.due - SLACK:
            yield f"it was there at {post.at:%H:%M:%S}, before its time {owned.due:%H:%M:%S}"
        if owned.word not in post.text:
            yield "it was sent without the edit that had been applied"


def first_attempts(begun: Iterable[Mapping[str, Any]]) -> Iterator[Begun]:
    """From the functions' own lines, in the order in which they came."""
    instances: set[str] = set()
    deliveries: set[tuple[str, int]] = set()
    for line in begun:
        cold = line["instance"] not in instances
        instances.add(line["instance"])
        delivery = (line["deliveryId"], line["generation"])
        if delivery not in deliveries:
            deliveries.add(delivery)
            yield Begun(line["latenessMs"] / 1000, cold)


def _by_word(posts: Iterable[Post]) -> dict[str, list[Post]]:
    found: dict[str, list[Post]] = defaultdict(list)
    for post in posts:
        for word in post.text.split():
            found[word].append(post)
    return found


def _next_minute(instant: datetime) -> datetime:
    return instant.replace(second=0, microsecond=0) + MINUTE


def clock_face(length: timedelta) -> str:
    minutes, seconds = divmod(int(length.total_seconds()), 60)
    return f"{minutes}:{seconds:02}"
