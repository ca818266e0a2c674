"""The server through Google's own client, and its requests at a real HTTP server."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.api_core import exceptions
from google.auth.transport.requests import Request
from google.cloud import tasks_v2
from google.oauth2 import id_token
from google.protobuf import duration_pb2, field_mask_pb2, timestamp_pb2

from tests.sandbox.clock import Clock
from tests.sandbox.cloud_tasks.engine import Settings
from tests.sandbox.cloud_tasks.server import CloudTasksServer, client
from tests.sandbox.cloud_tasks.values import HttpRequest, OidcToken
from tests.sandbox.identity import Issuer
from tests.sandbox_itself.target import Got, Reply, Target

LOCATION = "projects/demo/locations/europe-west1"
QUEUE = f"{LOCATION}/queues/publish"
SERVICE_ACCOUNT = "tasks@demo.iam.gserviceaccount.com"
FULL = tasks_v2.Task.View.FULL

NO_QUEUE = (
    "Queue does not exist. If you just created the queue, wait at least a minute for the queue"
    " to initialize."
)
NO_ENTITY = "Requested entity was not found."
NO_LONGER = (
    "The task no longer exists, though a task with this name existed recently. The task either"
    " successfully completed or was deleted."
)

Client = tasks_v2.CloudTasksClient


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def shared_clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def shared_server(shared_clock: Clock, issuer: Issuer) -> Iterator[CloudTasksServer]:
    with CloudTasksServer(shared_clock, issuer) as server:
        yield server


@pytest.fixture(scope="module")
def tasks(shared_server: CloudTasksServer) -> Client:
    made = client(shared_server.address)
    made.create_queue(
        parent=LOCATION,
        queue={
            "name": QUEUE,
            "retry_config": {
                "min_backoff": duration_pb2.Duration(seconds=5),
                "max_backoff": duration_pb2.Duration(seconds=60),
                "max_doublings": 4,
                "max_attempts": 12,
            },
        },
    )
    return made


@pytest.fixture
def clock(shared_clock: Clock) -> Iterator[Clock]:
    yield shared_clock
    shared_clock.reset()


@pytest.fixture
def server(shared_server: CloudTasksServer, tasks: Client, clock: Clock) -> CloudTasksServer:
    shared_server.reset()
    return shared_server


@pytest.fixture(scope="module")
def shared_target() -> Iterator[Target]:
    with Target() as target:
        yield target


@pytest.fixture
def target(shared_target: Target) -> Target:
    shared_target.clear()
    return shared_target


def task_name(task_id: str) -> str:
    return f"{QUEUE}/tasks/{task_id}"


def task_for(target: Target | None, task_id: str = "", **fields: Any) -> dict[str, Any]:
    """A task for `target`; for None, one that will never be sent."""
    url = f"{target.url}/publish?x=1" if target else "http://127.0.0.1:1/"
    if target is None:
        fields.setdefault("schedule_time", datetime.now(UTC) + timedelta(days=1))
    http_request = {"url": url, "body": b'{"a": 1}'} | fields.pop("http_request", {})
    named = {"name": task_name(task_id)} if task_id else {}
    return {"http_request": http_request, **named, **fields}


def header(got: Got, name: str) -> str | None:
    return got.headers.get(f"x-cloudtasks-{name}".lower())


def raises(error: type[Exception], message: str) -> Any:
    class Exactly:
        def __init__(self) -> None:
            self.context = pytest.raises(error)

        def __enter__(self) -> None:
            self.caught = self.context.__enter__()

        def __exit__(self, *details: Any) -> bool:
            handled = bool(self.context.__exit__(*details))
            assert self.caught.value.message == message
            return handled

    return Exactly()


def soon(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


class Meeting(Target):
    """Answers nobody until `of` requests are there."""

    def __init__(self, of: int) -> None:
        super().__init__()
        self._barrier = threading.Barrier(of)

    def take(self, got: Got) -> Reply:
        self._barrier.wait(timeout=5)
        return super().take(got)


class Crowd(Target):
    """Takes its time, and counts how many requests were there at once."""

    def __init__(self) -> None:
        super().__init__(lambda got: Reply(after=0.05))
        self._counting = threading.Lock()
        self._here = 0
        self.most_at_once = 0

    def take(self, got: Got) -> Reply:
        with self._counting:
            self._here += 1
            self.most_at_once = max(self.most_at_once, self._here)
        reply = super().take(got)
        with self._counting:
            self._here -= 1
        return reply


class TestQueues:
    def test_a_new_queue_shows_its_defaults(self, server: CloudTasksServer, tasks: Client):
        name = f"{LOCATION}/queues/defaults"
        tasks.create_queue(parent=LOCATION, queue={"name": name})

        queue = tasks.get_queue(name=name)

        assert queue.state == tasks_v2.Queue.State.RUNNING
        assert queue.rate_limits.max_dispatches_per_second == 500
        assert queue.rate_limits.max_concurrent_dispatches == 1000
        assert queue.rate_limits.max_burst_size == 100
        assert queue.retry_config.max_attempts == 100
        assert queue.retry_config.max_doublings == 16
        assert queue.retry_config.min_backoff == timedelta(seconds=0.1)
        assert queue.retry_config.max_backoff == timedelta(hours=1)
        tasks.delete_queue(name=name)

    def test_a_mask_says_what_an_update_changes(self, server: CloudTasksServer, tasks: Client):
        name = f"{LOCATION}/queues/updated"
        rate = {"max_dispatches_per_second": 3, "max_concurrent_dispatches": 4}
        tasks.create_queue(parent=LOCATION, queue={"name": name, "rate_limits": rate})
        mask = field_mask_pb2.FieldMask(
            paths=["rate_limits.max_dispatches_per_second", "retry_config.max_attempts"]
        )

        tasks.update_queue(
            queue={
                "name": name,
                "rate_limits": {"max_dispatches_per_second": 7, "max_concurrent_dispatches": 9},
                "retry_config": {"max_attempts": -1, "max_doublings": 2},
            },
            update_mask=mask,
        )

        queue = tasks.get_queue(name=name)
        assert queue.rate_limits.max_dispatches_per_second == 7
        assert queue.rate_limits.max_concurrent_dispatches == 4
        assert queue.retry_config.max_attempts == -1
        assert queue.retry_config.max_doublings == 16
        tasks.delete_queue(name=name)

    def test_without_a_mask_everything_is_replaced(self, server: CloudTasksServer, tasks: Client):
        name = f"{LOCATION}/queues/replaced"
        tasks.create_queue(
            parent=LOCATION, queue={"name": name, "rate_limits": {"max_concurrent_dispatches": 4}}
        )

        queue = tasks.update_queue(queue={"name": name, "retry_config": {"max_attempts": 2}})

        assert queue.rate_limits.max_concurrent_dispatches == 1000
        assert queue.retry_config.max_attempts == 2
        tasks.delete_queue(name=name)

    def test_pause_purge_and_resume(self, server: CloudTasksServer, tasks: Client, target: Target):
        assert tasks.pause_queue(name=QUEUE).state == tasks_v2.Queue.State.PAUSED
        tasks.create_task(parent=QUEUE, task=task_for(target, "purged"))
        assert tasks.purge_queue(name=QUEUE).purge_time

        tasks.create_task(parent=QUEUE, task=task_for(target, "kept"))
        assert server.idle()
        assert target.got == []
        assert tasks.resume_queue(name=QUEUE).state == tasks_v2.Queue.State.RUNNING

        assert server.idle()
        assert [attempt.task for attempt in server.attempts] == ["kept"]

    def test_queues_are_listed_in_pages(self, server: CloudTasksServer, tasks: Client):
        parent = "projects/demo/locations/us-east1"
        for letter in "cab":
            tasks.create_queue(parent=parent, queue={"name": f"{parent}/queues/{letter}"})

        pager = tasks.list_queues(request={"parent": parent, "page_size": 2})
        pages = [[queue.name[-1] for queue in page.queues] for page in pager.pages]

        assert pages == [["a", "b"], ["c"]]

    def test_errors_of_queues(self, server: CloudTasksServer, tasks: Client):
        gone = f"{LOCATION}/queues/gone"
        tasks.create_queue(parent=LOCATION, queue={"name": gone})
        tasks.delete_queue(name=gone)

        with raises(exceptions.AlreadyExists, "Queue already exists"):
            tasks.create_queue(parent=LOCATION, queue={"name": QUEUE})
        with raises(
            exceptions.FailedPrecondition,
            "The queue cannot be created because a queue with this name existed too recently.",
        ):
            tasks.create_queue(parent=LOCATION, queue={"name": gone})
        with raises(
            exceptions.InvalidArgument,
            'Queue name must be formatted: "projects/<PROJECT_ID>/locations/<LOCATION_ID>'
            '/queues/<QUEUE_ID>".',
        ):
            tasks.create_queue(parent=LOCATION, queue={"name": "not-a-valid-queue-name"})
        with raises(
            exceptions.PermissionDenied, "Permission denied on resource project not-a-parent."
        ):
            tasks.create_queue(parent="not-a-parent", queue={"name": QUEUE})
        for call in (tasks.get_queue, tasks.pause_queue, tasks.resume_queue, tasks.purge_queue):
            with raises(exceptions.NotFound, NO_QUEUE):
                call(name=gone)
        with raises(exceptions.NotFound, NO_ENTITY):
            tasks.delete_queue(name=gone)

    @pytest.mark.parametrize(
        "call",
        [
            lambda made: made.get_iam_policy(request={"resource": QUEUE}),
            lambda made: made.batch_create_tasks(request={"parent": QUEUE}),
            lambda made: made.batch_delete_tasks(request={"parent": QUEUE}),
            lambda made: made.get_cmek_config(name=f"{LOCATION}/cmekConfig"),
        ],
    )
    def test_other_methods_are_not_implemented(
        self, server: CloudTasksServer, tasks: Client, call: Callable[[Client], object]
    ):
        with pytest.raises(exceptions.MethodNotImplemented):
            call(tasks)


class TestTasks:
    def test_a_task_comes_back_as_the_service_keeps_it(
        self, server: CloudTasksServer, tasks: Client, clock: Clock
    ):
        at = clock.now() + timedelta(hours=2)
        created = tasks.create_task(
            parent=QUEUE,
            task=task_for(
                None,
                "t",
                schedule_time=at,
                http_request={
                    "headers": {"X-Mixed-Case": "kept", "Host": "elsewhere"},
                    "oidc_token": {"service_account_email": SERVICE_ACCOUNT},
                },
            ),
        )

        task = tasks.get_task(request={"name": created.name, "response_view": FULL})

        assert created.view == tasks_v2.Task.View.BASIC
        assert created.http_request.body == b""
        assert task.http_request.body == b'{"a": 1}'
        assert task.http_request.http_method == tasks_v2.HttpMethod.POST
        assert dict(task.http_request.headers) == {
            "X-Mixed-Case": "kept",
            "User-Agent": "Google-Cloud-Tasks",
        }
        assert dict(created.http_request.headers) == dict(task.http_request.headers)
        assert task.create_time.microsecond == 0
        assert task.schedule_time == at
        assert task.dispatch_deadline == timedelta(minutes=10)
        assert (task.dispatch_count, task.response_count) == (0, 0)
        assert "first_attempt" not in task
        assert "last_attempt" not in task

    def test_output_only_fields_cannot_be_set(self, server: CloudTasksServer, tasks: Client):
        task = task_for(None, dispatch_count=5, create_time=timestamp_pb2.Timestamp(seconds=1))

        created = tasks.create_task(parent=QUEUE, task=task)

        assert created.dispatch_count == 0
        assert created.create_time.year > 2000

    def test_tasks_are_listed_in_pages_without_bodies(
        self, server: CloudTasksServer, tasks: Client
    ):
        for letter in "edcba":
            tasks.create_task(parent=QUEUE, task=task_for(None, letter))

        pager = tasks.list_tasks(request={"parent": QUEUE, "page_size": 2})
        pages = [[task.name[-1] for task in page.tasks] for page in pager.pages]

        assert pages == [["a", "b"], ["c", "d"], ["e"]]
        assert {task.http_request.body for task in tasks.list_tasks(parent=QUEUE)} == {b""}

    def test_errors_of_tasks(self, server: CloudTasksServer, tasks: Client):
        missing = f"{LOCATION}/queues/missing"
        tasks.create_task(parent=QUEUE, task=task_for(None, "taken"))
        tasks.create_task(parent=QUEUE, task=task_for(None, "spent"))
        tasks.delete_task(name=task_name("spent"))

        for task_id in ("taken", "spent"):
            with raises(exceptions.AlreadyExists, "Requested entity already exists"):
                tasks.create_task(parent=QUEUE, task=task_for(None, task_id))
        with raises(exceptions.NotFound, NO_LONGER):
            tasks.get_task(name=task_name("spent"))
        for call in (tasks.get_task, tasks.delete_task, tasks.run_task):
            with raises(exceptions.NotFound, NO_ENTITY):
                call(name=task_name("never"))
        with raises(exceptions.NotFound, NO_QUEUE):
            tasks.create_task(parent=missing, task=task_for(None))
        with raises(
            exceptions.InvalidArgument,
            f"The queue name from request ('{QUEUE}') must be the same as the queue name in the"
            f" named task ('{missing}').",
        ):
            tasks.create_task(parent=QUEUE, task=task_for(None) | {"name": f"{missing}/tasks/a"})
        with raises(
            exceptions.InvalidArgument,
            'Task ID "not a valid id" can contain only letters ([A-Za-z]), numbers ([0-9]),'
            " hyphens (-), or underscores (_). Task ID must between 1 and 500 characters.",
        ):
            tasks.create_task(parent=QUEUE, task=task_for(None, "not a valid id"))

    def test_errors_of_a_tasks_fields(self, server: CloudTasksServer, tasks: Client):
        def create(**fields: Any) -> None:
            tasks.create_task(parent=QUEUE, task=task_for(None, **fields))

        with raises(exceptions.InvalidArgument, "HttpRequest.url is required."):
            create(http_request={"url": ""})
        with raises(
            exceptions.InvalidArgument, "HttpTarget.url must start with 'http://' or 'https://'."
        ):
            create(http_request={"url": "example.com/path"})
        with raises(
            exceptions.InvalidArgument, "Task.dispatchDeadline must be between [15s, 30m]."
        ):
            create(dispatch_deadline=timedelta(seconds=3600))
        with raises(exceptions.InvalidArgument, "Task size too large"):
            create(http_request={"body": b"x" * 110_000})
        with raises(
            exceptions.InvalidArgument,
            "The Task.scheduleTime, 2099-12-31T16:00:00-08:00, is too far in the future."
            " Schedule time must be no more than 720h in the future.",
        ):
            create(schedule_time=datetime(2100, 1, 1, tzinfo=UTC))

    def test_app_engine_tasks_and_oauth_are_not_played(
        self, server: CloudTasksServer, tasks: Client
    ):
        oauth = {"oauth_token": {"service_account_email": SERVICE_ACCOUNT}}

        with pytest.raises(exceptions.MethodNotImplemented):
            tasks.create_task(parent=QUEUE, task={"app_engine_http_request": {"relative_uri": "/"}})
        with pytest.raises(exceptions.MethodNotImplemented):
            tasks.create_task(parent=QUEUE, task=task_for(None, http_request=oauth))

    def test_the_horizon_follows_the_clock(
        self, server: CloudTasksServer, tasks: Client, clock: Clock
    ):
        at = clock.now() + timedelta(days=40)
        with pytest.raises(exceptions.InvalidArgument):
            tasks.create_task(parent=QUEUE, task=task_for(None, schedule_time=at))

        clock.turn(timedelta(days=11))

        assert tasks.create_task(parent=QUEUE, task=task_for(None, schedule_time=at)).name

    def test_a_thousand_tasks_from_eight_threads_take_a_few_seconds(
        self, server: CloudTasksServer, tasks: Client
    ):
        def create_some() -> None:
            for _ in range(125):
                tasks.create_task(parent=QUEUE, task=task_for(None))

        started = time.monotonic()
        threads = [threading.Thread(target=create_some) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(server.tasks("publish")) == 1000
        assert time.monotonic() - started < 10


class TestDispatching:
    def test_what_a_target_receives(
        self, server: CloudTasksServer, tasks: Client, target: Target, clock: Clock
    ):
        before = clock.now()
        tasks.create_task(
            parent=QUEUE,
            task=task_for(
                target, "t", http_request={"headers": {"Content-Type": "application/json"}}
            ),
        )
        assert server.idle()

        (got,) = target.got
        assert (got.method, got.path, got.body) == ("POST", "/publish?x=1", b'{"a": 1}')
        assert got.headers["user-agent"] == "Google-Cloud-Tasks"
        assert got.headers["content-type"] == "application/json"
        assert header(got, "QueueName") == "publish"
        assert header(got, "TaskName") == "t"
        assert header(got, "TaskRetryCount") == "0"
        assert header(got, "TaskExecutionCount") == "0"
        assert abs(float(header(got, "TaskETA") or 0) - before.timestamp()) < 5
        assert header(got, "TaskPreviousResponse") is None
        assert header(got, "TaskRetryReason") is None
        assert "authorization" not in got.headers
        with pytest.raises(exceptions.NotFound):
            tasks.get_task(name=task_name("t"))

    def test_no_content_type_is_made_up(
        self, server: CloudTasksServer, tasks: Client, target: Target
    ):
        tasks.create_task(parent=QUEUE, task=task_for(target))
        assert server.idle()

        assert "content-type" not in target.got[0].headers

    @pytest.mark.parametrize("audience", ["", "https://publish-post.example"])
    def test_the_oidc_token_is_good_for_googles_verifier(
        self,
        server: CloudTasksServer,
        tasks: Client,
        target: Target,
        issuer: Issuer,
        audience: str,
    ):
        token = {"service_account_email": SERVICE_ACCOUNT, "audience": audience}
        tasks.create_task(parent=QUEUE, task=task_for(target, http_request={"oidc_token": token}))
        assert server.idle()

        bearer = target.got[0].headers["authorization"].removeprefix("Bearer ")
        claims = id_token.verify_token(
            bearer, Request(), audience or f"{target.url}/publish?x=1", certs_url=issuer.certs_url
        )
        assert claims["email"] == SERVICE_ACCOUNT
        assert claims["iss"] == "https://accounts.google.com"

    def test_the_recorded_sequence_of_retries_on_a_turned_clock(
        self, server: CloudTasksServer, tasks: Client, target: Target, clock: Clock
    ):
        target.statuses(503, 404, 429, 500, 302, 200)
        tasks.create_task(parent=QUEUE, task=task_for(target, "t"))

        for wait in (5, 10, 20, 40, 60):
            assert server.idle()
            sent = len(target.got)
            clock.turn(timedelta(seconds=wait - 2))
            assert server.idle()
            assert len(target.got) == sent
            clock.turn(timedelta(seconds=2))
        assert server.idle()

        names = ("TaskRetryCount", "TaskExecutionCount", "TaskPreviousResponse", "TaskRetryReason")
        assert [tuple(header(got, name) for name in names) for got in target.got] == [
            ("0", "0", None, None),
            ("1", "0", "503", ""),
            ("2", "1", "404", ""),
            ("3", "2", "429", ""),
            ("4", "2", "500", ""),
            ("5", "3", "302", ""),
        ]
        assert server.tasks("publish") == []

    def test_a_redirect_is_not_followed(
        self, server: CloudTasksServer, tasks: Client, target: Target
    ):
        target.answer = lambda got: Reply(302, {"Location": f"{target.url}/elsewhere"})
        tasks.create_task(parent=QUEUE, task=task_for(target))
        assert server.idle()

        assert [got.path for got in target.got] == ["/publish?x=1"]
        assert server.attempts[0].status == 302

    def test_a_target_that_is_not_there_counts_as_an_attempt(
        self, server: CloudTasksServer, tasks: Client
    ):
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{reserved.getsockname()[1]}/"
            tasks.create_task(
                parent=QUEUE, task={"name": task_name("t"), "http_request": {"url": url}}
            )
            assert server.idle()

        task = tasks.get_task(name=task_name("t"))
        assert server.attempts[0].status is None
        assert (task.dispatch_count, task.response_count) == (1, 0)
        assert task.last_attempt.response_status.code == 14

    def test_a_passed_deadline_is_real_time_and_shows_as_504(
        self, server: CloudTasksServer, tasks: Client, target: Target, clock: Clock
    ):
        gate = threading.Event()
        answers = [Reply(until=gate), Reply()]
        target.answer = lambda got: answers.pop(0)
        server.longest_wait = timedelta(seconds=0.1)
        tasks.create_task(parent=QUEUE, task=task_for(target, "t"))
        assert server.idle()
        server.longest_wait = None
        gate.set()

        clock.turn(timedelta(seconds=5))
        assert server.idle()

        first, second = server.attempts
        assert (first.status, second.status) == (504, 200)
        assert first.ended_at - first.started_at >= timedelta(seconds=0.1)
        assert second.headers["X-CloudTasks-TaskPreviousResponse"] == "504"
        assert second.headers["X-CloudTasks-TaskExecutionCount"] == "0"

    def test_a_task_waits_for_its_time_and_a_turn_wakes_it_at_once(
        self, server: CloudTasksServer, tasks: Client, target: Target, clock: Clock
    ):
        at = clock.now() + timedelta(days=29)
        tasks.create_task(parent=QUEUE, task=task_for(target, schedule_time=at))
        assert server.idle()
        assert target.got == []

        started = time.monotonic()
        clock.turn_to(at)
        assert server.idle()

        assert len(target.got) == 1
        assert time.monotonic() - started < 3
        assert server.attempts[0].dispatched_at >= at

    def test_a_task_due_soon_is_sent_without_a_turn(
        self, server: CloudTasksServer, tasks: Client, target: Target, clock: Clock
    ):
        at = clock.now() + timedelta(seconds=0.2)
        tasks.create_task(parent=QUEUE, task=task_for(target, schedule_time=at))

        assert soon(lambda: len(target.got) == 1)

        late = server.attempts[0].dispatched_at - at if server.idle() else timedelta.max
        assert timedelta(0) <= late < timedelta(seconds=2)

    def test_run_task_sends_at_once_whatever_the_time_and_the_pause(
        self, server: CloudTasksServer, tasks: Client, target: Target
    ):
        tasks.pause_queue(name=QUEUE)
        in_a_day = datetime.now(UTC) + timedelta(days=1)
        tasks.create_task(parent=QUEUE, task=task_for(target, "t", schedule_time=in_a_day))

        task = tasks.run_task(name=task_name("t"))
        assert server.idle()

        assert task.dispatch_count == 1
        assert len(target.got) == 1
        with raises(exceptions.NotFound, NO_LONGER):
            tasks.run_task(name=task_name("t"))

    def test_the_api_tells_of_attempts(
        self, server: CloudTasksServer, tasks: Client, target: Target
    ):
        target.statuses(404)
        tasks.create_task(parent=QUEUE, task=task_for(target, "t"))
        assert server.idle()

        task = tasks.get_task(name=task_name("t"))

        assert (task.dispatch_count, task.response_count) == (1, 1)
        assert "schedule_time" not in task.first_attempt
        assert task.first_attempt.dispatch_time == task.last_attempt.dispatch_time
        assert task.last_attempt.response_time >= task.last_attempt.dispatch_time
        assert task.last_attempt.response_status.code == 5
        assert task.last_attempt.response_status.message == "NOT_FOUND(5): HTTP status code 404"

    def test_a_deleted_task_is_not_sent(
        self, server: CloudTasksServer, tasks: Client, target: Target, clock: Clock
    ):
        at = clock.now() + timedelta(hours=1)
        tasks.create_task(parent=QUEUE, task=task_for(target, "t", schedule_time=at))
        tasks.delete_task(name=task_name("t"))

        clock.turn_to(at + timedelta(hours=1))
        assert server.idle()

        assert target.got == []

    def test_a_tasks_own_retry_config_counts(
        self, server: CloudTasksServer, tasks: Client, target: Target
    ):
        target.statuses(500)
        task = task_for(target, "t", retry_config={"max_attempts": 1})
        created = tasks.create_task(parent=QUEUE, task=task)
        assert server.idle()

        assert created.retry_config.max_attempts == 1
        assert len(target.got) == 1
        assert server.tasks("publish") == []

    def test_concurrency_is_capped(self, server: CloudTasksServer, tasks: Client):
        name = f"{LOCATION}/queues/narrow"
        tasks.create_queue(
            parent=LOCATION, queue={"name": name, "rate_limits": {"max_concurrent_dispatches": 2}}
        )

        with Crowd() as target:
            for _ in range(6):
                tasks.create_task(parent=name, task=task_for(target))
            assert server.idle()

        assert len(target.got) == 6
        assert target.most_at_once == 2
        tasks.delete_queue(name=name)


class TestFaults:
    def test_a_lost_reply_is_unavailable_to_the_caller_and_the_task_runs(
        self, server: CloudTasksServer, tasks: Client, target: Target
    ):
        server.faults.lose_reply()

        with pytest.raises(exceptions.ServiceUnavailable):
            tasks.create_task(parent=QUEUE, task=task_for(target, "t"))
        assert server.idle()

        assert len(target.got) == 1

    def test_refused_creations(self, server: CloudTasksServer, tasks: Client, target: Target):
        fault = server.faults.refuse(times=1)

        with pytest.raises(exceptions.ServiceUnavailable):
            tasks.create_task(parent=QUEUE, task=task_for(target, "t"))
        tasks.create_task(parent=QUEUE, task=task_for(target, "t"))
        assert server.idle()

        assert fault.used == 1
        assert len(target.got) == 1

    def test_two_deliveries_meet_at_the_target(self, server: CloudTasksServer, tasks: Client):
        with Meeting(of=2) as target:
            server.faults.deliver_twice(at_once=True)
            tasks.create_task(parent=QUEUE, task=task_for(target, "t"))
            assert server.idle()

        assert [attempt.status for attempt in server.attempts] == [200, 200]
        assert sorted(attempt.copy for attempt in server.attempts) == [False, True]

    def test_a_second_delivery_after_success(
        self, server: CloudTasksServer, tasks: Client, target: Target
    ):
        server.faults.deliver_twice()
        tasks.create_task(parent=QUEUE, task=task_for(target, "t"))
        assert server.idle()

        assert [header(got, "TaskName") for got in target.got] == ["t", "t"]
        assert [header(got, "TaskRetryCount") for got in target.got] == ["0", "0"]

    def test_a_late_delivery_follows_the_clock(
        self, server: CloudTasksServer, tasks: Client, target: Target, clock: Clock
    ):
        server.faults.deliver_late(timedelta(hours=3))
        tasks.create_task(parent=QUEUE, task=task_for(target, "t"))
        assert server.idle()
        assert target.got == []

        clock.turn(timedelta(hours=3))
        assert server.idle()

        assert len(target.got) == 1

    def test_a_finished_task_can_be_delivered_again(
        self, server: CloudTasksServer, tasks: Client, target: Target, issuer: Issuer
    ):
        token = {"service_account_email": SERVICE_ACCOUNT, "audience": "https://a.example"}
        task = task_for(target, "t", http_request={"oidc_token": token})
        tasks.create_task(parent=QUEUE, task=task)
        assert server.idle()

        attempt = server.deliver("t")

        first, second = target.got
        assert attempt.copy
        assert attempt.status == 200
        assert (first.body, first.path) == (second.body, second.path)
        assert header(second, "TaskName") == "t"
        bearer = second.headers["authorization"].removeprefix("Bearer ")
        assert id_token.verify_token(
            bearer, Request(), "https://a.example", certs_url=issuer.certs_url
        )

    def test_a_waiting_task_can_be_delivered_early_and_stays(
        self, server: CloudTasksServer, tasks: Client, target: Target
    ):
        in_a_day = datetime.now(UTC) + timedelta(days=1)
        tasks.create_task(parent=QUEUE, task=task_for(target, "t", schedule_time=in_a_day))

        server.deliver("t")

        assert header(target.got[0], "TaskRetryCount") == "0"
        assert [task.dispatch_count for task in server.tasks("publish")] == [0]

    def test_a_made_up_request_can_be_delivered(self, server: CloudTasksServer, target: Target):
        request = HttpRequest(
            f"{target.url}/x",
            headers={"X-CloudTasks-TaskName": "made-up"},
            body=b"{}",
            oidc=OidcToken(SERVICE_ACCOUNT),
        )

        attempt = server.deliver(request)

        assert attempt.status == 200
        assert header(target.got[0], "TaskName") == "made-up"
        assert target.got[0].headers["authorization"].startswith("Bearer ")

    def test_an_unknown_task_cannot_be_delivered(self, server: CloudTasksServer):
        with pytest.raises(KeyError):
            server.deliver("never")


class TestLife:
    def test_listeners_hear_of_every_attempt(
        self, server: CloudTasksServer, tasks: Client, target: Target
    ):
        heard = []
        server.on_attempt(heard.append)
        server.on_attempt(lambda attempt: 1 / 0)  # must not hurt anyone
        tasks.create_task(parent=QUEUE, task=task_for(target, "t"))
        assert server.idle()

        assert heard == server.attempts
        assert heard[0].url == f"{target.url}/publish?x=1"
        assert heard[0].started_at <= heard[0].ended_at

    def test_idle_says_when_it_took_too_long(
        self, server: CloudTasksServer, tasks: Client, target: Target
    ):
        gate = threading.Event()
        target.answer = lambda got: Reply(until=gate)
        tasks.create_task(parent=QUEUE, task=task_for(target))

        assert not server.idle(timeout=0.05)
        gate.set()
        assert server.idle()

    def test_a_reset_forgets_tasks_names_attempts_and_faults(
        self, server: CloudTasksServer, tasks: Client, target: Target
    ):
        gate = threading.Event()
        target.answer = lambda got: Reply(until=gate)
        tasks.create_task(parent=QUEUE, task=task_for(target, "t"))
        tasks.create_task(parent=QUEUE, task=task_for(None, "waiting"))
        server.faults.refuse(times=None)
        assert soon(lambda: len(target.got) == 1)

        server.reset()
        gate.set()

        assert server.idle(timeout=1)
        assert server.attempts == []
        assert server.tasks("publish") == []
        target.clear()
        tasks.create_task(parent=QUEUE, task=task_for(target, "t"))
        assert server.idle()
        assert len(server.attempts) == 1

    def test_it_stops_at_once_with_requests_in_flight_and_leaves_nothing(self, issuer: Issuer):
        clock = Clock()
        with Target(lambda got: Reply(after=3)) as target:
            before = set(threading.enumerate())
            server = CloudTasksServer(clock, issuer, settings=Settings()).start()
            host, _, port = server.address.partition(":")
            tasks = client(server.address)
            tasks.create_queue(parent=LOCATION, queue={"name": QUEUE})
            for _ in range(3):
                tasks.create_task(parent=QUEUE, task=task_for(target))
            assert soon(lambda: len(target.got) == 3)

            started = time.monotonic()
            server.stop()

            assert time.monotonic() - started < 2
            left = {thread.name for thread in set(threading.enumerate()) - before}
            assert not [name for name in left if name.startswith("sandbox-cloud-tasks")]
            with socket.socket() as probe:
                assert probe.connect_ex((host, int(port))) != 0
            clock.turn(timedelta(days=1))  # nobody listens any more

    def test_it_can_be_started_again(self, issuer: Issuer, target: Target):
        server = CloudTasksServer(Clock(), issuer)
        server.start()
        client(server.address).create_queue(parent=LOCATION, queue={"name": QUEUE})
        server.stop()

        with server:
            client(server.address).create_task(parent=QUEUE, task=task_for(target))
            assert server.idle()

        assert len(target.got) == 1
