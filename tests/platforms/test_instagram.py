"""Instagram."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
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
from shared.platforms.instagram import Instagram
from tests.platforms.contract import (
    TEXT,
    TOKEN,
    Comments,
    Exchange,
    Refreshes,
    TellsLimits,
    Uploads,
    classified,
    turn,
)
from tests.platforms.stage import Stage, item
from tests.sandbox.platforms.values import Answer

PUBLISH = "publish container"


def meta(code: int, subcode: int | None = None, **more: Any) -> dict[str, Any]:
    error = {"message": "Something", "type": "OAuthException", "code": code, **more}
    return {"error": error | ({"error_subcode": subcode} if subcode else {})}


class TestInstagram(Uploads, Comments, TellsLimits, Refreshes):
    platform_class = Instagram
    user_id = "17841400008460056"
    calls = frozenset(
        {
            *("create container", "read container", "publish container"),
            *("read post", "find post", "refresh", "create comment", "read limits"),
        }
    )
    chosen = ({"locationId": "213385402"}, {"location_id": "213385402"})
    comment_chars = 2200
    counted = "likes"
    create = PUBLISH
    upload = "create container"
    quoted = "create container"
    refused = Answer(403, meta(4, 2207051))
    refused_code = "ig_2207051"

    def quoting(self, sentence: str) -> Answer:
        return Answer(400, {"error": {"message": sentence, "type": "t", "code": 100}})

    def everything(self, run: Exchange) -> None:
        options: dict[str, Any] = {"locationId": "213385402", "collaborators": ["butter"]}
        run.stage.server.misbehave("instagram", "create container", "processing", polls=1)
        run.publish(media=(item(1, alt_text="A loaf"),), options=options)
        run.publish(text="Several", media=(item(1), item(2, alt_text="A roll")))
        options = {"shareToFeed": True, "thumbOffset": 10}
        run.publish(text="A film", media=(item(1, "video/mp4"),), options=options)
        run.lookup("A film")
        [film] = [post for post in run.stage.server.posts("instagram") if post.text == "A film"]
        run.publish(text="More", above=(film.id,))
        run.lookup("More", above=(film.id,))
        turn(run.stage, timedelta(days=2))
        run.stage.refresh(run.platform, Tokens(TOKEN))
        run.limits()

    # what is sent

    def test_one_image_is_one_container(self, stage: Stage, platform: Platform) -> None:
        media = (item(1, alt_text="A loaf"),)
        options = {"locationId": "213385402", "collaborators": ["butter"]}

        stage.publish(platform, self.delivery(media=media, options=options), TOKEN)

        (post,) = stage.server.posts("instagram")
        container = post.fields.pop("container")  # type: ignore[attr-defined]
        assert post.fields == {
            "image_url": f"{stage.server.url}/files/asset-1",
            "alt_text": "A loaf",
            "caption": TEXT,
            "location_id": "213385402",
            "collaborators": ["butter"],
        }
        assert stage.kept == [{"container": container}]

    def test_several_images_are_a_carousel(self, stage: Stage, platform: Platform) -> None:
        stage.publish(platform, self.delivery(), TOKEN)

        (post,) = stage.server.posts("instagram")
        assert post.fields["media_type"] == "CAROUSEL"
        assert len(post.fields["children"]) == 2
        assert "caption" not in stage.server.calls("instagram", "create container")[0].json()

    def test_one_video_is_a_reel(self, stage: Stage, platform: Platform) -> None:
        options = {"shareToFeed": False, "thumbOffset": 1500}

        stage.publish(
            platform, self.delivery(media=(item(1, "video/mp4"),), options=options), TOKEN
        )

        (post,) = stage.server.posts("instagram")
        assert post.fields["media_type"] == "REELS"
        assert post.fields["share_to_feed"] is False
        assert post.fields["thumb_offset"] == "1500"
        assert post.fields["video_url"] == f"{stage.server.url}/files/asset-1"

    def test_the_permalink_and_the_time_are_instagrams(
        self, stage: Stage, platform: Platform
    ) -> None:
        published = stage.publish(platform, self.delivery(), TOKEN)

        assert isinstance(published, Published)
        assert str(published.remote_url).startswith("https://www.instagram.com/p/")
        assert isinstance(published.published_at, datetime)

    @pytest.mark.parametrize("kind", ["error_before", "drop_before", "garbage"])
    def test_a_permalink_that_cannot_be_read_unpublishes_nothing(
        self, stage: Stage, platform: Platform, kind: Any
    ) -> None:
        stage.server.misbehave("instagram", "read post", kind)

        published = stage.publish(platform, self.delivery(), TOKEN)

        assert isinstance(published, Published)
        assert published.remote_url is None

    def test_no_token_is_in_a_url(self, stage: Stage, platform: Platform) -> None:
        stage.publish(platform, self.delivery(), TOKEN)
        turn(stage, timedelta(days=2))
        stage.refresh(platform, Tokens(TOKEN))

        assert not any(TOKEN in f"{r.path}?{r.query}" for r in stage.server.requests)

    # containers

    def test_a_container_in_progress_is_looked_at_again(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.server.misbehave("instagram", "create container", "processing", polls=2)
        delivery = self.delivery(media=(item(1, "video/mp4"),))

        first = stage.publish(platform, delivery, TOKEN)
        assert isinstance(first, Processing)
        second = stage.publish(platform, replace(delivery, state=first.state), TOKEN)
        third = stage.publish(platform, replace(delivery, state=first.state), TOKEN)

        assert (first.check_after, second) == (timedelta(minutes=1), first)
        assert isinstance(third, Published)
        assert len(stage.server.calls("instagram", "create container")) == 1
        assert stage.kept == [first.state]

    def test_an_expired_container_is_made_anew(self, stage: Stage, platform: Platform) -> None:
        stage.server.misbehave("instagram", PUBLISH, "throttle")
        self.fail(stage, platform)
        turn(stage, timedelta(hours=25))

        published = stage.publish(platform, self.delivery(state=stage.kept[-1]), TOKEN)

        assert isinstance(published, Published)
        assert len(stage.server.calls("instagram", "create container")) == 6
        assert self.posts(stage) == 1

    def test_a_container_that_is_gone_is_made_anew(self, stage: Stage, platform: Platform) -> None:
        published = stage.publish(platform, self.delivery(state={"container": "17"}), TOKEN)

        assert isinstance(published, Published)

    def test_media_that_cannot_be_fetched_are_refused(
        self, stage: Stage, platform: Platform
    ) -> None:
        missing = item(1).model_copy(update={"uri": f"{stage.server.url}/files/missing"})

        error = self.fail(stage, platform, media=(missing,))

        assert (type(error), error.code) == (PermanentError, "ig_2207052")

    @pytest.mark.parametrize(
        ("subcode", "kind"), [(2207026, PermanentError), (2207053, TransientError)]
    )
    def test_a_spoilt_container_is_forgotten(
        self, stage: Stage, platform: Platform, subcode: int, kind: type
    ) -> None:
        first = self.wait_for_container(stage, platform)
        stage.server.instagram.fail_container(first.state["container"], subcode)

        error = self.fail(stage, platform, state=first.state)

        assert (type(error), error.code) == (kind, f"ig_{subcode}")
        assert stage.kept[-1] == {}

    def wait_for_container(self, stage: Stage, platform: Platform) -> Processing:
        stage.server.misbehave("instagram", "create container", "processing", times=None, polls=1)
        first = stage.publish(platform, self.delivery(), TOKEN)
        assert isinstance(first, Processing)
        return first

    def test_media_that_are_not_ready_were_not_accepted(
        self, stage: Stage, platform: Platform
    ) -> None:
        self.answer_instead(stage, PUBLISH, Answer(400, meta(9007, 2207027)))

        error = self.fail(stage, platform)

        assert (type(error), error.code) == (TransientError, "ig_2207027")

    # an unanswered call is settled by the container

    def lose_the_answer(self, stage: Stage, platform: Platform, kind: Any) -> Delivery:
        since = stage.server.clock.now()
        stage.server.misbehave("instagram", PUBLISH, kind)
        assert isinstance(self.fail(stage, platform), OutcomeUnknownError)
        return self.delivery(state=stage.kept[-1], unsettled_since=since)

    @pytest.mark.parametrize("kind", ["drop_after", "error_after", "garbage", "no_id"])
    def test_a_published_container_is_found(
        self, stage: Stage, platform: Platform, kind: Any
    ) -> None:
        unsettled = self.lose_the_answer(stage, platform, kind)

        found = stage.publish(platform, unsettled, TOKEN)

        (post,) = stage.server.posts("instagram")
        assert isinstance(found, Published)
        assert (found.remote_id, found.found) == (post.id, True)
        assert str(found.remote_url).startswith("https://www.instagram.com/p/")
        assert len(stage.server.calls("instagram", PUBLISH)) == 1

    @pytest.mark.parametrize("kind", ["drop_before", "error_before"])
    def test_a_finished_container_is_published_by_the_same_call(
        self, stage: Stage, platform: Platform, kind: Any
    ) -> None:
        unsettled = self.lose_the_answer(stage, platform, kind)

        published = stage.publish(platform, unsettled, TOKEN)

        assert isinstance(published, Published)
        assert not published.found
        first, second = stage.server.calls("instagram", PUBLISH)
        assert first.json() == second.json()
        calls = [received.call for received in stage.server.calls("instagram")]
        assert calls[-3:] == ["read container", PUBLISH, "read post"]
        assert self.posts(stage) == 1
        assert len(set(stage.marks)) == 1

    def test_a_post_that_cannot_be_found_stays_unknown(
        self, stage: Stage, platform: Platform
    ) -> None:
        unsettled = self.lose_the_answer(stage, platform, "drop_after")
        late = stage.server.clock.now() + timedelta(minutes=5)

        with pytest.raises(OutcomeUnknownError, match="not_found"):
            stage.publish(platform, replace(unsettled, unsettled_since=late), TOKEN)

    def test_two_of_a_kind_prove_nothing(self, stage: Stage, platform: Platform) -> None:
        stage.publish(platform, self.delivery(), TOKEN)
        unsettled = self.lose_the_answer(stage, platform, "drop_after")

        with pytest.raises(OutcomeUnknownError, match="ambiguous"):
            stage.publish(platform, unsettled, TOKEN)

    def test_an_expired_container_is_not_made_anew_while_unsettled(
        self, stage: Stage, platform: Platform
    ) -> None:
        unsettled = self.lose_the_answer(stage, platform, "drop_before")
        turn(stage, timedelta(hours=25))
        made = len(stage.server.calls("instagram", "create container"))

        with pytest.raises(OutcomeUnknownError, match="not_found"):
            stage.publish(platform, unsettled, TOKEN)

        assert len(stage.server.calls("instagram", "create container")) == made
        assert self.posts(stage) == 0

    def test_a_spoilt_container_proves_that_nothing_was_published(
        self, stage: Stage, platform: Platform
    ) -> None:
        first = self.wait_for_container(stage, platform)
        stage.server.instagram.fail_container(first.state["container"], 2207053)
        since = stage.server.clock.now()

        error = self.fail(stage, platform, state=first.state, unsettled_since=since)

        assert isinstance(error, PermanentError)
        assert error.absent

    def test_a_second_container_proves_nothing_about_the_first(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.server.misbehave("instagram", "create container", "processing", None, polls=1)
        since = stage.server.clock.now()
        ordered = self.delivery(unsettled_since=since)  # again, by a person: no state
        first = stage.publish(platform, ordered, TOKEN)
        assert isinstance(first, Processing)
        stage.server.instagram.fail_container(first.state["container"], 2207053)

        error = self.fail(stage, platform, state=first.state, unsettled_since=since)

        assert isinstance(error, PermanentError)
        assert not error.absent

    # failures

    @pytest.mark.parametrize(
        ("status", "body", "kind", "code"),
        [
            (400, meta(100), PermanentError, "ig_100"),
            (400, meta(10), PermanentError, "ig_10"),
            (403, meta(200), PermanentError, "ig_200"),
            (403, meta(299), PermanentError, "ig_299"),
            (400, meta(506), PermanentError, "ig_506"),
            *[
                (400, meta(-1, subcode, is_transient=True), PermanentError, f"ig_{subcode}")
                for subcode in (
                    *(2207003, 2207004, 2207005, 2207009, 2207010, 2207023, 2207026),
                    *(2207028, 2207050, 2207051, 2207052, 2207057),
                )
            ],
            (400, meta(190), AuthExpiredError, "ig_190"),
            (400, meta(190, 463), AuthExpiredError, "ig_463"),
            (401, meta(102), AuthExpiredError, "ig_102"),
            *[
                (400, meta(-1, subcode), TransientError, f"ig_{subcode}")
                for subcode in (2207001, 2207032, 2207053, 2207082, 2207020, 2207008)
            ],
            (400, meta(9007, 2207027), TransientError, "ig_2207027"),
            *[
                (400, meta(code), ThrottledError, f"ig_{code}")
                for code in (4, 17, 32, 341, 613, 80001, 80002, 368)
            ],
            (400, meta(9, 2207042), ThrottledError, "ig_2207042"),
            (400, meta(1), OutcomeUnknownError, "ig_1"),
            (500, meta(2), OutcomeUnknownError, "ig_2"),
            (400, meta(24, is_transient=True), OutcomeUnknownError, "ig_24"),
        ],
    )
    def test_failures_of_the_commit(self, status: int, body: Any, kind: type, code: str) -> None:
        error = classified(Instagram(), status, body)

        assert (type(error), error.code, error.status) == (kind, code, status)

    @pytest.mark.parametrize("body", [meta(1), meta(2), meta(24, is_transient=True)])
    def test_server_trouble_before_the_commit_is_transient(self, body: Any) -> None:
        error = classified(Instagram(), 400, body, call="create container", commits=False)

        assert type(error) is TransientError

    @pytest.mark.parametrize(
        ("code", "scope"), [(4, "platform"), (341, "platform"), (17, "account")]
    )
    def test_whose_limit_it_is(self, code: int, scope: str) -> None:
        assert classified(Instagram(), 400, meta(code)).scope == scope

    @pytest.mark.parametrize(
        ("usage", "until"),
        [
            ('{"17": [{"call_count": 100, "estimated_time_to_regain_access": 19}]}', 19),
            ('{"17": [{"estimated_time_to_regain_access": 3}, {"call_count": 1}]}', 3),
            ('{"17": [{"estimated_time_to_regain_access": 0}]}', None),
            ("{}", None),
            ("[3]", None),
            ("broken", None),
        ],
    )
    def test_the_wait_is_in_minutes(self, usage: str, until: int | None) -> None:
        headers = {"X-Business-Use-Case-Usage": usage}

        error = classified(Instagram(), 400, meta(17), headers=headers)

        assert error.until == (timedelta(minutes=until) if until else None)

    def test_the_daily_cap_is_waited_for(self, stage: Stage, platform: Platform) -> None:
        stage.server.misbehave("instagram", PUBLISH, "throttle", daily=True)

        error = self.fail(stage, platform)

        assert isinstance(error, ThrottledError)
        assert (error.until, error.code) == (timedelta(hours=1), "ig_2207042")

    def test_the_trace_id_is_kept(self) -> None:
        error = classified(Instagram(), 400, meta(100, fbtrace_id="AbC"))

        assert error.request_id == "AbC"

    # limits

    @pytest.mark.parametrize(
        ("changes", "field", "code"),
        [
            ({"media": ()}, "media", "media_required"),
            ({"media": (item(1, "image/png"),)}, "media[0]", "media_type"),
            ({"media": (item(1, width=1000, height=1251),)}, "media[0]", None),
            ({"media": (item(1, width=1000, height=1300),)}, "media[0]", "media_aspect"),
            ({"media": (item(1, width=1920, height=1000),)}, "media[0]", "media_aspect"),
            ({"media": (item(1, width=1910, height=1000),)}, "media[0]", None),
            ({"media": (item(1), item(2, "video/mp4"))}, "media", "media_mix"),
            ({"media": (item(1, "video/mp4", duration_ms=2999),)}, "media[0]", "media_duration"),
            ({"media": (item(1, "video/mp4", duration_ms=3000),)}, "media[0]", None),
            ({"media": (item(1, alt_text="x" * 1001),)}, "media[0]", "alt_text_too_long"),
            ({"text": " ".join(["#tag"] * 30)}, "content", None),
            ({"text": " ".join(["#tag"] * 31)}, "content", "too_many_hashtags"),
            ({"text": " ".join(["@you"] * 20)}, "content", None),
            ({"text": " ".join(["@you"] * 21)}, "content", "too_many_mentions"),
            ({"text": ""}, "content", None),
            ({"options": {"shareToFeed": True}}, "options.shareToFeed", "option_invalid"),
            ({"options": {"locationId": "here"}}, "options.locationId", "option_invalid"),
        ],
    )
    def test_limits(self, platform: Platform, changes: Any, field: str, code: str | None) -> None:
        problems = platform.check(replace(Draft(text=TEXT, media=(item(1),)), **changes))

        assert [(p.field, p.code) for p in problems] == ([(field, code)] if code else [])

    # tokens

    def test_the_access_token_is_exchanged(self, stage: Stage, platform: Platform) -> None:
        grant = stage.refresh(platform, Tokens(TOKEN))

        assert grant.refresh_token is None
        assert grant.expires_in == timedelta(days=60)

    @pytest.mark.parametrize(
        "timestamp", ["2026-11-22T10:00:00+0000", "2026-11-22T10:00:00+00:00", 1795341600]
    )
    def test_times_are_read_however_meta_writes_them(
        self, stage: Stage, platform: Platform, timestamp: Any
    ) -> None:
        body = {"id": "1", "permalink": "https://www.instagram.com/p/x/", "timestamp": timestamp}
        self.answer_instead(stage, "read post", Answer(200, body))

        published = stage.publish(platform, self.delivery(), TOKEN)

        assert isinstance(published, Published)
        assert published.published_at == datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
