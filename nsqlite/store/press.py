"""The press: who writes to the store, and for whom.

The rule: whoever holds the lock writes, and writes for all who have reserved by then; so puts that
come together share one commit.  A thread that puts writes itself unless another is writing; the
store's own thread (clerk.py) writes for who must not block, and what may be late.

Locks: `lock` before a topic's; never the other way.  No topic's lock is held while the store is
written.

Next: store/keeper.py
"""

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby, takewhile
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeVar, TypeVarTuple

from nsqlite.clock import SYSTEM, release
from nsqlite.errors import Closed, NSQLiteError, Reentered, StoreError
from nsqlite.lock import Lock, ensure, make_lock
from nsqlite.message import Message
from nsqlite.store.cabinet import Account
from nsqlite.store.clerk import Clerk
from nsqlite.store.letter import Letter
from nsqlite.store.office import Kept
from nsqlite.store.shelf import Shelf
from nsqlite.store.store import Batch, Row, Storage
from nsqlite.store.terms import Terms

log: Final = logging.getLogger("nsqlite")

PATIENCE: Final = 300_000
"""Nanoseconds that a put waits for others to share its commit, which takes longer than that."""

MUCH: Final = 16 << 20
"""So many bytes are written until the store's thread keeps the store small, whatever is due."""

PAGE: Final = 2048
"""Bytes that a commit writes at least, as a rule."""

SOME: Final = 2000
"""So many notes of its topic go along with a letter; it is cheaper to write them together."""

SETTLED: Final = attrgetter("settled")
"""Of a letter."""

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


class Press:
    """What writes the letters and accounts of topics; `Keeper` is the whole of it.

    Threads: any.

    Attributes:
        lock: held by whoever writes.
        many: there is much that should go along with the next write.
        crowded: several puts shared the last commit.
        queue: the letters that were reserved and are not settled; a list, since others add to it
            while it is gone through, and only a list or dict can be copied in one step everywhere.
        now_shown: what was reserved is shown at once, and written later.
        sync_every: of so many changes the store hears at once.
    """

    if TYPE_CHECKING:
        _clerk: Clerk

    def __init__(self, storage: Storage, terms: Terms) -> None:
        """Begin with nothing to write; the clerk is still to come."""
        self._storage: Final = storage
        self.now_shown: bool = terms.sync == "interval"
        self.sync_every: int = terms.sync_every
        self.lock: Lock = make_lock(rank=0, forked=self._abandon)
        self.many: bool = False
        self._is_slow: Final = terms.sync == "full"
        self.crowded: bool = False
        self._unkept = 0  # bytes written since the store's thread has last kept the store small
        self._crowd = 0  # how many puts the last commit had
        self.queue: list[Letter] = []
        self._told: Final[deque[Letter]] = deque()
        self._adopted: Final[deque[Letter]] = deque()
        self._dirty: Final[dict[Kept, None]] = {}
        # Of the topics that are not deleted, whether the calling thread holds the lock; by number,
        # since who forgets a broker must not find that its store keeps it.
        self._owned: Final[dict[int, Callable[[], bool]]] = {}
        self._problem: NSQLiteError | None = None
        self._over: Callable[[], NSQLiteError] | None = None

    def _abandon(self) -> None:
        """In the child of a fork: the parent keeps the store."""

    def require_owner(self) -> None:
        """Check that this is no child of a fork."""

    # The lock

    def leave(self) -> None:
        """Release the lock, if the calling thread holds it, and pass it on.

        It is passed on too often rather than never: a signal may strike in between.
        """
        if self.lock.owned():
            self.lock.__exit__()
            if self.queue:
                self._pass_on()
        elif self.queue and self.lock.attempt():
            self.lock.__exit__()  # it was free: nobody else would pass it on
            self._pass_on()

    def _pass_on(self) -> None:
        """Have the first who waits write for all who have reserved meanwhile."""
        try:
            head = self.queue[0]
        except IndexError:  # somebody has written it
            return
        release(head.semaphore)
        if head.told is not None:
            self._clerk.ring()

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

    # When

    def stir(self, topic: Kept, *, many: bool = False) -> None:
        """Take note that there is something to be written; takes no lock."""
        self._dirty[topic] = None
        self.many = self.many or many
        self._clerk.expect()

    def hurry(self) -> None:
        """Have what is reserved written soon; takes no lock."""
        self._clerk.ring()

    def confirm_soon(self) -> None:
        """Have all written soon, by the store's thread; takes no lock."""
        self._clerk.expect(at_once=True)

    def require_free(self, call: str) -> None:
        """Check that the calling thread holds no lock of the store or its topics.

        Raises:
            Reentered: it does, so it must not wait for the store: its thread may wait for the lock.
        """
        if self._is_inside():
            raise Reentered(call)

    def _is_inside(self) -> bool:
        """Say whether the calling thread is inside another call; of a signal handler, for one."""
        if self.lock.owned():
            return True
        for owned in list(self._owned.values()):  # noqa: SIM110 - takes half as long
            if owned():
                return True
        return False

    def confirm(self) -> None:
        """Have written what was decided so far; in an event loop or inside another call, soon.

        Raises:
            StoreError: it could not be written; it has taken effect, and is tried again.
        """
        if self._over is not None or self._is_inside() or in_loop():
            self._clerk.expect(at_once=True)
        else:
            self.flush()

    # Writing

    def write(self, letter: Letter) -> None:
        """Have a letter written and shown; blocks.

        Raises:
            StoreError: it could not be written; nothing has changed.
        """
        if self.now_shown:
            return
        if letter.moved is not None and in_loop():
            self.adopt(letter)
            return
        self._write_until(letter)
        letter.topic.show()
        if self._told:
            self.tell()
        if letter.error is not None:
            self._undo(letter)
            raise letter.error

    def _write_until(self, letter: Letter) -> None:
        """Write, or wait for who writes, until a letter is settled.

        Where a commit takes long, and the last one was shared, it first waits a moment for those
        who shared it: the last to come writes for all.
        """
        if self._is_slow and len(self.queue) < self._crowd:
            SYSTEM.wait(letter.semaphore, SYSTEM.monotonic_ns() + PATIENCE, "put()")
        while not letter.settled:
            if not self._attempt():
                letter.semaphore.acquire()  # released when it is settled, or to write itself

    def _attempt(self) -> bool:
        """Write the queue if nobody else is writing, and say whether."""
        try:
            try:
                if not self.lock.attempt():
                    return False
                self._commit()
            finally:
                ensure(self.leave)
        except BaseException:
            ensure(self.leave)  # a signal may strike as `ensure` begins
            raise
        return True

    def write_row(self, number: int, row: Row) -> None:
        """Write a message; the lock is held.

        Raises:
            StoreError: it could not be written; nothing has changed.
        """
        self._grow(len(row[5]))
        try:
            self._storage.write_row(number, row)
        except StoreError as error:
            self._problem = error
            raise
        self._problem = None

    def put_first(self, letter: Letter) -> None:
        """Have a letter written and shown before all others; the lock is held."""
        self.queue.insert(0, letter)
        self.adopt(letter)

    def adopt(self, letter: Letter) -> None:
        """Have the clerk bring a letter to its end, if it was reserved; takes no lock."""
        if letter.rows and not letter.shown:
            self._adopted.append(letter)
            self._clerk.ring()

    def commit(self) -> None:
        """Write what is reserved, and what the clerk was left; takes the locks."""
        if self.queue and not self.now_shown:
            self.alone(self._commit)
        self.tell()
        for letter in taken(self._adopted):
            letter.topic.show()
            if letter.error is not None:
                what = letter.what
                self._undo(letter)
                log.error("%s, of which nobody was told: %s", what, letter.error)

    def tell(self) -> None:
        """Show and tell those who did not block; takes topics' locks."""
        for letter in taken(self._told):
            letter.topic.show()
            assert letter.told is not None
            try:
                letter.told()
            except RuntimeError:  # its loop is closed
                pass

    def _undo(self, letter: Letter) -> None:
        """Do what is left to be done for what a refused letter was to finish; no lock is held."""
        if letter.source is not None:
            letter.source.settle()

    def _take_back(self, letter: Letter) -> None:
        """Have what a refused letter was to finish in flight again, before anything is written."""
        moved, letter.moved = letter.moved, None
        if moved is not None:
            flow, messages = moved
            letter.source = monitor = flow._monitor
            for message in messages:
                if isinstance(flow.persistence, Shelf):
                    flow.persistence.alone.add(message.id)  # as it may be, and does no harm else
                with monitor.lock:
                    monitor.perform(flow.take_back, message)

    def _commit(self) -> None:
        """Write the letters of the queue; the lock is held."""
        self._refuse_deleted()
        letters = self._unsettled()
        self._crowd = len(letters)
        self.crowded = self._crowd > 1
        if self.many or any(map(_is_more, letters)):
            try:
                self._flush()
            except StoreError:  # of which each letter was told
                pass
            return
        if len(letters) == 1:
            self._write_each(letters)
        elif letters:
            try:
                self._write_rows(_rows_of(letters))
            except StoreError:
                self._write_each(letters)
        self._settle(letters)

    def _unsettled(self) -> list[Letter]:
        """Return the letters that are to be written or told that they are refused."""
        return [letter for letter in list(self.queue) if not letter.settled]

    def _refuse_deleted(self, *, left: bool = False) -> None:
        """Refuse the letters of topics that are no more, but for what was there and is gone.

        Args:
            left: the accounts are taken, so what is moved has left where it was, and is gone, too.
        """
        gone: list[Letter] = []
        for letter in [one for one in self._unsettled() if one.topic.cabinet.deleted]:
            if letter.shown or (left and letter.origin is not None and letter.is_left()):
                gone.append(letter)
            else:
                letter.error = Closed(f"topic {letter.topic.cabinet.name!r}", "deleted")
                self._take_back(letter)
        self._settle(gone)

    def _write_each(self, letters: list[Letter]) -> None:
        """Write letters one by one, so that each fails for itself."""
        for letter in [letter for letter in letters if letter.error is None]:
            try:
                self._write_rows([(letter.topic.cabinet.number, letter.rows)])
            except StoreError as error:
                letter.error = error

    def _grow(self, size: int) -> None:
        """Take note of a commit; what is much has the store's thread keep the store small."""
        self._unkept += size + PAGE
        if self._unkept >= MUCH:
            self._unkept = 0
            self._clerk.expect(at_once=True)

    def _write_rows(self, rows: list[tuple[int, list[Row]]]) -> None:
        self._grow(sum(len(row[5]) for _, some in rows for row in some))
        try:
            if len(rows) == 1:
                self._storage.write_rows(*rows[0])
            else:
                self._storage.write(Batch(rows=rows))
        except StoreError as error:
            self._problem = error
            raise
        self._problem = None

    def _settle(self, letters: list[Letter]) -> None:
        """Take note of what became of letters, and take them out of the queue."""
        for letter in letters:
            if letter.told is not None:
                self._told.append(letter)
            letter.topic.settle_letter(letter)
            release(letter.semaphore)
        done = takewhile(SETTLED, self.queue.copy())
        del self.queue[: len(list(done))]

    # What may be late

    def flush(self) -> None:
        """Write all that the store has not heard yet; takes the locks.

        Raises:
            StoreError: it could not be written; it is tried again.
            StoreInUse: this is the child of a fork.
            Reentered: called by a signal handler or destructor inside another call.
        """
        self.require_owner()
        self.require_free("flush")
        try:
            self.alone(self._flush)
        finally:
            self.tell()

    def _flush(self) -> None:
        """Write an account of every topic that has changed, then the queue, in one transaction."""
        self._refuse_deleted()
        topics = list(self._dirty)
        try:
            try:
                self._write_all(topics)
            except BaseException:
                ensure(partial(self._restore, topics))
                raise
        except StoreError as error:
            self._problem = error
            self._refuse(error)
            raise
        self._problem = None

    def _write_all(self, topics: list[Kept]) -> None:
        """Write the accounts of topics and the letters; the lock is held.

        What a signal strikes down here after the commit is written again, which does no harm.
        """
        self._unkept = 0
        batch = Batch()
        self.many = self._over is not None
        letters = self._take_accounts(topics, batch)
        batch.rows += _rows_of(letters)
        if topics or letters:
            self._storage.write(batch)
        for topic in topics:
            topic.cabinet.written = True
        self._settle(letters)  # else they would be written again, without what became of them
        for topic in topics:
            topic.cabinet.sent = None
            if topic.cabinet.deleted:
                self._owned.pop(topic.cabinet.number, None)

    def _take_accounts(self, topics: list[Kept], batch: Batch) -> list[Letter]:
        """Add the accounts of topics to a batch; return the letters that can be written with them.

        What is moved is written with the account that tells that it left, and that with it.  The
        letters are read after the accounts, so that none is missing whose message has left in them;
        one that came later is written next, when its message has.  A letter's own topic must be
        there, so its account is taken too; then the letters are read again.
        """
        waiting = topics.copy()
        while True:
            for topic in waiting:
                self._account(topic).add_to(batch, topic.cabinet.number)
            self._refuse_deleted(left=True)
            letters = self._unsettled()
            waiting = _new_topics(letters, topics)
            if not waiting:
                break
            topics += waiting
        ready: list[Letter] = []
        for letter in letters:
            if letter.error is not None or letter.is_left():
                ready.append(letter)
            else:
                self._write_next(letter)
        return ready

    def _write_next(self, letter: Letter) -> None:
        """Have a move written soon, with what tells that the message has left."""
        assert letter.origin is not None
        letter.origin.stir()
        self._clerk.ring()

    def _account(self, topic: Kept) -> Account:
        """Take a topic's account."""
        self._dirty.pop(topic, None)
        monitor = topic._monitor
        with monitor.lock:
            return monitor.perform(topic.cabinet.account)

    def _restore(self, topics: list[Kept]) -> None:
        """Take back the accounts that were not written.  May be made twice."""
        for topic in topics:
            monitor = topic._monitor
            with monitor.lock:
                monitor.perform(topic.cabinet.restore)
            self.stir(topic)

    def _refuse(self, error: StoreError) -> None:
        """Refuse the letters that are not shown yet."""
        if not self.now_shown:
            letters = self._unsettled()
            for letter in letters:
                letter.error = letter.error or error
                self._take_back(letter)
            self._settle(letters)

    def settle(self, topic: Kept, shelf: Shelf, messages: list[Message[Any]]) -> None:
        """Have deliveries counted; blocks.

        Raises:
            StoreError: they could not be; the messages are back in the queue, as they were.
        """
        try:
            self.require_owner()
            self.require_free("get")
            self._count(topic.cabinet.number, shelf.number or 0, messages)
        except BaseException as error:
            if isinstance(error, StoreError):
                self._problem = error
            ensure(partial(topic._monitor.call, _give_back, messages))
            raise

    def _count(self, number: int, channel: int, messages: list[Message[Any]]) -> None:
        records = [message._record for message in messages]
        copies = [(int(record[2] + record[3], 16), record[4] + 1) for record in records]
        try:
            with self.lock:
                if self.now_shown:
                    self._flush()
                self._storage.write_attempts(number, channel, copies)
                self._grow(0)
                self._clerk.expect()  # to keep the store small, though nothing is left to write
        finally:
            if self.queue:
                ensure(self._pass_on)


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


def _is_more(letter: Letter) -> bool:
    """Say whether there is more to be written than a letter, or with it."""
    cabinet = letter.topic.cabinet
    return (
        letter.moved is not None
        or cabinet.decided
        or not cabinet.written
        or cabinet.noted() >= SOME
    )


def _new_topics(letters: list[Letter], topics: list[Kept]) -> list[Kept]:
    """Return the topics of letters that are neither in the store nor among these."""
    there = set(topics)
    found = dict.fromkeys(letter.topic for letter in letters if letter.error is None)
    return [topic for topic in found if not (topic.cabinet.written or topic in there)]


def _give_back(messages: list[Message[Any]]) -> None:
    for queue, some in groupby(messages, lambda message: message._consumer.channel._queue):
        queue.give_back((message, message._record) for message in some)
        queue.feed()


def _rows_of(letters: list[Letter]) -> list[tuple[int, list[Row]]]:
    """Return what is to be written of letters, by topic."""
    rows: dict[int, list[Row]] = {}
    for letter in letters:
        if letter.error is None:
            rows.setdefault(letter.topic.cabinet.number, []).extend(letter.rows)
    return list(rows.items())
