"""Handlers of gnsq 1.0: what they get, and what they do with it.

The rule: gnsq's own `Consumer` calls the handlers, one that was never connected.

    returns anything            finished, unless it was answered, or `enable_async` called
    raises NSQRequeueMessage    requeued after `requeue_delay`; the consumer backs off if
                                `backoff_on_requeue`, or as the exception says
    raises anything else        requeued after `requeue_delay`; the consumer backs off
    attempts > max_tries        finished without calling the handler; `on_giving_up` is told

It imports gevent with gnsq, patches nothing and starts no hub.  A handler that waits in gevent
makes the thread wait in which it is called.

Next: testing/clients/ansq.py
"""

import functools
from collections.abc import Callable
from typing import Any, Final

from nsqlite.errors import InvalidOption, MissingExtra
from nsqlite.message import Message as Delivered
from nsqlite.testing.clients.delivery import ID, PUBLISHED, Answer, Delivery, body_of, checked

try:
    import gnsq
    from gnsq.states import INIT, RUNNING
except ImportError:
    raise MissingExtra("a handler of gnsq", "gnsq", "clients") from None

__all__ = ["Message", "handler", "message"]

_CONNECTION: Final = "no connection"
"""What the consumer's log calls the connection."""


class Message(gnsq.Message):  # type: ignore[misc]  # it has no types
    """A `gnsq.Message` that answers no connection, but a message of nsqlite, if there is one.

    Threads: any, one at a time.
    """

    def __init__(
        self,
        timestamp: int,
        attempts: int,
        id: bytes,  # noqa: A002 - gnsq's
        body: bytes,
        given: Delivered[Any] | None = None,
    ) -> None:
        """Make what `message` and `handler` make.

        Args:
            timestamp: when it was published, in nanoseconds since the epoch.
            attempts: how often it was delivered, this time counted.
            id: 16 hex characters.
            body: what was published.
            given: what is answered.
        """
        super().__init__(timestamp, attempts, id, body)
        self._delivery = Delivery(given)
        self.on_finish.connect(_finish)
        self.on_requeue.connect(_requeue)
        self.on_touch.connect(_touch)

    @property
    def answer(self) -> Answer:
        """What was answered so far."""
        return self._delivery.answer


def _finish(taken: Message) -> None:
    taken._delivery.finish()


def _requeue(taken: Message, timeout: object, *, backoff: bool) -> None:
    taken._delivery.requeue(timeout, backoff=backoff)


def _touch(taken: Message) -> None:
    taken._delivery.touch()


def message(
    body: bytes = b"",
    *,
    attempts: int = 1,
    id: bytes = ID.encode(),  # noqa: A002 - gnsq's
    timestamp: int = PUBLISHED,
) -> Message:
    """Return a message of no broker, for a handler to work on.

    Args:
        body: what was published.
        attempts: how often it was delivered, this time counted.
        id: 16 hex characters.
        timestamp: when it was published, in nanoseconds since the epoch.

    Raises:
        InvalidOption: the body is not of bytes, or the attempts are no whole number from 1 on.
    """
    body, attempts = checked(body, attempts)
    return Message(timestamp, attempts, id, body)


def handler(function: Any, **options: Any) -> Callable[[Any], Any]:
    """Return a handler of nsqlite that has gnsq call one of its own.

    It takes what `message` returns as well as a message of nsqlite.  What the handler raises goes
    on, once gnsq has caught it and the message is requeued.  What is answered after the handler
    has ended does not make a worker back off.

    Args:
        function: the `message_handler`, a function of a consumer and a message; or a
            `gnsq.Consumer` that was not started, whose signals and options are used, and which
            cannot be started any more.
        options: those of `gnsq.Consumer`, like ``max_tries``, ``requeue_delay`` (milliseconds)
            and ``backoff_on_requeue``.

    Raises:
        InvalidOption: it is neither, or a consumer that was started.
    """
    if isinstance(function, gnsq.Consumer):
        consumer = function
    elif callable(function):
        consumer = gnsq.Consumer(
            "topic", "channel", "127.0.0.1:4150", message_handler=function, **options
        )
    else:
        raise InvalidOption("function", function, "a message_handler or a Consumer of gnsq")
    if consumer._state != INIT:
        raise InvalidOption("function", function, "a gnsq.Consumer that was not started")
    consumer._state = RUNNING
    consumer.on_exception.connect(_keep, weak=False)

    def handle(given: Any) -> object:
        taken = given if isinstance(given, Message) else _taken(given)
        consumer.handle_message(_CONNECTION, taken)
        return taken._delivery.result()

    return handle if consumer is function else functools.wraps(function)(handle)


def _taken(given: Delivered[Any]) -> Message:
    """Return a message of nsqlite as gnsq's."""
    return Message(given.timestamp, given.attempts, given.id.encode(), body_of(given), given)


def _keep(_consumer: Any, message: Message, error: Exception) -> None:
    """Keep what a handler raised, which gnsq only logs."""
    message._delivery.error = error
