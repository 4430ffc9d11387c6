"""One blocked call: what it sleeps on, and what it is handed.

The rule: a waiter that was rung looks under the topic's lock what has changed, except that a
message it finds in its hands is its own.

Next: line.py
"""

import threading
from collections.abc import Callable
from typing import Any, Generic

from nsqlite.clock import Clock, ring
from nsqlite.guard import Guard
from nsqlite.message import Message, T


class Waiter(Generic[T]):
    """A call of get, put or join that waits.

    Attributes:
        owner: the consumer whose get this is, None for another call.
        message: what it has been handed.
        gone: its wait was interrupted; it takes nothing any more.
        bell: the lock that it sleeps on, held while there is nothing to see.
    """

    __slots__ = ("bell", "gone", "message", "owner")

    def __init__(self, owner: Any = None) -> None:
        """Begin unrung and with empty hands."""
        self.owner = owner
        self.message: Message[T] | None = None
        self.gone = False
        self.bell = threading.Lock()
        self.bell.acquire()

    def ring(self) -> None:
        """Wake the sleeper.  Runs no user code; the topic's lock is held."""
        ring(self.bell)

    def listen(self) -> None:
        """Be ready for the next ring.  The topic's lock is held."""
        self.bell.acquire(blocking=False)


def wait_until(
    guard: Guard, clock: Clock, done: Callable[[], bool], timeout: int | None, who: str
) -> bool:
    """Block until a condition is true, as long as it takes or the timeout allows.

    Args:
        guard: the lock under which `done` is asked, and whose operations ring.
        clock: what the timeout is measured by.
        done: the condition; a reading only.
        timeout: in nanoseconds; None waits for ever.
        who: the waiter in words, for an error.

    Returns:
        What the condition was at last.

    Raises:
        Reentered: the calling thread is inside another call.
    """
    waiter: Waiter[Any] = Waiter()

    def look() -> bool:
        waiter.listen()
        if done():
            return True
        guard.joiners[waiter] = done
        return False

    def leave() -> bool:
        guard.joiners.pop(waiter, None)
        return done()

    def sleep() -> None:
        deadline = None if timeout is None else clock.monotonic_ns() + timeout
        while not guard.run(look):
            left = None if deadline is None else deadline - clock.monotonic_ns()
            if (left is not None and left <= 0) or not clock.wait(waiter.bell, left, who):
                return

    guard.require_free("join")
    try:
        sleep()
    finally:
        over = guard.run(leave)
    return over
