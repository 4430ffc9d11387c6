"""A backlog: the part of a queue that lies in the file alone, read page by page.

The rule: every message of the queue with an id up to `cursor` has come into memory, and none above
it but what does not come in the order of ids; `top` is the highest there is.  So a message is read
once, and whether there is more to read is told by ids; `Queue.backend_depth` only counts.  Where it
is 0 all is in memory, and `cursor` and `top` say nothing.

What comes back while there is a backlog waits behind the next page (`Queue.back`): so nothing is
overtaken for ever, neither what lies in the file nor what comes back.

Everything here expects the topic's lock, but for `look`, `read_ahead`, `fetch`, `load`, `hold_all`,
`settle`, `send` and what only tells.

Next: store/record.py
"""

from collections import deque
from collections.abc import Callable, Sequence
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
from nsqlite.store.journal import Journal, Key, in_loop
from nsqlite.store.storage import GONE, Copy, Found, name_of

PAGE: Final = 1000
"""The most messages that are read at a time."""

STEERED: Final = (Kind.CREATED, Kind.PAUSED, Kind.UNPAUSED, Kind.EMPTIED)
"""What is noted of a topic or channel itself."""


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


class Pages(Protocol):
    """What a backlog needs of the database.

    Attributes:
        journal: where is noted what happens.
        mem_queue_size: how many ready messages of a channel are held in memory.
        counts: deliveries are counted before `get` returns.
    """

    journal: Journal
    mem_queue_size: int
    counts: bool

    def require_open(self) -> None:
        """Check that the store can be used."""
        ...

    def read(self, key: Key, after: int, upto: int, limit: int) -> list[Found]:
        """Read messages that are ready, in the order of their ids; blocks."""
        ...

    def record(self, found: Found) -> Record[Any]:
        """Return a message that was found as a record."""
        ...

    def want(self, backlog: "Backlog") -> None:
        """Have a page read soon, by the flusher; takes no lock."""
        ...

    def send(self, task: Callable[[], object], on_done: OnDone) -> None:
        """Have something done by the flusher; takes no lock."""
        ...


class Topic(Protocol):
    """What a backlog needs of its topic's record."""

    @property
    def monitor(self) -> Monitor:
        """The topic's."""
        ...

    def wall(self, due: int) -> int:
        """Return a moment of the monotonic scale as nanoseconds since the epoch."""
        ...

    def due(self, wall: int) -> int:
        """Return what `wall` has returned as a moment of the monotonic scale."""
        ...

    def heard(self, backlog: "Backlog", kind: Kind) -> None:
        """Take note of what happened to a queue."""
        ...

    def lowest(self) -> int | None:
        """Return the lowest id of what is reserved and not shown; None if nothing is."""
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
        ended: the queue is closed, and `held` is what it had.
        known: the journal, or the file, knows of it.
        queue: the queue.
        wanted: the next page is to be read.
    """

    __slots__ = (
        "_capacity",
        "_entries",
        "_journal",
        "_pages",
        "_reading",
        "_taken",
        "_topic",
        "all",
        "alone",
        "apart",
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
        self.all: bool = False
        self.alone: set[str] = set()
        self.ended: bool = False
        self.known: bool = False
        self.queue: Any = None
        self.wanted: bool = False
        self._capacity = 0
        self._taken: Sequence[Record[Any]] = ()

    def bind(self, queue: Any) -> None:
        """See `QueuePersistence`."""
        self.queue = queue
        self.fit()
        queue.backend_depth, self.held = self.held, 0
        if queue.backend_depth or self.key[1] is None:
            queue.back = deque()  # of a topic's own, what has fallen due stays apart
        self.alone = {one[2] + one[3] for one, _ in self.apart if one[2] + one[3] > self.top}
        for record, wall in self.apart:
            if wall is None:
                queue.back.append(record)
            else:
                queue.defer([record], self._topic.due(wall))
        self.apart = []

    def fit(self) -> None:
        """See `QueuePersistence`; a bounded queue has all in memory."""
        unlimited = self.all or self.queue.limit is not None
        self._capacity = NO_LIMIT if unlimited else self._pages.mem_queue_size

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
            self._note(record, (record[4], None if due is None else self._topic.wall(due)))
        elif kind is Kind.RETURNED:
            self._note(record, (record[4], None))
        elif kind is Kind.DROPPED:
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
        if self.queue.backend_depth:
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
        if records is self._taken:
            return
        if not self.takes(records):
            self._topic.skipped()
            return
        queue = self.queue
        first, last = records[0][2] + records[0][3], records[-1][2] + records[-1][3]
        cursor, top = self.cursor, max(self.top, last)
        is_full = queue.backend_depth > 0
        if not is_full and len(queue.ready) + len(records) > self._capacity:
            is_full = True
            cursor, top = max(cursor, name_of(int(first, 16) - 1)), last
        if is_full and first > cursor:
            back = deque() if queue.back is queue.ready else queue.back
            # One piece, up to the call:
            self._taken = records
            self.cursor = cursor
            self.top = top
            queue.back = back
            queue.backend_depth += len(records)
            self.look()
        else:
            cursor = max(cursor, last)
            # One piece, up to the call:
            self._taken = records
            self.cursor = cursor
            self.top = top
            queue.ready.extend(records)

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
        if queue.backend_depth and not self.wanted and self.key[1] is not None and self._is_low():
            self.wanted = True
            self._pages.want(self)

    def _is_low(self) -> bool:
        """Say whether so little is in memory that the next page is to be read."""
        return len(self.queue.ready) <= min(self._capacity, 2 * PAGE) // 2

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
        self._capacity = NO_LIMIT
        try:
            self._fetch_all()
        finally:
            self.fit()

    def _fetch_all(self) -> None:
        while self.queue.backend_depth:
            self.fetch()

    def fetch(self) -> None:
        """See `QueuePersistence`.

        Raises:
            StoreError: it cannot be read; nothing has changed.
            StoreInUse: this is the child of a fork.
            Closed: the broker is.
            Reentered: called by a signal handler or destructor inside another call.
        """
        monitor = self._topic.monitor
        self._pages.require_open()
        monitor.require_free("get")
        self._journal.require_free("get")
        if self._reading.owned():
            raise Reentered("get")
        with self._reading:
            with monitor.lock:
                plan = monitor.perform(self._plan)
            if plan is not None:
                self._read(monitor, *plan)
        monitor.settle()

    def _plan(self) -> tuple[int, int, int, str] | None:
        """Return after and up to which id is to be read, how many, and `since`; None if nothing."""
        self.wanted = False
        queue = self.queue
        room = min(PAGE, self._capacity - len(queue.ready))
        if not queue.backend_depth or room <= 0:
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
        records = [self._pages.record(one) for one in found[:limit]]
        arrive = partial(self._arrive, records, upto, since, more=len(found) > limit)
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
        queue.feed()
        self.look()

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
