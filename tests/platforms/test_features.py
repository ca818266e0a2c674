"""Each feature at work, for every adapter that declares it: what README's table calls a yes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from shared.domain.accounts import Tokens
from shared.domain.failures import OutcomeUnknownError
from shared.domain.media import MediaItem
from shared.platforms.base import Delivery, MetricsQuery, Platform, Processing, Published, Reading
from shared.platforms.features import FEATURES, accounts
from shared.platforms.registry import NAMES, platform_class
from tests.platforms.contract import (
    LINK,
    REFRESH_TOKEN,
    TEXT,
    TOKEN,
    PlatformContract,
    Refreshes,
    Threads,
    contract_of,
)
from tests.platforms.stage import Stage, bytes_of, item
from tests.sandbox.platforms.values import Post

# Why not, where an adapter does not say: a guarantee says what it rests on instead, and whoever is
# one company has one server.
SAID_ELSEWHERE = frozenset({"native guard", "read-back", "own server"})
FILM = item(1, "video/mp4", width=4, height=3, duration_ms=2500)
SHOWN: list[str] = []


@dataclass(frozen=True)
class Actor:
    """One kind of account, before its platform's server."""

    stage: Stage
    contract: PlatformContract
    platform: Platform
    user_id: str

    def delivery(self, **changes: Any) -> Delivery:
        media = (item(9),) if self.platform.limits.required_media else ()
        about = {"media": media, "platform_user_id": self.user_id}
        at = self.stage.server.clock.now()
        return self.contract.delivery(**(about | {"attempted_at": at} | changes))

    def publish(self, token: str = TOKEN, **changes: Any) -> Post:
        """Publish, as often as the platform wants to be asked again; the post that it then has."""
        delivery = self.delivery(**changes)
        outcome = self.stage.publish(self.platform, delivery, token)
        while isinstance(outcome, Processing):
            delivery = replace(delivery, state=outcome.state)
            outcome = self.stage.publish(self.platform, delivery, token)
        [post] = [post for post in self.posts if post.id == outcome.remote_id]
        return post

    def lose_the_answer(self) -> Delivery:
        """Publish, and hear nothing of it; what is on record then."""
        since = self.stage.server.clock.now()
        self.stage.server.misbehave(self.platform.name, self.contract.create, "drop_after")
        with pytest.raises(OutcomeUnknownError):
            self.stage.publish(self.platform, self.delivery(), TOKEN)
        state = self.stage.kept[-1] if self.stage.kept else {}
        return self.delivery(state=state, unsettled_since=since)

    @property
    def posts(self) -> list[Post]:
        return self.stage.server.posts(self.platform.name)


@pytest.fixture
def actor(request: pytest.FixtureRequest, stage: Stage) -> Actor:
    name, user_id = request.param
    contract = contract_of(name, user_id)
    account = user_id if platform_class(name).account_kinds else contract.user_id
    stage.server.add_account(name, account, TOKEN, REFRESH_TOKEN, handle="acme")
    return Actor(stage, contract, platform_class(name)(stage.app(name)), account)


def shows(feature: str) -> Callable[[Any], Any]:
    """Run the test for each kind of account whose adapter declares the feature."""
    SHOWN.append(feature)
    return pytest.mark.parametrize("actor", list(_declared(feature)), indirect=True)


def _declared(feature: str) -> Iterator[Any]:
    for name in NAMES:
        platform = platform_class(name)()
        for account, user_id in accounts(platform).items():
            if FEATURES[feature](platform, user_id):
                yield pytest.param((name, user_id), id=f"{name} {account}".strip())


@shows("text alone")
def test_a_text_arrives_as_it_was_written(actor: Actor) -> None:
    post = actor.publish(text="Ünïcode 日本 🎉, <b> & C# \\ https://a.example/b_c?d=1#e")

    assert post.text == "Ünïcode 日本 🎉, <b> & C# \\ https://a.example/b_c?d=1#e"
    assert post.media == ()


@shows("link card")
def test_a_link_is_shown_as_a_card(actor: Actor) -> None:
    assert actor.platform.link_card is not None

    post = actor.publish(options={actor.platform.link_card: actor.contract.card})

    assert LINK in json.dumps(post.fields)
    assert post.text == TEXT


@shows("image")
def test_an_image_arrives(actor: Actor) -> None:
    assert hashes(actor.publish(media=(item(1),))) == contents(item(1))


@shows("images")
def test_the_most_images_arrive_in_their_order(actor: Actor) -> None:
    media = tuple(item(number) for number in range(actor.platform.limits.media_items, 0, -1))

    assert hashes(actor.publish(media=media)) == contents(*media)


@shows("alt text")
def test_an_alt_text_arrives_with_its_image(actor: Actor) -> None:
    post = actor.publish(media=(item(1), item(2, alt_text="A loaf")))

    assert [shown.alt_text for shown in post.media] == [None, "A loaf"]


@shows("video")
def test_a_video_arrives(actor: Actor) -> None:
    assert hashes(actor.publish(media=(FILM,))) == contents(FILM)


@shows("options")
def test_an_option_arrives(actor: Actor) -> None:
    options, arrived = actor.contract.chosen

    post = actor.publish(options=options)

    assert {name: post.fields.get(name) for name in arrived} == arrived


@shows("thread")
def test_a_post_replies_to_the_one_before(actor: Actor) -> None:
    assert isinstance(actor.contract, Threads)

    first = actor.publish(text="One", key="1")
    second = actor.publish(text="Two", key="2", above=(first.id,))

    assert actor.contract.parent(second) == first.id
    assert actor.contract.parent(first) is None


@shows("first comment")
def test_a_comment_stands_below_its_post(actor: Actor) -> None:
    post = actor.publish()

    comment = actor.publish(text="More", key="2", media=(), above=(post.id,))

    assert (post.comment_on, comment.comment_on) == (None, post.id)
    assert comment.text == "More"


@shows("metrics")
def test_its_figures_are_read(actor: Actor) -> None:
    post, server = actor.publish(), actor.stage.server
    server.count(actor.platform.name, post.id, **{actor.contract.counted: 7})
    query = MetricsQuery(actor.user_id, (post.id,), server.clock.now(), actor.contract.server)

    ends_at = time.monotonic() + 10
    collected = actor.stage.driver.metrics(actor.platform, query, TOKEN, ends_at=ends_at)

    reading = collected.told[post.id]
    assert isinstance(reading, Reading)
    assert 7 in reading.metrics.values()


@shows("token refresh")
def test_a_refreshed_token_publishes(actor: Actor) -> None:
    assert isinstance(actor.contract, Refreshes)

    tokens = Tokens(TOKEN, REFRESH_TOKEN, server=actor.contract.server)
    grant = actor.stage.refresh(actor.platform, tokens)
    actor.stage.server.revoke(TOKEN)

    assert actor.publish(grant.access_token).text == TEXT


@shows("native guard")
def test_the_same_call_again_makes_no_second_post(actor: Actor) -> None:
    unsettled = actor.lose_the_answer()

    published = actor.stage.publish(actor.platform, unsettled, TOKEN)

    assert isinstance(published, Published)
    assert [post.id for post in actor.posts] == [published.remote_id]


@shows("read-back")
def test_a_post_whose_answer_was_lost_is_found(actor: Actor) -> None:
    unsettled = actor.lose_the_answer()

    found = actor.stage.lookup(actor.platform, unsettled, TOKEN)

    assert found.found
    assert [post.id for post in actor.posts] == [found.remote_id]


@shows("own server")
def test_it_is_published_on_the_accounts_own_server(actor: Actor) -> None:
    actor.publish()

    calls = actor.stage.server.calls(actor.platform.name)
    assert calls
    assert all(call.path.startswith(f"/{actor.contract.server}/") for call in calls)


def test_every_feature_is_shown() -> None:
    assert list(FEATURES) == SHOWN


@pytest.mark.parametrize("name", NAMES)
def test_what_a_platform_lacks_it_says_why_and_nothing_else(name: str) -> None:
    platform = platform_class(name)()

    missing = {
        feature
        for feature, has in FEATURES.items()
        if not all(has(platform, user_id) for user_id in accounts(platform).values())
    }
    assert set(platform.lacks) == missing - SAID_ELSEWHERE
    assert platform.built_to


def hashes(post: Post) -> list[str]:
    return [shown.sha256 for shown in post.media]


def contents(*media: MediaItem) -> list[str]:
    return [hashlib.sha256(bytes_of(one)).hexdigest() for one in media]
