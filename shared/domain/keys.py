"""Every key, task id and document id. All are hashes of what they name, with unambiguous seams:
sequential ids slow Cloud Tasks and Firestore down, and ids of callers may hold any character."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any


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


def dead_letter_id(delivery: str, generation: int) -> str:
    return f"{delivery}-{generation}"


def malformed_letter_id(body: bytes) -> str:
    return "x" + hashlib.sha256(body).hexdigest()[:32]


def remote_id(platform: str, remote: str) -> str:
    return "r" + _hash(platform, remote)


def native_key(delivery: str, content: str, media_uris: Iterable[str], options: Any) -> str:
    """The key given to platforms that take one: the same while the content is the same.

    A UUID's form, which every such platform accepts.
    """
    digest = _hash(delivery, content, *media_uris, fingerprint(options))
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
