"""A worker's slots as tasks, for handlers that are coroutine functions.

The rule: the tasks end when the worker stops; what is left at the end of its patience is cancelled,
and told of if it does not end even then.

They run in the loop that is running when the worker is started; else in a loop of the worker's own,
in a thread of its own.

Next: worker/caller.py
"""

import asyncio
import logging
import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from itertools import count
from typing import Any, ClassVar, Final

from nsqlite.aio.consumer import Consumer
from nsqlite.aio.publish import until
from nsqlite.aio.waiting import TaskWaiter
from nsqlite.clock import NEVER, SYSTEM, Clock
from nsqlite.errors import Closed
from nsqlite.message import Message
from nsqlite.monitor import Monitor
from nsqlite.options import SECOND
from nsqlite.waiting import wait_until
from nsqlite.worker.plan import Plan
from nsqlite.worker.supervisor import Slot, Supervisor

log: Final = logging.getLogger("nsqlite")

TURN: Final = SECOND // 1000
"""Nanoseconds that the handlers of a worker may keep their loop to themselves, however many slots
there are, before it goes round."""

LOOKS: Final = 100
"""The same on a clock that is moved by hand, in looks at it: so each run is like the one before."""

real_time: Final = SYSTEM.monotonic_ns

_ROUNDS: Final = 5
"""How often the loop goes round for handlers that were cancelled."""

GRACE: Final = 1.0
"""Real seconds that a loop has which does not come to its end."""

_serving: ContextVar["TaskRunner | None"] = ContextVar("nsqlite_serving", default=None)
"""Whose handler runs, in its task and in those that it has begun."""


class TaskRunner:
    """One task for each slot, and the supervisor's.

    Attributes:
        kind: what they are, in a word.
        supervisor: what they act on.
    """

    kind: ClassVar[str] = "tasks"

    __slots__ = (
        "__weakref__",
        "_consumer",
        "_gone",
        "_handler",
        "_loop",
        "_main",
        "_number",
        "_tasks",
        "_thread",
        "_time",
        "_turn",
        "_turn_ends",
        "_waiting",
        "supervisor",
    )

    def __init__(self, plan: Plan, consumer: Consumer[Any]) -> None:
        """Make what `start` begins."""
        self.supervisor: Final = Supervisor(
            plan, consumer, overdue="cancelled", wake=self._wake, cut=self._cancel_slot
        )
        self._handler: Final = plan.handler
        self._consumer: Final = consumer
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._thread: threading.Thread | None = None
        self._waiting: TaskWaiter[Any] | None = None  # the supervisor's task
        self._gone = False
        by_hand: bool = getattr(consumer._clock, "by_hand", False)
        self._time: Final[Callable[[], int]] = count(1).__next__ if by_hand else real_time
        self._turn: Final = LOOKS if by_hand else TURN
        self._turn_ends = 0  # by `_time`
        self._number = 0  # of the loop's thread
        consumer._find_crew = weakref.WeakMethod(self._crew)

    def start(self) -> None:
        """Begin, in the running loop or a thread's own."""
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            name = f"{self.supervisor.plan.name}-loop"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            try:
                self._thread.start()
            except BaseException:
                self._thread = None
                self.supervisor.finish()
                raise
        else:
            self._main = self._loop.create_task(self._supervise())

    def _run(self) -> None:
        try:
            asyncio.run(self._supervise())
        finally:
            self._gone = True
            self.supervisor.settler.notify_joins()

    def _crew(self) -> set[object]:
        """Return who takes messages: their loop's thread, if it was started."""
        return {self._number} if self._number else set()

    def is_inside(self) -> bool:
        """Return whether the caller would keep the loop from coming to its end."""
        if self.is_slot():  # also in a thread that a handler awaits
            return True
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return threading.current_thread() is self._thread

    def is_slot(self) -> bool:
        """Return whether this is called by a handler, or by a task that one has begun."""
        return _serving.get() is self

    def is_over(self) -> bool:
        """Return whether all has ended that will."""
        return self.supervisor.over.is_set()

    def wait(self) -> None:
        """Wait for the end; make it where the loop does not come to it."""
        supervisor = self.supervisor
        who = f"stop() of worker {supervisor.plan.name!r}"
        grace = 0.0
        if self._loop is None or self._loop.is_running():
            grace = GRACE
            left = supervisor.time_left()
            wait_until(self._consumer._monitor, self._consumer._clock, self.is_over, left, who)
        if not supervisor.over.wait(grace):
            self.give_up()
        else:
            self.join_thread(GRACE)

    def give_up(self) -> None:
        """End it without its loop."""
        supervisor = self.supervisor
        log.error("%s: the loop of its handlers is blocked or does not run", supervisor.plan.name)
        supervisor.stop(0)
        supervisor.finish()

    def is_gone(self) -> bool:
        """Return whether its loop, if it is its own, has come to its end."""
        return self.supervisor.over.is_set() and (self._gone or self._thread is None)

    def join_thread(self, patience: float) -> None:
        """Join the thread of its own loop, which waits for what the handlers left running there."""
        thread = self._thread
        if thread is not None:
            thread.join(patience)
            if thread.is_alive():
                name = self.supervisor.plan.name
                log.error("%s: %s is left behind: its loop has not ended", name, thread.name)

    # In the task of a slot

    async def _serve(self, slot: Slot) -> None:
        supervisor = self.supervisor
        _serving.set(self)
        try:
            await self._work_on(slot)
        except (asyncio.CancelledError, GeneratorExit):  # the second when its loop was closed
            if not self._is_loop_ending():
                supervisor.note_cancel(slot)
            supervisor.stop(0)  # the supervisor puts the message back
            raise
        except BaseException as error:
            supervisor.broke(slot, error)
            raise
        finally:
            supervisor.leave(slot)

    def _is_loop_ending(self) -> bool:
        """Return whether all tasks of the loop are cancelled, as at the end of `asyncio.run`."""
        return self._main is not None and self._main.cancelling() > 0

    async def _work_on(self, slot: Slot) -> None:
        supervisor = self.supervisor
        while not supervisor.stopping:
            if self._time() >= self._turn_ends:
                await self._give_way()
            else:
                await self._work(slot, slot.next() or await self._next(slot))

    async def _give_way(self) -> None:
        """Let the loop go round, and begin another turn once it has.

        Handlers that never suspend would keep it for as long as there are messages.
        """
        assert self._loop is not None
        if self._turn_ends:
            self._turn_ends = 0  # until the callback has come all slots wait for it
            self._loop.call_soon(self._begin_turn)
        await asyncio.sleep(0)

    def _begin_turn(self) -> None:
        self._turn_ends = self._time() + self._turn

    async def _next(self, slot: Slot) -> Message[Any] | None:
        """Wait for a message; return none where there is a reason to look again."""
        prefetch = self.supervisor.plan.prefetch
        try:
            if not prefetch:
                return await self._consumer.get()
            slot.fetched = await self._consumer.get_many(1 + prefetch)
        except Closed:
            self.supervisor.end_with_channel()
        except Exception as problem:  # the store's: a handler's are caught where it is called
            self.supervisor.settler.trouble(problem)
        return slot.next()

    async def _work(self, slot: Slot, message: Message[Any] | None) -> None:
        """Call the handler with a message, and with those that are taken with the answer."""
        supervisor = self.supervisor
        handler = self._handler
        following = None if message is None else supervisor.begin(slot, message)
        del message  # it is not to outlive its handler
        while following is not None:
            try:
                result = await handler(following)
            except asyncio.CancelledError as error:
                if uncancel(slot):
                    raise
                # Else what it awaited was cancelled, not the handler:
                supervisor.failed(slot, supervisor.late_error() if slot.late else error)
                return
            except Exception as error:
                uncancel(slot)
                supervisor.failed(slot, error)
                return
            if slot.late:
                uncancel(slot)
            following = supervisor.succeeded(slot, result, self._time() < self._turn_ends)

    # In the supervisor's task

    async def _supervise(self) -> None:
        supervisor = self.supervisor
        consumer = self._consumer
        waiting: TaskWaiter[Any] = TaskWaiter(
            "start", consumer._monitor, consumer._clock, lambda _waiter: supervisor.finish()
        )
        self._waiting = waiting
        self._loop = waiting.loop
        self._number = threading.get_ident()
        self._begin_turn()
        for slot in supervisor.slots:
            self._tasks.append(self._loop.create_task(self._serve(slot), name=slot.name))
        try:
            await self._watch(waiting)
        finally:
            waiting.end()
            supervisor.stop(0)
            supervisor.end()
            try:
                await self._cancel()
            finally:
                supervisor.finish()

    async def _watch(self, waiting: TaskWaiter[Any]) -> None:
        clock = self._consumer._clock
        while (moment := self.supervisor.act()) is not None:
            alarm = None if moment == NEVER else clock.alarm(waiting.loop, moment, waiting.wake)
            try:
                if clock.monotonic_ns() < moment:  # else it has just come, and nothing calls
                    await waiting.sleep()
            finally:
                if alarm is not None:
                    alarm.cancel()
            waiting.listen()

    def _wake(self) -> None:
        """Have the supervisor's task look again, from any thread; before it begins it will."""
        if self._waiting is not None:
            self._waiting.wake()

    def _cancel_slot(self, slot: Slot) -> bool:
        """Cancel the handler of a slot."""
        return self._tasks[self.supervisor.slots.index(slot)].cancel()

    async def _cancel(self) -> None:
        """Cancel what has not ended, and let the loop go round so that it can."""
        assert self._loop is not None
        if self._loop.is_closed():
            return
        for task in self._tasks:
            if not task.done():  # else asyncio would say nothing of what it raised
                task.cancel()
        for _ in range(_ROUNDS):
            if not all(task.done() for task in self._tasks):
                await asyncio.sleep(0)
        for task in self._tasks:
            if not task.done():
                name = task.get_name()
                log.error("%s: %s was cancelled and goes on", self.supervisor.plan.name, name)


def uncancel(slot: Slot) -> int:
    """Take back that a handler was cancelled for its time; return whether others want that.

    It is called in the task of the slot.
    """
    task = asyncio.current_task()
    assert task is not None
    return task.uncancel() if slot.late else task.cancelling()


async def soon(monitor: Monitor, clock: Clock, done: Callable[[], bool]) -> bool:
    """Wait `GRACE` real seconds for a condition; see `until`."""
    try:
        return await asyncio.wait_for(until(monitor, clock, done, None), GRACE)
    except TimeoutError:
        return done()
