"""Delivering: what only the inside shows; the rest is in test_channel.py and test_consumer.py."""

from typing import Any

import pytest

import nsqlite
from nsqlite import Consumer, State, Topic
from nsqlite.testing import ManualClock
from nsqlite.waiter import Waiter


def test_the_short_path_is_taken() -> None:
    """While all is calm get and fin pass the gate; a pause, a bound or a measure shuts it."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    gate = channel._flow.gate
    consumer = Consumer(channel)
    topic.put_many([b"1", b"2"])
    consumer.get(timeout=0)
    assert gate.quiet
    assert gate.fresh > clock.monotonic_ns()
    channel.pause()
    assert (False, 0) == (gate.quiet, gate.fresh)
    channel.unpause()
    assert gate.quiet
    bounded = topic.channel("bounded", max_depth=5)
    measured = topic.channel("measured", e2e_processing_latency_percentiles=(0.5,))
    for other in (bounded, measured):
        topic.put(b"3")
        Consumer(other).get(timeout=0)
        assert (False, 0) == (other._flow.gate.quiet, other._flow.gate.fresh)


def test_ticks_that_are_empty_are_cleared_away() -> None:
    """However many messages come and go one at a time, few ticks are left."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    for _ in range(50):
        topic.put_many([b"1", b"2"])
        first, second = consumer.get_many(2, timeout=0)
        clock.advance(0.1)
        first.touch()
        consumer.fin_many([first, second])
        assert len(list(channel._flow.timeouts.ticks())) <= 1


def test_give_back_of_what_timed_out() -> None:
    """A message that timed out meanwhile is not given back a second time."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    topic.put(b"1")
    message = Consumer(channel).get(timeout=0)
    clock.advance(60)
    topic._guard.run(channel._flow.give_back, message, message._record)
    assert 1 == channel.depth
    topic._check()


def test_check_finds_a_message_in_two_places() -> None:
    """The invariants can fail: a record put in twice is found."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    topic.put(b"1")
    channel._flow.ready.append(channel._flow.ready[0])
    with pytest.raises(AssertionError, match="a message is in two places"):
        channel._check()


def test_a_time_out_opens_a_window() -> None:
    """A consumer whose messages timed out may get again."""
    clock = ManualClock(autojump=True)
    topic = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"), max_in_flight=1)
    topic.put(b"1")
    consumer.get(timeout=0)
    assert 2 == consumer.get().attempts
    assert isinstance(consumer, nsqlite.Consumer)
    topic._check()


def test_a_wheel_that_a_signal_left_wrong() -> None:
    """A deadline that was announced and never came to be brings nothing, early or ever."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put(b"1", delay=10)
    topic.put(b"2")
    message = consumer.get()
    clock.advance(5)
    flow = channel._flow
    for wheel in (flow.timeouts, flow.deferred):
        wheel.next_due = 1
        wheel._whole = False
    flow._set_due(1)
    assert (1, 1) == (channel.in_flight_count, channel.deferred_count)
    clock.advance(5)
    assert (1, State.IN_FLIGHT) == (channel.depth, message.state)
    topic._check()


def test_a_hand_over_to_who_is_awake_already() -> None:
    """A waiter that was rung for another reason finds the message all the same."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put(b"1")
    consumer.get().fin()  # from here on there is a tick to hand over with
    waiter: Waiter[Any] = Waiter(consumer)
    topic._guard.run(channel._receive, consumer, waiter)
    waiter.ring()
    topic.put(b"2")
    assert waiter.message is not None
    assert b"2" == waiter.message.body
    topic._check()
