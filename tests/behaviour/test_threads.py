"""Threads of posts: each part is a step of its own, published once, in reply to the one before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from shared import config
from shared.domain.claims import Done
from shared.jobs import publish
from shared.jobs.publish import Knocked
from shared.runtime import Runtime
from tests.console import Console
from tests.sandbox.functions import FunctionProcess
from tests.sandbox.platforms.values import Post, Received
from tests.world import Account, World

PLATFORMS = ["twitter", "mastodon", "bluesky"]
TEXTS = ("One", "Two", "Three")


# --- a thread -------------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_thread_arrives_each_part_in_reply_to_the_one_before(world: World, platform: str) -> None:
    account = member(world, platform)

    post_id = order(world, account)
    world.stack.settle()

    assert chain(world, platform) == [("One", None), ("Two", "One"), ("Three", "Two")]
    shown, posts = world.delivery(post_id, account), world.stack.platforms.posts(platform)
    assert (shown["status"], shown["remoteId"]) == ("success", posts[0].id)
    assert [part["remoteId"] for part in shown["parts"]] == [post.id for post in posts]
    assert all(part["remoteUrl"] and part["publishedAt"] for part in shown["parts"])
    assert world.status(post_id)["status"] == "published"
    owners = world.stack.records("remoteIds").values()
    assert {owner["remoteId"] for owner in owners} == {post.id for post in posts[1:]}


def test_a_part_costs_one_commit_more(world: World) -> None:
    account = member(world, "twitter")
    world.stack.tasks.faults.lose_task(times=None)
    post_id = order(world, account)
    before = world.stack.proxy.counts("publish_post")

    answer = world.deliver(post_id, account)

    spent = world.stack.proxy.counts("publish_post") - before
    assert answer.json()["success"] is True
    # Read; claim, three marks, settle; and, since this is its last delivery, the post's status.
    assert dict(spent.calls) == {"BatchGetDocuments": 2, "Commit": 6}


def test_each_part_has_its_own_pictures(world: World) -> None:
    account = member(world, "mastodon")
    first, third = world.image("one.jpg", altText="A"), world.image("three.jpg", altText="C")
    thread = [{"content": "Two"}, {"mediaAssetIds": [third]}]

    post_id = order(world, account, thread=thread, mediaAssetIds=[first])
    world.stack.settle()

    posts = world.stack.platforms.posts("mastodon")
    assert [[item.alt_text for item in post.media] for post in posts] == [["A"], [], ["C"]]
    assert world.delivery(post_id, account)["status"] == "success"


def test_a_queue_that_delivers_each_task_twice_at_once_publishes_each_part_once(
    world: World,
) -> None:
    account = member(world, "bluesky")
    world.stack.tasks.faults.deliver_twice(at_once=True, times=None)

    post_id = order(world, account)
    world.run_until(lambda: world.status(post_id)["status"] == "published")

    assert [text for text, _ in chain(world, "bluesky")] == list(TEXTS)
    assert len(world.stack.platforms.calls("bluesky", "create post")) == 3


# --- what is wrong with it is said when it is scheduled -------------------------------------------


def test_every_part_is_held_against_the_limits_and_named(world: World) -> None:
    x, linkedin = member(world, "twitter"), world.account("linkedin")
    thread = [{"content": "fine"}, {"content": "x" * 281}, {"mediaAssetIds": ["nowhere"]}]
    body = world.order([x, linkedin], content="y" * 281)
    body["platforms"] = [{**account.target, "thread": thread} for account in (x, linkedin)]

    answer = world.call("/schedule", body)

    assert answer.status_code == 422
    errors = {(error["field"], error["code"]) for error in answer.json()["errors"]}
    assert errors == {
        ("platforms[0].content", "text_too_long"),
        ("platforms[0].thread[1].content", "text_too_long"),
        ("platforms[0].thread[2].mediaAssetIds[0]", "media_unknown"),
        ("platforms[0].thread[2].content", "content_required"),
        ("platforms[1].thread", "thread_unsupported"),
        ("platforms[1].thread[2].mediaAssetIds[0]", "media_unknown"),
    }
    [part] = [e for e in answer.json()["errors"] if e["field"].endswith("thread[1].content")]
    assert part["message"].startswith("Part 3: The text counts 281")


def test_a_thread_can_be_edited_before_it_begins(world: World) -> None:
    account = member(world, "twitter")
    post_id = order(world, account, after=timedelta(hours=1))

    too_long = edit(world, post_id, account, [{"content": "x" * 281}])
    done = edit(world, post_id, account, [{"content": "Other"}])
    world.stack.turn(timedelta(hours=1))

    assert [e["field"] for e in too_long.json()["errors"]] == ["platforms[0].thread[0].content"]
    assert done.status_code == 200
    assert chain(world, "twitter") == [("One", None), ("Other", "One")]


# --- crashes --------------------------------------------------------------------------------------


@pytest.fixture
def worker(world: World) -> Iterator[FunctionProcess]:
    """The one instance of `publish_post` that answers in this test."""
    front, instance = world.stack.fronts["publish_post"], world.stack.processes["publish_post"][0]
    everyone, front.backends = front.backends, [instance.port]
    yield instance
    front.backends = everyone


@pytest.mark.parametrize(
    ("platform", "call", "part"),
    [
        ("twitter", "create post", 1),  # accepted, and on no record
        ("mastodon", "upload", 2),  # the first is out, and on no record; nothing else is sent
        ("bluesky", "upload", 2),
        ("mastodon", "create post", 2),
        ("bluesky", "create post", 3),
    ],
)
def test_a_crash_doubles_no_part_and_loses_none(
    world: World, worker: FunctionProcess, platform: str, call: str, part: int
) -> None:
    account = member(world, platform)
    thread = [{"content": "Two", "mediaAssetIds": [world.image()]}, {"content": "Three"}]
    world.stack.platforms.misbehave(
        platform,
        call,
        "hook",
        when=lambda received: call == "upload" or about(received) == TEXTS[part - 1],
        hook=lambda *_: worker.kill_worker(),
    )

    post_id = order(world, account, thread=thread)
    world.run_until(lambda: world.status(post_id)["status"] == "published")

    assert chain(world, platform) == [("One", None), ("Two", "One"), ("Three", "Two")]
    shown = world.delivery(post_id, account)
    assert [one["outcome"] for one in shown["attempts"]].count("crashed") == 1
    ids = [post.id for post in world.stack.platforms.posts(platform)]
    assert [one["remoteId"] for one in shown["parts"]] == ids


def test_an_answer_that_comes_after_a_takeover_is_not_thrown_away(world: World) -> None:
    """The first part is out when its attempt loses the lease, just before the second one's mark."""
    account = member(world, "twitter")
    world.stack.tasks.faults.lose_task(times=None)
    post_id = order(world, account)
    second_mark = world.stack.proxy.hold("Commit", when=marks_part(1))

    with ThreadPoolExecutor(1) as pool:
        stale = pool.submit(world.deliver, post_id, account)
        second_mark.arrived()
        world.stack.clock.turn(timedelta(seconds=61))
        world.deliver(post_id, account)
        taken_over = world.delivery(post_id, account)
        second_mark.open()
        woken = stale.result()
    known = world.delivery(post_id, account)
    world.deliver(post_id, account)

    assert taken_over["status"] == "unknown"
    assert woken.json()["status"] == "accepted"
    assert [bool(part["remoteId"]) for part in known["parts"]] == [True, False, False]
    assert chain(world, "twitter") == [("One", None), ("Two", "One"), ("Three", "Two")]


def test_the_lost_answer_of_a_mark_sends_no_part_twice(world: World) -> None:
    account = member(world, "twitter")
    world.stack.proxy.lose_answer("Commit", when=marks_part(1))

    post_id = order(world, account)
    world.run_until(lambda: world.status(post_id)["status"] == "published")

    assert chain(world, "twitter") == [("One", None), ("Two", "One"), ("Three", "Two")]
    assert len(world.stack.platforms.calls("twitter", "create post")) == 3


# --- lost answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("lost", ["drop_after", "error_after"])
def test_a_part_whose_answer_is_lost_is_found_and_the_thread_goes_on(
    world: World, platform: str, lost: Any
) -> None:
    account = member(world, platform)
    world.stack.platforms.misbehave(platform, "create post", lost, when=is_about("Two"))

    post_id = order(world, account)
    world.stack.settle()
    at_first = world.delivery(post_id, account)
    world.run_until(lambda: world.status(post_id)["status"] == "published")

    assert (at_first["status"], at_first["evidence"]["committing"]["part"]) == ("unknown", 1)
    assert [bool(part["remoteId"]) for part in at_first["parts"]] == [True, False, False]
    assert chain(world, platform) == [("One", None), ("Two", "One"), ("Three", "Two")]
    ids = [post.id for post in world.stack.platforms.posts(platform)]
    assert [one["remoteId"] for one in world.delivery(post_id, account)["parts"]] == ids


@pytest.mark.parametrize("platform", ["mastodon", "bluesky"])
def test_a_part_that_never_came_is_repeated_where_that_is_safe(world: World, platform: str) -> None:
    account = member(world, platform)
    world.stack.platforms.misbehave(platform, "create post", "drop_before", when=is_about("Two"))

    post_id = order(world, account)
    world.run_until(lambda: world.status(post_id)["status"] == "published")

    assert chain(world, platform) == [("One", None), ("Two", "One"), ("Three", "Two")]
    sent = world.stack.platforms.calls(platform, "create post")
    assert [about(received) for received in sent] == ["One", "Two", "Two", "Three"]


def test_where_it_is_not_safe_a_person_orders_that_part_again(world: World) -> None:
    account = member(world, "twitter")
    world.stack.platforms.misbehave("twitter", "create post", "drop_before", when=is_about("Two"))

    post_id = order(world, account)
    for _ in range(9):
        world.stack.turn(timedelta(minutes=5))
    unknown = world.delivery(post_id, account)
    risk = {"acceptDuplicateRisk": True, "reason": "It is not on the profile."}
    rewritten = world.retry(post_id, account, content="Else", **risk)
    ordered = world.retry(post_id, account, **risk)
    world.stack.settle()

    assert (unknown["status"], unknown["nextRetryAt"]) == ("unknown", None)
    assert [bool(part["remoteId"]) for part in unknown["parts"]] == [True, False, False]
    assert rewritten.json()["errors"][0]["code"] == "partly_published"
    assert ordered.status_code == 200
    assert world.delivery(post_id, account)["status"] == "success"
    assert chain(world, "twitter") == [("One", None), ("Two", "One"), ("Three", "Two")]


def test_a_person_who_sees_the_part_lets_the_thread_go_on(world: World) -> None:
    account, console = member(world, "twitter"), Console(world)
    platforms = world.stack.platforms
    platforms.misbehave("twitter", "create post", "drop_after", when=is_about("Two"))
    platforms.misbehave("twitter", "find post", "refuse", status=403, body={"detail": "No"})
    post_id = order(world, account)
    world.stack.turn(timedelta(seconds=31))
    [listed] = console.look("/unknown")["deliveries"]
    said = {"deliveryId": listed["deliveryId"], "reason": "seen"}
    one, two = (post.id for post in platforms.posts("twitter"))

    wrong = console.act("/unknown/is-there", {**said, "remoteId": one})
    right = console.done("/unknown/is-there", {**said, "remoteId": two})
    again = console.done("/unknown/is-there", {**said, "remoteId": two})
    world.stack.settle()

    assert (listed["part"], listed["content"]) == ("2 of 3", "Two")
    assert (wrong.status_code, wrong.json()["code"]) == (409, "evidence_taken")
    assert right["success"] is again["success"] is True
    assert world.delivery(post_id, account)["status"] == "success"
    assert chain(world, "twitter") == [("One", None), ("Two", "One"), ("Three", "Two")]


def test_a_part_of_another_thread_is_no_evidence(world: World) -> None:
    account = member(world, "mastodon")
    order(world, account)
    world.stack.settle()
    misbehaving = world.stack.platforms.misbehave
    misbehaving("mastodon", "create post", "drop_before", times=None, when=is_about("Two"))

    second = order(world, account)
    for _ in range(9):
        world.stack.turn(timedelta(minutes=5))

    assert world.delivery(second, account)["status"] == "unknown"
    assert [text for text, _ in chain(world, "mastodon")] == ["One", "Two", "Three", "One"]


# --- refusals, and what is done about them --------------------------------------------------------


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_refused_part_leaves_it_partial_and_a_redrive_goes_on_from_there(
    world: World, platform: str
) -> None:
    account, console = member(world, platform), Console(world)
    refuse_part(world, platform, "Two")

    post_id = order(world, account)
    world.stack.settle()
    partial, post = world.delivery(post_id, account), world.status(post_id)
    letter_id = console.letter_of(post_id, account)
    letter = console.look("/dead-letters/inspect", id=letter_id)
    edited = console.act("/dead-letters/edit", {"id": letter_id, "content": "Else"})
    for _ in range(2):
        console.done("/dead-letters/redrive", {"ids": [letter_id], "reason": "mended"})
    world.stack.settle()

    assert partial["status"] == "partial"
    assert [bool(part["remoteId"]) for part in partial["parts"]] == [True, False, False]
    assert post["status"] == "failed"
    assert [part["remoteId"] for part in letter["evidence"]["parts"]] == [partial["remoteId"]]
    assert (edited.status_code, edited.json()["code"]) == (409, "partly_published")
    assert world.delivery(post_id, account)["status"] == "success"
    assert chain(world, platform) == [("One", None), ("Two", "One"), ("Three", "Two")]
    assert world.status(post_id)["status"] == "published"
    assert len(world.letters()) == 1


def test_the_missing_parts_can_be_corrected_and_the_published_ones_stay(world: World) -> None:
    account = member(world, "mastodon")
    refuse_part(world, "mastodon", "Two")
    post_id = order(world, account)
    world.stack.settle()

    rewritten = world.retry(post_id, account, content="Else")
    too_long = world.retry(post_id, account, thread=[{"content": "x" * 501}])
    again = world.retry(
        post_id, account, thread=[{"content": "Better", "mediaAssetIds": [world.image()]}]
    )
    world.stack.settle()

    assert (rewritten.status_code, rewritten.json()["code"]) == (422, "partly_published")
    assert [error["field"] for error in too_long.json()["errors"]] == ["delivery.thread[0].content"]
    assert again.status_code == 200
    assert chain(world, "mastodon") == [("One", None), ("Better", "One")]
    assert world.delivery(post_id, account)["status"] == "success"


def test_a_reply_to_what_was_taken_down_is_refused_and_partial(world: World) -> None:
    account = member(world, "bluesky")
    platforms = world.stack.platforms

    def take_down(*_: Any) -> None:
        platforms.bluesky.records.clear()

    platforms.misbehave("bluesky", "create post", "hook", hook=take_down)

    post_id = order(world, account)
    world.stack.settle()

    assert world.delivery(post_id, account)["status"] == "partial"
    assert world.delivery(post_id, account)["errorCode"] == "parent_gone"


# --- time runs out --------------------------------------------------------------------------------


def test_where_a_request_has_no_time_left_another_task_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = member(world, "twitter")
    world.stack.tasks.faults.lose_task()
    post_id = order(world, account)
    for name, value in world.stack.environment("publish_post").items():
        monkeypatch.setenv(name, value)
    runtime = Runtime(config.load(), "publish_post")
    for_one = time.monotonic() + publish.PART_SECONDS

    outcome = publish.run(Knocked(post_id, "twitter", account.id, None, None, for_one), runtime)
    world.stack.settle()

    assert isinstance(outcome, Done)
    assert (outcome.log.status, outcome.log.part, outcome.log.attempts_spent) == ("accepted", 1, 0)
    assert chain(world, "twitter") == [("One", None), ("Two", "One"), ("Three", "Two")]
    outcomes = [one["outcome"] for one in world.delivery(post_id, account)["attempts"]]
    assert outcomes == ["success", "success"]


def test_an_answer_that_names_an_earlier_part_is_no_answer(world: World) -> None:
    account = member(world, "mastodon")
    platforms = world.stack.platforms
    lie = platforms.misbehave(
        "mastodon", "create post", "refuse", status=200, body={}, when=is_about("Two")
    )
    platforms.misbehave(
        "mastodon",
        "create post",
        "hook",
        when=is_about("One"),
        hook=lambda _, answer: lie.how.update(body=answer.body),
    )

    post_id = order(world, account)
    world.stack.settle()
    at_first = world.delivery(post_id, account)
    world.run_until(lambda: world.status(post_id)["status"] == "published")

    assert (at_first["status"], at_first["errorCode"]) == ("unknown", "known_remote_id")
    assert chain(world, "mastodon") == [("One", None), ("Two", "One"), ("Three", "Two")]


# --- waiting in the middle ------------------------------------------------------------------------


def test_a_throttle_in_the_middle_is_waited_for_and_nothing_can_be_changed_then(
    world: World,
) -> None:
    account = member(world, "twitter")
    world.stack.platforms.misbehave(
        "twitter", "create post", "throttle", seconds=600, when=is_about("Two")
    )

    post_id = order(world, account)
    world.stack.settle()
    waiting = world.delivery(post_id, account)
    cancelled = world.command("/cancel", post_id)
    edited = edit(world, post_id, account, [{"content": "Other"}])
    moved = world.command(
        "/reschedule",
        post_id,
        scheduledAt=(world.stack.clock.now() + timedelta(hours=1)).isoformat(),
    )
    retried = world.retry(post_id, account)
    world.run_until(lambda: world.status(post_id)["status"] == "published")

    assert (waiting["status"], waiting["attemptsSpent"]) == ("waiting", 0)
    for answer in (cancelled, edited, moved):
        assert (answer.status_code, answer.json()["code"]) == (409, "too_late")
        [refused] = answer.json()["refused"]
        assert refused["message"] == "Parts of it are published (1 of 3); the others follow."
    assert retried.json()["code"] == "not_retryable"
    assert chain(world, "twitter") == [("One", None), ("Two", "One"), ("Three", "Two")]


def test_what_cannot_follow_in_time_is_partial(world: World) -> None:
    account = member(world, "twitter")
    world.stack.platforms.misbehave(
        "twitter", "create post", "throttle", seconds=7200, when=is_about("Two")
    )
    latest = world.stack.clock.now() + timedelta(hours=1)

    post_id = order(world, account, latestAt=latest.isoformat())
    world.stack.turn(timedelta(hours=1, minutes=3))
    missed = world.delivery(post_id, account)

    assert (missed["status"], missed["errorCode"]) == ("partial", "missed")
    assert len(world.letters(reason="missed")) == 1


@pytest.mark.parametrize("platform", ["twitter", "bluesky"])
def test_a_token_that_ends_in_the_middle_is_refreshed_and_no_part_repeated(
    world: World, platform: str
) -> None:
    account = member(world, platform)
    platforms = world.stack.platforms

    def end_token(*_: Any) -> None:
        dialect = getattr(platforms, platform)
        dialect.tokens[account.access_token].expires_at = platforms.clock.now()

    platforms.misbehave(platform, "create post", "hook", hook=end_token)

    post_id = order(world, account)
    world.stack.settle()

    assert world.delivery(post_id, account)["status"] == "success"
    assert chain(world, platform) == [("One", None), ("Two", "One"), ("Three", "Two")]
    assert len(platforms.calls(platform, "refresh")) == 1


# --- saying and seeing it -------------------------------------------------------------------------


def member(world: World, platform: str) -> Account:
    """An account of a platform that takes threads."""
    if platform == "twitter":
        return world.account(platform)
    user_id = {"mastodon": "109348", "bluesky": "did:plc:acme"}[platform]
    return world.account(platform, user_id=user_id, server="bread.example")


def order(world: World, account: Account, *, thread: Any = None, **more: Any) -> str:
    """A thread of three, unless `thread` says what follows the first."""
    following = thread or [{"content": text} for text in TEXTS[1:]]
    target = {**account.target, "thread": following}
    return world.schedule(account, content="One", platforms=[target], **more)


def edit(world: World, post_id: str, account: Account, thread: Any) -> Any:
    return world.command("/edit", post_id, platforms=[{**account.target, "thread": thread}])


def refuse_part(world: World, platform: str, text: str) -> None:
    """For once, in words that all of them use somehow."""
    body = {"error": "InvalidRequest", "message": "No", "detail": "No"}
    misbehave = world.stack.platforms.misbehave
    misbehave(platform, "create post", "refuse", status=403, body=body, when=is_about(text))


def about(received: Received) -> str:
    """The text that a creating call brings."""
    body = received.json()
    text: str = (body.get("record") or body).get("text") or body.get("status", "")
    return text


def is_about(text: str) -> Any:
    return lambda received: about(received) == text


def chain(world: World, platform: str) -> list[tuple[str, str | None]]:
    """Each post's text, and that of the post that it replies to."""
    posts = world.stack.platforms.posts(platform)
    texts = {post.id: post.text for post in posts}
    found = []
    for post in posts:
        above = parent(post)
        found.append((post.text, texts[above] if above else None))
    return found


def parent(post: Post) -> str | None:
    match post.fields:
        case {"in_reply_to_id": str(above)}:
            return above
        case {"reply": {"in_reply_to_tweet_id": str(above)}}:
            return above
        case {"reply": {"parent": {"uri": str(above)}}}:
            return above
    return None


def marks_part(part: int) -> Any:
    """Whether a call writes the committing mark of this part."""

    def writes_it(request: Any) -> bool:
        marks = [
            write.update.fields["committing"].map_value.fields
            for write in request.writes
            if "committing" in write.update.fields
        ]
        return any("at" in mark and mark["part"].integer_value == part for mark in marks)

    return writes_it
