"""What a task awaits that another thread does."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from helpers import Call
from store.stores import Scene, throw

from aio.loops import begin, in_loop, outcome, turns
from nsqlite.aio.told import Told, by_store


@in_loop
async def test_it_is_told_by_any_thread() -> None:
    """Who waits goes on when another thread tells, once."""
    told = Told()
    task = await begin(asyncio.wait_for(told.future, 20))
    assert not task.done()
    Call(told.tell).result()
    assert await task is None
    told.tell(ValueError("too late"))
    await turns()
    assert told.future.result() is None


@in_loop
async def test_a_problem_is_raised() -> None:
    """Who waits gets what went wrong."""
    told = Told()
    problem = ValueError("no")
    Call(lambda: told.tell(problem)).result()
    with pytest.raises(ValueError, match="no") as info:
        await told.future
    assert problem is info.value


@in_loop
async def test_who_gave_up_hears_nothing() -> None:
    """After a cancellation it does no harm to tell."""
    told = Told()
    told.future.cancel()
    told.tell()
    told.tell(ValueError("no"))
    await turns()
    assert told.future.cancelled()


def test_a_closed_loop_cannot_be_told() -> None:
    """The one who tells finds that nobody is there."""

    async def make() -> Told:
        return Told()

    told = asyncio.run(make())
    with pytest.raises(RuntimeError):
        told.tell()


def test_an_errand_is_done_by_the_stores_thread(tmp_path: Path) -> None:
    """`by_store` returns when it is done, by another thread, or raises what it raised."""
    with Scene(tmp_path / "jobs.db") as scene:
        shelf: Any = scene.channel()._flow.shelf
        threads: list[str] = []

        async def errands() -> None:
            await by_store(shelf, lambda: threads.append(threading.current_thread().name))
            with pytest.raises(LookupError):
                await by_store(shelf, throw(LookupError()))

        asyncio.run(errands())
        assert [f"nsqlite store {tmp_path / 'jobs.db'}"] == threads


def test_a_cancelled_errand_is_done_all_the_same(tmp_path: Path) -> None:
    """Who gave up waiting does not stop the store's thread."""
    with Scene(tmp_path / "jobs.db") as scene:
        shelf: Any = scene.channel()._flow.shelf
        begun, over, done = threading.Event(), threading.Event(), threading.Event()

        def errand() -> None:
            begun.set()
            assert over.wait(20)
            done.set()

        async def give_up() -> None:
            task = asyncio.ensure_future(by_store(shelf, errand))
            await asyncio.get_running_loop().run_in_executor(None, begun.wait, 20)
            task.cancel()
            assert isinstance(await outcome(task), asyncio.CancelledError)
            over.set()

        asyncio.run(give_up())
        assert done.wait(20)
