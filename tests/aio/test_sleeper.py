"""A suspended call: who wakes it, from where, and what becomes of it when its loop is over."""

import asyncio
import gc
import logging
import weakref
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from helpers import PATIENCE, Call

from aio.loops import Elsewhere, abandoned, begin, in_loop, outcome, turns
from nsqlite import Topic
from nsqlite.aio.lookout import Lookout
from nsqlite.aio.sleeper import Sleeper
from nsqlite.clock import SYSTEM, Alarm, Loop
from nsqlite.guard import Guard
from nsqlite.options import SECOND
from nsqlite.testing import ManualClock


class Scene:
    """A guard, a clock, and who was given up."""

    def __init__(self) -> None:
        self.guard = Guard()
        self.clock = ManualClock()
        self.given_up: list[Sleeper[Any]] = []

    def sleeper(self) -> Sleeper[Any]:
        return Sleeper(self.guard, self.clock, self.given_up.append)

    def ring(self, sleeper: Sleeper[Any]) -> None:
        """Ring under the lock, as whoever changes something does."""
        self.guard.run(sleeper.ring)


def test_a_sleeper_needs_a_loop() -> None:
    """Who waits with `await` must be in a running loop."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        Scene().sleeper()


@in_loop
async def test_a_sleeper_is_remote() -> None:
    """A sleeper belongs to the running loop, and has no lock to sleep on."""
    scene = Scene()
    sleeper = scene.sleeper()
    assert (asyncio.get_running_loop(), True) == (sleeper.loop, sleeper.remote)
    assert (None, None, False) == (sleeper.owner, sleeper.message, sleeper.gone)
    assert not sleeper.bell.acquire(blocking=False)


@in_loop
async def test_a_ring_only_notes_the_name() -> None:
    """Under the lock a ring runs nothing of the loop; the sleeper is woken after it."""
    scene = Scene()
    sleeper = scene.sleeper()
    task = await begin(sleeper.sleep(None))

    def ring() -> None:
        sleeper.ring()
        sleeper.ring()
        assert [sleeper, sleeper] == list(scene.guard.rung)
        assert not sleeper._woken

    scene.guard.run(ring)
    assert sleeper._woken
    assert 0 == len(scene.guard.rung)
    assert await outcome(task) is None


@in_loop
async def test_a_ring_is_kept_until_somebody_listens() -> None:
    """A sleeper that was rung does not sleep until it has listened."""
    scene = Scene()
    sleeper = scene.sleeper()
    scene.ring(sleeper)
    scene.ring(sleeper)
    for _ in "12":
        assert (await begin(sleeper.sleep(None))).done()
    sleeper.listen()
    task = await begin(sleeper.sleep(None))
    assert not task.done()
    scene.ring(sleeper)
    scene.ring(sleeper)
    await task


@in_loop
async def test_another_thread_wakes() -> None:
    """A thread that rings wakes a task of the loop."""
    scene = Scene()
    sleeper = scene.sleeper()
    task = await begin(sleeper.sleep(None))
    Call(lambda: scene.ring(sleeper)).result()
    await task


@in_loop
async def test_another_loop_wakes() -> None:
    """A task of one loop that rings wakes a task of another."""
    scene = Scene()
    sleeper = scene.sleeper()
    task = await begin(sleeper.sleep(None))

    async def ring() -> None:
        scene.ring(sleeper)

    with Elsewhere() as elsewhere:
        elsewhere.run(ring())
    await task


@in_loop
async def test_a_moment_wakes() -> None:
    """A sleeper wakes at its moment, and its alarm is gone; so it is if a ring comes first."""
    scene = Scene()
    sleeper = scene.sleeper()
    task = await begin(sleeper.sleep(5 * SECOND))
    scene.clock.advance(4.999999999)
    await turns()
    assert not task.done()
    scene.clock.advance(0.000000001)
    await task
    sleeper.listen()
    task = await begin(sleeper.sleep(9 * SECOND))
    assert 1 == len(scene.clock._sleeps)
    scene.ring(sleeper)
    await task
    assert {} == scene.clock._sleeps


@in_loop
async def test_a_moment_wakes_from_another_thread() -> None:
    """Another thread that moves the clock wakes the task."""
    scene = Scene()
    task = await begin(scene.sleeper().sleep(1 * SECOND))
    Call(lambda: scene.clock.advance(1)).result()
    await task


@in_loop
async def test_a_moment_that_comes_while_the_alarm_is_set() -> None:
    """A moment that another thread has passed before the alarm was set is not waited for."""

    class Clock(ManualClock):
        """A clock that another thread moves just before somebody sets an alarm."""

        def alarm(self, loop: Loop, moment: int, callback: Callable[[], object]) -> Alarm:
            Call(lambda: self.advance(5)).result()
            return super().alarm(loop, moment, callback)

    scene = Scene()
    scene.clock = Clock()
    await scene.sleeper().sleep(5 * SECOND)
    assert {} == scene.clock._sleeps


@in_loop
async def test_a_moment_of_the_systems_clock() -> None:
    """With the system's clock the loop itself wakes, not before the moment, though it be past."""
    guard = Guard()
    sleeper: Sleeper[Any] = Sleeper(guard, SYSTEM, print)
    for ahead in (2_000_000, -2_000_000):
        moment = SYSTEM.monotonic_ns() + ahead
        sleeper.listen()
        await sleeper.sleep(moment)
        assert SYSTEM.monotonic_ns() >= moment


@in_loop
async def test_a_cancelled_sleep_leaves_nothing() -> None:
    """A sleep that is cancelled has no alarm and no future any more; a late ring does no harm."""
    scene = Scene()
    sleeper = scene.sleeper()
    task = await begin(sleeper.sleep(5 * SECOND))
    task.cancel()
    assert isinstance(await outcome(task), asyncio.CancelledError)
    assert (None, {}) == (sleeper._future, scene.clock._sleeps)
    scene.ring(sleeper)
    assert 0 == len(scene.guard.rung)


@in_loop
async def test_a_ring_after_a_cancellation() -> None:
    """A ring between the cancellation of a sleep and its end leaves it cancelled."""
    scene = Scene()
    sleeper = scene.sleeper()
    task = await begin(sleeper.sleep(None))
    task.cancel()
    scene.ring(sleeper)
    assert isinstance(await outcome(task), asyncio.CancelledError)


def test_a_closed_loop_gives_up() -> None:
    """A sleeper whose loop is closed is given up, and takes nothing any more."""
    scene = Scene()
    sleepers: list[Sleeper[Any]] = []

    async def wait() -> None:
        sleepers.append(scene.sleeper())
        await sleepers[0].sleep(None)

    task = abandoned(wait)
    scene.ring(sleepers[0])
    assert sleepers == scene.given_up
    assert (True, False) == (sleepers[0].gone, task.done())


def test_giving_up_may_ring_others() -> None:
    """Who is given up in the middle of waking lets others be woken by who is waking."""
    scene = Scene()
    order: list[str] = []

    def give_up(_: Sleeper[Any]) -> None:
        for sleeper in awake:
            scene.ring(sleeper)
        order.append("given up")

    async def wait(name: str, sleeper: Sleeper[Any]) -> None:
        await sleeper.sleep(None)
        order.append(name)

    closed: list[Sleeper[Any]] = []
    awake: list[Sleeper[Any]] = []

    async def wait_in_vain() -> None:
        closed.append(Sleeper(scene.guard, scene.clock, give_up))
        await wait("in vain", closed[0])

    task = abandoned(wait_in_vain)

    async def main() -> None:
        awake.append(scene.sleeper())
        waiting = await begin(wait("woken", awake[0]))
        scene.ring(closed[0])
        assert 0 == len(scene.guard.rung)
        await waiting

    asyncio.run(main())
    assert ["given up", "woken"] == order
    assert not task.done()


@in_loop
async def test_who_is_over_is_kept_alive_by_nothing() -> None:
    """When a sleeper has ended, forgetting it frees it at once."""
    scene = Scene()
    sleeper = scene.sleeper()
    gone = weakref.ref(sleeper)
    gc.disable()
    try:
        sleeper.end()
        sleeper.ring()
        del sleeper
        assert gone() is None
    finally:
        gc.enable()


# The guard, which wakes


class Remote:
    """Somebody who waits in a loop, and does something when woken."""

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake

    def wake(self) -> None:
        self._wake()

    def __repr__(self) -> str:
        return "<Remote>"


def ring(guard: Guard, *remotes: Remote) -> None:
    guard.run(lambda: guard.rung.extend(remotes))


def test_waking_is_done_without_the_lock() -> None:
    """Who was rung is woken after the lock, in order; then all is calm."""
    guard = Guard()
    seen: list[tuple[int, bool]] = []

    def waker(number: int) -> Remote:
        return Remote(lambda: seen.append((number, guard.lock.owned())))

    ring(guard, waker(1), waker(2))
    assert [(1, False), (2, False)] == seen
    assert (False, 0) == (guard.alert, len(guard.rung))


def test_a_failure_to_wake_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Who cannot be woken is named in the log, and the next one is woken."""
    guard = Guard()
    seen: list[int] = []
    ring(guard, Remote(lambda: 1 / 0), Remote(lambda: seen.append(2)))
    assert [2] == seen
    [record] = caplog.records
    assert ("<Remote> could not be woken", logging.ERROR) == (
        record.getMessage(),
        record.levelno,
    )


def test_what_a_signal_throws_into_a_waking() -> None:
    """Who was being woken when a signal struck is woken all the same, and the exception goes on."""
    for thrown in (KeyboardInterrupt, ZeroDivisionError):
        guard = Guard()
        seen: list[int] = []

        def wake(seen: list[int] = seen, thrown: type[BaseException] = thrown) -> None:
            seen.append(len(seen))
            if len(seen) == 1:
                raise thrown

        with pytest.raises(thrown):
            ring(guard, Remote(wake))
        assert [0, 1] == seen[:2]
        assert (False, 0) == (guard.alert, len(guard.rung))


def test_one_thread_wakes() -> None:
    """While a thread wakes, another one leaves to it whom it has rung."""
    guard = Guard()
    seen: list[str] = []

    def wake() -> None:
        Call(lambda: ring(guard, Remote(lambda: seen.append("second")))).result(PATIENCE)
        seen.append("first")

    ring(guard, Remote(wake))
    assert ["first", "second"] == seen


# The clock, which calls


def test_the_systems_alarm_is_the_loops() -> None:
    """The system's clock has the loop call after what is left, which is never less than 0."""
    delays: list[float] = []

    class Recorder:
        """A loop that calls nobody."""

        def call_later(self, delay: float, callback: Callable[[], object]) -> Alarm:
            delays.append(delay)
            return asyncio.Handle(callback, (), closed)

    closed = asyncio.new_event_loop()
    closed.close()
    loop: Loop = Recorder()
    now = SYSTEM.monotonic_ns()
    SYSTEM.alarm(loop, now + 1000 * SECOND, print).cancel()
    SYSTEM.alarm(loop, now - 1000 * SECOND, print).cancel()
    assert 0 < delays[0] <= 1000
    assert [0.0] == delays[1:]


def test_a_runtime_error_is_no_closed_loop() -> None:
    """What a signal handler throws into the waking of an open loop goes on, whatever it is."""
    scene = Scene()
    topic = Topic("orders", clock=scene.clock)
    channel = topic.channel("billing")

    async def make() -> tuple[Sleeper[Any], Lookout]:
        loop = asyncio.get_running_loop()
        return scene.sleeper(), Lookout(channel._flow, topic._guard, scene.clock, loop)

    def strike(*_: Any) -> NoReturn:
        raise RuntimeError

    loop: Any = asyncio.new_event_loop()
    loop.call_soon_threadsafe = strike
    try:
        sleeper, lookout = loop.run_until_complete(make())
        for wake in (sleeper.wake, lookout.wake):
            with pytest.raises(RuntimeError):
                wake()
    finally:
        loop.close()
    assert [] == scene.given_up
