"""Where a page ended, as a text that its reader hands back."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime

from shared.domain import keys
from shared.domain.failures import Problem, RefusedError

Place = tuple[datetime, str]


def encode(at: datetime, last: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([at.isoformat(), last]).encode()).decode()


def decode(cursor: str | None) -> Place | None:
    """Raises `RefusedError` for a text that is none of ours."""
    if cursor is None:
        return None
    try:
        at, last = json.loads(base64.urlsafe_b64decode(cursor))
        parsed = datetime.fromisoformat(at)
        if parsed.tzinfo is None or not keys.is_document_id(last):
            raise ValueError("not ours")
        return parsed.astimezone(UTC), last
    except (ValueError, TypeError, AttributeError, OverflowError, binascii.Error):
        sentence = "cursor is not one that this route gave. Start again without it."
        raise RefusedError([Problem("cursor", "cursor_invalid", sentence)]) from None
