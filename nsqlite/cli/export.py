"""`python -m nsqlite export`: a store's file as lines of JSON.

The rule: what is written is whole or without its last line; it is never all in memory, and a reader
who takes long disturbs nobody who has the file.

What was finished while it was exported may be missing, and what was put meanwhile is; see
`nsqlite.cli.pages`.

Next: cli/backup.py
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Final, TextIO

from nsqlite.cli.failure import new_file, opened_stdout
from nsqlite.cli.lines import ChannelLine, EndLine, HeaderLine, Line, TopicLine, to_text
from nsqlite.cli.pages import Pages
from nsqlite.cli.progress import Tell, progress

STEP: Final = 1000
"""After so many lines the bar moves."""


def export(path: str, out: str | None, *, wanted: bool | None) -> None:
    """Write what is in a file.

    Args:
        path: the file.
        out: where to write; a file that is there already is left alone.  None for stdout.
        wanted: whether to show how far it is; None leaves it to the terminal.

    Raises:
        CommandFailed: it cannot be written; what was written of `out` is removed.
        StoreError: the file cannot be read; the same.
        OSError: stdout cannot be written.
    """
    with Pages(path) as pages, _opened(out) as file:
        about = sum(
            topic.stored.held + max((channel.held for channel in topic.channels), default=0)
            for topic in pages.topics
        )
        with progress("export", "lines", about, wanted) as tell:
            _write(lines(pages), file, tell)


def _write(all_lines: Iterator[Line], file: TextIO, tell: Tell) -> None:
    """Write lines, and tell how many."""
    count = 0
    for count, line in enumerate(all_lines, 1):
        file.write(f"{to_text(line)}\n")
        if count % STEP == 0:
            tell(STEP)
    tell(count % STEP)


def lines(pages: Pages) -> Iterator[Line]:
    """Go through the lines of an export."""
    yield HeaderLine()
    for topic in pages.topics:
        yield TopicLine(topic.stored.name, topic.stored.paused)
        for channel in topic.channels:
            yield ChannelLine(topic.stored.name, channel.name, channel.paused)
        yield from pages.messages(topic)
    yield EndLine()


def _opened(out: str | None) -> AbstractContextManager[TextIO]:
    """Open what is written to."""
    return nullcontext(opened_stdout()) if out is None else new_file(out, "ascii")
