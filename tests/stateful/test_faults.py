"""A disk that fails: what was refused is nowhere, what was accepted is there, and it goes on."""

import random
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from helpers import Call, bodies

import nsqlite
from nsqlite import Broker, Consumer, Empty, StoreError, StoreFull
from nsqlite.testing import FaultyStore
from stateful.snapshots import copy_store, take_snapshot

WRITES: Final = ("write_row", "write_rows", "write_attempts", "write")
START: Final = 1_700_000_000_000_000_000

problems = pytest.mark.parametrize(
    "problem",
    [StoreFull("jobs.db", "the disk is full"), StoreError("jobs.db", "disk I/O error")],
    ids=["full", "broken"],
)


class Disk:
    """A disk that fails when it is told to."""

    def __init__(self) -> None:
        self.problem: StoreError | None = None
        self.chance = 1.0
        self.random = random.Random(1)

    def __call__(self, point: str) -> None:
        when, _, call = point.partition(" ")
        fails = when == "before" and call in WRITES and self.random.random() < self.chance
        if self.problem is not None and fails:
            raise type(self.problem)(*self.problem.args)

    @contextmanager
    def failing(self, problem: StoreError) -> Iterator[None]:
        self.problem = problem
        try:
            yield
        finally:
            self.problem = None


class Scene:
    """A broker on such a disk: a topic with two channels, and a second topic with one."""

    def __init__(
        self,
        path: Path,
        sync: Literal["full", "normal", "interval"] = "normal",
        attempts: Literal["late", "durable"] = "late",
        **options: Any,
    ) -> None:
        self.path = path
        self.disk = Disk()
        store = nsqlite.SQLite(
            path, sync=sync, attempts=attempts, sync_timeout=1000, sync_every=4, **options
        )
        self.broker = Broker(store=FaultyStore(store, self.disk))
        self.topic = self.broker.topic("orders")
        self.billing = self.topic.channel("billing")
        self.audit = self.topic.channel("audit")
        self.dead = self.broker.topic("dead")
        self.letters = self.dead.channel("letters")

    def counts(self) -> list[tuple[int, int, int]]:
        channels = (self.billing, self.audit, self.letters)
        return [(one.depth, one.in_flight_count, one.deferred_count) for one in channels]

    def stored(self) -> dict[str, list[bytes]]:
        """Return what is in the file now, by channel."""
        copy = copy_store(self.path, self.path.with_name("copy"))
        seen = take_snapshot(copy, START)
        return {
            name: sorted(message.body for message in channel.messages.values())
            for topic in seen.values()
            for name, channel in topic.channels.items()
        }


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path / "jobs.db")
    yield made
    made.broker.close()


# Putting


@problems
@pytest.mark.parametrize("sync", ["normal", "full"])
def test_failed_put_puts_nothing(
    tmp_path: Path, problem: StoreError, sync: Literal["normal", "full"]
) -> None:
    """A put that the disk refuses raises, and no channel has anything of it, now or later."""
    scene = Scene(tmp_path / "jobs.db", sync)
    puts: list[Callable[[], object]] = [
        lambda: scene.topic.put(b"no"),
        lambda: scene.topic.put(b"no", delay=1),
        lambda: scene.topic.put_many([b"no", b"no"]),
        lambda: scene.topic.put_many([b"no", b"no"], delay=1),
    ]
    with scene.disk.failing(problem):
        for put in puts:
            with pytest.raises(type(problem), match="store jobs"):
                put()
    assert [(0, 0, 0)] * 3 == scene.counts()
    scene.broker._check()
    scene.topic.put(b"yes")
    scene.broker.close()
    assert {"billing": [b"yes"], "audit": [b"yes"], "letters": []} == scene.stored()


def test_failed_put_to_a_topic_that_holds_leaves_nothing(scene: Scene) -> None:
    """A put to a paused topic that the disk refuses is not held either."""
    scene.topic.pause()
    full = StoreFull("jobs.db", "the disk is full")
    with scene.disk.failing(full), pytest.raises(StoreFull):
        scene.topic.put(b"no")
    assert 0 == scene.topic.depth
    scene.topic.put(b"yes")
    scene.topic.unpause()
    assert [b"yes"] == bodies(scene.billing)
    assert [b"yes"] == bodies(scene.audit)


@problems
def test_health_tells_of_the_disk(scene: Scene, problem: StoreError) -> None:
    """The health is NOK from the failure on, and OK again with the first write that succeeds."""
    assert "OK" == scene.broker.health
    with scene.disk.failing(problem), pytest.raises(StoreError):
        scene.topic.put(b"no")
    assert f"NOK - {problem}" == scene.broker.health == scene.broker.stats().health
    scene.topic.put(b"yes")
    assert "OK" == scene.broker.health


def test_failed_put_wakes_nobody_and_the_next_one_does(scene: Scene) -> None:
    """Who waits for a message gets the first that was stored, and none that was refused."""
    consumer = Consumer(scene.billing)
    call = Call(consumer.get)
    full = StoreFull("jobs.db", "the disk is full")
    with scene.disk.failing(full), pytest.raises(StoreFull):
        scene.topic.put(b"no")
    scene.topic.put(b"yes")
    assert b"yes" == call.result().body


def test_bounded_channel_has_its_room_again(tmp_path: Path) -> None:
    """Room that was spoken for by a put which failed is free again."""
    scene = Scene(tmp_path / "jobs.db")
    narrow = scene.topic.channel("narrow", max_depth=2, when_full="raise")
    full = StoreFull("jobs.db", "the disk is full")
    with scene.disk.failing(full), pytest.raises(StoreFull):
        scene.topic.put_many([b"no", b"no"])
    scene.topic.put_many([b"1", b"2"])
    with pytest.raises(nsqlite.Full):
        scene.topic.put(b"3")
    assert [b"1", b"2"] == bodies(narrow)
    scene.broker.close()


def test_interval_tells_at_the_flush(tmp_path: Path) -> None:
    """With sync="interval" flush raises, puts raise when too much waits, and all comes through."""
    scene = Scene(tmp_path / "jobs.db", "interval")
    accepted: list[bytes] = []
    with scene.disk.failing(StoreFull("jobs.db", "the disk is full")):
        with pytest.raises(StoreFull):
            while True:
                scene.topic.put(b"%02d" % len(accepted))
                accepted.append(b"%02d" % len(accepted))
                assert len(accepted) < 100
        with pytest.raises(StoreFull):
            scene.topic.put_many([b"no", b"no"])
        with pytest.raises(StoreFull):
            scene.broker.flush()
        assert scene.broker.health.startswith("NOK - ")
    assert 4 <= len(accepted)
    scene.broker.flush()
    assert "OK" == scene.broker.health
    scene.topic.put(b"99")
    assert [*accepted, b"99"] == bodies(scene.billing)
    scene.broker.close()
    assert {"billing": [], "audit": [*accepted, b"99"], "letters": []} == scene.stored()


# Consuming


def test_what_was_finished_meanwhile_is_written_later(scene: Scene) -> None:
    """Messages finished or requeued while the disk fails are written when it works again."""
    scene.topic.put_many([b"1", b"2", b"3"])
    consumer = Consumer(scene.billing)
    one, two, _ = consumer.get_many(3)
    with scene.disk.failing(StoreError("jobs.db", "disk I/O error")):
        one.fin()
        with pytest.raises(StoreError):
            scene.broker.flush()
        two.req()
        with pytest.raises(StoreError):
            scene.broker.flush()
    scene.broker.flush()
    stored = scene.stored()
    assert [b"2", b"3"] == stored["billing"]
    assert [b"1", b"2", b"3"] == stored["audit"]


@pytest.mark.parametrize("many", [False, True])
def test_uncounted_delivery_is_none(tmp_path: Path, *, many: bool) -> None:
    """With attempts="durable" a get whose delivery cannot be counted raises, and is no delivery."""
    scene = Scene(tmp_path / "jobs.db", attempts="durable")
    scene.topic.put_many([b"1", b"2"])
    consumer = Consumer(scene.billing)
    get = partial(consumer.get_many, 2) if many else consumer.get
    with scene.disk.failing(StoreFull("jobs.db", "the disk is full")):
        with pytest.raises(StoreFull):
            get(timeout=0)
        assert (2, 0, 0) == scene.counts()[0]
    assert [(b"1", 1), (b"2", 1)] == [
        (message.body, message.attempts) for message in consumer.get_many(2, timeout=0)
    ]
    scene.broker._check()
    scene.broker.close()


@problems
@pytest.mark.parametrize("to", ["topic", "channel"])
def test_a_move_that_cannot_be_written_is_written_later(
    scene: Scene, problem: StoreError, to: Literal["topic", "channel"]
) -> None:
    """A move is made whatever the disk says; until it is written the file has it as before."""
    scene.topic.put(b"1")
    consumer = Consumer(scene.billing, max_in_flight=1)
    message = consumer.get()
    target = scene.dead if to == "topic" else scene.letters
    with scene.disk.failing(problem):
        consumer.move(message, target)
        with pytest.raises(type(problem)):
            scene.broker.flush()
        assert {"billing": [b"1"], "audit": [b"1"], "letters": []} == scene.stored()
    assert ("finished", 0) == (message.state, consumer.in_flight_count)
    scene.broker._check()
    scene.broker.flush()
    assert [(0, 0, 0), (1, 0, 0), (1, 0, 0)] == scene.counts()
    assert {"billing": [], "audit": [b"1"], "letters": [b"1"]} == scene.stored()


# Steering


def test_what_was_steered_meanwhile_is_written_later(scene: Scene) -> None:
    """What a call has done that could not be written holds, and is in the file with the next."""
    scene.topic.put(b"1")
    calls: list[Callable[[], object]] = [
        scene.billing.pause,
        scene.topic.pause,
        scene.audit.empty,
        lambda: scene.topic.channel("third"),
        scene.dead.delete,
        lambda: scene.broker.topic("new"),
    ]
    with scene.disk.failing(StoreFull("jobs.db", "the disk is full")):
        for call in calls:
            with pytest.raises(StoreFull):
                call()
    scene.broker.flush()
    assert "OK" == scene.broker.health
    seen = take_snapshot(copy_store(scene.path, scene.path.with_name("copy")), START)
    assert {"orders", "new"} == set(seen)
    orders = seen["orders"]
    assert orders.paused
    assert {"billing": (True, 1), "audit": (False, 0), "third": (False, 0)} == {
        name: (channel.paused, len(channel.messages)) for name, channel in orders.channels.items()
    }


def test_close_tells_that_something_is_not_written(tmp_path: Path) -> None:
    """A close that cannot write raises, and leaves all open until it can."""
    scene = Scene(tmp_path / "jobs.db")
    scene.topic.put(b"1")
    Consumer(scene.billing).get().fin()
    with scene.disk.failing(StoreFull("jobs.db", "the disk is full")), pytest.raises(StoreFull):
        scene.broker.close()
    assert {"billing": [b"1"], "audit": [b"1"], "letters": []} == scene.stored()
    scene.topic.put(b"2")
    scene.broker.close()
    with Broker(store=nsqlite.SQLite(scene.path)) as broker:
        assert [b"2"] == bodies(broker.topic("orders").channel("billing"))


# Many at a time


@pytest.mark.parametrize("sync", ["normal", "full"])
def test_each_put_of_many_threads_fails_for_itself(
    tmp_path: Path, sync: Literal["normal", "full"]
) -> None:
    """On a disk that fails now and then, what returned is in both channels, and nothing else is."""
    scene = Scene(tmp_path / "jobs.db", sync, mem_queue_size=10)
    scene.disk.chance = 0.3
    returned: list[list[bytes]] = [[] for _ in range(4)]
    refused = [0] * 4

    def produce(part: int) -> None:
        chance = random.Random(part)
        for number in range(150):
            batch = [b"%d-%d-%d" % (part, number, n) for n in range(chance.choice([1, 1, 3]))]
            try:
                if len(batch) == 1:
                    scene.topic.put(batch[0])
                else:
                    scene.topic.put_many(batch)
                returned[part] += batch
            except StoreError:
                refused[part] += 1

    with scene.disk.failing(StoreError("jobs.db", "disk I/O error")):
        calls = [Call(partial(produce, part)) for part in range(4)]
        assert [None] * 4 == [call.result() for call in calls]
    assert min(refused) > 0
    scene.broker._check()
    expected = sorted(body for part in returned for body in part)
    assert {"billing": expected, "audit": expected, "letters": []} == scene.stored()
    delivered = bodies(scene.billing)
    for part in returned:
        assert part == [body for body in delivered if body in set(part)], "out of order"
    scene.broker.close()


def test_failing_moves_of_many_threads_lose_nothing(tmp_path: Path) -> None:
    """On a disk that fails now and then, each message is in exactly one place after its move.

    What fails is to read what comes next, which stands on what is to be written before it.
    """
    scene = Scene(tmp_path / "jobs.db", mem_queue_size=10)
    scene.disk.chance = 0.3
    expected = [b"%03d" % number for number in range(200)]
    scene.topic.put_many(expected)
    failed = [0] * 3

    def work(part: int) -> None:
        consumer = Consumer(scene.billing)
        while True:
            try:
                message = consumer.get(timeout=0)
            except Empty:
                return
            except StoreError:
                failed[part] += 1
                continue
            consumer.move(message, scene.dead if part else scene.letters)

    with scene.disk.failing(StoreError("jobs.db", "disk I/O error")):
        calls = [Call(partial(work, part)) for part in range(3)]
        assert [None] * 3 == [call.result() for call in calls]
    assert sum(failed) > 0
    scene.broker._check()
    scene.broker.flush()
    assert [(0, 0, 0), (200, 0, 0), (200, 0, 0)] == scene.counts()
    assert {"billing": [], "audit": expected, "letters": expected} == scene.stored()
    scene.broker.close()


# Real failures


def test_full_file_is_told_and_goes_on(tmp_path: Path) -> None:
    """When SQLite finds no room a put raises StoreFull; with room again all goes on."""
    path = tmp_path / "jobs.db"
    broker = Broker(store=nsqlite.SQLite(path, sync_timeout=1000))
    topic = broker.topic("orders")
    channel = topic.channel("billing")
    keeper: Any = broker._persistence
    writer = keeper._storage._writer._connection
    [pages] = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages + 40}")
    stored = fill(topic)
    assert broker.health.startswith("NOK - store ")
    assert len(stored) == channel.depth
    consumer = Consumer(channel)
    batch = consumer.get_many(len(stored))
    consumer.move(batch[0], broker.topic("orders"), b"x" * 100_000)
    with pytest.raises(StoreFull):
        broker.flush()
    assert len(batch) - 1 == channel.in_flight_count
    writer.execute("PRAGMA max_page_count = 1000000")
    consumer.fin_many(batch[1:])
    broker.flush()
    assert "OK" == broker.health
    topic.put(b"last")
    broker.close()
    with Broker(store=nsqlite.SQLite(path)) as again:
        assert [b"x" * 100_000, b"last"] == bodies(again.topic("orders").channel("billing"))


def fill(topic: nsqlite.Topic[bytes]) -> list[bytes]:
    """Put until there is no room; return what was put."""
    stored: list[bytes] = []
    for number in range(1000):
        body = b"%04d" % number * 200
        try:
            topic.put(body)
        except StoreError:
            return stored
        stored.append(body)
    pytest.fail("the file never got full")


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """Have the system refuse to make any file longer."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def test_system_that_refuses_to_write_is_told_and_goes_on(tmp_path: Path) -> None:
    """When the system fails a write a put raises StoreError; when it works again all goes on."""
    path = tmp_path / "jobs.db"
    broker = Broker(store=nsqlite.SQLite(path, sync_timeout=1000))
    topic = broker.topic("orders")
    channel = topic.channel("billing")
    log = tmp_path / "jobs.db-wal"
    with no_file_beyond(log.stat().st_size + 50_000):
        stored = fill(topic)
        assert broker.health.startswith("NOK - store ")
        with pytest.raises(StoreError):
            topic.put_many([b"x" * 100_000] * 2)
    assert len(stored) == channel.depth
    topic.put(b"last")
    assert "OK" == broker.health
    assert [*stored, b"last"] == bodies(channel)
    broker.close()


def test_no_thread_is_left_after_failures(tmp_path: Path) -> None:
    """A broker whose disk has failed closes as any other, and its thread ends."""
    before = threading.active_count()
    scene = Scene(tmp_path / "jobs.db")
    with scene.disk.failing(StoreFull("jobs.db", "the disk is full")), pytest.raises(StoreFull):
        scene.topic.put(b"no")
    scene.broker.close()
    assert before == threading.active_count()
