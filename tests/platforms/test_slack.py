"""Slack: an app's bot in a channel."""

from __future__ import annotations

import json
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
from shared.platforms.base import Draft, Platform, Processing, Published, ReadBack
from shared.platforms.slack import PASSING, REFUSED, Slack, rich_text
from tests.platforms.contract import (
    REFRESH_TOKEN,
    TEXT,
    TOKEN,
    Exchange,
    PlatformContract,
    RefreshesAsClient,
    SendsFiles,
    classified,
    turn,
)
from tests.platforms.openapi import CONTRACTS
from tests.platforms.stage import Stage, bytes_of, item
from tests.sandbox.platforms.values import Answer

CHANNEL = "C024BE91L"
FAMILY = "👩‍👩‍👧‍👦"


def said(error: str, *sentences: str) -> Answer:
    more = {"response_metadata": {"messages": list(sentences)}} if sentences else {}
    return Answer(200, {"ok": False, "error": error} | more)


class SlackContract(PlatformContract):
    platform_class = Slack
    user_id = CHANNEL
    calls = frozenset(
        {
            *("begin upload", "upload", "create post", "read file", "read permalink"),
            *("find post", "refresh"),
        }
    )
    chosen = ({"mrkdwn": True}, {"mrkdwn": True})
    counted = "reactions"
    nobodys = f"{CHANNEL}:1503435956.000247"
    refused = said("restricted_action")
    refused_code = "restricted_action"

    def quoting(self, sentence: str) -> Answer:
        return said("invalid_blocks", f"[ERROR] {sentence}")

    def everything(self, run: Exchange) -> None:
        options = {"unfurlLinks": True, "unfurlMedia": False}
        parent = run.publish(options=options).remote_id.rpartition(":")[2]
        run.publish(options={"threadTs": parent, "replyBroadcast": True, "mrkdwn": True})
        run.publish(text="One", media=(item(1, alt_text="A loaf"),))
        run.stage.server.misbehave("slack", "create post", "processing", polls=1)
        files = (item(1), item(2, "video/mp4"))
        run.publish(text="Several", options={"threadTs": parent, "mrkdwn": True}, media=files)
        run.lookup(TEXT)
        run.lookup("Several", media=files, state=run.stage.kept[-1])
        run.stage.refresh(run.platform, Tokens(TOKEN, REFRESH_TOKEN))


class TestSlackFiles(SlackContract, SendsFiles, RefreshesAsClient):
    """With files: they are shared, with the text, by the call that ends their upload."""

    upload = "begin upload"

    def test_a_file_is_posted_to_its_address_as_it_is(
        self, stage: Stage, platform: Platform
    ) -> None:
        media = (item(1, alt_text="A loaf"), item(2, "video/mp4", size_bytes=1))

        stage.publish(platform, self.delivery(media=media), TOKEN)

        first, second = stage.server.calls("slack", "begin upload")
        length = str(len(bytes_of(media[0])))
        assert first.form() == {
            "filename": "asset-1.jpeg",
            "length": length,
            "alt_txt": "A loaf",
        }
        size = str(len(bytes_of(media[1])))  # as it is, not as it is on record
        assert second.form() == {"filename": "asset-2.mp4", "length": size}
        uploads = stage.server.calls("slack", "upload")
        assert [upload.body for upload in uploads] == [bytes_of(one) for one in media]
        assert uploads[0].headers["content-length"] == length
        assert "authorization" not in uploads[0].headers

    def test_the_text_stands_in_a_block_where_nothing_is_markup(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.publish(platform, self.delivery(text="*a* https://a.example/_b_."), TOKEN)

        (create,) = stage.server.calls("slack", "create post")
        (section,) = create.json()["blocks"][0]["elements"]
        assert section["elements"] == [
            {"type": "text", "text": "*a* "},
            {"type": "link", "url": "https://a.example/_b_"},
            {"type": "text", "text": "."},
        ]
        assert create.json()["channel_id"] == CHANNEL

    def test_files_need_no_text(self, stage: Stage, platform: Platform) -> None:
        stage.publish(platform, self.delivery(text="", media=(item(1),)), TOKEN)

        (post,) = stage.server.posts("slack")
        assert set(post.fields) == {"channel_id", "files"}

    def test_files_may_reply_and_carry_markup(self, stage: Stage, platform: Platform) -> None:
        parent = stage.publish(platform, self.delivery(media=()), TOKEN)
        assert isinstance(parent, Published)
        options = {"mrkdwn": True, "threadTs": parent.remote_id.rpartition(":")[2]}

        text = "*Warm* <https://a.example|bread>"
        stage.publish(platform, self.delivery(text=text, options=options), TOKEN)

        reply = stage.server.posts("slack")[-1]
        assert reply.fields["initial_comment"] == text
        assert reply.fields["thread_ts"] == options["threadTs"]
        assert reply.text == "Warm bread"

    # shared late

    def test_files_that_are_shared_late_are_asked_for_and_not_sent_again(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.server.misbehave("slack", "create post", "processing", polls=2)

        outcome = stage.publish(platform, self.delivery(), TOKEN)
        waits = 0
        while isinstance(outcome, Processing):
            waits += 1
            assert outcome.check_after == timedelta(seconds=5)
            outcome = stage.publish(platform, self.delivery(state=outcome.state), TOKEN)

        (post,) = stage.server.posts("slack")
        assert (outcome.remote_id, outcome.found, waits) == (post.id, False, 2)
        assert len(stage.server.calls("slack", "create post")) == 1
        assert len(stage.marks) == 1

    def test_trouble_while_asking_is_not_trouble_with_the_post(
        self, stage: Stage, platform: Platform
    ) -> None:
        for kind in ("error_before", "drop_before", "garbage", "throttle"):
            stage.server.misbehave("slack", "read file", kind)  # type: ignore[arg-type]

        outcome = stage.publish(platform, self.delivery(), TOKEN)
        while isinstance(outcome, Processing):
            outcome = stage.publish(platform, self.delivery(state=outcome.state), TOKEN)

        assert len(stage.server.calls("slack", "read file")) == 5
        assert outcome.remote_id == stage.server.posts("slack")[0].id

    def test_files_that_are_never_shared_are_unknown(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.server.misbehave("slack", "create post", "processing", polls=100)
        outcome = stage.publish(platform, self.delivery(), TOKEN)
        for _ in range(11):
            assert isinstance(outcome, Processing)
            outcome = stage.publish(platform, self.delivery(state=outcome.state), TOKEN)

        assert isinstance(outcome, Processing)
        with pytest.raises(OutcomeUnknownError, match="not_shared"):
            stage.publish(platform, self.delivery(state=outcome.state), TOKEN)

        assert len(stage.server.calls("slack", "create post")) == 1

    def test_shared_files_whose_answer_was_lost_are_found_by_their_ids(
        self, stage: Stage, platform: Platform
    ) -> None:
        since = stage.server.clock.now()
        stage.server.misbehave("slack", "create post", "drop_after")
        self.fail(stage, platform)

        delivery = self.delivery(state=stage.kept[-1], unsettled_since=since)
        found = stage.lookup(platform, delivery, TOKEN)

        (post,) = stage.server.posts("slack")
        assert (found.remote_id, found.found) == (post.id, True)

    def test_files_that_were_not_shared_are_not_found(
        self, stage: Stage, platform: Platform
    ) -> None:
        since = stage.server.clock.now()
        stage.server.misbehave("slack", "create post", "drop_before")
        self.fail(stage, platform)

        delivery = self.delivery(state=stage.kept[-1], unsettled_since=since)
        with pytest.raises(OutcomeUnknownError, match="not_found"):
            stage.lookup(platform, delivery, TOKEN)

    def test_uploads_of_long_ago_are_made_anew(self, stage: Stage, platform: Platform) -> None:
        begun = stage.server.clock.now()
        stage.server.misbehave("slack", "create post", "throttle")
        self.fail(stage, platform, attempted_at=begun)

        later = begun + timedelta(minutes=61)
        again = self.delivery(state=stage.kept[-1], attempted_at=later)
        stage.publish(platform, again, TOKEN)

        assert len(stage.server.calls("slack", "upload")) == 4

    # tokens

    def test_a_refresh_token_works_once(self, stage: Stage, platform: Platform) -> None:
        grant = stage.refresh(platform, self.tokens())

        assert grant.refresh_token not in (None, REFRESH_TOKEN)
        assert grant.expires_in == timedelta(hours=12)
        with pytest.raises(AuthExpiredError, match="invalid_refresh_token"):
            stage.refresh(platform, self.tokens())


class TestSlackMessage(SlackContract):
    """Without files: one call, which carries a key to find the message by."""

    media = ()

    def test_a_message_is_escaped_and_carries_its_key(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.publish(platform, self.delivery(text="<a> & b", key="key-7"), TOKEN)

        (create,) = stage.server.calls("slack", "create post")
        assert create.json() == {
            "channel": CHANNEL,
            "text": "&lt;a&gt; &amp; b",
            "mrkdwn": False,
            "metadata": {"event_type": "tendsocial_post", "event_payload": {"key": "key-7"}},
        }
        assert create.headers["content-type"] == "application/json; charset=utf-8"

    def test_markup_is_left_as_it_is_where_it_is_meant(
        self, stage: Stage, platform: Platform
    ) -> None:
        text = "*Warm* <https://a.example|bread> &amp; <!here>"

        stage.publish(platform, self.delivery(text=text, options={"mrkdwn": True}), TOKEN)

        (post,) = stage.server.posts("slack")
        assert post.fields["text"] == text
        assert post.text == "Warm bread & !here"

    def test_options_travel(self, stage: Stage, platform: Platform) -> None:
        parent = stage.publish(platform, self.delivery(), TOKEN)
        assert isinstance(parent, Published)
        ts = parent.remote_id.rpartition(":")[2]
        options = {"threadTs": ts, "replyBroadcast": True, "unfurlLinks": False}

        stage.publish(platform, self.delivery(options=options), TOKEN)

        fields = stage.server.posts("slack")[-1].fields
        assert (fields["thread_ts"], fields["reply_broadcast"]) == (ts, True)
        assert fields["unfurl_links"] is False

    def test_the_permalink_is_asked_for(self, stage: Stage, platform: Platform) -> None:
        published = stage.publish(platform, self.delivery(), TOKEN)

        assert isinstance(published, Published)
        place = published.remote_id.replace(":", "/p").replace(".", "")
        assert published.remote_url == f"https://acme.slack.com/archives/{place}"

    @pytest.mark.parametrize("kind", ["error_before", "drop_before", "garbage", "throttle"])
    def test_a_permalink_that_cannot_be_read_unpublishes_nothing(
        self, stage: Stage, platform: Platform, kind: Any
    ) -> None:
        stage.server.misbehave("slack", "read permalink", kind)

        published = stage.publish(platform, self.delivery(), TOKEN)

        assert isinstance(published, Published)
        assert published.remote_url is None

    def test_an_error_does_not_quote_the_text_unescaped(
        self, stage: Stage, platform: Platform
    ) -> None:
        self.answer_instead(stage, "create post", self.quoting(f"not {TEXT}"))

        assert self.fail(stage, platform).message == "invalid_blocks [ERROR] not …"

    # an outcome that is not known

    def test_what_is_written_can_be_read_back(self) -> None:
        assert Slack().guarantee == ReadBack()

    def test_a_message_whose_answer_was_lost_is_found_by_its_key(
        self, stage: Stage, platform: Platform
    ) -> None:
        since = stage.server.clock.now()
        stage.publish(platform, self.delivery(text="🎉", key="another"), TOKEN)
        stage.server.misbehave("slack", "create post", "drop_after")
        self.fail(stage, platform, text="🎉", key="ours")
        stage.publish(platform, self.delivery(text="🎉", key="a-third"), TOKEN)

        delivery = self.delivery(text="🎉", key="ours", unsettled_since=since)
        found = stage.lookup(platform, delivery, TOKEN)

        _, post, _ = stage.server.posts("slack")
        assert (found.remote_id, found.found) == (post.id, True)
        assert found.published_at is not None
        assert found.remote_url is not None

    def test_it_is_found_on_a_later_page(self, stage: Stage, platform: Platform) -> None:
        stage.server.slack.page_most = 2
        since = stage.server.clock.now()
        for number in range(5):
            stage.publish(platform, self.delivery(key=f"key-{number}"), TOKEN)

        found = stage.lookup(platform, self.delivery(key="key-0", unsettled_since=since), TOKEN)

        assert found.remote_id == stage.server.posts("slack")[0].id
        assert len(stage.server.calls("slack", "find post")) == 3

    @pytest.mark.parametrize("later", [timedelta(seconds=61), timedelta(minutes=-3)])
    def test_a_message_of_another_time_is_not_ours(
        self, stage: Stage, platform: Platform, later: timedelta
    ) -> None:
        stage.publish(platform, self.delivery(), TOKEN)
        since = stage.server.clock.now() + later

        with pytest.raises(OutcomeUnknownError, match="not_found"):
            stage.lookup(platform, self.delivery(unsettled_since=since), TOKEN)

    def test_replies_are_not_listed(self, stage: Stage, platform: Platform) -> None:
        options = {"threadTs": "1503435956.000247"}
        since = stage.server.clock.now()

        with pytest.raises(OutcomeUnknownError, match="not_readable"):
            stage.lookup(platform, self.delivery(options=options, unsettled_since=since), TOKEN)

        assert stage.server.requests == []

    # failures

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            ("channel_not_found", PermanentError),
            ("not_in_channel", PermanentError),
            ("is_archived", PermanentError),
            ("missing_scope", PermanentError),
            ("msg_blocks_too_long", PermanentError),
            ("token_revoked", AuthExpiredError),
            ("token_expired", AuthExpiredError),
            ("account_inactive", AuthExpiredError),
            ("invalid_auth", AuthExpiredError),
            ("not_authed", AuthExpiredError),
            ("ratelimited", ThrottledError),
            ("rate_limited", ThrottledError),
            ("message_limit_exceeded", ThrottledError),
            ("service_unavailable", TransientError),
            ("team_added_to_org", TransientError),
            ("org_login_required", TransientError),
            ("fatal_error", OutcomeUnknownError),
            ("internal_error", OutcomeUnknownError),
            ("an_error_of_tomorrow", OutcomeUnknownError),
        ],
    )
    def test_a_failure_comes_with_http_200(
        self, stage: Stage, platform: Platform, error: str, kind: type
    ) -> None:
        self.answer_instead(stage, "create post", said(error))

        found = self.fail(stage, platform)

        assert (type(found), found.code, found.status) == (kind, error, 200)

    @pytest.mark.parametrize("error", ["fatal_error", "internal_error"])
    def test_before_the_post_a_broken_server_is_transient(self, error: str) -> None:
        body = {"ok": False, "error": error}

        assert type(classified(Slack(), 200, body, call="begin upload", commits=False)) is (
            TransientError
        )

    @pytest.mark.skipif(not CONTRACTS.exists(), reason="waits for ../shared/contracts")
    def test_every_refusal_of_the_contract_is_known(self) -> None:
        schemas = json.loads((CONTRACTS / "slack.json").read_text())["components"]["schemas"]
        of = lambda name: set(schemas[f"Error_{name}"]["properties"]["error"]["enum"])  # noqa: E731

        found = {
            error
            for error in of("chat_postMessage") | of("files_completeUploadExternal")
            if isinstance(
                classified(Slack(), 200, {"ok": False, "error": error}), OutcomeUnknownError
            )
        }

        assert found == {
            "fatal_error",  # something may have happened
            "file_update_failed",
            *("duplicate_message_not_found", "duplicate_channel_not_found"),  # of no call of ours
            *("draft_already_deleted", "draft_already_sent", "draft_has_conflict"),
            "draft_not_found",
        }
        assert not REFUSED & PASSING

    def test_what_a_token_lacks_is_said(self) -> None:
        body = {"ok": False, "error": "missing_scope", "needed": "chat:write", "provided": "x"}

        assert classified(Slack(), 200, body).message == "missing_scope needs chat:write"

    def test_a_throttle_is_in_seconds(self) -> None:
        body = {"ok": False, "error": "ratelimited"}

        error = classified(Slack(), 429, body, headers={"Retry-After": "30"})

        assert (error.until, error.code) == (timedelta(seconds=30), "ratelimited")

    # what counts

    @pytest.mark.parametrize("letter", ["x", "日", "\u0301", "*"])
    def test_the_longest_text_arrives_and_one_more_would_be_two_posts(
        self, stage: Stage, platform: Platform, letter: str
    ) -> None:
        longest = "x" + letter * 3999

        assert platform.check(Draft(longest)) == []
        stage.publish(platform, self.delivery(text=longest), TOKEN)
        (post,) = stage.server.posts("slack")
        assert post.text == longest

        assert [p.code for p in platform.check(Draft(longest + letter))] == ["text_too_long"]
        stage.publish(platform, self.delivery(text=longest + letter), TOKEN)
        assert len(stage.server.posts("slack")) == 3

    def test_escapes_and_emoji_count_as_what_is_sent(self, platform: Platform) -> None:
        lengths = [platform.text_length(text) for text in ("&<>", "🎉", FAMILY, "e\u0301")]

        assert lengths == [13, 1, 7, 2]
        assert platform.check(Draft("&" * 4000, options={"mrkdwn": True})) == []
        assert [p.code for p in platform.check(Draft("&" * 801))] == ["text_too_long"]

    def test_the_longest_alt_text_is_fit_and_one_more_is_not(self, platform: Platform) -> None:
        assert platform.check(Draft(TEXT, (item(1, alt_text="x" * 1000),))) == []
        (problem,) = platform.check(Draft(TEXT, (item(1, alt_text="x" * 1001),)))
        assert (problem.field, problem.code) == ("media[0]", "alt_text_too_long")

    @pytest.mark.parametrize(
        ("options", "media", "field"),
        [
            ({"unfurlLinks": True}, (item(1),), "options.unfurlLinks"),
            ({"unfurlMedia": False}, (item(1),), "options.unfurlMedia"),
            ({"replyBroadcast": True}, (), "options.replyBroadcast"),
            ({"threadTs": "yesterday"}, (), "options.threadTs"),
        ],
    )
    def test_options_that_cannot_be_are_refused(
        self, platform: Platform, options: Any, media: Any, field: str
    ) -> None:
        (problem,) = platform.check(Draft(TEXT, media, options))

        assert (problem.field, problem.code) == (field, "option_invalid")

    def test_a_link_ends_before_its_punctuation(self) -> None:
        (section,) = rich_text("(https://a.example/b), https://c.example!")["elements"]

        links = [one["url"] for one in section["elements"] if one["type"] == "link"]
        assert links == ["https://a.example/b", "https://c.example"]

    def test_the_clock_of_a_message_is_its_name(self, stage: Stage, platform: Platform) -> None:
        turn(stage, timedelta(days=3))
        stage.server.add_account("slack", CHANNEL, "a-newer-token")

        published = stage.publish(platform, self.delivery(), "a-newer-token")

        assert isinstance(published, Published)
        assert published.published_at is not None
        ts = f"{published.published_at.timestamp():.6f}"
        assert published.remote_id == f"{CHANNEL}:{ts}"
