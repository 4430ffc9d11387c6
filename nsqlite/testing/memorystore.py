"""A store for tests that need what it does and no disk.

The rule: it keeps for as long as it lives, whatever becomes of the brokers that open it.

Next: testing/faultystorage.py
"""

import weakref
from collections.abc import Callable
from typing import Final, Unpack

from nsqlite.ids import GuidFactory
from nsqlite.store.database import Database
from nsqlite.store.storage import Storage
from nsqlite.store.terms import StoreOptions, agree
from nsqlite.testing.memorystorage import WHERE, Contents, MemoryStorage


class MemoryStore:
    """Where a broker of a test keeps its messages: `Broker(store=MemoryStore())`.

        >>> import nsqlite
        >>> store = MemoryStore()
        >>> with nsqlite.Broker(store=store) as broker:
        ...     id = broker.topic("orders").put(b"order 1")
        >>> with nsqlite.Broker(store=store) as broker:
        ...     broker.topic("orders").depth
        1

    Attributes:
        contents: what it keeps.
    """

    def __init__(self, **options: Unpack[StoreOptions]) -> None:
        """Begin empty.

        Args:
            options: see `nsqlite.store.StoreOptions`; `sync` says here too what `put` waits for.

        Raises:
            InvalidOption: an option is unknown or out of its range.
        """
        self.contents: Final = Contents()
        self._terms: Final = agree(options)
        self._database: Callable[[], Database | None] = lambda: None  # of the last that opened it

    def open(self, factory: GuidFactory) -> Database:
        """Open it; for `Broker`.

        Raises:
            StoreInUse: another broker has it open.
        """
        return self._keep(self._storage(), factory)

    def _storage(self) -> Storage:
        """Open the storage alone."""
        return MemoryStorage(self.contents)

    def _keep(self, storage: Storage, factory: GuidFactory) -> Database:
        """Return what keeps a broker's topics in a storage."""
        try:
            database = Database(WHERE, storage, self._terms, factory)
        except BaseException:
            storage.close()
            raise
        self._database = weakref.ref(database)
        return database

    def crash(self) -> None:
        """Leave the broker that has it open without it, as if its process had died.

        What that broker had not written yet is lost; the next one finds all that was.
        """
        if self.contents.owner is not None:
            self.contents.owner.crash()
        database = self._database()
        if database is not None:
            database.crash()

    def __repr__(self) -> str:
        """Show whether it is open."""
        state = "closed" if self.contents.owner is None else "open"
        return f"<MemoryStore, {state}>"
