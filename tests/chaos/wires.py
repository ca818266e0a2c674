"""Every effect of a delivery, seen where it crosses a wire, and what may go wrong there.

Four wires lead out of our functions: to Firestore, to Cloud Tasks, to the platforms, and back to
whoever called. An effect is a commit, a created task, a platform's call, or an answer; the ids in
it say whose it is. Whoever is to die waits until everybody in the same process either is to die too
or has been answered: a process that is killed takes nobody else with it, and many die of one kill.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import grpc

from tests.sandbox.cloud_tasks.server import TasksCall
from tests.sandbox.cloud_tasks.values import RefusalError
from tests.sandbox.firestore_proxy import FirestoreCall, Refused
from tests.sandbox.functions import DropConnection, FrontCall
from tests.sandbox.platforms.values import Received
from tests.sandbox.stack import TOPOLOGY, Stack

FUNCTIONS = ("schedule_post", "publish_post", "maintain")
WRITING = ("Commit", "BatchWrite", "CreateDocument", "UpdateDocument", "DeleteDocument")
CHANGING = ("CreateTask", "DeleteTask", "RunTask")
AT_ONCE = 8  # requests in one process, at most
PATIENCE_SECONDS = 30.0
NAMED = re.compile(r"mark[0-9a-f]{12}|[pd][0-9a-f]{32}")


class Mode(StrEnum):
    BEFORE = "before"  # the process dies, and the effect does not happen
    AFTER = "after"  # the effect happens, and the process dies before it hears of it
    LOST = "lost"  # the effect happens, its answer is lost, the process lives on


@dataclass(frozen=True)
class Fault:
    """Strikes the effect that `skip` others precede: of the case, or since the fault before."""

    skip: int
    mode: Mode


@dataclass
class Case:
    """One delivery on its way through the wires. `struck` says which faults met which effects,
    `later` how many effects came after the last of them."""

    mark: str
    faults: tuple[Fault, ...] = ()
    effects: list[str] = field(default_factory=list)
    struck: list[tuple[str, Mode, datetime]] = field(default_factory=list)
    later: int = 0
    function: str = ""  # that serves a request about it; the sweep serves all
    died: bool = False  # the process that served it last
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def meets(self, effect: str, now: datetime) -> Mode | None:
        """What is to go wrong with this effect, the next one of this delivery."""
        with self._lock:
            self.effects.append(effect)
            waiting = self.faults[len(self.struck) :]
            if not waiting or waiting[0].skip > self.later:
                self.later += 1
                return None
            self.struck.append((effect, waiting[0].mode, now))
            self.later = 0
            return waiting[0].mode


class Process:
    """Who is in a function's one process, and how they die together."""

    def __init__(self, kill: Callable[[], None], at_once: int) -> None:
        self._kill = kill
        self._at_once = at_once
        self._changed = threading.Condition()
        self._inside = self._doomed = self._deaths = 0

    def enter(self) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._inside < self._at_once and not self._doomed, PATIENCE_SECONDS
            )
            self._inside += 1

    def leave(self) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def die(self) -> None:
        """Returns when the process is dead."""
        with self._changed:
            deaths, self._doomed = self._deaths, self._doomed + 1
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._deaths > deaths or self._doomed == self._inside, PATIENCE_SECONDS
            )
            if self._deaths == deaths:
                self._deaths, self._doomed = deaths + 1, 0
                self._changed.notify_all()
                self._kill()


class Wires:
    """Watches what the functions do, from `open` to `close`; one instance of each serves."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._known: dict[str, Case] = {}
        self._backends: dict[str, list[int]] = {}
        self._here = threading.local()  # what becomes of the effect under way in this thread
        self._processes = {
            name: Process(
                stack.processes[name][0].kill_worker,
                min(AT_ONCE, TOPOLOGY["functions"][name]["concurrency"]),
            )
            for name in FUNCTIONS
        }

    def open(self) -> None:
        stack = self._stack
        for name in FUNCTIONS:
            front = stack.fronts[name]
            self._backends[name], front.backends = front.backends, front.backends[:1]
            front.before.arm(self._request(name), times=None)
            front.after.arm(self._answer(name), times=None)
        stack.proxy.on_call(self._ahead_of_firestore)
        stack.proxy.on_call(self._behind, after=True)
        stack.tasks.before.arm(self._ahead_of_tasks, times=None)
        stack.tasks.after.arm(self._behind, times=None)
        stack.platforms.before.arm(self._ahead_of_platform, times=None)
        stack.platforms.after.arm(self._behind, times=None)

    def close(self) -> None:
        """Take everything off the wires."""
        self._stack.heal()
        for name, backends in self._backends.items():
            self._stack.fronts[name].backends = backends

    def know(self, case: Case, *names: str) -> None:
        """What carries one of these names is this case's."""
        self._known.update(dict.fromkeys(names, case))

    # requests and their answers

    def _request(self, function: str) -> Callable[[FrontCall], None]:
        def begin(call: FrontCall) -> None:
            self._processes[function].enter()
            case = self._whose(call.body)
            if case is not None:
                case.function, case.died = function, False

        return begin

    def _answer(self, function: str) -> Callable[[FrontCall], None]:
        def end(call: FrontCall) -> None:
            case = self._whose(call.body)
            try:
                if case is not None and not case.died:  # of one that died, nobody answers
                    self._ahead(f"answer {function}", case, function, DropConnection())
                    self._behind(call)
            finally:
                if case is not None:
                    case.function = ""
                self._processes[function].leave()

        return end

    # effects

    def _ahead_of_firestore(self, call: FirestoreCall) -> None:
        self._here.undoing = None
        if call.method not in WRITING or call.caller not in FUNCTIONS:
            return
        case = self._whose(call.raw)
        effect = commit_name(call) if call.method == "Commit" else call.method
        if case is not None and effect == "schedule":
            self.know(
                case, *(write.update.name.rpartition("/")[2] for write in call.request.writes)
            )
        lost = Refused(grpc.StatusCode.UNAVAILABLE, "sandbox: lost")
        self._ahead(effect, case, call.caller, lost)

    def _ahead_of_tasks(self, call: TasksCall) -> None:
        self._here.undoing = None
        if call.method in CHANGING:
            case = self._whose(call.request.SerializeToString())
            function = (case.function if case is not None else "") or "maintain"
            lost = RefusalError("UNAVAILABLE", "lost")
            self._ahead(task_name(call, function), case, function, lost)

    def _ahead_of_platform(self, received: Received) -> None:
        secret = self._stack.platforms.dialect(received.platform).secret_of(received)
        case = self._whose(secret.encode())
        self._ahead(received.call, case, "publish_post", DropConnection())

    def _ahead(self, effect: str, case: Case | None, function: str, lost: Exception) -> None:
        self._here.undoing = None
        if case is None:
            return

        def die() -> None:
            case.died = True
            self._processes[function].die()

        mode = case.meets(effect, self._stack.clock.now())
        if mode is Mode.BEFORE:
            die()
            raise lost
        if mode is Mode.AFTER:
            self._here.undoing = lost, die
        elif mode is Mode.LOST:
            self._here.undoing = lost, lambda: None

    def _behind(self, _: object) -> None:
        """The effect has happened; who did it dies, or does not hear of it."""
        if self._here.undoing is not None:
            (lost, die), self._here.undoing = self._here.undoing, None
            die()
            raise lost

    def _whose(self, content: bytes) -> Case | None:
        names = NAMED.findall(content.decode(errors="replace"))
        return next((self._known[name] for name in names if name in self._known), None)


def commit_name(call: FirestoreCall) -> str:
    """What a commit does, in the words of the protocol."""
    touched: dict[str, Any] = {
        write.update.name.rsplit("/", 2)[1]: write
        for write in call.request.writes
        if write.WhichOneof("operation") == "update"
    }
    log = touched.get("publishLogs")
    if "idempotencyMarkers" in touched:
        return "schedule"
    if log is None:
        return "roll-up" if set(touched) == {"scheduledPosts"} else f"write {', '.join(touched)}"
    name = _move(log.update.fields, set(log.update_mask.field_paths))
    return f"sweep: {name}" if call.caller == "maintain" else name


def _move(fields: Mapping[str, Any], changed: set[str]) -> str:
    if "status" not in changed:
        if "committing" in fields and fields["committing"].WhichOneof("value_type") == "map_value":
            return "committing"
        return next((step for step in ("state", "hop") if step in changed), "write publishLogs")
    status = str(fields["status"].string_value)
    return {"processing": "claim", "success": "settle"}.get(status, f"settle {status}")


def task_name(call: TasksCall, function: str) -> str:
    if call.method != "CreateTask":
        return call.method
    body = json.loads(call.request.task.http_request.body)
    if "contentIds" in body:
        return "create metrics task"
    if "about" in body:
        return "create alert task"
    return "create task" if function == "schedule_post" else "create next task"
