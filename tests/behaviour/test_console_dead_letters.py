"""Dead letters in an operator's hands: found, read, corrected, sent again once, discarded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from tests.console import Console
from tests.world import COMPANY, World


@pytest.fixture
def console(world: World) -> Console:
    return Console(world)


def test_a_redrive_sends_the_post_again_and_closes_its_letter(console: Console) -> None:
    world, twitter = console.world, console.world.account("twitter")
    post_id = console.refused(twitter)
    letter_id = console.letter_of(post_id, twitter)

    before = console.look("/status")
    answer = console.done("/dead-letters/redrive", {"ids": [letter_id], "reason": "mended"})
    console.stack.settle()

    assert before["counts"]["openDeadLetters"] == 1
    assert "1 dead letters are open" in before["message"]
    assert answer["message"] == "1 of 1 dead letters are sent again."
    delivery = world.delivery(post_id, twitter)
    assert (delivery["status"], delivery["generation"]) == ("success", 2)
    assert world.status(post_id)["status"] == "published"
    assert len(console.stack.platforms.posts("twitter")) == 1
    assert console.look("/status")["message"] == "Nothing is stuck."
    operator = console.stack.email("operator")
    assert console.audit("action", "by", "why", "deliveryId", "companyId") == [
        ("dead_letter.redrive", operator, "mended", delivery["deliveryId"], COMPANY)
    ]


def test_two_processes_that_redrive_at_once_send_once_and_say_the_same(console: Console) -> None:
    twitter = console.world.account("twitter")
    post_id = console.refused(twitter)
    body = {"ids": [console.letter_of(post_id, twitter)]}
    both_read = console.stack.proxy.hold(
        "BatchGetDocuments",
        when=lambda request: any("/deadLetters/" in name for name in request.documents),
        times=2,
        after=True,
    )

    with ThreadPoolExecutor(2) as pool:
        racing = [pool.submit(console.done, "/dead-letters/redrive", body) for _ in range(2)]
        both_read.arrived(2)
        both_read.open()
        answers = [one.result() for one in racing]
    later = console.done("/dead-letters/redrive", body)
    console.stack.settle()

    assert answers[0] == answers[1] == later
    assert answers[0]["results"][0]["outcome"] == "redriven"
    assert len(console.stack.platforms.posts("twitter")) == 1
    assert console.world.delivery(post_id, twitter)["generation"] == 2
    assert len(console.audit("action")) == 1


def test_whoever_is_overtaken_between_two_reads_is_told_the_same(console: Console) -> None:
    twitter = console.world.account("twitter")
    post_id = console.refused(twitter)
    body = {"ids": [console.letter_of(post_id, twitter)]}
    reads = iter((False, True))  # its letter alone, and again after its delivery
    overtaken = console.stack.proxy.hold(
        "BatchGetDocuments",
        when=lambda request: (
            any("/deadLetters/" in name for name in request.documents) and next(reads, False)
        ),
    )

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(console.done, "/dead-letters/redrive", body)
        overtaken.arrived()
        quick = console.done("/dead-letters/redrive", body)
        overtaken.open()
        late = slow.result()
    console.stack.settle()

    assert late == quick
    assert len(console.stack.platforms.posts("twitter")) == 1
    assert len(console.audit("action")) == 1


def test_a_redrive_by_filter_rehearses_and_then_sends_only_what_matches(console: Console) -> None:
    world = console.world
    posts = [console.refused(world.account("twitter")) for _ in range(2)]
    other = console.refused(world.account("linkedin"))
    records = {name: console.stack.records(name) for name in ("deadLetters", "publishLogs")}
    wanted = {"filter": {"companyId": COMPANY, "platform": "twitter"}}

    rehearsed = console.done("/dead-letters/redrive", {**wanted, "dryRun": True})
    unchanged = {name: console.stack.records(name) for name in records}
    sent = console.done("/dead-letters/redrive", wanted)
    console.stack.settle()

    assert rehearsed["message"] == "2 of 2 dead letters would be sent again."
    assert {one["outcome"] for one in rehearsed["results"]} == {"would_be_redriven"}
    assert unchanged == records
    assert sent["redriven"] == 2
    assert [world.status(post)["status"] for post in posts] == ["published", "published"]
    assert world.status(other)["status"] == "failed"
    assert len(console.stack.platforms.posts("twitter")) == 2
    assert len(console.audit("action")) == 2


def test_letters_are_listed_by_filter_and_page_and_inspected_with_evidence(
    console: Console,
) -> None:
    world, twitter = console.world, console.world.account("twitter")
    posts = [console.refused(twitter) for _ in range(3)]
    elsewhere = console.refused(world.account("linkedin"))
    letters = [console.letter_of(post_id, twitter) for post_id in posts]

    where: dict[str, Any] = {
        "platform": "twitter",
        "status": "open",
        "accountId": twitter.id,
        "limit": 2,
    }
    first = console.look("/sync/dead-letters", **where)
    last = console.look("/dead-letters", **where, cursor=first["nextCursor"])
    whole = console.look("/dead-letters/inspect", id=letters[0])
    none = console.look("/dead-letters", reason="missed")

    shown = [one["deadLetterId"] for one in first["deadLetters"] + last["deadLetters"]]
    assert shown == letters[::-1]
    assert last["nextCursor"] is None
    assert elsewhere not in str(first)
    assert whole["delivery"]["status"] == "failed"
    assert whole["evidence"]["attempts"][0]["httpStatus"] == 403
    assert whole["message"].startswith("You are not permitted")
    assert none["deadLetters"] == []


def test_an_edited_letter_keeps_to_the_limits_and_is_sent_as_edited(console: Console) -> None:
    twitter = console.world.account("twitter")
    post_id = console.refused(twitter, content="Hello from Acne")
    letter_id = console.letter_of(post_id, twitter)
    body = {"id": letter_id, "content": "Hello from Acme", "mediaAssetIds": []}

    too_long = console.act("/dead-letters/edit", {"id": letter_id, "content": "x" * 300})
    edited = console.done("/dead-letters/edit", {**body, "reason": "a typing error"})
    console.done("/dead-letters/redrive", {"ids": [letter_id]})
    console.stack.settle()
    too_late = console.act("/dead-letters/edit", body)

    assert too_long.status_code == 422
    assert too_long.json()["errors"][0]["code"] == "text_too_long"
    assert edited["edited"] == ["content", "media"]
    [post] = console.stack.platforms.posts("twitter")
    assert post.text == "Hello from Acme"
    assert too_late.status_code == 409
    assert console.audit("action") == [("dead_letter.edit",), ("dead_letter.redrive",)]


def test_a_missed_one_is_sent_again_only_with_a_new_latest_time(console: Console) -> None:
    world, twitter = console.world, console.world.account("twitter")
    console.stack.tasks.faults.lose_task(times=1)
    post_id = world.schedule(twitter)
    console.stack.settle()
    console.stack.clock.turn(timedelta(hours=25))
    world.sweep()
    letter_id = console.letter_of(post_id, twitter)
    tomorrow = (console.stack.clock.now() + timedelta(days=1)).isoformat()

    refused = console.act("/dead-letters/redrive", {"ids": [letter_id]})
    sent = console.act("/dead-letters/redrive", {"ids": [letter_id], "latestAt": tomorrow})
    console.stack.settle()

    assert refused.status_code == 409
    assert refused.json()["code"] == "latest_at_needed"
    assert "give a new latestAt" in refused.json()["detail"]
    assert sent.status_code == 200
    assert world.delivery(post_id, twitter)["status"] == "success"


def test_a_malformed_one_cannot_be_sent_again_and_says_what_to_do(console: Console) -> None:
    console.stack.post("publish_post", "/", {"what": "?"}, role="tasks")
    [letter_id] = console.stack.records("deadLetters")

    redriven = console.act("/dead-letters/redrive", {"ids": [letter_id]})
    discarded = console.done("/dead-letters/discard", {"ids": [letter_id], "reason": "a test"})

    assert redriven.status_code == 409
    assert redriven.json()["code"] == "malformed"
    assert "discard it" in redriven.json()["detail"]
    assert discarded["success"] is True


def test_a_discarded_letter_is_never_sent_and_its_reason_is_kept(console: Console) -> None:
    twitter = console.world.account("twitter")
    post_id = console.refused(twitter)
    letter_id = console.letter_of(post_id, twitter)

    unreasoned = console.act("/dead-letters/discard", {"ids": [letter_id]})
    first = console.done("/dead-letters/discard", {"ids": [letter_id], "reason": "out of date"})
    again = console.done("/dead-letters/discard", {"ids": [letter_id], "reason": "once more"})
    redriven = console.act("/dead-letters/redrive", {"ids": [letter_id]})
    console.stack.settle()

    assert unreasoned.status_code == 400
    assert first == again
    assert redriven.status_code == 409
    assert "out of date" in redriven.json()["detail"]
    assert console.stack.platforms.posts("twitter") == []
    assert console.audit("action", "why") == [("dead_letter.discard", "out of date")]


def test_a_discard_between_a_redrives_read_and_its_commit_wins(console: Console) -> None:
    twitter = console.world.account("twitter")
    post_id = console.refused(twitter)
    body = {"ids": [console.letter_of(post_id, twitter)]}
    redrive_read = console.stack.proxy.hold(
        "Commit",
        when=lambda request: "dead_letter.redrive" in str(request),
    )

    with ThreadPoolExecutor(1) as pool:
        redriving = pool.submit(console.act, "/dead-letters/redrive", body)
        redrive_read.arrived()
        discarded = console.done("/dead-letters/discard", {**body, "reason": "out of date"})
        redrive_read.open()
        redriven = redriving.result()
    console.stack.settle()

    assert discarded["success"] is True
    assert redriven.status_code == 409
    assert console.stack.platforms.posts("twitter") == []
    assert console.audit("action") == [("dead_letter.discard",)]


def test_an_open_letter_has_a_copy_in_the_paused_queue_that_is_void_when_run(
    console: Console,
) -> None:
    twitter = console.world.account("twitter")
    post_id = console.refused(twitter)
    letter_id = console.letter_of(post_id, twitter)

    swept = [console.world.sweep()["copied"] for _ in range(2)]
    copies = [task.id for task in console.stack.tasks.tasks("default-dlq")]
    by_hand = console.stack.tasks.deliver(letter_id)
    [queue] = console.look("/queues", queue="default-dlq")["queues"]
    console.done("/dead-letters/discard", {"ids": [letter_id], "reason": "out of date"})

    assert swept == [1, 0]
    assert copies == [letter_id]
    assert by_hand.status == 200
    assert (queue["state"], queue["depth"]) == ("paused", 1)
    assert console.stack.platforms.posts("twitter") == []
    assert console.stack.tasks.tasks("default-dlq") == []
