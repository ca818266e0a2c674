"""Log lines: one JSON object per outcome, in Cloud Logging's format.

`event` names are an interface: metrics and alerts filter by them. `EVENTS` lists them all; lines
carry names, ids and counts, never a post's text and never a credential.
"""

from __future__ import annotations

import json
import secrets
import sys
import traceback
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any

EVENTS = frozenset(
    {
        "account.connected",
        "account.disconnected",
        "account.expired",
        "account.refresh_failed",
        "account.refresh_refused",
        "account.refreshed",
        "aggregate.done",
        "alert.failed",
        "alert.retried",
        "alert.sent",
        "bulk.accepted",
        "bulk.cancelled",
        "bulk.completed",
        "bulk.failed",
        "bulk.handed_over",
        "bulk.paused",
        "bulk.revived",
        "delivery.cannot_start",
        "delivery.dead_lettered",
        "delivery.unknown",
        "job.done",
        "job.failed",
        "media.registered",
        "operator.acted",
        "post.changed",
        "post.scheduled",
        "promote.done",
        "publish.begun",
        "publish.moved",
        "publish.settled",
        "publish.unrecorded",
        "publish.void",
        "refresh.done",
        "request.failed",
        "request.refused",
        "request.served",
        "retention.done",
        "schedule.slot_missed",
        "sweep.done",
        "sweep.woke",
        "sync.collected",
        "sync.completed",
        "sync.planned",
        "sync.waiting",
        "task.create_failed",
        "task.delete_failed",
        "task.malformed",
    }
)


@dataclass(frozen=True, slots=True)
class Trace:
    """A W3C trace context: 32 hex digits of trace, 16 of span."""

    trace_id: str
    span_id: str
    sampled: bool = True

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    def child(self) -> Trace:
        return Trace(self.trace_id, secrets.token_hex(8), self.sampled)


def parse_traceparent(text: str | None) -> Trace | None:
    """None for anything that is not a valid traceparent."""
    parts = (text or "").strip().lower().split("-")
    if len(parts) < 4 or [len(part) for part in parts[:4]] != [2, 32, 16, 2]:
        return None
    try:
        version, trace, span, flags = (int(part, 16) for part in parts[:4])
    except ValueError:
        return None
    if version == 0xFF or not trace or not span:
        return None
    return Trace(parts[1], parts[2], bool(flags & 1))


def trace_of(traceparent: str | None, cloud_trace: str | None = None) -> Trace:
    """The caller's trace (`traceparent` first, else `X-Cloud-Trace-Context`), or a new one."""
    known = parse_traceparent(traceparent)
    if known is not None:
        return known
    trace_id, _, rest = (cloud_trace or "").partition("/")
    span, _, options = rest.partition(";")
    if len(trace_id) == 32 and span.isdigit():
        return Trace(trace_id.lower(), f"{int(span) % 2**64:016x}", "o=1" in options)
    return Trace(secrets.token_hex(16), secrets.token_hex(8))


# The request's own trace, for every line that is not about another one.
current_trace: ContextVar[Trace | None] = ContextVar("current_trace", default=None)


class Log:
    """Writes lines for one project, each with the request's trace; `bind` gives it another one."""

    def __init__(self, project: str, trace: Trace | None = None) -> None:
        self._project = project
        self._trace = trace

    def bind(self, trace: Trace | None) -> Log:
        return Log(self._project, trace)

    def event(
        self, event: str, message: str = "", *, severity: str = "INFO", **fields: Any
    ) -> None:
        """One line. `event` must be one of `EVENTS`."""
        if event not in EVENTS:
            raise ValueError(f"{event!r} is not in EVENTS")
        line: dict[str, Any] = {
            "severity": severity,
            "event": event,
            "message": message or event,
            **{name: _plain(value) for name, value in fields.items() if value is not None},
        }
        trace = self._trace or current_trace.get()
        if trace is not None:
            name = f"projects/{self._project}/traces/{trace.trace_id}"
            line["logging.googleapis.com/trace"] = name
            line["logging.googleapis.com/spanId"] = trace.span_id
            line["logging.googleapis.com/trace_sampled"] = trace.sampled
        sys.stdout.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
        sys.stdout.flush()

    def bug(self, error: BaseException, **fields: Any) -> None:
        """An error of ours, in the form that Error Reporting groups."""
        stack = "".join(traceback.format_exception(error))
        name = type(error).__name__
        self.event("request.failed", name, severity="ERROR", stack_trace=stack, **fields)


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
