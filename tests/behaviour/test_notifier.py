"""Somebody is told of what failed for good: once, signed, again until it is heard, and never at
publishing's cost."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.console import Console
from tests.sandbox.stack import Stack
from tests.world import COMPANY, World

SECRET = "a secret of the receiver, 32 characters or more"


@dataclass
class Receiver:
    """The product's own endpoint for alerts: keeps what it hears, answers as told."""

    heard: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    may_answer: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.may_answer.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/alerts"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def reset(self) -> None:
        self.heard.clear()
        self.answers.clear()
        self.arrived.clear()
        self.may_answer.set()

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.heard]


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.heard.append((dict(self.headers), body))
            status = receiver.answers.pop(0) if receiver.answers else 204
            receiver.arrived.set()
            receiver.may_answer.wait(20)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...

    return Handler


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.stop()


@pytest.fixture(scope="module")
def alerting(receiver: Receiver) -> Iterator[Stack]:
    """A system that has somebody to tell."""
    told = {"ALERT_WEBHOOK_URL": receiver.url, "ALERT_WEBHOOK_SECRET": SECRET}
    with Stack(schedules=False, environment=told) as stack:
        yield stack


@pytest.fixture
def console(alerting: Stack, receiver: Receiver) -> Console:
    alerting.reset()
    receiver.reset()
    return Console(World(alerting))


def test_a_dead_letter_is_told_once_signed_and_without_the_posts_text(
    console: Console, receiver: Receiver
) -> None:
    twitter = console.world.account("twitter")
    console.stack.tasks.faults.deliver_twice(queue="default", times=None)

    post_id = console.refused(twitter, content="Nobody else may read this")
    console.stack.settle()
    console.world.sweep()
    console.stack.settle()

    [(headers, body)] = receiver.heard
    letter_id = console.letter_of(post_id, twitter)
    told = json.loads(body)
    assert (told["id"], told["event"], told["companyId"]) == (letter_id, "dead_letter", COMPANY)
    assert (told["platform"], told["attempts"], told["status"]) == ("twitter", 1, "failed")
    assert told["message"].startswith("You are not permitted")
    assert b"Nobody else" not in body
    assert headers["X-TendSocial-Id"] == letter_id
    assert headers["X-TendSocial-Event"] == "dead_letter"
    signed = headers["X-TendSocial-Timestamp"].encode() + b"." + body
    expected = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert headers["X-TendSocial-Signature"] == f"sha256={expected}"
    now = console.stack.clock.now().timestamp()
    assert abs(int(headers["X-TendSocial-Timestamp"]) - now) < 30


def test_a_receiver_that_fails_hears_it_again_by_tasks_of_their_own(
    console: Console, receiver: Receiver
) -> None:
    receiver.answers = [500, 302]

    console.refused(console.world.account("twitter"))
    console.world.run_until(lambda: len(receiver.heard) == 3, step=timedelta(seconds=10))
    console.stack.turn(timedelta(hours=6))

    assert len({body for _, body in receiver.heard}) == 1
    assert len(receiver.heard) == 3
    sent = [attempt for attempt in console.stack.tasks.attempts if attempt.queue == "default"]
    assert [attempt.status for attempt in sent] == [200, 200, 200]
    assert len({attempt.task for attempt in sent}) == 3
    assert len(console.stack.events("alert.sent")) == 1
    assert len(console.stack.events("alert.retried")) == 2


def test_an_alert_whose_task_could_not_be_made_goes_out_after_the_next_sweep(
    console: Console, receiver: Receiver
) -> None:
    world, twitter = console.world, console.world.account("twitter")
    console.stack.tasks.faults.refuse("CreateTask", times=None)
    post_id = console.refused(twitter)
    world.deliver(post_id, twitter)
    console.stack.tasks.faults.clear()
    before = len(receiver.heard)

    world.sweep()
    console.stack.settle()

    assert len(world.letters()) == 1
    assert before == 0
    assert [body["postId"] for body in receiver.bodies()] == [post_id]


def test_an_unknown_whose_alert_could_not_be_made_is_told_once_after_the_sweep(
    console: Console, receiver: Receiver
) -> None:
    world, linkedin = console.world, console.world.account("linkedin")
    console.stack.tasks.faults.refuse("CreateTask", times=None)
    post_id = console.unknown(linkedin)
    world.deliver(post_id, linkedin)
    console.stack.turn(timedelta(minutes=3))
    world.sweep()
    console.stack.tasks.faults.clear()
    before = len(receiver.heard)

    for _ in range(3):
        console.stack.turn(timedelta(hours=3))
        world.sweep()
        console.stack.settle()

    assert before == 0
    assert [(told["event"], told["postId"]) for told in receiver.bodies()] == [("unknown", post_id)]
    assert len(console.stack.events("delivery.unknown")) == 1
    assert world.delivery(post_id, linkedin)["status"] == "unknown"


def test_an_unknown_that_was_told_is_not_told_again_by_the_sweep(
    console: Console, receiver: Receiver
) -> None:
    console.unknown(console.world.account("linkedin"))
    console.stack.settle()
    before = len(receiver.heard)

    console.stack.turn(timedelta(hours=25))  # by when the queue has forgotten the task's name
    swept = [console.world.sweep() for _ in range(2)]
    console.stack.settle()

    assert (before, len(receiver.heard)) == (1, 1)
    assert [(done["ended"], done["skipped"]) for done in swept] == [(0, 0), (0, 0)]
    attempts = [one for one in console.stack.tasks.attempts if one.queue == "default"]
    assert len(attempts) == 2


def test_a_sender_that_dies_leaves_a_claim_that_runs_out(
    console: Console, receiver: Receiver
) -> None:
    receiver.may_answer.clear()
    with ThreadPoolExecutor(1) as pool:
        failing = pool.submit(console.refused, console.world.account("twitter"))
        assert receiver.arrived.wait(20)
        [sender] = console.stack.processes["console"]
        sender.kill_worker()
        receiver.may_answer.set()
        failing.result()
    while_claimed = console.stack.events("alert.sent")

    console.world.run_until(lambda: len(receiver.heard) == 2, step=timedelta(seconds=10))

    assert while_claimed == []
    assert len({body for _, body in receiver.heard}) == 1
    assert len(console.stack.events("alert.sent")) == 1


def test_a_receiver_that_never_answers_is_given_up_and_that_is_said(
    console: Console, receiver: Receiver
) -> None:
    receiver.answers = [503] * 50

    console.refused(console.world.account("twitter"))
    for _ in range(15):
        console.stack.turn(timedelta(minutes=30))

    assert len(receiver.heard) == 12
    [line] = console.stack.events("alert.failed")
    assert line["severity"] == "ERROR"


def test_publishing_does_not_wait_for_the_receiver(console: Console, receiver: Receiver) -> None:
    twitter = console.world.account("twitter")
    receiver.may_answer.clear()
    console.stack.tasks.faults.lose_task(queue="publish-twitter", times=None)
    post_id = console.refused(twitter)

    answer = console.world.deliver(post_id, twitter)
    arrived = receiver.arrived.wait(10)
    held = not receiver.may_answer.is_set()
    receiver.may_answer.set()
    console.stack.settle()

    assert (answer.status_code, answer.json()["status"]) == (200, "failed")
    assert arrived
    assert held
    assert len(receiver.heard) == 1


def test_an_unknown_outcome_is_told_and_one_that_was_settled_meanwhile_is_not(
    console: Console, receiver: Receiver
) -> None:
    world = console.world
    one, other = world.account("linkedin"), world.account("linkedin")
    console.unknown(one)
    console.stack.settle()
    console.stack.tasks.faults.deliver_late(timedelta(minutes=5), queue="default")
    post_id = console.unknown(other)
    settled = {
        "deliveryId": world.delivery(post_id, other)["deliveryId"],
        "remoteId": "urn:li:share:1789",
        "reason": "seen on the page",
    }

    console.done("/unknown/is-there", settled)
    console.stack.turn(timedelta(minutes=6))

    assert [(told["event"], told["accountId"]) for told in receiver.bodies()] == [
        ("unknown", one.id)
    ]


def test_a_malformed_task_is_told_too(console: Console, receiver: Receiver) -> None:
    console.stack.post("publish_post", "/", {"what": "?"}, role="tasks")
    console.stack.settle()

    [letter_id] = console.stack.records("deadLetters")
    assert [(told["id"], told["reason"]) for told in receiver.bodies()] == [
        (letter_id, "malformed_task")
    ]
