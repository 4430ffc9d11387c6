"""Workers: what both kinds of handlers get, and how a worker ends in each state it can be in."""

import asyncio
import atexit
import contextlib
import functools
import importlib.util
import logging
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Self

import pytest
from aio.loops import in_loop, outcome, turns
from helpers import PATIENCE, Call, bodies

import nsqlite
from nsqlite import (
    Backoff,
    ClockStandsStill,
    Closed,
    Consumer,
    Drop,
    Full,
    InvalidOption,
    Kind,
    Message,
    Reentered,
    Requeue,
    Retry,
    State,
    TakeOver,
    TooManyConsumers,
    Topic,
    Worker,
    aio,
)
from nsqlite.options import SECOND
from nsqlite.testing import ManualClock
from nsqlite.worker import Outcome
from nsqlite.worker import worker as module
from nsqlite.worker.tasks import TaskRunner
from nsqlite.worker.threads import ThreadRunner
from worker.scenes import (
    KINDS,
    Clock,
    Failure,
    Hold,
    NotingAsync,
    NotingConsumer,
    Watch,
    as_nsq,
    failing,
    nothing,
    of_kind,
    plan_of,
    threads_of,
    until_ended,
)

ROOT: Final = Path(nsqlite.__file__).parent.parent

Come = Callable[[Message[Any]], Any]


class Scene:
    """A topic, its channel, a clock and an observer."""

    def __init__(self, clock: Clock | None = None, **options: Any) -> None:
        self.clock = clock or Clock()
        self.topic = Topic("orders", clock=self.clock, **options)
        self.channel = self.topic.channel("billing")
        self.watch = Watch()
        self.topic.observe(self.watch)

    def worker(self, kind: str, work: Come, **options: Any) -> Worker:
        return Worker(self.channel, of_kind(kind, work), **as_nsq(options))

    def holding(self, kind: str, hold: Hold, **options: Any) -> Worker:
        return Worker(self.channel, hold.handler(kind), **as_nsq(options))

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many messages are ready, in flight and deferred."""
        stats = self.channel.stats()
        return stats.depth, stats.in_flight_count, stats.deferred_count

    @property
    def attempts(self) -> list[tuple[Any, int]]:
        """The messages that are ready, and how often each was delivered."""
        return [(info.body, info.attempts) for info in self.channel.peek()]


@pytest.fixture
def scene() -> Iterator[Scene]:
    """Give a scene, and check at the end what must always hold."""
    made = Scene()
    yield made
    made.topic._check()


class Heard(logging.Handler):
    """Log records, for which a test can wait."""

    def __init__(self) -> None:
        super().__init__()
        self._records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self._records.put(record)

    def next(self, level: int) -> str:
        """Return the text of the next record of a level; those before it are forgotten."""
        while (record := self._records.get(timeout=PATIENCE)).levelno != level:
            pass
        return record.getMessage()


@pytest.fixture
def heard() -> Iterator[Heard]:
    """Collect what is logged."""
    handler = Heard()
    logger = logging.getLogger("nsqlite")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


each_kind = pytest.mark.parametrize("kind", KINDS)


def run(program: str, *, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter, with its workers told of in the log alone."""
    return subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", "-c", program],
        capture_output=True,
        check=False,
        cwd=ROOT,
        text=True,
        timeout=timeout,
    )


# What becomes of messages


@each_kind
def test_messages_are_handled_in_their_order(scene: Scene, kind: str) -> None:
    """One slot handles all messages, one after the other, and finishes each."""
    seen: list[Any] = []
    scene.topic.put_many(range(20))
    with scene.worker(kind, lambda message: seen.append(message.body)) as worker:
        assert worker.join(PATIENCE)
    assert (list(range(20)), (0, 0, 0)) == (seen, scene.counts)


@each_kind
def test_a_failed_message_comes_again(scene: Scene, kind: str) -> None:
    """A message whose handler raised is deferred by 90 s, and the worker backs off for 2."""
    seen: list[int] = []

    def fail_once(message: Message[Any]) -> None:
        seen.append(message.attempts)
        if message.attempts == 1:
            raise Failure

    with scene.worker(kind, fail_once):
        scene.topic.put(b"order")
        assert Kind.REQUEUED == scene.watch.until(Kind.REQUEUED).kind
        scene.clock.until_supervised(2)
        scene.clock.advance(89.9)
        assert ([1], (0, 0, 1)) == (seen, scene.counts)
        scene.clock.advance(0.1)
        scene.watch.until(Kind.FINISHED)
    assert [1, 2] == seen


@each_kind
@pytest.mark.parametrize("raised", [False, True])
@pytest.mark.parametrize(
    ("outcome", "kind_of_event", "counts"),
    [
        (Requeue(5, backoff=False), Kind.REQUEUED, (0, 0, 1)),
        (Requeue(), Kind.REQUEUED, (0, 0, 1)),
        (Drop("too old"), Kind.FINISHED, (0, 0, 0)),
    ],
)
def test_a_outcome_is_obeyed(
    scene: Scene,
    kind: str,
    outcome: Outcome,
    kind_of_event: Kind,
    counts: tuple[int, int, int],
    *,
    raised: bool,
) -> None:
    """A outcome that a handler raises or returns decides what becomes of its message."""

    def decide(_message: Message[Any]) -> Outcome:
        if raised:
            raise outcome
        return outcome

    with scene.worker(kind, decide):
        scene.topic.put(b"order")
        scene.watch.until(kind_of_event)
    assert counts == scene.counts


@each_kind
def test_a_message_that_is_taken_over_counts_until_it_is_answered(scene: Scene, kind: str) -> None:
    """A message taken over leaves its slot free and fills the window until another answers it."""
    taken: queue.SimpleQueue[Message[Any]] = queue.SimpleQueue()

    def take(message: Message[Any]) -> TakeOver:
        taken.put(message)
        return TakeOver()

    with scene.worker(kind, take, concurrency=2) as worker:
        scene.topic.put_many([1, 2, 3])
        messages = [taken.get(timeout=PATIENCE) for _ in range(2)]
        assert (True, (1, 2, 0)) == (taken.empty(), scene.counts)
        Call(messages[0].fin).result()
        third = taken.get(timeout=PATIENCE)
        assert 3 == third.body
        messages[1].req(1)
        third.fin()
        assert (0, 0, 1) == scene.counts
        assert worker.running


@each_kind
def test_a_handler_may_answer_itself(scene: Scene, kind: str) -> None:
    """A message that its handler answered is left as it is."""
    with scene.worker(kind, lambda message: message.req(7)):
        scene.topic.put(b"order")
        scene.watch.until(Kind.REQUEUED)
    [info] = scene.channel.deferred()
    assert 7 == info.due_in


@each_kind
def test_a_message_that_times_out_under_its_handler_comes_again(
    scene: Scene, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler that takes too long is told of in the log, and its message is handled again."""
    hold = Hold()
    with scene.holding(kind, hold):
        scene.topic.put(b"order")
        hold.begun(1)
        scene.clock.advance(60)
        assert [(b"order", 1)] == scene.attempts
        hold.let_go()
        hold.begun(1)
        scene.watch.until(Kind.FINISHED)
    assert 1 == len(caplog.records)
    assert caplog.messages[0].endswith("(timed out); its work may be done twice")


@each_kind
def test_the_fifth_failure_ends_in_the_dead_letters_at_once(scene: Scene, kind: str) -> None:
    """A message is handled five times, and the fifth failure moves it with no time passing."""
    dead = Topic("orders.dead", clock=scene.clock)
    seen: list[int] = []

    def fail(message: Message[Any]) -> None:
        seen.append(message.attempts)
        raise Failure(len(seen))

    scene.topic.put("bad")
    with scene.worker(kind, fail, requeue_delay=0, backoff=None, dead_letter=dead) as worker:
        assert worker.join(PATIENCE)
    [letter] = bodies(dead.channel("redrive"))
    assert ([1, 2, 3, 4, 5], 0) == (seen, scene.clock.monotonic_ns())
    assert ("bad", "orders", "billing", 5, "5") == (
        letter.body,
        letter.topic,
        letter.channel,
        letter.attempts,
        letter.error,
    )


@each_kind
def test_a_dead_letter_can_be_driven_back(scene: Scene, kind: str) -> None:
    """What was given up, mended and put back is handled by the same worker."""
    dead = Topic("orders.dead", clock=scene.clock)
    letters = dead.channel("redrive")
    mended = threading.Event()

    def work(_message: Message[Any]) -> None:
        if not mended.is_set():
            raise Failure

    scene.topic.put("bad")
    with scene.worker(kind, work, max_attempts=1, backoff=None, dead_letter=dead) as worker:
        assert worker.join(PATIENCE)
        mended.set()
        assert 1 == nsqlite.redrive(letters, scene.topic)
        assert worker.join(PATIENCE)
    assert (0, (0, 0, 0)) == (letters.depth, scene.counts)


@each_kind
def test_a_message_with_too_many_attempts_is_not_handled(scene: Scene, kind: str) -> None:
    """A message that arrives with a third attempt where two are allowed is given up unseen."""
    seen: list[Any] = []
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    scene.topic.put(b"order")
    with Consumer(scene.channel) as consumer:
        for _ in range(2):
            consumer.get(timeout=0).req()
    options: dict[str, Any] = {"on_give_up": lambda *given: told.put(given)}
    with scene.worker(kind, seen.append, max_attempts=2, **options):
        message, error = told.get(timeout=PATIENCE)
        scene.watch.until(Kind.FINISHED)
    assert ([], 3, None) == (seen, message.attempts, error)


# Backoff


@each_kind
def test_the_reference_trace(scene: Scene, kind: str) -> None:
    """Good good good bad bad good good, five at a time, gives what NSQ's clients send."""

    def work(message: Message[Any]) -> None:
        if message.body == "bad":
            raise Failure

    handler = of_kind(kind, work)
    plan = plan_of(scene.channel, handler, concurrency=5, backoff=Backoff(multiplier=0.01))
    consumer: NotingConsumer | NotingAsync
    runner: ThreadRunner | TaskRunner
    if kind == "plain":
        consumer = NotingConsumer(scene.channel, plan.window)
        runner = ThreadRunner(plan, consumer)
    else:
        consumer = NotingAsync(scene.channel, plan.window)
        runner = TaskRunner(plan, consumer)
    consumer.changes = True
    runner.start()
    calls = consumer.noted(1)
    for body, count, moment in (
        ("good", 1, None),
        ("good", 1, None),
        ("good", 1, None),
        ("bad", 2, 0.02),
        ("bad", 2, 0.06),
        ("good", 2, 0.08),
        ("good", 2, None),
    ):
        scene.topic.put(body)
        calls += consumer.noted(count)
        if moment is not None:
            scene.clock.until_supervised(moment)
            scene.clock.advance(moment - scene.clock.monotonic_ns() / SECOND)
            calls += consumer.noted(1)
    runner.supervisor.stop(60 * SECOND)
    runner.wait()
    trace = (
        "RDY 5, FIN, FIN, FIN, RDY 0, REQ, RDY 1, RDY 0, REQ, RDY 1, RDY 0, FIN, RDY 1, RDY 5, FIN"
    )
    assert trace.replace("REQ", "REQ 90") == ", ".join(calls)
    assert [] == consumer.rest()


@each_kind
def test_in_backoff_a_worker_takes_nothing(scene: Scene, kind: str) -> None:
    """While a worker waits in backoff what is put stays ready; then a probe takes one message."""
    hold = Hold()

    async def work_async(message: Message[Any]) -> None:
        if message.body == "bad":
            raise Failure
        await hold.stay_async(message)

    def work(message: Message[Any]) -> None:
        if message.body == "bad":
            raise Failure
        hold.stay(message)

    handler = work if kind == "plain" else work_async
    with Worker(scene.channel, handler, **as_nsq({"concurrency": 3})):
        scene.topic.put("bad")
        scene.watch.until(Kind.REQUEUED)
        scene.topic.put_many([1, 2, 3])
        assert [(1, 0), (2, 0), (3, 0)] == scene.attempts
        scene.clock.until_supervised(2)
        scene.clock.advance(2)
        assert [1] == hold.begun(1)
        assert [(2, 0), (3, 0)] == scene.attempts
        hold.let_go()
        assert {2, 3} == set(hold.begun(2))


# Long handlers


@each_kind
def test_a_long_handler_keeps_its_message(kind: str) -> None:
    """A message does not time out under its handler, also beyond `max_msg_timeout`."""
    scene = Scene(msg_timeout=10, max_msg_timeout=25)
    hold = Hold()
    with Worker(scene.channel, hold.handler(kind), concurrency=2):
        scene.topic.put(b"order")
        assert scene.watch.until(Kind.DELIVERED).due is None
        hold.begun(1)
        scene.clock.advance(1000)
        assert ((0, 1, 0), True) == (scene.counts, hold.nobody())
        hold.let_go()
        scene.watch.until(Kind.FINISHED)


def test_a_thread_that_takes_too_long(scene: Scene, heard: Heard) -> None:
    """With `time_limit` a handler in a thread is told of, and goes on."""
    hold = Hold()
    with Worker(scene.channel, hold.stay, time_limit=5, name="bills") as worker:
        name = scene.topic.put(b"order")
        hold.begun(1)
        scene.clock.until_supervised(5)
        scene.clock.advance(5)
        text = f"stay on message {name} takes longer than time_limit=5 s, and goes on in bills-1"
        assert f"bills: Hold.{text}" == heard.next(logging.ERROR)
        hold.let_go()
        assert worker.join(PATIENCE)
    assert (0, 0, 0) == scene.counts


def test_a_task_that_takes_too_long(scene: Scene, heard: Heard) -> None:
    """With `time_limit` a coroutine is cancelled, and its message has failed; the slot goes on."""
    hold = Hold()
    with Worker(scene.channel, hold.stay_async, time_limit=5, name="bills") as worker:
        name = scene.topic.put(b"order")
        hold.begun(1)
        scene.clock.until_supervised(5)
        scene.clock.advance(5)
        text = heard.next(logging.WARNING)
        assert text.startswith(f"bills: Hold.stay_async failed on message {name}, attempt 1; the")
        assert text.endswith(": TimeoutError: Hold.stay_async took longer than time_limit=5 s")
        hold.let_go()
        scene.topic.put(b"another")
        scene.watch.until(Kind.FINISHED)
        assert (0, 0, 1) == scene.counts
        scene.channel.empty()
        assert worker.join(PATIENCE)


@pytest.mark.parametrize("end", ["returns", "tidies up", "raises", "sleeps"])
@in_loop
async def test_a_task_that_goes_on_when_it_is_cancelled(scene: Scene, end: str) -> None:
    """What a handler makes of being cancelled for its time counts; a stop cancels it still."""
    begun = asyncio.Event()

    async def resist(_message: Message[Any]) -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if end == "raises":
                raise Failure from None
            if end == "tidies up":
                await asyncio.sleep(0)
            if end == "sleeps":
                await asyncio.Event().wait()

    async with Worker(scene.channel, resist, time_limit=5) as worker:
        scene.topic.put(b"order")
        await begun.wait()
        await turns()
        scene.clock.advance(5)
        await turns(20)
        assert (0, int(end == "sleeps"), int(end == "raises")) == scene.counts
        scene.topic.put(b"another")
        begun.clear()
        if end != "sleeps":
            await begun.wait()
        await aio.stop(worker, 0)
    assert (1 + (end == "sleeps"), 0, int(end == "raises")) == scene.counts


@each_kind
def test_without_auto_touch_nothing_is_touched(scene: Scene, kind: str) -> None:
    """Without `auto_touch` a message times out under a long handler."""
    hold = Hold()
    with scene.holding(kind, hold):
        scene.topic.put(b"order")
        hold.begun(1)
        for _ in range(12):
            scene.clock.advance(5)
        assert (1, 0, 0) == scene.counts
        hold.let_go()
        scene.watch.until(Kind.FINISHED)


@each_kind
def test_a_worker_can_have_its_own_time_out(scene: Scene, kind: str) -> None:
    """With `msg_timeout` the worker's messages time out after that."""
    hold = Hold()
    with scene.holding(kind, hold, msg_timeout=3):
        scene.topic.put(b"order")
        hold.begun(1)
        scene.clock.advance(3)
        assert (1, 0, 0) == scene.counts
        hold.let_go()
        scene.watch.until(Kind.FINISHED)


# Concurrency


@each_kind
def test_so_many_messages_at_a_time(scene: Scene, kind: str) -> None:
    """As many handlers work at a time as were asked for; the rest stays ready, attempts unburnt."""
    hold = Hold()
    scene.topic.put_many(range(5))
    with scene.holding(kind, hold, concurrency=3) as worker:
        assert {0, 1, 2} == set(hold.begun(3))
        assert ([(3, 0), (4, 0)], True) == (scene.attempts, hold.nobody())
        hold.let_go()
        assert worker.join(PATIENCE)


@each_kind
def test_one_slow_handler_delays_nobody_else(scene: Scene, kind: str) -> None:
    """While one message is worked on for long all others are handled."""
    hold = Hold()
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()

    async def work_async(message: Message[Any]) -> None:
        if message.body == "slow":
            await hold.stay_async(message)
        seen.put(message.body)

    def work(message: Message[Any]) -> None:
        if message.body == "slow":
            hold.stay(message)
        seen.put(message.body)

    with Worker(scene.channel, work if kind == "plain" else work_async, concurrency=2):
        scene.topic.put("slow")
        hold.begun(1)
        scene.topic.put_many(range(50))
        assert list(range(50)) == [seen.get(timeout=PATIENCE) for _ in range(50)]
        hold.let_go()
        assert "slow" == seen.get(timeout=PATIENCE)


@each_kind
def test_a_slot_may_take_more_at_a_time(scene: Scene, kind: str) -> None:
    """With `prefetch=2` a slot takes three messages at a time and works on one."""
    hold = Hold()
    scene.topic.put_many(range(5))
    with scene.holding(kind, hold, prefetch=2) as worker:
        assert [0] == hold.begun(1)
        assert (True, (2, 3, 0)) == (hold.nobody(), scene.counts)
        hold.let_go()
        assert worker.join(PATIENCE)
        assert [1, 2, 3, 4] == hold.begun(4)


@each_kind
@pytest.mark.parametrize("prefetch", [0, 5])
def test_the_window_can_be_smaller(scene: Scene, kind: str, prefetch: int) -> None:
    """With `max_in_flight=2` a worker of four slots holds two messages."""
    hold = Hold()
    scene.topic.put_many(range(4))
    options = {"concurrency": 4, "prefetch": prefetch, "max_in_flight": 2}
    with scene.holding(kind, hold, **options) as worker:
        hold.begun(1)
        if not prefetch:
            hold.begun(1)
        assert (2, 2, 0) == scene.counts
        hold.let_go()
        assert worker.join(PATIENCE)


# Stopping, in each state


@each_kind
def test_a_new_worker_can_be_stopped(scene: Scene, kind: str) -> None:
    """A worker that was not started has nothing to stop, and can be started afterwards."""
    worker = scene.worker(kind, nothing)
    worker.stop()
    asyncio.run(aio.stop(worker))
    assert not worker.running
    with worker:
        scene.topic.put(b"order")
        assert worker.join(PATIENCE)


@each_kind
@pytest.mark.parametrize("timeout", [0, 30])
def test_an_idle_worker_stops(scene: Scene, kind: str, timeout: float) -> None:
    """A worker that waits for messages ends at once, with all its threads."""
    worker = scene.worker(kind, nothing, concurrency=4).start()
    worker.stop(timeout)
    assert (False, [], 0) == (
        worker.running,
        threads_of("orders"),
        scene.channel.stats().client_count,
    )


@each_kind
def test_a_working_worker_stops_when_its_handlers_have_ended(scene: Scene, kind: str) -> None:
    """A stop waits for the handlers at work, whose messages are finished; no others are taken."""
    hold = Hold()
    scene.topic.put_many(range(3))
    worker = scene.holding(kind, hold, concurrency=2).start()
    hold.begun(2)
    call = Call(worker.stop)
    scene.clock.until_waiting("stop() of worker")
    assert worker.running
    hold.let_go()
    assert call.result() is None
    assert (False, [(2, 0)]) == (worker.running, scene.attempts)


@each_kind
def test_a_handler_that_does_not_end_is_not_waited_for(
    scene: Scene, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """When the time is over the handler is told of by name and age; its message is at the head."""
    hold = Hold()
    scene.topic.put_many(range(2))
    worker = scene.holding(kind, hold, name="bills").start()
    hold.begun(1)
    scene.clock.advance(5)
    call = Call(lambda: worker.stop(10))
    scene.clock.until_supervised(15)
    scene.clock.advance(10)
    assert call.result() is None
    assert (False, [(0, 0), (1, 0)]) == (worker.running, scene.attempts)
    name, overdue = {
        "plain": ("Hold.stay", "left behind"),
        "coroutine": ("Hold.stay_async", "cancelled"),
    }[kind]
    assert caplog.messages[0].startswith(f"bills: {name} on message ")
    assert caplog.messages[0].endswith(f" has not ended after 15 s and is {overdue} in bills-1")
    hold.let_go()
    until_ended("bills")


@each_kind
def test_a_worker_in_backoff_stops(scene: Scene, kind: str) -> None:
    """A worker that waits in backoff ends at once."""
    worker = scene.worker(kind, failing).start()
    scene.topic.put(b"order")
    scene.watch.until(Kind.REQUEUED)
    scene.clock.until_supervised(2)
    worker.stop()
    assert (False, (0, 0, 1)) == (worker.running, scene.counts)


@each_kind
@pytest.mark.parametrize("works", [False, True])
def test_a_probing_worker_stops(scene: Scene, kind: str, *, works: bool) -> None:
    """A worker whose probe waits for a message, or is worked on, ends."""
    hold = Hold()

    async def work_async(message: Message[Any]) -> None:
        if message.body == "bad":
            raise Failure
        await hold.stay_async(message)

    def work(message: Message[Any]) -> None:
        if message.body == "bad":
            raise Failure
        hold.stay(message)

    handler = work if kind == "plain" else work_async
    worker = Worker(scene.channel, handler, retry=Retry.nsq()).start()
    scene.topic.put("bad")
    scene.clock.until_supervised(2)
    scene.clock.advance(2)
    if works:
        scene.topic.put("probe")
        hold.begun(1)
        call = Call(worker.stop)
        scene.clock.until_waiting("stop() of worker")
        hold.let_go()
        call.result()
    worker.stop()
    assert (False, (0, 0, 1)) == (worker.running, scene.counts)


@each_kind
def test_what_was_prefetched_goes_back(scene: Scene, kind: str) -> None:
    """Messages that were taken and not begun are at the head again, attempts as before."""
    hold = Hold()
    scene.topic.put_many(range(4))
    worker = scene.holding(kind, hold, prefetch=2).start()
    hold.begun(1)
    call = Call(worker.stop)
    scene.clock.until_waiting("stop() of worker")
    hold.let_go()
    call.result()
    assert [(1, 0), (2, 0), (3, 0)] == scene.attempts


@each_kind
def test_what_was_prefetched_does_not_wait_for_the_handlers(scene: Scene, kind: str) -> None:
    """A slot that finds its worker stopped puts back what it has, though others are at work."""
    hold = Hold()

    async def work_async(message: Message[Any]) -> None:
        if message.body == 0:
            await hold.stay_async(message)
        else:
            worker.begin_stop()

    def work(message: Message[Any]) -> None:
        if message.body == 0:
            hold.stay(message)
        else:
            worker.begin_stop()

    handler = work if kind == "plain" else work_async
    worker = Worker(scene.channel, handler, concurrency=2, prefetch=2).start()
    scene.topic.put(0)
    hold.begun(1)
    scene.topic.put_many([1, 2, 3])
    scene.watch.until(Kind.RETURNED)
    assert worker.running
    hold.let_go()
    worker.stop()
    assert [(2, 0), (3, 0)] == scene.attempts


@each_kind
def test_a_stop_waits_for_what_was_taken_over(scene: Scene, kind: str) -> None:
    """It is over when the last of it is answered, in whatever way, though more is ready."""
    taken: queue.SimpleQueue[Message[Any]] = queue.SimpleQueue()

    def take_over(message: Message[Any]) -> Any:
        taken.put(message)
        return TakeOver()

    scene.topic.put_many([1, 2, 3])
    worker = scene.worker(kind, take_over, max_in_flight=2, concurrency=2, auto_touch=True).start()
    messages = [taken.get(timeout=PATIENCE) for _ in range(2)]
    call = Call(worker.stop)
    scene.clock.until_waiting("stop() of worker")
    messages[0].fin()
    assert worker.running
    messages[1].req(5)
    call.result()
    assert (False, (1, 0, 1)) == (worker.running, scene.counts)


@each_kind
def test_a_stop_waits_no_longer_than_it_may(scene: Scene, kind: str) -> None:
    """What was taken over and is not answered in time goes back as it was; or it has timed out."""
    taken = threading.Event()

    def take_over(_message: Message[Any]) -> Any:
        taken.set()
        return TakeOver()

    for count, (patience, attempts) in enumerate([(30, 0), (90, 1)], 1):
        scene.topic.put("order")
        worker = scene.worker(kind, take_over, auto_touch=True).start()
        assert taken.wait(PATIENCE)
        call = Call(functools.partial(worker.stop, patience))
        scene.clock.until_waiting("stop() of worker", count)
        scene.clock.advance(min(patience, 60))
        call.result()
        assert [("order", attempts)] == scene.attempts
        scene.channel.empty()
        taken.clear()


def test_the_end_of_its_channel_ends_a_stop(scene: Scene) -> None:
    """What was taken over from a channel that is closed meanwhile is waited for no more."""
    taken = threading.Event()

    def take_over(_message: Message[Any]) -> Any:
        taken.set()
        return TakeOver()

    scene.topic.put("order")
    worker = scene.worker("plain", take_over).start()
    assert taken.wait(PATIENCE)
    call = Call(worker.stop)
    scene.clock.until_waiting("stop() of worker")
    scene.channel.close()
    call.result()
    assert not worker.running


@each_kind
def test_a_handler_may_stop_its_worker(scene: Scene, kind: str) -> None:
    """A `stop` in a handler returns at once; the handler's own message is finished."""
    worker = scene.worker(kind, lambda _: worker.stop(), concurrency=2).start()
    scene.topic.put(b"order")
    scene.watch.until(Kind.FINISHED)
    worker.stop()
    assert (False, (0, 0, 0)) == (worker.running, scene.counts)


def test_a_coroutine_handler_may_await_the_stop_of_its_worker(scene: Scene) -> None:
    """An awaited `stop` in a handler does not wait for the handler itself."""

    async def stop(_message: Message[Any]) -> None:
        await aio.stop(worker)

    worker = Worker(scene.channel, stop).start()
    scene.topic.put(b"order")
    scene.watch.until(Kind.FINISHED)
    worker.stop()
    assert (False, (0, 0, 0)) == (worker.running, scene.counts)


@each_kind
def test_a_worker_can_be_stopped_twice(scene: Scene, kind: str) -> None:
    """A second stop does nothing."""
    worker = scene.worker(kind, nothing).start()
    worker.stop()
    worker.stop(0)
    asyncio.run(aio.stop(worker))
    assert not worker.running


@each_kind
@pytest.mark.parametrize("how", ["close", "delete"])
def test_the_end_of_its_channel_ends_a_worker(scene: Scene, kind: str, how: str) -> None:
    """When the channel is closed or deleted an idle worker ends by itself."""
    worker = scene.worker(kind, nothing, concurrency=2).start()
    scene.topic.put(b"order")
    scene.watch.until(Kind.FINISHED)
    getattr(scene.channel, how)()
    runner = worker._runner
    assert runner is not None
    runner.wait()
    worker.stop()
    assert (False, []) == (worker.running, threads_of("orders"))


@each_kind
@pytest.mark.parametrize("how", ["close", "delete"])
def test_handlers_may_end_after_their_channel(
    scene: Scene, kind: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler at work when its channel ends has the time that a stop gives it."""
    hold = Hold()
    worker = scene.holding(kind, hold, concurrency=2).start()
    scene.topic.put(b"order")
    hold.begun(1)
    getattr(scene.channel, how)()
    call = Call(worker.stop)
    scene.clock.until_waiting("stop() of worker")
    assert worker.running
    caplog.clear()
    with caplog.at_level(logging.INFO, "nsqlite"):
        hold.let_go()
        call.result()
    assert not worker.running
    assert any(text.endswith(" was thrown away meanwhile") for text in caplog.messages)
    assert caplog.messages[-1].startswith("orders:billing: stopped; 1 processed")


@each_kind
def test_a_drained_channel_ends_its_worker(scene: Scene, kind: str) -> None:
    """A worker handles what is left in a channel that drains, and ends with it."""
    seen: list[Any] = []
    scene.topic.put_many(range(5))
    scene.channel.close(drain=True)
    with scene.worker(kind, lambda message: seen.append(message.body)) as worker:
        runner = worker._runner
        assert runner is not None
        runner.wait()
    assert ([0, 1, 2, 3, 4], True) == (seen, scene.channel.closed)


def interrupt(clock: Clock, number: signal.Signals) -> None:
    """Send a signal to the main thread when it waits for the end of a worker."""
    clock.until_waiting("stop() of worker")
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, number)


@each_kind
def test_ctrl_c_makes_a_stop_immediate(
    scene: Scene, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """`KeyboardInterrupt` in a stop goes on, and the handlers at work are not waited for."""
    hold = Hold()
    worker = scene.holding(kind, hold).start()
    scene.topic.put(b"order")
    hold.begun(1)
    call = Call(lambda: interrupt(scene.clock, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        worker.stop()
    call.result()
    worker.stop()
    assert (False, [(b"order", 0)], 1) == (worker.running, scene.attempts, len(caplog.records))
    hold.let_go()
    until_ended("orders")


def test_a_signal_in_the_middle_of_a_call_may_stop(scene: Scene) -> None:
    """A signal handler that strikes while its thread holds the lock stops without waiting."""
    worker = scene.worker("plain", nothing).start()
    with scene.topic._monitor.lock:
        worker.stop()
        assert worker.running
    worker.stop()
    assert not worker.running


def test_a_stop_on_a_clock_that_stands_still_is_told_so() -> None:
    """When handlers wait on a clock that nobody moves, a stop raises, and the rest is immediate."""
    scene = Scene(Clock(patience=0.01))
    shelf = Consumer(Topic("shelf", clock=scene.clock).channel("empty"))
    begun = threading.Event()

    def wait(_message: Message[Any]) -> None:
        begun.set()
        while not shelf.closed:
            try:
                shelf.get(timeout=3600)
            except (ClockStandsStill, Closed):
                pass

    worker = scene.worker("plain", wait).start()
    scene.topic.put(b"order")
    assert begun.wait(PATIENCE)
    with pytest.raises(ClockStandsStill) as info:
        worker.stop()
    assert "stop() of worker 'orders:billing'" == info.value.waiter
    worker.stop()
    shelf.close()
    until_ended("orders")
    assert (False, [(b"order", 0)]) == (worker.running, scene.attempts)


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), None, "1", True])
def test_a_timeout_that_is_none_stops_nothing(scene: Scene, timeout: Any) -> None:
    """A timeout that is no number of seconds is refused, and the worker goes on."""
    with scene.worker("plain", nothing) as worker:
        for stop in (worker.stop, worker.begin_stop):
            with pytest.raises(InvalidOption):
                stop(timeout)
        with pytest.raises(InvalidOption):
            asyncio.run(aio.stop(worker, timeout))
        assert worker.running


@in_loop
async def test_seconds_or_a_timedelta() -> None:
    """The times that a worker is told can be a `timedelta` as well."""
    scene = Scene()
    second = timedelta(seconds=1)
    worker = scene.worker("coroutine", nothing, time_limit=second, msg_timeout=2 * second)
    assert (1.0, 2.0) == (worker._plan.time_limit, worker._plan.msg_timeout)
    scene.topic.put(b"order", delay=timedelta(hours=1))
    waits = asyncio.ensure_future(aio.join(worker, second))
    await turns()
    scene.clock.advance(second)
    assert not await waits
    assert not worker.join(timedelta(0))
    worker.start()
    await turns()
    worker.begin_stop(second)
    await aio.stop(worker, second)
    worker.stop(second)
    assert not worker.running


# Stopping in asyncio


@in_loop
async def test_a_worker_in_a_loop() -> None:
    """`async with` starts a worker whose tasks run in this loop, and stops it."""
    scene = Scene()
    threads = threading.active_count()
    tasks = asyncio.all_tasks()
    loops: list[object] = []

    async def note(message: Message[Any]) -> None:
        await asyncio.sleep(0)
        loops.append((message.body, asyncio.get_running_loop()))

    async with Worker(scene.channel, note, concurrency=2) as worker:
        scene.topic.put_many(range(3))
        assert await aio.join(worker)
        assert (True, threads) == (worker.running, threading.active_count())
    loop = asyncio.get_running_loop()
    assert [(0, loop), (1, loop), (2, loop)] == loops
    assert (False, tasks) == (worker.running, asyncio.all_tasks())


@in_loop
async def test_a_plain_handler_beside_a_loop() -> None:
    """`async with` a plain handler works in threads, which are joined at the end."""
    scene = Scene()
    async with scene.worker("plain", nothing, concurrency=3) as worker:
        scene.topic.put_many(range(3))
        assert await aio.join(worker)
    assert (False, []) == (worker.running, threads_of("orders"))


@in_loop
async def test_stop_in_its_own_loop_does_not_wait() -> None:
    """A `stop` in the loop of the handlers returns at once; they end when the loop goes round."""
    scene = Scene()
    worker = scene.worker("coroutine", nothing).start()
    await turns()
    worker.stop()
    assert worker.running
    await aio.stop(worker)
    assert not worker.running


@in_loop
async def test_an_awaited_stop_waits_for_handlers() -> None:
    """An awaited `stop` lets the loop go on until the handlers at work have ended."""
    scene = Scene()
    hold = Hold()
    worker = scene.holding("coroutine", hold).start()
    scene.topic.put(b"order")
    await turns()
    stopping = asyncio.ensure_future(aio.stop(worker))
    await turns()
    assert not stopping.done()
    hold.let_go()
    await stopping
    assert (False, (0, 0, 0)) == (worker.running, scene.counts)


def test_a_plain_handler_may_await_the_stop_of_its_worker(scene: Scene) -> None:
    """An awaited `stop` in a plain handler does not wait for the handler itself either."""
    worker = scene.worker("plain", lambda _: asyncio.run(aio.stop(worker))).start()
    scene.topic.put(b"order")
    scene.watch.until(Kind.FINISHED)
    worker.stop()
    assert (False, (0, 0, 0)) == (worker.running, scene.counts)


@in_loop
async def test_an_awaited_stop_joins_the_thread_of_a_loop_elsewhere() -> None:
    """An awaited `stop` of a worker with a loop of its own leaves no thread of it."""
    scene = Scene()
    worker = await asyncio.to_thread(scene.worker("coroutine", nothing).start)
    scene.topic.put(b"order")
    assert await aio.join(worker)
    await aio.stop(worker)
    assert (False, []) == (worker.running, threads_of("orders"))


@in_loop
async def test_a_cancelled_stop_is_immediate() -> None:
    """When an awaited `stop` is cancelled the handlers at work have no more time."""
    scene = Scene()
    hold = Hold()
    worker = scene.holding("coroutine", hold).start()
    scene.topic.put(b"order")
    await turns()
    stopping = asyncio.ensure_future(aio.stop(worker))
    await turns()
    stopping.cancel()
    assert isinstance(await outcome(stopping), asyncio.CancelledError)
    await aio.stop(worker)
    assert (False, [(b"order", 0)]) == (worker.running, scene.attempts)


# Joining


@each_kind
def test_join_raises_the_first_error(scene: Scene, kind: str) -> None:
    """`join(raise_first=True)` raises what a handler raised, without waiting for the rest."""
    hold = Hold()

    async def work_async(message: Message[Any]) -> None:
        await hold.stay_async(message)
        failing(message)

    def work(message: Message[Any]) -> None:
        hold.stay(message)
        failing(message)

    scene.topic.put("bad")
    with Worker(scene.channel, work if kind == "plain" else work_async) as worker:
        call = Call(lambda: worker.join(raise_first=True))
        scene.clock.until_waiting("join() of worker")
        hold.let_go()
        error = call.result()
        assert isinstance(error, Failure)
        assert ("bad",) == error.args
        with pytest.raises(Failure):
            worker.join(raise_first=True)


@each_kind
def test_join_without_an_error_is_the_channels(scene: Scene, kind: str) -> None:
    """`join` waits until all is done, and is True then whether or not errors were asked for."""
    scene.topic.put_many(range(5))
    with scene.worker(kind, nothing) as worker:
        assert worker.join(raise_first=True)
        assert worker.join()


@each_kind
def test_join_ends_with_its_timeout(scene: Scene, kind: str) -> None:
    """`join` is False when its timeout passes first."""
    hold = Hold()
    with scene.holding(kind, hold) as worker:
        scene.topic.put(b"order")
        hold.begun(1)
        call = Call(lambda: worker.join(2, raise_first=True))
        scene.clock.until_waiting("join() of worker 'orders:billing'")
        scene.clock.advance(2)
        assert call.result() is False
        assert not worker.join(0)
        hold.let_go()


@each_kind
def test_join_of_a_closed_channel_raises(scene: Scene, kind: str) -> None:
    """`join` raises `Closed` when its channel is over."""
    with scene.worker(kind, nothing) as worker:
        scene.channel.close()
        with pytest.raises(Closed):
            worker.join()


@each_kind
def test_join_in_a_handler_is_refused(scene: Scene, kind: str) -> None:
    """A handler that would join its own worker is told so, and what to do instead."""
    told: list[BaseException] = []

    def join(_message: Message[Any]) -> None:
        try:
            worker.join()
        except Reentered as error:
            told.append(error)

    with scene.worker(kind, join) as worker:
        scene.topic.put(b"order")
        assert worker.join(PATIENCE)
    text = "await nsqlite.aio.join(worker), outside of its handlers"
    assert [f"join() would wait here for its own end: {text}"] == [str(error) for error in told]


@each_kind
def test_an_awaited_join_in_a_handler_is_refused(scene: Scene, kind: str) -> None:
    """A handler that would await its own worker is told so, and what to do instead."""
    told: list[BaseException] = []

    async def await_join(_message: Message[Any]) -> None:
        try:
            await aio.join(worker)
        except Reentered as error:
            told.append(error)

    def join(message: Message[Any]) -> None:
        asyncio.run(await_join(message))

    handler = join if kind == "plain" else await_join
    with Worker(scene.channel, handler) as worker:
        scene.topic.put(b"order")
        assert worker.join(PATIENCE)
    text = "call it outside of the worker's handlers"
    assert [f"join() would wait here for its own end: {text}"] == [str(e) for e in told]


@in_loop
async def test_join_in_the_loop_of_the_handlers_is_refused() -> None:
    """A join that would block the loop in which the handlers run raises, at once."""
    scene = Scene()
    async with scene.worker("coroutine", nothing) as worker:
        with pytest.raises(Reentered):
            worker.join()


def test_join_in_a_thread_that_a_handler_awaits_is_refused(scene: Scene) -> None:
    """A thread for which a handler waits cannot wait for the handler."""
    told: list[str] = []

    def join() -> None:
        try:
            worker.join()
        except Reentered as error:
            told.append(error.call)

    async def work(_message: Message[Any]) -> None:
        await asyncio.to_thread(join)

    with Worker(scene.channel, work) as worker:
        scene.topic.put(b"order")
        assert worker.join(PATIENCE)
    assert ["join"] == told


@each_kind
def test_join_of_a_worker_that_stops_raises(scene: Scene, kind: str) -> None:
    """Who waits for messages that nobody handles any more is told so when the worker stops."""
    scene.topic.put(b"late", delay=60)
    worker = scene.worker(kind, nothing).start()
    call = Call(worker.join)
    scene.clock.until_waiting("join() of worker")
    worker.stop()
    error = call.result()
    assert isinstance(error, Closed)
    assert ("worker 'orders:billing'", "stopped") == (error.what, error.how)
    assert "worker 'orders:billing' is stopped" == str(error)
    with pytest.raises(Closed):
        worker.join(raise_first=True)
    with pytest.raises(Closed):
        asyncio.run(aio.join(worker))


@each_kind
def test_join_of_a_worker_that_stopped_when_all_was_done(scene: Scene, kind: str) -> None:
    """When nothing is left in the channel it does not matter that the worker has stopped."""
    with scene.worker(kind, nothing) as worker:
        scene.topic.put(b"order")
        assert worker.join(PATIENCE)
    assert worker.join()


def test_join_of_a_worker_that_was_not_started(scene: Scene) -> None:
    """Before the start there is no error to raise, and `join` is the channel's."""
    assert scene.worker("plain", nothing).join(raise_first=True)


def test_join_takes_a_timeout_only(scene: Scene) -> None:
    """A timeout that is no number of seconds is refused."""
    worker = scene.worker("plain", nothing)
    with pytest.raises(InvalidOption):
        worker.join(-1)
    with pytest.raises(InvalidOption):
        asyncio.run(aio.join(worker, -1))


@in_loop
async def test_an_awaited_join_raises_the_first_error() -> None:
    """An awaited `join(raise_first=True)` raises what a handler raised."""
    scene = Scene()
    async with scene.worker("coroutine", failing) as worker:
        scene.topic.put("bad")
        joining = asyncio.ensure_future(aio.join(worker, raise_first=True))
        assert isinstance(await outcome(joining), Failure)


@in_loop
async def test_an_awaited_join_ends_with_its_timeout() -> None:
    """An awaited `join` is False when its timeout passes first."""
    scene = Scene()
    hold = Hold()
    async with scene.holding("coroutine", hold) as worker:
        scene.topic.put(b"order")
        joining = asyncio.ensure_future(aio.join(worker, 2))
        await turns()
        scene.clock.advance(2)
        assert await joining is False
        hold.let_go()
        assert await aio.join(worker) is True


def test_a_clock_that_stands_still_is_told_to_who_joins() -> None:
    """Who joins what cannot end is told so; the worker's threads go on."""
    scene = Scene(Clock(patience=0.01))
    with scene.worker("plain", nothing) as worker:
        scene.topic.put(b"late", delay=60)
        with pytest.raises(ClockStandsStill) as info:
            worker.join()
        assert "join() of worker 'orders:billing'" == info.value.waiter
        assert 60 == info.value.next_deadline
        scene.clock.advance(60)
        scene.watch.until(Kind.FINISHED)


# Its end


@each_kind
@pytest.mark.parametrize("how", ["stop", "close", "break"])
def test_who_asked_is_told_of_its_end(
    scene: Scene, kind: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`when_over` is called when the worker has ended, however that came, by another thread."""
    monkeypatch.setattr(threading, "excepthook", lambda _told: None)
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def leave(_message: Message[Any]) -> None:
        raise SystemExit(3)

    worker = scene.worker(kind, leave)
    worker.when_over = lambda: told.put((worker.running, threading.current_thread()))
    worker.start()
    if how == "break":
        scene.topic.put(b"order")
    elif how == "close":
        scene.channel.close()
    else:
        worker.begin_stop()
    running, thread = told.get(timeout=PATIENCE)
    assert (False, False) == (running, thread is threading.current_thread())
    worker.stop()
    until_ended("orders:billing")


@each_kind
def test_what_broke_a_worker_can_be_asked_for(
    scene: Scene, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`broken` is what ended the worker and is no `Exception`; None before and for a failure."""
    monkeypatch.setattr(threading, "excepthook", lambda _told: None)
    error = SystemExit(3)

    def work(message: Message[Any]) -> None:
        if message.body == "exit":
            raise error
        raise Failure

    worker = scene.worker(kind, work, backoff=None)
    broken: list[BaseException | None] = [worker.broken]
    worker.start()
    scene.topic.put("bad")
    scene.watch.until(Kind.REQUEUED)
    broken.append(worker.broken)
    scene.topic.put("exit")
    runner = worker._runner
    assert runner is not None
    runner.wait()
    broken.append(worker.broken)
    assert [None, None, error] == broken
    assert ([("exit", 1)], False) == (scene.attempts, worker.running)
    until_ended("orders:billing")


@each_kind
def test_a_worker_that_stopped_is_not_broken(scene: Scene, kind: str) -> None:
    """A stop is no reason to raise anything."""
    with scene.worker(kind, nothing) as worker:
        pass
    assert worker.broken is None


# Handlers


class Bill:
    """Handlers that are no functions."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.seen: list[Any] = []

    def plain(self, extra: str, message: Message[Any]) -> None:
        self.seen.append((extra, message.body))

    async def coroutine(self, extra: str, message: Message[Any]) -> None:
        self.plain(extra, message)


class PlainBill(Bill):
    """An object that is called."""

    def __call__(self, message: Message[Any]) -> None:
        self.plain("called", message)


class AwaitedBill(Bill):
    """An object that is called and awaited."""

    async def __call__(self, message: Message[Any]) -> None:
        self.plain("awaited", message)


@each_kind
def test_objects_and_partials_are_handlers(scene: Scene, kind: str) -> None:
    """An object that can be called, and a partial of a method, handle messages."""
    bill = PlainBill(kind) if kind == "plain" else AwaitedBill(kind)
    extra = "called" if kind == "plain" else "awaited"
    for handler in (bill, functools.partial(bill), functools.partial(getattr(bill, kind), extra)):
        scene.topic.put(b"order")
        with Worker(scene.channel, handler) as worker:
            assert worker.join(PATIENCE, raise_first=True)
    assert [(extra, b"order")] * 3 == bill.seen


def test_a_coroutine_that_nobody_awaits_is_a_failure(scene: Scene) -> None:
    """A plain function that returns a coroutine has not worked: its message is not lost."""

    async def work(_body: bytes) -> None: ...

    with Worker(scene.channel, lambda message: work(message.body)) as worker:
        scene.topic.put(b"order")
        with pytest.raises(TypeError, match="returned a coroutine, which nobody runs"):
            worker.join(PATIENCE, raise_first=True)
        scene.watch.until(Kind.REQUEUED)


@each_kind
def test_middleware_stands_around_the_handler(scene: Scene, kind: str) -> None:
    """A worker's middleware is called around its handler, and its outcomes count."""
    log = logging.getLogger("shop")
    told: list[float] = []
    around = (
        nsqlite.worker.logged(log),
        nsqlite.worker.timed(lambda _message, seconds: told.append(seconds), scene.clock),
    )
    with scene.worker(kind, lambda _: Drop(), middleware=around) as worker:
        scene.topic.put(b"order")
        assert worker.join(PATIENCE)
    assert [0.0] == told


# Making and starting


BAD: Final[dict[str, tuple[Any, ...]]] = {
    "concurrency": (0, -1, 1.5, True, None),
    "retry": (5, None, Retry, Backoff()),
    "dead_letter": ("orders.dead", 1),
    "on_give_up": ("print", 1, asyncio.sleep, functools.partial(asyncio.sleep), nothing),
    "auto_touch": (5, 0, None, "yes"),
    "name": (1, b"bills"),
    "middleware": (None, 1, nothing, nsqlite.worker.logged),
    "tracebacks": ("sometimes", True, None),
    "time_limit": (0, -1, float("nan"), True, "5"),
    "msg_timeout": (0, -1, 901, float("nan"), True),
    "prefetch": (-1, 1.5, True, None),
    "max_in_flight": (0, -1, 1.5, True),
}
"""What each option refuses."""


@pytest.mark.parametrize(
    ("option", "value"), [(option, value) for option, values in BAD.items() for value in values]
)
def test_a_bad_option_is_refused(scene: Scene, option: str, value: Any) -> None:
    """An option of the wrong kind or out of its range is named in the error."""
    options = {option: value}
    with pytest.raises(InvalidOption) as info:
        Worker(scene.channel, nothing, **options)
    assert (option, value) == (info.value.option, info.value.value)


def test_an_unknown_option_is_refused(scene: Scene) -> None:
    """An option that there is not is named, with all that there are and the nearest of them."""
    options: dict[str, Any] = {"max_inflight": 3}
    with pytest.raises(InvalidOption) as info:
        Worker(scene.channel, nothing, **options)
    expected = (
        "option must be one of auto_touch, concurrency, dead_letter, max_in_flight, middleware,"
        " msg_timeout, name, on_give_up, prefetch, retry, time_limit, tracebacks (did you mean"
        " 'max_in_flight'?), not 'max_inflight'"
    )
    assert expected == str(info.value)


@pytest.mark.parametrize(
    "name", ["max_attempts", "backoff", "delay", "requeue_delay", "max_requeue_delay"]
)
def test_an_option_of_its_retry_is_refused(scene: Scene, name: str) -> None:
    """An option that is one of `retry` is answered with how to give it."""
    options: dict[str, Any] = {name: 3}
    maker = "Retry.nsq" if "requeue" in name else "Retry"
    with pytest.raises(InvalidOption) as info:
        Worker(scene.channel, nothing, **options)
    assert f"option must be given as retry={maker}({name}=...), not {name!r}" == str(info.value)


@each_kind
def test_a_worker_counts_what_it_does(scene: Scene, kind: str) -> None:
    """What was processed, failed, retried and given up, and what its handlers work on now."""
    hold = Hold()

    def work(message: Message[Any]) -> Any:
        if message.body == "hold":
            return hold.stay(message)
        if message.body == "later" and message.attempts == 1:
            return Requeue(0)
        if message.body == "bad":
            raise Failure
        return None

    async def work_async(message: Message[Any]) -> Any:
        return await hold.stay_async(message) if message.body == "hold" else work(message)

    handler = work if kind == "plain" else work_async
    worker = Worker(
        scene.channel, handler, retry=Retry(max_attempts=2, delay=0), time_limit=5, name="bills"
    )
    assert nsqlite.worker.WorkerStats(name="bills", state="new") == worker.stats()
    scene.topic.put_many(["good", "later", "bad", "good"])
    worker.start()
    assert worker.join(PATIENCE)
    name = scene.topic.put("hold")
    hold.begun(1)
    scene.clock.until_supervised(5)
    scene.clock.advance(3)
    told = worker.stats()
    assert ("running", 6, 2, 2, 1) == (
        told.state,
        told.processed,
        told.failed,
        told.retried,
        told.given_up,
    )
    [one] = told.at_work
    assert (
        nsqlite.worker.AtWork(id=name, attempts=1, seconds=3.0, late=False, slot="bills-1") == one
    )
    hold.let_go()
    assert worker.join(PATIENCE)
    worker.stop()
    assert ("stopped", 7, ()) == (worker.stats().state, worker.stats().processed, ())


@each_kind
def test_a_join_waits_until_all_is_settled(scene: Scene, kind: str) -> None:
    """When `join` returns `on_give_up` has been called and the statistics are complete."""
    told: list[Any] = []
    begun, gate = threading.Event(), threading.Event()

    def note(message: Message[Any], _error: BaseException | None) -> None:
        begun.set()
        assert gate.wait(PATIENCE)
        told.append(message.body)

    dead = Topic("dead", clock=scene.clock)
    options: dict[str, Any] = {"max_attempts": 1, "dead_letter": dead, "on_give_up": note}
    with scene.worker(kind, failing, **options) as worker:
        scene.topic.put("order")
        assert begun.wait(PATIENCE)
        assert scene.channel.join(0)
        assert not worker.join(0)
        call = Call(worker.join)
        scene.clock.until_waiting("join() of worker", 1)
        gate.set()
        assert call.result() is True
        assert ["order"] == told
        stats = worker.stats()
        assert (1, 1, ()) == (stats.processed, stats.given_up, stats.at_work)


@each_kind
@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_get_that_fails_ends_no_worker(
    scene: Scene, kind: str, prefetch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is held back for a second, and then goes on with what is there."""
    failures = [OSError("broken")]
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()
    cls = Consumer if kind == "plain" else nsqlite.aio.Consumer
    name = "get_many" if prefetch else "get"
    original: Any = getattr(cls, name)

    def get(consumer: Any, *given: Any) -> Any:
        if failures:
            raise failures.pop()
        return original(consumer, *given)

    monkeypatch.setattr(cls, name, get)
    scene.topic.put("order")
    with scene.worker(kind, seen.put, retry=Retry(), prefetch=prefetch) as worker:
        scene.clock.until_supervised(1)
        assert ", held back for 1 s: broken>" in repr(worker)
        assert (1, "broken") == (worker.stats().held_back_for, worker.stats().held_back_by)
        assert 1 == scene.channel.depth
        scene.clock.advance(1)
        assert "order" == seen.get(timeout=PATIENCE).body
        assert worker.join(PATIENCE)
    assert ("stopped", "") == (worker.stats().state, worker.stats().held_back_by)


@each_kind
def test_a_worker_says_when_it_starts_and_stops(scene: Scene, kind: str, heard: Heard) -> None:
    """One line each, with what it did; and one when it is held back, which it shows as well."""
    logging.getLogger("nsqlite").setLevel(logging.INFO)
    try:
        with scene.worker(kind, failing, concurrency=2, max_attempts=1) as worker:
            kinds = {"plain": "threads", "coroutine": "tasks"}
            text = f"orders:billing: started failing in 2 {kinds[kind]}"
            assert text == heard.next(logging.INFO)
            scene.topic.put("order")
            why = "worker.scenes.Failure: order"
            assert f"orders:billing: held back for 2 s: {why}" == heard.next(logging.INFO)
            scene.clock.until_supervised(2)
            scene.clock.advance(0.5)
            held = f"running, held back for 1.5 s: {why}"
            assert f"<Worker 'orders:billing' of failing {held}>" == repr(worker)
            told = worker.stats()
            assert (1.5, why) == (told.held_back_for, told.held_back_by)
            assert worker.join(PATIENCE)
        counts = "1 processed, 1 failed, 0 retried, 1 given up"
        assert f"orders:billing: stopped; {counts}" == heard.next(logging.INFO)
    finally:
        logging.getLogger("nsqlite").setLevel(logging.NOTSET)


@each_kind
def test_its_consumer_has_its_name(scene: Scene, kind: str) -> None:
    """Events and statistics call the worker's consumer by the worker's name."""
    with scene.worker(kind, nothing, name="bills"):
        scene.topic.put(b"order")
        event = scene.watch.until(Kind.DELIVERED)
        [client] = scene.channel.stats().clients
    assert ("bills", "bills") == (event.consumer, client.name)


@each_kind
def test_of_two_threads_that_start_a_worker_one_does(scene: Scene, kind: str) -> None:
    """When two threads start a worker at the same time one is told that it was started."""
    for _ in range(20):
        worker = scene.worker(kind, nothing)
        together = threading.Barrier(2)

        def start(worker: Worker = worker, together: threading.Barrier = together) -> Worker:
            together.wait(PATIENCE)
            return worker.start()

        results = [call.result() for call in [Call(start), Call(start)]]
        worker.stop()
        assert {Worker, Closed} == {type(result) for result in results}
        assert 0 == scene.channel.stats().client_count


@each_kind
def test_a_worker_is_used_once(scene: Scene, kind: str) -> None:
    """A worker that was started cannot be started again, whether it runs or not."""
    worker = scene.worker(kind, nothing)
    with worker, pytest.raises(Closed) as info:
        worker.start()
    assert "worker 'orders:billing' is started already" == str(info.value)
    with pytest.raises(Closed):
        worker.start()


@each_kind
def test_a_worker_of_a_closed_channel_does_not_start(scene: Scene, kind: str) -> None:
    """A start on a channel that is over raises, and leaves nothing."""
    worker = scene.worker(kind, nothing)
    scene.channel.close()
    with pytest.raises(Closed):
        worker.start()
    assert not worker.running
    worker.stop()


@each_kind
def test_a_worker_without_a_place_can_be_started_later(kind: str) -> None:
    """A start that finds `max_channel_consumers` raises; it can be tried again."""
    scene = Scene(max_channel_consumers=1)
    worker = scene.worker(kind, nothing)
    with Consumer(scene.channel), pytest.raises(TooManyConsumers):
        worker.start()
    with worker:
        assert worker.running


def test_a_worker_shows_its_state(scene: Scene) -> None:
    """The repr shows the name, the handler and whether it runs."""
    worker = Worker(scene.channel, nothing, name="bills")
    shown = [repr(worker)]
    with worker:
        shown.append(repr(worker))
    shown.append(repr(worker))
    states = ("new", "running", "stopped")
    assert [f"<Worker 'bills' of nothing {state}>" for state in states] == shown


def test_a_worker_that_ended_by_itself_is_forgotten(scene: Scene) -> None:
    """A worker whose channel ended is no more among those that the end of the program stops."""
    first = scene.worker("plain", nothing).start()
    scene.channel.delete()
    runner = first._runner
    assert runner is not None
    runner.wait()
    assert first in module._running
    with Worker(Topic("parcels").channel("packing"), nothing) as second:
        assert {second} == module._running


# Programs that end


@each_kind
def test_what_still_runs_is_told_of_and_stopped(
    scene: Scene, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At the end of the interpreter a worker that runs is a warning, one that ended is not."""
    ended = scene.worker(kind, nothing, name="ended").start()
    ended.stop()
    worker = scene.worker(kind, nothing).start()
    module._running.add(ended)
    with pytest.warns(ResourceWarning, match=r"worker 'orders:billing' still ran at the end of"):
        module._stop_all()
    text = "worker 'orders:billing' still runs at the end of the program"
    assert [("nsqlite", logging.WARNING, text)] == caplog.record_tuples
    assert not worker.running
    module._running.clear()


@each_kind
def test_a_worker_that_was_forgotten_is_not_waited_for(scene: Scene, kind: str) -> None:
    """What the child of a fork does has a worker that does not run, and can be stopped."""
    worker = scene.worker(kind, nothing).start()
    runner = worker._runner
    assert runner is not None
    module._forget_all()
    worker.stop()
    assert (False, set()) == (worker.running, module._running)
    runner.supervisor.stop(0)
    runner.wait()


RUNNING: Final = """
import asyncio, threading, nsqlite
begun = threading.Event()
topic = nsqlite.Topic("orders")
channel = topic.channel("billing")
{handler}
worker = nsqlite.Worker(channel, handle, concurrency=2).start()
topic.put(b"order")
begun.wait(20)
"""


@pytest.mark.parametrize(
    ("handler", "overdue"),
    [
        ("def handle(message): begun.set(); threading.Event().wait()", "left behind"),
        ("async def handle(message): begun.set(); await asyncio.Event().wait()", "cancelled"),
        ("async def handle(message): begun.set(); threading.Event().wait()", "cancelled"),
    ],
)
def test_a_program_that_ends_says_what_still_runs(handler: str, overdue: str) -> None:
    """A worker that runs at the end of the interpreter is told of on stderr, and ends."""
    done = run(RUNNING.format(handler=handler))
    assert (0, "") == (done.returncode, done.stdout)
    first, *rest = done.stderr.splitlines()
    assert "worker 'orders:billing' still runs at the end of the program" == first
    text = (
        rf"orders:billing: handle on message \w+ has not ended after .* s and is {overdue} in .*-\d"
    )
    assert re.fullmatch(text, rest[-1])


def test_a_program_that_ends_with_an_idle_worker_says_so() -> None:
    """An idle worker at the end of the interpreter is told of in one line."""
    done = run(
        "import nsqlite\n"
        "channel = nsqlite.Topic('orders').channel('billing')\n"
        "worker = nsqlite.Worker(channel, print).start()\n"
    )
    text = "worker 'orders:billing' still runs at the end of the program\n"
    assert (0, "", text) == (done.returncode, done.stdout, done.stderr)


def test_a_program_that_stopped_its_workers_says_nothing() -> None:
    """A program whose workers were stopped ends without a word."""
    done = run(
        "import nsqlite\n"
        "channel = nsqlite.Topic('orders').channel('billing')\n"
        "with nsqlite.Worker(channel, print): pass\n"
    )
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_child_of_a_fork_has_no_worker() -> None:
    """A child ends as usual although its parent has a worker, and its stop does not wait."""
    done = run(
        "import os, nsqlite, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "channel = nsqlite.Topic('orders').channel('billing')\n"
        "with nsqlite.Worker(channel, print) as worker:\n"
        "    child = os.fork()\n"
        "    if child:\n"
        "        print(os.waitpid(child, 0)[1], worker.running)\n"
        "    else:\n"
        "        assert not worker.running\n"
    )
    assert (0, "0 True\n", "") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_child_of_a_fork_may_let_go_of_what_its_parent_has() -> None:
    """A stop in the child puts back there, and only there, what the parent has in flight."""
    done = run(
        "import os, threading, nsqlite, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "begun, free = threading.Event(), threading.Event()\n"
        "def handle(message):\n"
        "    begun.set(); free.wait(20)\n"
        "topic = nsqlite.Topic('orders')\n"
        "channel = topic.channel('billing')\n"
        "worker = nsqlite.Worker(channel, handle).start()\n"
        "topic.put(b'order'); begun.wait(20)\n"
        "def stats():\n"
        "    found = channel.stats()\n"
        "    return found.depth, found.in_flight_count, found.client_count\n"
        "child = os.fork()\n"
        "if child:\n"
        "    print(os.waitpid(child, 0)[1], stats(), worker.running)\n"
        "    free.set(); worker.stop()\n"
        "    print(stats())\n"
        "else:\n"
        "    assert stats() == (0, 1, 1), stats()\n"
        "    worker.stop()\n"
        "    assert stats() == (1, 0, 0), stats()\n"
    )
    assert (0, "0 (0, 1, 1) True\n(0, 0, 0)\n", "") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("word", ["", "async "])
def test_the_child_of_a_fork_may_start_its_worker_anew(word: str) -> None:
    """In the child the worker has not been started, and can be, once."""
    done = run(
        "import asyncio, os, nsqlite, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "asyncio.new_event_loop().close()\n"  # the first one takes a lock of asyncio's
        "topic = nsqlite.Topic('orders')\n"
        "channel = topic.channel('billing')\n"
        f"{word}def handle(message): print(message.body, flush=True)\n"
        "with nsqlite.Worker(channel, handle) as worker:\n"
        "    child = os.fork()\n"
        "    if child:\n"
        "        print(os.waitpid(child, 0)[1], worker.running)\n"
        "    else:\n"
        "        worker.start()\n"
        "        topic.put('order')\n"
        "        assert worker.join(20)\n"
        "        try:\n"
        "            worker.start()\n"
        "        except nsqlite.Closed:\n"
        "            print('once', flush=True)\n"
    )
    assert (0, "order\nonce\n0 True\n", "") == (done.returncode, done.stdout, done.stderr)


def test_a_system_without_fork_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no fork, as on Windows, the module loads all the same."""
    monkeypatch.delattr(os, "register_at_fork", raising=False)
    spec = importlib.util.spec_from_file_location("nsqlite.worker.worker", module.__file__)
    assert spec is not None
    assert spec.loader is not None
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    atexit.unregister(again._stop_all)
    assert again.Worker is not Worker


def test_a_message_is_whole_when_its_worker_is_gone(scene: Scene) -> None:
    """What a handler keeps of a message can be read after the worker's end."""
    kept: list[Message[Any]] = []
    with scene.worker("plain", kept.append) as worker:
        scene.topic.put(b"order")
        assert worker.join(PATIENCE)
    [message] = kept
    assert (b"order", State.FINISHED) == (message.body, message.state)


def test_a_clock_that_jumps_by_itself_misses_no_retry() -> None:
    """With autojump a test of retries runs through all of them, each at its moment."""
    clock = ManualClock(autojump=True, patience=PATIENCE)
    topic: Topic[bytes] = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    moments: list[float] = []

    def fail(_message: Message[bytes]) -> None:
        moments.append(clock.monotonic_ns() / 10**9)
        raise ValueError

    topic.put(b"1")
    with Worker(channel, fail, concurrency=2, retry=Retry.nsq(backoff=None)) as worker:
        assert worker.join()
    assert [0, 90, 270, 540, 900] == moments


def test_a_child_that_starts_it_anew_lets_go_of_its_parents_consumer() -> None:
    """In the child of a fork a start puts the parent's consumer, whose threads are gone, out."""
    topic: Topic[bytes] = Topic("orders")
    channel = topic.channel("billing", max_channel_consumers=1)
    worker = Worker(channel, lambda _message: None)
    worker._inherited = nsqlite.Consumer(channel)  # as after a fork
    with worker:
        assert 1 == channel.stats().client_count
    assert worker._inherited is None


def test_what_was_fetched_is_free_as_soon_as_the_worker_stops() -> None:
    """Prefetched messages go back at once, in their order, though a handler is still at work."""
    topic: Topic[int] = Topic("orders")
    channel = topic.channel("billing")
    begun, gate = threading.Event(), threading.Event()

    def handle(_message: Message[int]) -> None:
        begun.set()
        assert gate.wait(PATIENCE)

    topic.put_many(range(4))
    worker = Worker(channel, handle, prefetch=3).start()
    try:
        assert begun.wait(PATIENCE)
        worker.begin_stop(PATIENCE)
        assert [(1, 0), (2, 0), (3, 0)] == [(info.body, info.attempts) for info in channel.peek()]
        assert 1 == channel.in_flight_count
    finally:
        gate.set()
        worker.stop()
    assert 0 == channel.in_flight_count


# A handler that puts to its own channel


Put = Callable[..., Any]


class Circle:
    """A worker whose handler puts to its own bounded channel.

    A message tells the handler what to do: it is a function that is given what puts.
    """

    def __init__(self, kind: str, **options: Any) -> None:
        self.clock = Clock(patience=100)
        self.clock.by_hand = False  # so that a put looks again when it is told of
        self.topic: Topic[Any] = Topic("orders", clock=self.clock)
        self.channel = self.topic.channel("billing", max_depth=1)
        self.kind = kind
        self.errors: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        self.watch = Watch()
        self.topic.observe(self.watch, kinds=["waiting", "refused"])
        handler = self._plain if kind == "plain" else self._coroutine
        self.worker = Worker(self.channel, handler, **options)

    def _plain(self, message: Message[Any]) -> None:
        async def put(body: Any, **options: Any) -> str:
            return self.topic.put(body, **options)

        if message.body is not None:
            with contextlib.suppress(StopIteration):
                self._work(message, put).send(None)

    async def _coroutine(self, message: Message[Any]) -> None:
        if message.body is not None:
            await self._work(message, functools.partial(aio.put, self.topic))

    async def _work(self, message: Message[Any], put: Put) -> None:
        try:
            await message.body(put)
        except (Full, Reentered) as error:
            self.errors.put(error)
        else:
            self.errors.put(None)

    def error(self) -> Exception | None:
        """Return how the next handler has ended."""
        return self.errors.get(timeout=PATIENCE)

    def until_waiting(self, count: int = 1) -> None:
        """Return when so many more puts wait."""
        for _ in range(count):
            self.watch.until(Kind.WAITING)

    def __enter__(self) -> Self:
        self.worker.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.worker.stop(0)
        self.topic.close()
        self.topic._check()


class Gate:
    """What a handler of either kind waits at."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._event = threading.Event()

    async def pass_through(self) -> None:
        if self._kind == "plain":
            assert self._event.wait(PATIENCE)
        else:
            assert await asyncio.to_thread(self._event.wait, PATIENCE)

    def open(self) -> None:
        self._event.set()


async def fill(put: Put) -> None:
    """Put what fills the channel, and one more."""
    await put(None)
    await put(None)


def test_a_handler_that_waits_for_room_in_its_own_channel() -> None:
    """Where only it could make the room, its put is refused with an error that names the circle."""
    kind = "plain"
    with Circle(kind) as circle:
        circle.topic.put(fill)
        error = circle.error()
        assert isinstance(error, Reentered)
        assert (
            "put() would wait here for its own end: orders:billing is full (max_depth=1), and who"
            " could make room are handlers of its messages that wait to put there; put with a"
            " timeout, or after the handler, as with TakeOver, or give the worker more concurrency"
            " or the channel more room" == str(error)
        )
        assert 1 == circle.watch.until(Kind.REFUSED).count
        assert Call(circle.worker.join).result()
        assert 2 == circle.topic.stats().message_count


def test_the_last_of_the_handlers_closes_the_circle() -> None:
    """While one slot is free a put waits; that of the last is refused, and the others go on."""
    kind = "plain"
    with Circle(kind, concurrency=2) as circle:
        begun = threading.Semaphore(0)
        gates = [Gate(kind), Gate(kind)]

        def held(gate: Gate) -> Any:
            async def work(put: Put) -> None:
                begun.release()
                await gate.pass_through()
                await put(None)

            return work

        for gate in gates:
            circle.topic.put(held(gate))
            assert begun.acquire(timeout=PATIENCE)
        circle.topic.put(None)
        gates[0].open()
        circle.until_waiting()
        gates[1].open()
        assert isinstance(circle.error(), Reentered)
        assert circle.error() is None
        assert Call(circle.worker.join).result()


def test_another_consumer_could_make_room() -> None:
    """Beside it a handler's put waits; if it leaves, the put is refused when it looks again."""
    kind = "plain"
    with Circle(kind) as circle:
        for leaves in (False, True):
            other = Consumer(circle.channel, max_in_flight=1)
            other.rdy(0)
            circle.topic.put(fill)
            circle.until_waiting()
            if leaves:
                other.close()
                outside = Call(lambda: circle.topic.put(None))  # never refused: it is no handler
                circle.until_waiting()
                circle.clock.advance(10)
                assert isinstance(circle.error(), Reentered)
                assert isinstance(outside.result(), str)
            else:
                other.rdy(1)
                other.get(timeout=PATIENCE).fin()
                assert circle.error() is None
                other.close()
            assert Call(circle.worker.join).result()


def test_a_put_that_gives_up_in_time_closes_no_circle() -> None:
    """With a timeout a handler's put waits, and so does one behind it."""
    kind = "plain"

    async def fill_in_time(put: Put) -> None:
        await put(None)
        await put(None, timeout=5)

    with Circle(kind) as circle:
        circle.topic.put(fill_in_time)
        circle.until_waiting()
        circle.clock.advance(5)
        assert isinstance(circle.error(), Full)
        assert Call(circle.worker.join).result()
    with Circle(kind) as circle:
        gate = Gate(kind)

        async def later(put: Put) -> None:
            begun.set()
            await gate.pass_through()
            await put(None)

        begun = threading.Event()
        circle.topic.put(later)
        assert begun.wait(PATIENCE)
        circle.topic.put(None)
        outside = Call(lambda: circle.topic.put(None, timeout=5))
        circle.until_waiting()
        gate.open()
        circle.until_waiting()
        circle.clock.advance(5)
        assert isinstance(outside.result(), Full)
        circle.clock.advance(5)  # at the reminder it finds that nobody is in front of it
        assert isinstance(circle.error(), Reentered)


def test_a_coroutine_may_be_told_to_give_up() -> None:
    """What it awaits can be broken off by whoever made it, so its put waits."""
    with Circle("coroutine") as circle:

        async def fill_for_a_moment(put: Put) -> None:
            await put(None)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(put(None), 0.01)

        circle.topic.put(fill_for_a_moment)
        assert circle.error() is None
        assert Call(circle.worker.join).result()


def test_a_handler_that_blocks_its_loop() -> None:
    """A put that blocks the loop of all handlers is refused, however many there are."""
    with Circle("coroutine", concurrency=3) as circle:

        async def block(_put: Put) -> None:
            for _ in range(5):  # the other slots may be given two, which they cannot begin
                circle.topic.put(None)

        circle.topic.put(block)
        assert isinstance(circle.error(), Reentered)
        assert Call(circle.worker.join).result()


@pytest.mark.parametrize("kind", KINDS)
def test_a_handler_that_waits_for_another_channel(kind: str) -> None:
    """Where others could make room there is no circle: in their channel, or in a topic's queue."""
    with Circle(kind) as circle:
        circle.topic.channel("audit", max_depth=1)
        audit = Consumer(circle.topic.channel("audit"))

        async def put_twice(put: Put) -> None:
            begun.set()
            await put(None)

        begun = threading.Event()
        circle.topic.put(put_twice)
        assert begun.wait(PATIENCE)
        circle.until_waiting()
        assert audit.get(timeout=PATIENCE).body is put_twice
        assert circle.error() is None
    with Circle(kind) as circle:
        other: Topic[Any] = Topic("other", clock=circle.clock, max_depth=1)

        async def put_elsewhere(_put: Put) -> None:
            if kind == "plain":
                other.put(None)
            else:
                await aio.put(other, None)

        other.put(None)
        waiting = Watch()
        other.observe(waiting, kinds=["waiting"])
        circle.topic.put(put_elsewhere)
        waiting.until(Kind.WAITING)
        other.empty()
        assert circle.error() is None
