"""What a file is told in SQL, and what its errors mean.

The rule: each statement that the interpreter makes SQLite step through gives the interpreter's lock
away; so what is much is told by one, with many rows or a list of ids.

Next: store/writer.py
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from operator import itemgetter
from typing import Final, TypeVar

from nsqlite.errors import StoreDamaged, StoreError, StoreForeign, StoreFull
from nsqlite.store.store import Row, StoredChannel

PUT: Final = "INSERT OR IGNORE INTO message_{} VALUES (?, ?, ?, ?, ?, ?)"

PUT_PLAIN: Final = "INSERT OR IGNORE INTO message_{} VALUES "
PLAIN_ROW: Final = "(?, ?, NULL, NULL, NULL, ?)"
"""For bytes that are due at once and meant for all channels."""

TOGETHER: Final = 20
"""Up to so many plain messages are put by one statement, in half the time of as many."""

BULK: Final = 200
"""So many plain messages are put by one statement where there are more."""

EMPTY: Final = "DELETE FROM message_{} WHERE id > ? AND id <= ? AND only IS NULL"

IN_LIST: Final = "id IN (SELECT value FROM json_each(?))"
"""Of a list of ids; one statement for all of them, since each gives the interpreter's lock away."""

_COUNTED: Final = " ON CONFLICT (id, channel) DO UPDATE SET attempts = excluded.attempts"

COUNT: Final = "INSERT INTO copy SELECT id, ?, ?, NULL, 0 FROM message_{} WHERE id = ?" + _COUNTED
COUNT_LIST: Final = (
    f"INSERT INTO copy SELECT id, ?, ?, NULL, 0 FROM message_{{}} WHERE {IN_LIST}{_COUNTED}"
)
COPY_LIST: Final = (
    "INSERT INTO copy SELECT value, ?, ?, ?, 0 FROM json_each(?) WHERE true"
    f"{_COUNTED}, due = coalesce(excluded.due, due)"
)
DONE_LIST: Final = (
    "INSERT INTO copy SELECT value, ?, 0, NULL, 1 FROM json_each(?) WHERE true"
    " ON CONFLICT (id, channel) DO UPDATE SET due = NULL, gone = 1"
)

_FOUND: Final = """
SELECT m.id, m.timestamp, coalesce(c.due, m.due), m.codec, m.data, coalesce(c.attempts, 0)
FROM message_{0} m LEFT JOIN copy c ON c.id = m.id AND c.channel = :channel
"""

READY: Final = _FOUND + (
    "WHERE m.id > :after AND m.id <= :upto AND m.due IS NULL AND m.only IS NULL"
    " AND coalesce(c.gone, 0) = 0 AND c.due IS NULL ORDER BY m.id LIMIT :limit"
)
APART: Final = _FOUND + (
    "WHERE m.id > :after AND (m.due IS NOT NULL OR m.only IS NOT NULL)"
    " AND (m.only = :channel OR (m.only IS NULL AND m.id <= :upto)) AND coalesce(c.gone, 0) = 0"
)
REQUEUED: Final = _FOUND.replace("LEFT JOIN", "JOIN") + (
    "WHERE c.channel = :channel AND c.due IS NOT NULL AND c.id > :after"
    " AND c.id <= :upto AND m.due IS NULL AND m.only IS NULL AND c.gone = 0"
)

UNHELD: Final = """
NOT EXISTS (
    SELECT 1 FROM channel h WHERE h.topic = {0} AND h.since < message_{0}.id
    AND (message_{0}.only IS NULL OR message_{0}.only = h.number)
    AND NOT EXISTS (
        SELECT 1 FROM copy g WHERE g.id = message_{0}.id AND g.channel = h.number AND g.gone
    )
)
"""

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
}
"""What SQLite's errors mean to users."""


PLAIN: Final = (None, None, None)

KIND: Final = itemgetter(2, 3, 4)
"""What is `PLAIN` of a plain row: due, only, codec."""

REST: Final = itemgetter(0, 1, 5)
"""What a plain row has besides: id, timestamp, bytes."""

STATEMENTS: Final = 500
"""How many statements SQLite keeps prepared; each topic has some of its own."""


K = TypeVar("K")


class Statements(dict[int, str]):
    """A statement for each topic, by its number."""

    def __init__(self, text: str) -> None:
        """Take the statement with a place for the number."""
        super().__init__()
        self._text: Final = text

    def __missing__(self, number: int) -> str:
        """Make it."""
        statement = self[number] = self._text.format(number)
        return statement


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


def read_channels(connection: sqlite3.Connection, topic: int) -> list[StoredChannel]:
    """Return the channels of a topic as they were written last, by their numbers."""
    rows = connection.execute(
        "SELECT number, name, paused, since, held FROM channel WHERE topic = ? ORDER BY number",
        (topic,),
    )
    return [
        StoredChannel(number=number, name=name, paused=bool(paused), since=since, held=held)
        for number, name, paused, since, held in rows
    ]


REFUSED: Final = (sqlite3.Error, OverflowError, UnicodeError)
"""What `sqlite3` raises where it cannot do what it is told."""


def told(where: str, error: Exception) -> StoreError:
    """Return SQLite's error as one of ours."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    kind, text = PROBLEMS.get(code, (StoreError, "it cannot be used"))
    return kind(where, f"{text} ({error})")


@contextmanager
def telling(where: str) -> Iterator[None]:
    """Tell SQLite's errors as ours."""
    try:
        yield
    except REFUSED as error:
        raise told(where, error) from error
