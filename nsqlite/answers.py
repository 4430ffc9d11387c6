"""The side of a consumer that answers: fin, req, touch, move, and how it leaves.

The rule: it answers only for messages that were delivered to it, and holds no more than its window
allows.

How it gets them: getting.py.

Next: getting.py
"""

from collections.abc import Iterable
from itertools import count
from types import TracebackType
from typing import Any, Final, Generic, Self

from nsqlite.both import run_both
from nsqlite.channel import Channel
from nsqlite.delivery import Gate
from nsqlite.errors import InvalidMessage, InvalidOption, shown
from nsqlite.lock import make_section
from nsqlite.member import SHUT
from nsqlite.message import FINISHED, Message, T
from nsqlite.options import SECOND, seconds, whole
from nsqlite.publisher import Publisher
from nsqlite.stats import ClientStats
from nsqlite.unique import Unique
from nsqlite.waiter import Waiter

NO_LIMIT: Final = 1 << 62
"""The window of a consumer without `max_in_flight`."""

SAME: Final[Any] = object()
"""The body of a move that keeps the message's own."""

_numbers: Final = count(1)
_numbering: Final = make_section(rank=2)


class Answers(Unique, Generic[T]):
    """What every kind of consumer has; `Consumer` is what users make.

    Attributes:
        channel: where its messages come from.
        client_id: its number, never used twice in a process.
        requeue_delay: seconds of delay when the `with` block of a message fails.
    """

    __slots__ = (
        "__weakref__",
        "_connect_ts",
        "_flow",
        "_guard",
        "_lock",
        "allowed",
        "channel",
        "client_id",
        "delivered",
        "gate",
        "msg_timeout",
        "over",
        "requeue_delay",
        "requeued",
        "unfinished",
        "waiters",
        "window",
    )

    def __init__(
        self,
        channel: Channel[T],
        max_in_flight: int | None,
        msg_timeout: float | None,
        requeue_delay: float,
    ) -> None:
        """Join a channel; see `Consumer`."""
        if not isinstance(channel, Channel):
            raise InvalidOption("channel", channel, "what Topic.channel(name) returns")
        options = channel.options
        if max_in_flight is not None:
            whole("max_in_flight", max_in_flight, 1)
        seconds("requeue_delay", requeue_delay, 0, options.max_req_timeout)
        if msg_timeout is None:
            msg_timeout = options.msg_timeout
        self.channel: Final = channel
        self.requeue_delay: Final = requeue_delay
        self._flow: Final = channel._flow
        self._guard: Final = channel._guard
        self._lock: Final = self._guard.lock
        self._connect_ts: Final = channel._clock.time_ns() // SECOND
        # What a Holder and Member has, for the channel
        self.msg_timeout: Final = seconds(
            "msg_timeout", msg_timeout, 0, options.max_msg_timeout, above=True
        )
        self.window = NO_LIMIT if max_in_flight is None else max_in_flight
        self.delivered = 0
        self.allowed = self.window
        self.unfinished = 0
        self.requeued = 0
        self.over = False
        self.waiters: Final[dict[Waiter[Any], None]] = {}
        standard = self.msg_timeout == self._flow.msg_timeout and self._flow.shelf is None
        self.gate: Gate[Any] = self._flow.gate if standard else SHUT
        with _numbering:
            self.client_id: Final = next(_numbers)
        self._guard.run(channel._join, self)

    def is_full(self) -> bool:
        """Return whether it holds `max_in_flight` messages."""
        return self.delivered >= self.allowed

    @property
    def max_in_flight(self) -> int | None:
        """Its window: how many messages it may hold unanswered; None for no limit."""
        return None if self.window == NO_LIMIT else self.window

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
        self._guard.call(self.channel._set_window, self, window)

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
        gate = self.gate
        try:
            with self._lock:
                guard = self._guard
                if (
                    gate.quiet
                    and message._consumer is self
                    # with messages left it is not what a join waits for
                    and (not guard.alert or (self._flow.ready and not guard.wary))
                ):
                    tick = message._tick
                    del tick[message]
                    message._outcome = FINISHED
                    self.allowed += 1
                    if tick or tick is gate.tick:
                        return
                    empty = tick
                else:
                    empty = None
        except (KeyError, AttributeError):
            empty = None  # stale, or no message at all: the long way tells
        if empty is None:
            shelf = self._flow.shelf
            if shelf is None or not shelf.finish(self, message):
                self._guard.call(self._flow.finish, self, [message])
        else:
            self._guard.call(self._flow.clear_away, empty)

    def fin_many(self, messages: Iterable[Message[T]]) -> None:
        """Finish several messages: all of them or none.

        Raises:
            NotInFlight: one of them cannot be finished, as for `fin`; nothing has changed.
            InvalidMessage: one of them is no message, or there twice; nothing has changed.
        """
        if not isinstance(messages, Iterable):
            raise InvalidMessage(f"fin_many takes several messages, not {shown(messages)}: use fin")
        self._guard.call(self._flow.finish, self, list(messages))

    def req(self, message: Message[T], delay: float = 0) -> None:
        """Requeue a message: its channel delivers it again, and counts that (NSQ semantics §9).

        Args:
            message: one that this consumer holds.
            delay: seconds until then; more than `max_req_timeout` counts as that.

        Raises:
            NotInFlight, InvalidMessage: as for `fin`; nothing has changed.
            InvalidOption: the delay is negative or no finite number; nothing has changed.
        """
        wait = seconds("delay", delay)
        self._guard.call(self._flow.requeue, self, message, wait)

    def touch(self, message: Message[T]) -> None:
        """Give a message its whole time-out again, from now (NSQ semantics §9).

        One delivery can be stretched to `max_msg_timeout` at most.

        Raises:
            NotInFlight, InvalidMessage: as for `fin`; nothing has changed.
        """
        self._guard.call(self._flow.touch, self, message)

    def move(self, message: Message[T], to: Publisher[Any] | Channel[Any], body: Any = SAME) -> str:
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
        if not isinstance(to, Publisher | Channel):
            raise InvalidOption("to", to, "a Topic or a Channel")
        flow = self._flow
        self._guard.run(flow.require, self, message)
        publish, conclude = to.prepare(message.body if body is SAME else body, (flow, [message]))

        def move() -> None:
            flow.sweep()
            flow.require(self, message)
            publish()
            flow.finish(self, [message])

        run_both(self._guard, to._guard, move)
        return conclude()

    # Leaving

    @property
    def in_flight_count(self) -> int:
        """How many messages it holds unanswered."""
        self.channel.advance()
        with self._lock:
            return self.delivered - (self.allowed - self.window)

    @property
    def closed(self) -> bool:
        """Whether it or its channel is over."""
        return self.over or self.channel.closed

    def close(self, *, give_back: bool = True) -> None:
        """Leave the channel; whoever waits in `get` gets `Closed`.  A second call does nothing.

        An ephemeral channel goes with its last consumer.

        Args:
            give_back: put what it still holds back to the head of the queue at once, the attempts
                counted.  With False it stays in flight until it times out, as in nsqd when a
                client disconnects.
        """
        self._guard.call(self.channel._leave, self, give_back)

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

    def stats(self) -> ClientStats:
        """Return a snapshot of its counters."""
        with self._lock:
            delivered, unfinished, requeued = self.delivered, self.unfinished, self.requeued
            settled = self.allowed - self.window
        return ClientStats(
            client_id=self.client_id,
            ready_count=self.max_in_flight,
            in_flight_count=delivered - settled,
            message_count=delivered,
            finish_count=settled - unfinished,
            requeue_count=requeued,
            connect_ts=self._connect_ts,
        )

    def __repr__(self) -> str:
        """Show its number and its channel."""
        return f"<Consumer {self.client_id} of {self.channel._title}>"
