"""Tokens: the usable one, a newer one when the platform refuses it, and the end of an account.

One refresher per account at a time, since some platforms kill the old refresh token with each new
one. Storing what the platform gave is guarded by the token's version alone: even a refresher that
lost its lock must not lose the only token there is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from shared.domain.accounts import (
    REFRESH_AGAIN,
    REFRESH_LOCK,
    AccountStatus,
    SocialAccount,
    Tokens,
)
from shared.domain.failures import AuthExpiredError, TransientError
from shared.platforms.base import Platform
from shared.runtime import Runtime
from shared.store.accounts import Sealed
from shared.store.firestore import fresh_id


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
    sealed = Sealed(rt.vault.seal(fresh, account_id), fresh.expires_at, refreshable=True)
    if not rt.store.accounts.store_tokens(account_id, sealed, used_version=used_version):
        newer = _newer(account_id, used_version, rt)  # a reconnect wins over what we fetched
        return newer if isinstance(newer, Renewed) else _wait(rt, REFRESH_AGAIN, "token_changed")
    rt.log.event("account.refreshed", accountId=account_id, platform=platform.name)
    return Renewed(fresh, used_version + 1)


def _wait(rt: Runtime, length: timedelta, code: str) -> Wait:
    return Wait(rt.now() + length, TransientError("The token is being refreshed.", code=code))


def expire(account_id: str, *, used_version: int, platform: str, rt: Runtime) -> None:
    """The platform refuses this token for good: only a reconnect mends that."""
    if rt.store.accounts.expire(account_id, used_version=used_version):
        rt.log.event("account.expired", severity="ERROR", accountId=account_id, platform=platform)
