"""Those who are blocked in `get`: in line, or parked until their consumer's window opens.

The rule: first come, first served among those who could take a message; one of the threads that
wait, the watcher, sleeps no longer than to the channel's next deadline, and a leaving watcher
appoints another; for those who wait in an event loop the loop has a lookout.

Everything here expects the topic's lock.

Next: latency.py
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Generic, Protocol

from nsqlite.guard import Guard
from nsqlite.message import T
from nsqlite.waiter import Waiter


class Windowed(Protocol):
    """What a line needs of a consumer."""

    def is_full(self) -> bool:
        """Return whether its window has no room."""
        ...


class Lookout(Protocol):
    """What looks when the channel's next deadline has come, for all who wait in one event loop.

    Attributes:
        waiters: how many these are.
    """

    waiters: int

    def ring(self) -> None:
        """Tell it of an earlier deadline."""
        ...


class Line(Generic[T]):
    """The blocked getters of a channel.

    Attributes:
        first_come: those who could take a message, in the order in which they came.
        parked: those whose consumer's window is full, by consumer.
        sleepers: those of both that are threads.
        watcher: which of these wakes for the channel's deadlines; None if there are none.
        lookouts: what does so in event loops, by loop.
    """

    __slots__ = ("_guard", "first_come", "lookouts", "parked", "sleepers", "watcher")

    def __init__(self, guard: Guard) -> None:
        """Begin with nobody."""
        self._guard = guard
        self.first_come: OrderedDict[Waiter[T], None] = OrderedDict()
        self.parked: dict[Windowed, OrderedDict[Waiter[T], None]] = {}
        self.sleepers: OrderedDict[Waiter[T], None] = OrderedDict()
        self.watcher: Waiter[T] | None = None
        self.lookouts: dict[Hashable, Lookout] = {}

    def __contains__(self, waiter: Waiter[T]) -> bool:
        """Return whether somebody waits here."""
        return waiter in self.first_come or waiter in self.parked.get(waiter.owner, ())

    def join(self, waiter: Waiter[T]) -> None:
        """Line somebody up at the end."""
        if waiter.owner.is_full():
            self.parked.setdefault(waiter.owner, OrderedDict())[waiter] = None
        else:
            self.first_come[waiter] = None
            self._guard.waiting += 1
        if not waiter.remote:
            self.sleepers[waiter] = None
            if self.watcher is None:
                self.watcher = waiter

    def leave(self, waiter: Waiter[T]) -> None:
        """Take somebody out, wherever he waits."""
        if waiter in self.first_come:
            del self.first_come[waiter]
            self._guard.waiting -= 1
        parked = self.parked.get(waiter.owner)
        if parked is not None:
            parked.pop(waiter, None)
            if not parked:
                del self.parked[waiter.owner]
        self.sleepers.pop(waiter, None)
        if self.watcher is waiter:
            self.watcher = None
        self.appoint()

    def first(self) -> Waiter[T] | None:
        """Return who is to get the next message; park those on the way who could not take it."""
        while self.first_come:
            waiter = next(iter(self.first_come))
            if waiter.gone:
                self.leave(waiter)
                continue
            if not waiter.owner.is_full():
                return waiter
            self.parked.setdefault(waiter.owner, OrderedDict())[waiter] = None
            del self.first_come[waiter]
            self._guard.waiting -= 1
        return None

    def unpark(self, owner: Windowed) -> None:
        """Line up those who waited for a window that has opened or matters no more."""
        parked = self.parked.get(owner, OrderedDict())
        while parked:
            waiter = next(iter(parked))
            self.first_come[waiter] = None
            self._guard.waiting += 1
            del parked[waiter]  # one piece with the two lines above
        self.parked.pop(owner, None)

    def unpark_all(self) -> None:
        """Line up everybody."""
        for owner in list(self.parked):
            self.unpark(owner)

    def appoint(self) -> None:
        """See to it that a thread is the watcher: the last to come, which stays longest."""
        if self.watcher is None and self.sleepers:
            self.watcher = next(reversed(self.sleepers))
            self.watcher.ring()

    def ring_watchers(self) -> None:
        """Tell all who watch of an earlier deadline."""
        if self.watcher is not None:
            self.watcher.ring()
        for lookout in self.lookouts.values():
            if lookout.waiters:
                lookout.ring()

    def dismiss(self, waiters: Iterable[Waiter[T]]) -> None:
        """Have these go: they find out why when they look."""
        for waiter in waiters:
            waiter.ring()
            self.leave(waiter)

    def ring_all(self) -> None:
        """Have everybody look again."""
        for waiter in [*self.first_come, *(w for parked in self.parked.values() for w in parked)]:
            waiter.ring()

    def forget(self) -> None:
        """In a fork's child: the other threads are gone; this one, if it waits, looks again."""
        self.ring_all()
        self.first_come.clear()
        self.parked.clear()
        self.sleepers.clear()
        self.watcher = None
        self.lookouts.clear()

    def _check(self) -> None:
        """Check what must always hold."""
        waiting = [*self.first_come, *(w for parked in self.parked.values() for w in parked)]
        assert set(self.sleepers) == {waiter for waiter in waiting if not waiter.remote}
        assert (self.watcher is not None) == bool(self.sleepers)
        assert self.watcher is None or self.watcher in self.sleepers
