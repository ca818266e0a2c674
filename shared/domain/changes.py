"""What an owner may do to a delivery: cancel, edit, reschedule, retry. Decisions only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.domain.dead_letters import DeadLetter, LetterStatus
from shared.domain.deliveries import (
    BURIED,
    CHANGEABLE,
    Arrived,
    Change,
    Part,
    PublishLog,
    Status,
    arrived,
    ended,
    evolve,
    hop_to,
    sweep_at,
)
from shared.domain.media import MediaItem
from shared.domain.schedules import Plan

# No token to look with, as the code of an unknown outcome says.
TOKENLESS = ("auth_expired", "account_disconnected")


@dataclass(frozen=True, slots=True)
class Correction:
    """What a delivery is to send from now on; None keeps what it had.

    `thread` is what is to follow the parts that are published, or the content where none is.
    """

    content: str | None = None
    media: tuple[MediaItem, ...] | None = None
    options: dict[str, Any] | None = None
    thread: tuple[Part, ...] | None = None

    def given(self) -> dict[str, Any]:
        every = {
            "content": self.content,
            "media": self.media,
            "options": self.options,
            "thread": self.thread,
        }
        return {name: value for name, value in every.items() if value is not None}

    def fields(self, log: PublishLog) -> dict[str, Any]:
        """What it changes of a log. Parts that are published stay as they are."""
        given = self.given()
        if self.thread is not None and log.parts:
            given["thread"] = log.thread[: log.part - 1] + self.thread
        return given

    def rewrites(self, log: PublishLog) -> bool:
        """Whether it would change what is published, or leave nothing to send."""
        first = self.content is not None or self.media is not None
        corrected = log.model_copy(update=self.fields(log))
        return bool(log.parts) and (first or len(corrected.wanted) <= log.part)


def changeable(log: PublishLog) -> bool:
    """Cancel, edit and reschedule apply to what has not begun, or waits between attempts; not to
    what the platform has taken and works on, or has parts of, which may wait for a throttle too."""
    return log.status in CHANGEABLE and log.committing is None and not log.parts


# A container or upload made for the old content or time must not be used for the new one.
_AFRESH: dict[str, Any] = {"state": {}}


def cancel(log: PublishLog, now: datetime) -> Change:
    """An earlier call that was never settled may still have made a post: that stays unknown."""
    if log.unsettled_since is not None:
        return Change(ended(log, now, Status.UNKNOWN, error_code="cancelled_after_unknown"))
    return Change(ended(log, now, Status.CANCELLED, **_AFRESH))


def edit(log: PublishLog, correction: Correction, now: datetime) -> Change:
    return Change(evolve(log, now, **_AFRESH, **correction.fields(log)))


def reschedule(log: PublishLog, plan: Plan, now: datetime) -> Change:
    """A new generation: whatever task of the old time still arrives is void."""
    promote_at = plan.promote_at(now)
    moved = evolve(
        log,
        now,
        status=Status.PENDING,
        generation=log.generation + 1,
        hop=log.hop + 1,
        due_at=plan.due_at,
        latest_at=plan.latest_at,
        promote_at=promote_at,
        sweep_at=sweep_at(plan.due_at, plan.latest_at),
        sweep_hops=0,
        next_retry_at=None,
        attempts_spent=0,
        owner=None,
        lease_ends_at=None,
        error_code=None,
        error_message=None,
        **_AFRESH,
    )
    return Change(moved, wakes=promote_at is None)


def retryable(log: PublishLog, *, accepts_risk: bool) -> bool:
    """A known failure may be sent again; an unknown one only by a person who takes the risk."""
    if log.status is Status.UNKNOWN:
        return accepts_risk and not log.is_open
    return log.status in BURIED


def retry(
    log: PublishLog,
    correction: Correction,
    now: datetime,
    *,
    latest_at: datetime,
    letter: DeadLetter | None,
) -> Change:
    """Send it again under a new generation, a thread from its first missing part. Its dead letter
    is closed in the same commit."""
    fields = correction.fields(log)
    fresh: dict[str, Any] = {
        "status": Status.PENDING,
        "generation": log.generation + 1,
        "latest_at": latest_at,
        "attempts_spent": 0,
        "lookups": 0,
        "error_code": None,
        "error_message": None,
        "next_retry_at": None,
        "state": {},
        "committing": None,
        "raw_response": None,
    }
    base = log.model_copy(update={"latest_at": latest_at})
    again = hop_to(base, now, now, **fresh, **fields)
    closed = None
    if letter is not None and letter.status is LetterStatus.OPEN:
        redriven = {"status": LetterStatus.REDRIVEN, "updated_at": now}
        closed = letter.model_copy(
            update=redriven | {"redriven_to": f"{log.id}-{again.generation}"}
        )
    return Change(again, wakes=True, letter=closed)


def wake(log: PublishLog, now: datetime) -> Change | None:
    """A delivery that a pause held goes on, under a new hop; None: no pause holds it."""
    if log.error_code != "paused" or log.owner is not None or not log.is_open:
        return None
    awake = {"status": log.status, "error_code": None, "error_message": None}
    return Change(hop_to(log, now, max(log.due_at, now), **awake), wakes=True)


def look_again(log: PublishLog, now: datetime) -> Change | None:
    """An unknown outcome that its last looks had no token for is looked into once more, as often as
    after its call. None: it is at rest for another reason, a person has ordered something since, or
    it is too late: a look may be the very same call again."""
    if log.status is not Status.UNKNOWN or log.is_open or log.error_code not in TOKENLESS:
        return None
    if not log.reconciling or now >= log.latest_at:
        return None
    afresh = {"status": Status.UNKNOWN, "lookups": 1, "attempts_spent": 0}
    return Change(hop_to(log, now, now, **afresh), wakes=True)


def told(log: PublishLog, now: datetime) -> Change | None:
    """An unknown outcome that waits for a person, who has been told: the sweep is done with it.
    None: it is at rest no more, or was done with before."""
    if log.is_open or log.sweep_at is None:
        return None
    return Change(evolve(log, now, sweep_at=None))


def found(
    log: PublishLog,
    now: datetime,
    *,
    remote_id: str,
    remote_url: str | None,
    published_at: datetime | None,
) -> Change:
    """A person has seen the post of an unknown delivery: its id is claimed in the same commit."""
    sent_at = log.committing.at if log.committing else log.unsettled_since
    part = Arrived(
        remote_id=remote_id, remote_url=remote_url, published_at=published_at or sent_at or now
    )
    return arrived(log, now, part, by_evidence=True)
