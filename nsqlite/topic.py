"""A topic: every message to every channel, once.

The rule: a message that `put` returned for is in every open channel there was, or held by the topic
itself while it is paused or has no channel; a put that raised has put nothing anywhere.

A put makes its calls first (the clock, an id), then looks whether all is calm, and then appends the
record to its channels' queues.  Whatever is not calm - a bound, a waiter, an observer, a pause - takes
the long way through `_try`, which judges all channels before it touches one.

Everything whose name begins with an underscore expects the topic's lock, unless it says otherwise.

Next: consumer.py
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Generic, Protocol, Unpack

from nsqlite.channel import Channel, Deferral
from nsqlite.clock import SECOND, SYSTEM, Clock
from nsqlite.errors import Closed, Full, InvalidMessage, InvalidOption, Reentered
from nsqlite.guard import Guard, insist, log
from nsqlite.guid import BLOCK, GuidFactory, Ids
from nsqlite.message import Record, T
from nsqlite.names import check_name, is_ephemeral
from nsqlite.observe import Event, Kind, Observer
from nsqlite.options import (
    DEFAULTS,
    ChannelOptions,
    Options,
    TopicOptions,
    make_options,
    require_same,
    seconds,
    timeout_ns,
)
from nsqlite.stats import TopicStats, latency_stats
from nsqlite.waiter import Waiter, wait_until


class Home(Protocol):
    """What a topic takes from its broker."""

    clock: Clock
    options: Options
    factory: GuidFactory

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Who hears of every topic."""
        ...


class Topic(Generic[T]):
    """A named stream of messages.

    `Topic[Order]` tells a type checker what its messages carry.  A body can be any object: it is
    passed on as it is and never copied, so all channels deliver the same object; change it only if
    you know that nobody else looks.  A `bytes` body must have 1 to `max_msg_size` bytes, as in NSQ.

    Threads: any, for all methods.  `put`, `put_many`, `pause`, `unpause`, `empty`, `close` and
    `delete` may be called by a signal handler or destructor too; in the middle of another call they
    take effect right after it.

    Attributes:
        name: its name.
        options: what holds for it.
    """

    __slots__ = (
        "__weakref__",
        "_bytes",
        "_channels",
        "_clock",
        "_draining",
        "_dropped_count",
        "_guard",
        "_held",
        "_ids",
        "_kept",
        "_lock",
        "_longest_delay",
        "_max_size",
        "_now",
        "_open",
        "_over",
        "_paused",
        "_push",
        "_putters",
        "_readies",
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
        **options: Unpack[TopicOptions],
    ) -> None:
        """Make a topic that stands alone; `Broker.topic` makes one that a broker owns.

        Args:
            name: 1 to 64 characters (NSQ semantics §2).
            clock: what it takes the time from; the system's by default.
            observers: who hears of its events from the first on; see `observe`.
            home: the broker, for `Broker.topic`.
            options: see `nsqlite.options.TopicOptions`.

        Raises:
            InvalidName: the name breaks NSQ's rule.
            InvalidOption: an option is unknown or out of its range.
        """
        self.name: Final = check_name("topic", name)
        base = DEFAULTS if home is None else home.options
        self.options: Final = make_options(base, **options)
        if home is not None:
            clock, observers = home.clock, home.observers
        self._clock: Final = SYSTEM if clock is None else clock
        self._wall: Final = self._clock.time_ns
        self._now: Final = self._clock.monotonic_ns
        factory = GuidFactory(self.options.node_id) if home is None else home.factory
        self._ids: Final = Ids(factory)
        self._guard: Final = Guard()
        self._lock: Final = self._guard.lock
        self._lock.forked = self._forget_waiters
        self._longest_delay: Final = self.options.max_req_timeout
        self._max_size: Final = self.options.max_msg_size
        self._channels: Final[dict[str, Channel[T]]] = {}
        self._open: tuple[Channel[T], ...] = ()  # who gets what is put
        self._readies: tuple[deque[Record[T]], ...] = ()
        self._push: Callable[[Record[T]], bool | None] | None = None  # how, if all is calm
        self._held: Final[deque[tuple[Record[T], int | None]]] = (
            deque()
        )  # with the moment it is due
        self._putters: Final[OrderedDict[Waiter[T], None]] = OrderedDict()
        self._kept = 0  # messages accepted and not handed on: held, dropped or emptied
        self._bytes = 0
        self._dropped_count = 0
        self._paused = False
        self._draining = False
        self._over: str | None = None
        self._guard.observe(tuple(observers))
        self._emit(Kind.CREATED)
        if home is None:
            self._guard.settle()

    # Publishing

    def put(self, body: T, *, delay: float | None = None, timeout: float | None = None) -> str:
        """Publish a message to every channel.

        It never waits, unless a channel is bounded with the policy "wait" and has no room.

        Args:
            body: any object; see the class.
            delay: seconds until it is delivered, from now on, at most `max_req_timeout`.  A deferred
                message needs no room.
            timeout: seconds to wait for room; None waits for ever, 0 not at all.

        Returns:
            The message's id, 16 hex characters.

        Raises:
            InvalidMessage: a bytes body is empty or too large; nothing has changed.
            InvalidOption: the delay or timeout is out of its range; nothing has changed.
            Full: a bounded channel has no room; nothing was put anywhere.
            Closed: the topic is closed or deleted; nothing has changed.
            Reentered: called inside another call on a topic with a bounded channel.

        Complexity: O(channels).
        """
        if body.__class__ is bytes:
            size = len(body)  # type: ignore[arg-type]  # bytes, as the line above found
            if not 0 < size <= self._max_size:
                raise self._bad_size(size, None)
        else:
            size = self._size(body, None)
        guard = self._guard
        ids = self._ids
        with self._lock:
            now = self._wall()
            if now >= ids.until or ids.used == BLOCK:
                ids.renew(now)
            used = ids.used
            ids.used = used + 1
            prefix = ids.prefix
            suffix = ids.suffixes[used]
            record: Record[T] | None = (body, now, prefix, suffix, 0)
            push = self._push
            if (
                push is not None
                and not guard.alert
                and not guard.waiting
                and delay is None
                and timeout is None
            ):
                guard.handed += 1
                self._bytes += size
                if not push(record):
                    return prefix + suffix
                record = None
        if record is None:
            guard.settle()
        else:
            self._send([record], size, delay, timeout)
        return prefix + suffix

    def put_many(
        self, bodies: Iterable[T], *, delay: float | None = None, timeout: float | None = None
    ) -> list[str]:
        """Publish several messages: all of them or none.

        Args:
            bodies: any objects; see the class.
            delay: as for `put`, the same for all.
            timeout: as for `put`, for the whole batch.

        Returns:
            Their ids, in the order of the bodies.

        Raises:
            InvalidMessage: a bytes body, whose `index` it names, is empty or too large; nothing has
                changed.
            InvalidOption: the delay or timeout is out of its range; nothing has changed.
            Full: a bounded channel has no room for all, or could never have; nothing was put.
            Closed: the topic is closed or deleted; nothing has changed.
            Reentered: called inside another call on a topic with a bounded channel.
        """
        batch = list(bodies)
        size = 0
        largest = self._max_size
        for index, body in enumerate(batch):
            if body.__class__ is bytes:
                length = len(body)  # type: ignore[arg-type]  # bytes, as the line above found
                if not 0 < length <= largest:
                    raise self._bad_size(length, index)
                size += length
            else:
                size += self._size(body, index)
        records, names = self._mint(batch)
        self._send(records, size, delay, timeout)
        return names

    def _prepare(self, body: T) -> tuple[Record[T], int]:
        """Check a body for `Consumer.move` and make its record; takes the lock."""
        size = self._size(body, None)
        with self._lock:
            now = self._wall()
            prefix, suffix = self._ids.take(now)
        return (body, now, prefix, suffix, 0), size

    def _take_over(self, record: Record[T], size: int) -> None:
        """Publish a record for `Consumer.move`."""
        self._require_open()
        full = self._full(1, None)
        if full is not None:
            raise full
        self._admit([record], size, None)

    def _size(self, body: T, index: int | None) -> int:
        """Check a body that is not plainly bytes; needs no lock."""
        if not isinstance(body, bytes):
            return 0
        if not 0 < len(body) <= self._max_size:
            raise self._bad_size(len(body), index)
        return len(body)

    def _bad_size(self, size: int, index: int | None) -> InvalidMessage:
        if size == 0:
            return InvalidMessage("the body is empty: NSQ takes 1 byte or more", index)
        limit = self._max_size
        return InvalidMessage(f"the body has {size} bytes, max_msg_size is {limit}", index)

    def _mint(self, batch: list[T]) -> tuple[list[Record[T]], list[str]]:
        """Make records and ids for a batch; takes the lock."""
        records: list[Record[T]] = []
        names: list[str] = []
        ids = self._ids
        with self._lock:
            now = self._wall()
            while (left := len(batch) - len(records)) > 0:
                if now >= ids.until or ids.used == BLOCK:
                    ids.renew(now)
                used = ids.used
                end = used + left
                if end > BLOCK:
                    end = BLOCK
                ids.used = end
                prefix = ids.prefix
                suffixes = ids.suffixes[used:end]
                part = batch[len(records) : len(records) + len(suffixes)]
                records += [
                    (body, now, prefix, suffix, 0)
                    for body, suffix in zip(part, suffixes, strict=True)
                ]
                names += [prefix + suffix for suffix in suffixes]
        return records, names

    def _send(
        self, records: list[Record[T]], size: int, delay: float | None, timeout: float | None
    ) -> None:
        """Publish records, waiting for room if need be; takes the lock."""
        limit = timeout_ns(timeout)
        due = None
        if delay is not None:
            wait = seconds("delay", delay, 0, self._longest_delay)
            due = self._now() + wait if wait else None
        guard = self._guard
        if guard.busy and self._lock.owned():
            self._require_open()
            if any(queue.options.max_depth is not None for queue in (self, *self._open)):
                raise Reentered("put")
            guard.put_off(lambda: self._try(records, size, due, None))
            return
        if guard.run(self._try, records, size, due, None):
            return
        waiter: Waiter[T] = Waiter()
        deadline = None if limit is None else self._now() + limit
        who = f"put() to topic {self.name!r}"
        try:
            while not guard.run(self._try, records, size, due, waiter):
                left = None if deadline is None else deadline - self._now()
                if (left is not None and left <= 0) or not self._clock.wait(waiter.bell, left, who):
                    guard.run(self._try_last, records, size, waiter)
                    return
        finally:
            if waiter in self._putters:
                insist(lambda: guard.run(self._step_out, waiter))

    def _try(
        self, records: list[Record[T]], size: int, due: int | None, waiter: Waiter[T] | None
    ) -> bool:
        """Publish if there is room; else line the waiter up and return False."""
        if waiter is not None:
            waiter.listen()
        self._require_open()
        if due is None and self._full(len(records), waiter) is not None:
            if waiter is not None:
                self._putters[waiter] = None
            return False
        if waiter is not None:
            self._step_out(waiter)
        self._admit(records, size, due)
        return True

    def _try_last(self, records: list[Record[T]], size: int, waiter: Waiter[T]) -> None:
        """Publish if there is room after all; raise `Full` otherwise."""
        self._require_open()
        full = self._full(len(records), waiter)
        if full is not None:
            raise full
        self._step_out(waiter)
        self._admit(records, size, None)

    def _full(self, count: int, waiter: Waiter[T] | None) -> Full | None:
        """Judge all queues that a put would go to.

        Returns:
            None if there is room, else the `Full` that a put raises which cannot wait any longer.

        Raises:
            Full: nothing is to be waited for.
        """
        blocked: Full | None = None
        waits = False
        for queue in self._open if self._flows() else (self,):
            limit = queue.options.max_depth
            if limit is None:
                continue
            where = self.name if queue is self else f"{self.name}:{queue.name}"
            policy = queue.options.when_full
            waits = waits or policy == "wait"
            if count > limit:
                raise Full(where, limit, count)
            if isinstance(queue, Channel):
                queue._sweep()
            used = len(self._held if isinstance(queue, Topic) else queue._ready)
            if used + count > limit:
                if policy == "raise":
                    raise Full(where, limit, count)
                if policy == "wait":
                    blocked = Full(where, limit, count)
        if blocked is None and waits and self._putters and next(iter(self._putters)) is not waiter:
            first = next(queue for queue in (*self._open, self) if queue.options.max_depth)
            limit = first.options.max_depth
            blocked = Full(self.name, limit or 0, count)
        return blocked

    def _step_out(self, waiter: Waiter[T]) -> None:
        """Take a blocked put out of the line; the next one looks."""
        if waiter in self._putters:
            del self._putters[waiter]
            self._room()

    def _room(self) -> None:
        """Let the first blocked put look again."""
        if self._putters:
            next(iter(self._putters)).ring()

    def _admit(self, records: list[Record[T]], size: int, due: int | None) -> None:
        """Take messages that were judged."""
        self._bytes += size
        if self._guard.watched:
            for record in records:
                self._emit(Kind.PUBLISHED, record, due)
        if self._flows():
            self._guard.handed += len(records)
            self._distribute(records, due)
            return
        self._kept += len(records)
        self._held.extend([(record, due) for record in records])
        limit = self.options.max_depth
        if limit is not None and len(self._held) > limit and self.options.when_full != "wait":
            take = self._held.popleft if self.options.when_full == "drop oldest" else self._held.pop
            for _ in range(min(len(self._held) - limit, len(records))):
                record, _due = take()
                self._guard.trash.append(record)
                self._dropped_count += 1
                self._emit(Kind.DROPPED, record)

    def _distribute(self, records: list[Record[T]], due: int | None) -> None:
        """Put records into every open channel; once begun it is done, whatever a signal throws."""
        if due is not None and due > self._now():
            deferrals = [Deferral(record) for record in records]
            insist(lambda: self._defer(deferrals, due))
            return
        todo = list(reversed(self._open))

        def append() -> None:
            while todo:
                ready = todo[-1]._ready
                del todo[
                    -1
                ]  # from here to the end of the call that follows nothing can come between
                ready.extend(records)

        insist(append)
        for channel in self._open:
            insist(lambda channel=channel: channel._accepted(len(records)))  # type: ignore[misc]

    def _defer(self, deferrals: list[Deferral[T]], due: int) -> None:
        for channel in self._open:
            channel._defer(deferrals, due)

    def _fan_out(self, record: Record[T]) -> bool:
        """Put a record into several channels while all is calm; say whether a call was put off."""
        guard = self._guard
        readies = iter(self._readies)

        def rest() -> None:
            for ready in readies:
                ready.append(record)

        try:
            guard.busy = guard.alert = True
            for ready in readies:
                ready.append(record)
        except BaseException:
            insist(rest)
            raise
        finally:
            guard.calm_down()
        return guard.alert

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
        """
        check_name("channel", name)
        for option in options:
            if option not in ChannelOptions.__optional_keys__:
                known = ", ".join(sorted(ChannelOptions.__optional_keys__))
                raise InvalidOption("channel option", option, f"one of {known}")
        wanted = make_options(self.options, **options)
        channel = self._channels.get(name)
        if channel is None or self._over is not None:
            channel = self._guard.run(self._create, name, wanted)
        require_same(channel.options, options, f"channel {name!r}")
        return channel

    @property
    def channels(self) -> Mapping[str, Channel[T]]:
        """The channels by name: a read-only copy of the moment."""
        return MappingProxyType(self._channels.copy())

    def _create(self, name: str, options: Options) -> Channel[T]:
        self._require_open()
        channel = self._channels.get(name)
        if channel is None:
            channel = Channel(name, self.name, options, self._clock, self._guard, self)
            self._channels[name] = channel
            self._refresh()
            channel._emit(Kind.CREATED)
            self._hand_on()
        return channel

    def _remove(self, channel: Channel[T]) -> None:
        """Free the name of a deleted channel; an ephemeral topic goes with the last one."""
        if self._channels.get(channel.name) is channel:
            del self._channels[channel.name]
        self._refresh()
        if not self._channels and is_ephemeral(self.name):
            self._delete()

    def _refresh(self) -> None:
        """Look anew which channels get what is put, and by which way."""
        channels = self._channels.values()
        self._open = tuple(c for c in channels if c._over is None and not c._draining)
        self._readies = tuple(c._ready for c in self._open)
        plain = all(channel.options.max_depth is None for channel in self._open)
        if not plain or not self._flows() or self._draining or self._over is not None:
            self._push = None
        elif len(self._open) == 1:
            self._push = self._open[0]._ready.append
        else:
            self._push = self._fan_out
        drained = self._draining and self._over is None and not self._held
        if drained and all(channel._over is not None for channel in channels):
            self._over = "closed"
            self._emit(Kind.CLOSED)

    def _flows(self) -> bool:
        return bool(self._open) and not self._paused

    def _hand_on(self) -> None:
        """Hand on what was held, if there is a channel to hand it to."""
        while self._held and self._flows():
            record, due = self._held[0]
            self._guard.handed += 1
            self._kept -= 1
            self._distribute([record], due)
            self._held.popleft()
        self._room()

    # Steering

    @property
    def paused(self) -> bool:
        """Whether it hands nothing on just now."""
        return self._paused

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
        return len(self._held)

    def pause(self) -> None:
        """Hand nothing on until `unpause`; puts are held (NSQ semantics §11).

        Raises:
            Closed: the topic is over.
        """
        self._guard.call(self._pause, True)

    def unpause(self) -> None:
        """Hand on what was held, and what is put from now on.

        Raises:
            Closed: the topic is over.
        """
        self._guard.call(self._pause, False)

    def empty(self) -> int:
        """Drop what the topic itself holds; its channels keep theirs (NSQ semantics §12).

        Returns:
            How many messages were dropped.

        Raises:
            Closed: the topic is over.
        """
        return self._guard.call(self._empty) or 0

    def delete(self) -> int:
        """Delete it with all its channels, and free the name (NSQ semantics §13).

        A second call does nothing.

        Returns:
            How many messages were dropped, counted in each channel.
        """
        return self._guard.call(self._delete) or 0

    def close(self, *, drain: bool = False) -> int:
        """End it and its channels: it takes no more messages and whoever waits gets `Closed`.

        A second call with `drain=False` ends a drain.

        Args:
            drain: deliver first what is there; see `Channel.close`.  What a topic without channels
                holds is thrown away all the same.

        Returns:
            How many messages were thrown away, counted in each channel; they are logged as a warning.
        """
        thrown = self._guard.call(self._close, drain) or 0
        if thrown:
            log.warning("topic %r was closed with %d messages in it", self.name, thrown)
        return thrown

    def join(self, timeout: float | None = None) -> bool:
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
        done = wait_until(self._guard, self._clock, self._done, limit, who)
        if done and self._over is not None and not self._draining:
            raise Closed(f"topic {self.name!r}", self._over)
        return done

    @property
    def idle(self) -> bool:
        """Whether it holds nothing, and nothing is ready, in flight or deferred in any channel."""
        return self._guard.run(self._is_idle)

    def _require_open(self) -> None:
        if self._over is not None or self._draining:
            raise Closed(f"topic {self.name!r}", self._over or "closed")

    def _is_idle(self) -> bool:
        return not self._held and all(channel._is_idle() for channel in self._channels.values())

    def _done(self) -> bool:
        return self._over is not None or self._is_idle()

    def _pause(self, paused: bool) -> None:  # noqa: FBT001 - private
        if self._over is not None:
            raise Closed(f"topic {self.name!r}", self._over)
        if paused is self._paused:
            return
        self._paused = paused
        self._refresh()
        self._emit(Kind.PAUSED if paused else Kind.UNPAUSED)
        self._hand_on()
        self._drain()

    def _clear(self) -> int:
        count = len(self._held)
        self._guard.trash.extend(self._held)
        self._held.clear()
        return count

    def _empty(self) -> int:
        if self._over is not None:
            raise Closed(f"topic {self.name!r}", self._over)
        count = self._clear()
        self._emit(Kind.EMPTIED, count=count)
        self._room()
        self._drain()
        if self._guard.joiners:
            self._guard.ring_joiners()
        return count

    def _delete(self) -> int:
        if self._over == "deleted":
            return 0
        self._draining = False
        return self._shut("deleted")

    def _close(self, drain: bool) -> int:  # noqa: FBT001 - private
        if self._over is not None:
            return 0
        if not drain:
            self._draining = False
            return self._shut("closed")
        self._draining = True
        thrown = 0 if self._open else self._clear()
        self._drain()
        self._wake_putters()
        return thrown

    def _drain(self) -> None:
        """Close the channels behind the last message, if there is to be none after it."""
        if self._draining and not self._held:
            for channel in list(self._channels.values()):
                channel._close(True)
        self._refresh()

    def _shut(self, how: str) -> int:
        self._over = how
        count = self._clear()
        for channel in list(self._channels.values()):
            if channel._over is None:
                channel._draining = False
                count += channel._shut(how)
        if how == "deleted":
            self._channels.clear()
        self._refresh()
        self._emit(Kind.CLOSED if how == "closed" else Kind.DELETED, count=count)
        self._wake_putters()
        if self._guard.joiners:
            self._guard.ring_joiners()
        return count

    def _wake_putters(self) -> None:
        for waiter in self._putters:
            waiter.ring()

    def _forget_waiters(self) -> None:
        """In the child of a fork: the threads that waited are gone."""
        self._wake_putters()
        self._putters.clear()
        for channel in self._channels.values():
            channel._forget_waiters()
        self._guard.forget_waiters()

    # Looking

    def stats(self) -> TopicStats:
        """Return a snapshot of its counters and its channels'."""
        return self._guard.run(self._stats)

    def observe(self, callback: Observer) -> Callable[[], None]:
        """Have a function told of every event of this topic and its channels.

        It is called with one `Event` at a time, in order, without a lock, by the thread whose call
        caused the event or by one that was telling already.  It may use the topic: what that
        causes is told next.  What it raises is logged.

        Returns:
            A function that ends it.
        """
        guard = self._guard
        guard.call(lambda: guard.observe((*guard.observers, callback)))
        return lambda: self.forget(callback)

    def forget(self, callback: Observer) -> None:
        """Tell an observer nothing more."""
        guard = self._guard
        guard.call(
            lambda: guard.observe(
                tuple(known for known in guard.observers if known is not callback)
            )
        )

    def _stats(self) -> TopicStats:
        channels = tuple(self._channels[name] for name in sorted(self._channels))
        fractions = self.options.e2e_processing_latency_percentiles
        counts: Counter[int] = Counter()
        for channel in channels:
            counts.update(channel._latencies(self._now()))
        return TopicStats(
            topic_name=self.name,
            channels=tuple(channel._stats() for channel in channels),
            depth=len(self._held),
            message_count=self._guard.handed + self._kept,
            message_bytes=self._bytes,
            paused=self._paused,
            e2e_processing_latency=latency_stats(fractions, counts),
            dropped_count=self._dropped_count,
        )

    def _emit(
        self, kind: Kind, record: Record[T] | None = None, due: int | None = None, count: int = 1
    ) -> None:
        if not self._guard.watched:
            return
        wall = self._clock.time_ns()
        self._guard.emit(
            Event(
                kind=kind,
                time=wall / SECOND,
                topic=self.name,
                id=None if record is None else record[2] + record[3],
                body=None if record is None else record[0],
                due=None if due is None else (wall + due - self._now()) / SECOND,
                count=count,
            )
        )

    def __repr__(self) -> str:
        """Show its name and state."""
        return f"<Topic {self.name!r} {self._over or 'open'}>"

    # Checking

    def _check(self) -> None:
        """Check what must always hold, in the channels too; takes the lock."""
        self._guard.run(self._check_all)

    def _check_all(self) -> None:
        for channel in self._channels.values():
            channel._check_all()
        waiting: Any = sum(len(channel._line) for channel in self._channels.values())
        assert self._guard.waiting == waiting
        if self._flows():
            assert not self._held
        if self._over is not None:
            assert not self._held
            assert self._push is None
