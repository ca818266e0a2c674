"""What a person does with a dead letter: send it again, correct it, throw it away. Decisions only.

A redrive is one commit: the letter from open to redriven, its delivery to a new generation. So two
people who press the button at once send it once, and both are told the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.domain import changes
from shared.domain.changes import Correction
from shared.domain.dead_letters import DeadLetter, LetterStatus
from shared.domain.deliveries import Change, PublishLog, Status
from shared.domain.failures import ConflictError, Problem, RefusedError
from shared.domain.media import MediaItem


@dataclass(frozen=True, slots=True)
class Person:
    """Who acts, and why, as the audit log keeps it."""

    email: str
    why: str | None = None


def need_open(letter: DeadLetter) -> None:
    """Raises `ConflictError` for a letter that is closed."""
    if letter.status is LetterStatus.OPEN:
        return
    by = f" by {letter.closed_by}" if letter.closed_by else ""
    why = f": {letter.closed_why}" if letter.closed_why else ""
    message = f"It was {letter.status}{by}{why}. Retry the delivery itself to send it once more."
    raise ConflictError(message, code=f"letter_{letter.status}")


def need_delivery(letter: DeadLetter) -> tuple[str, str, str]:
    """Delivery, post and company. Raises `ConflictError` for a task that nobody could read."""
    if letter.delivery_id and letter.post_id and letter.company_id:
        return letter.delivery_id, letter.post_id, letter.company_id
    message = (
        "This task could not be read and belongs to no delivery, so it cannot be sent again. "
        "Mend what created it (payload and evidence are in the letter) and discard it."
    )
    raise ConflictError(message, code="malformed")


def redrive(
    letter: DeadLetter, log: PublishLog, latest_at: datetime | None, person: Person, now: datetime
) -> Change:
    """Raises `RefusedError` when it would be too late and no new `latestAt` is given."""
    latest = latest_at or log.latest_at
    if latest <= now:
        sentence = (
            "latestAt must be in the future."
            if latest_at
            else f"It should have been published by {log.latest_at.isoformat()}. To send it now, "
            "give a new latestAt."
        )
        raise RefusedError([Problem("latestAt", "latest_at_needed", sentence)])
    change = changes.retry(log, correction(letter), now, latest_at=latest, letter=letter)
    assert change.letter is not None  # the caller has made sure that it is open
    closed = {"closed_by": person.email, "closed_why": person.why}
    return Change(change.log, wakes=True, letter=change.letter.model_copy(update=closed))


def correction(letter: DeadLetter) -> Correction:
    """What a person has changed of what is sent."""
    kept = letter.payload
    media = kept.get("media")
    return Correction(
        content=kept.get("content"),
        media=None if media is None else tuple(MediaItem.model_validate(item) for item in media),
        options=kept.get("options"),
    )


def corrected(letter: DeadLetter, new: Correction, now: datetime) -> DeadLetter:
    """The letter with the correction in its payload; earlier ones stay where not replaced."""
    fields: dict[str, Any] = new.given()
    if new.media is not None:
        fields["media"] = [item.document() for item in new.media]
        fields["mediaAssetIds"] = [item.id for item in new.media]
    return letter.model_copy(update={"payload": {**letter.payload, **fields}, "updated_at": now})


def need_whole(letter: DeadLetter) -> None:
    """Raises `ConflictError` where parts are out: new text would not belong to the old."""
    if letter.evidence.get("status") == str(Status.PARTIAL):
        message = (
            "Parts of this thread are published and stay as they are. Retry the delivery instead, "
            "with the missing parts corrected."
        )
        raise ConflictError(message, code="partly_published")


def discarded(letter: DeadLetter, person: Person, now: datetime) -> DeadLetter:
    closed = {"closed_by": person.email, "closed_why": person.why, "updated_at": now}
    return letter.model_copy(update=closed | {"status": LetterStatus.DISCARDED})


def audit(action: str, letter_id: str, letter: DeadLetter, person: Person) -> Mapping[str, Any]:
    return {
        "action": action,
        "by": person.email,
        "why": person.why,
        "companyId": letter.company_id,
        "deliveryId": letter.delivery_id,
        "deadLetterId": letter_id,
    }
