"""Threads: publish and consume in as many threads as you like.

`get` blocks until a message comes.  A `for` loop over a consumer gets one message after the other,
and ends when the topic is closed.

Watch the end.  After `close(drain=True)` the topic takes no more messages, but the consumers still
get those that are there; then their loops end, and so do their threads.  Which thread gets which
message differs from run to run; the sum does not.

It prints:

    4 threads published 1000 numbers each
    3 threads consumed 4000 numbers
    their sum is 7998000

Next: 10_asyncio.py
"""

import threading

import nsqlite


def consume(consumer: nsqlite.Consumer[int], numbers: list[int]) -> None:
    """Keep what comes until the topic is closed."""
    for message in consumer:
        with message:
            numbers.append(message.body)


def main() -> None:
    """Run four threads that publish against three that consume."""
    topic: nsqlite.Topic[int] = nsqlite.Topic("numbers")
    channel = topic.channel("sum")
    kept: list[list[int]] = [[], [], []]
    consumers = [
        threading.Thread(target=consume, args=(nsqlite.Consumer(channel), numbers))
        for numbers in kept
    ]
    publishers = [
        threading.Thread(target=topic.put_many, args=(range(start, start + 1000),))
        for start in (0, 1000, 2000, 3000)
    ]
    for thread in consumers + publishers:
        thread.start()
    for thread in publishers:
        thread.join()
    topic.close(drain=True)
    for thread in consumers:
        thread.join()

    print(f"{len(publishers)} threads published 1000 numbers each")
    print(f"{len(consumers)} threads consumed {sum(map(len, kept))} numbers")
    print(f"their sum is {sum(map(sum, kept))}")


if __name__ == "__main__":
    main()
