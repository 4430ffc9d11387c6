"""Having all done that is to be done on a manual clock, as if time flew.

The rule: the clock moves only when nobody has anything to do at the moment that it shows, and then
to the next deadline; what has no end is told of, in words that say what is next.

    1. the handlers of workers that run in the caller are called, one message at a time, each worker
       in its turn, in the order in which they were started
    2. the event loop that runs here goes round until it has nothing to do at once
    3. other threads are waited for, as bystanders.py tells
    4. the clock moves to the next deadline, and all of it begins again

Next: testing/manualclock.py
"""

import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from nsqlite.clock import NEVER
from nsqlite.errors import ClockStandsStill, Reentered, StillBusy
from nsqlite.message import Message
from nsqlite.options import MOST_HANDLED, SECOND
from nsqlite.testing.bystanders import Watch

if TYPE_CHECKING:
    import asyncio

ROUNDS: Final = 1000
"""How often a loop goes round at most until it is taken for one that never rests."""

FEW_ROUNDS: Final = 10
"""How often one goes round that does not tell whether it rests."""


class Runner(Protocol):
    """What is needed of what runs a worker in the caller; see `nsqlite.worker.caller`."""

    @property
    def is_coroutine(self) -> bool:
        """Whether its handler is to be awaited."""
        ...

    def take(self) -> Message[Any] | None:
        """Return the next message, if there is one and a slot for it."""
        ...

    def give_back(self, message: Message[Any]) -> None:
        """Put a message back that was taken."""
        ...

    def work(self, message: Message[Any]) -> None:
        """Call the handler with a message that was taken."""
        ...

    def begin_task(self, message: Message[Any]) -> "asyncio.Task[None]":
        """Return a task that does so."""
        ...

    def working(self) -> str:
        """Return in words who works here."""
        ...

    def trouble(self) -> str:
        """Return in words what its handler has raised; empty if nothing."""
        ...


class Movable(Protocol):
    """What is needed of a manual clock."""

    _elapsed: int
    _turn: int  # the place of the runner that is next

    @property
    def _movers(self) -> list[int]:
        """The threads that have all done, by their numbers."""
        ...

    def _next(self) -> int:
        """Return its next deadline, `NEVER` if there is none."""
        ...

    def _whose_next(self) -> str:
        """Return in words what that is of."""
        ...

    def _move_to(self, moment: int) -> None:
        """Move on to a moment, stopping at every deadline on the way."""
        ...

    def _watch_all(self) -> Watch:
        """Begin to look at the other threads."""
        ...

    def _asleep(self) -> set[int]:
        """Return the threads that wait on it."""
        ...

    def _pause(self, nanoseconds: int) -> None:
        """Sleep in real time, or until another thread begins to wait on it."""
        ...

    def _is_awaited_in(self, loop: Any) -> bool:
        """Return whether it has an alarm in an event loop."""
        ...

    def _runners(self) -> Sequence[Runner]:
        """Return what runs in the caller, in the order of their start."""
        ...


Found: TypeAlias = tuple[Runner, Message[Any]]
"""A message that was taken, and who is to work on it."""


def never() -> bool:
    """Return False: nothing ends it early."""
    return False


class Run:
    """One call that has everything done.

    Threads: the one that calls.
    """

    def __init__(
        self,
        clock: Movable,
        until: int,
        call: str,
        instead: str,
        *,
        done: Callable[[], bool] = never,
        timed: bool = False,
    ) -> None:
        """Begin.

        Args:
            clock: what is moved.
            until: no further than to this moment.
            call: what was called, in words, for errors.
            instead: what is to be called in an event loop.
            done: what ends it early.
            timed: whether it is no error that more is due after `until`.
        """
        self._clock: Final = clock
        self._begun: Final = clock._elapsed
        self._until: Final = until
        self._call: Final = call
        self._instead: Final = instead
        self._done: Final = done
        self._timed: Final = timed
        self._handled = 0  # at this moment

    @property
    def seconds(self) -> float:
        """How far the clock has moved."""
        return (self._clock._elapsed - self._begun) / SECOND

    @property
    def handled(self) -> int:
        """How many messages were handled at this moment."""
        return self._handled

    # In a thread

    def call_one(self) -> bool:
        """Call a single handler, and move no clock; return False if nothing is ready."""
        found = self.take()
        if found is None:
            return False
        if found[0].is_coroutine:
            self._run_loop(found, self._work(found))
        else:
            found[0].work(found[1])
        return True

    def call_all(self) -> None:
        """Call handlers with all that is ready and becomes ready meanwhile, and move no clock."""
        while not self._done() and (found := self.take()) is not None:
            if found[0].is_coroutine:
                self._run_loop(found, self._work_all(found))
                return
            found[0].work(found[1])

    async def _work_all(self, found: Found | None) -> None:
        """Do the rest of that in a loop, the same for all."""
        while found is not None:
            await self._work(found)
            found = None if self._done() else self.take()

    def run(self) -> None:
        """Have everything done, by the calling thread."""
        movers, me = self._clock._movers, threading.get_ident()
        movers.append(me)  # so time goes on, too, where a handler waits for it
        try:
            self._run_all()
        finally:
            movers.remove(me)

    def _run_all(self) -> None:
        while not self._done() and self._step():
            pass

    def _step(self) -> bool:
        """Do the next thing; return False if nothing is left."""
        found = self.take()
        if found is None:
            self._wait_for_others()
            found = self.take()
        if found is None:
            return self._move_on()
        if found[0].is_coroutine:
            self._run_loop(found, self.run_async(found))
            return False
        found[0].work(found[1])
        return True

    def _run_loop(self, found: Found, rest: Coroutine[Any, Any, None]) -> None:
        """Go on in an event loop, as a handler is to be awaited."""
        import asyncio  # noqa: PLC0415 - whoever looks for a fake broker may not need it

        try:
            self.require_no_loop()
        except Reentered:
            rest.close()
            found[0].give_back(found[1])
            raise
        asyncio.run(rest)

    def require_no_loop(self) -> None:
        """Check that the calling thread may run a loop, or keep one from going on.

        Raises:
            Reentered: it is in one.
        """
        asyncio = sys.modules.get("asyncio")
        if asyncio is not None and asyncio._get_running_loop() is not None:
            raise Reentered(self._call.partition("(")[0], self._instead)

    def _wait_for_others(self) -> None:
        """Wait until no other thread holds the clock back."""
        if threading.active_count() == 1:
            return
        watch = self._clock._watch_all()
        while self._is_held(watch):
            self._clock._pause(watch.next_pause(to_jump=True))

    def _is_held(self, watch: Watch) -> bool:
        return watch.is_held(self._clock._asleep() | {threading.get_ident()}, to_jump=True)

    # In an event loop

    async def run_async(self, found: Found | None = None) -> None:
        """Have everything done, in the loop that runs; first what was found already."""
        while found is not None or not self._done():
            found = found or self.take()
            if found is None:
                await self._rest()
                found = self.take()
            if found is not None:
                await self._work(found)
                found = None
            elif not self._move_on():
                return

    async def _work(self, found: Found) -> None:
        runner, message = found
        if not runner.is_coroutine:
            runner.work(message)
            return
        import asyncio  # noqa: PLC0415 - see above

        task = runner.begin_task(message)
        try:
            await self._attend(runner, task)
        except BaseException:
            task.cancel()
            await asyncio.wait({task})
            raise
        task.result()

    async def _attend(self, runner: Runner, task: "asyncio.Task[None]") -> None:
        """See a handler to its end; move the clock if that is what it waits for."""
        while not task.done():
            await self._rest()
            if task.done() or (self._is_for_time(task) and self._move_on()):
                continue
            if not await self._wait_outside(task) and not self._move_on():
                raise ClockStandsStill(runner.working(), None)

    def _is_for_time(self, task: "asyncio.Task[None]") -> bool:
        """Return whether a handler waits in a call of nsqlite, or for a moment of the clock."""
        place: Any = task.get_coro()
        while hasattr(place.cr_await, "cr_frame"):
            place = place.cr_await
        module: str = place.cr_frame.f_globals["__name__"]
        return module.startswith("nsqlite.aio") or self._clock._is_awaited_in(task.get_loop())

    async def _wait_outside(self, task: "asyncio.Task[None]") -> bool:
        """Wait in real time for a handler that waits for something else; return whether it went on.

        That is a socket, another thread, or real time.
        """
        import asyncio  # noqa: PLC0415 - see above

        watch = self._clock._watch_all()
        while not (task.done() or watch.is_over):
            await asyncio.wait({task}, timeout=watch.next_pause(to_jump=True) / SECOND)
            if not task.done() and self._is_for_time(task):
                return True
        return task.done()

    async def _rest(self) -> None:
        """Wait until the loop has nothing to do at once, and no thread holds the clock back."""
        import asyncio  # noqa: PLC0415 - see above

        loop = asyncio.get_running_loop()
        await until_quiet(loop)
        if threading.active_count() == 1:
            return
        watch = self._clock._watch_all()
        while self._is_held(watch):
            await pause(watch.next_pause(to_jump=True))
            await until_quiet(loop)

    # Both

    def take(self) -> Found | None:
        """Return the next message for a handler that is called here.

        Raises:
            StillBusy: too many were handled at one moment.
        """
        runners = self._clock._runners()
        for number in range(len(runners)):
            place = (self._clock._turn + number) % len(runners)
            message = runners[place].take()
            if message is not None:
                self._clock._turn = place + 1
                self._count(runners[place], message)
                return runners[place], message
        return None

    def _count(self, runner: Runner, message: Message[Any]) -> None:
        self._handled += 1
        if self._handled > MOST_HANDLED:
            runner.give_back(message)
            limit = f"{MOST_HANDLED} messages at one moment"
            raise self._busy(limit, f"one more for {runner.working()}")

    def _move_on(self) -> bool:
        """Move to the next deadline; return False if there is none any more.

        Raises:
            StillBusy: it is beyond the limit.
        """
        if self._done():
            return False
        clock = self._clock
        due = clock._next()
        if due <= self._until:
            self._handled = 0
            clock._move_to(due)
            return True
        if self._timed:
            clock._move_to(self._until)
        elif due != NEVER:
            limit = f"{(self._until - self._begun) / SECOND:g} s on the clock"
            ahead = (due - clock._elapsed) / SECOND
            raise self._busy(limit, f"in {ahead:g} s {clock._whose_next()}")
        return False

    def _busy(self, limit: str, following: str) -> StillBusy:
        """Return the error that there is no end, with what may be the cause."""
        error = StillBusy(self._call, limit, following)
        for trouble in filter(None, [runner.trouble() for runner in self._clock._runners()]):
            error.add_note(trouble)
        return error


async def until_quiet(loop: Any) -> None:
    """Let a loop, the one that runs, go round until it has nothing to do at once."""
    import asyncio  # noqa: PLC0415 - see above

    ready = getattr(loop, "_ready", None)
    quiet = 0
    for _ in range(FEW_ROUNDS if ready is None else ROUNDS):
        await asyncio.sleep(0)
        quiet = 0 if ready or ready is None else quiet + 1
        if quiet > 1:  # once more, since what comes of a socket is behind this task
            return


async def pause(nanoseconds: int) -> None:
    """Sleep in real time."""
    import asyncio  # noqa: PLC0415 - see above

    await asyncio.sleep(nanoseconds / SECOND)
