"""A storage that fails where a test says so, and a store made of any other that has such a one.

The rule: it does what the storage does that it wraps, and adds nothing but its points.

Next: testing/faults.py
"""

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias

from nsqlite.ids import GuidFactory
from nsqlite.store.database import Database
from nsqlite.store.storage import Batch, Found, Row, Storage, StoredChannel, StoredTopic

Fault: TypeAlias = Callable[[str], object]
"""Called at each point with its name, as ``"before write_row"``; the call raises what it raises."""

WRITES: Final = ("write_row", "write_rows", "write_attempts", "write")
"""The calls that write a broker's messages; all but `abandon` have points."""


class FaultyStorage:
    """A `nsqlite.store.Storage` around another, with a point before and after each call.

    A fault before a call that raises `StoreError` is a store that fails as it should: nothing has
    changed.  A fault after it is for what may hit even a good store: a signal, or the death of the
    process, when the call has taken effect and nobody has heard of it.
    """

    def __init__(self, storage: Storage, fault: Fault) -> None:
        """Wrap a storage.

        Args:
            storage: what does the work.
            fault: see `Fault`; called by whichever thread calls the storage.
        """
        self._storage: Final = storage
        self._fault: Final = fault

    def _between(self, name: str, *arguments: Any) -> Any:
        """Make a call of the storage, between its two points."""
        self._fault(f"before {name}")
        result = getattr(self._storage, name)(*arguments)
        self._fault(f"after {name}")
        return result

    def load(self) -> tuple[list[StoredTopic], list[StoredChannel]]:
        """See `Storage`."""
        loaded: tuple[list[StoredTopic], list[StoredChannel]] = self._between("load")
        return loaded

    def count(self, topic: int) -> tuple[int, dict[int, int]]:
        """See `Storage`."""
        counts: tuple[int, dict[int, int]] = self._between("count", topic)
        return counts

    def highest(self) -> tuple[int, int, int]:
        """See `Storage`."""
        numbers: tuple[int, int, int] = self._between("highest")
        return numbers

    def last(self, topic: int) -> int:
        """See `Storage`."""
        identity: int = self._between("last", topic)
        return identity

    def set_clock(self, now: int) -> None:
        """See `Storage`."""
        self._between("set_clock", now)

    def write_row(self, number: int, row: Row) -> None:
        """See `Storage`."""
        self._between("write_row", number, row)

    def write_rows(self, number: int, rows: list[Row]) -> None:
        """See `Storage`."""
        self._between("write_rows", number, rows)

    def write_attempts(self, number: int, channel: int, copies: list[tuple[int, int]]) -> None:
        """See `Storage`."""
        self._between("write_attempts", number, channel, copies)

    def write(self, batch: Batch) -> None:
        """See `Storage`."""
        self._between("write", batch)

    def read(
        self, topic: int, channel: int | None, after: int, upto: int, limit: int
    ) -> list[Found]:
        """See `Storage`."""
        found: list[Found] = self._between("read", topic, channel, after, upto, limit)
        return found

    def read_apart(self, topic: int, channel: int | None, after: int, upto: int) -> list[Found]:
        """See `Storage`."""
        found: list[Found] = self._between("read_apart", topic, channel, after, upto)
        return found

    def read_deferred(
        self,
        topic: int,
        channel: int | None,
        between: tuple[int, int],
        behind: tuple[int, int],
        limit: int,
    ) -> list[Found]:
        """See `Storage`."""
        told = topic, channel, between, behind, limit
        found: list[Found] = self._between("read_deferred", *told)
        return found

    def count_deferred(self, topic: int, channel: int | None, between: tuple[int, int]) -> int:
        """See `Storage`."""
        count: int = self._between("count_deferred", topic, channel, between)
        return count

    def find(self, topic: int, channel: int | None, identity: int) -> list[Found]:
        """See `Storage`."""
        found: list[Found] = self._between("find", topic, channel, identity)
        return found

    def alone(self, topic: int, channel: int, above: int) -> list[int]:
        """See `Storage`."""
        found: list[int] = self._between("alone", topic, channel, above)
        return found

    def copy_log(self) -> None:
        """See `Storage`."""
        self._between("copy_log")

    def copy_all(self) -> None:
        """See `Storage`."""
        self._between("copy_all")

    def tidy(self) -> bool:
        """See `Storage`."""
        more: bool = self._between("tidy")
        return more

    def backup(self, path: str) -> None:
        """See `Storage`."""
        self._between("backup", path)

    def close(self) -> None:
        """See `Storage`."""
        self._between("close")

    def abandon(self) -> None:
        """See `Storage`; it has no points, since it is called while a process forks."""
        self._storage.abandon()


class Openable(Protocol):
    """What a store must be made of to be made faulty, as `SQLite` and `MemoryStore` are."""

    def _storage(self) -> Storage:
        """Open the storage alone."""
        ...

    def _keep(self, storage: Storage, factory: GuidFactory) -> Database:
        """Return what keeps a broker's topics in a storage."""
        ...


class FaultyStore:
    """A store with a `FaultyStorage` in it: `Broker(store=FaultyStore(MemoryStore(), fault))`.

    For example:

    >>> import nsqlite
    >>> from nsqlite.testing import MemoryStore
    >>> full = []
    >>> def fault(point):
    ...     if full and point.startswith("before write"):
    ...         raise nsqlite.StoreFull("jobs.db", "the disk is full")
    >>> with nsqlite.Broker(store=FaultyStore(MemoryStore(), fault)) as broker:
    ...     topic = broker.topic("orders")
    ...     full.append(True)
    ...     try:
    ...         topic.put(b"order 1")
    ...     except nsqlite.StoreFull:
    ...         topic.depth
    ...     full.clear()
    0
    """

    def __init__(self, store: Openable, fault: Fault) -> None:
        """Wrap a store.

        Args:
            store: a store that is not open.
            fault: see `Fault`.
        """
        self._store: Final = store
        self._fault: Final = fault

    def open(self, factory: GuidFactory) -> Database:
        """Open it; for `Broker`.

        Raises:
            StoreError: the store that it wraps cannot be opened.
        """
        return self._store._keep(self._storage(), factory)

    def _storage(self) -> Storage:
        """Open the storage alone."""
        return FaultyStorage(self._store._storage(), self._fault)

    def _keep(self, storage: Storage, factory: GuidFactory) -> Database:
        """Return what keeps a broker's topics in a storage."""
        return self._store._keep(storage, factory)

    def __repr__(self) -> str:
        """Show what it wraps."""
        return f"<FaultyStore of {self._store!r}>"
