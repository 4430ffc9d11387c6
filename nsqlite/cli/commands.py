"""The commands of `nsqlite`: one runs an app, most are for a store's file, and some show documents.

The rule: a command that cannot do what it was asked for says so in one line, and has status 1, or 2
where an extra is to be installed first.

Next: the end
"""

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nsqlite.cli.backup import backup
from nsqlite.cli.check import Check
from nsqlite.cli.docs import write_docs
from nsqlite.cli.export import export
from nsqlite.cli.failure import CommandFailed, opened_stdout, read_stdin, say
from nsqlite.cli.lesson import NoSuchLesson, find_lesson, lessons
from nsqlite.cli.load import load
from nsqlite.cli.operate import events, lines_of, operations
from nsqlite.cli.overview import inspect
from nsqlite.cli.run import CODECS, LEVELS, reference, run_app
from nsqlite.cli.story import story
from nsqlite.cli.timeline import LAST, columns, moment, seconds, show, write_page
from nsqlite.errors import RecordingError, StoreError
from nsqlite.store.codec import Coder
from nsqlite.store.controllines import fields_of
from nsqlite.timeline.recording import SMALLEST
from nsqlite.timeline.text import NARROWEST

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
    _add_run(commands)
    commands.add_parser("nsqd", help="Serve NSQ's protocols, as nsqd does; see nsqd --help")
    _add_inspect(commands)
    _add_export(commands)
    _add_import(commands)
    _add_backup(commands)
    _add_operations(commands)
    _add_tail(commands)
    _add_timeline(commands)
    _add_story(commands)
    _add_lesson(commands)
    _add_documents(commands)


def run(options: argparse.Namespace) -> tuple[str, int] | None:
    """Run the command that was parsed.

    Returns:
        None if it is done, else the line that says why not, and the status.

    Raises:
        OSError: stdout cannot be written.
    """
    try:
        options.run(options)
    except CommandFailed as error:
        return str(error), error.status
    except (RecordingError, StoreError) as error:
        return str(error), CommandFailed.status
    return None


def _add(commands: "Commands", name: str, text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name, help=text, description=f"{text}.", add_help=False, allow_abbrev=False
    )
    command.add_argument("-h", "--help", action="help", help="show this help")
    return command


def _add_run(commands: "Commands") -> None:
    text = "Run an app of handlers until SIGINT or SIGTERM"
    command = _add(commands, "run", text)
    command.add_argument(
        "app",
        metavar="MODULE:APP",
        type=reference,
        help="a module of the current directory, or another, and its nsqlite.App, or a function"
        " that returns one",
    )
    command.add_argument("--store", metavar="FILE", help=f"{FILE}; in memory by default")
    command.add_argument(
        "--codec", choices=CODECS, default="json", help="how bodies are written in FILE (json)"
    )
    command.add_argument(
        "--log-level", choices=LEVELS, default="info", help="what is logged to stderr (info)"
    )
    command.add_argument("--record", metavar="RECORDING", help="write what happens to this file")
    command.add_argument(
        "--record-size",
        metavar="MIB",
        type=_mebibytes,
        help="which grows no larger (64)",
    )
    command.set_defaults(run=_run)


def _mebibytes(text: str) -> int:
    """Return a size in bytes; for `argparse`.

    Raises:
        ArgumentTypeError: it is none, or too small.
    """
    try:
        size = round(float(text) * (1 << 20))
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of MiB") from None
    if size < SMALLEST:
        raise argparse.ArgumentTypeError(f"{text!r} is less than {SMALLEST} bytes")
    return size


def _run(options: argparse.Namespace) -> None:
    run_app(
        *options.app,
        store=options.store,
        codec=options.codec,
        log_level=options.log_level,
        record=options.record,
        record_size=options.record_size,
    )


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
    put.add_argument("--json", action="store_true", help="it is JSON, as the handlers expect it")
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


def _add_tail(commands: "Commands") -> None:
    command = _add(commands, "tail", "Show what happens in a file, as it happens in its owner")
    command.add_argument("file", metavar="FILE", help=FILE)
    command.add_argument("topic", metavar="TOPIC", nargs="?", help="of this one; all by default")
    command.add_argument("channel", metavar="CHANNEL", nargs="?", help="of this one alone")
    command.add_argument(
        "--kind", metavar="KIND", action="append", help="of this kind alone; may be given again"
    )
    command.add_argument("--json", action="store_true", help="as a JSON object a line")
    command.set_defaults(run=_tail)


def _tail(options: argparse.Namespace) -> None:
    opened_stdout()
    where = options.topic, options.channel
    for line in events(options.file, *where, options.kind, as_json=options.json):
        say(line)


def _add_timeline(commands: "Commands") -> None:
    command = _add(commands, "timeline", "Show what happened in a program, from its recording")
    command.add_argument("file", metavar="RECORDING", help="what `run --record` has written")
    which = command.add_mutually_exclusive_group()
    which.add_argument(
        "--last", metavar="SECONDS", type=seconds, default=LAST, help="before the last event (60)"
    )
    which.add_argument(
        "--since", metavar="MOMENT", type=moment, help="as 2026-11-28T08:05:00, in UTC"
    )
    command.add_argument("--topic", metavar="TOPIC", help="of this one alone")
    command.add_argument(
        "--run", dest="number", metavar="N", type=int, help="of this run, 1 is the first (the last)"
    )
    how = command.add_mutually_exclusive_group()
    how.add_argument("--html", metavar="OUT", help="write it as a page, a new file")
    how.add_argument("--width", metavar="COLUMNS", type=columns, help="those of the terminal")
    command.set_defaults(run=_timeline)


def _timeline(options: argparse.Namespace) -> None:
    encoding = opened_stdout().encoding or "ascii"
    which = {
        "run": options.number,
        "topic": options.topic,
        "last": options.last,
        "since": options.since,
    }
    if options.html is not None:
        say(write_page(options.file, options.html, **which))
        return
    terminal = max(NARROWEST, shutil.get_terminal_size().columns)
    width = terminal if options.width is None else options.width
    for text in show(options.file, **which, width=width, encoding=encoding):
        say(text)


def _add_story(commands: "Commands") -> None:
    command = _add(commands, "story", "Tell the life of one message, by its id")
    command.add_argument("file", metavar="FILE", help=f"{FILE}, or a recording")
    command.add_argument("id", metavar="ID")
    command.add_argument("--record", metavar="RECORDING", help="what was recorded beside the store")
    command.set_defaults(run=_story)


def _story(options: argparse.Namespace) -> None:
    for line in story(options.file, options.id, options.record):
        say(line)


def _add_operation(
    commands: "Commands", name: str, text: str, run: Callable[[argparse.Namespace], None]
) -> argparse.ArgumentParser:
    """Let a parser know a command for a file, and a topic in it."""
    command = _add(commands, name, text)
    command.add_argument("file", metavar="FILE", help=FILE)
    command.add_argument("topic", metavar="TOPIC")
    command.set_defaults(run=run)
    return command


def _put(options: argparse.Namespace) -> None:
    opened_stdout()
    body = read_stdin() if options.body is None else os.fsencode(options.body)
    bodies = [fields_of(body, Coder(None)) | ({"codec": "json"} if options.json else {})]
    for name in _perform(options, bodies=bodies, delay=options.delay):
        say(name)


def _peek(options: argparse.Namespace) -> None:
    messages = _perform(options, channel=options.channel, count=options.n)
    _show([(None, told) for told in messages], options)


def _find(options: argparse.Namespace) -> None:
    places = _perform(options, id=options.id)
    if not places:
        raise CommandFailed(f"topic {options.topic!r} has no message {options.id}")
    _show(list(places.items()), options)


def _perform(options: argparse.Namespace, **arguments: Any) -> Any:
    """Do to a topic what the command is called, and return its result."""
    with operations(options.file) as perform:
        return perform({"call": options.command, "topic": options.topic, **arguments})


def _show(messages: list[tuple[str | None, dict[str, Any]]], options: argparse.Namespace) -> None:
    for line in lines_of(messages, as_json=options.json):
        say(line)


def _discard(options: argparse.Namespace) -> None:
    if not _perform(options, channel=options.channel, id=options.id):
        where = f"{options.topic}:{options.channel}"
        raise CommandFailed(f"channel {where} has no message {options.id} that is not in flight")


def _redrive(options: argparse.Namespace) -> None:
    opened_stdout()
    count = _perform(options, channel=options.channel)
    say(_counted(count))


def _counted(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"


def _steer(options: argparse.Namespace) -> None:
    opened_stdout()
    count = _perform(options, channel=options.channel)
    if count is not None:
        say(_counted(count))


def _add_lesson(commands: "Commands") -> None:
    text = "Play a lesson step by step in the terminal; without a name, list the lessons"
    command = _add(commands, "lesson", text)
    command.add_argument("name", metavar="NAME", nargs="?", help="its name or its number")
    instead = command.add_mutually_exclusive_group()
    instead.add_argument("--auto", action="store_true", default=None, help="wait for no key")
    instead.add_argument("--html", metavar="OUT", help="write its timeline as a page, a new file")
    instead.add_argument(
        "--exercises", action="store_true", default=None, help="show its exercises instead"
    )
    instead.add_argument(
        "--solution", metavar="N", type=int, help="show and run a solution instead"
    )
    command.set_defaults(run=_lesson)


def _lesson(options: argparse.Namespace) -> None:
    from nsqlite.cli import player  # noqa: PLC0415 - other commands do without

    if options.name is None:
        for option in ("auto", "html", "exercises", "solution"):
            if getattr(options, option) is not None:
                raise NoSuchLesson(f"--{option} is for one lesson: name it")
        player.show_list(lessons())
        return
    lesson = find_lesson(options.name)
    if options.html is not None:
        say(player.write_page(lesson, options.html))
    elif options.exercises:
        player.show_exercises(lesson)
    elif options.solution is not None:
        player.player(sys.stdin, auto=True).solve(lesson.solution(options.solution))
    else:
        player.player(sys.stdin, auto=bool(options.auto)).play(lesson)


def _add_documents(commands: "Commands") -> None:
    text = "Show the guide: what you can do with nsqlite, and what it promises"
    _add(commands, "guide", text).set_defaults(run=_show_document)
    text = "Show what NSQ does, what nsqlite does, and where they differ"
    _add(commands, "semantics", text).set_defaults(run=_show_document)
    text = "Show what is said over TCP by nsqd, by its clients and by nsqlite's server"
    _add(commands, "wire", text).set_defaults(run=_show_document)
    text = "Show what nsqd, and nsqlite's server, answer over HTTP"
    _add(commands, "http", text).set_defaults(run=_show_document)
    text = "Write these documents and the API reference as pages of HTML"
    command = _add(commands, "docs", text)
    command.add_argument(
        "directory",
        metavar="DIR",
        nargs="?",
        default="nsqlite-docs",
        help="empty, new, or written by this command (nsqlite-docs)",
    )
    command.set_defaults(run=_docs)


def _show_document(options: argparse.Namespace) -> None:
    say(files("nsqlite").joinpath(f"{options.command}.md").read_text("utf-8").rstrip())


def _docs(options: argparse.Namespace) -> None:
    opened_stdout()
    count = write_docs(options.directory)
    say(f"{count} pages: open {Path(options.directory) / 'index.html'}")
