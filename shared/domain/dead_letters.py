"""Dead letters: what ended without success, kept with its evidence until somebody acts.

Cloud Tasks deletes a task after its last attempt and keeps nothing; these records are the truth.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from shared.domain.records import Instant, Record


class LetterStatus(StrEnum):
    OPEN = "open"
    REDRIVEN = "redriven"
    DISCARDED = "discarded"


class DeadLetter(Record):
    """`deadLetters/{delivery}-{generation}`, or one keyed by a malformed body's hash.

    `payload` also holds what a person has corrected; `copied`: its task lies in the dead-letter
    queue, too, where it is one that can be read; `closed_by` and `closed_why` say who sent it
    again or threw it away.
    """

    status: LetterStatus = LetterStatus.OPEN
    reason: str
    message: str
    delivery_id: str | None = None
    generation: int | None = None
    post_id: str | None = None
    company_id: str | None = None
    platform: str | None = None
    account_id: str | None = None
    payload: dict[str, Any] = Field(default_factory=dict)
    evidence: dict[str, Any] = Field(default_factory=dict)
    redriven_to: str | None = None
    copied: bool = False
    closed_by: str | None = None
    closed_why: str | None = None
    created_at: Instant
    updated_at: Instant
