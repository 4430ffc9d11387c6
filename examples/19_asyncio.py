"""asyncio: the same consumer, with await.

`nsqlite.aio.Consumer` stands in the same line as consumers in threads; a topic can be put to from
anywhere.  Only what can wait is awaited: `get`, not `fin`.

Watch the two sides.  A plain thread publishes and knows nothing of asyncio; two tasks share the
channel, and each takes what comes while the other works.  After `close(drain=True)` their loops end
when all is done.

It prints:

    a thread published 6 readings
    ann consumed 3: 21.0, 19.5, 20.0
    bob consumed 3: 22.5, 23.5, 18.5

Next: 20_web_app.py
"""

import asyncio
import threading

import nsqlite

READINGS = [21.0, 22.5, 19.5, 23.5, 20.0, 18.5]


def publish() -> None:
    """Publish all readings, and let what is there be consumed."""
    for reading in READINGS:
        temperature.put(reading)
    temperature.close(drain=True)


async def consume(name: str) -> str:
    """Consume until the topic is closed, and tell what came."""
    kept = []
    async for message in nsqlite.aio.Consumer(record, name=name):
        with message:
            await asyncio.sleep(0)  # work, while the other goes on
            kept.append(str(message.body))
    return f"{name} consumed {len(kept)}: {', '.join(kept)}"


async def main() -> None:
    """Consume in two tasks."""
    print(*await asyncio.gather(consume("ann"), consume("bob")), sep="\n")


# A topic and a channel as in any program.
temperature: nsqlite.Topic[float] = nsqlite.Topic("temperature")
record = temperature.channel("record")

# A thread publishes, before there is an event loop.
thread = threading.Thread(target=publish)
thread.start()
thread.join()
print(f"a thread published {temperature.stats().message_count} readings")

# An event loop runs until all is consumed.  Does one task get all the readings?
asyncio.run(main())
