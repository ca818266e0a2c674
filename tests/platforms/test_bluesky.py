"""Bluesky."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
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
from shared.platforms.base import Delivery, Draft, Platform, Published
from shared.platforms.bluesky import Bluesky, spans, tid
from tests.platforms.contract import (
    REFRESH_TOKEN,
    TEXT,
    TOKEN,
    Refreshes,
    Threads,
    Uploads,
    classified,
    turn,
)
from tests.platforms.stage import Stage, bytes_of, item
from tests.sandbox.platforms.bluesky import TID
from tests.sandbox.platforms.values import Answer, Post

VECTORS = Path(__file__).parents[2] / "../shared/contracts/text"
FAMILY = "👩‍👩‍👧‍👦"
AT = datetime(2026, 11, 22, 10, 0, 0, 123456, UTC)


class TestBluesky(Uploads, Refreshes, Threads):
    platform_class = Bluesky
    user_id = "did:plc:acme"
    server = "bread.example"
    refused = Answer(400, {"error": "InvalidRecord", "message": "Record/text is not text"})
    refused_code = "InvalidRecord"

    def delivery(self, **changes: Any) -> Delivery:
        return super().delivery(**{"attempted_at": datetime.now(UTC), **changes})

    def quoting(self, sentence: str) -> Answer:
        return Answer(400, {"error": "InvalidRequest", "message": sentence})

    def parent(self, post: Post) -> str | None:
        uri: str | None = post.fields.get("reply", {}).get("parent", {}).get("uri")
        return uri

    def take_down(self, stage: Stage, post_id: str) -> None:
        super().take_down(stage, post_id)
        stage.server.bluesky.records.clear()

    def test_a_reply_names_what_began_the_thread_and_what_it_answers(
        self, stage: Stage, platform: Platform
    ) -> None:
        ids: tuple[str, ...] = ()
        for text in ("One", "Two", "Three"):
            part = self.reply(stage, text, *ids, attempted_at=AT)  # in one attempt
            published = stage.publish(platform, part, TOKEN)
            assert isinstance(published, Published)
            ids = (*ids, published.remote_id)

        records = [record["record"] for record in stage.kept]
        keys = [kept["key"] for kept in stage.kept]
        one, two, three = records
        assert "reply" not in one
        assert two["reply"]["root"] == two["reply"]["parent"]
        assert three["reply"]["root"] == two["reply"]["root"]
        assert (two["reply"]["root"]["uri"], three["reply"]["parent"]["uri"]) == ids[:2]
        assert keys == sorted(set(keys))
        assert [record["createdAt"] for record in records] == [
            "2026-11-22T10:00:00.123456Z",
            "2026-11-22T10:00:00.124456Z",
            "2026-11-22T10:00:00.125456Z",
        ]

    def test_card_and_gate_belong_to_the_first_part(self, platform: Platform) -> None:
        card = {"uri": "https://a.example", "title": "Bread"}
        options = {"card": card, "replies": ["followers"], "langs": ["en"]}

        assert platform.options_of(0, options) == options
        assert platform.options_of(2, options) == {"langs": ["en"]}

    # the record and its key

    def test_the_record_is_kept_before_it_is_written(
        self, stage: Stage, platform: Platform
    ) -> None:
        published = stage.publish(platform, self.delivery(media=(), attempted_at=AT), TOKEN)

        (write,) = stage.server.calls("bluesky", "create post")
        (kept,) = stage.kept
        assert write.json() == {
            "repo": "did:plc:acme",
            "collection": "app.bsky.feed.post",
            "rkey": kept["key"],
            "record": kept["record"],
            "swapRecord": None,
        }
        assert kept["record"]["text"] == TEXT
        assert kept["record"]["createdAt"] == "2026-11-22T10:00:00.123456Z"
        assert isinstance(published, Published)
        assert published.remote_id == f"at://did:plc:acme/app.bsky.feed.post/{kept['key']}"
        assert published.remote_url == f"https://bsky.app/profile/acme/post/{kept['key']}"
        assert published.published_at == AT

    def test_an_account_without_a_handle_is_linked_by_its_did(
        self, stage: Stage, platform: Platform
    ) -> None:
        published = stage.publish(platform, self.delivery(handle=None), TOKEN)

        assert isinstance(published, Published)
        assert str(published.remote_url).startswith("https://bsky.app/profile/did:plc:acme/post/")

    def test_keys_are_tids_in_the_order_of_time(self) -> None:
        keys = [tid(AT + timedelta(microseconds=n), "key-1") for n in (0, 1, 10**6, 10**12)]

        assert all(TID.fullmatch(key) for key in keys)
        assert keys == sorted(set(keys))
        assert tid(AT, "key-1") == keys[0]
        assert tid(AT, "key-1") != tid(AT, "key-2")
        known = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=1688137381887007)
        assert tid(known, "key-1").startswith("3jzfcijpj2z")

    @pytest.mark.skipif(not VECTORS.exists(), reason="waits for ../shared/contracts")
    @pytest.mark.parametrize(("name", "valid"), [("valid", True), ("invalid", False)])
    def test_the_server_knows_a_tid(self, name: str, valid: bool) -> None:
        lines = (VECTORS / f"atproto_tid_syntax_{name}.txt").read_text().splitlines()
        vectors = [line for line in lines if line and not line.startswith("#")]

        assert vectors
        assert all((TID.fullmatch(line) is not None) == valid for line in vectors)

    @pytest.mark.parametrize("kind", ["drop_after", "drop_before", "error_after"])
    def test_an_unanswered_write_is_settled_by_the_very_same_write(
        self, stage: Stage, platform: Platform, kind: Any
    ) -> None:
        since = stage.server.clock.now()
        stage.server.misbehave("bluesky", "create post", kind)
        self.fail(stage, platform)
        turn(stage, timedelta(minutes=14))

        again = self.delivery(
            state=stage.kept[-1],
            unsettled_since=since,
            attempted_at=stage.server.clock.now(),
        )
        published = stage.publish(platform, again, TOKEN)

        assert isinstance(published, Published)
        (post,) = stage.server.posts("bluesky")
        assert (published.remote_id, published.found) == (post.id, False)
        first, second = stage.server.calls("bluesky", "create post")
        assert first.body == second.body
        assert len(stage.server.calls("bluesky", "upload")) == len(self.media)

    def test_a_record_that_was_never_sent_does_not_grow_old(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.server.misbehave("bluesky", "create post", "throttle")
        self.fail(stage, platform)
        state = stage.kept[-1]
        turn(stage, timedelta(minutes=16))
        now = stage.server.clock.now()

        published = stage.publish(platform, self.delivery(state=state, attempted_at=now), TOKEN)

        assert isinstance(published, Published)
        assert published.published_at == now
        assert stage.kept[-1]["key"] != state["key"]
        assert len(stage.server.calls("bluesky", "upload")) == 2 * len(self.media)

    def test_another_record_is_never_overwritten(self, stage: Stage, platform: Platform) -> None:
        stage.publish(platform, self.delivery(media=(), attempted_at=AT), TOKEN)

        error = self.fail(stage, platform, media=(), attempted_at=AT, text="Another text")

        assert (type(error), error.code) == (OutcomeUnknownError, "key_taken")
        (post,) = stage.server.posts("bluesky")
        assert post.text == TEXT

    def test_our_post_that_was_changed_since_is_still_ours(
        self, stage: Stage, platform: Platform
    ) -> None:
        since = stage.server.clock.now()
        stage.server.misbehave("bluesky", "create post", "drop_after")
        self.fail(stage, platform, media=())
        state = stage.kept[-1]
        place = ("did:plc:acme", "app.bsky.feed.post", state["key"])
        stage.server.bluesky.records[place] |= {"langs": ["de"]}

        again = self.delivery(media=(), state=state, unsettled_since=since)
        published = stage.publish(platform, again, TOKEN)

        assert isinstance(published, Published)
        assert published.found
        assert stage.server.bluesky.records[place]["langs"] == ["de"]

    def test_nobody_logs_in_or_creates_by_another_call(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.publish(platform, self.delivery(), TOKEN)

        assert {received.call for received in stage.server.requests} == {"upload", "create post"}

    # looking it up

    def test_the_post_under_our_key_is_found(self, stage: Stage, platform: Platform) -> None:
        since = stage.server.clock.now()
        stage.server.misbehave("bluesky", "create post", "drop_after")
        self.fail(stage, platform)

        delivery = self.delivery(state=stage.kept[-1], unsettled_since=since)
        found = stage.lookup(platform, delivery, TOKEN)

        (post,) = stage.server.posts("bluesky")
        assert (found.remote_id, found.found) == (post.id, True)
        assert found.published_at is not None

    def test_no_post_under_our_key_is_not_found(self, stage: Stage, platform: Platform) -> None:
        since = stage.server.clock.now()
        stage.server.misbehave("bluesky", "create post", "drop_before")
        self.fail(stage, platform)

        delivery = self.delivery(state=stage.kept[-1], unsettled_since=since)
        with pytest.raises(OutcomeUnknownError, match="not_found"):
            stage.lookup(platform, delivery, TOKEN)

    def test_without_a_key_there_is_nothing_to_look_for(
        self, stage: Stage, platform: Platform
    ) -> None:
        with pytest.raises(OutcomeUnknownError, match="not_unsettled"):
            stage.lookup(platform, self.delivery(unsettled_since=AT), TOKEN)

    # what is in the record

    def test_images_have_alt_texts_and_shapes(self, stage: Stage, platform: Platform) -> None:
        media = (item(1, alt_text="A loaf", width=4, height=3), item(2, "image/png"))

        stage.publish(platform, self.delivery(media=media), TOKEN)

        (post,) = stage.server.posts("bluesky")
        first, second = post.fields["embed"]["images"]
        assert (first["alt"], first["aspectRatio"]) == ("A loaf", {"width": 4, "height": 3})
        assert (second["alt"], second["image"]["mimeType"]) == ("", "image/png")
        assert "aspectRatio" not in second
        assert [got.body for got in stage.server.calls("bluesky", "upload")] == [
            bytes_of(one) for one in media
        ]

    def test_a_video_is_shown_as_one(self, stage: Stage, platform: Platform) -> None:
        film = item(1, "video/mp4", alt_text="Rising")

        stage.publish(platform, self.delivery(media=(film,)), TOKEN)

        (post,) = stage.server.posts("bluesky")
        embed = post.fields["embed"]
        assert (embed["$type"], embed["alt"]) == ("app.bsky.embed.video", "Rising")
        assert embed["video"]["mimeType"] == "video/mp4"

    def test_options_are_in_the_record(self, stage: Stage, platform: Platform) -> None:
        card = {"uri": "https://bakery.example/7", "title": "Bread", "description": "Warm"}
        options = {"langs": ["en", "de"], "labels": ["nudity"], "card": card}

        stage.publish(platform, self.delivery(media=(), options=options), TOKEN)

        (post,) = stage.server.posts("bluesky")
        assert post.fields["langs"] == ["en", "de"]
        assert post.fields["labels"]["values"] == [{"val": "nudity"}]
        assert post.fields["embed"] == {"$type": "app.bsky.embed.external", "external": card}

    @pytest.mark.parametrize(
        ("replies", "allow"),
        [
            ([], []),
            (["mentioned", "followers"], ["mentionRule", "followerRule"]),
        ],
    )
    def test_who_may_reply_is_a_record_of_the_same_key(
        self, stage: Stage, platform: Platform, replies: list[str], allow: list[str]
    ) -> None:
        published = stage.publish(
            platform, self.delivery(media=(), options={"replies": replies}), TOKEN
        )

        assert isinstance(published, Published)
        key = stage.kept[-1]["key"]
        gate = stage.server.bluesky.records["did:plc:acme", "app.bsky.feed.threadgate", key]
        assert gate["post"] == published.remote_id
        assert [rule["$type"].partition("#")[2] for rule in gate["allow"]] == allow

    def test_a_post_whose_replies_were_not_limited_is_made_up_for(
        self, stage: Stage, platform: Platform
    ) -> None:
        since, options = stage.server.clock.now(), {"replies": []}
        gate = lambda got: b"threadgate" in got.body  # noqa: E731
        stage.server.misbehave("bluesky", "create post", "error_before", when=gate)
        error = self.fail(stage, platform, media=(), options=options)
        assert isinstance(error, OutcomeUnknownError)

        again = self.delivery(
            media=(), options=options, state=stage.kept[-1], unsettled_since=since
        )
        published = stage.publish(platform, again, TOKEN)

        assert isinstance(published, Published)
        assert len(stage.server.posts("bluesky")) == 1
        assert len(stage.server.bluesky.records) == 2

    # what is alive in a text

    @pytest.mark.parametrize(
        ("text", "alive"),
        [
            ("See https://bakery.example/b?d=1#e.", ["https://bakery.example/b?d=1#e"]),
            (
                "(https://a.example/x), (https://a.example/x_(y))!",
                ["https://a.example/x", "https://a.example/x_(y)"],
            ),
            ("日本語https://a.example/日本。次", ["https://a.example/日本"]),
            ("no https:// and no a.example", []),
            (f"{FAMILY} 🎉 #bread, #日本! #1 #7up # ##", ["#bread", "#日本", "#7up"]),
            ("C# a#b (#c) #_", []),
            ("#" + "x" * 65 + " #" + "y" * 64, ["#" + "y" * 64]),
            (
                "@baker.example. (@mill-er.example) me@not.example @not @not.1",
                ["@baker.example", "@mill-er.example"],
            ),
            (
                "https://a.example/(@b.example #https://c.example",
                ["https://a.example/(@b.example", "#https://c.example"],
            ),
        ],
    )
    def test_spans_are_counted_in_bytes(self, text: str, alive: list[str]) -> None:
        encoded = text.encode()

        assert [encoded[span.start : span.end].decode() for span in spans(text)] == alive

    def test_a_mention_is_a_did_and_an_unknown_one_stays_text(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.server.bluesky.handles["baker.example"] = "did:plc:baker"
        text = "🎉 @Baker.example and @nobody.example, @baker.example https://a.example #é"

        stage.publish(platform, self.delivery(text=text, media=()), TOKEN)

        (post,) = stage.server.posts("bluesky")
        seen = [
            (
                text.encode()[facet["index"]["byteStart"] : facet["index"]["byteEnd"]].decode(),
                {k: v for k, v in facet["features"][0].items() if k != "$type"},
            )
            for facet in post.fields["facets"]
        ]
        assert seen == [
            ("@Baker.example", {"did": "did:plc:baker"}),
            ("@baker.example", {"did": "did:plc:baker"}),
            ("https://a.example", {"uri": "https://a.example"}),
            ("#é", {"tag": "é"}),
        ]
        asked = [got.params["handle"] for got in stage.server.calls("bluesky", "resolve handle")]
        assert asked == ["baker.example", "nobody.example"]

    @pytest.mark.parametrize("kind", ["error_before", "drop_before", "garbage"])
    def test_a_handle_that_cannot_be_looked_up_holds_nothing_up(
        self, stage: Stage, platform: Platform, kind: Any
    ) -> None:
        stage.server.misbehave("bluesky", "resolve handle", kind)

        stage.publish(platform, self.delivery(text="@baker.example", media=()), TOKEN)

        (post,) = stage.server.posts("bluesky")
        assert "facets" not in post.fields

    def test_mentions_are_not_resolved_again(self, stage: Stage, platform: Platform) -> None:
        """A handle that changed hands meanwhile would make another record of it."""
        stage.server.bluesky.handles["baker.example"] = "did:plc:baker"
        stage.server.misbehave("bluesky", "create post", "throttle")
        self.fail(stage, platform, text="@baker.example")
        stage.server.bluesky.handles["baker.example"] = "did:plc:other"

        again = self.delivery(text="@baker.example", state=stage.kept[-1])
        stage.publish(platform, again, TOKEN)

        (post,) = stage.server.posts("bluesky")
        assert post.fields["facets"][0]["features"][0]["did"] == "did:plc:baker"

    # failures

    @pytest.mark.parametrize(
        ("status", "error", "kind"),
        [
            (400, "InvalidRequest", PermanentError),
            (400, "InvalidRecord", PermanentError),
            (400, "BlobNotFound", PermanentError),
            (400, "BlobTooLarge", PermanentError),
            (400, "ExpiredToken", AuthExpiredError),
            (400, "InvalidToken", AuthExpiredError),
            (401, "AuthMissing", AuthExpiredError),
            (401, "AuthenticationRequired", AuthExpiredError),
            (401, "AccountTakedown", AuthExpiredError),
            (401, "AccountDeactivated", AuthExpiredError),
            (400, "AuthFactorTokenRequired", AuthExpiredError),
            (403, "AccountNotFound", PermanentError),
            (413, "PayloadTooLarge", PermanentError),
            (429, "RateLimitExceeded", ThrottledError),
            (500, "InternalServerError", TransientError),
            (502, "UpstreamFailure", TransientError),
            (503, "NotEnoughResources", TransientError),
        ],
    )
    def test_failures(self, status: int, error: str, kind: type) -> None:
        found = classified(Bluesky(), status, {"error": error, "message": "A sentence"})

        assert (type(found), found.code, found.status) == (kind, error, status)
        assert found.message == "A sentence"

    def test_an_ended_token_is_a_400_and_refused(self, stage: Stage, platform: Platform) -> None:
        turn(stage, timedelta(hours=3))

        error = self.fail(stage, platform)

        assert (type(error), error.code, error.status) == (AuthExpiredError, "ExpiredToken", 400)

    @pytest.mark.parametrize(
        ("headers", "until"),
        [
            ({"RateLimit-Reset": "1795348800"}, datetime.fromtimestamp(1795348800, UTC)),
            ({"RateLimit-Reset": "soon", "Retry-After": "60"}, timedelta(seconds=60)),
            ({}, None),
        ],
    )
    def test_the_reset_is_in_unix_seconds(self, headers: dict[str, str], until: Any) -> None:
        body = {"error": "RateLimitExceeded"}

        assert classified(Bluesky(), 429, body, headers=headers).until == until

    # tokens

    def test_a_refresh_is_asked_of_the_accounts_server(self) -> None:
        tokens = Tokens("a", "r", server="bread.example")

        call = next(Bluesky().refresh(tokens))

        assert call.request.url == "https://bread.example/xrpc/com.atproto.server.refreshSession"
        assert call.request.headers == {"Authorization": "Bearer r"}
        assert call.request.json is None

    def test_a_refresh_whose_answer_was_lost_can_be_repeated(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.server.misbehave("bluesky", "refresh", "drop_after")
        with pytest.raises(TransientError):
            stage.refresh(platform, self.tokens())

        grant = stage.refresh(platform, self.tokens())

        assert grant.refresh_token != REFRESH_TOKEN
        assert grant.expires_in == timedelta(hours=2)

    # what counts

    @pytest.mark.parametrize("letter", ["x", "日", "🎉", "e\u0301", "🇩🇪"])
    def test_the_longest_text_arrives_and_one_more_is_refused(
        self, stage: Stage, platform: Platform, letter: str
    ) -> None:
        longest = letter * 300

        assert platform.check(Draft(longest)) == []
        stage.publish(platform, self.delivery(text=longest, media=()), TOKEN)

        (post,) = stage.server.posts("bluesky")
        assert post.text == longest
        assert [p.code for p in platform.check(Draft(longest + letter))] == ["text_too_long"]
        error = self.fail(stage, platform, text=longest + letter, media=(), key="2")
        assert isinstance(error, PermanentError)

    def test_bytes_count_too(self, stage: Stage, platform: Platform) -> None:
        longest = FAMILY * 120  # of 25 bytes each

        assert platform.check(Draft(longest)) == []
        stage.publish(platform, self.delivery(text=longest, media=()), TOKEN)
        assert self.posts(stage) == 1

        (problem,) = platform.check(Draft(longest + "x"))
        assert (problem.code, "3001 bytes" in problem.message) == ("text_too_long", True)
        error = self.fail(stage, platform, text=longest + "x", media=(), key="2")
        assert isinstance(error, PermanentError)

    def test_a_card_and_media_are_not_shown_together(self, platform: Platform) -> None:
        card = {"uri": "https://a.example", "title": "Bread"}

        assert platform.check(Draft(TEXT, options={"card": card})) == []
        (problem,) = platform.check(Draft(TEXT, (item(1),), options={"card": card}))
        assert (problem.field, problem.code) == ("options.card", "media_mix")

    @pytest.mark.parametrize(
        "options",
        [
            {"langs": ["en", "de", "fr", "it"]},
            {"labels": ["nice"]},
            {"card": {"uri": "ftp://a.example", "title": "x"}},
            {"replies": ["friends"]},
        ],
    )
    def test_options_have_their_values(self, platform: Platform, options: dict[str, Any]) -> None:
        (problem,) = platform.check(Draft(TEXT, options=options))
        assert problem.code == "option_invalid"

    def test_videos_stand_alone_and_gifs_not_at_all(self, platform: Platform) -> None:
        film = item(1, "video/mp4")

        assert platform.check(Draft(TEXT, (film,))) == []
        assert [p.code for p in platform.check(Draft(TEXT, (film, item(2))))] == ["media_mix"]
        codes = [p.code for p in platform.check(Draft(TEXT, (item(1, "image/gif"),)))]
        assert codes == ["media_type"]


def test_a_kept_record_is_plain_json() -> None:
    """It goes to Firestore and comes back the same."""
    options = {"langs": ["en"], "replies": []}
    delivery = Delivery("d", "k", "#a", "did:plc:a", options=options, server="b.example")
    flow = Bluesky().publish(replace(delivery, attempted_at=AT), TOKEN)

    kept = next(flow)

    state: Any = kept.state  # type: ignore[union-attr]
    assert json.loads(json.dumps(state)) == state
    assert re.fullmatch(TID, state["key"])
