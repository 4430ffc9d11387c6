"""A worker's slots and its supervisor: what begins, what takes too long, and how all of it ends.

The rule: whatever happens, every slot comes to an end or is told of, and what is left goes back.

It knows no thread and no loop.  The slots of a runner (threads.py, tasks.py) bring it messages and
results; the runner's supervising thread or task acts here when a moment has come, and sleeps until
the next.

Next: worker/threads.py
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from nsqlite.clock import NEVER
from nsqlite.consumer import AnyConsumer
from nsqlite.errors import shown
from nsqlite.lock import make_lock
from nsqlite.message import Message, State
from nsqlite.monitor import Monitor
from nsqlite.options import SECOND, nanoseconds
from nsqlite.queue import NO_LIMIT
from nsqlite.waiting import Waiter, leave, look
from nsqlite.worker.handler import name_of
from nsqlite.worker.plan import Plan
from nsqlite.worker.settling import Settler
from nsqlite.worker.stats import AtWork, WorkerStats

log: Final = logging.getLogger("nsqlite")


class Slot:
    """One message's place in a worker.

    Attributes:
        name: the worker's and a number; that of its thread or task.
        message: what it works on, None while it waits.
        begun: since when.
        late: whether its handler has taken longer than `time_limit`.
        fetched: what it has got beyond that; `stop` takes it away.
        count: how often it has called the handler.
        over: whether it takes no more.
    """

    __slots__ = ("begun", "count", "fetched", "late", "message", "name", "over")

    def __init__(self, name: str) -> None:
        """Begin without a message."""
        self.name: Final = name
        self.message: Message[Any] | None = None
        self.begun: int = 0
        self.late: bool = False
        self.fetched: list[Message[Any]] = []
        self.count: int = 0
        self.over: bool = False

    def next(self) -> Message[Any] | None:
        """Take the next of what was fetched; each goes to the slot or to who stops, not to both."""
        try:
            return self.fetched.pop(0)
        except IndexError:
            return None

    def rest(self) -> list[Message[Any]]:
        """Take all that is left of what was fetched."""
        return list(iter(self.next, None))


class _Answered(Waiter[Any]):
    """Has a supervisor look again when all that was taken over is answered."""

    __slots__ = ("_wake",)

    def __init__(self, monitor: Monitor, wake: Callable[[], object]) -> None:
        """Begin."""
        super().__init__(monitor)
        self._wake: Final = wake

    def wake(self) -> None:
        """See `Waiter`."""
        self._wake()


class Supervisor:
    """A worker's decisions.

    Threads: any, but for `act`, which is called by one at a time.

    Attributes:
        plan: what the worker was told to do.
        consumer: where its messages come from.
        settler: what settles them.
        slots: where they are worked on.
        broken: what ended the worker though no handler should raise it.
        when_over: called when the worker has come to its end.
        stopping: whether it takes no more messages.
        over: set when the worker has come to its end.
        joiners: how many joins wait, or are about to.
    """

    __slots__ = (
        "_asleep_until",
        "_cut",
        "_ended",
        "_flow_control",
        "_is_limited",
        "_limit",
        "_lock",
        "_monitor",
        "_most",
        "_now",
        "_overdue",
        "_prefetches",
        "_stop_at",
        "_waiter",
        "_wake",
        "broken",
        "consumer",
        "joiners",
        "over",
        "plan",
        "settler",
        "slots",
        "stopping",
        "when_over",
    )

    def __init__(
        self,
        plan: Plan,
        consumer: AnyConsumer[Any],
        *,
        overdue: str,
        wake: Callable[[], object],
        cut: Callable[[Slot], bool] = lambda _slot: False,
    ) -> None:
        """Begin with free slots.

        Args:
            plan: what the worker was told to do.
            consumer: where its messages come from.
            overdue: what becomes of a handler that has not ended in time, in a word or two.
            wake: has `act` called early; called by any thread.
            cut: ends the handler of a slot that takes longer than `time_limit`; returns whether it
                can.
        """
        self.plan: Final = plan
        self.consumer: Final = consumer
        self.settler: Final = Settler(plan, consumer, wake)
        self.slots: Final[Sequence[Slot]] = [
            Slot(f"{plan.name}-{number}") for number in range(1, plan.concurrency + 1)
        ]
        self.broken: BaseException | None = None
        self.when_over: Callable[[], object] = lambda: None
        self.stopping: bool = False
        self.over: Final = threading.Event()
        self.joiners: int = 0
        self._flow_control: Final = self.settler.flow_control
        self._overdue: Final = overdue
        self._wake: Final = wake
        self._now: Final = consumer._now
        self._monitor: Final = consumer._monitor
        self._waiter: Final = _Answered(self._monitor, wake)
        self._cut: Final = cut
        # Kept here, since to ask for each at every message costs a worker a twentieth:
        self._prefetches: Final = plan.prefetch > 0
        self._most: Final = plan.retry.max_attempts or NO_LIMIT
        limit = plan.time_limit
        self._is_limited: Final = limit is not None
        self._limit: Final = NEVER if limit is None else nanoseconds("time_limit", limit)
        # Protects the two below; nothing is called inside.
        self._lock: Final = make_lock(rank=2)
        self._stop_at = NEVER
        self._ended = False
        self._asleep_until = 0

    # From the slots

    def begin(self, slot: Slot, message: Message[Any]) -> Message[Any] | None:
        """Take note of a message; return it if its handler is to be called."""
        return self._begin(slot, message, self._now())

    def _begin(self, slot: Slot, message: Message[Any], now: int) -> Message[Any] | None:
        slot.begun = now
        slot.message = message  # before it looks whether to stop: `stop` does it the other way
        if self.stopping or (self._prefetches and message.state is not State.IN_FLIGHT):
            slot.message = None
            # Unless its time went by in the slot's own queue:
            self.put_back([message, *slot.rest()] if self.stopping else [message])
            return None
        if self._is_limited:
            slot.late = False
            if slot.begun + self._limit < self._asleep_until:
                self._wake()
        if message._record[4] >= self._most:
            self.settler.give_up(message, None)
            self._free(slot)
            return None
        slot.count += 1
        if self._flow_control.failures:
            self._flow_control.recover()
        return message

    def succeeded(
        self,
        slot: Slot,
        result: object,
        more: bool = True,  # noqa: FBT002 - a hot line
    ) -> Message[Any] | None:
        """Answer a message whose handler returned.

        Args:
            slot: whose handler it was.
            result: what it returned.
            more: whether the slot may go on with another message at once.

        Returns:
            The next message for its handler, if it could be taken in one go with the answer.
        """
        message = slot.message
        assert message is not None
        if self._is_limited:
            self._look_at_time(slot, message)
        if (
            result is None
            and more
            and not (self.stopping or self._prefetches or self._flow_control.level)
        ):
            now = self._now()
            following = self.consumer._finish_and_get(message, now)
            if following is not None:
                if self.settler.failures:
                    self.settler.failures.pop(message.id, None)
                return self._begin(slot, following, now)
        self.settler.settle(message, result)
        self._free(slot)
        return None

    def failed(self, slot: Slot, error: BaseException) -> None:
        """Answer a message whose handler raised."""
        message = slot.message
        assert message is not None
        if self._is_limited:
            self._look_at_time(slot, message)
        self.settler.settle_error(message, error)
        self._free(slot)

    def _look_at_time(self, slot: Slot, message: Message[Any]) -> None:
        """Tell of a handler that took too long and let nobody look, as one that blocks its loop."""
        if not slot.late and self._now() > slot.begun + self._limit:
            self._tell_late(slot, message, "has ended by itself")

    def _free(self, slot: Slot) -> None:
        """Take note that a message is settled."""
        slot.message = None
        # Joins are counted before they look at the slots; and the last to be free finds all done.
        if self.joiners and self.consumer.channel._done():
            self.settler.notify_joins()

    def is_idle(self) -> bool:
        """Return whether nothing is worked on."""
        return all(slot.message is None for slot in self.slots)

    def broke(self, slot: Slot, error: BaseException) -> None:
        """Put back the message of a slot that ends with what no handler should raise; stop."""
        message = slot.message
        if message is not None:
            name = name_of(self.plan.handler)
            log.error(
                "%s: %s raised %s on message %s; the worker stops",
                self.plan.name,
                name,
                shown(error),
                message.id,
            )
            self.settler.remember(error)
            self.broken = error
            self.stop(NEVER)  # before another slot can take it
            self.settler.answer(lambda: self.consumer.req(message), message)
            slot.message = None
        self.stop(0)

    def note_cancel(self, slot: Slot) -> None:
        """Tell that somebody else has cancelled a slot, which ends the worker."""
        if not self.stopping:
            text = "%s: %s was cancelled from outside; the worker stops"
            log.error(text, self.plan.name, slot.name)

    def put_back(self, messages: list[Message[Any]]) -> None:
        """Put back what was got and not begun, attempts as before; takes the topic's lock."""
        if messages:
            self.consumer._monitor.call(self.consumer._return, messages)

    def leave(self, slot: Slot) -> None:
        """Take note that a slot takes no more."""
        slot.over = True
        self._wake()

    # When a moment has come

    def act(self) -> int | None:
        """Do what is due; return the moment until when there is nothing to do, None at the end."""
        now = self._now()
        self._flow_control.act(now)
        if self.stopping and (now >= self._stop_at or self._is_done()):
            self.end()
            return None
        self._asleep_until = NEVER  # a message that comes while this looks wakes
        moment = min(self._flow_control.next_moment(), self._stop_at)
        if self.stopping and all(slot.over for slot in self.slots):
            moment = min(moment, self.consumer._queue.due)  # what was taken over may time out
        if self._is_limited:
            moment = min(moment, self._end_late(now))
        self._asleep_until = moment
        return moment

    def _is_done(self) -> bool:
        """Return whether no handler is at work, and all that was taken over is answered."""
        if not all(slot.over for slot in self.slots):
            return False
        self.consumer._queue.advance()
        return self._monitor.run(look, self._monitor, self._waiter, self._is_answered)

    def _is_answered(self) -> bool:
        return self.consumer._held <= 0 or self.consumer.channel._over is not None

    def _end_late(self, now: int) -> int:
        """Tell of handlers that take too long, and end them; return when the next will do so."""
        moment = NEVER
        for slot in self.slots:
            message = slot.message
            if message is None or slot.late:
                continue
            late_at = slot.begun + self._limit  # of that message, or of one that came after it
            if now < late_at:
                moment = min(moment, late_at)
                continue
            slot.late = True
            self._tell_late(slot, message, "is cancelled" if self._cut(slot) else "goes on")
        return moment

    def late_error(self) -> TimeoutError:
        """Return the error of a handler that was ended for its time."""
        name, limit = name_of(self.plan.handler), self.plan.time_limit
        return TimeoutError(f"{name} took longer than time_limit={limit:g} s")

    def _tell_late(self, slot: Slot, message: Message[Any], what: str) -> None:
        log.error(
            "%s: %s on message %s takes longer than time_limit=%g s, and %s in %s",
            self.plan.name,
            name_of(self.plan.handler),
            message.id,
            self._limit / SECOND,
            what,
            slot.name,
        )

    # Looking

    def stats(self) -> WorkerStats:
        """Return a snapshot."""
        flow = self._flow_control
        counts = self.settler.counts
        now = self._now()
        calls = sum(slot.count for slot in self.slots)
        at_work = tuple(
            AtWork(
                id=message.id,
                attempts=message.attempts,
                seconds=max(0, now - slot.begun) / SECOND,
                late=slot.late,
                slot=slot.name,
            )
            for slot in self.slots
            if (message := slot.message) is not None
        )
        return WorkerStats(
            name=self.plan.name,
            state="stopped" if self.over.is_set() else "stopping" if self.stopping else "running",
            processed=max(0, calls - len(at_work)),
            failed=counts["failed"],
            retried=counts["retried"],
            given_up=counts["given_up"],
            at_work=at_work,
            held_back_for=flow.held_back_for(),
            held_back_by=flow.why,
        )

    # How it ends

    def stop(self, timeout: int) -> None:
        """Take no more messages; give those at work so many nanoseconds, `NEVER` for no limit."""
        moment = self._now() + timeout
        with self._lock:
            before, self.stopping = self.stopping, True
            if moment < self._stop_at:  # noqa: PLR1730 - no call inside
                self._stop_at = moment
        if not before and timeout and not self.is_idle():
            self._tell_stop(timeout)
        self.consumer._monitor.call(self.consumer.channel._retire, self.consumer)
        for slot in self.slots:
            self.put_back(slot.rest())
        self._wake()

    def _tell_stop(self, timeout: int) -> None:
        many = sum(slot.message is not None for slot in self.slots)
        limit = "" if timeout == NEVER else f", at most {timeout / SECOND:g} s"
        log.info("%s: stops when %d handlers at work have ended%s", self.plan.name, many, limit)

    def end_with_channel(self) -> None:
        """Stop, as the channel is over; those at work may end."""
        if self.stopping:
            return
        channel = self.consumer.channel
        if not channel._queue.draining:
            how = channel._over or "closed"
            log.error("%s: the worker stops, as %s is %s", self.plan.name, channel._title, how)
        self.stop(NEVER)

    def time_left(self) -> int:
        """Return how many nanoseconds those at work have when it stops."""
        return max(0, self._stop_at - self._now())

    def finish(self) -> None:
        """Come to the end, and tell who waits for it."""
        self.end()
        self.over.set()
        self.settler.notify_joins()
        self.when_over()

    def end(self) -> None:
        """Put back what is left, and tell of handlers that have not come to an end."""
        with self._lock:
            ended, self._ended = self._ended, True
        if ended:
            return
        now = self._now()
        told = self.stats()
        log.info(
            "%s: stopped; %d processed, %d failed, %d retried, %d given up",
            self.plan.name,
            told.processed,
            told.failed,
            told.retried,
            told.given_up,
        )
        for slot in self.slots:
            message = slot.message
            if message is not None:
                log.error(
                    "%s: %s on message %s has not ended after %g s and is %s in %s",
                    self.plan.name,
                    name_of(self.plan.handler),
                    message.id,
                    (now - slot.begun) / SECOND,
                    self._overdue,
                    slot.name,
                )
        self._monitor.run(leave, self._monitor, self._waiter, self._is_answered)
        self.consumer._withdraw()
