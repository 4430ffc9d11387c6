"""How long messages take from put to fin: percentiles over a sliding window (NSQ semantics §21).

The rule: memory is bounded whatever the rate, and a reported value is at most 1 % off.

As in nsqd there are two halves, each of which collects for half the window and is then cleared in
turn; a report merges both.  A half counts latencies by their logarithm, in steps of 2 %.

Next: stats.py
"""

import math
from collections import Counter
from typing import Final

_STEP: Final = math.log(1.02)


class Latency:
    """A sliding window of latencies.

    Threads: one at a time, under the topic's lock.
    """

    __slots__ = ("_half", "_halves", "_next_turn")

    def __init__(self, window: int, now: int) -> None:
        """Begin empty.

        Args:
            window: its length in nanoseconds.
            now: a moment on the scale of `insert` and `report`.
        """
        self._half = max(1, window // 2)
        self._next_turn = now + self._half
        self._halves: list[Counter[int]] = [Counter(), Counter()]

    def insert(self, latency: int, now: int) -> None:
        """Count one latency, in nanoseconds; below 0 counts as 0."""
        if now >= self._next_turn:
            self._turn(now)
        step = 1 + round(math.log(latency) / _STEP) if latency > 0 else 0
        self._halves[0][step] += 1

    def counts(self, now: int) -> Counter[int]:
        """Return how many latencies fell into each step; those of several channels can be added."""
        self._turn(now)
        return self._halves[0] + self._halves[1]

    def _turn(self, now: int) -> None:
        while now >= self._next_turn:
            missed = (now - self._next_turn) // self._half
            self._halves = [Counter(), self._halves[0] if missed == 0 else Counter()]
            self._next_turn += (missed + 1) * self._half


def quantile(counts: Counter[int], fraction: float) -> float:
    """Return the latency in nanoseconds that this fraction of the counted ones does not exceed."""
    rank = math.ceil(fraction * counts.total())
    seen = 0
    for step in sorted(counts):
        seen += counts[step]
        if seen >= rank:
            return math.exp((step - 1) * _STEP) if step else 0.0
    return 0.0
