"""What is kept of an error that a handler raised.

The rule: text, of a bounded length.  An exception keeps the frames that it came through, and with
them the message and whatever the handler had; so none is kept as it was.

Next: worker/outcome.py
"""

import traceback
from collections.abc import Iterator
from typing import Any, Final

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


LAST_FRAMES: Final[Any] = BaseException.__dict__["__traceback__"]
"""Sets the frames of an exception that lets nobody set anything, too."""

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
    """Return the last lines of a traceback, as Python shows it, but without the carets.

    To find out where these belong Python 3.11 parses source, which fails now and then where two
    threads do so at a time.
    """
    try:
        lines = "".join(_lines_of(error, set())).splitlines()
    except Exception:  # what an exception of somebody's own does when it is shown
        return ""
    return "\n".join(lines[-MOST_LINES:])[-MOST_TRACEBACK:]


def _lines_of(error: BaseException, seen: set[int]) -> Iterator[str]:
    """Go through the lines of an error, after those of what led to it."""
    seen.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in seen:
        yield from _lines_of(before, seen)
        yield "then:\n"
    frames = [
        (frame.f_code.co_filename, line, frame.f_code.co_name, None)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    if frames:
        yield "Traceback (most recent call last):\n"
        yield from traceback.StackSummary.from_list(frames[-MOST_LINES:]).format()
    yield from traceback.format_exception_only(error)


def strip(error: BaseException) -> None:
    """Have an error, and those that led to it, let go of the frames that they came through."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        LAST_FRAMES.__set__(one, None)
        left += (one.__cause__, one.__context__)
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions
