"""Locks of files."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from nsqlite.store.filelocks import lock_byte, lock_byte_again, lock_file
from store.processes import in_child, needs_fork


@pytest.fixture
def handles(path: Path) -> Iterator[list[int]]:
    """Open a file twice."""
    handles = [os.open(path, os.O_RDWR | os.O_CREAT) for _ in "12"]
    yield handles
    for handle in handles:
        os.close(handle)


def is_refused(handle: int) -> bool:
    try:
        lock_byte(handle)
    except (BlockingIOError, PermissionError):
        return True
    return False


def test_a_file_is_locked_once(handles: list[int]) -> None:
    """The lock of a file keeps out another opening of it, in the same process, too."""
    lock_file(handles[0])
    with pytest.raises((BlockingIOError, PermissionError)):
        lock_file(handles[1])


@needs_fork
def test_a_byte_is_locked_by_one_process(handles: list[int]) -> None:
    """The lock of a byte keeps other processes out, and may be taken again where it is."""
    lock_byte(handles[0])
    lock_byte_again(handles[0])
    assert in_child(lambda: is_refused(handles[1]))


@needs_fork
def test_the_locks_are_apart(handles: list[int]) -> None:
    """Who has locked a file in one way has not in the other, where both are on one disk."""
    lock_file(handles[0])
    assert in_child(lambda: not is_refused(handles[1]))


@needs_fork
def test_a_byte_is_not_in_the_way_of_sqlite(path: Path, handles: list[int]) -> None:
    """SQLite reads and writes a file whose byte is locked, in its process and in others."""
    lock_byte(handles[0])

    def write() -> bool:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("CREATE TABLE IF NOT EXISTS t(x)")
            connection.execute("INSERT INTO t VALUES (1)")
            return bool(connection.execute("SELECT x FROM t").fetchall())

    assert in_child(write)
    assert write()


@needs_fork
def test_a_byte_that_was_dropped(path: Path, handles: list[int]) -> None:
    """A lock that the process has dropped, by closing the file elsewhere, is taken again."""
    lock_byte(handles[0])
    path.read_bytes()
    assert in_child(lambda: not is_refused(handles[1]))
    lock_byte_again(handles[0])
    assert in_child(lambda: is_refused(handles[1]))
