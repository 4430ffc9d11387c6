"""Many deadlines in random order, and then all of them due.

The rule: every contender gets the same items with the same deadlines in the same order, and has to
give all of them out again, the earliest first.

Next: memory.py
"""

import random
from heapq import heappop, heappush

from loops import BODY
from timing import Run, seconds

from nsqlite import TimerWheel, Topic
from nsqlite.testing import ManualClock

SECOND = 1_000_000_000
RESOLUTION = 0.01


class Item:
    """What is deferred: an object that the garbage collector walks, as it does a message."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


def deadlines(count: int, span: int) -> list[int]:
    """Return random deadlines within so many seconds, in nanoseconds; always the same ones."""
    chance = random.Random(count)
    return [chance.randrange(span * SECOND) for _ in range(count)]


def through_wheel(count: int, span: int) -> Run:
    """Add everything to a `TimerWheel`, then expire it."""
    items = [Item(number) for number in range(count)]
    dues = deadlines(count, span)

    def run() -> float:
        def work() -> None:
            wheel: TimerWheel[Item] = TimerWheel(round(RESOLUTION * SECOND))
            add = wheel.add
            for due, item in zip(dues, items, strict=True):
                add(item, due)
            assert len(wheel.expire((span + 1) * SECOND)) == count

        return seconds(work) / count

    return run


def through_heap(count: int, span: int) -> Run:
    """Push everything on a heap with its deadline and a tie-break, then pop it."""
    items = [Item(number) for number in range(count)]
    dues = deadlines(count, span)

    def run() -> float:
        def work() -> None:
            heap: list[tuple[int, int, Item]] = []
            for due, item in zip(dues, items, strict=True):
                heappush(heap, (due, item.number, item))
            out: list[Item] = []
            give = out.append
            while heap:
                give(heappop(heap)[2])

        return seconds(work) / count

    return run


def through_topic(count: int, span: int) -> Run:
    """Put everything with its delay, then move the clock until it is ready."""
    delays = [due / SECOND for due in deadlines(count, span)]

    def run() -> float:
        clock = ManualClock()
        topic: Topic[bytes] = Topic("bench", clock=clock, resolution=RESOLUTION)
        channel = topic.channel("channel")

        def work() -> None:
            put = topic.put
            for delay in delays:
                put(BODY, delay=delay)
            clock.advance(span + 1)

        elapsed = seconds(work)
        assert channel.depth == count
        return elapsed / count

    return run
