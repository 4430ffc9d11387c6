"""A storage in plain dicts: slow, obvious, and the measure of all others.

The rule: what a channel holds is found by looking at every message, never by keeping count.

What it is to keep lies in `Contents`, which outlive it: a test can end it by `close` or `crash` and
open the same contents again.

Next: testing/memorystore.py
"""

import os
from typing import Final, Self

from nsqlite.errors import StoreError, StoreInUse
from nsqlite.lock import make_lock
from nsqlite.store.store import GONE, Batch, Copy, Found, Row, StoredChannel, StoredTopic

WHERE: Final = "in memory"
"""Where errors say that it is."""

_FRESH: Final[Copy] = (0, None)


class Tables:
    """All rows of a storage; see `nsqlite.store.store`.

    Attributes:
        topics: topics with their channels, by number.
        rows: messages, by the topic's number and by id.
        copies: what has become of messages, by the channel's number and by id.
        highest: the highest numbers that a topic and a channel ever had, and the highest id of what
            was in topics that are no more.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self.topics: dict[int, StoredTopic] = {}
        self.rows: dict[int, dict[int, Row]] = {}
        self.copies: dict[int, dict[int, Copy]] = {}
        self.highest: tuple[int, int, int] = (0, 0, 0)

    def copy(self) -> Self:
        """Return tables that can change for themselves."""
        new = type(self)()
        new.topics = self.topics.copy()
        new.rows = {number: rows.copy() for number, rows in self.rows.items()}
        new.copies = {number: copies.copy() for number, copies in self.copies.items()}
        new.highest = self.highest
        return new

    # What is there

    def keeps_back(self, topic: StoredTopic, identity: int) -> bool:
        """Return whether a topic has not handed on the messages with this id."""
        return identity > topic.handed and (topic.paused or not topic.channels)

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

    def held(self, topic: StoredTopic, channel: StoredChannel | None, upto: int) -> list[Row]:
        """Return the messages up to an id that a channel or topic holds, in the order of ids."""
        rows = self.rows[topic.number]
        ordered = [rows[identity] for identity in sorted(rows) if identity <= upto]
        return [row for row in ordered if self.holds(topic, channel, row)]

    def found(self, channel: int | None, row: Row) -> Found:
        """Return a message as a channel has it."""
        identity, timestamp, due, _, codec, data = row
        copy = self.copy_of(channel, identity)
        assert copy is not GONE
        attempts, again = copy
        return identity, timestamp, due if again is None else again, codec, data, attempts

    def is_apart(self, channel: int | None, row: Row) -> bool:
        """Return whether a message does not come in the order of the ids."""
        copy = self.copy_of(channel, row[0])
        waits = copy is not GONE and copy[1] is not None
        return waits or row[2] is not None or row[3] is not None

    def last(self, topic: StoredTopic) -> int:
        """Return the highest id that a topic ever had."""
        return max([topic.last, *self.rows[topic.number]])

    def select(
        self, number: int, channel: int | None, after: int, upto: int, *, apart: bool
    ) -> list[Found]:
        """Return what a channel or the topic itself has between two ids, in order or apart.

        What was written of the topic itself says nothing here: the ids tell what is held.

        Raises:
            StoreError: there is no such topic.
        """
        if number not in self.rows:
            raise StoreError(WHERE, f"it has no topic {number}")
        rows = self.rows[number]
        return [
            self.found(channel, rows[identity])
            for identity in sorted(rows)
            if identity > after
            and self.copy_of(channel, identity) is not GONE
            and self.is_apart(channel, rows[identity]) is apart
            and self._is_meant(rows[identity], channel, upto)
        ]

    @staticmethod
    def _is_meant(row: Row, channel: int | None, upto: int) -> bool:
        """Return whether a message up to an id is for a channel, as for all, or for it alone."""
        return row[0] <= upto if row[3] is None else row[3] == channel

    # What happens

    def apply(self, batch: Batch) -> None:
        """Write a batch."""
        for number in batch.gone_topics:
            if number in self.topics:
                self.remove(self.topics[number])
        for _, deleted in batch.gone_channels:
            self.copies.pop(deleted, None)
        for topic in batch.topics:
            self.topics[topic.number] = _copied(topic)
            self.rows.setdefault(topic.number, {})
            channels = max((one.number for one in topic.channels), default=0)
            numbers, before, identity = self.highest
            self.highest = max(numbers, topic.number), max(before, channels), identity
        for number, rows in batch.rows:
            self.put(number, rows)
        for number, after, upto in batch.emptied:
            self.empty(number, after, upto)
        for number, holder, copies in batch.copies:
            self.note(number, holder, copies)
        for number in self.topics:
            self.forget(number)

    def remove(self, topic: StoredTopic) -> None:
        """Forget a topic and all that is in it."""
        numbers, channels, identity = self.highest
        self.highest = numbers, channels, max(identity, self.last(topic))
        del self.topics[topic.number], self.rows[topic.number]
        for channel in topic.channels:
            self.copies.pop(channel.number, None)

    def put(self, number: int, rows: list[Row]) -> None:
        """Write messages of a topic.

        Raises:
            StoreError: there is no such topic.
        """
        if number not in self.rows:
            raise StoreError(WHERE, f"it has no topic {number}")
        for row in rows:
            self.rows[number].setdefault(row[0], row)

    def empty(self, number: int, after: int, upto: int) -> None:
        """Throw away what a topic itself held."""
        for row in list(self.rows[number].values()):
            if after < row[0] <= upto and row[3] is None:
                del self.rows[number][row[0]]

    def note(self, number: int, channel: int | None, copies: dict[int, Copy]) -> None:
        """Write what has become of messages in a channel, or of what the topic itself held."""
        for identity, copy in copies.items():
            if channel is not None:
                known = self.copy_of(channel, identity)
                self.copies.setdefault(channel, {})[identity] = _later(known, copy)
            elif copy is GONE:
                self.rows[number].pop(identity, None)

    def forget(self, number: int) -> None:
        """Forget the messages of a topic that nobody holds."""
        topic = self.topics[number]
        holders = (None, *topic.channels)
        rows = self.rows[number]
        kept = [row for row in rows.values() if any(self.holds(topic, one, row) for one in holders)]
        self.rows[number] = {row[0]: row for row in kept}
        for channel in topic.channels:
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
    """

    def __init__(self) -> None:
        """Begin empty."""
        self.tables: Tables = Tables()
        self.owner: MemoryStorage | None = None


class MemoryStorage:
    """A `nsqlite.store.Storage` in plain dicts.

        >>> from nsqlite.store import StoredTopic, Batch
        >>> contents = Contents()
        >>> storage = MemoryStorage(contents)
        >>> storage.write(Batch(topics=[StoredTopic(number=1, name="orders")]))
        >>> storage.crash()
        >>> [topic.name for topic in MemoryStorage(contents).load()]
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

    def _require_open(self) -> None:
        if self.contents.owner is not self:
            raise StoreError(WHERE, "it is closed")

    def load(self) -> list[StoredTopic]:
        """See `Storage`; here it may be called at any time."""
        with self._lock:
            self._require_open()
            tables = self.contents.tables
            return [_counted(tables, topic) for topic in tables.topics.values()]

    def highest(self) -> tuple[int, int, int]:
        """See `Storage`."""
        with self._lock:
            self._require_open()
            return self.contents.tables.highest

    def write_row(self, number: int, row: Row) -> None:
        """See `Storage`."""
        self.write_rows(number, [row])

    def write_rows(self, number: int, rows: list[Row]) -> None:
        """See `Storage`."""
        with self._lock:
            self._require_open()
            self.contents.tables.put(number, list(rows))

    def write_attempts(self, number: int, channel: int, copies: list[tuple[int, int]]) -> None:
        """See `Storage`."""
        with self._lock:
            self._require_open()
            noted: dict[int, Copy] = {identity: (attempts, None) for identity, attempts in copies}
            self.contents.tables.note(number, channel, noted)

    def write(self, batch: Batch) -> None:
        """See `Storage`."""
        with self._lock:
            self._require_open()
            tables = self.contents.tables.copy()
            tables.apply(batch)
            self.contents.tables = tables  # all at once, or nothing

    def read(
        self, topic: int, channel: int | None, after: int, upto: int, limit: int
    ) -> list[Found]:
        """See `Storage`."""
        found = self._read(topic, channel, after, upto, apart=False)
        return found if limit < 0 else found[:limit]

    def read_apart(self, topic: int, channel: int | None, after: int, upto: int) -> list[Found]:
        """See `Storage`."""
        return self._read(topic, channel, after, upto, apart=True)

    def _read(
        self, number: int, channel: int | None, after: int, upto: int, *, apart: bool
    ) -> list[Found]:
        with self._lock:
            self._require_open()
            return self.contents.tables.select(number, channel, after, upto, apart=apart)

    def copy_log(self) -> None:
        """See `Storage`; there is no log."""
        self._require_open()

    def tidy(self) -> bool:
        """See `Storage`; all is tidy."""
        self._require_open()
        return False

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
        for topic in tables.topics.values():
            for holder in (None, *topic.channels):
                told = topic.held if holder is None else holder.held
                title = topic.name if holder is None else f"{topic.name}:{holder.name}"
                count = len(tables.held(topic, holder, topic.last))
                assert told == count, f"{title} holds {count} and was said to hold {told}"


def _later(known: Copy, new: Copy) -> Copy:
    """Return a copy that was written over another: what is gone stays so, what waited keeps it."""
    if known is GONE or new is GONE:
        return GONE
    attempts, due = new
    return attempts, known[1] if due is None else due


def _copied(topic: StoredTopic) -> StoredTopic:
    """Return a topic that is nobody else's."""
    channels = [
        StoredChannel(
            number=one.number, name=one.name, paused=one.paused, since=one.since, held=one.held
        )
        for one in topic.channels
    ]
    return StoredTopic(
        number=topic.number,
        name=topic.name,
        paused=topic.paused,
        handed=topic.handed,
        last=topic.last,
        held=topic.held,
        channels=channels,
    )


def _counted(tables: Tables, topic: StoredTopic) -> StoredTopic:
    """Return a topic with exact counts."""
    new = _copied(topic)
    new.last = tables.last(topic)
    new.held = len(tables.held(topic, None, new.last))
    for channel in new.channels:
        channel.held = len(tables.held(topic, channel, new.last))
    if not tables.keeps_back(topic, topic.handed + 1):
        new.handed = new.last
    return new
