"""`nsqlite`, or `python -m nsqlite`: a demonstration, an app run, commands for a store's file.

The rule: bad arguments get one line and status 2, and a reader who has seen enough may leave.

Next: cli/__init__.py
"""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn, TextIO

from nsqlite import __version__
from nsqlite.cli.failure import say, why
from nsqlite.cli.nsqd import run_nsqd
from nsqlite.cli.signals import Ended, caught

INTERRUPTED: Final = 130
"""The status of what SIGINT has ended, as shells have it."""


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        """End the program with status 2."""
        self.exit(2, f"{self.prog}: {message}; try --help\n")

    def print_help(self, file: object = None) -> None:  # noqa: ARG002 - it is stdout
        """Print how it is called; what cannot be written is an error here as anywhere."""
        say(self.format_help().rstrip())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    Args:
        arguments: those of the command line by default.

    Raises:
        SystemExit: the arguments are wrong; the status is 2.
    """
    parser = Parser(
        prog=_called(),
        description="Without a command: show what nsqlite does, by six messages and their fate.",
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("-h", "--help", action="store_true", help="show this help")
    parser.add_argument("--version", action="store_true", help="show the version")
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        try:
            if given[:1] == ["nsqd"]:  # its flags are Go's, and it sees to signals itself
                return run_nsqd(given[1:])
            with caught():
                return _perform(parser, given)
        except Ended as ended:
            ended.end()
        except KeyboardInterrupt:
            _discard(sys.stdout)  # who has interrupted it does not wait for a reader
            return INTERRUPTED
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        pass  # nobody reads any more
    except OSError as error:
        parser.exit(1, f"{parser.prog}: cannot write: {why(error)}\n")
    finally:
        _discard_unwritable(sys.stdout)
        _discard_unwritable(sys.stderr)
    return 0


def _called() -> str:
    """Return how this was called: by the command that is installed, or with -m."""
    name = Path(sys.argv[0]).stem  # without .exe
    return "nsqlite" if name == "nsqlite" else "python -m nsqlite"


def _perform(parser: Parser, given: list[str]) -> int:
    """Do what was asked for, and return the exit status."""
    from nsqlite.cli.commands import add_commands, run  # noqa: PLC0415 - a server starts without

    add_commands(parser)
    options = parser.parse_args(given)
    lines: Iterable[str]
    if options.help:
        lines = [parser.format_help().rstrip()]
    elif options.version:
        lines = [f"nsqlite {__version__}"]
    elif options.command is not None:
        problem = run(options)
        if problem is not None:
            text, status = problem
            line = text.replace("\n", "\\n")  # as a file's name may have
            parser.exit(status, f"{parser.prog} {options.command}: {line}\n")
        return 0
    else:
        from nsqlite.cli.demo import tell  # noqa: PLC0415 - loads what is for tests

        lines = tell()
    for line in lines:
        say(line)
    return 0


def _discard_unwritable(stream: TextIO | None) -> None:
    """Let what a stream cannot write go nowhere, else Python tries it again as it ends, and fails.

    Args:
        stream: stdout or stderr; None if it is closed.
    """
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        _discard(stream)


def _discard(stream: TextIO | None) -> None:
    """Let what is written to a stream go nowhere from now on, and what it has not written yet.

    Args:
        stream: stdout or stderr; None if it is closed.
    """
    if stream is None:
        return
    with suppress(OSError):  # it is no file
        number = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
