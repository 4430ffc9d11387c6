"""How a task waits: suspended in its event loop, and woken from any thread.

The rule: whoever changes what a task waits for only notes it under the topic's lock; the loop is
told after the lock, and everything here but `wake` and `notify` runs in the loop's own thread.

A loop that is closed cannot be told.  Then the call is given up for it, so that what it was handed
goes on to the next.

Next: aio/consumer.py
"""

import weakref
from asyncio import AbstractEventLoop, Future, InvalidStateError
from asyncio import _get_running_loop as running_loop  # None where there is none, in C
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from nsqlite.clock import NEVER, Alarm, Clock
from nsqlite.errors import NotAsyncio
from nsqlite.lock import ensure
from nsqlite.message import T
from nsqlite.monitor import Monitor
from nsqlite.persistence import OnDone
from nsqlite.queue import Queue
from nsqlite.waiting import Waiter


def require_loop(call: str) -> AbstractEventLoop:
    """Return the event loop that the calling thread runs.

    Raises:
        NotAsyncio: there is none.
    """
    loop = running_loop()
    if loop is None:
        raise NotAsyncio(call)
    return loop


def call_soon(loop: AbstractEventLoop, callback: Callable[[], object]) -> bool:
    """Have a function called in a loop from another thread; return False if that is closed."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        if not loop.is_closed():
            raise
        return False
    return True


class TaskWaiter(Waiter[T]):
    """A call of get, put or join that waits in the running loop.

    Attributes:
        loop: where it waits.
        timer: what looks for the channel's deadlines meanwhile, None if that is no get.
    """

    __slots__ = (
        "__weakref__",
        "_alarm",
        "_clock",
        "_future",
        "_give_up",
        "_moment",
        "_woken",
        "loop",
        "timer",
    )

    def __init__(
        self,
        call: str,
        monitor: Monitor,
        clock: Clock,
        give_up: Callable[[Waiter[T]], object],
    ) -> None:
        """Begin awake and with empty hands.

        Args:
            call: what was called, for an error.
            monitor: whose operations wake it.
            clock: what a moment is measured by.
            give_up: called with this, in any thread, when its loop is found closed.

        Raises:
            NotAsyncio: no loop is running in this thread.
        """
        super().__init__(monitor)
        self.loop: Final = require_loop(call)
        self.timer: DeadlineTimer | None = None
        self._clock: Final = clock
        self._give_up: Callable[[Waiter[T]], object] = give_up
        self._moment = NEVER
        self._alarm: Alarm | None = None
        self._future: Future[None] | None = None
        self._woken = False

    def wake(self) -> None:
        """Have the call go on, from any thread; the topic's lock is not held."""
        if running_loop() is not self.loop:
            if not call_soon(self.loop, self.wake):
                self.gone = True
                self._give_up(self)
            return
        self._woken = True
        if self._future is not None:
            try:
                self._future.set_result(None)
            except InvalidStateError:  # it was woken already, or cancelled
                pass

    def sleep(self) -> Future[None]:
        """Return what is done when this is woken, or was since `listen`; awaited at once.

        It may be done too early; the caller looks.
        """
        future = self._future = self.loop.create_future()
        if self._woken:
            future.set_result(None)
        return future

    def listen(self) -> None:
        """Be ready for the next wake-up; called before somebody looks what has changed."""
        self._woken = False

    def wake_at(self, moment: int) -> None:
        """Have the call go on at a moment, not before."""
        self._moment = moment
        self._alarm = self._clock.alarm(self.loop, moment, self._at_moment)

    def _at_moment(self) -> None:
        if self._clock.monotonic_ns() < self._moment:  # a loop may call a little too early
            self.wake_at(self._moment)
        else:
            self.wake()

    async def until(
        self, done: Callable[[], bool], moment: int | None, last: Callable[[], bool]
    ) -> bool:
        """Sleep until a condition is true or a moment has come, and end; whatever ends it gives up.

        Args:
            done: listens, looks, and has this woken if the condition is not true yet.
            moment: on the clock's monotonic scale; None never comes.
            last: looks when the moment has come.

        Returns:
            What the condition was at last.
        """
        try:
            if moment is not None:
                self.wake_at(moment)
            while True:
                if done():
                    return True
                if moment is not None and self._clock.monotonic_ns() >= moment:
                    return last()
                await self.sleep()
        finally:
            self._give_up(self)
            self.end()

    def rest(self) -> None:
        """Set no alarm, and sleep no more, until it is used again."""
        self._future = None
        alarm, self._alarm = self._alarm, None
        if alarm is not None:
            alarm.cancel()

    def end(self) -> None:
        """Give up nothing any more; a wake-up that comes too late finds nobody asleep."""
        self._give_up = _ended
        self.rest()


def _ended(waiter: Waiter[Any]) -> None:
    """Give up nothing: the call is over."""


class DeadlineTimer:
    """What looks when a channel's next deadline has come, for all who wait for it in one loop.

    A timer that is set stays set when nobody waits for the moment; a wait costs none of its own.

    Everything but `notify`, `wake` and `end` is called in the loop's own thread.

    Attributes:
        waiters: who waits in the loop for a message of the channel; see `LoopTimer`.
        moment: when it looks; `NEVER` if it does not.
        pool: what stood for gets that are over, for the next.
    """

    __slots__ = (
        "__weakref__",
        "_alarm",
        "_clock",
        "_is_by_hand",
        "_loop",
        "_monitor",
        "_over",
        "_queue",
        "moment",
        "pool",
        "waiters",
    )

    def __init__(
        self, queue: Queue[Any], monitor: Monitor, clock: Clock, loop: AbstractEventLoop
    ) -> None:
        """Begin without a timer, as nobody waits."""
        self._queue: Final = queue
        self._monitor: Final = monitor
        self._clock: Final = clock
        self._is_by_hand: Final[bool] = getattr(clock, "by_hand", False)
        self._loop: Final = loop
        self._alarm: Alarm | None = None
        self.moment: int = NEVER
        self._over = False
        self.waiters: dict[int, None] = {}
        self.pool: Final[list[TaskWaiter[Any]]] = []

    def is_closed(self) -> bool:
        """Return whether its loop is over."""
        return self._loop.is_closed()

    def end(self) -> None:
        """See to it that a clock that is moved by hand does not stop for nobody; any thread."""
        if self._is_by_hand and not self.waiters:
            self._call_off()

    def set(self) -> None:
        """See to it that the timer goes off by the channel's next deadline."""
        moment = self._queue.due
        if moment < self.moment and self.waiters:
            self._call_off()
            self.moment = moment
            self._alarm = self._clock.alarm(self._loop, moment, partial(_go_off, weakref.ref(self)))

    def _call_off(self) -> None:
        """Set no timer."""
        alarm, self._alarm = self._alarm, None
        self.moment = NEVER
        if alarm is not None:
            alarm.cancel()

    def notify(self) -> None:
        """Take note that there may be an earlier deadline.  The topic's lock is held."""
        if not self._over:
            self._monitor.wake_later(self)

    def wake(self) -> None:
        """Have the loop look, from any thread; the topic's lock is not held."""
        if running_loop() is self._loop:
            self._look()
        elif not call_soon(self._loop, self._look):
            self._over = True  # who comes next to wait for this channel forgets it
            self._call_off()

    def _look(self) -> None:
        """Act on what is due, and set the timer anew; a loop may call a little too early."""
        if self._clock.monotonic_ns() >= self.moment:
            self._call_off()
            self._monitor.call(self._queue.sweep)
        elif self.moment != NEVER and self._alarm is not None:
            self._call_off()
        self.set()


def _go_off(timer: "weakref.ref[DeadlineTimer]") -> None:
    """Have a timer look; a loop whose alarm is set keeps no topic alive."""
    known = timer()
    if known is not None:
        known.wake()


class News:
    """What other threads have done for those in one loop: it is told of several at once.

    To wake a loop takes as long as all else that a put does here.
    """

    __slots__ = ("_called", "_told")

    def __init__(self) -> None:
        """Begin with nothing to tell."""
        self._told: Final[deque[tuple[OnDone, BaseException | None]]] = deque()
        self._called = False

    def tell(self, loop: AbstractEventLoop, hear: OnDone, problem: BaseException | None) -> None:
        """Have somebody hear of it in the loop; from any thread.

        Raises:
            RuntimeError: the loop is closed.
        """
        self._told.append((hear, problem))
        if not self._called:
            self._called = True  # before the call, which may be over before this goes on
            try:
                loop.call_soon_threadsafe(self._take)
            except RuntimeError:  # the loop is closed
                self._called = False
                raise
            except BaseException:
                ensure(partial(loop.call_soon_threadsafe, self._take))  # others count on it
                raise

    def _take(self) -> None:
        self._called = False  # before it looks: what comes meanwhile calls again
        while self._told:
            hear, problem = self._told.popleft()
            hear(problem)


_news: Final["weakref.WeakKeyDictionary[AbstractEventLoop, News]"] = weakref.WeakKeyDictionary()


def news_of(loop: AbstractEventLoop) -> News:
    """Return what tells those in a loop."""
    news = _news.get(loop)
    if news is None:
        news = _news.setdefault(loop, News())
    return news


class Done:
    """Something that another thread does and then tells, once.

    Attributes:
        future: done when it was told.
    """

    __slots__ = ("_loop", "_news", "future")

    def __init__(self, call: str) -> None:
        """Begin in the running loop.

        Raises:
            NotAsyncio: no loop is running in this thread.
        """
        self._loop: Final = require_loop(call)
        self.future: Final[Future[None]] = self._loop.create_future()
        self._news: Final = news_of(self._loop)

    def tell(self, problem: BaseException | None = None) -> None:
        """Tell that it is done, or why it could not be; from any thread.

        Raises:
            RuntimeError: the loop is closed, so nobody waits.
        """
        self._news.tell(self._loop, self._hear, problem)

    def _hear(self, problem: BaseException | None) -> None:
        future = self.future
        if future.done():  # whoever waited was cancelled
            return
        if problem is None:
            future.set_result(None)
        else:
            future.set_exception(problem)


async def by_store(
    send: Callable[[Callable[[], object], OnDone], None], task: Callable[[], object], call: str
) -> None:
    """Have something done by the store's thread, and wait for it.

    Args:
        send: what gives a task to that thread; see `QueuePersistence.send`.
        task: what is done.
        call: what was called, for an error.

    Raises:
        NotAsyncio: no loop is running in this thread; nothing is done.
        NSQLiteError: the store is closed and its thread over; nothing is done.
        Exception: what the task raised.

    Cancellation:
        It is done all the same.
    """
    done = Done(call)
    send(task, done.tell)
    await done.future
