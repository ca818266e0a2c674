"""What one attempt lends the driver, and what it gets back.

Apart from the driver: a task that only replays an answer never loads the HTTP machinery.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.domain.failures import PlatformError
from shared.platforms.base import Processing, Published, Reading, Unread


@dataclass(frozen=True, slots=True)
class Permit:
    """The right to send the committing call until `send_by`: our mark stands on the log."""

    send_by: datetime
    send_by_monotonic: float


@dataclass(frozen=True, slots=True)
class Session:
    """What one attempt lends the driver.

    `mark_committing` takes the request's hash and returns a permit, or raises. `keep` puts state
    on record. `ends_at` (monotonic seconds) is the attempt's own deadline.
    """

    mark_committing: Callable[[str], Permit]
    keep: Callable[[Mapping[str, Any]], None]
    now: Callable[[], datetime]
    ends_at: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """A flow's value, and the body of the answer that accepted the post, where there is one."""

    value: Published | Processing
    raw: str | None


@dataclass(frozen=True, slots=True)
class Collected:
    """What a metrics flow told of which post, by remote id, and what ended it before its end."""

    told: Mapping[str, Reading | Unread]
    failure: PlatformError | None = None


class TooLateToSendError(Exception):
    """`send_by` has passed: another attempt may take this one's outcome for unknown by now."""
