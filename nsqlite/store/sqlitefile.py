"""A store in one SQLite file.

The rule: SQLite's transactions are the only way in which the file changes.

Three connections: one writes (writer.py), one reads pages, one copies the write-ahead log into the
file; so none waits for another.

Next: store/journal.py
"""

import ctypes
import os
import sqlite3
from contextlib import ExitStack, closing
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from nsqlite.errors import StoreDamaged, StoreError, StoreForeign
from nsqlite.lock import make_lock
from nsqlite.store.backup import copy_file, require_log
from nsqlite.store.newfile import empty, sync_directory
from nsqlite.store.owner import Owner
from nsqlite.store.schema import MARK, VERSION, create, upgrade
from nsqlite.store.statements import (
    ALONE_ABOVE,
    APART,
    COUNT_DEFERRED,
    DEFERRED,
    FIND,
    READY,
    Statements,
    found,
    is_full,
    taken,
    telling,
)
from nsqlite.store.storage import Batch, Found, page_of
from nsqlite.store.wal import Wal
from nsqlite.store.writer import Writer

PAGE: Final = 2048
"""Bytes in a page of a new file: a commit of a small message writes one page."""

STATEMENTS: Final = 500
"""How many statements SQLite keeps prepared; each partition has some of its own."""

PATIENCE: Final = 5.0
"""Seconds to wait for another program, which locks the file for a moment while it opens it."""

ENDINGS: Final = ("", "-wal", "-shm")
"""What the names of a store's files end in, while it is open."""


class SQLiteFile:
    """An open file; see `Storage`."""

    def __init__(self, path: str, *, full: bool, checksums: bool = True) -> None:
        """Open a file, or make it.

        Args:
            path: where it is.
            full: whether what is written is to survive a loss of power.
            checksums: whether what is written gets a checksum, which costs 0.5 us a message.

        Raises:
            StoreInUse: it has an owner already.
            StoreForeign: it is none of nsqlite's, or a later version's.
            StoreDamaged: it is damaged, or its log is missing.
            StoreError: it cannot be opened or written.
        """
        require_log(path)
        self._path: Final = path
        self._reading: Final = make_lock(rank=3)
        self._connections: Final[list[sqlite3.Connection]] = []
        self._is_unmade = False  # it has a log and no tables, as one whose log is missing
        self._owner: Final = Owner(path)
        try:
            with telling(path):
                self._writer: Final = Writer(path, self._connect(), checksums=checksums)
                self._prepare(self._connections[0], full=full)
                self._owner.check()  # before the log was kept, SQLite gave the lock back
                self._reader: Final = self._connect()
                self._reader.execute("PRAGMA query_only = 1")
                self._reader.text_factory = partial(str, encoding="utf-8", errors="replace")
                self._wal: Final = Wal(path, self._connect(patience=0))
                self._inodes: Final = self._find_inodes()
        except BaseException:
            self._let_go()
            raise
        self.load: Final = self._writer.load
        self.count: Final = self._writer.count
        self.highest: Final = self._writer.highest
        self.last: Final = self._writer.last
        self.set_clock: Final = self._writer.set_clock
        self.write_row: Final = self._writer.write_row
        self.write_rows: Final = self._writer.write_rows
        self.write_attempts: Final = self._writer.write_attempts

    def _connect(self, patience: float = PATIENCE) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=patience,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=STATEMENTS,
        )
        self._connections.append(connection)
        return connection

    def _let_go(self) -> None:
        """Close what is open, the last one to write at last, and give the file back.

        One that could not be made is empty then, so that it can be once there is room.
        """
        with ExitStack() as stack:
            stack.callback(self._owner.release)
            if self._is_unmade:
                stack.callback(empty, self._path)
            for connection in self._connections:
                stack.callback(connection.close)

    def _prepare(self, writer: sqlite3.Connection, *, full: bool) -> None:
        [mark] = writer.execute("PRAGMA application_id").fetchone()
        [version] = writer.execute("PRAGMA user_version").fetchone()
        [tables] = writer.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if mark != MARK and (tables or mark or version):
            raise StoreForeign(self._path, "it is a SQLite file, but not one of nsqlite")
        if version > VERSION:
            problem = f"a later nsqlite wrote it (version {version}; this one knows {VERSION})"
            raise StoreForeign(self._path, problem)
        if not tables:
            sync_directory(self._path)  # from here on `-owner` tells it from one without its log
            [pages] = writer.execute("PRAGMA page_count").fetchone()
            self._is_unmade = pages <= 1
            writer.execute(f"PRAGMA page_size = {PAGE}")
            writer.execute("PRAGMA auto_vacuum = INCREMENTAL")
        [mode] = writer.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError(
                self._path, f"SQLite cannot keep a write-ahead log here, only {mode!r}"
            )
        writer.execute("SELECT count(*) FROM json_each('[]')")  # which an old one may lack
        writer.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        if not tables:
            self._writer.in_one(partial(create, writer))
            self._is_unmade = False
            sync_directory(self._path)  # a file whose log is lost cannot be opened
        elif version < VERSION:
            self._writer.in_one(partial(upgrade, writer, version))
        writer.execute(f"PRAGMA user_version = {VERSION}")  # if this cannot be written, no put can

    # Whether it is still there

    def _find_inodes(self) -> list[int]:
        """Return the numbers of the files that have the names now; 0 where there is none."""
        return [_inode(f"{self._path}{ending}") for ending in ENDINGS]

    def _require_there(self) -> None:
        """Check that the files are those that were opened; else nothing is written any more.

        Raises:
            StoreDamaged: they are not, now or at an earlier time.
        """
        if self._writer.refused is None and self._find_inodes() != self._inodes:
            found = zip(ENDINGS, self._find_inodes(), self._inodes, strict=True)
            names = [f"{Path(self._path).name}{end}" for end, now, then in found if now != then]
            problem = (
                f"{' and '.join(names)} was removed or replaced while it was open, and what was"
                " written since may be lost: end this process, put the file in its place again, or"
                " a backup, and open it anew"
            )
            self._writer.refused = StoreDamaged(self._path, problem)
        if self._writer.refused is not None:
            raise self._writer.refused

    def write(self, batch: Batch) -> None:
        """See `Storage`."""
        self._require_there()
        self._writer.write(batch)

    # Reading

    def read(
        self, topic: int, channel: int | None, after: int, upto: int, limit: int
    ) -> list[Found]:
        """See `Storage`."""
        values = _values(topic, channel, (after, upto))
        values["limit"] = limit
        return self._read(topic, values, READY)

    def read_apart(self, topic: int, channel: int | None, after: int, upto: int) -> list[Found]:
        """See `Storage`."""
        values = _values(topic, channel, (after, upto))
        return sorted(self._read(topic, values, *APART), key=itemgetter(0))

    def read_deferred(
        self,
        topic: int,
        channel: int | None,
        between: tuple[int, int],
        behind: tuple[int, int],
        limit: int,
    ) -> list[Found]:
        """See `Storage`."""
        values = _values(topic, channel, between)
        values["due"], values["id"] = behind
        values["limit"] = limit
        waiting = sorted(self._read(topic, values, *DEFERRED), key=itemgetter(2, 0))
        return page_of(waiting, limit)

    def count_deferred(self, topic: int, channel: int | None, between: tuple[int, int]) -> int:
        """See `Storage`."""
        values = _values(topic, channel, between)
        return sum(count for (count,) in self._select(topic, values, *COUNT_DEFERRED))

    def find(self, topic: int, channel: int | None, identity: int) -> list[Found]:
        """See `Storage`."""
        values = _values(topic, channel, (0, 0))
        values["id"] = identity
        return self._read(topic, values, FIND)

    def alone(self, topic: int, channel: int, above: int) -> list[int]:
        """See `Storage`."""
        values = _values(topic, channel, (0, above))
        return [identity for (identity,) in self._select(topic, values, ALONE_ABOVE)]

    def _read(self, topic: int, values: dict[str, int | None], *kinds: Statements) -> list[Found]:
        return found(topic, self._select(topic, values, *kinds))

    def _select(self, topic: int, values: dict[str, int | None], *kinds: Statements) -> list[Any]:
        known = self._writer.topics.get(topic)
        if known is None:
            return []
        rows: list[Any] = []
        with telling(self._path), self._reading:
            self._select_all(rows, [kind[known.partition] for kind in kinds], values)
        return rows

    def _select_all(
        self, rows: list[Any], statements: list[str], values: dict[str, int | None]
    ) -> None:
        for statement in statements:
            with closing(self._reader.execute(statement, values)) as selected:
                rows += taken(selected, values.get("limit"))

    # Upkeep

    def copy_log(self) -> None:
        """See `Storage`."""
        self._require_there()
        self._owner.check()
        if is_full(self._path):
            self._wal.want()  # what is begun anew has room for what makes more
        with telling(self._path):
            self._wal.copy()

    def copy_all(self) -> None:
        """See `Storage`."""
        with telling(self._path), self._reading:
            self._writer.end_read()
            self._wal.copy_all()

    def tidy(self) -> bool:
        """See `Storage`."""
        with telling(self._path):
            self._writer.end_read()
            self._wal.restart()
            if self._writer.tidy():
                return True
            if self._writer.has_vacuumed:
                self._writer.has_vacuumed = False
                self._wal.want()
                return True
            return False

    def backup(self, path: str) -> None:
        """See `Storage`.

        Raises:
            StoreError: see `copy_file`; no copy is there then, nor a part of one.
        """
        copy_file(self._path, path)

    # The end

    def close(self) -> None:
        """See `Storage`."""
        self._writer.refused = StoreError(self._path, "it is closed")
        with telling(self._path), self._reading:  # what is read is read to its end
            self._writer.close_cursors()  # else it would not copy the log
            self._let_go()

    def abandon(self) -> None:
        """See `Storage`."""
        self._owner.abandon()
        for one in (self._writer.open_read, *self._connections):
            # To close it would copy the log and remove it; so it must outlive the interpreter.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))


def _values(topic: int, channel: int | None, between: tuple[int, int]) -> dict[str, int | None]:
    """Return what a statement that reads messages is told."""
    after, upto = between
    return {"topic": topic, "channel": channel, "after": after, "upto": upto}


def _inode(path: str) -> int:
    """Return a file's number, 0 if there is none."""
    try:
        return os.stat(path).st_ino  # noqa: PTH116 - each commit asks for three
    except OSError:
        return 0
