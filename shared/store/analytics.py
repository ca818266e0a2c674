"""Syncs, their parts and the numbers they bring, in Firestore.

A batch costs three round trips whatever its size: the posts, when they were last read, and one
commit of numbers, cursor, counts and the lock's renewal, which is all or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from google.cloud import firestore
from google.cloud.firestore_v1.document import DocumentReference
from google.cloud.firestore_v1.field_path import FieldPath

from shared.domain import analytics, keys, markers, slots
from shared.domain.accounts import SocialAccount
from shared.domain.analytics import (
    AnalyticsSyncJob,
    Begun,
    Decision,
    Item,
    Lock,
    MetricsSnapshot,
    Moved,
    Page,
    Part,
    PartStatus,
    Plan,
    Read,
    Scope,
    Seen,
    Sized,
    SyncStatus,
    Void,
)
from shared.domain.controls import Controls
from shared.domain.deliveries import PublishLog, Status
from shared.domain.failures import ConflictError, UnavailableError
from shared.domain.markers import Answered, Keyed, Marker, Mismatch
from shared.domain.posts import ScheduledPost
from shared.domain.records import SCHEMA_VERSION
from shared.store import queries
from shared.store.firestore import (
    Firestore,
    LostRaceError,
    Snapshot,
    UncertainError,
    Write,
    Written,
    fresh_id,
    races,
)
from shared.store.locks import last_slot, lock_of, lock_ref, release, renew, slot_ref, take

PLAN = "plan"


@dataclass(frozen=True, slots=True)
class Asked:
    """A sync as it was asked for. `keyed` is None for a run by hand, which has no key; `slot` is
    the slot of `job` that it is the run of."""

    keyed: Keyed
    scope: Scope
    job: str | None = None
    slot: datetime | None = None
    by: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """The sync under a key. `missed` are slots that nobody ran before this one."""

    sync_id: str
    replayed: bool
    missed: tuple[datetime, ...] = ()


@dataclass(frozen=True, slots=True)
class Planning:
    """A plan as it stood at `update_time`."""

    sync: AnalyticsSyncJob
    plan: Plan
    update_time: datetime


@dataclass(frozen=True, slots=True)
class PlanStep:
    """A page of accounts: the parts it comes to, who is left out and why."""

    parts: tuple[Part, ...]
    skipped: Mapping[str, int]
    cursor: str | None
    all_seen: bool


@dataclass(frozen=True, slots=True)
class Held:
    """A part and its account's lock, as the last commit left them."""

    part: Part
    account: SocialAccount
    lock: Lock
    part_guard: datetime
    lock_guard: datetime


@dataclass(frozen=True, slots=True)
class Kept:
    """One batch to be put on record. `pause_account` and `pause_reading` (epoch ms) hold up all
    calls of the account or reading alone; the others do so for the whole platform."""

    part: Part
    items: tuple[tuple[Item, Read], ...] = ()
    pause_account: int | None = None
    pause_reading: int | None = None
    pause_platform: Mapping[str, int] = field(default_factory=dict)  # by controls document


class Analytics:
    def __init__(self, db: Firestore) -> None:
        self._db = db

    # a sync

    def open(self, asked: Callable[[datetime], Asked], *, job: str | None) -> Opened:
        """The sync under this key: made by this call, or before. `asked` is called with the time,
        since the slot that a call belongs to depends on it. Raises `ConflictError` for a key that
        was used for another request."""
        sync_id = fresh_id()
        spent = slot_ref(self._db, job) if job else None
        if spent is not None:
            self._db.read([spent])  # the clock may have to be put right before a slot is judged
        request = asked(self._db.clock.now())
        keyed = request.keyed
        marker_ref = self._db.ref("idempotencyMarkers", keyed.marker_id)
        refs = [marker_ref, *([spent] if spent is not None and request.slot else [])]
        for _ in races():
            seen, *more = self._db.read(refs)
            now = self._db.clock.now()
            marker = Marker.model_validate(seen.to_dict()) if seen.exists else None
            match markers.look(marker, keyed.fingerprint, now):
                case Answered(response):
                    known: str = response["syncId"]
                    return Opened(known, replayed=known != sync_id)
                case Mismatch():
                    message = (
                        f"The idempotency key {keyed.key!r} was used for another request. "
                        "Send the first request again, or this one under a key of its own."
                    )
                    raise ConflictError(message, code="idempotency_key_reused")
            missed: list[datetime] = []
            batch = self._opening(sync_id, request, seen, now)
            if more and job is not None and request.slot is not None:
                write, missed = _spend(more[0], job, request.slot, now)
                batch.append(write)
            try:
                self._db.commit(batch)
            except (LostRaceError, UncertainError):
                continue  # the next read shows whose commit it was
            return Opened(sync_id, replayed=False, missed=tuple(missed))
        raise AssertionError("unreachable")

    def _opening(self, sync_id: str, asked: Asked, marker: Snapshot, now: datetime) -> list[Write]:
        sync = analytics.job(
            asked.scope,
            key=asked.keyed.key,
            now=now,
            slot=asked.slot,
            by=asked.by,
            traceparent=asked.traceparent,
        )
        known = markers.completed(asked.keyed, {"syncId": sync_id}, now).document()
        if marker.exists:  # expired, and the TTL has not come by yet
            write = Write(marker.reference, known, guard=marker.update_time)
        else:
            write = Write(marker.reference, known, create=True)
        return [
            write,
            Write(self._sync(sync_id), sync.document(), create=True),
            Write(self._part(sync_id, PLAN), analytics.plan(sync_id, now).document(), create=True),
        ]

    def read(self, sync_id: str) -> AnalyticsSyncJob | None:
        [seen] = self._db.read([self._sync(sync_id)])
        return AnalyticsSyncJob.model_validate(seen.to_dict()) if seen.exists else None

    def finish(self, sync_id: str) -> AnalyticsSyncJob | None:
        """Store that a sync is completed, when nothing of it is open: once, whoever asks. None
        when it is not, or was before."""
        for _ in races():
            [seen] = self._db.read([self._sync(sync_id)])
            if not seen.exists:
                return None
            sync = AnalyticsSyncJob.model_validate(seen.to_dict())
            if sync.open != 0 or sync.status is SyncStatus.COMPLETED:
                return None
            now = self._db.clock.now()
            data = {
                "status": str(SyncStatus.COMPLETED),
                "completedAt": now,
                "cloudTaskName": None,
                "updatedAt": now,
            }
            try:
                self._db.commit([Write(seen.reference, data, guard=seen.update_time)])
            except LostRaceError:
                continue
            except UncertainError:
                return None  # the next planner finds it
            return sync.model_copy(
                update={"status": SyncStatus.COMPLETED, "completed_at": now, "updated_at": now}
            )
        raise AssertionError("unreachable")

    def unfinished(self, before: datetime, limit: int) -> list[tuple[str, AnalyticsSyncJob]]:
        """Syncs begun by then and not completed, the oldest first."""
        query = queries.build(self._db, queries.UNFINISHED_SYNCS, None, until=before, limit=limit)
        return [
            (seen.id, AnalyticsSyncJob.model_validate(seen.to_dict()))
            for seen in self._db.query(query)
        ]

    def wake_paused(self, sync_id: str, where: Mapping[str, str], limit: int) -> list[Part]:
        """The parts of a sync that a pause of this scope held, each due now on record."""
        parts = replace(queries.PAUSED_PARTS, collection=f"analyticsSyncJobs/{sync_id}/parts")
        status = str(PartStatus.WAITING)
        query = queries.page(self._db, parts, "paused", status, optional=where, limit=limit)
        woken = []
        for seen in self._db.query(query):
            before = Part.model_validate(seen.to_dict())
            after = analytics.woken(before, self._db.clock.now())
            if after is None:
                continue
            data = _difference(before, after)
            with suppress(LostRaceError, UncertainError):  # it looks again by itself
                self._db.commit([Write(seen.reference, data, guard=seen.update_time)])
                woken.append(after)
        return woken

    def abandon(self, sync_id: str, limit: int) -> bool:
        """End what is open of a sync that nobody works for any more: its tasks are gone. True:
        nothing is open now."""
        held = self.planning(sync_id)
        emptied = False
        if held is not None and not held.plan.done:
            emptied = self.planned(held)[1]
        parts = replace(queries.PARTS, collection=f"analyticsSyncJobs/{sync_id}/parts")
        for status in sorted(analytics.OPEN):
            query = queries.build(self._db, parts, str(status), limit=limit)
            for seen in self._db.query(query):
                before = Part.model_validate(seen.to_dict())
                now = self._db.clock.now()
                code = before.code or "abandoned"
                after = analytics.ended(before, now, PartStatus.FAILED, code=code)
                data = _difference(before, after)
                batch = [Write(seen.reference, data, guard=seen.update_time)]
                try:
                    results = self._db.commit([*batch, *self._ending(after, now)])
                except (LostRaceError, UncertainError):
                    continue  # somebody works for it after all, or the next planner finds it
                emptied = emptied or _emptied(results)
        return emptied

    # planning

    def planning(self, sync_id: str) -> Planning | None:
        sync, plan = self._db.read([self._sync(sync_id), self._part(sync_id, PLAN)])
        if not sync.exists or not plan.exists:
            return None
        return Planning(
            AnalyticsSyncJob.model_validate(sync.to_dict()),
            Plan.model_validate(plan.to_dict()),
            plan.update_time,
        )

    def accounts(
        self, scope: Scope, after: str | None, limit: int
    ) -> list[tuple[str, SocialAccount]]:
        """The next accounts of a scope, by their ids."""
        values = [value for value in (scope.company_id, scope.platform) if value]
        query = {
            (True, True): queries.ACCOUNTS_OF_BOTH,
            (True, False): queries.ACCOUNTS_OF_COMPANY,
            (False, True): queries.ACCOUNTS_OF_PLATFORM,
            (False, False): queries.ACCOUNTS,
        }[bool(scope.company_id), bool(scope.platform)]
        built = queries.build(self._db, query, *values, limit=limit).order_by("__name__")
        if after is not None:
            built = built.start_after({"__name__": self._db.ref("socialAccounts", after)})
        return [
            (seen.id, SocialAccount.model_validate(seen.to_dict()))
            for seen in self._db.query(built)
        ]

    def posts(self, post_ids: Collection[str]) -> dict[str, ScheduledPost]:
        found = self._db.read([self._db.ref("scheduledPosts", name) for name in post_ids])
        return {s.id: ScheduledPost.model_validate(s.to_dict()) for s in found if s.exists}

    def named_accounts(self, account_ids: Collection[str]) -> dict[str, SocialAccount]:
        if not account_ids:
            return {}
        found = self._db.read([self._db.ref("socialAccounts", name) for name in account_ids])
        return {s.id: SocialAccount.model_validate(s.to_dict()) for s in found if s.exists}

    def add(self, held: Planning, step: PlanStep) -> Planning:
        """Put a page of parts on record. Raises `UnavailableError` when another planner is at it,
        or when it cannot be told whether it was written: the record tells the next try."""
        now = self._db.clock.now()
        skipped = dict(held.plan.skipped)
        for reason, count in step.skipped.items():
            skipped[reason] = skipped.get(reason, 0) + count
        plan = held.plan.model_copy(
            update={
                "cursor": step.cursor,
                "all_seen": step.all_seen,
                "waking": tuple(part.account_id for part in step.parts),
                "planned": held.plan.planned + len(step.parts),
                "skipped": skipped,
                "updated_at": now,
            }
        )
        more = [
            Write(
                self._part(part.sync_id, keys.sync_part_id(part.account_id)),
                part.document(),
                create=True,
            )
            for part in step.parts
        ]
        counted: dict[str, Any] = {"updatedAt": now}
        if step.parts:
            counted["open"] = firestore.Increment(len(step.parts))
            counted["accountsPlanned"] = firestore.Increment(len(step.parts))
        if step.skipped:
            counted["accountsSkipped"] = firestore.Increment(sum(step.skipped.values()))
            for reason, count in step.skipped.items():
                counted[_path("skipped", reason)] = firestore.Increment(count)
        more.append(Write(self._sync(plan.sync_id), counted))
        return self._planned(held, plan, more)[0]

    def go_on_later(self, held: Planning, task: Callable[[int], str]) -> Planning:
        """Hand the plan on to its next hop, whose task is called `task(hop)`."""
        now = self._db.clock.now()
        plan = held.plan.model_copy(update={"hop": held.plan.hop + 1, "updated_at": now})
        told = Write(self._sync(plan.sync_id), {"cloudTaskName": task(plan.hop), "updatedAt": now})
        return self._planned(held, plan, [told])[0]

    def planned(self, held: Planning) -> tuple[Planning, bool]:
        """Every account has its task. True: all of them have ended already."""
        now = self._db.clock.now()
        plan = held.plan.model_copy(update={"done": True, "waking": (), "updated_at": now})
        sync = self._sync(plan.sync_id)
        status = {
            "status": str(SyncStatus.PROCESSING),
            "cloudTaskName": None,
            "updatedAt": now,
        }
        held, written = self._planned(
            held, plan, [Write(sync, {"open": firestore.Increment(-1)}), Write(sync, status)]
        )
        return held, written[1].transformed == 0

    def _planned(
        self, held: Planning, plan: Plan, more: list[Write]
    ) -> tuple[Planning, list[Written]]:
        ref = self._part(plan.sync_id, PLAN)
        data = _difference(held.plan, plan)
        try:
            written = self._db.commit([Write(ref, data, guard=held.update_time), *more])
        except (LostRaceError, UncertainError) as error:
            message = "The sync is being planned by another request. Try again shortly."
            raise UnavailableError(message, code="planning") from error
        return Planning(held.sync, plan, written[0].update_time), written

    # one account

    def begin(
        self,
        sync_id: str,
        account_id: str,
        *,
        hop: int,
        owner: str,
        sized: Callable[[SocialAccount], Sized | None],
    ) -> tuple[Decision, Held | None, bool]:
        """Decide what a task may do, and take the account's lock if it may read. The last value
        says that nothing of the sync is open."""
        refs = [
            self._part(sync_id, keys.sync_part_id(account_id)),
            lock_ref(self._db, account_id),
            self._db.ref("socialAccounts", account_id),
            self._db.ref("controls", "sync"),
            self._db.ref("controls", "publish"),
            self._sync(sync_id),
        ]
        written: Decision | None = None
        for _ in races():
            found = self._db.read(refs)
            seen = _seen(found, sized)
            if seen is None:
                return Void(), None, False
            if isinstance(written, Begun) and _ours(seen, owner) and seen.account and seen.lock:
                held = Held(
                    seen.part, seen.account, seen.lock, found[0].update_time, found[1].update_time
                )
                return Begun(seen.part), held, False
            now = self._db.clock.now()
            decision = analytics.begin(seen, hop=hop, now=now, owner=owner)
            if not isinstance(decision, Begun | Moved):
                return decision, None, _all_ended(found[5])
            written = decision
            try:
                results = self._db.commit(self._beginning(found, seen, decision, owner, now))
            except (LostRaceError, UncertainError):
                continue
            if isinstance(decision, Moved) or seen.account is None:
                return decision, None, _emptied(results)
            lock = analytics.claim(seen.lock, owner, now)
            guards = results[0].update_time, results[1].update_time
            return decision, Held(decision.part, seen.account, lock, *guards), False
        raise AssertionError("unreachable")

    def _beginning(
        self,
        found: Sequence[Snapshot],
        seen: Seen,
        decision: Begun | Moved,
        owner: str,
        now: datetime,
    ) -> list[Write]:
        data = _difference(seen.part, decision.part)
        batch = [Write(found[0].reference, data, guard=found[0].update_time)]
        if isinstance(decision, Begun):
            batch.append(take(found[1], analytics.claim(seen.lock, owner, now), now))
        elif not decision.part.is_open:
            batch += self._ending(decision.part, now)
        return batch

    def page(self, part: Part, limit: int) -> Page:
        """The next posts of a part that were published, and when each was last read."""
        if part.delivery_ids:
            return self._named_page(part, limit)
        built = queries.build(
            self._db,
            queries.PUBLISHED_BY_ACCOUNT,
            part.account_id,
            str(Status.SUCCESS),
            since=part.start,
            until=part.until,
            limit=limit,
        ).order_by("__name__")
        if part.cursor_at is not None and part.cursor_id is not None:
            after = self._db.ref("publishLogs", part.cursor_id)
            built = built.start_after({"publishedAt": part.cursor_at, "__name__": after})
        found = self._db.query(built)
        logs = [PublishLog.model_validate(seen.to_dict()) for seen in found]
        read_at = self._read_at([log.id for log in logs])
        items = tuple(item for log in logs if (item := _item(log, read_at)) is not None)
        last = logs[-1] if logs else None
        cursor = (last.published_at, last.id) if last else None
        return Page(items, last=len(found) < limit, cursor=cursor)

    def _named_page(self, part: Part, limit: int) -> Page:
        left = [name for name in part.delivery_ids if name > (part.cursor_id or "")]
        names = left[:limit]
        if not names:
            return Page((), last=True)
        logs = [self._db.ref("publishLogs", name) for name in names]
        known = [self._db.ref("postMetrics", name) for name in names]
        found = self._db.read([*logs, *known])
        read_at = {s.id: s.get("fetchedAt") for s in found[len(names) :] if s.exists}
        published = [
            PublishLog.model_validate(seen.to_dict()) for seen in found[: len(names)] if seen.exists
        ]
        items = tuple(
            item
            for log in published
            if log.status is Status.SUCCESS
            and log.published_at is not None
            and part.start <= log.published_at
            and (item := _item(log, read_at)) is not None
        )
        return Page(items, last=len(left) == len(names), cursor=(None, names[-1]))

    def _read_at(self, deliveries: Sequence[str]) -> dict[str, datetime]:
        if not deliveries:
            return {}
        found = self._db.read([self._db.ref("postMetrics", name) for name in deliveries])
        return {seen.id: seen.get("fetchedAt") for seen in found if seen.exists}

    def keep(self, held: Held, kept: Kept) -> tuple[Held, bool]:
        """Put a batch on record: while the part runs on the lock is renewed, otherwise it is given
        back. True: nothing of the sync is open any more.

        Raises `UnavailableError` when the lock was lost, or when it cannot be told whether the
        batch was written: this attempt must do nothing more, and the record tells the next.
        """
        now = self._db.clock.now()
        part = kept.part
        lock = lock_ref(self._db, part.account_id)
        runs = part.status is PartStatus.RUNNING
        batch = [
            Write(
                self._part(part.sync_id, keys.sync_part_id(part.account_id)),
                _difference(held.part, part),
                guard=held.part_guard,
            ),
            renew(lock, held.lock_guard, now)
            if runs
            else release(lock, held.lock_guard, now, kept.pause_reading),
        ]
        for item, read in kept.items:
            batch += self._numbers(part, item, read, now)
        if kept.pause_account is not None:
            until = firestore.Maximum(kept.pause_account)
            account = self._db.ref("socialAccounts", part.account_id)
            batch.append(Write(account, {"pausedUntil": until, "updatedAt": now}))
        for name, until_ms in kept.pause_platform.items():
            batch.append(self._app_wide(name, part.platform, until_ms, now))
        if not part.is_open:
            batch += self._ending(part, now)
        try:
            results = self._db.commit(batch)
        except (LostRaceError, UncertainError) as error:
            message = "The account is being read by another request."
            raise UnavailableError(message, code="lock_lost") from error
        after = Held(part, held.account, held.lock, results[0].update_time, results[1].update_time)
        return after, not part.is_open and _emptied(results)

    def _numbers(self, part: Part, item: Item, read: Read, now: datetime) -> list[Write]:
        """The latest numbers and one more snapshot. Merged: what the platform did not tell this
        time keeps its number and the instant that number is from."""
        numbers = dict(read.metrics)
        measured = MetricsSnapshot(
            delivery_id=item.delivery_id,
            post_id=item.post_id,
            company_id=part.company_id,
            platform=part.platform,
            account_id=part.account_id,
            remote_id=item.remote_id,
            published_at=item.published_at,
            source_at=read.source_at,
            fetched_at=now,
            sync_id=part.sync_id,
            fencing_token=part.fencing_token,
            metrics=numbers,
            created_at=now,
            updated_at=now,
            expire_at=now + analytics.SNAPSHOTS_KEPT,
        )
        snapshot = measured.document()
        latest = {name: value for name, value in snapshot.items() if name != "expireAt"}
        latest["metricsAt"] = dict.fromkeys(numbers, read.source_at or now)
        if item.fetched_at is not None:
            del latest["createdAt"]
        if not numbers:  # merged, an empty map would wipe the numbers known so far
            del latest["metrics"], latest["metricsAt"]
        ref = self._db.ref("postMetrics", item.delivery_id)
        history = ref.collection("snapshots").document(keys.snapshot_id(now))
        return [Write(ref, latest, merge=True), Write(history, snapshot, replace=True)]

    def _app_wide(self, name: str, platform: str, until: int, now: datetime) -> Write:
        data = {
            "throttled": {platform: firestore.Maximum(until)},
            "updatedAt": now,
            "schemaVersion": SCHEMA_VERSION,
        }
        return Write(self._db.ref("controls", name), data, merge=True)

    def _ending(self, part: Part, now: datetime) -> list[Write]:
        """What a sync hears of a part that has ended; the first write stands alone, so that its
        transform is the only one."""
        counted: dict[str, Any] = {"updatedAt": now}
        counts = {
            _COUNT[part.status]: 1,
            "itemsProcessed": part.items_processed,
            "itemsFailed": part.items_failed,
            "itemsSkipped": part.items_skipped,
        }
        if part.status is PartStatus.SKIPPED:
            counts[_path("skipped", part.code or "skipped")] = 1
        counted |= {name: firestore.Increment(count) for name, count in counts.items() if count}
        sync = self._sync(part.sync_id)
        return [Write(sync, {"open": firestore.Increment(-1)}), Write(sync, counted)]

    # references

    def _sync(self, sync_id: str) -> DocumentReference:
        return self._db.ref("analyticsSyncJobs", sync_id)

    def _part(self, sync_id: str, name: str) -> DocumentReference:
        part: DocumentReference = self._sync(sync_id).collection("parts").document(name)
        return part


_COUNT = {
    PartStatus.DONE: "accountsDone",
    PartStatus.FAILED: "accountsFailed",
    PartStatus.SKIPPED: "accountsSkipped",
}


def _spend(seen: Snapshot, job: str, slot: datetime, now: datetime) -> tuple[Write, list[datetime]]:
    """The write that spends a slot, and the slots before it that nobody ran."""
    last = last_slot(seen)
    taken = slots.taken(last, job, slot, now)
    if last is None:
        return Write(seen.reference, taken.document(), create=True), []
    missed = [at for at in slots.missed(last, slot) if at < slot]
    return Write(seen.reference, taken.document(), guard=seen.update_time), missed


def _seen(found: Sequence[Snapshot], sized: Callable[[SocialAccount], Sized | None]) -> Seen | None:
    part, lock, account, syncing, publishing, _ = found
    if not part.exists:
        return None
    whose = SocialAccount.model_validate(account.to_dict()) if account.exists else None
    return Seen(
        part=Part.model_validate(part.to_dict()),
        lock=lock_of(lock),
        account=whose,
        sized=sized(whose) if whose else None,
        syncing=_controls(syncing),
        publishing=_controls(publishing),
    )


def _controls(seen: Snapshot) -> Controls:
    return Controls.model_validate(seen.to_dict()) if seen.exists else Controls()


def _ours(seen: Seen, owner: str) -> bool:
    return seen.part.owner == owner and seen.lock is not None and seen.lock.owner == owner


def _all_ended(sync: Snapshot) -> bool:
    return bool(sync.exists and sync.get("open") == 0 and sync.get("status") == "processing")


def _emptied(results: Sequence[Written]) -> bool:
    """Whether a part's end was the last one: only the write to `open` comes to an int of its own,
    and it is the last but one."""
    return len(results) > 2 and results[-2].transformed == 0


def _item(log: PublishLog, read_at: Mapping[str, datetime]) -> Item | None:
    if log.remote_id is None or log.published_at is None:
        return None
    return Item(log.id, log.post_id, log.remote_id, log.published_at, read_at.get(log.id))


def _difference(before: Any, after: Any) -> dict[str, Any]:
    """The fields that a move changes, as Firestore keeps them."""
    changed = {
        name for name in type(before).model_fields if getattr(before, name) != getattr(after, name)
    }
    data: dict[str, Any] = after.model_dump(by_alias=True, include=changed)
    return data


def _path(*names: str) -> str:
    path: str = FieldPath(*names).to_api_repr()
    return path
