"""What a topic that is kept and the keeper of its store need of each other.

The rule: a lower module names a higher one only by what it needs.

Next: store/putting.py
"""

from collections.abc import Callable
from typing import Any, Protocol

from nsqlite.lock import Lock
from nsqlite.message import Message, Record
from nsqlite.monitor import Monitor
from nsqlite.queue import OnDone
from nsqlite.store.letter import Letter, Sender
from nsqlite.store.shelf import Shelf
from nsqlite.store.store import Found, Row


class Kept(Sender, Protocol):
    """What the keeper needs of a topic."""

    @property
    def _monitor(self) -> Monitor:
        """Its lock."""
        ...


class Office(Protocol):
    """What a topic needs of the keeper of its store.

    Attributes:
        lock: held by whoever writes.
        many: there is much that should go along with the next write.
        crowded: several puts shared the last commit.
        queue: the letters that were reserved and are not settled.
        now_shown: what was reserved is shown at once, and written later.
        mem_queue_size: how many ready messages of a channel are held in memory.
        counts: deliveries are counted before `get` returns.
        sync_every: of so many changes the store hears at once.
    """

    lock: Lock
    many: bool
    crowded: bool
    queue: list[Letter]
    now_shown: bool
    mem_queue_size: int
    counts: bool
    sync_every: int

    @property
    def over(self) -> bool:
        """Whether the store cannot be used."""
        ...

    def leave(self) -> None:
        """Release the lock, if the calling thread holds it."""
        ...

    def require_open(self) -> None:
        """Check that the store can be used."""
        ...

    def require_owner(self) -> None:
        """Check that this is no child of a fork."""
        ...

    def flush(self) -> None:
        """Write all that is not written; blocks."""
        ...

    def require_free(self, call: str) -> None:
        """Check that the calling thread holds no lock of the store or its topics."""
        ...

    def confirm_soon(self) -> None:
        """Have all written soon, by the store's thread."""
        ...

    def encode(self, body: Any) -> tuple[Any, bytes, str | None]:
        """Return a body as it will come back, its bytes and what made them."""
        ...

    def record(self, found: Found) -> Record[Any]:
        """Return what was read as a record."""
        ...

    def next_channel(self) -> int:
        """Return a number that no channel has."""
        ...

    def read_all(self, topic: int, shelf: Shelf) -> list[Found]:
        """Return what a shelf has in the file in order."""
        ...

    def read_apart(self, topic: int, shelf: Shelf) -> list[Found]:
        """Return what a shelf has in the file apart."""
        ...

    def stir(self, topic: Kept, *, many: bool = False) -> None:
        """Take note that there is something to be written."""
        ...

    def confirm(self) -> None:
        """Have written what was decided so far."""
        ...

    def write(self, letter: Letter) -> None:
        """Have a letter written and shown; blocks."""
        ...

    def write_row(self, number: int, row: Row) -> None:
        """Write a message; the lock is held."""
        ...

    def adopt(self, letter: Letter) -> None:
        """Have the store's thread bring a letter to its end, if it was reserved."""
        ...

    def put_first(self, letter: Letter) -> None:
        """Have a letter written and shown before all others; the lock is held."""
        ...

    def hurry(self) -> None:
        """Have what is reserved written soon, by the store's thread."""
        ...

    def want(self, topic: Kept, shelf: Shelf) -> None:
        """Have a page read soon."""
        ...

    def send(self, errand: Callable[[], object], told: OnDone) -> None:
        """Have something done by the store's thread."""
        ...

    def fetch(self, topic: Kept, shelf: Shelf) -> None:
        """Read a page; blocks."""
        ...

    def read_ahead(self, topic: Kept, shelf: Shelf) -> None:
        """Read a page if the calling thread may wait for it."""
        ...

    def settle(self, topic: Kept, shelf: Shelf, messages: list[Message[Any]]) -> None:
        """Have deliveries counted; blocks."""
        ...
