"""A shelf: the part of a queue that lies in the store, and what the store is still to hear of it.

The rule: a message of the queue is in memory, or in the file alone (`backend_depth` counts these),
with a higher id than every one that came into memory in order.  What has happened to those in
memory is noted by id, the last thing alone; so notes can be written late, together, and twice.

Everything here expects the topic's lock, but for `read_ahead`, `fetch`, `settle`, `send` and what
only tells.

Next: store/cabinet.py
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from nsqlite.clock import Clock
from nsqlite.events import Kind
from nsqlite.message import Message, Record
from nsqlite.monitor import Monitor
from nsqlite.queue import OnDone
from nsqlite.store.store import GONE, Copy, name_of

NOTED: Final = (Kind.DELIVERED, Kind.RETURNED, Kind.REQUEUED)
"""What is noted with its attempts."""

MANY: Final = 25_000
"""So many notes go along with the next write, and do not wait for the store's own thread."""

PAGE: Final = 1000
"""The most messages that are read at a time."""


class Librarian(Protocol):
    """What a shelf needs of the keeper."""

    def stir(self, *, many: bool = False) -> None:
        """Take note that there is something to be written of the topic; takes no lock.

        Args:
            many: whoever writes next should write it.
        """
        ...

    def decide(self) -> None:
        """Take note of what is to be written before whatever is put from now on; takes no lock."""
        ...

    def accounts(self) -> int:
        """Return how many accounts of the topic were taken; the topic's lock is held."""
        ...

    def emptied(self, shelf: "Shelf", before: str) -> None:
        """Take note that a shelf was emptied, and what its `since` was before; takes no lock."""
        ...

    def is_of(self, office: object) -> bool:
        """Say whether this keeper keeps it."""
        ...

    def want(self, shelf: "Shelf") -> None:
        """Have the next page read soon; takes no lock."""
        ...

    def fetch(self, shelf: "Shelf") -> None:
        """Read the next page."""
        ...

    def read_ahead(self, shelf: "Shelf") -> None:
        """Read the next page if the calling thread may wait for it."""
        ...

    def send(self, errand: Callable[[], object], told: OnDone) -> None:
        """Have something done by the store's thread."""
        ...

    def settle(self, shelf: "Shelf", messages: list[Message[Any]]) -> None:
        """Have deliveries counted in the store."""
        ...


class Shelf:
    """What the store keeps of a channel, or of what the topic itself holds.

    Attributes:
        number: the channel's; None for the topic's own.
        name: the channel's.
        since: the id up to which it holds nothing.
        top: the highest id that it was given.
        counted: deliveries are counted in the store by `settle`, before `get` returns.
        cursor: the highest id of those that came into memory in order.
        monitor: the topic's lock.
        flow: the queue in memory; None while nobody has asked for the channel, or it is closed.
        alone: the ids of messages that it alone was given.
        asleep: how many messages it holds that the queue in memory knows nothing of.
        notes: what became of messages, by id, and the store has not heard yet.
        paused: whether the channel is paused.
        capacity: how many ready messages are held in memory.
        wanted: the next page is to be read.
        emptied: how often it was.
    """

    __slots__ = (
        "_clock",
        "_librarian",
        "_lock",
        "_now",
        "alone",
        "asleep",
        "capacity",
        "counted",
        "cursor",
        "emptied",
        "flow",
        "monitor",
        "name",
        "notes",
        "number",
        "paused",
        "since",
        "top",
        "wanted",
    )

    def __init__(
        self,
        title: tuple[int | None, str],
        librarian: Librarian,
        clock: Clock,
        monitor: Monitor,
        since: str,
    ) -> None:
        """Begin empty and asleep.

        Args:
            title: its number and name.
            librarian: the topic.
            clock: what it takes the time from.
            monitor: the topic's lock.
            since: the id up to which it holds nothing.
        """
        self.monitor: Final = monitor
        self._lock: Final = monitor.lock
        self._now: Final = clock.monotonic_ns
        self.number: Final = title[0]
        self.name: Final = title[1]
        self._librarian: Final = librarian
        self._clock: Final = clock
        self.since: str = since
        self.top: str = since
        self.cursor: str = since
        self.flow: Any = None  # the Queue of a channel, or of what the topic holds
        self.alone: set[str] = set()
        self.asleep: int = 0
        self.capacity: int = 0
        self.counted: bool = False
        self.notes: dict[str, Copy] = {}
        self.paused: bool = False
        self.wanted: bool = False
        self.emptied: int = 0

    def total(self) -> int:
        """Return how many messages it holds."""
        flow = self.flow
        if flow is None:
            return self.asleep
        total: int = self.asleep + flow.total()
        return total

    def decide(self) -> None:
        """Take note of what is to be written before, or with, whatever is put from now on."""
        self._librarian.decide()

    def accounts(self) -> int:
        """Return how many accounts of the topic were taken; what is noted now is in the next."""
        return self._librarian.accounts()

    def stir(self) -> None:
        """Have an account of the topic taken; takes no lock."""
        self._librarian.stir()

    def is_of(self, office: object) -> bool:
        """Say whether this keeper keeps it."""
        return self._librarian.is_of(office)

    # From the topic

    def take(self, records: list[Record[Any]], *, awake: bool) -> None:
        """Take messages that are ready, in order, behind all others.  May be made twice.

        Args:
            records: the messages.
            awake: whether the queue in memory takes any.
        """
        fresh = records if records[0][2] + records[0][3] > self.top else self._fresh(records)
        if not fresh:
            return
        last = fresh[-1][2] + fresh[-1][3]
        count = len(fresh)
        flow = self.flow
        if flow is None or not awake:
            self.top = last  # one piece with the next line
            self.asleep += count
        elif flow.backend_depth or len(flow.ready) + count > self.capacity:
            self.top = last  # one piece with the next line
            flow.backend_depth += count
            self.look()
        else:
            self.top = self.cursor = last  # one piece with the next line
            flow.ready.extend(fresh)

    def _fresh(self, records: list[Record[Any]]) -> list[Record[Any]]:
        return [record for record in records if record[2] + record[3] > self.top]

    def take_later(self, records: list[Record[Any]], *, awake: bool) -> None:
        """Count messages that are not due yet; the queue in memory has them.  May be made twice."""
        fresh = self._fresh(records)
        if fresh:
            count = 0 if awake else len(fresh)
            last = fresh[-1][2] + fresh[-1][3]
            self.top = last  # one piece with the next line
            self.asleep += count

    def take_over(self, other: "Shelf", count: int, *, awake: bool) -> None:
        """Take so many messages that the topic has held in the file.  May be made twice."""
        top = other.top
        if self.top >= top:
            return
        flow = self.flow
        if flow is None or not awake:
            self.top = top  # one piece with the next line
            self.asleep += count
        else:
            self.top = top  # one piece with the next line
            flow.backend_depth += count
            self.look()

    # What happens

    def hear(self, kind: Kind, record: Record[Any] | None, due: int | None) -> None:
        """See `nsqlite.queue.Persistence`."""
        if record is not None:
            if kind is Kind.DELIVERED:
                if self.counted:
                    self.notes.pop(record[2] + record[3], None)
                else:
                    self._note(record, (record[4], None))
                self.look()
            elif kind is Kind.DROPPED:
                self._note(record, GONE)
            elif kind is Kind.REQUEUED:
                self._note(record, (record[4], None if due is None else self.wall(due)))
            elif kind is Kind.RETURNED:
                self._note(record, (record[4], None))
        elif kind is Kind.EMPTIED:
            self.forget()
        elif kind in (Kind.PAUSED, Kind.UNPAUSED):
            self.paused = kind is Kind.PAUSED
            self._librarian.decide()

    def _note(self, record: Record[Any], copy: Copy) -> None:
        notes = self.notes
        if not notes:
            self._librarian.stir()
        name = record[2] + record[3]
        notes[name] = copy
        if copy is GONE:
            self.alone.discard(name)
        if len(notes) >= MANY:
            self._librarian.stir(many=True)

    def delivered(self, messages: Iterable[Message[Any]]) -> None:
        """See `nsqlite.queue.Persistence`."""
        if self.counted:
            for message in messages:
                self.notes.pop(message.id, None)
        else:
            notes = self.notes
            if not notes:
                self._librarian.stir()
            for message in messages:
                record = message._record
                notes[record[2] + record[3]] = record[4] + 1, None
            if len(notes) >= MANY:
                self._librarian.stir(many=True)
        if self.flow is not None and self.flow.backend_depth:
            self.look()

    def finished(self, messages: Iterable[Message[Any]]) -> None:
        """See `nsqlite.queue.Persistence`."""
        notes = self.notes
        if not notes:
            self._librarian.stir()
        for message in messages:
            record = message._record
            notes[record[2] + record[3]] = GONE
        if self.alone:
            self.alone.difference_update([message.id for message in messages])
        if len(notes) >= MANY:
            self._librarian.stir(many=True)

    def wall(self, due: int) -> int:
        """Return a moment of the monotonic scale as nanoseconds since the epoch."""
        return self._clock.time_ns() + due - self._clock.monotonic_ns()

    def forget(self) -> None:
        """Hold nothing of what it was given so far."""
        done = (name for name, copy in self.notes.items() if copy is GONE)
        self.notes = {name: GONE for name in (*done, *self.alone) if name > self.top}
        self.alone = set()
        before = self.since
        self.since = self.cursor = self.top
        self.asleep = 0
        self.emptied += 1
        self._librarian.emptied(self, before)

    def put_away(self) -> None:
        """See `nsqlite.queue.Persistence`."""
        self.asleep = self.total()
        self.flow = None
        self._librarian.stir()

    # Reading

    def look(self) -> None:
        """Have a page read if little is left in memory."""
        flow = self.flow
        if flow is None or not flow.backend_depth or self.wanted or self.number is None:
            return
        if len(flow.ready) <= self.capacity // 2:
            self.wanted = True
            self._librarian.want(self)

    def _is_low(self, flow: Any) -> bool:
        """Say whether the next delivery leaves so little that a page is to be read."""
        return not self.wanted and len(flow.ready) <= self.capacity // 2 + 1

    def read_ahead(self) -> None:
        """See `nsqlite.queue.Persistence`; the topic's lock is not held."""
        flow = self.flow
        if flow is not None and flow.backend_depth and self._is_low(flow):
            self._librarian.read_ahead(self)

    def fetch(self) -> None:
        """See `nsqlite.queue.Persistence`; the topic's lock is not held."""
        self._librarian.fetch(self)

    def send(self, errand: Callable[[], object], told: OnDone) -> None:
        """See `nsqlite.queue.Persistence`."""
        self._librarian.send(errand, told)

    def settle(self, messages: list[Message[Any]]) -> None:
        """See `nsqlite.queue.Persistence`; the topic's lock is not held."""
        self._librarian.settle(self, messages)

    def page(self) -> tuple[int, int, int, int] | None:
        """Return what is to be read: after and up to which id, how many, and for `arrive`.

        None if nothing is.
        """
        self.wanted = False
        flow = self.flow
        if flow is None or not flow.backend_depth:
            return None
        room = min(PAGE, self.capacity - len(flow.ready))
        if room <= 0:
            return None
        return int(self.cursor, 16), int(self.top, 16), room, self.emptied

    def arrive(self, records: list[Record[Any]], upto: int, emptied: int, *, more: bool) -> None:
        """Take a page into memory.

        Args:
            records: what was read.
            upto: the id up to which was read.
            emptied: what `page` told.
            more: whether there was more to read.
        """
        flow = self.flow
        if flow is None or self.emptied != emptied or not flow.backend_depth:
            return
        count = len(records)
        cursor = records[-1][2] + records[-1][3] if more else name_of(upto)
        left = max(int(more), flow.backend_depth - count)
        if not more and cursor == self.top:
            left = 0  # whatever was counted: that was all
        # One piece, up to the call that follows:
        self.cursor = cursor
        flow.backend_depth = left
        flow.ready.extend(records)
        flow.feed()
        self.look()

    # Writing

    def restore(self, notes: dict[str, Copy]) -> None:
        """Note again what could not be written, but for what has changed since."""
        self.notes = {**notes, **self.notes}


Decode = Callable[[str | None, bytes], Any]
"""Makes a body of the bytes that a codec has made."""


def record_of(
    found: tuple[int, int, int | None, str | None, bytes, int], decode: Decode
) -> Record[Any]:
    """Return a message that was found in the store as a record."""
    identity, timestamp, _, codec, data, attempts = found
    name = name_of(identity)
    body = data if codec is None else decode(codec, data)
    return body, timestamp, name[:13], name[13:], attempts
