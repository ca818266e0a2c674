"""The platform server's own manners, where no adapter's test meets them."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx
import pytest

from tests.platforms.stage import Stage

USER = "2244994945"


@pytest.fixture
def x(stage: Stage) -> Stage:
    stage.server.add_account("twitter", USER, "token")
    return stage


def post(stage: Stage, text: str = "Bread", **fields: Any) -> httpx.Response:
    headers = {"Authorization": "Bearer token"}
    with httpx.Client(trust_env=False, verify=False, timeout=30) as client:
        url = f"{stage.server.url}/twitter/2/tweets"
        return client.post(url, headers=headers, json={"text": text, **fields})


@pytest.mark.parametrize(("after", "made"), [(False, 0), (True, 2)])
def test_held_requests_stand_still_until_they_are_released(
    x: Stage, after: bool, made: int
) -> None:
    hold = x.server.misbehave("twitter", "create post", "hold", times=2, after=after)
    callers = [threading.Thread(target=post, args=(x, text)) for text in ("One", "Two")]
    for caller in callers:
        caller.start()
    hold.wait_until_held()
    hold.wait_until_held()

    seen = len(x.server.posts("twitter"))
    hold.release()
    for caller in callers:
        caller.join()

    assert seen == made
    assert len(x.server.posts("twitter")) == 2


def test_a_hook_sees_what_was_accepted_before_the_caller_does(x: Stage) -> None:
    seen: list[int] = []
    x.server.misbehave(
        "twitter", "create post", "hook", hook=lambda *_: seen.append(len(x.server.posts()))
    )

    assert post(x).status_code == 201
    assert seen == [1]


def test_a_slow_answer_comes_late(x: Stage) -> None:
    x.server.misbehave("twitter", "create post", "slow", seconds=0.2)
    began = time.monotonic()

    assert post(x).status_code == 201
    assert time.monotonic() - began >= 0.2


def test_a_fault_hits_only_what_it_is_meant_for(x: Stage) -> None:
    fault = x.server.misbehave(
        "twitter", "create post", "error_before", when=lambda got: b"Two" in got.body
    )

    assert [post(x, text).status_code for text in ("One", "Two", "Two")] == [201, 500, 201]
    assert fault.hits == 1


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"colour": "red"}, 400),
        ({"reply_settings": "everyone"}, 400),
        ({"media": {"media_ids": ["1"]}}, 400),
        ({"text": "日" * 141}, 403),
        ({"text": "日" * 140}, 201),
        ({"text": ""}, 400),
    ],
)
def test_what_the_platform_would_refuse_is_refused(
    x: Stage, fields: dict[str, Any], status: int
) -> None:
    assert post(x, **fields).status_code == status
    assert len(x.server.posts()) == (status == 201)


def test_a_reset_forgets_posts_accounts_and_faults(x: Stage) -> None:
    post(x)
    x.server.misbehave("twitter", "*", "error_before", times=None)

    x.server.reset()

    assert (x.server.posts(), x.server.requests) == ([], [])
    assert post(x).status_code == 401
