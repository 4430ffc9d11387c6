"""What is kept of an error that a handler raised.

The rule: text, of a bounded length.  An exception keeps the frames that it came through, and with
them the message and whatever the handler had; so none is kept as it was.

Next: worker/outcome.py
"""

import traceback
from typing import Final

import attrs

from nsqlite.errors import shown

MOST_TEXT: Final = 1000
"""Characters that are kept of an error's own text."""

MOST_LINES: Final = 20
"""Lines that are kept of a traceback, the last ones."""

MOST_TRACEBACK: Final = 4000
"""Characters that are kept of those lines, the last ones."""


@attrs.frozen
class Failure:
    """An error in words.

    Attributes:
        kind: the name of its class, with its module unless that is `builtins`.
        text: what `str` says of it.
        traceback: the last lines of its traceback.
    """

    kind: str
    text: str
    traceback: str = attrs.field(default="", eq=False)

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.kind, self.text)))


NO_ANSWER: Final = Failure(
    "", "it was not answered: its last delivery timed out, or its process was killed"
)
"""What is known of a message that comes with too many attempts."""


def failure_of(error: BaseException) -> Failure:
    """Return an error in words."""
    kind = type(error)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    try:
        text = str(error)
    except Exception:
        text = shown(error)
    if len(text) > MOST_TEXT:
        text = f"{text[: MOST_TEXT - 3]}..."
    return Failure(f"{module}{kind.__qualname__}", text, _traceback_of(error))


def _traceback_of(error: BaseException) -> str:
    try:
        lines = "".join(traceback.format_exception(error)).splitlines()
    except Exception:  # what an exception of somebody's own does when it is shown
        return ""
    return "\n".join(lines[-MOST_LINES:])[-MOST_TRACEBACK:]


def strip(error: BaseException) -> None:
    """Have an error, and those that led to it, let go of the frames that they came through."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.__traceback__ = None
        left += (one.__cause__, one.__context__)
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions
