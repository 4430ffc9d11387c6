"""The journal: what happened in a broker, in order, and the group commit that writes it.

The rule: the file is always the state after some prefix of what happened, plus what was
acknowledged.

Why that holds:

1. Whatever changes is appended to `entries` under its topic's lock, in the operation that changes
   it.  So two entries of a topic stand in the order in which they happened.  What must not be cut
   in two is one entry: a move, which concerns two topics, or a pause with all that follows from it.
2. A flush takes the first entries, folds them into one batch and writes it in one transaction; only
   then they leave the journal.  Nothing else tells the file what became of a message, a channel or
   a topic.  A batch that is written twice, since a signal struck in between, has the effect of one:
   then nothing is left out that the file may have already.  So each transaction leaves the state
   after a prefix, and a later one.
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
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, repeat
from operator import itemgetter
from typing import Any, Final, Protocol, TypeAlias, TypeVar, TypeVarTuple

import attrs

from nsqlite.clock import SYSTEM, held_semaphore, release
from nsqlite.errors import Closed, NSQLiteError, Reentered, StoreError
from nsqlite.lock import Lock, ensure, make_lock
from nsqlite.persistence import PendingWrite
from nsqlite.store.storage import (
    GONE,
    Batch,
    Copy,
    Row,
    Storage,
    StoredChannel,
    StoredTopic,
    name_of,
)
from nsqlite.store.terms import Terms

log: Final = logging.getLogger("nsqlite")

PATIENCE: Final = 300_000
"""Nanoseconds that a put waits for others to share its commit, which takes longer than that."""

MUCH: Final = 8 << 20
"""After so many bytes the flusher keeps the file small, whatever is due."""

TOO_MUCH: Final = 2 * MUCH
"""After so many it is seen whether it can follow."""

PAGE: Final = 2048
"""Bytes that a commit writes at least, as a rule."""

PIECE: Final = 5000
"""About how many changes are written in one transaction: it may take some 40 ms."""

EACH: Final = 1000
"""How many messages one entry tells of at most, where several are delivered or finished."""

NOTED: Final = 50
"""Bytes that each item of `Entries` makes a flush write, about."""

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

Key: TypeAlias = tuple[int, int | None]
"""The numbers of a topic and of a channel; None for the topic's own queue."""

Note: TypeAlias = tuple[Key, str, Copy]
"""What became of a message of a queue, by its id."""

Put: TypeAlias = tuple[int, str, int, int, str | None, bytes]
"""A message that was shown before it was written: its topic's number, its id, how many channels of
the store got it, its timestamp, its codec and its bytes."""

Entries: TypeAlias = list[Any]
"""What happened: three items for each note, six for each put, and for any other entry itself and
two that are None.

So what is most frequent is no object that the garbage collector has to look at: to look at all
there are, since there are so many more of them, would hold up an event loop for milliseconds."""

Notes: TypeAlias = defaultdict[Key, dict[str, Copy]]

ID: Final = itemgetter(0)
"""Returns the id of a row."""


class Change(Protocol):
    """Any other entry."""

    def add_to(self, batch: Batch, notes: Notes, /) -> None:
        """Add it to a batch, behind all that happened before."""
        ...


@attrs.frozen
class Noted:
    """What became of several messages of a queue, by their ids."""

    key: Key
    names: Sequence[str]
    copies: Sequence[Copy]

    def add_to(self, _batch: Batch, notes: Notes) -> None:
        """See `Change`."""
        notes[self.key].update(zip(self.names, self.copies, strict=True))


@attrs.frozen
class Together:
    """Changes of one operation."""

    changes: Sequence[Change]

    def add_to(self, batch: Batch, notes: Notes) -> None:
        """See `Change`."""
        for change in self.changes:
            change.add_to(batch, notes)


@attrs.define
class Published:
    """Messages were shown before they were written.

    Attributes:
        topic: the topic's number.
        rows: what is to be written of them.
        gone: what a move has finished by it.
        count: how many channels of the store got each of them, if all that did so are ready.
        noted: it is, or was, in the journal.
    """

    topic: int
    rows: list[Row]
    gone: Sequence[Note] = ()
    count: int = 0
    noted: bool = False

    def add_to(self, batch: Batch, notes: Notes) -> None:
        """See `Change`."""
        batch.rows.setdefault(self.topic, []).extend(self.rows)
        for key, name, copy in self.gone:
            notes[key][name] = copy


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
            notes[key][name] = copy


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
class ClockSet:
    """The wall's time is so much ahead of the one that is noted."""

    drift: int

    def add_to(self, batch: Batch, _notes: Notes) -> None:
        """See `Change`."""
        batch.drift = self.drift


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


def fold(entries: Entries, *, whole: bool = False) -> Batch:
    """Return what is to be written of a prefix: what is so after all of it.

    Args:
        entries: the prefix.
        whole: leave nothing out, since some of it may be in the file already.
    """
    batch = Batch()
    notes: Notes = defaultdict(dict)
    puts: list[Put] = []
    items = iter(entries)
    for first, name, what in zip(items, items, items, strict=True):
        if first.__class__ is tuple:
            notes[first][name] = what
        elif first.__class__ is int:
            puts.append((first, name, what, next(items), next(items), next(items)))
        elif first.__class__ is Published and first.count:
            puts += [
                (first.topic, name_of(row[0]), first.count, row[1], row[4], row[5])
                for row in first.rows
            ]
        else:
            first.add_to(batch, notes)
    if puts:
        batch.highest = int(max([put[1] for put in puts]), 16)
        _add_puts(batch, notes, puts, whole=whole)
    for key, known in notes.items():
        batch.copies[key] = dict(zip(map(int, known, repeat(16)), known.values(), strict=True))
    batch.highest = max(
        batch.highest,
        max(map(max, filter(None, batch.copies.values())), default=0),
        max((max(map(ID, rows)) for rows in batch.rows.values()), default=0),
    )
    return batch


def _add_puts(batch: Batch, notes: Notes, puts: list[Put], *, whole: bool) -> None:
    """Add messages to a batch, but for those with which all channels that got them have done.

    These are forgotten, with what is noted of them: nearly all that are put, where they are
    finished soon.
    """
    of_topic: defaultdict[int, list[dict[str, Copy]]] = defaultdict(list)
    for (number, _), noted in notes.items():
        of_topic[number].append(noted)
    several: defaultdict[int, list[Put]] = defaultdict(list)
    for put in puts:
        several[put[0]].append(put)
    for number, some in several.items():
        done = set() if whole else _finished(some, of_topic[number])
        rows: list[Row] = [
            (int(name, 16), timestamp, None, None, codec, data)
            for _, name, _, timestamp, codec, data in some
            if name not in done
        ]
        if rows and number not in batch.gone_topics:
            batch.rows.setdefault(number, []).extend(rows)


def _finished(puts: list[Put], notes: list[dict[str, Copy]]) -> set[str]:
    """Take messages out of notes with which all channels that got them have done; return them."""
    times = Counter(
        chain.from_iterable(
            [name for name, copy in noted.items() if copy is GONE] for noted in notes
        )
    )
    done = {put[1] for put in puts if put[2] and times.get(put[1]) == put[2]}
    for noted in notes:
        if done >= noted.keys():
            noted.clear()
        else:
            for name in done & noted.keys():
                del noted[name]
    return done


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
        entries: what happened, in order; see `Entries`.
        queue: the commit queue: what is reserved and not settled.  A list, as `entries`, since
            others add to it while it is gone through.
        decided: entries behind what is being written are to be written before whatever is put
            from now on; see `has_decided`.
        noted_rows: entries behind what is being written have messages; see `has_rows`.
        stirred: the flusher expects to flush.
        now: the wall's time when something was to wait last.
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
        # Attempts that were counted at once must not be overwritten by those of an earlier prefix.
        self._counts: Final = terms.attempts == "durable"
        self._is_slow: Final = terms.sync == "full"
        self._sync_every: Final = terms.sync_every
        self.late: Final = terms.sync == "interval"
        self.lock: Final[Lock] = make_lock(rank=0, forked=forked)
        self.entries: Final[Entries] = []
        self.queue: Final[list[PendingWrite[Any]]] = []
        self.decided: bool = False
        self.stirred: bool = False
        self.now: int = 0
        self.noted_rows: bool = False
        self.problem: NSQLiteError | None = None
        self.over: Callable[[], NSQLiteError] | None = None
        self._deciding = False  # there is what was decided in what is being written, or was to be
        self._writing_rows = False  # the same of messages
        self._unsure = False  # the first entries may be in the file: a signal struck who wrote them
        self._written = 0  # items of `entries`, so far
        # So many more changes there are than entries; a list, since several threads add to it.
        self._more: Final[list[None]] = []
        self._crowd = 0  # how many puts the last commit had
        self._grown = 0  # bytes written since it was last seen whether the file is kept small
        self._told: Final[deque[PendingWrite[Any]]] = deque()
        self._adopted: Final[list[tuple[PendingWrite[Any], bool]]] = []

    # What happens

    def append(self, change: Change) -> None:
        """Take note of what happened."""
        self.entries.extend((change, None, None))
        self.stir_once()

    def note(self, key: Key, name: str, copy: Copy) -> None:
        """Take note of what became of a message of a queue."""
        self.entries.extend((key, name, copy))
        self.stir_once()

    def publish(self, published: Published) -> None:
        """Take note of messages that are shown.  Made twice, it notes them once."""
        if not published.noted:
            self._more.extend(repeat(None, 2 * len(published.rows) - 1))  # before the entry
            published.noted = True  # one piece with the next line
            self.entries.extend((published, None, None))
        self.stir_for_row()

    def note_all(self, key: Key, names: Sequence[str], copies: Sequence[Copy]) -> None:
        """Take note of what became of several messages of a queue."""
        noted = [
            Noted(key, names[at : at + EACH], copies[at : at + EACH])
            for at in range(0, len(names), EACH)
        ]
        self._more.extend(repeat(None, len(names) - len(noted)))  # before the entries
        self.entries.extend([item for one in noted for item in (one, None, None)])
        self.stir_once()

    def decide(self, *changes: Change) -> None:
        """Take note of what is to be written before whatever is put from now on.

        What belongs to one operation is one entry: a prefix has all of it or nothing.
        """
        self.entries.extend((changes[0] if len(changes) == 1 else Together(changes), None, None))
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
        self.stirred = True  # before the call: a flush in between resets it
        try:
            self.flusher.expect()
        except BaseException:
            self.stirred = False  # the next one does it
            raise

    def stir_for_row(self) -> None:
        """Do so, unless it expects to; a message was noted."""
        self.noted_rows = True  # behind it: a flush in between has written it
        self.stir_once()

    def stir_once(self) -> None:
        """Do so, unless it expects to."""
        if not self.stirred:
            self.stir()

    def enqueue(self, pending: PendingWrite[Any]) -> None:
        """Put what was reserved behind all that is to be written."""
        pending.queued = True  # one piece with the next line
        self.queue.append(pending)

    def is_behind(self) -> bool:
        """Return whether too much is shown and not written; have it written before that.

        Raises:
            NSQLiteError: nothing can be put any more.
        """
        self.require_open()
        count = self.count_changes()
        if count >= self._sync_every:
            self.flusher.expect(at_once=True)
        return count >= 2 * self._sync_every

    def count_changes(self) -> int:
        """Return about how many changes are not written yet; a put counts as two."""
        return len(self.entries) // 3 + len(self._more)

    def require_open(self) -> None:
        """Check that something can be put.

        Raises:
            NSQLiteError: see `over`.
        """
        if self.over is not None:
            raise self.over()

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
        for pending in self.queue.copy():
            if pending.semaphore is not None:
                release(pending.semaphore)  # also of one that is settled, and not taken out yet
            if not pending.settled and pending.on_done is not None:
                self.flusher.wake()
                return
            if not pending.settled and pending.semaphore is not None:
                return

    # Group commit

    def write(self, pending: PendingWrite[Any]) -> None:
        """Have a put written, or wait for who writes, until it is settled; blocks.

        Where a commit takes long, and the last one was shared, it first waits a moment for those
        who shared it: the last to come writes for all.
        """
        if self._is_slow and len(self.queue) < self._crowd:
            pending.semaphore = held_semaphore()
            SYSTEM.wait(pending.semaphore, SYSTEM.monotonic_ns() + PATIENCE, "put()")
        while not pending.settled:
            if self._attempt():
                continue
            if pending.semaphore is None:
                pending.semaphore = held_semaphore()  # and look again: who writes may not see it
            else:
                pending.semaphore.acquire()  # released when it is settled, or to write itself
        if self._told or self._adopted:
            self.tell()

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

    def write_if_brief(self) -> None:
        """Write what is reserved if that takes but a moment, else have it written soon.

        That is one put, where a commit does not wait for the disk, and nobody else is writing.
        """
        brief = not (self._is_slow or self.has_decided()) and len(self.queue) == 1
        if brief and self.count_changes() < self._sync_every and self._attempt():
            self.tell()
        else:
            self.flusher.wake()

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
        # The queue before it is known what was decided: so what a put stands on is written first.
        queue = self.queue.copy()
        self._crowd = len(queue)
        is_much = self.count_changes() >= self._sync_every
        if is_much or self.has_decided():
            try:
                self._flush_decided()
            except StoreError:  # of which each was told
                return
        if self._crowd == 1 and not is_much:
            [pending] = queue
            if not (pending.settled or pending.topic.deleted or pending.on_done):
                self._write_lone(pending)
                return
        self._write_several(self._unsettled(queue))

    def _flush_decided(self) -> None:
        """Write a prefix, and more until all is written that must be before the next put."""
        self._flush()
        while self.has_decided():
            self._flush()

    def _write_lone(self, pending: PendingWrite[Any]) -> None:
        """Write the only put of the queue; a signal leaves it to be written once more."""
        pending.error = None
        self._write_one(pending)
        pending.topic.settle(pending)
        if pending.semaphore is not None:  # read when it is settled: see `write`
            release(pending.semaphore)
        del self.queue[0]

    def _write_several(self, pendings: list[PendingWrite[Any]]) -> None:
        """Write puts in one transaction, or, where that fails, each for itself."""
        if len(pendings) > 1:
            try:
                self._write_rows(_rows_of(pendings))
            except StoreError:
                self._write_each(pendings)
        else:
            self._write_each(pendings)
        self._settle(pendings)

    def _unsettled(self, queue: list[PendingWrite[Any]]) -> list[PendingWrite[Any]]:
        """Return what is to be written; what was reserved in topics that are no more is refused."""
        pendings: list[PendingWrite[Any]] = []
        refused: list[PendingWrite[Any]] = []
        for pending in queue:
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
            self._write_one(pending)

    def _write_one(self, pending: PendingWrite[Any]) -> None:
        """Write a put by itself; the lock is held."""
        rows = pending.rows
        try:
            if len(rows) == 1:
                self._storage.write_row(pending.topic.number, rows[0])
            else:
                self._storage.write_rows(pending.topic.number, rows)
            self.problem = None
        except StoreError as error:
            self.problem = pending.error = error
        self._grow(pending.size if pending.codes is None else _size_of(rows))

    def _write_rows(self, rows: dict[int, list[Row]]) -> None:
        """Write messages and nothing else; the lock is held."""
        if len(rows) > 1:
            self._storage.write(Batch(rows=rows))
        else:
            [(number, several)] = rows.items()
            self._storage.write_rows(number, several)
        self.problem = None
        self._grow(sum(map(_size_of, rows.values())))

    def _grow(self, size: int) -> None:
        """Take note of a commit; the flusher lets the log go when that is over, or after many."""
        if not self.stirred:
            self.stir()
        self._weigh(size + PAGE)

    def _weigh(self, size: int) -> None:
        """Have the file kept small if much was written."""
        before, self._grown = self._grown, self._grown + size
        if self._grown >= TOO_MUCH:
            self._grown = 0
            self.flusher.expect(at_once=True)
            with suppress(StoreError):  # what was written is written
                self._storage.copy_all()
        elif before < MUCH <= self._grown:
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
            if pending.semaphore is not None:
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
        length = len(self.entries)  # before what was written: so it is never too little
        try:
            self._flush_until(self._written + length)
        finally:
            self.tell()

    def _flush_until(self, written: int) -> None:
        """Write prefixes until so many items of `entries` were written; who waits comes between."""
        self.alone(self._flush)
        while self._written < written and self.entries:
            self.alone(self._flush)

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
        """Write a prefix in one transaction, and along with all there is the queue.

        The lock is held.
        """
        pendings: list[PendingWrite[Any]] = []
        unsure = self._unsure
        try:
            self._deciding = self._writing_rows = True  # until it is known, and then written
            # These before the prefix is taken: an entry that comes later sets them again.
            self.stirred = self.noted_rows = self.decided = False
            pendings = self._unsettled(self.queue.copy())
            end = len(self.entries)  # after the queue: what a put stands on is in the prefix
            more = len(self._more)  # after the entries: rather too many than too few
            is_all = self._counts or end // 3 + more <= PIECE
            if not is_all:
                end, more = _measure(self.entries, PIECE)
            if end or pendings:
                batch = fold(self.entries[:end], whole=unsure)
                self._deciding = not is_all or _is_decided(batch)
                self._writing_rows = not is_all or bool(batch.rows)
                for number, rows in _rows_of(pendings if is_all else []).items():
                    batch.rows.setdefault(number, []).extend(rows)
                    batch.highest = max(batch.highest, rows[-1][0])
                batch.now = self.now  # behind the prefix: what waits in it was noted by then
                self._unsure = True
                self._storage.write(batch)
        except BaseException as error:
            self.stir()
            if isinstance(error, StoreError):
                self.problem = error
                self._unsure = unsure  # nothing was written
                for pending in pendings:
                    pending.error = error
                self._settle(pendings)
            raise
        del self.entries[:end]
        self._unsure = False
        del self._more[:more]
        self._written += end
        self.problem = None
        if is_all:
            self._deciding = self._writing_rows = False
            self._settle(pendings)
        else:
            self.stir()
        if end or pendings:
            self._weigh(sum(map(_size_of, batch.rows.values())) + end * NOTED)

    def count(self, number: int, channel: int, copies: list[tuple[int, int]]) -> None:
        """Write deliveries at once; takes the lock.

        Raises:
            StoreError: they could not be written.
        """
        self.alone(self._count, number, channel, copies)

    def _flush_rows(self) -> None:
        """Write all messages that are shown."""
        while self.has_rows():
            self._flush()

    def _count(self, number: int, channel: int, copies: list[tuple[int, int]]) -> None:
        try:
            self._flush_rows()
            self._storage.write_attempts(number, channel, copies)
        except StoreError as error:
            self.problem = error
            raise
        self._grow(0)


def _measure(entries: Entries, changes: int) -> tuple[int, int]:
    """Return how many items so many changes are, and how many more changes than entries."""
    at = more = 0
    while changes > 0:
        first = entries[at]
        if first.__class__ is int:
            at += 6
            changes -= 2
            continue
        at += 3
        weight = 1
        if first.__class__ is Noted:
            weight = len(first.names)
        elif first.__class__ is Published:
            weight = 2 * len(first.rows)
        changes -= weight
        more += weight - 1
    return at, more


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
    changed = batch.topics or batch.channels or batch.gone_channels or batch.gone_topics
    return bool(changed) or batch.drift is not None


def _rows_of(pendings: list[PendingWrite[Any]]) -> dict[int, list[Row]]:
    """Return what is to be written of puts, by topic."""
    rows: dict[int, list[Row]] = {}
    for pending in pendings:
        rows.setdefault(pending.topic.number, []).extend(pending.rows)
    return rows


def _size_of(rows: Iterable[Row]) -> int:
    """Return how many bytes the bodies of messages have."""
    return sum([len(row[5]) for row in rows])


def gone(key: Key, names: Iterable[str]) -> list[Note]:
    """Return the notes that messages of a queue are gone."""
    return [(key, name, GONE) for name in names]
