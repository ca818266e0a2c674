"""The promises, judged for every delivery that was ordered: what the records say against what the
platform servers hold.

A post on a platform is tied to its delivery by a mark in its text, unique to each delivery (and to
each part of a thread). A test of its own shows that the judge can find each fault.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from statistics import median
from typing import Any

from shared.domain import keys, leases, posts, retries
from shared.domain.deliveries import BURIED, PublishLog, Status
from shared.domain.posts import ScheduledPost
from shared.platforms.base import Delivery, Exact, Guarantee, NoGuarantee, ReadBack, Windowed
from shared.platforms.registry import platform_class
from tests.sandbox.platforms.values import Post
from tests.sandbox.stack import Stack

SWEEP_EVERY = timedelta(minutes=1)  # as `terraform/topology.json` has it
READ_AT_ONCE = 300
GUARANTEES: Mapping[type, str] = {
    Exact: "exact",
    Windowed: "windowed",
    ReadBack: "readback",
    NoGuarantee: "none",
}


class Kind(StrEnum):
    DOUBLE = "double"  # the platform holds it more often than it was ordered
    LOSS = "loss"  # not ended by its limit, no record, or `success` and nothing is there
    LIE = "lie"  # `success` under another's id, or an end without success though it is there
    UNKNOWN = "unknown"  # `unknown` where the guarantee promises an answer
    ROLL_UP = "roll-up"  # the post tells of its deliveries what is not so
    LETTER = "letter"  # an end without its one open dead letter, or a letter without its end


@dataclass(frozen=True)
class Finding:
    kind: Kind
    says: str


@dataclass(frozen=True)
class Ordered:
    """One delivery whose scheduling was answered with success.

    `marks`: what the text of each part holds, one for what is no thread. `sends`: how often each
    may be there, which only a person's order makes more than once.
    """

    post_id: str
    platform: str
    account_id: str
    platform_user_id: str
    marks: tuple[str, ...]
    sends: int = 1

    @property
    def delivery_id(self) -> str:
        return keys.delivery_id(self.post_id, self.platform, self.account_id)

    @property
    def guarantee(self) -> Guarantee:
        return guarantee_of(self.platform, self.platform_user_id)

    def guarantee_after(self, above: tuple[str, ...]) -> Guarantee:
        """Of the part that comes after these."""
        delivery = Delivery("", "", "", self.platform_user_id, above=above)
        return platform_class(self.platform)().guarantee_of(delivery)

    @property
    def guarantee_name(self) -> str:
        return GUARANTEES[type(self.guarantee)]


@dataclass(frozen=True)
class Verdict:
    """What became of one delivery. `rests_since`: when its last change was, None while more is to
    come. `recovery`: how long that was after the fault, where the campaign knows."""

    ordered: Ordered
    status: Status | None
    rests_since: datetime | None
    findings: tuple[Finding, ...]
    recovery: timedelta | None = None

    def has(self, kind: Kind) -> bool:
        return any(finding.kind is kind for finding in self.findings)


def guarantee_of(platform: str, user_id: str) -> Guarantee:
    """What this kind of account declares."""
    return platform_class(platform)().guarantee_for(user_id)


def fresh_mark() -> str:
    """A word that stands in no other text."""
    return f"mark{secrets.token_hex(6)}"


def rests_by(log: PublishLog) -> datetime:
    """When a delivery must have come to its end, or to `unknown`."""
    return log.latest_at + leases.LEASE + 2 * SWEEP_EVERY


def judge(stack: Stack, ordered: Sequence[Ordered]) -> list[Verdict]:
    """Every promise of these deliveries, as things stand now."""
    logs = {
        name: PublishLog.model_validate(found)
        for name, found in _read(stack, "publishLogs", (one.delivery_id for one in ordered)).items()
    }
    letters = _read(stack, "deadLetters", _letter_ids(logs.values()))
    told = {
        name: ScheduledPost.model_validate(post)
        for name, post in _read(stack, "scheduledPosts", (one.post_id for one in ordered)).items()
    }
    rolled_up = _rolled_up(stack, told)
    held = _held(stack, ordered)
    verdicts = []
    for one in ordered:
        log, there = logs.get(one.delivery_id), held[one.delivery_id]
        findings = [*_outcome(one, log, there, stack.clock.now())]
        findings += _letters(log, letters) if log is not None else ()
        findings += rolled_up.get(one.post_id, ())
        rests_since = _rests_since(log, told.get(one.post_id))
        status = log.status if log is not None else None
        verdicts.append(Verdict(one, status, rests_since, tuple(findings)))
    return verdicts


def _outcome(
    one: Ordered,
    log: PublishLog | None,
    there: Sequence[Post],
    now: datetime,
) -> Iterator[Finding]:
    """Doubles, losses, lies, and what must not be unknown."""
    often = Counter(mark for post in there for mark in one.marks if mark in post.text)
    if any(times > one.sends for times in often.values()):
        yield Finding(Kind.DOUBLE, f"{len(there)} posts: {', '.join(post.id for post in there)}")
    if log is None:
        yield Finding(Kind.LOSS, "no record of a delivery that was accepted")
        return
    evident = log.unsettled_since is not None
    if log.is_open and now > rests_by(log):
        yield Finding(Kind.LOSS, f"still {log.status} at {now:%d %b %H:%M:%S}")
    ids = {post.id for post in there}
    named = log.remote_ids
    match log.status:
        case Status.SUCCESS if not there:
            yield Finding(Kind.LOSS, "success, and the platform holds nothing")
        case Status.SUCCESS | Status.PARTIAL if not _are_these(log, one, there):
            yield Finding(Kind.LIE, f"{log.status} names {named or 'no id'}, not {ids}")
        case Status.SUCCESS if len(named) < len(one.marks):
            yield Finding(Kind.LIE, f"success with {len(named)} of {len(one.marks)} parts")
        case Status.PARTIAL if len(often) > len(named):
            yield Finding(Kind.LIE, f"partial with {len(named)} parts, and {len(often)} are there")
        case Status.FAILED | Status.MISSED | Status.CANCELLED if there:
            yield Finding(Kind.LIE, f"{log.status}, and the platform holds {ids}")
        case Status.UNKNOWN if not evident:
            yield Finding(Kind.UNKNOWN, "without any evidence of a call")
        case Status.UNKNOWN if not log.is_open:
            is_there, guarantee = one.marks[log.part] in often, one.guarantee_after(log.remote_ids)
            if not (_left_to_a_person(guarantee, is_there) or _blind(log)):
                yield Finding(Kind.UNKNOWN, f"{log.error_code}, though {guarantee.kind}")


def _are_these(log: PublishLog, one: Ordered, there: Sequence[Post]) -> bool:
    """Whether the ids on record are those of this delivery's posts, part by part."""
    said = {post.id: post.text for post in there}
    if not log.parts or log.remote_id != log.remote_ids[0]:
        return False
    pairs = zip(log.remote_ids, one.marks, strict=False)
    return all(mark in said.get(name, "") for name, mark in pairs)


def _left_to_a_person(guarantee: Guarantee, is_there: bool) -> bool:
    """What nobody can read back; elsewhere absence is no proof, and a window may be missed."""
    match guarantee:
        case NoGuarantee():
            return True
        case ReadBack() | Windowed():
            return not is_there
    return False


def _blind(log: PublishLog) -> bool:
    """Whether looking came to its end and could not tell: there was no token even for the last
    look, or `latestAt` came before that."""
    assert log.unsettled_since is not None
    last_look = log.unsettled_since + retries.LOOKUPS[-1]
    if log.latest_at < last_look:
        return log.updated_at >= log.latest_at
    no_token = log.error_code in ("auth_expired", "account_disconnected")
    return no_token and log.updated_at >= last_look


def _letter_ids(logs: Iterable[PublishLog]) -> Iterator[str]:
    for log in logs:
        for generation in range(1, log.generation + 1):
            yield keys.dead_letter_id(log.id, generation)


def _letters(log: PublishLog, letters: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """One for the generation that ended without success, open until a person acts on it."""
    for generation in range(1, log.generation + 1):
        letter = letters.get(keys.dead_letter_id(log.id, generation), {})
        status = letter.get("status")
        buried = generation == log.generation and log.status in BURIED
        if buried and status not in ("open", "discarded"):
            yield Finding(Kind.LETTER, f"{log.status}, and its dead letter is {status}")
        if not buried and status == "open":
            yield Finding(Kind.LETTER, f"an open dead letter of generation {generation}")


def _rests_since(log: PublishLog | None, post: ScheduledPost | None) -> datetime | None:
    if log is None or log.is_open or post is None:
        return None
    return max(log.updated_at, post.updated_at) if post.open == 0 else log.updated_at


def _rolled_up(stack: Stack, told: Mapping[str, ScheduledPost]) -> dict[str, list[Finding]]:
    """What posts tell wrongly of their deliveries, by post."""
    theirs = [
        keys.delivery_id(name, target.platform, target.account_id)
        for name, post in told.items()
        for target in post.platforms
    ]
    logs: dict[str, list[PublishLog]] = {name: [] for name in told}
    for found in _read(stack, "publishLogs", theirs).values():
        log = PublishLog.model_validate(found)
        logs[log.post_id].append(log)
    return {name: [*_post(post, logs[name])] for name, post in told.items()}


def _post(post: ScheduledPost, logs: Sequence[PublishLog]) -> Iterator[Finding]:
    open_now = sum(log.is_open for log in logs)
    if post.open != open_now:
        yield Finding(Kind.ROLL_UP, f"`open` is {post.open}, and {open_now} are open")
    if open_now:
        return
    derived = posts.derive(posts.result(log) for log in logs)
    if post.status is not derived:
        yield Finding(Kind.ROLL_UP, f"the post is {post.status}, not {derived}")
    if post.results != {log.id: posts.result(log) for log in logs}:
        yield Finding(Kind.ROLL_UP, "the post's results are not its deliveries'")


def _held(stack: Stack, ordered: Sequence[Ordered]) -> dict[str, list[Post]]:
    """The posts of each delivery, wherever on its platform they are."""
    whose = {(one.platform, mark): one.delivery_id for one in ordered for mark in one.marks}
    held: dict[str, list[Post]] = {one.delivery_id: [] for one in ordered}
    for post in stack.platforms.posts():
        for word in post.text.split():
            if (post.platform, word) in whose:
                held[whose[post.platform, word]].append(post)
    return held


def _read(stack: Stack, collection: str, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The records that there are, by id."""
    refs = [stack.db.document(collection, name) for name in dict.fromkeys(ids)]
    found: dict[str, dict[str, Any]] = {}
    for first in range(0, len(refs), READ_AT_ONCE):
        for seen in stack.db.get_all(refs[first : first + READ_AT_ONCE]):
            if seen.exists:
                found[seen.id] = seen.to_dict() or {}
    return found


# --- the table ----------------------------------------------------------------------------------


def table(verdicts: Sequence[Verdict]) -> list[dict[str, object]]:
    """Rows by guarantee, and one for all of them."""
    groups = {
        name: [one for one in verdicts if one.ordered.guarantee_name == name]
        for name in GUARANTEES.values()
    }
    rows = [_row(name, group) for name, group in groups.items() if group]
    return [*rows, _row("all", verdicts)]


def _row(name: str, verdicts: Sequence[Verdict]) -> dict[str, object]:
    unknown = [one for one in verdicts if one.status is Status.UNKNOWN]
    not_allowed = sum(one.has(Kind.UNKNOWN) for one in unknown)
    took = sorted(one.recovery for one in verdicts if one.recovery is not None)
    return {
        "guarantee": name,
        "ran": len(verdicts),
        "doubles": sum(one.has(Kind.DOUBLE) for one in verdicts),
        "losses": sum(one.has(Kind.LOSS) for one in verdicts),
        "lies": sum(one.has(Kind.LIE) for one in verdicts),
        "unknown": len(unknown),
        "not allowed": not_allowed,
        "roll-ups": sum(one.has(Kind.ROLL_UP) for one in verdicts),
        "letters": sum(one.has(Kind.LETTER) for one in verdicts),
        "median": f"{median(one.total_seconds() for one in took):.0f} s" if took else "",
        "worst": f"{took[-1].total_seconds():.0f} s" if took else "",
    }


def summary(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many ended in which way."""
    return dict(Counter(str(one.status) for one in verdicts))
