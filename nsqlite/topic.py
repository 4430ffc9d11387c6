"""A topic: every message to every channel, once.

The rule: a message that `put` returned for is in every open channel there was, or held by the topic
itself while it is paused or has no channel; a put that raised has put nothing anywhere.

A put for which nothing is unusual appends its record to the queues itself, by what `FanOut.direct`
has prepared, and then hands it to who waits; a delay, a full queue, a pause or an end goes by way
of `_try` and fanout.py.  Where a store keeps the topic, `_try` reserves, and what was stored is
shown by way of `_show_settled`; see persistence.py.

Whoever calls a public method holds no lock; what begins with an underscore expects the topic's,
unless it says otherwise.

Next: consumer.py
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import repeat
from operator import call
from threading import get_ident
from types import MappingProxyType, TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    Protocol,
    Self,
    TypeAlias,
    TypeVar,
    TypeVarTuple,
    Unpack,
)

from nsqlite.channel import Channel, find_message
from nsqlite.clock import NEVER, Clock, checked_clock
from nsqlite.errors import Closed, Full, InvalidMessage, InvalidOption, Reentered
from nsqlite.events import Kind, Observer, Subscription, all_observers, subscription
from nsqlite.fanout import FanOut
from nsqlite.ids import BLOCK, GuidFactory, Ids, checked_id
from nsqlite.lock import Lock, ensure
from nsqlite.message import Record, T, Uncopyable
from nsqlite.monitor import BUSY, QUIET, Blocked, Monitor, logger
from nsqlite.names import check_name, is_ephemeral
from nsqlite.options import (
    DEFAULTS,
    SECOND,
    ChannelOptions,
    Options,
    Seconds,
    TopicOptions,
    make_options,
    nanoseconds,
    require_same,
    timeout_ns,
    unknown_option,
)
from nsqlite.origin import note
from nsqlite.persistence import Draft, OnDone, PendingWrite, QueuePersistence, TopicPersistence
from nsqlite.queue import Moved, Queue, consume
from nsqlite.waiting import LONG, Reminders, ThreadWaiter, Waiter, join_until

if TYPE_CHECKING:
    from nsqlite.stats import MessageInfo, TopicStats

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

PUBLISHED: Final = Kind.PUBLISHED

AT_ONCE: Final = 0
"""The timeout of a put that never waits."""

ELSEWHERE: Final = -1
"""The limit of a put whose caller waits in another way: it comes back where it would wait."""

WAITS_ELSEWHERE: Final[Any] = object()
"""What that caller gives as timeout; the put then returns no id where it would wait."""


Admitted: TypeAlias = list[Record[T]] | PendingWrite[T]
"""What a put gives to `_try`: its messages, or, with a store, what becomes its messages."""


class Home(Protocol):
    """What a topic takes from its broker."""

    @property
    def clock(self) -> Clock:
        """What it takes the time from."""
        ...

    @property
    def options(self) -> Options:
        """What holds where it is given nothing else."""
        ...

    @property
    def _factory(self) -> GuidFactory:
        """Where its ids come from."""
        ...

    @property
    def _observers(self) -> tuple[Subscription, ...]:
        """Who hears of every topic."""
        ...

    def topic(self, name: str) -> "Topic[Any]":
        """Return a topic of it; see `Broker.topic`."""
        ...


class Topic(Uncopyable, Generic[T]):
    """A named stream of messages.

    `Topic[Order]` tells a type checker what its messages carry.  A body can be any object: it is
    passed on as it is and never copied, so all channels deliver the same object; change it only if
    you know that nobody else looks.  A `bytes` body must have 1 to `max_msg_size` bytes, as in NSQ.

    As a context manager it closes itself at the end of the block.

    Threads: any, for all methods.  `put`, `put_many`, `pause`, `unpause`, `empty`, `close` and
    `delete` may be called by a signal handler or destructor too; in the middle of another call they
    take effect right after it.  Only a put to a bounded channel, which may find no room, raises
    `Reentered` there.

    Attributes:
        name: its name.
        options: what holds for it.
    """

    __slots__ = (
        "__weakref__",
        "_channels",
        "_clock",
        "_draining",
        "_fan",
        "_home",
        "_ids",
        "_lock",
        "_longest_delay",
        "_max_plain",
        "_max_size",
        "_monitor",
        "_named",
        "_now",
        "_over",
        "_store",
        "_wall",
        "name",
        "options",
    )

    def __init__(
        self,
        name: str,
        *,
        clock: Clock | None = None,
        observers: Iterable[Observer] = (),
        home: Home | None = None,
        persistence: TopicPersistence | None = None,
        **options: Unpack[TopicOptions],
    ) -> None:
        """Make a topic that stands alone; `Broker.topic` makes one that a broker owns.

        Args:
            name: 1 to 64 characters (NSQ semantics §2).
            clock: what it takes the time from; the system's by default.
            observers: who hears of its events from the first on; see `observe`.
            home: the broker, for `Broker.topic`.
            persistence: what keeps it in the broker's store.
            options: see `nsqlite.options.TopicOptions`.

        Raises:
            InvalidName: the name breaks NSQ's rule.
            InvalidOption: an option is unknown or out of its range, an observer no function or the
                clock no clock.
        """
        check_name("topic", name)
        chosen = make_options(DEFAULTS if home is None else home.options, **options)
        heard = all_observers(observers) if home is None else home._observers
        clock = checked_clock(clock if home is None else home.clock)
        self.name: Final = name
        self.options: Options = chosen
        self._clock: Final = clock
        self._wall: Final = clock.time_ns
        self._now: Final = clock.monotonic_ns
        self._home: Final = home
        self._ids: Final = Ids(GuidFactory(chosen.node_id) if home is None else home._factory)
        self._monitor: Final = Monitor()
        self._lock: Final[Lock] = self._monitor.lock
        self._longest_delay = chosen.max_req_timeout
        self._max_size = self._max_plain = chosen.max_msg_size
        self._fan: Final[FanOut[T]] = FanOut(name, chosen, clock, self._monitor)
        self._store: Final = persistence
        self._channels: Final[dict[str, Channel[T]]] = {}
        self._draining = False
        self._over: str | None = None
        self._named = True  # its options are what was asked for, and stay
        self._lock.forked = self._forget_waiters
        self._monitor.recover = self._recover
        self._monitor.observe(heard)
        if persistence is not None:
            with self._lock:
                self._restore(persistence)
        self._fan.held.emit(Kind.CREATED)
        if home is None:
            self._monitor.settle()
        note(self)

    def _neighbour(self, name: str) -> "Topic[Any] | None":
        """Return the topic of a name in the same broker, or make it; None if this stands alone."""
        return None if self._home is None else self._home.topic(name)

    # Publishing

    def put(  # noqa: C901, PLR0912 - one path, on which what is unusual costs a test
        self, body: T, delay: Seconds | None = None, timeout: Seconds | None = None
    ) -> str:
        """Publish a message to every channel.

        It never waits, unless a channel is bounded with the policy "wait" and has no room, or a
        store keeps the topic: then it waits for the disk, as the store's `sync` says.  A put that
        has waited for room for 10 s, 20 s, 40 s and so on is logged as a warning.  Name the
        options: they are not keyword-only for CPython's sake, which so saves 4 % of put, get
        and fin.

        Args:
            body: any object; see the class.
            delay: seconds until it is delivered, from now on, at most `max_req_timeout`, which is
                366 days by default.  A deferred message needs no room.
            timeout: seconds to wait for room; None waits for ever, 0 not at all.

        Returns:
            The message's id, 16 hex characters.

        Raises:
            InvalidMessage: a bytes body is empty or too large; nothing has changed.
            InvalidOption: the delay or timeout is out of its range; nothing has changed.
            Full: a bounded channel has no room; nothing was put anywhere.
            Closed: the topic is closed or deleted; nothing has changed.
            StoreError: a store keeps the topic and could not store the message, or, where it
                stores later, what was put before; nothing was put anywhere.
            Reentered: called inside another call on a topic with a bounded channel or a store; or
                by a worker's handler, where it would wait without limit for room that only the
                handlers of that channel could make, all of which wait so; nothing was put.

        Complexity: O(channels).
        """
        if self._store is not None:
            return self._put_one_stored(self._store, body, delay, timeout)
        size = len(body) if body.__class__ is bytes else 0  # type: ignore[arg-type]  # see left
        if not 0 < size <= self._max_size:
            size = self._size(body, None)
        limit = None if timeout is None else self._limit(timeout)
        due = None if delay is None else self._due(delay)
        monitor = self._monitor
        ids = self._ids
        fan = self._fan
        try:
            try:
                with self._lock:
                    now = self._wall()
                    if now >= ids.until or ids.used >= BLOCK:
                        prefix, suffix = ids.renew(now, 1)
                    else:
                        used = ids.used
                        ids.used = used + 1
                        prefix = ids.prefix
                        suffix = ids.suffixes[used]
                    record = (body, now, prefix, suffix, 0)
                    name = prefix + suffix
                    append: Callable[[Any], object] | None = fan.append
                    what: Any = record
                    if append is None or fan.accepted >= monitor.room_until:
                        append, what = self._way(record)
                    if append is not None and due is None and not monitor.state:
                        # One piece, up to a call, which is all C code:
                        fan.accepted += 1
                        fan.size += size
                        append(what)
                        if monitor.watched:
                            fan.held.emit(PUBLISHED, record)
                        if monitor.waiting and fan.is_awaited():
                            monitor.perform(fan.feed)
                        return name
                    if monitor.state != BUSY and monitor.perform(
                        self._try, [record], size, due, None
                    ):
                        return name
            finally:
                if monitor.after:
                    monitor.settle()
        except BaseException:
            monitor.after = True  # of an event or waiter that was noted it may not be said yet
            try:  # what a signal threw may have kept those who wait from being fed
                monitor.call(fan.feed)
            except BaseException:
                ensure(partial(monitor.call, fan.feed))
                raise
            raise
        return name if self._publish_later([record], size, due, limit) else ""

    def put_many(
        self, bodies: Iterable[T], *, delay: Seconds | None = None, timeout: Seconds | None = None
    ) -> list[str]:
        """Publish several messages: all of them or none.

        Args:
            bodies: any objects; see the class.
            delay: as for `put`, the same for all.
            timeout: as for `put`, for the whole batch.

        Returns:
            Their ids, in the order of the bodies.

        Raises:
            InvalidMessage: a bytes body, whose `index` it names, is empty or too large, or there is
                one body instead of several; nothing has changed.
            InvalidOption: the delay or timeout is out of its range; nothing has changed.
            Full: a bounded channel has no room for all, or could never have; nothing was put.
            Closed: the topic is closed or deleted; nothing has changed.
            StoreError: as for `put`; all are stored in one transaction.
            Reentered: called inside another call on a topic with a bounded channel or a store.
        """
        batch = batch_of(bodies, "put_many")
        if not batch:
            if not self._is_open:
                raise self._closed()
            return []
        if self._store is not None:
            return self._put_stored(self._store, self._draft(self._store, batch), delay, timeout)
        size = self._sizes(batch)
        limit = None if timeout is None else self._limit(timeout)
        due = None if delay is None else self._due(delay)
        records, names = self._make_records(batch)
        return names if self._send(records, size, due, limit) else []

    def publish(self, bodies: Iterable[T], on_done: OnDone | None = None) -> None:
        """Publish several messages, all of them or none, without their ids; for servers.

        It never waits for room.

        Args:
            bodies: any objects; see the class.
            on_done: called when the messages are stored, or with the error if they cannot be, by
                any thread, and it must not block; in memory that is before this returns.  What it
                raises is logged.  Without it a topic with a store blocks until then, as `put_many`
                does.

        Raises:
            InvalidMessage, Closed, Reentered: as for `put_many`; nothing has changed.
            InvalidOption: `on_done` is no function; nothing has changed.
            Full: a bounded channel has no room for all; nothing was put.
        """
        batch = batch_of(bodies, "publish")
        check_done(on_done)
        if batch and self._store is not None:
            self._publish_stored(self._store, batch, on_done)
            return
        if batch:
            size = self._sizes(batch)
            records: list[Record[T]] = []
            self._monitor.read(self._add_records, records, None, batch)
            self._send(records, size, None, AT_ONCE)
        elif not self._is_open:
            raise self._closed()
        if on_done is not None:
            report(on_done, None)

    def _due(self, delay: Seconds) -> int | None:
        """Return until when a message waits that is put now; needs no lock."""
        if delay.__class__ is float and 0 < delay <= self._longest_delay:
            return self._now() + round(delay * SECOND)  # a third of what `seconds` costs
        try:
            wait = nanoseconds("delay", delay, 0, self._longest_delay)
        except InvalidOption as error:
            expected = f"{error.expected}, which the option max_req_timeout changes"
            raise InvalidOption("delay", error.value, expected) from error
        return self._now() + wait if wait else None

    def _limit(self, timeout: Seconds) -> int | None:
        """Return how long a put may wait, in nanoseconds; needs no lock."""
        if timeout is AT_ONCE:
            return AT_ONCE
        return ELSEWHERE if timeout is WAITS_ELSEWHERE else timeout_ns(timeout)

    def _way(self, record: Record[T]) -> tuple[Callable[[Any], object] | None, Any]:
        """Return what brings a record to its channels, of which it is known that they have room.

        Returns:
            None instead of a function if there is no channel or no room, in the middle of an
            operation, or if a signal handler has changed anything of that meanwhile: no more calls
            are made before it is used.
        """
        fan = self._fan
        if self._monitor.state:
            return None, record  # an operation that this came into may be making messages ready
        if fan.accepted >= self._monitor.room_until:
            fan.look_for_room()
        appends = fan.appends
        append: Callable[[Any], object] | None = None
        what: Any = record
        if len(appends) == 1:
            append = appends[0]
        elif appends:
            append, what = consume, map(call, appends, repeat(record))
        if fan.appends is not appends or fan.accepted >= self._monitor.room_until:
            append = None
        return append, what

    def _size(self, body: T, index: int | None) -> int:
        """Check a body that is not plainly bytes; needs no lock."""
        if not isinstance(body, bytes):
            return 0
        if not 0 < len(body) <= self._max_size:
            raise self._bad_size(len(body), index)
        return len(body)

    def _sizes(self, batch: list[T]) -> int:
        """Check the bodies of a batch and return the sum of their sizes; needs no lock."""
        size = 0
        largest = self._max_size
        for body in batch:
            if body.__class__ is bytes:
                length = len(body)  # type: ignore[arg-type]  # bytes, as the line above found
                if not length or length > largest:
                    raise self._bad_size(length, index_of(batch, body))
                size += length
            elif isinstance(body, bytes):
                size += self._size(body, index_of(batch, body))
        return size

    def _bad_size(self, size: int, index: int | None) -> InvalidMessage:
        if size == 0:
            return InvalidMessage("the body is empty: NSQ takes 1 byte or more", index)
        limit = self._max_size
        return InvalidMessage(f"the body has {size} bytes, max_msg_size is {limit}", index)

    def _make_records(self, batch: list[T]) -> tuple[list[Record[T]], list[str]]:
        """Make records and ids for a batch; takes the lock."""
        records: list[Record[T]] = []
        names: list[str] = []
        self._monitor.read(self._add_records, records, names, batch)
        return records, names

    def _add_records(
        self, records: list[Record[T]], names: list[str] | None, batch: Sequence[T]
    ) -> None:
        """Make what a batch has no records for yet, and ids if they are wanted."""
        ids = self._ids
        now = self._wall()
        while (left := len(batch) - len(records)) > 0:
            if now >= ids.until or ids.used >= BLOCK:
                ids.renew(now)
            used = ids.used
            end = used + left
            if end > BLOCK:  # noqa: PLR1730 - a call here could let a nested put take the same ids
                end = BLOCK
            ids.used = end
            prefix = ids.prefix
            suffixes = ids.suffixes[used:end]
            part = batch[len(records) : len(records) + len(suffixes)]
            records += zip(part, repeat(now), repeat(prefix), suffixes, repeat(0), strict=False)
            if names is not None:
                names += [prefix + suffix for suffix in suffixes]

    def _make_record(self, body: T) -> tuple[Record[T], str]:
        """Check a body, and return a record of it and its id; takes the lock.

        Raises:
            InvalidMessage: see `put`.
        """
        self._size(body, None)
        [record], [name] = self._make_records([body])
        return record, name

    def _send(self, records: Admitted[T], size: int, due: int | None, limit: int | None) -> bool:
        """Publish records, waiting for room if need be; takes the lock.

        Returns:
            False if it was not to wait, and would have to.
        """
        monitor = self._monitor
        if (monitor.state == BUSY and self._lock.owned()) or not monitor.run(
            self._try, records, size, due, None
        ):
            return self._publish_later(records, size, due, limit)
        return True

    def _publish_later(
        self, records: Admitted[T], size: int, due: int | None, limit: int | None
    ) -> bool:
        """Publish records after the call that this is inside of, or when there is room.

        Returns:
            False if it was not to wait, and would have to.
        """
        monitor = self._monitor
        if monitor.state == BUSY and self._lock.owned():
            if not self._is_open:
                raise self._closed()
            if self._fan.is_bounded():
                raise Reentered("put")
            monitor.put_off(partial(self._put_now, records, size, due))
            return True
        if limit == ELSEWHERE:
            return False
        monitor.require_free("put")
        waiter: ThreadWaiter[T] = ThreadWaiter(monitor, get_ident() if limit is None else None)
        leave = partial(monitor.run, self._fan.leave, waiter)
        try:
            try:
                self._try_until(records, size, limit, waiter)
            finally:
                ensure(leave)
        except BaseException:
            ensure(leave)  # a signal may strike as `ensure` begins
            raise
        return True

    def _put_now(self, records: Admitted[T], size: int, due: int | None) -> None:
        """Publish records whose ids were returned; made twice, it publishes them once."""
        self._require_open()
        if records:
            self._admit(records, size, due)

    def _try_until(
        self, records: Admitted[T], size: int, limit: int | None, waiter: Waiter[T]
    ) -> None:
        """Publish records when there is room, until a time-out; takes the lock."""
        monitor = self._monitor
        begun = self._now()
        deadline = NEVER if limit is None else begun + limit
        reminders = Reminders(self._clock, begun)
        who = f"put() to topic {self.name!r}"
        if limit != 0:
            while not monitor.run(self._try, records, size, None, waiter):
                moment = min(deadline, reminders.moment)
                until = None if moment == NEVER else moment
                if not self._clock.wait(waiter.semaphore, until, who):
                    if moment == deadline:
                        break
                    reminders.go_on(self._now())
                    monitor.read(self._tell_of_wait, waiter)
            else:
                return
        monitor.run(self._try_last, records, size, waiter)

    def _require_no_circle(self, waiter: Waiter[T], count: int) -> None:
        """Check that a put of so many messages does not wait for itself.

        Raises:
            Reentered: it and others wait for room that only they could make.
        """
        putters = self._monitor.putters
        if waiter.owner is None:
            return
        first, (needed, _) = next(iter(putters.items()), (waiter, (count, 0)))
        if first.owner is None:
            return  # it gives up in time, and those behind it may need less room
        waiting = {waiter.owner, *(other.owner for other in putters)}
        for queue in self._fan.full(needed):
            channel = self._channels.get(queue.names[1] or "")
            if channel is not None and channel._waits_for(waiter.owner, waiting):
                self._fan.held.emit(Kind.REFUSED, count=count)
                raise self._monitor.refuse(_circle(queue))

    def _tell_of_wait(self, waiter: Waiter[T]) -> None:
        """Have it logged for what a put waits."""
        if waiter in self._monitor.putters and not self._has_room(waiter):
            self._monitor.log_later("%s", self._wait_in_words(waiter))

    def _has_room(self, waiter: Blocked) -> bool:
        """Return whether a blocked put is the first, and has room by now."""
        putters = self._monitor.putters
        return waiter is next(iter(putters)) and not self._fan.full(putters[waiter][0])

    def _wait_in_words(self, waiter: Blocked) -> str:
        """Return for what a put waits."""
        putters = self._monitor.putters
        count, since = putters[waiter]
        seconds = round((self._now() - since) / SECOND)
        full = self._fan.full(count)
        where = ", ".join(queue.where for queue in full) or self.name
        why = "; ".join(map(self._why_full, full))
        if not full:
            why = "another put waits in front of it"
            if self._has_room(next(iter(putters))):
                why = "the first put has room and does not come: its thread or event loop is stuck"
        return f"put to {self.name} waits for room in {where} for {seconds} s: {why}"

    def _why_full(self, queue: Queue[T]) -> str:
        channel = self._channels.get(queue.names[1] or "")
        if channel is not None:
            return channel._why_full()
        state = "paused" if self._fan.paused else "no channel"
        return f"max_depth={queue.limit}, {queue.depth()} held, {state}"

    def _long_wait(self) -> str:
        """Return in words for what the first blocked put waits that does so for long."""
        now = self._now()
        for waiter, (_, since) in self._monitor.putters.items():
            if now - since >= LONG:
                return self._wait_in_words(waiter)
        return ""

    def _try(
        self, records: Admitted[T], size: int, due: int | None, waiter: Waiter[T] | None
    ) -> bool:
        """Publish if there is room; else queue the waiter up and return False."""
        if waiter is not None:
            waiter.listen()
        if self._over is not None or self._draining:
            raise self._monitor.refuse(self._closed())
        if due is None and not self._is_free(len(records), waiter):
            if waiter is not None:
                self._require_no_circle(waiter, len(records))
                self._fan.wait(waiter, len(records), self._now())
            return False
        self._admit(records, size, due)
        return True

    def _is_free(self, count: int, waiter: Waiter[T] | None) -> bool:
        """Say whether there is room for so many messages.

        Raises:
            Full: there is no use in waiting.
        """
        fan = self._fan
        if not (fan.stale or fan.bounded or fan.held.limit is not None or self._monitor.putters):
            return True
        try:
            return fan.check_room(count, waiter) is None
        except Full:
            fan.held.emit(Kind.REFUSED, count=count)
            raise

    def _try_last(
        self,
        records: Admitted[T],
        size: int,
        waiter: Waiter[T] | None,
        moved: Moved | None = None,
    ) -> None:
        """Publish if there is room; raise `Full` otherwise."""
        self._require_open()
        full = None
        try:
            full = self._fan.check_room(len(records), waiter)
            if full is not None:
                raise self._monitor.refuse(full)
        except Full:
            self._fan.held.emit(Kind.REFUSED, count=len(records))
            raise
        finally:
            del full  # it knows this frame
        self._admit(records, size, None, moved)

    def _admit(
        self, records: Admitted[T], size: int, due: int | None, moved: Moved | None = None
    ) -> None:
        """Take messages that were judged; see `FanOut.admit`."""
        if isinstance(records, PendingWrite):
            self._reserve(records, due, moved)
        else:
            self._fan.admit(records, size, due, moved)

    def _prepare(self, body: T, moved: Moved) -> tuple[Callable[[], None], Callable[[], str]]:
        """Return what publishes a body under the lock, and what then returns its id; for a move.

        Whatever strikes then, the messages that are moved leave their channel if the body is put.

        Raises:
            InvalidMessage: see `put`.
            InvalidOption: another store keeps the message.
        """
        if self._store is not None:
            pending = self._draft_move(self._store, body, moved)
            return lambda: self._try_last(pending, pending.size, None, moved), pending.first
        record, name = self._make_record(body)
        size = self._size(body, None)
        return lambda: self._try_last([record], size, None, moved), lambda: name

    def _prepare_alone(
        self, channel: Channel[T], body: T, moved: Moved
    ) -> tuple[Callable[[], None], Callable[[], str]]:
        """Return the same for a body that goes to a single channel."""
        store, kept = self._store, channel._queue.persistence
        if store is None or kept is None:
            record, name = self._make_record(body)
            return lambda: channel._admit(record, None, moved), lambda: name
        pending = self._draft_move(store, body, moved)

        def publish() -> None:
            self._name(pending)
            entry = store.entry(pending, only=kept, moved=(moved[0].persistence, moved[1]))
            channel._admit(pending.records[0], entry, moved)

        return publish, pending.first

    # With a store

    def _restore(self, store: TopicPersistence) -> None:
        """Begin with what the store has of it."""
        fan = self._fan
        self._max_plain = min(self._max_size, store.longest)
        store.attach(self._monitor, self._show)
        fan.paused = store.paused
        fan.held.keep(store.held)
        for name, paused, kept in store.channels():
            channel = self._make_channel(name, self.options, kept)
            channel._named = False  # its options are still to come
            channel._queue.paused = paused
            channel._queue.emit(Kind.CREATED)
            self._channels[name] = channel
        fan.queues = tuple(channel._queue for channel in self._channels.values())
        self._redirect()

    def _set_options(self, options: Options) -> None:
        """Take the options that this is first asked for with; a store had it without."""
        if not self._named:
            self.options = options
            self._longest_delay = options.max_req_timeout
            self._max_size = options.max_msg_size
            if self._store is not None:
                self._max_plain = min(self._max_size, self._store.longest)
            self._fan.held.reconfigure(options)
            for channel in self._channels.values():
                if not channel._named:
                    channel._set_options(options)
            self._named = True
            self._redirect()

    def _load(self) -> None:
        """Have in memory what bounded queues have in the file; blocks, and takes the lock.

        Raises:
            StoreError: it cannot be read.
        """
        for queue in (self._fan.held, *self._fan.queues):
            queue.load()

    def _put_stored(
        self,
        store: TopicPersistence,
        pending: PendingWrite[T],
        delay: Seconds | None,
        timeout: Seconds | None,
    ) -> list[str]:
        """Reserve, store and show messages; takes the locks.

        Returns:
            Their ids; none if it was not to wait for room, and would have to.
        """
        limit = None if timeout is None else self._limit(timeout)
        due = None if delay is None else self._due(delay)
        if store.late and store.is_behind():
            store.flush()
        try:
            if not self._send(pending, pending.size, due, limit):
                return []
            if pending.queued:
                store.write(pending)
                self._conclude(store, pending)
        except BaseException:
            store.adopt(pending)
            raise
        return pending.names

    def _conclude(self, store: TopicPersistence, pending: PendingWrite[T]) -> None:
        """Show a put that is settled, with those before it; takes the lock.

        Raises:
            StoreError: it could not be written; nothing has changed.
            Closed: the topic was deleted meanwhile; nothing has changed.
        """
        store.show()
        pending.conclude()

    def _put_one_stored(
        self, store: TopicPersistence, body: Any, delay: Seconds | None, timeout: Seconds | None
    ) -> str:
        """See `put`; with few steps if nothing is unusual."""
        size = len(body) if body.__class__ is bytes else 0
        pending: PendingWrite[T] | None = None
        data, codec = body, None
        if not 0 < size <= self._max_plain or self._lock.owned():
            pending = self._draft(store, [body])
            [body] = pending.bodies
            [(data, codec)] = pending.codes or [(body, None)]
            size = pending.size
        if not store.late:
            if pending is None:
                store.require_ready()
                pending = PendingWrite(store, (body,), None, size)
            if delay is None and self._put_plain(store, pending):
                return pending.names[0]
        elif delay is None:
            name = self._put_late(store, body, size, data, codec)
            if name is not None:
                return name
        names = self._put_stored(store, pending or self._draft(store, [body]), delay, timeout)
        return names[0] if names else ""

    def _put_late(
        self, store: TopicPersistence, body: Any, size: int, data: bytes, codec: str | None
    ) -> str | None:
        """Show a message and have it written later, in one piece; takes the lock.

        Returns:
            The id; None if something is unusual, and then nothing has changed.
        """
        if store.is_behind() or len(data) > store.share:
            return None
        monitor = self._monitor
        fan = self._fan
        try:
            try:
                with self._lock:
                    if fan.accepted >= monitor.room_until and not monitor.state:
                        fan.look_for_room()
                        if fan.accepted >= monitor.room_until:
                            return None
                    now = self._wall()
                    prefix, suffix = self._ids.take(now)
                    store.last = name = prefix + suffix  # what is changed now is noticed below
                    record = body, now, prefix, suffix, 0
                    appends = fan.appends
                    note = store.number, name, len(fan.kept_by), now, codec, data
                    calls = map(call, (store.note, *appends), (note, *repeat(record, len(appends))))
                    if (
                        not appends
                        or fan.appends is not appends
                        or not fan.kept_by
                        or fan.accepted >= monitor.room_until
                        or monitor.state
                    ):
                        return None
                    # One piece, up to a call, which is all C code:
                    fan.accepted += 1
                    fan.size += size
                    consume(calls)
                    store.stir()
                    if monitor.watched or monitor.waiting:
                        self._follow(record)
                    return name
            finally:
                if monitor.after:
                    monitor.settle()
        except BaseException:
            self._follow_up(store)
            raise

    def _put_plain(self, store: TopicPersistence, pending: PendingWrite[T]) -> bool:
        """Reserve, store and show one message; takes the locks.

        Returns:
            False if something is unusual, and then nothing has changed.
        """
        monitor = self._monitor
        try:
            try:
                with self._lock:
                    if not self._reserve_plain(store, pending):
                        return False
                if monitor.after:
                    monitor.settle()
                store.write(pending)
                with self._lock:
                    if not self._show_plain(store.settled, pending):
                        monitor.perform(self._show_settled)
            finally:
                if monitor.after:
                    monitor.settle()
        except BaseException:
            self._follow_up(store)
            store.adopt(pending)
            raise
        pending.conclude()
        return True

    def _reserve_alone(self, store: TopicPersistence, pending: PendingWrite[T]) -> bool:
        """Reserve one message that is ready, if nothing is unusual; takes the lock."""
        return self._monitor.read(self._reserve_plain, store, pending)

    def _reserve_plain(self, store: TopicPersistence, pending: PendingWrite[T]) -> bool:
        """Reserve a message if nothing is unusual."""
        now = self._wall()
        prefix, suffix = self._ids.take(now)
        fan = self._fan
        appends = fan.appends
        name = store.prepare_plain(pending, (pending.bodies[0], now, prefix, suffix, 0))
        if (
            not appends
            or fan.appends is not appends
            or not fan.kept_by
            or fan.bounded
            or len(pending.rows[0][5]) > store.share
            or self._monitor.putters
            or self._monitor.state
        ):
            return False
        # One piece, up to a call, which is all C code:
        pending.appends = appends
        pending.flowing = True
        pending.queued = True
        store.last = name
        store.reserve(pending)
        return True

    def _show_plain(self, settled: list[PendingWrite[T]], pending: PendingWrite[T]) -> bool:
        """Show a message that was written if nothing has changed since it was reserved."""
        records = pending.records
        if not settled or settled[0] is not pending or not self._bring(pending, QUIET):
            return False
        settled.remove(pending)
        if self._monitor.watched or self._monitor.waiting:
            self._follow(records[0])
        return True

    def _bring(self, pending: PendingWrite[T], state: int) -> bool:
        """Bring a message to all channels in one piece if nothing has changed.

        Args:
            pending: the message.
            state: the monitor's, in which this is called.
        """
        if not pending.appends or not pending.records or pending.error is not None:
            return False
        monitor = self._monitor
        fan = self._fan
        record = pending.records[0]
        appends = pending.appends
        append: Callable[[Any], object] = consume
        what: Any = map(call, appends, repeat(record))
        if len(appends) == 1:
            append, what = appends[0], record
        if (
            fan.appends is not appends
            or fan.accepted >= monitor.room_until
            or monitor.state != state
        ):
            return False
        # One piece, up to a call, which is all C code:
        fan.accepted += 1
        fan.size += pending.size
        pending.records = []
        append(what)
        return True

    def _follow(self, record: Record[T]) -> None:
        """Tell of a message that was shown, and hand it to who waits."""
        monitor = self._monitor
        fan = self._fan
        if monitor.watched:
            fan.held.emit(PUBLISHED, record)
        if monitor.waiting and fan.is_awaited():
            monitor.perform(fan.feed)

    def _follow_up(self, store: TopicPersistence) -> None:
        """Do what a signal may have kept from being done after a put; takes the lock."""
        self._monitor.after = True  # as in `put`
        ensure(store.stir)
        ensure(partial(self._monitor.call, self._fan.feed))

    def _publish_stored(
        self,
        store: TopicPersistence,
        batch: list[T],
        on_done: OnDone | None,
        *,
        may_write: bool = False,
    ) -> None:
        """See `publish`; a caller that may write saves two changes of threads if that is brief."""
        if on_done is None:
            self._put_stored(store, self._draft(store, batch), None, AT_ONCE)
            return
        pending = self._draft(store, batch, lambda: report(on_done, pending.error))
        self._monitor.run(self._try_last, pending, pending.size, None)
        if pending.queued:
            if may_write:
                store.write_if_brief()
            else:
                store.hurry()
        else:
            report(on_done, None)

    def _draft(
        self,
        store: TopicPersistence,
        bodies: list[T],
        on_done: Callable[[], object] | None = None,
    ) -> PendingWrite[T]:
        """Check and encode bodies; needs no lock.

        Raises:
            InvalidMessage: one of them is refused.
            Reentered: called inside another call.
            Closed: the broker is.
        """
        self._monitor.require_free("put")
        store.require_ready()
        if set(map(type, bodies)) == {bytes}:
            sizes = list(map(len, bodies))  # type: ignore[arg-type]  # see left
            if min(sizes) > 0 and max(sizes) <= self._max_plain:
                return PendingWrite(store, bodies, None, sum(sizes), on_done)
        drafts = self._coded(store, bodies)
        codes = [(data, codec) for _, data, codec in drafts]
        return PendingWrite(store, [one[0] for one in drafts], codes, size_of(bodies), on_done)

    def _coded(self, store: TopicPersistence, bodies: list[T]) -> list[Draft]:
        """Return bodies as drafts, each checked and encoded.

        Raises:
            InvalidMessage: one of them is refused.
        """
        drafts: list[Draft] = []
        for index, body in enumerate(bodies):
            place = None if len(bodies) == 1 else index
            self._size(body, place)
            try:
                draft = store.encode(body)
            except InvalidMessage as error:
                if place is None:
                    raise
                raise InvalidMessage(error.problem, place) from error
            size = len(draft[1])
            if size > self._max_size:
                raise self._bad_size(size, place)
            if size > store.longest:
                problem = f"the body has {size} bytes, and the store keeps {store.longest} at most"
                raise InvalidMessage(problem, place)
            drafts.append(draft)
        return drafts

    def _draft_move(self, store: TopicPersistence, body: T, moved: Moved) -> PendingWrite[T]:
        """Check and encode the body of a move; needs no lock.

        Raises:
            InvalidMessage: it is refused.
            InvalidOption: another store keeps the message.
        """
        if not store.keeps(moved[0].persistence):
            expected = "a topic or channel of the same store: put there, then finish here"
            raise InvalidOption("to", self, expected)
        return self._draft(store, [body])

    def _name(self, pending: PendingWrite[T]) -> None:
        """Give the messages of a put their ids."""
        self._add_records(pending.records, pending.names, pending.bodies)

    def _reserve(self, pending: PendingWrite[T], due: int | None, moved: Moved | None) -> None:
        """Give a put that was judged its ids, its room, and its place among those to be written.

        What is written late, or not at all, is shown at once: with `late`, a move, and what only
        ephemeral channels get.
        """
        store = self._store
        fan = self._fan
        assert store is not None
        self._name(pending)
        pending.due = due
        pending.flowing = fan.is_flowing()
        targets = fan.targets()
        stored = [queue for queue in targets if queue.persistence is not None]
        if stored and moved is None and not store.late:
            if due is None and fan.is_bounded():
                self._reserve_room(pending, targets)
            store.enqueue(pending)
            return
        entry = None
        if stored:
            if moved is not None:
                entry = store.entry(pending, moved=(moved[0].persistence, moved[1]))
            else:
                count = len(stored) if pending.flowing and due is None else 0
                entry = store.entry(pending, count=count)
        fan.admit(pending.records, pending.size, due, moved, entry)

    def _reserve_room(self, pending: PendingWrite[T], targets: Iterable[Queue[T]]) -> None:
        """Keep room for a put in the queues that are bounded."""
        pending.bounded = tuple(queue for queue in targets if queue.limit is not None)
        for queue in pending.bounded:
            queue.reserved += len(pending)

    def _recount_reserved(self, store: TopicPersistence) -> None:
        """Count anew for how many messages room is reserved.  Idempotent."""
        reserved = _reserved(store)
        for queue in (self._fan.held, *self._fan.queues):
            queue.reserved = reserved[id(queue)]

    def _show(self) -> None:
        """Show what is settled; takes the lock, or leaves it to who has it."""
        self._monitor.call(self._show_settled)

    def _show_settled(self) -> None:
        """Show what is settled, in the order in which it was reserved.  May be made twice."""
        store = self._store
        assert store is not None
        settled = store.settled
        if settled and self._fan.accepted >= self._monitor.room_until:
            self._fan.look_for_room()
        while settled:
            if not self._monitor.watched and self._bring(settled[0], BUSY):
                del settled[0]
            else:
                self._show_one(settled[0])
                self._monitor.discard(settled.pop(0))  # its bodies are forgotten after the lock
        if self._monitor.waiting:
            self._fan.feed()
        if self._draining:
            self._changed()

    def _show_one(self, pending: PendingWrite[T]) -> None:
        bounded, pending.bounded = pending.bounded, ()
        for queue in bounded:
            queue.reserved -= len(pending)
        if pending.error is not None or self._over is not None:
            pending.records.clear()  # of a closed topic it lies in the file
            self._fan.room()
        elif pending.records:
            self._fan.admit(pending.records, pending.size, pending.due, flowing=pending.flowing)

    def _change(self, operation: Callable[[*Ts], R], *args: *Ts) -> R | None:
        """Make a change under the lock, and have it written if a store keeps the topic."""
        store = self._store
        if store is None:
            return self._monitor.call(operation, *args)
        store.require_owner()
        result = self._monitor.call(operation, *args)
        store.confirm()
        return result

    # Channels

    def channel(self, name: str, **options: Unpack[ChannelOptions]) -> Channel[T]:
        """Get a channel, or create it.

        The first channel gets what the topic holds; a later one only what is put after its creation
        (NSQ semantics §6).

        Args:
            name: 1 to 64 characters (NSQ semantics §2).
            options: what is to differ from the topic's options; see
                `nsqlite.options.ChannelOptions`.

        Raises:
            InvalidName: the name breaks NSQ's rule; nothing has changed.
            InvalidOption: an option is out of its range, or the channel exists and has another
                value; nothing has changed.
            Closed: the topic is closed or deleted.
            StoreInUse: a store keeps the topic, and this is the child of a fork.
            StoreError: a store keeps the topic and could not be read; or not be written, and then
                the channel is there all the same, and is written before whatever is put next.
        """
        if self._monitor.after:
            self._monitor.settle()  # an ephemeral channel may be about to go
        channel = self._channels.get(name) if name.__class__ is str else None
        if channel is None or self._over is not None or options or not channel._named:
            check_name("channel", name)
            for option in options:
                if option not in ChannelOptions.__optional_keys__:
                    raise unknown_option("channel option", option, ChannelOptions.__optional_keys__)
            wanted = make_options(self.options, **options)
            if channel is None or self._over is not None or not channel._named:
                if self._store is not None:
                    self._store.require_owner()
                self._load_held(name)
                channel = self._monitor.run(self._create, name, wanted)
                channel._queue.load()
            require_same(channel.options, options, f"channel {name!r}")
        if self._store is not None:
            self._store.confirm()
        return channel

    def _create(self, name: str, options: Options) -> Channel[T]:
        self._require_open()
        channel = self._channels.get(name)
        if channel is None:
            kept = None
            if self._store is not None and not is_ephemeral(name):
                kept = self._store.add_channel(name)
            channel = self._make_channel(name, options, kept)
            self._channels[name] = channel
            channel._queue.emit(Kind.CREATED)
            self._fan.queues = (*self._fan.queues, channel._queue)
            self._redirect()
        elif not channel._named:
            channel._set_options(options)
            channel._named = True
            self._redirect()
        return channel

    def _make_channel(
        self, name: str, options: Options, kept: QueuePersistence | None
    ) -> Channel[T]:
        """Return a new channel, with what a store has of it."""
        channel: Channel[T] = Channel((self.name, name), options, self._clock, self._monitor, self)
        if kept is not None:
            channel._queue.keep(kept)
        return channel

    def _make_queue(self, name: str, options: Options, answered: Callable[[], None]) -> Queue[T]:
        """Return what a new channel has its messages in."""
        names = self.name, name
        return Queue(names, options, self._clock, self._monitor, self._room, answered)

    def _load_held(self, name: str) -> None:
        """Have in memory what an ephemeral channel of this name may get, now and after a pause.

        Takes the lock.
        """
        held = self._fan.held
        if is_ephemeral(name) and held.persistence is not None:
            held.persistence.hold_all()

    @property
    def channels(self) -> Mapping[str, Channel[T]]:
        """The channels by name: a read-only copy of the moment."""
        return MappingProxyType(self._channels.copy())

    # For the channels

    def _room(self) -> None:
        """Let the first blocked put look again."""
        self._fan.room()

    def _emptied(self) -> None:
        """Take note that a channel was emptied: what is just being stored is not for it."""
        if self._store is not None:
            self._fan.redirect(closing=self._fan.closing)
        self._fan.room()

    def _handed(self) -> int:
        """Return how many messages the topic has handed on so far."""
        return self._fan.accepted - self._fan.kept

    def _changed(self) -> None:
        """Take note that channels have closed or gone, or that the topic has paused or ended."""
        fan = self._fan
        deleted = [name for name, channel in self._channels.items() if channel._over == "deleted"]
        for name in deleted:
            if self._store is not None:
                self._store.remove_channel(name)
            del self._channels[name]
        channels = self._channels.values()
        fan.queues = tuple(channel._queue for channel in channels if channel._is_open)
        if deleted and not channels and is_ephemeral(self.name):
            dropped = self._delete()
            if dropped:
                text = "topic %r went with its last channel; messages dropped: %d"
                self._monitor.log_later(text, self.name, dropped)
        elif self._over is None and self._draining:
            self._drain()
        self._redirect()

    def _redirect(self) -> None:
        """Hand on what is held, and have the next put find its way anew."""
        if self._is_open:
            self._fan.hand_on()
        if self._store is not None:
            self._store.flow(flowing=self._fan.is_flowing())
        self._fan.redirect(closing=not self._is_open)

    # Steering

    @property
    def paused(self) -> bool:
        """Whether it hands nothing on just now."""
        return self._fan.paused

    @property
    def closed(self) -> bool:
        """Whether it is closed or deleted."""
        return self._over is not None

    @property
    def deleted(self) -> bool:
        """Whether it is deleted, and its name free."""
        return self._over == "deleted"

    @property
    def depth(self) -> int:
        """How many messages it holds itself, being paused or without a channel."""
        return self._monitor.read(self._fan.depth)

    def pause(self) -> None:
        """Hand nothing on until `unpause`; puts are held (NSQ semantics §11).

        Raises:
            Closed: the topic is over.
            StoreError: it could not be stored; it has taken effect, and is stored when it can be.
        """
        self._change(self._pause, True)

    def unpause(self) -> None:
        """Hand on what was held, and what is put from now on.

        Raises:
            Closed: the topic is over.
            StoreError: as for `pause`.
        """
        self._change(self._pause, False)

    def _pause(self, paused: bool) -> None:
        self._require_alive()
        if paused is self._fan.paused:
            return
        self._fan.paused = paused
        self._fan.held.emit(Kind.PAUSED if paused else Kind.UNPAUSED)
        self._changed()

    def empty(self) -> int:
        """Drop what the topic itself holds; its channels keep theirs (NSQ semantics §12).

        Returns:
            How many messages were dropped.

        Raises:
            Closed: the topic is over.
            StoreError: as for `pause`.
        """
        return self._change(self._empty) or 0

    def _empty(self) -> int:
        self._require_alive()
        count = self._fan.held.empty()
        self._changed()
        self._fan.room()
        if self._monitor.joins:
            self._monitor.notify_joins()
        return count

    # How it ends

    def delete(self) -> int:
        """Delete it with all its channels, and free the name (NSQ semantics §13).

        A second call does nothing.

        Returns:
            How many messages were dropped, counted in each channel.

        Raises:
            StoreError: as for `pause`.
        """
        return self._change(self._delete) or 0

    def _delete(self) -> int:
        if self._over == "deleted":
            return 0
        self._draining = False
        return self._shut("deleted")

    def close(self, *, drain: bool = False) -> int:
        """End it and its channels: it takes no more messages and whoever waits gets `Closed`.

        A second call with `drain=False` ends a drain.

        Args:
            drain: deliver first what is there; see `Channel.close`.  What a topic without channels
                holds is thrown away all the same.

        Returns:
            How many messages were thrown away, counted in each channel; they are logged as a
            warning.  None where a store keeps the topic: there they stay.
        """
        thrown = self._end(drain=drain)
        if self._store is not None:
            self._store.confirm()
        return thrown

    def _end(self, *, drain: bool) -> int:
        """See `close`; takes the lock."""
        return self._monitor.call(self._close, drain) or 0

    def _close(self, drain: bool) -> int:
        if self._over is not None:
            return 0
        self._draining = drain
        if not drain:
            thrown = self._shut("closed")
            self._log_thrown(thrown)
            return thrown
        thrown = 0 if self._fan.queues else self._throw_away()
        if self._fan.paused:
            self._pause(False)
        else:
            self._changed()
        self._fan.notify_all()
        return thrown

    def _throw_away(self) -> int:
        """Drop what the topic holds, since no channel will ever get it; return how much it was."""
        thrown = self._fan.held.end("closed")
        if thrown:
            self._fan.held.emit(Kind.EMPTIED, count=thrown)
            self._log_thrown(thrown)
        return thrown

    def _log_thrown(self, thrown: int) -> None:
        if thrown:
            text = "topic %r was closed; messages thrown away: %d"
            self._monitor.log_later(text, self.name, thrown)

    def _drain(self) -> None:
        """Hand on what is held, close the channels behind it, and then itself behind them."""
        self._fan.hand_on()
        if not self._fan.queues:
            self._throw_away()
        if not self._fan.held.is_idle() or (self._store is not None and self._store.unshown()):
            return
        for channel in list(self._channels.values()):
            if channel._is_open:
                channel._close(True)
        if self._over is None and all(c._over is not None for c in self._channels.values()):
            self._over = "closed"
            self._fan.held.emit(Kind.CLOSED, count=0)
            if self._monitor.joins:
                self._monitor.notify_joins()

    def _shut(self, how: str) -> int:
        """End it, wake everyone, and return how many messages were thrown away."""
        self._over = how
        if self._store is not None:
            self._store.end(how)
        count = self._fan.held.end(how) + self._shut_channels(how)
        if how == "deleted":
            self._channels.clear()
        self._changed()
        self._fan.held.emit(Kind.CLOSED if how == "closed" else Kind.DELETED, count=count)
        self._fan.notify_all()
        if self._monitor.joins:
            self._monitor.notify_joins()
        return count

    def _shut_channels(self, how: str) -> int:
        count = 0
        for channel in list(self._channels.values()):
            if channel._over is None:
                channel._queue.draining = False
                count += channel._shut(how)
        return count

    @property
    def _is_open(self) -> bool:
        return self._over is None and not self._draining

    def _closed(self) -> Closed:
        return Closed(f"topic {self.name!r}", self._over or "draining")

    def _require_open(self) -> None:
        if self._over is not None or self._draining:
            raise self._monitor.refuse(self._closed())

    def _require_alive(self) -> None:
        if self._over is not None:
            raise self._monitor.refuse(self._closed())

    def _recover(self) -> None:
        """Complete what a signal has interrupted.  Idempotent."""
        channels = list(self._channels.values())  # before what is deleted goes from there
        for channel in channels:
            channel._queue.restore()  # before it is ended
        self._fan.complete()
        self._fan.held.recover()
        if self._store is not None:
            if self._over is not None:
                self._store.end(self._over)
            self._forget_unmade(self._store)
            self._store.note_all(paused=self._fan.paused, channels=self._channels)
            self._recount_reserved(self._store)
            self._show_settled()
        if self._over is not None:
            self._fan.held.end(self._over)
            self._shut_channels(self._over)
        for channel in channels:
            channel._recover()
        self._changed()
        self._fan.notify_all()
        self._monitor.notify_joins()

    def _forget_unmade(self, store: TopicPersistence) -> None:
        """Have the store forget channels that a signal has kept from being made."""
        if not store.deleted:
            for name, _, _ in store.channels():
                if name not in self._channels:
                    store.remove_channel(name)

    def _forget_waiters(self) -> None:
        """In the child of a fork: the threads that waited are gone."""
        for channel in self._channels.values():
            channel._queue.forget_waiters()
        self._monitor.forget_waiters()

    # Waiting for it

    def join(self, timeout: Seconds | None = None) -> bool:
        """Wait until nothing is held, and nothing ready, in flight or deferred in any channel.

        Args:
            timeout: in seconds; None waits for ever.

        Returns:
            False if the timeout passed first.

        Raises:
            Closed: the topic was closed or deleted meanwhile.
            InvalidOption: the timeout is negative or no finite number.
        """
        limit = timeout_ns(timeout)
        who = f"join() of topic {self.name!r}"
        return self._joined(join_until(self._monitor, self._clock, self._done, limit, who))

    @property
    def idle(self) -> bool:
        """Whether it holds nothing, and nothing is ready, in flight or deferred in any channel."""
        return self._monitor.run(self._is_idle)

    def _is_idle(self) -> bool:
        channels = self._channels.values()
        return self._fan.held.is_idle() and all(channel._queue.is_idle() for channel in channels)

    def _done(self) -> bool:
        return self._over is not None or self._is_idle()

    def _joined(self, done: bool) -> bool:
        """Return what a join returns that is over, or raise what it raises; needs no lock."""
        if done and self._over is not None and not self._draining:
            raise self._closed()
        return done

    # Looking

    def find(self, id: str) -> "dict[str, MessageInfo]":  # noqa: A002 - what NSQ calls it
        """Return where a message is, by the names of the channels that have it.

        Under the name `""` stands what the topic holds itself, which has no channel, or is paused.
        It asks one after the other, as `Channel.find` does: so a message that is handed on just
        then may be missed.

        Raises:
            InvalidMessage: it is no id, which has 16 hexadecimal characters.
            StoreError: it is not in memory, and the store could not be read.
        """
        name = checked_id(id)
        queues = {"": self._fan.held} | {one.name: one._queue for one in self.channels.values()}
        found = {
            where: find_message(queue, self._monitor, self._clock, name)
            for where, queue in queues.items()
        }
        return {where: info for where, info in found.items() if info is not None}

    def stats(self) -> "TopicStats":
        """Return a snapshot of its counters and its channels'."""
        return self._monitor.run(self._stats)

    def _stats(self) -> "TopicStats":
        from nsqlite.stats import TopicStats, latency_stats  # noqa: PLC0415 - keeps importing fast

        channels = tuple(self._channels[name] for name in sorted(self._channels))
        fractions = self.options.e2e_processing_latency_percentiles
        counts: Counter[int] = Counter()
        for channel in channels:
            counts.update(channel._latencies(self._now()))
        return TopicStats(
            topic_name=self.name,
            channels=tuple(channel._stats() for channel in channels),
            depth=self._fan.depth(),
            backend_depth=self._fan.held.backend_depth,
            message_count=self._fan.accepted,
            message_bytes=self._fan.size,
            paused=self._fan.paused,
            e2e_processing_latency=latency_stats(fractions, counts),
            dropped_count=self._fan.held.dropped_count,
        )

    def observe(
        self, callback: Observer, *, kinds: Iterable[str] | None = None
    ) -> Callable[[], None]:
        """Call a function with the events of this topic and its channels.

        It is called with one `Event` at a time, in order, without a lock, by the thread whose call
        caused the event or by one that was telling already.  It may use the topic: the
        events of that follow.  An `Exception` that it raises is logged; anything else, like
        `SystemExit`, is raised by the call that caused the event, although that has been done, and
        the observers after it do not get that event.

        Args:
            callback: the function.
            kinds: the kinds of events that it wants, see `Kind`; None for all.  An observer of
                topics and channels alone (`nsqlite.events.LIFE_CYCLE`) costs a message nothing.

        Returns:
            A function that ends it.

        Raises:
            InvalidOption: the callback is no function, or a kind is none.
        """
        told = subscription(callback, kinds)
        self._watch(told)
        return lambda: self._forget(told)

    def _watch(self, observer: Subscription) -> None:
        """Tell an observer from now on; takes the lock."""
        monitor = self._monitor
        monitor.call(lambda: self._observe((*monitor.observers, observer)))

    def _forget(self, observer: Subscription) -> None:
        """Tell an observer nothing more; takes the lock."""
        monitor = self._monitor
        monitor.call(
            lambda: self._observe(
                tuple(known for known in monitor.observers if known is not observer)
            )
        )

    def _observe(self, observers: tuple[Subscription, ...]) -> None:
        self._monitor.observe(observers)
        for channel in self._channels.values():
            channel._queue.follow()

    def __enter__(self) -> Self:
        """Begin a block that closes it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """Show its name, its state, its channels and how much it holds itself."""
        state = self._over or (
            "draining" if self._draining else "paused" if self.paused else "open"
        )
        return (
            f"<Topic {self.name!r} {state} channels={len(self._channels)}"
            f" depth={self._fan.depth()}>"
        )

    def _repr_html_(self) -> str:
        """Show it in a notebook: a table of what it holds itself, and of its channels."""
        from nsqlite.stats import safely  # noqa: PLC0415 - keeps importing fast

        return safely(self, self._as_html)

    def _as_html(self) -> str:
        from nsqlite.stats import topics_table  # noqa: PLC0415 - keeps importing fast

        return topics_table(repr(self), [self.stats()])

    # Checking

    def _check(self) -> None:
        """Check what must always hold, in the channels too; takes the lock."""
        self._monitor.run(self._check_all)

    def _check_all(self) -> None:
        channels = self._channels.values()
        for channel in channels:
            channel._check_all()
        assert self._monitor.waiting == sum(
            len(channel._queue.waiters.able) for channel in channels
        )
        held = self._fan.held
        held._check()
        self._fan._check()
        assert held.is_idle() or (self._over is None and not self._fan.is_flowing())
        if self._over is not None:
            assert not self._fan.appends
        if self._store is not None:
            reserved = _reserved(self._store)
            for queue in (held, *self._fan.queues):
                assert queue.reserved == reserved[id(queue)], (queue.names, queue.reserved)


def _circle(queue: Queue[Any]) -> Reentered:
    """Return what a put raises that would wait for its own handler."""
    return Reentered(
        "put",
        f"{queue.where} is full (max_depth={queue.limit}), and who could make room are handlers of"
        " its messages that wait to put there; put with a timeout, or after the handler, as with"
        " TakeOver, or give the worker more concurrency or the channel more room",
    )


def _reserved(store: TopicPersistence) -> Counter[int]:
    """Return for how many messages room is reserved in queues, by `id`."""
    reserved: Counter[int] = Counter()
    for pending in store.unshown():
        for queue in pending.bounded:
            reserved[id(queue)] += len(pending)
    return reserved


def batch_of(bodies: Iterable[T], call: str) -> list[T]:
    """Return several bodies as a list; `call` is what they were given to.

    Raises:
        InvalidMessage: it is no iterable of bodies.
    """
    if isinstance(bodies, bytes | bytearray | str) or not isinstance(bodies, Iterable):
        given = type(bodies).__name__
        raise InvalidMessage(f"{call} takes several bodies, not one {given}: use put")
    return list(bodies)


def size_of(bodies: Iterable[object]) -> int:
    """Return the sum of the lengths of those bodies that are bytes."""
    return sum(len(body) for body in bodies if isinstance(body, bytes))


def check_done(on_done: object) -> None:
    """Check what is to be called when messages are stored.

    Raises:
        InvalidOption: it is neither a function nor None.
    """
    if on_done is not None and not callable(on_done):
        raise InvalidOption("on_done", on_done, "a function of one argument")


def report(on_done: OnDone, problem: BaseException | None) -> None:
    """Call what waits for the end of a `publish`; what it raises is logged."""
    try:
        on_done(problem)
    except Exception:
        logger().exception("%r failed, which publish() was to call", on_done)


def index_of(batch: list[T], body: T) -> int:
    """Return where in a batch an object is."""
    return next(index for index, other in enumerate(batch) if other is body)
