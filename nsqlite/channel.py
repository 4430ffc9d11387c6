"""A channel: its own copy of what the topic hands on, shared by its consumers.

The rule: whoever calls a method here holds no lock; what they do under it is in channelcore.py.

Next: fanout.py
"""

from collections.abc import Callable
from sys import maxsize

from nsqlite.channelcore import ChannelCore
from nsqlite.message import T
from nsqlite.options import timeout_ns, whole
from nsqlite.stats import ChannelStats, MessageInfo
from nsqlite.waiter import wait_until


class Channel(ChannelCore[T]):
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

    __slots__ = ()

    # Looking

    @property
    def depth(self) -> int:
        """How many messages are ready; those in flight or deferred do not count."""
        return self._count(self._flow.depth)

    @property
    def in_flight_count(self) -> int:
        """How many messages are delivered and not yet answered."""
        return self._count(self._flow.timeouts.__len__)

    @property
    def deferred_count(self) -> int:
        """How many messages wait for their time."""
        return self._count(self._flow.deferred.__len__)

    def _count(self, count: Callable[[], int]) -> int:
        """Count some of the messages; takes the lock."""
        self.advance()
        with self._guard.lock:
            return count()

    @property
    def paused(self) -> bool:
        """Whether it delivers nothing just now."""
        return self._flow.paused

    @property
    def closed(self) -> bool:
        """Whether it is closed or deleted."""
        return self._over is not None

    def stats(self) -> ChannelStats:
        """Return a snapshot of its counters."""
        return self._guard.run(self._stats)

    def peek(self, n: int = 10) -> list[MessageInfo]:
        """Return a snapshot of the first `n` ready messages, the next one first."""
        return self._guard.run(self._peek, _at_most(n))

    def in_flight(self, n: int = 10) -> list[MessageInfo]:
        """Return a snapshot of the `n` messages in flight that time out first."""
        return self._guard.run(self._in_flight, _at_most(n))

    def deferred(self, n: int = 10) -> list[MessageInfo]:
        """Return a snapshot of the `n` deferred messages that are due first."""
        return self._guard.run(self._list_deferred, _at_most(n))

    def __repr__(self) -> str:
        """Show its name and state."""
        state = self._over or ("paused" if self.paused else "open")
        return f"<Channel {self.topic_name}:{self.name} {state}>"

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
        return self._guard.call(self._close, drain) or 0

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
        return self._joined(wait_until(self._guard, self._clock, self._done, limit, who))

    # For the clock

    def next_due(self) -> int:
        """Return the next deadline on the clock's monotonic scale; takes the lock."""
        flow = self._flow
        with self._guard.lock:
            return min(flow.timeouts.next_filled(), flow.deferred.next_filled())

    def advance(self) -> None:
        """Act on whatever is due by now."""
        self._guard.call(self._flow.sweep)

    # Checking

    def _check(self) -> None:
        """Check what must always hold; takes the lock."""
        self._guard.run(self._check_all)


def _at_most(n: int) -> int:
    """Check how many messages to show, and return a number that `islice` takes."""
    return min(whole("n", n, 0), maxsize)
