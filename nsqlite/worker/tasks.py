"""A worker's slots as tasks, for handlers that are coroutine functions.

The rule: the tasks end when the worker stops; what is left at the end of its patience is cancelled,
and told of if it does not end even then.

They run in the loop that is running when the worker is started; else in a loop of the worker's own,
in a thread of its own.

Next: worker/worker.py
"""

import asyncio
import threading
from typing import Any, Final

from nsqlite.aio.consumer import Consumer
from nsqlite.aio.sleeper import Sleeper
from nsqlite.clock import NEVER
from nsqlite.errors import Closed
from nsqlite.message import Message
from nsqlite.worker.desk import Desk, Plan, Slot

_ROUNDS: Final = 5
"""How often the loop goes round for handlers that were cancelled."""


class Tasks:
    """One task for each slot, and the supervisor's.

    Attributes:
        desk: what they act on.
    """

    __slots__ = ("_consumer", "_handler", "_loop", "_main", "_over", "_thread", "desk")

    def __init__(self, plan: Plan, consumer: Consumer[Any]) -> None:
        """Make what `start` begins."""
        self.desk: Final = Desk(plan, consumer, "cancelled")
        self._handler: Final = plan.handler
        self._consumer: Final = consumer
        self._over: Final = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, in the running loop or a thread's own."""
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            name = f"{self.desk.plan.name}-loop"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()
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

    def is_over(self) -> bool:
        """Return whether all has ended that will."""
        return self._over.is_set()

    def wait(self) -> None:
        """Wait for the end, of which the supervisor makes sure."""
        self._over.wait()
        if self._thread is not None and all(slot.over for slot in self.desk.slots):
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
        except asyncio.CancelledError:
            slot.message = None  # the supervisor puts it back
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
                self.desk.stop(0)  # the channel is over, and so is the worker
            return []

    async def _work(self, slot: Slot, message: Message[Any]) -> None:
        desk = self.desk
        if not desk.begin(slot, message):
            return
        try:
            result = await self._handler(message)
        except Exception as error:
            desk.failed(slot, error)
        else:
            desk.succeeded(slot, result)

    async def _supervise(self) -> None:
        self._loop = asyncio.get_running_loop()
        desk = self.desk
        sleeper: Sleeper[Any] = Sleeper(
            self._consumer._guard, self._consumer._clock, lambda _sleeper: None
        )
        desk.ring = sleeper.wake
        tasks = [self._loop.create_task(self._serve(slot), name=slot.name) for slot in desk.slots]
        try:
            while (moment := desk.act()) is not None:
                await sleeper.sleep(None if moment == NEVER else moment)
                sleeper.listen()
        finally:
            sleeper.end()
            desk.stop(0)
            self._consumer.close()
            try:
                await self._cancel(tasks)
            finally:
                self._over.set()
                desk.ring_joiners()

    async def _cancel(self, tasks: list[asyncio.Task[None]]) -> None:
        """Cancel what has not ended, and let the loop go round so that it can."""
        for task in tasks:
            task.cancel()
        for _ in range(_ROUNDS):
            if not all(task.done() for task in tasks):
                await asyncio.sleep(0)
