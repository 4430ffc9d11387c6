"""Who owns a store's file: one process, for as long as it lives.

The rule: the operating system holds the lock, so it ends with its process however that ends.

The lock lies beside the file, in `<file>-owner`, with the number of the owner's process.

Next: store/statements.py
"""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from nsqlite.errors import StoreError, StoreInUse

if sys.platform == "win32":  # pragma: no cover - the tests run where there is fork
    import msvcrt

    def _lock(handle: int) -> None:
        """Take the lock.

        Raises:
            OSError: somebody has it.
        """
        os.lseek(handle, 1 << 20, os.SEEK_SET)  # behind the text, which others are to read
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(handle: int) -> None:
        """Take the lock.

        Raises:
            OSError: somebody has it.
        """
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Owner:
    """The right to use a file, from when this is made until `release`."""

    __slots__ = ("_handle", "_path", "_where")

    def __init__(self, where: str) -> None:
        """Take it.

        Args:
            where: the store's file.

        Raises:
            StoreInUse: another process has it, or another broker of this one.
            StoreError: the file of the lock cannot be made.
        """
        self._where: Final = where
        self._path: Final = Path(f"{where}-owner")
        self._handle: int | None = None
        while self._handle is None:
            self._handle = self._take()
        with suppress(OSError):  # if the disk is full, nobody learns who has it
            os.ftruncate(self._handle, 0)
            os.write(self._handle, b"%d\n" % os.getpid())

    def _take(self) -> int | None:
        """Return the locked file; None if it was removed meanwhile."""
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise StoreError(self._where, f"cannot write beside it: {error.strerror}") from None
        try:
            _lock(handle)
        except (BlockingIOError, PermissionError):
            pid = _pid_in(handle)
            os.close(handle)
            mine = pid == os.getpid()
            who = "another broker of this process" if mine else f"process {pid or 'unknown'}"
            problem = f"it is in use by {who}: close that first"
            raise StoreInUse(self._where, pid, problem) from None
        except OSError as error:
            os.close(handle)
            problem = f"its directory takes no locks: {error.strerror}"
            raise StoreError(self._where, problem) from None
        if _is_same(handle, self._path):
            return handle
        os.close(handle)
        return None

    def release(self) -> None:
        """Give it back; whoever is next can have it."""
        if self._handle is not None:
            with suppress(OSError):  # some systems remove no file that is open
                self._path.unlink()  # while it is locked, so nobody else has it
            self.abandon()

    def abandon(self) -> None:
        """Let go of it in the child of a fork: the parent keeps it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _pid_in(handle: int) -> int | None:
    os.lseek(handle, 0, os.SEEK_SET)
    text = os.read(handle, 20).strip()
    return int(text) if text.isdigit() else None


def _is_same(handle: int, path: Path) -> bool:
    """Say whether an open file is the one that has the name now."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False
