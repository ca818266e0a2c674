"""How often a delivery is tried and how long it waits in between. Waiting because a platform said
so is not an attempt; a crash is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Policy:
    attempts: int = 4  # the first and three retries
    first_wait: timedelta = timedelta(seconds=5)
    longest_wait: timedelta = timedelta(minutes=10)
    spacing: timedelta = timedelta(seconds=5)  # between the posts of one account's backlog


DEFAULT = Policy()
POLICIES: Mapping[str, Policy] = {  # by platform; absent means DEFAULT
    "twitter": Policy(spacing=timedelta(seconds=10)),  # 100 posts in 15 minutes for one user
}

# When an unknown outcome is looked into again, after the committing call. Platforms show posts
# late; what half an hour has not settled, a person has to.
LOOKUPS = tuple(timedelta(seconds=s) for s in (30, 60, 120, 300, 600, 1200, 1800))


def policy(platform: str) -> Policy:
    return POLICIES.get(platform, DEFAULT)


def backoff(attempt: int, *, jitter: float, policy: Policy = DEFAULT) -> timedelta:
    """Wait after the `attempt`-th failure (from 1): 5 s doubling to at most 10 min.

    `jitter` in [0, 1) comes from the caller; the wait lies between half and all of the step.
    """
    doubled: timedelta = policy.first_wait * 2 ** min(attempt - 1, 20)
    step = min(policy.longest_wait, doubled)
    return step * (0.5 + jitter / 2)


def next_lookup(lookups: int, since: datetime, now: datetime) -> datetime | None:
    """When to look again after `lookups` readings; None once the half hour is over."""
    if lookups >= len(LOOKUPS):
        return None
    at = since + LOOKUPS[lookups]
    return at if at > now else now + LOOKUPS[0]
