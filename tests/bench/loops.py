"""The work of one thread: messages through nsqlite, through `queue.Queue`, and over the floor.

The rule: both sides of a comparison have the same loop around them, and the same deque that keeps
what was taken until its turn comes.

Each function sets up what its loop works on, so that setting up is not measured.

Next: handover.py
"""

from collections import deque
from queue import Queue
from typing import Any

from timing import Loop

from nsqlite import Consumer, Message, Topic

BODY = b"x" * 100

LONGEST = 900.0
"""A time-out, in seconds, that nothing here lives to see."""

BATCH = 1000


def topic_with(
    channels: int = 1, msg_timeout: float = 60.0
) -> tuple[Topic[bytes], list[Consumer[bytes]]]:
    """Return a new topic, and a consumer of each of its channels."""
    topic: Topic[bytes] = Topic("bench", msg_timeout=msg_timeout)
    return topic, [Consumer(topic.channel(f"channel{number}")) for number in range(channels)]


def with_in_flight(count: int, ready: int = 0, msg_timeout: float = 60.0) -> Loop:
    """Put one, get one, finish the oldest, while so many are in flight and so many ready."""
    topic, [consumer] = topic_with(msg_timeout=msg_timeout)
    put, get, fin = topic.put, consumer.get, consumer.fin
    held: deque[Message[bytes]] = deque()
    keep, oldest = held.append, held.popleft
    for _ in range(count):
        put(BODY)
        keep(get())
    for _ in range(ready):
        put(BODY)

    def loop(rounds: int) -> None:
        for _ in range(rounds):
            put(BODY)
            keep(get())
            fin(oldest())

    return loop


def with_ready(count: int) -> Loop:
    """Put one, get one and finish it, while so many are ready."""
    topic, [consumer] = topic_with()
    put, get, fin = topic.put, consumer.get, consumer.fin
    for _ in range(count):
        put(BODY)

    def loop(rounds: int) -> None:
        for _ in range(rounds):
            put(BODY)
            fin(get())

    return loop


def in_batches() -> Loop:
    """Put, get and finish in batches; a round is one message."""
    topic, [consumer] = topic_with()
    bodies = [BODY] * BATCH

    def loop(rounds: int) -> None:
        for _ in range(rounds // BATCH):
            topic.put_many(bodies)
            consumer.fin_many(consumer.get_many(BATCH))

    return loop


def fanned_out(channels: int, count: int) -> Loop:
    """Put one, get one and finish the oldest in each channel, while each has so many in flight."""
    topic, consumers = topic_with(channels)
    put = topic.put
    hands: list[tuple[Any, ...]] = []
    for consumer in consumers:
        held: deque[Message[bytes]] = deque()
        hands.append((held.append, consumer.get, consumer.fin, held.popleft))
    for _ in range(count):
        put(BODY)
        for keep, get, _fin, _oldest in hands:
            keep(get())

    def loop(rounds: int) -> None:
        for _ in range(rounds):
            put(BODY)
            for keep, get, fin, oldest in hands:
                keep(get())
                fin(oldest())

    return loop


def queue_keeping(count: int) -> Loop:
    """Put one and get one, with so many in the `Queue` and so many kept."""
    queue: Queue[bytes] = Queue()
    put, get = queue.put, queue.get
    held: deque[bytes] = deque()
    keep, oldest = held.append, held.popleft
    for _ in range(count):
        put(BODY)
        keep(BODY)

    def loop(rounds: int) -> None:
        for _ in range(rounds):
            put(BODY)
            keep(get())
            oldest()

    return loop


def queue_plain(count: int) -> Loop:
    """Put one and get one, with so many in the `Queue`."""
    queue: Queue[bytes] = Queue()
    put, get = queue.put, queue.get
    for _ in range(count):
        put(BODY)

    def loop(rounds: int) -> None:
        for _ in range(rounds):
            put(BODY)
            get()

    return loop


def floor(count: int) -> Loop:
    """Take a tuple through a deque and in and out of a dict: what no queue can do without."""
    ready: deque[tuple[bytes, int]] = deque()
    in_flight: dict[int, tuple[bytes, int]] = {}
    push, pop, answer = ready.append, ready.popleft, in_flight.pop
    held: deque[int] = deque(range(count))
    keep, oldest = held.append, held.popleft
    for number in range(count):
        in_flight[number] = (BODY, number)

    def loop(rounds: int) -> None:
        first = held[-1] + 1
        for number in range(first, first + rounds):
            push((BODY, number))
            record = pop()
            in_flight[number] = record
            keep(number)
            answer(oldest())

    return loop


def fill() -> Loop:
    """Put and get, and finish nothing: a round brings one message more into flight."""
    topic, [consumer] = topic_with(msg_timeout=LONGEST)
    put, get = topic.put, consumer.get
    held: deque[Message[bytes]] = deque()
    keep = held.append

    def loop(rounds: int) -> None:
        for _ in range(rounds):
            put(BODY)
            keep(get())

    return loop
