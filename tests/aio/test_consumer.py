"""A consumer in asyncio: who is served, from where, and what a get leaves that came to nothing."""

import asyncio
import gc
import inspect
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from datetime import timedelta
from itertools import permutations
from pathlib import Path
from typing import Any, NoReturn

import pytest
from helpers import PATIENCE, Call, TellingManualClock
from store.stores import Scene as Kept

import nsqlite
from aio.loops import (
    Elsewhere,
    LastMoment,
    abandoned,
    begin,
    cancel_all,
    in_loop,
    outcome,
    traces,
    turns,
)
from nsqlite import (
    Closed,
    Empty,
    InvalidOption,
    NotAsyncio,
    NotInFlight,
    Reentered,
    Seconds,
    State,
    StoreFull,
    Topic,
    WindowFull,
    aio,
)
from nsqlite.aio.consumer import _lose
from nsqlite.aio.waiting import TaskWaiter
from nsqlite.clock import Semaphore
from nsqlite.testing import ManualClock
from nsqlite.timeline import Recorder
from nsqlite.waiting import ThreadWaiter


class Scene:
    """A topic with one channel on a manual clock, and a consumer."""

    def __init__(self, **options: Any) -> None:
        self.clock = LastMoment()
        self.topic: Topic[Any] = Topic("orders", clock=self.clock)
        self.channel = self.topic.channel("billing")
        self.consumer = self.another(**options)

    def another(self, **options: Any) -> aio.Consumer[Any]:
        return aio.Consumer(self.channel, **options)

    def thread(self) -> Call:
        """Return a get in a thread, which waits."""
        call = Call(nsqlite.Consumer(self.channel).get)
        self.clock.until_waiting()
        return call

    def ready(self) -> list[tuple[Any, int]]:
        """Return the bodies and attempts of what is ready."""
        return [(info.body, info.attempts) for info in self.channel.peek(100)]


# Served


@in_loop
async def test_a_get_that_need_not_wait_does_not_suspend() -> None:
    """A get returns what is ready without a turn of the loop, the long way and the short one."""
    scene = Scene()
    scene.topic.put_many([1, 2, 3])
    for body in (1, 2, 3):
        coroutine = scene.consumer.get()
        with pytest.raises(StopIteration) as info:
            coroutine.send(None)
        assert (body, 1) == (info.value.value.body, info.value.value.attempts)
    assert {} == traces(scene.topic)


def test_who_waits_needs_a_loop() -> None:
    """A get with a timeout of 0 can be made where no loop runs; one that has to wait cannot."""
    scene = Scene()
    with pytest.raises(Empty):
        scene.consumer.get(timeout=0).send(None)
    with pytest.raises(NotAsyncio) as info:
        scene.consumer.get().send(None)
    assert "get" == info.value.call
    assert {} == traces(scene.topic)


@in_loop
async def test_a_get_waits_for_a_put_of_its_loop() -> None:
    """A get that waits is handed what another task puts."""
    scene = Scene()
    task = await begin(scene.consumer.get())
    assert 1 == len(scene.channel._queue.waiters.able)
    scene.topic.put(b"1")
    message = await task
    assert (b"1", 1, State.IN_FLIGHT) == (message.body, message.attempts, message.state)
    assert {} == traces(scene.topic)


@in_loop
async def test_a_get_waits_for_a_put_of_a_thread() -> None:
    """A get that waits is handed what another thread puts."""
    scene = Scene()
    task = await begin(scene.consumer.get())
    Call(lambda: scene.topic.put(b"1")).result()
    assert b"1" == (await task).body
    assert {} == traces(scene.topic)


@in_loop
async def test_a_get_that_waits_takes_one_turn() -> None:
    """A task that was handed a message goes on at the loop's next turn."""
    scene = Scene()
    task = await begin(scene.consumer.get())
    scene.topic.put(b"1")
    await asyncio.sleep(0)
    assert task.done()


@pytest.mark.parametrize("first", ["thread", "task"])
def test_able_first_served(first: str) -> None:
    """Threads and the tasks of two loops are served in the order in which they came."""
    scene = Scene()

    async def main() -> list[Any]:
        with Elsewhere() as elsewhere:
            waits: list[Any] = []
            kinds = ["thread", "task", "thread", "elsewhere", "task", "thread", "elsewhere"]
            for kind in kinds if first == "thread" else reversed(kinds):
                if kind == "thread":
                    waits.append(scene.thread())
                elif kind == "task":
                    waits.append(await begin(scene.consumer.get()))
                else:
                    waits.append(elsewhere.begin(scene.consumer.get()))
            scene.topic._check()
            for body in range(4):
                scene.topic.put(body)
            scene.topic.put_many([4, 5, 6])
            found = []
            for wait in waits:
                if isinstance(wait, Call):
                    found.append(wait.result())
                elif wait.get_loop() is elsewhere.loop:
                    found.append(elsewhere.outcome(wait))
                else:
                    found.append(await wait)
            return [message.body for message in found]

    assert [0, 1, 2, 3, 4, 5, 6] == asyncio.run(main())
    assert {} == traces(scene.topic)


def test_a_consumer_is_of_no_loop() -> None:
    """A consumer made where there is no loop is used in one loop after the other, and in two."""
    scene = Scene()
    for body in (b"1", b"2"):

        async def get(body: bytes) -> Any:
            task = await begin(scene.consumer.get())
            scene.topic.put(body)
            return (await task).body

        assert body == asyncio.run(get(body))
    with Elsewhere() as one, Elsewhere() as other:
        tasks = [(loop, loop.begin(scene.consumer.get())) for loop in (one, other)]
        scene.topic.put_many([b"3", b"4"])
        assert [b"3", b"4"] == [loop.outcome(task).body for loop, task in tasks]
    assert 4 == scene.consumer.in_flight_count
    assert {} == traces(scene.topic)


@pytest.mark.parametrize("wake", ["req", "timeout", "unpause", "due", "window", "close", "rdy"])
@in_loop
async def test_a_get_is_woken(wake: str) -> None:
    """A get that waits is woken by whatever makes a message ready for it."""
    scene = Scene(max_in_flight=1)
    other = scene.another()
    full = wake in ("window", "rdy")
    scene.topic.put(b"1")
    held = await (scene.consumer if full else other).get()
    if full:
        scene.topic.put(b"1")
    elif wake == "due":
        held.req(delay=5)
    elif wake == "unpause":
        scene.channel.pause()
        held.req()
    task = await begin(scene.consumer.get())
    assert not task.done()
    scene.topic._check()
    if wake == "req":
        held.req()
    elif wake in ("timeout", "due"):
        scene.clock.advance(60)
    elif wake == "unpause":
        scene.channel.unpause()
    elif wake == "window":
        held.fin()
    elif wake == "rdy":
        scene.consumer.rdy(2)
    else:
        other.close()
    message = await task
    assert (b"1", 1 if full else 2) == (message.body, message.attempts)
    assert {} == traces(scene.topic)


@in_loop
async def test_a_full_window_is_not_in_line() -> None:
    """A message goes past a task whose consumer could not take it."""
    scene = Scene(max_in_flight=1)
    scene.topic.put(b"0")
    held = await scene.consumer.get()
    parked = [await begin(scene.consumer.get()) for _ in "12"]
    free = await begin(scene.another().get())
    scene.topic.put(b"1")
    assert b"1" == (await free).body
    scene.topic.put_many([b"2", b"3"])
    held.fin()
    assert b"2" == (await parked[0]).body
    assert not parked[1].done()
    (await parked[0]).fin()
    assert b"3" == (await parked[1]).body
    assert {} == traces(scene.topic)


@in_loop
async def test_answers_are_plain_calls() -> None:
    """Fin, req, touch, move and close are called, not awaited."""
    scene = Scene(msg_timeout=5)
    elsewhere = scene.topic.channel("elsewhere")
    scene.topic.put_many([1, 2, 3, 4])
    first, second, third, fourth = await scene.consumer.get_many(4)
    scene.clock.advance(4)
    scene.consumer.touch(fourth)
    finish: Any = scene.consumer.fin
    assert not inspect.isawaitable(finish(first))
    scene.consumer.req(second)
    assert 16 == len(scene.consumer.move(third, elsewhere, 5))
    scene.clock.advance(4)
    assert State.IN_FLIGHT == fourth.state
    with pytest.raises(NotInFlight):
        first.touch()
    scene.consumer.close()
    assert [(4, 1), (2, 1)] == scene.ready()
    assert [1, 2, 3, 4, 5] == [info.body for info in elsewhere.peek()]


# In real time


@in_loop
async def test_real_timeouts() -> None:
    """On the system's clock a get ends with its timeout, and a time-out or deferral wakes it."""
    topic = Topic("orders", resolution=0.001)
    consumer = aio.Consumer(topic.channel("billing"))
    with pytest.raises(Empty):
        await consumer.get(timeout=0.002)
    topic.put(b"1", delay=0.002)
    first = await consumer.get()
    first.req()
    await aio.Consumer(topic.channel("billing"), msg_timeout=0.002).get()
    assert [1, 3] == [first.attempts, (await consumer.get()).attempts]
    assert {} == traces(topic)


# Virtual time


@in_loop
async def test_time_by_hand() -> None:
    """Who moves the clock sees time-outs, deferrals and the timeouts of gets at their moments."""
    scene = Scene()
    seen: list[tuple[float, str, Any]] = []

    async def get(name: str, timeout: float | None) -> None:
        try:
            found: Any = (await scene.consumer.get(timeout)).body
        except Empty as error:
            found = type(error)
        seen.append((scene.clock.time() - 1_700_000_000, name, found))

    scene.topic.put("held")
    await scene.another(msg_timeout=7).get()
    scene.topic.put("later", delay=3)
    for name, timeout in (("a", None), ("b", 4), ("c", None), ("d", 7.5)):
        await begin(get(name, timeout))
    for _ in range(10):
        scene.clock.advance(1)
        await turns()
    assert [(3.0, "a", "later"), (4.0, "b", Empty), (7.0, "c", "held"), (8.0, "d", Empty)] == seen
    assert {} == traces(scene.topic)
    scene.channel.empty()
    assert {} == scene.clock._sleeps


@in_loop
async def test_a_step_over_several_deadlines() -> None:
    """One move of the clock over a deferral and a timeout lets the deferral come first."""
    scene = Scene()
    scene.topic.put(b"1", delay=3)
    first = await begin(scene.consumer.get(timeout=4))
    second = await begin(scene.consumer.get(timeout=4))
    scene.clock.advance(10)
    assert b"1" == (await first).body
    assert isinstance(await outcome(second), Empty)
    assert {} == traces(scene.topic)


@in_loop
async def test_the_clock_is_moved_by_a_thread() -> None:
    """Another thread may move the clock; tasks find what has happened."""
    scene = Scene()
    scene.topic.put(b"1", delay=3)
    task = await begin(scene.consumer.get())
    late = await begin(scene.another().get(timeout=5))
    Call(lambda: scene.clock.advance(5)).result()
    assert b"1" == (await task).body
    assert isinstance(await outcome(late), Empty)
    assert {} == traces(scene.topic)


@in_loop
async def test_a_timeout_while_time_passed_awake() -> None:
    """A get that was rung when its time was over as well looks a last time, and then gives up."""
    scene = Scene(max_in_flight=1)
    scene.topic.put(b"1")
    await scene.consumer.get()
    task = await begin(scene.consumer.get(timeout=5))
    scene.channel._queue.waiters.notify_all()
    scene.topic._monitor.settle()
    scene.clock.advance(5)
    error = await outcome(task)
    assert isinstance(error, WindowFull)
    assert 1 == error.max_in_flight
    assert {} == traces(scene.topic)


@in_loop
async def test_a_message_in_the_last_moment() -> None:
    """A get whose time is over returns what it was handed while it looked at the clock."""
    scene = Scene()
    task = await begin(scene.consumer.get(timeout=5))
    scene.clock.advance(5)
    scene.clock.surprise(scene.topic, lambda: scene.topic.put(b"1"))
    assert (b"1", 1) == ((await task).body, (await task).attempts)
    assert ({}, {}) == (traces(scene.topic), scene.clock._sleeps)


# Interrupted


@pytest.mark.parametrize("when", ["unstarted", "waiting", "handed", "rung", "over", "parked"])
@in_loop
async def test_a_cancelled_get_leaves_no_trace(when: str) -> None:
    """A get cancelled at any moment leaves the line; what it was handed goes to the next."""
    scene = Scene(max_in_flight=1)
    if when == "parked":
        scene.topic.put(b"0")
        held = await scene.consumer.get()
    task = asyncio.ensure_future(scene.consumer.get(timeout=9))
    if when != "unstarted":
        await turns()
    following = await begin(scene.another().get())
    if when in ("handed", "over"):
        scene.topic.put(b"1")
        assert 1 == scene.consumer.in_flight_count
    if when == "over":
        await turns()
    if when == "rung":
        scene.channel._queue.waiters.notify_all()
        scene.topic._monitor.settle()
    assert when != "over" or task.done()
    task.cancel()
    found = await outcome(task)
    if when == "over":
        assert b"1" == found.body
        scene.topic.put(b"2")
    else:
        assert isinstance(found, asyncio.CancelledError)
        if when != "handed":
            scene.topic.put(b"2")
    message = await following
    assert (b"1" if when == "handed" else b"2", 1) == (message.body, message.attempts)
    assert (1 if when in ("over", "parked") else 0) == scene.consumer.in_flight_count
    if when == "parked":
        held.fin()
    assert ({}, {}) == (traces(scene.topic), scene.clock._sleeps)
    stats = scene.consumer.stats()
    assert (1 if when in ("over", "parked") else 0) == stats.message_count


@in_loop
async def test_a_message_handed_in_vain_goes_to_the_head() -> None:
    """What a cancelled get was handed is ready again before all else, attempts as before."""
    scene = Scene()
    task = await begin(scene.consumer.get())
    scene.topic.put_many([b"1", b"2"])
    task.cancel()
    await outcome(task)
    assert [(b"1", 0), (b"2", 0)] == scene.ready()
    assert (0, 0, 0) == (
        scene.consumer.in_flight_count,
        scene.channel.stats().requeue_count,
        scene.channel.stats().timeout_count,
    )


def cancel(coroutine: Any) -> None:
    """Cancel what waits, at once, as its task would in its turn."""
    with pytest.raises(asyncio.CancelledError):
        coroutine.throw(asyncio.CancelledError)


@pytest.mark.parametrize("order", list(permutations(range(4))))
@in_loop
async def test_several_that_are_cancelled_give_back_in_order(order: tuple[int, ...]) -> None:
    """Gets that were all handed a message are cancelled in any order: the messages keep theirs."""
    scene = Scene()
    coroutines = [scene.consumer.get() for _ in order]
    for coroutine in coroutines:
        await step(coroutine)
    scene.topic.put_many([0, 1, 2, 3, 4])
    for number in order:
        cancel(coroutines[number])
        scene.topic._check()
    assert [(body, 0) for body in range(5)] == scene.ready()
    assert {} == traces(scene.topic)


@pytest.mark.parametrize("order", list(permutations(range(3))))
@in_loop
async def test_batches_that_are_cancelled_give_back_in_order(order: tuple[int, ...]) -> None:
    """Batches cancelled while they linger keep their order, and that among them."""
    scene = Scene()
    coroutines = []
    for number in range(3):
        scene.topic.put_many([2 * number, 2 * number + 1])
        coroutines.append(scene.consumer.get_many(4, linger=5))
        await step(coroutines[-1])
    assert 6 == scene.consumer.in_flight_count
    for number in order:
        cancel(coroutines[number])
        scene.topic._check()
    assert [(body, 0) for body in range(6)] == scene.ready()
    assert {} == traces(scene.topic)


@pytest.mark.parametrize("order", list(permutations(range(3))))
@in_loop
async def test_consumers_that_are_closed_give_back_what_was_handed(order: tuple[int, ...]) -> None:
    """What waiting gets were handed goes back in order when their consumers are closed."""
    scene = Scene()
    consumers = [scene.another() for _ in order]
    coroutines = [consumer.get() for consumer in consumers]
    for coroutine in coroutines:
        await step(coroutine)
    scene.topic.put_many([0, 1, 2, 3])
    for number in order:
        consumers[number].close()
        scene.topic._check()
    assert [(body, 0) for body in range(4)] == scene.ready()
    for coroutine in coroutines:
        coroutine.close()
    assert {} == traces(scene.topic)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_threads_that_are_interrupted_give_back_in_order(order: tuple[int, ...]) -> None:
    """Threads that were all handed a message are interrupted in any order: these keep theirs."""

    class Interrupting(TellingManualClock):
        """A clock whose waits end by an exception, when they are told to."""

        def wait(self, semaphore: Semaphore, moment: int | None, who: str) -> bool:
            event = events.pop(0)  # before the test goes on, which waits for the call below
            assert super().wait(semaphore, moment, who)
            assert event.wait(PATIENCE)
            raise KeyboardInterrupt

    events = [threading.Event() for _ in order]
    told = events.copy()
    clock = Interrupting(patience=100)
    topic: Topic[int] = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    calls = []
    for _ in order:
        calls.append(Call(nsqlite.Consumer(channel).get))
        clock.until_waiting()
    topic.put_many([0, 1, 2, 3])
    for number in order:
        told[number].set()
        assert isinstance(calls[number].result(), KeyboardInterrupt)
    assert [(body, 0) for body in range(4)] == [(i.body, i.attempts) for i in channel.peek()]
    assert {} == traces(topic)


@pytest.mark.parametrize("order", list(permutations(range(3))))
@in_loop
async def test_what_nobody_claims_in_time_goes_back_in_order(order: tuple[int, ...]) -> None:
    """What waiting gets were handed and did not take in time goes back in its order, uncounted."""
    scene = Scene()
    coroutines = [scene.another(msg_timeout=5 + number).get() for number in order]
    for coroutine in coroutines:
        await step(coroutine)
    scene.topic.put_many([0, 1, 2, 3])
    scene.channel.pause()
    for _ in order:
        scene.clock.advance_to_next()
    scene.clock.advance(10)
    assert [(body, 0) for body in range(4)] == scene.ready()
    for coroutine in coroutines:
        coroutine.close()
    assert {} == traces(scene.topic)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("get", lambda scene: scene.consumer.get()),
        ("get_many", lambda scene: scene.consumer.get_many(2)),
        ("join", lambda scene: aio.join(scene.topic)),
    ],
)
@in_loop
async def test_a_call_inside_another_one(
    name: str, call: Callable[[Scene], Coroutine[Any, Any, object]]
) -> None:
    """What is awaited in the middle of another call of the topic is refused in its own name."""
    scene = Scene()
    scene.topic.put(b"1")

    def operation() -> None:
        with pytest.raises(Reentered) as info:
            call(scene).send(None)
        assert name == info.value.call

    scene.topic._monitor.run(operation)
    assert b"1" == (await scene.consumer.get()).body


@in_loop
async def test_a_get_is_told() -> None:
    """An observer hears of a delivery that did not have to wait."""
    scene = Scene()
    recorder = Recorder()
    scene.topic.observe(recorder)
    scene.topic.put(b"1")
    await scene.consumer.get()
    told = [(event.kind, event.body) for event in recorder.events]
    assert [("published", b"1"), ("delivered", b"1")] == told


@in_loop
async def test_a_get_whose_effects_are_interrupted() -> None:
    """What a signal throws in before a get returns leaves its message at the head of the queue."""
    scene = Scene()
    scene.topic.put_many([b"1", b"2"])

    def strike(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    scene.topic.observe(print)
    queue: Any = scene.channel._queue
    queue_tell = type(queue).tell
    type(queue).tell = strike
    try:
        with pytest.raises(KeyboardInterrupt):
            await scene.consumer.get()
    finally:
        type(queue).tell = queue_tell
    assert [(b"1", 0), (b"2", 0)] == scene.ready()
    scene.topic._check()


@in_loop
async def test_a_get_that_is_interrupted_after_the_lock() -> None:
    """What an observer throws leaves no effect undone; the message is back at once."""
    scene = Scene()
    scene.topic.put(b"1")
    told: list[str] = []

    def observer(event: nsqlite.Event) -> None:
        told.append(event.kind)
        if len(told) == 1:
            raise KeyboardInterrupt

    stop = scene.topic.observe(observer)
    with pytest.raises(KeyboardInterrupt):
        await scene.consumer.get()
    assert (["delivered", "returned"], {}) == (told, traces(scene.topic))
    stop()
    assert [(b"1", 0)] == scene.ready()


@in_loop
async def test_a_message_handed_in_vain_goes_to_a_thread() -> None:
    """What a cancelled task was handed goes to the thread that waits behind it."""
    scene = Scene()
    task = await begin(scene.consumer.get())
    call = scene.thread()
    scene.topic.put(b"1")
    task.cancel()
    await outcome(task)
    assert (b"1", 1) == (call.result().body, call.result().attempts)
    assert {} == traces(scene.topic)


@in_loop
async def test_wait_for() -> None:
    """A get inside `asyncio.timeout` that times out leaves the line."""
    scene = Scene()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await scene.consumer.get()
    assert {} == traces(scene.topic)


@in_loop
async def test_a_cancelled_batch_goes_back() -> None:
    """A batch cancelled while it lingers goes back to the head in its order, attempts as before."""
    scene = Scene()
    scene.topic.put_many([1, 2])
    task = await begin(scene.consumer.get_many(4, linger=5))
    scene.topic.put(3)
    await turns()
    scene.topic.put_many([4, 5])
    task.cancel()
    assert isinstance(await outcome(task), asyncio.CancelledError)
    assert [(body, 0) for body in (1, 2, 3, 4, 5)] == scene.ready()
    assert (0, {}) == (scene.consumer.in_flight_count, traces(scene.topic))


@in_loop
async def test_a_cancelled_first_wait_of_a_batch() -> None:
    """A batch cancelled while it has nothing leaves the line."""
    scene = Scene()
    task = await begin(scene.consumer.get_many(4, linger=5))
    task.cancel()
    await outcome(task)
    scene.topic.put(1)
    assert [(1, 0)] == scene.ready()
    assert {} == traces(scene.topic)


# Batches


@in_loop
async def test_a_batch_lingers() -> None:
    """A batch waits for more, until it is full, its time is over or the window is full."""
    scene = Scene()
    task = await begin(scene.consumer.get_many(3, linger=10))
    scene.topic.put(1)
    await turns()
    scene.clock.advance(6)
    scene.topic.put(2)
    await turns()
    assert not task.done()
    scene.clock.advance(4)
    assert [1, 2] == [message.body for message in await task]
    task = await begin(scene.consumer.get_many(3, linger=10))
    scene.topic.put_many([3, 4, 5, 6])
    assert [3, 4, 5] == [message.body for message in await task]
    narrow = scene.another(max_in_flight=2)
    scene.topic.put(7)
    assert [6, 7] == [message.body for message in await narrow.get_many(3, linger=10)]
    assert {} == traces(scene.topic)


@in_loop
async def test_a_batch_ends_with_its_consumer() -> None:
    """A lingering batch is returned if its consumer leaves it in flight; one given back is none."""
    for give_back in (False, True):
        scene = Scene()
        scene.topic.put(1)
        task = await begin(scene.consumer.get_many(3, linger=10))
        scene.consumer.close(give_back=give_back)
        found = await outcome(task)
        assert isinstance(found, Closed) if give_back else [1] == [m.body for m in found]
        assert {} == traces(scene.topic)


# Over


@pytest.mark.parametrize("what", ["consumer", "channel", "topic", "deleted", "broker"])
@in_loop
async def test_close_wakes(what: str) -> None:
    """Whoever waits gets Closed when what he waits for is over, parked or not."""
    broker = nsqlite.Broker(clock=ManualClock())
    topic = broker.topic("orders")
    channel = topic.channel("billing")
    consumer = aio.Consumer(channel, max_in_flight=1)
    topic.put(b"0")
    channel.pause()
    tasks = [await begin(consumer.get())]
    channel.unpause()
    assert b"0" == (await tasks.pop()).body
    tasks = [await begin(consumer.get()), await begin(consumer.get(timeout=5))]
    free = await begin(aio.Consumer(channel).get())
    ends: dict[str, Callable[[], object]] = {
        "consumer": consumer.close,
        "channel": channel.close,
        "topic": topic.close,
        "deleted": topic.delete,
        "broker": broker.close,
    }
    ends[what]()
    for task in tasks:
        assert isinstance(await outcome(task), Closed)
    if what == "consumer":
        assert (b"0", 2) == ((await free).body, (await free).attempts)
    else:
        assert isinstance(await outcome(free), Closed)
    assert {} == traces(topic)


@in_loop
async def test_close_with_a_message_in_a_waiters_hands() -> None:
    """A get that was handed a message which its consumer then gave back raises Closed."""
    scene = Scene()
    task = await begin(scene.consumer.get())
    scene.topic.put(b"1")
    scene.consumer.close()
    assert isinstance(await outcome(task), Closed)
    assert [b"1"] == [body for body, _ in scene.ready()]
    assert {} == traces(scene.topic)


@in_loop
async def test_a_message_left_in_flight_is_still_got() -> None:
    """A get that was handed a message which its consumer left in flight returns it."""
    scene = Scene()
    task = await begin(scene.consumer.get())
    scene.topic.put(b"1")
    scene.consumer.close(give_back=False)
    (await task).fin()
    assert scene.channel._queue.is_idle()


@in_loop
async def test_async_with_and_for() -> None:
    """An `async for` loop ends when the consumer is closed, which `async with` does."""
    scene = Scene()
    seen = []
    scene.topic.put_many([1, 2])
    async with scene.another() as consumer:
        async for message in consumer:
            seen.append(message.body)
            message.fin()
            if len(seen) == 2:
                scene.topic.put(3)
            if len(seen) == 3:
                consumer.close()
    with pytest.raises(ValueError, match="so"):
        async with scene.consumer as same:
            assert same is scene.consumer
            raise ValueError("so")
    assert ([1, 2, 3], True) == (seen, scene.consumer.closed)
    with scene.another() as third:
        pass
    assert third.closed


# Loops that are over, or stand still


@pytest.mark.parametrize("following", ["thread", "task", "nobody"])
def test_a_closed_loop_is_skipped(following: str) -> None:
    """A message for a get whose loop is closed goes to the next in line, attempts as before."""
    scene = Scene()
    tasks = [abandoned(scene.consumer.get), abandoned(lambda: scene.consumer.get(timeout=5))]

    async def main() -> Any:
        task = await begin(scene.another().get())
        scene.topic.put(b"1")
        return await task

    if following == "thread":
        call = scene.thread()
        scene.topic.put(b"1")
        message = call.result()
    elif following == "task":
        message = asyncio.run(main())
    else:
        scene.topic.put(b"1")
        assert [(b"1", 0)] == scene.ready()
        message = nsqlite.Consumer(scene.channel).get()
    assert (b"1", 1) == (message.body, message.attempts)
    assert (0, {}) == (scene.consumer.in_flight_count, traces(scene.topic))
    assert [False, False] == [task.done() for task in tasks]


def test_a_closed_loop_is_skipped_by_time() -> None:
    """A get whose loop is closed leaves the line when its time is over, too."""
    scene = Scene()
    task = abandoned(lambda: scene.consumer.get(timeout=5))
    scene.clock.advance(5)
    assert {} == traces(scene.topic)
    assert not task.done()


def test_a_closed_loop_with_a_message_in_its_hands() -> None:
    """A message handed to a loop that is then closed was never delivered when its time is over."""
    scene = Scene()
    loop = asyncio.new_event_loop()
    task: Any = loop.run_until_complete(begin(scene.consumer.get()))
    scene.topic.put(b"1")
    loop.close()
    task._log_destroy_pending = False
    assert (1, 0) == (scene.channel.in_flight_count, scene.channel.depth)
    scene.clock.advance(60)
    assert [(b"1", 0)] == scene.ready()
    scene.consumer.close()
    assert ([(b"1", 0)], {}) == (scene.ready(), traces(scene.topic))
    assert not task.done()


def test_who_was_skipped_is_forgotten() -> None:
    """A task of a closed loop is kept alive by nothing when it has been skipped."""
    scene = Scene()
    tasks = [abandoned(scene.consumer.get)]
    gone = weakref.ref(tasks[0])
    scene.topic.put(b"1")
    tasks.clear()
    gc.collect()
    assert gone() is None
    assert ([(b"1", 0)], {}) == (scene.ready(), traces(scene.topic))


@pytest.mark.parametrize("handed", [False, True])
def test_a_destroyed_get_leaves_no_trace(handed: bool) -> None:
    """A get that is destroyed while it waits leaves the line; what it was handed goes back."""
    scene = Scene()
    loop = asyncio.new_event_loop()
    coroutine = scene.consumer.get()
    loop.run_until_complete(step(coroutine))
    assert 1 == len(scene.channel._queue.waiters.able)
    if handed:
        scene.topic.put(b"1")
        assert 1 == scene.channel.in_flight_count
    loop.close()
    del coroutine
    gc.collect()
    if not handed:
        scene.topic.put(b"1")
    assert [(b"1", 0)] == scene.ready()
    assert {} == traces(scene.topic)


async def step(coroutine: Any) -> None:
    """Have a coroutine go on to where it waits, and leave it there."""
    coroutine.send(None)


def test_a_stuck_loop_holds_a_message_no_longer_than_its_time_out() -> None:
    """What was handed to a task that does not get its turn times out to a thread that waits."""
    scene = Scene()
    with Elsewhere() as elsewhere:
        task = elsewhere.begin(scene.consumer.get())
        with elsewhere.stuck():
            scene.topic.put(b"1")
            call = scene.thread()
            scene.clock.advance(59.999999999)
            assert (0, 1) == (scene.channel.depth, scene.channel.in_flight_count)
            scene.clock.advance(0.000000001)
            message = call.result()
            assert (b"1", 1) == (message.body, message.attempts)
            message.fin()
        elsewhere.run(turns())
        assert not task.done()
        scene.topic.put(b"2")
        message = elsewhere.outcome(task)
        assert (b"2", 1) == (message.body, message.attempts)
    assert {} == traces(scene.topic)


@pytest.mark.parametrize("following", ["thread", "task"])
def test_a_stuck_loop_in_real_time(following: str) -> None:
    """Also on the system's clock who waits on the channel gets what a stuck loop was handed."""
    topic: Topic[bytes] = Topic("orders", resolution=0.001)
    channel = topic.channel("billing")
    with Elsewhere() as elsewhere:
        task = elsewhere.begin(aio.Consumer(channel, msg_timeout=0.005).get())
        with elsewhere.stuck():
            topic.put(b"1")
            if following == "thread":
                message = nsqlite.Consumer(channel).get(timeout=PATIENCE)
            else:
                message = asyncio.run(aio.Consumer(channel).get(timeout=PATIENCE))
            assert (b"1", 1) == (message.body, message.attempts)
        elsewhere.run(turns())
        assert not task.done()
    assert {} == traces(topic)


@in_loop
async def test_a_get_destroyed_inside_another_call() -> None:
    """A get that a destructor ends in the middle of another call is handed nothing any more."""
    scene = Scene()
    other = nsqlite.Consumer(scene.channel)
    scene.topic.put(b"1")
    held = other.get()
    recorder = Recorder()
    coroutine = scene.consumer.get()
    await step(coroutine)
    following = await begin(scene.another().get())
    scene.topic.observe(recorder)

    def operation() -> None:
        coroutine.close()
        scene.channel._queue.requeue(other, held, 0, 0)

    scene.topic._monitor.run(operation)
    message = await following
    assert (b"1", 2) == (message.body, message.attempts)
    receiver = message._consumer.client_id
    told = [(event.kind, event.client_id) for event in recorder.events]
    assert [("requeued", other.client_id), ("delivered", receiver)] == told
    scene.topic._monitor.observe(())
    scene.topic._monitor.run(lambda: None)
    assert {} == traces(scene.topic)


@in_loop
async def test_a_get_that_is_over_leaves_no_garbage() -> None:
    """What a get waited with serves the next one too, and its future is freed at once."""
    scene = Scene()
    gc.collect()
    gc.disable()
    try:
        task = await begin(scene.consumer.get())
        [first] = scene.channel._queue.waiters.able
        assert isinstance(first, TaskWaiter)
        gone = weakref.ref(first._future)
        scene.topic.put(b"1")
        await task
        del task
        assert gone() is None
        task = await begin(scene.consumer.get())
        assert [first] == list(scene.channel._queue.waiters.able)
        scene.topic.put(b"2")
        await task
    finally:
        gc.enable()


# Costs


def calls_of(work: Callable[[], object]) -> int:
    """Count the function calls, in Python and C, of some work."""
    count = 0

    def note(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    gc.disable()
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
        gc.enable()
    return count


def cost_of_leaving(waiters: int) -> tuple[int, float]:
    """Return the calls, and the seconds of processor time, for ten to leave a line so long."""
    scene = Scene()
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(scene.consumer.get()) for _ in range(waiters)]
    middle = waiters // 2 - 10

    def leave(leaving: list[asyncio.Task[Any]]) -> None:
        for task in leaving:
            task.cancel()
        loop.run_until_complete(turns())
        assert all(task.cancelled() for task in leaving)

    try:
        loop.run_until_complete(turns())
        calls = calls_of(lambda: leave(tasks[middle : middle + 10]))
        begun = time.process_time()
        leave(tasks[middle + 10 : middle + 20])
        seconds = time.process_time() - begun
        loop.run_until_complete(cancel_all())
    finally:
        loop.close()
    assert {} == traces(scene.topic)
    return calls, seconds


def test_leaving_a_long_line_costs_no_more_than_a_short_one() -> None:
    """Ten gets that are cancelled cost as many calls and as much time in a line of 10,000."""
    short = [cost_of_leaving(20) for _ in range(3)]
    long = [cost_of_leaving(10_000) for _ in range(2)]
    assert {calls for calls, _ in short} == {calls for calls, _ in long}
    # A search through the line would take hundreds of times as long.
    assert min(seconds for _, seconds in long) < 20 * min(seconds for _, seconds in short)


# Arguments


@pytest.mark.parametrize("ready", [0, 1])
@in_loop
async def test_bad_arguments(ready: int) -> None:
    """What is wrong with an argument is told whether or not there is a message."""
    scene = Scene()
    scene.topic.put_many([b"1"] * ready)
    for call in (
        scene.consumer.get(timeout=-1),
        scene.consumer.get_many(0),
        scene.consumer.get_many(1, linger=60),
        scene.consumer.get_many(1, timeout=-1),
    ):
        with pytest.raises(InvalidOption):
            await call
    assert (0, {}) == (scene.consumer.in_flight_count, traces(scene.topic))


# From a store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("timeout", [0, 20])
def test_pages_are_read_by_the_stores_thread(path: Path, size: int, timeout: float) -> None:
    """All that lies in the file comes, in order, and the loop reads nothing of it."""
    with Kept(path) as kept:
        kept.channel()
        kept.topic().put_many([b"%d" % number for number in range(10)])
    with Kept(path, mem_queue_size=size) as kept:
        consumer = aio.Consumer(kept.channel())
        reads = len(kept.spy.reads)

        async def take() -> list[Any]:
            found = []
            for _ in range(10):
                with await consumer.get(timeout=timeout) as message:
                    found.append(message.body)
            with pytest.raises(Empty):
                await consumer.get(timeout=0)
            return found

        assert [b"%d" % number for number in range(10)] == asyncio.run(take())
        assert threading.get_ident() not in {thread for _, thread in kept.spy.reads[reads:]}


def test_durable_attempts_are_counted_by_the_stores_thread(path: Path) -> None:
    """A delivery is in the file when `get` returns, written by another thread than the loop's."""
    with Kept(path, attempts="durable") as kept:
        consumer = aio.Consumer(kept.channel())
        kept.topic().put_many([b"1", b"2", b"3", b"4"])
        calls = len(kept.spy.calls)

        async def take() -> None:
            await consumer.get(timeout=0)
            assert [(b"1", 2), (b"2", 1), (b"3", 1), (b"4", 1)] == kept.disk()
            await consumer.get_many(2)
            assert [(b"1", 2), (b"2", 2), (b"3", 2), (b"4", 1)] == kept.disk()
            assert b"4" == (await consumer.get(timeout=5)).body

        asyncio.run(take())
        written = kept.spy.calls[calls:]
        assert ["write_attempts"] * 3 == [name for name, _ in written]
        assert threading.get_ident() not in {thread for _, thread in written}


def test_a_delivery_that_cannot_be_counted_goes_back(path: Path) -> None:
    """`get` raises what the store says, and the messages are as they were."""
    with Kept(path, attempts="durable") as kept:
        consumer = aio.Consumer(kept.channel())
        kept.topic().put_many([b"1", b"2"])

        async def take() -> None:
            with kept.spy.failing():
                with pytest.raises(StoreFull):
                    await consumer.get(timeout=0)
                with pytest.raises(StoreFull):
                    await consumer.get_many(2)
            assert [2, 0] == [kept.channel().depth, consumer.in_flight_count]
            assert [1, 1] == [message.attempts for message in await consumer.get_many(2)]

        asyncio.run(take())
        kept.topic()._check()


def test_a_get_cancelled_while_it_is_counted_loses_nothing(path: Path) -> None:
    """What was delivered is back at the head of the queue at once."""
    with Kept(path, attempts="durable") as kept:
        consumer = aio.Consumer(kept.channel())
        kept.topic().put_many([b"1", b"2"])

        async def take() -> None:
            with kept.spy.held() as held:
                task = await begin(consumer.get(timeout=0))
                await asyncio.get_running_loop().run_in_executor(None, held.until_begun)
                task.cancel()
                assert isinstance(await outcome(task), asyncio.CancelledError)
                assert [2, 0] == [kept.channel().depth, consumer.in_flight_count]
            found = [await consumer.get(timeout=0) for _ in "12"]
            assert [(b"1", 1), (b"2", 1)] == [(one.body, one.attempts) for one in found]

        asyncio.run(take())
        assert {} == traces(kept.topic())


@in_loop
async def test_nothing_to_get_at_once() -> None:
    """Several are asked for, not waited for, and not there."""
    scene = Scene()
    with pytest.raises(Empty):
        await scene.consumer.get_many(3, timeout=0)
    assert {} == traces(scene.topic)


@in_loop
async def test_a_get_that_is_woken_finds_what_is_there() -> None:
    """A get that is notified, not handed anything, takes what has become ready."""
    scene = Scene()
    scene.channel.pause()
    task = await begin(scene.consumer.get())
    scene.topic.put(b"1")
    queue = scene.channel._queue

    def let_go() -> None:
        queue.paused = False
        queue.waiters.notify_all()

    scene.topic._monitor.run(let_go)
    assert b"1" == (await task).body
    assert {} == traces(scene.topic)


@in_loop
async def test_to_give_up_twice_is_to_give_up_once() -> None:
    """A get leaves no trace, however often it gives up, also one whose consumer has gone on."""
    scene = Scene()
    waiting = scene.consumer._begin()
    for _ in "12":
        scene.consumer._forsake(nsqlite.Message(), waiting)
    assert {} == traces(scene.topic)
    _lose(ThreadWaiter(scene.topic._monitor))  # of a get that is over


@pytest.mark.parametrize("second", [1.0, timedelta(seconds=1)])
@in_loop
async def test_seconds_or_a_timedelta(second: Seconds) -> None:
    """What a consumer is told of times can be either."""
    scene = Scene(msg_timeout=10 * second, requeue_delay=second)
    gets = [
        asyncio.ensure_future(scene.consumer.get(second)),
        asyncio.ensure_future(scene.consumer.get_many(2, timeout=second)),
    ]
    await turns()
    scene.clock.advance(1)
    found = await asyncio.gather(*gets, return_exceptions=True)
    assert [Empty, Empty] == list(map(type, found))
    scene.topic.put(1)
    batch = asyncio.ensure_future(scene.consumer.get_many(2, linger=second))
    await turns()
    scene.clock.advance(1)
    [message] = await batch
    assert [9.0] == [info.due_in for info in scene.channel.in_flight()]
    scene.consumer.req(message, second)
    assert [1.0] == [info.due_in for info in scene.channel.deferred()]


def test_when_ready_leaves_no_timer() -> None:
    """Called off, or called, it has no clock that is moved by hand stop for nobody."""
    clock = ManualClock()
    topic: nsqlite.Topic[Any] = nsqlite.Topic("orders", clock=clock)
    channel = topic.channel("billing")
    topic.put(b"1", delay=5)

    async def main(*, cancels: bool) -> None:
        consumer = nsqlite.aio.Consumer(channel)
        call_off = consumer.when_ready(print)
        assert "waiting: an event loop" in repr(clock)
        if cancels:
            call_off()
        else:
            consumer.close()
        assert "nobody waits" in repr(clock)

    asyncio.run(main(cancels=True))
    asyncio.run(main(cancels=False))
