"""The messages of one channel, and every way they move.

The rule: a message is in exactly one of ready, in flight and deferred; it moves in one piece, and
nothing but `finish` and `clear` and a declared overflow policy takes it away.

    topic --> ready (a deque of records) --deliver--> in flight (a timer wheel of Messages)
                ^  ^                                     |    |
                |  +---time_out, requeue, give_back------+    +--finish--> gone
                +--fall_due-- deferred (a timer wheel) <--requeue with a delay

Time flows in from outside: whoever comes by sweeps what is due.

Everything here expects the topic's lock.  Lines that a comment calls one piece are never
interrupted between them; guard.py tells why.

Next: channel.py
"""

from collections import Counter, deque
from collections.abc import Callable
from itertools import filterfalse
from typing import Any, Final, Generic, Protocol

from nsqlite.clock import NEVER, Clock
from nsqlite.errors import Full, InvalidMessage, NotInFlight
from nsqlite.guard import Guard
from nsqlite.latency import Latency
from nsqlite.line import Line, Windowed
from nsqlite.message import FINISHED, Message, Owner, Record, State, T
from nsqlite.observe import Event, Kind
from nsqlite.options import SECOND, Options, seconds
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


class Deferral(Generic[T]):
    """A record that waits for its time; channels share it."""

    __slots__ = ("record",)

    def __init__(self, record: Record[T]) -> None:
        """Hold the record."""
        self.record: Final = record


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


class Flow(Generic[T]):
    """A channel's messages.

    Attributes:
        ready: the records to be delivered, the next one first.
        timeouts: the messages in flight, by the moment they time out.
        deferred: the records that wait, by the moment they are due.
        line: the blocked getters.
        gate: when the short paths may be taken.
        due: no deadline is before this.
        paused: nothing is delivered.
        special: the short paths of get and fin are wrong: paused, closing, bounded or measured.
        answered: called when messages were answered, and there may be nothing left.
        room: called when there is more room.
    """

    __slots__ = (
        "_clock",
        "_guard",
        "_longest",
        "_longest_req",
        "_now",
        "answered",
        "deferred",
        "dropped_count",
        "due",
        "gate",
        "latency",
        "limit",
        "line",
        "msg_timeout",
        "names",
        "paused",
        "ready",
        "requeue_count",
        "room",
        "special",
        "timeout_count",
        "timeouts",
        "when_full",
    )

    def __init__(
        self,
        names: tuple[str, str | None],
        options: Options,
        clock: Clock,
        guard: Guard,
        room: Callable[[], None],
    ) -> None:
        """Begin empty.

        Args:
            names: the topic's and the channel's; None for the topic's own queue.
            options: what holds for it.
            clock: what it takes the time from.
            guard: the topic's lock.
            room: called when there is more room.
        """
        self.names: Final = names
        self._guard: Final = guard
        self._clock: Final = clock
        self._now: Final = clock.monotonic_ns
        self.room: Final = room
        self.answered: Callable[[], None] = lambda: None
        self.msg_timeout: Final = seconds("msg_timeout", options.msg_timeout)
        self._longest: Final = seconds("max_msg_timeout", options.max_msg_timeout)
        self._longest_req: Final = seconds("max_req_timeout", options.max_req_timeout)
        self.limit: Final = options.max_depth
        self.when_full: Final = options.when_full
        resolution = clock.resolution
        if options.resolution is not None:
            resolution = seconds("resolution", options.resolution)
        self.ready: Final[deque[Record[T]]] = deque()
        self.timeouts: Final[TimerWheel[Message[T]]] = TimerWheel(resolution)
        self.deferred: Final[TimerWheel[Deferral[T]]] = TimerWheel(resolution)
        self.line: Final[Line[T]] = Line(guard)
        self.gate: Final[Gate[T]] = Gate()
        self.due = NEVER
        self.paused = False
        self.special = False
        self.requeue_count = 0
        self.timeout_count = 0
        self.dropped_count = 0
        self.latency: Latency | None = None
        if options.e2e_processing_latency_percentiles:
            window = seconds("window", options.e2e_processing_latency_window_time)
            self.latency = Latency(window, self._now())
        self.set_special(False)

    def set_special(self, special: bool) -> None:
        """Say whether get and fin must go the long way; a bound or a measure makes them anyway."""
        self.special = special or self.limit is not None or self.latency is not None
        self._set_due(self.due)

    def is_idle(self) -> bool:
        """Return whether nothing is ready, in flight or deferred."""
        return not (self.ready or self.timeouts or self.deferred)

    def judge(self, count: int) -> Full | None:
        """Judge whether so many more fit in, or what is too much may be dropped.

        Returns:
            None if so; else what a put raises that cannot wait any longer.

        Raises:
            Full: there is no use in waiting.
        """
        limit = self.limit
        if limit is None or len(self.ready) + count <= limit:
            return None
        topic, channel = self.names
        full = Full(topic if channel is None else f"{topic}:{channel}", count, limit)
        if count > limit or self.when_full == "raise":
            raise full
        return full if self.when_full == "wait" else None

    def has_room(self, count: int) -> bool:
        """Return whether a put of so many messages need not wait for room here."""
        if self.limit is None or self.when_full != "wait":
            return True
        return len(self.ready) + count <= self.limit

    # Time

    def next_due(self) -> int:
        """Return the next deadline; takes no lock."""
        return min(self.timeouts.next_due, self.deferred.next_due)

    def sweep(self) -> int:
        """Act on all that is due, in the order of the deadlines; return the time."""
        now = self._now()
        if now < self.due:
            return now
        try:
            self._act(now)
        finally:
            self._set_due(self.next_due())
            self.feed()
        return now

    def _act(self, now: int) -> None:
        while (due := self.next_due()) <= now:
            if self.timeouts.next_due == due:
                if (late := self.timeouts.first_due(now)) is not None:
                    self._time_out(late)
            elif (ready := self.deferred.first_due(now)) is not None:
                self._fall_due(ready)

    def mend(self) -> None:
        """Complete what a signal has interrupted.  May be made twice."""
        self._set_due(self.next_due())
        self.sweep()
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

    def _fall_due(self, tick: Tick[Deferral[T]]) -> None:
        for deferral in list(tick):
            del tick[deferral]  # one piece with the next line
            self.ready.append(deferral.record)
            if self._guard.watched:
                self.emit(Kind.DUE, deferral.record, None, tick.due)
        self.deferred.drop(tick)

    def _set_due(self, due: int) -> None:
        self.due = due
        gate = self.gate
        gate.quiet = not self.special and not self.line.parked
        gate.fresh = min(gate.fresh, due) if gate.quiet else 0

    def _lower(self, due: int) -> None:
        """Take note of a new deadline; the watcher must not sleep past it."""
        if due < self.due:
            self._set_due(due)
            self.line.ring_watcher()

    # From the topic

    def defer(self, deferrals: list[Deferral[T]], due: int) -> None:
        """Take messages that are not due yet.  May be made twice."""
        tick = self.deferred.tick(due)
        for deferral in deferrals:
            tick[deferral] = None
        self._lower(tick.due)
        if self._guard.watched:
            for deferral in deferrals:
                self.emit(Kind.DEFERRED, deferral.record, None, due)

    def accepted(self, count: int) -> None:
        """Do what follows when the topic has appended so many records to `ready`."""
        self.feed()
        if self.limit is None or len(self.ready) <= self.limit:
            return
        excess = min(len(self.ready) - self.limit, count)
        if self.when_full == "drop oldest":
            self._drop([self.ready[i] for i in range(excess)], self.ready.popleft)
        else:  # "drop newest", since the other policies let nothing in beyond the limit
            self._drop([self.ready[-i] for i in range(1, excess + 1)], self.ready.pop)

    def _drop(self, dropped: list[Record[T]], take: Callable[[], object]) -> None:
        self._guard.trash.extend(dropped)
        for record in dropped:
            self.dropped_count += 1
            take()
            self.emit(Kind.DROPPED, record)

    def hand_over(self, record: Record[T]) -> bool:
        """Take a record while somebody waits in line; say whether a call was put off meanwhile.

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
            or guard.alert
        ):
            return self._hand_over(record)
        message._record = record
        message._consumer = owner
        message._tick = tick = gate.tick
        message._delivered = now
        # One piece, up to the call that follows:
        owner.delivered += 1
        tick[message] = None
        waiter.message = message
        del line.first_come[waiter]
        line.watcher = None
        guard.waiting = 0
        guard.push = guard.short_path
        try:
            waiter.bell.release()
        except RuntimeError:  # it was rung already
            pass
        return guard.alert

    def _hand_over(self, record: Record[T]) -> bool:
        guard = self._guard
        try:
            guard.stir()
            guard.broken = True
            self.ready.append(record)
            self.feed()
            guard.broken = False
        finally:
            guard.calm_down()
        return guard.alert

    # To consumers

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
            self._guard.waiting -= 1
            if self.line.watcher is waiter:
                self.line.watcher = None
            try:
                waiter.bell.release()  # itself, since a function begins where a signal may strike
            except RuntimeError:  # it was rung already
                pass
        if self._guard.watched:
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
        """Put a message in flight back to the head of the queue, as this record."""
        tick = message._tick
        if message not in tick:
            return
        owner: Holder = message._consumer
        message._outcome = State.RETURNED
        owner.allowed += 1
        owner.unfinished += 1
        del tick[message]  # one piece with the next line
        self.ready.appendleft(record)
        self._clear_away(tick)
        self.line.unpark(owner)
        self.emit(Kind.RETURNED, record, owner)

    # From consumers

    def require(self, owner: Holder, message: Message[T]) -> None:
        """Check that a message is in flight and the owner's.

        Raises:
            InvalidMessage: it is no message.
            NotInFlight: it is not.
        """
        if not was_delivered(message):
            raise InvalidMessage(f"expected a Message that get() returned, not {message!r}")
        if message not in message._tick:
            raise message.refusal()
        if message._consumer is not owner:
            raise NotInFlight(message.id, "not owner")

    def _require_each(self, owner: Holder, messages: list[Message[T]]) -> None:
        for message in messages:
            if message not in message._tick or message._consumer is not owner:
                self.require(owner, message)  # tells what is wrong

    def finish(self, owner: Holder, messages: list[Message[T]]) -> None:
        """Forget messages: all of them or none."""
        self.sweep()
        try:
            self._require_each(owner, messages)
        except AttributeError:
            self.require(owner, next(filterfalse(was_delivered, messages)))
        if len(set(messages)) < len(messages):
            raise InvalidMessage("the batch has a message twice")
        last = self.gate.tick
        done = 0
        try:
            for message in messages:
                tick = message._tick
                if tick is not last:
                    self._clear_away(last)
                    last = tick
                message._outcome = FINISHED
                done += 1
                del tick[message]
        finally:
            owner.allowed += done
        self._clear_away(last)
        if self._guard.watched or self.latency is not None:
            for message in messages:
                self._finished(message)
        self._settled(owner)

    def _finished(self, message: Message[T]) -> None:
        if self.latency is not None:
            now = self._now()
            self.latency.insert(self._clock.time_ns() - message.timestamp, now)
        self.emit(Kind.FINISHED, counted(message), message._consumer)

    def requeue(self, owner: Holder, message: Message[T], delay: int) -> None:
        """Make a message ready again, or deferred."""
        now = self.sweep()
        self.require(owner, message)
        again = counted(message)
        deferral = Deferral(again)
        old = message._tick
        due = now + min(delay, self._longest_req) if delay else None
        tick = None if due is None else self.deferred.tick(due)
        message._outcome = State.REQUEUED
        owner.allowed += 1
        owner.unfinished += 1
        owner.requeued += 1
        self.requeue_count += 1
        if tick is None:
            del old[message]  # one piece with the next line
            self.ready.append(again)
        else:
            del old[message]
            tick[deferral] = None  # one piece with the line above
            self._lower(tick.due)
        self._clear_away(old)
        if self._guard.watched:
            self.emit(Kind.REQUEUED, again, owner, due)
            if due is not None:
                self.emit(Kind.DEFERRED, again, None, due)
        self._settled(owner)

    def touch(self, owner: Holder, message: Message[T]) -> None:
        """Give a message its whole time-out again, up to the longest."""
        now = self.sweep()
        self.require(owner, message)
        deadline = min(now + owner.msg_timeout, message._delivered + self._longest)
        old = message._tick
        tick = self.timeouts.tick(deadline)
        if tick is not old:
            tick[message] = None
            message._tick = tick
            del old[message]
            self._lower(tick.due)
            self._clear_away(old)
        if self._guard.watched:
            self.emit(Kind.TOUCHED, counted(message), owner, deadline)

    def _clear_away(self, tick: Tick[Message[T]]) -> None:
        if not tick and tick is not self.gate.tick:
            self.timeouts.drop(tick)

    def _settled(self, owner: Holder) -> None:
        """Do what follows when an owner holds fewer messages."""
        if self.line.parked:
            self.line.unpark(owner)
        if self.line.first_come:
            self.feed()
        self.answered()

    # Away with everything

    def clear(self) -> int:
        """Drop all messages; return how many they were."""
        self.sweep()
        trash = self._guard.trash
        count = len(self.ready)
        trash.extend(self.ready)
        self.ready.clear()
        for tick in list(self.timeouts.ticks()):
            for message in list(tick):
                owner: Holder = message._consumer
                outcome = State.DROPPED
                trash.append(message)
                message._outcome = outcome
                owner.allowed += 1
                owner.unfinished += 1
                del tick[message]
                count += 1
            self.timeouts.drop(tick)
        deferred = self.deferred.clear()
        trash.extend(deferred)
        self.gate.tick = Tick(0)
        self.gate.fresh = 0
        self.line.unpark_all()
        self._set_due(NEVER)
        return count + len(deferred)

    # Telling

    def emit(
        self,
        kind: Kind,
        record: Record[T] | None = None,
        owner: Owner | None = None,
        due: int | None = None,
        count: int = 1,
    ) -> None:
        """Tell that something happened, if anybody listens."""
        if not self._guard.watched:
            return
        wall = self._clock.time_ns()
        topic, channel = self.names
        self._guard.emit(
            Event(
                kind=kind,
                time=wall / SECOND,
                topic=topic,
                channel=channel,
                id=None if record is None else record[2] + record[3],
                body=None if record is None else record[0],
                attempts=None if record is None or channel is None else record[4],
                client_id=None if owner is None else owner.client_id,
                due=None if due is None else (wall + due - self._now()) / SECOND,
                count=count,
            )
        )

    def _check(self) -> None:
        """Check what must always hold."""
        self.timeouts._check()
        self.deferred._check()
        assert self.due <= self.next_due()
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
        ids = Counter(record[2] + record[3] for record in self.ready)
        ids.update(message.id for message in self.timeouts)
        ids.update(deferral.record[2] + deferral.record[3] for deferral in self.deferred)
        assert all(times == 1 for times in ids.values()), "a message is in two places"
        if self.ready and not self.paused:
            assert all(waiter.owner.is_full() for waiter in self.line.first_come), (
                "one was forgotten"
            )
        if self.line.first_come or self.line.parked:
            assert self.line.watcher is not None
            assert self.line.watcher in self.line


def was_delivered(message: object) -> bool:
    """Return whether something is a message that a consumer has got."""
    return isinstance(message, Message) and hasattr(message, "_tick")


def counted(message: Message[T]) -> Record[T]:
    """Return the record of a message that counts this delivery."""
    body, timestamp, prefix, suffix, attempts = message._record
    return body, timestamp, prefix, suffix, attempts + 1
