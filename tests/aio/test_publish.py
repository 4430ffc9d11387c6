"""Putting and joining with `await`: waiting for room and for the end, in one line with threads."""

import asyncio
import gc
import math
import threading
import weakref
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from helpers import PATIENCE, Call, TellingManualClock
from store.stores import Held, everything, full, until
from store.stores import Scene as Kept

import nsqlite
from aio.loops import (
    Elsewhere,
    LastMoment,
    abandoned,
    begin,
    in_loop,
    outcome,
    traces,
    turns,
)
from nsqlite import (
    Closed,
    Full,
    InvalidMessage,
    InvalidOption,
    NotAsyncio,
    Seconds,
    StoreFull,
    Topic,
    aio,
)
from nsqlite.options import WhenFull
from nsqlite.testing import ManualClock
from nsqlite.timeline import Recorder
from nsqlite.waiting import Waiter


class Scene:
    """A topic with a bounded channel on a manual clock, and a consumer."""

    def __init__(self, room: int = 1, when_full: WhenFull = "wait") -> None:
        self.clock = LastMoment()
        self.topic: Topic[Any] = Topic("orders", clock=self.clock)
        self.channel = self.topic.channel("billing", max_depth=room, when_full=when_full)
        self.consumer = nsqlite.Consumer(self.channel)

    def thread(self, body: Any) -> Call:
        """Return a put in a thread, which waits."""
        call = Call(lambda: self.topic.put(body))
        self.clock.until_waiting()
        return call

    def ready(self) -> list[Any]:
        return [info.body for info in self.channel.peek(100)]

    def take(self) -> Any:
        """Get and finish a message, and return its body."""
        message = self.consumer.get(timeout=0)
        message.fin()
        return message.body


def left(scene: Scene) -> list[object]:
    """Return what is left of those who waited, and on the clock."""
    return [traces(scene.topic), scene.clock._sleeps]


NOTHING: list[object] = [{}, {}]


# Without waiting


@in_loop
async def test_a_put_with_room_does_not_suspend() -> None:
    """A put or a batch that finds room returns its ids without a turn of the loop."""
    scene = Scene(room=3)
    with pytest.raises(StopIteration) as info:
        aio.put(scene.topic, 1, timeout=5).send(None)
    with pytest.raises(StopIteration) as infos:
        aio.put_many(scene.topic, iter([2, 3])).send(None)
    assert [info.value.value, *infos.value.value] == [found.id for found in scene.channel.peek()]
    assert NOTHING == left(scene)


@in_loop
async def test_a_put_wakes() -> None:
    """What is put is handed to who waits, in the loop, in another one and in a thread."""
    scene = Scene()
    here = await begin(aio.Consumer(scene.channel).get())
    call = Call(scene.consumer.get)
    scene.clock.until_waiting()
    with Elsewhere() as elsewhere:
        there = elsewhere.begin(aio.Consumer(scene.channel).get())
        for body in (1, 2, 3):
            await aio.put(scene.topic, body)
        assert [1, 2, 3] == [m.body for m in (await here, call.result(), elsewhere.outcome(there))]
    assert NOTHING == left(scene)


@in_loop
async def test_a_delay() -> None:
    """What is put with a delay needs no room, and is there when its time has come."""
    scene = Scene()
    await aio.put(scene.topic, 1)
    await aio.put(scene.topic, 3, delay=4)
    await aio.put_many(scene.topic, [2], delay=3)
    assert 2 == scene.channel.deferred_count
    scene.clock.advance(4)
    assert [1, 2, 3] == scene.ready()


@pytest.mark.parametrize(
    ("put", "error"),
    [
        (lambda topic: aio.put(topic, b""), InvalidMessage),
        (lambda topic: aio.put(topic, 1, timeout=-1), InvalidOption),
        (lambda topic: aio.put(topic, 1, delay=math.nan), InvalidOption),
        (lambda topic: aio.put_many(topic, [b"1", b""]), InvalidMessage),
        (lambda topic: aio.put_many(topic, b"12"), InvalidMessage),
        (lambda topic: aio.put_many(topic, [1], timeout=True), InvalidOption),
        (lambda topic: aio.put_many(topic, [1], delay=-1), InvalidOption),
        (lambda topic: aio.put_many(topic, [1, 2, 3]), Full),
        (lambda topic: aio.put_many(topic, [1, 2, 3], timeout=0), Full),
    ],
)
@pytest.mark.parametrize("ready", [0, 2])
@in_loop
async def test_what_can_never_be_put(put: Any, error: type[Exception], ready: int) -> None:
    """A put that is wrong is refused at once, whether or not there is room; nothing was put."""
    scene = Scene(room=2)
    scene.topic.put_many(list(range(ready)))
    with pytest.raises(error):
        await put(scene.topic)
    assert list(range(ready)) == scene.ready()
    assert ready == scene.topic.stats().message_count
    assert NOTHING == left(scene)


@in_loop
async def test_nothing_to_put() -> None:
    """A batch of nothing is put at once, though there is no room."""
    scene = Scene()
    scene.topic.put(1)
    assert [] == await aio.put_many(scene.topic, [])


@pytest.mark.parametrize("when_full", ["raise", "drop newest", "drop oldest"])
@in_loop
async def test_other_policies_do_not_wait(when_full: WhenFull) -> None:
    """With another policy than "wait" a put never waits."""
    scene = Scene(when_full=when_full)
    await aio.put(scene.topic, 1)
    if when_full == "raise":
        for put in (aio.put(scene.topic, 2), aio.put_many(scene.topic, [2])):
            with pytest.raises(Full) as info:
                await put
            assert "orders:billing has no room for 1 more: max_depth=1" == str(info.value)
    else:
        await aio.put(scene.topic, 2)
    assert [2 if when_full == "drop oldest" else 1] == scene.ready()
    assert NOTHING == left(scene)


@in_loop
async def test_no_time_to_wait() -> None:
    """With a timeout of 0 a put without room raises Full at once."""
    scene = Scene()
    scene.topic.put(1)
    for put in (aio.put(scene.topic, 2, timeout=0), aio.put_many(scene.topic, [2], timeout=0)):
        with pytest.raises(Full):
            put.send(None)
    assert NOTHING == left(scene)


# Waiting for room


@in_loop
async def test_a_put_waits_for_room() -> None:
    """A put without room waits until there is some, and returns the id of its message."""
    scene = Scene()
    scene.topic.put(b"1")
    task = await begin(aio.put(scene.topic, b"2"))
    assert ([b"1"], {"putters": 1}) == (scene.ready(), traces(scene.topic))
    assert b"1" == scene.take()
    name = await task
    assert [(name, b"2")] == [(info.id, info.body) for info in scene.channel.peek()]
    stats = scene.topic.stats()
    assert (2, 2) == (stats.message_count, stats.message_bytes)
    assert NOTHING == left(scene)


@in_loop
async def test_a_batch_waits_for_room_for_all() -> None:
    """A batch waits until all of it has room, and is put in one piece."""
    scene = Scene(room=3)
    scene.topic.put_many([b"1", b"2"])
    task = await begin(aio.put_many(scene.topic, [b"345", 4, b"5"]))
    scene.take()
    await turns()
    assert not task.done()
    scene.take()
    names = await task
    assert names == [info.id for info in scene.channel.peek()]
    assert (5, 6) == (scene.topic.stats().message_count, scene.topic.stats().message_bytes)
    assert NOTHING == left(scene)


@in_loop
async def test_puts_wait_in_one_line() -> None:
    """Puts of threads and of the tasks of two loops go on in the order in which they came."""
    scene = Scene()
    scene.topic.put(0)
    with Elsewhere() as elsewhere:
        calls = [scene.thread(1)]
        tasks = [await begin(aio.put(scene.topic, 2))]
        calls.append(scene.thread(3))
        there = elsewhere.begin(aio.put_many(scene.topic, [4]))
        tasks.append(await begin(aio.put(scene.topic, 5)))
        taken = []
        for wait in (calls[0], tasks[0], calls[1], there, tasks[1]):
            taken.append(scene.take())
            if isinstance(wait, Call):
                wait.result()
            elif wait is there:
                elsewhere.outcome(wait)
            else:
                await wait
        assert [0, 1, 2, 3, 4, 5] == [*taken, scene.take()]
    assert NOTHING == left(scene)


@in_loop
async def test_nobody_goes_past_who_waits_for_room() -> None:
    """A put that would fit waits behind a batch that does not."""
    scene = Scene(room=2)
    scene.topic.put(1)
    batch = await begin(aio.put_many(scene.topic, [2, 3]))
    single = await begin(aio.put(scene.topic, 4))
    with pytest.raises(Full) as info:
        await aio.put(scene.topic, 5, timeout=0)
    assert "other puts to orders wait in front of this one" == str(info.value)
    assert [1] == scene.ready()
    scene.take()
    await batch
    scene.take()
    await single
    assert [3, 4] == scene.ready()
    assert NOTHING == left(scene)


@in_loop
async def test_a_put_times_out() -> None:
    """A put that finds no room in time raises Full and has put nothing; the next one goes on."""
    scene = Scene(room=2)
    scene.topic.put(1)
    batch = await begin(aio.put_many(scene.topic, [2, 3], timeout=5))
    single = await begin(aio.put(scene.topic, 4, timeout=9))
    scene.clock.advance(4.999999999)
    await turns()
    assert not batch.done()
    scene.clock.advance(0.000000001)
    error = await outcome(batch)
    assert isinstance(error, Full)
    assert ("orders:billing", 2, 2) == (error.where, error.size, error.max_depth)
    await single
    assert [1, 4] == scene.ready()
    assert NOTHING == left(scene)


@in_loop
async def test_a_put_with_a_timeout_finds_room() -> None:
    """A put that finds room in time leaves no timer behind."""
    scene = Scene()
    scene.topic.put(1)
    task = await begin(aio.put(scene.topic, 2, timeout=5))
    scene.clock.advance(4)
    scene.take()
    await task
    assert NOTHING == left(scene)


@pytest.mark.parametrize("last", [False, True])
@in_loop
async def test_room_in_the_last_moment(last: bool) -> None:
    """A put takes the room that there is when its time is over, and when it gives up, too."""
    scene = Scene()
    scene.topic.put(1)
    task = await begin(aio.put(scene.topic, 2, timeout=5))
    scene.clock.advance(5)
    if last:
        scene.clock.surprise(scene.topic, scene.take)
    else:
        scene.take()
    await task
    assert [2] == scene.ready()
    assert NOTHING == left(scene)


@pytest.mark.parametrize("when", ["unstarted", "waiting", "rung"])
@in_loop
async def test_a_cancelled_put_has_put_nothing(when: str) -> None:
    """A put cancelled at any moment has put nothing, and the next in line goes on."""
    scene = Scene()
    scene.topic.put(1)
    task = asyncio.ensure_future(aio.put(scene.topic, 2, timeout=5))
    if when != "unstarted":
        await turns()
    following = await begin(aio.put_many(scene.topic, [3]))
    call = scene.thread(4)
    if when == "rung":
        scene.take()
    task.cancel()
    assert isinstance(await outcome(task), asyncio.CancelledError)
    if when != "rung":
        scene.take()
    await following
    assert 3 == scene.take()
    call.result()
    assert ([4], 3) == (scene.ready(), scene.topic.stats().message_count)
    assert NOTHING == left(scene)


@pytest.mark.parametrize("end", ["close", "delete", "drain"])
@in_loop
async def test_the_topic_ends_while_a_put_waits(end: str) -> None:
    """A put that waits gets Closed when the topic is over."""
    scene = Scene()
    scene.topic.put(1)
    tasks = [await begin(aio.put(scene.topic, 2)), await begin(aio.put_many(scene.topic, [3]))]
    if end == "delete":
        scene.topic.delete()
    else:
        scene.topic.close(drain=end == "drain")
    for task in tasks:
        assert isinstance(await outcome(task), Closed)
    with pytest.raises(Closed):
        await aio.put(scene.topic, 4)
    assert {} == traces(scene.topic)


@in_loop
async def test_the_channel_ends_while_a_put_waits() -> None:
    """A put that waits for room in a channel goes on when that is deleted."""
    scene = Scene()
    other = scene.topic.channel("other")
    scene.topic.put(1)
    task = await begin(aio.put(scene.topic, 2))
    scene.channel.delete()
    await task
    assert [1, 2] == [info.body for info in other.peek()]
    assert NOTHING == left(scene)


@in_loop
async def test_a_put_that_waits_long_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """After 10 s, then 20, the log has what it waits for; looked at too early it says nothing."""
    scene = Scene()
    scene.clock.by_hand = False
    scene.topic.put(1)
    task = await begin(aio.put(scene.topic, 2))
    for seconds in (9, 1, 9, 1):
        scene.clock.advance(seconds)
        [waiter] = scene.topic._monitor.putters
        assert isinstance(waiter, Waiter)
        scene.topic._monitor.read(waiter.notify)  # as a timer does that goes off too early
        await turns()
    why = "max_depth=1, 1 ready, 0 in flight, 1 consumer"
    assert [
        f"put to orders waits for room in orders:billing for {seconds} s: {why}"
        for seconds in (10, 20)
    ] == caplog.messages
    assert 1 == len(scene.clock._sleeps)
    assert 1 == scene.take()
    await task
    assert NOTHING == left(scene)


@in_loop
async def test_a_put_that_does_not_wait_long_sets_no_timer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One that would give up before is not told of, and has its own timer alone."""
    scene = Scene()
    scene.clock.by_hand = False
    scene.topic.put(1)
    task = await begin(aio.put(scene.topic, 2, timeout=10))
    assert 1 == len(scene.clock._sleeps)
    scene.clock.advance(10)
    assert isinstance(await outcome(task), Full)
    assert [] == caplog.messages
    assert NOTHING == left(scene)


def test_a_put_of_a_closed_loop_is_skipped() -> None:
    """A put whose loop is closed has put nothing when there is room, and the next one goes on."""
    scene = Scene()
    scene.topic.put(1)
    task = abandoned(lambda: aio.put(scene.topic, 2))
    call = scene.thread(3)
    scene.take()
    call.result()
    assert ([3], False) == (scene.ready(), task.done())
    assert NOTHING == left(scene)


@in_loop
async def test_what_is_over_leaves_no_garbage() -> None:
    """What a put or join waited with is freed at once, without the collector."""
    scene = Scene()
    scene.topic.put(1)
    gc.collect()
    gc.disable()
    try:
        tasks = [await begin(aio.put(scene.topic, 2)), await begin(aio.join(scene.topic))]
        waiters = [*scene.topic._monitor.putters, *scene.topic._monitor.joins]
        gone = [weakref.ref(waiter) for waiter in waiters]
        waiters.clear()
        scene.take()
        await tasks[0]
        scene.take()
        await tasks[1]
        tasks.clear()
        assert [None, None] == [waiter() for waiter in gone]
    finally:
        gc.enable()


# Joining


def kinds(broker: nsqlite.Broker) -> list[Any]:
    topic = broker.topic("orders")
    return [topic, topic.channel("billing"), broker]


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["topic", "channel", "broker"])
@in_loop
async def test_join(kind: int) -> None:
    """A join waits until all is answered; the loop goes on meanwhile, and other joins with it."""
    clock = TellingManualClock(patience=100)
    broker = nsqlite.Broker(clock=clock)
    what = kinds(broker)[kind]
    topic = broker.topic("orders")
    assert await aio.join(what)
    topic.put_many([1, 2])
    consumer = aio.Consumer(topic.channel("billing"))
    tasks = [await begin(aio.join(what)), await begin(aio.join(what, timeout=5))]
    call = Call(what.join)
    clock.until_waiting()
    (await consumer.get()).fin()
    (await consumer.get()).req(delay=1)
    await turns()
    assert [False, False] == [task.done() for task in tasks]
    clock.advance(1)
    (await consumer.get()).fin()
    assert [True, True] == await asyncio.gather(*tasks)
    assert call.result() is True
    assert ({}, {}) == (traces(topic), clock._sleeps)


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["topic", "channel", "broker"])
@in_loop
async def test_a_join_times_out(kind: int) -> None:
    """A join returns False when its time is over, at once if it has none."""
    clock = TellingManualClock()
    broker = nsqlite.Broker(clock=clock)
    what = kinds(broker)[kind]
    broker.topic("orders").put(1)
    assert not await aio.join(what, timeout=0)
    task = await begin(aio.join(what, timeout=5))
    clock.advance(4.999999999)
    await turns()
    assert not task.done()
    clock.advance(0.000000001)
    assert not await task
    with pytest.raises(InvalidOption):
        await aio.join(what, timeout=-1)
    assert ({}, {}) == (traces(broker.topic("orders")), clock._sleeps)


@in_loop
async def test_a_join_of_a_broker_waits_for_each_topic() -> None:
    """The timeout of a broker's join is for all its topics together."""
    clock = TellingManualClock()
    broker = nsqlite.Broker(clock=clock)
    consumers = []
    for name in "ab":
        consumers.append(aio.Consumer(broker.topic(name).channel("billing")))
        broker.topic(name).put(1)
    for answered in (1, 2):
        task = await begin(aio.join(broker, timeout=5))
        clock.advance(3)
        (await consumers[answered - 1].get()).fin()
        await turns()
        assert (answered == 2) is task.done()
        clock.advance(2)
        assert (answered == 2) is await task


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["topic", "channel", "broker"])
@pytest.mark.parametrize("end", ["close", "delete"])
@in_loop
async def test_the_end_of_what_is_joined(kind: int, end: str) -> None:
    """A join raises Closed when what it waits for is closed or deleted."""
    broker = nsqlite.Broker(clock=TellingManualClock())
    topic, channel, _ = everything = kinds(broker)
    topic.put(1)
    task = await begin(aio.join(everything[kind]))
    getattr(channel if kind == 1 else topic, end)()
    assert isinstance(await outcome(task), Closed)
    assert {} == traces(topic)


@in_loop
async def test_a_drain_is_joined() -> None:
    """A join of a channel that drains ends well when it has been drained."""
    scene = Scene()
    scene.topic.put(1)
    scene.channel.close(drain=True)
    task = await begin(aio.join(scene.channel))
    scene.take()
    assert isinstance(await outcome(task), bool)
    assert scene.channel.closed


@pytest.mark.parametrize("when", ["unstarted", "waiting", "rung"])
@in_loop
async def test_a_cancelled_join(when: str) -> None:
    """A join cancelled at any moment leaves nobody behind."""
    scene = Scene()
    scene.topic.put(1)
    task = asyncio.ensure_future(aio.join(scene.topic, timeout=5))
    if when != "unstarted":
        await turns()
    if when == "rung":
        scene.take()
    task.cancel()
    assert isinstance(await outcome(task), asyncio.CancelledError)
    assert NOTHING == left(scene)


def test_a_join_of_a_closed_loop_is_forgotten() -> None:
    """A join whose loop is closed is forgotten when it would end."""
    scene = Scene()
    scene.topic.put(1)
    task = abandoned(lambda: aio.join(scene.topic))
    assert 1 == len(scene.topic._monitor.joins)
    scene.take()
    assert (NOTHING, False) == (left(scene), task.done())


@pytest.mark.parametrize(
    "call",
    [
        lambda wrong: aio.put(wrong, b"1"),
        lambda wrong: aio.put_many(wrong, [b"1"]),
        aio.join,
    ],
)
def test_what_is_no_topic(call: Any) -> None:
    """What is put to, or joined, is checked."""
    wrongs: list[Any] = [5, None, "orders"]
    for wrong in wrongs:
        with pytest.raises(InvalidOption, match="must be a Topic"):
            asyncio.run(call(wrong))


def test_an_error_of_the_topics_own_goes_on() -> None:
    """An AttributeError from within a put is not taken for a topic that is none."""

    class Broken(ManualClock):
        def _time_ns(self) -> int:
            raise AttributeError("broken")

    topic = Topic("orders", clock=Broken())
    with pytest.raises(AttributeError, match="broken"):
        asyncio.run(aio.put(topic, b"1"))


# Into a store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


def test_the_loop_writes_nothing(path: Path) -> None:
    """Puts are written by the store's thread, shown when they are written, and then returned."""
    with Kept(path) as kept:
        kept.channel()
        topic = kept.topic()
        calls = len(kept.spy.calls)

        async def put() -> list[str]:
            ids = [await aio.put(topic, b"1"), *await aio.put_many(topic, [b"2", b"3"])]
            assert [b"1", b"2", b"3"] == kept.rows()
            with kept.busy():
                together = [await begin(aio.put(topic, b"%d" % n)) for n in range(4, 9)]
            ids += await asyncio.gather(*together)
            ids.append(await aio.put(topic, b"9", delay=1000))
            return ids

        assert asyncio.run(put()) == kept.ids()
        assert threading.get_ident() not in {thread for _, thread in kept.spy.calls[calls:]}
        assert [8, 1] == [kept.channel().depth, kept.channel().deferred_count]
        assert len(kept.spy.calls) - calls <= 5


def test_the_loop_goes_on_while_a_put_is_written(path: Path) -> None:
    """While the disk is slow other tasks run; nothing is shown before it is written."""
    with Kept(path) as kept:
        channel = kept.channel()

        async def put() -> None:
            with kept.spy.held() as held:
                task = await begin(aio.put(kept.topic(), b"1"))
                await asyncio.get_running_loop().run_in_executor(None, held.until_begun)
                assert [False, 0] == [task.done(), channel.depth]
                held.let_go()
                assert 16 == len(await task)
                assert 1 == channel.depth

        asyncio.run(put())


def test_a_refused_put_is_told(path: Path) -> None:
    """What the disk refuses is raised where it is awaited, and is in no channel."""
    with Kept(path) as kept:
        channel = kept.channel()

        async def put() -> None:
            with kept.spy.failing():
                for call in (aio.put(kept.topic(), b"1"), aio.put_many(kept.topic(), [b"2"])):
                    with pytest.raises(StoreFull, match="the disk is full"):
                        await call
            await aio.put(kept.topic(), b"3")

        asyncio.run(put())
        assert [(b"3", 1)] == everything(channel)
        assert "OK" == kept.broker.health


def test_each_of_many_is_told_for_itself(path: Path) -> None:
    """Of puts that share a commit which fails, those are refused that cannot be stored alone."""
    with Kept(path) as kept:
        kept.channel()
        failures = ["shared", "first"]

        def fail(name: str) -> None:
            if name.startswith("write") and failures:
                failures.pop(0)
                raise full()

        async def put() -> list[Any]:
            with kept.spy.held() as held:
                first = await begin(aio.put(kept.topic(), b"0"))
                await asyncio.get_running_loop().run_in_executor(None, held.until_begun)
                tasks = [await begin(aio.put(kept.topic(), b"1")) for _ in "123"]
                kept.spy.before = fail
            await first
            return [await outcome(task) for task in tasks]

        results = asyncio.run(put())
        assert [StoreFull, str, str] == [type(result) for result in results]
        assert 3 == kept.channel().depth == len(kept.rows())


def test_a_cancelled_put_may_be_put(path: Path) -> None:
    """A put that is cancelled while it is written is put, once, and nothing is left behind."""
    with Kept(path) as kept:
        channel = kept.channel()

        async def put() -> None:
            with kept.spy.held() as held:
                task = await begin(aio.put(kept.topic(), b"1"))
                await asyncio.get_running_loop().run_in_executor(None, held.until_begun)
                task.cancel()
                assert isinstance(await outcome(task), asyncio.CancelledError)
            await aio.put(kept.topic(), b"2")

        asyncio.run(put())
        assert [(b"1", 1), (b"2", 1)] == kept.disk() == everything(channel)
        assert {} == traces(kept.topic())


def test_a_put_of_a_closed_loop(path: Path) -> None:
    """What a loop left behind that is closed is put all the same, and harms nobody."""
    with Kept(path) as kept:
        channel = kept.channel()
        with kept.spy.held() as held:
            task = abandoned(lambda: aio.put(kept.topic(), b"1"))
            held.until_begun()
        until(lambda: channel.depth == 1)
        kept.topic().put(b"2")
        assert [(b"1", 1), (b"2", 1)] == everything(channel)
        del task


def test_room_in_a_kept_channel(path: Path) -> None:
    """A put waits for room and then for the store; without either it raises what it must."""
    with Kept(path) as kept:
        channel = kept.channel(max_depth=1)
        consumer = nsqlite.Consumer(channel)

        async def put() -> None:
            topic = kept.topic()
            await aio.put(topic, b"1")
            with pytest.raises(Full):
                await aio.put(topic, b"2", timeout=0)
            with pytest.raises(Full):
                await aio.put(topic, b"2", timeout=0.01)
            task = await begin(aio.put(topic, b"3"))
            assert not task.done()
            consumer.get(timeout=0).fin()
            await task
            assert b"3" == consumer.get(timeout=0).body
            assert {} == traces(topic)

        asyncio.run(put())


def test_room_between_two_looks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A put that may not wait takes the room that comes after its first look, and is put once."""
    with Kept(path) as kept:
        channel = kept.channel(max_depth=1)
        topic = kept.topic()
        looks: list[object] = []

        def find_no_room(*look: object) -> bool:
            looks.append(look)
            return False

        monkeypatch.setattr(Topic, "_try", find_no_room)
        asyncio.run(aio.put(topic, b"123", timeout=0))
        assert 1 == len(looks)
        assert ([(b"123", 1)], 3) == (everything(channel), topic.stats().message_bytes)


def test_what_a_store_cannot_take(path: Path) -> None:
    """A body that is refused is so at once; a batch of nothing, and a closed topic, as ever."""
    with Kept(path) as kept:
        kept.channel()

        async def put() -> None:
            topic = kept.topic()
            for body in (b"", {"a": 1}):
                with pytest.raises(InvalidMessage):
                    await aio.put(topic, body)
            with pytest.raises(InvalidMessage):
                await aio.put_many(topic, [b"1", b""])
            assert [] == await aio.put_many(topic, [])
            topic.close()
            with pytest.raises(Closed):
                await aio.put(topic, b"1")

        asyncio.run(put())
        assert [] == kept.rows()


def test_interval_does_not_wait(path: Path) -> None:
    """With sync="interval" a put does not wait for the store."""
    with Kept(path, sync="interval") as kept:
        channel = kept.channel()

        async def put() -> None:
            with pytest.raises(StopIteration):
                aio.put(kept.topic(), b"1").send(None)
            await aio.put_many(kept.topic(), [b"2", b"3"])

        asyncio.run(put())
        assert [3, []] == [channel.depth, kept.rows()]
        kept.broker.flush()
        assert [(b"1", 1), (b"2", 1), (b"3", 1)] == kept.disk()


def test_interval_waits_if_the_store_is_behind(path: Path) -> None:
    """Where too much is shown and not written, a put waits until it is."""
    with Kept(path, sync="interval", sync_every=4) as kept:
        channel = kept.channel()

        async def put() -> None:
            with kept.busy():
                for number in range(4):
                    kept.topic().put(b"%d" % number)
                task = await begin(aio.put(kept.topic(), b"4"))
                assert not task.done()
            assert 16 == len(await task)

        asyncio.run(put())
        kept.broker.flush()
        assert 5 == channel.depth == len(kept.rows())


@in_loop
async def test_a_put_that_waits_is_not_told_as_refused() -> None:
    """Observers hear of a put that waits for room in a loop as of one in a thread."""
    topic: Topic[Any] = Topic("orders")
    consumer = aio.Consumer(topic.channel("billing", max_depth=1))
    recorder = Recorder()
    topic.observe(recorder, kinds=["waiting", "refused", "published"])
    await aio.put(topic, "a")
    for put in (lambda: aio.put(topic, "b"), lambda: aio.put_many(topic, ["c"])):
        task = await begin(put())
        (await consumer.get()).fin()
        await task
    told = [event.kind for event in recorder.events]
    assert ["published", *["waiting", "published"] * 2] == told
    with pytest.raises(Full):
        await aio.put(topic, "d", timeout=0)
    assert "refused" == recorder.events[-1].kind


@in_loop
async def test_a_put_that_is_refused_is_told_so_once() -> None:
    """A channel that refuses what is too much has a put told once."""
    topic: Topic[Any] = Topic("orders")
    topic.channel("billing", max_depth=1, when_full="raise")
    recorder = Recorder()
    topic.observe(recorder, kinds=["refused"])
    await aio.put(topic, "a")
    with pytest.raises(Full):
        await aio.put(topic, "b")
    with pytest.raises(Full):
        await aio.put_many(topic, ["b"])
    assert ["refused"] * 2 == [event.kind for event in recorder.events]


@pytest.mark.parametrize("second", [1.0, timedelta(seconds=1)])
@in_loop
async def test_seconds_or_a_timedelta(second: Seconds) -> None:
    """The delay and the timeout of a put, and of a join, can be either."""
    scene = Scene()
    await aio.put(scene.topic, 1, delay=second)
    await aio.put_many(scene.topic, [2], delay=second)
    assert [1.0, 1.0] == [info.due_in for info in scene.channel.deferred()]
    await aio.put(scene.topic, 3)
    calls = [
        aio.put(scene.topic, 4, timeout=second),
        aio.put_many(scene.topic, [4], timeout=second),
        aio.join(scene.topic, second),
        aio.join(scene.channel, timeout=second),
    ]
    tasks = [asyncio.ensure_future(call) for call in calls]
    await turns()
    scene.clock.advance(1)
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [Full, Full, bool, bool] == list(map(type, found))


# Workers, and the end of a broker


@in_loop
async def test_a_worker_is_joined_and_stopped() -> None:
    """A worker is joined as a topic is, with its first error if that is asked for, and stopped."""

    def fail(message: nsqlite.Message[Any]) -> None:
        raise LookupError(message.body)

    topic: Topic[Any] = Topic("orders")
    once = nsqlite.Retry(max_attempts=1)
    worker = nsqlite.Worker(topic.channel("billing"), fail, retry=once).start()
    topic.put("order")
    assert await aio.join(worker)
    with pytest.raises(LookupError, match="order"):
        await aio.join(worker, raise_first=True)
    await aio.stop(worker)
    assert not worker.running


@in_loop
async def test_what_is_awaited_is_checked() -> None:
    """What cannot be joined, stopped, flushed or closed is refused by name."""
    broker: Any = nsqlite.Broker()
    for call, text in (
        (aio.join("orders"), "what must be a Topic, a Channel, a Broker or a Worker, not 'orders'"),  # type: ignore[arg-type]
        (aio.join(broker, raise_first=True), "raise_first must be False, but for a worker"),
        (aio.stop(broker), "worker must be a Worker"),
        (aio.flush("orders"), "broker must be a Broker, not 'orders'"),  # type: ignore[arg-type]
        (aio.close("orders"), "broker must be a Broker, not 'orders'"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidOption, match=text):
            await call


@in_loop
async def test_a_broker_in_memory_is_closed_at_once() -> None:
    """Without a store neither flush nor close suspends, and a block closes it."""
    async with nsqlite.Broker() as broker:
        topic = broker.topic("orders")
        topic.channel("billing")
        topic.put(b"1")
        with pytest.raises(StopIteration):
            aio.flush(broker).send(None)
        with pytest.raises(StopIteration) as info:
            aio.close(broker).send(None)
        assert 1 == info.value.value
    assert topic.closed


def test_a_flush_is_done_by_the_stores_thread(path: Path) -> None:
    """It returns when what happened is in the file, and the loop has written nothing."""
    with Kept(path) as kept:
        kept.topic().put(b"1")
        kept.consumer().get(timeout=0).fin()
        calls = len(kept.spy.calls)

        async def flush() -> None:
            with kept.spy.held() as held:
                task = await begin(aio.flush(kept.broker))
                await asyncio.get_running_loop().run_in_executor(None, held.until_begun)
                assert not task.done()
                held.let_go()
                await task
            assert [] == kept.rows()
            kept.topic().pause()
            with kept.spy.failing(), pytest.raises(StoreFull):
                await aio.flush(kept.broker)

        asyncio.run(flush())
        assert threading.get_ident() not in {thread for _, thread in kept.spy.calls[calls:]}


def test_a_close_is_done_by_the_stores_thread(path: Path) -> None:
    """A block ends when all is in the file and that is free; meanwhile the loop goes on."""
    kept = Kept(path)
    kept.topic().put(b"1")
    kept.channel()
    calls = len(kept.spy.calls)
    held = Held()

    async def block() -> None:
        async with kept.broker as broker:
            assert broker is kept.broker
            kept.spy.once(held.hold)

    async def main() -> None:
        task = await begin(block())
        await asyncio.get_running_loop().run_in_executor(None, held.until_begun)
        assert not task.done()
        held.let_go()
        await task
        assert 0 == await aio.close(kept.broker)

    asyncio.run(main())
    assert threading.get_ident() not in {thread for _, thread in kept.spy.calls[calls:]}
    with Kept(path) as again:
        assert [(b"1", 1)] == everything(again.channel())


def test_a_full_disk_leaves_a_broker_open(path: Path) -> None:
    """What a close cannot write it raises, and the broker can be used; `force` gives that up."""
    kept = Kept(path)
    kept.topic().put(b"1")
    kept.consumer().get(timeout=0).fin()

    async def close() -> None:
        with kept.spy.failing():
            for _ in range(2):
                with pytest.raises(StoreFull):
                    await aio.close(kept.broker)
            assert "NOK" in kept.broker.health
        await aio.put(kept.topic(), b"2")
        with kept.spy.failing():
            await aio.close(kept.broker, force=True)

    asyncio.run(close())
    with Kept(path) as again:
        assert {(b"2", 1)} <= set(everything(again.channel()))


def test_a_close_that_fails_late_is_made_again(path: Path) -> None:
    """What could not be written after the topics were closed is written by the next `close`."""
    kept = Kept(path)
    kept.channel()
    kept.topic().put(b"1")

    async def close() -> None:
        with kept.spy.failing():
            with pytest.raises(StoreFull):
                await aio.close(kept.broker)  # the counts alone
            kept.database._flusher._thread.join(PATIENCE)
        await aio.close(kept.broker)
        with pytest.raises(Closed):
            await aio.flush(kept.broker)

    asyncio.run(close())
    with Kept(path) as again:
        assert [(b"1", 1)] == everything(again.channel())


def test_a_drain_does_not_close_the_store(path: Path) -> None:
    """A close that delivers first what is there leaves the store open until the next."""
    kept = Kept(path)
    kept.topic().put(b"1")
    consumer = kept.consumer()

    async def close() -> None:
        assert 0 == await aio.close(kept.broker, drain=True)
        consumer.get(timeout=0).fin()
        await aio.close(kept.broker)

    asyncio.run(close())
    kept.database._flusher._thread.join(PATIENCE)
    with Kept(path) as again:
        assert [] == again.rows()


def test_a_close_that_is_cancelled_closes_all_the_same(path: Path) -> None:
    """Who gives up waiting leaves a broker that the store's thread closes."""
    kept = Kept(path)
    kept.topic().put(b"1")
    kept.consumer().get(timeout=0).fin()

    async def block() -> None:
        async with kept.broker:
            kept.spy.once(held.hold)

    async def give_up() -> None:
        task = await begin(block())
        await asyncio.get_running_loop().run_in_executor(None, held.until_begun)
        task.cancel()
        assert isinstance(await outcome(task), asyncio.CancelledError)

    held = Held()
    asyncio.run(give_up())
    held.let_go()
    kept.database._flusher._thread.join(PATIENCE)
    with Kept(path) as again:
        assert [["orders", "orders:billing"], []] == [again.names(), again.rows()]


@pytest.mark.filterwarnings("ignore:.* was not closed by the end:ResourceWarning")
def test_a_process_that_ends_waits_for_a_close_that_was_cancelled(path: Path) -> None:
    """The store's thread comes to its end before the interpreter does."""
    kept = Kept(path)
    kept.topic().put(b"1")
    kept.consumer().get(timeout=0).fin()
    held = Held()
    kept.spy.once(held.hold)

    async def give_up() -> None:
        task = await begin(aio.close(kept.broker))
        await asyncio.get_running_loop().run_in_executor(None, held.until_begun)
        task.cancel()

    asyncio.run(give_up())
    ending = Call(kept.database._close_at_exit)
    held.let_go()
    assert ending.result() is None
    assert not kept.database._flusher._thread.is_alive()
    with Kept(path) as again:
        assert [] == again.rows()


def test_two_closes_at_a_time(path: Path) -> None:
    """Both return when the file is closed, and what else was asked for is not done."""
    kept = Kept(path)
    kept.topic().put(b"1")

    async def close() -> list[Any]:
        with kept.busy():
            tasks = [await begin(aio.close(kept.broker)) for _ in "12"]
            tasks.append(await begin(aio.flush(kept.broker)))
        return [await outcome(task) for task in tasks]

    first, second, flushed = asyncio.run(close())
    assert ([0, 0], Closed) == ([first, second], type(flushed))


def test_a_close_needs_a_loop(path: Path) -> None:
    """Where no loop of asyncio runs nothing is closed."""
    with Kept(path) as kept:
        with pytest.raises(NotAsyncio, match=r"close\(\)"):
            aio.close(kept.broker).send(None)
        kept.topic().put(b"1")
