"""The work of one thread: messages through nsqlite and through `queue.Queue`.

The rule: each loop is what a user would write, and nothing besides: no list keeps what was taken.

Each function sets up what its loop works on, so that setting up is not measured.  A loop is run
once; one that has a thread beside it ends this too.

Next: handover.py
"""

import queue
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import TypeAlias, Unpack

from handclock import HandClock
from timing import Loop

from nsqlite import Clock, Closed, Consumer, Empty, Topic, TopicOptions

BODY = b"x" * 100

LONGEST = 900.0
"""A time-out, in seconds, that nothing here lives to see."""

BATCH = 1000

Waits: TypeAlias = Callable[[], object]
"""Waits for something, or ends the wait."""


def topic_with(
    channels: int = 1, *, clock: Clock | None = None, **options: Unpack[TopicOptions]
) -> tuple[Topic[bytes], list[Consumer[bytes]]]:
    """Return a new topic, and a consumer of each of its channels."""
    topic: Topic[bytes] = Topic("bench", clock=clock, **options)
    return topic, [Consumer(topic.channel(f"c{number}")) for number in range(channels)]


# One message at a time


def one_by_one(topic: Topic[bytes], consumer: Consumer[bytes]) -> Loop:
    """Put one, get it, finish it."""

    def loop(rounds: int) -> None:
        for _ in range(rounds):
            topic.put(BODY)
            consumer.fin(consumer.get())

    return loop


def queue_one_by_one() -> Loop:
    """Put one and get it."""
    channel: queue.Queue[bytes] = queue.Queue()

    def loop(rounds: int) -> None:
        for _ in range(rounds):
            channel.put(BODY)
            channel.get()

    return loop


def plain(*, clock: Clock | None = None, **options: Unpack[TopicOptions]) -> Loop:
    """Have nothing unusual but the clock or the options."""
    topic, [consumer] = topic_with(clock=clock, **options)
    return one_by_one(topic, consumer)


def own_timeout() -> Loop:
    """Have a consumer with a time-out of its own."""
    topic: Topic[bytes] = Topic("bench")
    return one_by_one(topic, Consumer(topic.channel("a"), msg_timeout=30))


def observed() -> Loop:
    """Have an observer that does nothing."""
    topic, [consumer] = topic_with()
    topic.observe(lambda _event: None)
    return one_by_one(topic, consumer)


def visited(each: int) -> Loop:
    """Put one, get it, finish it, and come back after so many nanoseconds."""
    clock = HandClock()
    topic, [consumer] = topic_with(clock=clock)
    now = clock.now

    def loop(rounds: int) -> None:
        for _ in range(rounds):
            topic.put(BODY)
            consumer.fin(consumer.get())
            now[0] += each

    return loop


# While another thread waits


def beside(clock: HandClock, loop: Loop, wait: Waits, end: Waits) -> Loop:
    """Return what does a loop's rounds while a thread waits, and ends the wait after them."""

    def work() -> None:
        with suppress(Closed):
            wait()

    thread = Thread(target=work, daemon=True)
    thread.start()
    clock.asleep.acquire()

    def run(rounds: int) -> None:
        loop(rounds)
        end()
        thread.join()

    return run


def beside_a_join(*, of_topic: bool) -> Loop:
    """Have a `join` wait, for one message that is in flight all the time."""
    clock = HandClock()
    topic, [consumer] = topic_with(clock=clock)
    topic.put(BODY)
    held = consumer.get()
    join = topic.join if of_topic else consumer.channel.join
    return beside(clock, one_by_one(topic, consumer), join, lambda: consumer.fin(held))


def beside_a_getter() -> Loop:
    """Have a getter wait in another consumer of the channel, whose window is full."""
    clock = HandClock()
    topic, [consumer] = topic_with(clock=clock)
    other = Consumer(consumer.channel, max_in_flight=1)
    topic.put(BODY)
    held = other.get()
    assert held.attempts == 1
    return beside(clock, one_by_one(topic, consumer), other.get, other.close)


def beside_a_channel(*, waits: bool) -> Loop:
    """Have another channel of the topic, paused, in which a getter waits or not."""
    clock = HandClock()
    topic, [consumer, other] = topic_with(2, clock=clock)
    other.channel.pause()
    loop = one_by_one(topic, consumer)
    return beside(clock, loop, other.get, other.close) if waits else loop


def taking(count: int, *, drains: bool) -> Loop:
    """Get one and finish it, of so many, while the topic drains or not."""
    topic, [consumer] = topic_with()
    topic.put_many([BODY] * (count + 1))
    if drains:
        topic.close(drain=True)

    def loop(rounds: int) -> None:
        for _ in range(rounds):
            consumer.fin(consumer.get())

    return loop


# Many at a time, many channels, nothing there


def in_batches() -> Loop:
    """Put, get and finish in batches; a round is one message."""
    topic, [consumer] = topic_with()
    bodies = [BODY] * BATCH

    def loop(rounds: int) -> None:
        for _ in range(rounds // BATCH):
            topic.put_many(bodies)
            consumer.fin_many(consumer.get_many(BATCH))

    return loop


def fanned_out(channels: int) -> Loop:
    """Put one, get and finish it in each channel; a round is one copy."""
    topic, consumers = topic_with(channels)

    def loop(rounds: int) -> None:
        for _ in range(rounds // channels):
            topic.put(BODY)
            for consumer in consumers:
                consumer.fin(consumer.get())

    return loop


def nothing_to_get() -> Loop:
    """Get one message where there is none."""
    _, [consumer] = topic_with()

    def loop(rounds: int) -> None:
        for _ in range(rounds):
            try:
                consumer.get(timeout=0)
            except Empty:
                pass

    return loop


def nothing_to_get_many() -> Loop:
    """Get a batch where there is no message."""
    _, [consumer] = topic_with()

    def loop(rounds: int) -> None:
        for _ in range(rounds):
            try:
                consumer.get_many(BATCH, timeout=0)
            except Empty:
                pass

    return loop


def queue_nothing_to_get() -> Loop:
    """Get one where there is none."""
    channel: queue.Queue[bytes] = queue.Queue()

    def loop(rounds: int) -> None:
        for _ in range(rounds):
            try:
                channel.get_nowait()
            except queue.Empty:
                pass

    return loop


# A large backlog


def behind(count: int) -> Loop:
    """Put one, get one and finish it, while so many are ready."""
    topic, [consumer] = topic_with()
    topic.put_many([BODY] * count)
    return one_by_one(topic, consumer)


def among(count: int) -> Loop:
    """Put one, get it, finish it, while so many are in flight."""
    topic, [consumer] = topic_with(msg_timeout=LONGEST)
    topic.put_many([BODY] * count)
    held = consumer.get_many(count)
    loop = one_by_one(topic, consumer)

    def run(rounds: int) -> None:
        loop(rounds)
        assert len(held) == count

    return run
