"""Nobody gets in: each route admits the callers it names, and what is refused is not done."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from shared.security.callers import Callers, UnauthenticatedError
from tests.sandbox.children import free_port
from tests.sandbox.functions import FunctionProcess, build
from tests.sandbox.identity import SIGNATURE_REMOVED, Issuer, remove_signature
from tests.sandbox.stack import Stack
from tests.world import World

HOUR = timedelta(hours=1)
OLD_SECRET = "the-secret-before-the-rotation-0123456789"


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        pytest.param({"expires_in": -HOUR}, 401, id="expired"),
        pytest.param({"issued_at": datetime(2100, 1, 1, tzinfo=UTC)}, 401, id="of the future"),
        pytest.param({"issuer": "https://evil.example"}, 401, id="another issuer"),
        pytest.param({"aud": "https://another.example"}, 401, id="another audience"),
        pytest.param({"aud": None}, 401, id="no audience"),
        pytest.param({"forged": True}, 401, id="forged"),
        pytest.param({"email_verified": False}, 403, id="unverified"),
    ],
)
def test_a_token_that_does_not_hold_is_refused(
    world: World, wrong: dict[str, Any], status: int
) -> None:
    token = world.stack.token("schedule_post", "backend", **wrong)

    answer = schedule(world, Authorization=f"Bearer {token}")

    assert_refused(world, answer, status)


def test_a_service_account_that_nobody_named_is_refused(world: World) -> None:
    url = world.stack.fronts["schedule_post"].url
    token = world.stack.issuer.token("stranger@evil.example", url)

    answer = schedule(world, Authorization=f"Bearer {token}")

    assert_refused(world, answer, 403)


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer nonsense", "Bearer a.b.c", "Basic dTpw"]
)
def test_no_token_is_refused(world: World, authorization: str) -> None:
    answer = schedule(world, Authorization=authorization)

    assert_refused(world, answer, 401)
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_token_whose_signature_was_taken_off_is_refused_where_signatures_are_verified(
    world: World,
) -> None:
    token = remove_signature(world.stack.token("schedule_post"))

    answer = schedule(world, Authorization=f"Bearer {token}")

    assert_refused(world, answer, 401)


@pytest.mark.parametrize("secret", ["", "wrong", "x" * 43, "ünïcode"])
def test_a_wrong_or_missing_secret_is_refused_whatever_the_token(world: World, secret: str) -> None:
    answer = schedule(world, **{"X-Webhook-Secret": secret})

    assert_refused(world, answer, 401)


@pytest.mark.parametrize(
    ("function", "path", "role"),
    [
        ("schedule_post", "/schedule", "tasks"),
        ("schedule_post", "/cancel", "scheduler"),
        ("schedule_post", "/accounts/connect", "tasks"),
        ("publish_post", "/", "scheduler"),
        ("maintain", "/sweep", "backend"),
        ("maintain", "/promote", "tasks"),
    ],
)
def test_a_known_caller_is_not_admitted_elsewhere(
    world: World, function: str, path: str, role: str
) -> None:
    answer = world.stack.post(function, path, {}, role=role)

    assert_refused(world, answer, 403)


def test_a_task_without_a_token_publishes_nothing(world: World) -> None:
    twitter = world.account("twitter")
    post_id = world.schedule(twitter, after=HOUR)
    for queue in world.stack.tasks.queues():
        world.stack.tasks_client.purge_queue(name=queue.name)
    world.stack.turn(HOUR)
    url = world.stack.fronts["publish_post"].url

    answer = httpx.post(
        url,
        json=world.task(post_id, twitter),
        headers={"X-Webhook-Secret": world.stack.secret, "X-CloudTasks-TaskName": "t1"},
    )

    assert answer.status_code == 401
    assert world.delivery(post_id, twitter)["attempts"] == []
    assert world.letters() == []


def test_the_issuers_keys_are_fetched_once_for_many_requests(world: World) -> None:
    instances = len(world.stack.processes["schedule_post"])
    for _ in range(instances):  # each instance keeps its own
        schedule(world)
    before = world.stack.issuer.fetches

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: schedule(world), range(12)))

    assert {answer.status_code for answer in answers} == {422}
    assert world.stack.issuer.fetches == before


def test_a_new_key_of_the_issuer_is_fetched_and_others_at_most_twice_a_minute() -> None:
    now = [100.0]
    with Issuer() as issuer:
        callers = Callers(
            mode="oidc",
            signatures="verified",
            certs_url=issuer.certs_url,
            audience="https://here.example",
            roles={"backend@example": "backend"},
            secrets=(),
            monotonic=lambda: now[0],
        )

        def admitted() -> bool:
            token = issuer.token("backend@example", "https://here.example")
            try:
                return callers.verify(f"Bearer {token}", None).role == "backend"
            except UnauthenticatedError:
                return False

        before = [admitted(), admitted()]
        issuer.rotate()
        too_soon = admitted()
        now[0] += 31
        rotated, fetched = [admitted(), admitted()], issuer.fetches

    assert (before, too_soon, rotated) == ([True, True], False, [True, True])
    assert fetched == 2


def test_a_strangers_key_id_does_not_make_us_fetch_keys_again_and_again(world: World) -> None:
    header = "eyJhbGciOiJSUzI1NiIsImtpZCI6InN0cmFuZ2VyIn0"  # {"alg":"RS256","kid":"stranger"}
    _, payload, signature = world.stack.token("schedule_post").split(".")
    forged = f"Bearer {header}.{payload}.{signature}"
    before = world.stack.issuer.fetches

    answers = [schedule(world, Authorization=forged) for _ in range(12)]

    assert {answer.status_code for answer in answers} == {401}
    assert world.stack.issuer.fetches - before <= 2 * len(world.stack.processes["schedule_post"])


@pytest.fixture(scope="module")
def rotating(running: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`schedule_post` in AUTH_MODE=secret while its secret is rotated; its URL."""
    rotation = {"AUTH_MODE": "secret", "WEBHOOK_SECRET_PREVIOUS": OLD_SECRET}
    process = FunctionProcess(
        "schedule_post",
        build("schedule_post", tmp_path_factory.mktemp("functions")),
        free_port(),
        running.environment("schedule_post") | rotation,
        children=running.children,
    )
    process.start().wait_until_ready()
    yield f"http://127.0.0.1:{process.port}"
    process.kill()


def test_both_secrets_are_valid_during_a_rotation_and_no_other(world: World, rotating: str) -> None:
    secrets = [world.stack.secret, OLD_SECRET, "x" * 43, ""]
    answers = [
        httpx.post(f"{rotating}/schedule", json={}, headers={"X-Webhook-Secret": secret})
        for secret in secrets
    ]

    assert [answer.status_code for answer in answers] == [400, 400, 401, 401]


@pytest.fixture(scope="module")
def behind_iam() -> Iterator[Stack]:
    """A system of its own in which Cloud Run's IAM check stands before every function."""
    with Stack(iam=True, schedules=False) as stack:
        yield stack


def test_behind_iam_a_post_travels_the_whole_way(behind_iam: Stack) -> None:
    world = World(behind_iam)
    twitter = world.account("twitter")

    post_id = world.schedule(twitter, after=HOUR)
    behind_iam.turn(HOUR)
    world.sweep()

    assert world.status(post_id)["status"] == "published"
    assert behind_iam.issuer.fetches == 0  # the signature is the platform's word


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        pytest.param({}, 400, id="right"),
        pytest.param({"aud": "https://another.example"}, 401, id="another audience"),
        pytest.param({"aud": None}, 401, id="no audience"),
        pytest.param({"aud": {"a": 1}}, 401, id="an audience that is none"),
        pytest.param({"iss": "https://evil.example"}, 401, id="another issuer"),
        pytest.param({"exp": 1_700_000_000}, 401, id="expired"),
        pytest.param({"iat": 4_100_000_000}, 401, id="of the future"),
        pytest.param({"iat": None}, 401, id="without an age"),
        pytest.param({"exp": "soon"}, 401, id="with an age that is none"),
        pytest.param({"email": "stranger@evil.example"}, 403, id="unknown"),
        pytest.param({"email": None}, 403, id="no e-mail"),
        pytest.param({"email": ["backend"]}, 403, id="an e-mail that is none"),
        pytest.param({"email_verified": "true"}, 403, id="unverified"),
    ],
)
def test_a_token_without_its_signature_is_still_checked_by_the_function(
    behind_iam: Stack, wrong: dict[str, Any], status: int
) -> None:
    token = unsigned(behind_iam, **wrong)

    answer = past_the_front(behind_iam, token)

    assert answer.status_code == status


def test_behind_iam_a_token_with_a_signature_is_verified_in_full(behind_iam: Stack) -> None:
    signed = behind_iam.token("schedule_post", "backend")
    forged = behind_iam.token("schedule_post", "backend", forged=True)

    assert past_the_front(behind_iam, signed).status_code == 400
    assert past_the_front(behind_iam, forged).status_code == 401
    assert past_the_front(behind_iam, "nonsense.SIGNATURE_REMOVED_BY_GOOGLE").status_code == 401


def test_iam_itself_admits_only_the_callers_of_the_topology(behind_iam: Stack) -> None:
    wrong = behind_iam.post("maintain", "/sweep", {}, role="backend")
    nobody = httpx.post(behind_iam.fronts["maintain"].url + "/sweep", json={})

    assert (wrong.status_code, nobody.status_code) == (403, 403)


def unsigned(stack: Stack, **wrong: Any) -> str:
    """The backend's token as it comes out of Cloud Run's check, with these claims instead."""
    header, payload, _ = stack.token("schedule_post", "backend").split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    body = base64.urlsafe_b64encode(json.dumps(claims | wrong).encode()).decode().rstrip("=")
    return f"{header}.{body}.{SIGNATURE_REMOVED}"


def past_the_front(stack: Stack, token: str) -> httpx.Response:
    """A request straight to the function, as its own code sees it."""
    [process] = stack.processes["schedule_post"]
    headers = {"Authorization": f"Bearer {token}", "X-Webhook-Secret": stack.secret}
    return httpx.post(f"http://127.0.0.1:{process.port}/schedule", json={}, headers=headers)


def schedule(world: World, **headers: str) -> httpx.Response:
    """A schedule request that is refused for its account alone, if its caller is let in."""
    body = world.order([], platforms=[{"platform": "twitter", "accountId": "nobody"}])
    known = world.stack.headers("schedule_post") | headers
    encoded = {name: value.encode() for name, value in known.items()}
    url = world.stack.fronts["schedule_post"].url + "/schedule"
    return httpx.post(url, json=body, headers=encoded, timeout=30)


def assert_refused(world: World, answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "errors" not in answer.json()  # nothing of the body was even read
    assert list(world.stack.db.collections()) == []
