"""A storage that fails where a test says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import bodies

from nsqlite import Broker, Consumer, SQLite, StoreError, StoreFull
from nsqlite.store import Batch, Storage, StoredChannel, StoredTopic
from nsqlite.testing import FaultyStorage, FaultyStore, MemoryStorage, MemoryStore, StorageContract
from nsqlite.testing.faultystorage import WRITES
from nsqlite.testing.memorystorage import Contents


class TestContract(StorageContract):
    """Without a fault it does what every storage must do."""

    def setup_method(self) -> None:
        self.contents = Contents()

    def make(self) -> Storage:
        return FaultyStorage(MemoryStorage(self.contents), lambda _point: None)

    def restored(self, path: str) -> Storage:
        return MemoryStorage(Contents(self.contents.backups[path]))


class Switch:
    """A fault at one point, while it is on."""

    def __init__(self) -> None:
        self.points: list[str] = []
        self.fails: tuple[str, ...] = ()

    def __call__(self, point: str) -> None:
        self.points.append(point)
        if point in self.fails:
            raise StoreFull("here", f"no room {point}")


def test_every_call_has_two_points() -> None:
    """Each call but `abandon` has a point before and one after it, with its name."""
    switch = Switch()
    storage = FaultyStorage(MemoryStorage(), switch)
    storage.load()
    storage.count(1)
    storage.highest()
    storage.last(1)
    topics = {1: StoredTopic(number=1, name="t")}
    storage.write(Batch(topics=topics, channels={7: StoredChannel(number=7, topic=1, name="c")}))
    storage.write_row(1, (1, 1, None, None, None, b"x"))
    storage.write_rows(1, [(2, 1, None, None, None, b"x")])
    storage.write_attempts(1, 7, [(1, 1)])
    storage.read(1, 7, 0, 9, -1)
    storage.read_apart(1, 7, 0, 9)
    storage.copy_log()
    storage.copy_all()
    storage.tidy()
    storage.backup("copy")
    storage.close()
    storage.abandon()
    names = ["load", "count", "highest", "last", "write", "write_row", "write_rows"]
    names += ["write_attempts", "read", "read_apart", "copy_log", "copy_all", "tidy"]
    names += ["backup", "close"]
    assert [f"{when} {name}" for name in names for when in ("before", "after")] == switch.points
    assert set(WRITES) == {name for name in names if name.startswith("write")}


def test_a_fault_before_a_call_is_instead_of_it() -> None:
    """What the fault raises comes out of the call, and nothing was written."""
    switch = Switch()
    storage = FaultyStorage(MemoryStorage(), switch)
    switch.fails = ("before write",)
    with pytest.raises(StoreFull) as info:
        storage.write(Batch(topics={1: StoredTopic(number=1, name="t")}))
    assert "store here: no room before write" == str(info.value)
    assert ([], []) == storage.load()


def test_a_fault_after_a_call_comes_when_all_is_done() -> None:
    """What was written is written, though the call raises."""
    switch = Switch()
    storage = FaultyStorage(MemoryStorage(), switch)
    switch.fails = ("after write",)
    with pytest.raises(StoreFull):
        storage.write(Batch(topics={1: StoredTopic(number=1, name="t")}))
    assert 1 == len(storage.load()[0])


@pytest.mark.parametrize("name", WRITES)
def test_a_broker_goes_on_when_there_is_room_again(name: str) -> None:
    """Whichever write fails: the call says so, nothing is lost, and later all is written."""
    switch = Switch()
    store = MemoryStore(attempts="durable")
    put: list[bytes] = []
    with Broker(store=FaultyStore(store, switch)) as broker:
        topic = broker.topic("orders")
        channel = topic.channel("billing")
        broker.flush()
        for number in range(12):
            switch.fails = (f"before {name}",) if number % 3 == 1 else ()
            new = [b"%d" % number] * (1 + number % 2)
            try:
                topic.put(new[0]) if len(new) == 1 else topic.put_many(new)
                put += new
                broker.flush()
            except StoreFull:
                assert broker.health.startswith("NOK - store here: no room before write")
        assert len(put) == channel.depth
        switch.fails = ("before write_attempts",)
        consumer = Consumer(channel)
        with pytest.raises(StoreFull):
            consumer.get(timeout=0)
        switch.fails = ()
        message = consumer.get(timeout=0)
        assert (put.pop(0), 1) == (message.body, message.attempts)
        message.fin()
        broker.flush()
        assert "OK" == broker.health
    assert f"before {name}" in switch.points
    with Broker(store=store) as broker:
        assert put == bodies(broker.topic("orders").channel("billing"))


def test_it_can_wrap_what_wraps(tmp_path: Path) -> None:
    """Faults can be put around faults, and around a file."""
    outer, inner = Switch(), Switch()
    store = FaultyStore(FaultyStore(SQLite(tmp_path / "jobs.db"), inner), outer)
    assert repr(store).startswith("<FaultyStore of <FaultyStore of <SQLite ")
    with Broker(store=store) as broker:
        broker.topic("orders").put(b"1")
    assert "before load" == outer.points[0]
    assert inner.points == outer.points


def test_a_store_that_cannot_be_opened(tmp_path: Path) -> None:
    """What the wrapped store raises is what the broker hears."""
    with pytest.raises(StoreError):
        Broker(store=FaultyStore(SQLite(tmp_path / "none" / "jobs.db"), Switch()))


PROGRAM = """
import os, sys, nsqlite
from nsqlite.testing import FaultyStore

count = 0

def fault(point):
    global count
    if point == sys.argv[2]:
        count += 1
        if count == int(sys.argv[3]):
            os._exit(7)

broker = nsqlite.Broker(store=FaultyStore(nsqlite.SQLite(sys.argv[1]), fault))
topic = broker.topic("orders")
topic.channel("billing")
broker.flush()
for number in range(3):
    topic.put(b"%d" % number)
    print(number, flush=True)
"""


@pytest.mark.parametrize(
    ("point", "nth", "told", "there"),
    [
        ("before write_row", 1, 0, 0),
        ("after write_row", 1, 0, 1),
        ("before write_row", 3, 2, 2),
        ("after write_row", 3, 2, 3),
    ],
)
def test_it_can_kill_its_process(
    point: str, nth: int, told: int, there: int, tmp_path: Path
) -> None:
    """A fault may end the process: what `put` had returned for is in the file, in order."""
    path = tmp_path / "jobs.db"
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-W", "error", "-c", PROGRAM, str(path), point, str(nth)],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert (7, "", told) == (done.returncode, done.stderr, len(done.stdout.split()))
    with Broker(store=SQLite(path)) as broker:
        found = bodies(broker.topic("orders").channel("billing"))
        assert [b"%d" % number for number in range(there)] == found


def test_a_batch_whose_end_nobody_heard_of_is_written_again() -> None:
    """A broker whose store failed after it had written writes the same batch once more."""
    switch = Switch()
    store = MemoryStore()
    with Broker(store=FaultyStore(store, switch)) as broker:
        topic = broker.topic("orders")
        channel = topic.channel("billing")
        topic.put_many([b"1", b"2", b"3"])
        Consumer(channel).get(timeout=0).fin()
        switch.fails = ("after write",)
        with pytest.raises(StoreFull):
            broker.flush()
        switch.fails = ()
        broker.flush()
        assert store.contents.owner is not None
        store.contents.owner._check()
    with Broker(store=store) as broker:
        assert [b"2", b"3"] == bodies(broker.topic("orders").channel("billing"))
