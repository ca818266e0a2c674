"""What it costs idle and per 1,000 posts, by list prices: `make cost`.

`tools/operations.json` holds what each thing that happens comes to, counted at the wire; a test
counts again and compares. `tools/prices.json` holds the list prices with their source and date.
How often the schedules fire is `terraform/topology.json`'s.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cronsim import CronSim

ROOT = Path(__file__).resolve().parent.parent
MONTH = timedelta(days=30)
BEGINS = datetime(2027, 1, 1, tzinfo=UTC)  # any day will do
POSTS = 1_000
READ_FOR = timedelta(days=90)  # how long syncs go on reading a post
GIB = 1024**3

Amounts = dict[str, float]


@dataclass(frozen=True)
class Line:
    """One kind of thing that is paid for. `free` is what a month has free of it."""

    what: str
    amount: float
    listed: float
    free: float
    left: float


def read(name: str) -> Any:
    return json.loads((ROOT / "tools" / name).read_text())


def amounts(story: Mapping[str, Any], times: float = 1) -> Amounts:
    """What a story that happens so often comes to, in the units that are paid for."""
    requests = story.get("requests", 0)
    seconds = story.get("seconds", 0)
    counted = {
        "requests": requests,
        "vcpuSeconds": seconds * _of(story, "cpu"),
        "gibSeconds": seconds * _of(story, "memory"),
        "reads": story.get("reads", 0),
        "writes": story.get("writes", 0),
        "storedGib": story.get("storedBytes", 0) / GIB,
        "taskOperations": story.get("taskOperations", 0),
        "logGib": story.get("logBytes", 0) / GIB,
    }
    return {name: amount * times for name, amount in counted.items()}


def _of(story: Mapping[str, Any], resource: str) -> float:
    """What its function has of a resource: vCPUs, or GiB."""
    text = str(_topology()["functions"][story["function"]][resource])
    return float(text.removesuffix("Mi")) / 1024 if text.endswith("Mi") else float(text)


def _topology() -> Any:
    return json.loads((ROOT / "terraform" / "topology.json").read_text())


def idle() -> Amounts:
    """A month in which nobody schedules anything: the schedules fire, and find nothing."""
    operations, schedules = read("operations.json"), _topology()["schedules"]
    total: Amounts = dict(operations["standing"]) | {"schedulerJobs": len(schedules)}
    for name, schedule in schedules.items():
        total = _sum(total, amounts(operations["stories"][f"idle {name}"], slots(schedule["cron"])))
    return total


def slots(cron: str) -> int:
    """How often it fires in a month."""
    return sum(1 for _ in _slots(cron))


def _slots(cron: str) -> Iterator[datetime]:
    for at in CronSim(cron, BEGINS - timedelta(seconds=1)):
        if at >= BEGINS + MONTH:
            return
        yield at


def of_posts() -> Amounts:
    """1,000 posts to one account each: scheduled, published, read back an hour later; the records
    kept for a month."""
    stories = read("operations.json")["stories"]
    names = ("schedule", "publish", "read after an hour")
    total: Amounts = {}
    for name in names:
        total = _sum(total, amounts(stories[name], POSTS))
    return total


def of_reading() -> Amounts:
    """The same posts read by each sync as long as they are, and their days added up."""
    stories, schedules = read("operations.json")["stories"], _topology()["schedules"]
    batch = stories["read a batch"]
    days = READ_FOR / timedelta(days=1)
    syncs = days * slots(schedules["sync-analytics"]["cron"]) / (MONTH / timedelta(days=1))
    total = amounts(batch, syncs * POSTS / batch["posts"])
    added_up = stories["add up a day"]
    return _sum(total, amounts(added_up, days * POSTS / added_up["posts"]))


def _sum(one: Amounts, other: Amounts) -> Amounts:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def lines(total: Amounts) -> list[Line]:
    found = []
    for name, price in read("prices.json")["prices"].items():
        amount = total.get(name, 0)
        if not amount:
            continue
        each, free = price["price"] / price["per"], price["free"]
        left = max(0.0, amount - free) * each
        found.append(Line(price["what"], amount, amount * each, free, left))
    return found


def table(title: str, total: Amounts, *, monthly: bool = False) -> Iterator[str]:
    """`monthly`: with what a month has free, which counts once, for all that happens in it."""
    found = lines(total)
    free = f"{'free':>12}{'to pay':>10}" if monthly else ""
    yield f"{title:42}{'amount':>12}{'list price':>12}{free}"
    for line in found:
        free = f"{_number(line.free):>12}{line.left:>10.3f}" if monthly else ""
        yield f"  {line.what:40}{_number(line.amount):>12}{line.listed:>12.3f}{free}"
    free = f"{'':12}{sum(line.left for line in found):>10.3f}" if monthly else ""
    yield f"  {'together':40}{'':12}{sum(line.listed for line in found):>12.3f}{free}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.3g}"


def told() -> str:
    prices = read("prices.json")
    dates = sorted({price["read"] for price in prices["prices"].values()})
    return "\n".join(
        [
            f"{prices['currency']} by list prices of {dates[0]}; a month has 30 days.",
            "",
            *table("idle, a month", idle(), monthly=True),
            "",
            *table("1,000 posts, published and read once", of_posts()),
            "",
            *table("the same, read for 90 days by every sync", of_reading()),
        ]
    )


def main() -> None:
    print(told())
    prices = read("prices.json")
    print(f"\n{prices['regions']}.")
    print("Not in it: traffic to platforms, media, point-in-time recovery, builds.")
    for source in sorted({price["source"] for price in prices["prices"].values()}):
        print(f"  {source}")


if __name__ == "__main__":
    main()
