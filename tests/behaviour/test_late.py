"""Attempts that were asleep while the world went on, answers that come late, and posts that come
too late altogether."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest

from tests.sandbox.functions import FunctionProcess, Gate
from tests.world import Account, World

LEASE = timedelta(seconds=61)
CHANNEL = "41771983423143937"  # a bot's


class Two:
    """Two instances of `publish_post`: which of them gets a task is the test's choice."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sleeper, self.other = world.stack.processes["publish_post"]
        self._pool = ThreadPoolExecutor(1)

    def begin(self, post_id: str, account: Account) -> Future[httpx.Response]:
        """A task that the sleeper takes; its answer is still to come."""
        self._send_to(self.sleeper)
        return self._pool.submit(self.world.deliver, post_id, account)

    def deliver(self, post_id: str, account: Account) -> httpx.Response:
        """A task that the other one takes and answers."""
        self._send_to(self.other)
        return self.world.deliver(post_id, account)

    def show_the_time(self, post_id: str, account: Account) -> None:
        """A second task for the sleeper, which reads: only a read tells it that a clock that is
        turned has gone on while it was frozen, as its own would have told it."""
        self._send_to(self.sleeper)
        self.world.deliver(post_id, account)

    @contextmanager
    def asleep(self) -> Iterator[None]:
        self.sleeper.suspend()
        try:
            yield
        finally:
            self.sleeper.resume()

    def _send_to(self, process: FunctionProcess) -> None:
        self.world.stack.fronts["publish_post"].backends = [process.port]


@pytest.fixture
def two(world: World) -> Iterator[Two]:
    """By hand alone: the queue loses every task."""
    world.stack.tasks.faults.lose_task(times=None)
    front = world.stack.fronts["publish_post"]
    everyone = front.backends
    yield Two(world)
    front.backends = everyone


def test_an_attempt_frozen_before_its_committing_mark_changes_nothing_when_it_wakes(
    world: World, two: Two
) -> None:
    twitter = world.account("twitter")
    post_id = world.schedule(twitter)
    mark = world.stack.proxy.hold("Commit", when=writes_the_mark)

    stale = two.begin(post_id, twitter)
    mark.arrived()
    with two.asleep():
        world.stack.clock.turn(LEASE)
        taken_over = two.deliver(post_id, twitter)
        then = log_of(world, post_id, twitter)
    mark.open()
    woken = stale.result()

    assert taken_over.json()["success"] is True
    assert woken.status_code == 503
    assert log_of(world, post_id, twitter) == then
    assert len(world.stack.platforms.calls("twitter", "create post")) == 1


def test_an_attempt_frozen_in_an_upload_changes_nothing_when_it_wakes(
    world: World, two: Two
) -> None:
    linkedin = world.account("linkedin")
    post_id = world.schedule(linkedin, mediaAssetIds=[world.image()])
    upload = world.stack.platforms.misbehave("linkedin", "upload", "hold")

    stale = two.begin(post_id, linkedin)
    upload.wait_until_held()
    with two.asleep():
        world.stack.clock.turn(LEASE)
        taken_over = two.deliver(post_id, linkedin)
        then = log_of(world, post_id, linkedin)
    upload.release()
    woken = stale.result()

    assert taken_over.json()["success"] is True
    assert woken.status_code == 503
    assert log_of(world, post_id, linkedin) == then
    assert len(world.stack.platforms.posts("linkedin")) == 1
    assert then["fencingToken"] == 2


def test_a_stale_attempt_that_fails_late_does_not_disturb_the_one_that_published(
    world: World, two: Two
) -> None:
    linkedin = world.account("linkedin")
    post_id = world.schedule(linkedin, mediaAssetIds=[world.image()])
    upload = world.stack.platforms.misbehave("linkedin", "upload", "hold")

    stale = two.begin(post_id, linkedin)
    upload.wait_until_held()
    upload.kind = "error_before"  # what it gets once it is let go
    world.stack.clock.turn(LEASE)
    two.deliver(post_id, linkedin)
    then = log_of(world, post_id, linkedin)
    upload.release()
    woken = stale.result()

    assert woken.status_code == 503
    assert then["status"] == "success"
    assert log_of(world, post_id, linkedin) == then
    assert world.letters() == []
    assert world.stack.events("publish.unrecorded") == []


def test_a_stale_attempt_does_not_settle_the_one_that_took_over(world: World, two: Two) -> None:
    """Its upload fails while the other one's call is under way: that failure is nobody's."""
    linkedin = world.account("linkedin")
    post_id = world.schedule(linkedin, mediaAssetIds=[world.image()])
    upload = world.stack.platforms.misbehave("linkedin", "upload", "hold")
    stale = two.begin(post_id, linkedin)
    upload.wait_until_held()
    upload.kind = "error_before"
    creating = world.stack.platforms.misbehave("linkedin", "create post", "hold")
    world.stack.clock.turn(LEASE)

    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(two.deliver, post_id, linkedin)
        creating.wait_until_held()
        upload.release()
        woken = stale.result()
        then = log_of(world, post_id, linkedin)
        creating.release()
        published = second.result()

    assert woken.status_code == 503
    assert (then["status"], then["fencingToken"]) == ("processing", 2)
    assert published.json()["success"] is True
    assert len(world.stack.platforms.posts("linkedin")) == 1


def test_an_attempt_past_send_by_does_not_send(world: World, two: Two) -> None:
    """Its mark stands, the answer that says so comes late: the outcome was taken for unknown."""
    twitter = world.account("twitter")
    post_id = world.schedule(twitter)
    marked = world.stack.proxy.hold("Commit", when=writes_the_mark, after=True)

    stale = two.begin(post_id, twitter)
    marked.arrived()
    with two.asleep():
        world.stack.clock.turn(LEASE)
        taken_over = two.deliver(post_id, twitter)
    two.show_the_time(post_id, twitter)
    marked.open()
    woken = stale.result()

    assert taken_over.json()["status"] == "unknown"
    assert woken.status_code == 503
    assert world.stack.platforms.calls("twitter", "create post") == []
    assert world.delivery(post_id, twitter)["status"] == "unknown"


def test_an_attempt_frozen_between_its_mark_and_the_call_does_not_send_when_it_wakes(
    world: World, two: Two
) -> None:
    """It has its mark's answer and is fetching the picture that the call carries. Meanwhile the
    other one repeats the call inside the nonce's window."""
    discord = world.account("discord", user_id=CHANNEL)
    post_id = world.schedule(discord, mediaAssetIds=[world.image()])
    fetching = Gate()
    world.stack.storage.faults.arm(fetching)

    stale = two.begin(post_id, discord)
    fetching.arrived()
    with two.asleep():
        world.stack.clock.turn(LEASE)
        taken_over = two.deliver(post_id, discord)
        world.stack.clock.turn(timedelta(seconds=31))
        two.deliver(post_id, discord)
        then = log_of(world, post_id, discord)
    two.show_the_time(post_id, discord)
    fetching.open()
    woken = stale.result()

    [post] = world.stack.platforms.posts("discord")
    assert taken_over.json()["status"] == "unknown"
    assert (then["status"], then["remoteId"]) == ("success", post.id)
    assert woken.status_code == 503
    assert len(world.stack.platforms.calls("discord", "create post")) == 1
    assert log_of(world, post_id, discord) == then


def test_an_attempt_frozen_in_its_call_changes_nothing_that_evidence_has_settled(
    world: World, two: Two
) -> None:
    twitter = world.account("twitter")
    post_id = world.schedule(twitter)
    answer = world.stack.platforms.misbehave("twitter", "create post", "hold", after=True)

    frozen = two.begin(post_id, twitter)
    answer.wait_until_held()
    with two.asleep():
        world.stack.clock.turn(LEASE)
        two.deliver(post_id, twitter)
        world.stack.clock.turn(timedelta(seconds=31))
        two.deliver(post_id, twitter)  # looks, and finds it
        then = log_of(world, post_id, twitter)
    answer.release()
    woken = frozen.result()

    [post] = world.stack.platforms.posts("twitter")
    assert (then["status"], then["remoteId"]) == ("success", post.id)
    assert woken.status_code == 503
    assert log_of(world, post_id, twitter) == then
    assert len(world.stack.records("remoteIds")) == 1
    assert world.stack.events("publish.unrecorded") == []


def test_an_attempt_frozen_with_the_platforms_answer_in_hand_still_says_what_it_was(
    world: World, two: Two
) -> None:
    """The one write that no lease forbids: the owner of the mark ends its own unknown."""
    account = world.account("linkedin")
    post_id = world.schedule(account)
    settling = world.stack.proxy.hold("Commit", when=writes_a_remote_id)

    frozen = two.begin(post_id, account)
    settling.arrived()
    with two.asleep():
        world.stack.clock.turn(LEASE)
        taken_for = two.deliver(post_id, account)
    settling.open()
    woken = frozen.result()

    [post] = world.stack.platforms.posts("linkedin")
    assert taken_for.json()["status"] == "unknown"
    assert woken.json()["result"] == post.id
    delivery = world.delivery(post_id, account)
    assert (delivery["status"], delivery["remoteId"]) == ("success", post.id)
    assert world.letters() == []


def test_a_late_answer_of_the_platform_turns_unknown_into_success(world: World, two: Two) -> None:
    twitter = world.account("twitter")
    post_id = world.schedule(twitter)
    answer = world.stack.platforms.misbehave("twitter", "create post", "hold", after=True)

    frozen = two.begin(post_id, twitter)
    answer.wait_until_held()
    with two.asleep():
        world.stack.clock.turn(LEASE)
        taken_for = two.deliver(post_id, twitter)
    answer.release()
    woken = frozen.result()

    [post] = world.stack.platforms.posts("twitter")
    assert taken_for.json()["status"] == "unknown"
    assert woken.json()["result"] == post.id
    delivery = world.delivery(post_id, twitter)
    assert (delivery["status"], delivery["remoteId"]) == ("success", post.id)
    assert delivery["errorCode"] is None
    stored = world.stack.record("scheduledPosts", post_id)
    assert stored is not None
    assert (stored["status"], stored["open"]) == ("published", 0)


def test_a_late_refusal_of_the_platform_turns_unknown_into_failed_with_a_dead_letter(
    world: World, two: Two
) -> None:
    twitter = world.account("twitter")
    post_id = world.schedule(twitter)
    answer = world.stack.platforms.misbehave("twitter", "create post", "hold")

    frozen = two.begin(post_id, twitter)
    answer.wait_until_held()
    answer.kind = "refuse"
    answer.how = {"status": 403, "body": {"title": "Forbidden", "detail": "Not permitted."}}
    with two.asleep():
        world.stack.clock.turn(LEASE)
        taken_for = two.deliver(post_id, twitter)
    answer.release()
    frozen.result()

    assert taken_for.json()["status"] == "unknown"
    delivery = world.delivery(post_id, twitter)
    assert (delivery["status"], delivery["errorMessage"]) == ("failed", "Not permitted.")
    assert len(world.letters(status="open")) == 1
    assert world.stack.platforms.posts("twitter") == []


def test_a_late_answer_does_not_undo_what_a_person_has_ordered_since(
    world: World, two: Two
) -> None:
    """The id is told in the one place left: a line of the log that alerts read."""
    account = world.account("linkedin")
    post_id = world.schedule(account)
    answer = world.stack.platforms.misbehave("linkedin", "create post", "hold", after=True)
    frozen = two.begin(post_id, account)
    answer.wait_until_held()
    world.stack.clock.turn(LEASE)
    two.deliver(post_id, account)
    world.retry(
        post_id, account, content="Once more", acceptDuplicateRisk=True, reason="It is not there"
    )

    answer.release()
    woken = frozen.result()
    second = two.deliver(post_id, account)

    first_post, second_post = world.stack.platforms.posts("linkedin")
    assert world.delivery(post_id, account)["remoteId"] == second_post.id
    assert second.json()["result"] == second_post.id
    assert woken.status_code == 503
    [line] = world.stack.events("publish.unrecorded")
    assert (line["severity"], line["remoteId"]) == ("CRITICAL", first_post.id)


def test_a_delivery_past_its_latest_time_is_missed_and_a_retry_gives_it_a_new_one(
    world: World,
) -> None:
    twitter = world.account("twitter")
    world.stack.tasks.faults.lose_task()
    due = world.stack.clock.now() + timedelta(minutes=5)
    latest = due + timedelta(minutes=30)
    post_id = world.schedule(twitter, after=due, latestAt=latest.isoformat())
    world.stack.turn(timedelta(minutes=36))

    late = world.deliver(post_id, twitter)
    missed = world.delivery(post_id, twitter)
    retried = world.retry(post_id, twitter)
    asked_at = world.stack.clock.now()
    world.stack.settle()

    assert late.json()["status"] == "missed"
    assert missed["errorCode"] == "missed"
    assert world.stack.platforms.calls("twitter", "create post") != []
    [buried] = world.stack.events("delivery.dead_lettered")
    assert (buried["severity"], buried["status"]) == ("ERROR", "missed")
    assert retried.status_code == 200
    assert world.delivery(post_id, twitter)["status"] == "success"
    log = log_of(world, post_id, twitter)
    assert abs(log["latestAt"] - asked_at - timedelta(hours=24)) < timedelta(seconds=10)
    [letter] = world.letters(reason="missed")
    assert letter["status"] == "redriven"


def test_a_retry_of_a_missed_delivery_takes_the_latest_time_that_is_asked_for(
    world: World,
) -> None:
    twitter = world.account("twitter")
    world.stack.tasks.faults.lose_task()
    soon = world.stack.clock.now() + timedelta(minutes=1)
    post_id = world.schedule(twitter, latestAt=soon.isoformat())
    world.stack.turn(timedelta(minutes=5))
    world.sweep()

    in_the_past = world.retry(post_id, twitter, latestAt=soon.isoformat())
    latest = world.stack.clock.now() + timedelta(hours=3)
    world.retry(post_id, twitter, latestAt=latest.isoformat())

    assert in_the_past.status_code == 422
    assert log_of(world, post_id, twitter)["latestAt"] == latest


def writes_the_mark(request: Any) -> bool:
    return any(
        write.update.fields["committing"].HasField("map_value")
        for write in request.writes
        if "committing" in write.update.fields
    )


def writes_a_remote_id(request: Any) -> bool:
    return any(write.update.fields["remoteId"].string_value for write in request.writes)


def log_of(world: World, post_id: str, account: Account) -> dict[str, Any]:
    """The PublishLog as it lies."""
    record = world.stack.record("publishLogs", world.delivery(post_id, account)["deliveryId"])
    assert record is not None
    return record
