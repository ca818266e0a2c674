"""Posts, with the deliveries and idempotency markers that are written in the same commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from shared.domain import keys, markers
from shared.domain.accounts import SocialAccount
from shared.domain.dead_letters import DeadLetter
from shared.domain.deliveries import BURIED, Change, PublishLog
from shared.domain.failures import ConflictError, NotFoundError
from shared.domain.markers import Answered, Keyed, Marker, Mismatch
from shared.domain.media import MediaAsset
from shared.domain.posts import PostStatus, ScheduledPost
from shared.store import audit, queries
from shared.store.deliveries import finish_post, parse, post_write, writes
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
class Surroundings:
    """What scheduling looks at, read together. Unknown ids are absent."""

    accounts: Mapping[str, SocialAccount]
    assets: Mapping[str, MediaAsset]


@dataclass(frozen=True, slots=True)
class Creation:
    """A post to be created, and the answer that its key will be given from now on."""

    post_id: str
    post: ScheduledPost
    logs: tuple[PublishLog, ...]
    response: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stored:
    """The answer under a key; `logs` are there when this request created them."""

    response: dict[str, Any]
    logs: tuple[PublishLog, ...] = ()
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Whole:
    """A post and its deliveries as they stood together, by delivery id."""

    post_id: str
    post: ScheduledPost
    logs: Mapping[str, PublishLog]
    letters: Mapping[str, DeadLetter]
    assets: Mapping[str, MediaAsset]


@dataclass(frozen=True, slots=True)
class Command:
    """What a command on a post writes: changes of its deliveries, fields of the post itself, an
    audit entry, and its answer."""

    changes: tuple[Change, ...]
    response: dict[str, Any]
    post: Mapping[str, Any] = field(default_factory=dict)
    audit: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Page:
    posts: tuple[tuple[str, ScheduledPost], ...]
    last: tuple[datetime, str] | None


class Posts:
    def __init__(self, db: Firestore) -> None:
        self._db = db

    def create(
        self,
        keyed: Keyed,
        *,
        account_ids: Sequence[str],
        asset_ids: Sequence[str],
        decide: Callable[[Surroundings, datetime], Creation],
    ) -> Stored:
        """Marker, post and logs in one commit: two round trips. `decide` may refuse by raising."""
        marker_ref = self._db.ref("idempotencyMarkers", keyed.marker_id)
        account_refs = [self._db.ref("socialAccounts", name) for name in account_ids]
        asset_refs = [self._db.ref("mediaAssets", name) for name in asset_ids]
        for _ in races():
            seen, *around = self._db.read([marker_ref, *account_refs, *asset_refs])
            now = self._db.clock.now()
            answered = self._answered(seen, keyed, now)
            if answered is not None:
                return answered
            accounts = _records(around[: len(account_refs)], SocialAccount)
            assets = _records(around[len(account_refs) :], MediaAsset)
            creation = decide(Surroundings(accounts, assets), now)
            batch = [self._marker_write(seen, keyed, creation.response, now)]
            batch += creation_writes(self._db, creation)
            try:
                self._db.commit(batch)
            except (LostRaceError, UncertainError):
                continue  # the next read shows whose commit it was
            return Stored(creation.response, creation.logs)
        raise AssertionError("unreachable")

    def _answered(self, seen: Snapshot, keyed: Keyed, now: datetime) -> Stored | None:
        marker = Marker.model_validate(seen.to_dict()) if seen.exists else None
        match markers.look(marker, keyed.fingerprint, now):
            case Answered(response):
                return Stored(response, replayed=True)
            case Mismatch():
                message = (
                    f"The idempotency key {keyed.key!r} was used for another request. "
                    "Send the first request again, or this one under a key of its own."
                )
                raise ConflictError(message, code="idempotency_key_reused")
        return None

    def _marker_write(
        self, seen: Snapshot, keyed: Keyed, response: dict[str, Any], now: datetime
    ) -> Write:
        """An expired marker that the TTL has not removed yet is overwritten, guarded."""
        marker = markers.completed(keyed, response, now)
        if seen.exists:
            return Write(seen.reference, marker.document(), guard=seen.update_time)
        return Write(seen.reference, marker.document(), create=True)

    def command(
        self,
        post_id: str,
        company_id: str,
        decide: Callable[[Whole, datetime], Command],
        *,
        keyed: Keyed | None = None,
        asset_ids: Sequence[str] = (),
        with_letters: bool = False,
    ) -> Stored:
        """Change a post's deliveries in one commit guarded by each log that it moves."""
        commit_id = fresh_id()
        written: Command | None = None
        for _ in races():
            whole, guards, marker = self._whole(post_id, company_id, keyed, asset_ids)
            if with_letters:
                whole = replace(whole, letters=self._letters(whole, guards))
            if written is not None and _landed(written, whole, commit_id):
                finish_post(self._db, post_id)
                return Stored(written.response, tuple(c.log for c in written.changes))
            now = self._db.clock.now()
            if keyed is not None and marker is not None:
                answered = self._answered(marker, keyed, now)
                if answered is not None:
                    return answered
            command = decide(whole, now)
            batch = self.command_writes(whole, command, guards, commit_id, now)
            if keyed is not None and marker is not None:
                batch.append(self._marker_write(marker, keyed, command.response, now))
            if not batch:
                return Stored(command.response)
            written = command
            try:
                results = self._db.commit(batch)
            except (LostRaceError, UncertainError):
                continue
            corrects = any(
                not change.log.is_open and not whole.logs[change.log.id].is_open
                for change in command.changes
            )
            if corrects or any(result.transformed == 0 for result in results):
                finish_post(self._db, post_id)
            return Stored(command.response, tuple(change.log for change in command.changes))
        raise AssertionError("unreachable")

    def _whole(
        self, post_id: str, company_id: str, keyed: Keyed | None, asset_ids: Sequence[str]
    ) -> tuple[Whole, dict[str, datetime], Snapshot | None]:
        post, updated = self._post(post_id, company_id)
        log_ids = [keys.delivery_id(post_id, t.platform, t.account_id) for t in post.platforms]
        refs = [self._db.ref("publishLogs", name) for name in log_ids]
        refs += [self._db.ref("mediaAssets", name) for name in asset_ids]
        if keyed is not None:
            refs.append(self._db.ref("idempotencyMarkers", keyed.marker_id))
        found = self._db.read(refs)
        logs = {seen.id: parse(seen) for seen in found[: len(log_ids)] if seen.exists}
        guards = {seen.id: seen.update_time for seen in found[: len(log_ids)] if seen.exists}
        guards[post_id] = updated
        assets = _records(found[len(log_ids) : len(log_ids) + len(asset_ids)], MediaAsset)
        whole = Whole(post_id, post, logs, {}, assets)
        return whole, guards, found[-1] if keyed is not None else None

    def _letters(self, whole: Whole, guards: dict[str, datetime]) -> dict[str, DeadLetter]:
        """The dead letters of the deliveries that have one, by delivery id. A letter is closed only
        as it was read: it may be corrected or thrown away meanwhile."""
        ids = {
            keys.dead_letter_id(name, log.generation): name
            for name, log in whole.logs.items()
            if log.status in BURIED
        }
        if not ids:
            return {}
        found = self._db.read([self._db.ref("deadLetters", letter) for letter in ids])
        letters: dict[str, DeadLetter] = _records(found, DeadLetter)
        guards |= {seen.id: seen.update_time for seen in found if seen.exists}
        return {ids[name]: letter for name, letter in letters.items()}

    def command_writes(
        self,
        whole: Whole,
        command: Command,
        guards: Mapping[str, datetime],
        commit_id: str,
        now: datetime,
    ) -> list[Write]:
        batch: list[Write] = []
        moves = []
        for change in command.changes:
            before = whole.logs[change.log.id]
            after = change.log.model_copy(update={"commit_id": commit_id})
            stamped = replace(change, log=after)
            written = writes(self._db, before, stamped, guards[after.id], tell_post=False)
            batch += [_as_read(write, guards) for write in written]
            moves.append((before, after))
        if moves:
            told = post_write(self._db, moves, now)
            # Only what a command writes of the post itself can be lost to another command.
            guard = guards[whole.post_id] if command.post else None
            batch.append(Write(told.ref, {**told.data, **command.post}, guard=guard))
        if command.audit is not None:
            batch.append(audit.entry(self._db, commit_id, command.audit, now))
        return batch

    def _post(self, post_id: str, company_id: str) -> tuple[ScheduledPost, datetime]:
        """Raises `NotFoundError`, also for a post of another company."""
        [seen] = self._db.read([self._db.ref("scheduledPosts", post_id)])
        if seen.exists:
            post = ScheduledPost.model_validate(seen.to_dict())
            if post.company_id == company_id:
                return post, seen.update_time
        raise NotFoundError(f"There is no post {post_id!r} of company {company_id!r}.")

    def whole(self, post_id: str, company_id: str, asset_ids: Sequence[str] = ()) -> Whole:
        whole, _, _ = self._whole(post_id, company_id, None, asset_ids)
        return whole

    def deliveries(self, post_id: str) -> tuple[ScheduledPost, list[PublishLog]] | None:
        """A post's deliveries, whoever it belongs to; None when there is no such post."""
        [seen] = self._db.read([self._db.ref("scheduledPosts", post_id)])
        if not seen.exists:
            return None
        post = ScheduledPost.model_validate(seen.to_dict())
        whole, _, _ = self._whole(post_id, post.company_id, None, ())
        return post, list(whole.logs.values())

    def page(
        self,
        company_id: str,
        *,
        status: PostStatus | None,
        since: datetime | None,
        until: datetime | None,
        after: tuple[datetime, str] | None,
        limit: int,
    ) -> Page:
        """A company's posts by time; `after` is the last of the page before."""
        equal: list[Any] = [company_id]
        query = queries.POSTS
        if status is not None:
            equal.append(str(status))
            query = queries.POSTS_BY_STATUS
        built = queries.build(self._db, query, *equal, since=since, until=until, limit=limit)
        built = built.order_by("__name__")
        if after is not None:
            at, post_id = after
            ref = self._db.ref("scheduledPosts", post_id)
            built = built.start_after({"scheduledAt": at, "__name__": ref})
        found = [
            (seen.id, ScheduledPost.model_validate(seen.to_dict()))
            for seen in self._db.query(built)
        ]
        full = len(found) == limit
        last = (found[-1][1].scheduled_at, found[-1][0]) if full else None
        return Page(tuple(found), last)

    def stale(self, limit: int) -> list[str]:
        """Posts of which nothing is open and whose status was never stored."""
        query = queries.build(
            self._db, queries.STALE_POSTS, 0, str(PostStatus.PROCESSING), limit=limit
        )
        return [seen.id for seen in self._db.query(query)]

    def finish(self, post_id: str) -> None:
        finish_post(self._db, post_id)


def creation_writes(db: Firestore, creation: Creation) -> list[Write]:
    """The post and its logs; none of them may exist."""
    post = Write(db.ref("scheduledPosts", creation.post_id), creation.post.document(), create=True)
    return [post, *(_log_write(db, log) for log in creation.logs)]


def _log_write(db: Firestore, log: PublishLog) -> Write:
    return Write(db.ref("publishLogs", log.id), log.document(), create=True)


def _landed(written: Command, whole: Whole, commit_id: str) -> bool:
    return any(whole.logs[change.log.id].commit_id == commit_id for change in written.changes)


def _as_read(write: Write, guards: Mapping[str, datetime]) -> Write:
    """A whole record that was read before is written only if it is still the same."""
    if not write.replace or write.ref.id not in guards:
        return write
    return replace(write, replace=False, guard=guards[write.ref.id])


def _records(found: Sequence[Snapshot], kind: Any) -> dict[str, Any]:
    return {seen.id: kind.model_validate(seen.to_dict()) for seen in found if seen.exists}
