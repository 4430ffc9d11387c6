"""Many deadlines in random order, and then all of them due; and a million that are due together.

The rule: what is measured is that of a user: `Topic.put` with a delay, the clock moved, and the
call that finds all of it ready.  Getting it is not measured; that all of it is there is checked.

The clock goes in ticks of 10 ms, as the system's does.  It is moved in one jump, since a heap too
is emptied in one go; moved tick by tick, each tick costs a visit, and as an hour has 360,000 of
them, that is measured apart.  On a `ManualClock` each message comes at its own moment.

Next: topics.py
"""

import random
from collections.abc import Callable
from heapq import heappop, heappush

from handclock import SECOND, HandClock
from loops import BODY
from timing import Run, seconds

from nsqlite import Channel, Clock, Consumer, Topic
from nsqlite.testing import ManualClock


def deadlines(count: int, span: int) -> list[int]:
    """Return random deadlines within so many seconds, in nanoseconds; always the same ones."""
    chance = random.Random(count)
    return [chance.randrange(span * SECOND) for _ in range(count)]


def through_heap(count: int, span: int) -> Run:
    """Push everything on a heap with its deadline and a tie-break, then pop it."""
    dues = deadlines(count, span)

    def run() -> float:
        def work() -> None:
            heap: list[tuple[int, int, bytes]] = []
            for number, due in enumerate(dues):
                heappush(heap, (due, number, BODY))
            while heap:
                heappop(heap)

        return seconds(work) / count

    return run


def through_topic(
    count: int, span: int, clock: Clock, go: Callable[[Channel[bytes]], None]
) -> float:
    """Put everything with its delay, let its time come, and return the seconds for each."""
    delays = [due / SECOND for due in deadlines(count, span)]
    topic: Topic[bytes] = Topic("bench", clock=clock)
    channel = topic.channel("a")
    consumer = Consumer(channel)

    def work() -> None:
        for delay in delays:
            topic.put(BODY, delay=delay)
        go(channel)
        assert channel.depth == count

    elapsed = seconds(work)
    assert len(consumer.get_many(count)) == count
    return elapsed / count


def at_once(count: int, span: int) -> Run:
    """Move the clock once, to where all is due."""

    def run() -> float:
        clock = HandClock()

        def go(_: Channel[bytes]) -> None:
            clock.now[0] += (span + 1) * SECOND

        return through_topic(count, span, clock, go)

    return run


def tick_by_tick(count: int, span: int) -> Run:
    """Move the clock by 10 ms at a time, and look each time what is there."""

    def run() -> float:
        clock = HandClock()

        def go(channel: Channel[bytes]) -> None:
            tick = clock.resolution
            for _ in range((span + 1) * SECOND // tick):
                clock.now[0] += tick
                channel.depth  # noqa: B018 - whoever looks has what is due happen

        return through_topic(count, span, clock, go)

    return run


def as_it_comes(count: int, span: int) -> Run:
    """Let a `ManualClock` stop at each deadline."""

    def run() -> float:
        clock = ManualClock()
        return through_topic(count, span, clock, lambda _: clock.advance(span + 1))

    return run


def together(count: int, *, in_flight: bool) -> Run:
    """Have so many be due together, in flight or deferred; only the call that finds it is measured.

    The call holds the lock for nearly as long as it takes.
    """

    def run() -> float:
        clock = HandClock()
        topic: Topic[bytes] = Topic("bench", clock=clock)
        channel = topic.channel("a")
        topic.put_many([BODY] * count, delay=None if in_flight else 60)
        held = Consumer(channel).get_many(count) if in_flight else []
        assert channel.in_flight_count == len(held)
        assert channel.depth == 0
        clock.now[0] += 61 * SECOND

        def work() -> None:
            assert channel.depth == count

        return seconds(work) / count

    return run
