"""What looks when a channel's next deadline has come, for all who wait for it in one event loop.

The rule: a channel sets one timer in a loop at most, and none while nobody waits there.

Next: aio/consumer.py
"""

from asyncio import AbstractEventLoop
from asyncio import _get_running_loop as running_loop  # None where there is none, in C
from typing import Any, Final

from nsqlite.clock import NEVER, Alarm, Clock
from nsqlite.flow import Flow
from nsqlite.guard import Guard


class Lookout:
    """One channel's timer in one loop.

    Everything but `ring` and `wake` is called in the loop's own thread.

    Attributes:
        waiters: how many gets wait in the loop for a message of the channel.
    """

    __slots__ = ("_alarm", "_clock", "_flow", "_guard", "_loop", "_moment", "_over", "waiters")

    def __init__(
        self, flow: Flow[Any], guard: Guard, clock: Clock, loop: AbstractEventLoop
    ) -> None:
        """Begin without a timer, as nobody waits."""
        self._flow: Final = flow
        self._guard: Final = guard
        self._clock: Final = clock
        self._loop: Final = loop
        self._alarm: Alarm | None = None
        self._moment = NEVER
        self._over = False
        self.waiters = 0

    def is_closed(self) -> bool:
        """Return whether its loop is over."""
        return self._loop.is_closed()

    def set(self) -> None:
        """Set the timer to the channel's next deadline, if somebody waits for it."""
        moment = self._flow.due if self.waiters else NEVER
        if moment == self._moment:
            return
        self._call_off()
        if moment != NEVER:
            self._moment = moment
            self._alarm = self._clock.alarm(self._loop, moment, self.wake)

    def _call_off(self) -> None:
        """Set no timer."""
        alarm, self._alarm = self._alarm, None
        self._moment = NEVER
        if alarm is not None:
            alarm.cancel()

    def ring(self) -> None:
        """Take note that there may be an earlier deadline.  The topic's lock is held."""
        if not self._over:
            self._guard.rung.append(self)

    def wake(self) -> None:
        """Have the loop look, from any thread; the topic's lock is not held."""
        if running_loop() is self._loop:
            self._look()
            return
        try:
            self._loop.call_soon_threadsafe(self._look)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            self._over = True  # who comes next to wait for this channel forgets it
            self._call_off()

    def _look(self) -> None:
        """Act on what is due, and set the timer anew; a loop may call a little too early."""
        is_due = self._clock.monotonic_ns() >= self._moment
        self._call_off()
        if is_due:
            self._guard.call(self._flow.sweep)
        self.set()
