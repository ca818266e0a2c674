"""Three platforms, three fates: each delivery ends right by itself, and the post tells of all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from tests.sandbox.stack import BUCKET
from tests.world import World


def test_the_one_that_failed_is_retried_alone_and_none_is_published_twice(world: World) -> None:
    twitter, linkedin = world.account("twitter"), world.account("linkedin")
    instagram = world.account("instagram")
    world.stack.storage.fail(404, f"/{BUCKET}/broken.jpg", method="GET")  # by its signed URL
    world.stack.platforms.misbehave("linkedin", "begin upload", "error_before")
    hold_retries(world, "publish-linkedin")

    post_id = world.schedule(
        twitter, linkedin, instagram, mediaAssetIds=[world.image("broken.jpg")]
    )
    world.stack.settle()
    at_first = world.status(post_id)
    failed = world.delivery(post_id, instagram)
    world.run_until(lambda: world.delivery(post_id, linkedin)["status"] == "success")
    then = world.status(post_id)
    retried = world.retry(post_id, instagram, mediaAssetIds=[world.image("mended.jpg")])
    world.stack.settle()
    at_last = world.status(post_id)

    assert at_first["summary"] == {"success": 1, "retry": 1, "failed": 1}
    assert at_first["status"] == "processing"
    assert failed["errorCode"] == "ig_2207052"
    assert failed["errorMessage"] == "Only photo or video can be accepted as media type."
    assert then["message"] == "2 of 3 platforms published"
    assert then["status"] == "failed"
    assert then["errorMessage"] == ("instagram: Only photo or video can be accepted as media type.")
    assert retried.status_code == 200
    assert at_last["status"] == "published"
    assert at_last["message"] == "3 of 3 platforms published"
    for account in (twitter, linkedin, instagram):
        [post] = world.stack.platforms.posts(account.platform)
        assert post.id == world.delivery(post_id, account)["remoteId"]
    stored = post_record(world, post_id)
    assert (stored["status"], stored["open"], stored["errorMessage"]) == ("published", 0, None)


def test_a_retry_leaves_the_siblings_generation_and_tasks_alone(world: World) -> None:
    twitter, instagram = world.account("twitter"), world.account("instagram")
    world.stack.storage.fail(404, f"/{BUCKET}/broken.jpg", method="GET")
    world.stack.platforms.misbehave("twitter", "upload", "error_before")
    hold_retries(world, "publish-twitter")
    post_id = world.schedule(twitter, instagram, mediaAssetIds=[world.image("broken.jpg")])
    world.stack.settle()
    waiting = world.delivery(post_id, twitter)

    world.retry(post_id, instagram, mediaAssetIds=[world.image("mended.jpg")])
    world.stack.settle()

    assert waiting["status"] == "retry"
    assert world.delivery(post_id, twitter) == waiting
    assert world.delivery(post_id, instagram)["generation"] == 2
    assert world.delivery(post_id, instagram)["status"] == "success"


def test_deliveries_that_end_at_the_same_moment_leave_the_right_status(world: World) -> None:
    accounts = [world.account("twitter") for _ in range(3)]
    world.stack.tasks.faults.lose_task(times=None)
    post_id = world.schedule(*accounts)
    ends = world.stack.proxy.hold("Commit", when=tells_the_post, times=3)

    with ThreadPoolExecutor(3) as pool:
        racing = [pool.submit(world.deliver, post_id, account) for account in accounts]
        ends.arrived(3)
        ends.open()
        answers = [one.result() for one in racing]

    assert [answer.json()["success"] for answer in answers] == [True, True, True]
    stored = post_record(world, post_id)
    assert (stored["status"], stored["open"]) == ("published", 0)


def hold_retries(world: World, queue: str) -> None:
    """Each task of the queue but its first comes a minute late: time to look at what waits."""
    seen: set[str] = set()

    def is_another(_: str, task: str) -> bool:
        seen.add(task)
        return len(seen) > 1

    world.stack.tasks.faults.deliver_late(
        timedelta(minutes=1), queue=queue, when=is_another, times=None
    )


def tells_the_post(request: Any) -> bool:
    return any("/scheduledPosts/" in write.update.name for write in request.writes)


def post_record(world: World, post_id: str) -> dict[str, Any]:
    record = world.stack.record("scheduledPosts", post_id)
    assert record is not None
    return record
