"""How a task waits: who wakes it, from where, by what time, and when its loop is over."""

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from helpers import PATIENCE, Call
from store.stores import Scene as Kept
from store.stores import throw

import nsqlite
from aio.loops import Elsewhere, abandoned, begin, in_loop, outcome, timers, turns
from nsqlite import Consumer, Empty, Full, NotAsyncio, Topic, aio
from nsqlite.aio.waiting import DeadlineTimer, Done, TaskWaiter, _go_off, by_store
from nsqlite.clock import NEVER, SYSTEM, Alarm, Loop
from nsqlite.monitor import Monitor
from nsqlite.options import SECOND
from nsqlite.testing import ManualClock
from nsqlite.waiting import Waiter

# A call that waits


class Scene:
    """A monitor, a clock, and who was given up."""

    def __init__(self) -> None:
        self.monitor = Monitor()
        self.clock = ManualClock()
        self.given_up: list[Waiter[Any]] = []

    def waiter(self) -> TaskWaiter[Any]:
        return TaskWaiter("get", self.monitor, self.clock, self.given_up.append)

    def notify(self, waiter: TaskWaiter[Any]) -> None:
        """Notify under the lock, as whoever changes something does."""
        self.monitor.run(waiter.notify)


async def asleep(waiter: TaskWaiter[Any]) -> None:
    """Sleep until a waiter is woken."""
    await waiter.sleep()


@pytest.mark.parametrize("error", [NotAsyncio, RuntimeError])
def test_who_waits_needs_a_loop(error: type[Exception]) -> None:
    """Who waits with `await` must be in a running loop of asyncio."""
    with pytest.raises(error) as info:
        Scene().waiter()
    assert (
        "get() needs a running event loop of asyncio (trio and curio have other ones): use"
        " asyncio.run(), or nsqlite.Consumer in a thread" == str(info.value)
    )


@in_loop
async def test_who_waits_belongs_to_a_loop() -> None:
    """A waiter belongs to the running loop, and has no lock to sleep on."""
    scene = Scene()
    waiter = scene.waiter()
    assert asyncio.get_running_loop() is waiter.loop
    assert (None, None, None) == (waiter.semaphore, waiter.owner, waiter.message)
    assert not waiter.gone


@in_loop
async def test_a_notification_only_notes_the_name() -> None:
    """A notification under the lock notes once whom to wake, and runs nothing of the loop."""
    scene = Scene()
    waiter = scene.waiter()
    task = await begin(asleep(waiter))

    def notify() -> None:
        waiter.notify()
        waiter.notify()
        assert [waiter] == list(scene.monitor.woken)
        assert not waiter._woken

    scene.monitor.run(notify)
    assert waiter._woken
    assert 0 == len(scene.monitor.woken)
    assert await outcome(task) is None


@in_loop
async def test_a_notification_is_kept_until_somebody_listens() -> None:
    """A waiter that was notified does not sleep until it has listened."""
    scene = Scene()
    waiter = scene.waiter()
    scene.notify(waiter)
    scene.notify(waiter)
    for _ in "12":
        assert (await begin(asleep(waiter))).done()
    waiter.listen()
    task = await begin(asleep(waiter))
    assert not task.done()
    scene.notify(waiter)
    scene.notify(waiter)
    await task


@in_loop
async def test_another_thread_wakes() -> None:
    """A thread that notifies wakes a task of the loop."""
    scene = Scene()
    waiter = scene.waiter()
    task = await begin(asleep(waiter))
    Call(lambda: scene.notify(waiter)).result()
    await task


@in_loop
async def test_another_loop_wakes() -> None:
    """A task of one loop that notifies wakes a task of another."""
    scene = Scene()
    waiter = scene.waiter()
    task = await begin(asleep(waiter))

    async def notify() -> None:
        scene.notify(waiter)

    with Elsewhere() as elsewhere:
        elsewhere.run(notify())
    await task


@in_loop
async def test_a_cancelled_sleep_is_over() -> None:
    """A sleep that is cancelled is over; a late notification does no harm."""
    scene = Scene()
    waiter = scene.waiter()
    task = await begin(asleep(waiter))
    task.cancel()
    assert isinstance(await outcome(task), asyncio.CancelledError)
    scene.notify(waiter)
    assert 0 == len(scene.monitor.woken)


@in_loop
async def test_a_notification_after_a_cancellation() -> None:
    """A notification between the cancellation of a sleep and its end leaves it cancelled."""
    scene = Scene()
    waiter = scene.waiter()
    task = await begin(asleep(waiter))
    task.cancel()
    scene.notify(waiter)
    assert isinstance(await outcome(task), asyncio.CancelledError)


def test_a_closed_loop_gives_up() -> None:
    """A waiter whose loop is closed is given up, and takes nothing any more."""
    scene = Scene()
    waiters: list[TaskWaiter[Any]] = []

    async def wait() -> None:
        waiters.append(scene.waiter())
        await waiters[0].sleep()

    task = abandoned(wait)
    scene.notify(waiters[0])
    assert [waiters[0]] == scene.given_up
    assert (True, False) == (waiters[0].gone, task.done())


def test_giving_up_may_notify_others() -> None:
    """Who is given up in the middle of waking lets others be woken by who is waking."""
    scene = Scene()
    order: list[str] = []

    def give_up(_: Waiter[Any]) -> None:
        for waiter in awake:
            scene.notify(waiter)
        order.append("given up")

    async def wait(name: str, waiter: TaskWaiter[Any]) -> None:
        await waiter.sleep()
        order.append(name)

    closed: list[TaskWaiter[Any]] = []
    awake: list[TaskWaiter[Any]] = []

    async def wait_in_vain() -> None:
        closed.append(TaskWaiter("get", scene.monitor, scene.clock, give_up))
        await wait("in vain", closed[0])

    task = abandoned(wait_in_vain)

    async def main() -> None:
        awake.append(scene.waiter())
        waiting = await begin(wait("woken", awake[0]))
        scene.notify(closed[0])
        assert 0 == len(scene.monitor.woken)
        await waiting

    asyncio.run(main())
    assert ["given up", "woken"] == order
    assert not task.done()


@in_loop
async def test_who_is_over_is_kept_alive_by_nothing() -> None:
    """When a waiter has ended, forgetting it frees it at once."""
    scene = Scene()
    waiter = scene.waiter()
    gone = weakref.ref(waiter)
    gc.disable()
    try:
        waiter.end()
        scene.notify(waiter)
        del waiter
        assert gone() is None
    finally:
        gc.enable()


# The monitor, which wakes


class Remote:
    """Somebody who waits in a loop, and does something when woken."""

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake

    def wake(self) -> None:
        self._wake()

    def __repr__(self) -> str:
        return "<Remote>"


def wake_all(monitor: Monitor, *remotes: Remote) -> None:
    def notify() -> None:
        for remote in remotes:
            monitor.wake_later(remote)

    monitor.run(notify)


def test_waking_is_done_without_the_lock() -> None:
    """Who was notified is woken after the lock, in order; then all is calm."""
    monitor = Monitor()
    seen: list[tuple[int, bool]] = []

    def waker(number: int) -> Remote:
        return Remote(lambda: seen.append((number, monitor.lock.owned())))

    wake_all(monitor, waker(1), waker(2))
    assert [(1, False), (2, False)] == seen
    assert (False, 0) == (monitor.after, len(monitor.woken))


def test_a_failure_to_wake_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Who cannot be woken is named in the log, and the next one is woken."""
    monitor = Monitor()
    seen: list[int] = []
    wake_all(monitor, Remote(lambda: 1 / 0), Remote(lambda: seen.append(2)))
    assert [2] == seen
    [record] = caplog.records
    assert ("<Remote> could not be woken", logging.ERROR) == (
        record.getMessage(),
        record.levelno,
    )


def test_what_a_signal_throws_into_a_waking() -> None:
    """Who was being woken when a signal struck is woken all the same, and the exception goes on."""
    for thrown in (KeyboardInterrupt, ZeroDivisionError):
        monitor = Monitor()
        seen: list[int] = []

        def wake(seen: list[int] = seen, thrown: type[BaseException] = thrown) -> None:
            seen.append(len(seen))
            if len(seen) == 1:
                raise thrown

        with pytest.raises(thrown):
            wake_all(monitor, Remote(wake))
        assert [0, 1] == seen[:2]
        assert (False, 0) == (monitor.after, len(monitor.woken))


def test_threads_wake_each_for_themselves() -> None:
    """While a thread wakes, another one wakes whom it has notified."""
    monitor = Monitor()
    seen: list[str] = []

    def wake() -> None:
        Call(lambda: wake_all(monitor, Remote(lambda: seen.append("second")))).result(PATIENCE)
        seen.append("first")

    wake_all(monitor, Remote(wake))
    assert ["second", "first"] == seen


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

    async def make() -> tuple[TaskWaiter[Any], DeadlineTimer]:
        loop = asyncio.get_running_loop()
        return scene.waiter(), DeadlineTimer(channel._queue, topic._monitor, scene.clock, loop)

    def strike(*_: Any) -> NoReturn:
        raise RuntimeError

    loop: Any = asyncio.new_event_loop()
    loop.call_soon_threadsafe = strike
    try:
        waiter, timer = loop.run_until_complete(make())
        for wake in (waiter.wake, timer.wake):
            with pytest.raises(RuntimeError):
                wake()
    finally:
        loop.close()
    assert [] == scene.given_up


# A channel's timer in a loop: one at most, and none while nobody waits


class Alarms(ManualClock):
    """A clock that notes for which moments, in seconds, it was given an alarm."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[float] = []

    def alarm(self, loop: Loop, moment: int, callback: Callable[[], object]) -> Alarm:
        self.moments.append(moment / SECOND)
        return super().alarm(loop, moment, callback)

    def set_now(self) -> list[float]:
        """Return the moments of the alarms that are set."""
        return sorted(sleep.due / SECOND for sleep in self._sleeps)


class Counting(asyncio.SelectorEventLoop):
    """A loop that counts how many timers were ever set at a time."""

    most = 0

    def call_at(self, when: float, *what: Any, **options: Any) -> asyncio.TimerHandle:  # type: ignore[override]  # not ours to name
        handle = super().call_at(when, *what, **options)
        self.most = max(self.most, timers(self))
        return handle


class Early(asyncio.SelectorEventLoop):
    """A loop whose timers go off too early, by a part of what is left, as those of some do."""

    def call_later(self, delay: float, *what: Any, **options: Any) -> asyncio.TimerHandle:  # type: ignore[override]  # not ours to name
        return super().call_later(delay * 0.75, *what, **options)


def timer_of(consumer: aio.Consumer[Any]) -> DeadlineTimer:
    """Return the only timer of a consumer's channel."""
    [timer] = consumer.channel._queue.waiters.timers.values()
    assert isinstance(timer, DeadlineTimer)
    return timer


@in_loop
async def test_nobody_waits_so_no_timer_is_set() -> None:
    """Without a get that waits there is no timer, whatever is due; nor if nothing is due."""
    clock = Alarms()
    topic = Topic("orders", clock=clock)
    consumer = aio.Consumer(topic.channel("billing"))
    topic.put(b"1", delay=5)
    assert [] == clock.moments
    topic.channel("billing").empty()
    task = await begin(consumer.get())
    assert [] == clock.moments
    topic.put(b"3")
    await task


@in_loop
async def test_one_timer_for_all_who_wait() -> None:
    """However many wait for a channel, there is one timer, for its next deadline."""
    clock = Alarms()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumers = [aio.Consumer(channel) for _ in range(3)]
    topic.put(b"1", delay=5)
    tasks = [await begin(consumer.get()) for consumer in consumers for _ in "12"]
    assert [5.0] == clock.set_now()
    topic.put(b"2", delay=3)
    assert [3.0] == clock.set_now()
    topic.put(b"3", delay=4)
    assert [3.0] == clock.set_now()
    clock.advance(3)
    await turns()
    assert b"2" == tasks[0].result().body
    assert [4.0] == clock.set_now()
    channel.close()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [] == clock.set_now()


@in_loop
async def test_a_get_has_a_timer_of_its_own_for_its_timeout() -> None:
    """Besides the channel's timer there is one for each get that has a timeout."""
    clock = Alarms()
    topic = Topic("orders", clock=clock)
    consumer = aio.Consumer(topic.channel("billing"))
    topic.put(b"1", delay=5)
    first = await begin(consumer.get(timeout=7))
    second = await begin(consumer.get(timeout=8))
    assert [5.0, 7.0, 8.0] == clock.set_now()
    clock.advance(5)
    await first
    clock.advance(3)
    await outcome(second)
    assert [] == clock.set_now()


@in_loop
async def test_the_last_to_leave_calls_the_timer_off() -> None:
    """The timer stays set as long as somebody waits."""
    clock = Alarms()
    topic = Topic("orders", clock=clock)
    consumer = aio.Consumer(topic.channel("billing"))
    topic.put(b"1", delay=5)
    tasks = [await begin(consumer.get()) for _ in "12"]
    timer = timer_of(consumer)
    for waiters, moments in ((2, [5.0]), (1, [5.0]), (0, [])):
        assert (waiters, moments) == (len(timer.waiters), clock.set_now())
        if tasks:
            tasks[0].cancel()
            await outcome(tasks.pop(0))
    assert [5.0] == clock.moments


def test_timers_of_a_real_loop() -> None:
    """In real time, too, a channel has one timer in a loop at most."""

    async def main() -> None:
        topic = Topic("orders", resolution=0.001)
        channel = topic.channel("billing")
        consumers = [aio.Consumer(channel) for _ in range(4)]
        topic.put(b"0")
        Consumer(channel, msg_timeout=0.015).get(timeout=0)
        tasks = [await begin(consumer.get()) for consumer in consumers]
        topic.put(b"1", delay=0.01)
        topic.put(b"2", delay=0.005)
        topic.put(b"3")
        found = await asyncio.gather(*tasks)
        assert [(b"0", 2), (b"1", 1), (b"2", 1), (b"3", 1)] == sorted(
            (message.body, message.attempts) for message in found
        )
        assert timers(asyncio.get_running_loop()) <= 1  # for who waits next

    with asyncio.Runner(loop_factory=Counting) as runner:
        runner.run(main())
        loop = runner.get_loop()
        assert isinstance(loop, Counting)
        assert loop.most <= 1


def test_a_loop_that_calls_too_early() -> None:
    """A timer that goes off before its moment is set again for what is left."""

    async def main() -> None:
        topic = Topic("orders", resolution=0.001)
        consumer = aio.Consumer(topic.channel("billing"))
        topic.put(b"1", delay=0.01)
        assert b"1" == (await asyncio.wait_for(consumer.get(), PATIENCE)).body
        with pytest.raises(Empty):
            await consumer.get(timeout=0.01)
        assert not await aio.join(topic, timeout=0.01)
        narrow = Topic("narrow", max_depth=1)
        narrow.put(b"1")
        with pytest.raises(Full):
            await aio.put(narrow, b"2", timeout=0.01)

    with asyncio.Runner(loop_factory=Early) as runner:
        runner.run(main())


def test_a_loop_where_nobody_waits_is_left_alone() -> None:
    """A deadline that another thread brings wakes a loop only while somebody waits there."""

    class Undisturbed(asyncio.SelectorEventLoop):
        """A loop that counts how often it was called from outside."""

        calls = 0

        def call_soon_threadsafe(self, *what: Any, **options: Any) -> asyncio.Handle:  # type: ignore[override]  # not ours to name
            self.calls += 1
            return super().call_soon_threadsafe(*what, **options)

    clock = Alarms()
    topic = Topic("orders", clock=clock)
    consumer = aio.Consumer(topic.channel("billing"))
    loop = Undisturbed()
    try:
        task = loop.run_until_complete(begin(consumer.get()))
        before = loop.calls
        topic.put(b"1", delay=9)
        assert 1 == loop.calls - before
        task.cancel()
        loop.run_until_complete(outcome(task))
        before = loop.calls
        topic.put(b"2", delay=5)
        assert 0 == loop.calls - before
    finally:
        loop.close()


@in_loop
async def test_each_loop_has_its_own() -> None:
    """Two loops that wait for one channel have a timer each, and each looks for itself."""
    clock = Alarms()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = aio.Consumer(channel)
    topic.put_many([b"1", b"2"], delay=5)
    here = await begin(consumer.get())
    with Elsewhere() as elsewhere:
        there = elsewhere.begin(consumer.get())
        assert [5.0, 5.0] == clock.set_now()
        assert [False, False] == [
            timer.is_closed()
            for timer in channel._queue.waiters.timers.values()
            if isinstance(timer, DeadlineTimer)
        ]
        clock.advance(5)
        assert [b"1", b"2"] == [(await here).body, elsewhere.outcome(there).body]
        elsewhere.run(turns())
        assert [] == clock.set_now()


@in_loop
async def test_an_earlier_deadline_from_another_thread() -> None:
    """Another thread that brings an earlier deadline has the loop set its timer anew."""
    clock = Alarms()
    topic = Topic("orders", clock=clock)
    consumer = aio.Consumer(topic.channel("billing"))
    topic.put(b"1", delay=5)
    task = await begin(consumer.get())
    Call(lambda: topic.put(b"2", delay=2)).result()
    assert [5.0] == clock.set_now()
    await turns()
    assert [2.0] == clock.set_now()
    Call(lambda: clock.advance(2)).result()
    assert b"2" == (await task).body


@in_loop
async def test_what_a_thread_holds() -> None:
    """What a thread holds times out to a task that waits, though nobody else comes by."""
    topic = Topic("orders", resolution=0.001)
    channel = topic.channel("billing")
    topic.put(b"1")
    Call(Consumer(channel, msg_timeout=0.005).get).result()
    message = await aio.Consumer(channel).get(timeout=PATIENCE)
    assert (b"1", 2) == (message.body, message.attempts)


@in_loop
async def test_a_look_too_late_or_for_nothing() -> None:
    """A timer that is woken when nothing is due, or nobody waits any more, does no harm."""
    clock = Alarms()
    topic = Topic("orders", clock=clock)
    consumer = aio.Consumer(topic.channel("billing"))
    topic.put(b"1", delay=5)
    task = await begin(consumer.get())
    timer = timer_of(consumer)
    timer.wake()
    assert [5.0] == clock.set_now()
    task.cancel()
    await outcome(task)
    timer.wake()
    Call(timer.wake).result()
    await turns()
    assert (NEVER, []) == (timer.moment, clock.set_now())


@in_loop
async def test_alarms_do_not_pile_up() -> None:
    """An alarm that has gone off is forgotten by the clock."""
    clock = Alarms()
    topic = Topic("orders", clock=clock)
    consumer = aio.Consumer(topic.channel("billing"))
    for _ in range(3):
        topic.put(b"1", delay=1)
        task = await begin(consumer.get(timeout=2))
        clock.advance(1)
        (await task).fin()
        assert {} == clock._sleeps


@pytest.mark.nsqlite(leaks=False)  # a task of a closed loop waits for ever
@pytest.mark.parametrize("how", ["notify", "alarm"])
def test_a_closed_loop_looks_no_more(how: str) -> None:
    """A timer whose loop is closed is called off when it is woken, and is notified no more."""
    clock = Alarms()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = aio.Consumer(channel)
    topic.put(b"1", delay=5)
    task = abandoned(consumer.get)
    timer = timer_of(consumer)
    assert (True, 1, [5.0]) == (timer.is_closed(), len(timer.waiters), clock.set_now())
    if how == "notify":
        topic.put(b"2", delay=2)
    else:
        clock.advance(5)
    assert [] == clock.set_now()
    woken = len(topic._monitor.woken)
    timer.notify()
    topic.put(b"3", delay=1)
    assert (0, 0) == (woken, len(topic._monitor.woken))
    assert not task.done()


def test_closed_loops_are_forgotten() -> None:
    """When another loop waits for the channel, the timers of closed loops are forgotten."""
    topic = Topic("orders", clock=ManualClock())
    channel = topic.channel("billing")
    consumer = aio.Consumer(channel)
    topic.put_many([1, 2, 3])

    async def main() -> None:
        task = await begin(consumer.get(timeout=5))
        topic.put(b"1")
        (await task).fin()

    channel.empty()
    for _ in range(3):
        asyncio.run(main())
        assert 1 == len(channel._queue.waiters.timers)


# What another thread does


@in_loop
async def test_it_is_told_by_any_thread() -> None:
    """Who waits goes on when another thread tells, once."""
    done = Done("put")
    task = await begin(asyncio.wait_for(done.future, 20))
    assert not task.done()
    Call(done.tell).result()
    assert await task is None
    done.tell(ValueError("too late"))
    await turns()
    assert done.future.result() is None


@in_loop
async def test_a_problem_is_raised() -> None:
    """Who waits gets what went wrong."""
    done = Done("put")
    problem = ValueError("no")
    Call(lambda: done.tell(problem)).result()
    with pytest.raises(ValueError, match="no") as info:
        await done.future
    assert problem is info.value


@in_loop
async def test_who_gave_up_hears_nothing() -> None:
    """After a cancellation it does no harm to tell."""
    done = Done("put")
    done.future.cancel()
    done.tell()
    done.tell(ValueError("no"))
    await turns()
    assert done.future.cancelled()


def test_a_closed_loop_cannot_be_told() -> None:
    """The one who tells finds that nobody is there."""

    async def make() -> Done:
        return Done("put")

    done = asyncio.run(make())
    with pytest.raises(RuntimeError):
        done.tell()


@in_loop
async def test_who_is_struck_as_he_tells_leaves_nobody_asleep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another thread may count on it that the loop is called already."""
    struck, other = Done("put"), Done("put")
    loop = asyncio.get_running_loop()
    call = loop.call_soon_threadsafe

    def strike(*_: Any) -> None:
        monkeypatch.undo()
        Call(other.tell).result()
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "call_soon_threadsafe", strike)
    with pytest.raises(KeyboardInterrupt):
        struck.tell()
    monkeypatch.setattr(loop, "call_soon_threadsafe", call)
    await asyncio.wait_for(asyncio.gather(struck.future, other.future), 20)


def test_an_errand_is_done_by_the_stores_thread(tmp_path: Path) -> None:
    """`by_store` returns when it is done, by another thread, or raises what it raised."""
    with Kept(tmp_path / "jobs.db") as scene:
        persistence: Any = scene.channel()._queue.persistence
        threads: list[str] = []

        async def errands() -> None:
            await by_store(
                persistence.send, lambda: threads.append(threading.current_thread().name), "get"
            )
            with pytest.raises(LookupError):
                await by_store(persistence.send, throw(LookupError()), "get")

        asyncio.run(errands())
        assert [f"nsqlite store {tmp_path / 'jobs.db'}"] == threads


def test_a_cancelled_errand_is_done_all_the_same(tmp_path: Path) -> None:
    """Who gave up waiting does not stop the store's thread."""
    with Kept(tmp_path / "jobs.db") as scene:
        persistence: Any = scene.channel()._queue.persistence
        begun, over, ended = threading.Event(), threading.Event(), threading.Event()

        def errand() -> None:
            begun.set()
            assert over.wait(20)
            ended.set()

        async def give_up() -> None:
            task = asyncio.ensure_future(by_store(persistence.send, errand, "get"))
            await asyncio.get_running_loop().run_in_executor(None, begun.wait, 20)
            task.cancel()
            assert isinstance(await outcome(task), asyncio.CancelledError)
            over.set()

        asyncio.run(give_up())
        assert ended.wait(20)


@in_loop
async def test_who_waits_to_be_told_in_a_loop_is_told_of_what_falls_due() -> None:
    """A loop looks for a channel's deadlines for `when_ready`, too."""
    clock = Alarms()
    topic = Topic("orders", clock=clock)
    consumer = aio.Consumer(topic.channel("billing"))
    told: list[int] = []
    topic.put(b"1", delay=5)
    consumer.when_ready(lambda: told.append(1))
    off = consumer.when_ready(lambda: told.append(2))
    assert [5.0] == clock.set_now()
    off()
    clock.advance(5)
    await turns()
    assert ([1], 0) == (told, len(timer_of(consumer).waiters))


@in_loop
async def test_a_timer_keeps_no_topic() -> None:
    """What a loop was to look for goes with a topic that is forgotten."""
    topic = Topic("orders")
    consumer = aio.Consumer(topic.channel("billing"))
    topic.put(b"1", delay=3000)
    with pytest.raises(nsqlite.Empty):
        await consumer.get(timeout=0.001)
    gone = weakref.ref(topic)
    del topic, consumer
    gc.collect()
    assert gone() is None


def test_an_alarm_of_a_timer_that_is_gone() -> None:
    """What a loop was to do for a topic that was forgotten is nothing."""

    class Gone:
        pass

    one: Any = Gone()
    reference = weakref.ref(one)
    del one
    _go_off(reference)
