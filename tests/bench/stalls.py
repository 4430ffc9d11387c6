"""How long an event loop stands still while its tasks put, get and finish.

The rule: nothing here suspends less often than once a message, so what stalls the loop is none of
this; a callback that comes back in every round of the loop notes the time that has gone by.  Time
in which the thread was ready to run and the processors had other things to do is noted apart, where
the system tells it.

Next: echo.py
"""

import asyncio
import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import get_native_id

import attrs
from loops import BODY

from nsqlite import Broker, SQLite, aio
from nsqlite.store.terms import Sync

TASKS = 4


@attrs.frozen(kw_only=True)
class Stall:
    """What was seen.

    Attributes:
        own: the longest time between two rounds of the loop, in seconds, without that in which it
            waited for a processor.
        whole: the longest time with it.
        finished: how many messages were finished in a second.
    """

    own: float
    whole: float
    finished: float


def without_store(duration: float) -> Stall:
    """Watch a loop whose tasks use a broker that keeps nothing."""
    with Broker() as broker:
        return asyncio.run(_watched(broker, duration))


def with_store(sync: Sync) -> Callable[[float], Stall]:
    """Return what watches a loop whose tasks use a broker with a store."""

    def watch(duration: float) -> Stall:
        with (
            TemporaryDirectory() as directory,
            Broker(store=SQLite(f"{directory}/bench.db", sync=sync)) as broker,
        ):
            broker.topic("bench").channel("a")
            broker.flush()
            return asyncio.run(_watched(broker, duration))

    return watch


@contextmanager
def _unserved() -> Iterator[Callable[[], float]]:
    """Give what tells how long this thread has waited for a processor, in seconds."""
    path = Path(f"/proc/self/task/{get_native_id()}/schedstat")
    if not path.exists():
        yield lambda: 0.0
        return
    number = os.open(path, os.O_RDONLY)
    try:
        yield lambda: int(os.pread(number, 100, 0).split()[1]) / 1e9
    finally:
        os.close(number)


async def _watched(broker: Broker, duration: float) -> Stall:
    gc.collect()
    with _unserved() as unserved:
        return await _watch(broker, duration, unserved)


async def _watch(broker: Broker, duration: float, unserved: Callable[[], float]) -> Stall:
    topic = broker.topic("bench")
    channel = topic.channel("a")
    loop = asyncio.get_running_loop()
    now = time.perf_counter
    own = whole = 0.0
    last, before = now(), unserved()
    end = last + duration
    finished = 0

    def tick() -> None:
        nonlocal own, whole, last, before
        moment, waited = now(), unserved()
        gap = moment - last
        own = max(own, gap - (waited - before))
        whole = max(whole, gap)
        last, before = moment, waited
        if moment < end:
            loop.call_soon(tick)

    async def produce() -> None:
        while now() < end:
            await aio.put(topic, BODY)
            await asyncio.sleep(0)

    async def consume() -> None:
        nonlocal finished
        consumer = aio.Consumer(channel)
        while True:
            consumer.fin(await consumer.get())
            finished += 1
            await asyncio.sleep(0)

    consumers = [loop.create_task(consume()) for _ in range(TASKS)]
    loop.call_soon(tick)
    await asyncio.gather(*(produce() for _ in range(TASKS)))
    for task in consumers:
        task.cancel()
    await asyncio.gather(*consumers, return_exceptions=True)
    return Stall(own=own, whole=whole, finished=finished / duration)
