"""The core of a topic: its channels, and its life from open to closed or deleted.

The rule: everything here expects the topic's lock; what users call is in topic.py and publisher.py.

What is published goes through fanout.py.

Next: topic.py
"""

from collections import Counter
from typing import Final

from nsqlite.channel import Channel
from nsqlite.clock import Clock
from nsqlite.guid import GuidFactory
from nsqlite.message import T
from nsqlite.names import is_ephemeral
from nsqlite.observe import Kind
from nsqlite.options import Options
from nsqlite.publisher import Publisher
from nsqlite.stats import TopicStats, latency_stats


class TopicCore(Publisher[T]):
    """What a topic does; `Topic` is what users call.

    Attributes:
        name: its name.
        options: what holds for it.
    """

    __slots__ = ("_channels",)

    def __init__(self, name: str, options: Options, clock: Clock, factory: GuidFactory) -> None:
        """Begin open, without channels."""
        super().__init__(name, options, clock, factory)
        self._channels: Final[dict[str, Channel[T]]] = {}
        self._lock.forked = self._forget_waiters
        self._guard.mend = self._mend

    # Channels come and go

    def _create(self, name: str, options: Options) -> Channel[T]:
        self._require_open()
        channel = self._channels.get(name)
        if channel is None:
            channel = self._make_channel(name, options)
            self._clock.attach(channel)
            self._channels[name] = channel
            channel._flow.emit(Kind.CREATED)
            self.changed()
        return channel

    def _make_channel(self, name: str, options: Options) -> Channel[T]:
        """Return a new channel."""
        return Channel((self.name, name), options, self._clock, self._guard, self)

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
            dropped = self._delete()
            if dropped:
                text = "topic %r went with its last channel; messages dropped: %d"
                self._guard.log_later(text, self.name, dropped)
        elif self._over is None and self._draining:
            self._drain()
        elif self._over is None:
            fan.hand_on()
        fan.set_paths(closing=not self._is_open)

    # A topic's life

    def _is_idle(self) -> bool:
        channels = self._channels.values()
        return self._fan.held.is_idle() and all(channel._flow.is_idle() for channel in channels)

    def _done(self) -> bool:
        return self._over is not None or self._is_idle()

    def _joined(self, done: bool) -> bool:
        """Return what a join returns that is over, or raise what it raises; needs no lock."""
        if done and self._over is not None and not self._draining:
            raise self._closed()
        return done

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
        thrown = self._fan.held.end("closed")
        if thrown:
            self._fan.held.emit(Kind.EMPTIED, count=thrown)
            self._log_thrown(thrown)
        return thrown

    def _log_thrown(self, thrown: int) -> None:
        if thrown:
            text = "topic %r was closed; messages thrown away: %d"
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
        count = self._fan.held.end(how) + self._shut_channels(how)
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
        self._guard.ring_joiners()

    def _forget_waiters(self) -> None:
        """In the child of a fork: the threads that waited are gone."""
        self._fan.forget()
        for channel in self._channels.values():
            channel._flow.line.forget()
        self._guard.forget_waiters()

    # Looking

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
            backend_depth=self._fan.held.beyond,
            message_count=self._accepted_count(),
            message_bytes=self._bytes,
            paused=self._fan.paused,
            e2e_processing_latency=latency_stats(fractions, counts),
            dropped_count=self._fan.held.dropped_count,
        )

    # Checking

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
