"""How a topic hands on: to every channel, within every bound."""

import signal
from collections import deque
from typing import Any, get_args

import pytest
from helpers import bodies

import nsqlite
from nsqlite import Consumer, Full, Kind, Topic
from nsqlite.testing import ManualClock
from nsqlite.timeline import Recorder
from nsqlite.waiting import Waiter


class Interrupt(Exception):
    """Thrown in the middle of a fan-out."""


def test_where_a_record_goes_directly() -> None:
    """A record is appended to each queue, unless the topic holds it or is over."""
    topic = Topic("orders")
    fan = topic._fan

    def put() -> Any:
        topic.put(b"1")  # finds the way anew if anything has changed
        return fan.append

    assert (None, 0) == (put(), len(fan.appends))
    first = topic.channel("first")
    assert (None, 0) == (fan.append, len(fan.appends))
    assert put() == first._queue.ready.append
    second = topic.channel("second")
    assert put() is None
    assert (first._queue.ready.append, second._queue.ready.append) == fan.appends
    topic.pause()
    assert not fan.appends
    put()
    assert not fan.appends
    topic.unpause()
    bounded = topic.channel("bounded", max_depth=1)
    put()
    assert ((bounded._queue,), 3) == (fan.bounded, len(fan.appends))
    bounded.delete()
    second.delete()
    assert (first._queue.ready.append, ()) == (put(), fan.bounded)
    topic.close()
    assert (0, None) == (len(fan.appends), fan.append)


@pytest.mark.parametrize("several", [1, 3])
def test_an_interrupted_fan_out_is_completed(several: int) -> None:
    """A signal that throws in the middle of a put to several channels keeps none of them out."""

    class Struck(deque[Any]):
        """A queue's records: a signal comes right after some more were added."""

        def extend(self, records: Any) -> None:
            super().extend(records)
            signal.raise_signal(signal.SIGUSR1)

    def handler(_signum: int, _frame: Any) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        topic = Topic("orders")
        channels = [topic.channel(f"c{n}") for n in range(several + 1)]
        queue: Any = channels[0]._queue
        queue.ready = Struck()
        topic._fan.direct()  # which knows it from now on
        with pytest.raises(Interrupt):
            topic.put_many([b"1"])
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert [1] * (several + 1) == [channel.depth for channel in channels]
    topic._check()


def test_a_call_made_in_the_middle_of_a_fan_out() -> None:
    """A nested put waits for the outer one and then reaches every channel."""
    topic = Topic("orders")
    first, second = topic.channel("first"), topic.channel("second")
    nested: list[str] = []

    class Struck(deque[Any]):
        """A queue's records: a signal handler puts right after some more were added."""

        def extend(self, records: Any) -> None:
            super().extend(records)
            if not nested:
                nested.append("begun")
                nested.append(topic.put(b"nested"))

    queue: Any = first._queue
    queue.ready = Struck()
    topic._changed()
    [outer] = topic.put_many([b"outer"])
    for channel in (first, second):
        assert [(outer, b"outer"), (nested[1], b"nested")] == [
            (info.id, info.body) for info in channel.peek()
        ]
    assert 2 == topic.stats().message_count
    topic._check()


def test_held_messages_stay_in_order() -> None:
    """What was held comes in the order in which it became ready, as in a channel."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    topic.put(b"1")
    topic.put(b"3", delay=1)
    topic.put(b"6", delay=3)
    topic.put(b"2")
    clock.advance(2)
    topic.put(b"4")
    assert 5 == topic.depth
    channel = topic.channel("billing")
    topic.put(b"5")
    assert 0 == topic.depth
    clock.advance(1)
    with Consumer(channel) as consumer:
        assert [b"%d" % n for n in range(1, 7)] == [m.body for m in consumer.get_many(9)]


def test_put_reaches_every_channel() -> None:
    """Each channel gets each message, in order, under the same id."""
    topic = Topic("orders")
    billing, audit = topic.channel("billing"), topic.channel("audit")
    ids = [topic.put(b"1"), *topic.put_many([b"2", b"3"])]
    for channel in (billing, audit):
        assert ids == [info.id for info in channel.peek()]
        assert [b"1", b"2", b"3"] == bodies(channel)
    topic._check()


def test_put_to_one_channel() -> None:
    """A topic with one channel counts the same."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    topic.put(b"12345")
    stats = topic.stats()
    assert (1, 5) == (stats.message_count, stats.message_bytes)
    assert 1 == channel.stats().message_count


def test_full_raise_puts_nothing_anywhere() -> None:
    """One full channel that raises keeps a put out of all channels."""
    topic = Topic("orders")
    free = topic.channel("free")
    full = topic.channel("full", max_depth=2, when_full="raise")
    topic.put_many([b"1", b"2"])
    with pytest.raises(Full) as info:
        topic.put(b"3")
    assert "orders:full has no room for 1 more: max_depth=2" == str(info.value)
    with pytest.raises(Full):
        topic.put_many([b"3"])
    assert [b"1", b"2"] == bodies(free)
    assert 2 == full.depth == topic.stats().message_count
    bodies(full)
    topic.put(b"3")
    topic._check()


@pytest.mark.parametrize("when_full", ["wait", "raise", "drop newest", "drop oldest"])
def test_batch_that_can_never_fit(when_full: Any) -> None:
    """A batch larger than the bound raises at once, whatever the policy."""
    topic = Topic("orders", max_depth=2, when_full=when_full)
    for _ in range(2):
        with pytest.raises(Full) as info:
            topic.put_many([b"1", b"2", b"3"])
        assert "can never fit" in str(info.value)
        topic.channel("billing")
    assert 0 == topic.stats().message_count


def test_drop_newest() -> None:
    """The newest messages are dropped, counted and told."""
    recorder = Recorder()
    topic = Topic("orders", observers=[recorder])
    channel = topic.channel("billing", max_depth=2, when_full="drop newest")
    topic.put(b"1")
    topic.put_many([b"2", b"3"])
    assert 1 == channel.stats().dropped_count
    assert 3 == channel.stats().message_count
    assert [b"3"] == [event.body for event in recorder.events if event.kind is Kind.DROPPED]
    assert [b"1", b"2"] == bodies(channel)


def test_drop_oldest() -> None:
    """The oldest messages are dropped, counted and told."""
    recorder = Recorder()
    topic = Topic("orders", observers=[recorder])
    channel = topic.channel("billing", max_depth=2, when_full="drop oldest")
    topic.put(b"1")
    topic.put_many([b"2", b"3"])
    assert 1 == channel.stats().dropped_count
    assert [b"1"] == [event.body for event in recorder.events if event.kind is Kind.DROPPED]
    assert [b"2", b"3"] == bodies(channel)


@pytest.mark.parametrize(
    ("when_full", "left"), [("drop newest", [b"1", b"2"]), ("drop oldest", [b"2", b"3"])]
)
def test_a_topic_that_holds_obeys_the_bound(when_full: Any, left: list[bytes]) -> None:
    """What a topic holds itself is bounded by the same policy."""
    topic = Topic("orders", max_depth=2, when_full=when_full)
    topic.put(b"1")
    topic.put_many([b"2", b"3"])
    assert 1 == topic.stats().dropped_count
    assert left == bodies(topic.channel("billing"))


def test_a_topic_that_holds_raises() -> None:
    """A topic that holds messages raises where its policy says so."""
    topic = Topic("orders", max_depth=1, when_full="raise")
    topic.put(b"1")
    with pytest.raises(Full) as info:
        topic.put(b"2")
    assert "orders has no room for 1 more: max_depth=1" == str(info.value)


def test_backlog_handed_on_is_never_refused() -> None:
    """What a topic held goes to its first channel although that is bounded."""
    for when_full in get_args(nsqlite.WhenFull):
        topic = Topic("orders")
        topic.put_many([b"1", b"2", b"3"])
        channel = topic.channel("billing", max_depth=1, when_full=when_full)
        assert (3, 0) == (channel.depth, channel.stats().dropped_count)


def test_deferred_put_needs_no_room() -> None:
    """A bound counts ready messages; a deferred one passes and is never refused when due."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing", max_depth=1, when_full="raise")
    topic.put(b"1")
    topic.put(b"2", delay=1)
    clock.advance(1)
    assert 2 == channel.depth
    with pytest.raises(Full):
        topic.put(b"3")


class Noting(Waiter[Any]):
    """A blocked put that notes how often it is told to look."""

    told = 0

    def notify(self) -> None:
        self.told += 1


def test_a_blocked_put_is_told_of_room_once() -> None:
    """The first is told by one get, not by each until it has looked; when it has left, the next."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing", max_depth=2))
    topic.put_many([b"1", b"2"])
    monitor, fan = topic._monitor, topic._fan
    first, second = Noting(monitor), Noting(monitor)
    monitor.run(fan.wait, first, 1, 0)
    monitor.run(fan.wait, second, 1, 0)
    assert monitor.wants_room
    consumer.get()
    consumer.get()
    assert (1, 0, False) == (first.told, second.told, monitor.wants_room)
    topic.put_many([b"3", b"4"], delay=1)  # which need no room
    clock.advance(1)
    monitor.run(fan.wait, first, 1, 0)  # looks, and finds none
    consumer.get()
    assert (2, 0, False) == (first.told, second.told, monitor.wants_room)
    monitor.run(fan.leave, first)
    assert (2, 1, False) == (first.told, second.told, monitor.wants_room)
    monitor.run(fan.leave, second)
    assert (2, 1, False) == (first.told, second.told, monitor.wants_room)
