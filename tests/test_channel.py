"""A channel: its consumers, looking inside, steering, its end."""

import dis
import gc
import logging
from datetime import timedelta
from typing import Any

import pytest
from helpers import Call, TellingClock, TellingManualClock

import nsqlite
from nsqlite import (
    Broker,
    Channel,
    Closed,
    Consumer,
    Empty,
    InvalidMessage,
    InvalidOption,
    Kind,
    NotInFlight,
    Seconds,
    Topic,
)
from nsqlite.monitor import Monitor
from nsqlite.queue import Queue
from nsqlite.testing import ManualClock
from nsqlite.timeline import Recorder


def test_counts_and_stats() -> None:
    """The counters say what nsqd's say."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock, msg_timeout=10)
    channel = topic.channel("billing")
    consumer = Consumer(channel, max_in_flight=7)
    topic.put_many([b"1", b"2", b"3", b"4", b"5"])
    topic.put(b"6", delay=100)
    first, second, _third = (consumer.get(timeout=0) for _ in range(3))
    first.fin()
    second.req(delay=50)
    clock.advance(10)
    stats = channel.stats()
    assert (3, 0, 2) == (stats.depth, stats.in_flight_count, stats.deferred_count)
    assert (6, 1, 1) == (stats.message_count, stats.requeue_count, stats.timeout_count)
    assert (3, 0, 2) == (channel.depth, channel.in_flight_count, channel.deferred_count)
    client = stats.clients[0]
    assert (7, 0, 3) == (client.ready_count, client.in_flight_count, client.message_count)
    assert (1, 1) == (client.finish_count, client.requeue_count)
    assert 1_700_000_000 == client.connect_ts
    topic._check()


def test_looking_inside() -> None:
    """The snapshots show what is next, with age, holder and due, and no more than asked for."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    ids = topic.put_many([b"1", b"2", b"3"])
    later = topic.put(b"4", delay=9)
    consumer.get(timeout=0)
    clock.advance(2)
    ready = channel.peek(1)
    assert [(ids[1], b"2", 0, 2.0, None, None)] == [
        (m.id, m.body, m.attempts, m.age, m.client_id, m.due_in) for m in ready
    ]
    held = channel.in_flight()
    assert [(ids[0], 1, consumer.client_id, 58.0)] == [
        (m.id, m.attempts, m.client_id, m.due_in) for m in held
    ]
    assert [(later, 0, 7.0)] == [(m.id, m.attempts, m.due_in) for m in channel.deferred()]
    assert [] == channel.peek(0) == channel.in_flight(0) == channel.deferred(0)
    with pytest.raises(InvalidOption) as info:
        channel.peek(-1)
    assert "n must be a whole number of at least 0, not -1" == str(info.value)


@pytest.mark.parametrize("count", ["depth", "in_flight_count", "deferred_count"])
def test_what_a_count_finds_due_is_told(count: str) -> None:
    """Whoever looks lets time take effect, and the observers hear of it at once."""
    clock = ManualClock()
    recorder = Recorder()
    topic = Topic("orders", clock=clock, observers=[recorder])
    channel = topic.channel("billing")
    topic.put(b"1", delay=1)
    clock._elapsed = 1_000_000_000  # time has passed, and nobody has looked
    getattr(channel, count)
    assert Kind.DUE is recorder.events[-1].kind


def test_pause_delivers_nothing() -> None:
    """A paused channel takes messages, times out and requeues, and delivers nothing."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put_many([b"1", b"2"])
    message = consumer.get(timeout=0)
    channel.pause()
    channel.pause()
    assert channel.paused
    assert "<Channel orders:billing paused depth=1 in_flight=1 deferred=0>" == repr(channel)
    with pytest.raises(Empty):
        consumer.get(timeout=0)
    with pytest.raises(Empty):
        consumer.get_many(5, timeout=0)
    topic.put(b"3")
    message.req()
    assert 3 == channel.depth
    channel.unpause()
    channel.unpause()
    assert [b"2", b"3", b"1"] == [m.body for m in consumer.get_many(5, timeout=0)]
    clock.advance(30)
    channel.pause()
    clock.advance(30)
    assert 3 == channel.depth
    assert "<Channel orders:billing paused depth=3 in_flight=0 deferred=0>" == repr(channel)


def test_fin_while_paused() -> None:
    """Answers are taken while the channel is paused."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put(b"1")
    message = consumer.get(timeout=0)
    channel.pause()
    message.touch()
    message.fin()
    assert 0 == channel.in_flight_count


def test_empty_drops_everything() -> None:
    """Empty drops ready, in flight and deferred, and opens the windows; counters stay."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel, max_in_flight=1)
    topic.put_many([b"1", b"2"])
    topic.put(b"3", delay=5)
    message = consumer.get(timeout=0)
    assert 3 == channel.empty()
    assert (0, 0, 0) == (channel.depth, channel.in_flight_count, channel.deferred_count)
    with pytest.raises(NotInFlight) as info:
        message.fin()
    assert f"message {message.id}: ID not in flight (dropped)" == str(info.value)
    assert 3 == channel.stats().message_count
    topic.put(b"4")
    assert b"4" == consumer.get(timeout=0).body
    topic._check()


def test_join() -> None:
    """Join waits until nothing is ready, in flight or deferred."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    assert channel.join()
    consumer = Consumer(channel)
    topic.put(b"1")
    assert not channel.join(timeout=0)
    assert not channel.join(timeout=0.001)
    clock.until_waiting()
    call = Call(channel.join)
    clock.until_waiting()
    message = consumer.get(timeout=0)
    message.req()
    consumer.get(timeout=0).fin()
    assert call.result()
    with pytest.raises(InvalidOption):
        channel.join(timeout=-1)


def test_latency_percentiles() -> None:
    """Configured percentiles are measured from put to fin."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock, e2e_processing_latency_percentiles=(0.5, 1.0))
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    for seconds in (1, 2, 3):
        topic.put(b"x")
        clock.advance(seconds)
        consumer.get(timeout=0).fin()
    for latency in (
        channel.stats().e2e_processing_latency,
        topic.stats().e2e_processing_latency,
    ):
        assert 3 == latency.count
        assert latency.percentiles is not None
        (high, slowest), (half, median) = latency.percentiles
        assert (1.0, 0.5) == (high, half)
        assert slowest == pytest.approx(3e9, rel=0.01)
        assert median == pytest.approx(2e9, rel=0.01)


def test_watcher_wakes_for_the_channel() -> None:
    """A blocked get is woken when a deferred message is due, on the system's clock."""
    topic = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    topic.put(b"1", delay=0.02)
    assert b"1" == consumer.get(timeout=20).body


def test_an_earlier_deadline_pokes_the_watcher() -> None:
    """A getter that sleeps to a far deadline is woken for a nearer one."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"))
    topic.put(b"far", delay=1000)
    call = Call(consumer.get)
    clock.until_waiting()
    topic.put(b"near", delay=0.01)
    assert b"near" == call.result().body


def test_a_watcher_that_leaves_appoints_another() -> None:
    """When the watcher is served, another of those who wait wakes for the next deadline."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    calls = [Call(Consumer(channel).get) for _ in range(3)]
    for _ in calls:
        clock.until_waiting()
    for n in (1, 2, 3):
        topic.put(n, delay=n / 100)
    assert {1, 2, 3} == {call.result().body for call in calls}
    topic._check()


def test_few_wake_ups() -> None:
    """Of many that wait one wakes for a deadline, not all."""
    clock = TellingManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    channel.pause()
    for n in range(10):
        topic.put(b"x", delay=n + 1)
    calls = [Call(Consumer(channel).get) for _ in range(20)]
    for _ in calls:
        clock.until_waiting()
    for n in range(10):
        clock.advance(1)
        clock.until_waiting()
        assert n + 1 == channel.depth
    channel.close()
    for call in calls:
        assert isinstance(call.result(), Closed)
    assert not clock.waits()


def test_options_of_a_channel() -> None:
    """A channel takes its topic's options and its own."""
    with Broker(msg_timeout=30) as broker:
        topic = broker.topic("orders", max_msg_timeout=40)
        channel = topic.channel("billing", msg_timeout=35)
        assert (35, 40) == (channel.options.msg_timeout, channel.options.max_msg_timeout)
        assert (30, 40) == (topic.options.msg_timeout, topic.options.max_msg_timeout)


def test_resolution() -> None:
    """A coarser resolution makes late by at most one tick, never early."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock, resolution=0.5)
    channel = topic.channel("billing")
    clock.advance(0.1)
    topic.put(b"1", delay=0.5)
    clock.advance(0.899_999_999)
    assert 0 == channel.depth
    clock.advance(0.000_000_001)
    assert 1 == channel.depth


def test_timeouts_before_deferrals_of_the_same_moment() -> None:
    """What falls due together comes out time-outs first, each kind in the order it went in."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock, msg_timeout=5)
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put_many(["d1", "d2"], delay=5)
    topic.put_many(["t1", "t2"])
    consumer.get_many(2, timeout=0)
    clock.advance(5)
    assert ["t1", "t2", "d1", "d2"] == [m.body for m in consumer.get_many(9, timeout=0)]


def test_logger_has_no_handler() -> None:
    """The library logs to "nsqlite" and installs no handler."""
    assert [] == logging.getLogger("nsqlite").handlers


def test_one_channel_may_wait_while_another_runs() -> None:
    """A getter that waits on one channel does not keep the other from its messages."""
    clock = TellingClock()
    topic: Topic[Any] = Topic("orders", clock=clock)
    idle, busy = topic.channel("idle"), topic.channel("busy")
    idle.pause()
    call = Call(Consumer(idle).get)
    clock.until_waiting()
    consumer = Consumer(busy)
    for n in range(10):
        topic.put(n)
        with consumer.get(timeout=0) as message:
            assert n == message.body
    idle.unpause()
    assert 0 == call.result().body
    topic._check()


def test_one_may_look_at_any_number() -> None:
    """A number beyond all messages shows them all."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    topic.put(b"1")
    topic.put(b"2", delay=1)
    assert [b"1"] == [info.body for info in channel.peek(2**70)]
    assert [b"2"] == [info.body for info in channel.deferred(2**70)]
    assert [] == channel.in_flight(2**70)


# One message, by its id


def test_a_message_is_found_wherever_it_is() -> None:
    """By its id one learns where it is, how often it was delivered, and when it is due."""
    clock = ManualClock()
    topic: Topic[bytes] = Topic("orders", clock=clock)
    held = topic.put(b"0")
    assert {"": "ready"} == {name: info.state for name, info in topic.find(held).items()}
    channel, other = topic.channel("billing"), topic.channel("audit")
    consumer = Consumer(channel)
    ready, deferred = topic.put(b"1"), topic.put(b"2", delay=9)
    consumer.get(timeout=0)
    found = [channel.find(one) for one in (held, ready, deferred)]
    assert [("in flight", 1, 60, consumer.client_id), ("ready", 0, None, None)] == [
        (info.state, info.attempts, info.due_in, info.client_id) for info in found[:2] if info
    ]
    assert found[2] is not None
    assert ("deferred", b"2", 9) == (found[2].state, found[2].body, found[2].due_in)
    assert found[2] == channel.deferred()[0]
    assert {"billing": "in flight"} == {name: info.state for name, info in topic.find(held).items()}
    consumer.get(timeout=0)
    assert {"billing": "in flight", "audit": "ready"} == {
        name: info.state for name, info in topic.find(ready).items()
    }
    consumer.close()
    Consumer(other).get(timeout=0).fin()
    assert ["billing"] == list(topic.find(ready))
    clock.advance(9)
    assert "ready" == channel.peek(9)[-1].state
    assert [None, {}] == [channel.find("0123456789abcdef"), topic.find("0123456789abcdef")]


@pytest.mark.parametrize(
    "wrong", ["", "0123456789ABCDEF", "0123456789abcde", " 123456789abcdef", 5]
)
def test_what_is_no_id_is_refused(wrong: Any) -> None:
    """An id has 16 hexadecimal characters, in small letters."""
    topic: Topic[bytes] = Topic("orders")
    for call in (topic.find, topic.channel("billing").find, topic.channel("billing").discard):
        with pytest.raises(InvalidMessage, match=r"expected an id of 16 hex characters \(0-9"):
            call(wrong)


def test_a_message_can_be_taken_out() -> None:
    """What is ready or deferred is never delivered then; other channels keep theirs."""
    clock = ManualClock()
    recorder = Recorder()
    topic: Topic[bytes] = Topic("orders", clock=clock, observers=[recorder])
    channel, other = topic.channel("billing"), topic.channel("audit")
    ids = topic.put_many([b"%d" % number for number in range(6)])
    delayed = [topic.put(b"%d" % number, delay=number) for number in range(6, 9)]
    consumer = Consumer(channel)
    first = consumer.get(timeout=0)
    second = consumer.get(timeout=0)
    consumer.close()  # both are at the head again
    assert [True, True, True] == [channel.discard(one) for one in (ids[1], ids[4], delayed[1])]
    assert [False, False] == [channel.discard(one) for one in (ids[1], "0123456789abcdef")]
    topic._check()
    assert [("discarded", ids[1], 1), ("discarded", ids[4], 0), ("discarded", delayed[1], 0)] == [
        (event.kind, event.id, event.attempts)
        for event in recorder.events
        if event.kind is Kind.DISCARDED
    ]
    clock.advance(100)
    again = Consumer(channel)
    held = again.get(timeout=0)
    assert not channel.discard(held.id)
    held.fin()
    assert [b"2", b"3", b"5", b"6", b"8"] == [one.body for one in again.take(9)]
    assert [first.body, second.body, b"2", b"3", b"4"] == [info.body for info in other.peek(5)]
    assert 9 == other.depth
    topic._check()


def test_what_is_given_back_keeps_its_order_beside_what_was_taken_out() -> None:
    """What comes back later goes behind what came back before, though some of that has gone."""
    topic: Topic[int] = Topic("orders")
    channel = topic.channel("billing")
    ids = topic.put_many(range(6))
    consumers = [Consumer(channel) for _ in range(6)]
    for consumer in consumers:
        consumer.get(timeout=0)
    for number in (1, 3, 4):
        consumers[number].close()
    channel.discard(ids[3])
    for number in (2, 0, 5):
        consumers[number].close()
    topic._check()
    assert [0, 1, 2, 4, 5] == [info.body for info in channel.peek()]


def test_taking_out_makes_room() -> None:
    """A put that waits for room has it then, and a join or drain may be over."""
    topic: Topic[bytes] = Topic("orders")
    channel = topic.channel("billing", max_depth=1)
    first = topic.put(b"1")
    put = Call(lambda: topic.put(b"2"))
    while not topic._monitor.putters:
        pass
    assert channel.discard(first)
    second = put.result()
    assert [b"2"] == [info.body for info in channel.peek()]
    join = Call(lambda: channel.join(10))
    while not topic._monitor.joins:
        pass
    assert channel.discard(second)
    assert join.result() is True
    third = topic.put(b"3")
    channel.close(drain=True)
    assert channel.discard(third)
    assert channel.closed
    with pytest.raises(Closed):
        channel.discard(third)


def test_delete_frees_the_name() -> None:
    """Delete drops the messages and ends the consumers; the name gives a new channel."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put(b"1")
    assert 1 == channel.delete()
    assert 0 == channel.delete()
    assert channel.closed
    assert "<Channel orders:billing deleted depth=0 in_flight=0 deferred=0>" == repr(channel)
    with pytest.raises(Closed) as info:
        consumer.get(timeout=0)
    assert "channel 'billing' of topic 'orders' is deleted" == str(info.value)
    for call in (channel.pause, channel.unpause, channel.empty):
        with pytest.raises(Closed):
            call()
    with pytest.raises(Closed):
        Consumer(channel)
    again = topic.channel("billing")
    assert again is not channel
    assert 0 == again.stats().message_count
    assert 0 == channel.close()
    topic._check()


def test_close_keeps_the_name(caplog: pytest.LogCaptureFixture) -> None:
    """A closed channel gets nothing more; its topic goes on, and its name stays taken."""
    topic = Topic("orders")
    channel, other = topic.channel("billing"), topic.channel("audit")
    topic.put(b"1")
    assert 1 == channel.close()
    assert [
        "channel 'billing' of topic 'orders' was closed; messages thrown away: 1"
    ] == caplog.messages
    topic.put(b"2")
    assert channel is topic.channel("billing")
    assert (0, 2) == (channel.depth, other.depth)
    assert (1, 2) == (channel.stats().message_count, other.stats().message_count)
    channel.delete()
    assert channel is not topic.channel("billing")


def test_drain() -> None:
    """A draining channel delivers what it has, requeues and deferrals too, then closes."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put_many([b"1", b"2"])
    first = consumer.get(timeout=0)
    assert 0 == channel.close(drain=True)
    topic.put(b"3")
    assert 2 == channel.stats().message_count
    second = consumer.get(timeout=0)
    first.req(delay=1)
    second.fin()
    with pytest.raises(Empty):
        consumer.get(timeout=0)
    clock.advance(1)
    assert not channel.closed
    consumer.get(timeout=0).fin()
    assert channel.closed
    assert channel.join()
    with pytest.raises(Closed):
        consumer.get()


def test_a_paused_channel_drains() -> None:
    """A drain ends the pause, since nothing else would ever end it."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    topic.put(b"1")
    channel.pause()
    channel.close(drain=True)
    assert "<Channel orders:billing draining depth=1 in_flight=0 deferred=0>" == repr(channel)
    assert not channel.paused
    Consumer(channel).get(timeout=0).fin()
    assert channel.closed
    topic._check()


def test_repr() -> None:
    """A channel shows its name, its state and what is in it."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    topic.put_many([b"1", b"2"])
    topic.put(b"3", delay=1)
    consumer = Consumer(channel)
    message = consumer.get()
    assert "<Channel orders:billing open depth=1 in_flight=1 deferred=1>" == repr(channel)
    message.fin()
    channel.close()
    assert "<Channel orders:billing closed depth=0 in_flight=0 deferred=0>" == repr(channel)


def test_drain_of_an_idle_channel() -> None:
    """A channel with nothing in it closes at once."""
    channel = Topic("orders").channel("billing")
    channel.close(drain=True)
    assert channel.closed


def test_drain_cut_short() -> None:
    """Delete ends a drain."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    topic.put(b"1")
    channel.close(drain=True)
    assert 1 == channel.delete()


def test_drain_wakes_the_others() -> None:
    """When the last message is finished, whoever still waits gets Closed."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put(b"1")
    message = consumer.get(timeout=0)
    call = Call(Consumer(channel).get)
    clock.until_waiting()
    channel.close(drain=True)
    message.fin()
    assert isinstance(call.result(), Closed)


@pytest.mark.parametrize("end", ["close", "delete"])
def test_end_wakes_getters_and_joins(end: str) -> None:
    """Whoever waits in get or join gets Closed when the channel ends."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    topic.put(b"1")
    consumer = Consumer(channel, max_in_flight=1)
    consumer.get(timeout=0)
    calls = [Call(consumer.get), Call(Consumer(channel).get), Call(channel.join)]
    for _ in calls:
        clock.until_waiting()
    getattr(channel, end)()
    for call in calls:
        assert isinstance(call.result(), Closed)
    topic._check()


def test_max_channel_consumers() -> None:
    """One consumer too many is refused with NSQ's words; one that left makes room."""
    topic = Topic("orders", max_channel_consumers=1)
    channel = topic.channel("billing")
    first = Consumer(channel)
    with pytest.raises(nsqlite.TooManyConsumers) as info:
        Consumer(channel)
    assert "consumers for orders:billing exceeds limit of 1" == str(info.value)
    first.close()
    Consumer(channel)


def test_ephemeral_channel_goes_with_its_last_consumer(caplog: pytest.LogCaptureFixture) -> None:
    """An ephemeral channel is deleted when its last consumer leaves, and says what was lost."""
    topic = Topic("orders")
    channel = topic.channel("billing#ephemeral")
    topic.put(b"1")
    first, second = Consumer(channel), Consumer(channel)
    first.close()
    assert not channel.closed
    second.close()
    second.close()
    assert channel.closed
    assert {} == topic.channels
    title = "channel 'billing#ephemeral' of topic 'orders'"
    assert [f"{title} went with its last consumer; messages dropped: 1"] == caplog.messages


def test_ephemeral_channel_goes_with_a_forgotten_consumer() -> None:
    """A consumer that was forgotten counts as gone at the next call."""
    topic = Topic("orders")
    channel = topic.channel("billing#ephemeral")
    consumer = Consumer(channel)
    assert 1 == channel.stats().client_count
    del consumer
    gc.collect()
    topic.put(b"1")
    assert channel.closed


def test_a_forgotten_consumer_loses_nothing() -> None:
    """What a forgotten consumer held times out and comes back."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    topic.put(b"1")
    Consumer(channel).get(timeout=0)
    gc.collect()
    assert 1 == channel.in_flight_count
    clock.advance(60)
    gc.collect()
    assert (1, 0) == (channel.depth, channel.stats().client_count)


def test_a_forgotten_consumer_is_not_counted() -> None:
    """It makes room for another one at the next call, and no snapshot shows it."""
    topic = Topic("orders")
    channel = topic.channel("billing", max_channel_consumers=1)
    consumer = Consumer(channel)
    del consumer
    gc.collect()
    assert 0 == channel.stats().client_count
    consumer = Consumer(channel)
    del consumer
    gc.collect()
    consumer = Consumer(channel)
    assert [consumer.client_id] == [client.client_id for client in channel.stats().clients]


def test_a_consumer_that_goes_when_the_interpreter_ends() -> None:
    """What notes that a consumer has gone uses no module's names, which may be cleared by then."""
    lines = [
        instruction.argval
        for function in (Channel._gone, Monitor.put_off)
        for instruction in dis.get_instructions(function)
        if instruction.opname == "LOAD_GLOBAL"
    ]
    assert [] == lines


def test_a_consumer_forgotten_in_the_middle_of_a_call() -> None:
    """A snapshot that is being made when a consumer is forgotten does not show it."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    with topic._monitor.lock:
        del consumer
        gc.collect()
        assert 0 == channel._stats().client_count


def test_a_pause_that_is_broken_off_pauses_or_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause that a signal cuts short never leaves it paused and delivering."""
    topic = Topic("orders", clock=ManualClock())
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put_many([b"1", b"2"])
    consumer.get().fin()

    def strike(*_: object) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Queue, "emit", strike)
        channel.pause()
    assert channel.paused
    with pytest.raises(Empty):
        consumer.get(timeout=0)


@pytest.mark.parametrize("second", [1.0, timedelta(seconds=1)])
def test_a_join_takes_seconds_or_a_timedelta(second: Seconds) -> None:
    """Its timeout can be either."""
    clock = ManualClock(autojump=True)
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    topic.put(b"1")
    assert not channel.join(second)
    assert 10**9 == clock.monotonic_ns()
