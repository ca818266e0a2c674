from __future__ import annotations

import pytest

from shared.domain.deliveries import Status
from shared.domain.posts import PostStatus, Result, derive, errors, sentence, summary

S = Status
OPEN = {S.PENDING, S.PROCESSING, S.RETRY, S.WAITING, S.ACCEPTED}


def result(status: Status, *, is_open: bool | None = None, said: str | None = None) -> Result:
    return Result(
        platform="twitter",
        account_id="a1",
        status=status,
        is_open=status in OPEN if is_open is None else is_open,
        error_message=said,
        error_code="code" if said is None and status is S.FAILED else None,
    )


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([S.PENDING, S.PENDING], PostStatus.PENDING),
        ([S.PENDING, S.PROCESSING], PostStatus.PROCESSING),
        ([S.PENDING, S.SUCCESS], PostStatus.PROCESSING),
        ([S.RETRY], PostStatus.PROCESSING),
        ([S.WAITING], PostStatus.PROCESSING),
        ([S.ACCEPTED, S.FAILED], PostStatus.PROCESSING),
        ([S.SUCCESS, S.SUCCESS], PostStatus.PUBLISHED),
        ([S.SUCCESS, S.FAILED], PostStatus.FAILED),
        ([S.SUCCESS, S.CANCELLED], PostStatus.FAILED),
        ([S.SUCCESS, S.PARTIAL], PostStatus.FAILED),
        ([S.CANCELLED, S.CANCELLED], PostStatus.CANCELLED),
        ([S.CANCELLED, S.MISSED], PostStatus.FAILED),
        ([S.UNKNOWN], PostStatus.FAILED),
        ([], PostStatus.FAILED),
    ],
)
def test_a_posts_status_follows_from_its_deliveries(
    statuses: list[Status], expected: PostStatus
) -> None:
    assert derive([result(status) for status in statuses]) is expected


def test_an_unknown_outcome_is_open_while_it_is_looked_into() -> None:
    assert derive([result(S.SUCCESS), result(S.UNKNOWN, is_open=True)]) is PostStatus.PROCESSING
    assert derive([result(S.SUCCESS), result(S.UNKNOWN, is_open=False)]) is PostStatus.FAILED


def test_what_a_person_reads() -> None:
    seen = [
        result(S.SUCCESS),
        result(S.CANCELLED),
        result(S.RETRY, said="not yet"),
        result(S.FAILED, said="No."),
        result(S.FAILED),
    ]

    assert sentence(seen) == "1 of 5 platforms published"
    assert summary(seen) == {"success": 1, "cancelled": 1, "retry": 1, "failed": 2}
    assert errors(seen) == "twitter: No.; twitter: code"
    assert errors([result(S.SUCCESS), result(S.CANCELLED)]) is None
