"""A store for tests, without a disk."""

from contextlib import suppress
from typing import Any

import pytest
from helpers import bodies

from nsqlite import Broker, Closed, Consumer, InvalidOption, StoreError, StoreInUse
from nsqlite.ids import GuidFactory
from nsqlite.store import Database
from nsqlite.testing import FaultyStore, ManualClock, MemoryStore


def bury(broker: Broker) -> None:
    """End a broker whose store has crashed."""
    assert broker._persistence is not None
    for close in (broker.close, broker._persistence.close):
        with suppress(StoreError):
            close()


def test_it_keeps_what_a_broker_leaves() -> None:
    """The next broker finds what was not finished, with its attempts."""
    store = MemoryStore()
    with Broker(store=store) as broker:
        channel = broker.topic("orders").channel("billing")
        broker.topic("orders").put_many([b"1", b"2", b"3"])
        consumer = Consumer(channel)
        consumer.get(timeout=0).fin()
        consumer.get(timeout=0)
    with Broker(store=store) as broker:
        channel = broker.topic("orders").channel("billing")
        assert 2 == channel.depth
        messages = Consumer(channel).get_many(2, timeout=0)
        assert [(b"2", 2), (b"3", 1)] == [(one.body, one.attempts) for one in messages]


@pytest.mark.parametrize("sync", ["full", "normal"])
def test_what_put_returned_for_survives_a_crash(sync: Any) -> None:
    """The broker that lost its store is told so; what it put is there."""
    store = MemoryStore(sync=sync)
    lost = Broker(store=store)
    topic = lost.topic("orders")
    topic.channel("billing")
    topic.put(b"1")
    store.crash()
    with pytest.raises(Closed) as info:
        topic.put(b"2")
    assert "the broker of in memory is closed" == str(info.value)
    with Broker(store=store) as broker:
        assert [b"1"] == bodies(broker.topic("orders").channel("billing"))
    bury(lost)


def test_what_was_put_at_intervals_is_lost_in_a_crash() -> None:
    """With `sync="interval"` only what was flushed is there."""
    store = MemoryStore(sync="interval", sync_timeout=1000, sync_every=1000)
    lost = Broker(store=store)
    topic = lost.topic("orders")
    topic.channel("billing")
    topic.put(b"1")
    lost.flush()
    topic.put(b"2")
    store.crash()
    with Broker(store=store) as broker:
        assert [b"1"] == bodies(broker.topic("orders").channel("billing"))
    bury(lost)


def test_it_works_with_a_clock_that_is_moved_by_hand() -> None:
    """A message that waits does so in the next broker, until its moment."""
    store = MemoryStore()
    clock = ManualClock()
    with Broker(store=store, clock=clock) as broker:
        broker.topic("orders").channel("billing")
        broker.topic("orders").put(b"1", delay=60)
    clock.advance(59)
    with Broker(store=store, clock=clock) as broker:
        channel = broker.topic("orders").channel("billing")
        assert (0, 1) == (channel.depth, channel.deferred_count)
        clock.advance(1)
        assert [b"1"] == bodies(channel)


def test_its_codec_is_the_stores() -> None:
    """A body is what comes back from the codec."""
    store = MemoryStore(codec="json")
    with Broker(store=store) as broker:
        channel = broker.topic("orders").channel("billing")
        broker.topic("orders").put((1, 2))
        assert [[1, 2]] == bodies(channel)


def test_one_broker_at_a_time() -> None:
    """A second broker is refused while the first is open, and changes nothing."""
    store = MemoryStore()
    with Broker(store=store) as broker:
        with pytest.raises(StoreInUse):
            Broker(store=store)
        broker.topic("orders").put(b"1")
    assert "<MemoryStore, closed>" == repr(store)
    store.crash()
    with Broker(store=store) as broker:
        assert "<MemoryStore, open>" == repr(store)
        assert 1 == broker.topic("orders").depth


def test_bad_options() -> None:
    """Its options are those of every store."""
    options: Any = {"sync": "never"}
    with pytest.raises(InvalidOption):
        MemoryStore(**options)


def test_what_cannot_be_loaded_is_closed_again() -> None:
    """A store that failed as it was opened can be opened later."""
    store = MemoryStore()

    def fault(point: str) -> None:
        if point == "before load":
            raise StoreError("here", "out of order")

    with pytest.raises(StoreError):
        Broker(store=FaultyStore(store, fault))
    keeper = store.open(GuidFactory(1))
    assert isinstance(keeper, Database)
    assert "OK" == keeper.health
    keeper.close()


def test_a_crash_of_what_nobody_has_opened() -> None:
    """There is no process to die, and nothing changes."""
    store = MemoryStore()
    store.crash()
    with Broker(store=store) as broker:
        assert {} == broker.topics
