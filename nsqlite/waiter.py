"""One blocked call: what it sleeps on, and what it is handed.

The rule: a waiter that was rung looks under the topic's lock what has changed, except that a
message it finds in its hands is its own.

Next: line.py
"""

import threading
from collections.abc import Callable
from typing import Any, Final, Generic

from nsqlite.clock import Bell, Clock, ring
from nsqlite.guard import Guard
from nsqlite.message import Message, T


class Waiter(Generic[T]):
    """A call of get, put or join that waits.

    Attributes:
        owner: the consumer whose get this is, None for another call.
        message: what it has been handed.
        gone: its wait was interrupted; it takes nothing any more.
        remote: it waits in an event loop; its bell only has the guard wake it after the lock.
        bell: the lock that it sleeps on, held while there is nothing to see.
    """

    __slots__ = ("bell", "gone", "message", "owner", "remote")

    def __init__(self, owner: Any = None, bell: Bell | None = None) -> None:
        """Begin unrung and with empty hands.

        Args:
            owner: the consumer whose get this is.
            bell: what to ring instead of a lock, for one that is remote.
        """
        self.owner = owner
        self.message: Message[T] | None = None
        self.gone = False
        self.remote: Final = bell is not None
        if bell is None:
            bell = threading.Lock()
            bell.acquire()
        self.bell: Bell = bell

    def held(self) -> Message[T] | None:
        """Return what it was handed, unless that timed out or was taken back on the way."""
        message = self.message
        return message if message is not None and message in message._tick else None

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

    def sleep() -> None:
        deadline = None if timeout is None else clock.monotonic_ns() + timeout
        while not guard.run(look, guard, waiter, done):
            left = None if deadline is None else deadline - clock.monotonic_ns()
            if (left is not None and left <= 0) or not clock.wait(waiter.bell, left, who):
                return

    guard.require_free("join")
    try:
        sleep()
    finally:
        over = guard.run(leave, guard, waiter, done)
    return over


def look(guard: Guard, waiter: Waiter[Any], done: Callable[[], bool]) -> bool:
    """Return whether a condition is true; else have the waiter rung for it.  The lock is held."""
    waiter.listen()
    if done():
        return True
    guard.joiners[waiter] = done
    return False


def leave(guard: Guard, waiter: Waiter[Any], done: Callable[[], bool]) -> bool:
    """Have the waiter rung no more; return whether the condition is true.  The lock is held."""
    guard.joiners.pop(waiter, None)
    return done()
