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
from typing import Any, Final

from nsqlite.aio.consumer import Consumer
from nsqlite.aio.sleeper import Sleeper
from nsqlite.clock import NEVER
from nsqlite.errors import Closed
from nsqlite.message import Message
from nsqlite.waiter import wait_until
from nsqlite.worker.desk import Desk, Plan, Slot

log: Final = logging.getLogger("nsqlite")

_ROUNDS: Final = 5
"""How often the loop goes round for handlers that were cancelled."""

_GRACE: Final = 1.0
"""Real seconds that a loop has to come round when the time of its handlers is over."""


class Tasks:
    """One task for each slot, and the supervisor's.

    Attributes:
        desk: what they act on.
    """

    __slots__ = ("_consumer", "_handler", "_loop", "_main", "_over", "_tasks", "_thread", "desk")

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
        asyncio.run(self._supervise())

    def is_inside(self) -> bool:
        """Return whether the caller would keep the loop from coming to its end."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return threading.current_thread() is self._thread

    def is_slot(self) -> bool:
        """Return whether the running task is one of these, which the end would wait for."""
        return asyncio.current_task() in self._tasks

    def is_over(self) -> bool:
        """Return whether all has ended that will."""
        return self._over.is_set()

    def wait(self) -> None:
        """Wait for the end; make it where the loop does not come to it."""
        desk = self.desk
        name = desk.plan.name
        who = f"stop() of worker {name!r}"
        grace = 0.0
        if self._loop is None or self._loop.is_running():
            grace = _GRACE
            left = desk.time_left()
            wait_until(self._consumer._guard, self._consumer._clock, self.is_over, left, who)
        if not self._over.wait(grace):
            log.error("%s: the loop of its handlers is blocked or does not run", name)
            desk.stop(0)
            self._finish()
        elif self._thread is not None and all(task.done() for task in self._tasks):
            self._thread.join()

    async def _serve(self, slot: Slot) -> None:
        desk = self.desk
        most = 1 + desk.plan.prefetch
        try:
            while not desk.stopping:
                for message in await self._next(most):
                    if desk.stopping:
                        break  # what was fetched and not begun is put back
                    await self._work(slot, message)
        except (asyncio.CancelledError, GeneratorExit):  # the second when its loop was closed
            desk.stop(0)  # the supervisor puts the message back
            raise
        except BaseException as error:
            desk.broke(slot, error)
            raise
        finally:
            desk.leave(slot)

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
        self._tasks = [
            self._loop.create_task(self._serve(slot), name=slot.name) for slot in desk.slots
        ]
        try:
            while (moment := desk.act()) is not None:
                await sleeper.sleep(None if moment == NEVER else moment)
                sleeper.listen()
        finally:
            sleeper.end()
            desk.stop(0)
            desk.end()
            try:
                await self._cancel()
            finally:
                self._finish()

    def _finish(self) -> None:
        """Leave the channel, and tell who waits for the end."""
        self.desk.end()
        self._over.set()
        self.desk.ring_joiners()

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
