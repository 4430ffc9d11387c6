"""asyncio: the same consumer, with `await`.

`nsqlite.aio.Consumer` stands in the same line as consumers in threads; a topic can be put to from
anywhere.  Only what can wait is awaited: `get`, not `fin`.

Watch the two sides.  A plain thread publishes and knows nothing of asyncio; two tasks share the
channel, and each takes what comes while the other works.  After `close(drain=True)` their loops end
when all is done.

It prints:

    a thread published 6 readings
    2 tasks consumed 6 readings, the highest is 23.5

Next: 11_worker.py
"""

import asyncio
import threading

import nsqlite

READINGS = [21.0, 22.5, 19.5, 23.5, 20.0, 18.5]


def publish(topic: nsqlite.Topic[float]) -> None:
    """Publish all readings, and let what is there be consumed."""
    for reading in READINGS:
        topic.put(reading)
    topic.close(drain=True)


async def consume(consumer: nsqlite.aio.Consumer[float], kept: list[float]) -> None:
    """Keep what comes until the topic is closed."""
    async for message in consumer:
        with message:
            kept.append(message.body)


async def main() -> None:
    """Publish in a thread, consume in two tasks."""
    topic: nsqlite.Topic[float] = nsqlite.Topic("temperature")
    channel = topic.channel("record")
    kept: list[float] = []
    tasks = [consume(nsqlite.aio.Consumer(channel), kept) for _ in range(2)]
    thread = threading.Thread(target=publish, args=(topic,))
    thread.start()
    await asyncio.gather(*tasks)
    thread.join()
    print(f"a thread published {topic.stats().message_count} readings")
    print(f"{len(tasks)} tasks consumed {len(kept)} readings, the highest is {max(kept)}")


if __name__ == "__main__":
    asyncio.run(main())
