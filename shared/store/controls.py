"""What operators have paused, and how long companies' records are kept: one document each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.cloud import firestore

from shared.domain import keys
from shared.domain.controls import Controls, Kind, Pause
from shared.domain.failures import UnavailableError
from shared.domain.records import SCHEMA_VERSION
from shared.domain.retention import Kept, Rules
from shared.store import audit
from shared.store.firestore import (
    Firestore,
    LostRaceError,
    Snapshot,
    UncertainError,
    Write,
    fresh_id,
    races,
)


class Switches:
    """`controls/{kind}` and `controls/retention`. App-wide throttles stand in the former too, so
    each write names its own fields only."""

    def __init__(self, db: Firestore) -> None:
        self._db = db

    def read(self) -> dict[Kind, Controls]:
        found = self._db.read([self._db.ref("controls", str(kind)) for kind in Kind])
        return {kind: _controls(seen) for kind, seen in zip(Kind, found, strict=True)}

    def _one(self, kind: Kind) -> Snapshot:
        [seen] = self._db.read([self._db.ref("controls", str(kind))])
        return seen

    def pause(self, pause: Pause, told: Mapping[str, Any]) -> None:
        """The later word on a scope takes the place of the earlier one."""
        key = keys.pause_id(pause.scope, pause.name)
        self._merge(pause.kind, {"pauses": {key: pause.document()}}, told)

    def keep(self, company_id: str, kept: Kept, told: Mapping[str, Any]) -> None:
        """A company's own numbers of days."""
        self._merge("retention", {"companies": {company_id: kept.document()}}, told)

    def rules(self) -> Rules:
        [seen] = self._db.read([self._db.ref("controls", "retention")])
        return Rules.model_validate(seen.to_dict()) if seen.exists else Rules()

    def _merge(self, name: str, fields: dict[str, Any], told: Mapping[str, Any]) -> None:
        entry_id = fresh_id()
        for _ in range(2):
            now = self._db.clock.now()
            data = {**fields, "updatedAt": now, "schemaVersion": SCHEMA_VERSION}
            batch = [
                Write(self._db.ref("controls", name), data, merge=True),
                audit.entry(self._db, entry_id, told, now),
            ]
            try:
                self._db.commit(batch)
            except UncertainError:
                continue  # the same words again
            return
        message = "It is not known whether this is on record. Try again."
        raise UnavailableError(message, code="database_down")

    def end(self, kind: Kind, scope: str, name: str, told: Mapping[str, Any]) -> Pause | None:
        """The pause ends now; its record stays until what it held is awake. None: none holds."""
        key = keys.pause_id(scope, name)
        commit_id = fresh_id()
        before: Pause | None = None
        for _ in races():
            seen = self._one(kind)
            [mine] = self._db.read([self._db.ref("auditLog", commit_id)])
            if before is not None and mine.exists:
                return before
            now = self._db.clock.now()
            before = _controls(seen).pauses.get(key)
            if before is None or not before.holds(now):
                return None
            ended = {f"pauses.{key}.until": now, "updatedAt": now}
            batch = [
                Write(seen.reference, ended, guard=seen.update_time),
                audit.entry(self._db, commit_id, told, now),
            ]
            try:
                self._db.commit(batch)
            except (LostRaceError, UncertainError):
                continue
            return before
        raise AssertionError("unreachable")

    def expired(self) -> list[Pause]:
        """Pauses that hold no more and whose record still stands."""
        controls, now = self.read().values(), self._db.clock.now()
        return [one for kind in controls for one in kind.pauses.values() if not one.holds(now)]

    def forget(self, pause: Pause) -> None:
        """What an ended pause held is awake: its record goes, unless somebody has paused again."""
        key = keys.pause_id(pause.scope, pause.name)
        for _ in races():
            seen = self._one(pause.kind)
            if _controls(seen).pauses.get(key) != pause:
                return
            gone = {f"pauses.{key}": firestore.DELETE_FIELD}
            try:
                self._db.commit([Write(seen.reference, gone, guard=seen.update_time)])
            except (LostRaceError, UncertainError):
                continue
            return


def _controls(seen: Snapshot) -> Controls:
    return Controls.model_validate(seen.to_dict()) if seen.exists else Controls()
