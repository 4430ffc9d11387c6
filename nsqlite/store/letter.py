"""One put on its way into a store and then to the channels.

The rule: it is reserved, stored and shown, in this order; or it is refused, and nobody has seen it.

    reserved --written--> settled --_show--> in the channels
                |
                `--failed--> settled, with an error --_show--> as if it had never been

Next: store/fanout.py
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from nsqlite.errors import NSQLiteError
from nsqlite.message import Record
from nsqlite.monitor import Monitor
from nsqlite.queue import Moved, Queue
from nsqlite.store.cabinet import Cabinet
from nsqlite.store.shelf import Shelf
from nsqlite.store.store import Row

Draft: TypeAlias = tuple[Any, bytes, str | None]
"""A body as it will come back, its bytes, and the name of the codec that made them."""

if TYPE_CHECKING:
    Base = list[Record[Any]]
else:
    Base = list


class Sender(Protocol):
    """What a letter needs of its topic."""

    @property
    def cabinet(self) -> Cabinet:
        """What the store keeps of it."""
        ...

    @property
    def _monitor(self) -> Monitor:
        """Its lock."""
        ...

    def settle_letter(self, letter: "Letter") -> None:
        """Take note that a letter is written or refused."""
        ...

    def show(self) -> None:
        """Show what is settled, and cancel what was refused; takes the lock."""
        ...


class Letter(Base):
    """The messages of one put; as a list, what was asked for, whose length counts.

    Attributes:
        topic: where they are put.
        drafts: the bodies.
        only: the number of the only channel that they are meant for.
        records: the messages, once they are reserved.
        rows: what is to be written of them.
        names: their ids.
        size: the sum of the lengths of their bytes.
        due: until when they wait, on the clock's monotonic scale.
        semaphore: what its put sleeps on.
        bounded: the queues in which room is spoken for.
        moved: what is finished by this.
        origin: the shelf that it leaves, if a store keeps it.
        accounts: how many accounts of that shelf's topic were taken before.
        source: the lock of where that came from, once it is back there.
        settled: it is written, or refused.
        error: why it was refused.
        shown: the channels have it, or it is cancelled.
        told: called once it is settled and shown, for who does not block; in any thread.
    """

    __slots__ = (
        "accounts",
        "bounded",
        "drafts",
        "due",
        "error",
        "moved",
        "names",
        "only",
        "origin",
        "records",
        "rows",
        "semaphore",
        "settled",
        "shown",
        "size",
        "source",
        "told",
        "topic",
    )

    def __init__(
        self,
        topic: Sender,
        drafts: list[Draft],
        told: Callable[[], object] | None = None,
        only: int | None = None,
    ) -> None:
        """Begin as what is not reserved yet."""
        super().__init__(drafts)  # type: ignore[arg-type]  # only their number counts
        self.topic: Final = topic
        self.drafts: Final = drafts
        self.told: Final = told
        self.only: Final = only
        self.records: list[Record[Any]] = []
        self.rows: list[Row] = []
        self.names: list[str] = []
        self.size: int = 0
        self.due: int | None = None
        self.bounded: tuple[Queue[Any], ...] = ()
        self.moved: Moved | None = None
        self.origin: Shelf | None = None
        self.accounts: int = 0
        self.source: Monitor | None = None
        self.semaphore: Final = threading.Lock()
        self.semaphore.acquire()
        self.settled: bool = False
        self.error: NSQLiteError | None = None
        self.shown: bool = False

    def leave(self, moved: Moved) -> None:
        """Note what is finished by this, before it is; the lock of where it is is held."""
        self.moved = moved
        shelf = moved[0].persistence
        if isinstance(shelf, Shelf):
            self.origin = shelf
            self.accounts = shelf.accounts()

    def is_left(self) -> bool:
        """Say whether the store has heard, or hears in this batch, that what is moved has left."""
        return self.origin is None or self.origin.accounts() > self.accounts

    @property
    def what(self) -> str:
        """What failed if it is refused, in words."""
        kind = "put" if self.moved is None and self.source is None else "move"
        return f"a {kind} to topic {self.topic.cabinet.name!r} has failed"
