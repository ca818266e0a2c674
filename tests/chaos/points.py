"""Break the system at every effect on the way of a delivery, let it recover by itself, and judge.

`SCENARIOS` holds, for each kind of account, the effects of a delivery that goes well, in order. A
plain run is held against that list: an effect that nobody wrote down is a failing test. Then every
point is broken in three ways, alone and in pairs: the second fault strikes any effect that came
after the first one, in the same run or during recovery.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import httpx
from google.cloud import tasks_v2

from shared.domain.deliveries import PublishLog
from tests.chaos.promises import (
    GUARANTEES,
    Ordered,
    Verdict,
    fresh_mark,
    guarantee_of,
    judge,
    rests_by,
)
from tests.chaos.wires import AT_ONCE, Case, Fault, Mode, Wires
from tests.sandbox.children import SandboxError
from tests.sandbox.stack import BUCKET
from tests.world import JPEG, Account, World

# What a task hears before the lease has run out is `busy`, which tests of their own show: the clock
# is turned past it, then to where a lookup finds the window of each key open.
WAITS = (timedelta(seconds=64), timedelta(seconds=31))
MP4 = b"\x00\x00\x00\x18ftypisom" + b"a small film" * 20
LAST_WAIT = timedelta(seconds=60)
DUE_AFTER = timedelta(seconds=20)
LATEST_AFTER = timedelta(hours=2)
BACKEND_TRIES = 8
TOKEN_LIFE = timedelta(days=365)
SETTLES_WITHIN = 60.0  # real seconds


@dataclass(frozen=True)
class Scenario:
    """A kind of account, and the effects of a delivery to it that goes well."""

    name: str
    platform: str
    user_id: str
    publishes: tuple[str, ...]  # from the claim to the settled outcome
    media: tuple[str, ...] = ()
    slow: str | None = None  # the call after which the platform works on it for a while
    server: str | None = None
    parts: int = 1  # of a thread
    comment: bool = False  # the second part is a first comment

    @property
    def points(self) -> tuple[str, ...]:
        return (*SCHEDULED, *self.publishes, *SETTLED)

    @property
    def guarantee(self) -> str:
        return GUARANTEES[type(guarantee_of(self.platform, self.user_id))]


IMAGE, OTHER, FILM = "points.jpg", "other.jpg", "points.mp4"
SCHEDULED = ("schedule", "create task", "answer schedule_post", "claim")
SETTLED = ("settle", "roll-up", "create metrics task", "answer publish_post")
SENT = ("committing", "create post")
COMMENTED = ("committing", "create comment")
CONTAINED = ("create container", "state", "read container")
CAROUSEL = ("create container", "state") * 2
WORKED_ON = ("settle accepted", "create next task", "answer publish_post", "claim")
SCENARIOS = (
    Scenario("bluesky", "bluesky", "did:plc:acme{}", ("state", *SENT), server="b.example"),
    Scenario(
        "instagram",
        "instagram",
        "1784140000{:07}",
        (*CONTAINED, "committing", "publish container", "read post"),
        media=(IMAGE,),
    ),
    Scenario("mastodon", "mastodon", "10934{:05}", SENT, server="m.example"),
    Scenario("discord bot", "discord", "4177198342{:05}", (*SENT, "read channel")),
    Scenario("x with an image", "twitter", "{}", ("upload", "state", *SENT), media=(IMAGE,)),
    Scenario("linkedin member", "linkedin", "urn:li:person:{}", SENT),
    Scenario("discord webhook", "discord", "webhook:41771983{:05}", (*SENT, "read channel")),
    Scenario(
        "facebook",
        "facebook",
        "10000000{:05}",
        ("upload", "state", *SENT, "read post"),
        media=(IMAGE,),
    ),
    Scenario(
        "threads",
        "threads",
        "1784150000{:07}",
        (*CONTAINED, "committing", "publish container", "read post"),
    ),
    Scenario("slack", "slack", "C{:09}", (*SENT, "read permalink")),
    Scenario(
        "slack with an image",
        "slack",
        "C1{:08}",
        ("begin upload", "upload", "state", *SENT, "read file", "read permalink"),
        media=(IMAGE,),
    ),
    Scenario("telegram", "telegram", "-100{:010}", SENT),
    Scenario(
        "linkedin with a comment",
        "linkedin",
        "urn:li:organization:{}",
        (*SENT, *COMMENTED),
        parts=2,
        comment=True,
    ),
    Scenario(
        "facebook with a comment",
        "facebook",
        "10100000{:05}",
        (*SENT, "read post", *COMMENTED),
        parts=2,
        comment=True,
    ),
    Scenario(
        "instagram with a comment",
        "instagram",
        "1784160000{:07}",
        (*CONTAINED, "committing", "publish container", "read post", *COMMENTED),
        media=(IMAGE,),
        parts=2,
        comment=True,
    ),
    Scenario(
        "facebook with a film",
        "facebook",
        "10200000{:05}",
        ("committing", "create video", *WORKED_ON, "read video", *WORKED_ON, "read video"),
        media=(FILM,),
        slow="create video",
    ),
    Scenario(
        "instagram with a carousel",
        "instagram",
        "1784170000{:07}",
        (*CAROUSEL, *CONTAINED, "committing", "publish container", "read post"),
        media=(IMAGE, OTHER),
    ),
    Scenario(
        "threads with a carousel",
        "threads",
        "1784180000{:07}",
        (*CAROUSEL, *CONTAINED, "committing", "publish container", "read post"),
        media=(IMAGE, OTHER),
    ),
    Scenario(
        "linkedin with a film",
        "linkedin",
        "urn:li:organization:7{}",
        ("begin upload", "state", "upload", "begin upload", "state", "read media", *SENT),
        media=(FILM,),
    ),
    Scenario(
        "x with a film",
        "twitter",
        "{}",
        ("begin upload", "upload", "end upload", "state", *WORKED_ON, "read media", *SENT),
        media=(FILM,),
        slow="end upload",
    ),
    Scenario(
        "mastodon with a film",
        "mastodon",
        "10935{:05}",
        ("upload", "state", "read media", *WORKED_ON, "read media", *SENT),
        server="m.example",
        media=(FILM,),
        slow="upload",
    ),
    Scenario(
        "bluesky with an image",
        "bluesky",
        "did:plc:image{}",
        ("upload", "state", "state", *SENT),
        server="b.example",
        media=(IMAGE,),
    ),
    Scenario("telegram with images", "telegram", "-101{:010}", SENT, media=(IMAGE, OTHER)),
    Scenario(
        "discord bot with an image",
        "discord",
        "4177198352{:05}",
        (*SENT, "read channel"),
        media=(IMAGE,),
    ),
    Scenario(
        "slack with a film",
        "slack",
        "C2{:08}",
        ("begin upload", "upload", "state", *SENT, "read file", "read permalink"),
        media=(FILM,),
    ),
    Scenario("thread on x", "twitter", "{}", SENT * 3, parts=3),
    Scenario(
        "thread on bluesky",
        "bluesky",
        "did:plc:thread{}",
        ("state", *SENT, *("find post", "state", *SENT) * 2),
        server="b.example",
        parts=3,
    ),
)


@dataclass(frozen=True)
class Run:
    """One case as it went: which faults met which effects, what came after, and the verdict."""

    scenario: Scenario
    faults: tuple[Fault, ...]
    struck: tuple[tuple[str, Mode], ...]
    effects: tuple[str, ...]
    later: int  # effects after the last fault
    verdict: Verdict

    @property
    def name(self) -> str:
        broken = ", then ".join(f"`{effect}` {mode}" for effect, mode in self.struck)
        return f"{self.scenario.name}: {broken or 'nothing broken'}"


Plan = tuple[Scenario, tuple[Fault, ...]]


def plain(scenarios: Iterable[Scenario] = SCENARIOS) -> list[Plan]:
    return [(scenario, ()) for scenario in scenarios]


def singles(scenarios: Iterable[Scenario] = SCENARIOS) -> list[Plan]:
    """Every point of each scenario, broken in each way."""
    return [
        (scenario, (Fault(at, mode),))
        for scenario in scenarios
        for at in range(len(scenario.points))
        for mode in Mode
    ]


def of_each_guarantee() -> list[Scenario]:
    """The first one of each kind."""
    kinds = {scenario.guarantee: scenario for scenario in reversed(SCENARIOS)}
    return [scenario for scenario in SCENARIOS if scenario in kinds.values()]


def own_singles(scenarios: Iterable[Scenario]) -> list[Plan]:
    """The points of publishing and the outcome: what comes before and after is the same for all."""
    return [
        (scenario, faults)
        for scenario, faults in singles(scenarios)
        if 0 <= faults[0].skip - len(SCHEDULED) <= len(scenario.publishes)
    ]


def pairs(runs: Iterable[Run]) -> list[Plan]:
    """A second fault at each effect that came after the first, as the singles went."""
    return [
        (run.scenario, (*run.faults, Fault(at, mode)))
        for run in runs
        for at in range(run.later)
        for mode in Mode
    ]


def chosen(plans: Sequence[Plan], many: int, seed: int) -> list[Plan]:
    return random.Random(seed).sample(plans, min(many, len(plans)))


# --- running them -------------------------------------------------------------------------------


@dataclass
class _Journey:
    """A case under way."""

    scenario: Scenario
    account: Account
    case: Case
    ordered: Ordered
    due_at: datetime


class Campaign:
    """Runs cases on one system, some at a time: while they recover, the next ones begin. An account
    is used again once its delivery rests."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._stack = world.stack
        self._numbers = itertools.count(1)
        self._idle: dict[str, list[Account]] = {}

    @contextmanager
    def opened(self) -> Iterator[Campaign]:
        """The system with its wires watched; as it was, afterwards."""
        for number, name in enumerate((IMAGE, OTHER)):
            self._world.stack.storage.put(BUCKET, name, JPEG + bytes([number]), "image/jpeg")
            about = {"sizeBytes": len(JPEG) + 1}
            self._world.media(name, f"gs://{BUCKET}/{name}", **about)
        self._world.stack.storage.put(BUCKET, FILM, MP4, "video/mp4")
        about = {"sizeBytes": len(MP4), "contentType": "video/mp4"}
        self._world.media(FILM, f"gs://{BUCKET}/{FILM}", **about)
        for scenario in SCENARIOS:
            if scenario.slow is not None:
                self._stack.platforms.misbehave(
                    scenario.platform, scenario.slow, "processing", polls=1, times=None
                )
        self._world.sweep()  # starts the function, which sleeps until then
        self._set_rates(per_second=500, at_once=50)
        # That some platforms refuse a text they know is their habit, and would hide a double.
        self._set_duplicate_window(timedelta(0))
        self._wires = Wires(self._stack)
        self._wires.open()
        # Metrics are of no interest here, and come due an hour later.
        self._stack.tasks.faults.lose_task(queue="analytics", times=None)
        try:
            with ThreadPoolExecutor(AT_ONCE) as self._backends:
                yield self
        finally:
            self._wires.close()
            self._set_rates(per_second=10, at_once=5)
            self._set_duplicate_window(timedelta(hours=24))

    def run(self, plans: Sequence[Plan], tell: Callable[[int], None] = lambda _: None) -> list[Run]:
        """Play them all, and judge each when nothing is under way any more."""
        journeys: dict[int, _Journey] = {}
        under_way: list[_Journey] = []
        # One process dies for many: those that kill the same function at the same time go together.
        order = sorted(range(len(plans)), key=lambda at: _struck(plans[at]))
        for first in range(0, len(order), AT_ONCE):
            numbers = order[first : first + AT_ONCE]
            begun = self._begin([plans[at] for at in numbers])
            journeys.update(zip(numbers, begun, strict=True))
            for wait in WAITS:
                self._turn(wait)
            under_way = self._unrested([*under_way, *begun])
            tell(len(journeys))
        while under_way or self._waiting():
            self._turn(LAST_WAIT)
            under_way = self._unrested(under_way)
            tell(len(journeys))
        return self._judged([journeys[at] for at in range(len(plans))])

    def _begin(self, plans: Sequence[Plan]) -> list[_Journey]:
        """Schedule them at the same moment, to become due at the same moment."""
        due_at = self._stack.clock.now() + DUE_AFTER
        cases = [
            (scenario, self._account(scenario), Case(fresh_mark(), faults))
            for scenario, faults in plans
        ]
        for _, account, case in cases:
            self._wires.know(case, case.mark, account.access_token)
        journeys = list(self._backends.map(lambda one: self._schedule(due_at, *one), cases))
        self._stack.clock.turn(max(timedelta(0), due_at - self._stack.clock.now()))
        self._stack.settle(SETTLES_WITHIN)
        return journeys

    def _schedule(
        self, due_at: datetime, scenario: Scenario, account: Account, case: Case
    ) -> _Journey:
        """As a backend does: until it is answered, with the same key."""
        marks = (case.mark, *(fresh_mark() for _ in range(scenario.parts - 1)))
        more = [f"More bread {mark}" for mark in marks[1:]]
        follows: dict[str, Any] = {"thread": [{"content": text} for text in more]}
        if scenario.comment:
            follows = {"options": {"firstComment": more[0]}}
        order = self._world.order(
            [account],
            after=due_at,
            content=f"Fresh bread {case.mark}",
            platforms=[account.target | follows],
            latestAt=(due_at + LATEST_AFTER).isoformat(),
            mediaAssetIds=list(scenario.media),
        )
        for _ in range(BACKEND_TRIES):
            try:
                answer = self._world.call("/schedule", order)
            except httpx.TransportError:
                continue
            if answer.status_code in (200, 201):
                post_id = answer.json()["postId"]
                ordered = Ordered(post_id, account.platform, account.id, account.user_id, marks)
                return _Journey(scenario, account, case, ordered, due_at)
            if answer.status_code != 503:
                raise SandboxError(f"{scenario.name} cannot be scheduled: {answer.text}")
        raise SandboxError(f"{scenario.name} was not scheduled in {BACKEND_TRIES} tries")

    def _account(self, scenario: Scenario) -> Account:
        idle = self._idle.setdefault(scenario.name, [])
        if idle:
            return idle.pop()
        number = next(self._numbers)
        account = Account(
            id=f"{scenario.platform}-point-{number}",
            platform=scenario.platform,
            user_id=scenario.user_id.format(number),
            access_token=fresh_mark(),  # the wires know whose call it is
            refresh_token=f"refresh-{number}",
        )
        self._stack.platforms.add_account(
            account.platform, account.user_id, account.access_token, expires_in=TOKEN_LIFE
        )
        answer = self._world.connect(account, server=scenario.server)
        if answer.status_code != 200:
            raise SandboxError(f"{scenario.name} cannot be connected: {answer.text}")
        return account

    # time

    def _turn(self, by: timedelta) -> None:
        """Turn the clock; what is due happens, then the sweep, then what it woke."""
        self._stack.clock.turn(by)
        self._stack.settle(SETTLES_WITHIN)
        self._stack.post("maintain", "/sweep", {}, role="scheduler")  # which may die on its way
        self._stack.settle(SETTLES_WITHIN)

    def _unrested(self, journeys: Sequence[_Journey]) -> list[_Journey]:
        """Those of which more is to come; the accounts of the others are free."""
        rested = self._rested(journeys)
        for journey in journeys:
            if journey.ordered.delivery_id in rested:
                self._idle[journey.scenario.name].append(journey.account)
        return [one for one in journeys if one.ordered.delivery_id not in rested]

    def _rested(self, journeys: Sequence[_Journey]) -> set[str]:
        """Settled and rolled up, or past the time by which they must be. Most are neither, and
        their logs are long: the posts are asked first."""
        db, now = self._stack.db, self._stack.clock.now()
        posts = [db.document("scheduledPosts", one.ordered.post_id) for one in journeys]
        rolled_up = {
            seen.id
            for seen in db.get_all(posts, field_paths=["status"])
            if seen.get("status") not in ("pending", "processing")
        }
        logs = [
            db.document("publishLogs", one.ordered.delivery_id)
            for one in journeys
            if one.ordered.post_id in rolled_up or now > one.due_at + LATEST_AFTER
        ]
        rested = set()
        for seen in db.get_all(logs):
            log = PublishLog.model_validate(seen.to_dict())
            if (log.post_id in rolled_up and not log.is_open) or now > rests_by(log):
                rested.add(seen.id)
        return rested

    def _waiting(self) -> bool:
        """Whether a publish queue still holds a task."""
        queues = {scenario.platform for scenario in SCENARIOS}
        return any(self._stack.tasks.tasks(f"publish-{name}") for name in queues)

    def _judged(self, journeys: Sequence[_Journey]) -> list[Run]:
        verdicts = judge(self._stack, [one.ordered for one in journeys])
        return [
            Run(
                scenario=one.scenario,
                faults=one.case.faults,
                struck=tuple((effect, mode) for effect, mode, _ in one.case.struck),
                effects=tuple(one.case.effects),
                later=one.case.later,
                verdict=replace(verdict, recovery=_recovery(one, verdict.rests_since)),
            )
            for one, verdict in zip(journeys, verdicts, strict=True)
        ]

    def _set_duplicate_window(self, window: timedelta) -> None:
        for scenario in SCENARIOS:
            getattr(self._stack.platforms, scenario.platform).duplicate_window = window

    def _set_rates(self, *, per_second: int, at_once: int) -> None:
        """A queue slows down for minutes after each 503, which would be waited for in real time."""
        limits = tasks_v2.RateLimits(
            max_dispatches_per_second=per_second, max_concurrent_dispatches=at_once
        )
        names = ("max_dispatches_per_second", "max_concurrent_dispatches")
        mask = {"paths": [f"rate_limits.{name}" for name in names]}
        for platform in {scenario.platform for scenario in SCENARIOS}:
            name = next(
                queue.name
                for queue in self._stack.tasks.queues()
                if queue.name.endswith(f"/publish-{platform}")
            )
            changed = tasks_v2.Queue(name=name, rate_limits=limits)
            self._stack.tasks_client.update_queue(queue=changed, update_mask=mask)


def _struck(plan: Plan) -> tuple[bool, list[bool]]:
    """Whether the first fault strikes while the post is being scheduled, and which faults kill."""
    _, faults = plan
    scheduling = bool(faults) and faults[0].skip < len(SCHEDULED) - 1
    return scheduling, [fault.mode is not Mode.LOST for fault in faults]


def _recovery(journey: _Journey, rests_since: datetime | None) -> timedelta | None:
    """From the first fault, or the time that the post was due, until it and its post rested."""
    if not journey.case.struck or rests_since is None:
        return None
    _, _, struck_at = journey.case.struck[0]
    return max(timedelta(0), rests_since - max(struck_at, journey.due_at))
