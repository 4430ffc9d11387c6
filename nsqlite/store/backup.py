"""A copy of a store's file, also while it is in use.

The rule: a copy is the file of one moment, whole, or it is not there.

What copies a file without asking SQLite, as `cp` does, misses what only the log beside it has, and
may meet a moment at which the file is being written.

Next: store/known.py
"""

import errno
import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final, TypeAlias

from nsqlite.errors import StoreDamaged, StoreError, StoreForeign
from nsqlite.store.newfile import appearing
from nsqlite.store.owner import Owner
from nsqlite.store.schema import MARK
from nsqlite.store.statements import telling

Progress: TypeAlias = Callable[[int, int], object]
"""Is told how many bytes are copied, and of how many."""

STEP: Final = 1000
"""How many pages are copied from one report of progress to the next."""

PATIENCE: Final = 5.0
"""Seconds to wait for an owner that is just opening the file, or closing it."""

LOG_MISSING: Final = (
    "its log is missing, and with it all that was put: copy a file in use with"
    " `python -m nsqlite backup`; if nothing is lost with it, remove the file"
)
"""What is wrong with a file of which `missing_log` is true."""

MAGIC: Final = b"SQLite format 3\0"
"""How every file of SQLite's begins."""

_LEAF: Final = 13  # the kind of a page that has rows of a table
_HEAD: Final = 108  # bytes of the header of a file and that of its first page


def copy_file(source_path: str, target_path: str, progress: Progress | None = None) -> int:
    """Copy a store's file, whoever has it open; it is only read.

    The copy is on the disk when this returns.  It is the file of the moment of the call: what is
    written while it is copied makes the log grow and is not in the copy, nor is what the owner had
    not written yet.

    Args:
        source_path: the file.
        target_path: the copy, which must not be there.
        progress: called now and then in this thread; what it raises ends the copying.

    Returns:
        The size of the copy in bytes.

    Raises:
        StoreForeign: the file is none of nsqlite's.
        StoreDamaged: it is damaged, or its log is missing.
        StoreInUse: somebody is making the same copy.
        StoreError: it cannot be read, or the copy cannot be made, or something is there already.
            Whatever is raised, no copy is there, nor a part of one.
    """
    with closing(open_to_read(source_path)) as source:
        with telling(source_path):
            _begin(source)
        with appearing(target_path) as name:
            owner = Owner(name)
            try:
                with telling(target_path), closing(sqlite3.connect(name)) as target:
                    _copy(source, target, progress)
            finally:
                owner.release()
    return Path(target_path).stat().st_size


def require_file(path: str) -> None:
    """Check that a file is there and may be read.

    Raises:
        StoreError: it is not so, or it is something else.
    """
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(path, "there is no such file") from None
    except OSError as error:
        raise StoreError(path, f"it cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise StoreError(path, "it is no file")
    if not os.access(path, os.R_OK):
        raise StoreError(path, f"it cannot be read: {os.strerror(errno.EACCES)}")


def open_to_read(path: str) -> sqlite3.Connection:
    """Open a store's file of any version, whoever has it open; it cannot be changed.

    Raises:
        StoreForeign: it is none of nsqlite's.
        StoreDamaged: it is damaged, or its log is missing.
        StoreError: it is not there, or cannot be opened.
    """
    require_file(path)
    require_log(path)
    # Whoever may only read cannot remove what it must make beside a file that nobody has open; but
    # where the log lies there already, whoever may write would copy it into the file at the end.
    mode = "ro" if os.path.lexists(f"{path}-wal") else "rw"
    uri = f"{Path(path).absolute().as_uri()}?mode={mode}"
    with telling(path):
        connection = sqlite3.connect(uri, uri=True, timeout=PATIENCE, isolation_level=None)
        try:
            connection.execute("PRAGMA query_only = 1")
            _require_mark(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _require_mark(connection: sqlite3.Connection, path: str) -> None:
    [mark] = connection.execute("PRAGMA application_id").fetchone()
    if mark != MARK:
        raise StoreForeign(path, "it is not a file of nsqlite")


def _begin(source: sqlite3.Connection) -> None:
    """See a file as it is now, until it is closed."""
    source.execute("BEGIN")
    source.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _copy(
    source: sqlite3.Connection, target: sqlite3.Connection, progress: Progress | None
) -> None:
    [page] = source.execute("PRAGMA page_size").fetchone()

    def tell(_status: int, left: int, total: int) -> None:
        if progress is not None:
            progress((total - left) * page, total * page)

    source.backup(target, pages=STEP, progress=tell)


def require_log(path: str) -> None:
    """Check that a file was not copied without its log, as far as that can be known.

    Raises:
        StoreDamaged: it was; see `missing_log`.
    """
    if missing_log(path):
        raise StoreDamaged(path, LOG_MISSING)


def missing_log(path: str) -> bool:
    """Return whether a file was copied without its log when it was young.

    That is known for certain of a file into which its log had never been copied: it has a first
    page, which says that there is a log, and no tables; and nothing lies beside it.  Of an older
    file it cannot be known.  A file that a killed process was just making has its owner's lock
    beside it still, which is on the disk before that page is; or the log itself; or, where the
    power was lost, the journal by which SQLite takes the first page back.

    It opens no file that has an owner: to close it would give away that one's locks.

    Args:
        path: the file; one that is not there, or cannot be read, misses nothing.
    """
    if any(os.path.lexists(f"{path}{ending}") for ending in ("-wal", "-journal", "-owner")):
        return False
    try:
        if not Path(path).is_file():  # to open a pipe would wait for whoever writes to it
            return False
        with Path(path).open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return len(head) == _HEAD and _is_young(head)


def _is_young(head: bytes) -> bool:
    """Return whether a file begins as one of ours that has a log and no tables."""
    has_log = head[18:20] == b"\x02\x02"
    is_ours = any(head[52:56]) and any(head[64:68])  # it can be vacuumed step by step
    is_leaf = head[100] == _LEAF  # else the tables are in pages below the first one
    cells = int.from_bytes(head[103:105])  # rows in the first page, one for each table
    return head.startswith(MAGIC) and has_log and is_ours and is_leaf and not cells
