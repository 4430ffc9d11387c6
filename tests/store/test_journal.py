"""The journal: what happened is written in order; who holds the lock writes for all."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import Call, bodies

import nsqlite
from nsqlite import (
    Broker,
    Closed,
    Consumer,
    Empty,
    Reentered,
    State,
    StoreFull,
    Topic,
    aio,
)
from nsqlite.clock import held_semaphore
from nsqlite.clock import release as wake
from nsqlite.persistence import PendingWrite
from nsqlite.store import (
    GONE,
    Batch,
    Copy,
    Row,
    StoredChannel,
    StoredTopic,
    backlog,
    journal,
)
from nsqlite.store.journal import (
    Change,
    ChannelChanged,
    ChannelGone,
    Emptied,
    Key,
    Note,
    Noted,
    Published,
    Put,
    TopicChanged,
    TopicGone,
    Unheld,
    fold,
)
from store.stores import Scene, everything, full, threads_in, throw, until

KEY: Key = (1, 1)
OTHER: Key = (1, 2)
TOPIC = StoredTopic(number=1, name="orders")
CHANNEL = StoredChannel(number=1, topic=1, name="billing")
MORE = StoredChannel(number=2, topic=1, name="audit")
ELSEWHERE = StoredChannel(number=3, topic=2, name="billing")


def name(identity: int) -> str:
    return f"{identity:016x}"


def row(identity: int) -> Row:
    return identity, identity, None, None, None, b"x"


# A prefix is folded into one batch


def folded(entries: Sequence[Note | Put | Change]) -> Batch:
    """Return what is to be written of entries that stand in the journal."""
    items: list[Any] = []
    for entry in entries:
        items += entry if isinstance(entry, tuple) else (entry, None, None)
    return fold(items)


def test_nothing_is_an_empty_batch() -> None:
    """Of nothing there is nothing to write."""
    assert Batch() == folded([])


def test_of_several_notes_the_last_one_wins() -> None:
    """What became of a message is what became of it last, in each queue for itself."""
    notes: list[Note | Change] = [
        (KEY, name(5), (1, None)),
        (OTHER, name(5), GONE),
        (KEY, name(6), (1, None)),
        (KEY, name(5), (1, 70)),
        ((1, None), name(7), GONE),
        (KEY, name(6), GONE),
    ]
    copies: dict[Key, dict[int, Copy]] = {
        KEY: {5: (1, 70), 6: GONE},
        OTHER: {5: GONE},
        (1, None): {7: GONE},
    }
    assert Batch(copies=copies, highest=7) == folded(notes)


def test_rows_come_in_order() -> None:
    """What was shown is written in the order in which it was, topic by topic."""
    batch = folded([Published(1, [row(3), row(4)]), Published(2, [row(9)]), Published(1, [row(5)])])
    assert Batch(rows={1: [row(3), row(4), row(5)], 2: [row(9)]}, highest=9) == batch


def test_what_all_have_finished_is_left_out() -> None:
    """Of what was put alone or in a batch only that is written which a channel still has."""
    batch = folded(
        [
            (1, name(3), 2, 30, None, b"done"),
            (1, name(4), 2, 40, None, b"not by the other"),
            Published(1, [row(5), row(6)], count=2),
            (2, name(7), 1, 70, "json", b"delivered"),
            (3, name(8), 0, 80, None, b"of no channel that is kept"),
            *((key, name(number), GONE) for key in (KEY, OTHER) for number in (3, 5)),
            (KEY, name(4), GONE),
            (OTHER, name(4), (1, None)),
            ((2, 3), name(7), (1, None)),
        ]
    )
    rows = [(4, 40, None, None, None, b"not by the other"), row(6)]
    assert batch == Batch(
        rows={
            1: rows,
            2: [(7, 70, None, None, "json", b"delivered")],
            3: [(8, 80, None, None, None, b"of no channel that is kept")],
        },
        copies={KEY: {4: GONE}, OTHER: {4: (1, None)}, (2, 3): {7: (1, None)}},
        highest=8,
    )


def test_what_was_put_into_a_topic_that_is_gone() -> None:
    """It is gone, and its id is not given again."""
    batch = folded([(1, name(3), 1, 30, None, b"x"), TopicGone(1)])
    assert Batch(gone_topics={1: None}, highest=3) == batch


def test_a_move_is_one_entry() -> None:
    """It finishes the messages in the one queue and has them in the other."""
    batch = folded([(KEY, name(3), (1, None)), Published(2, [row(8)], [(KEY, name(3), GONE)])])
    assert Batch(rows={2: [row(8)]}, copies={KEY: {3: GONE}}, highest=8) == batch


def test_topic_and_channel_are_as_they_were_last() -> None:
    """Only their last state is written."""
    paused = StoredTopic(number=1, name="orders", paused=True)
    stopped = StoredChannel(number=1, topic=1, name="billing", paused=True)
    batch = folded(
        [
            TopicChanged(TOPIC),
            ChannelChanged(CHANNEL, emptied=False),
            TopicChanged(paused),
            ChannelChanged(stopped, emptied=False),
        ]
    )
    assert Batch(topics={1: paused}, channels={1: stopped}) == batch


def test_a_channel_that_was_emptied() -> None:
    """What it alone had is gone, and there may be messages that nobody holds."""
    batch = folded(
        [(KEY, name(3), (2, None)), ChannelChanged(CHANNEL, True, [(KEY, name(3), GONE)])]
    )
    assert Batch(channels={1: CHANNEL}, copies={KEY: {3: GONE}}, unheld={1}, highest=3) == batch


def test_a_channel_that_is_gone_takes_what_is_noted_of_it() -> None:
    """And nothing else; there may be messages that nobody holds."""
    batch = folded(
        [
            ChannelChanged(CHANNEL, emptied=False),
            ChannelChanged(MORE, emptied=False),
            (KEY, name(3), GONE),
            (OTHER, name(3), GONE),
            ChannelGone(1, 1),
            ChannelGone(1, 7),
        ]
    )
    copies: dict[Key, dict[int, Copy]] = {OTHER: {3: GONE}}
    gone = {1: 1, 7: 1}
    expected = Batch(channels={2: MORE}, gone_channels=gone, copies=copies, unheld={1}, highest=3)
    assert expected == batch


def test_a_topic_that_is_gone_takes_all_of_it() -> None:
    """Rows, channels and notes, not those of another topic."""
    batch = folded(
        [
            TopicChanged(TOPIC),
            ChannelChanged(CHANNEL, emptied=True),
            ChannelChanged(ELSEWHERE, emptied=False),
            Published(1, [row(3)]),
            Published(2, [row(4)]),
            (KEY, name(3), GONE),
            ((2, 3), name(4), GONE),
            TopicGone(1),
            TopicGone(7),
        ]
    )
    assert batch == Batch(
        channels={3: ELSEWHERE},
        rows={2: [row(4)]},
        copies={(2, 3): {4: GONE}},
        gone_topics={1: None, 7: None},
        highest=4,
    )


def test_what_a_topic_held_and_what_nobody_holds() -> None:
    """What was emptied is told in order; that there may be something to forget, once."""
    batch = folded([Emptied(1, 3, 9), Unheld(2), Emptied(1, 9, 12), Unheld(2)])
    assert Batch(emptied=[(1, 3, 9), (1, 9, 12)], unheld={2}) == batch


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
            until(lambda: len(scene.database.journal.queue) == 9)
        ids = {call.result() for call in [first, *calls]}
        assert 9 == len(ids) == len(scene.rows())
        assert ["write_row", "write"] == scene.spy.names()[before:]
        assert [5, 4] == [scene.channel().depth, scene.channel("billing", "other").depth]
        assert 0 == len(scene.database.journal.queue)


def test_a_group_of_which_one_is_too_much(path: Path) -> None:
    """Of a group whose first member the disk refuses, the others are stored."""
    with Scene(path) as scene:
        channel = scene.channel()
        failures = ["together", "the first"]

        def fail(name: str) -> None:
            if name in ("write_rows", "write_row") and failures:
                raise StoreFull("jobs.db", failures.pop(0))

        with scene.spy.held() as held:
            first = Call(lambda: scene.topic().put(b"0"))
            held.until_begun()
            calls = []
            for number in range(3):
                calls.append(Call(partial(scene.topic().put_many, [b"%d" % number])))
                until(lambda: len(scene.database.journal.queue) == len(calls) + 1)
            scene.spy.before = fail
        first.result()
        results = [call.result() for call in calls]
        assert "store jobs.db: the first" == str(results[0])
        assert isinstance(results[0], StoreFull)
        assert [b"0", b"1", b"2"] == bodies(channel) == scene.rows()
        assert [] == failures
        assert "OK" == scene.broker.health


def test_a_full_sync_waits_for_those_who_shared(path: Path) -> None:
    """After a shared commit to the disk a put waits a moment for the others, then writes alone."""
    with Scene(path, sync="full") as scene:
        scene.channel()
        with scene.spy.held() as held:
            first = Call(lambda: scene.topic().put(b"0"))
            held.until_begun()
            calls = [Call(lambda: scene.topic().put(b"1")) for _ in range(3)]
            until(lambda: len(scene.database.journal.queue) == 4)
        for call in [first, *calls]:
            call.result()
        assert scene.database.journal._crowd > 1
        for _ in "12":
            scene.topic().put(b"2")
        assert scene.database.journal._crowd <= 1
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


def test_a_flush_inside_a_call(path: Path) -> None:
    """A signal handler can flush while its thread has a topic, but not while it writes."""
    with Scene(path) as scene:
        consumers = [scene.consumer("billing", name) for name in ("a", "b")]
        for name in ("a", "b"):
            scene.topic(name).put(b"1")
        consumers[0].get(timeout=0).fin()
        with scene.topic("a")._monitor.lock:
            scene.broker.flush()
        assert [b"1"] == scene.rows()
        consumers[1].get(timeout=0).fin()
        refused: list[Reentered] = []

        def flush() -> None:
            with pytest.raises(Reentered) as info:
                scene.broker.flush()
            refused.append(info.value)

        scene.spy.once(flush)
        scene.broker.flush()
        assert [1, []] == [len(refused), scene.rows()]


@pytest.mark.parametrize("late", [False, True])
def test_a_flush_that_is_struck_is_made_again(path: Path, late: bool) -> None:
    """What a signal has struck before or after it was written is written by the next one."""
    with Scene(path, sync="interval") as scene:
        consumer = scene.consumer()
        scene.topic().put_many([b"1", b"2"])
        consumer.get(timeout=0).fin()
        scene.topic()._monitor.run(scene.topic()._pause, True)
        scene.topic()._monitor.run(scene.topic()._pause, False)
        scene.spy.once(throw(KeyboardInterrupt()), late=late)
        with pytest.raises(KeyboardInterrupt):
            scene.broker.flush()
        journal = scene.database.journal
        assert [True, True] == [journal.has_decided(), journal.has_rows()]
        scene.broker.flush()
        assert [[], False, False] == [journal.entries, journal.has_decided(), journal.has_rows()]
        assert [(b"2", 1)] == scene.disk()


def test_a_flush_takes_what_is_there(path: Path) -> None:
    """What happens while it writes stays for the next one, and is expected."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        scene.topic().put_many([b"1", b"2", b"3"])
        consumer.get(timeout=0).fin()
        with scene.spy.held() as held:
            flushing = Call(scene.broker.flush)
            held.until_begun()
            consumer.get(timeout=0).fin()
            assert 4 == scene.database.journal.count_changes()
        assert flushing.result() is None
        assert [(b"2", 1), (b"3", 1)] == scene.disk()
        assert 2 == scene.database.journal.count_changes()
        assert not scene.database._flusher.is_at_rest()
        scene.broker.flush()
        assert [(b"3", 1)] == scene.disk()


def test_a_flush_that_fails_changes_nothing(path: Path) -> None:
    """All is still to be written, in its order, along with what comes; so it is by the next."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        scene.topic().put_many([b"1", b"2", b"3"])
        consumer.get(timeout=0).fin()
        entries = scene.database.journal.entries.copy()
        with scene.spy.failing(), pytest.raises(StoreFull):
            scene.broker.flush()
        assert entries == scene.database.journal.entries
        assert not scene.database._flusher.is_at_rest()
        assert "NOK - store jobs.db: the disk is full" == scene.broker.health
        consumer.get(timeout=0).req()
        scene.broker.flush()
        assert [(b"3", 1), (b"2", 2)] == everything(scene.channel())
        assert "OK" == scene.broker.health


def test_a_flush_that_fails_refuses_what_it_had_taken_along(path: Path) -> None:
    """A put that it would have written raises, and is as if it had never been."""
    with Scene(path) as scene:
        channel = scene.channel()
        with scene.busy(), scene.database.journal.lock:
            call = Call(lambda: scene.topic().put(b"1"))
            until(lambda: scene.database.journal.queue)
            with scene.spy.failing(), pytest.raises(StoreFull):
                scene.database.journal._flush()
        assert isinstance(call.result(), StoreFull)
        assert [0, [], []] == [channel.depth, scene.rows(), scene.database.journal.queue]


def test_what_was_decided_goes_before_the_next_put(path: Path) -> None:
    """Also after a write of it has failed: what is put is not in the file without it."""
    with Scene(path) as scene:
        topic = scene.topic()
        with scene.spy.failing():
            with pytest.raises(StoreFull):
                scene.channel()
            with pytest.raises(StoreFull):
                topic.put(b"0")
        calls = len(scene.spy.calls)
        topic.put(b"1")
        assert ["write"] == scene.spy.names()[calls:]
        assert [(b"1", 1)] == scene.disk()
        topic.put(b"2")
        assert ["write", "write_row"] == scene.spy.names()[calls:]


def test_many_entries_go_with_the_next_put(path: Path) -> None:
    """So many do not wait for the store's thread: whoever writes next writes them too."""
    with Scene(path, sync_every=4) as scene:
        consumer = scene.consumer()
        scene.topic().put_many([b"1"] * 5)
        consumer.get_many(3, timeout=0)
        assert 3 == scene.database.journal.count_changes()
        scene.topic().put(b"2")
        assert 3 == scene.database.journal.count_changes()
        consumer.get(timeout=0)
        scene.topic().put(b"3")
        assert [] == scene.database.journal.entries


def test_who_is_too_far_ahead_writes(path: Path) -> None:
    """With `sync="interval"` no more is shown and not written than twice `sync_every`."""
    with Scene(path, sync="interval", sync_every=6) as scene:
        scene.channel()
        with scene.busy():
            for number in range(6):
                scene.topic().put(b"%d" % number)
            assert 12 == scene.database.journal.count_changes()
            assert [] == scene.rows()
            scene.topic().put(b"6")
            assert 2 == scene.database.journal.count_changes()
        until(lambda: len(scene.rows()) == 7)  # the store's thread was woken long before


def test_what_is_being_written_is_not_in_the_file_yet(path: Path) -> None:
    """Who reads a page, or wants to know that a decision is written, waits until it is."""
    with Scene(path, sync="interval", mem_queue_size=1) as scene:
        consumer = scene.consumer()
        scene.topic().put_many([b"1"])
        scene.topic().put_many([b"2", b"3"])
        with scene.busy():
            assert b"1" == consumer.get(timeout=0).body
            scene.topic()._monitor.run(scene.topic()._pause, True)
            scene.topic()._monitor.run(scene.topic()._pause, False)
            with scene.spy.held(("write",)) as held:
                flushing = Call(scene.broker.flush)
                held.until_begun()
                getting = Call(lambda: consumer.get(timeout=0).body)
                confirming = Call(lambda: scene.database.journal.confirm(may_block=True))
                until(lambda: threads_in("flush", "journal.py") == 3)
            assert [None, None] == [flushing.result(), confirming.result()]
            assert b"2" == getting.result()
        assert b"3" == consumer.get(timeout=0).body


def test_what_is_noted_while_a_flush_ends_is_known(path: Path) -> None:
    """That messages are shown and not written is not forgotten with what has just been written."""
    with Scene(path, sync="interval") as scene:
        scene.channel()
        scene.topic().put(b"1")
        journal = scene.database.journal
        scene.spy.once(lambda: Call(lambda: scene.topic().put(b"2")).result(), ("write",))
        scene.broker.flush()
        assert journal.has_rows()
        scene.broker.flush()
        assert not journal.has_rows()


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


# Who is told, who is passed on to


def test_a_thread_that_writes_tells_the_tasks(path: Path) -> None:
    """A put of a thread that writes those of tasks along tells them too."""
    with Scene(path) as scene:
        channel = scene.channel()
        told: list[BaseException | None] = []
        with scene.busy():
            scene.topic().publish([b"1"], told.append)
            assert [[], 0] == [told, channel.depth]
            scene.topic().put_many([b"2"])
            assert [None] == told
        assert [b"1", b"2"] == bodies(channel)


def test_a_task_whose_loop_is_closed_hears_nothing(path: Path) -> None:
    """What it had put is there all the same."""
    with Scene(path) as scene:
        channel = scene.channel()
        tasks: list[asyncio.Task[str]] = []

        async def leave() -> None:
            tasks.append(asyncio.create_task(aio.put(scene.topic(), b"1")))
            await asyncio.sleep(0)

        with scene.busy():
            asyncio.run(leave())
            assert 1 == len(scene.database.journal.queue)
            scene.broker.flush()
        assert [True, [b"1"]] == [tasks[0].cancelled(), bodies(channel)]


def test_it_is_passed_on_to_the_stores_thread(path: Path) -> None:
    """If the first who waits is no thread, that of the store writes."""
    with Scene(path) as scene:
        channel = scene.channel()
        told: list[BaseException | None] = []
        scene.topic().pause()
        with scene.busy(), scene.spy.held() as held:
            flushing = Call(scene.topic().unpause)
            held.until_begun()
            scene.topic().publish([b"1"], told.append)
        assert flushing.result() is None
        until(lambda: told)
        assert [[None], [b"1"]] == [told, bodies(channel)]


def test_who_writes_passes_on(path: Path) -> None:
    """A put that waits while something else is written is written right after it."""
    with Scene(path, attempts="durable") as scene:
        consumer = scene.consumer()
        scene.topic().put(b"1")
        with scene.busy():
            for name in ("count", "flush"):
                with scene.spy.held() as held:
                    work = (
                        (lambda: consumer.get(timeout=0)) if name == "count" else scene.broker.flush
                    )
                    other = Call(work)
                    held.until_begun()
                    putting = Call(lambda: scene.topic().put_many([b"2"]))
                    until(lambda: threads_in("write", "journal.py") == 1)
                other.result()
                assert 1 == len(putting.result())


@pytest.mark.parametrize("late", [False, True])
def test_who_is_struck_passes_on(path: Path, late: bool) -> None:
    """A signal that ends a flush, or a put, leaves nobody asleep, and loses nothing."""
    with Scene(path) as scene:
        channel = scene.channel()
        consumer = scene.consumer()
        scene.topic().put(b"0")
        for work in (scene.broker.flush, lambda: scene.topic().put(b"1")):
            consumer.get(timeout=0).req()
            with scene.busy(), scene.spy.held() as held:
                struck = Call(work)
                held.until_begun()
                calls = [Call(lambda: scene.topic().put_many([b"2"])) for _ in range(2)]
                until(lambda: threads_in("write", "journal.py") >= 2)
                until(lambda: len(scene.database.journal.queue) >= 2)
                before = scene.spy.before
                if late:
                    scene.spy.once(throw(KeyboardInterrupt()), late=True)
                else:
                    held.strike = KeyboardInterrupt()
                assert before is not None
            assert isinstance(struck.result(), KeyboardInterrupt)
            for call in calls:
                assert 1 == len(call.result())
        until(lambda: not scene.database.journal.queue)
        until(lambda: channel.depth == 6)
        assert [b"0", b"1", *[b"2"] * 4] == sorted(bodies(channel))


@pytest.mark.parametrize("way", ["put", "publish"])
def test_who_is_struck_while_it_wakes_the_others(
    path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those whose messages it has written wake up all the same, and are told once."""
    with Scene(path) as scene:
        channel = scene.channel()
        told: list[BaseException | None] = []
        with scene.busy():
            with scene.database.journal.lock:
                calls = [Call(lambda: scene.topic().put(b"1")) for _ in range(3)]
                if way == "publish":
                    Call(lambda: scene.topic().publish([b"2"], told.append)).result()
                until(lambda: threads_in("write", "journal.py") == 3)
                strikes = [KeyboardInterrupt(), None, None, KeyboardInterrupt()]

                def release(semaphore: Any) -> None:
                    strike = strikes.pop(0) if strikes else None
                    if strike is not None:
                        raise strike
                    wake(semaphore)

                monkeypatch.setattr(journal, "release", release)
                with pytest.raises(KeyboardInterrupt):
                    scene.database.journal._commit()
            scene.database.journal.tell()
        assert [str] * 3 == [type(call.result()) for call in calls]
        assert len(told) == (way == "publish")
        assert 3 + len(told) == channel.depth


def test_a_refusal_that_a_signal_has_struck_is_forgotten(path: Path) -> None:
    """A put that failed, but was not told so, is written by the next who writes."""
    with Scene(path) as scene:
        channel = scene.channel()
        problems: list[BaseException] = [full(), full(), KeyboardInterrupt()]

        def fail(_: str) -> None:
            if problems:
                raise problems.pop(0)

        with scene.busy():
            with scene.database.journal.lock:
                calls = [Call(lambda: scene.topic().put(b"1")) for _ in range(2)]
                until(lambda: len(scene.database.journal.queue) == 2)
                scene.spy.before = fail
                with pytest.raises(KeyboardInterrupt):
                    scene.database.journal._commit()
            scene.database.journal.commit()
        assert [str, str] == [type(call.result()) for call in calls]
        assert [2, 2] == [channel.depth, len(scene.rows())]


def test_a_put_that_its_caller_leaves_is_brought_to_its_end(path: Path) -> None:
    """A signal while it waits for the file does not take it back; the store's thread shows it."""
    with Scene(path) as scene:
        channel = scene.channel()
        scene.spy.once(throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            scene.topic().put(b"1")
        until(lambda: channel.depth == 1)
        assert [b"1"] == scene.rows()


def test_a_put_that_was_left_is_shown_by_who_settles_it(path: Path) -> None:
    """Whoever looks before that leaves it; two who look after it show it once."""
    with Scene(path) as scene:
        channel, topic, journal = scene.channel(), scene.topic(), scene.database.journal
        store = topic._store
        assert store is not None
        with scene.busy():
            pending = topic._draft(store, [b"1"])
            topic._send(pending, pending.size, None, None)
            store.adopt(pending)
            journal.tell()
            assert [0, [(pending, False)]] == [channel.depth, journal._adopted]
            show = store.show

            def show_as_another_does() -> None:
                show()
                journal._adopted.clear()

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(type(store), "show", lambda _: show_as_another_does())
                journal.commit()
            assert [1, []] == [channel.depth, journal._adopted]


def test_nobody_waits_for_a_put_that_is_written_already(path: Path) -> None:
    """To pass on to nobody does nothing."""
    with Scene(path) as scene:
        scene.database.journal._pass_on()
        scene.database.journal._leave()
        scene.database.journal.commit()


@pytest.mark.parametrize("count", [1, 2])
def test_puts_to_a_topic_that_is_gone_are_not_written(path: Path, count: int) -> None:
    """What waits for the store when its topic is deleted is refused, alone and with others."""
    with Scene(path) as scene:
        topic: Any = scene.topic()
        topic.channel("billing")
        scene.broker.flush()
        with scene.busy():
            with scene.database.journal.lock:
                calls = [Call(lambda: topic.put_many([b"1"])) for _ in range(count)]
                until(lambda: len(scene.database.journal.queue) == count)
                topic._monitor.run(topic._delete)
                before = len(scene.spy.calls)
                scene.database.journal._commit()
            assert ["write"] == [call for call, _ in scene.spy.calls[before:]]  # the account alone
        assert [Closed] * count == [type(call.result()) for call in calls]
        scene.broker.flush()
        assert [[], []] == [scene.names(), list(scene.database.journal.queue)]


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
        assert [[], []] == [list(scene.database.journal.queue), scene.rows()]


@pytest.mark.parametrize("way", ["put", "put_many", "get"])
def test_what_is_much_is_not_waited_for(
    path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long things may be late, the store is kept small after so many bytes."""
    monkeypatch.setattr(journal, "MUCH", 1_000_000)
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


# A signal where something is noted


ACTIONS: dict[str, Callable[["Struck"], object]] = {
    "put": lambda scene: scene.topic().put(b"4"),
    "fin": lambda scene: scene.taken.fin(),
    "req": lambda scene: scene.taken.req(),
    "get": lambda scene: scene.consumer().get(timeout=0),
    "move": lambda scene: scene.taken._consumer.move(scene.taken, scene.topic("dead")),
    "pause a topic": lambda scene: scene.topic().pause(),
    "unpause a topic": lambda scene: scene.topic("paused").unpause(),
    "empty a topic": lambda scene: scene.topic("paused").empty(),
    "delete a topic": lambda scene: scene.topic().delete(),
    "make a channel": lambda scene: scene.channel("new"),
    "make the first channel": lambda scene: scene.channel("new", "alone"),
    "pause a channel": lambda scene: scene.channel().pause(),
    "empty a channel": lambda scene: scene.channel().empty(),
    "delete a channel": lambda scene: scene.channel().delete(),
    "delete the only channel": lambda scene: scene.channel("letters", "dead").delete(),
}
"""What is noted, and for a test struck."""


class Struck(Scene):
    """A scene with a message that was taken.

    Attributes:
        taken: the message.
    """

    taken: nsqlite.Message[Any]

    def fill(self) -> None:
        """Have some of everything."""
        for name in ("billing", "audit"):
            self.channel(name)
        self.topic().put_many([b"1", b"2", b"3"])
        self.channel("letters", "dead")
        self.topic("alone").put(b"5")
        self.channel("billing", "paused")
        self.topic("paused").pause()
        self.topic("paused").put(b"6")
        self.taken = self.consumer().get(timeout=0)
        self.broker.flush()


def state_of(scene: Scene) -> dict[str, Any]:
    """Return what there is: topics, channels, whether they are paused, what they hold."""
    found: dict[str, Any] = {}
    for name, topic in scene.broker.topics.items():
        found[name] = topic.paused, topic.depth
        for one, channel in topic.channels.items():
            count = channel.depth + channel.in_flight_count
            found[f"{name}:{one}"] = channel.paused, count
    return found


class Strikes:
    """What strikes one of the calls that note something.

    Attributes:
        left: calls until it strikes.
        late: whether it does so when the call is done.
    """

    def __init__(self, left: int, *, late: bool) -> None:
        self.left = left
        self.late = late

    def around(self, real: Callable[..., object]) -> Callable[..., None]:
        """Return a call with the strike."""

        def struck(*arguments: object) -> None:
            self.left -= 1
            strikes = self.left == 0
            if strikes and not self.late:
                raise KeyboardInterrupt
            real(*arguments)
            if strikes:
                raise KeyboardInterrupt

        return struck


@pytest.mark.parametrize("sync", ["normal", "interval"])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("action", ACTIONS)
def test_what_a_signal_strikes_is_in_the_file_as_in_memory(
    path: Path, action: str, sync: Any, late: bool
) -> None:
    """Wherever it strikes what is noted, the file then has what memory has; names are free."""
    for left in range(1, 5):
        with Struck(path.with_name(f"{left}.db"), sync=sync) as scene:
            scene.fill()
            strikes = Strikes(left, late=late)
            with pytest.MonkeyPatch.context() as patch:
                for method in ("append", "note_all", "decide"):
                    real = getattr(scene.database.journal, method)
                    patch.setattr(scene.database.journal, method, strikes.around(real))
                queue = scene.channel()._queue
                for method in ("on_delivered", "on_finished"):
                    patch.setattr(queue, method, strikes.around(getattr(queue, method)))
                with suppress(KeyboardInterrupt):
                    ACTIONS[action](scene)
            until(lambda: not scene.database.journal.queue)
            state = state_of(scene)
            scene.broker.flush()
            with scene.as_on_disk() as copy:
                assert state == state_of(copy)
            scene.channel("billing", "orders")
            scene.channel("letters", "dead")
            scene.broker.flush()
        if strikes.left > 0:
            return


def test_a_channel_that_a_signal_keeps_from_being_made(path: Path) -> None:
    """It is not in the file either; the next call makes it, to get what is put from then on."""
    with Scene(path) as scene:
        scene.channel()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Topic, "_make_channel", lambda *_: throw(KeyboardInterrupt())())
            with pytest.raises(KeyboardInterrupt):
                scene.topic()._monitor.run(scene.topic()._create, "audit", scene.topic().options)
        scene.topic().put(b"1")
        scene.broker.flush()
        assert ["orders", "orders:billing"] == scene.names()
        scene.channel("audit")
        scene.topic().put(b"2")
        assert [[(b"2", 1)], [b"2"]] == [scene.disk("audit"), bodies(scene.channel("audit"))]


def test_a_topic_notes_nothing_when_it_is_gone(path: Path) -> None:
    """What comes after that, in another write, would have it in the file again."""
    with Scene(path) as scene:
        scene.channel()
        scene.topic().put(b"1")
        journal, topic = scene.database.journal, scene.topic()
        decide = journal.decide

        def forget() -> None:
            while scene.database.upkeep():
                pass

        with pytest.MonkeyPatch.context() as patch:

            def decide_and_write(change: Change) -> None:
                decide(change)
                if isinstance(change, TopicGone):
                    Call(scene.broker.flush).result()
                    Call(forget).result()

            patch.setattr(journal, "decide", decide_and_write)
            topic.delete()
        scene.broker.flush()
        assert [[], []] == [scene.names(), journal.entries]
        scene.topic()
        assert ["orders"] == scene.names()


def test_what_is_shown_is_noted_once(path: Path) -> None:
    """A note that is made again, since a signal may have struck, is the same note."""
    with Scene(path) as scene:
        journal = scene.database.journal
        published = Published(1, [row(1)])
        journal.publish(published)
        journal.publish(published)
        assert [published, None, None] == journal.entries
        journal.entries.clear()


def test_what_is_settled_is_not_written_again(path: Path) -> None:
    """What is behind a put that is not settled stays in the queue, and is left out."""
    with Scene(path) as scene:
        record = scene.topic()._store
        assert record is not None
        first: PendingWrite[Any] = PendingWrite(record, [], None, 0)
        second: PendingWrite[Any] = PendingWrite(record, [], None, 0)
        second.settled = True
        journal = scene.database.journal
        journal.queue.extend([first, second])
        assert [first] == journal._unsettled(journal.queue)
        journal.queue.clear()


def test_who_is_settled_and_not_taken_out_yet_is_woken_too(path: Path) -> None:
    """As a signal may have struck whoever settled it, before he could wake it."""
    with Scene(path) as scene:
        record = scene.topic()._store
        assert record is not None
        settled, first, second = [PendingWrite(record, [], None, 0) for _ in range(3)]
        settled.settled = True
        for pending in (settled, first, second):
            pending.semaphore = held_semaphore()
        journal = scene.database.journal
        journal.queue.extend([settled, first, second])
        journal._pass_on()
        woken = [one.semaphore for one in (settled, first, second)]
        assert [True, True, False] == [one is not None and one.acquire(False) for one in woken]
        journal.queue.clear()


# What only a signal, or who is just writing, brings about


def test_what_a_struck_flush_has_written_is_not_left_out(path: Path) -> None:
    """Nobody knows whether its messages are in the file; so they are deleted when they are done."""
    with Scene(path, sync="interval") as scene:
        consumer = scene.consumer()
        scene.broker.flush()
        scene.topic().put(b"1")
        scene.spy.once(throw(KeyboardInterrupt()), late=True)
        with pytest.raises(KeyboardInterrupt):
            scene.broker.flush()
        assert [b"1"] == scene.rows()
        consumer.get(timeout=0).fin()
        with scene.spy.failing(), pytest.raises(StoreFull):
            scene.broker.flush()  # which has written nothing, and so changes nothing in that
        scene.broker.flush()
        assert [] == scene.rows()


@pytest.mark.parametrize("sync", ["normal", "interval"])
def test_a_topic_of_ephemeral_channels_writes_nothing(path: Path, sync: Any) -> None:
    """Its messages are in memory alone, however they are put."""
    with Scene(path, sync=sync) as scene:
        consumer = Consumer(scene.topic().channel("billing#ephemeral"))
        for number in range(3):
            scene.topic().put(b"%d" % number)
            scene.topic().put_many([b"x"])
        for _ in range(6):
            consumer.get(timeout=0).fin()
        scene.broker.flush()
        assert [] == scene.rows()


def test_a_move_that_overtakes_a_put_comes_once(path: Path) -> None:
    """It is in memory with a higher id when the queue becomes full behind it."""
    with Scene(path, mem_queue_size=2) as scene:
        consumer = scene.consumer()
        scene.topic().put(b"first")
        source = scene.consumer("source", "source")
        scene.topic("source").put(b"moved")
        message = source.get(timeout=0)
        with scene.spy.held() as held:
            call = Call(lambda: scene.topic().put(b"overtaken"))
            held.until_begun()
            source.move(message, scene.topic())
        call.result()
        scene.topic().put(b"last")
        got = [consumer.get(timeout=0) for _ in range(4)]
        assert [b"first", b"moved", b"overtaken", b"last"] == [one.body for one in got]
        with pytest.raises(Empty):
            consumer.get(timeout=0)


def test_what_is_shown_is_not_taken_for_what_is_being_put(path: Path) -> None:
    """Though whoever wrote it has not taken it out of the queue yet."""
    with Scene(path) as scene:
        topic, queue = scene.topic(), scene.database.journal.queue
        store = topic._store
        assert store is not None
        with scene.busy():
            pending = topic._draft(store, [b"1"])
            topic._send(pending, pending.size, None, None)
            assert [pending] == store.unshown() == queue
            store.settle(pending)
            assert [pending] == store.unshown()
            store.show()
            assert [[], [pending], 1] == [store.unshown(), queue, topic.depth]
        queue.clear()


def test_who_does_not_sleep_yet_holds_nobody_up(path: Path) -> None:
    """The first that sleeps writes, though another stands before it."""
    with Scene(path) as scene:
        record = scene.topic()._store
        assert record is not None
        awake, asleep = [PendingWrite(record, [], None, 0) for _ in range(2)]
        asleep.semaphore = held_semaphore()
        scene.database.journal.queue.extend([awake, asleep])
        scene.database.journal._pass_on()
        assert asleep.semaphore.acquire(blocking=False)
        scene.database.journal.queue.clear()


def test_who_is_struck_as_he_stirs_leaves_it_to_the_next(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody would have the journal written any more."""
    with Scene(path, sync="interval") as scene:
        scene.channel()
        scene.broker.flush()
        strikes = [KeyboardInterrupt()]
        expect = scene.database._flusher.expect

        def struck(*, at_once: bool = False) -> None:
            if strikes:
                raise strikes.pop()
            expect(at_once=at_once)

        monkeypatch.setattr(type(scene.database._flusher), "expect", lambda _, **how: struck(**how))
        with pytest.raises(KeyboardInterrupt):
            scene.database.journal.stir_once()
        assert not scene.database.journal.stirred
        scene.database.journal.stir_once()
        assert scene.database.journal.stirred


# In pieces


def test_how_much_is_written_at_once() -> None:
    """About as many changes as are wanted; an entry is never cut, nor the two parts of a put."""
    noted = Noted(KEY, [name(1), name(2), name(3)], [GONE] * 3)
    published = Published(1, [row(4), row(5)])
    items: list[Any] = [KEY, name(0), GONE, 1, name(1), 1, 0, None, b"x", noted, None, None]
    items += [published, None, None, Unheld(1), None, None]
    measured = [journal._measure(items, changes) for changes in (1, 2, 3, 4, 6, 7, 10, 11)]
    assert [(3, 0), (9, 0), (9, 0), (12, 2), (12, 2), (15, 5), (15, 5), (18, 5)] == measured


@pytest.mark.parametrize("sync", ["normal", "interval"])
def test_a_long_prefix_is_written_in_pieces(
    path: Path, monkeypatch: pytest.MonkeyPatch, sync: Any
) -> None:
    """What is flushed is all that happened before; a put waits for what it stands on."""
    monkeypatch.setattr(journal, "PIECE", 2)
    with Scene(path, sync=sync) as scene:
        consumer = scene.consumer()
        scene.topic().put_many([b"%d" % number for number in range(9)])
        scene.broker.flush()
        for message in consumer.get_many(4, timeout=0):
            message.fin()
        before = len(scene.spy.batches)
        scene.broker.flush()
        assert len(scene.spy.batches) >= before + 3
        assert 5 == len(scene.rows())
        for message in consumer.get_many(3, timeout=0):
            message.fin()
        scene.database.journal.decide(Unheld(1))
        scene.topic().put(b"last")
        scene.broker.flush()
        assert [b"7", b"8", b"last"] == scene.rows()


def test_a_piece_that_fails_refuses_who_waits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A put that stands behind more than one piece is told that it could not be written."""
    monkeypatch.setattr(journal, "PIECE", 1)
    with Scene(path) as scene:
        consumer = scene.consumer()
        scene.topic().put_many([b"1", b"2"])
        for message in consumer.get_many(2, timeout=0):
            message.fin()
        scene.database.journal.decide(Unheld(1))
        with scene.spy.failing(), pytest.raises(StoreFull):
            scene.topic().put(b"3")
        scene.topic().put(b"4")
        scene.broker.flush()
        assert [b"4"] == scene.rows()


def test_what_is_finished_when_nothing_else_was_noted(path: Path) -> None:
    """It is written when that is due, and what is delivered very often is counted on."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        scene.topic().put(b"1")
        message = consumer.get(timeout=0)
        scene.broker.flush()
        assert not scene.database.journal.stirred
        message.fin()
        assert scene.database.journal.stirred
    assert [(1000, None), False] == [backlog.COUNTED[999], 999 in backlog.COUNTED]
