"""What will fail, or wait, though nothing is wrong yet: posts that fall due after their account's
token has ended, and days that hold more posts than a platform takes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from shared.domain import cursors
from shared.domain.accounts import SocialAccount
from shared.domain.deliveries import PublishLog
from shared.domain.posts import Target
from shared.platforms.base import Draft
from shared.runtime import Runtime

DAY = timedelta(hours=24)
TOLD = 100  # deliveries shown of one account
PARTS_READ = 500  # a day; where a platform takes more than that, a thread counts as one post


def of_company(company_id: str, cursor: str | None, limit: int, rt: Runtime) -> dict[str, Any]:
    """A page of the company's accounts that lose deliveries unless they are reconnected: `cursor`
    and `limit` go by the accounts that are looked at, most of which have nothing to tell."""
    place = cursors.decode(cursor)
    accounts = rt.store.accounts.of_company(company_id, place[1] if place else None, limit)
    shown = [_doomed(account_id, account, rt) for account_id, account in accounts]
    full = len(accounts) == limit
    return {
        "success": True,
        "accounts": [one for one in shown if one is not None],
        "nextCursor": cursors.encode(rt.now(), accounts[-1][0]) if full else None,
    }


def _doomed(account_id: str, account: SocialAccount, rt: Runtime) -> dict[str, Any] | None:
    ends_at = account.usable_until
    if ends_at is None:
        return None
    logs = rt.store.accounts.due_after(account_id, ends_at, TOLD + 1)
    if not logs:
        return None
    return {
        "accountId": account_id,
        "platform": account.platform,
        "status": str(account.status),
        "tokenExpiresAt": _iso(account.token_expires_at),
        "deliveries": [_delivery(log) for log in logs[:TOLD]],
        "more": len(logs) > TOLD,
    }


def _delivery(log: PublishLog) -> dict[str, Any]:
    return {"deliveryId": log.id, "postId": log.post_id, "dueAt": _iso(log.due_at)}


def token_warning(
    field: str, account_id: str, account: SocialAccount, due_at: datetime
) -> dict[str, str] | None:
    """Its token ends before the post is due, and nothing but its owner can renew it."""
    ends_at = account.usable_until
    if ends_at is None or ends_at >= due_at:
        return None
    message = (
        f"The token of {account_id!r} ends at {ends_at.isoformat()}, before the post is due, and "
        "cannot be refreshed. Reconnect the account by then."
    )
    return {"field": field, "code": "token_ends_before", "message": message}


def cap_warning(
    field: str, target: Target, account: SocialAccount, due_at: datetime, rt: Runtime
) -> dict[str, str] | None:
    """The day before the post is due has no room for it; where no cap is known, nothing is asked.

    A thousand deliveries are counted for one read. Where each part of a thread counts they have to
    be read themselves, as many as the cap at most.
    """
    platform = rt.platforms[account.platform]
    limits = platform.limits_of(Draft("", limits=account.limits))
    most = limits.daily_posts
    if most is None:
        return None
    replies = platform.threads and limits.daily_replies and most <= PARTS_READ
    posts = 1 + len(target.thread) if replies else 1
    planned = rt.store.accounts.posts_between(
        target.account_id, due_at - DAY, due_at, most, replies=replies
    )
    if planned + posts <= most:
        return None
    this = f"this thread of {posts}" if posts > 1 else "this one"
    message = (
        f"{target.account_id!r} has {planned} posts or more in the 24 h before {this} is due, and "
        f"{platform.label} takes {most} in any 24 h: it will wait until there is room again, or "
        "until its latestAt."
    )
    return {"field": field, "code": "daily_cap_reached", "message": message}


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
