"""One key: from a terminal without Enter, and the terminal is as it was."""

import io
import os
import pty
import sys
import termios
import tty
from collections.abc import Iterator
from typing import TextIO

import pytest

from nsqlite.cli.keyboard import read_key


@pytest.fixture
def terminal() -> Iterator[tuple[int, TextIO]]:
    """Return a terminal: what types into it, and what a program reads."""
    master, slave = pty.openpty()
    with os.fdopen(slave, encoding="utf-8") as stdin:
        yield master, stdin
    os.close(master)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [(b" ", " "), (b"q", "q"), (b"\n", "\n"), (b"\x1b[C", "\x1b[C"), (b"\x04", "")],
    ids=["space", "q", "enter", "arrow", "control-d"],
)
def test_a_key_is_read_without_enter(
    terminal: tuple[int, TextIO], typed: bytes, expected: str
) -> None:
    """A key is read as soon as it comes, an arrow as one, and the terminal is as it was."""
    master, stdin = terminal
    tty.setcbreak(stdin.fileno())  # as it was typed before anybody reads
    before = termios.tcgetattr(stdin.fileno())
    os.write(master, typed)
    assert expected == read_key(stdin)
    assert before == termios.tcgetattr(stdin.fileno())


def test_a_line_is_read_where_there_are_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without termios it reads a line and returns how that begins; at the end it is empty."""
    monkeypatch.setitem(sys.modules, "termios", None)
    stdin = io.StringIO("quit\n\n")
    assert ["q", "\n", ""] == [read_key(stdin) for _ in range(3)]
