"""How each kind of fault is played against a running system, and what is put down of it.

A point fault waits for the next call that it fits and strikes in the middle of it; a span is there
from its instant until it is lifted. What is played is decided by the plan; which of several threads
makes the call that is struck is not.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any, NoReturn, TextIO

import grpc

from tests.chaos.plan import NONE, PLATFORM_POINTS, Fault
from tests.sandbox.children import SandboxError
from tests.sandbox.cloud_tasks.faults import Fault as QueueFault
from tests.sandbox.firestore_proxy import FirestoreCall, Refused, Silence
from tests.sandbox.functions import DropConnection, Faults, FunctionProcess
from tests.sandbox.platforms.values import Received
from tests.sandbox.stack import LOCATION, Stack

FROZEN_SECONDS = 21.0  # real ones: longer than a process believes in its own mark
SLOW_SECONDS = 0.4
LATE = timedelta(seconds=40)

Lift = Callable[[], None]


class Diary:
    """Every fault that was played, what it struck and when it was lifted: a line of JSON each.

    `at` is seconds from the start of the storm on the sandbox's clock.
    """

    def __init__(self, clock: Any, file: TextIO | None) -> None:
        self.struck: Counter[str] = Counter()
        self.played: Counter[str] = Counter()
        self._clock = clock
        self._file = file
        self._lock = threading.Lock()
        self.started_at: datetime = clock.now()

    def write(self, event: str, **about: Any) -> None:
        at = (self._clock.now() - self.started_at).total_seconds()
        line = json.dumps({"at": round(at, 1), "event": event, **about}, default=str)
        with self._lock:
            if self._file is not None:
                self._file.write(line + "\n")

    def play(self, fault: Fault) -> None:
        with self._lock:
            self.played[fault.kind] += 1
        planned = asdict(fault).items()
        self.write("played", **{k: v for k, v in planned if k != "at" and v not in ("", NONE)})

    def strike(self, fault: Fault, what: str, times: int = 1) -> None:
        with self._lock:
            self.struck[fault.kind] += times
        self.write("struck", number=fault.number, kind=fault.kind, what=what, times=times)


class Weather:
    """Plays faults and lifts them. `skips` and `repeats` are Scheduler's next slots; `revoke` is
    told which account's tokens the platform no longer takes."""

    def __init__(self, stack: Stack, diary: Diary, revoke: Callable[[int], None]) -> None:
        self.skips = self.repeats = 0
        self.scheduler_down = False
        self.stack = stack
        self.diary = diary
        self.revoke = revoke
        self._lifts: list[tuple[datetime, Fault, Lift]] = []
        self._frozen: dict[FunctionProcess, float] = {}
        self._lock = threading.Lock()

    # life

    def play(self, fault: Fault) -> None:
        self.diary.play(fault)
        lift = PLAYED[fault.kind](self, fault)
        if lift is not None:
            ends_at = self.stack.clock.now() + fault.lasts
            self._lifts.append((ends_at, fault, lift))

    def next_lift(self) -> datetime | None:
        return min((at for at, _, _ in self._lifts), default=None)

    def tend(self) -> None:
        """Lift what is over, thaw, and start again what was killed, as Cloud Run does."""
        now = self.stack.clock.now()
        for entry in [entry for entry in self._lifts if entry[0] <= now]:
            self._lift(entry)
        self._thaw(time.monotonic())
        for name, front in self.stack.fronts.items():
            for process in self.stack.processes[name] if front.backends else ():
                if process.started and not process.alive:
                    process.start()

    def clear(self) -> None:
        """Every fault is over; returns with every instance alive."""
        for entry in list(self._lifts):
            self._lift(entry)
        self._thaw_all()
        self.skips = self.repeats = 0
        self.stack.heal()
        self.stack.platforms.behave()
        for process in self.stack.everyone:  # one may have been starting
            process.wait_until_ready()

    def busy(self) -> bool:
        """Whether a request is under way at an instance that is not frozen."""
        for name, front in self.stack.fronts.items():
            held = sum(front.held_by(p.port) for p in self.stack.processes[name] if p.suspended)
            if front.in_flight > held:
                return True
        return False

    def _lift(self, entry: tuple[datetime, Fault, Lift]) -> None:
        self._lifts.remove(entry)
        _, fault, lift = entry
        lift()
        self.diary.write("lifted", number=fault.number, kind=fault.kind)

    # freezing

    def freeze(self, fault: Fault) -> None:
        """One instance of several; its attempts stand still wherever they are."""
        live = self._live("publish_post")
        if len(live) < 2:
            return
        process = live[fault.choice % len(live)]
        process.suspend()
        with self._lock:
            self._frozen[process] = time.monotonic() + FROZEN_SECONDS
        front = self.stack.fronts["publish_post"]
        front.backends = [port for port in front.backends if port != process.port]

    def _thaw(self, until: float) -> None:
        with self._lock:
            over = [process for process, ends_at in self._frozen.items() if ends_at <= until]
            for process in over:
                del self._frozen[process]
        for process in over:
            process.resume()
            front = self.stack.fronts[process.name]
            if front.backends and process.port not in front.backends:
                front.backends = [*front.backends, process.port]
            self.diary.write("thawed", instance=process.instance)

    def _thaw_all(self) -> None:
        with self._lock:
            latest = max(self._frozen.values(), default=0.0)
        while time.monotonic() < latest:  # sooner, its own clock would not know how long it was
            time.sleep(0.1)
        self._thaw(latest)

    # killing

    def kill_workers(self, fault: Fault) -> None:
        """All of a function's: whoever makes the call that is struck is among them."""
        for process in self._live(fault.where):
            with suppress(SandboxError, ProcessLookupError):  # it is just starting
                process.kill_worker()

    def kill_instance(self, fault: Fault) -> None:
        live = self._live(fault.where)
        if len(live) > 1:
            live[fault.choice % len(live)].kill()
        elif live:  # its next request waits for the next instance
            self.stack.scale_to_zero(fault.where)

    def _live(self, function: str) -> list[FunctionProcess]:
        return [p for p in self.stack.processes[function] if p.alive and not p.suspended]

    # Firestore's wire

    def on_store(
        self,
        fault: Fault,
        act: Callable[[], object],
        *,
        method: str | None = None,
        after: bool = False,
    ) -> None:
        """Have `act` done at the nth call of the fault's function, and at those after it."""

        def fits(call: FirestoreCall) -> bool:
            return call.caller == fault.where and method in (None, call.method)

        def strike(call: FirestoreCall) -> None:
            self.diary.strike(fault, _told(call))
            act()

        faults = self.stack.proxy.after if after else self.stack.proxy.before
        faults.arm(strike, when=_nth(fault.nth, fits), times=fault.times)

    def cut_store(self, fault: Fault) -> Lift:
        """The wire is cut in the middle of a commit: its answer is lost, and all that follows."""

        def cut(call: FirestoreCall) -> None:
            self.stack.proxy.down()
            self.diary.strike(fault, _told(call))

        armed = self.stack.proxy.before.arm(
            cut, when=_nth(fault.nth, lambda call: call.method == "Commit")
        )

        def lift() -> None:
            armed.left = 0
            self.stack.proxy.up()

        return lift

    # platforms

    def misbehave(self, fault: Fault, kind: Any, *, times: int | None, **how: Any) -> Lift:
        """The platform's next calls go wrong: those that change something more often."""
        changing = fault.choice % 3 > 0

        def fits(received: Received) -> bool:
            if changing and received.method == "GET":
                return False
            self.diary.strike(fault, f"{received.method} {received.call}")
            return True

        misbehaviour = self.stack.platforms.misbehave(
            fault.where, "*", kind, times, when=fits, **how
        )

        def lift() -> None:
            misbehaviour.left = 0

        return lift


def _store(act: str, **where: Any) -> Callable[[Weather, Fault], None]:
    def refuse() -> NoReturn:
        raise Refused(grpc.StatusCode.UNAVAILABLE, "sandbox: refused")

    def silence() -> NoReturn:
        raise Silence

    acts = {"refuse": refuse, "silence": silence, "delay": lambda: time.sleep(SLOW_SECONDS)}
    return lambda weather, fault: weather.on_store(fault, acts[act], **where)


def _kill(how: str, *, after: bool) -> Callable[[Weather, Fault], None]:
    """At a commit: before, it never reaches Firestore; after, nobody hears of it."""

    def play(weather: Weather, fault: Fault) -> None:
        def act() -> None:
            getattr(weather, how)(fault)
            if not after:
                raise Refused(grpc.StatusCode.CANCELLED, "sandbox: whoever called is no more")

        weather.on_store(replace(fault, times=1), act, method="Commit", after=after)

    return play


def _freeze(weather: Weather, fault: Fault) -> None:
    once = replace(fault, times=1)
    weather.on_store(once, lambda: weather.freeze(fault), method="Commit", after=True)


def _kill_in_call(weather: Weather, fault: Fault) -> None:
    """The platform has taken the call, and whoever made it is killed before its answer."""
    platforms = weather.stack.platforms

    def hook(received: Received, answer: Any) -> None:
        weather.diary.strike(fault, f"{received.platform} {received.call}")
        weather.kill_workers(fault)

    platform = platforms.names[fault.choice % len(platforms.names)]
    platforms.misbehave(platform, "*", "hook", when=lambda r: r.method == "POST", hook=hook)


def _scale_to_zero(weather: Weather, fault: Fault) -> None:
    weather.stack.scale_to_zero(fault.where)
    weather.diary.strike(fault, fault.where)


def _skip(weather: Weather, fault: Fault) -> None:
    weather.skips += fault.times


def _repeat(weather: Weather, fault: Fault) -> None:
    weather.repeats += fault.times


def _scheduler_down(weather: Weather, fault: Fault) -> Lift:
    weather.scheduler_down = True

    def lift() -> None:
        weather.scheduler_down = False

    return lift


def _drop(side: str) -> Callable[[Weather, Fault], None]:
    def play(weather: Weather, fault: Fault) -> None:
        faults = _side(weather, side)

        def drop(call: Any) -> None:
            weather.diary.strike(fault, call.path)
            raise DropConnection

        faults.arm(drop, when=_nth(fault.nth, lambda call: True), times=fault.times)

    return play


def _unreachable(weather: Weather, fault: Fault) -> Lift:
    def drop(call: Any) -> None:
        weather.diary.strike(fault, call.path)
        raise DropConnection

    dice = random.Random(fault.number)
    armed = _side(weather, "before").arm(
        drop, when=lambda call: dice.random() < max(fault.chance, 0.5), times=None
    )

    def lift() -> None:
        armed.left = 0

    return lift


def _side(weather: Weather, side: str) -> Faults[Any]:
    faults: Faults[Any] = getattr(weather.stack.fronts["publish_post"], side)
    return faults


def _queue(verb: str, **how: Any) -> Callable[[Weather, Fault], Lift]:
    """The queues misbehave for a while, each time by chance."""

    def play(weather: Weather, fault: Fault) -> Lift:
        faults = weather.stack.tasks.faults
        certain = verb in ("refuse", "queue_not_ready")
        chance = 1.0 if certain else fault.chance
        armed: QueueFault = getattr(faults, verb)(
            times=None, chance=chance, seed=fault.number, when=_publishing, **how
        )

        def lift() -> None:
            faults.clear(armed)
            weather.diary.strike(fault, "tasks", armed.used)

        return lift

    return play


def _publishing(queue: str, task: str) -> bool:
    return queue.startswith("publish-")


def _lose_reply(weather: Weather, fault: Fault) -> None:
    weather.stack.tasks.faults.lose_reply(times=fault.times, when=_publishing)


def _purge(weather: Weather, fault: Fault) -> None:
    stack = weather.stack
    queue = f"publish-{fault.where}"
    gone = len(stack.tasks.tasks(queue))
    parent = f"projects/{stack.project}/locations/{LOCATION}"
    stack.tasks_client.purge_queue(name=f"{parent}/queues/{queue}")
    weather.diary.strike(fault, queue, gone)


def _platform(kind: str) -> Callable[[Weather, Fault], None]:
    def play(weather: Weather, fault: Fault) -> None:
        how: dict[str, Any] = {}
        match kind:
            case "throttle":
                how = {"seconds": fault.seconds}
                how |= {"scope": "platform"} if fault.choice % 5 == 0 else {}
            case "slow":
                how = {"seconds": SLOW_SECONDS}
            case "processing":
                how = {"polls": fault.times}
            case "token refused":
                refused = weather.stack.platforms.dialect(fault.where).token_refused(None)
                how = {"status": refused.status, "body": refused.body}
                how |= {"headers": refused.headers}
        known = "refuse" if kind == "token refused" else kind
        weather.misbehave(fault, known, times=fault.times, **how)

    return play


def _platform_down(weather: Weather, fault: Fault) -> Lift:
    return weather.misbehave(fault, "error_before", times=None, status=503)


def _token_revoked(weather: Weather, fault: Fault) -> None:
    weather.revoke(fault.choice)
    weather.diary.strike(fault, f"account {fault.choice}")


def _nth(n: int, matches: Callable[[Any], bool]) -> Callable[[Any], bool]:
    seen = Counter[str]()

    def fits(call: Any) -> bool:
        if not matches(call):
            return False
        seen["calls"] += 1
        return seen["calls"] >= n

    return fits


def _told(call: FirestoreCall) -> str:
    """Which call it was: what it writes, or reads."""
    if call.method != "Commit":
        return f"{call.caller} {call.method}"
    names = [write.update.name or write.transform.document for write in call.request.writes]
    return f"{call.caller} Commit of {', '.join('/'.join(n.split('/')[-2:]) for n in names)}"


PLAYED: Mapping[str, Callable[[Weather, Fault], Lift | None]] = {
    "store refuses": _store("refuse"),
    "store loses answers": _store("refuse", after=True, method="Commit"),
    "store is slow": _store("delay"),
    "store silent": _store("silence", after=True, method="Commit"),
    "store down": Weather.cut_store,
    "worker killed before": _kill("kill_workers", after=False),
    "worker killed after": _kill("kill_workers", after=True),
    "worker killed in call": _kill_in_call,
    "instance killed": _kill("kill_instance", after=True),
    "all instances gone": _scale_to_zero,
    "frozen": _freeze,
    "request dropped": _drop("before"),
    "answer dropped": _drop("after"),
    "functions unreachable": _unreachable,
    "task's reply lost": _lose_reply,
    "queue purged": _purge,
    "queue refuses": _queue("refuse"),
    "queue not ready": _queue("queue_not_ready"),
    "tasks lost": _queue("lose_task"),
    "tasks twice at once": _queue("deliver_twice", at_once=True),
    "tasks twice": _queue("deliver_twice", after=LATE),
    "tasks late": _queue("deliver_late", by=LATE),
    "tasks shuffled": _queue("deliver_out_of_order"),
    "slot skipped": _skip,
    "slot repeated": _repeat,
    "scheduler down": _scheduler_down,
    "platform down": _platform_down,
    "token revoked": _token_revoked,
    **{kind: _platform(kind) for kind in PLATFORM_POINTS},
}
