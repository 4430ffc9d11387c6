"""What a command prints and writes, and what ends it: one line for the user, and status 1.

The rule: what a user can mend is told in a line that says how, and never with a traceback.

Next: cli/signals.py
"""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


class CommandFailed(Exception):
    """A command cannot do what it was asked for; its text is the line.

    Attributes:
        status: the status that the program has then.
    """

    status = 1


class WrongCall(CommandFailed):
    """The options of a command do not go together; nothing was done."""

    status = 2


class NotInstalled(CommandFailed):
    """What a command needs is an extra that is not installed; nothing was done."""

    status = 2


def why(error: OSError) -> str:
    """Return what the system said, in words."""
    return error.strerror or str(error)


def opened_stdout() -> TextIO:
    """Return stdout.

    Raises:
        OSError: the program was started with a closed one.
    """
    if sys.stdout is None:
        raise OSError(errno.EBADF, "stdout is closed")
    return sys.stdout


def read_stdin() -> bytes:
    """Return all of stdin.

    Raises:
        CommandFailed: the program was started with a closed one, or it cannot be read.
    """
    if sys.stdin is None:
        raise CommandFailed("stdin is closed")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise CommandFailed(f"stdin cannot be read: {why(error)}") from None


@contextmanager
def new_file(path: str, encoding: str) -> Iterator[TextIO]:
    """Open a file that is not there yet, and remove it if it does not become whole.

    Raises:
        CommandFailed: it has no name, is there already, or cannot be written.
    """
    if not path:
        raise CommandFailed("no file name was given")
    try:
        with Path(path).open("x", encoding=encoding) as file:
            try:
                yield file
                file.flush()
            except BaseException:
                Path(path).unlink(missing_ok=True)
                raise
    except FileExistsError:
        raise CommandFailed(f"{path} is there already: remove it, or name another one") from None
    except OSError as error:
        raise CommandFailed(f"cannot write {path}: {why(error)}") from None


def say(text: str) -> None:
    """Print a line or several; a character that stdout's encoding lacks is printed as an escape.

    Raises:
        OSError: stdout is closed, or cannot be written.
    """
    out = opened_stdout()
    try:
        print(text, file=out, flush=True)
    except UnicodeEncodeError as error:
        escaped = text.encode(error.encoding, "backslashreplace").decode(error.encoding)
        print(escaped, file=out, flush=True)
