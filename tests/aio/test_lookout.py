"""A channel's timer in a loop: one at most, and none while nobody waits."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from helpers import PATIENCE, Call

from aio.loops import Elsewhere, abandoned, begin, in_loop, outcome, timers, turns
from nsqlite import Consumer, Empty, Topic, aio
from nsqlite.aio.lookout import Lookout
from nsqlite.clock import NEVER, Alarm, Loop
from nsqlite.options import SECOND
from nsqlite.testing import ManualClock


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


def lookout_of(consumer: aio.Consumer[Any]) -> Lookout:
    """Return the only lookout of a consumer's channel."""
    [lookout] = consumer.channel._flow.line.lookouts.values()
    assert isinstance(lookout, Lookout)
    return lookout


@in_loop
async def test_nobody_waits_so_no_timer_is_set() -> None:
    """Without a get that waits there is no timer, whatever is due; nor if nothing is due."""
    clock = Alarms()
    topic = Topic("orders", clock=clock)
    consumer = aio.Consumer(topic.channel("billing"))
    topic.put(b"1", delay=5)
    topic.put(b"2")
    (await consumer.get()).fin()
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
    lookout = lookout_of(consumer)
    for waiters, moments in ((2, [5.0]), (1, [5.0]), (0, [])):
        assert (waiters, moments) == (lookout.waiters, clock.set_now())
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
        assert 0 == timers(asyncio.get_running_loop())

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
        assert 0 == timers(asyncio.get_running_loop())

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
            lookout.is_closed()
            for lookout in channel._flow.line.lookouts.values()
            if isinstance(lookout, Lookout)
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
    """A lookout that is woken when nothing is due, or nobody waits any more, does no harm."""
    clock = Alarms()
    topic = Topic("orders", clock=clock)
    consumer = aio.Consumer(topic.channel("billing"))
    topic.put(b"1", delay=5)
    task = await begin(consumer.get())
    lookout = lookout_of(consumer)
    lookout.wake()
    assert [5.0] == clock.set_now()
    task.cancel()
    await outcome(task)
    lookout.wake()
    Call(lookout.wake).result()
    await turns()
    assert (NEVER, []) == (lookout._moment, clock.set_now())


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


@pytest.mark.parametrize("how", ["ring", "alarm"])
def test_a_closed_loop_looks_no_more(how: str) -> None:
    """A lookout whose loop is closed calls its timer off when it is woken, and is rung no more."""
    clock = Alarms()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = aio.Consumer(channel)
    topic.put(b"1", delay=5)
    task = abandoned(consumer.get)
    lookout = lookout_of(consumer)
    assert (True, 1, [5.0]) == (lookout.is_closed(), lookout.waiters, clock.set_now())
    if how == "ring":
        topic.put(b"2", delay=2)
    else:
        clock.advance(5)
    assert [] == clock.set_now()
    rung = len(topic._guard.rung)
    lookout.ring()
    topic.put(b"3", delay=1)
    assert (0, 0) == (rung, len(topic._guard.rung))
    assert not task.done()


def test_closed_loops_are_forgotten() -> None:
    """When another loop waits for the channel, the lookouts of closed loops are forgotten."""
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
        assert 1 == len(channel._flow.line.lookouts)
