"""LinkedIn."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest

from shared import config
from shared.domain.accounts import Tokens
from shared.domain.failures import (
    AuthExpiredError,
    DuplicateError,
    OutcomeUnknownError,
    PermanentError,
    ThrottledError,
    TransientError,
)
from shared.platforms.base import Draft, NoGuarantee, Platform, Processing, Published, ReadBack
from shared.platforms.linkedin import LinkedIn, little_text
from shared.runtime import Runtime
from tests.platforms.contract import (
    LINK,
    REFRESH_TOKEN,
    TEXT,
    TOKEN,
    Comments,
    Exchange,
    RefreshesAsClient,
    SendsFiles,
    classified,
    turn,
)
from tests.platforms.stage import BYTES, Stage, bytes_of, item
from tests.sandbox.platforms.values import Answer

MEGABYTE = 1024 * 1024
MEMBER = "urn:li:person:yrZCpj2Z12"
ORGANIZATION = "urn:li:organization:2414183"
ARTICLE = {"source": "https://bakery.example/7", "title": "Bread at 7", "description": "Warm."}


class TestLinkedIn(SendsFiles, Comments, RefreshesAsClient):
    platform_class = LinkedIn
    user_id = ORGANIZATION
    calls = frozenset(
        {
            "begin upload",
            "upload",
            "read media",
            "create post",
            "find post",
            "create comment",
            "find comment",
            "refresh",
        }
    )
    comment_chars = 1250
    chosen = ({"visibility": "CONNECTIONS"}, {"visibility": "CONNECTIONS"})
    card: ClassVar[dict[str, str]] = {"source": LINK, "title": "Bread"}
    counted = "likeCount"
    nobodys = "urn:li:share:1"
    upload = "begin upload"
    wait = None  # LinkedIn does not say
    refused = Answer(
        422, {"status": 422, "code": "FIELD_LENGTH_TOO_LONG", "message": "ERROR :: /commentary"}
    )
    refused_code = "FIELD_LENGTH_TOO_LONG"

    def quoting(self, sentence: str) -> Answer:
        return Answer(400, {"status": 400, "message": sentence})

    def everything(self, run: Exchange) -> None:
        run.publish()
        run.publish(text="(One) #image", media=(item(1, alt_text="A loaf"),))
        run.publish(text="Several", media=(item(1), item(2, alt_text="A roll")))
        article = {"source": "https://a.example", "title": "Bread", "description": "Warm"}
        options = {
            "article": article,
            "visibility": "CONNECTIONS",
            "isReshareDisabledByAuthor": True,
        }
        run.publish(text="An article", options=options)
        run.publish(text="A film", media=(item(1, "video/mp4", size_bytes=5 * MEGABYTE),))
        run.lookup("An article")
        [article] = [
            post for post in run.stage.server.posts("linkedin") if post.text == "An article"
        ]
        run.publish(text="More", above=(article.id,))
        run.lookup("More", above=(article.id,))
        run.stage.refresh(run.platform, Tokens(TOKEN, REFRESH_TOKEN))

    # what is sent

    def test_one_image_is_media_and_several_are_a_multi_image(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.publish(platform, self.delivery(media=(item(1, alt_text="A loaf"),)), TOKEN)
        stage.publish(platform, self.delivery(media=(item(1), item(2))), TOKEN)

        one, several = (post.fields["content"] for post in stage.server.posts("linkedin"))
        assert one["media"]["altText"] == "A loaf"
        assert len(several["multiImage"]["images"]) == 2

    def test_an_image_is_put_as_it_is(self, stage: Stage, platform: Platform) -> None:
        stage.publish(platform, self.delivery(media=(item(1),)), TOKEN)

        (upload,) = stage.server.calls("linkedin", "upload")
        assert upload.body == bytes_of(item(1))
        assert upload.headers["content-type"] == "application/octet-stream"
        assert upload.headers["content-length"] == str(len(upload.body))

    def test_an_article_needs_no_media(self, stage: Stage, platform: Platform) -> None:
        options = {"article": ARTICLE, "visibility": "CONNECTIONS"}

        stage.publish(platform, self.delivery(media=(), options=options), TOKEN)

        (post,) = stage.server.posts("linkedin")
        assert post.fields["content"] == {"article": ARTICLE}
        assert post.fields["visibility"] == "CONNECTIONS"

    def test_a_member_posts_as_themselves(self, stage: Stage, platform: Platform) -> None:
        stage.server.add_account("linkedin", MEMBER, "members-token")

        stage.publish(platform, self.delivery(platform_user_id=MEMBER), "members-token")

        (post,) = stage.server.posts("linkedin")
        assert post.account == MEMBER

    @pytest.mark.parametrize(
        ("written", "sent"),
        [
            ("plain", "plain"),
            ("(a) [b] {c} <d>", r"\(a\) \[b\] \{c\} \<d\>"),
            ("*a* _b_ ~c~ | @d", r"\*a\* \_b\_ \~c\~ \| \@d"),
            ("back\\slash", r"back\\slash"),
            ("#Fresh bread", "#Fresh bread"),
            ("(#fresh)", r"\(#fresh\)"),
            ("C# and #", r"C\# and \#"),
            ("#1 and #2026", r"\#1 and \#2026"),
            ("#brot_zeit", r"#brot\_zeit"),
            ("#Bäckerei", "#Bäckerei"),
            ("https://a.example/b_c/#top", r"https://a.example/b\_c/\#top"),
        ],
    )
    def test_little_text_escapes_all_but_hashtags(self, written: str, sent: str) -> None:
        assert little_text(written) == sent

    def test_the_permalink_and_the_time_come_from_the_urn(
        self, stage: Stage, platform: Platform
    ) -> None:
        published = stage.publish(platform, self.delivery(), TOKEN)

        assert isinstance(published, Published)
        urn = published.remote_id
        assert published.remote_url == f"https://www.linkedin.com/feed/update/{urn}/"

    # copies

    def test_a_copy_names_the_post_that_is_there(self, stage: Stage, platform: Platform) -> None:
        stage.server.misbehave("linkedin", "create post", "drop_after")
        self.fail(stage, platform)

        error = self.fail(stage, platform, state=stage.kept[-1])

        assert isinstance(error, DuplicateError)
        (post,) = stage.server.posts("linkedin")
        assert error.remote_id == post.id
        assert error.remote_url == f"https://www.linkedin.com/feed/update/{post.id}/"
        assert error.published_at is not None
        assert abs(error.published_at - post.at) < timedelta(seconds=2)

    def test_the_time_of_a_post_is_in_its_number(self) -> None:
        body = {
            "status": 422,
            "message": "Content is a duplicate of urn:li:share:7000000000000000000",
        }

        error = classified(LinkedIn(), 422, body)

        assert error.published_at == datetime(2022, 11, 20, 7, 40, 53, 710000, tzinfo=UTC)

    def test_a_duplicate_that_names_a_person_is_a_plain_refusal(self) -> None:
        body = {"status": 422, "message": "urn:li:person:yrZCpj2Z12 is a duplicate"}

        assert type(classified(LinkedIn(), 422, body)) is PermanentError

    # failures

    @pytest.mark.parametrize(
        ("status", "body", "kind", "code"),
        [
            (
                401,
                {"serviceErrorCode": 65601, "message": "revoked"},
                AuthExpiredError,
                "linkedin_65601",
            ),
            (401, {"code": "EXPIRED_ACCESS_TOKEN"}, AuthExpiredError, "EXPIRED_ACCESS_TOKEN"),
            (401, {"code": "REVOKED_ACCESS_TOKEN"}, AuthExpiredError, "REVOKED_ACCESS_TOKEN"),
            (401, {"serviceErrorCode": 65600}, AuthExpiredError, "linkedin_65600"),
            (403, {"code": "ACCESS_DENIED"}, PermanentError, "ACCESS_DENIED"),
            (400, {"message": "bad"}, PermanentError, "http_400"),
            (404, {"message": "none"}, PermanentError, "http_404"),
            (409, {"message": "conflict"}, TransientError, "http_409"),
            (426, {"code": "NONEXISTENT_VERSION"}, PermanentError, "NONEXISTENT_VERSION"),
            (500, {"message": "oops"}, TransientError, "http_500"),
            (503, {"message": "oops"}, TransientError, "http_503"),
            (504, {"message": "oops"}, TransientError, "http_504"),
        ],
    )
    def test_failures(self, status: int, body: Any, kind: type, code: str) -> None:
        error = classified(LinkedIn(), status, {"status": status} | body)

        assert (type(error), error.code, error.status) == (kind, code, status)

    def test_a_write_conflict_was_not_accepted(self, stage: Stage, platform: Platform) -> None:
        self.answer_instead(stage, self.create, Answer(409, {"status": 409, "message": "conflict"}))

        assert type(self.fail(stage, platform)) is TransientError

    def test_a_version_that_is_served_no_more_is_a_refusal_that_names_the_setting(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.server.linkedin.sunset.add("202601")

        error = self.fail(stage, platform, media=())

        assert type(error) is PermanentError
        assert error.code == "NONEXISTENT_VERSION"
        assert error.message == (
            "LinkedIn serves version 202601 of its API no more. Raise LINKEDIN_API_VERSION to one "
            "that it serves, and redrive what has failed meanwhile."
        )

    def test_the_version_is_a_setting(self, stage: Stage, platform: Platform) -> None:
        stage.server.linkedin.sunset.add("202601")
        settings = {"GCP_PROJECT_ID": "acme", "LINKEDIN_API_VERSION": "202612"}
        environment = config.load(settings | stage.server.settings())
        newer = Runtime(environment, "publish_post").platforms[platform.name]

        published = stage.publish(newer, self.delivery(media=()), TOKEN)

        assert isinstance(published, Published)
        [call] = stage.server.calls("linkedin", "create post")
        assert call.headers["linkedin-version"] == "202612"

    def test_a_daily_limit_ends_at_midnight(self, stage: Stage, platform: Platform) -> None:
        stage.server.misbehave("linkedin", "create post", "throttle", daily=True)

        error = self.fail(stage, platform)

        assert isinstance(error, ThrottledError)
        today = stage.server.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
        assert error.until == today + timedelta(days=1)

    def test_an_application_limit_is_everyones(self, stage: Stage, platform: Platform) -> None:
        stage.server.misbehave("linkedin", "create post", "throttle", scope="platform")

        error = self.fail(stage, platform)

        assert isinstance(error, ThrottledError)
        assert error.scope == "platform"

    def test_the_request_id_is_kept(self, stage: Stage, platform: Platform) -> None:
        error = classified(LinkedIn(), 400, {"status": 400}, headers={"x-li-uuid": "AAX="})

        assert error.request_id == "AAX="

    # reading back

    def look(self, stage: Stage, platform: Platform, **changes: Any) -> Any:
        return stage.lookup(platform, self.delivery(**changes), TOKEN)

    def test_only_an_organizations_posts_can_be_read_back(self) -> None:
        linkedin = LinkedIn()

        assert linkedin.guarantee_for(ORGANIZATION) == ReadBack()
        assert linkedin.guarantee_for(MEMBER) == NoGuarantee()

    def test_a_post_whose_answer_was_lost_is_found(self, stage: Stage, platform: Platform) -> None:
        since = stage.server.clock.now()
        stage.server.misbehave("linkedin", "create post", "drop_after")
        self.fail(stage, platform)

        found = self.look(stage, platform, unsettled_since=since)

        (post,) = stage.server.posts("linkedin")
        assert (found.remote_id, found.found) == (post.id, True)

    def test_a_post_that_is_older_than_the_call_is_not_ours(
        self, stage: Stage, platform: Platform
    ) -> None:
        stage.publish(platform, self.delivery(), TOKEN)
        turn(stage, timedelta(minutes=5))
        since = stage.server.clock.now()

        with pytest.raises(OutcomeUnknownError, match="not_found"):
            self.look(stage, platform, unsettled_since=since)

    def test_two_of_a_kind_prove_nothing(self, stage: Stage, platform: Platform) -> None:
        since = stage.server.clock.now()
        stage.publish(platform, self.delivery(media=()), TOKEN)
        stage.publish(platform, self.delivery(media=(item(1),)), TOKEN)

        with pytest.raises(OutcomeUnknownError, match="ambiguous"):
            self.look(stage, platform, unsettled_since=since)

    def test_a_members_posts_are_not_even_asked_for(self, stage: Stage, platform: Platform) -> None:
        since = stage.server.clock.now()

        with pytest.raises(OutcomeUnknownError, match="not_readable"):
            self.look(stage, platform, platform_user_id=MEMBER, unsettled_since=since)

        assert stage.server.requests == []

    # limits

    def test_escapes_count(self, platform: Platform) -> None:
        problems = platform.check(Draft("x" * 2998 + "("))
        assert problems == []

        (problem,) = platform.check(Draft("x" * 2999 + "("))
        assert problem.code == "text_too_long"

    def test_an_article_and_media_exclude_each_other(self, platform: Platform) -> None:
        (problem,) = platform.check(self.draft(options={"article": ARTICLE}))

        assert (problem.field, problem.code) == ("options.article", "media_mix")

    def test_an_article_without_a_title_is_refused(self, platform: Platform) -> None:
        draft = Draft(TEXT, options={"article": {"source": "https://a.example"}})

        (problem,) = platform.check(draft)
        assert (problem.field, problem.code) == ("options.article.title", "option_invalid")

    # videos

    def test_a_video_goes_up_in_pieces_and_is_waited_for(
        self, stage: Stage, platform: Platform
    ) -> None:
        film = item(1, "video/mp4", size_bytes=9 * MEGABYTE, alt_text="A loaf, rising")
        delivery = self.delivery(media=(film,))
        stage.server.misbehave(
            "linkedin", "begin upload", "processing", polls=1, when=lambda r: b"finalize" in r.body
        )

        first = stage.publish(platform, delivery, TOKEN)
        assert isinstance(first, Processing)
        second = stage.publish(platform, replace(delivery, state=first.state), TOKEN)

        assert isinstance(second, Published)
        sizes = [call.content.size_bytes for call in stage.server.calls("linkedin", "upload")]
        assert sizes == [4 * MEGABYTE, 4 * MEGABYTE, MEGABYTE]
        (post,) = stage.server.posts("linkedin")
        (shown,) = post.media
        assert (shown.content_type, shown.size_bytes) == ("video/mp4", 9 * MEGABYTE)
        assert shown.sha256 == hashlib.sha256(bytes_of(film)).hexdigest()

    def test_an_upload_goes_on_in_the_next_request_when_time_is_short(
        self, stage: Stage, platform: Platform
    ) -> None:
        film = item(1, "video/mp4", size_bytes=9 * MEGABYTE)
        delivery = self.delivery(media=(film,))
        stage.seconds = 5
        first = stage.publish(platform, delivery, TOKEN)
        assert isinstance(first, Processing)
        begun = len(stage.server.calls("linkedin", "begin upload"))
        stage.seconds = 45

        second = stage.publish(platform, replace(delivery, state=first.state), TOKEN)

        assert begun == 1
        assert first.check_after == timedelta(seconds=1)
        assert isinstance(second, Published)
        assert len(stage.server.calls("linkedin", "upload")) == 3

    def test_after_a_piece_that_fails_the_same_upload_is_gone_on_with(
        self, stage: Stage, platform: Platform
    ) -> None:
        delivery = self.delivery(media=(item(1, "video/mp4", size_bytes=9 * MEGABYTE),))
        stage.server.misbehave(
            "linkedin", "upload", "error_before", when=lambda r: len(r.body) == MEGABYTE
        )
        with pytest.raises(TransientError):
            stage.publish(platform, delivery, TOKEN)

        published = stage.publish(platform, replace(delivery, state=stage.kept[-1]), TOKEN)

        assert isinstance(published, Published)
        assert len(stage.server.calls("linkedin", "begin upload")) == 2  # its begin and its end

    def test_an_upload_whose_addresses_have_ended_begins_anew(
        self, stage: Stage, platform: Platform
    ) -> None:
        film = item(1, "video/mp4", size_bytes=MEGABYTE)
        now = stage.server.clock.now()
        stage.seconds = 5
        first = stage.publish(platform, self.delivery(media=(film,), attempted_at=now), TOKEN)
        assert isinstance(first, Processing)
        turn(stage, timedelta(hours=2))
        stage.seconds = 45

        later = stage.server.clock.now()
        again = self.delivery(media=(film,), attempted_at=later, state=first.state)
        published = stage.publish(platform, again, TOKEN)

        assert isinstance(published, Published)

    def test_a_video_that_linkedin_cannot_read_is_refused(
        self, stage: Stage, platform: Platform, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(BYTES, "video/mp4", b"no film at all")
        delivery = self.delivery(media=(item(1, "video/mp4", size_bytes=100),))

        with pytest.raises(PermanentError, match="could not process"):
            stage.publish(platform, delivery, TOKEN)

    def test_images_of_too_many_pixels_are_refused(self, platform: Platform) -> None:
        (problem,) = platform.check(self.draft(media=(item(1, width=8000, height=5000),)))

        assert (problem.field, problem.code) == ("media[0]", "media_too_large")

    # tokens

    def test_the_refresh_token_stays(self, stage: Stage, platform: Platform) -> None:
        grant = stage.refresh(platform, Tokens(TOKEN, REFRESH_TOKEN))

        assert grant.refresh_token == REFRESH_TOKEN
        assert grant.expires_in == timedelta(days=60)

    def test_without_a_refresh_token_the_account_is_expired(
        self, stage: Stage, platform: Platform
    ) -> None:
        with pytest.raises(AuthExpiredError, match="no_refresh_token"):
            stage.refresh(platform, Tokens(TOKEN))
