"""What stands around a handler, and two examples of it.

The rule: a middleware is a function that takes the next handler and returns one like it: a plain
function for a plain one, a coroutine function for a coroutine function.

    def quietly(next):
        def handle(message):
            with contextlib.suppress(LookupError):
                return next(message)
        return handle

Next: worker/plan.py
"""

import logging
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, Final, TypeAlias

from nsqlite.clock import SYSTEM, Clock, checked_clock
from nsqlite.errors import InvalidOption
from nsqlite.message import Message
from nsqlite.options import SECOND, whole
from nsqlite.worker.handler import ONE_MESSAGE, Handler, accepts, is_coroutine
from nsqlite.worker.outcome import Outcome

Middleware: TypeAlias = Callable[[Handler], Handler]
"""Takes a handler and returns one that calls it, and does something before or after."""

_MIDDLEWARE: Final = "_nsqlite_middleware"
"""Marks what is no handler, though it can be called."""


def wrap(handler: Handler, middleware: Iterable[Middleware]) -> Handler:
    """Return a handler with middleware around it, the first one outermost.

    Raises:
        InvalidOption: it is not several functions, one of them returns no handler, or nothing is
            around a handler that needs more than a message.
    """
    given: Any = middleware
    if callable(given) or not isinstance(given, Iterable):
        raise InvalidOption("middleware", given, "several functions of a handler")
    wrong = InvalidOption("handler", handler, ONE_MESSAGE)
    for around in reversed(list(given)):
        if not callable(around) or not accepts(around, 1):
            raise InvalidOption("middleware", around, "a function of a handler")
        wrong = InvalidOption("middleware", around, "a function that returns a handler")
        made: Any = around(handler)
        if not callable(made) or hasattr(made, _MIDDLEWARE):
            raise wrong
        handler = made
    if not accepts(handler, 1):
        raise wrong
    return handler


def logged(
    logger: logging.Logger | logging.LoggerAdapter[Any], level: int = logging.INFO
) -> Middleware:
    """Log each message before and after it is handled.

    Args:
        logger: where; an adapter is as good.
        level: the level of both records; that of a failure is an error's.

    Raises:
        InvalidOption: the logger is none, or the level no number.
    """
    if not isinstance(logger, logging.Logger | logging.LoggerAdapter):
        raise InvalidOption("logger", logger, "a logging.Logger")
    whole("level", level, 0)

    def around(next: Handler) -> Handler:  # noqa: A002 - the word for it
        def begin(message: Message[Any]) -> None:
            logger.log(level, "message %s, attempt %d", message.id, message.attempts)

        def end(message: Message[Any], error: BaseException | None) -> None:
            if error is None:
                logger.log(level, "message %s is handled", message.id)
            elif isinstance(error, Outcome):
                logger.log(level, "message %s is decided: %s", message.id, error)
            else:
                logger.error("message %s failed: %r", message.id, error)

        return _between(next, begin, end)

    setattr(around, _MIDDLEWARE, True)
    return around


def timed(report: Callable[[Message[Any], float], object], clock: Clock = SYSTEM) -> Middleware:
    """Tell how long each message took, whether it failed or not.

    Args:
        report: a plain function, called with the message and the seconds.
        clock: what to measure by.

    Raises:
        InvalidOption: the report is no plain function, or the clock none.
    """
    given: object = report
    if not callable(given) or is_coroutine(given):
        raise InvalidOption("report", given, "a function of a message and seconds")
    clock = checked_clock(clock)

    def around(next: Handler) -> Handler:  # noqa: A002 - the word for it
        begun: dict[Message[Any], int] = {}

        def begin(message: Message[Any]) -> None:
            begun[message] = clock.monotonic_ns()

        def end(message: Message[Any], error: BaseException | None) -> None:  # noqa: ARG001 - an end's
            report(message, (clock.monotonic_ns() - begun.pop(message)) / SECOND)

        return _between(next, begin, end)

    setattr(around, _MIDDLEWARE, True)
    return around


def _between(
    handler: Handler,
    begin: Callable[[Message[Any]], None],
    end: Callable[[Message[Any], BaseException | None], None],
) -> Handler:
    """Return a handler of the same kind that calls a function before and one after it."""

    @wraps(handler)
    def handle(message: Message[Any]) -> Any:
        begin(message)
        try:
            result = handler(message)
        except BaseException as error:
            end(message, error)
            raise
        end(message, None)
        return result

    @wraps(handler)
    async def handle_async(message: Message[Any]) -> Any:
        begin(message)
        try:
            result = await handler(message)
        except BaseException as error:
            end(message, error)
            raise
        end(message, None)
        return result

    return handle_async if is_coroutine(handler) else handle
