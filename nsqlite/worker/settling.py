"""What becomes of a message that a worker's handler got.

The rule: it is answered once, whatever the handler did; a change of the window comes before the
answer that caused it (NSQ client §4).

Handlers, callbacks and log records run under no lock.

Next: worker/supervisor.py
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from typing import Any, Final

from nsqlite.consumer import AnyConsumer
from nsqlite.errors import NotInFlight, NSQLiteError, shown
from nsqlite.message import Message, State
from nsqlite.worker.backoff import Signal
from nsqlite.worker.deadletter import letter_of
from nsqlite.worker.flow_control import FlowControl
from nsqlite.worker.handler import name_of
from nsqlite.worker.outcome import Drop, Outcome, Requeue, TakeOver
from nsqlite.worker.plan import Plan

log: Final = logging.getLogger("nsqlite")


class Settler:
    """Settles a worker's messages.

    Threads: any.

    Attributes:
        flow_control: how many messages the worker may hold.
        error: the first error that a handler raised, None so far.
    """

    __slots__ = ("_consumer", "_plan", "_unmoved", "_wake", "error", "flow_control")

    def __init__(self, plan: Plan, consumer: AnyConsumer[Any], wake: Callable[[], object]) -> None:
        """Begin without backoff.

        Args:
            plan: what the worker was told to do.
            consumer: whose messages they are.
            wake: called when there is something to do at an earlier moment than before.
        """
        self._plan: Final = plan
        self._consumer: Final = consumer
        self._wake: Final = wake
        self.flow_control: Final = FlowControl(plan.name, plan.backoff, plan.window, consumer)
        self.error: BaseException | None = None
        # last errors, by id, while the dead letters have no room
        self._unmoved: Final[dict[str, BaseException | None]] = {}

    def settle(self, message: Message[Any], result: object) -> None:
        """Answer a message whose handler returned."""
        if result is None:
            self._finish(message)
        elif isinstance(result, Outcome):
            self._follow(message, result)
        elif isinstance(result, type) and issubclass(result, Outcome):
            self._follow_class(message, result)
        elif isinstance(result, Awaitable | Generator | AsyncGenerator):
            if isinstance(result, Coroutine):
                result.close()  # else Python warns that nobody awaited it
            name, kind = name_of(self._plan.handler), type(result).__name__
            self._fail(message, TypeError(f"{name} returned a {kind}, which nobody runs"))
        else:
            self._finish(message)

    def settle_error(self, message: Message[Any], error: BaseException) -> None:
        """Answer a message whose handler raised."""
        if isinstance(error, Outcome):
            self._follow(message, error)
        else:
            self._fail(message, error)

    def _fail(self, message: Message[Any], error: BaseException) -> None:
        self.remember(error)
        self._retry(message, error)

    def _finish(self, message: Message[Any]) -> None:
        """Finish a message whose handler succeeded, unless the handler has answered it."""
        state = message.state
        if state is State.REQUEUED:
            self._signal(Signal.BACK_OFF)  # as the handler wanted
            return
        done = state in (State.IN_FLIGHT, State.FINISHED)
        self._signal(Signal.RESUME if done else Signal.GO_ON)
        self.answer(lambda: self._consumer.fin(message), message)

    def _follow_class(self, message: Message[Any], kind: type[Outcome]) -> None:
        """Do what a handler decided by a class, as `raise` does."""
        try:
            outcome = kind()
        except Exception as error:
            self._fail(message, error)
        else:
            self._follow(message, outcome)

    def _follow(self, message: Message[Any], outcome: Outcome) -> None:
        """Do what a handler decided."""
        if isinstance(outcome, Requeue):
            delay = self._delay(message) if outcome.delay is None else outcome.delay
            self._signal(Signal.BACK_OFF if outcome.backoff else Signal.GO_ON)
            self.answer(lambda: self._consumer.req(message, delay), message)
        elif isinstance(outcome, Drop):
            log.info("%s: message %s: %s", self._plan.name, message.id, outcome)
            self._finish(message)
        elif isinstance(outcome, TakeOver):
            self._signal(Signal.RESUME)  # its handler did not fail
        else:
            self._fail(message, TypeError(f"{outcome!r} is no Requeue, Drop or TakeOver"))

    def _retry(self, message: Message[Any], error: BaseException) -> None:
        """Requeue a message whose handler failed, or give it up."""
        if message.state is not State.IN_FLIGHT:
            log.warning(
                "%s: %s failed on message %s, which is %s already",
                self._plan.name,
                name_of(self._plan.handler),
                message.id,
                message.state,
                exc_info=error,
            )
            self._signal(Signal.BACK_OFF)
            return
        if 0 < self._plan.max_attempts <= message.attempts:
            self.give_up(message, error)
            return
        delay = self._delay(message)
        log.warning(
            "%s: %s failed on message %s, attempt %d; the next in %g s",
            self._plan.name,
            name_of(self._plan.handler),
            message.id,
            message.attempts,
            delay,
            exc_info=error,
        )
        self._signal(Signal.BACK_OFF)
        self.answer(lambda: self._consumer.req(message, delay), message)

    def _delay(self, message: Message[Any]) -> float:
        """Return a requeue's delay in seconds: longer each time (NSQ client §5)."""
        return min(self._plan.requeue_delay * message.attempts, self._plan.max_requeue_delay)

    def give_up(self, message: Message[Any], error: BaseException | None) -> None:
        """Move a message to the dead letters, or finish it."""
        self._signal(Signal.RESUME if error is None else Signal.BACK_OFF)
        if self._plan.dead_letter is None:
            self._tell_given_up(message, error)
            self.answer(lambda: self._consumer.fin(message), message)
            return
        if error is None:
            error = self._unmoved.get(message.id)
        text = "" if error is None else shown(error)
        letter = letter_of(message, self._plan.channel, text)
        try:
            self._consumer.move(message, self._plan.dead_letter, body=letter)
        except NotInFlight as late:
            self._too_late(late, message)
        except NSQLiteError as problem:  # it is full, closed, or its store cannot keep the letter
            self._unmoved[message.id] = error
            log.error("%s: message %s cannot be moved: %s", self._plan.name, message.id, problem)  # noqa: TRY400 - its text tells all
            self.answer(lambda: self._consumer.req(message, self._delay(message)), message)
        else:
            self._unmoved.pop(message.id, None)
            self._tell_given_up(message, error)

    def _tell_given_up(self, message: Message[Any], error: BaseException | None) -> None:
        log.error(
            "%s: message %s is given up after %d attempts",
            self._plan.name,
            message.id,
            message.attempts,
            exc_info=error,
        )
        if self._plan.on_give_up is not None:
            try:
                self._plan.on_give_up(message, error)
            except Exception:
                log.exception("%s: on_give_up failed on message %s", self._plan.name, message.id)

    def answer(self, answer: Callable[[], object], message: Message[Any]) -> None:
        """Make an answer, which may come too late."""
        try:
            answer()
        except NotInFlight as late:
            self._too_late(late, message)

    def _too_late(self, late: NotInFlight, message: Message[Any]) -> None:
        """Tell that an answer found nothing to answer, unless the handler answered itself."""
        if message.state is State.DROPPED:
            log.info("%s: message %s was thrown away meanwhile", self._plan.name, message.id)
        elif late.reason != "answered":
            log.warning("%s: %s; its work may be done twice", self._plan.name, str(late))
        elif message.state is not State.FINISHED:
            log.debug("%s: message %s was answered by its handler", self._plan.name, message.id)

    def remember(self, error: BaseException) -> None:
        """Keep the first error for who joins."""
        if self.error is None:
            self.error = error
            self.notify_joins()

    def notify_joins(self) -> None:
        """Let those look who wait for this worker; takes the topic's lock."""
        monitor = self._consumer._monitor
        monitor.call(monitor.notify_joins)

    def _signal(self, signal: Signal) -> None:
        if self.flow_control.signal(signal):
            self._wake()
