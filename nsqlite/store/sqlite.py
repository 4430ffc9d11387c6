"""`nsqlite.SQLite`: a broker's messages in one SQLite file.

The rule: a file has one owner at a time, and this object is only the way to open it.

Next: testing/__init__.py
"""

import os
from typing import Final, Unpack

from nsqlite.errors import InvalidOption
from nsqlite.ids import GuidFactory
from nsqlite.store.keeper import Keeper
from nsqlite.store.sqlitefile import SQLiteFile
from nsqlite.store.store import Storage
from nsqlite.store.terms import StoreOptions, agree

__all__ = ["SQLite"]


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

    def __init__(self, path: str | os.PathLike[str], **options: Unpack[StoreOptions]) -> None:
        """Say where, and how; nothing is opened yet.

        Args:
            path: the file, which is made if it is not there.  While it is open there lie beside it
                `-wal` and `-shm`, which are SQLite's, and `-owner`.
            options: see `nsqlite.store.StoreOptions`.

        Raises:
            InvalidOption: an option is unknown or out of its range, or the path no path of a file.
        """
        self.path: Final = _checked(path)
        self._terms: Final = agree(options)

    def open(self, factory: GuidFactory) -> Keeper:
        """Open the file; for `Broker`.

        Raises:
            StoreInUse: it has an owner already.
            StoreForeign: it is none of nsqlite's, or a later version's.
            StoreDamaged: it is damaged.
            StoreError: it cannot be opened or written.
        """
        return self._keep(self._storage(), factory)

    @property
    def _where(self) -> str:
        """Where the file is, wherever the process goes."""
        return os.path.realpath(self.path)

    def _storage(self) -> Storage:
        """Open the file alone; a seam for tests, which have a storage of theirs around it."""
        return SQLiteFile(self._where, full=self._terms.sync == "full")

    def _keep(self, storage: Storage, factory: GuidFactory) -> Keeper:
        """Return what keeps a broker's topics in an open file."""
        try:
            return Keeper(self._where, storage, self._terms, factory)
        except BaseException:
            storage.close()
            raise

    def __repr__(self) -> str:
        """Show the path."""
        return f"<SQLite {self.path!r}>"


def _checked(path: object) -> str:
    """Return the path of a file as text.

    Raises:
        InvalidOption: it is none.
    """
    given = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(given, str) or given in ("", ":memory:") or "\0" in given:
        raise InvalidOption("path", path, "the path of a file, as text or a Path")
    return given
