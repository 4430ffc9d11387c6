"""`nsqlite.SQLite`: a broker's messages in one SQLite file.

The rule: a file has one owner at a time, and this object is only the way to open it.

Next: wire/__init__.py
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar, Unpack

from nsqlite.clock import SYSTEM, Clock, held_semaphore
from nsqlite.errors import InvalidOption, StoreInUse
from nsqlite.ids import GuidFactory
from nsqlite.options import SECOND, Seconds, nanoseconds
from nsqlite.store.database import Database
from nsqlite.store.paths import checked_path, full_path, require_descriptors
from nsqlite.store.sqlitefile import SQLiteFile
from nsqlite.store.storage import Storage
from nsqlite.store.terms import StoreOptions, agree

__all__ = ["SQLite"]

T = TypeVar("T")

SHORTEST: Final = SECOND // 1000
"""The first pause between two looks at a file that is in use; each is twice as long as the last."""

LONGEST: Final = SECOND // 20
"""The longest such pause."""


class SQLite:
    """Where a broker keeps its messages: `Broker(store=SQLite("jobs.db"))`.

        >>> import nsqlite, tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = f"{directory}/jobs.db"
        ...     with nsqlite.Broker(store=SQLite(path)) as broker:
        ...         id = broker.topic("orders").put(b"order 1")
        ...     with nsqlite.Broker(store=SQLite(path)) as broker:
        ...         consumer = nsqlite.Consumer(broker.topic("orders").channel("billing"))
        ...         consumer.get(timeout=0).body
        b'order 1'

    Attributes:
        path: where the file is.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        wait: Seconds = 0,
        checksums: bool = True,
        control: bool = False,
        **options: Unpack[StoreOptions],
    ) -> None:
        """Say where, and how; nothing is opened yet.

        Args:
            path: the file, which is made if it is not there.  While it is open there lie beside it
                `-wal` and `-shm`, which are SQLite's, and `-owner`.
            wait: seconds to wait for another owner to close the file, as where a new process takes
                over from an old one.  The thread that makes the broker waits.
            checksums: whether what is put from now on gets a checksum.  Without, a body that the
                disk has changed is delivered as it is; a put takes some 0.6 us less.
            control: let other processes of this user put into it, look and steer: by
                `nsqlite.attach`, and by the commands of `python -m nsqlite`.  It listens on a unix
                socket beside the file, `-control`, with a thread, and one for each connection.
                Windows has no such sockets.
            options: see `nsqlite.store.StoreOptions`.

        Raises:
            InvalidOption: an option is unknown or out of its range, or the path no path of a file.
        """
        self.path: Final = checked_path(path)
        self._patience: Final = nanoseconds("wait", wait)
        if not isinstance(checksums, bool):
            raise InvalidOption("checksums", checksums, "True or False")
        self._checksums: Final = checksums
        self._control: Final = checked_control(control)
        self._terms: Final = agree(options)

    def open(self, factory: GuidFactory) -> Database:
        """Open the file; for `Broker`.

        Raises:
            StoreInUse: it has an owner, and still has when `wait` is over.
            StoreForeign: it is not one of nsqlite's, or a later version wrote it.
            StoreDamaged: it is damaged.
            StoreError: it cannot be opened or written.
        """
        return self._keep(self._storage(), factory)

    @property
    def _where(self) -> str:
        """Where the file is, wherever the process goes.

        Raises:
            StoreError: that cannot be told.
        """
        return full_path(self.path)

    def _storage(self) -> Storage:
        """Open the file alone; a seam for tests, which have a storage of theirs around it."""
        where = self._where
        require_descriptors(where)
        full = self._terms.sync == "full"
        take = partial(SQLiteFile, where, full=full, checksums=self._checksums)
        return in_turn(self._patience, take)

    def _keep(self, storage: Storage, factory: GuidFactory) -> Database:
        """Return what keeps a broker's topics in an open file."""
        try:
            return Database(self._where, storage, self._terms, factory, control=self._control)
        except BaseException:
            storage.close()
            raise

    def __repr__(self) -> str:
        """Show the path."""
        return f"<SQLite {self.path!r}>"


def in_turn(patience: int, take: Callable[[], T], clock: Clock = SYSTEM) -> T:
    """Take what has one owner at a time, when the one before has given it back.

    It looks again after growing pauses: a lock that can be waited for has no limit of time but by
    an alarm signal, which may be the program's, or a thread that nobody can end.  What a signal
    throws ends it, with nothing taken.

    Args:
        patience: how long to wait, in nanoseconds; with 0 it looks once.
        take: takes it, or raises `StoreInUse`.
        clock: on which to wait; what other processes do goes by the system's.

    Raises:
        StoreInUse: somebody has it still.
    """
    end = clock.monotonic_ns() + patience
    pause = SHORTEST
    while True:
        try:
            return take()
        except StoreInUse as error:
            now = clock.monotonic_ns()
            if now >= end:
                if patience:
                    problem = f"{error.problem} (after waiting {patience / SECOND:g} s)"
                    raise StoreInUse(error.where, error.pid, problem) from None
                raise
        clock.wait(held_semaphore(), min(now + pause, end), "who opens a store")
        pause = min(2 * pause, LONGEST)


def checked_control(given: object) -> bool:
    """Return whether there is to be a control socket.

    Raises:
        InvalidOption: it is no bool, or the system has no such sockets.
    """
    if not isinstance(given, bool):
        raise InvalidOption("control", given, "True or False")
    if given:
        from nsqlite.store.controllines import has_sockets  # noqa: PLC0415 - loads sockets

        if not has_sockets():
            raise InvalidOption("control", given, "False: this system has no unix sockets")
    return given
