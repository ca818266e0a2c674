"""Media assets, registered once and resolved onto posts when they are scheduled."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from shared.domain.failures import ConflictError
from shared.domain.media import MediaAsset
from shared.store.firestore import Firestore, LostRaceError, UncertainError, Write, races


class MediaAssets:
    def __init__(self, db: Firestore) -> None:
        self._db = db

    def register(self, asset_id: str, asset: Callable[[datetime], MediaAsset]) -> MediaAsset:
        """The asset as of now. The same one again changes nothing; another one under its id is a
        `ConflictError`."""
        ref = self._db.ref("mediaAssets", asset_id)
        for _ in races():
            [seen] = self._db.read([ref])
            if seen.exists:
                known = MediaAsset.model_validate(seen.to_dict())
                if asset(known.created_at) != known:
                    message = f"The id {asset_id!r} belongs to another asset. Use a new id."
                    raise ConflictError(message, code="asset_exists")
                return known
            fresh = asset(self._db.clock.now())
            try:
                self._db.commit([Write(ref, fresh.document(), create=True)])
            except (LostRaceError, UncertainError):
                continue
            return fresh
        raise AssertionError("unreachable")
