"""A topic's record: what the file has of a topic and its channels, as they are now.

The rule: it is changed under the topic's lock, along with the entry that notes the change; it is
written only as entries of the journal.

Next: store/controllines.py
"""

from collections.abc import Callable, Container, Iterable, Sequence
from itertools import repeat
from typing import Any, Final, Protocol

import attrs

from nsqlite.clock import Clock
from nsqlite.events import Kind
from nsqlite.message import Message, Record
from nsqlite.monitor import Monitor
from nsqlite.options import SECOND
from nsqlite.persistence import Draft, PendingWrite, QueuePersistence
from nsqlite.store import storage
from nsqlite.store.backlog import Backlog, Pages
from nsqlite.store.journal import (
    Change,
    ChannelChanged,
    ChannelGone,
    ClockSet,
    Emptied,
    Note,
    Published,
    TopicChanged,
    TopicGone,
    Unheld,
    gone,
)
from nsqlite.store.storage import Row, StoredChannel, StoredTopic, name_of

SLIGHT: Final = SECOND // 10
"""By so many nanoseconds the wall's time may be off before it counts as set."""


class Host(Pages, Protocol):
    """What a topic's record needs of the database.

    Attributes:
        epoch: when the monotonic scale began, by the wall's time as it was at first; so what the
            file tells of waiting is in step with it, as long as it is open.
        drift: how much the wall's time is ahead of that by now; see `Batch`.
    """

    epoch: int
    drift: int

    def require_owner(self) -> None:
        """Check that this is no child of a fork."""
        ...

    def encode(self, body: Any) -> Draft:
        """Return a body as it will come back, its bytes and what made them."""
        ...

    def next_channel(self) -> int:
        """Return a number that no channel has."""
        ...


class TopicRecord:
    """What a store has of a topic; see `TopicPersistence`.

    Attributes:
        number: the topic's.
        name: the topic's.
        paused: whether it is paused.
        flowing: whether it hands its messages on.
        handed: the id up to which its messages are the channels', while it does not.
        last: the highest id that a message of it has.
        held: what the topic itself holds.
        late: what is put is shown at once, and written later.
        share, note, reserve, settled, stir, is_behind: see `TopicPersistence`.
        typical: how many bytes a codec has made of a body lately.
        deleted: the topic is no more.
        exact: the counts that were taken at the end are right: it was closed as a whole, and
            nothing that was being put then lies in the file alone.
        monitor: the topic's.
    """

    __slots__ = (
        "__weakref__",
        "_channels",
        "_clock",
        "_home",
        "_host",
        "_journal",
        "_later",
        "_show",
        "deleted",
        "exact",
        "flowing",
        "handed",
        "held",
        "is_behind",
        "last",
        "late",
        "monitor",
        "name",
        "note",
        "number",
        "paused",
        "reserve",
        "settled",
        "share",
        "stir",
        "typical",
        "write",
    )

    monitor: Monitor
    _show: Callable[[], None]

    def __init__(
        self, stored: StoredTopic, last: int, host: Host, clock: Clock, home: object
    ) -> None:
        """Begin as what is in the file.

        Args:
            stored: the topic.
            last: the highest id of its messages.
            host: the database.
            clock: what the broker takes the time from.
            home: the broker, which so lives as long as anything of it is used.
        """
        self.number: Final = stored.number
        self.name: Final = stored.name
        self._host: Final = host
        self._journal: Final = host.journal
        self._clock: Final = clock
        self._home: Final = home
        self.late: bool = host.journal.late
        self.note: Callable[[Any], None] = host.journal.entries.extend
        self.reserve: Callable[[PendingWrite[Any]], None] = host.journal.queue.append
        self.share: int = max(1, host.mem_queue_bytes // host.mem_queue_size)
        self.typical: int = 0
        self.stir: Final = host.journal.stir_for_row
        self.is_behind: Final = host.journal.is_behind
        self.write: Final = host.journal.write
        self.paused: bool = stored.paused
        self._later: Final[list[Change]] = []  # what `flow` notes, which ends the operation
        self.flowing: bool = False
        self.last: str = name_of(last)
        self.handed: str = name_of(min(stored.handed, last))
        self.held: Backlog = self._backlog(None, "", self.handed)
        self.held.top = self.last
        self.held.known = True
        self._channels: Final[dict[str, Backlog]] = {}
        self.settled: list[PendingWrite[Any]] = []
        self.deleted: bool = False
        self.exact: bool = False

    def _backlog(self, channel: int | None, name: str, since: str) -> Backlog:
        return Backlog((self.number, channel), name, self, self._host, since)

    def restore(self, stored: StoredChannel) -> Backlog:
        """Take a channel that is in the file; return what keeps it."""
        backlog = self._backlog(stored.number, stored.name, name_of(stored.since))
        backlog.paused = stored.paused
        backlog.top = self.handed if self.paused else self.last
        backlog.known = True
        self._channels[stored.name] = backlog
        self.flowing = not self.paused
        return backlog

    def attach(self, monitor: Monitor, show: Callable[[], None]) -> None:
        """See `TopicPersistence`."""
        self.monitor = monitor
        self._show = show
        if self.flowing:
            self.handed = self.held.since = self.held.cursor = self.last

    # For the journal

    def settle(self, pending: PendingWrite[Any]) -> None:
        """Take note that a put is written or refused; needs no lock, and shows nothing yet."""
        if not pending.settled:
            pending.settled = True  # one piece with the next line
            self.settled.append(pending)

    def show(self) -> None:
        """Show what is settled; takes the lock."""
        if self.settled:
            self._show()

    # Any thread, without the lock

    def require_ready(self) -> None:
        """See `TopicPersistence`."""
        self._journal.require_open()
        self._journal.require_free("put")

    def require_owner(self) -> None:
        """See `TopicPersistence`."""
        self._host.require_owner()

    @property
    def longest(self) -> int:
        """See `TopicPersistence`."""
        return storage.LONGEST

    def encode(self, body: Any) -> Draft:
        """See `TopicPersistence`."""
        draft = self._host.encode(body)
        if draft[2] is not None:
            self.typical += (len(draft[1]) - self.typical) // 8
        return draft

    def adopt(self, pending: PendingWrite[Any]) -> None:
        """See `TopicPersistence`."""
        self._journal.adopt(pending)

    def hurry(self) -> None:
        """See `TopicPersistence`."""
        self._journal.flusher.wake()

    def write_if_brief(self) -> None:
        """See `TopicPersistence`."""
        self._journal.write_if_brief()

    def flush(self) -> None:
        """See `TopicPersistence`."""
        self._journal.flush()

    def confirm(self) -> None:
        """See `TopicPersistence`."""
        self._journal.confirm(may_block=not self.monitor.lock.owned())

    def keeps(self, other: QueuePersistence | None) -> bool:
        """See `TopicPersistence`."""
        return other is None or (isinstance(other, Backlog) and other._pages is self._host)

    # Under the lock

    def now(self) -> int:
        """Return the time, on the monotonic scale."""
        return self._clock.monotonic_ns()

    def wall(self, due: int) -> int:
        """Return a moment of the monotonic scale as nanoseconds since the epoch."""
        return due + self._host.epoch

    def until(self, due: int) -> int:
        """Return the same of a moment until which something is noted to wait, and note the time."""
        now = self.wall(self.now())
        self._journal.now = max(self._journal.now, now)
        drift = self._clock.time_ns() - now
        if abs(drift - self._host.drift) > SLIGHT:
            self._host.drift = drift
            self._journal.decide(ClockSet(drift))
        return self.wall(due)

    def due(self, wall: int) -> int:
        """Return what `wall` has returned as a moment of the monotonic scale."""
        return wall - self._host.epoch

    def channels(self) -> Iterable[tuple[str, bool, QueuePersistence]]:
        """See `TopicPersistence`."""
        return [(name, kept.paused, kept) for name, kept in self._channels.items()]

    def add_channel(self, name: str) -> QueuePersistence:
        """See `TopicPersistence`."""
        backlog = self._backlog(self._host.next_channel(), name, self._given())
        self._channels[name] = backlog
        return backlog

    def _given(self) -> str:
        """Return the id up to which all was given to the channels that there are."""
        return self.last if self.flowing else self.handed

    def _shown(self) -> str:
        """Return the id up to which all that was reserved is shown."""
        lowest = self.lowest()
        return self.last if lowest is None else name_of(lowest - 1)

    def remove_channel(self, name: str) -> None:
        """See `TopicPersistence`."""
        known = self._channels.get(name)
        if known is not None and known.key[1] is not None:
            self._later.append(ChannelGone(self.number, known.key[1]))
            del self._channels[name]  # after it: what is noted twice is noted once

    def enqueue(self, pending: PendingWrite[Any]) -> None:
        """See `TopicPersistence`."""
        pending.rows = self._rows(pending, None)
        self.last = pending.names[-1]
        self._journal.enqueue(pending)

    def prepare_plain(self, pending: PendingWrite[Any], record: Record[Any]) -> str:
        """See `TopicPersistence`."""
        body, timestamp, prefix, suffix, _ = record
        name = prefix + suffix
        pending.records = [record]
        pending.names = [name]
        data, codec = pending.codes[0] if pending.codes else (body, None)
        pending.rows = [(int(name, 16), timestamp, None, None, codec, data)]
        return name

    def entry(
        self,
        pending: PendingWrite[Any],
        only: QueuePersistence | None = None,
        moved: tuple[QueuePersistence | None, Sequence[Message[Any]]] | None = None,
        count: int = 0,
    ) -> object:
        """See `TopicPersistence`."""
        number = None
        if isinstance(only, Backlog):
            number = only.key[1]
            only.alone.update(pending.names)
        notes: Sequence[Note] = ()
        if moved is not None and isinstance(moved[0], Backlog):
            notes = gone(moved[0].key, [message.id for message in moved[1]])
        self.last = pending.names[-1]
        return Published(self.number, self._rows(pending, number), notes, count)

    def _rows(self, pending: PendingWrite[Any], only: int | None) -> list[Row]:
        """Return what is to be written of messages."""
        due = None if pending.due is None else self.until(pending.due)
        identities = map(int, pending.names, repeat(16))
        codes = pending.codes
        if codes is None:
            return [
                (identity, record[1], due, only, None, record[0])
                for identity, record in zip(identities, pending.records, strict=True)
            ]
        return [
            (identity, record[1], due, only, codec, data)
            for identity, record, (data, codec) in zip(
                identities, pending.records, codes, strict=True
            )
        ]

    def unshown(self) -> list[PendingWrite[Any]]:
        """See `TopicPersistence`."""
        waiting = [
            one  # whose records are gone is shown, and whoever wrote it has not come further yet
            for one in self._journal.queue.copy()
            if one.topic.number == self.number and one.records
        ]
        known = set(map(id, waiting))
        return [one for one in self.settled if id(one) not in known] + waiting

    def given_to(self, backlog: Backlog) -> str:
        """Return the id up to which what is meant for all is, or will be, a queue's."""
        return self.last if backlog is self.held else self._given()

    def unshown_ids(self) -> set[int]:
        """Return the ids of what is reserved and not shown yet."""
        return {int(name, 16) for one in self.unshown() for name in one.names}

    def lowest(self) -> int | None:
        """Return the lowest id of what is reserved and not shown; None if nothing is."""
        return min((one.rows[0][0] for one in self.unshown() if one.rows), default=None)

    def skipped(self) -> None:
        """Take note that a message went past a queue, and perhaps past all."""
        self._journal.append(Unheld(self.number))

    def flow(self, *, flowing: bool) -> None:
        """See `TopicPersistence`."""
        if self.deleted:
            return
        changes = self._later.copy()
        has_gone = any(isinstance(change, ChannelGone) for change in changes)
        # With ephemeral channels alone it flows still, and the file knows of no channel.
        is_last = flowing and has_gone and not self._channels
        if is_last or flowing is not self.flowing:
            self._hand_on_unshown()
            self.handed = self.held.since = self.held.cursor = self.held.top = self.last
            changes.append(TopicChanged(self.stored()))
            if not self._channels:
                changes.append(Unheld(self.number))
        if changes:
            self._journal.decide(*changes)
            self._later.clear()
        self.flowing = flowing  # after it all: what a signal has struck is made again

    def _hand_on_unshown(self) -> None:
        """Have what is just being put go to the channels, as all that was given so far."""
        for pending in self.unshown():
            pending.flowing = True

    def heard(self, backlog: Backlog, kind: Kind) -> None:
        """Take note of what happened to the topic itself or to a channel."""
        if self.deleted or (kind is Kind.CREATED and backlog.known):
            return
        backlog.known = True
        alone = gone(backlog.key, sorted(backlog.alone)) if kind is Kind.EMPTIED else ()
        if kind is Kind.EMPTIED:
            backlog.empty(self._shown() if backlog is self.held else self._given())
        elif kind is not Kind.CREATED:
            backlog.paused = kind is Kind.PAUSED
        if backlog is self.held:
            self._topic_changed(kind)
        elif kind is Kind.CREATED:
            self._later.append(ChannelChanged(_stored(backlog), emptied=False))
        else:
            emptied = kind is Kind.EMPTIED
            self._journal.decide(ChannelChanged(_stored(backlog), emptied, alone))
            if emptied:
                backlog.alone = set()  # now that it is noted

    def _topic_changed(self, kind: Kind) -> None:
        if kind is not Kind.EMPTIED:
            self.paused = self.held.paused
            self._later.append(TopicChanged(self.stored()))
        elif not self.flowing:  # else it holds nothing
            self._note_emptied()

    def _note_emptied(self) -> None:
        """Take note that what the topic held was dropped, but for what is just being put."""
        after = int(self.handed, 16)
        emptied = []
        for one in self.unshown():  # comes behind that: it will be held
            emptied.append(Emptied(self.number, after, one.rows[0][0] - 1))
            after = one.rows[-1][0]
        emptied.append(Emptied(self.number, after, int(self.last, 16)))
        changed = attrs.evolve(self.stored(), handed=int(self.held.since, 16))
        self._journal.decide(*emptied, TopicChanged(changed))
        self.handed = self.held.since

    def end(self, how: str) -> None:
        """See `TopicPersistence`."""
        if how == "deleted" and not self.deleted:
            self._journal.decide(TopicGone(self.number))
            self.deleted = True  # after it: what is noted twice is noted once
        elif not self.deleted:
            kept = (self.held, *self._channels.values())
            ended = any(one.ended or one.queue.draining for one in kept)
            self.exact = not (ended or self.unshown())

    def note_all(self, *, paused: bool, channels: Container[str]) -> None:
        """See `TopicPersistence`."""
        if self.deleted:
            return
        if self.handed < self.held.since and not self.flowing:
            self._note_emptied()
        self.paused = paused
        self._later.append(TopicChanged(self.stored()))
        for name, backlog in self._channels.items():
            if name in channels:
                backlog.known = True
                backlog.paused = backlog.queue.paused
                self._later.append(ChannelChanged(_stored(backlog), emptied=True))

    def stored(self, *, counted: bool = False) -> StoredTopic:
        """Return the topic as it is to be written."""
        return StoredTopic(
            number=self.number,
            name=self.name,
            paused=self.paused,
            handed=int(self.handed, 16),
            held=self.held.held if counted else 0,
            counted=counted,
        )

    def counted(self) -> tuple[StoredTopic, list[StoredChannel]]:
        """Return topic and channels with what they held when they were closed."""
        return self.stored(counted=True), [_stored(one) for one in self._channels.values()]


def _stored(backlog: Backlog) -> StoredChannel:
    """Return a channel as it is to be written."""
    topic, number = backlog.key
    assert number is not None
    return StoredChannel(
        number=number,
        topic=topic,
        name=backlog.name,
        paused=backlog.paused,
        since=int(backlog.since, 16),
        held=backlog.held,
    )


def record_of(found: Any, decode: Callable[..., Any]) -> Record[Any]:
    """Return a message that was found in the file as a record."""
    identity, timestamp, _, codec, data, attempts, intact = found
    name = name_of(identity)
    body = data if codec is None and intact else decode(codec, data, intact=intact)
    return body, timestamp, name[:13], name[13:], attempts
