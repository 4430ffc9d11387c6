"""All is done that is to be done on a manual clock, with threads, tasks and loops of others."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, Self

import pytest
from helpers import PATIENCE
from worker.scenes import Failure

import nsqlite
from nsqlite import App, InvalidOption, Message, Reentered, Retry, StillBusy, Topic, Worker, aio
from nsqlite.testing import FakeBroker, ManualClock
from nsqlite.testing.idle import Run, until_quiet

pytestmark = pytest.mark.usefixtures("no_log")

HOUR = 3600.0
RETRY = Retry(max_attempts=6, seed=7)


class Failing:
    """Two handlers that always fail, and note when."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.times: list[float] = []

    def call(self, _: Message[Any]) -> None:
        """Fail."""
        self.times.append(self._clock.time())
        raise Failure("no")

    async def call_async(self, message: Message[Any]) -> None:
        """Fail as a coroutine function."""
        await asyncio.sleep(0)
        self.call(message)


def make() -> tuple[ManualClock, Topic[Any], Failing]:
    """Return a clock, a topic on it and handlers that note its time."""
    clock = ManualClock()
    return clock, Topic("orders", clock=clock), Failing(clock)


def test_nothing_to_do() -> None:
    """The clock stands."""
    clock = ManualClock()
    assert 0 == clock.run_until_idle()
    assert 0 == asyncio.run(clock.until_idle())


def test_a_limit() -> None:
    """The clock does not move beyond it; what is due then is named."""
    clock, topic, _ = make()
    channel = topic.channel("billing")
    topic.put(b"1", delay=5)
    topic.put(b"2", delay=HOUR)
    with pytest.raises(StillBusy) as caught:
        clock.run_until_idle(60)
    assert (
        "run_until_idle() has no end: after 60 s on the clock there is in 3595 s a deferred message"
        " in channel 'billing' of topic 'orders'; end what goes on, or give it a higher limit"
    ) == str(caught.value)
    assert (1, 1) == (channel.depth, channel.deferred_count)
    assert HOUR - 5 == clock.run_until_idle()
    with pytest.raises(InvalidOption, match="limit"):
        clock.run_until_idle(-1)


def test_in_a_loop_it_is_awaited() -> None:
    """The loop could not go on otherwise."""
    clock = ManualClock()

    async def main() -> None:
        with pytest.raises(Reentered) as caught:
            clock.run_until_idle()
        assert ("run_until_idle() would wait here for its own end: await until_idle()") == str(
            caught.value
        )

    asyncio.run(main())


def test_threads_of_workers() -> None:
    """They do what there is to do before the clock moves; so all retries take place in time."""
    clock, topic, failing = make()
    topic.channel("billing")
    with Worker(topic.channel("billing"), failing.call, retry=RETRY) as worker:
        topic.put(b"1")
        seconds = clock.run_until_idle()
        assert 1 == worker.stats().given_up
    assert 6 == len(failing.times)
    assert round(failing.times[-1] - failing.times[0], 3) == round(seconds, 3)


def test_loops_of_workers() -> None:
    """So do tasks in a loop of their own."""
    clock, topic, failing = make()
    with Worker(topic.channel("billing"), failing.call_async, retry=RETRY) as worker:
        topic.put(b"1")
        clock.run_until_idle()
        assert (6, 1) == (len(failing.times), worker.stats().given_up)


def test_threads_and_tasks_mixed() -> None:
    """Awaited in a loop, with workers in it, in threads, and in a loop of their own."""
    clock, topic, failing = make()
    other = Worker(topic.channel("c"), failing.call_async, retry=RETRY)

    async def main() -> float:
        threads = Worker(topic.channel("a"), failing.call, retry=RETRY, concurrency=2)
        tasks = Worker(topic.channel("b"), failing.call_async, retry=RETRY, concurrency=2)
        async with threads, tasks:
            await aio.put_many(topic, [b"1", b"2"])
            return await clock.until_idle()

    with other:
        assert asyncio.run(main()) > 1
    assert 6 * 6 == len(failing.times)


def test_a_thread_that_waits_is_woken() -> None:
    """Its time-out is a deadline, which an error names."""
    clock, topic, _ = make()
    consumer = nsqlite.Consumer(topic.channel("billing"))
    told: list[str] = []

    def get() -> None:
        try:
            consumer.get(timeout=HOUR)
        except nsqlite.Empty as error:
            told.append(str(error))

    thread = threading.Thread(target=get)
    thread.start()
    with pytest.raises(StillBusy, match=r"in 3600 s get\(\) on channel 'billing'"):
        clock.run_until_idle(1)
    assert HOUR == clock.run_until_idle()
    thread.join(PATIENCE)
    assert 1 == len(told)


def test_a_store_is_written() -> None:
    """What the store's thread has to do is done before the clock moves."""
    with FakeBroker(store=nsqlite.testing.MemoryStore()) as broker:
        topic = broker.topic("orders")
        failing = Failing(broker.clock)
        with Worker(topic.channel("billing"), failing.call, retry=RETRY):
            topic.put(b"1")
            broker.run_until_idle()
        assert 6 == len(failing.times)


def test_others_never_make_it_hang() -> None:
    """An idle pool, a thread that waits for ever, and the loop of another library do not count."""
    gate = threading.Event()
    with ThreadPoolExecutor(1) as pool, OtherLoop() as other:
        clock, topic, failing = make()
        pool.submit(topic.channel, "other").result()
        thread = threading.Thread(target=gate.wait)
        thread.start()
        other.run(clock_reader(clock))
        with Worker(topic.channel("billing"), failing.call, retry=RETRY):
            topic.put(b"1")
            clock.run_until_idle()
        topic.channel("other").empty()
        asyncio.run(clock.until_idle())
        gate.set()
        thread.join(PATIENCE)
    assert 6 == len(failing.times)


async def clock_reader(clock: ManualClock) -> None:
    """Use a clock in a loop."""
    clock.monotonic_ns()


class OtherLoop:
    """An event loop in a thread, as a web test client has it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def run(self, call: Awaitable[Any]) -> Any:
        """Run something there, and return its result."""

        async def main() -> Any:
            return await call

        return asyncio.run_coroutine_threadsafe(main(), self._loop).result(PATIENCE)


@contextlib.asynccontextmanager
async def lifespan(app: App, broker: FakeBroker) -> AsyncIterator[SimpleNamespace]:
    """Do what a web application does at its start and end."""
    async with broker, app.running(broker):
        yield SimpleNamespace(mails=broker.topic("mails"))


@pytest.mark.parametrize("mode", ["captured", "real"])
@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_a_web_test_client(mode: Any, kind: str) -> None:
    """The application lives in the client's loop, and the test has its workers run from outside."""
    broker = FakeBroker(mode=mode)
    app = App()
    failing = Failing(broker.clock)
    handler: Callable[..., Any] = failing.call if kind == "plain" else failing.call_async
    app.handler("mails", "send", retry=RETRY)(handler)
    block = lifespan(app, broker)
    with OtherLoop() as client:
        state = client.run(block.__aenter__())
        client.run(aio.put(state.mails, b"1"))
        assert broker.run_until_idle() > 1
        client.run(block.__aexit__(None, None, None))
    assert 6 == len(failing.times)


def test_a_thread_that_does_not_come_back() -> None:
    """A handler that is stuck holds the clock back for its patience, and no longer."""
    clock = ManualClock(patience=0.02)
    topic: Topic[Any] = Topic("orders", clock=clock)
    gate = threading.Event()
    with Worker(topic.channel("billing"), lambda _: gate.wait(PATIENCE)):
        topic.put(b"1")
        topic.put(b"2", delay=5)
        assert 5 == clock.run_until_idle()
        gate.set()


def test_a_loop_that_tells_nothing() -> None:
    """It goes round a few times."""
    rounds: list[int] = []

    async def main() -> None:
        asyncio.get_running_loop().call_soon(rounds.append, 1)
        await until_quiet(object())

    asyncio.run(main())
    assert [1] == rounds


def test_a_loop_that_never_rests() -> None:
    """A task that always has something to do holds nobody up for ever."""
    clock = ManualClock()

    async def main() -> float:
        loop = asyncio.get_running_loop()

        def spin() -> None:
            loop.call_soon(spin)

        spin()
        return await clock.until_idle()

    assert 0 == asyncio.run(main())


def test_it_is_cancelled() -> None:
    """The handler at work is, too, and its message goes back."""

    async def main() -> None:
        async with FakeBroker() as broker:
            topic = broker.topic("orders")
            channel = topic.channel("billing")

            async def hang(_: Message[Any]) -> None:
                task.cancel()
                await asyncio.Event().wait()

            topic.put(b"1")
            async with Worker(channel, hang):
                task = asyncio.ensure_future(broker.until_idle())
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert [0] == [one.attempts for one in channel.peek()]

    asyncio.run(main())


def test_what_ends_it_early() -> None:
    """It is asked again when the others have been waited for."""
    clock = ManualClock()
    topic: Topic[Any] = Topic("orders", clock=clock)
    topic.channel("billing")
    topic.put(b"1", delay=5)
    answers = iter([False, True, True])
    run = Run(clock, 10**12, "join()", "", done=lambda: next(answers))
    run.run()
    assert 0 == run.seconds


def test_plain_functions_in_a_loop() -> None:
    """A handler that needs no loop is called by its thread."""

    async def main() -> float:
        async with FakeBroker() as broker:
            topic = broker.topic("orders")
            failing = Failing(broker.clock)
            async with Worker(topic.channel("billing"), failing.call, retry=RETRY):
                await aio.put(topic, b"1")
                seconds = await broker.until_idle()
            assert 6 == len(failing.times)
            return seconds

    assert asyncio.run(main()) > 1
