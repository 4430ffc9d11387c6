"""One key: from a terminal without Enter, and the terminal is as it was."""

import io
import os
import pty
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from typing import TextIO

import pytest

from nsqlite.cli.keyboard import read_key


def nobody() -> None:
    raise AssertionError("it was not stopped")


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
    assert expected == read_key(stdin, nobody)
    assert before == termios.tcgetattr(stdin.fileno())


def test_a_line_is_read_where_there_are_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without termios it reads a line and returns how that begins; at the end it is empty."""
    monkeypatch.setitem(sys.modules, "termios", None)
    stdin = io.StringIO("quit\n\n")
    assert ["q", "\n", ""] == [read_key(stdin, nobody) for _ in range(3)]


def test_a_stopped_process_goes_on(
    terminal: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After control-Z and fg the terminal is set again, and whoever asks is called to ask again."""
    master, stdin = terminal
    before = termios.tcgetattr(stdin.fileno())
    found = []
    read = os.read

    def ask_again() -> None:
        found.append(termios.tcgetattr(stdin.fileno())[3] & (termios.ICANON | termios.ECHO))
        os.write(master, b"x")

    def stopped(number: int, count: int) -> bytes:
        termios.tcsetattr(number, termios.TCSADRAIN, before)  # as a shell has it
        signal.raise_signal(signal.SIGCONT)
        return read(number, count)

    monkeypatch.setattr(os, "read", stopped)
    assert "x" == read_key(stdin, ask_again)
    assert [0] == found
    assert before == termios.tcgetattr(stdin.fileno())
    assert signal.SIG_DFL is signal.getsignal(signal.SIGCONT)


def test_a_process_that_goes_on_in_the_background(
    terminal: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the terminal may not be set when the process goes on, nobody asks."""
    master, stdin = terminal
    read, set_cbreak = os.read, tty.setcbreak
    failing: list[bool] = []

    def set_once(number: int, when: int) -> None:
        if failing:
            raise termios.error(4, "Interrupted system call")
        failing.append(True)
        set_cbreak(number, when)

    def stopped(number: int, count: int) -> bytes:
        signal.raise_signal(signal.SIGCONT)
        os.write(master, b"x")
        return read(number, count)

    monkeypatch.setattr(os, "read", stopped)
    monkeypatch.setattr(tty, "setcbreak", set_once)
    assert "x" == read_key(stdin, nobody)
