"""Having all done that is to be done on a manual clock, as if time flew.

The rule: the clock moves only when nobody has anything to do at the moment that it shows, and then
to the next deadline; what has no end is told of, in words that say what is next.

    1. the handlers of workers that run in the caller are called, one message at a time, each worker
       in its turn, in the order in which they were started; while a coroutine function waits in
       nsqlite, the others have their turn, as it may wait for one of them
    2. the event loop that runs here goes round until it has nothing to do at once
    3. other threads are waited for, as bystanders.py tells
    4. the clock moves to the next deadline, and all of it begins again

Next: testing/manualclock.py
"""

import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from nsqlite.clock import NEVER
from nsqlite.errors import NotAsyncio, Reentered, StillBusy, shown
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
    def patience(self) -> float:
        """For how many real seconds anybody is waited for."""
        ...

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

    def _counts(self) -> dict[str, int]:
        """Return how many messages each worker has begun with that runs by itself, by its name."""
        ...


Found: TypeAlias = tuple[Runner, Message[Any]]
"""A message that was taken, and who is to work on it."""


class _Begun:
    """A handler at work in a task.

    Attributes:
        given_up: what it awaited when it was waited for in real time, in vain.
    """

    __slots__ = ("given_up", "message", "runner", "task")

    def __init__(self, runner: Runner, message: Message[Any]) -> None:
        self.runner = runner
        self.message = message
        self.task = runner.begin_task(message)
        self.given_up: object = None

    def calls(self) -> list[Any]:
        """Return the coroutines in which it waits, the handler's own first; empty if it is over."""
        found: list[Any] = []
        place: Any = None if self.task.done() else self.task.get_coro()
        while hasattr(place, "cr_frame"):
            found.append(place)
            place = place.cr_await
        return [one for one in found if _module(one) != _CALLER]

    def awaited(self) -> object:
        """Return what it awaits, another object each time; None for the next round of the loop."""
        calls = self.calls()
        return calls[-1].cr_await if calls else None

    def is_in_nsqlite(self) -> bool:
        """Return whether it waits in a call of nsqlite."""
        calls = self.calls()
        return bool(calls) and _module(calls[-1]).startswith(_AIO)

    def is_given_up(self) -> bool:
        """Return whether it has not gone on since it was given up."""
        return self.given_up is not None and self.given_up is self.awaited()

    def __str__(self) -> str:
        """Say who is at work on what, and what it awaits where."""
        return f"{at_work(self.runner.working(), self.message)}{_awaited(self.calls())}"


_AIO: Final = "nsqlite.aio"
_CALLER: Final = "nsqlite.worker.caller"


def _module(call: Any) -> str:
    return str(call.cr_frame.f_globals["__name__"])


def _awaited(calls: list[Any]) -> str:
    """Return in words what a handler awaits, and in which line of the program."""
    own = [one for one in calls if not _module(one).startswith(("nsqlite.", "asyncio."))]
    if not own:
        return ""
    frame = own[-1].cr_frame
    line = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
    called = calls[calls.index(own[-1]) + 1 :]
    what = f" {_module(called[0]).rpartition('.')[0]}.{called[0].__qualname__}()" if called else ""
    return f", which awaits{what} at {line}"


def at_work(working: str, message: Message[Any]) -> str:
    """Say who is at work on what."""
    return f"{working} at work on message {message.id} {shown(message.body)}"


def note_patience(error: StillBusy, patience: float) -> None:
    """Say how long a handler is waited for."""
    error.add_note(
        f"a handler that waits for something else than the clock holds it for {patience:g} s, its"
        " patience: see ManualClock(patience=...)"
    )


def running_loop() -> "asyncio.AbstractEventLoop | None":
    """Return the event loop that the calling thread runs, without loading asyncio for it."""
    loaded = sys.modules.get("asyncio")
    return None if loaded is None else loaded._get_running_loop()


def never() -> bool:
    """Return False: nothing ends it early."""
    return False


class Run:
    """One call that has everything done.

    Threads: the one that calls.

    Attributes:
        waited: for how long it has waited for other threads, in real nanoseconds.
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
        self.waited: int = 0
        self._handled = 0  # at this moment
        self._counts = clock._counts()  # when it began
        self._seen = self._counts
        self._at_work: Final[list[_Begun]] = []

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
            self._run_loop(found, self.work(found))
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
            await self.work(found)
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
        if running_loop() is not None:
            raise Reentered(self._call.partition("(")[0], self._instead)

    def _wait_for_others(self) -> None:
        """Wait until no other thread holds the clock back."""
        if threading.active_count() == 1:
            return
        watch = self._clock._watch_all()
        while self._is_held(watch):
            self._clock._pause(self._next_pause(watch))

    def _next_pause(self, watch: Watch) -> int:
        pause = watch.next_pause(to_jump=True)
        self.waited += pause
        return pause

    def _is_held(self, watch: Watch) -> bool:
        self._require_end()
        return watch.is_held(self._clock._asleep() | {threading.get_ident()}, to_jump=True)

    # In an event loop

    async def run_async(self, found: Found | None = None) -> None:
        """Have everything done, in the loop that runs; first what was found already.

        Raises:
            NotAsyncio: no event loop of asyncio runs here.
        """
        if running_loop() is None:
            raise NotAsyncio(self._call.partition("(")[0])
        while found is not None or not self._done():
            found = found or self.take()
            if found is None:
                await self._rest()
                found = self.take()
            if found is not None:
                await self.work(found)
                found = None
            elif not self._move_on():
                return

    async def work(self, found: Found) -> None:
        """Call a handler, and see to its end; so it is with those that are called meanwhile."""
        try:
            await self._see_through(found)
        except BaseException:
            await self._cancel()
            raise

    async def _see_through(self, found: Found) -> None:
        self._begin(found)
        while self._at_work:
            await self._attend()

    def _begin(self, found: Found) -> None:
        runner, message = found
        if runner.is_coroutine:
            self._at_work.append(_Begun(runner, message))
        else:
            runner.work(message)

    async def _attend(self) -> None:
        """Wait until a handler at work has ended; if none can, do what may let one go on."""
        import asyncio  # noqa: PLC0415 - see above

        loop = asyncio.get_running_loop()
        await until_quiet(loop)
        if self._collect():
            return
        await self._rest()
        if self._collect():
            return
        elsewhere = self._elsewhere(loop)
        if elsewhere and await self._wait(elsewhere):
            return
        for one in elsewhere:
            one.given_up = one.awaited()
        await self._help(loop)

    def _collect(self) -> bool:
        """Take leave of the handlers that have ended; return whether there are some.

        Raises:
            BaseException: it has ended a worker.
        """
        over = [one for one in self._at_work if one.task.done()]
        for one in over:
            self._at_work.remove(one)
            one.task.result()
        return bool(over)

    async def _help(self, loop: Any) -> None:
        """Call another handler, or move the clock, as those at work wait.

        Raises:
            StillBusy: neither helps.
        """
        done = self._done()
        found = None if done else self.take()
        if found is not None:
            self._begin(found)
        elif (not done or self._clock._is_awaited_in(loop)) and self._move():
            pass
        elif done:
            await self._cancel()
        elif not await self._wait([one for one in self._at_work if not one.is_given_up()]):
            raise self._stuck()

    def _elsewhere(self, loop: Any) -> list[_Begun]:
        """Return the handlers that wait for something else than nsqlite and the clock.

        That is a socket, another thread, or real time.
        """
        found = [one for one in self._at_work if not one.is_given_up()]
        return [one for one in found if self._waits_here(one, loop) is None]

    def _waits_here(self, one: _Begun, loop: Any) -> object:
        """Return what a handler awaits in nsqlite, True for a moment of the clock, else None."""
        if one.is_in_nsqlite():
            return one.awaited()
        return self._clock._is_awaited_in(loop) or None

    async def _wait(self, some: Sequence[_Begun]) -> bool:
        """Wait in real time until one of some handlers goes on; return False if none does."""
        import asyncio  # noqa: PLC0415 - see above

        loop = asyncio.get_running_loop()
        tasks = [one.task for one in some]
        before = [(one, self._waits_here(one, loop)) for one in some]
        watch = self._clock._watch_all()
        while some and not watch.is_over:
            pause = watch.next_pause(to_jump=True) / SECOND
            await asyncio.wait(tasks, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            for one, place in before:
                if one.task.done() or self._waits_here(one, loop) not in (place, None):
                    return True
        return False

    async def _cancel(self) -> None:
        """Cancel the handlers at work; their messages go back."""
        import asyncio  # noqa: PLC0415 - see above

        tasks = [one.task for one in self._at_work]
        self._at_work.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _stuck(self) -> StillBusy:
        """Return the error that handlers wait for what does not come."""
        ahead = self._clock._next() - self._clock._elapsed
        limit = f"up to {self._clock.patience:g} s of real time"
        if self._timed and self._until > self._begun:
            limit = f"{(self._until - self._begun) / SECOND:g} s on the clock and {limit}"
        error = self._busy(limit, " and ".join(map(str, self._at_work[:3])))
        note_patience(error, self._clock.patience)
        if ahead < NEVER - self._clock._elapsed:
            error.add_note(f"the clock's next deadline is {ahead / SECOND:g} s ahead")
        return error

    async def _rest(self) -> None:
        """Wait until the loop has nothing to do at once, and no thread holds the clock back."""
        import asyncio  # noqa: PLC0415 - see above

        loop = asyncio.get_running_loop()
        await until_quiet(loop)
        self._require_end()
        if threading.active_count() == 1:
            return
        watch = self._clock._watch_all()
        while self._is_held(watch):
            await pause(self._next_pause(watch))
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

    def _require_end(self) -> None:
        """Check that the workers that run by themselves come to the end of this moment.

        Raises:
            StillBusy: one has begun with too many messages.
        """
        for name, count in self._clock._counts().items():
            if count - self._counts.get(name, 0) > MOST_HANDLED:
                raise self._busy(f"{MOST_HANDLED} messages at one moment", f"more for {name}")

    def went_on(self) -> list[str]:
        """Return who has begun with a message since the last call of this, and runs by itself."""
        before, self._seen = self._seen, self._clock._counts()
        return [name for name, count in self._seen.items() if count != before.get(name, 0)]

    def _move_on(self) -> bool:
        """Move to the next deadline, unless it is done; see `_move`."""
        return not self._done() and self._move()

    def _move(self) -> bool:
        """Move to the next deadline; return False if there is none any more.

        Raises:
            StillBusy: it is beyond the limit.
        """
        clock = self._clock
        due = clock._next()
        if due <= self._until:
            self._handled = 0
            self._counts = clock._counts()
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
