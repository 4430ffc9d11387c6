"""A clock that moves when a test says so, and only then.

The rule: a move stops at every deadline on its way and lets it take effect, so when `advance`
returns everything that should have happened by then has happened.

Next: testing/anyfault.py
"""

import threading
import weakref
from collections.abc import Callable, Sequence
from heapq import heappop, heappush, heapreplace
from itertools import count
from typing import Any, Final, Protocol, TypeAlias

from nsqlite.clock import NEVER, Alarm, Loop, Semaphore, Timed, held_semaphore, release
from nsqlite.errors import ClockStandsStill, InvalidOption
from nsqlite.lock import make_lock
from nsqlite.message import Message
from nsqlite.options import DAY, LONGEST, SECOND, Seconds, nanoseconds
from nsqlite.testing.bystanders import STILL, Users, Watch
from nsqlite.testing.idle import Run, Runner, never

LIMIT: Final = 2 * DAY
"""Seconds of a clock that `run_until_idle` takes at most, unless it is told otherwise."""

ASK: Final = (
    "workers on this clock call their handlers when they are asked to: call run_until_idle() or"
    " drain() of the broker before, or give it the mode 'inline' or 'real'"
)

_START: Final = 1_700_000_000.0
_LOCK: Final = type(threading.Lock())


class RunnersHost(Protocol):
    """A broker whose workers run in the caller, unless its mode is ``"real"``."""

    @property
    def mode(self) -> str:
        """How they run."""
        ...

    def _runners(self) -> Sequence[Runner]:
        """Return what runs them, in the order of their start."""
        ...

    def _counts(self) -> dict[str, int]:
        """Return how many messages each has begun with that runs by itself, by its name."""
        ...


class _Sleep:
    """One wait on a manual clock.

    Attributes:
        loop: the event loop that it is in; None for a thread's.
    """

    __slots__ = ("due", "loop", "over", "semaphore", "who")

    def __init__(self, semaphore: Semaphore, due: int, who: str, loop: Loop | None = None) -> None:
        self.semaphore = semaphore
        self.due = due
        self.who = who
        self.loop = loop
        self.over = False

    def is_sound(self) -> bool:
        """Return whether nobody has woken it yet."""
        return not self.over and isinstance(self.semaphore, _LOCK) and self.semaphore.locked()


class _Call:
    """Stands for the lock of a sleeper where a function is to be called instead."""

    def __init__(self, release: Callable[[], object]) -> None:
        self.release = release

    def acquire(self, blocking: bool = False, timeout: float = -1) -> bool:  # noqa: ARG002, FBT002 - a Semaphore's
        """Return False, as nobody sleeps on it."""
        return False


class _Attached:
    """Something with deadlines, as a manual clock knows it.

    Attributes:
        timed: what it is; the clock does not keep it alive.
        moment: when the clock looks at it: no later than its next deadline, `NEVER` if it has none.
    """

    __slots__ = ("_clock", "_number", "_told", "moment", "timed")

    def __init__(self, clock: "ManualClock", number: int, timed: Timed) -> None:
        self._clock = clock
        self._number = number
        self.timed = weakref.ref(timed)
        self.moment = NEVER
        self._told = NEVER  # the earliest that it has told of since the clock last looked

    def expect(self, due: int) -> None:
        """Take note of a deadline."""
        clock = self._clock
        look = (due, self._number, self)
        with clock._lock:
            self._told = min(due, self._told)
            if due < self.moment:
                self.moment = due  # one piece with the next line
                heappush(clock._looks, look)

    def look(self, look: "_Look", target: int) -> None:
        """Let what is due happen, and find out when to look again.

        What is due and still there is so in the middle of a call, and acts when that is over: so
        nothing is left to look at before the clock has moved beyond its target.
        """
        timed = self.timed()
        due = NEVER
        if look[0] == self.moment:
            self._told = NEVER
            if timed is not None:
                timed.advance()
                due = timed.due
        with self._clock._lock:
            looks = self._clock._looks
            if not looks or looks[0] is not look:
                return  # an observer has moved the clock, and looked
            if look[0] != self.moment:
                heappop(looks)
                return
            if due <= self._clock._elapsed and self._told == NEVER:
                due = target + 1
            due = min(due, self._told)
            again = (due, self._number, self)
            if due >= NEVER:
                self.moment = NEVER  # one piece with the next line
                heappop(looks)
            else:
                self.moment = due  # one piece with the next line
                heapreplace(looks, again)


_Look: TypeAlias = tuple[int, int, _Attached]
"""A moment at which a clock looks at what is attached, whose number, and it."""


class _Alarm:
    """A callback that a manual clock is to make."""

    __slots__ = ("_clock", "_sleep")

    def __init__(self, clock: "ManualClock", sleep: _Sleep) -> None:
        self._clock = clock
        self._sleep = sleep

    def cancel(self) -> None:
        """Call it off."""
        self._clock._forget(self._sleep)


class _Idler:
    """Moves a clock on when an event loop that has alarms has nothing else to do.

    Everything is called in the loop's own thread.
    """

    __slots__ = ("_clock", "_loop", "_next", "_watch")

    def __init__(self, clock: "ManualClock", loop: Loop) -> None:
        self._clock = clock
        self._loop = loop
        self._next: Alarm | None = None
        self._watch = clock._begin_watch()

    def begin(self) -> None:
        """Look as soon as the loop has done what it can do now, sockets included."""
        self._watch = self._clock._begin_watch()
        self._set(0)

    def _set(self, pause: int) -> None:
        if self._next is not None:
            self._next.cancel()
        self._next = self._loop.call_later(pause / SECOND, self._look)

    def _look(self) -> None:
        if not self._clock._is_awaited_in(self._loop):
            return  # `alarm` begins anew
        is_free = not self._is_busy()
        self._set(self._watch.next_pause(to_jump=True))  # first: an observer may raise
        if is_free and self._clock._jump(self._watch, threading.get_ident()):
            self.begin()

    def _is_busy(self) -> bool:
        """Return whether tasks can go on at once; for a loop that does not tell, a guess."""
        if self._watch.is_over:
            return False
        ready: object = getattr(self._loop, "_ready", None)
        return self._watch.waited < STILL if ready is None else bool(ready)


class ManualClock:
    """Time by hand, for `Broker(clock=...)` and `Topic(clock=...)`.

        >>> import nsqlite
        >>> clock = ManualClock()
        >>> topic = nsqlite.Topic("orders", clock=clock)
        >>> consumer = nsqlite.Consumer(topic.channel("billing"))
        >>> id = topic.put(b"later", delay=2.5)
        >>> clock.advance(2.5)
        >>> consumer.get(timeout=0).body
        b'later'

    It is exact: its resolution is a nanosecond, so nothing is late.  A thread that is blocked in
    `get`, `put` or `join` sleeps until another thread moves the clock to its moment.

    Where nobody is left to do that, a wait raises `ClockStandsStill` after `patience`: all threads
    that use the clock wait on it, the main thread and the one that made it among them.  One that
    uses it and is busy elsewhere, as in a handler that is stuck, is waited for no longer than that.
    A thread that has never used the clock does not count.  If one is to move it for the first time,
    it must do so within `patience`: give the clock as much as that takes.

    With `autojump` it moves on to the next deadline instead as soon as all wait on it, at once.  A
    thread that does something holds it back, but for no longer than `patience`.  One that waits for
    somebody else (in `threading`, in `selectors`, in a pool of threads), or that has never used the
    clock, does so for 15 ms of real time; one that is called by nsqlite, as a handler, is given the
    whole patience there, too.

    An event loop waits when it has nothing to do at once, so `await consumer.get(timeout=5)` moves
    a clock with `autojump`.  What its tasks await besides, as a socket, another thread or
    `asyncio.sleep`, takes no time on this clock: so move it by `advance` where that matters.  A
    task is never told that its clock stands still.

    Threads: any.  Observers may move the clock too; but one that hears of what a move caused must
    not wait for another thread that moves it, which has to wait for the end of this move.

    Attributes:
        resolution: see `nsqlite.Clock`; 1.
        by_hand: see `nsqlite.Clock`; True.
        patience: for how many real seconds a thread is waited for that does not come back.
        autojump: move to the next deadline when all wait.
    """

    resolution = 1  # no `Final`: see `SystemClock`
    by_hand = True

    def __init__(
        self, start: float = _START, *, patience: Seconds = 1.0, autojump: bool = False
    ) -> None:
        """Make a clock that stands.

        Args:
            start: the wall's time, in seconds since the epoch.
            patience: see the class.
            autojump: see the class.

        Raises:
            InvalidOption: the start or the patience is negative or no finite number, or `autojump`
                is no bool.
        """
        if not isinstance(autojump, bool):
            raise InvalidOption("autojump", autojump, "True or False")
        self._start: Final = nanoseconds("start", start, 0, LONGEST)
        self._patience: Final = nanoseconds("patience", patience, above=True)
        self.patience: Final = self._patience / SECOND
        self.autojump: Final = autojump
        self._elapsed = 0
        self._moving: Final = make_lock(rank=-1)  # held by who moves the clock
        # guards the two below; nothing is called inside
        self._lock: Final = make_lock(rank=3, forked=self._forget_sleepers)
        self._sleeps: dict[_Sleep, int] = {}  # with the thread that sleeps, 0 for an alarm
        self._idlers: Final[dict[Loop, _Idler]] = {}
        self._users: Final = Users()
        self._met: Final = self._users.turns
        self._looks: Final[list[_Look]] = []  # a heap; some are out of date
        self._numbers: Final = count()
        self._hosts: Final[list[weakref.ref[RunnersHost]]] = []
        self._begun: Final[list[Semaphore]] = []
        self._turn = 0
        self._movers: Final[list[int]] = []  # the threads that have all done here

    # What a Clock has

    @property
    def monotonic_ns(self) -> Callable[[], int]:
        """See `nsqlite.Clock`."""
        return self._monotonic_ns

    @property
    def time_ns(self) -> Callable[[], int]:
        """See `nsqlite.Clock`."""
        return self._time_ns

    def _monotonic_ns(self) -> int:
        if threading.get_ident() not in self._met:
            self._users.meet()
        return self._elapsed

    def _time_ns(self) -> int:
        if threading.get_ident() not in self._met:
            self._users.meet()
        return self._start + self._elapsed

    def attach(self, timed: Timed) -> Callable[[int], object]:
        """See `nsqlite.Clock`.  What is due together acts in the order of attachment."""
        return _Attached(self, next(self._numbers), timed).expect

    def wait(self, semaphore: Semaphore, moment: int | None, who: str) -> bool:
        """See `nsqlite.Clock`.

        Raises:
            ClockStandsStill: nobody is left to move this clock; see the class.
        """
        self._users.begin_turn()
        sleep = _Sleep(semaphore, NEVER if moment is None else moment, who)
        try:
            with self._lock:
                self._sleeps[sleep] = threading.get_ident()
            self._tell_begun()
            return self._stand(sleep)
        finally:
            self._forget(sleep)

    def alarm(self, loop: Loop, moment: int, callback: Callable[[], object]) -> Alarm:
        """See `nsqlite.Clock`.  Whoever moves the clock calls back, before the move is over."""
        sleep = _Sleep(_Call(callback), moment, "an event loop", loop)
        with self._lock:
            self._sleeps[sleep] = 0
        if self.autojump:
            self._idlers.setdefault(loop, _Idler(self, loop)).begin()
        return _Alarm(self, sleep)

    def _tell_begun(self) -> None:
        """Wake who waits for others to wait on this clock."""
        for semaphore in self._begun.copy():
            release(semaphore)

    def _forget(self, sleep: _Sleep) -> None:
        """Call a wait off."""
        with self._lock:
            self._sleeps.pop(sleep, None)

    def _forget_sleepers(self) -> None:
        """In the child of a fork: the other threads are gone, and nobody wakes for them."""
        me = threading.get_ident()
        self._sleeps = {sleep: thread for sleep, thread in self._sleeps.items() if thread == me}

    def _stand(self, sleep: _Sleep) -> bool:
        watch = self._begin_watch()
        while self._elapsed < sleep.due:
            stood = self._elapsed
            if sleep.semaphore.acquire(timeout=self._look(watch, sleep.who) / SECOND):
                return not sleep.over
            if self._elapsed != stood:
                watch = self._begin_watch()
        return False

    def _begin_watch(self) -> Watch:
        return Watch(self._users, self._patience, jumps=self._may_jump())

    def _may_jump(self) -> bool:
        """Return whether the calling thread moves it when it waits, as in a handler it calls."""
        return self.autojump or threading.get_ident() in self._movers

    def _look(self, watch: Watch, who: str) -> int:
        """Move on if that is time; return for how many real nanoseconds to sleep then.

        Raises:
            ClockStandsStill: see `wait`.
        """
        to_jump = self._may_jump() and self._next() != NEVER
        if to_jump and self._jump(watch):
            return 0
        if not to_jump and not watch.is_held(self._asleep(), to_jump=False) and watch.is_over:
            raise self._standstill(who)
        return watch.next_pause(to_jump=to_jump)

    def _standstill(self, who: str) -> ClockStandsStill:
        error = ClockStandsStill(who, self._ahead(), self._users.passed_users())
        if self._runners():
            error.add_note(ASK)
        return error

    def _jump(self, watch: Watch, *idle: int) -> bool:
        """Move on to the next deadline if nobody holds the clock back; say whether.

        Args:
            watch: what was seen of the other threads.
            idle: those that wait in another way.
        """
        with self._moving:  # one at a time: who comes second finds those awake whom the first woke
            if watch.is_held(self._asleep().union(idle), to_jump=True):
                return False
            return self.advance_to_next() is not None

    def _asleep(self) -> set[int]:
        """Return who waits on this clock and is not about to wake."""
        with self._lock:
            sleeps = self._sleeps.copy()
        return {thread for sleep, thread in sleeps.items() if sleep.is_sound()}

    def _is_awaited_in(self, loop: Loop) -> bool:
        """Return whether an event loop has an alarm; else forget it."""
        with self._lock:
            if any(sleep.loop is loop for sleep in self._sleeps):
                return True
            self._idlers.pop(loop, None)
        return False

    # Moving it

    def time(self) -> float:
        """Return the wall's time in seconds since the epoch."""
        return self._time_ns() / SECOND

    def advance(self, seconds_: Seconds) -> None:
        """Move on by so many seconds, stopping at every deadline on the way.

        Raises:
            InvalidOption: the number is negative or not finite; nothing has changed.
        """
        self._advance(nanoseconds("seconds", seconds_))

    def _advance(self, step: int) -> None:
        """Move on by so many nanoseconds, stopping at every deadline on the way."""
        with self._moving:
            self._move_on(self._after(step))

    def _after(self, step: int) -> int:
        """Return the moment in so many nanoseconds, no later than a clock can show."""
        return min(self._elapsed + step, NEVER - 1)

    def advance_to_next(self) -> float | None:
        """Move on to the next deadline of a channel or a waiting thread.

        Returns:
            By how many seconds; None if there is no deadline, and then nothing has changed.
        """
        with self._moving:
            due = self._next()
            if due == NEVER:
                return None
            before = self._elapsed
            self._move(due, due)
            return (self._elapsed - before) / SECOND

    def run_until_idle(self, limit: Seconds = LIMIT) -> float:
        """Move from deadline to deadline until there is none, and nobody has anything to do.

        All that workers, retries, backoffs and deferrals would do is done, as if time flew: threads
        are let do what there is to do before each move, and handlers of workers on a `FakeBroker`
        that run in the caller are called here.  A message that the test itself holds in flight has
        a deadline, too: it times out, as it would if the test had waited.

        What is deterministic: the moments, and all that happens in the calling thread.  So a
        scenario without other threads has the same history each time.  Threads each do what they
        do before time goes on, but in what order several of them act at the same moment is for the
        system to say.  One that does not come back, waits for somebody else, or has never used the
        clock, holds it back as with `autojump`: see the class.  A thread that is older than the
        clock and has never used it does not count at all.

        Args:
            limit: no further than so many seconds.

        Returns:
            By how many seconds it has moved.

        Raises:
            StillBusy: there is a deadline beyond the limit, which the error names, or 100,000
                messages were handled at one moment.  So it ends where somebody always requeues, and
                where an nsqd on this clock sends heartbeats.  Or a coroutine function waits for
                something that does not come, which the error names, too.
            Reentered: called in an event loop, which could not go on: await `until_idle` there.
            InvalidOption: the limit is negative or no finite number.
            BaseException: a handler that was called here raised it, and it is not an `Exception`.
        """
        run = self._run(limit, "run_until_idle()")
        run.require_no_loop()
        run.run()
        return run.seconds

    async def until_idle(self, limit: Seconds = LIMIT) -> float:
        """Do the same in an event loop of asyncio, which goes on meanwhile.

        Before each move all tasks of this loop go on until none can at once.  So what happens in
        one loop alone, or in the calling thread, is the same each time, real workers with coroutine
        functions included.  What a task awaits besides this clock, as a socket, another thread or
        `asyncio.sleep`, takes no time on it; but a handler that is called here, and awaits such
        a thing, is given the clock's `patience`.

        Raises:
            StillBusy, InvalidOption, BaseException: see `run_until_idle`.
            NotAsyncio: no event loop of asyncio runs here.

        Cancellation:
            The handler at work is cancelled, and its message goes back, its attempts as before.
        """
        run = self._run(limit, "until_idle()")
        await run.run_async()
        return run.seconds

    def _run(self, limit: Seconds, call: str, done: Callable[[], bool] = never) -> Run:
        self._users.pass_over_older()
        until = self._after(nanoseconds("limit", limit))
        return Run(self, until, call, "await until_idle()", done=done)

    def _move_on(self, target: int) -> None:
        while (moment := self._soonest()) <= target:
            self._move(moment, target)
        self._move(target, target)

    def _move(self, moment: int, target: int) -> None:
        """Be at a moment, if it is ahead, and let everything due there happen."""
        self._elapsed = max(self._elapsed, moment)
        self._let_happen(target)
        if self._sleeps:
            self._wake_sleepers()

    def _wake_sleepers(self) -> None:
        """Wake those whose moment has come."""
        with self._lock:
            sleeps = self._sleeps.copy()
        for sleep, thread in [one for one in sleeps.items() if one[0].due <= self._elapsed]:
            sleep.over = True
            if not thread:
                self._forget(sleep)  # an alarm goes off once
            release(sleep.semaphore)

    def _let_happen(self, target: int) -> None:
        """Let happen what is due by now in what is attached."""
        while (look := self._first_look()) is not None and look[0] <= self._elapsed:
            look[2].look(look, max(target, self._elapsed))

    def _first_look(self) -> _Look | None:
        with self._lock:
            return self._looks[0] if self._looks else None

    def _soonest(self) -> int:
        """Return a moment before which there is no deadline; what was due then may be gone."""
        with self._lock:
            first = self._looks[0][0] if self._looks else NEVER
            return min([first, *(sleep.due for sleep in self._sleeps if not sleep.over)])

    def _next(self) -> int:
        """Return the next deadline, `NEVER` if there is none."""
        with self._lock:
            looks = self._looks.copy()
            first = min((sleep.due for sleep in self._sleeps if not sleep.over), default=NEVER)
        places = [0]  # in the heap, of which no more is gone through than comes before `first`
        while places:
            place = places.pop()
            if place < len(looks) and looks[place][0] < first:
                timed = looks[place][2].timed()
                if timed is not None:
                    first = min(first, timed.next_due())
                places += (2 * place + 1, 2 * place + 2)
        return first

    def _ahead(self) -> float | None:
        due = self._next()
        return None if due == NEVER else (due - self._elapsed) / SECOND

    def _watch_all(self) -> Watch:
        """Begin to look at the other threads, for one who moves this clock on."""
        return Watch(self._users, self._patience, jumps=True, trusts=True)

    def _move_to(self, moment: int) -> None:
        """Move on to a moment, stopping at every deadline on the way."""
        with self._moving:
            self._move_on(moment)

    def _pause(self, nanoseconds: int) -> None:
        """Sleep in real time, or until another thread begins to wait on this clock."""
        semaphore = held_semaphore()
        self._begun.append(semaphore)
        try:
            semaphore.acquire(timeout=nanoseconds / SECOND)
        finally:
            self._begun.remove(semaphore)

    def _whose_next(self) -> str:
        """Return in words what the next deadline is of."""
        due = self._next()
        with self._lock:
            sleeps, looks = self._sleeps.copy(), self._looks.copy()
        found = [sleep.who for sleep in sleeps if not sleep.over and sleep.due == due]
        attached = [look[2].timed() for look in looks]
        found += [one.whose() for one in attached if one is not None and one.next_due() == due]
        return " and ".join(dict.fromkeys(found))

    # Workers that run in the caller

    def meanwhile(self, done: Callable[[], bool], timeout: int | None, who: str) -> int | None:
        """Have workers run that run in the caller, if there are any; see `nsqlite.Clock`.

        The clock moves on for them, up to the end of the timeout; so it does for a timeout where
        there could be some.
        """
        if not self._runs(timeout):
            return timeout
        moment = None if timeout is None else self._after(timeout)
        self._run_of(done, moment, who).run()
        return None if moment is None else max(0, moment - self._elapsed)

    async def meanwhile_async(self, done: Callable[[], bool], moment: int | None, who: str) -> None:
        """Do the same in an event loop."""
        if self._runs(moment):
            await self._run_of(done, moment, who).run_async()

    async def _attend(self, runner: Runner, message: Message[Any], call: str) -> None:
        """See a handler to its end that is called in this loop, and move no clock.

        Raises:
            StillBusy: it waits for something that does not come.
            BaseException: the handler raised it, and it is not an `Exception`.
        """
        instead = "await nsqlite.aio.drain(worker)"
        await Run(self, self._elapsed, call, instead, timed=True).work((runner, message))

    def _runs(self, timeout: int | None) -> bool:
        """Return whether who joins here has all done until then, instead of a wait."""
        if timeout is None:
            return bool(self._runners())
        return any(host.mode != "real" for host in self._living_hosts())

    def _run_of(self, done: Callable[[], bool], moment: int | None, who: str) -> Run:
        self._users.pass_over_older()
        timed = moment is not None
        until = self._after(int(LIMIT * SECOND)) if moment is None else min(moment, NEVER - 1)
        return Run(self, until, who, "await nsqlite.aio.join()", done=done, timed=timed)

    def _add_host(self, host: "RunnersHost") -> None:
        """Have the workers of a broker run in the caller; the clock does not keep it alive."""
        hosts = self._hosts
        hosts.append(weakref.ref(host, hosts.remove))

    def _runners(self) -> list[Runner]:
        """Return what runs in the caller, in the order of their start; of each broker in turn."""
        return [runner for host in self._living_hosts() for runner in host._runners()]

    def _counts(self) -> dict[str, int]:
        """Return how many messages each worker has begun with that runs by itself, by its name."""
        counts: dict[str, int] = {}
        for host in self._living_hosts():
            counts.update(host._counts())
        return counts

    def _living_hosts(self) -> "list[RunnersHost]":
        return [host for known in self._hosts.copy() if (host := known()) is not None]

    def __repr__(self) -> str:
        """Show its time, how far ahead the next deadline is, and who waits."""
        ahead = self._ahead()
        due = "no deadline" if ahead is None else f"next deadline in {ahead:.10g} s"
        with self._lock:
            waiting = [sleep.who for sleep in self._sleeps]
        who = f"waiting: {', '.join(waiting)}" if waiting else "nobody waits"
        return f"<ManualClock at {self.time():.10g}, {due}, {who}>"
