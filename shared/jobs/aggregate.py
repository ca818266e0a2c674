"""Yesterday's engagement of each account, added up from what was read of its posts.

Each day that is over is made once, account by account. How far that has come stands beside what is
made, in the same commit: a run that dies or whose time is up is followed by one that goes on there,
and days that nobody made are made later, the oldest first.
"""

from __future__ import annotations

import time
from datetime import date
from typing import Any

from shared.domain import daily
from shared.domain.analytics import Scope
from shared.runtime import Runtime
from shared.store.daily import Making

ACCOUNTS_PAGE = 50


def run(rt: Runtime, ends_at: float) -> dict[str, Any]:
    """`finished` is false when there is more to make: the next run goes on."""
    made = days = 0
    making = rt.store.daily.due()
    while making is not None and time.monotonic() < ends_at:
        count, after = _page(making, rt, ends_at)
        made += count
        if after is None:
            break  # another run is at it
        days += after.days.done
        making = rt.store.daily.due() if after.days.done else after
    finished = making is None
    rt.log.event("aggregate.done", finished=finished, days=days, accounts=made)
    return {"success": True, "finished": finished, "days": days, "accounts": made}


def _page(making: Making, rt: Runtime, ends_at: float) -> tuple[int, Making | None]:
    """The next accounts of the day: how many had figures, and where that leads."""
    day, after = date.fromisoformat(making.days.day), making.days.after
    accounts = rt.store.analytics.accounts(Scope(), after, ACCOUNTS_PAGE)
    done = len(accounts) < ACCOUNTS_PAGE
    made = []
    for number, (account_id, account) in enumerate(accounts):
        if number and time.monotonic() >= ends_at:
            done = False
            break
        figures = daily.of_account(
            day,
            rt.store.daily.read_posts(account_id, day),
            company_id=account.company_id,
            account_id=account_id,
            platform=account.platform,
            now=rt.now(),
        )
        if figures is not None:
            made.append(figures)
        after = account_id
    place = {"after": None if done else after, "done": done}
    kept = rt.store.daily.keep(making, making.days.model_copy(update=place), made)
    return len(made), kept
