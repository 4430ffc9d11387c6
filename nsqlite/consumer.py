"""A consumer: get, fin, req, touch, move.

The rule: it holds no more than its window allows and answers only for what was delivered to it; a
get that fails or is interrupted leaves no trace: no place among those that wait, and no message
that nobody has.

`get` takes what is ready; else it queues up and sleeps until it is handed a message, which is a
delivery once it is claimed.  A wait that ends in any other way gives back what it was handed.

How a consumer waits is another matter in an event loop: aio/consumer.py.

Next: broker.py
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Self

from nsqlite.channel import Channel
from nsqlite.clock import NEVER
from nsqlite.errors import (
    Closed,
    Empty,
    InvalidMessage,
    InvalidOption,
    Reentered,
    WindowFull,
    shown,
)
from nsqlite.lock import Lock, insist, make_lock
from nsqlite.message import Message, T, Uncopyable, was_delivered
from nsqlite.monitor import BUSY, Monitor, logger, run_both
from nsqlite.options import SECOND, seconds, timeout_ns, whole
from nsqlite.queue import DELIVERED, FINISHED, Persistence, Queue
from nsqlite.timerwheel import Page
from nsqlite.topic import Topic
from nsqlite.waiting import Waiter

if TYPE_CHECKING:
    from nsqlite.stats import ClientStats

NO_LIMIT: Final = 1 << 62
"""The window of a consumer without `max_in_flight`."""

SAME: Final[Any] = object()
"""The body of a move that keeps the message's own."""

NOWHERE: Final[Page[Message[Any]]] = Page(0, 0, NEVER)
"""The page of all consumers that have got nothing yet; no moment falls into it."""

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
        "_fresh",
        "_lock",
        "_monitor",
        "_now",
        "_over",
        "_page",
        "_queue",
        "_requeued",
        "_spare",
        "_timeout",
        "_unfinished",
        "_waiters",
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
        msg_timeout: float | None = None,
        requeue_delay: float = 0.0,
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
        seconds("requeue_delay", requeue_delay, 0, options.max_req_timeout)
        if msg_timeout is None:
            msg_timeout = options.msg_timeout
        if not isinstance(name, str | None):
            raise InvalidOption("name", name, "a str or None")
        self.channel: Final = channel
        self.name: Final = name
        self.requeue_delay: Final = requeue_delay
        self._queue: Final[Queue[T]] = channel._queue
        self._monitor: Final[Monitor] = channel._monitor
        self._lock: Final[Lock] = self._monitor.lock
        self._clock: Final = channel._clock
        self._now: Final = channel._clock.monotonic_ns
        self._connect_ts: Final = channel._clock.time_ns() // SECOND
        # What a Reader has, for the channel and its queue:
        self._timeout: Final = seconds(
            "msg_timeout", msg_timeout, 0, options.max_msg_timeout, above=True
        )
        self._window = NO_LIMIT if max_in_flight is None else max_in_flight
        self._delivered = 0
        self._allowed = self._window
        self._unfinished = 0
        self._requeued = 0
        self._over = False
        self._waiters: dict[Waiter[Any], None] = {}
        self._spare: Final[list[Waiter[T]]] = []  # of gets that are over, for the next
        self._page = NOWHERE
        self._due = self._fresh = 0
        self._by_id: dict[str, Message[T]] = {}
        with _numbering:
            self.client_id: Final = next(_numbers)
        self._monitor.run(channel._join, self)

    # Its window

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

    # Getting without waiting

    def take(self, n: int) -> list[Message[T]]:
        """Return up to `n` messages that are ready now, the oldest first; never waits.

        With a store it may read what comes next from the file, and counts deliveries as `get` does.

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
        if self._queue.beyond and persistence is not None:
            persistence.read_ahead()
        batch: list[Message[T]] = []
        try:
            self._monitor.run(self._take, batch, n)
            if batch and persistence is not None and persistence.counted:
                persistence.settle(batch)
        except BaseException:
            insist(partial(self._monitor.call, self._return, batch))
            raise
        return batch

    def when_ready(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Have a function called once, as soon as `take` may find something.

        It waits its turn beside those that wait in `get`, first come, first served: for each
        message that becomes ready one of them is served.  It is called after the lock, by the
        thread that made the message ready; at once if there is one already; and also when the
        consumer, the channel or the topic is over.

        Args:
            callback: what to call; it must not block.  What it raises is logged.

        Returns:
            A function that calls it off.
        """
        if not callable(callback):
            raise InvalidOption("callback", callback, "a function without arguments")

        once: dict[None, Callable[[], object]] = {None: callback}

        def tell() -> None:
            call = once.pop(None, None)  # one thread alone has it
            if call is None or waiter.gone:
                return
            waiter.gone = True
            try:
                call()
            except Exception:
                logger().exception("%r failed, which %r was to call", call, self)

        waiter: Waiter[T] = Waiter(self._monitor, self, tell)
        waiter.hand = False
        self._monitor.call(self._await_ready, waiter)
        return lambda: self._monitor.call(self._call_off, waiter)

    def _call_off(self, waiter: Waiter[T]) -> None:
        """Have a function of `when_ready` not called; the next is told instead."""
        queue = self._queue
        if waiter in queue.waiters:
            queue.waiters.leave(waiter)
        elif not waiter.gone and queue.offered:
            queue.offered -= 1
        waiter.gone = True
        queue.feed()

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
        if queue.offered:
            queue.offered -= 1
        queue.take(self, batch, n - len(batch))
        if queue.waiters.able:
            queue.feed()  # what was offered to this consumer and not taken is offered to the next

    def _return(self, batch: list[Message[T]]) -> None:
        """Give back a batch that never reached its caller."""
        delivered = filter(was_delivered, batch)
        self._queue.give_back((message, message._record) for message in delivered)
        self._queue.feed()

    def _nothing(self) -> Empty:
        """Return the error that tells why there is nothing; needs no lock."""
        if self._window != NO_LIMIT and self._is_full():
            return WindowFull(self.channel.name, self._window)
        return Empty(self.channel.name, self._queue.why_empty)

    def _patience(self, linger: float) -> int:
        """Return in nanoseconds how long a batch may linger.

        Raises:
            InvalidOption: it is no number of seconds, or as long as the messages have.
        """
        patience = seconds("linger", linger)
        if patience >= self._timeout:
            expected = f"less than msg_timeout, which is {self._timeout / SECOND:g} s"
            raise InvalidOption("linger", linger, expected)
        return patience

    def _is_short(self) -> bool:
        """Say whether nothing is in memory of what it could have."""
        queue = self._queue
        return queue.beyond > 0 and not (queue.ready or queue.paused or self._is_full())

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
        try:
            with self._lock:
                if message._consumer is self and not (
                    monitor.state
                    or (queue.parked and self in queue.parked)
                    or ((queue.noted or monitor.joins) and queue.minds(self))
                ):
                    # One piece, up to a call; if that is struck, `leaving` has it completed:
                    del message._page[message]
                    self._allowed += 1
                    if queue.persistence is not None:
                        queue.leaving = leaving = (message,)
                        queue.persistence.finished(leaving)
                        queue.leaving = ()
                    if queue.latency is not None:
                        queue.measure(message)
                    if monitor.watched:
                        queue.tell(FINISHED, message)
                    return
        except (KeyError, AttributeError):  # stale, or no message at all: what follows tells
            pass
        except BaseException:
            if queue.leaving:
                insist(partial(monitor.run, queue.recover_leaving))
            raise
        finally:
            if monitor.after:
                try:
                    monitor.settle()
                except BaseException:  # a signal; somebody may be to be woken
                    insist(monitor.settle)
                    raise
        monitor.call(queue.finish, self, [message])

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

    def req(self, message: Message[T], delay: float = 0) -> None:
        """Requeue a message: its channel delivers it again, and counts that (NSQ semantics §9).

        Args:
            message: one that this consumer holds.
            delay: seconds until then; more than `max_req_timeout` counts as that.

        Raises:
            NotInFlight, InvalidMessage: as for `fin`; nothing has changed.
            InvalidOption: the delay is negative or no finite number; nothing has changed.
        """
        self._monitor.call(self._queue.requeue, self, message, seconds("delay", delay))

    def touch(self, message: Message[T]) -> None:
        """Give a message its whole time-out again, from now (NSQ semantics §9).

        One delivery can be stretched to `max_msg_timeout` at most.

        Raises:
            NotInFlight, InvalidMessage: as for `fin`; nothing has changed.
        """
        self._monitor.call(self._queue.touch, self, message)

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

    # Answering by id, for who has sent ids away

    def fin_ids(self, ids: Iterable[str]) -> list[str]:
        """Finish messages by their ids, as many of them as it holds (NSQ semantics §9).

        Returns:
            The ids that are not in flight here, in their order.

        Raises:
            InvalidMessage: it is one id instead of several; nothing has changed.
            Reentered: called by a signal handler or destructor inside another call.
        """
        return self._monitor.run(self._fin_ids, _several(ids))

    def _fin_ids(self, ids: list[str]) -> list[str]:
        return self._answer_ids(ids, partial(self._queue.finish, self))

    def req_ids(self, ids: Iterable[str], delay: float = 0) -> list[str]:
        """Requeue messages by their ids, as many of them as it holds; see `req` and `fin_ids`.

        Raises:
            InvalidOption: the delay is negative or no finite number; nothing has changed.
        """
        wait = seconds("delay", delay)
        return self._monitor.run(self._req_ids, _several(ids), wait)

    def _req_ids(self, ids: list[str], wait: int) -> list[str]:
        def requeue(messages: list[Message[T]]) -> None:
            for message in messages:
                self._queue.requeue(self, message, wait)

        return self._answer_ids(ids, requeue)

    def touch_ids(self, ids: Iterable[str]) -> list[str]:
        """Touch messages by their ids, as many of them as it holds; see `touch` and `fin_ids`."""
        return self._monitor.run(self._touch_ids, _several(ids))

    def _touch_ids(self, ids: list[str]) -> list[str]:
        def touch(messages: list[Message[T]]) -> None:
            for message in messages:
                self._queue.touch(self, message)

        return self._answer_ids(ids, touch)

    def _answer_ids(self, ids: list[str], answer: Callable[[list[Message[T]]], None]) -> list[str]:
        self._queue.sweep()
        known = self._by_id
        if not self._knows(ids):
            self._index(ids)
        found: dict[Message[T], None] = {}
        missing: list[str] = []
        for name in ids:
            message = known.pop(name, None)
            if message is not None and message in message._page:
                found[message] = None
            else:
                missing.append(name)
        if found:
            answer(list(found))
        known.update({message.id: message for message in found if message in message._page})
        return missing

    def _knows(self, ids: list[str]) -> bool:
        """Say whether it knows the messages of all these ids, as they were delivered last."""
        known = self._by_id
        return all(name in known and known[name] in known[name]._page for name in ids)

    def _index(self, ids: list[str]) -> None:
        """Know the messages in flight by their ids: the new ones, and all if that will not do.

        So an answer costs what has been delivered since the last one, and a delivery nothing.
        """
        known = self._by_id
        for page in self._queue.timeouts.pages():
            for message in reversed(page):
                if message._consumer is self:
                    if known.get(message.id) is message:
                        break
                    known[message.id] = message
        if not self._knows(ids):
            mine = (message for message in self._queue.timeouts if message._consumer is self)
            self._by_id.clear()
            self._by_id.update({message.id: message for message in mine})

    # Leaving

    @property
    def in_flight_count(self) -> int:
        """How many messages it holds unanswered."""
        self._queue.advance()
        with self._lock:
            return self._delivered - (self._allowed - self._window)

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
        self._monitor.call(self.channel._leave, self, give_back)

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
        from nsqlite.stats import ClientStats  # noqa: PLC0415 - not to import nsqlite

        with self._lock:
            delivered, unfinished, requeued = self._delivered, self._unfinished, self._requeued
            settled = self._allowed - self._window
        return ClientStats(
            client_id=self.client_id,
            name=self.name,
            ready_count=self.max_in_flight,
            in_flight_count=delivered - settled,
            message_count=delivered,
            finish_count=settled - unfinished,
            requeue_count=requeued,
            connect_ts=self._connect_ts,
        )

    def __repr__(self) -> str:
        """Show its number and name, its channel, its state and what it holds."""
        name = "" if self.name is None else f" {self.name!r}"
        window = "" if self.max_in_flight is None else f"/{self.max_in_flight}"
        held = self._delivered - (self._allowed - self._window)
        state = "closed" if self.closed else f"in_flight={held}{window}"
        return f"<Consumer {self.client_id}{name} of {self.channel._title} {state}>"


def _several(ids: Iterable[str]) -> list[str]:
    """Return ids as a list.

    Raises:
        InvalidMessage: they are not several.
    """
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise InvalidMessage(f"expected several ids, not {shown(ids)}")
    return list(ids)


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

    def get(  # noqa: C901, PLR0912 - one path, on which each thing that is unusual is one test
        self, timeout: float | None = None
    ) -> Message[T]:
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
        if queue.beyond and queue.persistence is not None:
            queue.persistence.read_ahead()
        message: Message[T] = Message()
        got: Message[T] | None = None
        try:
            with self._lock:
                now = self._now()
                if now >= self._fresh and ready and not monitor.state:
                    queue.renew(self, now)
                if (
                    ready
                    and now < self._fresh
                    and self._delivered < self._allowed
                    and not (monitor.state or monitor.putters)
                ):
                    message._record = ready[0]
                    message._consumer = self
                    message._page = page = self._page
                    # One piece:
                    self._delivered += 1
                    page[message] = self._due
                    del ready[0]
                    if monitor.watched:
                        queue.tell(DELIVERED, message, self._due)
                    if queue.persistence is None:
                        return message
                    queue.persistence.delivered((message,))
                    got = message
                elif monitor.state == BUSY:
                    raise Reentered("get")  # noqa: TRY301 - having changed nothing
                elif (
                    ready
                    or monitor.state
                    or now >= queue.due
                    or self._over
                    or self.channel._over is not None
                ):
                    got = monitor.perform(self.channel._receive, self, None)
        except BaseException:
            insist(partial(monitor.call, self._return, [message]))  # it never reached its caller
            raise
        finally:
            if monitor.after:
                try:
                    monitor.settle()
                except BaseException:  # a signal; somebody may be to be woken
                    insist(monitor.settle)
                    raise
        if got is None:
            if limit == 0 and not queue.beyond:
                raise self._nothing()
            got = self._first(limit)
        if queue.persistence is not None and queue.persistence.counted:
            self._count(queue.persistence, [got])
        return got

    def get_many(
        self, n: int, timeout: float | None = None, *, linger: float = 0.0
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
        patience = self._patience(linger) if linger else 0
        limit = timeout_ns(timeout)
        batch: list[Message[T]] = []
        try:
            self._grab(batch, n)
            if not batch:
                batch.append(self._first(limit))
                self._grab(batch, n)
            if patience:
                self._linger(batch, n, patience)
        except (Empty, Closed):
            batch = [message for message in batch if message in message._page]
            if not batch:
                raise
        except BaseException:
            insist(partial(self._monitor.call, self._return, batch))
            raise
        persistence = self._queue.persistence
        if persistence is not None and persistence.counted:
            self._count(persistence, batch)
        return batch

    def _count(self, persistence: Persistence, batch: list[Message[T]]) -> None:
        """Have deliveries counted in the store; if they are not, nobody has got them."""
        try:
            persistence.settle(batch)
        except BaseException:
            insist(partial(self._monitor.call, self._return, batch))
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
        if self._queue.persistence is not None:
            return self._fetch_first(self._queue.persistence, limit)
        return self._wait(limit)

    def _fetch_first(self, persistence: Persistence, limit: int | None) -> Message[T]:
        """Read until there is something in memory, or nothing in the store; then wait."""
        while self._is_short():
            persistence.fetch()
        message = self._monitor.run(self.channel._receive, self, None)
        return self._wait(limit) if message is None else message

    def _wait(self, limit: int | None) -> Message[T]:
        """Wait for a message for so many nanoseconds; takes the lock."""
        if limit == 0:
            raise self._nothing()  # the caller has looked
        self._monitor.require_free("get")
        message = self._wait_until(None if limit is None else self._now() + limit)
        if message is None:
            raise self._nothing()
        return message

    def _wait_until(self, moment: int | None) -> Message[T] | None:
        """Wait for a message until a moment; takes the lock."""
        try:
            waiter = self._spare.pop()
            waiter.owner = self
        except IndexError:
            waiter = Waiter(self._monitor, self)
        try:
            message = self._sleep(waiter, moment)
        except BaseException:
            waiter.gone = True  # before anything else can be thrown in
            insist(partial(self._monitor.run, self.channel._abandon, waiter))
            raise
        self._waiters.pop(waiter, None)
        waiter.message = waiter.owner = None
        self._spare.append(waiter)
        return message

    def _sleep(self, waiter: Waiter[T], moment: int | None) -> Message[T] | None:
        """Queue up and sleep until the waiter was handed a message, or its time is over."""
        queue = self._queue
        channel = self.channel
        monitor = self._monitor
        waiters = queue.waiters
        wait = self._clock.wait
        while True:
            message = monitor.run(channel._receive, self, waiter)
            if message is not None:
                return message
            until = moment
            if waiters.watcher is waiter and (due := queue.due) != NEVER:
                until = due if moment is None or due < moment else moment
            if not wait(waiter.bell, until, f"get() on {channel._title}"):
                if until == moment:
                    return monitor.run(channel._give_up, waiter)
            elif (message := waiter.claim()) is not None:
                return message

    def _finish_and_get(self, message: Message[T]) -> Message[T] | None:
        """Finish a message and return the next one, in one go; for a worker's threads.

        Where many threads want the lock at a time, asking once is twice as fast.

        Returns:
            None if one of both cannot be done at once; then nothing has changed.
        """
        queue = self._queue
        monitor = self._monitor
        with self._lock:
            now = self._now()
            following: Message[T] = Message()
            if (
                monitor.state
                or now >= self._fresh
                or not queue.ready
                or self._delivered > self._allowed
                or queue.noted
                or queue.persistence is not None
                or queue.parked
                or monitor.watched
                or monitor.putters
                or message not in message._page
                or message._consumer is not self
            ):
                return None
            # One piece, as in `fin` and `get`:
            del message._page[message]
            self._allowed += 1
            following._record = queue.ready[0]
            following._consumer = self
            following._page = page = self._page
            self._delivered += 1
            page[following] = self._due
            del queue.ready[0]
        return following
