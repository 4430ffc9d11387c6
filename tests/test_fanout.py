"""How a topic hands on: what only the inside shows."""

import signal
from typing import Any

import pytest

from nsqlite import Consumer, Topic
from nsqlite.testing import ManualClock


class Interrupt(Exception):
    """Thrown in the middle of a fan-out."""


def test_short_path() -> None:
    """The short path is there for one channel and several, and not where something is special."""
    topic = Topic("orders")
    assert topic._guard.short_path is None
    first = topic.channel("first")
    assert topic._guard.short_path == first._flow.ready.append
    second = topic.channel("second")
    assert topic._guard.short_path == topic._fan._to_several
    topic.pause()
    assert topic._guard.short_path is None
    topic.unpause()
    bounded = topic.channel("bounded", max_depth=1)
    assert topic._guard.short_path is None
    bounded.delete()
    second.delete()
    assert topic._guard.short_path == first._flow.ready.append
    topic.close()
    assert topic._guard.short_path is None


@pytest.mark.parametrize("several", [1, 3])
def test_an_interrupted_fan_out_is_completed(several: int) -> None:
    """A signal that throws in the middle of a put to several channels keeps none of them out."""

    class Sender:
        """A stand-in for a queue: a signal comes right after the append."""

        def __init__(self, ready: Any) -> None:
            self.ready = ready

        def append(self, record: Any) -> None:
            self.ready.append(record)
            signal.raise_signal(signal.SIGUSR1)

    def handler(_signum: int, _frame: Any) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        topic = Topic("orders")
        channels = [topic.channel(f"c{n}") for n in range(several + 1)]
        fan: Any = topic._fan
        fan._readies = (Sender(channels[0]._flow.ready), *fan._readies[1:])
        with pytest.raises(Interrupt):
            topic.put(b"1")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert [1] * (several + 1) == [channel.depth for channel in channels]
    topic._check()


def test_a_call_made_in_the_middle_of_a_fan_out() -> None:
    """A nested put waits for the outer one and then reaches every channel."""
    topic = Topic("orders")
    first, second = topic.channel("first"), topic.channel("second")
    nested: list[str] = []

    class Sender:
        """A stand-in for a queue: a signal handler puts right after the append."""

        def append(self, record: Any) -> None:
            first._flow.ready.append(record)
            if not nested:
                nested.append("begun")
                nested.append(topic.put(b"nested"))

    fan: Any = topic._fan
    fan._readies = (Sender(), *fan._readies[1:])
    outer = topic.put(b"outer")
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
