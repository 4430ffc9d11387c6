"""The database: opening and closing, forks, tasks, and the rest of nsqlite on a store."""

import asyncio
import contextlib
import gc
import os
import re
import sqlite3
import subprocess
import sys
import threading
import warnings
import weakref
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from helpers import Call, bodies
from stateful.test_fork import in_child

import nsqlite
from nsqlite import (
    App,
    Broker,
    Closed,
    Consumer,
    DeadLetter,
    Empty,
    Retry,
    SQLite,
    StoreError,
    StoreFull,
    StoreInUse,
    Worker,
    aio,
)
from nsqlite.store import StoredTopic, Undecodable
from nsqlite.store.database import Database
from nsqlite.testing import FaultyStore, ManualClock, MemoryStore
from store.stores import Scene, SpiedStore, everything, finished, reading, threads_in, throw, until

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")


# The end


def test_close_twice(path: Path) -> None:
    """A broker can be closed twice; then its store can be used by the next."""
    scene = Scene(path)
    topic = scene.topic()
    topic.channel("billing")
    topic.put(b"1")
    assert [0, 0] == [scene.broker.close(), scene.broker.close()]
    scene.database.close()
    for call in (
        lambda: scene.broker.topic("other"),
        lambda: topic.put(b"2"),
        lambda: topic.channel("new"),
        lambda: scene.database.topic(
            "other", scene.broker, scene.broker.clock, lambda: None, lambda made: made
        ),
    ):
        with pytest.raises(Closed):
            call()
    with Scene(path) as again:
        assert [(b"1", 1)] == everything(again.channel())


def test_close_inside_a_call_does_not_wait(path: Path) -> None:
    """A signal handler that closes inside a call goes on; all is written after it."""
    with Scene(path) as scene:
        topic = scene.topic()
        topic.put(b"1")
        scene.consumer().get(timeout=0).fin()
        with topic._monitor.lock:
            scene.database.close()
            assert scene.database.journal.over
        scene.database.close()
        assert not scene.database._flusher._thread.is_alive()
    with Scene(path) as scene:
        assert [["orders", "orders:billing"], []] == [scene.names(), scene.rows()]


def test_a_close_that_fails_leaves_all_open(path: Path) -> None:
    """What cannot be written is raised by `close`; the broker goes on until the next one."""
    scene = Scene(path)
    consumer = scene.consumer()
    scene.topic().put(b"1")
    consumer.get(timeout=0).fin()
    with scene.spy.failing(), pytest.raises(StoreFull):
        scene.broker.close()
    scene.topic().put(b"2")
    scene.broker.close()
    with Scene(path) as again:
        assert [(b"2", 1)] == everything(again.channel())


def test_a_put_that_waits_when_the_broker_is_closed(path: Path) -> None:
    """What was reserved when the broker is closed is still written, and its put returns."""
    scene = Scene(path)
    topic = scene.topic()
    topic.channel("billing")
    with scene.spy.held() as held:
        first = Call(lambda: topic.put(b"1"))
        held.until_begun()
        second = Call(lambda: topic.put_many([b"2"]))
        until(lambda: len(scene.database.journal.queue) == 2)
        closing = Call(lambda: scene.broker.close(force=True))  # which does not write before
        until(lambda: topic.closed)
    results = [first.result(), second.result(), closing.result()]
    assert [str, list, int] == [type(result) for result in results]
    with Scene(path) as again:
        assert [(b"1", 1), (b"2", 1)] == everything(again.channel())


@pytest.mark.nsqlite(leaks=False)  # it keeps such a broker
def test_a_broker_that_is_forgotten_writes_everything(path: Path) -> None:
    """A broker that was never closed warns when it goes, and all is written; the file is free."""
    broker = Broker(store=SpiedStore(path, sync_timeout=0.01))
    consumer = Consumer(broker.topic("orders").channel("billing"))
    broker.topic("orders").put_many([b"1", b"2"])
    consumer.get(timeout=0).fin()
    database: Any = broker._persistence
    mine: list[Any] = [broker, consumer]
    del broker, consumer

    def forget() -> bool:
        mine.clear()
        gc.collect()
        return bool(database.journal.over)

    with pytest.warns(ResourceWarning, match=r"the broker of .*jobs.db was forgotten, not closed"):
        until(forget)
    database._flusher.wait()
    with Scene(path) as scene:
        assert [(b"2", 1)] == everything(scene.channel())
    database.forsake()  # which does nothing any more
    database._close_at_exit()  # the same


def test_a_closed_broker_is_forgotten_silently(path: Path) -> None:
    """Who has closed a broker hears nothing when it goes."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scene = Scene(path)
        scene.broker.close()
        del scene
        gc.collect()


@pytest.mark.nsqlite(leaks=False)  # it keeps such a broker
def test_a_closed_broker_goes_though_its_store_knows_it(path: Path) -> None:
    """What a store refers to lives no longer for it, once the broker is closed."""
    program: list[object] = []
    broker = Broker(store=FaultyStore(SQLite(path), program.append))
    program.append(broker)
    gone = weakref.ref(broker)
    broker.close()
    del broker, program
    gc.collect()
    assert gone() is None


def run(program: str, *arguments: str, code: int = 0) -> str:
    """Run a program, and return what it printed."""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(nsqlite.__file__).parent.parent)},
    )
    assert (code, "") == (done.returncode, done.stderr)
    return done.stdout


@pytest.mark.nsqlite(leaks=False)  # the broker's store is closed, and it is not
def test_what_is_done_at_the_end_of_the_interpreter(path: Path) -> None:
    """The store is closed, whatever cannot be written, and that is warned of."""
    scene = Scene(path)
    consumer = scene.consumer()
    scene.topic().put(b"1")
    consumer.get(timeout=0).fin()
    warned = pytest.warns(ResourceWarning, match=r"jobs.db was not closed by the end of the prog")
    with scene.spy.failing(), warned:
        scene.database._close_at_exit()
    with Scene(path) as again:
        assert [(b"1", 1)] == everything(again.channel())


def test_an_ephemeral_topic_is_in_memory(path: Path) -> None:
    """The file knows nothing of it."""
    with Scene(path) as scene:
        passing = scene.topic("passing#ephemeral")
        passing.put(b"1")
        assert [1, []] == [passing.depth, scene.names()]


def test_the_end_of_the_interpreter_writes_everything(path: Path) -> None:
    """A program that ends with its broker open has written what happened; it does not hang."""
    run(
        "import nsqlite, sys\n"
        "store = nsqlite.SQLite(sys.argv[1], sync='interval', sync_timeout=9999)\n"
        "broker = nsqlite.Broker(store=store)\n"
        "consumer = nsqlite.Consumer(broker.topic('orders').channel('billing'))\n"
        "for body in (b'1', b'2', b'3'): broker.topic('orders').put(body)\n"
        "consumer.get(timeout=0).fin()\n"
        "consumer.get(timeout=0)\n",
        str(path),
    )
    with Scene(path) as scene:
        assert [(b"2", 2), (b"3", 1)] == everything(scene.channel())


# Forks


@needs_fork
def test_the_child_of_a_fork_has_no_store(path: Path) -> None:
    """In a child every call that needs the file says whose it is; the parent goes on."""
    with Scene(path, mem_queue_size=1, attempts="durable") as scene:
        topic, channel = scene.topic(), scene.channel()
        consumer = scene.consumer()
        topic.put_many([b"1", b"2", b"3"])
        message = consumer.get(timeout=0)
        backlog: Any = channel._queue.persistence

        def child() -> None:
            for call in (
                lambda: topic.put(b"4"),
                lambda: topic.put(b"4", timeout=1),
                lambda: topic.put_many([b"4"]),
                lambda: consumer.move(message, topic),
                topic.pause,
                topic.unpause,
                topic.empty,
                topic.delete,
                lambda: topic.channel("new"),
                channel.pause,
                channel.unpause,
                channel.empty,
                channel.delete,
                lambda: scene.broker.topic("new"),
                backlog.fetch,
                lambda: asyncio.run(aio.put(topic, b"4")),
            ):
                with pytest.raises(StoreInUse) as info:
                    call()
                assert os.getppid() == info.value.pid
                assert "of which this is a fork: open another file here" in str(info.value)
            scene.broker.close()

        in_child(child)
        topic.put(b"4")
        message.fin()
        channel.pause()
        channel.unpause()
        found = [consumer.get(timeout=0) for _ in "234"]
        assert [b"2", b"3", b"4"] == [one.body for one in found]
        scene.reopen()
        assert [(b"2", 2), (b"3", 2), (b"4", 2)] == everything(scene.channel())
        with reading(path) as connection:
            assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()


@needs_fork
def test_a_child_can_open_another_file(path: Path) -> None:
    """A child has its own store if it opens its own file, and leaves the parent's lock alone."""
    with Scene(path) as scene:
        scene.topic().put(b"1")

        def child() -> None:
            with pytest.raises(StoreInUse):
                Broker(store=nsqlite.SQLite(path))
            with Scene(path.with_name("mine.db")) as mine:
                mine.topic().put(b"2")
                assert 1 == mine.topic().depth

        in_child(child)
        with pytest.raises(StoreInUse):
            Broker(store=nsqlite.SQLite(path))


@needs_fork
def test_a_fork_of_a_closed_broker(path: Path) -> None:
    """A child of a process whose broker is closed finds it closed, and may open the file."""
    scene = Scene(path)
    topic = scene.topic()
    scene.broker.close()

    def child() -> None:
        with pytest.raises(Closed):
            topic.put(b"1")
        with Scene(path) as mine:
            mine.topic().put(b"1")

    in_child(child)


def test_what_a_child_does_first_of_all() -> None:
    """In a child the database lets go of the store, and refuses what needs it; closed, it is so."""
    store = MemoryStore()
    broker = Broker(store=store)
    topic = broker.topic("orders")
    database: Any = broker._persistence
    database._abandon()
    for call in (lambda: topic.put(b"1"), topic.pause, lambda: broker.topic("other")):
        with pytest.raises(StoreInUse):
            call()
    database._abandon()
    database._flusher.stop()  # here it lives on, unlike in a child
    with suppress(StoreError):
        broker.close()
    closed = Broker(store=store)
    other: Any = closed._persistence
    closed.close()
    other._abandon()
    other.require_owner()
    with pytest.raises(Closed):
        closed.topic("orders")


# Tasks


def test_an_task_that_fails_is_told(path: Path) -> None:
    """Who sends the store's thread hears what came of it; who has gone hears nothing."""
    with Scene(path) as scene:
        backlog: Any = scene.channel()._queue.persistence
        heard: list[BaseException | None] = []
        done = threading.Event()

        def tell(problem: BaseException | None) -> None:
            heard.append(problem)
            if len(heard) == 3:
                done.set()
            raise RuntimeError  # as a closed loop does

        problem = ValueError("no")
        backlog.send(lambda: None, tell)
        backlog.send(throw(problem), tell)
        backlog.send(lambda: None, tell)
        assert done.wait(20)
        assert [None, problem, None] == heard


def test_a_page_that_the_stores_thread_cannot_read(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A consumer that waits is fed when the file can be read again."""
    with Scene(path) as scene:
        scene.channel()
        scene.topic().put_many([b"1", b"2"])
    with Scene(path, mem_queue_size=1) as scene:
        with scene.spy.failing(StoreError("jobs.db", "torn"), ("read",)) as failed:
            consumer = scene.consumer()
            for timeout in (0, 20, None):  # whoever waits is told, too
                with pytest.raises(StoreError, match="torn"):
                    consumer.get(timeout=timeout)
                with pytest.raises(StoreError, match="torn"):
                    consumer.get_many(2, timeout=timeout)
            until(lambda: failed)
            until(lambda: caplog.records)
            assert "NOK - store jobs.db: torn" == scene.broker.health
        assert b"1" == consumer.get(timeout=20).body
        assert "OK" == scene.broker.health


def test_a_page_of_a_topic_that_is_deleted_meanwhile(path: Path) -> None:
    """There is nothing to read any more, which is no failure."""
    with Scene(path) as scene:
        scene.channel()
        scene.topic().put_many([b"1", b"2"])
    with Scene(path, mem_queue_size=1) as scene:
        topic, channel = scene.topic(), scene.channel()
        consumer = scene.consumer()

        def delete() -> None:
            Call(topic.delete).result()
            while scene.database.upkeep():
                pass

        scene.spy.once(delete, ("read",))
        with pytest.raises(Closed):
            while True:
                consumer.get(timeout=0)
        assert ["OK", 0] == [scene.broker.health, channel.depth]


# With the rest


def test_dead_letters_are_kept(path: Path) -> None:
    """What a worker gives up is a dead letter in the file, and can be sent back from there."""
    with Scene(path) as scene:
        channel = scene.channel()
        dead = scene.topic("dead")
        dead.channel("letters")
        scene.topic().put_many([b"1", b"2"])

        def refuse(message: Any) -> None:
            raise LookupError(message.body.decode())

        with Worker(channel, refuse, retry=Retry(max_attempts=1), dead_letter=dead) as worker:
            worker.join()
        scene.reopen()
        letters = scene.channel("letters", "dead")
        found = [info.body for info in letters.peek()]
        assert [b"1", b"2"] == [letter.body for letter in found]
        assert all(isinstance(letter, DeadLetter) for letter in found)
        assert ("LookupError", "1") == (found[0].error_type, found[0].error)
        assert "in refuse" in found[0].traceback
        assert ("orders", "billing") == (found[0].topic, found[0].channel)
        assert 2 == nsqlite.redrive(letters, scene.broker)
        assert [b"1", b"2"] == [info.body for info in scene.channel().peek()]
        scene.broker.flush()
        assert [b"1", b"2"] == [body for body, _ in scene.disk()]
        assert [] == scene.disk("letters", "dead")


def test_workers_in_a_loop_with_dead_letters(path: Path) -> None:
    """Tasks that work on a kept channel finish, give up and keep what they gave up."""
    with Scene(path) as scene:
        app = App()
        done: list[bytes] = []
        settled = threading.Event()

        @app.handler(
            "orders", "billing", concurrency=3, retry=Retry(max_attempts=1), dead_letter="dead"
        )
        async def work(message: Any) -> None:
            if message.body == b"bad":
                raise LookupError
            done.append(message.body)

        scene.topic("dead").channel("letters")
        scene.topic().put_many([b"1", b"bad", b"2", b"3"])

        async def serve() -> None:
            async with app.running(scene.broker):
                while not settled.is_set():
                    await aio.join(scene.topic())
                    if scene.channel("letters", "dead").depth:
                        settled.set()

        asyncio.run(asyncio.wait_for(serve(), 20))
        assert [b"1", b"2", b"3"] == sorted(done)
        scene.broker.flush()
        assert [] == scene.disk()
        assert 1 == len(scene.disk("letters", "dead"))


def test_a_consumer_that_waits_is_woken_by_a_put(path: Path) -> None:
    """What is put reaches who waits, in threads and tasks, and ends with the broker."""
    scene = Scene(path)
    consumer = scene.consumer()
    call = Call(lambda: finished(consumer))
    scene.topic().put(b"1")
    scene.topic().put_many([b"2", b"3"])
    assert scene.topic().join(timeout=20)
    scene.broker.close()
    assert [b"1", b"2", b"3"] == call.result()
    with pytest.raises(Closed):
        consumer.get(timeout=0)
    with Scene(path) as again, pytest.raises(Empty):
        again.consumer().get(timeout=0)


def test_upkeep_forgets_what_nobody_holds(path: Path) -> None:
    """What a deleted channel alone had held leaves the file step by step."""
    with Scene(path) as scene:
        scene.channel()
        scene.topic().put_many([b"1"] * 50)
        scene.channel().delete()
        scene.channel("audit")
        assert scene.database.upkeep()
        until(lambda: not scene.database.upkeep())
        assert [] == scene.rows()


def test_ids_go_on_where_the_file_ends(path: Path) -> None:
    """No id is given twice, also if the clock was put back and the messages are gone."""
    with Scene(path) as scene:
        last = scene.topic().put(b"1")
        scene.topic().empty()
    with Scene(path, clock=nsqlite.testing.ManualClock(start=1)) as scene:
        assert last < scene.topic().put(b"2")


def test_what_cannot_be_opened_leaves_the_file_free(path: Path) -> None:
    """A store that fails while it is opened can be opened by the next."""

    class Torn(SpiedStore):
        def _storage(self) -> Any:
            storage: Any = super()._storage()
            storage.before = lambda name: name == "load" and throw(StoreError("jobs.db", "torn"))()
            return storage

    with pytest.raises(StoreError, match="torn"):
        Broker(store=Torn(path))
    with Scene(path) as scene:
        scene.topic().put(b"1")


def test_an_task_for_a_store_that_is_closed(path: Path) -> None:
    """Whoever asks for something afterwards hears that it will not be done."""
    heard: list[object] = []
    with Scene(path) as scene:
        database = scene.database
    database.send(lambda: heard.append("done"), heard.append)
    assert [Closed] == [type(problem) for problem in heard]


def test_a_topic_that_several_threads_make(path: Path) -> None:
    """There is one of its name, in memory and in the file."""
    with Scene(path) as scene:
        with scene.database._making:
            calls = [Call(scene.topic) for _ in range(3)]
            until(lambda: threads_in("topic", "database.py") == 3)
        [topic] = {call.result() for call in calls}
        scene.broker.flush()
        assert ["orders"] == scene.names()
        assert topic is scene.topic()


@pytest.mark.parametrize("moment", ["as it begins", "before it is there", "when it is there"])
def test_a_signal_while_a_topic_is_made(path: Path, moment: str) -> None:
    """The next call makes it, or gets it; it is in the file once, with what is put into it."""
    with Scene(path) as scene:
        with pytest.MonkeyPatch.context() as patch:
            if moment == "as it begins":
                patch.setattr(scene.database.journal, "stir", throw(KeyboardInterrupt()))
            elif moment == "before it is there":
                patch.setattr(scene.broker, "_add", lambda _: throw(KeyboardInterrupt())())
            else:
                add = scene.broker._add

                def strike(topic: Any) -> Any:
                    add(topic)
                    raise KeyboardInterrupt

                patch.setattr(scene.broker, "_add", strike)
            with pytest.raises(KeyboardInterrupt):
                scene.topic()
        scene.channel()
        scene.topic().put(b"1")
        assert [["orders", "orders:billing"], [(b"1", 1)]] == [scene.names(), scene.disk()]
        scene.topic().delete()
        assert [] == scene.names()
        scene.channel()
        scene.topic().put(b"2")
        assert [["orders", "orders:billing"], [(b"2", 1)]] == [scene.names(), scene.disk()]


def test_a_topic_that_is_made_while_one_of_its_name_is_deleted(path: Path) -> None:
    """Its name is free in the file too, before whoever deletes the old one has noted that."""
    with Scene(path) as scene:
        old: Any = scene.topic()
        scene.channel()
        scene.topic().put(b"1")
        end = old._store.end

        def make(how: str) -> None:
            made = Call(lambda: scene.channel().topic_name).result()
            assert "orders" == made
            Call(lambda: scene.topic().put(b"2")).result()
            end(how)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(old._store), "end", lambda _, how: make(how))
            old._monitor.run(old._delete)
        scene.broker.flush()
        assert [["orders", "orders:billing"], [(b"2", 1)]] == [scene.names(), scene.disk()]


def test_a_topic_that_is_deleted_before_its_making_is_forgotten(path: Path) -> None:
    """Its name is free: the next one has another number, as any other."""
    with Scene(path) as scene:
        topic = scene.topic()
        store = topic._store
        assert store is not None
        scene.database._stored["orders"] = StoredTopic(number=store.number, name="orders")
        topic.delete()  # a signal had kept it from being forgotten
        scene.channel()
        scene.topic().put(b"1")
        assert [(b"1", 1)] == scene.disk()


# Counts


def counted(scene: Scene) -> dict[str, bool]:
    """Return by name whether the file says how many messages a topic has."""
    with reading(scene.path) as connection:
        return {
            name: bool(is_counted)
            for name, is_counted in connection.execute("SELECT name, counted FROM topic")
        }


def test_what_is_counted_at_the_end_need_not_be_counted_again(path: Path) -> None:
    """Topics that are closed with their broker are counted in the file; a write ends that."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        scene.channel("audit")
        scene.topic().put_many([b"1", b"2", b"3"])
        consumer.get(timeout=0).fin()
        consumer.get(timeout=0)
        scene.topic("alone").put(b"4")
    assert {"orders": True, "alone": True} == counted(scene)
    with Scene(path) as scene:
        scene.spy.before = lambda name: name == "count" and pytest.fail("it counts")
        found = [scene.channel(name).depth for name in ("billing", "audit")]
        assert [[2, 3], 1] == [found, scene.topic("alone").depth]
        scene.topic().put(b"5")
        assert {"orders": False, "alone": True} == counted(scene)
        with scene.as_on_disk() as copy:
            assert [3, 4] == [copy.channel(name).depth for name in ("billing", "audit")]
            assert "count" in [name for name, _ in copy.spy.reads]


def test_a_channel_that_is_closed_before_its_topic_is_counted_at_opening(path: Path) -> None:
    """What comes meanwhile lies in the file alone, so nobody knows how much it has."""
    with Scene(path) as scene:
        scene.channel().close()
        scene.topic().put_many([b"1", b"2"])
    assert {"orders": False} == counted(scene)
    with Scene(path) as scene:
        assert 2 == scene.channel().depth


def test_a_put_that_is_under_way_at_the_end_is_counted_at_opening(path: Path) -> None:
    """It is in the file, and was not in the channel."""
    scene = Scene(path)
    scene.channel()
    with scene.spy.held() as held:
        putting = Call(lambda: scene.topic().put(b"1"))
        held.until_begun()
        closing = Call(lambda: scene.broker.close(force=True))
        until(lambda: scene.broker._topics["orders"].closed)
    assert [str, int] == [type(putting.result()), type(closing.result())]
    assert {"orders": False} == counted(scene)
    with Scene(path) as again:
        assert 1 == again.channel().depth


def test_a_broker_that_is_closed_inside_a_call_is_counted_at_opening(path: Path) -> None:
    """Its topics end after that call, and may change until then."""
    scene = Scene(path)
    topic, consumer = scene.topic(), scene.consumer()
    topic.put_many([b"1", b"2"])
    message = consumer.get(timeout=0)

    def close() -> None:
        scene.broker.close()
        scene.database._flusher.wait()

    topic._monitor.run(close)
    assert {"orders": False} == counted(scene)
    assert message is not None
    with Scene(path) as again:
        assert [(b"1", 2), (b"2", 1)] == everything(again.channel())


def test_a_count_that_is_wrong_keeps_nothing_from_being_read(path: Path) -> None:
    """All comes of a queue that is said to have less, or nothing; of others there is an end."""
    for wrong in (0, 1, 9):
        with Scene(path) as scene:
            scene.channel()
            scene.topic("alone").put(b"0")
            scene.topic().put_many([b"1", b"2", b"3"])
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE channel SET held = ?", (wrong,))
            connection.execute("UPDATE topic SET held = ?", (wrong,))
        with Scene(path, mem_queue_size=1) as scene:
            assert [b"1", b"2", b"3"] == [body for body, _ in everything(scene.channel())]
            assert 0 == scene.channel().depth
            assert [b"0"] == [body for body, _ in everything(scene.channel("first", "alone"))]
            scene.topic("alone").delete()


# A crash, a copy


def test_a_crash_writes_nothing_more(path: Path) -> None:
    """The file is what it was; what was late is lost, what was acknowledged is not."""
    scene = Scene(path)
    consumer = scene.consumer()
    scene.topic().put_many([b"1", b"2"])
    consumer.get(timeout=0).fin()
    calls = len(scene.spy.calls)
    scene.database.crash()
    scene.database._flusher.wait()
    with pytest.raises(Closed):
        scene.topic().put(b"3")
    scene.broker.close()
    assert calls == len(scene.spy.calls)
    with scene.as_on_disk() as copy:
        assert [(b"1", 1), (b"2", 1)] == everything(copy.channel())
    scene.database._storage.close()


def test_a_backup_has_all_that_happened(path: Path) -> None:
    """It is written before the copy is made; a file that is there is left alone."""
    with Scene(path, sync="interval") as scene:
        consumer = scene.consumer()
        scene.topic().put_many([b"1", b"2"])
        consumer.get(timeout=0).fin()
        copy = path.with_name("copy.db")
        scene.broker.backup(copy)
        with pytest.raises(StoreError):
            scene.broker.backup(copy)
        scene.topic().put(b"3")
        with Scene(copy) as other:
            assert [(b"2", 1)] == everything(other.channel())


# A close that fails


def test_a_close_that_is_forced_loses_what_cannot_be_written(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """How much that is is logged; the file is free."""
    scene = Scene(path)
    consumer = scene.consumer()
    scene.topic().put_many([b"1", b"2"])
    consumer.get(timeout=0).fin()
    with scene.spy.failing():
        scene.broker.close(force=True)
    texts = [record.getMessage() for record in caplog.records]
    assert f"{path} could not be closed: store jobs.db: the disk is full" in texts
    left = r"was closed, [1-9] changes not written: store jobs.db: the disk is full"
    assert any(re.search(left, text) for text in texts)
    scene.broker.close()
    with Scene(path) as again:
        assert [(b"1", 1), (b"2", 1)] == everything(again.channel())


def test_a_close_that_fails_late_is_made_again(path: Path) -> None:
    """What could not be written after the topics were closed is written by the next `close`."""
    scene = Scene(path)
    scene.channel()
    scene.topic().put(b"1")
    with scene.spy.failing(), pytest.raises(StoreFull):
        scene.broker.close()  # the counts alone
    scene.broker.close()
    assert {"orders": True} == counted(scene)


def test_upkeep_that_fails_is_told_by_health(path: Path) -> None:
    """As whatever else could not be written."""
    with Scene(path) as scene:
        with scene.spy.failing(names=("tidy",)), pytest.raises(StoreFull):
            scene.database.upkeep()
        assert "NOK - store jobs.db: the disk is full" == scene.broker.health


# The wall's clock


@pytest.mark.parametrize("checksums", [True, False])
@pytest.mark.parametrize("back", [50, 3600])
def test_no_wait_is_longer_than_what_was_asked_for(path: Path, back: int, checksums: bool) -> None:
    """Where the clock is set back between two starts nothing waits longer than it was to."""
    clock = ManualClock(start=1_000_000)
    with Scene(path, clock=clock) as scene:
        consumer = scene.consumer()
        scene.topic().put(b"requeued")
        clock.advance(1000)
        consumer.get(timeout=0).req(delay=100)
        scene.topic().put(b"deferred", delay=100)
        clock.advance(30)
    if not checksums:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE messages_1 SET crc = NULL")
    clock = ManualClock(start=1_001_030 - back)
    for _ in range(2):
        with Scene(path, clock=clock) as scene:
            assert 2 == scene.channel().deferred_count
            clock.advance(49)
    with Scene(path, clock=clock) as scene:
        assert 2 == scene.channel().deferred_count
        clock.advance(2)
        assert [b"deferred", b"requeued"] == sorted(bodies(scene.channel()))


def test_what_waits_is_due_where_the_clock_is_set_forward(path: Path) -> None:
    """Time has passed, as far as one can tell."""
    with Scene(path, clock=ManualClock(start=1_000_000)) as scene:
        scene.channel()
        scene.topic().put(b"deferred", delay=100)
    with Scene(path, clock=ManualClock(start=1_000_100)) as scene:
        assert [0, 1] == [scene.channel().deferred_count, scene.channel().depth]


def test_a_message_that_is_damaged_is_left_as_it_is(path: Path) -> None:
    """Where the clock is set back, too: it is not given the right checksum of something else."""
    with Scene(path, clock=ManualClock(start=1_000_000)) as scene:
        scene.channel()
        scene.topic().put(b"deferred", delay=100)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE messages_1 SET data = x'00'")
    with Scene(path, clock=ManualClock(start=999_000)) as scene:
        [found] = scene.channel().deferred()
        assert isinstance(found.body, Undecodable)


def test_no_id_is_given_again_though_its_message_is_forgotten(path: Path) -> None:
    """Where a channel was emptied, and the clock is set back, what is put later comes."""
    with Scene(path, clock=ManualClock(start=1_000_000)) as scene:
        channel = scene.channel()
        scene.topic().put_many([b"1", b"2"])
        channel.empty()
        scene.topic("held").put(b"3")
        scene.topic("held").pause()
        scene.topic("held").empty()
        until(lambda: not scene.database._storage.tidy())
    with Scene(path, clock=ManualClock(start=999_000)) as scene:
        scene.topic().put(b"4")
        assert 1 == scene.channel().depth
        scene.reopen()
        assert [b"4"] == bodies(scene.channel())


def test_a_broker_that_a_handler_closes_inside_of_a_write(path: Path) -> None:
    """It does not wait for itself: the store's thread closes the file when the write is over."""
    scene = Scene(path)
    scene.channel()
    scene.topic().put(b"0")
    scene.spy.once(scene.broker.close)
    scene.topic().put(b"1")
    scene.broker.close()
    with Scene(path) as again:
        assert [b"0", b"1"] == bodies(again.channel())


def test_what_is_put_beside_a_channel_that_drains_is_counted(path: Path) -> None:
    """It gets it when the file is opened again."""
    with Scene(path) as scene:
        channel = scene.channel()
        scene.topic().put_many([b"1", b"2"])
        channel.close(drain=True)
        scene.topic().put(b"3")
    with Scene(path) as scene:
        assert 3 == scene.channel().depth == len(bodies(scene.channel()))


def test_the_connection_that_writes_is_used_by_one_at_a_time(path: Path) -> None:
    """What a topic begins with is read while nobody writes: no half of a transaction is seen."""
    with Scene(path) as scene:
        for name in ("a", "b"):
            scene.channel("billing", name)
            scene.topic(name).put(b"1")
        with scene.as_on_disk() as left:
            lock = left.database.journal.lock
            owned: list[bool] = []
            for name, call in (("a", "last"), ("b", "count")):
                left.spy.once(lambda: owned.append(lock.owned()), names=(call,))
                left.topic(name)
            assert [True, True] == owned


def test_counts_that_a_full_disk_does_not_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is closed all the same: they are counted at the next opening."""

    def fail(_database: Database) -> None:
        raise StoreFull("jobs.db", "the disk is full")

    path = tmp_path / "jobs.db"
    with Broker(store=SQLite(path)) as broker:
        broker.topic("orders").channel("billing")
        broker.topic("orders").put_many([b"tea", b"milk"])
        monkeypatch.setattr(Database, "_write_counts", fail)
    with Broker(store=SQLite(path)) as broker:
        assert 2 == broker.topic("orders").channel("billing").depth
