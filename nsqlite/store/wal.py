"""The write-ahead log of a file: when it is copied into the file, and begun anew.

The rule: what takes long is done beside the writes; between two of them the log is only begun anew,
when nearly all of it has been copied.

It is overwritten from its beginning rather than cut off: that takes a fifth of the time, and so do
a tenth less the commits that follow, as the disk has the room already.  So its size does not tell
how far it is filled; but a frame does, by whether it has the salt of the log's header.

Next: store/sqlitefile.py
"""

import logging
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

from nsqlite.lock import make_lock

LIMIT: Final = 4 << 20
"""Bytes that the log is filled with when it is copied."""

MOST: Final = 8
"""With so many times `LIMIT` in it all of the log is copied before anything else is written."""

log: Final = logging.getLogger("nsqlite")

LARGEST: Final = 16 << 20
"""A file of the log that is larger, after one great write, is cut off."""

_HEADER: Final = 32
_FRAME: Final = 24


class Wal:
    """The log, seen by a connection of its own.

    `copy` and `restart` are called by one thread at a time, `copy_all` by any; the latter two by
    one that may write.
    """

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        """Take a connection that does not wait.

        Args:
            path: the file.
            connection: used for nothing else.
        """
        self._path: Final = Path(f"{path}-wal")
        self._connection: Final = connection
        self._limits = 1  # it is copied when it is filled with so many times `LIMIT`
        self._salt = b""  # of the log that is to be begun anew by the next commit
        self._is_copied = False
        self._has_told = False  # that it is held
        self._copying: Final = make_lock(rank=4)

    def want(self) -> None:
        """Have it copied next time, however little it is."""
        self._limits = 0

    def copy(self) -> None:
        """Copy it into the file if it has grown; beside the writes."""
        if self._is_filled(self._limits):
            for _ in range(2):  # what is written during the first time is copied in the second
                _, frames, copied = self._checkpoint("PASSIVE")
            self._is_copied = frames - copied <= frames // 4  # the last ones hold up the writer
            self._limits += not self._is_copied  # another program reads what it has

    def restart(self) -> None:
        """Have it begin anew if it was copied; nobody writes meanwhile."""
        if self._is_copied:
            self._is_copied = False
            salt = self._header()[16:24]
            is_large = bool(self._read(LARGEST, 1))
            is_held, _, _ = self._checkpoint("TRUNCATE" if is_large else "RESTART")
            if not is_held:
                self._salt, self._limits, self._has_told = salt, 1, False

    def copy_all(self) -> None:
        """Copy it and have it begin anew, if it has become too large.

        Nobody of this store reads or writes meanwhile; so if somebody hinders it, that is logged,
        once until it is over.
        """
        if self._is_filled(MOST):
            is_held, _, _ = self._checkpoint("TRUNCATE")
            if not is_held:
                self._limits, self._has_told = 1, False
            elif not self._has_told:
                self._has_told = True
                text = (
                    "%s has more than %d MiB, and grows until a program that reads the file has"
                    " ended: see to it that it does"
                )
                log.warning(text, self._path, MOST * LIMIT >> 20)

    def _checkpoint(self, mode: str) -> tuple[int, int, int]:
        """Return whether somebody hindered it, how many frames there are, and how many copied."""
        told: tuple[int, int, int]
        with self._copying:
            told = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        return told

    def _header(self) -> bytes:
        return self._read(0, _HEADER)

    def _is_filled(self, limits: int) -> bool:
        """Return whether so many times `LIMIT` were written since it began."""
        header = self._header()
        salt = header[16:24]
        if len(header) < _HEADER or salt == self._salt:
            return False
        frame = _FRAME + int.from_bytes(header[8:12], "big")
        return self._read(_HEADER + limits * LIMIT // frame * frame, _FRAME)[8:16] == salt

    def _read(self, start: int, size: int) -> bytes:
        with suppress(OSError), self._path.open("rb", 0) as file:  # on which SQLite has no locks
            file.seek(start)
            return file.read(size)
        return b""
