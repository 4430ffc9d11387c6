"""The work of a worker: messages to a handler in threads or tasks, and the same written by hand.

The rule: a run begins with nothing there, puts one at a time, and ends when the last one is done;
by hand the same function is called with each body.

Next: deferrals.py
"""

import asyncio
import os
import tempfile
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

from awaits import in_a_loop
from loops import BODY
from timing import Loop

from nsqlite import Message, Topic, Worker, aio

ROOM = 1000
"""How many lines wait at most."""


def handle(given: Message[Any] | object) -> None:
    """Do nothing."""


async def handle_async(given: Message[Any] | object) -> None:
    """Do nothing."""


def worker(threads: int) -> Loop:
    """Publish so many messages and have a worker's threads do nothing with each."""
    topic: Topic[bytes] = Topic("bench")
    channel = topic.channel("a")

    def loop(rounds: int) -> None:
        with Worker(channel, handle, concurrency=threads) as crew:
            for _ in range(rounds):
                topic.put(BODY)
            crew.join()

    return loop


def by_hand(threads: int) -> Loop:
    """Put so many bodies into a queue, and have threads do nothing with each."""

    def loop(rounds: int) -> None:
        queue: Queue[bytes | None] = Queue()
        crew = consumers(queue, threads)
        for _ in range(rounds):
            queue.put(BODY)
        end(queue, crew)

    return loop


def consumers(queue: Queue[Any], threads: int) -> list[Thread]:
    """Start threads that get from a queue until they get None."""

    def consume() -> None:
        while (body := queue.get()) is not None:
            handle(body)

    crew = [Thread(target=consume) for _ in range(threads)]
    for thread in crew:
        thread.start()
    return crew


def end(queue: Queue[Any], crew: list[Thread]) -> None:
    """Wait until threads have done all that is in their queue."""
    for _ in crew:
        queue.put(None)
    for thread in crew:
        thread.join()


def pool(threads: int) -> Loop:
    """Submit so many jobs that do nothing to a thread pool."""

    def loop(rounds: int) -> None:
        with ThreadPoolExecutor(threads) as crew:
            for _ in range(rounds):
                crew.submit(handle, BODY)

    return loop


# In an event loop


def worker_async() -> Loop:
    """Publish so many messages and have a worker's task do nothing with each."""
    topic: Topic[bytes] = Topic("bench")
    channel = topic.channel("a")

    async def work(rounds: int) -> None:
        async with Worker(channel, handle_async) as crew:
            for _ in range(rounds):
                topic.put(BODY)
            await aio.join(crew)

    return in_a_loop(work)


def by_hand_async() -> Loop:
    """Put so many bodies into a queue, and have a task do nothing with each."""

    async def work(rounds: int) -> None:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def consume() -> None:
            while (body := await queue.get()) is not None:
                await handle_async(body)

        task = asyncio.create_task(consume())
        for _ in range(rounds):
            await queue.put(BODY)
        await queue.put(None)
        await task

    return in_a_loop(work)


# The lines of a file


def lines(count: int, threads: int) -> Loop:
    """Publish each line of a file, bounded, and have a worker's threads do nothing with it."""
    topic: Topic[str] = Topic("bench", max_depth=ROOM)
    channel = topic.channel("a")
    file = file_of(count)

    def loop(_rounds: int) -> None:
        with Worker(channel, handle, concurrency=threads) as crew, file.open() as text:
            for line in text:
                topic.put(line)
            crew.join()

    weakref.finalize(loop, file.unlink)
    return loop


def lines_by_hand(count: int, threads: int) -> Loop:
    """Put each line of a file into a bounded queue, and have threads do nothing with it."""
    file = file_of(count)

    def loop(_rounds: int) -> None:
        queue: Queue[str | None] = Queue(ROOM)
        crew = consumers(queue, threads)
        with file.open() as text:
            for line in text:
                queue.put(line)
        end(queue, crew)

    weakref.finalize(loop, file.unlink)
    return loop


def file_of(count: int) -> Path:
    """Return a new file of so many lines."""
    handle, name = tempfile.mkstemp(prefix="bench", suffix=".txt")
    with os.fdopen(handle, "w") as file:
        file.writelines(f"{number:08} {'x' * 90}\n" for number in range(count))
    return Path(name)
