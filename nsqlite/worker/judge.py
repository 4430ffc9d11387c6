"""What becomes of a message that a worker's handler got.

The rule: it is answered once, whatever the handler did; a change of the window comes before the
answer that caused it (NSQ client §4).

Handlers, callbacks and log records run under no lock.

Next: worker/desk.py
"""

import logging
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
)
from typing import Any, Final

import attrs

from nsqlite.channel import Channel
from nsqlite.errors import Closed, Full, InvalidOption, NotInFlight, shown
from nsqlite.getting import Getting
from nsqlite.message import FINISHED, Message, State
from nsqlite.topic import Topic
from nsqlite.worker.backoff import Backoff, Signal
from nsqlite.worker.deadletter import letter_of
from nsqlite.worker.middleware import Handler, is_coroutine, is_generator, name_of
from nsqlite.worker.pace import Pace
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


def check_kinds(
    channel: Any, handler: Any, *, backoff: Any, dead_letter: Any, on_give_up: Any, name: Any
) -> None:
    """Check what a worker is given that is no number.

    Raises:
        InvalidOption: one of them is of the wrong kind.
    """
    if not isinstance(channel, Channel):
        raise InvalidOption("channel", channel, "what Topic.channel(name) returns")
    if not callable(handler) or is_generator(handler):
        raise InvalidOption("handler", handler, "a function of one message, no generator")
    if backoff is not None and not isinstance(backoff, Backoff):
        raise InvalidOption("backoff", backoff, "a Backoff or None")
    if dead_letter is not None and not isinstance(dead_letter, Topic):
        raise InvalidOption("dead_letter", dead_letter, "a Topic or None")
    if dead_letter is not None and dead_letter._guard is channel._guard:
        raise InvalidOption("dead_letter", dead_letter, "another topic than the channel's")
    if on_give_up is not None and (not callable(on_give_up) or is_coroutine(on_give_up)):
        expected = "a plain function of a message and an error"
        raise InvalidOption("on_give_up", on_give_up, expected)
    if name is not None and not isinstance(name, str):
        raise InvalidOption("name", name, "a str or None")


class Judge:
    """A worker's answers.

    Threads: any.

    Attributes:
        plan: what the worker was told to do.
        consumer: whose messages they are.
        error: the first error that a handler raised, None so far.
        ring: wakes the supervisor; made by who runs it.
    """

    __slots__ = ("_pace", "_unmoved", "consumer", "error", "plan", "ring")

    def __init__(self, plan: Plan, consumer: Getting[Any]) -> None:
        """Begin without backoff."""
        self.plan: Final = plan
        self.consumer: Final = consumer
        self.error: BaseException | None = None
        self.ring: Callable[[], object] = lambda: None
        self._pace: Final = Pace(plan.name, plan.backoff, plan.window, consumer)
        # last errors, by id, while the dead letters have no room
        self._unmoved: Final[dict[str, BaseException | None]] = {}

    def judge(self, message: Message[Any], result: object) -> None:
        """Answer a message whose handler returned."""
        if result is None:
            self._finish(message)
        elif isinstance(result, Verdict):
            self._follow(message, result)
        elif isinstance(result, type) and issubclass(result, Verdict):
            self._follow_class(message, result)
        elif isinstance(result, Awaitable | Generator | AsyncGenerator):
            if isinstance(result, Coroutine):
                result.close()  # else Python warns that nobody awaited it
            name, kind = name_of(self.plan.handler), type(result).__name__
            self._fail(message, TypeError(f"{name} returned a {kind}, which nobody runs"))
        else:
            self._finish(message)

    def judge_error(self, message: Message[Any], error: BaseException) -> None:
        """Answer a message whose handler raised."""
        if isinstance(error, Verdict):
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
        self.answer(lambda: self.consumer.fin(message), message)

    def _follow_class(self, message: Message[Any], kind: type[Verdict]) -> None:
        """Do what a handler decided by a class, as `raise` does."""
        try:
            verdict = kind()
        except Exception as error:
            self._fail(message, error)
        else:
            self._follow(message, verdict)

    def _follow(self, message: Message[Any], verdict: Verdict) -> None:
        """Do what a handler decided."""
        if isinstance(verdict, Requeue):
            delay = self._delay(message) if verdict.delay is None else verdict.delay
            self._signal(Signal.BACK_OFF if verdict.backoff else Signal.GO_ON)
            self.answer(lambda: self.consumer.req(message, delay), message)
        elif isinstance(verdict, Drop):
            log.info("%s: message %s: %s", self.plan.name, message.id, verdict)
            self._finish(message)
        elif isinstance(verdict, TakeOver):
            self._signal(Signal.RESUME)  # its handler did not fail
        else:
            self._fail(message, TypeError(f"{verdict!r} is no Requeue, Drop or TakeOver"))

    def _retry(self, message: Message[Any], error: BaseException) -> None:
        """Requeue a message whose handler failed, or give it up."""
        if message.state is not State.IN_FLIGHT:
            log.warning(
                "%s: %s failed on message %s, which is %s already",
                self.plan.name,
                name_of(self.plan.handler),
                message.id,
                message.state,
                exc_info=error,
            )
            self._signal(Signal.BACK_OFF)
            return
        if 0 < self.plan.max_attempts <= message.attempts:
            self.give_up(message, error)
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
        self.answer(lambda: self.consumer.req(message, delay), message)

    def _delay(self, message: Message[Any]) -> float:
        """Return a requeue's delay in seconds: longer each time (NSQ client §5)."""
        return min(self.plan.requeue_delay * message.attempts, self.plan.max_requeue_delay)

    def give_up(self, message: Message[Any], error: BaseException | None) -> None:
        """Move a message to the dead letters, or finish it."""
        self._signal(Signal.RESUME if error is None else Signal.BACK_OFF)
        if self.plan.dead_letter is None:
            self._tell_given_up(message, error)
            self.answer(lambda: self.consumer.fin(message), message)
            return
        error = error or self._unmoved.get(message.id)
        text = "" if error is None else shown(error)
        letter = letter_of(message, self.plan.channel, text)
        try:
            self.consumer.move(message, self.plan.dead_letter, body=letter)
        except (Full, Closed) as problem:
            self._unmoved[message.id] = error
            log.error("%s: message %s cannot be moved: %s", self.plan.name, message.id, problem)  # noqa: TRY400 - its text tells all
            self.answer(lambda: self.consumer.req(message, self._delay(message)), message)
        except NotInFlight as late:
            self._too_late(late, message)
        else:
            self._unmoved.pop(message.id, None)
            self._tell_given_up(message, error)

    def _tell_given_up(self, message: Message[Any], error: BaseException | None) -> None:
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

    def answer(self, answer: Callable[[], object], message: Message[Any]) -> None:
        """Make an answer, which may come too late."""
        try:
            answer()
        except NotInFlight as late:
            self._too_late(late, message)

    def _too_late(self, late: NotInFlight, message: Message[Any]) -> None:
        """Tell that an answer found nothing to answer, unless the handler answered itself."""
        if message.state is State.DROPPED:
            log.info("%s: message %s was thrown away meanwhile", self.plan.name, message.id)
        elif late.reason != "answered":
            log.warning("%s: %s; its work may be done twice", self.plan.name, str(late))
        elif message.state is not FINISHED:
            log.debug("%s: message %s was answered by its handler", self.plan.name, message.id)

    def remember(self, error: BaseException) -> None:
        """Keep the first error for who joins."""
        if self.error is None:
            self.error = error
            self.ring_joiners()

    def ring_joiners(self) -> None:
        """Let those look who wait for this worker; takes the topic's lock."""
        guard = self.consumer._guard
        guard.call(guard.ring_joiners)

    def _signal(self, signal: Signal) -> None:
        if self._pace.signal(signal):
            self.ring()
