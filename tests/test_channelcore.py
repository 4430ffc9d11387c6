"""A channel's consumers and its life."""

import gc

import pytest
from helpers import Call, TellingClock

import nsqlite
from nsqlite import Closed, Consumer, Empty, Topic
from nsqlite.testing import ManualClock


def test_delete_frees_the_name() -> None:
    """Delete drops the messages and ends the consumers; the name gives a new channel."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put(b"1")
    assert 1 == channel.delete()
    assert 0 == channel.delete()
    assert channel.closed
    assert "<Channel orders:billing deleted>" == repr(channel)
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


def test_a_consumer_forgotten_in_the_middle_of_a_call() -> None:
    """A snapshot that is being made when a consumer is forgotten does not show it."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    with topic._guard.lock:
        del consumer
        gc.collect()
        assert 0 == channel._stats().client_count
