"""Events: what is told, to whom, in which order, and that it hurts nobody."""

import itertools
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest
from helpers import PATIENCE, Call, TellingClock

from nsqlite import Broker, Consumer, Event, Full, InvalidOption, Kind, Topic
from nsqlite.events import LIFE_CYCLE
from nsqlite.testing import ManualClock
from nsqlite.timeline import Recorder

START: Final = 1_700_000_000.0


def heard(recorder: Recorder) -> list[str]:
    """Return what has been heard since the last call, as `kind` or `kind channel`."""
    events = recorder.events
    recorder.clear()
    return [" ".join(filter(None, [event.kind, event.channel])) for event in events]


# Events


def test_every_kind_has_its_words() -> None:
    """The kinds are those that can happen, and each equals its text."""
    assert [
        "created",
        "published",
        "delivered",
        "finished",
        "requeued",
        "touched",
        "timed out",
        "returned",
        "deferred",
        "due",
        "dropped",
        "discarded",
        "waiting",
        "refused",
        "window full",
        "paused",
        "unpaused",
        "emptied",
        "deleted",
        "closed",
    ] == list(Kind)
    assert "timed out" == f"{Kind.TIMED_OUT}"


def test_an_event_is_a_frozen_fact() -> None:
    """An event cannot be changed, and equals another that says the same."""
    event = Event(kind=Kind.CREATED, time=1.0, topic="orders")
    with pytest.raises(AttributeError):
        event.time = 2.0  # type: ignore[misc]  # frozen
    assert Event(kind=Kind.CREATED, time=1.0, topic="orders") == event


def test_the_life_of_a_message_is_told() -> None:
    """All that happens to a message is told, with time, id, body, attempts, holder and due."""
    clock = ManualClock(START)
    recorder = Recorder()
    topic = Topic("orders", clock=clock, observers=[recorder], msg_timeout=10)
    consumer = Consumer(topic.channel("billing"))
    id_ = topic.put("tea", delay=2)
    clock.advance(2)
    message = consumer.get(timeout=0)
    clock.advance(1)
    message.touch()
    clock.advance(10)
    message = consumer.get(timeout=0)
    message.req(delay=4)
    clock.advance(4)
    message = consumer.get(timeout=0)
    message.req()
    message = consumer.get(timeout=0)
    message.fin()

    def told(kind: Kind, after: float, channel: str | None = "billing", **more: Any) -> Event:
        if more:
            more |= {"id": id_, "body": "tea"}
        return Event(kind=kind, time=START + after, topic="orders", channel=channel, **more)

    number = consumer.client_id
    assert [
        told(Kind.CREATED, 0, None),
        told(Kind.CREATED, 0),
        told(Kind.PUBLISHED, 0, None, due=START + 2),
        told(Kind.DEFERRED, 0, attempts=0, due=START + 2),
        told(Kind.DUE, 2, attempts=0, due=START + 2),
        told(Kind.DELIVERED, 2, attempts=1, client_id=number, due=START + 12),
        told(Kind.TOUCHED, 3, attempts=1, client_id=number, due=START + 13),
        told(Kind.TIMED_OUT, 13, attempts=1, client_id=number, due=START + 13),
        told(Kind.DELIVERED, 13, attempts=2, client_id=number, due=START + 23),
        told(Kind.REQUEUED, 13, attempts=2, client_id=number, due=START + 17),
        told(Kind.DEFERRED, 13, attempts=2, due=START + 17),
        told(Kind.DUE, 17, attempts=2, due=START + 17),
        told(Kind.DELIVERED, 17, attempts=3, client_id=number, due=START + 27),
        told(Kind.REQUEUED, 17, attempts=3, client_id=number),
        told(Kind.DELIVERED, 17, attempts=4, client_id=number, due=START + 27),
        told(Kind.FINISHED, 17, attempts=4, client_id=number),
    ] == [*recorder.events]


def test_what_is_done_to_a_channel_is_told() -> None:
    """Pausing, emptying, giving back, closing and deleting are told, with how many it concerned."""
    recorder = Recorder()
    topic = Topic("orders", clock=ManualClock(), observers=[recorder])
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put_many([b"1", b"2"])
    consumer.get(timeout=0)
    recorder.clear()
    channel.pause()
    channel.pause()
    channel.unpause()
    consumer.close()
    channel.empty()
    topic.put(b"3")
    channel.close()
    channel.delete()
    assert [
        (Kind.PAUSED, 1),
        (Kind.UNPAUSED, 1),
        (Kind.RETURNED, 1),
        (Kind.EMPTIED, 2),
        (Kind.PUBLISHED, 1),
        (Kind.CLOSED, 1),
        (Kind.DELETED, 0),
    ] == [(event.kind, event.count) for event in recorder.events]


def test_what_is_done_to_a_topic_is_told() -> None:
    """What concerns the topic itself is told without a channel."""
    recorder = Recorder()
    topic = Topic(
        "orders", clock=ManualClock(), observers=[recorder], max_depth=2, when_full="drop oldest"
    )
    topic.pause()
    topic.put_many([b"1", b"2"])
    topic.put(b"3")
    topic.empty()
    topic.unpause()
    topic.put(b"4")
    topic.delete()
    assert [
        (Kind.CREATED, None, 1),
        (Kind.PAUSED, None, 1),
        (Kind.PUBLISHED, b"1", 1),
        (Kind.PUBLISHED, b"2", 1),
        (Kind.PUBLISHED, b"3", 1),
        (Kind.DROPPED, b"1", 1),
        (Kind.EMPTIED, None, 2),
        (Kind.UNPAUSED, None, 1),
        (Kind.PUBLISHED, b"4", 1),
        (Kind.DELETED, None, 1),
    ] == [(event.kind, event.body, event.count) for event in recorder.events]
    assert {None} == {event.channel for event in recorder.events}


# Who is told


def test_observers_are_told_in_their_order() -> None:
    """All observers hear an event, in the order in which they came, before the next event."""
    topic = Topic("orders")
    told: list[tuple[str, Kind]] = []
    topic.observe(lambda event: told.append(("first", event.kind)))
    topic.observe(lambda event: told.append(("second", event.kind)))
    topic.pause()
    topic.unpause()
    assert [
        ("first", Kind.PAUSED),
        ("second", Kind.PAUSED),
        ("first", Kind.UNPAUSED),
        ("second", Kind.UNPAUSED),
    ] == told


def test_who_comes_late_hears_what_follows() -> None:
    """An observer hears nothing of what happened before it came."""
    topic = Topic("orders")
    topic.put(b"1")
    recorder = Recorder()
    topic.observe(recorder)
    topic.put(b"2")
    assert [b"2"] == [event.body for event in recorder.events]


def test_who_stops_hears_no_more() -> None:
    """What `observe` returns ends it, for this observer alone; a second time it does nothing."""
    topic = Topic("orders")
    recorder, other = Recorder(), Recorder()
    stop = topic.observe(recorder)
    topic.observe(other)
    topic.pause()
    stop()
    stop()
    topic.unpause()
    assert ["paused"] == heard(recorder)
    assert ["paused", "unpaused"] == heard(other)


def test_an_observer_can_stop_itself() -> None:
    """An observer that ends itself while it is told hears not even what has happened already."""
    topic = Topic("orders")
    recorder = Recorder()

    def once(event: Event) -> None:
        recorder(event)
        stop()

    stop = topic.observe(once)
    topic.put_many([b"1", b"2"])
    assert [b"1"] == [event.body for event in recorder.events]


def test_nothing_is_kept_for_nobody() -> None:
    """While nobody listens no event is made."""
    topic = Topic("orders")
    stop = topic.observe(Recorder())
    assert topic._monitor.watched
    stop()
    topic.put(b"1")
    assert (False, 0) == (topic._monitor.watched, len(topic._monitor.events))


def test_a_brokers_observers_hear_every_topic() -> None:
    """Who is given to a broker hears every topic, its creation first."""
    recorder = Recorder()
    broker = Broker(observers=[recorder])
    broker.topic("a").channel("x")
    broker.topic("b")
    broker.topic("a").pause()
    assert [
        ("a", "created", None),
        ("a", "created", "x"),
        ("b", "created", None),
        ("a", "paused", None),
    ] == [(event.topic, event.kind, event.channel) for event in recorder.events]


def test_a_broker_is_observed_until_stopped() -> None:
    """Who observes a broker hears the topics there are and those to come, until it is ended."""
    broker = Broker()
    old = broker.topic("old")
    recorder = Recorder()
    stop = broker.observe(recorder)
    old.pause()
    new = broker.topic("new")
    new.pause()
    assert ["paused", "created", "paused"] == heard(recorder)
    stop()
    for topic in (old, new, broker.topic("newest")):
        topic.put(b"1")
    assert [] == heard(recorder)


# When and where


def test_the_lock_is_free_while_observers_are_told() -> None:
    """While an observer is told, other threads can use the topic, and it may wait for them."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    depths: list[object] = []

    def look(event: Event) -> None:
        assert not topic._monitor.lock.owned()
        if event.kind is Kind.PUBLISHED:
            depths.append(Call(lambda: channel.depth).result())

    topic.observe(look)
    topic.put(b"1")
    assert [1] == depths


def test_an_observer_may_use_the_topic() -> None:
    """What an observer's own calls cause is told next, not inside of what it is being told."""
    topic = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    told: list[str] = []
    depth = itertools.count()

    def answer(event: Event) -> None:
        level = next(depth)
        told.append(f"{event.kind} begins")
        if event.kind is Kind.PUBLISHED:
            consumer.get(timeout=0)
        elif event.kind is Kind.DELIVERED:
            consumer.close()
        told.append(f"{event.kind} ends")
        assert next(depth) == level + 1

    topic.observe(answer)
    topic.put(b"1")
    assert [
        "published begins",
        "published ends",
        "delivered begins",
        "delivered ends",
        "returned begins",
        "returned ends",
    ] == told


def test_an_observer_may_bring_others() -> None:
    """An observer that comes while another is told hears what follows."""
    topic = Topic("orders")
    recorder = Recorder()
    stop = topic.observe(lambda _: (stop(), topic.observe(recorder)))
    topic.pause()
    topic.unpause()
    assert ["unpaused"] == heard(recorder)


def test_one_thread_tells_for_all() -> None:
    """While one thread tells, another's call returns at once and leaves its events to it."""
    topic = Topic("orders")
    told: list[tuple[object, int]] = []

    def tell(event: Event) -> None:
        told.append((event.body, threading.get_ident()))
        if event.body == b"1":
            Call(lambda: topic.put(b"2")).result()
            told.append(("after the other's put", threading.get_ident()))

    topic.observe(tell)
    topic.put(b"1")
    me = threading.get_ident()
    assert [(b"1", me), ("after the other's put", me), (b"2", me)] == told


def test_threads_are_told_in_the_order_of_the_topic() -> None:
    """Events of several threads are told one at a time, in the order in which they happened."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    told: list[str | None] = []
    inside: list[Event] = []
    crowds: list[int] = []
    start = threading.Barrier(4)

    def tell(event: Event) -> None:
        inside.append(event)
        crowds.append(len(inside))
        told.append(event.id)
        inside.pop()

    def work() -> None:
        start.wait(PATIENCE)
        for number in range(200):
            topic.put(number)

    topic.observe(tell)
    calls = [Call(work) for _ in range(4)]
    assert [None] * 4 == [call.result() for call in calls]
    assert [info.id for info in channel.peek(800)] == told
    assert {1} == set(crowds)


# It hurts nobody


def test_an_observer_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """What an observer raises is logged; the call succeeds, and the others are told."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    problem = ZeroDivisionError("no")
    recorder = Recorder()

    def fail(_: Event) -> None:
        raise problem

    topic.observe(fail)
    topic.observe(recorder)
    topic.put(b"1")
    assert (["published"], 1) == (heard(recorder), channel.depth)
    record = caplog.records[0]
    assert ("nsqlite", logging.ERROR) == (record.name, record.levelno)
    assert f"observer {fail!r} failed on published" == record.getMessage()
    assert record.exc_info
    assert problem is record.exc_info[1]
    assert 1 == len(caplog.records)


def test_an_interrupted_telling_goes_on() -> None:
    """What a signal throws into an observer reaches the caller when the rest has been told."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    recorder = Recorder()

    def interrupt(_: Event) -> None:
        stop()
        raise KeyboardInterrupt

    stop = topic.observe(interrupt)
    topic.observe(recorder)
    with pytest.raises(KeyboardInterrupt):
        topic.put_many([b"1", b"2"])
    assert [b"2"] == [event.body for event in recorder.events]
    assert [b"1", b"2"] == [info.body for info in channel.peek()]


def test_what_an_observer_returns_is_ignored() -> None:
    """An observer may return what it likes."""
    topic = Topic("orders")
    topic.observe(lambda event: event.kind)
    assert 16 == len(topic.put(b"1"))


@pytest.mark.parametrize("what", [Topic("orders"), Broker()])
def test_an_observer_is_a_function(what: Topic[Any] | Broker) -> None:
    """What cannot be called is refused at once."""
    with pytest.raises(InvalidOption, match="observer must be a function of one event, not None"):
        what.observe(None)  # type: ignore[arg-type]  # no function


# What waits and what is refused


def test_what_waits_is_told() -> None:
    """A put that waits for room and a get whose window is full are told, once each."""
    clock = TellingClock()
    recorder = Recorder()
    topic = Topic("orders", clock=clock, observers=[recorder])
    channel = topic.channel("billing", max_depth=1)
    consumer = Consumer(channel, max_in_flight=1, name="till")
    topic.put(b"1")
    message = consumer.get()
    topic.put(b"2")
    heard(recorder)
    put = Call(lambda: topic.put_many([b"3"]))
    clock.until_waiting()
    get = Call(consumer.get)
    clock.until_waiting()
    full = recorder.events[-1]
    assert ("till", 1) == (full.consumer, full.count)
    assert ["waiting", "window full billing"] == heard(recorder)
    message.fin()
    assert b"2" == get.result().body
    assert 1 == len(put.result())
    expected = ["finished billing", "delivered billing", "published"]
    assert expected == heard(recorder)


@pytest.mark.parametrize("policy", ["wait", "raise"])
def test_what_is_refused_is_told(policy: Any) -> None:
    """A put that raises Full is told, with how many messages it had."""
    recorder = Recorder()
    topic = Topic("orders")
    topic.channel("billing", max_depth=1, when_full=policy)
    topic.put(b"1")
    topic.observe(recorder, kinds=[Kind.REFUSED])
    for put in (partial(topic.put, b"2"), partial(topic.put_many, [b"2", b"3"])):
        with pytest.raises(Full):
            put(timeout=0)
    assert [(Kind.REFUSED, 1), (Kind.REFUSED, 2)] == [(e.kind, e.count) for e in recorder.events]
    topic._check()


# Who wants to hear of what


@pytest.mark.parametrize("make", [lambda: Topic("orders"), Broker])
def test_observers_hear_of_what_they_want(make: Callable[[], Any]) -> None:
    """An observer that names kinds hears of these alone; by text or by member."""
    home = make()
    recorder = Recorder()
    home.observe(recorder, kinds=["published", Kind.PAUSED])
    topic = home.topic("orders") if isinstance(home, Broker) else home
    consumer = Consumer(topic.channel("billing"))
    topic.put(b"1")
    consumer.get().fin()
    topic.pause()
    assert ["published", "paused"] == heard(recorder)


def test_who_hears_of_the_life_cycle_costs_a_message_nothing() -> None:
    """Where nobody wants to hear of messages none is watched."""
    topic = Topic("orders")
    recorder = Recorder()
    stop = topic.observe(recorder, kinds=LIFE_CYCLE)
    assert not topic._monitor.watched
    topic.channel("billing")
    topic.put(b"1")
    assert ["created billing"] == heard(recorder)
    other = topic.observe(Recorder(), kinds=[Kind.DROPPED])
    assert topic._monitor.watched
    other()
    stop()
    assert (False, frozenset()) == (topic._monitor.watched, topic._monitor.wanted)


@pytest.mark.parametrize(
    ("kinds", "text"),
    [
        ("published", "kinds must be several of 'created', "),
        (3, "kinds must be several of 'created', "),
        ([], "kinds must be several of 'created', "),
        (["gone"], "kind of event must be one of 'created', "),
        ([None], "kind of event must be one of 'created', "),
    ],
)
def test_kinds_are_checked(kinds: Any, text: str) -> None:
    """What is no kind, or not several, is refused at once."""
    topic = Topic("orders")
    with pytest.raises(InvalidOption, match=text):
        topic.observe(Recorder(), kinds=kinds)
    assert () == topic._monitor.observers


@pytest.mark.parametrize("observers", [3, [None]])
def test_observers_are_several(observers: Any) -> None:
    """What is not several functions is refused where a topic or broker is made."""
    with pytest.raises(InvalidOption):
        Broker(observers=observers)


# In a line


def test_an_event_is_a_line() -> None:
    """The text of an event has its time, kind, place, body, attempts, consumer and when."""
    event = Event(
        kind=Kind.DELIVERED,
        time=86400 + 3600 + 2 * 60 + 3.0456,
        topic="orders",
        channel="billing",
        id="18a9db5f6e000001",
        body="tea",
        attempts=2,
        client_id=7,
        due=86400 + 3600 + 2 * 60 + 13.0456,
    )
    line = "01:02:03.046 delivered   orders/billing 'tea' attempts=2"
    assert f"{line} consumer=7 due_in=+10.000s" == str(event)
    assert f"{line} consumer=till due_in=+10.000s" == str(event._replace(consumer="till"))
    odd = event._replace(consumer="a\n\u202eb")
    assert rf"{line} consumer=a\n\u202eb due_in=+10.000s" == str(odd)
    long = event._replace(body="x" * 60, attempts=0, client_id=None, due=None)
    assert f"01:02:03.046 delivered   orders/billing '{'x' * 36}..." == str(long)


def test_an_event_of_a_topic_is_a_line() -> None:
    """Without a message there is no body, and a count that is not one is shown."""
    event = Event(kind=Kind.EMPTIED, time=0.0, topic="orders", count=3)
    assert "00:00:00.000 emptied     orders count=3" == str(event)


def test_events_name_the_consumer() -> None:
    """An event that a consumer had to do with carries its name, if it has one."""
    recorder = Recorder()
    topic = Topic("orders")
    channel = topic.channel("billing")
    topic.put(b"1")
    topic.observe(recorder)
    named, other = Consumer(channel, name="till"), Consumer(channel)
    named.get().req()
    other.get().fin()
    assert ["till", "till", None, None] == [event.consumer for event in recorder.events]
    assert [named.client_id] * 2 + [other.client_id] * 2 == [e.client_id for e in recorder.events]
    assert ["till", None] == [client.name for client in channel.stats().clients]


@pytest.mark.parametrize("kinds", [[[]], [3], [None]])
def test_a_kind_that_is_no_text(kinds: Any) -> None:
    """What cannot be a kind is refused, hashable or not."""
    with pytest.raises(InvalidOption, match="kind of event"):
        Topic("orders").observe(print, kinds=kinds)
