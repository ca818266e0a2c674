import threading
from datetime import UTC, datetime, timedelta

import pytest

from tests.sandbox.clock import Clock

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def stopped_clock() -> Clock:
    return Clock(real=lambda: NOON)


def test_it_shows_real_time_in_utc_until_it_is_turned():
    before = datetime.now(UTC)

    shown = Clock().now()

    assert before <= shown <= datetime.now(UTC)
    assert shown.utcoffset() == timedelta(0)


def test_turns_add_up_in_both_directions():
    clock = stopped_clock()

    clock.turn(timedelta(days=30))
    clock.turn(timedelta(hours=-1))

    assert clock.offset == timedelta(days=29, hours=23)
    assert clock.now() == datetime(2026, 12, 22, 11, 0, tzinfo=UTC)


def test_it_can_be_turned_to_an_instant_and_back_to_real_time():
    clock = stopped_clock()

    clock.turn_to(datetime(2027, 1, 1, tzinfo=UTC))
    assert clock.now() == datetime(2027, 1, 1, tzinfo=UTC)

    clock.reset()
    assert clock.now() == NOON


def test_it_runs_on_after_a_turn():
    instants = iter([NOON, NOON, NOON + timedelta(seconds=5)])
    clock = Clock(real=lambda: next(instants))

    clock.turn_to(datetime(2027, 1, 1, tzinfo=UTC))

    assert clock.now() == datetime(2027, 1, 1, tzinfo=UTC)
    assert clock.now() == datetime(2027, 1, 1, 0, 0, 5, tzinfo=UTC)


def test_an_instant_without_a_time_zone_is_refused():
    with pytest.raises(ValueError, match="aware"):
        stopped_clock().turn_to(datetime(2027, 1, 1))  # noqa: DTZ001


def test_an_instant_of_an_earlier_turn_keeps_the_offset_it_was_shown_with():
    clock = stopped_clock()
    clock.turn(timedelta(hours=1))
    then = clock.now()
    clock.turn(timedelta(days=2))

    assert clock.offset_at(then) == timedelta(hours=1)
    assert clock.offset_at(then - timedelta(minutes=30)) == timedelta(0)
    assert clock.offset_at(clock.now()) == timedelta(days=2, hours=1)


def test_listeners_hear_every_turn_until_they_leave():
    clock = stopped_clock()
    heard = []
    leave = clock.on_turn(lambda: heard.append(clock.now()))

    clock.turn(timedelta(hours=1))
    clock.turn_to(NOON)
    clock.reset()
    leave()
    clock.turn(timedelta(hours=1))

    assert heard == [NOON + timedelta(hours=1), NOON, NOON]


def test_turns_from_many_threads_are_all_counted():
    clock = stopped_clock()
    threads = [
        threading.Thread(target=lambda: [clock.turn(timedelta(seconds=1)) for _ in range(100)])
        for _ in range(8)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert clock.offset == timedelta(seconds=800)
