"""Facebook Pages."""

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
from shared.platforms.base import Delivery, Draft, Platform, Processing, Published, ReadBack
from shared.platforms.facebook import Facebook
from tests.platforms.contract import (
    LINK,
    TEXT,
    TOKEN,
    Comments,
    Exchange,
    Uploads,
    classified,
    turn,
)
from tests.platforms.stage import Stage, item
from tests.sandbox.platforms.values import Answer

FAMILY = "👩‍👩‍👧‍👦"
FILM = item(1, "video/mp4")


def meta(code: int, subcode: int | None = None, **more: Any) -> dict[str, Any]:
    error = {"message": "Something", "type": "OAuthException", "code": code, **more}
    return {"error": error | ({"error_subcode": subcode} if subcode else {})}


class TestFacebook(Uploads, Comments):
    platform_class = Facebook
    user_id = "1000000000017"
    calls = frozenset(
        {
            *("upload", "create post", "read post", "create video", "read video"),
            *("find post", "create comment"),
        }
    )
    comment_chars = 8000
    chosen = ({"countries": ["DE"]}, {"targeting": {"geo_locations": {"countries": ["DE"]}}})
    card = LINK
    counted = "reactions"
    refused = Answer(403, meta(200))
    refused_code = "fb_200"

    def quoting(self, sentence: str) -> Answer:
        return Answer(400, {"error": {"message": sentence, "type": "t", "code": 100}})

    def everything(self, run: Exchange) -> None:
        run.publish(options={"link": "https://a.example", "countries": ["DE", "FR"]})
        run.publish(text="One", media=(item(1, alt_text="A loaf"),))
        run.publish(text="", media=(item(1), item(2, "image/png")))
        run.stage.server.misbehave("facebook", "create video", "processing", polls=1)
        options = {"title": "Rising", "countries": ["DE"]}
        run.publish(text="A film", media=(item(1, "video/mp4"),), options=options)
        run.lookup("One", media=(item(1),))
        [one] = [post for post in run.stage.server.posts("facebook") if post.text == "One"]
        run.publish(text="More", above=(one.id,))
        run.lookup("More", above=(one.id,))

    # what is sent

    def test_a_link_is_shown_as_a_card_where_it_may_be_seen(
        self, stage: Stage, platform: Platform
    ) -> None:
        options = {"link": "https://bakery.example/", "countries": ["DE", "FR"]}

        published = stage.publish(platform, self.delivery(media=(), options=options), TOKEN)

        (create,) = stage.server.calls("facebook", "create post")
        assert create.json() == {
            "message": TEXT,
            "link": "https://bakery.example/",
            "targeting": {"geo_locations": {"countries": ["DE", "FR"]}},
        }
        (post,) = stage.server.posts("facebook")
        number = post.id.partition("_")[2]
        assert isinstance(published, Published)
        assert published.remote_url == f"https://www.facebook.com/1000000000017/posts/{number}"

    def test_images_are_uploaded_unseen_and_shown_by_one_call(
        self, stage: Stage, platform: Platform
    ) -> None:
        media = (item(2, alt_text="A loaf"), item(1, "image/png"))

        stage.publish(platform, self.delivery(media=media), TOKEN)

        first, second = [call.json() for call in stage.server.calls("facebook", "upload")]
        (create,) = stage.server.calls("facebook", "create post")
        assert first == {
            "url": f"{stage.server.url}/files/asset-2",
            "published": False,
            "alt_text_custom": "A loaf",
        }
        assert second == {"url": f"{stage.server.url}/files/asset-1", "published": False}
        photos = list(stage.server.facebook.photos)
        assert create.json()["attached_media"] == [{"media_fbid": photo} for photo in photos]
        assert stage.kept[-1] == {"photos": {"asset-2": photos[0], "asset-1": photos[1]}}

    @pytest.mark.parametrize("kind", ["error_before", "drop_before", "garbage"])
    def test_a_permalink_that_cannot_be_read_unpublishes_nothing(
        self, stage: Stage, platform: Platform, kind: Any
    ) -> None:
        stage.server.misbehave("facebook", "read post", kind)

        published = stage.publish(platform, self.delivery(), TOKEN)

        assert isinstance(published, Published)
        assert published.remote_url is None

    def test_no_token_is_in_a_url(self, stage: Stage, platform: Platform) -> None:
        stage.publish(platform, self.delivery(), TOKEN)

        assert not any(TOKEN in f"{r.path}?{r.query}" for r in stage.server.requests)

    # videos, which Facebook works on after it has accepted them

    def send_film(self, stage: Stage, platform: Platform, polls: int = 1) -> Delivery:
        stage.server.misbehave("facebook", "create video", "processing", polls=polls)
        film = self.delivery(media=(FILM,), options={"title": "Rising"})
        since = stage.server.clock.now()
        accepted = stage.publish(platform, film, TOKEN)
        assert isinstance(accepted, Processing)
        assert accepted.check_after == timedelta(seconds=30)
        return replace(film, state=accepted.state, unsettled_since=since)

    def test_a_video_is_sent_once_and_then_waited_for(
        self, stage: Stage, platform: Platform
    ) -> None:
        film = self.send_film(stage, platform)

        waiting = stage.publish(platform, film, TOKEN)
        published = stage.publish(platform, film, TOKEN)

        (create,) = stage.server.calls("facebook", "create video")
        assert create.json() == {
            "file_url": f"{stage.server.url}/files/asset-1",
            "description": TEXT,
            "title": "Rising",
        }
        (post,) = stage.server.posts("facebook")
        (video,) = stage.server.facebook.videos
        assert waiting == Processing({"video": video}, timedelta(seconds=30))
        assert isinstance(published, Published)
        assert (published.remote_id, published.found) == (post.id, False)
        link = f"https://www.facebook.com/1000000000017/videos/{video}/"
        assert published.remote_url == link
        assert len(stage.marks) == 1

    def test_a_video_that_cannot_be_processed_was_never_shown(
        self, stage: Stage, platform: Platform
    ) -> None:
        film = self.send_film(stage, platform)
        stage.server.facebook.fail_video(film.state["video"])

        with pytest.raises(PermanentError) as caught:
            stage.publish(platform, film, TOKEN)

        assert (caught.value.code, caught.value.absent) == ("video_error", True)

    @pytest.mark.parametrize("kind", ["error_before", "drop_before", "garbage"])
    def test_a_video_that_cannot_be_read_just_now_is_not_sent_again(
        self, stage: Stage, platform: Platform, kind: Any
    ) -> None:
        film = self.send_film(stage, platform)
        stage.server.misbehave("facebook", "read video", kind)

        with pytest.raises(TransientError):
            stage.publish(platform, film, TOKEN)

        assert len(stage.server.calls("facebook", "create video")) == 1

    def test_a_video_whose_id_is_known_is_looked_up_by_it(
        self, stage: Stage, platform: Platform
    ) -> None:
        film = self.send_film(stage, platform)
        stage.publish(platform, film, TOKEN)

        found = stage.lookup(platform, film, TOKEN)

        (post,) = stage.server.posts("facebook")
        assert (found.remote_id, found.found) == (post.id, True)
        assert stage.server.calls("facebook", "find post") == []

    @pytest.mark.parametrize("text", [TEXT, ""])
    @pytest.mark.parametrize("kind", ["drop_after", "no_id", "error_after"])
    def test_a_video_whose_answer_was_lost_is_found_among_the_posts(
        self, stage: Stage, platform: Platform, kind: Any, text: str
    ) -> None:
        since = stage.server.clock.now()
        stage.server.misbehave("facebook", "create video", kind)
        error = self.fail(stage, platform, media=(FILM,), text=text)

        film = self.delivery(media=(FILM,), text=text, unsettled_since=since)
        found = stage.lookup(platform, film, TOKEN)

        (post,) = stage.server.posts("facebook")
        assert isinstance(error, OutcomeUnknownError)
        assert (found.remote_id, found.found) == (post.id, True)

    # an outcome that is not known

    def test_a_lookup_can_prove_presence_only(self) -> None:
        assert Facebook().guarantee == ReadBack()

    @pytest.mark.parametrize("text", [TEXT, f"{FAMILY} e\u0301 日本語\n\nTwo", ""])
    @pytest.mark.parametrize("media", [(), (item(1),)])
    def test_a_post_whose_answer_was_lost_is_found(
        self, stage: Stage, platform: Platform, text: str, media: Any
    ) -> None:
        text = text or ("" if media else "Bread")
        since = stage.server.clock.now()
        stage.server.misbehave("facebook", "create post", "drop_after")
        self.fail(stage, platform, text=text, media=media)

        delivery = self.delivery(text=text, media=media, unsettled_since=since)
        found = stage.lookup(platform, delivery, TOKEN)

        (post,) = stage.server.posts("facebook")
        assert (found.remote_id, found.found) == (post.id, True)
        assert found.published_at is not None

    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [
            ({}, {"text": f"{TEXT} again"}),
            ({"text": "", "media": (item(1),)}, {"text": "Bread", "media": ()}),
        ],
    )
    def test_another_post_is_not_ours(
        self, stage: Stage, platform: Platform, ours: Any, theirs: Any
    ) -> None:
        since = stage.server.clock.now()
        stage.publish(platform, self.delivery(**theirs), TOKEN)

        with pytest.raises(OutcomeUnknownError, match="not_found"):
            stage.lookup(platform, self.delivery(unsettled_since=since, **ours), TOKEN)

    def test_a_post_that_is_older_than_the_call_is_not_ours(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.publish(platform, self.delivery(), TOKEN)
        turn(stage, timedelta(seconds=62))
        since = stage.server.clock.now()

        with pytest.raises(OutcomeUnknownError, match="not_found"):
            stage.lookup(platform, self.delivery(unsettled_since=since), TOKEN)

    def test_two_of_a_kind_prove_nothing(self, stage: Stage, platform: Platform) -> None:
        since = stage.server.clock.now()
        for text in (TEXT, "Another", TEXT):
            stage.publish(platform, self.delivery(text=text, media=()), TOKEN)

        with pytest.raises(OutcomeUnknownError, match="ambiguous"):
            stage.lookup(platform, self.delivery(unsettled_since=since), TOKEN)

    def test_a_fresh_delivery_has_nothing_to_look_for(
        self, stage: Stage, platform: Platform
    ) -> None:
        with pytest.raises(OutcomeUnknownError, match="not_unsettled"):
            stage.lookup(platform, self.delivery(), TOKEN)

    # failures

    def test_the_same_post_twice_in_a_row_is_refused(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.publish(platform, self.delivery(media=()), TOKEN)

        error = self.fail(stage, platform, media=())

        assert (type(error), error.code) == (PermanentError, "fb_506")

    def test_media_that_cannot_be_fetched_are_refused(
        self, stage: Stage, platform: Platform
    ) -> None:
        missing = {"uri": f"{stage.server.url}/files/missing"}

        image = self.fail(stage, platform, media=(item(1).model_copy(update=missing),))
        film = self.fail(stage, platform, media=(FILM.model_copy(update=missing),))

        assert (type(image), image.code) == (PermanentError, "fb_2069019")
        assert (type(film), film.code) == (PermanentError, "fb_1363030")

    @pytest.mark.parametrize(
        ("status", "body", "kind", "code"),
        [
            (400, meta(100), PermanentError, "fb_100"),
            (400, meta(506), PermanentError, "fb_506"),
            (400, meta(1609005), PermanentError, "fb_1609005"),
            (400, meta(10), PermanentError, "fb_10"),
            (403, meta(299), PermanentError, "fb_299"),
            (400, meta(190), AuthExpiredError, "fb_190"),
            *[
                (400, meta(190, subcode), AuthExpiredError, f"fb_{subcode}")
                for subcode in (458, 459, 460, 463, 464, 467, 492)
            ],
            (401, meta(102), AuthExpiredError, "fb_102"),
            *[
                (400, meta(code), ThrottledError, f"fb_{code}")
                for code in (4, 17, 32, 341, 613, 80001, 80002, 368)
            ],
            (400, meta(1), OutcomeUnknownError, "fb_1"),
            (500, meta(2), OutcomeUnknownError, "fb_2"),
            (400, meta(100, is_transient=True), OutcomeUnknownError, "fb_100"),
        ],
    )
    def test_failures_of_the_commit(self, status: int, body: Any, kind: type, code: str) -> None:
        error = classified(Facebook(), status, body)

        assert (type(error), error.code, error.status) == (kind, code, status)

    @pytest.mark.parametrize("body", [meta(1), meta(2), meta(100, is_transient=True)])
    def test_server_trouble_before_the_commit_is_transient(self, body: Any) -> None:
        error = classified(Facebook(), 400, body, call="upload", commits=False)

        assert type(error) is TransientError

    @pytest.mark.parametrize(
        ("code", "scope"), [(4, "platform"), (32, "account"), (80001, "account")]
    )
    def test_whose_limit_it_is(self, code: int, scope: str) -> None:
        assert classified(Facebook(), 400, meta(code)).scope == scope

    @pytest.mark.parametrize(
        ("headers", "until"),
        [
            ({"X-App-Usage": '{"call_count": 120, "total_time": 25}'}, timedelta(minutes=10)),
            ({"X-Page-Usage": '{"call_count": 28, "total_time": 150}'}, timedelta(minutes=20)),
            ({"X-App-Usage": '{"call_count": 100}'}, None),
            (
                {
                    "X-App-Usage": '{"call_count": 120}',
                    "X-Business-Use-Case-Usage": (
                        '{"17": [{"type": "pages", "estimated_time_to_regain_access": 19}]}'
                    ),
                },
                timedelta(minutes=19),
            ),
            ({"X-App-Usage": "[3]", "X-Page-Usage": "broken"}, None),
        ],
    )
    def test_the_wait_is_read_from_what_has_been_used(
        self, headers: dict[str, str], until: timedelta | None
    ) -> None:
        assert classified(Facebook(), 400, meta(32), headers=headers).until == until

    # limits

    @pytest.mark.parametrize("unit", [FAMILY, "e\u0301", "日", "https://bakery.example/ "])
    def test_the_longest_text_arrives_and_one_more_is_refused(
        self, stage: Stage, platform: Platform, unit: str
    ) -> None:
        longest = unit + "x" * (63_206 - len(unit))

        assert platform.check(Draft(longest)) == []
        stage.publish(platform, self.delivery(text=longest, media=()), TOKEN)

        (post,) = stage.server.posts("facebook")
        assert post.text == longest
        assert [p.code for p in platform.check(Draft(longest + "x"))] == ["text_too_long"]
        error = self.fail(stage, platform, text=longest + "x", media=())
        assert isinstance(error, PermanentError)

    @pytest.mark.parametrize(
        ("changes", "field", "code"),
        [
            ({"text": ""}, "content", None),
            ({"text": "", "media": ()}, "content", "content_required"),
            ({"media": (FILM, item(2))}, "media", "media_mix"),
            ({"media": (FILM, item(2, "video/mp4"))}, "media", "media_mix"),
            ({"media": (item(1, "image/webp"),)}, "media[0]", "media_type"),
            ({"media": (item(1, "video/mp4", duration_ms=1_200_000),)}, "media[0]", None),
            (
                {"media": (item(1, "video/mp4", duration_ms=1_200_001),)},
                "media[0]",
                "media_duration",
            ),
            ({"options": {"link": "https://a.example"}}, "options.link", "media_mix"),
            ({"options": {"title": "Rising"}}, "options.title", "option_invalid"),
            ({"options": {"title": "Rising"}, "media": (FILM,)}, "options.title", None),
            ({"options": {"countries": ["Germany"]}}, "options.countries.0", "option_invalid"),
        ],
    )
    def test_limits(self, platform: Platform, changes: Any, field: str, code: str | None) -> None:
        problems = platform.check(replace(Draft(text=TEXT, media=(item(1),)), **changes))

        assert [(p.field, p.code) for p in problems] == ([(field, code)] if code else [])

    # tokens

    def test_a_pages_token_has_nothing_to_exchange(self) -> None:
        assert not Facebook().refreshable(Tokens(TOKEN, "whatever"))
