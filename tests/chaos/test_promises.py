"""A judge that cannot find a fault proves nothing: each one is made by hand, past our code."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.chaos.promises import Kind, Ordered, Verdict, fresh_mark, judge, table
from tests.world import World


@pytest.fixture
def published(world: World) -> Ordered:
    ordered = order(world, "twitter")
    world.stack.settle()
    return ordered


def order(world: World, platform: str, **more: Any) -> Ordered:
    account, mark = world.account(platform), fresh_mark()
    post_id = world.schedule(account, content=f"Bread {mark} today", **more)
    return Ordered(post_id, platform, account.id, account.user_id, (mark,))


def found(world: World, ordered: Ordered) -> set[Kind]:
    [verdict] = judge(world.stack, [ordered])
    return {finding.kind for finding in verdict.findings}


def log_of(world: World, ordered: Ordered) -> Any:
    return world.stack.db.document("publishLogs", ordered.delivery_id)


def test_what_went_well_is_found_so(world: World, published: Ordered) -> None:
    [verdict] = judge(world.stack, [published])

    assert (verdict.status, verdict.findings) == ("success", ())
    assert verdict.rests_since is not None


def test_a_second_post_is_a_double_unless_a_person_ordered_it(
    world: World, published: Ordered
) -> None:
    x = world.stack.platforms.twitter
    x.posts.append(replace(x.posts[0], id="4711"))

    assert found(world, published) == {Kind.DOUBLE}
    assert found(world, replace(published, sends=2)) == set()


def test_a_success_of_which_nothing_is_there_is_a_loss(world: World, published: Ordered) -> None:
    world.stack.platforms.twitter.posts.clear()

    assert Kind.LOSS in found(world, published)


def test_what_is_open_past_its_limit_is_a_loss(world: World) -> None:
    world.stack.tasks.faults.lose_task(times=None)
    ordered = order(world, "twitter")

    before = found(world, ordered)
    world.stack.turn(timedelta(hours=24, minutes=6))

    assert (before, found(world, ordered)) == (set(), {Kind.LOSS})


def test_an_accepted_delivery_without_a_record_is_a_loss(world: World) -> None:
    nowhere = Ordered("p-none", "twitter", "twitter-1", "1", (fresh_mark(),))

    assert found(world, nowhere) == {Kind.LOSS}


def test_a_success_that_names_another_post_is_a_lie(world: World, published: Ordered) -> None:
    log_of(world, published).update({"remoteId": "4711"})

    assert found(world, published) == {Kind.LIE}


@pytest.mark.parametrize("status", ["failed", "missed", "cancelled"])
def test_an_end_without_success_is_a_lie_where_the_post_is_there(
    world: World, published: Ordered, status: str
) -> None:
    log_of(world, published).update({"status": status})

    assert Kind.LIE in found(world, published)


def test_unknown_is_allowed_where_nothing_can_be_read_back_alone(
    world: World, published: Ordered
) -> None:
    world.stack.platforms.misbehave("linkedin", "create post", "drop_after")
    member = order(world, "linkedin")
    world.stack.settle()
    since = world.stack.clock.now()
    unknown = {"status": "unknown", "unsettledSince": since, "parts": []}
    log_of(world, published).update(unknown)

    assert Kind.UNKNOWN in found(world, published)  # X shows it to whoever looks
    assert found(world, member) == set()


@pytest.mark.parametrize(
    ("code", "latest", "ended", "allowed"),
    [
        ("auth_expired", 60, 30, True),  # until the last look
        ("account_disconnected", 60, 30, True),
        ("auth_expired", 60, 29, False),
        ("not_found", 60, 30, False),  # it is there
        ("missed", 29, 29, True),
        ("missed", 60, 60, False),
    ],
)
def test_unknown_is_allowed_where_there_was_no_token_or_no_time_to_look(
    world: World, published: Ordered, code: str, latest: int, ended: int, allowed: bool
) -> None:
    since = world.stack.clock.now()
    unknown = {
        "status": "unknown",
        "unsettledSince": since,
        "errorCode": code,
        "latestAt": since + timedelta(minutes=latest),
        "updatedAt": since + timedelta(minutes=ended),
        "parts": [],
    }
    log_of(world, published).update(unknown)

    assert (Kind.UNKNOWN not in found(world, published)) is allowed


@pytest.fixture
def thread(world: World) -> Ordered:
    """Of two parts, published."""
    account, marks = world.account("twitter"), (fresh_mark(), fresh_mark())
    target = account.target | {"thread": [{"content": f"More {marks[1]}"}]}
    post_id = world.schedule(account, content=f"Bread {marks[0]}", platforms=[target])
    world.stack.settle()
    return Ordered(post_id, account.platform, account.id, account.user_id, marks)


def test_a_thread_is_as_it_says_part_by_part(world: World, thread: Ordered) -> None:
    log, as_it_is = log_of(world, thread), found(world, thread)
    first, second = log.get().to_dict()["parts"]

    log.update({"parts": [first, first]})
    named_twice = found(world, thread)
    log.update({"parts": [first]})
    a_part_less = found(world, thread)
    log.update({"parts": [first, second]})
    world.stack.platforms.delete("twitter", second["remoteId"])

    assert as_it_is == set()
    assert Kind.LIE in named_twice
    assert Kind.LIE in a_part_less
    assert Kind.LIE in found(world, thread)


def test_a_partial_thread_names_all_that_is_there(world: World, thread: Ordered) -> None:
    log = log_of(world, thread)
    first, _ = log.get().to_dict()["parts"]
    log.update({"status": "partial", "parts": [first]})

    assert Kind.LIE in found(world, thread)


def test_the_unknown_part_of_a_thread_must_be_found_where_it_is_there(
    world: World, thread: Ordered
) -> None:
    log = log_of(world, thread)
    first, second = log.get().to_dict()["parts"]
    since = world.stack.clock.now()
    log.update({"status": "unknown", "parts": [first], "unsettledSince": since})

    there = found(world, thread)
    world.stack.platforms.delete("twitter", second["remoteId"])

    assert Kind.UNKNOWN in there
    assert Kind.UNKNOWN not in found(world, thread)


def test_an_unknown_one_without_a_trace_of_a_call_is_found(world: World) -> None:
    member = order(world, "linkedin", after=timedelta(hours=1))
    log_of(world, member).update({"status": "unknown"})

    assert Kind.UNKNOWN in found(world, member)


@pytest.mark.parametrize("wrong", [{"open": 1}, {"status": "processing"}, {"results": {}}])
def test_a_post_that_tells_what_is_not_so_is_found(
    world: World, published: Ordered, wrong: dict[str, Any]
) -> None:
    world.stack.db.document("scheduledPosts", published.post_id).update(wrong)

    assert found(world, published) == {Kind.ROLL_UP}


def test_an_end_without_its_dead_letter_is_found_and_a_letter_without_its_end(
    world: World, published: Ordered
) -> None:
    world.stack.platforms.misbehave("linkedin", "create post", "refuse", status=400, body={})
    refused = order(world, "linkedin")
    world.stack.settle()
    letter = world.stack.db.document("deadLetters", f"{refused.delivery_id}-1")
    as_it_should_be, text = found(world, refused), letter.get().to_dict() or {}

    letter.delete()
    world.stack.db.document("deadLetters", f"{published.delivery_id}-1").set(text)

    assert as_it_should_be == set()
    assert found(world, refused) == {Kind.LETTER}
    assert found(world, published) == {Kind.LETTER}


def test_the_table_counts_by_guarantee_and_in_all(world: World, published: Ordered) -> None:
    x = world.stack.platforms.twitter
    x.posts.append(replace(x.posts[0], id="4711"))
    [verdict] = judge(world.stack, [published])
    took: list[Verdict] = [
        replace(verdict, recovery=timedelta(seconds=seconds)) for seconds in (60, 90, 400)
    ]

    rows = table(took)

    assert [(row["guarantee"], row["ran"], row["doubles"]) for row in rows] == [
        ("readback", 3, 3),
        ("all", 3, 3),
    ]
    assert (rows[0]["median"], rows[0]["worst"]) == ("90 s", "400 s")
