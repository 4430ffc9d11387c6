"""The only reading of time, and the only way to wait for it.

The rule: deadlines are on the monotonic scale and timestamps on the wall's, both in integer
nanoseconds, and nothing else in nsqlite imports `time`.

Whoever needs time is given a `Clock`.  The system's is `SYSTEM`; a test gives
`nsqlite.testing.ManualClock` and moves it by hand.  A clock that is moved must act at the deadlines
it passes, so whatever has deadlines attaches itself, and tells of each that is earlier than those
before.

Next: lock.py
"""

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol, cast

from nsqlite.errors import InvalidOption
from nsqlite.options import SECOND

NEVER: Final = 1 << 63
"""A moment on the monotonic scale that does not come (in 292 years)."""


_LONGEST_WAIT: Final = int(threading.TIMEOUT_MAX) - 1


class Timed(Protocol):
    """What has deadlines: it tells the clock when, and is called when the moment has come.

    Attributes:
        due: it has no deadline before this moment of the monotonic scale; `NEVER` if it has none.
            What was due then may have been called off meanwhile.
    """

    due: int

    def next_due(self) -> int:
        """Return the next deadline that it really has, `NEVER` if there is none."""
        ...

    def whose(self) -> str:
        """Return in words what that deadline is of."""
        ...

    def advance(self) -> None:
        """Act on whatever is due by now."""
        ...


class Semaphore(Protocol):
    """What a thread sleeps on: a `threading.Lock` held by the sleeper, released to wake it."""

    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool:
        """Wait for the release."""
        ...

    @property
    def release(self) -> Callable[[], object]:
        """Wake the sleeper."""
        ...


class Alarm(Protocol):
    """What was set to happen at a moment, and can be called off."""

    def cancel(self) -> object:
        """Call it off; too late is no error."""
        ...


class Loop(Protocol):
    """What a clock needs of an event loop: asyncio's has it."""

    def call_later(self, delay: float, callback: Callable[[], object]) -> Alarm:
        """Have a function called in the loop after so many seconds."""
        ...


def held_semaphore() -> threading.Lock:
    """Return a semaphore that nobody has released."""
    semaphore = threading.Lock()
    semaphore.acquire()
    return semaphore


def release(semaphore: Semaphore) -> None:
    """Wake the sleeper; released twice is released once."""
    try:
        semaphore.release()
    except RuntimeError:  # it was released already
        pass


class Clock(Protocol):
    """What nsqlite needs to know of time.  All values are integer nanoseconds.

    A clock that is moved by hand may have an attribute `by_hand` that is true: then nobody waits on
    it just to log that something takes long.  It may also have a function `meanwhile`, which a join
    calls before it sleeps, so that workers run in the caller: with the condition that is awaited,
    for how many nanoseconds (None for ever), and who waits, in words.  It returns how many are
    left.  A join with `await` awaits `meanwhile_async`, which is given the moment instead.
    """

    @property
    def resolution(self) -> int:
        """How finely a timer wheel should cut time on this clock."""
        ...

    @property
    def monotonic_ns(self) -> Callable[[], int]:
        """The scale of deadlines: never goes back, begins anywhere."""
        ...

    @property
    def time_ns(self) -> Callable[[], int]:
        """The wall's time since the epoch."""
        ...

    def wait(self, semaphore: Semaphore, moment: int | None, who: str) -> bool:
        """Block until the semaphore is released or a moment has come.

        Args:
            semaphore: a lock that is held; it is held again when this returns True.
            moment: on the monotonic scale; None never comes.
            who: the waiter in words, for an error.

        Returns:
            True if the semaphore was released, False if the moment has come.
        """
        ...

    def alarm(self, loop: Loop, moment: int, callback: Callable[[], object]) -> Alarm:
        """Have a function called at a moment of the monotonic scale, for one who must not block.

        Args:
            loop: the event loop that the calling thread runs, for a clock that goes by itself.
            moment: when.
            callback: what to call, by the loop or by whoever moves the clock.
        """
        ...

    def attach(self, timed: Timed) -> Callable[[int], object]:
        """Take note of something with deadlines, without keeping it alive.

        Returns:
            What it calls with each deadline that is earlier than its `due` until then; runs no user
            code and may be called under a topic's lock.
        """
        ...


class SystemClock:
    """The machine's clock.

    `monotonic_ns` and `time_ns` are the C functions themselves, so a reading costs no Python call.
    A wait counts the time that the operating system let pass, so it ends although a test has
    frozen `time`.
    """

    # No `Final`: these would be class variables, and for pyright no properties of a `Clock`.
    resolution = 10_000_000
    monotonic_ns: "staticmethod[[], int]" = staticmethod(time.monotonic_ns)
    time_ns: "staticmethod[[], int]" = staticmethod(time.time_ns)

    def wait(self, semaphore: Semaphore, moment: int | None, who: str) -> bool:  # noqa: ARG002 - Clock's
        """See `Clock.wait`."""
        if moment is None:
            return semaphore.acquire()
        seconds = (moment - self.monotonic_ns()) / SECOND
        if 0 <= seconds <= _LONGEST_WAIT:  # as nearly always; the next line takes thrice as long
            return semaphore.acquire(True, seconds)
        return semaphore.acquire(True, min(max(0, seconds), _LONGEST_WAIT))

    def alarm(self, loop: Loop, moment: int, callback: Callable[[], object]) -> Alarm:
        """See `Clock.alarm`."""
        return loop.call_later(max(0, moment - self.monotonic_ns()) / SECOND, callback)

    def attach(self, timed: Timed) -> Callable[[int], object]:  # noqa: ARG002 - Clock's
        """Return what does nothing: real time is looked at by whoever comes by."""
        return _ignore


def _ignore(due: int) -> None:
    """Take no note of a deadline."""


SYSTEM: Final = SystemClock()
"""The clock of every topic that was given no other."""


_CLOCK: Final = ("resolution", "monotonic_ns", "time_ns", "wait", "alarm", "attach")


def checked_clock(given: object) -> Clock:
    """Return the clock that was given, or the system's if it is None.

    Raises:
        InvalidOption: it is no clock.
    """
    if given is None:
        return SYSTEM
    if isinstance(given, type) or not all(hasattr(given, name) for name in _CLOCK):
        raise InvalidOption("clock", given, "a Clock, as nsqlite.testing.ManualClock is")
    return cast("Clock", given)
