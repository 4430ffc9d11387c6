"""One key, without Enter where the terminal can do that.

The rule: however it ends, the terminal is as it was.

Next: cli/player.py
"""

import os
from typing import Final, TextIO

LONGEST: Final = 32
"""How many bytes one key sends at most, as an arrow sends three."""


def read_key(stdin: TextIO) -> str:
    """Wait for a key and return what it stands for; empty at the end of the input.

    Where the terminal knows no single keys it waits for a line, and returns how that begins.

    Args:
        stdin: a terminal.
    """
    try:
        import termios  # noqa: PLC0415 - not every system has it
        import tty  # noqa: PLC0415 - the same
    except ImportError:
        return stdin.readline()[:1]
    number = stdin.fileno()
    before = termios.tcgetattr(number)
    try:
        tty.setcbreak(number, termios.TCSADRAIN)  # what was typed before counts
        sent = os.read(number, LONGEST)
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
    return "" if sent in {b"", b"\x04"} else sent.decode(errors="replace")
