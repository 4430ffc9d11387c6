"""The keeper: between the topics of a broker and a store; opening, reading, closing.

The rule: a page is planned, read and taken into memory by one thread at a time.

Who writes, and when, is in press.py.  Locks: `_reading` before the press's, and that before a
topic's; never the other way.

Next: store/sqlite.py
"""

import atexit
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from typing import Any, Final, Unpack

from nsqlite.errors import Closed, NSQLiteError, Reentered, StoreError, StoreInUse
from nsqlite.ids import GuidFactory
from nsqlite.lock import make_lock
from nsqlite.message import Record
from nsqlite.names import is_ephemeral
from nsqlite.options import TopicOptions
from nsqlite.queue import OnDone
from nsqlite.store.clerk import Clerk
from nsqlite.store.codec import Coder
from nsqlite.store.office import Kept
from nsqlite.store.press import Press, in_loop, taken
from nsqlite.store.shelf import Shelf, record_of
from nsqlite.store.store import Found, Storage, StoredTopic
from nsqlite.store.terms import Terms
from nsqlite.store.topic import KeptTopic
from nsqlite.topic import Home, Topic


class Keeper(Press):
    """What keeps the topics of one broker in one store.

    Threads: any.

    Attributes:
        where: the store in words.
        counts: deliveries are counted before `get` returns.
        mem_queue_size: how many ready messages of a channel are held in memory.
    """

    def __init__(self, where: str, storage: Storage, terms: Terms, factory: GuidFactory) -> None:
        """Begin with what is in the store, and start its thread.

        Args:
            where: the store in words.
            storage: the store, open and not loaded.
            terms: what was agreed on.
            factory: where the broker's ids come from.
        """
        self._reading: Final = make_lock(rank=0)  # before the press's, see lock.py
        super().__init__(storage, terms)
        self.where: Final = where
        self._coder: Final = Coder(terms.codec)
        self.counts: bool = terms.attempts == "durable"
        self.mem_queue_size: int = terms.mem_queue_size
        self._making: Final = make_lock(rank=-1)
        self._errands: Final[deque[tuple[Callable[[], object], OnDone]]] = deque()
        self._wanted: Final[dict[Shelf, Kept]] = {}
        self._unread: NSQLiteError | None = None  # why the last page could not be read
        self._pid: Final = os.getpid()
        self._forked = False
        stored = storage.load()
        self._stored: Final = {topic.name: topic for topic in stored}
        topics, channels, identity = storage.highest()
        self._topics: Final = count(topics + 1)
        self._channels: Final = count(channels + 1)
        factory.start_after(max([identity, *(topic.last for topic in stored)]))
        self._clerk = Clerk(self, f"nsqlite store {where}", terms.sync_timeout)
        self._clerk.start()
        atexit.register(self.close)  # of a broker that is never closed
        self._clerk.expect()  # to go on with what was being forgotten

    # For the broker

    def names(self) -> Iterable[str]:
        """Return the topics that are kept and were not asked for yet."""
        return list(self._stored)

    def topic(
        self,
        name: str,
        home: Home,
        add: Callable[[Topic[Any]], Topic[Any]],
        **options: Unpack[TopicOptions],
    ) -> Topic[Any]:
        """Make a topic, with what is kept of it.

        Args:
            name: its name.
            home: the broker.
            add: makes it one of the broker's, or returns the one that is there.
            options: what is to differ from the broker's options.
        """
        if is_ephemeral(name):
            return add(Topic(name, home=home, **options))
        self.require_open()
        with self._making:  # in which nobody is told anything
            stored = self._stored.get(name)
            fresh = stored is None
            if stored is None:
                stored = StoredTopic(number=next(self._topics), name=name)
            topic: KeptTopic[Any] = KeptTopic(name, stored, self, home, **options)
            topic.cabinet.written = not fresh
            made = add(topic)
            if made is topic:
                self._owned[stored.number] = topic._monitor.lock.owned
            self._stored.pop(name, None)
        if fresh and made is topic:
            topic.decide()
            self.confirm()
        return made

    @property
    def health(self) -> str:
        """``"OK"``, or ``"NOK - "`` and why the store could not be written or read last."""
        problem = self._problem or self._unread
        return "OK" if problem is None else f"NOK - {problem}"

    def close(self) -> None:
        """Have everything written, and close the store; a second call does nothing.

        Inside another call of its thread it does not wait until that is done.

        Raises:
            StoreError: something could not be written, or the store not be closed.
        """
        self._end()
        if not self._is_inside():  # the clerk may wait for a lock of this thread
            self._clerk.wait()

    def forsake(self) -> None:
        """Close it without waiting: nobody can use it any more."""
        if self._over is None:
            self._end()
            text = f"the broker of {self.where} was forgotten, not closed"
            warnings.warn(text, ResourceWarning, stacklevel=2)

    def _end(self) -> None:
        """Take no more, and have the clerk write what is left."""
        if self._over is None:
            self._over = partial(Closed, f"the broker of {self.where}")
            self.many: bool = True  # nothing goes the short way
            self._clerk.stop()
            atexit.unregister(self.close)

    def finish(self) -> None:
        """Write all that is left and close the store; the clerk's last work."""
        self._dismiss(Closed(f"the broker of {self.where}"))
        try:
            self.flush()
        finally:
            with self._reading:
                self.alone(self._storage.close)

    def _abandon(self) -> None:
        """In the child of a fork: the parent keeps the store."""
        self._owned.clear()  # all locks are new, and nobody's
        if self._over is None:
            problem = f"process {self._pid} has it, of which this is a fork: open another file here"
            self._over = partial(StoreInUse, self.where, self._pid, problem)
            self._forked = True
            self.many = True
            self._storage.abandon()

    # For the topics

    def require_owner(self) -> None:
        """Check that this is no child of a fork.

        Raises:
            StoreInUse: it is.
        """
        if self._forked and self._over is not None:
            raise self._over()

    @property
    def over(self) -> bool:
        """Whether the store cannot be used."""
        return self._over is not None

    def require_open(self) -> None:
        """Check that the store can be used.

        Raises:
            StoreInUse: this is the child of a fork.
            Closed: the broker is.
        """
        if self._over is not None:
            raise self._over()

    def encode(self, body: Any) -> tuple[Any, bytes, str | None]:
        """See `Coder`."""
        return self._coder.encode(body)

    def record(self, found: Found) -> Record[Any]:
        """Return what was read as a record."""
        return record_of(found, self._coder.decode)

    def next_channel(self) -> int:
        """Return a number that no channel has."""
        return next(self._channels)

    def want(self, topic: Kept, shelf: Shelf) -> None:
        """Have a page read soon; takes no lock."""
        self._wanted[shelf] = topic
        self._clerk.ring()

    def send(self, errand: Callable[[], object], told: OnDone) -> None:
        """Have something done by the store's thread; takes no lock."""
        self._errands.append((errand, told))
        self._clerk.ring()
        if self._over is not None:  # and the clerk may be gone
            self._dismiss(self._over())

    def _dismiss(self, problem: NSQLiteError) -> None:
        """Tell whoever waits for an errand that it will not be done."""
        for _, told in taken(self._errands):
            _tell(told, problem)

    # Reading

    def fetch(self, topic: Kept, shelf: Shelf) -> None:
        """Read the next page of a shelf into memory; blocks.

        Raises:
            StoreError: it cannot be read; nothing has changed.
            StoreInUse: this is the child of a fork.
            Closed: the broker is.
            Reentered: called by a signal handler or destructor inside another call.
        """
        monitor = topic._monitor
        self.require_open()
        self.require_free("get")
        if self._reading.owned():
            raise Reentered("get")
        with self._reading:
            with monitor.lock:
                plan = monitor.perform(shelf.page)
            if self.now_shown or self.many:
                self.flush()  # after the plan, so that what it counts on is in the file
            if plan is not None:
                after, upto, limit, emptied = plan
                found = self._read(topic, shelf, after, upto, limit + 1)
                decode = self._coder.decode
                records = [record_of(one, decode) for one in found[:limit]]
                more = len(found) > limit
                with monitor.lock:
                    monitor.perform(partial(shelf.arrive, records, upto, emptied, more=more))
        monitor.settle()

    def _read(self, topic: Kept, shelf: Shelf, after: int, upto: int, limit: int) -> list[Found]:
        """Read a page, and take note of whether that can be done."""
        try:
            found = self._storage.read(topic.cabinet.number, shelf.number, after, upto, limit)
        except StoreError as error:
            if topic.cabinet.deleted:
                return []
            self._unread = error
            raise
        self._unread = None
        return found

    def read_ahead(self, topic: Kept, shelf: Shelf) -> None:
        """Read the next page of a shelf, unless the calling thread runs an event loop; blocks.

        To have another thread read it beside this one would cost several times as much.  If it
        fails, the store's thread tries again.
        """
        if in_loop():
            return
        shelf.wanted = True  # so that nobody else reads it
        try:
            self.fetch(topic, shelf)
        except BaseException as error:
            self.want(topic, shelf)
            if not isinstance(error, NSQLiteError):
                raise

    def run_errands(self) -> Exception | None:
        """Do what the clerk was asked to, and read the pages that are wanted.

        Returns:
            Why a page could not be read; it is still wanted.
        """
        for errand, told in taken(self._errands):
            problem: Exception | None = None
            try:
                errand()
            except Exception as error:
                problem = error
            _tell(told, problem)
        failed: Exception | None = None
        for shelf in list(self._wanted):  # those that are wanted meanwhile come at the next look
            topic = self._wanted.pop(shelf)
            try:
                self.fetch(topic, shelf)
            except Exception as error:
                failed = error
                shelf.wanted = True
                self._wanted[shelf] = topic
        return failed

    def read_all(self, topic: int, shelf: Shelf) -> list[Found]:
        """Return what a shelf has in the file in order; takes no lock of the keeper."""
        after, upto = int(shelf.since, 16), int(shelf.top, 16)
        return self._storage.read(topic, shelf.number, after, upto, -1)

    def read_apart(self, topic: int, shelf: Shelf) -> list[Found]:
        """Return what a shelf has in the file apart."""
        if self.now_shown:
            self.flush()
        after, upto = int(shelf.since, 16), int(shelf.top, 16)
        return self._storage.read_apart(topic, shelf.number, after, upto)

    # Upkeep

    def upkeep(self) -> bool:
        """Do a little of what keeps the store small; return whether there is more to do."""
        try:
            self._storage.copy_log()
            return self.alone(self._storage.tidy)
        except StoreError as error:
            self._problem = error
            raise


def _tell(told: OnDone, problem: Exception | None) -> None:
    """Tell that something was done, or why it was not."""
    try:
        told(problem)
    except RuntimeError:  # its loop is closed
        pass
