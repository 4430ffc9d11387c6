"""Handlers of gnsq without a socket; tests/compat has them beside gnsq itself."""

from typing import Any

import gnsq
import pytest
from gnsq.errors import NSQException, NSQRequeueMessage

import nsqlite
import nsqlite.testing.clients.gnsq as adapter
from nsqlite.errors import InvalidOption
from nsqlite.testing import ManualClock
from nsqlite.testing.clients import OPTIONS, Answer

FINISHED = Answer(state=nsqlite.State.FINISHED)


def requeued(delay: float, *, backoff: bool = True) -> Answer:
    return Answer(state=nsqlite.State.REQUEUED, delay=delay, backoff=backoff)


def bill(_consumer: Any, message: Any) -> None:
    if message.body == b"order 2":
        raise NSQRequeueMessage(backoff=False)
    if message.body == b"order 3":
        raise LookupError("no such customer")


def test_a_message_is_gnsqs_own() -> None:
    """It has the types and units of gnsq."""
    message = adapter.message(b"order 1", attempts=2)
    assert isinstance(message, gnsq.Message)
    assert (b"0" * 16, b"order 1", 2) == (message.id, message.body, message.attempts)
    assert 1_700_000_000 * 10**9 == message.timestamp


def test_a_handler_is_tested_without_a_broker() -> None:
    """What it returns or raises means what it means to gnsq."""
    handle = adapter.handler(bill, requeue_delay=1500)
    message = adapter.message(b"order 1")
    handle(message)
    assert FINISHED == message.answer
    message = adapter.message(b"order 2")
    handle(message)
    assert requeued(1.5, backoff=False) == message.answer
    message = adapter.message(b"order 3")
    with pytest.raises(LookupError, match="no such customer"):
        handle(message)
    assert requeued(1.5) == message.answer
    message = adapter.message(b"order 3", attempts=6)
    handle(message)
    assert FINISHED == message.answer


def test_a_handler_can_be_called_by_itself() -> None:
    """One that answers needs no consumer."""
    message = adapter.message()
    message.touch()
    message.requeue(2500)
    with pytest.raises(NSQException, match="already responded"):
        message.finish()
    expected = Answer(state=nsqlite.State.REQUEUED, delay=2.5, backoff=True, touches=1)
    assert expected == message.answer


def test_a_programs_own_consumer_is_used() -> None:
    """Its signals hear what happens, and its options hold."""
    heard = []
    consumer = gnsq.Consumer("orders", "billing", "127.0.0.1:4150", max_tries=2)
    consumer.on_message.connect(bill)

    def give_up(_consumer: Any, message: Any) -> None:
        heard.append(message.body)

    consumer.on_giving_up.connect(give_up)

    handle = adapter.handler(consumer)
    handle(adapter.message(b"order 1", attempts=3))
    assert [b"order 1"] == heard
    with pytest.raises(LookupError):
        handle(adapter.message(b"order 3"))
    with pytest.raises(
        InvalidOption, match=r"^function must be a gnsq\.Consumer that was not started, "
    ):
        adapter.handler(consumer)


def test_a_worker_calls_it() -> None:
    """A broker's messages are answered, with the delays and attempts of gnsq."""
    topic = nsqlite.Topic[bytes]("orders", clock=ManualClock(autojump=True))
    topic.put(b"order 1")
    tried = []

    def try_thrice(_consumer: Any, message: Any) -> None:
        tried.append((topic.channel("billing")._clock.time_ns(), message.attempts))
        if message.attempts < 3:
            message.requeue(1500, backoff=False)

    handle = adapter.handler(try_thrice)
    with nsqlite.Worker(topic.channel("billing"), handle, **OPTIONS) as worker:
        worker.join()
    begin = tried[0][0]
    assert [(0, 1), (1500, 2), (3000, 3)] == [((at - begin) // 10**6, n) for at, n in tried]
    assert "try_thrice" in repr(worker)


def test_what_is_wrong_is_refused() -> None:
    """It is no function and no consumer."""
    with pytest.raises(
        InvalidOption, match=r"^function must be a message_handler or a Consumer of gnsq, "
    ):
        adapter.handler(5)
