"""What a worker is given: what is of the wrong kind is refused before there is a worker."""

import functools
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from nsqlite import Broker, InvalidOption, Message, Topic, Worker
from nsqlite.testing import MemoryStore
from worker.scenes import nothing

topic: Topic[Any] = Topic("orders")
channel = topic.channel("billing")


def test_a_worker_needs_a_channel_and_a_handler() -> None:
    """What is no channel, and what cannot be called, is refused."""
    wrong: Any = topic
    with pytest.raises(InvalidOption) as info:
        Worker(wrong, nothing)
    assert "channel" == info.value.option
    wrong = b"handler"
    with pytest.raises(InvalidOption) as info:
        Worker(channel, wrong)
    assert "handler" == info.value.option


def test_a_handler_takes_a_message() -> None:
    """A function that takes no message, or needs something else, is refused at once."""
    wrong: list[Any] = [lambda: None, lambda _message, _other: None, threading.Event().set]
    for handler in wrong:
        with pytest.raises(InvalidOption) as info:
            Worker(channel, handler)
        expected = ("handler", handler, "a function of one message, no generator")
        assert expected == (info.value.option, info.value.value, info.value.expected)


async def steps(_message: Message[Any]) -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("handler", [steps, functools.partial(steps)])
def test_a_generator_is_no_handler(handler: Any) -> None:
    """A function of which a call does nothing but make a generator is refused."""
    with pytest.raises(InvalidOption) as info:
        Worker(channel, handler)
    expected = ("handler", handler, "a function of one message, no generator")
    assert expected == (info.value.option, info.value.value, info.value.expected)


def test_dead_letters_do_not_come_to_their_own_topic() -> None:
    """The dead letters of a channel do not go to its own topic, where they would come again."""
    with pytest.raises(InvalidOption) as info:
        Worker(channel, nothing, dead_letter=topic)
    expected = ("dead_letter", topic, "another topic than the channel's")
    assert expected == (info.value.option, info.value.value, info.value.expected)


def test_dead_letters_lie_in_the_same_store() -> None:
    """A message cannot be moved from one store to another in one step, so that is refused."""
    with (
        Broker(store=MemoryStore()) as broker,
        Broker(store=MemoryStore()) as other,
        Broker() as third,
    ):
        kept = broker.topic("orders").channel("billing")
        with pytest.raises(InvalidOption) as info:
            Worker(kept, nothing, dead_letter=other.topic("dead"))
        expected = ("dead_letter", "a topic of the same store as the channel, or of none")
        assert expected == (info.value.option, info.value.expected)
        for dead in (broker.topic("dead"), third.topic("dead")):
            Worker(kept, nothing, dead_letter=dead)
        Worker(channel, nothing, dead_letter=other.topic("dead"))


def test_what_a_handler_needs_besides_may_come_from_its_middleware() -> None:
    """A handler of more than a message is none by itself, but is with what gives it the rest."""

    def bill(_message: Message[Any], _currency: str) -> None: ...

    handler: Any = bill
    with pytest.raises(InvalidOption) as info:
        Worker(channel, handler)
    assert ("handler", bill) == (info.value.option, info.value.value)
    Worker(channel, handler, middleware=[lambda _: lambda message: bill(message, "EUR")])
