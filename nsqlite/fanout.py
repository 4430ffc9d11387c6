"""How a topic hands its messages on: to every channel, once.

The rule: a put is judged against all queues before it touches one, and once begun it is completed,
whatever a signal throws in between.

What cannot be handed on (the topic is paused, or has no channel) goes into a queue of the topic's
own, which obeys the same rules as a channel's.  A blocked put waits in line, is woken when there is
more room, and is judged anew.

Everything here expects the topic's lock.  Lines that a comment calls one piece are never
interrupted between them; guard.py tells why.

Next: publisher.py
"""

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import Final, Generic

from nsqlite.backlog import Backlog, Deferral
from nsqlite.clock import Clock
from nsqlite.errors import Full
from nsqlite.flow import Flow
from nsqlite.guard import Guard
from nsqlite.message import Record, T
from nsqlite.observe import Kind
from nsqlite.options import Options
from nsqlite.timerwheel import Tick
from nsqlite.waiter import Waiter


class Plan(Generic[T]):
    """Where the messages of a put go.

    Attributes:
        targets: the queues that get them.
        rest: where those that are ready at once go, but for what a store keeps.
        records: these.
        deferrals: those that are not due yet.
        due: when they are.
        kept: how many of all are held by the topic itself.
    """

    __slots__ = ("deferrals", "due", "kept", "records", "rest", "targets")

    def __init__(
        self,
        targets: tuple[Backlog[T], ...],
        records: list[Record[T]],
        deferrals: list[Deferral[T]],
        due: int,
        kept: int,
    ) -> None:
        """Note it."""
        self.targets: Final = targets
        self.rest: Final = iter([flow.ready for flow in targets if flow.shelf is None])
        self.records: Final = records
        self.deferrals: Final = deferrals
        self.due: Final = due
        self.kept: Final = kept


class FanOut(Generic[T]):
    """The messages of a topic on their way to its channels.

    Attributes:
        flows: the channels that get what is put.
        held: the topic's own queue: what waits for a channel, or for the end of the pause.
        paused: nothing is handed on.
        kept: how many messages were accepted and not handed on: held, dropped, emptied.
        rest: of the put under way, the queues that still lack what is ready.
        records: these messages.
        later: the put under way, if it has what is not due yet.
    """

    __slots__ = (
        "_clock",
        "_guard",
        "_name",
        "_now",
        "_putters",
        "_readies",
        "flows",
        "held",
        "kept",
        "later",
        "paused",
        "records",
        "rest",
    )

    def __init__(self, name: str, options: Options, clock: Clock, guard: Guard) -> None:
        """Begin without channels."""
        self._name: Final = name
        self._guard: Final = guard
        self._clock: Final = clock
        self._now: Final = clock.monotonic_ns
        self.flows: tuple[Flow[T], ...] = ()
        self._readies: tuple[deque[Record[T]], ...] = ()
        self.rest: Iterator[deque[Record[T]]] = iter(())
        self.records: Sequence[Record[T]] = ()
        self.later: Plan[T] | None = None
        self.held: Final[Backlog[T]] = Backlog((name, None), options, clock, guard, self.room)
        self._putters: Final[OrderedDict[Waiter[T], int]] = OrderedDict()
        self.paused = False
        self.kept = 0

    def is_flowing(self) -> bool:
        """Return whether messages are handed on at once."""
        return not self.paused and len(self.flows) > 0

    def targets(self) -> tuple[Backlog[T], ...]:
        """Return the queues that get what is put now."""
        return self.flows if self.is_flowing() else (self.held,)

    def is_bounded(self) -> bool:
        """Return whether a put may find no room."""
        return any(flow.limit is not None for flow in (self.held, *self.flows))

    def depth(self) -> int:
        """Return how many messages the topic holds, the deferred ones too, as in nsqd."""
        return self.held.depth() + len(self.held.deferred)

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

    def _to_several(self, record: Record[T]) -> None:
        """Put a record into several channels."""
        guard = self._guard
        try:
            guard.stir()
            rest = self.rest = iter(self._readies)
            self.records = (record,)
            guard.broken = True
            for ready in rest:
                ready.append(record)  # one piece with the line above
            if guard.waiting:
                self._feed()
            self.records = ()
            guard.broken = False
        finally:
            guard.calm_down()

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
        verdict = None
        for flow in self.targets():
            if flow.limit is not None:
                flow.sweep()
                verdict = flow.judge(count) or verdict
        if verdict is None and self._putters and next(iter(self._putters)) is not waiter:
            return Full(self._name, count)
        return verdict

    # Blocked puts

    def wait(self, waiter: Waiter[T], count: int) -> None:
        """Line up a put of so many messages that found no room."""
        self._putters[waiter] = count

    def leave(self, waiter: Waiter[T]) -> None:
        """Take a put out of the line; the next one looks."""
        self._putters.pop(waiter, None)
        self.room()

    def room(self) -> None:
        """Let the first blocked put look again, unless it would still find no room."""
        if self._putters:
            waiter, count = next(iter(self._putters.items()))
            if all(flow.has_room(count) for flow in self.targets()):
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

    def plan(self, records: list[Record[T]], due: int | None) -> Plan[T]:
        """Return where messages that were judged go, and tell of them; no queue has changed."""
        if self._guard.watched:
            for record in records:
                self.held.emit(Kind.PUBLISHED, record, due=due)
        kept = 0 if self.is_flowing() else len(records)
        if due is not None and due > self._now():
            return Plan(self.targets(), [], [Deferral(record) for record in records], due, kept)
        return Plan(self.targets(), records.copy(), [], 0, kept)

    def complete(self) -> None:
        """Complete what was begun: bring the messages of a put to the queues that still lack them.

        An interrupted one is completed by being made again.
        """
        for ready in self.rest:
            ready.extend(self.records)  # one piece with the line above
        self.records = ()
        if self.later is not None:
            for flow in self.later.targets:
                flow.defer(self.later.deferrals, self.later.due)
            self.later = None

    def hand_on(self) -> None:
        """Hand on what was held, if there is a channel to hand it to; none of it is refused."""
        if self.is_flowing() and not self.held.is_idle():
            self.held.sweep()
            for tick in list(self.held.deferred.ticks()):
                self._hand_on_later(tick)
            records = list(self.held.ready)
            self.rest = iter([flow.ready for flow in self.flows])
            # One piece, up to the call that follows:
            self.kept -= len(records)
            self.records = records
            self.held.ready.clear()
            self.complete()
            for flow in self.flows:
                flow.feed()
        self.room()

    def _hand_on_later(self, tick: Tick[Deferral[T]]) -> None:
        """Hand on what is not due yet."""
        deferrals = list(tick)
        for flow in self.flows:
            flow.defer(deferrals, tick.due)
        self.kept -= len(deferrals)
        tick.clear()
        self.held.deferred.drop(tick)
