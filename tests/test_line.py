"""Those who are blocked in get: who is next, who is parked, who watches."""

import itertools
from typing import Final, TypeAlias

import attrs
from hypothesis import given
from hypothesis import strategies as st

from nsqlite.clock import Chime
from nsqlite.guard import Guard
from nsqlite.line import Line
from nsqlite.waiter import Waiter


@attrs.define(eq=False)
class Owner:
    """A consumer, as far as a line knows it."""

    name: str
    full: bool = False

    def is_full(self) -> bool:
        return self.full


Getter: TypeAlias = Waiter[bytes]


class Scene:
    """A line, and two consumers."""

    def __init__(self) -> None:
        self.guard = Guard()
        self.line: Line[bytes] = Line(self.guard)
        self.ann = Owner("Ann")
        self.bob = Owner("Bob")

    def join(self, *owners: Owner) -> list[Getter]:
        """Line up a getter for each of the owners."""
        getters: list[Getter] = [Waiter(owner) for owner in owners]
        for getter in getters:
            self.line.join(getter)
        return getters

    def check(self) -> None:
        """Check what must hold after every step."""
        line = self.line
        everybody = [*line.first_come, *itertools.chain(*line.parked.values())]
        assert len(everybody) == len(set(everybody))
        assert len(line.first_come) == self.guard.waiting
        assert all(line.parked.values())
        for owner, parked in line.parked.items():
            assert {owner} == {getter.owner for getter in parked}
        assert (line.watcher is None) is (everybody == [])
        assert line.watcher is None or line.watcher in line


def rung(*getters: Getter) -> list[bool]:
    """Return which of them were rung since the last call."""
    return [getter.bell.acquire(blocking=False) for getter in getters]


# Coming and going


def test_an_empty_line_has_nobody() -> None:
    """A line begins with nobody next and nobody watching."""
    line = Scene().line
    assert (None, None) == (line.first(), line.watcher)
    assert Waiter[bytes](Owner("Ann")) not in line


def test_first_come_first_served() -> None:
    """Who came first is next, until he leaves."""
    scene = Scene()
    first, second = scene.join(scene.ann, scene.bob)
    assert scene.line.first() is first
    scene.line.leave(first)
    assert scene.line.first() is second
    scene.check()


def test_who_leaves_is_gone() -> None:
    """Who has left is not in line; a second time it does nothing."""
    scene = Scene()
    first, second = scene.join(scene.ann, scene.bob)
    scene.line.leave(first)
    scene.line.leave(first)
    assert (False, True) == (first in scene.line, second in scene.line)
    scene.check()


def test_who_is_gone_is_passed_over() -> None:
    """Who has been interrupted and not left yet is taken out when his turn comes."""
    scene = Scene()
    first, second = scene.join(scene.ann, scene.bob)
    first.gone = True
    assert scene.line.first() is second
    assert first not in scene.line
    assert scene.line.watcher is second
    scene.check()


def test_the_guard_knows_how_many_wait() -> None:
    """The guard counts those who could take a message, and not the parked."""
    scene = Scene()
    scene.bob.full = True
    first, *_ = scene.join(scene.ann, scene.ann, scene.bob)
    assert 2 == scene.guard.waiting
    scene.line.leave(first)
    assert 1 == scene.guard.waiting


# Windows


def test_a_full_window_parks() -> None:
    """Who comes with a full window is not in line for a message."""
    scene = Scene()
    scene.ann.full = True
    parked, free = scene.join(scene.ann, scene.bob)
    assert scene.line.first() is free
    assert ([free], {scene.ann: [parked]}) == (
        list(scene.line.first_come),
        {owner: list(getters) for owner, getters in scene.line.parked.items()},
    )
    assert parked in scene.line
    scene.check()


def test_a_window_that_has_filled_parks_too() -> None:
    """Who could take a message when he came and cannot now is passed over."""
    scene = Scene()
    first, second, third = scene.join(scene.ann, scene.bob, scene.ann)
    scene.ann.full = True
    assert scene.line.first() is second
    assert [first] == list(scene.line.parked[scene.ann])
    scene.line.leave(second)
    assert scene.line.first() is None
    assert [first, third] == list(scene.line.parked[scene.ann])
    scene.check()


def test_an_open_window_lines_up() -> None:
    """Who waited for his window is in line again, behind those who are there."""
    scene = Scene()
    scene.ann.full = True
    one, other, free = scene.join(scene.ann, scene.ann, scene.bob)
    scene.ann.full = False
    scene.line.unpark(scene.ann)
    scene.line.unpark(scene.ann)
    assert ([free, one, other], {}) == (list(scene.line.first_come), scene.line.parked)
    scene.check()


def test_everybody_can_be_lined_up() -> None:
    """When windows matter no more all who were parked are in line."""
    scene = Scene()
    scene.ann.full = scene.bob.full = True
    getters = scene.join(scene.ann, scene.bob, scene.ann)
    scene.line.unpark_all()
    assert (set(getters), {}) == (set(scene.line.first_come), scene.line.parked)
    scene.check()


def test_who_is_parked_can_leave() -> None:
    """Who leaves while parked is gone, and with the last one his consumer."""
    scene = Scene()
    scene.ann.full = True
    one, other = scene.join(scene.ann, scene.ann)
    scene.line.leave(one)
    assert (False, True) == (one in scene.line, other in scene.line)
    scene.check()
    scene.line.leave(other)
    assert {} == scene.line.parked
    scene.check()


# The watcher


def test_who_comes_first_watches() -> None:
    """The first to come watches, in line or parked; nobody is woken for that."""
    scene = Scene()
    scene.ann.full = True
    parked, free = scene.join(scene.ann, scene.bob)
    assert scene.line.watcher is parked
    assert [False, False] == rung(parked, free)


def test_a_leaving_watcher_appoints_the_last_to_come() -> None:
    """When the watcher leaves, the last to come is rung and watches."""
    scene = Scene()
    scene.bob.full = True
    first, second, parked, third = scene.join(scene.ann, scene.ann, scene.bob, scene.ann)
    scene.line.leave(first)
    assert scene.line.watcher is third
    assert [False, True, False] == rung(second, third, parked)
    scene.check()


def test_a_leaving_watcher_appoints_one_who_is_parked() -> None:
    """When the watcher leaves and the last to come is parked, he is rung and watches."""
    scene = Scene()
    scene.bob.full = True
    first, other, parked = scene.join(scene.ann, scene.bob, scene.bob)
    scene.line.leave(first)
    assert scene.line.watcher is parked
    assert [True, False] == rung(parked, other)
    scene.check()


def test_the_last_watcher_appoints_nobody() -> None:
    """When the last one leaves nobody watches."""
    scene = Scene()
    [only] = scene.join(scene.ann)
    scene.line.leave(only)
    assert scene.line.watcher is None
    scene.check()


def test_who_does_not_watch_leaves_quietly() -> None:
    """When another than the watcher leaves the watcher stays, and nobody is woken."""
    scene = Scene()
    first, second, third = scene.join(scene.ann, scene.ann, scene.ann)
    scene.line.leave(second)
    assert scene.line.watcher is first
    assert [False, False, False] == rung(first, second, third)


def test_the_watcher_is_told_of_an_earlier_deadline() -> None:
    """The watcher alone is rung for a deadline; where nobody waits nothing happens."""
    scene = Scene()
    scene.line.ring_watchers()
    first, second = scene.join(scene.ann, scene.bob)
    scene.line.ring_watchers()
    assert [True, False] == rung(first, second)


# Everybody


def test_everybody_can_be_rung() -> None:
    """All are rung, in line and parked."""
    scene = Scene()
    scene.bob.full = True
    getters = scene.join(scene.ann, scene.bob, scene.ann)
    scene.line.ring_all()
    assert [True, True, True] == rung(*getters)


def test_getters_can_be_dismissed() -> None:
    """Those who are to go are rung and taken out of the line, wherever they stand."""
    scene = Scene()
    waiting, other = scene.join(scene.ann, scene.bob)
    scene.ann.full = True
    [parked] = scene.join(scene.ann)
    scene.line.dismiss([waiting, parked])
    assert [waiting not in scene.line, other in scene.line, parked not in scene.line] == [True] * 3
    assert [True, True] == rung(waiting, parked)
    scene.check()


class Loop:
    """Stands for an event loop's lookout."""

    def __init__(self, waiters: int) -> None:
        self.waiters = waiters
        self.rings = 0

    def ring(self) -> None:
        self.rings += 1


def test_lookouts_are_told_of_an_earlier_deadline() -> None:
    """Every lookout for which somebody waits is rung, beside the watcher."""
    scene = Scene()
    [watcher] = scene.join(scene.ann)
    busy, idle = Loop(1), Loop(0)
    scene.line.lookouts |= {"busy": busy, "idle": idle}
    scene.line.ring_watchers()
    assert ([True], 1, 0) == (rung(watcher), busy.rings, idle.rings)


def test_who_waits_in_a_loop_does_not_watch() -> None:
    """One that is remote stands in line like the others, but only a thread is the watcher."""
    scene = Scene()
    remote: Getter = Waiter(scene.ann, Chime(lambda: None))
    scene.line.join(remote)
    assert scene.line.watcher is None
    [thread] = scene.join(scene.bob)
    assert thread is scene.line.watcher
    scene.line.leave(thread)
    assert scene.line.watcher is None
    scene.line._check()


def test_a_child_forgets_the_line() -> None:
    """In a fork's child the line is empty, and who is left in it, this thread, looks again."""
    scene = Scene()
    scene.bob.full = True
    getters = scene.join(scene.ann, scene.bob)
    scene.line.forget()
    scene.guard.forget_waiters()
    assert ([True, True], None) == (rung(*getters), scene.line.first())
    scene.check()


# Whatever happens


STEPS: Final = st.lists(st.tuples(st.sampled_from("jlfuaot"), st.integers(0, 9)), max_size=60)


@given(STEPS)
def test_a_line_stays_whole(steps: list[tuple[str, int]]) -> None:
    """Whoever comes, leaves, fills or opens a window: nobody is lost or twice, and one watches."""
    scene = Scene()
    owners = [scene.ann, scene.bob]
    getters: list[Getter] = []
    for step, pick in steps:
        owner = owners[pick % 2]
        match step:
            case "j":
                getters += scene.join(owner)
            case "l" if getters:
                scene.line.leave(getters.pop(pick % len(getters)))
            case "t":
                owner.full = not owner.full
            case "f":
                first = scene.line.first()
                free = [getter for getter in getters if not getter.owner.full]
                assert first is None or not first.owner.full
                assert free == [] or first is not None or set(free) <= parked(scene)
            case "u":
                scene.line.unpark(owner)
            case "a":
                scene.line.unpark_all()
            case "o":
                scene.line.appoint()
        assert all(getter in scene.line for getter in getters)
        scene.check()


def parked(scene: Scene) -> set[Getter]:
    return set(itertools.chain(*scene.line.parked.values()))
