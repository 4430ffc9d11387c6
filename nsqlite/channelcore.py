"""The core of a channel: its consumers, and its life from open to closed or deleted.

The rule: everything here expects the topic's lock; what users call is in channel.py.

What the messages do is in flow.py.

Next: channel.py
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final, Generic

from nsqlite.clock import Clock
from nsqlite.errors import Closed, TooManyConsumers
from nsqlite.flow import Flow, Moved
from nsqlite.guard import Guard
from nsqlite.member import SHUT, Member, Parent
from nsqlite.message import Message, Record, T, counted
from nsqlite.names import is_ephemeral
from nsqlite.observe import Kind
from nsqlite.options import SECOND, Options
from nsqlite.stats import ChannelStats, MessageInfo, latency_stats
from nsqlite.unique import Unique
from nsqlite.waiter import Waiter


class ChannelCore(Unique, Generic[T]):
    """What a channel does; `Channel` is what users call.

    Attributes:
        name: its name.
        topic_name: its topic's name.
        options: what holds for it.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_draining",
        "_flow",
        "_guard",
        "_handed_at_end",
        "_handed_before",
        "_members",
        "_over",
        "_parent",
        "name",
        "options",
        "topic_name",
    )

    def __init__(
        self,
        names: tuple[str, str],
        options: Options,
        clock: Clock,
        guard: Guard,
        parent: Parent,
    ) -> None:
        """Begin empty; `Topic.channel` is the way to a channel.

        Args:
            names: the topic's and the channel's.
            options: what holds for it.
            clock: what it takes the time from.
            guard: the topic's lock.
            parent: the topic.
        """
        self.topic_name: Final = names[0]
        self.name: Final = names[1]
        self.options: Final = options
        self._guard: Final = guard
        self._clock: Final = clock
        self._parent: Final = parent
        self._flow: Final[Flow[T]] = Flow(names, options, clock, guard, parent.room)
        self._flow.answered = self._answered
        self._members: Final[dict[int, weakref.ref[Any]]] = {}
        self._handed_before = parent.handed()
        self._handed_at_end: int | None = None
        self._draining = False
        self._over: str | None = None

    # What comes by another way than from the topic

    def prepare(self, body: T, moved: Moved) -> tuple[Callable[[], None], Callable[[], str]]:
        """Return what puts a body here alone, and what returns its id; see `Publisher.prepare`.

        It takes the lock; the function it returns expects it.
        """
        record, name = self._parent.mint(body)
        return lambda: self._admit(record, moved), lambda: name

    def _admit(self, record: Record[T], moved: Moved) -> None:
        if not self._is_open:
            raise self._guard.refuse(Closed(self._title, self._over or "closed"))
        # One piece, up to the call that completes it:
        self._handed_before -= 1  # it counts as one more that was handed on
        moved[0].leaving = moved[1]
        self._flow.ready.append(record)
        self._flow.emit(Kind.PUBLISHED, record)
        self._flow.feed()

    # Consumers come and go

    def _consumers(self) -> Iterator[Member]:
        for known in list(self._members.values()):
            member = known()
            if member is not None:
                yield member

    def _join(self, member: Member) -> None:
        self._require_open()
        limit = self.options.max_channel_consumers
        if limit and len(self._members) >= limit:
            raise self._guard.refuse(TooManyConsumers(self.topic_name, self.name, limit))
        number = member.client_id
        guard = self._guard
        # Called when a consumer was forgotten; a finaliser, so it takes no lock.
        gone = weakref.ref(member, lambda _: guard.put_off(lambda: self._part(number)))
        self._members[number] = gone

    def _part(self, number: int) -> None:
        """Forget a consumer; an ephemeral channel goes with its last one (NSQ semantics §14)."""
        self._members.pop(number, None)
        if not self._members and is_ephemeral(self.name):
            dropped = self._delete()
            if dropped:
                self._guard.log_later(
                    "%s went with its last consumer; messages dropped: %d", self._title, dropped
                )

    def _set_window(self, member: Member, window: int) -> None:
        """Let a consumer hold so many messages, not those that it holds already (RDY)."""
        flow = self._flow
        flow.sweep()
        settled = member.allowed - member.window
        member.window = window  # one piece with the next line
        member.allowed = settled + window
        flow.line.unpark(member)
        flow.feed()

    def _retire(self, member: Member) -> None:
        """Let a consumer get nothing more; it still answers for what it holds (CLS)."""
        flow = self._flow
        flow.sweep()
        member.over = True
        member.gate = SHUT
        flow.line.dismiss(list(member.waiters))
        flow.feed()

    def _leave(self, member: Member, give_back: bool) -> None:
        """Let a consumer go, with what it holds."""
        if member.over and member.client_id not in self._members:
            return
        self._retire(member)
        flow = self._flow
        if give_back and member.delivered > member.allowed - member.window:
            on_the_way = {waiter.message for waiter in member.waiters}
            for message in reversed(list(flow.timeouts)):
                if message._consumer is member:
                    never = message in on_the_way  # handed over, and nobody has it yet
                    flow.give_back(message, message._record if never else counted(message))
        flow.feed()
        self._part(member.client_id)
        self._answered()

    # Getting

    def _receive(self, member: Member, waiter: Waiter[T] | None) -> Message[T] | None:
        """Give a consumer the next message; else line the waiter up, or return None without one."""
        flow = self._flow
        now = flow.sweep()
        if waiter is not None:
            waiter.listen()
            message = waiter.message = waiter.held()
            if message is not None:
                return message
        self._require_member(member)
        if flow.ready and not flow.paused and not member.is_full():
            if waiter is not None:
                flow.line.leave(waiter)
            return flow.deliver(member, now)
        if waiter is not None and waiter not in flow.line:
            flow.line.join(waiter)
            flow.feed()  # shuts the gate if the waiter was parked
        return None

    def _give_up(self, waiter: Waiter[T]) -> Message[T] | None:
        """End a wait whose time is over; return what it was handed in the last moment."""
        self._flow.sweep()
        self._flow.line.leave(waiter)
        self._flow.feed()
        return waiter.held()

    def _abandon(self, waiter: Waiter[T]) -> None:
        """End a wait that was interrupted; what it was handed was never delivered."""
        waiter.owner.waiters.pop(waiter, None)
        self._flow.line.leave(waiter)
        message = waiter.message
        if message is not None:
            waiter.message = None
            self._flow.give_back(message, message._record)
        self._flow.feed()

    # A channel's life

    @property
    def _title(self) -> str:
        return f"channel {self.name!r} of topic {self.topic_name!r}"

    @property
    def _is_open(self) -> bool:
        return self._over is None and not self._draining

    def _mend(self) -> None:
        """Complete what a signal has interrupted.  May be made twice."""
        self._flow.mend()
        self._answered()

    def _require_open(self) -> None:
        if self._over is not None:
            raise self._guard.refuse(Closed(self._title, self._over))

    def _require_member(self, member: Member) -> None:
        if member.over:
            raise self._guard.refuse(Closed(f"the consumer of {self._title}"))
        self._require_open()

    def _done(self) -> bool:
        """Say whether a join is over."""
        return self._over is not None or self._flow.is_idle()

    def _joined(self, done: bool) -> bool:
        """Return what a join returns that is over, or raise what it raises; needs no lock."""
        if done and self._over is not None and not self._draining:
            raise Closed(self._title, self._over)
        return done

    def _answered(self) -> None:
        """Do what follows when there may be nothing left."""
        if self._draining and self._over is None and self._flow.is_idle():
            self._shut("closed")
        if self._guard.joiners:
            self._guard.ring_joiners()

    def _pause(self, paused: bool) -> None:
        self._require_open()
        flow = self._flow
        flow.sweep()
        if paused is flow.paused:
            return
        flow.paused = paused
        flow.set_special(paused or self._draining)
        flow.emit(Kind.PAUSED if paused else Kind.UNPAUSED)
        flow.feed()

    def _empty(self) -> int:
        self._require_open()
        count = self._flow.clear()
        self._flow.emit(Kind.EMPTIED, count=count)
        self._parent.room()
        self._answered()
        return count

    def _close(self, drain: bool) -> int:
        if self._over is not None or (drain and self._draining):
            return 0
        if not drain:
            self._draining = False
            thrown = self._shut("closed")
            if thrown:
                text = "%s was closed; messages thrown away: %d"
                self._guard.log_later(text, self._title, thrown)
            return thrown
        self._draining = True
        self._handed_at_end = self._parent.handed()
        self._flow.set_special(True)
        self._parent.changed()
        self._answered()
        return 0

    def _delete(self) -> int:
        if self._over == "deleted":
            return 0
        self._draining = False
        return self._shut("deleted")

    def _shut(self, how: str) -> int:
        """End it, wake everyone, and return how many messages were thrown away."""
        flow = self._flow
        count = flow.end(how)
        self._over = how
        if self._handed_at_end is None:
            self._handed_at_end = self._parent.handed()
        flow.set_special(True)
        flow.emit(Kind.CLOSED if how == "closed" else Kind.DELETED, count=count)
        flow.line.ring_all()
        for waiter in list(flow.line.first_come):
            flow.line.leave(waiter)
        self._parent.changed()
        self._parent.room()
        if self._guard.joiners:
            self._guard.ring_joiners()
        return count

    # Looking

    def _stats(self) -> ChannelStats:
        flow = self._flow
        now = flow.sweep()
        members = sorted(self._consumers(), key=lambda member: member.client_id)
        fractions = self.options.e2e_processing_latency_percentiles
        handed = self._parent.handed() if self._handed_at_end is None else self._handed_at_end
        return ChannelStats(
            channel_name=self.name,
            depth=flow.depth(),
            backend_depth=flow.beyond,
            in_flight_count=len(flow.timeouts),
            deferred_count=len(flow.deferred),
            message_count=handed - self._handed_before,
            requeue_count=flow.requeue_count,
            timeout_count=flow.timeout_count,
            client_count=len(members),
            clients=tuple(member.stats() for member in members),
            paused=flow.paused,
            e2e_processing_latency=latency_stats(fractions, self._latencies(now)),
            dropped_count=flow.dropped_count,
        )

    def _latencies(self, now: int) -> Counter[int]:
        latency = self._flow.latency
        return Counter() if latency is None else latency.counts(now)

    def _info(
        self, record: Record[T], due: int | None = None, holder: int | None = None
    ) -> MessageInfo:
        age = max(0, self._clock.time_ns() - record[1]) / SECOND
        left = None if due is None else (due - self._clock.monotonic_ns()) / SECOND
        return MessageInfo(
            id=record[2] + record[3],
            body=record[0],
            attempts=record[4],
            age=age,
            client_id=holder,
            due=left,
        )

    def _peek(self, n: int) -> list[MessageInfo]:
        self._flow.sweep()
        return [self._info(record) for record in islice(self._flow.ready, n)]

    def _in_flight(self, n: int) -> list[MessageInfo]:
        self._flow.sweep()
        return [
            self._info(counted(message), tick.due, message._consumer.client_id)
            for tick, message in islice(self._flow.timeouts.pairs(), n)
        ]

    def _list_deferred(self, n: int) -> list[MessageInfo]:
        self._flow.sweep()
        return [
            self._info(deferral.record, tick.due)
            for tick, deferral in islice(self._flow.deferred.pairs(), n)
        ]

    # Checking

    def _check_all(self) -> None:
        flow = self._flow
        flow._check()
        for member in self._consumers():
            held = sum(message._consumer is member for message in flow.timeouts)
            assert member.delivered - (member.allowed - member.window) == held
        if self._over is not None:
            assert flow.is_idle()
            assert not flow.line.first_come
