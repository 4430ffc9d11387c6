"""Blocked calls: waiters, and the wait queue of a channel's getters.

The rule: first come, first served among those who could take a message; one of the threads that
wait, the watcher, sleeps no longer than to the channel's next deadline, and when it leaves another
is appointed; for those who wait in an event loop the loop has a timer of its own.

A waiter that was notified looks under the topic's lock what has changed, except that a message it
finds in its hands is its own.

Everything in a wait queue expects the topic's lock.

Next: latency.py
"""

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from typing import Any, ClassVar, Final, Generic, Protocol

from nsqlite.clock import NEVER, Clock, held_semaphore, release
from nsqlite.message import Message, T
from nsqlite.monitor import Blocked, Monitor
from nsqlite.options import SECOND

LONG: Final = 10 * SECOND
"""A put that has waited so long for room is told of: in the log, then each time that it has waited
twice as long, for a day; and all the time in `Broker.health`."""


class Windowed(Protocol):
    """What a wait queue needs of a consumer."""

    def _is_full(self) -> bool:
        """Return whether its window has no room."""
        ...


class LoopTimer(Protocol):
    """What looks when the channel's next deadline has come, for all who wait in one event loop.

    Attributes:
        waiters: these, by `id`, so that it keeps none of them alive.
    """

    waiters: dict[int, None]

    def set(self) -> None:
        """Set it anew; called in the loop's own thread."""
        ...

    def notify(self) -> None:
        """Tell it of an earlier deadline."""
        ...

    def end(self) -> None:
        """Tell it that somebody waits no more; from any thread."""
        ...


class Waiter(Generic[T]):
    """Who waits, in whatever way: in a call of get, put or join, or for `Consumer.when_ready`.

    Attributes:
        owner: the consumer whose get this is; of a put without a limit, the thread, by its number,
            or the task that waits; None for another call.
        message: what it has been handed, if that is still in `WaitQueue.handed`.
        gone: its wait was interrupted; it takes nothing any more.
        semaphore: what a thread sleeps on, a lock that is held while there is nothing to see; None
            for a call that is woken by `wake`.
        hand: whether it is handed a message; else it is only notified that there is one.
    """

    __slots__ = ("_monitor", "gone", "message", "owner", "semaphore")

    hand: ClassVar[bool] = True

    def __init__(self, monitor: Monitor, owner: Any = None) -> None:
        """Begin with empty hands.

        Args:
            monitor: the topic's.
            owner: see the class.
        """
        self._monitor: Final = monitor
        self.owner: Any = owner
        self.message: Message[T] | None = None
        self.gone: bool = False
        self.semaphore: Any = None

    def notify(self) -> None:
        """Have the call look again.  Runs no user code; the topic's lock is held."""
        self._monitor.wake_later(self)

    def listen(self) -> None:
        """Be ready for the next notification.  The topic's lock is held."""

    def wake(self) -> None:
        """Wake the call, after the lock, in any thread; for one that sleeps on no semaphore."""


class ThreadWaiter(Waiter[T]):
    """A call in which a thread sleeps, on its semaphore."""

    __slots__ = ()

    def __init__(self, monitor: Monitor, owner: Any = None) -> None:
        """See `Waiter`."""
        super().__init__(monitor, owner)
        self.semaphore = held_semaphore()

    def notify(self) -> None:
        """See `Waiter.notify`."""
        release(self.semaphore)

    def listen(self) -> None:
        """See `Waiter.listen`."""
        self.semaphore.acquire(blocking=False)


class Reminders:
    """When to tell of a wait that takes long: after `LONG`, twice that, four times, and so on.

    On a clock that is moved by hand never: time is not to move for the sake of a log record.

    Attributes:
        moment: the next time; `NEVER` if there is none.
    """

    __slots__ = ("_begun", "moment")

    def __init__(self, clock: Clock, begun: int) -> None:
        """Begin.

        Args:
            clock: on which the wait is.
            begun: when it has begun.
        """
        self._begun: Final = begun
        self.moment: int = NEVER if getattr(clock, "by_hand", False) else begun + LONG

    def go_on(self, now: int) -> None:
        """Take note that it was told of, and of what the time is."""
        waited = self.moment - self._begun
        while self._begun + waited <= now:
            waited *= 2
        self.moment = self._begun + waited


class WaitQueue(Generic[T]):
    """The blocked getters of a channel.

    Attributes:
        able: those who could take a message, in the order in which they came.
        parked: those whose consumer's window is full, by consumer.
        threads: those of both that are threads.
        handed: the messages that were handed over and not claimed yet, each with its waiter.
        notified: the consumers that `Consumer.when_ready` has told of a ready message, each
            with how many it had been given by then; it has asked for it when it is given more.
        watcher: which of the threads wakes for the channel's deadlines; None if there are none.
        timers: what does so in event loops, by loop.
    """

    __slots__ = (
        "_monitor",
        "able",
        "handed",
        "notified",
        "parked",
        "threads",
        "timers",
        "watcher",
    )

    def __init__(self, monitor: Monitor) -> None:
        """Make an empty wait queue."""
        self._monitor: Final = monitor
        self.able: OrderedDict[Waiter[T], None] = OrderedDict()
        self.parked: dict[Windowed, OrderedDict[Waiter[T], None]] = {}
        self.threads: dict[Waiter[T], None] = {}
        self.handed: dict[Message[T], Waiter[T]] = {}
        self.notified: dict[weakref.ref[Any], int] = {}
        self.watcher: Waiter[T] | None = None
        self.timers: dict[Hashable, LoopTimer] = {}

    def __contains__(self, waiter: Waiter[T]) -> bool:
        """Return whether somebody waits here."""
        return waiter in self.able or waiter in self.parked.get(waiter.owner, ())

    def claim(self, waiter: Waiter[T]) -> Message[T] | None:
        """Return what a waiter was handed; None if that is nothing, or was taken back on the way.

        Needs no lock: of those who claim a message and those who take it back one gets it.
        """
        message = waiter.message
        if message is None or self.handed.pop(message, None) is None:
            return None
        return message

    def notify_ready(self, waiter: Waiter[T], ready: int) -> bool:
        """Notify one who only wants to know, unless others were notified of all that is ready."""
        owner = weakref.ref(waiter.owner)
        delivered: int = waiter.owner._delivered
        if len(self.notified) >= ready and self.count_notified() >= ready:
            return False
        # One piece:
        self.notified[owner] = delivered
        del self.able[waiter]
        self._monitor.waiting -= 1
        self._monitor.woken[waiter] = None
        self._monitor.after = True
        return True

    def forget_notified(self, owner: Any) -> None:
        """Take note that a consumer has asked for what it was notified of, or will not."""
        if self.notified:
            self.notified.pop(weakref.ref(owner), None)

    def count_notified(self) -> int:
        """Return how many were notified and have been given nothing since."""
        for other, before in list(self.notified.items()):
            owner = other()
            if owner is None or owner._delivered != before or owner._is_full():
                del self.notified[other]
        return len(self.notified)

    def join(self, waiter: Waiter[T]) -> bool:
        """Queue somebody up at the end who does not wait yet.

        Returns:
            Whether the waiter has come now, and could take nothing.
        """
        if waiter in self.able:
            return False
        full: bool = waiter.owner._is_full()
        if full:
            parked = self.parked.setdefault(waiter.owner, OrderedDict())
            if waiter in parked:
                return False
            parked[waiter] = None
        else:
            self.able[waiter] = None
            self._monitor.waiting += 1
        if waiter.semaphore is not None:
            self.threads[waiter] = None
            if self.watcher is None:
                self.watcher = waiter
        return full

    def leave(self, waiter: Waiter[T]) -> None:
        """Take somebody out, wherever he waits."""
        if waiter in self.able:
            del self.able[waiter]
            self._monitor.waiting -= 1
        parked = self.parked.get(waiter.owner)
        if parked is not None:
            parked.pop(waiter, None)
            if not parked:
                del self.parked[waiter.owner]
        self.threads.pop(waiter, None)
        if self.watcher is waiter:
            self.watcher = None
        self.appoint()

    def first(self) -> Waiter[T] | None:
        """Return who is to get the next message; park those on the way who could not take it."""
        while self.able:
            waiter = next(iter(self.able))
            if waiter.gone:
                self.leave(waiter)
                continue
            if not waiter.owner._is_full():
                return waiter
            self.parked.setdefault(waiter.owner, OrderedDict())[waiter] = None
            del self.able[waiter]
            self._monitor.waiting -= 1
        return None

    def unpark(self, owner: Windowed) -> None:
        """Queue up those who waited for a window that has opened or matters no more."""
        parked = self.parked.get(owner, OrderedDict())
        while parked:
            waiter = next(iter(parked))
            self.able[waiter] = None
            self._monitor.waiting += 1
            del parked[waiter]  # one piece with the two lines above
        self.parked.pop(owner, None)

    def unpark_all(self) -> None:
        """Queue up everybody."""
        for owner in list(self.parked):
            self.unpark(owner)

    def appoint(self) -> None:
        """See to it that a thread is the watcher: the last to come, which stays longest."""
        if self.watcher is None and self.threads:
            self.watcher = next(reversed(self.threads))
            self.watcher.notify()

    def notify_watchers(self) -> None:
        """Tell all who watch of an earlier deadline."""
        if self.watcher is not None:
            self.watcher.notify()
        for timer in self.timers.values():
            if timer.waiters:
                timer.notify()

    def dismiss(self, waiters: Iterable[Waiter[T]]) -> None:
        """Have these go: they find out why when they look."""
        for waiter in waiters:
            waiter.notify()
            self.leave(waiter)

    def everybody(self) -> list[Waiter[T]]:
        """Return all who wait."""
        return [*self.able, *(waiter for parked in self.parked.values() for waiter in parked)]

    def notify_all(self) -> None:
        """Have everybody look again who can; who is only notified is so when it is time."""
        for waiter in [one for one in self.everybody() if one.hand]:
            waiter.notify()

    def forget(self) -> None:
        """In a fork's child: the other threads are gone; this one, if it waits, looks again."""
        for waiter in self.everybody():
            waiter.notify()
        self.able.clear()
        self.parked.clear()
        self.threads.clear()
        self.notified.clear()
        self.watcher = None
        self.timers.clear()

    def _check(self) -> None:
        """Check what must always hold."""
        waiting = self.everybody()
        assert set(self.threads) == {waiter for waiter in waiting if waiter.semaphore is not None}
        assert (self.watcher is not None) == bool(self.threads)
        assert self.watcher is None or self.watcher in self.threads


def join_until(
    monitor: Monitor, clock: Clock, done: Callable[[], bool], timeout: int | None, who: str
) -> bool:
    """Block like `wait_until`; a clock that has its workers run in the caller has them run first.

    Raises:
        Reentered: the calling thread is inside another call.
        StillBusy: these workers come to no end.
        BaseException: one of their handlers raised it, and it is not an `Exception`.
    """
    monitor.require_free("join")
    meanwhile = getattr(clock, "meanwhile", None)
    if meanwhile is not None:
        timeout = meanwhile(partial(monitor.run, done), timeout, who)
    return wait_until(monitor, clock, done, timeout, who)


def wait_until(
    monitor: Monitor, clock: Clock, done: Callable[[], bool], timeout: int | None, who: str
) -> bool:
    """Block until a condition is true, as long as it takes or the timeout allows.

    Args:
        monitor: under whose lock `done` is asked, and whose operations notify.
        clock: what the timeout is measured by.
        done: the condition; a reading only.
        timeout: in nanoseconds; None waits for ever.
        who: the waiter in words, for an error.

    Returns:
        What the condition was at last.

    Raises:
        Reentered: the calling thread is inside another call.
    """
    waiter: ThreadWaiter[Any] = ThreadWaiter(monitor)

    def sleep() -> bool:
        moment = None if timeout is None else clock.monotonic_ns() + timeout
        while not monitor.run(look, monitor, waiter, done):
            if not clock.wait(waiter.semaphore, moment, who):
                return False
        return True

    monitor.require_free("join")
    over = False
    try:
        over = sleep()
    finally:
        last = monitor.run(leave, monitor, waiter, done)
    return over or last


def look(monitor: Monitor, waiter: Waiter[Any], done: Callable[[], bool]) -> bool:
    """Return whether a condition is true; else have the waiter notified.  The lock is held."""
    waiter.listen()
    if done():
        return True
    monitor.joins[waiter] = done
    return False


def leave(monitor: Monitor, waiter: Blocked, done: Callable[[], bool]) -> bool:
    """Notify the waiter no more; return whether the condition is true.  The lock is held."""
    monitor.joins.pop(waiter, None)
    return done()
