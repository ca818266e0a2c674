"""Cloud Tasks without threads, sockets or a clock: every call is given `now`.

The engine answers the API's calls, says what is to be sent (`due`), until when nobody need ask
(`next_wake`), and is told what came back (`settle`). It raises `RefusalError` where the service
answers an error. It is not safe for threads; the server holds a lock.

Left out: App Engine targets, queue-level HTTP overrides, IAM, CMEK, batches, the slow ramp-up of
new and idle queues, and throttling by error rate.
"""

import heapq
import random
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from tests.sandbox.cloud_tasks import rules
from tests.sandbox.cloud_tasks.faults import Fault, Faults, Kind
from tests.sandbox.cloud_tasks.retries import backoff, exhausted
from tests.sandbox.cloud_tasks.values import (
    PAUSED,
    RUNNING,
    Dispatch,
    Draft,
    Outcome,
    Page,
    Queue,
    RefusalError,
    RetryConfig,
    Task,
    TaskAttempt,
    parent_of,
    short,
)
from tests.sandbox.cloud_tasks.waiting import Bucket, Line

MAX_TASKS_A_PAGE = 1000
MAX_QUEUES_A_PAGE = 9800
LONGEST_RETRY_AFTER = timedelta(hours=1)


@dataclass(frozen=True)
class Settings:
    """Where the documentation contradicts itself or is silent, a choice.

    task_name_window: how long a spent name is refused; "up to 24 hours", older pages say 1 h.
    queue_name_window: the same for queues; 7 days by the quotas page, 3 by the reference.
    max_task_bytes: 100 KB by the reference, 1 MiB by the quotas page and by measurement.
    purge_takes: a purge takes effect within a minute; here at once unless told otherwise.
    slows_down: whether 429 and 503 slow the whole queue, see `Bucket`.
    seed: of the ids that unnamed tasks get, and of shuffles.
    """

    task_name_window: timedelta = timedelta(hours=24)
    queue_name_window: timedelta = timedelta(days=7)
    max_task_bytes: int = 100 * 1024
    purge_takes: timedelta = timedelta(0)
    slows_down: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not timedelta(hours=1) <= self.task_name_window <= timedelta(hours=24):
            raise ValueError("task_name_window lies between 1 and 24 hours")


class _Room:
    """A queue with its tasks, its line and its bucket."""

    def __init__(self, queue: Queue, now: datetime) -> None:
        self.queue = queue
        self.tasks: dict[str, Task] = {}
        self.line = Line()
        self.bucket = Bucket(queue.rate, now)
        self.in_flight = 0
        self.delayed: set[str] = set()  # those a fault has held back already
        self.purges: list[tuple[datetime, datetime]] = []  # (takes effect at, purged at)

    @property
    def running(self) -> bool:
        return self.queue.state == RUNNING

    @property
    def has_place(self) -> bool:
        return self.in_flight < self.queue.rate.max_concurrent_dispatches

    def may_dispatch(self) -> bool:
        return self.has_place and self.bucket.has_token()

    def empty(self, now: datetime) -> None:
        self.tasks.clear()
        self.line = Line()
        self.bucket = Bucket(self.queue.rate, now)
        self.in_flight = 0
        self.delayed.clear()
        self.purges.clear()


class Engine:
    def __init__(self, settings: Settings | None = None, faults: Faults | None = None) -> None:
        self.settings = settings or Settings()
        self.faults = faults or Faults()
        self._random = random.Random(self.settings.seed)
        self._rooms: dict[str, _Room] = {}
        self._spent_queues: dict[str, datetime] = {}  # name -> free again at
        self._spent_tasks: dict[str, datetime] = {}
        self._created: deque[tuple[datetime, str, int]] = deque()  # for the retention
        self._flights: dict[int, Dispatch] = {}
        self._twins: dict[int, Fault] = {}  # dispatches to be repeated once answered
        self._copies: list[tuple[datetime, int, Dispatch]] = []
        self._last_id = 0

    # Queues

    def create_queue(self, parent: str, queue: Queue, *, now: datetime) -> Queue:
        rules.check_new_queue(parent, queue)
        if queue.name in self._rooms:
            raise RefusalError("ALREADY_EXISTS", rules.QUEUE_EXISTS)
        if self._spent_queues.get(queue.name, now) > now:
            raise RefusalError("FAILED_PRECONDITION", rules.QUEUE_TOO_RECENT)
        self._spent_queues.pop(queue.name, None)
        self._rooms[queue.name] = _Room(queue, now)
        return queue

    def get_queue(self, name: str, *, now: datetime) -> Queue:
        self._refused("GetQueue", name)
        return self._room(name).queue

    def list_queues(self, parent: str, *, page_size: int = 0, page_token: str = "") -> Page[Queue]:
        rules.check_location(parent)
        names = sorted(name for name in self._rooms if parent_of(name) == parent)
        chosen, token = _page(names, page_size, page_token, MAX_QUEUES_A_PAGE)
        return Page(tuple(self._rooms[name].queue for name in chosen), token)

    def update_queue(
        self,
        name: str,
        *,
        now: datetime,
        rate: Mapping[str, Any] | None = None,
        retry: Mapping[str, Any] | None = None,
        sampling_ratio: float | None = None,
    ) -> Queue:
        """Change the fields given; creates the queue if there is none. State is not changed."""
        rules.check_queue_name(name)
        seen = self._rooms[name].queue if name in self._rooms else Queue(name)
        changed = replace(
            seen,
            rate=replace(seen.rate, **(rate or {})),
            retry=replace(seen.retry, **(retry or {})),
            sampling_ratio=seen.sampling_ratio if sampling_ratio is None else sampling_ratio,
        )
        if name not in self._rooms:
            return self.create_queue(parent_of(name), changed, now=now)
        rules.check_rate(changed.rate)
        rules.check_retry(changed.retry)
        room = self._rooms[name]
        room.bucket.refill(now)
        room.bucket.change(changed.rate)
        room.queue = changed
        return changed

    def delete_queue(self, name: str, *, now: datetime) -> None:
        if name not in self._rooms:
            raise RefusalError("NOT_FOUND", rules.NO_ENTITY)
        del self._rooms[name]
        self._spent_queues[name] = now + self.settings.queue_name_window

    def pause_queue(self, name: str, *, now: datetime) -> Queue:
        return self._set_state("PauseQueue", name, PAUSED)

    def resume_queue(self, name: str, *, now: datetime) -> Queue:
        return self._set_state("ResumeQueue", name, RUNNING)

    def purge_queue(self, name: str, *, now: datetime) -> Queue:
        """Delete every task created before now; it may take `settings.purge_takes`."""
        self._refused("PurgeQueue", name)
        room = self._room(name)
        room.queue = replace(room.queue, purged_at=now)
        room.purges.append((now + self.settings.purge_takes, now))
        self._catch_up(now)
        return room.queue

    # Tasks

    def create_task(self, parent: str, draft: Draft, *, now: datetime) -> Task:
        self._catch_up(now)
        rules.check_queue_name(parent)
        if draft.name:
            rules.check_task_name(parent, draft.name)
        self._refused("CreateTask", draft.name or f"{parent}/tasks/")
        room = self._ready_room(parent, draft)
        rules.check_draft(draft, now=now, max_bytes=self.settings.max_task_bytes)
        if draft.name in room.tasks or self._is_spent(draft.name, now):
            raise RefusalError("ALREADY_EXISTS", rules.TASK_EXISTS)

        task = self._new_task(parent, draft, now)
        room.tasks[task.name] = task
        room.line.put(task.name, task.schedule_at)
        self._created.append((now, task.name, task.serial))
        if self.faults.take(Kind.REPLY_LOST, room.queue.id, task.id):
            raise RefusalError("UNAVAILABLE", rules.UNAVAILABLE)
        return task

    def get_task(self, name: str, *, now: datetime) -> Task:
        self._catch_up(now)
        self._refused("GetTask", name)
        return self._task(name, now)

    def list_tasks(
        self, parent: str, *, now: datetime, page_size: int = 0, page_token: str = ""
    ) -> Page[Task]:
        self._catch_up(now)
        self._refused("ListTasks", parent)
        room = self._room(parent)
        chosen, token = _page(sorted(room.tasks), page_size, page_token, MAX_TASKS_A_PAGE)
        return Page(tuple(room.tasks[name] for name in chosen), token)

    def delete_task(self, name: str, *, now: datetime) -> None:
        """Forget a task; an attempt in flight goes on, and its answer changes nothing."""
        self._catch_up(now)
        self._refused("DeleteTask", name)
        self._forget(self._task(name, now), now)

    def run_task(self, name: str, *, now: datetime) -> tuple[Task, list[Dispatch]]:
        """Dispatch now, whatever state, rate, concurrency and attempts in flight say."""
        self._catch_up(now)
        self._refused("RunTask", name)
        task = self._task(name, now)
        room = self._rooms[parent_of(name)]
        sent = self._dispatch(room, task, now, forced=True)
        return room.tasks[name], sent

    # Dispatching

    def due(self, now: datetime) -> list[Dispatch]:
        """What is to be sent now; each counts as in flight until it is settled."""
        self._catch_up(now)
        sent: list[Dispatch] = []
        while self._copies and self._copies[0][0] <= now:
            copy = heapq.heappop(self._copies)[2]
            sent.append(self._launch(replace(copy, dispatched_at=now)))
        for room in self._rooms.values():
            sent += self._take_from(room, now)
        return sent

    def next_wake(self, now: datetime) -> datetime | None:
        """When `due` may have something, if nothing is called before; None: not by waiting."""
        wakes = [self._copies[0][0]] if self._copies else []
        for room in self._rooms.values():
            first = room.line.first()
            if room.running and room.has_place and first is not None:
                token_at = room.bucket.next_token_at(now)
                wakes.append(max(first[0], token_at))
        return min(wakes, default=None)

    def settle(self, dispatch: Dispatch, outcome: Outcome, *, now: datetime) -> None:
        """Take the answer to a dispatch: done and deleted, to be retried, or given up."""
        if self._flights.pop(dispatch.id, None) is None:
            return  # forgotten by a reset
        self._repeat_if_asked(dispatch, now)
        room = self._rooms.get(parent_of(dispatch.task_name))
        if dispatch.copy or room is None:
            return
        if not dispatch.forced:
            room.in_flight -= 1
        self._feel(room, outcome)
        task = room.tasks.get(dispatch.task_name)
        if task is not None and task.serial == dispatch.serial:
            self._conclude(room, _answered(task, outcome, now), dispatch, outcome, now)

    @property
    def in_flight(self) -> int:
        return len(self._flights)

    def is_busy(self, now: datetime, ahead: timedelta = timedelta(0)) -> bool:
        """Whether something is in flight or due, be it only waiting for rate or concurrency; or
        falls due within `ahead`."""
        self._catch_up(now)
        by = now + ahead
        if self._flights or (self._copies and self._copies[0][0] <= by):
            return True
        return any(room.running and room.line.is_due(by) for room in self._rooms.values())

    def is_sending(self, now: datetime) -> bool:
        """Whether something is in flight or could be sent this moment."""
        self._catch_up(now)
        wake_at = self.next_wake(now)
        return bool(self._flights) or (wake_at is not None and wake_at <= now)

    def reset(self, now: datetime) -> None:
        """Forget every task, tombstone and attempt; the queues stay, running and rested."""
        self._spent_queues.clear()
        self._spent_tasks.clear()
        self._created.clear()
        self._flights.clear()
        self._twins.clear()
        self._copies.clear()
        for room in self._rooms.values():
            room.queue = replace(room.queue, state=RUNNING, purged_at=None)
            room.empty(now)

    def queues(self) -> list[Queue]:
        return [room.queue for room in self._rooms.values()]

    def tasks(self, queue: str, *, now: datetime) -> list[Task]:
        """A queue's tasks by schedule time; `queue` is its id or its full name."""
        self._catch_up(now)
        for name, room in self._rooms.items():
            if queue in (name, short(name)):
                return sorted(room.tasks.values(), key=lambda task: (task.schedule_at, task.serial))
        raise KeyError(f"there is no queue {queue!r}")

    def find_tasks(self, task_id: str) -> list[Task]:
        rooms = self._rooms.values()
        return [task for room in rooms for task in room.tasks.values() if task.id == task_id]

    def next_dispatch(self, task: Task, *, now: datetime) -> Dispatch:
        """What the next attempt of a task would send, without making one."""
        return self._describe(task, now)

    # Inside: names and their afterlife

    def _room(self, name: str) -> _Room:
        rules.check_queue_name(name)
        if name not in self._rooms:
            raise RefusalError("NOT_FOUND", rules.NO_QUEUE)
        return self._rooms[name]

    def _ready_room(self, parent: str, draft: Draft) -> _Room:
        room = self._room(parent)
        if self.faults.take(Kind.QUEUE_NOT_READY, room.queue.id, short(draft.name)):
            raise RefusalError("NOT_FOUND", rules.NO_QUEUE)
        return room

    def _task(self, name: str, now: datetime) -> Task:
        queue_name = parent_of(name)
        rules.check_task_name(queue_name, name)
        task = self._room(queue_name).tasks.get(name)
        if task is not None:
            return task
        raise RefusalError(
            "NOT_FOUND", rules.NO_LONGER if self._is_spent(name, now) else rules.NO_ENTITY
        )

    def _is_spent(self, name: str, now: datetime) -> bool:
        free_at = self._spent_tasks.get(name)
        if free_at is not None and free_at <= now:
            del self._spent_tasks[name]
            return False
        return free_at is not None

    def _forget(self, task: Task, now: datetime) -> None:
        room = self._rooms[parent_of(task.name)]
        del room.tasks[task.name]
        room.line.drop(task.name)
        room.delayed.discard(task.name)
        self._spent_tasks[task.name] = now + self.settings.task_name_window

    def _catch_up(self, now: datetime) -> None:
        """Purges that take effect, and tasks that have outlived their retention."""
        for room in self._rooms.values():
            for purge in [purge for purge in room.purges if purge[0] <= now]:
                room.purges.remove(purge)
                self._forget_all((t for t in room.tasks.values() if t.created_at < purge[1]), now)
        while self._created and self._created[0][0] + rules.RETENTION <= now:
            _, name, serial = self._created.popleft()
            home = self._rooms.get(parent_of(name))
            task = home.tasks.get(name) if home else None
            if task is not None and task.serial == serial:
                self._forget(task, now)

    def _forget_all(self, tasks: Iterable[Task], now: datetime) -> None:
        for task in list(tasks):
            self._forget(task, now)

    def _refused(self, method: str, name: str) -> None:
        queue_name, _, task_id = name.partition("/tasks/")
        if self.faults.take(Kind.REFUSED, short(queue_name), task_id, method=method):
            raise RefusalError("UNAVAILABLE", rules.UNAVAILABLE)

    def _set_state(self, method: str, name: str, state: str) -> Queue:
        self._refused(method, name)
        room = self._room(name)
        room.queue = replace(room.queue, state=state)
        return room.queue

    def _new_task(self, parent: str, draft: Draft, now: datetime) -> Task:
        return Task(
            name=draft.name or f"{parent}/tasks/{self._random.getrandbits(64)}",
            request=replace(draft.request, headers=rules.stored_headers(draft.request)),
            schedule_at=max(draft.schedule_at or now, now),
            created_at=now,
            dispatch_deadline=draft.dispatch_deadline or timedelta(minutes=10),
            retry=draft.retry,
            serial=self._next_id(),
        )

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    # Inside: sending

    def _take_from(self, room: _Room, now: datetime) -> list[Dispatch]:
        if not room.running:
            return []
        room.bucket.refill(now)
        sent: list[Dispatch] = []
        for name in self._order(room, now):
            if not room.may_dispatch():
                break
            task = room.tasks[name]
            if self._hold_or_lose(room, task, now):
                continue
            room.bucket.take()
            room.in_flight += 1
            sent += self._dispatch(room, task, now)
        return sent

    def _order(self, room: _Room, now: datetime) -> Iterable[str]:
        # The service promises no order, not even best effort; unshuffled, it is by due time.
        if not room.line.is_due(now):
            return []
        shuffled = self.faults.take(Kind.SHUFFLED, room.queue.id)
        if shuffled is None:
            return room.line.in_order(now)
        names = room.line.all_due(now)
        shuffled.dice.shuffle(names)
        return names

    def _hold_or_lose(self, room: _Room, task: Task, now: datetime) -> bool:
        if self.faults.take(Kind.LOST, room.queue.id, task.id):
            self._forget(task, now)
            return True
        if task.name in room.delayed:
            return False
        late = self.faults.take(Kind.LATE, room.queue.id, task.id)
        if late is None:
            return False
        room.delayed.add(task.name)
        room.line.put(task.name, now + late.delay)
        return True

    def _dispatch(
        self, room: _Room, task: Task, now: datetime, *, forced: bool = False
    ) -> list[Dispatch]:
        dispatch = self._launch(self._describe(task, now, forced=forced))
        room.line.drop(task.name)
        room.delayed.discard(task.name)
        room.tasks[task.name] = replace(
            task,
            dispatch_count=task.dispatch_count + 1,
            first_attempt=task.first_attempt or TaskAttempt(dispatched_at=now),
            last_attempt=TaskAttempt(dispatched_at=now, scheduled_at=task.schedule_at),
        )
        twice = self.faults.take(Kind.TWICE, dispatch.queue_id, dispatch.task_id)
        if twice is None:
            return [dispatch]
        if twice.at_once:
            return [dispatch, self._launch(replace(dispatch, copy=True))]
        self._twins[dispatch.id] = twice
        return [dispatch]

    def _describe(self, task: Task, now: datetime, *, forced: bool = False) -> Dispatch:
        return Dispatch(
            id=0,
            task_name=task.name,
            request=task.request,
            headers=_dispatch_headers(task),
            deadline=task.dispatch_deadline,
            scheduled_at=task.schedule_at,
            dispatched_at=now,
            serial=task.serial,
            forced=forced,
        )

    def _launch(self, dispatch: Dispatch) -> Dispatch:
        launched = replace(dispatch, id=self._next_id())
        self._flights[launched.id] = launched
        return launched

    # Inside: answers

    def _repeat_if_asked(self, dispatch: Dispatch, now: datetime) -> None:
        twice = self._twins.pop(dispatch.id, None)
        if twice is not None:
            copy = replace(dispatch, copy=True)
            heapq.heappush(self._copies, (now + twice.delay, dispatch.id, copy))

    def _feel(self, room: _Room, outcome: Outcome) -> None:
        if not self.settings.slows_down:
            return
        if outcome.answered and outcome.status in (429, 503):
            room.bucket.slow_down()
        elif outcome.succeeded:
            room.bucket.recover()

    def _conclude(
        self, room: _Room, task: Task, dispatch: Dispatch, outcome: Outcome, now: datetime
    ) -> None:
        retry: RetryConfig = task.retry or room.queue.retry
        first = task.first_attempt.dispatched_at if task.first_attempt else now
        room.tasks[task.name] = task
        if outcome.succeeded or exhausted(
            retry, attempts=task.dispatch_count, first_at=first, now=now
        ):
            self._forget(task, now)
            return
        wait = max(
            backoff(retry, task.dispatch_count), min(outcome.retry_after, LONGEST_RETRY_AFTER)
        )
        # After RunTask the wait counts from that call, says its reference, not from the failure.
        at = (dispatch.dispatched_at if dispatch.forced else now) + wait
        room.tasks[task.name] = replace(task, schedule_at=at)
        room.line.put(task.name, at)


def _answered(task: Task, outcome: Outcome, now: datetime) -> Task:
    """The task after an answer, or after none (which counts as 503, as UNAVAILABLE maps)."""
    status = outcome.status or 503
    last = task.last_attempt or TaskAttempt(dispatched_at=now)
    executed = outcome.answered and status < 500
    return replace(
        task,
        response_count=task.response_count + outcome.answered,
        executions=task.executions + executed,
        previous_status=status,
        last_attempt=replace(last, answered_at=now, status=status),
    )


def _dispatch_headers(task: Task) -> dict[str, str]:
    """The headers of the next attempt, as recorded from the service.

    RetryCount counts every attempt before; ExecutionCount only answers that were not 5xx; a
    deadline that passed shows as 504; RetryReason is there from the second attempt on, empty.
    """
    own = {
        "X-CloudTasks-QueueName": task.queue_id,
        "X-CloudTasks-TaskName": task.id,
        "X-CloudTasks-TaskRetryCount": str(task.dispatch_count),
        "X-CloudTasks-TaskExecutionCount": str(task.executions),
        "X-CloudTasks-TaskETA": rules.epoch_seconds(task.schedule_at),
    }
    if task.previous_status is not None:
        own["X-CloudTasks-TaskPreviousResponse"] = str(task.previous_status)
        own["X-CloudTasks-TaskRetryReason"] = ""
    ours = {name.lower() for name in own}
    callers = {
        name: text for name, text in task.request.headers.items() if name.lower() not in ours
    }
    return callers | own


def _page(names: list[str], size: int, token: str, largest: int) -> tuple[list[str], str]:
    """The names after the token's, and the next token; a size of 0 or too large is the largest."""
    if size < 0:
        raise rules.invalid("page_size must not be negative.")
    if token and not rules.QUEUE_NAME.match(token):  # a token is the last name of its page
        raise rules.invalid("Invalid page token.")
    rest = [name for name in names if name > token]
    chosen = rest[: min(size or largest, largest)]
    return chosen, chosen[-1] if len(chosen) < len(rest) else ""
