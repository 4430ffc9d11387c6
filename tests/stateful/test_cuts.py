"""Pairs of calls that meet in a store, cut after every write.

For each pair the schedules are run that schedules.py tells of, here those with one preemption in
the files of the store and some of those with two.  One of the calls writes what may be late; the
other changes things, beside the model of history.py.  What is found after each write must be what
test_prefix.py says; and what is found in the end all that happened.

The store's own thread is never started: what it does can be done by the thread that flushes.  Its
locks, and those on which a put sleeps, are the scheduler's.

    pytest -m soak tests/stateful/test_cuts.py
"""

import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias
from unittest import mock

import pytest

import nsqlite
from stateful.history import Copy
from stateful.schedules import Exploration, Run, Schedule, Scheduler, undisturbed
from stateful.snapshots import SeenTopic
from stateful.test_prefix import Play, Tables

pytestmark = pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(),
    reason="without the GIL an object that two threads know is freed at other times in each run",
)

PACKAGE: Final = Path(nsqlite.__file__).parent
SOME: Final = 40  # schedules with two preemptions that are run without being asked for
MANY: Final = 2000  # of several hundred thousand
FOUND: Final[dict[str, dict[str, SeenTopic]]] = {}  # in tables, whatever led to them
EXPLAINED: Final = "all is explained"


class StagedSemaphore:
    """Stands for `threading.Lock` while a scene is on."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._taken = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: ARG002, FBT002 - Lock's
        if self._taken and not blocking:
            return False
        if self._taken:
            self._scheduler.block(lambda: not self._taken)
        self._taken = True
        return True

    def release(self) -> None:
        if not self._taken:
            raise RuntimeError("release unlocked lock")
        self._taken = False

    def locked(self) -> bool:
        return self._taken

    __enter__ = acquire

    def __exit__(self, *exception: object) -> None:
        self.release()


class Cut(Play):
    """A play whose cuts are looked at when it is over.

    Attributes:
        cuts: what was written, and what was acknowledged by then.
        calls: the two that meet.
    """

    def __init__(self, modes: dict[str, Any], script: "Script") -> None:
        self.cuts: list[tuple[Tables, int, int]] = []
        super().__init__(modes)
        for name, channel in ("ax", "ay", "bx"):
            self.channel(name, channel)
        self.calls = script(self)
        self.cuts.clear()

    def point(self, name: str) -> None:
        if name.startswith("after write"):
            history = self.history
            tables = self.store.contents.tables.copy()
            self.cuts.append((tables, history.acknowledged, history.surely))

    def returned(self, *, surely: bool = False) -> None:
        self.history.returned(surely=surely)

    def outcome(self, run: Run) -> str:
        """Look at every cut, and at what is there when all is written."""
        if any(isinstance(result, BaseException) for result, _ in run.results):
            return f"{run.results}"
        self.broker.flush()
        history = self.history
        for number, (tables, history.acknowledged, history.surely) in enumerate(self.cuts):
            seen = self.found_in(tables)
            if history.explain(seen) is None:
                return f"cut {number} is not explained: {seen}, {history.states}"
        seen = self.found_in(self.store.contents.tables)
        self.broker.close(force=True)
        if not history.explains_all(seen):
            return f"all was written, and found is {seen}, not {history.state}"
        return EXPLAINED

    def found_in(self, tables: Tables) -> dict[str, SeenTopic]:
        """Return what another broker finds, which is known if others had the same to look at."""
        rows = repr(vars(tables))
        if rows not in FOUND:
            FOUND[rows] = super().found_in(tables)
        return FOUND[rows]

    # What the scripts do

    def put_one(self, name: str) -> None:
        self.put(name, None)

    def flying_from(self, name: str, channel: str) -> nsqlite.Message[Any]:
        """Get a message, which must be there."""
        message = self.consumer((name, channel)).get(timeout=0)
        self.history.deliver(name, channel, message.id)
        self.messages[name, channel, message.id] = message
        self.history.happened()
        self.returned()
        return message

    def flying_beside_others(self) -> nsqlite.Message[Any]:
        """Get a message; something has changed where it is, and then in the other topic."""
        self.put_one("a")
        message = self.flying_from("a", "x")
        self.put_one("b")
        self.finish("b", "x")
        return message

    def finish(self, name: str, channel: str) -> None:
        message = self.flying_from(name, channel)
        message.fin()
        del self.history.state[name].queues[channel].copies[message.id]
        self.history.happened()

    def move_on(self, message: nsqlite.Message[Any], name: str, channel: str | None) -> None:
        """Move what came from a:x."""
        topic = self.broker.topic(name)
        to: Any = topic if channel is None else topic.channel(channel)
        new = self.consumer(("a", "x")).move(message, to)
        del self.history.state["a"].queues["x"].copies[message.id]
        if channel is None:
            self.history.state[name].take({new: Copy(message.body)})
        else:
            copy = Copy(message.body, plain=False)
            self.history.state[name].queues[channel].copies[new] = copy
        self.history.happened()


Script: TypeAlias = Callable[[Cut], tuple[Callable[[], Any], Callable[[], Any]]]


def in_turn(*steps: Callable[[], object]) -> Callable[[], None]:
    def call() -> None:
        for step in steps:
            step()

    return call


def puts(scene: Cut) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Something has changed, and more is put."""
    scene.put_one("a")
    scene.finish("a", "x")
    return scene.broker.flush, in_turn(partial(scene.put_one, "a"), partial(scene.put_one, "b"))


def finishes(scene: Cut) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """What was put is taken and finished in both channels."""
    scene.put_one("a")
    return scene.broker.flush, in_turn(
        partial(scene.finish, "a", "x"),
        partial(scene.put_one, "a"),
        partial(scene.finish, "a", "y"),
    )


def moves_to_a_topic(scene: Cut) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Something is moved from one topic to the other, where more is put."""
    message = scene.flying_beside_others()
    return scene.broker.flush, in_turn(
        partial(scene.move_on, message, "b", None), partial(scene.put_one, "b")
    )


def moves_to_a_channel(scene: Cut) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Something is moved to a channel, and finished there."""
    message = scene.flying_beside_others()
    return scene.broker.flush, in_turn(
        partial(scene.move_on, message, "b", "x"), partial(scene.finish, "b", "x")
    )


def deletes(scene: Cut) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A topic with messages is deleted, and made anew."""
    scene.put_one("a")
    scene.finish("a", "x")
    return scene.broker.flush, in_turn(
        partial(scene.delete_topic, "a"),
        partial(scene.channel, "a", "x"),
        partial(scene.put_one, "a"),
    )


def steers(scene: Cut) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A topic is paused, put to, emptied and put to again."""
    scene.put_one("a")
    scene.finish("a", "x")
    return scene.broker.flush, in_turn(
        partial(scene.steer_topic, "a", "pause"),
        partial(scene.put_one, "a"),
        partial(scene.empty_topic, "a"),
        partial(scene.put_one, "a"),
        partial(scene.steer_topic, "a", "unpause"),
    )


SCRIPTS: Final[dict[str, Script]] = {
    script.__name__: script
    for script in (puts, finishes, moves_to_a_topic, moves_to_a_channel, deletes, steers)
}


class Cutting(Exploration):
    """The schedules of two calls, and what came of them in a store."""

    def _play(self, schedule: Schedule) -> tuple[Run, str]:
        with (
            mock.patch.object(threading, "Lock", partial(StagedSemaphore, self._scheduler)),
            mock.patch.object(threading.Thread, "start", return_value=None),
        ):
            return super()._play(schedule)


def explore(traced: Path, script: str, sync: str, attempts: str, most: int) -> None:
    modes = {"sync": sync, "attempts": attempts, "mem_queue_size": 3}
    with Scheduler(traced) as scheduler, undisturbed():
        found = Cutting(scheduler, lambda _: Cut(modes, SCRIPTS[script]))
        found.run_some(most)
    FOUND.clear()
    assert {EXPLAINED} == set(found.right), found.right
    assert {} == found.faults, f"{len(found.faults)} in {found.runs} of {found.total} schedules"


@pytest.mark.parametrize(
    ("script", "sync"),
    [
        ("puts", "normal"),
        ("finishes", "normal"),
        ("moves_to_a_topic", "interval"),
        ("moves_to_a_channel", "interval"),
    ],
)
def test_each_cut_is_explained(script: str, sync: str) -> None:
    """Whatever changes beside a flush, a cut is what was at one moment, and what was told."""
    explore(PACKAGE / "store", script, sync, "late", SOME)


@pytest.mark.soak
@pytest.mark.parametrize("attempts", ["late", "durable"])
@pytest.mark.parametrize("sync", ["normal", "interval"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_each_cut_of_many_is_explained(script: str, sync: str, attempts: str) -> None:
    """So it is at every place of the package, and in many schedules with two preemptions."""
    explore(PACKAGE, script, sync, attempts, MANY)
