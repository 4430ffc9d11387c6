"""How far a long command has come, on a terminal.

The rule: it writes to stderr alone, and what is on stdout never depends on it.

It needs `rich`, which nothing else does; without it, or where stderr is no terminal, it is silent.

Next: cli/pages.py
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, TextIO, TypeAlias, cast

from nsqlite.cli.failure import CommandFailed

Tell: TypeAlias = Callable[[int], None]
"""Says that so much more is done."""


@contextmanager
def progress(what: str, unit: str, total: int | None, wanted: bool | None) -> Iterator[Tell]:
    """Show a bar until the end of the block.

    Args:
        what: what is done, in a word or two.
        unit: what is counted.
        total: about how many there are; None if nobody knows.
        wanted: whether to show it; None leaves it to the terminal.

    Raises:
        CommandFailed: it was asked for, and rich is not installed.
    """
    stderr = sys.stderr
    if wanted is False or stderr is None or (wanted is None and not stderr.isatty()):
        yield _be_silent
        return
    try:
        from rich.console import Console  # noqa: PLC0415 - an extra, and slow to load
        from rich.progress import (  # noqa: PLC0415 - the same
            BarColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )
    except ImportError:
        if wanted:
            text = "--progress needs rich, which is not installed: pip install 'nsqlite[cli]'"
            raise CommandFailed(text) from None
        yield _be_silent
        return
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    count = TextColumn(f"{{task.completed:,.0f}} {unit}")
    with Progress(*columns, count, console=Console(file=cast(TextIO, _Unfailing(stderr)))) as bar:
        task = bar.add_task(what, total=total)

        def tell(more: int) -> None:
            bar.advance(task, more)

        yield tell


class _Unfailing:
    """What a bar is written to: nothing fails because nobody can see how far it is."""

    def __init__(self, file: TextIO) -> None:
        """Write to this file."""
        self._file: Final = file
        self.encoding: Final = file.encoding  # what a bar is made of depends on it

    def isatty(self) -> bool:
        """Say whether the file is a terminal."""
        return self._file.isatty()

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(OSError):
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        """Write it now."""
        with suppress(OSError):
            self._file.flush()


def _be_silent(more: int) -> None:
    """Say nothing."""
