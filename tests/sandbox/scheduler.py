"""Cloud Scheduler on one machine: POSTs each job at its slots, on the sandbox's clock.

What it does is what google-cloud-scheduler 2.21's reference and
https://docs.cloud.google.com/scheduler/docs/configuring/deduplicate-job-requests say: at least
once, with the same ScheduleTime over all tries of one run, and never two runs of a job at a time.
"""

import asyncio
import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
from cronsim import CronSim

from tests.sandbox.clock import Clock, real_now
from tests.sandbox.identity import Issuer
from tests.sandbox.loop import Loop

USER_AGENT = "Google-Cloud-Scheduler"
HISTORY_ITEMS = 10_000


@dataclass(frozen=True)
class Job:
    """One job with an HTTP target; defaults are Cloud Scheduler's."""

    name: str
    url: str
    cron: str  # unix-cron, five fields
    time_zone: str = "Etc/UTC"
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    email: str = "scheduler@sandbox.iam.gserviceaccount.com"
    audience: str = ""  # empty: the URL
    attempt_deadline: timedelta = timedelta(minutes=3)
    retry_count: int = 0  # tries after the first, at most 5
    max_retry_duration: timedelta = timedelta(0)  # 0 is unlimited
    min_backoff: timedelta = timedelta(seconds=5)
    max_backoff: timedelta = timedelta(hours=1)
    max_doublings: int = 5

    def __post_init__(self) -> None:
        if len(self.cron.split()) != 5:
            raise ValueError(f"{self.name}: unix-cron has five fields, not {self.cron!r}")
        self.slot_after(real_now())  # a cron that cannot be read, or never comes, fails here

    def slot_after(self, instant: datetime) -> datetime:
        """The first slot later than `instant`, UTC."""
        return next(CronSim(self.cron, self._local(instant))).astimezone(UTC)

    def slots_before(self, instant: datetime, *, after: datetime, at_most: int) -> list[datetime]:
        """The latest slots in (`after`, `instant`], oldest first."""
        # CronSim goes back from a moment to the slots before it; a second more includes it.
        backward = CronSim(self.cron, self._local(instant + timedelta(seconds=1)), reverse=True)
        slots: list[datetime] = []
        for slot in backward:
            if slot.astimezone(UTC) <= after or len(slots) == at_most:
                break
            slots.append(slot.astimezone(UTC))
        return slots[::-1]

    def _local(self, instant: datetime) -> datetime:
        return instant.astimezone(ZoneInfo(self.time_zone)).replace(microsecond=0)

    def schedule_time(self, slot: datetime) -> str:
        """The ScheduleTime header: RFC 3339 with the offset of the job's zone, `Z` for UTC."""
        text = slot.astimezone(ZoneInfo(self.time_zone)).isoformat(timespec="seconds")
        return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text

    def backoff(self, failures: int) -> timedelta:
        """The wait before the `failures`-th retry (from 1): doubling from 5 s, as a queue's."""
        doubled: timedelta = self.min_backoff * 2 ** min(failures - 1, self.max_doublings)
        return min(self.max_backoff, doubled * max(1, failures - self.max_doublings))

    def gives_up(self, tries: int, elapsed: timedelta) -> bool:
        """Whether both limits are spent; a duration of 0 leaves it to the count."""
        return tries > self.retry_count and elapsed >= self.max_retry_duration


@dataclass(frozen=True)
class Run:
    """One request of a job. `status` is None when nobody answered and 504 at the deadline."""

    job: str
    scheduled_at: datetime | None
    tries: int  # 1 for the first
    status: int | None
    headers: Mapping[str, str]
    body: bytes
    started_at: datetime  # on the sandbox's clock
    ended_at: datetime
    manual: bool = False
    response: httpx.Response | None = field(default=None, compare=False, repr=False)


class NoAnswerError(Exception):
    """A job fired by hand reached nobody, or not within its deadline."""


class Scheduler:
    """Fires `jobs` when the clock reaches their slots; `catch_up` says what a long turn brings.

    When the clock has been turned past several slots of a job, its latest `catch_up` of them run
    and the others are missed.
    """

    def __init__(
        self, clock: Clock, issuer: Issuer, jobs: Iterable[Job], *, catch_up: int = 1
    ) -> None:
        self._clock = clock
        self._issuer = issuer
        self.jobs = {job.name: job for job in jobs}
        self._catch_up = catch_up
        self._loop = Loop("sandbox-scheduler")
        self._client: httpx.AsyncClient | None = None
        self._stop_listening: Callable[[], None] = lambda: None
        self._changed = threading.Condition()
        self._history: deque[Run] = deque(maxlen=HISTORY_ITEMS)
        self._done_until: dict[str, datetime] = {}
        self._running: set[str] = set()
        self._waiting: dict[str, datetime] = {}  # until their next try
        self._skips: dict[str, int] = {}
        self._automatic = True

    def start(self, *, automatic: bool = True) -> "Scheduler":
        """Start; without `automatic` jobs run by hand only."""
        self._automatic = automatic
        now = self._clock.now()
        self._done_until = dict.fromkeys(self.jobs, now)
        self._running.clear()
        self._waiting.clear()
        self._loop.start(self._live)
        self._stop_listening = self._clock.on_turn(self._turned)
        return self

    def stop(self) -> None:
        """Stop at once, cutting off requests under way."""
        self._stop_listening()
        self._loop.stop()

    def __enter__(self) -> "Scheduler":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def runs(self) -> list[Run]:
        with self._changed:
            return list(self._history)

    def fire(
        self,
        job: str,
        *,
        scheduled_at: datetime | None = None,
        manual: bool = False,
        with_time: bool = True,
    ) -> httpx.Response:
        """Run a job now, one try, and return the answer; NoAnswerError if there is none.

        Its slot is `scheduled_at`, by default the latest one reached. A `manual` run is one
        forced by a person: its ScheduleTime is the coming slot's, or absent (`with_time=False`).
        """
        found = self.jobs[job]
        now = self._clock.now()
        if scheduled_at is None:
            scheduled_at = found.slot_after(now) if manual else latest_slot(found, now)
        slot = scheduled_at if with_time else None
        run = self._loop.submit(self._send(found, slot, tries=1, manual=manual)).result()
        if run.response is None:
            raise NoAnswerError(f"{job}: {'no answer' if run.status is None else 'deadline'}")
        return run.response

    def repeat(self, job: str) -> httpx.Response:
        """Run a job's last slot once more, with the same ScheduleTime: at least once, twice."""
        for run in reversed(self.runs):
            if run.job == job and not run.manual:
                return self.fire(job, scheduled_at=run.scheduled_at)
        raise KeyError(f"the job {job!r} has not run yet")

    def skip(self, job: str, slots: int = 1) -> None:
        """Leave out the job's next slots, as an outage would."""
        with self._changed:
            self._skips[self.jobs[job].name] = self._skips.get(job, 0) + slots

    def idle(self, timeout: float = 10.0) -> bool:
        """Wait until no run is under way and no slot is due; False if that took too long."""
        deadline = real_now() + timedelta(seconds=timeout)
        with self._changed:
            while self._is_busy():
                left = (deadline - real_now()).total_seconds()
                if left <= 0:
                    return False
                self._changed.wait(min(left, 0.02))
        return True

    def _is_busy(self) -> bool:
        now = self._clock.now()
        due = any(
            self.jobs[name].slot_after(done) <= now
            for name, done in self._done_until.items()
            if name not in self._waiting  # a job's next run waits for the one before
        )
        return (
            bool(self._running)
            or any(at <= now for at in self._waiting.values())
            or (self._automatic and due)
        )

    def _turned(self) -> None:
        """After a turn back, slots later than now lie ahead again."""
        now = self._clock.now()
        with self._changed:
            for name, done in self._done_until.items():
                self._done_until[name] = min(done, now)
        self._loop.ring()

    async def _live(self) -> None:
        self._client = httpx.AsyncClient(timeout=None, trust_env=False)
        async with self._client, asyncio.TaskGroup() as followers:
            if self._automatic:
                for job in self.jobs.values():
                    followers.create_task(self._follow(job))
            await asyncio.Event().wait()  # until stopped

    async def _follow(self, job: Job) -> None:
        while True:
            now = self._clock.now()
            done = self._done_until[job.name]
            slot = job.slot_after(done)
            if slot > now:
                await self._loop.nap((slot - now).total_seconds())
                continue
            slots = job.slots_before(now, after=done, at_most=self._catch_up)
            for due in self._take(job, slots):
                await self._run_until_done(job, due)
            with self._changed:
                self._running.discard(job.name)
                self._changed.notify_all()

    def _take(self, job: Job, slots: list[datetime]) -> list[datetime]:
        """The slots to run, less those to be skipped; all count as done from here on."""
        with self._changed:
            self._running.add(job.name)
            self._done_until[job.name] = slots[-1]
            left_out = min(self._skips.get(job.name, 0), len(slots))
            self._skips[job.name] = self._skips.get(job.name, 0) - left_out
        return slots[left_out:]

    async def _run_until_done(self, job: Job, slot: datetime) -> None:
        first_at = self._clock.now()
        tries = 0
        while True:
            tries += 1
            run = await self._send(job, slot, tries=tries)
            if run.status is not None and 200 <= run.status <= 299:
                return
            if job.gives_up(tries, self._clock.now() - first_at):
                return
            await self._sleep_until(self._clock.now() + job.backoff(tries), job)

    async def _sleep_until(self, instant: datetime, job: Job) -> None:
        with self._changed:
            self._running.discard(job.name)
            self._waiting[job.name] = instant
        while (left := (instant - self._clock.now()).total_seconds()) > 0:
            await self._loop.nap(left)
        with self._changed:
            self._running.add(job.name)
            del self._waiting[job.name]

    async def _send(
        self, job: Job, slot: datetime | None, *, tries: int, manual: bool = False
    ) -> Run:
        headers = self._headers(job, slot)
        started_at = self._clock.now()
        status, response = await self._exchange(job, headers)
        run = Run(
            job=job.name,
            scheduled_at=slot,
            tries=tries,
            status=status,
            headers=headers,
            body=job.body,
            started_at=started_at,
            ended_at=self._clock.now(),
            manual=manual,
            response=response,
        )
        with self._changed:
            self._history.append(run)
            self._changed.notify_all()
        return run

    async def _exchange(
        self, job: Job, headers: dict[str, str]
    ) -> tuple[int | None, httpx.Response | None]:
        assert self._client is not None
        try:
            async with asyncio.timeout(job.attempt_deadline.total_seconds()):
                reply = await self._client.post(job.url, headers=headers, content=job.body)
        except TimeoutError:
            return 504, None
        except (httpx.HTTPError, httpx.InvalidURL, OSError):
            return None, None
        return reply.status_code, reply

    def _headers(self, job: Job, slot: datetime | None) -> dict[str, str]:
        headers = {
            "User-Agent": USER_AGENT,
            "X-CloudScheduler": "true",
            "X-CloudScheduler-JobName": job.name,
            "Authorization": f"Bearer {self._issuer.token(job.email, job.audience or job.url)}",
        }
        if slot is not None:
            headers["X-CloudScheduler-ScheduleTime"] = job.schedule_time(slot)
        if job.body:
            headers["Content-Type"] = "application/octet-stream"
        return headers | dict(job.headers)


def latest_slot(job: Job, now: datetime) -> datetime:
    """The slot that `now` belongs to: the latest one reached."""
    return job.slots_before(now, after=datetime.min.replace(tzinfo=UTC), at_most=1)[-1]


def jobs_from(
    topology: Mapping[str, Any],
    urls: Mapping[str, str],
    *,
    email: str = Job.email,
    audiences: Mapping[str, str] | None = None,
) -> list[Job]:
    """The jobs of terraform/topology.json.

    `urls` gives each function's base URL, `audiences` the audience of its tokens (default: the
    job's whole URL). Bodies are static JSON, `{}` where the topology gives none.
    """
    return [
        _job(name, entry, urls[entry["function"]], email, (audiences or {}).get(entry["function"]))
        for name, entry in topology["schedules"].items()
    ]


def _job(
    name: str, entry: Mapping[str, Any], base_url: str, email: str, audience: str | None
) -> Job:
    return Job(
        name=name,
        url=base_url.rstrip("/") + entry.get("path", "/"),
        cron=entry["cron"],
        time_zone=entry.get("timeZone", "Etc/UTC"),
        body=json.dumps(entry.get("body", {})).encode(),
        headers={"Content-Type": "application/json"},
        email=email,
        audience=audience or "",
        attempt_deadline=timedelta(seconds=entry.get("attemptDeadlineSeconds", 180)),
        retry_count=entry.get("retryCount", 0),
    )
