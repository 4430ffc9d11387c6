"""What cannot be copied."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from nsqlite import Broker, Consumer


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_nothing_that_lives_can_be_copied(duplicate: Callable[[Any], Any]) -> None:
    """A broker, topic, channel, consumer or message is itself, and a copy is refused."""
    broker = Broker()
    topic = broker.topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put(b"order 1")
    message = consumer.get(timeout=0)
    for thing in (broker, topic, channel, consumer, message):
        with pytest.raises(TypeError) as info:
            duplicate(thing)
        text = "cannot be copied or pickled: pass it on, or what is in it"
        assert f"{thing!r} {text}" == str(info.value)
    message.fin()
    topic._check()


def test_snapshots_can_be_copied() -> None:
    """What only tells of them can be."""
    topic = Broker().topic("orders")
    topic.channel("billing")
    topic.put(b"order 1")
    for snapshot in (topic.stats(), topic.channel("billing").peek()):
        assert snapshot == copy.deepcopy(snapshot) == pickle.loads(pickle.dumps(snapshot))  # noqa: S301  # our own
