"""The messages of one channel: what only the inside shows."""

from typing import Any

import pytest

from nsqlite import Consumer, Topic
from nsqlite.testing import ManualClock


@pytest.mark.parametrize("touched", [False, True])
def test_touch_within_the_same_tick(touched: bool) -> None:
    """A touch that falls into the tick it is in already changes nothing."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put(b"1")
    message = consumer.get(timeout=0)
    if touched:
        message.touch()
    assert 60 == channel.in_flight()[0].due
    topic._check()


def test_drop_oldest_pays_for_itself_only() -> None:
    """A put drops no more than it adds, so requeued messages beyond the bound stay."""
    topic = Topic("orders")
    channel = topic.channel("billing", max_depth=2, when_full="drop oldest")
    consumer = Consumer(channel)
    topic.put_many([1, 2])
    held = consumer.get_many(2, timeout=0)
    topic.put_many([3, 4])
    for message in held:
        message.req()
    assert [3, 4, 1, 2] == [info.body for info in channel.peek()]
    topic.put(5)
    assert [4, 1, 2, 5] == [info.body for info in channel.peek()]
    assert 1 == channel.stats().dropped_count


def test_observed_channel_goes_the_long_way() -> None:
    """Observed, a batch is delivered and finished one by one, and each is told."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    told: list[Any] = []
    stop = topic.observe(lambda event: told.append((event.kind.value, event.body)))
    topic.put_many([1, 2])
    consumer.fin_many(consumer.get_many(2, timeout=0))
    stop()
    topic.put(3)
    assert [
        ("published", 1),
        ("published", 2),
        ("delivered", 1),
        ("delivered", 2),
        ("finished", 1),
        ("finished", 2),
    ] == told


def test_what_is_taken_back_is_in_flight_again() -> None:
    """A message that a failed move had finished can be answered and times out as before."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel, max_in_flight=1)
    told: list[Any] = []
    topic.put(1)
    message = consumer.get(timeout=0)
    clock.advance(10)
    flow = channel._flow
    with topic._guard.lock:
        topic._guard.perform(flow.finish, consumer, [message])
    topic.observe(lambda event: told.append(event.kind.value))
    topic._guard.call(flow.take_back, message)
    topic._check()
    assert ["returned", "delivered"] == told
    assert [50.0] == [info.due for info in channel.in_flight()]
    assert consumer.is_full()
    message.touch()
    message.fin()
    assert [0, 0] == [channel.in_flight_count, channel.depth]


def test_what_is_taken_back_too_late_times_out_at_once() -> None:
    """One whose time has gone by meanwhile is delivered again."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put(1)
    message = consumer.get(timeout=0)
    with topic._guard.lock:
        topic._guard.perform(channel._flow.finish, consumer, [message])
    clock.advance(100)
    topic._guard.call(channel._flow.take_back, message)
    assert [1, 0] == [channel.depth, channel.in_flight_count]
    assert 2 == consumer.get(timeout=0).attempts
    topic._check()
