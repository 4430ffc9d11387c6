"""What a file is told in SQL, what its rows mean, and what its errors do."""

import os
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nsqlite import StoreDamaged, StoreError, StoreFull
from nsqlite.store import Found, Row
from nsqlite.store.sqlitefile import SQLiteFile
from nsqlite.store.statements import (
    BULK,
    NEEDED,
    READY,
    TOGETHER,
    checksum,
    found,
    pieces,
    plain_values,
    read_channels,
    read_topics,
    runs,
    telling,
    told,
    unchecked_values,
)
from store.files import HIGHEST, row


@pytest.mark.parametrize(
    ("identities", "expected"),
    [
        ([], []),
        ([5], [(5, 5)]),
        ([1, 2, 3], [(1, 3)]),
        ([1, 3, 4, 9], [(1, 1), (3, 4), (9, 9)]),
        ([0, HIGHEST - 1, HIGHEST], [(0, 0), (HIGHEST - 1, HIGHEST)]),
    ],
)
def test_runs(identities: list[int], expected: list[tuple[int, int]]) -> None:
    """Ids that follow upon each other are one run."""
    assert expected == runs(identities)


def test_an_error_that_has_no_number() -> None:
    """What SQLite did not give a number is told in its own words."""
    error = told("jobs.db", sqlite3.ProgrammingError("Cannot operate on a closed database."))
    assert StoreError is type(error)
    expected = "store jobs.db: it cannot be used (Cannot operate on a closed database.)"
    assert expected == str(error)


@pytest.mark.parametrize("count", [0, 1, TOGETHER - 1, TOGETHER, TOGETHER + 1, BULK, 2 * BULK + 99])
def test_pieces(count: int) -> None:
    """All rows come, in order, in as few pieces as there are statements for."""
    rows = [row(identity) for identity in range(count)]
    parts = list(pieces(rows))
    assert rows == [one for part in parts for one in part]
    left = count % BULK
    assert count // BULK + left // TOGETHER + bool(left % TOGETHER) == len(parts)
    assert all(0 < len(part) <= TOGETHER or len(part) == BULK for part in parts)


def test_a_partition_has_its_statements() -> None:
    """They name its table; only the one that topics share leaves out those of others."""
    assert "FROM messages_3 m" in READY[3]
    assert "m.topic = :topic" in READY[0]
    assert "m.topic" not in READY[3]
    assert READY[3] is READY[3]


# Rows


def selected(given: Row, crc: int | None, due: Any = None, attempts: Any = 0) -> list[Any]:
    """Return a message as it is selected, with a copy's due and attempts."""
    return [*given, crc, due, attempts]


def test_a_checksum_is_of_all_that_a_message_is() -> None:
    """A change of anything changes it, and nothing else does."""
    one: Row = (5, 6, 7, 8, "json", b"body")
    others: list[Row] = [
        (4, 6, 7, 8, "json", b"body"),
        (5, 7, 7, 8, "json", b"body"),
        (5, 6, None, 8, "json", b"body"),
        (5, 6, 7, None, "json", b"body"),
        (5, 6, 7, 8, None, b"body"),
        (5, 6, 7, 8, "json", b"bod"),
    ]
    sums = {checksum(1, one), checksum(2, one), *(checksum(1, other) for other in others)}
    assert 8 == len(sums)
    assert checksum(1, one) == checksum(1, (5, 6, 7, 8, "json", b"bo" + b"dy"))


def test_values_of_plain_rows() -> None:
    """Those of several rows in a line have the same checksums, or none."""
    rows = [row(1, b"a"), row(2, b"b")]
    sums = [checksum(7, one) for one in rows]
    assert (1, 1, b"a", 7, sums[0], 2, 2, b"b", 7, sums[1]) == plain_values(7, rows)
    assert (1, 1, b"a", 7, None, 2, 2, b"b", 7, None) == unchecked_values(7, rows)


@pytest.mark.parametrize("crc", [True, False])
def test_what_is_intact_is_found(crc: bool) -> None:
    """With its own due, or that of the channel."""
    rows: list[Row] = [row(1), (2, 6, 7, None, "json", b"{}"), (3, 6, None, 4, None, b"x")]
    sums = [checksum(1, one) if crc else None for one in rows]
    first, second, third = rows
    some = [selected(first, sums[0]), selected(second, sums[1]), selected(second, sums[1], 9, 2)]
    some += [selected(third, sums[2], 8)]
    assert [
        (1, 1, None, None, b"x", 0, True),
        (2, 6, 7, "json", b"{}", 0, True),
        (2, 6, 9, "json", b"{}", 2, True),
        (3, 6, 8, None, b"x", 0, True),
    ] == found(1, [tuple(one) for one in some])


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        (1, "x", (2, 0, 7, "json", b"{}", 1, False)),
        (1, 5, (2, 5, 7, "json", b"{}", 1, False)),
        (2, "x", (2, 6, None, "json", b"{}", 1, False)),
        (2, 1, (2, 6, 1, "json", b"{}", 1, False)),
        (4, 5, (2, 6, 7, None, b"{}", 1, False)),
        (4, None, (2, 6, 7, None, b"{}", 1, False)),
        (5, "{\ufffd", (2, 6, 7, "json", "{\ufffd".encode(), 1, False)),
        (5, 5, (2, 6, 7, "json", b"5", 1, False)),
        (5, b"[]", (2, 6, 7, "json", b"[]", 1, False)),
        (6, "x", (2, 6, 7, "json", b"{}", 1, False)),
        (7, "x", (2, 6, 7, "json", b"{}", 1, False)),
        (8, "x", (2, 6, 7, "json", b"{}", 0, False)),
    ],
)
def test_what_is_not_intact_is_found_too(place: int, value: object, expected: Found) -> None:
    """Whatever one value of it has become; and so are the messages before and after it."""
    before, after = row(1), row(3)
    wrong = selected((2, 6, 7, None, "json", b"{}"), 0, None, 1)
    wrong[6] = checksum(1, (2, 6, 7, None, "json", b"{}"))
    wrong[place] = value
    rows = [selected(one, checksum(1, one)) for one in (before, after)]
    assert [
        (1, 1, None, None, b"x", 0, True),
        expected,
        (3, 3, None, None, b"x", 0, True),
    ] == found(1, [tuple(one) for one in (rows[0], wrong, rows[1])])


@pytest.mark.parametrize("place", [1, 5])
def test_a_plain_row_of_wrong_types_is_found(place: int) -> None:
    """Also beside others that are plain, with a checksum and without."""
    wrong = selected(row(2), checksum(1, row(2)))
    wrong[place] = "x"
    unchecked = [*wrong]
    unchecked[6] = None
    rows = [selected(row(1), checksum(1, row(1))), wrong, unchecked]
    assert [True, False, False] == [one[6] for one in found(1, [tuple(one) for one in rows])]


@pytest.mark.parametrize("table", ["topic", "channel"])
def test_a_value_of_the_wrong_type_is_damage(file: SQLiteFile, table: str) -> None:
    """What is kept of topics and channels has no checksum, but types."""
    connection = file._writer._connection
    assert (1, 2) == (len(read_topics(connection)), len(read_channels(connection)))
    connection.execute(f"UPDATE {table} SET held = 'x' WHERE number = 1")  # noqa: S608 - ours
    with pytest.raises(StoreDamaged, match="it is damaged"), telling("jobs.db"):
        read_topics(connection)
        read_channels(connection)


# Errors


def failure(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, 0x30A])
def test_a_full_disk_may_be_told_as_another_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Where the disk has no room that is the cause; else SQLite's word is passed on."""
    where = str(tmp_path / "jobs.db")
    free = NEEDED
    monkeypatch.setattr(
        os, "statvfs", lambda _path: SimpleNamespace(f_bavail=free // 512, f_frsize=512)
    )
    assert StoreError is type(told(where, failure(code)))
    free = NEEDED - 512
    error = told(where, failure(code))
    assert StoreFull is type(error)
    assert "the disk is full: make room, and it goes on by itself (disk I/O error)" == error.problem


def test_nobody_knows_whether_a_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system cannot say it, SQLite's word is passed on."""
    where = str(tmp_path / "none" / "jobs.db")
    assert StoreError is type(told(where, failure(sqlite3.SQLITE_IOERR)))
    monkeypatch.delattr(os, "statvfs")
    assert StoreError is type(told(where, failure(sqlite3.SQLITE_IOERR)))


def test_each_bit_of_a_number_counts() -> None:
    """A message of which one bit is another has another checksum."""
    plain = row(1 << 60)
    known = checksum(1, plain)
    for bit in range(63):
        flipped = (plain[0] ^ 1 << bit, *plain[1:]), (plain[0], plain[1] ^ 1 << bit, *plain[2:])
        assert known not in {checksum(1, one) for one in flipped}
        assert known != checksum(1 ^ 1 << bit, plain)
