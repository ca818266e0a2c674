"""Threads."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from shared.domain.accounts import Tokens
from shared.domain.failures import (
    AuthExpiredError,
    OutcomeUnknownError,
    PermanentError,
    ThrottledError,
    TransientError,
)
from shared.platforms.base import Delivery, Draft, Platform, Processing, Published
from shared.platforms.threads import Threads
from tests.platforms import contract
from tests.platforms.contract import (
    LINK,
    TEXT,
    TOKEN,
    Exchange,
    Refreshes,
    TellsLimits,
    Uploads,
    classified,
    turn,
)
from tests.platforms.stage import Stage, item
from tests.sandbox.platforms.values import Answer, Post

PUBLISH = "publish container"
FAMILY = "👩‍👩‍👧‍👦"
FILM = item(1, "video/mp4", alt_text="Rising")


def meta(code: int, subcode: int | None = None, **more: Any) -> dict[str, Any]:
    error = {"message": "Something", "type": "OAuthException", "code": code, **more}
    return {"error": error | ({"error_subcode": subcode} if subcode else {})}


class TestThreads(Uploads, TellsLimits, Refreshes, contract.Threads):
    platform_class = Threads
    user_id = "17841400008460056"
    calls = frozenset(
        {
            *("create container", "read container", "publish container"),
            *("read post", "find post", "refresh", "read limits"),
        }
    )
    chosen = ({"replyControl": "mentioned_only"}, {"reply_control": "mentioned_only"})
    card = LINK
    counted = "likes"
    create = PUBLISH
    upload = "create container"
    quoted = "create container"
    refused = Answer(400, meta(100))
    refused_code = "threads_100"

    def quoting(self, sentence: str) -> Answer:
        return Answer(400, {"error": {"message": sentence, "type": "t", "code": 100}})

    def everything(self, run: Exchange) -> None:
        options: dict[str, Any] = {"replyControl": "followers_only", "topicTag": "Bread"}
        shown_to = {"allowlistedCountryCodes": ["DE"], "linkAttachment": "https://a.example"}
        run.publish(options=options | shown_to | {"locationId": "2", "quotePostId": "18"})
        run.stage.server.misbehave("threads", "create container", "processing", polls=1)
        run.publish(text="One", media=(item(1, alt_text="A loaf"),), options=options)
        run.publish(text="", media=(item(1), item(2, "video/mp4", alt_text="Rising")))
        run.lookup("One")
        first = run.publish(text="Part one").remote_id
        run.publish(text="Part two", above=(first,))
        run.lookup("Part two", above=(first,))
        turn(run.stage, timedelta(days=2))
        run.stage.refresh(run.platform, Tokens(TOKEN))
        run.limits()

    def parent(self, post: Post) -> str | None:
        above: str | None = post.fields.get("reply_to_id")
        return above

    # what is sent

    def test_a_text_is_a_container_that_is_published(
        self, stage: Stage, platform: Platform
    ) -> None:
        options = {
            "replyControl": "mentioned_only",
            "topicTag": "Bread and butter",
            "linkAttachment": "https://bakery.example/",
            "quotePostId": "18",
            "locationId": "213385402",
            "allowlistedCountryCodes": ["DE", "FR"],
        }

        published = stage.publish(platform, self.delivery(media=(), options=options), TOKEN)

        (create,) = stage.server.calls("threads", "create container")
        assert create.content_type == "application/x-www-form-urlencoded"
        assert create.form() == {
            "media_type": "TEXT",
            "text": TEXT,
            "reply_control": "mentioned_only",
            "topic_tag": "Bread and butter",
            "link_attachment": "https://bakery.example/",
            "quote_post_id": "18",
            "location_id": "213385402",
            "allowlisted_country_codes": "DE,FR",
        }
        (container,) = stage.server.threads.containers
        (publish,) = stage.server.calls("threads", PUBLISH)
        assert publish.form() == {"creation_id": container}
        assert stage.kept == [{"container": container}]
        assert isinstance(published, Published)
        assert str(published.remote_url).startswith("https://www.threads.com/@acme/post/")

    def test_several_items_are_a_carousel_of_images_and_videos(
        self, stage: Stage, platform: Platform
    ) -> None:
        media = (item(2, "image/png", alt_text="A loaf"), FILM)

        published = stage.publish(platform, self.delivery(media=media), TOKEN)

        assert isinstance(published, Published)
        first, second, carousel = [
            create.form() for create in stage.server.calls("threads", "create container")
        ]
        children = list(stage.server.threads.containers)[:2]
        assert first == {
            "media_type": "IMAGE",
            "image_url": f"{stage.server.url}/files/asset-2",
            "alt_text": "A loaf",
            "is_carousel_item": "true",
        }
        assert (second["media_type"], second["alt_text"]) == ("VIDEO", "Rising")
        assert carousel == {
            "media_type": "CAROUSEL",
            "children": ",".join(children),
            "text": TEXT,
        }

    def test_no_token_is_in_a_url(self, stage: Stage, platform: Platform) -> None:
        stage.publish(platform, self.delivery(), TOKEN)
        turn(stage, timedelta(days=2))
        stage.refresh(platform, Tokens(TOKEN))

        assert not any(TOKEN in f"{r.path}?{r.query}" for r in stage.server.requests)

    # containers

    def test_a_video_is_waited_for(self, stage: Stage, platform: Platform) -> None:
        stage.server.misbehave("threads", "create container", "processing", polls=2)
        film = self.delivery(media=(FILM,))

        first = stage.publish(platform, film, TOKEN)
        assert isinstance(first, Processing)
        second = stage.publish(platform, replace(film, state=first.state), TOKEN)
        third = stage.publish(platform, replace(film, state=first.state), TOKEN)

        assert (first.check_after, second) == (timedelta(seconds=30), first)
        assert isinstance(third, Published)
        assert len(stage.server.calls("threads", "create container")) == 1

    def test_a_carousel_waits_for_its_videos(self, stage: Stage, platform: Platform) -> None:
        filmed = lambda received: b"media_type=VIDEO" in received.body  # noqa: E731
        stage.server.misbehave("threads", "create container", "processing", when=filmed, polls=1)
        mixed = self.delivery(media=(item(2), FILM))

        first = stage.publish(platform, mixed, TOKEN)
        assert isinstance(first, Processing)
        second = stage.publish(platform, replace(mixed, state=first.state), TOKEN)

        assert set(first.state) == {"children"}
        assert isinstance(second, Published)
        assert len(stage.server.calls("threads", "create container")) == 3
        assert stage.marks != []

    @pytest.mark.parametrize(
        ("why", "kind", "code"),
        [
            ("FAILED_DOWNLOADING_VIDEO", TransientError, "threads_failed_downloading_video"),
            ("UNKNOWN", TransientError, "threads_unknown"),
            ("INVALID_DURATION", PermanentError, "threads_invalid_duration"),
            ("INVALID_ASPEC_RATIO", PermanentError, "threads_invalid_aspec_ratio"),
        ],
    )
    @pytest.mark.parametrize("media", [(FILM,), (item(2), FILM)])
    def test_a_spoilt_container_is_forgotten(
        self, stage: Stage, platform: Platform, media: Any, why: str, kind: type, code: str
    ) -> None:
        stage.server.misbehave("threads", "create container", "processing", times=None, polls=1)
        first = stage.publish(platform, self.delivery(media=media), TOKEN)
        assert isinstance(first, Processing)
        stage.server.threads.fail_container(list(stage.server.threads.containers)[-1], why)

        error = self.fail(stage, platform, media=media, state=first.state)

        assert (type(error), error.code) == (kind, code)
        assert stage.kept[-1] == {}
        assert stage.marks == []

    def test_an_expired_container_is_made_anew(self, stage: Stage, platform: Platform) -> None:
        stage.server.misbehave("threads", PUBLISH, "throttle")
        self.fail(stage, platform)
        turn(stage, timedelta(hours=25))

        published = stage.publish(platform, self.delivery(state=stage.kept[-1]), TOKEN)

        assert isinstance(published, Published)
        assert len(stage.server.calls("threads", "create container")) == 6

    def test_a_carousel_whose_video_has_expired_is_made_anew(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.server.misbehave("threads", "create container", "processing", times=None, polls=1)
        mixed = self.delivery(media=(item(2), FILM))
        first = stage.publish(platform, mixed, TOKEN)
        assert isinstance(first, Processing)
        turn(stage, timedelta(hours=25))

        error = self.fail(stage, platform, media=mixed.media, state=first.state)

        assert (type(error), error.code) == (TransientError, "container_expired")
        assert stage.kept[-1] == {}

    def test_media_that_cannot_be_fetched_are_refused(
        self, stage: Stage, platform: Platform
    ) -> None:
        missing = item(1).model_copy(update={"uri": f"{stage.server.url}/files/missing"})

        error = self.fail(stage, platform, media=(missing,))

        assert (type(error), error.code) == (PermanentError, "threads_2207052")

    def test_a_container_that_is_not_there_yet_was_not_accepted(
        self, stage: Stage, platform: Platform
    ) -> None:
        self.answer_instead(stage, PUBLISH, Answer(400, meta(24, 4279009, is_transient=False)))

        error = self.fail(stage, platform)
        published = stage.publish(platform, self.delivery(state=stage.kept[-1]), TOKEN)

        assert (type(error), error.code) == (TransientError, "threads_4279009")
        assert isinstance(published, Published)
        assert self.posts(stage) == 1

    # an unanswered call is settled by the container

    def lose_the_answer(self, stage: Stage, platform: Platform, kind: Any) -> Delivery:
        since = stage.server.clock.now()
        stage.server.misbehave("threads", PUBLISH, kind)
        assert isinstance(self.fail(stage, platform), OutcomeUnknownError)
        return self.delivery(state=stage.kept[-1], unsettled_since=since)

    @pytest.mark.parametrize("kind", ["drop_after", "garbage"])
    def test_a_published_container_is_found(
        self, stage: Stage, platform: Platform, kind: Any
    ) -> None:
        unsettled = self.lose_the_answer(stage, platform, kind)

        found = stage.publish(platform, unsettled, TOKEN)

        (post,) = stage.server.posts("threads")
        assert isinstance(found, Published)
        assert (found.remote_id, found.found) == (post.id, True)
        assert len(stage.server.calls("threads", PUBLISH)) == 1

    def test_a_finished_container_is_published_by_the_same_call(
        self, stage: Stage, platform: Platform
    ) -> None:
        unsettled = self.lose_the_answer(stage, platform, "drop_before")

        published = stage.publish(platform, unsettled, TOKEN)

        assert isinstance(published, Published)
        first, second = stage.server.calls("threads", PUBLISH)
        assert first.body == second.body
        assert len(set(stage.marks)) == 1
        assert self.posts(stage) == 1

    def test_a_spoilt_container_proves_that_nothing_was_published(
        self, stage: Stage, platform: Platform
    ) -> None:
        unsettled = self.lose_the_answer(stage, platform, "drop_before")
        stage.server.threads.fail_container(unsettled.state["container"], "UNKNOWN")

        with pytest.raises(PermanentError) as caught:
            stage.publish(platform, unsettled, TOKEN)

        assert caught.value.absent

    # failures

    @pytest.mark.parametrize(
        ("status", "body", "kind", "code"),
        [
            (400, meta(100), PermanentError, "threads_100"),
            (400, meta(10), PermanentError, "threads_10"),
            (403, meta(200), PermanentError, "threads_200"),
            (400, meta(1, 2207052), PermanentError, "threads_2207052"),
            (400, meta(24, 4279009), TransientError, "threads_4279009"),
            (400, meta(190), AuthExpiredError, "threads_190"),
            (400, meta(190, 463), AuthExpiredError, "threads_463"),
            (400, meta(9, 2207042), ThrottledError, "threads_2207042"),
            *[(400, meta(code), ThrottledError, f"threads_{code}") for code in (4, 17, 613, 368)],
            (400, meta(1), OutcomeUnknownError, "threads_1"),
            (500, meta(2), OutcomeUnknownError, "threads_2"),
            (400, meta(24, is_transient=True), OutcomeUnknownError, "threads_24"),
        ],
    )
    def test_failures_of_the_commit(self, status: int, body: Any, kind: type, code: str) -> None:
        error = classified(Threads(), status, body)

        assert (type(error), error.code, error.status) == (kind, code, status)

    # limits

    @pytest.mark.parametrize(
        ("text", "length"),
        [
            ("Bread", 5),
            ("日本語", 3),
            ("é", 1),
            ("e\u0301", 2),
            ("🎉", 4),
            ("❤️", 6),
            ("🇩🇪", 8),
            ("1️⃣", 7),
            ("👍🏽", 8),
            (FAMILY, 25),
            ("https://bakery.example/bread", 28),
        ],
    )
    def test_an_emoji_counts_its_bytes(self, text: str, length: int) -> None:
        assert Threads().text_length(text) == length

    @pytest.mark.parametrize(
        "unit", [FAMILY, "🎉", "🇩🇪", "e\u0301", "日", "https://bakery.example/ "]
    )
    def test_the_longest_text_arrives_and_one_more_is_refused(
        self, stage: Stage, platform: Platform, unit: str
    ) -> None:
        longest = unit + "x" * (500 - platform.text_length(unit))

        assert platform.check(Draft(longest)) == []
        stage.publish(platform, self.delivery(text=longest, media=()), TOKEN)

        (post,) = stage.server.posts("threads")
        assert post.text == longest
        assert [p.code for p in platform.check(Draft(longest + "x"))] == ["text_too_long"]
        error = self.fail(stage, platform, text=longest + "x", media=())
        assert isinstance(error, PermanentError)

    @pytest.mark.parametrize(
        ("changes", "field", "code"),
        [
            ({"media": ()}, "media", None),
            ({"text": ""}, "content", None),
            ({"text": "", "media": ()}, "content", "content_required"),
            ({"media": (item(1), FILM, item(2, "video/mp4"))}, "media", None),
            ({"media": (item(1, "image/gif"),)}, "media[0]", "media_type"),
            ({"media": (item(1, width=1000, height=100),)}, "media[0]", None),
            ({"media": (item(1, width=1001, height=100),)}, "media[0]", "media_aspect"),
            ({"media": (item(1, width=100, height=1001),)}, "media[0]", "media_aspect"),
            ({"media": (item(1, "video/mp4", duration_ms=300_000),)}, "media[0]", None),
            ({"media": (item(1, "video/mp4", duration_ms=300_001),)}, "media[0]", "media_duration"),
            ({"media": (item(1, alt_text="x" * 1000),)}, "media[0]", None),
            ({"media": (item(1, alt_text="x" * 1001),)}, "media[0]", "alt_text_too_long"),
            ({"text": " ".join(f"https://a.example/{n}" for n in range(5))}, "content", None),
            (
                {"text": " ".join(f"https://a.example/{n}" for n in range(6))},
                "content",
                "too_many_links",
            ),
            ({"text": "https://a.example, www.a.example. " * 4}, "content", None),
            ({"options": {"topicTag": "Bread & butter"}}, "options.topicTag", "option_invalid"),
            ({"options": {"replyControl": "nobody"}}, "options.replyControl", "option_invalid"),
            (
                {"options": {"linkAttachment": "https://a.example"}},
                "options.linkAttachment",
                "media_mix",
            ),
        ],
    )
    def test_limits(self, platform: Platform, changes: Any, field: str, code: str | None) -> None:
        problems = platform.check(replace(Draft(text=TEXT, media=(item(1),)), **changes))

        assert [(p.field, p.code) for p in problems] == ([(field, code)] if code else [])

    def test_an_attached_link_counts_once(self, platform: Platform) -> None:
        links = [f"https://a.example/{number}" for number in range(5)]

        same = platform.check(Draft(" ".join(links), options={"linkAttachment": links[0]}))
        other = platform.check(Draft(" ".join(links), options={"linkAttachment": "https://b.eu"}))

        assert (same, [p.code for p in other]) == ([], ["too_many_links"])

    # tokens

    def test_the_access_token_is_exchanged(self, stage: Stage, platform: Platform) -> None:
        grant = stage.refresh(platform, Tokens(TOKEN))

        assert platform.refreshable(Tokens(TOKEN))
        assert grant.refresh_token is None
        assert grant.expires_in == timedelta(days=60)

    def test_a_token_of_today_is_not_exchanged_yet(self, stage: Stage, platform: Platform) -> None:
        grant = stage.refresh(platform, Tokens(TOKEN))

        with pytest.raises(PermanentError):
            stage.refresh(platform, Tokens(grant.access_token))
