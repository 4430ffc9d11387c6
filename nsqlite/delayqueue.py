"""What waits for its time and is never called off: a heap of ticks.

The rule: nothing is due before its deadline, nor later than one tick after it, and what falls into
the same tick comes out in the order in which it went in.

Time is cut into ticks as in a `TimerWheel`.  But where nearly every time-out is cancelled, nearly
every delay ends by being over; so all that is due in a tick lies in one bucket, a list, and a heap
keeps the ticks in order:

    add      one dict look-up and one append: O(1); a new tick O(log ticks)
    due?     O(1)
    expire   O(log ticks) for each tick, whatever is in it
    len      O(1)

Next: message.py
"""

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from operator import itemgetter
from typing import Final, Generic, TypeVar

from nsqlite.clock import NEVER

R = TypeVar("R")

_DUE: Final = itemgetter(0)


class DelayQueue(Generic[R]):
    """Items that wait until a moment.

    Threads: one at a time; the owner's lock protects it.

    Attributes:
        resolution: the length of a tick, in whatever integer unit the deadlines have.
        count: how many items there are; who adds to a bucket, or takes one out, counts.
        waiting: the buckets, by the moment they are due.
        ticks: a heap of these moments; one whose bucket has gone may still be there.
    """

    __slots__ = ("count", "resolution", "ticks", "waiting")

    def __init__(self, resolution: int) -> None:
        """Begin empty.

        Args:
            resolution: the length of a tick.
        """
        self.resolution: Final = resolution
        self.count: int = 0
        self.waiting: dict[int, list[R]] = {}
        self.ticks: list[int] = []

    def due(self, deadline: int) -> int:
        """Return when a deadline is due: at the end of its tick."""
        return deadline + -deadline % self.resolution

    @property
    def next_due(self) -> int:
        """Nothing is due before this; `NEVER` if there is nothing."""
        return self.ticks[0] if self.ticks else NEVER

    def bucket(self, due: int) -> list[R]:
        """Return what is due at a moment, which `due` has returned, for one who adds to it."""
        bucket = self.waiting.get(due)
        if bucket is None:
            bucket = []
            self.waiting[due] = bucket  # one piece with the next line
            heappush(self.ticks, due)
        return bucket

    def expire(self, now: int, ready: deque[R]) -> Iterator[tuple[int, list[R]]]:
        """Move all that is due at `now` behind what is ready, the earliest first.

        Yields:
            Each moment and what was due then, once it is moved.  If the caller stops early, what is
            left comes the next time.
        """
        ticks = self.ticks
        while ticks and (due := ticks[0]) <= now:
            bucket = self.waiting.get(due)
            if bucket is not None:
                left = self.count - len(bucket)
                # One piece, up to the call:
                del self.waiting[due]
                self.count = left
                ready.extend(bucket)
            heappop(ticks)
            if bucket:
                yield due, bucket

    def clear(self) -> list[R]:
        """Take out everything; return it, the earliest first."""
        items = [item for _, item in self.pairs()]
        # One piece:
        self.waiting = {}
        self.ticks = []
        self.count = 0
        return items

    def buckets(self) -> list[tuple[int, list[R]]]:
        """Return the moments at which something is due, and what, the earliest first."""
        return sorted(self.waiting.items(), key=_DUE)

    def pairs(self) -> Iterator[tuple[int, R]]:
        """Go through the items with the moments at which they are due, the earliest first."""
        return ((due, item) for due, bucket in self.buckets() for item in bucket)

    def __len__(self) -> int:
        """Count the items."""
        return self.count

    def _check(self) -> None:
        """Check what must always hold."""
        assert set(self.waiting) <= set(self.ticks)
        assert self.count == sum(map(len, self.waiting.values()))
        assert all(due % self.resolution == 0 for due in self.waiting)
