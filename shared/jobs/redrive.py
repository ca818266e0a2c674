"""Dead letters: listed, looked into, corrected, sent again, thrown away.

Sending again is the store's one commit on the delivery's log, so whoever presses the button second
gets the first one's answer. A dry run decides with the same function and stops before the commit.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from shared.domain import cursors, redrives
from shared.domain.accounts import SocialAccount
from shared.domain.changes import Correction
from shared.domain.dead_letters import DeadLetter, LetterStatus
from shared.domain.deliveries import PublishLog
from shared.domain.failures import ConflictError, JobError, NotFoundError, Problem, RefusedError
from shared.domain.posts import Target
from shared.domain.redrives import Person
from shared.jobs.publish import tell_failed
from shared.jobs.schedule import log_problems, resolve_media, target_problems
from shared.runtime import Runtime
from shared.store.posts import Command, Whole

AT_ONCE = 500
COPIES = 200  # in one sweep


@dataclass(frozen=True, slots=True)
class Where:
    """Which letters are meant; None asks for any. `equal` names fields as they are kept."""

    company_id: str | None = None
    platform: str | None = None
    account_id: str | None = None
    reason: str | None = None
    status: LetterStatus | None = None
    since: datetime | None = None
    until: datetime | None = None

    def equal(self) -> dict[str, str]:
        named = {
            "companyId": self.company_id,
            "platform": self.platform,
            "accountId": self.account_id,
            "reason": self.reason,
            "status": self.status and str(self.status),
        }
        return {name: value for name, value in named.items() if value is not None}


def open_ones(where: Where) -> Where:
    return replace(where, status=LetterStatus.OPEN)


def listed(where: Where, cursor: str | None, limit: int, rt: Runtime) -> dict[str, Any]:
    found, following = _page(where, cursor, limit, rt)
    return {
        "success": True,
        "deadLetters": [_shown(letter_id, letter) for letter_id, letter in found],
        "nextCursor": following,
    }


def _page(
    where: Where, cursor: str | None, limit: int, rt: Runtime
) -> tuple[list[tuple[str, DeadLetter]], str | None]:
    found = rt.store.dead_letters.page(
        where.equal(),
        since=where.since,
        until=where.until,
        after=cursors.decode(cursor),
        limit=limit,
    )
    full = len(found) == limit
    return found, cursors.encode(found[-1][1].created_at, found[-1][0]) if full else None


def inspected(letter_id: str, rt: Runtime) -> dict[str, Any]:
    """The letter with its evidence, and its delivery as it stands now."""
    letter = _read(letter_id, rt)
    log = rt.store.deliveries.read(letter.delivery_id) if letter.delivery_id else None
    whole = letter.model_dump(by_alias=True, mode="json")
    shown = log.model_dump(by_alias=True, mode="json") if log else None
    return {"success": True, "deadLetterId": letter_id, **whole, "delivery": shown}


def _read(letter_id: str, rt: Runtime) -> DeadLetter:
    letter = rt.store.dead_letters.read(letter_id)
    if letter is None:
        raise NotFoundError(f"There is no dead letter {letter_id!r}.", code="not_found")
    return letter


@dataclass(frozen=True, slots=True)
class Redrive:
    """What is to be sent again, by whom, and until when at the latest where that has passed."""

    person: Person
    latest_at: datetime | None = None
    dry_run: bool = False
    ids: Sequence[str] = ()
    where: Where | None = None
    cursor: str | None = None
    limit: int = AT_ONCE


class _RehearsedError(Exception):
    """Decided, and not to be written."""


class _MovedOnError(Exception):
    """The letter's generation is over: somebody was first."""


@dataclass(slots=True)
class _Tally:
    results: list[dict[str, Any]] = field(default_factory=list)

    def count(self, *outcomes: str) -> int:
        return sum(result["outcome"] in outcomes for result in self.results)


def redrive(wanted: Redrive, rt: Runtime, ends_at: float) -> dict[str, Any]:
    """Send many again, each for itself: what one is refused for does not hold the others.

    It stops in time for its answer (`ends_at`, monotonic); `notReached` then says what is left.
    """
    ids, following = list(wanted.ids), None
    if wanted.where is not None:
        found, following = _page(wanted.where, wanted.cursor, wanted.limit, rt)
        ids = [letter_id for letter_id, _ in found]
    tally = _Tally()
    left = []
    for index, letter_id in enumerate(ids):
        if time.monotonic() >= ends_at:
            left = ids[index:]
            break
        tally.results.append(_one(letter_id, wanted, rt))
    return _answer(wanted, tally, left, following)


def _answer(
    wanted: Redrive, tally: _Tally, left: list[str], following: str | None
) -> dict[str, Any]:
    done, refused = tally.count("redriven", "would_be_redriven"), tally.count("refused")
    verb = "would be sent" if wanted.dry_run else "are sent"
    message = f"{done} of {len(tally.results)} dead letters {verb} again."
    if left:
        message += f" {len(left)} were not reached in time: repeat the call for them."
    answer = {
        "success": refused == 0,
        "dryRun": wanted.dry_run,
        "message": message,
        "redriven": done,
        "refused": refused,
        "results": tally.results,
        "notReached": left,
        "nextCursor": following,
    }
    if refused and not done and wanted.where is None:
        raise ConflictError(
            tally.results[0]["message"], code=tally.results[0]["code"], details=answer
        )
    return answer


def _one(letter_id: str, wanted: Redrive, rt: Runtime) -> dict[str, Any]:
    try:
        letter = _read(letter_id, rt)
        if letter.status is LetterStatus.REDRIVEN:
            return _redriven(letter_id, letter)
        try:
            return _sent_again(letter_id, letter, wanted, rt)
        except _MovedOnError:
            now = _read(letter_id, rt)
            if now.status is LetterStatus.REDRIVEN:
                return _redriven(letter_id, now)
            redrives.need_open(now)
            message = "Its delivery has moved on since. Look at it before you send it again."
            raise ConflictError(message, code="moved_on") from None
    except JobError as error:
        return _refused(letter_id, error)


def _sent_again(letter_id: str, letter: DeadLetter, wanted: Redrive, rt: Runtime) -> dict[str, Any]:
    delivery, post_id, company_id = redrives.need_delivery(letter)
    redrives.need_open(letter)
    account = rt.store.accounts.read(letter.account_id or "")

    def decide(whole: Whole, now: datetime) -> Command:
        log, current = whole.logs[delivery], whole.letters.get(delivery)
        if current is None or log.generation != letter.generation:
            raise _MovedOnError
        if current.status is LetterStatus.REDRIVEN:  # read after the log: already of the next one
            raise _MovedOnError
        redrives.need_open(current)
        change = redrives.redrive(current, log, wanted.latest_at, wanted.person, now)
        problems = _problems(change.log, account, rt)
        if problems:
            raise RefusedError(problems)
        if wanted.dry_run:
            raise _RehearsedError
        assert change.letter is not None
        told = redrives.audit("dead_letter.redrive", letter_id, current, wanted.person)
        return Command((change,), _redriven(letter_id, change.letter), audit=told)

    try:
        stored = rt.store.posts.command(post_id, company_id, decide, with_letters=True)
    except _RehearsedError:
        return {**_about(letter_id, letter), "outcome": "would_be_redriven"}
    tell_failed(rt.queue.wake_all([log.wake() for log in stored.logs]), rt)
    rt.queue.unbury(letter_id)
    rt.log.event(
        "operator.acted",
        action="dead_letter.redrive",
        by=wanted.person.email,
        deadLetterId=letter_id,
        deliveryId=delivery,
        postId=post_id,
        companyId=company_id,
    )
    return stored.response


def _problems(log: PublishLog, account: SocialAccount | None, rt: Runtime) -> list[Problem]:
    """What its platform would refuse now, and whether its account can post at all."""
    target = Target(platform=log.platform, account_id=log.account_id)
    return [
        *target_problems("delivery", target, account, log.company_id, rt),
        *log_problems(log, account, rt),
    ]


def _redriven(letter_id: str, letter: DeadLetter) -> dict[str, Any]:
    """The same for whoever sent it and for whoever comes after, read from the letter alone."""
    return {
        **_about(letter_id, letter),
        "outcome": "redriven",
        "redrivenTo": letter.redriven_to,
        "by": letter.closed_by,
        "at": letter.updated_at.isoformat(timespec="microseconds"),
        "message": "It is sent again under a new generation. The letter is closed.",
    }


def _refused(letter_id: str, error: JobError) -> dict[str, Any]:
    problems = error.problems if isinstance(error, RefusedError) else []
    return {
        "deadLetterId": letter_id,
        "outcome": "refused",
        "code": error.code,
        "message": error.message,
        "errors": [{"field": p.field, "code": p.code, "message": p.message} for p in problems],
    }


@dataclass(frozen=True, slots=True)
class Edit:
    """New content, options or media for what a letter sends; None keeps what there is."""

    content: str | None
    options: dict[str, Any] | None
    media_asset_ids: tuple[str, ...] | None


def edit(letter_id: str, wanted: Edit, person: Person, rt: Runtime) -> dict[str, Any]:
    """Keep a correction on the letter, for its redrive; the platform's limits are checked now."""
    letter = _read(letter_id, rt)
    delivery, post_id, company_id = redrives.need_delivery(letter)
    whole = rt.store.posts.whole(post_id, company_id, wanted.media_asset_ids or ())
    log = whole.logs[delivery]

    def decide(current: DeadLetter, now: datetime) -> tuple[DeadLetter, Any]:
        redrives.need_open(current)
        redrives.need_whole(current)
        problems: list[Problem] = []
        media = None
        if wanted.media_asset_ids is not None:
            media = resolve_media(wanted.media_asset_ids, whole.assets, company_id, problems)
        new = Correction(wanted.content, media, wanted.options)
        after = redrives.corrected(current, new, now)
        draft = log.model_copy(update=redrives.correction(after).fields(log))
        problems += log_problems(draft, rt.store.accounts.read(log.account_id), rt)
        if problems:
            raise RefusedError(problems)
        return after, redrives.audit("dead_letter.edit", letter_id, current, person)

    after = rt.store.dead_letters.change(letter_id, decide)
    _tell("dead_letter.edit", letter_id, after, person, rt)
    message = "The letter carries the correction. Redrive it to send it."
    return {"success": True, "message": message, **_shown(letter_id, after)}


def discard(ids: Sequence[str], person: Person, rt: Runtime) -> dict[str, Any]:
    """Close letters without sending. Twice is once: the first one's reason stands."""
    results = []
    for letter_id in ids:
        try:
            results.append(_discarded(letter_id, person, rt))
        except JobError as error:
            results.append(_refused(letter_id, error))
    done = sum(result["outcome"] == "discarded" for result in results)
    answer = {
        "success": done == len(results),
        "message": f"{done} of {len(results)} dead letters are discarded, their posts not sent.",
        "results": results,
    }
    if not done:
        raise ConflictError(results[0]["message"], code=results[0]["code"], details=answer)
    return answer


def _discarded(letter_id: str, person: Person, rt: Runtime) -> dict[str, Any]:
    letter = _read(letter_id, rt)
    if letter.status is not LetterStatus.DISCARDED:

        def decide(current: DeadLetter, now: datetime) -> tuple[DeadLetter, Any]:
            redrives.need_open(current)
            told = redrives.audit("dead_letter.discard", letter_id, current, person)
            return redrives.discarded(current, person, now), told

        letter = rt.store.dead_letters.change(letter_id, decide)
        rt.queue.unbury(letter_id)
        _tell("dead_letter.discard", letter_id, letter, person, rt)
    return {
        **_about(letter_id, letter),
        "outcome": "discarded",
        "by": letter.closed_by,
        "why": letter.closed_why,
        "message": "It is discarded.",
    }


def copy_new(rt: Runtime) -> int:
    """A copy of each new letter's task in the paused `default-dlq`, so that listing its tasks shows
    them; and its alert's task, which may not have been made when it was written. Called by every
    sweep; what nobody could read has no task to copy."""

    def make(letter_id: str, letter: DeadLetter) -> bool:
        failures = rt.queue.announce(letter_id)
        if letter.delivery_id:
            failures += rt.queue.bury(letter_id, letter.payload)
        tell_failed(failures, rt)
        return not failures

    return rt.store.dead_letters.copy(make, COPIES)


def _tell(action: str, letter_id: str, letter: DeadLetter, person: Person, rt: Runtime) -> None:
    rt.log.event(
        "operator.acted",
        action=action,
        by=person.email,
        deadLetterId=letter_id,
        deliveryId=letter.delivery_id,
        companyId=letter.company_id,
    )


def _about(letter_id: str, letter: DeadLetter) -> dict[str, Any]:
    return {
        "deadLetterId": letter_id,
        "deliveryId": letter.delivery_id,
        "generation": letter.generation,
        "postId": letter.post_id,
        "companyId": letter.company_id,
        "platform": letter.platform,
        "accountId": letter.account_id,
    }


def _shown(letter_id: str, letter: DeadLetter) -> dict[str, Any]:
    """A letter in a list: without its evidence."""
    attempts = letter.evidence.get("attempts") or ()
    return {
        **_about(letter_id, letter),
        "status": str(letter.status),
        "reason": letter.reason,
        "problem": letter.message,
        "attempts": len(attempts),
        "edited": sorted({"content", "options", "media"} & letter.payload.keys()),
        "redrivenTo": letter.redriven_to,
        "closedBy": letter.closed_by,
        "closedWhy": letter.closed_why,
        "createdAt": letter.created_at.isoformat(),
    }
