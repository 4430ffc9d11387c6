"""What the threads do that do not wait on a manual clock."""

import _thread
import queue
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import FunctionType
from typing import Any, Self

import pytest
from helpers import PATIENCE, Call
from store.stores import until

from nsqlite import Topic
from nsqlite.testing.bystanders import STILL, Place, Users, Watch, _Seen, places

MS = 1_000_000


class Obeying:
    """A thread that does what it is told, and between that waits in one of two places."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._done = threading.Semaphore(0)
        self.thread = threading.Thread(target=self._run, name="obeying", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while True:
            call = self._calls.get()
            if call is None:
                self._done.release()
                call = self._calls.get()
            if call is None:
                return
            call()
            self._done.release()

    def make(self, call: Callable[[], object] | None) -> None:
        """Have it make a call, or go to its other place."""
        self._calls.put(call)
        assert self._done.acquire(timeout=PATIENCE)
        until(lambda: not self._calls.qsize())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for _ in "12":
            self._calls.put(None)
        self.thread.join(PATIENCE)


def begin(users: Users, patience: int = 100 * MS, *, jumps: bool = True) -> Watch:
    return Watch(users, patience, jumps=jumps)


def where(number: int) -> object:
    """Return in which function a thread is."""
    place = places()[number]
    return place and place.code


def held_for(watch: Watch, *, to_jump: bool = True, most: int = 10**10) -> int:
    """Return for how long somebody holds a clock back on which the caller waits alone."""
    me = {threading.get_ident()}
    while watch.is_held(me, to_jump=to_jump) and watch.waited < most:
        watch.next_pause(to_jump=to_jump)
    return watch.waited


@pytest.fixture
def users() -> Users:
    """Return who uses a clock, where other tests have left nobody who is a stranger to it."""
    users = Users()
    users.passed |= dict.fromkeys(threading.enumerate(), False)
    return users


def waits(thread: threading.Thread) -> bool:
    """Return whether a thread waits for somebody else by now."""
    place = places().get(thread.ident or 0)
    return place is not None and place.waits


def test_nobody_else(users: Users) -> None:
    """Who is alone is held by nobody, whatever is asked."""
    assert 0 == held_for(begin(users))
    assert 0 == held_for(begin(users), to_jump=False)


def test_pauses_grow() -> None:
    """It looks after 1, 2, 4 and then every 8 ms, and never after more than the patience."""
    watch = begin(Users())
    assert [1, 2, 4, 8, 8] == [watch.next_pause(to_jump=True) // MS for _ in range(5)]
    assert 23 * MS == watch.waited
    assert 100 * MS == watch.next_pause(to_jump=False)
    assert watch.is_over
    watch = begin(Users(), 3 * MS)
    assert [1, 2, 3, 3] == [watch.next_pause(to_jump=True) // MS for _ in range(4)]


def test_a_stranger_holds_it_back_once(users: Users) -> None:
    """A thread that has never used the clock is looked at until it stands still, and no more."""
    with Obeying() as stranger:
        assert STILL == held_for(begin(users))
        assert 0 == held_for(begin(users))
        assert () == users.passed_users()
        stranger.make(users.meet)
        assert 100 * MS <= held_for(begin(users)) <= 107 * MS


def test_a_stranger_does_not_keep_anybody_waiting_for_ever(users: Users) -> None:
    """Where the question is whether to give up, strangers do not count."""
    with Obeying():
        assert 0 == held_for(begin(users), to_jump=False)
        assert 0 == held_for(begin(users, jumps=False), to_jump=False)


def test_who_moves_does_not_stand_still(users: Users) -> None:
    """A stranger that is seen somewhere else is looked at anew, but for no longer than patience."""
    me = {threading.get_ident()}
    with Obeying() as stranger:
        watch = begin(users)
        for _ in range(3):
            assert watch.is_held(me, to_jump=True)
            watch.next_pause(to_jump=True)
        stranger.make(None)
        assert 7 * MS + STILL <= held_for(watch) <= 8 * MS + STILL + 8 * MS
    with Obeying():
        assert 4 * MS <= held_for(begin(users, 4 * MS)) <= 7 * MS


def test_a_user_is_waited_for(users: Users) -> None:
    """A thread that uses the clock and does something is waited for, then until it comes back."""
    with Obeying() as user:
        user.make(users.meet)
        for to_jump in (True, False):
            assert 100 * MS <= held_for(begin(users), to_jump=to_jump) <= 107 * MS
            assert ("obeying",) == users.passed_users()
            assert 0 == held_for(begin(users), to_jump=to_jump)
            user.make(users.begin_turn)
            assert () == users.passed_users()
    users.forget_the_dead(threading.enumerate())
    assert user.thread not in users.passed


def test_a_user_that_has_waited_meanwhile_has_its_time_anew(users: Users) -> None:
    """Who waited on the clock between two looks is no longer the one that holds it back."""
    me = {threading.get_ident()}
    with Obeying() as user:
        user.make(users.begin_turn)
        watch = begin(users)
        while watch.waited < 90 * MS:
            assert watch.is_held(me, to_jump=True)
            watch.next_pause(to_jump=True)
        user.make(users.begin_turn)
        assert 190 * MS <= held_for(watch) <= 200 * MS


def test_a_user_that_waits_for_somebody_else(users: Users) -> None:
    """It holds a clock that jumps back until it stands still, each time, and any other longer."""
    gate = threading.Event()
    with Obeying() as user:
        user.make(users.meet)
        user._calls.put(lambda: gate.wait(PATIENCE))
        until(lambda: waits(user.thread))
        assert STILL <= held_for(begin(users)) <= STILL + 16 * MS
        assert STILL == held_for(begin(users))
        assert 100 * MS == held_for(begin(users, jumps=False), to_jump=False)
        gate.set()


def test_an_idle_pool(users: Users) -> None:
    """The thread of a pool that has used the clock and has nothing to do waits for work."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(users.meet).result(PATIENCE)
        until(lambda: all(map(waits, pool._threads)))
        assert STILL <= held_for(begin(users)) <= STILL + 16 * MS


call: Any = None


def pass_on(self: object) -> None:
    """Call what stands in its module."""
    call(self)


def stand(*frames: tuple[str, str], ready: list[int] | None = None) -> Any:
    """Return where a thread is in functions of these modules and names, the first outermost."""

    class Loop:
        """An event loop, as far as it matters."""

        _ready = ready

    gate: queue.SimpleQueue[None] = queue.SimpleQueue()
    call: Any = gate.get  # in C, so no frame more
    for module, name in reversed(frames):
        code = pass_on.__code__.replace(co_name=name)
        call = FunctionType(code, {"__name__": module, "call": call})
    number = _thread.start_new_thread(call, (Loop(),))

    until(lambda: names_of(number) == [name for _, name in frames])
    place = places()[number]
    gate.put(None)
    return place


def names_of(number: int) -> list[str]:
    """Return the functions in which a thread is, the outermost first."""
    frame = sys._current_frames().get(number)
    names: list[str] = []
    while frame is not None:
        names.insert(0, frame.f_code.co_name)
        frame = frame.f_back
    return names


def test_a_thread_that_was_only_just_started() -> None:
    """It is nowhere, and so never stands still, however long it waits for a processor."""
    assert stand(("threading", "_bootstrap"), ("threading", "set")) is None
    for target in ("threading", "run"), ("mine", "_bootstrap"):
        assert stand(("threading", "_bootstrap"), target, ("threading", "wait")).waits


def test_a_loop_that_was_given_work() -> None:
    """One that is about to wake does not wait any more."""
    run_once, select = ("asyncio.base_events", "_run_once"), ("selectors", "select")
    assert not stand(run_once, select, ready=[1]).waits
    assert stand(run_once, select, ready=[]).waits
    assert stand(("mine", "serve"), select, ready=[1]).waits
    assert stand(select).waits


def test_who_serves() -> None:
    """A thread in which nsqlite calls something is a worker's, unless it waits on a clock."""
    run_once, select = ("asyncio.base_events", "_run_once"), ("selectors", "select")
    handler = stand(("nsqlite.worker.threads", "_work"), run_once, select, ready=[])
    assert (False, True) == (handler.waits, handler.serves)
    loop = stand(("nsqlite.worker.tasks", "_run"), run_once, select, ready=[])
    assert (True, True) == (loop.waits, loop.serves)
    other = stand(("nsqlite.worker.threads", "_next"), ("nsqlite.clock", "wait"))
    assert (False, False) == (other.waits, other.serves)
    assert not stand(select).serves


def test_a_workers_thread_is_a_user_before_it_uses_the_clock(users: Users) -> None:
    """So it is waited for from the first; one that is older than the clock is another's."""
    place = Place(test_who_serves.__code__, 0, waits=False, serves=True)
    for thread, held in ((threading.Thread(), True), (threading.current_thread(), False)):
        users.home.discard(thread)
        watch = begin(users)
        watch.waited = STILL
        assert held == watch._holds(thread, _Seen(None, place, 0, 0), to_jump=True)


def test_who_has_not_begun_holds_it_back(users: Users) -> None:
    """A thread that has only just been started is waited for as one that does something."""
    seen = _Seen(None, None, 0, 0)
    watch = begin(users)
    watch.waited = 99 * MS
    assert watch._holds(threading.Thread(), seen, to_jump=True)


def test_who_waits_in_a_call_of_nsqlite(users: Users) -> None:
    """A handler or observer is given the whole patience, though it waits for somebody else."""
    topic = Topic("orders")
    begun, gate = threading.Event(), threading.Event()

    def observer(_event: object) -> None:
        users.meet()
        begun.set()
        assert gate.wait(PATIENCE)

    topic.observe(observer)
    call = Call(lambda: topic.put(b"1"))
    assert begun.wait(PATIENCE)
    assert 100 * MS <= held_for(begin(users)) <= 107 * MS
    gate.set()
    call.result()


def test_who_may_come_and_move_it(users: Users) -> None:
    """The main thread and the one that made the clock hold up who would give up, for good."""
    main = threading.get_ident()

    def look(watch: Watch, *, to_jump: bool) -> int:
        return held_for(watch, to_jump=to_jump, most=1000 * MS)

    def busy(watch: Watch, *, to_jump: bool) -> int:
        """Look while the main thread is busy in a call of C code."""
        one, other = socket.socketpair()
        with one, other:

            def call() -> None:
                until(lambda: where(main) is busy.__code__)
                answers.append(look(watch, to_jump=to_jump))
                other.send(b"1")

            answers: list[int] = []
            thread = threading.Thread(target=call)
            thread.start()
            assert b"1" == one.recv(1)
            thread.join()
            return answers[0]

    assert 1000 * MS == busy(begin(users, jumps=False), to_jump=False)
    assert 1000 * MS == busy(begin(users), to_jump=False)
    users.passed.clear()
    assert 100 * MS <= busy(begin(users), to_jump=True) <= 107 * MS
    assert users.passed[threading.main_thread()]
    assert 1000 * MS == busy(begin(users), to_jump=False)


def test_the_main_thread_waits_for_somebody_else(users: Users) -> None:
    """Then it moves no clock that jumps by itself; any other it may still move."""
    users.passed.clear()

    def look(watch: Watch) -> int:
        return held_for(watch, to_jump=False, most=1000 * MS)

    assert Call(lambda: look(begin(users))).result() < 1000 * MS
    assert 1000 * MS == Call(lambda: look(begin(users, jumps=False))).result()


def test_a_stores_thread(users: Users) -> None:
    """It tells itself whether there is anything to wait for, and is never passed over for good."""

    class Thread(threading.Thread):
        """The thread of a store."""

        at_rest = False

    gate = threading.Event()
    thread: Any = Thread(target=gate.wait, args=(PATIENCE,))
    thread.start()
    for to_jump in (True, True, False):
        assert 100 * MS <= held_for(begin(users), to_jump=to_jump) <= 107 * MS
    thread.at_rest = True
    assert 0 == held_for(begin(users))
    gate.set()
    thread.join(PATIENCE)


def test_the_dead_are_forgotten(users: Users) -> None:
    """The number of a thread that has ended may be another's."""
    with Obeying() as user:
        user.make(users.meet)
        number = user.thread.ident
        assert number in users.turns
    held_for(begin(users))
    assert number not in users.turns
