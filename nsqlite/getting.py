"""The side of a consumer that gets what is there, without waiting.

The rule: a batch that never reaches its caller goes back to the head of the queue, attempts as
before.

How a consumer waits is another matter: a thread sleeps (consumer.py), a task is suspended
(aio/consumer.py).

Next: consumer.py
"""

from collections import deque
from itertools import repeat, starmap
from typing import Final

from nsqlite.answers import Answers
from nsqlite.channel import Channel
from nsqlite.errors import Empty, InvalidOption, WindowFull
from nsqlite.message import Message, T
from nsqlite.options import SECOND, seconds


class Getting(Answers[T]):
    """What every kind of consumer gets by; `Consumer` is what users make."""

    __slots__ = ("_clock", "_now", "_ready", "_who")

    def __init__(
        self,
        channel: Channel[T],
        max_in_flight: int | None,
        msg_timeout: float | None,
        requeue_delay: float,
    ) -> None:
        """Join a channel; see `Consumer`."""
        super().__init__(channel, max_in_flight, msg_timeout, requeue_delay)
        self._clock: Final = channel._clock
        self._now: Final = channel._clock.monotonic_ns
        # What a store keeps goes another way.
        self._ready: Final = self._flow.ready if self._flow.shelf is None else deque()
        self._who: Final = f"get() on {channel._title}"

    def _patience(self, linger: float) -> int:
        """Return in nanoseconds how long a batch may linger.

        Raises:
            InvalidOption: it is no number of seconds, or as long as the messages have.
        """
        patience = seconds("linger", linger)
        if patience >= self.msg_timeout:
            expected = f"less than msg_timeout, which is {self.msg_timeout / SECOND:g} s"
            raise InvalidOption("linger", linger, expected)
        return patience

    def _is_short(self) -> bool:
        """Say whether nothing is in memory of what it could have."""
        flow = self._flow
        return flow.beyond > 0 and not (flow.ready or flow.paused or self.is_full())

    def _grab(self, batch: list[Message[T]], n: int) -> None:
        """Add what is ready now to a batch, up to `n`; takes the lock."""
        self._guard.run(self._grab_ready, batch, n)

    def _grab_ready(self, batch: list[Message[T]], n: int) -> None:
        flow = self._flow
        now = flow.sweep()
        self.channel._require_member(self)
        if flow.paused:
            return
        ready = flow.ready
        room = min(n - len(batch), len(ready), self.allowed - self.delivered)
        if flow.special or self._guard.watched:
            batch.extend(flow.deliver(self, now) for _ in range(room))
            return
        if room <= 0:
            return
        tick = flow.current(now, self.msg_timeout)
        fresh: list[Message[T]] = list(starmap(Message, repeat((), room)))
        for message, record in zip(fresh, ready, strict=False):
            message._record = record
            message._consumer = self
            message._tick = tick
            message._delivered = now
        leaving = starmap(ready.__delitem__, repeat((0,)))
        moves = zip(fresh, leaving, strict=False)
        file = tick.update
        batch.extend(fresh)  # before they are filed: what is interrupted is given back from here
        # One piece: the call that follows files each message as it takes its record from the queue.
        self.delivered += room
        file(moves)
        if flow.shelf is not None:
            flow.shelf.delivered(fresh)

    def _return(self, batch: list[Message[T]]) -> None:
        """Give back a batch that never reached its caller."""
        for message in reversed(batch):
            self._flow.give_back(message, message._record)
        self._flow.feed()

    def _get_now(self) -> Message[T]:
        """Return the next message or raise that there is none; takes the lock."""
        message = self._guard.run(self.channel._receive, self, None)
        if message is None:
            raise self._nothing()
        return message

    def _nothing(self) -> Empty:
        if self.max_in_flight is not None and self.is_full():
            return WindowFull(self.channel.name, self.max_in_flight)
        return Empty(self.channel.name)
