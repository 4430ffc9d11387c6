"""What an operator does to a file that nobody has open: look at messages, put, move, drop, pause.

The rule: it is done by a broker of its own, for as long as the command takes; so a file that has an
owner is told of and left alone, and nothing is made that is not there, but a message.

Next: cli/export.py
"""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from nsqlite.broker import Broker
from nsqlite.channel import Channel
from nsqlite.cli.failure import CommandFailed
from nsqlite.errors import NSQLiteError, StoreError
from nsqlite.stats import MessageInfo
from nsqlite.store import Undecodable
from nsqlite.store.backup import require_file
from nsqlite.store.sqlite import SQLite
from nsqlite.topic import Topic
from nsqlite.worker import DeadLetter, redrive

SHOWN: Final = 60
"""Characters of a body that are shown in a line."""


class Operator:
    """A file, opened for one command.

    Attributes:
        path: the file.
    """

    def __init__(self, path: str, broker: Broker) -> None:
        """Take the broker that has it open."""
        self.path: Final = path
        self._broker: Final = broker

    def topic(self, name: str) -> Topic[Any]:
        """Return a topic.

        Raises:
            CommandFailed: the file has none of this name.
        """
        topics = self._broker.topics
        if name not in topics:
            raise CommandFailed(f"{self.path} has no topic {name!r}, but {_listed(topics)}")
        return topics[name]

    def place(self, topic: str, channel: str | None) -> Topic[Any] | Channel[Any]:
        """Return a channel, or the topic itself if none is named.

        Raises:
            CommandFailed: the file has none of this name.
        """
        return self.topic(topic) if channel is None else self.channel(topic, channel)

    def channel(self, topic: str, name: str) -> Channel[Any]:
        """Return a channel.

        Raises:
            CommandFailed: the file has none of this name.
        """
        channels = self.topic(topic).channels
        if name not in channels:
            found = _listed(channels)
            raise CommandFailed(f"topic {topic!r} has no channel {name!r}, but {found}")
        return channels[name]

    def put(self, topic: str, body: bytes, delay: float | None) -> str:
        """Put a message into a topic, and return its id.

        Raises:
            CommandFailed: the file has no such topic.
            NSQLiteError: see `Topic.put`.
        """
        return self.topic(topic).put(body, delay=delay)

    def peek(self, topic: str, channel: str, count: int) -> list[MessageInfo]:
        """Return the first messages of a channel: those that are ready, then what is due first."""
        found = self.channel(topic, channel)
        messages = found.peek(count)
        return [*messages, *found.deferred(count - len(messages))]

    def find(self, topic: str, identity: str) -> dict[str, MessageInfo]:
        """Return where a message is; see `Topic.find`.

        Raises:
            CommandFailed: it is nowhere.
        """
        found = self.topic(topic).find(identity)
        if not found:
            raise CommandFailed(f"topic {topic!r} has no message {identity}")
        return found

    def discard(self, topic: str, channel: str, identity: str) -> None:
        """Take a message out of a channel.

        Raises:
            CommandFailed: it is not there.
        """
        if not self.channel(topic, channel).discard(identity):
            raise CommandFailed(f"channel {topic}:{channel} has no message {identity}")

    def redrive(self, topic: str, channel: str) -> int:
        """Put dead letters back to where they failed; return how many."""
        return redrive(self.channel(topic, channel), self._broker)


@contextmanager
def operator(path: str) -> Iterator[Operator]:
    """Have a file open, which must be there.

    Raises:
        StoreInUse: somebody has it open.
        StoreError: it cannot be opened, read or written.
        CommandFailed: a call of the block was refused; the text tells why.
    """
    require_file(path)
    with Broker(store=SQLite(path)) as broker:
        try:
            yield Operator(path, broker)
        except StoreError:
            raise
        except NSQLiteError as error:
            raise CommandFailed(str(error)) from None


def _listed(names: Any) -> str:
    return ", ".join(sorted(names)) or "none at all"


def described(info: MessageInfo, channel: str | None = None) -> dict[str, Any]:
    """Return a message for JSON.

    Returns:
        `id`, `state`, `attempts`, `age`, `due` (both in seconds; null if it waits for nothing), and
        `body`, or `body_base64` if that is no UTF-8; with `codec` if one has made it; of a dead
        letter `letter`, its other fields.  And `channel`, if one is named.
    """
    told: dict[str, Any] = {} if channel is None else {"channel": channel}
    told |= {
        "id": info.id,
        "state": info.state,
        "attempts": info.attempts,
        "age": info.age,
        "due": info.due,
    }
    return told | _told_of(info.body)


def _told_of(body: Any) -> dict[str, Any]:
    if isinstance(body, DeadLetter):
        names = ("topic", "channel", "id", "attempts", "error_type", "error", "traceback")
        return {"letter": {name: getattr(body, name) for name in names}} | _told_of(body.body)
    if isinstance(body, Undecodable):
        return {"codec": body.codec} | _told_of(body.data)
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


def line_of(info: MessageInfo, channel: str | None = None) -> str:
    """Return a message in a line."""
    due = "" if info.due is None else f"in {info.due:.1f} s"
    body = _short(info.body)
    if isinstance(info.body, DeadLetter):
        letter = info.body
        failed = f"{letter.error_type}: {letter.error}".removeprefix(": ")
        body = f"{letter.topic}:{letter.channel} {_cut(failed)} {_short(letter.body)}"
    where = [] if channel is None else [channel or "-"]
    return "  ".join([*where, info.id, f"{info.state:8}", f"{info.attempts:3}", f"{due:10}", body])


def _short(body: Any) -> str:
    return _cut(repr(body.data if isinstance(body, Undecodable) else body))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def lines_of(messages: list[tuple[str | None, MessageInfo]], *, as_json: bool) -> Iterator[str]:
    """Yield messages, each with the name of its channel if that is to be told, line by line."""
    for channel, info in messages:
        yield json.dumps(described(info, channel)) if as_json else line_of(info, channel)
