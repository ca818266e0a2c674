"""X."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
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
from shared.platforms.base import App, Call, Platform, Processing, Published
from shared.platforms.twitter import Twitter
from tests.platforms.contract import (
    REFRESH_TOKEN,
    TEXT,
    TOKEN,
    RefreshesAsClient,
    Threads,
    Uploads,
    classified,
    turn,
)
from tests.platforms.stage import Stage, bytes_of, item
from tests.sandbox.platforms.dialect import multipart
from tests.sandbox.platforms.values import Answer, Post

MEGABYTE = 1024 * 1024
VECTORS = Path(__file__).parents[2] / "../shared/contracts/text/x-weighted-length-vectors.json"
PROBLEMS = "https://api.twitter.com/2/problems"


class TestTwitter(Uploads, RefreshesAsClient, Threads):
    platform_class = Twitter
    user_id = "2244994945"
    refused = Answer(
        403,
        {
            "title": "Client Forbidden",
            "detail": "This client is not allowed to do that.",
            "type": f"{PROBLEMS}/client-forbidden",
        },
    )
    refused_code = "client-forbidden"

    def quoting(self, sentence: str) -> Answer:
        return Answer(400, {"status": 400, "detail": sentence, "title": "Invalid Request"})

    def parent(self, post: Post) -> str | None:
        above: str | None = post.fields.get("reply", {}).get("in_reply_to_tweet_id")
        return above

    def test_a_reply_is_found_under_the_new_name_of_the_fields(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.server.twitter.fields_name = "post.fields"
        since = stage.server.clock.now()
        first = stage.publish(platform, self.reply(stage, "One"), TOKEN)
        assert isinstance(first, Published)
        second = self.reply(stage, "Two", first.remote_id, unsettled_since=since)
        stage.publish(platform, second, TOKEN)

        found = stage.lookup(platform, second, TOKEN)

        assert found.remote_id == stage.server.posts("twitter")[1].id
        asked = [received.params for received in stage.server.calls("twitter", "find post")]
        assert [params.get("post.fields") for params in asked] == [None, "conversation_id"]

    def test_who_may_reply_is_said_once(self, platform: Platform) -> None:
        for name in ("replySettings", "reply_settings"):
            options = {name: "following", "madeWithAi": True}

            assert platform.options_of(0, options) == options
            assert platform.options_of(1, options) == {"madeWithAi": True}

    # what is sent

    def test_options_travel_only_when_they_are_set(self, stage: Stage, platform: Platform) -> None:
        stage.publish(platform, self.delivery(media=()), TOKEN)
        options = {"replySettings": "following", "madeWithAi": True}
        stage.publish(platform, self.delivery(media=(), text="More", options=options), TOKEN)

        plain, more = (post.fields for post in stage.server.posts("twitter"))
        assert plain == {"text": TEXT}
        assert more == {"text": "More", "reply_settings": "following", "made_with_ai": True}

    def test_an_image_is_uploaded_as_it_is(self, stage: Stage, platform: Platform) -> None:
        stage.publish(platform, self.delivery(media=(item(1),)), TOKEN)

        (upload,) = stage.server.calls("twitter", "upload")
        assert bytes_of(item(1)) in upload.body

    def test_the_permalink_names_the_account(self, stage: Stage, platform: Platform) -> None:
        named = stage.publish(platform, self.delivery(media=(), handle="@acme"), TOKEN)
        nameless = stage.publish(platform, self.delivery(media=(), text="More", handle=None), TOKEN)

        assert isinstance(named, Published)
        assert isinstance(nameless, Published)
        assert named.remote_url == f"https://x.com/acme/status/{named.remote_id}"
        assert nameless.remote_url == f"https://x.com/i/status/{nameless.remote_id}"

    # uploads grow old

    def test_media_that_x_has_forgotten_are_uploaded_again(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.server.add_account("twitter", self.user_id, "lasting", expires_in=timedelta(days=9))
        stage.server.misbehave("twitter", "create post", "throttle")
        now = stage.server.clock.now()
        with pytest.raises(ThrottledError):
            stage.publish(platform, self.delivery(attempted_at=now), "lasting")
        turn(stage, timedelta(hours=25))

        again = self.delivery(state=stage.kept[-1], attempted_at=stage.server.clock.now())
        published = stage.publish(platform, again, "lasting")

        assert isinstance(published, Published)
        assert len(stage.server.calls("twitter", "upload")) == 2 * len(self.media)

    def test_media_that_x_still_has_are_used(self, stage: Stage, platform: Platform) -> None:
        stage.server.add_account("twitter", self.user_id, "lasting", expires_in=timedelta(days=9))
        stage.server.misbehave("twitter", "create post", "throttle")
        now = stage.server.clock.now()
        with pytest.raises(ThrottledError):
            stage.publish(platform, self.delivery(attempted_at=now), "lasting")
        turn(stage, timedelta(hours=23))

        again = self.delivery(state=stage.kept[-1], attempted_at=stage.server.clock.now())
        stage.publish(platform, again, "lasting")

        assert len(stage.server.calls("twitter", "upload")) == len(self.media)

    # GIFs

    def test_a_gif_is_waited_for(self, stage: Stage, platform: Platform) -> None:
        gif = self.delivery(media=(item(1, "image/gif", alt_text="A loaf, rising"),))
        stage.server.misbehave("twitter", "end upload", "processing", polls=2)

        first = stage.publish(platform, gif, TOKEN)
        assert isinstance(first, Processing)
        second = stage.publish(platform, replace(gif, state=first.state), TOKEN)
        third = stage.publish(platform, replace(gif, state=first.state), TOKEN)

        assert first.check_after == timedelta(seconds=1)
        assert isinstance(second, Processing)
        assert isinstance(third, Published)
        assert len(stage.server.calls("twitter", "upload")) == 1
        (post,) = stage.server.posts("twitter")
        assert [shown.alt_text for shown in post.media] == ["A loaf, rising"]

    def test_a_gif_stands_alone(self, platform: Platform) -> None:
        media = (item(1, "image/gif"), item(2))

        (problem,) = platform.check(self.draft(media=media))
        assert (problem.field, problem.code) == ("media", "media_mix")

    # videos

    def test_a_video_goes_up_in_pieces_over_as_many_requests_as_it_takes(
        self, stage: Stage, platform: Platform
    ) -> None:
        film = item(1, "video/mp4", size_bytes=9 * MEGABYTE)
        delivery = self.delivery(media=(film,))
        stage.seconds = 5
        first = stage.publish(platform, delivery, TOKEN)
        assert isinstance(first, Processing)
        stage.seconds = 45

        second = stage.publish(platform, replace(delivery, state=first.state), TOKEN)

        assert isinstance(second, Published)
        assert len(stage.server.calls("twitter", "begin upload")) == 1
        uploads = stage.server.calls("twitter", "upload")
        pieces = [multipart(upload)[0]["segment_index"] for upload in uploads]
        assert pieces == ["0", "1", "2"]
        (post,) = stage.server.posts("twitter")
        (shown,) = post.media
        assert (shown.content_type, shown.size_bytes) == ("video/mp4", 9 * MEGABYTE)
        assert shown.sha256 == hashlib.sha256(bytes_of(film)).hexdigest()

    def test_after_a_piece_that_fails_the_same_upload_is_gone_on_with(
        self, stage: Stage, platform: Platform
    ) -> None:
        delivery = self.delivery(media=(item(1, "video/mp4", size_bytes=9 * MEGABYTE),))
        stage.server.misbehave(
            "twitter", "upload", "error_before", when=lambda r: len(r.body) < 2 * MEGABYTE
        )
        with pytest.raises(TransientError):
            stage.publish(platform, delivery, TOKEN)

        published = stage.publish(platform, replace(delivery, state=stage.kept[-1]), TOKEN)

        assert isinstance(published, Published)
        assert len(stage.server.calls("twitter", "begin upload")) == 1

    def test_a_video_stands_alone(self, platform: Platform) -> None:
        (problem,) = platform.check(self.draft(media=(item(1, "video/mp4"), item(2))))

        assert (problem.field, problem.code) == ("media", "media_mix")

    # failures

    @pytest.mark.parametrize(
        ("status", "body", "kind", "code"),
        [
            (400, {"type": f"{PROBLEMS}/invalid-request"}, PermanentError, "invalid-request"),
            (400, {"detail": "Your media IDs are invalid."}, PermanentError, "http_400"),
            (401, {"title": "Unauthorized"}, AuthExpiredError, "token_refused"),
            (403, {"detail": "You are not permitted."}, PermanentError, "http_403"),
            (403, {"type": f"{PROBLEMS}/user-suspended"}, PermanentError, "user-suspended"),
            (403, {"errors": [{"code": 187, "message": "x"}]}, PermanentError, "duplicate"),
            (429, {"errors": [{"code": 88, "message": "x"}]}, ThrottledError, "x_88"),
            (429, {"title": "Too Many Requests"}, ThrottledError, "throttled"),
            (
                429,
                {"type": f"{PROBLEMS}/usage-capped", "period": "Monthly"},
                PermanentError,
                "usage-capped",
            ),
            (
                429,
                {"type": f"{PROBLEMS}/usage-capped", "period": "Daily"},
                ThrottledError,
                "usage-capped",
            ),
            (500, {"title": "x"}, TransientError, "http_500"),
            (502, {"title": "x"}, TransientError, "http_502"),
            (503, {"title": "x"}, TransientError, "http_503"),
            (504, {"title": "x"}, TransientError, "http_504"),
        ],
    )
    def test_failures(self, status: int, body: Any, kind: type, code: str) -> None:
        error = classified(Twitter(), status, body)

        assert (type(error), error.code, error.status) == (kind, code, status)

    def test_a_copy_is_a_plain_refusal_for_x_names_no_post(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.publish(platform, self.delivery(media=()), TOKEN)

        error = self.fail(stage, platform, media=())

        assert (type(error), error.code) == (PermanentError, "duplicate")
        assert self.posts(stage) == 1

    def test_a_read_that_answers_errors_fails(self) -> None:
        body = {"errors": [{"type": f"{PROBLEMS}/resource-not-found", "detail": "gone"}]}

        error = classified(Twitter(), 200, body, call="find post", commits=False)

        assert (type(error), error.code) == (PermanentError, "resource-not-found")

    def test_a_commit_that_answers_errors_with_success_is_unknown(
        self, stage: Stage, platform: Platform
    ) -> None:
        self.answer_instead(stage, self.create, Answer(200, {"errors": [{"detail": "partly"}]}))

        assert isinstance(self.fail(stage, platform), OutcomeUnknownError)

    @pytest.mark.parametrize(
        ("headers", "until", "scope"),
        [
            ({"x-rate-limit-reset": "1795348800"}, 1795348800, "account"),
            (
                {
                    "x-rate-limit-remaining": "3",
                    "x-rate-limit-reset": "1795348800",
                    "x-user-limit-24hour-remaining": "0",
                    "x-user-limit-24hour-reset": "1795400000",
                },
                1795400000,
                "account",
            ),
            (
                {"x-app-limit-24hour-remaining": "0", "x-app-limit-24hour-reset": "1795400000"},
                1795400000,
                "platform",
            ),
            ({}, None, "account"),
            ({"x-rate-limit-reset": "soon"}, None, "account"),
        ],
    )
    def test_the_reset_is_in_unix_seconds(
        self, headers: dict[str, str], until: int | None, scope: str
    ) -> None:
        error = classified(Twitter(), 429, {"title": "Too Many Requests"}, headers=headers)

        assert error.until == (datetime.fromtimestamp(until, UTC) if until else None)
        assert error.scope == scope

    # reading back

    @pytest.mark.parametrize(
        "text",
        [
            "Plain words",
            "Bread & butter <warm>",
            "See https://bakery.example/bread?day=7 and (https://bakery.example), today",
            "https://bakery.example",
            "Ends with https://bakery.example/bread",
        ],
    )
    @pytest.mark.parametrize("media", [(), (item(1),)])
    def test_a_post_whose_answer_was_lost_is_found(
        self, stage: Stage, platform: Platform, text: str, media: Any
    ) -> None:
        since = stage.server.clock.now()
        stage.server.misbehave("twitter", "create post", "drop_after")
        self.fail(stage, platform, text=text, media=media)

        delivery = self.delivery(text=text, media=media, unsettled_since=since)
        found = stage.lookup(platform, delivery, TOKEN)

        (post,) = stage.server.posts("twitter")
        assert (found.remote_id, found.found) == (post.id, True)
        assert found.published_at is not None

    def test_another_text_is_not_ours(self, stage: Stage, platform: Platform) -> None:
        since = stage.server.clock.now()
        stage.publish(platform, self.delivery(text=f"{TEXT} again"), TOKEN)

        with pytest.raises(OutcomeUnknownError, match="not_found"):
            stage.lookup(platform, self.delivery(unsettled_since=since), TOKEN)

    def test_a_picture_without_a_text_is_not_ours(self, stage: Stage, platform: Platform) -> None:
        since = stage.server.clock.now()
        stage.publish(platform, self.delivery(text="", media=(item(1),)), TOKEN)

        with pytest.raises(OutcomeUnknownError, match="not_found"):
            stage.lookup(platform, self.delivery(text="Bread", unsettled_since=since), TOKEN)

    def test_a_post_that_is_older_than_the_call_is_not_ours(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.publish(platform, self.delivery(), TOKEN)
        turn(stage, timedelta(minutes=5))
        since = stage.server.clock.now()

        with pytest.raises(OutcomeUnknownError, match="not_found"):
            stage.lookup(platform, self.delivery(unsettled_since=since), TOKEN)

    def test_two_of_a_kind_prove_nothing(self, stage: Stage, platform: Platform) -> None:
        since = stage.server.clock.now()
        stage.publish(platform, self.delivery(media=()), TOKEN)
        stage.publish(platform, self.delivery(media=(item(1),)), TOKEN)

        with pytest.raises(OutcomeUnknownError, match="ambiguous"):
            stage.lookup(platform, self.delivery(media=(item(1),), unsettled_since=since), TOKEN)

    # the weighted length

    @pytest.mark.skipif(not VECTORS.exists(), reason="waits for ../shared/contracts")
    def test_texts_are_counted_as_x_counts(self) -> None:
        groups = json.loads(VECTORS.read_text())
        vectors = [vector for group in groups.values() for vector in group]

        wrong = [
            vector["description"]
            for vector in vectors
            if Twitter().text_length(vector["text"]) != vector["expected"]["weightedLength"]
        ]

        assert len(vectors) == 24
        assert wrong == []

    def test_counting_is_loaded_only_when_something_is_counted(self) -> None:
        look = "import sys, shared.platforms.registry; print('twitter_text' in sys.modules)"

        seen = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True)

        assert seen.stdout.strip() == "False"

    # tokens

    def test_a_refresh_token_dies_when_it_is_used(self, stage: Stage, platform: Platform) -> None:
        grant = stage.refresh(platform, Tokens(TOKEN, REFRESH_TOKEN))

        assert grant.refresh_token is not None
        with pytest.raises(AuthExpiredError):
            stage.refresh(platform, Tokens(TOKEN, REFRESH_TOKEN))
        newer = stage.refresh(platform, Tokens(grant.access_token, grant.refresh_token))
        assert newer.refresh_token != grant.refresh_token
        assert newer.expires_in == timedelta(hours=2)

    def test_a_confidential_client_names_itself_in_the_header(self) -> None:
        app = App(api_url="https://api.x.com", client_id="id", client_secret="secret")

        call = next(Twitter(app).refresh(Tokens("a", "r")))

        pair = base64.b64encode(b"id:secret").decode()
        assert call.request.headers["Authorization"] == f"Basic {pair}"
        assert call.request.form == {"grant_type": "refresh_token", "refresh_token": "r"}

    def test_a_public_client_names_itself_in_the_body(self) -> None:
        call = next(
            Twitter(App(api_url="https://api.x.com", client_id="id")).refresh(Tokens("a", "r"))
        )

        assert isinstance(call, Call)
        assert "Authorization" not in call.request.headers
        assert call.request.form is not None
        assert call.request.form["client_id"] == "id"
