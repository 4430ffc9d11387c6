"""The work of event loops: messages through nsqlite and through `asyncio.Queue`.

The rule: both sides of a comparison run in a loop of their own that is made before, and do as much
for each message.

Next: crews.py
"""

import asyncio
import weakref
from collections.abc import Callable, Coroutine
from threading import Thread
from typing import Any, Unpack

from loops import BODY
from timing import Loop

from nsqlite import Topic, TopicOptions, aio


def in_a_loop(work: Callable[[int], Coroutine[Any, Any, object]]) -> Loop:
    """Return what does a coroutine's rounds in a loop of its own."""
    runner = asyncio.Runner()
    runner.get_loop()

    def loop(rounds: int) -> None:
        with runner:
            runner.run(work(rounds))

    return loop


def alone(**options: Unpack[TopicOptions]) -> Loop:
    """Put one, get one and finish it, in one task."""
    topic: Topic[bytes] = Topic("bench", **options)
    consumer = aio.Consumer(topic.channel("a"))

    async def work(rounds: int) -> None:
        for _ in range(rounds):
            await aio.put(topic, BODY)
            consumer.fin(await consumer.get())

    return in_a_loop(work)


def alone_queue() -> Loop:
    """Put one and get one, in one task."""
    queue: asyncio.Queue[bytes] = asyncio.Queue()

    async def work(rounds: int) -> None:
        for _ in range(rounds):
            await queue.put(BODY)
            await queue.get()

    return in_a_loop(work)


def ping_pong() -> Loop:
    """Send a message to another task and have it back; each get waits.  A round is one hop."""
    there, back = Topic[bytes]("there"), Topic[bytes]("back")
    far, near = (aio.Consumer(topic.channel("a")) for topic in (there, back))

    async def work(rounds: int) -> None:
        async def answer() -> None:
            for _ in range(rounds // 2):
                message = await far.get()
                await aio.put(back, message.body)
                far.fin(message)

        other = asyncio.create_task(answer())
        for _ in range(rounds // 2):
            await aio.put(there, BODY)
            near.fin(await near.get())
        await other

    return in_a_loop(work)


def ping_pong_queue() -> Loop:
    """Send a body to another task and have it back; each get waits.  A round is one hop."""
    there: asyncio.Queue[bytes] = asyncio.Queue()
    back: asyncio.Queue[bytes] = asyncio.Queue()

    async def work(rounds: int) -> None:
        async def answer() -> None:
            for _ in range(rounds // 2):
                await back.put(await there.get())

        other = asyncio.create_task(answer())
        for _ in range(rounds // 2):
            await there.put(BODY)
            await back.get()
        await other

    return in_a_loop(work)


def ring(tasks: int, laps: int) -> Loop:
    """Send a message round a ring of tasks, each of which waits for it; a round is one hop."""
    topics = [Topic[bytes](f"t{number}") for number in range(tasks)]
    consumers = [aio.Consumer(topic.channel("a")) for topic in topics]
    runner = asyncio.Runner()

    async def pass_on(consumer: aio.Consumer[bytes], topic: Topic[bytes]) -> None:
        for _ in range(laps):
            message = await consumer.get()
            await aio.put(topic, message.body)
            consumer.fin(message)

    async def begin() -> list[asyncio.Task[None]]:
        following = [*topics[1:], topics[0]]
        pairs = zip(consumers, following, strict=True)
        waiting = [asyncio.create_task(pass_on(*pair)) for pair in pairs]
        await asyncio.sleep(0)
        return waiting

    async def go_round(waiting: list[asyncio.Task[None]]) -> None:
        await aio.put(topics[0], BODY)
        await asyncio.gather(*waiting)

    waiting = runner.run(begin())

    def loop(rounds: int) -> None:
        assert rounds == tasks * laps
        with runner:
            runner.run(go_round(waiting))

    return loop


def subscribers(count: int) -> Loop:
    """Publish one to so many tasks, each of which waits for it in a channel of its own."""
    topic: Topic[bytes] = Topic("bench")
    consumers = [aio.Consumer(topic.channel(f"c{number}")) for number in range(count)]

    async def work(rounds: int) -> None:
        taken = 0

        async def subscribe(consumer: aio.Consumer[bytes]) -> None:
            nonlocal taken
            for _ in range(rounds):
                consumer.fin(await consumer.get())
                taken += 1

        tasks = [asyncio.create_task(subscribe(consumer)) for consumer in consumers]
        await asyncio.sleep(0)
        for number in range(1, rounds + 1):
            await aio.put(topic, BODY)
            while taken < number * count:  # noqa: ASYNC110 - one round of the loop is enough
                await asyncio.sleep(0)
        await asyncio.gather(*tasks)

    return in_a_loop(work)


def subscribers_queue(count: int) -> Loop:
    """Put one into each of so many queues, in each of which a task waits for it."""
    queues: list[asyncio.Queue[bytes]] = [asyncio.Queue() for _ in range(count)]

    async def work(rounds: int) -> None:
        taken = 0

        async def subscribe(queue: asyncio.Queue[bytes]) -> None:
            nonlocal taken
            for _ in range(rounds):
                await queue.get()
                taken += 1

        tasks = [asyncio.create_task(subscribe(queue)) for queue in queues]
        await asyncio.sleep(0)
        for number in range(1, rounds + 1):
            for queue in queues:
                await queue.put(BODY)
            while taken < number * count:  # noqa: ASYNC110 - one round of the loop is enough
                await asyncio.sleep(0)
        await asyncio.gather(*tasks)

    return in_a_loop(work)


def gathered(count: int) -> Loop:
    """Publish one, and get and finish it in each of so many channels, in one task."""
    topic: Topic[bytes] = Topic("bench")
    consumers = [aio.Consumer(topic.channel(f"c{number}")) for number in range(count)]

    async def work(rounds: int) -> None:
        for _ in range(rounds):
            await aio.put(topic, BODY)
            for consumer in consumers:
                consumer.fin(await consumer.get())

    return in_a_loop(work)


def gathered_queue(count: int) -> Loop:
    """Put one into each of so many queues, and get it from each, in one task."""
    queues: list[asyncio.Queue[bytes]] = [asyncio.Queue() for _ in range(count)]

    async def work(rounds: int) -> None:
        for _ in range(rounds):
            for queue in queues:
                await queue.put(BODY)
            for queue in queues:
                await queue.get()

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
