"""The clock that is moved by hand."""

import asyncio
import gc
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from aio.loops import turns
from helpers import PATIENCE, Call, TellingManualClock

import nsqlite
from nsqlite import (
    Broker,
    ClockStandsStill,
    Consumer,
    Empty,
    InvalidOption,
    Message,
    Retry,
    Seconds,
    Topic,
    Worker,
    aio,
)
from nsqlite.clock import NEVER
from nsqlite.options import SECOND
from nsqlite.testing import ManualClock, MemoryStore
from nsqlite.testing.manualclock import _Call


def test_it_stands() -> None:
    """Time passes only by advance, by exactly as much."""
    clock = ManualClock(1000)
    assert (1000.0, 0) == (clock.time(), clock.monotonic_ns())
    clock.advance(0.1)
    clock.advance(0.2)
    assert 300_000_000 == clock.monotonic_ns()
    assert 1000_300_000_000 == clock.time_ns()


@pytest.mark.parametrize("second", [1.0, timedelta(seconds=1)])
def test_seconds_or_a_timedelta(second: Seconds) -> None:
    """What it is moved by, and how long it is patient, can be either."""
    clock = ManualClock(patience=second)
    clock.advance(second)
    assert (1.0, 10**9) == (clock.patience, clock.monotonic_ns())


@pytest.mark.parametrize("step", [-1, float("nan"), float("inf"), True, "1"])
def test_bad_steps(step: Any) -> None:
    """A step that is no number of seconds is refused and moves nothing."""
    clock = ManualClock()
    with pytest.raises(InvalidOption):
        clock.advance(step)
    assert 0 == clock.monotonic_ns()


@pytest.mark.parametrize(
    "options", [{"start": -1}, {"patience": 0}, {"patience": "1"}, {"autojump": "no"}]
)
def test_bad_options(options: Any) -> None:
    """Options out of their range are refused."""
    with pytest.raises(InvalidOption):
        ManualClock(**options)


def test_it_is_exact() -> None:
    """What is due in 2.5 seconds is there when the clock has moved by 2.5 seconds."""
    clock = ManualClock()
    clock.advance(0.003)
    topic = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"))
    topic.put(b"1", delay=2.5)
    clock.advance(2.499999999)
    with pytest.raises(Empty):
        consumer.get(timeout=0)
    clock.advance(0.000000001)
    assert b"1" == consumer.get(timeout=0).body


def test_advance_stops_at_every_deadline() -> None:
    """Deadlines of all topics take effect in their order, each at its own moment."""
    clock = ManualClock(0)
    told = []
    broker = nsqlite.Broker(clock=clock, msg_timeout=4)

    def observer(event: nsqlite.Event) -> None:
        if event.kind.value in ("due", "timed out"):
            told.append((event.time, event.topic, event.kind.value))

    broker.observe(observer)
    for name, delay in (("a", 3), ("b", 1), ("c", 2)):
        topic = broker.topic(name)
        topic.channel("x")
        topic.put(name, delay=delay)
    consumer = Consumer(broker.topic("a").channel("y"))
    broker.topic("a").put("now")
    consumer.get(timeout=0)
    clock.advance(10)
    assert [
        (1.0, "b", "due"),
        (2.0, "c", "due"),
        (3.0, "a", "due"),
        (4.0, "a", "timed out"),
    ] == told
    assert 10 == clock.time()
    broker._check()


def test_channels_due_together_act_in_the_order_of_their_creation() -> None:
    """What falls due in several channels at once is told in the order in which they were made."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    names = list("abcdefgh")
    for name in names:
        topic.channel(name)
    told: list[str | None] = []
    topic.observe(lambda event: told.append(event.channel) if event.kind == "due" else None)
    topic.put("x", delay=1)
    clock.advance(1)
    assert names == told


def test_advance_to_next() -> None:
    """One step goes to the next deadline and says how far that was; None if there is none."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    assert clock.advance_to_next() is None
    topic.put(b"1", delay=2.5)
    topic.put(b"2", delay=4)
    assert 2.5 == clock.advance_to_next()
    assert 1 == channel.depth
    assert 1.5 == clock.advance_to_next()
    assert clock.advance_to_next() is None


def test_a_finished_message_has_no_deadline() -> None:
    """The clock does not stop where nothing is to happen any more."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"))
    topic.put(b"1")
    consumer.get(timeout=0).fin()
    assert clock.advance_to_next() is None


def test_an_observer_may_move_the_clock() -> None:
    """A move inside a move goes on from there, and the outer one does not go back."""
    clock = ManualClock(0)
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")

    def observer(event: nsqlite.Event) -> None:
        if event.kind.value == "due":
            clock.advance(5)

    topic.put(b"1", delay=1)
    topic.observe(observer)
    clock.advance(2)
    assert (6, 1) == (clock.time(), channel.depth)


def test_a_blocked_get_wakes_at_its_moment() -> None:
    """A thread blocked in get is woken when a message is due, or its own time is over."""
    clock = TellingManualClock(patience=100)
    topic = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"))
    topic.put(b"1", delay=3)
    call = Call(consumer.get)
    clock.until_waiting()
    clock.advance(3)
    assert b"1" == call.result().body
    call = Call(lambda: consumer.get(timeout=5))
    clock.until_waiting()
    clock.advance(4.999)
    topic._check()
    clock.advance(0.001)
    assert isinstance(call.result(), Empty)


def test_a_put_wakes_a_blocked_get_while_the_clock_stands() -> None:
    """Who waits on the clock is also woken by what does not need time."""
    clock = TellingManualClock()
    topic = Topic("orders", clock=clock)
    call = Call(Consumer(topic.channel("billing")).get)
    clock.until_waiting()
    topic.put(b"1")
    assert b"1" == call.result().body
    assert 0 == clock.monotonic_ns()


def test_nobody_is_left_to_move_it() -> None:
    """A wait that can never end raises after patience, naming the waiter and the next deadline."""
    clock = ManualClock(patience=0.02)
    topic = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"))
    with pytest.raises(ClockStandsStill) as info:
        consumer.get()
    assert (
        "get() on channel 'billing' of topic 'orders' waits for ever: every thread that uses its"
        " clock waits on it, nobody moves it, and there is no deadline to wait for; call advance()"
        " from another thread, or make the clock with autojump=True" == str(info.value)
    )
    topic.put(b"1", delay=2.5)
    with pytest.raises(ClockStandsStill) as info:
        consumer.get(timeout=9)
    assert 2.5 == info.value.next_deadline
    assert "the next deadline is 2.5 s ahead" in str(info.value)
    topic._check()
    clock.advance(2.5)
    assert b"1" == consumer.get().body
    with pytest.raises(ClockStandsStill) as info:
        topic.join()
    assert "join() of topic 'orders'" == info.value.waiter


def test_somebody_else_may_move_it() -> None:
    """While the main thread does not wait on it, a wait goes on beyond patience."""

    class Clock(TellingManualClock):
        """A clock which tells when a waiter looks who else waits."""

        looked = threading.Semaphore(0)

        def _asleep(self) -> set[int]:
            self.looked.release()
            return super()._asleep()

    clock = Clock(patience=0.005)
    topic = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"))
    call = Call(consumer.get)
    clock.until_waiting()
    for _ in range(3):  # its patience was over, and over again
        assert clock.looked.acquire(timeout=PATIENCE)
    topic.put(b"1")
    assert b"1" == call.result().body


def test_autojump() -> None:
    """With autojump a wait moves the clock itself, at once, to each deadline in turn."""
    clock = ManualClock(0, autojump=True, patience=100)
    topic = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"))
    topic.put(b"1", delay=1000)
    assert b"1" == consumer.get().body
    assert 1000 == clock.time()
    with pytest.raises(Empty):
        consumer.get(timeout=10)
    assert 1010 == clock.time()
    assert b"1" == consumer.get().body
    assert 1060 == clock.time()


def test_autojump_without_a_deadline() -> None:
    """Where there is nothing to jump to, a wait that can never end raises."""
    clock = ManualClock(autojump=True, patience=0.01)
    consumer = Consumer(Topic("orders", clock=clock).channel("billing"))
    with pytest.raises(ClockStandsStill):
        consumer.get()


def test_autojump_waits_for_the_other_threads() -> None:
    """The clock jumps only when every thread that does something waits on it."""
    clock = TellingManualClock(autojump=True, patience=100)
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    call = Call(lambda: consumer.get(timeout=5))
    clock.until_waiting()
    assert 0 == clock.monotonic_ns()
    with pytest.raises(Empty):
        Consumer(channel).get(timeout=7)
    assert isinstance(call.result(), Empty)
    assert 7_000_000_000 == clock.monotonic_ns()


def test_a_forgotten_topic_has_no_deadlines() -> None:
    """The clock keeps nothing alive."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    topic.channel("billing")
    topic.put(b"1", delay=1)
    del topic
    gc.collect()
    assert clock.advance_to_next() is None


def test_a_wait_for_a_moment_that_has_come_is_over_at_once() -> None:
    """A wait that was decided on before a move of the clock and begins after it is not too long."""
    clock = ManualClock()
    semaphore = threading.Lock()
    semaphore.acquire()
    assert not clock.wait(semaphore, 0, "nobody")
    moment = clock.monotonic_ns() + 2 * SECOND
    clock.advance(2)
    assert not clock.wait(semaphore, moment, "nobody")
    assert 2 * SECOND == clock.monotonic_ns()


# What is attached


class Timed:
    """Something with deadlines, which counts how often it is asked and called."""

    def __init__(self, clock: ManualClock, *dues: int) -> None:
        self.clock = clock
        self.calls = 0
        self.questions = 0
        self.seen: list[int] = []
        self.dues: list[int] = []
        self.whose = lambda: "something"
        self.due = NEVER
        self.tell = clock.attach(self)
        for due in dues:
            self.expect(due)

    def expect(self, due: int) -> None:
        self.dues.append(due)
        if due < self.due:
            self.tell(due)
            self.due = due

    def next_due(self) -> int:
        self.questions += 1
        return min(self.dues, default=NEVER)

    def advance(self) -> None:
        self.calls += 1
        now = self.clock.monotonic_ns()
        self.seen += [now] * sum(due <= now for due in self.dues)
        self.dues = [due for due in self.dues if due > now]
        self.due = min(self.dues, default=NEVER)


def test_a_stop_is_the_business_of_what_is_due() -> None:
    """However much is attached, a move calls what is due by then, and asks nobody."""
    clock = ManualClock()
    others = [Timed(clock, 100 + number) for number in range(1000)]
    idle = [Timed(clock) for _ in range(1000)]
    timed = Timed(clock, 10, 20, 30)
    clock.advance(25 / SECOND)
    assert ([10, 20], 2, 0) == (timed.seen, timed.calls, timed.questions)
    assert 5 / SECOND == clock.advance_to_next()
    assert [10, 20, 30] == timed.seen
    assert 0 == sum(other.calls + other.questions for other in others + idle)


def test_an_earlier_deadline_comes_first() -> None:
    """A deadline that is told later and is earlier is stopped at first, then the others."""
    clock = ManualClock()
    timed = Timed(clock, 30, 20, 10, 20, 15)
    clock.advance(1)
    assert ([10, 15, 20, 20, 30], 4) == (timed.seen, timed.calls)
    for due in (3, 2, 1):
        timed.expect(2 * SECOND + due)
    assert 3 == len(clock._looks)
    clock.advance(3)
    assert ([], 7) == (clock._looks, timed.calls)


def test_what_was_called_off_is_no_deadline() -> None:
    """`advance_to_next` goes past what was called off, in any order of these and real ones."""
    clock = ManualClock()
    timed = [Timed(clock, 10 * (number + 1)) for number in range(20)]
    for number in (0, 1, 2, 4, 7, 19):
        timed[number].dues.clear()
    for due in (40, 60, 70, 90):
        assert due - clock.monotonic_ns() == round((clock.advance_to_next() or 0) * SECOND)
    clock.advance(105 / SECOND)
    assert 200 - 5 == clock.monotonic_ns()
    assert clock.advance_to_next() is None
    assert [(number in (0, 1, 2, 4, 7, 19)) for number in range(20)] == [
        not one.seen for one in timed
    ]


def test_what_was_called_off_may_come_again() -> None:
    """A message got again in the moment in which one was finished has its deadline."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"))
    topic.put_many([1, 2])
    consumer.get().fin()
    assert clock.advance_to_next() is None
    consumer.get()
    assert 60 == clock.advance_to_next()
    assert 1 == consumer.channel.depth


def test_an_earlier_deadline_told_in_the_middle_of_a_look() -> None:
    """What another thread tells between a call of the clock and its look is stopped at."""

    class Late(Timed):
        """One that another thread gives a deadline after its own `due` was read."""

        def advance(self) -> None:
            super().advance()
            if self.calls == 1:
                self.tell(15)
                self.dues.append(15)

    clock = ManualClock()
    timed = Late(clock, 10, 20)
    clock.advance(1)
    assert [10, 15, 20] == timed.seen


def test_what_cannot_act_now_acts_later() -> None:
    """A move inside another call of a topic ends, and what was due acts when the call is over."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    topic.put(b"1", delay=1)

    def move() -> None:
        clock.advance(2)
        assert 0 == len(channel._queue.ready)

    topic._monitor.run(move)
    assert (1, 2 * SECOND) == (channel.depth, clock.monotonic_ns())
    topic.put(b"2", delay=1)
    assert 1 == clock.advance_to_next()


def test_an_observer_that_moves_the_clock_far() -> None:
    """What is due in a move inside a move comes once, and its topic has its later deadlines."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    told: list[int] = []

    def observer(event: nsqlite.Event) -> None:
        if event.kind == "due":
            told.append(event.body)
            if event.body < 3:
                clock.advance(1.5)
                topic.put(event.body + 10, delay=9)

    for body in (1, 2, 3):
        topic.put(body, delay=body)
    topic.observe(observer)
    clock.advance(1)
    assert [1, 2, 3] == told
    assert (3, 2) == (channel.depth, channel.deferred_count)
    clock.advance(9)
    assert [1, 2, 3, 11, 12] == told
    assert [] == clock._looks


def test_making_a_topic_costs_no_more_beside_many() -> None:
    """What attaches itself does not go through what is attached."""
    clock = ManualClock()
    topics = [Topic("orders", clock=clock) for _ in range(100)]
    assert [] == clock._looks
    for topic in topics:
        topic.put(b"1", delay=1)
    assert 100 == len(clock._looks)
    topics.clear()
    del topic
    gc.collect()
    assert clock.advance_to_next() is None
    clock.advance(1)
    assert [] == clock._looks


def test_it_shows_itself() -> None:
    """A clock shows its time, how far ahead the next deadline is, and who waits."""
    clock = TellingManualClock(start=1000, patience=100)
    assert "<ManualClock at 1000, no deadline, nobody waits>" == repr(clock)
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    topic.put(b"1", delay=2.5)
    clock.advance(0.25)
    assert "<ManualClock at 1000.25, next deadline in 2.25 s, nobody waits>" == repr(clock)
    channel.empty()
    calls = []
    for _ in "12":
        calls.append(Call(lambda: Consumer(channel).get(timeout=2)))
        clock.until_waiting()
    who = "get() on channel 'billing' of topic 'orders'"
    assert f"<ManualClock at 1000.25, next deadline in 2 s, waiting: {who}, {who}>" == repr(clock)
    topic.put_many([1, 2])
    for call in calls:
        call.result()
    assert 2 == channel.in_flight_count


def test_a_step_of_ages() -> None:
    """However far it is moved, it arrives."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    topic.put(b"1", delay=1)
    for _ in "12":
        clock.advance(10_000_000_000)
    assert 1 == topic.channel("billing").depth


def test_a_child_of_a_fork_forgets_who_slept() -> None:
    """Without their threads nobody's time-out is a deadline."""
    clock = TellingManualClock()
    consumer = Consumer(Topic("orders", clock=clock).channel("billing"))
    call = Call(lambda: consumer.get(timeout=5))
    clock.until_waiting()
    sleeps = clock._sleeps
    clock._forget_sleepers()
    assert clock.advance_to_next() is None
    clock._sleeps = sleeps
    clock.advance(5)
    assert isinstance(call.result(), Empty)


# Other threads


@contextmanager
def an_idle_thread() -> Iterator[None]:
    """Have a thread that waits for something else, as that of a time limit for tests."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    yield
    over.set()
    thread.join()


@contextmanager
def a_thread_at_a_socket() -> Iterator[None]:
    """Have a thread that waits for a request."""
    one, other = socket.socketpair()
    with one, other:
        thread = threading.Thread(target=one.recv, args=(1,))
        thread.start()
        yield
        other.send(b"1")
        thread.join()


@contextmanager
def a_loop_elsewhere() -> Iterator[asyncio.AbstractEventLoop]:
    """Have a loop in another thread, as a web framework's test client has."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


FOREIGN: Final = (an_idle_thread, a_thread_at_a_socket, a_loop_elsewhere)


@pytest.mark.parametrize("foreign", FOREIGN)
def test_autojump_beside_a_foreign_thread(foreign: Any) -> None:
    """Whatever else lives, the clock jumps when those wait that use it."""
    clock = ManualClock(autojump=True, patience=100)
    topic = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"))
    topic.put(b"1", delay=1000)
    with foreign():
        assert b"1" == Call(lambda: consumer.get(timeout=2000)).result().body
        assert 1000 * SECOND == clock.monotonic_ns()


@pytest.mark.parametrize("autojump", [True, False])
@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_foreign_thread_keeps_nobody_waiting_for_ever(foreign: Any, autojump: bool) -> None:
    """A wait that can never end is told, whatever else lives."""
    clock = ManualClock(autojump=autojump, patience=0.02)
    consumer = Consumer(Topic("orders", clock=clock).channel("billing"))
    with foreign(), pytest.raises(ClockStandsStill):
        consumer.get()


def test_autojump_while_the_test_waits_for_another_thread() -> None:
    """A test that waits in real time for what its handler does is no reason to stand."""
    clock = ManualClock(autojump=True, patience=100)
    topic = Topic("orders", clock=clock)
    done = threading.Event()

    def handle(message: Message[Any]) -> None:
        if message.attempts < 3:
            raise ValueError
        done.set()

    topic.put(b"1")
    with Worker(topic.channel("billing"), handle, retry=Retry(jitter=False)):
        assert done.wait(PATIENCE)
        assert 3 * SECOND == clock.monotonic_ns()


@pytest.mark.parametrize("in_a_thread", [True, False])
def test_autojump_for_a_test_client(in_a_thread: bool) -> None:
    """What a request waits for, in the loop or a thread of its pool, comes though a test waits."""
    clock = ManualClock(autojump=True, patience=100)
    channel = Topic("orders", clock=clock).channel("billing")

    async def request() -> None:
        if in_a_thread:
            await asyncio.to_thread(Consumer(channel).get, timeout=5)
        else:
            await aio.Consumer(channel).get(timeout=5)

    with a_loop_elsewhere() as loop:
        for moment in (5, 10):
            with pytest.raises(Empty):
                asyncio.run_coroutine_threadsafe(request(), loop).result(PATIENCE)
            assert moment * SECOND == clock.monotonic_ns()
        call = Call(lambda: Consumer(channel).get(timeout=5))  # with an idle loop and pool
        assert isinstance(call.result(), Empty)


@pytest.mark.parametrize("wait", ["stop", "join"])
def test_a_stuck_handler(wait: str) -> None:
    """`stop(1)` and `join(1)` end, though the handler does not; a clock that jumps comes by."""
    for autojump in (False, True):
        clock = ManualClock(autojump=autojump, patience=0.05)
        topic = Topic("orders", clock=clock)
        begun, gate = threading.Event(), threading.Event()

        def handle(_message: Message[Any], begun: Any = begun, gate: Any = gate) -> None:
            begun.set()
            assert gate.wait(PATIENCE)

        worker = Worker(topic.channel("billing"), handle).start()
        topic.put(b"1")
        assert begun.wait(PATIENCE)
        if autojump:
            assert not getattr(worker, wait)(1)
            assert SECOND == clock.monotonic_ns()
        else:
            with pytest.raises(ClockStandsStill) as info:
                getattr(worker, wait)(1)
            assert 0 == clock.monotonic_ns()
            assert ("orders:billing-1",) == info.value.elsewhere
        gate.set()
        worker.stop(0)


def test_a_handler_is_not_jumped_over() -> None:
    """While a handler is at work, whatever it waits for, a join does not run out of time."""

    class Clock(ManualClock):
        """Opens a gate when somebody has looked so often whether to jump."""

        looks = 0

        def _asleep(self) -> set[int]:
            self.looks += begun.is_set()
            if self.looks == 10:
                gate.set()
            return super()._asleep()

    clock = Clock(autojump=True, patience=100)
    topic = Topic("orders", clock=clock)
    begun, gate = threading.Event(), threading.Event()

    def handle(_message: Message[Any]) -> None:
        begun.set()
        assert gate.wait(PATIENCE)

    with Worker(topic.channel("billing"), handle) as worker:
        topic.put(b"1")
        assert worker.join(60)
        assert 0 == clock.monotonic_ns()


# In event loops


def test_a_loop_moves_it() -> None:
    """With autojump a task that waits alone in a loop moves the clock."""
    clock = ManualClock(autojump=True, patience=100)
    topic = Topic("orders", clock=clock)

    async def main() -> None:
        consumer = aio.Consumer(topic.channel("billing"))
        topic.put(b"1", delay=1000)
        assert b"1" == (await consumer.get(timeout=2000)).body
        assert 1000 * SECOND == clock.monotonic_ns()
        with pytest.raises(Empty):
            await consumer.get(timeout=5)
        assert 1005 * SECOND == clock.monotonic_ns()
        assert 2 == (await consumer.get()).attempts
        assert 1060 * SECOND == clock.monotonic_ns()

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
    clock.advance(0)


def test_a_loop_that_has_something_to_do_does_not_move_it() -> None:
    """While a task goes on step by step, another one that waits does not run out of time."""
    clock = ManualClock(autojump=True, patience=100)
    topic = Topic("orders", clock=clock)

    async def put() -> None:
        for _ in range(1000):
            await asyncio.sleep(0)
        topic.put(b"1")

    async def main() -> None:
        consumer = aio.Consumer(topic.channel("billing"))
        task = asyncio.create_task(put())
        assert b"1" == (await consumer.get(timeout=5)).body
        await task
        assert 0 == clock.monotonic_ns()

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_a_task_that_goes_round_for_ever() -> None:
    """It is waited for no longer than a thread is."""
    clock = ManualClock(autojump=True, patience=0.02)
    topic = Topic("orders", clock=clock)

    async def spin() -> None:
        while clock.monotonic_ns() < SECOND:
            await turns()

    async def main() -> None:
        consumer = aio.Consumer(topic.channel("billing"))
        task = asyncio.create_task(spin())
        with pytest.raises(Empty):
            await consumer.get(timeout=1)
        await task

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_a_loop_that_does_not_tell_whether_it_is_idle() -> None:
    """A loop of which nothing is known but `call_later` is given 15 ms."""

    class Loop:
        """A loop that calls when the test says so."""

        def __init__(self) -> None:
            self.calls: dict[object, tuple[float, Callable[[], object]]] = {}

        def call_later(self, delay: float, callback: Callable[[], object]) -> "Handle":
            handle = Handle()
            self.calls[handle] = delay, callback
            return handle

    class Handle:
        """A call that can be called off."""

        def cancel(self) -> None:
            loop.calls.pop(self, None)

    clock = ManualClock(autojump=True, patience=100)
    loop, rung = Loop(), list[int]()
    clock.alarm(loop, 7, lambda: rung.append(clock.monotonic_ns()))
    pauses = []
    while loop.calls:
        [(handle, (delay, callback))] = loop.calls.items()
        del loop.calls[handle]
        pauses.append(round(delay * 1000))
        callback()
    assert ([0, 1, 2, 4, 8, 0], [7]) == (pauses, rung)


def test_a_worker_of_tasks_in_a_loop_of_its_own() -> None:
    """The clock jumps to each retry, while a join waits in a thread."""
    clock = ManualClock(autojump=True, patience=100)
    topic = Topic("orders", clock=clock)
    moments: list[int] = []

    async def fail(message: Message[Any]) -> None:
        moments.append(clock.monotonic_ns() // SECOND)
        if message.attempts < 4:
            raise ValueError

    topic.put(b"1")
    with Worker(topic.channel("billing"), fail, retry=Retry(jitter=False)) as worker:
        assert Call(lambda: worker.join(1000)).result()
    assert [0, 1, 3, 7] == moments


# With a store


def test_a_stores_thread_does_not_keep_a_clock_standing(tmp_path: Path) -> None:
    """With a store too, a wait that can never end is told, and its thread is no reason to wait."""
    clock = ManualClock(patience=0.01)
    store = nsqlite.SQLite(tmp_path / "jobs.db")
    with Broker(clock=clock, store=store) as broker:
        consumer = Consumer(broker.topic("orders").channel("billing"))
        with pytest.raises(ClockStandsStill):
            consumer.get()


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_autojump_with_a_store(kind: str, tmp_path: Path) -> None:
    """With a store too, the clock jumps to each deadline at once, whatever is to be written."""
    clock = ManualClock(patience=100, autojump=True)
    store: Any = nsqlite.SQLite(tmp_path / "jobs.db", sync_timeout=100)
    with Broker(clock=clock, store=store if kind == "file" else MemoryStore()) as broker:
        topic = broker.topic("orders")
        consumer = Consumer(topic.channel("billing"))
        topic.put(b"1", delay=1000)

        def get() -> None:
            for _ in range(20):
                consumer.get(timeout=2000).req(10)

        assert Call(get).result() is None
        assert 1190 * SECOND == clock.monotonic_ns()


def test_nobody_sleeps_on_a_callback() -> None:
    """What stands for a sleeper's lock where a function is called cannot be waited for."""
    assert not _Call(print).acquire()
