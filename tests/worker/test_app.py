"""An app: handlers declared, run together, stopped by a signal, a call or the end of a block."""

import asyncio
import contextlib
import gc
import signal
import threading
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import Any

import pytest
from aio.loops import in_loop, outcome, turns
from helpers import PATIENCE, Call, bodies

from nsqlite import (
    App,
    Broker,
    ClockStandsStill,
    Closed,
    InvalidName,
    InvalidOption,
    Message,
    Retry,
    Seconds,
    Worker,
    aio,
)
from nsqlite.waiting import ThreadWaiter, Waiter
from nsqlite.worker import Handler, Running
from worker.scenes import KINDS, Clock, Hold, failing, nothing, of_kind, threads_of, until_ended

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Scene:
    """A broker, and an app of it."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock(**options)
        self.broker = Broker(clock=self.clock)
        self.orders = self.broker.topic("orders")
        self.app = App()

    def run(self) -> None:
        self.app.run(self.broker)

    def running(self) -> Running:
        return self.app.running(self.broker)

    def declare(self, handler: Handler, channel: str = "billing", **options: Any) -> None:
        """Declare a handler of a channel that is there, as after a first run."""
        self.app.handler("orders", channel, **options)(handler)
        self.orders.channel(channel)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the main thread, and return when the app has heard of it.

        CPython does not hear of a signal that comes when it is about to block; another wakes it.
        """
        main = threading.main_thread().ident
        assert main is not None
        before = self.app._signals
        signal.pthread_kill(main, number)
        for _ in range(round(PATIENCE / 0.01)):
            if self.app._signals > before:
                return
            signal.pthread_kill(main, signal.SIGUSR1)
            threading.Event().wait(0.01)
        pytest.fail("nobody heard the signal")


@pytest.fixture
def scene() -> Iterator[Scene]:
    """Give a scene, and check that the signals are afterwards what they were."""
    before = [signal.getsignal(number) for number in SIGNALS]
    awake = signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
    made = Scene()
    yield made
    signal.signal(signal.SIGUSR1, awake)
    assert before == [signal.getsignal(number) for number in SIGNALS]
    made.broker._check()


# Declaring


def test_a_handler_is_left_as_it_is(scene: Scene) -> None:
    """The decorator returns the function that it was given."""
    assert scene.app.handler("orders", "billing")(nothing) is nothing


def test_a_declaration_touches_no_broker(scene: Scene) -> None:
    """Topics and channels are created when the app is bound, all before the first delivery."""
    seen: list[list[str]] = []

    def note(_message: Message[Any]) -> None:
        seen.append(sorted(scene.broker.topics["parcels"].channels))
        scene.app.stop()

    scene.app.handler("parcels", "packing", dead_letter="dead")(note)
    scene.app.handler("parcels", "sending")(nothing)
    assert ["orders"] == list(scene.broker.topics)
    scene.broker.topic("parcels").put(b"held for the first channel")
    scene.run()
    assert ([["packing", "sending"]], ["dead", "orders", "parcels"]) == (
        seen,
        sorted(scene.broker.topics),
    )


def test_nothing_put_after_the_binding_is_missed(scene: Scene) -> None:
    """What is put as soon as the block has begun comes to every handler."""
    seen: list[str] = []
    for channel in ("packing", "sending"):
        handle = partial(lambda name, _message: seen.append(name), channel)
        scene.app.handler("parcels", channel)(handle)
    with scene.running() as app:
        parcels = app.broker.topic("parcels")
        parcels.put(b"parcel")
        assert parcels.join(PATIENCE)
    assert ["packing", "sending"] == sorted(seen)


def test_dead_letters_can_be_named(scene: Scene) -> None:
    """A topic of dead letters can be given by its name or itself, and is created."""
    once = Retry(max_attempts=1)
    scene.declare(failing, retry=once, dead_letter="orders.dead")
    scene.declare(failing, "shipping", retry=once, dead_letter=scene.broker.topic("orders.dead"))
    dead = scene.broker.topics["orders.dead"].channel("redrive")
    with scene.running():
        scene.orders.put(b"order")
        assert scene.broker.topics["orders"].join(PATIENCE)
    assert {"billing", "shipping"} == {letter.channel for letter in bodies(dead)}


@pytest.mark.parametrize(
    "options",
    [
        *({"concurrency": 0}, {"dead_letter": 1}, {"dead_letter": "orders"}, {"backoff": 2}),
        *({"retry": 2}, {"msg_timeout": 0}, {"middleware": nothing}, {"middleware": [nothing, 3]}),
    ],
)
def test_a_bad_option_is_refused_when_it_is_declared(scene: Scene, options: dict[str, Any]) -> None:
    """An option that no worker takes is an error at the declaration, and nothing is declared."""
    with pytest.raises(InvalidOption):
        scene.app.handler("orders", "billing", **options)(nothing)
    with scene.running():
        assert [] == scene.app.workers


def test_an_unknown_option_is_refused_when_it_is_declared(scene: Scene) -> None:
    """An option that there is not is an error at the declaration, which makes no topic."""
    options: Any = {"concurency": 3}
    with pytest.raises(InvalidOption) as info:
        scene.app.handler("parcels", "packing", **options)
    assert "concurency" == info.value.value
    assert info.value.expected.endswith(" (did you mean 'concurrency'?)")
    assert "parcels" not in scene.broker.topics


def test_an_app_has_one_option() -> None:
    """Another option of the app itself is refused, with what it has."""
    options: dict[str, Any] = {"timeot": 3}
    with pytest.raises(InvalidOption) as info:
        App(**options)
    expected = "one of timeout (did you mean 'timeout'?)"
    assert ("option", "timeot", expected) == (
        info.value.option,
        info.value.value,
        info.value.expected,
    )


def test_a_bad_name_is_refused_when_it_is_declared(scene: Scene) -> None:
    """A name that breaks the rule is an error at the declaration."""
    with pytest.raises(InvalidName):
        scene.app.handler("orders", "a channel")
    with pytest.raises(InvalidName):
        scene.app.handler("all orders", "billing")
    with pytest.raises(InvalidName):
        scene.app.handler("orders", "billing", dead_letter="orders dead")


def test_what_is_no_handler_is_refused_when_it_is_declared(scene: Scene) -> None:
    """What cannot be called with a message is an error at the declaration."""
    handlers: list[Any] = [5, lambda: None]
    for handler in handlers:
        with pytest.raises(InvalidOption, match="handler must be a function of one message"):
            scene.app.handler("orders", "billing")(handler)


@pytest.mark.parametrize("timeout", [-1, None, float("nan"), "1"])
def test_an_app_needs_a_timeout(timeout: Any) -> None:
    """What is no number of seconds is refused."""
    with pytest.raises(InvalidOption) as info:
        App(timeout=timeout)
    assert "timeout" == info.value.option


def test_an_app_takes_no_broker(scene: Scene) -> None:
    """An app that is given a broker says where that goes."""
    make: Any = App
    with pytest.raises(InvalidOption) as info:
        make(scene.broker)
    text = "given to app.run(broker) or app.running(broker), not <Broker open topics=1>"
    assert f"broker must be {text}" == str(info.value)


def test_a_broker_is_needed_to_run(scene: Scene) -> None:
    """What is no broker is refused, and the app can be run with one."""
    scene.declare(lambda _: scene.app.stop())
    wrong: Any = scene.orders
    for bind in (scene.app.run, scene.app.running):
        with pytest.raises(InvalidOption) as info:
            bind(wrong)
        assert "broker must be a Broker, not <Topic 'orders' open channels=1 depth=0>" == str(
            info.value
        )
    scene.orders.put(b"order")
    scene.run()


def test_the_broker_is_that_of_the_run(scene: Scene) -> None:
    """While it runs an app has its broker, for handlers that publish; else it says how."""
    found: list[Broker] = []

    def note(_message: Message[Any]) -> None:
        found.append(scene.app.broker)
        scene.app.stop()

    scene.declare(note)
    scene.orders.put(b"order")
    scene.run()
    assert [scene.broker] == found
    with pytest.raises(Closed) as info:
        _ = scene.app.broker
    text = "the app is without a broker: it gets one by app.run(broker) or app.running(broker)"
    assert text == str(info.value)


def test_what_only_the_broker_can_tell_is_told_when_it_is_bound(scene: Scene) -> None:
    """An option that does not fit the broker is an error of the run, and no worker runs."""
    scene.declare(nothing)
    scene.declare(nothing, "shipping", msg_timeout=1000)
    with pytest.raises(InvalidOption, match=r"msg_timeout must be .* at most 900, not 1000"):
        scene.run()
    with Broker(max_msg_timeout=1000) as broker, scene.app.running(broker) as app:
        assert 2 == len(app.workers)


def test_middleware_is_put_around_a_handler_once(scene: Scene) -> None:
    """It is called at the declaration, and what it returned works in every run."""
    around: list[str] = []

    def count(next: Handler) -> Handler:  # noqa: A002 - the word for it
        around.append("made")
        return next

    scene.declare(nothing, middleware=iter([count]))
    for _ in range(2):
        with scene.running():
            scene.orders.put(b"order")
            assert scene.orders.join(PATIENCE)
    assert ["made"] == around


# A block


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_runs_all_handlers(scene: Scene, kind: str) -> None:
    """The workers run in the block and not after it; nothing that was put before is missed."""
    seen: list[Any] = []
    for channel in ("billing", "shipping"):
        scene.declare(of_kind(kind, lambda message: seen.append(message.body)), channel)
    scene.orders.put(b"order")
    with scene.running() as app:
        assert app is scene.app
        workers = app.workers
        assert [True, True] == [worker.running for worker in workers]
        assert scene.orders.join(PATIENCE)
    assert [False, False] == [worker.running for worker in workers]
    assert ([b"order"] * 2, []) == (seen, app.workers)


def test_a_block_can_be_begun_again(scene: Scene) -> None:
    """Each block has workers of its own; what `running` returned is used again, too."""
    scene.declare(nothing)
    running = scene.running()
    for body in range(3):
        scene.orders.put(body)
        with running:
            assert scene.orders.join(PATIENCE)


def test_an_app_can_have_another_broker(scene: Scene) -> None:
    """One app works with one broker after another, and not with two at a time."""
    seen: list[Any] = []
    scene.declare(lambda message: seen.append((scene.app.broker, message.body)))
    with Broker() as other:
        for broker in (scene.broker, other, scene.broker):
            with scene.app.running(broker):
                orders = broker.topic("orders")
                orders.put(b"order")
                assert orders.join(PATIENCE)
                with (
                    pytest.raises(Closed, match="the app is running already"),
                    scene.app.running(other),
                ):
                    pass
        assert [(one, b"order") for one in (scene.broker, other, scene.broker)] == seen


def test_a_start_that_fails_leaves_no_worker(scene: Scene) -> None:
    """When a worker cannot be started those that were are stopped, and the error goes on."""
    scene.declare(nothing)
    scene.declare(nothing, "shipping")
    scene.orders.channel("shipping").close()
    with pytest.raises(Closed), scene.running():
        pass
    assert ([], []) == (scene.app.workers, threads_of("orders"))


@pytest.mark.parametrize("five", [5, timedelta(seconds=5)])
def test_the_workers_share_the_time(scene: Scene, five: Seconds) -> None:
    """All workers are told at the same time to stop, and have the app's timeout together."""
    app = App(timeout=five)
    hold = Hold()
    for channel in ("billing", "shipping"):
        app.handler("orders", channel)(hold.stay)
    running = app.running(scene.broker)
    running.__enter__()
    scene.orders.put(b"order")
    hold.begun(2)
    call = Call(lambda: running.__exit__(None, None, None))
    scene.clock.until_waiting("stop() of worker")
    for worker in app.workers:
        assert worker._runner is not None
        assert worker._runner.supervisor.stopping
    scene.clock.until_supervised(5)
    scene.clock.until_waiting("the supervisor of a worker", 4)
    scene.clock.advance(5)
    assert call.result() is None
    hold.let_go()
    until_ended("orders")


def test_ctrl_c_at_the_end_of_a_block_goes_on(scene: Scene) -> None:
    """`KeyboardInterrupt` while the workers stop makes it immediate and is not swallowed."""
    hold = Hold()
    for channel in ("billing", "shipping"):
        scene.declare(hold.stay, channel)

    def interrupt() -> None:
        main = threading.main_thread().ident
        assert main is not None
        scene.clock.until_waiting("stop() of worker")
        signal.pthread_kill(main, signal.SIGINT)

    call = Call(interrupt)
    with pytest.raises(KeyboardInterrupt), scene.running():
        scene.orders.put(b"order")
        hold.begun(2)
    call.result()
    assert ([], [1, 1]) == (
        scene.app.workers,
        [channel.depth for channel in scene.orders.channels.values()],
    )
    hold.let_go()
    until_ended("orders")


def test_a_clock_that_stands_still_is_told_to_who_ends_a_block() -> None:
    """When the stop of one worker raises, the others are stopped all the same."""
    scene = Scene(patience=0.01)
    begun = threading.Semaphore(0)
    over = threading.Event()
    waiters: list[Waiter[Any]] = [ThreadWaiter(scene.orders._monitor) for _ in range(2)]
    left = waiters.copy()

    def wait(_message: Message[Any]) -> None:
        semaphore = left.pop().semaphore
        begun.release()
        while not over.is_set():
            with contextlib.suppress(ClockStandsStill):
                scene.clock.wait(semaphore, None, "a handler")

    for channel in ("billing", "shipping"):
        scene.declare(wait, channel)
    with pytest.raises(ClockStandsStill, match="stop"), scene.running():
        scene.orders.put(b"order")
        assert begun.acquire(timeout=PATIENCE)
        assert begun.acquire(timeout=PATIENCE)
    over.set()
    for waiter in waiters:
        waiter.notify()
    until_ended("orders")
    assert [] == scene.app.workers


# A block in a loop


@in_loop
async def test_a_block_in_a_loop() -> None:
    """In `async with` coroutine functions run in the loop, plain ones in threads."""
    scene = Scene()
    seen: list[Any] = []

    async def note(_message: Message[Any]) -> None:
        seen.append(threading.current_thread() is threading.main_thread())

    scene.declare(note)
    scene.declare(nothing, "shipping")
    async with scene.running() as app:
        assert app is scene.app
        workers = app.workers
        scene.orders.put(b"order")
        for worker in workers:
            assert await aio.join(worker)
    assert ([True], [], []) == (seen, app.workers, threads_of("orders"))
    assert [False, False] == [worker.running for worker in workers]


@in_loop
async def test_a_block_that_is_cancelled_at_its_end_is_over_at_once() -> None:
    """When the end of an `async with` is cancelled no handler has any more time."""
    scene = Scene()
    hold = Hold()
    for channel in ("billing", "shipping"):
        scene.declare(hold.stay_async, channel)

    async def block() -> None:
        async with scene.running():
            scene.orders.put(b"order")
            await turns()

    task = asyncio.ensure_future(block())
    await turns(15)
    workers = scene.app.workers
    assert [True, True] == [worker.running for worker in workers]
    task.cancel()
    assert isinstance(await outcome(task), asyncio.CancelledError)
    for worker in workers:
        await aio.stop(worker)
    assert ([], [1, 1]) == (
        scene.app.workers,
        [channel.depth for channel in scene.orders.channels.values()],
    )


# Running


def test_run_ends_with_stop(scene: Scene) -> None:
    """A handler may stop the app; `run` then ends, its workers stopped."""
    scene.declare(lambda _: scene.app.stop())
    scene.orders.put(b"order")
    scene.run()
    assert ([], 0) == (scene.app.workers, scene.orders.channel("billing").depth)


def test_a_stop_before_the_run_ends_it(scene: Scene) -> None:
    """An app that was stopped before it runs ends at once, and can be run again."""
    scene.declare(lambda _: scene.app.stop())
    scene.app.stop()
    scene.run()
    call = Call(scene.run)
    scene.orders.put(b"order")
    assert call.result() is None


def test_a_stop_more_does_not_end_the_next_run(scene: Scene) -> None:
    """Two handlers that both stop the app end one run."""
    hold = Hold()

    def stop(message: Message[Any]) -> None:
        hold.stay(message)
        scene.app.stop()

    scene.declare(stop, concurrency=2)
    scene.orders.put_many(range(2))
    call = Call(scene.run)
    hold.begun(2)
    hold.let_go()
    assert call.result() is None
    call = Call(scene.run)
    scene.clock.until_waiting("get() on", 3)
    scene.orders.put(2)
    hold.begun(1)
    assert call.result() is None


@pytest.mark.parametrize("number", SIGNALS)
def test_run_ends_with_a_signal(scene: Scene, number: signal.Signals) -> None:
    """SIGINT and SIGTERM end `run`, which returns, and handlers at work may end."""
    hold = Hold()
    seen: list[Any] = []

    def work(message: Message[Any]) -> None:
        hold.stay(message)
        seen.append(message.body)

    scene.declare(work)
    scene.orders.put(b"order")

    def end() -> None:
        hold.begun(1)
        scene.send(number)
        scene.clock.until_waiting("stop() of worker")
        hold.let_go()

    call = Call(end)
    scene.run()
    call.result()
    assert [b"order"] == seen


def test_a_second_signal_is_immediate(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """A second signal takes the time from the handlers at work, and `run` returns."""
    hold = Hold()
    for channel in ("billing", "shipping"):
        scene.declare(hold.stay, channel)
    scene.orders.put(b"order")

    def end() -> None:
        hold.begun(2)
        scene.send(signal.SIGINT)
        scene.clock.until_waiting("stop() of worker")
        scene.send(signal.SIGTERM)

    call = Call(end)
    scene.run()
    call.result()
    assert [1, 1] == [channel.depth for channel in scene.orders.channels.values()]
    assert "a second signal: the handlers at work were left behind" == caplog.messages[-1]
    assert 3 == len(caplog.records)
    hold.let_go()
    until_ended("orders")


def test_two_signals_at_once_are_immediate(scene: Scene) -> None:
    """A second signal before the workers have been told to stop is no error either."""
    hold = Hold()

    def interrupt_twice(message: Message[Any]) -> None:
        app._on_signal(signal.SIGINT, frame)
        app._on_signal(signal.SIGINT, frame)
        hold.stay(message)

    app = scene.app
    frame: FrameType | None = None
    scene.declare(interrupt_twice)
    scene.orders.put(b"order")
    scene.run()
    assert 1 == scene.orders.channel("billing").depth
    hold.let_go()
    until_ended("orders")


def test_the_next_run_counts_signals_anew(scene: Scene) -> None:
    """After a run that a signal has ended, the first signal of the next is a first one."""
    scene.declare(lambda _: scene.send(signal.SIGTERM))
    for body in range(3):
        scene.orders.put(body)
        scene.run()
    assert [] == scene.app.workers


def test_run_elsewhere_leaves_the_signals_alone(scene: Scene) -> None:
    """In another thread `run` catches no signals, and ends with `stop`."""
    before = [signal.getsignal(number) for number in SIGNALS]
    during: list[Any] = []

    def note(_message: Message[Any]) -> None:
        during.extend(signal.getsignal(number) for number in SIGNALS)
        scene.app.stop()

    scene.declare(note)
    scene.orders.put(b"order")
    assert Call(scene.run).result() is None
    assert before == during


def test_run_restores_the_signals_when_it_fails(scene: Scene) -> None:
    """When a worker cannot be started the signals are what they were, which the scene checks."""
    scene.declare(nothing)
    scene.orders.channel("billing").close()
    with pytest.raises(Closed):
        scene.run()


def test_run_ends_when_all_channels_are_drained(scene: Scene) -> None:
    """When the channels of all handlers are drained `run` ends by itself, not before."""
    scene.declare(nothing)
    scene.declare(nothing, "shipping")
    call = Call(scene.run)
    scene.clock.until_waiting("get() on", 2)
    first, second = scene.app.workers
    scene.orders.channel("billing").close(drain=True)
    assert first._runner is not None
    first._runner.wait()
    assert second.running
    scene.orders.channel("shipping").close(drain=True)
    assert (None, []) == (call.result(), scene.app.workers)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["close", "delete"])
def test_run_raises_when_a_worker_has_ended(scene: Scene, kind: str, how: str) -> None:
    """A worker whose channel is closed or deleted ends the run, though another could go on."""
    scene.declare(of_kind(kind, nothing))
    scene.declare(nothing, "shipping")
    call = Call(scene.run)
    scene.clock.until_waiting("get() on", 1 + (kind == "plain"))
    getattr(scene.orders.channel("billing"), how)()
    error = call.result()
    text = f"channel 'billing' of topic 'orders' is {how.rstrip('e')}ed"
    assert isinstance(error, Closed)
    assert f"worker 'orders:billing' is over: {text}" == str(error)
    assert [] == scene.app.workers


def test_a_worker_that_was_stopped_ends_no_run(scene: Scene) -> None:
    """Who stops a worker knows; the run goes on with the others, and ends with the last."""
    scene.declare(nothing)
    scene.declare(nothing, "shipping")
    call = Call(scene.run)
    scene.clock.until_waiting("get() on", 2)
    first, second = scene.app.workers
    first.stop()
    assert second.running
    second.stop()
    assert call.result() is None


def test_run_needs_a_handler(scene: Scene) -> None:
    """Without a handler there is nothing to run, which is an error at once."""
    with pytest.raises(InvalidOption) as info:
        scene.run()
    text = "handlers must be at least one, declared with @app.handler(topic, channel), not []"
    assert text == str(info.value)


def test_an_app_shows_what_its_workers_do(scene: Scene) -> None:
    """The statistics are those of the workers, in their order; after a run those of its end."""
    scene.declare(nothing)
    scene.declare(nothing, "shipping")
    assert () == scene.app.stats()
    with scene.running() as app:
        assert ["orders:billing", "orders:shipping"] == [told.name for told in app.stats()]
    assert ["stopped", "stopped"] == [told.state for told in app.stats()]


def test_a_running_app_is_left_as_it_is(scene: Scene) -> None:
    """It is not started again, and takes no more handlers, which nobody would call."""
    scene.declare(nothing)
    with scene.running() as app:
        with pytest.raises(Closed, match="the app is running already"):
            scene.run()
        with pytest.raises(Closed, match="the app is running already: declare its handlers before"):
            scene.declare(nothing, "late")
        assert 1 == len(app.workers)
        assert "late" not in scene.orders.channels
    scene.declare(nothing, "late")


def test_run_without_workers_ends_with_stop_only(scene: Scene) -> None:
    """An app without handlers has no workers that could end, so nothing rings `run` but a stop."""
    with scene.running() as app:
        app._notice_end()
        rung = [not app._semaphore.locked()]
        app.stop()
        rung.append(not app._semaphore.locked())
    assert [False, True] == rung


def test_run_ends_when_its_workers_ended_at_once(scene: Scene) -> None:
    """A `run` on channels that are drained already when it looks ends by itself."""
    scene.declare(nothing)
    scene.orders.put(b"order")
    scene.orders.channel("billing").close(drain=True)
    scene.run()
    assert 0 == scene.orders.stats().depth


def test_a_worker_that_ends_before_the_next_has_begun_ends_no_run(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While workers are not started yet they have not ended, though no other may be running."""
    start = threading.Thread.start

    def start_and_wait(thread: threading.Thread) -> None:
        start(thread)
        if thread.name == "orders:billing-supervisor":
            thread.join(PATIENCE)

    scene.declare(nothing)
    scene.declare(nothing, "shipping")
    scene.orders.put(b"last")
    scene.orders.channel("billing").close(drain=True)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_and_wait)
        running = scene.running()
        running.__enter__()
    with contextlib.ExitStack() as stack:
        stack.push(running.__exit__)
        assert [False, True] == [worker.running for worker in scene.app.workers]
        assert scene.app._semaphore.locked()


@pytest.mark.parametrize("kind", KINDS)
def test_run_raises_what_broke_a_worker(
    scene: Scene, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`SystemExit` in a handler ends the run, which raises it when all workers are stopped."""
    monkeypatch.setattr(threading, "excepthook", lambda _told: None)

    def leave(_message: Message[Any]) -> None:
        raise SystemExit(3)

    scene.declare(of_kind(kind, leave))
    scene.declare(nothing, "shipping")
    scene.orders.put(b"order")
    with pytest.raises(SystemExit) as info:
        scene.run()
    assert (3, []) == (info.value.code, scene.app.workers)
    assert 1 == scene.orders.channel("billing").depth
    until_ended("orders")
    del info
    gc.collect()  # so that asyncio tells of the task now, not at the end of all tests


def test_a_failure_ends_no_run(scene: Scene) -> None:
    """What a handler raises that is an `Exception` is no reason to end."""
    scene.declare(failing, retry=Retry.nsq())
    scene.app.handler("parcels", "packing")(lambda _: scene.app.stop())
    scene.orders.put(b"bad")
    call = Call(scene.run)
    scene.clock.until_waiting("get() on channel 'packing'")
    scene.clock.until_supervised(2)
    assert [True, True] == [worker.running for worker in scene.app.workers]
    scene.broker.topic("parcels").put(b"stop")
    assert call.result() is None


def test_a_worker_that_breaks_in_a_block_is_left_to_who_wrote_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block goes on when a worker breaks, which can be asked for; the next run begins anew."""
    monkeypatch.setattr(threading, "excepthook", lambda _told: None)

    def leave(_message: Message[Any]) -> None:
        raise SystemExit(3)

    scene.declare(leave)
    with scene.running() as app:
        [worker] = app.workers
        scene.orders.put(b"order")
        assert worker._runner is not None
        worker._runner.wait()
        assert isinstance(worker.broken, SystemExit)
    assert app._semaphore.locked()


@in_loop
async def test_a_block_in_a_loop_does_not_end_the_next_run() -> None:
    """What the end of an `async with` tells of its workers is forgotten with them."""
    scene = Scene()
    scene.declare(nothing)
    async with scene.running() as app:
        app.stop()
    assert ([], True) == (app.workers, app._semaphore.locked())


def test_a_worker_that_ends_late_does_not_end_the_next_run(scene: Scene) -> None:
    """A worker of a block that is over already says nothing about a run."""
    scene.declare(nothing)
    with scene.running() as app:
        [worker] = app.workers
    worker.when_over()
    assert app._semaphore.locked()


def test_a_channel_has_one_handler(scene: Scene) -> None:
    """A second one would get a part of the messages, and the first the others."""
    app = App()

    @app.handler("orders", "billing")
    def first(_message: Message[Any]) -> None: ...

    with pytest.raises(InvalidOption, match="channel must be one without a handler yet"):
        app.handler("orders", "billing")(first)
    app.handler("orders", "audit")(first)
    with app.running(scene.broker):
        assert 2 == len(app.workers)


def test_named_dead_letters_can_be_looked_at(scene: Scene) -> None:
    """Their topic gets a channel, unless it has one."""
    channel = scene.broker.topic("orders").channel("billing")
    scene.broker.topic("kept").channel("mine")
    for name, expected in (("dead", ["letters"]), ("kept", ["mine"])):
        Worker(channel, print, dead_letter=name)
        assert expected == list(scene.broker.topic(name).channels)
