"""Firestore, with every call bounded and every failure ours.

The client's own defaults retry reads for 300 s and commits for 60 s, whatever `timeout` says, so
retries are switched off there and done here. Its exceptions end here:

    LostRaceError     a precondition did not hold: read again and decide again
    UncertainError    the commit may or may not have been applied: read to know
    UnavailableError  Firestore did not answer, nothing was written
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from google.api_core import exceptions
from google.cloud import firestore
from google.cloud.firestore_v1.base_document import DocumentSnapshot
from google.cloud.firestore_v1.base_query import BaseQuery
from google.cloud.firestore_v1.document import DocumentReference

from shared.domain.failures import Problem, RefusedError, UnavailableError
from shared.store.clock import Clock
from shared.store.documents import Batch

Snapshot = DocumentSnapshot[Any]

READ_SECONDS = 3.0
COMMIT_SECONDS = 5.0
READ_TRIES = 2
RACES = 8  # how often a verb reads again after a lost race

_LOST = (
    exceptions.FailedPrecondition,
    exceptions.AlreadyExists,
    exceptions.Aborted,
    exceptions.NotFound,
)
_DOWN = (
    exceptions.ServiceUnavailable,
    exceptions.DeadlineExceeded,
    exceptions.InternalServerError,
    exceptions.ResourceExhausted,
    exceptions.Unknown,
    exceptions.RetryError,
    exceptions.Cancelled,
)


class LostRaceError(Exception):
    pass


class UncertainError(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Write:
    """One document's part of a commit. `guard` is the update time that it must still have;
    `create`: it must not exist. `replace` writes it whole, `merge` makes it if need be."""

    ref: DocumentReference
    data: dict[str, Any]
    guard: datetime | None = None
    create: bool = False
    replace: bool = False
    merge: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """A write's new update time, and what its transform came to (at most one per write)."""

    update_time: datetime
    transformed: int | None


class Firestore:
    def __init__(self, client: firestore.Client, clock: Clock) -> None:
        self._client = client
        self.clock = clock

    def ref(self, collection: str, document_id: str) -> DocumentReference:
        return self._client.document(collection, document_id)

    def collection(self, name: str) -> Any:
        return self._client.collection(name)

    def read(self, refs: Sequence[DocumentReference]) -> list[Snapshot]:
        """All of them at one instant, in the order asked for, in one round trip."""
        sent, found = self._bounded(
            lambda: list(self._client.get_all(list(refs), retry=None, timeout=READ_SECONDS))
        )
        received = self.clock.local()
        by_path = {snapshot.reference.path: snapshot for snapshot in found}
        if found and found[0].read_time is not None:
            self.clock.observe(found[0].read_time, sent=sent, received=received)
        return [by_path[ref.path] for ref in refs]

    def read_the_time(self) -> datetime:
        """Firestore's now, by one small read: a query that finds nothing does not bring it."""
        self.read([self.ref("controls", "publish")])
        return self.clock.now()

    def query(self, query: BaseQuery, *, as_of: datetime | None = None) -> list[Snapshot]:
        """`as_of`: everything as it was then, which may be an hour ago."""
        sent, found = self._bounded(
            lambda: list(cast(Any, query.stream(retry=None, timeout=READ_SECONDS, read_time=as_of)))
        )
        if as_of is not None:
            return found  # its read time is that one, not now
        if found and found[0].read_time is not None:
            self.clock.observe(found[0].read_time, sent=sent, received=self.clock.local())
        return found

    def _bounded(self, read: Any) -> tuple[datetime, list[Snapshot]]:
        for attempt in range(READ_TRIES):
            sent = self.clock.local()
            try:
                return sent, read()
            except _DOWN as error:
                if attempt == READ_TRIES - 1:
                    message = "The database does not answer. Try again shortly."
                    raise UnavailableError(message, code="database_down") from error
                time.sleep(0.05 + random.random() * 0.1)
        raise AssertionError("unreachable")

    def count(self, query: BaseQuery) -> int:
        """How many there are, for a read per thousand."""
        counting: Any = query.count()  # type: ignore[no-untyped-call, unused-ignore]
        _, found = self._bounded(lambda: counting.get(retry=None, timeout=READ_SECONDS))
        return int(cast(Any, found)[0][0].value)

    def remove(self, snapshots: Sequence[Snapshot]) -> int:
        """Delete what is still as it was read; how many were. Not removed is found again."""
        try:
            return self._remove(snapshots)
        except LostRaceError:
            if len(snapshots) == 1:
                return 0
            middle = len(snapshots) // 2
            return self.remove(snapshots[:middle]) + self.remove(snapshots[middle:])
        except UncertainError:
            return 0

    def _remove(self, snapshots: Sequence[Snapshot]) -> int:
        batch = self._client.batch()
        for seen in snapshots:
            as_read = self._client.write_option(last_update_time=seen.update_time)
            batch.delete(seen.reference, option=as_read)
        self._apply(batch)
        return len(snapshots)

    def commit(self, writes: Iterable[Write]) -> list[Written]:
        """All or nothing, in one round trip."""
        batch = Batch(self._client)
        for write in writes:
            if write.create or write.replace:
                batch.add(write.ref, write.data, create=write.create)
            elif write.merge:
                batch.set(write.ref, write.data, merge=True)
            elif write.guard is not None:
                option = self._client.write_option(last_update_time=write.guard)
                batch.update(write.ref, write.data, option=option)
            else:
                batch.update(write.ref, write.data)
        return [_written(result) for result in self._apply(batch)]

    def _apply(self, batch: firestore.WriteBatch) -> list[Any]:
        try:
            return list(batch.commit(retry=None, timeout=COMMIT_SECONDS))
        except exceptions.InvalidArgument as error:
            sentence = "A record would be larger than the 1 MiB that the database takes."
            raise RefusedError([Problem("body", "too_large", sentence)]) from error
        except _LOST as error:
            raise LostRaceError(str(error)) from error
        except _DOWN as error:
            raise UncertainError(str(error)) from error


def _written(result: Any) -> Written:
    transformed = [value.integer_value for value in result.transform_results]
    return Written(result.update_time, transformed[0] if transformed else None)


def races() -> Iterator[int]:
    """Tries of a verb that reads, decides and writes; the waits between them are jittered."""
    for attempt in range(RACES):
        if attempt:
            time.sleep(min(0.5, 0.02 * 2**attempt) * (0.5 + random.random()))
        yield attempt
    raise UnavailableError("Too much is happening to this record. Try again.", code="contended")


def fresh_id() -> str:
    """For owners and commits: never taken from a task, a header or the instance."""
    return secrets.token_hex(8)
