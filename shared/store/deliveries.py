"""Deliveries in Firestore: each verb reads, decides with a function of `domain`, and writes in one
commit guarded by the log's update time. It is tried again from the read when it lost a race."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from google.cloud import firestore
from google.cloud.firestore_v1.field_path import FieldPath

from shared.domain import claims, keys, posts
from shared.domain.accounts import SocialAccount
from shared.domain.claims import Begun, Decision, Knock, Moved, Seen, Void
from shared.domain.controls import Controls
from shared.domain.deliveries import Change, PublishLog
from shared.domain.failures import UnavailableError
from shared.domain.records import SCHEMA_VERSION
from shared.store import queries
from shared.store.firestore import (
    Firestore,
    LostRaceError,
    Snapshot,
    UncertainError,
    Write,
    fresh_id,
    races,
)

# Whether an unknown outcome on this account can be looked into without a person.
Looks = Callable[[SocialAccount | None], bool]


class LeaseLostError(Exception):
    """Another attempt has taken over, or the lease has run out: this one must do nothing more."""


class UnrecordedError(Exception):
    """The platform's answer could not be put on record: the delivery has moved on without it."""


@dataclass(frozen=True, slots=True)
class Held:
    """A log as it stood at `update_time`, and the account it was read with."""

    log: PublishLog
    update_time: datetime
    account: SocialAccount | None
    account_update_time: datetime | None = None


class Deliveries:
    def __init__(self, db: Firestore) -> None:
        self._db = db

    def begin(
        self,
        *,
        post_id: str,
        platform: str,
        account_id: str,
        knock: Knock,
        owner: str,
        looks: Looks,
    ) -> tuple[Decision, Held | None]:
        """Decide what a task may do, and claim the delivery if it may publish. The second value is
        what is held after the decision was written."""
        delivery = keys.delivery_id(post_id, platform, account_id)
        commit_id = fresh_id()
        written: Decision | None = None
        for _ in races():
            held, seen = self._read(delivery, account_id)
            if held is None or seen is None:
                return Void("no such delivery", unknown=True), None
            if written is not None and held.log.commit_id == commit_id:
                return written, held
            now = self._db.clock.now()
            decision = claims.begin(seen, knock, now=now, owner=owner, looks=looks(seen.account))
            if not isinstance(decision, Begun | Moved):
                return decision, held
            written = decision
            after = self._try(held, decision.change, commit_id)
            if after is not None:
                return decision, after
        raise AssertionError("unreachable")

    def mark_committing(
        self, held: Held, *, request_hash: str, before: claims.Posted | None = None
    ) -> Held:
        """The `committing` mark, and the part `before` this one with it. Raises `LeaseLostError`:
        then nothing may be sent."""
        now = self._db.clock.now()
        owner = held.log.owner or ""
        change = claims.mark(held.log, now, owner=owner, request_hash=request_hash, before=before)
        return self._as_owner(held, change)

    def keep(
        self, held: Held, state: Mapping[str, Any], *, before: claims.Posted | None = None
    ) -> Held:
        """State on record before it is used. Raises `LeaseLostError`."""
        now = self._db.clock.now()
        owner = held.log.owner or ""
        change = claims.keep(held.log, now, owner=owner, state=state, before=before)
        return self._as_owner(held, change)

    def _as_owner(self, held: Held, change: Change | None) -> Held:
        """Write while nobody else has: an uncertain commit counts only once a read shows it."""
        if change is None:
            raise LeaseLostError
        commit_id = fresh_id()
        for _ in races():
            after = self._try(held, change, commit_id)
            if after is not None:
                return after
            current, _seen = self._read(held.log.id, held.log.account_id)
            if current is not None and current.log.commit_id == commit_id:
                return current
            if current is None or current.update_time != held.update_time:
                raise LeaseLostError
        raise AssertionError("unreachable")

    def settle(
        self,
        held: Held,
        result: claims.Result,
        *,
        jitter: float,
        looks: bool,
        ends_at: float,
        snooze_until: datetime | None = None,
        before: claims.Posted | None = None,
    ) -> Change:
        """Put an attempt's result on record, trying until `ends_at` (monotonic seconds), with the
        part `before` the one that it is about, where no record has that yet.

        Raises `LeaseLostError` when the delivery has moved on and nothing is lost by that,
        `UnrecordedError` when a post's id is, `UnavailableError` when Firestore did not take it
        in time.
        """
        owner = held.log.owner or ""
        commit_id = fresh_id()
        written: Change | None = None
        while True:
            now = self._db.clock.now()
            if held.log.owner == owner:
                log = claims.stepped(held.log, before, now) if before else held.log
                change = self._settled(log, result, now, jitter, looks, snooze_until)
            else:
                told = before or result
                late = claims.late_answer(held.log, told, now=now, owner=owner)
                if late is None:
                    raise UnrecordedError if _would_be_lost(held.log, told) else LeaseLostError
                change = late
            written = change
            if self._try(held, change, commit_id) is not None:
                return change
            held = self._reread(held, ends_at)
            if held.log.commit_id == commit_id:
                finish_post(self._db, held.log.post_id)
                return written

    def _settled(
        self,
        log: PublishLog,
        result: claims.Result,
        now: datetime,
        jitter: float,
        looks: bool,
        snooze_until: datetime | None,
    ) -> Change:
        if snooze_until is not None:
            code = getattr(result, "code", "snoozed")
            return claims.snooze(log, now, snooze_until, code=code)
        change = claims.settle(log, result, now=now, jitter=jitter, looks=looks)
        if change.by_evidence and self._belongs_to_another(change.log):
            return claims.settle(log, result, now=now, jitter=jitter, looks=looks, taken=True)
        return change

    def _belongs_to_another(self, log: PublishLog) -> bool:
        found_id = log.remote_ids[-1]
        query = queries.build(self._db, queries.BY_REMOTE_ID, log.platform, found_id, limit=2)
        owners = {found.id for found in self._db.query(query)}
        claimed = self._db.ref("remoteIds", keys.remote_id(log.platform, found_id))
        [owner] = self._db.read([claimed])
        if owner.exists:
            owners.add(owner.get("deliveryId"))
        return bool(owners - {log.id})

    def _reread(self, held: Held, ends_at: float) -> Held:
        while True:
            if time.monotonic() >= ends_at:
                message = "The outcome could not be recorded in time."
                raise UnavailableError(message, code="database_down")
            try:
                current, _ = self._read(held.log.id, held.log.account_id)
            except UnavailableError:
                time.sleep(0.2)
                continue
            if current is None:
                raise UnrecordedError
            return current

    # sweep and promote

    def sweep(self, delivery: str, account_id: str, *, looks: Looks) -> Change | None:
        """What the sweep makes of one delivery; None when there was nothing to do."""
        commit_id = fresh_id()
        written: Change | None = None
        for _ in races():
            held, seen = self._read(delivery, account_id)
            if held is None or seen is None:
                return None
            if written is not None and held.log.commit_id == commit_id:
                return written
            written = claims.sweep(seen, now=self._db.clock.now(), looks=looks(seen.account))
            if written is None:
                return None
            if self._try(held, written, commit_id) is not None:
                return written
        raise AssertionError("unreachable")

    def overdue(self, limit: int) -> list[PublishLog]:
        """Open deliveries whose grace is over, the longest first."""
        return self._up_to_now(queries.TO_SWEEP, limit)

    def to_promote(self, limit: int) -> list[PublishLog]:
        """Deliveries that have come within the queue's horizon, the earliest first."""
        return self._up_to_now(queries.TO_PROMOTE, limit)

    def _up_to_now(self, query: queries.Query, limit: int) -> list[PublishLog]:
        built = queries.build(self._db, query, until=self._db.read_the_time(), limit=limit)
        return [parse(snapshot) for snapshot in self._db.query(built)]

    def promoted(self, log: PublishLog) -> None:
        """The task exists: nothing is left to promote. Losing a race means that it was moved."""
        [seen] = self._db.read([self._db.ref("publishLogs", log.id)])
        if not seen.exists or parse(seen).hop != log.hop:
            return
        data = {"promoteAt": None, "version": log.version + 1, "commitId": fresh_id()}
        try:
            self._db.commit([Write(seen.reference, data, guard=seen.update_time)])
        except (LostRaceError, UncertainError):
            return  # the next promote finds it again, and its task already there

    def read(self, delivery: str) -> PublishLog | None:
        [seen] = self._db.read([self._db.ref("publishLogs", delivery)])
        return parse(seen) if seen.exists else None

    # reading and writing

    def _read(self, delivery: str, account_id: str) -> tuple[Held | None, Seen | None]:
        """Log, account and controls at one instant, in one round trip."""
        log, account, controls = self._db.read(
            [
                self._db.ref("publishLogs", delivery),
                self._db.ref("socialAccounts", account_id),
                self._db.ref("controls", "publish"),
            ]
        )
        if not log.exists:
            return None, None
        whose = SocialAccount.model_validate(account.to_dict()) if account.exists else None
        rules = Controls.model_validate(controls.to_dict()) if controls.exists else Controls()
        held = Held(parse(log), log.update_time, whose, account.update_time)
        return held, Seen(held.log, whose, rules)

    def _try(self, held: Held, change: Change, commit_id: str) -> Held | None:
        """What is held after the change; None when the race was lost or the answer was."""
        after = change.log.model_copy(update={"commit_id": commit_id})
        try:
            batch = writes(self._db, held.log, replace(change, log=after), held.update_time)
            if change.next_free_at is not None:
                batch.append(self._slot_write(held, change.next_free_at))
            written = self._db.commit(batch)
        except (LostRaceError, UncertainError):
            return None
        if len(written) > 1 and (written[1].transformed == 0 or _corrects(held.log, after)):
            finish_post(self._db, after.post_id)
        return Held(after, written[0].update_time, held.account)

    def _slot_write(self, held: Held, next_free_at: int) -> Write:
        """Two of a backlog must not take one slot: whoever read the account before loses."""
        ref = self._db.ref("socialAccounts", held.log.account_id)
        return Write(ref, {"nextFreeAt": next_free_at}, guard=held.account_update_time)


def _would_be_lost(log: PublishLog, result: claims.Result) -> bool:
    """Of what a stale attempt brings, only the id of a post matters that is on no record."""
    known = {log.remote_id, *log.remote_ids}
    return isinstance(result, claims.Posted) and result.remote_id not in known


def _corrects(before: PublishLog, after: PublishLog) -> bool:
    """An end that takes the place of another end: a late answer, or a person's word."""
    return not before.is_open and not after.is_open


def parse(snapshot: Snapshot) -> PublishLog:
    return PublishLog.model_validate(snapshot.to_dict())


def difference(before: PublishLog, after: PublishLog) -> dict[str, Any]:
    """The fields that a move changes, as Firestore keeps them."""
    changed = {
        name for name in PublishLog.model_fields if getattr(before, name) != getattr(after, name)
    }
    return after.model_dump(by_alias=True, include=changed)


def writes(
    db: Firestore, before: PublishLog, change: Change, guard: datetime, *, tell_post: bool = True
) -> list[Write]:
    """One change as the writes of its commit: the guarded log first, then its post."""
    after, now = change.log, change.log.updated_at
    batch = [Write(db.ref("publishLogs", after.id), difference(before, after), guard=guard)]
    if tell_post and posts.shows(before, after):
        batch.append(post_write(db, [(before, after)], now))
    if change.letter is not None:
        letter = change.letter
        letter_id = keys.dead_letter_id(letter.delivery_id or "", letter.generation or 0)
        batch.append(Write(db.ref("deadLetters", letter_id), letter.document(), replace=True))
    if change.pause_account is not None:
        until = firestore.Maximum(change.pause_account)
        data = {"pausedUntil": until, "updatedAt": now}
        batch.append(Write(db.ref("socialAccounts", after.account_id), data))
    if change.pause_platform is not None:
        batch.append(_app_wide(db, after.platform, change.pause_platform, now))
    batch += _claims(db, before, change)
    return batch


def _claims(db: Firestore, before: PublishLog, change: Change) -> Iterator[Write]:
    """Whose the new parts' posts are. A log is found by its first part's id: that one is claimed
    only where it was found by evidence, which no two deliveries may do at once."""
    after = change.log
    for remote_id in after.remote_ids[before.part :]:
        newest = change.by_evidence and remote_id == after.remote_ids[-1]
        if remote_id == after.remote_id and not newest:
            continue
        data = {
            "platform": after.platform,
            "remoteId": remote_id,
            "deliveryId": after.id,
            "createdAt": after.updated_at,
            "updatedAt": after.updated_at,
            "schemaVersion": SCHEMA_VERSION,
        }
        claimed = db.ref("remoteIds", keys.remote_id(after.platform, remote_id))
        yield Write(claimed, data, create=newest, replace=not newest)


def _app_wide(db: Firestore, platform: str, until: int, now: datetime) -> Write:
    data = {
        "throttled": {platform: firestore.Maximum(until)},
        "updatedAt": now,
        "schemaVersion": SCHEMA_VERSION,
    }
    return Write(db.ref("controls", "publish"), data, merge=True)


def post_write(db: Firestore, moves: list[tuple[PublishLog, PublishLog]], now: datetime) -> Write:
    """What a post hears of its deliveries' moves: their summaries and how many are open."""
    data: dict[str, Any] = {"status": str(posts.PostStatus.PROCESSING), "updatedAt": now}
    for _, after in moves:
        path = FieldPath("results", after.id).to_api_repr()
        data[path] = posts.result(after).document()
        if after.attempts:
            data["lastAttemptAt"] = after.attempts[-1].started_at
    opened = sum(posts.opened(before, after) for before, after in moves)
    if opened:
        data["open"] = firestore.Increment(opened)
    return Write(db.ref("scheduledPosts", moves[0][1].post_id), data)


def finish_post(db: Firestore, post_id: str) -> None:
    """Store the derived status of a post of which nothing is open any more.

    Not done is not lost: the sweep finds posts with `open == 0` that still say `processing`.
    """
    try:
        for _ in races():
            [seen] = db.read([db.ref("scheduledPosts", post_id)])
            if not seen.exists:
                return
            post = posts.ScheduledPost.model_validate(seen.to_dict())
            if post.open != 0:
                return
            data = {
                "status": str(posts.derive(post.results.values())),
                "errorMessage": posts.errors(post.results.values()),
                "updatedAt": db.clock.now(),
            }
            try:
                db.commit([Write(seen.reference, data, guard=seen.update_time)])
            except LostRaceError:
                continue
            return
    except (UnavailableError, UncertainError):
        return
