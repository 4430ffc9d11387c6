"""The timer wheel: never early, at most a tick late, in order; and beside a sorted list."""

import itertools
import sys
from collections.abc import Callable
from functools import partial
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from nsqlite import TimerWheel
from nsqlite.clock import NEVER
from nsqlite.timerwheel import Tick

deadlines: Final = st.integers(-30, 300)
resolutions: Final = st.integers(1, 20)
picks: Final = st.integers(0, 99)


# Nothing early, nothing late


@given(deadline=deadlines, resolution=resolutions)
def test_nothing_is_early_or_more_than_a_tick_late(deadline: int, resolution: int) -> None:
    """An item is due at its deadline or less than a tick after it."""
    wheel: TimerWheel[str] = TimerWheel(resolution)
    due = wheel.add("tea", deadline).due
    assert deadline <= due < deadline + resolution
    assert ([], ["tea"]) == (wheel.expire(due - 1), wheel.expire(due))


@given(deadline=st.integers(0, 1 << 62))
def test_the_finest_wheel_is_exact(deadline: int) -> None:
    """With a resolution of 1 an item is due at its deadline."""
    assert deadline == TimerWheel[str](1).add("tea", deadline).due


def test_a_deadline_at_the_end_of_a_tick_falls_into_it() -> None:
    """A tick takes what is due after its beginning, its end included."""
    wheel: TimerWheel[str] = TimerWheel(10)
    dues = {deadline: wheel.tick(deadline).due for deadline in (0, 1, 10, 11, 20)}
    assert {0: 0, 1: 10, 10: 10, 11: 20, 20: 20} == dues


# Order


@given(st.lists(deadlines, max_size=50), resolutions)
def test_items_come_out_in_order(dues: list[int], resolution: int) -> None:
    """Items come out by tick and, within one, in the order in which they went in."""
    wheel: TimerWheel[int] = TimerWheel(resolution)
    for item, deadline in enumerate(dues):
        wheel.add(item, deadline)
    order = sorted(range(len(dues)), key=lambda item: -(-dues[item] // resolution))
    assert order == list(wheel) == wheel.clear()


def test_an_item_added_twice_keeps_its_place() -> None:
    """An item that is in its tick already stays where it is."""
    wheel: TimerWheel[str] = TimerWheel(10)
    tick = wheel.add("tea", 5)
    wheel.add("cake", 6)
    assert tick is wheel.add("tea", 7)
    assert ["tea", "cake"] == list(wheel)


# One thing at a time


def test_an_empty_wheel_has_nothing() -> None:
    """A wheel begins empty: it is false, has no items, and nothing is ever due."""
    wheel: TimerWheel[str] = TimerWheel(10)
    assert (False, 0, [], [], []) == (
        bool(wheel),
        len(wheel),
        list(wheel),
        list(wheel.ticks()),
        list(wheel.pairs()),
    )
    assert (NEVER, []) == (wheel.next_due, wheel.expire(NEVER - 1))
    assert wheel.first_due(NEVER - 1) is None


def test_a_wheel_knows_its_resolution() -> None:
    """A wheel keeps the length of its ticks."""
    assert TimerWheel[str](10).resolution == 10


def test_expiring_takes_what_is_due() -> None:
    """What is due is taken out; the rest stays, and tells when it is due."""
    wheel: TimerWheel[str] = TimerWheel(10)
    for item, deadline in [("cake", 22), ("tea", 5), ("milk", 11)]:
        wheel.add(item, deadline)
    assert (["tea", "milk"], 30) == (wheel.expire(29), wheel.next_due)
    assert ["cake"] == list(wheel)


def test_a_cancelled_item_never_comes() -> None:
    """An item that is cancelled is gone, and with the last one its tick."""
    wheel: TimerWheel[str] = TimerWheel(10)
    tick = wheel.add("tea", 5)
    wheel.add("cake", 5)
    wheel.cancel("tea", tick)
    assert (["cake"], 10) == (list(wheel), wheel.next_due)
    wheel.cancel("cake", tick)
    assert ([], [], NEVER) == (list(wheel), list(wheel.ticks()), wheel.next_due)


def test_what_is_not_there_cannot_be_cancelled() -> None:
    """Cancelling what is not in the tick raises `KeyError`, and nothing has changed."""
    wheel: TimerWheel[str] = TimerWheel(10)
    tick = wheel.add("tea", 5)
    with pytest.raises(KeyError):
        wheel.cancel("cake", tick)
    assert (["tea"], 10) == (list(wheel), wheel.next_due)


def test_an_emptied_tick_is_cleared_away_when_its_time_comes() -> None:
    """A tick that was emptied by hand stays the next one due, holding nothing, until it expires."""
    wheel: TimerWheel[str] = TimerWheel(10)
    tick = wheel.add("tea", 5)
    wheel.add("cake", 15)
    del tick["tea"]
    assert (10, ["cake"], True) == (wheel.next_due, list(wheel), bool(wheel))
    assert (None, tick) == (wheel.first_due(9), wheel.first_due(10))
    assert ([], 20) == (wheel.expire(10), wheel.next_due)


def test_an_old_tick_does_not_take_a_new_one_away() -> None:
    """Clearing away a tick that is there no more leaves another of the same moment alone."""
    wheel: TimerWheel[str] = TimerWheel(10)
    old = wheel.tick(5)
    wheel.drop(old)
    new = wheel.add("tea", 5)
    wheel.drop(old)
    assert ([new], 10) == (list(wheel.ticks()), wheel.next_due)


def test_items_are_shown_with_their_ticks() -> None:
    """The pairs are each item with its tick, the earliest first."""
    wheel: TimerWheel[str] = TimerWheel(10)
    late = wheel.add("cake", 15)
    early = wheel.add("tea", 5)
    assert [(early, "tea"), (late, "cake")] == list(wheel.pairs())
    assert [early, late] == list(wheel.ticks())


def test_only_a_whole_wheel_passes_its_check() -> None:
    """The check finds a wheel that does not know what is due next."""
    wheel: TimerWheel[str] = TimerWheel(10)
    wheel.add("tea", 5)
    wheel._check()
    wheel.next_due = 20
    with pytest.raises(AssertionError):
        wheel._check()


# Signals


class Interruption:
    """A profiler that throws an interrupt where a signal handler could, at the nth such moment.

    CPython lets a handler in when a function begins and when a call has returned.
    """

    def __init__(self, moment: int) -> None:
        self.moment = moment

    def __call__(self, _frame: object, event: str, _argument: object) -> None:
        if event in ("call", "return", "c_return"):
            self.moment -= 1
            if self.moment == 0:
                raise KeyboardInterrupt


def interrupted(call: Callable[[], object], moment: int) -> bool:
    """Make a call, interrupt it at a moment, and return whether it lasted until then."""
    sys.setprofile(Interruption(moment))
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def wheel_of(*dues: int) -> TimerWheel[int]:
    """Return a wheel with ticks of 10 in which each item has the number of its deadline."""
    wheel: TimerWheel[int] = TimerWheel(10)
    for due in dues:
        wheel.add(due, due)
    return wheel


def drop(wheel: TimerWheel[int]) -> list[int]:
    wheel.drop(Tick(10))
    return list(wheel)


def check(wheel: TimerWheel[int]) -> list[int]:
    wheel._check()
    return list(wheel)


DUES: Final = (10, 30, 50, 70)

LOOKS: Final[dict[str, Callable[[TimerWheel[int]], object]]] = {
    "iterate": list,
    "count": len,
    "ask": bool,
    "ticks": lambda wheel: [tick.due for tick in wheel.ticks() if tick],
    "pairs": lambda wheel: [(tick.due, item) for tick, item in wheel.pairs()],
    "expire": lambda wheel: wheel.expire(39),
    "expire nothing": lambda wheel: wheel.expire(-1),
    "clear": lambda wheel: wheel.clear(),
    "add": lambda wheel: (wheel.add(60, 60).due, list(wheel)),
    "drop": drop,
    "check": check,
}
"""What can be done with a wheel after an interrupt."""


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
@pytest.mark.parametrize("deadline", [0, 20, 80])
def test_an_interrupt_leaves_a_wheel_whole_that_grows(
    deadline: int, look: Callable[[TimerWheel[int]], object]
) -> None:
    """Wherever an interrupt hits, a wheel that takes an item has it or not, and all the others."""
    moments = itertools.count(1)
    wheel = wheel_of(*DUES)
    allowed = [look(wheel_of(*DUES)), look(wheel_of(*DUES, deadline))]
    while interrupted(partial(wheel.add, deadline, deadline), next(moments)):
        assert look(wheel) in allowed
        wheel = wheel_of(*DUES)
    assert next(moments) > 10


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
@pytest.mark.parametrize("deadline", DUES)
def test_an_interrupt_leaves_a_wheel_whole_that_shrinks(
    deadline: int, look: Callable[[TimerWheel[int]], object]
) -> None:
    """Wherever an interrupt hits, a wheel that gives up an item has it or not, and the others."""
    moments = itertools.count(1)
    wheel = wheel_of(*DUES)
    rest = [due for due in DUES if due != deadline]
    allowed = [look(wheel_of(*DUES)), look(wheel_of(*rest))]
    while interrupted(partial(wheel.cancel, deadline, wheel.tick(deadline)), next(moments)):
        assert look(wheel) in allowed
        wheel = wheel_of(*DUES)
    assert next(moments) > 10


@pytest.mark.parametrize("deadline", DUES)
def test_nothing_is_early_after_an_interrupt(deadline: int) -> None:
    """Wherever an interrupt hits, what is left of a wheel comes when it is due."""
    moments = itertools.count(1)
    wheel = wheel_of(*DUES)
    while interrupted(partial(wheel.cancel, deadline, wheel.tick(deadline)), next(moments)):
        for now in range(0, 90, 10):
            assert set(wheel.expire(now)) <= {now}
        wheel._check()
        assert [] == list(wheel)
        wheel = wheel_of(*DUES)


# Beside a sorted list


class WheelMachine(RuleBasedStateMachine):
    """A wheel beside a sorted list of (due, number); an item is its number."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count()
        self.items: list[tuple[int, int]] = []
        self.deadlines: dict[int, int] = {}
        self.ticks: dict[int, Tick[int]] = {}
        self.gone: list[Tick[int]] = []

    @initialize(resolution=resolutions)
    def begin(self, resolution: int) -> None:
        self.wheel: TimerWheel[int] = TimerWheel(resolution)

    def due(self, deadline: int) -> int:
        """Return the first end of a tick that is not before the deadline."""
        return deadline + -deadline % self.wheel.resolution

    def note(self, tick: Tick[int], deadline: int) -> None:
        assert self.due(deadline) == tick.due
        assert tick is self.ticks.setdefault(tick.due, tick)

    def forget(self, due: int) -> None:
        """Clear a tick of the model away."""
        self.gone.append(self.ticks.pop(due))
        self.items = [(other, item) for other, item in self.items if other != due]

    @rule(deadline=deadlines)
    def add(self, deadline: int) -> None:
        item = next(self.numbers)
        self.note(self.wheel.add(item, deadline), deadline)
        self.deadlines[item] = deadline
        self.items = sorted([*self.items, (self.due(deadline), item)])

    @rule(deadline=deadlines)
    def make_a_tick(self, deadline: int) -> None:
        self.note(self.wheel.tick(deadline), deadline)

    @precondition(lambda self: self.items)
    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        due, item = self.items.pop(pick % len(self.items))
        self.wheel.cancel(item, self.ticks[due])
        if all(other != due for other, _ in self.items):
            self.forget(due)

    @precondition(lambda self: self.ticks)
    @rule(pick=picks)
    def cancel_in_vain(self, pick: int) -> None:
        tick = sorted(self.ticks.items())[pick % len(self.ticks)][1]
        with pytest.raises(KeyError):
            self.wheel.cancel(-1, tick)

    @precondition(lambda self: self.items)
    @rule(pick=picks)
    def take_out_by_hand(self, pick: int) -> None:
        due, item = self.items.pop(pick % len(self.items))
        del self.ticks[due][item]

    @rule()
    def drop_what_is_empty(self) -> None:
        for due, tick in list(self.ticks.items()):
            if not tick:
                self.wheel.drop(tick)
                self.forget(due)

    @precondition(lambda self: self.gone)
    @rule(pick=picks)
    def drop_in_vain(self, pick: int) -> None:
        self.wheel.drop(self.gone[pick % len(self.gone)])

    @rule(now=deadlines)
    def expire(self, now: int) -> None:
        expected = [item for due, item in self.items if due <= now]
        assert expected == self.wheel.expire(now)
        for due in [due for due in self.ticks if due <= now]:
            self.forget(due)
        early = [item for item in expected if self.deadlines[item] > now]
        assert [] == early
        left = [self.deadlines[item] for _, item in self.items]
        assert all(deadline > now - self.wheel.resolution for deadline in left)

    @rule()
    def clear(self) -> None:
        assert [item for _, item in self.items] == self.wheel.clear()
        for due in list(self.ticks):
            self.forget(due)

    @invariant()
    def looks_the_same(self) -> None:
        wheel = self.wheel
        wheel._check()
        assert [item for _, item in self.items] == list(wheel)
        assert self.items == [(tick.due, item) for tick, item in wheel.pairs()]
        assert (len(self.items), bool(self.items)) == (len(wheel), bool(wheel))
        assert sorted(self.ticks) == [tick.due for tick in wheel.ticks()]
        assert min(self.ticks, default=NEVER) == wheel.next_due
        if self.ticks:
            assert wheel.first_due(wheel.next_due) is self.ticks[wheel.next_due]
            assert wheel.first_due(wheel.next_due - 1) is None


def test_a_wheel_does_what_a_sorted_list_does() -> None:
    """Whatever one does to a wheel, it holds and gives out what a sorted list would."""
    run_state_machine_as_test(
        WheelMachine, settings=settings(max_examples=60, stateful_step_count=40)
    )
