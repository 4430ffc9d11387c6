"""A backlog: the part of a queue that lies in the file alone, read page by page.

The rule: every message of the queue with an id up to `cursor` has come into memory, and none above
it but what does not come in the order of ids; `top` is the highest there is.  So a message is read
once, and whether there is more to read is told by ids; `Queue.backend_depth` only counts.  Where it
is 0 all is in memory, and `cursor` and `top` say nothing.

How much is in memory is counted in messages and, about, in bytes: a body of up to `share` bytes
counts as one message, and of those that are longer it is summed up how long they are.

What comes back while there is a backlog waits behind the next page (`Queue.back`): so nothing is
overtaken for ever, neither what lies in the file nor what comes back.

Everything here expects the topic's lock, but for `read_ahead`, `fetch`, `load`, `hold_all`, `find`,
`discard`, `settle`, `send` and what only tells.

Next: store/record.py
"""

from collections import deque
from collections.abc import Callable, MutableSequence, Sequence
from functools import partial
from itertools import groupby
from typing import Any, Final, Protocol

from nsqlite.errors import NSQLiteError, Reentered
from nsqlite.events import Kind
from nsqlite.lock import ensure, make_lock
from nsqlite.message import Message, Record
from nsqlite.monitor import Monitor
from nsqlite.persistence import OnDone
from nsqlite.queue import NO_LIMIT
from nsqlite.store import deferred
from nsqlite.store.deferred import PAGE, left_of, weigh
from nsqlite.store.journal import Key, in_loop
from nsqlite.store.storage import GONE, HIGHEST, Copy, Found, cut, name_of

STEERED: Final = (Kind.CREATED, Kind.PAUSED, Kind.UNPAUSED, Kind.EMPTIED)
"""What is noted of a topic or channel itself."""


LEFT: Final = (Kind.DROPPED, Kind.DISCARDED)
"""What happens to messages that are in the queue no more."""


class _Counted(dict[int, Copy]):
    """What becomes of a message that was delivered, by how often that was before."""

    def __missing__(self, attempts: int) -> Copy:
        """Make it; of the usual ones there is one for all."""
        copy = attempts + 1, None
        if attempts < FEW:
            self[attempts] = copy
        return copy


FEW: Final = 100
"""How often a message is delivered, as a rule, at most."""

COUNTED: Final = _Counted()


class Pages(deferred.Pages, Protocol):
    """What a backlog needs of the database.

    Attributes:
        mem_queue_size: how many messages of a channel are held in memory that are ready, and how
            many that are deferred.
        mem_queue_bytes: how many bytes their bodies have, about.
        counts: deliveries are counted before `get` returns.
    """

    mem_queue_size: int
    mem_queue_bytes: int
    counts: bool

    def require_open(self) -> None:
        """Check that the store can be used."""
        ...

    def read(self, key: Key, after: int, upto: int, limit: int) -> list[Found]:
        """Read messages that are ready, in the order of their ids; blocks."""
        ...

    def find(self, key: Key, identity: int) -> list[Found]:
        """Read a message by its id; blocks."""
        ...

    def want(self, backlog: "Backlog") -> None:
        """Have a page read soon, by the flusher; takes no lock."""
        ...

    def send(self, task: Callable[[], object], on_done: OnDone) -> None:
        """Have something done by the flusher; takes no lock."""
        ...


class Topic(deferred.Topic, Protocol):
    """What a backlog needs of its topic's record."""

    @property
    def monitor(self) -> Monitor:
        """The topic's."""
        ...

    def until(self, due: int) -> int:
        """Return a moment until which something waits as it is to be noted, and note the time."""
        ...

    def heard(self, backlog: "Backlog", kind: Kind) -> None:
        """Take note of what happened to a queue."""
        ...

    def lowest(self) -> int | None:
        """Return the lowest id of what is reserved and not shown; None if nothing is."""
        ...

    def given_to(self, backlog: "Backlog") -> str:
        """Return the id up to which what is meant for all is, or will be, a queue's."""
        ...

    def unshown_ids(self) -> set[int]:
        """Return the ids of what is reserved and not shown yet."""
        ...

    def skipped(self) -> None:
        """Take note that a message went past a queue."""
        ...

    def show(self) -> None:
        """Show what is settled; takes the lock."""
        ...


class Backlog:
    """What a store has of a channel, or of what a topic itself holds; see `QueuePersistence`.

    Attributes:
        all: all is held in memory, whatever its limit.
        alone: the ids of messages that only this queue was given.
        key: the numbers of topic and channel.
        name: the channel's; empty for the topic's own.
        counted: deliveries are counted in the file by `settle`.
        paused: whether the channel is paused.
        since: the id up to which it holds nothing.
        top: the highest id that it was given.
        cursor: the id up to which all came into memory.
        apart: before it is bound, what does not come in order, with when it is due by the wall.
        held: before it is bound, how many messages lie here in order; at the end, how many there
            were in all.
        behind: before it is bound, how many more wait here, behind the last one that is `apart`.
        ended: the queue is closed, and `held` is what it had.
        known: the journal, or the file, knows of it.
        queue: the queue.
        wanted: the next page is to be read.
    """

    __slots__ = (
        "_budget",
        "_bytes",
        "_capacity",
        "_deferred",
        "_entries",
        "_journal",
        "_low",
        "_pages",
        "_reading",
        "_taken",
        "_topic",
        "all",
        "alone",
        "apart",
        "behind",
        "counted",
        "cursor",
        "ended",
        "held",
        "key",
        "known",
        "name",
        "paused",
        "queue",
        "since",
        "top",
        "wanted",
    )

    def __init__(self, key: Key, name: str, topic: Topic, pages: Pages, since: str) -> None:
        """Begin empty.

        Args:
            key: the numbers of topic and channel.
            name: the channel's name.
            topic: the topic's record.
            pages: the database.
            since: the id up to which it holds nothing.
        """
        self.key: Final = key
        self.name: Final = name
        self._topic: Final = topic
        self._pages: Final = pages
        self._journal: Final = pages.journal
        self._entries: Final = pages.journal.entries
        self._reading: Final = make_lock(rank=0)
        self.counted: bool = pages.counts and key[1] is not None
        self.paused: bool = False
        self.since: str = since
        self.top: str = since
        self.cursor: str = since
        self.apart: list[tuple[Record[Any], int | None]] = []
        self.held: int = 0
        self.behind: int = 0
        self.all: bool = False
        self.alone: set[str] = set()
        self.ended: bool = False
        self.known: bool = False
        self.queue: Any = None
        self.wanted: bool = False
        self._capacity = 0  # so many ready messages are held in memory
        self._bytes = 0  # of so many bytes, about
        self._budget = 0  # so many bytes more may be, at least
        self._low = PAGE  # with so few the next page is read
        self._taken: Record[Any] | None = None
        self._deferred: Final = deferred.Deferred(key, topic, pages, self._bounds, self.look)

    def _bounds(self) -> tuple[str, str, set[int]]:
        """Return above which id, and up to which, what is meant for all is the queue's.

        And the ids of those between that it has not got yet.
        """
        return self.since, self._topic.given_to(self), self._topic.unshown_ids()

    def bind(self, queue: Any) -> None:
        """See `QueuePersistence`."""
        self.queue = self._deferred.queue = queue
        self.fit()
        queue.backend_depth, self.held = self.held, 0
        if queue.backend_depth or self.key[1] is None:
            queue.back = deque()  # of a topic's own, what has fallen due stays apart
        self.alone.update(one[2] + one[3] for one, _ in self.apart if one[2] + one[3] > self.top)
        queue.back.extend(record for record, wall in self.apart if wall is None)
        waiting = [(record, wall) for record, wall in self.apart if wall is not None]
        self._deferred.bind(waiting, self.behind)
        self.apart = []

    def fit(self) -> None:
        """See `QueuePersistence`; a queue that may have to drop something has all in memory."""
        most = NO_LIMIT if self.all else self._pages.mem_queue_size
        self._bytes = NO_LIMIT if self.all else self._pages.mem_queue_bytes
        if self.queue.is_dropping():
            most = self._bytes = NO_LIMIT
        self._capacity = most
        self._set_low()
        self._deferred.fit(most, self._bytes)

    def hold_all(self) -> None:
        """See `QueuePersistence`."""
        self.all = True
        self.load()

    # What happens is noted

    def hear(self, kind: Kind, record: Record[Any] | None, due: int | None) -> None:
        """See `QueuePersistence`."""
        if record is None:
            if kind in STEERED:
                self._topic.heard(self, kind)
        elif kind is Kind.REQUEUED:
            self._note(record, (record[4], None if due is None else self._topic.until(due)))
        elif kind is Kind.RETURNED:
            self._note(record, (record[4], None))
        elif kind in LEFT:
            self._note(record, GONE)

    def _note(self, record: Record[Any], copy: Copy) -> None:
        self._journal.note(self.key, record[2] + record[3], copy)
        self.look()

    def delivered(self, messages: Sequence[Message[Any]], due: int) -> None:  # noqa: ARG002 - see the port
        """See `QueuePersistence`."""
        key = self.key
        if len(messages) == 1:
            record = messages[0]._record
            self._entries.extend((key, record[2] + record[3], COUNTED[record[4]]))
            if not self._journal.stirred:
                self._journal.stir()
        else:
            records = [message._record for message in messages]
            names = [record[2] + record[3] for record in records]
            self._journal.note_all(key, names, [COUNTED[record[4]] for record in records])
        if self.queue.backend_depth or self.queue.backend_deferred:
            self._deferred.credit(len(messages))
            self.look()

    def finished(self, messages: Sequence[Message[Any]]) -> None:
        """See `QueuePersistence`."""
        key = self.key
        if len(messages) == 1:
            record = messages[0]._record
            self._entries.extend((key, record[2] + record[3], GONE))
            if not self._journal.stirred:
                self._journal.stir()
        else:
            records = [message._record for message in messages]
            names = [record[2] + record[3] for record in records]
            self._journal.note_all(key, names, [GONE] * len(names))
        if self.alone:
            self.alone.difference_update([message.id for message in messages])

    def note(self, entry: Any) -> None:
        """See `QueuePersistence`."""
        self._journal.publish(entry)

    def put_away(self) -> None:
        """See `QueuePersistence`."""
        if not self.ended:
            self.held = self.queue.total()
            self.ended = True

    def empty(self, last: str) -> None:
        """Hold nothing of what was given up to an id."""
        self.since = self.cursor = self.top = last
        self._deferred.forget()
        if self.key[1] is not None:
            self.queue.back = self.queue.ready

    # Messages come in

    def takes(self, records: Sequence[Record[Any]]) -> bool:
        """See `QueuePersistence`."""
        return records[-1][2] + records[-1][3] > self.since

    def room(self) -> int:
        """See `QueuePersistence`."""
        return 0 if self.queue.backend_depth else self._capacity - len(self.queue.ready)

    def take(self, records: Sequence[Record[Any]]) -> None:
        """See `QueuePersistence`."""
        if records[-1] is self._taken:
            return
        if not self.takes(records):
            self._topic.skipped()
            return
        queue = self.queue
        first, last = records[0][2] + records[0][3], records[-1][2] + records[-1][3]
        cursor, top = self.cursor, max(self.top, last)
        is_full = queue.backend_depth > 0
        if not is_full and not self._has_room(records):
            is_full = True
            self._set_low()
            cursor, top = max(cursor, name_of(int(first, 16) - 1)), last
        if is_full and first > cursor:
            back = deque() if queue.back is queue.ready else queue.back
            # One piece, up to the call:
            self._taken = records[-1]
            self.cursor = cursor
            self.top = top
            queue.back = back
            queue.backend_depth += len(records)
            self.look()
        else:
            cursor = max(cursor, last)
            # One piece, up to the call:
            self._taken = records[-1]
            self.cursor = cursor
            self.top = top
            queue.ready.extend(records)

    def _has_room(self, records: Sequence[Record[Any]]) -> bool:
        """Return whether messages that are ready have room in memory, where there is no backlog."""
        ready = self.queue.ready
        if self._capacity == NO_LIMIT:
            return True
        if len(ready) + len(records) > self._capacity:
            return False
        typical = self._topic.typical
        size = weigh(records, typical)
        if size > self._budget:
            self._budget = left_of(self._bytes, weigh(ready, typical))
            if size > self._budget and (ready or len(records) > 1):
                return False  # if not, nothing would ever come
        self._budget -= size
        return True

    def _set_low(self) -> None:
        """Decide when the next page is to be read: when half of what has room is left."""
        ready = self.queue.ready
        self._budget = 0  # it is to be summed up anew
        if self._capacity == NO_LIMIT:
            self._low = NO_LIMIT
            return
        self._low = min(PAGE, self._capacity // 2)
        if weigh(ready, self._topic.typical) > self._bytes // 2:
            self._low = min(self._low, len(ready) // 2)

    def take_over(self, other: Any) -> None:
        """See `QueuePersistence`."""
        count = other.queue.backend_depth
        if count and self.top < other.top:
            queue = self.queue
            back = deque() if queue.back is queue.ready else queue.back
            if not queue.backend_depth:
                self.cursor = other.cursor
            # One piece, up to the call:
            self.top = other.top
            queue.back = back
            queue.backend_depth += count
            self.look()

    # Pages are read

    def look(self) -> None:
        """See `QueuePersistence`."""
        queue = self.queue
        if self.key[1] is not None and not self.wanted:
            is_short = queue.backend_depth and self._is_low()
            if is_short or (queue.backend_deferred and self._deferred.has_few()):
                self._pages.want(self)
                self.wanted = True  # after it: a signal in between has it wanted twice, not never

    def _is_low(self) -> bool:
        """Say whether so little is in memory that the next page is to be read."""
        return len(self.queue.ready) <= self._low

    def read_ahead(self) -> None:
        """See `QueuePersistence`.

        To have another thread read it beside this one would cost several times as much.  If it
        fails, the flusher tries again.
        """
        queue = self.queue
        if not self._is_low() or (self.wanted and queue.ready) or in_loop():
            return
        self.wanted = True  # so that nobody else reads it
        try:
            self.fetch()
        except BaseException as error:
            self._pages.want(self)
            if not isinstance(error, NSQLiteError):
                raise

    def load(self) -> None:
        """See `QueuePersistence`."""
        self._capacity = self._low = NO_LIMIT
        self._deferred.fit(NO_LIMIT, NO_LIMIT)
        try:
            self._fetch_all()
        finally:
            self.fit()

    def _fetch_all(self) -> None:
        while self.queue.backend_depth or self.queue.backend_deferred:
            self.fetch()

    def fetch(self) -> None:
        """See `QueuePersistence`; if it fails, the flusher tries again, as others may wait."""
        try:
            self.fetch_once()
        except BaseException:
            if self.queue.backend_deferred:
                self.wanted = True
                self._pages.want(self)
            raise

    def fetch_once(self) -> None:
        """Do so without another try.

        Raises:
            StoreError: it cannot be read; nothing has changed.
            StoreInUse: this is the child of a fork.
            Closed: the broker is.
            Reentered: called by a signal handler or destructor inside another call.
        """
        monitor = self._topic.monitor
        self._require_free("get")
        with self._reading:
            self._fetch(monitor)
        monitor.settle()

    def _fetch(self, monitor: Monitor) -> None:
        with monitor.lock:
            plan = monitor.perform(self._plan)
        if plan is not None:
            self._read(monitor, *plan)
        if self.queue.backend_deferred and (self.key[1] is not None or self._capacity == NO_LIMIT):
            self._deferred.fetch(monitor)  # what a topic holds waits until it is handed on

    def _plan(self) -> tuple[int, int, int, str] | None:
        """Return after and up to which id is to be read, how many, and `since`; None if nothing."""
        self.wanted = False
        queue = self.queue
        room = min(PAGE, self._capacity - len(queue.ready))
        if not queue.backend_depth or room <= 0 or not self._is_low():
            return None
        upto = int(self.top, 16)
        lowest = self._topic.lowest()
        if lowest is not None and lowest <= upto:
            upto = lowest - 1
        return int(self.cursor, 16), upto, room, self.since

    def _read(self, monitor: Monitor, after: int, upto: int, limit: int, since: str) -> None:
        """Read a page and take it into memory; what the plan counts on is written first."""
        if self._journal.has_rows():
            self._journal.flush()
        elif upto <= after:  # all that there is to read is still being put
            self._journal.commit()
            self._topic.show()  # who put it may not have come to that yet
        found = self._pages.read(self.key, after, upto, limit + 1)
        page, more = cut(found, limit)
        records = [self._pages.record(one) for one in page]
        arrive = partial(self._arrive, records, upto, since, more=more)
        with monitor.lock:
            monitor.perform(arrive)

    def _arrive(self, records: list[Record[Any]], upto: int, since: str, *, more: bool) -> None:
        """Take a page into memory, unless the queue was emptied meanwhile."""
        queue = self.queue
        if self.since != since or not queue.backend_depth:
            return
        cursor = records[-1][2] + records[-1][3] if more else max(self.cursor, name_of(upto))
        ended = cursor >= self.top
        left = 0 if ended else max(1, queue.backend_depth - len(records))
        back = queue.back
        arrived = [*records, *back] if self.key[1] is not None else records
        if self.key[1] is not None:
            back = queue.ready if ended else deque()
        # One piece, up to the call:
        self.cursor = cursor
        queue.backend_depth = left
        queue.back = back
        queue.ready.extend(arrived)
        self._set_low()
        queue.feed()
        if ended and not records:  # what was thought to be there has been discarded
            queue.shrunk()
        self.look()

    # One message, by its id

    def find(self, name: str) -> tuple[Record[Any], int | None] | None:
        """See `QueuePersistence`."""
        self._require_free("find")
        with self._reading:
            found = self._find(name)
            return found if found is not None and self._lies_apart(name, found[1]) else None

    def discard(self, name: str, from_memory: Callable[[], bool | None]) -> bool:
        """See `QueuePersistence`."""
        self._require_free("discard")
        monitor = self._topic.monitor
        with self._reading:  # no page comes into memory meanwhile
            found = self._find(name)
            with monitor.lock:
                done = monitor.perform(partial(self._discard, name, found, from_memory))
            self._journal.flush()  # before the next page is read
            if self.queue.backend_depth == 1:
                self._end_at_last(monitor)
            if self.queue.backend_deferred == 1:
                self._deferred.end_at_last(monitor)
        monitor.settle()
        return bool(done)

    def _end_at_last(self, monitor: Monitor) -> None:
        """Have no backlog any more if the last message of it was discarded; all is written."""
        cursor, top, since = self.cursor, self.top, self.since
        if self._pages.read(self.key, int(cursor, 16), int(top, 16), 1):
            return

        def end() -> None:
            if self.queue.backend_depth == 1 and (cursor, top) == (self.cursor, self.top):
                self._arrive([], int(top, 16), since, more=False)

        with monitor.lock:
            monitor.perform(end)

    def _require_free(self, call: str) -> None:
        self._pages.require_open()
        self._topic.monitor.require_free(call)
        self._journal.require_free(call)
        if self._reading.owned():
            raise Reentered(call)

    def _find(self, name: str) -> tuple[Record[Any], int | None] | None:
        """Read a message of this queue from the file, once what is noted is written."""
        self._journal.flush()
        number = int(name, 16)
        if name <= self.since or number > HIGHEST:
            return None
        found = self._pages.find(self.key, number)
        if not found or number in self._topic.unshown_ids():
            return None
        [one] = found
        return self._pages.record(one), None if one[2] is None else self._topic.due(one[2])

    def _lies_apart(self, name: str, due: int | None) -> bool:
        """Return whether a message in the file has not come into memory."""
        queue = self.queue
        if due is None:
            return bool(queue.backend_depth) and self.cursor < name <= self.top
        return bool(queue.backend_deferred) and (due, name) > queue.horizon

    def _discard(
        self,
        name: str,
        found: tuple[Record[Any], int | None] | None,
        from_memory: Callable[[], bool | None],
    ) -> bool | None:
        done = from_memory()
        if done is None and found is not None and self._lies_apart(name, found[1]):
            record, due = found
            self.queue.discard_stored(record, waits=due is not None)
            return True
        return done

    # What waits

    def later(
        self, due: int, records: Sequence[Record[Any]]
    ) -> MutableSequence[Record[Any]] | None:
        """See `QueuePersistence`."""
        return self._deferred.later(due, records)

    def take_over_deferred(self, other: Any) -> None:
        """See `QueuePersistence`."""
        self._deferred.take_over(other._deferred)

    def send(self, task: Callable[[], object], on_done: OnDone) -> None:
        """See `QueuePersistence`."""
        self._pages.send(task, on_done)

    def settle(self, messages: list[Message[Any]]) -> None:
        """See `QueuePersistence`."""
        topic, channel = self.key
        assert channel is not None
        try:
            self._pages.require_open()
            self._journal.require_free("get")
            records = [message._record for message in messages]
            copies = [(int(record[2] + record[3], 16), record[4] + 1) for record in records]
            self._journal.count(topic, channel, copies)
        except BaseException:
            ensure(partial(self._topic.monitor.call, _give_back, messages))
            raise


def _give_back(messages: list[Message[Any]]) -> None:
    for queue, some in groupby(messages, lambda message: message._consumer.channel._queue):
        queue.give_back((message, message._record) for message in some)
        queue.feed()
