"""The side of a consumer that answers: fin, req, touch, move, close."""

import logging
import math
from typing import Any

import pytest
from helpers import Call, TellingClock

import nsqlite
from nsqlite import (
    Closed,
    Consumer,
    Full,
    InvalidMessage,
    InvalidOption,
    NotInFlight,
    State,
    Topic,
    WindowFull,
)
from nsqlite.testing import ManualClock


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
    assert 9 == channel.in_flight()[0].due
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
    assert "unknown" == info.value.reason
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
