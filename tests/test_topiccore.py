"""A topic's channels and its life."""

from typing import Any

import pytest
from helpers import Call, TellingClock, bodies

import nsqlite
from nsqlite import Closed, Consumer, Topic
from nsqlite.guard import Guard
from nsqlite.testing import ManualClock


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
    assert "unknown" == late.value.reason
    for call in (topic.pause, topic.unpause, topic.empty):
        with pytest.raises(Closed):
            call()
    assert 0 == topic.close()
    assert "<Topic 'orders' deleted>" == repr(topic)
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
    """A paused, draining topic that is emptied closes."""
    topic = Topic("orders")
    topic.channel("billing")
    topic.pause()
    topic.put(b"1")
    topic.close(drain=True)
    assert 1 == topic.empty()
    assert topic.closed


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
    assert channel is topic._guard.run(topic._create, "billing", topic.options)


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


def test_a_join_is_woken_though_a_signal_kept_it_from_being_rung(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A topic that was emptied in an interrupted call is idle for whoever joins it."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    topic.put(b"1")
    call = Call(topic.join)
    clock.until_waiting()

    def struck(_guard: Guard) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(Guard, "ring_joiners", struck)
    with pytest.raises(KeyboardInterrupt):
        topic.empty()
    assert call.result() is True
    topic._check()


def test_whoever_waits_looks_again_after_a_fork() -> None:
    """In the child of a fork the lines are empty; a thread that is still there lines up anew."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing", max_depth=1)
    topic.put(b"1")
    calls = [Call(topic.join), Call(lambda: topic.put(b"2"))]
    for _ in calls:
        clock.until_waiting()
    with topic._guard.lock:
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
