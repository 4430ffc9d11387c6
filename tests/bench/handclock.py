"""A clock that goes in ticks of 10 ms, as the system's does, and is moved by hand.

The rule: reading it is one call of a C function, as for the system's clock, so whoever is measured
on it pays for no Python code of the benchmark.

`ManualClock` would not do: it is exact to the nanosecond, stops at every deadline and has what is
due happen.  Here time goes by as it does for real, and is found to have gone by whoever comes next.

Next: loops.py
"""

import time
from collections.abc import Callable
from functools import partial
from threading import Semaphore
from typing import Any

MILLISECOND = 1_000_000
SECOND = 1000 * MILLISECOND


class HandClock:
    """A `Clock` that stands until it is moved; whoever waits on it waits for its semaphore alone.

    Attributes:
        now: its reading, in a list of one: `now[0] += step` moves it.
        asleep: released when somebody begins to wait.
    """

    resolution = 10 * MILLISECOND

    def __init__(self) -> None:
        self.now = [time.monotonic_ns()]
        self.asleep = Semaphore(0)
        self.monotonic_ns: Callable[[], int] = partial(self.now.__getitem__, 0)
        self.time_ns = time.time_ns

    def wait(self, semaphore: Any, *_args: Any, **_kwargs: Any) -> bool:
        """Wait for the semaphore, and say that somebody does."""
        self.asleep.release()
        return bool(semaphore.acquire())

    def alarm(self, *_args: Any, **_kwargs: Any) -> Any:
        """Have a function called in a loop: none runs on this clock."""
        raise NotImplementedError

    def attach(self, timed: object) -> Callable[[int], object]:  # noqa: ARG002 - Clock's
        """Return what does nothing, as the system's clock."""
        return int
