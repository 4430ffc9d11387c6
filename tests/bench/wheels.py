"""The second table: the timer wheel against two plainer ways to keep deadlines.

The rule: all contenders do the same work through the same three methods.

The work is that of a queue's time-outs.  All timers run equally long, so each new deadline is the
latest; very many are outstanding; nearly every one is cancelled before it is due, in no particular
order.  It has three phases:

    add      until all are outstanding
    churn    cancel one of those outstanding, chosen at random, and add a new one: two for each that
             is outstanding
    expire   go on in steps of 10 ms, taking out what is due, until nothing is left

and then memory is measured with a tenth of the timers at the same pace: for each outstanding one
after the first phase (`fresh`), and at the worst moment of the second.

Next: versions.py
"""

import gc
import random
import tracemalloc
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, Final, Protocol, TypeAlias

import attrs
from sortedcontainers import SortedList
from table import show
from timing import Scale, seconds

from nsqlite import TimerWheel

MILLISECOND = 1_000_000
TIMEOUT = 60_000 * MILLISECOND


class Item:
    """What has a deadline: an object that the garbage collector walks, as it does a message."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class Timers(Protocol):
    """What every contender can do."""

    def add(self, item: Item, deadline: int, /) -> Any:
        """Add an item; return what `cancel` needs besides it."""
        ...

    def cancel(self, item: Item, handle: Any, /) -> None:
        """Take an item out before it is due."""
        ...

    def expire(self, now: int, /) -> list[Item]:
        """Take out all that is due."""
        ...


Entry: TypeAlias = list[Any]
"""Deadline, sequence number, item; the item is None when it was cancelled."""


class LazyHeap:
    """A heap in which what is cancelled stays until it comes up, or until half of all is such.

    The event loop of asyncio keeps its timers so.
    """

    def __init__(self) -> None:
        self._heap: list[Entry] = []
        self._cancelled = 0
        self._numbers = count()

    def add(self, item: Item, deadline: int) -> Entry:
        entry = [deadline, next(self._numbers), item]
        heappush(self._heap, entry)
        return entry

    def cancel(self, _: Item, entry: Entry) -> None:
        entry[2] = None
        self._cancelled += 1
        if self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2] is not None]
            heapify(self._heap)
            self._cancelled = 0

    def expire(self, now: int) -> list[Item]:
        heap = self._heap
        items: list[Item] = []
        while heap and heap[0][0] <= now:
            item = heappop(heap)[2]
            if item is None:
                self._cancelled -= 1
            else:
                items.append(item)
        return items


class PlainList:
    """A `SortedList` of all timers."""

    def __init__(self) -> None:
        self._timers: SortedList[Any] = SortedList()
        self._numbers = count()

    def add(self, item: Item, deadline: int) -> tuple[int, int, Item]:
        timer = (deadline, next(self._numbers), item)
        self._timers.add(timer)
        return timer

    def cancel(self, _: Item, timer: tuple[int, int, Item]) -> None:
        self._timers.remove(timer)

    def expire(self, now: int) -> list[Item]:
        timers = self._timers
        end = timers.bisect_left((now + 1,))
        items = [item for _, _, item in timers[:end]]
        del timers[:end]
        return items


def _wheel() -> Timers:
    wheel: TimerWheel[Item] = TimerWheel(10 * MILLISECOND)
    return wheel


CONTENDERS: Final[dict[str, Callable[[], Timers]]] = {
    "TimerWheel": _wheel,
    "heapq, lazy deletion": LazyHeap,
    "SortedList": PlainList,
}


class Play:
    """The work, for one contender: a timer every `pace` nanoseconds."""

    def __init__(self, timers: Timers, timer_count: int, pace: int) -> None:
        self._timers = timers
        self._items = [Item(number) for number in range(timer_count)]
        self._handles: list[Any] = [None] * timer_count
        chance = random.Random(timer_count)
        self._places = [chance.randrange(timer_count) for _ in range(2 * timer_count)]
        self._pace = pace
        self._now = 0

    def add(self) -> None:
        add, handles, now, pace = self._timers.add, self._handles, self._now, self._pace
        for place, item in enumerate(self._items):
            now += pace
            handles[place] = add(item, now + TIMEOUT)
        self._now = now

    def churn(self) -> None:
        add, cancel, items = self._timers.add, self._timers.cancel, self._items
        handles, now, pace = self._handles, self._now, self._pace
        for place in self._places:
            item = items[place]
            now += pace
            cancel(item, handles[place])
            handles[place] = add(item, now + TIMEOUT)
        self._now = now

    def expire(self) -> None:
        end = self._now + TIMEOUT + 10 * MILLISECOND
        expire = self._timers.expire
        left = len(self._items)
        for now in range(self._now, end + 1, 10 * MILLISECOND):
            left -= len(expire(now))
        assert left == 0


@attrs.frozen(kw_only=True)
class Figures:
    """What one contender came to: seconds and bytes for each timer."""

    add: float
    churn: float
    expire: float
    fresh: float
    worst: float


def measure(make: Callable[[], Timers], timer_count: int) -> Figures:
    """Play with a contender; each phase is so long that one turn is enough."""
    pace = TIMEOUT // (4 * timer_count)  # so nothing is due before the last phase
    play = Play(make(), timer_count, pace)
    add, churn, expire = seconds(play.add), seconds(play.churn), seconds(play.expire)
    fresh, worst = traced(Play(make(), timer_count // 10, pace))
    return Figures(
        add=add / timer_count,
        churn=churn / (2 * timer_count),
        expire=expire / timer_count,
        fresh=fresh / (timer_count // 10),
        worst=worst / (timer_count // 10),
    )


def traced(play: Play) -> tuple[int, int]:
    """Play; return the bytes that all timers take after the first phase, and at worst."""
    gc.collect()  # empties the free lists too: what comes from them is not counted
    tracemalloc.start()
    try:
        play.add()
        fresh, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        play.churn()
        _, worst = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return fresh, worst


_FORMAT = "{:<9} {:<22} {:>10} {:>14} {:>7} {:>10} {:>12} {:>12}"


def lines(scale: Scale) -> Iterator[str]:
    """Return the lines of the second table."""
    yield f"Timers: equal time-outs, {scale.timers:,} outstanding, nearly all of them cancelled"
    yield _FORMAT.format(
        "row", "kept in", "add", "cancel + add", "ratio", "expire", "fresh", "at worst"
    )
    ours = None
    for name, make in CONTENDERS.items():
        figures = measure(make, scale.timers)
        ours = ours or figures
        yield _FORMAT.format(
            "wheel",
            name,
            show(figures.add, "us"),
            show(figures.churn, "us"),
            f"{figures.churn / ours.churn:.2f}",
            show(figures.expire, "us"),
            show(figures.fresh, "B"),
            show(figures.worst, "B"),
        )
