"""A topic, as users call it; its life is in test_topiccore.py, publishing in test_publisher.py."""

import gc
import math
import threading
import weakref
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from helpers import PATIENCE, Call, GoingClock, TellingClock, TellingManualClock, bodies

import nsqlite
from nsqlite import (
    Broker,
    Closed,
    Consumer,
    Empty,
    Full,
    InvalidMessage,
    InvalidOption,
    NotInFlight,
    Reentered,
    Seconds,
    Topic,
)
from nsqlite.clock import Semaphore
from nsqlite.delayqueue import DelayQueue
from nsqlite.fanout import FanOut
from nsqlite.ids import BLOCK, Ids
from nsqlite.monitor import BUSY, Monitor
from nsqlite.options import SECOND
from nsqlite.queue import Queue
from nsqlite.testing import ManualClock, MemoryStore
from nsqlite.timeline import Recorder
from nsqlite.timerwheel import TimerWheel
from nsqlite.topic import index_of


def test_channel_is_get_or_create() -> None:
    """The same name gives the same channel; other options than it has are refused."""
    topic = Topic("orders")
    channel = topic.channel("billing", max_depth=5)
    assert channel is topic.channel("billing")
    assert channel is topic.channel("billing", max_depth=5)
    with pytest.raises(InvalidOption) as info:
        topic.channel("billing", max_depth=6)
    assert "max_depth must be 5, as channel 'billing' has it, not 6" == str(info.value)
    with pytest.raises(InvalidOption) as info:
        topic.channel("audit", max_msg_size=5)  # type: ignore[call-arg]  # no such option
    assert str(info.value).startswith("channel option must be one of e2e_")
    with pytest.raises(nsqlite.InvalidName):
        topic.channel("a b")
    assert ["billing"] == list(topic.channels)


def test_channels_is_a_copy() -> None:
    """The mapping of channels is read-only and does not change under the reader."""
    topic = Topic("orders")
    topic.channel("a")
    channels = topic.channels
    topic.channel("b")
    assert ["a"] == list(channels)
    with pytest.raises(TypeError):
        channels["c"] = channels["a"]  # type: ignore[index]  # read-only


def test_the_end_of_the_block_closes() -> None:
    """A topic closes itself at the end of its block."""
    with Topic("orders") as topic:
        topic.put(b"1")
    assert topic.closed


def test_join_waits_for_everything() -> None:
    """Join returns at once when idle, False when the time is over, True when all is answered."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    assert topic.join()
    assert topic.idle
    topic.put(b"1")
    assert not topic.join(timeout=0)
    assert not topic.join(timeout=0.001)
    clock.until_waiting()
    consumer = Consumer(channel)
    message = consumer.get(timeout=0)
    call = Call(topic.join)
    clock.until_waiting()
    message.fin()
    assert call.result()


@pytest.mark.parametrize("end", ["delete", "close"])
def test_join_is_woken_by_the_end(end: str) -> None:
    """A blocked join gets Closed when the topic ends."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    topic.channel("billing")
    topic.put(b"1")
    call = Call(topic.join)
    clock.until_waiting()
    getattr(topic, end)()
    assert isinstance(call.result(), Closed)


def test_join_is_woken_by_empty() -> None:
    """Emptying a topic that holds everything ends a join."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    topic.put(b"1")
    call = Call(topic.join)
    clock.until_waiting()
    topic.empty()
    assert call.result()


def test_unknown_option() -> None:
    """An unknown option is refused by name."""
    with pytest.raises(InvalidOption) as info:
        Topic("orders", max_size=3)  # type: ignore[call-arg]  # no such option
    assert str(info.value).startswith("option must be one of e2e_processing_latency_percentiles,")
    assert str(info.value).endswith("not 'max_size'")


def test_a_forgotten_topic_is_collected() -> None:
    """Nothing keeps a topic alive that nobody has any more."""
    topic = Topic("orders", clock=ManualClock())
    topic.channel("billing")
    topic.put(b"1")
    ref = weakref.ref(topic)
    del topic
    gc.collect()
    assert ref() is None


def test_events_of_a_message() -> None:
    """A message's whole life is told in order, with times and dues."""
    clock = ManualClock(1000.0)
    recorder = Recorder()
    topic = Topic("orders", clock=clock, observers=[recorder])
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put(b"x", delay=1)
    clock.advance(1)
    consumer.get(timeout=0).touch()
    clock.advance(60)
    consumer.get(timeout=0).req(delay=2)
    clock.advance(2)
    consumer.get(timeout=0).req()
    consumer.get(timeout=0).fin()
    told = [(event.kind.value, event.time, event.due, event.attempts) for event in recorder.events]
    assert [
        ("created", 1000.0, None, None),
        ("created", 1000.0, None, None),
        ("published", 1000.0, 1001.0, None),
        ("deferred", 1000.0, 1001.0, 0),
        ("due", 1001.0, 1001.0, 0),
        ("delivered", 1001.0, 1061.0, 1),
        ("touched", 1001.0, 1061.0, 1),
        ("timed out", 1061.0, 1061.0, 1),
        ("delivered", 1061.0, 1121.0, 2),
        ("requeued", 1061.0, 1063.0, 2),
        ("deferred", 1061.0, 1063.0, 2),
        ("due", 1063.0, 1063.0, 2),
        ("delivered", 1063.0, 1123.0, 3),
        ("requeued", 1063.0, None, 3),
        ("delivered", 1063.0, 1123.0, 4),
        ("finished", 1063.0, None, 4),
    ] == told
    assert {"orders"} == {event.topic for event in recorder.events}
    assert {None, "billing"} == {event.channel for event in recorder.events}


def test_events_of_steering() -> None:
    """Pausing, emptying, closing and deleting are told."""
    recorder = Recorder()
    topic = Topic("orders", observers=[recorder])
    channel = topic.channel("billing")
    topic.pause()
    topic.unpause()
    channel.pause()
    channel.unpause()
    topic.empty()
    channel.empty()
    channel.close()
    channel.delete()
    topic.close()
    topic.delete()
    told = [(event.kind.value, event.channel) for event in recorder.events]
    assert [
        ("created", None),
        ("created", "billing"),
        ("paused", None),
        ("unpaused", None),
        ("paused", "billing"),
        ("unpaused", "billing"),
        ("emptied", None),
        ("emptied", "billing"),
        ("closed", "billing"),
        ("deleted", "billing"),
        ("closed", None),
        ("deleted", None),
    ] == told


def test_topic_without_channels_holds() -> None:
    """The first channel gets what the topic held; a later one only what is put later."""
    topic = Topic("orders")
    topic.put(b"1")
    topic.put_many([b"2", b"3"])
    assert 3 == topic.depth
    first = topic.channel("first")
    second = topic.channel("second")
    topic.put(b"4")
    assert 0 == topic.depth
    assert (4, 1) == (first.stats().message_count, second.stats().message_count)
    assert [b"1", b"2", b"3", b"4"] == bodies(first)
    assert [b"4"] == bodies(second)


def test_held_delay_counts_from_put() -> None:
    """A deferred message that the topic held is due when its put said."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    topic.put(b"later", delay=3)
    topic.put(b"past", delay=1)
    clock.advance(2)
    channel = topic.channel("billing")
    assert (1, 1) == (channel.depth, channel.deferred_count)
    clock.advance(1)
    assert [b"past", b"later"] == bodies(channel)


def test_pause_holds_and_unpause_hands_on() -> None:
    """A paused topic holds what is put; every channel there is gets it at the end."""
    topic = Topic("orders")
    first = topic.channel("first")
    topic.pause()
    topic.pause()
    assert topic.paused
    topic.put(b"1")
    second = topic.channel("second")
    topic.put(b"2")
    assert 2 == topic.depth == topic.stats().depth
    topic.unpause()
    topic.unpause()
    assert not topic.paused
    assert [b"1", b"2"] == bodies(first) == bodies(second)


def test_empty_clears_the_topic_only() -> None:
    """Empty drops what the topic holds; its channels keep theirs, and the counters theirs."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    topic.put(b"1")
    topic.pause()
    topic.put_many([b"2", b"3"])
    assert 2 == topic.empty()
    topic.unpause()
    assert [b"1"] == bodies(channel)
    assert 3 == topic.stats().message_count
    assert 1 == channel.stats().message_count


def test_delete_drops_and_frees() -> None:
    """Delete drops the messages of all channels and ends everything."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    topic.put_many([b"1", b"2"])
    consumer = Consumer(channel)
    message = consumer.get(timeout=0)
    assert 2 == topic.delete()
    assert 0 == topic.delete()
    assert topic.closed
    assert topic.deleted
    assert {} == topic.channels
    with pytest.raises(Closed) as info:
        topic.put(b"3")
    assert "topic 'orders' is deleted" == str(info.value)
    with pytest.raises(Closed):
        topic.channel("billing")
    with pytest.raises(Closed):
        consumer.get(timeout=0)
    with pytest.raises(nsqlite.NotInFlight) as late:
        message.fin()
    assert "dropped" == late.value.reason
    for call in (topic.pause, topic.unpause, topic.empty):
        with pytest.raises(Closed):
            call()
    assert 0 == topic.close()
    assert "<Topic 'orders' deleted channels=0 depth=0>" == repr(topic)
    topic._check()


def test_close_counts_and_logs(caplog: pytest.LogCaptureFixture) -> None:
    """Close returns how much was thrown away, counted in each channel, and logs it."""
    topic = Topic("orders")
    topic.channel("a")
    topic.channel("b")
    topic.put(b"1")
    topic.pause()
    topic.put(b"2")
    assert 3 == topic.close()
    assert ["topic 'orders' was closed; messages thrown away: 3"] == caplog.messages
    assert ["a", "b"] == list(topic.channels)
    with pytest.raises(Closed) as info:
        topic.put(b"3")
    assert "topic 'orders' is closed" == str(info.value)
    assert 0 == topic.close()
    assert 0 == topic.delete()
    assert topic.deleted


def test_close_of_an_empty_topic_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing is thrown away nothing is logged."""
    assert 0 == Topic("orders").close()
    assert [] == caplog.messages


def test_drain_delivers_first() -> None:
    """A draining topic refuses puts, delivers what is there, and then is closed."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    topic.put_many([b"1", b"2"])
    consumer = Consumer(channel)
    assert 0 == topic.close(drain=True)
    with pytest.raises(Closed):
        topic.put(b"3")
    with pytest.raises(Closed):
        topic.put_many([b"3"])
    with pytest.raises(Closed):
        topic.channel("late")
    assert not topic.closed
    assert [b"1", b"2"] == [message.body for message in iter_fin(consumer)]
    assert topic.closed
    assert topic.join(timeout=0)
    assert 0 == topic.close()


def iter_fin(consumer: Consumer[Any]) -> list[nsqlite.Message[Any]]:
    """Go through a consumer until it is over, finishing each message."""
    seen = []
    for message in consumer:
        message.fin()
        seen.append(message)
    return seen


def test_drain_of_a_paused_topic_waits_for_unpause() -> None:
    """What a draining topic holds is delivered once it is unpaused."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    topic.pause()
    topic.put(b"1")
    topic.close(drain=True)
    assert not channel.closed
    topic.unpause()
    assert [b"1"] == [message.body for message in iter_fin(Consumer(channel))]
    assert topic.closed


def test_drain_without_channels_throws_away(caplog: pytest.LogCaptureFixture) -> None:
    """A topic without channels has nobody to drain to."""
    topic = Topic("orders")
    topic.put(b"1")
    assert 1 == topic.close(drain=True)
    assert topic.closed
    assert ["topic 'orders' was closed; messages thrown away: 1"] == caplog.messages


def test_drain_can_be_cut_short() -> None:
    """A second close without drain throws the rest away."""
    topic = Topic("orders")
    topic.channel("billing")
    topic.put(b"1")
    topic.close(drain=True)
    assert 1 == topic.close()
    assert topic.closed


def test_empty_ends_a_drain() -> None:
    """A draining topic closes when its channels are emptied, and empty itself ends no drain."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    topic.put(b"1")
    topic.close(drain=True)
    assert 0 == topic.empty()
    assert not topic.closed
    assert 1 == channel.empty()
    assert topic.closed


def test_a_paused_topic_drains() -> None:
    """A drain ends the pause: what was held is handed on, delivered, and then it is closed."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    channel.pause()
    topic.pause()
    topic.put(b"1")
    recorder = Recorder()
    topic.observe(recorder)
    assert 0 == topic.close(drain=True)
    assert "<Topic 'orders' draining channels=1 depth=0>" == repr(topic)
    assert (False, False) == (topic.paused, channel.paused)
    message = Consumer(channel).get(timeout=0)
    assert not topic.closed
    message.fin()
    assert topic.closed
    assert topic.join()
    told = [(event.kind, event.channel) for event in recorder.events[:2]]
    assert [("unpaused", None), ("unpaused", "billing")] == told
    assert "<Topic 'orders' closed channels=1 depth=0>" == repr(topic)
    topic._check()


def test_repr() -> None:
    """A topic shows its name, its state, its channels and how much it holds."""
    topic = Topic("orders")
    topic.put(b"1")
    topic.put(b"2", delay=1)
    assert "<Topic 'orders' open channels=0 depth=2>" == repr(topic)
    topic.channel("billing")
    topic.pause()
    topic.put(b"3")
    assert "<Topic 'orders' paused channels=1 depth=1>" == repr(topic)


def test_ephemeral_topic_goes_with_its_last_channel() -> None:
    """An ephemeral topic is deleted with its last channel, not before it had one."""
    topic = Topic("orders#ephemeral")
    topic.put(b"1")
    assert not topic.closed
    a, b = topic.channel("a"), topic.channel("b")
    a.delete()
    assert not topic.closed
    b.delete()
    assert topic.deleted


def test_a_channel_that_another_thread_has_just_created() -> None:
    """Of two calls that create a channel at once the later one gets it."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    assert channel is topic._monitor.run(topic._create, "billing", topic.options)


def test_an_interrupted_close_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal in the middle of a close leaves no channel open and nobody waiting."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    first, second = topic.channel("first"), topic.channel("second", max_depth=1)
    topic.put(b"1")
    calls = [Call(topic.join), Call(Consumer(first).get), Call(lambda: topic.put(b"2"))]
    calls[1].result()
    calls[1] = Call(Consumer(first).get)
    for _ in calls:
        clock.until_waiting()
    shut = nsqlite.Channel._shut

    def struck(channel: nsqlite.Channel[Any], how: str) -> int:
        monkeypatch.undo()
        shut(channel, how)
        raise KeyboardInterrupt

    monkeypatch.setattr(nsqlite.Channel, "_shut", struck)
    with pytest.raises(KeyboardInterrupt):
        topic.close()
    assert [True] * 3 == [topic.closed, first.closed, second.closed]
    assert [Closed] * 3 == [type(call.result()) for call in calls]
    topic._check()


def test_a_join_is_woken_though_a_signal_kept_it_from_being_notified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A topic that was emptied in an interrupted call is idle for whoever joins it."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    topic.put(b"1")
    call = Call(topic.join)
    clock.until_waiting()

    def struck(_monitor: Monitor) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(Monitor, "notify_joins", struck)
    with pytest.raises(KeyboardInterrupt):
        topic.empty()
    assert call.result() is True
    topic._check()


def test_whoever_waits_looks_again_after_a_fork() -> None:
    """In the child of a fork nobody waits; a thread that is still there waits anew."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing", max_depth=1)
    topic.put(b"1")
    calls = [Call(topic.join), Call(lambda: topic.put(b"2"))]
    for _ in calls:
        clock.until_waiting()
    with topic._monitor.lock:
        topic._forget_waiters()
    for _ in calls:
        clock.until_waiting()
    with Consumer(channel) as consumer:
        consumer.get().fin()
        consumer.get().fin()
    assert (True, 16) == (calls[0].result(), len(calls[1].result()))
    topic._check()


@pytest.mark.parametrize("how", ["delete", "close"])
def test_what_an_ephemeral_topic_takes_with_it_is_logged(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An ephemeral topic that goes with its last channel tells how much it still held."""
    topic = Topic("orders#ephemeral")
    channel = topic.channel("billing#ephemeral")
    consumer = Consumer(channel)
    topic.pause()
    topic.put_many([b"1", b"2", b"3"])
    if how == "delete":
        channel.delete()
    else:
        consumer.close()
    assert topic.deleted
    text = "topic 'orders#ephemeral' went with its last channel; messages dropped: 3"
    assert [text] == caplog.messages


def test_a_batch_may_need_several_blocks_of_ids() -> None:
    """However many messages a batch has, its ids follow each other and are counted."""
    topic = Topic("orders", clock=ManualClock())
    ids = topic.put_many(range(BLOCK * 2 + 5))
    numbers = [int(id_, 16) for id_ in ids]
    assert list(range(numbers[0], numbers[0] + len(ids))) == numbers
    assert len(ids) == topic.stats().message_count


def test_index_of_an_object() -> None:
    """The place of an object in a batch is found by identity, not by equality."""

    class Odd:
        """Equal to everything."""

        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]  # unhashable

    last = b""
    batch: list[Any] = [Odd(), b"1", last]
    assert 2 == index_of(batch, last)
    with pytest.raises(nsqlite.InvalidMessage) as info:
        Topic("orders").put_many(batch)
    assert 2 == info.value.index


def test_ids_of_refused_messages_are_not_counted() -> None:
    """A put that is refused takes an id and counts for nothing."""
    topic = Topic("orders", max_depth=1, when_full="raise")
    topic.put(b"1")
    with pytest.raises(nsqlite.Full):
        topic.put(b"2")
    assert 1 == topic.stats().message_count
    topic._check()


class ClockThatCalls(ManualClock):
    """Calls a function once when it is asked for the time."""

    def __init__(self) -> None:
        super().__init__(autojump=True)
        self.call: Callable[[], object] | None = None

    def _monotonic_ns(self) -> int:
        if self.call is not None:
            call, self.call = self.call, None
            call()
        return super()._monotonic_ns()


def test_a_put_to_a_closed_topic_in_the_middle_of_another_call() -> None:
    """It is refused at once, and the call around it is still under way."""
    topic = Topic("orders")
    topic.close()
    monitor = topic._monitor

    def put() -> bool:
        with pytest.raises(Closed):
            topic.put(b"1")
        return monitor.state == BUSY

    assert monitor.run(put)


def test_a_put_in_the_middle_of_a_bounded_put() -> None:
    """It cannot be judged there, and is refused at once."""
    clock = ClockThatCalls()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing", max_depth=2)
    refused: list[str] = []

    def put() -> None:
        with pytest.raises(Reentered) as info:
            topic.put(b"2")
        refused.append(info.value.call)

    clock.call = put
    topic.put(b"1")
    assert (["put"], 1) == (refused, channel.depth)
    topic._check()


def test_room_found_in_the_last_moment() -> None:
    """A put whose time is over looks once more before it gives up."""

    class Clock(ManualClock):
        """Makes room when the time of a wait is over, and tells nobody."""

        def wait(self, semaphore: Semaphore, moment: int | None, who: str) -> bool:
            channel._queue.ready.clear()
            return super().wait(semaphore, moment and 0, who)

    topic = Topic("orders", clock=Clock())
    channel = topic.channel("billing", max_depth=1)
    topic.put(b"1")
    topic.put(b"2", timeout=1)
    assert [b"2"] == [info.body for info in channel.peek()]


def test_ids_are_nsqs() -> None:
    """An id is 16 hex characters and no two are equal."""
    topic = Topic("orders")
    ids = [topic.put(b"x") for _ in range(300)] + topic.put_many([b"x"] * 300)
    assert 600 == len(set(ids))
    assert all(len(id_) == 16 and int(id_, 16) >= 0 for id_ in ids)
    assert ids == sorted(ids)


def test_body_is_a_reference() -> None:
    """All channels deliver the object that was put, not a copy."""
    topic: Topic[list[int]] = Topic("orders")
    channels = [topic.channel("a"), topic.channel("b")]
    body = [1]
    topic.put(body)
    for channel in channels:
        assert Consumer(channel).get(timeout=0).body is body


@pytest.mark.parametrize("put", ["put", "put_many"])
def test_size_rule(put: str) -> None:
    """Bytes of 1 to max_msg_size pass; others are refused and nothing has changed."""
    topic = Topic("orders", max_msg_size=3)
    channel = topic.channel("billing")

    class MyBytes(bytes):
        pass

    def call(body: bytes) -> None:
        if put == "put":
            topic.put(body)
        else:
            topic.put_many([b"ok", body])

    place = "" if put == "put" else "message 1: "
    for empty in (b"", MyBytes()):
        with pytest.raises(InvalidMessage) as info:
            call(empty)
        assert f"{place}the body is empty: NSQ takes 1 byte or more" == str(info.value)
    for large in (b"1234", MyBytes(b"1234")):
        with pytest.raises(InvalidMessage) as info:
            call(large)
        assert f"{place}the body has 4 bytes, max_msg_size is 3" == str(info.value)
    assert 0 == channel.depth
    assert 0 == topic.stats().message_count
    call(MyBytes(b"123"))
    assert {"put": 3, "put_many": 5}[put] == topic.stats().message_bytes


def test_bodies_of_any_kind() -> None:
    """A body that is not bytes has no size: None and "" pass."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    topic.put(None)
    topic.put_many(["", (), {}])
    assert [None, "", (), {}] == bodies(channel)
    assert 0 == topic.stats().message_bytes


@pytest.mark.parametrize("one", [b"abc", bytearray(b"abc"), "abc"])
def test_put_many_of_one_body(one: Any) -> None:
    """A body where several are expected is refused; its parts are no bodies."""
    topic = Topic("orders")
    with pytest.raises(InvalidMessage) as info:
        topic.put_many(one)
    given = type(one).__name__
    assert f"put_many takes several bodies, not one {given}: use put" == str(info.value)
    assert 0 == topic.stats().message_count
    assert 3 == len(topic.put_many(list("abc")))


def test_put_many_of_nothing() -> None:
    """An empty batch gives no ids."""
    assert [] == Topic("orders").put_many(iter([]))


@pytest.mark.parametrize("delay", [-0.1, 31622400.5, 1e300, math.nan, math.inf, True, "1"])
def test_put_delay_out_of_range(delay: Any) -> None:
    """A delay out of range is refused, not clamped, and nothing has changed."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    with pytest.raises(InvalidOption) as info:
        topic.put(b"x", delay=delay)
    limit = "at most 31622400, which the option max_req_timeout changes"
    text = f"a finite number of seconds, at least 0 and {limit}"
    assert f"delay must be {text}, not {delay!r}" == str(info.value)
    with pytest.raises(InvalidOption):
        topic.put_many([b"x"], delay=delay)
    assert (0, 0) == (channel.depth, channel.deferred_count)
    assert 0 == topic.stats().message_count
    topic._check()


def test_a_delay_can_be_a_year() -> None:
    """It comes then, in memory; one beyond the longest is refused as its seconds."""
    clock = ManualClock()
    topic = Topic[int]("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"))
    topic.put(1, delay=timedelta(days=366))
    with pytest.raises(InvalidOption) as info:
        topic.put(2, delay=timedelta(days=367))
    assert str(info.value).endswith("max_req_timeout changes, not 31708800.0")
    clock.advance(timedelta(days=366, microseconds=-1))
    with pytest.raises(Empty):
        consumer.get(timeout=0)
    clock.advance(0.000_001)
    assert 1 == consumer.get(timeout=0).body


@pytest.mark.parametrize("second", [1.0, timedelta(seconds=1)])
def test_seconds_or_a_timedelta(second: Seconds) -> None:
    """The delay and the timeout of a put, and of a join, can be either."""
    clock = ManualClock(autojump=True)
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing", max_depth=1)
    topic.put(b"1", delay=second)
    topic.put_many([b"2"], delay=second)
    assert [1.0, 1.0] == [info.due_in for info in channel.deferred()]
    assert not topic.join(second)
    for put in (partial(topic.put, b"3"), partial(topic.put_many, [b"3"])):
        with pytest.raises(Full):
            put(timeout=second)
    assert 3 * SECOND == clock.monotonic_ns()


@pytest.mark.parametrize("timeout", [-1, math.nan, True, "soon"])
def test_put_timeout_out_of_range(timeout: Any) -> None:
    """A timeout that is no number of seconds is refused even where nothing is bounded."""
    topic = Topic("orders")
    topic.channel("billing")
    with pytest.raises(InvalidOption):
        topic.put(b"x", timeout=timeout)
    assert 0 == topic.stats().message_count


def test_deferred_put() -> None:
    """A deferred message is ready when its delay is over, to the nanosecond."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channels = topic.channel("a"), topic.channel("b")
    topic.put_many([b"1", b"2"], delay=2.5)
    topic.put(b"0", delay=0)
    clock.advance(2.499_999_999)
    for channel in channels:
        assert (1, 2) == (channel.depth, channel.deferred_count)
    clock.advance(0.000_000_001)
    for channel in channels:
        assert [b"0", b"1", b"2"] == bodies(channel)


def test_wait_raises_full_when_the_time_is_over() -> None:
    """A put that waits for room raises Full in the end and has put nothing."""
    clock = ManualClock(autojump=True)
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing", max_depth=1)
    topic.put(b"1")
    for timeout in (0, 2.5):
        before = clock.time()
        with pytest.raises(Full) as info:
            topic.put(b"2", timeout=timeout)
        assert timeout == clock.time() - before
        assert "orders:billing has no room for 1 more: max_depth=1" == str(info.value)
    assert 1 == channel.depth == topic.stats().message_count
    topic._check()


def test_blocked_puts_go_first_come_first_served() -> None:
    """A blocked put goes on when there is room for it, in the order of arrival."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing", max_depth=2)
    topic.put_many([b"1", b"2"])
    big = Call(lambda: topic.put_many([b"3", b"4"]))
    clock.until_waiting()
    small = Call(lambda: topic.put(b"5"))
    clock.until_waiting()
    consumer = Consumer(channel)
    consumer.get(timeout=0).fin()
    with pytest.raises(Full) as info:
        topic.put(b"6", timeout=0)
    assert "orders" in str(info.value)
    consumer.get(timeout=0).fin()
    assert 2 == len(big.result())
    assert [b"3", b"4"] == [consumer.get(timeout=5).body for _ in range(2)]
    assert isinstance(small.result(), str)
    assert b"5" == consumer.get(timeout=5).body
    topic._check()


def test_a_put_that_waits_long_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """After 10 s on the topic's clock, then 20 and 40, the log has what a put waits for."""
    clock = GoingClock(patience=100)
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing", max_depth=1)
    topic.put(b"1")
    call = Call(lambda: topic.put(b"2"))
    for seconds in (9, 1, 10, 20):
        clock.until_waiting()
        clock.advance(seconds)
        if seconds == 9:
            assert [] == caplog.messages
            clock._waits.release()  # it sleeps on
    clock.until_waiting()
    why = "max_depth=1, 1 ready, 0 in flight, no consumer"
    assert [
        f"put to orders waits for room in orders:billing for {seconds} s: {why}"
        for seconds in (10, 20, 40)
    ] == caplog.messages
    assert {("nsqlite", "WARNING")} == {(one.name, one.levelname) for one in caplog.records}
    channel.empty()
    assert isinstance(call.result(), str)
    topic._check()


def test_time_does_not_move_for_a_record(caplog: pytest.LogCaptureFixture) -> None:
    """On a clock that is moved by hand nothing is due because of a put that waits."""
    clock = TellingManualClock(patience=100)
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing", max_depth=1)
    topic.put(b"1")
    call = Call(lambda: topic.put(b"2"))
    clock.until_waiting()
    assert clock.advance_to_next() is None
    clock.advance(1000)
    assert [] == caplog.messages
    channel.empty()
    assert isinstance(call.result(), str)


def test_a_put_that_waits_long_is_told_of_once_after_a_pause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where time has gone on, as while the process was stopped, what is past is left out."""
    clock = GoingClock(patience=100)
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing", max_depth=1)
    topic.put(b"1")
    call = Call(lambda: topic.put(b"2"))
    clock.until_waiting()
    clock._elapsed += 300 * SECOND - 1
    clock.advance(1e-9)
    clock.until_waiting()
    assert ["for 300 s"] == [
        text[i : i + 9] for text in caplog.messages for i in [text.index("for 3")]
    ]
    channel.empty()
    assert isinstance(call.result(), str)


def test_what_a_put_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    """The log names each queue that is full, what is in it and who could take it, or the reason."""

    def told(topic: Topic[Any], *bodies: Any) -> str:
        """Return what is told of a put that waits behind those that wait already."""
        calls.append((topic, Call(lambda: topic.put_many(bodies))))
        clock.until_waiting()
        clock.advance(10)
        for _ in topic._monitor.putters:
            clock.until_waiting()
        [found] = [message for message in caplog.messages if "for 10 s" in message]
        return found.partition(" waits for room in ")[2]

    clock = GoingClock(patience=100)
    calls: list[tuple[Topic[Any], Call]] = []
    topic = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("a", max_depth=2))
    topic.channel("free")
    topic.put_many([1, 2])
    consumer.get()
    topic.put(3)
    expected = "orders:a for 10 s: max_depth=2, 2 ready, 1 in flight, 1 consumer"
    assert expected == told(topic, 4)
    topic.close()

    caplog.clear()
    topic = Topic("mails", clock=clock)
    several = [Consumer(topic.channel(name, max_depth=2)) for name in "bbc"]
    topic.put(1)
    topic.channel("b").pause()
    several[2].get()
    expected = "mails:b for 10 s: max_depth=2, 1 ready, 0 in flight, 2 consumers, paused"
    assert expected == told(topic, 2, 3)
    caplog.clear()
    assert "mails for 10 s: another put waits in front of it" == told(topic, 4)
    topic.close()

    for why in ("no channel", "paused"):
        caplog.clear()
        topic = Topic("texts", clock=clock, max_depth=1)
        if why == "paused":
            topic.channel("d")
            topic.pause()
        topic.put(1)
        assert f"texts for 10 s: max_depth=1, 1 held, {why}" == told(topic, 2)
        topic.close()
    for _, call in calls:
        assert isinstance(call.result(), Closed)


def test_a_put_with_a_limit_is_told_of_too(caplog: pytest.LogCaptureFixture) -> None:
    """What waits no longer than 10 s is not; what does raises Full in its own time."""
    clock = ManualClock(autojump=True)
    clock.by_hand = False
    topic = Topic("orders", clock=clock)
    topic.channel("billing", max_depth=1)
    topic.put(b"1")
    for timeout, lines in ((10, 0), (15, 1)):
        before = clock.monotonic_ns()
        with pytest.raises(Full):
            topic.put(b"2", timeout=timeout)
        assert timeout == (clock.monotonic_ns() - before) / 10**9
        assert lines == len(caplog.messages)


@pytest.mark.parametrize("end", ["empty", "delete", "close", "drain"])
def test_blocked_put_is_woken(end: str) -> None:
    """Emptying a channel lets a blocked put go on; ending the topic raises Closed in it."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing", max_depth=1)
    topic.put(b"1")
    call = Call(lambda: topic.put(b"2"))
    clock.until_waiting()
    if end == "empty":
        channel.empty()
    elif end == "delete":
        topic.delete()
    else:
        topic.close(drain=end == "drain")
    assert isinstance(call.result(), str if end == "empty" else Closed)
    assert 0 == len(topic._monitor.putters)


def test_deleting_the_full_channel_lets_a_put_go_on() -> None:
    """Without the full channel there is nothing to wait for."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    topic.channel("free")
    channel = topic.channel("billing", max_depth=1)
    topic.put(b"1")
    call = Call(lambda: topic.put(b"2"))
    clock.until_waiting()
    channel.delete()
    assert isinstance(call.result(), str)


def test_nothing_put_is_nothing() -> None:
    """An empty batch asks for no room and waits for nobody, but not on a closed topic."""
    topic = Topic("orders")
    topic.channel("billing", max_depth=1)
    topic.put(b"1")
    assert [] == topic.put_many([])
    topic.close()
    with pytest.raises(Closed):
        topic.put_many([])


@pytest.mark.parametrize("bodies", [None, 3, b"12", "12"])
def test_a_batch_is_several(bodies: Any) -> None:
    """What is no batch is refused by its type."""
    topic = Topic("orders")
    given = type(bodies).__name__
    with pytest.raises(InvalidMessage, match=f"put_many takes several bodies, not one {given}"):
        topic.put_many(bodies)
    assert 0 == topic.depth


def test_a_put_without_time_is_none() -> None:
    """A put whose clock fails raises what that raises, and puts nothing."""

    class Broken(ManualClock):
        def _time_ns(self) -> int:
            raise ZeroDivisionError

    topic = Topic("orders", clock=Broken())
    with pytest.raises(ZeroDivisionError):
        topic.put(b"1")
    assert 0 == topic.depth


# Publishing without ids


def test_publish_puts_several() -> None:
    """What is published is in every channel, and is told once it is."""
    topic = Topic("orders")
    channels = [topic.channel("billing"), topic.channel("audit")]
    told: list[object] = []
    topic.publish([1, 2], told.append)
    topic.publish([3])
    topic.publish([], told.append)
    assert [[1, 2, 3]] * 2 == [bodies(channel) for channel in channels]
    assert ([None, None], 3) == (told, topic.stats().message_count)


def test_publish_never_waits() -> None:
    """Where there is no room for all it raises at once, and has put nothing."""
    topic = Topic("orders", max_depth=2)
    channel = topic.channel("billing")
    with pytest.raises(Full):
        topic.publish([1, 2, 3])
    topic.publish([1])
    with pytest.raises(Full):
        topic.publish([2, 3], print)
    assert [1] == bodies(channel)
    topic.close()
    for batch in ([], [1]):
        with pytest.raises(Closed):
            topic.publish(batch)


def test_many_ids_that_nobody_reads() -> None:
    """More messages than a block of ids has are published as well."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    topic.publish(range(3 * BLOCK))
    assert list(range(3 * BLOCK)) == bodies(channel)


def test_a_drain_waits_for_what_a_paused_topic_holds() -> None:
    """A drain that a signal kept from ending the pause closes no channel before its messages."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    topic.pause()
    topic.put(b"1")
    topic._draining = True
    topic._monitor.run(topic._changed)
    assert (False, False) == (topic.closed, channel.closed)
    topic.unpause()
    with Consumer(channel) as consumer:
        consumer.get(timeout=0).fin()
    assert topic.closed


# What was found by others


def after(
    monkeypatch: pytest.MonkeyPatch, kind: type, name: str, act: Callable[[], object]
) -> None:
    """Have something happen once when a method has returned, as a signal handler would."""
    method = getattr(kind, name)
    acts = [act]

    def call(*args: Any) -> Any:
        result = method(*args)
        if acts:
            acts.pop()()
        return result

    monkeypatch.setattr(kind, name, call)


def test_a_put_inside_of_a_put_leaves_a_bound_kept() -> None:
    """What a handler puts while a put looks for room counts when that one decides."""
    topic: Topic[Any] = Topic("orders")
    channel = topic.channel("billing", max_depth=1, when_full="raise")
    acts = [lambda: topic.put("nested")]

    class Ready(deque[Any]):
        def __len__(self) -> int:
            count = super().__len__()
            if acts:
                acts.pop()()  # as a handler that comes in when this has returned
            return count

    queue: Any = channel._queue
    queue.ready = Ready()
    topic._fan.direct()
    with pytest.raises(Full):
        topic.put("outer")
    assert ["nested"] == bodies(channel)


def test_who_comes_to_wait_inside_of_a_put_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that a handler has wait to be told while a put looks for room is told of the message."""
    topic: Topic[Any] = Topic("orders")
    consumer = Consumer(topic.channel("billing", max_depth=5))
    topic.put("first")
    consumer.get().fin()
    told: list[int] = []
    after(monkeypatch, Topic, "_way", lambda: consumer.when_ready(partial(told.append, 1)))
    topic.put("outer")
    assert [1] == told


def test_a_handler_that_uses_up_the_ids_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """A put that has just taken a block has its first id, however many a handler then takes."""
    topic: Topic[Any] = Topic("orders", clock=ManualClock())
    channel = topic.channel("billing")
    after(monkeypatch, Ids, "renew", lambda: topic.put_many(range(300)))
    names = [topic.put("outer") for _ in range(3)]
    assert 303 == len({info.id for info in channel.peek(1000)} | set(names))
    assert 303 == channel.depth


def test_what_was_put_inside_of_a_call_is_never_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A put whose id was returned is there, though the call that it came into has made a bound."""
    topic: Topic[Any] = Topic("orders")
    topic.put("held")
    names: list[str] = []
    after(monkeypatch, Topic, "_make_channel", lambda: names.append(topic.put("nested")))
    channel = topic.channel("billing", max_depth=1)
    assert [info.id for info in channel.peek()][1:] == names
    assert ["held", "nested"] == bodies(channel)


def test_what_was_put_inside_of_a_call_is_counted_once() -> None:
    """A put that is made again counts neither its message nor its bytes twice."""
    topic: Topic[Any] = Topic("orders")
    topic.channel("billing")
    records, _ = topic._make_records([b"123"])
    for _ in "12":
        topic._monitor.run(topic._put_now, records, 3, None)
    stats = topic.stats()
    assert (1, 3) == (stats.message_count, stats.message_bytes)


def test_a_drain_without_channels_ends_a_join() -> None:
    """Who waits for a topic that is drained, and has no channel to drain into, goes on."""
    clock = TellingClock()
    topic: Topic[Any] = Topic("orders", clock=clock)
    topic.put("x")
    call = Call(topic.join)
    clock.until_waiting()
    assert 1 == topic.close(drain=True)
    assert call.result() is True


def test_a_channel_that_is_about_to_go_is_made_anew() -> None:
    """Who asks for an ephemeral channel whose last consumer was forgotten gets a new one."""
    topic: Topic[Any] = Topic("orders")
    consumer = Consumer(topic.channel("billing#ephemeral"))
    del consumer
    channel = topic.channel("billing#ephemeral")
    assert not channel.closed
    Consumer(channel).close()


@pytest.mark.parametrize("read", ["depth", "channel depth", "in flight", "consumer stats"])
def test_what_reading_interrupts_is_done_after_it(
    monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    """What a handler leaves for after the lock, while something is read, is done at once."""
    topic: Topic[Any] = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    told: list[int] = []
    consumer.when_ready(partial(told.append, 1))
    reads: dict[str, tuple[type, str, Callable[[], object]]] = {
        "depth": (FanOut, "depth", lambda: topic.depth),
        "channel depth": (Queue, "depth", lambda: channel.depth),
        "in flight": (TimerWheel, "__len__", lambda: channel.in_flight_count),
        "consumer stats": (Consumer, "_stats", consumer.stats),
    }
    kind, name, call = reads[read]
    after(monkeypatch, kind, name, lambda: topic.put("nested"))
    call()
    assert [1] == told


@pytest.mark.parametrize("store", [None, MemoryStore])
@pytest.mark.parametrize("kind", ["no function", "fails"])
def test_what_publish_is_to_call(caplog: pytest.LogCaptureFixture, kind: str, store: Any) -> None:
    """What cannot be called is refused before anything is put; what fails is logged."""
    broker = Broker(store=store and store())
    topic = broker.topic("orders")
    channel = topic.channel("billing")
    called = threading.Event()

    def fail(_problem: object) -> None:
        called.set()
        raise ValueError("no")

    if kind == "no function":
        given: Any = 5
        with pytest.raises(InvalidOption, match="on_done"):
            topic.publish([b"x"], given)
        assert 0 == channel.depth
    else:
        topic.publish([b"x"], fail)
        assert called.wait(PATIENCE)
        assert 1 == channel.depth
        broker.close()  # and with it the store's thread is over
        assert 1 == sum("which publish() was" in message for message in caplog.messages)
    broker.close()


def test_a_refused_move_leaves_both_topics_alone() -> None:
    """A move for which there is no room has changed nothing, and nothing is to be recovered."""
    source: Topic[Any] = Topic("orders")
    target: Topic[Any] = Topic("dead")
    target.channel("c", max_depth=1, when_full="raise")
    target.put("full")
    consumer = Consumer(source.channel("billing"))
    source.put("x")
    message = consumer.get()
    recovered: list[str] = []
    source._monitor.recover = partial(recovered.append, "source")
    target._monitor.recover = partial(recovered.append, "target")
    with pytest.raises(Full):
        consumer.move(message, target)
    message.fin()
    with pytest.raises(NotInFlight):
        consumer.move(message, target)
    source.put("y")
    with pytest.raises(Full):
        target.put("z")
    assert [] == recovered


def test_many_channels_are_made_in_a_time_that_does_not_grow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To make a channel goes through the others only when something is put."""
    looks: list[int] = []
    direct = FanOut.direct

    def look(fan: FanOut[Any]) -> None:
        looks.append(1)
        direct(fan)

    monkeypatch.setattr(FanOut, "direct", look)
    topic: Topic[Any] = Topic("orders")
    channels = [topic.channel(f"c{number}") for number in range(100)]
    assert [] == looks
    topic.put("x")
    topic.put("y")
    assert [1] == looks
    assert {2} == {channel.depth for channel in channels}


def test_a_deferred_put_whose_delay_passes_meanwhile_needs_no_room() -> None:
    """A put that was deferred when it was called stays so; it goes past no bound by being late."""
    clock = ManualClock()
    topic: Topic[Any] = Topic("orders", clock=clock)
    channel = topic.channel("billing", max_depth=1, when_full="raise")
    topic.put("first")
    recorder = Recorder()
    topic.observe(recorder)
    topic._send([*topic._make_records(["late"])[0]], 0, clock._elapsed, None)
    assert ["published", "deferred"] == [event.kind for event in recorder.events[:2]]
    assert 2 == channel.depth  # as what is requeued, what falls due needs no room


def test_a_struck_unpause_hands_on_once_what_is_deferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deferred messages that share a coarser tick of a channel come there once, struck or not."""
    clock = ManualClock()
    topic: Topic[str] = Topic("orders", clock=clock)
    channels = [topic.channel(name, resolution=1.0) for name in "xy"]
    topic.pause()
    for body, delay in (("a", 10.02), ("b", 10.25), ("c", 10.45)):
        topic.put(body, delay=delay)
    defer = Queue.defer
    strikes = iter([False, False, False, True])

    def strike(queue: Queue[str], *args: Any) -> None:
        defer(queue, *args)
        if next(strikes, False):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Queue, "defer", strike)
        topic.unpause()
    topic._check()
    clock.advance(12)
    assert [["a", "b", "c"]] * 2 == [bodies(channel) for channel in channels]
    assert {3} == {channel.stats().message_count for channel in channels}


def test_a_put_that_is_struck_as_it_feeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits is told although the put that brought the message was broken off."""
    topic: Topic[str] = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    topic.put("first")
    consumer.get().fin()
    told: list[int] = []
    consumer.when_ready(partial(told.append, 1))
    perform = Monitor.perform
    strikes = [KeyboardInterrupt]

    def struck(monitor: Monitor, *given: Any) -> Any:
        if strikes:
            raise strikes.pop()
        return perform(monitor, *given)

    monkeypatch.setattr(Monitor, "perform", struck)
    with pytest.raises(KeyboardInterrupt):
        topic.put("x")
    assert [1] == told
    topic._check()


def test_a_kept_topic_is_recovered() -> None:
    """What a signal interrupts in a topic of a store that writes at once is completed."""
    with Broker(store=MemoryStore()) as broker:
        topic: Any = broker.topic("orders")
        channel = topic.channel("billing")
        topic.put(b"1")
        topic._monitor.run(topic._recover)
        assert 1 == channel.depth
        topic._check()


def test_what_becomes_ready_by_itself_takes_room() -> None:
    """Whatever makes a message ready but a put, a put that has looked for room looks again."""

    def refused(become_ready: Callable[[Topic[Any], Consumer[Any]], object]) -> list[Any]:
        clock = ManualClock()
        topic: Topic[Any] = Topic("orders", clock=clock)
        consumer = Consumer(topic.channel("billing", max_depth=3, when_full="raise"))
        topic.put("first")
        held.append(consumer.get())
        topic.put("second")  # there is room for two more now, and the topic knows
        become_ready(topic, consumer)
        clock.advance(60)
        topic.put("last")
        with pytest.raises(Full):
            topic.put("beyond")
        topic._check()
        return bodies(consumer.channel)

    held: list[Any] = []
    other = Topic[Any]("other")
    source = Consumer(other.channel("c"))
    other.put("moved")
    assert ["second", "first", "last"] == refused(lambda _t, c: c.req(held[-1]))
    assert ["second", "first", "last"] == refused(lambda _t, c: c.req(held[-1], delay=5))
    assert ["second", "first", "last"] == refused(lambda _t, _c: None)
    assert ["second", "first", "last"] == refused(lambda t, _c: t.observe(lambda _event: None))
    assert ["first", "second", "last"] == refused(lambda _t, c: c.close())
    moved = source.get()

    def move(_topic: Topic[Any], consumer: Consumer[Any]) -> None:
        source.move(moved, consumer.channel)
        consumer.fin(held[-1])

    assert ["second", "moved", "last"] == refused(move)


def test_what_is_moved_into_a_full_channel_makes_no_room() -> None:
    """A channel that holds more than its bound takes nothing, however much it is too full."""
    topic, source = Topic[Any]("orders"), Topic[Any]("source")
    channel = topic.channel("billing", max_depth=1, when_full="raise")
    consumer = Consumer(source.channel("all"))
    source.put_many(range(5))
    topic.put("first")
    for count in range(5):
        consumer.move(consumer.get(), channel)
        with pytest.raises(Full):
            topic.put("beyond")
        assert count + 2 == channel.depth


def test_a_look_for_room_inside_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that a handler cuts short leaves the outer one no figure to believe in."""
    topic: Topic[Any] = Topic("orders")
    topic.channel("billing", max_depth=2, when_full="raise")
    topic.put("first")
    topic._monitor.room_until = 0
    after(monkeypatch, FanOut, "room_left", topic._fan.look_for_room)
    topic._fan.look_for_room()
    assert topic._monitor.room_until <= topic._fan.accepted + 1
    topic._monitor.room_until = 0

    def cut_short() -> None:
        after(monkeypatch, FanOut, "room_left", partial(next, iter(())))
        with pytest.raises(StopIteration):
            topic._fan.look_for_room()

    after(monkeypatch, FanOut, "room_left", cut_short)
    topic._fan.look_for_room()
    assert topic._monitor.room_until < 0
    topic.put("second")
    with pytest.raises(Full):
        topic.put("third")


def test_what_was_held_is_checked_before_the_next_put() -> None:
    """The check of a topic knows that the figures of a change are found by the next put."""
    topic: Topic[Any] = Topic("orders")
    topic.channel("billing", max_depth=4, when_full="raise")
    topic.pause()
    topic.put_many(["first", "second"])
    topic.unpause()
    topic._check()


def test_who_waits_for_room_is_not_passed() -> None:
    """A put that would find room does not overtake a batch that waits for more."""
    clock = TellingClock()
    topic: Topic[Any] = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing", max_depth=3))
    topic.put("first")
    topic.put("second")  # there is room for one more now, and the topic knows
    call = Call(lambda: topic.put_many(["third", "fourth"]))
    clock.until_waiting()
    with pytest.raises(Full):
        topic.put("too early", timeout=0)
    consumer.get().fin()
    assert 2 == len(call.result())
    assert ["second", "third", "fourth"] == bodies(consumer.channel)


def test_what_a_pause_held_takes_room() -> None:
    """What a topic held back fills a bounded channel, and a put that knew of room looks again."""
    topic: Topic[Any] = Topic("orders")
    channel = topic.channel("billing", max_depth=2, when_full="raise")
    topic.put("first")
    topic.pause()
    topic.put("second")
    topic.unpause()
    with pytest.raises(Full):
        topic.put("third")
    assert ["first", "second"] == bodies(channel)


def test_a_put_inside_of_an_operation_looks_for_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A put that comes into an operation leaves it to the next one to look, when that is over."""
    clock = ManualClock()
    topic: Topic[Any] = Topic("orders", clock=clock)
    channel = topic.channel("billing", max_depth=1, when_full="raise")
    topic.put("deferred", delay=5)

    def nested() -> None:
        with pytest.raises(Reentered):
            topic.put("nested")

    after(monkeypatch, DelayQueue, "expire", nested)
    clock.advance(5)
    topic._check()
    with pytest.raises(Full):
        topic.put("last")
    assert ["deferred"] == bodies(channel)


def test_a_requeue_inside_of_a_put_takes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a handler requeues while a put looks for room counts when that one decides."""
    topic: Topic[Any] = Topic("orders")
    consumer = Consumer(topic.channel("billing", max_depth=1, when_full="raise"))
    topic.put("first")
    message = consumer.get()
    after(monkeypatch, FanOut, "room_left", message.req)
    with pytest.raises(Full):
        topic.put("outer")
    assert ["first"] == bodies(consumer.channel)


def test_a_refused_put_that_is_struck_as_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a refused put leaves for after the lock is done though a signal strikes there."""
    topic: Topic[Any] = Topic("orders")
    topic.channel("billing", max_depth=1, when_full="raise")
    topic.put("first")
    refused = Recorder()
    topic.observe(refused, kinds=["refused"])
    call = Monitor.call

    def struck(_monitor: Monitor, *_: Any) -> None:
        monkeypatch.setattr(Monitor, "call", call)
        raise KeyboardInterrupt

    monkeypatch.setattr(Monitor, "call", struck)
    with pytest.raises(KeyboardInterrupt):
        topic.put("second")
    assert 1 == len(refused.events)
    topic._check()
