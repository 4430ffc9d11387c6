"""A worker's threads: their names, who joins them, and what ends them early."""

import logging
import queue
import threading
from typing import Any

import pytest
from helpers import PATIENCE, Call

from nsqlite import ClockStandsStill, Message, Topic
from nsqlite.options import SECOND
from nsqlite.waiting import ThreadWaiter, Waiter
from nsqlite.worker import Handler
from nsqlite.worker.supervisor import Slot
from nsqlite.worker.threads import ThreadRunner
from worker.scenes import (
    Clock,
    Disaster,
    Hold,
    NotingConsumer,
    nothing,
    plan_of,
    threads_of,
    until_ended,
)


class Scene:
    """Threads on a channel of orders."""

    def __init__(self, handler: Handler = nothing, **plan: Any) -> None:
        self.clock = Clock(patience=plan.pop("patience", 1.0))
        self.topic = Topic("orders", clock=self.clock)
        self.channel = self.topic.channel("billing")
        self.plan = plan_of(self.channel, handler, **plan)
        self.consumer = NotingConsumer(self.channel, self.plan.window)
        self.runner = ThreadRunner(self.plan, self.consumer)

    def stop(self, timeout: int = 60) -> None:
        self.runner.supervisor.stop(timeout * SECOND)
        self.runner.wait()


@pytest.fixture
def uncaught(monkeypatch: pytest.MonkeyPatch) -> list[threading.ExceptHookArgs]:
    """Collect what comes to `threading.excepthook`."""
    told: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    return told


def test_there_is_a_thread_for_each_slot_and_one_more() -> None:
    """The threads are daemons, named after the worker, its slots and the supervisor."""
    scene = Scene(concurrency=2, name="bills")
    scene.runner.start()
    threads = threads_of("bills")
    scene.stop()
    assert ["bills-1", "bills-2", "bills-supervisor"] == sorted(t.name for t in threads)
    assert [True] * 3 == [thread.daemon for thread in threads]
    assert [] == threads_of("bills")
    assert scene.runner.is_over()


@pytest.mark.parametrize("timeout", [0, 60])
def test_idle_threads_are_joined(timeout: int) -> None:
    """Threads that wait for messages are joined, even if they had no time to end."""
    for _ in range(5):
        scene = Scene(concurrency=8)
        scene.runner.start()
        scene.stop(timeout)
        assert [] == threads_of("orders:billing")


def test_it_knows_its_own_threads() -> None:
    """A handler is inside the runner, others are not."""
    inside: list[bool] = []
    scene = Scene(lambda _: inside.append(scene.runner.is_inside()))
    scene.runner.start()
    scene.topic.put(b"order")
    scene.consumer.noted(2)
    inside.append(scene.runner.is_inside())
    scene.stop()
    assert [True, False] == inside


def test_many_messages_are_each_handled_once() -> None:
    """What waits is handled by the threads together, each message once, and finished."""
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def note(message: Message[Any]) -> None:
        seen.put((message.body, message.attempts))

    scene = Scene(note, concurrency=3)
    scene.topic.put_many(range(1000))
    scene.runner.start()
    found = [seen.get(timeout=PATIENCE) for _ in range(1000)]
    scene.stop()
    assert [(body, 1) for body in range(1000)] == sorted(found)
    assert (True, 0) == (seen.empty(), scene.channel.depth)
    scene.topic._check()


def test_a_thread_that_does_not_end_is_left_behind() -> None:
    """A wait joins all threads but that of a handler that has not ended."""
    hold = Hold()
    scene = Scene(hold.stay, concurrency=3)
    scene.runner.start()
    scene.topic.put(b"order")
    hold.begun(1)
    scene.stop(0)
    left = threads_of("orders:billing")
    assert (1, True) == (len(left), scene.runner.is_over())
    hold.let_go()
    until_ended("orders:billing")


def test_an_end_of_the_channel_ends_the_threads() -> None:
    """When the channel is deleted the threads end, without anybody's stop."""
    scene = Scene(concurrency=2)
    scene.runner.start()
    scene.channel.delete()
    scene.runner.wait()
    assert [] == threads_of("orders:billing")


def test_a_clock_that_stands_still_stops_no_thread() -> None:
    """When everybody waits for ever the others are told so; the worker's threads go on waiting."""
    scene = Scene(patience=0.01)
    scene.runner.start()
    scene.clock.until_waiting("the supervisor of a worker")
    scene.clock.until_waiting("get() on")
    semaphore: Waiter[Any] = ThreadWaiter(scene.topic._monitor)
    for _ in range(3):
        with pytest.raises(ClockStandsStill, match="the test waits for ever"):
            scene.clock.wait(semaphore.semaphore, None, "the test")
    scene.topic.put(b"order")
    assert ["RDY 1", "FIN"] == scene.consumer.noted(2)
    scene.stop()


def test_what_no_handler_should_raise_reaches_the_excepthook(
    uncaught: list[threading.ExceptHookArgs],
) -> None:
    """A `BaseException` of a handler ends its thread and the worker, and is told as usual."""

    def explode(message: Message[Any]) -> None:
        raise Disaster(message.body)

    scene = Scene(explode, concurrency=2)
    scene.runner.start()
    scene.topic.put(b"order")
    scene.runner.wait()
    until_ended("orders:billing")
    assert [Disaster] == [told.exc_type for told in uncaught]
    assert isinstance(scene.runner.supervisor.settler.error, Disaster)
    assert [1] == [info.attempts for info in scene.channel.peek()]


def ignore_exits(told: threading.ExceptHookArgs) -> None:
    """As Python's own hook does."""
    assert told.exc_type is SystemExit


def test_an_exit_of_a_handler_is_told_of(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`SystemExit`, of which Python says nothing in a thread, stops the worker with a word."""

    def leave(_message: Message[Any]) -> None:
        raise SystemExit(3)

    monkeypatch.setattr(threading, "excepthook", ignore_exits)
    scene = Scene(leave)
    scene.runner.start()
    scene.topic.put(b"order")
    scene.runner.wait()
    [record] = caplog.records
    assert (logging.ERROR, True) == (
        record.levelno,
        "leave raised SystemExit(3) on message" in record.getMessage(),
    )
    assert 1 == scene.channel.depth


def test_a_supervisor_that_breaks_ends_the_worker(
    uncaught: list[threading.ExceptHookArgs],
) -> None:
    """When something is thrown into the supervisor the threads end, and nothing is lost."""
    hold = Hold()
    scene = Scene(hold.stay, time_limit=30)

    def explode(_slot: Slot) -> bool:
        raise Disaster

    scene.runner.supervisor._cut = explode  # type: ignore[misc]  # where it acts
    scene.runner.start()
    scene.topic.put(b"order")
    hold.begun(1)
    scene.clock.until_supervised(30)
    scene.clock.advance(30)
    until_ended("orders:billing-supervisor")  # or this thread would be told what it touched
    scene.runner.wait()
    hold.let_go()
    until_ended("orders:billing")
    assert [Disaster] == [told.exc_type for told in uncaught]
    assert 1 == scene.channel.depth


@pytest.mark.parametrize("started", [0, 1, 2])
def test_threads_that_cannot_be_started_end_the_others(
    started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the system gives no more threads the error goes on, and those that run end."""
    start = threading.Thread.start
    count: list[threading.Thread] = []

    def refuse(thread: threading.Thread) -> None:
        if len(count) == started:
            raise RuntimeError("can't start new thread")
        count.append(thread)
        start(thread)

    scene = Scene(concurrency=2)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            scene.runner.start()
    scene.runner.wait()
    assert (True, []) == (scene.runner.is_over(), threads_of("orders:billing"))
    assert 0 == scene.channel.stats().client_count


def test_a_wait_is_one_on_the_clock() -> None:
    """Who waits for the end waits on the channel's clock, so a test is told of a standstill."""
    hold = Hold()
    scene = Scene(hold.stay)
    scene.runner.start()
    scene.topic.put(b"order")
    hold.begun(1)
    scene.runner.supervisor.stop(60 * SECOND)
    call = Call(scene.runner.wait)
    scene.clock.until_waiting("stop() of worker 'orders:billing'")
    hold.let_go()
    assert call.result(PATIENCE) is None
