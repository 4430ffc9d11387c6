"""A store in one SQLite file.

The rule: SQLite's transactions are the only way in which the file changes.

Three connections: one writes (writer.py), one reads pages, one copies the write-ahead log into the
file; so none waits for another.

Next: store/shelf.py
"""

import ctypes
import sqlite3
from contextlib import ExitStack
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Final

from nsqlite.errors import StoreError, StoreForeign
from nsqlite.lock import make_lock
from nsqlite.store.owner import Owner
from nsqlite.store.schema import MARK, VERSION, create, upgrade
from nsqlite.store.statements import APART, READY, REQUEUED, STATEMENTS, telling
from nsqlite.store.store import Found
from nsqlite.store.writer import Writer

PAGE: Final = 2048
"""Bytes in a page of a new file: a commit of a small message writes one page."""

LOG_LIMIT: Final = 4 << 20
"""Bytes of the write-ahead log from which on it is copied into the file."""

PATIENCE: Final = 5.0
"""Seconds to wait for another program, which locks the file for a moment while it opens it."""


def _stat(path: str) -> tuple[int, int]:
    """Return a file's number and its size; 0 and 0 if there is none."""
    try:
        found = Path(path).stat()
    except OSError:
        return 0, 0
    return found.st_ino, found.st_size


class SQLiteFile:
    """An open file; see `Storage`."""

    def __init__(self, path: str, *, full: bool) -> None:
        """Open a file, or make it.

        Args:
            path: where it is.
            full: whether what is written is to survive a loss of power.

        Raises:
            StoreInUse: it has an owner already.
            StoreForeign: it is none of nsqlite's, or a later version's.
            StoreDamaged: it is damaged.
            StoreError: it cannot be opened or written.
        """
        self._path: Final = path
        self._restart = False
        self._reading: Final = make_lock(rank=3)
        self._connections: Final[list[sqlite3.Connection]] = []
        self._owner: Final = Owner(path)
        try:
            with telling(path):
                self._writer: Final = Writer(path, self._connect())
                self._prepare(self._connections[0], full=full)
                self._reader: Final = self._connect()
                self._reader.execute("PRAGMA query_only = 1")
                self._copier: Final = self._connect(patience=0)
                self._inode: Final = Path(path).stat().st_ino
        except BaseException:
            self._let_go()
            raise
        self.load: Final = self._writer.load
        self.highest: Final = self._writer.highest
        self.write_row: Final = self._writer.write_row
        self.write_rows: Final = self._writer.write_rows
        self.write_attempts: Final = self._writer.write_attempts
        self.write: Final = self._writer.write

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
        """Close what is open, the last one to write at last, and give the file back."""
        with ExitStack() as stack:
            stack.callback(self._owner.release)
            for connection in self._connections:
                stack.callback(connection.close)

    def _prepare(self, writer: sqlite3.Connection, *, full: bool) -> None:
        [mark] = writer.execute("PRAGMA application_id").fetchone()
        [version] = writer.execute("PRAGMA user_version").fetchone()
        [tables] = writer.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if mark != MARK and (tables or mark or version):
            raise StoreForeign(self._path, "it is a SQLite file, but none of nsqlite's")
        if version > VERSION:
            problem = f"a later nsqlite wrote it (version {version}; this one knows {VERSION})"
            raise StoreForeign(self._path, problem)
        if not tables:
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
        elif version < VERSION:
            self._writer.in_one(partial(upgrade, writer, version))
        writer.execute(f"PRAGMA user_version = {VERSION}")  # if this cannot be written, no put can

    # Reading

    def read(
        self, topic: int, channel: int | None, after: int, upto: int, limit: int
    ) -> list[Found]:
        """See `Storage`."""
        with telling(self._path):
            values = {"channel": channel, "after": after, "upto": upto, "limit": limit}
            with self._reading:
                return self._reader.execute(READY.format(topic), values).fetchall()

    def read_apart(self, topic: int, channel: int | None, after: int, upto: int) -> list[Found]:
        """See `Storage`."""
        with telling(self._path):
            values = {"channel": channel, "after": after, "upto": upto}
            with self._reading:
                found = self._reader.execute(APART.format(topic), values).fetchall()
                if channel is not None:
                    found += self._reader.execute(REQUEUED.format(topic), values).fetchall()
            return sorted(found, key=itemgetter(0))

    # Upkeep

    def copy_log(self) -> None:
        """See `Storage`."""
        inode, _ = _stat(self._path)
        _, size = _stat(f"{self._path}-wal")
        if inode != self._inode:
            problem = "it was removed or replaced while it was open: what is put now is lost"
            raise StoreError(self._path, problem)
        if size >= LOG_LIMIT:
            with telling(self._path):
                self._copier.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self._restart = True

    def tidy(self) -> bool:
        """See `Storage`."""
        with telling(self._path):
            self._writer.end_read()
            if self._restart:
                self._restart = False
                self._copier.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return self._writer.tidy()

    # The end

    def close(self) -> None:
        """See `Storage`."""
        with telling(self._path):
            self._writer.end_read()  # else it would not copy the log
            self._let_go()

    def abandon(self) -> None:
        """See `Storage`."""
        self._owner.abandon()
        for one in (self._writer.open_read, *self._connections):
            # To close it would copy the log and remove it; so it must outlive the interpreter.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))
