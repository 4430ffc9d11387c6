"""What a daemon shows of its own inside under `/debug/pprof/`: threads, tasks, and memory.

The rule: it names modules, functions and lines, and no file of this machine; and it never waits.

Go's profiler has pages under the same names.  Those for which Python has nothing that costs a
daemon nothing say so.

Next: server/web.py
"""

import asyncio
import gc
import re
import sys
import threading
import tracemalloc
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Final

from nsqlite.origin import look_at_threads
from nsqlite.server.stats import memory
from nsqlite.wire.go import quoted

PAGES: Final = {
    "cmdline": "the name of the program",
    "symbol": "how many symbols of Go there are: none",
    "goroutine": "the stack of every thread, and of every task of this loop",
    "threadcreate": "the names of the threads",
    "heap": "memory, and who has asked for most of it, where tracemalloc traces it",
    "block": "nothing: Python does not measure how long threads block",
    "profile": "nothing: a profiler from outside, as py-spy, costs the daemon less",
}
"""The pages, and what each shows."""

LINES: Final = 50
"""How many lines of a program are told that have asked for memory."""

_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_BITS: Final = 63


def index() -> str:
    """Return the list of the pages."""
    lines = [f"{name:<12} {what}\n" for name, what in sorted(PAGES.items())]
    return "".join(["/debug/pprof/\n\n", *lines])


def cmdline() -> str:
    """Return the program's name; what it was called with may be secret."""
    return Path(sys.argv[0]).name


def symbol() -> str:
    """Return what Go's tools ask for before they look up symbols: that there are none."""
    return "num_symbols: 0\n"


def nothing() -> str:
    """Return that there is nothing to be shown."""
    return "Python has nothing to show here: see /debug/pprof/\n"


def stacks() -> str:
    """Return where every thread and every task of the running loop is, the innermost call first."""
    parts = look_at_threads(_threads)
    for task in sorted(asyncio.all_tasks(), key=asyncio.Task.get_name):
        inner = list(_awaited(task.get_coro()))
        parts.append(_stack(f"task {task.get_name()}", reversed(inner)))
    return "\n".join(parts)


def _threads(frames: dict[int, FrameType]) -> list[str]:
    return [
        _stack(f"thread {thread.name}", _callers(frames.get(thread.ident or 0)))
        for thread in threading.enumerate()
    ]


def _stack(title: str, frames: Iterable[FrameType]) -> str:
    """Return a stack, a line for each call."""
    return "".join([f"{title}\n", *(f"    {_place(frame)}\n" for frame in frames)])


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    """Go from a call to its callers."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _awaited(coroutine: Any) -> Iterator[FrameType]:
    """Go from a coroutine to those that it awaits."""
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        yield frame
        coroutine = coroutine.cr_await


def _place(frame: FrameType) -> str:
    """Return where a call is."""
    module = frame.f_globals.get("__name__", "?")
    return f"{module}.{frame.f_code.co_qualname}:{frame.f_lineno}"


def threads() -> str:
    """Return the names of the threads."""
    return "".join(f"{thread.name}\n" for thread in threading.enumerate())


def heap() -> str:
    """Return how much memory there is, and which lines of the program have asked for most of it."""
    lines = [f"{name:<25}\t{value}\n" for name, value in memory().items()]
    if not tracemalloc.is_tracing():
        lines.append("\nNobody traces memory: start Python with -X tracemalloc for more.\n")
        return "".join(lines)
    lines.append("\n")
    found = tracemalloc.take_snapshot().statistics("lineno")
    modules = _modules()
    for one in found[:LINES]:
        place = one.traceback[0]
        module = modules.get(place.filename, Path(place.filename).name)
        lines.append(f"{one.size:>12} bytes {one.count:>8} blocks  {module}:{place.lineno}\n")
    return "".join(lines)


def _modules() -> Mapping[str, str]:
    """Return the names of all modules by their files."""
    modules = sys.modules.copy()
    return {str(getattr(one, "__file__", None)): name for name, one in modules.items()}


def checked_rate(text: str) -> None:
    """Check what was given as the rate of Go's block profile; nothing comes of it here.

    Raises:
        ValueError: it is no integer, in the words of Go's `strconv.Atoi`.
    """
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"strconv.Atoi: parsing {quoted(text)}: invalid syntax")
    digits = text.lstrip("+-0")
    limit = (1 << _BITS) - (0 if text[0] == "-" else 1)
    if len(digits) > len(str(limit)) or int(digits or 0) > limit:
        raise ValueError(f"strconv.Atoi: parsing {quoted(text)}: value out of range")


def free_memory() -> None:
    """Collect what is garbage."""
    gc.collect()
