"""What the threads do that do not wait on a manual clock, as one sees who does.

The rule: who is about to act holds the clock back, and nobody holds it back for ever.

    uses the clock, and does something, or      holds it back for `patience`
        is a worker's and is about to
    uses the clock, and waits for somebody      until it is seen to stand still, which takes 15 ms
    has never used the clock, as an idle        the same, once; from then on it does not count until
        thread or the loop of another library   it uses the clock
    writes what a store keeps                   while it has something to write, for `patience`

A thread that comes to block or to its end tells nobody, and CPython has no call that waits for it.
So who waits on the clock looks again, after 1, 2, 4 and then every 8 ms of real time: only while
somebody holds the clock back that could move, so for no longer than `patience`.

Next: testing/idle.py
"""

import threading
import weakref
from collections.abc import Container, Iterator
from types import CodeType, FrameType
from typing import Final, NamedTuple

from nsqlite.origin import look_at_threads

_MS: Final = 1_000_000

STILL: Final = 15 * _MS
"""For so many real nanoseconds, over several looks, a thread stands in one place that stands still:
one that was just woken, as by the thread that it has started, is gone from there by then."""

_LONGEST_PAUSE: Final = 8 * _MS

_WAITING: Final = frozenset({"threading", "selectors", "concurrent.futures.thread"})
"""The modules in which a thread stands that waits for another one, for a socket or for work."""

_LOOP: Final = "nsqlite.worker.tasks"
"""What runs the loop of a worker's tasks, which waits as any other when it has nothing to do."""

_SERVER: Final = "nsqlite.testing.address"
"""What runs the loop of a test's nsqd, which does so, too, and may not use the clock at all."""

_CLOCKS: Final = frozenset({"nsqlite.clock", "nsqlite.testing.manualclock"})
"""Where a thread waits on a clock, another one."""


class Place(NamedTuple):
    """Where a thread is.

    Attributes:
        code: the function.
        instruction: the place in it.
        waits: there it waits for somebody else, and not in the middle of a call that nsqlite has
            made, as that of a handler.
        serves: it is a worker's, though it may not have used the clock yet.
        rests: nobody has woken it, as can be seen: it is an event loop that has nothing to do at
            once, waits on a condition that nobody has notified, or for work and there is none.
    """

    code: CodeType
    instruction: int
    waits: bool
    serves: bool
    rests: bool = False


def places() -> dict[int, Place | None]:
    """Return where each thread is, by its number; None where it has only just been started."""
    return look_at_threads(_places)


def _places(frames: dict[int, FrameType]) -> dict[int, Place | None]:
    found = {number: _place(frame) for number, frame in frames.items()}
    frames.clear()  # it knows this frame
    return found


def _place(frame: FrameType) -> Place | None:
    if not any(_is_begun(one) for one in _stack(frame)):
        return None
    module = _module(frame)
    callers = {name for one in _stack(frame) if (name := _module(one)).startswith("nsqlite.")}
    waits = module in _WAITING and not _has_work(frame) and callers <= {_LOOP, _SERVER}
    serves = bool(callers - {_SERVER}) and module not in _CLOCKS
    return Place(frame.f_code, frame.f_lasti, waits, serves, waits and _rests(frame))


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    """Return a frame, and those that called it."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


def _is_begun(frame: FrameType) -> bool:
    """Return whether this is not what a thread does before anything of its own."""
    return _module(frame) != "threading" or frame.f_code.co_name == "run"


def _has_work(frame: FrameType) -> bool:
    """Return whether it is an event loop that was given work and has not woken yet."""
    caller = frame.f_back
    return _is_loop(frame) and bool(caller and getattr(caller.f_locals.get("self"), "_ready", None))


def _rests(frame: FrameType) -> bool:
    """Return whether it can be seen that nobody has woken who waits here."""
    known = frame.f_locals
    if "waiter" in known:  # in `Condition.wait`
        return bool(known["waiter"].locked())
    if "work_queue" in known:  # in a pool of threads
        return bool(known["work_queue"].empty())
    return _is_loop(frame)


def _is_loop(frame: FrameType) -> bool:
    """Return whether it is an event loop of asyncio that waits."""
    return frame.f_back is not None and _module(frame.f_back) == "asyncio.base_events"


class Users:
    """The threads that use a clock.

    Threads: any; each step is a single one of a dict or set.

    Attributes:
        turns: how often each has begun to wait on the clock, by its number.
        home: the main thread and the one that made the clock; these may move it at any time.
        passed: the threads that do not count until they next use the clock, each with whether it
            has used it before.
    """

    def __init__(self) -> None:
        """Begin with those that any test has."""
        self.turns: Final[dict[int, int]] = {}
        self.home: Final = {threading.main_thread(), threading.current_thread()}
        self.passed: dict[threading.Thread, bool] = {}
        self._older: Final = weakref.WeakSet(threading.enumerate())

    def may_use(self, thread: threading.Thread, place: Place | None) -> bool:
        """Return whether a thread is taken for a user of the clock though it has not used it yet.

        A worker's thread is, unless it is older than the clock, as one that an earlier test has
        left behind.
        """
        serves = place is not None and place.serves and thread not in self._older
        return serves or thread in self.home

    def meet(self) -> None:
        """Take note that the calling thread uses the clock."""
        self.turns.setdefault(threading.get_ident(), 0)

    def begin_turn(self) -> None:
        """Take note that the calling thread begins to wait on the clock."""
        me = threading.get_ident()
        self.turns[me] = self.turns.get(me, 0) + 1

    def pass_over(self, thread: threading.Thread) -> None:
        """Have a thread not count until it next uses the clock."""
        known = self.turns.pop(thread.ident or 0, None)
        self.passed[thread] = known is not None or thread in self.home

    def pass_over_older(self) -> None:
        """Have no thread count that is older than the clock and has never used it."""
        for thread in list(self._older):
            if thread.ident not in self.turns:
                self.passed.setdefault(thread, False)

    def is_passed(self, thread: threading.Thread) -> bool:
        """Return whether a thread does not count."""
        return thread in self.passed and thread.ident not in self.turns

    def passed_users(self) -> tuple[str, ...]:
        """Return the names of those that use the clock and did not come back."""
        return tuple(
            thread.name
            for thread, is_user in list(self.passed.items())
            if is_user and thread.is_alive() and self.is_passed(thread)
        )

    def forget_the_dead(self, living: list[threading.Thread]) -> None:
        """Forget the threads that have ended: their numbers may be those of others."""
        numbers = {thread.ident for thread in living}
        for number in [one for one in list(self.turns) if one not in numbers]:
            self.turns.pop(number, None)
        for thread in [one for one in list(self.passed) if one not in living]:
            self.passed.pop(thread, None)


class _Seen(NamedTuple):
    """What was seen of a thread.

    Attributes:
        turn: how often it had begun to wait; None if it has never used the clock.
        place: where it is; None if it has not begun, and may have to wait for a processor.
        awake_since: at which moment of the watch it was first seen awake in this turn.
        there_since: at which it was first seen in this place.
    """

    turn: int | None
    place: Place | None
    awake_since: int
    there_since: int


class Watch:
    """What one who waits on a clock sees of the others, from one look to the next.

    Threads: the one that waits.

    Attributes:
        waited: for how long it has looked, in real nanoseconds: the sum of the pauses, since a test
            may have frozen `time`.
    """

    def __init__(self, users: Users, patience: int, *, jumps: bool, trusts: bool = False) -> None:
        """Begin to look.

        Args:
            users: who uses the clock.
            patience: how long anybody is waited for, in real nanoseconds.
            jumps: whether the clock moves on; else somebody has to come and move it.
            trusts: whether one that rests is believed at the second look: what may be on its way
                through a socket is not waited for.
        """
        self.waited: int = 0
        self._users: Final = users
        self._patience: Final = patience
        self._jumps: Final = jumps
        self._trusts: Final = trusts
        self._pause: int = _MS // 10 if trusts else _MS
        self._seen: dict[threading.Thread, _Seen] = {}

    def next_pause(self, *, to_jump: bool) -> int:
        """Return for how many real nanoseconds to sleep until the next look."""
        pause = self._patience
        if to_jump:
            pause = min(self._pause, pause)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        self.waited += pause
        return pause

    @property
    def is_over(self) -> bool:
        """Whether it has taken as long as anybody is waited for."""
        return self.waited >= self._patience

    def is_held(self, asleep: Container[int], *, to_jump: bool) -> bool:
        """Look at every thread, and return whether one of them holds the clock back.

        Args:
            asleep: the numbers of those that wait on the clock.
            to_jump: whether the question is to move on; else it is whether to give up.
        """
        living = threading.enumerate()
        where = places()
        self._users.forget_the_dead(living)
        before, self._seen = self._seen, {}
        held = False
        for thread in living:
            number = thread.ident or 0
            if number not in asleep and not self._is_passed(thread, to_jump=to_jump):
                turn = self._users.turns.get(number)
                seen = self._see(turn, where.get(number), before.get(thread))
                self._seen[thread] = seen
                held = self._holds(thread, seen, to_jump=to_jump) or held
        return held

    def _is_passed(self, thread: threading.Thread, *, to_jump: bool) -> bool:
        return self._users.is_passed(thread) and (to_jump or thread not in self._users.home)

    def _see(self, turn: int | None, place: Place | None, before: _Seen | None) -> _Seen:
        if before is None or before.turn != turn:
            return _Seen(turn, place, self.waited, self.waited)
        if before.place != place:
            return _Seen(turn, place, before.awake_since, self.waited)
        return before

    def _holds(self, thread: threading.Thread, seen: _Seen, *, to_jump: bool) -> bool:
        """Return whether a thread that does not wait on the clock holds it back."""
        users = self._users
        at_rest: bool | None = getattr(thread, "at_rest", None)  # of a store's thread
        is_user = seen.turn is not None or users.may_use(thread, seen.place)
        if at_rest or not (to_jump or is_user or at_rest is False):
            return False
        if self._stands_still(seen, is_user=is_user) and at_rest is None:
            if not is_user:
                users.pass_over(thread)
            return False
        if self.waited - seen.awake_since < self._patience:
            return True
        if thread in users.home and not to_jump:
            return True  # it may come and move the clock, however long that takes
        if at_rest is None:
            users.pass_over(thread)
        return False

    def _stands_still(self, seen: _Seen, *, is_user: bool) -> bool:
        """Return whether a thread waits for somebody else, as far as can be seen."""
        if not self._jumps or seen.place is None:
            return False
        stood = self.waited - seen.there_since
        if self._trusts and seen.place.rests and stood:
            return True
        if stood < STILL:
            return False
        return seen.place.waits or not is_user
