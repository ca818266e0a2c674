"""Mastodon."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.domain.failures import (
    AuthExpiredError,
    OutcomeUnknownError,
    PermanentError,
    ThrottledError,
    TransientError,
)
from shared.platforms.base import Draft, Platform, Processing, Published, Windowed
from shared.platforms.mastodon import Mastodon
from tests.platforms.contract import (
    TEXT,
    TOKEN,
    Exchange,
    SendsFiles,
    TellsLimits,
    Threads,
    classified,
    turn,
)
from tests.platforms.stage import Stage, bytes_of, item
from tests.sandbox.platforms.values import Answer, Post

FAMILY = "👩‍👩‍👧‍👦"
LINK = "https://bakery.example/" + "bread" * 40


class TestMastodon(SendsFiles, TellsLimits, Threads):
    platform_class = Mastodon
    user_id = "109348684220"
    calls = frozenset({"upload", "read media", "create post", "find post", "read limits"})
    chosen = ({"visibility": "private"}, {"visibility": "private"})
    counted = "favourites_count"
    server = "bread.example"
    refused = Answer(422, {"error": "Validation failed: Text character limit of 500 exceeded"})
    refused_code = "http_422"

    def quoting(self, sentence: str) -> Answer:
        return Answer(422, {"error": sentence})

    def everything(self, run: Exchange) -> None:
        options = {"visibility": "private", "spoilerText": "W", "sensitive": True, "language": "en"}
        run.publish(options=options)
        run.publish(text="One", key="2", media=(item(1, alt_text="A loaf"),))
        run.publish(text="", key="3", media=(item(1), item(2, "image/png")))
        run.stage.server.misbehave("mastodon", "upload", "processing", polls=1)
        run.publish(text="A film", key="4", media=(item(1, "video/mp4"),))
        run.lookup("One", media=(item(1),))
        first = run.publish(text="Part one", key="5").remote_id
        run.publish(text="Part two", key="6", above=(first,))
        run.lookup("Part two", above=(first,))
        run.limits()

    def parent(self, post: Post) -> str | None:
        above: str | None = post.fields.get("in_reply_to_id")
        return above

    # what is sent

    def test_the_idempotency_key_travels_with_the_status(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.publish(platform, self.delivery(key="key-7", media=()), TOKEN)

        (create,) = stage.server.calls("mastodon", "create post")
        assert create.headers["idempotency-key"] == "key-7"
        assert create.headers["content-type"] == "application/json"
        assert create.json() == {"status": TEXT}

    def test_options_travel_only_when_they_are_set(self, stage: Stage, platform: Platform) -> None:
        options = {
            "visibility": "unlisted",
            "spoilerText": "Crumbs",
            "sensitive": True,
            "language": "de",
        }

        stage.publish(platform, self.delivery(media=(), options=options), TOKEN)

        (create,) = stage.server.calls("mastodon", "create post")
        assert create.json() == {
            "status": TEXT,
            "visibility": "unlisted",
            "spoiler_text": "Crumbs",
            "sensitive": True,
            "language": "de",
        }

    def test_each_account_has_its_server(self, stage: Stage, platform: Platform) -> None:
        first = stage.publish(platform, self.delivery(media=()), TOKEN)
        second = stage.publish(platform, self.delivery(server="rolls.example", key="2"), TOKEN)

        assert isinstance(first, Published)
        assert isinstance(second, Published)
        assert first.remote_url == f"https://bread.example/@acme/{first.remote_id}"
        assert second.remote_url == f"https://rolls.example/@acme/{second.remote_id}"

    def test_without_a_server_nothing_is_sent(self, stage: Stage, platform: Platform) -> None:
        error = self.fail(stage, platform, server=None)

        assert (type(error), error.code) == (PermanentError, "no_server")
        assert stage.server.requests == []

    def test_the_api_is_the_servers_own(self) -> None:
        call: Any = next(Mastodon().publish(self.delivery(media=()), TOKEN))

        assert call.request.url == "https://bread.example/api/v1/statuses"

    def test_a_file_and_its_alt_text_are_uploaded_as_they_are(
        self, stage: Stage, platform: Platform
    ) -> None:
        alt = "A loaf, „warm“\nand a roll"
        media = (item(1, "image/png", alt_text=alt),)

        stage.publish(platform, self.delivery(media=media), TOKEN)

        (upload,) = stage.server.calls("mastodon", "upload")
        assert bytes_of(media[0]) in upload.body
        (post,) = stage.server.posts("mastodon")
        assert post.media[0].alt_text == alt

    # media that are worked on

    def test_a_video_is_waited_for(self, stage: Stage, platform: Platform) -> None:
        film = self.delivery(media=(item(1, "video/mp4", alt_text="Rising"),))
        stage.server.misbehave("mastodon", "upload", "processing", polls=2)

        first = stage.publish(platform, film, TOKEN)
        assert isinstance(first, Processing)
        second = stage.publish(platform, replace(film, state=first.state), TOKEN)
        assert isinstance(second, Processing)
        third = stage.publish(platform, replace(film, state=second.state), TOKEN)

        assert first.check_after == timedelta(seconds=5)
        assert isinstance(third, Published)
        assert len(stage.server.calls("mastodon", "upload")) == 1
        assert len(stage.server.calls("mastodon", "read media")) == 3

    def test_media_that_cannot_be_processed_fail(self, stage: Stage, platform: Platform) -> None:
        stage.server.misbehave("mastodon", "upload", "processing", polls=1)
        film = self.delivery(media=(item(1, "video/mp4"),))
        first = stage.publish(platform, film, TOKEN)
        assert isinstance(first, Processing)
        stage.server.mastodon.break_media(first.state["working"][0])

        error = self.fail(stage, platform, media=film.media, state=first.state)

        assert (type(error), error.code) == (PermanentError, "http_422")

    def test_uploads_that_the_server_has_removed_are_sent_again(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.server.misbehave("mastodon", "create post", "throttle")
        with pytest.raises(ThrottledError):
            stage.publish(platform, self.delivery(attempted_at=stage.server.clock.now()), TOKEN)
        state = stage.kept[-1]
        turn(stage, timedelta(hours=22))
        again = self.delivery(state=state, attempted_at=stage.server.clock.now())
        assert isinstance(stage.publish(platform, again, TOKEN), Published)
        turn(stage, timedelta(hours=3))

        later = self.delivery(key="2", state=state, attempted_at=stage.server.clock.now())
        assert isinstance(stage.publish(platform, later, TOKEN), Published)

        assert len(stage.server.calls("mastodon", "upload")) == 2 * len(self.media)

    # failures

    @pytest.mark.parametrize(
        ("status", "error", "kind", "code"),
        [
            (400, "Problems parsing JSON", PermanentError, "http_400"),
            (401, "The access token was revoked", AuthExpiredError, "token_refused"),
            (403, "This action is not allowed", PermanentError, "http_403"),
            (404, "Record not found", PermanentError, "http_404"),
            (422, "Validation failed: Text can't be blank", PermanentError, "http_422"),
            (
                422,
                "Cannot attach files that have not finished processing. Try again in a moment!",
                TransientError,
                "media_processing",
            ),
            (429, "Too many requests", ThrottledError, "throttled"),
            (500, "Something went wrong", TransientError, "http_500"),
            (503, "Service unavailable", TransientError, "http_503"),
        ],
    )
    def test_failures(self, status: int, error: str, kind: type, code: str) -> None:
        found = classified(Mastodon(), status, {"error": error})

        assert (type(found), found.code, found.status) == (kind, code, status)
        assert found.message == error

    @pytest.mark.parametrize(
        ("headers", "until"),
        [
            (
                {"X-RateLimit-Reset": "2026-11-22T10:05:00.123456Z"},
                datetime(2026, 11, 22, 10, 5, 0, 123456, UTC),
            ),
            (
                {"X-RateLimit-Reset": "2026-11-22T10:05:00"},
                datetime(2026, 11, 22, 10, 5, tzinfo=UTC),
            ),
            ({"X-RateLimit-Reset": "soon", "Retry-After": "30"}, timedelta(seconds=30)),
            ({}, None),
        ],
    )
    def test_the_reset_is_an_iso_instant(self, headers: dict[str, str], until: Any) -> None:
        error = classified(Mastodon(), 429, {"error": "Too many requests"}, headers=headers)

        assert (error.until, error.scope) == (until, "account")

    # an outcome that is not known

    def test_a_repeat_within_the_hour_is_the_first_status(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.server.misbehave("mastodon", "create post", "drop_after")
        self.fail(stage, platform, media=())
        turn(stage, timedelta(minutes=49))

        published = stage.publish(platform, self.delivery(media=()), TOKEN)

        (post,) = stage.server.posts("mastodon")
        assert isinstance(published, Published)
        assert (published.remote_id, published.found) == (post.id, False)

    def test_the_window_lies_inside_the_hour_and_after_a_call_has_ended(self) -> None:
        window = Mastodon().guarantee

        assert isinstance(window, Windowed)
        assert window.earliest == timedelta(seconds=90)
        assert window.latest == timedelta(minutes=50)

    @pytest.mark.parametrize(
        "text",
        [
            "Plain words",
            "Bread & butter <warm>, \"fresh\" 'n' 1 < 2",
            f"See {LINK}?a=1&b=2 and (https://bakery.example/b_c), today",
            "https://bakery.example",
            "One\n\nTwo  \nThree",
            "@baker@rolls.example and @miller, #bread #日本",
            f"{FAMILY} é e\u0301 日本語",
        ],
    )
    @pytest.mark.parametrize("media", [(), (item(1),)])
    def test_a_post_whose_answer_was_lost_is_found(
        self, stage: Stage, platform: Platform, text: str, media: Any
    ) -> None:
        since = stage.server.clock.now()
        stage.server.misbehave("mastodon", "create post", "drop_after")
        self.fail(stage, platform, text=text, media=media)

        delivery = self.delivery(text=text, media=media, unsettled_since=since)
        found = stage.lookup(platform, delivery, TOKEN)

        (post,) = stage.server.posts("mastodon")
        assert (found.remote_id, found.found) == (post.id, True)
        assert found.remote_url == f"https://bread.example/@acme/{post.id}"
        assert found.published_at is not None

    @pytest.mark.parametrize(
        "other",
        [{"text": f"{TEXT} again"}, {"media": (item(1),)}, {"text": "", "media": (item(1),)}],
    )
    def test_another_post_is_not_ours(
        self, stage: Stage, platform: Platform, other: dict[str, Any]
    ) -> None:
        since = stage.server.clock.now()
        stage.publish(platform, self.delivery(**other), TOKEN)

        with pytest.raises(OutcomeUnknownError, match="not_found"):
            stage.lookup(platform, self.delivery(unsettled_since=since), TOKEN)

    def test_a_post_that_is_older_than_the_call_is_not_ours(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.publish(platform, self.delivery(), TOKEN)
        turn(stage, timedelta(seconds=61))
        since = stage.server.clock.now()

        with pytest.raises(OutcomeUnknownError, match="not_found"):
            stage.lookup(platform, self.delivery(unsettled_since=since), TOKEN)

    def test_two_of_a_kind_prove_nothing(self, stage: Stage, platform: Platform) -> None:
        stage.server.mastodon.keeps_keys = False
        since = stage.server.clock.now()
        stage.publish(platform, self.delivery(), TOKEN)
        stage.publish(platform, self.delivery(), TOKEN)

        with pytest.raises(OutcomeUnknownError, match="ambiguous"):
            stage.lookup(platform, self.delivery(unsettled_since=since), TOKEN)

    def test_a_fresh_delivery_has_nothing_to_look_for(
        self, stage: Stage, platform: Platform
    ) -> None:
        with pytest.raises(OutcomeUnknownError, match="not_unsettled"):
            stage.lookup(platform, self.delivery(), TOKEN)

    # what counts

    @pytest.mark.parametrize(
        ("text", "length"),
        [
            ("", 0),
            ("Bread", 5),
            ("日本語", 3),
            ("e\u0301", 1),
            (FAMILY, 1),
            ("🇩🇪🇫🇷", 2),
            ("a\r\nb", 3),
            (LINK, 23),
            (f"({LINK}).", 26),
            (f"日本{LINK}", 25),
            (f"{LINK}」", 24),
            ("https://a.example/日本語", 23),
            ("https://a.example/x_(y)", 23),
            ("https://a.example:8080/?q=1#x and http://b.example", 51),
            ("see a.example/bread", 19),
            ("https://localhost/bread", 23),
            ("https://localhost/bread-and-rolls", 33),
            ("@baker@rolls.example hi", 9),
            ("@baker hi", 9),
            ("me@rolls.example", 16),
        ],
    )
    def test_what_a_text_counts(self, text: str, length: int) -> None:
        assert Mastodon().text_length(text) == length

    @pytest.mark.parametrize(
        ("unit", "filler"),
        [
            *((FAMILY, FAMILY), ("e\u0301", "e\u0301"), ("日", "日"), ("🎉", "🎉")),
            *((f"{LINK} ", "x"), ("@baker@rolls.example ", "x")),
        ],
    )
    def test_the_longest_text_arrives_and_one_more_is_refused(
        self, stage: Stage, platform: Platform, unit: str, filler: str
    ) -> None:
        longest = unit + filler * (500 - platform.text_length(unit))

        assert platform.check(Draft(longest)) == []
        stage.publish(platform, self.delivery(text=longest, media=()), TOKEN)

        (post,) = stage.server.posts("mastodon")
        assert post.text == longest
        assert [p.code for p in platform.check(Draft(longest + filler))] == ["text_too_long"]
        error = self.fail(stage, platform, text=longest + filler, media=(), key="2")
        assert isinstance(error, PermanentError)

    def test_a_warning_counts_with_the_text(self, stage: Stage, platform: Platform) -> None:
        fit = Draft("x" * 490, options={"spoilerText": "w" * 10})

        assert platform.check(fit) == []
        assert [p.code for p in platform.check(replace(fit, text="x" * 491))] == ["text_too_long"]

    def test_a_server_may_take_more(self, platform: Platform) -> None:
        limits = {"textChars": 5000, "mediaItems": 8}
        media = tuple(item(number) for number in range(8))

        assert platform.check(Draft("x" * 5000, media, limits=limits)) == []
        codes = [
            p.code for p in platform.check(Draft("x" * 5001, (*media, item(9)), limits=limits))
        ]
        assert codes == ["text_too_long", "too_many_media"]

    def test_videos_stand_alone(self, platform: Platform) -> None:
        film = item(1, "video/mp4")

        assert platform.check(Draft(TEXT, (film,))) == []
        for media in ((film, item(2)), (film, item(2, "video/mp4"))):
            assert [p.code for p in platform.check(Draft(TEXT, media))] == ["media_mix"]

    def test_the_longest_alt_text_is_fit_and_one_more_is_not(self, platform: Platform) -> None:
        assert platform.check(Draft(TEXT, (item(1, alt_text="e\u0301" * 1500),))) == []
        (problem,) = platform.check(Draft(TEXT, (item(1, alt_text="x" * 1501),)))
        assert (problem.field, problem.code) == ("media[0]", "alt_text_too_long")

    @pytest.mark.parametrize("options", [{"visibility": "secret"}, {"language": "German"}])
    def test_options_have_their_values(self, platform: Platform, options: dict[str, Any]) -> None:
        (problem,) = platform.check(Draft(TEXT, options=options))
        assert problem.code == "option_invalid"

    def test_its_tokens_do_not_end(self) -> None:
        assert not Mastodon().refreshes
