"""One key, without Enter where the terminal can do that.

The rule: however it ends, the terminal is as it was.  A shell that goes on with a command it has
stopped leaves the terminal as it likes it; so it is set, and the viewer asked, once more.

Next: cli/player.py
"""

import contextlib
import os
from collections.abc import Callable
from typing import Final, TextIO

from nsqlite.cli.signals import resumed

LONGEST: Final = 32
"""How many bytes one key sends at most, as an arrow sends three."""


def read_key(stdin: TextIO, again: Callable[[], object]) -> str:
    """Wait for a key and return what it stands for; empty at the end of the input.

    Where the terminal knows no single keys it waits for a line, and returns how that begins.

    Args:
        stdin: a terminal.
        again: is called when the process goes on after it was stopped, as with control-Z.
    """
    try:
        import termios  # noqa: PLC0415 - not every system has it
        import tty  # noqa: PLC0415 - the same
    except ImportError:
        return stdin.readline()[:1]
    number = stdin.fileno()
    before = termios.tcgetattr(number)

    def go_on() -> None:
        with contextlib.suppress(termios.error):  # it was stopped again, in the background
            tty.setcbreak(number, termios.TCSADRAIN)
            again()

    try:
        with resumed(go_on):
            tty.setcbreak(number, termios.TCSADRAIN)  # what was typed before counts
            sent = os.read(number, LONGEST)
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
    return "" if sent in {b"", b"\x04"} else sent.decode(errors="replace")
