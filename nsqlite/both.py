"""Two topics at a time: an operation under the locks of both, for `Consumer.move`.

The rule: nobody waits for one topic's lock while he holds another's.

Next: timerwheel.py
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from nsqlite.errors import Reentered
from nsqlite.guard import Guard
from nsqlite.lock import insist

R = TypeVar("R")


def run_both(one: Guard, other: Guard, operation: Callable[[], R]) -> R:
    """Make an operation alone under two locks.

    It never waits for one while it holds the other.  A fixed order would not do: a signal handler
    may want the first one while its thread holds the second.

    Raises:
        Reentered: the calling thread is inside another operation of one of them.
    """
    if one is other:
        return one.run(operation)
    if (one.busy and one.lock.owned()) or (other.busy and other.lock.owned()):
        raise Reentered(operation.__name__.strip("_"))
    try:
        return _attempt_until(one, other, operation)
    finally:
        insist(one.settle)
        insist(other.settle)


def _attempt_until(one: Guard, other: Guard, operation: Callable[[], R]) -> R:
    """Make an operation under two locks, as soon as both are free."""
    while (done := _attempt(one, other, operation)) is None:
        one, other = other, one  # wait for the one that was taken, holding neither
    return done[0]


def _attempt(one: Guard, other: Guard, operation: Callable[[], R]) -> tuple[R] | None:
    """Make an operation under two locks if the second is free; else change nothing."""
    with one.lock:
        if other.lock.owned():  # by this thread, so it need not wait
            with other.lock:
                return (one.perform(other.perform, operation),)
        try:
            try:
                if other.lock.attempt():
                    return (one.perform(other.perform, operation),)
            finally:
                insist(partial(_give_back, other))
        except BaseException:
            insist(partial(_give_back, other))  # a signal may strike as `insist` begins
            raise
    return None


def _give_back(guard: Guard) -> None:
    if guard.lock.owned():
        guard.lock.__exit__()
