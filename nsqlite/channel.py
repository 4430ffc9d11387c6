"""A channel: its own copy of what the topic hands on, shared by its consumers.

The rule: whoever calls a public method holds no lock; what begins with an underscore expects the
topic's, unless it says otherwise.

What happens to its messages is in queue.py.

Next: fanout.py
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from sys import maxsize
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, TypeVarTuple

from nsqlite.clock import NEVER, Clock
from nsqlite.errors import Closed, TooManyConsumers
from nsqlite.events import Kind
from nsqlite.ids import checked_id
from nsqlite.message import Message, Record, T, Uncopyable, counted, was_delivered
from nsqlite.monitor import Monitor
from nsqlite.names import is_ephemeral
from nsqlite.options import SECOND, Options, Seconds, timeout_ns, whole
from nsqlite.queue import Holder, Moved, Place, Queue
from nsqlite.waiting import Waiter, join_until

if TYPE_CHECKING:
    from nsqlite.stats import ChannelStats, ClientStats, MessageInfo

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


class Reader(Holder, Protocol):
    """What a channel needs of a consumer.

    Attributes:
        _over: whether it gets nothing more.
    """

    _over: bool
    _window: int  # how many messages it may hold

    def _crew(self) -> set[object]:
        """Return the threads that take its messages, by their numbers; none if nobody knows."""
        ...

    def stats(self) -> "ClientStats":
        """Return a snapshot."""
        ...


class Parent(Protocol):
    """What a channel needs of its topic."""

    @property
    def _home(self) -> object:
        """The broker, None if there is none."""
        ...

    def _room(self) -> None:
        """Let the first blocked put look again."""
        ...

    def _make_queue(self, name: str, options: Options, answered: Callable[[], None]) -> Queue[Any]:
        """Return what a new channel of a name has its messages in.

        Args:
            name: the channel's.
            options: what holds for it.
            answered: see `Queue`.
        """
        ...

    def _emptied(self) -> None:
        """Take note that a channel was emptied, and let the first blocked put look again."""
        ...

    def _handed(self) -> int:
        """Return how many messages the topic has handed on so far."""
        ...

    def _changed(self) -> None:
        """Take note that a channel has opened, closed or gone."""
        ...

    def _neighbour(self, name: str) -> Any:
        """Return another topic of the same broker, None if there is no broker."""
        ...

    def _prepare_alone(
        self, channel: Any, body: Any, moved: Moved
    ) -> tuple[Callable[[], None], Callable[[], str]]:
        """Return what puts a body into a single channel; see `Topic._prepare`."""
        ...

    def _change(self, operation: Callable[[*Ts], R], *args: *Ts) -> R | None:
        """Make a change under the lock, and have it written if a store keeps the topic."""
        ...


class Channel(Uncopyable, Generic[T]):
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
        "_handed_at_end",
        "_handed_before",
        "_monitor",
        "_named",
        "_over",
        "_parent",
        "_queue",
        "_readers",
        "name",
        "options",
        "topic_name",
    )

    def __init__(
        self,
        names: tuple[str, str],
        options: Options,
        clock: Clock,
        monitor: Monitor,
        parent: Parent,
    ) -> None:
        """Begin empty; `Topic.channel` is the way to a channel.

        Args:
            names: the topic's and the channel's.
            options: what holds for it.
            clock: what it takes the time from.
            monitor: the topic's.
            parent: the topic.
        """
        self.topic_name: Final = names[0]
        self.name: Final = names[1]
        self.options: Options = options
        self._monitor: Final = monitor
        self._clock: Final = clock
        self._parent: Final = parent
        self._queue: Final[Queue[T]] = parent._make_queue(names[1], options, self._answered)
        self._readers: Final[dict[weakref.ref[Any], None]] = {}
        self._handed_before = parent._handed()
        self._handed_at_end: int | None = None
        self._over: str | None = None
        self._named = True  # its options are what was asked for, and stay

    # Looking

    @property
    def depth(self) -> int:
        """How many messages are ready; those in flight or deferred do not count."""
        return self._count(self._queue.depth)

    @property
    def in_flight_count(self) -> int:
        """How many messages are delivered and not yet answered."""
        return self._count(self._queue.timeouts.__len__)

    @property
    def deferred_count(self) -> int:
        """How many messages wait for their time."""
        return self._count(self._queue.deferred_depth)

    def _count(self, count: Callable[[], int]) -> int:
        """Count some of the messages; takes the lock."""
        self._queue.advance()
        return self._monitor.read(count)

    @property
    def paused(self) -> bool:
        """Whether it delivers nothing just now."""
        return self._queue.paused

    @property
    def closed(self) -> bool:
        """Whether it is closed or deleted."""
        return self._over is not None

    def stats(self) -> "ChannelStats":
        """Return a snapshot of its counters."""
        return self._monitor.run(self._stats)

    def peek(self, n: int = 10) -> "list[MessageInfo]":
        """Return a snapshot of the first `n` ready messages, the next one first.

        Where a store keeps the channel it shows those that are in memory.

        Raises:
            StoreError: there are none in memory, and the store could not be read.
        """
        queue = self._queue
        if queue.persistence is not None and queue.backend_depth and not queue.ready:
            queue.persistence.fetch()
        return self._monitor.run(self._peek, _at_most(n))

    def in_flight(self, n: int = 10) -> "list[MessageInfo]":
        """Return a snapshot of the `n` messages in flight that time out first."""
        return self._monitor.run(self._in_flight, _at_most(n))

    def deferred(self, n: int = 10) -> "list[MessageInfo]":
        """Return a snapshot of the `n` deferred messages that are due first.

        Where a store keeps the channel it shows those that are in memory.
        """
        return self._monitor.run(self._list_deferred, _at_most(n))

    def find(self, id: str) -> "MessageInfo | None":  # noqa: A002 - what NSQ calls it
        """Return a snapshot of a message by its id; None if it is not, or no more, in this channel.

        It goes through what is in memory, under the topic's lock: some 50 ns for each message.
        Where a store keeps the channel, what lies in the file alone is looked up there by its id.

        Raises:
            InvalidMessage: it is no id, which has 16 hexadecimal characters.
            StoreError: it is not in memory, and the store could not be read.
            Closed: it is not in memory, and the broker is closed.
            Reentered: called by a signal handler or destructor inside another call.
        """
        return find_message(self._queue, self._monitor, self._clock, checked_id(id))

    def discard(self, id: str) -> bool:  # noqa: A002 - what NSQ calls it
        """Take out a message that is ready or deferred, so that it is never delivered here.

        Other channels keep theirs.  What is in flight stays: whoever holds it answers.  It costs
        what `find` does; of what lies in the file alone it returns when that is written.

        Returns:
            Whether it was taken out; False if it is in flight, or not in this channel.

        Raises:
            InvalidMessage: it is no id, which has 16 hexadecimal characters.
            Closed: the channel is closed or deleted.
            StoreError: it is not in memory, and the store could not be read, and nothing has
                changed; or it could not be written, and the message may still be delivered.
            Reentered: called by a signal handler or destructor inside another call.
        """
        name = checked_id(id)
        done = self._monitor.run(self._discard, name)
        persistence = self._queue.persistence
        if done is None and persistence is not None:
            done = persistence.discard(name, partial(self._discard, name))
        return bool(done)

    def __repr__(self) -> str:
        """Show its name, its state and how much is in it, as it was last looked at."""
        return self._monitor.read(self._show)

    def _show(self) -> str:
        queue = self._queue
        return (
            f"<Channel {self.topic_name}:{self.name} {self._state} depth={queue.depth()}"
            f" in_flight={len(queue.timeouts)} deferred={queue.deferred_depth()}>"
        )

    def _repr_html_(self) -> str:
        """Show it in a notebook: tables of its counts and of its consumers."""
        from nsqlite.stats import safely  # noqa: PLC0415 - keeps importing fast

        return safely(self, lambda: self.stats()._html(repr(self)))

    # Steering

    def pause(self) -> None:
        """Deliver nothing until `unpause`; everything else goes on (NSQ semantics §11).

        Raises:
            Closed: the channel is over.
            StoreError: it could not be stored; it has taken effect, and is stored when it can be.
        """
        self._parent._change(self._pause, True)

    def unpause(self) -> None:
        """Deliver again.

        Raises:
            Closed: the channel is over.
            StoreError: as for `pause`.
        """
        self._parent._change(self._pause, False)

    def empty(self) -> int:
        """Drop all messages, those in flight and deferred too (NSQ semantics §12).

        Returns:
            How many messages were dropped.  A late answer to one of them raises `NotInFlight`.

        Raises:
            Closed: the channel is over.
            StoreError: as for `pause`.
        """
        return self._parent._change(self._empty) or 0

    def delete(self) -> int:
        """Drop all messages and free the name; whoever waits gets `Closed` (NSQ semantics §13).

        An ephemeral topic goes with its last channel.  A second call does nothing.

        Returns:
            How many messages were dropped.

        Raises:
            StoreError: as for `pause`.
        """
        return self._parent._change(self._delete) or 0

    def close(self, *, drain: bool = False) -> int:
        """End it: it takes no more messages and whoever waits gets `Closed`.

        The name stays taken until `delete`.  A second call with `drain=False` ends a drain.

        Args:
            drain: deliver first what is there, also if the channel is paused, which this ends.  The
                channel closes itself when nothing is ready, in flight or deferred any more; `join`
                waits for that.

        Returns:
            How many messages were thrown away; they are logged as a warning.  None where a store
            keeps the channel: there they stay.
        """
        return self._monitor.call(self._close, drain) or 0

    def join(self, timeout: Seconds | None = None) -> bool:
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
        return self._joined(join_until(self._monitor, self._clock, self._done, limit, who))

    # What comes by another way than from the topic

    def _prepare(self, body: T, moved: Moved) -> tuple[Callable[[], None], Callable[[], str]]:
        """Return what puts a body here alone, and what returns its id; see `Topic._prepare`.

        It takes the lock; the function it returns expects it.
        """
        return self._parent._prepare_alone(self, body, moved)

    def _admit(self, record: Record[T], entry: object | None, moved: Moved) -> None:
        """Take a message that is moved here; `entry` is what a store notes of that."""
        if not self._is_open:
            raise self._monitor.refuse(Closed(self._title, self._over or "closed"))
        queue = self._queue
        back = queue.back
        left, messages = moved
        # One piece, up to the call that completes it:
        self._handed_before -= 1  # it counts as one more that was handed on
        messages[0]._consumer._allowed += 1
        left.leaving = messages
        left.moving = entry is not None
        self._monitor.room_until = 0
        queue.entry = entry
        back.append(record)
        queue.note_entry()
        queue.emit(Kind.PUBLISHED, record)
        queue.feed()

    def _set_options(self, options: Options) -> None:
        """Take the options that this is first asked for with; a store had it without."""
        self.options = options
        self._queue.reconfigure(options)

    # Consumers come and go

    def _consumers(self) -> Iterator[Reader]:
        for known in list(self._readers):
            reader = known()
            if reader is not None:
                yield reader

    def _join(self, reader: Reader) -> None:
        self._require_open()
        self._named = True
        if self._queue.persistence is not None:
            self._queue.persistence.look()
        limit = self.options.max_channel_consumers
        if limit and len(self._readers) >= limit:
            raise self._monitor.refuse(TooManyConsumers(self.topic_name, self.name, limit))
        self._readers[weakref.ref(reader, self._gone)] = None

    def _gone(self, known: weakref.ref[Any]) -> None:
        """Take note that a consumer was forgotten; called by a finaliser, so it takes no lock.

        It needs no name of this module, which has none any more when an interpreter ends.
        """
        self._monitor.put_off(lambda: self._part(known))

    def _part(self, known: weakref.ref[Any]) -> None:
        """Forget a consumer; an ephemeral channel goes with its last one (NSQ semantics §14)."""
        self._readers.pop(known, None)
        self._queue.feed()  # it may have been told of something
        if not self._readers and is_ephemeral(self.name):
            dropped = self._delete()
            if dropped:
                self._monitor.log_later(
                    "%s went with its last consumer; messages dropped: %d", self._title, dropped
                )

    def _set_window(self, reader: Reader, window: int) -> None:
        """Let a consumer hold so many messages, not those that it holds already (RDY)."""
        queue = self._queue
        queue.sweep()
        settled = reader._allowed - reader._window
        reader._window = window  # one piece with the next line
        reader._allowed = settled + window
        queue.waiters.unpark(reader)
        queue.feed()

    def _retire(self, reader: Reader) -> None:
        """Let a consumer get nothing more; it still answers for what it holds (CLS)."""
        reader._over = True
        self._set_window(reader, 0)
        self._queue.waiters.forget_notified(reader)
        self._queue.waiters.dismiss(
            [waiter for waiter in self._queue.waiters.everybody() if waiter.owner is reader]
        )
        self._queue.feed()

    def _leave(self, reader: Reader, give_back: bool, counts: bool) -> None:
        """Let a consumer go, with what it holds.

        Args:
            reader: the consumer.
            give_back: put what it holds back to the head of the queue.
            counts: the deliveries of what is put back count.
        """
        if reader._over and weakref.ref(reader) not in self._readers:
            return
        self._retire(reader)
        queue = self._queue
        if give_back and reader._delivered > reader._allowed - reader._window:
            handed = queue.waiters.handed
            returns = []
            for message in queue.timeouts:
                if message._consumer is reader:
                    never = handed.pop(message, None) is not None or not counts
                    returns.append((message, message._record if never else counted(message)))
            queue.give_back(returns)
        queue.feed()
        self._part(weakref.ref(reader))
        self._answered()

    # Getting

    def _receive(
        self, reader: Reader, message: Message[T], waiter: Waiter[T] | None = None
    ) -> Message[T] | None:
        """Give a consumer the next message; else queue the waiter up, if there is one.

        Args:
            reader: the consumer.
            message: what the next message becomes, unless the waiter was handed another one.
            waiter: who waits if there is none.
        """
        queue = self._queue
        waiters = queue.waiters
        now = queue.sweep()
        if waiter is not None:
            waiter.listen()
            if waiter.message is not None and (handed := waiters.claim(waiter)) is not None:
                return handed
        if reader._over or self._over is not None:
            raise self._monitor.refuse(self._closed(reader))
        if waiters.notified:
            waiters.forget_notified(reader)
            queue.feed()  # what it does not take is told to the next
        if queue.ready and not queue.paused and not reader._is_full():
            if waiter is not None:
                waiters.leave(waiter)
            return queue.deliver(reader, now, message)
        if waiter is not None and waiters.join(waiter):
            queue.emit(Kind.WINDOW_FULL, None, reader, count=reader._window)
        return None

    def _give_up(self, reader: Reader, message: Message[T], waiter: Waiter[T]) -> Message[T] | None:
        """End a wait whose time is over; return what came in the last moment."""
        queue = self._queue
        queue.sweep()
        queue.waiters.leave(waiter)
        got = queue.waiters.claim(waiter)
        if got is None and queue.ready:
            got = self._receive(reader, message)
        queue.feed()
        return got

    def _abandon(self, message: Message[T], waiter: Waiter[T] | None = None) -> None:
        """End a get that was interrupted: what it took or was handed was never delivered."""
        queue = self._queue
        returns = [message]
        if waiter is not None:
            queue.waiters.leave(waiter)
            if waiter.message is not None:
                queue.waiters.handed.pop(waiter.message, None)
                returns.append(waiter.message)
        queue.give_back([(one, one._record) for one in returns if was_delivered(one)])
        queue.feed()

    # A channel's life

    @property
    def _title(self) -> str:
        return f"channel {self.name!r} of topic {self.topic_name!r}"

    @property
    def _state(self) -> str:
        if self._over is not None:
            return self._over
        return "draining" if self._queue.draining else "paused" if self.paused else "open"

    @property
    def _is_open(self) -> bool:
        return self._over is None and not self._queue.draining

    def _recover(self) -> None:
        """Complete what a signal has interrupted.  Idempotent."""
        if self._over is not None:
            self._queue.end(self._over)
        self._queue.recover()
        if self._over is not None:
            self._queue.waiters.dismiss(self._queue.waiters.everybody())
        self._answered()

    def _require_open(self) -> None:
        if self._over is not None:
            raise self._monitor.refuse(Closed(self._title, self._over))

    def _require_reader(self, reader: Reader) -> None:
        if reader._over or self._over is not None:
            raise self._monitor.refuse(self._closed(reader))

    def _closed(self, reader: Reader) -> Closed:
        """Return the error for a consumer that is over, or whose channel is."""
        if reader._over:
            return Closed(f"the consumer of {self._title}")
        return Closed(self._title, self._over or "closed")

    def _done(self) -> bool:
        """Say whether a join is over."""
        return self._over is not None or self._queue.is_idle()

    def _joined(self, done: bool) -> bool:
        """Return what a join returns that is over, or raise what it raises; needs no lock."""
        if done and self._over is not None and not self._queue.draining:
            raise Closed(self._title, self._over)
        return done

    def _answered(self) -> None:
        """Do what follows when there may be nothing left."""
        if self._queue.draining and self._over is None and self._queue.is_idle():
            self._shut("closed")
        if self._monitor.joins:
            self._monitor.notify_joins()

    def _pause(self, paused: bool) -> None:
        self._require_open()
        queue = self._queue
        if paused is queue.paused:
            return
        queue.sweep()
        for reader in self._consumers():
            reader._fresh = 0  # first: a `get` must not go on by what it knows
        queue.paused = paused
        queue.emit(Kind.PAUSED if paused else Kind.UNPAUSED)
        queue.feed()

    def _empty(self) -> int:
        self._require_open()
        queue = self._queue
        count = queue.empty()
        self._parent._emptied()
        self._answered()
        return count

    def _delete(self) -> int:
        if self._over == "deleted":
            return 0
        self._queue.draining = False
        return self._shut("deleted")

    def _close(self, drain: bool) -> int:
        queue = self._queue
        if self._over is not None or (drain and queue.draining):
            return 0
        if not drain:
            queue.draining = False
            thrown = self._shut("closed")
            if thrown:
                text = "%s was closed; messages thrown away: %d"
                self._monitor.log_later(text, self._title, thrown)
            return thrown
        queue.draining = True
        self._handed_at_end = self._parent._handed()
        if queue.paused:
            self._pause(False)
        self._parent._changed()
        self._answered()
        return 0

    def _shut(self, how: str) -> int:
        """End it, wake everyone, and return how many messages were thrown away."""
        queue = self._queue
        self._over = how
        count = queue.end(how)
        if self._handed_at_end is None:
            self._handed_at_end = self._parent._handed()
        queue.emit(Kind.CLOSED if how == "closed" else Kind.DELETED, count=count)
        queue.waiters.dismiss(queue.waiters.everybody())
        self._parent._changed()
        self._parent._room()
        if self._monitor.joins:
            self._monitor.notify_joins()
        return count

    # Looking, under the lock

    def _stats(self) -> "ChannelStats":
        from nsqlite.stats import ChannelStats, latency_stats  # noqa: PLC0415 - keeps importing fast

        queue = self._queue
        now = queue.sweep()
        readers = sorted(self._consumers(), key=lambda reader: reader.client_id)
        fractions = self.options.e2e_processing_latency_percentiles
        handed = self._parent._handed() if self._handed_at_end is None else self._handed_at_end
        return ChannelStats(
            channel_name=self.name,
            depth=queue.depth(),
            backend_depth=queue.backend_depth,
            in_flight_count=len(queue.timeouts),
            deferred_count=queue.deferred_depth(),
            message_count=handed - self._handed_before,
            requeue_count=queue.requeue_count,
            timeout_count=queue.timeout_count,
            client_count=len(readers),
            clients=tuple(reader.stats() for reader in readers),
            paused=queue.paused,
            e2e_processing_latency=latency_stats(fractions, self._latencies(now)),
            dropped_count=queue.dropped_count,
        )

    def _why_full(self) -> str:
        """Return in words what is there, and who could make room."""
        queue = self._queue
        readers = sum(1 for _ in self._consumers())
        many = {0: "no consumer", 1: "1 consumer"}.get(readers, f"{readers} consumers")
        return (
            f"max_depth={queue.limit}, {queue.depth()} ready, {len(queue.timeouts)} in flight,"
            f" {many}{', paused' if queue.paused else ''}"
        )

    def _waits_for(self, one: object, waiting: set[object]) -> bool:
        """Return whether only those that wait could make room, of which one takes its messages."""
        crews = [reader._crew() for reader in self._consumers()]
        known = all(crew and crew <= waiting for crew in crews)
        return known and any(one in crew for crew in crews)

    def _latencies(self, now: int) -> "Counter[int]":
        latency = self._queue.latency
        return Counter() if latency is None else latency.counts(now)

    def _peek(self, n: int) -> "list[MessageInfo]":
        self._queue.sweep()
        return [
            self._info(("ready", record, None, None)) for record in islice(self._queue.ready, n)
        ]

    def _in_flight(self, n: int) -> "list[MessageInfo]":
        self._queue.sweep()
        return [
            self._info(("in flight", counted(message), due, message._consumer))
            for due, message in islice(self._queue.timeouts.pairs(), n)
        ]

    def _list_deferred(self, n: int) -> "list[MessageInfo]":
        self._queue.sweep()
        pairs = islice(self._queue.deferred.pairs(), n)
        return [self._info(("deferred", record, due, None)) for due, record in pairs]

    def _info(self, place: Place[T]) -> "MessageInfo":
        return info_of(place, self._clock)

    # One message, under the lock

    def _discard(self, name: str) -> bool | None:
        """Take a message out of memory; return whether it could be, None if it is not there."""
        self._require_open()
        self._queue.sweep()
        place = self._queue.find(name)
        if place is None:
            return None
        if place[0] == "in flight":
            return False
        self._queue.discard(place)
        return True

    # Checking

    def _check(self) -> None:
        """Check what must always hold; takes the lock."""
        self._monitor.run(self._check_all)

    def _check_all(self) -> None:
        queue = self._queue
        queue._check()
        for reader in self._consumers():
            held = sum(message._consumer is reader for message in queue.timeouts)
            assert reader._delivered - (reader._allowed - reader._window) == held
        if self._over is not None:
            assert queue.is_idle()
            assert not queue.waiters.able


def _at_most(n: int) -> int:
    """Check how many messages to show, and return a number that `islice` takes."""
    return min(whole("n", n, 0), maxsize)


def find_message(
    queue: Queue[Any], monitor: Monitor, clock: Clock, name: str
) -> "MessageInfo | None":
    """Return a message of a queue by its id; see `Channel.find`."""

    def find() -> Place[Any] | None:
        queue.sweep()
        return queue.find(name)

    place = monitor.run(find)
    if place is None and queue.persistence is not None:
        stored = queue.persistence.find(name)
        place = monitor.run(find)  # it may have come into memory meanwhile
        if place is None and stored is not None:
            record, due = stored
            place = "ready" if due is None else "deferred", record, due, None
    return None if place is None else info_of(place, clock)


def info_of(place: Place[Any], clock: Clock) -> "MessageInfo":
    """Return what is told of a message and where it is."""
    from nsqlite.stats import MessageInfo  # noqa: PLC0415 - keeps importing fast

    state, record, due, owner = place
    return MessageInfo(
        id=record[2] + record[3],
        state=state,
        body=record[0],
        attempts=record[4],
        age=max(0, clock.time_ns() - record[1]) / SECOND,
        client_id=None if owner is None else owner.client_id,
        due_in=None if due is None or due >= NEVER else (due - clock.monotonic_ns()) / SECOND,
    )
