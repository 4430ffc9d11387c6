"""Handlers of pynsq 0.9: what they get, and what they do with it.

The rule: pynsq's own `Reader` calls the handler, one that was never connected.

    returns True                finished
    returns False               requeued after 90 s for each attempt; the reader backs off
    raises                      the same, unless it was answered before, `enable_async` or not
    returns None                in flight until it times out, and pynsq logs an AssertionError;
                                right after `enable_async`, or where the handler has answered
    returns something awaited   finished or requeued by what that returns or raises
    attempts > max_tries        finished without calling the handler

It imports tornado and asyncio with pynsq, and starts no loop.

Next: testing/clients/gnsq.py
"""

import asyncio
import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

from nsqlite.errors import InvalidOption, MissingExtra
from nsqlite.message import Message as Delivered
from nsqlite.options import Seconds, as_seconds, nanoseconds, whole
from nsqlite.testing.clients.delivery import ID, PUBLISHED, Answer, Delivery, body_of, checked
from nsqlite.worker.handler import is_coroutine, name_of

try:
    import nsq
    from nsq import event
    from tornado.gen import is_coroutine_function
except ImportError:
    raise MissingExtra("a handler of pynsq", "pynsq", "clients") from None

__all__ = ["Message", "handler", "message"]

_CONNECTION: Final = SimpleNamespace(id="no connection")
"""What the reader's log calls the connection."""

_DELAY: Final = 90.0
"""Seconds that a message waits for each of its attempts, unless its handler says otherwise."""


class Message(nsq.Message):  # type: ignore[misc]  # it has no types
    """A `nsq.Message` that answers no connection, but a message of nsqlite, if there is one.

    Threads: any, one at a time.
    """

    def __init__(
        self,
        id: bytes,  # noqa: A002 - pynsq's
        body: bytes,
        timestamp: int,
        attempts: int,
        given: Delivered[Any] | None = None,
    ) -> None:
        """Make what `message` and `handler` make.

        Args:
            id: 16 hex characters.
            body: what was published.
            timestamp: when, in nanoseconds since the epoch.
            attempts: how often it was delivered, this time counted.
            given: what is answered.
        """
        super().__init__(id, body, timestamp, attempts)
        self._delivery = Delivery(given)
        self._requeue_delay = _DELAY
        self._task: asyncio.Future[Any] | None = None
        self.on(event.FINISH, lambda message: message._delivery.finish())
        self.on(event.REQUEUE, self._on_requeue)
        self.on(event.TOUCH, lambda message: message._delivery.touch())

    @property
    def answer(self) -> Answer:
        """What was answered so far."""
        return self._delivery.answer

    def _on_requeue(
        self,
        message: Any,  # noqa: ARG002 - pynsq's
        backoff: bool = True,  # noqa: FBT002 - pynsq's
        time_ms: Any = -1,
        **_more: object,
    ) -> None:
        """Requeue as a connection of pynsq does."""
        if time_ms < 0:
            time_ms = round(self._requeue_delay * self.attempts * 1000)
        self._delivery.requeue(time_ms, backoff=backoff)


def message(
    body: bytes = b"",
    *,
    attempts: int = 1,
    id: bytes = ID.encode(),  # noqa: A002 - pynsq's
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
    return Message(id, body, timestamp, attempts)


def handler(
    function: Any,
    *,
    max_tries: int = 5,
    requeue_delay: Seconds = _DELAY,
    reader: Any = nsq.Reader,
) -> Callable[[Any], Any]:
    """Return a handler of nsqlite that has pynsq call one of its own.

    It takes what `message` returns as well as a message of nsqlite.  What the handler raises goes
    on, once pynsq has caught it and the message is requeued.  What is answered after the handler
    has ended does not make a worker back off.

    Args:
        function: the `message_handler`: a function, or a coroutine function of asyncio or tornado,
            for which the one that is returned is one, too.
        max_tries: after how many attempts a message is given up; 0 for never.
        requeue_delay: in seconds; as of a connection of pynsq.
        reader: a class of readers, whose `preprocess_message`, `validate_message`,
            `process_message` and `giving_up` are used; its `__init__` is not called.

    Raises:
        InvalidOption: one of them is of the wrong kind or out of its range.
    """
    if not callable(function):
        raise InvalidOption("function", function, "a message_handler of pynsq")
    if not (isinstance(reader, type) and issubclass(reader, nsq.Reader)):
        raise InvalidOption("reader", reader, "a class of nsq.Reader")
    nanoseconds("requeue_delay", requeue_delay)
    awaited = is_coroutine(function) or is_coroutine_function(function)
    client: Any = object.__new__(reader)
    client.name = name_of(function)
    client.max_tries = whole("max_tries", max_tries, 0)
    client.message_handler = functools.partial(_begin if awaited else _call, function)
    client._maybe_update_rdy = lambda _conn: None

    def take(given: Any) -> Message:
        taken = given if isinstance(given, Message) else _taken(given)
        taken._requeue_delay = as_seconds(requeue_delay)
        client._on_message(_CONNECTION, taken)
        return taken

    def handle(given: Any) -> object:
        return take(given)._delivery.result()

    async def handle_async(given: Any) -> object:
        taken = take(given)
        if taken._task is not None:
            try:
                await asyncio.wait([taken._task])
            finally:
                taken._task.cancel()
        return taken._delivery.result()

    return functools.wraps(function)(handle_async if awaited else handle)


def _taken(given: Delivered[Any]) -> Message:
    """Return a message of nsqlite as pynsq's."""
    return Message(given.id.encode(), body_of(given), given.timestamp, given.attempts, given)


def _call(function: Any, taken: Message) -> Any:
    """Call a handler, and keep what it raises, which pynsq only logs."""
    try:
        return function(taken)
    except Exception as error:
        taken._delivery.error = error
        raise


def _begin(function: Any, taken: Message) -> asyncio.Future[Any]:
    """Begin a handler that is awaited."""
    taken._task = asyncio.ensure_future(_call_async(function, taken))
    return taken._task


async def _call_async(function: Any, taken: Message) -> Any:
    """Await a handler, and keep what it raises, of which pynsq says nothing."""
    try:
        return await function(taken)
    except Exception as error:
        taken._delivery.error = error
        raise
