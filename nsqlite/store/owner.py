"""Who owns a store's file: one process, for as long as it lives.

The rule: the operating system holds the locks, so they end with their process however that ends.

There are two, and each holds where the other fails.  That of `<file>-owner`, which also says who
has it, holds between the brokers of one process, too; but the file can be removed.  That of a byte
of the store's file goes wherever the file is moved; but this process may drop it by accident, with
SQLite's own, so `check` takes it again, and `release` comes when SQLite has closed the file.

Next: store/statements.py
"""

import os
import platform
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from nsqlite.errors import StoreError, StoreInUse
from nsqlite.store.filelocks import lock_byte, lock_byte_again, lock_file
from nsqlite.store.paths import told

_held: Final[set[tuple[int, int, int]]] = set()
"""The files that brokers of this process have locked; see `_key`."""


def has_owner(where: str) -> bool:
    """Say whether a file may have an owner; takes no lock.

    It has one if its number is that of a process; or was killed, and another has its number now, or
    nobody can tell.
    """
    try:
        text = _beside(where).read_text("utf-8", "replace")
    except OSError:
        return False
    pid, _, space = _signature(text)
    if pid is None or space != _space():
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # it is another user's
    return True


def _beside(where: str) -> Path:
    """Return the file that says who is the owner of another."""
    return Path(f"{where}-owner")


class Owner:
    """The right to use a file, from when this is made until `release`.

    If this is lost, as when a signal strikes before it is kept, the locks are, too.
    """

    __slots__ = ("_handles", "_path", "_where")

    def __init__(self, where: str) -> None:
        """Take it; the file is made if it is not there.

        Args:
            where: the store's file.

        Raises:
            StoreInUse: another process has it, or another broker of this one.
            StoreFull: there is no room for a file.
            StoreError: a file cannot be made, opened or locked.  Nothing stays locked.
        """
        self._handles: Final[list[int]] = []  # of the file beside, and of the file itself
        self._where: Final = where
        self._path: Final = _beside(where)
        try:
            self._take_until()
            self._sign(self._handles[0])
            self._take_file()
        except BaseException:
            self.release()
            raise

    def _take_until(self) -> None:
        """Lock the file beside, however often it is removed meanwhile."""
        while not self._handles:
            self._take_beside()

    def _take_beside(self) -> None:
        """Lock the file beside; keep it if it was not removed meanwhile."""
        handle = self._opened(self._path, "cannot write beside it", 0o666)
        try:
            try:
                lock_file(handle)
            except (BlockingIOError, PermissionError):
                raise self._in_use(*_owner_in(handle)) from None
            except OSError as error:
                raise told(self._where, "it cannot be locked", error) from None
            if _is_same(handle, self._path):
                self._handles.append(handle)
                _held.add(_key(os.fstat(handle)))
        finally:
            if handle not in self._handles:
                os.close(handle)

    def _sign(self, handle: int) -> None:
        """Say who has it, for whoever comes next."""
        text = f"{os.getpid()}\n{platform.node()}\n{_space()}\n"
        with suppress(OSError):  # if the disk is full, nobody learns it
            os.ftruncate(handle, 0)
            os.write(handle, text.encode(errors="replace"))

    def _take_file(self) -> None:
        """Lock the byte of the file itself, unless this process has: to open it would drop that."""
        with suppress(OSError):  # which is told below
            self._require_free(Path(self._where).stat())
        handle = self._opened(Path(self._where), "it cannot be opened", 0o644)
        try:
            self._lock(lock_byte, handle)
            self._handles.append(handle)
            _held.add(_key(os.fstat(handle)))
        finally:
            if handle not in self._handles:
                os.close(handle)

    def _require_free(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            problem = "it is no file, but a directory, pipe or device: give another path"
            raise StoreError(self._where, problem)
        if _key(found) in _held:
            raise self._in_use(os.getpid(), "another broker of this process")

    def _lock(self, lock: Callable[[int], None], handle: int) -> None:
        """Take a lock of the file itself."""
        try:
            lock(handle)
        except (BlockingIOError, PermissionError):
            who = f"process unknown, whose {self._path.name} is gone"
            raise self._in_use(None, who) from None
        except OSError as error:
            raise told(self._where, "it cannot be locked", error) from None

    def _opened(self, path: Path, failed: str, mode: int) -> int:
        """Open a file to write, or make it."""
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT, mode)
        except OSError as error:
            raise told(self._where, failed, error) from None

    def _in_use(self, pid: int | None, who: str) -> StoreInUse:
        return StoreInUse(self._where, pid, f"it is in use by {who}: close that first")

    def check(self) -> None:
        """Take the lock of the file again, if this process has dropped it.

        SQLite drops it while a new file is made, and any program that opens and closes the file in
        this process does.  Costs one call of the system.

        Raises:
            StoreInUse: another process has taken it meanwhile, so there are two owners.
            StoreError: it cannot be locked.
        """
        if self._handles:
            self._lock(lock_byte_again, self._handles[1])

    def release(self) -> None:
        """Give it back, when SQLite has closed the file; whoever is next can have it."""
        self._close(1)  # the file first, since whoever is next takes it last
        if self._handles and _is_same(self._handles[0], self._path):
            with suppress(OSError):  # some systems remove no file that is open
                self._path.unlink()  # while it is locked, so nobody else has it
        self._close(0)

    def abandon(self) -> None:
        """Let go of it in the child of a fork: the parent keeps it."""
        self._close(0)

    __del__ = abandon

    def _close(self, left: int) -> None:
        """Close all files but some."""
        handles = self._handles
        while len(handles) > left:
            handle = handles[-1]
            _held.discard(_key(os.fstat(handle)))
            del handles[-1]  # and no signal strikes before the next line is done
            os.close(handle)


def _owner_in(handle: int) -> tuple[int | None, str]:
    """Return who has locked a file beside: its process, if the number means one here, and words."""
    if _key(os.fstat(handle)) in _held:
        return os.getpid(), "another broker of this process"
    os.lseek(handle, 0, os.SEEK_SET)
    pid, host, space = _signature(os.read(handle, 1000).decode(errors="replace"))
    if pid is None:
        return None, "process unknown"
    if space != _space():
        return None, f"process {pid} of another container or machine ({host or 'unknown'})"
    return pid, f"process {pid}"


def _signature(text: str) -> tuple[int | None, str, str]:
    """Return what an owner has left: its process, its host, and where that number means it."""
    pid, host, space = (*text.split("\n"), "", "")[:3]
    return int(pid) if pid.isascii() and pid.isdigit() else None, host, space


def _space() -> str:
    """Return what is the same where a process's number means the same process.

    That is one pid namespace of one start of a machine, if the system tells; else the machine.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def _key(found: os.stat_result) -> tuple[int, int, int]:
    """Return what tells a file of this process apart from all others, and from a fork's."""
    return os.getpid(), found.st_dev, found.st_ino


def _is_same(handle: int, path: Path) -> bool:
    """Say whether an open file is the one that has the name now."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False
