"""A worker's tasks: in the running loop or in one of its own, cancelled, cut off and blocked."""

import asyncio
import contextlib
import gc
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from aio.loops import in_loop, turns
from helpers import PATIENCE, Call

from nsqlite import Message, Topic, Worker, aio
from nsqlite.aio.publish import until
from nsqlite.clock import Alarm, Loop
from nsqlite.options import SECOND
from nsqlite.worker import Handler
from nsqlite.worker.tasks import TaskRunner
from worker.scenes import (
    Clock,
    Disaster,
    Hold,
    NotingAsync,
    failing,
    nothing,
    of_kind,
    plan_of,
    threads_of,
    until_ended,
)

handle = of_kind("coroutine", nothing)


class Scene:
    """Tasks on a channel of orders."""

    def __init__(self, handler: Handler = handle, **plan: Any) -> None:
        self.clock = plan.pop("clock", None) or Clock()
        self.topic = Topic("orders", clock=self.clock)
        self.channel = self.topic.channel("billing")
        self.plan = plan_of(self.channel, handler, **plan)
        self.consumer = NotingAsync(self.channel, self.plan.window)
        self.runner = TaskRunner(self.plan, self.consumer)

    def stop(self, timeout: int = 60) -> None:
        self.runner.supervisor.stop(timeout * SECOND)
        self.runner.wait()

    async def until_over(self) -> None:
        await until(self.topic._monitor, self.clock, self.runner.is_over, None)

    @property
    def attempts(self) -> list[int]:
        """How often the messages that are ready were delivered."""
        return [info.attempts for info in self.channel.peek()]


class Blocked:
    """A coroutine handler that blocks its loop."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.free = threading.Event()

    async def __call__(self, _message: Message[Any]) -> None:
        self.begun.set()
        self.free.wait(PATIENCE)


class Waiting(Blocked):
    """A coroutine handler that waits for a thread, which nobody can cancel."""

    async def __call__(self, _message: Message[Any]) -> None:
        await asyncio.to_thread(self._wait)

    def _wait(self) -> None:
        self.begun.set()
        self.free.wait(PATIENCE)


class Stubborn(Blocked):
    """A coroutine handler that leaves a task which ends when it is told to, and no other way."""

    async def __call__(self, _message: Message[Any]) -> None:
        self.task = asyncio.create_task(self._stay())

    async def _stay(self) -> None:
        over = asyncio.get_running_loop().run_in_executor(None, self._wait)
        while not self.free.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(over)

    def _wait(self) -> None:
        self.begun.set()
        self.free.wait(PATIENCE)


def names(loop: asyncio.AbstractEventLoop | None = None) -> list[str]:
    """Return the names of a loop's tasks that are the worker's."""
    found = [task.get_name() for task in asyncio.all_tasks(loop)]
    return sorted(name for name in found if "orders" in name)


def close_under(scene: Scene) -> None:
    """Start tasks in a loop, and close it while one of them is at work."""
    loop = asyncio.new_event_loop()

    async def start() -> None:
        scene.runner.start()
        scene.topic.put(b"order")
        await turns()

    loop.run_until_complete(start())
    for task in asyncio.all_tasks(loop):
        vars_of: Any = task
        vars_of._log_destroy_pending = False  # asyncio would log that it was destroyed, as it was
    loop.close()


# Where they run


@in_loop
async def test_they_run_in_the_running_loop() -> None:
    """Started in a loop they are tasks of it, named after the worker and the slots."""
    scene = Scene(concurrency=2)
    threads = threading.active_count()
    scene.runner.start()
    await turns()
    assert ["orders:billing-1", "orders:billing-2"] == names()
    assert threads == threading.active_count()
    scene.runner.supervisor.stop(60 * SECOND)
    await scene.until_over()
    assert [] == names()


def test_they_have_a_loop_of_their_own_where_none_runs() -> None:
    """Started elsewhere they run in one daemon thread, which is joined."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def note(_message: Message[Any]) -> None:
        loops.append(asyncio.get_running_loop())

    scene = Scene(note, concurrency=3)
    scene.runner.start()
    [thread] = threads_of("orders:billing")
    scene.topic.put(b"order")
    scene.consumer.noted(2)
    scene.stop()
    assert ("orders:billing-loop", True) == (thread.name, thread.daemon)
    assert (False, True) == (thread.is_alive(), loops[0].is_closed())


def test_a_loop_of_their_own_knows_who_is_inside() -> None:
    """A handler is inside the runner, and its task is a slot's; others are not."""
    inside: list[bool] = []

    async def note(_message: Message[Any]) -> None:
        inside.extend((scene.runner.is_inside(), scene.runner.is_slot()))
        asyncio.get_running_loop().call_soon(lambda: inside.append(scene.runner.is_inside()))
        await asyncio.sleep(0)

    scene = Scene(note)
    scene.runner.start()
    scene.topic.put(b"order")
    scene.consumer.noted(2)
    inside.append(scene.runner.is_inside())
    scene.stop()
    assert [True, True, True, False] == inside


def test_what_a_handler_begins_is_a_slots_too() -> None:
    """Tasks that a handler began and threads that it awaits are of its runner; nobody else is."""
    found: list[bool] = []

    def note() -> None:
        found.append(scene.runner.is_slot())

    async def note_async() -> None:
        note()

    async def work(_message: Message[Any]) -> None:
        await asyncio.create_task(note_async())
        await asyncio.gather(note_async())
        await asyncio.to_thread(note)

    scene = Scene(work)
    scene.runner.start()
    scene.topic.put(b"order")
    scene.consumer.noted(2)
    note()
    scene.stop()
    assert [True, True, True, False] == found


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="no eager tasks before 3.12")
@in_loop
async def test_eager_tasks_are_a_slots_too() -> None:
    """In a loop of eager tasks those that a handler has begun are of its runner; none else."""
    asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - not in 3.11
    found: list[bool] = []

    async def note() -> None:
        found.append(scene.runner.is_slot())

    async def work(_message: Message[Any]) -> None:
        await asyncio.create_task(note())

    scene = Scene(work)
    scene.topic.put(b"order")
    scene.runner.start()
    await asyncio.create_task(note())
    await turns()
    scene.runner.supervisor.stop(60 * SECOND)
    await scene.until_over()
    assert [False, True] == sorted(found)
    assert 0 == scene.channel.depth


@in_loop
async def test_a_running_loop_is_inside_and_no_slot() -> None:
    """Whoever runs in the loop of the tasks would keep them from ending."""
    scene = Scene()
    scene.runner.start()
    await turns()
    assert (True, False) == (scene.runner.is_inside(), scene.runner.is_slot())
    assert not Call(scene.runner.is_inside).result()
    scene.runner.supervisor.stop(0)
    await scene.until_over()


def test_a_stop_before_the_loop_has_begun_ends_it() -> None:
    """A runner that is stopped in the moment of its start ends."""
    for _ in range(10):
        scene = Scene()
        scene.runner.start()
        scene.stop(0)
        assert [] == threads_of("orders:billing")


def test_a_stop_before_the_start_wakes_nobody() -> None:
    """Before its supervisor's task is there, nobody is woken; it looks when it begins."""
    scene = Scene()
    scene.runner.supervisor.stop(0)
    assert scene.runner.supervisor.act() is None


def test_a_thread_that_cannot_be_started_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the system gives no thread the error goes on, and the consumer is gone."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    scene = Scene()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            scene.runner.start()
    assert (True, 0) == (scene.runner.is_over(), scene.channel.stats().client_count)


# Cancellation


def test_a_cancelled_thing_that_is_awaited_is_a_failure() -> None:
    """A handler that awaits what somebody cancels has failed; its slot works on."""

    async def await_cancelled(message: Message[Any]) -> None:
        if message.body == "bad":
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

    scene = Scene(await_cancelled, backoff=None)
    scene.runner.start()
    scene.topic.put_many(["bad", "good"])
    assert ["RDY 1", "REQ 90", "FIN"] == scene.consumer.noted(3)
    assert isinstance(scene.runner.supervisor.settler.error, asyncio.CancelledError)
    scene.stop()


def test_a_loop_that_ends_stops_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    """When all tasks of the loop are cancelled the worker ends, which is no error of its own."""

    async def main(scene: Scene) -> None:
        scene.runner.start()
        await turns()

    for _ in range(8):  # in one order of tasks or another
        scene = Scene(Hold().stay_async)
        asyncio.run(main(scene))
        assert scene.runner.supervisor.over.is_set()
    assert [] == [one.message for one in caplog.records if one.levelname == "ERROR"]


@in_loop
async def test_a_slot_that_is_cancelled_stops_the_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """When somebody cancels a slot's task its message goes back and the worker is over."""
    hold = Hold()
    scene = Scene(hold.stay_async, concurrency=2)
    scene.runner.start()
    scene.topic.put(b"order")
    await turns()
    [task] = [task for task in asyncio.all_tasks() if task.get_name() == "orders:billing-1"]
    task.cancel()
    await scene.until_over()
    assert ([0], []) == (scene.attempts, names())
    text = "orders:billing-1 was cancelled from outside; the worker stops"
    assert f"orders:billing: {text}" == caplog.messages[0]


def test_a_handler_that_takes_too_long_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """A handler at work when its time is over is cancelled and told of; its message goes back."""
    hold = Hold()
    scene = Scene(hold.stay_async)
    scene.runner.start()
    scene.topic.put(b"order")
    hold.begun(1)
    scene.stop(0)
    assert [0] == scene.attempts
    [record] = caplog.records
    text = record.getMessage()
    assert logging.ERROR == record.levelno
    assert text.startswith("orders:billing: Hold.stay_async on message ")
    assert text.endswith(" has not ended after 0 s and is cancelled in orders:billing-1")


def test_a_handler_may_clean_up(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that is cancelled has a few turns of the loop; what it answers comes too late."""
    hold = Hold()
    told: list[str] = []

    async def clean_up(message: Message[Any]) -> None:
        try:
            await hold.stay_async(message)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            told.append("clean")

    scene = Scene(clean_up)
    scene.runner.start()
    scene.topic.put(b"order")
    hold.begun(1)
    scene.stop(0)
    assert (["clean"], [0]) == (told, scene.attempts)
    assert caplog.messages[-1].endswith("(given back); its work may be done twice")


@in_loop
async def test_a_handler_that_ignores_it_is_told_of() -> None:
    """A handler that goes on although it was cancelled is told of, and nobody waits for it."""
    told: list[str] = []
    free = asyncio.Event()

    async def ignore(_message: Message[Any]) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await free.wait()
        await free.wait()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())

    handler = Handler()
    logging.getLogger("nsqlite").addHandler(handler)
    scene = Scene(ignore)
    scene.runner.start()
    scene.topic.put(b"order")
    await turns()
    scene.runner.supervisor.stop(0)
    await scene.until_over()
    assert "orders:billing: orders:billing-1 was cancelled and goes on" == told[-1]
    free.set()
    await turns()
    logging.getLogger("nsqlite").removeHandler(handler)
    assert ([], [0]) == (names(), scene.attempts)


def test_a_loop_that_ends_takes_the_worker_along(caplog: pytest.LogCaptureFixture) -> None:
    """When `asyncio.run` ends, a worker nobody stopped ends; who was at work is told of."""
    hold = Hold()
    scene = Scene(hold.stay_async, concurrency=2)

    async def main() -> None:
        scene.runner.start()
        scene.topic.put(b"order")
        await turns()

    asyncio.run(main())
    assert (True, [0]) == (scene.runner.is_over(), scene.attempts)
    assert 1 == sum("has not ended" in text for text in caplog.messages)
    assert 0 == scene.channel.stats().client_count


@in_loop
async def test_a_supervisor_that_is_cancelled_twice_tells_all_the_same() -> None:
    """Even a supervisor cut off in the middle of its end says that the worker is over."""
    hold = Hold()
    scene = Scene(hold.stay_async)
    scene.runner.start()
    scene.topic.put(b"order")
    await turns()
    main = scene.runner._main
    assert main is not None
    main.cancel()
    await asyncio.sleep(0)
    main.cancel()
    await scene.until_over()
    assert ([0], True) == (scene.attempts, main.cancelled())


# Loops that do not come round


def test_a_loop_that_does_not_end_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    """Who waits for such a loop waits no longer than a second more, and is told why."""
    blocked, waiting, stubborn = Blocked(), Waiting(), Stubborn()
    scenes = {
        name: Scene(handler, name=name)
        for name, handler in (("blocked", blocked), ("waiting", waiting), ("stubborn", stubborn))
    }
    for scene in scenes.values():
        scene.runner.start()
        scene.topic.put(b"order")
    for begun in (blocked.begun, waiting.begun, stubborn.begun):
        assert begun.wait(PATIENCE)
    calls = [Call(partial(scene.stop, 0)) for scene in scenes.values()]
    assert [None, None, None] == [call.result() for call in calls]
    assert [True, True, True] == [scene.runner.is_over() for scene in scenes.values()]
    assert ([0], [0], []) == tuple(scene.attempts for scene in scenes.values())
    told = {name: [text for text in caplog.messages if text.startswith(name)] for name in scenes}
    assert "blocked: the loop of its handlers is blocked or does not run" == told["blocked"][0]
    assert told["blocked"][1].startswith("blocked: Blocked on message ")
    assert told["waiting"][0].startswith("waiting: Waiting on message ")
    assert "waiting: waiting-loop is left behind: its loop has not ended" == told["waiting"][1]
    assert ["stubborn: stubborn-loop is left behind: its loop has not ended"] == told["stubborn"]
    for name, left in (("blocked", blocked), ("waiting", waiting), ("stubborn", stubborn)):
        left.free.set()
        until_ended(name)


def test_a_loop_elsewhere_that_does_not_end_is_left_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Who awaits the end of such a loop waits no longer than a second more, and is told why."""
    blocked, waiting, stubborn = Blocked(), Waiting(), Stubborn()
    left = {"blocked": blocked, "waiting": waiting, "stubborn": stubborn}
    workers = []
    for name, handler in left.items():
        topic: Topic[bytes] = Topic("orders", clock=Clock())
        workers.append(Worker(topic.channel("billing"), handler, name=name).start())
        topic.put(b"order")
    for handler in left.values():
        assert handler.begun.wait(PATIENCE)

    async def stop() -> None:
        await asyncio.gather(*(aio.stop(worker, 0) for worker in workers))

    asyncio.run(stop())
    assert [False, False, False] == [worker.running for worker in workers]
    assert [1, 1, 0] == [worker.channel.depth for worker in workers]
    told = {name: [text for text in caplog.messages if text.startswith(name)] for name in left}
    assert "blocked: the loop of its handlers is blocked or does not run" == told["blocked"][0]
    assert "waiting: waiting-loop is left behind: its loop has not ended" == told["waiting"][1]
    assert ["stubborn: stubborn-loop is left behind: its loop has not ended"] == told["stubborn"]
    for name, handler in left.items():
        handler.free.set()
        until_ended(name)


def test_a_loop_that_does_not_run_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """A worker whose loop was left is over at once, and its message goes back."""
    hold = Hold()
    scene = Scene(hold.stay_async)
    loop = asyncio.new_event_loop()

    async def start() -> None:
        scene.runner.start()
        scene.topic.put(b"order")
        await turns()

    loop.run_until_complete(start())
    scene.stop()
    assert (True, [0]) == (scene.runner.is_over(), scene.attempts)
    assert 2 == len(caplog.records)
    loop.run_until_complete(turns(20))
    assert [] == names(loop)
    loop.close()


def test_a_loop_that_is_closed_is_not_waited_for() -> None:
    """A worker whose loop was closed under it is over when it is stopped."""
    hold = Hold()
    scene = Scene(hold.stay_async)
    close_under(scene)
    scene.runner.supervisor.stop(60 * SECOND)
    assert (True, [0]) == (scene.runner.is_over(), scene.attempts)
    scene.runner.wait()


def test_tasks_of_a_closed_loop_can_be_forgotten() -> None:
    """What is left of tasks whose loop was closed goes without an error, and loses nothing."""
    hold = Hold()
    scene = Scene(hold.stay_async)
    close_under(scene)
    channel = scene.channel
    del scene, hold
    gc.collect()
    assert (1, 0) == (channel.depth, channel.stats().client_count)


# What no handler should raise


def test_what_no_handler_should_raise_ends_a_loop_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`KeyboardInterrupt` in a handler ends the loop, and reaches `threading.excepthook`."""
    uncaught: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", uncaught.append)

    async def explode(_message: Message[Any]) -> None:
        raise KeyboardInterrupt

    scene = Scene(explode)
    scene.runner.start()
    scene.topic.put(b"order")
    until_ended("orders:billing")
    scene.runner.wait()
    assert [KeyboardInterrupt] == [told.exc_type for told in uncaught]
    assert isinstance(scene.runner.supervisor.settler.error, KeyboardInterrupt)
    assert [1] == scene.attempts


@in_loop
async def test_what_no_handler_should_raise_reaches_the_loop() -> None:
    """Another `BaseException` ends the worker, and the running loop is told of it."""
    told: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(type(context["exception"])))

    async def explode(_message: Message[Any]) -> None:
        raise Disaster

    scene = Scene(explode)
    scene.runner.start()
    scene.topic.put(b"order")
    await scene.until_over()
    await turns()
    assert isinstance(scene.runner.supervisor.settler.error, Disaster)
    assert [1] == scene.attempts
    del scene
    gc.collect()
    assert [Disaster] == told


# Time


class Hasty(Clock):
    """A clock that has come to 2 s as soon as somebody has asked to be called then."""

    def alarm(self, loop: Loop, moment: int, callback: Callable[[], object]) -> Alarm:
        alarm = super().alarm(loop, moment, callback)
        if moment == 2 * SECOND:
            self._elapsed = moment
        return alarm


def test_a_moment_that_comes_too_soon_is_not_slept_through() -> None:
    """A supervisor whose moment comes while it goes to sleep acts at once."""
    scene = Scene(of_kind("coroutine", failing), clock=Hasty())
    scene.runner.start()
    scene.topic.put(b"order")
    assert ["RDY 1", "RDY 0", "REQ 90", "RDY 1"] == scene.consumer.noted(4)
    scene.stop()


def test_a_second_stop_wakes_who_waits_for_the_first() -> None:
    """While one thread waits for handlers at work another can cut the time short."""
    hold = Hold()
    topic = Topic("orders", clock=Clock())
    worker = Worker(topic.channel("billing"), hold.stay_async).start()
    topic.put(b"order")
    hold.begun(1)
    clock = topic._clock
    assert isinstance(clock, Clock)
    first = Call(worker.stop)
    clock.until_waiting("stop() of worker")
    worker.stop(0)
    assert first.result() is None
    assert not worker.running


@pytest.mark.parametrize("concurrency", [1, 5])
@pytest.mark.parametrize("prefetch", [0, 3])
@in_loop
async def test_handlers_that_never_suspend_leave_their_loop_some_time(
    concurrency: int, prefetch: int
) -> None:
    """With a queue that never empties timers, other tasks, and a stop come, after a turn each."""
    topic: Topic[int] = Topic("orders")
    channel = topic.channel("billing")
    handled = [0]

    async def handle(message: Message[int]) -> None:
        handled[0] += 1
        topic.put(message.body)

    topic.put_many(range(20))
    async with Worker(channel, handle, concurrency=concurrency, prefetch=prefetch):
        for _ in range(10):
            before = handled[0]
            await asyncio.sleep(0.0001)
            assert handled[0] > before
            await turns()
    assert 20 == channel.depth
