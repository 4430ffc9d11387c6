"""A file that is there whole or not at all.

The rule: a file gets its name when it is whole and on the disk, in one step that never takes the
place of another file.

Until then it is `<file>-partial`.  That is removed whatever ends its making, but for a kill
(SIGKILL, a loss of power); then the next one who makes the same file removes it.

Next: store/backup.py
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from nsqlite.errors import StoreError
from nsqlite.store.owner import Owner
from nsqlite.store.statements import telling

BESIDE: Final = ("-wal", "-shm", "-journal")
"""How the names of what SQLite has beside a file end."""


@contextmanager
def appearing(path: str) -> Iterator[str]:
    """Give a store's file its name at the end of the block, or nothing if the block raises.

    Args:
        path: the file's name, which nothing may have.

    Yields:
        The name under which to make it; nobody must have it open any more at the end of the block.

    Raises:
        StoreInUse: somebody is making the same file.
        StoreError: something has the name, or the file cannot be made.
    """
    require_free(path)
    with partial(path) as name:
        yield name
        with telling(path):
            _settle(name)
        require_free(path)
        _rename(name, path)


@contextmanager
def partial(path: str) -> Iterator[str]:
    """Have a file beside another one for as long as the block lasts.

    Args:
        path: the other one, which errors name instead of this.

    Yields:
        The name under which to make it.

    Raises:
        StoreInUse: somebody has a file of this name open.
        StoreError: what a kill has left of such a file cannot be removed.
    """
    name = f"{path}-partial"
    try:
        _remove_left(name)
        try:
            yield name
        finally:
            with suppress(OSError):  # some systems remove nothing that is open
                _remove(name)
    except StoreError as error:
        if error.where == name:
            error.where = path
        raise


def require_free(path: str) -> None:
    """Check that nothing has a name, and that no log waits for a file of that name.

    Raises:
        StoreError: it is not so; what SQLite found there would become part of the file.
    """
    for name in (path, *(f"{path}{ending}" for ending in BESIDE)):
        if os.path.lexists(name):
            raise StoreError(path, f"{name} is there already: remove it, or name another file")


def _remove_left(name: str) -> None:
    """Remove what a kill has left, unless somebody has it open."""
    owner = Owner(name)
    try:
        _remove(name)
    except OSError as error:
        raise StoreError(name, f"cannot remove what a kill has left: {error.strerror}") from None
    finally:
        owner.release()


def _remove(name: str) -> None:
    for ending in ("", *BESIDE):
        Path(f"{name}{ending}").unlink(missing_ok=True)


def _settle(name: str) -> None:
    """Have all of a file in the file itself, and on the disk.

    Raises:
        sqlite3.Error: it cannot be written.
        StoreError: the same.
    """
    with closing(sqlite3.connect(name)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE").fetchone()  # as it is until it is opened
    try:
        _sync(name, os.O_RDWR)
    except OSError as error:
        raise StoreError(name, f"it cannot be written: {error.strerror}") from None


def _sync(name: str, how: int) -> None:
    handle = os.open(name, how)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _rename(name: str, path: str) -> None:
    """Give a file its name, unless something has got it meanwhile."""
    try:
        _link(name, path)
    except OSError as error:
        raise StoreError(path, f"it cannot be made: {error.strerror}") from None
    sync_directory(path)


def sync_directory(path: str) -> None:
    """Have the names of a file, and of what lies beside it, on the disk, if the system can."""
    with suppress(OSError):  # some systems cannot open a directory
        _sync(str(Path(path).parent), os.O_RDONLY)


def empty(path: str) -> None:
    """Have nothing in a file that is there, also on the disk, if it can be written at all."""
    with suppress(OSError):
        _sync(path, os.O_WRONLY | os.O_TRUNC)


def _link(name: str, path: str) -> None:
    try:
        Path(path).hardlink_to(name)
    except FileExistsError:
        raise
    except OSError:  # this directory has no links; that nothing has the name was seen just now
        Path(name).rename(path)
