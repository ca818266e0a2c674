"""A first comment: a step of its own after its post, made once, and never at the post's expense."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.console import Console
from tests.world import Account, World

PLATFORMS = ["linkedin", "facebook", "instagram"]
ORGANIZATION = "urn:li:organization:2414183"
REFUSED: dict[str, Any] = {"message": "No", "error": {"message": "No", "code": 10}}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_comment_follows_its_post(world: World, platform: str) -> None:
    account = member(world, platform)

    post_id = order(world, account)
    world.run_until(lambda: world.status(post_id)["status"] == "published")

    post, comment = world.stack.platforms.posts(platform)
    assert (post.text, post.comment_on) == ("One", None)
    assert (comment.text, comment.comment_on) == ("More at the shop", post.id)
    shown = world.delivery(post_id, account)
    assert shown["remoteId"] == post.id
    assert [part["remoteId"] for part in shown["parts"]] == [post.id, comment.id]


def test_a_comment_costs_one_commit_more(world: World) -> None:
    account = member(world, "linkedin")
    world.stack.tasks.faults.lose_task(times=None)
    post_id = order(world, account)
    before = world.stack.proxy.counts("publish_post")

    answer = world.deliver(post_id, account)

    spent = world.stack.proxy.counts("publish_post") - before
    assert answer.json()["success"] is True
    # Read; claim, two marks, settle; and, since this is its last delivery, the post's status.
    assert dict(spent.calls) == {"BatchGetDocuments": 2, "Commit": 5}


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize(("lost", "made"), [("drop_after", True), ("drop_before", False)])
def test_a_comment_whose_answer_is_lost_is_never_made_twice(
    world: World, platform: str, lost: Any, made: bool
) -> None:
    account = member(world, platform)
    world.stack.platforms.misbehave(platform, "create comment", lost)

    post_id = order(world, account)
    for _ in range(9):
        world.stack.turn(timedelta(minutes=5))

    shown = world.delivery(post_id, account)
    assert shown["status"] == ("success" if made else "unknown")
    assert len(world.stack.platforms.calls(platform, "create comment")) == 1
    assert len(world.stack.platforms.posts(platform)) == 1 + made


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_refused_comment_leaves_the_post_and_can_be_corrected(
    world: World, platform: str
) -> None:
    account, console = member(world, platform), Console(world)
    world.stack.platforms.misbehave(platform, "create comment", "refuse", status=403, body=REFUSED)

    post_id = order(world, account)
    world.run_until(lambda: world.delivery(post_id, account)["status"] == "partial")
    letter = console.look("/dead-letters/inspect", id=console.letter_of(post_id, account))
    without = world.retry(post_id, account, options={})
    too_long = world.retry(post_id, account, options={"firstComment": "x" * 10_000})
    again = world.retry(post_id, account, options={"firstComment": "Better"})
    world.stack.settle()

    assert len(letter["evidence"]["parts"]) == 1
    assert (without.status_code, without.json()["code"]) == (422, "partly_published")
    assert [e["field"] for e in too_long.json()["errors"]] == ["delivery.options.firstComment"]
    assert again.status_code == 200
    assert world.delivery(post_id, account)["status"] == "success"
    texts = [post.text for post in world.stack.platforms.posts(platform)]
    assert texts == ["One", "Better"]


def test_a_post_that_is_not_shown_yet_is_commented_on_later(world: World) -> None:
    account = member(world, "linkedin")
    body = {"status": 404, "message": "urn:li:share:1 was not found", "code": "NOT_FOUND"}
    world.stack.platforms.misbehave("linkedin", "create comment", "refuse", status=404, body=body)

    post_id = order(world, account)
    world.stack.settle()
    at_first = world.delivery(post_id, account)
    cancelled = world.command("/cancel", post_id)
    world.run_until(lambda: world.status(post_id)["status"] == "published")

    assert (at_first["status"], at_first["errorCode"]) == ("retry", "NOT_FOUND")
    assert cancelled.json()["code"] == "too_late"
    assert len(world.stack.platforms.calls("linkedin", "create post")) == 1


def test_what_takes_no_comment_says_so_when_it_is_scheduled(world: World) -> None:
    x, linkedin = world.account("twitter"), member(world, "linkedin")
    body = world.order([x, linkedin])
    body["platforms"] = [
        {**x.target, "options": {"firstComment": "More"}},
        {**linkedin.target, "options": {"firstComment": "x" * 1251}},
    ]

    answer = world.call("/schedule", body)

    assert answer.status_code == 422
    errors = [(error["field"], error["code"]) for error in answer.json()["errors"]]
    assert errors == [
        ("platforms[0].options.firstComment", "option_invalid"),
        ("platforms[1].options.firstComment", "option_invalid"),
    ]


def test_a_comment_can_be_added_changed_and_taken_back_before_it_begins(world: World) -> None:
    account = member(world, "linkedin")
    ids = [order(world, account, content=f"Post {n}", after=timedelta(hours=1)) for n in range(3)]
    edited: list[dict[str, Any]] = [{}, {"firstComment": "Other"}, {"visibility": "PUBLIC"}]

    for post_id, options in zip(ids, edited, strict=True):
        target = {**account.target, "options": options}
        assert world.command("/edit", post_id, platforms=[target]).status_code == 200
    world.stack.turn(timedelta(hours=1))

    posts = world.stack.platforms.posts("linkedin")
    texts = {post.id: post.text for post in posts}
    comments = [(post.text, texts[post.comment_on]) for post in posts if post.comment_on]
    assert comments == [("Other", "Post 1")]


def member(world: World, platform: str) -> Account:
    """An account whose comments can be read back."""
    user_id = ORGANIZATION if platform == "linkedin" else None
    return world.account(platform, user_id=user_id)


def order(world: World, account: Account, **more: Any) -> str:
    options = {"firstComment": "More at the shop"}
    given: dict[str, Any] = {"content": "One"} | more
    if account.platform == "instagram":
        given["mediaAssetIds"] = [world.image()]
    return world.schedule(account, platforms=[{**account.target, "options": options}], **given)
