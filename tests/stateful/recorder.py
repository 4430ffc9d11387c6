"""A record of what SQLite does to the files of one database, made by a VFS before the system's.

The rule: what is recorded is what SQLite asked the operating system for, in its order: a record
when it begins and another one when it is done.  A mark among them tells what the program did.

The VFS is registered through ctypes in the library that `sqlite3` itself uses, and hands everything
on to the one that was the default; so it needs no compiler.  It does not see the `-shm`, which is
made anew after a loss of power, nor what Python does to files without SQLite; syncs of the
directory are recorded where SQLite for Unix makes them.

A file's name here is what comes after that of the database: `""`, `"-wal"`, `"-journal"`.
"""

import _sqlite3
import ctypes
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

NAME: Final = "recorder"

CREATE: Final = 0x4
SYNCS_DIRECTORY: Final = 0x800 | 0x4000 | 0x80000
"""`SQLITE_OPEN_` flags: it may be made; it is a journal or a log, whose first sync is also one of
the directory."""


class Write(NamedTuple):
    """Bytes were written to a file."""

    file: str
    offset: int
    data: bytes


class Truncate(NamedTuple):
    """A file was cut to a size."""

    file: str
    size: int


class Sync(NamedTuple):
    """A file was synced."""

    file: str


class Link(NamedTuple):
    """A file was made, which has the name from now on."""

    name: str
    file: str


class Unlink(NamedTuple):
    """A name was removed."""

    name: str


class SyncDirectory(NamedTuple):
    """The directory was synced."""


Act: TypeAlias = Write | Truncate | Sync | Link | Unlink | SyncDirectory


class Begin(NamedTuple):
    """An act began."""

    number: int
    act: Act


class End(NamedTuple):
    """An act is done, or has failed."""

    number: int
    succeeded: bool


class Mark(NamedTuple):
    """The program said something."""

    line: str


Record: TypeAlias = Begin | End | Mark


# SQLite's structures

_Open: Final = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_void_p,
)
_Delete: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
_Write: Final = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
)
_Truncate: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int64)
_Sync: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)


class _Methods(ctypes.Structure):
    """`sqlite3_io_methods`, version 2: without mapped pages, whose writing nobody would see."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("close", ctypes.c_void_p),
        ("read", ctypes.c_void_p),
        ("write", _Write),
        ("truncate", _Truncate),
        ("sync", _Sync),
        ("others", ctypes.c_void_p * 11),
    )


class _File(ctypes.Structure):
    """`sqlite3_file`."""

    _fields_ = (("methods", ctypes.POINTER(_Methods)),)


class _Vfs(ctypes.Structure):
    """`sqlite3_vfs`, version 3."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("file_size", ctypes.c_int),
        ("max_path", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("open", _Open),
        ("delete", _Delete),
        ("others", ctypes.c_void_p * 13),
    )


class Unavailable(Exception):
    """The library that `sqlite3` uses cannot be reached, so nothing can be recorded."""


def _library() -> ctypes.CDLL:
    """Return the library that `sqlite3` uses.

    Raises:
        Unavailable: it shows nobody its functions.
    """
    library = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
    try:
        library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
    except AttributeError:
        raise Unavailable("SQLite is a part of this Python and shows no functions") from None
    return library


class _Opened(NamedTuple):
    """An open file that is recorded."""

    file: str
    methods: Any


class Recorder:
    """Records what is done to one database from `install` on; once a process.

    Attributes:
        records: what was recorded, the oldest first.
    """

    def __init__(self, path: str) -> None:
        """Take the database's file, as SQLite will name it: a real path.

        Raises:
            Unavailable: the library that `sqlite3` uses cannot be reached.
        """
        self.records: Final[list[Record]] = []
        self._path: Final = path
        self._numbers: Final = count()
        self._files: Final[dict[str, str]] = {}  # by name
        self._open: Final[dict[int, _Opened]] = {}  # by the address of SQLite's structure
        self._unsynced: Final[set[int]] = set()  # those whose first sync is one of the directory
        self._methods: Final[dict[int, _Methods]] = {}  # by the address of those they replace
        self._library: Final = _library()
        self._original: Final = self._library.sqlite3_vfs_find(None)
        self._vfs: Final = _Vfs.from_buffer_copy(self._original.contents)
        self._vfs.name = NAME.encode()
        self._vfs.open = _Open(self._on_open)
        self._vfs.delete = _Delete(self._on_delete)
        self._write: Final = _Write(self._on_write)
        self._truncate: Final = _Truncate(self._on_truncate)
        self._sync: Final = _Sync(self._on_sync)

    def install(self, *, default: bool = True) -> None:
        """Have SQLite use it, for every database or for those that name it."""
        self._library.sqlite3_vfs_register(ctypes.byref(self._vfs), int(default))

    def uninstall(self) -> None:
        """Have SQLite forget it; nothing may be open."""
        self._library.sqlite3_vfs_unregister(ctypes.byref(self._vfs))

    def mark(self, line: str) -> None:
        """Record that the program said something."""
        self.records.append(Mark(line))

    def _record(self, act: Act, call: Callable[[], int]) -> int:
        """Record an act while it is done; return what SQLite is told."""
        number = next(self._numbers)
        self.records.append(Begin(number, act))
        code = call()
        self.records.append(End(number, code == 0))
        return code

    def _on_open(self, _: int, name: int | None, handle: int, flags: int, out: int) -> int:
        def call() -> int:
            return int(self._original.contents.open(self._original, name, handle, flags, out))

        path = "" if name is None else os.fsdecode(ctypes.string_at(name))
        if not path.startswith(self._path):
            return call()
        part = path.removeprefix(self._path)
        if flags & CREATE and self._is_new(part, path):
            self._files[part] = f"{part}#{next(self._numbers)}"
            code = self._record(Link(part, self._files[part]), call)
        else:
            code = call()
        if code == 0:
            self._replace_methods(handle, self._files.setdefault(part, part), flags)
        return code

    def _is_new(self, part: str, path: str) -> bool:
        """Say whether a file is made by being opened, or was made without SQLite just before."""
        if not Path(path).exists():
            return True
        return part not in self._files and not Path(path).stat().st_size

    def _replace_methods(self, handle: int, file: str, flags: int) -> None:
        opened = _File.from_address(handle)
        original = opened.methods.contents
        address = ctypes.addressof(original)
        if address not in self._methods:
            methods = self._methods[address] = _Methods.from_buffer_copy(original)
            methods.version = 2
            methods.write = self._write
            methods.truncate = self._truncate
            methods.sync = self._sync
        self._open[handle] = _Opened(file, original)
        opened.methods = ctypes.pointer(self._methods[address])
        self._unsynced.discard(handle)
        if flags & CREATE and flags & SYNCS_DIRECTORY:
            self._unsynced.add(handle)

    def _on_write(self, handle: int, data: int, size: int, offset: int) -> int:
        file, methods = self._open[handle]
        return self._record(
            Write(file, offset, ctypes.string_at(data, size)),
            lambda: methods.write(handle, data, size, offset),
        )

    def _on_truncate(self, handle: int, size: int) -> int:
        file, methods = self._open[handle]
        return self._record(Truncate(file, size), lambda: methods.truncate(handle, size))

    def _on_sync(self, handle: int, flags: int) -> int:
        file, methods = self._open[handle]
        code = self._record(Sync(file), lambda: methods.sync(handle, flags))
        if code == 0 and handle in self._unsynced:
            self._unsynced.remove(handle)
            self._record(SyncDirectory(), lambda: 0)
        return code

    def _on_delete(self, _: int, name: int, directory: int) -> int:
        def call() -> int:
            return int(self._original.contents.delete(self._original, name, directory))

        path = os.fsdecode(ctypes.string_at(name))
        if not path.startswith(self._path):
            return call()
        part = path.removeprefix(self._path)
        code = self._record(Unlink(part), call)
        if code == 0:
            self._files.pop(part, None)
            if directory:
                self._record(SyncDirectory(), lambda: 0)
        return code


def require(directory: Path) -> None:
    """Check that what SQLite does can be recorded here.

    Args:
        directory: where a database can be made.

    Raises:
        Unavailable: it cannot.
    """
    path = Path(os.path.realpath(directory)) / "trial"
    recorder = Recorder(str(path))
    recorder.install(default=False)
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?vfs={NAME}", uri=True)) as connection:
            connection.execute("CREATE TABLE trial (number)")
    except sqlite3.OperationalError as error:
        raise Unavailable(f"another SQLite was found than the one in use: {error}") from None
    finally:
        recorder.uninstall()
    if not recorder.records:
        raise Unavailable("SQLite writes without its VFS")
