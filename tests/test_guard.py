"""The lock of a topic: what is made under it, what is put off, and what is done after it."""

import logging
import threading
from collections.abc import Callable

import pytest
from guards import CALM, REENTERED, calm, other_path, path, state
from helpers import PATIENCE, Call

from nsqlite import Closed, Event, Kind, Reentered
from nsqlite.guard import Guard

EVENT = Event(kind=Kind.PAUSED, time=0.0, topic="orders")


class Bell:
    """A sleeper that counts how often it was rung."""

    def __init__(self) -> None:
        self.rings = 0

    def ring(self) -> None:
        self.rings += 1


class Body:
    """Something dropped, which makes a call when it is forgotten."""

    def __init__(self, last: Callable[[], object]) -> None:
        self._last = last

    def __del__(self) -> None:
        self._last()


# Run


def test_run_makes_an_operation_alone() -> None:
    """An operation runs under the lock, with no short path right; then all is calm again."""
    guard = calm()
    assert (True, True, True, True) == guard.run(state, guard)
    assert CALM == state(guard)


def test_run_returns_what_the_operation_returns() -> None:
    """What the operation returned, given these arguments, is returned."""
    assert (7, 3) == Guard().run(divmod, 38, 5)


def test_run_lets_exceptions_through() -> None:
    """What the operation raises goes to the caller; the lock is free and all is calm."""
    guard = calm()
    with pytest.raises(ZeroDivisionError):
        guard.run(divmod, 1, 0)
    assert CALM == state(guard)


def test_run_is_refused_inside_an_operation() -> None:
    """A call that must answer is refused inside another one of its thread, and names itself."""
    guard = Guard()

    def _nested() -> None:
        pytest.fail("it was made")

    def outer() -> None:
        guard.run(_nested)

    with pytest.raises(Reentered) as info:
        guard.run(outer)
    assert ("nested", REENTERED.format("nested")) == (info.value.call, str(info.value))


def test_run_is_made_inside_a_short_path() -> None:
    """A call is made at once by a thread that only holds the lock."""
    guard = calm()
    with guard.lock:
        assert (True, True, True, True) == guard.run(state, guard)
        assert (True, False, False, False) == state(guard)


def test_run_waits_for_other_threads() -> None:
    """An operation of another thread begins when this thread's has ended."""
    guard = Guard()
    order: list[str] = []
    calls = []

    def outer() -> None:
        begun = threading.Event()

        def other() -> object:
            begun.set()
            return guard.run(order.append, "second")

        calls.append(Call(other))
        assert begun.wait(PATIENCE)
        order.append("first")

    guard.run(outer)
    assert calls[0].result() is None
    assert ["first", "second"] == order


# Call


def test_call_is_like_run() -> None:
    """A call that is not inside another is made at once, and its result returned."""
    assert (7, 3) == Guard().call(divmod, 38, 5)


def test_call_is_put_off_inside_an_operation() -> None:
    """Calls made inside an operation return None and are made after it, in their order."""
    guard = calm()
    order: list[tuple[int, tuple[bool, bool, bool, bool]]] = []

    def note(number: int) -> int:
        order.append((number, state(guard)))
        return number

    def outer() -> None:
        assert [None, None] == [guard.call(note, number) for number in (1, 2)]
        note(0)

    guard.run(outer)
    busy = (True, True, True, True)
    assert [(number, busy) for number in range(3)] == order
    assert CALM == state(guard)


def test_what_is_put_off_can_put_off() -> None:
    """A call that was put off may put off another, which is made after it."""
    guard = calm()
    order: list[str] = []

    def first() -> None:
        guard.call(order.append, "second")
        order.append("first")

    guard.run(guard.call, first)
    assert ["first", "second"] == order


def test_what_is_put_off_and_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """What a call raises that was put off is logged, and the next one is made."""
    guard = calm()
    order: list[str] = []

    def outer() -> None:
        guard.call(divmod, 1, 0)
        guard.call(order.append, "next")

    guard.run(outer)
    assert ["next"] == order
    record = caplog.records[0]
    assert ("nsqlite", logging.ERROR) == (record.name, record.levelno)
    assert "a call made inside another call failed" == record.getMessage()
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError
    assert 1 == len(caplog.records)


def test_what_is_put_off_survives_a_failure() -> None:
    """A call that was put off is made also if the operation around it raises."""
    guard = calm()
    order: list[str] = []

    def outer() -> None:
        guard.call(order.append, "made")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        guard.run(outer)
    assert ["made"] == order


def test_putting_off_takes_no_lock() -> None:
    """A call can be put off while another thread holds the lock; it shuts the short paths."""
    guard = calm()
    order: list[str] = []
    with guard.lock:
        Call(lambda: guard.put_off(lambda: order.append("made"))).result()
        assert (True, False, True, True) == state(guard)
        assert [] == order
    guard.run(order.append, "next")
    assert ["made", "next"] == order
    assert CALM == state(guard)


def test_nothing_is_done_after_the_lock_by_who_holds_it() -> None:
    """What was put off waits until the thread has given the lock back."""
    guard = calm()
    order: list[str] = []
    with guard.lock:
        guard.put_off(lambda: order.append("made"))
        guard.settle()
        assert [] == order
    guard.settle()
    assert ["made"] == order


def test_what_another_thread_has_made_is_not_made_again() -> None:
    """Who finds that nothing is put off any more makes nothing."""
    guard = calm()
    guard.run(guard._catch_up)
    assert CALM == state(guard)


def test_what_a_signal_interrupts_is_made_again() -> None:
    """What was put off and is interrupted is not lost: the next call makes it again."""
    guard = calm()
    order: list[str] = []

    def interrupted() -> None:
        order.append("made")
        if len(order) == 1:
            raise KeyboardInterrupt

    guard.put_off(interrupted)
    with pytest.raises(KeyboardInterrupt):
        guard.settle()
    assert (False, False, True, True) == state(guard)
    guard.run(lambda: None)
    assert ["made", "made"] == order
    assert CALM == state(guard)


# Calm


def test_while_somebody_observes_all_go_the_long_way() -> None:
    """While somebody observes, put, get and fin go the long way."""
    guard = calm()
    guard.run(guard.observe, (print,))
    assert (False, False, True, True) == state(guard)
    assert guard.wary


def test_while_somebody_joins_only_fin_goes_the_long_way() -> None:
    """A join ends by what is finished: it alerts fin, and leaves put and get their short paths."""
    guard = calm()
    guard.run(guard.joiners.setdefault, Bell(), bool)
    assert guard.alert
    assert not guard.wary
    assert guard.push is guard.short_path


def test_trash_makes_the_next_call_settle() -> None:
    """What is dropped in a call made by a holder of the lock alerts the next one, which settles."""
    guard = calm()
    seen: list[str] = []
    with guard.lock:
        guard.run(guard.trash.append, Body(lambda: seen.append("forgotten")))
        assert (True, False, True, True) == state(guard)
        assert [] == seen
    guard.run(lambda: None)
    assert ["forgotten"] == seen
    assert CALM == state(guard)


@pytest.mark.parametrize(("waiting", "expected"), [(0, path), (1, other_path), (2, other_path)])
def test_put_has_another_path_while_getters_wait(
    waiting: int, expected: Callable[[object], None]
) -> None:
    """While getters wait put takes the path that hands on to them; get and fin are not alerted."""
    guard = calm()
    guard.waiting = waiting
    guard.run(lambda: None)
    assert guard.push is expected
    assert CALM == state(guard)


def test_without_a_short_path_put_goes_the_long_way() -> None:
    """A topic that never hands on at once has no path when all is calm, somebody waiting or not."""
    guard = Guard()
    for guard.waiting in (0, 1):
        guard.run(lambda: None)
        assert (False, False, False, True) == state(guard)


# Sleeping


def test_who_holds_the_lock_may_not_sleep() -> None:
    """A call that would sleep is refused to a thread that holds the lock, with its name."""
    guard = Guard()
    guard.require_free("join")
    with guard.lock, pytest.raises(Reentered) as info:
        guard.require_free("join")
    assert ("join", REENTERED.format("join")) == (info.value.call, str(info.value))


def test_who_holds_no_lock_may_sleep() -> None:
    """A thread may sleep while another one holds the lock."""
    guard = Guard()
    with guard.lock:
        assert Call(lambda: guard.require_free("join")).result() is None


# Signals


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_operation_that_ends_leaves_nothing_to_mend() -> None:
    """An operation is marked as broken while it is under way, and whole when it has ended."""
    guard = calm()
    guard.mend = lambda: pytest.fail("it was mended")
    assert guard.run(lambda: guard.broken)
    assert not guard.broken


def test_an_interrupted_operation_is_mended_at_once() -> None:
    """What a signal interrupts is completed, alone and under the lock, before its caller hears."""
    guard = calm()
    mended: list[object] = []
    guard.mend = lambda: mended.append(state(guard))
    with pytest.raises(KeyboardInterrupt):
        guard.run(interrupt)
    assert [(True, True, True, True)] == mended
    assert (False, CALM) == (guard.broken, state(guard))


def test_a_refused_operation_needs_no_mending() -> None:
    """An error of ours says that nothing has changed, so nothing is mended."""
    guard = calm()
    guard.mend = lambda: pytest.fail("it was mended")

    def refuse() -> None:
        raise guard.refuse(Closed("topic 'orders'"))

    with pytest.raises(Closed):
        guard.run(refuse)
    assert (False, CALM) == (guard.broken, state(guard))


def test_an_error_of_ours_thrown_by_a_handler_is_an_interruption() -> None:
    """An error that the operation did not announce came from outside, whatever its class."""
    guard = calm()
    mended: list[object] = []
    guard.mend = lambda: mended.append(state(guard))

    def interrupted() -> None:
        raise Closed("topic of the handler")

    with pytest.raises(Closed):
        guard.run(interrupted)
    assert [(True, True, True, True)] == mended
    assert (False, CALM) == (guard.broken, state(guard))


def test_an_interrupted_mending_is_made_before_the_next_operation() -> None:
    """Until what a signal interrupted has been completed no other operation is made."""
    guard = calm()
    order: list[str] = []
    mends = [interrupt, lambda: order.append("mended")]

    def mend() -> None:
        mends.pop(0)()

    guard.mend = mend
    with pytest.raises(KeyboardInterrupt):
        guard.run(interrupt)
    assert (True, (False, False, True, True)) == (guard.broken, state(guard))
    guard.run(order.append, "made")
    assert ["mended", "made"] == order
    assert (False, CALM) == (guard.broken, state(guard))


def test_who_holds_the_lock_leaves_the_mending_to_the_next() -> None:
    """What is interrupted in a call made by a holder of the lock is completed by the next call."""
    guard = calm()
    order: list[str] = []
    guard.mend = lambda: order.append("mended")
    with guard.lock:
        with pytest.raises(KeyboardInterrupt):
            guard.run(interrupt)
        assert (True, (True, False, True, True)) == (guard.broken, state(guard))
    guard.run(order.append, "made")
    assert ["mended", "made"] == order


# Trash


def test_trash_is_forgotten_after_the_lock() -> None:
    """What was dropped is forgotten when the lock is free, so its destructor may make calls."""
    guard = calm()
    seen: list[object] = []

    def drop() -> None:
        guard.trash.append(Body(lambda: seen.append((state(guard), guard.run(int, "5")))))
        seen.append("dropped")

    guard.run(drop)
    assert ["dropped", (CALM, 5)] == seen
    assert [] == guard.trash


def test_trash_of_a_failed_operation_is_forgotten() -> None:
    """What an operation dropped before it raised is forgotten too."""
    guard = calm()
    seen: list[str] = []

    def drop() -> None:
        guard.trash.append(Body(lambda: seen.append("forgotten")))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        guard.run(drop)
    assert ["forgotten"] == seen


# Events


def test_events_are_told_after_what_was_put_off() -> None:
    """After an operation what was put off is made, then trash forgotten, then events told."""
    guard = calm()
    order: list[str] = []

    def outer() -> None:
        guard.observe((lambda _: order.append("told"),))
        guard.emit(EVENT)
        guard.trash.append(Body(lambda: order.append("forgotten")))
        guard.put_off(lambda: order.append("made"))

    guard.run(outer)
    assert ["made", "forgotten", "told"] == order


def test_observers_can_be_asked_for() -> None:
    """Who is told can be seen, and whether anybody is."""
    guard = Guard()
    assert ((), False) == (guard.observers, guard.watched)
    guard.observe((print,))
    assert ((print,), True) == (guard.observers, guard.watched)
    guard.observe(())
    assert ((), False) == (guard.observers, guard.watched)


# Those who wait


def test_joins_are_rung_when_their_condition_is_true() -> None:
    """Only those are rung whose condition has come true."""
    guard = Guard()
    done, still = Bell(), Bell()
    guard.joiners[done] = lambda: True
    guard.joiners[still] = lambda: False
    guard.run(guard.ring_joiners)
    assert (1, 0) == (done.rings, still.rings)


def test_a_child_forgets_who_waited() -> None:
    """In a fork's child nobody waits, and what other threads had to tell is not told."""
    guard = Guard()
    told: list[Event] = []
    join = Bell()
    guard.observe((told.append,))
    guard.joiners[join] = lambda: False
    guard.waiting = 3
    guard.emit(EVENT)
    guard.forget_waiters()
    guard.run(lambda: None)
    assert (1, 0, 0, []) == (join.rings, len(guard.joiners), guard.waiting, told)


def test_a_child_tells_what_its_parents_thread_was_telling() -> None:
    """In a fork's child, made while another thread was telling, events are told."""
    guard = Guard()
    told: list[str] = []

    def fork(_: Event) -> None:
        guard.forget_waiters()  # as if this were the child, and the telling thread gone
        guard.observe((lambda _: told.append("told in the child"),))
        guard.emit(EVENT)
        guard.settle()

    guard.observe((fork,))
    guard.emit(EVENT)
    guard.settle()
    assert ["told in the child"] == told


# Two guards


def test_what_was_put_off_is_forgotten_after_the_lock() -> None:
    """A call that was put off keeps its body until the lock is free."""
    guard = Guard()
    held: list[bool] = []

    class Body:
        def __del__(self) -> None:
            held.append(guard.lock.owned())

    def nested() -> None:
        body = Body()
        guard.call(lambda: str(body))

    guard.run(nested)
    assert [False] == held
