"""The work of two threads: a stream from one to the other, and one message to and fro.

The rule: a loop ends when the other thread has, so all that was put has been taken.

Next: awaits.py
"""

from queue import Queue
from threading import Thread

from loops import BODY, topic_with
from timing import Loop


def stream() -> Loop:
    """Put in this thread; get and finish in another."""
    topic, [consumer] = topic_with()
    put, get, fin = topic.put, consumer.get, consumer.fin

    def loop(rounds: int) -> None:
        def consume() -> None:
            for _ in range(rounds):
                fin(get())

        thread = Thread(target=consume)
        thread.start()
        for _ in range(rounds):
            put(BODY)
        thread.join()

    return loop


def stream_queue() -> Loop:
    """Put in this thread; get in another."""
    queue: Queue[bytes] = Queue()
    put, get = queue.put, queue.get

    def loop(rounds: int) -> None:
        def consume() -> None:
            for _ in range(rounds):
                get()

        thread = Thread(target=consume)
        thread.start()
        for _ in range(rounds):
            put(BODY)
        thread.join()

    return loop


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
