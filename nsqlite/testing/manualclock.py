"""A clock that moves when a test says so, and only then.

The rule: a move stops at every deadline on its way and lets it take effect, so when `advance`
returns everything that should have happened by then has happened.

Next: testing/memorystorage.py
"""

import threading
import weakref
from collections.abc import Callable
from typing import Final

from nsqlite.clock import NEVER, Alarm, Bell, Chime, Loop, Timed, ring
from nsqlite.errors import ClockStandsStill
from nsqlite.lock import make_section
from nsqlite.options import LONGEST, SECOND, seconds

_START: Final = 1_700_000_000.0
_LOCK: Final = type(threading.Lock())


class _Sleep:
    """One wait on a manual clock."""

    __slots__ = ("bell", "due", "over", "who")

    def __init__(self, bell: Bell, due: int, who: str) -> None:
        self.bell = bell
        self.due = due
        self.who = who
        self.over = False

    def is_sound(self) -> bool:
        """Return whether nobody has rung for it yet."""
        return not self.over and isinstance(self.bell, _LOCK) and self.bell.locked()


class _Alarm:
    """A callback that a manual clock is to make."""

    __slots__ = ("_clock", "_sleep")

    def __init__(self, clock: "ManualClock", sleep: _Sleep) -> None:
        self._clock = clock
        self._sleep = sleep

    def cancel(self) -> None:
        """Call it off."""
        self._clock._forget(self._sleep)


class ManualClock:
    """Time by hand, for `Broker(clock=...)` and `Topic(clock=...)`.

        >>> import nsqlite
        >>> clock = ManualClock()
        >>> topic = nsqlite.Topic("orders", clock=clock)
        >>> consumer = nsqlite.Consumer(topic.channel("billing"))
        >>> id = topic.put(b"later", delay=2.5)
        >>> clock.advance(2.5)
        >>> consumer.get(timeout=0).body
        b'later'

    It is exact: its resolution is a nanosecond, so nothing is late.  A thread that is blocked in
    `get`, `put` or `join` sleeps until another thread moves the clock to its moment.

    Threads: any.  Observers may move the clock too; but one that hears of what a move caused must
    not wait for another thread that moves it, which has to wait for the end of this move.

    Attributes:
        patience: real seconds after which a wait that can never end raises `ClockStandsStill`: when
            every living thread waits on this clock.
        autojump: move to the next deadline instead, and at once.
    """

    resolution: Final = 1

    def __init__(
        self, start: float = _START, *, patience: float = 1.0, autojump: bool = False
    ) -> None:
        """Make a clock that stands.

        Args:
            start: the wall's time, in seconds since the epoch.
            patience: see the class.
            autojump: see the class.

        Raises:
            InvalidOption: the start or the patience is negative or no finite number.
        """
        self._start: Final = seconds("start", start, 0, LONGEST)
        self.patience: Final = seconds("patience", patience, above=True) / SECOND
        self.autojump: Final = autojump
        self._elapsed = 0
        self._moving: Final = make_section(rank=-1)  # held by who moves the clock
        # guards the two below; nothing is called inside
        self._lock: Final = make_section(rank=3, forked=self._forget_sleepers)
        self._sleeps: dict[_Sleep, int] = {}  # with the thread that sleeps, 0 for an alarm
        self._timed: list[weakref.ref[Timed]] = []  # in the order of attachment

    # What a Clock has

    @property
    def monotonic_ns(self) -> Callable[[], int]:
        """See `nsqlite.Clock`."""
        return self._monotonic_ns

    @property
    def time_ns(self) -> Callable[[], int]:
        """See `nsqlite.Clock`."""
        return self._time_ns

    def _monotonic_ns(self) -> int:
        return self._elapsed

    def _time_ns(self) -> int:
        return self._start + self._elapsed

    def attach(self, timed: Timed) -> None:
        """See `nsqlite.Clock`."""
        with self._lock:
            living = filter(lambda known: known() is not None, self._timed)
            self._timed = [*living, weakref.ref(timed)]

    def wait(self, bell: Bell, timeout: int | None, who: str) -> bool:
        """See `nsqlite.Clock`.

        Raises:
            ClockStandsStill: every thread waits on this clock, and still does after `patience`.
        """
        due = NEVER if timeout is None else self._elapsed + timeout
        sleep = _Sleep(bell, due, who)
        try:
            with self._lock:
                self._sleeps[sleep] = threading.get_ident()
            return self._stand(sleep)
        finally:
            self._forget(sleep)

    def alarm(
        self,
        loop: Loop,  # noqa: ARG002 - Clock's
        moment: int,
        callback: Callable[[], object],
    ) -> Alarm:
        """See `nsqlite.Clock`.  Whoever moves the clock calls back, before the move is over."""
        sleep = _Sleep(Chime(callback), moment, "an event loop")
        with self._lock:
            self._sleeps[sleep] = 0
        return _Alarm(self, sleep)

    def _forget(self, sleep: _Sleep) -> None:
        """Call a wait off."""
        with self._lock:
            self._sleeps.pop(sleep, None)

    def _forget_sleepers(self) -> None:
        """In the child of a fork: the other threads are gone, and nobody wakes for them."""
        me = threading.get_ident()
        self._sleeps = {sleep: thread for sleep, thread in self._sleeps.items() if thread == me}

    def _stand(self, sleep: _Sleep) -> bool:
        while self._elapsed < sleep.due:
            patience = 0.0 if self.autojump and self._jump() else self.patience
            stood = self._elapsed
            if sleep.bell.acquire(timeout=patience):
                return not sleep.over
            if self.autojump and self._next() != NEVER:
                continue  # somebody was not at rest yet
            if patience and self._elapsed == stood and self._alone():
                raise ClockStandsStill(sleep.who, self._ahead())
        return False

    def _jump(self) -> bool:
        """Move on to the next deadline if nobody else is left to do anything; say whether."""
        with self._moving:  # one at a time: who comes second finds those awake whom the first woke
            return self._alone() and self.advance_to_next() is not None

    # Moving it

    def time(self) -> float:
        """Return the wall's time in seconds since the epoch."""
        return self._time_ns() / SECOND

    def advance(self, seconds_: float) -> None:
        """Move on by so many seconds, stopping at every deadline on the way.

        Raises:
            InvalidOption: the number is negative or not finite; nothing has changed.
        """
        step = seconds("seconds", seconds_)
        with self._moving:
            self._move_on(min(self._elapsed + step, NEVER - 1))

    def advance_to_next(self) -> float | None:
        """Move on to the next deadline of a channel or a waiting thread.

        Returns:
            By how many seconds; None if there is no deadline, and then nothing has changed.
        """
        with self._moving:
            due = self._next()
            if due == NEVER:
                return None
            before = self._elapsed
            self._move(due)
            return (self._elapsed - before) / SECOND

    def _move_on(self, target: int) -> None:
        while (due := self._next()) <= target:
            self._move(due)
        self._move(target)

    def _move(self, moment: int) -> None:
        """Be at a moment, if it is ahead, and let everything due there happen."""
        self._elapsed = max(self._elapsed, moment)
        for timed in self._attached():
            if timed.next_due() <= self._elapsed:
                timed.advance()
        with self._lock:
            sleeps = self._sleeps.copy()
        for sleep, thread in sleeps.items():
            if sleep.due <= self._elapsed:
                sleep.over = True
                if not thread:
                    self._forget(sleep)  # an alarm goes off once
                ring(sleep.bell)

    def _attached(self) -> list[Timed]:
        with self._lock:
            known = self._timed
        return [timed for reference in known if (timed := reference()) is not None]

    def _next(self) -> int:
        """Return the next deadline, `NEVER` if there is none."""
        with self._lock:
            sleeps = self._sleeps.copy()
        dues = [sleep.due for sleep in sleeps if not sleep.over]
        dues += [timed.next_due() for timed in self._attached()]
        return min(dues, default=NEVER)

    def _ahead(self) -> float | None:
        due = self._next()
        return None if due == NEVER else (due - self._elapsed) / SECOND

    def _alone(self) -> bool:
        """Return whether every living thread waits on this clock, and none is about to wake.

        The thread of a store does not count while it has nothing to do.
        """
        with self._lock:
            sleeps = self._sleeps.copy()
        sleeping = {thread for sleep, thread in sleeps.items() if sleep.is_sound()}
        return all(
            thread.ident in sleeping or getattr(thread, "at_rest", False)
            for thread in threading.enumerate()
        )
