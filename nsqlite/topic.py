"""A topic: every message to every channel, once.

The rule: a message that `put` returned for is in every open channel there was, or held by the topic
itself while it is paused or has no channel; a put that raised has put nothing anywhere.

Whoever calls a method here holds no lock; what they do under it is in topiccore.py.

Next: answers.py
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Protocol, Self, Unpack

from nsqlite.channel import Channel
from nsqlite.clock import Clock, checked_clock
from nsqlite.errors import InvalidOption
from nsqlite.guid import GuidFactory
from nsqlite.message import T
from nsqlite.names import check_name
from nsqlite.observe import Kind, Observer, all_observers
from nsqlite.options import (
    DEFAULTS,
    ChannelOptions,
    Options,
    TopicOptions,
    make_options,
    require_same,
    timeout_ns,
)
from nsqlite.stats import TopicStats
from nsqlite.topiccore import TopicCore
from nsqlite.waiter import wait_until


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
    def factory(self) -> GuidFactory:
        """Where its ids come from."""
        ...

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Who hears of every topic."""
        ...


class Topic(TopicCore[T]):
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

    __slots__ = ("__weakref__",)

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
            InvalidOption: an option is unknown or out of its range, an observer no function or the
                clock no clock.
        """
        check_name("topic", name)
        base = DEFAULTS if home is None else home.options
        chosen = make_options(base, **options)
        if home is not None:
            clock, observers = home.clock, home.observers
        factory = GuidFactory(chosen.node_id) if home is None else home.factory
        super().__init__(name, chosen, checked_clock(clock), factory)
        self._guard.observe(all_observers(observers))
        self._clock.attach(self)
        self._fan.held.emit(Kind.CREATED)
        if home is None:
            self._guard.settle()

    # For the clock

    def next_due(self) -> int:
        """Return the next deadline of what it holds itself; takes the lock."""
        with self._lock:
            return self._fan.held.deferred.next_filled()

    def advance(self) -> None:
        """Act on whatever of this is due by now."""
        self._guard.call(self._fan.held.sweep)

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
        with self._lock:
            return self._fan.depth()

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
            How many messages were thrown away, counted in each channel; they are logged as a
            warning.
        """
        return self._guard.call(self._close, drain) or 0

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
        return self._joined(wait_until(self._guard, self._clock, self._done, limit, who))

    @property
    def idle(self) -> bool:
        """Whether it holds nothing, and nothing is ready, in flight or deferred in any channel."""
        return self._guard.run(self._is_idle)

    # Looking

    def stats(self) -> TopicStats:
        """Return a snapshot of its counters and its channels'."""
        return self._guard.run(self._stats)

    def observe(self, callback: Observer) -> Callable[[], None]:
        """Have a function told of every event of this topic and its channels.

        It is called with one `Event` at a time, in order, without a lock, by the thread whose call
        caused the event or by one that was telling already.  It may use the topic: what that
        causes is told next.  An `Exception` that it raises is logged.

        Returns:
            A function that ends it.
        """
        all_observers((callback,))
        told = partial(callback)  # one for each registration, so that each ends for itself
        self._watch(told)
        return lambda: self._forget(told)

    def _watch(self, observer: Observer) -> None:
        """Tell an observer from now on; takes the lock."""
        guard = self._guard
        guard.call(lambda: guard.observe((*guard.observers, observer)))

    def _forget(self, observer: Observer) -> None:
        """Tell an observer nothing more; takes the lock."""
        guard = self._guard
        guard.call(
            lambda: guard.observe(
                tuple(known for known in guard.observers if known is not observer)
            )
        )

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
        """Show its name and state."""
        return f"<Topic {self.name!r} {self._over or 'open'}>"

    # Checking

    def _check(self) -> None:
        """Check what must always hold, in the channels too; takes the lock."""
        self._guard.run(self._check_all)
