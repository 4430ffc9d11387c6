"""The system's clock: readings, semaphores and waits."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import freezegun
import pytest
import time_machine

from nsqlite import Clock, Consumer, Empty, Full, InvalidOption, Topic
from nsqlite.clock import NEVER, SYSTEM, Semaphore, SystemClock, release
from nsqlite.testing import ManualClock

MILLISECOND = 1_000_000
MOMENT = "2001-09-09T01:46:40+00:00"
FOR_EVER = 1 << 80
"""Nanoseconds, many more than a lock can wait."""


def held() -> threading.Lock:
    """Return a semaphore that nobody has released."""
    semaphore = threading.Lock()
    semaphore.acquire()
    return semaphore


@contextmanager
def frozen_by_freezegun() -> Iterator[None]:
    with freezegun.freeze_time(MOMENT):
        yield


@contextmanager
def frozen_by_time_machine() -> Iterator[None]:
    with time_machine.travel(MOMENT, tick=False):
        yield


FREEZERS = [frozen_by_freezegun, frozen_by_time_machine]
Freezer = Callable[[], AbstractContextManager[None]]


# Readings


def test_deadlines_are_on_the_monotonic_scale() -> None:
    """A monotonic reading lies between two of the system's."""
    before = time.monotonic_ns()
    now = SYSTEM.monotonic_ns()
    assert before <= now <= time.monotonic_ns()


def test_timestamps_are_the_walls_time() -> None:
    """A reading of the wall's time lies between two of the system's."""
    before = time.time_ns()
    now = SYSTEM.time_ns()
    assert before <= now <= time.time_ns()


def test_readings_cost_no_python_call() -> None:
    """The readings are the C functions themselves."""
    assert SYSTEM.monotonic_ns is time.monotonic_ns
    assert SYSTEM.time_ns is time.time_ns


def test_never_is_far_away() -> None:
    """The moment that does not come is beyond 200 years from now."""
    assert SYSTEM.monotonic_ns() + 200 * 366 * 86400 * 10**9 < NEVER


def test_the_systems_wheel_has_ticks_of_10_ms() -> None:
    """The system's clock asks for ticks of 10 ms."""
    assert 10 * MILLISECOND == SYSTEM.resolution


def test_the_systems_clock_is_a_clock() -> None:
    """The system's clock has what nsqlite needs to know of time."""
    clock: Clock = SystemClock()  # mypy compares the two
    assert all(hasattr(clock, name) for name in vars(Clock) if not name.startswith("_"))


def test_nothing_attaches_to_real_time() -> None:
    """Who attaches to the system's clock is never called, whatever it tells."""
    SYSTEM.attach(Untouchable())(0)


class Untouchable:
    """Something with deadlines that must not be asked."""

    due = 0

    def next_due(self) -> int:
        raise AssertionError

    def whose(self) -> str:
        raise AssertionError

    def advance(self) -> None:
        raise AssertionError


# Semaphores


def test_a_release_wakes_the_sleeper() -> None:
    """A semaphore that was released can be taken again."""
    semaphore = held()
    release(semaphore)
    assert semaphore.acquire(blocking=False)


def test_released_twice_is_released_once() -> None:
    """A second release raises nothing and is not kept."""
    semaphore = held()
    release(semaphore)
    release(semaphore)
    taken = [semaphore.acquire(blocking=False), semaphore.acquire(blocking=False)]
    assert [True, False] == taken


# Waits


def ahead(span: int | None) -> int | None:
    """Return the moment that is so far ahead."""
    return None if span is None else SYSTEM.monotonic_ns() + span


@pytest.mark.parametrize("span", [None, -MILLISECOND, 0, MILLISECOND, FOR_EVER])
def test_a_wait_ends_with_the_release(span: int | None) -> None:
    """A wait for a semaphore that was released returns True and holds the semaphore again."""
    semaphore = held()
    release(semaphore)
    assert SYSTEM.wait(semaphore, ahead(span), "a test")
    assert semaphore.locked()


@pytest.mark.parametrize("span", [None, FOR_EVER])
def test_another_thread_ends_a_wait(span: int | None) -> None:
    """A wait ends when another thread releases the semaphore."""
    semaphore = held()
    thread = threading.Thread(target=release, args=[semaphore])
    thread.start()
    assert SYSTEM.wait(semaphore, ahead(span), "a test")
    thread.join()


@pytest.mark.parametrize("span", [-MILLISECOND, 0, 1, MILLISECOND])
def test_a_wait_ends_with_its_moment(span: int) -> None:
    """A wait for a semaphore that nobody releases returns False, not before its moment."""
    semaphore = held()
    moment = time.monotonic_ns() + span
    assert not SYSTEM.wait(semaphore, moment, "a test")
    assert time.monotonic_ns() >= moment
    assert semaphore.locked()


# Frozen time


@pytest.mark.parametrize("freezer", FREEZERS)
def test_a_frozen_wait_ends(freezer: Freezer) -> None:
    """A wait ends with its timeout although a test has frozen time."""
    semaphore = held()
    with freezer():
        assert not SYSTEM.wait(semaphore, ahead(MILLISECOND), "a test")


@pytest.mark.parametrize("freezer", FREEZERS)
@pytest.mark.parametrize("timeout", [0, 0.01])
def test_a_frozen_get_ends(freezer: Freezer, timeout: float) -> None:
    """A get with a timeout ends with `Empty` although a test has frozen time."""
    with freezer():
        consumer = Consumer(Topic("orders").channel("billing"))
        with pytest.raises(Empty):
            consumer.get(timeout=timeout)


@pytest.mark.parametrize("freezer", FREEZERS)
def test_a_get_ends_that_is_frozen_later(freezer: Freezer) -> None:
    """A get ends too if time was frozen after everything was made."""
    consumer = Consumer(Topic("orders").channel("billing"))
    with freezer(), pytest.raises(Empty):
        consumer.get(timeout=0.01)


@pytest.mark.parametrize("freezer", FREEZERS)
def test_a_frozen_get_ends_beside_a_deadline(freezer: Freezer) -> None:
    """A frozen get that watches a deadline ahead of its timeout ends with its timeout."""
    with freezer():
        topic = Topic("orders", resolution=0.001)
        consumer = Consumer(topic.channel("billing"))
        topic.put(b"later", delay=0.002)
        topic.put(b"much later", delay=100)
        with pytest.raises(Empty):
            while True:
                consumer.get(timeout=0.01)


@pytest.mark.parametrize("freezer", FREEZERS)
def test_a_frozen_put_ends(freezer: Freezer) -> None:
    """A put with a timeout ends with `Full` although a test has frozen time."""
    with freezer():
        topic = Topic("orders", max_depth=1)
        topic.channel("billing")
        topic.put(b"1")
        with pytest.raises(Full):
            topic.put(b"2", timeout=0.01)


@pytest.mark.parametrize("freezer", FREEZERS)
def test_a_frozen_join_ends(freezer: Freezer) -> None:
    """A join with a timeout ends with False although a test has frozen time."""
    with freezer():
        topic = Topic("orders")
        channel = topic.channel("billing")
        topic.put(b"1")
        assert not channel.join(timeout=0.01)
        assert not topic.join(timeout=0.01)


@pytest.mark.parametrize("freezer", FREEZERS)
def test_ids_go_on_while_time_is_frozen(freezer: Freezer) -> None:
    """Ids neither wait nor repeat while time stands."""
    with freezer():
        ids = Topic("orders").put_many([b"x"] * 5000)
    assert 5000 == len(set(ids))


def test_a_semaphore_is_a_lock() -> None:
    """A `threading.Lock` serves as a semaphore."""
    semaphore: Semaphore = held()  # mypy compares the two
    assert not semaphore.acquire(blocking=False)


def test_a_class_is_no_clock() -> None:
    """The class of a clock given instead of one is refused where it is given."""
    kind: Any = ManualClock
    with pytest.raises(InvalidOption, match="clock"):
        Topic("orders", clock=kind)
