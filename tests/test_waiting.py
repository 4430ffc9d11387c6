"""Blocked calls: waiters, waiting until a condition is true, and the queue of the getters."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

import attrs
import pytest
from helpers import Call, TellingClock
from hypothesis import given
from hypothesis import strategies as st

from nsqlite import Message, Reentered
from nsqlite.clock import NEVER, SYSTEM, Alarm, Loop, Semaphore, Timed
from nsqlite.monitor import Monitor
from nsqlite.options import SECOND
from nsqlite.testing import ManualClock
from nsqlite.waiting import Reminders, ThreadWaiter, Waiter, WaitQueue, wait_until


class Script:
    """A clock whose waits do what a test says, one after the other."""

    resolution = 1

    def __init__(self, *waits: Callable[[], object]) -> None:
        self.now = 100
        self.moments: list[int | None] = []
        self.waiters: list[str] = []
        self._waits = list(waits)

    @property
    def monotonic_ns(self) -> Callable[[], int]:
        return lambda: self.now

    @property
    def time_ns(self) -> Callable[[], int]:
        return lambda: self.now

    def attach(self, timed: Timed) -> Callable[[int], object]:
        raise NotImplementedError

    def alarm(self, loop: Loop, moment: int, callback: Callable[[], object]) -> Alarm:
        raise NotImplementedError

    def wait(self, semaphore: Semaphore, moment: int | None, who: str) -> bool:
        self.moments.append(moment)
        self.waiters.append(who)
        self._waits.pop(0)()
        return semaphore.acquire(blocking=False)

    def pass_by(self, nanoseconds: int) -> None:
        self.now += nanoseconds


def notify_all(monitor: Monitor) -> None:
    """Wake all who wait, whether or not what they wait for is true."""
    for join in monitor.joins:
        join.notify()


# The waiter


def test_a_waiter_begins_asleep_with_empty_hands() -> None:
    """A new waiter has no message, is not gone, and its semaphore is held."""
    waiter: Waiter[bytes] = ThreadWaiter(Monitor(), "Ann")
    assert ("Ann", None, False) == (waiter.owner, waiter.message, waiter.gone)
    assert not waiter.semaphore.acquire(blocking=False)


def test_a_call_that_is_no_get_has_no_owner() -> None:
    """A waiter for a put or join belongs to no consumer."""
    assert ThreadWaiter[bytes](Monitor()).owner is None


def test_a_notification_is_kept_until_somebody_listens() -> None:
    """A waiter that was notified, however often, sleeps again only when it has listened."""
    waiter: Waiter[bytes] = ThreadWaiter(Monitor())
    free = []
    waiter.notify()
    waiter.notify()
    free.append(waiter.semaphore.acquire(blocking=False))
    waiter.notify()
    waiter.listen()
    free.append(waiter.semaphore.acquire(blocking=False))
    waiter.listen()
    waiter.notify()
    free.append(waiter.semaphore.acquire(blocking=False))
    assert [True, False, True] == free


# Its hands


def handed() -> tuple[WaitQueue[bytes], Waiter[bytes], Message[bytes]]:
    """Return a waiter that was handed a message."""
    monitor = Monitor()
    queue: WaitQueue[bytes] = WaitQueue(monitor)
    waiter: Waiter[bytes] = ThreadWaiter(monitor)
    message: Message[bytes] = Message()
    waiter.message = message
    queue.handed[message] = waiter
    return queue, waiter, message


def test_what_was_handed_is_claimed_once() -> None:
    """Who claims what he was handed has it, and nobody takes it back any more."""
    queue, waiter, message = handed()
    assert queue.claim(waiter) is message
    assert {} == queue.handed
    assert queue.claim(waiter) is None


def test_what_was_taken_back_is_not_claimed() -> None:
    """What was taken back on its way is not claimed; empty hands claim nothing."""
    queue, waiter, message = handed()
    assert queue.handed.pop(message) is waiter
    assert queue.claim(waiter) is None
    assert queue.claim(ThreadWaiter[bytes](Monitor())) is None


# Waiting until


def test_what_is_true_is_not_waited_for() -> None:
    """A condition that is true is found so under the lock, and nobody waits."""
    monitor = Monitor()
    clock = Script()
    owned: list[bool] = []

    def done() -> bool:
        owned.append(monitor.lock.owned())
        return True

    assert wait_until(monitor, clock, done, None, "a test")
    assert {True} == set(owned)
    assert ([], 0) == (clock.moments, len(monitor.joins))


def test_a_wait_ends_when_its_condition_is_true() -> None:
    """A waiter that is notified looks again, waits on if need be, and ends when it is true."""
    monitor = Monitor()
    true: list[bool] = []

    def come_true() -> None:
        true.append(True)
        monitor.run(monitor.notify_joins)

    clock = Script(partial(notify_all, monitor), come_true)
    assert wait_until(monitor, clock, lambda: bool(true), None, "a test")
    assert ([None, None], ["a test"] * 2) == (clock.moments, clock.waiters)
    assert 0 == len(monitor.joins)


def test_a_waiter_is_known_while_it_waits() -> None:
    """While it waits a waiter is among the joins with its condition."""
    monitor = Monitor()
    seen: list[object] = []

    def done() -> bool:
        return False

    clock = Script(lambda: seen.append([*monitor.joins.values()]))
    assert not wait_until(monitor, clock, done, 10, "a test")
    assert [[done]] == seen
    assert 0 == len(monitor.joins)


def test_a_timeout_counts_from_the_call() -> None:
    """A waiter that is notified in vain waits until the same moment again, and then no longer."""
    monitor = Monitor()
    clock = Script()

    def notify_after(nanoseconds: int) -> Callable[[], None]:
        def wait() -> None:
            clock.pass_by(nanoseconds)
            notify_all(monitor)

        return wait

    clock._waits += [notify_after(3), notify_after(4), notify_after(5), lambda: None]
    assert not wait_until(monitor, clock, lambda: False, 10, "a test")
    assert [110] * 4 == clock.moments


def test_no_timeout_at_all_waits_for_a_moment_that_has_come() -> None:
    """With a timeout of 0 the condition is looked at, and nobody waits any longer."""
    clock = Script(lambda: None)
    assert not wait_until(Monitor(), clock, lambda: False, 0, "a test")
    assert [100] == clock.moments


def test_the_last_moment_counts() -> None:
    """A condition that comes true when the timeout has just passed is found true."""
    true: list[bool] = []
    clock = Script(lambda: true.append(True))
    assert wait_until(Monitor(), clock, lambda: bool(true), 10, "a test")


def test_an_interrupted_wait_leaves_nothing() -> None:
    """A wait that an exception ends is no longer among the joins."""
    monitor = Monitor()

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wait_until(monitor, Script(interrupt), lambda: False, None, "a test")
    assert 0 == len(monitor.joins)


def test_nobody_waits_inside_another_call() -> None:
    """A wait is refused to a thread that is inside another call, even if there is nothing to do."""
    monitor = Monitor()
    clock = Script()
    with pytest.raises(Reentered) as info:
        monitor.run(lambda: wait_until(monitor, clock, lambda: True, None, "a test"))
    assert ("join", 0, []) == (info.value.call, len(monitor.joins), clock.moments)


def test_another_thread_ends_a_wait() -> None:
    """A wait in real time ends when another thread makes the condition true and times."""
    monitor = Monitor()
    clock = TellingClock()
    true: list[bool] = []

    def come_true() -> None:
        true.append(True)
        monitor.notify_joins()

    call = Call(lambda: wait_until(monitor, clock, lambda: bool(true), None, "a test"))
    clock.until_waiting()
    monitor.run(come_true)
    assert call.result() is True


@attrs.define(eq=False)
class Owner:
    """A consumer, as far as a queue knows it."""

    name: str
    full: bool = False

    def _is_full(self) -> bool:
        return self.full


Getter: TypeAlias = Waiter[bytes]


class Scene:
    """A queue, and two consumers."""

    def __init__(self) -> None:
        self.monitor = Monitor()
        self.queue: WaitQueue[bytes] = WaitQueue(self.monitor)
        self.ann = Owner("Ann")
        self.bob = Owner("Bob")

    def join(self, *owners: Owner) -> list[Getter]:
        """Queue up a getter for each of the owners."""
        getters: list[Getter] = [ThreadWaiter(self.monitor, owner) for owner in owners]
        for getter in getters:
            self.queue.join(getter)
        return getters

    def check(self) -> None:
        """Check what must hold after every step."""
        queue = self.queue
        everybody = [*queue.able, *itertools.chain(*queue.parked.values())]
        assert len(everybody) == len(set(everybody))
        assert len(queue.able) == self.monitor.waiting
        assert all(queue.parked.values())
        for owner, parked in queue.parked.items():
            assert {owner} == {getter.owner for getter in parked}
        assert (queue.watcher is None) is (everybody == [])
        assert queue.watcher is None or queue.watcher in queue


def notified(*getters: Getter) -> list[bool]:
    """Return which of them were notified since the last call."""
    return [getter.semaphore.acquire(blocking=False) for getter in getters]


# Coming and going


def test_an_empty_queue_has_nobody() -> None:
    """A queue begins with nobody next and nobody watching."""
    queue = Scene().queue
    assert (None, None) == (queue.first(), queue.watcher)
    assert ThreadWaiter[bytes](Monitor(), Owner("Ann")) not in queue


def test_able_first_served() -> None:
    """Who came first is next, until he leaves."""
    scene = Scene()
    first, second = scene.join(scene.ann, scene.bob)
    assert scene.queue.first() is first
    scene.queue.leave(first)
    assert scene.queue.first() is second
    scene.check()


def test_who_leaves_is_gone() -> None:
    """Who has left is not in the queue; a second time it does nothing."""
    scene = Scene()
    first, second = scene.join(scene.ann, scene.bob)
    scene.queue.leave(first)
    scene.queue.leave(first)
    assert (False, True) == (first in scene.queue, second in scene.queue)
    scene.check()


def test_who_is_gone_is_passed_over() -> None:
    """Who has been interrupted and not left yet is taken out when his turn comes."""
    scene = Scene()
    first, second = scene.join(scene.ann, scene.bob)
    first.gone = True
    assert scene.queue.first() is second
    assert first not in scene.queue
    assert scene.queue.watcher is second
    scene.check()


def test_the_guard_knows_how_many_wait() -> None:
    """The monitor counts those who could take a message, and not the parked."""
    scene = Scene()
    scene.bob.full = True
    first, *_ = scene.join(scene.ann, scene.ann, scene.bob)
    assert 2 == scene.monitor.waiting
    scene.queue.leave(first)
    assert 1 == scene.monitor.waiting


# Windows


def test_a_full_window_parks() -> None:
    """Who comes with a full window is not waiting for a message."""
    scene = Scene()
    scene.ann.full = True
    parked, free = scene.join(scene.ann, scene.bob)
    assert scene.queue.first() is free
    assert ([free], {scene.ann: [parked]}) == (
        list(scene.queue.able),
        {owner: list(getters) for owner, getters in scene.queue.parked.items()},
    )
    assert parked in scene.queue
    scene.check()


def test_a_window_that_has_filled_parks_too() -> None:
    """Who could take a message when he came and cannot now is passed over."""
    scene = Scene()
    first, second, third = scene.join(scene.ann, scene.bob, scene.ann)
    scene.ann.full = True
    assert scene.queue.first() is second
    assert [first] == list(scene.queue.parked[scene.ann])
    scene.queue.leave(second)
    assert scene.queue.first() is None
    assert [first, third] == list(scene.queue.parked[scene.ann])
    scene.check()


def test_an_open_window_makes_able() -> None:
    """Who waited for his window is in the queue again, behind those who are there."""
    scene = Scene()
    scene.ann.full = True
    one, other, free = scene.join(scene.ann, scene.ann, scene.bob)
    scene.ann.full = False
    scene.queue.unpark(scene.ann)
    scene.queue.unpark(scene.ann)
    assert ([free, one, other], {}) == (list(scene.queue.able), scene.queue.parked)
    scene.check()


def test_everybody_can_be_made_able() -> None:
    """When windows matter no more all who were parked are in queue."""
    scene = Scene()
    scene.ann.full = scene.bob.full = True
    getters = scene.join(scene.ann, scene.bob, scene.ann)
    scene.queue.unpark_all()
    assert (set(getters), {}) == (set(scene.queue.able), scene.queue.parked)
    scene.check()


def test_who_is_parked_can_leave() -> None:
    """Who leaves while parked is gone, and with the last one his consumer."""
    scene = Scene()
    scene.ann.full = True
    one, other = scene.join(scene.ann, scene.ann)
    scene.queue.leave(one)
    assert (False, True) == (one in scene.queue, other in scene.queue)
    scene.check()
    scene.queue.leave(other)
    assert {} == scene.queue.parked
    scene.check()


# The watcher


def test_who_comes_first_watches() -> None:
    """The first to come watches, able or parked; nobody is woken for that."""
    scene = Scene()
    scene.ann.full = True
    parked, free = scene.join(scene.ann, scene.bob)
    assert scene.queue.watcher is parked
    assert [False, False] == notified(parked, free)


def test_a_leaving_watcher_appoints_the_last_to_come() -> None:
    """When the watcher leaves, the last to come is notified and watches."""
    scene = Scene()
    scene.bob.full = True
    first, second, parked, third = scene.join(scene.ann, scene.ann, scene.bob, scene.ann)
    scene.queue.leave(first)
    assert scene.queue.watcher is third
    assert [False, True, False] == notified(second, third, parked)
    scene.check()


def test_a_leaving_watcher_appoints_one_who_is_parked() -> None:
    """When the watcher leaves and the last to come is parked, he is notified and watches."""
    scene = Scene()
    scene.bob.full = True
    first, other, parked = scene.join(scene.ann, scene.bob, scene.bob)
    scene.queue.leave(first)
    assert scene.queue.watcher is parked
    assert [True, False] == notified(parked, other)
    scene.check()


def test_the_last_watcher_appoints_nobody() -> None:
    """When the last one leaves nobody watches."""
    scene = Scene()
    [only] = scene.join(scene.ann)
    scene.queue.leave(only)
    assert scene.queue.watcher is None
    scene.check()


def test_who_does_not_watch_leaves_quietly() -> None:
    """When another than the watcher leaves the watcher stays, and nobody is woken."""
    scene = Scene()
    first, second, third = scene.join(scene.ann, scene.ann, scene.ann)
    scene.queue.leave(second)
    assert scene.queue.watcher is first
    assert [False, False, False] == notified(first, second, third)


def test_the_watcher_is_told_of_an_earlier_deadline() -> None:
    """The watcher alone is notified for a deadline; where nobody waits nothing happens."""
    scene = Scene()
    scene.queue.notify_watchers()
    first, second = scene.join(scene.ann, scene.bob)
    scene.queue.notify_watchers()
    assert [True, False] == notified(first, second)


# Everybody


def test_everybody_can_be_notified() -> None:
    """All are notified, able and parked."""
    scene = Scene()
    scene.bob.full = True
    getters = scene.join(scene.ann, scene.bob, scene.ann)
    scene.queue.notify_all()
    assert [True, True, True] == notified(*getters)


def test_getters_can_be_dismissed() -> None:
    """Those who are to go are notified and taken out of the queue, wherever they stand."""
    scene = Scene()
    waiting, other = scene.join(scene.ann, scene.bob)
    scene.ann.full = True
    [parked] = scene.join(scene.ann)
    scene.queue.dismiss([waiting, parked])
    assert [waiting not in scene.queue, other in scene.queue, parked not in scene.queue] == [
        True
    ] * 3
    assert [True, True] == notified(waiting, parked)
    scene.check()


class Timer:
    """Stands for an event loop's timer."""

    def __init__(self, waiters: int) -> None:
        self.waiters = dict.fromkeys(range(waiters))
        self.times = 0

    def notify(self) -> None:
        self.times += 1

    def set(self) -> None:
        raise AssertionError

    def end(self) -> None:
        raise AssertionError


def test_timers_are_told_of_an_earlier_deadline() -> None:
    """Every timer for which somebody waits is notified, beside the watcher."""
    scene = Scene()
    [watcher] = scene.join(scene.ann)
    busy, idle = Timer(1), Timer(0)
    scene.queue.timers |= {"busy": busy, "idle": idle}
    scene.queue.notify_watchers()
    assert ([True], 1, 0) == (notified(watcher), busy.times, idle.times)


def test_who_waits_in_a_loop_does_not_watch() -> None:
    """One in an event loop waits like the others, but only a thread is the watcher."""
    scene = Scene()
    remote: Getter = Waiter(scene.monitor, scene.ann)
    scene.queue.join(remote)
    assert scene.queue.watcher is None
    [thread] = scene.join(scene.bob)
    assert thread is scene.queue.watcher
    scene.queue.leave(thread)
    assert scene.queue.watcher is None
    scene.queue._check()


def test_a_child_forgets_the_queue() -> None:
    """In a fork's child the queue is empty, and who is left in it, this thread, looks again."""
    scene = Scene()
    scene.bob.full = True
    getters = scene.join(scene.ann, scene.bob)
    scene.queue.forget()
    scene.monitor.forget_waiters()
    assert ([True, True], None) == (notified(*getters), scene.queue.first())
    scene.check()


# Whatever happens


STEPS: Final = st.lists(st.tuples(st.sampled_from("jlfuaot"), st.integers(0, 9)), max_size=60)


@given(STEPS)
def test_a_line_stays_whole(steps: list[tuple[str, int]]) -> None:
    """Whoever comes, leaves, fills or opens a window: nobody is lost or twice, and one watches."""
    scene = Scene()
    owners = [scene.ann, scene.bob]
    getters: list[Getter] = []
    for step, pick in steps:
        owner = owners[pick % 2]
        match step:
            case "j":
                getters += scene.join(owner)
            case "l" if getters:
                scene.queue.leave(getters.pop(pick % len(getters)))
            case "t":
                owner.full = not owner.full
            case "f":
                first = scene.queue.first()
                free = [getter for getter in getters if not getter.owner.full]
                assert first is None or not first.owner.full
                assert free == [] or first is not None or set(free) <= parked(scene)
            case "u":
                scene.queue.unpark(owner)
            case "a":
                scene.queue.unpark_all()
            case "o":
                scene.queue.appoint()
        assert all(getter in scene.queue for getter in getters)
        scene.check()


def parked(scene: Scene) -> set[Getter]:
    return set(itertools.chain(*scene.queue.parked.values()))


def test_reminders() -> None:
    """A long wait is told of after 10 s, then each time it has taken twice as long."""
    reminders = Reminders(SYSTEM, 7)
    for after in (10, 20, 40, 80):
        assert after * SECOND + 7 == reminders.moment
        reminders.go_on(reminders.moment)
    reminders.go_on(7 + 1000 * SECOND)  # what is past is left out
    assert 1280 * SECOND + 7 == reminders.moment
    assert NEVER == Reminders(ManualClock(), 7).moment
