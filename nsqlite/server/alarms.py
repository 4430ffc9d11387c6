"""Alarms that go off in an event loop, whoever moves the clock.

The rule: what is to be called is called in the loop's own thread, and not after it was called off.

A clock that goes by itself calls in its loop anyway; one that is moved by hand calls in the thread
that moves it.

Next: server/node.py
"""

from asyncio import AbstractEventLoop
from asyncio import _get_running_loop as running_loop  # None where there is none, in C
from collections.abc import Callable
from typing import Final

from nsqlite.aio.waiting import call_soon
from nsqlite.clock import Alarm, Clock


class LoopAlarm:
    """Something that is to be called in an event loop at a moment."""

    __slots__ = ("_alarm", "_callback", "_loop")

    def __init__(
        self,
        clock: Clock,
        loop: AbstractEventLoop,
        moment: int,
        callback: Callable[[], object],
    ) -> None:
        """Set it; in the loop's thread.

        Args:
            clock: what the moment is measured by.
            loop: where it is called.
            moment: on the clock's monotonic scale.
            callback: what is called.
        """
        self._loop: Final = loop
        self._callback: Callable[[], object] | None = callback
        self._alarm: Final[Alarm] = clock.alarm(loop, moment, self._go_off)
        if clock.monotonic_ns() >= moment:  # another thread may have moved the clock past it
            loop.call_soon(self._call)  # which does it once

    def _go_off(self) -> None:
        if running_loop() is self._loop:
            self._call()
        else:
            call_soon(self._loop, self._call)  # a loop that is closed needs no call

    def _call(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    def cancel(self) -> None:
        """Call it off; too late is no error."""
        self._callback = None
        self._alarm.cancel()
