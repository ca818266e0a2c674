"""Social accounts, their sealed tokens, and the lock that keeps one refresher per account."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from google.cloud.firestore_v1.base_query import BaseQuery

from shared.domain import leases
from shared.domain.accounts import AccountStatus, RefreshRefusal, SocialAccount
from shared.domain.dead_letters import DeadLetter, LetterStatus
from shared.domain.deliveries import PublishLog, Status
from shared.domain.failures import NotFoundError
from shared.domain.records import SCHEMA_VERSION
from shared.store import queries
from shared.store.deliveries import parse
from shared.store.firestore import (
    Firestore,
    LostRaceError,
    Snapshot,
    UncertainError,
    Write,
    fresh_id,
    races,
)


@dataclass(frozen=True, slots=True)
class Sealed:
    """Tokens as they are kept: what is inside is nobody's business here."""

    token: str
    expires_at: datetime | None
    refresh_at: datetime | None


_NO_ORDER = datetime.min.replace(tzinfo=UTC)  # a query by id alone ignores the instant


def _account(seen: Snapshot) -> tuple[str, SocialAccount]:
    return seen.id, SocialAccount.model_validate(seen.to_dict())


class Accounts:
    def __init__(self, db: Firestore) -> None:
        self._db = db

    def read(self, account_id: str) -> SocialAccount | None:
        [seen] = self._db.read([self._db.ref("socialAccounts", account_id)])
        return SocialAccount.model_validate(seen.to_dict()) if seen.exists else None

    def connect(
        self, account_id: str, decide: Callable[[SocialAccount | None, datetime], SocialAccount]
    ) -> SocialAccount:
        """Create or reconnect an account; `decide` may refuse by raising."""
        ref = self._db.ref("socialAccounts", account_id)
        for _ in races():
            [seen] = self._db.read([ref])
            before = SocialAccount.model_validate(seen.to_dict()) if seen.exists else None
            account = decide(before, self._db.clock.now())
            data = account.document()
            if before is None:
                write = Write(ref, data, create=True)
            else:
                del data["pausedUntil"]  # a throttle outlives a reconnect
                write = Write(ref, data, guard=seen.update_time)
            try:
                self._db.commit([write])
            except (LostRaceError, UncertainError):
                continue
            return account
        raise AssertionError("unreachable")

    def disconnect(self, account_id: str, company_id: str) -> SocialAccount:
        """Forget the tokens; what comes due from now on fails with `account_disconnected`."""

        def decide(before: SocialAccount | None, now: datetime) -> SocialAccount:
            if before is None or before.company_id != company_id:
                message = f"There is no account {account_id!r} of company {company_id!r}."
                raise NotFoundError(message)
            gone = {"status": AccountStatus.DISABLED, "sealed_token": None, "updated_at": now}
            return before.model_copy(update=gone | {"token_version": before.token_version + 1})

        return self.connect(account_id, decide)

    def store_tokens(self, account_id: str, sealed: Sealed, *, used_version: int) -> bool:
        """Keep refreshed tokens if the version that was used for them is still current; it revives
        an expired account. False: somebody stored newer ones, and theirs win."""
        fields = {
            "status": str(AccountStatus.ACTIVE),
            "sealedToken": sealed.token,
            "tokenExpiresAt": sealed.expires_at,
            "refreshAt": sealed.refresh_at,
            "tokenVersion": used_version + 1,
            "refreshRefusal": None,
        }
        alive = (AccountStatus.ACTIVE, AccountStatus.EXPIRED)
        return self._if_current(account_id, used_version, lambda *_: fields, alive)

    def refuse_refresh(self, account_id: str, *, used_version: int) -> None:
        """The platform refused to refresh this version. It is not the end yet: an earlier
        refresher may have died with the newer one in its hands, and its lock has to run out."""

        def fields(account: SocialAccount, now: datetime) -> dict[str, Any]:
            said = account.refresh_refusal
            if said is not None and said.token_version == used_version:
                return {}  # the first one counts: else each delivery would put the end off
            refusal = RefreshRefusal(token_version=used_version, at=now)
            return {"refreshRefusal": refusal.document()}

        self._if_current(account_id, used_version, fields, (AccountStatus.ACTIVE,))

    def expire(self, account_id: str, *, used_version: int) -> bool:
        """Mark an account whose token the platform refuses for good."""
        fields = {"status": str(AccountStatus.EXPIRED)}
        active = (AccountStatus.ACTIVE,)
        return self._if_current(account_id, used_version, lambda *_: fields, active)

    def _if_current(
        self,
        account_id: str,
        version: int,
        fields: Callable[[SocialAccount, datetime], dict[str, Any]],
        statuses: tuple[AccountStatus, ...],
    ) -> bool:
        ref = self._db.ref("socialAccounts", account_id)
        stamp = fresh_id()
        for _ in races():
            [seen] = self._db.read([ref])
            if not seen.exists:
                return False
            kept = seen.to_dict() or {}
            if kept.get("commitId") == stamp:
                return True
            account = SocialAccount.model_validate(kept)
            if account.token_version != version or account.status not in statuses:
                return False
            now = self._db.clock.now()
            changed = fields(account, now)
            if not changed:
                return True
            data = {**changed, "updatedAt": now, "commitId": stamp}
            try:
                self._db.commit([Write(ref, data, guard=seen.update_time)])
            except (LostRaceError, UncertainError):
                continue  # throttles write here too; the version is what counts
            return True
        raise AssertionError("unreachable")

    def lock_refresh(self, account_id: str, owner: str, length: timedelta) -> bool:
        """Whether `owner` may refresh this account's token now."""
        ref = self._db.ref("locks", f"refresh-{account_id}")
        for _ in races():
            [seen] = self._db.read([ref])
            now = self._db.clock.now()
            held = seen.to_dict() or {}
            if held.get("owner") == owner:
                return True
            if seen.exists and held["leaseEndsAt"] > now:
                return False
            data = {
                "owner": owner,
                "leaseEndsAt": now + length,
                "fencingToken": held.get("fencingToken", 0) + 1,
                "createdAt": held.get("createdAt", now),
                "updatedAt": now,
                "schemaVersion": SCHEMA_VERSION,
            }
            write = Write(ref, data, guard=seen.update_time if seen.exists else None)
            try:
                self._db.commit([write if seen.exists else Write(ref, data, create=True)])
            except (LostRaceError, UncertainError):
                continue
            return True
        raise AssertionError("unreachable")

    def unlock_refresh(self, account_id: str, owner: str) -> None:
        """Best effort: a lock that stays runs out by itself."""
        ref = self._db.ref("locks", f"refresh-{account_id}")
        [seen] = self._db.read([ref])
        if not seen.exists or seen.get("owner") != owner:
            return
        now = self._db.clock.now()
        data = {"owner": None, "leaseEndsAt": now, "updatedAt": now}
        try:
            self._db.commit([Write(ref, data, guard=seen.update_time)])
        except (LostRaceError, UncertainError):
            return

    def to_refresh(
        self, after: tuple[datetime, str] | None, limit: int
    ) -> list[tuple[str, SocialAccount]]:
        """Accounts whose tokens are to be refreshed by now, longest due first, behind `after`."""
        query = queries.page(
            self._db,
            queries.TO_REFRESH,
            str(AccountStatus.ACTIVE),
            optional={},
            until=self._db.read_the_time(),
            after=after,
            limit=limit,
        )
        return [_account(seen) for seen in self._db.query(query)]

    def of_company(
        self, company_id: str, after: str | None, limit: int
    ) -> list[tuple[str, SocialAccount]]:
        """A company's accounts by id, behind `after`."""
        query = queries.page(
            self._db,
            queries.ACCOUNTS_OF_COMPANY,
            company_id,
            optional={},
            after=(_NO_ORDER, after) if after else None,
            limit=limit,
        )
        return [_account(seen) for seen in self._db.query(query)]

    def due_after(self, account_id: str, at: datetime, limit: int) -> list[PublishLog]:
        """The account's open deliveries that fall due after `at`, soonest first."""
        query = queries.build(self._db, queries.OPEN_BY_ACCOUNT, account_id, since=at, limit=limit)
        logs = [parse(seen) for seen in self._db.query(query)]
        return [log for log in logs if log.is_open and log.due_at > at]

    def posts_between(
        self, account_id: str, since: datetime, until: datetime, most: int, *, replies: bool
    ) -> int:
        """How many the account has published, and has still to publish, in that time; `most`
        deliveries of each are looked at, and with `replies` each part of a thread counts. What is
        open stands in the index by when the sweep looks for it."""
        planned = queries.build(
            self._db,
            queries.OPEN_BY_ACCOUNT,
            account_id,
            since=since + leases.SWEEP_GRACE,
            until=until + leases.SWEEP_GRACE,
            limit=most,
        )
        count = self._posts(planned, replies=replies)
        if count >= most or since > self._db.clock.now():
            return count
        published = queries.build(
            self._db,
            queries.PUBLISHED_BY_ACCOUNT,
            account_id,
            str(Status.SUCCESS),
            since=since,
            until=until,
            limit=most,
        )
        return count + self._posts(published, replies=replies)

    def _posts(self, query: BaseQuery, *, replies: bool) -> int:
        if not replies:
            return self._db.count(query)
        found = [seen.to_dict() or {} for seen in self._db.query(query.select(["thread"]))]
        return sum(1 + len(log.get("thread") or ()) for log in found)

    def letters(self, account_id: str, reason: str, limit: int) -> list[DeadLetter]:
        """An account's open dead letters with this reason."""
        query = queries.build(
            self._db,
            queries.ACCOUNT_LETTERS,
            account_id,
            reason,
            str(LetterStatus.OPEN),
            limit=limit,
        )
        return [DeadLetter.model_validate(seen.to_dict()) for seen in self._db.query(query)]
