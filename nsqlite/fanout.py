"""How a topic hands its messages on: to every channel, once.

The rule: a put has found room in all queues before it touches one, and once begun it is completed,
whatever a signal throws in between.

What cannot be handed on (the topic is paused, or has no channel) goes into a queue of the topic's
own, which obeys the same rules as a channel's.  A blocked put waits in order, is notified when
there is more room, and then looks again.

A queue that a store keeps takes what is ready by way of its `persistence`, which leaves in the file
what has no room in memory; everything else is the same.

Everything here expects the topic's lock.  Lines that a comment calls one piece are never
interrupted between them; monitor.py tells why.

Next: topic.py
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Final, Generic

from nsqlite.clock import Clock
from nsqlite.errors import Full
from nsqlite.events import Kind
from nsqlite.message import Record, T
from nsqlite.monitor import Monitor
from nsqlite.options import Options
from nsqlite.persistence import QueuePersistence
from nsqlite.queue import EVERYTHING, NO_LIMIT, Moved, Queue
from nsqlite.waiting import Waiter

_looks: Final = count(1)


class FanOut(Generic[T]):
    """The messages of a topic on their way to its channels.

    Attributes:
        queues: those of the channels that get what is put.
        held: the topic's own queue: what waits for a channel, or for the end of the pause.
        paused: nothing is handed on.
        accepted: how many messages were put.
        size: the sum of the lengths of their bytes bodies.
        kept: how many of them were not handed on: held, dropped, emptied.
        rest: of the put under way, the queues that still lack what is ready.
        records: these messages.
        later: or those that are not due yet, with when they are and the queues that get them.
        excess: what the queues have to drop for the put under way.
        appends: what brings a record that is ready to each of the queues, as long as they have room
            for it in memory; empty where there is more to do for it, or the topic is over.
        append: the only one of these, if there is only one and no store; else None.
        readies: where the queues have what is ready, but for those that a store keeps.
        takers: of the put under way, what takes what is ready for the queues that a store keeps.
        kept_by: what keeps the queues that a store keeps.
        bounded: those of these queues that have a limit.
        stale: the five above are to be found anew; meanwhile there are no `appends`.
        closing: the topic takes no more.
    """

    __slots__ = (
        "_monitor",
        "_name",
        "accepted",
        "append",
        "appends",
        "bounded",
        "closing",
        "excess",
        "held",
        "kept",
        "kept_by",
        "later",
        "paused",
        "queues",
        "readies",
        "records",
        "rest",
        "size",
        "stale",
        "takers",
    )

    def __init__(self, name: str, options: Options, clock: Clock, monitor: Monitor) -> None:
        """Begin without channels."""
        self._name: Final = name
        self._monitor: Final = monitor
        self.held: Final[Queue[T]] = Queue((name, None), options, clock, monitor, self.room)
        self.queues: tuple[Queue[T], ...] = ()
        self.rest: Iterator[deque[Record[T]]] = iter(())
        self.records: Sequence[Record[T]] = ()
        self.later: tuple[list[Record[T]], int, tuple[Queue[T], ...]] | None = None
        self.excess: Sequence[tuple[Queue[T], list[int]]] = ()
        self.readies: tuple[deque[Record[T]], ...] = ()
        self.takers: Sequence[QueuePersistence] = ()
        self.kept_by: tuple[QueuePersistence, ...] = ()
        self.paused: bool = False
        self.accepted: int = 0
        self.size: int = 0
        self.kept: int = 0
        self.appends: tuple[Callable[[Record[T]], None], ...] = ()
        self.append: Callable[[Record[T]], None] | None = None
        self.bounded: tuple[Queue[T], ...] = ()
        self.stale: bool = False
        self.closing: bool = False

    def is_flowing(self) -> bool:
        """Return whether messages are handed on at once."""
        return not self.paused and len(self.queues) > 0

    def targets(self) -> tuple[Queue[T], ...]:
        """Return the queues that get what is put now."""
        return self.queues if self.is_flowing() else (self.held,)

    def is_bounded(self) -> bool:
        """Return whether a put may find no room."""
        return any(queue.limit is not None for queue in (self.held, *self.queues))

    def is_awaited(self) -> bool:
        """Return whether somebody waits to whom a message would go."""
        for queue in self.queues:  # noqa: SIM110 - a generator would take twice as long
            if queue.waiters.able and not queue.paused:
                return True
        return False

    def depth(self) -> int:
        """Return how many messages the topic holds, the deferred ones too, as in nsqd."""
        return self.held.depth() + self.held.deferred_depth()

    def redirect(self, *, closing: bool) -> None:
        """Have the next put call `direct`: the queues have changed, or the topic is over.

        So to make many channels costs each of them little.
        """
        self.stale = True
        self.closing = closing
        self.appends = ()
        self.append = None

    def direct(self) -> None:
        """Decide how a record is brought to the queues."""
        queues = self.queues
        self.bounded = tuple(queue for queue in queues if queue.limit is not None)
        self.readies, self.kept_by = _ways(queues)
        if self.is_flowing() and not self.closing:
            self.appends = tuple(queue.ready.append for queue in queues)
            if len(queues) == 1 and not self.kept_by:
                self.append = self.appends[0]
        self._monitor.room_until = 0
        self.stale = False

    # Room

    def look_for_room(self) -> None:
        """Find out how many more messages may be put before this is to be called again.

        If a handler comes in and changes anything of it, the next put looks again.
        """
        monitor = self._monitor
        accepted = self.accepted
        mine = -next(_looks)
        monitor.room_until = mine
        room = self.room_left()
        if monitor.room_until == mine and self.accepted == accepted:
            monitor.room_until = accepted + room

    def room_left(self) -> int:
        """Return how many ready messages have room in each queue; none before a blocked put."""
        if self._monitor.putters:
            return 0
        left = [queue.room_left() for queue in self.bounded]
        left += [kept.room() for kept in self.kept_by]
        return max(min(left, default=NO_LIMIT), 0)

    def check_room(self, count: int, waiter: Waiter[T] | None = None) -> Full | None:
        """Look whether there is room for so many more ready messages.

        Returns:
            None if there is; else what a put raises that cannot wait any longer.

        Raises:
            Full: there is no use in waiting.
        """
        if self.stale:
            self.direct()
        full = None
        putters = self._monitor.putters
        for queue in self.targets():
            if queue.limit is not None:
                queue.sweep()
                full = queue.check_room(count) or full
        if full is None and putters and next(iter(putters)) is not waiter:
            return Full(self._name, count)
        return full

    def _check(self) -> None:
        """Check what must always hold."""
        until = self._monitor.room_until
        if until > self.accepted and not self.stale:
            assert until - self.accepted <= self.room_left(), "a put would not look for room"

    # Blocked puts

    def wait(self, waiter: Waiter[T], count: int, now: int) -> None:
        """Queue up a put of so many messages that found no room."""
        putters = self._monitor.putters
        since = now
        if waiter in putters:
            _, since = putters[waiter]
        else:
            self.held.emit(Kind.WAITING, count=count)
        self._monitor.room_until = 0
        self._monitor.wants_room = True
        putters[waiter] = count, since

    def leave(self, waiter: Waiter[T]) -> None:
        """Take a put out of those that wait; the next one looks."""
        self._monitor.putters.pop(waiter, None)
        self.room()

    def room(self) -> None:
        """Let the first blocked put look again, unless it would still find no room."""
        monitor = self._monitor
        wants_room = bool(monitor.putters)
        if wants_room:
            waiter, (count, _) = next(iter(monitor.putters.items()))
            if not self.full(count):
                waiter.notify()
                wants_room = False
        monitor.wants_room = wants_room

    def full(self, count: int) -> list[Queue[T]]:
        """Return the queues for whose room a put of so many messages waits."""
        waiting = [queue for queue in self.targets() if queue.when_full == "wait"]
        return [queue for queue in waiting if not queue.has_room(count)]

    def notify_all(self) -> None:
        """Let every blocked put look again."""
        for waiter in self._monitor.putters:
            waiter.notify()

    # Handing on

    def admit(
        self,
        records: list[Record[T]],
        size: int,
        due: int | None,
        moved: Moved | None = None,
        entry: object | None = None,
        *,
        flowing: bool = False,
    ) -> None:
        """Take messages that there is room for, out of the list: made twice, it takes them once.

        Args:
            records: the messages.
            size: the sum of the lengths of their bytes bodies.
            due: until when they wait; None if they are ready at once.
            moved: what is finished by being put here.
            entry: what a store notes of it.
            flowing: they are the channels', whatever has become of the topic since.
        """
        if self.stale:
            self.direct()
        if self._monitor.watched:
            for record in records:
                self.held.emit(Kind.PUBLISHED, record, due=due)
        flowing = flowing or self.is_flowing()
        targets = self.queues if flowing else (self.held,)
        count = len(records)
        kept = 0 if flowing else count
        ready: Sequence[Record[T]] = ()
        readies, takers = (self.readies, self.kept_by) if flowing else _ways(targets)
        rest = iter(readies)
        excess: Sequence[tuple[Queue[T], list[int]]] = ()
        later = None
        if due is not None:
            if takers:
                targets = tuple(q for q in targets if _takes(q, records))
            later = records.copy(), due, targets
        else:
            ready = records.copy()
            if self.bounded or self.held.limit is not None:
                excess = [(q, [q.excess(count)]) for q in targets if q.limit is not None]
        # One piece, up to the call that follows: it is put, and `complete` brings it everywhere.
        self.accepted += count
        self.size += size
        self.kept += kept
        self.records = ready
        self.rest = rest
        self.takers = takers
        self.later = later
        self.excess = excess
        self.held.entry = entry
        if moved is not None:
            left, messages = moved
            messages[0]._consumer._allowed += 1
            left.leaving = messages
            left.moving = entry is not None
        records.clear()
        self.complete()

    def complete(self) -> None:
        """Complete what was begun: bring the messages of a put to the queues that still lack them.

        An interrupted one is completed by being made again.
        """
        if self.held.entry is not None:
            self.held.note_entry()
        if self.records:
            for ready in self.rest:
                ready.extend(self.records)  # one piece with the line above
            for taker in self.takers:
                taker.take(self.records)
            self.records = ()
        later = self.later
        if later is not None:
            records, due, targets = later
            for queue in targets:
                queue.defer(records, due)
            self.later = None
        if self._monitor.waiting:
            self.feed()
        if self.excess:
            for queue, most in self.excess:
                queue.drop_excess(most)
            self.excess = ()

    def feed(self) -> None:
        """Hand ready messages to those who wait for one."""
        for queue in self.queues:
            if queue.waiters.able:
                queue.feed()

    def hand_on(self) -> None:
        """Hand on what was held, if there is a channel to hand it to; none of it is refused."""
        held = self.held
        if self.is_flowing() and not held.is_idle():
            held.sweep()
            readies, takers = _ways(self.queues)
            if held.persistence is not None:
                for taker in takers:
                    taker.take_over_deferred(held.persistence)
                # One piece:
                self.kept -= held.backend_deferred
                held.backend_deferred = 0
                held.horizon = EVERYTHING
            self._hand_on_later()
            if held.back is not held.ready:
                self._hand_on_ready(held.back, [queue.back for queue in self.queues], ())
            self._hand_on_ready(held.ready, readies, takers)
            if held.persistence is not None:
                for taker in takers:
                    taker.take_over(held.persistence)
            self.kept -= held.backend_depth  # one piece with the next line
            held.backend_depth = 0
            self.feed()
        self.room()

    def _hand_on_ready(
        self,
        records: deque[Record[T]],
        readies: Sequence[deque[Record[T]]],
        takers: Sequence[QueuePersistence],
    ) -> None:
        """Hand on what is ready; `complete`, and then this, completes what is interrupted."""
        ready = list(records)
        rest = iter(readies)
        # One piece, up to the call that follows:
        self.kept -= len(ready)
        self.records = ready
        self.rest = rest
        self.takers = takers
        records.clear()
        self.complete()

    def _hand_on_later(self) -> None:
        """Hand on what is not due yet; `complete`, and then this, completes what is interrupted."""
        deferred = self.held.deferred
        for due, records in deferred.buckets():
            number = len(records)
            # One piece, up to the call that follows:
            del deferred.waiting[due]
            deferred.count -= number
            self.kept -= number
            self.later = records, due, self.queues
            self.complete()


def _ways(
    queues: Sequence[Queue[T]],
) -> tuple[tuple[deque[Record[T]], ...], tuple[QueuePersistence, ...]]:
    """Return where queues have what is ready: those in memory, and what keeps the others."""
    readies = tuple(queue.ready for queue in queues if queue.persistence is None)
    takers = tuple(queue.persistence for queue in queues if queue.persistence is not None)
    return readies, takers


def _takes(queue: Queue[T], records: Sequence[Record[T]]) -> bool:
    """Return whether messages of one put are for a queue."""
    return queue.persistence is None or queue.persistence.takes(records)
