"""Eight threads that put, get, requeue and let time out: every message is accounted for."""

import random
import threading
from collections import Counter
from functools import partial
from typing import Any

import pytest
from helpers import Call

from nsqlite import Consumer, Empty, NotInFlight, Topic

PRODUCERS = 3
CONSUMERS = 5


@pytest.mark.parametrize(
    "total", [30_000, pytest.param(1_000_000, marks=pytest.mark.soak)], ids=["short", "million"]
)
def test_everything_is_accounted_for(  # noqa: C901, PLR0915 - one scene, told in one piece
    total: int,
) -> None:
    """Each channel sees every message, finishes each once, and none comes twice for no reason."""
    topic: Topic[int] = Topic("orders", msg_timeout=0.05, resolution=0.001)
    channels = [topic.channel("a"), topic.channel("b", max_depth=5000)]
    finished = [Counter[int]() for _ in channels]
    again = [Counter[int]() for _ in channels]
    locks = [threading.Lock() for _ in channels]
    over = threading.Event()

    def produce(part: int) -> int:
        chance = random.Random(part)
        numbers = range(part, total, PRODUCERS)
        done = 0
        while done < len(numbers):
            batch = numbers[done : done + chance.randrange(1, 40)]
            if len(batch) == 1:
                topic.put(batch[0], delay=chance.choice([None, 0.001, 0.01]))
            else:
                topic.put_many(batch)
            done += len(batch)
        return done

    def consume(which: int, seed: int) -> int:
        chance = random.Random(seed)
        count = 0
        with Consumer(channels[which], max_in_flight=chance.choice([None, 50])) as consumer:
            while not over.is_set():
                try:
                    batch = consumer.get_many(20, timeout=0.05)
                except Empty:
                    continue
                for message in batch:
                    count += 1
                    fate = chance.random()
                    try:
                        if fate < 0.03:
                            message.req(delay=chance.choice([0, 0.002]))
                        elif fate < 0.032:
                            pass  # it times out
                        else:
                            message.fin()
                            with locks[which]:
                                finished[which][message.body] += 1
                            continue
                    except NotInFlight:
                        pass
                    with locks[which]:
                        again[which][message.body] += 1
        return count

    consumers = [Call(partial(consume, n % 2, n)) for n in range(CONSUMERS)]
    producers = [Call(partial(produce, n)) for n in range(PRODUCERS)]
    patience = 60 + total / 1000
    assert total == sum(call.result(patience) for call in producers)
    assert topic.join(timeout=patience)
    over.set()
    delivered: list[Any] = [call.result(patience) for call in consumers]
    topic._check()
    for counts in finished:
        assert total == len(counts)
        assert {1} == set(counts.values())
    for channel, repeats in zip(channels, again, strict=True):
        stats = channel.stats()
        assert (total, 0, 0, 0) == (
            stats.message_count,
            stats.depth,
            stats.in_flight_count,
            stats.deferred_count,
        )
        assert stats.requeue_count + stats.timeout_count >= repeats.total()
    assert sum(delivered) >= 2 * total
