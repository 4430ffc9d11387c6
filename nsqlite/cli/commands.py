"""The commands of `python -m nsqlite`: those for a store's file, and one that shows a document.

The rule: a command that cannot do what it was asked for says so in one line, and has status 1.

Next: the end
"""

import argparse
import os
from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from nsqlite.cli.backup import backup
from nsqlite.cli.check import Check
from nsqlite.cli.export import export
from nsqlite.cli.failure import CommandFailed, opened_stdout, read_stdin, say
from nsqlite.cli.load import load
from nsqlite.cli.operate import lines_of, operator
from nsqlite.cli.overview import inspect
from nsqlite.errors import StoreError
from nsqlite.stats import MessageInfo

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

FILE: Final = "the file of a broker's store"

STEERING: Final = {
    "empty": "Drop all messages of a channel, or those that a topic holds itself",
    "pause": "Have a channel, or a topic, deliver nothing until it is unpaused",
    "unpause": "Have a channel, or a topic, go on",
    "delete": "Delete a channel, or a topic with its channels, and all that is in it",
}
"""What is done to a topic or channel as a whole."""


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Let a parser know the commands; `run` is what a parsed one does."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    _add_inspect(commands)
    _add_export(commands)
    _add_import(commands)
    _add_backup(commands)
    _add_operations(commands)
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


def _add_operations(commands: "Commands") -> None:
    put = _add_operation(commands, "put", "Put a message into a topic, and print its id", _put)
    put.add_argument("body", metavar="BODY", nargs="?", help="its body; stdin by default")
    put.add_argument("--delay", metavar="SECONDS", type=float, help="deliver it so much later")
    peek = _add_operation(commands, "peek", "Show the first messages of a channel", _peek)
    peek.add_argument("channel", metavar="CHANNEL")
    peek.add_argument("-n", metavar="COUNT", type=int, default=10, help="how many (10)")
    find = _add_operation(commands, "find", "Show where a message is, by its id", _find)
    find.add_argument("id", metavar="ID")
    for command in (peek, find):
        command.add_argument("--json", action="store_true", help="as a JSON object a line")
    discard = _add_operation(commands, "discard", "Take a message out of a channel", _discard)
    discard.add_argument("channel", metavar="CHANNEL")
    discard.add_argument("id", metavar="ID")
    text = "Put dead letters back into the channels where they failed"
    _add_operation(commands, "redrive", text, _redrive).add_argument("channel", metavar="CHANNEL")
    for name, text in STEERING.items():
        command = _add_operation(commands, name, text, _steer)
        command.add_argument("channel", metavar="CHANNEL", nargs="?", help="the topic by default")


def _add_operation(
    commands: "Commands", name: str, text: str, run: Callable[[argparse.Namespace], None]
) -> argparse.ArgumentParser:
    """Let a parser know a command for a file that is not in use."""
    command = _add(commands, name, f"{text}; the file is not in use")
    command.add_argument("file", metavar="FILE", help=FILE)
    command.add_argument("topic", metavar="TOPIC")
    command.set_defaults(run=run)
    return command


def _put(options: argparse.Namespace) -> None:
    opened_stdout()
    body = read_stdin() if options.body is None else os.fsencode(options.body)
    with operator(options.file) as found:
        name = found.put(options.topic, body, options.delay)
    say(name)


def _peek(options: argparse.Namespace) -> None:
    with operator(options.file) as found:
        messages = found.peek(options.topic, options.channel, options.n)
    _show([(None, info) for info in messages], options)


def _find(options: argparse.Namespace) -> None:
    with operator(options.file) as found:
        places = found.find(options.topic, options.id)
    _show(list(places.items()), options)


def _show(messages: list[tuple[str | None, MessageInfo]], options: argparse.Namespace) -> None:
    for line in lines_of(messages, as_json=options.json):
        say(line)


def _discard(options: argparse.Namespace) -> None:
    with operator(options.file) as found:
        found.discard(options.topic, options.channel, options.id)


def _redrive(options: argparse.Namespace) -> None:
    opened_stdout()
    with operator(options.file) as found:
        count = found.redrive(options.topic, options.channel)
    say(f"{count} messages")


def _steer(options: argparse.Namespace) -> None:
    opened_stdout()
    with operator(options.file) as found:
        count = getattr(found.place(options.topic, options.channel), options.command)()
    if count is not None:
        say(f"{count} messages")


def _add_semantics(commands: "Commands") -> None:
    text = "Show what NSQ does, what nsqlite does, and where they differ"
    _add(commands, "semantics", text).set_defaults(run=_semantics)


def _semantics(_options: argparse.Namespace) -> None:
    say(files("nsqlite").joinpath("semantics.md").read_text("utf-8").rstrip())
