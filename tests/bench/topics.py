"""The work of a broker: making topics, finding them, and moving a clock that many of them share.

The rule: names are made before, so nothing of them is measured.

Next: memory.py
"""

from loops import BODY
from timing import Loop

from nsqlite import Broker, Consumer, Topic
from nsqlite.testing import ManualClock


def names(count: int) -> list[str]:
    """Return so many names."""
    return [f"topic{number}" for number in range(count)]


def make_all(broker: Broker, some: list[str]) -> list[Consumer[bytes]]:
    """Make topics with a channel and a consumer each."""
    return [Consumer(broker.topic(name).channel("a")) for name in some]


def making(count: int) -> Loop:
    """Make so many topics with a channel and a consumer each."""
    broker, some = Broker(), names(count)

    def loop(rounds: int) -> None:
        assert rounds == count
        assert len(make_all(broker, some)) == count

    return loop


def making_after(existing: int, count: int) -> Loop:
    """Make so many topics on a `ManualClock` that has as many others."""
    broker = Broker(clock=ManualClock())
    some = names(existing + count)
    for name in some[:existing]:
        broker.topic(name)

    def loop(rounds: int) -> None:
        assert rounds == count
        for name in some[existing:]:
            broker.topic(name)

    return loop


def known_topic() -> Loop:
    """Ask a broker for a topic that it has."""
    broker = Broker()
    make_all(broker, names(100))

    def loop(rounds: int) -> None:
        for _ in range(rounds):
            broker.topic("topic50")

    return loop


def known_channel() -> Loop:
    """Ask a topic for a channel that it has."""
    topic: Topic[bytes] = Topic("bench")
    for name in names(10):
        topic.channel(name)

    def loop(rounds: int) -> None:
        for _ in range(rounds):
            topic.channel("topic5")

    return loop


def stopping(count: int, stops: int) -> Loop:
    """Have a `ManualClock` stop at deadlines of one of so many topics, each with one far away."""
    clock = ManualClock()
    broker = Broker(clock=clock)
    topics = [broker.topic(name) for name in names(count)]
    for topic in topics:
        topic.channel("a")
        topic.put(BODY, delay=3600)

    for number in range(stops):
        topics[0].put(BODY, delay=0.001 * (number + 1))

    def loop(rounds: int) -> None:
        assert rounds == stops
        clock.advance(1 + 0.001 * stops)
        assert topics[0].depth == 0
        assert topics[0].channels["a"].depth == stops

    return loop
