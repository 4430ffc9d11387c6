"""A cabinet: what the store keeps of one topic, a shelf for each channel and one for the topic.

The rule: an account is taken in one piece, so what it counts and what it tells of single messages
belong together.

Everything here expects the topic's lock.

Next: store/letter.py
"""

from typing import Final

from nsqlite.store.shelf import Shelf
from nsqlite.store.store import Batch, Row, StoredChannel, StoredTopic


class Cabinet:
    """The shelves of a topic.

    Attributes:
        number: the topic's.
        name: the topic's.
        held: what the topic itself holds; `since` is the id up to which all was handed on.
        shelves: those of the channels, by name.
        gone: the numbers of channels that were deleted and are still in the store.
        pending: messages that were shown and are not written yet, by id: body and timestamp.
        unheld: there may be messages in the store that nobody holds.
        deleted: the topic is.
        written: it is in the store, or was.
    """

    __slots__ = (
        "_sent",
        "deleted",
        "gone",
        "held",
        "name",
        "number",
        "pending",
        "shelves",
        "unheld",
        "written",
    )

    def __init__(self, number: int, name: str, held: Shelf) -> None:
        """Begin without channels."""
        self.number: Final = number
        self.name: Final = name
        self.held: Final = held
        self.shelves: Final[dict[str, Shelf]] = {}
        self.gone: list[int] = []
        self.pending: dict[str, tuple[bytes, int]] = {}
        self._sent: dict[str, tuple[bytes, int]] = {}  # with the last account
        self.unheld = False
        self.deleted = False
        self.written = False

    def remove(self, name: str) -> None:
        """Forget a channel that was deleted."""
        shelf = self.shelves.pop(name, None)
        if shelf is not None and shelf.number is not None:
            self.gone.append(shelf.number)
            self.unheld = True

    def account(self, batch: Batch) -> None:
        """Add to a batch all that the store has not heard yet."""
        self._sent = {}
        gone, self.gone = self.gone, []
        batch.gone_channels += [(self.number, number) for number in gone]
        if self.deleted and not self.written:
            return
        if self.deleted:
            batch.gone_topics.append(self.number)
            return
        held = self.held
        topic = StoredTopic(
            number=self.number,
            name=self.name,
            paused=held.paused,
            handed=int(held.since, 16),
            last=int(held.top, 16),
            held=held.total(),
        )
        batch.topics.append(topic)
        if self.unheld:
            self.unheld = False
            batch.unheld.add(self.number)
        if held.notes:
            batch.copies.append((self.number, None, held.unwritten()))
        notes: list[Shelf] = []
        for shelf in self.shelves.values():
            assert shelf.number is not None
            topic.channels.append(
                StoredChannel(
                    number=shelf.number,
                    name=shelf.name,
                    paused=shelf.paused,
                    since=int(shelf.since, 16),
                    held=shelf.total(),
                )
            )
            if shelf.notes:
                notes.append(shelf)
        if self.pending:
            self._account_pending(batch, notes)
        for shelf in notes:
            batch.copies.append((self.number, shelf.number, shelf.unwritten()))

    def _account_pending(self, batch: Batch, notes: list[Shelf]) -> None:
        """Add what is not written yet, but for what every channel has done with already."""
        self._sent = pending = self.pending
        self.pending = {}
        if len(self.shelves) == 1:
            for shelf in notes:
                shelf.strike_out(pending)
        rows: list[Row] = [
            (int(name, 16), timestamp, None, None, None, body)
            for name, (body, timestamp) in pending.items()
        ]
        batch.rows.append((self.number, rows))

    def restore(self, batch: Batch) -> None:
        """Take back from a batch that could not be written what belongs here."""
        self.gone += [number for topic, number in batch.gone_channels if topic == self.number]
        self.unheld = self.unheld or self.number in batch.unheld
        self.pending = {**self._sent, **self.pending}
        shelves = {shelf.number: shelf for shelf in (self.held, *self.shelves.values())}
        for topic, number, copies in batch.copies:
            if topic == self.number and number in shelves:
                shelves[number].restore(copies)
