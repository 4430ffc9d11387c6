"""A soak in which consumers come and go: nothing is lost, and nothing is finished twice.

    pytest -m soak tests/stateful/test_churn.py

Four threads put and four consume, each in one channel after the other; a consumer that leaves gives
back what it has not answered.  Meanwhile messages time out, and topic and channels are paused.
"""

import random
from contextlib import suppress
from functools import partial
from typing import Final

import pytest
from helpers import Call

from nsqlite import Channel, Closed, Consumer, Empty, Message, NotInFlight, Topic

THREADS: Final = 4
"""That put, and as many that consume."""


class Churn:
    """A topic with three channels, and what its threads do."""

    def __init__(self, messages: int) -> None:
        self.messages = messages
        self.topic: Topic[int] = Topic("orders", msg_timeout=0.05)
        self.channels = [
            self.topic.channel("wide"),
            self.topic.channel("narrow", max_depth=200),
            self.topic.channel("late"),
        ]
        self.finished = {channel: bytearray(messages) for channel in self.channels}

    def produce(self, part: int) -> None:
        """Put every message of its part: alone, in a batch, or to come later."""
        chance = random.Random(part)
        numbers = list(range(part, self.messages, THREADS))
        while numbers:
            how = chance.random()
            if how < 0.02:
                self.topic.put(numbers.pop(), delay=chance.choice([0.001, 0.02]))
            elif how < 0.9:
                self.topic.put(numbers.pop())
            else:
                self.topic.put_many(numbers[-20:])
                del numbers[-20:]

    def consume(self, part: int) -> None:
        """Be one consumer after the other, until the topic is closed."""
        chance = random.Random(part)
        with suppress(Closed):
            while True:
                self.visit(chance)

    def visit(self, chance: random.Random) -> None:
        """Consume in one channel for a while, and leave."""
        if chance.random() < 0.02:
            places: list[Topic[int] | Channel[int]] = [self.topic, *self.channels]
            place = chance.choice(places)
            place.pause()
            place.unpause()
        if chance.random() < 0.05:
            with Consumer(self.topic.channel("live#ephemeral")) as passing, suppress(Empty):
                passing.get_many(5, timeout=0.001)
        channel = chance.choice(self.channels)
        window = chance.choice([None, 1, 50])
        with Consumer(channel, max_in_flight=window) as consumer, suppress(Empty):
            for _ in range(chance.randrange(1, 20)):
                for message in consumer.get_many(chance.choice([1, 1, 50]), timeout=0.002):
                    self.answer(consumer, message, chance.random())

    def answer(self, consumer: Consumer[int], message: Message[int], how: float) -> None:
        """Finish most, requeue and touch some, and leave a few to time out or to be given back."""
        with suppress(NotInFlight):
            if how < 0.01:
                return
            if how < 0.06:
                message.req(delay=0.005 if how < 0.02 else 0)
                return
            if how < 0.1:
                message.touch()
            message.fin()
            self.finished[consumer.channel][message.body] += 1


def churn(messages: int, patience: float) -> None:
    run = Churn(messages)
    producers = [Call(partial(run.produce, part)) for part in range(THREADS)]
    consumers = [Call(partial(run.consume, part)) for part in range(THREADS)]
    assert [None] * THREADS == [call.result(patience) for call in producers]
    assert run.topic.join(timeout=patience)
    run.topic._check()
    for channel in run.channels:
        stats = channel.stats()
        assert messages == stats.message_count
        assert (0, 0, 0) == (stats.depth, stats.in_flight_count, stats.deferred_count)
    run.topic.close()
    assert [None] * THREADS == [call.result() for call in consumers]
    assert all({1} == set(once) for once in run.finished.values()), "not each was finished once"


def test_short_churn() -> None:
    """Three thousand messages are each finished once in each channel, whoever came and went."""
    churn(3_000, patience=60)


@pytest.mark.soak
def test_churn() -> None:
    """Two hundred thousand messages are each finished once, whoever came and went."""
    churn(200_000, patience=1200)
