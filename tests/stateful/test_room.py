"""A disk that is full at any write of an opening is an error, and nothing worse.

SQLite's writes go to a disk that has room for so many of them (recorder.py); once there is more,
the file opens as if nothing had been.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from store.test_schema import FIRST, FIXTURE, SECOND, THIRD, exact_contents

from nsqlite import StoreFull
from nsqlite.store.sqlitefile import SQLiteFile
from stateful.recorder import Act, Recorder, Write

FULL = 13
"""SQLite's code for a full disk."""


class Disk(Recorder):
    """One that has room for so many more writes to a file and to what lies beside it."""

    def __init__(self, path: Path, room: int) -> None:
        super().__init__(os.path.realpath(path))
        self.room = room

    def _record(self, act: Act, call: Callable[[], int]) -> int:
        if isinstance(act, Write):
            self.room -= 1
            if self.room < 0:
                return FULL
        return super()._record(act, call)


@contextmanager
def room_for(path: Path, writes: int) -> Iterator[Disk]:
    disk = Disk(path, writes)
    disk.install()
    try:
        yield disk
    finally:
        disk.uninstall()


@pytest.fixture
def path(tmp_path: Path, recordable: None) -> Path:  # noqa: ARG001 - it skips where nothing is seen
    """Return where a file can be made whose writes are seen."""
    return tmp_path / "jobs.db"


def make_empty(path: Path) -> None:
    """Make the file, see that there is nothing in it, and close it."""
    with closing(SQLiteFile(str(path), full=True)) as file:
        assert ([], []) == file.load()


def fill_at_each_write(path: Path, check: Callable[[], object]) -> int:
    """Open a file while the disk is full from some write on, and check it when there is room.

    Returns:
        How many writes there are from the opening to the end.
    """
    before = path.read_bytes() if path.exists() else None
    for writes in range(1000):
        with room_for(path, writes) as disk:
            try:
                SQLiteFile(str(path), full=True).close()
            except StoreFull:
                assert disk.room < 0
        check()
        if disk.room >= 0:
            return writes
        for one in path.parent.glob(f"{path.name}*"):
            one.unlink()
        if before is not None:
            path.write_bytes(before)
    raise AssertionError("it never has enough room")


def test_a_new_file(path: Path) -> None:
    """Whichever write there is no room for, the file is made as soon as there is some."""
    assert fill_at_each_write(path, lambda: make_empty(path)) > 5


@pytest.mark.parametrize("version", [FIRST, SECOND, THIRD, FIXTURE], ids=["1", "2", "3", "4"])
def test_a_file_of_each_version(path: Path, version: Path) -> None:
    """Whichever write of an upgrade there is no room for, all is there as soon as there is some."""
    shutil.copy(version, path)

    def check() -> None:
        with closing(SQLiteFile(str(path), full=True)) as file:
            exact_contents(file)

    assert fill_at_each_write(path, check) > (5 if version != FIXTURE else 0)
