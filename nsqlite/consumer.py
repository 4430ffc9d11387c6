"""A consumer: get and get_many; the rest of it is in answers.py.

The rule: a get that fails or is interrupted leaves no trace: no place in line, and no message that
nobody has.

`get` tries without waiting; else it lines up and sleeps until it is handed a message, which is a
delivery already.  A wait that ends in any other way gives back what it was handed.

Next: broker.py
"""

from collections.abc import Iterator
from functools import partial
from typing import Final

from nsqlite.channel import Channel
from nsqlite.clock import NEVER
from nsqlite.errors import Closed, Empty, Reentered
from nsqlite.getting import Getting
from nsqlite.lock import insist
from nsqlite.message import FINISHED, Message, T
from nsqlite.options import timeout_ns, whole
from nsqlite.shelf import Shelf
from nsqlite.waiter import Waiter


class Consumer(Getting[T]):
    """A reader of a channel; the messages of the channel are shared among its consumers.

    It can be used in a `with` statement, which closes it, and in a `for` loop, which ends when the
    consumer, the channel, the topic or the broker is closed or deleted.

    A consumer that is forgotten without `close` loses nothing: what it held times out, and then it
    counts as gone.

    Threads: any, for all methods; several threads may get from one consumer.  `fin`, `fin_many`,
    `req`, `touch` and `close` may be called by a signal handler or destructor too; in the middle of
    another call they take effect right after it, and an error is then logged.

    Attributes:
        channel: where its messages come from.
        client_id: its number, never used twice in a process.
        max_in_flight: its window, None for no limit.
        requeue_delay: seconds of delay when the `with` block of a message fails.
    """

    __slots__ = ("_spare",)

    def __init__(
        self,
        channel: Channel[T],
        *,
        max_in_flight: int | None = None,
        msg_timeout: float | None = None,
        requeue_delay: float = 0.0,
    ) -> None:
        """Join a channel.

        Args:
            channel: where to get messages from.
            max_in_flight: how many messages it may hold unanswered, NSQ's RDY (NSQ semantics §8);
                None for no limit.
            msg_timeout: seconds until a message that it holds is delivered again; None for the
                channel's.
            requeue_delay: seconds of delay when the `with` block of a message fails.

        Raises:
            InvalidOption: the channel is no `Channel`, or one of the others is out of its range.
            TooManyConsumers: the channel has `max_channel_consumers` already.
            Closed: the channel is closed or deleted.
        """
        super().__init__(channel, max_in_flight, msg_timeout, requeue_delay)
        self._spare: Final[list[Waiter[T]]] = []  # left by gets that are over, to be used again

    # Getting

    def get(self, timeout: float | None = None) -> Message[T]:
        """Return the next message; it is then in flight until it is answered or times out.

        Args:
            timeout: seconds to wait; None waits for ever, 0 not at all.

        Raises:
            Empty: none came in time; nothing has changed.
            WindowFull: none could come, since it holds `max_in_flight` messages.
            Closed: the consumer, channel, topic or broker is over.
            InvalidOption: the timeout is negative or no finite number.
            Reentered: called by a signal handler or destructor inside another call.

        Cancellation:
            An exception thrown into a waiting `get` by a signal loses nothing: what it was handed
            goes back to the head of the queue, its attempts as before.
        """
        limit = None if timeout is None else timeout_ns(timeout)
        ready = self._ready
        if ready:
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
            return self._wait(limit)
        known = shelf.deliver(self)
        got = self._first(limit) if known is None else known
        if shelf.counted:
            self._settle(shelf, [got])
        return got

    def _finish_and_get(self, message: Message[T]) -> Message[T] | None:
        """Finish a message and return the next one, in one go; for a worker's threads.

        Where many threads want the lock at a time, asking once is twice as fast.

        Returns:
            None if one of both cannot be done the short way; then nothing has changed.
        """
        ready = self._ready
        with self._lock:
            now = self._now()
            following: Message[T] = Message()
            gate = self.gate
            if not (
                now < gate.fresh
                and ready
                and message in message._tick
                and message._consumer is self
                and self.delivered <= self.allowed
                and not self._guard.wary
            ):
                return None
            # One piece, as in `fin` and `get`:
            tick = message._tick
            message._outcome = FINISHED
            self.allowed += 1
            del tick[message]
            following._record = ready[0]
            following._consumer = self
            following._tick = gate.tick
            following._delivered = now
            self.delivered += 1
            gate.tick[following] = None
            del ready[0]
        if not tick and tick is not following._tick:
            self._guard.call(self._flow.clear_away, tick)
        return following

    def get_many(
        self, n: int, timeout: float | None = None, *, linger: float = 0.0
    ) -> list[Message[T]]:
        """Return up to `n` messages, the oldest first, as soon as there is one.

        Args:
            n: the most to return; the window may allow fewer.
            timeout: seconds to wait for the first; None waits for ever, 0 not at all.
            linger: seconds to wait, after the first, for the batch to fill; less than
                `msg_timeout`.  It ends early where the window is full.

        Raises:
            Empty, WindowFull, Closed, InvalidOption, Reentered: as for `get`.

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
                batch.append(self._first(limit))
                self._grab(batch, n)
            if patience:
                self._linger(batch, n, patience)
        except (Empty, Closed):
            batch = [message for message in batch if message in message._tick]
            if not batch:
                raise
        except BaseException:
            insist(partial(self._guard.run, self._return, batch))
            raise
        shelf = self._flow.shelf
        if shelf is not None and shelf.counted:
            self._settle(shelf, batch)
        return batch

    def _settle(self, shelf: Shelf, batch: list[Message[T]]) -> None:
        """Have deliveries counted in the store; if they are not, nobody has got them."""
        try:
            shelf.settle(batch)
        except BaseException:
            insist(partial(self._guard.call, self._return, batch))
            raise

    def _linger(self, batch: list[Message[T]], n: int, patience: int) -> None:
        """Wait so many nanoseconds for a batch to fill up to `n`; takes the lock."""
        deadline = self._now() + patience
        while len(batch) < n and not self.is_full() and (left := deadline - self._now()) > 0:
            batch.append(self._wait(left))
            self._grab(batch, n)

    def __iter__(self) -> Iterator[Message[T]]:
        """Go through the messages until the consumer, channel, topic or broker is over."""
        while True:
            try:
                message = self.get()
            except Closed:
                return
            yield message

    def _wait(self, limit: int | None) -> Message[T]:
        """Wait for a message for so many nanoseconds; takes the lock."""
        channel = self.channel
        if limit == 0:
            return self._get_now()
        if self._lock.owned():
            raise Reentered("get")
        try:
            waiter = self._spare.pop()
            waiter.owner = self
        except IndexError:
            waiter = Waiter(self)
        try:
            self.waiters[waiter] = None
            message = self._sleep(waiter, limit)
        except BaseException:
            waiter.gone = True  # before anything else can be thrown in
            insist(partial(self._guard.run, channel._abandon, waiter))
            raise
        del self.waiters[waiter]
        waiter.message = waiter.owner = None
        self._spare.append(waiter)
        if message is None:
            raise self._nothing()
        return message

    def _first(self, limit: int | None) -> Message[T]:
        """Have something in memory if there is something in the store, and wait; takes the lock."""
        while (shelf := self._flow.shelf) is not None and self._is_short():
            shelf.fetch()
        return self._wait(limit)

    def _sleep(self, waiter: Waiter[T], limit: int | None) -> Message[T] | None:
        """Stand in line and sleep until the waiter was handed a message, or its time is over."""
        flow = self._flow
        guard = self._guard
        line = flow.line
        receive = self.channel._receive
        begin = now = self._now()
        with self._lock:
            in_line = (
                now < flow.due
                and self.gate.quiet
                and not self._ready
                and not guard.wary
                and self.delivered < self.allowed
            )
            if in_line:  # there is nothing else to mind
                line.first_come[waiter] = None
                line.sleepers[waiter] = None
                guard.waiting += 1
                if line.watcher is None:
                    line.watcher = waiter
                guard.push = guard.waiting_path
        if not in_line and (message := guard.run(receive, self, waiter)) is not None:
            return message
        left = limit
        slept = 0  # a frozen clock does not tell; the naps do
        while left is None or left > 0:
            nap = left
            if line.watcher is waiter and flow.due != NEVER:
                nap = flow.due - now
                if left is not None and left < nap:
                    nap = left
            if not self._clock.wait(waiter.bell, nap, self._who):
                slept += nap or 0
            elif (message := waiter.held()) is not None:
                return message
            message = guard.run(receive, self, waiter)
            if message is not None:
                return message
            now = self._now()
            left = None if limit is None else limit - max(slept, now - begin)
        return guard.run(self.channel._give_up, waiter)
