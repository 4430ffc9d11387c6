"""Fair timing on a noisy machine.

The rule: what is compared is measured in turns, A B A B, in short runs, and the ratio is taken pair
by pair; so a slow moment hurts both sides of a pair, or spoils one pair of many.

Work that never waits is measured in processor time, so what the machine does besides counts little;
work that waits for another thread or process, in real time.

The garbage collector stays on for both, as users have it.  It is made to collect before each run,
so that no run pays for what another one left.

Next: table.py
"""

import gc
import time
from collections.abc import Callable
from statistics import median
from typing import TypeAlias

import attrs

Loop: TypeAlias = Callable[[int], object]
"""Does some work so many times."""

Run: TypeAlias = Callable[[], float]
"""Does the work of one measurement; returns the seconds for each unit of it, or the bytes."""


@attrs.frozen(kw_only=True)
class Scale:
    """How much work a run of the benchmark is.

    Attributes:
        messages: rounds of a short run; 30,000 take about 50 ms.
        trips: round trips of a ping-pong between threads.
        many: what is outstanding in a large queue.
        deferred: how many messages are deferred together.
        traced: over how many messages memory is measured.
        topics: how many topics a large broker has.
        pairs: how many pairs of short runs make a ratio.
        long_pairs: how many pairs of long runs.
        timers: how many timers are outstanding in the second table.
        stored: rounds of a run with a store; 20,000 take about 500 ms.
        store_pairs: how many pairs of runs with a store.
        watched: for how many seconds an event loop is watched.
        sent: how many messages go to a server in batches; 200,000 take about 200 ms.
        consumers: how many consumers a large channel has.
        beat: seconds between the heartbeats of consumers that wait.
    """

    messages: int
    trips: int
    many: int
    deferred: int
    traced: int
    topics: int
    pairs: int
    long_pairs: int
    timers: int
    stored: int
    store_pairs: int
    watched: float
    sent: int
    consumers: int
    beat: int


FULL = Scale(
    messages=30_000,
    trips=2_000,
    many=1_000_000,
    deferred=100_000,
    traced=100_000,
    topics=4_000,
    pairs=15,
    long_pairs=5,
    timers=1_000_000,
    stored=20_000,
    store_pairs=9,
    watched=3.0,
    sent=200_000,
    consumers=10_000,
    beat=10,
)

QUICK = Scale(
    messages=1_000,
    trips=100,
    many=5_000,
    deferred=500,
    traced=2_000,
    topics=100,
    pairs=2,
    long_pairs=1,
    timers=5_000,
    stored=300,
    store_pairs=1,
    watched=0.1,
    sent=4_000,
    consumers=50,
    beat=1,
)


@attrs.frozen(kw_only=True)
class Comparison:
    """What pairs of runs came to.

    Attributes:
        ours: the median of our runs, in seconds for each unit.
        theirs: the median of the others.
        ratio: the median of the pairs' ratios.
        least: the least of them.
        best: the ratio of the fastest run of ours to the fastest of theirs.
    """

    ours: float
    theirs: float
    ratio: float
    least: float
    best: float


def compare(ours: Run, theirs: Run, pairs: int) -> Comparison:
    """Run both in turns, after one unmeasured turn each that warms the interpreter's caches."""
    ours()
    theirs()
    times = [(ours(), theirs()) for _ in range(pairs)]
    ratios = [mine / other for mine, other in times]
    return Comparison(
        ours=median(mine for mine, _ in times),
        theirs=median(other for _, other in times),
        ratio=median(ratios),
        least=min(ratios),
        best=min(mine for mine, _ in times) / min(other for _, other in times),
    )


def run_of(make: Callable[[], Loop], rounds: int, *, times: float = 1, waits: bool = False) -> Run:
    """Return a run that makes a loop, unmeasured, and measures so many rounds of it.

    Args:
        make: sets up what the loop works on.
        rounds: how often the work is done.
        times: what the seconds of a round are multiplied by.
        waits: whether the work waits.
    """

    def run() -> float:
        loop = make()
        return seconds(lambda: loop(rounds), waits=waits) / rounds * times

    return run


def seconds(work: Callable[[], object], *, waits: bool = False) -> float:
    """Do the work once, on a clean heap, and return how long it took."""
    clock = time.perf_counter if waits else time.process_time
    gc.collect()
    begin = clock()
    work()
    return clock() - begin
