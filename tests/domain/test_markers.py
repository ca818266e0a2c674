from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from shared.domain import markers
from shared.domain.markers import Answered, Fresh, Keyed, Mismatch

NOW = datetime(2030, 1, 15, 12, tzinfo=UTC)
KEYED = Keyed("schedule_post", "acme", "key-1", "print-1")
ANSWER = {"success": True, "postId": "p1"}
DAY, TICK = timedelta(days=1), timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("fingerprint", "later", "expected"),
    [
        ("print-1", timedelta(0), Answered(ANSWER)),
        ("print-1", 30 * DAY - TICK, Answered(ANSWER)),
        ("print-1", 30 * DAY, Fresh()),  # the TTL may lag a day behind
        ("print-2", timedelta(0), Mismatch()),
        ("print-2", 30 * DAY - TICK, Mismatch()),
        ("print-2", 30 * DAY, Fresh()),
    ],
)
def test_a_key_is_answered_for_thirty_days(
    fingerprint: str, later: timedelta, expected: Fresh | Answered | Mismatch
) -> None:
    marker = markers.completed(KEYED, ANSWER, NOW)

    assert markers.look(marker, fingerprint, NOW + later) == expected


def test_a_key_never_seen_is_fresh() -> None:
    assert markers.look(None, "print-1", NOW) == Fresh()
