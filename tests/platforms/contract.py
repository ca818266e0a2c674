"""What every adapter has to do, whatever its platform."""

from __future__ import annotations

import ast
import inspect
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from shared.domain.accounts import Tokens
from shared.domain.failures import (
    AuthExpiredError,
    OutcomeUnknownError,
    PermanentError,
    PlatformError,
    ThrottledError,
    TransientError,
)
from shared.domain.media import FoundItem, MediaItem
from shared.platforms.base import (
    App,
    Call,
    Delivery,
    Draft,
    Keep,
    Look,
    Platform,
    Processing,
    PublicUrl,
    Published,
    Request,
    TimeIsShort,
)
from tests.platforms.openapi import SERVER, contracted, faults
from tests.platforms.stage import Files, Stage, bytes_of, item
from tests.sandbox.clock import Clock
from tests.sandbox.platforms.values import Answer, Post

TOKEN = "token-that-nobody-may-read"
REFRESH_TOKEN = "refresh-token-that-nobody-may-read"
LINK = "https://bakery.example/bread"
TEXT = "Fresh bread (warm) at 7 & until it is gone #bakery"


LINK_UNIT = f"{LINK} "
UNITS = {  # what platforms count in their own ways
    "letter": "x",
    "emoji": "🎉",
    "joined emoji": "👩‍👩‍👧‍👦",
    "combining mark": "e\u0301",
    "CJK": "日",
    "link": LINK_UNIT,
}


@dataclass
class Exchange:
    """A run of one adapter with all that it can send."""

    stage: Stage
    platform: Platform
    user_id: str
    since: Any

    def publish(self, **changes: Any) -> Any:
        given: dict[str, Any] = {"text": TEXT, **self._account(), **changes}
        delivery = Delivery(**{"id": "d", "key": "k", **given})
        outcome = self.stage.publish(self.platform, delivery, TOKEN)
        while isinstance(outcome, Processing):
            delivery = replace(delivery, state=outcome.state)
            outcome = self.stage.publish(self.platform, delivery, TOKEN)
        return outcome

    def _account(self) -> dict[str, Any]:
        return {"platform_user_id": self.user_id, "server": SERVER, "attempted_at": self.since}

    def limits(self) -> None:
        driver, ends_at = self.stage.driver, time.monotonic() + 10
        driver.limits(self.platform, self.user_id, SERVER, TOKEN, ends_at=ends_at)

    def lookup(self, text: str, **changes: Any) -> None:
        given: dict[str, Any] = self._account() | changes
        delivery = Delivery(id="d", key="k", text=text, unsettled_since=self.since, **given)
        self.stage.lookup(self.platform, delivery, TOKEN)


class PlatformContract:
    """Subclass it with the platform's particulars; the tests come along."""

    platform_class: ClassVar[type[Platform]]
    user_id: ClassVar[str]
    server: ClassVar[str | None] = None  # the account's, on a federated platform
    media: ClassVar[tuple[MediaItem, ...]] = (item(1), item(2))
    create: ClassVar[str] = "create post"  # the call that commits
    upload: ClassVar[str] = "upload"  # one that comes before it
    quoted: ClassVar[str] = "create post"  # the one that carries the text
    refused: ClassVar[Answer]  # an answer to `create` that refuses
    refused_code: ClassVar[str]
    wait: ClassVar[timedelta | None] = timedelta(minutes=15)  # what a throttle of 900 s comes to
    calls: ClassVar[frozenset[str]]  # all those that `everything` makes
    text_chars: ClassVar[int | None] = None  # the longest text, where `media` make it shorter
    chosen: ClassVar[tuple[Mapping[str, Any], Mapping[str, Any]]]  # options, and what arrives
    card: ClassVar[Any]  # a link card that leads to `LINK`, where an option shows one
    counted: ClassVar[str]  # one of the platform's own names of a figure, where it tells any
    nobodys: ClassVar[str] = "1"  # the id of a post that is not there

    # the stage

    @pytest.fixture
    def platform(self, stage: Stage) -> Platform:
        name = self.platform_class.name
        stage.server.add_account(name, self.user_id, TOKEN, REFRESH_TOKEN, handle="acme")
        return self.platform_class(stage.app(name))

    def delivery(self, **changes: Any) -> Delivery:
        plain = Delivery(
            id="delivery-1",
            key="key-1",
            text=TEXT,
            platform_user_id=self.user_id,
            media=self.media,
            handle="acme",
            server=self.server,
        )
        return replace(plain, **changes)

    def fail(self, stage: Stage, platform: Platform, **changes: Any) -> PlatformError:
        with pytest.raises(PlatformError) as caught:
            stage.publish(platform, self.delivery(**changes), TOKEN)
        return caught.value

    def posts(self, stage: Stage) -> int:
        return len(stage.server.posts(self.platform_class.name))

    # accepted

    def test_a_post_is_published_once_and_named(self, stage: Stage, platform: Platform) -> None:
        published = stage.publish(platform, self.delivery(), TOKEN)

        assert isinstance(published, Published)
        (post,) = stage.server.posts(platform.name)
        assert (published.remote_id, published.found) == (post.id, False)
        assert published.remote_url is not None
        assert published.published_at is not None
        assert abs(published.published_at - post.at) < timedelta(seconds=2)

    def test_what_was_written_is_what_arrives(self, stage: Stage, platform: Platform) -> None:
        text = "Ünïcode 日本 🎉, (a) [b] {c} <d> *e* _f_ ~g~ | \\ @h #tag C# https://a.example/b_c?d=1#e"

        stage.publish(platform, self.delivery(text=text), TOKEN)

        (post,) = stage.server.posts(platform.name)
        assert post.text == text

    def test_the_media_arrive_in_their_order(self, stage: Stage, platform: Platform) -> None:
        media = (item(3, alt_text="A loaf"), item(1), item(2, alt_text="A roll"))

        stage.publish(platform, self.delivery(media=media), TOKEN)

        (post,) = stage.server.posts(platform.name)
        assert [shown.alt_text for shown in post.media] == ["A loaf", None, "A roll"]
        assert len({shown.sha256 for shown in post.media}) == 3

    def test_the_mark_is_set_once_before_the_post(self, stage: Stage, platform: Platform) -> None:
        stage.publish(platform, self.delivery(), TOKEN)

        assert len(stage.marks) == 1
        assert len(stage.server.calls(platform.name, self.create)) == 1

    def everything(self, run: Exchange) -> None:
        """Each kind of request that the adapter sends."""
        raise NotImplementedError

    @contracted
    def test_every_request_and_answer_is_in_the_contract(
        self, stage: Stage, platform: Platform
    ) -> None:
        self.everything(Exchange(stage, platform, self.user_id, stage.server.clock.now()))

        assert {received.call for received, _ in stage.server.answers} == self.calls
        assert [fault for exchange in stage.server.answers for fault in faults(*exchange)] == []

    # refused

    def test_a_refusal_is_permanent(self, stage: Stage, platform: Platform) -> None:
        self.answer_instead(stage, self.create, self.refused)

        error = self.fail(stage, platform)

        assert type(error) is PermanentError
        assert error.code == self.refused_code
        assert self.posts(stage) == 0

    def test_a_throttle_is_waited_for(self, stage: Stage, platform: Platform) -> None:
        stage.server.misbehave(platform.name, self.create, "throttle", seconds=900)

        error = self.fail(stage, platform)

        assert isinstance(error, ThrottledError)
        assert error.scope == "account"
        until = error.until
        if isinstance(until, datetime):
            until = until - stage.server.clock.now()
        expected = self.wait
        assert (until is None) == (expected is None)
        if until is not None and expected is not None:
            assert abs(until - expected) < timedelta(seconds=5)

    @pytest.mark.parametrize("early", [True, False])
    def test_a_refused_token_is_expired(
        self, stage: Stage, platform: Platform, early: bool
    ) -> None:
        if early:
            stage.server.revoke(TOKEN)
        else:
            hold = stage.server.misbehave(
                platform.name, self.create, "refuse", status=401, body=self.refused.body
            )
            hold.how |= {"body": self.token_refused(stage).body}

        error = self.fail(stage, platform)

        assert isinstance(error, AuthExpiredError)
        assert self.posts(stage) == 0

    def token_refused(self, stage: Stage) -> Answer:
        dialect = getattr(stage.server, self.platform_class.name)
        answer = dialect.token_refused(None)
        assert isinstance(answer, Answer)
        return answer

    # the outcome is not known

    @pytest.mark.parametrize(("kind", "made"), [("drop_after", 1), ("drop_before", 0)])
    def test_a_lost_answer_is_unknown(
        self, stage: Stage, platform: Platform, kind: Any, made: int
    ) -> None:
        stage.server.misbehave(platform.name, self.create, kind)

        error = self.fail(stage, platform)

        assert isinstance(error, OutcomeUnknownError)
        assert self.posts(stage) == made

    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    @pytest.mark.parametrize(("kind", "made"), [("error_after", 1), ("error_before", 0)])
    def test_a_server_error_on_the_commit_is_unknown(
        self, stage: Stage, platform: Platform, kind: Any, made: int, status: int
    ) -> None:
        stage.server.misbehave(platform.name, self.create, kind, status=status)

        error = self.fail(stage, platform)

        assert isinstance(error, OutcomeUnknownError)
        assert self.posts(stage) == made

    @pytest.mark.parametrize("kind", ["no_id", "garbage"])
    def test_a_success_without_an_id_is_unknown(
        self, stage: Stage, platform: Platform, kind: Any
    ) -> None:
        stage.server.misbehave(platform.name, self.create, kind)

        error = self.fail(stage, platform)

        assert isinstance(error, OutcomeUnknownError)
        assert self.posts(stage) == 1

    @pytest.mark.parametrize("status", [302, 400, 403, 405, 408, 418, 422])
    def test_an_answer_that_is_not_the_platforms_own_is_unknown(
        self, stage: Stage, platform: Platform, status: int
    ) -> None:
        page = Answer(status, b"<html>A proxy's page</html>", {"Location": "/elsewhere"})
        self.answer_instead(stage, self.create, page)

        error = self.fail(stage, platform)

        assert isinstance(error, OutcomeUnknownError)

    # not accepted, and safe to repeat

    def test_what_was_never_connected_is_transient(self, stage: Stage) -> None:
        nowhere = f"http://127.0.0.1:{unused_port()}"
        platform = self.platform_class(App(api_url=nowhere, auth_url=nowhere))

        assert isinstance(self.fail(stage, platform), TransientError)

    # discretion

    def test_an_error_carries_neither_token_nor_text(
        self, stage: Stage, platform: Platform
    ) -> None:
        sentence = f"cannot post '{TEXT}' with {TOKEN}"
        self.answer_instead(stage, self.quoted, self.quoting(sentence))

        error = self.fail(stage, platform, media=self.media[:1])

        shown = f"{error} {error!r} {error.message} {vars(error)}"
        assert "cannot post" in shown
        assert TEXT not in shown
        assert TOKEN not in shown

    def quoting(self, sentence: str) -> Answer:
        """`refused`, saying `sentence`."""
        raise NotImplementedError

    def answer_instead(self, stage: Stage, call: str, answer: Answer) -> None:
        how = {"status": answer.status, "body": answer.body, "headers": answer.headers}
        stage.server.misbehave(self.platform_class.name, call, "refuse", **how)

    def test_a_flow_does_nothing_itself(self, stage: Stage, platform: Platform) -> None:
        flow = platform.publish(self.delivery(), TOKEN)
        answer: Any = None
        outcome = None
        while outcome is None:
            try:
                with nothing_outside():
                    step = flow.send(answer)
            except StopIteration as done:
                outcome = done.value
            else:
                answer = perform(step, Files(stage.server))

        assert isinstance(outcome, Published)

    def test_an_adapter_knows_neither_clock_nor_chance(self) -> None:
        files = {
            inspect.getfile(kind)
            for kind in self.platform_class.__mro__
            if kind.__module__.startswith("shared.platforms.")
        }
        nodes = [node for file in files for node in ast.walk(ast.parse(Path(file).read_text()))]

        imported = {name.split(".")[0] for node in nodes for name in _imports(node)}
        attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        assert not imported & {"time", "random", "os", "logging", "secrets", "uuid", "threading"}
        assert not attributes & {"now", "utcnow", "today"}

    # limits

    def draft(self, **changes: Any) -> Draft:
        return replace(Draft(text=TEXT, media=self.media), **changes)

    def test_a_fit_draft_has_no_problems(self, platform: Platform) -> None:
        assert platform.check(self.draft()) == []

    @pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
    def test_what_just_fits_arrives_to_the_byte_and_one_unit_more_is_refused(
        self, stage: Stage, platform: Platform, unit: str
    ) -> None:
        length = lambda text: platform.draft_length(self.draft(text=text))  # noqa: E731
        most, first = (
            self.text_chars or platform.limits.text_chars,
            unit * (1 if unit == LINK_UNIT else 100),
        )
        while length(first) > most:
            first = first.removesuffix(unit)
        fits = first + "x" * (most - length(first))

        assert length(fits) == most
        assert platform.check(self.draft(text=fits)) == []
        stage.publish(platform, self.delivery(text=fits), TOKEN)

        (post,) = stage.server.posts(platform.name)
        assert post.text.encode() == fits.encode()
        for more in ("x", unit):
            (problem,) = platform.check(self.draft(text=f"{fits}{more}"))
            assert (problem.field, problem.code) == ("content", "text_too_long")

    def test_the_most_media_are_fit_and_one_more_is_not(self, platform: Platform) -> None:
        most = tuple(item(number) for number in range(platform.limits.media_items))

        assert platform.check(self.draft(media=most)) == []
        (problem,) = platform.check(self.draft(media=(*most, item(99))))
        assert (problem.field, problem.code) == ("media", "too_many_media")

    def test_the_largest_media_are_fit_and_one_byte_more_is_not(self, platform: Platform) -> None:
        largest = platform.limits.media_types["image/jpeg"]

        assert platform.check(self.draft(media=(item(1, size_bytes=largest),))) == []
        (problem,) = platform.check(self.draft(media=(item(1, size_bytes=largest + 1),)))
        assert (problem.field, problem.code) == ("media[0]", "media_too_large")

    def test_other_kinds_of_media_are_refused(self, platform: Platform) -> None:
        (problem,) = platform.check(self.draft(media=(item(1, "application/pdf"),)))

        assert (problem.field, problem.code) == ("media[0]", "media_type")

    def test_unknown_options_are_refused(self, platform: Platform) -> None:
        (problem,) = platform.check(self.draft(options={"colour": "red"}))

        assert (problem.field, problem.code) == ("options.colour", "option_invalid")


class TellsLimits(PlatformContract):
    """Besides: a platform that tells what an account may do."""

    def test_an_accounts_own_limits_are_read(self, stage: Stage, platform: Platform) -> None:
        told = self.limits(stage, platform)

        assert platform.limits_of(Draft("", limits=told)) == platform.limits

    @pytest.mark.parametrize("kind", ["error_before", "drop_before", "garbage", "throttle"])
    def test_limits_that_are_not_told_are_no_limits(
        self, stage: Stage, platform: Platform, kind: Any
    ) -> None:
        stage.server.misbehave(platform.name, "read limits", kind)

        with pytest.raises(TransientError):
            self.limits(stage, platform)

    def limits(self, stage: Stage, platform: Platform) -> Mapping[str, int]:
        ends_at = time.monotonic() + 10
        return stage.driver.limits(platform, self.user_id, self.server, TOKEN, ends_at=ends_at)


class Uploads(PlatformContract):
    """Besides: a platform that is sent something before the post."""

    @pytest.mark.parametrize("kind", ["error_before", "error_after", "drop_before", "garbage"])
    def test_trouble_before_the_commit_is_transient(
        self, stage: Stage, platform: Platform, kind: Any
    ) -> None:
        stage.server.misbehave(platform.name, self.upload, kind)

        error = self.fail(stage, platform)

        assert isinstance(error, TransientError)
        assert stage.marks == []
        assert self.posts(stage) == 0

    def test_nothing_is_uploaded_twice(self, stage: Stage, platform: Platform) -> None:
        stage.server.misbehave(platform.name, self.create, "throttle")
        self.fail(stage, platform)
        uploads = len(stage.server.calls(platform.name, self.upload))

        published = stage.publish(platform, self.delivery(state=stage.kept[-1]), TOKEN)

        assert isinstance(published, Published)
        assert len(stage.server.calls(platform.name, self.upload)) == uploads > 0
        assert self.posts(stage) == 1

    def test_an_interrupted_upload_goes_on(self, stage: Stage, platform: Platform) -> None:
        second = lambda _: len(stage.server.calls(platform.name, self.upload)) == 2  # noqa: E731
        stage.server.misbehave(platform.name, self.upload, "error_before", when=second)
        self.fail(stage, platform)

        published = stage.publish(platform, self.delivery(state=stage.kept[-1]), TOKEN)

        assert isinstance(published, Published)
        hashes = [shown.sha256 for shown in stage.server.posts(platform.name)[0].media]
        assert len(set(hashes)) == 2


class SendsFiles(Uploads):
    """Besides: a platform that is sent files by us, each in one body."""

    def test_what_there_is_no_time_for_is_left_to_the_next_request(
        self, stage: Stage, platform: Platform
    ) -> None:
        delivery = self.delivery(media=(item(1), item(2)))
        stage.seconds = 5  # too few for a second call, and enough for any first one

        first = stage.publish(platform, delivery, TOKEN)
        assert isinstance(first, Processing)
        second = stage.publish(platform, replace(delivery, state=first.state), TOKEN)
        assert isinstance(second, Processing)
        marks = len(stage.marks)
        third = stage.publish(platform, replace(delivery, state=second.state), TOKEN)

        assert isinstance(third, Published)
        assert (marks, self.posts(stage)) == (0, 1)
        assert len(stage.server.calls(platform.name, self.upload)) == 2


class Threads(PlatformContract):
    """Besides: a platform that takes threads: a post in reply to what is `above` it."""

    def parent(self, post: Post) -> str | None:
        """The id of the post that this one replies to."""
        raise NotImplementedError

    def take_down(self, stage: Stage, post_id: str) -> None:
        stage.server.delete(self.platform_class.name, post_id)

    def reply(self, stage: Stage, text: str, *above: str, **changes: Any) -> Delivery:
        at = stage.server.clock.now()
        about = {"text": text, "key": f"key of {text}", "media": (), "attempted_at": at}
        return self.delivery(**(about | changes), above=above)

    def test_a_thread_is_a_chain_of_replies(self, stage: Stage, platform: Platform) -> None:
        ids: tuple[str, ...] = ()

        for text in ("One", "Two", "Three"):
            published = stage.publish(platform, self.reply(stage, text, *ids), TOKEN)
            assert isinstance(published, Published)
            ids = (*ids, published.remote_id)

        posts = {post.text: post for post in stage.server.posts(platform.name)}
        assert platform.threads
        assert tuple(posts[text].id for text in ("One", "Two", "Three")) == ids
        assert self.parent(posts["One"]) is None
        assert (self.parent(posts["Two"]), self.parent(posts["Three"])) == ids[:2]

    def test_an_unanswered_reply_is_found_and_no_other_post_of_its_words(
        self, stage: Stage, platform: Platform
    ) -> None:
        getattr(stage.server, platform.name).duplicate_window = timedelta(0)
        since = stage.server.clock.now()
        stage.publish(platform, self.reply(stage, "La", key="alone"), TOKEN)
        first = stage.publish(platform, self.reply(stage, "La", key="first"), TOKEN)
        assert isinstance(first, Published)
        second = self.reply(stage, "La", first.remote_id, key="second", unsettled_since=since)
        stage.server.misbehave(platform.name, self.create, "drop_after")
        with pytest.raises(OutcomeUnknownError):
            stage.publish(platform, second, TOKEN)

        state = stage.kept[-1] if stage.kept else {}
        found = stage.lookup(platform, replace(second, state=state), TOKEN)

        [reply] = [post for post in stage.server.posts(platform.name) if self.parent(post)]
        assert (found.remote_id, found.found) == (reply.id, True)

    def test_a_reply_that_never_came_is_not_found(self, stage: Stage, platform: Platform) -> None:
        since = stage.server.clock.now()
        first = stage.publish(platform, self.reply(stage, "La", key="first"), TOKEN)
        assert isinstance(first, Published)
        second = self.reply(stage, "La", first.remote_id, key="second", unsettled_since=since)
        stage.server.misbehave(platform.name, self.create, "drop_before")
        with pytest.raises(OutcomeUnknownError):
            stage.publish(platform, second, TOKEN)

        state = stage.kept[-1] if stage.kept else {}
        with pytest.raises(OutcomeUnknownError):
            stage.lookup(platform, replace(second, state=state), TOKEN)

    def test_a_reply_to_what_is_gone_is_refused(self, stage: Stage, platform: Platform) -> None:
        first = stage.publish(platform, self.reply(stage, "One"), TOKEN)
        assert isinstance(first, Published)
        self.take_down(stage, first.remote_id)

        with pytest.raises(PermanentError):
            stage.publish(platform, self.reply(stage, "Two", first.remote_id), TOKEN)


class Comments(PlatformContract):
    """Besides: a platform that takes a first comment: a delivery with its post `above` it."""

    comment_chars: ClassVar[int]
    create_comment: ClassVar[str] = "create comment"

    @pytest.fixture
    def post(self, stage: Stage, platform: Platform) -> Published:
        published = stage.publish(platform, self.delivery(), TOKEN)
        assert isinstance(published, Published)
        stage.marks.clear()
        return published

    def comment(self, stage: Stage, post: Published, **changes: Any) -> Delivery:
        at = stage.server.clock.now()
        about = {"text": "More at (the) shop", "key": "comment", "media": (), "attempted_at": at}
        return self.delivery(**(about | changes), above=(post.remote_id,))

    def comments(self, stage: Stage) -> list[Post]:
        posts = stage.server.posts(self.platform_class.name)
        return [post for post in posts if post.comment_on is not None]

    def lose_a_comment(
        self, stage: Stage, platform: Platform, post: Published, kind: Any
    ) -> Delivery:
        """Comment, and hear nothing of it; what is on record then."""
        since = stage.server.clock.now()
        stage.server.misbehave(platform.name, self.create_comment, kind)
        with pytest.raises(OutcomeUnknownError):
            stage.publish(platform, self.comment(stage, post), TOKEN)
        return self.comment(stage, post, unsettled_since=since)

    def test_a_comment_arrives_on_its_post_as_it_was_written(
        self, stage: Stage, platform: Platform, post: Published
    ) -> None:
        text = "Ünïcode 日本 🎉, (a) [b] {c} <d> *e* _f_ | \\ @h #tag https://a.example/b_c?d=1#e"

        published = stage.publish(platform, self.comment(stage, post, text=text), TOKEN)

        assert isinstance(published, Published)
        [comment] = self.comments(stage)
        assert (comment.comment_on, comment.text) == (post.remote_id, text)
        assert (published.remote_id, published.found) == (comment.id, False)
        assert len(stage.marks) == 1
        assert len(stage.server.calls(platform.name, self.create)) == 1

    def test_a_comment_whose_answer_was_lost_is_found(
        self, stage: Stage, platform: Platform, post: Published
    ) -> None:
        unsettled = self.lose_a_comment(stage, platform, post, "drop_after")

        found = stage.lookup(platform, unsettled, TOKEN)

        [comment] = self.comments(stage)
        assert (found.remote_id, found.found) == (comment.id, True)

    def test_a_comment_that_never_came_is_not_found(
        self, stage: Stage, platform: Platform, post: Published
    ) -> None:
        unsettled = self.lose_a_comment(stage, platform, post, "drop_before")

        with pytest.raises(OutcomeUnknownError):
            stage.lookup(platform, unsettled, TOKEN)

    @pytest.mark.parametrize("kind", ["error_before", "error_after", "no_id", "garbage"])
    def test_trouble_with_a_comment_is_unknown(
        self, stage: Stage, platform: Platform, post: Published, kind: Any
    ) -> None:
        self.lose_a_comment(stage, platform, post, kind)

        assert len(self.comments(stage)) == (kind != "error_before")

    def test_a_refused_comment_is_permanent(
        self, stage: Stage, platform: Platform, post: Published
    ) -> None:
        self.answer_instead(stage, self.create_comment, self.refused)

        with pytest.raises(PermanentError) as caught:
            stage.publish(platform, self.comment(stage, post), TOKEN)

        assert caught.value.code == self.refused_code
        assert self.comments(stage) == []

    def test_a_post_that_is_not_there_yet_is_waited_for(
        self, stage: Stage, platform: Platform
    ) -> None:
        nowhere = Published(self.nobodys)

        with pytest.raises(TransientError):
            stage.publish(platform, self.comment(stage, nowhere), TOKEN)

    def test_a_comment_that_just_fits_arrives_and_one_sign_more_is_refused(
        self, stage: Stage, platform: Platform, post: Published
    ) -> None:
        fits = "日" * (self.comment_chars - 1) + "x"

        assert platform.check(self.draft(options={"firstComment": fits})) == []
        stage.publish(platform, self.comment(stage, post, text=fits), TOKEN)

        assert [comment.text for comment in self.comments(stage)] == [fits]
        for unfit in (f"{fits}x", "", " \n"):
            [problem] = platform.check(self.draft(options={"firstComment": unfit}))
            assert (problem.field, problem.code) == ("options.firstComment", "option_invalid")


class Refreshes(PlatformContract):
    """Besides: a platform whose tokens end and are exchanged."""

    def tokens(self) -> Tokens:
        return Tokens(TOKEN, REFRESH_TOKEN, server=self.server)

    def test_a_refresh_brings_a_token_that_works(self, stage: Stage, platform: Platform) -> None:
        grant = stage.refresh(platform, self.tokens())

        assert grant.access_token != TOKEN
        assert grant.expires_in is not None
        assert grant.expires_in > timedelta(hours=1)
        assert grant.access_token not in repr(grant)
        published = stage.publish(platform, self.delivery(), grant.access_token)
        assert isinstance(published, Published)

    def test_a_dead_refresh_token_is_expired(self, stage: Stage, platform: Platform) -> None:
        stage.server.revoke(TOKEN)
        stage.server.revoke(REFRESH_TOKEN)

        with pytest.raises(AuthExpiredError) as caught:
            stage.refresh(platform, self.tokens())

        assert REFRESH_TOKEN not in str(caught.value)

    def test_trouble_while_refreshing_is_transient(self, stage: Stage, platform: Platform) -> None:
        for kind in ("error_before", "drop_before", "garbage"):
            stage.server.misbehave(platform.name, "refresh", kind)

            with pytest.raises(TransientError):
                stage.refresh(platform, self.tokens())


class RefreshesAsClient(Refreshes):
    """Besides: a platform that wants to know which app refreshes."""

    def test_our_own_bad_credentials_expire_nobody(self, stage: Stage, platform: Platform) -> None:
        app = replace(platform.app, client_secret="wrong")

        with pytest.raises(PermanentError):
            stage.refresh(self.platform_class(app), self.tokens())


def contract_of(name: str, user_id: str | None = None) -> PlatformContract:
    """What its contract test knows of a platform; of this kind of account where it has several."""
    found = [
        kind
        for kind in vars(import_module(f"tests.platforms.test_{name}")).values()
        if inspect.isclass(kind)
        and issubclass(kind, PlatformContract)
        and kind.__name__.startswith("Test")
    ]
    return next((kind for kind in found if kind.user_id == user_id), found[0])()


def perform(step: Any, files: Files) -> Any:
    """What the driver does with a step, at its simplest."""
    match step:
        case Keep():
            return None
        case PublicUrl(wanted):
            return files.public_url(wanted)
        case Look(wanted):
            return FoundItem.of(wanted, len(bytes_of(wanted)), "")
        case TimeIsShort():
            return False
    assert isinstance(step, Call)
    request = step.request
    content: dict[str, Any] = {"json": request.json} if request.json is not None else {}
    if request.media is not None:
        content = {"content": files.open(request.media, ends_at=0)}
    elif request.files is not None:
        attached = {name: files.open(file, ends_at=0) for name, file in request.files.items()}
        content = {"data": request.form, "files": attached}
    elif request.form is not None:
        content = {"data": request.form}
    headers = dict(request.headers)
    with httpx.Client(trust_env=False, verify=False) as client:
        return client.request(
            request.method, request.url, headers=headers, params=request.params, **content
        )


@contextmanager
def nothing_outside() -> Iterator[None]:
    """Whoever sleeps or opens a connection here is found out."""

    def found_out(*args: Any, **more: Any) -> Any:
        raise AssertionError("a flow must not act by itself")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", found_out)
        patch.setattr(socket, "socket", found_out)
        patch.setattr("builtins.open", found_out)
        yield


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def turn(stage: Stage, by: timedelta) -> None:
    clock = stage.server.clock
    assert isinstance(clock, Clock)
    clock.turn(by)


def classified(
    platform: Platform,
    status: int,
    body: Any,
    *,
    call: str = "create post",
    commits: bool = True,
    headers: Mapping[str, str] | None = None,
) -> Any:
    """What the adapter makes of an answer."""
    asked = Call(Request("POST", "https://platform.example/"), call, commits=commits)
    return platform.classify(asked, httpx.Response(status, json=body, headers=headers))


def _imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return []
