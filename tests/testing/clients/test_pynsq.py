"""Handlers of pynsq without a socket; tests/compat has them beside pynsq itself."""

import asyncio
from typing import Any

import nsq
import pytest
import tornado.gen

import nsqlite
from nsqlite.errors import InvalidOption
from nsqlite.testing import ManualClock
from nsqlite.testing.clients import OPTIONS, Answer, pynsq

FINISHED = Answer(state=nsqlite.State.FINISHED)


def requeued(delay: float, *, backoff: bool = True) -> Answer:
    return Answer(state=nsqlite.State.REQUEUED, delay=delay, backoff=backoff)


def test_a_message_is_pynsqs_own() -> None:
    """It has the types and units of pynsq."""
    message = pynsq.message(b"order 1", attempts=2)
    assert isinstance(message, nsq.Message)
    assert (b"0" * 16, b"order 1", 2) == (message.id, message.body, message.attempts)
    assert 1_700_000_000 * 10**9 == message.timestamp


def test_a_handler_is_tested_without_a_broker() -> None:
    """What it returns means what it means to pynsq."""
    message = pynsq.message(b"order 1")
    pynsq.handler(lambda message: message.body == b"order 1")(message)
    assert FINISHED == message.answer
    message = pynsq.message(b"order 2", attempts=3)
    pynsq.handler(lambda message: message.body == b"order 1")(message)
    assert requeued(270) == message.answer


def test_a_handler_can_be_called_by_itself() -> None:
    """One that answers needs no reader."""
    message = pynsq.message()
    message.requeue(delay=5, backoff=False)
    assert message.has_responded()
    assert requeued(5, backoff=False) == message.answer


def test_what_it_raises_goes_on() -> None:
    """The message is requeued, and the test gets the error."""

    def bill(_message: Any) -> bool:
        raise LookupError("no such customer")

    message = pynsq.message()
    with pytest.raises(LookupError, match="no such customer"):
        pynsq.handler(bill, requeue_delay=2)(message)
    assert requeued(2) == message.answer


def test_a_message_that_comes_too_often_is_given_up() -> None:
    """Its handler is not called, but the reader's hook."""
    given_up = []

    class Reader(nsq.Reader):  # type: ignore[misc]  # it has no types
        def giving_up(self, message: Any) -> None:
            given_up.append((self.name, message.attempts))

    def bill(_message: Any) -> bool:
        raise AssertionError

    message = pynsq.message(attempts=3)
    pynsq.handler(bill, max_tries=2, reader=Reader)(message)
    assert FINISHED == message.answer
    assert [(bill.__qualname__, 3)] == given_up


def test_a_worker_calls_it() -> None:
    """A broker's messages are answered, with the delays and attempts of pynsq."""
    topic = nsqlite.Topic[bytes]("orders", clock=ManualClock(autojump=True))
    topic.put(b"order 1")
    tried = []

    def bill(message: Any) -> bool:
        message.touch()
        tried.append((topic.channel("billing")._clock.time_ns(), message.attempts))
        return bool(message.attempts == 3)

    with nsqlite.Worker(topic.channel("billing"), pynsq.handler(bill), **OPTIONS) as worker:
        worker.join()
    begin = tried[0][0]
    assert [(0, 1), (90, 2), (270, 3)] == [((at - begin) // 10**9, n) for at, n in tried]
    assert "bill" in repr(worker)


def test_a_worker_tells_what_it_raises() -> None:
    """Who joins a worker fails fast."""
    topic = nsqlite.Topic[bytes]("orders")
    topic.put(b"order 1")

    def bill(_message: Any) -> bool:
        raise LookupError("no such customer")

    worker = nsqlite.Worker(topic.channel("billing"), pynsq.handler(bill), **OPTIONS)
    with worker, pytest.raises(LookupError, match="no such customer"):
        worker.join(raise_first=True)
    assert 1 == topic.channel("billing").stats().deferred_count


def test_it_answers_later() -> None:
    """After `enable_async` a message is in flight until somebody answers it."""
    topic = nsqlite.Topic[bytes]("orders", clock=ManualClock())
    consumer = nsqlite.Consumer(topic.channel("billing"))
    topic.put(b"order 1")
    kept: list[Any] = []

    def bill(message: Any) -> None:
        message.enable_async()
        kept.append(message)

    given = consumer.get(timeout=0)
    assert isinstance(pynsq.handler(bill)(given), nsqlite.TakeOver)
    assert "in flight" == given.state
    kept[0].finish()
    assert "finished" == given.state


def test_a_coroutine_is_awaited() -> None:
    """One of asyncio or of tornado makes a handler that is a coroutine function."""

    async def bill(message: Any) -> bool:
        await asyncio.sleep(0)
        return bool(message.body)

    @tornado.gen.coroutine
    def bill_too(message: Any) -> Any:
        yield tornado.gen.moment
        return not message.body

    async def main() -> None:
        message = pynsq.message(b"order 1")
        await pynsq.handler(bill)(message)
        assert FINISHED == message.answer
        message = pynsq.message(b"order 1")
        await pynsq.handler(bill_too)(message)
        assert requeued(90) == message.answer
        message = pynsq.message(b"order 1", attempts=6)
        await pynsq.handler(bill)(message)
        assert FINISHED == message.answer

    asyncio.run(main())


def test_what_a_coroutine_raises_goes_on() -> None:
    """The message is requeued, and the test gets the error."""

    async def bill(_message: Any) -> bool:
        raise LookupError("no such customer")

    message = pynsq.message()
    with pytest.raises(LookupError, match="no such customer"):
        asyncio.run(pynsq.handler(bill)(message))
    assert requeued(90) == message.answer


def test_what_is_wrong_is_refused() -> None:
    """No function, no class of readers, no delay."""
    with pytest.raises(
        InvalidOption, match=r"^function must be a message_handler of pynsq, not 5$"
    ):
        pynsq.handler(5)
    for wrong in (5, dict):
        with pytest.raises(InvalidOption, match=r"^reader must be a class of nsq\.Reader, not "):
            pynsq.handler(print, reader=wrong)
    with pytest.raises(InvalidOption, match=r"^requeue_delay must be "):
        pynsq.handler(print, requeue_delay=-1)
    with pytest.raises(InvalidOption, match=r"^max_tries must be "):
        pynsq.handler(print, max_tries=-1)
