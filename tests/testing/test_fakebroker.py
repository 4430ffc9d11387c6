"""A fake broker runs handlers when a test says so, and records what happens."""

import asyncio
import contextlib
import gc
import inspect
import logging
import re
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import PATIENCE, Call, bodies
from worker.scenes import Disaster, Failure

import nsqlite
from nsqlite import (
    App,
    ClockStandsStill,
    InvalidOption,
    Message,
    NotAsyncio,
    Reentered,
    Retry,
    StillBusy,
    TakeOver,
    Topic,
    Worker,
    aio,
)
from nsqlite.options import TopicOptions
from nsqlite.testing import FakeBroker, ManualClock, MemoryStore
from nsqlite.testing.fakebroker import Mode

pytestmark = pytest.mark.usefixtures("no_log")

HOUR = 3600.0


class Notes:
    """A handler that notes what it is called with, when and where."""

    def __init__(self, broker: FakeBroker) -> None:
        self._clock = broker.clock
        self._begun = broker.clock.time()
        self.seen: list[tuple[float, Any]] = []
        self.threads: set[threading.Thread] = set()

    def __call__(self, message: Message[Any]) -> None:
        """Note it; fail if the message says so."""
        self.threads.add(threading.current_thread())
        self.seen.append((round(self._clock.time() - self._begun, 3), message.body))
        if message.body == b"bad":
            raise Failure("no")

    async def call(self, message: Message[Any]) -> None:
        """Do the same, as a coroutine function."""
        await asyncio.sleep(0)
        self(message)


def test_fake_broker_has_a_manual_clock() -> None:
    """What is deferred comes when the clock is moved."""
    broker = FakeBroker()
    channel = broker.topic("orders").channel("billing")
    broker.topic("orders").put(b"1", delay=5)
    broker.clock.advance(5)
    assert channel.depth == 1


def test_its_mode_is_one_of_three() -> None:
    """Any other is refused."""
    with pytest.raises(InvalidOption) as caught:
        FakeBroker(mode="eager")  # type: ignore[arg-type]  # on purpose
    assert ("mode must be one of 'captured', 'inline', 'real', not 'eager'") == str(caught.value)


# Captured


def test_its_options_are_known() -> None:
    """Of an option that is unknown it is told which there are, its own among them."""
    own = inspect.signature(FakeBroker).parameters.keys() - {"options"}
    known = ", ".join(sorted(own | TopicOptions.__annotations__.keys()))
    text = f"option must be one of {known} (did you mean 'seed'?), not 'sed'"
    with pytest.raises(InvalidOption, match=f"^{re.escape(text)}$"):
        FakeBroker(sed=5)  # type: ignore[call-arg]


def test_captured_workers_start_nothing() -> None:
    """Nothing runs until the test asks, and then in its own thread, and in order."""
    with FakeBroker() as broker:
        notes = Notes(broker)
        topic = broker.topic("orders")
        before = threading.enumerate()
        with Worker(topic.channel("billing"), notes) as worker:
            topic.put(b"1", delay=HOUR)
            topic.put(b"2")
            assert (before, []) == (threading.enumerate(), notes.seen)
            assert HOUR == broker.run_until_idle()
            assert [(0, b"2"), (HOUR, b"1")] == notes.seen
            assert {threading.current_thread()} == notes.threads
            assert worker.running
    assert not worker.running


def test_step_by_step() -> None:
    """A step calls one handler, each worker's in its turn; drain calls all, and no time goes by."""
    with FakeBroker() as broker:
        notes = Notes(broker)
        for name in ("a", "b"):
            topic = broker.topic(name)
            topic.put_many([name + "1", name + "2", name + "3"])
            Worker(topic.channel("c"), notes).start()
        broker.topic("a").put("later", delay=1)
        assert broker.run_one()
        assert broker.run_one()
        assert 4 == broker.drain()
        assert not broker.run_one()
        assert ["a1", "b1", "a2", "b2", "a3", "b3"] == [body for _, body in notes.seen]
        assert 1 == broker.topic("a").channel("c").deferred_count


def test_steps_of_a_coroutine_function() -> None:
    """Each has an event loop of its own; in a loop it is refused, and the message stays."""
    with FakeBroker() as broker:
        notes = Notes(broker)
        topic = broker.topic("orders")
        topic.put_many([b"1", b"2"])
        Worker(topic.channel("billing"), notes.call).start()
        assert broker.run_one()

        async def main() -> None:
            with pytest.raises(Reentered) as caught:
                broker.run_one()
            assert (
                "run_one() would wait here for its own end: await nsqlite.aio.join(broker,"
                " timeout=0), which handles all that is ready"
            ) == str(caught.value)

        asyncio.run(main())
        assert 1 == broker.drain()
        assert [(0, b"1"), (0, b"2")] == notes.seen


def test_coroutine_functions_share_the_loop_of_a_call() -> None:
    """What one of them makes in its loop, as a client's session, the others can use there."""

    async def note(_: Message[Any]) -> None:
        loops.append(asyncio.get_running_loop())

    for call in (FakeBroker.drain, FakeBroker.run_until_idle):
        with FakeBroker() as broker:
            loops: list[Any] = []
            topic = broker.topic("orders")
            with Worker(topic.channel("a"), note), Worker(topic.channel("b"), note):
                topic.put_many(range(3))
                call(broker)
        assert (6, 1) == (len(loops), len(set(loops))), call


def test_a_loop_has_all_handled_that_is_ready() -> None:
    """As the errors say of calls that would keep it from going on; the clock stands."""

    async def main() -> None:
        with pytest.raises(Reentered, match=r"await nsqlite.aio.join\(broker, timeout=0\), which"):
            broker.drain()
        whats: tuple[Any, ...] = (topic, channel, broker)
        for what in whats:
            with pytest.raises(Reentered) as caught:
                what.join(1)
            expected = "join() would wait here for its own end: await nsqlite.aio.join()"
            assert ("join", expected) == (caught.value.call, str(caught.value))
        assert not await aio.join(broker, timeout=0)

    with FakeBroker() as broker:
        notes = Notes(broker)
        topic = broker.topic("orders")
        channel = topic.channel("billing")
        topic.put_many([b"1", b"2"])
        topic.put(b"3", delay=1)
        with Worker(channel, notes.call):
            asyncio.run(main())
            assert [(0, b"1"), (0, b"2")] == notes.seen


def test_joins_run_the_handlers() -> None:
    """A join of a worker, a channel, a topic or the broker does, and moves the clock if need be."""
    with FakeBroker() as broker:
        notes = Notes(broker)
        topic = broker.topic("orders")
        channel = topic.channel("billing")
        with Worker(channel, notes) as worker:
            for number, what in enumerate((worker, channel, topic, broker)):
                topic.put(number, delay=10)
                assert not what.join(9)  # type: ignore[attr-defined]  # each has it
                assert what.join()  # type: ignore[attr-defined]
        assert [(10, 0), (20, 1), (30, 2), (40, 3)] == notes.seen


def test_joins_in_a_loop_run_the_handlers() -> None:
    """So does aio.join, of all of these."""

    async def main() -> list[tuple[float, Any]]:
        async with FakeBroker() as broker:
            notes = Notes(broker)
            topic = broker.topic("orders")
            channel = topic.channel("billing")
            async with Worker(channel, notes.call) as worker:
                with pytest.raises(Reentered):
                    worker.join()
                whats: tuple[Any, ...] = (worker, channel, topic, broker)
                for number, what in enumerate(whats):
                    await aio.put(topic, number, delay=10)
                    assert not await aio.join(what, 9)
                    assert await aio.join(what)
            assert not worker.running
        return notes.seen

    assert [(10, 0), (20, 1), (30, 2), (40, 3)] == asyncio.run(main())


def test_join_raises_the_first_error() -> None:
    """With raise_first; it ends in the handler."""
    with FakeBroker() as broker:
        topic = broker.topic("orders")
        with Worker(topic.channel("billing"), Notes(broker)) as worker:
            topic.put(b"bad")
            with pytest.raises(Failure) as caught:
                worker.join(raise_first=True)
        assert "__call__" == caught.traceback[-1].name


@pytest.mark.parametrize(
    ("mode", "call"),
    [
        ("captured", "run_until_idle"),
        ("captured", "drain"),
        ("inline", "run_until_idle"),
        ("real", "run_until_idle"),
    ],
)
def test_an_app_fails_fast(mode: Any, call: str) -> None:
    """The first error of any handler is raised when its message is settled; the rest stays."""
    app = App()
    seen: list[Any] = []

    @app.handler("orders", "archive")
    def archive(message: Message[Any]) -> None:
        seen.append(message.body)

    @app.handler("orders", "billing", retry=Retry(delay=5, jitter=False))
    def bill(message: Message[Any]) -> None:
        raise Failure(message.body)

    with FakeBroker(mode=mode) as broker, app.running(broker):
        channel = broker.topic("orders").channel("billing")
        broker.topic("orders").put("one")
        with pytest.raises(Failure, match="one") as caught:
            getattr(broker, call)(raise_first=True)
        told = "".join(traceback.format_exception(caught.value))  # a thread's is in a note
        assert "in bill\n    raise Failure(message.body)" in told
        assert (["one"], 1) == (seen, channel.stats().deferred_count)


def test_an_app_fails_fast_in_a_loop() -> None:
    """Also with coroutine functions, of which a second one is not begun."""

    async def main() -> None:
        with FakeBroker() as broker:
            notes = Notes(broker)
            topic = broker.topic("orders")
            async with Worker(topic.channel("billing"), notes.call):
                topic.put_many([b"bad", b"good"])
                with pytest.raises(Failure) as caught:
                    await broker.until_idle(raise_first=True)
                assert "__call__" == caught.traceback[-1].name
                assert [(0, b"bad")] == notes.seen

    asyncio.run(main())


def test_a_drain_of_coroutine_functions_fails_fast() -> None:
    """Nothing is handled after the first error, and nothing at all if there was one."""
    with FakeBroker() as broker:
        notes = Notes(broker)
        topic = broker.topic("orders")
        with Worker(topic.channel("billing"), notes.call):
            topic.put_many([b"bad", b"good"])
            for _ in range(2):
                with pytest.raises(Failure):
                    broker.drain(raise_first=True)
            assert [(0, b"bad")] == notes.seen
            assert 1 == broker.drain()


def test_nothing_fails_fast_that_succeeds() -> None:
    """All is done as without it, and what a handler asks for is no failure."""
    with FakeBroker() as broker:
        orders = broker.topic("orders")

        def once_more(message: Message[Any]) -> None:
            if message.attempts == 1:
                raise nsqlite.Requeue(5)

        with Worker(orders.channel("billing"), once_more):
            orders.put(1)
            assert 5 == broker.run_until_idle(raise_first=True)
            orders.put(2)
            assert 1 == broker.drain(raise_first=True)


def test_a_join_of_what_nobody_handles() -> None:
    """It waits for ever, and is told so."""
    with FakeBroker(clock=ManualClock(patience=0.01)) as broker:
        broker.topic("orders").channel("billing")
        broker.topic("orders").put(b"1")
        with (
            Worker(broker.topic("other").channel("c"), print),
            pytest.raises(ClockStandsStill, match=r"join\(\) of topic 'orders' waits for ever"),
        ):
            broker.topic("orders").join()


def test_a_put_that_waits_for_a_captured_handler() -> None:
    """It is told that this is for the test to call."""
    with FakeBroker(clock=ManualClock(patience=0.01)) as broker:
        topic = broker.topic("orders")
        with Worker(topic.channel("billing", max_depth=1), print):
            topic.put(1)
            with pytest.raises(ClockStandsStill, match=r"put\(\) to topic 'orders'") as caught:
                topic.put(2)
            [note] = caught.value.__notes__
            assert "call run_until_idle() or drain() of the broker before" in note
            assert 1 == broker.drain()


def test_an_endless_schedule_is_told_of() -> None:
    """The error names what is next, and whose it is."""
    with FakeBroker() as broker:
        topic = broker.topic("orders")
        with Worker(topic.channel("billing"), lambda _: nsqlite.Requeue(60, counted=False)):
            topic.put(b"1")
            with pytest.raises(StillBusy) as caught:
                broker.run_until_idle(limit=600)
    assert (
        "run_until_idle() has no end: after 600 s on the clock there is in 60 s a deferred message"
        " in channel 'billing' of topic 'orders'; end what goes on, or give it a higher limit"
    ) == str(caught.value)


def test_an_endless_moment_is_told_of() -> None:
    """A handler that always puts again comes to its end after 100,000 messages."""
    with FakeBroker() as broker:
        topic = broker.topic("orders")
        broker.observe(lambda _: None)
        with Worker(topic.channel("billing"), lambda m: topic.put(m.body)):
            topic.put(b"1")
            with pytest.raises(StillBusy) as caught:
                broker.run_until_idle()
    assert (
        "run_until_idle() has no end: after 100000 messages at one moment there is one more for"
        " worker 'orders:billing'; end what goes on, or give it a higher limit"
    ) == str(caught.value)


def test_what_the_test_holds_times_out() -> None:
    """Its time-out is a deadline; then a worker gets it."""
    with FakeBroker(msg_timeout=60) as broker:
        notes = Notes(broker)
        topic = broker.topic("orders")
        channel = topic.channel("billing")
        topic.put(b"1")
        message = nsqlite.Consumer(channel).get(timeout=0)
        with Worker(channel, notes):
            with pytest.raises(StillBusy, match="there is in 60 s the time-out of a message in fl"):
                broker.run_until_idle(limit=1)
            assert 60 == broker.run_until_idle()
        assert ("timed out", [(60, b"1")]) == (str(message.state), notes.seen)


def test_a_backoff_is_a_deadline() -> None:
    """A worker that is held back goes on when its time has come."""
    with FakeBroker() as broker:
        notes = Notes(broker)
        topic = broker.topic("orders")
        retry = Retry.nsq(max_attempts=2, requeue_delay=0)
        with Worker(topic.channel("billing"), notes, retry=retry):
            topic.put_many([b"bad", b"1"])
            with pytest.raises(StillBusy) as caught:
                broker.run_until_idle(limit=1)
            assert (
                "run_until_idle() has no end: after 1 s on the clock there is in 2 s the end of"
                " what holds back worker 'orders:billing', or its time limit; end what goes on, or"
                " give it a higher limit"
            ) == str(caught.value)
            assert 10 > broker.run_until_idle()
        assert [b"bad", b"1", b"bad"] == [body for _, body in notes.seen]


def test_a_coroutine_function_has_a_time_limit() -> None:
    """The clock moves to it while the handler waits in nsqlite, at once; else after `patience`."""
    for hang in (False, True):
        with FakeBroker(clock=ManualClock(patience=0.01)) as broker:
            topic = broker.topic("orders")
            never = aio.Consumer(broker.topic("never").channel("c"))

            async def wait(_: Message[Any], *, hang: bool = hang, never: Any = never) -> None:
                await (asyncio.Event().wait() if hang else never.get())

            topic.put(b"1")
            once = Retry(max_attempts=1)
            with Worker(topic.channel("billing"), wait, retry=once, time_limit=30) as worker:
                assert 30 == broker.run_until_idle()
                assert 1 == worker.stats().given_up


def test_a_coroutine_function_waits_on_the_clock() -> None:
    """Then it moves on; and it is given time for what is elsewhere."""
    with FakeBroker() as broker:
        topic = broker.topic("orders")
        consumer = aio.Consumer(broker.topic("never").channel("c"))
        told: list[float] = []

        async def wait(_: Message[Any]) -> None:
            await asyncio.sleep(0.002)
            with contextlib.suppress(nsqlite.Empty):
                await consumer.get(timeout=5)
            told.append(broker.clock.time())

        topic.put(b"1")
        with Worker(topic.channel("billing"), wait):
            assert 5 == broker.run_until_idle()
        assert [1_700_000_005] == told


def test_a_coroutine_function_ends_while_it_is_waited_for() -> None:
    """In real time: it awaits a thread, which takes none of the clock's."""

    async def work(_: Message[Any]) -> None:
        await asyncio.to_thread(threading.Event().wait, 0.01)

    async def main() -> float:
        async with FakeBroker() as broker:
            topic = broker.topic("orders")
            async with Worker(topic.channel("billing"), work):
                topic.put_many(range(5))
                seconds = await broker.until_idle()
                assert 5 == len(broker.history.finished())
                return seconds

    assert 0 == asyncio.run(main())


def test_a_handler_that_waits_for_ever() -> None:
    """It is told of after the clock's patience, cancelled, and its message goes back."""
    with FakeBroker(clock=ManualClock(patience=0.01)) as broker:
        topic = broker.topic("orders")
        channel = topic.channel("billing")

        async def hang(_: Message[Any]) -> None:
            await asyncio.Event().wait()

        topic.put(b"1")
        with Worker(channel, hang):
            with pytest.raises(StillBusy) as caught:
                broker.run_until_idle()
            assert [0] == [one.attempts for one in channel.peek()]
        [one] = channel.peek()
        line = hang.__code__.co_firstlineno + 1
        assert (
            "run_until_idle() has no end: after up to 0.01 s of real time there is worker"
            f" 'orders:billing' at work on message {one.id} b'1', which awaits"
            f" asyncio.Event.wait() at test_fakebroker.py:{line}; end what goes on, or"
            " give it a higher limit"
        ) == str(caught.value)
        [note] = caught.value.__notes__
        assert (
            "a handler that waits for something else than the clock holds it for 0.01 s, its"
            " patience: see ManualClock(patience=...)"
        ) == note


async def put_more(broker: FakeBroker, _: Message[Any]) -> None:
    """Fill a bounded channel."""
    for number in range(3):
        await aio.put(broker.topic("mails"), number)


CALLS: dict[str, Callable[[FakeBroker, Worker], object]] = {
    "run_until_idle": lambda broker, _: broker.run_until_idle(),
    "drain": lambda broker, _: broker.drain(),
    "run_one": lambda broker, _: broker.run_one(),
    "join": lambda broker, _: broker.join(timeout=5),
    "until_idle": lambda broker, _: asyncio.run(broker.until_idle()),
    "aio.join": lambda broker, _: asyncio.run(aio.join(broker, timeout=5)),
    "aio.drain": lambda _, worker: asyncio.run(aio.drain(worker)),
    "worker.drain": lambda _, worker: worker.drain(),
    "worker.join": lambda _, worker: worker.join(timeout=5),
}
"""All that has handlers run in the caller."""


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("mode", ["captured", "inline"])
@pytest.mark.parametrize("call", CALLS)
def test_a_coroutine_function_waits_for_another_handler(
    call: str, mode: Mode, *, is_async: bool
) -> None:
    """That one is called meanwhile, as the put waits for it."""
    with FakeBroker(mode=mode) as broker:
        notes = Notes(broker)
        channel = broker.topic("mails").channel("send", max_depth=1)
        bill = Worker(broker.topic("orders").channel("billing"), partial(put_more, broker))
        with Worker(channel, notes.call if is_async else notes), bill:
            broker.topic("orders").put("order 1")
            CALLS[call](broker, bill)
            assert bill.channel._done()
            broker.run_until_idle()
        assert [0, 1, 2] == [body for _, body in notes.seen]


@pytest.mark.parametrize("wait", ["get", "put", "join", "other"])
@pytest.mark.parametrize("call", CALLS)
def test_a_coroutine_function_waits_for_nobody(call: str, wait: str) -> None:
    """It is named and cancelled, whoever has called it, and its message goes back."""
    with FakeBroker(clock=ManualClock(patience=0.01)) as broker:
        full = broker.topic("full")
        never = aio.Consumer(full.channel("never", max_depth=1), max_in_flight=0)
        full.put(0)

        async def hang(_: Message[Any]) -> None:
            match wait:
                case "get":
                    await never.get()
                case "put":
                    await aio.put(full, 1)
                case "join":
                    await aio.join(full)
                case "other":
                    await asyncio.get_running_loop().create_future()

        channel = broker.topic("orders").channel("billing")
        broker.topic("orders").put("order 1")
        with Worker(channel, hang) as worker:
            with pytest.raises(StillBusy, match="worker 'orders:billing' at work on") as caught:
                CALLS[call](broker, worker)
            assert [0] == [one.attempts for one in channel.peek()]
        names = {"get": "nsqlite.aio.Consumer.get() ", "other": ""}
        awaited = names.get(wait, f"nsqlite.aio.{wait}() ")
        assert f"'order 1', which awaits {awaited}at test_fakebroker.py:" in str(caught.value)


def test_a_coroutine_function_waits_longer_than_is_allowed() -> None:
    """It is told of when that is over, and how far ahead its own moment is."""
    with FakeBroker(clock=ManualClock(patience=0.01)) as broker:
        consumer = aio.Consumer(broker.topic("never").channel("c"))

        async def wait(_: Message[Any]) -> None:
            await consumer.get(timeout=8)

        topic = broker.topic("orders")
        topic.put("order 1")
        with Worker(topic.channel("billing"), wait) as worker:
            limit = "join() of worker 'orders:billing' has no end: after 5 s on the clock and up to"
            with pytest.raises(StillBusy) as caught:
                worker.join(timeout=5)
            assert str(caught.value).startswith(f"{limit} 0.01 s of real time there is worker")
            assert "the clock's next deadline is 3 s ahead" == caught.value.__notes__[-1]
            with pytest.raises(StillBusy, match="in 8 s an event loop; end"):
                broker.run_until_idle(limit=2)
            topic.channel("billing").empty()


def test_a_handler_that_waits_has_its_other_slots_used() -> None:
    """As far as there are some."""
    with FakeBroker() as broker:
        never = aio.Consumer(broker.topic("never").channel("c"))
        begun: list[tuple[float, int]] = []

        async def wait(message: Message[int]) -> None:
            begun.append((broker.clock.time() - 1_700_000_000, message.body))
            with contextlib.suppress(nsqlite.Empty):
                await never.get(timeout=5)

        topic = broker.topic("orders")
        topic.put_many(range(3))
        with Worker(topic.channel("billing"), wait, concurrency=2):
            assert 10 == broker.run_until_idle()
        assert [(0, 0), (0, 1), (5, 2)] == begun


def test_who_is_not_of_nsqlite_has_another_handler_called() -> None:
    """After the clock's patience; so it may wait for whatever that one does."""
    with FakeBroker(clock=ManualClock(patience=0.01)) as broker:
        events: list[asyncio.Event] = []

        async def wait(_: Message[Any]) -> None:
            events.append(asyncio.Event())
            await events[0].wait()
            await asyncio.sleep(0.002)

        def set_it(message: Message[Any]) -> None:
            if message.body == "now":
                events[0].set()

        one, other = broker.topic("one"), broker.topic("other")
        one.put(1)
        other.put_many(["not yet", "now"])
        with Worker(one.channel("c"), wait), Worker(other.channel("c"), set_it):
            assert 0 == broker.run_until_idle()
        assert (0, 0) == (one.channel("c").in_flight_count, other.channel("c").in_flight_count)


def test_a_thread_ends_what_a_coroutine_function_waits_for() -> None:
    """It is given the clock's patience."""
    with FakeBroker(clock=ManualClock(patience=60)) as broker:
        mails = broker.topic("mails")
        consumer = nsqlite.Consumer(mails.channel("send", max_depth=1))
        gate = threading.Event()

        def take() -> None:
            gate.wait()
            threading.Event().wait(0.03)
            for _ in range(3):
                consumer.get().fin()

        async def fill(message: Message[Any]) -> None:
            gate.set()
            await put_more(broker, message)

        thread = threading.Thread(target=take)
        thread.start()
        topic = broker.topic("orders")
        topic.put(1)
        with Worker(topic.channel("billing"), fill):
            assert 1 == broker.drain()
        thread.join()
        assert 0 == mails.channel("send").depth


def test_a_coroutine_function_waits_for_the_store() -> None:
    """Its thread is waited for, as ever."""
    with FakeBroker(store=MemoryStore()) as broker:

        async def flush(_: Message[Any]) -> None:
            await aio.flush(broker)

        topic = broker.topic("orders")
        topic.put(b"1")
        with Worker(topic.channel("billing"), flush):
            assert 0 == broker.run_until_idle()
        assert 0 == topic.channel("billing").depth


@pytest.mark.parametrize(("timeout", "left"), [(None, 1), (5, 0)])
def test_who_fails_fast_leaves_what_waits(timeout: float | None, left: int) -> None:
    """A handler at work is seen to its end by the clock, else cancelled; nothing new is begun."""
    with FakeBroker() as broker:
        never = aio.Consumer(broker.topic("never").channel("c"))

        async def wait(_: Message[Any]) -> None:
            with contextlib.suppress(nsqlite.Empty):
                await never.get(timeout=timeout)

        one, other = broker.topic("one"), broker.topic("other")
        one.put(b"1")
        other.put_many([b"bad", b"good"])
        notes = Notes(broker)
        with Worker(one.channel("c"), wait), Worker(other.channel("c"), notes):
            with pytest.raises(Failure):
                broker.run_until_idle(raise_first=True)
            assert [(0, b"bad")] == notes.seen
            assert left == one.channel("c").depth


def test_a_handler_of_another_library_that_hangs() -> None:
    """It is named, without a line of the program."""
    with FakeBroker(clock=ManualClock(patience=0.01)) as broker:
        topic = broker.topic("orders")
        one = topic.put("order 1")
        with (
            Worker(topic.channel("billing"), partial(asyncio.sleep, 3600)),
            pytest.raises(StillBusy, match=f"at work on message {one} 'order 1'; end what"),
        ):
            broker.drain()


def test_disaster_goes_to_the_caller() -> None:
    """The worker is over, as ever."""

    async def end_async(_: Message[Any]) -> None:
        raise Disaster

    def end(_: Message[Any]) -> None:
        raise Disaster

    for handler in (end, end_async):
        with FakeBroker() as broker:
            topic = broker.topic("orders")
            topic.put(b"1")
            worker = Worker(topic.channel("billing"), handler).start()
            with pytest.raises(Disaster):
                broker.run_until_idle()
            assert isinstance(worker.broken, Disaster)
            assert not worker.running


def test_a_worker_ends_with_its_channel() -> None:
    """As soon as somebody asks for its messages."""
    with FakeBroker() as broker:
        channel = broker.topic("orders").channel("billing")
        worker = Worker(channel, print).start()
        channel.close()
        assert not broker.run_one()
        assert not worker.running


def test_what_was_taken_over_goes_back() -> None:
    """Nobody is there to wait for an answer when a worker is stopped."""
    with FakeBroker() as broker:
        topic = broker.topic("orders")
        channel = topic.channel("billing")
        topic.put(b"1")
        with Worker(channel, lambda _: TakeOver()):
            broker.drain()
            assert 1 == channel.in_flight_count
        assert [b"1"] == bodies(channel)


def test_an_app_is_captured() -> None:
    """Both in `running` and in `run`, which ends when nothing is left."""
    app = App()
    seen: list[bytes] = []

    @app.handler("orders", "billing")
    def bill(message: Message[Any]) -> None:
        seen.append(message.body)
        if message.body == b"stop":
            app.stop()

    with FakeBroker() as broker:
        topic = broker.topic("orders")
        with app.running(broker):
            topic.put(b"1", delay=HOUR)
            assert [] == seen
            broker.run_until_idle()
        topic.put(b"2", delay=HOUR)
        app.run(broker)
        topic.put_many([b"stop", b"left"])
        app.run(broker)
    assert [b"1", b"2", b"stop"] == seen


def test_real_workers_are_stopped_with_the_broker() -> None:
    """Threads and tasks, which nobody stopped before."""
    with FakeBroker(mode="real") as broker:
        notes = Notes(broker)
        topic = broker.topic("orders")
        workers = [Worker(topic.channel("a"), notes), Worker(topic.channel("b"), notes.call)]
        for worker in workers:
            worker.start()
        topic.put(b"1", delay=HOUR)
        assert HOUR == broker.run_until_idle()
    assert [(HOUR, b"1")] * 2 == notes.seen
    assert threading.current_thread() not in notes.threads
    assert [False, False] == [worker.running for worker in workers]


@pytest.mark.parametrize("call", ["run_one", "drain"])
def test_real_workers_are_not_asked(call: str) -> None:
    """They run by themselves."""
    with FakeBroker(mode="real") as broker, pytest.raises(InvalidOption) as caught:
        getattr(broker, call)()
    assert (
        f"mode must be 'captured' or 'inline' for {call}(): call run_until_idle(), not 'real'"
    ) == str(caught.value)


def test_an_endless_moment_of_a_thread_is_told_of() -> None:
    """As that of a worker that is captured."""
    with FakeBroker(mode="real", clock=ManualClock(patience=60)) as broker:
        topic = broker.topic("orders")
        with Worker(topic.channel("billing"), lambda _: nsqlite.Requeue(0, counted=False)):
            topic.put(b"1")
            with pytest.raises(StillBusy) as caught:
                broker.run_until_idle()
            topic.channel("billing").delete()
    assert (
        "run_until_idle() has no end: after 100000 messages at one moment there is more for worker"
        " 'orders:billing'; end what goes on, or give it a higher limit"
    ) == str(caught.value)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_worker_that_goes_on_and_on_is_told_of(*, is_async: bool) -> None:
    """Also if it is slow, and has nothing at work when it is looked at."""
    broker = FakeBroker(mode="real", clock=ManualClock(patience=0.05))
    topic = broker.topic("orders")

    async def again(_: Message[Any]) -> None:
        await asyncio.sleep(0.001)
        topic.put(1)

    async def main() -> None:
        async with Worker(topic.channel("billing"), again):
            topic.put(1)
            with pytest.raises(StillBusy, match=r"until_idle.* worker 'orders:billing'"):
                await broker.until_idle()
            topic.channel("billing").delete()

    if is_async:
        asyncio.run(main())
    else:
        with Worker(topic.channel("billing"), again):
            topic.put(1)
            with pytest.raises(StillBusy, match=r"run_until_idle.* worker 'orders:billing'"):
                broker.run_until_idle()
            topic.channel("billing").delete()
    broker.close(force=True)


def test_in_the_loop_of_another_library() -> None:
    """It is told what is needed."""
    with FakeBroker() as broker, Worker(broker.topic("o").channel("c"), print) as worker:
        for call, coroutine in [
            ("until_idle", broker.until_idle()),
            ("until_idle", broker.clock.until_idle()),
            ("aio.join", aio.join(broker.topic("o"), timeout=1)),
            ("join", aio.join(worker)),
        ]:
            with pytest.raises(NotAsyncio, match=rf"^{call}\(\) needs a running event loop of as"):
                coroutine.send(None)


def test_a_worker_that_starts_beside_another_is_known() -> None:
    """Also if it does so while the broker forgets those that are over."""
    broker = FakeBroker()
    topic = broker.topic("orders")
    others = [Worker(topic.channel("b"), print)]

    class Over:
        def _is_over(self) -> bool:
            while others:
                others.pop().start()
            return True

    broker._workers.append(Over())
    with Worker(topic.channel("a"), print), contextlib.closing(broker):
        assert 2 == len(broker._runners())


def test_a_broker_that_goes_away_hides_no_other() -> None:
    """Also if that happens while somebody looks for those on the same clock."""
    with FakeBroker() as broker, Worker(broker.topic("orders").channel("a"), print):
        hosts: list[Any] = broker.clock._hosts

        def go_away() -> None:
            hosts.remove(go_away)

        hosts.insert(0, go_away)
        assert 1 == len(broker.clock._runners())


def test_a_close_throws_away_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    """It says how many; a topic that is closed alone is told of as ever."""
    logging.disable(logging.NOTSET)
    with FakeBroker() as broker:
        for name in ("orders", "mails"):
            broker.topic(name).channel("billing")
            broker.topic(name).put(b"1")
        assert 1 == broker.topic("mails").close()
        assert 1 == broker.close()
    assert ["topic 'mails' was closed; messages thrown away: 1"] == caplog.messages


def test_real_app_runs_on() -> None:
    """Until somebody stops it, as in a program."""
    app = App()

    @app.handler("orders", "billing")
    def bill(_: Message[Any]) -> None:
        app.stop()

    with FakeBroker(mode="real") as broker:
        broker.topic("orders").channel("billing")
        call = Call(lambda: app.run(broker))
        broker.topic("orders").put(b"1")
        assert None is call.result()


def test_a_drain_needs_its_workers() -> None:
    """A close that drains stops none."""
    with FakeBroker() as broker:
        notes = Notes(broker)
        topic = broker.topic("orders")
        worker = Worker(topic.channel("billing"), notes).start()
        topic.put(b"1")
        broker.close(drain=True)
        broker.run_until_idle()
        assert [(0, b"1")] == notes.seen
        assert not worker.running

    async def main() -> None:
        async with FakeBroker() as broker:
            worker = Worker(broker.topic("orders").channel("billing"), print).start()
            await aio.close(broker, drain=True)
            assert worker.running

    asyncio.run(main())


# Inline


def test_inline_put_calls_the_handlers() -> None:
    """Before it returns, those of nested puts, too; what waits runs when the clock is moved."""
    with FakeBroker(mode="inline") as broker:
        notes = Notes(broker)
        topic, other = broker.topic("orders"), broker.topic("mails")

        def bill(message: Message[Any]) -> None:
            notes(message)
            other.put(b"mail")
            notes.seen.append((0, b"billed"))

        with Worker(topic.channel("billing"), bill), Worker(other.channel("send"), notes):
            topic.put_many([b"1", b"2"])
            expected = [(0, b"1"), (0, b"mail"), (0, b"billed")]
            expected += [(0, b"2"), (0, b"mail"), (0, b"billed")]
            assert expected == notes.seen
            del notes.seen[:]
            other.put(b"later", delay=5)
            other.put(b"bad")
            broker.clock.advance(5)
            assert [b"bad", b"later"] == sorted({body for _, body in notes.seen})
            assert {threading.current_thread()} == notes.threads


def test_inline_finds_what_is_there() -> None:
    """A worker that starts handles what waits for it, and one that is stopped nothing more."""
    with FakeBroker(mode="inline") as broker:
        notes = Notes(broker)
        topic = broker.topic("orders")
        channel = topic.channel("billing")
        topic.put(b"1")
        with Worker(channel, notes):
            assert [(0, b"1")] == notes.seen
        topic.put(b"2")
        assert ([(0, b"1")], 1) == (notes.seen, channel.depth)


def test_inline_own_channel() -> None:
    """A handler that puts to its own channel has that handled when it has returned."""
    with FakeBroker(mode="inline") as broker:
        topic = broker.topic("orders")
        told: list[str] = []

        def count_down(message: Message[int]) -> None:
            told.append(f"begin {message.body}")
            if message.body:
                topic.put(message.body - 1)
            told.append(f"end {message.body}")

        with Worker(topic.channel("billing"), count_down):
            topic.put(1)
        assert ["begin 1", "end 1", "begin 0", "end 0"] == told


def test_inline_waits_for_nobody() -> None:
    """A handler that waits for the clock is cancelled, and called again by whoever moves that."""
    with FakeBroker(mode="inline", clock=ManualClock(patience=0.01)) as broker:
        never = aio.Consumer(broker.topic("never").channel("c"))

        async def wait(_: Message[Any]) -> None:
            with contextlib.suppress(nsqlite.Empty):
                await never.get(timeout=5)

        topic = broker.topic("orders")
        with Worker(topic.channel("billing"), wait):
            topic.put(b"1")
            assert [0] == [one.attempts for one in topic.channel("billing").peek()]
            assert 5 == broker.run_until_idle()
            assert 0 == topic.channel("billing").depth


def test_inline_in_a_loop() -> None:
    """What is to be awaited waits for until_idle; a plain function is called by the put."""

    async def main() -> None:
        async with FakeBroker(mode="inline") as broker:
            notes, later = Notes(broker), Notes(broker)
            topic = broker.topic("orders")
            Worker(topic.channel("plain"), notes).start()
            Worker(topic.channel("coroutine"), later.call).start()
            await aio.put(topic, b"1")
            assert ([(0, b"1")], []) == (notes.seen, later.seen)
            assert 0 == await broker.until_idle()
            assert [(0, b"1")] == later.seen

    asyncio.run(main())
    with FakeBroker(mode="inline") as broker:
        notes = Notes(broker)
        topic = broker.topic("orders")
        with Worker(topic.channel("coroutine"), notes.call):
            topic.put(b"1")
            assert [(0, b"1")] == notes.seen


@pytest.mark.parametrize("sync", ["full", "normal"])
def test_inline_with_a_store(sync: Any, tmp_path: Path) -> None:
    """A put calls the handlers when it is stored; its store's thread calls none."""

    async def put(topic: Topic[Any]) -> None:
        await aio.put(topic, b"2")

    store = nsqlite.SQLite(tmp_path / "x.db", sync=sync)
    with FakeBroker(mode="inline", store=store) as broker:
        notes = Notes(broker)
        topic = broker.topic("orders")
        with Worker(topic.channel("billing"), notes):
            topic.put(b"1")
            assert [(0, b"1")] == notes.seen
            asyncio.run(put(topic))
            broker.run_until_idle()
        assert [(0, b"1"), (0, b"2")] == notes.seen
        assert {threading.current_thread()} == notes.threads


# A day in no time, a thousand times, ten thousand brokers


def schedule(mode: Any) -> tuple[Any, ...]:
    """Return what happens in a day of retries."""
    with FakeBroker(mode=mode) as broker:
        notes = Notes(broker)
        topic = broker.topic("orders")
        retry = Retry(max_attempts=13, max_delay=12 * HOUR, seed=7)
        with Worker(topic.channel("billing"), notes, retry=retry, dead_letter="dead"):
            topic.put_many([b"bad", b"1"])
            topic.put(b"2", delay=HOUR)
            broker.run_until_idle()
        return tuple(
            (event.kind, event.time, event.body) for event in broker.history.recorder.events
        )


@pytest.mark.parametrize("mode", ["captured", "inline"])
def test_a_thousand_runs_are_alike(mode: Any) -> None:
    """The same scenario has the same history each time."""
    assert 1 == len({schedule(mode)[:-2] for _ in range(1000)})


def test_a_thousand_runs_of_tasks_are_alike() -> None:
    """In an event loop real workers do the same each time, too."""

    async def main() -> tuple[Any, ...]:
        async with FakeBroker(mode="real") as broker:
            notes = Notes(broker)
            topic = broker.topic("orders")
            retry = Retry(max_attempts=6, seed=7)
            one = Worker(topic.channel("a"), notes.call, retry=retry, concurrency=3)
            other = Worker(topic.channel("b"), notes.call, retry=retry)
            async with one, other:
                await aio.put_many(topic, [b"bad", b"1", b"bad", b"2"])
                await broker.until_idle()
            return tuple(notes.seen)

    assert 1 == len({asyncio.run(main()) for _ in range(100)})


def day_of_retries() -> float:
    """Return how long a day of retries takes, in seconds."""
    with FakeBroker() as broker:
        topic = broker.topic("orders")
        retry = Retry(max_attempts=18, delay=1, max_delay=6 * HOUR, jitter=False)
        with Worker(topic.channel("billing"), Notes(broker), retry=retry) as worker:
            topic.put(b"bad")
            begun = time.perf_counter()
            assert sum(min(2**n, 21_600) for n in range(17)) == broker.run_until_idle()
            assert 1 == worker.stats().given_up
            return time.perf_counter() - begun


def test_a_day_of_retries() -> None:
    """It takes milliseconds."""
    assert min(day_of_retries() for _ in range(5)) < 0.05


def test_brokers_leave_nothing() -> None:
    """No thread, no file, and nothing that the collector does not find."""

    def use() -> None:
        with FakeBroker() as broker:
            topic = broker.topic("orders")
            with Worker(topic.channel("billing"), print):
                topic.put(b"1", delay=1)

    def count() -> tuple[int, int, int]:
        gc.collect()
        files = Path("/proc/self/fd")
        opened = len(list(files.iterdir())) if files.exists() else 0
        return len(gc.get_objects()), threading.active_count(), opened

    use()
    before = count()
    for _ in range(2000):
        use()
    objects, *others = count()
    assert list(before[1:]) == others
    assert objects - before[0] < 100


def test_a_plain_function_waits_on_the_clock() -> None:
    """It moves on, too."""
    with FakeBroker() as broker:
        topic = broker.topic("orders")
        consumer = nsqlite.Consumer(broker.topic("never").channel("c"))
        told: list[float] = []

        def wait(_: Message[Any]) -> None:
            with contextlib.suppress(nsqlite.Empty):
                consumer.get(timeout=5)
            told.append(broker.clock.time())

        topic.put(b"1")
        with Worker(topic.channel("billing"), wait):
            assert 5 == broker.run_until_idle()
        assert [1_700_000_005] == told


def test_a_closed_broker_is_idle() -> None:
    """Nothing is left that could be done."""
    with FakeBroker() as broker:
        pass
    assert (0, 0, False) == (broker.run_until_idle(), broker.drain(), broker.run_one())


def test_repr_names_the_class() -> None:
    """Also that of one whose options were refused, as pytest shows it."""
    assert "<FakeBroker open topics=0>" == repr(FakeBroker())
    with pytest.raises(InvalidOption, match="mode must be one of") as caught:
        FakeBroker(mode="inlin")  # type: ignore[arg-type]  # for the test
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    assert "<FakeBroker not made>" == repr(frames[-1].f_locals["self"])


def test_a_seed_is_a_number() -> None:
    """Else two runs may differ though their seeds look the same."""
    with pytest.raises(InvalidOption, match="seed must be a whole number, not 'x'"):
        FakeBroker(seed="x")  # type: ignore[arg-type]  # for the test


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("is_awaited", [False, True])
def test_what_ends_a_worker_is_raised_in_the_mode_real(is_awaited: bool) -> None:
    """It would be missed, as no handler was to raise it."""

    def leave(_: Message[Any]) -> None:
        raise SystemExit(3)

    with FakeBroker(mode="real") as broker:
        orders = broker.topic("orders")
        orders.put("one")
        with Worker(orders.channel("billing"), leave), pytest.raises(SystemExit):
            asyncio.run(broker.until_idle()) if is_awaited else broker.run_until_idle()


@pytest.mark.parametrize("is_awaited", [False, True])
def test_a_handler_that_does_not_end_is_named_in_the_mode_real(is_awaited: bool) -> None:
    """Its broker is not idle, whatever the clock says."""
    go_on = threading.Event()

    def wait(_: Message[Any]) -> None:
        go_on.wait(PATIENCE)

    with FakeBroker(mode="real", clock=ManualClock(patience=0.05)) as broker:
        orders = broker.topic("orders")
        number = orders.put("one")
        with Worker(orders.channel("billing"), wait, name="bill"):
            with pytest.raises(StillBusy) as caught:
                asyncio.run(broker.until_idle()) if is_awaited else broker.run_until_idle()
            go_on.set()
            broker.run_until_idle()
    call = "until_idle()" if is_awaited else "run_until_idle()"
    assert (
        f"{call} has no end: after up to 0.05 s of real time there is worker 'bill' at work on"
        f" message {number} 'one'; end what goes on, or give it a higher limit"
    ) == str(caught.value)
    [note] = caught.value.__notes__
    assert (
        "a handler that waits for something else than the clock holds it for 0.05 s, its patience:"
        " see ManualClock(patience=...)"
    ) == note


def test_a_thread_of_others_does_not_count_as_a_handler() -> None:
    """It may be there for ever."""
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait)
    thread.start()
    with FakeBroker(mode="real", clock=ManualClock(patience=0.05)) as broker:
        orders = broker.topic("orders")
        orders.put("one")
        with Worker(orders.channel("billing"), lambda _: None):
            assert 0 == broker.run_until_idle()
    go_on.set()
    thread.join()


@pytest.mark.parametrize("mode", ["captured", "inline"])
def test_a_join_without_a_worker_moves_the_clock(mode: Any) -> None:
    """Up to its timeout, and in no real time: nobody could do anything."""
    with FakeBroker(mode=mode) as broker:
        orders = broker.topic("orders")
        billing = orders.channel("billing")
        orders.put("one")
        begun = broker.clock.time()
        assert not billing.join(timeout=1)
        assert not broker.join(timeout=1)
        assert not asyncio.run(aio.join(billing, timeout=1))
        assert 3 == broker.clock.time() - begun


def test_a_join_in_the_mode_real_has_nothing_run() -> None:
    """Nothing runs in the caller, in a loop neither."""
    with FakeBroker(mode="real") as broker:
        assert asyncio.run(aio.join(broker.topic("orders"), timeout=1))
        assert broker.topic("orders").join(timeout=1)
