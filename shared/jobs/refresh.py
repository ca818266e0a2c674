"""Tokens: the usable one, a newer one when the platform refuses it, and the end of an account.

One refresher per account at a time, since some platforms kill the old refresh token with each new
one. Storing what the platform gave is guarded by the token's version alone: even a refresher that
lost its lock must not lose the only token there is.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from shared.domain.accounts import (
    REFRESH_AGAIN,
    REFRESH_LOCK,
    AccountStatus,
    SocialAccount,
    Tokens,
)
from shared.domain.failures import (
    AuthExpiredError,
    PlatformError,
    TransientError,
    UnavailableError,
)
from shared.platforms.base import Platform
from shared.runtime import Runtime
from shared.security.tokens import UnsealError
from shared.store.accounts import Sealed
from shared.store.firestore import fresh_id

AT_ONCE = 8  # refreshes side by side: each is a second of waiting for a platform


@dataclass(frozen=True, slots=True)
class Wait:
    """Come back then; `result` says why."""

    until: datetime
    result: TransientError


@dataclass(frozen=True, slots=True)
class Renewed:
    tokens: Tokens
    version: int


def usable(account: SocialAccount, account_id: str, rt: Runtime) -> str | None:
    """The access token; None when it has ended and another one has to be fetched first."""
    ends_at = account.token_expires_at
    if account.sealed_token is None:
        return None
    if ends_at is not None and ends_at <= rt.now() and account.refreshable:
        return None
    return rt.vault.open(account.sealed_token, account_id).access_token


def renew(
    platform: Platform, account_id: str, *, used_version: int, rt: Runtime, ends_at: float
) -> Renewed | Wait:
    """A newer token than `used_version`. Raises `AuthExpiredError` when there will be none."""
    newer = _newer(account_id, used_version, rt)
    if isinstance(newer, Renewed):
        return newer
    account, tokens = newer
    if not platform.refreshes or not account.refreshable:
        raise AuthExpiredError("The account has to be reconnected.", code="token_refused")
    owner = fresh_id()
    if not rt.store.accounts.lock_refresh(account_id, owner, REFRESH_LOCK):
        return _wait(rt, REFRESH_AGAIN, "token_refreshing")
    try:
        newer = _newer(account_id, used_version, rt)  # its last holder may have just stored one
        if isinstance(newer, Renewed):
            return newer
        return _exchange(platform, account_id, used_version, tokens, rt, ends_at)
    finally:
        rt.store.accounts.unlock_refresh(account_id, owner)


def _newer(
    account_id: str, used_version: int, rt: Runtime
) -> Renewed | tuple[SocialAccount, Tokens]:
    account = rt.store.accounts.read(account_id)
    if account is None or account.sealed_token is None:
        raise AuthExpiredError("The account was disconnected.", code="account_disconnected")
    tokens = replace(rt.vault.open(account.sealed_token, account_id), server=account.server)
    if account.token_version != used_version and account.status is AccountStatus.ACTIVE:
        return Renewed(tokens, account.token_version)
    return account, tokens


def _exchange(
    platform: Platform,
    account_id: str,
    used_version: int,
    tokens: Tokens,
    rt: Runtime,
    ends_at: float,
) -> Renewed | Wait:
    try:
        grant = rt.driver.refresh(platform, tokens, ends_at=ends_at)
    except AuthExpiredError:
        rt.store.accounts.refuse_refresh(account_id, used_version=used_version)
        rt.log.event(
            "account.refresh_refused",
            severity="WARNING",
            accountId=account_id,
            platform=platform.name,
        )
        return _wait(rt, REFRESH_LOCK + timedelta(seconds=1), "refresh_refused")
    lasts = grant.expires_in
    fresh = Tokens(
        access_token=grant.access_token,
        refresh_token=grant.refresh_token or tokens.refresh_token,
        expires_at=rt.now() + lasts if lasts else None,
    )
    sealed = Sealed(
        rt.vault.seal(fresh, account_id), fresh.expires_at, due(platform, fresh, rt.now())
    )
    if not rt.store.accounts.store_tokens(account_id, sealed, used_version=used_version):
        newer = _newer(account_id, used_version, rt)  # a reconnect wins over what we fetched
        return newer if isinstance(newer, Renewed) else _wait(rt, REFRESH_AGAIN, "token_changed")
    rt.log.event("account.refreshed", accountId=account_id, platform=platform.name)
    return Renewed(fresh, used_version + 1)


def _wait(rt: Runtime, length: timedelta, code: str) -> Wait:
    return Wait(rt.now() + length, TransientError("The token is being refreshed.", code=code))


def due(platform: Platform, tokens: Tokens, now: datetime) -> datetime | None:
    """When a newer token is to be fetched, needed or not; None where there is nothing to fetch."""
    if tokens.expires_at is None or not platform.refreshable(tokens):
        return None
    return platform.refresh_at(tokens.expires_at, now)


def run(rt: Runtime, ends_at: float) -> dict[str, Any]:
    """Refresh what ends soon, so that no post waits for it: the longest due first, a few at a time,
    until none is left or the time is up (monotonic seconds). What fails is due again next time."""
    counts = dict.fromkeys(("refreshed", "expired", "waiting", "failed"), 0)
    after: tuple[datetime, str] | None = None
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while time.monotonic() < ends_at:
            page = rt.store.accounts.to_refresh(after, AT_ONCE)
            if not page:
                break
            for outcome in pool.map(lambda one: _refresh(one[0], one[1], rt, ends_at), page):
                counts[outcome] += 1
            last_id, last = page[-1]
            assert last.refresh_at is not None  # the query asks for those that have one
            after = (last.refresh_at, last_id)
    done: dict[str, Any] = {**counts}
    rt.log.event("refresh.done", **done)
    return {"success": True, **done}


def _refresh(account_id: str, account: SocialAccount, rt: Runtime, ends_at: float) -> str:
    """What became of one account's token."""
    platform = rt.platforms.get(account.platform)
    version = account.token_version
    if platform is None:
        return "failed"
    try:
        if account.refused_for_good(rt.now()):
            expire(account_id, used_version=version, platform=account.platform, rt=rt)
            return "expired"
        renewed = renew(platform, account_id, used_version=version, rt=rt, ends_at=ends_at)
    except (PlatformError, UnsealError, UnavailableError) as error:
        rt.log.event(
            "account.refresh_failed",
            type(error).__name__,
            severity="WARNING",
            accountId=account_id,
            platform=account.platform,
            code=getattr(error, "code", None),
        )
        return "failed"
    return "refreshed" if isinstance(renewed, Renewed) else "waiting"


def expire(account_id: str, *, used_version: int, platform: str, rt: Runtime) -> None:
    """The platform refuses this token for good: only a reconnect mends that."""
    if rt.store.accounts.expire(account_id, used_version=used_version):
        rt.log.event("account.expired", severity="ERROR", accountId=account_id, platform=platform)
