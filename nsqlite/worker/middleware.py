"""What stands around a handler, and two examples of it.

The rule: a middleware is a function that takes the next handler and returns one like it: a plain
function for a plain one, a coroutine function for a coroutine function.

    def quietly(next):
        def handle(message):
            with contextlib.suppress(LookupError):
                return next(message)
        return handle

Next: worker/desk.py
"""

import inspect
import logging
from collections.abc import Callable, Iterable
from functools import partial, wraps
from typing import Any, TypeAlias

from nsqlite.clock import SYSTEM, Clock
from nsqlite.message import Message
from nsqlite.options import SECOND
from nsqlite.worker.verdict import Verdict

Handler: TypeAlias = Callable[[Message[Any]], Any]
"""Works on one message; a coroutine function is awaited."""

Middleware: TypeAlias = Callable[[Handler], Handler]


def is_coroutine(handler: object) -> bool:
    """Return whether a handler is to be awaited: a coroutine function, or an object like one."""
    while isinstance(handler, partial):
        handler = handler.func
    call = getattr(type(handler), "__call__", None)  # noqa: B004 - its kind is asked, not whether
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)


def wrap(handler: Handler, middleware: Iterable[Middleware]) -> Handler:
    """Return a handler with middleware around it, the first one outermost."""
    for around in reversed(list(middleware)):
        handler = around(handler)
    return handler


def logged(logger: logging.Logger, level: int = logging.INFO) -> Middleware:
    """Log each message before and after it is handled.

    Args:
        logger: where.
        level: the level of both records; that of a failure is an error's.
    """

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

    return around


def timed(report: Callable[[Message[Any], float], object], clock: Clock = SYSTEM) -> Middleware:
    """Tell how long each message took, whether it failed or not.

    Args:
        report: called with the message and the seconds.
        clock: what to measure by.
    """

    def around(next: Handler) -> Handler:  # noqa: A002 - the word for it
        begun: dict[Message[Any], int] = {}

        def begin(message: Message[Any]) -> None:
            begun[message] = clock.monotonic_ns()

        def end(message: Message[Any], error: BaseException | None) -> None:  # noqa: ARG001
            report(message, (clock.monotonic_ns() - begun.pop(message)) / SECOND)

        return _between(next, begin, end)

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
