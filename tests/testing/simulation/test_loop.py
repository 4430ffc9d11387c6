"""The event loop of a simulation."""

import asyncio
from typing import Any

import pytest

from nsqlite.testing import ManualClock
from nsqlite.testing.simulation.loop import SimLoop


class Scene:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.failed: list[BaseException] = []
        self.loop = SimLoop(self.clock, self.failed.append)

    def go(self) -> None:
        while self.loop.is_busy():
            self.loop.run_once()


@pytest.fixture
def scene() -> Any:
    scene = Scene()
    yield scene
    scene.loop.end()


def test_it_runs_nothing_by_itself(scene: Scene) -> None:
    """Each call of `run_once` is one callback, in their order."""
    told: list[int] = []
    for number in range(3):
        scene.loop.call_soon_threadsafe(told.append, number)
    scene.loop.run_once()
    assert [0] == told
    scene.go()
    assert [0, 1, 2] == told


def test_its_time_is_the_clock_s(scene: Scene) -> None:
    """A sleep ends when the clock comes to its moment; what is cancelled is not called."""
    told: list[object] = []

    async def sleep() -> None:
        await scene.loop.sleep(2_500_000_000)
        told.append(scene.loop.time())

    begun = scene.loop.time()
    task = scene.loop.create_task(sleep())
    scene.loop.call_later(1, told.append, "cancelled").cancel()
    scene.go()
    scene.clock.advance(2)
    scene.go()
    assert [] == told
    scene.clock.advance(0.5)
    scene.go()
    assert ([begun + 2.5], True) == (told, task.done())


def test_it_knows_its_tasks(scene: Scene) -> None:
    """Also one that has not begun."""

    async def nothing() -> None: ...

    coroutine, other = nothing(), nothing()
    scene.loop.create_task(coroutine)
    assert (True, False) == (scene.loop.has_task(coroutine), scene.loop.has_task(other))
    scene.go()
    other.close()
    assert not scene.loop.has_task(coroutine)


def test_what_nobody_hears_of_fails_the_run(scene: Scene) -> None:
    """An error in a callback, or something that is only told."""
    scene.loop.call_soon(int, "one")
    scene.go()
    scene.loop.call_exception_handler({"message": "something happened"})
    assert [ValueError, RuntimeError] == [type(error) for error in scene.failed]


def test_it_has_no_executor(scene: Scene) -> None:
    """A thread would not wait for its turn."""

    async def call() -> None:
        await asyncio.to_thread(int)

    task = scene.loop.create_task(call())
    scene.go()
    assert ("a simulation has no executor: it runs no threads but its own") == str(task.exception())


def test_its_end_cancels_what_has_not_ended(scene: Scene) -> None:
    """And lets it end."""
    told: list[str] = []

    async def wait() -> None:
        try:
            await scene.loop.create_future()
        finally:
            told.append("cancelled")

    scene.loop.create_task(wait())
    scene.go()
    scene.loop.end()
    assert (["cancelled"], True) == (told, scene.loop.is_closed())
