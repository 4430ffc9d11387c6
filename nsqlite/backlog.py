"""Messages that wait: those that are ready, and those whose time has not come.

The rule: a message is in one place and moves in one piece; the bound is judged before a put, and a
declared policy alone drops what is too much.

    topic --> ready (a deque of records)
                ^
                +--fall_due-- deferred (a timer wheel)

A topic has one for what it cannot hand on; a channel's messages are one with more to it.
Time flows in from outside: whoever comes by sweeps what is due.

Everything here expects the topic's lock.  Lines that a comment calls one piece are never
interrupted between them; guard.py tells why.

Next: delivery.py
"""

from collections import Counter, deque
from collections.abc import Callable
from typing import Final, Generic

from nsqlite.clock import NEVER, Clock
from nsqlite.errors import Full
from nsqlite.guard import Guard
from nsqlite.message import Owner, Record, T
from nsqlite.observe import Event, Kind
from nsqlite.options import SECOND, Options, seconds
from nsqlite.shelf import Shelf
from nsqlite.timerwheel import Tick, TimerWheel


class Deferral(Generic[T]):
    """A record that waits for its time; channels share it."""

    __slots__ = ("record",)

    def __init__(self, record: Record[T]) -> None:
        """Hold the record."""
        self.record: Final = record


class Backlog(Generic[T]):
    """Messages that wait, in a channel or in the topic itself.

    Attributes:
        names: the topic's and the channel's; None for the topic's own.
        ready: the records to be delivered or handed on, the next one first.
        deferred: the records that wait, by the moment they are due.
        due: no deadline is before this.
        limit: how many may be ready, None for any number.
        when_full: what happens to one more.
        room: called when there is more room.
        beyond: how many more are ready, behind these, in a store's file alone.
        reserved: for how many more, which are just being stored, there must be room.
        shelf: what the store keeps of this, None without one.
    """

    __slots__ = (
        "_clock",
        "_guard",
        "_now",
        "beyond",
        "deferred",
        "dropped_count",
        "due",
        "limit",
        "names",
        "ready",
        "reserved",
        "resolution",
        "room",
        "shelf",
        "when_full",
    )

    def __init__(
        self,
        names: tuple[str, str | None],
        options: Options,
        clock: Clock,
        guard: Guard,
        room: Callable[[], None],
    ) -> None:
        """Begin empty.

        Args:
            names: the topic's and the channel's; None for the topic's own queue.
            options: what holds for it.
            clock: what it takes the time from.
            guard: the topic's lock.
            room: called when there is more room.
        """
        self.names: Final = names
        self._guard: Final = guard
        self._clock: Final = clock
        self._now: Final = clock.monotonic_ns
        self.room: Final = room
        self.limit: Final = options.max_depth
        self.when_full: Final = options.when_full
        resolution = clock.resolution
        if options.resolution is not None:
            resolution = seconds("resolution", options.resolution)
        self.resolution: Final = resolution
        self.ready: Final[deque[Record[T]]] = deque()
        self.deferred: Final[TimerWheel[Deferral[T]]] = TimerWheel(resolution)
        self.due = NEVER
        self.beyond = 0
        self.reserved = 0
        self.shelf: Shelf | None = None
        self.dropped_count = 0

    def is_idle(self) -> bool:
        """Return whether there is nothing."""
        return not (self.ready or self.beyond or self.deferred)

    def depth(self) -> int:
        """Return how many are ready."""
        return len(self.ready) + self.beyond

    def total(self) -> int:
        """Return how many messages there are."""
        return self.depth() + len(self.deferred)

    def judge(self, count: int) -> Full | None:
        """Judge whether so many more fit in, or what is too much may be dropped.

        Returns:
            None if so; else what a put raises that cannot wait any longer.

        Raises:
            Full: there is no use in waiting.
        """
        limit = self.limit
        if limit is None or self.depth() + self.reserved + count <= limit:
            return None
        if count > limit or self.when_full == "raise":
            raise self._guard.refuse(self._full(count))
        return self._full(count) if self.when_full == "wait" else None

    def _full(self, count: int) -> Full:
        topic, channel = self.names
        return Full(topic if channel is None else f"{topic}:{channel}", count, self.limit)

    def has_room(self, count: int) -> bool:
        """Return whether a put of so many messages need not wait for room here."""
        if self.limit is None or self.when_full != "wait":
            return True
        return self.depth() + self.reserved + count <= self.limit

    # Coming in

    def defer(self, deferrals: list[Deferral[T]], due: int) -> None:
        """Take messages that are not due yet.  May be made twice."""
        tick = self.deferred.tick(due)
        for deferral in deferrals:
            tick[deferral] = None
        self._lower(tick.due)
        if self._guard.watched:
            for deferral in deferrals:
                self.emit(Kind.DEFERRED, deferral.record, None, due)

    def accepted(self, count: int) -> None:
        """Do what follows when the topic has appended so many records to `ready`."""
        self.feed()
        if self.limit is None or self.depth() <= self.limit:
            return
        excess = min(self.depth() - self.limit, count, len(self.ready))
        if self.when_full == "drop oldest":
            self._drop([self.ready[i] for i in range(excess)], self.ready.popleft)
        else:  # "drop newest", since the other policies let nothing in beyond the limit
            self._drop([self.ready[-i] for i in range(1, excess + 1)], self.ready.pop)

    def _drop(self, dropped: list[Record[T]], take: Callable[[], object]) -> None:
        self._guard.trash.extend(dropped)
        for record in dropped:
            self.dropped_count += 1
            take()
            self.emit(Kind.DROPPED, record)

    def feed(self) -> None:
        """Hand ready messages to those who wait for them; here is nobody."""

    # Time

    def next_due(self) -> int:
        """Return the next deadline; takes no lock."""
        return self.deferred.next_due

    def sweep(self) -> int:
        """Act on all that is due, in the order of the deadlines; return the time."""
        now = self._now()
        if now < self.due:
            return now
        try:
            self._act(now)
        finally:
            self._set_due(self.next_due())
            self.feed()
        return now

    def mend(self) -> None:
        """Complete what a signal has interrupted.  May be made twice."""
        self._set_due(self.next_due())
        self.sweep()

    def _act(self, now: int) -> None:
        while (tick := self.deferred.first_due(now)) is not None:
            self._fall_due(tick)

    def _fall_due(self, tick: Tick[Deferral[T]]) -> None:
        for deferral in list(tick):
            del tick[deferral]  # one piece with the next line
            self.ready.append(deferral.record)
            if self._guard.watched:
                self.emit(Kind.DUE, deferral.record, None, tick.due)
        self.deferred.drop(tick)

    def _set_due(self, due: int) -> None:
        self.due = due

    def _lower(self, due: int) -> None:
        """Take note of a new deadline."""
        if due < self.due:
            self._set_due(due)

    # Away with everything

    def clear(self) -> int:
        """Drop all messages; return how many they were."""
        self.sweep()
        trash = self._guard.trash
        count = self.depth()
        trash.extend(self.ready)
        self.beyond = 0
        self.ready.clear()
        deferred = self.deferred.clear()
        trash.extend(deferred)
        self._set_due(NEVER)
        return count + len(deferred)

    def end(self, how: str) -> int:
        """Drop all messages for ever, but for those that a store keeps of what is only closed.

        Returns:
            How many were thrown away.
        """
        if how == "deleted" or self.shelf is None:
            return self.clear()
        self.shelf.put_away()
        self.clear()
        return 0

    # Telling

    def emit(
        self,
        kind: Kind,
        record: Record[T] | None = None,
        owner: Owner | None = None,
        due: int | None = None,
        count: int = 1,
    ) -> None:
        """Tell that something happened, if anybody listens."""
        if self.shelf is not None:
            self.shelf.hear(kind, record, due)
        if not self._guard.watched:
            return
        wall = self._clock.time_ns()
        topic, channel = self.names
        self._guard.emit(
            Event(
                kind=kind,
                time=wall / SECOND,
                topic=topic,
                channel=channel,
                id=None if record is None else record[2] + record[3],
                body=None if record is None else record[0],
                attempts=None if record is None or channel is None else record[4],
                client_id=None if owner is None else owner.client_id,
                due=None if due is None else (wall + due - self._now()) / SECOND,
                count=count,
            )
        )

    def _ids(self) -> Counter[str]:
        """Count the ids of the messages."""
        ids = Counter(record[2] + record[3] for record in self.ready)
        ids.update(deferral.record[2] + deferral.record[3] for deferral in self.deferred)
        return ids

    def _check(self) -> None:
        """Check what must always hold."""
        self.deferred._check()
        assert self.due <= self.next_due()
        assert all(times == 1 for times in self._ids().values()), "a message is in two places"
