"""A consumer: get, fin, req, touch, move.

The rule: it holds no more than its window allows and answers only for what was delivered to it; a
get that fails or is interrupted leaves no trace: no place among those that wait, and no message
that nobody has.

`get` takes what is ready itself, as `Queue.deliver` would; else it queues up and sleeps until it is
handed a message, which is in flight from then on.  What it has not claimed when its wait ends goes
back, and was no delivery.

How a consumer waits is another matter in an event loop: aio/consumer.py.

Next: broker.py
"""

import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeAlias

from nsqlite.channel import Channel
from nsqlite.clock import NEVER
from nsqlite.errors import (
    Closed,
    Empty,
    InvalidMessage,
    InvalidOption,
    WindowFull,
    shown,
)
from nsqlite.lock import Lock, ensure, make_lock
from nsqlite.message import Message, T, Uncopyable, was_delivered
from nsqlite.monitor import Monitor, logger, run_both
from nsqlite.options import SECOND, Seconds, as_seconds, nanoseconds, timeout_ns, whole
from nsqlite.origin import note
from nsqlite.persistence import QueuePersistence
from nsqlite.queue import NO_LIMIT, Queue
from nsqlite.timerwheel import Page
from nsqlite.topic import Topic
from nsqlite.waiting import LoopTimer, ThreadWaiter, Waiter

if TYPE_CHECKING:
    from nsqlite.stats import ClientStats

FindCrew: TypeAlias = Callable[[], set[object]]
"""Returns the threads and tasks that take a worker's messages; see `nsqlite.channel.Reader`."""

SAME: Final[Any] = object()
"""The body of a move that keeps the message's own."""

NOWHERE: Final[Page[Message[Any]]] = Page(0, 0, NEVER)
"""The page of all consumers that have got nothing yet; no moment falls into it."""

POOLED_WAITERS: Final = 16
"""How many waiters a consumer keeps for gets to come."""

_numbers: Final = count(1)
_numbering: Final = make_lock(rank=2)


class AnyConsumer(Uncopyable, Generic[T]):
    """What consumers in threads and in event loops share: all but waiting.

    Attributes:
        channel: where its messages come from.
        client_id: its number, never used twice in a process.
        name: its name for events, stats and logs; None if it has none.
        requeue_delay: seconds of delay when the `with` block of a message fails.
    """

    __slots__ = (
        "__weakref__",
        "_allowed",
        "_by_id",
        "_clock",
        "_connect_ts",
        "_delivered",
        "_due",
        "_find_crew",
        "_fresh",
        "_keeps",
        "_lock",
        "_monitor",
        "_now",
        "_over",
        "_page",
        "_pool",
        "_queue",
        "_requeued",
        "_timeout",
        "_unfinished",
        "_window",
        "channel",
        "client_id",
        "name",
        "requeue_delay",
    )

    def __init__(
        self,
        channel: Channel[T],
        *,
        max_in_flight: int | None = None,
        msg_timeout: Seconds | None = None,
        requeue_delay: Seconds = 0.0,
        name: str | None = None,
    ) -> None:
        """Join a channel.

        Args:
            channel: where to get messages from.
            max_in_flight: how many messages it may hold unanswered, NSQ's RDY (NSQ semantics §8);
                None for no limit, 0 for none until `rdy` is called.
            msg_timeout: seconds until a message that it holds is delivered again; None for the
                channel's.
            requeue_delay: seconds of delay when the `with` block of a message fails.
            name: what events, stats and logs call it.

        Raises:
            InvalidOption: the channel is no `Channel`, or one of the others is out of its range.
            TooManyConsumers: the channel has `max_channel_consumers` already.
            Closed: the channel is closed or deleted.
        """
        if not isinstance(channel, Channel):
            raise InvalidOption("channel", channel, "what Topic.channel(name) returns")
        options = channel.options
        if max_in_flight is not None:
            whole("max_in_flight", max_in_flight, 0)
        nanoseconds("requeue_delay", requeue_delay, 0, options.max_req_timeout)
        if msg_timeout is None:
            msg_timeout = options.msg_timeout
        if not isinstance(name, str | None):
            raise InvalidOption("name", name, "a str or None")
        self.channel: Final = channel
        self.name: Final = name
        self.requeue_delay: Final = as_seconds(requeue_delay)
        self._queue: Final[Queue[T]] = channel._queue
        self._monitor: Final[Monitor] = channel._monitor
        self._lock: Final[Lock] = self._monitor.lock
        self._clock: Final = channel._clock
        self._now: Final = channel._clock.monotonic_ns
        self._connect_ts: Final = channel._clock.time_ns() // SECOND
        # What a Reader has, for the channel and its queue:
        self._timeout: Final = nanoseconds(
            "msg_timeout", msg_timeout, 0, options.max_msg_timeout, above=True
        )
        self._window = NO_LIMIT if max_in_flight is None else max_in_flight
        self._delivered = 0
        self._allowed = self._window
        self._unfinished = 0
        self._requeued = 0
        self._over = False
        self._pool: Final[list[ThreadWaiter[T]]] = []  # of gets that are over, for the next
        self._page = NOWHERE
        self._due = self._fresh = 0
        self._keeps = False
        # Weak, as a waiting get keeps its consumer and is not to keep the worker, too:
        self._find_crew: weakref.WeakMethod[FindCrew] | None = None
        self._by_id: dict[str, Message[Any]] | None = None
        with _numbering:
            self.client_id: Final = next(_numbers)
        self._monitor.run(channel._join, self)
        note(self)

    def _crew(self) -> set[object]:
        """See `Reader`; a worker knows who takes the messages of its consumer."""
        find = None if self._find_crew is None else self._find_crew()
        return set() if find is None else find()

    # Its window

    @property
    def _held(self) -> int:
        """How many messages it holds unanswered."""
        return self._delivered - (self._allowed - self._window)

    def _is_full(self) -> bool:
        """Return whether it holds `max_in_flight` messages."""
        return self._delivered >= self._allowed

    @property
    def max_in_flight(self) -> int | None:
        """Its window: how many messages it may hold unanswered; None for no limit."""
        return None if self._window == NO_LIMIT else self._window

    def rdy(self, max_in_flight: int | None) -> None:
        """Change its window (NSQ semantics §8).

        What it holds beyond a smaller one stays in flight.

        Args:
            max_in_flight: how many messages it may hold unanswered; 0 lets it get nothing until it
                is changed again, None is no limit.

        Raises:
            InvalidOption: it is no whole number of at least 0; nothing has changed.
        """
        window = NO_LIMIT
        if max_in_flight is not None:
            window = whole("max_in_flight", max_in_flight, 0)
        self._monitor.call(self._set_window, window)

    def _set_window(self, window: int) -> None:
        if not self._over:
            self.channel._set_window(self, window)

    # What a worker needs besides

    def _keep(self) -> None:
        """Let nothing time out that it is given, before it has been given anything.

        For a worker, which answers whatever becomes of its handlers, or leaves the channel.
        """
        self._keeps = True

    def _let_expire(self, message: Message[T]) -> None:
        """Have a message that it keeps time out after all, as if it were delivered now."""
        self._monitor.call(self._set_deadline, message)

    def _set_deadline(self, message: Message[T]) -> None:
        now = self._queue.sweep()
        self._queue.let_expire(self, message, now)

    def _withdraw(self) -> None:
        """Leave the channel, and put back what it holds as if it had never been delivered."""
        self._monitor.call(self.channel._leave, self, True, False)

    def _postpone(self, message: Message[T], delay: float) -> None:
        """Requeue a message as if it had never been delivered."""
        self._monitor.call(self._req, message, nanoseconds("delay", delay), False)

    # Getting without waiting

    def take(self, n: int) -> list[Message[T]]:
        """Return up to `n` messages that are ready now, the oldest first; never waits.

        With a store it may read what comes next from the file, and counts deliveries as `get` does;
        of what lies in the file it returns no more than a page at a time.

        Args:
            n: the most to return; the window may allow fewer.

        Returns:
            A list; empty if there is nothing, the channel is paused or the window full.

        Raises:
            Closed: the consumer, channel, topic or broker is over.
            InvalidOption: `n` is no whole number of at least 1.
            Reentered: called by a signal handler or destructor inside another call.
        """
        whole("n", n, 1)
        persistence = self._queue.persistence
        if persistence is not None and self._queue.has_stored():
            persistence.read_ahead()
        batch: list[Message[T]] = []
        try:
            self._monitor.run(self._take, batch, n)
            if batch and persistence is not None and persistence.counted:
                persistence.settle(batch)
        except BaseException:
            ensure(partial(self._monitor.call, self._return, batch))
            raise
        return batch

    def when_ready(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call a function once, as soon as `take` may find something.

        It waits its turn beside those that wait in `get`, first come, first served: for each
        message that becomes ready one of them is served.  It is called after the lock, by the
        thread that made the message ready, which may be the store's: where a loop is to hear of it
        it goes through `loop.call_soon_threadsafe`.  It is called at once if there is one already,
        and also when the consumer, the channel or the topic is over.  Who was told is to `take`, or
        to `get`: until then nobody else who waits is told of that message.

        A message that is due becomes ready when somebody uses the channel.  If this is called in an
        event loop on an `nsqlite.aio.Consumer`, the loop sees to that in time.

        Until then the consumer is kept alive, as by a thread that waits in `get`.

        Args:
            callback: what to call; it must not block.  An `Exception` that it raises is logged.  If
                a signal throws something into it, it is called again.

        Returns:
            A function that cancels it.
        """
        if not callable(callback):
            raise InvalidOption("callback", callback, "a function without arguments")

        waiter = _Callback(self, callback, self._loop_timer())
        self._monitor.call(self._await_ready, waiter)
        if waiter.timer is not None:
            waiter.timer.set()
        return lambda: self._monitor.call(self._call_off, waiter)

    def _loop_timer(self) -> LoopTimer | None:
        """Return what looks for deadlines in the event loop that runs; None if none does."""
        return None

    def _call_off(self, waiter: "_Callback[T]") -> None:
        """Have a function of `when_ready` not called; the next is told instead."""
        queue = self._queue
        waiter.leave_timer()
        if waiter in queue.waiters:
            queue.waiters.leave(waiter)
        elif not waiter.gone:
            self._decline()
        waiter.gone = True

    def _decline(self) -> None:
        """Have what this consumer was told of told to the next."""
        self._queue.waiters.forget_notified(self)
        self._queue.feed()

    def _await_ready(self, waiter: Waiter[T]) -> None:
        queue = self._queue
        queue.sweep()
        if self._over or self.channel._over is not None:
            waiter.notify()
            return
        queue.waiters.join(waiter)
        queue.feed()

    def _grab(self, batch: list[Message[T]], n: int) -> None:
        """Add what is ready now to the batch of a `get_many`, up to `n`; takes the lock."""
        self._monitor.run(self._get_many, batch, n)

    def _get_many(self, batch: list[Message[T]], n: int) -> None:
        """See `_take`; an error names the call by the operation."""
        self._take(batch, n)

    def _take(self, batch: list[Message[T]], n: int) -> None:
        """Add what is ready now to a batch, up to `n`."""
        queue = self._queue
        self.channel._require_reader(self)
        queue.waiters.forget_notified(self)
        queue.take(self, batch, n - len(batch))
        if queue.waiters.able:
            queue.feed()  # what this consumer was told of and has not taken is told to the next

    def _return(self, batch: list[Message[T]]) -> None:
        """Give back a batch that never reached its caller."""
        delivered = filter(was_delivered, batch)
        self._queue.give_back((message, message._record) for message in delivered)
        self._queue.feed()

    def _is_nothing(self) -> bool:
        """Say whether there is nothing to get and nothing to be done first; takes the lock."""
        queue = self._queue
        monitor = self._monitor
        with self._lock:
            now = self._now()
            nothing = not (
                queue.ready
                or queue.has_stored()
                or queue.waiters.notified
                or now >= queue.due
                or monitor.state
            )
        return nothing and not monitor.after  # a handler may have come in, and left something to do

    def _nothing(self) -> Empty | Closed:
        """Return the error that tells why there is nothing; needs no lock."""
        if self._over or self.channel._over is not None:
            return self.channel._closed(self)
        if self._window != NO_LIMIT and self._is_full():
            return WindowFull(self.channel.name, self._window)
        return Empty(self.channel.name, self._queue.why_empty)

    def _patience(self, linger: Seconds) -> int:
        """Return in nanoseconds how long a batch may linger.

        Raises:
            InvalidOption: it is no number of seconds, or as long as the messages have.
        """
        patience = nanoseconds("linger", linger)
        if patience >= self._timeout:
            expected = f"less than msg_timeout, which is {self._timeout / SECOND:g} s"
            raise InvalidOption("linger", as_seconds(linger), expected)
        return patience

    def _is_short(self) -> bool:
        """Say whether there are messages for it in the store, and none in memory."""
        queue = self._queue
        return queue.has_stored() and not (queue.ready or queue.paused or self._is_full())

    # Answering

    def fin(self, message: Message[T]) -> None:
        """Finish a message: its channel forgets it (NSQ semantics §9).

        It does not read the clock.  So a message whose time is over, but which nobody has looked
        for yet, is finished and not delivered again; as in nsqd between two of its scans.

        Raises:
            NotInFlight: it was answered already, has timed out or is another consumer's; nothing
                has changed.
            InvalidMessage: it is no message; nothing has changed.
        """
        queue = self._queue
        monitor = self._monitor
        done = False
        leaving: tuple[Message[T], ...] = ()
        try:
            try:
                with self._lock:
                    if message._consumer is self and not (
                        monitor.state
                        or (queue.parked and self in queue.parked)
                        or (
                            (monitor.joins or queue.draining)  # it may be the last one
                            and (self._over or not (queue.ready or queue.deferred.count))
                            and self._delivered - self._allowed + self._window <= 1
                        )
                    ):
                        # One piece, up to the call; if that is struck, it is made again:
                        del message._page[message]
                        done = True
                        self._allowed += 1
                        if queue.on_finished is None:
                            return
                        leaving = (message,)
                        queue.on_finished(leaving)
                        leaving = ()
            finally:
                if monitor.after and done:  # else what follows settles
                    monitor.settle()
        except BaseException as error:
            if done or not isinstance(error, KeyError | AttributeError):
                ensure(partial(monitor.call, queue.let_go, leaving))
                raise
            # Else it is stale, or no message at all: what follows tells.
        if not done:
            monitor.call(queue.finish, self, [message])

    def _finish_and_get(self, message: Message[T], now: int) -> Message[T] | None:
        """Finish a message that it was given, and return the next one, in one go.

        So the channel does not run out of messages, and whoever waits for that has nothing to hear.

        For a worker: one whose handler does nothing takes 1.3 us for a message so, and 3 us where
        it does the one and then the other.  Whatever a signal throws in here ends the worker, which
        puts back what it holds.

        Returns:
            None if one of both cannot be done at once; then nothing has changed.
        """
        queue = self._queue
        monitor = self._monitor
        ready = queue.ready
        following: Message[T] = Message()
        try:
            with self._lock:
                if (
                    now < self._fresh
                    and ready
                    and self._delivered <= self._allowed
                    and not (monitor.state or monitor.wants_room or queue.parked)
                    and queue.on_finished is None
                    and (page := self._page).open
                    and message in message._page  # else it is answered already
                ):
                    # One piece, as in `fin` and `get`:
                    del message._page[message]
                    self._allowed += 1
                    following._record = ready[0]
                    following._consumer = self
                    following._page = page
                    self._delivered += 1
                    page[following] = self._due
                    del ready[0]
                    return following
        finally:
            if monitor.after:
                monitor.settle()
        return None

    def fin_many(self, messages: Iterable[Message[T]]) -> None:
        """Finish several messages: all of them or none; like `fin` it does not read the clock.

        Raises:
            NotInFlight: one of them cannot be finished, as for `fin`; nothing has changed.
            InvalidMessage: one of them is no message, or there twice; nothing has changed.
        """
        if not isinstance(messages, Iterable):
            raise InvalidMessage(f"fin_many takes several messages, not {shown(messages)}: use fin")
        batch = list(messages)
        if batch:
            self._monitor.call(self._queue.finish, self, batch)

    def req(self, message: Message[T], delay: Seconds = 0) -> None:
        """Requeue a message: its channel delivers it again, and counts that (NSQ semantics §9).

        Args:
            message: one that this consumer holds.
            delay: seconds until then; more than `max_req_timeout` counts as that.

        Raises:
            NotInFlight, InvalidMessage: as for `fin`; nothing has changed.
            InvalidOption: the delay is negative or no finite number; nothing has changed.
        """
        wait = nanoseconds("delay", delay)
        self._monitor.call(self._req, message, wait, True)

    def _req(self, message: Message[T], wait: int, counts: bool) -> None:
        now = self._queue.sweep()
        self._queue.requeue(self, message, wait, now, counts=counts)

    def touch(self, message: Message[T]) -> None:
        """Give a message its whole time-out again, from now (NSQ semantics §9).

        One delivery can be stretched to `max_msg_timeout` at most.

        Raises:
            NotInFlight, InvalidMessage: as for `fin`; nothing has changed.
        """
        self._monitor.call(self._touch, message)

    def _touch(self, message: Message[T]) -> None:
        now = self._queue.sweep()
        self._queue.touch(self, message, now)

    def move(self, message: Message[T], to: Topic[Any] | Channel[Any], body: Any = SAME) -> str:
        """Publish a message's body elsewhere and finish the message, in one step.

        It never waits for room.  What is moved to a channel goes into that one alone, as if the
        topic had handed it only there; like what is requeued, it is never refused for want of room.

        Args:
            message: one that this consumer holds.
            to: a topic, or a single channel.
            body: what to publish instead of the message's own body.

        Returns:
            The id of the new message.

        Raises:
            NotInFlight, InvalidMessage: as for `fin`; nothing has changed.
            Full: the topic has no room; nothing has changed.
            Closed: the topic or channel is closed or deleted; nothing has changed.
            InvalidOption: `to` is neither a `Topic` nor a `Channel`; nothing has changed.
            Reentered: called by a signal handler or destructor inside another call.
        """
        if not isinstance(to, Topic | Channel):
            raise InvalidOption("to", to, "a Topic or a Channel")
        queue = self._queue
        self._monitor.run(queue.require, self, message)
        publish, conclude = to._prepare(message.body if body is SAME else body, (queue, [message]))

        def move() -> None:
            queue.sweep()
            queue.require(self, message)
            publish()
            queue.recover_leaving()
            queue.settled(self)

        run_both(self._monitor, to._monitor, move)
        return conclude()

    # Answering by id, for callers that have kept only that

    def fin_ids(self, ids: Iterable[str]) -> list[str]:
        """Finish messages by their ids, as many of them as it holds (NSQ semantics §9).

        The first answer by id goes through all that is in flight; from then on what this consumer
        is given is known by its id.

        Returns:
            The ids that are not in flight here, in their order.

        Raises:
            InvalidMessage: it is one id instead of several, or one of them is no `str`; nothing has
                changed.
            Reentered: called by a signal handler or destructor inside another call.
        """
        found: list[Message[T]] = []  # lives on until the lock is free: bodies are forgotten then
        return self._monitor.run(self._fin_ids, _several(ids), found)

    def _fin_ids(self, ids: list[str], found: list[Message[T]]) -> list[str]:
        self._queue.sweep()
        missing = self._find(ids, found)
        if found:
            self._queue.finish(self, found)
        self._forget(found)
        return missing

    def req_ids(self, ids: Iterable[str], delay: Seconds = 0) -> list[str]:
        """Requeue messages by their ids, as many of them as it holds; see `req` and `fin_ids`.

        Raises:
            InvalidOption: the delay is negative or no finite number; nothing has changed.
        """
        wait = nanoseconds("delay", delay)
        found: list[Message[T]] = []
        return self._monitor.run(self._req_ids, _several(ids), found, wait)

    def _req_ids(self, ids: list[str], found: list[Message[T]], wait: int) -> list[str]:
        now = self._queue.sweep()
        missing = self._find(ids, found)
        for message in found:
            self._queue.requeue(self, message, wait, now)
        self._forget(found)
        return missing

    def touch_ids(self, ids: Iterable[str]) -> list[str]:
        """Touch messages by their ids, as many of them as it holds; see `touch` and `fin_ids`."""
        found: list[Message[T]] = []
        return self._monitor.run(self._touch_ids, _several(ids), found)

    def _touch_ids(self, ids: list[str], found: list[Message[T]]) -> list[str]:
        now = self._queue.sweep()
        missing = self._find(list(dict.fromkeys(ids)), found)
        for message in found:
            self._queue.touch(self, message, now)
        return missing

    def _find(self, ids: list[str], found: list[Message[T]]) -> list[str]:
        """Add the messages in flight that have these ids to a list; return the other ids."""
        known = self._index()
        missing: list[str] = []
        seen: set[str] = set()
        for name in ids:
            message = known.get(name)
            if message is not None and message in message._page and name not in seen:
                found.append(message)
                seen.add(name)
            else:
                missing.append(name)
        return missing

    def _forget(self, answered: list[Message[T]]) -> None:
        """Know the ids of messages no more; the caller still has the messages."""
        known = self._index()
        for message in answered:
            known.pop(message.id, None)

    def _index(self) -> dict[str, Message[Any]]:
        """Return what it was given by id, at least all that it holds."""
        if self._by_id is None:
            mine = [message for message in self._queue.timeouts if message._consumer is self]
            self._fresh = 0  # `get` leaves it to `Queue.deliver` to take note of the ids
            self._by_id = {message.id: message for message in mine}
        return self._by_id

    # Leaving

    @property
    def in_flight_count(self) -> int:
        """How many messages it holds unanswered."""
        self._queue.advance()
        return self._monitor.read(lambda: self._held)

    @property
    def closed(self) -> bool:
        """Whether it or its channel is over."""
        return self._over or self.channel.closed

    def close(self, *, give_back: bool = True) -> None:
        """Leave the channel; whoever waits in `get` gets `Closed`.  A second call does nothing.

        An ephemeral channel goes with its last consumer.

        Args:
            give_back: put what it still holds back to the head of the queue at once, the attempts
                counted.  With False it stays in flight until it times out, as in nsqd when a
                client disconnects.
        """
        self._monitor.call(self.channel._leave, self, give_back, True)

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

    def stats(self) -> "ClientStats":
        """Return a snapshot of its counters."""
        from nsqlite.stats import ClientStats  # noqa: PLC0415 - keeps importing fast

        return self._monitor.read(self._stats, ClientStats)

    def _stats(self, kind: "type[ClientStats]") -> "ClientStats":
        settled = self._allowed - self._window
        return kind(
            client_id=self.client_id,
            name=self.name,
            ready_count=self.max_in_flight,
            in_flight_count=self._delivered - settled,
            message_count=self._delivered,
            finish_count=settled - self._unfinished,
            requeue_count=self._requeued,
            connect_ts=self._connect_ts,
        )

    def __repr__(self) -> str:
        """Show its number and name, its channel, its state and what it holds."""
        name = "" if self.name is None else f" {self.name!r}"
        window = "" if self.max_in_flight is None else f"/{self.max_in_flight}"
        state = "closed" if self.closed else f"in_flight={self._held}{window}"
        return f"<Consumer {self.client_id}{name} of {self.channel._title} {state}>"


class _Callback(Waiter[T]):
    """A function that `when_ready` has called, once.

    Attributes:
        timer: what looks for deadlines in the event loop meanwhile; None if none does.
    """

    __slots__ = ("_callback", "timer")

    hand = False

    def __init__(
        self, owner: AnyConsumer[T], callback: Callable[[], object], timer: LoopTimer | None
    ) -> None:
        """Begin."""
        super().__init__(owner._monitor, owner)
        self._callback = callback
        self.timer: Final = timer
        if timer is not None:
            timer.waiters[id(self)] = None

    def leave_timer(self) -> None:
        """Need no timer any more."""
        if self.timer is not None:
            self.timer.waiters.pop(id(self), None)
            self.timer.end()

    def wake(self) -> None:
        """Call the function."""
        if self.gone:
            return
        self.leave_timer()
        try:
            self._callback()
        except Exception:
            logger().exception("%r failed, which %r was to call", self._callback, self.owner)
            self._monitor.call(self.owner._decline)
        self.gone = True  # after the call: what a signal cuts short is called again
        self.owner = None  # it keeps nobody any more
        del self._callback


def _several(ids: Iterable[str]) -> list[str]:
    """Return ids as a list.

    Raises:
        InvalidMessage: it is no iterable of ids, which are `str`.
    """
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise InvalidMessage(f"expected several ids, not {shown(ids)}")
    several = list(ids)
    for name in several:
        if not isinstance(name, str):
            raise InvalidMessage(f"expected ids of 16 hex characters, not {shown(name)}")
    return several


class Consumer(AnyConsumer[T]):
    """A reader of a channel; the messages of the channel are shared among its consumers.

    It can be used in a `with` statement, which closes it, and in a `for` loop, which ends when the
    consumer, the channel, the topic or the broker is closed or deleted.

    A consumer that is forgotten without `close` loses nothing: what it held times out, and then it
    counts as gone.

    Threads: any, for all methods; several threads may get from one consumer.  `fin`, `fin_many`,
    `req`, `touch` and `close` may be called by a signal handler or destructor too; in the middle of
    another call they take effect right after it, and an error is then logged.

    Attributes:
        channel: where its messages come from.
        client_id: its number, never used twice in a process.
        name: its name for events, stats and logs; None if it has none.
        max_in_flight: its window, None for no limit.
        requeue_delay: seconds of delay when the `with` block of a message fails.
    """

    __slots__ = ()

    # Getting

    def get(self, timeout: Seconds | None = None) -> Message[T]:
        """Return the next message; it is then in flight until it is answered or times out.

        Args:
            timeout: seconds to wait; None waits for ever, 0 not at all.

        Raises:
            Empty: none came in time; nothing has changed.
            WindowFull: none could come, since it holds `max_in_flight` messages.
            Closed: the consumer, channel, topic or broker is over.
            InvalidOption: the timeout is negative or no finite number.
            Reentered: called by a signal handler or destructor inside another call.

        Cancellation:
            An exception thrown into it by a signal loses nothing: what it was handed goes back to
            the head of the queue, its attempts as before.
        """
        limit = None if timeout is None else timeout_ns(timeout)
        queue = self._queue
        monitor = self._monitor
        ready = queue.ready
        if queue.backend_depth and queue.persistence is not None:
            queue.persistence.read_ahead()
        taken = False
        if ready:
            message: Message[T] = Message()
            try:
                try:
                    with self._lock:
                        now = self._now()
                        if (
                            (now < self._fresh or queue.renew(self, now))
                            and ready
                            and self._delivered < self._allowed
                            and not (monitor.state or monitor.wants_room)
                            and (page := self._page).open  # a handler may have let time pass since
                        ):
                            message._record = ready[0]
                            message._consumer = self
                            message._page = page
                            # One piece; what follows is undone by `_forsake`:
                            self._delivered += 1
                            page[message] = self._due
                            del ready[0]
                            if queue.on_delivered is None:
                                return message
                            taken = True
                            queue.on_delivered((message,), self._due)
                finally:
                    if monitor.after:
                        monitor.settle()
            except BaseException:
                ensure(partial(self._forsake, message, None))  # it never reached its caller
                raise
        elif limit == 0 and self._is_nothing():
            raise self._nothing()
        if not taken:
            message = self._first(limit)
        if queue.persistence is not None and queue.persistence.counted:
            self._count(queue.persistence, [message])
        return message

    def get_many(
        self, n: int, timeout: Seconds | None = None, *, linger: Seconds = 0.0
    ) -> list[Message[T]]:
        """Return up to `n` messages, the oldest first, as soon as there is one.

        Args:
            n: the most to return; the window may allow fewer.
            timeout: seconds to wait for the first; None waits for ever, 0 not at all.
            linger: seconds to wait, after the first, for the batch to fill; less than
                `msg_timeout`.  It ends early where the window is full.

        Raises:
            Empty, WindowFull, Closed, InvalidOption, Reentered: as for `get`.

        Cancellation:
            As for `get`: the whole batch goes back to the head of the queue.
        """
        whole("n", n, 1)
        patience = self._patience(linger) if linger != 0 else 0
        limit = timeout_ns(timeout)
        if limit == 0 and self._is_nothing():
            raise self._nothing()
        batch: list[Message[T]] = []
        try:
            self._grab(batch, n)
            if not batch and (limit != 0 or self._queue.has_stored()):
                batch.append(self._first(limit))
                self._grab(batch, n)
            if patience and batch:
                self._linger(batch, n, patience)
        except (Empty, Closed):
            batch = [message for message in batch if message in message._page]
        except BaseException:
            ensure(partial(self._monitor.call, self._return, batch))
            raise
        if not batch:
            raise self._nothing()
        persistence = self._queue.persistence
        if persistence is not None and persistence.counted:
            self._count(persistence, batch)
        return batch

    def _count(self, persistence: QueuePersistence, batch: list[Message[T]]) -> None:
        """Have deliveries counted in the store; if they are not, nobody has got them."""
        try:
            persistence.settle(batch)
        except BaseException:
            ensure(partial(self._monitor.call, self._return, batch))
            raise

    def _linger(self, batch: list[Message[T]], n: int, patience: int) -> None:
        """Wait so many nanoseconds for a batch to fill up to `n`; takes the lock."""
        deadline = self._now() + patience
        while len(batch) < n and not self._is_full() and (left := deadline - self._now()) > 0:
            batch.append(self._wait(left))
            self._grab(batch, n)

    def __iter__(self) -> Iterator[Message[T]]:
        """Go through the messages until the consumer, channel, topic or broker is over."""
        while True:
            try:
                message = self.get()
            except Closed:
                return
            yield message

    def _first(self, limit: int | None) -> Message[T]:
        """Have something in memory if there is something in the store, and wait; takes the lock."""
        persistence = self._queue.persistence
        while persistence is not None and self._is_short():
            persistence.fetch()
        return self._wait(limit)

    def _wait(self, limit: int | None) -> Message[T]:
        """Wait for a message for so many nanoseconds; takes the lock."""
        moment = None if limit is None else self._now() + limit
        message: Message[T] = Message()
        got: Message[T] | None = None
        waiter: ThreadWaiter[T] | None = None
        try:
            if limit != 0:
                waiter = self._waiter()
            got = self._monitor.run(self.channel._receive, self, message, waiter)
            if waiter is not None:
                if got is None:
                    got = self._sleep(message, waiter, moment)
                over, waiter = waiter, None  # from here on it may be another thread's
                self._put_by(over)
        except BaseException:
            ensure(partial(self._forsake, got or message, waiter))
            raise
        if got is None:
            raise self._nothing()
        return got

    def _waiter(self) -> ThreadWaiter[T]:
        """Return what stands for a get that waits: one that is not used any more, or a new one."""
        try:
            waiter = self._pool.pop()
        except IndexError:
            return ThreadWaiter(self._monitor, self)
        waiter.owner = self
        return waiter

    def _put_by(self, waiter: ThreadWaiter[T]) -> None:
        """Keep what stood for a get that is over, for the next."""
        waiter.message = waiter.owner = None
        self._pool.append(waiter)
        del self._pool[POOLED_WAITERS:]

    def _forsake(self, message: Message[T], waiter: Waiter[T] | None) -> None:
        """Leave no trace of a get that was interrupted; takes the lock.  Idempotent."""
        if waiter is not None:
            waiter.gone = True
        self._monitor.call(self.channel._abandon, message, waiter)

    def _sleep(
        self, message: Message[T], waiter: Waiter[T], moment: int | None
    ) -> Message[T] | None:
        """Sleep until a waiter that has queued up was handed a message, or its time is over."""
        queue = self._queue
        channel = self.channel
        monitor = self._monitor
        waiters = queue.waiters
        wait = self._clock.wait
        monitor.require_free("get")
        while True:
            until = moment
            if waiters.watcher is waiter and (due := queue.due) != NEVER:
                until = due if moment is None or due < moment else moment
            if not wait(waiter.semaphore, until, f"get() on {channel._title}"):
                if until == moment:
                    return monitor.run(channel._give_up, self, message, waiter)
            elif (got := waiters.claim(waiter)) is not None:
                return got
            got = monitor.run(channel._receive, self, message, waiter)
            if got is not None:
                return got
