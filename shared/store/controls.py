"""What operators have paused, and how long companies' records are kept: one document each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.cloud import firestore

from shared.domain import keys
from shared.domain.controls import Controls, Pause
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
    """`controls/publish` and `controls/retention`. App-wide throttles stand in the first one too,
    so each write names its own fields only."""

    def __init__(self, db: Firestore) -> None:
        self._db = db

    def read(self) -> Controls:
        seen = self._publish()
        return Controls.model_validate(seen.to_dict()) if seen.exists else Controls()

    def _publish(self) -> Snapshot:
        [seen] = self._db.read([self._db.ref("controls", "publish")])
        return seen

    def pause(self, pause: Pause, told: Mapping[str, Any]) -> None:
        """The later word on a scope takes the place of the earlier one."""
        key = keys.pause_id(pause.scope, pause.name)
        self._merge("publish", {"pauses": {key: pause.document()}}, told)

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

    def end(self, scope: str, name: str, told: Mapping[str, Any]) -> Pause | None:
        """The pause ends now; its record stays until what it held is awake. None: none holds."""
        key = keys.pause_id(scope, name)
        commit_id = fresh_id()
        before: Pause | None = None
        for _ in races():
            seen = self._publish()
            [mine] = self._db.read([self._db.ref("auditLog", commit_id)])
            if before is not None and mine.exists:
                return before
            now = self._db.clock.now()
            held = Controls.model_validate(seen.to_dict()) if seen.exists else Controls()
            before = held.pauses.get(key)
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
        controls, now = self.read(), self._db.clock.now()
        return [pause for pause in controls.pauses.values() if not pause.holds(now)]

    def forget(self, pause: Pause) -> None:
        """What an ended pause held is awake: its record goes, unless somebody has paused again."""
        key = keys.pause_id(pause.scope, pause.name)
        for _ in races():
            seen = self._publish()
            held = Controls.model_validate(seen.to_dict()) if seen.exists else Controls()
            if held.pauses.get(key) != pause:
                return
            gone = {f"pauses.{key}": firestore.DELETE_FIELD}
            try:
                self._db.commit([Write(seen.reference, gone, guard=seen.update_time)])
            except (LostRaceError, UncertainError):
                continue
            return
