"""Where a store's file lies, and what is wrong there.

The rule: what the system refuses is told as an error of nsqlite's, in words, with what to do.

SQLite says no more than "unable to open database file", whatever the reason; so what can be found
out is found out before it is asked.

Next: store/filelocks.py
"""

import errno
import os
import sys
from contextlib import ExitStack
from typing import Final

from nsqlite.errors import InvalidOption, StoreError, StoreFull

LONGEST: Final = 504
"""Bytes in the longest path that SQLite opens: 512 but for its own endings; Windows has others."""

DESCRIPTORS: Final = 16
"""More files than an open store has, with what lies beside it."""

REASONS: Final = {
    errno.ENOENT: "its directory is not there: make that first",
    errno.ENOTDIR: "what should be its directory is a file",
    errno.EISDIR: "it is a directory: give the path of a file",
    errno.EACCES: "permission denied: this user must be able to write it, and its directory",
    errno.EPERM: "the system does not permit it: look at its flags and its directory's",
    errno.EROFS: "its file system is mounted read-only",
    errno.ELOOP: "its links lead round in a circle",
    errno.ENAMETOOLONG: "the name is too long, with what is appended to it: shorten it",
    errno.EMFILE: "this process has too many open files: close some, or raise `ulimit -n`",
    errno.ENFILE: "the system has too many open files",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.ENOLCK: "its file system has no locks: put it on a local disk",
    errno.EOPNOTSUPP: "its file system has no locks: put it on a local disk",
}
"""What the system's numbers mean for a store's file."""


def told(where: str, failed: str, error: OSError) -> StoreError:
    """Return the system's error as one of ours.

    Args:
        where: the store's file.
        failed: what could not be done, in words.
        error: what the system said.
    """
    kind = StoreFull if error.errno in {errno.ENOSPC, errno.EDQUOT} else StoreError
    reason = REASONS.get(error.errno or 0, error.strerror or str(error))
    return kind(where, f"{failed}: {reason}")


def checked_path(given: object) -> str:
    """Return the path of a file as text.

    Raises:
        InvalidOption: it is none.
    """
    path = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(path, str) or path in {"", ":memory:"} or "\0" in path:
        raise InvalidOption("path", given, "the path of a file, as text or a Path")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        expected = "the path of a file, in characters that a file's name can have"
        raise InvalidOption("path", given, expected) from None
    return path


def full_path(path: str) -> str:
    """Return where a file is, wherever the process goes; links are followed.

    Raises:
        StoreError: that cannot be told, or is longer than SQLite takes.
    """
    try:
        full = os.path.realpath(path)
    except OSError as error:
        problem = f"the working directory is gone ({error.strerror}): give the whole path"
        raise StoreError(path, problem) from None
    size = len(os.fsencode(full))
    if size > LONGEST and sys.platform != "win32":
        problem = (
            f"its path has {size} bytes, and SQLite takes {LONGEST}: put it nearer to the root"
        )
        raise StoreError(full, problem)
    return full


def require_descriptors(where: str) -> None:
    """Check that the process may open as many files as a store needs.

    Another thread may take them all the same before the store does.

    Raises:
        StoreError: it may not; none is left open.
    """
    with ExitStack() as stack:
        try:
            for _ in range(DESCRIPTORS):
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            raise told(where, "it cannot be opened", error) from None
