"""A wire between the functions and the Firestore emulator that counts, shifts time and breaks.

Messages pass as the bytes they are; what is decoded is decoded to be counted, matched or shifted.
Of times, `read_time` alone is shifted by the clock's offset: it is what a caller takes for
Firestore's now, while update, create and commit times come back as preconditions. A `read_time` in
a request is shifted back.

It costs about 1.1 ms for each get or commit (a get of 2.0 ms takes 3.1 ms, on two cores). The
emulator's limit of 4 MiB for a message stays. `Write` and `Listen` answer UNIMPLEMENTED.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from types import TracebackType
from typing import Any, NoReturn, Protocol

import grpc
from google.cloud.firestore_v1.types import document, firestore
from google.protobuf import empty_pb2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tests.sandbox.children import SandboxError
from tests.sandbox.functions import Armed, Faults, Gate

SERVICE = "/google.firestore.v1.Firestore/"
AT_ONCE = 64  # calls of one door that may wait, be held or be in work
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FOREVER_SECONDS = 1e6  # what gRPC reports as remaining without a deadline is longer


@dataclass(frozen=True)
class Method:
    request: type[Message]
    response: type[Message]
    streams: bool = False


def _method(request: Any, response: Any, *, streams: bool = False) -> Method:
    return Method(request.pb(), response.pb() if hasattr(response, "pb") else response, streams)


# As google.cloud.firestore_v1's own gRPC transport calls them.
METHODS: Mapping[str, Method] = {
    "GetDocument": _method(firestore.GetDocumentRequest, document.Document),
    "CreateDocument": _method(firestore.CreateDocumentRequest, document.Document),
    "UpdateDocument": _method(firestore.UpdateDocumentRequest, document.Document),
    "DeleteDocument": _method(firestore.DeleteDocumentRequest, empty_pb2.Empty),
    "ListDocuments": _method(firestore.ListDocumentsRequest, firestore.ListDocumentsResponse),
    "BeginTransaction": _method(
        firestore.BeginTransactionRequest, firestore.BeginTransactionResponse
    ),
    "Commit": _method(firestore.CommitRequest, firestore.CommitResponse),
    "Rollback": _method(firestore.RollbackRequest, empty_pb2.Empty),
    "BatchWrite": _method(firestore.BatchWriteRequest, firestore.BatchWriteResponse),
    "PartitionQuery": _method(firestore.PartitionQueryRequest, firestore.PartitionQueryResponse),
    "ListCollectionIds": _method(
        firestore.ListCollectionIdsRequest, firestore.ListCollectionIdsResponse
    ),
    "BatchGetDocuments": _method(
        firestore.BatchGetDocumentsRequest, firestore.BatchGetDocumentsResponse, streams=True
    ),
    "RunQuery": _method(firestore.RunQueryRequest, firestore.RunQueryResponse, streams=True),
    "RunAggregationQuery": _method(
        firestore.RunAggregationQueryRequest, firestore.RunAggregationQueryResponse, streams=True
    ),
}


class Offset(Protocol):
    @property
    def offset(self) -> timedelta: ...

    def offset_at(self, instant: datetime) -> timedelta: ...


@dataclass(frozen=True)
class FirestoreCall:
    """One call as it came to a door: `method` is its short name, `caller` the door's."""

    method: str
    caller: str
    raw: bytes = field(repr=False)

    @cached_property
    def request(self) -> Any:
        """The decoded request, a plain protobuf message."""
        return METHODS[self.method].request.FromString(self.raw)


@dataclass(frozen=True)
class Counts:
    """What went over the wire: calls forwarded by method, documents read and written.

    A document asked for by name counts as read though it is missing, as Firestore bills it; an
    aggregation reads index entries, no documents. A failed commit writes none.
    """

    calls: Mapping[str, int] = field(default_factory=dict)
    documents_read: int = 0
    documents_written: int = 0

    @property
    def round_trips(self) -> int:
        return sum(self.calls.values())

    def __sub__(self, earlier: Counts) -> Counts:
        calls = {name: n - earlier.calls.get(name, 0) for name, n in self.calls.items()}
        return Counts(
            {name: n for name, n in calls.items() if n},
            self.documents_read - earlier.documents_read,
            self.documents_written - earlier.documents_written,
        )


class Refused(Exception):
    """Raised by an act: the caller gets this status instead of an answer."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class Silence(Exception):
    """Raised by an act: the caller hears nothing until its own deadline."""


When = Callable[[Any], bool] | None


class FirestoreProxy:
    """The wire to `upstream`; `address` is what a client takes as FIRESTORE_EMULATOR_HOST.

    `door(caller)` opens one more address, whose calls are counted under that name too. Faults are
    chosen by `method` (its short name, None for any), `when` (a predicate on the decoded request)
    and `times`; each gives an `Armed`, whose `hits` counts.

    It may be started before there is an `upstream`: its doors are open then, and `connect` says
    where calls go.
    """

    def __init__(self, clock: Offset, upstream: str = "") -> None:
        self.before: Faults[FirestoreCall] = Faults()
        self.after: Faults[FirestoreCall] = Faults()
        self._clock = clock
        self._upstream = upstream
        self._tally = _Tally()
        self._line = _Line()
        self._channel: grpc.Channel | None = None
        self._stubs: dict[str, Any] = {}
        self._doors: dict[str, tuple[grpc.Server, str]] = {}
        self._started = False

    def __enter__(self) -> FirestoreProxy:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def address(self) -> str:
        return self.door("")

    @property
    def env(self) -> dict[str, str]:
        """The environment of a client that calls through the main door."""
        return {"FIRESTORE_EMULATOR_HOST": self.address}

    def start(self) -> str:
        self._started = True
        if self._upstream:
            self.connect(self._upstream)
        return self.address

    def connect(self, upstream: str) -> None:
        self._channel = grpc.insecure_channel(upstream, options=UNLIMITED)
        for name, method in METHODS.items():
            make = self._channel.unary_stream if method.streams else self._channel.unary_unary
            self._stubs[name] = make(SERVICE + name)

    def stop(self) -> None:
        """Close every door, breaking off what is in work; a second call does nothing."""
        stopping = [server.stop(grace=0) for server, _ in self._doors.values()]
        for stopped in stopping:
            stopped.wait(2)
        self._doors.clear()
        self._started = False
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def door(self, caller: str) -> str:
        """The address at which the calls of `caller` are counted under its name."""
        if not self._started:
            raise SandboxError("This Firestore proxy is not started.")
        if caller not in self._doors:
            pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix=f"firestore {caller}")
            server = grpc.server(pool, options=[*UNLIMITED, ("grpc.so_reuseport", 0)])
            server.add_generic_rpc_handlers((_Door(self, caller),))
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            self._doors[caller] = server, f"127.0.0.1:{port}"
        return self._doors[caller][1]

    def counts(self, caller: str | None = None) -> Counts:
        """What has gone over the wire so far, in all or for one caller; subtract two of them."""
        return self._tally.snapshot(caller)

    # --- Faults -------------------------------------------------------------------------------

    def on_call(
        self,
        act: Callable[[FirestoreCall], object],
        method: str | None = None,
        *,
        when: When = None,
        times: int | None = None,
        after: bool = False,
    ) -> Armed[FirestoreCall]:
        """Run `act` in the call's thread before it is forwarded, or `after` its answer came."""
        faults = self.after if after else self.before
        return faults.arm(act, when=_matcher(method, when), times=times)

    def refuse(
        self,
        method: str | None = None,
        *,
        when: When = None,
        times: int | None = 1,
        code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE,
    ) -> Armed[FirestoreCall]:
        """Answer `code` and forward nothing."""
        return self.on_call(_refuser(code, "refused"), method, when=when, times=times)

    def lose_answer(
        self,
        method: str | None = None,
        *,
        when: When = None,
        times: int | None = 1,
        silent: bool = False,
    ) -> Armed[FirestoreCall]:
        """Forward, then answer UNAVAILABLE; `silent`: nothing until the caller's own deadline."""
        act = _be_silent if silent else _refuser(grpc.StatusCode.UNAVAILABLE, "answer lost")
        return self.on_call(act, method, when=when, times=times, after=True)

    def delay(
        self,
        by: timedelta,
        method: str | None = None,
        *,
        when: When = None,
        times: int | None = None,
    ) -> Armed[FirestoreCall]:
        """Forward `by` later, in real time."""
        return self.on_call(
            lambda call: time.sleep(by.total_seconds()), method, when=when, times=times
        )

    def hold(
        self,
        method: str | None = None,
        *,
        when: When = None,
        times: int | None = 1,
        after: bool = False,
    ) -> Gate:
        """Hold calls until the gate is opened: before forwarding, or `after` the answer came."""
        gate = Gate()
        self.on_call(gate, method, when=when, times=times, after=after)
        return gate

    def down(self, *, silent: bool = False) -> None:
        """Cut the wire: calls and answers on their way get UNAVAILABLE, or `silent`: wait."""
        self._line.cut(silent=silent)

    def up(self) -> None:
        """Mend the wire; what waited goes on."""
        self._line.mend()

    def heal(self) -> None:
        """Mend the wire and forget every fault and hook."""
        self.before.clear()
        self.after.clear()
        self.up()

    # --- Passing on ---------------------------------------------------------------------------

    def unary(self, call: FirestoreCall, context: grpc.ServicerContext) -> bytes:
        self._ahead(call, context)
        self._tally.call(call)
        failed: grpc.RpcError | None = None
        answer = b""
        try:
            answer = self._stubs[call.method](self._outgoing(call), **_passing(context))
        except grpc.RpcError as error:
            failed = error
        self._behind(call, context)
        if failed is not None:
            _pass_on(failed, context)
        self._tally.unary(call, answer)
        return answer

    def stream(self, call: FirestoreCall, context: grpc.ServicerContext) -> Iterator[bytes]:
        self._ahead(call, context)
        self._tally.call(call)
        coming = self._stubs[call.method](self._outgoing(call), **_passing(context))
        context.add_callback(coming.cancel)  # the caller may leave before the end
        answers: Iterator[bytes] = coming
        failed: grpc.RpcError | None = None
        if self.after:  # an answer that is lost is lost as a whole
            answers, failed = _collected(coming)
            self._behind(call, context)
        try:
            for answer in answers:
                self._line.pass_through(context)
                yield self._incoming(call, answer)
        except grpc.RpcError as error:
            failed = error
        if failed is not None:
            _pass_on(failed, context)

    def _ahead(self, call: FirestoreCall, context: grpc.ServicerContext) -> None:
        self._line.pass_through(context)
        _strike(self.before, call, context)

    def _behind(self, call: FirestoreCall, context: grpc.ServicerContext) -> None:
        _strike(self.after, call, context)
        self._line.pass_through(context)

    def _outgoing(self, call: FirestoreCall) -> bytes:
        """The request; a read time in it is Firestore's again, no longer the sandbox's."""
        if not self._clock.offset:
            return call.raw
        request = METHODS[call.method].request.FromString(call.raw)
        holder: Any = request.options.read_only if call.method == "BeginTransaction" else request
        if "read_time" not in holder.DESCRIPTOR.fields_by_name or not holder.HasField("read_time"):
            return call.raw
        _shift(holder.read_time, -self._clock.offset_at(_instant(holder.read_time)))
        return request.SerializeToString()

    def _incoming(self, call: FirestoreCall, raw: bytes) -> bytes:
        """One message of a streamed answer: counted, and its read time the sandbox's."""
        answer: Any = METHODS[call.method].response.FromString(raw)
        self._tally.read(call, answer)
        offset = self._clock.offset
        if not offset or not answer.HasField("read_time"):
            return raw
        _shift(answer.read_time, offset)
        return answer.SerializeToString()


class _Door(grpc.GenericRpcHandler):
    """One port of the proxy: gives every call to it, with the name of who comes in here."""

    def __init__(self, proxy: FirestoreProxy, caller: str) -> None:
        self._proxy = proxy
        self._caller = caller

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        name = details.method.removeprefix(SERVICE)
        if name not in METHODS:
            return None  # gRPC answers UNIMPLEMENTED
        serve = self._proxy.stream if METHODS[name].streams else self._proxy.unary

        def handle(raw: bytes, context: grpc.ServicerContext) -> Any:
            return serve(FirestoreCall(name, self._caller, raw), context)

        if METHODS[name].streams:
            return grpc.unary_stream_rpc_method_handler(handle)
        return grpc.unary_unary_rpc_method_handler(handle)


class _Tally:
    """Counts, in all (under None) and for each caller."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: Counter[tuple[str | None, str]] = Counter()
        self._read: Counter[str | None] = Counter()
        self._written: Counter[str | None] = Counter()

    def snapshot(self, caller: str | None) -> Counts:
        with self._lock:
            calls = {name: n for (who, name), n in self._calls.items() if who == caller}
            return Counts(calls, self._read[caller], self._written[caller])

    def call(self, call: FirestoreCall) -> None:
        with self._lock:
            self._calls.update([(None, call.method), (call.caller, call.method)])

    def unary(self, call: FirestoreCall, raw: bytes) -> None:
        """Documents of one answer that came whole."""
        if call.method == "Commit":
            self._add(self._written, call, len(call.request.writes))
        elif call.method == "BatchWrite":
            answer: Any = METHODS[call.method].response.FromString(raw)
            self._add(self._written, call, sum(status.code == 0 for status in answer.status))
        elif call.method in ("CreateDocument", "UpdateDocument", "DeleteDocument"):
            self._add(self._written, call, 1)
        elif call.method == "GetDocument":
            self._add(self._read, call, 1)
        elif call.method == "ListDocuments":
            listed: Any = METHODS[call.method].response.FromString(raw)
            self._add(self._read, call, len(listed.documents))

    def read(self, call: FirestoreCall, answer: Any) -> None:
        """Documents of one message of a streamed answer."""
        if call.method == "BatchGetDocuments":
            self._add(self._read, call, int(answer.WhichOneof("result") is not None))
        elif call.method == "RunQuery":
            self._add(self._read, call, int(answer.HasField("document")))

    def _add(self, counter: Counter[str | None], call: FirestoreCall, documents: int) -> None:
        with self._lock:
            counter.update({None: documents, call.caller: documents})


class _Line:
    """Whether the wire carries: up, cut (calls fail), or silent (calls wait)."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._state = "up"

    def cut(self, *, silent: bool) -> None:
        with self._changed:
            self._state = "silent" if silent else "cut"

    def mend(self) -> None:
        with self._changed:
            self._state = "up"
            self._changed.notify_all()

    def pass_through(self, context: grpc.ServicerContext) -> None:
        if self._state == "up":
            return
        with self._changed:
            while self._state == "silent" and context.is_active():
                self._changed.wait(0.05)
            cut = self._state == "cut"
        if cut:
            context.abort(grpc.StatusCode.UNAVAILABLE, "sandbox: the wire is cut")
        if not context.is_active():
            context.abort(grpc.StatusCode.CANCELLED, "sandbox: the caller gave up")


def _matcher(method: str | None, when: When) -> Callable[[FirestoreCall], bool]:
    if method is not None and method not in METHODS:
        raise SandboxError(f"Firestore has no method {method}: one of {', '.join(METHODS)}.")

    def matches(call: FirestoreCall) -> bool:
        return method in (None, call.method) and (when is None or when(call.request))

    return matches


def _refuser(code: grpc.StatusCode, why: str) -> Callable[[FirestoreCall], NoReturn]:
    def refuse(call: FirestoreCall) -> NoReturn:
        raise Refused(code, f"sandbox: {why}")

    return refuse


def _be_silent(call: FirestoreCall) -> NoReturn:
    raise Silence


def _strike(
    faults: Faults[FirestoreCall], call: FirestoreCall, context: grpc.ServicerContext
) -> None:
    if not faults:
        return
    try:
        faults.strike(call)
    except Refused as refused:
        context.abort(refused.code, refused.details)
    except Silence:
        _wait_until_given_up(context)
        context.abort(grpc.StatusCode.CANCELLED, "sandbox: the caller gave up")


def _wait_until_given_up(context: grpc.ServicerContext) -> None:
    gone = threading.Event()
    if context.add_callback(gone.set):
        gone.wait()


def _passing(context: grpc.ServicerContext) -> dict[str, Any]:
    """The caller's metadata and deadline, for the call to the emulator."""
    kept = [(key, value) for key, value in context.invocation_metadata() if _may_pass(key)]
    remaining = context.time_remaining()
    if remaining is None or remaining > FOREVER_SECONDS:
        return {"metadata": kept}
    return {"metadata": kept, "timeout": max(remaining, 0)}


def _may_pass(key: str) -> bool:
    """Whether it is the caller's own: gRPC sets the rest itself."""
    return not key.startswith(("grpc-", ":")) and key not in ("user-agent", "te", "content-type")


def _collected(coming: Iterator[bytes]) -> tuple[Iterator[bytes], grpc.RpcError | None]:
    """What came of an answer, and what ended it early."""
    answers: list[bytes] = []
    try:
        answers.extend(coming)
    except grpc.RpcError as error:
        return iter(answers), error
    return iter(answers), None


def _pass_on(error: grpc.RpcError, context: grpc.ServicerContext) -> NoReturn:
    context.set_trailing_metadata(list(error.trailing_metadata() or ()))
    context.abort(error.code(), error.details())
    raise AssertionError("abort() raises")


def _instant(stamp: Timestamp) -> datetime:
    return EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)


def _shift(instant: Timestamp, by: timedelta) -> None:
    nanos = instant.seconds * 10**9 + instant.nanos + (by // timedelta(microseconds=1)) * 1000
    instant.seconds, instant.nanos = divmod(nanos, 10**9)
