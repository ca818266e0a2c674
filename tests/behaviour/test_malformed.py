"""Whatever arrives: a 4xx that names the field from the backend, one dead letter from the queue."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import httpx
import pytest

from tests.world import World

HOUR = timedelta(hours=1)
DEEP = "[" * 100_000
INTERNALS = ("Traceback", "/shared/", "site-packages", "File \\", "google.api_core", "pydantic")


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        pytest.param(b"x" * 2_000_000, 413, "too_large", id="2 MB"),
        pytest.param(b"{", 400, "not_json", id="half a body"),
        pytest.param(b"\xff\xfe", 400, "not_json", id="not text"),
        pytest.param(b"[]", 400, "not_an_object", id="a list"),
        pytest.param(b"null", 400, "not_an_object", id="null"),
        pytest.param(DEEP.encode(), 400, "not_json", id="deep"),
        pytest.param(b'{"limit": ' + b"9" * 5000 + b"}", 400, "not_json", id="a number too long"),
    ],
)
def test_a_body_that_is_none_is_refused(world: World, raw: bytes, status: int, code: str) -> None:
    answer = send(world, "schedule_post", "/schedule", raw)

    assert_problem(answer, status)
    assert answer.json()["code"] == code
    assert [error["field"] for error in answer.json()["errors"]] == ["body"]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"deeper": value}
    return value


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"\ud800": "red"}, "body"),
        ({"companyId": 5}, "companyId"),
        ({"companyId": "a/b"}, "companyId"),
        ({"content": None}, "content"),
        ({"content": "half a pair \ud800"}, "content"),
        ({"content": "a\u0000b"}, "content"),
        ({"idempotencyKey": ""}, "idempotencyKey"),
        ({"idempotencyKey": "\udfff"}, "idempotencyKey"),
        ({"mediaAssetIds": ["\ud800"]}, "mediaAssetIds.0"),
        ({"mediaAssetIds": [".."]}, "mediaAssetIds.0"),
        ({"mediaAssetIds": "asset-1"}, "mediaAssetIds"),
        ({"scheduledAt": "tomorrow"}, "scheduledAt"),
        ({"scheduledAt": 10**30}, "scheduledAt"),
        ({"scheduledAt": "0001-01-01T00:00:00+14:00"}, "scheduledAt"),
        ({"scheduledAt": "2030-01-01T00:00:00"}, "scheduledAt"),
        ({"latestAt": "9999-12-31T23:59:59-14:00"}, "latestAt"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"timezone": "\ud800"}, "timezone"),
        ({"timezone": "../../etc/passwd"}, "timezone"),
        ({"platforms": []}, "platforms"),
        ({"platforms": [{"platform": "twitter"}]}, "platforms.0.accountId"),
        ({"platforms": [{"platform": "x" * 300, "accountId": "a"}]}, "platforms.0.platform"),
        (
            {"platforms": [{"platform": "twitter", "accountId": "__a__"}]},
            "platforms.0.accountId",
        ),
        ({"platforms": [{"platform": "friendster", "accountId": "a"}]}, "platforms[0].platform"),
        (
            {"platforms": [{"platform": "twitter", "accountId": "a", "options": nested(300)}]},
            "platforms.0.options",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_field_that_is_wrong_is_named(world: World, wrong: dict[str, Any], field: str) -> None:
    order = world.order([], platforms=[{"platform": "twitter", "accountId": "nobody"}]) | wrong

    answer = send(world, "schedule_post", "/schedule", json.dumps(order).encode())

    assert_problem(answer, 422 if answer.status_code == 422 else 400)
    errors = answer.json()["errors"]
    assert field in [error["field"] for error in errors]
    assert "too_short" not in [error["code"] for error in errors] or wrong == {"platforms": []}
    assert world.stack.records("scheduledPosts") == {}
    assert world.stack.records("idempotencyMarkers") == {}


@pytest.mark.parametrize(
    "options", [{"replySettings": "\ud800"}, {"\ud800": 1}, {"madeWithAi": nested(50)}]
)
def test_options_that_no_record_could_hold_are_named(world: World, options: dict[str, Any]) -> None:
    twitter = world.account("twitter")
    order = world.order([], platforms=[twitter.target | {"options": options}])

    answer = send(world, "schedule_post", "/schedule", json.dumps(order).encode())

    assert_problem(answer, 422 if answer.status_code == 422 else 400)
    assert all("options" in error["field"] for error in answer.json()["errors"])
    assert world.stack.records("scheduledPosts") == {}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/media", {"sizeBytes": 10**30}, "sizeBytes"),
        ("/media", {"width": 2**63}, "width"),
        ("/media", {"sizeBytes": -1}, "sizeBytes"),
        ("/accounts/connect", {"expiresAt": "9999-12-31T23:59:59-14:00"}, "expiresAt"),
        ("/accounts/connect", {"handle": "\ud800"}, "handle"),
        ("/cancel", {"postId": ".."}, "postId"),
        ("/retry", {"acceptDuplicateRisk": True}, "body"),
        ("/edit", {}, "body"),
    ],
)
def test_a_wrong_field_is_named_on_every_route(
    world: World, path: str, body: dict[str, Any], field: str
) -> None:
    whole: dict[str, dict[str, Any]] = {
        "/media": {"mediaAssetId": "m1", "uri": "gs://b/o", "contentType": "image/jpeg"},
        "/accounts/connect": {
            "accountId": "a1",
            "platform": "twitter",
            "platformUserId": "1",
            "accessToken": "secret-token",
        },
        "/cancel": {},
        "/retry": {"postId": "p1", "platform": "twitter", "accountId": "a1"},
        "/edit": {"postId": "p1"},
    }
    sent = {"companyId": "acme", **whole[path], **body}

    answer = send(world, "schedule_post", path, json.dumps(sent).encode())

    assert_problem(answer, 400)
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert "secret-token" not in answer.text


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"{", id="half a body"),
        pytest.param(b"\xff\xfe", id="not text"),
        pytest.param(b"x" * 2_000_000, id="2 MB"),
        pytest.param(DEEP.encode(), id="deep"),
        pytest.param(b'{"\\ud800": 1}', id="half a pair"),
        pytest.param(b'{"scheduledPostId": "p1"}', id="fields missing"),
        pytest.param(b'{"postId": "p-no-such", "idempotencyKey": "k"}', id="no such post"),
        pytest.param(
            b'{"scheduledPostId": "p1", "platform": "friendster", "accountId": "a",'
            b' "idempotencyKey": "k"}',
            id="no such platform",
        ),
        pytest.param(
            b'{"scheduledPostId": "p1", "platform": "twitter", "accountId": "a",'
            b' "idempotencyKey": "k\\u0000"}',
            id="no such delivery",
        ),
    ],
)
def test_a_task_that_nobody_can_read_is_one_dead_letter_and_200(world: World, raw: bytes) -> None:
    answers = [send(world, "publish_post", "/", raw, role="tasks") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["success"] is False
    assert_no_internals(answers[0])
    [(letter_id, letter)] = world.stack.records("deadLetters").items()
    assert {answer.json()["deadLetter"] for answer in answers} == {letter_id}
    assert (letter["reason"], letter["status"]) == ("malformed_task", "open")


def test_a_task_that_can_never_be_granted_is_one_dead_letter_and_200(world: World) -> None:
    data = {"uri": "gs://elsewhere/rows.csv", "userId": "user-1"}
    body = {"type": "BULK_IMPORT", "companyId": "acme", "idempotencyKey": "k", "data": data}
    raw = json.dumps(body).encode()

    answers = [send(world, "bulk", "/", raw, role="tasks") for _ in range(2)]
    from_backend = send(world, "bulk", "/", raw)

    assert [answer.status_code for answer in answers] == [200, 200]
    [(letter_id, letter)] = world.stack.records("deadLetters").items()
    assert {answer.json()["deadLetter"] for answer in answers} == {letter_id}
    [error] = letter["evidence"]["errors"]
    assert error.startswith("data.uri: Only objects of gs://")
    assert_problem(from_backend, 422)


def test_a_task_whose_key_was_used_for_something_else_is_a_dead_letter(world: World) -> None:
    first = b'{"type": "SYNC_ANALYTICS", "idempotencyKey": "k"}'
    other = b'{"type": "SYNC_ANALYTICS", "idempotencyKey": "k", "force": true}'

    send(world, "sync_analytics", "/", first, role="tasks")
    answer = send(world, "sync_analytics", "/", other, role="tasks")

    assert answer.status_code == 200
    assert "was used for another request" in answer.json()["message"]
    assert len(world.letters(reason="malformed_task")) == 1


def test_the_same_body_from_the_backend_is_a_refusal_and_no_dead_letter(world: World) -> None:
    answer = send(world, "publish_post", "/", b'{"scheduledPostId": "p1"}', role="backend")

    assert_problem(answer, 400)
    assert {error["field"] for error in answer.json()["errors"]} == {
        "platform",
        "accountId",
        "idempotencyKey",
    }
    assert world.letters() == []


@pytest.mark.parametrize("path", ["/cancel", "/edit", "/reschedule", "/retry"])
def test_an_unknown_post_is_not_found(world: World, path: str) -> None:
    account = world.account("twitter")
    more: dict[str, dict[str, Any]] = {
        "/cancel": {},
        "/edit": {"content": "New"},
        "/reschedule": {"scheduledAt": (world.stack.clock.now() + HOUR).isoformat()},
        "/retry": account.target,
    }

    answer = world.command(path, "p-no-such", **more[path])

    assert_problem(answer, 404)


def test_a_wrong_method_and_an_unknown_path_are_said_so(world: World) -> None:
    url = world.stack.fronts["schedule_post"].url
    headers = world.stack.headers("schedule_post")

    wrong = [
        httpx.request(method, url + path, headers=headers)
        for method, path in (("GET", "/schedule"), ("PUT", "/cancel"), ("POST", "/status"))
    ]
    unknown = httpx.post(url + "/no/such/path", headers=headers, json={})

    assert [answer.status_code for answer in wrong] == [405, 405, 405]
    assert [answer.headers["Allow"] for answer in wrong] == ["POST", "POST", "GET"]
    assert_problem(unknown, 404)


def send(
    world: World, function: str, path: str, raw: bytes, *, role: str = "backend"
) -> httpx.Response:
    """A body as it is, however wrong."""
    stack = world.stack
    headers = stack.headers(function, role) | {"Content-Type": "application/json"}
    return httpx.post(stack.fronts[function].url + path, content=raw, headers=headers, timeout=30)


def assert_problem(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["success"]) == (status, False)
    assert body["title"]
    assert body["detail"]
    assert_no_internals(answer)


def assert_no_internals(answer: httpx.Response) -> None:
    assert [word for word in INTERNALS if word in answer.text] == []
