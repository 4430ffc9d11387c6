"""Handlers of ansq without a socket; tests/compat has them beside ansq itself."""

import asyncio
from typing import Any

import pytest
from ansq.tcp.types import NSQMessage

import nsqlite
from nsqlite.errors import InvalidOption
from nsqlite.testing import ManualClock
from nsqlite.testing.clients import OPTIONS, Answer, ansq


async def bill(message: NSQMessage) -> None:
    if message.body == b"order 2":
        await message.req(2500)
    elif message.body == b"order 3":
        raise LookupError("no such customer")
    elif message.body == b"order 4":
        return
    else:
        await message.touch()
        await message.fin()


def test_a_message_is_ansqs_own() -> None:
    """It has the types and units of ansq."""
    message = ansq.message(b"order 1", attempts=2)
    assert isinstance(message, NSQMessage)
    assert ("0" * 16, "order 1", 2) == (message.id, str(message), message.attempts)
    assert 1_700_000_000 * 10**9 == message.timestamp
    assert message.can_be_processed


def test_a_handler_is_tested_without_a_broker() -> None:
    """It is awaited, and what it answered can be seen."""
    message = ansq.message(b"order 1")
    asyncio.run(bill(message))
    assert Answer(state=nsqlite.State.FINISHED, touches=1) == message.answer
    message = ansq.message(b"order 2")
    asyncio.run(bill(message))
    assert Answer(state=nsqlite.State.REQUEUED, delay=2.5) == message.answer
    assert message.is_processed


def test_what_is_not_answered_is_left_in_flight() -> None:
    """Nothing is done for a handler, and what it raises goes on."""
    message = ansq.message(b"order 4")
    assert isinstance(asyncio.run(ansq.handler(bill)(message)), nsqlite.TakeOver)
    with pytest.raises(LookupError, match="no such customer"):
        asyncio.run(ansq.handler(bill)(ansq.message(b"order 3")))


def test_a_message_that_has_timed_out_cannot_be_answered() -> None:
    """The broker's clock decides, not the time of day."""
    clock = ManualClock()
    topic = nsqlite.Topic[bytes]("orders", clock=clock)
    consumer = nsqlite.Consumer(topic.channel("billing"))
    topic.put(b"order 1")

    async def wait(message: NSQMessage) -> None:
        clock.advance(60)
        await message.fin()

    with pytest.raises(RuntimeWarning, match=r"is timed out$"):
        asyncio.run(ansq.handler(wait)(consumer.get(timeout=0)))
    with pytest.raises(RuntimeWarning, match=r"is timed out$"):
        asyncio.run(bill(ansq.message(timed_out=True)))


def test_a_worker_calls_it() -> None:
    """A broker's messages are answered, and time out without an answer."""
    topic = nsqlite.Topic[bytes]("orders", clock=ManualClock(autojump=True))
    channel = topic.channel("billing")
    topic.put(b"order 1")
    tried = []

    async def hesitate(message: Any) -> None:
        tried.append((channel._clock.time_ns(), message.attempts))
        if message.attempts == 3:
            await message.fin()
        if message.attempts == 2:
            await message.req()

    with nsqlite.Worker(channel, ansq.handler(hesitate), **OPTIONS) as worker:
        worker.join()
    begin = tried[0][0]
    assert [(0, 1), (60, 2), (70, 3)] == [((at - begin) // 10**9, n) for at, n in tried]


def test_what_is_wrong_is_refused() -> None:
    """A plain function answers nothing."""
    with pytest.raises(
        InvalidOption, match=r"^function must be a coroutine function of a message, "
    ):
        ansq.handler(print)
