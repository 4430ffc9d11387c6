"""A blocked call: its bell, and waiting until a condition is true."""

from collections.abc import Callable
from functools import partial

import pytest
from helpers import Call, TellingClock

from nsqlite import Reentered
from nsqlite.clock import Alarm, Bell, Loop, Timed
from nsqlite.guard import Guard
from nsqlite.waiter import Waiter, wait_until


class Script:
    """A clock whose waits do what a test says, one after the other."""

    resolution = 1

    def __init__(self, *waits: Callable[[], object]) -> None:
        self.now = 100
        self.timeouts: list[int | None] = []
        self.waiters: list[str] = []
        self._waits = list(waits)

    @property
    def monotonic_ns(self) -> Callable[[], int]:
        return lambda: self.now

    @property
    def time_ns(self) -> Callable[[], int]:
        return lambda: self.now

    def attach(self, timed: Timed) -> None:
        raise NotImplementedError

    def alarm(self, loop: Loop, moment: int, callback: Callable[[], object]) -> Alarm:
        raise NotImplementedError

    def wait(self, bell: Bell, timeout: int | None, who: str) -> bool:
        self.timeouts.append(timeout)
        self.waiters.append(who)
        self._waits.pop(0)()
        return bell.acquire(blocking=False)

    def pass_by(self, nanoseconds: int) -> None:
        self.now += nanoseconds


def ring_all(guard: Guard) -> None:
    """Wake all who wait, whether or not what they wait for is true."""
    for joiner in guard.joiners:
        joiner.ring()


# The waiter


def test_a_waiter_begins_unrung_with_empty_hands() -> None:
    """A new waiter has no message, is not gone, and its bell is held."""
    waiter: Waiter[bytes] = Waiter("Ann")
    assert ("Ann", None, False) == (waiter.owner, waiter.message, waiter.gone)
    assert not waiter.bell.acquire(blocking=False)


def test_a_call_that_is_no_get_has_no_owner() -> None:
    """A waiter for a put or join belongs to no consumer."""
    assert Waiter[bytes]().owner is None


def test_a_ring_is_kept_until_somebody_listens() -> None:
    """A waiter that was rung, however often, sleeps again only when it has listened."""
    waiter: Waiter[bytes] = Waiter()
    free = []
    waiter.ring()
    waiter.ring()
    free.append(waiter.bell.acquire(blocking=False))
    waiter.ring()
    waiter.listen()
    free.append(waiter.bell.acquire(blocking=False))
    waiter.listen()
    waiter.ring()
    free.append(waiter.bell.acquire(blocking=False))
    assert [True, False, True] == free


# Waiting until


def test_what_is_true_is_not_waited_for() -> None:
    """A condition that is true is found so under the lock, and nobody waits."""
    guard = Guard()
    clock = Script()
    owned: list[bool] = []

    def done() -> bool:
        owned.append(guard.lock.owned())
        return True

    assert wait_until(guard, clock, done, None, "a test")
    assert {True} == set(owned)
    assert ([], 0) == (clock.timeouts, len(guard.joiners))


def test_a_wait_ends_when_its_condition_is_true() -> None:
    """A waiter that is rung looks again, waits on if it is not true yet, and ends when it is."""
    guard = Guard()
    true: list[bool] = []

    def come_true() -> None:
        true.append(True)
        guard.run(guard.ring_joiners)

    clock = Script(partial(ring_all, guard), come_true)
    assert wait_until(guard, clock, lambda: bool(true), None, "a test")
    assert ([None, None], ["a test"] * 2) == (clock.timeouts, clock.waiters)
    assert (0, False) == (len(guard.joiners), guard.alert)


def test_a_waiter_is_known_while_it_waits() -> None:
    """While it waits a waiter is among the joiners with its condition, which alerts the topic."""
    guard = Guard()
    seen: list[object] = []

    def done() -> bool:
        return False

    clock = Script(lambda: seen.append((guard.alert, [*guard.joiners.values()])))
    assert not wait_until(guard, clock, done, 10, "a test")
    assert [(True, [done])] == seen
    assert (False, 0) == (guard.alert, len(guard.joiners))


def test_a_timeout_counts_from_the_call() -> None:
    """A waiter that is rung in vain waits for what is left of its timeout, and then no longer."""
    guard = Guard()
    clock = Script()

    def ring_after(nanoseconds: int) -> Callable[[], None]:
        def wait() -> None:
            clock.pass_by(nanoseconds)
            ring_all(guard)

        return wait

    clock._waits += [ring_after(3), ring_after(4), ring_after(5)]
    assert not wait_until(guard, clock, lambda: False, 10, "a test")
    assert [10, 7, 3] == clock.timeouts


def test_no_timeout_at_all_does_not_wait() -> None:
    """With a timeout of 0 the condition is looked at, and nobody waits."""
    clock = Script()
    assert not wait_until(Guard(), clock, lambda: False, 0, "a test")
    assert [] == clock.timeouts


def test_the_last_moment_counts() -> None:
    """A condition that comes true when the timeout has just passed is found true."""
    true: list[bool] = []
    clock = Script(lambda: true.append(True))
    assert wait_until(Guard(), clock, lambda: bool(true), 10, "a test")


def test_an_interrupted_wait_leaves_nothing() -> None:
    """A wait that an exception ends is no longer among the joiners."""
    guard = Guard()

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wait_until(guard, Script(interrupt), lambda: False, None, "a test")
    assert (0, False) == (len(guard.joiners), guard.alert)


def test_nobody_waits_inside_another_call() -> None:
    """A wait is refused to a thread that is inside another call, even if there is nothing to do."""
    guard = Guard()
    clock = Script()
    with pytest.raises(Reentered) as info:
        guard.run(lambda: wait_until(guard, clock, lambda: True, None, "a test"))
    assert ("join", 0, []) == (info.value.call, len(guard.joiners), clock.timeouts)


def test_another_thread_ends_a_wait() -> None:
    """A wait in real time ends when another thread makes the condition true and rings."""
    guard = Guard()
    clock = TellingClock()
    true: list[bool] = []

    def come_true() -> None:
        true.append(True)
        guard.ring_joiners()

    call = Call(lambda: wait_until(guard, clock, lambda: bool(true), None, "a test"))
    clock.until_waiting()
    guard.run(come_true)
    assert call.result() is True
