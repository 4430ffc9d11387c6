"""Threads: publish and consume in many threads.

`get` blocks until a message comes.  A `for` loop over a consumer gets one message after the other,
and ends when the topic is closed.

Watch the end.  After `close(drain=True)` the topic takes no more messages, but the consumers still
get those that are there; then their loops end, and so do their threads.  Which thread gets which
message differs from run to run; the sum does not.

It prints:

    4 threads published 100 numbers each
    3 threads consumed 400 numbers
    their sum is 79800

Next: 19_asyncio.py
"""

import threading

import nsqlite

numbers: nsqlite.Topic[int] = nsqlite.Topic("numbers")
channel = numbers.channel("sum")
kept: list[list[int]] = [[], [], []]


def consume(mine: list[int]) -> None:
    """Keep what comes until the topic is closed."""
    for message in nsqlite.Consumer(channel):
        with message:
            mine.append(message.body)


def publish(n: int) -> None:
    """Publish the n-th hundred of numbers."""
    numbers.put_many(range(100 * n, 100 * (n + 1)))


# Three threads consume.  Nothing is there yet, so they wait.
consumers = [threading.Thread(target=consume, args=[mine]) for mine in kept]
for thread in consumers:
    thread.start()

# Four threads publish a hundred numbers each.
publishers = [threading.Thread(target=publish, args=[n]) for n in range(4)]
for thread in publishers:
    thread.start()
for thread in publishers:
    thread.join()
print(f"{len(publishers)} threads published 100 numbers each")

# The topic is closed.  Do the consumers still get what may be left?
numbers.close(drain=True)
for thread in consumers:
    thread.join()
print(f"{len(consumers)} threads consumed {sum(map(len, kept))} numbers")

# No number was lost, and none came twice.
print(f"their sum is {sum(map(sum, kept))}")
