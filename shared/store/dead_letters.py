"""Dead letters that belong to no delivery: tasks whose body nobody can read."""

from __future__ import annotations

from typing import Any

from shared.domain import keys
from shared.domain.dead_letters import DeadLetter
from shared.domain.failures import UnavailableError
from shared.store.firestore import Firestore, LostRaceError, UncertainError, Write

BODY_CHARS = 10_000


class DeadLetters:
    def __init__(self, db: Firestore) -> None:
        self._db = db

    def bury_malformed(self, body: bytes, reason: str, evidence: dict[str, Any]) -> str:
        """One letter per body, however often it is delivered. Returns its id."""
        letter_id = keys.malformed_letter_id(body)
        now = self._db.clock.now()
        letter = DeadLetter(
            reason="malformed_task",
            message=reason,
            payload={"body": body.decode("utf-8", "replace")[:BODY_CHARS]},
            evidence=evidence,
            created_at=now,
            updated_at=now,
        )
        write = Write(self._db.ref("deadLetters", letter_id), letter.document(), create=True)
        try:
            self._db.commit([write])
        except LostRaceError:
            return letter_id  # delivered before
        except UncertainError as error:
            message = "The dead letter could not be written."
            raise UnavailableError(message, code="database_down") from error
        return letter_id
