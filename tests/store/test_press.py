"""The press: who holds its lock writes for all; what may be late is written together."""

import asyncio
import os
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import Call, bodies

from nsqlite import (
    Broker,
    Closed,
    Consumer,
    Reentered,
    State,
    StoreFull,
)
from nsqlite.store import press
from store.stores import Scene, throw, until

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")


# Commits are shared


@pytest.mark.parametrize("sync", ["normal", "full"])
def test_puts_that_come_together_share_a_commit(path: Path, sync: Any) -> None:
    """While one writes, others reserve; then one write takes them all, of all topics."""
    with Scene(path, sync=sync) as scene:
        scene.channel()
        scene.channel("billing", "other")
        before = len(scene.spy.calls)
        with scene.spy.held() as held:
            first = Call(lambda: scene.topic().put(b"0"))
            held.until_begun()
            calls = [Call(lambda: scene.topic().put(b"1")) for _ in range(4)]
            calls += [Call(lambda: scene.topic("other").put(b"2")) for _ in range(4)]
            until(lambda: len(scene.keeper.queue) == 8)
        ids = {call.result() for call in [first, *calls]}
        assert 9 == len(ids) == len(scene.rows())
        assert ["write_row", "write"] == scene.spy.names()[before:]
        assert [5, 4] == [scene.channel().depth, scene.channel("billing", "other").depth]
        assert 0 == len(scene.keeper.queue)


def test_a_group_of_which_one_is_too_much(path: Path) -> None:
    """Of a group whose first member the disk refuses, the others are stored."""
    with Scene(path) as scene:
        channel = scene.channel()
        failures = ["together", "the first"]

        def fail(name: str) -> None:
            if name in ("write", "write_rows") and failures:
                raise StoreFull("jobs.db", failures.pop(0))

        with scene.spy.held() as held:
            first = Call(lambda: scene.topic().put(b"0"))
            held.until_begun()
            calls = []
            for number in range(3):
                calls.append(Call(partial(scene.topic().put_many, [b"%d" % number])))
                until(lambda: len(scene.keeper.queue) == len(calls))
            scene.spy.before = fail
        first.result()
        results = [call.result() for call in calls]
        assert "store jobs.db: the first" == str(results[0])
        assert isinstance(results[0], StoreFull)
        assert [b"0", b"1", b"2"] == bodies(channel) == scene.rows()
        assert [] == failures
        assert "OK" == scene.broker.health


def test_a_group_that_writes_an_account_fails_as_one(path: Path) -> None:
    """Where the write has to take more along than puts, its failure is that of all its puts."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        scene.topic().put(b"0")
        message = consumer.get(timeout=0)
        dead = scene.topic("dead")
        with scene.spy.held() as held:
            first = Call(lambda: scene.topic().put(b"1"))
            held.until_begun()
            calls = [
                Call(lambda: consumer.move(message, dead)),
                Call(lambda: scene.topic().put_many([b"2"])),
            ]
            until(lambda: len(scene.keeper.queue) == 2)
            failing = scene.spy.failing(names=("write",))
            first_before = scene.spy.before
            scene.spy.before = lambda name: (
                throw(StoreFull("jobs.db", "full"))() if name == "write" else first_before(name)
            )
            held.let_go()
            first.result()
            assert [True, True] == [isinstance(call.result(), StoreFull) for call in calls]
            scene.spy.before = lambda _: None
            del failing
        assert [1, 1, 0] == [scene.channel().depth, scene.channel().in_flight_count, dead.depth]
        scene.broker.flush()
        assert [(b"0", 2), (b"1", 1)] == scene.disk()


def test_a_full_sync_waits_for_those_who_shared(path: Path) -> None:
    """After a shared commit to the disk a put waits a moment for the others, then writes alone."""
    with Scene(path, sync="full") as scene:
        scene.channel()
        with scene.spy.held() as held:
            first = Call(lambda: scene.topic().put(b"0"))
            held.until_begun()
            calls = [Call(lambda: scene.topic().put(b"1")) for _ in range(3)]
            until(lambda: len(scene.keeper.queue) == 3)
        for call in [first, *calls]:
            call.result()
        assert scene.keeper.crowded
        for _ in "12":
            scene.topic().put(b"2")
        assert not scene.keeper.crowded
        assert 6 == len(scene.rows()) == scene.channel().depth


def test_many_threads(path: Path) -> None:
    """However threads put, all is there, once, each thread's in its order."""
    with Scene(path) as scene:
        channel = scene.channel()

        def work(name: bytes) -> None:
            for number in range(50):
                if number % 7:
                    scene.topic().put(name + b" %03d" % number)
                else:
                    scene.topic().put_many([name + b" %03d" % number])

        calls = [Call(partial(work, name)) for name in (b"a", b"b", b"c", b"d")]
        for call in calls:
            assert call.result() is None
        found = bodies(channel)
        assert 200 == len(set(found)) == len(found)
        for name in (b"a", b"b", b"c", b"d"):
            mine = [body for body in found if body.startswith(name)]
            assert mine == sorted(mine)
        assert len(scene.spy.calls) <= 203 + 5


# What may be late


def test_flush_writes_all_topics_in_one(path: Path) -> None:
    """What happened in several topics is one transaction; where nothing happened none is."""
    with Scene(path) as scene:
        consumers = [scene.consumer("billing", name) for name in ("a", "b")]
        for name in ("a", "b"):
            scene.topic(name).put(b"1")
        scene.broker.flush()
        before = len(scene.spy.calls)
        for consumer in consumers:
            consumer.get(timeout=0).fin()
        scene.broker.flush()
        scene.broker.flush()
        assert ["write"] == scene.spy.names()[before:]
        assert [] == scene.rows()


def test_a_flush_inside_a_call_is_refused(path: Path) -> None:
    """A signal handler cannot flush in the middle of a call; nothing is written or forgotten."""
    with Scene(path) as scene:
        consumers = [scene.consumer("billing", name) for name in ("a", "b")]
        for name in ("a", "b"):
            scene.topic(name).put(b"1")
        for consumer in consumers:
            consumer.get(timeout=0).fin()
        with scene.topic("a")._monitor.lock, pytest.raises(Reentered):
            scene.broker.flush()
        assert [b"1", b"1"] == scene.rows()
        scene.broker.flush()
        assert [] == scene.rows()


def test_an_interrupted_flush_is_made_again(path: Path) -> None:
    """What a signal threw out of a flush is written by the next one."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        scene.topic().put(b"1")
        consumer.get(timeout=0).fin()
        for late in (False, True):
            scene.spy.once(throw(KeyboardInterrupt()), late=late)
            with pytest.raises(KeyboardInterrupt):
                scene.broker.flush()
        scene.broker.flush()
        assert [] == scene.rows()


def test_what_is_late_is_written_in_time(path: Path) -> None:
    """Without any call the store's thread writes what happened, `sync_timeout` later."""
    with Scene(path, sync_timeout=0.01) as scene:
        consumer = scene.consumer()
        scene.topic().put(b"1")
        consumer.get(timeout=0).fin()
        until(lambda: scene.rows() == [])


def test_health(path: Path) -> None:
    """It is OK, or says why the store could not be written last."""
    with Scene(path, attempts="durable") as scene:
        consumer = scene.consumer()
        scene.topic().put(b"1")
        assert "OK" == scene.broker.health == scene.broker.stats().health
        with scene.spy.failing(), pytest.raises(StoreFull):
            consumer.get(timeout=0)
        assert "NOK - store jobs.db: the disk is full" == scene.broker.stats().health
        scene.topic().put(b"2")
        assert "OK" == scene.broker.health
    assert "OK" == Broker().health
    Broker().flush()


# In an event loop


def test_a_loop_does_not_wait_for_what_steers(path: Path) -> None:
    """In a loop channels are made, paused and moved to without the loop writing the file."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        dead = scene.topic("dead")
        scene.topic().put_many([b"1", b"2"])

        async def steer() -> None:
            scene.channel("late")
            scene.topic("new")
            scene.channel().pause()
            scene.channel().unpause()
            scene.topic().pause()
            scene.topic().unpause()
            consumer.move(consumer.get(timeout=0), dead)

        asyncio.run(steer())
        scene.broker.flush()
        until(lambda: dead.depth == 1)
        assert ["dead", "new", "orders", "orders:billing", "orders:late"] == scene.names()
        assert [(b"2", 1)] == scene.disk()
        assert [(b"1", 1)] == scene.disk("letters", "dead")


def test_a_loop_never_writes(path: Path) -> None:
    """The thread of a loop writes nothing, whatever is called in it."""
    with Scene(path) as scene:
        scene.consumer()
        scene.topic().put(b"1")
        written = threading.Event()

        async def steer() -> None:
            calls = len(scene.spy.calls)
            scene.spy.once(written.set, ("write",), late=True)
            scene.channel("late")
            scene.channel().pause()
            scene.topic("new")
            await asyncio.get_running_loop().run_in_executor(None, written.wait, 20)
            assert threading.get_ident() not in {thread for _, thread in scene.spy.calls[calls:]}

        asyncio.run(steer())
        assert written.is_set()


@pytest.mark.parametrize("attempts", ["late", "durable"])
def test_a_move_in_a_loop_that_fails_is_logged(
    path: Path, caplog: pytest.LogCaptureFixture, attempts: Any
) -> None:
    """A move that nobody waits for, and that cannot be written, puts the message back in flight."""
    with Scene(path, attempts=attempts) as scene:
        consumer = scene.consumer()
        dead = scene.topic("dead")
        scene.topic().put(b"1")
        message = consumer.get(timeout=0)

        async def move() -> None:
            consumer.move(message, dead)

        with scene.spy.failing():
            asyncio.run(move())
            until(lambda: caplog.records)
        until(lambda: scene.channel().in_flight_count == 1)
        scene.broker.flush()
        assert [(b"1", 2)] == scene.disk()
        assert any(
            "a move to topic 'dead' has failed, of which nobody was told:" in text
            for text in (record.getMessage() for record in caplog.records)
        )
        message.fin()
        assert [0, 0] == [dead.depth, scene.channel().depth]
        scene.topic()._check()


# Who is told, who is passed on to


def test_a_thread_that_writes_tells_the_tasks(path: Path) -> None:
    """A put of a thread that writes those of tasks along tells them too."""
    with Scene(path) as scene:
        scene.channel()
        told = threading.Event()
        letter, size, conclude = scene.topic()._draft([b"1"], told.set)
        with scene.busy():
            scene.topic()._send(letter, size, None, 0)
            scene.topic().put_many([b"2"])
            assert told.is_set()
        assert conclude() == scene.ids()[:1]
        assert [b"1", b"2"] == bodies(scene.channel())


@pytest.mark.parametrize("count", [1, 2])
def test_puts_to_a_topic_that_is_gone_are_not_written(path: Path, count: int) -> None:
    """What waits for the store when its topic is deleted is refused, alone and with others."""
    with Scene(path) as scene:
        topic: Any = scene.topic()
        topic.channel("billing")
        scene.broker.flush()
        with scene.busy():
            with scene.keeper.lock:
                calls = [Call(lambda: topic.put_many([b"1"])) for _ in range(count)]
                until(lambda: len(scene.keeper.queue) == count)
                topic._monitor.run(topic._delete)
                before = len(scene.spy.calls)
                scene.keeper._commit()
            assert ["write"] == [call for call, _ in scene.spy.calls[before:]]  # the account alone
        assert [Closed] * count == [type(call.result()) for call in calls]
        scene.broker.flush()
        assert [[], []] == [scene.names(), list(scene.keeper.queue)]


def test_a_put_waits_for_its_topic(path: Path) -> None:
    """A put to a topic that is not in the file yet is not written before it."""
    with Scene(path) as scene:
        with scene.spy.failing(), pytest.raises(StoreFull):
            scene.topic()
        topic = scene.topic()

        def put() -> Call:
            call = Call(lambda: topic.put_many([b"1"]))
            until(lambda: len(scene.keeper.queue) == 1)
            assert [] == scene.names()
            return call

        call = scene.keeper.alone(put)
        assert 1 == len(call.result())
        assert [["orders"], [b"1"]] == [scene.names(), scene.rows()]


def test_who_counts_a_delivery_passes_the_store_on(path: Path) -> None:
    """A put that waits while a delivery is counted is written right after it."""
    with Scene(path, attempts="durable") as scene:
        consumer = scene.consumer()
        scene.topic().put(b"1")
        with scene.busy():
            with scene.spy.held() as held:
                getting = Call(lambda: consumer.get(timeout=0).body)
                held.until_begun()
                putting = Call(lambda: scene.topic().put_many([b"2"]))
                until(lambda: len(scene.keeper.queue) == 1)
            assert b"1" == getting.result()
            assert 1 == len(putting.result())


def test_a_refused_move_of_what_nobody_keeps(path: Path) -> None:
    """A message of an ephemeral channel is in flight again when its move to a file fails."""
    with Scene(path) as scene:
        passing = scene.topic().channel("passing#ephemeral")
        consumer = Consumer(passing)
        scene.topic("dead")
        scene.topic().put(b"1")
        message = consumer.get(timeout=0)
        with scene.spy.failing(), pytest.raises(StoreFull):
            consumer.move(message, scene.topic("dead"))
        assert State.IN_FLIGHT is message.state
        message.fin()


def test_a_move_that_comes_between_the_accounts_and_the_letters(path: Path) -> None:
    """It is not written without what tells that the message has left; so it is in one place."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        dead = scene.topic("dead")
        scene.channel("letters", topic="dead")
        scene.topic().put_many([b"1", b"2"])
        scene.broker.flush()
        message = consumer.get(timeout=0)
        keeper: Any = scene.keeper
        look = keeper._unsettled
        calls: list[Call] = []

        def move_first() -> Any:
            if not (calls or keeper._dirty):  # the accounts are taken
                calls.append(Call(lambda: consumer.move(message, dead)))
                until(lambda: keeper.queue)
            return look()

        keeper._unsettled = move_first
        with scene.busy():
            keeper.flush()
            assert calls
            with scene.as_on_disk() as crashed:
                here = [body for body, _ in crashed.disk()]
                there = [body for body, _ in crashed.disk("letters", "dead")]
        assert [b"1", b"2"] == sorted(here + there)
        keeper._unsettled = look
        assert isinstance(calls[0].result(), str)
        scene.broker.flush()
        assert [(b"2", 1)] == scene.disk()
        assert [(b"1", 1)] == scene.disk("letters", "dead")


def test_a_move_to_a_topic_that_is_not_written_yet(path: Path) -> None:
    """It is written with that topic, although nobody has told the store of it before."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        scene.topic().put(b"1")
        message = consumer.get(timeout=0)
        dead: Any = scene.topic("dead")
        scene.keeper._dirty.pop(dead, None)
        dead.cabinet.written = False
        consumer.move(message, dead)
        assert "dead" in scene.names()
        with scene.as_on_disk() as crashed:
            crashed.channel("letters", topic="dead")
            assert [(b"1", 1)] == crashed.disk("letters", "dead")


def test_a_put_that_comes_between_the_accounts_and_the_letters(path: Path) -> None:
    """It is written with its topic, which was not in the store yet."""
    with Scene(path) as scene:
        with scene.spy.failing(), pytest.raises(StoreFull):
            scene.topic("new")
        new: Any = scene.topic("new")
        keeper: Any = scene.keeper
        keeper._dirty.pop(new)
        scene.topic().pause()
        look = keeper._unsettled
        calls: list[Call] = []

        def put_first() -> Any:
            if not (calls or keeper._dirty):
                calls.append(Call(lambda: new.put(b"1")))
                until(lambda: keeper.queue)
            return look()

        keeper._unsettled = put_first
        scene.topic().unpause()
        keeper._unsettled = look
        assert isinstance(calls[0].result(), str)
        assert [["new", "orders"], [b"1"]] == [scene.names(), scene.rows()]


def test_a_topic_that_is_deleted_between_the_accounts_and_the_letters(path: Path) -> None:
    """What was put into it is refused alone, although it never was in the store."""
    with Scene(path) as scene:
        with scene.spy.failing(), pytest.raises(StoreFull):
            scene.topic("new")
        new: Any = scene.topic("new")
        other = scene.topic()
        keeper: Any = scene.keeper
        look = keeper._unsettled
        calls: list[Call] = []

        def delete() -> Any:
            if not (calls or keeper._dirty):
                calls.append(Call(lambda: new.put(b"1")))
                calls.append(Call(lambda: other.put_many([b"2"])))
                until(lambda: len(keeper.queue) == 2)
                with new._monitor.lock:
                    new.cabinet.deleted = True
            return look()

        other.pause()
        keeper._unsettled = delete
        other.unpause()
        keeper._unsettled = look
        assert isinstance(calls[0].result(), Closed)
        assert 1 == len(calls[1].result())
        assert [b"2"] == scene.rows()


def test_a_topic_that_is_deleted_when_what_is_moved_there_has_left(path: Path) -> None:
    """The message is gone with it, in memory as in the file: it is not in flight again."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        dead: Any = scene.topic("dead")
        scene.topic().put_many([b"1", b"2"])
        scene.broker.flush()
        message = consumer.get(timeout=0)
        keeper: Any = scene.keeper
        refuse = keeper._refuse_deleted

        def delete(*, left: bool = False) -> None:
            if left:
                with dead._monitor.lock:
                    dead.cabinet.deleted = True
            refuse(left=left)

        keeper._refuse_deleted = delete
        consumer.move(message, dead)
        keeper._refuse_deleted = refuse
        assert [State.FINISHED, 0, 1] == [
            message.state,
            scene.channel().in_flight_count,
            scene.channel().depth,
        ]
        assert [(b"2", 1)] == scene.disk()
        assert [] == list(keeper.queue)


def test_a_topic_that_is_deleted_before_what_was_moved_there_is_written(path: Path) -> None:
    """With `sync="interval"` it was there, and is gone with the topic; it does not come back."""
    with Scene(path, sync="interval") as scene:
        consumer = scene.consumer()
        dead = scene.topic("dead")
        scene.topic().put(b"1")
        scene.broker.flush()
        message = consumer.get(timeout=0)
        consumer.move(message, dead)
        assert 1 == dead.delete()
        scene.broker.flush()
        assert [0, 0, State.FINISHED] == [
            scene.channel().depth,
            scene.channel().in_flight_count,
            message.state,
        ]
        assert [[], []] == [list(scene.keeper.queue), scene.rows()]


@pytest.mark.parametrize("way", ["put", "put_many", "get"])
def test_what_is_much_is_not_waited_for(
    path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long things may be late, the store is kept small after so many bytes."""
    monkeypatch.setattr(press, "MUCH", 1_000_000)
    with Scene(path, attempts="durable") as scene:
        consumer = scene.consumer()
        topic = scene.topic()
        topic.put_many([b"x"] * 500)
        scene.broker.flush()
        seen = len(scene.spy.reads)
        for _ in range(500 if way == "get" else 10):
            if way == "put":
                topic.put(b"x" * 100_000)
            elif way == "put_many":
                topic.put_many([b"x" * 50_000] * 2)
            else:
                consumer.get(timeout=0)
        until(lambda: "tidy" in [name for name, _ in scene.spy.reads[seen:]])
