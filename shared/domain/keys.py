"""Every key, task id and document id. All are hashes of what they name, with unambiguous seams:
sequential ids slow Cloud Tasks and Firestore down, and ids of callers may hold any character."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

_RESERVED = re.compile(r"\.{1,2}|__.*__", re.DOTALL)
_DOCUMENT_ID_BYTES = 1500
ANALYTICS_QUEUE = "analytics"


def is_document_id(text: str) -> bool:
    """Whether Firestore takes it as a document's id: it has its own rules for what callers name."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return False
    plain = "/" not in text and not _RESERVED.fullmatch(text)
    return plain and 0 < size <= _DOCUMENT_ID_BYTES


def _hash(*parts: str, length: int = 32) -> str:
    joined = json.dumps(parts, ensure_ascii=False)
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def delivery_id(post_id: str, platform: str, account_id: str) -> str:
    """One post to one account, for ever: the id of its PublishLog."""
    return "d" + _hash(post_id, platform, account_id)


def task_id(delivery: str, generation: int, hop: int) -> str:
    """The Cloud Task that wakes a delivery: one name per hop, so that creating twice is once."""
    return "t" + _hash(delivery, str(generation), str(hop))


def marker_id(job_type: str, company_id: str, key: str) -> str:
    return "m" + _hash(job_type, company_id, key)


def sync_part_id(account_id: str) -> str:
    """One account's part of a sync."""
    return "p" + _hash(account_id)


def sync_task_id(sync_id: str, part: str, hop: int) -> str:
    """The task that goes on with one part of a sync: one name per hop, as a delivery's."""
    return "s" + _hash(sync_id, part, str(hop))


def bulk_task_id(job_id: str, chunk: int) -> str:
    """The task that does one chunk of an import or export."""
    return "b" + _hash(job_id, str(chunk))


def is_post_id(text: str) -> bool:
    """Whether it looks like one of ours."""
    return re.fullmatch(r"p[0-9a-f]{32}", text) is not None


def row_post_id(company_id: str, row_key: str) -> str:
    """The post that a row of a file means, for ever: importing it again finds it."""
    return "p" + _hash("row", company_id, row_key)


def metrics_due_key(post_id: str, at: datetime) -> str:
    """The content sync that a publication asks for: one for all that a post does in an hour."""
    return f"published-{post_id}-{at.astimezone(UTC).strftime('%Y-%m-%dT%HZ')}"


def snapshot_id(fetched_at: datetime) -> str:
    return fetched_at.strftime("%Y%m%dT%H%M%S%fZ")


def daily_id(company_id: str, account_id: str, day: str) -> str:
    """One account's day of engagement."""
    return "y" + _hash(company_id, account_id, day)


def dead_letter_id(delivery: str, generation: int) -> str:
    return f"{delivery}-{generation}"


def malformed_letter_id(body: bytes) -> str:
    return "x" + hashlib.sha256(body).hexdigest()[:32]


def remote_id(platform: str, remote: str) -> str:
    return "r" + _hash(platform, remote)


def native_key(
    delivery: str, content: str, media_uris: Iterable[str], options: Any, part: int = 0
) -> str:
    """The key given to platforms that take one: the same while the content is the same. Parts of a
    thread differ, be their words the same.

    A UUID's form, which every such platform accepts.
    """
    place = [str(part)] if part else []
    digest = _hash(delivery, content, *media_uris, fingerprint(options), *place)
    return "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:]))


def publish_key(post_id: str, platform: str, account_id: str) -> str:
    """The idempotency key of a publish task that we make ourselves."""
    return f"publish-{post_id}-{platform}-{account_id}"


def fingerprint(payload: Mapping[str, Any] | Any) -> str:
    """Equal for equal payloads, whatever the order of their fields."""
    canonical = json.dumps(payload, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def queue(platform: str) -> str:
    """The publish queue of a platform, as `terraform/topology.json` names it."""
    return f"publish-{platform}"


def pause_id(scope: str, name: str) -> str:
    """A pause among the others in its document."""
    return "h" + _hash(scope, name)


def job_id(job_type: str, key: str) -> str:
    """A job that a person queued."""
    return "j" + _hash(job_type, key)


def job_task_id(job: str, hop: int) -> str:
    return "t" + _hash(job, str(hop))


def alert_task_id(about: str, attempt: int) -> str:
    """The task that tells somebody of a dead letter or an unknown delivery: one per attempt."""
    return "a" + _hash(about, str(attempt))
