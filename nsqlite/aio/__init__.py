"""nsqlite for asyncio: the same topics and channels, waited for with `await`.

    >>> import asyncio, nsqlite
    >>> topic = nsqlite.Topic("orders")
    >>> consumer = nsqlite.aio.Consumer(topic.channel("billing"))
    >>> async def main():
    ...     await nsqlite.aio.put(topic, b"order 1")
    ...     with await consumer.get() as message:
    ...         return message.body
    >>> asyncio.run(main())
    b'order 1'

The convention, for all that there is:

- what never waits is called on the object as ever, in a loop too: `fin`, `req`, `touch`, `stats`,
  `pause`, the `close` of a topic or consumer;
- what can wait is a function here, of the same name and arguments as the method that blocks, with
  the object first: `put`, `put_many`, `join`, `drain`, `stop`, `flush`, `close`;
- to get messages there is a `Consumer` here, whose `get` and `get_many` are awaited;
- what begins and ends is an `async with` on the object itself: a `Consumer`, a `Broker`, a
  `Worker`, `App.running`.

So a topic, channel, broker or worker is one object for threads and loops, with each method once,
and what is awaited is seen to be `aio`.  What is rare and long has no function here: `await
asyncio.to_thread(broker.backup, path)`, and so with `redrive`.

Next: aio/waiting.py
"""

from nsqlite.aio.consumer import Consumer
from nsqlite.aio.publish import close, drain, flush, join, put, put_many, stop

__all__ = ["Consumer", "close", "drain", "flush", "join", "put", "put_many", "stop"]
