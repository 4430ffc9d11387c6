"""A soak of a file: many messages through eight threads, and every one accounted for.

pytest -m soak tests/stateful/test_durable_soak.py
"""

import random
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, Literal

import pytest
from helpers import Call

import nsqlite
from nsqlite import Broker, Channel, Closed, Consumer, Message, NotInFlight
from stateful.snapshots import assert_sound, rows_of

PRODUCERS: Final = 4
CHANNELS: Final = ("billing", "audit")

Sync = Literal["full", "normal", "interval"]


class Soak:
    """A topic in a file with two channels, its producers and its consumers."""

    def __init__(self, path: Path, messages: int, sync: Sync) -> None:
        self.path = path
        self.messages = messages
        store = nsqlite.SQLite(path, sync=sync, mem_queue_size=500)
        self.broker = Broker(store=store, msg_timeout=0.5)
        self.topic = self.broker.topic("orders")
        self.channels = [self.topic.channel(name) for name in CHANNELS]
        self.all_put = threading.Semaphore(0)
        self.finished = {channel: bytearray(messages) for channel in self.channels}
        self.consumers = [Consumer(channel) for channel in self.channels for _ in range(2)]

    def produce(self, part: int) -> None:
        """Put every message of its part: alone, in a batch, or to come later."""
        chance = random.Random(part)
        bodies = [b"%d" % number for number in range(part, self.messages, PRODUCERS)]
        while bodies:
            how = chance.random()
            if how < 0.01:
                self.topic.put(bodies.pop(), delay=0.01)
            elif how < 0.9:
                self.topic.put(bodies.pop())
            else:
                self.topic.put_many(bodies[-50:])
                del bodies[-50:]
        self.all_put.release()

    def consume(self, consumer: Consumer[bytes]) -> None:
        """Answer what comes, until all is over."""
        chance = random.Random(consumer.client_id)
        with suppress(Closed):
            while True:
                if chance.random() < 0.9:
                    self.answer(consumer, consumer.get(), chance.random())
                else:
                    for message in consumer.get_many(20):
                        self.answer(consumer, message, chance.random())

    def answer(self, consumer: Consumer[bytes], message: Message[bytes], how: float) -> None:
        """Finish most, requeue some, and leave a few to time out."""
        with suppress(NotInFlight):
            if how < 0.001:
                return
            if how < 0.05:
                message.req(delay=0.01 if how < 0.01 else 0)
                return
            message.fin()
            self.finished[consumer.channel][int(message.body)] += 1

    def check_account(self, channel: Channel[bytes]) -> None:
        """Compare what was delivered with what became of it."""
        stats = channel.stats()
        assert self.messages == stats.message_count
        assert self.messages == sum(client.finish_count for client in stats.clients)
        delivered = self.messages + stats.requeue_count + stats.timeout_count
        assert delivered == sum(client.message_count for client in stats.clients)
        assert (0, 0, 0) == (stats.depth, stats.in_flight_count, stats.deferred_count)


def soak(path: Path, messages: int, sync: Sync, patience: float) -> None:
    run = Soak(path, messages, sync)
    producers = [Call(partial(run.produce, part)) for part in range(PRODUCERS)]
    consumers = [Call(partial(run.consume, consumer)) for consumer in run.consumers]
    assert len(producers) + len(consumers) == 8
    assert all(run.all_put.acquire(timeout=patience) for _ in producers)
    assert [None] * PRODUCERS == [call.result() for call in producers]
    assert run.topic.join(timeout=patience)
    run.broker._check()
    for channel in run.channels:
        run.check_account(channel)
    assert 0 == run.broker.close()
    assert [None] * len(consumers) == [call.result() for call in consumers]
    assert all({1} == set(once) for once in run.finished.values()), "not each was finished once"
    assert_sound(path)
    with Broker(store=nsqlite.SQLite(path)) as broker:
        stats = broker.topic("orders").stats()
        assert [(name, 0, 0) for name in sorted(CHANNELS)] == [
            (one.channel_name, one.depth, one.deferred_count) for one in stats.channels
        ]
    assert {} == rows_of(path)


@pytest.mark.parametrize("sync", ["normal", "interval"])
def test_short_soak_of_a_file(tmp_path: Path, sync: Sync) -> None:
    """Twenty thousand messages go through a file, and each is finished once in each channel."""
    soak(tmp_path / "jobs.db", 20_000, sync, patience=60)


@pytest.mark.soak
def test_soak_of_a_file(tmp_path: Path) -> None:
    """A million messages go through a file, and each is finished once in each channel."""
    soak(tmp_path / "jobs.db", 1_000_000, "normal", patience=3600)
