"""Days of engagement in Firestore, made from the snapshots that syncs have left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from google.cloud.firestore_v1.document import DocumentReference

from shared.domain import daily, keys
from shared.domain.analytics import Number, PostMetrics
from shared.domain.daily import DailyMetrics, Days, ReadPost
from shared.store import queries
from shared.store.firestore import Firestore, LostRaceError, Snapshot, UncertainError, Write

POSTS_PAGE = 200
SNAPSHOTS_MOST = 200  # of one post in two days: a sync every quarter of an hour


@dataclass(frozen=True, slots=True)
class Making:
    """A day as far as it stands. `seen` guards the next step."""

    days: Days
    seen: Snapshot


class Daily:
    def __init__(self, db: Firestore) -> None:
        self._db = db

    def due(self) -> Making | None:
        """The day to go on with; None when there is none."""
        [seen] = self._db.read([self._db.ref("locks", "daily-metrics")])
        known = Days.model_validate(seen.to_dict()) if seen.exists else None
        days = daily.due(known, self._db.clock.now())
        return Making(days, seen) if days else None

    def read_posts(self, account_id: str, day: date) -> Iterator[ReadPost]:
        """An account's posts that were read on this day or later, each with its readings: a round
        trip per post. One that was read later only has none of this day."""
        since = daily.starts(day)
        place: Snapshot | None = None
        while True:
            built = queries.build(
                self._db, queries.READ_BY_ACCOUNT, account_id, since=since, limit=POSTS_PAGE
            ).order_by("__name__")
            found = self._db.query(built.start_after(place) if place else built)
            for seen in found:
                post = PostMetrics.model_validate(seen.to_dict())
                yield ReadPost(post.published_at, self._readings(seen.reference, since))
            if len(found) < POSTS_PAGE:
                return
            place = found[-1]

    def _readings(
        self, post: DocumentReference, start: datetime
    ) -> list[tuple[datetime, dict[str, Number]]]:
        collection = post.collection("snapshots")
        query = replace(queries.SNAPSHOTS, collection=f"postMetrics/{post.id}/snapshots")
        built = queries.build(self._db, query, limit=SNAPSHOTS_MOST).order_by("__name__")
        begins, ends = (keys.snapshot_id(at) for at in (start - daily.DAY, start + daily.DAY))
        built = built.start_at({"__name__": collection.document(begins)})
        built = built.end_before({"__name__": collection.document(ends)})
        return [(seen.get("fetchedAt"), seen.get("metrics")) for seen in self._db.query(built)]

    def keep(self, making: Making, days: Days, made: Sequence[DailyMetrics]) -> Making | None:
        """Put accounts' days on record, together with how far that is. None: another run is at it,
        or may be."""
        now = self._db.clock.now()
        place = days.model_copy(update={"updated_at": now}).document()
        guard = {"guard": making.seen.update_time} if making.seen.exists else {"create": True}
        batch = [Write(making.seen.reference, place, **guard)]
        for one in made:
            ref = self._db.ref(
                "dailyMetrics", keys.daily_id(one.company_id, one.account_id, one.day)
            )
            batch.append(Write(ref, one.document(), replace=True))
        try:
            self._db.commit(batch)
        except (LostRaceError, UncertainError):
            return None
        [seen] = self._db.read([making.seen.reference])
        return Making(days, seen)
