"""A broker's database: opened, read, kept small and closed.

The rule: what a topic holds at opening follows from the rows of the file, its options from the
first call that names it; and a file is closed only when all that happened is in it.

Next: store/sqlite.py
"""

import atexit
import logging
import os
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeVar, TypeVarTuple

from nsqlite.broker import Broker
from nsqlite.clock import Clock
from nsqlite.errors import Closed, NoOwner, NSQLiteError, StoreError, StoreFull, StoreInUse
from nsqlite.ids import GuidFactory
from nsqlite.lock import make_lock
from nsqlite.message import Record
from nsqlite.names import is_ephemeral
from nsqlite.origin import made_at, note
from nsqlite.persistence import OnDone, TopicPersistence
from nsqlite.store.backlog import Backlog
from nsqlite.store.codec import Coder
from nsqlite.store.deferred import PAGE
from nsqlite.store.flusher import Flusher
from nsqlite.store.journal import Journal, Key, TopicChanged, TopicGone, taken
from nsqlite.store.record import TopicRecord, record_of
from nsqlite.store.storage import (
    FIRST,
    Batch,
    Found,
    Storage,
    StoredChannel,
    StoredTopic,
    cut,
    name_of,
)
from nsqlite.store.terms import Terms

log: Final = logging.getLogger("nsqlite")

if TYPE_CHECKING:
    from nsqlite.store.control import Control

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


class Database:
    """What keeps the topics of one broker in one storage; see `nsqlite.broker.Persistence`.

    Threads: any.

    Attributes:
        where: the store in words.
        journal: what happened and is not written yet.
        counts: deliveries are counted before `get` returns.
        mem_queue_size: how many messages of a channel are held in memory that are ready, and how
            many that are deferred.
        mem_queue_bytes: how many bytes their bodies have, about.
        epoch, drift: see `record.Host`.
    """

    def __init__(
        self,
        where: str,
        storage: Storage,
        terms: Terms,
        factory: GuidFactory,
        *,
        control: bool = False,
    ) -> None:
        """Begin with what is in the storage, and start its thread.

        Args:
            where: the store in words.
            storage: the storage, open and not loaded.
            terms: the options.
            factory: where the broker's ids come from.
            control: let other processes act on it, through a socket beside the file.
        """
        self.where: Final = where
        self._wants_control: Final = control
        self._control: Control | None = None
        self._storage: Final = storage
        self._coder: Final = Coder(terms.codec)
        self.counts: bool = terms.attempts == "durable"
        self.mem_queue_size: int = terms.mem_queue_size
        self.mem_queue_bytes: int = terms.mem_queue_bytes
        self.journal: Journal = Journal(storage, terms, self._abandon)
        self._making: Final = make_lock(rank=-1)
        self._wanted: Final[dict[Backlog, None]] = {}
        self._tasks: Final[deque[tuple[Callable[[], object], OnDone]]] = deque()
        self._unread: NSQLiteError | None = None  # why the last page could not be read
        self._pid: Final = os.getpid()
        self._forked = False
        self._finished = False
        self._flusher_ended = False  # its thread does nothing more
        self.epoch: int = 0  # once a topic is opened
        self.drift: int = 0
        self._has_clock = False  # that is set, and the storage knows the time
        topics, channels = storage.load()
        self._stored: Final = {topic.name: topic for topic in topics}
        self._stored_channels: Final[dict[int, list[StoredChannel]]] = {}
        for channel in channels:
            self._stored_channels.setdefault(channel.topic, []).append(channel)
        self._records: Final[weakref.WeakValueDictionary[str, TopicRecord]] = (
            weakref.WeakValueDictionary()  # a topic keeps its broker, which nothing here may do
        )
        self._highest_topic, highest_channel, highest = storage.highest()
        self._topic_numbers: Final = count(self._highest_topic + 1)
        self._channel_numbers: Final = count(highest_channel + 1)
        given = (*(topic.handed for topic in topics), *(channel.since for channel in channels))
        factory.start_after(max([highest, *given]))  # their messages may be forgotten already
        self._flusher: Final = Flusher(self, f"nsqlite store {where}", terms.sync_timeout)
        self.journal.flusher = self._flusher
        self._flusher.start()
        atexit.register(self._close_at_exit)  # of a broker that is never closed
        self._flusher.expect()  # to go on with what was being forgotten
        self._made: Final = note(self)

    # For the broker

    def names(self) -> Iterable[str]:
        """Return the topics that are in the file and were not asked for yet."""
        return list(self._stored)

    def topic(
        self,
        name: str,
        home: object,
        clock: Clock,
        known: Callable[[], R | None],
        make: Callable[[TopicPersistence | None], R],
    ) -> R:
        """Make a topic, with what is in the file of it, unless somebody else has just made it.

        Args:
            name: its name.
            home: the broker.
            clock: what it takes the time from.
            known: returns the topic if there is one.
            make: makes the topic of what keeps it, None in memory; called while no other is made.

        Raises:
            StoreError: it cannot be read; or not be written, and then it is there all the same.
        """
        if is_ephemeral(name):
            return make(None)
        self.require_open()
        with self._making:
            made = known()
            fresh = False
            if made is None:
                stored = self._described(name)
                fresh = stored.number > self._highest_topic
                record = self._open(stored, clock, home, fresh=fresh)
                self._records[name] = record
                made = make(record)
            self._stored.pop(name, None)
        if fresh:
            self.journal.confirm(may_block=True)
        return made

    def _described(self, name: str) -> StoredTopic:
        """Return a topic as the file has it; of a new one it is remembered that it was begun.

        So one that a signal keeps from being made is made by the next call, under the same number:
        there are never two of one name.
        """
        stored = self._stored.get(name)
        old = self._records.get(name)
        if old is not None and old.deleted and stored is not None and stored.number == old.number:
            stored = None
        if stored is None:
            if old is not None and not old.deleted:
                self.journal.decide(TopicGone(old.number))  # whoever deletes it has not come to it
            stored = StoredTopic(number=next(self._topic_numbers), name=name)
            self._stored[name] = stored
        return stored

    def _open(self, stored: StoredTopic, clock: Clock, home: object, *, fresh: bool) -> TopicRecord:
        """Return a topic's record, filled with what the file has of it."""
        if not self._has_clock:
            self.journal.alone(self._storage.set_clock, clock.time_ns())
            self.epoch = clock.time_ns() - clock.monotonic_ns()  # that may have taken long
            self._has_clock = True
        if fresh:
            self.journal.decide(TopicChanged(stored))
            return TopicRecord(stored, 0, self, clock, home)
        number = stored.number
        last = self.journal.alone(self._storage.last, number)
        channels = self._stored_channels.get(number, [])
        held, counts = self._count(stored, channels)
        record = TopicRecord(stored, last, self, clock, home)
        for channel in channels:
            self._recover(record.restore(channel), counts[channel.number], last)
        if not record.flowing:
            self._recover(record.held, held, last)
        return record

    def _count(
        self, stored: StoredTopic, channels: list[StoredChannel]
    ) -> tuple[int, dict[int, int]]:
        """Return how many messages a topic and its channels hold."""
        if stored.counted:
            return stored.held, {channel.number: channel.held for channel in channels}
        return self.journal.alone(self._storage.count, stored.number)

    def _recover(self, backlog: Backlog, held: int, last: int) -> None:
        """Have a backlog know what it has in the file.

        A count never keeps a message from being read: of a queue that is said to be empty it is
        looked for one.
        """
        storage = self._storage
        topic, channel = backlog.key
        since, top = int(backlog.since, 16), int(backlog.top, 16)
        found = storage.read_apart(topic, channel, since, top)
        limit = max(1, min(PAGE, self.mem_queue_size // 2))
        waiting = storage.read_deferred(topic, channel, (since, top), FIRST, limit + 1)
        page, more = cut(waiting, limit)
        backlog.apart = [(self.record(one), one[2]) for one in (*found, *page)]
        if more:
            count = storage.count_deferred(topic, channel, (since, top))
            backlog.behind = max(1, count - len(page))
            if channel is not None and top < last:
                backlog.alone = set(map(name_of, storage.alone(topic, channel, top)))
        backlog.held = max(0, held - len(backlog.apart) - backlog.behind)
        if not backlog.held and storage.read(topic, channel, since, top, 1):
            backlog.held = 1

    def serve(self, broker: Broker) -> None:
        """See `nsqlite.broker.Persistence`.

        Raises:
            StoreError: the control socket cannot be made; the store is closed then.
        """
        if self._wants_control:
            from nsqlite.store.control import Control  # noqa: PLC0415 - loads sockets
            from nsqlite.store.operations import Operations  # noqa: PLC0415 - it needs no other

            home = partial(self._known_broker, weakref.ref(broker))
            try:
                control = Control(self.where, Operations(home, self._coder))
                control.start()
            except BaseException:
                self.close()
                raise
            self._control = control

    def _known_broker(self, home: Callable[[], Broker | None]) -> Broker:
        """Return the broker, unless it was forgotten.

        Raises:
            NoOwner: it was.
        """
        broker = home()
        if broker is None:
            raise NoOwner(self.where, "its owner is closing it")
        return broker

    @property
    def health(self) -> str:
        """``"OK"``, or ``"NOK - "`` and why the file could not be written or read last."""
        problem = self.journal.problem or self._unread
        return "OK" if problem is None else f"NOK - {problem}"

    def flush(self) -> None:
        """Write all that happened so far; blocks.

        Raises:
            StoreError: it could not be written; it is tried again.
            StoreInUse: this is the child of a fork.
            Reentered: called by a signal handler or destructor inside another call.
        """
        self.require_owner()
        self.journal.flush()

    def backup(self, path: str) -> None:
        """Write all that happened so far, and a copy of it to a new file; blocks.

        Raises:
            StoreError: it could not be written, or there is such a file.
        """
        self.flush()
        self._storage.backup(path)

    # The end

    async def run(self, task: Callable[[], object], call: str) -> None:
        """Have something done by the flusher, and await that.

        Args:
            task: what is done.
            call: what was called, for an error.

        Raises:
            NSQLiteError: this is closed, and nothing is done; see `Journal.over`.
            NotAsyncio: no event loop of asyncio runs here; nothing is done.
            Exception: what the task raised.

        Cancellation:
            It is done all the same.
        """
        from nsqlite.aio.waiting import by_store  # noqa: PLC0415 - most stores need no asyncio

        await by_store(self.send, task, call)

    def prepare_close(self) -> None:
        """Write all that happened so far, unless this is closed already; blocks.

        Raises:
            StoreError: it could not be written; it is tried again.
        """
        if self.journal.over is None and not self.journal.lock.owned():
            self.journal.flush()

    def close(self, *, force: bool = False, wait: bool = True) -> None:
        """Have everything written, and close the file; a second call tries again what has failed.

        Args:
            force: close it although something could not be written, which is logged.
            wait: do so before this returns; else by the flusher.

        Raises:
            StoreError: something could not be written, and the file is still open.
        """
        self._end()
        if wait and not self.journal.lock.owned():  # else this is inside of a write, by a signal
            if self._control is not None:
                self._control.wait()
            self._flusher.wait()
            self._finish(force=force)

    def forsake(self) -> None:
        """Close it without waiting: nobody can use it any more."""
        if self.journal.over is None:
            self._end()
            self._warn("was forgotten, not closed")

    def _warn(self, problem: str) -> None:
        text = f"the broker of {self.where} {problem}{made_at(self._made)}"
        warnings.warn(text, ResourceWarning, stacklevel=3, source=self)

    def crash(self) -> None:
        """End as with the death of the process: nothing more is written; for tests."""
        self._finished = True
        self._end()
        atexit.unregister(self._close_at_exit)

    def _close_at_exit(self) -> None:
        try:
            if self.journal.over is None:
                self._warn("was not closed by the end of the program")
        finally:
            self.close(force=True)

    def _end(self) -> None:
        """Take no more, and have the flusher write what is left; made again after a signal."""
        if self.journal.over is None:
            self.journal.over = partial(Closed, f"the broker of {self.where}")
            self._flusher.stop()
        if self._control is not None:
            self._control.stop()

    def finish(self) -> None:
        """Write all that is left and close the file; the flusher's last work."""
        self._flusher_ended = True  # before it dismisses: who sends later looks
        self._dismiss(Closed(f"the broker of {self.where}"))
        try:
            self._finish(force=False)
        except StoreError as error:
            log.error("%s could not be closed: %s", self.where, error)  # noqa: TRY400 - no fault of ours

    def _finish(self, *, force: bool) -> None:
        if self._finished:
            return
        try:
            self.journal.flush()
            with suppress(StoreFull):  # they are counted anew by whoever opens it
                self.journal.alone(self._write_counts)
        except StoreError as error:
            if not force:
                raise
            left = self.journal.count_changes()
            text = "%s was closed, %d changes not written: %s"
            log.error(text, self.where, left, error)  # noqa: TRY400 - no fault of ours
        self._finished = True
        self.journal.alone(self._storage.close)
        atexit.unregister(self._close_at_exit)  # only now: who does not wait may leave before

    def _write_counts(self) -> None:
        """Write how many messages there are, so that nobody has to count them at opening."""
        batch = Batch()
        for record in self._records.values():
            if record.exact and record.held.ended and not record.deleted:
                topic, channels = record.counted()
                batch.topics[record.number] = topic
                batch.channels.update((channel.number, channel) for channel in channels)
        if batch.topics:
            self._storage.write(batch)

    def _abandon(self) -> None:
        """In the child of a fork: the parent keeps the file."""
        if self.journal.over is None:
            problem = f"process {self._pid} has it, of which this is a fork: open another file here"
            self.journal.over = partial(StoreInUse, self.where, self._pid, problem)
            self._forked = self._finished = self._flusher_ended = True
            if self._control is not None:
                self._control.abandon()
            self._storage.abandon()

    # For the topics

    def require_owner(self) -> None:
        """Check that this is no child of a fork.

        Raises:
            StoreInUse: it is.
        """
        if self._forked:
            self.require_open()

    def require_open(self) -> None:
        """Check that the store can be used.

        Raises:
            StoreInUse: this is the child of a fork.
            Closed: the broker is.
        """
        self.journal.require_open()

    def encode(self, body: Any) -> tuple[Any, bytes, str | None]:
        """See `Coder`."""
        return self._coder.encode(body)

    def record(self, found: Found) -> Record[Any]:
        """Return what was read as a record."""
        return record_of(found, self._coder.decode)

    def next_channel(self) -> int:
        """Return a number that no channel has."""
        return next(self._channel_numbers)

    # Reading, by whoever needs it or by the flusher

    def read(self, key: Key, after: int, upto: int, limit: int) -> list[Found]:
        """Read a page, and take note of whether that can be done; blocks.

        Raises:
            StoreError: it cannot be read.
        """
        return self._known(self._storage.read, *key, after, upto, limit)

    def find(self, key: Key, identity: int) -> list[Found]:
        """Read a message by its id, as `read`.

        Raises:
            StoreError: it cannot be read.
        """
        return self._known(self._storage.find, *key, identity)

    def read_deferred(
        self, key: Key, between: tuple[int, int], behind: tuple[int, int], limit: int
    ) -> list[Found]:
        """Read a page of what waits, as `read`.

        Raises:
            StoreError: it cannot be read.
        """
        return self._known(self._storage.read_deferred, *key, between, behind, limit)

    def _known(self, read: Callable[[*Ts], list[Found]], *args: *Ts) -> list[Found]:
        """Read, and take note of why that cannot be done."""
        try:
            found = read(*args)
        except StoreError as error:
            self._unread = error
            raise
        self._unread = None
        return found

    def want(self, backlog: Backlog) -> None:
        """Have a page read soon; takes no lock."""
        self._wanted[backlog] = None
        self._flusher.wake()

    def send(self, task: Callable[[], object], on_done: OnDone) -> None:
        """Have something done by the flusher; takes no lock."""
        self._tasks.append((task, on_done))
        self._flusher.wake()
        if self._flusher_ended and self.journal.over is not None:
            self._dismiss(self.journal.over())

    def _dismiss(self, problem: NSQLiteError) -> None:
        """Tell whoever waits for a task that it will not be done."""
        for _, on_done in taken(self._tasks):
            _report(on_done, problem)

    # The flusher's work

    def commit(self) -> None:
        """Write what is reserved."""
        self.journal.commit()

    def run_tasks(self) -> Exception | None:
        """Do what was sent, and read the pages that are wanted.

        Returns:
            Why a page could not be read; it is still wanted.
        """
        for task, on_done in taken(self._tasks):
            problem: Exception | None = None
            try:
                if self._finished:
                    self.require_open()
                task()
            except Exception as error:
                problem = error
            _report(on_done, problem)
        failed: Exception | None = None
        if self._finished:
            return None
        for backlog in list(self._wanted):  # those that are wanted meanwhile come at the next look
            self._wanted.pop(backlog, None)
            try:
                backlog.fetch_once()
            except Exception as error:
                failed = error
                backlog.wanted = True
                self._wanted[backlog] = None
        return failed

    def flush_late(self) -> None:
        """Write what may be late."""
        self.journal.flush()

    def upkeep(self) -> bool:
        """Do a little of what keeps the file small; return whether there is more to do."""
        try:
            self._storage.copy_log()
            return self.journal.alone(self._storage.tidy)
        except StoreError as error:
            self.journal.problem = error
            raise


def _report(on_done: OnDone, problem: Exception | None) -> None:
    """Tell that something was done, or why it was not."""
    try:
        on_done(problem)
    except RuntimeError:  # its loop is closed
        pass
