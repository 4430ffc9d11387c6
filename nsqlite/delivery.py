"""Delivering: the messages of a channel that are in flight, and how they get there and back.

The rule: a message is filed as in flight before it leaves the ready queue, in one piece; what times
out or is given back is ready again in one piece too.

    ready (a deque of records) --deliver--> in flight (a timer wheel of Messages)
      ^                                       |
      +----time_out, give_back----------------+

A message goes to who waits in line, or to who asks.

Everything here expects the topic's lock.  Lines that a comment calls one piece are never
interrupted between them; guard.py tells why.

Next: flow.py
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol

from nsqlite.backlog import Backlog
from nsqlite.clock import Clock
from nsqlite.guard import Guard
from nsqlite.line import Line, Windowed
from nsqlite.message import Message, Owner, Record, State, T, counted
from nsqlite.observe import Kind
from nsqlite.options import Options, seconds
from nsqlite.timerwheel import Tick, TimerWheel
from nsqlite.waiter import Waiter


class Holder(Owner, Windowed, Protocol):
    """What a flow needs of a consumer.

    Attributes:
        delivered: how many messages it has been given.
        allowed: how many it may have been given by now: its window and what it has given up.
        unfinished: how many it has given up without finishing them.
        requeued: how many of these it has requeued.
    """

    delivered: int
    allowed: int
    unfinished: int
    requeued: int

    @property
    def window(self) -> int:
        """How many messages it may hold."""
        ...

    @property
    def msg_timeout(self) -> int:
        """How long it may hold a message, in nanoseconds."""
        ...


class Gate(Generic[T]):
    """When the short paths of get and fin are right; a shut one lets nobody pass.

    Attributes:
        tick: with what a message delivered now will time out.
        fresh: until when that is so, nothing is due and get has nothing else to mind.
        quiet: whether fin has nothing else to mind.
    """

    __slots__ = ("fresh", "quiet", "tick")

    def __init__(self) -> None:
        """Begin shut."""
        self.tick: Tick[Message[T]] = Tick(0)
        self.fresh = 0
        self.quiet = False


class Delivery(Backlog[T]):
    """Messages that wait, and those in flight.

    Attributes:
        timeouts: the messages in flight, by the moment they time out.
        line: the blocked getters.
        gate: when the short paths may be taken.
        paused: nothing is delivered.
        special: the short paths of get and fin are wrong: paused, closing, bounded or measured.
        timeout_count: how many have timed out.
    """

    __slots__ = ("gate", "line", "msg_timeout", "paused", "special", "timeout_count", "timeouts")

    def __init__(
        self,
        names: tuple[str, str],
        options: Options,
        clock: Clock,
        guard: Guard,
        room: Callable[[], None],
    ) -> None:
        """Begin empty, and with nobody; see `Backlog`."""
        super().__init__(names, options, clock, guard, room)
        self.msg_timeout: Final = seconds("msg_timeout", options.msg_timeout)
        self.timeouts: Final[TimerWheel[Message[T]]] = TimerWheel(self.resolution)
        self.line: Final[Line[T]] = Line(guard)
        self.gate: Final[Gate[T]] = Gate()
        self.paused = False
        self.special = False
        self.timeout_count = 0

    def is_idle(self) -> bool:
        """Return whether nothing is ready, in flight or deferred."""
        return not self.timeouts and super().is_idle()

    def total(self) -> int:
        """Return how many messages there are."""
        return super().total() + len(self.timeouts)

    # Time

    def next_due(self) -> int:
        """Return the next deadline; takes no lock."""
        return min(self.timeouts.next_due, self.deferred.next_due)

    def _act(self, now: int) -> None:
        while (due := self.next_due()) <= now:
            if self.timeouts.next_due == due:
                if (late := self.timeouts.first_due(now)) is not None:
                    self._time_out(late)
            elif (ready := self.deferred.first_due(now)) is not None:
                self._fall_due(ready)

    def mend(self) -> None:
        """Complete what a signal has interrupted.  May be made twice."""
        super().mend()
        self.line.unpark_all()
        self.feed()
        self.line.ring_all()

    def _time_out(self, tick: Tick[Message[T]]) -> None:
        for message in list(tick):
            again = counted(message)
            owner: Holder = message._consumer
            message._outcome = State.TIMED_OUT
            owner.allowed += 1
            owner.unfinished += 1
            self.timeout_count += 1
            del tick[message]  # one piece with the next line
            self.ready.append(again)
            self.line.unpark(owner)
            if self._guard.watched:
                self.emit(Kind.TIMED_OUT, again, owner, tick.due)
        self.timeouts.drop(tick)

    def _set_due(self, due: int) -> None:
        super()._set_due(due)
        gate = self.gate
        gate.quiet = not self.special and not self.line.parked
        gate.fresh = min(gate.fresh, due) if gate.quiet else 0

    def _lower(self, due: int) -> None:
        """Take note of a new deadline; the watcher must not sleep past it."""
        if due < self.due:
            self._set_due(due)
            self.line.ring_watchers()

    # To consumers

    def hand_over(self, record: Record[T]) -> None:
        """Take a record while somebody waits in line.

        When nobody else has to be thought of it goes right into the hands of who waits, and the
        bell comes last: who wakes earlier only waits for this thread.
        """
        guard = self._guard
        line = self.line
        gate = self.gate
        now = self._now()
        message: Message[T] = Message()
        if (
            guard.waiting > 1
            or (waiter := line.watcher) is None
            or waiter.gone
            or (owner := waiter.owner).gate is not gate
            or owner.delivered >= owner.allowed
            or now >= gate.fresh
            or self.ready
            or guard.wary
        ):
            self._hand_over(record)
            return
        message._record = record
        message._consumer = owner
        message._tick = tick = gate.tick
        message._delivered = now
        # One piece, up to the call that follows:
        owner.delivered += 1
        tick[message] = None
        waiter.message = message
        del line.first_come[waiter]
        del line.sleepers[waiter]
        line.watcher = None
        guard.waiting = 0
        guard.push = guard.short_path
        try:
            waiter.bell.release()
        except RuntimeError:  # it was rung already
            pass

    def _hand_over(self, record: Record[T]) -> None:
        guard = self._guard
        try:
            guard.stir()
            guard.broken = True
            self.ready.append(record)
            self.feed()
            guard.broken = False
        finally:
            guard.calm_down()

    def deliver(self, owner: Holder, now: int, waiter: Waiter[T] | None = None) -> Message[T]:
        """Move the first ready message into flight; there must be one, and room in the window.

        A waiter is handed it, taken out of the line and woken.
        """
        tick = self.current(now, owner.msg_timeout)
        message: Message[T] = Message()
        message._record = self.ready[0]
        message._consumer = owner
        message._tick = tick
        message._delivered = now
        # One piece, up to the call that follows:
        owner.delivered += 1
        tick[message] = None
        del self.ready[0]
        if waiter is not None:
            waiter.message = message
            del self.line.first_come[waiter]
            if not waiter.remote:
                del self.line.sleepers[waiter]
            self._guard.waiting -= 1
            if self.line.watcher is waiter:
                self.line.watcher = None
            try:
                waiter.bell.release()  # itself, since a function begins where a signal may strike
            except RuntimeError:  # it was rung already
                pass
        if self._guard.watched or self.shelf is not None:
            self.emit(Kind.DELIVERED, counted(message), owner, tick.due)
        if self.limit is not None:
            self.room()
        return message

    def current(self, now: int, timeout: int) -> Tick[Message[T]]:
        """Return the tick in which a message delivered now times out; open the gate for more."""
        gate = self.gate
        if timeout != self.msg_timeout:
            tick = self.timeouts.tick(now + timeout)
            self._lower(tick.due)
            return tick
        if now >= gate.fresh:
            old = gate.tick
            tick = gate.tick = self.timeouts.tick(now + timeout)
            if not old and old is not tick:
                self.timeouts.drop(old)
            self._lower(tick.due)
            gate.fresh = min(self.due, tick.due - timeout + 1) if gate.quiet else 0
            return tick
        return gate.tick

    def feed(self) -> None:
        """Hand ready messages to those in line, until one of both runs out."""
        line = self.line
        while line.first_come and self.ready and not self.paused:
            waiter = line.first()
            if waiter is None:
                break
            self.deliver(waiter.owner, self._now(), waiter)
        if line.watcher is None:
            line.appoint()
        self._set_due(self.due)

    def give_back(self, message: Message[T], record: Record[T]) -> None:
        """Put a message in flight back to the head of the queue, as this record.

        If it is the message's own, not one that counts the delivery, it was never delivered.
        """
        tick = message._tick
        if message not in tick:
            return
        owner: Holder = message._consumer
        message._outcome = State.RETURNED
        if record is message._record:
            owner.delivered -= 1
        else:
            owner.allowed += 1
            owner.unfinished += 1
        del tick[message]  # one piece with the next line
        self.ready.appendleft(record)
        self.clear_away(tick)
        self.line.unpark(owner)
        self.emit(Kind.RETURNED, record, owner)

    def clear_away(self, tick: Tick[Message[T]]) -> None:
        """Drop a tick that may have been emptied, if it is not the gate's."""
        if not tick and tick is not self.gate.tick:
            self.timeouts.drop(tick)

    # Checking

    def _ids(self) -> Counter[str]:
        """Count the ids of the messages."""
        ids = super()._ids()
        ids.update(message.id for message in self.timeouts)
        return ids

    def _check(self) -> None:
        """Check what must always hold."""
        super()._check()
        self.timeouts._check()
        assert self.gate.fresh <= (self.due if self.gate.quiet else 0)
        held: Counter[Any] = Counter()
        for tick in self.timeouts.ticks():
            for message in tick:
                assert message._tick is tick
                assert message.state is State.IN_FLIGHT
                held[message._consumer] += 1
        for owner, count in held.items():
            settled = owner.allowed - owner.window
            assert owner.delivered - settled == count, (owner.delivered, settled, count)
        if self.ready and not self.paused:
            assert all(waiter.owner.is_full() for waiter in self.line.first_come), (
                "one was forgotten"
            )
        self.line._check()
