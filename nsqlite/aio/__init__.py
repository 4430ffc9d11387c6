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

Only what can wait is awaited: `get`, `get_many`, `put`, `put_many`, `join`.  What never waits, like
`fin` or `close`, is called as ever.

Next: aio/waiting.py
"""

from nsqlite.aio.consumer import Consumer
from nsqlite.aio.publish import join, put, put_many

__all__ = ["Consumer", "join", "put", "put_many"]
