"""What a ready message takes beyond its body.

The rule: the bodies are made before the counting begins, so nothing of them is counted.

Next: imports.py
"""

import gc
import tracemalloc
from collections.abc import Callable

from loops import topic_with


def allocated(work: Callable[[], object]) -> int:
    """Return the bytes that were allocated by the work and are still held after it."""
    gc.collect()  # empties the free lists too: what comes from them is not counted
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        work()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before


def beyond_body(count: int, channels: int) -> float:
    """Return the bytes for each of so many messages, put one by one into so many channels."""
    bodies = [number.to_bytes(100, "big") for number in range(count)]
    topic, consumers = topic_with(channels)
    put = topic.put

    def work() -> None:
        for body in bodies:
            put(body)

    taken = allocated(work)
    assert all(consumer.channel.depth == count for consumer in consumers)
    return taken / count
