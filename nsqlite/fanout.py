"""How a topic hands its messages on: to every channel, once.

The rule: a put is judged against all queues before it touches one, and once begun it is completed,
whatever a signal throws in between.

What cannot be handed on (the topic is paused, or has no channel) is held here.  A blocked put
waits in line, is woken when there is more room, and is judged anew.

Everything here expects the topic's lock.  Lines that a comment calls one piece are never
interrupted between them; guard.py tells why.

Next: publisher.py
"""

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import Final, Generic

from nsqlite.clock import Clock
from nsqlite.errors import Full
from nsqlite.flow import Deferral, Flow
from nsqlite.guard import Guard
from nsqlite.message import Record, T
from nsqlite.observe import Event, Kind
from nsqlite.options import SECOND, Options
from nsqlite.waiter import Waiter


class FanOut(Generic[T]):
    """The messages of a topic on their way to its channels.

    Attributes:
        flows: the channels that get what is put.
        held: what waits for a channel, or for the end of the pause; with the moment it is due.
        paused: nothing is handed on.
        kept: how many messages were accepted and not handed on: held, dropped, emptied.
        bytes: the sum of the lengths of the bytes bodies accepted.
    """

    __slots__ = (
        "_clock",
        "_guard",
        "_limit",
        "_name",
        "_now",
        "_putters",
        "_readies",
        "_records",
        "_rest",
        "_when_full",
        "bytes",
        "dropped_count",
        "flows",
        "held",
        "kept",
        "paused",
    )

    def __init__(self, name: str, options: Options, clock: Clock, guard: Guard) -> None:
        """Begin without channels."""
        self._name: Final = name
        self._guard: Final = guard
        self._clock: Final = clock
        self._now: Final = clock.monotonic_ns
        self._limit: Final = options.max_depth
        self._when_full: Final = options.when_full
        self.flows: tuple[Flow[T], ...] = ()
        self._readies: tuple[deque[Record[T]], ...] = ()
        self._rest: Iterator[deque[Record[T]]] = iter(())  # the queues that still lack
        self._records: Sequence[Record[T]] = ()  # these
        self.held: Final[deque[tuple[Record[T], int | None]]] = deque()
        self._putters: Final[OrderedDict[Waiter[T], int]] = OrderedDict()
        self.paused = False
        self.kept = 0
        self.bytes = 0
        self.dropped_count = 0

    def is_flowing(self) -> bool:
        """Return whether messages are handed on at once."""
        return not self.paused and len(self.flows) > 0

    def is_bounded(self) -> bool:
        """Return whether a put may find no room."""
        return self._limit is not None or any(flow.limit is not None for flow in self.flows)

    def set_paths(self, *, closing: bool) -> None:
        """Decide how a put hands a record on while all is calm; the long way is always right."""
        guard = self._guard
        flows = self.flows
        self._readies = tuple(flow.ready for flow in flows)
        if closing or not self.is_flowing() or any(flow.limit is not None for flow in flows):
            guard.short_path = guard.waiting_path = None
        elif len(flows) == 1:
            guard.short_path = flows[0].ready.append
            guard.waiting_path = flows[0].hand_over
        else:
            guard.short_path = guard.waiting_path = self._to_several

    def _to_several(self, record: Record[T]) -> bool:
        """Put a record into several channels; say whether a call was put off meanwhile."""
        guard = self._guard
        try:
            guard.stir()
            rest = self._rest = iter(self._readies)
            self._records = (record,)
            guard.broken = True
            for ready in rest:
                ready.append(record)  # one piece with the line above
            if guard.waiting:
                self._feed()
            self._records = ()
            guard.broken = False
        finally:
            guard.calm_down()
        return guard.alert

    def complete(self) -> None:
        """Complete what was begun: put the records of an interrupted put into the queues left."""
        for ready in self._rest:
            ready.extend(self._records)  # one piece with the line above

    def _feed(self) -> None:
        for flow in self.flows:
            flow.feed()

    # Judging

    def judge(self, count: int, waiter: Waiter[T] | None = None) -> Full | None:
        """Judge whether there is room for so many more ready messages.

        Returns:
            None if there is; else what a put raises that cannot wait any longer.

        Raises:
            Full: there is no use in waiting.
        """
        if not self.is_flowing():
            verdict = self._judge_one(
                self._name, self._limit, self._when_full, len(self.held), count
            )
        else:
            verdict = None
            for flow in self.flows:
                if flow.limit is not None:
                    flow.sweep()
                    where = ":".join(flow.names)
                    depth = len(flow.ready)
                    blocked = self._judge_one(where, flow.limit, flow.when_full, depth, count)
                    verdict = verdict or blocked
        if verdict is None and self._putters and next(iter(self._putters)) is not waiter:
            return Full(self._name, count)
        return verdict

    @staticmethod
    def _judge_one(
        where: str, limit: int | None, policy: str, depth: int, count: int
    ) -> Full | None:
        if limit is None or depth + count <= limit:
            return None
        if count > limit or policy == "raise":
            raise Full(where, count, limit)
        return Full(where, count, limit) if policy == "wait" else None

    # Blocked puts

    def wait(self, waiter: Waiter[T], count: int) -> None:
        """Line up a put of so many messages that found no room."""
        self._putters[waiter] = count

    def leave(self, waiter: Waiter[T]) -> None:
        """Take a put out of the line; the next one looks."""
        if waiter in self._putters:
            del self._putters[waiter]
            self.room()

    def room(self) -> None:
        """Let the first blocked put look again, unless it would still find no room."""
        if self._putters:
            waiter, count = next(iter(self._putters.items()))
            if not self.is_flowing() or all(flow.has_room(count) for flow in self.flows):
                waiter.ring()

    def ring_all(self) -> None:
        """Let every blocked put look again."""
        for waiter in self._putters:
            waiter.ring()

    def forget(self) -> None:
        """In a fork's child: the other threads are gone; this one, if it waits, looks again."""
        self.ring_all()
        self._putters.clear()

    # Handing on

    def admit(self, records: list[Record[T]], size: int, due: int | None) -> None:
        """Take messages that were judged: hand them on, or hold them."""
        self.bytes += size
        if self._guard.watched:
            for record in records:
                self.emit(Kind.PUBLISHED, record, due)
        if self.is_flowing():
            self._distribute(records, due)
            for flow in self.flows:
                flow.accepted(0 if due is not None else len(records))
            return
        self.kept += len(records)
        self.held.extend([(record, due) for record in records])
        if due is None and self._limit is not None and self._when_full != "wait":
            self._drop_held(len(records), self._limit)

    def _held_ready(self) -> list[tuple[Record[T], int | None]]:
        """Return what is held and not deferred, or deferred no longer: what counts as depth."""
        now = self._now()
        return [entry for entry in self.held if entry[1] is None or entry[1] <= now]

    def _drop_held(self, count: int, limit: int) -> None:
        """Drop from what is held as much as the bound asks for, and no more than was put."""
        ready = self._held_ready()
        excess = min(len(ready) - limit, count)
        if excess <= 0:
            return
        dropped = ready[:excess] if self._when_full == "drop oldest" else ready[-excess:]
        gone = set(map(id, dropped))
        kept = [entry for entry in self.held if id(entry) not in gone]
        self._guard.trash.extend(self.held)
        self.held.clear()
        self.held.extend(kept)
        for record, _due in dropped:
            self.dropped_count += 1
            self.emit(Kind.DROPPED, record)

    def hand_on(self) -> None:
        """Hand on what was held, if there is a channel to hand it to."""
        while self.held and self.is_flowing():
            record, due = self.held[0]
            self.kept -= 1
            self._distribute([record], due)
            for flow in self.flows:
                flow.feed()  # and no more: what was held is never refused
            self.held.popleft()
        self.room()

    def empty(self) -> int:
        """Drop what is held; return how much that was."""
        count = len(self.held)
        self._guard.trash.extend(self.held)
        self.held.clear()
        return count

    def _distribute(self, records: list[Record[T]], due: int | None) -> None:
        if due is not None and due > self._now():
            deferrals = [Deferral(record) for record in records]
            for flow in self.flows:
                flow.defer(deferrals, due)
            return
        self._rest = iter([flow.ready for flow in self.flows])
        self._records = records
        self.complete()
        self._records = ()

    # Telling

    def emit(
        self, kind: Kind, record: Record[T] | None = None, due: int | None = None, count: int = 1
    ) -> None:
        """Tell that something happened to the topic, if anybody listens."""
        if not self._guard.watched:
            return
        wall = self._clock.time_ns()
        self._guard.emit(
            Event(
                kind=kind,
                time=wall / SECOND,
                topic=self._name,
                id=None if record is None else record[2] + record[3],
                body=None if record is None else record[0],
                due=None if due is None else (wall + due - self._now()) / SECOND,
                count=count,
            )
        )
