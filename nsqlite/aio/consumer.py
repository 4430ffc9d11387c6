"""A consumer for asyncio: `nsqlite.Consumer` with `await` where that one blocks.

The rule: a get that fails or is cancelled leaves no trace: no place among those that wait, and no
message that nobody has.

Its gets stand in the same wait queue as those of threads; who waited first is served first.

Next: aio/publish.py
"""

from asyncio import AbstractEventLoop, _get_running_loop
from collections.abc import AsyncIterator
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from nsqlite.aio.waiting import DeadlineTimer, TaskWaiter, by_store, require_loop
from nsqlite.consumer import POOLED_WAITERS, AnyConsumer
from nsqlite.errors import Closed, Empty
from nsqlite.lock import ensure
from nsqlite.message import Message, T
from nsqlite.options import Seconds, timeout_ns, whole
from nsqlite.persistence import QueuePersistence
from nsqlite.waiting import Waiter


class Consumer(AnyConsumer[T]):
    """A reader of a channel in asyncio; the messages are shared among all its consumers.

    It can be made before there is a loop and used in any number of loops, beside consumers in
    threads.  It can be used in an `async with` statement, which closes it, and in an `async for`
    loop, which ends when the consumer, channel, topic or broker is closed or deleted.

    A consumer that is forgotten without `close` loses nothing: what it held times out, and then it
    counts as gone.

    Threads: `get` and `get_many` belong to the loop in which they are awaited; all else may be
    called from any thread.

    Attributes:
        channel: where its messages come from.
        client_id: its number, never used twice in a process.
        name: its name for events, stats and logs; None if it has none.
        max_in_flight: its window, None for no limit.
        requeue_delay: seconds of delay when the `with` block of a message fails.
    """

    __slots__ = ()

    # Getting

    async def get(self, timeout: Seconds | None = None) -> Message[T]:
        """Return the next message; it is then in flight until it is answered or times out.

        It does not suspend if there is a message.

        Args:
            timeout: seconds to wait; None waits for ever, 0 not at all.  Better than
                `asyncio.wait_for`, which on CPython 3.11 can lose what came in the last moment
                until it times out.

        Raises:
            Empty: none came in time; nothing has changed.
            WindowFull: none could come, since it holds `max_in_flight` messages.
            Closed: the consumer, channel, topic or broker is over.
            InvalidOption: the timeout is negative or no finite number.
            NotAsyncio: it has to wait, and no event loop of asyncio runs here.

        Cancellation:
            A cancelled `get` loses nothing: what it was handed goes back to the head of the queue,
            its attempts as before, and to the next that waits.
        """
        limit = None if timeout is None else timeout_ns(timeout)
        # As in `nsqlite.Consumer.get`: a call that serves both would cost each a twentieth.
        queue = self._queue
        monitor = self._monitor
        ready = queue.ready
        taken = False
        if ready:
            message: Message[T] = Message()
            try:
                try:
                    with self._lock:
                        now = self._now()
                        if (
                            (now < self._fresh or queue.renew(self, now))
                            and ready
                            and self._delivered < self._allowed
                            and not (monitor.state or monitor.wants_room)
                            and (page := self._page).open  # a handler may have let time pass since
                        ):
                            message._record = ready[0]
                            message._consumer = self
                            message._page = page
                            # One piece; what follows is undone by `_forsake`:
                            self._delivered += 1
                            page[message] = self._due
                            del ready[0]
                            if queue.on_delivered is None:
                                return message
                            taken = True
                            queue.on_delivered((message,), self._due)
                finally:
                    if monitor.after:
                        monitor.settle()
            except BaseException:
                ensure(partial(self._forsake, message, None))  # it never reached its caller
                raise
        elif limit == 0 and self._is_nothing():
            raise self._nothing()
        if not taken:
            message = await self._first(limit)
        if queue.persistence is not None and queue.persistence.counted:
            await self._count(queue.persistence, [message])
        return message

    async def get_many(
        self, n: int, timeout: Seconds | None = None, *, linger: Seconds = 0.0
    ) -> list[Message[T]]:
        """Return up to `n` messages, the oldest first, as soon as there is one.

        Args:
            n: the most to return; the window may allow fewer.
            timeout: seconds to wait for the first; None waits for ever, 0 not at all.
            linger: seconds to wait, after the first, for the batch to fill; less than
                `msg_timeout`.  It ends early where the window is full.

        Raises:
            Empty, WindowFull, Closed, InvalidOption, NotAsyncio: as for `get`.

        Cancellation:
            As for `get`: the whole batch goes back to the head of the queue.
        """
        whole("n", n, 1)
        patience = self._patience(linger)
        limit = timeout_ns(timeout)
        if limit == 0 and self._is_nothing():
            raise self._nothing()
        batch: list[Message[T]] = []
        try:
            self._grab(batch, n)
            if not batch and (limit != 0 or self._queue.has_stored()):
                batch.append(await self._first(limit))
                self._grab(batch, n)
            if patience and batch:
                await self._linger(batch, n, patience)
        except (Empty, Closed):
            batch = [message for message in batch if message in message._page]
        except BaseException:
            ensure(partial(self._monitor.call, self._return, batch))
            raise
        if not batch:
            raise self._nothing()
        persistence = self._queue.persistence
        if persistence is not None and persistence.counted:
            await self._count(persistence, batch)
        return batch

    async def _count(self, persistence: QueuePersistence, batch: list[Message[T]]) -> None:
        """Have deliveries counted in the store."""
        try:
            await by_store(persistence.send, partial(persistence.settle, batch), "get")
        except BaseException:
            # It does nothing to what is back already.
            ensure(partial(self._monitor.call, self._return, batch))
            raise

    async def _linger(self, batch: list[Message[T]], n: int, patience: int) -> None:
        """Wait so many nanoseconds for a batch to fill up to `n`."""
        deadline = self._now() + patience
        while len(batch) < n and not self._is_full() and (left := deadline - self._now()) > 0:
            batch.append(await self._first(left))
            self._grab(batch, n)

    async def __aiter__(self) -> AsyncIterator[Message[T]]:
        """Go through the messages until the consumer, channel, topic or broker is over."""
        while True:
            try:
                message = await self.get()
            except Closed:
                return
            yield message

    async def _first(self, limit: int | None) -> Message[T]:
        """Have something in memory if there is something in the store, and wait; takes the lock."""
        queue = self._queue
        while queue.persistence is not None and self._is_short():
            await by_store(queue.persistence.send, queue.persistence.fetch, "get")
        moment = None if limit is None else self._now() + limit
        message: Message[T] = Message()
        got: Message[T] | None = None
        waiter: TaskWaiter[T] | None = None
        try:
            if limit != 0:
                waiter = self._begin()
            got = self._monitor.run(self.channel._receive, self, message, waiter)
            if waiter is not None:
                if got is None:
                    got = await self._sleep(message, waiter, moment)
                over, waiter = waiter, None  # from here on it may be another get's
                self._end(over)
        except BaseException:
            ensure(partial(self._forsake, got or message, waiter))
            raise
        if got is None:
            raise self._nothing()
        return got

    def _begin(self) -> TaskWaiter[T]:
        """Return what stands for a get that waits in the running loop.

        Raises:
            NotAsyncio: no loop is running in this thread.
        """
        timer = self._timer(require_loop("get"))
        if timer.pool:
            waiter = timer.pool.pop()
        else:
            waiter = TaskWaiter("get", self._monitor, self._clock, _lose)
        waiter.owner = self
        waiter.timer = timer
        timer.waiters[id(waiter)] = None
        return waiter

    def _end(self, waiter: TaskWaiter[T]) -> None:
        """Keep what stood for a get that is over, for the next."""
        timer = waiter.timer
        assert timer is not None
        waiter.rest()
        waiter.message = waiter.owner = None
        del timer.waiters[id(waiter)]
        timer.end()
        timer.pool.append(waiter)
        del timer.pool[POOLED_WAITERS:]

    def _forsake(self, message: Message[T], waiter: TaskWaiter[T] | None) -> None:
        """Leave no trace of a get that came to nothing; takes the lock.  Idempotent."""
        if waiter is not None:
            waiter.gone = True
            if waiter.timer is not None:
                waiter.timer.waiters.pop(id(waiter), None)
                waiter.timer.end()
                waiter.timer = None
            waiter.end()
        self._monitor.call(self.channel._abandon, message, waiter)

    async def _sleep(
        self, message: Message[T], waiter: TaskWaiter[T], moment: int | None
    ) -> Message[T] | None:
        """Sleep until a waiter that has queued up was handed a message, or its time is over."""
        queue = self._queue
        channel = self.channel
        monitor = self._monitor
        timer = waiter.timer
        assert timer is not None
        if moment is not None:
            waiter.wake_at(moment)
        while True:
            if queue.due < timer.moment:
                timer.set()
            await waiter.sleep()
            got = queue.waiters.claim(waiter)  # nothing if it was taken back meanwhile
            if got is not None:
                return got
            if moment is not None and self._now() >= moment:
                return monitor.run(channel._give_up, self, message, waiter)
            got = monitor.run(channel._receive, self, message, waiter)
            if got is not None:
                return got

    def _loop_timer(self) -> DeadlineTimer | None:
        """See `AnyConsumer`."""
        loop = _get_running_loop()
        return None if loop is None else self._timer(loop)

    def _timer(self, loop: AbstractEventLoop) -> DeadlineTimer:
        """Return what looks for deadlines in a loop; takes the lock if there is none yet."""
        timers = self._queue.waiters.timers
        known = timers.get(loop)
        if isinstance(known, DeadlineTimer):
            return known
        closed = [
            other
            for other, timer in timers.copy().items()
            if isinstance(timer, DeadlineTimer) and timer.is_closed()
        ]
        made: Final = DeadlineTimer(self._queue, self._monitor, self._clock, loop)

        def keep() -> None:
            for other in closed:
                timers.pop(other, None)
            timers[loop] = made

        self._monitor.run(keep)
        return made

    # Leaving

    async def __aenter__(self) -> Self:
        """Begin a block that closes it."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


def _lose(waiter: Waiter[Any]) -> None:
    """Give up a get whose loop is closed; what it was handed goes to the next."""
    consumer = waiter.owner
    if consumer is not None:
        consumer._monitor.call(consumer.channel._abandon, Message(), waiter)
