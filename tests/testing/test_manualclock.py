"""The clock that is moved by hand."""

import gc
import threading
from pathlib import Path
from typing import Any

import pytest
from helpers import PATIENCE, Call, TellingManualClock

import nsqlite
from nsqlite import Broker, ClockStandsStill, Consumer, Empty, InvalidOption, Topic
from nsqlite.testing import ManualClock


def test_it_stands() -> None:
    """Time passes only by advance, by exactly as much."""
    clock = ManualClock(1000)
    assert (1000.0, 0) == (clock.time(), clock.monotonic_ns())
    clock.advance(0.1)
    clock.advance(0.2)
    assert 300_000_000 == clock.monotonic_ns()
    assert 1000_300_000_000 == clock.time_ns()


@pytest.mark.parametrize("step", [-1, float("nan"), float("inf"), True, "1"])
def test_bad_steps(step: Any) -> None:
    """A step that is no number of seconds is refused and moves nothing."""
    clock = ManualClock()
    with pytest.raises(InvalidOption):
        clock.advance(step)
    assert 0 == clock.monotonic_ns()


@pytest.mark.parametrize("options", [{"start": -1}, {"patience": 0}, {"patience": "1"}])
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
        "get() on channel 'billing' of topic 'orders' waits for ever: every thread waits on a clock"
        " that nobody moves, and there is no deadline to wait for; call advance() from another"
        " thread, or make the clock with autojump=True" == str(info.value)
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
    """While another thread lives that does not wait on it, a wait goes on beyond patience."""

    class Clock(TellingManualClock):
        """A clock which tells when a waiter looks whether it is alone."""

        looked = threading.Semaphore(0)

        def _alone(self) -> bool:
            self.looked.release()
            return super()._alone()

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
    """The clock jumps only when every thread waits on it."""
    clock = TellingManualClock(autojump=True, patience=0.005)
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


def test_a_wait_for_no_time_is_over_at_once() -> None:
    """A deadline that has come before the wait begins ends it."""
    bell = threading.Lock()
    bell.acquire()
    assert not ManualClock().wait(bell, 0, "nobody")


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


def test_a_stores_thread_does_not_keep_a_clock_standing(tmp_path: Path) -> None:
    """With a store too, a wait that can never end is told, and its thread is no reason to wait."""
    clock = ManualClock(patience=0.01)
    store = nsqlite.SQLite(tmp_path / "jobs.db", sync_timeout=0.001)
    with Broker(clock=clock, store=store) as broker:
        consumer = Consumer(broker.topic("orders").channel("billing"))
        with pytest.raises(ClockStandsStill):
            consumer.get()


def test_autojump_with_a_store(tmp_path: Path) -> None:
    """With a store too, the clock jumps to the next deadline when all wait on it."""
    clock = ManualClock(patience=0.01, autojump=True)
    store = nsqlite.SQLite(tmp_path / "jobs.db", sync_timeout=0.001)
    with Broker(clock=clock, store=store) as broker:
        topic = broker.topic("orders")
        consumer = Consumer(topic.channel("billing"))
        topic.put(b"1", delay=1000)
        assert b"1" == consumer.get(timeout=2000).body
        assert 1000.0 == clock.monotonic_ns() / 10**9
