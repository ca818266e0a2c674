"""Every platform on one port of this machine, as far as we use it.

Each lives under its own prefix (`/linkedin`, `/linkedin-auth`, `/twitter`, …), a federated one with
the account's server after it; `/files` serves what a test hosts. A request that the platform's
contract does not allow is refused as the platform would. What was accepted is in `posts()`, what
arrived in `requests`.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import Any
from wsgiref.handlers import format_date_time

from shared.platforms.registry import PLATFORMS, platform_class
from tests.sandbox.functions import DropConnection, Faults
from tests.sandbox.platforms.dialect import Dialect, Now
from tests.sandbox.platforms.misbehaviour import Kind, Misbehaviour
from tests.sandbox.platforms.values import Answer, Content, Post, Received, Refused, Token

BLOCK_BYTES = 1024 * 1024  # read at a time
KEPT_BYTES = 8 * BLOCK_BYTES  # of a body that is a file and no form
RECORDED_BYTES = 32 * BLOCK_BYTES  # of all bodies together; what comes then is not kept
AUTH = "-auth"  # after the prefix, where tokens have a host of their own


def _dialect(name: str) -> type[Dialect]:
    """What the file of that name here has for the platform."""
    module = import_module(f"tests.sandbox.platforms.{name}")
    found: type[Dialect] = getattr(module, f"{PLATFORMS[name]}Dialect")
    return found


class PlatformServer:
    """All platforms. Start it, add accounts, point the settings at it.

    `clock` tells the time that posts, tokens and limits go by. `before` and `after` arm what
    happens to any request ahead of the platform and to its answer, as a function's `Front` has it.
    """

    def __init__(self, clock: Now) -> None:
        self.clock = clock
        self.requests: list[Received] = []  # as they arrive
        self.answers: list[tuple[Received, Answer]] = []  # as they leave
        self.before: Faults[Received] = Faults()
        self.after: Faults[Received] = Faults()
        self._dialects = {name: _dialect(name)(clock, lambda: self.url) for name in PLATFORMS}
        self._misbehaviours: list[Misbehaviour] = []
        self._files: dict[str, tuple[bytes, str]] = {}
        self._recorded_bytes = 0
        self._lock = threading.RLock()
        self._http: ThreadingHTTPServer | None = None

    def __getattr__(self, name: str) -> Any:
        """A platform's dialect, by the platform's name."""
        if name not in PLATFORMS:
            raise AttributeError(name)
        return self._dialects[name]

    # life

    @property
    def url(self) -> str:
        if self._http is None:
            raise RuntimeError("the platform server has not been started")
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def start(self) -> PlatformServer:
        http = _Http(("127.0.0.1", 0), _Handler)
        http.platforms = self
        self._http = http
        threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        self._release_all()
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()

    def reset(self) -> None:
        """Forget everything, and let go whoever is held."""
        self._release_all()
        with self._lock:
            self.requests.clear()
            self._recorded_bytes = 0
            self.answers.clear()
            self._misbehaviours.clear()
            self._files.clear()
        for dialect in self._dialects.values():
            with dialect.lock:
                dialect.clear()

    def heal(self) -> None:
        """Take away what is armed by `before` and `after`."""
        self.before.clear()
        self.after.clear()

    def _release_all(self) -> None:
        for misbehaviour in self._misbehaviours:
            misbehaviour.release()

    def settings(self) -> dict[str, str]:
        """The environment that points our functions here."""
        settings = {}
        for name, dialect in self._dialects.items():
            kind, upper, url = platform_class(name), name.upper(), f"{self.url}/{name}"
            settings[f"{upper}_API_URL"] = (
                f"{url}/{{server}}" if "{server}" in kind.api_url else url
            )
            settings[f"{upper}_CLIENT_ID"] = dialect.client_id
            settings[f"{upper}_CLIENT_SECRET"] = dialect.client_secret
            if kind.auth_url is not None:
                settings[f"{upper}_AUTH_URL"] = f"{url}{AUTH}"
        return settings

    # what there is

    def add_account(
        self,
        platform: str,
        user_id: str,
        access_token: str,
        refresh_token: str | None = None,
        *,
        handle: str | None = None,
        expires_in: timedelta | None = None,
    ) -> None:
        """An account and its tokens; a token given again speaks for both accounts."""
        dialect, now = self._dialects[platform], self.clock.now()
        with dialect.lock:
            token = dialect.tokens.get(access_token)
            if token is None:
                token = Token(
                    platform=platform,
                    user_ids=set(),
                    issued_at=now - timedelta(days=2),
                    expires_at=now + (expires_in or dialect.access_life),
                    handle=handle,
                )
                dialect.tokens[access_token] = token
            token.user_ids.add(user_id)
            if refresh_token is not None:
                dialect.refresh_tokens[refresh_token] = access_token

    def revoke(self, token: str) -> None:
        """An access or a refresh token that is refused from now on."""
        for dialect in self._dialects.values():
            with dialect.lock:
                dialect.refresh_tokens.pop(token, None)
                if token in dialect.tokens:
                    dialect.tokens[token].revoked = True

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._dialects)

    def dialect(self, platform: str) -> Dialect:
        return self._dialects[platform]

    def posts(self, platform: str | None = None) -> list[Post]:
        """Oldest first."""
        wanted = [d for d in self._dialects.values() if platform in (None, d.name)]
        return sorted((p for d in wanted for p in tuple(d.posts)), key=lambda post: post.at)

    def count(self, platform: str, post_id: str, **figures: float | None) -> None:
        """What the platform tells of a post from now on, under its own names; None is a gap."""
        dialect = self._dialects[platform]
        with dialect.lock:
            dialect.figures[post_id] = dialect.figures.get(post_id, {}) | figures

    def delete(self, platform: str, post_id: str) -> None:
        """Take a post down, as its author may."""
        dialect = self._dialects[platform]
        with dialect.lock:
            dialect.posts = [post for post in dialect.posts if post.id != post_id]

    def calls(self, platform: str, call: str | None = None) -> list[Received]:
        """The requests to one platform, or those of one call."""
        with self._lock:
            return [r for r in self.requests if r.platform == platform and call in (None, r.call)]

    def host(self, name: str, body: bytes, content_type: str) -> str:
        """A URL under which this server answers `body`."""
        with self._lock:
            self._files[name] = (body, content_type)
        return f"{self.url}/files/{name}"

    def misbehave(
        self,
        platform: str,
        call: str,
        kind: Kind,
        times: int | None = 1,
        when: Callable[[Received], bool] | None = None,
        **how: Any,
    ) -> Misbehaviour:
        """Let the next `times` requests of `call` ("*" is any) that satisfy `when` go wrong."""
        misbehaviour = Misbehaviour(platform, call, kind, times, when, how)
        with self._lock:
            self._misbehaviours.append(misbehaviour)
        return misbehaviour

    def behave(self) -> None:
        """Take every misbehaviour back, and let go whoever is held."""
        self._release_all()
        with self._lock:
            self._misbehaviours.clear()

    # one request

    def answer(self, received: Received) -> Answer | None:
        """What to answer; None is to hang up."""
        received, handler = _routed(self._dialects[received.platform], received)
        try:
            self.before.strike(received)
            recorded = self._record(received)
            answer = self._answer(received, handler)
            self.after.strike(received)
        except DropConnection:
            return None
        if answer is not None:
            with self._lock:
                self.answers.append((recorded, answer))
        return answer

    def _answer(self, received: Received, handler: Callable[..., Answer]) -> Answer | None:
        dialect = self._dialects[received.platform]
        with self._lock:
            fault = next((m for m in self._misbehaviours if m.applies(received)), None)
            if fault is not None:
                fault.hits += 1
                fault.left = None if fault.left is None else fault.left - 1
        if fault is not None:
            if fault.kind == "hold" and not fault.how.get("after"):
                fault.stand_still()
            if fault.kind == "drop_before":
                return None
            early = _instead(dialect, fault)
            if early is not None:
                return early
            received = replace(received, polls=fault.how.get("polls", 0))
        with dialect.lock:
            try:
                answer = handler(dialect, received)
            except Refused as refused:
                answer = refused.answer
        if fault is None or answer.status >= 400:
            return answer
        fault.after(received, answer)
        return _spoilt(dialect, fault, answer)

    def _record(self, received: Received) -> Received:
        """As it is remembered: a film is not."""
        with self._lock:
            if self._recorded_bytes + len(received.body) > RECORDED_BYTES:
                received = replace(received, body=b"")
            self._recorded_bytes += len(received.body)
            self.requests.append(received)
        return received

    def file(self, name: str) -> Answer:
        with self._lock:
            body, content_type = self._files.get(name, (b"", ""))
        if not content_type:
            return Answer(404, b"not found")
        return Answer(200, body, {"Content-Type": content_type})


def _routed(dialect: Dialect, received: Received) -> tuple[Received, Callable[..., Answer]]:
    for route in dialect.routes:
        parts = route.match(received.method, received.path)
        if parts is not None:
            call = dialect.name_call(route.call, parts)
            return replace(received, call=call, parts=parts), route.handler
    return received, type(dialect).unknown_route


def _instead(dialect: Dialect, fault: Misbehaviour) -> Answer | None:
    """The answer of a request that is never looked at."""
    how = fault.how
    if fault.kind == "refuse":
        return Answer(how["status"], how.get("body"), how.get("headers", {}))
    if fault.kind == "throttle":
        return dialect.throttled(**how)
    if fault.kind == "error_before":
        return dialect.failure(how.get("status", 500), "Internal server error")
    return None


def _spoilt(dialect: Dialect, fault: Misbehaviour, answer: Answer) -> Answer | None:
    """What becomes of the answer to a request that was accepted."""
    match fault.kind:
        case "drop_after":
            return None
        case "slow":
            time.sleep(fault.how["seconds"])
        case "error_after":
            return dialect.failure(fault.how.get("status", 500), "Internal server error")
        case "garbage":
            return Answer(200, b"<!doctype html><title>Welcome</title>")
        case "no_id":
            return dialect.without_id(answer)
    return answer


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    platforms: PlatformServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hung up is not worth a traceback; tests see what was recorded."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet an answer
    server: _Http

    def _serve(self) -> None:
        platforms = self.server.platforms
        most = None if self._is_form() else KEPT_BYTES
        body, content = self._take(most)
        path, _, query = self.path.partition("?")
        prefix, _, rest = path.removeprefix("/").partition("/")
        name = prefix.removesuffix(AUTH)
        if name == "files":
            return self._send(platforms.file(rest))
        if name not in platforms._dialects:
            return self._send(Answer(404))
        received = Received(
            platform=name,
            call="",
            method=self.command,
            path=f"/{rest}",
            query=query,
            headers={key.lower(): value for key, value in self.headers.items()},
            body=body,
            content=content,
            at=platforms.clock.now(),
        )
        answer = platforms.answer(received)
        if answer is None:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return None
        return self._send(answer)

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    def _is_form(self) -> bool:
        return self.headers.get("Content-Type", "").startswith("multipart/")

    def _take(self, most: int | None) -> tuple[bytes, Content]:
        """The body, or the first blocks of it, and what all of it is."""
        kept = bytearray()

        def passing() -> Iterator[bytes]:
            for block in self._read():
                if most is None or len(kept) < most:
                    kept.extend(block)
                yield block

        content = Content.of(passing())
        return bytes(kept), content

    def _read(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            left = int(self.headers.get("Content-Length") or 0)
            while left > 0 and (block := self.rfile.read(min(left, BLOCK_BYTES))):
                left -= len(block)
                yield block

    def _send(self, answer: Answer) -> None:
        body, content_type = answer.encoded()
        headers = {"Content-Type": content_type} | dict(answer.headers)
        with suppress(OSError):
            self.send_response(answer.status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return format_date_time(self.server.platforms.clock.now().timestamp())

    def log_message(self, format: str, *args: Any) -> None:
        pass
