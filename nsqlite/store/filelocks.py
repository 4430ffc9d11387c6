"""Locks of files that end with their process, as each operating system has them.

The rule: the lock of a file's byte is in nobody's way but of who takes the same.

On Unix there are two kinds.  `flock` locks an open file, also against other openings in the same
process.  A lock of bytes is one of POSIX's, the whole process's, and is dropped when the process
closes any descriptor of the file; SQLite's own are of this kind.  On Linux neither knows of the
other; on macOS, the BSDs and NFS they exclude each other, so a file of SQLite's gets no `flock`.

Next: store/owner.py
"""

import os
import sys
from typing import Final

BYTE: Final = (1 << 30) + 1024
"""The byte that is locked: it lies behind the 512 that SQLite locks, in the page that has no data
for their sake."""

if sys.platform == "win32":  # pragma: no cover - the tests run where there is fork
    import msvcrt

    def lock_file(handle: int, byte: int = 1 << 20) -> None:
        """Take the lock of a file, behind its text, which others are to read.

        Raises:
            OSError: somebody has it.
        """
        os.lseek(handle, byte, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)

    def lock_byte(handle: int) -> None:
        """Take the lock of `BYTE`.

        Raises:
            OSError: somebody has it.
        """
        lock_file(handle, BYTE)

    def lock_byte_again(handle: int) -> None:
        """Do nothing: here a lock is dropped with its own descriptor only."""

else:
    import fcntl

    def lock_file(handle: int) -> None:
        """Take the lock of a file.

        Raises:
            OSError: somebody has it.
        """
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def lock_byte(handle: int) -> None:
        """Take the lock of `BYTE`; if this process has it, that does nothing.

        Raises:
            OSError: another process has it.
        """
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, BYTE)

    lock_byte_again = lock_byte
