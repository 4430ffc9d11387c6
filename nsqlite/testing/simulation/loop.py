"""The event loop of a simulation's coroutines.

The rule: it runs nothing by itself; each callback is called when the schedule comes to it, in the
order in which they were asked for, and time is that of the simulation's clock.

It has what tasks, futures, `asyncio.sleep`, `timeout`, `gather`, locks and queues need.  There are
no sockets, executors, subprocesses and signals.

Next: testing/simulation/workers.py
"""

import asyncio
from asyncio.events import _get_running_loop, _set_running_loop
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final, NoReturn, TypeVarTuple

from nsqlite.options import SECOND
from nsqlite.testing.manualclock import ManualClock

Ts = TypeVarTuple("Ts")

_ROUNDS: Final = 1000
"""How many callbacks are called at the end for tasks that were cancelled."""


class SimLoop(asyncio.BaseEventLoop):
    """An event loop that is moved on from outside.

    Threads: one at a time.
    """

    _ready: deque[asyncio.Handle]

    def __init__(self, clock: ManualClock, fail: Callable[[BaseException], None]) -> None:
        """Begin.

        Args:
            clock: what its time is.
            fail: told of what nobody else hears of.
        """
        super().__init__()
        self._clock: Final = clock
        self._fail: Final = fail

    # What moves it on

    def is_busy(self) -> bool:
        """Return whether there is something to call."""
        return bool(self._ready)

    def has_task(self, coroutine: object) -> bool:
        """Return whether one of its tasks runs a coroutine, or will."""
        return any(task.get_coro() is coroutine for task in asyncio.all_tasks(self))

    def run_once(self) -> None:
        """Call what is next."""
        handle = self._ready.popleft()
        before = _get_running_loop()
        _set_running_loop(self)
        try:
            if not handle.cancelled():
                handle._run()
        finally:
            _set_running_loop(before)

    def end(self) -> None:
        """Cancel the tasks that have not ended, let them end, and close it."""
        self.set_exception_handler(lambda _loop, _context: None)
        for task in asyncio.all_tasks(self):
            task.cancel()
        for _ in range(_ROUNDS):
            if self._ready:
                self.run_once()
        self.close()

    async def sleep(self, nanoseconds: int) -> None:
        """Wait for so long."""
        await asyncio.sleep(nanoseconds / SECOND)

    # What is different from other loops

    def time(self) -> float:
        """Return the seconds of the clock."""
        return self._clock.monotonic_ns() / SECOND

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Have a function called at a moment of `time`."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._clock.alarm(self, round(when * SECOND), lambda: self._ready.append(timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Leave it: what is cancelled is not called."""

    def _write_to_self(self) -> None:
        """Wake nobody: nothing happens at the same time here."""

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Fail the run with what nobody has heard of."""
        self._fail(context.get("exception") or RuntimeError(str(context.get("message"))))

    def run_in_executor(self, executor: object, func: object, *args: object) -> NoReturn:
        """Refuse it: a thread of an executor would not wait for its turn.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a simulation has no executor: it runs no threads but its own")
