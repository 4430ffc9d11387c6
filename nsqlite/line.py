"""Those who are blocked in `get`: in line, or parked until their consumer's window opens.

The rule: first come, first served among those who could take a message; one of all that wait, the
watcher, sleeps no longer than to the channel's next deadline, and a leaving watcher appoints
another.

Everything here expects the topic's lock.

Next: latency.py
"""

from collections import OrderedDict
from typing import Generic, Protocol

from nsqlite.guard import Guard
from nsqlite.message import T
from nsqlite.waiter import Waiter


class Windowed(Protocol):
    """What a line needs of a consumer."""

    def is_full(self) -> bool:
        """Return whether its window has no room."""
        ...


class Line(Generic[T]):
    """The blocked getters of a channel.

    Attributes:
        first_come: those who could take a message, in the order in which they came.
        parked: those whose consumer's window is full, by consumer.
        watcher: who wakes for the channel's deadlines; None if nobody waits.
    """

    __slots__ = ("_guard", "first_come", "parked", "watcher")

    def __init__(self, guard: Guard) -> None:
        """Begin with nobody."""
        self._guard = guard
        self.first_come: OrderedDict[Waiter[T], None] = OrderedDict()
        self.parked: dict[Windowed, OrderedDict[Waiter[T], None]] = {}
        self.watcher: Waiter[T] | None = None

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
        """See to it that somebody is the watcher: the last in line, who stays longest."""
        if self.watcher is None and (self.first_come or self.parked):
            if self.first_come:
                self.watcher = next(reversed(self.first_come))
            else:
                self.watcher = next(iter(next(iter(self.parked.values()))))
            self.watcher.ring()

    def ring_watcher(self) -> None:
        """Tell the watcher of an earlier deadline."""
        if self.watcher is not None:
            self.watcher.ring()

    def ring_all(self, owner: Windowed | None = None) -> None:
        """Have everybody look again; with an owner, those of that consumer."""
        waiters = [*self.first_come, *(w for parked in self.parked.values() for w in parked)]
        for waiter in waiters:
            if owner is None or waiter.owner is owner:
                waiter.ring()

    def forget(self) -> None:
        """In a fork's child: the other threads are gone; this one, if it waits, looks again."""
        self.ring_all()
        self.first_come.clear()
        self.parked.clear()
        self.watcher = None
