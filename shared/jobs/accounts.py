"""Social accounts: connected with the tokens that the backend's OAuth dance brought, disconnected,
and reconnected, which sends again what had failed for want of a token, and looks again for what
could not be looked for without one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.domain import changes, keys
from shared.domain.accounts import AccountStatus, SocialAccount, Tokens
from shared.domain.failures import (
    ConflictError,
    JobError,
    PlatformError,
    Problem,
    RefusedError,
)
from shared.domain.markers import Keyed
from shared.jobs import commands, refresh
from shared.jobs.commands import Retry, Which
from shared.jobs.publish import after, looks_up
from shared.platforms.base import Platform, is_server
from shared.runtime import Runtime

LIMITS_SECONDS = 5.0
AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Connection:
    company_id: str
    account_id: str
    platform: str
    platform_user_id: str
    handle: str | None
    server: str | None
    tokens: Tokens
    limits: dict[str, int] | None = None


def connect(wanted: Connection, by: str, rt: Runtime) -> dict[str, Any]:
    """Connect, or connect again. A new token wins over whatever a refresh still brings."""
    if wanted.platform not in rt.platforms:
        known = ", ".join(sorted(rt.platforms))
        sentence = f"{wanted.platform!r} is not one of {known}."
        raise RefusedError([Problem("platform", "platform_unknown", sentence)])
    platform = rt.platforms[wanted.platform]
    if platform.federated and not is_server(wanted.server):
        sentence = f"{platform.label} accounts need the name of their server, such as a.example."
        raise RefusedError([Problem("server", "server_required", sentence)])
    sealed = rt.vault.seal(wanted.tokens, wanted.account_id)
    told, warnings = _told(platform, wanted, rt)

    def decide(before: SocialAccount | None, now: datetime) -> SocialAccount:
        if before is not None and (before.company_id, before.platform) != (
            wanted.company_id,
            wanted.platform,
        ):
            message = "This accountId belongs to another account. Use a new one."
            raise ConflictError(message, code="account_exists")
        return SocialAccount(
            company_id=wanted.company_id,
            platform=wanted.platform,
            status=AccountStatus.ACTIVE,
            platform_user_id=wanted.platform_user_id,
            handle=wanted.handle,
            server=wanted.server,
            sealed_token=sealed,
            token_version=before.token_version + 1 if before else 1,
            token_expires_at=wanted.tokens.expires_at,
            refreshable=platform.refreshable(wanted.tokens),
            refresh_at=refresh.due(platform, wanted.tokens, now),
            limits=_known(wanted, before) | told | (wanted.limits or {}),
            created_at=before.created_at if before else now,
            updated_at=now,
        )

    account = rt.store.accounts.connect(wanted.account_id, decide)
    rt.log.event(
        "account.connected",
        accountId=wanted.account_id,
        companyId=wanted.company_id,
        platform=wanted.platform,
        tokenVersion=account.token_version,
    )
    again = account.token_version > 1
    return {
        **_shown(wanted.account_id, account),
        "limits": account.limits,
        "warnings": warnings,
        "redriven": _redrive(wanted, by, rt) if again else [],
        "lookingAgain": _look_again(wanted.account_id, account, rt) if again else [],
    }


def _known(wanted: Connection, before: SocialAccount | None) -> dict[str, int]:
    return before.limits if before is not None and wanted.limits is None else {}


def _told(
    platform: Platform, wanted: Connection, rt: Runtime
) -> tuple[dict[str, int], list[dict[str, str]]]:
    """The account's own limits as its platform tells them; a warning where it does not answer."""
    if not platform.tells_limits:
        return {}, []
    ends_at = time.monotonic() + LIMITS_SECONDS
    token = wanted.tokens.access_token
    user_id, server = wanted.platform_user_id, wanted.server
    try:
        return rt.driver.limits(platform, user_id, server, token, ends_at=ends_at), []
    except PlatformError as error:
        message = (
            f"{platform.label} did not tell this account's limits ({error.message}). Those known "
            "so far hold until it is connected again."
        )
        return {}, [{"field": "limits", "code": "limits_unread", "message": message}]


def _redrive(wanted: Connection, by: str, rt: Runtime) -> list[str]:
    """What failed for want of a token and may still go out. One that cannot be is left a dead
    letter: the next reconnect, or a retry, finds it there."""
    letters = rt.store.accounts.letters(wanted.account_id, "auth_expired", AT_ONCE)
    redriven = []
    for letter in letters:
        latest = letter.evidence.get("latestAt")
        if latest is None or latest <= rt.now() or letter.post_id is None:
            continue
        key = f"redrive-{letter.delivery_id}-{letter.generation}"
        which = Which(
            company_id=wanted.company_id,
            post_id=letter.post_id,
            targets=((wanted.platform, wanted.account_id),),
            keyed=Keyed("redrive", wanted.company_id, key, keys.fingerprint(key)),
        )
        again = Retry(None, None, None, None, latest_at=latest, timezone=None, risk=None, by=by)
        try:
            commands.retry(which, again, rt)
        except JobError:
            continue
        redriven.append(letter.delivery_id or "")
    return redriven


def _look_again(account_id: str, account: SocialAccount, rt: Runtime) -> list[str]:
    """What may be on the platform and could not be looked for without a token. It is looked for,
    not sent; a look whose task is not made is the sweep's."""
    if not looks_up(rt.platforms[account.platform], account):
        return []
    looking = []
    for log in rt.store.oversight.unlooked(account_id, AT_ONCE):
        try:
            change = rt.store.oversight.move(log.id, changes.look_again)
        except JobError:
            continue
        if change is not None:
            after(change, rt, event="publish.moved")
            looking.append(log.id)
    return looking


def disconnect(company_id: str, account_id: str, rt: Runtime) -> dict[str, Any]:
    account = rt.store.accounts.disconnect(account_id, company_id)
    rt.log.event(
        "account.disconnected",
        accountId=account_id,
        companyId=company_id,
        platform=account.platform,
    )
    return _shown(account_id, account)


def _shown(account_id: str, account: SocialAccount) -> dict[str, Any]:
    ends_at = account.token_expires_at
    return {
        "success": True,
        "accountId": account_id,
        "platform": account.platform,
        "status": str(account.status),
        "tokenVersion": account.token_version,
        "tokenExpiresAt": ends_at.isoformat() if ends_at else None,
        "refreshable": account.refreshable,
    }
