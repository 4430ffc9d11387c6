"""The commands of `python -m nsqlite`: four for a store's file, and one that shows a document.

The rule: a command that cannot do what it was asked for says so in one line, and has status 1.

Next: the end
"""

import argparse
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from nsqlite.cli.backup import backup
from nsqlite.cli.check import Check
from nsqlite.cli.export import export
from nsqlite.cli.failure import CommandFailed, opened_stdout, say
from nsqlite.cli.load import load
from nsqlite.cli.overview import inspect
from nsqlite.errors import StoreError

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

FILE: Final = "the file of a broker's store"


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Let a parser know the commands; `run` is what a parsed one does."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    _add_inspect(commands)
    _add_export(commands)
    _add_import(commands)
    _add_backup(commands)
    _add_semantics(commands)


def run(options: argparse.Namespace) -> str | None:
    """Run the command that was parsed.

    Returns:
        None if it is done, else the line that says why not.

    Raises:
        OSError: stdout cannot be written.
    """
    try:
        options.run(options)
    except (CommandFailed, StoreError) as error:
        return str(error)
    return None


def _add(commands: "Commands", name: str, text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name, help=text, description=f"{text}.", add_help=False, allow_abbrev=False
    )
    command.add_argument("-h", "--help", action="help", help="show this help")
    return command


def _add_progress(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show how far it is; by default if stderr is a terminal and rich is installed",
    )


def _add_inspect(commands: "Commands") -> None:
    command = _add(commands, "inspect", "Show what is in a file, also while it is in use")
    command.add_argument("file", metavar="FILE", help=FILE)
    instead = command.add_mutually_exclusive_group()
    instead.add_argument("--json", action="store_true", help="as one JSON object")
    instead.add_argument(
        "--check", action="store_true", help="read all of it, and show what is damaged instead"
    )
    command.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> None:
    if options.check:
        _check(options.file)
        return
    for line in inspect(options.file, as_json=options.json):
        say(line)


def _check(path: str) -> None:
    """Say what is damaged.

    Raises:
        CommandFailed: something is.
    """
    with Check(path) as checked:
        is_whole = True
        for problem in checked.problems():
            is_whole = False
            say(problem)
        if not is_whole:
            raise CommandFailed(f"{path} is damaged: restore it from a backup")
        say(f"no damage found; {checked.messages} messages, {checked.unknown} without a checksum")


def _add_export(commands: "Commands") -> None:
    command = _add(commands, "export", "Write a file as lines of JSON, also while it is in use")
    command.add_argument("file", metavar="FILE", help=FILE)
    command.add_argument("-o", "--out", metavar="OUT", help="a new file; stdout by default")
    _add_progress(command)
    command.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> None:
    export(options.file, options.out, wanted=options.progress)


def _add_import(commands: "Commands") -> None:
    command = _add(commands, "import", "Read lines of JSON into a file, new or not in use")
    command.add_argument("file", metavar="FILE", help=FILE)
    command.add_argument("-i", "--in", dest="source", metavar="IN", help="stdin by default")
    _add_progress(command)
    command.set_defaults(run=_import)


def _import(options: argparse.Namespace) -> None:
    opened_stdout()  # nothing is imported of which nothing could be said
    loaded = load(options.file, options.source, wanted=options.progress)
    say(f"{loaded.topics} topics, {loaded.channels} channels, {loaded.messages} messages")


def _add_backup(commands: "Commands") -> None:
    command = _add(commands, "backup", "Copy a file, also while it is in use")
    command.add_argument("file", metavar="FILE", help=FILE)
    command.add_argument("copy", metavar="COPY", help="a new file")
    _add_progress(command)
    command.set_defaults(run=_backup)


def _backup(options: argparse.Namespace) -> None:
    size = backup(options.file, options.copy, wanted=options.progress)
    say(f"{size} bytes")


def _add_semantics(commands: "Commands") -> None:
    text = "Show what NSQ does, what nsqlite does, and where they differ"
    _add(commands, "semantics", text).set_defaults(run=_semantics)


def _semantics(_options: argparse.Namespace) -> None:
    say(files("nsqlite").joinpath("semantics.md").read_text("utf-8").rstrip())
