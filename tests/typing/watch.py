"""Observers, events and statistics: a program that shows what another does."""

from collections import Counter
from typing import Any, assert_type

import nsqlite
from nsqlite import (
    Broker,
    BrokerStats,
    ChannelStats,
    ClientStats,
    Consumer,
    Event,
    Kind,
    LatencyStats,
    MessageInfo,
    Observer,
    TopicStats,
)


class Meter:
    """An observer with a state."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self.kinds: Counter[Kind] = Counter()

    def __call__(self, event: Event) -> None:
        """Count an event."""
        self.kinds[event.kind] += 1


def line(event: Event) -> str:
    """Say an event in words."""
    assert_type(event.id, str | None)
    assert_type(event.due, float | None)
    where = event.topic if event.channel is None else f"{event.topic}:{event.channel}"
    return f"{event.time:.3f} {event.kind} {where} {event.body!r}"


def busiest(stats: BrokerStats) -> tuple[str, int]:
    """Return the topic with the most messages ready."""
    depths: dict[str, int] = {}
    for topic in stats.topics:
        assert_type(topic, TopicStats)
        depths[topic.topic_name] = topic.depth
        for channel in topic.channels:
            assert_type(channel, ChannelStats)
            assert_type(channel.e2e_processing_latency, LatencyStats)
            depths[topic.topic_name] += channel.depth + channel.in_flight_count
            for client in channel.clients:
                assert_type(client, ClientStats)
    return max(depths.items(), key=lambda pair: pair[1])


def least_tried(infos: list[MessageInfo]) -> MessageInfo:
    """Return what was delivered least often."""
    return min(infos, key=lambda info: info.attempts)


def main() -> None:
    """Watch two topics."""
    meter = Meter()
    lines: list[str] = []
    observers: list[Observer] = [meter]
    broker = Broker(observers=observers, e2e_processing_latency_percentiles=(0.5, 0.99))
    end = broker.observe(lambda event: lines.append(line(event)))
    topic = broker.topic("orders")
    consumer = Consumer(topic.channel("billing"))
    topic.put_many([1, 2])
    consumer.get(timeout=0).fin()
    end()
    assert meter.kinds[Kind.DELIVERED] == 1
    assert "delivered" in lines[-2]
    assert busiest(broker.stats()) == ("orders", 1)
    assert_type(broker.stats().to_dict(), dict[str, Any])
    assert least_tried(topic.channel("billing").peek(5)).body == 2
    topic.channel("billing").empty()
    broker.close()


def mistakes(topic: nsqlite.Topic[int]) -> None:
    """What a type checker is to refuse; never called."""

    def two(event: Event, more: int) -> None: ...

    topic.observe(two)  # error: arg-type, reportArgumentType
    topic.observe("print")  # error: arg-type, reportArgumentType
    topic.observe(lambda event: event.boddy)  # error: attr-defined, reportAttributeAccessIssue
    Broker(observers=Meter())  # error: arg-type, reportArgumentType
    print(Kind.FINISHD)  # error: attr-defined, reportAttributeAccessIssue
    print(topic.stats().depht)  # error: attr-defined, reportAttributeAccessIssue
    topic.stats().depth = 5  # error: misc, reportAttributeAccessIssue
    Event()  # error: call-arg, reportCallIssue


if __name__ == "__main__":
    main()
