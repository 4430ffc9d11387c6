"""Pairs of calls that meet: two threads do what one after the other would do.

For each pair the schedules are run that schedules.py tells of: here those with at most one
preemption and some of those with two, the rest on demand:

    pytest -m soak tests/stateful/test_interleavings.py

After each the invariants hold, and all that can be seen is as after one of the two orders: results,
when who waited woke, counters, each message with its attempts, the log.
"""

import dis
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest

import nsqlite
from nsqlite import Broker, Channel, Consumer, Message, Topic
from stateful.schedules import (
    Exploration,
    Run,
    Scheduler,
    StagedClock,
    places,
    undisturbed,
)

pytestmark = pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(),
    reason="without the GIL an object that two threads know is freed at other times in each run",
)

PACKAGE: Final = Path(nsqlite.__file__).parent
HERE: Final = Path(__file__)
SOME: Final = 40  # schedules with two preemptions that are run without being asked for

Calls = tuple[Callable[[], Any], Callable[[], Any]]


class Stage:
    """Topics with two calls on them, and all that can be seen of them afterwards."""

    def __init__(self, clock: StagedClock, log: list[str], script: "Script") -> None:
        log.clear()
        self.clock = clock
        self.log = log
        self.topics: list[Topic[bytes]] = []
        self.broker: Broker | None = None
        self.events: list[str] = []
        self.calls = script(self)

    # For the scripts

    def topic(self, name: str = "orders", **options: Any) -> Topic[bytes]:
        topic: Topic[bytes] = Topic(name, clock=self.clock, **options)
        self.topics.append(topic)
        return topic

    def channel(self, bodies: bytes = b"", **options: Any) -> Channel[bytes]:
        """Return the channel of a topic, with a message for each byte."""
        topic = self.topic(**options)
        channel = topic.channel("billing")
        self.put(topic, bodies)
        return channel

    def open_topic(self, bodies: bytes = b"") -> Topic[bytes]:
        """Return a topic with such a channel."""
        self.channel(bodies)
        return self.topics[0]

    def consumer(self, bodies: bytes = b"", **options: Any) -> Consumer[bytes]:
        return Consumer(self.channel(bodies, **options))

    def put(self, topic: Topic[bytes], bodies: bytes) -> None:
        for number in bodies:
            topic.put(bytes([number]))

    def held(self, bodies: bytes = b"1", **options: Any) -> tuple[Consumer[bytes], Message[bytes]]:
        """Return a consumer that holds the first of some messages."""
        consumer = self.consumer(bodies, **options)
        return consumer, consumer.get(timeout=0)

    def hear(self, event: nsqlite.Event) -> None:
        self.events.append(f"{event.kind} {event.channel} {event.body!r}")

    # What is seen

    def outcome(self, run: Run) -> str:
        """Look at everything, then have it all delivered."""
        lines = [f"{told(result)} at {moment:g} s" for result, moment in run.results]
        if self.broker is not None:
            self.topics += self.broker.topics.values()
            lines.append(f"topics: {sorted(self.broker.topics)}")
        for topic in self.topics:
            topic._check()
            lines += look(topic)
        lines += [f"told: {event}" for event in self.events]
        self.clock.advance(10_000)  # what is in flight times out, what is deferred is due
        for topic in self.topics:
            lines += use_up(topic)
            topic._check()
        return "\n".join([*lines, *(f"log: {entry}" for entry in self.log)])


Script = Callable[[Stage], Calls]


def told(result: Any) -> str:
    """Return a result in words that are the same each time."""
    if isinstance(result, BaseException):
        return type(result).__name__
    if isinstance(result, Message):
        return f"{result.body!r} ({result.attempts})"
    if isinstance(result, list):
        return ", ".join(map(told, result))
    return "an id" if isinstance(result, str) else repr(result)


def look(topic: Topic[bytes]) -> Iterator[str]:
    """Tell the counters and the messages of a topic."""
    stats = topic.stats()
    yield f"{topic!r} {stats.depth} {stats.message_count} {stats.message_bytes} {stats.paused}"
    yield f"  dropped {stats.dropped_count}"
    for each in stats.channels:
        counters = each.to_dict()
        for client in counters["clients"]:
            del client["client_id"]  # another one each time
        yield f"  {counters} dropped {each.dropped_count}"
        channel = topic.channels[each.channel_name]
        for name in ("peek", "in_flight", "deferred"):
            messages = getattr(channel, name)()
            yield f"    {name} {[(info.body, info.attempts, info.due_in) for info in messages]}"


def use_up(topic: Topic[bytes]) -> Iterator[str]:
    """Put one more message, and tell all that every channel delivers."""
    if topic.closed:
        return
    topic.unpause()
    try:
        topic.put(b"last", timeout=0)
    except nsqlite.Full:
        yield "  full"
    except nsqlite.Closed:
        yield "  draining"
    for channel in list(topic.channels.values()):
        if channel.closed:
            continue
        channel.unpause()
        with Consumer(channel) as consumer:
            found: list[str] = []
            try:
                while True:
                    message = consumer.get(timeout=0)
                    found.append(told(message))
                    message.fin()
            except (nsqlite.Empty, nsqlite.Closed):
                yield f"  {channel.name} delivers {found}"


# The pairs

PAIRS: Final[dict[str, Script]] = {}


def pair(script: Script) -> Script:
    """Take note of a pair."""
    PAIRS[script.__name__] = script
    return script


@pair
def put_get_waiting(stage: Stage) -> Calls:
    consumer = stage.consumer()
    topic = stage.topics[0]
    return lambda: topic.put(b"a"), lambda: consumer.get(timeout=5)


@pair
def put_get_now(stage: Stage) -> Calls:
    consumer = stage.consumer()
    topic = stage.topics[0]
    return lambda: topic.put(b"a"), lambda: consumer.get(timeout=0)


@pair
def put_get_while_there_are_some(stage: Stage) -> Calls:
    consumer = stage.consumer(b"12")
    topic = stage.topics[0]
    return lambda: topic.put(b"a"), lambda: consumer.get(timeout=5)


@pair
def put_get_observed(stage: Stage) -> Calls:
    consumer = stage.consumer(observers=[stage.hear])
    topic = stage.topics[0]
    return lambda: topic.put(b"a"), lambda: consumer.get(timeout=5)


@pair
def put_put(stage: Stage) -> Calls:
    topic = stage.open_topic()
    return lambda: topic.put(b"a"), lambda: topic.put(b"b")


@pair
def put_put_two_channels(stage: Stage) -> Calls:
    topic = stage.topic(observers=[stage.hear])
    topic.channel("one")
    topic.channel("two")
    return lambda: topic.put(b"a"), lambda: topic.put(b"b")


@pair
def put_many_put_many(stage: Stage) -> Calls:
    topic = stage.open_topic()
    return lambda: topic.put_many([b"a", b"b"]), lambda: topic.put_many([b"c", b"d"])


@pair
def put_many_get_many(stage: Stage) -> Calls:
    consumer = stage.consumer()
    topic = stage.topics[0]
    return lambda: topic.put_many([b"a", b"b"]), lambda: consumer.get_many(3, timeout=5)


def bounded(stage: Stage, bodies: bytes, when_full: str, max_depth: int = 1) -> Topic[bytes]:
    stage.channel(bodies, max_depth=max_depth, when_full=when_full)
    return stage.topics[0]


@pair
def put_put_wait_for_room(stage: Stage) -> Calls:
    topic = bounded(stage, b"", "wait")
    return lambda: topic.put(b"a", timeout=5), lambda: topic.put(b"b", timeout=7)


@pair
def put_put_many_wait_for_room(stage: Stage) -> Calls:
    topic = bounded(stage, b"", "wait", 2)
    return lambda: topic.put(b"a", timeout=5), lambda: topic.put_many([b"b", b"c"], timeout=7)


@pair
def put_put_raise(stage: Stage) -> Calls:
    topic = bounded(stage, b"", "raise")
    return lambda: topic.put(b"a"), lambda: topic.put(b"b")


@pair
def put_put_drop_oldest(stage: Stage) -> Calls:
    topic = bounded(stage, b"1", "drop oldest")
    return lambda: topic.put(b"a"), lambda: topic.put(b"b")


@pair
def put_put_drop_newest(stage: Stage) -> Calls:
    topic = bounded(stage, b"", "drop newest")
    return lambda: topic.put(b"a"), lambda: topic.put(b"b")


@pair
def put_waits_get(stage: Stage) -> Calls:
    topic = bounded(stage, b"1", "wait")
    consumer = Consumer(topic.channel("billing"))
    return lambda: topic.put(b"a", timeout=5), lambda: consumer.get(timeout=0)


@pair
def put_waits_get_many(stage: Stage) -> Calls:
    topic = bounded(stage, b"12", "wait", 2)
    consumer = Consumer(topic.channel("billing"))
    return lambda: topic.put_many([b"a", b"b"], timeout=5), lambda: consumer.get_many(2, timeout=0)


@pair
def put_waits_empty(stage: Stage) -> Calls:
    topic = bounded(stage, b"1", "wait")
    return lambda: topic.put(b"a", timeout=5), topic.channel("billing").empty


@pair
def put_waits_close(stage: Stage) -> Calls:
    topic = bounded(stage, b"1", "wait")
    return lambda: topic.put(b"a", timeout=5), topic.close


@pair
def put_waits_channel_delete(stage: Stage) -> Calls:
    topic = bounded(stage, b"1", "wait")
    topic.channel("other")
    return lambda: topic.put(b"a", timeout=5), topic.channel("billing").delete


@pair
def put_waits_pause(stage: Stage) -> Calls:
    topic = bounded(stage, b"1", "wait")
    return lambda: topic.put(b"a", timeout=5), topic.pause


@pair
def put_close(stage: Stage) -> Calls:
    topic = stage.open_topic(b"1")
    return lambda: topic.put(b"a"), topic.close


@pair
def put_drain(stage: Stage) -> Calls:
    topic = stage.open_topic(b"1")
    return lambda: topic.put(b"a"), lambda: topic.close(drain=True)


@pair
def put_delete(stage: Stage) -> Calls:
    topic = stage.open_topic(b"1")
    return lambda: topic.put(b"a"), topic.delete


@pair
def put_channel_close(stage: Stage) -> Calls:
    channel = stage.channel(b"1")
    topic = stage.topics[0]
    topic.channel("other")
    return lambda: topic.put(b"a"), channel.close


@pair
def put_channel_drain(stage: Stage) -> Calls:
    channel = stage.channel(b"1")
    topic = stage.topics[0]
    return lambda: topic.put(b"a"), lambda: channel.close(drain=True)


@pair
def put_channel_delete(stage: Stage) -> Calls:
    channel = stage.channel(b"1")
    topic = stage.topics[0]
    return lambda: topic.put(b"a"), channel.delete


@pair
def put_many_channel_delete(stage: Stage) -> Calls:
    channel = stage.channel(b"1")
    topic = stage.topics[0]
    topic.channel("other")
    return lambda: topic.put_many([b"a", b"b"]), channel.delete


@pair
def put_channel_empty(stage: Stage) -> Calls:
    channel = stage.channel(b"1")
    topic = stage.topics[0]
    return lambda: topic.put(b"a"), channel.empty


@pair
def put_topic_empty(stage: Stage) -> Calls:
    topic = stage.topic()
    stage.put(topic, b"1")
    return lambda: topic.put(b"a"), topic.empty


@pair
def put_create_first_channel(stage: Stage) -> Calls:
    topic = stage.topic()
    stage.put(topic, b"1")
    return lambda: topic.put(b"a"), lambda: topic.channel("billing")


@pair
def put_create_second_channel(stage: Stage) -> Calls:
    topic = stage.open_topic(b"1")
    return lambda: topic.put(b"a"), lambda: topic.channel("other")


@pair
def create_create_channel(stage: Stage) -> Calls:
    topic = stage.topic()
    stage.put(topic, b"1")
    return lambda: topic.channel("billing"), lambda: topic.channel("billing")


@pair
def create_channel_close(stage: Stage) -> Calls:
    topic = stage.topic()
    stage.put(topic, b"1")
    return lambda: topic.channel("billing"), topic.close


@pair
def create_channel_delete_it(stage: Stage) -> Calls:
    channel = stage.channel(b"1")
    topic = stage.topics[0]
    return lambda: topic.channel("billing"), channel.delete


@pair
def put_pause(stage: Stage) -> Calls:
    topic = stage.open_topic(b"1")
    return lambda: topic.put(b"a"), topic.pause


@pair
def put_unpause(stage: Stage) -> Calls:
    topic = stage.open_topic()
    topic.pause()
    stage.put(topic, b"1")
    return lambda: topic.put(b"a"), topic.unpause


@pair
def put_channel_pause(stage: Stage) -> Calls:
    channel = stage.channel(b"1")
    topic = stage.topics[0]
    return lambda: topic.put(b"a"), channel.pause


@pair
def get_channel_pause(stage: Stage) -> Calls:
    consumer = stage.consumer(b"1")
    return lambda: consumer.get(timeout=5), consumer.channel.pause


@pair
def get_channel_unpause(stage: Stage) -> Calls:
    consumer = stage.consumer(b"1")
    consumer.channel.pause()
    return lambda: consumer.get(timeout=5), consumer.channel.unpause


@pair
def get_unpause(stage: Stage) -> Calls:
    consumer = stage.consumer()
    topic = stage.topics[0]
    topic.pause()
    stage.put(topic, b"1")
    return lambda: consumer.get(timeout=5), topic.unpause


@pair
def get_get_one_message(stage: Stage) -> Calls:
    one = stage.consumer(b"1")
    two = Consumer(one.channel)
    return lambda: one.get(timeout=5), lambda: two.get(timeout=7)


@pair
def get_get_two_messages(stage: Stage) -> Calls:
    one = stage.consumer(b"12")
    two = Consumer(one.channel)
    return lambda: one.get(timeout=5), lambda: two.get(timeout=7)


@pair
def get_get_same_consumer(stage: Stage) -> Calls:
    consumer = stage.consumer(b"12")
    consumer.rdy(1)
    return lambda: consumer.get(timeout=5), lambda: consumer.get(timeout=7)


@pair
def get_get_a_deferred_message(stage: Stage) -> Calls:
    """The first to wait goes before the message is due, and the other must take over the watch."""
    one = stage.consumer()
    two = Consumer(one.channel)
    stage.topics[0].put(b"1", delay=3)
    return lambda: one.get(timeout=2), lambda: two.get(timeout=7)


@pair
def get_many_get_many(stage: Stage) -> Calls:
    one = stage.consumer(b"123")
    two = Consumer(one.channel)
    return lambda: one.get_many(2, timeout=5), lambda: two.get_many(2, timeout=7)


@pair
def get_many_lingers_put(stage: Stage) -> Calls:
    consumer = stage.consumer(b"1")
    topic = stage.topics[0]
    return lambda: consumer.get_many(2, timeout=5, linger=3), lambda: topic.put(b"a")


@pair
def get_channel_close(stage: Stage) -> Calls:
    consumer = stage.consumer()
    return lambda: consumer.get(timeout=5), consumer.channel.close


@pair
def get_channel_close_with_one_there(stage: Stage) -> Calls:
    consumer = stage.consumer(b"1")
    return lambda: consumer.get(timeout=5), consumer.channel.close


@pair
def get_channel_delete(stage: Stage) -> Calls:
    consumer = stage.consumer()
    return lambda: consumer.get(timeout=5), consumer.channel.delete


@pair
def get_drain(stage: Stage) -> Calls:
    consumer = stage.consumer()
    topic = stage.topics[0]
    return lambda: consumer.get(timeout=5), lambda: topic.close(drain=True)


@pair
def get_channel_empty(stage: Stage) -> Calls:
    consumer = stage.consumer(b"1")
    return lambda: consumer.get(timeout=5), consumer.channel.empty


@pair
def get_consumer_close(stage: Stage) -> Calls:
    consumer = stage.consumer()
    return lambda: consumer.get(timeout=5), consumer.close


@pair
def get_consumer_close_with_one_there(stage: Stage) -> Calls:
    consumer = stage.consumer(b"1")
    return lambda: consumer.get(timeout=5), consumer.close


@pair
def get_time_out(stage: Stage) -> Calls:
    one, _ = stage.held()
    two = Consumer(one.channel)
    return lambda: two.get(timeout=70), lambda: stage.clock.advance(60)


@pair
def get_time_out_unnoticed(stage: Stage) -> Calls:
    """Nobody moves the clock but the waiting get itself, which must see to the time-out."""
    one, _ = stage.held()
    two = Consumer(one.channel)
    return lambda: two.get(timeout=70), lambda: stage.clock.skip(50)


@pair
def get_time_out_many(stage: Stage) -> Calls:
    one = stage.consumer(b"123")
    one.get_many(3)
    two = Consumer(one.channel)
    return lambda: two.get_many(3, timeout=70), lambda: stage.clock.advance(60)


@pair
def get_get_overdue(stage: Stage) -> Calls:
    one, _ = stage.held()
    two = Consumer(one.channel)
    stage.clock.skip(60)
    return lambda: one.get(timeout=0), lambda: two.get(timeout=0)


@pair
def get_deferred_put(stage: Stage) -> Calls:
    consumer = stage.consumer()
    topic = stage.topics[0]
    return lambda: consumer.get(timeout=5), lambda: topic.put(b"a", delay=2)


@pair
def get_due(stage: Stage) -> Calls:
    consumer = stage.consumer()
    stage.topics[0].put(b"a", delay=2)
    return lambda: consumer.get(timeout=5), lambda: stage.clock.advance(2)


@pair
def get_shorter_time_out_than_the_watched(stage: Stage) -> Calls:
    """What times out first is delivered while a get waits already."""
    one = stage.consumer(b"")
    two = Consumer(one.channel, msg_timeout=2)
    stage.put(stage.topics[0], b"1")
    return lambda: one.get(timeout=5), lambda: two.get(timeout=0)


@pair
def fin_time_out(stage: Stage) -> Calls:
    consumer, message = stage.held()
    return lambda: consumer.fin(message), lambda: stage.clock.advance(60)


@pair
def fin_time_out_observed(stage: Stage) -> Calls:
    consumer, message = stage.held(observers=[stage.hear])
    return lambda: consumer.fin(message), lambda: stage.clock.advance(60)


@pair
def fin_get_overdue(stage: Stage) -> Calls:
    consumer, message = stage.held()
    stage.clock.skip(60)
    return lambda: consumer.fin(message), lambda: consumer.get(timeout=0)


@pair
def fin_and_get_time_out(stage: Stage) -> Calls:
    consumer, message = stage.held(b"12")
    now = stage.clock.monotonic_ns()
    return lambda: consumer._finish_and_get(message, now), lambda: stage.clock.advance(60)


@pair
def fin_and_get_fin_and_get(stage: Stage) -> Calls:
    consumer, one = stage.held(b"123")
    two = consumer.get(timeout=0)
    now = stage.clock.monotonic_ns()
    return lambda: consumer._finish_and_get(one, now), lambda: consumer._finish_and_get(two, now)


@pair
def fin_and_get_close(stage: Stage) -> Calls:
    consumer, message = stage.held(b"12")
    now = stage.clock.monotonic_ns()
    return lambda: consumer._finish_and_get(message, now), consumer.close


@pair
def fin_many_time_out(stage: Stage) -> Calls:
    consumer = stage.consumer(b"12")
    batch = consumer.get_many(2)
    return lambda: consumer.fin_many(batch), lambda: stage.clock.advance(60)


@pair
def req_time_out(stage: Stage) -> Calls:
    consumer, message = stage.held()
    return lambda: consumer.req(message), lambda: stage.clock.advance(60)


@pair
def touch_time_out(stage: Stage) -> Calls:
    consumer, message = stage.held()
    return lambda: consumer.touch(message), lambda: stage.clock.advance(60)


@pair
def touch_get_overdue(stage: Stage) -> Calls:
    consumer, message = stage.held()
    stage.clock.skip(60)
    return lambda: consumer.touch(message), lambda: consumer.get(timeout=0)


@pair
def fin_fin(stage: Stage) -> Calls:
    consumer, message = stage.held()
    return lambda: consumer.fin(message), lambda: consumer.fin(message)


@pair
def fin_fin_of_two(stage: Stage) -> Calls:
    consumer, one = stage.held(b"12")
    two = consumer.get(timeout=0)
    return lambda: consumer.fin(one), lambda: consumer.fin(two)


@pair
def fin_fin_many(stage: Stage) -> Calls:
    consumer, one = stage.held(b"12")
    two = consumer.get(timeout=0)
    return lambda: consumer.fin(one), lambda: consumer.fin_many([two, one])


@pair
def fin_req(stage: Stage) -> Calls:
    consumer, message = stage.held()
    return lambda: consumer.fin(message), lambda: consumer.req(message)


@pair
def fin_req_later(stage: Stage) -> Calls:
    consumer, message = stage.held()
    return lambda: consumer.fin(message), lambda: consumer.req(message, delay=3)


@pair
def fin_touch(stage: Stage) -> Calls:
    consumer, message = stage.held()
    stage.clock.skip(1)
    return lambda: consumer.fin(message), lambda: consumer.touch(message)


@pair
def req_touch(stage: Stage) -> Calls:
    consumer, message = stage.held()
    stage.clock.skip(1)
    return lambda: consumer.req(message, delay=3), lambda: consumer.touch(message)


@pair
def req_get(stage: Stage) -> Calls:
    one, message = stage.held()
    two = Consumer(one.channel)
    return lambda: one.req(message), lambda: two.get(timeout=5)


@pair
def req_later_get(stage: Stage) -> Calls:
    one, message = stage.held()
    two = Consumer(one.channel)
    return lambda: one.req(message, delay=2), lambda: two.get(timeout=5)


@pair
def fin_get_window_full(stage: Stage) -> Calls:
    consumer = stage.consumer(b"12")
    consumer.rdy(1)
    message = consumer.get(timeout=0)
    return lambda: consumer.fin(message), lambda: consumer.get(timeout=5)


@pair
def rdy_get(stage: Stage) -> Calls:
    consumer = stage.consumer(b"1")
    consumer.rdy(0)
    return lambda: consumer.rdy(1), lambda: consumer.get(timeout=5)


@pair
def rdy_zero_get(stage: Stage) -> Calls:
    consumer = stage.consumer(b"1")
    return lambda: consumer.rdy(0), lambda: consumer.get(timeout=5)


@pair
def fin_put(stage: Stage) -> Calls:
    consumer, message = stage.held()
    topic = stage.topics[0]
    return lambda: consumer.fin(message), lambda: topic.put(b"a")


@pair
def fin_channel_close(stage: Stage) -> Calls:
    consumer, message = stage.held()
    return lambda: consumer.fin(message), consumer.channel.close


@pair
def fin_channel_drain(stage: Stage) -> Calls:
    consumer, message = stage.held()
    return lambda: consumer.fin(message), lambda: consumer.channel.close(drain=True)


@pair
def fin_drain(stage: Stage) -> Calls:
    consumer, message = stage.held()
    topic = stage.topics[0]
    return lambda: consumer.fin(message), lambda: topic.close(drain=True)


@pair
def fin_channel_delete(stage: Stage) -> Calls:
    consumer, message = stage.held()
    return lambda: consumer.fin(message), consumer.channel.delete


@pair
def fin_channel_empty(stage: Stage) -> Calls:
    consumer, message = stage.held()
    return lambda: consumer.fin(message), consumer.channel.empty


@pair
def fin_consumer_close(stage: Stage) -> Calls:
    consumer, message = stage.held(b"12")
    return lambda: consumer.fin(message), consumer.close


@pair
def req_channel_delete(stage: Stage) -> Calls:
    consumer, message = stage.held()
    return lambda: consumer.req(message), consumer.channel.delete


@pair
def req_consumer_close(stage: Stage) -> Calls:
    consumer, message = stage.held(b"12")
    return lambda: consumer.req(message), consumer.close


@pair
def touch_channel_delete(stage: Stage) -> Calls:
    consumer, message = stage.held()
    return lambda: consumer.touch(message), consumer.channel.delete


@pair
def join_fin(stage: Stage) -> Calls:
    consumer, message = stage.held()
    return lambda: consumer.channel.join(timeout=5), lambda: consumer.fin(message)


@pair
def join_fin_many(stage: Stage) -> Calls:
    consumer = stage.consumer(b"12")
    topic = stage.topics[0]
    batch = consumer.get_many(2)
    return lambda: topic.join(timeout=5), lambda: consumer.fin_many(batch)


@pair
def join_put(stage: Stage) -> Calls:
    topic = stage.open_topic()
    return lambda: topic.join(timeout=5), lambda: topic.put(b"a")


@pair
def join_close(stage: Stage) -> Calls:
    topic = stage.open_topic(b"1")
    return lambda: topic.join(timeout=5), topic.close


@pair
def join_channel_delete(stage: Stage) -> Calls:
    channel = stage.channel(b"1")
    topic = stage.topics[0]
    return lambda: topic.join(timeout=5), channel.delete


@pair
def join_empty(stage: Stage) -> Calls:
    channel = stage.channel(b"1")
    return lambda: channel.join(timeout=5), channel.empty


def two_topics(stage: Stage) -> list[tuple[Topic[bytes], Consumer[bytes], Message[bytes]]]:
    """Return two topics, each with a consumer that holds one of two messages."""
    sides = []
    for name, bodies in (("orders", b"12"), ("letters", b"34")):
        topic = stage.topic(name)
        consumer = Consumer(topic.channel("billing"))
        stage.put(topic, bodies)
        sides.append((topic, consumer, consumer.get(timeout=0)))
    return sides


@pair
def move_move_crosswise(stage: Stage) -> Calls:
    (one, first, a), (two, second, b) = two_topics(stage)
    return lambda: first.move(a, two), lambda: second.move(b, one)


@pair
def move_move_same_message(stage: Stage) -> Calls:
    (_, first, a), (two, _, _) = two_topics(stage)
    return lambda: first.move(a, two), lambda: first.move(a, two.channel("billing"))


@pair
def move_move_within(stage: Stage) -> Calls:
    consumer, one = stage.held(b"12")
    two = consumer.get(timeout=0)
    topic = stage.topics[0]
    return lambda: consumer.move(one, topic), lambda: consumer.move(two, consumer.channel)


@pair
def move_fin(stage: Stage) -> Calls:
    (_, first, a), (two, _, _) = two_topics(stage)
    return lambda: first.move(a, two), lambda: first.fin(a)


@pair
def move_time_out(stage: Stage) -> Calls:
    (_, first, a), (two, second, b) = two_topics(stage)
    second.fin(b)
    return lambda: first.move(a, two), lambda: stage.clock.advance(60)


@pair
def move_close_target(stage: Stage) -> Calls:
    (_, first, a), (two, _, _) = two_topics(stage)
    return lambda: first.move(a, two), two.close


@pair
def move_close_source(stage: Stage) -> Calls:
    (one, first, a), (two, _, _) = two_topics(stage)
    return lambda: first.move(a, two), one.close


@pair
def move_put_target(stage: Stage) -> Calls:
    (_, first, a), (two, _, _) = two_topics(stage)
    return lambda: first.move(a, two), lambda: two.put(b"b")


@pair
def move_get_target(stage: Stage) -> Calls:
    consumer, message = stage.held()
    other = stage.topic("letters")
    getter = Consumer(other.channel("billing"))
    return lambda: consumer.move(message, other), lambda: getter.get(timeout=5)


@pair
def last_consumer_leaves_put(stage: Stage) -> Calls:
    topic = stage.topic()
    topic.channel("other")
    consumer = Consumer(topic.channel("billing#ephemeral"))
    stage.put(topic, b"1")
    return consumer.close, lambda: topic.put(b"a")


@pair
def last_consumer_leaves_another_comes(stage: Stage) -> Calls:
    topic = stage.topic()
    consumer = Consumer(topic.channel("billing#ephemeral"))
    stage.put(topic, b"1")
    return consumer.close, lambda: Consumer(consumer.channel).max_in_flight


@pair
def last_consumer_leaves_get(stage: Stage) -> Calls:
    topic = stage.topic()
    consumer = Consumer(topic.channel("billing#ephemeral"))
    return consumer.close, lambda: consumer.get(timeout=5)


@pair
def last_channel_of_ephemeral_topic_put(stage: Stage) -> Calls:
    topic = stage.topic("orders#ephemeral")
    channel = topic.channel("billing")
    stage.put(topic, b"1")
    return channel.delete, lambda: topic.put(b"a")


@pair
def consumer_close_consumer_close(stage: Stage) -> Calls:
    one, _ = stage.held(b"12")
    return one.close, one.close


@pair
def close_close(stage: Stage) -> Calls:
    topic = stage.open_topic(b"1")
    return topic.close, topic.close


@pair
def close_delete(stage: Stage) -> Calls:
    topic = stage.open_topic(b"1")
    return topic.close, topic.delete


@pair
def drain_close(stage: Stage) -> Calls:
    topic = stage.open_topic(b"1")
    return lambda: topic.close(drain=True), topic.close


@pair
def observe_put(stage: Stage) -> Calls:
    topic = stage.open_topic()
    return lambda: callable(topic.observe(stage.hear)), lambda: topic.put(b"a")


@pair
def stats_put(stage: Stage) -> Calls:
    topic = stage.open_topic()
    return lambda: topic.stats().message_count, lambda: topic.put(b"a")


@pair
def depth_get(stage: Stage) -> Calls:
    consumer = stage.consumer(b"12")
    return lambda: consumer.channel.depth, lambda: consumer.get(timeout=0)


@pair
def broker_topic_topic(stage: Stage) -> Calls:
    broker = stage.broker = Broker(clock=stage.clock)
    return lambda: broker.topic("orders").put(b"a"), lambda: broker.topic("orders").put(b"b")


@pair
def broker_topic_delete(stage: Stage) -> Calls:
    broker = stage.broker = Broker(clock=stage.clock)
    topic = broker.topic("orders")
    return lambda: broker.topic("orders") is topic, topic.delete


@pair
def broker_topic_close(stage: Stage) -> Calls:
    broker = stage.broker = Broker(clock=stage.clock)
    broker.topic("letters")
    return lambda: broker.topic("orders").name, broker.close


# Playing them


class Log(logging.Handler):
    """Collects what is logged; a log's lock must be a real one, so it is made before the scene."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.entries.append(record.getMessage())


@pytest.fixture(name="log")
def _log() -> Iterator[list[str]]:
    log = logging.getLogger("nsqlite")
    handler = Log()
    log.addHandler(handler)
    log.propagate = False
    yield handler.entries
    log.propagate = True
    log.removeHandler(handler)


@pytest.fixture(name="scheduler")
def _scheduler() -> Iterator[Scheduler]:
    with Scheduler(PACKAGE) as scheduler, undisturbed():
        yield scheduler


def report(exploration: Exploration) -> str:
    """Tell the faults of a pair, each with what differs from the order that it is next to."""
    lines = []
    for outcome, (schedule, times) in exploration.faults.items():
        lines += [f"{times} of {exploration.runs} runs ended in no order; {schedule}", outcome, ""]
    for outcome, name in exploration.right.items():
        lines += [f"-- {name}", outcome, ""]
    return "\n".join(lines)


@pytest.mark.parametrize("name", PAIRS)
def test_a_preemption_changes_nothing(name: str, scheduler: Scheduler, log: list[str]) -> None:
    """With one preemption, or two in a sample, calls do what they do one after the other."""
    exploration = Exploration(scheduler, lambda clock: Stage(clock, log, PAIRS[name]))
    exploration.run_some(SOME)
    assert not exploration.faults, report(exploration)


@pytest.mark.soak
@pytest.mark.parametrize("name", PAIRS)
def test_two_preemptions_change_nothing(
    name: str,
    scheduler: Scheduler,
    log: list[str],
    record_property: Callable[[str, object], None],
) -> None:
    """With up to two preemptions calls do what they do one after the other."""
    exploration = Exploration(scheduler, lambda clock: Stage(clock, log, PAIRS[name]))
    exploration.run_all()
    record_property("schedules", exploration.total)
    print(f"{name}: {exploration.total} schedules")
    assert exploration.runs == exploration.total
    assert not exploration.faults, report(exploration)


WOKEN: Final = {
    "put_get_waiting": {"an id at 0 s, b'a' (1) at 0 s"},
    "put_waits_get": {"an id at 0 s, b'1' (1) at 0 s"},
    "put_waits_close": {"Closed at 0 s, 1 at 0 s"},
    "get_get_a_deferred_message": {"Empty at 2 s, b'1' (1) at 3 s"},
    "get_deferred_put": {"b'a' (1) at 2 s, an id at 0 s"},
    "get_due": {"b'a' (1) at 2 s, None at 0 s", "b'a' (1) at 0 s, None at 0 s"},
    "get_time_out_unnoticed": {"b'1' (2) at 60 s, None at 0 s"},
    "get_drain": {"Closed at 0 s, 0 at 0 s"},
    "get_consumer_close": {"Closed at 0 s, None at 0 s"},
    "req_later_get": {"None at 0 s, b'1' (2) at 2 s"},
    "fin_get_window_full": {"None at 0 s, b'2' (1) at 0 s"},
    "join_fin": {"True at 0 s, None at 0 s"},
    "join_close": {"Closed at 0 s, 1 at 0 s"},
}
"""What two calls come to, one after the other, where one waits for the other or for the time."""


@pytest.mark.parametrize("name", WOKEN)
def test_who_waits_is_woken_when_it_is_time(
    name: str, scheduler: Scheduler, log: list[str]
) -> None:
    """What the orders are compared with is right itself: who waits wakes at its moment."""
    exploration = Exploration(scheduler, lambda clock: Stage(clock, log, PAIRS[name]))
    results = {", ".join(outcome.splitlines()[:2]) for outcome in exploration.right}
    assert WOKEN[name] == results


# Whether the scheduler finds what there is to find


def pause() -> None:
    """Be a call, so that there is a place after it."""


class Counter:
    """A scene whose calls read, and write later."""

    def __init__(self, _clock: StagedClock) -> None:
        self.count = 0
        self.lock = threading.RLock()
        self.calls = (self.work, self.work)

    def work(self) -> None:
        count = self.count
        pause()
        self.count = count + 1

    def outcome(self, _run: Run) -> str:
        return str(self.count)


class LockedCounter(Counter):
    """The same under a lock."""

    def work(self) -> None:
        with self.lock:
            super().work()


class Flicker(Counter):
    """A scene whose fault takes two preemptions."""

    def __init__(self, clock: StagedClock) -> None:
        super().__init__(clock)
        self.seen: list[int] = []
        self.calls = (self.work, self.look)

    def work(self) -> None:
        self.count = 1
        pause()
        self.count = 0

    def look(self) -> None:
        first = self.count
        pause()
        self.seen = [first, self.count]

    def outcome(self, _run: Run) -> str:
        return str(self.seen == [1, 0])


class Embrace(Counter):
    """A scene whose calls take two locks, each in its order."""

    def __init__(self, clock: StagedClock) -> None:
        super().__init__(clock)
        self.other = threading.RLock()
        self.calls = (self.one, self.two)

    def one(self) -> None:
        with self.lock:
            pause()
            with self.other:
                pause()

    def two(self) -> None:
        with self.other:
            pause()
            with self.lock:
                pause()

    def outcome(self, run: Run) -> str:
        return ", ".join(told(result) for result, _ in run.results)


class Sleeper(Counter):
    """A scene with a call that looks, and then sleeps through what has happened meanwhile."""

    def __init__(self, clock: StagedClock) -> None:
        super().__init__(clock)
        self.clock = clock
        self.semaphore = threading.Lock()
        self.semaphore.acquire()
        self.asleep = False
        self.calls = (self.work, self.ring)

    def work(self) -> None:
        if not self.count:
            pause()
            self.asleep = True
            self.clock.wait(self.semaphore, None, "a test")

    def ring(self) -> None:
        self.count = 1
        if self.asleep:
            self.semaphore.release()

    def outcome(self, run: Run) -> str:
        return ", ".join(told(result) for result, _ in run.results)


@pytest.fixture(name="own")
def _own() -> Iterator[Scheduler]:
    with Scheduler(HERE) as scheduler, undisturbed():
        yield scheduler


def test_a_race_is_found(own: Scheduler) -> None:
    """What is read before a place and written after it is found wrong with one preemption."""
    exploration = Exploration(own, Counter)
    assert ({"2"}, {"1"}) == (set(exploration.right), set(exploration.faults))


def test_a_lock_holds(own: Scheduler) -> None:
    """Under a lock it is never wrong; who finds it taken waits."""
    exploration = Exploration(own, LockedCounter)
    exploration.run_all()
    assert ({"2"}, {}) == (set(exploration.right), exploration.faults)
    assert exploration.runs == exploration.total > 20


def test_a_fault_of_two_preemptions_is_found(own: Scheduler) -> None:
    """What takes two preemptions is found with two, and not with one."""
    exploration = Exploration(own, Flicker)
    assert {} == exploration.faults
    exploration.run_all()
    assert {"True"} == set(exploration.faults)


def test_a_deadlock_is_found(own: Scheduler) -> None:
    """Two threads that wait for each other's locks are told, and do not hang."""
    exploration = Exploration(own, Embrace)
    assert {"None, Stuck", "Stuck, None"} == set(exploration.faults)


def test_a_lost_wake_up_is_found(own: Scheduler) -> None:
    """Who would sleep for ever is told."""
    exploration = Exploration(own, Sleeper)
    assert {"Stuck, None"} == set(exploration.faults)


def test_places() -> None:
    """They are after the beginning, after each call and where a loop goes round; nowhere else."""

    def loop(items: list[int]) -> int:
        total = 0
        for item in items:
            total += item
        return len(items) + total

    code = loop.__code__
    before = [
        earlier.opname
        for earlier, later in pairwise(dis.get_instructions(code))
        if later.offset in places(code)
    ]
    assert ["RESUME", "GET_ITER", "CALL"] == before  # the loop's head comes after GET_ITER
