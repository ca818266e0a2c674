"""Deliveries that nobody knows the outcome of, settled by a person who has looked. They are to
members of LinkedIn, whose posts only a person can read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.console import Console
from tests.world import COMPANY, Account, World


@pytest.fixture
def console(world: World) -> Console:
    return Console(world)


def test_it_is_there_rolls_the_post_up_to_published(console: Console) -> None:
    world, member = console.world, console.world.account("linkedin")
    post_id = console.unknown(member, "error_after")
    [post] = console.stack.platforms.posts("linkedin")
    said = sighting(console, post_id, member, post.id)

    [listed] = console.look("/unknown", platform="linkedin")["deliveries"]
    settled = console.done("/unknown/is-there", said)
    again = console.done("/unknown/is-there", said)

    assert listed["deliveryId"] == said["deliveryId"]
    assert settled == again
    assert (settled["status"], settled["postStatus"]) == ("success", "published")
    delivery = world.delivery(post_id, member)
    assert (delivery["status"], delivery["remoteId"]) == ("success", post.id)
    stored = console.stack.record("scheduledPosts", post_id)
    assert stored is not None
    assert (stored["status"], stored["open"]) == ("published", 0)
    [owner] = console.stack.records("remoteIds").values()
    assert owner["deliveryId"] == delivery["deliveryId"]
    assert console.look("/unknown")["deliveries"] == []
    assert len(console.stack.platforms.calls("linkedin", "create post")) == 1
    assert console.audit("action", "by", "why", "deliveryId", "remoteId") == [
        (
            "unknown.is_there",
            console.stack.email("operator"),
            "seen on the page",
            delivery["deliveryId"],
            post.id,
        )
    ]


def test_a_post_that_belongs_to_another_delivery_settles_nothing(console: Console) -> None:
    world, member = console.world, console.world.account("linkedin")
    published = world.schedule(member)
    console.stack.settle()
    [post] = console.stack.platforms.posts("linkedin")
    other = world.account("linkedin")
    post_id = console.unknown(other)

    answer = console.act("/unknown/is-there", sighting(console, post_id, other, post.id))

    assert answer.status_code == 409
    assert answer.json()["code"] == "evidence_taken"
    assert answer.json()["belongsTo"] == world.delivery(published, member)["deliveryId"]
    assert world.delivery(post_id, other)["status"] == "unknown"
    assert console.audit("action") == []


def test_two_deliveries_cannot_be_given_the_same_post_at_once(console: Console) -> None:
    accounts = [console.world.account("linkedin") for _ in range(2)]
    posts = [console.unknown(account) for account in accounts]
    said = [
        sighting(console, post, account, "urn:li:share:1789")
        for post, account in zip(posts, accounts, strict=True)
    ]
    both = console.stack.proxy.hold(
        "Commit", when=lambda request: "unknown.is_there" in str(request), times=2
    )

    with ThreadPoolExecutor(2) as pool:
        racing = [pool.submit(console.act, "/unknown/is-there", body) for body in said]
        both.arrived(2)
        both.open()
        statuses = sorted(one.result().status_code for one in racing)

    assert statuses == [200, 409]
    assert len(console.stack.records("remoteIds")) == 1
    assert len(console.audit("action")) == 1


def test_send_it_again_takes_a_risk_a_reason_and_a_name(console: Console) -> None:
    world, member = console.world, console.world.account("linkedin")
    post_id = console.unknown(member)
    delivery = world.delivery(post_id, member)["deliveryId"]
    body = {"deliveryId": delivery, "reason": "not on the page"}

    plain = console.act("/unknown/send-again", body)
    sent = console.done("/unknown/send-again", {**body, "acceptDuplicateRisk": True})
    console.stack.settle()
    settled = console.act("/unknown/send-again", {**body, "acceptDuplicateRisk": True})

    assert plain.status_code == 400
    assert "there will be two" in sent["message"]
    assert world.delivery(post_id, member)["status"] == "success"
    assert len(console.stack.platforms.posts("linkedin")) == 1
    assert settled.status_code == 409
    assert console.audit("action", "by", "why", "companyId") == [
        ("send_again", console.stack.email("operator"), "not on the page", COMPANY)
    ]


def sighting(console: Console, post_id: str, account: Account, remote: str) -> dict[str, str]:
    return {
        "deliveryId": console.world.delivery(post_id, account)["deliveryId"],
        "remoteId": remote,
        "reason": "seen on the page",
    }
