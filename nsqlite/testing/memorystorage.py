"""A storage in plain dicts: slow, obvious, and the measure of all others.

The rule: what a channel holds is found by looking at every message, never by keeping count.

What it is to keep lies in `Contents`, which outlive it: a test can end it by `close` or `crash` and
open the same contents again.

Next: testing/memorystore.py
"""

import os
from collections.abc import Callable
from operator import itemgetter
from typing import Final, Literal, Self, TypeAlias

import attrs

from nsqlite.errors import StoreError, StoreInUse
from nsqlite.lock import make_lock
from nsqlite.store.storage import (
    GONE,
    Batch,
    Copy,
    Found,
    Row,
    StoredChannel,
    StoredTopic,
    page_of,
)

WHERE: Final = "in memory"
"""Where errors say that it is."""

Order: TypeAlias = Literal["ids", "deferred", "apart"]
"""In which order a message comes: that of its id, of when it is due, or none."""

_FRESH: Final[Copy] = (0, None)

_DUE: Final = itemgetter(2, 0)
"""Returns when a message is due, and its id."""


class Tables:
    """All rows of a storage; see `nsqlite.store.storage`.

    Attributes:
        topics: topics, by number.
        channels: channels, by number.
        rows: messages, by the topic's number and by id.
        copies: what has become of messages, by the channel's number and by id.
        highest: the highest numbers that a topic and a channel ever had, and the highest id that a
            batch told of.
        now: the highest time that a batch told of.
        drift: what a batch told of that last.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self.topics: dict[int, StoredTopic] = {}
        self.channels: dict[int, StoredChannel] = {}
        self.rows: dict[int, dict[int, Row]] = {}
        self.copies: dict[int, dict[int, Copy]] = {}
        self.highest: tuple[int, int, int] = (0, 0, 0)
        self.now: int = 0
        self.drift: int = 0

    def copy(self) -> Self:
        """Return tables that can change for themselves."""
        new = type(self)()
        new.topics = {number: attrs.evolve(topic) for number, topic in self.topics.items()}
        new.channels = self.channels.copy()
        new.rows = {number: rows.copy() for number, rows in self.rows.items()}
        new.copies = {number: copies.copy() for number, copies in self.copies.items()}
        new.highest = self.highest
        new.now = self.now
        new.drift = self.drift
        return new

    # What is there

    def topic(self, number: int) -> StoredTopic:
        """Return a topic.

        Raises:
            StoreError: there is none of this number.
        """
        if number not in self.topics:
            raise StoreError(WHERE, f"it has no topic {number}")
        return self.topics[number]

    def channels_of(self, number: int) -> list[StoredChannel]:
        """Return the channels of a topic."""
        return [channel for channel in self.channels.values() if channel.topic == number]

    def keeps_back(self, topic: StoredTopic, identity: int) -> bool:
        """Return whether a topic has not handed on the messages with this id."""
        flows = self.channels_of(topic.number) and not topic.paused
        return identity > topic.handed and not flows

    def holds(self, topic: StoredTopic, channel: StoredChannel | None, row: Row) -> bool:
        """Return whether a channel holds a message, or for None the topic itself."""
        identity, only = row[0], row[3]
        if channel is None:
            return only is None and self.keeps_back(topic, identity)
        if self.copy_of(channel.number, identity) is GONE or identity <= channel.since:
            return False
        return only == channel.number or (only is None and not self.keeps_back(topic, identity))

    def copy_of(self, channel: int | None, identity: int) -> Copy:
        """Return what has become of a message in a channel."""
        return _FRESH if channel is None else self.copies.get(channel, {}).get(identity, _FRESH)

    def held(self, topic: StoredTopic, channel: StoredChannel | None) -> list[Row]:
        """Return the messages that a channel or topic holds, in the order of their ids."""
        rows = self.rows[topic.number]
        return [rows[one] for one in sorted(rows) if self.holds(topic, channel, rows[one])]

    def found(self, channel: int | None, row: Row) -> Found:
        """Return a message as a channel has it."""
        identity, timestamp, due, _, codec, data = row
        copy = self.copy_of(channel, identity)
        assert copy is not GONE
        attempts, again = copy
        return identity, timestamp, due if again is None else again, codec, data, attempts, True

    def order(self, channel: int | None, row: Row) -> Order:
        """Return in which order a message comes."""
        copy = self.copy_of(channel, row[0])
        if row[2] is not None or (copy is not GONE and copy[1] is not None):
            return "deferred"
        return "ids" if row[3] is None else "apart"

    def select(
        self, number: int, channel: int | None, after: int, upto: int, order: Order
    ) -> list[Found]:
        """Return what a channel or the topic itself has between two ids and comes in an order.

        What was written of the topic itself says nothing here: the ids tell what is held.
        """
        rows = self.rows.get(number, {})
        return [
            self.found(channel, rows[identity])
            for identity in sorted(rows)
            if identity > after
            and self.copy_of(channel, identity) is not GONE
            and self.order(channel, rows[identity]) == order
            and self._is_meant(rows[identity], channel, upto)
        ]

    @staticmethod
    def _is_meant(row: Row, channel: int | None, upto: int) -> bool:
        """Return whether a message up to an id is for a channel, as for all, or for it alone."""
        return row[0] <= upto if row[3] is None else row[3] == channel

    # What happens

    def apply(self, batch: Batch) -> None:
        """Write a batch."""
        self.note_highest(batch)
        for number in batch.gone_topics:
            self.remove(number)
        for number in batch.gone_channels:
            self.remove_channel(number)
        self.change(batch)
        for number, rows in batch.rows.items():
            if number not in batch.gone_topics:
                self.put(number, rows)
        for number, after, upto in batch.emptied:
            self.empty(number, after, upto)
        for (number, holder), copies in batch.copies.items():
            self.note(number, holder, copies)
        for number in self.touched(batch):
            self.topics[number].counted = number in batch.topics and batch.topics[number].counted
            self.forget(number)

    def touched(self, batch: Batch) -> set[int]:
        """Return the topics that are there of which a batch has told anything."""
        told = {
            *batch.topics,
            *(channel.topic for channel in batch.channels.values()),
            *batch.gone_channels.values(),
            *batch.rows,
            *(number for number, _ in batch.copies),
            *(number for number, _, _ in batch.emptied),
            *batch.unheld,
        }
        return told & set(self.topics)

    def note_highest(self, batch: Batch) -> None:
        """Take note of the numbers that a batch has used up."""
        topic, channel, identity = self.highest
        self.highest = (
            max([topic, *batch.topics]),
            max([channel, *batch.channels]),
            max(identity, batch.highest),
        )
        self.now = max(self.now, batch.now)
        self.drift = self.drift if batch.drift is None else batch.drift

    def set_clock(self, now: int) -> None:
        """Have nothing wait longer where the clock was set back."""
        drift, self.drift = self.drift, 0
        self.now += drift
        self.shift_copies(drift)
        self.change_dues(lambda timestamp, due: (timestamp, due + drift))
        if now < self.now:
            self.shift_copies(now - self.now)
            self.now = now
        self.change_dues(
            lambda timestamp, due: (
                (now, now + due - timestamp) if due > timestamp > now else (timestamp, due)
            )
        )

    def shift_copies(self, span: int) -> None:
        """Have what was requeued wait so much longer."""
        for copies in self.copies.values():
            for identity, copy in copies.items():
                if copy is not GONE and copy[1] is not None:
                    copies[identity] = copy[0], copy[1] + span

    def change_dues(self, change: Callable[[int, int], tuple[int, int]]) -> None:
        """Change timestamp and due of what was put with a delay."""
        for rows in self.rows.values():
            for identity, timestamp, due, only, codec, data in list(rows.values()):
                if due is not None:
                    rows[identity] = identity, *change(timestamp, due), only, codec, data

    def remove(self, number: int) -> None:
        """Forget a topic and all that is in it."""
        self.topics.pop(number, None)
        self.rows.pop(number, None)
        for channel in self.channels_of(number):
            self.remove_channel(channel.number)

    def remove_channel(self, number: int) -> None:
        """Forget a channel and what has become of messages in it."""
        self.channels.pop(number, None)
        self.copies.pop(number, None)

    def change(self, batch: Batch) -> None:
        """Write the topics and channels of a batch that are not gone in it.

        Raises:
            StoreError: there is no such topic.
        """
        for topic in batch.topics.values():
            if topic.number not in batch.gone_topics:
                self.topics[topic.number] = attrs.evolve(topic)
                self.rows.setdefault(topic.number, {})
        for channel in batch.channels.values():
            if channel.number not in batch.gone_channels and channel.topic not in batch.gone_topics:
                self.topic(channel.topic)
                self.channels[channel.number] = attrs.evolve(channel)

    def put(self, number: int, rows: list[Row]) -> None:
        """Write messages of a topic.

        Raises:
            StoreError: there is no such topic.
        """
        self.topic(number)
        for row in rows:
            self.rows[number].setdefault(row[0], row)

    def empty(self, number: int, after: int, upto: int) -> None:
        """Throw away what a topic itself held."""
        rows = self.rows.get(number, {})
        for row in list(rows.values()):
            if after < row[0] <= upto and row[3] is None:
                del rows[row[0]]

    def note(self, number: int, channel: int | None, copies: dict[int, Copy]) -> None:
        """Write what has become of messages in a channel, or of what the topic itself held."""
        rows = self.rows.get(number, {})
        for identity, copy in copies.items():
            if channel is None:
                if copy is GONE:
                    rows.pop(identity, None)
            elif channel in self.channels and identity in rows:
                known = self.copy_of(channel, identity)
                self.copies.setdefault(channel, {})[identity] = _later(known, copy)

    def forget(self, number: int) -> None:
        """Forget the messages of a topic that nobody holds."""
        topic, rows = self.topics[number], self.rows[number]
        channels = self.channels_of(number)
        holders = (None, *channels)
        kept = [row for row in rows.values() if any(self.holds(topic, one, row) for one in holders)]
        self.rows[number] = {row[0]: row for row in kept}
        for channel in channels:
            copies = self.copies.get(channel.number, {})
            left = {
                identity: copy for identity, copy in copies.items() if identity in self.rows[number]
            }
            self.copies[channel.number] = left


class Contents:
    """What a storage in memory keeps, also while nobody has it open.

    Attributes:
        tables: what was written.
        owner: the storage that has it open.
        backups: copies of the tables, by the paths that `backup` was told.
    """

    def __init__(self, tables: Tables | None = None) -> None:
        """Begin with tables; empty by default."""
        self.tables: Tables = Tables() if tables is None else tables
        self.owner: MemoryStorage | None = None
        self.backups: Final[dict[str, Tables]] = {}


class MemoryStorage:
    """A `nsqlite.store.Storage` in plain dicts.

        >>> from nsqlite.store import StoredTopic, Batch
        >>> contents = Contents()
        >>> storage = MemoryStorage(contents)
        >>> storage.write(Batch(topics={1: StoredTopic(number=1, name="orders")}))
        >>> storage.crash()
        >>> topics, channels = MemoryStorage(contents).load()
        >>> [topic.name for topic in topics]
        ['orders']

    Threads: any.

    Attributes:
        contents: what it keeps.
    """

    def __init__(self, contents: Contents | None = None) -> None:
        """Open contents.

        Args:
            contents: what is kept; new ones by default.

        Raises:
            StoreInUse: another storage has them open.
        """
        self.contents: Final = Contents() if contents is None else contents
        self._lock: Final = make_lock(rank=3)
        if self.contents.owner is not None:
            raise StoreInUse(WHERE, os.getpid(), "it is in use: close or crash that first")
        self.contents.owner = self

    def _tables(self) -> Tables:
        """Return the tables, while it is open."""
        if self.contents.owner is not self:
            raise StoreError(WHERE, "it is closed")
        return self.contents.tables

    def load(self) -> tuple[list[StoredTopic], list[StoredChannel]]:
        """See `Storage`; here it may be called at any time."""
        with self._lock:
            tables = self._tables().copy()
        channels = sorted(tables.channels.items())
        return (
            [topic for _, topic in sorted(tables.topics.items())],
            [attrs.evolve(channel) for _, channel in channels],
        )

    def count(self, topic: int) -> tuple[int, dict[int, int]]:
        """See `Storage`; here they are always counted."""
        with self._lock:
            tables = self._tables()
            if topic not in tables.topics:
                return 0, {}
            one = tables.topic(topic)
            channels = tables.channels_of(topic)
            held = {channel.number: len(tables.held(one, channel)) for channel in channels}
            return len(tables.held(one, None)), held

    def highest(self) -> tuple[int, int, int]:
        """See `Storage`."""
        with self._lock:
            tables = self._tables()
            topic, channel, identity = tables.highest
            return topic, channel, max([identity, *map(_last, tables.rows.values())])

    def last(self, topic: int) -> int:
        """See `Storage`."""
        with self._lock:
            return _last(self._tables().rows.get(topic, {}))

    def set_clock(self, now: int) -> None:
        """See `Storage`."""
        with self._lock:
            tables = self._tables().copy()
            tables.set_clock(now)
            self.contents.tables = tables

    def write_row(self, number: int, row: Row) -> None:
        """See `Storage`."""
        self.write_rows(number, [row])

    def write_rows(self, number: int, rows: list[Row]) -> None:
        """See `Storage`."""
        with self._lock:
            tables = self._tables()
            tables.put(number, list(rows))
            tables.topic(number).counted = False

    def write_attempts(self, number: int, channel: int, copies: list[tuple[int, int]]) -> None:
        """See `Storage`."""
        with self._lock:
            tables = self._tables()
            noted: dict[int, Copy] = {identity: (attempts, None) for identity, attempts in copies}
            tables.note(number, channel, noted)
            if number in tables.topics:
                tables.topic(number).counted = False

    def write(self, batch: Batch) -> None:
        """See `Storage`."""
        with self._lock:
            tables = self._tables().copy()
            tables.apply(batch)
            self.contents.tables = tables  # all at once, or nothing

    def read(
        self, topic: int, channel: int | None, after: int, upto: int, limit: int
    ) -> list[Found]:
        """See `Storage`."""
        return page_of(self._read(topic, channel, after, upto, "ids"), limit)

    def read_deferred(
        self,
        topic: int,
        channel: int | None,
        between: tuple[int, int],
        behind: tuple[int, int],
        limit: int,
    ) -> list[Found]:
        """See `Storage`."""
        waiting = sorted(self._read(topic, channel, *between, "deferred"), key=_DUE)
        return page_of([one for one in waiting if _DUE(one) > behind], limit)

    def count_deferred(self, topic: int, channel: int | None, between: tuple[int, int]) -> int:
        """See `Storage`."""
        return len(self._read(topic, channel, *between, "deferred"))

    def read_apart(self, topic: int, channel: int | None, after: int, upto: int) -> list[Found]:
        """See `Storage`."""
        return self._read(topic, channel, after, upto, "apart")

    def find(self, topic: int, channel: int | None, identity: int) -> list[Found]:
        """See `Storage`."""
        orders: tuple[Order, ...] = ("ids", "deferred", "apart")
        found = [
            one
            for order in orders
            for one in self._read(topic, channel, identity - 1, identity, order)
        ]
        return [one for one in found if one[0] == identity]

    def alone(self, topic: int, channel: int, above: int) -> list[int]:
        """See `Storage`."""
        with self._lock:
            rows = list(self._tables().rows.get(topic, {}).values())
        return [row[0] for row in rows if row[3] == channel and row[0] > above]

    def _read(
        self, number: int, channel: int | None, after: int, upto: int, order: Order
    ) -> list[Found]:
        with self._lock:
            return self._tables().select(number, channel, after, upto, order)

    def copy_log(self) -> None:
        """See `Storage`; there is no log."""
        self._tables()

    def copy_all(self) -> None:
        """See `Storage`; there is no log."""
        self._tables()

    def tidy(self) -> bool:
        """See `Storage`; all is tidy."""
        self._tables()
        return False

    def backup(self, path: str) -> None:
        """Keep a copy in `Contents.backups`, under a path at which no file is made."""
        with self._lock:
            tables = self._tables()
            if path in self.contents.backups:
                raise StoreError(WHERE, f"there is a copy at {path} already")
            self.contents.backups[path] = tables.copy()

    def close(self) -> None:
        """See `Storage`; a second call does nothing."""
        if self.contents.owner is self:
            self.contents.owner = None

    def abandon(self) -> None:
        """See `Storage`."""
        self.close()

    def crash(self) -> None:
        """End it as the death of its process would: whoever still calls it gets a `StoreError`."""
        self.close()

    def _check(self) -> None:
        """Check that the counts that were written are those of what is there."""
        tables = self.contents.tables
        for topic in [topic for topic in tables.topics.values() if topic.counted]:
            for holder in (None, *tables.channels_of(topic.number)):
                told = topic.held if holder is None else holder.held
                title = topic.name if holder is None else f"{topic.name}:{holder.name}"
                count = len(tables.held(topic, holder))
                assert told == count, f"{title} holds {count} and was said to hold {told}"


def _later(known: Copy, new: Copy) -> Copy:
    """Return a copy that was written over another: what is gone stays so, what waited keeps it."""
    if known is GONE or new is GONE:
        return GONE
    attempts, due = new
    return attempts, known[1] if due is None else due


def _last(rows: dict[int, Row]) -> int:
    """Return the highest id of messages."""
    return max(rows, default=0)
