"""What a file is told in SQL, what its rows mean, and what its errors do.

The rule: each statement that the interpreter makes SQLite step through gives the interpreter's lock
away; so what is much is told by one, with many rows or a list of ids.

Next: store/newfile.py
"""

import os
import sqlite3
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any, Final, TypeVar
from zlib import crc32

from nsqlite.errors import StoreDamaged, StoreError, StoreForeign, StoreFull
from nsqlite.store.schema import SHARED
from nsqlite.store.storage import HIGHEST, PAGE_BYTES, Found, Row, StoredChannel, StoredTopic


class Statements(dict[int, str]):
    """A statement for each partition of the messages, by its number.

    In its text `{0}` is the number, and `{mine}` what leaves out other topics' messages, where
    there are such; where not, a message is found whatever its row says.
    """

    def __init__(self, text: str) -> None:
        """Take the text."""
        super().__init__()
        self._text: Final = text

    def __missing__(self, partition: int) -> str:
        """Make it."""
        mine = "m.topic = :topic AND" if partition == SHARED else ""
        statement = self[partition] = self._text.format(partition, mine=mine)
        return statement


PUT: Final = Statements(
    "INSERT OR IGNORE INTO messages_{0} (id, timestamp, due, only, codec, data, topic, crc)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)

TOGETHER: Final = 20
"""Up to so many plain messages are put by one statement, in half the time of as many."""

BULK: Final = 100
"""So many plain messages are put by one statement where there are more."""

PUT_PLAIN: Final = {
    count: Statements(
        "INSERT OR IGNORE INTO messages_{0} (id, timestamp, data, topic, crc) VALUES "
        + ", ".join(["(?, ?, ?, ?, ?)"] * count)
    )
    for count in (*range(1, TOGETHER + 1), BULK)
}
"""By the number of rows; for bytes that are due at once and meant for all channels."""

PUT_ONE: Final = PUT_PLAIN[1]

_LISTED: Final = "FROM json_each(:ids) CROSS JOIN messages_{0} m ON m.id = value"
"""Messages of a list of ids; one statement for all of them, as that gives the lock away once."""

_COUNTED: Final = " ON CONFLICT (channel, id) DO UPDATE SET attempts = excluded.attempts"

COUNT: Final = Statements(
    f"INSERT INTO copy SELECT ?, id, ?, NULL, 0 FROM messages_{{0}} WHERE id = ?{_COUNTED}"
)
COPY_LIST: Final = Statements(
    f"INSERT INTO copy SELECT :channel, m.id, :attempts, :due, 0 {_LISTED} WHERE true{_COUNTED},"
    " due = coalesce(excluded.due, due)"
)
DONE_LIST: Final = Statements(
    f"INSERT INTO copy SELECT :channel, m.id, 0, NULL, 1 {_LISTED} WHERE true"
    " ON CONFLICT (channel, id) DO UPDATE SET due = NULL, gone = 1"
)

_FOUND: Final = (
    "SELECT m.id, m.timestamp, m.due, m.only, m.codec, m.data, m.crc,"
    " c.due, coalesce(c.attempts, 0)"
)

READY: Final = Statements(
    f"{_FOUND} FROM messages_{{0}} m LEFT JOIN copy c ON c.channel = :channel AND c.id = m.id"
    " WHERE {mine} m.id > :after AND m.id <= :upto AND m.due IS NULL AND m.only IS NULL"
    " AND coalesce(c.gone, 0) = 0 AND c.due IS NULL ORDER BY m.id LIMIT :limit"
)
_MINE: Final = "(m.only = :channel OR (m.only IS NULL AND m.id <= :upto))"
_DELAYED: Final = (
    " FROM messages_{0} m INDEXED BY apart_{0}"
    " LEFT JOIN copy c ON c.channel = :channel AND c.id = m.id"
    " WHERE m.topic = :topic AND m.id > :after AND (m.due IS NOT NULL OR m.only IS NOT NULL)"
    f" AND {_MINE} AND coalesce(c.gone, 0) = 0 AND c.due IS NULL"
)
_REQUEUED: Final = (
    " FROM copy c INDEXED BY copy_due CROSS JOIN messages_{0} m ON m.id = c.id"
    f" WHERE c.channel = :channel AND c.due IS NOT NULL AND c.id > :after AND {_MINE}"
    " AND c.gone = 0"
)

# What is due after the highest number is due at no time: it is no number.
APART: Final = (
    Statements(f"{_FOUND}{_DELAYED} AND m.due IS NULL"),
    Statements(f"{_FOUND}{_DELAYED} AND m.due > {HIGHEST}"),
    Statements(f"{_FOUND}{_REQUEUED} AND c.due > {HIGHEST}"),
)
DEFERRED: Final = (
    Statements(
        f"{_FOUND}{_DELAYED} AND (m.due, m.id) > (:due, :id) AND m.due <= {HIGHEST}"
        " ORDER BY m.due, m.id LIMIT :limit"
    ),
    Statements(
        f"{_FOUND}{_REQUEUED} AND (c.due, c.id) > (:due, :id) AND c.due <= {HIGHEST}"
        " ORDER BY c.due, c.id LIMIT :limit"
    ),
)
FIND: Final = Statements(
    f"{_FOUND} FROM messages_{{0}} m LEFT JOIN copy c ON c.channel = :channel AND c.id = m.id"
    " WHERE {mine} m.id = :id AND (m.only IS NULL OR m.only = :channel)"
    " AND coalesce(c.gone, 0) = 0"
)
COUNT_DEFERRED: Final = (
    Statements(f"SELECT count(*){_DELAYED} AND m.due <= {HIGHEST}"),
    Statements(f"SELECT count(*){_REQUEUED} AND c.due <= {HIGHEST}"),
)
ALONE_ABOVE: Final = Statements(
    "SELECT m.id FROM messages_{0} m INDEXED BY apart_{0} WHERE m.topic = :topic"
    " AND (m.due IS NOT NULL OR m.only IS NOT NULL) AND m.only = :channel AND m.id > :upto"
)

_UNHELD: Final = """
(m.id <= :upto OR m.only IS NOT NULL) AND NOT EXISTS (
    SELECT 1 FROM channel h WHERE h.topic = :topic AND NOT h.gone AND h.since < m.id
    AND (m.only IS NULL OR m.only = h.number)
    AND NOT EXISTS (SELECT 1 FROM copy g WHERE g.channel = h.number AND g.id = m.id AND g.gone)
)
"""
UNHELD_LIST: Final = Statements(f"SELECT m.id {_LISTED} WHERE {_UNHELD}")
UNHELD: Final = Statements(
    f"SELECT m.id FROM messages_{{0}} m WHERE {{mine}} m.id > :after AND m.id <= :last AND{_UNHELD}"
)

EMPTY: Final = Statements(
    "DELETE FROM messages_{0} AS m WHERE {mine} m.id > :after AND m.id <= :upto AND m.only IS NULL"
)
NEXT: Final = Statements(
    "SELECT m.id, length(m.data) FROM messages_{0} m"
    " WHERE {mine} m.id > :after ORDER BY m.id LIMIT :limit"
)
LAST: Final = Statements("SELECT max(m.id) FROM messages_{0} m WHERE {mine} true")

SIZE: Final = Statements(
    "SELECT {{what}} FROM messages_{0} m WHERE {mine} m.id > :after AND m.id <= :upto"
)
ALONE: Final = Statements(
    "SELECT m.only, count(*) FROM messages_{0} m INDEXED BY apart_{0}"
    " CROSS JOIN channel h ON h.number = m.only AND h.since < m.id"
    " WHERE m.topic = :topic AND (m.due IS NOT NULL OR m.only IS NOT NULL) GROUP BY m.only"
)

HAS_APART: Final = Statements(
    "SELECT 1 FROM messages_{0} INDEXED BY apart_{0}"
    " WHERE topic = :topic AND (due IS NOT NULL OR only IS NOT NULL) LIMIT 1"
)

MESSAGE: Final = "id, timestamp, due, only, codec, data, crc"
"""What `is_intact` is told of a message."""

_WAITING: Final = (
    f"SELECT {MESSAGE}, topic FROM messages_{{0}} INDEXED BY apart_{{0}}"
    " WHERE (due IS NOT NULL OR only IS NOT NULL)"
)

WAITING: Final = Statements(f"{_WAITING} AND due IS NOT NULL")
"""All that was put with a delay."""

PUT_LATER: Final = Statements(f"{_WAITING} AND timestamp > ? AND due > timestamp")
"""What waits, and was put later than now.  To look for it takes a tenth of what reading it does."""

PUT_NOW: Final = Statements("UPDATE messages_{0} SET timestamp = ?, due = ?, crc = ? WHERE id = ?")

WRITE_TOPIC: Final = (
    "INSERT INTO topic (number, partition, name, paused, handed, held, counted)"
    " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (number) DO UPDATE SET paused = excluded.paused,"
    " handed = excluded.handed, held = excluded.held, counted = excluded.counted"
)
WRITE_CHANNEL: Final = (
    "INSERT INTO channel (number, topic, name, paused, since, held) VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (number) DO UPDATE SET paused = excluded.paused, since = excluded.since,"
    " held = excluded.held"
)
SET_DRIFT: Final = "UPDATE highest SET drift = ?"

RAISE_HIGHEST: Final = (
    "UPDATE highest SET topic = max(topic, :topic), channel = max(channel, :channel),"
    " id = max(id, :id), now = max(now, :now)"
    " WHERE topic < :topic OR channel < :channel OR id < :id OR now < :now"
)

GONE_COPIES: Final = Statements(
    "SELECT count(*) FROM copy c CROSS JOIN messages_{0} m ON m.id = c.id"
    " WHERE c.channel = :channel AND c.id > :since AND c.gone"
    " AND (m.only = :channel OR (m.only IS NULL AND m.id <= :upto))"
)

COPIED: Final = (
    "SELECT number FROM channel WHERE topic = :topic AND NOT gone AND EXISTS"
    " (SELECT 1 FROM copy WHERE channel = number AND id BETWEEN :first AND :last)"
)

K = TypeVar("K")


def runs(identities: list[int]) -> list[tuple[int, int]]:
    """Return the first and last of each run of ids that follow upon each other, of sorted ones."""
    edges = [0]
    edges += [i for i in range(1, len(identities)) if identities[i] != identities[i - 1] + 1]
    ends = [*edges[1:], len(identities)]
    return [(identities[i], identities[j - 1]) for i, j in zip(edges, ends, strict=True) if j]


def pieces(rows: list[Row]) -> Iterator[list[Row]]:
    """Go through rows in pieces of `BULK`, then of `TOGETHER`, then what is left."""
    first = 0
    for size in (BULK, TOGETHER):
        last = len(rows) - size
        while first <= last:
            yield rows[first : first + size]
            first += size
    if first < len(rows):
        yield rows[first:]


def grouped(pairs: Iterable[tuple[int, K]]) -> Iterable[tuple[K, list[int]]]:
    """Return ids by what goes with them."""
    groups: dict[K, list[int]] = {}
    for identity, key in pairs:
        groups.setdefault(key, []).append(identity)
    return groups.items()


# Rows


def read_topics(connection: sqlite3.Connection) -> list[StoredTopic]:
    """Return the topics as they were written last, by their numbers."""
    query = "SELECT number, name, paused, handed, held, counted FROM topic WHERE NOT gone"
    return [
        StoredTopic(
            number=number,
            name=name,
            paused=bool(paused),
            handed=handed,
            held=held,
            counted=bool(counted),
        )
        for number, name, paused, handed, held, counted in _read(
            connection, f"{query} ORDER BY number", (int, str, int, int, int, int)
        )
    ]


def read_channels(connection: sqlite3.Connection) -> list[StoredChannel]:
    """Return the channels as they were written last, by their numbers."""
    query = "SELECT number, topic, name, paused, since, held FROM channel WHERE NOT gone"
    return [
        StoredChannel(
            number=number, topic=topic, name=name, paused=bool(paused), since=since, held=held
        )
        for number, topic, name, paused, since, held in _read(
            connection, f"{query} ORDER BY number", (int, int, str, int, int, int)
        )
    ]


def _read(
    connection: sqlite3.Connection, query: str, types: tuple[type, ...]
) -> Iterator[tuple[Any, ...]]:
    """Go through rows of values that must have these types."""
    for row in connection.execute(query):
        if not all(map(isinstance, row, types)):
            error = sqlite3.DatabaseError(f"what was {row!r} before?")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
        yield row


PLAIN: Final = (None, None, None)
"""What a plain row has for due, only and codec."""

WRONG: Final = (TypeError, struct.error)
"""What is raised where a value has not the type that it was written with."""

PRIME: Final = (1 << 32) - 5
"""The largest of 32 bits: what differs in one bit, or by less, differs in what is left of it."""


def checksum(topic: int, row: Row) -> int:
    """Return what is kept with a message, to find out whether it is still what was put."""
    identity, timestamp, _, _, _, data = row
    start = (identity + 3 * timestamp + 5 * topic) % PRIME
    if row[2:5] != PLAIN:
        start = crc32(repr(row[2:5]).encode(), start)
    return crc32(data, start)


def first_checksum(topic: int, row: Row) -> int:
    """Return what was kept of a message by those who first wrote files of version 2."""
    head = struct.pack("<qqq", topic, row[0], row[1])
    if row[2:5] != PLAIN:
        head += repr(row[2:5]).encode()
    return crc32(row[5], crc32(head))


def no_checksum(_topic: int, _row: Row) -> None:
    """Make none."""


def plain_values(topic: int, rows: list[Row]) -> tuple[object, ...]:
    """Return what `PUT_PLAIN` is told of plain rows, with the checksums in place."""
    return tuple(
        [
            value
            for identity, timestamp, _, _, _, data in rows
            for value in (
                identity,
                timestamp,
                data,
                topic,
                crc32(data, (identity + 3 * timestamp + 5 * topic) % PRIME),
            )
        ]
    )


def unchecked_values(topic: int, rows: list[Row]) -> tuple[object, ...]:
    """Return the same without checksums."""
    return tuple([value for row in rows for value in (row[0], row[1], row[5], topic, None)])


def taken(rows: Iterable[Any], limit: int | None) -> list[Any]:
    """Return the rows of a page of messages, which were selected with `_FOUND`; see `cut`.

    Args:
        rows: all that there may be.
        limit: less than 0 if there is none, and None if the rows are no messages.
    """
    if limit is None or limit < 0:
        return list(rows)
    page = []
    size = 0
    for row in rows:
        page.append(row)
        if size >= PAGE_BYTES:
            break
        size += len(row[5]) if row[5].__class__ is bytes else 0
    return page


def found(topic: int, rows: list[Any]) -> list[Found]:
    """Return messages that were selected with `_FOUND`, of whatever types their values are."""
    try:
        return [
            (row[0], row[1], None, None, row[5], row[8], True)
            if row[2] is row[3] is row[4] is row[7] is None
            and row[6] == crc32(row[5], (row[0] + 3 * row[1] + 5 * topic) % PRIME)
            and row[8].__class__ is int
            else _found(topic, row)
            for row in rows
        ]
    except WRONG:
        return [_found(topic, row) for row in rows]


def _found(topic: int, row: Any) -> Found:
    identity, timestamp, due, _, codec, data, _, again, attempts = row
    counts = isinstance(attempts, int) and isinstance(again, int | None)
    if counts and is_intact(topic, row[:7]):
        return identity, timestamp, due if again is None else again, codec, data, attempts, True
    return (
        identity,
        timestamp if isinstance(timestamp, int) else 0,
        next((ceil(time) for time in (again, due) if isinstance(time, int | float)), None),
        codec if isinstance(codec, str) else None,
        data if isinstance(data, bytes) else str(data).encode(errors="replace"),
        attempts if isinstance(attempts, int) else 0,
        False,
    )


def is_intact(topic: int, row: Any) -> bool:
    """Return whether a message, selected as `MESSAGE`, is what was put, as far as can be told."""
    _, timestamp, due, _, codec, data, crc = row
    if crc is None:  # none was made: only the types can tell
        types = (int, int | None, str | None, bytes)
        return all(map(isinstance, (timestamp, due, codec, data), types))
    try:
        return crc in (checksum(topic, row[:6]), first_checksum(topic, row[:6]))
    except WRONG:
        return False


# Errors

PROBLEMS: Final[dict[int, tuple[type[StoreError], str]]] = {
    sqlite3.SQLITE_FULL: (StoreFull, "the disk is full: make room, and it goes on by itself"),
    sqlite3.SQLITE_CORRUPT: (StoreDamaged, "it is damaged: restore it from a backup"),
    sqlite3.SQLITE_NOTADB: (StoreForeign, "it is no SQLite file"),
    sqlite3.SQLITE_CANTOPEN: (StoreError, "it cannot be opened: look at its directory"),
    sqlite3.SQLITE_READONLY: (
        StoreError,
        "it cannot be written: look at the permissions, its own and its directory's",
    ),
    sqlite3.SQLITE_BUSY: (StoreError, "another program has locked it"),
    sqlite3.SQLITE_TOOBIG: (StoreError, "SQLite keeps no body of this length: put a shorter one"),
}
"""What SQLite's errors mean to users."""

NEEDED: Final = 1 << 16
"""With fewer bytes free on the disk, what SQLite says of the disk means that it is full."""

REFUSED: Final = (sqlite3.Error, OverflowError, UnicodeError)
"""What is raised where SQLite cannot do what it is told, or keep a number."""


def told(where: str, error: Exception) -> StoreError:
    """Return SQLite's error as one of ours."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and is_full(where):
        code = sqlite3.SQLITE_FULL
    kind, text = PROBLEMS.get(code, (StoreError, "it cannot be used"))
    return kind(where, f"{text} ({error})")


def is_full(path: str) -> bool:
    """Return whether there is no room for a file to grow."""
    try:
        disk = os.statvfs(Path(path).parent)
    except (OSError, AttributeError):  # it cannot be known, or not on this system
        return False
    return disk.f_bavail * disk.f_frsize < NEEDED


@contextmanager
def telling(where: str) -> Iterator[None]:
    """Tell SQLite's errors as ours."""
    try:
        yield
    except REFUSED as error:
        raise told(where, error) from error
