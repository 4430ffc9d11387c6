"""`python -m nsqlite import`: lines of JSON into a store's file.

The rule: all of them or none.  Where a line is wrong, or anything fails, the topics that were
imported are taken back; a file that was not there before is removed.

Nothing is kept of the input but a batch of messages, and of each topic its account.  Only who kills
the process while it imports finds a part of the input in the file.

Next: cli/commands.py
"""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
from nsqlite.cli.progress import Tell, progress
from nsqlite.cli.snapshot import is_flowing, is_there
from nsqlite.cli.taken import Taken
from nsqlite.errors import StoreError
from nsqlite.store.sqlitefile import SQLiteFile
from nsqlite.store.store import (
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
        channels: its channels by name.
        span: the lowest and the highest id of its messages that are in the file.
        rows: messages that are not in it.
        copies: what is to be written of them, by the channel's number.
    """

    topic: StoredTopic
    channels: dict[str, StoredChannel] = attrs.Factory(dict)
    span: tuple[int, int] = (0, 0)
    rows: list[Row] = attrs.Factory(list)
    copies: dict[int, dict[int, Copy]] = attrs.Factory(dict)


class Loader:
    """Takes the lines of an export, one after the other, into an open file.

    Every method raises `CommandFailed` where a line is wrong, and `StoreError` where the file
    fails; `take_back` is then to be called.
    """

    def __init__(self, storage: Storage, taken: Taken) -> None:
        """Begin with a file.

        Args:
            storage: the file, open and not loaded.
            taken: looks at the same.
        """
        self._storage: Final = storage
        self._taken: Final = taken
        there = storage.load()
        self.forget()  # what is being forgotten still has its ids
        self._there: Final = {topic.name for topic in there}
        self._spans: Final = [(topic.number, taken.span(topic.number)) for topic in there]
        topics, channels, _ = storage.highest()
        self._first: Final = topics + 1
        self._topic_numbers: Final = count(self._first)
        self._channel_numbers: Final = count(channels + 1)
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

    def take_back(self) -> None:
        """Take back what was written; nobody finds it from this moment on."""
        numbers = self._taken.topics_from(self._first)
        if numbers:
            self._storage.write(Batch(gone_topics=numbers))

    def forget(self) -> None:
        """Have all messages of topics that are gone removed from the file."""
        while self._taken.has_gone_topics():
            self._storage.tidy()

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
        if arrival.topic.last:
            raise BrokenLine(f"the channels of topic {line.topic} must come before its messages")
        channel = StoredChannel(
            number=next(self._channel_numbers), name=line.name, paused=line.paused
        )
        arrival.channels[line.name] = channel
        arrival.topic.channels.append(channel)

    def _take_message(self, line: MessageLine) -> None:
        arrival = self._arrival(line.topic)
        topic = arrival.topic
        if line.id <= topic.last:
            raise BrokenLine(
                f"message {name_of(line.id)} must come before {name_of(topic.last)}: those of a"
                " topic are in the order of their ids, and none is there twice"
            )
        if line.id in self._batch:
            raise BrokenLine(
                f"message {name_of(line.id)} is in another topic too, in line"
                f" {self._batch[line.id]}"
            )
        due, only = self._place(arrival, line)
        topic.last = line.id
        if is_flowing(topic):
            topic.handed = line.id
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
            if is_flowing(topic):
                for channel in topic.channels:
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
        batch = Batch()
        for arrival in self._changed.values():
            self._require_new(arrival)
            topic = arrival.topic
            batch.topics.append(topic)
            if arrival.rows:
                batch.rows.append((topic.number, arrival.rows))
            for number, copies in arrival.copies.items():
                batch.copies.append((topic.number, number, copies))
        self._storage.write(batch)
        for arrival in self._changed.values():
            if arrival.rows:
                first = arrival.span[0] or arrival.rows[0][0]
                arrival.span = first, arrival.rows[-1][0]
            arrival.rows = []
            arrival.copies = {}
        self._changed.clear()
        self._batch.clear()
        self._storage.copy_log()
        self._storage.tidy()

    def _require_new(self, arrival: Arrival) -> None:
        """Check that no other topic of the file has the ids that are to be written of a topic."""
        ids = [row[0] for row in arrival.rows]
        arrived = [(one.topic.number, one.span) for one in self._arrivals.values()]
        for number, (first, last) in [*self._spans, *arrived] if ids else []:
            if number != arrival.topic.number and first <= ids[-1] and ids[0] <= last:
                common = self._taken.find_common(number, ids)
                if common is not None:
                    raise CommandFailed(
                        f"line {self._batch[common]}: message {name_of(common)} is in another topic"
                        " of the file already: import into another file"
                    )


def load(path: str, source: str | None, *, wanted: bool | None) -> Loaded:
    """Read lines into a file, which must not be in use.

    Args:
        path: the file; made if it is not there.
        source: where the lines are, None for stdin.
        wanted: whether to show how far it is; None leaves it to the terminal.

    Raises:
        CommandFailed: a line is wrong, or the lines cannot be read; nothing has changed.
        StoreError: the file cannot be used; the same.
    """
    with _opened(source) as lines:
        is_new = not is_there(path)
        storage = SQLiteFile(path, full=False)
        try:
            with Taken(path) as taken:
                loader = Loader(storage, taken)
                try:
                    with progress("import", "bytes", _size(lines), wanted) as tell:
                        loaded = _load(loader, _read(lines, source or "stdin"), tell)
                except BaseException as error:
                    _undo(path, loader, error, is_new=is_new)
                    raise
        finally:
            storage.close()
    return loaded


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


def _undo(path: str, loader: Loader, error: BaseException, *, is_new: bool) -> None:
    """Take back what was imported.

    Args:
        path: the file.
        loader: what has imported into it.
        error: why it is taken back.
        is_new: the file was not there before.

    Raises:
        CommandFailed: it cannot be taken back.
    """
    if is_new and _is_removed(path):
        return
    try:
        loader.take_back()
        loader.forget()
    except StoreError as problem:
        raise CommandFailed(
            f"{error}; and what was imported so far could not be taken back ({problem}): delete"
            " its topics"
        ) from problem


def _is_removed(path: str) -> bool:
    """Remove a file while its lock is held, so nobody else has it; return whether that worked."""
    try:
        Path(path).unlink()
        for ending in ("-wal", "-shm"):
            Path(f"{path}{ending}").unlink(missing_ok=True)
    except OSError:  # some systems remove nothing that is open
        return False
    return True


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
