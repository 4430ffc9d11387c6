"""A broker as plain data: the same each time, and readable."""

import json

import pytest

import nsqlite
from nsqlite import Consumer, DeadLetter, InvalidOption
from nsqlite.testing import FakeBroker, ManualClock, MemoryStore, snapshot


class Order:
    """What has no repr of its own."""


def busy() -> tuple[FakeBroker, object]:
    """Return a broker where something is everywhere, and who must live on."""
    broker = FakeBroker()
    orders = broker.topic("orders")
    billing = orders.channel("billing")
    broker.topic("held").put(b"held", delay=5)
    first = Consumer(billing, max_in_flight=2, name="first")
    second = Consumer(billing)
    orders.put_many([b"one", {"two": [2, None, b"2"]}])
    orders.put(("three", Order(), {3: "x"}), delay=10)
    kept = first, second, first.get(timeout=0)
    second.get(timeout=0).req()
    orders.channel("audit").pause()
    return broker, kept


EXPECTED = {
    "topics": {
        "held": {
            "paused": False,
            "depth": 1,
            "messages": [
                {
                    "id": 1,
                    "body": "b'held'",
                    "where": "deferred",
                    "attempts": 0,
                    "due_in": 5.0,
                    "consumer": None,
                }
            ],
            "channels": {},
        },
        "orders": {
            "paused": False,
            "depth": 0,
            "messages": [],
            "channels": {
                "audit": {
                    "paused": True,
                    "depth": 0,
                    "in_flight": 0,
                    "deferred": 0,
                    "consumers": [],
                    "messages": [],
                },
                "billing": {
                    "paused": False,
                    "depth": 1,
                    "in_flight": 1,
                    "deferred": 1,
                    "consumers": [
                        {"name": "first", "max_in_flight": 2, "holds": 1},
                        {"name": None, "max_in_flight": None, "holds": 0},
                    ],
                    "messages": [
                        {
                            "id": 3,
                            "body": {"two": [2, None, "b'2'"]},
                            "where": "ready",
                            "attempts": 1,
                            "due_in": None,
                            "consumer": None,
                        },
                        {
                            "id": 2,
                            "body": "b'one'",
                            "where": "in flight",
                            "attempts": 1,
                            "due_in": 60.0,
                            "consumer": 1,
                        },
                        {
                            "id": 4,
                            "body": ["three", "<test_snapshots.Order object>", "{3: 'x'}"],
                            "where": "deferred",
                            "attempts": 0,
                            "due_in": 10.0,
                            "consumer": None,
                        },
                    ],
                },
            },
        },
    }
}

TEXT = """\
topic held: 1 held
    message 1 b'held', deferred, due in 5 s
topic orders: 0 held
  channel audit (paused): 0 ready, 0 in flight, 0 deferred
  channel billing: 1 ready, 1 in flight, 1 deferred
    consumer 1 'first': holds 1 of 2
    consumer 2: holds 0
    message 3 {'two': [2, None, b'2']}, ready, attempts=1
    message 2 b'one', in flight, attempts=1, consumer 1, due in 60 s
    message 4 ['three', <test_snapshots.Order object>, {3: 'x'}], deferred, due in 10 s"""


def test_it_is_plain_data_and_the_same_each_time() -> None:
    """All that there is is there, in order, and JSON keeps it."""
    for _ in range(2):
        broker, kept = busy()
        data = snapshot(broker)
        assert EXPECTED == data == json.loads(json.dumps(data))
        assert TEXT == str(data)
        del kept


def test_text_and_bytes_are_told_apart() -> None:
    """A text is shown in quotes, bytes as such."""
    topic = nsqlite.Topic[object]("orders", clock=ManualClock())
    topic.put_many(["one", b"one"])
    _, *lines = str(snapshot(topic)).split("\n")
    assert ["    message 1 'one', ready", "    message 2 b'one', ready"] == lines


def test_a_broker_without_topics() -> None:
    """There is nothing to show."""
    data = snapshot(FakeBroker())
    assert ({"topics": {}}, "no topics") == (data, str(data))


def test_a_dead_letter_is_shown_without_what_differs() -> None:
    """Its id, its time and its traceback are left out."""
    broker = nsqlite.Broker(clock=ManualClock())
    letter = DeadLetter(
        body=b"one",
        topic="orders",
        channel="billing",
        id="0" * 16,
        attempts=3,
        error="no such customer",
        timestamp=7,
        error_type="LookupError",
        traceback="line 1",
    )
    broker.topic("dead").put(letter)
    [message] = snapshot(broker)["topics"]["dead"]["messages"]
    expected = {
        "body": "b'one'",
        "topic": "orders",
        "channel": "billing",
        "attempts": 3,
        "error": "no such customer",
        "error_type": "LookupError",
    }
    assert expected == message["body"]


def test_what_is_called_like_a_dead_letter() -> None:
    """A class of the program's own that has this name is shown as any other."""
    topic: nsqlite.Topic[object] = nsqlite.Topic("orders")
    body = type("DeadLetter", (), {"__repr__": lambda _self: "mine"})()
    topic.put(body)
    [message] = snapshot(topic)["topics"]["orders"]["messages"]
    assert "mine" == message["body"]


def test_what_lies_in_a_file_is_counted() -> None:
    """What is in memory is listed; what came back behind the rest is, too."""
    with FakeBroker(store=MemoryStore(mem_queue_size=2)) as broker:
        channel = broker.topic("orders").channel("billing")
        consumer = Consumer(channel)
        broker.topic("orders").put_many([b"1", b"2", b"3", b"4", b"5"])
        broker.flush()
        consumer.get(timeout=0).req()
        data = snapshot(broker)["topics"]["orders"]["channels"]["billing"]
        assert 5 == data["depth"]
        bodies = [message["body"] for message in data["messages"]]
        assert "b'1'" == bodies[-1]
        assert len(bodies) < 5


def test_a_topic_is_shown_alone() -> None:
    """As it would be in its broker."""
    broker, _kept = busy()
    held = {"topics": {"held": EXPECTED["topics"]["held"]}}
    assert held == snapshot(broker.topic("held"))


def test_nothing_else_is_shown() -> None:
    """Anything else is refused."""
    with pytest.raises(InvalidOption, match="what must be a Broker or a Topic, not 3"):
        snapshot(3)  # type: ignore[arg-type]
