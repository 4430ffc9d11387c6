"""A worker's slots as threads, for handlers that are plain functions.

The rule: a thread of a worker ends when the worker stops; one whose handler never returns is left
behind as a daemon, and told of.

Next: worker/tasks.py
"""

import threading
import weakref
from functools import partial
from typing import Any, ClassVar, Final

from nsqlite.clock import NEVER, held_semaphore, release
from nsqlite.consumer import Consumer
from nsqlite.errors import ClockStandsStill, Closed
from nsqlite.message import Message
from nsqlite.waiting import wait_until
from nsqlite.worker.plan import Plan
from nsqlite.worker.supervisor import Slot, Supervisor


class ThreadRunner:
    """One thread for each slot, and the supervisor's.

    Attributes:
        kind: what they are, in a word.
        supervisor: what they act on.
    """

    kind: ClassVar[str] = "threads"

    __slots__ = (
        "__weakref__",
        "_clock",
        "_consumer",
        "_handler",
        "_semaphore",
        "_threads",
        "supervisor",
    )

    def __init__(self, plan: Plan, consumer: Consumer[Any]) -> None:
        """Make the threads; see `start`."""
        self._handler: Final = plan.handler
        self._consumer: Final = consumer
        self._clock: Final = consumer._clock
        self._semaphore: Final = held_semaphore()
        self.supervisor: Final = Supervisor(
            plan, consumer, overdue="left behind", wake=partial(release, self._semaphore)
        )
        self._threads: Final = [
            threading.Thread(target=self._serve, args=(slot,), name=slot.name, daemon=True)
            for slot in self.supervisor.slots
        ]
        name = f"{plan.name}-supervisor"
        self._threads.append(threading.Thread(target=self._supervise, name=name, daemon=True))
        consumer._find_crew = weakref.WeakMethod(self._crew)

    def start(self) -> None:
        """Begin."""
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:  # there may be no supervisor
            self._finish()
            raise

    def _crew(self) -> set[object]:
        """Return the threads that take messages, by their numbers."""
        pairs = zip(self.supervisor.slots, self._threads, strict=False)  # without the supervisor's
        return {thread.ident for slot, thread in pairs if not slot.over}

    def is_inside(self) -> bool:
        """Return whether the calling thread is one of these."""
        return threading.current_thread() in self._threads

    def is_slot(self) -> bool:
        """Return whether this is called by a handler."""
        return self.is_inside()

    def is_over(self) -> bool:
        """Return whether all has ended that will."""
        return self.supervisor.over.is_set()

    def wait(self) -> None:
        """Wait for the end, of which the supervisor makes sure; join the threads that ended."""
        who = f"stop() of worker {self.supervisor.plan.name!r}"
        wait_until(self._consumer._monitor, self._clock, self.is_over, None, who)
        left = {slot.name for slot in self.supervisor.slots if slot.message is not None}
        for thread in self._threads:
            if thread.name not in left and thread.ident is not None:
                thread.join()

    # In the thread of a slot

    def _serve(self, slot: Slot) -> None:
        try:
            self._work_on(slot)
        except BaseException as error:
            self.supervisor.broke(slot, error)
            raise  # to threading.excepthook
        finally:
            self.supervisor.leave(slot)

    def _work_on(self, slot: Slot) -> None:
        supervisor = self.supervisor
        while not supervisor.stopping:
            self._work(slot, slot.next() or self._next(slot))

    def _next(self, slot: Slot) -> Message[Any] | None:
        """Wait for a message; return none where there is a reason to look again."""
        prefetch = self.supervisor.plan.prefetch
        try:
            if not prefetch:
                return self._consumer.get()
            slot.fetched = self._consumer.get_many(1 + prefetch)
        except (Closed, ClockStandsStill):  # the second is for who waits for this worker
            if self._consumer.closed:
                self.supervisor.end_with_channel()
        except Exception as problem:  # the store's: a handler's are caught where it is called
            self.supervisor.settler.trouble(problem)
        return slot.next()

    def _work(self, slot: Slot, message: Message[Any] | None) -> None:
        """Call the handler with a message, and with those that are taken with the answer."""
        supervisor = self.supervisor
        handler = self._handler
        following = None if message is None else supervisor.begin(slot, message)
        del message  # it is not to outlive its handler
        while following is not None:
            try:
                result = handler(following)
            except Exception as error:
                supervisor.failed(slot, error)
                return
            following = supervisor.succeeded(slot, result)

    # In the supervisor's thread

    def _supervise(self) -> None:
        try:
            self._watch()
        finally:
            self._finish()

    def _watch(self) -> None:
        while (moment := self.supervisor.act()) is not None:
            until = None if moment == NEVER else moment
            try:
                self._clock.wait(self._semaphore, until, "the supervisor of a worker")
            except ClockStandsStill:
                pass  # for who waits for this worker

    def _finish(self) -> None:
        """Leave the channel, and tell who waits for the end."""
        self.supervisor.stop(0)
        self.supervisor.finish()
