"""A consumer: get, get_many, iteration, and what interrupts them."""

import math
import queue
import signal
import threading
import weakref
from typing import Any

import pytest
from helpers import PATIENCE, Call, TellingClock, TellingManualClock

from nsqlite import (
    Closed,
    Consumer,
    Empty,
    InvalidOption,
    Reentered,
    State,
    Topic,
    WindowFull,
)
from nsqlite.clock import Bell
from nsqlite.testing import ManualClock
from nsqlite.waiter import Waiter


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
        {"max_in_flight": 0},
        {"max_in_flight": True},
        {"max_in_flight": 1.5},
        {"msg_timeout": 0},
        {"msg_timeout": 900.1},
        {"msg_timeout": math.inf},
        {"requeue_delay": -1},
        {"requeue_delay": 3601},
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
    assert (
        repr(consumer) == f"<Consumer {consumer.client_id} of channel 'billing' of topic 'orders'>"
    )


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

        def wait(self, bell: Bell, timeout: int | None, who: str) -> bool:  # noqa: ARG002 - Clock's
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
    assert not topic._guard.joiners


def test_a_hand_over_that_never_arrived_is_no_delivery() -> None:
    """A message handed to a wait that is abandoned goes to the next one, attempts as before."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    gone, other = Consumer(channel), Consumer(channel)
    waiter: Waiter[Any] = Waiter(gone)
    topic._guard.run(channel._receive, gone, waiter)
    call = Call(other.get)
    clock.until_waiting()
    topic.put(b"1")
    assert waiter.message is not None
    stale = waiter.message
    topic._guard.run(channel._abandon, waiter)
    assert 1 == call.result().attempts
    assert State.RETURNED is stale.state
    topic._check()


def test_a_last_moment_hand_over_counts() -> None:
    """A wait whose time is over returns what it was handed in that moment."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    waiter: Waiter[Any] = Waiter(consumer)
    topic._guard.run(channel._receive, consumer, waiter)
    topic.put(b"1")
    assert waiter.message is topic._guard.run(channel._receive, consumer, waiter)
    assert waiter.message is topic._guard.run(channel._give_up, waiter)
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
    assert [None] == [waiter.message for waiter in consumer._spare]
    gone = weakref.ref(consumer)
    topic.channel("billing").empty()
    del consumer
    assert gone() is None


def test_get_does_not_wait_where_the_lock_is_held() -> None:
    """A get that would sleep inside another call of its thread is refused."""
    topic = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    with topic._guard.lock, pytest.raises(Reentered, match="get"):
        consumer.get(timeout=1)
    topic._check()


def test_what_never_reached_its_caller_was_not_delivered() -> None:
    """A hand-over to a wait that was given up counts neither as attempt nor as delivery."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    waiter: Waiter[Any] = Waiter(consumer)
    topic._guard.run(channel._receive, consumer, waiter)
    topic.put(b"1")
    topic._guard.run(channel._abandon, waiter)
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
    waiter: Waiter[Any] = Waiter(consumer)
    consumer.waiters[waiter] = None
    topic._guard.run(channel._receive, consumer, waiter)
    topic.put(b"1")
    assert waiter.message is not None
    if how == "close":
        consumer.close()
        assert [0] == [info.attempts for info in channel.peek()]
        with pytest.raises(Closed):
            topic._guard.run(channel._receive, consumer, waiter)
    else:
        channel.pause()
        clock.advance(60)
        assert topic._guard.run(channel._give_up, waiter) is None
        assert topic._guard.run(channel._receive, consumer, waiter) is None
        assert [1] == [info.attempts for info in channel.peek()]
    assert waiter.message is None


def test_a_get_that_races_with_close_gets_nothing() -> None:
    """A get that waits for the lock while its consumer is closed raises Closed."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put_many([b"1", b"2"])
    consumer.get().req()  # opens the gate
    begun = threading.Event()

    def get() -> Any:
        begun.set()
        return consumer.get(timeout=0)

    with topic._guard.lock:
        call = Call(get)
        assert begun.wait(PATIENCE)
        consumer.close()
    assert isinstance(call.result(), Closed)
    assert (2, 0) == (channel.depth, channel.in_flight_count)


def test_finish_and_get_in_one_go() -> None:
    """A worker's thread finishes one message and gets the next, if both go the short way."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel, max_in_flight=1)
    topic.put_many([b"1", b"2", b"3"])
    first = consumer.get()
    second = consumer._finish_and_get(first)
    assert second is not None
    assert (State.FINISHED, b"2", 1) == (first.state, second.body, consumer.in_flight_count)
    assert consumer._finish_and_get(first) is None
    clock.advance(30)
    topic.put(b"4")
    consumer.rdy(2)
    third = consumer.get()  # in a later tick, which is now the gate's
    assert consumer._finish_and_get(second) is not None
    assert 1 == sum(1 for _ in channel._flow.timeouts.ticks())
    channel.empty()
    assert consumer._finish_and_get(third) is None
    topic._check()
