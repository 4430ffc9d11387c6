"""asyncio: the same consumer, with `await`.

`nsqlite.aio.Consumer` stands in the same line as consumers in threads; a topic can be put to from
anywhere.  Only what can wait is awaited: `get`, not `fin`.

Watch the two sides.  A plain thread publishes and knows nothing of asyncio; two tasks share the
channel, and each takes what comes while the other works.  After `close(drain=True)` their loops end
when all is done.

It prints:

    2 tasks consumed 6 readings, the highest is 23.5
    a thread published 6 readings

Next: 20_web_app.py
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


async def consume(consumer: nsqlite.aio.Consumer[float]) -> None:
    """Keep what comes until the topic is closed."""
    async for message in consumer:
        with message:
            kept.append(message.body)


async def main() -> None:
    """Publish in a thread, consume in two tasks."""
    thread = threading.Thread(target=publish, args=(temperature,))
    tasks = [consume(nsqlite.aio.Consumer(record)) for _ in range(2)]
    thread.start()
    await asyncio.gather(*tasks)
    thread.join()
    readings = f"{len(kept)} readings, the highest is {max(kept)}"
    print(f"{len(tasks)} tasks consumed {readings}")


# A topic and a channel as in any program.
temperature: nsqlite.Topic[float] = nsqlite.Topic("temperature")
record = temperature.channel("record")
kept: list[float] = []

# An event loop runs until all is consumed.
asyncio.run(main())

# The loop is over, and so is the topic.  Its counters can still be read.
print(f"a thread published {temperature.stats().message_count} readings")
