"""Imports and exports in Firestore. Each step of one is a single commit guarded by the job's own
update time: what it writes, the cursor behind it and the counts stand together or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from shared.domain import bulk, keys, markers
from shared.domain.accounts import SocialAccount
from shared.domain.bulk import Begun, BulkJob, Decision, Paused, RefusedRow, State
from shared.domain.controls import Controls
from shared.domain.deliveries import PublishLog
from shared.domain.failures import ConflictError, NotFoundError, UnavailableError
from shared.domain.markers import Answered, Keyed, Marker, Mismatch
from shared.domain.media import MediaAsset
from shared.domain.posts import ScheduledPost
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
from shared.store.posts import Command, Creation, Posts, Surroundings, Whole, creation_writes


class OvertakenError(Exception):
    """Another attempt has taken over, or the job has ended: this one must do nothing more."""


@dataclass(frozen=True, slots=True)
class Held:
    """A job as it stood at `update_time`."""

    id: str
    job: BulkJob
    update_time: datetime


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a batch of rows has to be looked at with."""

    post_ids: tuple[str, ...]
    account_ids: tuple[str, ...]
    asset_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Around:
    """What was read together. `wholes` are the posts that a row may change, with their logs."""

    surroundings: Surroundings
    posts: Mapping[str, ScheduledPost]
    wholes: Mapping[str, Whole] = field(default_factory=dict)
    guards: Mapping[str, datetime] = field(default_factory=dict)  # of posts and logs


@dataclass(frozen=True, slots=True)
class Step:
    """What one commit writes: the job behind it, posts made, posts changed, rows refused."""

    job: BulkJob
    creations: tuple[Creation, ...] = ()
    changes: tuple[tuple[str, Command], ...] = ()  # by post id
    refused: tuple[RefusedRow, ...] = ()


class Batch(Protocol):
    """A batch of rows: what it needs, which known posts differ from it, what becomes of it."""

    @property
    def wanted(self) -> Wanted: ...

    def changed(self, around: Around) -> Sequence[str]: ...

    def decide(self, around: Around, job: BulkJob, now: datetime) -> Step: ...


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer under a key; `job` is there when this request made it."""

    response: dict[str, Any]
    job: BulkJob | None = None


class BulkJobs:
    def __init__(self, db: Firestore, posts: Posts) -> None:
        self._db = db
        self._posts = posts

    # asking and looking

    def accept(
        self, job_id: str, keyed: Keyed, response: dict[str, Any], make: Callable[..., BulkJob]
    ) -> Accepted:
        """Marker and job in one commit. `make` is called with the time."""
        marker_ref = self._db.ref("idempotencyMarkers", keyed.marker_id)
        for _ in races():
            [seen] = self._db.read([marker_ref])
            now = self._db.clock.now()
            known = _answer(seen, keyed, now)
            if known is not None:
                return Accepted(known)
            job = make(now=now)
            marker = markers.completed(keyed, response, now).document()
            guard = {"guard": seen.update_time} if seen.exists else {"create": True}
            try:
                self._db.commit(
                    [
                        Write(marker_ref, marker, **guard),
                        Write(self._ref(job_id), job.document(), create=True),
                    ]
                )
            except (LostRaceError, UncertainError):
                continue  # the next read shows whose commit it was
            return Accepted(response, job)
        raise AssertionError("unreachable")

    def answered(self, keyed: Keyed) -> dict[str, Any] | None:
        """What this key was answered before. Raises `ConflictError` for another request's key."""
        [seen] = self._db.read([self._db.ref("idempotencyMarkers", keyed.marker_id)])
        return _answer(seen, keyed, self._db.clock.now())

    def read(self, job_id: str, company_id: str | None = None) -> BulkJob:
        """Raises `NotFoundError`, also for a job of another company."""
        return self._of(job_id, company_id).job

    def cancel(self, job_id: str, company_id: str) -> BulkJob:
        """Nothing more is done from here on. Cancelling twice is once; an end stays what it is."""
        commit_id = fresh_id()
        for _ in races():
            held = self._of(job_id, company_id)
            if held.job.state is State.CANCELLED:
                return held.job
            if not held.job.is_open:
                message = f"The job is {held.job.state}: there is nothing left to cancel."
                raise ConflictError(message, code="too_late")
            after = bulk.ended(held.job, self._db.clock.now(), State.CANCELLED)
            written = self._try(held, Step(after), commit_id, None)
            if written is not None:
                return written.job
        raise AssertionError("unreachable")

    # one chunk

    def begin(self, job_id: str, *, hop: int, owner: str) -> tuple[Decision | None, Held | None]:
        """Decide what a task may do, and claim the job if it may work. None: no such job."""
        commit_id = fresh_id()
        for _ in races():
            seen, control = self._db.read([self._ref(job_id), self._db.ref("controls", "bulk")])
            held = _held(seen)
            if held is None:
                return None, None
            controls = Controls.model_validate(control.to_dict()) if control.exists else None
            now = self._db.clock.now()
            decision = bulk.begin(held.job, hop=hop, owner=owner, now=now, controls=controls)
            if not isinstance(decision, Begun | Paused):
                return decision, held
            after = self._try(held, Step(decision.job), commit_id, None)
            if after is not None:
                return decision, after
        raise AssertionError("unreachable")

    def advance(self, held: Held, job: BulkJob, refused: Sequence[RefusedRow] = ()) -> Held:
        """Write what the job has come to. Raises `OvertakenError`."""
        commit_id = fresh_id()
        for _ in races():
            after = self._try(held, Step(job, refused=tuple(refused)), commit_id, None)
            if after is not None:
                return after
            current = self._held(held.id)
            if current is not None and current.job.commit_id == commit_id:
                return current
            if current is None or current.update_time != held.update_time:
                raise OvertakenError
        raise AssertionError("unreachable")

    def apply(self, held: Held, batch: Batch) -> tuple[Held, Step]:
        """Decide a batch of rows and write it together with the cursor behind it: two round
        trips, three where posts are changed. Raises `OvertakenError`."""
        commit_id = fresh_id()
        step: Step | None = None
        for attempt in races():
            if attempt:
                current = self._held(held.id)
                if step and current is not None and current.job.commit_id == commit_id:
                    return current, step
                if current is None or current.update_time != held.update_time:
                    raise OvertakenError
            around = self._around(batch)
            step = batch.decide(around, held.job, self._db.clock.now())
            after = self._try(held, step, commit_id, around)
            if after is not None:
                return after, step
        raise AssertionError("unreachable")

    def _around(self, batch: Batch) -> Around:
        """Posts, accounts and assets at one instant; of the posts that differ, their logs too."""
        wanted = batch.wanted
        found = self._db.read(
            [
                *(self._db.ref("scheduledPosts", name) for name in wanted.post_ids),
                *(self._db.ref("socialAccounts", name) for name in wanted.account_ids),
                *(self._db.ref("mediaAssets", name) for name in wanted.asset_ids),
            ]
        )
        posts, rest = found[: len(wanted.post_ids)], found[len(wanted.post_ids) :]
        accounts = _models(rest[: len(wanted.account_ids)], SocialAccount)
        assets = _models(rest[len(wanted.account_ids) :], MediaAsset)
        around = Around(Surroundings(accounts, assets), _models(posts, ScheduledPost))
        changed = batch.changed(around)
        if not changed:
            return around
        guards = {seen.id: seen.update_time for seen in posts if seen.exists}
        log_ids = {
            name: [
                keys.delivery_id(name, target.platform, target.account_id)
                for target in around.posts[name].platforms
            ]
            for name in changed
        }
        refs = [self._db.ref("publishLogs", one) for ids in log_ids.values() for one in ids]
        logs = {seen.id: seen for seen in self._db.read(refs) if seen.exists}
        guards |= {name: seen.update_time for name, seen in logs.items()}
        wholes = {
            name: Whole(
                name,
                around.posts[name],
                {one: parse(logs[one]) for one in ids if one in logs},
                {},
                assets,
            )
            for name, ids in log_ids.items()
        }
        return replace(around, wholes=wholes, guards=guards)

    def _try(self, held: Held, step: Step, commit_id: str, around: Around | None) -> Held | None:
        """What is held after the step; None when the race was lost or the answer was."""
        after = step.job.model_copy(update={"commit_id": commit_id})
        now = after.updated_at
        batch = [Write(self._ref(held.id), _difference(held.job, after), guard=held.update_time)]
        for creation in step.creations:
            batch += creation_writes(self._db, creation)
        for post_id, command in step.changes:
            assert around is not None
            whole = around.wholes[post_id]
            batch += self._posts.command_writes(whole, command, around.guards, commit_id, now)
        batch += [self._refused(held, after, row, now) for row in step.refused]
        try:
            written = self._db.commit(batch)
        except (LostRaceError, UncertainError):
            return None
        return Held(held.id, after, written[0].update_time)

    def _refused(self, held: Held, job: BulkJob, row: RefusedRow, now: datetime) -> Write:
        times = {"created_at": now, "updated_at": now, "expire_at": job.expire_at}
        ref = self._ref(held.id).collection("rows").document(f"r{row.row:010}")
        return Write(ref, row.model_copy(update=times).document(), replace=True)

    def deliveries(self, delivery_ids: Sequence[str]) -> list[PublishLog]:
        if not delivery_ids:
            return []
        found = self._db.read([self._db.ref("publishLogs", name) for name in delivery_ids])
        return [parse(seen) for seen in found if seen.exists]

    # pages

    def refused(self, job_id: str, *, after: tuple[Any, ...], limit: int) -> list[RefusedRow]:
        """The refused rows of an import, in the order of the file."""
        collection = f"bulkJobs/{job_id}/rows"
        query = replace(queries.REFUSED_ROWS, collection=collection)
        return [
            RefusedRow.model_validate(seen.to_dict())
            for seen in self._page(query, after=after, limit=limit)
        ]

    def posts(
        self,
        company_id: str,
        *,
        since: datetime | None,
        until: datetime | None,
        after: tuple[Any, ...],
        limit: int,
        as_of: datetime | None,
    ) -> list[tuple[str, ScheduledPost]]:
        """A company's posts by time, all as they were at one instant."""
        found = self._page(
            queries.POSTS,
            company_id,
            since=since,
            until=until,
            after=after,
            limit=limit,
            as_of=as_of,
        )
        return [(seen.id, ScheduledPost.model_validate(seen.to_dict())) for seen in found]

    def documents(
        self,
        query: queries.Query,
        company_id: str,
        *,
        after: tuple[Any, ...],
        limit: int,
        as_of: datetime | None,
    ) -> list[tuple[str, dict[str, Any]]]:
        """A company's records of another kind, by their ids."""
        found = self._page(query, company_id, after=after, limit=limit, as_of=as_of)
        return [(seen.id, seen.to_dict() or {}) for seen in found]

    def _page(
        self,
        query: queries.Query,
        *values: Any,
        after: tuple[Any, ...],
        limit: int,
        since: datetime | None = None,
        until: datetime | None = None,
        as_of: datetime | None = None,
    ) -> list[Snapshot]:
        built = queries.build(self._db, query, *values, since=since, until=until, limit=limit)
        built = built.order_by("__name__")
        if after:
            *ordered, name = after
            place = {"__name__": self._db.collection(query.collection).document(name)}
            if query.order is not None:
                place[query.order] = ordered[0]
            built = built.start_after(place)
        return self._db.query(built, as_of=as_of)

    # what nobody works on any more

    def stalled(self, limit: int) -> list[str]:
        """Jobs whose lease ran out and whose task never came back."""
        query = queries.build(
            self._db, queries.STALLED_BULK_JOBS, until=self._db.clock.now(), limit=limit
        )
        return [seen.id for seen in self._db.query(query)]

    def paused(self, where: Mapping[str, str], limit: int) -> list[str]:
        """Jobs that a pause of this scope holds."""
        query = queries.page(self._db, queries.PAUSED_BULK_JOBS, True, optional=where, limit=limit)
        return [seen.id for seen in self._db.query(query)]

    def revive(self, job_id: str) -> Held | None:
        """A new chunk for a job that is stalled or paused; None when there is nothing to do."""
        held = self._held(job_id)
        now = self._db.clock.now()
        if held is None:
            return None
        stalled = held.job.sweep_at is not None and held.job.sweep_at <= now
        if not (stalled or held.job.paused):
            return None
        try:
            return self.advance(held, bulk.revived(held.job, now))
        except (OvertakenError, UnavailableError):
            return None

    def _of(self, job_id: str, company_id: str | None) -> Held:
        held = self._held(job_id)
        if held is None or company_id not in (None, held.job.company_id):
            whose = f" of company {company_id!r}" if company_id else ""
            raise NotFoundError(f"There is no job {job_id!r}{whose}.")
        return held

    def _held(self, job_id: str) -> Held | None:
        [seen] = self._db.read([self._ref(job_id)])
        return _held(seen)

    def _ref(self, job_id: str) -> Any:
        return self._db.ref("bulkJobs", job_id)


def _held(seen: Snapshot) -> Held | None:
    if not seen.exists:
        return None
    return Held(seen.id, BulkJob.model_validate(seen.to_dict()), seen.update_time)


def _answer(seen: Snapshot, keyed: Keyed, now: datetime) -> dict[str, Any] | None:
    marker = Marker.model_validate(seen.to_dict()) if seen.exists else None
    match markers.look(marker, keyed.fingerprint, now):
        case Answered(response):
            return response
        case Mismatch():
            message = (
                f"The idempotency key {keyed.key!r} was used for another request. "
                "Send the first request again, or this one under a key of its own."
            )
            raise ConflictError(message, code="idempotency_key_reused")
    return None


def _difference(before: BulkJob, after: BulkJob) -> dict[str, Any]:
    changed = {
        name for name in BulkJob.model_fields if getattr(before, name) != getattr(after, name)
    }
    return after.model_dump(by_alias=True, include=changed)


def _models(found: Sequence[Snapshot], kind: Any) -> dict[str, Any]:
    return {seen.id: kind.model_validate(seen.to_dict()) for seen in found if seen.exists}
