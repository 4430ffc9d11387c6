"""Where in a program things were made, for whoever wants to know, and where its threads are.

The rule: as long as nobody wants to know, nothing is looked up and nothing is kept; and nobody who
does keeps a frame of the program alive by it.

Told of are brokers, topics, consumers, workers, open stores and servers, each when it is made.

Next: ids.py
"""

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, NamedTuple, TypeVar

from nsqlite.lock import make_lock

R = TypeVar("R")

BETWEEN: Final = frozenset({"asyncio", "contextlib", "nsqlite", "threading"})
"""The packages whose code stands between the program and what is made."""


class Place(NamedTuple):
    """A line of a program."""

    path: str
    line: int

    def __str__(self) -> str:
        """Show it as compilers do."""
        return f"{self.path}:{self.line}"


watchers: Final[list[Callable[[Any, Place], object]]] = []
"""Who wants to know: called with what is made, and the program's line that has it made."""


def note(made: object) -> Place | None:
    """Tell of what is made, and return where; None if nobody wants to know.

    What nsqlite makes in a thread of its own was made by no line of the program: it is not told of.
    """
    if not watchers:
        return None
    place = place_of(sys._getframe(1))
    if place is not None:
        for watcher in watchers.copy():
            watcher(made, place)
    return place


def place_of(frame: Any) -> Place | None:
    """Return the program's line in a stack, by its innermost frame; None if it has none."""
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in BETWEEN:
            return Place(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return None


_looking: Final = make_lock(rank=3)  # held by who has the collector wait


def look_at_threads(look: Callable[[dict[int, FrameType]], R]) -> R:
    """Return what a function makes of the frames of all threads, by their numbers.

    No garbage is collected meanwhile: CPython 3.11 hangs or crashes where a collection begins while
    the frames of other threads are being made.

    Args:
        look: takes no lock, and returns soon; it should keep no frame.
    """
    with _looking:
        collects = gc.isenabled()
        gc.disable()
        try:
            return look(sys._current_frames())
        finally:
            if collects:
                gc.enable()


def made_at(place: Place | None) -> str:
    """Return the end of a sentence: where something was made, if that is known."""
    return "" if place is None else f", made at {place}"
