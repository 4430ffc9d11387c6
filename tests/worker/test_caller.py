"""A worker whose handler is called by who asks for that."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from helpers import bodies

import nsqlite
from nsqlite import (
    Closed,
    Drop,
    InvalidOption,
    Message,
    Reentered,
    Requeue,
    Retry,
    StillBusy,
    TakeOver,
    Topic,
    Worker,
    aio,
)
from nsqlite.testing import FakeBroker, ManualClock
from worker.scenes import Disaster, Failure

ONCE = Retry(max_attempts=1)


def orders() -> tuple[Topic[Any], nsqlite.Channel[Any]]:
    """Return a topic on a clock of its own, and its channel."""
    topic: Topic[Any] = Topic("orders", clock=ManualClock())
    return topic, topic.channel("billing")


def failing(_: Message[Any]) -> None:
    """Fail."""
    raise Failure("no")


# Drain


def test_drain_handles_what_is_there() -> None:
    """The handler is called here, with all that is ready, and the channel is left."""
    topic, channel = orders()
    topic.put_many([b"1", b"2"])
    topic.put(b"later", delay=1)
    seen: list[tuple[bytes, threading.Thread]] = []
    worker = Worker(channel, lambda m: seen.append((m.body, threading.current_thread())))
    assert 2 == worker.drain()
    here = threading.current_thread()
    assert [(b"1", here), (b"2", here)] == seen
    assert (0, 1, 0) == (channel.depth, channel.deferred_count, channel.stats().client_count)
    assert 0 == worker.drain()
    assert ("new", False) == (worker.stats().state, worker.running)


def test_drain_handles_what_is_put_meanwhile() -> None:
    """A handler that puts to its own channel has that handled, too."""
    topic, channel = orders()
    topic.put(3)

    def count_down(message: Message[int]) -> None:
        if message.body:
            topic.put(message.body - 1)

    assert 4 == Worker(channel, count_down).drain()


def test_drain_has_an_end() -> None:
    """A handler that always puts again is told of; the rest stays."""
    topic, channel = orders()
    topic.put(b"again")
    worker = Worker(channel, lambda m: topic.put(m.body))
    with pytest.raises(StillBusy) as caught:
        worker.drain(10)
    assert (
        "drain() of worker 'orders:billing' has no end: after 10 messages there is one more of"
        " them; end what goes on, or give it a higher limit"
    ) == str(caught.value)
    assert [b"again"] == bodies(channel)
    with pytest.raises(InvalidOption, match="limit"):
        worker.drain(0)


def test_messages_are_settled_as_ever() -> None:
    """What a handler decides has its usual consequences."""
    topic, channel = orders()
    dead: Topic[Any] = Topic("dead", clock=channel._clock)
    letters = dead.channel("letters")
    outcomes: dict[bytes, Any] = {
        b"finished": None,
        b"dropped": Drop("no use"),
        b"requeued": Requeue(5),
        b"taken over": TakeOver,
        b"failed": Failure("no"),
    }
    topic.put_many(list(outcomes))
    seen: dict[bytes, Message[Any]] = {}

    def decide(message: Message[Any]) -> Any:
        seen[message.body] = message
        outcome = outcomes[message.body]
        if isinstance(outcome, Failure):
            raise outcome
        return outcome

    assert 5 == Worker(channel, decide, retry=ONCE, dead_letter=dead, max_in_flight=2).drain()
    assert [b"taken over"] == [one.body for one in channel.in_flight()]
    assert [b"requeued"] == [one.body for one in channel.deferred()]
    assert [b"failed"] == [one.body.body for one in letters.peek()]
    seen[b"taken over"].fin()
    assert 0 == channel.in_flight_count


def test_what_was_taken_over_can_be_answered() -> None:
    """It stays in flight after the call, until then or until it times out."""
    topic, channel = orders()
    topic.put(b"1")
    kept: list[Message[Any]] = []

    def keep(message: Message[Any]) -> TakeOver:
        kept.append(message)
        return TakeOver()

    worker = Worker(channel, keep, msg_timeout=5)
    worker.drain()
    kept[0].fin()
    assert channel.join(0)
    topic.put(b"2")
    worker.drain()
    clock: Any = channel._clock
    clock.advance(5)
    assert [b"2"] == bodies(channel)


def test_what_is_no_exception_goes_to_the_caller() -> None:
    """The message is requeued, and the rest stays."""
    topic, channel = orders()
    topic.put_many([b"1", b"2"])

    def end(_: Message[Any]) -> None:
        raise Disaster

    worker = Worker(channel, end)
    with pytest.raises(Disaster):
        worker.drain()
    assert [b"2", b"1"] == bodies(channel)
    assert 0 == channel.stats().client_count


def test_the_first_error_is_raised() -> None:
    """With raise_first; it ends in the handler, and the message was settled."""
    topic, channel = orders()
    topic.put_many([b"1", b"2"])
    worker = Worker(channel, failing, retry=Retry(delay=5, jitter=False))
    with pytest.raises(Failure) as caught:
        worker.drain(raise_first=True)
    assert "failing" == caught.traceback[-1].name
    assert (1, 1) == (channel.depth, channel.deferred_count)


def test_a_coroutine_function_has_a_loop_of_its_own() -> None:
    """Drain runs it where no loop runs."""
    topic, channel = orders()
    topic.put_many([b"1", b"2"])
    seen = []

    async def note(message: Message[Any]) -> None:
        await asyncio.sleep(0)
        seen.append(message.body)

    worker = Worker(channel, note)
    assert 2 == worker.drain()
    assert [b"1", b"2"] == seen


def test_drain_in_a_loop() -> None:
    """Where a loop runs, a coroutine function is awaited by aio.drain; drain says so."""
    topic, channel = orders()
    topic.put(b"1")
    seen = []

    async def note(message: Message[Any]) -> None:
        await asyncio.sleep(0)
        seen.append(message.body)

    async def main() -> int:
        worker = Worker(channel, note)
        with pytest.raises(Reentered) as caught:
            worker.drain()
        assert ("drain() would wait here for its own end: await nsqlite.aio.drain(worker)") == str(
            caught.value
        )
        assert 0 == await aio.drain(Worker(topic.channel("other"), failing))
        return await aio.drain(worker)

    assert 1 == asyncio.run(main())
    assert [b"1"] == seen


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="no eager tasks before 3.12")
@pytest.mark.parametrize("error", [None, Failure("broken")])
def test_drain_in_a_loop_of_eager_tasks(error: Exception | None) -> None:
    """A handler that has ended before its task is known is settled as ever."""
    topic, channel = orders()
    topic.put(b"1")

    async def work(_message: Message[Any]) -> None:
        if error is not None:
            raise error

    async def main() -> int:
        asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - not in 3.11
        return await aio.drain(Worker(channel, work))

    assert 1 == asyncio.run(main())
    assert (0, 0 if error is None else 1) == (channel.in_flight_count, channel.deferred_count)


def test_aio_drain_wants_a_worker() -> None:
    """Anything else is refused."""

    async def main() -> None:
        with pytest.raises(InvalidOption, match="worker must be a Worker"):
            await aio.drain(3)  # type: ignore[arg-type]  # on purpose

    asyncio.run(main())


def test_aio_drain_of_a_plain_function() -> None:
    """It is called by the loop's thread."""
    topic, channel = orders()
    topic.put(b"1")
    assert 1 == asyncio.run(aio.drain(Worker(channel, lambda _: None)))


def test_drain_in_its_own_handler() -> None:
    """It would wait for itself."""
    topic, channel = orders()
    topic.put(b"1")
    errors: list[str] = []

    def drain(_: Message[Any]) -> None:
        for call in (worker.drain, worker.join, worker.start):
            with pytest.raises((Reentered, Closed)) as caught:
                call()
            errors.append(str(caught.value))

    worker = Worker(channel, drain)
    worker.drain()
    assert [
        "drain() would wait here for its own end: call it outside of the worker's handlers",
        (
            "join() would wait here for its own end: await nsqlite.aio.join(worker), outside of its"
            " handlers"
        ),
        "worker 'orders:billing' is started already",
    ] == errors


def test_a_worker_with_threads_is_not_drained() -> None:
    """It works by itself; when it is over there is nothing to drain it."""
    _, channel = orders()
    with Worker(channel, print) as worker:
        with pytest.raises(Closed) as caught:
            worker.drain()
        assert ("worker 'orders:billing' is started, and works by itself: join it") == str(
            caught.value
        )
    with pytest.raises(Closed, match="stopped"):
        worker.drain()


def test_a_handler_may_stop_its_worker() -> None:
    """Then drain ends; what is left stays."""
    topic, channel = orders()
    topic.put_many([b"1", b"2"])
    worker = Worker(channel, lambda _: worker.stop())
    assert 1 == worker.drain()
    assert [b"2"] == bodies(channel)


def test_a_closed_channel() -> None:
    """Drain raises at once; where a handler closes it, the call ends."""
    topic, channel = orders()
    topic.put_many([b"1", b"2"])
    worker = Worker(channel, lambda _: channel.close())
    assert 1 == worker.drain()
    with pytest.raises(Closed):
        worker.drain()


def test_a_store_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker is held back, as ever."""
    topic, channel = orders()
    topic.put(b"1")
    worker = Worker(channel, print)

    def fail(*_: object) -> None:
        raise OSError("no disk")

    monkeypatch.setattr(nsqlite.Consumer, "take", fail)
    assert 0 == worker.drain()


def test_with_a_store() -> None:
    """What lies in the file alone is handled, too."""
    store = nsqlite.testing.MemoryStore(mem_queue_size=5)
    with nsqlite.Broker(store=store) as broker:
        topic = broker.topic("orders")
        channel = topic.channel("billing")
        topic.put_many([b"%d" % number for number in range(50)])
        seen: list[bytes] = []
        assert 50 == Worker(channel, lambda m: seen.append(m.body)).drain()
        assert [b"%d" % number for number in range(50)] == seen


# Limits


def test_a_coroutine_function_has_a_time_limit() -> None:
    """On a clock that goes by itself it is cancelled when that is over."""
    topic: Topic[Any] = Topic("orders")
    channel = topic.channel("billing")
    topic.put(b"1")

    async def hang(_: Message[Any]) -> None:
        await asyncio.Event().wait()

    worker = Worker(channel, hang, time_limit=0.01, retry=ONCE)
    with pytest.raises(TimeoutError, match=r"took longer than time_limit=0\.01 s"):
        worker.drain(raise_first=True)


def test_one_that_ends_all_the_same() -> None:
    """A handler that catches its cancellation has succeeded, or failed, as ever."""
    topic: Topic[Any] = Topic("orders")
    channel = topic.channel("billing")
    topic.put_many([True, False])

    async def hang(message: Message[bool]) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if message.body:
                raise Failure from None

    worker = Worker(channel, hang, time_limit=0.01, retry=ONCE)
    assert 2 == worker.drain()
    assert channel.join(0)


def test_what_a_handler_awaits_may_be_cancelled() -> None:
    """That is its failure, and not the end of the call."""
    topic, channel = orders()
    topic.put(b"1")

    async def cancelled(_: Message[Any]) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    worker = Worker(channel, cancelled, retry=ONCE)
    with pytest.raises(asyncio.CancelledError):
        worker.drain(raise_first=True)


def test_a_plain_function_that_takes_too_long(caplog: pytest.LogCaptureFixture) -> None:
    """It is told of, and goes on."""
    topic, channel = orders()
    clock: Any = channel._clock
    topic.put(b"1")
    with FakeBroker(clock=clock):
        Worker(channel, lambda _: clock.advance(5), time_limit=2, name="w").drain()
    assert (
        "w: test_a_plain_function_that_takes_too_long.<locals>.<lambda> on message"
    ) in caplog.text
    assert "takes longer than time_limit=2 s, and goes on in w-1" in caplog.text
    assert channel.join(0)


# Ends


def test_a_call_that_is_cancelled() -> None:
    """The handler is cancelled, and its message goes back, its attempts as before."""
    topic, channel = orders()
    topic.put(b"1")

    async def hang(_: Message[Any]) -> None:
        await asyncio.Event().wait()

    async def main(*, begun: bool) -> None:
        task = asyncio.ensure_future(aio.drain(Worker(channel, hang)))
        for _ in range(1 + 5 * begun):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    for begun in (True, False):
        asyncio.run(main(begun=begun))
        assert [0] == [one.attempts for one in channel.peek()]


def test_disaster_in_a_coroutine() -> None:
    """It goes to the caller, as that of a plain function does."""
    topic, channel = orders()
    topic.put(b"1")

    async def end(_: Message[Any]) -> None:
        raise Disaster

    async def main() -> None:
        with pytest.raises(Disaster):
            await aio.drain(Worker(channel, end))

    asyncio.run(main())
    assert [1] == [one.attempts for one in channel.peek()]


def hold(then: Callable[[], object]) -> Callable[[Message[Any]], None]:
    """Return a handler that is at work while something is called, in another thread."""

    def handler(_: Message[Any]) -> None:
        thread = threading.Thread(target=then)
        thread.start()
        thread.join()

    return handler


def test_another_thread_stops_it() -> None:
    """It waits, in real time, and no longer than it was told to."""
    with FakeBroker() as broker:
        topic = broker.topic("orders")
        topic.put(b"1")
        worker = Worker(topic.channel("billing"), hold(lambda: worker.stop(0.01)))
        with worker:
            broker.drain()
            assert not worker.running


def test_stopped_in_a_loop() -> None:
    """A handler that is at work is cancelled when the time is over."""

    async def hang(_: Message[Any]) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with FakeBroker(clock=ManualClock(patience=60)) as broker:
            topic = broker.topic("orders")
            topic.put(b"1")
            worker = Worker(topic.channel("billing"), hang).start()
            task = asyncio.ensure_future(aio.drain(worker))
            for _ in range(5):
                await asyncio.sleep(0)
            await aio.stop(worker, 0)
            assert not worker.running
            with pytest.raises(asyncio.CancelledError):
                await task

    begun = time.perf_counter()
    asyncio.run(main())
    assert time.perf_counter() - begun < 5


def test_many_slots_hold_many_messages() -> None:
    """A handler that has another one called inside takes a slot each."""
    with FakeBroker() as broker:
        topic = broker.topic("orders")
        seen: list[int] = []

        def nest(message: Message[int]) -> None:
            if message.body < 5:
                topic.put(message.body + 1)
                broker.drain()
            seen.append(message.body)

        topic.put(0)
        with Worker(topic.channel("billing"), nest, concurrency=3):
            broker.drain()
        assert [2, 3, 4, 5, 1, 0] == seen


def test_a_slot_is_for_one_message() -> None:
    """Also where the worker may hold more than it has slots, and two threads ask at a time."""
    with FakeBroker() as broker:
        topic = broker.topic("orders")
        topic.channel("billing")
        topic.put_many(range(2))
        with Worker(topic.channel("billing"), failing, max_in_flight=2) as worker:
            [runner] = broker._runners()
            message = runner.take()
            assert message is not None
            assert runner.take() is None
            runner.give_back(message)
            assert 2 == worker.drain()


def test_a_handler_that_fills_its_own_channel() -> None:
    """Nobody is left to make room, and it is told so at once."""
    topic: Topic[Any] = Topic("orders", clock=ManualClock())
    channel = topic.channel("billing", max_depth=1)
    topic.put(b"1")

    def put_twice(_: Message[Any]) -> None:
        topic.put(b"2")
        topic.put(b"3")

    with pytest.raises(Reentered):
        Worker(channel, put_twice).drain(1, raise_first=True)


def test_too_many_attempts() -> None:
    """Such a message is given up without a call of the handler, of either kind."""

    async def fail_async(message: Message[Any]) -> None:
        failing(message)

    given_up: list[Any] = []

    def note(_: Message[Any], error: BaseException | None) -> None:
        given_up.append(error)

    for handler in (failing, fail_async):
        topic, channel = orders()
        topic.put(b"1")
        with nsqlite.Consumer(channel) as consumer:
            consumer.get(timeout=0).req()
        worker = Worker(channel, handler, retry=ONCE, on_give_up=note)
        assert 1 == worker.drain(raise_first=True)
    assert [None, None] == given_up


def test_an_outcome_is_no_error() -> None:
    """Raised as well as returned."""
    topic, channel = orders()
    topic.put(b"1")

    def later(_: Message[Any]) -> None:
        raise Requeue(5)

    assert 1 == Worker(channel, later).drain(raise_first=True)
    assert 1 == channel.deferred_count


def test_a_worker_that_is_over_has_no_deadlines() -> None:
    """What held it back does not matter any more."""
    with FakeBroker() as broker:
        topic = broker.topic("orders")
        topic.put_many([b"1", b"2"])
        with Worker(topic.channel("billing"), failing, retry=Retry.nsq()) as worker:
            assert 1 == broker.drain()
            assert "held back for 2 s" in repr(worker)
        broker.clock.advance(5)
        assert "stopped" in repr(worker)


def test_drain_in_the_handler_of_one_that_was_started() -> None:
    """It would wait for itself, too."""
    with FakeBroker() as broker:
        topic = broker.topic("orders")
        topic.put(b"1")
        errors: list[Exception] = []

        def drain(_: Message[Any]) -> None:
            with pytest.raises(Reentered) as caught:
                worker.drain()
            errors.append(caught.value)

        with Worker(topic.channel("billing"), drain) as worker:
            assert 1 == worker.drain()
        assert 1 == len(errors)
