"""How a worker slows down when handlers fail: NSQ's backoff (NSQ client §4).

The rule: this knows neither clock nor consumer; it is told of results and says what to do.

    k: how deep the worker is in backoff; d(k): how long it then waits

    signal     k                          what follows
    resume     k - 1 if k > 0             at 0 all go on; else wait d(k)
    back off   k + 1 if d(k + 1) is       wait d(k)
               within max_duration
    go on      k                          wait d(k) if k > 0

Whatever comes while it waits is ignored.  After the wait one message is let through, a probe, whose
result is the next signal.

Next: worker/handler.py
"""

import enum
from random import Random
from typing import Final, Literal, get_args

import attrs

from nsqlite.errors import InvalidOption
from nsqlite.options import as_seconds, nanoseconds

Strategy = Literal["exponential", "full jitter"]
"""How d(k) grows: to twice as much each time, or to a random part of that."""


class Signal(enum.StrEnum):
    """What a result means for the backoff."""

    RESUME = "resume"
    BACK_OFF = "back off"
    GO_ON = "go on"


class Window(enum.StrEnum):
    """How many messages a worker may hold: what its slots allow, none, or one."""

    OPEN = "open"
    SHUT = "shut"
    PROBE = "probe"


@attrs.frozen(kw_only=True)
class Backoff:
    """How a worker backs off; the defaults are those of NSQ's clients.

    Attributes:
        multiplier: d(k) is this times 2 to the k, in seconds; 0 to 3600.
        max_duration: the longest d(k) in seconds, 0 to 3600; with 0 it never backs off.
        strategy: ``"exponential"``, or ``"full jitter"``: a random part of that.
        seed: makes the jitter repeatable; None for one that is not.

    Raises:
        InvalidOption: one of them is of the wrong kind or out of its range.
    """

    multiplier: float = attrs.field(default=1.0, converter=as_seconds)
    max_duration: float = attrs.field(default=120.0, converter=as_seconds)
    strategy: Strategy = "exponential"
    seed: int | None = None

    def __attrs_post_init__(self) -> None:
        """Check the values."""
        nanoseconds("multiplier", self.multiplier, 0, 3600)
        nanoseconds("max_duration", self.max_duration, 0, 3600)
        if self.strategy not in get_args(Strategy):
            allowed = " or ".join(map(repr, get_args(Strategy)))
            raise InvalidOption("strategy", self.strategy, allowed)
        check_seed(self.seed)


def check_seed(seed: object) -> None:
    """Check what makes a jitter repeatable.

    Raises:
        InvalidOption: it is neither a whole number nor None.
    """
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise InvalidOption("seed", seed, "a whole number or None")


class BackoffState:
    """Where a worker is in its backoff.

    Threads: one at a time.

    Attributes:
        level: k, 0 for none.
        window: how many messages the worker may hold now.
    """

    __slots__ = ("_backoff", "_random", "level", "window")

    def __init__(self, backoff: Backoff) -> None:
        """Begin without backoff."""
        self._backoff: Final = backoff
        self._random: Final = Random(backoff.seed)  # noqa: S311 - it spreads work, it hides nothing
        self.level: int = 0
        self.window: Window = Window.OPEN

    def duration(self, level: int) -> float:
        """Return a d(k) in seconds, not yet cut off at `max_duration`."""
        longest: float = self._backoff.multiplier * 2.0 ** min(level, 64)
        if self._backoff.strategy == "full jitter":
            return self._random.random() * longest
        return longest

    def signal(self, signal: Signal) -> float | None:
        """Take a result.

        Returns:
            How many seconds to wait, with the window shut, until `probe`; None to wait no time.
        """
        if self.window is Window.SHUT:
            return None
        if signal is Signal.RESUME and self.level > 0:
            self.level -= 1
        elif signal is Signal.BACK_OFF and self._may_rise():
            self.level += 1
        if self.level == 0:
            self.window = Window.OPEN
            return None
        self.window = Window.SHUT
        return min(self.duration(self.level), self._backoff.max_duration)

    def _may_rise(self) -> bool:
        most = self._backoff.max_duration
        return most > 0 and self.duration(self.level + 1) <= most

    def probe(self) -> None:
        """End the wait: let one message through."""
        self.window = Window.PROBE
