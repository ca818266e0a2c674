"""What became of a post, delivery by delivery, and a company's posts page by page."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.world import World

HOUR = timedelta(hours=1)


def test_a_published_delivery_shows_where_it_is_and_its_attempt(world: World) -> None:
    linkedin = world.account("linkedin")
    post_id = world.schedule(linkedin, after=HOUR)
    world.stack.turn(HOUR)

    shown = world.delivery(post_id, linkedin)

    [post] = world.stack.platforms.posts("linkedin")
    assert shown["status"] == "success"
    assert shown["remoteId"] == post.id
    assert shown["remoteUrl"] == f"https://www.linkedin.com/feed/update/{post.id}/"
    assert abs(datetime.fromisoformat(shown["publishedAt"]) - post.at) < timedelta(seconds=5)
    [attempt] = shown["attempts"]
    assert (attempt["number"], attempt["outcome"], attempt["code"]) == (1, "success", None)
    assert shown["nextRetryAt"] is None


def test_a_failing_delivery_shows_each_attempt_and_when_the_next_one_is(world: World) -> None:
    twitter, linkedin = world.account("twitter"), world.account("linkedin")
    world.stack.platforms.misbehave("twitter", "upload", "error_before", status=503)
    post_id = world.schedule(twitter, linkedin, mediaAssetIds=[world.image()], after=HOUR)
    world.stack.tasks.faults.refuse("CreateTask", times=None)  # it stays as it is
    world.stack.turn(HOUR)

    status, shown = world.status(post_id), world.delivery(post_id, twitter)

    assert (status["status"], status["message"]) == ("processing", "1 of 2 platforms published")
    assert status["summary"] == {"retry": 1, "success": 1}
    [attempt] = shown["attempts"]
    assert (attempt["outcome"], attempt["httpStatus"]) == ("transient", 503)
    failed_at = datetime.fromisoformat(attempt["endedAt"])
    wait = datetime.fromisoformat(shown["nextRetryAt"]) - failed_at
    assert timedelta(seconds=2.5) <= wait <= timedelta(seconds=5)


def test_an_unknown_outcome_shows_its_evidence(world: World) -> None:
    account = world.account("linkedin")
    world.stack.platforms.misbehave("linkedin", "create post", "drop_after")
    post_id = world.schedule(account)
    world.stack.settle()

    shown = world.delivery(post_id, account)

    assert shown["status"] == "unknown"
    assert shown["errorCode"] == "no_answer"
    evidence = shown["evidence"]
    assert evidence["unsettledSince"] == evidence["committing"]["at"]
    assert len(evidence["committing"]["requestHash"]) == 64
    assert world.status(post_id)["errorMessage"].startswith("linkedin: create post")


def test_another_companys_post_and_one_that_never_was_are_not_found(world: World) -> None:
    post_id = world.schedule(world.account("twitter"), after=HOUR)

    theirs = world.stack.get("schedule_post", "/status", companyId="umbrella", postId=post_id)
    nobodys = world.stack.get("schedule_post", "/status", companyId="acme", postId="p-no-such")

    assert (theirs.status_code, nobodys.status_code) == (404, 404)
    assert theirs.json()["code"] == "not_found"


def test_a_companys_posts_come_page_by_page_none_lost_none_doubled(world: World) -> None:
    twitter = world.account("twitter")
    due = world.stack.clock.now() + HOUR
    at = [due, due, due, due + HOUR, due + 2 * HOUR]  # three of the same instant
    wanted = [world.schedule(twitter, after=instant) for instant in at]
    world.schedule(world.account("twitter", companyId="umbrella"), companyId="umbrella", after=HOUR)

    pages, cursor = [], None
    while True:
        answer = listed(world, limit=2, **({"cursor": cursor} if cursor else {})).json()
        pages.append([post["postId"] for post in answer["posts"]])
        cursor = answer["nextCursor"]
        if cursor is None:
            break

    assert [len(page) for page in pages] == [2, 2, 1]
    seen = [post_id for page in pages for post_id in page]
    assert sorted(seen) == sorted(wanted)
    assert seen[3:] == wanted[3:]


def test_a_companys_posts_can_be_asked_for_by_status_and_time(world: World) -> None:
    twitter = world.account("twitter")
    now = world.stack.clock.now()
    published = world.schedule(twitter)
    world.stack.settle()
    soon = world.schedule(twitter, after=now + HOUR)
    later = world.schedule(twitter, after=now + 3 * HOUR)

    by_status = listed(world, status="pending").json()["posts"]
    by_time = listed(world, since=now.isoformat(), until=(now + 2 * HOUR).isoformat())
    both = listed(world, status="pending", since=(now + 2 * HOUR).isoformat())

    assert [post["postId"] for post in by_status] == [soon, later]
    assert [post["postId"] for post in by_time.json()["posts"]] == [published, soon]
    assert [post["postId"] for post in both.json()["posts"]] == [later]
    assert by_time.json()["posts"][0]["status"] == "published"


def _cursor(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "nonsense",
        "é",
        _cursor(5),
        _cursor(["2030-01-01T00:00:00", "p1"]),
        _cursor(["2030-01-01T00:00:00+00:00", "a/b"]),
        _cursor(["2030-01-01T00:00:00+00:00", ""]),
        _cursor(["2030-01-01T00:00:00+00:00", "__p__"]),
        _cursor(["0001-01-01T00:00:00+14:00", "p1"]),
    ],
)
def test_a_cursor_that_we_never_gave_is_refused(world: World, cursor: str) -> None:
    answer = listed(world, cursor=cursor)

    assert answer.status_code == 422
    assert [(e["field"], e["code"]) for e in answer.json()["errors"]] == [
        ("cursor", "cursor_invalid")
    ]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 201}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"status": "lost"}, "status"),
        ({"since": "yesterday"}, "since"),
        ({"since": "2030-01-01T00:00:00"}, "since"),
        ({"since": "0001-01-01T00:00:00+14:00"}, "since"),
        ({"until": "9999-12-31T23:59:59-14:00"}, "until"),
        ({"color": "red"}, "color"),
    ],
)
def test_a_question_that_makes_no_sense_is_named(
    world: World, query: dict[str, Any], field: str
) -> None:
    answer = listed(world, **query)

    assert answer.status_code in (400, 422)
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def listed(world: World, **query: Any) -> httpx.Response:
    return world.stack.get("schedule_post", "/posts", companyId="acme", **query)
