"""A node: services that are started in order, run until they are told to end, and stopped again.

The rule: what was started is stopped, in reverse, however the node ends: when it is told to, when a
service cannot start or fails later, when who runs it is cancelled.

A service that does not stop in time is left behind, so that the others are stopped all the same.

Next: server/listener.py
"""

import asyncio
import logging
import signal
import threading
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Final, Literal, Protocol, Self

from nsqlite.clock import Clock, checked_clock
from nsqlite.errors import Closed, InvalidOption, NotAsyncio
from nsqlite.options import SECOND, Seconds, nanoseconds

log: Final = logging.getLogger("nsqlite")

GRACE: Final = 5.0
"""Seconds that a service has to stop, unless told otherwise."""

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
"""What ends a node that runs."""

Phase = Literal["not started", "starting", "started already", "stopped"]


class Service(Protocol):
    """A part of a node; neither call is made twice.

    Attributes:
        name: what a log calls it.
    """

    @property
    def name(self) -> str:
        """What a log calls it."""
        ...

    async def start(self) -> None:
        """Begin, and return when it can be used.

        If this raises, or is cancelled, it has left nothing behind: `stop` is not called then.
        """
        ...

    async def stop(self) -> None:
        """End; it is cancelled when it takes too long."""
        ...


class Node:
    """Services that start and stop together.

        node = Node("nsqd")
        node.add(service)
        asyncio.run(node.run())

    `run` is all that a program needs.  Where the loop is another's, `start`, `wait` and `stop` do
    it in turn, or ``async with``.

    Threads and loops: one loop, in whichever thread; `shutdown` and `fail` may be called by any
    thread, and by a signal handler.

    Attributes:
        name: what a log calls it.
    """

    def __init__(
        self, name: str = "node", *, grace: Seconds = GRACE, clock: Clock | None = None
    ) -> None:
        """Make a node without services.

        Args:
            name: what a log calls it.
            grace: seconds that each service has to stop.
            clock: what these are measured by; the system's by default.

        Raises:
            InvalidOption: the grace is no number of seconds, or the clock no clock.
        """
        self.name: Final = name
        self._grace: Final = nanoseconds("grace", grace)
        self._clock: Final = checked_clock(clock)
        self._services: Final[list[tuple[Service, int]]] = []
        self._started: Final[list[tuple[Service, int]]] = []
        self._phase: Phase = "not started"
        self._starting: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = False  # to end
        self._error: BaseException | None = None
        self._ending: Final = asyncio.Event()

    @property
    def services(self) -> tuple[Service, ...]:
        """The services, in the order in which they start."""
        return tuple(service for service, _ in self._services)

    def add(self, service: Service, *, grace: Seconds | None = None) -> None:
        """Add a service, which starts after those that are there, and stops before them.

        Args:
            service: it is not started yet.
            grace: seconds that it has to stop; those of the node by default.

        Raises:
            InvalidOption: it is no service, or the grace no number of seconds.
            Closed: the node was started already.
        """
        needed = ("name", "start", "stop")
        if isinstance(service, type) or not all(hasattr(service, name) for name in needed):
            raise InvalidOption("service", service, "an object with a name, start() and stop()")
        limit = self._grace if grace is None else nanoseconds("grace", grace)
        if self._phase != "not started":
            raise Closed(self.name, self._phase)
        self._services.append((service, limit))

    async def start(self) -> None:
        """Start all services, each when the one before has started; a second call does nothing.

        If one cannot be started, those that were are stopped, and the node is over.

        Raises:
            Closed: the node was stopped, before or meanwhile: make a new one.
            BaseException: what the service raised.

        Cancellation:
            As if a service could not be started.
        """
        if self._phase == "stopped":
            raise Closed(self.name, "stopped")
        if self._starting is not None:
            await self._join_start(self._starting)
            return
        self._loop = _running_loop("start")
        self._phase = "starting"
        self._starting = asyncio.ensure_future(self._start_all())
        try:
            await self._starting
        except BaseException:
            await self.stop()
            raise

    async def _join_start(self, starting: "asyncio.Task[None]") -> None:
        """Wait for a start that is under way, or over."""
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            if starting.cancelled():
                raise Closed(self.name, "stopped") from None
            raise

    async def _start_all(self) -> None:
        try:
            await self._start_each()
        except asyncio.CancelledError:
            if self._stopping is None:
                raise
            raise Closed(self.name, "stopped") from None

    async def _start_each(self) -> None:
        for service, grace in self._services:
            await service.start()
            self._started.append((service, grace))
            if self._stopping is not None:  # and the service took no notice
                raise Closed(self.name, "stopped")
        self._phase = "started already"

    async def stop(self) -> None:
        """Stop all services that were started, the last one first; a second call waits, too.

        What a service raises is logged.  One that takes longer than its grace is cancelled and left
        behind.  A start that is under way is given up.

        Cancellation:
            It goes on all the same.
        """
        if self._stopping is None:
            self._loop = _running_loop("stop")
            self._phase = "stopped"
            self._wake()
            self._stopping = asyncio.ensure_future(self._stop_each())
        await asyncio.shield(self._stopping)

    async def _stop_each(self) -> None:
        starting = self._starting
        if starting is not None and not starting.done():
            starting.cancel()
            if not await self._is_over(starting, self._grace):
                log.error("%s: its start cannot be given up", self.name)
        while self._started:
            await self._stop_one(*self._started.pop())

    async def _stop_one(self, service: Service, grace: int) -> None:
        """Stop a service, for as long as it may take."""
        stopping = asyncio.ensure_future(service.stop())
        if await self._is_over(stopping, grace):
            self._look_at(service, stopping)
            return
        log.error("%s: %s has not stopped in %g s", self.name, service.name, grace / SECOND)
        stopping.add_done_callback(partial(self._look_at, service))
        stopping.cancel()

    async def _is_over(self, task: "asyncio.Task[None]", grace: int) -> bool:
        """Wait until a task is over, or the time that it may take."""
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        task.add_done_callback(lambda _: over.set())
        late = partial(_tell, loop, over.set)  # whoever moves a clock may be another thread
        alarm = self._clock.alarm(loop, self._clock.monotonic_ns() + grace, late)
        try:
            await over.wait()
        finally:
            alarm.cancel()
        return task.done()

    def _look_at(self, service: Service, stopping: "asyncio.Task[None]") -> None:
        """Log what was raised while a service was stopped."""
        error = None if stopping.cancelled() else stopping.exception()
        if error is not None:
            log.error("%s: %s cannot stop: %s", self.name, service.name, error, exc_info=error)

    def shutdown(self) -> None:
        """Have `wait` return; called before, it does so at once.  Called again it does nothing.

        Any thread and signal handler may call it.
        """
        self._told = True
        loop = self._loop
        if loop is not None:  # else whoever waits looks first
            _tell(loop, self._wake)

    def fail(self, error: BaseException) -> None:
        """End the node since a service cannot go on, and have `wait` raise the error.

        Only the first error counts, and none that comes while it stops.  Any thread may call it.
        """
        if self._error is None and self._stopping is None:
            log.critical("%s: %s", self.name, error)
            self._error = error
        self.shutdown()

    def _wake(self) -> None:
        self._told = True
        self._ending.set()

    async def wait(self) -> None:
        """Wait until `shutdown` is called, or the node is stopped.

        Raises:
            BaseException: what `fail` was called with; all services are stopped then.
        """
        self._loop = _running_loop("wait")
        if not self._told:
            await self._ending.wait()
        if self._error is not None:
            await self.stop()
            raise self._error

    async def run(self, start: Callable[[], Awaitable[None]] | None = None) -> None:
        """Start, wait for SIGINT, SIGTERM or `shutdown`, and stop.

        A second signal is not caught: it ends the process.  Signals are caught only in the main
        thread; afterwards they are what they were.

        Args:
            start: what is called in place of `start`, and calls that, for a node that is part of
                something which has more to do first.

        Raises:
            Closed: the node was stopped.
            BaseException: a service could not be started, or has failed.  All is stopped.

        Cancellation:
            All is stopped.
        """
        with _Signals(self.shutdown):
            try:
                await (start or self.start)()
                await self.wait()
            finally:
                await self.stop()

    async def __aenter__(self) -> Self:
        """Begin a block in which it is started."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop it."""
        await self.stop()

    def __repr__(self) -> str:
        """Show its phase and its services."""
        names = ", ".join(service.name for service in self.services)
        return f"<Node {self.name!r} {self._phase} services=[{names}]>"


class _Signals:
    """Catches the first of the signals that end a node; the next one ends the process."""

    def __init__(self, shutdown: Callable[[], object]) -> None:
        self._shutdown: Final = shutdown
        self._before: Final = ExitStack()

    def __enter__(self) -> None:
        """Catch them, if this is the main thread."""
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            for number in SIGNALS:
                self._catch(loop, number)

    def _catch(self, loop: asyncio.AbstractEventLoop, number: signal.Signals) -> None:
        before: Any = signal.getsignal(number) or signal.SIG_DFL  # None if it is not Python's
        self._before.callback(signal.signal, number, before)
        # The loop's own handler does nothing but have it wake up, where it would sleep on.
        with suppress(NotImplementedError):  # on Windows it wakes up by itself
            loop.add_signal_handler(number, _ignore)
            self._before.callback(loop.remove_signal_handler, number)
        signal.signal(number, self._end)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        for one in SIGNALS:
            signal.signal(one, signal.SIG_DFL)
        self._shutdown()

    def __exit__(self, *error: object) -> None:
        """Put them back as they were."""
        self._before.close()


def _ignore() -> None:
    """Do nothing."""


def _running_loop(call: str) -> asyncio.AbstractEventLoop:
    """Return the loop.

    Raises:
        NotAsyncio: none runs here.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise NotAsyncio(call) from None


def _tell(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Have a loop call a function soon, unless it is closed."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)
