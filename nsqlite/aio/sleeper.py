"""A call that is suspended in an event loop, and how it is woken from any thread.

The rule: whoever changes what it waits for only notes its name under the topic's lock; the loop is
told after the lock, and everything here but `wake` runs in the loop's own thread.

A loop that is closed cannot be told.  Then the call is given up for it, so that what it was handed
goes on to the next.

Next: aio/told.py
"""

import asyncio
from asyncio import AbstractEventLoop, Future, get_running_loop
from asyncio import _get_running_loop as running_loop  # None where there is none, in C
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from nsqlite.clock import Chime, Clock
from nsqlite.guard import Guard
from nsqlite.message import T
from nsqlite.waiter import Waiter

_MUTE: Final = Chime(lambda: None)
"""The bell of a call that is over; the real one would keep it alive."""


class Sleeper(Waiter[T]):
    """A call of get, put or join that waits in the running loop.

    Attributes:
        loop: where it waits.
    """

    __slots__ = ("__weakref__", "_clock", "_future", "_give_up", "_woken", "loop")

    def __init__(
        self,
        guard: Guard,
        clock: Clock,
        give_up: Callable[["Sleeper[T]"], object],
        owner: Any = None,
    ) -> None:
        """Begin awake and with empty hands.

        Args:
            guard: whose operations ring it.
            clock: what its time-outs are measured by.
            give_up: called with this, in any thread, when its loop is found closed.
            owner: the consumer whose get this is.

        Raises:
            RuntimeError: no loop is running in this thread.
        """
        super().__init__(owner, Chime(partial(guard.rung.append, self)))
        self.loop: Final[AbstractEventLoop] = get_running_loop()
        self._clock: Final = clock
        self._give_up: Final = give_up
        self._future: Future[None] | None = None
        self._woken = False

    def listen(self) -> None:
        """Be ready for the next ring.  The topic's lock is held."""
        self._woken = False

    def wake(self) -> None:
        """Have the call go on, from any thread; the topic's lock is not held."""
        if running_loop() is self.loop:
            self._go_on()
            return
        try:
            self.loop.call_soon_threadsafe(self._go_on)
        except RuntimeError:
            if not self.loop.is_closed():
                raise
            self.gone = True
            self._give_up(self)

    def _go_on(self) -> None:
        self._woken = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def sleep(self, moment: int | None) -> None:
        """Wait until this is rung, or a moment of the monotonic scale has come; None never comes.

        It may return too early; the caller looks.

        Cancellation:
            Nothing is left of the wait; the caller gives up its place.
        """
        if self._woken:
            return
        alarm = None
        self._future = self.loop.create_future()
        try:
            if moment is not None:
                alarm = self._clock.alarm(self.loop, moment, self.wake)
                if self._clock.monotonic_ns() >= moment:
                    # It has come already, or another thread has just moved a manual clock.
                    await asyncio.sleep(0)
                    return
            await self._future
        finally:
            self._future = None
            if alarm is not None:
                alarm.cancel()

    def end(self) -> None:
        """Let go of what keeps this alive; nobody rings it any more."""
        self.bell = _MUTE
