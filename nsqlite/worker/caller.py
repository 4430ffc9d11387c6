"""A worker's slots without a thread or task: handlers run in whoever asks for that.

The rule: what becomes of a message is what would become of it in any other worker; only who calls
the handler, and when, is the caller's choice.

`Worker.drain` runs a worker so; and a broker that is a `Host`, as one for tests is, has all of its
workers run so, and asks them for one message after the other.

Next: worker/worker.py
"""

import asyncio
import threading
import weakref
from asyncio import _get_running_loop as running_loop  # None where there is none, in C
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, ClassVar, Final, Literal, Protocol, TypeAlias, runtime_checkable

from nsqlite.aio.waiting import require_loop
from nsqlite.clock import NEVER, Alarm
from nsqlite.consumer import AnyConsumer
from nsqlite.errors import Closed, StillBusy, shown
from nsqlite.message import Message
from nsqlite.options import MOST_HANDLED, SECOND
from nsqlite.worker.handler import Handler, is_coroutine
from nsqlite.worker.outcome import Outcome
from nsqlite.worker.plan import Plan
from nsqlite.worker.supervisor import Slot, Supervisor
from nsqlite.worker.tasks import uncancel

Turn: TypeAlias = Literal["asked", "at once"]
"""When the handlers of a worker run in the caller: when somebody asks for that, or in whoever makes
a message ready."""


@runtime_checkable
class Host(Protocol):
    """A broker that its workers ask how they are to run."""

    def _take_on(self, worker: Any) -> Turn | None:
        """Take note of a worker that is about to start; return how it runs, None for as ever."""
        ...

    def _serve(self, is_over: Callable[[], bool]) -> bool:
        """Run the handlers until that is over or nothing is left; return False if they run so."""
        ...


def needs_await(handler: Handler) -> bool:
    """Return whether a handler cannot be called here: a loop runs, and would have to go on."""
    return is_coroutine(handler) and running_loop() is not None


_calling: ContextVar[tuple["CallerRunner", ...]] = ContextVar("nsqlite_calling", default=())
"""Whose handlers are being called: one that puts may have another one called, inside of it."""


class CallerRunner:
    """Slots for messages that the caller works on.

    Threads: any; each message is one caller's.

    Attributes:
        kind: what they are, in a word.
        supervisor: what they act on.
        is_coroutine: whether the handler is to be awaited.
        due: when flow control, or a time limit, has something to do; `NEVER` for never.
    """

    kind: ClassVar[str] = "slots of the caller"

    __slots__ = (
        "__weakref__",
        "_callers",
        "_consumer",
        "_expect",
        "_free",
        "_handler",
        "_is_listening",
        "_taken",
        "_tasks",
        "_turn",
        "due",
        "is_coroutine",
        "supervisor",
    )

    def __init__(self, plan: Plan, consumer: AnyConsumer[Any], turn: Turn = "asked") -> None:
        """Begin with free slots; see `start`."""
        self.is_coroutine: Final = is_coroutine(plan.handler)
        self.due: int = NEVER
        self._handler: Final = plan.handler
        self._consumer: Final = consumer
        self._turn: Final = turn
        self._is_listening = False
        self._callers: Final[list[int]] = []
        self._taken: Final[dict[Message[Any], Slot]] = {}  # and not begun
        self._tasks: Final[dict[Slot, asyncio.Task[None]]] = {}
        self._expect: Final = consumer._clock.attach(self)
        self.supervisor: Final = Supervisor(
            plan, consumer, overdue="left behind", wake=self._wake, cut=self._cancel
        )
        self._free: Final = list(reversed(self.supervisor.slots))
        consumer._find_crew = weakref.WeakMethod(self._crew)

    def start(self) -> None:
        """Begin."""
        if self._turn == "at once":
            self._on_ready()

    def _crew(self) -> set[object]:
        """Return the threads that call the handler just now."""
        return set(self._callers)

    def is_inside(self) -> bool:
        """Return whether the caller would keep the handlers from coming to their end."""
        return self.is_slot() or needs_await(self._handler)

    def is_slot(self) -> bool:
        """Return whether this is called by a handler, or by a task that one has begun."""
        return self in _calling.get()

    def is_over(self) -> bool:
        """Return whether all has ended that will."""
        return self.supervisor.over.is_set()

    def wait(self) -> None:
        """Wait until a handler at work in another thread has ended, in real time."""
        if not self.supervisor.over.wait(self.supervisor.time_left() / SECOND):
            self.give_up()

    def give_up(self) -> None:
        """End without the handlers at work; those that are tasks are cancelled."""
        for task in list(self._tasks.values()):
            task.cancel()
        self.supervisor.stop(0)
        self.supervisor.finish()

    # Time

    def next_due(self) -> int:
        """See `nsqlite.clock.Timed`."""
        return self.due

    def whose(self) -> str:
        """See `nsqlite.clock.Timed`."""
        return f"the end of what holds back worker {self.supervisor.plan.name!r}, or its time limit"

    def advance(self) -> None:
        """Act on what is due by now."""
        if not self.is_over():
            moment = self.supervisor.act()
            self.due = NEVER if moment is None else moment
            if self.due != NEVER:
                self._expect(self.due)

    def _wake(self) -> None:
        """Act early; called by the supervisor, in any thread."""
        if self.supervisor.stopping:
            self._end()
        else:
            self.advance()

    def _end(self) -> None:
        """Come to the end, if no handler is at work: nobody is there to wait for more."""
        if self.supervisor.is_idle() and not self.is_over():
            self.due = NEVER
            self.supervisor.finish()

    # Messages

    def take(self) -> Message[Any] | None:
        """Return a message for `work`, if there is one and a slot for it; never waits."""
        slot = None if self.supervisor.stopping else self._reserve()
        if slot is None:
            return None
        message = self._take()
        if message is None:
            self._free.append(slot)
            self._listen()
        else:
            self._taken[message] = slot
        return message

    def _reserve(self) -> Slot | None:
        """Return a slot that is free, before another thread takes it."""
        try:
            return self._free.pop()
        except IndexError:
            return None

    def _take(self) -> Message[Any] | None:
        self.advance()
        consumer = self._consumer
        persistence = consumer._queue.persistence
        try:
            if persistence is not None and consumer._is_short():
                persistence.fetch()
            taken = consumer.take(1)
            if taken:
                return taken[0]
        except Closed:
            self.supervisor.end_with_channel()
        except Exception as problem:  # the store's: a handler's are caught where it is called
            self.supervisor.settler.trouble(problem)
        return None

    def give_back(self, message: Message[Any]) -> None:
        """Put a message back that was taken, its attempts as before."""
        self._free.append(self._taken.pop(message))
        self.supervisor.put_back([message])

    def working(self) -> str:
        """Return in words who works here."""
        return f"worker {self.supervisor.plan.name!r}"

    def trouble(self) -> str:
        """Return in words what its handler has raised first; empty if nothing."""
        error = self.supervisor.settler.error
        return "" if error is None else f"the handler of {self.working()} has raised {shown(error)}"

    def work(self, message: Message[Any]) -> None:
        """Call the handler, a plain function, with a message that was taken.

        Raises:
            BaseException: the handler raised it, and it is not an `Exception`; the worker is over.
        """
        slot = self._taken.pop(message)
        try:
            self._call(slot, message)
        except BaseException as error:
            self.supervisor.broke(slot, error)
            raise
        finally:
            self._leave(slot)

    def _call(self, slot: Slot, message: Message[Any]) -> None:
        supervisor = self.supervisor
        if supervisor.begin(slot, message) is None:
            return
        token = _calling.set((*_calling.get(), self))
        self._callers.append(threading.get_ident())
        try:
            result = self._handler(message)
        except Exception as error:
            self._failed(slot, error)
        else:
            supervisor.succeeded(slot, result, more=False)
        finally:
            self._callers.remove(threading.get_ident())
            _calling.reset(token)

    def _failed(self, slot: Slot, error: BaseException) -> None:
        """Settle a failure; the first one keeps its traceback, for who has it raised."""
        if not isinstance(error, Outcome):
            self.supervisor.settler.remember(error)
        self.supervisor.failed(slot, error)

    def _leave(self, slot: Slot) -> None:
        self._free.append(slot)
        if self.supervisor.stopping:
            self._end()

    def begin_task(self, message: Message[Any]) -> asyncio.Task[None]:
        """Return a task that calls the handler, a coroutine function, with a message.

        It raises what `work` raises.  If it is cancelled, the message goes back, its attempts as
        before.
        """
        slot = self._taken.pop(message)
        loop = asyncio.get_running_loop()
        task = self._tasks[slot] = loop.create_task(self._await(slot, message), name=slot.name)
        task.add_done_callback(lambda task: self._leave_task(slot, message, task))
        return task

    def _leave_task(self, slot: Slot, message: Message[Any], task: asyncio.Task[None]) -> None:
        """Take note that a task is over; one that was cancelled may not even have begun."""
        if task.cancelled():
            slot.message = None
            self.supervisor.put_back([message])
        del self._tasks[slot]
        self._leave(slot)

    async def _await(self, slot: Slot, message: Message[Any]) -> None:
        supervisor = self.supervisor
        _calling.set((*_calling.get(), self))  # in a task of its own
        alarm = _Alarm(self)
        try:
            if supervisor.begin(slot, message) is not None:
                alarm.set()
                await self._await_handler(slot, message)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            supervisor.broke(slot, error)
            raise
        finally:
            alarm.cancel()

    async def _await_handler(self, slot: Slot, message: Message[Any]) -> None:
        supervisor = self.supervisor
        try:
            result = await self._handler(message)
        except asyncio.CancelledError as error:
            if uncancel(slot):
                raise
            # Else what it awaited was cancelled, not the handler:
            self._failed(slot, supervisor.late_error() if slot.late else error)
        except Exception as error:
            uncancel(slot)
            self._failed(slot, error)
        else:
            uncancel(slot)
            supervisor.succeeded(slot, result, more=False)

    def _cancel(self, slot: Slot) -> bool:
        """Cancel the handler of a slot; one that is no task cannot be."""
        task = self._tasks.get(slot)
        return task is not None and task.cancel()

    # At once

    def _listen(self) -> None:
        """Have `_on_ready` called by whoever makes a message ready."""
        if self._turn == "at once" and not (self._is_listening or self.supervisor.stopping):
            self._is_listening = True
            self._consumer.when_ready(self._on_ready)

    def _on_ready(self) -> None:
        """Handle all that is ready.

        Where an event loop runs, a handler that is to be awaited cannot be called, nor can any by
        the thread of a store or a server; the messages stay for who takes them in another way.
        """
        self._is_listening = False
        serves = hasattr(threading.current_thread(), "at_rest")
        if not (serves or self.is_inside()):
            self.drain(MOST_HANDLED, raise_first=False)

    # All that is there

    def drain(self, limit: int, *, raise_first: bool) -> int:
        """Handle what is ready; see `Worker.drain`."""
        if self.is_coroutine:  # in a loop of its own
            return asyncio.run(self.drain_async(limit, raise_first=raise_first))
        done = 0
        while (message := self._take_of(done, limit)) is not None:
            self.work(message)
            done += 1
            self.raise_error(raise_first)
        return done

    async def drain_async(self, limit: int, *, raise_first: bool) -> int:
        """Handle what is ready; see `nsqlite.aio.drain`."""
        if self.is_coroutine:
            require_loop("drain")
        done = 0
        while (message := self._take_of(done, limit)) is not None:
            if self.is_coroutine:
                await self._see_to_end(message)
            else:
                self.work(message)
            done += 1
            self.raise_error(raise_first)
        return done

    async def _see_to_end(self, message: Message[Any]) -> None:
        """Await the handler; on a clock by hand it may wait for what does not come by itself."""
        attend = getattr(self._consumer._clock, "_attend", None)
        if attend is None:
            await self.begin_task(message)
        else:
            await attend(self, message, f"drain() of {self.working()}")

    def raise_error(self, raise_first: bool) -> None:
        """Raise the first error of the handler, if there is one and it is wanted."""
        error = self.supervisor.settler.error
        if raise_first and error is not None:
            raise error

    def _take_of(self, done: int, limit: int) -> Message[Any] | None:
        message = self.take()
        if message is not None and done >= limit:
            self.give_back(message)
            raise StillBusy(f"drain() of {self.working()}", f"{limit} messages", "one more of them")
        return message

    def close(self) -> None:
        """Leave the channel; what was taken over stays in flight until it is answered."""
        self._consumer.close(give_back=False)


class _Alarm:
    """Has a runner act in time while a loop runs its handler, on a clock that goes by itself."""

    def __init__(self, runner: CallerRunner) -> None:
        self._runner: Final = runner
        self._alarm: Alarm | None = None

    def set(self) -> None:
        """Set it, if there is a moment for it."""
        runner = self._runner
        runner.advance()
        clock = runner._consumer._clock
        if runner.due != NEVER and not getattr(clock, "by_hand", False):
            loop = asyncio.get_running_loop()
            self._alarm = clock.alarm(loop, runner.due, self.set)

    def cancel(self) -> None:
        """Call it off."""
        if self._alarm is not None:
            self._alarm.cancel()
