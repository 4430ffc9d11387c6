"""A topic: every message to every channel, once.

The rule: a message that `put` returned for is in every open channel there was, or held by the topic
itself while it is paused or has no channel; a put that raised has put nothing anywhere.

What is published goes through publisher.py and fanout.py; here are the topic's channels, its life
from open to closed or deleted, and the looking inside.

Next: answers.py
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Final, Protocol, Self, Unpack

from nsqlite.channel import Channel
from nsqlite.clock import SYSTEM, Clock
from nsqlite.errors import InvalidOption
from nsqlite.guid import GuidFactory
from nsqlite.message import T
from nsqlite.names import check_name, is_ephemeral
from nsqlite.observe import Kind, Observer
from nsqlite.options import (
    DEFAULTS,
    ChannelOptions,
    Options,
    TopicOptions,
    make_options,
    require_same,
    timeout_ns,
)
from nsqlite.publisher import Publisher
from nsqlite.stats import TopicStats, latency_stats
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


class Topic(Publisher[T]):
    """A named stream of messages.

    `Topic[Order]` tells a type checker what its messages carry.  A body can be any object: it is
    passed on as it is and never copied, so all channels deliver the same object; change it only if
    you know that nobody else looks.  A `bytes` body must have 1 to `max_msg_size` bytes, as in NSQ.

    As a context manager it closes itself at the end of the block.

    Threads: any, for all methods.  `put`, `put_many`, `pause`, `unpause`, `empty`, `close` and
    `delete` may be called by a signal handler or destructor too; in the middle of another call they
    take effect right after it.

    Attributes:
        name: its name.
        options: what holds for it.
    """

    __slots__ = ("__weakref__", "_channels")

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
        check_name("topic", name)
        base = DEFAULTS if home is None else home.options
        chosen = make_options(base, **options)
        if home is not None:
            clock, observers = home.clock, home.observers
        factory = GuidFactory(chosen.node_id) if home is None else home.factory
        super().__init__(name, chosen, SYSTEM if clock is None else clock, factory)
        self._lock.forked = self._forget_waiters
        self._guard.mend = self._mend
        self._channels: Final[dict[str, Channel[T]]] = {}
        self._guard.observe(tuple(observers))
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

    def _create(self, name: str, options: Options) -> Channel[T]:
        self._require_open()
        channel = self._channels.get(name)
        if channel is None:
            channel = Channel((self.name, name), options, self._clock, self._guard, self)
            self._channels[name] = channel
            channel._flow.emit(Kind.CREATED)
            self.changed()
        return channel

    # For the channels, under the lock

    def room(self) -> None:
        """Let the first blocked put look again."""
        self._fan.room()

    def handed(self) -> int:
        """Return how many messages the topic has handed on so far."""
        return self._accepted_count() - self._fan.kept

    def changed(self) -> None:
        """Take note that a channel has opened, closed or gone, or that the topic has."""
        fan = self._fan
        deleted = [name for name, channel in self._channels.items() if channel._over == "deleted"]
        for name in deleted:
            del self._channels[name]
        channels = self._channels.values()
        fan.flows = tuple(channel._flow for channel in channels if channel._is_open)
        if deleted and not channels and is_ephemeral(self.name):
            self._delete()
        elif self._over is None and self._draining:
            self._drain()
        elif self._over is None:
            fan.hand_on()
        fan.set_paths(closing=not self._is_open)

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
        done = wait_until(self._guard, self._clock, self._done, limit, who)
        if done and self._over is not None and not self._draining:
            raise self._closed()
        return done

    @property
    def idle(self) -> bool:
        """Whether it holds nothing, and nothing is ready, in flight or deferred in any channel."""
        return self._guard.run(self._is_idle)

    def _is_idle(self) -> bool:
        channels = self._channels.values()
        return self._fan.held.is_idle() and all(channel._flow.is_idle() for channel in channels)

    def _done(self) -> bool:
        return self._over is not None or self._is_idle()

    def _require_alive(self) -> None:
        if self._over is not None:
            raise self._guard.refuse(self._closed())

    def _pause(self, paused: bool) -> None:
        self._require_alive()
        if paused is self._fan.paused:
            return
        self._fan.paused = paused
        self._fan.held.emit(Kind.PAUSED if paused else Kind.UNPAUSED)
        self.changed()

    def _empty(self) -> int:
        self._require_alive()
        count = self._fan.held.clear()
        self._fan.held.emit(Kind.EMPTIED, count=count)
        self.changed()
        self._fan.room()
        if self._guard.joiners:
            self._guard.ring_joiners()
        return count

    def _delete(self) -> int:
        if self._over == "deleted":
            return 0
        self._draining = False
        return self._shut("deleted")

    def _close(self, drain: bool) -> int:
        if self._over is not None:
            return 0
        self._draining = drain
        if not drain:
            thrown = self._shut("closed")
            self._log_thrown(thrown)
            return thrown
        thrown = 0 if self._fan.flows else self._throw_away()
        self.changed()
        self._fan.ring_all()
        return thrown

    def _throw_away(self) -> int:
        """Drop what the topic holds, since no channel will ever get it; return how much it was."""
        thrown = self._fan.held.clear()
        if thrown:
            self._fan.held.emit(Kind.EMPTIED, count=thrown)
            self._log_thrown(thrown)
        return thrown

    def _log_thrown(self, thrown: int) -> None:
        if thrown:
            text = "topic %r was closed with %d messages in it"
            self._guard.log_later(text, self.name, thrown)

    def _drain(self) -> None:
        """Hand on what is held, close the channels behind it, and then itself behind them."""
        self._fan.hand_on()
        if not self._fan.flows:
            self._throw_away()
        if not self._fan.held.is_idle():
            return
        for channel in list(self._channels.values()):
            if channel._is_open:
                channel._close(True)
        if self._over is None and all(c._over is not None for c in self._channels.values()):
            self._over = "closed"
            self._fan.held.emit(Kind.CLOSED, count=0)

    def _shut(self, how: str) -> int:
        """End it, wake everyone, and return how many messages were thrown away."""
        self._over = how
        count = self._fan.held.clear() + self._shut_channels(how)
        if how == "deleted":
            self._channels.clear()
        self.changed()
        self._fan.held.emit(Kind.CLOSED if how == "closed" else Kind.DELETED, count=count)
        self._fan.ring_all()
        if self._guard.joiners:
            self._guard.ring_joiners()
        return count

    def _shut_channels(self, how: str) -> int:
        count = 0
        for channel in list(self._channels.values()):
            if channel._over is None:
                channel._draining = False
                count += channel._shut(how)
        return count

    def _mend(self) -> None:
        """Complete what a signal has interrupted.  May be made twice."""
        self._fan.complete()
        self._fan.held.mend()
        if self._over is not None:
            self._shut_channels(self._over)
        for channel in list(self._channels.values()):
            channel._mend()
        self.changed()
        self._fan.ring_all()
        for sleeper in list(self._guard.joiners):
            sleeper.ring()

    def _forget_waiters(self) -> None:
        """In the child of a fork: the threads that waited are gone."""
        self._fan.forget()
        for channel in self._channels.values():
            channel._flow.line.forget()
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
        if not callable(callback):
            raise InvalidOption("observer", callback, "a function of one event")
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

    def _stats(self) -> TopicStats:
        channels = tuple(self._channels[name] for name in sorted(self._channels))
        fractions = self.options.e2e_processing_latency_percentiles
        counts: Counter[int] = Counter()
        for channel in channels:
            counts.update(channel._latencies(self._now()))
        return TopicStats(
            topic_name=self.name,
            channels=tuple(channel._stats() for channel in channels),
            depth=self._fan.depth(),
            message_count=self._accepted_count(),
            message_bytes=self._fan.bytes,
            paused=self._fan.paused,
            e2e_processing_latency=latency_stats(fractions, counts),
            dropped_count=self._fan.held.dropped_count,
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

    def _check_all(self) -> None:
        channels = self._channels.values()
        for channel in channels:
            channel._check_all()
        assert self._guard.waiting == sum(
            len(channel._flow.line.first_come) for channel in channels
        )
        assert self._unused >= 0
        held = self._fan.held
        held._check()
        assert held.is_idle() or (self._over is None and not self._fan.is_flowing())
        if self._over is not None:
            assert self._guard.short_path is None
