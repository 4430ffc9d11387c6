"""Messages that wait: what only the inside shows; the rest is seen through topics and channels."""

from typing import Any

import pytest

from nsqlite import Event, Full, Kind, Topic
from nsqlite.backlog import Backlog, Deferral
from nsqlite.clock import NEVER
from nsqlite.guard import Guard
from nsqlite.message import Record
from nsqlite.options import DEFAULTS, make_options
from nsqlite.testing import ManualClock


def record(number: int) -> Record[int]:
    return number, 0, f"{number:013x}", "000", 0


class Scene:
    """A backlog on a clock that stands."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.guard = Guard()
        self.rooms = 0
        self.backlog: Backlog[int] = Backlog(
            ("orders", None),
            make_options(DEFAULTS, **options),
            self.clock,
            self.guard,
            self.make_room,
        )

    def make_room(self) -> None:
        self.rooms += 1

    def add(self, *numbers: int) -> None:
        """Put ready messages in, as a topic does."""
        self.backlog.ready.extend(record(number) for number in numbers)
        self.backlog.accepted(len(numbers))

    def trash(self) -> list[int]:
        entries: Any = self.guard.trash
        return [entry[0] for entry in entries]

    def ready(self) -> list[int]:
        return [entry[0] for entry in self.backlog.ready]


def test_it_begins_empty() -> None:
    """There is nothing in it, nothing is due, and there is room for anything."""
    backlog = Scene().backlog
    assert (True, NEVER, None) == (backlog.is_idle(), backlog.next_due(), backlog.judge(1_000_000))
    assert 0 == backlog.clear()
    backlog._check()


def test_what_is_deferred_becomes_ready_in_its_time() -> None:
    """The earliest comes first, behind what was ready before; the time is returned."""
    scene = Scene()
    backlog = scene.backlog
    for number, due in ((3, 30), (2, 20), (4, 30)):
        backlog.defer([Deferral(record(number))], due)
    scene.add(1)
    assert (20, False) == (backlog.due, backlog.is_idle())
    scene.clock.advance(19e-9)
    assert (19, [1]) == (backlog.sweep(), scene.ready())
    scene.clock.advance(11e-9)
    assert (30, [1, 2, 3, 4]) == (backlog.sweep(), scene.ready())
    assert NEVER == backlog.due
    backlog._check()


def test_deferring_may_be_made_twice() -> None:
    """What a signal interrupted and is done again brings one message."""
    scene = Scene()
    deferral = Deferral(record(1))
    for _ in "12":
        scene.backlog.defer([deferral], 10)
    scene.clock.advance(1)
    scene.backlog.mend()
    assert [1] == scene.ready()


@pytest.mark.parametrize(
    ("when_full", "verdicts"),
    [
        ("wait", [None, "wait", "raise"]),
        ("raise", [None, "raise", "raise"]),
        ("drop newest", [None, None, "raise"]),
        ("drop oldest", [None, None, "raise"]),
    ],
)
def test_judging(when_full: str, verdicts: list[str | None]) -> None:
    """What fits goes in; what does not may wait, raise or push out; what never can raises."""
    scene = Scene(max_depth=2, when_full=when_full)
    scene.add(1)

    def verdict(count: int) -> str | None:
        try:
            full = scene.backlog.judge(count)
        except Full as error:
            return "raise" if (error.where, error.size) == ("orders", count) else str(error)
        return None if full is None else "wait"

    assert verdicts == [verdict(count) for count in (1, 2, 3)]
    assert [True, when_full != "wait"] == [scene.backlog.has_room(count) for count in (1, 2)]


@pytest.mark.parametrize(("when_full", "left"), [("drop newest", [1, 2]), ("drop oldest", [3, 4])])
def test_too_much_is_dropped(when_full: str, left: list[int]) -> None:
    """As many are dropped as were put too many, counted, told, and kept until after the lock."""
    scene = Scene(max_depth=2, when_full=when_full)
    told: list[Event] = []
    scene.guard.observe((told.append,))
    scene.add(1, 2)
    scene.add(3, 4)
    assert (left, 2) == (scene.ready(), scene.backlog.dropped_count)
    assert sorted({1, 2, 3, 4} - set(left)) == sorted(scene.trash())
    scene.guard.settle()
    assert [(Kind.DROPPED, None, None)] * 2 == [(e.kind, e.channel, e.attempts) for e in told]


def test_clear_drops_everything() -> None:
    """Ready and deferred ones are counted together."""
    scene = Scene()
    scene.add(1, 2)
    scene.backlog.defer([Deferral(record(3))], 10)
    assert (3, True, NEVER) == (scene.backlog.clear(), scene.backlog.is_idle(), scene.backlog.due)


def test_a_topics_own_obeys_the_resolution() -> None:
    """What a topic holds is cut into ticks as long as its channels' are."""
    topic = Topic("orders", clock=ManualClock(), resolution=0.5)
    assert [500_000_000] * 2 == [
        topic._fan.held.deferred.resolution,
        topic.channel("billing")._flow.timeouts.resolution,
    ]


def test_check_finds_a_message_in_two_places() -> None:
    """One that is ready must not be deferred too."""
    scene = Scene()
    scene.add(1)
    scene.backlog.defer([Deferral(record(1))], 10)
    with pytest.raises(AssertionError, match="two places"):
        scene.backlog._check()
