"""The write-ahead log of a file: when it is copied, and begun anew."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from nsqlite.store import wal
from nsqlite.store.wal import LARGEST, Wal


@pytest.fixture
def writer(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
    """Open a file with a log, which is full with 100,000 bytes."""
    monkeypatch.setattr(wal, "LIMIT", 100_000)
    with closing(connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("CREATE TABLE t (x)")
        yield connection


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, timeout=0)


def write(connection: sqlite3.Connection, size: int, times: int = 1) -> None:
    for _ in range(times):
        connection.execute("INSERT INTO t VALUES (?)", (b"x" * size,))


def size_of(path: Path) -> int:
    return path.with_name("jobs.db-wal").stat().st_size


def test_it_begins_anew_when_it_is_full(path: Path, writer: sqlite3.Connection) -> None:
    """It stays as large as it became, and is copied each time it is full again."""
    with closing(connect(path)) as connection:
        log = Wal(str(path), connection)
        copied = 0
        for _ in range(100):
            write(writer, 9000)
            log.copy()
            copied += log._is_copied
            log.restart()
        assert 10 <= copied <= 20
        assert 100_000 < size_of(path) < 130_000
    assert 100 == writer.execute("SELECT count(*) FROM t").fetchone()[0]


def test_it_is_copied_while_it_is_not_full_if_that_is_wanted(
    path: Path, writer: sqlite3.Connection
) -> None:
    """Once, and only if it has anything."""
    with closing(connect(path)) as connection:
        log = Wal(str(path), connection)
        write(writer, 10)
        log.copy()
        assert not log._is_copied
        log.want()
        log.copy()
        assert log._is_copied
        log.restart()
        log.want()
        log.copy()
        assert not log._is_copied, "it has nothing since it was begun anew"


def test_a_great_log_is_cut_off(path: Path, writer: sqlite3.Connection) -> None:
    """What one great write has made of it is given back."""
    with closing(connect(path)) as connection:
        log = Wal(str(path), connection)
        write(writer, LARGEST + 100_000)
        log.copy()
        log.restart()
        assert 0 == size_of(path)
        log.copy()
        assert not log._is_copied


def test_somebody_reads_it(path: Path, writer: sqlite3.Connection) -> None:
    """Then it grows, and is tried again only when as much was written once more."""
    with closing(connect(path)) as connection, closing(connect(path)) as other:
        log = Wal(str(path), connection)
        write(writer, 10)
        other.execute("BEGIN")
        other.execute("SELECT * FROM t").fetchall()
        tried = []
        for number in range(60):
            write(writer, 9000)
            before = log._limits
            log.copy()
            log.restart()
            tried += [number] * (log._limits > before)
        assert 5 <= len(tried) <= 12
        other.execute("ROLLBACK")
        write(writer, 9000, 12)
        log.copy()
        log.restart()
        write(writer, 10)
        assert 1 == log._limits
        log.copy()
        assert not log._is_copied


def test_a_reader_that_comes_late_keeps_it_from_beginning_anew(
    path: Path, writer: sqlite3.Connection
) -> None:
    """It was copied but for the end, and is asked for again the next time."""
    with closing(connect(path)) as connection, closing(connect(path)) as other:
        log = Wal(str(path), connection)
        write(writer, 9000, 10)
        other.execute("BEGIN")
        other.execute("SELECT * FROM t").fetchall()
        write(writer, 9000)
        log.copy()
        assert log._is_copied
        log.restart()
        assert (b"", False) == (log._salt, log._is_copied)
        other.execute("ROLLBACK")
        log.copy()
        log.restart()
        assert b"" != log._salt


def test_who_reads_without_end_is_told_of_once(
    path: Path, writer: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each time; and then the log is small again, however fast is written."""
    with closing(connect(path)) as connection, closing(connect(path)) as other:
        log = Wal(str(path), connection)

        def go(times: int) -> list[str]:
            for _ in range(times):
                write(writer, 9000)
                log.copy_all()
            told = [record.getMessage() for record in caplog.records]
            caplog.clear()
            return told

        for _ in range(2):
            assert [] == go(150)
            assert size_of(path) < 1_000_000
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM t").fetchall()
            [told] = go(150)
            assert told.startswith(f"{path}-wal has more than 0 MiB, and grows until a program")
            assert [] == go(10)
            other.execute("ROLLBACK")


def test_there_is_no_log(path: Path) -> None:
    """Where nothing was written there is nothing to do."""
    with closing(connect(path)) as connection:
        log = Wal(str(path), connection)
        log.copy()
        log.restart()
        assert not log._is_copied
