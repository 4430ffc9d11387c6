"""A soak: many messages through eight threads, and every one accounted for in every channel."""

import random
import threading
from contextlib import suppress
from functools import partial
from typing import Final

import pytest
from helpers import Call

from nsqlite import Channel, Closed, Consumer, Message, NotInFlight, Topic

PRODUCERS: Final = 2
CONSUMERS: Final = 3
"""For each of the two channels, so that there are eight threads."""


class Soak:
    """A topic with two channels, its producers and its consumers."""

    def __init__(self, messages: int) -> None:
        self.messages = messages
        self.topic: Topic[int] = Topic("orders", msg_timeout=0.1)
        self.channels = [
            self.topic.channel("wide"),
            self.topic.channel("narrow", max_depth=500),
        ]
        self.all_put = threading.Semaphore(0)
        self.finished = {channel: bytearray(messages) for channel in self.channels}
        self.consumers = [
            Consumer(channel, max_in_flight=window)
            for channel in self.channels
            for window in (None, 10, 100)
        ]

    def produce(self, part: int) -> None:
        """Put every message of its part: alone, in a batch, or to come later."""
        chance = random.Random(part)
        numbers = list(range(part, self.messages, PRODUCERS))
        while numbers:
            how = chance.random()
            if how < 0.01:
                self.topic.put(numbers.pop(), delay=0.01)
            elif how < 0.9:
                self.topic.put(numbers.pop())
            else:
                self.topic.put_many(numbers[-50:])
                del numbers[-50:]
        self.all_put.release()

    def consume(self, consumer: Consumer[int]) -> None:
        """Answer what comes, until all is over."""
        chance = random.Random(consumer.client_id)
        with suppress(Closed):
            while True:
                if chance.random() < 0.9:
                    self.answer(consumer, consumer.get(), chance.random())
                else:
                    for message in consumer.get_many(20):
                        self.answer(consumer, message, chance.random())

    def answer(self, consumer: Consumer[int], message: Message[int], how: float) -> None:
        """Finish most, requeue and touch some, and leave a few to time out."""
        with suppress(NotInFlight):
            if how < 0.001:
                return
            if how < 0.05:
                message.req(delay=0.01 if how < 0.01 else 0)
                return
            if how < 0.1:
                message.touch()
            message.fin()
            self.finished[consumer.channel][message.body] += 1

    def check_account(self, channel: Channel[int]) -> None:
        """Compare what was delivered with what became of it."""
        stats = channel.stats()
        assert stats.message_count == self.messages
        assert stats.timeout_count >= self.messages // 10_000
        clients = stats.clients
        assert self.messages == sum(client.finish_count for client in clients)
        assert stats.requeue_count == sum(client.requeue_count for client in clients)
        delivered = self.messages + stats.requeue_count + stats.timeout_count
        assert delivered == sum(client.message_count for client in clients)
        assert (0, 0, 0) == (stats.depth, stats.in_flight_count, stats.deferred_count)


def soak(messages: int, patience: float) -> None:
    run = Soak(messages)
    producers = [Call(partial(run.produce, part)) for part in range(PRODUCERS)]
    consumers = [Call(partial(run.consume, consumer)) for consumer in run.consumers]
    assert len(producers) + len(consumers) == 8
    assert all(run.all_put.acquire(timeout=patience) for _ in producers)
    assert [None] * PRODUCERS == [call.result() for call in producers]
    assert run.topic.join(timeout=patience)
    run.topic._check()
    for channel in run.channels:
        run.check_account(channel)
    assert 0 == run.topic.close()
    assert [None] * 6 == [call.result() for call in consumers]
    assert all({1} == set(once) for once in run.finished.values()), "not each was finished once"


def test_short_soak() -> None:
    """Twenty thousand messages are each finished once in each channel, whatever came between."""
    soak(20_000, patience=60)


@pytest.mark.soak
def test_soak() -> None:
    """A million messages are each finished once in each channel, whatever came between."""
    soak(1_000_000, patience=3600)
