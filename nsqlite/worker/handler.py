"""A handler, and what can be told of a function before it is called.

The rule: what a function does not tell of itself is no reason to refuse it.

Next: worker/retry.py
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias

from nsqlite.message import Message

Handler: TypeAlias = Callable[[Message[Any]], Any]
"""Works on one message; a coroutine function is awaited."""

ONE_MESSAGE: Final = "a function of one message, no generator"
"""What a handler must be, for an error."""


def is_coroutine(function: object) -> bool:
    """Return whether a function is to be awaited: a coroutine function, or an object like one."""
    return _is_one_of((inspect.iscoroutinefunction,), function)


def is_generator(function: object) -> bool:
    """Return whether a call of a function would only make a generator."""
    return _is_one_of((inspect.isgeneratorfunction, inspect.isasyncgenfunction), function)


def _is_one_of(kinds: tuple[Callable[[object], bool], ...], function: object) -> bool:
    while isinstance(function, partial):
        function = function.func
    call = getattr(type(function), "__call__", None)  # noqa: B004 - its kind is asked, not whether
    return any(kind(function) or kind(call) for kind in kinds)


def accepts(function: Callable[..., object], count: int, *, or_more: bool = False) -> bool:
    """Return whether a function can be called with so many arguments, as far as it tells.

    Args:
        function: what is asked.
        count: how many arguments it is given, without names.
        or_more: whether it may need others besides.
    """
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except Exception:  # some that are written in C tell nothing, nor do annotations out of reach
        return True
    bind = signature.bind_partial if or_more else signature.bind
    try:
        bind(*(None,) * count)
    except TypeError:
        return False
    return True


def is_plain(function: object, count: int) -> bool:
    """Return whether something is a plain function that can be called with so many arguments."""
    is_other = is_coroutine(function) or is_generator(function)
    return callable(function) and not is_other and accepts(function, count)


def name_of(handler: Handler) -> str:
    """Return what a person calls a handler."""
    name: str = getattr(handler, "__qualname__", "") or type(handler).__qualname__
    return name
