"""What waits in a queue and is not due soon: the part of it that lies in the file alone.

The rule: in the order of due and id, all up to `Queue.horizon` is in memory, and nothing behind it.

Where too much waits in memory, the later half is left to the file; where little does, the next page
is read.  The order of ids says nothing of it, so what comes to wait behind the horizon while a page
is read is remembered until that is there.

What falls due in the file is read as room for it is made: each message that is read takes a credit,
and each delivery gives one.

In memory only the tick is known in which a message is due, not the moment itself, by which the
file has it.  So the horizon is never drawn through a tick; where ticks of another resolution are in
memory, all is left to the file before it is drawn.

Everything here expects the topic's lock, but for `fetch`.

Next: store/backlog.py
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, MutableSequence, Sequence
from functools import partial
from itertools import accumulate, chain
from typing import Any, Final, Protocol

import attrs

from nsqlite.clock import NEVER
from nsqlite.message import Record
from nsqlite.monitor import Monitor
from nsqlite.queue import EVERYTHING, Horizon
from nsqlite.store.journal import Journal, Key
from nsqlite.store.storage import HIGHEST, Found, cut, name_of

PAGE: Final = 1000
"""The most messages that are read at a time."""

NOWHERE: Final[MutableSequence[Any]] = deque(maxlen=0)
"""Where a message goes that is left to the file."""

ALL: Final = name_of(HIGHEST)
"""The id of a horizon at which all that are due then are in memory."""


@attrs.frozen
class _Page:
    """What is to be read of what waits.

    Attributes:
        horizon: behind which it is.
        known: the ids of those that are in memory, as far as these may be found again.
        limit: how many.
        since, upto: between which ids, but for those that are meant for this queue alone.
        unshown: the ids of those that are not the queue's yet, as numbers.
    """

    horizon: Horizon
    known: set[str]
    limit: int
    since: str
    upto: str
    unshown: set[int]


class Pages(Protocol):
    """What this needs of the database.

    Attributes:
        journal: where is noted what happens.
    """

    journal: Journal

    def read_deferred(
        self, key: Key, between: tuple[int, int], behind: tuple[int, int], limit: int
    ) -> list[Found]:
        """Read messages that wait, in the order of due and id; blocks."""
        ...

    def record(self, found: Found) -> Record[Any]:
        """Return a message that was found as a record."""
        ...


class Topic(Protocol):
    """What this needs of the topic's record.

    Attributes:
        typical: how many bytes a codec has made of a body lately.
    """

    typical: int

    def now(self) -> int:
        """Return the time, on the monotonic scale."""
        ...

    def wall(self, due: int) -> int:
        """Return a moment of the monotonic scale as nanoseconds since the epoch."""
        ...

    def due(self, wall: int) -> int:
        """Return what `wall` has returned as a moment of the monotonic scale."""
        ...


class Deferred:
    """What a store has of a queue that waits.

    Attributes:
        queue: the queue.
    """

    __slots__ = (
        "_arriving",
        "_bounds",
        "_budget",
        "_bytes",
        "_coarse",
        "_credit",
        "_few",
        "_key",
        "_look",
        "_mixed",
        "_most",
        "_pages",
        "_resolution",
        "_topic",
        "_tried",
        "queue",
    )

    def __init__(
        self,
        key: Key,
        topic: Topic,
        pages: Pages,
        bounds: Callable[[], tuple[str, str, set[int]]],
        look: Callable[[], None],
    ) -> None:
        """Begin with nothing.

        Args:
            key: the numbers of topic and channel.
            topic: the topic's record.
            pages: the database.
            bounds: returns the ids above which, and up to which, messages are the queue's, and of
                those between that are not yet.
            look: has the next page read if little is left in memory.
        """
        self._key: Final = key
        self._topic: Final = topic
        self._pages: Final = pages
        self._bounds: Final = bounds
        self._look: Final = look
        self.queue: Any = None
        self._most = 0  # so many wait in memory
        self._bytes = 0  # of so many bytes, about
        self._budget = 0  # so many bytes more may do so, at least
        self._few = 0  # with so few the next page is read
        self._credit = 0  # so many more may be read before something is delivered
        self._tried = 0  # so many wait in memory that all are of this tick
        self._resolution = 0  # the length of a tick
        self._coarse = 0  # so long before its tick ends something in memory may be due
        # While a page is read: what has come to wait meanwhile, by when it is due.
        self._arriving: dict[int, list[Record[Any]]] | None = None
        self._mixed: int = 0  # what waits up to then in the file may be in memory as well

    def fit(self, most: int, size: int) -> None:
        """Hold so many messages of so many bytes in memory."""
        self._most = most
        self._bytes = size
        self._few = most // 4
        self._credit = 2 * most
        resolution = self.queue.deferred.resolution
        if resolution != self._resolution:
            self._coarse = resolution + (self._coarse if self.queue.deferred else 0)
            self._resolution = resolution
            if self.queue.backend_deferred:
                self._leave_all()
                self._look()

    def forget(self) -> None:
        """Begin anew, as the queue was emptied."""
        self._credit = 2 * self._most
        self._coarse = self._resolution

    def credit(self, count: int) -> None:
        """Take note that messages were delivered, so that there is room for others."""
        self._credit = min(self._credit + count, 2 * self._most)

    def bind(self, waiting: Sequence[tuple[Record[Any], int]], count: int) -> None:
        """Begin with what was read first, and so many more behind it."""
        queue = self.queue
        for record, wall in waiting:
            queue.wait([record], queue.deferred.due(self._topic.due(wall)))
        if count:
            last, wall = waiting[-1]
            queue.backend_deferred = count
            queue.horizon = self._topic.due(wall), last[2] + last[3]

    def has_few(self) -> bool:
        """Say whether so little waits in memory that the next page is to be read."""
        queue = self.queue
        if len(queue.deferred) > self._few:
            return False
        return self._credit > 0 or not (queue.ready or queue.back)

    def later(
        self, due: int, records: Sequence[Record[Any]]
    ) -> MutableSequence[Record[Any]] | None:
        """See `QueuePersistence`."""
        queue = self.queue
        self._make_room(records)
        if (due, records[0][2] + records[0][3]) <= queue.horizon:
            return None
        if self._arriving is None:
            return NOWHERE
        return self._arriving.setdefault(due, [])

    def _make_room(self, records: Sequence[Record[Any]]) -> None:
        """Leave what waits in memory to the file if there is too much beside other messages."""
        queue = self.queue
        count = len(queue.deferred)
        if self._tried // 2 <= count < self._tried:
            return
        size = self._weigh(records)
        if size > self._budget:
            waiting = chain.from_iterable(queue.deferred.waiting.values())
            self._budget = left_of(self._bytes, self._weigh(waiting))
        if count and (size > self._budget or count >= self._most):
            self._leave_later()
            left = len(queue.deferred)
            self._tried = 2 * count if left == count else 0  # so that it costs each a little
            self._few = min(self._most // 4, left // 2)
            self._budget = 0
        else:
            self._budget -= size

    def _leave_all(self) -> None:
        """Leave all that waits in memory to the file: its ticks do not say when it is due."""
        queue = self.queue
        first = min(queue.deferred.waiting, default=queue.horizon[0] + self._coarse)
        until = min(first - self._coarse, queue.horizon[0] - 1)
        until -= until % self._resolution
        self._mixed = max(self._mixed, self._topic.now())
        left = queue.backend_deferred + len(queue.deferred)
        queue.shift({}, left, (until, ALL))
        self._coarse = self._resolution

    def _leave_later(self) -> None:
        """Leave the later half of what waits in memory to the file, but for what is due by now."""
        if self._coarse != self._resolution:
            self._leave_all()
            return
        queue = self.queue
        buckets = queue.deferred.buckets()
        counts = list(accumulate(len(records) for _, records in buckets))
        kept = bisect_right(counts, min(self._most, len(queue.deferred)) // 2)
        until = buckets[kept - 1][0] if kept else buckets[0][0] - queue.deferred.resolution
        until = max(until, queue.deferred.due(self._topic.now()))
        waiting, left = self._cut(until)
        if left:
            queue.shift(waiting, queue.backend_deferred + left, (until, ALL))

    def _cut(self, until: int) -> tuple[dict[int, list[Record[Any]]], int]:
        """Return what waits in memory up to the end of a tick, and how many do so for longer."""
        deferred = self.queue.deferred
        waiting = {due: records for due, records in deferred.waiting.items() if due <= until}
        return waiting, len(deferred) - sum(map(len, waiting.values()))

    def take_over(self, other: "Deferred") -> None:
        """Take what waits in the file of another queue; see `QueuePersistence`.

        What waits in its memory, and will be handed on next, is left to the file if its ticks are
        others.
        """
        queue, theirs = self.queue, other.queue.horizon
        until = NEVER
        if other._coarse != self._resolution and other.queue.deferred:
            until = min(other.queue.deferred.waiting) - other._coarse
        is_all = theirs is queue.horizon is EVERYTHING and until == NEVER
        if not is_all and (theirs is EVERYTHING or queue.taken_over is not theirs):
            self._take_over(other, until)
        self._look()

    def _take_over(self, other: "Deferred", until: int) -> None:
        queue, theirs = self.queue, other.queue.horizon
        if self._coarse != self._resolution:
            self._leave_all()
        horizon = min(queue.horizon, theirs)
        until = min(until, horizon[0] if horizon[1] == ALL else horizon[0] - 1)
        until -= until % self._resolution
        # What has fallen due meanwhile was in memory, and perhaps is in flight.
        both = (due for due, _ in (queue.horizon, theirs) if due != NEVER)
        self._mixed = max(self._mixed, self._topic.now(), *both)
        waiting, left = self._cut(until)
        left += queue.backend_deferred + other.queue.backend_deferred
        queue.shift(waiting, left, (until, ALL), theirs)

    def fetch(self, monitor: Monitor) -> None:
        """Bring what comes next into memory, if little waits there; blocks, and takes the lock.

        Raises:
            StoreError: it cannot be read, or what happened could not be written; nothing is lost.
        """
        with monitor.lock:
            page = monitor.perform(self._plan)
        if page is not None:
            self._read(monitor, page)

    def end_at_last(self, monitor: Monitor) -> None:
        """Have nothing wait in the file any more if the last that did was discarded; blocks.

        All is written, and no page is read meanwhile.
        """
        queue = self.queue
        horizon = queue.horizon
        page = _Page(horizon, set(), 1, *self._bounds())
        if self._find(page)[0]:
            return

        def end() -> None:
            if queue.backend_deferred == 1 and queue.horizon is horizon:
                self._take([], EVERYTHING)
                queue.shrunk()

        with monitor.lock:
            monitor.perform(end)

    def _weigh(self, records: Iterable[Record[Any]]) -> int:
        return weigh(records, self._topic.typical)

    def _plan(self) -> "_Page | None":
        """Return what is to be read of what waits; None if nothing is."""
        queue = self.queue
        queue.sweep()
        if not (queue.backend_deferred and self.has_few()):
            return None
        known = set(queue.ids()) if queue.horizon[0] <= self._mixed else set()
        limit = max(1, min(PAGE, self._most // 2 - len(queue.deferred)))
        self._arriving = {}
        return _Page(queue.horizon, known, limit, *self._bounds())

    def _read(self, monitor: Monitor, page: "_Page") -> None:
        """Read a page of what waits and take it into memory; what is noted is written first."""
        try:
            self._pages.journal.flush()
            arrived, more = self._find(page)
            with monitor.lock:
                monitor.perform(partial(self._arrive, page, arrived, more=more))
        finally:
            self._arriving = None

    def _find(self, page: "_Page") -> tuple[list[tuple[Record[Any], int]], bool]:
        """Return a page with when each is due, and whether there is more behind it."""
        due, name = page.horizon
        behind = self._topic.wall(due), int(name, 16)
        between = int(page.since, 16), int(page.upto, 16)
        most = page.limit + 1 + len(page.unshown)
        found = self._pages.read_deferred(self._key, between, behind, most)
        is_cut = cut(found, most)[1]
        found, more = cut([one for one in found if one[0] not in page.unshown], page.limit)
        arrived = [(self._pages.record(one), self._topic.due(one[2] or 0)) for one in found]
        return arrived, more or is_cut

    def _arrive(self, page: "_Page", arrived: list[tuple[Record[Any], int]], *, more: bool) -> None:
        """Take such a page into memory, unless the horizon has changed meanwhile."""
        queue = self.queue
        if queue.horizon is page.horizon:
            horizon = page.horizon if more else EVERYTHING
            if more and arrived:
                last, due = arrived[-1]
                horizon = due, last[2] + last[3]
            self._credit -= len(arrived)
            self._tried = 0
            is_cut = more and len(arrived) < page.limit
            self._few = min(self._most // 4, len(arrived) // 2 if is_cut else self._most)
            fresh = self._arrived_meanwhile()
            known = page.known.union(one[2] + one[3] for one, _ in fresh)
            arrived = [(one, due) for one, due in arrived if one[2] + one[3] not in known]
            arrived += [(one, due) for one, due in fresh if (due, one[2] + one[3]) <= horizon]
            self._take(arrived, horizon)
            if not arrived:
                queue.shrunk()
            queue.sweep()
        self._look()

    def _arrived_meanwhile(self) -> list[tuple[Record[Any], int]]:
        """Return what has come to wait behind the horizon while a page was read."""
        arriving, self._arriving = self._arriving or {}, None
        return [(one, due) for due, records in arriving.items() for one in records]

    def _take(self, arrived: list[tuple[Record[Any], int]], horizon: Horizon) -> None:
        """Have messages wait in memory, and those behind a new horizon in the file alone."""
        queue = self.queue
        waiting = queue.deferred.waiting.copy()
        of_tick: dict[int, list[Record[Any]]] = {}
        for record, due in arrived:
            of_tick.setdefault(queue.deferred.due(due), []).append(record)
        for tick, records in of_tick.items():
            waiting[tick] = [*waiting.get(tick, ()), *records]
        left = 0 if horizon is EVERYTHING else max(1, queue.backend_deferred - len(arrived))
        self._budget = 0  # it is to be summed up anew
        queue.shift(waiting, left, horizon)


def weigh(records: Iterable[Record[Any]], typical: int) -> int:
    """Return how many bytes messages have, about; `typical` is what other bodies have."""
    return sum([len(one[0]) if one[0].__class__ is bytes else typical for one in records])


def left_of(limit: int, size: int) -> int:
    """Return what is left of a limit; 0 if it is only a little, so that this is asked seldom."""
    left = limit - size
    return left if left >= limit // 8 else 0
