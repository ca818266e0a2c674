"""The engine against what is documented of, or recorded from, the real service."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.sandbox.cloud_tasks.engine import Engine, Settings
from tests.sandbox.cloud_tasks.retries import backoff, exhausted
from tests.sandbox.cloud_tasks.values import (
    Dispatch,
    Draft,
    HttpRequest,
    Outcome,
    Queue,
    RateLimits,
    RefusalError,
    RetryConfig,
    Task,
)

NOW = datetime(2026, 11, 22, 12, 0, 0, 250_000, tzinfo=UTC)
LOCATION = "projects/demo/locations/europe-west1"
QUEUE = f"{LOCATION}/queues/publish"
URL = "https://publish.example/api/jobs/publish-post"
SLOW = RetryConfig(min_backoff=timedelta(seconds=10), max_backoff=timedelta(seconds=300))

NO_QUEUE = (
    "Queue does not exist. If you just created the queue, wait at least a minute for the queue"
    " to initialize."
)
NO_ENTITY = "Requested entity was not found."
NO_LONGER = (
    "The task no longer exists, though a task with this name existed recently. The task either"
    " successfully completed or was deleted."
)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def engine(
    *, rate: RateLimits | None = None, retry: RetryConfig = SLOW, settings: Settings | None = None
) -> Engine:
    made = Engine(settings)
    made.create_queue(LOCATION, Queue(QUEUE, rate=rate or RateLimits(), retry=retry), now=NOW)
    return made


def draft(task_id: str = "", **fields: object) -> Draft:
    name = f"{QUEUE}/tasks/{task_id}" if task_id else ""
    return Draft(**({"request": HttpRequest(URL), "name": name} | fields))  # type: ignore[arg-type]


def create(made: Engine, task_id: str = "", *, now: datetime = NOW, **fields: object) -> Task:
    return made.create_task(QUEUE, draft(task_id, **fields), now=now)


def answer(made: Engine, dispatch: Dispatch, status: int | None, now: datetime) -> None:
    outcome = Outcome(status, answered=status is not None)
    made.settle(dispatch, outcome, now=now)


def due_ids(made: Engine, now: datetime) -> list[str]:
    return [dispatch.task_id for dispatch in made.due(now)]


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(RefusalError) as caught:
        call()
    return caught.value.code, caught.value.message


class TestNames:
    @pytest.mark.parametrize("task_id", ["a", "A-z_0-9", "x" * 500])
    def test_ids_of_letters_digits_hyphens_and_underscores_are_good(self, task_id: str):
        assert create(engine(), task_id).name == f"{QUEUE}/tasks/{task_id}"

    @pytest.mark.parametrize("task_id", ["not a valid id", "x" * 501, "ä", "a.b", "a/b"])
    def test_any_other_id_is_refused_by_name(self, task_id: str):
        assert refusal(lambda: create(engine(), task_id)) == (
            "INVALID_ARGUMENT",
            f'Task ID "{task_id}" can contain only letters ([A-Za-z]), numbers ([0-9]), hyphens'
            " (-), or underscores (_). Task ID must between 1 and 500 characters.",
        )

    def test_a_task_named_into_another_queue_is_refused(self):
        other = replace(draft(), name=f"{QUEUE}-other/tasks/a")

        assert refusal(lambda: engine().create_task(QUEUE, other, now=NOW)) == (
            "INVALID_ARGUMENT",
            f"The queue name from request ('{QUEUE}') must be the same as the queue name in the"
            f" named task ('{QUEUE}-other').",
        )

    def test_a_name_that_is_no_task_name_is_refused(self):
        bare = replace(draft(), name="just-an-id")

        code, message = refusal(lambda: engine().create_task(QUEUE, bare, now=NOW))

        assert code == "INVALID_ARGUMENT"
        assert message.startswith("Task name must be formatted:")

    def test_an_unnamed_task_gets_a_number(self):
        made = engine()

        assert create(made).id.isdigit()
        assert create(made).id != create(made).id

    @pytest.mark.parametrize("queue_id", ["a b", "under_score", "x" * 101])
    def test_a_bad_queue_name_is_refused(self, queue_id: str):
        queue = Queue(f"{LOCATION}/queues/{queue_id}")

        assert refusal(lambda: Engine().create_queue(LOCATION, queue, now=NOW)) == (
            "INVALID_ARGUMENT",
            'Queue name must be formatted: "projects/<PROJECT_ID>/locations/<LOCATION_ID>'
            '/queues/<QUEUE_ID>".',
        )

    def test_a_malformed_parent_is_read_as_a_foreign_project(self):
        assert refusal(lambda: Engine().create_queue("nowhere", Queue(QUEUE), now=NOW)) == (
            "PERMISSION_DENIED",
            "Permission denied on resource project nowhere.",
        )

    def test_a_queue_outside_its_parent_is_refused(self):
        elsewhere = "projects/demo/locations/us-central1"

        assert refusal(lambda: Engine().create_queue(elsewhere, Queue(QUEUE), now=NOW)) == (
            "INVALID_ARGUMENT",
            f"{QUEUE} must begin with {elsewhere}.",
        )


class TestTombstones:
    def test_a_name_in_use_is_taken(self):
        made = engine()
        create(made, "a")

        assert refusal(lambda: create(made, "a")) == (
            "ALREADY_EXISTS",
            "Requested entity already exists",
        )

    @pytest.mark.parametrize("end", ["done", "deleted", "purged", "given up"])
    def test_a_spent_name_stays_taken_for_24_hours(self, end: str):
        made = engine(retry=RetryConfig(max_attempts=1))
        create(made, "a")
        if end == "deleted":
            made.delete_task(f"{QUEUE}/tasks/a", now=NOW)
        elif end == "purged":
            made.purge_queue(QUEUE, now=NOW + seconds(0.1))
        else:
            (dispatch,) = made.due(NOW)
            answer(made, dispatch, 200 if end == "done" else 500, NOW)

        day = timedelta(hours=24)
        assert refusal(lambda: create(made, "a", now=NOW + day - seconds(1)))[0] == "ALREADY_EXISTS"
        assert create(made, "a", now=NOW + day + seconds(1)).id == "a"

    def test_the_window_may_be_as_short_as_one_hour(self):
        made = engine(settings=Settings(task_name_window=timedelta(hours=1)))
        create(made, "a")
        made.delete_task(f"{QUEUE}/tasks/a", now=NOW)

        assert create(made, "a", now=NOW + timedelta(minutes=61)).id == "a"

    def test_the_window_lies_between_one_and_24_hours(self):
        with pytest.raises(ValueError, match="between 1 and 24 hours"):
            Settings(task_name_window=timedelta(minutes=59))

    def test_a_task_that_never_was_differs_from_one_that_is_gone(self):
        made = engine()
        create(made, "a")
        made.delete_task(f"{QUEUE}/tasks/a", now=NOW)

        get = lambda task_id: lambda: made.get_task(f"{QUEUE}/tasks/{task_id}", now=NOW)  # noqa: E731
        assert refusal(get("a")) == ("NOT_FOUND", NO_LONGER)
        assert refusal(get("b")) == ("NOT_FOUND", NO_ENTITY)

    def test_a_deleted_queues_name_is_taken_for_seven_days(self):
        made = engine()
        made.delete_queue(QUEUE, now=NOW)

        again = lambda days: made.create_queue(  # noqa: E731
            LOCATION, Queue(QUEUE), now=NOW + timedelta(days=days)
        )
        assert refusal(lambda: again(6.9)) == (
            "FAILED_PRECONDITION",
            "The queue cannot be created because a queue with this name existed too recently.",
        )
        assert again(7.1).name == QUEUE


class TestQueues:
    def test_a_new_queue_has_the_documented_defaults(self):
        queue = Queue(QUEUE)

        assert queue.rate == RateLimits(500, 1000)
        assert queue.rate.max_burst_size == 100
        assert queue.retry == RetryConfig(100, timedelta(0), seconds(0.1), seconds(3600), 16)
        assert queue.state == "RUNNING"

    def test_creating_it_twice_is_refused(self):
        made = engine()

        assert refusal(lambda: made.create_queue(LOCATION, Queue(QUEUE), now=NOW)) == (
            "ALREADY_EXISTS",
            "Queue already exists",
        )

    @pytest.mark.parametrize(
        ("rate", "retry", "message"),
        [
            (RateLimits(-1), SLOW, "RateLimits.maxDispatchesPerSecond cannot be negative."),
            (
                RateLimits(501),
                SLOW,
                "RateLimits.maxDispatchesPerSecond must be less than or equal to 500.",
            ),
            (RateLimits(1, -1), SLOW, "RateLimits.maxConcurrentDispatches cannot be negative."),
            (
                RateLimits(1, 5001),
                SLOW,
                "RateLimits.maxConcurrentDispatches must be less than or equal to 5000.",
            ),
            (
                RateLimits(),
                RetryConfig(max_attempts=-2),
                "RetryConfig.maxAttempts must be greater or equal to -1.",
            ),
            (
                RateLimits(),
                RetryConfig(max_doublings=-1),
                "RetryConfig.maxDoublings cannot be negative.",
            ),
            (
                RateLimits(),
                RetryConfig(min_backoff=seconds(-1)),
                "RetryConfig.minBackoff cannot be negative.",
            ),
            (
                RateLimits(),
                RetryConfig(min_backoff=seconds(5), max_backoff=seconds(4)),
                "RetryConfig.minBackoff must be less than or equal to RetryConfig.maxBackoff.",
            ),
        ],
    )
    def test_settings_out_of_range_are_refused(
        self, rate: RateLimits, retry: RetryConfig, message: str
    ):
        queue = Queue(QUEUE, rate=rate, retry=retry)

        assert refusal(lambda: Engine().create_queue(LOCATION, queue, now=NOW)) == (
            "INVALID_ARGUMENT",
            message,
        )

    @pytest.mark.parametrize("verb", ["get_queue", "pause_queue", "resume_queue", "purge_queue"])
    def test_a_missing_queue_is_not_found(self, verb: str):
        assert refusal(lambda: getattr(Engine(), verb)(QUEUE, now=NOW)) == ("NOT_FOUND", NO_QUEUE)

    def test_deleting_a_missing_queue_says_it_shorter(self):
        assert refusal(lambda: Engine().delete_queue(QUEUE, now=NOW)) == ("NOT_FOUND", NO_ENTITY)

    def test_an_update_changes_the_given_fields_and_not_the_state(self):
        made = engine()
        made.pause_queue(QUEUE, now=NOW)

        queue = made.update_queue(
            QUEUE, now=NOW, rate={"max_dispatches_per_second": 2.0}, retry={"max_attempts": 7}
        )

        assert queue.rate == RateLimits(2.0, 1000)
        assert queue.retry == replace(SLOW, max_attempts=7)
        assert queue.state == "PAUSED"

    def test_an_update_of_a_missing_queue_creates_it(self):
        made = Engine()

        made.update_queue(QUEUE, now=NOW, retry={"max_attempts": 3})

        assert made.get_queue(QUEUE, now=NOW).retry.max_attempts == 3

    def test_a_paused_queue_takes_tasks_and_sends_none(self):
        made = engine()
        made.pause_queue(QUEUE, now=NOW)
        create(made, "a")

        assert made.due(NOW) == []
        assert made.next_wake(NOW) is None
        assert not made.is_busy(NOW)

        made.resume_queue(QUEUE, now=NOW)
        assert due_ids(made, NOW) == ["a"]

    def test_a_purge_takes_what_was_there_before(self):
        made = engine()
        create(made, "old", schedule_at=NOW + timedelta(days=1))

        queue = made.purge_queue(QUEUE, now=NOW + seconds(1))
        create(made, "new", now=NOW + seconds(2))

        assert queue.purged_at == NOW + seconds(1)
        assert [task.id for task in made.tasks("publish", now=NOW + seconds(3))] == ["new"]

    def test_a_purge_may_take_its_time_and_lets_tasks_through_meanwhile(self):
        made = engine(settings=Settings(purge_takes=seconds(60)))
        create(made, "soon", schedule_at=NOW + seconds(30))
        create(made, "later", schedule_at=NOW + seconds(90))
        made.purge_queue(QUEUE, now=NOW + seconds(1))

        assert due_ids(made, NOW + seconds(30)) == ["soon"]
        assert due_ids(made, NOW + seconds(90)) == []

    def test_lists_come_in_pages(self):
        made = engine()
        for task_id in ("c", "a", "b"):
            create(made, task_id)

        first = made.list_tasks(QUEUE, now=NOW, page_size=2)
        second = made.list_tasks(QUEUE, now=NOW, page_size=2, page_token=first.next_token)

        assert [task.id for task in first.items] == ["a", "b"]
        assert [task.id for task in second.items] == ["c"]
        assert second.next_token == ""

    def test_a_page_holds_at_most_a_thousand_tasks(self):
        made = engine()
        for number in range(1001):
            create(made, f"t{number:04}")

        page = made.list_tasks(QUEUE, now=NOW, page_size=5000)

        assert len(page.items) == 1000
        assert page.next_token

    @pytest.mark.parametrize(("size", "token"), [(-1, ""), (1, "nonsense")])
    def test_a_bad_page_is_refused(self, size: int, token: str):
        list_tasks = lambda: engine().list_tasks(  # noqa: E731
            QUEUE, now=NOW, page_size=size, page_token=token
        )

        assert refusal(list_tasks)[0] == "INVALID_ARGUMENT"


class TestCreating:
    @pytest.mark.parametrize("ahead", [timedelta(days=30), timedelta(0), timedelta(days=-3)])
    def test_a_time_up_to_30_days_ahead_is_good_and_the_past_means_now(self, ahead: timedelta):
        task = create(engine(), schedule_at=NOW + ahead)

        assert task.schedule_at == max(NOW, NOW + ahead)

    def test_a_time_further_ahead_is_refused_in_the_services_own_zone(self):
        far = datetime(2026, 12, 22, 12, 0, 1, 690_000, tzinfo=UTC)

        assert refusal(lambda: create(engine(), schedule_at=far)) == (
            "INVALID_ARGUMENT",
            "The Task.scheduleTime, 2026-12-22T04:00:01.69-08:00, is too far in the future."
            " Schedule time must be no more than 720h in the future.",
        )

    @pytest.mark.parametrize("deadline", [15, 75, 1800])
    def test_a_deadline_between_15_seconds_and_30_minutes_is_kept(self, deadline: int):
        task = create(engine(), dispatch_deadline=seconds(deadline))

        assert task.dispatch_deadline == seconds(deadline)

    @pytest.mark.parametrize("deadline", [0, 14.999, 1800.001])
    def test_any_other_deadline_is_refused(self, deadline: float):
        assert refusal(lambda: create(engine(), dispatch_deadline=seconds(deadline))) == (
            "INVALID_ARGUMENT",
            "Task.dispatchDeadline must be between [15s, 30m].",
        )

    def test_the_deadline_is_ten_minutes_by_default(self):
        assert create(engine()).dispatch_deadline == timedelta(minutes=10)

    @pytest.mark.parametrize(
        ("settings", "body_bytes"),
        [(Settings(), 100 * 1024), (Settings(max_task_bytes=2**20 - 7), 2**20 - 7)],
    )
    def test_a_task_above_the_size_limit_is_refused(self, settings: Settings, body_bytes: int):
        made = engine(settings=settings)
        fits = HttpRequest(URL, body=b"x" * (body_bytes - len(URL)))

        assert create(made, request=fits).request == replace(
            fits, headers={"User-Agent": "Google-Cloud-Tasks"}
        )
        assert refusal(lambda: create(made, request=replace(fits, body=fits.body + b"x"))) == (
            "INVALID_ARGUMENT",
            "Task size too large",
        )

    @pytest.mark.parametrize(
        ("request_", "message"),
        [
            (HttpRequest(""), "HttpRequest.url is required."),
            (
                HttpRequest("example.com/path"),
                "HttpTarget.url must start with 'http://' or 'https://'.",
            ),
            (
                HttpRequest("ftp://example.com/"),
                "HttpTarget.url must start with 'http://' or 'https://'.",
            ),
        ],
    )
    def test_a_url_must_be_there_and_be_http(self, request_: HttpRequest, message: str):
        assert refusal(lambda: create(engine(), request=request_)) == ("INVALID_ARGUMENT", message)

    @pytest.mark.parametrize(
        "request_",
        [
            HttpRequest("https://example.com/" + "x" * 2064),
            HttpRequest(URL, headers={"X-Long": "x" * 80 * 1024}),
            HttpRequest(URL, method="GET", body=b"x"),
        ],
    )
    def test_long_urls_large_headers_and_bodies_of_gets_are_refused(self, request_: HttpRequest):
        made = engine(settings=Settings(max_task_bytes=2**20))

        assert refusal(lambda: create(made, request=request_))[0] == "INVALID_ARGUMENT"

    def test_a_broken_escape_in_the_url_is_not_noticed(self):
        assert create(engine(), request=HttpRequest("http://example.com/%zz"))

    def test_the_services_own_headers_are_replaced_or_ignored(self):
        headers = {
            "X-Mixed-Case": "preserve-me",
            "content-type": "application/json",
            "Host": "elsewhere.example",
            "Content-Length": "1",
            "user-agent": "me",
            "X-Google-Anything": "1",
            "x-appengine-user": "1",
        }

        task = create(engine(), request=HttpRequest(URL, headers=headers))

        assert task.request.headers == {
            "X-Mixed-Case": "preserve-me",
            "content-type": "application/json",
            "User-Agent": "Google-Cloud-Tasks",
        }

    def test_a_missing_queue_is_not_found(self):
        assert refusal(lambda: Engine().create_task(QUEUE, draft("a"), now=NOW)) == (
            "NOT_FOUND",
            NO_QUEUE,
        )

    def test_a_task_is_gone_31_days_after_its_creation_sent_or_not(self):
        made = engine()
        made.pause_queue(QUEUE, now=NOW)
        create(made, "a")
        month = timedelta(days=31)

        assert made.tasks("publish", now=NOW + month - seconds(1))
        assert not made.tasks("publish", now=NOW + month)


class TestBackoff:
    def test_the_documented_example(self):
        retry = RetryConfig(
            min_backoff=seconds(10), max_backoff=seconds(300), max_doublings=3, max_attempts=-1
        )

        waits = [backoff(retry, failures).total_seconds() for failures in range(1, 9)]

        assert waits == [10, 20, 40, 80, 160, 240, 300, 300]

    @pytest.mark.parametrize(
        ("retry", "waits"),
        [
            (RetryConfig(min_backoff=seconds(5), max_doublings=2), [5, 10, 20, 40, 60, 80]),
            (RetryConfig(min_backoff=seconds(5), max_doublings=0), [5, 10, 15, 20, 25, 30]),
            (
                RetryConfig(min_backoff=seconds(5), max_backoff=seconds(60), max_doublings=4),
                [5, 10, 20, 40, 60, 60],
            ),
            (RetryConfig(), [0.1, 0.2, 0.4, 0.8, 1.6, 3.2]),
        ],
    )
    def test_doubling_then_linear_up_to_the_maximum(self, retry: RetryConfig, waits: list[float]):
        assert [backoff(retry, n).total_seconds() for n in range(1, 7)] == waits

    def test_huge_settings_do_not_overflow(self):
        retry = RetryConfig(max_doublings=10_000, min_backoff=seconds(3600))

        assert backoff(retry, 9_999) == timedelta(hours=1)

    @pytest.mark.parametrize(
        ("max_attempts", "max_duration", "attempts", "elapsed", "given_up"),
        [
            (4, 0, 3, 9999, False),
            (4, 0, 4, 0, True),
            (4, 60, 4, 59, False),  # a positive duration prolongs
            (4, 60, 9, 60, True),
            (4, 60, 3, 9999, False),
            (-1, 60, 99, 59, False),
            (-1, 60, 1, 60, True),
            (-1, 0, 99999, 9_999_999, False),
        ],
    )
    def test_it_ends_when_both_limits_are_spent(
        self, max_attempts: int, max_duration: int, attempts: int, elapsed: int, given_up: bool
    ):
        retry = RetryConfig(max_attempts=max_attempts, max_retry_duration=seconds(max_duration))

        ended = exhausted(retry, attempts=attempts, first_at=NOW, now=NOW + seconds(elapsed))

        assert ended is given_up


class TestAttempts:
    def test_headers_over_the_recorded_sequence_of_answers(self):
        made = engine()
        create(made, "t")
        now, seen = NOW, []

        for status in (503, 404, 429, 500, 302, 200):
            (dispatch,) = made.due(now)
            seen.append(
                tuple(
                    dispatch.headers.get(f"X-CloudTasks-Task{name}")
                    for name in ("RetryCount", "ExecutionCount", "PreviousResponse", "RetryReason")
                )
            )
            answer(made, dispatch, status, now)
            now = made.next_wake(now) or now

        assert seen == [
            ("0", "0", None, None),
            ("1", "0", "503", ""),
            ("2", "1", "404", ""),
            ("3", "2", "429", ""),
            ("4", "2", "500", ""),
            ("5", "3", "302", ""),
        ]
        assert made.tasks("publish", now=now) == []

    def test_headers_after_a_passed_deadline(self):
        made = engine()
        create(made, "t")
        (dispatch,) = made.due(NOW)
        made.settle(dispatch, Outcome(504, answered=False), now=NOW)

        (second,) = made.due(NOW + seconds(10))

        assert second.headers["X-CloudTasks-TaskRetryCount"] == "1"
        assert second.headers["X-CloudTasks-TaskExecutionCount"] == "0"
        assert second.headers["X-CloudTasks-TaskPreviousResponse"] == "504"
        assert made.get_task(dispatch.task_name, now=NOW).response_count == 0

    def test_queue_task_and_eta_headers(self):
        made = engine()
        eta = datetime(2026, 11, 22, 13, 0, 0, 500_000, tzinfo=UTC)
        create(made, "t", schedule_at=eta)

        (dispatch,) = made.due(eta + seconds(3))

        assert dispatch.headers["X-CloudTasks-QueueName"] == "publish"
        assert dispatch.headers["X-CloudTasks-TaskName"] == "t"
        assert dispatch.headers["X-CloudTasks-TaskETA"] == "1795352400.500000"
        assert dispatch.headers["User-Agent"] == "Google-Cloud-Tasks"

    def test_the_callers_own_cloudtasks_headers_do_not_pass(self):
        made = engine()
        create(made, "t", request=HttpRequest(URL, headers={"x-cloudtasks-taskname": "forged"}))

        (dispatch,) = made.due(NOW)

        sent = {name: text for name, text in dispatch.headers.items() if "taskname" in name.lower()}
        assert sent == {"X-CloudTasks-TaskName": "t"}

    @pytest.mark.parametrize("status", [200, 204, 299])
    def test_any_2xx_ends_the_task(self, status: int):
        made = engine()
        create(made, "t")
        (dispatch,) = made.due(NOW)

        answer(made, dispatch, status, NOW)

        assert made.tasks("publish", now=NOW) == []
        assert not made.is_busy(NOW)

    @pytest.mark.parametrize("status", [199, 302, 400, 404, 409, 429, 500, 503, None])
    def test_anything_else_is_tried_again_after_the_backoff(self, status: int | None):
        made = engine()
        create(made, "t")
        (dispatch,) = made.due(NOW)

        answer(made, dispatch, status, NOW + seconds(2))

        assert made.due(NOW + seconds(11.9)) == []
        assert due_ids(made, NOW + seconds(12)) == ["t"]

    def test_after_the_last_attempt_the_task_is_deleted(self):
        made = engine(retry=replace(SLOW, max_attempts=3))
        create(made, "t")

        for attempt in range(3):
            (dispatch,) = made.due(NOW + seconds(1000 * attempt))
            answer(made, dispatch, 500, NOW + seconds(1000 * attempt))

        assert made.tasks("publish", now=NOW) == []

    def test_a_tasks_own_retry_config_overrides_the_queues(self):
        made = engine()
        create(made, "t", retry=RetryConfig(max_attempts=2, min_backoff=seconds(1)))
        (first,) = made.due(NOW)
        answer(made, first, 500, NOW)

        (second,) = made.due(NOW + seconds(1))
        answer(made, second, 500, NOW + seconds(1))

        assert made.tasks("publish", now=NOW) == []

    def test_a_retry_after_is_considered_where_it_is_later(self):
        made = engine()
        create(made, "t")
        (dispatch,) = made.due(NOW)

        made.settle(dispatch, Outcome(429, retry_after=seconds(45)), now=NOW)

        assert made.tasks("publish", now=NOW)[0].schedule_at == NOW + seconds(45)

    def test_what_the_api_tells_of_attempts(self):
        made = engine()
        create(made, "t", schedule_at=NOW + seconds(1))
        (first,) = made.due(NOW + seconds(2))
        answer(made, first, 404, NOW + seconds(3))
        made.due(NOW + seconds(13))

        task = made.get_task(f"{QUEUE}/tasks/t", now=NOW + seconds(13))

        assert (task.dispatch_count, task.response_count) == (2, 1)
        assert task.first_attempt
        assert task.first_attempt.dispatched_at == NOW + seconds(2)
        assert task.first_attempt.status is None
        assert task.last_attempt
        assert task.last_attempt.scheduled_at == NOW + seconds(13)
        assert task.last_attempt.status is None

    def test_deleting_a_task_does_not_stop_its_attempt_in_flight(self):
        made = engine()
        create(made, "t")
        (dispatch,) = made.due(NOW)

        made.delete_task(f"{QUEUE}/tasks/t", now=NOW)
        assert made.is_busy(NOW)
        answer(made, dispatch, 500, NOW)

        assert made.tasks("publish", now=NOW) == []
        assert not made.is_busy(NOW)

    def test_running_a_task_ignores_time_pause_and_concurrency(self):
        made = engine(rate=RateLimits(1, 1))
        made.pause_queue(QUEUE, now=NOW)
        create(made, "t", schedule_at=NOW + timedelta(days=1))

        task, (dispatch,) = made.run_task(f"{QUEUE}/tasks/t", now=NOW)
        _, (again,) = made.run_task(f"{QUEUE}/tasks/t", now=NOW)

        assert task.dispatch_count == 1
        assert (dispatch.task_id, again.headers["X-CloudTasks-TaskRetryCount"]) == ("t", "1")

    def test_a_run_that_fails_waits_from_the_call_on(self):
        made = engine()
        create(made, "t", schedule_at=NOW + timedelta(days=1))
        _, (dispatch,) = made.run_task(f"{QUEUE}/tasks/t", now=NOW)

        answer(made, dispatch, 500, NOW + seconds(4))

        assert made.tasks("publish", now=NOW)[0].schedule_at == NOW + seconds(10)

    def test_running_a_finished_task_is_not_found(self):
        made = engine()
        create(made, "t")
        (dispatch,) = made.due(NOW)
        answer(made, dispatch, 200, NOW)

        run = lambda: made.run_task(f"{QUEUE}/tasks/t", now=NOW)  # noqa: E731
        assert refusal(run) == ("NOT_FOUND", NO_LONGER)


class TestRate:
    def test_the_burst_goes_at_once_and_the_rest_at_the_rate(self):
        made = engine(rate=RateLimits(10, 1000))
        for number in range(13):
            create(made, f"t{number:02}")

        assert len(made.due(NOW)) == 10
        assert made.is_busy(NOW)
        assert made.next_wake(NOW) == NOW + seconds(0.1) + timedelta(microseconds=1)
        assert due_ids(made, NOW + seconds(0.2)) == ["t10", "t11"]
        assert due_ids(made, NOW + seconds(0.3)) == ["t12"]

    @pytest.mark.parametrize(
        ("rate", "burst"), [(0.1, 10), (1, 10), (10, 10), (50, 50), (500, 100)]
    )
    def test_the_burst_size_follows_the_rate(self, rate: float, burst: int):
        assert RateLimits(rate).max_burst_size == burst

    def test_no_more_than_the_cap_are_under_way_at_once(self):
        made = engine(rate=RateLimits(500, 2))
        for task_id in ("a", "b", "c"):
            create(made, task_id)

        first, _ = made.due(NOW)
        assert made.due(NOW) == []
        assert made.next_wake(NOW) is None

        answer(made, first, 200, NOW)
        assert due_ids(made, NOW) == ["c"]

    def test_one_queues_limits_do_not_hold_up_another(self):
        made = engine(rate=RateLimits(1, 1))
        other = f"{LOCATION}/queues/other"
        made.create_queue(LOCATION, Queue(other), now=NOW)
        for _ in range(3):
            create(made)
            made.create_task(other, draft(), now=NOW)

        queues = sorted(dispatch.queue_id for dispatch in made.due(NOW))

        assert queues == ["other", "other", "other", "publish"]

    @pytest.mark.parametrize(
        ("settings", "status", "dispatched"),
        [
            (Settings(), 503, 5),
            (Settings(), 429, 5),
            (Settings(), 500, 10),
            (Settings(slows_down=False), 503, 10),
        ],
    )
    def test_429_and_503_halve_the_queues_refill(
        self, settings: Settings, status: int, dispatched: int
    ):
        made = engine(rate=RateLimits(10, 1000), settings=settings)
        for number in range(30):
            create(made, f"t{number:02}")
        first, *rest = made.due(NOW)

        answer(made, first, status, NOW)

        assert len(made.due(NOW + seconds(1))) == dispatched
        assert len(rest) == 9

    def test_successes_bring_the_rate_back(self):
        made = engine(rate=RateLimits(10, 1000))
        for number in range(40):
            create(made, f"t{number:02}")
        first, second, *_ = made.due(NOW)
        answer(made, first, 503, NOW)
        answer(made, second, 200, NOW)

        assert len(made.due(NOW + seconds(1))) == 10

    def test_a_clock_turned_back_makes_tasks_wait_again(self):
        made = engine()
        create(made, "t", schedule_at=NOW + seconds(60))

        assert made.next_wake(NOW + seconds(30)) == NOW + seconds(60)
        assert made.due(NOW) == []
        assert due_ids(made, NOW + seconds(60)) == ["t"]


class TestFaults:
    def test_delivered_twice_one_after_the_other(self):
        made = engine()
        fault = made.faults.deliver_twice(after=seconds(3))
        create(made, "t")
        (dispatch,) = made.due(NOW)
        answer(made, dispatch, 200, NOW)

        assert made.due(NOW + seconds(2)) == []
        (copy,) = made.due(NOW + seconds(3))

        assert copy.copy
        assert copy.headers == dispatch.headers
        assert fault.used == 1
        answer(made, copy, 500, NOW + seconds(3))
        assert not made.is_busy(NOW + timedelta(days=1))

    def test_delivered_twice_at_once(self):
        made = engine()
        made.faults.deliver_twice(at_once=True)
        create(made, "t")

        first, second = made.due(NOW)

        assert (first.task_id, second.task_id) == ("t", "t")
        assert (first.copy, second.copy) == (False, True)

    def test_delivered_late_with_the_old_eta(self):
        made = engine()
        made.faults.deliver_late(timedelta(minutes=7))
        create(made, "t")

        assert made.due(NOW) == []
        assert made.next_wake(NOW) == NOW + timedelta(minutes=7)
        (dispatch,) = made.due(NOW + timedelta(minutes=7))

        assert dispatch.scheduled_at == NOW

    def test_delivered_out_of_order_the_same_way_for_the_same_seed(self):
        def order(seed: int) -> list[str]:
            made = engine()
            made.faults.deliver_out_of_order(seed=seed)
            for letter in "abcdefgh":
                create(made, letter)
            return due_ids(made, NOW)

        assert order(1) == order(1) != sorted(order(1))
        assert order(1) != order(2)
        assert sorted(order(1)) == list("abcdefgh")

    def test_out_of_order_keeps_those_that_find_no_place(self):
        made = engine(rate=RateLimits(500, 3))
        made.faults.deliver_out_of_order()
        for letter in "abcde":
            create(made, letter)

        first = made.due(NOW)
        for dispatch in first:
            answer(made, dispatch, 200, NOW)
        second = made.due(NOW)

        assert (len(first), len(second)) == (3, 2)

    def test_a_lost_task_is_never_sent_and_its_name_stays_taken(self):
        made = engine()
        made.faults.lose_task()
        create(made, "t")

        assert made.due(NOW) == []
        assert not made.is_busy(NOW)
        assert refusal(lambda: create(made, "t"))[0] == "ALREADY_EXISTS"

    def test_a_lost_reply_leaves_the_task_behind(self):
        made = engine()
        made.faults.lose_reply()

        assert refusal(lambda: create(made, "t"))[0] == "UNAVAILABLE"
        assert refusal(lambda: create(made, "t"))[0] == "ALREADY_EXISTS"
        assert due_ids(made, NOW) == ["t"]

    def test_creating_is_refused_for_the_next_calls(self):
        made = engine()
        made.faults.refuse(times=2)

        codes = [refusal(lambda: create(made, "t"))[0] for _ in range(2)]

        assert codes == ["UNAVAILABLE", "UNAVAILABLE"]
        assert create(made, "t").id == "t"

    def test_creating_is_refused_until_cleared(self):
        made = engine()
        fault = made.faults.refuse(times=None)
        for _ in range(5):
            refusal(lambda: create(made, "t"))

        made.faults.clear(fault)

        assert fault.used == 5
        assert create(made, "t").id == "t"

    def test_other_calls_can_be_refused_too(self):
        made = engine()
        create(made, "t")
        made.faults.refuse("DeleteTask")

        delete = lambda: made.delete_task(f"{QUEUE}/tasks/t", now=NOW)  # noqa: E731
        assert refusal(delete)[0] == "UNAVAILABLE"
        delete()

    def test_a_queue_may_not_be_ready_yet(self):
        made = engine()
        made.faults.queue_not_ready()

        assert refusal(lambda: create(made, "t")) == ("NOT_FOUND", NO_QUEUE)
        assert create(made, "t").id == "t"

    def test_a_fault_strikes_only_where_it_is_meant_to(self):
        made = engine()
        by_id = made.faults.lose_task(task="b")
        by_rule = made.faults.lose_task(times=None, when=lambda _, task: task.startswith("c"))
        elsewhere = made.faults.lose_task(queue="other")
        for task_id in ("a", "b", "c1", "c2"):
            create(made, task_id)

        assert due_ids(made, NOW) == ["a"]
        assert (by_id.used, by_rule.used, elsewhere.used) == (1, 2, 0)

    def test_chance_is_seeded(self):
        def lost(seed: int) -> list[str]:
            made = engine()
            made.faults.lose_task(times=None, chance=0.5, seed=seed)
            for number in range(20):
                create(made, f"t{number:02}")
            return due_ids(made, NOW)

        assert lost(1) == lost(1)
        assert 0 < len(lost(1)) < 20


def test_a_reset_forgets_tasks_and_names_and_keeps_queues():
    made = engine(rate=RateLimits(10, 7))
    made.pause_queue(QUEUE, now=NOW)
    create(made, "waiting")
    create(made, "spent")
    made.delete_task(f"{QUEUE}/tasks/spent", now=NOW)

    made.reset(NOW)

    queue = made.get_queue(QUEUE, now=NOW)
    assert (queue.state, queue.rate.max_concurrent_dispatches) == ("RUNNING", 7)
    assert made.tasks("publish", now=NOW) == []
    assert create(made, "spent").id == "spent"


def test_an_answer_to_an_attempt_from_before_a_reset_changes_nothing():
    made = engine(rate=RateLimits(500, 1))
    create(made, "t")
    (dispatch,) = made.due(NOW)
    made.reset(NOW)
    create(made, "t")

    answer(made, dispatch, 200, NOW)

    assert due_ids(made, NOW) == ["t"]
