"""What a worker is given: what is of the wrong kind is refused before there is a worker."""

import functools
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from nsqlite import Broker, Closed, InvalidName, InvalidOption, Message, Topic, Worker
from nsqlite.testing import MemoryStore
from nsqlite.worker import WorkerOptions
from nsqlite.worker.plan import _CHECKS
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


def test_a_name_is_that_of_a_topic_of_the_channels_broker() -> None:
    """Dead letters that go to a name go to that topic of the broker, which is made if need be."""
    with Broker() as broker:
        source = broker.topic("orders").channel("billing")
        worker = Worker(source, nothing, dead_letter="dead")
        assert broker.topics["dead"] is worker._plan.dead_letter
        with pytest.raises(InvalidOption, match="another topic than the channel's, not 'orders'"):
            Worker(source, nothing, dead_letter="orders")
        with pytest.raises(InvalidName):
            Worker(source, nothing, dead_letter="the dead")
    with pytest.raises(Closed, match="the broker is closed"):
        Worker(source, nothing, dead_letter="dead")


def test_a_topic_without_a_broker_knows_no_names() -> None:
    """The dead letters of a topic that stands alone are given a topic."""
    with pytest.raises(InvalidOption) as info:
        Worker(channel, nothing, dead_letter="dead")
    expected = "a Topic, as topic 'orders' has no broker that knows names"
    assert ("dead_letter", "dead", expected) == (
        info.value.option,
        info.value.value,
        info.value.expected,
    )


def test_a_worker_that_is_refused_has_made_no_topic() -> None:
    """What is wrong with the other arguments is told before a topic is made of a name."""
    with Broker() as broker:
        source = broker.topic("orders").channel("billing")
        wrong: Any = [3]
        for options in ({"concurrency": 0}, {"middleware": wrong}, {"msg_timeout": 1000}):
            with pytest.raises(InvalidOption):
                Worker(source, nothing, dead_letter="dead", **options)
        assert ["orders"] == list(broker.topics)


def test_all_options_are_checked() -> None:
    """A worker, a type checker and the checks know the same options."""
    assert _CHECKS.keys() == WorkerOptions.__annotations__.keys()
    assert _CHECKS.keys() == (Worker.__init__.__kwdefaults__ or {}).keys()


def test_what_a_handler_needs_besides_may_come_from_its_middleware() -> None:
    """A handler of more than a message is none by itself, but is with what gives it the rest."""

    def bill(_message: Message[Any], _currency: str) -> None: ...

    handler: Any = bill
    with pytest.raises(InvalidOption) as info:
        Worker(channel, handler)
    assert ("handler", bill) == (info.value.option, info.value.value)
    Worker(channel, handler, middleware=[lambda _: lambda message: bill(message, "EUR")])
