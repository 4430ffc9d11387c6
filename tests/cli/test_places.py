"""Where messages are, as a table."""

import nsqlite
from nsqlite.cli.places import brokers_in, places, side_by_side
from nsqlite.testing import FakeBroker


def test_places_of_a_topic_and_its_channels() -> None:
    """It shows what is held, ready, in flight with whom and for how long, and deferred."""
    broker = FakeBroker(msg_timeout=10)
    orders = broker.topic("orders")
    assert {("orders", "holds"): []} == places([broker])
    orders.put(b"order 1")
    assert {("orders", "holds"): ["1 message"]} == places([broker])
    orders.put("order 2")
    assert {("orders", "holds"): ["2 messages"]} == places([broker])
    billing = orders.channel("billing")
    ann = nsqlite.Consumer(billing, name="ann")
    first = ann.get()
    ann.get()
    broker.clock.advance(4)
    nsqlite.Consumer(billing)
    orders.put("x" * 10 + " " + "y" * 40, delay=2.5)
    billing.pause()
    first.req()
    assert {
        ("orders:billing", "paused"): ["yes"],
        ("orders:billing", "ready"): ["order 1 (attempt 1)"],
        ("orders:billing", "in flight"): ["order 2 (ann, 6 s)"],
        ("orders:billing", "deferred"): ["xxxxxxxxxx ... (2.5 s)"],
    } == places([broker])
    orders.pause()
    orders.put("order 3")
    shown = places([broker])
    assert (["yes"], ["1 message"]) == (shown["orders", "paused"], shown["orders", "holds"])


def test_a_consumer_without_a_name() -> None:
    """What a consumer without a name holds is shown with its attempt, if that is not the first."""
    topic: nsqlite.Topic[str] = nsqlite.Topic("orders", clock=FakeBroker().clock)
    consumer = nsqlite.Consumer(topic.channel("billing"))
    topic.put("order 1")
    consumer.get().req()
    consumer.get()
    shown = places([topic])["orders:billing", "in flight"]
    assert ["order 1 (a consumer, 60 s, attempt 2)"] == shown


def test_a_consumer_that_has_left() -> None:
    """What a consumer has not given back when it left is in flight, and nobody has it."""
    topic: nsqlite.Topic[str] = nsqlite.Topic("orders", clock=FakeBroker().clock)
    consumer = nsqlite.Consumer(topic.channel("billing"), name="ann")
    topic.put("order 1")
    consumer.get()
    consumer.close(give_back=False)
    shown = places([topic])["orders:billing", "in flight"]
    assert ["order 1 (nobody, 60 s)"] == shown


def test_many_messages_are_counted() -> None:
    """Of many messages it shows the first, and how many more there are."""
    topic: nsqlite.Topic[int] = nsqlite.Topic("numbers")
    channel = topic.channel("all")
    topic.put_many(range(10))
    assert ["0", "1", "2", "3", "and 6 more"] == places([topic])["numbers:all", "ready"]
    channel.empty()


def test_what_is_closed_is_not_shown() -> None:
    """A closed topic has no places."""
    topic: nsqlite.Topic[int] = nsqlite.Topic("numbers")
    topic.close()
    assert {} == places([topic])


def test_brokers_of_a_program() -> None:
    """It finds each broker once, an nsqd's too, and the topics that belong to none of them."""
    broker = FakeBroker()
    topic: nsqlite.Topic[int] = nsqlite.Topic("alone")
    with nsqlite.testing.nsqd() as nsqd:
        values = [1, broker, broker.topic("orders"), topic, broker, nsqd]
        assert [broker, nsqd.broker, topic] == brokers_in(values)


def test_table() -> None:
    """Before and after stand side by side; a place that is there and empty has a dash."""
    before = {("orders", "holds"): ["1 message"]}
    after = {
        ("orders:billing", "in flight"): ["order 1 (somebody with a name, 60 s)"],
        ("orders:billing", "ready"): [],
    }
    lines = list(side_by_side(before, after))
    assert [
        ("                              before                 after", False),
        ("orders              holds     1 message", True),
        ("orders:billing      ready                            -", True),
        ("                    in flight                        order 1 (somebody with", True),
        ("                                                       a name, 60 s)", True),
    ] == lines


def test_table_of_long_names() -> None:
    """A long name widens its column and nothing runs into another; the rest has less room."""
    places = {("readings:live#ephemeral", "ready"): ["reading 1"]}
    assert [
        ("                                  before       after", False),
        ("readings:live#ephemeral ready     reading 1    reading 1", False),
    ] == list(side_by_side(places, places, 60))
