"""The keeper: opening and closing, forks, errands, and the rest of nsqlite on a store."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers import Call
from stateful.test_fork import in_child

import nsqlite
from nsqlite import (
    App,
    Broker,
    Closed,
    Consumer,
    DeadLetter,
    Empty,
    StoreError,
    StoreFull,
    StoreInUse,
    Worker,
    aio,
)
from nsqlite.testing import MemoryStore
from store.stores import Scene, SpiedStore, everything, finished, reading, throw, until

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")


# The end


def test_close_twice(path: Path) -> None:
    """A broker can be closed twice; then its store can be used by the next."""
    scene = Scene(path)
    topic = scene.topic()
    topic.channel("billing")
    topic.put(b"1")
    assert [0, 0] == [scene.broker.close(), scene.broker.close()]
    scene.keeper.close()
    for call in (
        lambda: scene.broker.topic("other"),
        lambda: topic.put(b"2"),
        lambda: topic.channel("new"),
        lambda: scene.keeper.topic("other", scene.broker, lambda made: made),
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
            scene.keeper.close()
            assert scene.keeper.over
        scene.keeper.close()
        assert not scene.keeper._clerk._thread.is_alive()
    with Scene(path) as scene:
        assert [["orders", "orders:billing"], []] == [scene.names(), scene.rows()]


def test_close_tells_what_could_not_be_written(path: Path) -> None:
    """What cannot be written at the end is raised by `close`, once; the file is free again."""
    scene = Scene(path)
    consumer = scene.consumer()
    scene.topic().put(b"1")
    consumer.get(timeout=0).fin()
    with scene.spy.failing(), pytest.raises(StoreFull):
        scene.broker.close()
    scene.broker.close()
    with Scene(path) as again:
        assert [b"1"] == [body for body, _ in everything(again.channel())]


def test_a_put_that_waits_when_the_broker_is_closed(path: Path) -> None:
    """What was reserved when the broker is closed is still written, and its put returns."""
    scene = Scene(path)
    topic = scene.topic()
    topic.channel("billing")
    with scene.spy.held() as held:
        first = Call(lambda: topic.put(b"1"))
        held.until_begun()
        second = Call(lambda: topic.put_many([b"2"]))
        until(lambda: len(scene.keeper.queue) == 1)
        closing = Call(scene.broker.close)
        until(lambda: topic.closed)
    results = [first.result(), second.result(), closing.result()]
    assert [str, list, int] == [type(result) for result in results]
    with Scene(path) as again:
        assert [(b"1", 1), (b"2", 1)] == everything(again.channel())


def test_a_broker_that_is_forgotten_writes_everything(path: Path) -> None:
    """A broker that was never closed warns when it goes, and all is written; the file is free."""
    broker = Broker(store=SpiedStore(path, sync_timeout=0.01))
    consumer = Consumer(broker.topic("orders").channel("billing"))
    broker.topic("orders").put_many([b"1", b"2"])
    consumer.get(timeout=0).fin()
    keeper: Any = broker._persistence
    mine: list[Any] = [broker, consumer]
    del broker, consumer

    def forget() -> bool:
        mine.clear()
        gc.collect()
        return bool(keeper.over)

    with pytest.warns(ResourceWarning, match=r"the broker of .*jobs.db was forgotten, not closed"):
        until(forget)
    keeper._clerk.wait()
    with Scene(path) as scene:
        assert [(b"2", 1)] == everything(scene.channel())
    keeper.forsake()  # which does nothing any more


def test_a_closed_broker_is_forgotten_silently(path: Path) -> None:
    """Who has closed a broker hears nothing when it goes."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scene = Scene(path)
        scene.broker.close()
        del scene
        gc.collect()


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
        shelf: Any = channel._queue.persistence

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
                shelf.fetch,
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
    """In a child the keeper lets go of the store, and refuses what needs it; closed, it is so."""
    store = MemoryStore()
    broker = Broker(store=store)
    topic = broker.topic("orders")
    keeper: Any = broker._persistence
    keeper._abandon()
    for call in (lambda: topic.put(b"1"), topic.pause, lambda: broker.topic("other")):
        with pytest.raises(StoreInUse):
            call()
    keeper._abandon()
    keeper._clerk.stop()  # here it lives on, unlike in a child
    with suppress(StoreError):
        broker.close()
    closed = Broker(store=store)
    other: Any = closed._persistence
    closed.close()
    other._abandon()
    other.require_owner()
    with pytest.raises(Closed):
        closed.topic("orders")


# Errands


def test_an_errand_that_fails_is_told(path: Path) -> None:
    """Who sends the store's thread hears what came of it; who has gone hears nothing."""
    with Scene(path) as scene:
        shelf: Any = scene.channel()._queue.persistence
        heard: list[BaseException | None] = []
        done = threading.Event()

        def tell(problem: BaseException | None) -> None:
            heard.append(problem)
            if len(heard) == 3:
                done.set()
            raise RuntimeError  # as a closed loop does

        problem = ValueError("no")
        shelf.send(lambda: None, tell)
        shelf.send(throw(problem), tell)
        shelf.send(lambda: None, tell)
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
    """It is no failure that it cannot be read any more."""
    with Scene(path) as scene:
        scene.channel()
        scene.topic().put_many([b"1", b"2"])
    with Scene(path, mem_queue_size=1) as scene:
        topic = scene.topic()
        shelf: Any = scene.channel()._queue.persistence
        until(lambda: not shelf.wanted)
        shelf.flow.ready.clear()

        def delete() -> None:
            topic.delete()
            raise StoreError("jobs.db", "it has no such topic")

        scene.spy.once(delete, ("read",))
        shelf.fetch()
        assert "OK" == scene.broker.health


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

        with Worker(channel, refuse, max_attempts=1, dead_letter=dead) as worker:
            worker.join()
        scene.reopen()
        letters = scene.channel("letters", "dead")
        found = [info.body for info in letters.peek()]
        assert [b"1", b"2"] == [letter.body for letter in found]
        assert all(isinstance(letter, DeadLetter) for letter in found)
        assert "LookupError('1')" == str(found[0].error)
        assert ("orders", "billing") == (found[0].topic, found[0].channel)
        assert 2 == nsqlite.redrive(letters, scene.broker)
        assert [b"1", b"2"] == [info.body for info in scene.channel().peek()]
        scene.broker.flush()
        assert [b"1", b"2"] == [body for body, _ in scene.disk()]
        assert [] == scene.disk("letters", "dead")


def test_workers_in_a_loop_with_dead_letters(path: Path) -> None:
    """Tasks that work on a kept channel finish, give up and keep what they gave up."""
    with Scene(path) as scene:
        app = App(scene.broker)
        done: list[bytes] = []
        settled = threading.Event()

        @app.handler("orders", "billing", concurrency=3, max_attempts=1, dead_letter="dead")
        async def work(message: Any) -> None:
            if message.body == b"bad":
                raise LookupError
            done.append(message.body)

        scene.topic("dead").channel("letters")
        scene.topic().put_many([b"1", b"bad", b"2", b"3"])

        async def serve() -> None:
            async with app:
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
        assert scene.keeper.upkeep()
        until(lambda: not scene.keeper.upkeep())
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


def test_an_errand_for_a_store_that_is_closed(path: Path) -> None:
    """Whoever asks for something afterwards hears that it will not be done."""
    heard: list[object] = []
    with Scene(path) as scene:
        keeper = scene.keeper
    keeper.send(lambda: heard.append("done"), heard.append)
    assert [Closed] == [type(problem) for problem in heard]


def test_a_topic_that_another_thread_has_just_made(path: Path) -> None:
    """Who comes second gets the first one's."""
    with Scene(path) as scene:
        topic = scene.topic()
        assert topic is scene.keeper.topic("orders", scene.broker, scene.broker._add)
