"""What a store has promised, in the moments at which it could be broken.

Each test holds up a write, breaks one off, or does something in the middle of one, and looks at
what the broker holds then, and at what would be found if its process died now.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

import pytest
from helpers import PATIENCE, Call, bodies
from stateful.strikes import Struck, strike

import nsqlite
from nsqlite import Broker, Consumer, InvalidMessage, StoreFull
from nsqlite.events import Kind
from nsqlite.store import Batch, Row, Storage
from nsqlite.testing import FaultyStore, ManualClock, MemoryStore
from nsqlite.testing.memorystorage import MemoryStorage
from nsqlite.worker.deadletter import DeadLetter, redrive

LATE: Final = 3600.0
"""Seconds after which the store's thread writes by itself: a test does not last so long."""


class Held:
    """A write that does not go on."""

    def __init__(self) -> None:
        self._begun, self._over = threading.Event(), threading.Event()

    def hold(self) -> None:
        self._begun.set()
        assert self._over.wait(PATIENCE), "nobody lets it go on"

    def until_begun(self) -> None:
        assert self._begun.wait(PATIENCE), "nobody writes"

    def let_go(self) -> None:
        self._over.set()


class Scene:
    """A broker whose store is in memory.

    Attributes:
        store: its store.
        broker: the broker; `Any`, as are all that it makes.
        full: each write fails, as on a full disk.
        before: called before the next write, in the thread that makes it.
    """

    def __init__(self, clock: ManualClock | None = None, **options: Any) -> None:
        self.options: Final = {"sync_timeout": LATE, **options}
        self.store = MemoryStore(**self.options)
        self.full = False
        self.before: Callable[[], object] | None = None
        self.broker: Any = Broker(clock=clock, store=FaultyStore(self.store, self.fault))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.full = False
        self.broker.close()

    def fault(self, point: str) -> None:
        if point.startswith("before write"):
            before, self.before = self.before, None
            if before is not None:
                before()
            if self.full:
                raise StoreFull("jobs.db", "the disk is full")

    @contextmanager
    def held(self) -> Iterator[Held]:
        """Hold up the next write until the end of the block, or until it is let go."""
        held = Held()
        self.before = held.hold
        try:
            yield held
        finally:
            self.before = None
            held.let_go()

    @contextmanager
    def as_left(self) -> Iterator[Any]:
        """Open what would be found if the process died now."""
        store = MemoryStore(**self.options)
        store.contents.tables = self.store.contents.tables.copy()
        with Broker(store=store) as broker:
            yield broker

    def left(self, topic: str = "orders", channel: str = "billing") -> list[Any]:
        """Return what a channel would be found to hold."""
        with self.as_left() as broker:
            return bodies(broker.topic(topic).channel(channel))

    def reopen(self) -> None:
        self.broker.close()
        self.broker = Broker(store=FaultyStore(self.store, self.fault))

    def topic(self, name: str = "orders", **options: Any) -> Any:
        return self.broker.topic(name, **options)

    def channel(self, name: str = "billing", topic: str = "orders", **options: Any) -> Any:
        return self.topic(topic).channel(name, **options)


def until(condition: Callable[[], object]) -> None:
    """Return when something has come true that another thread is about to do."""
    for _ in range(int(PATIENCE * 1000)):
        if condition():
            return
        threading.Event().wait(0.001)
    pytest.fail("it never comes true")


def peeked(channel: Any) -> list[Any]:
    return [info.body for info in channel.peek()]


# Room that was promised


@pytest.mark.parametrize("back", ["requeued", "timed out", "due"])
@pytest.mark.parametrize("when_full", ["raise", "wait"])
def test_put_keeps_the_room_it_was_promised(when_full: str, back: str) -> None:
    """A put that found room is in the channel, whatever comes back while it is being written."""
    clock = ManualClock()
    with Scene(clock) as scene:
        channel = scene.channel(max_depth=1, when_full=when_full)
        topic = scene.topic()
        topic.put(b"first", delay=30 if back == "due" else None)
        consumer = Consumer(channel)
        message = None if back == "due" else consumer.get(timeout=0)
        scene.broker.flush()
        with scene.held() as held:
            put = Call(lambda: topic.put(b"second"))
            held.until_begun()
            if back == "requeued" and message is not None:
                message.req()
            else:
                clock.advance(60)
            assert [b"first"] == peeked(channel)
        assert isinstance(put.result(), str)
        assert [b"first", b"second"] == sorted(peeked(channel))
        assert [b"first", b"second"] == sorted(scene.left())


def test_put_keeps_the_room_it_was_promised_in_a_paused_topic() -> None:
    """So it is where the topic itself is bounded, and what was deferred falls due there."""
    clock = ManualClock()
    with Scene(clock) as scene:
        topic = scene.topic(max_depth=1, when_full="raise")
        scene.channel(max_depth=None)
        topic.pause()
        topic.put(b"first", delay=30)
        scene.broker.flush()
        with scene.held() as held:
            put = Call(lambda: topic.put(b"second"))
            held.until_begun()
            clock.advance(60)
            assert 1 == topic.depth
        assert isinstance(put.result(), str)
        assert 2 == topic.depth
        topic.unpause()
        assert [b"first", b"second"] == sorted(scene.left())


@pytest.mark.parametrize("when_full", ["wait", "raise", "drop newest", "drop oldest"])
def test_bounded_topic_hands_on_in_order(when_full: str) -> None:
    """What a bounded topic held comes once, and after what lies in the file of its channels."""
    with Scene(mem_queue_size=2) as scene:
        topic = scene.topic(max_depth=2, when_full=when_full)
        channel = scene.channel(max_depth=None)
        expected = [b"1", b"2", b"3", b"4"]
        for body in expected[:3]:
            topic.put(body)
        topic.pause()
        topic.put(expected[3])
        topic.unpause()
        assert expected == bodies(channel)
        assert (0, 0) == (channel.depth, channel.in_flight_count)


def test_signal_in_a_put_leaves_the_room_as_it_was() -> None:
    """Wherever a put is broken off, a channel takes as many messages as its bound says."""

    def fresh() -> Scene:
        scene = Scene()
        scene.channel(max_depth=2, when_full="raise")
        scene.broker.flush()
        return scene

    def close(scene: Scene) -> None:
        scene.broker.close()

    wrong = []
    for run in strike(fresh, lambda scene: scene.topic().put(b"x"), drop=close, often=1):
        with run.scene as scene:
            assert run.error is None or isinstance(run.error, Struck), run.place
            scene.broker.flush()
            channel = scene.channel()
            depth = channel.depth
            assert depth in ((1,) if run.error is None else (0, 1))
            try:
                for _ in range(2 - depth):
                    scene.topic().put(b"y")
            except nsqlite.Full:
                wrong.append(run.place)
    assert [] == wrong


# Who gets what is being written


def test_channel_made_meanwhile_gets_what_is_put_later() -> None:
    """A channel that is made while a put is being written does not get it, nor exceed its bound."""
    with Scene() as scene:
        topic = scene.topic()
        billing = scene.channel()
        made = threading.Event()
        topic.observe(lambda _: made.set(), kinds=[Kind.CREATED])
        with scene.held() as held:
            put = Call(lambda: topic.put_many([b"1", b"2", b"3"]))
            held.until_begun()
            making = Call(lambda: topic.channel("audit", max_depth=2, when_full="raise"))
            assert made.wait(PATIENCE)
        assert 3 == len(put.result())
        audit = making.result()
        assert ([b"1", b"2", b"3"], []) == (peeked(billing), peeked(audit))
        assert ([b"1", b"2", b"3"], []) == (scene.left(), scene.left(channel="audit"))
        topic.put(b"4")
        assert [b"4"] == peeked(audit)
        assert [b"4"] == scene.left(channel="audit")


def test_channel_emptied_meanwhile_stays_empty() -> None:
    """A channel that is emptied while a put is being written does not get it."""
    with Scene() as scene:
        topic = scene.topic()
        billing, audit = scene.channel(), scene.channel("audit")
        emptied = threading.Event()
        topic.observe(lambda _: emptied.set(), kinds=[Kind.EMPTIED])
        with scene.held() as held:
            put = Call(lambda: topic.put(b"1"))
            held.until_begun()
            emptying = Call(audit.empty)
            assert emptied.wait(PATIENCE)
        assert isinstance(put.result(), str)
        emptying.result()
        assert ([b"1"], []) == (peeked(billing), peeked(audit))
        assert ([b"1"], []) == (scene.left(), scene.left(channel="audit"))


def test_drain_waits_for_what_is_being_written() -> None:
    """A put whose write is under way as a drain begins is delivered before the topic is over."""
    with Scene() as scene:
        topic = scene.topic()
        consumer = Consumer(scene.channel())
        with scene.held() as held:
            put = Call(lambda: topic.put(b"1"))
            held.until_begun()
            draining = Call(lambda: scene.broker.close(drain=True))
            until(lambda: " open " not in repr(topic))
            assert not topic.closed
        assert isinstance(put.result(), str)
        assert 0 == draining.result()
        message = consumer.get(timeout=0)
        assert b"1" == message.body
        message.fin()
        assert topic.closed


# Moves


def refuse() -> None:
    """Stand where nothing is to be written."""
    raise AssertionError("something is written")


def test_move_is_one_step_for_who_looks() -> None:
    """What is moved is in one place or the other: nobody finds all idle in between."""
    with Scene() as scene:
        consumer = Consumer(scene.channel())
        letters = scene.channel("all", "letters")
        scene.topic().put(b"1")
        message = consumer.get(timeout=0)
        scene.broker.flush()
        either = threading.Event()
        held = Held()

        def hold() -> None:
            either.set()
            held.hold()

        def move() -> str:
            try:
                return consumer.move(message, scene.topic("letters"))
            finally:
                either.set()

        scene.before = hold
        moving = Call(move)
        assert either.wait(PATIENCE)
        try:
            assert 1 == consumer.in_flight_count + letters.depth
            assert not scene.broker.join(timeout=0)
        finally:
            scene.before = None
            held.let_go()
        assert isinstance(moving.result(), str)


def test_move_is_written_late_and_in_one_piece() -> None:
    """A move waits for no write; until it is written, a crash leaves the message where it was."""
    with Scene() as scene:
        consumer = Consumer(scene.channel())
        scene.channel("all", "letters")
        scene.topic().put(b"1")
        message = consumer.get(timeout=0)
        scene.broker.flush()
        scene.before = refuse
        assert isinstance(consumer.move(message, scene.topic("letters")), str)
        assert ([b"1"], []) == (scene.left(), scene.left("letters", "all"))
        scene.before = None
        scene.broker.flush()
        assert ([], [b"1"]) == (scene.left(), scene.left("letters", "all"))


@pytest.mark.parametrize("looped", [False, True])
@pytest.mark.parametrize("sync", ["normal", "interval"])
def test_move_on_a_full_disk_is_never_taken_back(sync: str, looped: bool) -> None:
    """A move that returned is not undone, in an event loop either: what cannot be told stays."""
    with Scene(sync=sync) as scene:
        consumer = Consumer(scene.channel())
        letters = scene.channel("all", "letters")
        scene.topic().put(b"1")
        message = consumer.get(timeout=0)
        scene.broker.flush()
        scene.full = True

        async def move() -> str:
            return consumer.move(message, letters)

        id_ = asyncio.run(move()) if looped else consumer.move(message, letters)
        with pytest.raises(StoreFull):
            scene.broker.flush()
        assert (0, [id_]) == (consumer.in_flight_count, [info.id for info in letters.peek()])
        assert [b"1"] == scene.left()
        scene.full = False
        scene.broker.flush()
        assert ([], [b"1"]) == (scene.left(), scene.left("letters", "all"))


def test_redrive_leaves_the_attempts_of_what_it_leaves() -> None:
    """Letters that `where` leaves come next time as if nobody had looked at them."""
    with Scene() as scene:
        scene.channel()
        dead = scene.channel("all", "letters")
        for body in (b"1", b"2", b"3"):
            letter = DeadLetter(
                body=body,
                topic="orders",
                channel="billing",
                id="0",
                attempts=5,
                error="",
                timestamp=0,
            )
            scene.topic("letters").put(letter)
        assert 1 == redrive(dead, scene.broker, where=lambda one: one.body == b"2")
        assert [b"2"] == peeked(scene.channel())
        messages = Consumer(dead).get_many(10, timeout=0)
        assert [(b"1", 1), (b"3", 1)] == [(one.body.body, one.attempts) for one in messages]


# Deletion


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_get_beside_delete_is_told_that_it_is_over(kind: str, tmp_path: Path) -> None:
    """A get that is to be counted where all is deleted raises `Closed`, if that is too late."""
    path = tmp_path / "jobs.db"
    forgotten = threading.Event()

    def fault(point: str) -> None:
        if point == "after tidy" and (kind == "memory" or not tables(path)):
            forgotten.set()

    options: Any = {"attempts": "durable", "sync_timeout": 0.001}
    inner: Any = MemoryStore(**options) if kind == "memory" else nsqlite.SQLite(path, **options)
    with Broker(store=FaultyStore(inner, fault)) as broker:
        topic: Any = broker.topic("orders")
        consumer = Consumer(topic.channel("billing"))
        topic.put(b"1")

        def delete(_event: object) -> None:
            forgotten.clear()
            Call(topic.delete).result()
            forgotten.wait(1)  # or it need not be forgotten for that

        topic.observe(delete, kinds=[Kind.DELIVERED])
        try:
            message = consumer.get(timeout=0)
        except nsqlite.Closed:
            pass
        else:
            with pytest.raises(nsqlite.NotInFlight):
                message.fin()
        assert "OK" == broker.health


def tables(path: Path) -> list[str]:
    """Return the tables of messages in a file."""
    with closing(sqlite3.connect(path)) as file:
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'message%'"
        return [name for (name,) in file.execute(query)]


# The end, and full disks


def test_close_on_a_full_disk_leaves_it_open() -> None:
    """Nothing is given up: it raises `StoreFull`, goes on to work, and saves all in the end."""
    with Scene(sync="interval") as scene:
        consumer = Consumer(scene.channel())
        scene.topic().put_many([b"1", b"2", b"3"])
        scene.full = True
        for _ in range(2):
            with pytest.raises(StoreFull):
                scene.broker.close()
        scene.topic().put(b"4")
        consumer.get(timeout=0).fin()
        with pytest.raises(StoreFull):
            scene.broker.flush()
        assert "OK" != scene.broker.health
        scene.full = False
        scene.broker.close()
        assert [b"2", b"3", b"4"] == scene.left()


def test_close_with_force_closes_whatever_is_lost() -> None:
    """`close(force=True)` gives up what cannot be written, and lets the next one open the store."""
    scene = Scene(sync="interval")
    scene.channel()
    scene.topic().put(b"1")
    scene.broker.flush()
    scene.topic().put(b"2")
    scene.full = True
    try:
        scene.broker.close(force=True)
    finally:
        scene.full = False
    with pytest.raises(nsqlite.Closed):
        scene.broker.topic("orders")
    with Broker(store=scene.store) as broker:
        assert [b"1"] == bodies(broker.topic("orders").channel("billing"))


class TightStorage(MemoryStorage):
    """A storage that has room for what deletes, and for no new message."""

    tight = False

    def write_rows(self, number: int, rows: list[Row]) -> None:
        self.require_room()
        super().write_rows(number, rows)

    def write(self, batch: Batch) -> None:
        gone = {one for copies in batch.copies.values() for one in copies if copies[one] is None}
        if any(row[0] not in gone for rows in batch.rows.values() for row in rows):
            self.require_room()
        super().write(batch)

    def require_room(self) -> None:
        if self.tight:
            raise StoreFull("jobs.db", "the disk is full")


class TightStore(MemoryStore):
    """A store made of it."""

    def _storage(self) -> Storage:
        self.storage = TightStorage(self.contents)
        return self.storage


@pytest.mark.parametrize("sync", ["normal", "interval"])
def test_consuming_relieves_a_full_disk(sync: Any) -> None:
    """What is finished is forgotten, also where it was never written; then all can be written."""
    store = TightStore(sync=sync, sync_timeout=LATE)
    broker = Broker(store=store)
    topic = broker.topic("orders")
    consumer = Consumer(topic.channel("billing"))
    topic.put(b"1")
    broker.flush()
    store.storage.tight = True
    with suppress(StoreFull):
        topic.put(b"2")
    if sync == "interval":
        with pytest.raises(StoreFull):
            broker.flush()
    consumer.fin_many(consumer.get_many(10, timeout=0))
    broker.flush()
    assert "OK" == broker.health
    broker.close()
    with Broker(store=MemoryStore()) as empty, Broker(store=store) as again:
        assert not empty.topics
        assert 0 == again.topic("orders").channel("billing").depth


def test_crash_ends_the_thread_of_the_store() -> None:
    """The death of a process leaves no thread that goes on to write what is lost."""
    before = set(threading.enumerate())
    store = MemoryStore(sync="interval", sync_timeout=LATE)
    lost = Broker(store=store)
    lost.topic("orders").channel("billing")
    lost.topic("orders").put(b"1")
    threads = set(threading.enumerate()) - before
    store.crash()
    for thread in threads:
        thread.join(1)
    left = [thread.name for thread in threads if thread.is_alive()]
    with suppress(nsqlite.NSQLiteError):
        lost.close()
    assert [] == left
    with Broker(store=store) as broker:
        assert 0 == broker.topic("orders").channel("billing").depth


@pytest.mark.parametrize("sync", ["normal", "interval"])
def test_body_beyond_the_storage_is_refused(sync: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no storage takes is refused when it is put, and nothing that follows suffers."""
    monkeypatch.setattr("nsqlite.store.storage.LONGEST", 10, raising=False)
    with Scene(sync=sync, codec="json") as scene:
        scene.channel()
        topic = scene.topic()
        topic.put(b"1" * 10)
        consumer = Consumer(scene.channel())
        for put in (
            lambda: topic.put(b"2" * 11),
            lambda: topic.put("2" * 9),  # with its two quotes
            lambda: topic.put(b"2" * 11, delay=1),
            lambda: topic.put_many([b"2", b"2" * 11]),
            lambda: topic.publish([b"2" * 11]),
            lambda: consumer.move(consumer.get(timeout=0), topic, b"2" * 11),
        ):
            with pytest.raises(InvalidMessage):
                put()
        consumer.close()
        scene.broker.flush()
        topic.put(b"3")
        scene.broker.flush()
        assert [b"1" * 10, b"3"] == scene.left()


# After a restart


def test_channel_counts_what_came_before_it_was_asked_for() -> None:
    """After a restart a channel's `message_count` is of all that reached it since."""
    with Scene() as scene:
        scene.channel()
        scene.reopen()
        for body in (b"1", b"2", b"3"):
            scene.topic().put(body)
        stats = scene.topic().stats()
        assert (3, [3]) == (
            stats.message_count,
            [channel.message_count for channel in stats.channels],
        )


LOOKS: Final[dict[str, Callable[[Any], object]]] = {
    "stats": lambda broker: broker.stats(),
    "topics": lambda broker: broker.topics,
    "channels": lambda broker: broker.topics["orders"].channels,
    "topic stats": lambda broker: broker.topic("orders").stats(),
    "join": lambda broker: broker.join(0),
    "put": lambda broker: broker.topic("orders").put(b"2"),
    "pause": lambda broker: broker.topic("orders").pause(),
    "observe": lambda broker: broker.observe(lambda _: None),
    "flush": lambda broker: broker.flush(),
}
"""What can be done before a channel is named with its options."""


@pytest.mark.parametrize("look", LOOKS)
def test_options_are_those_of_the_first_who_names_a_channel(look: str) -> None:
    """After a restart, who only looks decides on no option of a channel."""
    with Scene() as scene:
        scene.channel(max_depth=2)
        scene.topic().put(b"1")
        scene.reopen()
        LOOKS[look](scene.broker)
        channel = scene.channel(max_depth=2, when_full="raise")
        assert (2, "raise") == (channel.options.max_depth, channel.options.when_full)
        scene.topic().unpause()
        with pytest.raises(nsqlite.Full):
            scene.topic().put_many([b"3", b"4"])


@pytest.mark.parametrize("look", ["stats", "topics", "join", "observe", "flush"])
def test_options_are_those_of_the_first_who_names_a_topic(look: str) -> None:
    """After a restart, who only looks decides on no option of a topic."""
    with Scene() as scene:
        scene.channel()
        scene.reopen()
        LOOKS[look](scene.broker)
        assert 5 == scene.topic(max_depth=5).options.max_depth


def test_first_take_after_a_restart_finds_what_is_there() -> None:
    """What lies in the file is ready: `take` need not be called twice."""
    with Scene(mem_queue_size=2) as scene:
        scene.channel()
        scene.topic().put_many([b"1", b"2", b"3"])
        scene.reopen()
        consumer = Consumer(scene.channel())
        assert [b"1"] == [message.body for message in consumer.take(1)]


def test_what_is_requeued_starves_nobody() -> None:
    """What comes back again and again lets by what lies in the file."""
    with Scene(mem_queue_size=3) as scene:
        consumer = Consumer(scene.channel())
        expected = [b"%d" % number for number in range(9)]
        for body in expected:
            scene.topic().put(body)
        seen = set()
        for _ in range(3 * len(expected)):
            message = consumer.get(timeout=0)
            seen.add(message.body)
            message.req()
        assert set(expected) == seen


# In a file


def test_put_keeps_the_room_it_was_promised_in_a_file(tmp_path: Path) -> None:
    """So it is on a real disk, where another program has the file locked for a while."""
    path = tmp_path / "jobs.db"
    waits = threading.Event()

    def fault(point: str) -> None:
        if point.startswith("before write"):
            waits.set()

    with Broker(store=FaultyStore(nsqlite.SQLite(path, sync_timeout=LATE), fault)) as broker:
        topic: Any = broker.topic("orders")
        consumer = Consumer(topic.channel("billing", max_depth=1, when_full="raise"))
        topic.put(b"1")
        message = consumer.get(timeout=0)
        broker.flush()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            waits.clear()
            put = Call(lambda: topic.put(b"2"))
            assert waits.wait(PATIENCE)
            message.req()
            other.execute("ROLLBACK")
        assert isinstance(put.result(), str)
    with Broker(store=nsqlite.SQLite(path)) as broker:
        assert [b"1", b"2"] == sorted(bodies(broker.topic("orders").channel("billing")))
