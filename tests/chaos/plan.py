"""What a storm will do, drawn from its seed before anything runs: the same seed, the same plan.

Instants are counted from the start, on the sandbox's clock. Posts are due at whole minutes, as most
people's are, so that many deliveries meet. Kinds of faults come from decks that are shuffled and
dealt to the last card, so that a short storm has seen nearly every kind once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

MINUTE = timedelta(minutes=1)
GRID = timedelta(seconds=10)
NONE = timedelta(0)

POINTS_A_MINUTE = 5
SPAN_EVERY = timedelta(seconds=75)
RARE_EVERY = timedelta(minutes=7)  # these cost real time: from 2 s to 21 s each
PERSON_EVERY = timedelta(minutes=10)  # someone retries what has failed
SPAN_SECONDS = (15, 150)

STORE_POINTS = ("store refuses", "store loses answers", "store is slow")
FUNCTION_POINTS = ("worker killed before", "worker killed after", "worker killed in call")
WIRE_POINTS = ("request dropped", "answer dropped", "task's reply lost", "queue purged")
SLOT_POINTS = ("slot skipped", "slot repeated")
PLATFORM_POINTS = (
    "error_before",
    "error_after",
    "drop_before",
    "drop_after",
    "slow",
    "garbage",
    "no_id",
    "throttle",
    "processing",
    "token refused",
)
POINTS = (
    *(*STORE_POINTS, *FUNCTION_POINTS, "instance killed"),
    *(*WIRE_POINTS, *SLOT_POINTS, *PLATFORM_POINTS),
)
SPANS = (
    "store down",
    "queue refuses",
    "queue not ready",
    "tasks lost",
    "tasks twice at once",
    "tasks twice",
    "tasks late",
    "tasks shuffled",
    "functions unreachable",
    "platform down",
    "scheduler down",
)
RARE = ("all instances gone", "store silent", "frozen", "token revoked")
BROKEN = ("publish_post", "publish_post", "publish_post", "schedule_post", "maintain")


@dataclass(frozen=True)
class AccountKind:
    """How accounts of one kind are called on their platform. `shows`: it takes no post without an
    image."""

    platform: str
    user_id: str
    server: str | None = None
    shows: bool = False


ACCOUNTS = (  # each platform of the registry, and each guarantee that it has
    AccountKind("bluesky", "did:plc:storm{:04d}", server="bread.example"),
    AccountKind("discord", "4177198342{:07d}"),
    AccountKind("discord", "webhook:88{:05d}"),
    AccountKind("facebook", "1000000000{:04d}"),
    AccountKind("instagram", "1784140000000{:04d}", shows=True),
    AccountKind("linkedin", "urn:li:person:storm{:04d}"),
    AccountKind("linkedin", "urn:li:organization:77{:04d}"),
    AccountKind("mastodon", "1093486842{:04d}", server="bread.example"),
    AccountKind("slack", "C00000{:04d}"),
    AccountKind("telegram", "-100000000{:04d}"),
    AccountKind("threads", "1784150000000{:04d}"),
    AccountKind("twitter", "14678{:05d}"),
)
PLATFORMS = tuple(dict.fromkeys(kind.platform for kind in ACCOUNTS))


@dataclass(frozen=True)
class Order:
    """A post that is scheduled `at` for `due` (None: at once) to these accounts."""

    number: int
    at: timedelta
    due: timedelta | None
    targets: tuple[int, ...]  # of the plan's accounts
    shows: bool  # with an image
    goes_on: bool  # with a reply to it, or a first comment, where the platform takes either
    latest_after: timedelta | None

    @property
    def falls_due(self) -> timedelta:
        return self.at if self.due is None else self.due


@dataclass(frozen=True)
class Command:
    """What the owner of an order does to it later: edit, cancel, reschedule."""

    at: timedelta
    verb: str
    order: int
    due: timedelta | None = None


@dataclass(frozen=True)
class Fault:
    """One fault. `where`: a platform or a function; it strikes the `nth` call from `at` on and
    `times` calls in all, or by `chance` those of the time that it `lasts`."""

    number: int
    at: timedelta
    kind: str
    where: str = ""
    nth: int = 1
    times: int = 1
    chance: float = 1.0
    lasts: timedelta = NONE
    seconds: int = 0
    choice: int = 0


@dataclass(frozen=True)
class Plan:
    seed: int
    length: timedelta
    accounts: tuple[AccountKind, ...]
    orders: tuple[Order, ...]
    commands: tuple[Command, ...]
    faults: tuple[Fault, ...]
    persons: tuple[timedelta, ...] = field(default=())


def plan(seed: int, posts: int, minutes: int) -> Plan:
    """Posts are scheduled and due, and faults played, within `minutes`."""
    dice = Random(seed)
    length = minutes * MINUTE
    accounts = ACCOUNTS * max(1, min(16, posts // 60))
    orders = tuple(_order(dice, number, minutes, accounts) for number in range(posts))
    commands = sorted(_commands(dice, orders, minutes), key=lambda command: command.at)
    persons = int(length / PERSON_EVERY)
    return Plan(
        seed=seed,
        length=length,
        accounts=accounts,
        orders=tuple(sorted(orders, key=lambda order: order.at)),
        commands=tuple(commands),
        faults=tuple(_faults(dice, length, accounts)),
        persons=tuple(PERSON_EVERY * (n + 1) for n in range(persons)),
    )


def _order(dice: Random, number: int, minutes: int, accounts: Sequence[AccountKind]) -> Order:
    at = _seconds(dice, 0, (minutes - 1) * 60)
    first = int(at / MINUTE) + 1
    due = dice.randint(first, min(minutes, first + 8)) * MINUTE
    count = dice.choices((1, 2, 3), (55, 30, 15))[0]
    targets = tuple(dice.sample(range(len(accounts)), count))
    shows = any(accounts[target].shows for target in targets) or dice.random() < 0.15
    latest_after = dice.randint(8, 20) * MINUTE if dice.random() < 0.08 else None
    at_once = dice.random() < 0.08
    goes_on = dice.random() < 0.25
    return Order(number, at, None if at_once else due, targets, shows, goes_on, latest_after)


def _commands(dice: Random, orders: Sequence[Order], minutes: int) -> Iterator[Command]:
    """At most one of each verb for an order: what was answered last is then what must hold."""
    for order in orders:
        for verb, chance in (("edit", 0.1), ("cancel", 0.06), ("reschedule", 0.08)):
            if dice.random() >= chance:
                continue
            latest = max(order.falls_due, order.at + MINUTE).total_seconds()
            at = _seconds(dice, order.at.total_seconds() + 1, latest + 5)
            first = int(at / MINUTE) + 1
            moved = dice.randint(first, first + 8) * MINUTE if verb == "reschedule" else None
            yield Command(at, verb, order.number, moved)


def _faults(dice: Random, length: timedelta, accounts: Sequence[AccountKind]) -> Iterator[Fault]:
    total = length.total_seconds()
    kinds = (_dealt(dice, POINTS), _dealt(dice, SPANS), _dealt(dice, RARE))
    numbers = (
        int(POINTS_A_MINUTE * length / MINUTE),
        int(length / SPAN_EVERY),
        int(length / RARE_EVERY),
    )
    drawn = [
        (_seconds(dice, 0, total), next(deck))
        for deck, number in zip(kinds, numbers, strict=True)
        for _ in range(number)
    ]
    for number, (at, kind) in enumerate(sorted(drawn)):
        yield _fault(dice, number, at, kind, len(accounts))


def _fault(dice: Random, number: int, at: timedelta, kind: str, accounts: int) -> Fault:
    on_platform = kind in PLATFORM_POINTS or kind in ("platform down", "queue purged")
    on_function = kind in STORE_POINTS or kind in FUNCTION_POINTS or kind == "instance killed"
    where = dice.choice(PLATFORMS) if on_platform else dice.choice(BROKEN) if on_function else ""
    if kind in ("worker killed in call", "frozen", "all instances gone"):
        where = "publish_post"
    return Fault(
        number,
        at,
        kind,
        where=where,
        nth=dice.randint(1, 12),
        times=dice.choices((1, 2, 3, 5), (50, 25, 15, 10))[0],
        chance=dice.choice((0.1, 0.3, 0.6)),
        lasts=_seconds(dice, *SPAN_SECONDS) if kind in SPANS else NONE,
        seconds=dice.randint(20, 200),
        choice=dice.randrange(accounts),
    )


def _dealt(dice: Random, deck: Sequence[str]) -> Iterator[str]:
    while True:
        yield from dice.sample(deck, len(deck))


def _seconds(dice: Random, least: float, most: float) -> timedelta:
    """A moment between, on the grid: what shares one happens side by side."""
    return GRID * round(dice.uniform(least, max(least, most)) / GRID.total_seconds())
