"""A consumer for asyncio: `nsqlite.Consumer` with `await` where that one blocks.

The rule: a get that fails or is cancelled leaves no trace: no place in line, and no message that
nobody has.

Its gets stand in the same line as those of threads; who waited first is served first.

Next: aio/publish.py
"""

from asyncio import AbstractEventLoop
from collections.abc import AsyncIterator
from functools import partial
from types import TracebackType
from typing import Final, Self

from nsqlite.aio.lookout import Lookout
from nsqlite.aio.sleeper import Sleeper
from nsqlite.aio.told import by_store
from nsqlite.channel import Channel
from nsqlite.errors import Closed, Empty
from nsqlite.getting import Getting
from nsqlite.message import Message, T
from nsqlite.options import timeout_ns, whole
from nsqlite.shelf import Shelf


class Consumer(Getting[T]):
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
        max_in_flight: its window, None for no limit.
        requeue_delay: seconds of delay when the `with` block of a message fails.
    """

    __slots__ = ()

    def __init__(
        self,
        channel: Channel[T],
        *,
        max_in_flight: int | None = None,
        msg_timeout: float | None = None,
        requeue_delay: float = 0.0,
    ) -> None:
        """Join a channel; the arguments are those of `nsqlite.Consumer`.

        Raises:
            InvalidOption: the channel is no `Channel`, or one of the others is out of its range.
            TooManyConsumers: the channel has `max_channel_consumers` already.
            Closed: the channel is closed or deleted.
        """
        super().__init__(channel, max_in_flight, msg_timeout, requeue_delay)

    # Getting

    async def get(self, timeout: float | None = None) -> Message[T]:
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

        Cancellation:
            A cancelled `get` loses nothing: what it was handed goes back to the head of the queue,
            its attempts as before, and to the next in line.
        """
        limit = None if timeout is None else timeout_ns(timeout)
        ready = self._ready
        if ready:
            # As in `nsqlite.Consumer.get`: a call that serves both would cost each a twentieth.
            with self._lock:
                now = self._now()
                message: Message[T] = Message()
                gate = self.gate
                if (
                    now < gate.fresh
                    and ready
                    and self.delivered < self.allowed
                    and not self._guard.wary
                ):
                    message._record = ready[0]
                    message._consumer = self
                    message._tick = tick = gate.tick
                    message._delivered = now
                    self.delivered += 1
                    tick[message] = None
                    del ready[0]
                    return message
        shelf = self._flow.shelf
        if shelf is None:
            return await self._wait(limit)
        known = shelf.deliver(self)
        got = await self._first(limit) if known is None else known
        if shelf.counted:
            await self._settle(shelf, [got])
        return got

    async def get_many(
        self, n: int, timeout: float | None = None, *, linger: float = 0.0
    ) -> list[Message[T]]:
        """Return up to `n` messages, the oldest first, as soon as there is one.

        Args:
            n: the most to return; the window may allow fewer.
            timeout: seconds to wait for the first; None waits for ever, 0 not at all.
            linger: seconds to wait, after the first, for the batch to fill; less than
                `msg_timeout`.  It ends early where the window is full.

        Raises:
            Empty, WindowFull, Closed, InvalidOption: as for `get`.

        Cancellation:
            As for `get`: the whole batch goes back to the head of the queue.
        """
        whole("n", n, 1)
        patience = self._patience(linger)
        limit = timeout_ns(timeout)
        batch: list[Message[T]] = []
        try:
            self._grab(batch, n)
            if not batch:
                batch.append(await self._first(limit))
                self._grab(batch, n)
            if patience:
                await self._linger(batch, n, patience)
        except (Empty, Closed):
            batch = [message for message in batch if message in message._tick]
            if not batch:
                raise
        except BaseException:
            self._guard.call(self._return, batch)
            raise
        shelf = self._flow.shelf
        if shelf is not None and shelf.counted:
            await self._settle(shelf, batch)
        return batch

    async def _settle(self, shelf: Shelf, batch: list[Message[T]]) -> None:
        """Have deliveries counted in the store."""
        try:
            await by_store(shelf, partial(shelf.settle, batch))
        except BaseException:
            self._guard.call(self._return, batch)  # does nothing to what is back already
            raise

    async def _linger(self, batch: list[Message[T]], n: int, patience: int) -> None:
        """Wait so many nanoseconds for a batch to fill up to `n`."""
        deadline = self._now() + patience
        while len(batch) < n and not self.is_full() and (left := deadline - self._now()) > 0:
            batch.append(await self._wait(left))
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
        while (shelf := self._flow.shelf) is not None and self._is_short():
            await by_store(shelf, shelf.fetch)
        return await self._wait(limit)

    async def _wait(self, limit: int | None) -> Message[T]:
        """Wait for a message for so many nanoseconds; takes the lock."""
        if limit == 0:
            return self._get_now()
        waiter: Sleeper[T] = Sleeper(self._guard, self._clock, self._abandon, self)
        lookout = self._lookout(waiter.loop)
        lookout.waiters += 1
        self.waiters[waiter] = None
        try:
            message = await self._sleep(waiter, lookout, limit)
        except BaseException:
            self._abandon(waiter)
            raise
        finally:
            self.waiters.pop(waiter, None)
            lookout.waiters -= 1
            if not lookout.waiters:
                lookout.set()
            waiter.end()
        if message is None:
            raise self._nothing()
        return message

    async def _sleep(
        self, waiter: Sleeper[T], lookout: Lookout, limit: int | None
    ) -> Message[T] | None:
        """Stand in line until the waiter was handed a message, or its time is over."""
        guard = self._guard
        receive = self.channel._receive
        deadline = None if limit is None else self._now() + limit
        while True:
            message = guard.run(receive, self, waiter)
            if message is None and deadline is not None and self._now() >= deadline:
                return guard.run(self.channel._give_up, waiter)
            if message is None:
                lookout.set()
                await waiter.sleep(deadline)
                message = waiter.held()  # none if its time went by while the loop was busy
            if message is not None:
                return message

    def _abandon(self, waiter: Sleeper[T]) -> None:
        """Give up a wait; what it was handed goes to the next.  Any thread; takes the lock."""
        waiter.gone = True
        self._guard.call(self.channel._abandon, waiter)

    def _lookout(self, loop: AbstractEventLoop) -> Lookout:
        """Return what looks for deadlines in a loop; takes the lock if there is none yet."""
        lookouts = self._flow.line.lookouts
        known = lookouts.get(loop)
        if isinstance(known, Lookout):
            return known
        closed = [
            other
            for other, lookout in lookouts.copy().items()
            if isinstance(lookout, Lookout) and lookout.is_closed()
        ]
        made: Final = Lookout(self._flow, self._guard, self._clock, loop)

        def keep() -> None:
            for other in closed:
                lookouts.pop(other, None)
            lookouts[loop] = made

        self._guard.run(keep)
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
