import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.auth.transport.requests import Request
from google.oauth2 import id_token

from tests.sandbox.clock import Clock
from tests.sandbox.identity import Issuer
from tests.sandbox.scheduler import Job, NoAnswerError, Scheduler, jobs_from
from tests.sandbox_itself.target import Got, Reply, Target

TOPOLOGY = Path(__file__).parents[2] / "terraform" / "topology.json"
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
HOURLY = Job("hourly", "", "0 * * * *", body=b"{}")


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


@pytest.fixture
def target() -> Iterator[Target]:
    with Target() as target:
        yield target


@pytest.fixture
def clock() -> Clock:
    """Just after an hour's slot, so that none comes by itself."""
    clock = Clock()
    clock.turn_to(NOON + timedelta(seconds=20))
    return clock


Start = Callable[..., Scheduler]


@pytest.fixture
def start(clock: Clock, issuer: Issuer, target: Target) -> Iterator[Start]:
    started: list[Scheduler] = []

    def starting(*jobs: Job, catch_up: int = 1, automatic: bool = True) -> Scheduler:
        aimed = [replace(job, url=f"{target.url}/{job.name}") for job in jobs]
        scheduler = Scheduler(clock, issuer, aimed, catch_up=catch_up)
        started.append(scheduler)
        return scheduler.start(automatic=automatic)

    yield starting
    for scheduler in started:
        scheduler.stop()


def soon(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def slot_of(got: Got) -> str | None:
    return got.headers.get("x-cloudscheduler-scheduletime")


class TestCron:
    @pytest.mark.parametrize(
        ("cron", "zone", "after", "slot"),
        [
            ("* * * * *", "Etc/UTC", "2026-11-22T12:00:00Z", "2026-11-22T12:01:00Z"),
            ("*/15 * * * *", "Etc/UTC", "2026-11-22T12:14:59Z", "2026-11-22T12:15:00Z"),
            ("0 5 * * *", "America/Los_Angeles", "2026-10-16T00:00:00Z", "2026-10-16T12:00:00Z"),
            ("0 5 * * *", "America/Los_Angeles", "2026-11-22T00:00:00Z", "2026-11-22T13:00:00Z"),
            ("0 9 * * 1", "Europe/Berlin", "2026-11-22T12:00:00Z", "2026-11-23T08:00:00Z"),
            # Berlin skips 2:30 on 29 March 2026: the first instant after the gap.
            ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"),
        ],
    )
    def test_slots_follow_the_jobs_own_zone(self, cron: str, zone: str, after: str, slot: str):
        job = Job("j", "", cron, time_zone=zone)

        assert job.slot_after(datetime.fromisoformat(after)) == datetime.fromisoformat(slot)

    def test_the_latest_slots_up_to_now_oldest_first(self):
        slots = HOURLY.slots_before(NOON, after=NOON - timedelta(days=30), at_most=3)

        assert [slot.hour for slot in slots] == [10, 11, 12]

    def test_no_slot_twice(self):
        assert HOURLY.slots_before(NOON, after=NOON, at_most=3) == []

    @pytest.mark.parametrize(
        ("zone", "text"),
        [
            ("Etc/UTC", "2026-10-16T12:00:00Z"),
            ("America/Los_Angeles", "2026-10-16T05:00:00-07:00"),
        ],
    )
    def test_an_instant_is_spelled_in_the_jobs_zone(self, zone: str, text: str):
        job = replace(HOURLY, time_zone=zone)

        assert job.schedule_time(datetime(2026, 10, 16, 12, 0, tzinfo=UTC)) == text

    @pytest.mark.parametrize("cron", ["every 5 minutes", "* * * *", "0 0 * * * *", "61 * * * *"])
    def test_what_is_no_unix_cron_is_refused(self, cron: str):
        with pytest.raises(Exception, match=r"unix-cron|Bad"):
            Job("j", "", cron)

    def test_retries_wait_5_seconds_doubling_up_to_the_maximum(self):
        job = replace(HOURLY, max_backoff=timedelta(seconds=200))

        waits = [job.backoff(failures).total_seconds() for failures in range(1, 8)]

        assert waits == [5, 10, 20, 40, 80, 160, 200]

    @pytest.mark.parametrize(
        ("retry_count", "max_seconds", "tries", "elapsed", "gives_up"),
        [
            (0, 0, 1, 0, True),
            (2, 0, 2, 99, False),
            (2, 0, 3, 0, True),
            (2, 60, 3, 59, False),
            (2, 60, 3, 60, True),
        ],
    )
    def test_it_gives_up_when_both_limits_are_spent(
        self, retry_count: int, max_seconds: int, tries: int, elapsed: int, gives_up: bool
    ):
        duration = timedelta(seconds=max_seconds)
        job = replace(HOURLY, retry_count=retry_count, max_retry_duration=duration)

        assert job.gives_up(tries, timedelta(seconds=elapsed)) is gives_up


class TestFiring:
    def test_what_a_target_receives(
        self, start: Start, target: Target, clock: Clock, issuer: Issuer
    ):
        scheduler = start(HOURLY)

        clock.turn(timedelta(hours=1))
        assert scheduler.idle()

        (got,) = target.got
        assert (got.method, got.path, got.body) == ("POST", "/hourly", b"{}")
        assert got.headers["user-agent"] == "Google-Cloud-Scheduler"
        assert got.headers["x-cloudscheduler"] == "true"
        assert got.headers["x-cloudscheduler-jobname"] == "hourly"
        assert slot_of(got) == "2026-11-22T13:00:00Z"
        assert got.headers["content-type"] == "application/octet-stream"
        bearer = got.headers["authorization"].removeprefix("Bearer ")
        claims = id_token.verify_token(
            bearer, Request(), f"{target.url}/hourly", certs_url=issuer.certs_url
        )
        assert claims["email"] == HOURLY.email

    def test_a_slot_comes_by_itself(self, start: Start, target: Target, clock: Clock):
        clock.turn_to(NOON + timedelta(minutes=59, seconds=59.7))
        scheduler = start(HOURLY)

        assert soon(lambda: len(scheduler.runs) == 1)

        assert slot_of(target.got[0]) == "2026-11-22T13:00:00Z"
        assert scheduler.runs[0].started_at >= NOON + timedelta(hours=1)

    def test_a_turn_over_many_slots_runs_each_job_once(
        self, start: Start, target: Target, clock: Clock
    ):
        scheduler = start(HOURLY, replace(HOURLY, name="minutely", cron="* * * * *"))

        clock.turn(timedelta(days=40))
        assert scheduler.idle()

        assert sorted((got.path, slot_of(got)) for got in target.got) == [
            ("/hourly", "2027-01-01T12:00:00Z"),
            ("/minutely", "2027-01-01T12:00:00Z"),
        ]

    def test_more_missed_slots_can_be_caught_up_in_order(
        self, start: Start, target: Target, clock: Clock
    ):
        scheduler = start(HOURLY, catch_up=3)

        clock.turn(timedelta(days=1))
        assert scheduler.idle()

        assert [slot_of(got) for got in target.got] == [
            "2026-11-23T10:00:00Z",
            "2026-11-23T11:00:00Z",
            "2026-11-23T12:00:00Z",
        ]

    def test_a_clock_turned_back_meets_its_slots_again(
        self, start: Start, target: Target, clock: Clock
    ):
        scheduler = start(HOURLY)
        clock.turn(timedelta(hours=1))
        assert scheduler.idle()
        clock.turn(timedelta(hours=-1))
        assert scheduler.idle()

        clock.turn(timedelta(hours=1))
        assert scheduler.idle()

        assert [slot_of(got) for got in target.got] == ["2026-11-22T13:00:00Z"] * 2

    def test_a_slot_can_be_repeated_and_skipped(self, start: Start, target: Target, clock: Clock):
        scheduler = start(HOURLY)
        clock.turn(timedelta(hours=1))
        assert scheduler.idle()

        assert scheduler.repeat("hourly").status_code == 200
        scheduler.skip("hourly")
        clock.turn(timedelta(hours=1))
        assert scheduler.idle()
        clock.turn(timedelta(hours=1))
        assert scheduler.idle()

        assert [slot_of(got) for got in target.got] == [
            "2026-11-22T13:00:00Z",
            "2026-11-22T13:00:00Z",
            "2026-11-22T15:00:00Z",
        ]

    def test_fired_by_hand_it_is_the_current_slots_run(self, start: Start, target: Target):
        scheduler = start(HOURLY, automatic=False)

        response = scheduler.fire("hourly")

        assert response.status_code == 200
        assert slot_of(target.got[0]) == "2026-11-22T12:00:00Z"

    def test_a_manual_run_carries_the_coming_slots_time_or_none(self, start: Start, target: Target):
        scheduler = start(HOURLY)

        scheduler.fire("hourly", manual=True)
        scheduler.fire("hourly", manual=True, with_time=False)
        scheduler.fire("hourly", scheduled_at=NOON - timedelta(days=1))

        assert [slot_of(got) for got in target.got] == [
            "2026-11-22T13:00:00Z",
            None,
            "2026-11-21T12:00:00Z",
        ]
        assert [run.manual for run in scheduler.runs] == [True, True, False]

    def test_a_run_by_hand_that_reaches_nobody_is_an_error(self, clock: Clock, issuer: Issuer):
        nowhere = replace(HOURLY, url="http://127.0.0.1:1/")
        with Scheduler(clock, issuer, [nowhere]) as scheduler:
            with pytest.raises(NoAnswerError):
                scheduler.fire("hourly")

            assert [run.status for run in scheduler.runs] == [None]

    def test_a_run_is_cut_off_at_its_deadline(self, start: Start, target: Target, clock: Clock):
        gate = threading.Event()
        target.answer = lambda got: Reply(until=gate)
        scheduler = start(replace(HOURLY, attempt_deadline=timedelta(seconds=0.1)))

        clock.turn(timedelta(hours=1))
        assert scheduler.idle()
        gate.set()

        assert [run.status for run in scheduler.runs] == [504]

    def test_without_retries_a_failed_run_waits_for_its_next_slot(
        self, start: Start, target: Target, clock: Clock
    ):
        target.statuses(500)
        scheduler = start(HOURLY)
        clock.turn(timedelta(hours=1))
        assert scheduler.idle()

        clock.turn(timedelta(minutes=30))
        assert scheduler.idle()

        assert len(target.got) == 1

    def test_retries_keep_the_slots_time_and_follow_the_clock(
        self, start: Start, target: Target, clock: Clock
    ):
        target.statuses(500, 503, 200)
        scheduler = start(replace(HOURLY, retry_count=2))
        clock.turn(timedelta(hours=1))

        for wait in (5, 10, 100):
            assert scheduler.idle()
            clock.turn(timedelta(seconds=wait))
        assert scheduler.idle()

        assert [slot_of(got) for got in target.got] == ["2026-11-22T13:00:00Z"] * 3
        assert [(run.tries, run.status) for run in scheduler.runs] == [(1, 500), (2, 503), (3, 200)]

    def test_a_job_never_runs_twice_at_a_time(self, start: Start, target: Target, clock: Clock):
        open_at_once: list[int] = []

        def answer(got: Got) -> Reply:
            open_at_once.append(len(target.got) - len(scheduler.runs))
            return Reply(after=0.1)

        target.answer = answer
        scheduler = start(HOURLY)
        for _ in range(3):
            clock.turn(timedelta(hours=1))
            time.sleep(0.02)
        assert scheduler.idle()

        assert set(open_at_once) == {1}
        assert slot_of(target.got[-1]) == "2026-11-22T15:00:00Z"

    def test_jobs_do_not_wait_for_each_other(self, start: Start, target: Target, clock: Clock):
        gate = threading.Event()
        target.answer = lambda got: Reply(until=gate if got.path == "/hourly" else None)
        scheduler = start(HOURLY, replace(HOURLY, name="quick"))

        clock.turn(timedelta(hours=1))
        assert soon(lambda: len(scheduler.runs) == 1)
        assert not scheduler.idle(timeout=0.05)
        gate.set()
        assert scheduler.idle()

        assert [run.job for run in scheduler.runs] == ["quick", "hourly"]


class TestTopology:
    def test_the_jobs_are_those_of_the_topology(self):
        topology = json.loads(TOPOLOGY.read_text())
        functions = {entry["function"] for entry in topology["schedules"].values()}
        urls = {name: f"http://{name}.example/" for name in functions}

        jobs = {job.name: job for job in jobs_from(topology, urls, audiences={"maintain": "aud"})}

        assert set(jobs) == set(topology["schedules"])
        sweep = topology["schedules"]["sweep"]
        assert jobs["sweep"].url == f"http://{sweep['function']}.example{sweep['path']}"
        assert jobs["sweep"].cron == sweep["cron"]
        assert jobs["sweep"].audience == "aud"
        assert jobs["sweep"].body == b"{}"
        assert jobs["sweep"].attempt_deadline == timedelta(seconds=sweep["attemptDeadlineSeconds"])
        assert jobs["sweep"].retry_count == sweep["retryCount"]


def test_it_stops_at_once_and_leaves_no_thread(clock: Clock, issuer: Issuer, target: Target):
    gate = threading.Event()
    target.answer = lambda got: Reply(until=gate)
    others = set(threading.enumerate())
    scheduler = Scheduler(clock, issuer, [replace(HOURLY, url=target.url)]).start()
    clock.turn(timedelta(hours=1))
    assert soon(lambda: len(target.got) == 1)

    started = time.monotonic()
    scheduler.stop()

    assert time.monotonic() - started < 2
    gate.set()
    left = set(threading.enumerate()) - others
    assert "sandbox-scheduler" not in {thread.name for thread in left}
