"""Threads of a simulation, of which one at a time has the turn.

The rule: whoever has the turn runs; it keeps the turn until it waits or ends, and then decides
itself who goes on.  So nothing happens at the same time, and the same decisions make the same run.

Nobody sleeps for a time and nobody looks again: each thread that waits for its turn is blocked on a
lock of its own.  An actor is a call that can wait; a thread is given the next one as soon as its
own has come to an end, so that a call that does not wait costs no change of threads.

Next: testing/simulation/story.py
"""

import threading
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from nsqlite.clock import held_semaphore, release


class Unwound(BaseException):
    """Raised in what waits in a simulation that is over, to end it; nothing should catch it."""


class Dropped(Unwound):
    """Raised in a handler whose consumer is dropped in the middle of its message."""


class Place(NamedTuple):
    """Which handler's call it is that runs.

    Attributes:
        name: of its slot.
        expires: nanoseconds until its message times out, 0 if it does not.
    """

    name: str
    expires: int


PLACE: Final[ContextVar[Place | None]] = ContextVar("nsqlite_simulated", default=None)
"""In which call of a handler something runs, None for outside."""


class _Nothing:
    """What `Simulation.work` returns to a thread, which may await it or not."""

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()


NOTHING: Final = _Nothing()
"""What `work` returns to a thread; a handler may return it as its own result."""


_PATIENCE: Final = 1.0
"""Real seconds in which a thread is to give the turn away after an interrupt, as by Ctrl-C."""


def at_once() -> bool:
    """Return True: whoever waits only gives others a turn."""
    return True


class Actor:
    """A call that may wait for its turn.

    Attributes:
        name: what the story of a run calls it.
        call: what it does; None for the thread that plays the scenario.
        can_go: whether it could go on.
        why: for what it waits, in words; empty if it only gave others a turn.
        turn: when it last had the turn, by number.
        cancellation: raised in its waits from now on.
        begun: whether it has a thread.
        go: what it sleeps on while others have the turn.
        thread: the number of its thread.
    """

    __slots__ = ("begun", "call", "can_go", "cancellation", "go", "name", "thread", "turn", "why")

    def __init__(self, name: str, call: Callable[[], object] | None) -> None:
        """Begin without a thread."""
        self.name: Final = name
        self.call: Final = call
        self.can_go: Callable[[], bool] = at_once
        self.why: str = ""
        self.turn: int = 0
        self.cancellation: BaseException | None = None
        self.begun: bool = call is None
        self.go: Final = held_semaphore()
        self.thread: int = threading.get_ident() if self.begun else 0


class Pool:
    """Threads for the actors of many runs, one run after the other.

    Threads: the one that has the turn.
    """

    def __init__(self) -> None:
        """Begin without any."""
        self._free: Final[list[_PoolThread]] = []
        self._all: Final[list[_PoolThread]] = []

    def begin(self, turns: "Turns", actor: Actor) -> None:
        """Give an actor a thread and the turn."""
        if self._free:
            thread = self._free.pop()
        else:
            thread = _PoolThread(self._free)
            self._all.append(thread)
        thread.begin(turns, actor)

    def close(self, *, wait: bool) -> None:
        """End the threads; wait for that, unless one may be stuck."""
        for thread in self._all:
            thread.end()
        for thread in self._all if wait else ():
            thread.thread.join()


class _PoolThread:
    """A thread of a pool."""

    def __init__(self, free: "list[_PoolThread]") -> None:
        self._free: Final = free
        self._go: Final = held_semaphore()
        self._job: tuple[Turns, Actor] | None = None
        self.thread: Final = threading.Thread(target=self._serve, name="simulation", daemon=True)
        self.thread.start()

    def begin(self, turns: "Turns", actor: Actor) -> None:
        self._job = (turns, actor)
        self._go.release()

    def end(self) -> None:
        self._job = None
        release(self._go)

    def _serve(self) -> None:
        self._go.acquire()
        while (job := self._job) is not None:
            self._play(*job)
            del job  # a run is not kept alive by a thread that waits for the next
            self._go.acquire()

    def _play(self, turns: "Turns", actor: Actor) -> None:
        """Run an actor, and those that begin when it has ended."""
        following = turns.play(actor)
        while not following.begun:
            following = turns.play(following)
        self._job = None
        self._free.append(self)  # before another has the turn
        following.go.release()


class Turns:
    """Who has the turn in one run.

    Attributes:
        main: the actor of the thread that plays the scenario.
        current: who has the turn.
        actors: all that have not ended, in the order in which they came.
        lost: whether a signal has taken the main thread out of its wait, so that the turn is with
            another thread; after `close`, whether that kept it, and threads are left.
    """

    def __init__(self, pool: Pool, decide: Callable[[], Actor]) -> None:
        """Begin with the calling thread's turn.

        Args:
            pool: of threads.
            decide: returns who goes on, one of `actors`; called by whoever has the turn.
        """
        self.main: Final = Actor("main", None)
        self.current: Actor = self.main
        self.actors: Final[dict[Actor, None]] = {self.main: None}
        self.lost: bool = False
        self._pool: Final = pool
        self._decide: Final = decide
        self._closing = False
        self._count = 0

    def wait(self, why: str, can_go: Callable[[], bool]) -> None:
        """Give the turn away until it comes back, which it does not before `can_go` is true.

        Raises:
            BaseException: the calling actor's cancellation.
        """
        me = self.current
        if me.cancellation is None:
            me.can_go, me.why = can_go, why
            following = self._next()
            if following is not me:
                self._hand_over(me, following)
            self.current = me
            self._count += 1
            me.turn = self._count
        if me.cancellation is not None:
            raise me.cancellation

    def _hand_over(self, me: Actor, following: Actor) -> None:
        if following.begun:
            following.go.release()
        else:
            self._pool.begin(self, following)
        try:
            me.go.acquire()
        except BaseException:
            self.lost = True
            raise

    def add(self, actor: Actor) -> Actor:
        """Let an actor begin when `decide` says so; at the end of the run nobody begins."""
        if not self._closing:
            self.actors[actor] = None
        return actor

    def play(self, actor: Actor) -> Actor:
        """Run an actor to its end, in the calling thread; return who goes on."""
        assert actor.call is not None
        actor.begun = True
        actor.thread = threading.get_ident()
        self.current = actor
        try:
            actor.call()
        except Unwound:
            pass
        except BaseException as error:
            self.fail(error)
        self.actors.pop(actor, None)  # of a run that was interrupted it may be gone
        return self._next()

    def fail(self, error: BaseException) -> None:
        """Have an error raised where the scenario waits; the first one counts."""
        if self.main.cancellation is None:
            self.main.cancellation = error

    def _next(self) -> Actor:
        if self._closing:
            return next(reversed(self.actors))
        if self.main.cancellation is not None:
            return self.main
        try:
            return self._decide()
        except BaseException as error:
            self.fail(error)
            return self.main

    def close(self) -> None:
        """End all actors but the main one, which has the turn: their waits raise `Unwound`."""
        self._closing = True
        if self.lost:
            self._regain()
        for actor in [one for one in self.actors if not one.begun]:
            del self.actors[actor]
        while not self.lost and len(self.actors) > 1:
            self._unwind()
            self._hand_over(self.main, self._next())
            self.current = self.main

    def _regain(self) -> None:
        """Wait for the turn that a signal has left with another thread, unless that is stuck."""
        self._unwind()
        self.lost = not self.main.go.acquire(timeout=_PATIENCE)
        self.current = self.main

    def _unwind(self) -> None:
        """Have `Unwound` raised in the waits of all actors but the main one."""
        for actor in list(self.actors)[1:]:
            actor.cancellation = Unwound()
