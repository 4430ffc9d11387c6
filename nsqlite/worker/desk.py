"""A worker's slots and its supervisor: what begins, what is touched, and how all of it ends.

The rule: whatever happens, every slot comes to an end or is told of, and what is left goes back.

It knows no thread and no loop.  The slots (threads.py, tasks.py) bring it messages and results; one
supervisor acts here when a moment has come and sleeps until the next.

Next: worker/threads.py
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from nsqlite.clock import NEVER
from nsqlite.errors import shown
from nsqlite.getting import Getting
from nsqlite.lock import make_section
from nsqlite.message import Message, State
from nsqlite.options import SECOND
from nsqlite.worker.judge import Judge, Plan
from nsqlite.worker.middleware import name_of

log: Final = logging.getLogger("nsqlite")


class Slot:
    """One message's place in a worker.

    Attributes:
        name: the worker's and a number; that of its thread or task.
        message: what it works on, None while it waits.
        begun: since when.
        fetched: what it has got beyond that; `stop` takes it away.
        touchable: whether another touch would give it more time.
        over: whether it takes no more.
    """

    __slots__ = ("begun", "fetched", "message", "name", "over", "touchable")

    def __init__(self, name: str) -> None:
        """Begin without a message."""
        self.name: Final = name
        self.message: Message[Any] | None = None
        self.begun = 0
        self.fetched: list[Message[Any]] = []
        self.touchable = True
        self.over = False

    def next(self) -> Message[Any] | None:
        """Take the next of what was fetched; each goes to the slot or to who stops, not to both."""
        try:
            return self.fetched.pop(0)
        except IndexError:
            return None

    def rest(self) -> list[Message[Any]]:
        """Take all that is left of what was fetched."""
        return list(iter(self.next, None))


class Desk(Judge):
    """A worker's decisions.

    Threads: any, but for `act`, which is the supervisor's.

    Attributes:
        plan: what it was told to do.
        consumer: where its messages come from.
        slots: where they are worked on.
        fate: what becomes of a handler that has not ended in time, in a word or two.
        error: the first error that a handler raised, None so far.
        broken: what ended the worker though no handler should raise it.
        when_over: called when the worker has come to its end.
        stopping: whether it takes no more messages.
        ring: wakes the supervisor; made by who runs it.
    """

    __slots__ = (
        "_asleep_until",
        "_ended",
        "_half",
        "_lock",
        "_now",
        "_stop_at",
        "broken",
        "fate",
        "slots",
        "stopping",
        "when_over",
    )

    def __init__(self, plan: Plan, consumer: Getting[Any], fate: str) -> None:
        """Begin with free slots."""
        super().__init__(plan, consumer)
        self.fate: Final = fate
        self.slots: Final[Sequence[Slot]] = [
            Slot(f"{plan.name}-{number}") for number in range(1, plan.concurrency + 1)
        ]
        self.broken: BaseException | None = None
        self.when_over: Callable[[], object] = lambda: None
        self.stopping = False
        self._now: Final = consumer._now
        self._half: Final = consumer.msg_timeout // 2
        self._lock: Final = make_section(rank=2)  # guards the two below; nothing is called inside
        self._stop_at = NEVER
        self._ended = False
        self._asleep_until = 0

    # From the slots

    def begin(self, slot: Slot, message: Message[Any]) -> bool:
        """Take note of a message; return whether its handler is to be called."""
        slot.message = message  # before it looks whether to stop: `stop` does it the other way
        slot.begun = self._now() if self.plan.prefetch else message._delivered
        if self.stopping or (self.plan.prefetch and message not in message._tick):
            slot.message = None
            # Unless its time went by in the slot's own queue:
            self.put_back([message, *slot.rest()] if self.stopping else [message])
            return False
        if self.plan.auto_touch:
            slot.touchable = True
            if message._tick.due - self._half < self._asleep_until:
                self.ring()
        most = self.plan.max_attempts
        if most and message.attempts > most:
            self.give_up(message, None)
            slot.message = None
            return False
        return True

    def succeeded(self, slot: Slot, result: object) -> None:
        """Answer a message whose handler returned."""
        message = slot.message
        assert message is not None
        self.judge(message, result)
        slot.message = None

    def failed(self, slot: Slot, error: BaseException) -> None:
        """Answer a message whose handler raised."""
        message = slot.message
        assert message is not None
        self.judge_error(message, error)
        slot.message = None

    def broke(self, slot: Slot, error: BaseException) -> None:
        """Put back the message of a slot that ends with what no handler should raise; stop."""
        message = slot.message
        if message is not None:
            name = name_of(self.plan.handler)
            log.error(
                "%s: %s raised %s on message %s; the worker stops",
                self.plan.name,
                name,
                shown(error),
                message.id,
            )
            self.remember(error)
            self.broken = error
            self.stop(NEVER)  # before another slot can take it
            self.answer(lambda: self.consumer.req(message), message)
            slot.message = None
        self.stop(0)

    def put_back(self, messages: list[Message[Any]]) -> None:
        """Put back what was got and not begun, attempts as before; takes the topic's lock."""
        if messages:
            self.consumer._guard.call(self.consumer._return, messages)

    def is_swift(self) -> bool:
        """Return whether a success has no other consequence than that its message is finished."""
        return self._pace.level == 0 and self.plan.prefetch == 0 and not self.stopping

    def leave(self, slot: Slot) -> None:
        """Take note that a slot takes no more."""
        slot.over = True
        self.ring()

    # For the supervisor

    def act(self) -> int | None:
        """Do what is due; return the moment until when there is nothing to do, None at the end."""
        now = self._now()
        self._pace.act(now)
        if self.stopping and (now >= self._stop_at or all(slot.over for slot in self.slots)):
            self.end()
            return None
        self._asleep_until = NEVER  # a message that comes while this looks rings
        moment = min(self._pace.probe_at, self._stop_at)
        if self.plan.auto_touch:
            moment = min(moment, self._touch(now))
        self._asleep_until = moment
        return moment

    def _touch(self, now: int) -> int:
        """Touch what has been worked on for half of its time; return when the next will have."""
        moment = NEVER
        for slot in self.slots:
            message = slot.message
            if message is None or not slot.touchable or message.state is not State.IN_FLIGHT:
                continue
            due = message._tick.due
            if now >= due - self._half:
                self.answer(partial(self.consumer.touch, message), message)
                if message._tick.due == due:  # max_msg_timeout allows no more
                    slot.touchable = False
                    continue
                due = message._tick.due
            moment = min(moment, due - self._half)
        return moment

    # How it ends

    def stop(self, timeout: int) -> None:
        """Take no more messages; give those at work so many nanoseconds, `NEVER` for no limit."""
        moment = self._now() + timeout
        with self._lock:
            if moment < self._stop_at:  # noqa: PLR1730 - no call inside
                self._stop_at = moment
            self.stopping = True
        self.consumer._guard.call(self.consumer.channel._retire, self.consumer)
        for slot in self.slots:
            self.put_back(slot.rest())
        self.ring()

    def time_left(self) -> int:
        """Return how many nanoseconds those at work have when it stops."""
        return max(0, self._stop_at - self._now())

    def end(self) -> None:
        """Put back what is left, and tell of handlers that have not come to an end."""
        with self._lock:
            ended, self._ended = self._ended, True
        if ended:
            return
        now = self._now()
        for slot in self.slots:
            message = slot.message
            if message is not None:
                log.error(
                    "%s: %s on message %s has not ended after %g s and is %s in %s",
                    self.plan.name,
                    name_of(self.plan.handler),
                    message.id,
                    (now - slot.begun) / SECOND,
                    self.fate,
                    slot.name,
                )
        self.consumer.close()
