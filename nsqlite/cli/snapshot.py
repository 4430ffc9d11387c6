"""A store's file as it was at one moment, for whoever only looks.

The rule: it never changes the file, never takes its owner's lock, and leaves nothing beside it; all
that one snapshot tells belongs to one moment, also while the owner goes on writing.

What a running owner has not written yet is not seen: what happened to messages in the last
`sync_timeout`, and with ``sync="interval"`` the last puts.  So a message in flight counts as ready,
as which it would come back.

Costs: the counts of a topic in a file that was closed are in it.  Those of a topic that is in use,
or was when its owner was killed, are counted message by message, which takes long where the queue
is long.  While a long reading lasts, the write-ahead log grows.

Next: cli/timeline.py
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from types import TracebackType
from typing import Final, Self

import attrs

from nsqlite.errors import StoreDamaged, StoreForeign
from nsqlite.store.backup import open_to_read
from nsqlite.store.counts import count_rows
from nsqlite.store.known import Known, known_as
from nsqlite.store.schema import VERSION
from nsqlite.store.statements import LAST, Statements, read_channels, read_topics, telling
from nsqlite.store.storage import HIGHEST, StoredChannel, StoredTopic

SAMPLE: Final = 1000
"""How many of the oldest and of the newest messages are asked for their codecs."""

_HOLDS: Final = """
((m.only IS NULL AND m.id <= :upto) OR m.only IS :channel)
AND NOT EXISTS (SELECT 1 FROM copy g WHERE g.channel = :channel AND g.id = m.id AND g.gone)
"""
"""Whether a message above `since` is held by a channel; by the topic, with None for the channel."""

_DEFERRED: Final = Statements(
    "SELECT count(*) FROM messages_{0} m INDEXED BY apart_{0}"
    " LEFT JOIN copy c ON c.channel = :channel AND c.id = m.id"
    " WHERE m.topic = :topic AND (m.due IS NOT NULL OR m.only IS NOT NULL)"
    f" AND m.due > :now AND m.id > :since AND c.due IS NULL AND {_HOLDS}"
)
_REQUEUED: Final = Statements(
    "SELECT count(*) FROM copy c INDEXED BY copy_due CROSS JOIN messages_{0} m ON m.id = c.id"
    f" WHERE c.channel = :channel AND c.due > :now AND m.id > :since AND {_HOLDS}"
)

_IN_ORDER: Final = (
    f"SELECT m.timestamp, {_HOLDS} FROM messages_{{0}} m WHERE {{mine}} m.id > :since ORDER BY m.id"
)
_UPWARD: Final = Statements(_IN_ORDER)
_DOWNWARD: Final = Statements(f"{_IN_ORDER} DESC")

_SOME: Final = "SELECT m.codec FROM messages_{0} m WHERE {mine} true ORDER BY m.id"
_CODECS: Final = Statements(
    f"SELECT codec FROM ({_SOME} LIMIT :sample) UNION"
    f" SELECT codec FROM ({_SOME} DESC LIMIT :sample)"
)


@attrs.frozen
class TopicThen:
    """A topic as it was in the moment of a snapshot.

    Attributes:
        stored: what is kept of it; how many messages it holds is exact.
        channels: its channels by name; what they hold is exact.
        known: which of its messages are whose, and where they are.
    """

    stored: StoredTopic
    channels: list[StoredChannel]
    known: Known


def connect(path: str) -> sqlite3.Connection:
    """Open a store's file to read it, whoever has it open.

    Raises:
        StoreForeign: it is none of nsqlite's, or of another version.
        StoreDamaged: it is damaged, or its log is missing.
        StoreError: it is not there, or cannot be opened.
    """
    connection = open_to_read(path)
    try:
        with telling(path):
            [version] = connection.execute("PRAGMA user_version").fetchone()
        _check(path, version)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(path: str, version: int) -> None:
    if version > VERSION:
        problem = f"a later nsqlite wrote it (version {version}; this one knows {VERSION})"
        raise StoreForeign(path, problem)
    if version < VERSION:
        problem = f"an earlier nsqlite wrote it (version {version}): open it once with a broker"
        raise StoreForeign(path, problem)


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Tell SQLite's errors as ours, and those that a damaged value makes here."""
    try:
        with telling(path):
            yield
    except (TypeError, KeyError) as error:
        raise StoreDamaged(path, f"it is damaged: restore it from a backup ({error})") from error


def _oldest(left: int, pairs: Iterable[tuple[tuple[int, int], tuple[int, int]]]) -> int | None:
    """Return the timestamp of the first message that is held.

    Args:
        left: how many are.
        pairs: timestamps, and whether it is held; the first from the oldest, the second from the
            newest.
    """
    for (first, is_first), (last, is_last) in pairs:
        if is_first:
            return first
        left -= bool(is_last)
        if not left:
            return last
    return None


class Reader:
    """A file that is read by a connection of its own; a context manager."""

    def __init__(self, path: str) -> None:
        """Open a file.

        Raises:
            StoreError: see `connect`.
        """
        self._path: Final = path
        self._connection: Final = connect(path)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _partitions(self) -> dict[int, int]:
        """Return in which partition the messages of each topic are, by its number."""
        rows = self._connection.execute("SELECT number, partition FROM topic WHERE NOT gone")
        return dict(rows.fetchall())

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the file."""
        self.close()


class Snapshot(Reader):
    """One reading of a file.

    Every method raises `StoreError` where the file cannot be read.

    Attributes:
        topics: topics by name, with their channels by name; their counts are exact.
    """

    def __init__(self, path: str) -> None:
        """Open a file, and see it as it is now.

        Raises:
            StoreError: see `connect`.
        """
        super().__init__(path)
        try:
            with reading(path):
                self._connection.execute("BEGIN")
                self.topics: Final = self._topics()
        except BaseException:
            self.close()
            raise

    def _topics(self) -> list[TopicThen]:
        """Return the topics by name."""
        partitions = self._partitions()
        channels: dict[int, list[StoredChannel]] = {number: [] for number in partitions}
        for channel in sorted(read_channels(self._connection), key=attrgetter("name")):
            channels[channel.topic].append(channel)
        return [
            self._counted(topic, channels[topic.number], partitions[topic.number])
            for topic in sorted(read_topics(self._connection), key=attrgetter("name"))
        ]

    def _counted(
        self, topic: StoredTopic, channels: list[StoredChannel], partition: int
    ) -> TopicThen:
        """Count what a topic and its channels hold, unless the file says it."""
        known = known_as(topic, partition, {one.number: one.since for one in channels})
        if not topic.counted:
            topic.held, held = count_rows(self._connection, topic.number, known)
            for channel in channels:
                channel.held = held[channel.number]
        return TopicThen(topic, channels, known)

    def last(self, topic: TopicThen) -> int:
        """Return the highest id of a topic's messages; 0 if it has none."""
        query, values = LAST[topic.known.partition], {"topic": topic.stored.number}
        with reading(self._path):
            [last] = self._connection.execute(query, values).fetchone()
        return last or 0

    # Of a queue: a channel, or with None what the topic itself holds

    def count_deferred(self, topic: TopicThen, channel: StoredChannel | None, now: int) -> int:
        """Return how many messages of a queue wait for a time after `now`.

        Args:
            topic: the topic.
            channel: the channel, None for what the topic itself holds.
            now: nanoseconds since the epoch.
        """
        values = {**_bounds(topic, channel), "now": now}
        with reading(self._path):
            return sum(
                self._connection.execute(query[topic.known.partition], values).fetchone()[0]
                for query in (_DEFERRED, _REQUEUED)
            )

    def find_oldest(self, topic: TopicThen, channel: StoredChannel | None) -> int | None:
        """Return when the message of a queue with the lowest id was put; None if there is none.

        It looks from both ends, as many messages may lie there that only other channels hold: from
        the oldest for the first, and from the newest for the last one that is left.

        Returns:
            Nanoseconds since the epoch.
        """
        left = topic.stored.held if channel is None else channel.held
        if not left:
            return None
        values = _bounds(topic, channel)
        with reading(self._path):
            upward = self._connection.execute(_UPWARD[topic.known.partition], values)
            downward = self._connection.execute(_DOWNWARD[topic.known.partition], values)
            return _oldest(left, zip(upward, downward, strict=False))

    def codecs(self, topic: TopicThen) -> list[str]:
        """Return the names of codecs that the oldest and newest `SAMPLE` messages need, sorted."""
        values = {"topic": topic.stored.number, "sample": SAMPLE}
        with reading(self._path):
            rows = self._connection.execute(_CODECS[topic.known.partition], values).fetchall()
        return sorted(codec for (codec,) in rows if codec is not None)


def _bounds(topic: TopicThen, channel: StoredChannel | None) -> dict[str, int | None]:
    """Return what a query needs to find the messages of a queue."""
    number, upto = topic.stored.number, topic.known.upto
    if channel is None:
        return {"topic": number, "channel": None, "since": upto, "upto": HIGHEST}
    return {"topic": number, "channel": channel.number, "since": channel.since, "upto": upto}
