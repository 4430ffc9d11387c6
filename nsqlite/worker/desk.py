"""What a worker decides: what becomes of each message, how fast it goes on, and how it ends.

The rule: a message that a handler got is answered once, whatever the handler did; a change of the
window comes before the answer that caused it (NSQ client §4); handlers, callbacks and log records
run under no lock.

It knows no thread and no loop.  The slots (threads.py, tasks.py) bring it messages and results; one
supervisor acts here when a moment has come and sleeps until the next.

Next: worker/threads.py
"""

import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final

import attrs

from nsqlite.channel import Channel
from nsqlite.clock import NEVER
from nsqlite.errors import Closed, Full, NotInFlight, shown
from nsqlite.getting import Getting
from nsqlite.lock import make_section
from nsqlite.message import FINISHED, Message, State
from nsqlite.options import SECOND
from nsqlite.topic import Topic
from nsqlite.worker.backoff import Backoff, BackoffState, Gate, Signal
from nsqlite.worker.deadletter import letter_of
from nsqlite.worker.middleware import Handler
from nsqlite.worker.verdict import Drop, Requeue, TakeOver, Verdict

log: Final = logging.getLogger("nsqlite")

GiveUp = Callable[[Message[Any], BaseException | None], object]
"""Told of a message that is given up, and of its last error if its handler was called."""


@attrs.frozen(kw_only=True)
class Plan:
    """What a worker was told to do; its fields are those of `Worker`."""

    channel: Channel[Any]
    handler: Handler
    name: str
    concurrency: int
    max_attempts: int
    backoff: Backoff | None
    dead_letter: Topic[Any] | None
    on_give_up: GiveUp | None
    requeue_delay: float
    max_requeue_delay: float
    prefetch: int
    window: int
    auto_touch: bool


class Slot:
    """One message's place in a worker.

    Attributes:
        name: the worker's and a number; that of its thread or task.
        message: what it works on, None while it waits.
        touchable: whether another touch would give it more time.
        over: whether it takes no more.
    """

    __slots__ = ("message", "name", "over", "touchable")

    def __init__(self, name: str) -> None:
        """Begin without a message."""
        self.name: Final = name
        self.message: Message[Any] | None = None
        self.touchable = True
        self.over = False


class Desk:
    """A worker's decisions.

    Threads: any, but for `act`, which is the supervisor's.

    Attributes:
        plan: what it was told to do.
        consumer: where its messages come from.
        slots: where they are worked on.
        fate: what becomes of a handler that has not ended in time, in a word or two.
        error: the first error that a handler raised, None so far.
        stopping: whether it takes no more messages.
        ring: wakes the supervisor; made by who runs it.
    """

    __slots__ = (
        "_asleep_until",
        "_backoff",
        "_ended",
        "_half",
        "_lock",
        "_now",
        "_probe_at",
        "_stop_at",
        "consumer",
        "error",
        "fate",
        "plan",
        "ring",
        "slots",
        "stopping",
    )

    def __init__(self, plan: Plan, consumer: Getting[Any], fate: str) -> None:
        """Begin with free slots."""
        self.fate: Final = fate
        self.plan: Final = plan
        self.consumer: Final = consumer
        self.slots: Final[Sequence[Slot]] = [
            Slot(f"{plan.name}-{number}") for number in range(1, plan.concurrency + 1)
        ]
        self.error: BaseException | None = None
        self.stopping = False
        self.ring: Callable[[], object] = lambda: None
        self._now: Final = consumer._now
        self._half: Final = consumer.msg_timeout // 2
        self._lock: Final = make_section(rank=2)  # guards the four below; nothing is called inside
        self._backoff: Final = BackoffState(plan.backoff or Backoff(max_duration=0))
        self._probe_at = NEVER
        self._stop_at = NEVER
        self._ended = False
        self._asleep_until = 0

    # From the slots

    def begin(self, slot: Slot, message: Message[Any]) -> bool:
        """Take note of a message; return whether its handler is to be called."""
        slot.message = message  # before it looks whether to stop: `stop` does it the other way
        if self.stopping or (self.plan.prefetch and message not in message._tick):
            slot.message = None  # put back at the end, or its time went by in the slot's own queue
            return False
        if self.plan.auto_touch:
            slot.touchable = True
            if message._tick.due - self._half < self._asleep_until:
                self.ring()
        most = self.plan.max_attempts
        if most and message.attempts > most:
            self._give_up(message, None)
            slot.message = None
            return False
        return True

    def succeeded(self, slot: Slot, result: object) -> None:
        """Answer a message whose handler returned."""
        message = slot.message
        assert message is not None
        if result is None:
            self._finish(message)
        elif isinstance(result, Verdict):
            self._follow(message, result)
        elif isinstance(result, type) and issubclass(result, Verdict):
            self._follow(message, result())  # as `raise` does with a class
        elif isinstance(result, Awaitable):
            if isinstance(result, Coroutine):
                result.close()  # else Python warns that nobody awaited it
            name = name_of(self.plan.handler)
            self.failed(slot, TypeError(f"{name} is a plain function and returned an awaitable"))
        else:
            self._finish(message)
        slot.message = None

    def failed(self, slot: Slot, error: BaseException) -> None:
        """Answer a message whose handler raised."""
        message = slot.message
        assert message is not None
        if isinstance(error, Verdict):
            self._follow(message, error)
        else:
            self._remember(error)
            self._retry(message, error)
        slot.message = None

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
            self._remember(error)
            self.stop(NEVER)  # before another slot can take it
            self._answer(lambda: self.consumer.req(message), message)
            slot.message = None
        self.stop(0)

    def is_swift(self) -> bool:
        """Return whether a success has no other consequence than that its message is finished."""
        return self._backoff.level == 0 and self.plan.prefetch == 0 and not self.stopping

    def leave(self, slot: Slot) -> None:
        """Take note that a slot takes no more."""
        slot.over = True
        self.ring()

    # What becomes of a message

    def _finish(self, message: Message[Any]) -> None:
        if self._backoff.level and message.state in (State.IN_FLIGHT, State.FINISHED):
            self._signal(Signal.RESUME)
        self._answer(lambda: self.consumer.fin(message), message)

    def _follow(self, message: Message[Any], verdict: Verdict) -> None:
        """Do what a handler decided."""
        if isinstance(verdict, Requeue):
            delay = self._delay(message) if verdict.delay is None else verdict.delay
            self._signal(Signal.BACK_OFF if verdict.backoff else Signal.GO_ON)
            self._answer(lambda: self.consumer.req(message, delay), message)
        elif isinstance(verdict, Drop):
            log.info("%s: message %s: %s", self.plan.name, message.id, verdict)
            self._finish(message)
        else:
            assert isinstance(verdict, TakeOver)
            self._signal(Signal.RESUME)  # its handler did not fail

    def _retry(self, message: Message[Any], error: BaseException) -> None:
        """Requeue a message whose handler failed, or give it up."""
        last = 0 < self.plan.max_attempts <= message.attempts
        if last and message.state is State.IN_FLIGHT:
            self._give_up(message, error)
            return
        delay = self._delay(message)
        log.warning(
            "%s: %s failed on message %s, attempt %d; the next in %g s",
            self.plan.name,
            name_of(self.plan.handler),
            message.id,
            message.attempts,
            delay,
            exc_info=error,
        )
        self._signal(Signal.BACK_OFF)
        self._answer(lambda: self.consumer.req(message, delay), message)

    def _delay(self, message: Message[Any]) -> float:
        """Return a requeue's delay in seconds: longer each time (NSQ client §5)."""
        return min(self.plan.requeue_delay * message.attempts, self.plan.max_requeue_delay)

    def _give_up(self, message: Message[Any], error: BaseException | None) -> None:
        """Move a message to the dead letters, or finish it."""
        self._signal(Signal.RESUME if error is None else Signal.BACK_OFF)
        log.error(
            "%s: message %s is given up after %d attempts",
            self.plan.name,
            message.id,
            message.attempts,
            exc_info=error,
        )
        if self.plan.on_give_up is not None:
            try:
                self.plan.on_give_up(message, error)
            except Exception:
                log.exception("%s: on_give_up failed on message %s", self.plan.name, message.id)
        if self.plan.dead_letter is None:
            self._answer(lambda: self.consumer.fin(message), message)
            return
        letter = letter_of(message, self.plan.channel, "" if error is None else shown(error))
        try:
            self.consumer.move(message, self.plan.dead_letter, body=letter)
        except (Full, Closed) as problem:
            log.error("%s: message %s cannot be moved: %s", self.plan.name, message.id, problem)  # noqa: TRY400 - its text tells all
            self._answer(lambda: self.consumer.req(message, self._delay(message)), message)
        except NotInFlight as late:
            self._too_late(late, message)

    def _answer(self, answer: Callable[[], object], message: Message[Any]) -> None:
        try:
            answer()
        except NotInFlight as late:
            self._too_late(late, message)

    def _too_late(self, late: NotInFlight, message: Message[Any]) -> None:
        """Tell that an answer found nothing to answer, unless the handler answered itself."""
        if late.reason != "answered":
            log.warning("%s: %s; its work may be done twice", self.plan.name, str(late))
        elif message.state is not FINISHED:
            log.debug("%s: message %s was answered by its handler", self.plan.name, message.id)

    def _remember(self, error: BaseException) -> None:
        """Keep the first error for who joins."""
        if self.error is None:
            self.error = error
            self.ring_joiners()

    def ring_joiners(self) -> None:
        """Let those look who wait for this worker; takes the topic's lock."""
        guard = self.consumer._guard
        guard.call(guard.ring_joiners)

    # How fast it goes on

    def _signal(self, signal: Signal) -> None:
        """Take a result into account: change the window if it says so."""
        state = self._backoff
        if state.level == 0 and signal is not Signal.BACK_OFF:
            return
        with self._lock:
            before = state.gate
            wait = state.signal(signal)
            if wait is not None:
                self._probe_at = self._now() + round(wait * SECOND)
            changed = state.gate is not before
        if changed:
            self._set_window()
            log.info("%s: backoff %d, %s", self.plan.name, state.level, state.gate)
        if wait is not None:
            self.ring()

    def _set_window(self) -> None:
        """Have the consumer's window be what the backoff allows; takes the topic's lock."""
        windows = {Gate.OPEN: self.plan.window, Gate.SHUT: 0, Gate.PROBE: 1}
        while True:
            gate = self._backoff.gate
            self.consumer.rdy(windows[gate])
            if gate is self._backoff.gate:  # else another thread has changed it meanwhile
                return

    # For the supervisor

    def act(self) -> int | None:
        """Do what is due; return the moment until when there is nothing to do, None at the end."""
        now = self._now()
        with self._lock:
            probe = now >= self._probe_at
            if probe:
                self._probe_at = NEVER
                self._backoff.probe()
        if probe:
            self._set_window()
        if self.stopping and (now >= self._stop_at or all(slot.over for slot in self.slots)):
            self.end()
            return None
        self._asleep_until = NEVER  # a message that comes while this looks rings
        moment = min(self._probe_at, self._stop_at)
        if self.plan.auto_touch:
            moment = min(moment, self._touch(now))
        self._asleep_until = moment
        return moment

    def _touch(self, now: int) -> int:
        """Touch what has been worked on for half of its time; return when the next will have."""
        moment = NEVER
        for slot in self.slots:
            message = slot.message
            if message is None or not slot.touchable or message.state is not State.IN_FLIGHT:
                continue
            due = message._tick.due
            if now >= due - self._half:
                self._answer(partial(self.consumer.touch, message), message)
                if message._tick.due == due:  # max_msg_timeout allows no more
                    slot.touchable = False
                    continue
                due = message._tick.due
            moment = min(moment, due - self._half)
        return moment

    # How it ends

    def stop(self, timeout: int) -> None:
        """Take no more messages; give those at work so many nanoseconds, `NEVER` for no limit."""
        moment = self._now() + timeout
        with self._lock:
            if moment < self._stop_at:  # noqa: PLR1730 - no call inside
                self._stop_at = moment
            self.stopping = True
        self.consumer._guard.call(self.consumer.channel._retire, self.consumer)
        self.ring()

    def time_left(self) -> int:
        """Return how many nanoseconds those at work have when it stops."""
        return max(0, self._stop_at - self._now())

    def end(self) -> None:
        """Put back what is left, and tell of handlers that have not come to an end."""
        with self._lock:
            ended, self._ended = self._ended, True
        if ended:
            return
        now = self._now()
        for slot in self.slots:
            message = slot.message
            if message is not None:
                log.error(
                    "%s: %s on message %s has not ended after %g s and is %s in %s",
                    self.plan.name,
                    name_of(self.plan.handler),
                    message.id,
                    (now - message._delivered) / SECOND,
                    self.fate,
                    slot.name,
                )
        self.consumer.close()


def name_of(handler: Handler) -> str:
    """Return what a person calls a handler."""
    name: str = getattr(handler, "__qualname__", "") or type(handler).__qualname__
    return name
