"""One delivery to the handler of another NSQ client, and how that has answered it.

The rule: an answer takes effect at the moment when the client gives it, as on a connection; one
that comes too late is logged, as no NSQ client tells a handler of it.

Next: testing/clients/pynsq.py
"""

import logging
from collections.abc import Callable
from typing import Any, Final

import attrs

from nsqlite.errors import InvalidOption, NotInFlight
from nsqlite.message import Message, State
from nsqlite.options import MILLISECOND, SECOND, as_seconds, whole
from nsqlite.worker.outcome import Outcome, Requeue, TakeOver
from nsqlite.worker.plan import WorkerOptions
from nsqlite.worker.retry import Retry

log: Final = logging.getLogger("nsqlite")

OPTIONS: Final[WorkerOptions] = {"retry": Retry.nsq(max_attempts=0), "auto_touch": False}
"""The options with which a `Worker` leaves to the client what a client decides: when a message is
given up; that it times out while its handler works; and that the worker backs off."""

ID: Final = "0" * 16
"""The id of a message of no broker."""

PUBLISHED: Final = 1_700_000_000 * SECOND
"""When a message of no broker was published."""


@attrs.frozen(kw_only=True)
class Answer:
    """What a handler's client has told of a message.

    Attributes:
        state: ``"finished"``, ``"requeued"``, or ``"in flight"`` for no answer, or none yet.
        delay: seconds until it comes again, of one that is requeued.
        backoff: whether the client slows down for it.
        touches: how often it was touched.
    """

    state: State = State.IN_FLIGHT
    delay: float = attrs.field(default=0.0, converter=as_seconds)
    backoff: bool = False
    touches: int = 0


class Delivery:
    """What carries a client's answers to a message, if there is one.

    Threads: any, one at a time.

    Attributes:
        answer: what was answered so far.
        error: what the handler has raised, if the client caught it.
        is_timed_out: whether the message's time was over before it was answered.
    """

    __slots__ = ("_message", "_timed_out", "answer", "error")

    def __init__(self, message: Message[Any] | None, *, timed_out: bool = False) -> None:
        """Begin without an answer.

        Args:
            message: what the broker has delivered; None without a broker.
            timed_out: whether one without a broker counts as timed out.
        """
        self._message: Final = message
        self._timed_out: Final = timed_out
        self.answer = Answer()
        self.error: Exception | None = None

    @property
    def is_timed_out(self) -> bool:  # noqa: D102 - see the class
        if self._message is None:
            return self._timed_out
        return self._message.state is State.TIMED_OUT

    def finish(self) -> None:
        """Take the client's FIN."""
        self.answer = attrs.evolve(self.answer, state=State.FINISHED)
        self._carry(Message.fin)

    def requeue(self, delay_ms: object, *, backoff: bool) -> None:
        """Take the client's REQ.

        Raises:
            InvalidOption: the delay is no whole number of milliseconds, which a connection does
                not survive.
        """
        delay = whole("time_ms", delay_ms, 0) * MILLISECOND / SECOND
        self.answer = attrs.evolve(
            self.answer, state=State.REQUEUED, delay=delay, backoff=bool(backoff)
        )
        self._carry(lambda message: message.req(delay))

    def touch(self) -> None:
        """Take the client's TOUCH."""
        self.answer = attrs.evolve(self.answer, touches=self.answer.touches + 1)
        self._carry(Message.touch)

    def _carry(self, act: Callable[[Message[Any]], None]) -> None:
        if self._message is None:
            return
        try:
            act(self._message)
        except NotInFlight as late:
            log.warning("%s", late)

    def result(self) -> Outcome | None:
        """Return what a worker needs to know of the answer, when the handler has ended.

        Raises:
            Exception: what the handler raised, so that the worker shows it to who joins.
        """
        if self.error is not None:
            raise self.error
        if self.answer.state is State.FINISHED:
            return None
        if self.answer.state is State.REQUEUED:
            return Requeue(self.answer.delay, backoff=self.answer.backoff)
        return TakeOver()


def body_of(message: Message[Any]) -> bytes:
    """Return a message's body as a client gets it from `nsqlite.server`.

    That is text as UTF-8, and anything else that is not bytes as JSON.

    Raises:
        InvalidMessage: it cannot be written as JSON.
    """
    body = message.body
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    if isinstance(body, str):
        return body.encode("utf-8", "replace")
    from nsqlite.store.codec import Coder, checked_codec  # noqa: PLC0415 - loads the store

    return Coder(checked_codec("json")).encode(body)[1]


def checked(body: object, attempts: object) -> tuple[bytes, int]:
    """Return what a message of no broker is made of.

    Raises:
        InvalidOption: the body is not of bytes, or the attempts are no whole number from 1 on.
    """
    if not isinstance(body, bytes | bytearray | memoryview):
        raise InvalidOption("body", body, "bytes, as NSQ's clients get them")
    return bytes(body), whole("attempts", attempts, 1)
