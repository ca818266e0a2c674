"""Tell somebody that a delivery has failed for good, or that nobody knows what became of it.

A task of its own, made after the commit, posts to `ALERT_WEBHOOK_URL`: publishing never waits for
it. Any 2xx is taken for heard; all else is tried again by successor tasks, for three hours. One
alert per dead letter (or unknown delivery and generation); a receiver that answers too late may see
it twice, with the same id. It says what happened to which delivery, never what the post says:

    X-TendSocial-Event      dead_letter or unknown
    X-TendSocial-Id         the dead letter's id, or the delivery's with its generation
    X-TendSocial-Timestamp  seconds since 1970; refuse what is older than 5 minutes
    X-TendSocial-Signature  sha256=<hex of HMAC-SHA256 under ALERT_WEBHOOK_SECRET over
                            timestamp, a full stop, and the body's bytes>
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from shared.domain.deliveries import PublishLog, Status
from shared.domain.failures import UnavailableError
from shared.jobs.publish import tell_failed
from shared.runtime import Runtime
from shared.store.firestore import fresh_id

SEND_SECONDS = 10.0
ATTEMPTS = 12
FIRST_WAIT = timedelta(seconds=10)
LONGEST_WAIT = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Alert:
    event: str
    body: dict[str, Any]


def run(about: str, attempt: int, rt: Runtime, traceparent: str) -> dict[str, Any] | None:
    """Send one alert; None when somebody else is doing so right now."""
    owner = fresh_id()
    claimed = rt.store.alerts.claim(about, owner)
    if claimed is None:
        return None
    if not claimed:
        return {"success": True, "alreadyProcessed": True}
    alert = _alert(about, rt)
    if alert is None:
        rt.store.alerts.settle(about, owner, state="completed")
        return {"success": True, "void": True, "message": "It has been settled since."}
    failure = _send(about, alert, rt)
    line: dict[str, Any] = {"deadLetterId": about, "attempt": attempt}
    if failure is None:
        rt.store.alerts.settle(about, owner, state="completed")
        rt.log.event("alert.sent", **line)
        return {"success": True}
    if attempt >= ATTEMPTS:
        rt.store.alerts.settle(about, owner, state="failed")
        rt.log.event("alert.failed", failure, severity="ERROR", **line)
        return {"success": False, "message": failure}
    rt.store.alerts.settle(about, owner, state="started")
    at = rt.now() + min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1))
    failures = rt.queue.announce(about, attempt=attempt + 1, at=at, traceparent=traceparent)
    tell_failed(failures, rt)
    rt.log.event("alert.retried", failure, severity="WARNING", **line)
    return {"success": False, "message": failure, "nextRetryAt": at.isoformat()}


def _alert(about: str, rt: Runtime) -> Alert | None:
    """What there is to tell; None when it has been settled meanwhile."""
    letter = rt.store.dead_letters.read(about)
    if letter is not None:
        attempts = letter.evidence.get("attempts") or ()
        return Alert(
            "dead_letter",
            {
                "event": "dead_letter",
                "id": about,
                "at": letter.created_at.isoformat(),
                "reason": letter.reason,
                "message": letter.message,
                "status": letter.evidence.get("status"),
                "attempts": len(attempts),
                "deliveryId": letter.delivery_id,
                "generation": letter.generation,
                "postId": letter.post_id,
                "companyId": letter.company_id,
                "platform": letter.platform,
                "accountId": letter.account_id,
            },
        )
    delivery, _, generation = about.rpartition("-")
    log = rt.store.deliveries.read(delivery) if delivery else None
    if log is None or log.status is not Status.UNKNOWN or str(log.generation) != generation:
        return None
    return Alert("unknown", _unknown(about, log))


def _unknown(about: str, log: PublishLog) -> dict[str, Any]:
    return {
        "event": "unknown",
        "id": about,
        "at": log.updated_at.isoformat(),
        "reason": log.error_code,
        "message": log.error_message,
        "status": str(log.status),
        "attempts": log.attempts_spent,
        "deliveryId": log.id,
        "generation": log.generation,
        "postId": log.post_id,
        "companyId": log.company_id,
        "platform": log.platform,
        "accountId": log.account_id,
    }


def _send(about: str, alert: Alert, rt: Runtime) -> str | None:
    """None when it was heard, else why not."""
    from shared.platforms.wire import FAILURES, Client, Wire

    settings = rt.environment.settings
    if not settings.alert_webhook_url or not settings.alert_webhook_secret:
        message = "ALERT_WEBHOOK_URL and ALERT_WEBHOOK_SECRET are needed together."
        raise UnavailableError(message, code="settings")
    body = json.dumps(alert.body, ensure_ascii=False, sort_keys=True).encode()
    timestamp = str(int(rt.now().timestamp()))
    headers = {
        "Content-Type": "application/json",
        "X-TendSocial-Event": alert.event,
        "X-TendSocial-Id": about,
        "X-TendSocial-Timestamp": timestamp,
        "X-TendSocial-Signature": signature(settings.alert_webhook_secret, timestamp, body),
    }
    wire = Wire(time.monotonic() + SEND_SECONDS)
    try:
        reply = Client(keep_alive=False).send(
            wire, "POST", settings.alert_webhook_url, headers=headers, content=body
        )
    except FAILURES as error:
        return f"The alert's receiver gave no answer: {type(error).__name__}."
    if 200 <= reply.status_code < 300:
        return None
    return f"The alert's receiver answered {reply.status_code}."


def signature(secret: str, timestamp: str, body: bytes) -> str:
    signed = timestamp.encode() + b"." + body
    return "sha256=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
