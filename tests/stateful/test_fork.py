"""A fork under load: the child has a working copy, whatever the other threads were doing."""

import os
import random
import select
import threading
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from helpers import PATIENCE, Call, TellingClock, TellingManualClock

from nsqlite import Broker, Closed, Consumer, Empty, NotInFlight, Topic

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")


def in_child(work: Callable[[], None]) -> None:
    """Fork, work in the child, and check from the parent that it went well and ended."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads is the point
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            os.write(write, traceback.format_exc()[-4000:].encode())
        finally:
            os._exit(status)
    os.close(write)
    try:
        ready, _, _ = select.select([read], [], [], PATIENCE)
        if not ready:
            os.kill(pid, 9)
        report = os.read(read, 5000).decode() if ready else "the child hangs"
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(read)
    assert (0, "") == (status, report)


def use(topic: Topic[Any]) -> None:
    """Do a bit of everything on a topic and its channels."""
    topic._check()
    assert 0 == topic._monitor.waiting
    for channel in topic.channels.values():
        channel.empty()
    topic.put_many(["a", "b"])
    topic.put("later", delay=0.001)
    for channel in topic.channels.values():
        with Consumer(channel) as consumer:
            consumer.get(timeout=1).req()
            bodies = [consumer.get(timeout=1).body for _ in range(3)]
            assert ["a", "b", "later"] == sorted(bodies)
    topic.stats()
    topic._check()
    topic.close()


def test_fork_under_load() -> None:  # noqa: C901 - one scene, told in one piece
    """However the threads of the parent put and get, each child works."""
    broker = Broker()
    topic = broker.topic("orders")
    channels = [topic.channel("a"), topic.channel("b")]
    stop = threading.Event()

    def produce(seed: int) -> int:
        chance = random.Random(seed)
        count = 0
        while not stop.is_set():
            if channels[0].depth > 2000:
                topic.channels["a"].empty()
                topic.channels["b"].empty()
            topic.put(count)
            topic.put_many([count] * chance.randrange(4))
            topic.put(count, delay=0.001)
            with suppress(Closed):  # another may have deleted it just now
                broker.topic(f"t{count % 50}").put(count)
            if count % 50 == 49:
                broker.topic(f"t{chance.randrange(50)}").delete()
            count += 1
        return count

    def consume(consumer: Consumer[Any]) -> int:
        count = 0
        while not stop.is_set():
            try:
                message = consumer.get(timeout=0.01)
            except Empty:
                continue
            with suppress(NotInFlight):  # a producer may have emptied the channel just now
                if count % 5:
                    message.fin()
                else:
                    message.req()
            count += 1
        return count

    calls = [Call(partial(produce, n)) for n in range(2)]
    calls += [Call(partial(consume, Consumer(c))) for c in channels for _ in range(2)]
    try:
        for _ in range(25):
            in_child(lambda: use(topic))
    finally:
        stop.set()
    for call in calls:
        assert isinstance(call.result(), int), call.result()
    topic._check()


def test_waiters_are_gone_in_the_child() -> None:
    """Threads blocked in get, put and join exist in the parent only, and are served there."""
    clock = TellingClock()
    topic: Topic[Any] = Topic("orders", clock=clock)
    free = topic.channel("free")
    full = topic.channel("full", max_depth=1)
    consumer = Consumer(free, max_in_flight=1)
    topic.put("first")
    message = consumer.get(timeout=0)
    calls = [
        Call(Consumer(free).get),
        Call(consumer.get),
        Call(lambda: topic.put("second")),
        Call(free.join),
    ]
    for _ in calls:
        clock.until_waiting()

    def child() -> None:
        assert not topic._monitor.joins
        assert not topic._monitor.putters
        topic._check()
        assert 0 == topic._monitor.waiting
        full.empty()
        topic.put("in the child", timeout=0)
        assert "in the child" == Consumer(free).get(timeout=0).body

    in_child(child)
    assert 1 == full.depth
    full.empty()
    assert "second" == calls[0].result().body
    assert isinstance(calls[2].result(), str)
    message.fin()
    calls[0].result().fin()
    topic.put("third", timeout=0) if full.empty() else None
    calls[1].result().fin()
    assert calls[3].result() is True
    topic._check()


def test_a_manual_clock_in_the_child() -> None:
    """A manual clock works on in the child, apart from the parent's, without who slept on it."""
    clock = TellingManualClock()
    topic: Topic[Any] = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    topic.put("later", delay=5)
    consumer = Consumer(topic.channel("audit"))
    call = Call(partial(consumer.get, timeout=2))
    clock.until_waiting()

    def child() -> None:
        assert 5 == clock.advance_to_next()
        assert 1 == channel.depth

    in_child(child)
    assert 0 == channel.depth
    assert 2 == clock.advance_to_next()
    assert isinstance(call.result(), Empty)


def test_an_interpreter_that_forks_in_an_observer() -> None:
    """A fork made by an observer leaves both sides telling on."""
    topic: Topic[Any] = Topic("orders")
    topic.channel("billing")
    told: list[str] = []

    def child() -> None:
        topic.put("in the child")
        assert ["published", "published"] == told

    def observer(event: Any) -> None:
        told.append(event.kind.value)
        if event.body == "fork":
            in_child(child)

    topic.observe(observer)
    topic.put("fork")
    assert ["published"] == told
