"""The lock that the rest is built on, and what a fork does to it.

The rule: a lock is held only inside a `with`, and never by a thread that a fork left behind.

*Signals.*  CPython runs signal handlers when a call of C code has returned, when a Python function
begins and when a loop goes round.  `with` takes the lock and arms its release with no such moment
between; `acquire()` before a `try` has one.  What has several steps and must not stay half done is
done by `ensure`.  A loop that goes round by a condition has a function of its own, never the body
of a `with` or `try`: what is thrown as it goes round is not covered by these on CPython 3.12, 3.13.

*Fork.*  All locks are taken before a fork, in one order, given back in the parent and made anew in
the child, so the child finds everything whole.

Next: origin.py
"""

import os
import sys
import threading
import weakref
from collections.abc import Callable
from itertools import count
from typing import Final

_serials: Final = count()
_locks: Final[set["weakref.ref[Lock]"]] = set()
_forget: Final = _locks.discard  # one for all locks; in C, so no signal strikes as a lock goes
_forking: Final[dict[int, list[list["Lock"]]]] = {}  # what each thread has taken for its forks


def ensure(step: Callable[[], object]) -> None:
    """Run a step until it comes to its end, through whatever signals throw into it.

    For clean-ups that must not stay half done.  The step finds out itself what is left to do.  What
    was thrown in goes on after the step is done.  A loop would let a signal in as it goes round, so
    the tries are written out; as many signals in a row would have to strike one step.
    """
    try:
        step()
    except BaseException:
        try:
            step()
        except BaseException:
            try:
                step()
            except BaseException:
                step()
                raise
            raise
        raise


class Lock:
    """A lock for `with`, which its own thread may take again; made by `make_lock`.

    The slots hold the bound methods of one `threading.RLock`; so `with` need not bind them each
    time, and takes 0.12 us instead of 0.16.  That one may be written in Python, as gevent has it;
    then its `__exit__` takes three arguments and no fewer.

    Attributes:
        forked: called in the child of a fork when the lock has been made anew.
        owned: returns whether the calling thread holds the lock.
    """

    __slots__ = ("__enter__", "__exit__", "__weakref__", "_rank", "_serial", "forked", "owned")

    __enter__: Callable[..., bool]
    __exit__: Callable[..., None]

    def __init__(self, rank: int, forked: Callable[[], None]) -> None:
        """Make the lock."""
        self._rank: Final = rank
        self._serial: Final = next(_serials)
        self.forked: Callable[[], None] = forked
        self._renew()
        _locks.add(weakref.ref(self, _forget))

    @property
    def order(self) -> tuple[int, int]:
        """Rank and serial number; locks are taken in this order where several are."""
        return self._rank, self._serial

    def _renew(self) -> None:
        """Begin with a new lock, as if nobody had ever held it."""
        lock = threading.RLock()
        self.__enter__ = lock.acquire if sys.version_info < (3, 14) else _entering(lock)
        self.__exit__ = lock.__exit__
        self.owned: Callable[[], bool] = lock._is_owned  # type: ignore[attr-defined]  # hidden

    def attempt(self) -> bool:
        """Take the lock if it is free; the caller sees to `__exit__(None, None, None)`."""
        return self.__enter__(False)


def _entering(lock: "threading.RLock") -> Callable[..., bool]:
    """Return an `__enter__` that no signal can strike when it has taken the lock.

    From CPython 3.14 on `with` calls `__enter__` as anything is called, and a signal may come in
    when a call of C code has returned, before the release is armed; not so when a Python function
    has returned.
    """
    acquire, release = lock.acquire, lock.release

    def enter(blocking: bool = True) -> bool:  # noqa: FBT002 - as RLock.acquire has it
        taken = False
        try:
            taken = acquire(blocking)
        except BaseException:
            try:
                release()
            except RuntimeError:  # it was struck while it waited for the lock
                pass
            raise
        return taken

    return enter


def make_lock(rank: int, forked: Callable[[], None] = lambda: None) -> Lock:
    """Return a new lock.

    Args:
        rank: locks of a higher rank are taken inside those of a lower one, never the other way.
        forked: called in the child of a fork when the lock has been made anew; takes no lock.
    """
    return Lock(rank, forked)


def _before_fork() -> None:
    """Take all locks; begin anew if another thread has made one meanwhile."""
    while True:
        taken: list[Lock] = []
        _forking.setdefault(threading.get_ident(), []).append(taken)
        known = _locks.copy()
        for reference in sorted(known, key=_place):
            lock = reference()
            if lock is not None:
                lock.__enter__()
                taken.append(lock)
        if _locks.copy() <= known:
            return
        _after_fork_in_parent()


def _place(reference: "weakref.ref[Lock]") -> tuple[int, int]:
    """Return a lock's place in the order; for one that has gone any will do."""
    lock = reference()
    return (0, 0) if lock is None else lock.order


def _after_fork_in_parent() -> None:
    for lock in reversed(_last()):
        lock.__exit__(None, None, None)


def _last() -> list["Lock"]:
    """Take out what this thread has taken for its fork, of several forks the last."""
    me = threading.get_ident()
    forks = _forking[me]
    taken = forks.pop()
    if not forks:
        del _forking[me]
    return taken


def _after_fork_in_child() -> None:
    locks = _last()
    _forking.clear()  # of other threads, which are gone
    for lock in locks:
        lock._renew()
    for lock in locks:
        lock.forked()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
