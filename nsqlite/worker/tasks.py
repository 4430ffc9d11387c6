"""A worker's slots as tasks, for handlers that are coroutine functions.

The rule: the tasks end when the worker stops; what is left at the end of its patience is cancelled,
and told of if it does not end even then.

They run in the loop that is running when the worker is started; else in a loop of the worker's own,
in a thread of its own.

Next: worker/worker.py
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from nsqlite.aio.consumer import Consumer
from nsqlite.aio.publish import until
from nsqlite.aio.sleeper import Sleeper
from nsqlite.clock import NEVER, Clock
from nsqlite.errors import Closed
from nsqlite.guard import Guard
from nsqlite.message import Message
from nsqlite.waiter import wait_until
from nsqlite.worker.desk import Desk, Slot
from nsqlite.worker.judge import Plan

log: Final = logging.getLogger("nsqlite")

_ROUNDS: Final = 5
"""How often the loop goes round for handlers that were cancelled."""

GRACE: Final = 1.0
"""Real seconds that a loop has which does not come to its end."""

_serving: ContextVar["Tasks | None"] = ContextVar("nsqlite_serving", default=None)
"""Whose handler runs, in its task and in those that it has begun."""


class Tasks:
    """One task for each slot, and the supervisor's.

    Attributes:
        desk: what they act on.
    """

    __slots__ = (
        "_consumer",
        "_gone",
        "_handler",
        "_loop",
        "_main",
        "_over",
        "_tasks",
        "_thread",
        "desk",
    )

    def __init__(self, plan: Plan, consumer: Consumer[Any]) -> None:
        """Make what `start` begins."""
        self.desk: Final = Desk(plan, consumer, "cancelled")
        self._handler: Final = plan.handler
        self._consumer: Final = consumer
        self._over: Final = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._thread: threading.Thread | None = None
        self._gone = False

    def start(self) -> None:
        """Begin, in the running loop or a thread's own."""
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            name = f"{self.desk.plan.name}-loop"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            try:
                self._thread.start()
            except BaseException:
                self._thread = None
                self._finish()
                raise
        else:
            self._main = self._loop.create_task(self._supervise())

    def _run(self) -> None:
        try:
            asyncio.run(self._supervise())
        finally:
            self._gone = True
            self.desk.ring_joiners()

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
        return self._over.is_set()

    def wait(self) -> None:
        """Wait for the end; make it where the loop does not come to it."""
        desk = self.desk
        who = f"stop() of worker {desk.plan.name!r}"
        grace = 0.0
        if self._loop is None or self._loop.is_running():
            grace = GRACE
            left = desk.time_left()
            wait_until(self._consumer._guard, self._consumer._clock, self.is_over, left, who)
        if not self._over.wait(grace):
            self.give_up()
        else:
            self.join_thread(GRACE)

    def give_up(self) -> None:
        """End it without its loop."""
        log.error("%s: the loop of its handlers is blocked or does not run", self.desk.plan.name)
        self.desk.stop(0)
        self._finish()

    def is_gone(self) -> bool:
        """Return whether its loop, if it is its own, has come to its end."""
        return self._over.is_set() and (self._gone or self._thread is None)

    def join_thread(self, patience: float) -> None:
        """Join the thread of its own loop, which waits for what the handlers left running there."""
        thread = self._thread
        if thread is not None:
            thread.join(patience)
            if thread.is_alive():
                name = self.desk.plan.name
                log.error("%s: %s is left behind: its loop has not ended", name, thread.name)

    async def _serve(self, slot: Slot) -> None:
        desk = self.desk
        _serving.set(self)
        try:
            await self._work_on(slot)
        except (asyncio.CancelledError, GeneratorExit):  # the second when its loop was closed
            desk.stop(0)  # the supervisor puts the message back
            raise
        except BaseException as error:
            desk.broke(slot, error)
            raise
        finally:
            desk.leave(slot)

    async def _work_on(self, slot: Slot) -> None:
        desk = self.desk
        most = 1 + desk.plan.prefetch
        while not desk.stopping:
            slot.fetched = await self._next(most)
            while (message := slot.next()) is not None:
                await self._work(slot, message)

    async def _next(self, most: int) -> list[Message[Any]]:
        """Wait for messages; return none where there is a reason to look again."""
        try:
            return (
                [await self._consumer.get()] if most == 1 else await self._consumer.get_many(most)
            )
        except Closed:
            if not self.desk.stopping:
                self.desk.stop(NEVER)  # the channel is over; who is at work may end
            return []

    async def _work(self, slot: Slot, message: Message[Any]) -> None:
        desk = self.desk
        if not desk.begin(slot, message):
            return
        try:
            result = await self._handler(message)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            desk.failed(slot, error)  # what it awaited was cancelled, not the handler
        except Exception as error:
            desk.failed(slot, error)
        else:
            desk.succeeded(slot, result)

    async def _supervise(self) -> None:
        self._loop = asyncio.get_running_loop()
        desk = self.desk
        sleeper: Sleeper[Any] = Sleeper(
            self._consumer._guard, self._consumer._clock, lambda _sleeper: self._finish()
        )
        desk.ring = sleeper.wake
        for slot in desk.slots:
            self._tasks.append(self._loop.create_task(self._serve(slot), name=slot.name))
        try:
            await self._watch(sleeper)
        finally:
            sleeper.end()
            desk.stop(0)
            desk.end()
            try:
                await self._cancel()
            finally:
                self._finish()

    async def _watch(self, sleeper: Sleeper[Any]) -> None:
        while (moment := self.desk.act()) is not None:
            await sleeper.sleep(None if moment == NEVER else moment)
            sleeper.listen()

    def _finish(self) -> None:
        """Leave the channel, and tell who waits for the end."""
        self.desk.end()
        self._over.set()
        self.desk.ring_joiners()
        self.desk.when_over()

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
                log.error("%s: %s was cancelled and goes on", self.desk.plan.name, name)


async def soon(guard: Guard, clock: Clock, done: Callable[[], bool]) -> bool:
    """Wait `GRACE` real seconds for a condition; see `until`."""
    try:
        return await asyncio.wait_for(until(guard, clock, done, None), GRACE)
    except TimeoutError:
        return done()
