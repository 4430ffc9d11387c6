"""The timer wheel: never early, at most a tick late, in order; and beside a sorted list."""

import itertools
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from nsqlite import InvalidOption, TimerWheel
from nsqlite.clock import NEVER
from nsqlite.timerwheel import TICKS, Page

deadlines: Final = st.integers(-30, 300)
resolutions: Final = st.integers(1, 20)
spans: Final = st.integers(1, 5)
"""How many ticks a page has."""

picks: Final = st.integers(0, 99)


# Nothing early, nothing late


@given(deadline=deadlines, resolution=resolutions)
def test_nothing_is_early_or_more_than_a_tick_late(deadline: int, resolution: int) -> None:
    """An item is due at its deadline or less than a tick after it."""
    wheel: TimerWheel[str] = TimerWheel(resolution)
    due = wheel.add("tea", deadline)["tea"]
    assert due == wheel.due(deadline)
    assert deadline <= due < deadline + resolution
    assert ([], ["tea"]) == (wheel.expire(due - 1), wheel.expire(due))


@given(deadline=st.integers(0, 1 << 62))
def test_the_finest_wheel_is_exact(deadline: int) -> None:
    """With a resolution of 1 an item is due at its deadline."""
    assert deadline == TimerWheel[str](1).add("tea", deadline)["tea"]


def test_a_deadline_at_the_end_of_a_tick_falls_into_it() -> None:
    """A tick takes what is due after its beginning, its end included."""
    wheel: TimerWheel[str] = TimerWheel(10)
    dues = {deadline: wheel.due(deadline) for deadline in (0, 1, 10, 11, 20)}
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


@given(st.lists(deadlines, max_size=50), resolutions, spans)
@example([0, -1, -2], 1, 1)
def test_the_span_changes_nothing(dues: list[int], resolution: int, ticks: int) -> None:
    """However long the pages are, the same comes out in the same order."""
    one: TimerWheel[int] = TimerWheel(resolution)
    other: TimerWheel[int] = TimerWheel(resolution, resolution * ticks)
    for item, deadline in enumerate(dues):
        one.add(item, deadline)
        other.add(item, deadline)
    now = sum(dues) // (len(dues) or 1)
    assert (one.expire(now), one.clear()) == (other.expire(now), other.clear())


def test_an_item_added_twice_keeps_its_place() -> None:
    """An item that is in its tick already stays where it is."""
    wheel: TimerWheel[str] = TimerWheel(10)
    page = wheel.add("tea", 5)
    wheel.add("cake", 6)
    assert page is wheel.add("tea", 7)
    assert ["tea", "cake"] == list(wheel)


# One thing at a time


def test_an_empty_wheel_has_nothing() -> None:
    """A wheel begins empty: it is false, has no items, and nothing is ever due."""
    wheel: TimerWheel[str] = TimerWheel(10)
    assert (False, 0, [], [], []) == (
        bool(wheel),
        len(wheel),
        list(wheel),
        wheel.pages(),
        list(wheel.pairs()),
    )
    assert (NEVER, []) == (wheel.next_due, wheel.expire(NEVER - 1))
    assert [] == list(wheel.until(NEVER - 1))
    assert wheel.next_filled() == NEVER


def test_a_wheel_knows_its_resolution() -> None:
    """A wheel keeps the length of its ticks; a page has 64 of them by default."""
    wheel: TimerWheel[str] = TimerWheel(10)
    assert wheel.resolution == 10
    assert wheel.page(0) is wheel.page(10 * TICKS - 10)
    assert wheel.page(0) is not wheel.page(10 * TICKS)


@pytest.mark.parametrize("wrong", [(0, None), (10, 9), ("1", None), (10, 20.0)])
def test_bad_lengths(wrong: Any) -> None:
    """A tick and a page are whole numbers, and a page is no shorter than a tick."""
    with pytest.raises(InvalidOption):
        TimerWheel(*wrong)


def test_expiring_takes_what_is_due() -> None:
    """What is due is taken out; the rest stays, and tells when it is due."""
    wheel: TimerWheel[str] = TimerWheel(10)
    for item, deadline in [("cake", 22), ("tea", 5), ("milk", 11)]:
        wheel.add(item, deadline)
    assert (["tea", "milk"], 30) == (wheel.expire(29), wheel.next_due)
    assert ["cake"] == list(wheel)


def test_a_cancelled_item_never_comes() -> None:
    """An item that is cancelled is gone, and with the last one its page."""
    wheel: TimerWheel[str] = TimerWheel(10)
    page = wheel.add("tea", 5)
    wheel.add("cake", 5)
    wheel.cancel("tea", page)
    assert (["cake"], 10) == (list(wheel), wheel.next_due)
    wheel.cancel("cake", page)
    assert ([], [], NEVER) == (list(wheel), wheel.pages(), wheel.next_due)


def test_what_is_not_there_cannot_be_cancelled() -> None:
    """Cancelling what is not in the page raises `KeyError`, and nothing has changed."""
    wheel: TimerWheel[str] = TimerWheel(10)
    page = wheel.add("tea", 5)
    with pytest.raises(KeyError):
        wheel.cancel("cake", page)
    assert (["tea"], 10) == (list(wheel), wheel.next_due)


def test_an_emptied_page_is_cleared_away_when_its_time_comes() -> None:
    """What was taken out by hand still counts for `next_due`, until that has come."""
    wheel: TimerWheel[str] = TimerWheel(10, 10)
    page = wheel.add("tea", 5)
    wheel.add("cake", 15)
    del page["tea"]
    assert (10, 20, ["cake"], True) == (
        wheel.next_due,
        wheel.next_filled(),
        list(wheel),
        bool(wheel),
    )
    assert ([], 20) == (wheel.expire(10), wheel.next_due)
    assert 1 == len(wheel.pages())


def test_an_old_page_does_not_take_a_new_one_away() -> None:
    """Clearing away a page that is there no more leaves another of the same span alone."""
    wheel: TimerWheel[str] = TimerWheel(10)
    old = wheel.page(10)
    wheel.drop(old)
    new = wheel.add("tea", 5)
    wheel.drop(old)
    assert new is not old
    assert ([new], 10) == (wheel.pages(), wheel.next_due)


def test_what_is_due_never_is_never_due() -> None:
    """What is due at `NEVER` or later is there, and comes at no moment, not even the last."""
    wheel = TimerWheel[str](resolution=7)
    page = wheel.add("for ever", NEVER)
    wheel.add("tea", 13)
    assert (14, ["tea"]) == (wheel.next_due, wheel.expire(NEVER - 1))
    assert (NEVER, NEVER, 1) == (wheel.next_due, wheel.next_filled(), len(wheel))
    wheel._check()
    assert ["for ever"] == list(wheel)
    wheel.cancel("for ever", page)
    assert (NEVER, 0) == (wheel.next_due, len(wheel))


def test_items_are_shown_with_their_moments() -> None:
    """The pairs are each item with when it is due, the earliest first."""
    wheel: TimerWheel[str] = TimerWheel(10, 10)
    late = wheel.add("cake", 15)
    early = wheel.add("tea", 5)
    assert [(10, "tea"), (20, "cake")] == list(wheel.pairs())
    assert [late, early] == wheel.pages()


def test_what_is_left_comes_again() -> None:
    """Who stops early finds the rest, and only that, the next time."""
    wheel: TimerWheel[str] = TimerWheel(10)
    for item in ("tea", "cake", "milk"):
        wheel.add(item, 5)
    for item, _, page in wheel.until(10):
        del page[item]
        if item == "cake":
            break
    assert ["milk"] == list(wheel)
    assert 10 == wheel.next_due
    wheel._check()
    assert ["milk"] == wheel.expire(10)


def test_what_is_moved_on_while_its_page_is_open_comes_later() -> None:
    """An item that gets a later moment in an opened page comes then, and once."""
    wheel: TimerWheel[str] = TimerWheel(1, 100)
    for item in ("tea", "cake"):
        wheel.add(item, 5)
    assert 5 == wheel.next_due
    seen = []
    for item, _, page in wheel.until(5):
        seen.append(item)
        del page[item]
        if item == "tea":
            del page["cake"]
            wheel.add("cake", 8)
    assert ["tea"] == seen
    assert ([], ["cake"]) == (wheel.expire(7), wheel.expire(8))


def test_a_page_that_is_kept_takes_more_when_it_was_opened() -> None:
    """Until `kept_until` items are added to a page without asking for it again."""
    wheel: TimerWheel[str] = TimerWheel(1, 100)
    wheel.add("tea", 5)
    page = wheel.page(50)
    page.kept_until = 50
    page["cake"] = 50
    assert ["tea"] == wheel.expire(5)
    page["milk"] = 50
    wheel._check()
    assert ([], ["cake", "milk"]) == (wheel.expire(49), wheel.expire(50))
    wheel._check()
    assert [] == wheel.pages()


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
    wheel: TimerWheel[int] = TimerWheel(10, 20)
    for due in dues:
        wheel.add(due, due)
    return wheel


def drop(wheel: TimerWheel[int]) -> list[int]:
    wheel.drop(Page(10, 30, 10))
    return list(wheel)


def check(wheel: TimerWheel[int]) -> list[int]:
    wheel._check()
    return list(wheel)


DUES: Final = (10, 30, 50, 70)

LOOKS: Final[dict[str, Callable[[TimerWheel[int]], object]]] = {
    "iterate": list,
    "count": len,
    "ask": bool,
    "pages": lambda wheel: sorted(due for page in wheel.pages() for due in page),
    "pairs": lambda wheel: list(wheel.pairs()),
    "next": lambda wheel: wheel.next_filled(),
    "expire": lambda wheel: wheel.expire(39),
    "expire nothing": lambda wheel: wheel.expire(-1),
    "clear": lambda wheel: wheel.clear(),
    "add": lambda wheel: (wheel.add(60, 60)[60], list(wheel)),
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
    while interrupted(partial(wheel.cancel, deadline, wheel.page(deadline)), next(moments)):
        assert look(wheel) in allowed
        wheel = wheel_of(*DUES)
    assert next(moments) > 10


@pytest.mark.parametrize("deadline", DUES)
def test_nothing_is_early_after_an_interrupt(deadline: int) -> None:
    """Wherever an interrupt hits, what is left of a wheel comes when it is due."""
    moments = itertools.count(1)
    wheel = wheel_of(*DUES)
    while interrupted(partial(wheel.cancel, deadline, wheel.page(deadline)), next(moments)):
        for now in range(0, 90, 10):
            assert set(wheel.expire(now)) <= {now}
        wheel._check()
        assert [] == list(wheel)
        wheel = wheel_of(*DUES)


def take(wheel: TimerWheel[int], now: int, taken: list[int]) -> None:
    """Take out what is due, each item in one piece, as a queue does."""
    for item, _, page in wheel.until(now):
        del page[item]
        taken.append(item)


def test_an_interrupt_loses_nothing_that_is_due() -> None:
    """Wherever an interrupt hits, who goes on where it stopped has taken each item once."""
    moments = itertools.count(1)
    dues = (*DUES, 31, 35, 11)
    expected = [10, 11, 30, 31, 35]
    wheel = wheel_of(*dues)
    taken: list[int] = []
    while interrupted(partial(take, wheel, 40, taken), next(moments)):
        wheel._check()
        take(wheel, 40, taken)
        wheel._check()
        assert expected == taken
        assert [50, 70] == list(wheel)
        wheel, taken = wheel_of(*dues), []
    assert next(moments) > 20


# Beside a sorted list


class WheelMachine(RuleBasedStateMachine):
    """A wheel beside a sorted list of (due, order, item); an item is a number."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count()
        self.items: list[tuple[int, int, int]] = []
        self.pages: dict[int, Page[int]] = {}
        self.kept: list[tuple[Page[int], int]] = []
        self.gone: list[Page[int]] = []
        self.now = -100

    @initialize(resolution=resolutions, ticks=spans)
    def begin(self, resolution: int, ticks: int) -> None:
        self.wheel: TimerWheel[int] = TimerWheel(resolution, resolution * ticks)

    def due(self, deadline: int) -> int:
        """Return the first end of a tick that is not before the deadline."""
        return deadline + -deadline % self.wheel.resolution

    def note(self, item: int, due: int, page: Page[int]) -> None:
        assert due == page[item]
        self.pages[item] = page
        self.items = sorted([*self.items, (due, next(self.numbers), item)])

    def pick(self, pick: int) -> tuple[int, int, int]:
        return self.items[pick % len(self.items)]

    def is_kept(self, page: Page[int]) -> bool:
        return page.kept_until > self.now

    @rule(deadline=deadlines)
    def add(self, deadline: int) -> None:
        item = next(self.numbers)
        page = self.wheel.add(item, deadline)
        self.note(item, self.due(deadline), page)

    @rule(deadline=deadlines)
    def keep(self, deadline: int) -> None:
        due = self.due(deadline)
        page = self.wheel.page(due)
        page.kept_until = max(due, page.kept_until)
        self.kept.append((page, due))

    @precondition(lambda self: any(self.now < due for _, due in self.kept))
    @rule(pick=picks)
    def add_to_a_kept_page(self, pick: int) -> None:
        kept = [(page, due) for page, due in self.kept if self.now < due]
        page, due = kept[pick % len(kept)]
        item = next(self.numbers)
        page[item] = due
        self.note(item, due, page)

    @precondition(lambda self: self.items)
    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        entry = self.pick(pick)
        page = self.pages[entry[2]]
        if self.is_kept(page):
            del page[entry[2]]
        else:
            self.wheel.cancel(entry[2], page)
            if not page:
                self.gone.append(page)
        self.items.remove(entry)

    @precondition(lambda self: self.items)
    @rule(pick=picks, deadline=deadlines)
    def touch(self, pick: int, deadline: int) -> None:
        """Give an item another moment, as a queue does."""
        entry = self.pick(pick)
        _, order, item = entry
        due, old = self.due(deadline), self.pages[item]
        page = self.wheel.page(due)
        page[item] = due
        self.items.remove(entry)
        if page is old:  # it keeps its place among those of its page
            self.items = sorted([*self.items, (due, order, item)])
        else:
            del old[item]
            self.note(item, due, page)

    @precondition(lambda self: self.items)
    @rule(pick=picks)
    def cancel_in_vain(self, pick: int) -> None:
        with pytest.raises(KeyError):
            self.wheel.cancel(-1, self.pages[self.pick(pick)[2]])

    @precondition(lambda self: self.items)
    @rule(pick=picks)
    def take_out_by_hand(self, pick: int) -> None:
        entry = self.pick(pick)
        del self.pages[entry[2]][entry[2]]
        self.items.remove(entry)

    @rule()
    def drop_what_is_empty(self) -> None:
        for page in self.wheel.pages():
            if not page and not self.is_kept(page):
                self.wheel.drop(page)
                self.gone.append(page)

    @precondition(lambda self: self.gone)
    @rule(pick=picks)
    def drop_in_vain(self, pick: int) -> None:
        page = self.gone[pick % len(self.gone)]
        assert not page
        self.wheel.drop(page)

    @rule(step=st.integers(0, 80))
    def expire(self, step: int) -> None:
        now = self.now = self.now + step
        expected = [entry for entry in self.items if entry[0] <= now]
        assert [item for _, _, item in expected] == self.wheel.expire(now)
        self.items = self.items[len(expected) :]
        assert self.wheel.next_due > now

    @rule(step=st.integers(0, 80), count=st.integers(1, 5))
    def expire_a_few(self, step: int, count: int) -> None:
        now = self.now = self.now + step
        expected = [entry for entry in self.items if entry[0] <= now][:count]
        found = []
        for item, _, page in self.wheel.until(now):
            del page[item]
            found.append(item)
            if len(found) == count:
                break
        assert [item for _, _, item in expected] == found
        self.items = self.items[len(found) :]

    @rule()
    def clear(self) -> None:
        assert [item for _, _, item in self.items] == self.wheel.clear()
        self.items = []
        self.kept = []  # everything is as if its time had passed

    @invariant()
    def looks_the_same(self) -> None:
        wheel = self.wheel
        wheel._check()
        pairs = list(wheel.pairs())
        assert [due for due, _, _ in self.items] == [due for due, _ in pairs]
        assert {(due, item) for due, _, item in self.items} == set(pairs)
        assert {item for _, _, item in self.items} == set(wheel)
        assert (len(self.items), bool(self.items)) == (len(wheel), bool(wheel))
        first = min((due for due, _, _ in self.items), default=NEVER)
        assert wheel.next_due <= first == wheel.next_filled()


def test_a_wheel_does_what_a_sorted_list_does() -> None:
    """Whatever one does to a wheel, it holds and gives out what a sorted list would."""
    run_state_machine_as_test(
        WheelMachine, settings=settings(max_examples=100, stateful_step_count=40)
    )


def test_a_page_in_order() -> None:
    """The items of a page that is due as a whole come out by their moments."""
    wheel: TimerWheel[str] = TimerWheel(1, 100)
    for item, deadline in [("cake", 30), ("tea", 10), ("milk", 30)]:
        wheel.add(item, deadline)
    assert wheel.whole(29) is None
    page = wheel.whole(30)
    assert page is not None
    assert ["tea", "cake", "milk"] == page.in_order()


def test_no_page_is_due_as_a_whole_where_there_is_none() -> None:
    """A promise that an interrupted change has left behind finds nothing."""
    wheel: TimerWheel[str] = TimerWheel(1)
    wheel.next_due = 5
    assert wheel.whole(10) is None
