"""What an operator does to a file: look at messages, put, move, drop, pause; and follow events.

The rule: whoever owns the file does it, asked through its control socket; where nobody owns it, a
broker of our own does, for as long as the command takes.  Nothing is made that is not there, but a
message.

Next: cli/export.py
"""

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final, TypeAlias

from nsqlite.broker import Broker
from nsqlite.cli.failure import CommandFailed
from nsqlite.errors import NoOwner, NSQLiteError, StoreError, StoreInUse
from nsqlite.store.attach import Attached, attach
from nsqlite.store.backup import require_file
from nsqlite.store.codec import Coder, checked_codec
from nsqlite.store.operations import Operations
from nsqlite.store.sqlite import SQLite

PATIENCE: Final = 1.0
"""Seconds to wait for another command, or a new owner, that has the file."""

JSON: Final = Coder(checked_codec("json"))
"""What makes bodies for a broker of our own; those of other codecs stay as they are."""

SHOWN: Final = 60
"""Characters of a body that are shown in a line."""

Perform: TypeAlias = Callable[[Mapping[str, Any]], Any]
"""Does what a request asks for, and returns its result; see `store.operations.Operations`."""


@contextmanager
def operations(path: str) -> Iterator[Perform]:
    """Have a file acted on, which must be there: by its owner if it has one, else here.

    Raises:
        StoreInUse: it has an owner, which does not listen.
        StoreError: it cannot be opened, read or written, or its owner does not answer.
        CommandFailed: a call of the block was refused; the text tells why.
    """
    require_file(path)
    with attach(path) as attached, _telling(), ExitStack() as stack:
        try:
            attached.connect()
        except NoOwner:
            try:
                broker = stack.enter_context(
                    Broker(store=SQLite(path, wait=PATIENCE, codec="json"))
                )
            except StoreInUse as error:
                _ask_again(attached, error)
            else:
                yield Operations(lambda: broker, JSON).perform
                return
        yield attached.perform


def _ask_again(attached: Attached, in_use: StoreInUse) -> None:
    """Check that the owner of a file answers, as one that has come meanwhile.

    Raises:
        StoreInUse: it does not; the text tells why, or how it could be asked.
    """
    try:
        attached.connect()
    except NoOwner as error:
        problem = f"{in_use.problem}; it cannot be asked: {error.problem}"
        raise StoreInUse(in_use.where, in_use.pid, problem) from None


@contextmanager
def _telling() -> Iterator[None]:
    """Tell of what was refused in a line."""
    try:
        yield
    except StoreError:
        raise
    except NSQLiteError as error:
        raise CommandFailed(str(error)) from None


def events(
    path: str, topic: str | None, channel: str | None, kinds: list[str] | None, *, as_json: bool
) -> Iterator[str]:
    """Yield what happens in a file, line by line, until its owner closes it.

    Raises:
        StoreError: nobody owns it who listens.
        CommandFailed: a kind is none.
    """
    require_file(path)
    with attach(path) as attached, _telling():
        told = _as_json if as_json else _as_text
        yield from map(told, attached.events(topic, channel, kinds))


def _as_json(event: Mapping[str, Any]) -> str:
    return json.dumps({name: event[name] for name in event if name != "line"})


def _as_text(event: Mapping[str, Any]) -> str:
    return f"{event['missed']} events were missed" if "missed" in event else str(event["line"])


def line_of(told: Mapping[str, Any], channel: str | None = None) -> str:
    """Return a message in a line."""
    due = "" if told["due_in"] is None else f"in {told['due_in']:.1f} s"
    body = _cut(_body_of(told))
    if "letter" in told:
        letter = told["letter"]
        failed = f"{letter['error_type']}: {letter['error']}".removeprefix(": ")
        body = f"{letter['topic']}:{letter['channel']} {_cut(failed)} {body}"
    where = [] if channel is None else [channel or "-"]
    counts = [told["id"], f"{told['state']:9}", f"{told['attempts']:3}", f"{due:10}"]
    return "  ".join([*where, *counts, body])


def _body_of(told: Mapping[str, Any]) -> str:
    if "repr" in told:
        return str(told["repr"])
    if "body" in told:
        return repr(told["body"].encode())
    return repr(base64.b64decode(told["body_base64"]))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def lines_of(
    messages: Iterable[tuple[str | None, Mapping[str, Any]]], *, as_json: bool
) -> Iterator[str]:
    """Yield messages, each with the name of its channel if that is to be told, line by line."""
    for channel, told in messages:
        if as_json:
            yield json.dumps({**({} if channel is None else {"channel": channel}), **told})
        else:
            yield line_of(told, channel)
