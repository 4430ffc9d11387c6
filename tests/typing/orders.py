"""Topics that say what they carry: bodies, batches, and functions for any of them."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any, TypeVar, assert_type

import attrs

import nsqlite
from nsqlite import Channel, Consumer, Message, Topic

T = TypeVar("T")


@attrs.frozen
class Order:
    """What this program publishes."""

    number: int
    customer: str = "ann"


def take_all(consumer: Consumer[T]) -> list[T]:
    """Return what is ready, finished."""
    bodies: list[T] = []
    while True:
        try:
            messages = consumer.get_many(100, timeout=0)
        except nsqlite.Empty:
            return bodies
        bodies += [message.body for message in messages]
        consumer.fin_many(messages)


class Desk:
    """Works on the orders of one channel."""

    def __init__(self, channel: Channel[Order]) -> None:
        """Join the channel."""
        self.consumer = Consumer(channel, max_in_flight=10)

    def work(self) -> str:
        """Work on one order."""
        with self.consumer.get(timeout=0) as message:
            assert_type(message, Message[Order])
            assert_type(message.attempts, int)
            return message.body.customer

    def retry(self) -> None:
        """Leave one order for later."""
        message = self.consumer.get(timeout=0)
        message.touch()
        message.req(delay=timedelta(0))


def customers(consumer: Consumer[Order]) -> Iterator[str]:
    """Go through the orders until the channel is over."""
    for message in consumer:
        yield message.body.customer
        message.fin()


def main() -> None:
    """Publish orders and work on them."""
    with Topic[Order]("orders", max_depth=100, when_full="raise") as topic:
        assert_type(topic, Topic[Order])
        billing = topic.channel("billing", msg_timeout=timedelta(seconds=5))
        audit = Consumer(topic.channel("audit"))
        assert_type(audit, Consumer[Order])
        desk = Desk(billing)

        assert_type(topic.put(Order(1)), str)
        assert_type(topic.put_many([Order(2), Order(3)], delay=0), list[str])
        desk.retry()
        assert desk.work() == "ann"
        assert_type(take_all(audit), list[Order])
        assert_type(take_all(desk.consumer), list[Order])

        dead: Topic[Order] = Topic("orders.dead")
        topic.put(Order(4, "bob"))
        assert_type(desk.consumer.move(desk.consumer.get(timeout=0), dead), str)
        assert [info.body for info in billing.peek()] == []
        topic.close(drain=True)
        assert list(customers(audit)) == ["bob"]

    plain = nsqlite.Broker().topic("anything")
    assert_type(plain, Topic[Any])
    plain.put(b"bytes")
    plain.put(Order(5))
    plain.put(Order(6), delay=timedelta(minutes=1))
    plain.put_many([Order(7)], delay=timedelta(minutes=1), timeout=timedelta(0))
    assert not plain.join(timedelta(0))
    assert_type(plain.options.msg_timeout, float)
    plain.empty()


def mistakes() -> None:
    """What a type checker is to refuse; never called."""
    numbers = Topic[int]("numbers")
    numbers.put("x")  # error: arg-type, reportArgumentType
    numbers.put_many(["x"])  # error: list-item, reportArgumentType
    numbers.put(1, delay="2")  # error: arg-type, reportArgumentType
    numbers.put(1, delay=date(2030, 1, 1))  # error: arg-type, reportArgumentType
    consumer = Consumer(numbers.channel("sum"))
    consumer.get().body.upper()  # error: attr-defined, reportAttributeAccessIssue
    Desk(numbers.channel("sum"))  # error: arg-type, reportArgumentType
    nsqlite.Topicc("t")  # error: attr-defined, reportAttributeAccessIssue
    nsqlite.worker.Workr()  # error: attr-defined, reportAttributeAccessIssue
    nsqlite.aio.puts()  # error: attr-defined, reportAttributeAccessIssue
    numbers.pout(1)  # error: attr-defined, reportAttributeAccessIssue
    Topic("t", msg_timeot=5)  # error: call-arg, reportCallIssue
    Topic("t", max_depth="10")  # error: arg-type, reportArgumentType
    numbers.channel("c", when_full="block")  # error: arg-type, reportArgumentType
    numbers.channel("c", node_id=5)  # error: call-arg, reportCallIssue
    nsqlite.Broker(max_msg_sise=5)  # error: call-arg, reportCallIssue
    Consumer(numbers)  # error: arg-type, reportArgumentType
    numbers.name = "other"  # error: misc, reportAttributeAccessIssue


if __name__ == "__main__":
    main()
