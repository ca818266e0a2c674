"""Carries a flow's steps out: the one place that speaks to platforms.

The rule that protects from double posts stands here, above every adapter's `classify`. On the call
marked `commits`, only two things mean *not accepted*: it never left (no byte was written), or the
platform refused it in words that the adapter names. Everything else – a 5xx, 408, 3xx, an unlisted
4xx, a broken body, a 2xx without a readable id, no answer – is an unknown outcome.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from io import SEEK_END
from typing import IO, Any, Protocol

import httpx

from shared.domain.accounts import Tokens
from shared.domain.failures import (
    OutcomeUnknownError,
    PermanentError,
    PlatformError,
    ThrottledError,
    TransientError,
)
from shared.domain.media import FoundItem, MediaItem
from shared.platforms.base import (
    Call,
    Delivery,
    Grant,
    Keep,
    LimitsFlow,
    Look,
    MetricsFlow,
    MetricsQuery,
    Platform,
    Processing,
    PublicUrl,
    Published,
    Reading,
    RefreshFlow,
    Request,
    Step,
    TimeIsShort,
    Unread,
)
from shared.platforms.session import (
    Collected,
    Outcome,
    Permit,
    Session,
    TooLateToSendError,
)
from shared.platforms.wire import FAILURES, Client, NotPublicError, Wire

# One platform call, from connecting to the last byte. A file that is sent whole, before the call
# that creates the post, may take what is left of the request.
CALL_SECONDS = 20.0
TOO_SLOW = "too_slow"
BYTES_A_SECOND = 25_000_000  # of a large file, from the bucket through us


class Media(Protocol):
    """Where media bytes come from. Raises a `PlatformError` for what cannot be had, `TimeoutError`
    past `ends_at`, monotonic; so does reading what was opened."""

    def look(self, item: MediaItem, *, ends_at: float) -> FoundItem: ...

    def open(
        self, item: MediaItem, span: tuple[int, int] | None = None, *, ends_at: float
    ) -> IO[bytes]:
        """The whole file, as a stream that knows its length; or a piece of it."""

    def public_url(self, item: MediaItem) -> str: ...


class Driver:
    """Drives flows. Connections for committing calls are never reused: a server that closes an
    idle connection just as we write leaves us not knowing whether it read the request."""

    def __init__(self, media: Media) -> None:
        self._media = media
        self._client = Client(keep_alive=True)
        self._fresh = Client(keep_alive=False)

    def publish(
        self, platform: Platform, delivery: Delivery, token: str, session: Session
    ) -> Outcome:
        """The platform's outcome. Raises a `PlatformError`, or what `session` raises."""
        flow = platform.publish(delivery, token)
        committed = False
        raw: str | None = None
        answer: Any = None
        while True:
            try:
                step = flow.send(answer)
            except StopIteration as done:
                return Outcome(_readable(done.value), raw)
            except (LookupError, ValueError, TypeError, AttributeError) as error:
                raise _unreadable(platform, committed) from error
            except PlatformError as error:
                raise _after_commit(error, committed) from error
            if isinstance(step, Call) and step.commits:
                answer = self._commit(platform, step, session)
                committed, raw = True, answer.text
                continue
            try:
                answer = self._step(platform, step, session)
            except PlatformError as error:
                raise _after_commit(error, committed) from error

    def lookup(
        self, platform: Platform, delivery: Delivery, token: str, session: Session
    ) -> Outcome:
        """The post that an unanswered call may have made. Raises `OutcomeUnknownError` when it is
        not to be seen, which proves nothing."""
        flow = platform.lookup(delivery, token)
        answer: Any = None
        while True:
            try:
                step = flow.send(answer)
            except StopIteration as done:
                return Outcome(_readable(done.value), None)
            except (LookupError, ValueError, TypeError, AttributeError) as error:
                raise _unreadable(platform, committed=False) from error
            if isinstance(step, Call) and step.commits:
                raise AssertionError(f"{platform.name}: a lookup must not create anything")
            answer = self._step(platform, step, session)

    def refresh(self, platform: Platform, tokens: Tokens, *, ends_at: float) -> Grant:
        """New tokens. Raises `AuthExpiredError` when the refresh token itself is refused."""
        grant: Grant = self._ask(platform, platform.refresh(tokens), ends_at)
        return grant

    def limits(
        self, platform: Platform, user_id: str, server: str | None, token: str, *, ends_at: float
    ) -> dict[str, int]:
        """The account's own limits, as far as the platform tells them."""
        told = self._ask(platform, platform.own_limits(user_id, server, token), ends_at)
        return {name: most for name, most in told.items() if isinstance(most, int) and most > 0}

    def _ask(self, platform: Platform, flow: RefreshFlow | LimitsFlow, ends_at: float) -> Any:
        """What a flow comes to that creates nothing and keeps nothing."""
        answer: Any = None
        while True:
            try:
                step = flow.send(answer)
            except StopIteration as done:
                return done.value
            except (LookupError, ValueError, TypeError, AttributeError) as error:
                raise _unreadable(platform, committed=False) from error
            answer = self._call(platform, step, self._client, Wire(_until(ends_at)))

    def metrics(
        self, platform: Platform, query: MetricsQuery, token: str, *, ends_at: float
    ) -> Collected:
        """What the platform tells of these posts, up to the failure that ended it, if one did."""
        flow = platform.metrics(query, token)
        told: dict[str, Reading | Unread] = {}
        failure: PlatformError | None = None
        try:
            self._read_metrics(platform, flow, told, ends_at)
        except (LookupError, ValueError, TypeError, AttributeError):
            failure = _unreadable(platform, committed=False)
        except PlatformError as error:
            failure = error
        finally:
            flow.close()
        return Collected(told, failure)

    def _read_metrics(
        self,
        platform: Platform,
        flow: MetricsFlow,
        told: dict[str, Reading | Unread],
        ends_at: float,
    ) -> None:
        answer: Any = None
        while True:
            try:
                step = flow.send(answer)
            except StopIteration:
                return
            answer = None
            match step:
                case Reading() | Unread():
                    told[step.remote_id] = step
                case Call(commits=True):
                    raise AssertionError(f"{platform.name}: reading metrics creates nothing")
                case Call():
                    try:
                        answer = self._call(platform, step, self._client, Wire(_until(ends_at)))
                    except TransientError as error:
                        if not step.optional or isinstance(error, ThrottledError):
                            raise

    def _step(self, platform: Platform, step: Step, session: Session) -> Any:
        match step:
            case Keep(state):
                session.keep(state)
                return None
            case TimeIsShort(for_bytes):
                needed = CALL_SECONDS + for_bytes / BYTES_A_SECOND
                return session.ends_at - time.monotonic() < needed
            case PublicUrl(item):
                return self._media.public_url(item)
            case Look(item):
                return self._look(item, session)
            case Call():
                whole_file = step.request.span is None and (
                    step.request.media is not None or step.request.files is not None
                )
                until = session.ends_at if whole_file else _until(session.ends_at)
                try:
                    return self._call(platform, step, self._client, Wire(until))
                except PlatformError:
                    if step.optional:
                        return None
                    raise

    def _look(self, item: MediaItem, session: Session) -> FoundItem:
        try:
            return self._media.look(item, ends_at=session.ends_at)
        except TimeoutError as error:
            message = f"The media asset {item.id} could not be looked at in time."
            raise TransientError(message, code=TOO_SLOW) from error

    def _commit(self, platform: Platform, call: Call, session: Session) -> httpx.Response:
        permit = session.mark_committing(request_hash(call.request))
        wire = Wire(_until(session.ends_at), before_write=partial(in_time, permit, session.now))
        try:
            return self._call(platform, call, self._fresh, wire)
        except PlatformError as error:
            if not wire.written or _refused(platform, error):
                raise
            raise _unknown(error) from error

    def _call(self, platform: Platform, call: Call, client: Client, wire: Wire) -> httpx.Response:
        request, wire.public = call.request, platform.at_named_hosts
        with ExitStack() as stack:
            opened: list[IO[bytes]] = []

            def media(item: MediaItem) -> IO[bytes]:
                content = self._media.open(item, request.span, ends_at=wire.ends_at)
                opened.append(stack.enter_context(content))
                return content

            try:
                reply = client.send(
                    wire,
                    request.method,
                    request.url,
                    headers=dict(request.headers),
                    params=request.params,
                    **_body(request, media),
                )
            except (TimeoutError, *FAILURES) as error:
                raise _unanswered(call, wire, opened, error) from error
            except NotPublicError as error:
                message = f"The account's {platform.label} server, {error}, is not a public one"
                raise PermanentError(message, code="server_not_public") from error
        failure = _classify(platform, call, reply)
        if failure is not None:
            raise failure
        return reply


def _body(request: Request, opened: Callable[[MediaItem], IO[bytes]]) -> dict[str, Any]:
    if request.media is not None:
        return {"content": opened(request.media)}
    if request.files is not None:
        files = {
            field: (item.file_name, opened(item), item.content_type)
            for field, item in request.files.items()
        }
        return {"data": request.form, "files": files}
    if request.form is not None:
        return {"data": request.form}
    return {} if request.json is None else {"json": request.json}


def _unanswered(
    call: Call, wire: Wire, media: Sequence[IO[bytes]], error: Exception
) -> TransientError:
    sent, whole = sum(one.tell() for one in media), sum(one.seek(0, SEEK_END) for one in media)
    if sent < whole and time.monotonic() >= wire.ends_at:
        message = f"{call.name}: {sent} of {whole} bytes had left when the time for it was over"
        return TransientError(message, code=TOO_SLOW)
    left = "after" if wire.written else "before"
    message = f"{call.name}: {type(error).__name__} {left} the request had left"
    return TransientError(message, code="no_answer")


def in_time(permit: Permit, now: Callable[[], datetime]) -> None:
    """Raises past `send_by`, by either clock: the wall's may be set, the other may stand still."""
    if now() >= permit.send_by or time.monotonic() >= permit.send_by_monotonic:
        raise TooLateToSendError


def request_hash(request: Request) -> str:
    """What is about to be sent, without the credentials: kept with the committing mark."""
    url = request.url
    for secret in request.secrets:
        url = url.replace(secret, "…")
    shown = repr((request.method, url, request.params, request.json, request.form))
    return hashlib.sha256(shown.encode()).hexdigest()


def _readable(value: Published | Processing) -> Published | Processing:
    if isinstance(value, Published) and not value.remote_id:
        raise OutcomeUnknownError("the answer names no post", code="no_remote_id")
    return value


def _after_commit(error: PlatformError, committed: bool) -> PlatformError:
    """Whatever fails once the post may stand says nothing about the post itself."""
    return _unknown(error) if committed else error


def _unreadable(platform: Platform, committed: bool) -> PlatformError:
    message = f"{platform.label} gave an answer that cannot be read"
    if committed:
        return OutcomeUnknownError(message, code="unreadable_answer")
    return TransientError(message, code="unreadable_answer")


def _classify(platform: Platform, call: Call, reply: httpx.Response) -> PlatformError | None:
    try:
        return platform.classify(call, reply)
    except (LookupError, ValueError, TypeError, AttributeError):
        # An error page instead of the documented body. 401 and 429 need no body to be understood.
        if call.commits and reply.status_code not in (401, 429):
            message = (
                f"{platform.label} answered {reply.status_code} with a body that is not its own"
            )
            return OutcomeUnknownError(message, code="unreadable_answer", status=reply.status_code)
        return Platform.classify(platform, call, reply)


def _refused(platform: Platform, error: PlatformError) -> bool:
    """The platform itself said no: a listed status, or a failure named inside a 2xx body."""
    status = error.status
    if isinstance(error, OutcomeUnknownError):
        return False
    return status is not None and (status in platform.refusals or 200 <= status < 300)


def _unknown(error: PlatformError) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        error.message, code=error.code, status=error.status, request_id=error.request_id
    )


def _until(ends_at: float) -> float:
    return min(ends_at, time.monotonic() + CALL_SECONDS)
