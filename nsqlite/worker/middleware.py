"""What stands around a handler, and two examples of it.

The rule: a middleware is a function that takes the next handler and returns one like it: a plain
function for a plain one, a coroutine function for a coroutine function.

    def quietly(next):
        def handle(message):
            with contextlib.suppress(LookupError):
                return next(message)
        return handle

Next: worker/pace.py
"""

import inspect
import logging
from collections.abc import Callable, Iterable
from functools import partial, wraps
from typing import Any, Final, TypeAlias

from nsqlite.clock import SYSTEM, Clock
from nsqlite.errors import InvalidOption
from nsqlite.message import Message
from nsqlite.options import SECOND
from nsqlite.worker.verdict import Verdict

Handler: TypeAlias = Callable[[Message[Any]], Any]
"""Works on one message; a coroutine function is awaited."""

Middleware: TypeAlias = Callable[[Handler], Handler]

_MIDDLEWARE: Final = "_nsqlite_middleware"
"""Marks what is no handler, though it can be called."""


def is_coroutine(handler: object) -> bool:
    """Return whether a handler is to be awaited: a coroutine function, or an object like one."""
    while isinstance(handler, partial):
        handler = handler.func
    call = getattr(type(handler), "__call__", None)  # noqa: B004 - its kind is asked, not whether
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)


def name_of(handler: Handler) -> str:
    """Return what a person calls a handler."""
    name: str = getattr(handler, "__qualname__", "") or type(handler).__qualname__
    return name


def is_generator(handler: object) -> bool:
    """Return whether a call of a handler would only make a generator."""
    while isinstance(handler, partial):
        handler = handler.func
    call = getattr(type(handler), "__call__", None)  # noqa: B004 - its kind is asked, not whether
    kinds = (inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    return any(kind(handler) or kind(call) for kind in kinds)


def wrap(handler: Handler, middleware: Iterable[Middleware]) -> Handler:
    """Return a handler with middleware around it, the first one outermost.

    Raises:
        InvalidOption: it is not several functions, or one of them returns no handler.
    """
    given: Any = middleware
    if callable(given) or not isinstance(given, Iterable):
        raise InvalidOption("middleware", given, "several functions of a handler")
    for around in reversed(list(given)):
        if not callable(around):
            raise InvalidOption("middleware", around, "a function of a handler")
        made: Any = around(handler)
        if not callable(made) or hasattr(made, _MIDDLEWARE):
            raise InvalidOption("middleware", around, "a function that returns a handler")
        handler = made
    return handler


def logged(
    logger: logging.Logger | logging.LoggerAdapter[Any], level: int = logging.INFO
) -> Middleware:
    """Log each message before and after it is handled.

    Args:
        logger: where; an adapter is as good.
        level: the level of both records; that of a failure is an error's.

    Raises:
        InvalidOption: the logger is none.
    """
    if not isinstance(logger, logging.Logger | logging.LoggerAdapter):
        raise InvalidOption("logger", logger, "a logging.Logger")

    def around(next: Handler) -> Handler:  # noqa: A002 - the word for it
        def begin(message: Message[Any]) -> None:
            logger.log(level, "message %s, attempt %d", message.id, message.attempts)

        def end(message: Message[Any], error: BaseException | None) -> None:
            if error is None:
                logger.log(level, "message %s is handled", message.id)
            elif isinstance(error, Verdict):
                logger.log(level, "message %s is decided: %s", message.id, error)
            else:
                logger.error("message %s failed: %r", message.id, error)

        return _between(next, begin, end)

    setattr(around, _MIDDLEWARE, True)
    return around


def timed(report: Callable[[Message[Any], float], object], clock: Clock = SYSTEM) -> Middleware:
    """Tell how long each message took, whether it failed or not.

    Args:
        report: called with the message and the seconds.
        clock: what to measure by.

    Raises:
        InvalidOption: the report is no function.
    """
    if not callable(report):
        raise InvalidOption("report", report, "a function of a message and seconds")

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
