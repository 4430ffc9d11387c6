"""The journal: what happened in a broker, in order, and the group commit that writes it.

The rule: the file is always the state after some prefix of what happened, plus what was
acknowledged.

Why that holds:

1. Whatever changes is appended to `entries` under its topic's lock, in the operation that changes
   it.  So two entries of a topic stand in the order in which they happened.  What concerns two
   topics, a move, is one entry.
2. A flush takes the first entries, as many as there are, folds them into one batch and writes it in
   one transaction; only then they leave the journal.  Nothing else tells the file what became of a
   message, a channel or a topic.  A batch that is written twice, since a signal struck in between,
   has the effect of one; so each transaction leaves the state after a prefix, and a later one.
3. A put that must be stored before it is seen stands in `queue` from when it has its ids until it
   is settled.  Its rows are written before it is seen, alone or along with a prefix, and change
   nothing but that these messages are there: so the file is that state and what was acknowledged.
   What was decided before (a channel made, a queue emptied) is written first or with it.
4. Who holds a message follows from ids: a channel holds those above the last id that was given when
   it was made or emptied, but for those that it has done with.  Ids are given in order under the
   topic's lock, as entries are.  So it does not matter when a row is written, and no count is
   needed to find it.
5. The copy of a message that has gone can only be appended after what made the message is, in the
   journal or in the file; so a prefix that has the one has the other.

The lock `lock` is held by whoever writes.  Nobody takes a topic's lock while he holds it, and
nobody waits for it who holds a topic's; so a thread that writes waits for the disk alone.

Next: store/flusher.py
"""

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import repeat
from typing import Any, Final, Protocol, TypeAlias, TypeVar, TypeVarTuple

import attrs

from nsqlite.clock import SYSTEM, release
from nsqlite.errors import Closed, NSQLiteError, Reentered, StoreError
from nsqlite.lock import Lock, ensure, make_lock
from nsqlite.persistence import PendingWrite
from nsqlite.store.storage import GONE, Batch, Copy, Row, Storage, StoredChannel, StoredTopic
from nsqlite.store.terms import Terms

log: Final = logging.getLogger("nsqlite")

PATIENCE: Final = 300_000
"""Nanoseconds that a put waits for others to share its commit, which takes longer than that."""

MUCH: Final = 16 << 20
"""So many bytes are written until the flusher keeps the file small, whatever is due."""

PAGE: Final = 2048
"""Bytes that a commit writes at least, as a rule."""

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

Key: TypeAlias = tuple[int, int | None]
"""The numbers of a topic and of a channel; None for the topic's own queue."""

Note: TypeAlias = tuple[Key, str, Copy]
"""What became of a message of a queue, by its id: the most frequent entry, and so no object."""

Notes: TypeAlias = dict[Key, dict[str, Copy]]


class Change(Protocol):
    """Any other entry."""

    def add_to(self, batch: Batch, notes: Notes, /) -> None:
        """Add it to a batch, behind all that happened before."""
        ...


@attrs.define
class Published:
    """Messages were shown before they were written; `gone` is what a move has finished by it."""

    topic: int
    rows: list[Row]
    gone: Sequence[Note] = ()
    noted: bool = False
    """It is, or was, in the journal."""

    def add_to(self, batch: Batch, notes: Notes) -> None:
        """See `Change`."""
        batch.rows.setdefault(self.topic, []).extend(self.rows)
        for key, name, copy in self.gone:
            notes.setdefault(key, {})[name] = copy


@attrs.frozen
class TopicChanged:
    """A topic was made, has paused, or hands on what it held."""

    topic: StoredTopic

    def add_to(self, batch: Batch, _notes: Notes) -> None:
        """See `Change`."""
        batch.topics[self.topic.number] = self.topic


@attrs.frozen
class ChannelChanged:
    """A channel was made or emptied, or has paused."""

    channel: StoredChannel
    emptied: bool
    gone: Sequence[Note] = ()

    def add_to(self, batch: Batch, notes: Notes) -> None:
        """See `Change`."""
        batch.channels[self.channel.number] = self.channel
        if self.emptied:
            batch.unheld.add(self.channel.topic)
        for key, name, copy in self.gone:
            notes.setdefault(key, {})[name] = copy


@attrs.frozen
class ChannelGone:
    """A channel was deleted."""

    topic: int
    number: int

    def add_to(self, batch: Batch, notes: Notes) -> None:
        """See `Change`."""
        batch.channels.pop(self.number, None)
        notes.pop((self.topic, self.number), None)
        batch.gone_channels[self.number] = self.topic
        batch.unheld.add(self.topic)


@attrs.frozen
class TopicGone:
    """A topic was deleted, with its channels."""

    number: int

    def add_to(self, batch: Batch, notes: Notes) -> None:
        """See `Change`."""
        batch.topics.pop(self.number, None)
        batch.rows.pop(self.number, None)
        batch.unheld.discard(self.number)
        for number, channel in list(batch.channels.items()):
            if channel.topic == self.number:
                del batch.channels[number]
        for key in [key for key in notes if key[0] == self.number]:
            del notes[key]
        batch.gone_topics[self.number] = None


@attrs.frozen
class Emptied:
    """What a topic itself held was dropped: all between two ids."""

    topic: int
    after: int
    upto: int

    def add_to(self, batch: Batch, _notes: Notes) -> None:
        """See `Change`."""
        batch.emptied.append((self.topic, self.after, self.upto))


@attrs.frozen
class Unheld:
    """A topic may have messages in the file that nobody holds."""

    topic: int

    def add_to(self, batch: Batch, _notes: Notes) -> None:
        """See `Change`."""
        batch.unheld.add(self.topic)


def fold(entries: Sequence[Note | Change]) -> Batch:
    """Return what is to be written of a prefix: what is so after all of it."""
    batch = Batch()
    notes: Notes = {}
    for entry in entries:
        if entry.__class__ is tuple:
            key, name, copy = entry
            known = notes.get(key)
            if known is None:
                known = notes[key] = {}
            known[name] = copy
        else:
            entry.add_to(batch, notes)  # type: ignore[union-attr]  # no tuple
    for key, known in notes.items():
        batch.copies[key] = dict(zip(map(int, known, repeat(16)), known.values(), strict=True))
    batch.highest = max(
        max(map(max, filter(None, batch.copies.values())), default=0),
        max((rows[-1][0] for rows in batch.rows.values()), default=0),
    )
    return batch


class Schedule(Protocol):
    """What a journal needs of the flusher."""

    def wake(self) -> None:
        """Have it look now; takes no lock."""
        ...

    def expect(self, *, at_once: bool = False) -> None:
        """Have it flush, now or when that is due; takes no lock."""
        ...


class Journal:
    """What happened and is not written yet, and whoever writes it.

    Threads: any.  `append` and `enqueue` are called under a topic's lock, and take none.

    Attributes:
        lock: held by whoever writes.
        flusher: the store's thread.
        late: what was reserved is shown at once, and written later.
        entries: what happened, in order.
        queue: the commit queue: what is reserved and not settled.  A list, as `entries`, since
            others add to it while it is gone through.
        decided: entries behind what is being written are to be written before whatever is put
            from now on; see `has_decided`.
        noted_rows: entries behind what is being written have messages; see `has_rows`.
        problem: why the file could not be written last.
        over: why nothing can be put any more.
    """

    flusher: Schedule

    def __init__(self, storage: Storage, terms: Terms, forked: Callable[[], None]) -> None:
        """Begin with nothing to write; `flusher` is still to be set.

        Args:
            storage: where it writes.
            terms: the options.
            forked: called in the child of a fork.
        """
        self._storage: Final = storage
        self._is_slow: Final = terms.sync == "full"
        self._sync_every: Final = terms.sync_every
        self.late: Final = terms.sync == "interval"
        self.lock: Final[Lock] = make_lock(rank=0, forked=forked)
        self.entries: Final[list[Note | Change]] = []
        self.queue: Final[list[PendingWrite[Any]]] = []
        self.decided: bool = False
        self.noted_rows: bool = False
        self.problem: NSQLiteError | None = None
        self.over: Callable[[], NSQLiteError] | None = None
        self._stirred = False  # the flusher expects to flush
        self._deciding = False  # there is what was decided in what is being written, or was to be
        self._writing_rows = False  # the same of messages
        self._crowd = 0  # how many puts the last commit had
        self._grown = 0  # bytes written since the flusher has last kept the file small
        self._told: Final[deque[PendingWrite[Any]]] = deque()
        self._adopted: Final[list[tuple[PendingWrite[Any], bool]]] = []

    # What happens

    def append(self, entry: Note | Change) -> None:
        """Take note of what happened."""
        self.entries.append(entry)
        if not self._stirred:
            self.stir()

    def publish(self, published: Published) -> None:
        """Take note of messages that are shown.  Made twice, it notes them once."""
        if not published.noted:
            published.noted = True  # one piece with the next line
            self.entries.append(published)
        self.noted_rows = True  # behind it: a flush in between has written it
        if not self._stirred:
            self.stir()

    def extend(self, entries: list[Note]) -> None:
        """Take note of several things in one go."""
        self.entries.extend(entries)
        if not self._stirred:
            self.stir()

    def decide(self, change: Change) -> None:
        """Take note of what is to be written before whatever is put from now on."""
        self.entries.append(change)
        self.decided = True
        self.stir()

    def has_decided(self) -> bool:
        """Return whether the file lacks entries that are to be written before the next put."""
        return self.decided or self._deciding  # in this order, as a flush goes the other way

    def has_rows(self) -> bool:
        """Return whether the file lacks messages that are shown."""
        return self.noted_rows or self._writing_rows

    def stir(self) -> None:
        """Have the flusher flush when that is due."""
        self._stirred = True
        self.flusher.expect()

    def enqueue(self, pending: PendingWrite[Any]) -> None:
        """Put what was reserved behind all that is to be written."""
        pending.queued = True  # one piece with the next line
        self.queue.append(pending)

    def is_behind(self) -> bool:
        """Return whether too much is shown and not written; have it written before that."""
        count = len(self.entries)
        if count >= self._sync_every:
            self.flusher.expect(at_once=True)
        return count >= 2 * self._sync_every

    # The lock

    def require_free(self, call: str) -> None:
        """Check that the calling thread does not hold the lock.

        Raises:
            Reentered: it does: this is a signal handler or a destructor.
        """
        if self.lock.owned():
            raise Reentered(call)

    def alone(self, work: Callable[[*Ts], R], *args: *Ts) -> R:
        """Do something while nobody else writes."""
        try:
            try:
                with self.lock:
                    return work(*args)
            finally:
                if self.queue:
                    ensure(self._pass_on)
        except BaseException:
            ensure(self._pass_on)
            raise

    def _leave(self) -> None:
        """Release the lock, if the calling thread holds it, and pass it on.

        It is passed on too often rather than never: a signal may strike in between.
        """
        if self.lock.owned():
            self.lock.__exit__(None, None, None)
            if self.queue:
                self._pass_on()
        elif self.queue and self.lock.attempt():
            self.lock.__exit__(None, None, None)  # it was free: nobody else would pass it on
            self._pass_on()

    def _pass_on(self) -> None:
        """Have the first who waits write for all who have reserved meanwhile."""
        head = next((one for one in self.queue.copy() if not one.settled), None)
        if head is not None:
            release(head.semaphore)
            if head.on_done is not None:
                self.flusher.wake()

    # Group commit

    def write(self, pending: PendingWrite[Any]) -> None:
        """Have a put written and shown; blocks.

        Raises:
            StoreError: it could not be written; nothing has changed.
            Closed: its topic was deleted meanwhile; nothing has changed.
        """
        self._write_until(pending)
        pending.topic.show()
        if self._told or self._adopted:
            self.tell()
        if pending.error is not None:
            raise pending.error

    def _write_until(self, pending: PendingWrite[Any]) -> None:
        """Write, or wait for who writes, until a put is settled.

        Where a commit takes long, and the last one was shared, it first waits a moment for those
        who shared it: the last to come writes for all.
        """
        if self._is_slow and len(self.queue) < self._crowd:
            SYSTEM.wait(pending.semaphore, SYSTEM.monotonic_ns() + PATIENCE, "put()")
        while not pending.settled:
            if not self._attempt():
                pending.semaphore.acquire()  # released when it is settled, or to write itself

    def _attempt(self) -> bool:
        """Write the queue if nobody else is writing, and say whether."""
        try:
            try:
                if not self.lock.attempt():
                    return False
                self._commit()
            finally:
                ensure(self._leave)
        except BaseException:
            ensure(self._leave)  # a signal may strike as `ensure` begins
            raise
        return True

    def adopt(self, pending: PendingWrite[Any]) -> None:
        """Have the flusher bring a put to its end that its caller leaves; takes no lock.

        If it is refused only then, that is logged.
        """
        if pending.queued:
            self._adopted.append((pending, pending.settled))
            self.flusher.wake()

    def commit(self) -> None:
        """Write what is reserved, show it, and tell who waits; takes the locks."""
        if self.queue:
            self.alone(self._commit)
        self.tell()

    def tell(self) -> None:
        """Show what nobody else shows, and tell those who did not block; takes topics' locks.

        Called by whoever has just settled what was reserved.
        """
        for adopted in self._adopted.copy():
            pending, told = adopted
            if pending.settled:  # else whoever settles it shows it
                pending.topic.show()
                with suppress(ValueError):  # another thread did so
                    self._adopted.remove(adopted)
                    if pending.error is not None and not told:
                        text = "a put to topic %r has failed, of which nobody was told: %s"
                        log.error(text, pending.topic.name, pending.error)
        for pending in taken(self._told):
            pending.topic.show()
            assert pending.on_done is not None
            try:
                pending.on_done()
            except RuntimeError:  # its loop is closed
                pass

    def _commit(self) -> None:
        """Write the queue; the lock is held."""
        pendings = self._unsettled()
        self._crowd = len(pendings)
        if self.has_decided() or len(self.entries) >= self._sync_every:
            try:
                self._flush()
            except StoreError:  # of which each was told
                pass
            return
        if len(pendings) > 1:
            try:
                self._write_rows(_rows_of(pendings))
            except StoreError:
                self._write_each(pendings)
        else:
            self._write_each(pendings)
        self._settle(pendings)

    def _unsettled(self) -> list[PendingWrite[Any]]:
        """Return what is to be written; what was reserved in topics that are no more is refused."""
        pendings: list[PendingWrite[Any]] = []
        refused: list[PendingWrite[Any]] = []
        for pending in self.queue.copy():
            if pending.settled:
                continue
            if pending.topic.deleted:
                pending.error = Closed(f"topic {pending.topic.name!r}", "deleted")
                refused.append(pending)
            else:
                pending.error = None  # of a refusal that a signal has kept from being told
                pendings.append(pending)
        if refused:
            self._settle(refused)
        return pendings

    def _write_each(self, pendings: list[PendingWrite[Any]]) -> None:
        """Write puts one by one, so that each fails for itself."""
        for pending in pendings:
            try:
                self._write_rows({pending.topic.number: pending.rows})
            except StoreError as error:
                pending.error = error

    def _write_rows(self, rows: dict[int, list[Row]]) -> None:
        """Write messages and nothing else; the lock is held."""
        try:
            if len(rows) > 1:
                self._storage.write(Batch(rows=rows))
            else:
                [(number, several)] = rows.items()
                if len(several) == 1:
                    self._storage.write_row(number, several[0])
                else:
                    self._storage.write_rows(number, several)
        except StoreError as error:
            self.problem = error
            raise
        self.problem = None
        self._grow(sum(len(row[5]) for some in rows.values() for row in some))

    def _grow(self, size: int) -> None:
        """Take note of a commit; the flusher lets the log go when that is over, or after many."""
        if not self._stirred:
            self.stir()
        self._grown += size + PAGE
        if self._grown >= MUCH:
            self._grown = 0
            self.flusher.expect(at_once=True)

    def _settle(self, pendings: list[PendingWrite[Any]]) -> None:
        """Take note of what became of puts, wake who waits, and take them out of the queue."""
        ensure(partial(self._settle_all, pendings))

    def _settle_all(self, pendings: list[PendingWrite[Any]]) -> None:
        for pending in pendings:
            pending.topic.settle(pending)
            if pending.on_done is not None and not pending.told:
                pending.told = True  # one piece with the next line
                self._told.append(pending)
            release(pending.semaphore)
        count = 0
        for pending in self.queue.copy():
            if not pending.settled:
                break
            count += 1
        del self.queue[:count]

    # The journal is written

    def flush(self) -> None:
        """Write all that happened so far; takes the locks.

        Raises:
            StoreError: it could not be written; it is tried again.
            Reentered: called by a signal handler or destructor inside another call.
        """
        self.require_free("flush")
        try:
            self.alone(self._flush)
        finally:
            self.tell()

    def confirm(self, *, may_block: bool) -> None:
        """Have written what was decided so far, now or soon.

        Raises:
            StoreError: it could not be written; it has taken effect, and is tried again.
        """
        if not self.has_decided():
            return
        if may_block and self.over is None and not self.lock.owned() and not in_loop():
            self.flush()
        else:
            self.flusher.expect(at_once=True)

    def _flush(self) -> None:
        """Write a prefix, and the queue along with it, in one transaction; the lock is held."""
        pendings: list[PendingWrite[Any]] = []
        try:
            self._deciding = self._writing_rows = True  # until it is known, and then written
            # These before the prefix is taken: an entry that comes later sets them again.
            self._stirred = self.noted_rows = self.decided = False
            pendings = self._unsettled()
            end = len(self.entries)  # after the queue: what a put stands on is in the prefix
            if end or pendings:
                batch = fold(self.entries[:end])
                self._deciding = _is_decided(batch)
                self._writing_rows = bool(batch.rows)
                for number, rows in _rows_of(pendings).items():
                    batch.rows.setdefault(number, []).extend(rows)
                    batch.highest = max(batch.highest, rows[-1][0])
                self._storage.write(batch)
        except BaseException as error:
            self.stir()
            if isinstance(error, StoreError):
                self.problem = error
                for pending in pendings:
                    pending.error = error
                self._settle(pendings)
            raise
        del self.entries[:end]
        self._deciding = self._writing_rows = False
        self.problem = None
        self._grown = 0
        self._settle(pendings)

    def count(self, number: int, channel: int, copies: list[tuple[int, int]]) -> None:
        """Write deliveries at once; takes the lock.

        Raises:
            StoreError: they could not be written.
        """
        self.alone(self._count, number, channel, copies)

    def _count(self, number: int, channel: int, copies: list[tuple[int, int]]) -> None:
        try:
            if self.has_rows():
                self._flush()
            self._storage.write_attempts(number, channel, copies)
        except StoreError as error:
            self.problem = error
            raise
        self._grow(0)


def taken(queue: deque[R]) -> Iterator[R]:
    """Take out of a queue what is there, one by one; several threads may do so."""
    while True:
        try:
            first = queue.popleft()
        except IndexError:
            return
        yield first


def in_loop() -> bool:
    """Say whether the calling thread runs an event loop, which must not be blocked."""
    events = sys.modules.get("asyncio.events")
    return events is not None and events._get_running_loop() is not None


def _is_decided(batch: Batch) -> bool:
    """Say whether a batch has what is to be written before the next put."""
    return bool(batch.topics or batch.channels or batch.gone_channels or batch.gone_topics)


def _rows_of(pendings: list[PendingWrite[Any]]) -> dict[int, list[Row]]:
    """Return what is to be written of puts, by topic."""
    rows: dict[int, list[Row]] = {}
    for pending in pendings:
        rows.setdefault(pending.topic.number, []).extend(pending.rows)
    return rows


def gone(key: Key, names: Sequence[str]) -> list[Note]:
    """Return the notes that messages of a queue are gone."""
    return [(key, name, GONE) for name in names]
