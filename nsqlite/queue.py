"""A channel's messages, or what a topic holds back: ready, in flight, deferred.

The rule: a message is in exactly one of ready, in flight and deferred; it moves in one piece, and
nothing but `finish`, `discard`, `clear` and a declared overflow policy takes it away.

    topic --> ready (a deque of records) --deliver--> in flight (a timer wheel of Messages)
                ^  ^                                     |    |
                |  +---time-out, requeue, give_back------+    +--finish--> gone
                +--due-- deferred (a delay queue) <--requeue with a delay

A message goes to the getter that has waited longest, or to the next that asks.  No thread looks at
the time: whoever uses the queue sweeps, which moves what is due.

Everything here expects the topic's lock.  Lines that a comment calls one piece are never
interrupted between them; monitor.py tells why.

Next: channel.py
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from itertools import chain, filterfalse, repeat, starmap
from operator import attrgetter
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeAlias

from nsqlite.clock import NEVER, Clock
from nsqlite.delayqueue import DelayQueue
from nsqlite.errors import Full, InvalidMessage, NotInFlight, shown
from nsqlite.events import Event, Kind
from nsqlite.latency import Latency
from nsqlite.message import Message, Owner, Record, State, T, Where, counted, was_delivered
from nsqlite.monitor import Monitor
from nsqlite.options import SECOND, Options, WhenFull, nanoseconds
from nsqlite.persistence import QueuePersistence
from nsqlite.timerwheel import Page, TimerWheel
from nsqlite.waiting import Waiter, WaitQueue, Windowed

DELIVERED: Final = Kind.DELIVERED
FINISHED: Final = Kind.FINISHED
TIMED_OUT: Final = State.TIMED_OUT
REQUEUED: Final = State.REQUEUED
RETURNED: Final = State.RETURNED
DROPPED: Final = State.DROPPED
# To ask an enum for a member is a call on CPython 3.11, in which a signal may strike.

CONSUMER: Final = attrgetter("_consumer")
RECORD: Final = attrgetter("_record")

new_tuple: Final = tuple.__new__

consume: Final = deque[object](maxlen=0).extend
"""Runs an iterator to its end, in C code: no signal comes in between."""

NO_LIMIT: Final = 1 << 62
"""How many messages a queue has room for, or a consumer may hold, where nothing limits it."""

SPAN: Final = SECOND
"""How much time a page of the timer wheels has."""

KNOWN: Final = 64
"""How many messages that are no longer in flight may be known by id, beside as many as are."""


class Holder(Owner, Windowed, Protocol):
    """What a queue needs of a consumer.

    Attributes:
        _delivered: how many messages it has been given.
        _allowed: how many it may have been given by now: its window and what it has given up.
        _unfinished: how many it has given up without finishing them.
        _requeued: how many of these it has requeued.
        _by_id: what it was given, by id; None as long as it has never answered by id.
        _page: where a message that it is given now times out.
        _due: when that is.
        _fresh: until when `get` may use both without a further look: nothing is due before.
        _over: it has left the channel, or is about to.
        _keeps: it may hold what it is given now as long as it likes: that times out at `NEVER`.
    """

    _delivered: int
    _allowed: int
    _unfinished: int
    _requeued: int
    _by_id: dict[str, Message[Any]] | None
    _page: Page[Message[Any]]
    _due: int
    _fresh: int
    _over: bool
    _keeps: bool

    @property
    def _window(self) -> int:
        """How many messages it may hold."""
        ...

    @property
    def _timeout(self) -> int:
        """How long it may hold a message, in nanoseconds."""
        ...

    @property
    def name(self) -> str | None:
        """Its name."""
        ...


Horizon: TypeAlias = tuple[int, str]
"""A moment, and an id of those that are due then."""

EVERYTHING: Final[Horizon] = (NEVER, "")
"""The horizon behind which nothing waits."""


Place: TypeAlias = tuple[Where, Record[T], int | None, Holder | None]
"""Where a message is, the message, when it is due, and who holds it."""


class Expired(NamedTuple, Generic[T]):
    """A page of messages that have all timed out, on its way to the ready ones."""

    page: Page[Message[T]]
    records: list[Record[T]]
    """What becomes ready."""
    owners: Iterator[tuple[Holder, int]]
    """Whose messages they were, with how many; of those to be told yet."""


class Queue(Generic[T]):
    """The messages of a channel, or those that a topic holds back.

    Attributes:
        names: the topic's and the channel's; None for the topic's own.
        ready: the records to be delivered or handed on, the next one first.
        timeouts: the messages in flight, by the moment they time out.
        deferred: the records that wait for their time.
        due: the next deadline; there is none before this.
        waiters: the blocked getters.
        parked: those of them whose window is full.
        paused: nothing is delivered.
        draining: it is to be told (`answered`) when nothing is left.
        limit: how many may be ready, None for any number.
        when_full: what happens to one more.
        room: called when there is more room.
        answered: called when messages were answered, and there may be nothing left.
        latency: how long messages took from put to fin, None if nobody wants to know.
        persistence: what keeps this in a store, None without one.
        on_delivered: hears what is delivered, and until when it may be held; None if nobody wants
            to know: neither the store nor an observer nor `latency`.
        on_finished: hears what is finished, as well.
        backend_depth: how many more are ready, behind these, in a store's file alone.
        backend_deferred: how many more wait, longer than those that are deferred, in a store's file
            alone.
        horizon: until when, and by which id, these wait at least; `EVERYTHING` if there are none.
        taken_over: the horizon of the topic's own queue when it handed on what waited behind it.
        back: where a message goes that comes back: `ready` itself, or, as long as there are any,
            what is behind `backend_depth` others.
        entry: what is still to be noted of the operation under way, for the store.
        reserved: for how many more, which are just being stored, there must be room.
        emptying: all is being dropped.
        leaving: what is being finished, all of it one consumer's.
        moving: what has moved it has noted that for the store.
        discarded: what has just been taken out by its id, if the store is still to hear of it.
        requeued: what has just been requeued, and until when it waits, if the store is still to
            take note of it.
        taking: what is being delivered in a batch, all of it to one consumer.
        returned: of those at the head that were given back the two parts of the id and the
            deliveries, the next one last; some may have left it.
        expired: a page that has timed out, on its way to the ready ones.
        dropped_count: how many an overflow policy dropped.
        requeue_count: how many were requeued.
        timeout_count: how many have timed out.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_left",
        "_longest",
        "_longest_req",
        "_monitor",
        "_now",
        "_tell_clock",
        "_wall",
        "answered",
        "back",
        "backend_deferred",
        "backend_depth",
        "deferred",
        "discarded",
        "draining",
        "dropped_count",
        "due",
        "emptying",
        "entry",
        "expired",
        "horizon",
        "latency",
        "leaving",
        "limit",
        "moving",
        "names",
        "on_delivered",
        "on_finished",
        "parked",
        "paused",
        "persistence",
        "ready",
        "requeue_count",
        "requeued",
        "reserved",
        "returned",
        "room",
        "taken_over",
        "taking",
        "timeout_count",
        "timeouts",
        "waiters",
        "when_full",
    )

    def __init__(  # noqa: PLR0917 - what every queue is given
        self,
        names: tuple[str, str | None],
        options: Options,
        clock: Clock,
        monitor: Monitor,
        room: Callable[[], None],
        answered: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin empty, and with nobody.

        Args:
            names: the topic's and the channel's; None for the topic's own queue.
            options: what holds for it.
            clock: what it takes the time from.
            monitor: the topic's.
            room: called when there is more room.
            answered: called when messages were answered, and there may be nothing left.
        """
        self.names: Final = names
        self._monitor: Final = monitor
        self._clock: Final = clock
        self._now: Final = clock.monotonic_ns
        self._wall: Final = clock.time_ns
        self.room: Final = room
        self.answered: Final = answered
        self.ready: Final[deque[Record[T]]] = deque()
        self.back: deque[Record[T]] = self.ready
        self.due: int = NEVER
        self._tell_clock: Final = clock.attach(self)
        self.waiters: Final[WaitQueue[T]] = WaitQueue(monitor)
        self.parked: Final = self.waiters.parked
        self.paused: bool = False
        self.draining: bool = False
        self.persistence: QueuePersistence | None = None
        self.configure(options)
        self.backend_depth: int = 0
        self.backend_deferred: int = 0
        self.horizon: Horizon = EVERYTHING
        self.taken_over: Horizon = EVERYTHING
        self._left: Record[T] | None = None  # the last one that was left to the store's file
        self.entry: object | None = None
        self.reserved: int = 0
        self.emptying: bool = False
        self.leaving: Sequence[Message[T]] = ()
        self.moving: bool = False
        self.requeued: tuple[Record[T], int | None] | None = None
        self.discarded: Record[T] | None = None
        self.taking: Sequence[Message[T]] = ()
        self.expired: Expired[T] | None = None
        self.returned: Final[list[tuple[Any, ...]]] = []
        self.dropped_count: int = 0
        self.requeue_count: int = 0
        self.timeout_count: int = 0

    def configure(self, options: Options) -> None:
        """Do as the options say; for a new queue, or one of a store before its first message."""
        self.limit: int | None = options.max_depth
        self.when_full: WhenFull = options.when_full
        self._longest = nanoseconds("max_msg_timeout", options.max_msg_timeout)
        self._longest_req = nanoseconds("max_req_timeout", options.max_req_timeout)
        resolution = self._clock.resolution
        if options.resolution is not None:
            resolution = nanoseconds("resolution", options.resolution)
        self.timeouts: TimerWheel[Message[T]] = TimerWheel(resolution, SPAN)
        self.deferred: DelayQueue[Record[T]] = DelayQueue(resolution)
        self.latency: Latency | None = None
        if options.e2e_processing_latency_percentiles:
            window = nanoseconds("window", options.e2e_processing_latency_window_time)
            self.latency = Latency(window, self._now())
        self.follow()

    def reconfigure(self, options: Options) -> None:
        """Do from now on as the options say, in place of others; nothing was delivered yet."""
        waiting = self.deferred.buckets()
        self.configure(options)
        for due, records in waiting:
            self.wait(records, self.deferred.due(due))
        self._set_due()
        if self.persistence is not None:
            self.persistence.fit()  # and takes note that these are not where their ticks say

    def load(self) -> None:
        """Have in memory what a store has of this, if a put may have to drop it; blocks.

        Takes the lock.

        Raises:
            StoreError: it cannot be read.
        """
        if self.persistence is not None and self.is_dropping():
            self.persistence.load()

    def is_dropping(self) -> bool:
        """Return whether a put may have to drop something."""
        return self.limit is not None and self.when_full not in ("wait", "raise")

    def keep(self, persistence: QueuePersistence) -> None:
        """Have a store keep this queue, which is new, and fill it with what is there of it."""
        self.persistence = persistence
        self.follow()
        persistence.bind(self)

    def follow(self) -> None:
        """Find out who wants to know what is delivered or finished."""
        store = self.persistence
        self.on_delivered: Callable[[Sequence[Message[T]], int], None] | None = None
        self.on_finished: Callable[[Sequence[Message[T]]], None] | None = None
        if self._monitor.watched or self.latency is not None:
            self.on_delivered = self._tell_delivered
            self.on_finished = self._tell_finished
        elif store is not None:
            self.on_delivered = store.delivered
            self.on_finished = store.finished

    # How much there is

    def is_idle(self) -> bool:
        """Return whether nothing is ready, in flight or deferred."""
        here = self.ready or self.back or self.timeouts or self.deferred
        return not (here or self.backend_depth or self.backend_deferred)

    def why_empty(self) -> str:
        """Return in words what there is instead of a ready message; takes the lock."""
        return self._monitor.read(self._why_empty)

    def _why_empty(self) -> str:
        if self.paused:
            return "it is paused"
        parts = []
        if in_flight := len(self.timeouts):
            parts.append(f"{in_flight} in flight")
        if waiting := self.deferred_depth():
            next_due = min(self.deferred.next_due, self.deferred.due(self.horizon[0]))
            left = max(0, next_due - self._now()) / SECOND
            parts.append(f"{waiting} deferred, the next due in {left:.3g} s")
        return ", ".join(parts)

    def depth(self) -> int:
        """Return how many are ready."""
        behind = 0 if self.back is self.ready else len(self.back)
        return len(self.ready) + self.backend_depth + behind

    def deferred_depth(self) -> int:
        """Return how many are deferred."""
        return len(self.deferred) + self.backend_deferred

    def total(self) -> int:
        """Return how many messages there are."""
        return self.depth() + self.deferred_depth() + len(self.timeouts)

    def has_stored(self) -> bool:
        """Return whether something may be ready, or due, that is in a store's file alone."""
        if self.backend_depth:
            return True
        horizon = self.horizon
        return horizon is not EVERYTHING and self.deferred.due(horizon[0]) <= self._now()

    def has_room(self, count: int) -> bool:
        """Return whether so many more fit in."""
        return count <= self.room_left()

    def room_left(self) -> int:
        """Return how many more fit in; it is negative where there are too many."""
        return NO_LIMIT if self.limit is None else self.limit - self.depth() - self.reserved

    def check_room(self, count: int) -> Full | None:
        """Look whether so many more fit in, or what is too much may be dropped.

        Returns:
            None if so; else what a put raises that cannot wait any longer.

        Raises:
            Full: there is no use in waiting.
        """
        if self.has_room(count):
            return None
        assert self.limit is not None
        if count > self.limit or self.when_full == "raise":
            raise self._monitor.refuse(self._full(count))
        return self._full(count) if self.when_full == "wait" else None

    def _full(self, count: int) -> Full:
        return Full(self.where, count, self.limit)

    @property
    def where(self) -> str:
        """Its name in words, as an error has it."""
        topic, channel = self.names
        return topic if channel is None else f"{topic}:{channel}"

    # Coming in

    def defer(self, records: list[Record[T]], due: int) -> None:
        """Take messages that are not due yet.  Made twice in a row, it takes them once."""
        last = records[-1]
        tick = self.deferred.due(due)
        bucket = self.deferred.waiting.get(tick)
        if self._left is not last and not (bucket and bucket[-1] is last):
            store = self.persistence
            place = None if store is None else store.later(due, records)
            if place is None:
                self.wait(records, tick)
            else:
                left = self.backend_deferred + len(records)
                # One piece, up to the call:
                self._left = last
                self.backend_deferred = left
                place.extend(records)
            if store is not None and self.backend_deferred:
                store.look()
        if self._monitor.watched:
            for record in records:
                self.emit(Kind.DEFERRED, record, None, tick)

    def wait(self, records: Sequence[Record[T]], due: int) -> None:
        """Have messages wait in memory until the end of a tick."""
        deferred = self.deferred
        if due < self.due:
            self.expect(due)
        bucket = deferred.bucket(due)
        count = deferred.count + len(records)
        deferred.count = count  # one piece, up to the call
        bucket.extend(records)

    def shift(
        self,
        waiting: dict[int, list[Record[T]]],
        left: int,
        horizon: Horizon,
        taken_over: Horizon | None = None,
    ) -> None:
        """Have others wait in memory, and others in a store's file alone.

        Args:
            waiting: what waits in memory from now on, by the end of its tick.
            left: how many more do so in the file.
            horizon: see the class.
            taken_over: the horizon of the topic's queue that has handed on what waited behind it.
        """
        if taken_over is None:
            taken_over = self.taken_over
        first = min(waiting, default=NEVER)
        if first < self.due:
            self.expect(first)
        ticks = sorted(waiting)
        count = sum(map(len, waiting.values()))
        deferred = self.deferred
        # One piece:
        deferred.waiting = waiting
        deferred.ticks = ticks
        deferred.count = count
        self.backend_deferred = left
        self.horizon = horizon
        self.taken_over = taken_over

    def excess(self, count: int) -> int:
        """Return how many a put of so many may have to drop here."""
        limit = self.limit
        if limit is None or not self.is_dropping():
            return 0
        return max(0, min(count, self.depth() + count - limit))

    def drop_excess(self, most: list[int]) -> None:
        """Drop what is beyond the limit, as the policy says; `most` counts down how many.

        An interrupted call is completed by being made again.
        """
        limit = self.limit
        assert limit is not None
        ready = self.ready
        is_oldest = self.when_full == "drop oldest"
        take = ready.popleft if is_oldest else ready.pop
        while most[0] and ready and self.depth() > limit:
            record = ready[0] if is_oldest else ready[-1]
            self._monitor.discard(record)
            if self.persistence is not None:
                self.persistence.hear(Kind.DROPPED, record, None)  # first: it may be noted twice
            # One piece, up to the call that follows:
            most[0] -= 1
            self.dropped_count += 1
            take()
            self._tell_observers(Kind.DROPPED, record)

    # Time

    def sweep(self) -> int:
        """Act on all that is due, in the order of the deadlines; return the time."""
        now = self._now()
        if now >= self.due:
            try:
                self._act(now)
            finally:
                if self.timeouts.stale:
                    self._monitor.discard(*self.timeouts.stale)
                    self.timeouts.stale.clear()
                self._set_due()
                self.feed()
                if self.backend_deferred and self.persistence is not None:
                    self.persistence.look()
        return now

    def recover(self) -> None:
        """Complete what a signal has interrupted.  Idempotent."""
        self.restore()
        self.follow()
        self.waiters.notified.clear()
        self._set_due()
        self.sweep()
        self.waiters.unpark_all()
        self.feed()
        self.waiters.notify_all()
        if self.persistence is not None:
            self.persistence.look()

    def restore(self) -> None:
        """Have each message in one place again.  Idempotent."""
        self.note_entry()
        if self.requeued is not None and self.persistence is not None:
            self.persistence.hear(Kind.REQUEUED, *self.requeued)
        self.requeued = None  # after it: what is noted twice is noted once
        if self.discarded is not None and self.persistence is not None:
            self.persistence.hear(Kind.DISCARDED, self.discarded, None)
        self.discarded = None
        if self.emptying:
            self.empty()
        if self.taking:
            self._undo_taking()
        if self.expired is not None:
            self._take_expired()
        self.recover_leaving()

    def _act(self, now: int) -> None:
        timeouts, deferred = self.timeouts, self.deferred
        while (next_due := min(timeouts.next_due, deferred.next_due)) <= now:
            if timeouts.next_due == next_due:
                self._time_out(min(now, deferred.next_due))
            else:
                self._fall_due(min(now, timeouts.next_due - 1))

    def _time_out(self, now: int) -> None:
        if not self._monitor.watched:
            while (page := self.timeouts.whole(now)) is not None:
                messages = page.in_order()
                owners = Counter(map(CONSUMER, messages))
                if self.parked or self.waiters.handed:
                    break  # what was handed over and not claimed is another matter
                for message in messages:
                    message._outcome = TIMED_OUT
                records = [
                    (body, timestamp, prefix, suffix, attempts + 1)
                    for body, timestamp, prefix, suffix, attempts in map(RECORD, messages)
                ]
                expired = Expired(page, records, iter(owners.items()))
                # One piece, up to the call, which is made again if a signal cuts it short:
                self.timeout_count += len(records)
                self.expired = expired
                self._take_expired()
        back = self.back
        for message, due, page in self.timeouts.until(now):
            if self.waiters.handed.pop(message, None) is not None:
                self.give_back([(message, message._record)])
                continue
            owner: Holder = message._consumer
            body, timestamp, prefix, suffix, attempts = message._record
            again = body, timestamp, prefix, suffix, attempts + 1
            # One piece, up to the call that follows:
            message._outcome = TIMED_OUT
            owner._allowed += 1
            owner._unfinished += 1
            self.timeout_count += 1
            self._monitor.room_until = 0
            del page[message]
            back.append(again)
            if self.parked:
                self.waiters.unpark(owner)
            if self._monitor.watched:
                self.emit(Kind.TIMED_OUT, again, owner, due)

    def _fall_due(self, now: int) -> None:
        self._monitor.room_until = 0
        for due, records in self.deferred.expire(now, self.back):
            if self._monitor.watched:
                for record in records:
                    self.emit(Kind.DUE, record, None, due)

    def _take_expired(self) -> None:
        """Make ready what is expired.  May be made again, and then does what is left to do."""
        expired = self.expired
        assert expired is not None
        for owner, count in expired.owners:
            owner._allowed += count  # one piece with the lines above and below
            owner._unfinished += count
        expired.page.clear()
        self._monitor.room_until = 0
        if not (self.back and self.back[-1] is expired.records[-1]):
            self.back.extend(expired.records)
        self.timeouts.drop(expired.page)
        self.expired = None

    def _set_due(self) -> None:
        self.due = min(self.timeouts.next_due, self.deferred.next_due)

    def expect(self, due: int) -> None:
        """Take note of a deadline that is to come; the watcher must not sleep past it.

        Called before anything is filed under it: so what a signal interrupts leaves a deadline
        where nothing happens, and never something whose deadline nobody knows.
        """
        if due < self.due:
            self._tell_clock(due)
            self.waiters.notify_watchers()
            if due < self.due:  # noqa: PLR1730 - no call here; a signal handler may have made it earlier still
                self.due = due

    # For the clock

    def next_due(self) -> int:
        """Return the next deadline of a message that is here; takes the lock."""
        with self._monitor.lock:
            far = self.deferred.due(self.horizon[0])
            known = min(self.timeouts.next_filled(), self.deferred.next_due)
            return known if far <= self._now() else min(known, far)  # else it is being read

    def whose(self) -> str:
        """Return in words what the next deadline is of."""
        topic, channel = self.names
        where = f"topic {topic!r}" if channel is None else f"channel {channel!r} of topic {topic!r}"
        is_time_out = self.timeouts.next_filled() < self.deferred.next_due
        what = "the time-out of a message in flight" if is_time_out else "a deferred message"
        return f"{what} in {where}"

    def advance(self) -> None:
        """Act on whatever is due by now; takes the lock."""
        self._monitor.call(self.sweep)

    # To consumers

    def deliver(
        self, owner: Holder, now: int, message: Message[T], waiter: Waiter[T] | None = None
    ) -> Message[T]:
        """Move the first ready message into flight; there must be one, and room in the window.

        Args:
            owner: who gets it.
            now: the time.
            message: what it becomes, bare so far; the caller gives it back if it does not get it.
            waiter: who is handed it, taken out of the wait queue and woken.
        """
        if now >= owner._fresh:
            self.renew(owner, now)
        message._record = record = self.ready[0]
        message._consumer = owner
        message._page = page = owner._page
        if owner._by_id is not None:
            owner._by_id[record[2] + record[3]] = message
        # One piece, up to the call that follows:
        owner._delivered += 1
        page[message] = owner._due
        del self.ready[0]
        if waiter is not None:
            waiters = self.waiters
            waiter.message = message
            waiters.handed[message] = waiter
            del waiters.able[waiter]
            self._monitor.waiting -= 1
            # Not by `notify`: a function begins where a signal may strike.
            if waiter.semaphore is None:
                self._monitor.woken[waiter] = None
                self._monitor.after = True
            else:
                del waiters.threads[waiter]
                if waiters.watcher is waiter:
                    waiters.watcher = None
                try:
                    waiter.semaphore.release()
                except RuntimeError:  # it was released already
                    pass
        if self.on_delivered is not None:
            self.on_delivered((message,), owner._due)
        if self._monitor.wants_room:
            self.room()
        return message

    def _tell_delivered(self, messages: Sequence[Message[T]], due: int) -> None:
        """Have deliveries noted and told."""
        if self.persistence is not None:
            self.persistence.delivered(messages, due)
        if self._monitor.watched:
            for message in messages:
                self.tell(DELIVERED, message, due)

    def tell(self, kind: Kind, message: Message[T], due: int | None = None) -> None:
        """Have something told of a delivery, if anybody wants to hear of it."""
        if kind not in self._monitor.wanted:
            return
        # Not by `emit`: a call for both would cost put, get and fin 4 % where somebody observes.
        wall = self._wall()
        topic, channel = self.names
        body, _, prefix, suffix, attempts = message._record
        owner = message._consumer
        fields = (
            kind,
            wall / SECOND,
            topic,
            channel,
            prefix + suffix,
            body,
            attempts + 1,
            owner.client_id,
            None if due is None or due >= NEVER else (wall + due - self._now()) / SECOND,
            1,
            owner.name,
        )
        self._monitor.events.append(new_tuple(Event, fields))  # a third of what Event(...) costs
        self._monitor.after = True

    def take(self, owner: Holder, batch: list[Message[T]], n: int) -> None:
        """Move up to `n` ready messages into flight and into a batch, as the window allows."""
        now = self.sweep()
        ready = self.ready
        room = min(n, len(ready), owner._allowed - owner._delivered)
        if self.paused or room <= 0:
            return
        if now >= owner._fresh:
            self.renew(owner, now)
        page = owner._page
        fresh: list[Message[T]] = list(starmap(Message, repeat((), room)))
        for message, record in zip(fresh, ready, strict=False):
            message._record = record
            message._consumer = owner
            message._page = page
        filing = zip(fresh, repeat(owner._due), strict=False)
        leaving = starmap(ready.popleft, repeat((), room))
        if owner._by_id is not None:
            owner._by_id.update({message.id: message for message in fresh})
        batch.extend(fresh)  # before they are filed: what is interrupted is given back from here
        # One piece: from here on `recover` undoes what has not left the queue, by one call, below.
        owner._delivered += room
        self.taking = fresh
        page.update(filing)
        consume(leaving)
        self.taking = ()
        if self.on_delivered is not None:
            self.on_delivered(fresh, owner._due)
        if self._monitor.wants_room:
            self.room()

    def _undo_taking(self) -> None:
        """Undo a batch that has not left the queue.  Idempotent."""
        taken = self.taking
        if self.ready and self.ready[0] is taken[0]._record:
            for message in taken:
                message._page.pop(message, None)
            taken[0]._consumer._delivered -= len(taken)  # one piece with the next line
        self.taking = ()

    def renew(self, owner: Holder, now: int) -> bool:
        """Find the page for what a consumer is given from now on.

        Returns:
            Whether that may be used without a further look at the time.
        """
        timeout = owner._timeout
        timeouts = self.timeouts
        due = NEVER if owner._keeps else now + timeout
        due += -due % timeouts.resolution
        if due < self.due:
            self.expect(due)
        old = owner._page
        page = old if old.open and old.start <= due < old.end else timeouts.page(due)
        # To the end of the tick: what comes to wait later is looked for in the next one.
        fresh = (now + -now % timeouts.resolution if owner._keeps else due - timeout) + 1
        if page.kept_until < fresh:  # noqa: PLR1730 - a third of what max() costs
            page.kept_until = fresh
        if page is not old:
            owner._page = page
            if not old and old.kept_until <= now:
                timeouts.drop(old)
        owner._due = due
        if owner._by_id is not None and len(owner._by_id) > 2 * len(page) + KNOWN:
            self._prune(owner, owner._by_id)
        if due < self.due:  # noqa: PLR1730 - no call here: a handler may have swept since `expect`
            self.due = due
        if self.due < fresh:  # noqa: PLR1730 - the same
            fresh = self.due
        # In a pause, and where ids are to be noted, `get` has more to do than look at the time.
        owner._fresh = fresh = 0 if self.paused or owner._by_id is not None else fresh
        return now < fresh and page.open

    def _prune(self, owner: Holder, known: dict[str, Message[Any]]) -> None:
        """Forget the ids of what is in flight no more."""
        owner._by_id = {
            name: message for name, message in known.items() if message in message._page
        }
        self._monitor.discard(known)

    def feed(self) -> None:
        """Hand ready messages to those who wait, until one of both runs out."""
        waiters = self.waiters
        if not self.paused:
            while self.ready and waiters.able:
                waiter = waiters.first()
                if waiter is None:
                    break
                if waiter.hand:
                    self.deliver(waiter.owner, self._now(), Message(), waiter)
                elif not waiters.notify_ready(waiter, len(self.ready)):
                    break
        if waiters.watcher is None and waiters.threads:
            waiters.appoint()

    def give_back(self, returns: Iterable[tuple[Message[T], Record[T]]]) -> None:
        """Put messages back to the head of the queue, each as a record, unless they are there.

        If that is the message's own, not one that counts the delivery, it was never delivered.
        Each goes behind those given back before that were published earlier; so several that are
        given back one by one, in whatever order, stand as they did.
        """
        for message, record in reversed(list(returns)):
            if message in message._page:
                self._give_back(message, record)

    def _give_back(self, message: Message[T], record: Record[T]) -> None:
        page = message._page
        place = self._place(record)
        self.waiters.forget_notified(message._consumer)
        owner: Holder = message._consumer
        never = record is message._record
        # One piece, up to the call that follows:
        message._outcome = RETURNED
        if never:
            owner._delivered -= 1
        else:
            owner._allowed += 1
            owner._unfinished += 1
        self._monitor.room_until = 0
        del page[message]
        self.ready.insert(place, record)
        self.returned.insert(len(self.returned) - place, record[2:5])
        self.waiters.unpark(owner)
        self.emit(Kind.RETURNED, record, owner)

    def forget_waiters(self) -> None:
        """In a fork's child: who waited is gone, and what they were handed goes back."""
        handed = list(self.waiters.handed)
        self.waiters.handed.clear()
        self.waiters.forget()
        self.give_back([(message, message._record) for message in handed])

    def _place(self, record: Record[T]) -> int:
        """Return how many at the head were given back, too, and published before one."""
        ready, returned = self.ready, self.returned
        while returned and not (ready and ready[0][2:5] == returned[-1]):
            returned.pop()  # it has left the head since
        name = record[2:4]
        low, high = 0, len(returned)
        if returned and returned[-1][:2] < name:  # seldom: who gives back many begins with the last
            while low < high:
                middle = (low + high) // 2
                if returned[-1 - middle][:2] < name:
                    low = middle + 1
                else:
                    high = middle
        return low

    # From consumers

    def require(self, owner: Holder, message: Message[T]) -> None:
        """Check that a message is in flight and the owner's.

        Raises:
            InvalidMessage: it is no message.
            NotInFlight: it is not.
        """
        if not was_delivered(message):
            problem = f"expected a Message that get() returned, not {shown(message)}"
            raise self._monitor.refuse(InvalidMessage(problem))
        if message not in message._page:
            raise self._monitor.refuse(message._refusal())
        if message._consumer is not owner:
            raise self._monitor.refuse(NotInFlight(message.id, "not owner"))

    def finish(self, owner: Holder, messages: Sequence[Message[T]]) -> None:
        """Forget messages: all of them or none."""
        try:
            self._require_all(owner, messages)
        except AttributeError:
            self.require(owner, next(filterfalse(was_delivered, messages)))
        if len(messages) > 1 and len(set(messages)) < len(messages):
            raise self._monitor.refuse(InvalidMessage("the batch has a message twice"))
        # One piece: from here on it is done, and `recover` does again what a signal cuts short.
        owner._allowed += len(messages)
        self.leaving = messages
        self.let_go(messages)
        self.settled(owner)

    def _require_all(self, owner: Holder, messages: Sequence[Message[T]]) -> None:
        for message in messages:
            if message not in message._page or message._consumer is not owner:
                self.require(owner, message)  # tells what is wrong

    def recover_leaving(self) -> None:
        """Forget what is leaving, if anything is.  Idempotent."""
        if self.leaving:
            self.let_go(self.leaving)

    def let_go(self, messages: Sequence[Message[T]]) -> None:
        """Forget messages that are leaving.  Idempotent."""
        for message in messages:
            message._page.pop(message, None)
        if self.on_finished is not None:
            self._tell_finished(messages)
        self.leaving = ()  # one piece with the next line
        self.moving = False

    def _tell_finished(self, messages: Sequence[Message[T]]) -> None:
        """Have noted and told that messages were finished."""
        if self.persistence is not None and not self.moving:
            self.persistence.finished(messages)
        if self.latency is not None:
            for message in messages:
                self.measure(message)
        if self._monitor.watched:
            for message in messages:
                self.tell(FINISHED, message)

    def measure(self, message: Message[T]) -> None:
        """Take note of how long a message took that was finished; somebody wants to know."""
        assert self.latency is not None
        self.latency.insert(self._wall() - message._record[1], self._now())

    def settled(self, owner: Holder) -> None:
        """Do what follows when an owner holds fewer messages."""
        if self.parked:
            self.waiters.unpark(owner)
        if self.waiters.able and self.ready:
            self.feed()
        if (self.draining or self._monitor.joins) and (owner._over or self.is_idle()):
            self.answered()

    def requeue(
        self, owner: Holder, message: Message[T], delay: int, now: int, *, counts: bool = True
    ) -> None:
        """Make a message ready again, or deferred; the caller has swept.

        Args:
            owner: who holds it.
            message: what is requeued.
            delay: in nanoseconds.
            now: the time.
            counts: the delivery counts.
        """
        self.require(owner, message)
        again = counted(message) if counts else message._record
        old = message._page
        due = None
        bucket: MutableSequence[Record[T]] | None = None
        is_left = False
        if delay:
            due = self.deferred.due(now + min(delay, self._longest_req))
            if self.persistence is not None:
                bucket = self.persistence.later(due, (again,))
                is_left = bucket is not None
            if bucket is None:
                self.expect(due)
                bucket = self.deferred.bucket(due)
        noted = again, due
        # One piece, up to the call that follows:
        message._outcome = REQUEUED
        owner._allowed += 1
        owner._unfinished += 1
        owner._requeued += 1
        self.requeue_count += 1
        self.requeued = noted
        del old[message]
        if bucket is None:
            self._monitor.room_until = 0
            self.back.append(again)
        elif is_left:
            self.backend_deferred += 1
            bucket.append(again)
        else:
            self.deferred.count += 1
            bucket.append(again)
        if self.persistence is not None or self._monitor.watched:
            self.emit(Kind.REQUEUED, again, owner, due)
            if due is not None:
                self.emit(Kind.DEFERRED, again, None, due)
        self.requeued = None
        self.settled(owner)

    def touch(self, owner: Holder, message: Message[T], now: int) -> None:
        """Give a message its whole time-out again, up to the longest; the caller has swept."""
        self.require(owner, message)
        deadline = message._page[message]
        if deadline < NEVER:
            if not hasattr(message, "_since"):
                message._since = deadline - owner._timeout
            deadline = min(now + owner._timeout, message._since + self._longest)
            self._move_deadline(message, self.timeouts.due(deadline))
        if self._monitor.watched:
            self.tell(Kind.TOUCHED, message, deadline)

    def let_expire(self, owner: Holder, message: Message[T], now: int) -> None:
        """Give a message that would not time out its time-out, from now; the caller has swept."""
        self.require(owner, message)
        self._move_deadline(message, self.timeouts.due(now + owner._timeout))

    def _move_deadline(self, message: Message[T], due: int) -> None:
        """Have a message time out at another moment."""
        old = message._page
        if due != old[message]:
            self.expect(due)
            page = self.timeouts.page(due)
            if page is old:
                del page[message]  # one piece with the next line: it goes behind the others
                page[message] = due
            else:
                page[message] = due  # one piece with the next two lines
                message._page = page
                del old[message]

    # One message, by its id

    def find(self, name: str) -> Place[T] | None:
        """Return where a message is in memory; the caller has swept.  O(n)."""
        back = () if self.back is self.ready else self.back
        for record in chain(self.ready, back):
            if record[2] + record[3] == name:
                return "ready", record, None, None
        for due, record in self.deferred.pairs():
            if record[2] + record[3] == name:
                return "deferred", record, due, None
        for due, message in self.timeouts.pairs():
            if message.id == name:
                return "in flight", counted(message), due, message._consumer
        return None

    def discard(self, place: Place[T]) -> None:
        """Take out a message that `find` has found in memory, ready or deferred."""
        _, record, due, _ = place
        self._monitor.discard(record)
        waits: MutableSequence[Record[T]] = self.back
        if due is not None:
            waits = self.deferred.waiting[due]
        elif any(one is record for one in self.ready):
            waits = self.ready
        at = next(at for at, one in enumerate(waits) if one is record)
        if record[2:5] in self.returned:
            self.returned.remove(record[2:5])
        left = self.deferred.count - (due is not None)
        # One piece, up to the call:
        self.discarded = record
        self.deferred.count = left
        del waits[at]
        self._note_discarded(record)

    def discard_stored(self, record: Record[T], *, waits: bool) -> None:
        """Take out a message that lies in the store alone, ready or deferred."""
        # That there is no more is found out when the next page is read.
        depth = self.backend_depth if waits else max(1, self.backend_depth - 1)
        deferred = max(1, self.backend_deferred - 1) if waits else self.backend_deferred
        # One piece, up to the call:
        self.discarded = record
        self.backend_depth = depth
        self.backend_deferred = deferred
        self._note_discarded(record)

    def _note_discarded(self, record: Record[T]) -> None:
        """Have noted and told that a message was taken out, and do what follows."""
        self.emit(Kind.DISCARDED, record)
        self.discarded = None
        self.shrunk()

    def shrunk(self) -> None:
        """Do what follows when there is less in the queue, though nobody has answered."""
        if self._monitor.wants_room:
            self.room()
        if (self.draining or self._monitor.joins) and self.is_idle():
            self.answered()

    # Away with everything

    def empty(self) -> int:
        """Drop all messages, and tell that; return how many they were."""
        self.emptying = True
        count = self.clear()
        self.emit(Kind.EMPTIED, count=count)
        self.emptying = False
        return count

    def clear(self) -> int:
        """Drop all messages; return how many they were."""
        self.sweep()
        monitor = self._monitor
        count = self.depth() + self.backend_deferred
        for page in self.timeouts.pages():
            for message in list(page):
                owner: Holder = message._consumer
                self.waiters.handed.pop(message, None)
                monitor.discard(message)
                # One piece:
                message._outcome = DROPPED
                owner._allowed += 1
                owner._unfinished += 1
                del page[message]
                count += 1
        monitor.discard(*self.ready, *self.back)
        self.backend_depth = 0
        self.backend_deferred = 0
        self.horizon = EVERYTHING
        self.ready.clear()
        self.back.clear()
        self.returned.clear()
        deferred = self.deferred.clear()
        monitor.discard(*deferred)
        self._set_due()
        self.waiters.unpark_all()
        return count + len(deferred)

    def end(self, how: str) -> int:
        """Drop all messages for ever, but for those that a store keeps of what is only closed.

        Returns:
            How many were thrown away.
        """
        if how == "deleted" or self.persistence is None:
            return self.clear()
        self.persistence.put_away()
        self.clear()
        return 0

    # Telling

    def note_entry(self) -> None:
        """Have noted what is still to be noted of the operation under way.  Idempotent."""
        if self.entry is not None and self.persistence is not None:
            self.persistence.note(self.entry)
            self.entry = None  # after it: what is noted twice is noted once

    def emit(
        self,
        kind: Kind,
        record: Record[T] | None = None,
        owner: Holder | None = None,
        due: int | None = None,
        count: int = 1,
    ) -> None:
        """Tell that something happened, if anybody listens."""
        if self.persistence is not None:
            self.persistence.hear(kind, record, due)
        self._tell_observers(kind, record, owner, due, count)

    def _tell_observers(
        self,
        kind: Kind,
        record: Record[T] | None = None,
        owner: Holder | None = None,
        due: int | None = None,
        count: int = 1,
    ) -> None:
        """Do so, but for the store."""
        if kind not in self._monitor.wanted:
            return
        wall = self._wall()
        topic, channel = self.names
        body = name = attempts = None
        if record is not None:
            body, _, prefix, suffix, attempts = record
            name = prefix + suffix
        fields = (
            kind,
            wall / SECOND,
            topic,
            channel,
            name,
            body,
            None if channel is None else attempts,
            None if owner is None else owner.client_id,
            None if due is None else (wall + due - self._now()) / SECOND,
            count,
            None if owner is None else owner.name,
        )
        self._monitor.events.append(new_tuple(Event, fields))  # a third of what Event(...) costs
        self._monitor.after = True

    # Checking

    def ids(self) -> Counter[str]:
        """Count the ids of the messages that are in memory."""
        ids = Counter(record[2] + record[3] for record in self.ready)
        if self.back is not self.ready:
            ids.update(record[2] + record[3] for record in self.back)
        ids.update(record[2] + record[3] for _, record in self.deferred.pairs())
        ids.update(message.id for message in self.timeouts)
        return ids

    def _check(self) -> None:
        """Check what must always hold."""
        self.deferred._check()
        self.timeouts._check()
        assert self.due <= min(self.timeouts.next_due, self.deferred.next_due)
        assert not self.leaving
        assert not self.taking
        assert self.expired is None
        assert all(times == 1 for times in self.ids().values()), "a message is in two places"
        assert (self.backend_deferred > 0) is (self.horizon is not EVERYTHING)
        held: Counter[Any] = Counter()
        for page in self.timeouts.pages():
            for message in page:
                assert message._page is page
                assert message.state is State.IN_FLIGHT
                held[message._consumer] += 1
        for owner, count in held.items():
            settled = owner._allowed - owner._window
            assert owner._delivered - settled == count, (owner._delivered, settled, count)
        if len(self.ready) > self.waiters.count_notified() and not self.paused:
            assert all(waiter.owner._is_full() for waiter in self.waiters.able), "one was forgotten"
        self.waiters._check()


Moved: TypeAlias = tuple[Queue[Any], list[Message[Any]]]
"""Messages that are finished by being put elsewhere, and the queue that they leave."""
