from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud import firestore

from tests.sandbox.children import SandboxError
from tests.sandbox.firestore import FirestoreEmulator
from tests.sandbox.firestore_proxy import Counts, FirestoreProxy

ONCE: dict[str, Any] = {"retry": None, "timeout": 5}


@dataclass
class TurnedClock:
    offset: timedelta = field(default=timedelta(0))

    def offset_at(self, instant: datetime) -> timedelta:
        return self.offset


@pytest.fixture(scope="module")
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with FirestoreEmulator() as emulator:
        yield emulator.address


@pytest.fixture(scope="module")
def running(clock: TurnedClock, upstream: str) -> Iterator[FirestoreProxy]:
    with FirestoreProxy(clock, upstream) as started:
        yield started


@pytest.fixture
def proxy(running: FirestoreProxy, clock: TurnedClock) -> Iterator[FirestoreProxy]:
    yield running
    running.heal()
    clock.offset = timedelta(0)


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., firestore.Client]:
    project = f"p-{uuid.uuid4().hex[:12]}"

    def connect(address: str) -> firestore.Client:
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", address)
        return firestore.Client(project=project)

    return connect


@pytest.fixture
def db(proxy: FirestoreProxy, connect: Callable[..., firestore.Client]) -> firestore.Client:
    return connect(proxy.address)


@pytest.fixture
def later() -> Iterator[Callable[..., Future[Any]]]:
    with ThreadPoolExecutor(8) as pool:
        yield pool.submit


def write(db: firestore.Client, name: str = "posts/1", **fields: Any) -> firestore.DocumentSnapshot:
    reference = db.document(name)
    reference.set(fields or {"n": 1})
    return reference.get()


def test_a_guarded_batch_is_all_or_nothing(db: firestore.Client) -> None:
    seen = write(db)
    db.document("posts/1").update({"n": 2})

    batch = db.batch()
    batch.update(seen.reference, {"n": 3}, db.write_option(last_update_time=seen.update_time))
    batch.set(db.document("posts/other"), {})
    with pytest.raises(exceptions.FailedPrecondition):
        batch.commit()

    assert db.document("posts/1").get().get("n") == 2
    assert not db.document("posts/other").get().exists


def test_creating_twice_is_refused_with_the_emulators_own_words(db: firestore.Client) -> None:
    db.document("posts/1").create({})

    with pytest.raises(exceptions.AlreadyExists, match="already exists"):
        db.document("posts/1").create({})


def test_several_documents_come_in_one_call_and_one_is_missing(
    proxy: FirestoreProxy, db: firestore.Client
) -> None:
    write(db, "posts/1")
    write(db, "logs/1")
    before = proxy.counts()

    found = db.get_all([db.document(name) for name in ("posts/1", "logs/1", "posts/none")])

    assert sorted(snapshot.exists for snapshot in found) == [False, True, True]
    assert proxy.counts() - before == Counts({"BatchGetDocuments": 1}, documents_read=3)


def test_a_query_counts_the_documents_it_gave(proxy: FirestoreProxy, db: firestore.Client) -> None:
    for n in range(5):
        write(db, f"posts/{n}", n=n)
    before = proxy.counts()

    late = firestore.FieldFilter("n", ">=", 2)
    found = db.collection("posts").where(filter=late).order_by("n").limit(2).get()

    assert [snapshot.get("n") for snapshot in found] == [2, 3]
    assert proxy.counts() - before == Counts({"RunQuery": 1}, documents_read=2)


def test_a_count_reads_no_documents(proxy: FirestoreProxy, db: firestore.Client) -> None:
    for n in range(3):
        write(db, f"posts/{n}")
    before = proxy.counts()

    assert db.collection("posts").count().get()[0][0].value == 3

    assert proxy.counts() - before == Counts({"RunAggregationQuery": 1})


def test_a_batch_counts_as_one_round_trip_and_its_writes(
    proxy: FirestoreProxy, db: firestore.Client
) -> None:
    before = proxy.counts()
    batch = db.batch()
    for n in range(3):
        batch.set(db.document(f"posts/{n}"), {"n": n})

    batch.commit()

    counted = proxy.counts() - before
    assert counted == Counts({"Commit": 1}, documents_written=3)
    assert counted.round_trips == 1


def test_a_failed_commit_writes_nothing(proxy: FirestoreProxy, db: firestore.Client) -> None:
    before = proxy.counts()

    with pytest.raises(exceptions.NotFound):
        db.document("posts/none").update({"n": 1})

    assert proxy.counts() - before == Counts({"Commit": 1})


def test_transforms_answer_their_values(db: firestore.Client) -> None:
    write(db, open=2)
    batch = db.batch()
    batch.update(db.document("posts/1"), {"open": firestore.Increment(-1)})

    results = batch.commit()

    assert results[0].transform_results[0].integer_value == 1


def test_transactions_listings_and_bulk_writes_work(
    proxy: FirestoreProxy, db: firestore.Client
) -> None:
    @firestore.transactional
    def add(transaction: firestore.Transaction) -> None:
        seen = db.document("posts/1").get(transaction=transaction)
        transaction.update(seen.reference, {"n": seen.get("n") + 1})

    write(db, "posts/1")
    before = proxy.counts()
    add(db.transaction())
    bulk = db.bulk_writer()
    bulk.set(db.document("posts/2"), {})
    bulk.close()

    assert [collection.id for collection in db.collections()] == ["posts"]
    assert sorted(ref.id for ref in db.collection("posts").list_documents()) == ["1", "2"]
    counted = proxy.counts() - before
    assert counted.documents_written == 2
    assert counted.calls["BeginTransaction"] == counted.calls["BatchWrite"] == 1


def test_each_door_counts_its_own_callers(
    proxy: FirestoreProxy, connect: Callable[..., firestore.Client]
) -> None:
    before, whole = proxy.counts("publish_post"), proxy.counts()

    connect(proxy.door("publish_post")).document("posts/1").set({})
    connect(proxy.door("maintain")).document("posts/1").get()

    assert proxy.counts("publish_post") - before == Counts({"Commit": 1}, documents_written=1)
    assert (proxy.counts() - whole).round_trips == 2


def test_the_read_time_alone_follows_the_clock(clock: TurnedClock, db: firestore.Client) -> None:
    clock.offset = timedelta(days=30, microseconds=5)
    before = datetime.now(UTC)

    seen = write(db)
    (queried,) = db.collection("posts").get()

    for snapshot in (seen, queried):
        assert abs(snapshot.read_time - before - clock.offset) < timedelta(seconds=10)
        assert abs(snapshot.update_time - before) < timedelta(seconds=10)
        assert abs(snapshot.create_time - before) < timedelta(seconds=10)


def test_preconditions_and_reads_in_the_past_hold_under_a_turned_clock(
    clock: TurnedClock, db: firestore.Client
) -> None:
    clock.offset = timedelta(days=-3)
    seen = write(db, n=1)

    seen.reference.update({"n": 2}, db.write_option(last_update_time=seen.update_time))

    assert seen.reference.get().get("n") == 2
    assert seen.reference.get(read_time=seen.read_time).get("n") == 1


def test_a_refused_call_never_arrives(proxy: FirestoreProxy, db: firestore.Client) -> None:
    fault = proxy.refuse("Commit")

    with pytest.raises(exceptions.ServiceUnavailable):
        db.document("posts/1").set({}, **ONCE)

    assert not db.document("posts/1").get().exists
    assert fault.hits == 1


def test_a_lost_answer_leaves_what_was_written(proxy: FirestoreProxy, db: firestore.Client) -> None:
    proxy.lose_answer("Commit")

    with pytest.raises(exceptions.ServiceUnavailable):
        db.document("posts/1").create({}, **ONCE)

    assert db.document("posts/1").get().exists


def test_the_clients_own_retry_meets_its_own_write(
    proxy: FirestoreProxy, db: firestore.Client
) -> None:
    proxy.lose_answer("Commit")

    with pytest.raises(exceptions.AlreadyExists):
        db.document("posts/1").create({})


def test_a_silently_lost_answer_ends_at_the_callers_deadline(
    proxy: FirestoreProxy, db: firestore.Client
) -> None:
    proxy.lose_answer("Commit", silent=True)
    began = time.monotonic()

    with pytest.raises(exceptions.DeadlineExceeded):
        db.document("posts/1").set({}, retry=None, timeout=0.5)

    assert 0.4 < time.monotonic() - began < 2
    assert db.document("posts/1").get().exists


def test_a_fault_strikes_only_the_requests_that_match(
    proxy: FirestoreProxy, db: firestore.Client
) -> None:
    fault = proxy.refuse(
        "Commit",
        when=lambda request: any(w.update.name.endswith("logs/1") for w in request.writes),
        times=None,
    )

    db.document("posts/1").set({}, **ONCE)
    with pytest.raises(exceptions.ServiceUnavailable):
        db.document("logs/1").set({}, **ONCE)

    assert fault.hits == 1


def test_a_delayed_call_comes_later(proxy: FirestoreProxy, db: firestore.Client) -> None:
    proxy.delay(timedelta(seconds=0.3), "BatchGetDocuments", times=1)
    began = time.monotonic()

    db.document("posts/1").get()

    assert time.monotonic() - began >= 0.3


def test_held_commits_race_when_the_gate_opens(
    proxy: FirestoreProxy, db: firestore.Client, later: Callable[..., Future[Any]]
) -> None:
    gate = proxy.hold("Commit", times=8)
    racing = [later(db.document("posts/1").create, {"n": n}) for n in range(8)]
    gate.arrived(8)

    assert not any(one.done() for one in racing)
    gate.open()

    errors = [one.exception() for one in racing]
    assert sum(error is None for error in errors) == 1
    assert sum(isinstance(error, exceptions.AlreadyExists) for error in errors) == 7


def test_a_hook_runs_where_a_crash_is_wanted(proxy: FirestoreProxy, db: firestore.Client) -> None:
    seen: list[tuple[str, bool]] = []
    watching = db.document("posts/1")

    def look(call: Any) -> None:
        seen.append((call.method, len(call.request.writes) == 1))

    proxy.on_call(look, "Commit")
    proxy.on_call(look, "Commit", after=True)
    watching.set({})

    assert seen == [("Commit", True), ("Commit", True)]


def test_a_lost_answer_to_a_query_is_lost_as_a_whole(
    proxy: FirestoreProxy, db: firestore.Client
) -> None:
    for n in range(3):
        write(db, f"posts/{n}")
    proxy.lose_answer("RunQuery")

    with pytest.raises(exceptions.ServiceUnavailable):
        db.collection("posts").get(**ONCE)


def test_a_large_answer_streams_through(proxy: FirestoreProxy, db: firestore.Client) -> None:
    batch = db.batch()
    for n in range(600):
        batch.set(db.document(f"posts/{n}"), {"text": "x" * 1_000})
    batch.commit()
    before = proxy.counts()

    assert sum(1 for _ in db.collection("posts").stream()) == 600

    assert (proxy.counts() - before).documents_read == 600


def test_a_cut_wire_fails_every_call_until_it_is_up(
    proxy: FirestoreProxy, db: firestore.Client
) -> None:
    proxy.down()
    with pytest.raises(exceptions.ServiceUnavailable):
        db.document("posts/1").get(**ONCE)
    with pytest.raises(exceptions.ServiceUnavailable):
        db.document("posts/1").set({}, **ONCE)

    proxy.up()

    assert not db.document("posts/1").get().exists


def test_a_silent_wire_holds_calls_until_it_is_up(
    proxy: FirestoreProxy, db: firestore.Client, later: Callable[..., Future[Any]]
) -> None:
    proxy.down(silent=True)
    with pytest.raises(exceptions.DeadlineExceeded):
        db.document("posts/1").get(retry=None, timeout=0.3)
    waiting = later(db.document("posts/1").set, {})

    proxy.up()

    waiting.result(timeout=5)
    assert db.document("posts/1").get().exists


def test_a_method_that_does_not_exist_is_named(proxy: FirestoreProxy) -> None:
    with pytest.raises(SandboxError, match="Firestore has no method Comit"):
        proxy.refuse("Comit")


def test_the_proxy_costs_little(
    proxy: FirestoreProxy, upstream: str, connect: Callable[..., firestore.Client]
) -> None:
    def median_ms(address: str) -> float:
        reference = connect(address).document("posts/1")
        took = []
        for _ in range(100):
            began = time.perf_counter()
            reference.get()
            took.append(time.perf_counter() - began)
        return sorted(took)[50] * 1000

    median_ms(upstream)  # the JVM warms up
    direct, through = median_ms(upstream), median_ms(proxy.address)

    print(f"get: {direct:.2f} ms direct, {through:.2f} ms through the proxy")
    assert through - direct < 20
