"""The work of several threads: one message to and fro, a stream, and a crowd.

The rule: a loop ends when the other thread has, so all that was put has been taken.

Next: awaits.py
"""

from collections.abc import Callable
from queue import Queue
from threading import Thread

from loops import BODY, topic_with
from timing import Loop


def stream() -> Loop:
    """Put in this thread; get and finish in another."""
    topic, [consumer] = topic_with()

    def loop(rounds: int) -> None:
        def consume() -> None:
            for _ in range(rounds):
                consumer.fin(consumer.get())

        thread = Thread(target=consume)
        thread.start()
        for _ in range(rounds):
            topic.put(BODY)
        thread.join()

    return loop


def stream_queue() -> Loop:
    """Put in this thread; get in another."""
    channel: Queue[bytes] = Queue()

    def loop(rounds: int) -> None:
        def consume() -> None:
            for _ in range(rounds):
                channel.get()

        thread = Thread(target=consume)
        thread.start()
        for _ in range(rounds):
            channel.put(BODY)
        thread.join()

    return loop


def crowd(threads: int) -> Loop:
    """Put in so many threads; get and finish in as many others."""
    topic, [consumer] = topic_with()

    def loop(rounds: int) -> None:
        def produce() -> None:
            for _ in range(rounds // threads):
                topic.put(BODY)

        def consume() -> None:
            for _ in range(rounds // threads):
                consumer.fin(consumer.get())

        run_all([produce, consume] * threads)

    return loop


def crowd_queue(threads: int) -> Loop:
    """Put in so many threads; get in as many others."""
    channel: Queue[bytes] = Queue()

    def loop(rounds: int) -> None:
        def produce() -> None:
            for _ in range(rounds // threads):
                channel.put(BODY)

        def consume() -> None:
            for _ in range(rounds // threads):
                channel.get()

        run_all([produce, consume] * threads)

    return loop


def run_all(works: list[Callable[[], None]]) -> None:
    """Do each work in a thread of its own, and wait for all."""
    crew = [Thread(target=work) for work in works]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()


def ping_pong() -> Loop:
    """Send a message through one topic and have it back through another."""
    there, [far] = topic_with()
    back, [near] = topic_with()

    def loop(rounds: int) -> None:
        def answer() -> None:
            for _ in range(rounds):
                message = far.get()
                back.put(message.body)
                far.fin(message)

        thread = Thread(target=answer)
        thread.start()
        for _ in range(rounds):
            there.put(BODY)
            near.fin(near.get())
        thread.join()

    return loop


def ping_pong_queue() -> Loop:
    """Send a message through one `Queue` and have it back through another."""
    there: Queue[bytes] = Queue()
    back: Queue[bytes] = Queue()

    def loop(rounds: int) -> None:
        def answer() -> None:
            for _ in range(rounds):
                back.put(there.get())

        thread = Thread(target=answer)
        thread.start()
        for _ in range(rounds):
            there.put(BODY)
            back.get()
        thread.join()

    return loop
