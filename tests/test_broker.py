"""A broker: topics by name, and what holds for all of them."""

import gc
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import Call, TellingClock, TellingManualClock

import nsqlite
from nsqlite import (
    Broker,
    Closed,
    Consumer,
    Event,
    Full,
    InvalidName,
    InvalidOption,
    Seconds,
    StoreError,
    StoreFull,
    StoreInUse,
    Topic,
)
from nsqlite.clock import Timed
from nsqlite.testing import ManualClock
from nsqlite.timeline import Recorder
from nsqlite.waiting import Waiter


def test_topic_is_get_or_create() -> None:
    """The same name gives the same topic; other options than it has are refused."""
    broker = Broker(msg_timeout=30)
    topic = broker.topic("orders", max_msg_size=5)
    assert topic is broker.topic("orders")
    assert topic is broker.topic("orders", max_msg_size=5)
    assert (30, 5) == (topic.options.msg_timeout, topic.options.max_msg_size)
    with pytest.raises(InvalidOption) as info:
        broker.topic("orders", max_msg_size=6)
    assert "max_msg_size must be 5, as topic 'orders' has it, not 6" == str(info.value)
    with pytest.raises(InvalidOption):
        broker.topic("other", max_msg_size=0)
    with pytest.raises(InvalidName) as name:
        broker.topic("a b")
    assert ("topic", "a b") == (name.value.kind, name.value.name)
    assert ["orders"] == list(broker.topics)
    assert "<Broker open topics=1>" == repr(broker)
    broker.close()
    assert "<Broker closed topics=1>" == repr(broker)
    broker._check()


def test_topics_is_a_copy() -> None:
    """The mapping of topics is read-only and of the moment."""
    broker = Broker()
    broker.topic("a")
    topics = broker.topics
    broker.topic("b")
    assert ["a"] == list(topics)
    with pytest.raises(TypeError):
        topics["c"] = topics["a"]  # type: ignore[index]  # read-only


def test_a_deleted_topic_frees_its_name() -> None:
    """After delete the name gives a new topic."""
    broker = Broker()
    topic = broker.topic("orders")
    topic.delete()
    assert topic is not broker.topic("orders")
    broker.topic("orders").delete()
    assert {} == broker.topics


def test_a_closed_topic_keeps_its_name() -> None:
    """After close the name still gives the closed topic."""
    broker = Broker()
    topic = broker.topic("orders")
    topic.close()
    assert topic is broker.topic("orders")


def test_ids_are_unique_in_a_broker() -> None:
    """No two topics of a broker give the same id."""
    broker = Broker(clock=ManualClock(), node_id=7)
    topics = [broker.topic(name) for name in "abc"]
    ids = [topic.put(b"x") for _ in range(200) for topic in topics]
    assert 600 == len(set(ids))


def test_the_end_of_the_block_closes(caplog: pytest.LogCaptureFixture) -> None:
    """A broker closes its topics at the end of its block and refuses new ones."""
    with Broker() as broker:
        topic = broker.topic("orders")
        topic.put(b"1")
    assert topic.closed
    assert ["topic 'orders' was closed; messages thrown away: 1"] == caplog.messages
    with pytest.raises(Closed) as info:
        broker.topic("orders")
    assert "the broker is closed" == str(info.value)
    assert 0 == broker.close()


def test_close_returns_the_sum() -> None:
    """Close counts what all topics threw away; a drain delivers first."""
    broker = Broker()
    for name in "ab":
        broker.topic(name).put_many([b"1", b"2"])
    assert 4 == broker.close()
    broker = Broker()
    consumer = Consumer(broker.topic("a").channel("c"))
    broker.topic("a").put(b"1")
    assert 0 == broker.close(drain=True)
    assert [b"1"] == [_fin(message) for message in consumer]


def _fin(message: nsqlite.Message[Any]) -> Any:
    message.fin()
    return message.body


def test_observers_hear_of_every_topic() -> None:
    """An observer of the broker hears of topics there are and topics to come, until stopped."""
    first, later = Recorder(), Recorder()
    broker = Broker(observers=[first])
    topic = broker.topic("a")
    stop = broker.observe(later)
    broker.topic("b")
    topic.put(b"1")
    assert [("a", "created"), ("b", "created"), ("a", "published")] == [
        (event.topic, event.kind.value) for event in first.events
    ]
    assert [("b", "created"), ("a", "published")] == [
        (event.topic, event.kind.value) for event in later.events
    ]
    stop()
    topic.put(b"2")
    broker.topic("c")
    assert 2 == len(later.events)
    assert 5 == len(first.events)


def test_an_observer_may_make_topics() -> None:
    """What an observer does in a topic's creation is told next, and nothing hangs."""
    broker = Broker()

    def observer(event: Event) -> None:
        if event.topic == "a":
            broker.topic("b").put(b"1")

    broker.observe(observer)
    broker.topic("a")
    assert 1 == broker.topic("b").depth


def test_stats() -> None:
    """The snapshot has all topics by name."""
    broker = Broker(clock=ManualClock())
    broker.topic("b").channel("c")
    broker.topic("a").put(b"1")
    stats = broker.stats()
    assert ["a", "b"] == [topic.topic_name for topic in stats.topics]
    assert ("OK", 1_700_000_000, nsqlite.__version__) == (
        stats.health,
        stats.start_time,
        stats.version,
    )
    assert ["version", "health", "start_time", "topics"] == list(stats.to_dict())
    assert "[a] depth: 1 msgs: 1\n[b] depth: 0 msgs: 0\n   [c] depth: 0" in str(stats)
    assert "no topics" == str(Broker().stats())


def test_join() -> None:
    """Join waits until every topic is idle."""
    clock = TellingClock()
    broker = Broker(clock=clock)
    assert broker.join()
    topics = [broker.topic(name) for name in "ab"]
    consumers = [Consumer(topic.channel("c")) for topic in topics]
    for topic in topics:
        topic.put(b"1")
    assert not broker.join(timeout=0)
    assert not broker.join(timeout=0.001)
    clock.until_waiting()
    call = Call(broker.join)
    clock.until_waiting()
    consumers[1].get(timeout=0).fin()
    consumers[0].get(timeout=0).fin()
    assert call.result()
    with pytest.raises(InvalidOption):
        broker.join(timeout=-1)


def test_options_are_checked() -> None:
    """A broker's options are checked when it is made."""
    with pytest.raises(InvalidOption) as info:
        Broker(msg_timeout=1000)
    assert (
        "msg_timeout must be a finite number of seconds, above 0 and at most 900, not 1000"
        == str(info.value)
    )


class Interrupting(ManualClock):
    """A clock at which something comes in when a topic is made, as a signal handler may."""

    def __init__(self, comes_in: Callable[[], object]) -> None:
        super().__init__()
        self.comes_in = [comes_in]

    def attach(self, timed: Timed) -> Callable[[int], object]:
        expect = super().attach(timed)
        if self.comes_in:
            self.comes_in.pop()()
        return expect


def test_two_makers_of_a_topic_have_the_same() -> None:
    """A topic that is made while one of its name is made is that one."""
    made: list[Topic[Any]] = []
    broker = Broker(clock=Interrupting(lambda: made.append(broker.topic("orders"))))
    assert [broker.topic("orders")] == made
    assert ["orders"] == list(broker.topics)


def test_a_broker_closed_meanwhile_makes_no_topic() -> None:
    """A topic that is made while its broker is closed is refused."""
    broker = Broker(clock=Interrupting(lambda: broker.close(drain=False)))
    with pytest.raises(Closed):
        broker.topic("orders")
    assert {} == broker.topics


def test_deleted_topics_are_forgotten() -> None:
    """A broker whose topics come and go does not grow."""
    broker = Broker()
    for number in range(1000):
        broker.topic(f"reply{number}").delete()
    assert len(broker._topics) < 10


@pytest.mark.parametrize("make", [Broker, partial(Topic, "orders")])
def test_what_is_given_is_checked(make: Any) -> None:
    """Observers that are no functions and clocks that are none are refused by name."""
    with pytest.raises(InvalidOption, match="observer must be a function of one event, not 5"):
        make(observers=[print, 5])
    with pytest.raises(InvalidOption, match="observers must be several functions of one event"):
        make(observers=None)
    with pytest.raises(InvalidOption, match="clock must be a Clock"):
        make(clock=3)


def test_a_new_topic_is_not_forgotten_for_an_old_one() -> None:
    """A topic that has meanwhile taken the name of a deleted one stays."""

    class Meanwhile(dict[str, Topic[Any]]):
        """Topics that are replaced when somebody looks through them."""

        def copy(self) -> dict[str, Topic[Any]]:
            before = dict(self)
            self["orders"] = new
            return before

    broker = Broker()
    new: Topic[Any] = Topic("orders")
    old = broker.topic("orders")
    old.delete()
    topics = Meanwhile(broker._topics)
    broker._topics = topics  # type: ignore[misc]  # it is final
    broker._forget_deleted()
    assert new is topics["orders"]


@pytest.mark.parametrize(
    ("given", "meant"), [("stroe", "store"), ("clok", "clock"), ("msg_timout", "msg_timeout")]
)
def test_an_unknown_option_of_a_broker(given: str, meant: str) -> None:
    """The nearest is offered, of its own options, too."""
    options: Any = {given: None}
    with pytest.raises(InvalidOption, match=f"did you mean '{meant}'"):
        Broker(**options)


def test_the_health_tells_of_a_put_that_waits() -> None:
    """From 10 s on, and as long as it waits, beside what the store has to say."""
    clock = TellingManualClock(patience=100)
    for store, kept in ((None, "OK"), (Nowhere(), "NOK - it is nowhere")):
        broker = Broker(clock=clock, store=store)
        calls = []
        for name in ("orders", "mails", "texts"):
            topic = broker.topic(name)
            topic.channel("billing", max_depth=1)
            topic.put(b"1")
            if name != "texts":
                calls += [Call(partial(topic.put, b"2", timeout=60)) for _ in "12"]
        for _ in calls:
            clock.until_waiting()
        clock.advance(9.999)
        assert kept == broker.health
        clock.advance(2)
        why = "for 12 s: max_depth=1, 1 ready, 0 in flight, no consumer"
        waits = "; ".join(
            f"put to {name} waits for room in {name}:billing {why}" for name in ("orders", "mails")
        )
        expected = f"NOK - {waits}" if kept == "OK" else f"{kept}; {waits}"
        assert expected == broker.health == broker.stats().health
        clock.advance(60)
        assert all(isinstance(call.result(), Full) for call in calls)
        assert kept == broker.health
        broker.close()


def test_the_health_tells_of_a_put_behind_one_that_is_stuck(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first one has room and does not come, as where its event loop is stuck."""
    clock = TellingManualClock(patience=100)
    broker = Broker(clock=clock)
    topic = broker.topic("orders")
    channel = topic.channel("billing", max_depth=1)
    topic.put(b"1")
    stuck = Stuck(topic._monitor)
    topic._monitor.run(topic._fan.wait, stuck, 1, clock.monotonic_ns())
    call = Call(lambda: topic.put(b"2"))
    clock.until_waiting()
    channel.empty()
    assert "OK" == broker.health
    clock.advance(30)
    topic._monitor.read(topic._tell_of_wait, stuck)  # it is about to go on, as far as it knows
    assert not caplog.messages
    for text in ("orders for 30 s: the first put has room and does not come", "is stuck"):
        assert text in broker.health
    topic._monitor.run(topic._fan.leave, stuck)
    assert isinstance(call.result(), str)
    assert "OK" == broker.health


class Stuck(Waiter[Any]):
    """A put that does not come when there is room."""

    def notify(self) -> None:
        pass


# With a store


class Nowhere:
    """A store that keeps nothing, and tells what a broker asks of it."""

    where = "nowhere"
    health = "NOK - it is nowhere"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.left = ["kept"]
        self.refuses: StoreError | None = None
        self.over: Exception | None = None

    def open(self, factory: object) -> Any:
        assert factory is not None
        return self

    def names(self) -> list[str]:
        return self.left

    def topic(
        self, name: str, home: Any, clock: Any, known: Any, make: Callable[[None], Topic[Any]]
    ) -> Any:
        assert home.clock is clock
        self.asked.append(f"topic {name}")
        self.left = [one for one in self.left if one != name]
        return known() or make(None)

    def flush(self) -> None:
        self.asked.append("flush")

    def backup(self, path: str) -> None:
        self.asked.append(f"backup {path}")

    async def run(self, task: Callable[[], object], call: str) -> None:
        self.asked.append(f"run {call}")
        if self.over is not None:
            raise self.over
        task()

    def serve(self, broker: Broker) -> None:
        assert not broker._topics

    def prepare_close(self) -> None:
        self.asked.append("prepare")
        if self.refuses is not None:
            raise self.refuses

    def close(self, *, force: bool = False, wait: bool = True) -> None:
        self.asked.append(f"close {force} {wait}")

    def forsake(self) -> None:
        self.asked.append("forsake")


def test_a_broker_asks_its_store() -> None:
    """Topics are made with what the store has, and those that it has belong to the broker."""
    store = Nowhere()
    broker = Broker(store=store)
    assert 5 == broker.topic("orders", msg_timeout=5).options.msg_timeout
    assert ["kept", "orders"] == sorted(broker.topics)
    assert 7 == broker.topic("kept", msg_timeout=7).options.msg_timeout
    assert ["topic orders", "topic kept"] == store.asked
    assert "NOK - it is nowhere" == broker.health == broker.stats().health
    assert "<Broker open topics=2 in nowhere>" == repr(broker)
    broker.flush()
    broker.backup(Path("there.db"))
    assert ["flush", "backup there.db"] == store.asked[-2:]
    broker.close(drain=True)
    assert "backup there.db" == store.asked[-1]
    broker.close()
    assert "close False True" == store.asked[-1]
    store.left = ["another"]
    assert ["kept", "orders"] == sorted(broker.topics)


def test_a_broker_whose_store_cannot_be_written_stays_open() -> None:
    """A close that the store refuses closes nothing; with `force` it is not asked before."""
    store = Nowhere()
    broker = Broker(store=store)
    topic = broker.topic("orders")
    store.refuses = StoreFull("nowhere", "no room")
    with pytest.raises(StoreFull):
        broker.close()
    assert "prepare" == store.asked[-1]
    topic.put(b"1")
    assert topic is broker.topic("orders")
    assert 1 == broker.close(force=True)
    assert ["prepare", "close True True"] == store.asked[-2:]


def test_an_async_block_closes_by_the_stores_thread() -> None:
    """The end of the block has the store run the close; where it cannot, it closes as ever."""

    async def block(broker: Broker) -> None:
        async with broker as entered:
            assert entered is broker

    for over in (None, Closed("the broker of nowhere"), StoreInUse("nowhere", 1, "a fork")):
        store = Nowhere()
        store.over = over
        broker = Broker(store=store)
        with pytest.raises(StopIteration):
            block(broker).send(None)
        assert ["run close", "prepare", "close False True"] == store.asked


def test_a_broker_that_is_closed_inside_another_call_waits_for_no_store() -> None:
    """What a signal handler closes is written later."""
    store = Nowhere()
    broker = Broker(store=store)
    with broker.topic("orders")._monitor.lock:
        broker.close()
    assert ["topic orders", "close False False"] == store.asked


def test_a_topic_that_is_not_made_to_the_end_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a signal strikes while it is being made, is made when it is asked for again."""
    broker = Broker()
    add = Broker._add

    def struck(broker: Broker, new: Topic[Any]) -> Topic[Any]:
        monkeypatch.setattr(Broker, "_add", add)
        add(broker, new)
        raise KeyboardInterrupt

    monkeypatch.setattr(Broker, "_add", struck)
    with pytest.raises(KeyboardInterrupt):
        broker.topic("orders")
    assert {} == broker.topics
    assert broker.topic("orders") is broker.topics["orders"]


@pytest.mark.nsqlite(leaks=False)  # it keeps such a broker
def test_a_forgotten_broker_forsakes_its_store() -> None:
    """The store of a broker that is forgotten is told."""
    store = Nowhere()
    broker = Broker(store=store)
    assert [] == store.asked
    del broker
    gc.collect()
    assert ["forsake"] == store.asked


def test_a_broker_without_a_store() -> None:
    """Without a store all is well and nothing is to be written."""
    broker = Broker()
    broker.flush()
    assert "OK" == broker.health == broker.stats().health
    for store in (3, "jobs.db", object()):
        with pytest.raises(InvalidOption, match=r"store must be a store, as nsqlite\.SQLite"):
            Broker(store=store)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(InvalidOption, match="what is in memory alone has no backup"):
        broker.backup("there.db")


@pytest.mark.parametrize("second", [1.0, timedelta(seconds=1)])
def test_a_join_takes_seconds_or_a_timedelta(second: Seconds) -> None:
    """Its timeout can be either."""
    clock = ManualClock(autojump=True)
    broker = Broker(clock=clock)
    broker.topic("orders").put(b"1")
    assert not broker.join(second)
    assert 10**9 == clock.monotonic_ns()
