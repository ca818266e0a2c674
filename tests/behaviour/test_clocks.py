"""Two instances whose clocks are 10 minutes wrong, one fast and one slow: deliveries go out neither
early nor twice, and every deadline is kept by Firestore's time.

They run in this process, over the same wire: an instance whose own clock is that wrong lets nobody
in, for it takes every token for expired or not valid yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared import config
from shared.domain import leases
from shared.domain.claims import Begun, Busy, Done, Early, Knock, Outcome, Replay
from shared.domain.deliveries import Status
from shared.domain.failures import RefusedError
from shared.domain.redrives import Person
from shared.edge.requests import MediaRequest
from shared.jobs import jobs_queue, media, publish
from shared.jobs.jobs_queue import Order
from shared.jobs.publish import Knocked
from shared.runtime import Runtime
from shared.store.clock import Clock
from shared.store.deliveries import Held, LeaseLostError
from tests.world import Account, World

SECOND = timedelta(seconds=1)
WRONG = timedelta(minutes=10)
CHANNEL = "41771983423143937"


class Instance:
    """One instance of `publish_post` behind its door."""

    def __init__(self, world: World, error: timedelta) -> None:
        self.world = world
        environment = config.load(world.stack.environment("publish_post"))
        clock = Clock(lambda: datetime.now(UTC) + error)
        self.rt = Runtime(environment, "publish_post", clock)

    def deliver(self, post_id: str, account: Account) -> Outcome:
        ends_at = time.monotonic() + 45
        task = Knocked(post_id, account.platform, account.id, None, None, ends_at)
        return publish.run(task, self.rt)

    def begin(self, post_id: str, account: Account) -> Held:
        """As far as the claim, and there it stands."""
        decision, held = self.rt.store.deliveries.begin(
            post_id=post_id,
            platform=account.platform,
            account_id=account.id,
            knock=Knock(),
            owner="whoever stands still",
            looks=lambda _: True,
        )
        assert isinstance(decision, Begun)
        assert held is not None
        return held


Make = Callable[[timedelta], Instance]


@pytest.fixture
def instance(world: World, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes an instance whose clock is wrong by so much; the queue loses every task."""
    world.stack.tasks.faults.lose_task(times=None)
    for name, value in world.stack.environment("publish_post").items():
        if name.endswith("_EMULATOR_HOST") or name == "GOOGLE_APPLICATION_CREDENTIALS":
            monkeypatch.setenv(name, value)
    return lambda error: Instance(world, error)


@pytest.mark.parametrize("error", [WRONG, -WRONG], ids=["fast", "slow"])
def test_a_clock_that_is_wrong_sends_neither_early_nor_late_nor_twice(
    world: World, instance: Make, error: timedelta
) -> None:
    twitter = world.account("twitter")
    due = world.stack.clock.now() + timedelta(hours=1)
    post_id = world.schedule(twitter, after=due)

    world.stack.clock.turn_to(due - 5 * SECOND)
    early = instance(error).deliver(post_id, twitter)
    before = len(world.stack.platforms.calls("twitter"))
    world.stack.clock.turn_to(due - SECOND)
    on_time = instance(error).deliver(post_id, twitter)
    again = instance(-error).deliver(post_id, twitter)

    assert isinstance(early, Early)
    assert before == 0
    assert isinstance(on_time, Done)
    assert isinstance(again, Replay)
    [post] = world.stack.platforms.posts("twitter")
    assert post.at >= due - 2 * SECOND
    assert on_time.log.remote_id == post.id


@pytest.mark.parametrize("error", [WRONG, -WRONG], ids=["fast takes over", "slow takes over"])
def test_a_lease_is_taken_over_when_it_ends_and_its_old_holder_knows(
    world: World, instance: Make, error: timedelta
) -> None:
    twitter = world.account("twitter")
    post_id = world.schedule(twitter)
    holder, other = instance(-error), instance(error)

    held = holder.begin(post_id, twitter)
    world.stack.clock.turn(30 * SECOND)
    leased = other.deliver(post_id, twitter)
    world.stack.clock.turn(31 * SECOND)
    taken_over = other.deliver(post_id, twitter)
    with pytest.raises(LeaseLostError):
        holder.rt.store.deliveries.mark_committing(held, request_hash="h")

    assert isinstance(leased, Busy)
    assert isinstance(taken_over, Done)
    assert taken_over.log.status is Status.SUCCESS
    assert taken_over.log.fencing_token == 2
    assert len(world.stack.platforms.calls("twitter", "create post")) == 1


@pytest.mark.parametrize("error", [WRONG, -WRONG], ids=["fast", "slow"])
def test_the_time_to_send_by_is_twenty_seconds_of_firestores_time(
    world: World, instance: Make, error: timedelta
) -> None:
    twitter = world.account("twitter")
    one = instance(error)
    held = one.begin(world.schedule(twitter), twitter)

    marked = one.rt.store.deliveries.mark_committing(held, request_hash="h")

    ahead = marked.log.committing.send_by - world.stack.clock.now()  # type: ignore[union-attr]
    assert 10 * SECOND < ahead <= 20.5 * SECOND


@pytest.mark.parametrize("error", [WRONG, -WRONG], ids=["fast", "slow"])
@pytest.mark.parametrize(("age", "sent"), [(50, 0), (65, 1), (130, 0)])
def test_a_keys_window_is_kept_by_firestores_time(
    world: World, instance: Make, error: timedelta, age: int, sent: int
) -> None:
    """Discord remembers a nonce for minutes: a repeat is safe from 60 to 120 s after the call."""
    discord = world.account("discord", user_id=CHANNEL)
    world.stack.platforms.misbehave("discord", "create post", "drop_before")
    post_id = world.schedule(discord)
    first: Any = instance(-error).deliver(post_id, discord)
    since = first.log.unsettled_since

    world.stack.clock.turn_to(since + age * SECOND)
    instance(error).deliver(post_id, discord)

    assert first.log.status is Status.UNKNOWN
    assert len(world.stack.platforms.calls("discord", "create post")) == 1 + sent
    assert len(world.stack.platforms.posts("discord")) == sent


@pytest.mark.parametrize("error", [WRONG, -WRONG], ids=["fast", "slow"])
def test_how_far_ahead_a_job_may_be_queued_is_judged_by_firestores_time(
    world: World, instance: Make, error: timedelta
) -> None:
    horizon = world.stack.clock.now() + leases.HORIZON
    within, beyond = horizon - timedelta(minutes=5), horizon + timedelta(minutes=5)

    _queue(within, instance(error))
    with pytest.raises(RefusedError) as refused:
        _queue(beyond, instance(error))

    assert [problem.code for problem in refused.value.problems] == ["too_far"]
    assert [job["scheduledFor"] for job in world.stack.records("scheduledJobs").values()] == [
        within
    ]


def _queue(at: datetime, instance: Instance) -> None:
    order = Order("sweep", {}, None, at, None)
    jobs_queue.queue(order, Person("ann@example.com"), instance.rt, "")


@pytest.mark.parametrize("error", [WRONG, -WRONG], ids=["fast", "slow"])
def test_a_media_asset_is_registered_at_firestores_time(
    world: World, instance: Make, error: timedelta
) -> None:
    wanted = {
        "companyId": "acme",
        "mediaAssetId": "launch",
        "uri": "https://cdn.example/launch.jpg",
        "contentType": "image/jpeg",
    }

    media.register("launch", MediaRequest.model_validate(wanted).asset, instance(error).rt)

    registered = world.stack.records("mediaAssets")["launch"]
    assert abs(registered["createdAt"] - world.stack.clock.now()) < 30 * SECOND
