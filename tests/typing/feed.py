"""asyncio: producers and consumers that wait, and what happens without `await`."""

import asyncio
from typing import assert_type

import nsqlite
from nsqlite import Message, Topic, aio


async def produce(topic: Topic[int]) -> None:
    """Put numbers, waiting for room."""
    for number in range(10):
        assert_type(await aio.put(topic, number), str)
    assert_type(await aio.put_many(topic, [10, 11], timeout=10), list[str])
    await aio.join(topic)
    topic.close(drain=True)


async def consume(consumer: aio.Consumer[int]) -> int:
    """Add up what comes, one and then several at a time."""
    with await consumer.get(timeout=10) as message:
        assert_type(message, Message[int])
        total = message.body
    batch = await consumer.get_many(5, timeout=10, linger=0)
    assert_type(batch, list[Message[int]])
    total += sum(message.body for message in batch)
    consumer.fin_many(batch)
    async for message in consumer:
        total += message.body
        message.fin()
    return total


async def run() -> int:
    """Run both."""
    topic: Topic[int] = Topic("numbers")
    channel = topic.channel("sum", max_depth=3)
    async with aio.Consumer(channel, max_in_flight=5) as consumer:
        assert_type(consumer, aio.Consumer[int])
        _, total = await asyncio.gather(produce(topic), consume(consumer))
        return total


def main() -> None:
    """Add up numbers."""
    assert asyncio.run(run()) == sum(range(12))


async def mistakes(topic: Topic[int], consumer: aio.Consumer[int]) -> None:
    """What a type checker is to refuse; never called."""
    aio.put(topic, 1)  # error: unused-coroutine, reportUnusedCoroutine
    consumer.get()  # error: unused-coroutine, reportUnusedCoroutine
    aio.join(topic)  # error: unused-coroutine, reportUnusedCoroutine
    message = consumer.get()
    message.fin()  # error: attr-defined, reportAttributeAccessIssue
    with consumer.get() as _:  # error: attr-defined, reportGeneralTypeIssues
        pass
    for _ in consumer:  # error: attr-defined, reportGeneralTypeIssues
        pass
    await consumer.close()  # error: func-returns-value, misc, reportGeneralTypeIssues
    await aio.put(topic, "1")  # error: misc, reportArgumentType
    await aio.put_many(topic, ["1"])  # error: misc, reportArgumentType
    await aio.join("topic")  # error: arg-type, reportArgumentType
    await aio.stop(topic)  # error: arg-type, reportArgumentType
    await aio.close(topic)  # error: arg-type, reportArgumentType
    await aio.get(consumer)  # error: attr-defined, reportAttributeAccessIssue
    nsqlite.aio.Consumr(topic)  # error: attr-defined, reportAttributeAccessIssue


if __name__ == "__main__":
    main()
