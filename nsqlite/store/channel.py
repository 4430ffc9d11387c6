"""A channel that is kept: what steers it is in the store when the call returns.

The rule: a message of it is never only in memory; what is closed stays in the store, what is
deleted is gone from it.

Next: store/office.py
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

from nsqlite.channel import Channel, Parent
from nsqlite.clock import Clock
from nsqlite.events import Kind
from nsqlite.message import T
from nsqlite.options import Options
from nsqlite.queue import Moved
from nsqlite.stats import MessageInfo
from nsqlite.store.letter import Letter
from nsqlite.store.shelf import Shelf


class Desk(Parent, Protocol):
    """What a channel that is kept needs of its topic."""

    def confirm(self) -> None:
        """Have written what was decided so far."""
        ...

    def require_owner(self) -> None:
        """Check that this is no child of a fork.

        Raises:
            StoreInUse: it is.
        """
        ...

    def prepare_alone(
        self, body: Any, moved: Moved, channel: "KeptChannel[Any]"
    ) -> tuple[Callable[[], None], Callable[[], str]]:
        """See `Topic._prepare`, for a single channel."""
        ...


class KeptChannel(Channel[T]):
    """A channel of a topic that a store keeps; see `nsqlite.Channel`.

    `close` throws nothing away: what it holds, and what is put afterwards, is there when the file
    is opened again.
    """

    __slots__ = ("_desk", "_shelf")

    def __init__(
        self,
        names: tuple[str, str],
        options: Options,
        clock: Clock,
        desk: Desk,
        shelf: Shelf,
    ) -> None:
        """Begin with what is on the shelf; see `Channel`."""
        super().__init__(names, options, clock, shelf.monitor, desk)
        self._desk: Final = desk
        self._shelf: Final = shelf
        self._queue.keep(shelf)
        self._queue.paused = shelf.paused

    @property
    def number(self) -> int | None:
        """Its number in the store."""
        return self._shelf.number

    # What comes by another way than from the topic

    def _prepare(self, body: T, moved: Moved) -> tuple[Callable[[], None], Callable[[], str]]:
        """See `Topic._prepare`."""
        return self._desk.prepare_alone(body, moved, self)

    def show(self, letter: Letter) -> None:
        """Take the one message of a letter that was meant for this channel alone."""
        if self._over is not None or letter.shown:
            self._shelf.asleep += not letter.shown
            return
        record = letter.records[0]
        self._shelf.alone.add(letter.names[0])
        # One piece, up to the call that completes it:
        letter.shown = True
        self._handed_before -= 1  # it counts as one more that was handed on
        self._queue.ready.append(record)
        self._queue.emit(Kind.PUBLISHED, record)
        self._queue.feed()

    # Looking

    def peek(self, n: int = 10) -> list[MessageInfo]:
        """See `Channel.peek`; shows what is in memory, `mem_queue_size` messages at most."""
        if not self._queue.ready and self._queue.backend_depth:
            self._shelf.fetch()
        return super().peek(n)

    # Steering

    def pause(self) -> None:
        """See `Channel.pause`."""
        self._desk.require_owner()
        super().pause()
        self._desk.confirm()

    def unpause(self) -> None:
        """See `Channel.unpause`."""
        self._desk.require_owner()
        super().unpause()
        self._desk.confirm()

    def empty(self) -> int:
        """See `Channel.empty`."""
        self._desk.require_owner()
        count = super().empty()
        self._desk.confirm()
        return count

    def delete(self) -> int:
        """See `Channel.delete`."""
        self._desk.require_owner()
        count = super().delete()
        self._desk.confirm()
        return count

    def close(self, *, drain: bool = False) -> int:
        """See `Channel.close`; nothing is thrown away."""
        count = super().close(drain=drain)
        self._desk.confirm()
        return count
