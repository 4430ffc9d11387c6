"""A cabinet: what the store keeps of one topic, a shelf for each channel and one for the topic.

The rule: an account is taken in one piece under the topic's lock, so what it counts and what it
tells of single messages belong together; what takes long is done with it afterwards.

Everything of a cabinet but `noted` expects the topic's lock; an account, once taken, is its
taker's.

Next: store/letter.py
"""

from itertools import repeat
from typing import Final

import attrs

from nsqlite.store.shelf import Shelf
from nsqlite.store.store import GONE, Batch, Copy, Row, StoredChannel, StoredTopic


@attrs.define(eq=False)
class Account:
    """What the store has not heard yet of a topic.

    Attributes:
        decided: what was put must not be written before this.
        topic: the topic as it is, with its channels; None if it was deleted.
        gone_topic: its number, if it was deleted and is still in the store.
        gone: the numbers of channels that were deleted and are still in the store.
        emptied: after and up to which ids the topic has thrown away what it held.
        unheld: there may be messages in the store that nobody holds.
        notes: what became of messages, by id, for each shelf.
        pending: messages that were shown and are not written, by id.
    """

    decided: bool = False
    topic: StoredTopic | None = None
    gone_topic: int | None = None
    gone: list[int] = attrs.Factory(list)
    emptied: list[tuple[str, str]] = attrs.Factory(list)
    unheld: bool = False
    notes: list[tuple[Shelf, dict[str, Copy]]] = attrs.Factory(list)
    pending: dict[str, Row] = attrs.Factory(dict)

    def add_to(self, batch: Batch, number: int) -> None:
        """Add it to a batch; needs no lock."""
        batch.gone_channels += [(number, gone) for gone in self.gone]
        if self.gone_topic is not None:
            batch.gone_topics.append(self.gone_topic)
        if self.topic is None:
            return
        batch.topics.append(self.topic)
        if self.unheld:
            batch.unheld.add(number)
        batch.emptied += [(number, int(after, 16), int(upto, 16)) for after, upto in self.emptied]
        never = self._never()
        rows = [row for name, row in self.pending.items() if name not in never]
        if rows:
            batch.rows.append((number, rows))
        for shelf, notes in self.notes:
            told = {name: notes[name] for name in notes if name not in never} if never else notes
            copies = dict(zip(map(int, told, repeat(16)), told.values(), strict=True))
            batch.copies.append((number, shelf.number, copies))

    def _never(self) -> set[str]:
        """Return which messages need not be written: the only channel has done with them."""
        if self.topic is None or len(self.topic.channels) != 1:
            return set()
        never: set[str] = set()
        for _, notes in self.notes:
            never = {name for name in self.pending.keys() & notes.keys() if notes[name] is GONE}
        return never


class Cabinet:
    """The shelves of a topic.

    Attributes:
        number: the topic's.
        name: the topic's.
        held: what the topic itself holds; `since` is the id up to which all was handed on.
        sent: the account that is being written.
        taken: how many accounts were taken.
        shelves: those of the channels, by name.
        gone: the numbers of channels that were deleted and are still in the store.
        pending: messages that were shown and are not written yet, by id.
        emptied: after and up to which ids the topic has thrown away what it held.
        unheld: there may be messages in the store that nobody holds.
        deleted: the topic is.
        decided: what is put must not be written before the next account.
        stirred: the store's thread expects an account.
        written: it is in the store, or was.
    """

    __slots__ = (
        "decided",
        "deleted",
        "emptied",
        "gone",
        "held",
        "name",
        "number",
        "pending",
        "sent",
        "shelves",
        "stirred",
        "taken",
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
        self.pending: dict[str, Row] = {}
        self.sent: Account | None = None
        self.emptied: list[tuple[str, str]] = []
        self.unheld: bool = False
        self.deleted: bool = False
        self.decided: bool = False
        self.taken: int = 0
        self.stirred: bool = False
        self.written: bool = False

    def remove(self, name: str) -> None:
        """Forget a channel that was deleted."""
        shelf = self.shelves.pop(name, None)
        if shelf is not None and shelf.number is not None:
            self.gone.append(shelf.number)
            self.unheld = True

    def is_unwritten(self) -> bool:
        """Return whether something that was decided is not in the store; it may be on its way."""
        return self.decided or (self.sent is not None and self.sent.decided)

    def noted(self) -> int:
        """Return how much the store has not heard yet of single messages; needs no lock."""
        return sum(len(shelf.notes) for shelf in self.shelves.copy().values())

    def account(self) -> Account:
        """Return all that the store has not heard yet, and begin anew.

        It is `sent` until it is written; one that a signal has interrupted is taken back first.
        """
        if self.sent is not None:
            self.restore()
        self.taken += 1
        account = self.sent = Account(decided=self.decided)
        self.decided = self.stirred = False
        account.gone = self.gone  # one piece with the next line, as the pairs that follow
        self.gone = []
        if self.deleted:
            account.gone_topic = self.number  # it may be there, even where nobody has taken note
            return account
        held = self.held
        account.topic = StoredTopic(
            number=self.number,
            name=self.name,
            paused=held.paused,
            handed=int(held.since, 16),
            last=int(held.top, 16),
            held=held.total(),
            channels=[_stored(shelf) for shelf in self.shelves.values()],
        )
        account.unheld = self.unheld
        self.unheld = False
        account.emptied = self.emptied
        self.emptied = []
        account.pending = self.pending
        self.pending = {}
        for shelf in (held, *self.shelves.values()):
            if shelf.notes:
                account.notes.append((shelf, shelf.notes))
                shelf.notes = {}
        return account

    def restore(self) -> None:
        """Take back the account that was sent and not written."""
        account = self.sent
        if account is None:
            return
        self.decided = self.decided or account.decided
        self.gone = [*account.gone, *(one for one in self.gone if one not in account.gone)]
        self.unheld = self.unheld or account.unheld
        later = [one for one in self.emptied if one not in account.emptied]
        self.emptied = [*account.emptied, *later]
        self.pending = {**account.pending, **self.pending}
        for shelf, notes in account.notes:
            shelf.restore(notes)
        self.sent = None


def _stored(shelf: Shelf) -> StoredChannel:
    """Return a channel as it is to be kept."""
    assert shelf.number is not None
    return StoredChannel(
        number=shelf.number,
        name=shelf.name,
        paused=shelf.paused,
        since=int(shelf.since, 16),
        held=shelf.total(),
    )
