"""The work of event loops: messages through nsqlite and through `asyncio.Queue`.

The rule: both sides of a comparison run in a loop of their own that is made before, and do as much
for each message.

Next: crews.py
"""

import asyncio
import weakref
from collections.abc import Callable, Coroutine
from threading import Thread
from typing import Any

from loops import BODY
from timing import Loop

from nsqlite import Topic, aio


def in_a_loop(work: Callable[[int], Coroutine[Any, Any, object]]) -> Loop:
    """Return what does a coroutine's rounds in a loop of its own."""
    runner = asyncio.Runner()
    runner.get_loop()

    def loop(rounds: int) -> None:
        with runner:
            runner.run(work(rounds))

    return loop


def alone() -> Loop:
    """Put one, get one and finish it, in one task."""
    topic: Topic[bytes] = Topic("bench")
    consumer = aio.Consumer(topic.channel("a"))
    put, get, fin = aio.put, consumer.get, consumer.fin

    async def work(rounds: int) -> None:
        for _ in range(rounds):
            await put(topic, BODY)
            fin(await get())

    return in_a_loop(work)


def alone_queue() -> Loop:
    """Put one and get one, in one task."""
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    put, get = queue.put, queue.get

    async def work(rounds: int) -> None:
        for _ in range(rounds):
            await put(BODY)
            await get()

    return in_a_loop(work)


def subscribers(count: int) -> Loop:
    """Publish one, and get and finish it in each of so many channels."""
    topic: Topic[bytes] = Topic("bench")
    consumers = [aio.Consumer(topic.channel(f"c{number}")) for number in range(count)]
    hands = [(consumer.get, consumer.fin) for consumer in consumers]

    async def work(rounds: int) -> None:
        for _ in range(rounds):
            await aio.put(topic, BODY)
            for get, fin in hands:
                fin(await get())

    return in_a_loop(work)


def subscribers_queue(count: int) -> Loop:
    """Put one into each of so many queues, and get it from each."""
    queues: list[asyncio.Queue[bytes]] = [asyncio.Queue() for _ in range(count)]
    hands = [(queue.put, queue.get) for queue in queues]

    async def work(rounds: int) -> None:
        for _ in range(rounds):
            for put, _get in hands:
                await put(BODY)
            for _put, get in hands:
                await get()

    return in_a_loop(work)


def bridge() -> Loop:
    """Put in a thread; get and finish in a loop."""
    topic: Topic[bytes] = Topic("bench")
    consumer = aio.Consumer(topic.channel("a"))

    async def work(rounds: int) -> None:
        def produce() -> None:
            for _ in range(rounds):
                topic.put(BODY)

        thread = Thread(target=produce)
        thread.start()
        for _ in range(rounds):
            consumer.fin(await consumer.get())
        thread.join()

    return in_a_loop(work)


def bridge_queue() -> Loop:
    """Put in a thread, calling into the loop for each; get in the loop."""
    queue: asyncio.Queue[bytes] = asyncio.Queue()

    async def work(rounds: int) -> None:
        loop = asyncio.get_running_loop()

        def produce() -> None:
            for _ in range(rounds):
                loop.call_soon_threadsafe(queue.put_nowait, BODY)

        thread = Thread(target=produce)
        thread.start()
        for _ in range(rounds):
            await queue.get()
        thread.join()

    return in_a_loop(work)


def crowd(waiters: int) -> Loop:
    """Publish one to the first of so many who wait; he finishes it and waits again."""
    topic: Topic[bytes] = Topic("bench")
    channel = topic.channel("a")
    runner = asyncio.Runner()
    left = 0
    over: asyncio.Future[None]

    async def consume() -> None:
        nonlocal left
        consumer = aio.Consumer(channel)
        while True:
            consumer.fin(await consumer.get())
            left -= 1
            if left:
                topic.put(BODY)
            else:
                over.set_result(None)

    async def gather() -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(consume()) for _ in range(waiters)]
        await asyncio.sleep(0)
        return tasks

    async def pass_on(rounds: int) -> None:
        nonlocal left, over
        left = rounds
        over = asyncio.get_running_loop().create_future()
        topic.put(BODY)
        await over

    tasks = runner.run(gather())

    def loop(rounds: int) -> None:
        runner.run(pass_on(rounds))

    def end() -> None:
        tasks.clear()
        runner.close()

    weakref.finalize(loop, end)
    return loop
