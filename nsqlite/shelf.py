"""What a queue needs of a store that keeps it, and nothing else of it.

The rule: a lower module names a higher one only by what it needs.

A queue without a shelf is in memory only, which is the default and costs nothing: whatever is asked
of a shelf is asked where the long way is taken anyway.

Next: backlog.py
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeAlias

from nsqlite.message import Message, Record
from nsqlite.observe import Kind

Told: TypeAlias = Callable[[BaseException | None], object]
"""Hears that something was done, or why it could not be."""


class Shelf(Protocol):
    """The part of a queue that lies in a store.

    Attributes:
        counted: the store counts each delivery before `get` returns; see `settle`.
    """

    counted: bool

    def hear(self, kind: Kind, record: Record[Any] | None, due: int | None) -> None:
        """Take note of what happened to the queue or to a message of it.

        Takes no lock and runs no user code; the topic's lock is held.

        Args:
            kind: what happened.
            record: the message as it is now, None where the queue is meant.
            due: until when it waits, on the clock's monotonic scale; None if it does not.
        """
        ...

    def delivered(self, messages: Iterable[Message[Any]]) -> None:
        """Take note of deliveries; the topic's lock is held."""
        ...

    def finished(self, messages: Iterable[Message[Any]]) -> None:
        """Take note that messages were finished; the topic's lock is held."""
        ...

    def deliver(self, owner: Any) -> Message[Any] | None:
        """Deliver the next message to a consumer if there is nothing else to mind; takes the lock.

        It may read ahead what comes next, and so block.

        Returns:
            None if the long way is to be taken; then nothing has changed.
        """
        ...

    def finish(self, owner: Any, message: Message[Any]) -> bool:
        """Finish a message if there is nothing else to mind; takes the lock.

        Returns:
            False if the long way is to be taken; then nothing has changed.
        """
        ...

    def put_away(self) -> None:
        """Take back what is in memory: the queue ends, its messages stay in the store.

        The topic's lock is held.
        """
        ...

    def fetch(self) -> None:
        """Bring what comes next from the store into memory; blocks, and takes the lock.

        Raises:
            StoreError: it cannot be read; nothing has changed.
        """
        ...

    def send(self, errand: Callable[[], object], told: Told) -> None:
        """Have something that blocks, as `fetch`, done by the store's thread; takes no lock.

        Args:
            errand: what is to be done.
            told: called afterwards, by that thread.
        """
        ...

    def settle(self, messages: list[Message[Any]]) -> None:
        """Have deliveries counted in the store; blocks.

        Raises:
            StoreError: it cannot be written; the messages are back in the queue, as they were.
        """
        ...
