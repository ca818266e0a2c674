"""What an owner does to a scheduled post: cancel, edit, reschedule, retry one delivery.

Each is one commit guarded by the logs that it moves; tasks are created or deleted after it. Where a
post's deliveries have come to different points, a command applies to those it still can, and the
answer says of each of the others why not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from shared.domain import changes, leases
from shared.domain.changes import Correction
from shared.domain.deliveries import CHANGEABLE, Change, PublishLog, Status
from shared.domain.failures import ConflictError, NotFoundError, Problem, RefusedError
from shared.domain.markers import Keyed
from shared.domain.media import MediaItem
from shared.domain.posts import Target, TargetPart
from shared.domain.schedules import moment, plan
from shared.jobs.publish import tell_failed
from shared.jobs.schedule import (
    draft_problems,
    log_problems,
    resolve_media,
    resolve_thread,
    target_problems,
    thread_assets,
)
from shared.observability import trace_of
from shared.runtime import Runtime
from shared.store.posts import Command, Whole


@dataclass(frozen=True, slots=True)
class Which:
    """The post, the deliveries of it that are meant (all where none is named), and the key under
    which the answer is remembered, where the caller gave one."""

    company_id: str
    post_id: str
    targets: tuple[tuple[str, str], ...] = ()
    keyed: Keyed | None = None

    def logs(self, whole: Whole) -> list[PublishLog]:
        """Raises `NotFoundError` for a delivery that the post does not have."""
        return _named(whole, self.targets) or list(whole.logs.values())


def _named(whole: Whole, targets: Collection[tuple[str, str]]) -> list[PublishLog]:
    logs = {(log.platform, log.account_id): log for log in whole.logs.values()}
    for platform, account_id in targets:
        if (platform, account_id) not in logs:
            message = f"The post has no delivery to {platform} {account_id!r}."
            raise NotFoundError(message)
    return [logs[target] for target in dict.fromkeys(targets)]


def cancel(which: Which, rt: Runtime) -> dict[str, Any]:
    def decide(whole: Whole, now: datetime) -> Command:
        able, unable = _split(which.logs(whole))
        _some(able, unable, "cancelled")
        moved = tuple(changes.cancel(log, now) for log in able)
        return Command(moved, _response(whole, moved, unable))

    before: list[PublishLog] = []

    def remembering(whole: Whole, now: datetime) -> Command:
        before[:] = [log for log in which.logs(whole) if changes.changeable(log)]
        return decide(whole, now)

    stored = rt.store.posts.command(which.post_id, which.company_id, remembering, keyed=which.keyed)
    if not stored.replayed:
        _forget(before, rt)
        _tell("cancel", which, stored.logs, rt)
    return stored.response


@dataclass(frozen=True, slots=True)
class Edit:
    """New content or media for all, or for single targets; None keeps what there is."""

    content: str | None
    media_asset_ids: tuple[str, ...] | None
    targets: Mapping[tuple[str, str], Target]

    @property
    def asset_ids(self) -> tuple[str, ...]:
        named = (*(self.media_asset_ids or ()), *thread_assets(self.targets.values()))
        return tuple(dict.fromkeys(named))


def edit(which: Which, wanted: Edit, rt: Runtime) -> dict[str, Any]:
    if wanted.content is None and wanted.media_asset_ids is None and not which.targets:
        which = replace(which, targets=tuple(wanted.targets))  # the others are not spoken of

    def decide(whole: Whole, now: datetime) -> Command:
        _named(whole, wanted.targets)
        able, unable = _split(which.logs(whole))
        _some(able, unable, "edited")
        problems: list[Problem] = []
        media = None
        if wanted.media_asset_ids is not None:
            media = resolve_media(wanted.media_asset_ids, whole.assets, which.company_id, problems)
        targets = list(whole.post.platforms)
        moved = []
        for index, before in enumerate(whole.post.platforms):
            log = next((x for x in able if _is(x, before)), None)
            if log is None:
                continue
            target = targets[index] = _edited_target(before, wanted)
            field = f"platforms[{index}]"
            correction = _correction(field, target, whole, wanted, media, problems)
            change = changes.edit(log, correction, now)
            problems += draft_problems(
                field,
                log.platform,
                change.log.posts,
                change.log.options,
                rt,
                account=rt.store.accounts.read(log.account_id),
            )
            moved.append(change)
        if problems:
            raise RefusedError(problems)
        post: dict[str, Any] = {"platforms": [target.document() for target in targets]}
        if wanted.content is not None:
            post["content"] = wanted.content
        if media is not None and wanted.media_asset_ids is not None:
            post["mediaAssetIds"] = list(wanted.media_asset_ids)
            post["media"] = [item.document() for item in media]
        return Command(tuple(moved), _response(whole, moved, unable), post=post)

    stored = rt.store.posts.command(
        which.post_id,
        which.company_id,
        decide,
        keyed=which.keyed,
        asset_ids=wanted.asset_ids,
    )
    if not stored.replayed:
        _tell("edit", which, stored.logs, rt)
    return stored.response


def _correction(
    field: str,
    target: Target,
    whole: Whole,
    wanted: Edit,
    media: tuple[MediaItem, ...] | None,
    problems: list[Problem],
) -> Correction:
    """What changes for one delivery; what the edit does not name stays as it is."""
    own = wanted.targets.get((target.platform, target.account_id))
    named = own.model_fields_set if own is not None else set()
    content = None
    if "custom_content" in named or wanted.content is not None:
        shared = wanted.content if wanted.content is not None else whole.post.content
        content = target.custom_content or shared
    thread = None
    if "thread" in named:
        thread = resolve_thread(field, target.thread, whole.assets, whole.post.company_id, problems)
    return Correction(content, media, target.options if "options" in named else None, thread)


def _edited_target(target: Target, wanted: Edit) -> Target:
    change = wanted.targets.get((target.platform, target.account_id))
    if change is None:
        return target
    own = change.model_fields_set & {"custom_content", "options", "thread"}
    return target.model_copy(update={name: getattr(change, name) for name in own})


def reschedule(
    which: Which,
    scheduled_at: datetime,
    timezone: str | None,
    latest_at: datetime | None,
    rt: Runtime,
) -> dict[str, Any]:
    before: list[PublishLog] = []

    def decide(whole: Whole, now: datetime) -> Command:
        when = plan(scheduled_at, timezone, latest_at, now=now)
        able, unable = _split(which.logs(whole))
        _some(able, unable, "rescheduled")
        before[:] = able
        moved = tuple(changes.reschedule(log, when, now) for log in able)
        post = {
            "scheduledAt": when.due_at,
            "timezone": timezone,
            "latestAt": when.latest_at,
            "cloudTaskNames": [change.log.wake().task_id for change in moved],
        }
        response = _response(whole, moved, unable)
        response |= {
            "scheduledAt": when.due_at.isoformat(),
            "latestAt": when.latest_at.isoformat(),
            "notes": list(when.notes),
        }
        return Command(moved, response, post=post)

    stored = rt.store.posts.command(which.post_id, which.company_id, decide, keyed=which.keyed)
    if stored.replayed:
        return stored.response
    tell_failed(rt.queue.wake_all([x.wake() for x in stored.logs if x.promote_at is None]), rt)
    _forget(before, rt)
    _tell("reschedule", which, stored.logs, rt)
    return stored.response


@dataclass(frozen=True, slots=True)
class Retry:
    """One delivery again, with what is to be different: `thread` is what is to follow the parts
    that are published. `risk` is why a person takes the risk of a second post where the first one's
    outcome is unknown."""

    content: str | None
    options: dict[str, Any] | None
    media_asset_ids: tuple[str, ...] | None
    thread: tuple[TargetPart, ...] | None
    latest_at: datetime | None
    timezone: str | None
    risk: str | None
    by: str

    @property
    def asset_ids(self) -> tuple[str, ...]:
        shown = [name for part in self.thread or () for name in part.media_asset_ids]
        return tuple(dict.fromkeys((*(self.media_asset_ids or ()), *shown)))


def retry(which: Which, wanted: Retry, rt: Runtime) -> dict[str, Any]:
    _, account_id = which.targets[0]
    account = rt.store.accounts.read(account_id)

    def decide(whole: Whole, now: datetime) -> Command:
        [log] = which.logs(whole)
        if not changes.retryable(log, accepts_risk=wanted.risk is not None):
            raise ConflictError(_why_not(log), code="not_retryable", details=_shown(log))
        problems = target_problems(
            "delivery",
            Target(platform=log.platform, account_id=log.account_id),
            account,
            which.company_id,
            rt,
        )
        media = None
        if wanted.media_asset_ids is not None:
            media = resolve_media(wanted.media_asset_ids, whole.assets, which.company_id, problems)
        thread = None
        if wanted.thread is not None:
            thread = resolve_thread(
                "delivery", wanted.thread, whole.assets, which.company_id, problems
            )
        correction = Correction(wanted.content, media, wanted.options, thread)
        if correction.rewrites(log):
            raise RefusedError([Problem("content", "partly_published", _PARTLY_PUBLISHED)])
        latest = max(log.latest_at, now + leases.LATEST_AFTER)
        if wanted.latest_at is not None:
            latest = moment(wanted.latest_at, wanted.timezone, field="latestAt").at
            if latest <= now:
                sentence = "latestAt must be in the future"
                problems.append(Problem("latestAt", "in_the_past", sentence))
        letter = whole.letters.get(log.id)
        change = changes.retry(log, correction, now, latest_at=latest, letter=letter)
        problems += log_problems(change.log, account, rt)
        if problems:
            raise RefusedError(problems)
        audit = None
        if wanted.risk is not None:
            audit = {
                "action": "send_again",
                "by": wanted.by,
                "why": wanted.risk,
                "deliveryId": log.id,
                "companyId": which.company_id,
            }
        return Command((change,), _response(whole, [change], []), audit=audit)

    stored = rt.store.posts.command(
        which.post_id,
        which.company_id,
        decide,
        keyed=which.keyed,
        asset_ids=wanted.asset_ids,
        with_letters=True,
    )
    if not stored.replayed:
        tell_failed(rt.queue.wake_all([log.wake() for log in stored.logs]), rt)
        _tell("retry", which, stored.logs, rt)
    return stored.response


def _forget(logs: Sequence[PublishLog], rt: Runtime) -> None:
    """Take back tasks that are not needed: those that stay come, and are void."""
    failures = rt.queue.forget_all([log.wake() for log in logs])
    tell_failed(failures, rt, event="task.delete_failed")


def _split(logs: Sequence[PublishLog]) -> tuple[list[PublishLog], list[PublishLog]]:
    able = [log for log in logs if changes.changeable(log)]
    return able, [log for log in logs if not changes.changeable(log)]


def _some(able: Sequence[PublishLog], unable: Sequence[PublishLog], verb: str) -> None:
    if not able:
        shown = [_refusal(log) for log in unable]
        message = f"No delivery of this post can be {verb} any more."
        raise ConflictError(message, code="too_late", details={"refused": shown})


def _response(
    whole: Whole, moved: Sequence[Change], unable: Sequence[PublishLog]
) -> dict[str, Any]:
    return {
        "success": True,
        "postId": whole.post_id,
        "applied": [_shown(change.log) for change in moved],
        "refused": [_refusal(log) for log in unable],
    }


def _shown(log: PublishLog) -> dict[str, Any]:
    return {
        "deliveryId": log.id,
        "platform": log.platform,
        "accountId": log.account_id,
        "status": str(log.status),
        "generation": log.generation,
        "dueAt": log.due_at.isoformat(),
    }


def _refusal(log: PublishLog) -> dict[str, Any]:
    return {**_shown(log), "message": too_late(log)}


_TOO_LATE = {
    Status.PROCESSING: "It is being published right now.",
    Status.ACCEPTED: "The platform has it and works on it.",
    Status.UNKNOWN: "It may be on the platform already.",
    Status.SUCCESS: "It is published.",
    Status.PARTIAL: "Parts of it are published.",
    Status.FAILED: "It has failed. Retry it instead.",
    Status.CANCELLED: "It was cancelled.",
    Status.MISSED: "It was missed. Retry it instead.",
}


_PARTLY_PUBLISHED = (
    "Parts of it are published and stay as they are. Give what is still to follow them, as thread, "
    "one part or more, or as options with a firstComment; or nothing to send it as it was."
)


def too_late(log: PublishLog) -> str:
    if log.is_open and log.parts:
        return f"Parts of it are published ({log.part} of {len(log.wanted)}); the others follow."
    return _TOO_LATE.get(log.status, "It can still be changed.")


def _why_not(log: PublishLog) -> str:
    if log.status is Status.UNKNOWN and log.next_retry_at is not None:
        return f"It is being looked for by itself, next at {log.next_retry_at.isoformat()}."
    if log.status is Status.UNKNOWN:
        return (
            "It may be on the platform already. Look there; to send it again all the same, give "
            "acceptDuplicateRisk and a reason."
        )
    if log.status in CHANGEABLE:
        return f"It is {log.status} and will be tried by itself at {log.due_at.isoformat()}."
    return f"Only a failed, missed or partial delivery can be retried. {too_late(log)}"


def _is(log: PublishLog, target: Target) -> bool:
    return (log.platform, log.account_id) == (target.platform, target.account_id)


def _tell(action: str, which: Which, logs: Sequence[PublishLog], rt: Runtime) -> None:
    rt.log.bind(trace_of(logs[0].traceparent) if logs else None).event(
        "post.changed",
        action=action,
        postId=which.post_id,
        companyId=which.company_id,
        deliveries=[log.id for log in logs],
    )
