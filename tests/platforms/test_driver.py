"""The driver's rules, against real sockets."""

from __future__ import annotations

import io
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import IO, Any

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
    Exact,
    Flow,
    Grant,
    Keep,
    Limits,
    Look,
    Platform,
    PublicUrl,
    Published,
    RefreshFlow,
    Request,
    TimeIsShort,
)
from shared.platforms.driver import Driver, request_hash
from shared.platforms.mastodon import Mastodon
from shared.platforms.session import Permit, Session, TooLateToSendError
from shared.platforms.wire import BODY_BYTES
from tests.platforms.contract import unused_port
from tests.platforms.stage import item

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
DELIVERY = Delivery(id="d", key="k", text="Bread", platform_user_id="7", media=(item(1),))
CREATED = b'{"id": "110"}'


def answer(status: int = 200, body: bytes = CREATED, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} So", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Loopback:
    """A server whose every connection is handed to `behave` once a request has been read."""

    def __init__(self, behave: Callable[[socket.socket], None]) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._behave = behave
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as stream:
            while head := _head(stream):
                length = re.search(rb"content-length: (\d+)", head.lower())
                self.requests.append(head + stream.read(int(length[1]) if length else 0))
                self._behave(connection)

    def close(self) -> None:
        self._listener.close()


def _head(stream: IO[bytes]) -> bytes:
    head = b""
    while line := stream.readline():
        head += line
        if line == b"\r\n":
            return head
    return b""


@contextmanager
def serving(behave: Callable[[socket.socket], None] | bytes) -> Iterator[Loopback]:
    def says(connection: socket.socket) -> None:
        assert isinstance(behave, bytes)
        connection.sendall(behave)

    loopback = Loopback(says if isinstance(behave, bytes) else behave)
    yield loopback
    loopback.close()


class Plain(Platform):
    """A platform of one call; `flow` may be another."""

    name = "plain"
    label = "Plain"
    api_url = "http://127.0.0.1"
    guarantee = Exact()
    limits = Limits(text_chars=10, media_items=1, media_types={})
    steps: Callable[[Plain], Flow] | None = None

    def publish(self, delivery: Delivery, token: str) -> Flow:
        if self.steps is not None:
            return (yield from self.steps(self))
        reply = yield self.call(commits=True)
        return Published(reply.json()["id"])

    def call(self, **about: Any) -> Call:
        request = Request("POST", self.app.api_url, {"Authorization": "Bearer t"}, json={"a": 1})
        return Call(request, "create", **about)

    def refresh(self, tokens: Tokens) -> RefreshFlow:
        reply = yield self.call()
        body = reply.json()
        return Grant(body["access_token"], expires_in=timedelta(seconds=body["expires_in"]))


@dataclass
class Bytes:
    content: bytes = b"picture"
    opened: list[str] = field(default_factory=list)

    def look(self, item: MediaItem, *, ends_at: float) -> FoundItem:
        return FoundItem.of(item, len(self.content), "1")

    def open(
        self, item: MediaItem, span: tuple[int, int] | None = None, *, ends_at: float
    ) -> IO[bytes]:
        self.opened.append(item.id)
        return io.BytesIO(self.content)

    def public_url(self, item: MediaItem) -> str:
        return f"https://media.example/{item.id}"


@dataclass
class Attempt:
    """One attempt, with what it put on record."""

    seconds: float = 5.0
    permit_seconds: float = 5.0
    late: bool = False
    now: Callable[[], datetime] = lambda: NOW
    marks: list[str] = field(default_factory=list)
    kept: list[Mapping[str, Any]] = field(default_factory=list)

    def mark(self, request_hash: str) -> Permit:
        self.marks.append(request_hash)
        send_by = NOW if self.late else NOW + timedelta(seconds=20)
        return Permit(send_by=send_by, send_by_monotonic=time.monotonic() + self.permit_seconds)

    def run(self, driver: Driver, platform: Platform, delivery: Delivery = DELIVERY) -> Any:
        session = Session(
            mark_committing=self.mark,
            keep=self.kept.append,
            now=self.now,
            ends_at=time.monotonic() + self.seconds,
        )
        return driver.publish(platform, delivery, "t", session)


@pytest.fixture(scope="module")
def plain_driver() -> Driver:
    return Driver(Bytes())


def publish(
    driver: Driver,
    url: str,
    steps: Callable[[Plain], Flow] | None = None,
    attempt: Attempt | None = None,
) -> Any:
    platform = Plain(App(api_url=url))
    platform.steps = steps
    return (attempt or Attempt()).run(driver, platform)


def uncommitted(platform: Plain) -> Flow:
    """The same call, as one that creates nothing."""
    reply = yield platform.call()
    return Published(reply.json()["id"])


def hang_up(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def drip(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(200):
        connection.sendall(b" ")
        time.sleep(0.02)


# --- the committing call --------------------------------------------------------------------------


def test_an_answer_with_an_id_is_published(plain_driver: Driver) -> None:
    with serving(answer()) as server:
        outcome = publish(plain_driver, server.url)

    assert outcome.value == Published("110")
    assert outcome.raw == '{"id": "110"}'


def test_what_was_never_connected_was_not_accepted(plain_driver: Driver) -> None:
    attempt = Attempt()

    with pytest.raises(TransientError, match="no_answer"):
        publish(plain_driver, f"http://127.0.0.1:{unused_port()}", attempt=attempt)

    assert len(attempt.marks) == 1


def test_a_connection_lost_after_writing_leaves_it_unknown(plain_driver: Driver) -> None:
    with serving(hang_up) as server, pytest.raises(OutcomeUnknownError, match="no_answer"):
        publish(plain_driver, server.url)


def test_half_an_answer_leaves_it_unknown(plain_driver: Driver) -> None:
    def half(connection: socket.socket) -> None:
        connection.sendall(answer()[:-5])
        hang_up(connection)

    with serving(half) as server, pytest.raises(OutcomeUnknownError):
        publish(plain_driver, server.url)


@pytest.mark.parametrize("status", [301, 302, 307, 308, 402, 405, 408, 409, 418, 500, 502, 503])
def test_what_no_adapter_names_a_refusal_is_unknown(plain_driver: Driver, status: int) -> None:
    with serving(answer(status)) as server, pytest.raises(OutcomeUnknownError):
        publish(plain_driver, server.url)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, PermanentError),
        (401, AuthExpiredError),
        (403, PermanentError),
        (404, PermanentError),
        (413, PermanentError),
        (422, PermanentError),
        (429, ThrottledError),
    ],
)
def test_a_named_refusal_was_not_accepted(plain_driver: Driver, status: int, kind: type) -> None:
    with serving(answer(status)) as server, pytest.raises(PlatformError) as caught:
        publish(plain_driver, server.url)

    assert type(caught.value) is kind


def test_no_redirect_is_followed(plain_driver: Driver) -> None:
    with serving(answer()) as elsewhere:
        moved = answer(307, b"", f"Location: {elsewhere.url}/")
        with serving(moved) as server, pytest.raises(OutcomeUnknownError):
            publish(plain_driver, server.url)

        assert elsewhere.requests == []


@pytest.mark.parametrize("body", [b"{}", b'{"id": ""}', b'{"id": null}', b"[]", b"", b"<html>"])
def test_a_success_without_a_readable_id_is_unknown(plain_driver: Driver, body: bytes) -> None:
    with serving(answer(200, body)) as server, pytest.raises(OutcomeUnknownError):
        publish(plain_driver, server.url)


def test_a_slow_drip_ends_at_the_deadline(plain_driver: Driver) -> None:
    began = time.monotonic()

    with serving(drip) as server, pytest.raises(OutcomeUnknownError):
        publish(plain_driver, server.url, attempt=Attempt(seconds=0.3))

    assert time.monotonic() - began < 1.0


def test_silence_ends_at_the_deadline(plain_driver: Driver) -> None:
    began = time.monotonic()

    with serving(lambda _: time.sleep(2)) as server, pytest.raises(OutcomeUnknownError):
        publish(plain_driver, server.url, attempt=Attempt(seconds=0.3))

    assert time.monotonic() - began < 1.0


def test_an_oversized_answer_is_not_read(plain_driver: Driver) -> None:
    large = answer(200, b" " * (BODY_BYTES + 1))

    with serving(large) as server, pytest.raises(OutcomeUnknownError, match="TooLarge"):
        publish(plain_driver, server.url)


def test_a_commit_never_reuses_a_connection(plain_driver: Driver) -> None:
    with serving(answer()) as server:
        publish(plain_driver, server.url)
        publish(plain_driver, server.url)

    assert server.connections == 2


def test_other_calls_reuse_theirs(plain_driver: Driver) -> None:
    with serving(answer()) as server:
        publish(plain_driver, server.url, uncommitted)
        publish(plain_driver, server.url, uncommitted)

    assert server.connections == 1


# --- the permit -----------------------------------------------------------------------------------


@pytest.mark.parametrize("attempt", [Attempt(late=True), Attempt(permit_seconds=-0.001)])
def test_past_its_time_nothing_is_sent(plain_driver: Driver, attempt: Attempt) -> None:
    with serving(answer()) as server, pytest.raises(TooLateToSendError):
        publish(plain_driver, server.url, attempt=attempt)

    assert server.requests == []


def test_past_its_time_the_rest_of_a_request_is_not_sent_either(plain_driver: Driver) -> None:
    """Frozen between the head and the body: the platform waits for a body that never comes."""
    times = iter([NOW, NOW + timedelta(seconds=20)])
    attempt = Attempt(now=lambda: next(times))

    with serving(answer()) as server, pytest.raises(TooLateToSendError):
        publish(plain_driver, server.url, attempt=attempt)

    assert [request.partition(b"\r\n\r\n")[2] for request in server.requests] in ([], [b""])


def test_without_a_mark_nothing_is_sent(plain_driver: Driver) -> None:
    class Refusing(Attempt):
        def mark(self, request_hash: str) -> Permit:
            raise RuntimeError("the lease has run out")

    with serving(answer()) as server, pytest.raises(RuntimeError):
        publish(plain_driver, server.url, attempt=Refusing())

    assert server.connections == 0


def test_the_mark_knows_the_request_but_not_the_credential() -> None:
    def marked(text: str, token: str) -> str:
        headers = {"Authorization": f"Bearer {token}"}
        return request_hash(Request("POST", "https://a.example", headers, json={"text": text}))

    assert marked("Bread", "one") == marked("Bread", "two")
    assert marked("Bread", "one") != marked("Rolls", "one")


# --- other calls ----------------------------------------------------------------------------------


def test_before_the_commit_a_lost_answer_is_transient(plain_driver: Driver) -> None:
    with serving(hang_up) as server, pytest.raises(TransientError):
        publish(plain_driver, server.url, uncommitted)


@pytest.mark.parametrize("body", [b"{}", b"<html>", b"[]"])
def test_before_the_commit_an_unreadable_answer_is_transient(
    plain_driver: Driver, body: bytes
) -> None:
    with serving(answer(200, body)) as server, pytest.raises(TransientError, match="unreadable"):
        publish(plain_driver, server.url, uncommitted)


def test_before_the_commit_a_slow_drip_is_transient(plain_driver: Driver) -> None:
    began = time.monotonic()

    with serving(drip) as server, pytest.raises(TransientError):
        publish(plain_driver, server.url, uncommitted, Attempt(seconds=0.3))

    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize("behave", [hang_up, answer(500), answer(401), answer(429)])
def test_an_optional_call_may_fail(plain_driver: Driver, behave: Any) -> None:
    def steps(platform: Plain) -> Flow:
        seen = yield platform.call(optional=True)
        return Published("110", remote_url=str(seen))

    with serving(behave) as server:
        outcome = publish(plain_driver, server.url, steps)

    assert outcome.value == Published("110", remote_url="None")


def test_trouble_after_the_commit_says_nothing_about_the_post(plain_driver: Driver) -> None:
    replies = iter([answer(), answer(403)])

    def steps(platform: Plain) -> Flow:
        yield platform.call(commits=True)
        yield platform.call()
        return Published("110")

    def behave(connection: socket.socket) -> None:
        connection.sendall(next(replies))

    with serving(behave) as server, pytest.raises(OutcomeUnknownError):
        publish(plain_driver, server.url, steps)


def test_steps_without_a_request_are_answered(plain_driver: Driver) -> None:
    attempt = Attempt()

    def steps(platform: Plain) -> Flow:
        yield Keep({"container": "17"})
        url = yield PublicUrl(item(1))
        found = yield Look(item(1, size_bytes=99))  # what is on record may be wrong
        return Published("110", remote_url=f"{url}?size={found.size_bytes}")

    outcome = publish(plain_driver, "http://127.0.0.1", steps, attempt)

    assert outcome.value.remote_url == "https://media.example/asset-1?size=7"
    assert attempt.kept == [{"container": "17"}]


@pytest.mark.parametrize("how", ["media", "files"])
def test_media_are_streamed_with_their_length(plain_driver: Driver, how: str) -> None:
    def steps(platform: Plain) -> Flow:
        request = Request("PUT", platform.app.api_url, media=item(1))
        if how == "files":
            request = Request("PUT", platform.app.api_url, files={"media": item(1)})
        yield Call(request, "upload")
        return Published("110")

    with serving(answer()) as server:
        publish(plain_driver, server.url, steps)

    (request,) = server.requests
    assert b"picture" in request
    assert b"transfer-encoding" not in request.lower()


def upload(platform: Plain) -> Flow:
    yield Call(Request("PUT", platform.app.api_url, media=item(1)), "upload")
    return Published("110")


def test_a_file_that_does_not_get_through_in_time_says_how_far_it_came() -> None:
    film = bytes(32 * 1024 * 1024)
    with socket.create_server(("127.0.0.1", 0)) as never_reads:
        url = f"http://127.0.0.1:{never_reads.getsockname()[1]}"

        with pytest.raises(TransientError, match=r"too_slow: upload: \d+ of 33554432 bytes"):
            publish(Driver(Bytes(film)), url, upload, Attempt(seconds=0.3))


def test_a_file_that_cannot_be_read_in_time_says_how_far_it_came() -> None:
    class Stalls(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= 65536:
                time.sleep(0.3)
                raise TimeoutError
            return super().read(size)

    class Slow(Bytes):
        def open(
            self, item: MediaItem, span: tuple[int, int] | None = None, *, ends_at: float
        ) -> IO[bytes]:
            return Stalls(bytes(100_000))

    with (
        serving(answer()) as server,
        pytest.raises(TransientError, match="too_slow: upload: 65536 of 100000 bytes"),
    ):
        publish(Driver(Slow()), server.url, upload, Attempt(seconds=0.3))


def test_a_file_that_turns_out_to_be_another_is_the_medias_failure() -> None:
    class Changed(Bytes):
        def open(
            self, item: MediaItem, span: tuple[int, int] | None = None, *, ends_at: float
        ) -> IO[bytes]:
            raise PermanentError("It was changed", code="media_changed")

    with serving(answer()) as server, pytest.raises(PermanentError, match="media_changed"):
        publish(Driver(Changed()), server.url, upload)

    assert server.requests == []


def test_time_is_short_sooner_for_a_large_file(plain_driver: Driver) -> None:
    def steps(platform: Plain) -> Flow:
        small = yield TimeIsShort()
        large = yield TimeIsShort(500_000_000)  # 20 s more
        return Published(f"{small} {large}")

    outcome = publish(plain_driver, "http://127.0.0.1", steps, Attempt(seconds=39))

    assert outcome.value == Published("False True")


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(answer(500)) as proxy, serving(answer()) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)

        publish(Driver(Bytes()), server.url)

        assert proxy.requests == []


# --- refreshing -----------------------------------------------------------------------------------


# --- hosts that an account names ------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fd00::1", "100.64.0.1"]
)
@pytest.mark.parametrize("beside", [[], ["93.184.215.14"]])
def test_a_server_inside_our_networks_is_not_connected_to(
    plain_driver: Driver, monkeypatch: pytest.MonkeyPatch, address: str, beside: list[str]
) -> None:
    resolve_to(monkeypatch, *beside, address)
    with serving(answer()) as server:
        port = server.url.rpartition(":")[2]
        mastodon = Mastodon(App(api_url=f"http://{{server}}:{port}"))

        error = failure(plain_driver, mastodon, named_server("inside.example"))

    assert (type(error), error.code) == (PermanentError, "server_not_public")
    assert server.connections == 0


def test_a_server_that_does_not_resolve_was_never_connected(
    plain_driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch)

    error = failure(plain_driver, Mastodon(), named_server("nowhere.example"))

    assert (type(error), error.code) == (TransientError, "no_answer")


def test_only_where_the_account_names_the_host_it_is_looked_at() -> None:
    inside = App(api_url="http://127.0.0.1:8080/mastodon/{server}")

    assert Mastodon().at_named_hosts
    assert not Mastodon(inside).at_named_hosts
    assert not Plain().at_named_hosts


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """What the name servers say of every name."""

    def found(host: str, port: int, **_: Any) -> list[Any]:
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", found)


def named_server(server: str) -> Delivery:
    return replace(DELIVERY, media=(), server=server)


def failure(driver: Driver, platform: Platform, delivery: Delivery) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        Attempt().run(driver, platform, delivery)
    return caught.value


def test_a_refresh_returns_what_the_platform_granted(plain_driver: Driver) -> None:
    granted = answer(200, b'{"access_token": "new", "expires_in": 7200}')

    with serving(granted) as server:
        ends_at = time.monotonic() + 5
        grant = plain_driver.refresh(Plain(App(api_url=server.url)), Tokens("old"), ends_at=ends_at)

    assert (grant.access_token, grant.expires_in) == ("new", timedelta(hours=2))


@pytest.mark.parametrize("behave", [hang_up, answer(500), answer(200, b"<html>")])
def test_a_refresh_without_an_answer_is_transient(plain_driver: Driver, behave: Any) -> None:
    with serving(behave) as server, pytest.raises(TransientError):
        plain_driver.refresh(
            Plain(App(api_url=server.url)), Tokens("old"), ends_at=time.monotonic() + 5
        )


def test_a_quoted_text_or_token_is_taken_out() -> None:
    class Quoting(Plain):
        def message(self, reply: httpx.Response) -> str:
            return reply.text

    headers = {"Authorization": "Bearer secret-token"}
    body = {"text": "Fresh bread", "more": [{"alt": "A warm loaf"}], "kind": "PUBLIC"}
    form = {"refresh_token": "r-1234"}
    call = Call(Request("POST", "https://a.example", headers, json=body, form=form), "create")
    said = "PUBLIC: 'Fresh bread' 'A warm loaf' secret-token r-1234"

    error = Quoting().classify(call, httpx.Response(400, text=said))

    assert error is not None
    assert error.message == "PUBLIC: '…' '…' … …"


@pytest.mark.parametrize("field", [{"content": 'Fresh "bread"'}, [{"caption": 'Fresh "bread"'}]])
def test_a_text_inside_a_forms_json_is_taken_out_too(field: Any) -> None:
    class Quoting(Plain):
        def message(self, reply: httpx.Response) -> str:
            return reply.text

    form = {"payload_json": json.dumps(field)}
    call = Call(Request("POST", "https://a.example", form=form), "create")

    error = Quoting().classify(call, httpx.Response(400, text='cannot take Fresh "bread"'))

    assert error is not None
    assert error.message == "cannot take …"


def test_a_text_that_travels_escaped_is_taken_out_as_it_was_written() -> None:
    class Quoting(Plain):
        def message(self, reply: httpx.Response) -> str:
            return reply.text

    call = Call(Request("POST", "https://a.example", json={"text": "Salt &amp; bread"}), "create")

    error = Quoting().classify(call, httpx.Response(400, text="cannot take Salt & bread"))

    assert error is not None
    assert error.message == "cannot take …"


# --- a token in a URL -----------------------------------------------------------------------------


def test_a_token_in_a_url_reaches_neither_error_hash_nor_log(
    plain_driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    class Quoting(Plain):
        def message(self, reply: httpx.Response) -> str:
            return reply.text

    def steps(platform: Plain) -> Flow:
        url = f"{platform.app.api_url}/hooks/secret-token"
        yield Call(Request("POST", url, json={}, secrets=("secret-token",)), "create", commits=True)
        return Published("110")

    caplog.set_level(logging.DEBUG)
    attempt = Attempt()
    with serving(answer(400, b"no /hooks/secret-token here")) as server:
        platform = Quoting(App(api_url=server.url))
        platform.steps = steps
        with pytest.raises(PermanentError) as caught:
            attempt.run(plain_driver, platform)
        asked = Request("POST", f"{server.url}/hooks/…", json={})

    assert "no /hooks/… here" in str(caught.value)
    assert attempt.marks == [request_hash(asked)]
    assert "secret-token" not in caplog.text
