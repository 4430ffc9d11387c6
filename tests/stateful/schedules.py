"""Two calls in the orders in which CPython may run them, under a scheduler of the tests' own.

The rule: one of two threads runs at a time, and it is left at a place or where it blocks, nowhere
else; so a schedule is a few numbers, and run again it does the same again.

A *place* is where CPython can let another thread run: where a function has begun, where a call has
returned, where a loop has gone round.  They are read from the bytecode of the traced files.  (The
return of a Python function is no such moment today; it is taken for one all the same, as nothing
shall rest on that.)

A *preemption* is a switch at a place, away from a thread that could have gone on.  That a thread
ended or blocked is none.  `Exploration` runs all schedules with at most two of them.

How the scheduler sees that a thread blocks:

- On a lock: while a scene is on, `threading.RLock` makes a `StagedLock`.  It is taken only when it
  is free; who finds it taken leaves the stage.
- In a wait: `StagedClock.wait` leaves the stage until it is woken or its time is over.

When neither thread can go on, time passes up to the next end of a wait.  When there is none either,
`Stuck` is raised in the thread that would sleep for ever.
"""

import dis
import gc
import random
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final, Protocol, Self
from unittest import mock

import attrs
from helpers import PATIENCE

from nsqlite.clock import NEVER, Alarm, Loop, Semaphore, Timed

SECOND: Final = 1_000_000_000
LONGEST: Final = 100_000  # places that one run may pass before it counts as endless

Trace = Callable[[FrameType, str, Any], Any]


class Stuck(BaseException):
    """Raised in a thread that waits for what will never be, or never ends."""


@lru_cache(None)
def places(code: CodeType) -> frozenset[int]:
    """Return the offsets of the instructions before which another thread may be let in."""
    found = set()
    before = None
    for instruction in dis.get_instructions(code):
        if before is not None and _lets_in_after(before):
            found.add(instruction.offset)
        if "JUMP_BACKWARD" in instruction.opname and "NO_INTERRUPT" not in instruction.opname:
            found.add(instruction.argval)
        before = instruction
    return frozenset(found)


@lru_cache(None)
def _have_opcode_events() -> None:
    """Have CPython 3.12 tell of opcodes.

    It wants to be asked by a frame before anything is traced, and crashes if that frame goes on
    while another thread is; so this one asks once and ends.
    """
    sys._getframe().f_trace_opcodes = True


def _lets_in_after(instruction: dis.Instruction) -> bool:
    name = instruction.opname
    if name == "RESUME":
        return (instruction.arg or 0) & 3 < 2  # not in the middle of an await
    return name.startswith("CALL") and not name.startswith("CALL_INTRINSIC")


# One run


@attrs.frozen
class Schedule:
    """Who begins, and after how many places the running thread is preempted.

    Attributes:
        first: 0 or 1.
        switches: places counted from the beginning of the run, over both threads, ascending.
    """

    first: int
    switches: tuple[int, ...] = ()


@attrs.frozen
class Run:
    """What came of a schedule.

    Attributes:
        results: what each call returned or raised, and the second in which it last woke, 0 if it
            never waited.
        choices: the places where the other thread could have gone on, by number.
        preempted: where the threads were preempted, in words.
    """

    results: tuple[tuple[Any, float], tuple[Any, float]]
    choices: tuple[int, ...]
    preempted: tuple[str, ...]


def _result_of(call: Callable[[], Any]) -> Any:
    """Return what a call returns or raises."""
    try:
        return call()
    except BaseException as error:
        return error


def _taken() -> threading.Lock:
    """Return a lock that is taken: who releases it lets go on who waits to take it."""
    lock = threading.Lock()
    lock.acquire()
    return lock


@attrs.define(eq=False)
class _Actor:
    """One of the two threads.

    Attributes:
        turn: released to let it run.
        call: what it is to do next; None ends the thread.
        over: it has nothing to do.
        ready: says whether it can go on, while it is blocked.
        due: when its wait is over, on the clock's scale, while it waits.
        woken: when it last went on after a wait, in seconds.
        result: what its call returned or raised.
    """

    turn: threading.Lock = attrs.field(factory=_taken)
    call: Callable[[], Any] | None = None
    over: bool = True
    ready: Callable[[], bool] | None = None
    due: int = NEVER
    woken: float = 0.0
    result: Any = None

    def take(self) -> tuple[Any, float]:
        """Return the result and forget it: its end is not to be a part of the next run."""
        result, self.result = self.result, None
        return result, self.woken

    def can_run(self) -> bool:
        return not self.over and (self.ready is None or self.ready())


class Scheduler:
    """Runs two calls by a schedule; a context manager that owns the two threads.

    Attributes:
        now: the time of the clocks, in nanoseconds.
    """

    def __init__(self, *traced: Path) -> None:
        """Take the files, or folders of them, that have places."""
        self.now = 0
        self._traced = tuple(map(str, traced))
        self._actors = (_Actor(), _Actor())
        self._running: _Actor | None = None
        self._done = _taken()
        self._passed = 0
        self._switches: tuple[int, ...] = ()
        self._choices: list[int] = []
        self._preempted: list[str] = []
        self._threads = [
            threading.Thread(target=self._work, args=(actor,), daemon=True)
            for actor in self._actors
        ]

    def __enter__(self) -> Self:
        _have_opcode_events()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        for actor, thread in zip(self._actors, self._threads, strict=True):
            actor.call = None
            actor.turn.release()
            thread.join(PATIENCE)

    def run(self, calls: tuple[Callable[[], Any], Callable[[], Any]], schedule: Schedule) -> Run:
        """Make two calls, each in its thread, and return when both are over."""
        self._passed = 0
        self._switches = schedule.switches
        self._choices = []
        self._preempted = []
        for actor, call in zip(self._actors, calls, strict=True):
            actor.call, actor.over, actor.woken = call, False, 0.0
        self._hand_to(self._actors[schedule.first])
        assert self._done.acquire(timeout=PATIENCE), "a thread blocks where nobody sees it"
        self._running = None
        assert len(self._preempted) == len(schedule.switches), "the run was another this time"
        one, other = (actor.take() for actor in self._actors)
        return Run((one, other), tuple(self._choices), tuple(self._preempted))

    def block(self, ready: Callable[[], bool], due: int = NEVER) -> None:
        """Return when a condition is true, having let the other thread run; or when it is due.

        Raises:
            Stuck: it will never be.
        """
        me = self._running
        assert me is not None, "something was left locked"
        me.ready, me.due = lambda: ready() or self.now >= due, due
        try:
            while not me.ready():
                other = self._other(me)
                if other.can_run():
                    self._hand_over(me, other)
                elif (soonest := min(me.due, NEVER if other.over else other.due)) != NEVER:
                    self.now = soonest
                else:
                    raise Stuck
        finally:
            me.ready, me.due = None, NEVER

    def wait(self, rung: Callable[[], bool], due: int) -> None:
        """Block, and take note of when it was over."""
        self.block(rung, due)
        if self._running is not None:
            self._running.woken = self.now / SECOND

    # The threads

    def _work(self, me: _Actor) -> None:
        while True:
            me.turn.acquire()
            if me.call is None:
                break
            if sys.gettrace() is None:  # at first, and when an error came out of a trace function
                sys.settrace(self._enter)
            me.result = _result_of(me.call)
            me.call = None
            me.over = True
            other = self._other(me)
            if other.over:
                self._done.release()
            else:
                self._hand_to(other)
        sys.settrace(None)

    def _other(self, me: _Actor) -> _Actor:
        one, other = self._actors
        return other if me is one else one

    def _hand_to(self, other: _Actor) -> None:
        self._running = other
        other.turn.release()

    def _hand_over(self, me: _Actor, other: _Actor) -> None:
        self._hand_to(other)
        me.turn.acquire()

    # Their places

    def _enter(self, frame: FrameType, _event: str, _arg: object) -> Trace | None:
        """Trace a call, if it is of a traced file."""
        code = frame.f_code
        if not code.co_filename.startswith(self._traced):
            return None
        here = places(code)

        def local(frame: FrameType, event: str, _arg: object) -> Trace:
            if event == "opcode" and frame.f_lasti in here:
                self._pass(frame)
            return local

        frame.f_trace = local  # before the next line, for CPython 3.13
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return local

    def _pass(self, frame: FrameType) -> None:
        """Go past a place, or be preempted there."""
        self._passed += 1
        if self._passed > LONGEST:
            raise Stuck
        me = self._running
        assert me is not None
        other = self._other(me)
        if other.can_run():
            self._choices.append(self._passed)
            if self._passed in self._switches:
                who = self._actors.index(me)
                name = Path(frame.f_code.co_filename).name
                self._preempted.append(
                    f"{'AB'[who]} in {frame.f_code.co_qualname} ({name}:{frame.f_lineno})"
                )
                self._hand_over(me, other)


class StagedLock:
    """Stands for `threading.RLock` while a scene is on."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._owner: int | None = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: ARG002, FBT002 - RLock's
        me = threading.get_ident()
        if self._owner is not None and self._owner != me:
            if not blocking:
                return False
            self._scheduler.block(self._is_free)
        self._owner = me
        self._count += 1
        return True

    def release(self) -> None:
        if not self._is_owned():
            raise RuntimeError("cannot release un-acquired lock")
        self._count -= 1
        if not self._count:
            self._owner = None

    def _is_owned(self) -> bool:
        return self._owner == threading.get_ident()

    def _is_free(self) -> bool:
        return self._owner is None

    __enter__ = acquire

    def __exit__(self, *exception: object) -> None:
        self.release()


class StagedClock:
    """A clock of a scene: it stands unless it is moved, or nobody can go on.

    What blocks does not act on the deadlines of channels then, as on the machine's clock.
    """

    resolution: Final = 1

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._timed: list[weakref.ref[Timed]] = []
        scheduler.now = 0

    @property
    def monotonic_ns(self) -> Callable[[], int]:
        return self._now

    @property
    def time_ns(self) -> Callable[[], int]:
        return self._now

    def _now(self) -> int:
        return self._scheduler.now

    def wait(self, semaphore: Semaphore, moment: int | None, who: str) -> bool:  # noqa: ARG002 - Clock's
        def rung() -> bool:
            if not semaphore.acquire(blocking=False):
                return False
            semaphore.release()  # it was only looked at
            return True

        self._scheduler.wait(rung, NEVER if moment is None else moment)
        return semaphore.acquire(blocking=False)

    def alarm(self, loop: Loop, moment: int, callback: Callable[[], object]) -> Alarm:
        raise NotImplementedError("there are no event loops on the stage")

    def attach(self, timed: Timed) -> Callable[[int], object]:
        self._timed.append(weakref.ref(timed))
        return int  # it asks at each stop and need not be told

    def skip(self, seconds: float) -> None:
        """Let time pass, which nobody notices by itself."""
        self._scheduler.now += int(seconds * SECOND)

    def advance(self, seconds: float) -> None:
        """Let time pass, and all that falls due happen at its moment."""
        target = self._now() + int(seconds * SECOND)
        while (due := min((timed.next_due() for timed in self._living()), default=NEVER)) <= target:
            self._scheduler.now = max(due, self._now())
            for timed in self._living():
                if timed.next_due() <= self._now():
                    timed.advance()
        self._scheduler.now = target

    def _living(self) -> list[Timed]:
        return [timed for known in self._timed.copy() if (timed := known()) is not None]


# All runs


class Scene(Protocol):
    """What is played again and again."""

    @property
    def calls(self) -> tuple[Callable[[], Any], Callable[[], Any]]:
        """The two calls."""
        ...

    def outcome(self, run: Run) -> str:
        """Return all that can be seen afterwards, in words."""
        ...


class Exploration:
    """The schedules of a scene with at most two preemptions, and what came of them.

    What the two calls do without a preemption, one after the other, is right; all else must end as
    one of these does.

    Attributes:
        right: the outcomes that are right.
        runs: how many schedules were run.
        total: how many there are.
        faults: other outcomes, each with the first schedule that led there, in words, and with how
            many did.
    """

    def __init__(self, scheduler: Scheduler, make: Callable[[StagedClock], Scene]) -> None:
        self._scheduler = scheduler
        self._make = make
        self.runs = 0
        self.right: dict[str, str] = {}
        self.faults: dict[str, tuple[str, int]] = {}
        for first in (0, 1):
            self._play(Schedule(first))  # the first time fills caches, and goes by other places
        self.runs = 0
        begun = [self._play(Schedule(first)) for first in (0, 1)]
        self.right = {outcome: f"{'AB'[n]} first" for n, (_, outcome) in enumerate(begun)}
        self._single = [
            Schedule(first, (place,)) for first in (0, 1) for place in begun[first][0].choices
        ]
        self._double: list[Schedule] = []
        for schedule in self._single:
            run = self._try(schedule)
            [place] = schedule.switches
            self._double += [
                Schedule(schedule.first, (place, then)) for then in run.choices if then > place
            ]
        self.total = 2 + len(self._single) + len(self._double)

    def run_all(self) -> None:
        """Run the schedules with two preemptions, too."""
        for schedule in self._double:
            self._try(schedule)

    def run_some(self, most: int) -> None:
        """Run so many of them, always the same."""
        chosen = random.Random(0).sample(self._double, min(most, len(self._double)))
        for schedule in chosen:
            self._try(schedule)

    def _try(self, schedule: Schedule) -> Run:
        run, outcome = self._play(schedule)
        if outcome not in self.right:
            words = f"{'AB'[schedule.first]} first; {'; '.join(run.preempted)}; {schedule}"
            known, times = self.faults.get(outcome, (words, 0))
            self.faults[outcome] = (known, times + 1)
        return run

    def _play(self, schedule: Schedule) -> tuple[Run, str]:
        self.runs += 1
        if self.runs % 50 == 0:
            gc.collect(0)  # nothing is old, as it is off otherwise
        with mock.patch.object(threading, "RLock", partial(StagedLock, self._scheduler)):
            scene = self._make(StagedClock(self._scheduler))
            run = self._scheduler.run(scene.calls, schedule)
            try:
                outcome = scene.outcome(run)
            except Exception as error:  # that is the fault
                outcome = f"{run.results}\n{error!r}"
        return run, outcome


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep the garbage collector from running finalisers in the middle of a run."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
