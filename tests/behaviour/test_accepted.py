"""What a platform has accepted and works on: asked for by successor tasks, never sent again."""

from __future__ import annotations

from datetime import timedelta

from tests.world import Account, World

STEP = timedelta(seconds=6)  # past the 5 s after which Slack is asked again


def with_files_shared_late(world: World, *, polls: int) -> tuple[Account, str]:
    """A post to Slack, which shares its files only after so many questions."""
    slack = world.account("slack")
    world.stack.platforms.misbehave("slack", "create post", "processing", polls=polls)
    return slack, world.schedule(slack, mediaAssetIds=[world.image()])


def test_slacks_files_are_asked_for_until_a_message_shows_them(world: World) -> None:
    slack, post_id = with_files_shared_late(world, polls=2)

    world.stack.settle()
    at_first = world.delivery(post_id, slack)
    cancelled = world.command("/cancel", post_id)
    world.run_until(lambda: world.delivery(post_id, slack)["status"] == "success", step=STEP)

    (post,) = world.stack.platforms.posts("slack")
    shown = world.delivery(post_id, slack)
    assert at_first["status"] == "accepted"
    assert cancelled.status_code == 409
    assert shown["remoteId"] == post.id
    assert [attempt["outcome"] for attempt in shown["attempts"]] == [
        *("accepted", "accepted", "success"),
    ]
    assert shown["attemptsSpent"] == 1
    assert len(world.stack.platforms.calls("slack", "create post")) == 1


def test_what_was_accepted_cannot_be_edited_while_its_account_is_throttled(world: World) -> None:
    slack, post_id = with_files_shared_late(world, polls=1)
    world.stack.settle()
    world.stack.platforms.misbehave("slack", "create post", "throttle", seconds=60)
    world.schedule(slack, content="Another one")
    world.stack.settle()
    world.stack.turn(timedelta(seconds=10))

    waiting = world.delivery(post_id, slack)
    edited = world.command("/edit", post_id, content="Something else")
    world.run_until(lambda: world.delivery(post_id, slack)["status"] == "success")

    assert (waiting["status"], waiting["errorCode"]) == ("accepted", "throttled")
    assert edited.status_code == 409
    with_files = [post for post in world.stack.platforms.posts("slack") if post.media]
    assert len(with_files) == 1


def test_what_was_accepted_and_never_shows_is_unknown_and_not_failed(world: World) -> None:
    slack, post_id = with_files_shared_late(world, polls=1000)

    world.run_until(lambda: world.delivery(post_id, slack)["status"] == "unknown", step=STEP)
    looked_for = world.delivery(post_id, slack)
    world.run_until(
        lambda: world.delivery(post_id, slack)["nextRetryAt"] is None, step=timedelta(minutes=5)
    )

    assert looked_for["errorCode"] == "not_shared"
    assert world.delivery(post_id, slack)["status"] == "unknown"
    assert len(world.stack.platforms.calls("slack", "create post")) == 1
    assert world.letters() == []


def test_a_message_to_slack_whose_answer_was_lost_is_found_by_its_key(world: World) -> None:
    slack = world.account("slack")
    world.stack.platforms.misbehave("slack", "create post", "drop_after")

    post_id = world.schedule(slack, content="Warm 🎉")
    world.run_until(lambda: world.delivery(post_id, slack)["status"] == "success")

    (post,) = world.stack.platforms.posts("slack")
    assert world.delivery(post_id, slack)["remoteId"] == post.id
    assert len(world.stack.platforms.calls("slack", "create post")) == 1


def test_a_telegram_group_that_moved_gets_its_message_once(world: World) -> None:
    telegram = world.account("telegram")
    platforms = world.stack.platforms
    platforms.telegram.moved[telegram.user_id] = -1005
    platforms.add_account("telegram", "-1005", telegram.access_token)

    post_id = world.schedule(telegram)
    world.stack.settle()

    (post,) = platforms.posts("telegram")
    shown = world.delivery(post_id, telegram)
    assert (shown["status"], shown["remoteId"]) == ("success", "-1005:1")
    assert post.account == "-1005"
    assert telegram.access_token not in str(world.stack.events())
    assert telegram.access_token not in str(world.stack.records("publishLogs"))
