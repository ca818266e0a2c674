"""Discord: a bot in a channel, and a channel's webhook."""

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
from shared.platforms.base import Draft, NoGuarantee, Platform, Published, Windowed
from shared.platforms.discord import Discord
from tests.platforms.contract import TEXT, TOKEN, Exchange, PlatformContract, classified, turn
from tests.platforms.stage import Stage, bytes_of, item
from tests.sandbox.platforms.dialect import multipart
from tests.sandbox.platforms.discord import GUILD, HOOKED_CHANNEL
from tests.sandbox.platforms.values import Answer

CHANNEL = "41771983423143938"
FAMILY = "👩‍👩‍👧‍👦"
MEGABYTE = 1024 * 1024


class TestDiscordBot(PlatformContract):
    platform_class = Discord
    user_id = CHANNEL
    calls = frozenset({"create post", "read channel", "who am I", "find post"})
    chosen = ({"silent": True}, {"flags": 4096})
    counted = "\N{THUMBS UP SIGN}"
    refused = Answer(403, {"message": "Missing Permissions", "code": 50013})
    refused_code = "discord_50013"

    def quoting(self, sentence: str) -> Answer:
        return Answer(400, {"message": sentence, "code": 50035})

    def everything(self, run: Exchange) -> None:
        run.publish(key="1", options={"silent": True, "suppressEmbeds": True}, server=None)
        run.publish(key="2", text="Several", media=(item(1), item(2, alt_text="A roll")))
        run.publish(key="3", text="", media=(item(1, "video/mp4"),))
        run.lookup("Several", media=(item(1), item(2)))

    # what is sent

    def test_a_message_carries_a_nonce_and_notifies_nobody(
        self, stage: Stage, platform: Platform
    ) -> None:
        key = "0a1b2c3d-4e5f-6a7b-8c9d-0123456789abcdef"

        stage.publish(platform, self.delivery(media=(), key=key), TOKEN)

        (create,) = stage.server.calls("discord", "create post")
        assert create.json() == {
            "content": TEXT,
            "allowed_mentions": {"parse": []},
            "nonce": "0a1b2c3d4e5f6a7b8c9d01234",
            "enforce_nonce": True,
        }
        assert create.headers["authorization"] == f"Bot {TOKEN}"
        assert create.headers["user-agent"].startswith("DiscordBot (")

    def test_files_travel_with_the_message(self, stage: Stage, platform: Platform) -> None:
        media = (item(1, alt_text="A loaf"), item(2, "video/mp4"))

        stage.publish(platform, self.delivery(media=media), TOKEN)

        (create,) = stage.server.calls("discord", "create post")
        form, files = multipart(create)
        message = json.loads(form["payload_json"])
        assert message["content"] == TEXT
        assert message["attachments"] == [{"id": "0", "description": "A loaf"}, {"id": "1"}]
        assert [(part.filename, part.body) for part in files.values()] == [
            ("asset-1.jpeg", bytes_of(media[0])),
            ("asset-2.mp4", bytes_of(media[1])),
        ]

    def test_a_picture_needs_no_text(self, stage: Stage, platform: Platform) -> None:
        stage.publish(platform, self.delivery(text="", media=(item(1),)), TOKEN)

        (post,) = stage.server.posts("discord")
        assert "content" not in post.fields

    @pytest.mark.parametrize(
        ("options", "flags"),
        [({"suppressEmbeds": True}, 4), ({"silent": True, "suppressEmbeds": True}, 4100)],
    )
    def test_options_are_flags(
        self, stage: Stage, platform: Platform, options: dict[str, Any], flags: int
    ) -> None:
        stage.publish(platform, self.delivery(media=(), options=options), TOKEN)

        (post,) = stage.server.posts("discord")
        assert post.fields["flags"] == flags

    # the permalink

    def test_the_guild_is_read_from_the_channel(self, stage: Stage, platform: Platform) -> None:
        published = stage.publish(platform, self.delivery(), TOKEN)

        assert isinstance(published, Published)
        link = f"https://discord.com/channels/{GUILD}/{CHANNEL}/{published.remote_id}"
        assert published.remote_url == link

    def test_a_guild_that_is_known_is_not_asked_for(self, stage: Stage, platform: Platform) -> None:
        published = stage.publish(platform, self.delivery(server="77"), TOKEN)

        assert isinstance(published, Published)
        link = f"https://discord.com/channels/77/{CHANNEL}/{published.remote_id}"
        assert published.remote_url == link
        assert stage.server.calls("discord", "read channel") == []

    @pytest.mark.parametrize("kind", ["error_before", "drop_before", "garbage"])
    def test_a_guild_that_cannot_be_read_unpublishes_nothing(
        self, stage: Stage, platform: Platform, kind: Any
    ) -> None:
        stage.server.misbehave("discord", "read channel", kind)

        published = stage.publish(platform, self.delivery(), TOKEN)

        assert isinstance(published, Published)
        assert published.remote_url is None

    # an outcome that is not known

    def test_only_a_bot_has_a_guarantee(self) -> None:
        bot, webhook = (Discord().guarantee_for(account) for account in (CHANNEL, "webhook:2233"))

        assert bot == Windowed(timedelta(seconds=60), timedelta(seconds=120))
        assert webhook == NoGuarantee()

    @pytest.mark.parametrize("media", [(), (item(1),)])
    def test_a_repeat_within_the_window_is_the_first_message(
        self, stage: Stage, platform: Platform, media: Any
    ) -> None:
        stage.server.misbehave("discord", "create post", "drop_after")
        self.fail(stage, platform, media=media)
        turn(stage, timedelta(seconds=119))

        published = stage.publish(platform, self.delivery(media=media), TOKEN)

        (post,) = stage.server.posts("discord")
        assert isinstance(published, Published)
        assert (published.remote_id, published.found) == (post.id, False)

    @pytest.mark.parametrize("text", ["Plain", "  **bold** @everyone <@1> \n", f"{FAMILY} e\u0301"])
    @pytest.mark.parametrize("media", [(), (item(1), item(2))])
    def test_a_message_whose_answer_was_lost_is_found(
        self, stage: Stage, platform: Platform, text: str, media: Any
    ) -> None:
        since = stage.server.clock.now()
        stage.server.misbehave("discord", "create post", "drop_after")
        self.fail(stage, platform, text=text, media=media)

        delivery = self.delivery(text=text, media=media, unsettled_since=since)
        found = stage.lookup(platform, delivery, TOKEN)

        (post,) = stage.server.posts("discord")
        assert (found.remote_id, found.found) == (post.id, True)
        assert found.remote_url == f"https://discord.com/channels/{GUILD}/{CHANNEL}/{post.id}"
        assert found.published_at is not None

    @pytest.mark.parametrize("other", [{"text": f"{TEXT} again"}, {"media": (item(1),)}])
    def test_another_message_is_not_ours(
        self, stage: Stage, platform: Platform, other: dict[str, Any]
    ) -> None:
        since = stage.server.clock.now()
        stage.publish(platform, self.delivery(**other), TOKEN)

        with pytest.raises(OutcomeUnknownError, match="not_found"):
            stage.lookup(platform, self.delivery(unsettled_since=since), TOKEN)

    def test_another_bots_message_is_not_ours(self, stage: Stage, platform: Platform) -> None:
        stage.server.add_account("discord", CHANNEL, "another-bot")
        since = stage.server.clock.now()
        stage.publish(platform, self.delivery(), "another-bot")

        with pytest.raises(OutcomeUnknownError, match="not_found"):
            stage.lookup(platform, self.delivery(unsettled_since=since), TOKEN)

    def test_an_older_message_is_not_ours(self, stage: Stage, platform: Platform) -> None:
        stage.publish(platform, self.delivery(), TOKEN)
        turn(stage, timedelta(seconds=61))
        since = stage.server.clock.now()

        with pytest.raises(OutcomeUnknownError, match="not_found"):
            stage.lookup(platform, self.delivery(unsettled_since=since), TOKEN)

    def test_two_of_a_kind_prove_nothing(self, stage: Stage, platform: Platform) -> None:
        since = stage.server.clock.now()
        stage.publish(platform, self.delivery(key="1"), TOKEN)
        stage.publish(platform, self.delivery(key="2"), TOKEN)

        with pytest.raises(OutcomeUnknownError, match="ambiguous"):
            stage.lookup(platform, self.delivery(unsettled_since=since), TOKEN)

    # failures

    @pytest.mark.parametrize(
        ("status", "number", "kind", "code"),
        [
            (400, 50035, PermanentError, "discord_50035"),
            (400, 50006, PermanentError, "discord_50006"),
            (413, 40005, PermanentError, "discord_40005"),
            (400, 50045, PermanentError, "discord_50045"),
            (403, 50001, PermanentError, "discord_50001"),
            (403, 50013, PermanentError, "discord_50013"),
            (404, 10003, PermanentError, "discord_10003"),
            (404, 10015, PermanentError, "discord_10015"),
            (400, 200000, PermanentError, "discord_200000"),
            (400, 240000, PermanentError, "discord_240000"),
            (400, 160005, PermanentError, "discord_160005"),
            (400, 220001, PermanentError, "discord_220001"),
            (401, 0, AuthExpiredError, "token_refused"),
            (401, 50014, AuthExpiredError, "discord_50014"),
            (401, 50027, AuthExpiredError, "discord_50027"),
            (429, 0, ThrottledError, "throttled"),
            (429, 20016, ThrottledError, "discord_20016"),
            (403, 20028, ThrottledError, "discord_20028"),
            (403, 20029, ThrottledError, "discord_20029"),
            (400, 40006, TransientError, "discord_40006"),
            (403, 40333, TransientError, "discord_40333"),
            (500, 0, TransientError, "http_500"),
            (503, 0, TransientError, "http_503"),
        ],
    )
    def test_failures(self, status: int, number: int, kind: type, code: str) -> None:
        found = classified(Discord(), status, {"message": "A sentence", "code": number})

        assert (type(found), found.code, found.status) == (kind, code, status)
        assert found.message == "A sentence"

    def test_what_is_wrong_with_a_form_is_said(self) -> None:
        wrong = {"_errors": [{"code": "TOO_LONG", "message": "Must be 2000 or fewer in length."}]}
        body = {"message": "Invalid Form Body", "code": 50035, "errors": {"content": wrong}}

        error = classified(Discord(), 400, body)

        assert error.message == "Invalid Form Body content: Must be 2000 or fewer in length."

    @pytest.mark.parametrize(
        ("body", "headers", "until", "scope"),
        [
            ({"retry_after": 64.57, "global": False}, {}, timedelta(seconds=64.57), "account"),
            ({"retry_after": 1, "global": True}, {}, timedelta(seconds=1), "platform"),
            ({}, {"X-RateLimit-Reset-After": "2.5"}, timedelta(seconds=2.5), "account"),
            ({}, {"Retry-After": "65"}, timedelta(seconds=65), "account"),
            ({"retry_after": "soon"}, {}, None, "account"),
        ],
    )
    def test_the_reset_is_in_seconds_with_fractions(
        self, body: dict[str, Any], headers: dict[str, str], until: Any, scope: str
    ) -> None:
        limited = {"message": "You are being rate limited.", **body}

        error = classified(Discord(), 429, limited, headers=headers)

        assert (error.until, error.scope) == (until, scope)

    # what counts

    @pytest.mark.parametrize("letter", ["x", "日", "🎉", "\u0301"])
    def test_the_longest_text_arrives_and_one_more_is_refused(
        self, stage: Stage, platform: Platform, letter: str
    ) -> None:
        longest = "x" + letter * 1999

        assert platform.check(Draft(longest)) == []
        stage.publish(platform, self.delivery(text=longest, media=()), TOKEN)

        (post,) = stage.server.posts("discord")
        assert post.text == longest
        assert [p.code for p in platform.check(Draft(longest + letter))] == ["text_too_long"]
        error = self.fail(stage, platform, text=longest + letter, media=(), key="2")
        assert isinstance(error, PermanentError)

    def test_the_files_together_have_a_limit(self, platform: Platform) -> None:
        sizes = (10 * MEGABYTE, 10 * MEGABYTE, 5 * MEGABYTE)
        media = tuple(item(n, size_bytes=size) for n, size in enumerate(sizes))

        assert platform.check(Draft(TEXT, media)) == []
        (problem,) = platform.check(Draft(TEXT, (*media, item(4, size_bytes=1))))
        assert (problem.field, problem.code) == ("media", "media_too_large")

    def test_the_longest_alt_text_is_fit_and_one_more_is_not(self, platform: Platform) -> None:
        assert platform.check(Draft(TEXT, (item(1, alt_text="x" * 1024),))) == []
        (problem,) = platform.check(Draft(TEXT, (item(1, alt_text="x" * 1025),)))
        assert (problem.field, problem.code) == ("media[0]", "alt_text_too_long")

    def test_images_and_videos_may_stand_together(self, platform: Platform) -> None:
        media = (item(1), item(2, "video/mp4"), item(3, "video/webm"))

        assert platform.check(Draft(TEXT, media)) == []

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("username", "Bread"),
            ("avatarUrl", "https://a.example/b.png"),
            ("threadId", "77"),
            ("threadName", "Bread"),
        ],
    )
    def test_some_options_are_for_webhooks(self, platform: Platform, name: str, value: str) -> None:
        draft = Draft(TEXT, options={name: value}, platform_user_id="webhook:2233")
        assert platform.check(draft) == []

        draft = Draft(TEXT, options={name: value}, platform_user_id=CHANNEL)
        (problem,) = platform.check(draft)
        assert (problem.field, problem.code) == (f"options.{name}", "option_invalid")


class TestDiscordWebhook(PlatformContract):
    platform_class = Discord
    user_id = "webhook:2233"
    calls = frozenset({"create post", "read channel"})
    chosen = ({"username": "Bread"}, {"username": "Bread"})
    counted = "\N{THUMBS UP SIGN}"
    refused = Answer(404, {"message": "Unknown Webhook", "code": 10015})
    refused_code = "discord_10015"

    def quoting(self, sentence: str) -> Answer:
        return Answer(400, {"message": sentence, "code": 50035})

    def everything(self, run: Exchange) -> None:
        options = {"username": "Bread", "avatarUrl": "https://a.example/b.png", "threadId": "77"}
        run.publish(options=options, server=None)
        run.publish(options={"threadName": "Bread"}, media=(item(1, alt_text="A loaf"),))

    def test_a_webhook_is_waited_for_and_has_no_nonce(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.publish(platform, self.delivery(media=()), TOKEN)

        (create,) = stage.server.calls("discord", "create post")
        assert create.path == f"/webhooks/2233/{TOKEN}"
        assert create.query == "wait=true"
        assert create.json() == {"content": TEXT, "allowed_mentions": {"parse": []}}
        assert "authorization" not in create.headers
        assert create.headers["user-agent"].startswith("DiscordBot (")

    def test_options_of_a_webhook(self, stage: Stage, platform: Platform) -> None:
        options = {
            "username": "Bread",
            "avatarUrl": "https://a.example/b.png",
            "threadId": "77",
            "threadName": "Warm",
        }

        stage.publish(platform, self.delivery(options=options), TOKEN)

        (create,) = stage.server.calls("discord", "create post")
        (post,) = stage.server.posts("discord")
        assert create.params == {"wait": "true", "thread_id": "77"}
        assert post.fields["username"] == "Bread"
        assert post.fields["avatar_url"] == "https://a.example/b.png"
        assert post.fields["thread_name"] == "Warm"

    def test_the_permalink_names_the_thread(self, stage: Stage, platform: Platform) -> None:
        whole = stage.publish(platform, self.delivery(), TOKEN)
        thread = stage.publish(platform, self.delivery(options={"threadId": "77"}), TOKEN)

        assert isinstance(whole, Published)
        assert isinstance(thread, Published)
        start = f"https://discord.com/channels/{GUILD}"
        assert whole.remote_url == f"{start}/{HOOKED_CHANNEL}/{whole.remote_id}"
        assert thread.remote_url == f"{start}/77/{thread.remote_id}"

    def test_a_webhook_that_kept_silent_is_unknown(self, stage: Stage, platform: Platform) -> None:
        self.answer_instead(stage, "create post", Answer(204))

        assert isinstance(self.fail(stage, platform), OutcomeUnknownError)

    def test_a_lookup_reads_nothing(self, stage: Stage, platform: Platform) -> None:
        since = stage.server.clock.now()

        with pytest.raises(OutcomeUnknownError, match="not_readable"):
            stage.lookup(platform, self.delivery(unsettled_since=since), TOKEN)

        assert stage.server.requests == []

    @pytest.mark.parametrize("media", [(), (item(1),)])
    def test_the_token_in_the_address_is_in_no_error(
        self, stage: Stage, platform: Platform, media: Any
    ) -> None:
        sentence = f"no such path: /webhooks/2233/{TOKEN}?wait=true"
        self.answer_instead(stage, "create post", self.quoting(sentence))

        error = self.fail(stage, platform, media=media)

        assert error.message == "no such path: /webhooks/2233/…?wait=true"
        chain: BaseException | None = error
        while chain is not None:
            assert TOKEN not in f"{chain!r} {chain}"
            chain = chain.__cause__

    @pytest.mark.parametrize("kind", ["drop_before", "drop_after", "garbage"])
    def test_nor_where_there_was_no_answer(
        self, stage: Stage, platform: Platform, kind: Any
    ) -> None:
        stage.server.misbehave("discord", "create post", kind)

        chain: BaseException | None = self.fail(stage, platform)

        while chain is not None:
            assert TOKEN not in f"{chain!r} {chain}"
            chain = chain.__cause__

    def test_a_webhooks_token_that_was_revoked(self, stage: Stage, platform: Platform) -> None:
        stage.server.revoke(TOKEN)

        error = self.fail(stage, platform)

        assert (type(error), error.code) == (AuthExpiredError, "discord_50027")
