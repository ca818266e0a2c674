"""Telegram: a bot in a channel or a group."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from shared.domain.failures import (
    AuthExpiredError,
    OutcomeUnknownError,
    PermanentError,
    ThrottledError,
    TransientError,
)
from shared.platforms.base import Draft, NoGuarantee, Platform, Published
from shared.platforms.telegram import Telegram, shown
from tests.platforms.contract import TEXT, TOKEN, Exchange, PlatformContract, classified
from tests.platforms.stage import Stage, bytes_of, item
from tests.sandbox.platforms.dialect import multipart
from tests.sandbox.platforms.telegram import chat_number
from tests.sandbox.platforms.values import Answer

CHANNEL = "-1001234567890"
FAMILY = "👩‍👩‍👧‍👦"


def no(number: int, description: str, **parameters: Any) -> Answer:
    more = {"parameters": parameters} if parameters else {}
    body = {"ok": False, "error_code": number, "description": description}
    return Answer(number, body | more)


class TelegramContract(PlatformContract):
    platform_class = Telegram
    user_id = CHANNEL
    calls = frozenset({"create post"})
    chosen = ({"disableNotification": True}, {"disable_notification": True})
    refused = no(400, "Bad Request: need administrator rights in the channel chat")
    refused_code = "telegram_400"

    def quoting(self, sentence: str) -> Answer:
        return no(400, f"Bad Request: {sentence}")

    def everything(self, run: Exchange) -> None:
        run.publish()
        options = {"parseMode": "HTML", "linkPreview": False, "disableNotification": True}
        topic = {"protectContent": True, "messageThreadId": 7}
        run.publish(text="<b>Warm</b>", options=options | topic)
        run.publish(media=(item(1),), options=options)
        run.publish(media=(item(1, "image/gif"),), options=topic)
        run.publish(media=(item(1, "video/mp4", width=4, height=3, duration_ms=2000),))
        run.publish(media=(item(1), item(2, "video/mp4")), options=topic)

    @pytest.mark.parametrize(
        ("sentence", "said"),
        [
            (f"no such path: /bot{TOKEN}/sendMessage", "no such path: /bot…/sendMessage"),
            (f"not {TEXT}!", "not …!"),
        ],
    )
    def test_neither_the_token_in_the_address_nor_the_text_is_in_an_error(
        self, stage: Stage, platform: Platform, sentence: str, said: str
    ) -> None:
        self.answer_instead(stage, "create post", self.quoting(sentence))

        error = self.fail(stage, platform)

        assert error.message == f"Bad Request: {said}"
        assert not any(TOKEN in shown for shown in told(error))

    @pytest.mark.parametrize("kind", ["drop_before", "drop_after", "garbage"])
    def test_nor_where_there_was_no_answer(
        self, stage: Stage, platform: Platform, kind: Any
    ) -> None:
        stage.server.misbehave("telegram", "create post", kind)

        assert not any(TOKEN in shown for shown in told(self.fail(stage, platform)))

    def test_nor_in_what_is_on_record_of_the_call(self, stage: Stage, platform: Platform) -> None:
        stage.server.add_account("telegram", CHANNEL, "another-token")

        stage.publish(platform, self.delivery(), TOKEN)
        stage.publish(platform, self.delivery(), "another-token")

        first, second = stage.marks
        assert first == second


def told(error: BaseException | None) -> list[str]:
    """All that an error and its causes say."""
    shown = []
    while error is not None:
        shown.append(f"{error!r} {error} {vars(error)}")
        error = error.__cause__
    return shown


class TestTelegramMessage(TelegramContract):
    media = ()

    def test_the_media_arrive_in_their_order(self, stage: Stage, platform: Platform) -> None:
        """There is no alternative text on Telegram."""
        media = (item(3, alt_text="A loaf"), item(1), item(2, alt_text="A roll"))

        stage.publish(platform, self.delivery(media=media), TOKEN)

        (post,) = stage.server.posts("telegram")
        expected = [len(bytes_of(one)) for one in media]
        assert [held.size_bytes for held in post.media] == expected
        assert len({held.sha256 for held in post.media}) == 3

    def test_a_message_is_its_chat_and_its_text(self, stage: Stage, platform: Platform) -> None:
        stage.publish(platform, self.delivery(), TOKEN)

        (create,) = stage.server.calls("telegram", "create post")
        assert create.path == f"/bot{TOKEN}/sendMessage"
        assert create.json() == {"chat_id": CHANNEL, "text": TEXT}
        assert "authorization" not in create.headers

    def test_options_travel(self, stage: Stage, platform: Platform) -> None:
        options = {
            "parseMode": "HTML",
            "linkPreview": False,
            "disableNotification": True,
            "protectContent": True,
            "messageThreadId": 7,
        }

        text = "<b>Warm</b> &amp; fresh"
        stage.publish(platform, self.delivery(text=text, options=options), TOKEN)

        (post,) = stage.server.posts("telegram")
        assert post.text == "Warm & fresh"
        assert post.fields == {
            "chat_id": CHANNEL,
            "text": text,
            "parse_mode": "HTML",
            "link_preview_options": {"is_disabled": True},
            "disable_notification": True,
            "protect_content": True,
            "message_thread_id": 7,
        }

    # where it is

    @pytest.mark.parametrize(
        ("chat", "link"),
        [
            ("@acme_bread", "https://t.me/acme_bread/1"),
            ("-1009876543210", "https://t.me/c/9876543210/1"),
            ("-4012", None),
            ("4012", None),
        ],
    )
    def test_the_permalink_is_made_of_the_chat(
        self, stage: Stage, platform: Platform, chat: str, link: str | None
    ) -> None:
        stage.server.add_account("telegram", chat, TOKEN)

        published = stage.publish(platform, self.delivery(platform_user_id=chat), TOKEN)

        assert isinstance(published, Published)
        assert published.remote_url == link
        assert published.remote_id == f"{chat_number(chat)}:1"

    def test_messages_of_two_chats_have_two_ids(self, stage: Stage, platform: Platform) -> None:
        stage.server.add_account("telegram", "-4012", TOKEN)

        for chat in (CHANNEL, "-4012"):
            stage.publish(platform, self.delivery(platform_user_id=chat), TOKEN)

        ids = [post.id for post in stage.server.posts("telegram")]
        assert ids == [f"{CHANNEL}:1", "-4012:1"]

    def test_a_group_that_has_a_new_id_is_written_to_there(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.server.telegram.moved[CHANNEL] = -1005
        stage.server.add_account("telegram", "-1005", TOKEN)

        published = stage.publish(platform, self.delivery(), TOKEN)

        (post,) = stage.server.posts("telegram")
        assert isinstance(published, Published)
        assert (published.remote_id, post.account) == ("-1005:1", "-1005")
        assert stage.kept == [{"chat": "-1005"}]
        assert len(stage.marks) == 2  # the first call was refused

    def test_what_a_moved_group_refuses_is_refused(self, stage: Stage, platform: Platform) -> None:
        stage.server.telegram.moved[CHANNEL] = -1005

        error = self.fail(stage, platform)

        assert (type(error), error.message) == (PermanentError, "Bad Request: chat not found")

    def test_a_lost_answer_of_a_moved_group_is_unknown(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.server.telegram.moved[CHANNEL] = -1005
        stage.server.add_account("telegram", "-1005", TOKEN)
        to_the_new = lambda received: b"-1005" in received.body  # noqa: E731
        stage.server.misbehave("telegram", "create post", "drop_after", when=to_the_new)

        assert isinstance(self.fail(stage, platform), OutcomeUnknownError)

    def test_nothing_can_be_read_back(self) -> None:
        telegram = Telegram()

        assert telegram.guarantee == NoGuarantee()
        assert (telegram.metrics_batch, telegram.refreshes) == (0, False)

    # failures

    @pytest.mark.parametrize(
        ("number", "description", "kind"),
        [
            (400, "Bad Request: chat not found", PermanentError),
            (400, "Bad Request: can't parse entities: Unsupported start tag", PermanentError),
            (403, "Forbidden: bot was kicked from the channel chat", PermanentError),
            (403, "Forbidden: bot is not a member of the channel chat", PermanentError),
            (413, "Request Entity Too Large", PermanentError),
            (401, "Unauthorized", AuthExpiredError),
            (404, "Not Found", AuthExpiredError),  # no token looks like that
            (429, "Too Many Requests: retry after 35", ThrottledError),
            (500, "Internal Server Error", TransientError),
            (502, "Bad Gateway", TransientError),
        ],
    )
    def test_failures(self, number: int, description: str, kind: type) -> None:
        found = classified(Telegram(), number, no(number, description).body)

        assert (type(found), found.code, found.status) == (kind, f"telegram_{number}", number)
        assert found.message == description

    def test_a_throttle_is_in_seconds_and_in_the_body(self) -> None:
        body = no(429, "Too Many Requests: retry after 35", retry_after=35).body

        error = classified(Telegram(), 429, body)

        assert (error.until, error.scope) == (timedelta(seconds=35), "account")

    # what counts

    @pytest.mark.parametrize(
        "longest",
        [
            "日" * 4096,
            "e\u0301" * 2048,
            "🎉" * 2048,
            FAMILY * 372 + "four",  # eleven units each
            "https://a.example/ " * 215 + "and eleven.",
        ],
    )
    def test_the_longest_text_of_any_letters_arrives_and_one_unit_more_is_refused(
        self, stage: Stage, platform: Platform, longest: str
    ) -> None:
        assert platform.check(Draft(longest)) == []
        stage.publish(platform, self.delivery(text=longest), TOKEN)
        (post,) = stage.server.posts("telegram")
        assert post.text == longest

        assert [p.code for p in platform.check(Draft(longest + "x"))] == ["text_too_long"]
        error = self.fail(stage, platform, text=longest + "x")
        assert error.message == "Bad Request: message is too long"

    def test_of_html_only_what_is_shown_counts(self, stage: Stage, platform: Platform) -> None:
        options = {"parseMode": "HTML"}
        longest = f'<a href="https://a.example">{"&amp;" * 4094}</a>🎉'

        assert platform.check(Draft(longest, options=options)) == []
        stage.publish(platform, self.delivery(text=longest, options=options), TOKEN)
        problems = platform.check(Draft(f"{longest}x", options=options))
        assert [problem.code for problem in problems] == ["text_too_long"]

    @pytest.mark.parametrize(
        ("markup", "seen"),
        [
            ("plain", "plain"),
            ("<b>a <i>b</i></b>", "a b"),
            ('<A HREF="https://a.example?a=1">a</A>', "a"),
            ("<tg-spoiler>a</tg-spoiler> > b", "a > b"),
            ("&lt;b&gt; &amp; &quot;&#33;&#x1F389;&nbsp;", '<b> & "!🎉&nbsp;'),
            ("a < b", None),
            ("<b>a", None),
            ("a</b>", None),
            ("<b><i>a</b></i>", None),
            ("<p>a</p>", None),
            ("a<br/>b", None),
        ],
    )
    def test_html_is_read_as_telegram_reads_it(
        self, stage: Stage, platform: Platform, markup: str, seen: str | None
    ) -> None:
        options = {"parseMode": "HTML"}
        codes = [] if seen is not None else ["markup_invalid"]

        assert shown(markup) == seen
        assert [p.code for p in platform.check(Draft(markup, options=options))] == codes
        if seen is None:
            error = self.fail(stage, platform, text=markup, options=options)
            assert "can't parse entities" in error.message
        else:
            stage.publish(platform, self.delivery(text=markup, options=options), TOKEN)
            assert stage.server.posts("telegram")[0].text == seen


class TestTelegramFiles(TelegramContract):
    """With files: the text is a caption, which is shorter."""

    text_chars = 1024

    def test_the_media_arrive_in_their_order(self, stage: Stage, platform: Platform) -> None:
        media = (item(1), item(2, "video/mp4", width=4, height=3, duration_ms=2500), item(3))

        stage.publish(platform, self.delivery(media=media), TOKEN)

        (create,) = stage.server.calls("telegram", "create post")
        form, files = multipart(create)
        assert json.loads(form["media"]) == [
            {"type": "photo", "media": "attach://file0", "caption": TEXT},
            {
                "type": "video",
                "media": "attach://file1",
                "width": 4,
                "height": 3,
                "duration": 2,
                "supports_streaming": True,
            },
            {"type": "photo", "media": "attach://file2"},
        ]
        assert [part.body for part in files.values()] == [bytes_of(one) for one in media]
        (post,) = stage.server.posts("telegram")
        assert post.text == TEXT

    @pytest.mark.parametrize(
        ("content_type", "method", "field"),
        [
            ("image/jpeg", "sendPhoto", "photo"),
            ("image/png", "sendPhoto", "photo"),
            ("image/gif", "sendAnimation", "animation"),
            ("video/mp4", "sendVideo", "video"),
        ],
    )
    def test_one_file_is_sent_as_what_it_is(
        self, stage: Stage, platform: Platform, content_type: str, method: str, field: str
    ) -> None:
        media, options = (item(1, content_type),), {"disableNotification": True}

        published = stage.publish(platform, self.delivery(media=media, options=options), TOKEN)

        (create,) = stage.server.calls("telegram", "create post")
        form, files = multipart(create)
        assert create.path == f"/bot{TOKEN}/{method}"
        assert files[field].body == bytes_of(media[0])
        assert (form["caption"], form["disable_notification"]) == (TEXT, "true")
        assert isinstance(published, Published)
        assert published.remote_id == f"{CHANNEL}:1"

    def test_a_file_needs_no_text(self, stage: Stage, platform: Platform) -> None:
        stage.publish(platform, self.delivery(text="", media=(item(1),)), TOKEN)

        (post,) = stage.server.posts("telegram")
        assert "caption" not in post.fields

    def test_an_albums_caption_may_be_html(self, stage: Stage, platform: Platform) -> None:
        options = {"parseMode": "HTML"}

        stage.publish(platform, self.delivery(text="<b>Warm</b>", options=options), TOKEN)

        (post,) = stage.server.posts("telegram")
        assert post.text == "Warm"

    def test_an_album_is_named_by_its_first_message(self, stage: Stage, platform: Platform) -> None:
        outcomes = [stage.publish(platform, self.delivery(), TOKEN) for _ in range(2)]

        ids = [outcome.remote_id for outcome in outcomes if isinstance(outcome, Published)]
        assert ids == [f"{CHANNEL}:1", f"{CHANNEL}:3"]

    # what counts

    def test_a_longer_caption_is_refused(self, stage: Stage, platform: Platform) -> None:
        stage.publish(platform, self.delivery(text="🎉" * 512), TOKEN)

        error = self.fail(stage, platform, text="🎉" * 512 + "x")

        assert error.message == "Bad Request: message caption is too long"

    def test_an_album_has_a_size_that_one_call_can_send(self, platform: Platform) -> None:
        films = [item(number, "video/mp4", size_bytes=50 * 1024 * 1024) for number in (1, 2, 3)]

        assert platform.check(Draft(TEXT, tuple(films[:2]))) == []
        (problem,) = platform.check(Draft(TEXT, tuple(films)))
        assert (problem.field, problem.code) == ("media", "media_too_large")

    def test_a_gif_stands_alone(self, platform: Platform) -> None:
        gif = item(1, "image/gif")

        assert platform.check(Draft(TEXT, (gif,))) == []
        (problem,) = platform.check(Draft(TEXT, (gif, item(2))))
        assert (problem.field, problem.code) == ("media", "media_mix")

    @pytest.mark.parametrize(
        ("width", "height", "codes"),
        [
            (5000, 5000, []),
            (5000, 5001, ["media_too_large"]),
            (2000, 100, []),
            (2001, 100, ["media_too_large"]),
            (None, 20000, []),
        ],
    )
    def test_a_pictures_sides_have_limits(
        self, platform: Platform, width: int | None, height: int, codes: list[str]
    ) -> None:
        picture = item(1, width=width, height=height)

        assert [problem.code for problem in platform.check(Draft(TEXT, (picture,)))] == codes
