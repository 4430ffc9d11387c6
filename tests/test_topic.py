"""A topic, as users call it; its life is in test_topiccore.py, publishing in test_publisher.py."""

import gc
import weakref

import pytest
from helpers import Call, TellingClock

import nsqlite
from nsqlite import Closed, Consumer, Event, InvalidOption, Topic
from nsqlite.testing import ManualClock


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
    events: list[Event] = []
    topic = Topic("orders", clock=clock, observers=[events.append])
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
    told = [(event.kind.value, event.time, event.due, event.attempts) for event in events]
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
    assert {"orders"} == {event.topic for event in events}
    assert {None, "billing"} == {event.channel for event in events}


def test_events_of_steering() -> None:
    """Pausing, emptying, closing and deleting are told."""
    events: list[Event] = []
    topic = Topic("orders", observers=[events.append])
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
    told = [(event.kind.value, event.channel) for event in events]
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
