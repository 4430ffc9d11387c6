"""Alarms: called in the loop, by any clock, and not after they were called off."""

import asyncio
import threading

from aio.loops import in_loop

from nsqlite.clock import SYSTEM
from nsqlite.options import SECOND
from nsqlite.server.alarms import LoopAlarm
from nsqlite.testing import ManualClock


@in_loop
async def test_a_clock_that_goes_by_itself() -> None:
    """It calls in the loop."""
    called = asyncio.Event()
    LoopAlarm(SYSTEM, asyncio.get_running_loop(), SYSTEM.monotonic_ns(), called.set)
    await called.wait()


@in_loop
async def test_a_clock_that_another_thread_moves() -> None:
    """The loop calls all the same."""
    clock = ManualClock()
    called = asyncio.Event()
    thread = 0

    def call() -> None:
        nonlocal thread
        thread = threading.get_ident()
        called.set()

    LoopAlarm(clock, asyncio.get_running_loop(), SECOND, call)
    mover = threading.Thread(target=clock.advance, args=(1,))
    mover.start()
    await called.wait()
    mover.join()
    assert threading.get_ident() == thread


@in_loop
async def test_a_moment_that_has_passed() -> None:
    """It is called once, though nobody moves the clock, as one that another thread moves does."""
    clock = ManualClock()
    clock.advance(2)
    called: list[int] = []
    LoopAlarm(clock, asyncio.get_running_loop(), SECOND, lambda: called.append(1))
    await asyncio.sleep(0)
    assert [1] == called
    clock.advance(1)
    await asyncio.sleep(0)
    assert [1] == called


@in_loop
async def test_what_was_called_off() -> None:
    """It is not called, not even if another thread was just about to have that done."""
    clock = ManualClock()
    called: list[int] = []
    loop = asyncio.get_running_loop()
    first = LoopAlarm(clock, loop, SECOND, lambda: called.append(1))
    second = LoopAlarm(clock, loop, SECOND, lambda: called.append(2))
    first.cancel()
    mover = threading.Thread(target=clock.advance, args=(1,))
    mover.start()
    mover.join()
    second.cancel()
    await asyncio.sleep(0)
    assert [] == called


def test_a_loop_that_is_closed() -> None:
    """Nobody is called, and the clock goes on."""
    clock = ManualClock()
    loop = asyncio.new_event_loop()
    LoopAlarm(clock, loop, SECOND, lambda: None)
    loop.close()
    clock.advance(1)
    assert 1.0 == clock.monotonic_ns() / SECOND
