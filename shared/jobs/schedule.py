"""Schedule a post: check everything, keep it in one commit, wake its deliveries when due."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from shared.domain import deliveries, keys, posts
from shared.domain.accounts import AccountStatus, SocialAccount
from shared.domain.deliveries import Part, PublishLog, Status
from shared.domain.failures import Problem, RefusedError
from shared.domain.markers import Keyed
from shared.domain.media import MediaItem
from shared.domain.posts import ScheduledPost, Target, TargetPart
from shared.domain.schedules import Plan, plan
from shared.jobs import forecasts
from shared.jobs.publish import tell_failed
from shared.observability import trace_of
from shared.platforms.base import Draft
from shared.runtime import Runtime
from shared.store.firestore import fresh_id
from shared.store.posts import Creation, Surroundings


@dataclass(frozen=True, slots=True)
class Order:
    """What the backend asks for; every value as it was sent."""

    company_id: str
    user_id: str
    content: str
    media_asset_ids: tuple[str, ...]
    scheduled_at: datetime
    timezone: str | None
    latest_at: datetime | None
    targets: tuple[Target, ...]
    idempotency_key: str
    fingerprint: str

    @property
    def asset_ids(self) -> tuple[str, ...]:
        """All that it shows anywhere."""
        return tuple(dict.fromkeys((*self.media_asset_ids, *thread_assets(self.targets))))


def thread_assets(targets: Iterable[Target]) -> tuple[str, ...]:
    parts = [part for target in targets for part in target.thread]
    return tuple(name for part in parts for name in part.media_asset_ids)


def create(order: Order, rt: Runtime, traceparent: str) -> dict[str, Any]:
    """The post's id and deliveries, what was adjusted, and warnings. Raises `RefusedError`."""
    refuse_repeats(order)
    keyed = Keyed("schedule_post", order.company_id, order.idempotency_key, order.fingerprint)
    post_id = "p" + fresh_id() + fresh_id()

    def decide(around: Surroundings, now: datetime) -> Creation:
        made = creation(order, around, now, rt, post_id, traceparent)
        return _with_cap_warnings(made, order, around, rt)

    stored = rt.store.posts.create(
        keyed,
        account_ids=[target.account_id for target in order.targets],
        asset_ids=order.asset_ids,
        decide=decide,
    )
    logs: Sequence[PublishLog] = stored.logs
    if stored.replayed:
        logs = _unwoken(stored.response["postId"], rt)
    wakes = [log.wake() for log in logs if log.promote_at is None]
    tell_failed(rt.queue.wake_all(wakes), rt)
    if not stored.replayed:
        _tell_scheduled(stored.response["postId"], logs, order, rt)
    return stored.response


def refuse_repeats(order: Order) -> None:
    seen: set[tuple[str, str]] = set()
    problems = []
    for index, target in enumerate(order.targets):
        if (target.platform, target.account_id) in seen:
            sentence = f"The account {target.account_id!r} is named twice."
            problems.append(Problem(f"platforms[{index}].accountId", "repeated", sentence))
        seen.add((target.platform, target.account_id))
    if problems:
        raise RefusedError(problems)


def _unwoken(post_id: str, rt: Runtime) -> Sequence[PublishLog]:
    """A replayed request creates what the first one may not have come to: the tasks."""
    found = rt.store.posts.deliveries(post_id)
    return [log for log in found[1] if log.status is Status.PENDING] if found else []


def creation(
    order: Order,
    around: Surroundings,
    now: datetime,
    rt: Runtime,
    post_id: str,
    traceparent: str,
) -> Creation:
    """What scheduling writes, if nothing stands against it. Raises `RefusedError`."""
    problems: list[Problem] = []
    when: Plan | None = None
    try:
        when = plan(order.scheduled_at, order.timezone, order.latest_at, now=now)
    except RefusedError as error:
        problems += error.problems
    media = _media(order, around, problems)
    threads = []
    for index, target in enumerate(order.targets):
        field = f"platforms[{index}]"
        account = around.accounts.get(target.account_id)
        problems += target_problems(field, target, account, order.company_id, rt)
        thread = resolve_thread(field, target.thread, around.assets, order.company_id, problems)
        threads.append(thread)
        parts = (Part(content=target.custom_content or order.content, media=media), *thread)
        problems += draft_problems(
            field, target.platform, parts, target.options, rt, account=account
        )
    if problems or when is None:
        raise RefusedError(problems)
    post = _post(order, media, when, now, traceparent)
    logs = tuple(
        _log(post_id, post, target, thread, when, now)
        for target, thread in zip(order.targets, threads, strict=True)
    )
    post = post.model_copy(
        update={
            "results": {log.id: posts.result(log) for log in logs},
            "cloud_task_names": tuple(log.wake().task_id for log in logs),
        }
    )
    warnings = _token_warnings(order, around, when)
    return Creation(post_id, post, logs, _response(post_id, post, logs, when, warnings))


def _media(order: Order, around: Surroundings, problems: list[Problem]) -> tuple[MediaItem, ...]:
    return resolve_media(order.media_asset_ids, around.assets, order.company_id, problems)


def resolve_media(
    asset_ids: Sequence[str],
    assets: Mapping[str, Any],
    company_id: str,
    problems: list[Problem],
    *,
    field: str = "mediaAssetIds",
) -> tuple[MediaItem, ...]:
    """Assets as they are now; what is missing or another company's is a problem."""
    items = []
    for index, asset_id in enumerate(asset_ids):
        asset = assets.get(asset_id)
        if asset is None or asset.company_id != company_id:
            sentence = f"There is no media asset {asset_id!r}. Register it first."
            problems.append(Problem(f"{field}[{index}]", "media_unknown", sentence))
        else:
            items.append(asset.item(asset_id))
    return tuple(items)


def resolve_thread(
    field: str,
    thread: Sequence[TargetPart],
    assets: Mapping[str, Any],
    company_id: str,
    problems: list[Problem],
) -> tuple[Part, ...]:
    """What follows in a thread, with its assets as they are now."""
    parts = []
    for index, one in enumerate(thread):
        shown = f"{field}.thread[{index}].mediaAssetIds"
        media = resolve_media(one.media_asset_ids, assets, company_id, problems, field=shown)
        parts.append(Part(content=one.content, media=media))
    return tuple(parts)


def target_problems(
    field: str, target: Target, account: SocialAccount | None, company_id: str, rt: Runtime
) -> list[Problem]:
    """What is wrong with where it should go."""
    if target.platform not in rt.platforms:
        known = ", ".join(sorted(rt.platforms))
        sentence = f"{target.platform!r} is not one of {known}."
        return [Problem(f"{field}.platform", "platform_unknown", sentence)]
    if account is None or account.company_id != company_id or account.platform != target.platform:
        sentence = f"There is no {target.platform} account {target.account_id!r}. Connect it first."
        return [Problem(f"{field}.accountId", "account_unknown", sentence)]
    if account.status is not AccountStatus.ACTIVE:
        sentence = f"The account {target.account_id!r} is {account.status}. Reconnect it first."
        return [Problem(f"{field}.accountId", f"account_{account.status}", sentence)]
    return []


def draft_problems(
    field: str,
    platform: str,
    parts: Sequence[Part],
    options: Mapping[str, Any],
    rt: Runtime,
    *,
    account: SocialAccount | None,
    out: int = 0,
) -> list[Problem]:
    """Every limit of platform or account that these posts and options would break; `out` of the
    parts are published and no matter any more. A first comment is one of the options."""
    if platform not in rt.platforms:
        return []
    known = rt.platforms[platform]
    if len(parts) > 1 and not known.threads:
        sentence = f"{known.label} takes no threads of posts here."
        return [Problem(f"{field}.thread", "thread_unsupported", sentence)]
    if out == len(parts):
        return [replace(x, field=f"{field}.{x.field}") for x in known.check_options(options)]
    problems = []
    for number, part in enumerate(parts[out:], start=out):
        draft = Draft(part.content, part.media, known.options_of(number, options))
        if account is not None:
            draft = replace(draft, platform_user_id=account.platform_user_id, limits=account.limits)
        for found in known.check(draft):
            of_options = found.field.startswith("options")
            if not number or (of_options and number == out):
                problems.append(Problem(f"{field}.{found.field}", found.code, found.message))
            elif not of_options:  # those are the same for all parts
                where = f"{field}.thread[{number - 1}].{found.field}"
                sentence = f"Part {number + 1}: {found.message}"
                problems.append(Problem(where, found.code, sentence))
    return problems


def log_problems(log: PublishLog, account: SocialAccount | None, rt: Runtime) -> list[Problem]:
    """What its platform would refuse of what a delivery still has to send."""
    return draft_problems(
        "delivery", log.platform, log.posts, log.options, rt, account=account, out=log.part
    )


def _post(
    order: Order, media: tuple[MediaItem, ...], when: Plan, now: datetime, traceparent: str
) -> ScheduledPost:
    return ScheduledPost(
        company_id=order.company_id,
        user_id=order.user_id,
        content=order.content,
        media_asset_ids=order.media_asset_ids,
        media=media,
        scheduled_at=when.due_at,
        timezone=order.timezone,
        latest_at=when.latest_at,
        platforms=order.targets,
        open=len(order.targets),
        idempotency_key=order.idempotency_key,
        traceparent=traceparent,
        created_at=now,
        updated_at=now,
    )


def _log(
    post_id: str,
    post: ScheduledPost,
    target: Target,
    thread: tuple[Part, ...],
    when: Plan,
    now: datetime,
) -> PublishLog:
    return PublishLog(
        post_id=post_id,
        company_id=post.company_id,
        platform=target.platform,
        account_id=target.account_id,
        content=target.custom_content or post.content,
        media=post.media,
        options=target.options,
        thread=thread,
        due_at=when.due_at,
        latest_at=when.latest_at,
        sweep_at=deliveries.sweep_at(max(when.due_at, now), when.latest_at),
        promote_at=when.promote_at(now),
        idempotency_key=keys.publish_key(post_id, target.platform, target.account_id),
        traceparent=post.traceparent,
        created_at=now,
        updated_at=now,
    )


def _token_warnings(order: Order, around: Surroundings, when: Plan) -> list[dict[str, str]]:
    warnings = [
        forecasts.token_warning(
            f"platforms[{index}].accountId",
            target.account_id,
            around.accounts[target.account_id],
            when.due_at,
        )
        for index, target in enumerate(order.targets)
    ]
    return [warning for warning in warnings if warning is not None]


def _with_cap_warnings(made: Creation, order: Order, around: Surroundings, rt: Runtime) -> Creation:
    """A count for each account whose daily cap is known; it is the only thing that costs more
    round trips than the read and the commit."""
    warnings = [
        forecasts.cap_warning(
            f"platforms[{index}].accountId",
            target,
            around.accounts[target.account_id],
            made.post.scheduled_at,
            rt,
        )
        for index, target in enumerate(order.targets)
    ]
    found = [warning for warning in warnings if warning is not None]
    if not found:
        return made
    told = {**made.response, "warnings": [*made.response["warnings"], *found]}
    return replace(made, response=told)


def _response(
    post_id: str,
    post: ScheduledPost,
    logs: tuple[PublishLog, ...],
    when: Plan,
    warnings: list[dict[str, str]],
) -> dict[str, Any]:
    return {
        "success": True,
        "postId": post_id,
        "status": str(post.status),
        "scheduledAt": when.due_at.isoformat(),
        "latestAt": when.latest_at.isoformat(),
        "timezone": post.timezone,
        "notes": list(when.notes),
        "warnings": warnings,
        "deliveries": [
            {
                "deliveryId": log.id,
                "platform": log.platform,
                "accountId": log.account_id,
                "taskName": log.wake().task_id,
            }
            for log in logs
        ],
    }


def _tell_scheduled(post_id: str, logs: Sequence[PublishLog], order: Order, rt: Runtime) -> None:
    rt.log.bind(trace_of(logs[0].traceparent)).event(
        "post.scheduled",
        postId=post_id,
        companyId=order.company_id,
        deliveries=len(logs),
        platforms=sorted({log.platform for log in logs}),
        dueAt=logs[0].due_at,
        promoted=sum(log.promote_at is not None for log in logs),
    )
