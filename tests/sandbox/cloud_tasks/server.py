"""Cloud Tasks on loopback: the real gRPC API over the engine, and real HTTP to the targets.

The unmodified client library talks to it over an insecure channel (see `client`). Methods that
are not listed in `CloudTasksServer._methods` answer UNIMPLEMENTED, as gRPC does by itself.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import grpc
from google.cloud import tasks_v2
from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport
from google.cloud.tasks_v2.types import cloudtasks
from google.protobuf.empty_pb2 import Empty

from tests.sandbox.clock import Clock
from tests.sandbox.cloud_tasks import messages
from tests.sandbox.cloud_tasks.dispatcher import (
    Attempt,
    Dispatcher,
    raw_dispatch,
    without_authorization,
)
from tests.sandbox.cloud_tasks.engine import Engine, Settings
from tests.sandbox.cloud_tasks.faults import Faults
from tests.sandbox.cloud_tasks.values import Dispatch, HttpRequest, Queue, RefusalError, Task
from tests.sandbox.functions import Faults as Acts
from tests.sandbox.identity import Issuer

SERVICE = "google.cloud.tasks.v2.CloudTasks"
WORKERS = 8

Serve = Callable[[Any], Any]


@dataclass(frozen=True)
class TasksCall:
    """One call of the API: `method` is its short name."""

    method: str
    request: Any = field(repr=False)


class CloudTasksServer:
    """Starts on a free port of 127.0.0.1. `faults` says how it misbehaves.

    Schedule times and retry waits follow `clock`; dispatch deadlines are real time. `before` and
    `after` arm what happens to a call ahead of its being served and to its answer; an act refuses
    or loses it by raising `RefusalError`.
    """

    def __init__(self, clock: Clock, issuer: Issuer, *, settings: Settings | None = None) -> None:
        self.before: Acts[TasksCall] = Acts()
        self.after: Acts[TasksCall] = Acts()
        self._clock = clock
        self._lock = threading.Lock()
        self._engine = Engine(settings)
        self._dispatcher = Dispatcher(self._engine, self._lock, clock, issuer)
        self._grpc: grpc.Server | None = None
        self._workers: ThreadPoolExecutor | None = None
        self._port = 0

    def start(self, port: int = 0) -> "CloudTasksServer":
        """Listen on `port`, 0 for a free one."""
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="sandbox-cloud-tasks-grpc")
        self._grpc = grpc.server(self._workers, options=[("grpc.so_reuseport", 0)])
        self._grpc.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, self._handlers()),)
        )
        self._port = self._grpc.add_insecure_port(f"127.0.0.1:{port}")
        self._dispatcher.start()
        self._grpc.start()
        return self

    def stop(self) -> None:
        """Stop within a moment, cutting off requests under way; no thread or socket stays."""
        if self._grpc is None or self._workers is None:
            return
        self._grpc.stop(0.1).wait()
        self._workers.shutdown(wait=True)
        self._dispatcher.stop()
        self._grpc = self._workers = None

    def __enter__(self) -> "CloudTasksServer":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        if self._grpc is None:
            raise RuntimeError("the Cloud Tasks server is not started")
        return f"127.0.0.1:{self._port}"

    @property
    def faults(self) -> Faults:
        return self._engine.faults

    @property
    def longest_wait(self) -> timedelta | None:
        """Real time after which a request is cut off, whatever its dispatch deadline says.

        For tests of a passed deadline, which the service does not take below 15 s. None: no cap.
        """
        return self._dispatcher.longest_wait

    @longest_wait.setter
    def longest_wait(self, wait: timedelta | None) -> None:
        self._dispatcher.longest_wait = wait

    @property
    def attempts(self) -> list[Attempt]:
        """The requests sent so far, in the order they ended."""
        return self._dispatcher.history

    def queues(self) -> list[Queue]:
        with self._lock:
            return self._engine.queues()

    def tasks(self, queue: str) -> list[Task]:
        """The tasks a queue holds, by schedule time; `queue` is its id or its full name."""
        with self._lock:
            return self._engine.tasks(queue, now=self._clock.now())

    def next_wake(self) -> datetime | None:
        """When something will be sent if nobody calls before; None: nothing waits."""
        with self._lock:
            return self._engine.next_wake(self._clock.now())

    def idle(self, timeout: float = 10.0) -> bool:
        """Wait until no request is in flight and no task of a running queue is due.

        Tasks that only wait for rate or concurrency are due. False when `timeout` (real
        seconds) was not enough.
        """
        return self._dispatcher.idle(timeout)

    def still(self, timeout: float = 10.0) -> bool:
        """Like `idle`, but tasks may wait for rate or concurrency: whoever turns the clock to
        `next_wake` need not wait for them in real time."""
        return self._dispatcher.still(timeout)

    def deliver(self, what: str | HttpRequest) -> Attempt:
        """Send a copy now, beside all rules, and wait for its answer: a stale or doubled delivery.

        A task id sends what was last sent for it, or would be sent next; a request is sent as it
        is. Tokens are signed anew where the request asks for one.
        """
        now = self._clock.now()
        if isinstance(what, HttpRequest):
            return self._dispatcher.resend(raw_dispatch(what, now))
        return self._dispatcher.resend(self._copy_of(what))

    def on_attempt(self, callback: Callable[[Attempt], None]) -> None:
        """Call after each attempt, in the dispatcher's thread: it must not wait for anything."""
        self._dispatcher.on_attempt(callback)

    def reset(self) -> None:
        """Forget tasks, tombstones, history, faults and the longest wait; queues stay, running."""
        self.heal()
        self.longest_wait = None
        with self._lock:
            self._engine.reset(self._clock.now())
        self._dispatcher.forget()

    def heal(self) -> None:
        """Take every fault and act away."""
        self.faults.clear()
        self.before.clear()
        self.after.clear()

    def _copy_of(self, task_id: str) -> Dispatch:
        now = self._clock.now()
        for attempt in reversed(self.attempts):
            if attempt.task == task_id:
                return _again(attempt)
        with self._lock:
            for task in self._engine.find_tasks(task_id):
                return replace(self._engine.next_dispatch(task, now=now), copy=True)
        raise KeyError(f"no task {task_id!r} was ever sent or is waiting")

    # The API

    def _handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        return {name: self._handler(name, serve) for name, serve in self._methods().items()}

    def _handler(self, name: str, serve: Serve) -> grpc.RpcMethodHandler:
        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            call = TasksCall(name, request)
            try:
                self.before.strike(call)
                reply = serve(request)
                self.after.strike(call)
            except RefusalError as refused:
                context.abort(grpc.StatusCode[refused.code], refused.message)
            finally:  # a refused call may have changed something: a lost reply did
                self._dispatcher.wake()
            return reply

        request_type = getattr(cloudtasks, f"{name}Request").pb()
        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=request_type.FromString,
            response_serializer=lambda reply: reply.SerializeToString(),
        )

    def _methods(self) -> dict[str, Serve]:
        return {
            "CreateQueue": self._create_queue,
            "GetQueue": lambda r: self._queue("get_queue", r),
            "ListQueues": self._list_queues,
            "UpdateQueue": self._update_queue,
            "PauseQueue": lambda r: self._queue("pause_queue", r),
            "ResumeQueue": lambda r: self._queue("resume_queue", r),
            "PurgeQueue": lambda r: self._queue("purge_queue", r),
            "DeleteQueue": lambda r: self._gone("delete_queue", r),
            "CreateTask": self._create_task,
            "GetTask": self._get_task,
            "ListTasks": self._list_tasks,
            "DeleteTask": lambda r: self._gone("delete_task", r),
            "RunTask": self._run_task,
        }

    def _queue(self, verb: str, request: Any) -> Any:
        return messages.queue_message(self._ask(verb, request.name))

    def _gone(self, verb: str, request: Any) -> Empty:
        self._ask(verb, request.name)
        return Empty()

    def _create_queue(self, request: Any) -> Any:
        queue = messages.queue_from(request.queue)
        return messages.queue_message(self._ask("create_queue", request.parent, queue))

    def _list_queues(self, request: Any) -> Any:
        with self._lock:
            page = self._engine.list_queues(
                request.parent, page_size=request.page_size, page_token=request.page_token
            )
        return messages.queues_message(page)

    def _update_queue(self, request: Any) -> Any:
        changes = messages.changes_from(request.queue, list(request.update_mask.paths))
        return messages.queue_message(self._ask("update_queue", request.queue.name, **changes))

    def _create_task(self, request: Any) -> Any:
        task = self._ask("create_task", request.parent, messages.draft_from(request.task))
        return messages.task_message(task, request.response_view)

    def _get_task(self, request: Any) -> Any:
        return messages.task_message(self._ask("get_task", request.name), request.response_view)

    def _list_tasks(self, request: Any) -> Any:
        page = self._ask(
            "list_tasks",
            request.parent,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return messages.tasks_message(page, request.response_view)

    def _run_task(self, request: Any) -> Any:
        task, dispatches = self._ask("run_task", request.name)
        self._dispatcher.launch(dispatches)
        return messages.task_message(task, request.response_view)

    def _ask(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return getattr(self._engine, verb)(*args, now=self._clock.now(), **kwargs)


def client(address: str) -> tasks_v2.CloudTasksClient:
    """Google's own client, pointed at a sandbox. It has no setting for an emulator's address."""
    channel = grpc.insecure_channel(address)
    return tasks_v2.CloudTasksClient(transport=CloudTasksGrpcTransport(channel=channel))


def _again(attempt: Attempt) -> Dispatch:
    raw = raw_dispatch(attempt.request, attempt.dispatched_at)
    name = f"projects/-/locations/-/queues/{attempt.queue}/tasks/{attempt.task}"
    headers = without_authorization(attempt.headers)
    return replace(raw, task_name=name, headers=headers, scheduled_at=attempt.scheduled_at)
