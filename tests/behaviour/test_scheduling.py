"""What scheduling accepts, what it refuses, when a post is due, and who wakes it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.world import World

SPRING = datetime(2030, 3, 20, 12, tzinfo=UTC)  # before Berlin's clocks skip an hour
AUTUMN = datetime(2030, 10, 20, 12, tzinfo=UTC)  # before they repeat one


def test_two_accounts_of_one_platform_are_two_deliveries(world: World) -> None:
    first, second = world.account("twitter"), world.account("twitter")

    post_id = world.schedule(first, second, after=timedelta(minutes=5))
    world.stack.turn(timedelta(minutes=5))

    assert world.status(post_id)["message"] == "2 of 2 platforms published"
    posts = world.stack.platforms.posts("twitter")
    assert sorted(post.account for post in posts) == sorted([first.user_id, second.user_id])


def test_the_same_account_twice_is_refused(world: World) -> None:
    twitter = world.account("twitter")

    answer = world.call("/schedule", world.order([twitter, twitter]))

    assert answer.status_code == 422
    assert errors(answer) == [("platforms[1].accountId", "repeated")]
    assert nothing_is_stored(world)


def test_everything_that_is_wrong_is_named_in_one_answer(world: World) -> None:
    strangers = world.account("twitter", companyId="umbrella")
    expired, disabled = world.account("twitter"), world.account("linkedin")
    world.stack.db.document("socialAccounts", expired.id).update({"status": "expired"})
    world.call("/accounts/disconnect", {"companyId": "acme", "accountId": disabled.id})
    world.media("asset-strange", "https://cdn.example/strange.jpg", companyId="umbrella")
    targets = [
        {"platform": "twitter", "accountId": "nobody"},
        strangers.target,
        expired.target,
        disabled.target,
        {"platform": "friendster", "accountId": "anybody"},
        {"platform": "linkedin", "accountId": expired.id},
    ]

    answer = world.call(
        "/schedule",
        world.order(
            [],
            after=-timedelta(hours=1),
            platforms=targets,
            mediaAssetIds=["asset-missing", "asset-strange"],
        ),
    )

    assert answer.status_code == 422
    assert errors(answer) == [
        ("scheduledAt", "in_the_past"),
        ("mediaAssetIds[0]", "media_unknown"),
        ("mediaAssetIds[1]", "media_unknown"),
        ("platforms[0].accountId", "account_unknown"),
        ("platforms[1].accountId", "account_unknown"),
        ("platforms[2].accountId", "account_expired"),
        ("platforms[3].accountId", "account_disabled"),
        ("platforms[4].platform", "platform_unknown"),
        ("platforms[5].accountId", "account_unknown"),
    ]
    assert nothing_is_stored(world)


def test_a_minute_and_a_second_in_the_past_is_refused(world: World) -> None:
    twitter = world.account("twitter")

    answer = world.call("/schedule", world.order([twitter], after=-timedelta(seconds=61)))

    assert answer.status_code == 422
    assert answer.json()["detail"] == "Scheduled time must be in the future"
    assert errors(answer) == [("scheduledAt", "in_the_past")]
    assert nothing_is_stored(world)


def test_less_than_a_minute_in_the_past_is_due_now(world: World) -> None:
    twitter = world.account("twitter")

    post_id = world.schedule(twitter, after=-timedelta(seconds=55))
    world.stack.settle()

    assert world.status(post_id)["status"] == "published"


def test_a_latest_time_before_the_scheduled_one_is_refused(world: World) -> None:
    twitter = world.account("twitter")
    at = world.stack.clock.now() + timedelta(hours=2)

    order = world.order([twitter], after=at, latestAt=(at - timedelta(minutes=1)).isoformat())
    answer = world.call("/schedule", order)

    assert answer.status_code == 422
    assert errors(answer) == [("latestAt", "before_scheduled")]
    assert nothing_is_stored(world)


@pytest.mark.parametrize(
    ("now", "wanted", "due", "note"),
    [
        pytest.param(
            SPRING,
            "2030-03-31T02:30:00",
            "2030-03-31T01:00:00+00:00",
            "2030-03-31T02:30:00 does not exist in Europe/Berlin; moved to 2030-03-31 03:00:00.",
            id="skipped",
        ),
        pytest.param(
            AUTUMN,
            "2030-10-27T02:30:00",
            "2030-10-27T00:30:00+00:00",
            "2030-10-27T02:30:00 happens twice in Europe/Berlin; the first one is meant.",
            id="repeated",
        ),
    ],
)
def test_a_wall_clock_time_that_a_change_of_clocks_moves_is_stated_and_kept(
    world: World, now: datetime, wanted: str, due: str, note: str
) -> None:
    world.stack.clock.turn_to(now)
    twitter = world.account("twitter")
    order = world.order([twitter], scheduledAt=wanted, timezone="Europe/Berlin")

    answer = world.call("/schedule", order)
    world.stack.clock.turn_to(datetime.fromisoformat(due) - timedelta(seconds=10))
    world.stack.settle()
    before = len(world.stack.platforms.posts("twitter"))
    world.stack.turn(timedelta(seconds=11))

    assert answer.status_code == 201
    assert answer.json()["scheduledAt"] == due
    assert answer.json()["notes"] == [note]
    assert before == 0
    assert len(world.stack.platforms.posts("twitter")) == 1


def test_a_token_that_ends_before_the_post_is_due_is_a_warning(world: World) -> None:
    ends_at = world.stack.clock.now() + timedelta(days=1)
    twitter = world.account("twitter", refreshToken=None, expiresAt=ends_at.isoformat())

    answer = world.call("/schedule", world.order([twitter], after=timedelta(days=2)))

    assert answer.status_code == 201
    [warning] = answer.json()["warnings"]
    assert warning["field"] == "platforms[0].accountId"
    assert warning["code"] == "token_ends_before"


def test_scheduling_takes_two_round_trips_and_one_task_for_each_account(world: World) -> None:
    accounts = [world.account("twitter"), world.account("twitter"), world.account("linkedin")]
    before = world.stack.proxy.counts("schedule_post")

    world.schedule(*accounts, after=timedelta(hours=1))

    used = world.stack.proxy.counts("schedule_post") - before
    assert used.calls == {"BatchGetDocuments": 1, "Commit": 1}
    assert used.documents_written == 5  # the marker, the post, three deliveries
    assert len(world.stack.tasks.tasks("publish-twitter")) == 2
    assert len(world.stack.tasks.tasks("publish-linkedin")) == 1


@pytest.mark.parametrize("path", ["/", "/schedule", "/api/social-posts/schedule"])
def test_schedule_post_answers_at_its_public_paths(world: World, path: str) -> None:
    twitter = world.account("twitter")

    answer = world.call(path, world.order([twitter], after=timedelta(hours=1)))

    assert answer.status_code == 201
    assert len(world.stack.records("scheduledPosts")) == 1


@pytest.mark.parametrize(
    "path",
    ["/", "/api/jobs/publish-post", "/api/jobs/social-post", "/api/webhooks/publish-post"],
)
def test_publish_post_answers_at_its_public_paths(world: World, path: str) -> None:
    twitter = world.account("twitter")
    post_id = world.schedule(twitter, after=timedelta(hours=1))
    [task] = world.stack.tasks.tasks("publish-twitter")
    world.stack.tasks_client.delete_task(name=task.name)  # this one comes by hand
    world.stack.clock.turn(timedelta(hours=1))

    answer = world.stack.post("publish_post", path, world.task(post_id, twitter), role="tasks")

    [post] = world.stack.platforms.posts("twitter")
    assert answer.status_code == 200
    assert answer.json()["success"] is True
    assert answer.json()["result"] == post.id


def test_the_whole_post_form_fans_out_into_deliveries_that_publish_once(world: World) -> None:
    twitter, linkedin = world.account("twitter"), world.account("linkedin")
    world.stack.tasks.faults.refuse("CreateTask", times=None)
    post_id = world.schedule(twitter, linkedin)
    world.stack.tasks.faults.clear()
    whole = {"postId": post_id, "idempotencyKey": f"publish-{post_id}"}

    answers = [world.stack.post("publish_post", "/", whole) for _ in range(2)]
    world.stack.settle()

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["jobs"] == 2
    assert len(world.stack.platforms.posts("twitter")) == 1
    assert len(world.stack.platforms.posts("linkedin")) == 1
    assert world.status(post_id)["status"] == "published"


def test_a_task_before_its_time_publishes_nothing_and_leaves_the_right_one(world: World) -> None:
    twitter = world.account("twitter")
    post_id = world.schedule(twitter, after=timedelta(hours=1))
    [task] = world.stack.tasks.tasks("publish-twitter")
    world.stack.tasks_client.delete_task(name=task.name)

    answer = world.deliver(post_id, twitter)

    assert answer.status_code == 200
    assert answer.json()["early"] is True
    assert world.stack.platforms.posts("twitter") == []
    assert world.delivery(post_id, twitter)["attempts"] == []


def test_a_task_run_by_hand_before_its_time_still_publishes_on_time(world: World) -> None:
    twitter = world.account("twitter")
    post_id = world.schedule(twitter, after=timedelta(hours=1))
    [task] = world.stack.tasks.tasks("publish-twitter")

    world.stack.tasks_client.run_task(name=task.name)
    world.stack.settle()
    early = len(world.stack.platforms.posts("twitter"))
    [successor] = world.stack.tasks.tasks("publish-twitter")
    world.stack.turn(timedelta(hours=1))

    assert early == 0
    assert successor.name != task.name
    assert successor.schedule_at == task.schedule_at
    assert len(world.stack.platforms.posts("twitter")) == 1
    assert world.status(post_id)["status"] == "published"


def errors(answer: httpx.Response) -> list[tuple[str, str]]:
    return [(error["field"], error["code"]) for error in answer.json()["errors"]]


def nothing_is_stored(world: World) -> bool:
    kept = ("scheduledPosts", "publishLogs", "idempotencyMarkers")
    tasks = (world.stack.tasks.tasks(queue.id) for queue in world.stack.tasks.queues())
    return not any(world.stack.records(name) for name in kept) and not any(tasks)
