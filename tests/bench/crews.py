"""The work of a worker: messages to a handler in several threads, and jobs to a thread pool.

The rule: everything is there before the crew begins, and a run ends when the last one is done.

Next: deferrals.py
"""

from concurrent.futures import ThreadPoolExecutor

from loops import BODY
from timing import Loop

from nsqlite import Message, Topic, Worker


def worker(threads: int) -> Loop:
    """Publish so many messages and have a worker's threads do nothing with each."""
    topic: Topic[bytes] = Topic("bench")
    channel = topic.channel("a")

    def handle(message: Message[bytes]) -> None:
        """Do nothing."""

    def loop(rounds: int) -> None:
        with Worker(channel, handle, concurrency=threads) as crew:
            for _ in range(rounds):
                topic.put(BODY)
            crew.join()

    return loop


def pool(threads: int) -> Loop:
    """Submit so many jobs that do nothing to a thread pool."""

    def handle(body: bytes) -> None:
        """Do nothing."""

    def loop(rounds: int) -> None:
        with ThreadPoolExecutor(threads) as crew:
            for _ in range(rounds):
                crew.submit(handle, BODY)

    return loop
