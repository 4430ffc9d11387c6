"""Handlers of ansq 0.3: what they get, and what they do with it.

The rule: an ansq program answers each message itself; nothing is done for it.

    returns without an answer   in flight until it times out
    raises                      goes on to who calls it: a worker tries the message again

It imports aiohttp and asyncio with ansq, and starts no loop.

Next: testing/storagecontract.py
"""

import functools
from collections.abc import Callable
from typing import Any, Final

from nsqlite.errors import InvalidOption, MissingExtra
from nsqlite.message import Message as Delivered
from nsqlite.testing.clients.delivery import ID, PUBLISHED, Answer, Delivery, body_of, checked
from nsqlite.worker.handler import is_coroutine

try:
    from ansq.tcp.types import (
        ConnectionFeatures,
        ConnectionOptions,
        FrameType,
        NSQMessage,
        NSQMessageSchema,
    )
except ImportError:
    raise MissingExtra("a handler of ansq", "ansq", "clients") from None

__all__ = ["Message", "handler", "message"]

_OPTIONS: Final = ConnectionOptions(features=ConnectionFeatures(client_id="", hostname=""))
"""Those of no connection; they tell the message how long it may take."""


class _Connection:
    """What carries the answers of a message of ansq."""

    def __init__(self, delivery: Delivery) -> None:
        self.delivery: Final = delivery
        self.options: Final = _OPTIONS

    async def fin(self, _id: str) -> None:
        self.delivery.finish()

    async def req(self, _id: str, timeout: object) -> None:
        self.delivery.requeue(timeout, backoff=False)

    async def touch(self, _id: str) -> None:
        self.delivery.touch()


class Message(NSQMessage):
    """An `ansq.tcp.types.NSQMessage` that answers no connection, but a message of nsqlite, if any.

    Whether it `is_timed_out` is told by that, not by the time of day.

    Threads: one at a time.
    """

    def __init__(self, schema: NSQMessageSchema, delivery: Delivery) -> None:
        """Make what `message` and `handler` make.

        Args:
            schema: what ansq reads from a connection.
            delivery: what carries its answers.
        """
        super().__init__(schema, _Connection(delivery))  # type: ignore[arg-type]  # all it asks for
        self._delivery = delivery

    @property
    def answer(self) -> Answer:
        """What was answered so far."""
        return self._delivery.answer

    @property
    def is_timed_out(self) -> bool:
        """Whether its time was over before it was answered."""
        return self._delivery.is_timed_out


def message(
    body: bytes = b"",
    *,
    attempts: int = 1,
    id: str = ID,  # noqa: A002 - ansq's
    timestamp: int = PUBLISHED,
    timed_out: bool = False,
) -> Message:
    """Return a message of no broker, for a handler to work on.

    Args:
        body: what was published.
        attempts: how often it was delivered, this time counted.
        id: 16 hex characters.
        timestamp: when it was published, in nanoseconds since the epoch.
        timed_out: whether its time is over already.

    Raises:
        InvalidOption: the body is not of bytes, or the attempts are no whole number from 1 on.
    """
    body, attempts = checked(body, attempts)
    schema = NSQMessageSchema(timestamp, attempts, id.encode(), body, FrameType.MESSAGE)
    return Message(schema, Delivery(None, timed_out=timed_out))


def handler(function: Any) -> Callable[[Any], Any]:
    """Return a handler of nsqlite that calls one of an ansq program.

    It takes what `message` returns as well as a message of nsqlite.  A worker does not back off
    for it, as ansq knows no backoff.

    Args:
        function: a coroutine function of a message, as it is called for each of
            `Reader.messages()`.

    Raises:
        InvalidOption: it is none.
    """
    if not is_coroutine(function):
        raise InvalidOption("function", function, "a coroutine function of a message")

    async def handle(given: Any) -> object:
        taken = given if isinstance(given, Message) else _taken(given)
        await function(taken)
        return taken._delivery.result()

    return functools.wraps(function)(handle)


def _taken(given: Delivered[Any]) -> Message:
    """Return a message of nsqlite as ansq's."""
    body = body_of(given)
    schema = NSQMessageSchema(
        given.timestamp, given.attempts, given.id.encode(), body, FrameType.MESSAGE
    )
    return Message(schema, Delivery(given))
