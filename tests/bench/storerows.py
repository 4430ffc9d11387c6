"""The rows about the store: what is compared with what, and what it must come to.

The rule: as for the other rows; but all of it is measured in real time, as a disk is waited for.

Next: serverrows.py
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

import backlogs
import stalls
import stores
from table import Bound, Line, ratio_line
from timing import Run, Scale, compare, seconds

from nsqlite.store.terms import Sync

BOUNDS: Final = {
    "store": Bound(0.5, 0.38),
    "durable": Bound(0.8, 0.65),
    "waiting": Bound(1.2, 1.05),
    "storemany": Bound(1.5, 1.0),
    "interval": Bound(2, 1.3),
    "commits": Bound(1 / 2, 1 / 3),
    "shared": Bound(1.2, 1.05),
    "opening": Bound(2, 2),
    "memory": Bound(200 << 20, 200 << 20),
    "later": Bound(2, 1),
    "later memory": Bound(100 << 20, 50 << 20),
    "stall": Bound(0.005, 0.005),
}

HUGE: Final = 10_000_000

_RAW = "sqlite3, 3 commits"
_RAW_MANY = "sqlite3, batches"
_ONE = "put, get, fin, 100 in flight"


def _row_store(scale: Scale) -> Run:
    """Return the measurement that other rows are compared with."""
    return stores.run_in_file(stores.one_by_one(), scale.stored)


def store(scale: Scale) -> Iterator[Line]:
    """One message at a time, kept."""
    raw = stores.run_in_file(stores.raw_one_by_one, scale.stored)
    result = compare(_row_store(scale), raw, scale.store_pairs)
    yield ratio_line("store", f"{_ONE}, kept", _RAW, result, bound=BOUNDS["store"])


def durable(scale: Scale) -> Iterator[Line]:
    """One message at a time, and each delivery counted before `get` returns."""
    ours = stores.run_in_file(stores.one_by_one(attempts="durable"), scale.stored)
    raw = stores.run_in_file(stores.raw_one_by_one, scale.stored)
    result = compare(ours, raw, scale.store_pairs)
    work = f'{_ONE}, attempts="durable"'
    yield ratio_line("durable", work, _RAW, result, bound=BOUNDS["durable"])


def waiting(scale: Scale) -> Iterator[Line]:
    """A large backlog in the file behind the first row; the file is made once."""
    for count in (scale.many // 100, scale.many):
        with _in_one_file(stores.one_by_one(waiting=count), scale.stored) as ours:
            result = compare(ours, _row_store(scale), scale.store_pairs)
        work = f"row store, {count:,} waiting"
        yield ratio_line("waiting", work, "row store", result, bound=BOUNDS["waiting"])


@contextmanager
def _in_one_file(opened: stores.Opened, rounds: int) -> Iterator[Run]:
    """Have the same file in all runs."""
    with TemporaryDirectory() as directory, opened(f"{directory}/bench.db") as loop:
        yield lambda: seconds(lambda: loop(rounds), waits=True) / rounds


def many_at_a_time(scale: Scale) -> Iterator[Line]:
    """A hundred messages at a time, kept."""
    count = scale.stored * 5
    ours = stores.run_in_file(stores.in_batches(), count)
    raw = stores.run_in_file(stores.raw_in_batches, count)
    result = compare(ours, raw, scale.store_pairs)
    work = "put_many, get_many, fin_many, 100 each"
    yield ratio_line("storemany", work, _RAW_MANY, result, bound=BOUNDS["storemany"])


def interval(scale: Scale) -> Iterator[Line]:
    """One message at a time, kept a little later."""
    count = scale.stored * 5
    ours = stores.run_in_file(stores.one_by_one(sync="interval"), count)
    raw = stores.run_in_file(stores.raw_in_batches, count)
    result = compare(ours, raw, scale.store_pairs)
    work = f'{_ONE}, sync="interval"'
    yield ratio_line("interval", work, _RAW_MANY, result, bound=BOUNDS["interval"])


def commits(scale: Scale) -> Iterator[Line]:
    """Threads whose messages share a commit; and what a commit is made of."""
    count = scale.stored // 10
    ours = stores.run_in_file(stores.putting(8), count)
    theirs = stores.run_in_file(stores.putting(1), count)
    result = compare(ours, theirs, scale.store_pairs)
    work = 'put in 8 threads, sync="full", time for each'
    yield ratio_line("commits", work, "in 1 thread", result, bound=BOUNDS["commits"])
    written: list[int] = []
    with _in_one_file(stores.putting(8, written), count) as counted:
        counted()
    batch = count / written[-1]
    yield Line(
        name="commits",
        work="puts for each commit, 8 threads",
        ours=batch,
        unit="",
        judged=batch,
        absolute=True,
    )
    disk = stores.fsync_time(count // 4)
    result = compare(theirs, disk, 3)
    yield ratio_line("commits", 'put in 1 thread, sync="full"', "os.fsync of 2 KiB", result)


def shared(scale: Scale) -> Iterator[Line]:
    """The file while four channels have the same letters, and while one has."""
    count = scale.stored // 10
    ours, theirs = stores.file_size(4, count), stores.file_size(1, count)
    yield Line(
        name="shared",
        work=f"the file, {count:,} of 10 KiB in 4 channels",
        against="in 1 channel",
        ours=ours,
        theirs=theirs,
        unit="MiB",
        judged=ours / theirs,
        bound=BOUNDS["shared"],
    )


def opening(scale: Scale) -> Iterator[Line]:
    """A file in which many wait: until the first is there, and until the last has gone."""
    return _opening("opening", max(200_000, scale.many))


def huge(_: Scale) -> Iterator[Line]:
    """The same with ten million: minutes, and 2 GB on the disk."""
    return _opening("huge", HUGE)


def _opening(name: str, count: int) -> Iterator[Line]:
    result = backlogs.drained(count)
    work = f"open, first get, {count:,} waiting, not cached"
    yield _took(name, work, result.first, BOUNDS["opening"])
    work = "the memory of the process that drained it"
    against = "after the first get", result.opened
    yield _needed(name, work, against, result.peak, BOUNDS["memory"])
    yield Line(
        name=name,
        work=f"get, fin; {1 / result.each:,.0f} in a second, {result.size >> 20:,} MiB",
        ours=result.each,
        judged=result.each,
        absolute=True,
    )


def later(scale: Scale) -> Iterator[Line]:
    """A file in which many messages wait for hours, left behind by a process that was killed."""
    count = max(200_000, scale.many)
    result = backlogs.opened_with_deferred(count)
    work = f"open, {count:,} deferred, not cached"
    yield _took("later", work, result.seconds, BOUNDS["later"])
    work = "the memory of the process that opened it"
    against = "before", result.empty
    yield _needed("later", work, against, result.peak, BOUNDS["later memory"])


def _took(name: str, work: str, ours: float, bound: Bound) -> Line:
    """Return how many seconds something took."""
    return Line(name=name, work=work, ours=ours, unit="s", judged=ours, bound=bound, absolute=True)


def _needed(name: str, work: str, against: tuple[str, int], ours: int, bound: Bound) -> Line:
    """Return how much memory something needed, and what there was before."""
    return Line(
        name=name,
        work=work,
        against=against[0],
        ours=ours,
        theirs=against[1],
        unit="MiB",
        judged=ours,
        bound=bound,
        absolute=True,
    )


def stall(scale: Scale) -> Iterator[Line]:
    """How long an event loop stands still: the median of some runs, and the worst of all."""
    kinds: tuple[Sync, ...] = ("normal", "full", "interval")
    for sync in kinds:
        watch = stalls.with_store(sync)
        seen = [
            (watch(scale.watched), stalls.without_store(scale.watched))
            for _ in range(scale.long_pairs)
        ]
        ours, theirs = [mine for mine, _ in seen], [other for _, other in seen]
        usual = median(mine.own for mine in ours)
        yield Line(
            name="stall",
            work=f'a loop stands still, put, get, fin, sync="{sync}"',
            against="no store",
            ours=usual,
            theirs=median(other.own for other in theirs),
            unit="ms",
            judged=usual,
            bound=BOUNDS["stall"],
            absolute=True,
        )
        worst = max(mine.whole for mine in ours)
        rate = median(mine.finished for mine in ours)
        yield Line(
            name="stall",
            work=f"the worst, and all counted; {rate:,.0f} in a second",
            against="no store",
            ours=worst,
            theirs=max(other.whole for other in theirs),
            unit="ms",
            judged=worst,
            absolute=True,
        )


ROWS: Final[dict[str, Callable[[Scale], Iterator[Line]]]] = {
    "store": store,
    "durable": durable,
    "waiting": waiting,
    "storemany": many_at_a_time,
    "interval": interval,
    "commits": commits,
    "shared": shared,
    "opening": opening,
    "later": later,
    "stall": stall,
}

ON_DEMAND: Final[dict[str, Callable[[Scale], Iterator[Line]]]] = {"huge": huge}
"""What is only measured if it is named."""
