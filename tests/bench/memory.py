"""What is held in memory: by a message, and by a topic with a channel and a consumer.

The rule: bodies and names are made before the counting begins, so nothing of them is counted.

Next: imports.py
"""

import gc
import tracemalloc
from collections.abc import Callable
from itertools import pairwise

from loops import topic_with
from topics import make_all, names

from nsqlite import Broker, Message


def allocated(*works: Callable[[], object]) -> list[int]:
    """Return the bytes that each of the works, one after the other, has left allocated."""
    gc.collect()  # empties the free lists too: what comes from them is not counted
    tracemalloc.start()
    try:
        held = [tracemalloc.get_traced_memory()[0]]
        for work in works:
            work()
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    return [after - before for before, after in pairwise(held)]


def of_messages(count: int) -> tuple[float, float]:
    """Return the bytes that each of so many takes: ready, and in flight besides.

    A message in flight is what its consumer has, too: the `Message` is counted, the place where it
    is kept is not.
    """
    bodies = [number.to_bytes(100, "big") for number in range(count)]
    topic, [consumer] = topic_with()
    kept: list[Message[bytes] | None] = [None] * count

    def put() -> None:
        for body in bodies:
            topic.put(body)

    def get() -> None:
        for number in range(count):
            kept[number] = consumer.get()

    ready, besides = allocated(put, get)
    return ready / count, besides / count


def of_topics(count: int) -> float:
    """Return the bytes that each of so many topics of a broker takes."""
    broker, some = Broker(), names(count)
    kept: list[object] = []
    [taken] = allocated(lambda: kept.append(make_all(broker, some)))
    return taken / count
