"""What can be asked of a broker by a request."""

from typing import Any

import pytest
from helpers import bodies

import nsqlite
from nsqlite.store.codec import Coder, checked_codec
from nsqlite.store.operations import Operations


@pytest.fixture
def broker() -> nsqlite.Broker:
    """Make a broker in memory with a channel."""
    broker = nsqlite.Broker()
    broker.topic("orders").channel("billing")
    return broker


@pytest.fixture
def perform(broker: nsqlite.Broker) -> Any:
    """Return what carries a request out."""
    operations = Operations(lambda: broker, Coder(checked_codec("json")))
    return lambda call, **arguments: operations.perform({"call": call, **arguments})


def test_messages_are_put(broker: nsqlite.Broker, perform: Any) -> None:
    """All or none; into a topic that is there, or is made if that is asked for."""
    told = [{"body": "tea"}, {"body": '{"cake":1}', "codec": "json"}]
    ids = perform("put", topic="orders", bodies=told)
    channel = broker.topic("orders").channel("billing")
    assert [*zip(ids, [b"tea", {"cake": 1}], strict=True)] == [
        (info.id, info.body) for info in channel.peek()
    ]
    with pytest.raises(nsqlite.InvalidMessage, match="codec 'pickle'"):
        perform("put", topic="orders", bodies=[*told, {"body": "x", "codec": "pickle"}])
    with pytest.raises(nsqlite.InvalidOption, match="topic must be one of orders, not 'new'"):
        perform("put", topic="new", bodies=told)
    with pytest.raises(nsqlite.InvalidOption, match="bodies must be a list, not None"):
        perform("put", topic="orders", bodies=None)
    assert 2 == channel.depth
    perform("put", topic="new", bodies=told, delay=5, create=True)
    perform("put", topic="new", bodies=told, create=True)
    # whoever names it in the program says its options
    assert 3 == broker.topic("new", max_channel_consumers=3).options.max_channel_consumers
    assert 4 == broker.topic("new").depth
    for name in ("a b", None):
        with pytest.raises(nsqlite.InvalidName):
            perform("put", topic=name, bodies=told, create=True)


def test_a_topic_that_was_deleted_is_made_anew(broker: nsqlite.Broker, perform: Any) -> None:
    """And none once the broker is closed."""
    broker.topic("orders").delete()
    perform("put", topic="orders", bodies=[{"body": "tea"}], create=True)
    assert 1 == broker.topic("orders").depth
    broker.close()
    with pytest.raises(nsqlite.Closed, match="the broker is closed"):
        perform("put", topic="new", bodies=[{"body": "tea"}], create=True)


def test_messages_are_looked_at(broker: nsqlite.Broker, perform: Any) -> None:
    """Ready ones first, then what waits, with who holds them."""
    topic = broker.topic("orders")
    late = topic.put("late", delay=5)
    first, second = topic.put_many([b"tea", b"milk"])
    consumer = nsqlite.Consumer(topic.channel("billing"))
    consumer.get()
    assert [second, late] == [
        one["id"] for one in perform("peek", topic="orders", channel="billing")
    ]
    assert 1 == len(perform("peek", topic="orders", channel="billing", count=1))
    found = perform("find", topic="orders", id=first)
    assert ("in flight", 1, consumer.client_id) == (
        found["billing"]["state"],
        found["billing"]["attempts"],
        found["billing"]["client_id"],
    )
    assert not perform("discard", topic="orders", channel="billing", id=first)
    assert perform("discard", topic="orders", channel="billing", id=late)
    assert {} == perform("find", topic="orders", id=late)
    assert "orders" == perform("stats")["topics"][0]["topic_name"]
    consumer.close()


def test_topics_and_channels_are_steered(broker: nsqlite.Broker, perform: Any) -> None:
    """The channel if one is named, else the topic."""
    topic = broker.topic("orders")
    channel = topic.channel("billing")
    topic.put(b"tea")
    perform("pause", topic="orders", channel="billing")
    perform("pause", topic="orders", channel=None)
    assert channel.paused
    assert topic.paused
    perform("unpause", topic="orders", channel="billing")
    perform("unpause", topic="orders")
    assert not channel.paused
    assert not topic.paused
    assert 1 == perform("empty", topic="orders", channel="billing")
    assert 0 == perform("delete", topic="orders", channel="billing")
    assert 0 == perform("delete", topic="orders")
    with pytest.raises(nsqlite.InvalidOption, match="and there is none, not 'orders'"):
        perform("pause", topic="orders")


def test_the_nearest_of_many_names_is_offered(perform: Any, broker: nsqlite.Broker) -> None:
    """Not all of them."""
    for number in range(30):
        broker.topic(f"orders{number:02}")
    with pytest.raises(nsqlite.InvalidOption) as refused:
        perform("pause", topic="orders_7")
    assert "one of the 31 that are there (did you mean 'orders" in str(refused.value)


def test_a_put_waits_for_room_for_some_time(perform: Any, broker: nsqlite.Broker) -> None:
    """As long as the request says."""
    broker.topic("orders").channel("small", max_depth=1)
    perform("put", topic="orders", bodies=[{"body": "tea"}], timeout=0)
    with pytest.raises(nsqlite.Full, match="orders:small"):
        perform("put", topic="orders", bodies=[{"body": "tea"}], timeout=0)


def test_dead_letters_go_home(broker: nsqlite.Broker, perform: Any) -> None:
    """`redrive` puts them back."""
    letters = broker.topic("dead").channel("letters")
    broker.topic("dead").put(
        nsqlite.DeadLetter(
            body=b"bad",
            topic="orders",
            channel="billing",
            id="1",
            attempts=1,
            error="",
            timestamp=1,
        )
    )
    assert 1 == perform("redrive", topic="dead", channel="letters")
    assert 0 == letters.depth
    assert [b"bad"] == bodies(broker.topic("orders").channel("billing"))


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({}, "call must be one of ping, put, peek"),
        ({"call": "perform"}, "call must be one of ping, put, peek"),
        ({"call": []}, "call must be one of ping, put, peek"),
        (
            {"call": "peek"},
            "arguments of peek must be others: missing a required",
        ),
        ({"call": "stats", "topic": "x"}, "got an unexpected keyword argument 'topic'"),
        ({"call": "pause", "topic": ["x"]}, "topic must be one of orders"),
        ({"call": "peek", "topic": "orders", "channel": ["x"]}, "of topic 'orders' must be one of"),
    ],
)
def test_what_cannot_be_asked_for(
    broker: nsqlite.Broker, request_: dict[str, Any], text: str
) -> None:
    """An unknown call, or one with other arguments, is refused with what there is."""
    operations = Operations(lambda: broker, Coder(None))
    with pytest.raises(nsqlite.InvalidOption) as refused:
        operations.perform(request_)
    assert text in str(refused.value)
