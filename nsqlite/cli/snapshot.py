"""A store's file as it was at one moment, for whoever only looks.

The rule: it never changes the file, never takes its owner's lock, and leaves nothing beside it; all
that one snapshot tells belongs to one moment, also while the owner goes on writing.

What a running owner has not written yet is not seen: what happened to messages in the last
`sync_timeout`, and with ``sync="interval"`` the last puts.  So a message in flight counts as ready,
as which it would come back.

Costs: counts come from the owner's last account and the messages put after it, so looking at a
long queue is as fast as at a short one.  While a long reading lasts, the write-ahead log grows.

Next: cli/progress.py
"""

import sqlite3
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from operator import attrgetter, itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from nsqlite.cli.failure import why
from nsqlite.cli.lines import LARGEST, Held, MessageLine
from nsqlite.errors import StoreDamaged, StoreError, StoreForeign, shown
from nsqlite.store.schema import MARK, VERSION
from nsqlite.store.statements import read_channels, telling
from nsqlite.store.store import StoredChannel, StoredTopic

PATIENCE: Final = 5.0
"""Seconds to wait for an owner that is just opening the file, or closing it."""

SAMPLE: Final = 1000
"""How many of the oldest and of the newest messages are asked for their codecs."""

LATE: Final = "SELECT count(*), max(id) FROM message_{0} WHERE id > ?"
LATE_ALONE: Final = (
    "SELECT only, count(*) FROM message_{0} INDEXED BY message_{0}_apart"
    " WHERE id > ? AND only IS NOT NULL GROUP BY only"
)

HOLDS: Final = """
((m.only IS NULL AND m.id <= :upto) OR m.only IS :channel)
AND NOT EXISTS (SELECT 1 FROM copy g WHERE g.id = m.id AND g.channel = :channel AND g.gone)
"""
"""Whether a message above `since` is held by a channel; by the topic, with None for the channel."""

DEFERRED: Final = """
SELECT count(*) FROM message_{0} m INDEXED BY message_{0}_apart
LEFT JOIN copy c ON c.id = m.id AND c.channel = :channel
WHERE m.due > :now AND m.id > :since AND c.due IS NULL AND {1}
"""
REQUEUED: Final = """
SELECT count(*) FROM copy c JOIN message_{0} m ON m.id = c.id
WHERE c.channel = :channel AND c.due > :now AND m.id > :since AND {1}
"""

IN_ORDER: Final = "SELECT m.timestamp, {1} FROM message_{0} m WHERE m.id > :since ORDER BY m.id"

CODECS: Final = """
SELECT codec FROM (SELECT codec FROM message_{0} ORDER BY id LIMIT :sample)
UNION SELECT codec FROM (SELECT codec FROM message_{0} ORDER BY id DESC LIMIT :sample)
"""

ALL: Final = """
SELECT m.id, m.timestamp, m.due, m.only, m.codec, m.data, c.channel, c.attempts, c.due, c.gone
FROM message_{0} m LEFT JOIN copy c ON c.id = m.id ORDER BY m.id
"""


def connect(path: str) -> sqlite3.Connection:
    """Open a store's file to read it.

    Raises:
        StoreForeign: it is none of nsqlite's, or of another version.
        StoreDamaged: it is damaged.
        StoreError: it is not there, or cannot be opened.
    """
    _require_file(path)
    # Whoever may only read cannot remove what it must make beside a file that nobody has open; but
    # where the log lies there already, whoever may write would copy it into the file at the end.
    mode = "ro" if is_there(f"{path}-wal") else "rw"
    uri = f"{Path(path).absolute().as_uri()}?mode={mode}"
    with telling(path):
        connection = sqlite3.connect(uri, uri=True, timeout=PATIENCE, isolation_level=None)
        try:
            connection.execute("PRAGMA query_only = 1")
            _check(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def is_there(path: str) -> bool:
    """Return whether there is a file or directory, as far as one may look."""
    try:
        Path(path).stat()
    except OSError:
        return False
    return True


def _require_file(path: str) -> None:
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(path, "there is no such file") from None
    except OSError as error:
        raise StoreError(path, f"it cannot be read: {why(error)}") from None
    if not stat.S_ISREG(mode):
        raise StoreError(path, "it is no file")


def _check(connection: sqlite3.Connection, path: str) -> None:
    [mark] = connection.execute("PRAGMA application_id").fetchone()
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if mark != MARK:
        raise StoreForeign(path, "it is no file of nsqlite's")
    if version > VERSION:
        problem = f"a later nsqlite wrote it (version {version}; this one knows {VERSION})"
        raise StoreForeign(path, problem)
    if version < VERSION:
        problem = f"an earlier nsqlite wrote it (version {version}): open it once with a broker"
        raise StoreForeign(path, problem)


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Tell SQLite's errors as ours, and those that a damaged value of another type makes here."""
    try:
        with telling(path):
            yield
    except TypeError as error:
        raise StoreDamaged(path, f"it is damaged: restore it from a backup ({error})") from error


def is_flowing(topic: StoredTopic) -> bool:
    """Return whether a topic hands its messages on to its channels at once."""
    return bool(topic.channels) and not topic.paused


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


class Snapshot:
    """One reading of a file; a context manager.

    Every method raises `StoreError` where the file cannot be read.

    Attributes:
        topics: topics by name, with their channels by name; their counts are exact.
    """

    def __init__(self, path: str) -> None:
        """Open a file, and see it as it is now.

        Raises:
            StoreError: see `connect`.
        """
        self._path: Final = path
        self._connection: Final = connect(path)
        try:
            with _reading(path):
                self._connection.execute("BEGIN")
                self.topics: Final = [self._counted(topic) for topic in self._stored_topics()]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        """Return the snapshot."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the file."""
        self.close()

    def _stored_topics(self) -> list[StoredTopic]:
        rows = self._connection.execute(
            "SELECT number, name, paused, handed, last, held FROM topic WHERE NOT gone"
            " ORDER BY name"
        ).fetchall()
        return [
            StoredTopic(
                number=number,
                name=name,
                paused=bool(paused),
                handed=handed,
                last=last,
                held=held,
                channels=sorted(read_channels(self._connection, number), key=attrgetter("name")),
            )
            for number, name, paused, handed, last, held in rows
        ]

    def _counted(self, topic: StoredTopic) -> StoredTopic:
        """Count what was put after the last account."""
        execute = self._connection.execute
        after = (topic.last,)
        [count, last] = execute(LATE.format(topic.number), after).fetchone()
        alone: dict[int, int] = dict(execute(LATE_ALONE.format(topic.number), after).fetchall())
        common = count - sum(alone.values())
        flowing = is_flowing(topic)
        topic.last = last or topic.last
        for channel in topic.channels:
            channel.held += alone.get(channel.number, 0) + (common if flowing else 0)
        if flowing:
            topic.handed, topic.held = topic.last, 0
        else:
            topic.held += common
        return topic

    # Of a queue: a channel, or with None what the topic itself holds

    def count_deferred(self, topic: StoredTopic, channel: StoredChannel | None, now: int) -> int:
        """Return how many messages of a queue wait for a time after `now`.

        Args:
            topic: the topic.
            channel: the channel, None for what the topic itself holds.
            now: nanoseconds since the epoch.
        """
        values = {**_bounds(topic, channel), "now": now}
        with _reading(self._path):
            execute = self._connection.execute
            [deferred] = execute(DEFERRED.format(topic.number, HOLDS), values).fetchone()
            [requeued] = execute(REQUEUED.format(topic.number, HOLDS), values).fetchone()
        count: int = deferred + requeued
        return count

    def find_oldest(self, topic: StoredTopic, channel: StoredChannel | None) -> int | None:
        """Return when the message of a queue with the lowest id was put; None if there is none.

        It looks from both ends, as many messages may lie there that only other channels hold: from
        the oldest for the first, and from the newest for the last one that is left.

        Returns:
            Nanoseconds since the epoch.
        """
        left = topic.held if channel is None else channel.held
        if not left:
            return None
        query = IN_ORDER.format(topic.number, HOLDS)
        values = _bounds(topic, channel)
        with _reading(self._path):
            upward = self._connection.execute(query, values)
            downward = self._connection.execute(f"{query} DESC", values)
            return _oldest(left, zip(upward, downward, strict=False))

    def codecs(self, topic: StoredTopic) -> list[str]:
        """Return the names of codecs that the oldest and newest `SAMPLE` messages need, sorted."""
        with _reading(self._path):
            query = CODECS.format(topic.number)
            rows = self._connection.execute(query, {"sample": SAMPLE}).fetchall()
        return sorted(codec for (codec,) in rows if codec is not None)

    # All there is

    def messages(self, topic: StoredTopic) -> Iterator[MessageLine]:
        """Go through the messages of a topic that somebody holds, in the order of their ids.

        They are read as they are asked for.
        """
        with _reading(self._path):
            yield from self._messages(topic)

    def _messages(self, topic: StoredTopic) -> Iterator[MessageLine]:
        channels = {channel.number: channel for channel in topic.channels}
        flowing = is_flowing(topic)
        rows = self._connection.execute(ALL.format(topic.number))
        for _, group in groupby(rows, itemgetter(0)):
            [identity, timestamp, due, only, codec, data, *_], *_ = copies = list(group)
            is_topics = only is None and identity > topic.handed and not flowing
            held = () if is_topics else tuple(_held(copies, channels))
            if is_topics or held:
                if not isinstance(data, bytes):
                    raise TypeError(f"body {shown(data)}")
                yield MessageLine(
                    topic=topic.name,
                    id=identity,
                    timestamp=timestamp,
                    data=data,
                    codec=codec,
                    channels=held or None,
                    due=due if is_topics else None,
                )


def _bounds(topic: StoredTopic, channel: StoredChannel | None) -> dict[str, int | None]:
    """Return what a query needs to find the messages of a queue."""
    if channel is None:
        return {"channel": None, "since": topic.handed, "upto": LARGEST}
    return {"channel": channel.number, "since": channel.since, "upto": topic.handed}


def _held(rows: list[Any], channels: dict[int, StoredChannel]) -> Iterator[Held]:
    """Go through the channels that hold a message, of its rows: one for each copy, or one."""
    identity, _, common_due, only, *_ = rows[0]
    copies = {row[6]: row[7:] for row in rows}
    for number, channel in channels.items():
        attempts, due, gone = copies.get(number, (0, None, False))
        if not gone and identity > channel.since and only in (None, number):
            yield Held(channel.name, attempts, common_due if due is None else due)
