"""What nobody woke is found: never silently lost, and nothing is read when nothing is wrong."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

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


def test_a_sweep_reads_none_of_the_posts_with_which_nothing_is_wrong(world: World) -> None:
    post_id = world.schedule(world.account("twitter"), after=HOUR)
    world.sweep()
    of_one = swept(world)
    copies(world, post_id, 200)

    of_many = swept(world)

    assert of_many == of_one
    assert of_many.documents_read <= 5  # the controls, for the time, and suchlike
    assert of_many.documents_written == 0


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


def copies(world: World, post_id: str, many: int) -> None:
    """As many more posts like this one."""
    [(log_id, log)] = world.stack.records("publishLogs").items()
    post = world.stack.record("scheduledPosts", post_id)
    batch = world.stack.db.batch()
    for number in range(many):
        batch.set(world.stack.db.document("scheduledPosts", f"{post_id}-{number}"), post)
        batch.set(world.stack.db.document("publishLogs", f"{log_id}-{number}"), log)
    batch.commit()


def writes(field: str, collection: str) -> Callable[[Any], bool]:
    """A commit of one document alone, of this collection, that changes this field."""
    return lambda commit: (
        len(commit.writes) == 1
        and f"/{collection}/" in commit.writes[0].update.name
        and field in commit.writes[0].update_mask.field_paths
    )
