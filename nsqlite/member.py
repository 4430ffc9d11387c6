"""What a channel needs of its consumers and of its topic, and nothing else of them.

The rule: a lower module names a higher one only by what it needs.

Next: channelcore.py
"""

from typing import Any, Final, Protocol

from nsqlite.delivery import Gate, Holder
from nsqlite.message import Record
from nsqlite.stats import ClientStats
from nsqlite.waiter import Waiter

SHUT: Final[Gate[Any]] = Gate()
"""The gate of consumers that always go the long way."""


class Member(Holder, Protocol):
    """What a channel needs of a consumer.

    Attributes:
        gate: the channel's, or `SHUT`.
        over: whether it gets nothing more.
        window: how many messages it may hold.
    """

    gate: Gate[Any]
    over: bool
    window: int

    @property
    def waiters(self) -> dict[Waiter[Any], None]:
        """Its gets that wait."""
        ...

    def stats(self) -> ClientStats:
        """Return a snapshot."""
        ...


class Parent(Protocol):
    """What a channel needs of its topic."""

    def room(self) -> None:
        """Let the first blocked put look again."""
        ...

    def handed(self) -> int:
        """Return how many messages the topic has handed on so far."""
        ...

    def changed(self) -> None:
        """Take note that a channel has opened, closed or gone."""
        ...

    def mint(self, body: Any) -> tuple[Record[Any], str]:
        """Check a body, and return a record of it and its id; takes the lock."""
        ...
