"""Dead letters: those of tasks that nobody can read, and what a person does with any of them. A
delivery's own are written by the commit that ends it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from shared.domain import keys
from shared.domain.dead_letters import DeadLetter, LetterStatus
from shared.domain.failures import NotFoundError, UnavailableError
from shared.store import audit, queries
from shared.store.firestore import (
    Firestore,
    LostRaceError,
    UncertainError,
    Write,
    fresh_id,
    races,
)

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

    def read(self, letter_id: str) -> DeadLetter | None:
        [seen] = self._db.read([self._db.ref("deadLetters", letter_id)])
        return DeadLetter.model_validate(seen.to_dict()) if seen.exists else None

    def page(
        self,
        equal: Mapping[str, Any],
        *,
        since: datetime | None,
        until: datetime | None,
        after: tuple[datetime, str] | None,
        limit: int,
    ) -> list[tuple[str, DeadLetter]]:
        """Letters, newest first."""
        query = queries.page(
            self._db,
            queries.LETTERS,
            optional=equal,
            since=since,
            until=until,
            after=after,
            limit=limit,
        )
        return [
            (seen.id, DeadLetter.model_validate(seen.to_dict())) for seen in self._db.query(query)
        ]

    def copy(self, make: Callable[[str, DeadLetter], bool], limit: int) -> int:
        """Have `make` copy the open letters that were not copied yet; how many it could."""
        query = queries.build(
            self._db, queries.UNCOPIED_LETTERS, False, str(LetterStatus.OPEN), limit=limit
        )
        copied = 0
        for seen in self._db.query(query):
            if not make(seen.id, DeadLetter.model_validate(seen.to_dict())):
                continue
            write = Write(seen.reference, {"copied": True}, guard=seen.update_time)
            try:
                self._db.commit([write])
            except (LostRaceError, UncertainError):
                continue  # the next sweep finds it again, and its copy there
            copied += 1
        return copied

    def change(
        self,
        letter_id: str,
        decide: Callable[[DeadLetter, datetime], tuple[DeadLetter, Mapping[str, Any]]],
    ) -> DeadLetter:
        """Change a letter alone, with its audit entry; `decide` may refuse by raising."""
        ref = self._db.ref("deadLetters", letter_id)
        commit_id = fresh_id()
        written: DeadLetter | None = None
        for _ in races():
            [seen, mine] = self._db.read([ref, self._db.ref("auditLog", commit_id)])
            if not seen.exists:
                raise NotFoundError(f"There is no dead letter {letter_id!r}.")
            if written is not None and mine.exists:
                return written
            now = self._db.clock.now()
            written, told = decide(DeadLetter.model_validate(seen.to_dict()), now)
            batch = [
                Write(ref, written.document(), guard=seen.update_time),
                audit.entry(self._db, commit_id, told, now),
            ]
            try:
                self._db.commit(batch)
            except (LostRaceError, UncertainError):
                continue
            return written
        raise AssertionError("unreachable")
