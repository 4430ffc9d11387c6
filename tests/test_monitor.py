"""A topic's monitor: what is made under its lock, what is put off, and what is done after it."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial

import pytest
from helpers import PATIENCE, Call

from nsqlite import Closed, Event, Kind, Reentered
from nsqlite.events import LIFE_CYCLE, subscription
from nsqlite.monitor import BUSY, INTERRUPTED, QUIET, Monitor, run_both

REENTERED = (
    "{}() was called by a signal handler or destructor inside another call on the same"
    " topic, and cannot answer there: set a flag and call it later"
)


def state_of(monitor: Monitor) -> tuple[bool, int, bool]:
    """Return whether the lock is owned, its state, and whether there is more to do after it."""
    return monitor.lock.owned(), monitor.state, monitor.after


FREE = (False, QUIET, False)
HELD = (True, BUSY, False)

EVENT = Event(kind=Kind.PAUSED, time=0.0, topic="orders")


class Blocked:
    """A blocked call that counts how often it was notified."""

    def __init__(self) -> None:
        self.times = 0
        self.owner = None

    def notify(self) -> None:
        self.times += 1


class Body:
    """Something dropped, which makes a call when it is forgotten."""

    def __init__(self, last: Callable[[], object]) -> None:
        self._last = last

    def __del__(self) -> None:
        self._last()


# Run


def test_run_makes_an_operation_alone() -> None:
    """An operation runs under the lock, alone; then there is nothing more to do."""
    monitor = Monitor()
    assert HELD == monitor.run(state_of, monitor)
    assert FREE == state_of(monitor)


def test_run_returns_what_the_operation_returns() -> None:
    """What the operation returned, given these arguments, is returned."""
    assert (7, 3) == Monitor().run(divmod, 38, 5)


def test_run_lets_exceptions_through() -> None:
    """What the operation raises goes to the caller; the lock is free, and nothing interrupted."""
    monitor = Monitor()
    with pytest.raises(ZeroDivisionError):
        monitor.run(divmod, 1, 0)
    assert FREE == state_of(monitor)


def test_run_is_refused_inside_an_operation() -> None:
    """A call that must answer is refused inside another one of its thread, and names itself."""
    monitor = Monitor()

    def _nested() -> None:
        pytest.fail("it was made")

    def outer() -> None:
        monitor.run(_nested)

    with pytest.raises(Reentered) as info:
        monitor.run(outer)
    assert ("nested", REENTERED.format("nested")) == (info.value.call, str(info.value))


def test_run_is_made_by_who_holds_the_lock() -> None:
    """A call is made at once by a thread that only holds the lock."""
    monitor = Monitor()
    with monitor.lock:
        assert HELD == monitor.run(state_of, monitor)
        assert (True, QUIET, False) == state_of(monitor)


def test_run_waits_for_other_threads() -> None:
    """An operation of another thread begins when this thread's has ended."""
    monitor = Monitor()
    order: list[str] = []
    calls = []

    def outer() -> None:
        begun = threading.Event()

        def other() -> object:
            begun.set()
            return monitor.run(order.append, "second")

        calls.append(Call(other))
        assert begun.wait(PATIENCE)
        order.append("first")

    monitor.run(outer)
    assert calls[0].result() is None
    assert ["first", "second"] == order


# Call


def test_call_is_like_run() -> None:
    """A call that is not inside another is made at once, and its result returned."""
    assert (7, 3) == Monitor().call(divmod, 38, 5)


def test_call_is_put_off_inside_an_operation() -> None:
    """Calls made inside an operation return None and are made after it, in their order."""
    monitor = Monitor()
    order: list[tuple[int, tuple[bool, int, bool]]] = []

    def note(number: int) -> int:
        order.append((number, state_of(monitor)))
        return number

    def outer() -> None:
        assert [None, None] == [monitor.call(note, number) for number in (1, 2)]
        note(0)

    monitor.run(outer)
    assert [(0, (True, BUSY, True)), (1, HELD), (2, (True, BUSY, True))] == order
    assert FREE == state_of(monitor)


def test_what_is_put_off_can_put_off() -> None:
    """A call that was put off may put off another, which is made after it."""
    monitor = Monitor()
    order: list[str] = []

    def first() -> None:
        monitor.call(order.append, "second")
        order.append("first")

    monitor.run(monitor.call, first)
    assert ["first", "second"] == order


def test_what_is_put_off_and_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """What a call raises that was put off is logged, and the next one is made."""
    monitor = Monitor()
    order: list[str] = []

    def outer() -> None:
        monitor.call(divmod, 1, 0)
        monitor.call(order.append, "next")

    monitor.run(outer)
    assert ["next"] == order
    record = caplog.records[0]
    assert ("nsqlite", logging.ERROR) == (record.name, record.levelno)
    assert "a call made inside another call failed" == record.getMessage()
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError
    assert 1 == len(caplog.records)


def test_what_is_put_off_survives_a_failure() -> None:
    """A call that was put off is made also if the operation around it raises."""
    monitor = Monitor()
    order: list[str] = []

    def outer() -> None:
        monitor.call(order.append, "made")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        monitor.run(outer)
    assert ["made"] == order


def test_putting_off_takes_no_lock() -> None:
    """A call can be put off while another thread holds the lock; it is made after that."""
    monitor = Monitor()
    order: list[str] = []
    with monitor.lock:
        Call(lambda: monitor.put_off(lambda: order.append("made"))).result()
        assert (True, QUIET, True) == state_of(monitor)
        assert [] == order
    monitor.run(order.append, "next")
    assert ["made", "next"] == order
    assert FREE == state_of(monitor)


def test_nothing_is_done_after_the_lock_by_who_holds_it() -> None:
    """What was put off waits until the thread has given the lock back."""
    monitor = Monitor()
    order: list[str] = []
    with monitor.lock:
        monitor.put_off(lambda: order.append("made"))
        monitor.settle()
        assert [] == order
    monitor.settle()
    assert ["made"] == order


def test_what_another_thread_has_made_is_not_made_again() -> None:
    """Who finds that nothing is put off any more makes nothing."""
    monitor = Monitor()
    monitor.run(monitor._catch_up)
    assert FREE == state_of(monitor)


def test_what_a_signal_interrupts_is_made_again() -> None:
    """What was put off and is interrupted is not lost: the next call makes it again."""
    monitor = Monitor()
    order: list[str] = []

    def interrupted() -> None:
        order.append("made")
        if len(order) == 1:
            raise KeyboardInterrupt

    monitor.put_off(interrupted)
    with pytest.raises(KeyboardInterrupt):
        monitor.settle()
    assert (False, INTERRUPTED, True) == state_of(monitor)
    monitor.run(lambda: None)
    assert ["made", "made"] == order
    assert FREE == state_of(monitor)


# What is left for later


def test_trash_makes_the_next_call_settle() -> None:
    """What is dropped in a call made by a holder of the lock is forgotten after the next one."""
    monitor = Monitor()
    seen: list[str] = []
    with monitor.lock:
        monitor.run(monitor.discard, Body(lambda: seen.append("forgotten")))
        assert (True, QUIET, True) == state_of(monitor)
        assert [] == seen
    monitor.run(lambda: None)
    assert ["forgotten"] == seen
    assert FREE == state_of(monitor)


# Sleeping


def test_who_holds_the_lock_may_not_sleep() -> None:
    """A call that would sleep is refused to a thread that holds the lock, with its name."""
    monitor = Monitor()
    monitor.require_free("join")
    with monitor.lock, pytest.raises(Reentered) as info:
        monitor.require_free("join")
    assert ("join", REENTERED.format("join")) == (info.value.call, str(info.value))


def test_who_holds_no_lock_may_sleep() -> None:
    """A thread may sleep while another one holds the lock."""
    monitor = Monitor()
    with monitor.lock:
        assert Call(lambda: monitor.require_free("join")).result() is None


# Signals


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_operation_that_ends_leaves_nothing_to_recover() -> None:
    """An operation is busy while it is under way, and quiet when it has ended."""
    monitor = Monitor()
    monitor.recover = lambda: pytest.fail("it was recovered")
    assert BUSY == monitor.run(lambda: monitor.state)
    assert QUIET == monitor.state


def test_an_interrupted_operation_is_recovered_at_once() -> None:
    """What a signal interrupts is completed, alone and under the lock, before its caller hears."""
    monitor = Monitor()
    recovered: list[object] = []
    monitor.recover = lambda: recovered.append(state_of(monitor))
    with pytest.raises(KeyboardInterrupt):
        monitor.run(interrupt)
    assert [HELD] == recovered
    assert FREE == state_of(monitor)


def test_a_refused_operation_needs_no_recovery() -> None:
    """An error of ours says that nothing has changed, so nothing is recovered."""
    monitor = Monitor()
    monitor.recover = lambda: pytest.fail("it was recovered")

    def refuse() -> None:
        raise monitor.refuse(Closed("topic 'orders'"))

    with pytest.raises(Closed):
        monitor.run(refuse)
    assert FREE == state_of(monitor)


def test_an_error_of_ours_thrown_by_a_handler_is_an_interruption() -> None:
    """An error that the operation did not announce came from outside, whatever its class."""
    monitor = Monitor()
    recovered: list[object] = []
    monitor.recover = lambda: recovered.append(state_of(monitor))

    def interrupted() -> None:
        raise Closed("topic of the handler")

    with pytest.raises(Closed):
        monitor.run(interrupted)
    assert [HELD] == recovered
    assert FREE == state_of(monitor)


def test_an_interrupted_recovery_is_made_before_the_next_operation() -> None:
    """Until what a signal interrupted has been completed no other operation is made."""
    monitor = Monitor()
    order: list[str] = []
    recoveries = [*[interrupt] * 5, lambda: order.append("recovered")]

    def recover() -> None:
        recoveries.pop(0)()

    monitor.recover = recover
    with pytest.raises(KeyboardInterrupt):
        monitor.run(interrupt)
    assert (False, INTERRUPTED, True) == state_of(monitor)
    monitor.run(order.append, "made")
    assert ["recovered", "made"] == order
    assert FREE == state_of(monitor)


def test_who_holds_the_lock_leaves_the_recovery_to_the_next() -> None:
    """What is interrupted in a call made by a holder of the lock is completed by the next call."""
    monitor = Monitor()
    order: list[str] = []
    monitor.recover = lambda: order.append("recovered")
    with monitor.lock:
        with pytest.raises(KeyboardInterrupt):
            monitor.run(interrupt)
        assert (True, INTERRUPTED, True) == state_of(monitor)
    monitor.run(order.append, "made")
    assert ["recovered", "made"] == order


# Trash


def test_trash_is_forgotten_after_the_lock() -> None:
    """What was dropped is forgotten when the lock is free, so its destructor may make calls."""
    monitor = Monitor()
    seen: list[object] = []

    def drop() -> None:
        monitor.discard(Body(lambda: seen.append((state_of(monitor), monitor.run(int, "5")))))
        seen.append("dropped")

    monitor.run(drop)
    assert ["dropped", (FREE, 5)] == seen
    assert [] == monitor.trash


def test_trash_of_a_failed_operation_is_forgotten() -> None:
    """What an operation dropped before it raised is forgotten too."""
    monitor = Monitor()
    seen: list[str] = []

    def drop() -> None:
        monitor.discard(Body(lambda: seen.append("forgotten")))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        monitor.run(drop)
    assert ["forgotten"] == seen


# Events


def tell(monitor: Monitor) -> None:
    """Have an event told after the lock, as a queue does under it."""
    monitor.events.append(EVENT)
    monitor.after = True


def test_events_are_told_after_what_was_put_off() -> None:
    """After an operation what was put off is made, then trash forgotten, then events told."""
    monitor = Monitor()
    order: list[str] = []

    def outer() -> None:
        monitor.observe((subscription(lambda _: order.append("told")),))
        tell(monitor)
        monitor.discard(Body(lambda: order.append("forgotten")))
        monitor.put_off(lambda: order.append("made"))

    monitor.run(outer)
    assert ["made", "forgotten", "told"] == order


def test_who_wants_to_hear_of_messages_watches() -> None:
    """Who is told can be seen, and whether anybody hears of messages."""
    monitor = Monitor()
    assert ((), False) == (monitor.observers, monitor.watched)
    everything = subscription(print)
    monitor.observe((everything,))
    assert ((everything,), True) == (monitor.observers, monitor.watched)
    monitor.observe((subscription(print, LIFE_CYCLE),))
    assert (LIFE_CYCLE, False) == (monitor.wanted, monitor.watched)
    monitor.observe(())
    assert ((), False) == (monitor.observers, monitor.watched)


# Those who wait


def test_joins_are_notified_when_their_condition_is_true() -> None:
    """Only those are notified whose condition has come true."""
    monitor = Monitor()
    done, still = Blocked(), Blocked()
    monitor.joins[done] = lambda: True
    monitor.joins[still] = lambda: False
    monitor.run(monitor.notify_joins)
    assert (1, 0) == (done.times, still.times)


def test_a_child_forgets_who_waited() -> None:
    """In a fork's child nobody waits, and what other threads had to tell is not told."""
    monitor = Monitor()
    told: list[Event] = []
    join = Blocked()
    monitor.observe((subscription(told.append),))
    monitor.joins[join] = lambda: False
    monitor.waiting = 3
    tell(monitor)
    monitor.forget_waiters()
    monitor.run(lambda: None)
    assert (1, 0, 0, []) == (join.times, len(monitor.joins), monitor.waiting, told)


def test_a_child_tells_what_its_parents_thread_was_telling() -> None:
    """In a fork's child, made while another thread was telling, events are told."""
    monitor = Monitor()
    told: list[str] = []

    def fork(_: Event) -> None:
        monitor.forget_waiters()  # as if this were the child, and the telling thread gone
        monitor.observe((subscription(lambda _: told.append("told in the child")),))
        tell(monitor)
        monitor.settle()

    monitor.observe((subscription(fork),))
    tell(monitor)
    monitor.settle()
    assert ["told in the child"] == told


def test_what_was_put_off_is_forgotten_after_the_lock() -> None:
    """A call that was put off keeps its body until the lock is free."""
    monitor = Monitor()
    held: list[bool] = []

    class Body:
        def __del__(self) -> None:
            held.append(monitor.lock.owned())

    def nested() -> None:
        body = Body()
        monitor.call(lambda: str(body))

    monitor.run(nested)
    assert [False] == held


# Two topics at a time


def test_run_both_holds_both() -> None:
    """An operation on two topics runs with both alone; then both are free."""
    one, other = Monitor(), Monitor()
    assert (HELD, HELD) == run_both(one, other, lambda: (state_of(one), state_of(other)))
    assert (FREE, FREE) == (state_of(one), state_of(other))


def test_run_both_takes_one_once() -> None:
    """An operation on a topic and itself is one under its lock."""
    monitor = Monitor()
    assert HELD == run_both(monitor, monitor, lambda: state_of(monitor))
    assert FREE == state_of(monitor)


def test_run_both_never_deadlocks() -> None:
    """Two threads that name two topics in opposite orders both come to their end."""
    one, other = Monitor(), Monitor()
    start = threading.Barrier(2)
    made: list[int] = []

    def work(first: Monitor, second: Monitor) -> None:
        start.wait(PATIENCE)
        for number in range(500):
            run_both(first, second, partial(made.append, number))

    calls = [Call(lambda: work(one, other)), Call(lambda: work(other, one))]
    assert [None, None] == [call.result() for call in calls]
    assert 1000 == len(made)


@pytest.mark.parametrize("busy", [0, 1])
def test_run_both_is_refused_inside_an_operation(busy: int) -> None:
    """An operation on two topics is refused inside one on either of them."""
    one, other = Monitor(), Monitor()

    def move() -> None:
        pytest.fail("it was made")

    with pytest.raises(Reentered) as info:
        (one, other)[busy].run(lambda: run_both(one, other, move))
    assert REENTERED.format("move") == str(info.value)
    assert (False, False) == (one.lock.owned(), other.lock.owned())


@pytest.mark.parametrize("held", [0, 1])
def test_run_both_by_who_holds_a_lock(held: int) -> None:
    """Who holds one of the locks and is inside no operation may make one on both."""
    monitors = Monitor(), Monitor()
    with monitors[held].lock:
        assert "made" == run_both(*monitors, lambda: "made")


@pytest.mark.parametrize("fails", [False, True])
def test_run_both_settles_both(*, fails: bool) -> None:
    """What an operation on two topics left for after the locks is done for both."""
    one, other = Monitor(), Monitor()
    done: list[object] = []

    def move() -> None:
        for number, monitor in enumerate((one, other)):
            monitor.put_off(partial(done.append, number))
        if fails:
            raise ZeroDivisionError

    try:
        run_both(one, other, move)
    except ZeroDivisionError:
        done.append("failed")
    assert [0, 1, "failed"][: 2 + fails] == done


def test_run_both_waits_for_no_lock_while_it_holds_one() -> None:
    """While one of two locks is taken, an operation under both leaves the other one free."""
    one, other = Monitor(), Monitor()
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
    one, other = Monitor(), Monitor()

    def fail() -> None:
        raise ZeroDivisionError

    for pair in ((one, other), (other, one)):
        with pytest.raises(ZeroDivisionError):
            run_both(*pair, fail)
        assert 1 == Call(lambda: one.run(lambda: other.run(lambda: 1))).result()


# Waking what is no thread


class Sleeper:
    """A blocked call in an event loop that cannot be woken so many times."""

    def __init__(self, monitor: Monitor, *errors: BaseException) -> None:
        self.owned: list[bool] = []
        self._monitor = monitor
        self._errors = list(errors)

    def wake(self) -> None:
        if self._errors:
            raise self._errors.pop(0)
        self.owned.append(self._monitor.lock.owned())


def test_sleepers_are_woken_after_the_lock() -> None:
    """Those who are to be woken are, in their order, by code that runs without the lock."""
    monitor = Monitor()
    sleepers = [Sleeper(monitor), Sleeper(monitor)]

    def wake() -> None:
        for sleeper in sleepers:
            monitor.wake_later(sleeper)

    monitor.run(wake)
    assert [[False], [False]] == [sleeper.owned for sleeper in sleepers]
    assert FREE == state_of(monitor)


def test_what_is_thrown_into_a_wake_up_reaches_the_caller() -> None:
    """One that is woken at a second try was struck by a signal, which goes on; nobody sleeps on."""
    monitor = Monitor()
    first, second = Sleeper(monitor, ZeroDivisionError()), Sleeper(monitor, KeyboardInterrupt())

    def wake() -> None:
        monitor.wake_later(first)
        monitor.wake_later(second)

    with pytest.raises((ZeroDivisionError, KeyboardInterrupt)):
        monitor.run(wake)
    assert first.owned
    assert second.owned
    assert FREE == state_of(monitor)


def test_who_cannot_be_woken_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """One whose waking fails twice is given up, and the next one woken."""
    monitor = Monitor()
    broken = Sleeper(monitor, ZeroDivisionError(), ZeroDivisionError())
    other = Sleeper(monitor)

    def wake() -> None:
        monitor.wake_later(broken)
        monitor.wake_later(other)

    monitor.run(wake)
    assert [f"{broken!r} could not be woken"] == caplog.messages
    assert ([], [False]) == (broken.owned, other.owned)


def test_a_slow_wake_up_holds_up_nobody() -> None:
    """While one thread wakes, another wakes whom it has notified itself, once."""
    monitor = Monitor()
    woken: list[tuple[str, int]] = []

    class Slow(Sleeper):
        def wake(self) -> None:
            woken.append(("slow", threading.get_ident()))
            other = Call(lambda: monitor.run(monitor.wake_later, quick))
            other.result()

    class Quick(Sleeper):
        def wake(self) -> None:
            woken.append(("quick", threading.get_ident()))

    quick = Quick(monitor)
    monitor.run(monitor.wake_later, Slow(monitor))
    assert ["slow", "quick"] == [name for name, _ in woken]
    assert 2 == len({thread for _, thread in woken})


# Logging


def test_what_is_logged_is_logged_after_the_lock(caplog: pytest.LogCaptureFixture) -> None:
    """A warning is logged when the lock is free; an error with what was raised."""
    monitor = Monitor()
    owned: list[bool] = []
    problem = ZeroDivisionError("no")

    class Text:
        def __str__(self) -> str:
            owned.append(monitor.lock.owned())
            return "tea"

    def warn() -> None:
        monitor.log_later("no %s", Text())
        monitor.log_later("no %s at all", "cake", error=problem)

    monitor.run(warn)
    assert {False} == set(owned)
    assert [(logging.WARNING, "no tea"), (logging.ERROR, "no cake at all")] == [
        (record.levelno, record.getMessage()) for record in caplog.records
    ]


def test_an_operation_in_the_middle_of_another_is_refused() -> None:
    """What is performed while another operation is under way raises, and changes nothing."""
    monitor = Monitor()
    with pytest.raises(Reentered):
        monitor.run(lambda: monitor.perform(print))
    assert FREE == state_of(monitor) or monitor.state == INTERRUPTED


def test_each_hears_of_what_it_wants() -> None:
    """An event is told to those alone that want its kind."""
    monitor = Monitor()
    heard: list[str] = []
    mute = subscription(lambda _: heard.append("wrong"), ["closed"])
    monitor.run(monitor.observe, (mute, subscription(lambda _: heard.append("right"))))
    monitor.run(tell, monitor)
    assert ["right"] == heard


def test_a_reading_that_is_struck_after_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reading leaves for after the lock is done though a signal strikes; it goes on."""
    monitor = Monitor()
    made: list[str] = []
    settle = Monitor.settle
    strikes = [KeyboardInterrupt]

    def struck(one: Monitor) -> None:
        if strikes:
            raise strikes.pop()
        settle(one)

    monkeypatch.setattr(Monitor, "settle", struck)
    with pytest.raises(KeyboardInterrupt):
        monitor.read(monitor.put_off, lambda: made.append("made"))
    assert ["made"] == made


def test_who_is_not_on_the_list_is_not_woken() -> None:
    """Of two threads that come to wake somebody one does."""
    monitor = Monitor()
    woken: list[str] = []

    class Once(Sleeper):
        def wake(self) -> None:
            woken.append("woken")

    monitor._wake(Once(monitor))
    assert [] == woken


def test_events_that_another_thread_is_telling_are_left_to_it() -> None:
    """Who finds another one telling leaves its events to that one, which looks again at the end."""
    monitor = Monitor()
    told: list[Event] = []
    monitor.observe((subscription(told.append),))
    tell(monitor)
    monitor._telling = True
    monitor._tell()  # another thread has begun since this one looked
    monitor.settle()
    assert ([], True) == (told, monitor._telling)
    monitor._telling = False
    tell(monitor)
    monitor.settle()
    assert [EVENT, EVENT] == told


def test_an_event_that_comes_as_the_telling_ends_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who tells looks again when it has said that it does no more."""
    monitor = Monitor()
    told: list[Event] = []
    monitor.observe((subscription(told.append),))
    tell_all = Monitor._tell_all

    def late(telling: Monitor, events: deque[Event]) -> None:
        monkeypatch.undo()
        tell_all(telling, events)
        events.append(EVENT)  # of another thread, which has seen that somebody is telling

    monkeypatch.setattr(Monitor, "_tell_all", late)
    tell(monitor)
    monitor.settle()
    assert [EVENT, EVENT] == told
