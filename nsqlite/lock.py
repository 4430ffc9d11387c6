"""The lock that the rest is built on, and what a fork does to it.

The rule: a lock is held only inside a `with`, and never by a thread that a fork left behind.

*Signals.*  CPython runs signal handlers when a call has returned, when a Python function begins and
when a loop goes round.  `with` takes the lock and arms its release with no such moment between;
`acquire()` before a `try` has one.  What has several steps and must not stay half done is done by
`insist`.  A loop that goes round by a condition has a function of its own, never the body of a
`with` or `try`: as it goes round, CPython 3.12 and 3.13 forget what is around it.

*Fork.*  All locks are taken before a fork, in one order, given back in the parent and made anew in
the child, so the child finds everything whole.

Next: guid.py
"""

import os
import threading
import weakref
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final

_serial: Final = count()
_sections: Final[dict[tuple[int, int], "weakref.ref[Section]"]] = {}
_forking: Final[list["Section"]] = []  # while the process forks


def insist(step: Callable[[], object]) -> None:
    """Make a step until it comes to its end, through whatever signals throw into it.

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


class Section:
    """A lock for `with`, which its own thread may take again; made by `make_section`.

    Attributes:
        order: rank and serial number; locks are taken in this order where several are.
        forked: called in the child of a fork when the lock has been made anew.
    """

    __slots__ = ("__weakref__", "forked", "order")

    def __init__(self, rank: int, forked: Callable[[], None]) -> None:
        """Make the lock."""
        order = self.order = (rank, next(_serial))
        self.forked = forked
        self._renew()
        _sections[order] = weakref.ref(self, partial(_sections.pop, order))

    if TYPE_CHECKING:

        def __enter__(self) -> bool: ...
        def __exit__(self, *exception: object) -> None: ...
        def owned(self) -> bool:
            """Return whether the calling thread holds the lock."""

        def attempt(self) -> bool:
            """Take the lock if it is free; who does so sees to it that `__exit__` is called."""

    def _renew(self) -> None:
        """Begin with a new lock, as if nobody had ever held it."""
        lock = threading.RLock()
        cls: Any = type(self)
        cls.__enter__ = lock.acquire
        cls.__exit__ = lock.__exit__
        cls.attempt = staticmethod(partial(lock.acquire, blocking=False))
        cls.owned = lock._is_owned  # type: ignore[attr-defined]  # typeshed hides it


def make_section(rank: int, forked: Callable[[], None] = lambda: None) -> Section:
    """Return a new lock of its own class.

    The class holds the bound methods of the one lock as `__enter__` and `__exit__`; so `with` need
    not bind them each time, and takes 0.15 us instead of 0.22.

    Args:
        rank: locks of a higher rank are taken inside those of a lower one, never the other way.
        forked: called in the child of a fork when the lock has been made anew; takes no lock.
    """
    cls: type[Section] = type("Section", (Section,), {"__slots__": ()})
    return cls(rank, forked)


def _before_fork() -> None:
    """Take all locks; begin anew if another thread has made one meanwhile."""
    while True:
        orders = sorted(_sections.copy())
        for order in orders:
            reference = _sections.get(order)
            section = None if reference is None else reference()
            if section is not None:
                section.__enter__()
                _forking.append(section)
        if _sections.copy().keys() <= set(orders):
            return
        _after_fork_in_parent()


def _after_fork_in_parent() -> None:
    while _forking:
        _forking.pop().__exit__(None, None, None)


def _after_fork_in_child() -> None:
    sections = _forking.copy()
    _forking.clear()
    for section in sections:
        section._renew()
    for section in sections:
        section.forked()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
