"""What becomes of a message that a worker's handler got.

The rule: it is answered once, whatever the handler did; a change of the window comes before the
answer that caused it (NSQ client §4).

Handlers, callbacks and log records run under no lock.

Next: worker/stats.py
"""

import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from functools import partial
from typing import Any, Final

from nsqlite.consumer import AnyConsumer
from nsqlite.errors import NotInFlight
from nsqlite.lock import make_lock
from nsqlite.message import Message, State
from nsqlite.worker.backoff import Signal
from nsqlite.worker.deadletter import letter_of
from nsqlite.worker.failure import NO_ANSWER, Failure, failure_of, strip
from nsqlite.worker.flow_control import FlowControl
from nsqlite.worker.handler import name_of
from nsqlite.worker.outcome import Drop, Outcome, Requeue, TakeOver
from nsqlite.worker.plan import Plan
from nsqlite.worker.retry import Delays

log: Final = logging.getLogger("nsqlite")

MOST_FAILURES: Final = 10_000
"""Of so many messages a worker knows how they failed last."""


class Settler:
    """Settles a worker's messages.

    Threads: any.

    Attributes:
        flow_control: how many messages the worker may hold.
        error: the first error that a handler raised, None so far; it keeps no frames, but says in
            a note where it was raised.
        failures: how messages failed last that are to be tried again, by id; the newest ones.
        counts: how often a handler failed, a message was retried, and one was given up.
    """

    __slots__ = (
        "_consumer",
        "_counting",
        "_delays",
        "_plan",
        "_wake",
        "counts",
        "error",
        "failures",
        "flow_control",
    )

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
        self._delays: Final = Delays(plan.name, plan.retry)
        self.flow_control: Final = FlowControl(plan.name, plan.retry.backoff, plan.window, consumer)
        self.error: BaseException | None = None
        self.failures: Final[dict[str, Failure]] = {}
        self._counting: Final = make_lock(rank=2)  # protects `counts`; nothing is called inside
        self.counts: Final[Counter[str]] = Counter()

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
        self._count("failed")
        failure = failure_of(error)
        self._retry(message, error, failure)
        if self.error is None:
            self._let_frames_go(message, error, failure)
        self.remember(error)  # last: who joins finds all this done

    def _finish(self, message: Message[Any]) -> None:
        """Finish a message whose handler succeeded, unless the handler has answered it."""
        state = message.state
        if state is State.REQUEUED:
            self._signal(Signal.BACK_OFF, "a handler requeued its message")
            return
        if self.failures:
            self.failures.pop(message.id, None)
        done = state in (State.IN_FLIGHT, State.FINISHED)
        self._signal(Signal.RESUME if done else Signal.GO_ON)
        self.answer(partial(self._consumer.fin, message), message)

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
            self._requeue(message, outcome)
        elif isinstance(outcome, Drop):
            log.info("%s: message %s: %s", self._plan.name, message.id, outcome)
            self._finish(message)
        elif isinstance(outcome, TakeOver):
            self._signal(Signal.RESUME)  # its handler did not fail
            if self._plan.auto_touch:
                self.answer(partial(self._consumer._let_expire, message), message)
        else:
            self._fail(message, TypeError(f"{outcome!r} is no Requeue, Drop or TakeOver"))

    def _requeue(self, message: Message[Any], outcome: Requeue) -> None:
        """Requeue a message as its handler decided."""
        delay = outcome.delay
        if delay is None:
            delay = self._delays.of(message, outcome)
        if delay is None:
            self.give_up(message, outcome, failure_of(outcome))
            return
        if outcome.counted:
            self._note(message, failure_of(outcome))
        self._signal(Signal.BACK_OFF if outcome.backoff else Signal.GO_ON, outcome)
        self._count("retried")
        again = self._consumer.req if outcome.counted else self._consumer._postpone
        self.answer(partial(again, message, delay), message)

    def _retry(self, message: Message[Any], error: BaseException, failure: Failure) -> None:
        """Requeue a message whose handler failed, or give it up."""
        name = name_of(self._plan.handler)
        if message.state is not State.IN_FLIGHT:
            log.warning(
                "%s: %s failed on message %s, which is %s already: %s",
                self._plan.name,
                name,
                message.id,
                message.state,
                failure,
                exc_info=self._exc_info(message, error, failure),
            )
            self._signal(Signal.BACK_OFF, failure)
            return
        delay = self._delays.after(message, error)
        if delay is None:
            self.give_up(message, error, failure)
            return
        log.warning(
            "%s: %s failed on message %s, attempt %d; the next in %g s: %s",
            self._plan.name,
            name,
            message.id,
            message.attempts,
            delay,
            failure,
            exc_info=self._exc_info(message, error, failure),
        )
        self._note(message, failure)
        self._count("retried")
        self._signal(Signal.BACK_OFF, failure)
        self.answer(partial(self._consumer.req, message, delay), message)

    def _exc_info(
        self, message: Message[Any], error: BaseException | None, failure: Failure
    ) -> BaseException | None:
        """Return an error whose traceback is to be logged, None if it is not."""
        wanted = self._plan.tracebacks
        if wanted == "always" or (wanted == "once" and self.failures.get(message.id) != failure):
            return error
        return None

    def _note(self, message: Message[Any], failure: Failure) -> None:
        """Take note of how a message failed that comes again."""
        failures = self.failures
        failures[message.id] = failure
        if len(failures) > MOST_FAILURES:
            for oldest in list(failures)[: MOST_FAILURES // 10]:
                failures.pop(oldest, None)

    def give_up(
        self, message: Message[Any], error: BaseException | None, failure: Failure | None = None
    ) -> None:
        """Move a message to the dead letters, or finish it.

        Args:
            message: one that is in flight.
            error: what its handler raised, None if that was not called.
            failure: the same in words; None for what is known of the message.
        """
        if failure is None:
            failure = self.failures.get(message.id, NO_ANSWER)
        self._signal(Signal.RESUME if error is None else Signal.BACK_OFF, failure)
        if self._plan.dead_letter is None:
            self._tell_given_up(message, error, failure)
            self.answer(partial(self._consumer.fin, message), message)
            return
        letter = letter_of(message, self._plan.channel, failure)
        try:
            self._consumer.move(message, self._plan.dead_letter, body=letter)
        except NotInFlight as late:
            self._too_late(late, message)
        except Exception as problem:  # it is full, closed, or its store cannot keep the letter
            self._note(message, failure)
            self._count("retried")
            delay = self._delays.until_move(message)
            log.error(  # noqa: TRY400 - its text tells all
                "%s: message %s cannot be moved to the dead letters, tried again in %g s: %s",
                self._plan.name,
                message.id,
                delay,
                problem,
            )
            self.answer(partial(self._consumer.req, message, delay), message)
        else:
            self._tell_given_up(message, error, failure)

    def _tell_given_up(
        self, message: Message[Any], error: BaseException | None, failure: Failure
    ) -> None:
        log.error(
            "%s: message %s is given up after attempt %d: %s",
            self._plan.name,
            message.id,
            message.attempts,
            failure,
            exc_info=self._exc_info(message, error, failure),
        )
        self.failures.pop(message.id, None)
        self._count("given_up")
        if self._plan.on_give_up is not None:
            try:
                self._plan.on_give_up(message, error)
            except Exception:
                log.exception("%s: on_give_up failed on message %s", self._plan.name, message.id)

    def answer(self, answer: Callable[[], object], message: Message[Any]) -> None:
        """Make an answer, which may come too late, or fail with the store."""
        try:
            answer()
        except NotInFlight as late:
            self._too_late(late, message)
        except Exception as problem:
            log.exception("%s: message %s cannot be answered", self._plan.name, message.id)
            self.trouble(problem)
            if self._plan.auto_touch:  # else it would never come again
                with suppress(NotInFlight):
                    self._consumer._let_expire(message)

    def trouble(self, problem: Exception) -> None:
        """Hold the worker back for a while, since the store failed."""
        if self.flow_control.trouble(problem):
            self._wake()

    def _too_late(self, late: NotInFlight, message: Message[Any]) -> None:
        """Tell that an answer found nothing to answer, unless the handler answered itself."""
        if message.state is State.DROPPED:
            channel = self._plan.channel
            if channel._queue.persistence is not None and channel._over == "closed":
                text = "%s: message %s is in the store, whose broker was closed; it comes again"
                log.warning(text, self._plan.name, message.id)
            else:
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

    def _count(self, what: str) -> None:
        with self._counting:
            self.counts[what] += 1

    def _let_frames_go(self, message: Message[Any], error: BaseException, failure: Failure) -> None:
        """Keep of the first error where it was raised, in words."""
        strip(error)
        name = name_of(self._plan.handler)
        with suppress(Exception):  # one that lets nothing be changed
            error.add_note(f"raised by {name} on message {message.id}:\n{failure.traceback}")

    def notify_joins(self) -> None:
        """Let those look who wait for this worker; takes the topic's lock."""
        monitor = self._consumer._monitor
        monitor.call(monitor.notify_joins)

    def _signal(self, signal: Signal, why: object = "") -> None:
        if self.flow_control.signal(signal, why):
            self._wake()
