"""Signals and destructors that come in at any moment: no lock stays held, nothing is lost."""

import asyncio
import gc
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import pytest
from helpers import Call, TellingClock

import nsqlite
from nsqlite import Broker, Consumer, NSQLiteError, Reentered, Topic, aio
from nsqlite.clock import SYSTEM
from nsqlite.delayqueue import DelayQueue
from nsqlite.monitor import QUIET
from nsqlite.testing import ManualClock

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="there is no setitimer to make a storm with"
)


class Struck(NSQLiteError):
    """Thrown by a signal handler, which may as well be an error of nsqlite that it let pass."""


@contextmanager
def signals(handler: Callable[[], object], first: float, then: float = 0) -> Iterator[None]:
    """Have a function called in the main thread, once or again and again, wherever it just is.

    What it throws into a finaliser goes nowhere.  So that it finds only ours, the collector calls
    nobody else meanwhile.
    """
    callbacks = gc.callbacks.copy()
    gc.callbacks.clear()
    lost: list[Any] = []
    hook, sys.unraisablehook = sys.unraisablehook, lost.append
    before = signal.signal(signal.SIGALRM, lambda _signum, _frame: handler())
    signal.setitimer(signal.ITIMER_REAL, first, then)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sys.unraisablehook = hook
        gc.callbacks.extend(callbacks)
    assert not [event for event in lost if not isinstance(event.exc_value, Struck)]


def storm(handler: Callable[[], object], interval: float = 0.0001) -> AbstractContextManager[None]:
    """Have a function called again and again; see `signals`."""
    return signals(handler, interval, interval)


class Lightning:
    """A handler that throws every few strikes, while it is allowed to."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.allowed = False
        self.strikes = 0

    def __call__(self) -> None:
        if self.allowed and self._random.random() < 0.5:
            self.strikes += 1
            raise Struck

    def into(self, call: Callable[[], object]) -> bool:
        """Make a call into which it may throw; say whether it did not."""
        try:
            self.allowed = True
            call()
        except Struck:
            return False
        finally:
            self.allowed = False
        return True


def is_usable(topic: Topic[Any], channels: list[nsqlite.Channel[Any]]) -> None:
    """Check from another thread that no lock is held."""

    def use() -> None:
        topic.put("probe")
        for channel in channels:
            with Consumer(channel) as consumer:
                while consumer.get(timeout=0).body != "probe":
                    pass

    assert Call(use).result() is None


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("several", [1, 4])
def test_a_storm_loses_nothing(  # noqa: C901, PLR0915 - one scene, told in one piece
    several: int,
    real: bool,
) -> None:
    """Exceptions thrown into put, get, fin and req at any instruction lose no message.

    On the system's clock time-outs and deferrals fall due inside the calls that are struck.
    """
    moved = ManualClock(patience=1000)
    later, time_out = (0.002, 0.02) if real else (1, 60)
    clock = SYSTEM if real else moved
    topic: Topic[Any] = Topic("orders", clock=clock, msg_timeout=time_out)
    channels = [topic.channel(f"c{n}") for n in range(several)]
    consumers = [Consumer(channel) for channel in channels]
    chance = random.Random(several)
    lightning = Lightning(several)
    put: set[int] = set()
    done: list[set[int]] = [set() for _ in channels]
    numbers = iter(range(10**9))

    def put_one() -> None:
        number = next(numbers)
        topic.put(number)
        put.add(number)

    def put_some() -> None:
        batch = [next(numbers) for _ in range(5)]
        topic.put_many(batch)
        put.update(batch)

    def put_later() -> None:
        number = next(numbers)
        topic.put(number, delay=later)
        put.add(number)

    def answer() -> None:
        which = chance.randrange(several)
        message = consumers[which].get(timeout=0)
        if chance.random() < 0.3:
            message.req(delay=chance.choice([0, later]))
        elif real and chance.random() < 0.1:
            pass  # it times out
        else:
            message.touch()
            done[which].add(message.body)
            message.fin()

    def answer_some() -> None:
        which = chance.randrange(several)
        batch = consumers[which].get_many(4, timeout=0)
        done[which].update(message.body for message in batch)
        consumers[which].fin_many(batch)

    calls = [put_one, put_one, put_some, put_later, answer, answer, answer, answer_some]
    with storm(lightning):
        for _ in range(30_000):
            try:
                lightning.into(chance.choice(calls))
            except nsqlite.NotInFlight:
                assert real  # a late answer
            except nsqlite.Empty:
                moved.advance(1)
    assert lightning.strikes > 100
    topic._check()
    moved.advance(10_000)
    topic._check()
    for channel, consumer, finished in zip(channels, consumers, done, strict=True):
        left = Counter[int]()
        while not channel.join(timeout=0):
            for message in consumer.get_many(1000, timeout=20):
                left[message.body] += 1
                message.fin()
        assert not put - finished - set(left), "a message is lost"
        assert not [number for number, times in left.items() if times > 1]
    topic._check()
    is_usable(topic, channels)


def shoot(call: Callable[[], object], chance: random.Random, longest: float = 0.0003) -> bool:
    """Let one signal throw into a call at any moment; say whether it struck."""

    def throw() -> None:
        raise Struck

    try:
        with signals(throw, chance.uniform(0.000005, longest)):
            call()
    except Struck:
        return True
    return False


def often(call: Callable[[], object]) -> Callable[[], None]:
    """Return a function that makes a call until something is thrown into it, or many times."""

    def again() -> None:
        for _ in range(1000):
            call()

    return again


def test_a_struck_put_leaves_nobody_asleep() -> None:
    """A message that an interrupted put brought is delivered without another call."""
    topic: Topic[int] = Topic("orders", clock=TellingClock())
    channel = topic.channel("billing")
    got: list[int] = []
    numbers = iter(range(10**9))
    chance = random.Random(1)
    strikes = 0

    def consume() -> None:
        for message in Consumer(channel):
            got.append(message.body)
            message.fin()

    calls = [Call(consume) for _ in range(3)]
    for _ in range(200):
        strikes += shoot(often(lambda: topic.put(next(numbers))), chance)
        assert channel.join(timeout=20), "a message lies beside a sleeping getter"
        assert topic._monitor.state == QUIET
    assert strikes > 100
    assert len(got) == len(set(got))
    topic.close()
    assert [None] * 3 == [call.result() for call in calls]


def test_a_struck_put_leaves_no_task_asleep() -> None:
    """A message that an interrupted put brought to an event loop is got without another call."""
    topic: Topic[int] = Topic("orders")
    channel = topic.channel("billing")
    numbers = iter(range(10**9))
    chance = random.Random(2)
    got: list[int] = []
    waits = threading.Semaphore(0)

    async def consume() -> None:
        consumer = aio.Consumer(channel)
        while True:
            waits.release()
            try:
                message = await consumer.get()
            except nsqlite.Closed:
                return
            got.append(message.body)
            message.fin()

    call = Call(lambda: asyncio.run(consume()))
    strikes = 0
    before = -1
    for _ in range(150):
        assert before == len(got) or waits.acquire(timeout=20)  # else it was struck before any put
        before = len(got)
        strikes += shoot(often(lambda: topic.put(next(numbers))), chance, 0.0002)
        assert channel.join(timeout=20), "a message lies beside a suspended task"
    assert strikes > 75
    assert len(got) == len(set(got))
    topic.close()
    assert call.result() is None


def test_a_storm_over_blocked_threads() -> None:
    """Threads that wait are served although the putting thread is struck all the time."""
    topic: Topic[Any] = Topic("orders")
    channels = [topic.channel("a"), topic.channel("b")]
    lightning = Lightning(7)
    put: list[int] = []

    def consume(consumer: Consumer[int]) -> list[int]:
        seen = []
        for message in consumer:
            seen.append(message.body)
            message.fin()
        return seen

    calls = [
        (channel, Call(partial(consume, Consumer(channel)))) for channel in channels for _ in "12"
    ]
    with storm(lightning):
        for number in range(3000):
            put += [number] if lightning.into(partial(topic.put, number)) else []
    topic.close(drain=True)
    seen = {channel: Counter[int]() for channel in channels}
    for channel, call in calls:
        seen[channel].update(call.result())
    assert lightning.strikes > 5
    for counts in seen.values():
        assert set(put) <= set(counts)
        assert {1} == set(counts.values())


def test_a_storm_over_a_blocked_get() -> None:
    """A get that is struck while it waits leaves the line, and the message goes to the next."""
    clock = TellingClock()
    topic: Topic[Any] = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    lightning = Lightning(3)
    seen: list[int] = []

    def produce() -> None:
        for number in range(300):
            topic.put(number)

    producer = Call(produce)

    def get() -> None:
        message = consumer.get(timeout=0.5)
        seen.append(message.body)
        message.fin()

    with storm(lightning, 0.0002):
        while len(seen) < 250:
            lightning.into(get)
    assert producer.result() is None
    topic._check()
    consumer.close()
    last = Consumer(channel)
    while channel.depth:
        seen.append(last.get(timeout=0).body)
    held = {info.body for info in channel.in_flight(1000)}
    assert set(range(300)) == set(seen) | held


@pytest.mark.parametrize("several", [1, 3])
def test_a_handler_may_put(several: int) -> None:
    """What a signal handler puts in the middle of another call reaches every channel, once."""
    topic: Topic[Any] = Topic("orders")
    channels = [topic.channel(f"c{n}") for n in range(several)]
    consumers = [Consumer(channel) for channel in channels]
    ids: list[str] = []
    with storm(lambda: ids.append(topic.put("from a handler")), 0.0003):
        for number in range(1500):
            ids.append(topic.put(number))
            ids += topic.put_many([number, number])
            for consumer in consumers:
                for message in consumer.get_many(2, timeout=0):
                    message.req()
    topic._check()
    assert len(ids) > 4500
    assert len(ids) == len(set(ids))
    for channel, consumer in zip(channels, consumers, strict=True):
        assert channel.depth == len(ids)
        assert set(ids) == {message.id for message in consumer.get_many(len(ids), timeout=0)}


def test_a_handler_may_finish_and_close() -> None:
    """A handler that answers and closes in the middle of another call does no harm."""
    broker = Broker()
    topic = broker.topic("orders")
    channel = topic.channel("billing")
    keeper = Consumer(channel)
    topic.put_many(range(200))
    mine = keeper.get_many(200)
    refused: set[str] = set()

    def strike() -> None:
        if mine:
            message = mine.pop()
            message.touch()
            message.fin()
        try:
            Consumer(topic.channel("other")).close()
        except Reentered as error:
            refused.add(error.call)

    with storm(strike, 0.0001):
        for _ in range(100_000):
            topic.put("x")
            topic.put("y", delay=100)
            channel.stats()
            if not mine:
                break
    assert refused <= {"Consumer", "channel"}
    assert (200, 0) == (keeper.stats().finish_count, keeper.in_flight_count)
    assert channel.stats().message_count == channel.depth + channel.deferred_count + 200
    topic._check()
    with storm(broker.close, 0.002), pytest.raises(nsqlite.Closed):
        for _ in range(100_000):
            topic.put_many(["x", "y"])
    assert topic.closed
    topic._check()


def test_a_handler_may_let_an_error_of_ours_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a handler throws interrupts the operation, though the operation might raise it too."""
    topic: Topic[Any] = Topic("orders", clock=ManualClock())
    channel = topic.channel("billing")
    make = DelayQueue[Any].bucket

    def make_and_be_struck(queue: DelayQueue[Any], due: int) -> list[Any]:
        make(queue, due)
        raise nsqlite.Closed("something else")

    with monkeypatch.context() as patch, pytest.raises(nsqlite.Closed, match="something else"):
        patch.setattr(DelayQueue, "bucket", make_and_be_struck)
        topic.put("x", delay=1)
    channel._check()


def test_a_handler_cannot_wait() -> None:
    """A get that would wait inside another call of its thread raises Reentered."""
    topic: Topic[Any] = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    outcomes: Counter[str] = Counter()

    def strike() -> None:
        try:
            consumer.get(timeout=0.00001)
        except NSQLiteError as error:
            outcomes[type(error).__name__] += 1

    with storm(strike, 0.0002):
        for _ in range(3000):
            topic.put_many(["x"] * 3)
            topic.channel("billing").empty()
    assert {"Empty", "Reentered"} >= set(outcomes)
    topic._check()


class Body:
    """A body whose destructor uses the topic."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    def __del__(self) -> None:
        self.call()


@pytest.mark.parametrize("drop", ["empty", "delete", "close", "drop oldest", "drop newest"])
def test_destructors_run_after_the_lock(drop: str) -> None:
    """A body that is dropped is destroyed when the lock is free, and its destructor may put."""
    topic: Topic[Any] = Topic("orders")
    other = topic.channel("other")
    if drop.startswith("drop"):
        channel = topic.channel("billing", max_depth=1, when_full=drop)  # type: ignore[arg-type]  # one of two
    else:
        channel = topic.channel("billing")
    seen: list[Any] = []

    def destructor() -> None:
        seen.append(Call(lambda: topic.stats().topic_name).result())
        try:
            topic.put("from a destructor")
        except nsqlite.Closed:
            seen.append("closed")

    topic.pause()
    topic.channel("other").pause()
    topic.put(Body(destructor))
    topic.unpause()
    other.empty()
    if drop.startswith("drop"):
        topic.put("one more")
        if drop == "drop newest":
            topic.put(Body(destructor))
            other.empty()
    else:
        getattr(channel, drop)()
    gc.collect()
    assert "orders" == seen[0]
    topic._check()


def test_destructors_of_the_collector() -> None:
    """A destructor run by the cyclic collector may put in the middle of any call."""
    topic: Topic[Any] = Topic("orders")
    channel = topic.channel("billing")
    topic.channel("other")
    consumer = Consumer(channel)
    ids: list[str] = []

    class Cycle:
        """Garbage that puts when it is found."""

        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            ids.append(topic.put("from the collector"))

    before = gc.get_threshold()
    gc.set_threshold(5, 2, 2)
    try:

        def work() -> None:
            for number in range(2000):
                Cycle()
                ids.append(topic.put(number))
                ids.extend(topic.put_many([number] * 3))
                for message in consumer.get_many(3, timeout=0):
                    message.req()

        assert Call(work).result() is None
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert len(ids) == len(set(ids)) == channel.depth > 9000
    topic._check()
