"""`python -m nsqlite import`: lines of JSON into a store's file.

The rule: all of them or none, whatever ends it, a kill at any instruction too.

The lines go into a file of their own beside the one that they are meant for.  When the last one is
there, that file gets the name of the other one, or, where that was there before, what is in it is
taken over in one transaction.  Nothing is kept of the input in memory but a batch of messages, and
of each topic its account.

Next: cli/reference.py
"""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import BinaryIO, Final

import attrs

from nsqlite.cli.failure import CommandFailed, why
from nsqlite.cli.lines import (
    BrokenLine,
    ChannelLine,
    EndLine,
    HeaderLine,
    Held,
    Line,
    MessageLine,
    TopicLine,
    from_text,
)
from nsqlite.cli.merge import merge
from nsqlite.cli.progress import Tell, progress
from nsqlite.cli.taken import Taken
from nsqlite.store.newfile import appearing, partial
from nsqlite.store.sqlitefile import SQLiteFile
from nsqlite.store.storage import (
    GONE,
    Batch,
    Copy,
    Row,
    Storage,
    StoredChannel,
    StoredTopic,
    name_of,
)

BATCH: Final = 1000
"""How many messages are written in one transaction."""


@attrs.frozen
class Loaded:
    """What was imported: how many topics, channels and messages."""

    topics: int
    channels: int
    messages: int


@attrs.define(eq=False)
class Arrival:
    """A topic on its way into the file.

    Attributes:
        topic: as it is so far.
        last: the highest id of its messages.
        channels: its channels by name.
        rows: messages that are not in the file.
        copies: what is to be written of them, by the channel's number.
    """

    topic: StoredTopic
    last: int = 0
    channels: dict[str, StoredChannel] = attrs.Factory(dict)
    rows: list[Row] = attrs.Factory(list)
    copies: dict[int, dict[int, Copy]] = attrs.Factory(dict)

    @property
    def flows(self) -> bool:
        """Whether what is put is the channels' at once."""
        return bool(self.channels) and not self.topic.paused


@attrs.frozen
class Present:
    """What is in the file already to which all is added in the end.

    Attributes:
        taken: looks at the file.
        names: its topics.
        highest: the highest numbers that a topic and a channel of it ever had.
    """

    taken: Taken
    names: frozenset[str] = frozenset()
    highest: tuple[int, int] = (0, 0)


class Loader:
    """Takes the lines of an export, one after the other, into a file of their own.

    Every method raises `CommandFailed` where a line is wrong, and `StoreError` where the file
    fails.
    """

    def __init__(self, storage: Storage, taken: Taken, present: Present) -> None:
        """Begin with an empty file.

        Args:
            storage: the file, open and not loaded.
            taken: looks at the same.
            present: what is in the file to which all is added in the end.
        """
        storage.load()
        self._storage: Final = storage
        self._taken: Final = {present.taken, taken}
        self._there: Final = present.names
        self._topic_numbers: Final = count(present.highest[0] + 1)
        self._channel_numbers: Final = count(present.highest[1] + 1)
        self._arrivals: Final[dict[str, Arrival]] = {}
        self._changed: Final[dict[str, Arrival]] = {}
        self._batch: Final[dict[int, int]] = {}  # the line of each id that is not written
        self._line = 0
        self._messages = 0
        self._is_ended = False

    def take(self, text: bytes) -> None:
        """Take the next line."""
        self._line += 1
        try:
            self._take(from_text(text))
        except BrokenLine as error:
            raise CommandFailed(f"line {self._line}: {error}") from None

    def finish(self) -> Loaded:
        """Write what is not written."""
        if not self._is_ended:
            raise CommandFailed(
                f'line {self._line + 1} is missing: the last one must be {{"kind": "end"}}, so the'
                " input was cut off"
            )
        self._write()
        channels = sum(len(arrival.channels) for arrival in self._arrivals.values())
        return Loaded(len(self._arrivals), channels, self._messages)

    # Lines

    def _take(self, line: Line) -> None:
        if self._is_ended:
            raise BrokenLine("nothing may follow the end line")
        if isinstance(line, HeaderLine) is not (self._line == 1):
            raise BrokenLine('the first line, and no other, must be {"nsqlite": 1}')
        if isinstance(line, MessageLine):
            self._take_message(line)
        elif isinstance(line, ChannelLine):
            self._take_channel(line)
        elif isinstance(line, TopicLine):
            self._take_topic(line)
        else:
            self._is_ended = isinstance(line, EndLine)

    def _take_topic(self, line: TopicLine) -> None:
        if line.name in self._there:
            raise BrokenLine(f"topic {line.name} is in the file already: import into another file")
        if line.name in self._arrivals:
            raise BrokenLine(f"topic {line.name} was told of before")
        topic = StoredTopic(number=next(self._topic_numbers), name=line.name, paused=line.paused)
        self._arrivals[line.name] = self._changed[line.name] = Arrival(topic)

    def _arrival(self, name: str) -> Arrival:
        if name not in self._arrivals:
            raise BrokenLine(f"topic {name} has no line of its own before this one")
        return self._arrivals[name]

    def _take_channel(self, line: ChannelLine) -> None:
        arrival = self._arrival(line.topic)
        if line.name in arrival.channels:
            raise BrokenLine(f"channel {line.name} of topic {line.topic} was told of before")
        if arrival.last:
            raise BrokenLine(f"the channels of topic {line.topic} must come before its messages")
        arrival.channels[line.name] = StoredChannel(
            number=next(self._channel_numbers),
            topic=arrival.topic.number,
            name=line.name,
            paused=line.paused,
        )

    def _take_message(self, line: MessageLine) -> None:
        arrival = self._arrival(line.topic)
        if line.id <= arrival.last:
            raise BrokenLine(
                f"message {name_of(line.id)} must come before {name_of(arrival.last)}: those of a"
                " topic are in the order of their ids, and none is there twice"
            )
        if line.id in self._batch:
            raise BrokenLine(
                f"message {name_of(line.id)} is in another topic too, in line"
                f" {self._batch[line.id]}"
            )
        due, only = self._place(arrival, line)
        arrival.last = line.id
        if arrival.flows:
            arrival.topic.handed = line.id
        arrival.rows.append((line.id, line.timestamp, due, only, line.codec, line.data))
        self._changed[line.topic] = arrival
        self._batch[line.id] = self._line
        self._messages += 1
        if len(self._batch) == BATCH:
            self._write()

    def _place(self, arrival: Arrival, line: MessageLine) -> tuple[int | None, int | None]:
        """Give a message to those that hold it.

        Returns:
            Until when it waits in all of them, and the number of the only one it is meant for.
        """
        topic = arrival.topic
        if line.channels is None:
            if arrival.flows:
                for channel in arrival.channels.values():
                    channel.held += 1
            else:
                topic.held += 1
            return line.due, None
        holders = {one.name: one for one in line.channels}
        for name in holders:
            if name not in arrival.channels:
                raise BrokenLine(f"topic {topic.name} has no channel {name}")
        dues = {one.due for one in line.channels}
        due = dues.pop() if len(dues) == 1 else None
        if topic.held:
            return due, self._place_alone(arrival, line, due)
        for name, channel in arrival.channels.items():
            self._place_in(arrival, channel, line.id, holders.get(name), due)
        topic.handed = line.id
        return due, None

    def _place_alone(self, arrival: Arrival, line: MessageLine, due: int | None) -> int:
        """Give a message to a channel while the topic holds others that came before."""
        assert line.channels is not None
        if len(line.channels) > 1:
            raise BrokenLine(
                f"message {name_of(line.id)} comes after one that topic {arrival.topic.name} holds"
                " itself, so no more than one channel can hold it"
            )
        [holder] = line.channels
        channel = arrival.channels[holder.name]
        self._place_in(arrival, channel, line.id, holder, due)
        return channel.number

    def _place_in(
        self,
        arrival: Arrival,
        channel: StoredChannel,
        identity: int,
        holder: Held | None,
        due: int | None,
    ) -> None:
        """Have a channel hold a message, or not."""
        if holder is None:
            if channel.held:
                arrival.copies.setdefault(channel.number, {})[identity] = GONE
            else:
                channel.since = identity
            return
        channel.held += 1
        own = None if due is not None else holder.due
        if holder.attempts or own is not None:
            copies = arrival.copies.setdefault(channel.number, {})
            copies[identity] = holder.attempts, own

    # Writing

    def _write(self) -> None:
        """Write what has changed."""
        self._require_new()
        batch = Batch()
        for arrival in self._changed.values():
            number = arrival.topic.number
            batch.topics[number] = arrival.topic
            batch.channels |= {channel.number: channel for channel in arrival.channels.values()}
            batch.rows[number] = arrival.rows
            for channel, copies in arrival.copies.items():
                batch.copies[number, channel] = copies
        self._storage.write(batch)
        for arrival in self._changed.values():
            arrival.rows = []
            arrival.copies = {}
        self._changed.clear()
        self._batch.clear()
        self._storage.copy_log()
        self._storage.tidy()

    def _require_new(self) -> None:
        """Check that no other topic has the ids that are to be written."""
        ids = list(self._batch)
        for taken in self._taken:
            common = taken.find_common(ids)
            if common is not None:
                raise CommandFailed(
                    f"line {self._batch[common]}: message {name_of(common)} is in another topic"
                    " of the file already: import into another file"
                )


@attrs.frozen
class _Input:
    """What is read: the lines, what they are called, and whether to show how far it is."""

    lines: BinaryIO
    name: str
    wanted: bool | None


def load(path: str, source: str | None, *, wanted: bool | None) -> Loaded:
    """Read lines into a file, which must not be in use.

    When this returns all is on the disk; if it raises, nothing has changed.

    Args:
        path: the file; made if it is not there.
        source: where the lines are, None for stdin.
        wanted: whether to show how far it is; None leaves it to the terminal.

    Raises:
        CommandFailed: a line is wrong, or the lines cannot be read.
        StoreError: the file cannot be used.
    """
    with _opened(source) as lines:
        read = _Input(lines, source or "stdin", wanted)
        if _is_there(path):
            return _add(os.path.realpath(path), read)
        with appearing(path) as name:
            return _fill(name, read, None)


def _is_there(path: str) -> bool:
    """Return whether there is a file or directory, as far as one may look."""
    try:
        Path(path).stat()
    except OSError:
        return False
    return True


def _forget_gone(storage: SQLiteFile, taken: Taken) -> None:
    """Forget the topics that were deleted, which still have their ids."""
    while taken.has_gone_topics():
        storage.copy_log()
        storage.tidy()


def _add(path: str, read: _Input) -> Loaded:
    """Read lines into a file that is there."""
    with closing(SQLiteFile(path, full=True)) as storage, Taken(path) as taken:
        topics, _ = storage.load()
        _forget_gone(storage, taken)
        names = frozenset(topic.name for topic in topics)
        topic, channel, _ = storage.highest()
        with partial(path) as name:
            loaded = _fill(name, read, Present(taken, names, (topic, channel)))
            merge(path, name)
    return loaded


def _fill(name: str, read: _Input, present: Present | None) -> Loaded:
    """Read lines into a new file."""
    with closing(SQLiteFile(name, full=False)) as storage, Taken(name) as taken:
        loader = Loader(storage, taken, present or Present(taken))
        with progress("import", "bytes", _size(read.lines), read.wanted) as tell:
            return _load(loader, _read(read.lines, read.name), tell)


def _load(loader: Loader, lines: Iterator[bytes], tell: Tell) -> Loaded:
    size = 0
    for number, text in enumerate(lines, 1):
        loader.take(text)
        size += len(text)
        if number % BATCH == 0:
            tell(size)
            size = 0
    tell(size)
    return loader.finish()


@contextmanager
def _opened(source: str | None) -> Iterator[BinaryIO]:
    """Open what is read from."""
    if source is None:
        if sys.stdin is None:
            raise CommandFailed("cannot read stdin: it is closed")
        yield sys.stdin.buffer
        return
    try:
        file = Path(source).open("rb")  # noqa: SIM115 - only its opening is told of here
    except OSError as error:
        raise CommandFailed(f"cannot read {source}: {why(error)}") from None
    with file:
        yield file


def _read(lines: BinaryIO, name: str) -> Iterator[bytes]:
    """Go through the lines of what was opened."""
    try:
        yield from lines
    except OSError as error:
        raise CommandFailed(f"cannot read {name}: {why(error)}") from None


def _size(lines: BinaryIO) -> int | None:
    """Return how much there is to be read, None if nobody knows."""
    try:
        status = os.fstat(lines.fileno())
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
