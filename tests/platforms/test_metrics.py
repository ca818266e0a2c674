"""What each platform tells of its posts, read through the real driver and held against the
platforms' contracts."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest

from shared.domain.failures import (
    AuthExpiredError,
    PermanentError,
    ThrottledError,
    TransientError,
)
from shared.platforms.base import Delivery, MetricsQuery, Platform, Published, Reading, Unread
from shared.platforms.bluesky import Bluesky
from shared.platforms.discord import Discord
from shared.platforms.facebook import Facebook
from shared.platforms.instagram import Instagram
from shared.platforms.linkedin import LinkedIn
from shared.platforms.mastodon import Mastodon
from shared.platforms.session import Collected
from shared.platforms.slack import Slack
from shared.platforms.threads import Threads
from shared.platforms.twitter import Twitter
from tests.platforms.contract import REFRESH_TOKEN, TOKEN, turn
from tests.platforms.stage import Stage, item
from tests.platforms.test_requests_match_contracts import CONTRACTS, faults

USERS = {
    "linkedin": "urn:li:organization:2414183",
    "twitter": "2244994945",
    "instagram": "17841400008460056",
    "mastodon": "109348684220",
    "bluesky": "did:plc:acme",
    "discord": "41771983423143937",
    "threads": "17841400008460057",
    "facebook": "1000000000017",
    "slack": "C024BE91L",
}
ALL = [
    *(Twitter, LinkedIn, Instagram, Mastodon, Bluesky, Discord),
    *(Threads, Facebook, Slack),
]
COUNTED = {  # one of each platform's own names
    "linkedin": "likeCount",
    "twitter": "like_count",
    "instagram": "likes",
    "mastodon": "favourites_count",
    "bluesky": "likeCount",
    "discord": "\N{THUMBS UP SIGN}",
    "threads": "likes",
    "facebook": "reactions",
    "slack": "reactions",
}
NOBODYS = {  # posts that are not there; else "1"
    "linkedin": "urn:li:share:1",
    "bluesky": "at://did:plc:acme/app.bsky.feed.post/1",
    "slack": "C024BE91L:1503435956.000247",
}
SERVER = "bread.example"  # of accounts that have one


class Desk:
    """One account on one platform, its posts, and the question for their numbers."""

    def __init__(self, stage: Stage, kind: type[Platform], user_id: str | None = None) -> None:
        self.stage, self.name = stage, kind.name
        self.user_id = user_id or USERS[kind.name]
        stage.server.add_account(kind.name, self.user_id, TOKEN, REFRESH_TOKEN)
        self.platform = kind(stage.app(kind.name))

    def publish(self, count: int = 1) -> list[str]:
        """The ids of posts that are there."""
        media = (item(1),) if self.name == "instagram" else ()
        ids = []
        for number in range(count):
            delivery = Delivery(
                f"d-{number}",
                f"k-{number}",
                f"Post {number}",
                platform_user_id=self.user_id,
                media=media,
                server=SERVER,
                attempted_at=self.stage.server.clock.now(),
            )
            published = self.stage.publish(self.platform, delivery, TOKEN)
            assert isinstance(published, Published)
            ids.append(published.remote_id)
        self.stage.server.answers.clear()
        return ids

    def count(self, post_id: str, **figures: Any) -> None:
        self.stage.server.count(self.name, post_id, **figures)

    def ask(self, ids: list[str], token: str = TOKEN) -> Collected:
        asked_at = self.stage.server.clock.now()
        query = MetricsQuery(self.user_id, tuple(ids), asked_at, SERVER)
        ends_at = time.monotonic() + 10
        return self.stage.driver.metrics(self.platform, query, token, ends_at=ends_at)

    def told(self, ids: list[str]) -> dict[str, dict[str, Any] | str]:
        """Each post's numbers without its gaps, or the code under which it is unread."""
        collected = self.ask(ids)
        assert collected.failure is None
        return {name: plain(one) for name, one in collected.told.items()}

    @property
    def calls(self) -> int:
        return len(self.stage.server.calls(self.name, "read metrics"))


def plain(told: Reading | Unread) -> dict[str, Any] | str:
    if isinstance(told, Unread):
        return told.code
    return {name: value for name, value in told.metrics.items() if value is not None}


@pytest.fixture
def x(stage: Stage) -> Desk:
    return Desk(stage, Twitter)


@pytest.fixture
def linkedin(stage: Stage) -> Desk:
    return Desk(stage, LinkedIn)


@pytest.fixture
def instagram(stage: Stage) -> Desk:
    return Desk(stage, Instagram)


@pytest.fixture
def slack(stage: Stage) -> Desk:
    return Desk(stage, Slack)


@pytest.fixture
def mastodon(stage: Stage) -> Desk:
    return Desk(stage, Mastodon)


@pytest.fixture
def bluesky(stage: Stage) -> Desk:
    return Desk(stage, Bluesky)


@pytest.fixture
def discord(stage: Stage) -> Desk:
    return Desk(stage, Discord)


@pytest.fixture
def threads(stage: Stage) -> Desk:
    return Desk(stage, Threads)


@pytest.fixture
def facebook(stage: Stage) -> Desk:
    return Desk(stage, Facebook)


@pytest.mark.skipif(not CONTRACTS.exists(), reason="waits for ../shared/contracts")
@pytest.mark.parametrize("kind", ALL)
def test_every_question_and_answer_is_in_the_contract(stage: Stage, kind: type[Platform]) -> None:
    desk = Desk(stage, kind)
    first, second = desk.publish(2)
    desk.count(first, **{COUNTED[kind.name]: 1})

    desk.ask([first, second])
    desk.ask([NOBODYS.get(kind.name, "1"), second])

    assert len(stage.server.answers) >= 2
    assert [fault for exchange in stage.server.answers for fault in faults(*exchange)] == []


# X


def test_x_tells_of_a_hundred_posts_in_one_call(x: Desk) -> None:
    ids = x.publish(3)
    x.count(ids[0], like_count=3, retweet_count=2, impression_count=70, url_link_clicks=5)

    told = x.told(ids + [str(10**17 + n) for n in range(97)])

    assert x.calls == 2  # those too old for private figures are asked for apart
    assert told[ids[0]] == {
        "impressions": 70,
        "likes": 3,
        "shares": 2,
        "comments": 0,
        "quotes": 0,
        "saves": 0,
        "clicks": 5,
    }
    assert told[str(10**17)] == "resource-not-found"
    assert len(told) == 100


def test_x_may_rename_its_fields(x: Desk) -> None:
    [post_id] = x.publish()
    x.count(post_id, retweet_count=4)
    x.stage.server.twitter.fields_name = "post.fields"

    told = x.told([post_id])

    numbers = told[post_id]
    assert isinstance(numbers, dict)
    assert numbers["shares"] == 4


def test_x_says_when_its_numbers_were_true(x: Desk) -> None:
    ids = x.publish()

    reading = x.ask(ids).told[ids[0]]

    assert isinstance(reading, Reading)
    assert reading.source_at is not None
    assert abs(reading.source_at - x.stage.server.clock.now()) < timedelta(seconds=5)


def test_x_tells_less_of_posts_older_than_a_month_and_still_tells_it(x: Desk) -> None:
    old = x.publish()
    x.count(old[0], like_count=9, url_link_clicks=5)
    turn(x.stage, timedelta(days=40))
    x.stage.server.add_account("twitter", x.user_id, "a-newer-token")

    reading = x.ask(old, "a-newer-token").told[old[0]]

    numbers = plain(reading)
    assert isinstance(numbers, dict)
    assert numbers["likes"] == 9
    assert "clicks" not in numbers


def test_an_id_that_x_cannot_read_costs_no_other_post(x: Desk) -> None:
    ids = x.publish(5)

    told = x.told([*ids[:2], "not-a-number", *ids[2:]])

    assert told["not-a-number"] == "invalid-request"
    assert all(isinstance(told[post_id], dict) for post_id in ids)


# LinkedIn


def test_linkedin_asks_for_shares_and_posts_in_their_own_lists(linkedin: Desk) -> None:
    ids = linkedin.publish(2)
    counts = {"impressionCount": 40, "uniqueImpressionsCount": 30, "likeCount": 3}
    linkedin.count(ids[0], **counts, engagement=0.075)

    told = linkedin.told(ids)

    assert linkedin.calls == 1
    assert told[ids[0]] == {"impressions": 40, "reach": 30, "likes": 3, "engagementRate": 0.075}
    assert told[ids[1]] == {}  # left out: nothing is known of it, which is not zero


def test_a_post_that_linkedin_refuses_costs_no_other_post(linkedin: Desk) -> None:
    ids = linkedin.publish(4)
    for post_id in ids:
        linkedin.count(post_id, likeCount=1)
    strangers = ["urn:li:share:1", "urn:li:ugcPost:2", "urn:li:comment:3"]

    told = linkedin.told([*ids[:1], *strangers, *ids[1:]])

    assert {told[urn] for urn in strangers} == {"ILLEGAL_ARGUMENT", "not_a_post"}
    assert all(told[post_id] == {"likes": 1} for post_id in ids)


def test_linkedin_members_figures_are_refused_with_a_reason(linkedin: Desk) -> None:
    assert linkedin.platform.metrics_refusal("urn:li:person:1") == "member_metrics_closed"
    assert linkedin.platform.metrics_refusal(USERS["linkedin"]) is None


def test_a_missing_role_is_the_whole_accounts_failure(linkedin: Desk) -> None:
    ids = linkedin.publish(3)
    linkedin.user_id = "urn:li:organization:7"

    collected = linkedin.ask(ids)

    assert type(collected.failure) is PermanentError
    assert linkedin.calls == 1


# Instagram


def test_instagram_is_asked_for_one_post_at_a_time(instagram: Desk) -> None:
    ids = instagram.publish(3)
    instagram.count(ids[0], views=12, likes=2, saved=1, total_interactions=3)
    instagram.count(ids[1], viewers=0)

    told = instagram.told([*ids, "1"])

    assert instagram.calls == 4
    assert told == {
        ids[0]: {"views": 12, "likes": 2, "saves": 1, "engagements": 3},
        ids[1]: {},  # "Not enough viewers": a gap
        ids[2]: {},
        "1": "ig_33",
    }


def test_a_post_that_instagram_has_trouble_with_costs_no_other_post(instagram: Desk) -> None:
    ids = instagram.publish(4)
    instagram.stage.server.misbehave(
        "instagram",
        "read metrics",
        "error_before",
        times=None,
        when=lambda received: received.parts["node"] == ids[1],
    )

    told = instagram.told(ids)

    assert told == {ids[0]: {}, ids[1]: "no_answer", ids[2]: {}, ids[3]: {}}


def test_an_instagram_that_is_down_is_not_asked_for_every_post(instagram: Desk) -> None:
    ids = instagram.publish(6)
    instagram.stage.server.misbehave("instagram", "read metrics", "error_before", times=None)

    collected = instagram.ask(ids)

    assert isinstance(collected.failure, TransientError)
    assert (collected.told, instagram.calls) == ({}, 3)


# Slack


def test_slack_tells_reactions_and_replies(slack: Desk) -> None:
    ids = slack.publish(2)
    slack.count(ids[0], reactions=3, reply_count=2)

    told = slack.told([*ids, NOBODYS["slack"]])

    assert told == {
        ids[0]: {"likes": 3, "comments": 2},
        ids[1]: {"likes": 0},  # nobody reacted; of replies nothing is said
        NOBODYS["slack"]: "message_not_found",
    }
    assert slack.calls == 3


# Mastodon


def test_a_mastodon_server_is_asked_for_one_status_at_a_time(mastodon: Desk) -> None:
    ids = mastodon.publish(2)
    mastodon.count(ids[0], favourites_count=3, reblogs_count=2, replies_count=1, quotes_count=4)

    told = mastodon.told([*ids, "1"])

    assert mastodon.calls == 3
    assert told == {
        ids[0]: {"likes": 3, "shares": 2, "comments": 1, "quotes": 4},
        ids[1]: {"likes": 0, "shares": 0, "comments": 0},  # quotes: a gap, on an older server
        "1": "not_found",
    }


# Bluesky


def test_bluesky_tells_of_twenty_five_posts_in_one_call(bluesky: Desk) -> None:
    ids = bluesky.publish(2)
    bluesky.count(ids[0], likeCount=3, repostCount=2, bookmarkCount=1)
    gone = [f"at://did:plc:acme/app.bsky.feed.post/{number}" for number in range(23)]

    told = bluesky.told([*ids, *gone])

    assert bluesky.calls == 1
    assert told[ids[0]] == {"likes": 3, "shares": 2, "comments": 0, "quotes": 0, "saves": 1}
    assert {told[uri] for uri in gone} == {"not_found"}


# Discord


def test_a_discord_message_tells_of_its_reactions(discord: Desk) -> None:
    ids = discord.publish(2)
    discord.count(ids[0], **{"\N{THUMBS UP SIGN}": 3, "\N{BREAD}": 2})

    told = discord.told([*ids, "1"])

    assert told == {ids[0]: {"likes": 5}, ids[1]: {"likes": 0}, "1": "not_found"}


def test_a_webhook_reads_its_own_messages_and_its_token_is_told_nobody(stage: Stage) -> None:
    desk = Desk(stage, Discord, "webhook:1234")
    ids = desk.publish()
    desk.count(ids[0], **{"\N{BREAD}": 1})

    told = desk.told(ids)
    stage.server.revoke(TOKEN)
    refused = desk.ask(ids)

    assert told == {ids[0]: {"likes": 1}}
    assert isinstance(refused.failure, AuthExpiredError)
    assert TOKEN not in str(refused.failure)


# Threads


def test_threads_replies_are_comments_and_reposts_are_shares(threads: Desk) -> None:
    ids = threads.publish(2)
    threads.count(ids[0], views=12, likes=2, replies=4, reposts=1, quotes=0, shares=9)

    told = threads.told([*ids, "1"])

    assert threads.calls == 3
    assert told == {
        ids[0]: {"views": 12, "likes": 2, "comments": 4, "shares": 1, "quotes": 0},
        ids[1]: {},
        "1": "threads_33",
    }


# Facebook


def test_facebook_is_asked_for_all_posts_at_once(facebook: Desk) -> None:
    ids = facebook.publish(3)
    insights = {"post_media_view": 70, "post_total_media_view_unique": 60, "post_clicks": 5}
    facebook.count(ids[0], reactions=3, comments=2, shares=1, **insights)

    told = facebook.told(ids)

    assert facebook.calls == 1
    assert told == {
        ids[0]: {"views": 70, "reach": 60, "clicks": 5, "likes": 3, "comments": 2, "shares": 1},
        ids[1]: {"likes": 0, "comments": 0},
        ids[2]: {"likes": 0, "comments": 0},
    }


def test_a_post_that_facebook_refuses_costs_no_other_post(facebook: Desk) -> None:
    ids = facebook.publish(2)
    facebook.count(ids[0], reactions=3)

    told = facebook.told([ids[0], "17_1", ids[1]])

    assert told["17_1"] == "fb_33"
    assert told[ids[0]] == {"likes": 3, "comments": 0}
    assert told[ids[1]] == {"likes": 0, "comments": 0}
    assert facebook.calls == 1


def test_facebook_may_drop_a_metric_and_the_others_are_still_told(facebook: Desk) -> None:
    ids = facebook.publish(2)
    facebook.count(ids[0], reactions=3, post_clicks=5)
    facebook.stage.server.facebook.insights -= {"post_media_view"}

    told = facebook.told(ids)

    assert told == {ids[0]: {"likes": 3, "comments": 0}, ids[1]: {"likes": 0, "comments": 0}}
    assert facebook.calls == 2


def test_what_facebook_has_no_time_for_is_passed_over(facebook: Desk) -> None:
    ids = facebook.publish(2)
    facebook.stage.server.facebook.slow.add(ids[0])

    told = facebook.told(ids)

    assert told == {ids[0]: "no_answer", ids[1]: {"likes": 0, "comments": 0}}


def test_a_limit_that_is_told_inside_the_answer_ends_the_reading(facebook: Desk) -> None:
    ids = facebook.publish(2)
    facebook.stage.server.facebook.throttled_inside = True

    collected = facebook.ask(ids)

    assert isinstance(collected.failure, ThrottledError)
    assert collected.told == {}


# all of them


@pytest.mark.parametrize("kind", ALL)
def test_throttles_and_refused_tokens_end_the_reading(stage: Stage, kind: type[Platform]) -> None:
    desk = Desk(stage, kind)
    ids = desk.publish(2)

    stage.server.misbehave(kind.name, "read metrics", "throttle")
    throttled = desk.ask(ids)
    stage.server.revoke(TOKEN)
    refused = desk.ask(ids)

    assert isinstance(throttled.failure, ThrottledError)
    assert isinstance(refused.failure, AuthExpiredError)
    assert TOKEN not in str(refused.failure)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("trouble", ["garbage", "drop_before", "error_before"])
def test_trouble_may_pass(stage: Stage, kind: type[Platform], trouble: Any) -> None:
    desk = Desk(stage, kind)
    ids = desk.publish()
    stage.server.misbehave(kind.name, "read metrics", trouble)

    collected = desk.ask(ids)

    assert isinstance(collected.failure, TransientError)
    assert collected.told == {}
