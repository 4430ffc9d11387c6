"""How a topic that is kept hands its messages on: to every channel, once, also to those asleep.

The rule: what was stored goes to each shelf that there is when it is shown, and a shelf takes it
once, whatever a signal throws in between.

A channel of the file that nobody has asked for yet sleeps: its shelf counts what it gets, and the
messages lie in the file.

Everything here expects the topic's lock.

Next: store/channel.py
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from nsqlite.clock import Clock
from nsqlite.fanout import FanOut
from nsqlite.message import Record, T
from nsqlite.options import Options
from nsqlite.store.cabinet import Cabinet
from nsqlite.store.shelf import Shelf


class KeptFanOut(FanOut[T]):
    """The messages of a topic that is kept on their way to its channels.

    Attributes:
        cabinet: the shelves.
        read: returns what the topic holds in the file alone.
    """

    __slots__ = ("_awake", "_calm", "cabinet", "read")

    def __init__(self, name: str, options: Options, clock: Clock, cabinet: Cabinet) -> None:
        """Begin without channels in memory."""
        super().__init__(name, options, clock, cabinet.held.monitor)
        self.cabinet: Final = cabinet
        self.read: Callable[[], list[Record[T]]] = list
        self._awake: tuple[Shelf, ...] = ()
        self._calm = False  # a record can be shown with no more to do
        self.held.keep(cabinet.held)
        self._held_readies = ()
        cabinet.held.flow = self.held

    def is_flowing(self) -> bool:
        """Return whether messages are handed on at once."""
        return not self.paused and bool(self.queues or self.cabinet.shelves)

    def is_bounded(self) -> bool:
        """Return True: a put may have to wait, if only for the disk."""
        return True

    def redirect(self, *, closing: bool) -> None:
        """See `FanOut`; the way is found anew at once, since a put looks for it before the lock."""
        super().redirect(closing=closing)
        self.direct()

    def direct(self) -> None:
        """See `FanOut`; a put to a topic that is kept goes through its store first."""
        super().direct()
        awake = tuple(flow.persistence for flow in self.queues)
        self._awake = tuple(shelf for shelf in self.cabinet.shelves.values() if shelf in awake)
        self._calm = (
            not (self.closing or self.paused or self.bounded)
            and len(self._awake) == len(self.queues) == len(self.cabinet.shelves) > 0
        )

    def path(self) -> Callable[[Record[T]], None] | None:
        """Return what shows a message with no more to do; None if there is more to do for it."""
        monitor = self._monitor
        if not self._calm or monitor.state or monitor.waiting or monitor.watched:
            return None
        return self._show_one

    def _show_one(self, record: Record[T]) -> None:
        """Show a message that was stored to the channels."""
        name = record[2] + record[3]
        for shelf in self._awake:
            flow = shelf.flow
            if flow.backend_depth:
                shelf.top = name  # one piece with the next line
                flow.backend_depth += 1
            elif len(flow.ready) >= shelf.capacity:
                shelf.take([record], awake=True)
            else:
                shelf.top = shelf.cursor = name  # one piece with the next line
                flow.ready.append(record)
        held = self.cabinet.held
        held.since = held.top = name

    def show_rest(self, record: Record[T]) -> None:
        """Show a message to the channels that a signal has kept it from.  May be made twice."""
        self._hand_to_shelves([record])

    def complete(self) -> None:
        """See `FanOut`."""
        cabinet = self.cabinet
        held = cabinet.held
        flowing = self.is_flowing()
        if self.records:
            records = list(self.records)
            if flowing:
                self._hand_to_shelves(records)
            else:
                held.take(records, awake=True)
        if self.later is not None:
            later = self.later[0]
            if flowing:
                self._count_later(later)
            else:
                held.take_later(later, awake=True)
        super().complete()

    def _hand_to_shelves(self, records: list[Record[T]]) -> None:
        held = self.cabinet.held
        flows = self.queues
        for shelf in self.cabinet.shelves.values():
            shelf.take(records, awake=shelf.flow in flows)
        last = records[-1][2] + records[-1][3]
        if last > held.top:
            held.since = held.top = last
        self._note_passing()

    def _count_later(self, records: list[Record[T]]) -> None:
        held = self.cabinet.held
        flows = self.queues
        for shelf in self.cabinet.shelves.values():
            shelf.take_later(records, awake=shelf.flow in flows)
        last = records[-1][2] + records[-1][3]
        if last > held.top:
            held.since = held.top = last
        self._note_passing()

    def count_alone(self, name: str) -> None:
        """Take note of a message that went to one channel alone."""
        held = self.cabinet.held
        if name > held.top:
            held.top = name
            if self.is_flowing():
                held.since = name

    def hand_on(self) -> None:
        """See `FanOut`; what lies in the file alone stays there, and is counted elsewhere."""
        held = self.held
        shelf = self.cabinet.held
        if self.is_flowing() and shelf.since < shelf.top:
            held.sweep()
            backend_depth = held.backend_depth
            flows = self.queues
            for other in self.cabinet.shelves.values():
                other.take_over(shelf, backend_depth, awake=other.flow in flows)
                if other.flow not in flows:
                    other.asleep += len(held.ready) + len(held.deferred)
            passing = [flow for flow in flows if flow.persistence is None]
            if backend_depth and passing:
                self._hand_to_passing([flow.ready for flow in passing])
            self._hand_on_later()
            self._hand_on_due(list(held.ready))
            # One piece:
            self.kept -= backend_depth
            held.backend_depth = 0
            shelf.since = shelf.top
            self._note_passing()
            shelf.decide()
            for flow in flows:
                flow.feed()
        self.room()

    def _note_passing(self) -> None:
        """Take note that what was handed on is held by ephemeral channels alone, if it is."""
        cabinet = self.cabinet
        if not cabinet.shelves:
            cabinet.unheld = True
            cabinet.held.decide()

    def _hand_to_passing(self, readies: list[deque[Record[T]]]) -> None:
        """Hand on to ephemeral channels what the file has: the one read under a topic's lock."""
        records = self.read()
        for ready in readies:
            ready.extend(records)

    def _hand_on_due(self, records: list[Record[T]]) -> None:
        """Hand on what has fallen due while it was held."""
        rest: list[deque[Record[T]]] = [flow.ready for flow in self.queues]
        self.rest = iter(rest)
        # One piece, up to the call that follows:
        self.kept -= len(records)
        self.records = records
        self.held.ready.clear()
        FanOut.complete(self)
