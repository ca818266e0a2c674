"""What nobody woke is found: never silently lost, and nothing is read when nothing is wrong."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.sandbox.bench import grow
from tests.sandbox.firestore_proxy import Counts
from tests.sandbox.functions import DropConnection
from tests.world import World

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)


def test_a_task_deleted_behind_our_back_is_made_again(world: World) -> None:
    twitter = world.account("twitter")
    post_id = world.schedule(twitter, after=HOUR)
    purge(world)

    world.stack.turn(HOUR + MINUTE)
    within_grace = world.sweep()
    world.stack.turn(MINUTE)
    found = world.sweep()
    world.stack.settle()

    assert (within_grace["woken"], found["woken"]) == (0, 1)
    assert len(world.stack.platforms.posts("twitter")) == 1
    assert world.status(post_id)["status"] == "published"


def test_the_sweeps_grace_doubles_with_each_hop(world: World) -> None:
    world.stack.tasks.faults.lose_task(times=None)
    world.schedule(world.account("twitter"))
    world.stack.settle()

    woken = []
    for minutes in (2, 3, 1, 7, 1):
        world.stack.turn(minutes * MINUTE + SECOND)
        woken.append(world.sweep()["woken"])
        world.stack.settle()

    assert woken == [1, 0, 1, 0, 1]


def test_what_never_reaches_the_function_ends_as_one_that_cannot_start(world: World) -> None:
    twitter = world.account("twitter")
    world.stack.fronts["publish_post"].before.arm(refuse, times=None)
    post_id = world.schedule(twitter)
    world.stack.settle()

    for hop in range(6):
        world.stack.turn(2 * MINUTE * 2**hop + SECOND)
        world.sweep()
    world.stack.fronts["publish_post"].before.clear()
    world.stack.turn(HOUR)
    world.sweep()

    delivery = world.delivery(post_id, twitter)
    assert (delivery["status"], delivery["errorCode"]) == ("failed", "cannot_start")
    assert delivery["attempts"] == []
    [letter] = world.letters()
    assert (letter["reason"], letter["deliveryId"]) == ("cannot_start", delivery["deliveryId"])
    assert len(world.stack.events("delivery.cannot_start")) == 1
    assert world.stack.platforms.calls("twitter") == []


def test_what_is_paused_waits_without_a_hop_and_goes_on_afterwards(world: World) -> None:
    twitter, linkedin = world.account("twitter"), world.account("linkedin")
    pause(world, {"scope": "platform", "name": "twitter", "by": "ops", "why": "an incident"})
    post_id = world.schedule(twitter, linkedin)
    world.stack.settle()
    for _ in range(4):
        world.stack.turn(10 * MINUTE)
        world.sweep()
    held, hops = world.delivery(post_id, twitter), len(world.stack.tasks.tasks("publish-twitter"))

    pause(world)
    world.stack.turn(10 * MINUTE)
    world.sweep()
    world.stack.settle()

    assert (held["status"], held["errorCode"], held["attempts"]) == ("waiting", "paused", [])
    assert hops == 0
    assert len(world.stack.platforms.posts("linkedin")) == 1
    assert len(world.stack.platforms.posts("twitter")) == 1
    assert world.status(post_id)["status"] == "published"


def test_a_pause_with_an_end_ends_by_itself(world: World) -> None:
    twitter = world.account("twitter")
    until = world.stack.clock.now() + HOUR
    about = {"scope": "company", "name": "acme", "by": "ops", "why": "an audit", "until": until}
    pause(world, about)
    post_id = world.schedule(twitter)
    world.stack.settle()
    held = world.delivery(post_id, twitter)["status"]

    world.stack.turn(HOUR)
    world.sweep()
    world.stack.settle()

    assert held == "waiting"
    assert world.status(post_id)["status"] == "published"


def test_an_attempt_that_died_before_committing_is_made_again(world: World) -> None:
    twitter = world.account("twitter")
    post_id = world.schedule(twitter, after=HOUR, mediaAssetIds=[world.image()])
    purge(world)
    upload = world.stack.platforms.misbehave("twitter", "upload", "hold")
    world.stack.clock.turn(HOUR)

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(world.deliver, post_id, twitter)
        upload.wait_until_held()
        for process in world.stack.processes["publish_post"]:
            process.kill_worker()
        died = asked.result()
    upload.release()
    leased = world.sweep()
    world.stack.turn(2 * MINUTE + SECOND)
    found = world.sweep()
    world.stack.settle()

    assert died.status_code == 503
    assert (leased["woken"], found["woken"]) == (0, 1)
    assert len(world.stack.platforms.posts("twitter")) == 1
    attempts = world.delivery(post_id, twitter)["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["crashed", "success"]


def test_a_delivery_nobody_woke_by_its_latest_time_is_missed_with_a_dead_letter(
    world: World,
) -> None:
    twitter = world.account("twitter")
    latest = world.stack.clock.now() + 2 * HOUR
    post_id = world.schedule(twitter, after=HOUR, latestAt=latest.isoformat())
    purge(world)

    world.stack.turn(2 * HOUR + SECOND)
    world.sweep()
    world.sweep()

    assert world.delivery(post_id, twitter)["status"] == "missed"
    assert world.status(post_id)["status"] == "failed"
    [letter] = world.letters()
    assert letter["reason"] == "missed"
    assert world.stack.platforms.calls("twitter") == []


def test_a_roll_up_that_was_never_stored_is_stored(world: World) -> None:
    lost = world.stack.proxy.refuse("Commit", when=writes("errorMessage", "scheduledPosts"))
    post_id = world.schedule(world.account("twitter"))
    world.stack.settle()
    before = world.stack.record("scheduledPosts", post_id)

    found = world.sweep()

    after = world.stack.record("scheduledPosts", post_id)
    assert lost.hits == 1
    assert before is not None
    assert (before["open"], before["status"]) == (0, "processing")
    assert found["finished"] == 1
    assert after is not None
    assert after["status"] == "published"


def test_a_lease_that_ran_out_with_a_mark_is_told_as_unknown_though_no_task_comes(
    world: World,
) -> None:
    account = world.account("linkedin")
    world.stack.tasks.faults.lose_task(times=None)
    post_id = world.schedule(account)
    instances = world.stack.processes["publish_post"]
    world.stack.platforms.misbehave(
        "linkedin", "create post", "hook", hook=lambda *_: [one.kill_worker() for one in instances]
    )

    world.deliver(post_id, account)
    world.stack.turn(2 * MINUTE + SECOND)
    found = world.sweep()

    assert (found["woken"], found["ended"]) == (0, 1)
    delivery = world.delivery(post_id, account)
    assert (delivery["status"], delivery["errorCode"]) == ("unknown", "attempt_lost")
    assert len(world.stack.platforms.calls("linkedin", "create post")) == 1
    assert len(world.stack.events("delivery.unknown")) == 1


def test_a_dead_letter_whose_task_could_not_be_put_away_is_put_away_by_the_next(
    world: World,
) -> None:
    latest = (world.stack.clock.now() + 2 * HOUR).isoformat()
    post_id = world.schedule(world.account("twitter"), after=HOUR, latestAt=latest)
    purge(world)
    world.stack.turn(2 * HOUR + SECOND)
    world.stack.tasks.faults.refuse("CreateTask", times=None)
    first = world.sweep()
    world.stack.tasks.faults.clear()

    second, third = world.sweep(), world.sweep()

    assert (first["ended"], first["copied"]) == (1, 0)
    assert (second["copied"], third["copied"]) == (1, 0)
    [task] = world.stack.tasks.tasks("default-dlq")
    [letter] = world.letters()
    assert letter["postId"] == post_id
    assert letter["copied"] is True
    assert task.id in world.stack.records("deadLetters")


def test_a_sweep_costs_what_is_wrong_and_not_what_there_is(world: World) -> None:
    """What it reads and writes among 10 records and among 1,000: nothing wrong, then one thing."""
    account = world.account("linkedin")
    world.schedule(account, after=HOUR)
    world.sweep()

    costs = []
    for records in (10, 1000):
        grow(world.stack, 3 * records)
        healthy = swept(world)
        world.stack.tasks.faults.lose_task()
        lost = world.schedule(account, content=f"Lost among {records}")
        world.stack.turn(2 * MINUTE + SECOND)
        before = world.stack.proxy.counts("maintain")
        found = world.sweep()
        one_wrong = world.stack.proxy.counts("maintain") - before
        world.stack.settle()
        assert found["woken"] == 1
        assert world.status(lost)["status"] == "published"
        costs.append((healthy, one_wrong))

    assert costs[0] == costs[1]
    healthy, one_wrong = costs[0]
    assert (healthy.documents_read, healthy.documents_written) == (5, 0)
    assert (one_wrong.documents_read, one_wrong.documents_written) == (10, 2)


def swept(world: World) -> Counts:
    """What one sweep that finds nothing says to Firestore."""
    before = world.stack.proxy.counts("maintain")
    done = world.sweep()
    assert (done["woken"], done["ended"], done["finished"], done["skipped"]) == (0, 0, 0, 0)
    return world.stack.proxy.counts("maintain") - before


def refuse(_: object) -> None:
    raise DropConnection


def purge(world: World) -> None:
    """Take every task away, as somebody with `gcloud tasks queues purge` does."""
    for queue in world.stack.tasks.queues():
        world.stack.tasks_client.purge_queue(name=queue.name)


def pause(world: World, *pauses: dict[str, Any]) -> None:
    """What an operator has paused: these, and nothing else."""
    now = datetime.now(UTC)
    document = {
        "pauses": {str(number): one for number, one in enumerate(pauses)},
        "createdAt": now,
        "updatedAt": now,
        "schemaVersion": 1,
    }
    world.stack.db.document("controls", "publish").set(document)


def writes(field: str, collection: str) -> Callable[[Any], bool]:
    """A commit of one document alone, of this collection, that changes this field."""
    return lambda commit: (
        len(commit.writes) == 1
        and f"/{collection}/" in commit.writes[0].update.name
        and field in commit.writes[0].update_mask.field_paths
    )
