"""A consumer: get, get_many, iteration, and what interrupts them."""

import logging
import math
import queue
import signal
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from helpers import PATIENCE, Call, TellingClock, TellingManualClock

import nsqlite
from nsqlite import (
    Channel,
    Closed,
    Consumer,
    Empty,
    Full,
    InvalidMessage,
    InvalidOption,
    Message,
    NotInFlight,
    Reentered,
    Seconds,
    State,
    Topic,
    WindowFull,
)
from nsqlite.clock import NEVER, Semaphore
from nsqlite.latency import Latency
from nsqlite.lock import Lock
from nsqlite.monitor import Monitor
from nsqlite.options import SECOND
from nsqlite.queue import Queue
from nsqlite.testing import ManualClock
from nsqlite.timeline import Recorder
from nsqlite.timerwheel import Page
from nsqlite.waiting import ThreadWaiter, Waiter


class Holding(Consumer[bytes]):
    """A consumer that has got a message."""

    def __init__(self, channel: Channel[bytes]) -> None:
        super().__init__(channel)
        self.held = self.get(timeout=0)


def test_get_nothing() -> None:
    """A get without waiting raises Empty, which is queue's too."""
    consumer = Consumer(Topic("orders").channel("billing"))
    with pytest.raises(Empty) as info:
        consumer.get(timeout=0)
    assert "no message came on channel 'billing' in time" == str(info.value)
    assert isinstance(info.value, queue.Empty)
    with pytest.raises(Empty):
        consumer.get(timeout=0.001)
    with pytest.raises(Empty):
        consumer.get_many(3, timeout=0)


def test_get_waits_for_a_put() -> None:
    """A blocked get is handed the message that is put."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"))
    call = Call(consumer.get)
    clock.until_waiting()
    topic._check()
    topic.put(b"1")
    message = call.result()
    assert (b"1", 1) == (message.body, message.attempts)
    topic._check()


def test_first_come_first_served() -> None:
    """Those who wait are served in the order in which they came."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    calls = []
    for _ in range(4):
        calls.append(Call(Consumer(channel).get))
        clock.until_waiting()
    topic.put_many([0, 1, 2, 3])
    assert [0, 1, 2, 3] == [call.result().body for call in calls]


@pytest.mark.parametrize("wake", ["req", "timeout", "unpause", "due", "window", "close"])
def test_get_is_woken(wake: str) -> None:
    """A blocked get is woken by whatever makes a message ready for it."""
    clock = TellingManualClock(patience=100)
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    other = Consumer(channel)
    consumer = Consumer(channel, max_in_flight=1)
    topic.put(b"1")
    held = (consumer if wake == "window" else other).get(timeout=0)
    if wake == "window":
        topic.put(b"1")
    if wake == "due":
        held.req(delay=5)
    if wake == "unpause":
        channel.pause()
        held.req()
    call = Call(consumer.get)
    clock.until_waiting()
    topic._check()
    if wake == "req":
        held.req()
    elif wake in ("timeout", "due"):
        clock.advance(60)
    elif wake == "unpause":
        channel.unpause()
    elif wake == "window":
        held.fin()
    else:
        other.close()
    message = call.result()
    assert b"1" == message.body
    assert (1 if wake == "window" else 2) == message.attempts
    topic._check()


def test_window() -> None:
    """A consumer never holds more than max_in_flight; then a get raises WindowFull."""
    topic = Topic("orders")
    consumer = Consumer(topic.channel("billing"), max_in_flight=2)
    topic.put_many([b"1", b"2", b"3"])
    first = consumer.get(timeout=0)
    assert 1 == len(consumer.get_many(10, timeout=0))
    for timeout in (0, 0.001):
        with pytest.raises(WindowFull) as info:
            consumer.get(timeout=timeout)
    assert (
        "the consumer of channel 'billing' holds max_in_flight=2 messages: fin() or req() one first"
        == str(info.value)
    )
    with pytest.raises(WindowFull):
        consumer.get_many(2, timeout=0)
    first.req()
    assert 1 == consumer.in_flight_count
    assert b"3" == consumer.get(timeout=0).body
    topic._check()


def test_a_full_window_is_not_in_line() -> None:
    """A message goes past a consumer that could not take it."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    full = Consumer(channel, max_in_flight=1)
    topic.put(b"0")
    held = full.get(timeout=0)
    blocked = Call(full.get)
    clock.until_waiting()
    free = Call(Consumer(channel).get)
    clock.until_waiting()
    topic.put(b"1")
    assert b"1" == free.result().body
    topic._check()
    topic.put(b"2")
    held.fin()
    assert b"2" == blocked.result().body
    topic._check()


def test_several_gets_of_one_consumer_share_its_window() -> None:
    """Two threads that wait on one consumer get one message where the window has one place."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel, max_in_flight=1)
    calls = [Call(consumer.get), Call(consumer.get)]
    for _ in calls:
        clock.until_waiting()
    topic.put_many([b"1", b"2"])
    topic._check()
    first = calls[0].result()
    first.fin()
    assert [b"1", b"2"] == [first.body, calls[1].result().body]
    topic._check()


def test_get_many() -> None:
    """A batch comes as soon as there is one message, the oldest first."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"))
    topic.put_many([b"1", b"2", b"3"])
    assert [b"1", b"2"] == [m.body for m in consumer.get_many(2)]
    assert [b"3"] == [m.body for m in consumer.get_many(2)]
    call = Call(lambda: consumer.get_many(2))
    clock.until_waiting()
    topic.put(b"4")
    assert [b"4"] == [m.body for m in call.result()]
    topic._check()


def test_linger_waits_to_fill() -> None:
    """With linger a batch waits for more, until it is full or the time is over."""
    clock = TellingManualClock(patience=100)
    topic = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"))
    topic.put(b"1")
    call = Call(lambda: consumer.get_many(3, linger=10))
    clock.until_waiting()
    topic.put(b"2")
    clock.until_waiting()
    clock.advance(10)
    assert [b"1", b"2"] == [m.body for m in call.result()]
    call = Call(lambda: consumer.get_many(2, linger=10))
    clock.until_waiting()
    topic.put_many([b"3", b"4"])
    assert [b"3", b"4"] == [m.body for m in call.result()]


def lingering(topic: Topic[bytes], clock: TellingClock, **options: Any) -> tuple[Any, Call]:
    """Return a consumer and its lingering call, which has one message so far."""
    consumer = Consumer(topic.channel("billing"), **options)
    topic.put(b"1")
    call = Call(lambda: consumer.get_many(3, linger=50))
    clock.until_waiting()
    return consumer, call


@pytest.mark.parametrize("linger", [None, "", [], {}])
def test_a_linger_that_is_no_number_is_refused(linger: Any) -> None:
    """What is given as linger is checked, also if it is empty."""
    consumer = Consumer(Topic[Any]("orders").channel("billing"))
    with pytest.raises(InvalidOption):
        consumer.get_many(2, timeout=0, linger=linger)


def test_linger_ends_with_the_consumer() -> None:
    """A batch that is not yet full is returned when its consumer leaves it in flight."""
    clock = TellingClock()
    topic: Topic[bytes] = Topic("orders", clock=clock)
    consumer, call = lingering(topic, clock)
    consumer.close(give_back=False)
    assert [b"1"] == [m.body for m in call.result()]
    with pytest.raises(Closed):
        consumer.get_many(3)


@pytest.mark.parametrize("what", ["channel", "topic", "consumer"])
def test_linger_returns_no_dead_message(what: str) -> None:
    """A batch whose messages were thrown away or given back meanwhile is none."""
    clock = TellingClock()
    topic: Topic[bytes] = Topic("orders", clock=clock)
    consumer, call = lingering(topic, clock)
    {"channel": consumer.channel, "topic": topic, "consumer": consumer}[what].close()
    assert isinstance(call.result(), Closed)


def test_linger_is_shorter_than_the_time_out() -> None:
    """A batch cannot linger until its own messages time out."""
    topic = Topic("orders", msg_timeout=5)
    consumer = Consumer(topic.channel("billing"))
    topic.put(b"1")
    text = "linger must be less than msg_timeout, which is 5 s, not 5"
    with pytest.raises(InvalidOption, match=text):
        consumer.get_many(3, linger=5)
    assert 0 == consumer.in_flight_count


def test_linger_ends_with_the_window() -> None:
    """A batch that fills the window does not linger, for nothing more could come."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"), max_in_flight=2)
    topic.put_many([b"1", b"2", b"3"])
    assert 2 == len(consumer.get_many(3, linger=5))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda c: c.get(timeout=-1),
            "timeout must be a finite number of seconds, at least 0, not -1",
        ),
        (
            lambda c: c.get(timeout=True),
            "timeout must be a finite number of seconds, at least 0, not True",
        ),
        (
            lambda c: c.get(timeout=math.nan),
            "timeout must be a finite number of seconds, at least 0, not nan",
        ),
        (
            lambda c: c.get_many(1, timeout="1"),
            "timeout must be a finite number of seconds, at least 0, not '1'",
        ),
        (lambda c: c.get_many(0), "n must be a whole number of at least 1, not 0"),
        (lambda c: c.get_many(True), "n must be a whole number of at least 1, not True"),
        (
            lambda c: c.get_many(1, linger=-1),
            "linger must be a finite number of seconds, at least 0, not -1",
        ),
    ],
)
@pytest.mark.parametrize("ready", [0, 3])
def test_bad_arguments(call: Any, text: str, ready: int) -> None:
    """A number out of its range is refused by name, whether or not there is a message."""
    topic = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    topic.put_many([b"x"] * ready)
    with pytest.raises(InvalidOption) as info:
        call(consumer)
    assert text == str(info.value)
    assert 0 == consumer.in_flight_count


@pytest.mark.parametrize(
    "options",
    [
        {"max_in_flight": -1},
        {"max_in_flight": True},
        {"max_in_flight": 1.5},
        {"msg_timeout": 0},
        {"msg_timeout": 900.1},
        {"msg_timeout": math.inf},
        {"requeue_delay": -1},
        {"requeue_delay": 31622401},
        {"name": 7},
    ],
)
def test_bad_options(options: Any) -> None:
    """A consumer's options are checked, and no consumer is made."""
    channel = Topic("orders").channel("billing")
    with pytest.raises(InvalidOption):
        Consumer(channel, **options)
    assert 0 == channel.stats().client_count


@pytest.mark.parametrize("wrong", [Topic("orders"), "billing", None])
def test_no_channel(wrong: Any) -> None:
    """A topic or a name is no channel."""
    with pytest.raises(InvalidOption) as info:
        Consumer(wrong)
    assert f"channel must be what Topic.channel(name) returns, not {wrong!r}" == str(info.value)


def test_iteration_ends_with_the_consumer() -> None:
    """A for loop ends when the consumer is closed."""
    topic = Topic("orders")
    seen = []
    with Consumer(topic.channel("billing")) as consumer:
        topic.put_many([b"1", b"2"])
        for message in consumer:
            seen.append(message.body)
            message.fin()
            if len(seen) == 2:
                consumer.close()
    assert [b"1", b"2"] == seen
    assert consumer.closed
    with pytest.raises(Closed) as info:
        consumer.get(timeout=0)
    assert "the consumer of channel 'billing' of topic 'orders' is closed" == str(info.value)
    shown = f"<Consumer {consumer.client_id} of channel 'billing' of topic 'orders' closed>"
    assert shown == repr(consumer)


def test_close_wakes_its_getters() -> None:
    """Whoever waits in get of a consumer gets Closed when it is closed; others wait on."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer, other = Consumer(channel, max_in_flight=1), Consumer(channel)
    topic.put(b"0")
    consumer.get(timeout=0)
    channel.pause()
    parked = Call(consumer.get)
    clock.until_waiting()
    stays = Call(other.get)
    clock.until_waiting()
    consumer.close()
    assert isinstance(parked.result(), Closed)
    channel.unpause()
    assert b"0" == stays.result().body
    topic._check()


class Interrupt(Exception):
    """Thrown by a signal handler."""


class Interrupter:
    """Throws `Interrupt` once into the main thread when it waits on a clock."""

    def __init__(self, clock: TellingClock) -> None:
        self._clock = clock
        self._thrown = threading.Event()
        self._before = signal.signal(signal.SIGUSR1, self._handle)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _handle(self, _signum: int, _frame: Any) -> None:
        if not self._thrown.is_set():
            self._thrown.set()
            raise Interrupt

    def _run(self) -> None:
        self._clock.until_waiting()
        main = threading.main_thread().ident
        assert main is not None
        while not self._thrown.wait(0.01):  # one that comes just before the sleep does not end it
            signal.pthread_kill(main, signal.SIGUSR1)

    def end(self) -> None:
        """Return when it has thrown."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        signal.signal(signal.SIGUSR1, self._before)


def test_interrupted_get_leaves_no_trace() -> None:
    """An exception thrown into a waiting get leaves the line as if it had never waited."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    interrupter = Interrupter(clock)
    with pytest.raises(Interrupt):
        consumer.get(timeout=PATIENCE)
    interrupter.end()
    topic._check()
    topic.put(b"1")
    assert (1, 1) == (channel.depth, consumer.get(timeout=0).attempts)


def test_a_get_interrupted_with_a_message_in_its_hands() -> None:
    """What it was handed goes back to the head of the queue at once, attempts as before."""

    class Clock(ManualClock):
        """Lets the sleeper be handed something, and then throws."""

        def wait(self, semaphore: Semaphore, moment: int | None, who: str) -> bool:  # noqa: ARG002 - Clock's
            topic.put_many([b"1", b"2"])
            assert 1 == channel.in_flight_count
            raise Interrupt

    topic = Topic("orders", clock=Clock())
    channel = topic.channel("billing")
    with pytest.raises(Interrupt):
        Consumer(channel).get()
    topic._check()
    assert [(b"1", 0), (b"2", 0)] == [(info.body, info.attempts) for info in channel.peek()]


def test_interrupted_batch_goes_back() -> None:
    """An exception thrown into a lingering batch gives it back, attempts as before."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put_many([b"1", b"2"])
    interrupter = Interrupter(clock)
    with pytest.raises(Interrupt):
        consumer.get_many(3, linger=PATIENCE)
    interrupter.end()
    assert [(b"1", 0), (b"2", 0)] == [(info.body, info.attempts) for info in channel.peek()]
    topic._check()


def test_interrupted_put_leaves_the_line() -> None:
    """An exception thrown into a blocked put has put nothing, and lets the next one go on."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing", max_depth=1)
    topic.put(b"1")
    interrupter = Interrupter(clock)
    with pytest.raises(Interrupt):
        topic.put(b"2", timeout=PATIENCE)
    interrupter.end()
    channel.empty()
    topic.put(b"3", timeout=0)
    assert 2 == topic.stats().message_count
    topic._check()


def test_interrupted_join_leaves_the_line() -> None:
    """An exception thrown into a join leaves nobody behind."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    topic.put(b"1")
    interrupter = Interrupter(clock)
    with pytest.raises(Interrupt):
        topic.join(timeout=PATIENCE)
    interrupter.end()
    assert not topic._monitor.joins


def test_a_hand_over_that_never_arrived_is_no_delivery() -> None:
    """A message handed to a wait that is abandoned goes to the next one, attempts as before."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    gone, other = Consumer(channel), Consumer(channel)
    waiter: Waiter[Any] = ThreadWaiter(topic._monitor, gone)
    topic._monitor.run(channel._receive, gone, Message(), waiter)
    call = Call(other.get)
    clock.until_waiting()
    topic.put(b"1")
    assert waiter.message is not None
    stale = waiter.message
    topic._monitor.run(channel._abandon, Message(), waiter)
    assert 1 == call.result().attempts
    assert State.RETURNED is stale.state
    topic._check()


def test_a_last_moment_hand_over_counts() -> None:
    """A wait whose time is over returns what it was handed in that moment."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    waiter: Waiter[Any] = ThreadWaiter(topic._monitor, consumer)
    topic._monitor.run(channel._receive, consumer, Message(), waiter)
    topic.put(b"1")
    assert waiter.message is not None
    got = topic._monitor.run(channel._give_up, consumer, Message(), waiter)
    assert waiter.message is got
    topic._check()


def test_a_waiter_is_used_again() -> None:
    """Gets that wait one after the other share what they sleep on, and it keeps nothing alive."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"))
    for body in (b"1", b"2"):
        call = Call(consumer.get)
        clock.until_waiting()
        topic.put(body)
        assert body == call.result().body
        del call
    assert [None] == [waiter.message for waiter in consumer._pool]
    gone = weakref.ref(consumer)
    topic.channel("billing").empty()
    del consumer
    assert gone() is None


def test_get_does_not_wait_where_the_lock_is_held() -> None:
    """A get that would sleep inside another call of its thread is refused."""
    topic = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    with topic._monitor.lock, pytest.raises(Reentered, match="get"):
        consumer.get(timeout=1)
    topic._check()


def test_what_never_reached_its_caller_was_not_delivered() -> None:
    """A hand-over to a wait that was given up counts neither as attempt nor as delivery."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    waiter: Waiter[Any] = ThreadWaiter(topic._monitor, consumer)
    topic._monitor.run(channel._receive, consumer, Message(), waiter)
    topic.put(b"1")
    topic._monitor.run(channel._abandon, Message(), waiter)
    stats = consumer.stats()
    assert (0, 0, 0) == (stats.message_count, stats.in_flight_count, stats.finish_count)
    assert 1 == consumer.get().attempts
    topic._check()


@pytest.mark.parametrize("how", ["close", "time out"])
def test_what_is_lost_on_the_way_is_not_got(how: str) -> None:
    """A message that is taken back, or times out, before its getter wakes is not returned by it."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    waiter: Waiter[Any] = ThreadWaiter(topic._monitor, consumer)
    topic._monitor.run(channel._receive, consumer, Message(), waiter)
    topic.put(b"1")
    assert waiter.message is not None
    if how == "close":
        consumer.close()
        assert [0] == [info.attempts for info in channel.peek()]
        with pytest.raises(Closed):
            topic._monitor.run(channel._receive, consumer, Message(), waiter)
    else:
        channel.pause()
        clock.advance(60)
        assert topic._monitor.run(channel._give_up, consumer, Message(), waiter) is None
        assert topic._monitor.run(channel._receive, consumer, Message(), waiter) is None
        assert [0] == [info.attempts for info in channel.peek()]
        assert 0 == channel.stats().timeout_count
        assert topic._monitor.run(channel._give_up, consumer, Message(), waiter) is None
    assert channel._queue.waiters.claim(waiter) is None


def test_a_get_that_races_with_close_gets_nothing() -> None:
    """A get that waits for the lock while its consumer is closed raises Closed."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put_many([b"1", b"2"])
    consumer.get().req()  # has it find the page for what it gets
    begun = threading.Event()

    def get() -> Any:
        begun.set()
        return consumer.get(timeout=0)

    with topic._monitor.lock:
        call = Call(get)
        assert begun.wait(PATIENCE)
        consumer.close()
    assert isinstance(call.result(), Closed)
    assert (2, 0) == (channel.depth, channel.in_flight_count)


def test_finish_and_get_in_one_go() -> None:
    """A worker's thread finishes one message and gets the next, if both can be done at once."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel, max_in_flight=1)
    topic.put_many([b"1", b"2", b"3"])
    first = consumer.get()
    second = consumer._finish_and_get(first, consumer._now())
    assert second is not None
    assert (State.FINISHED, b"2", 1) == (first.state, second.body, consumer.in_flight_count)
    assert consumer._finish_and_get(first, consumer._now()) is None
    clock.advance(30)
    topic.put(b"4")
    consumer.rdy(2)
    third = consumer.get()  # due later than the first two
    assert consumer._finish_and_get(second, consumer._now()) is not None
    channel.empty()
    assert consumer._finish_and_get(third, consumer._now()) is None
    topic._check()


def test_fin_twice() -> None:
    """A second answer to a delivery raises NotInFlight and changes nothing."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put(b"1")
    message = consumer.get(timeout=0)
    message.fin()
    for call in (message.fin, message.req, message.touch):
        with pytest.raises(NotInFlight) as info:
            call()
        assert "answered" == info.value.reason
        assert f"message {message.id}: ID not in flight (answered)" == str(info.value)
    stats = channel.stats()
    assert (0, 1, 0) == (stats.depth, stats.clients[0].finish_count, stats.requeue_count)
    topic._check()


def test_late_answer() -> None:
    """A message that timed out is another's; the old object can do nothing."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock, msg_timeout=5)
    consumer = Consumer(topic.channel("billing"))
    topic.put(b"1")
    old = consumer.get(timeout=0)
    clock.advance(5)
    assert State.TIMED_OUT is old.state
    new = consumer.get(timeout=0)
    for call in (old.fin, old.req, old.touch):
        with pytest.raises(NotInFlight) as info:
            call()
        assert "timed out" == info.value.reason
    assert (old.id, 2) == (new.id, new.attempts)
    new.fin()
    topic._check()


def test_not_owner() -> None:
    """A consumer cannot answer for another's message."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    owner, other = Consumer(channel), Consumer(channel)
    topic.put(b"1")
    message = owner.get(timeout=0)
    for call in (other.fin, other.req, other.touch, lambda m: other.fin_many([m])):
        with pytest.raises(NotInFlight) as info:
            call(message)
        assert "not owner" == info.value.reason
        assert f"message {message.id}: client does not own message" == str(info.value)
    message.fin()


def test_no_message_at_all() -> None:
    """What is no message is refused by name."""
    consumer: Any = Consumer(Topic("orders").channel("billing"))
    topic = Topic("other")
    for call in (
        consumer.fin,
        consumer.req,
        consumer.touch,
        lambda m: consumer.fin_many([m]),
        lambda m: consumer.move(m, topic),
    ):
        with pytest.raises(InvalidMessage) as info:
            call("18a4dda920000000")
        assert "expected a Message that get() returned, not '18a4dda920000000'" == str(info.value)


def test_fin_many_is_all_or_none() -> None:
    """A batch that is partly wrong finishes nothing."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put_many([b"1", b"2", b"3"])
    batch = consumer.get_many(3)
    batch[1].fin()
    with pytest.raises(NotInFlight):
        consumer.fin_many(batch)
    with pytest.raises(InvalidMessage) as info:
        consumer.fin_many([batch[0], batch[2], batch[0]])
    assert "the batch has a message twice" == str(info.value)
    assert 2 == channel.in_flight_count
    consumer.fin_many([batch[0], batch[2]])
    consumer.fin_many([])
    assert 0 == channel.in_flight_count
    topic._check()


def test_requeue() -> None:
    """A requeued message comes back with its id and timestamp, counted, at the tail."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"))
    topic.put_many([b"1", b"2"])
    first = consumer.get(timeout=0)
    first.req()
    assert State.REQUEUED is first.state
    consumer.get(timeout=0).req(delay=3)
    again = consumer.get(timeout=0)
    assert (first.id, first.timestamp, 2) == (again.id, again.timestamp, again.attempts)
    clock.advance(3)
    assert (b"2", 2) == ((late := consumer.get(timeout=0)).body, late.attempts)
    topic._check()


def test_what_a_consumer_keeps_does_not_time_out() -> None:
    """What a worker's consumer is given has no deadline until that is wanted; the others have."""
    clock = ManualClock()
    topic: Topic[int] = Topic("orders", clock=clock)
    recorder = Recorder()
    topic.observe(recorder, kinds=[nsqlite.Kind.DELIVERED, nsqlite.Kind.TOUCHED])
    channel = topic.channel("billing")
    kept, other = Consumer(channel), Consumer(channel)
    kept._keep()
    topic.put_many(range(6))
    first, *batch = kept.get(timeout=0), *kept.get_many(2, timeout=0), *kept.take(1)
    clock.advance(10)
    second, third = kept.get(timeout=0), other.get(timeout=0)
    first.touch()
    mine = [event for event in recorder.events if event.client_id == kept.client_id]
    assert [None] * 6 == [event.due for event in mine]
    assert [None] * 5 == [info.due_in for info in channel.in_flight() if info.body != 5]
    topic._check()
    assert 60 == clock.advance_to_next()
    assert third.state is nsqlite.State.TIMED_OUT
    assert clock.advance_to_next() is None
    kept._let_expire(second)
    topic._check()
    clock.advance(59)
    second.touch()
    assert 60 == clock.advance_to_next()
    assert second.state is nsqlite.State.TIMED_OUT
    kept.fin_many([first, *batch])
    clock.advance(10**9)
    topic._check()
    assert (0, 2) == (channel.in_flight_count, channel.depth)


def test_what_falls_due_does_not_starve_behind_what_is_kept() -> None:
    """A consumer that keeps what it is given looks for what is due as often as any other."""
    clock = ManualClock()
    topic: Topic[int] = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    kept = Consumer(channel)
    kept._keep()
    topic.put_many(range(10))
    kept.get(timeout=0)
    topic.put(99, delay=1)
    clock._elapsed = 2 * SECOND  # as if nobody had looked
    kept.get(timeout=0).fin()
    assert 0 == len(channel._queue.deferred)
    assert 99 == channel.peek(20)[-1].body


@pytest.mark.parametrize("second", [1.0, timedelta(seconds=1)])
def test_seconds_or_a_timedelta(second: Seconds) -> None:
    """What a consumer is told of times can be either."""
    clock = ManualClock(autojump=True)
    topic = Topic[int]("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel, msg_timeout=10 * second, requeue_delay=second)
    assert (1.0, float) == (consumer.requeue_delay, type(consumer.requeue_delay))
    for get in (consumer.get, partial(consumer.get_many, 1)):
        with pytest.raises(Empty):
            get(timeout=second)
    assert 2 * SECOND == clock.monotonic_ns()
    topic.put_many([1, 2, 3, 4])
    batch = consumer.get_many(5, second, linger=second)
    assert 4 == len(batch)
    assert [9.0] * 4 == [info.due_in for info in channel.in_flight()]
    consumer.req(batch[0], second)
    batch[1].req(delay=second)
    consumer.req_ids([batch[2].id], second)
    with suppress(ValueError), batch[3]:
        raise ValueError
    assert [1.0] * 4 == [info.due_in for info in channel.deferred()]


def test_a_linger_must_end_before_the_messages_time_out() -> None:
    """One that is too long is refused as its seconds."""
    consumer = Consumer(Topic("orders").channel("billing"))
    with pytest.raises(InvalidOption) as info:
        consumer.get_many(2, linger=timedelta(minutes=2))
    assert "linger must be less than msg_timeout, which is 60 s, not 120.0" == str(info.value)


def test_requeue_delay_is_clamped() -> None:
    """A requeue's delay beyond max_req_timeout counts as that; a bad one is refused."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock, max_req_timeout=10)
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put(b"1")
    message = consumer.get(timeout=0)
    for delay in (-1, math.nan, math.inf, True, "5"):
        with pytest.raises(InvalidOption):
            message.req(delay=delay)  # type: ignore[arg-type]  # wrong on purpose
    assert State.IN_FLIGHT is message.state
    message.req(delay=9999)
    clock.advance(10)
    assert 1 == channel.depth


def test_touch() -> None:
    """A touch gives the whole time again, up to max_msg_timeout for one delivery."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock, msg_timeout=10, max_msg_timeout=25)
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put(b"1")
    message = consumer.get(timeout=0)
    message.touch()
    for step in (8, 8):
        clock.advance(step)
        message.touch()
    assert 9 == channel.in_flight()[0].due_in
    clock.advance(8.9)
    assert "in flight" == message.state
    clock.advance(0.1)
    assert "timed out" == message.state
    topic._check()


def test_own_timeout() -> None:
    """A consumer's msg_timeout holds for its messages, whatever the channel's."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    short, usual = Consumer(channel, msg_timeout=1), Consumer(channel)
    topic.put_many([b"1", b"2", b"3"])
    short.get(timeout=0)
    short.get_many(1, timeout=0)
    usual.get(timeout=0)
    clock.advance(1)
    assert (2, 1) == (channel.depth, channel.in_flight_count)
    topic._check()


def test_close_gives_back() -> None:
    """Close puts what was held back to the head, in order, attempts counted."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumer, other = Consumer(channel), Consumer(channel)
    topic.put_many([b"1", b"2", b"3", b"4"])
    held = consumer.get_many(2)
    kept = other.get(timeout=0)
    consumer.close()
    assert [b"1", b"2", b"4"] == [info.body for info in channel.peek()]
    assert [1, 1, 0] == [info.attempts for info in channel.peek()]
    assert State.RETURNED is held[0].state
    with pytest.raises(NotInFlight) as info:
        held[0].fin()
    assert "given back" == info.value.reason
    kept.fin()
    assert 2 == other.get(timeout=0).attempts
    topic._check()


def test_close_can_leave_it_to_time_out() -> None:
    """With give_back=False what was held stays in flight until its time is over, as in nsqd."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put(b"1")
    consumer.get(timeout=0)
    consumer.close(give_back=False)
    assert (0, 1) == (channel.depth, channel.in_flight_count)
    clock.advance(60)
    assert (1, 0) == (channel.depth, channel.in_flight_count)
    topic._check()


def test_with_message() -> None:
    """A with block finishes on success and requeues on an exception, which goes on."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel, requeue_delay=5)
    topic.put(b"1")
    with pytest.raises(ZeroDivisionError), consumer.get(timeout=0):
        _ = 1 / 0
    assert 1 == channel.deferred_count
    clock.advance(5)
    with consumer.get(timeout=0) as message:
        assert 2 == message.attempts
    assert State.FINISHED is message.state
    topic._check()


def test_with_message_already_answered() -> None:
    """A message answered inside its block is left alone."""
    topic = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    topic.put_many([b"1", b"2"])
    with consumer.get(timeout=0) as message:
        message.fin()
    with pytest.raises(ZeroDivisionError), consumer.get(timeout=0) as message:
        message.req()
        _ = 1 / 0
    assert State.REQUEUED is message.state


def test_with_message_too_late(caplog: pytest.LogCaptureFixture) -> None:
    """Too late is an error after success, and only a log record beside an exception."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"))
    topic.put(b"1")
    with pytest.raises(NotInFlight), consumer.get(timeout=0):
        clock.advance(60)
    with (
        caplog.at_level(logging.WARNING, "nsqlite"),
        pytest.raises(ZeroDivisionError),
        consumer.get(timeout=0) as message,
    ):
        clock.advance(60)
        _ = 1 / 0
    late = f"message {message.id}: ID not in flight (timed out)"
    assert [
        f"{late}; its handler failed with ZeroDivisionError('division by zero')"
    ] == caplog.messages


def test_move() -> None:
    """A moved message is published to the other topic and finished, in one step."""
    source, target = Topic("orders"), Topic("orders.dead")
    dead = target.channel("watch")
    channel = source.channel("billing")
    consumer = Consumer(channel)
    source.put_many([b"1", b"2"])
    message = consumer.get(timeout=0)
    moved = consumer.move(message, target)
    assert State.FINISHED is message.state
    assert [(moved, b"1")] == [(info.id, info.body) for info in dead.peek()]
    again = consumer.move(consumer.get(timeout=0), source)  # to its own topic
    assert [(again, b"2")] == [(info.id, info.body) for info in channel.peek()]
    with pytest.raises(NotInFlight):
        consumer.move(message, target)
    assert 1 == target.stats().message_count
    source._check()
    target._check()


def test_move_to_no_topic() -> None:
    """A name is neither topic nor channel, and the message stays in flight."""
    topic: Topic[Any] = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    topic.put(b"1")
    message = consumer.get(timeout=0)
    wrongs: list[Any] = ["orders.dead", None, consumer]
    for wrong in wrongs:
        with pytest.raises(InvalidOption, match="to must be a Topic or a Channel, not "):
            consumer.move(message, wrong)
    assert 1 == consumer.in_flight_count


def test_move_to_a_channel() -> None:
    """A message moved to a channel is in that one alone, counts there, and begins anew."""
    topic: Topic[Any] = Topic("orders")
    full = topic.channel("billing", max_depth=1, when_full="raise")
    other = topic.channel("audit")
    topic.put(b"1")
    dead: Topic[Any] = Topic("dead")
    consumer = Consumer(dead.channel("x"))
    dead.put(b"2")
    message = consumer.get(timeout=0)
    new = consumer.move(message, full, body=b"3")
    assert State.FINISHED is message.state
    assert [(b"1", 0), (b"3", 0)] == [(info.body, info.attempts) for info in full.peek()]
    assert new == full.peek()[1].id
    assert (1, 2) == (other.depth, full.stats().message_count)
    topic._check()


def test_move_to_a_closed_channel() -> None:
    """A closed channel takes nothing, and the message stays in flight."""
    topic: Topic[Any] = Topic("orders")
    channel = topic.channel("billing")
    channel.close()
    dead: Topic[Any] = Topic("dead")
    consumer = Consumer(dead.channel("x"))
    dead.put(b"2")
    message = consumer.get(timeout=0)
    with pytest.raises(Closed):
        consumer.move(message, channel)
    assert State.IN_FLIGHT is message.state


def test_rdy_changes_the_window() -> None:
    """A consumer gets as many messages as its window allows now, not fewer than it holds."""
    topic: Topic[Any] = Topic("orders")
    consumer = Consumer(topic.channel("billing"), max_in_flight=2)
    topic.put_many(range(9))
    held = consumer.get_many(5)
    assert 2 == len(held)
    consumer.rdy(1)
    assert (1, 2) == (consumer.max_in_flight, consumer.in_flight_count)
    held.pop().fin()
    with pytest.raises(WindowFull, match="max_in_flight=1"):
        consumer.get(timeout=0)
    consumer.rdy(4)
    assert 3 == len(consumer.get_many(5))
    consumer.rdy(0)
    assert 0 == consumer.stats().ready_count
    consumer.rdy(None)
    assert consumer.max_in_flight is None
    assert 4 == len(consumer.get_many(9))
    topic._check()


@pytest.mark.parametrize("window", [-1, True, 1.5, "2"])
def test_bad_windows(window: Any) -> None:
    """A window that is no whole number is refused, and stays what it was."""
    consumer = Consumer(Topic("orders").channel("billing"), max_in_flight=2)
    with pytest.raises(InvalidOption, match="max_in_flight must be a whole number of at least 0"):
        consumer.rdy(window)
    assert 2 == consumer.max_in_flight


def test_rdy_wakes_who_waits_for_the_window() -> None:
    """A blocked get of a consumer without a window gets a message as soon as it has one."""
    clock = TellingClock()
    topic: Topic[Any] = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"), max_in_flight=1)
    consumer.rdy(0)
    topic.put(b"1")
    call = Call(consumer.get)
    clock.until_waiting()
    consumer.rdy(1)
    assert b"1" == call.result().body
    topic._check()


@pytest.mark.parametrize("order", [1, -1])
def test_move_to_a_topic_without_room(order: int) -> None:
    """A move that finds no room, or no topic, or a body too large, changes nothing."""
    topics = [Topic("a"), Topic("b")][::order]
    source, target = topics
    target.channel("watch", max_depth=1)
    target.put(b"full")
    consumer = Consumer(source.channel("billing"))
    source.put(b"1")
    message = consumer.get(timeout=0)
    with pytest.raises(Full):
        consumer.move(message, target)
    target.delete()
    with pytest.raises(Closed):
        consumer.move(message, target)
    source.put(b"too large")
    large = consumer.get(timeout=0)
    with pytest.raises(InvalidMessage):
        consumer.move(large, Topic("small", max_msg_size=1))
    assert [State.IN_FLIGHT] * 2 == [message.state, large.state]
    source._check()
    target._check()


def test_move_is_told_without_a_lock() -> None:
    """Both topics' observers hear of a move when no lock is held."""
    told = []
    first, second = Topic("a"), Topic("b")

    def observer(event: nsqlite.Event) -> None:
        free = Call(lambda: (first.stats(), second.stats()))
        free.result()
        told.append((event.topic, event.kind.value))

    consumer = Consumer(second.channel("c"))
    second.put(b"1")
    first.channel("d")
    message = consumer.get(timeout=0)
    first.observe(observer)
    second.observe(observer)
    consumer.move(message, first)
    assert [("a", "published"), ("b", "finished")] == sorted(told)


def test_fin_many_takes_several() -> None:
    """What is no batch is refused, and a single message too."""
    topic = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    topic.put(b"1")
    message = consumer.get()
    wrongs: list[Any] = [3, None, message]
    for wrong in wrongs:
        with pytest.raises(InvalidMessage, match="fin_many takes several messages, not "):
            consumer.fin_many(wrong)
    message.fin()


class StruckBefore(Page[Any]):
    """A page that a signal strikes before the batch is filed in it."""

    @property
    def update(self) -> Any:
        raise Interrupt


class StruckAfter(Page[Any]):
    """A page that a signal strikes when the batch has been filed in it."""

    def update(self, *moves: Any, **none: Any) -> None:
        super().update(*moves, **none)
        raise Interrupt


@pytest.mark.parametrize("page", [StruckBefore, StruckAfter])
def test_a_batch_interrupted_while_it_is_made(page: type[Page[Any]]) -> None:
    """An exception thrown into the making of a batch gives back what it had, in order."""
    topic = Topic("orders", clock=ManualClock())
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put_many([b"1", b"2", b"3"])
    consumer._page = page(-1, NEVER, NEVER)
    consumer._due = consumer._fresh = NEVER
    with pytest.raises(Interrupt):
        consumer.get_many(2)
    consumer._fresh = 0
    assert [(b"1", 0), (b"2", 0), (b"3", 0)] == [(i.body, i.attempts) for i in channel.peek()]
    assert 0 == consumer.in_flight_count
    topic._check()


def test_a_batch_lingers_for_a_number_of_seconds() -> None:
    """How long a batch may linger is checked and returned in nanoseconds."""
    consumer = Consumer(Topic("orders").channel("billing"), msg_timeout=2)
    assert 1_500_000_000 == consumer._patience(1.5)
    for wrong in (2, -1, True):
        with pytest.raises(InvalidOption):
            consumer._patience(wrong)


def test_a_hand_over_that_times_out_unseen_is_no_delivery() -> None:
    """What a waiting get was handed and has not claimed when it times out is as it was."""
    clock = TellingManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put(b"1", delay=90)
    call = Call(consumer.get)
    clock.until_waiting()
    clock.advance(900)
    message = call.result()
    assert (b"1", 1, 0) == (message.body, message.attempts, channel.stats().timeout_count)
    topic._check()


# What servers need


def test_take_never_waits() -> None:
    """What is ready is taken, up to the number and the window; nothing is an empty list."""
    topic: Topic[int] = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel, max_in_flight=3)
    assert [] == consumer.take(2)
    topic.put_many(range(5))
    assert [0, 1] == [message.body for message in consumer.take(2)]
    assert [2] == [message.body for message in consumer.take(9)]
    assert [] == consumer.take(1)
    other = Consumer(channel)
    channel.pause()
    assert [] == other.take(1)
    with pytest.raises(InvalidOption, match="n must be a whole number of at least 1, not 0"):
        other.take(0)
    other.close()
    with pytest.raises(Closed):
        other.take(1)
    topic._check()


def test_take_that_is_interrupted() -> None:
    """An exception thrown into a take gives back what it had, in order, attempts as before."""
    topic = Topic("orders", clock=ManualClock())
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put_many([b"1", b"2", b"3"])
    consumer._page = StruckAfter(-1, NEVER, NEVER)
    consumer._due = consumer._fresh = NEVER
    with pytest.raises(Interrupt):
        consumer.take(2)
    consumer._fresh = 0
    assert [(b"1", 0), (b"2", 0), (b"3", 0)] == [(i.body, i.attempts) for i in channel.peek()]
    topic._check()


def test_no_window_at_first() -> None:
    """A consumer with a window of 0 gets nothing until it is opened, and its error says so."""
    topic = Topic("orders")
    consumer = Consumer(topic.channel("billing"), max_in_flight=0)
    topic.put(b"1")
    assert [] == consumer.take(1)
    with pytest.raises(WindowFull) as info:
        consumer.get(timeout=0)
    assert "the window of the consumer of channel 'billing' is 0: rdy() opens it" == str(info.value)
    consumer.rdy(1)
    assert b"1" == consumer.get(timeout=0).body


def test_when_ready_is_called_once() -> None:
    """It is called when a message is ready, not under the lock, and no second time."""
    topic: Topic[int] = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    owned = []
    consumer.when_ready(lambda: owned.append(topic._lock.owned()))
    assert [] == owned
    topic.put_many([1, 2])
    assert [False] == owned
    assert 2 == len(consumer.take(9))
    topic.put(3)
    assert [False] == owned
    topic._check()


def test_when_ready_is_called_at_once() -> None:
    """Where something is ready already it is called before `when_ready` returns."""
    topic: Topic[int] = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    topic.put(1)
    told: list[str] = []
    consumer.when_ready(lambda: told.append("ready"))
    assert ["ready"] == told


def test_when_ready_takes_its_turn() -> None:
    """One of those who wait is served for each message, in gets and here, first come first."""
    clock = TellingClock()
    topic: Topic[int] = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    first, second, third = Consumer(channel), Consumer(channel), Consumer(channel)
    told: list[str] = []
    first.when_ready(lambda: told.append("first"))
    call = Call(second.get)
    clock.until_waiting()
    third.when_ready(lambda: told.append("third"))
    topic.put(1)
    assert ["first"] == told
    topic.put(2)
    assert 1 == call.result().body
    topic.put(3)
    assert ["first", "third"] == told
    assert [2] == [message.body for message in first.take(1)]
    assert [3] == [message.body for message in third.take(1)]
    topic._check()


@pytest.mark.parametrize("what", ["consumer", "channel", "topic"])
@pytest.mark.parametrize("before", [False, True])
def test_when_ready_is_told_of_the_end(what: str, *, before: bool) -> None:
    """It is called, too, when the consumer, the channel or the topic is over or ends."""
    topic: Topic[int] = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    over: Any = {"consumer": consumer, "channel": channel, "topic": topic}[what]
    told: list[str] = []
    if before:
        over.close()
    consumer.when_ready(lambda: told.append("over"))
    over.close()
    assert ["over"] == told
    topic._check()


def test_when_ready_waits_for_the_window() -> None:
    """With a full window it is called when there is room again and something to get."""
    topic: Topic[int] = Topic("orders")
    consumer = Consumer(topic.channel("billing"), max_in_flight=1)
    topic.put_many([1, 2])
    [message] = consumer.take(2)
    told: list[str] = []
    consumer.when_ready(lambda: told.append("ready"))
    assert [] == told
    message.fin()
    assert ["ready"] == told


def test_when_ready_called_off() -> None:
    """A function that was called off is not called, and the next in the queue is."""
    topic: Topic[int] = Topic("orders")
    channel = topic.channel("billing")
    first, second = Consumer(channel), Consumer(channel)
    told: list[str] = []
    call_off = first.when_ready(lambda: told.append("first"))
    second.when_ready(lambda: told.append("second"))
    call_off()
    topic.put(1)
    assert ["second"] == told
    call_off()
    topic._check()


def test_when_ready_called_off_at_the_last_moment() -> None:
    """One that is called off when its call is due, but before it, makes way for the next one."""
    topic: Topic[int] = Topic("orders")
    channel = topic.channel("billing")
    first, second = Consumer(channel), Consumer(channel)
    told: list[str] = []
    call_off = first.when_ready(lambda: told.append("first"))
    second.when_ready(lambda: told.append("second"))
    with topic._lock:
        topic.put(1)
        call_off()
    topic._monitor.settle()
    assert ["second"] == told


def test_who_was_told_may_get() -> None:
    """Who was told and takes the message by `get` does not keep the next from being told."""
    topic: Topic[int] = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    told: list[int] = []
    for number in range(3):
        consumer.when_ready(partial(told.append, number))
        topic.put(number)
        assert number == consumer.get(timeout=0).body
    assert [0, 1, 2] == told
    topic._check()


def test_who_was_told_and_cannot_take_makes_way() -> None:
    """What is not taken by who was told of it is told to the next one."""
    topic: Topic[int] = Topic("orders")
    channel = topic.channel("billing")
    first, second = Consumer(channel), Consumer(channel)
    told: list[str] = []
    first.when_ready(lambda: told.append("first"))
    second.when_ready(lambda: told.append("second"))
    topic.put(1)
    assert ["first"] == told
    first.rdy(0)
    assert ["first", "second"] == told
    assert [1] == [message.body for message in second.take(1)]
    topic._check()


def test_a_failing_callback_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """What a callback raises is logged, and hurts nobody."""
    topic: Topic[int] = Topic("orders")
    consumer = Consumer(topic.channel("billing"), name="till")

    def fail() -> None:
        raise ZeroDivisionError

    consumer.when_ready(fail)
    topic.put(1)
    assert [f"{fail!r} failed, which {consumer!r} was to call"] == caplog.messages
    assert [1] == [message.body for message in consumer.take(1)]


def test_when_ready_takes_a_function() -> None:
    """What cannot be called is refused."""
    consumer: Any = Consumer(Topic("orders").channel("billing"))
    with pytest.raises(InvalidOption, match="callback must be a function without arguments, not 3"):
        consumer.when_ready(3)


# What it shows


def test_repr() -> None:
    """A consumer shows its number and name, its channel, what it holds and its window."""
    topic: Topic[int] = Topic("orders")
    channel = topic.channel("billing")
    plain, named = Consumer(channel), Consumer(channel, name="till", max_in_flight=2)
    topic.put(1)
    assert 1 == len(named.take(1))
    where = "of channel 'billing' of topic 'orders'"
    assert f"<Consumer {plain.client_id} {where} in_flight=0>" == repr(plain)
    assert f"<Consumer {named.client_id} 'till' {where} in_flight=1/2>" == repr(named)
    channel.close()
    assert f"<Consumer {plain.client_id} {where} closed>" == repr(plain)


def test_empty_says_why() -> None:
    """The error of a get that found nothing says what the channel has instead."""
    clock = ManualClock()
    topic: Topic[int] = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer, other = Consumer(channel), Consumer(channel)

    def why() -> str:
        with pytest.raises(Empty) as info:
            consumer.get(timeout=0)
        end = f": {info.value.why}" if info.value.why else ""
        assert f"no message came on channel 'billing' in time{end}" == str(info.value)
        return info.value.why

    reasons = [why()]
    topic.put(1)
    topic.put(2, delay=2.5)
    topic.put(3, delay=5)
    assert 1 == len(other.take(1))
    reasons.append(why())
    channel.pause()
    reasons.append(why())
    assert [
        "",
        "1 in flight, 2 deferred, the next due in 2.5 s",
        "it is paused",
    ] == reasons


def test_an_answer_to_what_was_dropped() -> None:
    """A message that was in flight when its channel was emptied was dropped, as its error says."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put(b"1")
    message = consumer.get()
    channel.empty()
    with pytest.raises(NotInFlight) as info:
        message.fin()
    assert ("dropped", f"message {message.id}: ID not in flight (dropped)") == (
        info.value.reason,
        str(info.value),
    )


# Answers by id


def test_messages_are_finished_by_id() -> None:
    """What is in flight is finished; the ids that are not are returned, in their order."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumer, other = Consumer(channel), Consumer(channel)
    topic.put_many([1, 2, 3, 4])
    first, second, third = (message.id for message in consumer.take(3))
    [foreign] = other.take(1)
    assert [] == consumer.fin_ids([second])
    assert ["none", second, foreign.id, first] == consumer.fin_ids(
        ["none", second, first, foreign.id, first]
    )
    assert State.IN_FLIGHT == foreign.state
    assert [third] == [message.id for message in channel.in_flight() if message.body == 3]
    assert [] == consumer.fin_ids([third])
    topic._check()


def test_messages_are_requeued_and_touched_by_id() -> None:
    """Requeues and touches by id are as those by message."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel, msg_timeout=10)
    topic.put_many([1, 2, 3])
    first, second, third = (message.id for message in consumer.take(3))
    clock.advance(6)
    assert ["none"] == consumer.touch_ids([third, "none"])
    assert [] == consumer.req_ids([first])
    assert [] == consumer.req_ids([second], delay=60)
    clock.advance(6)
    assert [third] == [info.id for info in channel.in_flight()]
    assert [] == consumer.fin_ids([third])
    assert ([1], [2]) == (
        [info.body for info in channel.peek()],
        [info.body for info in channel.deferred()],
    )
    with pytest.raises(InvalidOption):
        consumer.req_ids([first], delay=-1)


def test_what_timed_out_is_not_answered_by_id() -> None:
    """An id is looked for anew where it was delivered again, and is unknown where it timed out."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"))
    topic.put_many([1, 2])
    ids = [message.id for message in consumer.take(2)]
    assert [] == consumer.touch_ids(ids[:1])
    clock.advance(60)
    assert ids == consumer.fin_ids(ids)
    consumer.take(2)
    assert [] == consumer.fin_ids(ids)
    topic._check()


@pytest.mark.parametrize("wrong", ["18a9d4ba5cc00000", b"x", 5])
def test_several_ids_are_several(wrong: Any) -> None:
    """One id instead of several is refused."""
    consumer = Consumer(Topic("orders").channel("billing"))
    with pytest.raises(InvalidMessage, match="expected several ids, not "):
        consumer.fin_ids(wrong)


# What is struck after the lock


class StruckOnce:
    """A stand-in for a monitor's `settle`: a signal strikes its first call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        settle = Monitor.settle

        def struck(monitor: Monitor) -> None:
            self.count += 1
            if self.count == 1:
                raise Interrupt
            settle(monitor)

        monkeypatch.setattr(Monitor, "settle", struck)


@pytest.mark.parametrize("call", ["put", "get", "fin", "stats"])
def test_what_is_due_after_the_lock_is_done_though_a_signal_strikes(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """An exception thrown into what follows the lock goes on when that is done."""
    topic = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    topic.put(b"1")
    topic.put(b"2")
    message = consumer.get()
    told: list[str] = []
    topic.observe(lambda event: told.append(event.kind))
    calls: dict[str, Any] = {
        "put": lambda: topic.put(b"3"),
        "get": consumer.get,
        "fin": message.fin,
        "stats": lambda: topic._monitor.run(topic._monitor.put_off, lambda: told.append("made")),
    }
    struck = StruckOnce(monkeypatch)
    with pytest.raises(Interrupt):
        calls[call]()
    assert 2 <= struck.count
    expected = {
        "put": ["published"],
        "get": ["delivered", "returned"],  # it never reached its caller
        "fin": ["finished"],
        "stats": ["made"],
    }
    assert expected[call] == told


def test_a_struck_fin_of_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that strikes while a latency is noted finds the message finished."""
    topic = Topic("orders", e2e_processing_latency_percentiles=(0.5,))
    consumer = Consumer(topic.channel("billing"))
    topic.put(b"1")
    message = consumer.get()

    measure = Queue.measure

    def struck(_queue: Queue[Any], _message: Message[Any]) -> None:
        monkeypatch.setattr(Queue, "measure", measure)
        raise Interrupt

    monkeypatch.setattr(Queue, "measure", struck)
    with pytest.raises(Interrupt):
        message.fin()
    assert State.FINISHED == message.state
    assert 1 == topic.stats().channels[0].e2e_processing_latency.count
    topic._check()


def test_a_batch_is_measured() -> None:
    """Latencies of a batch are counted, each."""
    topic = Topic("orders", e2e_processing_latency_percentiles=(0.5,))
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put_many([1, 2, 3])
    consumer.fin_many(consumer.get_many(3))
    assert 3 == channel.stats().e2e_processing_latency.count


def test_a_get_in_the_middle_of_an_operation() -> None:
    """A get inside an operation of its own thread is refused."""
    topic = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    with pytest.raises(Reentered):
        topic._monitor.run(lambda: consumer.get(timeout=0))
    topic._check()


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("get", lambda consumer, _: consumer.get(timeout=0)),
        ("get_many", lambda consumer, _: consumer.get_many(2, timeout=0)),
        ("take", lambda consumer, _: consumer.take(2)),
        ("fin_ids", lambda consumer, _: consumer.fin_ids(["0123456789abcdef"])),
        ("req_ids", lambda consumer, _: consumer.req_ids(["0123456789abcdef"])),
        ("touch_ids", lambda consumer, _: consumer.touch_ids(["0123456789abcdef"])),
        ("move", lambda consumer, topic: consumer.move(consumer.held, topic)),
        ("Consumer", lambda consumer, _: Consumer(consumer.channel)),
        ("channel", lambda _, topic: topic.channel("audit")),
        ("join", lambda _, topic: topic.join(timeout=0)),
        ("join", lambda consumer, _: consumer.channel.join(timeout=0)),
        ("idle", lambda _, topic: topic.idle),
        ("stats", lambda _, topic: topic.stats()),
        ("stats", lambda consumer, _: consumer.channel.stats()),
        ("peek", lambda consumer, _: consumer.channel.peek()),
        ("in_flight", lambda consumer, _: consumer.channel.in_flight()),
        ("deferred", lambda consumer, _: consumer.channel.deferred()),
    ],
)
def test_a_call_that_is_refused_in_the_middle_of_an_operation(
    name: str, call: Callable[[Holding, Topic[bytes]], object]
) -> None:
    """A call that cannot be put off is refused in its own name, and changes nothing."""
    topic: Topic[bytes] = Topic("orders")
    topic.put(b"1")
    consumer = Holding(topic.channel("billing"))
    topic.put_many([b"2", b"3"])
    with pytest.raises(Reentered) as info:
        topic._monitor.run(lambda: call(consumer, topic))
    assert name == info.value.call
    channel = consumer.channel
    assert (2, 1, ["billing"]) == (channel.depth, channel.in_flight_count, list(topic.channels))
    topic._check()


def test_a_take_makes_room_for_a_put_that_waits() -> None:
    """A put that waits for room goes on when a batch was taken."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing", max_depth=1)
    consumer = Consumer(channel)
    topic.put(b"1")
    call = Call(lambda: topic.put(b"2"))
    clock.until_waiting()
    assert [b"1"] == [message.body for message in consumer.take(5)]
    assert isinstance(call.result(), str)
    assert [b"2"] == [info.body for info in channel.peek()]


# What was found by others


def test_a_close_after_the_claim_of_a_waiting_get() -> None:
    """A get that has claimed what it was handed is over, and its consumer can be closed."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    waiter = consumer._waiter()
    topic._monitor.run(channel._receive, consumer, Message(), waiter)
    topic.put(b"1")
    message = channel._queue.waiters.claim(waiter)
    consumer._put_by(waiter)
    assert message is not None
    consumer.close()
    assert (State.RETURNED, [1]) == (message.state, [info.attempts for info in channel.peek()])
    assert 0 == channel.stats().client_count
    topic._check()


@pytest.mark.parametrize("how", ["observer", "signal"])
def test_what_strikes_after_the_lock_gives_the_message_back(how: str) -> None:
    """A get broken off while others are told of its delivery leaves the message where it was."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put(b"1")

    def strike(_event: object) -> None:
        if how == "observer":
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    stop = topic.observe(strike, kinds=["delivered"])
    with pytest.raises(KeyboardInterrupt):
        consumer.get()
    stop()
    assert [0] == [info.attempts for info in channel.peek()]
    assert 1 == consumer.get(timeout=0).attempts
    topic._check()


def test_a_get_has_taken_what_it_was_told_of() -> None:
    """Who was told of a message and gets it by `get` leaves the next one to those who wait."""
    topic = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    told: list[int] = []
    consumer.when_ready(partial(told.append, 1))
    topic.put(b"1")
    consumer.get(timeout=0).fin()
    topic.put(b"2")
    consumer.when_ready(partial(told.append, 2))
    assert [1, 2] == told


def test_who_fails_when_told_leaves_it_to_the_next(caplog: pytest.LogCaptureFixture) -> None:
    """A function that raises when it is called has not taken anything."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    failing, other = Consumer(channel), Consumer(channel)
    told: list[int] = []

    def fail() -> None:
        raise ValueError

    failing.when_ready(fail)
    other.when_ready(partial(told.append, 1))
    topic.put(b"1")
    assert [1] == told
    assert 1 == len(caplog.records)
    topic._check()


def test_a_consumer_that_was_told_may_be_forgotten() -> None:
    """What a consumer was told of that is gone is told to the next; to be told keeps nobody."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    told: list[int] = []
    consumer = Consumer(channel)
    consumer.when_ready(partial(told.append, 1))
    topic.put(b"1")
    other = Consumer(channel)
    other.when_ready(partial(told.append, 2))
    gone = weakref.ref(consumer)
    del consumer
    assert gone() is None
    assert 1 == channel.depth  # whoever looks next learns that it is gone
    assert [1, 2] == told


def test_a_wait_for_a_full_window_is_told_once() -> None:
    """However often a get looks whether it can have something, its full window is told of once."""
    clock = TellingManualClock()
    topic = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"), max_in_flight=0)
    recorder = Recorder()
    topic.observe(recorder, kinds=["window full"])
    for delay in (1, 2, 3):
        topic.put(b"x", delay=delay)
    call = Call(partial(consumer.get, timeout=9))
    for _ in range(4):
        clock.until_waiting()
        clock.advance(1)
    clock.advance(9)
    assert isinstance(call.result(), WindowFull)
    assert ["window full"] == [event.kind for event in recorder.events]


def test_an_error_of_a_handler_in_a_fin_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A KeyError that a signal handler throws once the message is gone is not taken for another."""
    topic = Topic("orders", e2e_processing_latency_percentiles=(0.5,))
    consumer = Consumer(topic.channel("billing"))
    topic.put(b"1")
    message = consumer.get()

    def fail(*_: object) -> None:
        raise KeyError("of a handler")

    monkeypatch.setattr(Latency, "insert", fail)
    with pytest.raises(KeyError, match="of a handler"):
        message.fin()
    assert State.FINISHED is message.state


def test_many_are_requeued_by_id_though_their_time_passes_meanwhile() -> None:
    """A clock that goes on while ids are answered makes none of them stale."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"), msg_timeout=1)
    topic.put_many(range(50))
    ids = [message.id for message in consumer.take(50)]
    clock._elapsed = SECOND - 10
    looks = iter(range(clock._elapsed, 2 * SECOND, 1))
    queue: Any = consumer._queue
    queue._now = lambda: next(looks)  # a clock that never stands
    assert [] == consumer.req_ids(ids)
    assert 50 == consumer.channel.stats().requeue_count


def test_a_touch_by_id_named_twice_is_one() -> None:
    """An id that is named twice is not in flight twice, and touched all the same."""
    topic = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    topic.put(b"1")
    name = consumer.get().id
    assert [] == consumer.touch_ids([name, name])
    assert [name] == consumer.fin_ids([name, name])


def test_unknown_ids_cost_nothing() -> None:
    """To answer what is not there does not go through what is in flight."""
    topic = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    topic.put_many(range(1000))
    held = consumer.take(1000)
    assert ["unknown"] == consumer.fin_ids(["unknown"])
    known = consumer._by_id
    assert ["unknown"] == consumer.fin_ids(["unknown"])
    assert known is consumer._by_id
    assert [] == consumer.fin_ids([message.id for message in held])


def test_what_is_known_by_id_does_not_pile_up() -> None:
    """What is answered otherwise is forgotten after a while, its body with it."""
    topic = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    consumer.fin_ids([])
    for number in range(1000):
        topic.put(number)
        consumer.get().fin()
    assert consumer._by_id is not None
    assert len(consumer._by_id) < 100
    topic.put("last")
    assert [] == consumer.fin_ids([consumer.get().id])


@pytest.mark.parametrize("ids", [[b"0123"], [None], [[]]])
def test_ids_are_texts(ids: Any) -> None:
    """What is no id is refused, and nothing is answered."""
    topic = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    topic.put(b"1")
    message = consumer.get()
    for answer in (consumer.fin_ids, consumer.req_ids, consumer.touch_ids):
        with pytest.raises(InvalidMessage, match="hex characters"):
            answer([message.id, *ids])
    assert State.IN_FLIGHT is message.state


class Closing:
    """A body whose destructor wants to know whether the topic's lock is held."""

    def __init__(self, topic: Topic[Any], held: list[bool]) -> None:
        self._lock = topic._monitor.lock
        self._held = held

    def __del__(self) -> None:
        self._held.append(self._lock.owned())


@pytest.mark.parametrize("how", ["by id", "after its page was opened"])
def test_bodies_are_forgotten_after_the_lock(how: str) -> None:
    """No destructor of a body runs while the lock is held."""
    clock = ManualClock()
    topic: Topic[Any] = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"), msg_timeout=10)
    held: list[bool] = []
    if how == "by id":
        topic.put(Closing(topic, held))
        consumer.fin_ids([consumer.get().id])
    else:
        clock.advance(1 - clock._elapsed % SECOND / SECOND)
        topic.put(b"first")
        first = consumer.get()
        clock.advance(0.5)
        topic.put(Closing(topic, held))
        message = consumer.get()
        clock.advance(9.6)  # the first times out, so their page is opened
        assert State.TIMED_OUT is first.state
        message.fin()
        del message
        clock.advance(0.5)
    assert [False] == held


def test_closing_one_that_holds_much_takes_time_in_proportion() -> None:
    """Each message is given back at the head in one step, however many there are."""
    topic: Topic[Any] = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put_many(range(20_000))
    held = consumer.take(20_000)
    insertions: list[int] = []

    class Returned(list[Any]):
        def insert(self, place: Any, one: Any) -> None:
            insertions.append(len(self) - place)
            super().insert(place, one)

    queue: Any = channel._queue
    queue.returned = Returned()
    consumer.close()
    assert {0} == set(insertions)
    assert [message.body for message in held[:10]] == [info.body for info in channel.peek(10)]


@pytest.mark.parametrize("then", ["when ready", "get"])
def test_who_was_told_and_gets_in_vain_is_told_no_more(then: str) -> None:
    """What somebody else has taken from one that was told is not kept for it any longer."""
    clock = TellingClock()
    topic: Topic[int] = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    first, second, other = (Consumer(channel) for _ in range(3))
    told: list[int] = []
    first.when_ready(partial(told.append, 1))
    topic.put(1)
    other.get(timeout=0).fin()
    if then == "get":
        call = Call(partial(first.get, timeout=PATIENCE))
        clock.until_waiting()
    else:
        with pytest.raises(Empty):
            first.get(timeout=0)
        second.when_ready(partial(told.append, 2))
    topic.put(2)
    if then == "get":
        assert 2 == call.result().body
    else:
        assert [1, 2] == told
    topic._check()


def test_a_consumer_that_retires_leaves_what_it_was_told_of() -> None:
    """What a consumer was told of and has not taken when it is closed is told to the next."""
    topic: Topic[int] = Topic("orders")
    channel = topic.channel("billing")
    first, second = Consumer(channel), Consumer(channel)
    told: list[int] = []
    first.when_ready(partial(told.append, 1))
    second.when_ready(partial(told.append, 2))
    topic.put(1)
    assert [1] == told
    first.close()
    assert [1, 2] == told
    topic._check()


def test_time_that_a_handler_lets_pass_in_a_get(monkeypatch: pytest.MonkeyPatch) -> None:
    """A get whose page has been closed since it looked at the clock files its message elsewhere."""
    clock = ManualClock()
    topic: Topic[int] = Topic("orders", clock=clock, resolution=0.01)
    channel = topic.channel("billing")
    consumer = Consumer(channel, msg_timeout=0.05)
    topic.put_many([1, 2])
    first = consumer.get()
    now = consumer._now

    def look() -> int:
        moment = now()
        monkeypatch.setattr(consumer, "_now", now)
        clock.advance(5)  # as a handler that comes in when the clock has been read
        assert 2 == channel.depth
        return moment

    monkeypatch.setattr(consumer, "_now", look)
    message = consumer.get()
    assert State.TIMED_OUT is first.state
    assert 1 == channel.in_flight_count
    clock.advance(5)
    assert State.TIMED_OUT is message.state
    topic._check()


class Leaving:
    """A lock in which something comes in once, just before it is released, as a destructor may."""

    def __init__(self, lock: Lock, act: Callable[[], object]) -> None:
        self._lock = lock
        self._acts = [act]

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(self, *error: object) -> None:
        if self._acts:
            self._acts.pop()()
        self._lock.__exit__(*error)


@pytest.mark.parametrize("call", ["put", "get", "fin", "get nothing", "get many, nothing"])
def test_what_comes_in_as_the_lock_is_released_is_seen_to(call: str) -> None:
    """Whoever is told by a call that comes into another one's last moment is told after that."""
    topic: Topic[Any] = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    if "nothing" not in call:
        topic.put("first")
    message = consumer.get() if call == "fin" else None
    told: list[str] = []
    waiting = [Consumer(topic.channel("waiting")) for _ in range(1 + (call == "put"))]
    for one in waiting:
        one.when_ready(partial(told.append, "told"))
    anyone: Any = topic if call == "put" else consumer
    anyone._lock = Leaving(topic._lock, lambda: topic.put("nested"))
    calls: dict[str, Callable[[], object]] = {
        "put": lambda: topic.put("second"),
        "get": consumer.get,
        "fin": lambda: None if message is None else message.fin(),
        "get nothing": lambda: consumer.get(timeout=0),
        "get many, nothing": lambda: consumer.get_many(2, timeout=0),
    }
    with suppress(Empty):
        calls[call]()
    assert ["told" for _ in waiting] == told
    topic._check()


def test_a_fin_inside_of_a_fin_that_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are told, though a handler finishes a message while another one is noted as finished."""
    topic: Topic[Any] = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    recorder = Recorder()
    topic.observe(recorder, kinds=["finished"])
    topic.put_many(["outer", "nested"])
    outer, nested = consumer.get_many(2)
    queue = consumer.channel._queue
    told = queue.on_finished
    assert told is not None

    def call(messages: Sequence[Message[Any]]) -> None:
        monkeypatch.undo()
        nested.fin()  # as a handler that comes in as the function begins
        told(messages)

    monkeypatch.setattr(queue, "on_finished", call)
    outer.fin()
    assert ["nested", "outer"] == [event.body for event in recorder.events]


def test_a_fin_hides_no_error_of_a_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a handler throws when a message was finished comes out, even a KeyError."""
    topic: Topic[Any] = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    topic.put("first")
    message = consumer.get()

    def settle(_monitor: Monitor) -> None:
        monkeypatch.undo()
        raise KeyError("of a handler")

    topic._monitor.after = True
    monkeypatch.setattr(Monitor, "settle", settle)
    with pytest.raises(KeyError, match="of a handler"):
        message.fin()
    assert State.FINISHED == message.state


def test_what_comes_in_as_a_finish_and_get_ends_is_seen_to() -> None:
    """A worker's call, too, does what a destructor has left for after the lock."""
    clock = ManualClock()  # a tick that ended meanwhile would answer None
    topic: Topic[Any] = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"))
    topic.put_many(["first", "second"])
    first = consumer.get()
    told: list[str] = []
    other = Consumer(topic.channel("waiting"))
    other.when_ready(partial(told.append, "told"))
    anyone: Any = consumer
    anyone._lock = Leaving(topic._lock, lambda: topic.put("nested"))
    second = consumer._finish_and_get(first, consumer._now())
    assert second is not None
    assert ("second", ["told"]) == (second.body, told)
