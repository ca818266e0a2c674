"""The promises as a small model: what was ordered of each delivery, and what must then be true.

It knows orders and the world outside, nothing of how the product works. A post on a platform tells
by its account and its text whose it is: every text names its post.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.sandbox.platforms.values import Post as Published
from tests.world import Account

EARLY = timedelta(seconds=2)
LEASE = timedelta(seconds=60)
SEND_WITHIN = timedelta(seconds=20)
SWEEPS = timedelta(minutes=2)  # two periods
KEY_KEPT = timedelta(days=30)
HORIZON = timedelta(days=28)

CHANGEABLE = {"pending", "retry", "waiting"}
BURIED = {"failed", "missed", "partial"}
ENDED = {"success", "cancelled"} | BURIED


@dataclass(frozen=True)
class Order:
    """What is wanted of a delivery. It comes into force between its question and its answer."""

    asked_at: datetime
    answered_at: datetime
    text: str
    due_at: datetime
    latest_at: datetime

    def allows(self, post: Published) -> bool:
        in_time = self.due_at - EARLY <= post.at < self.latest_at + SEND_WITHIN
        return post.text == self.text and in_time


@dataclass
class Delivery:
    """One post to one account. `sends` grows with each second send that a person orders; `calm`
    is a delivery that nothing has gone wrong around."""

    id: str
    post_id: str
    account: Account
    orders: list[Order]
    calm: bool
    generation: int = 1
    sends: int = 1
    cancelled_at: datetime | None = None
    discarded: set[str] = field(default_factory=set)
    begun: int = 0  # attempts, when it was last looked at

    @property
    def order(self) -> Order:
        return self.orders[-1]

    def in_force(self, at: datetime) -> list[Order]:
        """The order at an instant; two while the second was being given."""
        ends = [later.answered_at for later in self.orders[1:]] + [None]
        return [
            order
            for order, end in zip(self.orders, ends, strict=True)
            if order.asked_at <= at and (end is None or at <= end)
        ]


@dataclass
class Post:
    """What was scheduled with one request."""

    id: str
    number: int
    deliveries: list[Delivery]
    editions: int = 1

    def __repr__(self) -> str:
        return f"post {self.number}"

    def edition(self) -> str:
        """The next text."""
        self.editions += 1
        return text_of(self.number, self.editions)


def text_of(number: int, edition: int) -> str:
    return f"Post {number}, edition {edition}"


@dataclass(frozen=True)
class Seen:
    """The records, and what each delivery has on its platform, at an instant of rest. `swept_at`:
    when the last sweep came to its end; `held` are the accounts paused since the last look."""

    logs: Mapping[str, dict[str, Any]]
    posts: Mapping[str, dict[str, Any]]
    letters: Mapping[str, dict[str, Any]]
    published: Mapping[str, list[Published]]
    swept_at: datetime
    held: frozenset[str]

    def is_open(self, delivery: Delivery) -> bool:
        return is_open(self.logs[delivery.id])


def is_open(log: Mapping[str, Any]) -> bool:
    if log["status"] == "unknown":
        return log["nextRetryAt"] is not None
    return log["status"] not in ENDED


def owners(
    posts: Iterable[Post], published: Iterable[Published]
) -> tuple[dict[str, list[Published]], list[Published]]:
    """What is on the platforms, by delivery; and what nobody has ordered."""
    found: dict[str, list[Published]] = {d.id: [] for post in posts for d in post.deliveries}
    whose = {
        (d.account.platform, d.account.user_id, f"Post {post.number}"): d.id
        for post in posts
        for d in post.deliveries
    }
    strange = []
    for one in published:
        owner = whose.get((one.platform, one.account, one.text.partition(",")[0]))
        found[owner].append(one) if owner else strange.append(one)
    return found, strange


# --- what must hold, of one delivery --------------------------------------------------------------


def never_twice(delivery: Delivery, seen: Seen) -> None:
    """P1: one post, and one more for each second send that a person ordered."""
    assert len(seen.published[delivery.id]) <= delivery.sends


def only_as_ordered(delivery: Delivery, seen: Seen) -> None:
    """P5, P11: the text and the time of the order in force; nothing once cancelled."""
    for post in seen.published[delivery.id]:
        assert any(order.allows(post) for order in delivery.in_force(post.at))
        assert delivery.cancelled_at is None or post.at <= delivery.cancelled_at


def never_lost(delivery: Delivery, seen: Seen) -> None:
    """P2: ended, or unknown for a person to see, two sweeps after its latest time."""
    if seen.swept_at >= delivery.order.latest_at + LEASE + SWEEPS:
        assert not seen.is_open(delivery)


def never_a_lie(delivery: Delivery, seen: Seen) -> None:
    """P3: a success can be shown, a failure is none on the platform."""
    log, published = seen.logs[delivery.id], seen.published[delivery.id]
    if log["status"] == "success":
        assert log["remoteId"] in {post.id for post in published}
    if log["status"] in BURIED | {"cancelled"}:
        assert published == []
    if delivery.cancelled_at is not None:
        assert log["status"] == "cancelled"


def one_generation_per_order(delivery: Delivery, seen: Seen) -> None:
    """What is ordered of one delivery leaves the others alone."""
    assert seen.logs[delivery.id]["generation"] == delivery.generation


def one_letter_per_end(delivery: Delivery, seen: Seen) -> None:
    """P7: an open dead letter for the generation that ended without success, and no other."""
    current = f"{delivery.id}-{delivery.generation}"
    buried = seen.logs[delivery.id]["status"] in BURIED
    letters = {k: v for k, v in seen.letters.items() if v["deliveryId"] == delivery.id}
    opened = {letter_id for letter_id, letter in letters.items() if letter["status"] == "open"}
    assert opened == ({current} if buried else set()) - delivery.discarded
    assert (current in letters) == buried


def held_while_paused(delivery: Delivery, seen: Seen) -> None:
    """A pause from one look to the next: nothing has begun in between."""
    before, delivery.begun = delivery.begun, seen.logs[delivery.id]["fencingToken"]
    if delivery.account.id in seen.held:
        assert delivery.begun == before


PROMISES = (
    never_twice,
    only_as_ordered,
    never_lost,
    never_a_lie,
    one_generation_per_order,
    one_letter_per_end,
    held_while_paused,
)


# --- what must hold, of posts ---------------------------------------------------------------------


def open_is_counted(post: Post, seen: Seen) -> None:
    still = sum(seen.is_open(delivery) for delivery in post.deliveries)
    assert seen.posts[post.id]["open"] == still


def rolled_up(post: Post, seen: Seen) -> None:
    """Once everything has ended: the post says what its deliveries say."""
    statuses = [seen.logs[delivery.id]["status"] for delivery in post.deliveries]
    word = {"success": "published", "cancelled": "cancelled"}.get(statuses[0], "failed")
    stored = seen.posts[post.id]
    assert stored["status"] == (word if len(set(statuses)) == 1 else "failed")
    assert [stored["results"][d.id]["status"] for d in post.deliveries] == statuses


def each_post_is_one_deliverys(seen: Seen) -> None:
    claimed = Counter(
        (log["platform"], log["remoteId"])
        for log in seen.logs.values()
        if log["status"] == "success"
    )
    assert [remote for remote, times in claimed.items() if times > 1] == []


def judge(posts: Iterable[Post], seen: Seen) -> None:
    """Every promise, of everything ordered; says of which delivery one is broken."""
    each_post_is_one_deliverys(seen)
    for post in posts:
        open_is_counted(post, seen)
        for delivery in post.deliveries:
            for promise in PROMISES:
                try:
                    promise(delivery, seen)
                except AssertionError as broken:
                    raise AssertionError(
                        _report(promise.__name__, post, delivery, seen)
                    ) from broken


def _report(promise: str, post: Post, delivery: Delivery, seen: Seen) -> str:
    log = seen.logs[delivery.id]
    letters = [v["status"] for v in seen.letters.values() if v["deliveryId"] == delivery.id]
    return "\n".join(
        (
            f"{promise} is broken for {post} on {delivery.account.id} (calm: {delivery.calm})",
            *(f"  ordered: {order}" for order in delivery.orders),
            f"  generation {delivery.generation}, sends {delivery.sends}, letters {letters}, "
            f"cancelled {delivery.cancelled_at}",
            *(f"  on the platform: {one.id} {one.text!r} {one.at}" for one in _on(delivery, seen)),
            *(f"  on record: {name}={value!r}" for name, value in sorted(log.items())),
        )
    )


def _on(delivery: Delivery, seen: Seen) -> list[Published]:
    return seen.published[delivery.id]
