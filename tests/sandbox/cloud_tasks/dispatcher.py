"""Sends what the engine says is due, as real HTTP, and tells it what came back."""

import asyncio
import contextlib
import http.client
import io
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, cast
from urllib.parse import urlsplit

from tests.sandbox.clock import Clock, real_now
from tests.sandbox.cloud_tasks.engine import Engine
from tests.sandbox.cloud_tasks.values import USER_AGENT, Dispatch, HttpRequest, Outcome
from tests.sandbox.identity import Issuer
from tests.sandbox.loop import Loop

log = logging.getLogger(__name__)

# Requests open at a time, over all queues.
SENDERS = 64
HISTORY_ITEMS = 20_000
ANSWER_BYTES_KEPT = 4096
CLOCKS_APART = timedelta(milliseconds=250)  # a function may be ahead by as long as a read takes


@dataclass(frozen=True)
class Attempt:
    """One request that was sent, and what came of it.

    `status` is the HTTP status, 504 when the dispatch deadline passed, None when nobody answered.
    `dispatched_at` and `answered_at` are the sandbox's instants, `started_at` and `ended_at` real.
    """

    queue: str
    task: str
    request: HttpRequest
    headers: Mapping[str, str]  # as sent, with the Authorization
    status: int | None
    answer: bytes  # its first 4 KiB
    scheduled_at: datetime
    dispatched_at: datetime
    answered_at: datetime
    started_at: datetime
    ended_at: datetime
    copy: bool = False

    @property
    def url(self) -> str:
        return self.request.url

    @property
    def body(self) -> bytes:
        return self.request.body

    @property
    def retry_count(self) -> int:
        return int(self.headers.get("X-CloudTasks-TaskRetryCount", "0"))


class Dispatcher:
    """A loop that sleeps until the engine's next instant on the sandbox's clock.

    The dispatch deadline is real time: it bounds a real request. Redirects are not followed.
    """

    def __init__(self, engine: Engine, lock: threading.Lock, clock: Clock, issuer: Issuer) -> None:
        self._engine = engine
        self._lock = lock
        self._changed = threading.Condition(lock)
        self._clock = clock
        self._issuer = issuer
        self._loop = Loop("sandbox-cloud-tasks")
        self._stop_listening: Callable[[], None] = lambda: None
        self._senders = asyncio.Semaphore(SENDERS)
        self._under_way: set[asyncio.Task[Attempt | None]] = set()
        self._open = 0  # attempts not yet told to everyone
        self._history: deque[Attempt] = deque(maxlen=HISTORY_ITEMS)
        self._listeners: list[Callable[[Attempt], None]] = []
        self.longest_wait: timedelta | None = None  # real; cuts dispatch deadlines short

    def start(self) -> None:
        self._loop.start(self._run)
        self._stop_listening = self._clock.on_turn(self._loop.ring)

    def stop(self) -> None:
        self._stop_listening()
        self._loop.stop()

    def wake(self) -> None:
        """Look again at what is due; from any thread."""
        self._loop.ring()

    @property
    def history(self) -> list[Attempt]:
        with self._lock:
            return list(self._history)

    def forget(self) -> None:
        """Drop the history and cancel what is under way."""
        with self._lock:
            self._history.clear()
        if self._loop.running:
            self._loop.submit(self._cancel_all()).result()

    def on_attempt(self, callback: Callable[[Attempt], None]) -> None:
        """Call after each attempt, in the dispatcher's thread: it must not wait for anything."""
        self._listeners.append(callback)

    def idle(self, timeout: float) -> bool:
        """Wait until nothing is in flight and nothing due, by any function's clock; False if that
        took too long."""
        with self._changed:
            return self._poll(lambda: not self._open and not self._is_busy(), timeout)

    def still(self, timeout: float) -> bool:
        """Wait until nothing is in flight and nothing could be sent; False: that took too long."""
        with self._changed:
            return self._poll(lambda: not self._open and not self._is_sending(), timeout)

    def launch(self, dispatches: list[Dispatch]) -> None:
        """Send these now; the caller has taken them from the engine."""
        if dispatches:
            self._loop.submit(self._spawn(dispatches))

    def resend(self, dispatch: Dispatch) -> Attempt:
        """Send a copy that the engine knows nothing of, and wait for its answer."""
        return self._loop.submit(self._record(dispatch)).result()

    async def _run(self) -> None:
        self._senders = asyncio.Semaphore(SENDERS)  # bound to one loop, so made in each
        try:
            await self._watch()
        finally:
            await self._cancel_all()

    async def _watch(self) -> None:
        while True:
            with self._lock:
                now = self._clock.now()
                due = self._engine.due(now)
                wake_at = self._engine.next_wake(now)
            if due:
                await self._spawn(due)
                continue
            await self._loop.nap(None if wake_at is None else (wake_at - now).total_seconds())

    async def _spawn(self, dispatches: list[Dispatch]) -> None:
        for dispatch in dispatches:
            self._start_task(self._attempt(dispatch))

    def _start_task(self, attempt: Coroutine[Any, Any, Attempt | None]) -> None:
        task = asyncio.create_task(attempt)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _cancel_all(self) -> None:
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _attempt(self, dispatch: Dispatch) -> Attempt:
        """Send, settle with the engine, tell the listeners."""
        with self._lock:
            self._open += 1
        try:
            attempt, outcome = await self._send(dispatch)
            with self._lock:
                self._engine.settle(dispatch, outcome, now=attempt.answered_at)
                self._history.append(attempt)
            self._tell(attempt)
        finally:
            with self._changed:
                self._open -= 1
                self._changed.notify_all()
        self._loop.ring()
        return attempt

    async def _record(self, dispatch: Dispatch) -> Attempt:
        attempt, _ = await self._send(dispatch)
        with self._lock:
            self._history.append(attempt)
        self._tell(attempt)
        return attempt

    async def _send(self, dispatch: Dispatch) -> tuple[Attempt, Outcome]:
        headers = dict(dispatch.headers) | self._authorization(dispatch.request)
        started_at = real_now()
        outcome, answer = await self._exchange(dispatch, headers)
        attempt = Attempt(
            queue=dispatch.queue_id,
            task=dispatch.task_id,
            request=dispatch.request,
            headers=headers,
            status=outcome.status,
            answer=answer[:ANSWER_BYTES_KEPT],
            scheduled_at=dispatch.scheduled_at,
            dispatched_at=dispatch.dispatched_at,
            answered_at=self._clock.now(),
            started_at=started_at,
            ended_at=real_now(),
            copy=dispatch.copy,
        )
        return attempt, outcome

    async def _exchange(self, dispatch: Dispatch, headers: dict[str, str]) -> tuple[Outcome, bytes]:
        try:
            async with self._senders, asyncio.timeout(self._patience(dispatch)):
                reply, content = await exchange(dispatch.request, headers)
        except TimeoutError:
            return Outcome(504, answered=False), b""
        except (http.client.HTTPException, OSError, ValueError):
            return Outcome(None, answered=False), b""
        wait = retry_after(reply.getheader("Retry-After", ""), real_now())
        return Outcome(reply.status, retry_after=wait), content

    def _patience(self, dispatch: Dispatch) -> float:
        return min(dispatch.deadline, self.longest_wait or dispatch.deadline).total_seconds()

    def _authorization(self, request: HttpRequest) -> dict[str, str]:
        if request.oidc is None:
            return {}
        audience = request.oidc.audience or request.url
        return {"Authorization": f"Bearer {self._issuer.token(request.oidc.email, audience)}"}

    def _tell(self, attempt: Attempt) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(attempt)
            except Exception:
                log.exception("a listener of Cloud Tasks attempts failed")

    def _is_busy(self) -> bool:
        return self._engine.is_busy(self._clock.now(), CLOCKS_APART)

    def _is_sending(self) -> bool:
        return self._engine.is_sending(self._clock.now())

    def _poll(self, wanted: Callable[[], bool], timeout: float) -> bool:
        deadline = real_now() + timedelta(seconds=timeout)
        while not wanted():
            left = (deadline - real_now()).total_seconds()
            if left <= 0:
                return False
            self._changed.wait(min(left, 0.02))  # tasks also come due by mere time
        return True


async def exchange(
    request: HttpRequest, headers: Mapping[str, str]
) -> tuple[http.client.HTTPResponse, bytes]:
    """Send a request on a connection of its own; the head of the answer, and its body.

    By hand: an HTTP client for asyncio takes three times the CPU, of which tests have two cores.
    """
    url = urlsplit(request.url)
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    own = {"Host": url.netloc, "Connection": "close", "Content-Length": str(len(request.body))}
    lines = [f"{name}: {text}" for name, text in (own | dict(headers)).items()]
    head = "\r\n".join([f"{request.method} {target} HTTP/1.1", *lines, "", ""])
    tls = url.scheme == "https"
    port = url.port or (443 if tls else 80)
    reader, writer = await asyncio.open_connection(url.hostname, port, ssl=tls or None)
    try:
        writer.write(head.encode() + request.body)
        answer = io.BytesIO(await reader.read())
    finally:
        writer.close()
    reply = http.client.HTTPResponse(cast(Any, _Answered(answer)), method=request.method)
    reply.begin()
    return reply, reply.read()


@dataclass
class _Answered:
    """What came over a connection, as `http.client` reads from one."""

    answer: io.BytesIO

    def makefile(self, mode: str) -> io.BytesIO:
        return self.answer


def without_authorization(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in headers.items() if name.lower() != "authorization"}


def raw_dispatch(request: HttpRequest, now: datetime) -> Dispatch:
    """A request of no task, as someone might make it who copied one."""
    return Dispatch(
        id=0,
        task_name="",
        request=request,
        headers={"User-Agent": USER_AGENT} | dict(request.headers),
        deadline=timedelta(minutes=10),
        scheduled_at=now,
        dispatched_at=now,
        serial=0,
        copy=True,
    )


def retry_after(text: str, now: datetime) -> timedelta:
    """A Retry-After header as a wait: seconds or an HTTP date; nothing sensible is no wait."""
    if text.strip().isdigit():
        return timedelta(seconds=int(text))
    with contextlib.suppress(ValueError, TypeError):
        return max(timedelta(0), parsedate_to_datetime(text).astimezone(UTC) - now)
    return timedelta(0)
