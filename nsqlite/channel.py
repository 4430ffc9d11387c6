"""A channel: its own copy of what the topic hands on, shared by its consumers.

The rule: a message is in exactly one of ready, in flight and deferred, and leaves only by fin, move,
empty, delete, close or a declared overflow policy.  Who waited first is served first.

    topic --> ready (a deque of records) --deliver--> in flight (a timer wheel of Messages)
                ^  ^                                     |    |
                |  +----time-out, req, given back--------+    +--fin, move--> gone
                +--due-- deferred (a timer wheel) <--req(delay)

Time flows in from outside: whoever comes by sweeps what is due.  Of those blocked in `get` one, the
watcher, sleeps no longer than to the next deadline; the others sleep to their own timeouts only.

Everything whose name begins with an underscore expects the topic's lock, unless it says otherwise.

Next: topic.py
"""

import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final, Generic, Protocol

from nsqlite.clock import NEVER, SECOND, Clock
from nsqlite.errors import Closed, InvalidMessage, NotInFlight, TooManyConsumers
from nsqlite.guard import Guard, insist, log
from nsqlite.latency import Latency
from nsqlite.message import Message, Owner, Record, State, T
from nsqlite.names import is_ephemeral
from nsqlite.observe import Event, Kind
from nsqlite.options import Options, seconds, timeout_ns, whole
from nsqlite.stats import ChannelStats, ClientStats, MessageInfo, latency_stats
from nsqlite.timerwheel import Tick, TimerWheel
from nsqlite.waiter import Waiter, wait_until


class Member(Owner, Protocol):
    """What a channel needs of a consumer."""

    _closed: bool
    _parked: OrderedDict[Waiter[Any], None]
    _timeout: int
    _delivered: int
    _settled: int
    _finished: int
    _requeued: int

    def _is_full(self) -> bool:
        """Return whether its window has no room."""
        ...

    def _stats(self) -> ClientStats:
        """Return a snapshot."""
        ...


class Parent(Protocol):
    """What a channel needs of its topic."""

    def _refresh(self) -> None:
        """Look anew which channels are open and bounded."""
        ...

    def _remove(self, channel: Any) -> None:  # noqa: ANN401 - a Channel, below
        """Free the name of a deleted channel."""
        ...

    def _room(self) -> None:
        """Let the first blocked put look again."""
        ...


class Deferral(Generic[T]):
    """A record that waits for its time; channels share it."""

    __slots__ = ("record",)

    def __init__(self, record: Record[T]) -> None:
        """Hold the record."""
        self.record: Final = record


class Channel(Generic[T]):
    """A named queue of a topic; made by `Topic.channel`.

    Each of its messages goes to one of its consumers.  What nobody finishes is delivered again.

    Threads: any, for all methods.  `pause`, `unpause`, `empty`, `close` and `delete` may be called
    by a signal handler or destructor too; in the middle of another call they take effect right
    after it, and then return 0.

    Attributes:
        name: its name.
        topic_name: its topic's name.
        options: what holds for it.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_deferred",
        "_draining",
        "_dropped_count",
        "_due",
        "_fresh",
        "_guard",
        "_handed_before",
        "_latency",
        "_line",
        "_longest",
        "_longest_req",
        "_members",
        "_now",
        "_over",
        "_parent",
        "_paused",
        "_ready",
        "_requeue_count",
        "_special",
        "_tick",
        "_timeout",
        "_timeout_count",
        "_timeouts",
        "_watcher",
        "name",
        "options",
        "topic_name",
    )

    def __init__(
        self,
        name: str,
        topic_name: str,
        options: Options,
        clock: Clock,
        guard: Guard,
        parent: Parent,
    ) -> None:
        """Make an empty channel; `Topic.channel` is the way to one."""
        self.name: Final = name
        self.topic_name: Final = topic_name
        self.options: Final = options
        self._guard: Final = guard
        self._parent: Final = parent
        self._clock: Final = clock
        self._now: Final = clock.monotonic_ns
        self._timeout: Final = seconds("msg_timeout", options.msg_timeout)
        self._longest: Final = seconds("max_msg_timeout", options.max_msg_timeout)
        self._longest_req: Final = seconds("max_req_timeout", options.max_req_timeout)
        resolution = (
            clock.resolution
            if options.resolution is None
            else seconds("resolution", options.resolution)
        )
        self._ready: Final[deque[Record[T]]] = deque()
        self._timeouts: Final[TimerWheel[Message[T]]] = TimerWheel(resolution)
        self._deferred: Final[TimerWheel[Deferral[T]]] = TimerWheel(resolution)
        self._members: Final[dict[int, weakref.ref[Any]]] = {}
        self._line: Final[OrderedDict[Waiter[T], None]] = OrderedDict()
        self._watcher: Waiter[T] | None = None
        self._due = NEVER  # no deadline is before this
        self._tick: Tick[Message[T]] | None = None  # what is delivered now times out with this
        self._fresh = 0  # until when that is so, and nothing is due
        self._special = False  # get and fin must go through run()
        self._paused = False
        self._draining = False
        self._over: str | None = None
        self._handed_before = guard.handed
        self._requeue_count = 0
        self._timeout_count = 0
        self._dropped_count = 0
        self._latency: Latency | None = None
        if options.e2e_processing_latency_percentiles:
            window = seconds("window", options.e2e_processing_latency_window_time)
            self._latency = Latency(window, self._now())
        self._mark()
        clock.attach(self)

    # Looking

    @property
    def depth(self) -> int:
        """How many messages are ready; those in flight or deferred do not count."""
        self._guard.call(self._sweep)
        return len(self._ready)

    @property
    def in_flight_count(self) -> int:
        """How many messages are delivered and not yet answered."""
        self._guard.call(self._sweep)
        return len(self._timeouts)

    @property
    def deferred_count(self) -> int:
        """How many messages wait for their time."""
        self._guard.call(self._sweep)
        return len(self._deferred)

    @property
    def paused(self) -> bool:
        """Whether it delivers nothing just now."""
        return self._paused

    @property
    def closed(self) -> bool:
        """Whether it is closed or deleted."""
        return self._over is not None

    def stats(self) -> ChannelStats:
        """Return a snapshot of its counters."""
        return self._guard.run(self._stats)

    def peek(self, n: int = 10) -> list[MessageInfo]:
        """Return a snapshot of the first `n` ready messages, the next one first."""
        return self._guard.run(self._peek, whole("n", n, 0))

    def in_flight(self, n: int = 10) -> list[MessageInfo]:
        """Return a snapshot of the `n` messages in flight that time out first."""
        return self._guard.run(self._in_flight, whole("n", n, 0))

    def deferred(self, n: int = 10) -> list[MessageInfo]:
        """Return a snapshot of the `n` deferred messages that are due first."""
        return self._guard.run(self._list_deferred, whole("n", n, 0))

    # Steering

    def pause(self) -> None:
        """Deliver nothing until `unpause`; everything else goes on (NSQ semantics §11).

        Raises:
            Closed: the channel is over.
        """
        self._guard.call(self._pause, True)

    def unpause(self) -> None:
        """Deliver again.

        Raises:
            Closed: the channel is over.
        """
        self._guard.call(self._pause, False)

    def empty(self) -> int:
        """Drop all messages, those in flight and deferred too (NSQ semantics §12).

        Returns:
            How many they were.  A late answer to one of them raises `NotInFlight`.

        Raises:
            Closed: the channel is over.
        """
        return self._guard.call(self._empty) or 0

    def delete(self) -> int:
        """Drop all messages and free the name; whoever waits gets `Closed` (NSQ semantics §13).

        An ephemeral topic goes with its last channel.  A second call does nothing.

        Returns:
            How many messages were dropped.
        """
        return self._guard.call(self._delete) or 0

    def close(self, *, drain: bool = False) -> int:
        """End it: it takes no more messages and whoever waits gets `Closed`.

        The name stays taken until `delete`.  A second call with `drain=False` ends a drain.

        Args:
            drain: deliver first what is there.  The channel closes itself when nothing is ready, in
                flight or deferred any more; `join` waits for that.

        Returns:
            How many messages were thrown away; they are logged as a warning.
        """
        thrown = self._guard.call(self._close, drain) or 0
        if thrown:
            log.warning("%s was closed with %d messages in it", self._title, thrown)
        return thrown

    def join(self, timeout: float | None = None) -> bool:
        """Wait until nothing is ready, in flight or deferred.

        Args:
            timeout: in seconds; None waits for ever.

        Returns:
            False if the timeout passed first.

        Raises:
            Closed: the channel was closed or deleted meanwhile.
            InvalidOption: the timeout is negative or no finite number.
        """
        limit = timeout_ns(timeout)
        who = f"join() of {self._title}"
        done = wait_until(self._guard, self._clock, self._done, limit, who)
        if done and self._over is not None and not self._draining:
            raise Closed(self._title, self._over)
        return done

    # Time

    def next_due(self) -> int:
        """Return the next deadline on the clock's monotonic scale; for the clock."""
        return min(self._timeouts.next_due, self._deferred.next_due)

    def advance(self) -> None:
        """Act on whatever is due by now; for the clock."""
        self._guard.call(self._sweep)

    def _sweep(self) -> int:
        """Time out and make ready all that is due, in the order of the deadlines; return the time."""
        now = self._now()
        if now < self._due:
            return now
        try:
            while (due := self.next_due()) <= now:
                if self._timeouts.next_due == due:
                    self._time_out(self._timeouts.first())
                else:
                    self._fall_due(self._deferred.first())
        finally:
            self._due = self.next_due()
            self._fresh = min(self._fresh, self._due)
            insist(self._feed)
        return now

    def _time_out(self, tick: Tick[Message[T]]) -> None:
        for message in list(tick):
            body, timestamp, prefix, suffix, attempts = message._record
            again = (body, timestamp, prefix, suffix, attempts + 1)
            owner = message._consumer
            message._outcome = State.TIMED_OUT
            owner._settled += 1
            self._timeout_count += 1
            del tick[message]
            self._ready.append(again)
            if owner._parked:
                self._unpark(owner)
            if self._guard.watched:
                self._emit(Kind.TIMED_OUT, again, owner, tick.due)
        self._timeouts.drop(tick)

    def _fall_due(self, tick: Tick[Deferral[T]]) -> None:
        for deferral in list(tick):
            del tick[deferral]
            self._ready.append(deferral.record)
            if self._guard.watched:
                self._emit(Kind.DUE, deferral.record, None, tick.due)
        self._deferred.drop(tick)

    def _lower(self, due: int) -> None:
        """Take note of a new deadline; the watcher must not sleep past it."""
        if due < self._due:
            self._due = due
            self._fresh = min(self._fresh, due)
            if self._watcher is not None:
                self._watcher.ring()

    # From the topic

    def _defer(self, deferrals: list[Deferral[T]], due: int) -> None:
        """Take messages that are not due yet.  May be made twice."""
        tick = self._deferred.tick(due)
        for deferral in deferrals:
            tick[deferral] = None
        self._lower(tick.due)
        if self._guard.watched:
            for deferral in deferrals:
                self._emit(Kind.DEFERRED, deferral.record, None, due)

    def _accepted(self, count: int) -> None:
        """Do what follows when the topic has put messages into `_ready`."""
        self._feed()
        limit = self.options.max_depth
        if limit is None or len(self._ready) <= limit:
            return
        excess = min(len(self._ready) - limit, count)
        if self.options.when_full == "drop oldest":
            self._drop([self._ready[i] for i in range(excess)], self._ready.popleft)
        elif self.options.when_full == "drop newest":
            self._drop([self._ready[-i] for i in range(1, excess + 1)], self._ready.pop)

    def _drop(self, dropped: list[Record[T]], take: Callable[[], object]) -> None:
        self._guard.trash.extend(dropped)
        for record in dropped:
            self._dropped_count += 1
            take()
            if self._guard.watched:
                self._emit(Kind.DROPPED, record)

    # To consumers

    def _receive(self, owner: Member, waiter: Waiter[T] | None) -> Message[T] | None:
        """Give the owner the next message; else line the waiter up, or return None without one."""
        now = self._sweep()
        if waiter is not None:
            waiter.listen()
            if waiter.message is not None:
                return waiter.message
        self._require_open(owner)
        if self._ready and not self._paused and not owner._is_full():
            if waiter is not None:
                self._step_out(waiter)
            return self._deliver(owner, now, None)
        if waiter is not None and waiter not in self._line and waiter not in owner._parked:
            if owner._is_full():
                owner._parked[waiter] = None
            else:
                self._line[waiter] = None
                self._guard.waiting += 1
            if self._watcher is None:
                self._watcher = waiter
        return None

    def _deliver(self, owner: Member, now: int, waiter: Waiter[T] | None) -> Message[T]:
        """Move the first ready message into flight; there must be one, and room in the window."""
        if owner._timeout == self._timeout:
            tick = self._current(now)
        else:
            tick = self._timeouts.tick(now + owner._timeout)
        message: Message[T] = Message()
        message._record = self._ready[0]
        message._consumer = owner
        message._tick = tick
        message._delivered = now
        # From here to the call that follows nothing can come between.
        owner._delivered += 1
        tick[message] = None
        del self._ready[0]
        if waiter is not None:
            waiter.message = message
            del self._line[waiter]
            self._guard.waiting -= 1
            if self._watcher is waiter:
                self._watcher = None
            waiter.ring()
        self._lower(tick.due)
        if self._guard.watched:
            body, timestamp, prefix, suffix, attempts = message._record
            record = (body, timestamp, prefix, suffix, attempts + 1)
            self._emit(Kind.DELIVERED, record, owner, tick.due)
        if self.options.max_depth is not None:
            self._parent._room()
        return message

    def _current(self, now: int) -> Tick[Message[T]]:
        """Return the tick in which a message delivered now times out."""
        tick = self._tick
        if tick is None or now >= self._fresh:
            old = tick
            tick = self._tick = self._timeouts.tick(now + self._timeout)
            if old is not None and old is not tick and not old:
                self._timeouts.drop(old)
            self._fresh = min(self._due, tick.due - self._timeout + 1)
        return tick

    def _feed(self) -> None:
        """Hand ready messages to those in line, until one of both runs out."""
        line = self._line
        while line and self._ready and not self._paused:
            waiter = next(iter(line))
            owner = waiter.owner
            if owner._is_full():
                owner._parked[waiter] = None
                del line[waiter]
                self._guard.waiting -= 1
            else:
                self._deliver(owner, self._now(), waiter)
        self._appoint()

    def _appoint(self) -> None:
        """See to it that one of those who are blocked is the watcher: the last, who stays longest."""
        if self._watcher is None and (self._line or len(self._members) > 0):
            watcher = next(reversed(self._line), None)
            if watcher is None:
                watcher = next(
                    (next(iter(m._parked)) for m in self._consumers() if m._parked), None
                )
            if watcher is not None:
                self._watcher = watcher
                watcher.ring()

    def _unpark(self, owner: Member) -> None:
        """Line up those who waited for the owner's window to open."""
        for waiter in list(owner._parked):
            self._line[waiter] = None
            self._guard.waiting += 1
            del owner._parked[waiter]

    def _step_out(self, waiter: Waiter[T]) -> None:
        """Take a waiter out of wherever it waits."""
        if waiter in self._line:
            del self._line[waiter]
            self._guard.waiting -= 1
        waiter.owner._parked.pop(waiter, None)
        if self._watcher is waiter:
            self._watcher = None
            self._appoint()

    def _give_up(self, waiter: Waiter[T]) -> Message[T] | None:
        """End a wait whose time is over; return what it was handed in the last moment."""
        self._sweep()
        self._step_out(waiter)
        return waiter.message

    def _abandon(self, waiter: Waiter[T]) -> None:
        """End a wait that was interrupted; what it was handed was never delivered."""
        self._step_out(waiter)
        message = waiter.message
        if message is not None:
            waiter.message = None
            self._give_back(message, message._record)
        insist(self._feed)

    def _give_back(self, message: Message[T], record: Record[T]) -> None:
        """Put a message in flight back to the head of the queue."""
        if message not in message._tick:
            return
        owner = message._consumer
        message._outcome = State.RETURNED
        owner._settled += 1
        del message._tick[message]
        self._ready.appendleft(record)
        self._clear_away(message._tick)
        if owner._parked:
            self._unpark(owner)
        if self._guard.watched:
            self._emit(Kind.RETURNED, record, owner)

    # From consumers

    def _require(self, owner: Member, message: Message[T]) -> None:
        """Raise unless the message is in flight and the owner's."""
        if not isinstance(message, Message):
            problem = f"expected a Message that get() returned, not {message!r}"
            raise InvalidMessage(problem)
        if message not in message._tick:
            raise message.refusal()
        if message._consumer is not owner:
            raise NotInFlight(message.id, "not owner")

    def _finish(self, owner: Member, messages: list[Message[T]]) -> None:
        self._sweep()
        for message in messages:
            self._require(owner, message)
        if len(set(messages)) < len(messages):
            raise InvalidMessage("the batch has a message twice")
        for message in messages:
            self._finish_one(owner, message)
        self._answered(owner)

    def _finish_one(self, owner: Member, message: Message[T]) -> None:
        message._outcome = State.FINISHED
        owner._settled += 1
        owner._finished += 1
        del message._tick[message]
        self._clear_away(message._tick)
        if self._latency is not None:
            latency = self._clock.time_ns() - message.timestamp
            self._latency.insert(latency, self._now())
        if self._guard.watched:
            self._emit_message(Kind.FINISHED, message)

    def _requeue(self, owner: Member, message: Message[T], delay: int) -> None:
        now = self._sweep()
        self._require(owner, message)
        body, timestamp, prefix, suffix, attempts = message._record
        again = (body, timestamp, prefix, suffix, attempts + 1)
        delay = min(delay, self._longest_req)
        due = now + delay if delay else None
        self._requeue_count += 1
        if due is None:
            message._outcome = State.REQUEUED
            owner._settled += 1
            owner._requeued += 1
            del message._tick[message]
            self._ready.append(again)
        else:
            tick = self._deferred.tick(due)
            deferral = Deferral(again)
            message._outcome = State.REQUEUED
            owner._settled += 1
            owner._requeued += 1
            del message._tick[message]
            tick[deferral] = None
            self._lower(tick.due)
        self._clear_away(message._tick)
        if self._guard.watched:
            self._emit_message(Kind.REQUEUED, message, due)
            if due is not None:
                self._emit(Kind.DEFERRED, again, None, due)
        self._answered(owner)

    def _touch(self, owner: Member, message: Message[T]) -> None:
        now = self._sweep()
        self._require(owner, message)
        deadline = min(now + owner._timeout, message._delivered + self._longest)
        old = message._tick
        tick = self._timeouts.tick(deadline)
        if tick is not old:
            tick[message] = None
            message._tick = tick
            del old[message]
            self._lower(tick.due)
            self._clear_away(old)
        if self._guard.watched:
            self._emit_message(Kind.TOUCHED, message, deadline)

    def _clear_away(self, tick: Tick[Message[T]]) -> None:
        if not tick and tick is not self._tick:
            self._timeouts.drop(tick)

    def _answered(self, owner: Member) -> None:
        """Do what follows when the owner holds fewer messages."""
        if owner._parked:
            self._unpark(owner)
        insist(self._feed)
        self._look_done()

    def _look_done(self) -> None:
        """Do what follows when there may be nothing left."""
        if self._draining and self._over is None and self._is_idle():
            self._shut("closed")
        if self._guard.joiners:
            self._guard.ring_joiners()

    # Consumers come and go

    def _consumers(self) -> Iterator[Member]:
        for ref in list(self._members.values()):
            member = ref()
            if member is not None:
                yield member

    def _join(self, member: Member) -> None:
        self._require_open(None)
        limit = self.options.max_channel_consumers
        if limit and len(self._members) >= limit:
            raise TooManyConsumers(self.topic_name, self.name, limit)
        client_id = member.client_id
        guard = self._guard

        def gone(_: object) -> None:
            guard.put_off(lambda: self._part(client_id))

        self._members[client_id] = weakref.ref(member, gone)

    def _part(self, client_id: int) -> None:
        """Forget a consumer; an ephemeral channel goes with its last one (NSQ semantics §14)."""
        known = self._members.pop(client_id, None)
        if known is not None and not self._members and is_ephemeral(self.name):
            dropped = self._delete()
            if dropped:
                log.warning("%s went with its last consumer and %d messages", self._title, dropped)

    def _leave(self, member: Member, give_back: bool) -> None:  # noqa: FBT001 - private
        """Let a consumer go, with what it holds."""
        if member._closed:
            return
        member._closed = True
        self._sweep()
        for waiter in [*self._line, *member._parked]:
            if waiter.owner is member:
                if waiter.message is None:
                    self._step_out(waiter)
                waiter.ring()
        if give_back and member._delivered > member._settled:
            for message in [m for m in reversed(list(self._timeouts)) if m._consumer is member]:
                body, timestamp, prefix, suffix, attempts = message._record
                self._give_back(message, (body, timestamp, prefix, suffix, attempts + 1))
        insist(self._feed)
        self._part(member.client_id)
        self._look_done()

    # Steering, under the lock

    def _mark(self) -> None:
        """Decide whether the short paths of get and fin are right for this channel."""
        self._special = (
            self._paused
            or self._draining
            or self._over is not None
            or self._latency is not None
            or self.options.max_depth is not None
        )

    @property
    def _title(self) -> str:
        return f"channel {self.name!r} of topic {self.topic_name!r}"

    def _require_open(self, owner: Member | None) -> None:
        if owner is not None and owner._closed:
            raise Closed(f"the consumer of {self._title}")
        if self._over is not None:
            raise Closed(self._title, self._over)

    def _is_idle(self) -> bool:
        return not (self._ready or self._timeouts or self._deferred)

    def _done(self) -> bool:
        """Say whether a join is over."""
        return self._over is not None or self._is_idle()

    def _pause(self, paused: bool) -> None:  # noqa: FBT001 - private
        self._require_open(None)
        self._sweep()
        if paused is self._paused:
            return
        self._paused = paused
        self._mark()
        self._emit(Kind.PAUSED if paused else Kind.UNPAUSED)
        insist(self._feed)

    def _clear(self) -> int:
        """Drop everything."""
        self._sweep()
        trash = self._guard.trash
        count = len(self._ready)
        trash.extend(self._ready)
        self._ready.clear()
        for tick in list(self._timeouts.ticks()):
            for message in list(tick):
                message._outcome = State.DROPPED
                message._consumer._settled += 1
                trash.append(message)
                del tick[message]
                count += 1
            self._timeouts.drop(tick)
        deferred = self._deferred.clear()
        trash.extend(deferred)
        count += len(deferred)
        self._tick = None
        self._fresh = 0
        self._due = NEVER
        for member in self._consumers():
            self._unpark(member)
        return count

    def _empty(self) -> int:
        self._require_open(None)
        count = self._clear()
        self._emit(Kind.EMPTIED, count=count)
        self._parent._room()
        insist(self._feed)
        self._look_done()
        return count

    def _close(self, drain: bool) -> int:  # noqa: FBT001 - private
        if self._over is not None:
            return 0
        if drain:
            self._draining = True
            self._mark()
            self._parent._refresh()
            self._look_done()
            return 0
        self._draining = False
        return self._shut("closed")

    def _delete(self) -> int:
        if self._over == "deleted":
            return 0
        self._draining = False
        count = self._shut("deleted")
        self._parent._remove(self)
        return count

    def _shut(self, how: str) -> int:
        """End it, wake everyone, and return how many messages were thrown away."""
        count = self._clear()
        self._over = how
        self._mark()
        self._emit(Kind.CLOSED if how == "closed" else Kind.DELETED, count=count)
        for waiter in list(self._line):
            self._step_out(waiter)
            waiter.ring()
        self._parent._refresh()
        self._parent._room()
        if self._guard.joiners:
            self._guard.ring_joiners()
        return count

    def _forget_waiters(self) -> None:
        """In the child of a fork: the threads that waited are gone."""
        for member in self._consumers():
            self._unpark(member)
        for waiter in self._line:
            waiter.ring()
        self._line.clear()
        self._watcher = None

    # Looking, under the lock

    def _stats(self) -> ChannelStats:
        now = self._sweep()
        members = sorted(self._consumers(), key=lambda member: member.client_id)
        fractions = self.options.e2e_processing_latency_percentiles
        return ChannelStats(
            channel_name=self.name,
            depth=len(self._ready),
            in_flight_count=len(self._timeouts),
            deferred_count=len(self._deferred),
            message_count=self._guard.handed - self._handed_before,
            requeue_count=self._requeue_count,
            timeout_count=self._timeout_count,
            client_count=len(members),
            clients=tuple(member._stats() for member in members),
            paused=self._paused,
            e2e_processing_latency=latency_stats(fractions, self._latencies(now)),
            dropped_count=self._dropped_count,
        )

    def _latencies(self, now: int) -> Counter[int]:
        return Counter() if self._latency is None else self._latency.counts(now)

    def _info(self, record: Record[T], attempts: int, **more: Any) -> MessageInfo:  # noqa: ANN401
        age = max(0, self._clock.time_ns() - record[1]) / SECOND
        return MessageInfo(
            id=record[2] + record[3], body=record[0], attempts=attempts, age=age, **more
        )

    def _peek(self, n: int) -> list[MessageInfo]:
        self._sweep()
        return [self._info(record, record[4]) for record in islice(self._ready, n)]

    def _in_flight(self, n: int) -> list[MessageInfo]:
        now = self._sweep()
        return [
            self._info(
                message._record,
                message.attempts,
                client_id=message._consumer.client_id,
                due=(message._tick.due - now) / SECOND,
            )
            for message in islice(self._timeouts, n)
        ]

    def _list_deferred(self, n: int) -> list[MessageInfo]:
        now = self._sweep()
        pairs = ((d.record, tick.due) for tick in self._deferred.ticks() for d in tick)
        return [
            self._info(record, record[4], due=(due - now) / SECOND)
            for record, due in islice(pairs, n)
        ]

    # Telling

    def _emit(
        self,
        kind: Kind,
        record: Record[T] | None = None,
        owner: Owner | None = None,
        due: int | None = None,
        count: int = 1,
    ) -> None:
        if not self._guard.watched:
            return
        wall = self._clock.time_ns()
        self._guard.emit(
            Event(
                kind=kind,
                time=wall / SECOND,
                topic=self.topic_name,
                channel=self.name,
                id=None if record is None else record[2] + record[3],
                body=None if record is None else record[0],
                attempts=None if record is None else record[4],
                client_id=None if owner is None else owner.client_id,
                due=None if due is None else (wall + due - self._now()) / SECOND,
                count=count,
            )
        )

    def _emit_message(self, kind: Kind, message: Message[T], due: int | None = None) -> None:
        body, timestamp, prefix, suffix, attempts = message._record
        record = (body, timestamp, prefix, suffix, attempts + 1)
        self._emit(kind, record, message._consumer, due)

    # Checking

    def _check(self) -> None:
        """Check what must always hold; takes the lock."""
        self._guard.run(self._check_all)

    def _check_all(self) -> None:
        self._timeouts._check()
        self._deferred._check()
        assert self._due <= self.next_due()
        held: Counter[Any] = Counter()
        for tick in self._timeouts.ticks():
            for message in tick:
                assert message._tick is tick
                assert message.state is State.IN_FLIGHT
                held[message._consumer] += 1
        for member in self._consumers():
            assert member._delivered - member._settled == held[member]
            for waiter in member._parked:
                assert waiter not in self._line
        ids = Counter(record[2] + record[3] for record in self._ready)
        ids.update(message.id for message in self._timeouts)
        ids.update(d.record[2] + d.record[3] for d in self._deferred)
        assert all(times == 1 for times in ids.values()), "a message is in two places"
        if self._ready and not self._paused and self._over is None:
            assert all(waiter.owner._is_full() for waiter in self._line), "a waiter was forgotten"
        if self._line:
            assert self._watcher is not None
        if self._over is not None:
            assert self._is_idle()
            assert not self._line
