"""The lock: who may come in, in which order several are taken, and what a fork does to it."""

import ast
import dis
import gc
import os
import runpy
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from helpers import PATIENCE, Call

import nsqlite
from nsqlite import lock
from nsqlite.lock import Lock, _entering, ensure, make_lock

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """See to it that no test leaves a lock that is taken around forks."""
    yield
    gc.collect()  # a lock that a test has changed is not to be taken by the next one's fork
    assert {} == lock._forking


def others_see_free(one: Lock) -> bool:
    """Return whether another thread can take a lock now."""
    taken = threading.Event()

    def take() -> None:
        with one:
            taken.set()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    return taken.wait(PATIENCE)


# Ensure


def test_a_step_is_made_once() -> None:
    """A step that comes to its end is made once."""
    made: list[int] = []
    ensure(lambda: made.append(1))
    assert [1] == made


@pytest.mark.parametrize("interruptions", [1, 2, 3])
def test_a_step_is_made_until_its_end(interruptions: int) -> None:
    """A step that is interrupted is made again, and then the last interruption goes on."""
    thrown = [KeyboardInterrupt(number) for number in range(interruptions)]
    made: list[str] = []

    def step() -> None:
        if len(made) < interruptions:
            made.append("begun")
            raise thrown[len(made) - 1]
        made.append("done")

    with pytest.raises(KeyboardInterrupt) as info:
        ensure(step)
    assert info.value is thrown[-1]
    assert ["begun"] * interruptions + ["done"] == made


def test_a_step_that_never_ends_is_given_up() -> None:
    """A step that always raises is given up after some tries, with what it raised."""
    made: list[int] = []

    def step() -> None:
        made.append(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ensure(step)
    assert len(made) > 3


# One thread


def test_a_section_is_owned_inside_its_block() -> None:
    """A thread owns a lock inside its block, and neither before nor after."""
    one = make_lock(1)
    owned = [one.owned()]
    with one:
        owned.append(one.owned())
    owned.append(one.owned())
    assert [False, True, False] == owned


def test_a_section_lets_its_own_thread_in_again() -> None:
    """The thread that holds a lock takes it again, and owns it until the outermost block ends."""
    one = make_lock(1)
    owned = []
    with one:
        with one:
            owned.append(one.owned())
        owned.append(one.owned())
    owned.append(one.owned())
    assert [True, True, False] == owned


def test_an_exception_leaves_a_section_free() -> None:
    """A block that raises gives the lock back, and the exception goes on."""
    one = make_lock(1)
    with pytest.raises(ZeroDivisionError), one, one:
        raise ZeroDivisionError
    assert not one.owned()
    assert others_see_free(one)


# Several threads


def test_a_section_lets_one_thread_in() -> None:
    """While a thread is in its block no other one comes in."""
    one = make_lock(1)
    inside: list[int] = []
    crowds: list[int] = []

    def work(number: int) -> None:
        for _ in range(500):
            with one:
                inside.append(number)
                crowds.append(len(inside))
                inside.remove(number)

    calls = [Call(partial(work, number)) for number in range(4)]
    assert [None] * 4 == [call.result() for call in calls]
    assert {1} == set(crowds)


def test_another_thread_waits_for_its_turn() -> None:
    """A thread that finds a lock held comes in when it is given back."""
    one = make_lock(1)
    begun = threading.Event()
    order = []

    def take() -> None:
        begun.set()
        with one:
            order.append("second")

    with one:
        call = Call(take)
        assert begun.wait(PATIENCE)
        order.append("first")
    call.result()
    assert ["first", "second"] == order


def test_another_threads_section_is_not_owned() -> None:
    """A lock that one thread holds is not owned by another."""
    one = make_lock(1)
    with one:
        assert Call(one.owned).result() is False


def test_sections_are_apart() -> None:
    """Who holds one lock holds no other."""
    one, other = make_lock(1), make_lock(1)
    with one:
        assert not other.owned()
        assert others_see_free(other)


# Order


def test_sections_are_taken_by_rank_and_then_by_age() -> None:
    """The order of locks is that of their ranks and, within a rank, of their creation."""
    topic, factory, broker, second = map(make_lock, [1, 2, 0, 1])
    expected = [broker, topic, second, factory]
    assert expected == sorted([factory, second, topic, broker], key=lambda one: one.order)


def test_no_two_sections_have_the_same_place() -> None:
    """The place of a lock in the order is its own, whichever thread made it."""
    calls = [Call(lambda: [make_lock(1) for _ in range(200)]) for _ in range(4)]
    locks = [one for call in calls for one in call.result()]
    assert 800 == len({one.order for one in locks})


def test_a_forgotten_section_goes() -> None:
    """Nothing here keeps a lock that nobody uses any more."""
    one = make_lock(1)
    assert one in [known() for known in lock._locks]
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None


# Locks that are written in Python


@pytest.fixture
def in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have locks that are written in Python, as they are where gevent has patched `threading`."""
    monkeypatch.setattr(threading, "RLock", threading._PyRLock)  # type: ignore[attr-defined]  # hidden


@pytest.mark.usefixtures("in_python")
def test_a_lock_in_python() -> None:
    """A lock that is written in Python is taken, tried, taken again and given back as any other."""
    one = make_lock(1)
    with one, one:
        assert one.owned()
        assert not Call(one.attempt).result()
    assert not one.owned()
    assert one.attempt()
    one.__exit__(None, None, None)
    assert others_see_free(one)
    lock._before_fork()
    assert one.owned()
    lock._after_fork_in_parent()
    assert others_see_free(one)


@pytest.mark.usefixtures("in_python")
def test_a_broker_with_locks_in_python() -> None:
    """Messages go between threads, and into another topic, through locks written in Python."""
    broker = nsqlite.Broker()
    orders, done = broker.topic("orders"), broker.topic("done").channel("all")
    consumer = nsqlite.Consumer(orders.channel("billing"))
    call = Call(partial(consumer.get, PATIENCE))
    orders.put(b"1")
    consumer.move(call.result(), done)
    with nsqlite.Consumer(done) as other:
        message = other.get(timeout=0)
        assert b"1" == message.body
        message.fin()


def test_each_lock_is_given_back_with_three_arguments() -> None:
    """No code gives a lock back with fewer arguments than `with` does."""
    package = Path(nsqlite.__file__).parent
    short = [
        f"{path.relative_to(package).as_posix()}:{node.lineno}"
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "__exit__"
        and len(node.args) < 3
    ]
    assert [] == short


# Fork, its three hooks called by hand


def test_a_fork_takes_every_section() -> None:
    """Before a fork the forking thread takes all locks, in their order."""
    topic, factory, broker = map(make_lock, [1, 2, 0])
    mine = [broker, topic, factory]
    lock._before_fork()
    try:
        assert all(one.owned() for one in mine)
        assert mine == [one for one in lock._forking[threading.get_ident()][-1] if one in mine]
    finally:
        lock._after_fork_in_parent()


def test_a_fork_waits_for_who_holds_a_section() -> None:
    """A fork begins when the thread that holds a lock has given it back."""
    one = make_lock(1)
    order = []

    def fork() -> None:
        lock._before_fork()
        order.append("forked")
        lock._after_fork_in_parent()

    with one:
        call = Call(fork)
        order.append("free")
    call.result()
    assert ["free", "forked"] == order


def on_entry(one: Lock, act: Callable[[], None]) -> None:
    """Have something happen once, when a lock is about to be taken."""
    enter = one.__enter__
    acts = [act]

    def act_and_enter() -> bool:
        if acts:
            acts.pop()()
        return enter()

    one.__enter__ = act_and_enter


def test_a_fork_takes_a_section_that_is_made_meanwhile() -> None:
    """A lock that another thread makes while a fork takes the others is taken too, in its place."""
    first, last = make_lock(0), make_lock(2)
    made: list[Lock] = []
    on_entry(last, lambda: made.append(make_lock(1)))
    lock._before_fork()
    try:
        mine = [first, *made, last]
        assert mine == [one for one in lock._forking[threading.get_ident()][-1] if one in mine]
        assert [True] * 3 == [one.owned() for one in mine]
    finally:
        lock._after_fork_in_parent()
    assert [True] * 3 == [others_see_free(one) for one in mine]


def test_a_fork_passes_over_a_section_that_goes_meanwhile() -> None:
    """A lock that is forgotten while a fork takes the others stops nothing."""
    first, going, last = make_lock(0), [make_lock(1)], make_lock(2)
    on_entry(first, going.clear)
    lock._before_fork()
    try:
        assert (True, True) == (first.owned(), last.owned())
    finally:
        lock._after_fork_in_parent()
    assert others_see_free(last)


def test_forks_find_whole_sections_while_others_make_them() -> None:
    """Threads that make and forget locks all the time disturb no fork."""
    kept = [make_lock(1) for _ in range(100)]
    over = threading.Event()

    def churn() -> None:
        while not over.is_set():
            [make_lock(1) for _ in range(3)]

    call = Call(churn)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(50):
            lock._before_fork()
            owned = [one.owned() for one in kept]
            lock._after_fork_in_parent()
            assert all(owned)
    finally:
        sys.setswitchinterval(interval)
        over.set()
    call.result()


def test_the_parent_gives_every_section_back() -> None:
    """After a fork the parent's locks are as they were, one that it held included."""
    free, held = make_lock(1), make_lock(1)
    with held:
        lock._before_fork()
        lock._after_fork_in_parent()
        assert (False, True) == (free.owned(), held.owned())
        assert others_see_free(free)
    assert others_see_free(held)


def test_the_child_has_every_section_anew() -> None:
    """After a fork the child's locks are free, whoever held them in the parent."""
    free, held = make_lock(1), make_lock(1)
    with held:
        lock._before_fork()
        lock._after_fork_in_child()
        assert (False, False) == (free.owned(), held.owned())
        assert others_see_free(free)
        assert others_see_free(held)
    assert others_see_free(held)


def test_the_child_tells_when_all_is_anew() -> None:
    """In the child each lock's `forked` is called, in order, once all locks have been made anew."""
    told: list[tuple[str, bool]] = []

    def tell(name: str) -> None:
        told.append((name, any(one.owned() for one in locks)))

    locks = [
        make_lock(2, lambda: tell("factory")),
        make_lock(0, lambda: tell("broker")),
        make_lock(1, lambda: tell("topic")),
    ]
    lock._before_fork()
    lock._after_fork_in_child()
    assert [("broker", False), ("topic", False), ("factory", False)] == told


def test_a_system_without_fork_has_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `os` knows of no fork the module asks for none of its hooks, and its locks work."""
    monkeypatch.delattr(os, "register_at_fork", raising=False)
    one = runpy.run_path(lock.__file__)["make_lock"](1)
    with one:
        assert one.owned()
    assert not one.owned()


# Fork in earnest


def in_child(work: Iterator[bool]) -> int:
    """Fork, go through the work in the child, and return how many of its steps came true."""
    process = os.fork()
    if process == 0:  # pragma: no cover - the child's coverage is lost with it
        steps = 0
        try:
            steps = sum(work)
        finally:
            os._exit(steps)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status)


@needs_fork
def test_a_real_child_finds_free_sections() -> None:
    """In a forked child every lock is free for every thread, and those who asked have been told."""
    told: list[str] = []
    free, held = make_lock(1, lambda: told.append("free")), make_lock(1)

    def work() -> Iterator[bool]:
        yield not held.owned()
        yield others_see_free(free)
        yield others_see_free(held)
        yield told == ["free"]

    with held:
        assert 4 == in_child(work())
        assert (False, True) == (free.owned(), held.owned())
    assert [] == told
    assert others_see_free(held)


# Where a signal may strike


def functions(code: CodeType) -> Iterator[CodeType]:
    """Go through all the code in a piece of code."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from functions(constant)


def loops_that_slip_out(code: CodeType) -> list[int]:
    """Return the lines where a loop goes round outside of the `with` or `try` that it stands in.

    The jumps without a line are left out: they are those of an `await`, after what was thrown into
    it came back as a result.
    """
    bytecode: Any = dis.Bytecode(code)  # whose table of handlers typeshed does not know
    entries = bytecode.exception_entries
    instructions = list(bytecode)
    handlers = {step.offset for step in instructions if step.opname == "PUSH_EXC_INFO"}

    def around(offset: int) -> set[int]:
        found: set[int] = set()
        ahead = [offset]
        while ahead:
            at = ahead.pop()
            targets = {e.target for e in entries if e.start <= at < e.end}
            ahead += targets - found
            found |= targets
        return found & handlers

    lines = [
        step.positions.lineno
        for step in instructions
        if step.positions
        and step.opname == "JUMP_BACKWARD"
        and around(step.argval) - around(step.offset)
    ]
    return [line for line in lines if line is not None]


SLIPS = """
def bad(lock, items):
    with lock:
        for item in items:
            if item:
                print(item)

def good(lock, items):
    with lock:
        for item in items:
            print(item)
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="CPython 3.11 forgets nothing")
def test_the_search_finds_what_slips_out() -> None:
    """A loop that goes round by a condition leaves its `with`, one that does so always does not."""
    found = {
        code.co_name: loops_that_slip_out(code) for code in functions(compile(SLIPS, "", "exec"))
    }
    assert {"<module>": [], "bad": [5], "good": []} == found


def test_no_loop_slips_out() -> None:
    """A signal that strikes as a loop goes round finds the lock released all the same."""
    found = {
        (path.name, code.co_qualname): lines
        for path in Path(nsqlite.__file__).parent.rglob("*.py")
        for code in functions(compile(path.read_text("utf-8"), str(path), "exec"))
        if (lines := loops_that_slip_out(code))
    }
    assert {} == found


def test_a_lock_that_is_taken_by_a_python_function() -> None:
    """What is struck when it has taken the lock gives it back, and says so where it has not."""
    lock = threading.RLock()
    enter = _entering(lock)
    assert enter()
    assert Call(lambda: enter(False)).result() is False
    lock.release()

    class Struck:
        """A lock whose `acquire` is struck by a signal, with or without the lock taken."""

        def __init__(self, *, takes: bool) -> None:
            self.takes = takes

        def acquire(self, _blocking: bool) -> bool:
            if self.takes:
                lock.acquire()
            raise KeyboardInterrupt

        def release(self) -> None:
            lock.release()

    for takes in (True, False):
        struck: Any = Struck(takes=takes)
        with pytest.raises(KeyboardInterrupt):
            _entering(struck)()
        with lock:  # which is free
            assert lock._is_owned()  # type: ignore[attr-defined]  # typeshed hides it


def test_two_threads_that_fork_at_a_time() -> None:
    """What a thread takes for its fork is given back by that thread alone."""
    first, last = make_lock(-2), make_lock(9)
    release = first.__exit__
    reached = threading.Event()
    on_entry(last, lambda: None)
    other: list[Call] = []

    def give_way(*_: object) -> None:
        release(None, None, None)
        if not other:
            other.append(Call(fork))
            assert reached.wait(PATIENCE)  # it has taken some by now

    def fork() -> None:
        on_entry(last, reached.set)
        lock._before_fork()
        lock._after_fork_in_parent()

    lock._before_fork()
    first.__exit__ = give_way
    lock._after_fork_in_parent()
    other[0].result()
    assert [False] * 2 == [first.owned(), last.owned()]

    def take_both() -> str:
        with first, last:
            return "taken"

    assert "taken" == Call(take_both).result()


def test_a_fork_inside_of_a_fork() -> None:
    """A handler that forks while its thread forks gives back what it took, and no more."""
    one = make_lock(5)
    lock._before_fork()
    lock._before_fork()
    lock._after_fork_in_parent()
    assert one.owned()
    lock._after_fork_in_parent()
    assert not one.owned()
