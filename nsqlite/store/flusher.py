"""The flusher: a store's one thread.

The rule: it sleeps until somebody wakes it, or until what it was told to expect is due; it never
polls.  How long things may be late is real time, as the disk is real.

Next: store/deferred.py
"""

import logging
import threading
from typing import Final, Protocol

from nsqlite.clock import SYSTEM, held_semaphore, release
from nsqlite.errors import Closed, StoreError

log: Final = logging.getLogger("nsqlite")

AGAIN: Final = 1_000_000_000
"""Nanoseconds until what has failed is tried again."""


class Work(Protocol):
    """What the flusher does."""

    def commit(self) -> None:
        """Write what is reserved."""
        ...

    def run_tasks(self) -> Exception | None:
        """Do what it was asked to, and read what is wanted; return why that cannot be read."""
        ...

    def flush_late(self) -> None:
        """Write what may be late."""
        ...

    def upkeep(self) -> bool:
        """Keep the store small; return whether there is more to do."""
        ...

    def finish(self) -> None:
        """Write all and close the store."""
        ...


class _Thread(threading.Thread):
    """The thread of a flusher."""

    def __init__(self, flusher: "Flusher") -> None:
        """Take the flusher; a daemon, since a program that forgets its broker must still end."""
        super().__init__(target=flusher.run, name=flusher.name, daemon=True)
        self._flusher: Final = flusher

    @property
    def at_rest(self) -> bool:
        """Whether it does nothing that anybody waits for; so a manual clock does not."""
        return self._flusher.is_asleep()


class Flusher:
    """A thread that writes what nobody waits for, and reads ahead.

    Threads: any may call `wake`, `expect`, `stop` and `wait`; also a signal handler.
    """

    __slots__ = (
        "_asked",
        "_due",
        "_late",
        "_looking",
        "_problem",
        "_said",
        "_semaphore",
        "_stopping",
        "_thread",
        "_work",
        "name",
    )

    def __init__(self, work: Work, name: str, late: int) -> None:
        """Begin unstarted.

        Args:
            work: what it does.
            name: its thread's.
            late: how late it may flush, in nanoseconds.
        """
        self.name: Final = name
        self._work: Final = work
        self._late: Final = late
        self._semaphore: Final = held_semaphore()
        self._due: int | None = None
        self._asked = False
        self._looking = False
        self._stopping = False
        self._problem: Exception | None = None
        self._said = ""
        self._thread: Final = _Thread(self)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def is_at_rest(self) -> bool:
        """Say whether it sleeps until somebody wakes it, and nobody has."""
        return self._due is None and self._semaphore.locked() and not self._stopping

    def is_asleep(self) -> bool:
        """Say whether it sleeps, be it until what may be late is due, and nobody has woken it."""
        awake = self._asked or self._looking or self._stopping
        return not awake and self._semaphore.locked()

    def wake(self) -> None:
        """Have it look now; takes no lock."""
        self._asked = True
        release(self._semaphore)

    def expect(self, *, at_once: bool = False) -> None:
        """Have it flush, now or when that is due; takes no lock."""
        if at_once or self._due is None:
            due = SYSTEM.monotonic_ns() + (0 if at_once else self._late)
            try:
                try:
                    self._due = due
                    self._asked = True
                finally:
                    release(self._semaphore)
            except BaseException:
                release(self._semaphore)  # a signal may strike as it begins
                raise

    def stop(self) -> None:
        """Have it finish; takes no lock."""
        self._stopping = True
        release(self._semaphore)

    def wait(self) -> None:
        """Wait for its end.

        Raises:
            StoreError: something could not be written.
        """
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()
            problem, self._problem = self._problem, None
            if problem is not None:
                raise problem

    def run(self) -> None:
        """Do what there is to do until it is stopped; the thread's own."""
        while not self._stopping:
            SYSTEM.wait(self._semaphore, self._due, self.name)
            self._looking = True  # before the next line, so that it never seems to sleep
            self._asked = False  # before it looks: what is asked from now on wakes it again
            try:
                self._look()
            except Exception as problem:
                self._due = SYSTEM.monotonic_ns() + AGAIN
                self._complain(problem)
            self._looking = False
        try:
            self._work.finish()
        except Exception as problem:
            self._problem = problem
            if not isinstance(problem, StoreError):
                log.exception("%s failed", self.name)

    def _complain(self, problem: Exception) -> None:
        """Log why something failed; what the store is short of once, until that is over."""
        if isinstance(problem, StoreError):
            if str(problem) != self._said:
                log.error("%s failed, and tries again: %s", self.name, problem)
            self._said = str(problem)
        elif not isinstance(problem, Closed):
            log.error("%s failed, and tries again", self.name, exc_info=problem)

    def _look(self) -> None:
        work = self._work
        work.commit()
        problem = work.run_tasks()
        if self._stopping:  # a task may have closed the store
            return
        due = self._due
        is_due = due is not None and SYSTEM.monotonic_ns() >= due
        if is_due:
            self._due = None  # before it flushes: what is expected from now on comes after
            self._catch_up()
        if problem is not None:
            raise problem
        if is_due:
            self._said = ""

    def _catch_up(self) -> None:
        """Write what may be late, and whatever comes of that, keep the store small."""
        try:
            self._work.flush_late()
        finally:
            if self._work.upkeep():
                self.expect(at_once=True)  # step by step, so that whoever wants to write can
