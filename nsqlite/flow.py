"""The messages of one channel, and every way they move.

The rule: a message is in exactly one of ready, in flight and deferred; it moves in one piece, and
nothing but `finish` and `clear` and a declared overflow policy takes it away.

    topic --> ready (a deque of records) --deliver--> in flight (a timer wheel of Messages)
                ^  ^                                     |    |
                |  +---time_out, requeue, give_back------+    +--finish--> gone
                +--fall_due-- deferred (a timer wheel) <--requeue with a delay

What waits is in backlog.py, how it is delivered and times out in delivery.py; here is what
consumers answer.

Everything here expects the topic's lock.  Lines that a comment calls one piece are never
interrupted between them; guard.py tells why.

Next: member.py
"""

from collections.abc import Callable, Sequence
from itertools import filterfalse
from typing import Any, Final, TypeAlias

from nsqlite.backlog import Deferral
from nsqlite.clock import Clock
from nsqlite.delivery import Delivery, Holder
from nsqlite.errors import InvalidMessage, NotInFlight, shown
from nsqlite.guard import Guard
from nsqlite.latency import Latency
from nsqlite.message import FINISHED, Message, State, T, counted, was_delivered
from nsqlite.observe import Kind
from nsqlite.options import Options, seconds
from nsqlite.timerwheel import Tick


class Flow(Delivery[T]):
    """A channel's messages.

    Attributes:
        answered: called when messages were answered, and there may be nothing left.
        latency: how long messages took from put to fin, None if nobody wants to know.
        leaving: what is being finished, all of it one consumer's.
        requeue_count: how many were requeued.
    """

    __slots__ = ("_longest", "_longest_req", "answered", "latency", "leaving", "requeue_count")

    def __init__(
        self,
        names: tuple[str, str],
        options: Options,
        clock: Clock,
        guard: Guard,
        room: Callable[[], None],
    ) -> None:
        """Begin empty, and with nobody; see `Backlog`."""
        super().__init__(names, options, clock, guard, room)
        self._longest: Final = seconds("max_msg_timeout", options.max_msg_timeout)
        self._longest_req: Final = seconds("max_req_timeout", options.max_req_timeout)
        self.answered: Callable[[], None] = lambda: None
        self.leaving: Sequence[Message[T]] = ()
        self.requeue_count = 0
        self.latency: Latency | None = None
        if options.e2e_processing_latency_percentiles:
            window = seconds("window", options.e2e_processing_latency_window_time)
            self.latency = Latency(window, self._now())
        self.set_special(False)

    def set_special(self, special: bool) -> None:
        """Say whether get and fin must go the long way; a bound or a measure makes them anyway."""
        self.special = special or self.limit is not None or self.latency is not None
        self._set_due(self.due)

    # From consumers

    def require(self, owner: Holder, message: Message[T]) -> None:
        """Check that a message is in flight and the owner's.

        Raises:
            InvalidMessage: it is no message.
            NotInFlight: it is not.
        """
        if not was_delivered(message):
            problem = f"expected a Message that get() returned, not {shown(message)}"
            raise self._guard.refuse(InvalidMessage(problem))
        if message not in message._tick:
            raise self._guard.refuse(message.refusal())
        if message._consumer is not owner:
            raise self._guard.refuse(NotInFlight(message.id, "not owner"))

    def _require_each(self, owner: Holder, messages: list[Message[T]]) -> None:
        for message in messages:
            if message not in message._tick or message._consumer is not owner:
                self.require(owner, message)  # tells what is wrong

    def finish(self, owner: Holder, messages: list[Message[T]]) -> None:
        """Forget messages: all of them or none."""
        self.sweep()
        try:
            self._require_each(owner, messages)
        except AttributeError:
            self.require(owner, next(filterfalse(was_delivered, messages)))
        if len(set(messages)) < len(messages):
            raise self._guard.refuse(InvalidMessage("the batch has a message twice"))
        self.leaving = messages  # from here on it is done
        self._let_go()
        self._settled(owner)

    def _let_go(self) -> None:
        """Forget the messages that are leaving."""
        if not self.leaving:
            return
        owner: Holder = self.leaving[0]._consumer
        last = self.gate.tick
        done = 0
        try:
            for message in self.leaving:
                tick = message._tick
                if tick is not last:
                    self.clear_away(last)
                    last = tick
                message._outcome = FINISHED
                done += 1
                del tick[message]
        finally:
            owner.allowed += done
        self.clear_away(last)
        if self._guard.watched or self.latency is not None:
            for message in self.leaving:
                self._finished(message)
        elif self.shelf is not None:
            self.shelf.finished(self.leaving)
        self.leaving = ()

    def mend(self) -> None:
        """Complete what a signal has interrupted.  May be made twice."""
        gone = [message for message in self.leaving if message not in message._tick]
        if gone and self.shelf is not None:
            self.shelf.finished(gone)  # which it may not have been told
        self.leaving = [message for message in self.leaving if message in message._tick]
        self._let_go()
        super().mend()

    def _finished(self, message: Message[T]) -> None:
        if self.latency is not None:
            now = self._now()
            self.latency.insert(self._clock.time_ns() - message.timestamp, now)
        self.emit(Kind.FINISHED, counted(message), message._consumer)

    def take_back(self, message: Message[T]) -> None:
        """Have a message in flight again that was finished by a move which has failed."""
        now = self.sweep()
        owner: Holder = message._consumer
        tick = self.timeouts.tick(max(message._tick.due, now))
        # One piece, up to the call that follows:
        owner.allowed -= 1
        message._tick = tick
        tick[message] = None
        self._lower(tick.due)
        self.emit(Kind.RETURNED, message._record, owner)
        self.emit(Kind.DELIVERED, counted(message), owner, tick.due)

    def requeue(self, owner: Holder, message: Message[T], delay: int) -> None:
        """Make a message ready again, or deferred."""
        now = self.sweep()
        self.require(owner, message)
        again = counted(message)
        deferral = Deferral(again)
        old = message._tick
        due = now + min(delay, self._longest_req) if delay else None
        tick = None if due is None else self.deferred.tick(due)
        message._outcome = State.REQUEUED
        owner.allowed += 1
        owner.unfinished += 1
        owner.requeued += 1
        self.requeue_count += 1
        if tick is None:
            del old[message]  # one piece with the next line
            self.ready.append(again)
        else:
            del old[message]
            tick[deferral] = None  # one piece with the line above
            self._lower(tick.due)
        self.clear_away(old)
        if self._guard.watched or self.shelf is not None:
            self.emit(Kind.REQUEUED, again, owner, due)
            if due is not None:
                self.emit(Kind.DEFERRED, again, None, due)
        self._settled(owner)

    def touch(self, owner: Holder, message: Message[T]) -> None:
        """Give a message its whole time-out again, up to the longest."""
        now = self.sweep()
        self.require(owner, message)
        deadline = min(now + owner.msg_timeout, message._delivered + self._longest)
        old = message._tick
        tick = self.timeouts.tick(deadline)
        if tick is not old:
            tick[message] = None
            message._tick = tick
            del old[message]
            self._lower(tick.due)
            self.clear_away(old)
        if self._guard.watched:
            self.emit(Kind.TOUCHED, counted(message), owner, deadline)

    def _settled(self, owner: Holder) -> None:
        """Do what follows when an owner holds fewer messages."""
        if self.line.parked:
            self.line.unpark(owner)
        if self.line.first_come:
            self.feed()
        self.answered()

    # Away with everything

    def clear(self) -> int:
        """Drop all messages; return how many they were."""
        self.sweep()
        count = 0
        for tick in list(self.timeouts.ticks()):
            for message in list(tick):
                owner: Holder = message._consumer
                outcome = State.DROPPED
                self._guard.trash.append(message)
                message._outcome = outcome
                owner.allowed += 1
                owner.unfinished += 1
                del tick[message]
                count += 1
            self.timeouts.drop(tick)
        self.gate.tick = Tick(0)
        self.gate.fresh = 0
        self.line.unpark_all()
        return count + super().clear()


Moved: TypeAlias = tuple[Flow[Any], list[Message[Any]]]
"""Messages that are finished by being put elsewhere, and the flow that they leave."""
