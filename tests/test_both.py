"""Two topics at a time: an operation under the locks of both."""

import threading
from functools import partial

import pytest
from guards import CALM, REENTERED, calm, state
from helpers import PATIENCE, Call

from nsqlite import Reentered
from nsqlite.both import run_both
from nsqlite.guard import Guard


def test_run_both_holds_both() -> None:
    """An operation on two topics runs with both alone; then both are calm."""
    one, other = calm(), calm()
    busy = (True, True, True, True)
    assert (busy, busy) == run_both(one, other, lambda: (state(one), state(other)))
    assert (CALM, CALM) == (state(one), state(other))


def test_run_both_takes_one_once() -> None:
    """An operation on a topic and itself is one under its lock."""
    guard = calm()
    assert (True, True, True, True) == run_both(guard, guard, lambda: state(guard))
    assert CALM == state(guard)


def test_run_both_never_deadlocks() -> None:
    """Two threads that name two topics in opposite orders both come to their end."""
    one, other = Guard(), Guard()
    start = threading.Barrier(2)
    made: list[int] = []

    def work(first: Guard, second: Guard) -> None:
        start.wait(PATIENCE)
        for number in range(500):
            run_both(first, second, partial(made.append, number))

    calls = [Call(lambda: work(one, other)), Call(lambda: work(other, one))]
    assert [None, None] == [call.result() for call in calls]
    assert 1000 == len(made)


@pytest.mark.parametrize("busy", [0, 1])
def test_run_both_is_refused_inside_an_operation(busy: int) -> None:
    """An operation on two topics is refused inside one on either of them."""
    one, other = Guard(), Guard()

    def move() -> None:
        pytest.fail("it was made")

    with pytest.raises(Reentered) as info:
        (one, other)[busy].run(lambda: run_both(one, other, move))
    assert REENTERED.format("move") == str(info.value)
    assert (False, False) == (one.lock.owned(), other.lock.owned())


@pytest.mark.parametrize("held", [0, 1])
def test_run_both_by_who_holds_a_lock(held: int) -> None:
    """Who holds one of the locks and is inside no operation may make one on both."""
    guards = calm(), calm()
    with guards[held].lock:
        assert "made" == run_both(*guards, lambda: "made")


@pytest.mark.parametrize("fails", [False, True])
def test_run_both_settles_both(*, fails: bool) -> None:
    """What an operation on two topics left for after the locks is done for both."""
    one, other = calm(), calm()
    done: list[object] = []

    def move() -> None:
        for number, guard in enumerate((one, other)):
            guard.put_off(partial(done.append, number))
        if fails:
            raise ZeroDivisionError

    try:
        run_both(one, other, move)
    except ZeroDivisionError:
        done.append("failed")
    assert [0, 1, "failed"][: 2 + fails] == done


def test_run_both_waits_for_no_lock_while_it_holds_one() -> None:
    """While one of two locks is taken, an operation under both leaves the other one free."""
    one, other = Guard(), Guard()
    done: list[int] = []
    for number in range(50):
        begun = threading.Event()

        def both(begun: threading.Event = begun, number: int = number) -> None:
            begun.set()
            run_both(one, other, lambda: done.append(number))

        with other.lock:
            call = Call(both)
            assert begun.wait(PATIENCE)
            for _ in range(20):
                assert 1 == Call(lambda: one.run(lambda: 1)).result()
        assert call.result() is None
    assert list(range(50)) == done
    assert not one.lock.owned()
    assert not other.lock.owned()


def test_run_both_gives_back_both_locks() -> None:
    """What is thrown into an operation under two locks leaves both free."""
    one, other = Guard(), Guard()

    def fail() -> None:
        raise ZeroDivisionError

    for pair in ((one, other), (other, one)):
        with pytest.raises(ZeroDivisionError):
            run_both(*pair, fail)
        assert 1 == Call(lambda: one.run(lambda: other.run(lambda: 1))).result()
