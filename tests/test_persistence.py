"""Putting into a store: reserved, stored, shown; and if that is refused or interrupted."""

import asyncio
import gc
import math
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from helpers import Call, bodies
from store.stores import Scene, everything, throw, until

import nsqlite
from nsqlite import (
    Closed,
    Full,
    InvalidMessage,
    InvalidOption,
    Reentered,
    StoreFull,
    Topic,
    aio,
)
from nsqlite.persistence import QueuePersistence, TopicPersistence
from nsqlite.store.backlog import Backlog
from nsqlite.store.record import TopicRecord
from nsqlite.testing import ManualClock
from nsqlite.timeline import Recorder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


Put = Callable[[Topic[Any], list[bytes]], Any]

WAYS: dict[str, Put] = {
    "put": lambda topic, batch: [topic.put(body) for body in batch],
    "put that may wait": lambda topic, batch: [topic.put(body, timeout=5) for body in batch],
    "put_many": lambda topic, batch: topic.put_many(batch),
}


# Putting


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sync", ["normal", "full"])
def test_what_put_returned_for_is_in_the_file(path: Path, way: str, sync: Any) -> None:
    """Whoever reads the file when a put has returned finds its messages, in their order."""
    with Scene(path, sync=sync) as scene:
        scene.channel()
        ids = WAYS[way](scene.topic(), [b"1", b"2", b"3"])
        assert [b"1", b"2", b"3"] == scene.rows()
        assert ids == scene.ids() == sorted(ids)
        assert [b"1", b"2", b"3"] == [info.body for info in scene.channel().peek()]
        assert 3 == scene.topic().stats().message_count
        assert 3 == scene.topic().stats().message_bytes
        scene.topic()._check()


def test_nothing_is_shown_before_it_is_written(path: Path) -> None:
    """A message is in no channel while it is being written, and is in all afterwards."""
    with Scene(path) as scene:
        billing, audit = scene.channel(), scene.channel("audit")
        with scene.spy.held() as held:
            call = Call(lambda: scene.topic().put(b"1"))
            held.until_begun()
            assert [0, 0, []] == [billing.depth, audit.depth, scene.rows()]
        call.result()
        assert [1, 1, [b"1"]] == [billing.depth, audit.depth, scene.rows()]


def test_no_lock_of_a_topic_is_held_while_it_is_written(path: Path) -> None:
    """While a put waits for the disk the topic's consumers go on."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        scene.topic().put(b"1")
        with scene.spy.held() as held:
            call = Call(lambda: scene.topic().put(b"2"))
            held.until_begun()
            consumer.get(timeout=0).fin()
            assert 0 == scene.channel().stats().in_flight_count
        call.result()
        assert b"2" == consumer.get(timeout=0).body


def test_messages_are_shown_in_the_order_of_their_ids(path: Path) -> None:
    """Whoever writes, what was reserved first is delivered first."""
    with Scene(path) as scene:
        channel = scene.channel()
        with scene.spy.held() as held:
            calls = [Call(lambda: scene.topic().put(b"first"))]
            held.until_begun()
            calls += [Call(lambda: scene.topic().put_many([b"1", b"2"])) for _ in range(5)]
            until(lambda: len(scene.database.journal.queue) == 6)
        for call in calls:
            call.result()
        ids = [info.id for info in channel.peek(20)]
        assert ids == sorted(ids) == scene.ids()
        assert 11 == len(ids)
        assert b"first" == bodies(channel)[0]


@pytest.mark.parametrize("way", WAYS)
def test_a_put_that_is_refused_has_changed_nothing(path: Path, way: str) -> None:
    """A put that the disk has no room for raises that, and is in no channel; the next one works."""
    with Scene(path) as scene:
        channels = [scene.channel(name) for name in ("billing", "audit")]
        before = scene.topic().stats()
        with scene.spy.failing() as failed, pytest.raises(StoreFull, match="the disk is full"):
            WAYS[way](scene.topic(), [b"1", b"2"])
        assert failed
        assert before == scene.topic().stats()
        assert [] == scene.rows()
        assert [True, True] == [channel.join(timeout=0) for channel in channels]
        scene.topic()._check()
        WAYS[way](scene.topic(), [b"3"])
        assert [[(b"3", 1)]] * 2 == [everything(channel) for channel in channels]


def test_a_refused_put_that_was_written_in_part_is_not_there(path: Path) -> None:
    """A batch of which the file could not take the last body is not in it at all."""
    with Scene(path, codec="json") as scene:
        scene.channel()
        with pytest.raises(InvalidMessage) as info:
            scene.topic().put_many([{"a": 1}, b"2", {1, 2}])
        assert 2 == info.value.index
        assert [] == scene.rows()
        assert 0 == scene.topic().stats().message_count


def test_room_is_spoken_for_and_given_back(path: Path) -> None:
    """A message that is being written takes room, and gives it back if it is refused."""
    with Scene(path) as scene:
        channel = scene.channel(max_depth=2, when_full="raise")
        with scene.spy.held() as held:
            call = Call(lambda: scene.topic().put_many([b"1", b"2"]))
            held.until_begun()
            with pytest.raises(Full):
                scene.topic().put(b"3")
            assert 2 == channel._queue.reserved
        call.result()
        assert 0 == channel._queue.reserved
        assert [b"1", b"2"] == bodies(channel)
        with scene.spy.failing(), pytest.raises(StoreFull):
            scene.topic().put_many([b"3", b"4"])
        assert 0 == channel._queue.reserved
        scene.topic().put_many([b"5", b"6"])
        with pytest.raises(Full):
            scene.topic().put(b"7")
        assert [b"5", b"6"] == bodies(channel)


def test_who_waits_for_room_gets_that_of_a_refused_put(path: Path) -> None:
    """A put that waits for room goes on when the one that had spoken for it was refused."""
    with Scene(path) as scene:
        channel = scene.channel(max_depth=1)
        failures: list[str] = []

        def fail() -> None:
            failures.append("once")
            until(lambda: scene.topic()._monitor.putters)
            raise StoreFull("jobs.db", "full")

        scene.spy.once(fail)
        refused = Call(lambda: scene.topic().put(b"2"))
        waiting = Call(lambda: scene.topic().put(b"3"))
        results = [refused.result(), waiting.result()]
        assert ["once"] == failures
        assert 1 == sum(isinstance(result, StoreFull) for result in results)
        assert 1 == len(bodies(channel))


def test_a_bounded_channel_drops_what_is_too_much(path: Path) -> None:
    """A channel that drops the oldest does so in the file too."""
    with Scene(path) as scene:
        scene.channel(max_depth=2, when_full="drop oldest")
        scene.topic().put_many([b"1", b"2"])
        scene.topic().put(b"3")
        scene.broker.flush()
        assert [(b"2", 1), (b"3", 1)] == scene.disk()
        assert 1 == scene.channel().stats().dropped_count


def test_a_delay(path: Path) -> None:
    """What is put with a delay waits for it in the file too, by the wall's time."""
    clock = ManualClock()
    with Scene(path, clock=clock) as scene:
        channel = scene.channel()
        scene.topic().put(b"2", delay=10)
        scene.topic().put_many([b"1"], delay=5)
        assert [b"2", b"1"] == scene.rows()
        assert [0, 2] == [channel.depth, channel.deferred_count]
        clock.advance(4)
        scene.reopen()
        channel = scene.channel()
        assert [0, 2] == [channel.depth, channel.deferred_count]
        assert [b"1", b"2"] == [info.body for info in channel.deferred()]
        assert [1.0, 6.0] == [info.due_in for info in channel.deferred()]
        clock.advance(1)
        assert [(b"1", 1)] == everything(channel)
        clock.advance(5)
        assert [(b"2", 1)] == everything(channel)


@pytest.mark.parametrize("sync", ["normal", "interval"])
def test_a_delay_that_is_over_when_it_is_written(path: Path, sync: Any) -> None:
    """What falls due while it is written is delivered, once, now and after the file is reopened."""

    class Late(ManualClock):
        """A clock that goes on when it is asked for the wall's time."""

        moves = 0.0

        def _time_ns(self) -> int:
            self._elapsed += int(self.moves * 10**9)
            return super()._time_ns()

    clock = Late()
    with Scene(path, clock=clock, sync=sync) as scene:
        channel = scene.channel()
        clock.moves = 1
        scene.topic().put(b"1", delay=0.5)
        clock.moves = 0
        assert [1, 0] == [channel.depth, channel.deferred_count]
        scene.broker.flush()
        assert [(b"1", 1)] == scene.disk()
        assert [(b"1", 1)] == everything(channel)
        scene.broker.flush()
        assert [] == scene.disk()


@pytest.mark.parametrize(
    ("put", "error"),
    [
        (lambda topic: topic.put(b""), InvalidMessage),
        (lambda topic: topic.put(b"12345678901"), InvalidMessage),
        (lambda topic: topic.put({"long": "12345678"}), InvalidMessage),
        (lambda topic: topic.put({1, 2}), InvalidMessage),
        (lambda topic: topic.put_many([b"1", b""]), InvalidMessage),
        (lambda topic: topic.put_many(b"12"), InvalidMessage),
        (lambda topic: topic.put(b"1", delay=-1), InvalidOption),
        (lambda topic: topic.put(b"1", timeout=math.nan), InvalidOption),
        (lambda topic: topic.put_many([b"1"], delay=-1), InvalidOption),
    ],
)
def test_what_can_never_be_put(path: Path, put: Any, error: type[Exception]) -> None:
    """A put that is wrong is refused before anything is reserved."""
    with Scene(path, codec="json", topics={"max_msg_size": 10}) as scene:
        scene.channel()
        with pytest.raises(error):
            put(scene.topic())
        assert [[], 0] == [scene.rows(), scene.topic().stats().message_count]


def test_nothing_to_put(path: Path) -> None:
    """A batch of nothing needs no disk; of a closed topic it is refused all the same."""
    with Scene(path) as scene:
        topic = scene.topic()
        scene.channel()
        with scene.spy.failing():
            assert [] == topic.put_many([])
        topic.close()
        with pytest.raises(Closed):
            topic.put_many([])


def test_a_body_is_what_comes_back_from_the_codec(path: Path) -> None:
    """A consumer sees what the codec makes of a body, now and after the file is reopened."""
    with Scene(path, codec="json") as scene:
        scene.topic().put({"pair": (1, 2)})
        scene.topic().put_many([{"pair": (3,)}])
        assert [{"pair": [1, 2]}, {"pair": [3]}] == [i.body for i in scene.channel().peek()]
        scene.reopen()
        assert [({"pair": [1, 2]}, 1), ({"pair": [3]}, 1)] == everything(scene.channel())


def test_a_topic_without_channels_holds_what_is_put(path: Path) -> None:
    """What a topic holds is in the file, and its first channel gets it, in order."""
    with Scene(path) as scene:
        scene.topic().put(b"1")
        scene.topic().put_many([b"2", b"3"])
        assert [3, [b"1", b"2", b"3"]] == [scene.topic().depth, scene.rows()]
        scene.reopen()
        assert 3 == scene.topic().depth
        scene.topic().put(b"4")
        scene.topic()._check()
        expected = [(b"1", 1), (b"2", 1), (b"3", 1), (b"4", 1)]
        assert expected == scene.disk()
        assert expected == everything(scene.channel())
        assert 0 == scene.topic().depth


def test_a_closed_topic_takes_nothing(path: Path) -> None:
    """Neither way of putting works on what is closed or deleted; the file stays as it was."""
    with Scene(path) as scene:
        topic = scene.topic()
        scene.channel()
        topic.put(b"1")
        topic.close()
        for put in (lambda: topic.put(b"2"), lambda: topic.put_many([b"3"])):
            with pytest.raises(Closed):
                put()
        assert [b"1"] == scene.rows()
        assert 0 == topic._monitor.lock.owned()


def test_a_put_to_a_closed_broker(path: Path) -> None:
    """Where the broker is closed, so are its topics; and it says so."""
    scene = Scene(path)
    topic = scene.topic()
    scene.broker.close()
    for put in (lambda: topic.put(b"2"), lambda: topic.put_many([b"3"])):
        with pytest.raises(Closed):
            put()


def test_many_ids(path: Path) -> None:
    """A put goes on when the ids at hand are used up, with bytes one by one and in batches."""
    clock = ManualClock()
    with Scene(path, clock=clock) as scene:
        scene.channel()
        ids = [scene.topic().put(b"1") for _ in range(200)]
        ids += scene.topic().put_many([b"2"] * 200)
        assert ids == sorted(set(ids)) == scene.ids()
    with Scene(path, clock=ManualClock(start=0)) as scene:  # a clock that was put back
        assert scene.topic().put(b"3") > ids[-1]


# A signal or a destructor in the middle


@pytest.mark.parametrize("way", WAYS)
def test_a_put_inside_another_call_is_refused(path: Path, way: str) -> None:
    """What a signal handler puts while its thread writes is refused, and changes nothing."""
    with Scene(path) as scene:
        channel = scene.channel()
        refused: list[BaseException] = []

        def handler() -> None:
            try:
                WAYS[way](scene.topic(), [b"2"])
            except Reentered as error:
                refused.append(error)

        scene.spy.once(handler)
        scene.topic().put(b"1")
        scene.spy.once(handler)
        scene.topic().put_many([b"3"])
        assert 2 == len(refused)
        assert [b"1", b"3"] == scene.rows() == bodies(channel)


def test_a_put_by_a_destructor(path: Path) -> None:
    """A destructor that runs under a topic's lock is told that it cannot put."""
    refused: list[BaseException] = []

    class Last:
        """A body that puts when it is forgotten."""

        def __del__(self) -> None:
            try:
                scene.topic().put(b"2")
            except Reentered as error:
                refused.append(error)

    with Scene(path) as scene:
        channel = scene.channel()
        topic = scene.topic()
        with scene.database.journal.lock:
            last = Last()
            del last
            gc.collect()
        assert 1 == len(refused)
        topic.put(b"1")
        assert [b"1"] == bodies(channel)


class Struck(BaseException):
    """What a signal handler throws."""


class _StruckAfter(deque[Any]):
    """A deque that a signal strikes when it has taken something."""

    struck = False

    def extend(self, items: Iterable[Any]) -> None:
        super().extend(items)
        if not self.struck:
            self.struck = True
            raise KeyboardInterrupt


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_an_interrupted_put_is_completed(path: Path, way: str, late: bool) -> None:
    """A put that a signal threw out of is in all channels, once, in its place."""
    with Scene(path) as scene:
        channels = [scene.channel(name) for name in ("billing", "audit")]
        scene.topic().put(b"0")
        with scene.busy():  # so that nobody else writes it
            scene.spy.once(throw(Struck()), late=late)
            with pytest.raises(Struck):
                WAYS[way](scene.topic(), [b"1"])
        scene.topic().put(b"2")
        scene.broker.flush()
        scene.topic()._check()
        expected = [(b"0", 1), (b"1", 1), (b"2", 1)]
        assert expected == scene.disk() == scene.disk("audit")
        assert [expected] * 2 == [everything(channel) for channel in channels]
        assert 3 == scene.topic().stats().message_count


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_an_interrupted_put_is_completed_by_the_stores_thread(
    path: Path, way: str, late: bool
) -> None:
    """Nobody has to come by: a consumer that waits gets it."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        with scene.busy():  # so that nobody else writes it
            scene.spy.once(throw(Struck()), late=late)
            with pytest.raises(Struck):
                WAYS[way](scene.topic(), [b"1"])
        assert b"1" == consumer.get(timeout=20).body
        assert [b"1"] == scene.rows()


def test_an_interrupted_put_that_is_refused_is_logged(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """If the store's thread cannot store it either, the log has it, as nobody else is told."""
    with Scene(path) as scene:
        channel = scene.channel()
        with scene.spy.failing():
            with scene.busy():
                scene.spy.once(throw(Struck()))
                with pytest.raises(Struck):
                    scene.topic().put_many([b"1", b"2"])
            until(lambda: caplog.records)
        scene.topic().put(b"3")
        expected = (
            "a put to topic 'orders' has failed, of which nobody was told:"
            " store jobs.db: the disk is full"
        )
        assert [expected] == [record.getMessage() for record in caplog.records]
        assert [b"3"] == scene.rows() == bodies(channel)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no such signals here")
@pytest.mark.skipif(sys.gettrace() is not None, reason="who traces has a lock that is not ours")
@pytest.mark.parametrize("way", WAYS)
def test_signals_at_any_moment(path: Path, way: str) -> None:
    """Wherever a signal strikes a put, what it put is there once, in order, or not at all."""

    def strike(*_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise Struck

    with Scene(path) as scene:
        channel = scene.channel()
        gc.collect()
        gc.disable()  # what is thrown into a finaliser goes nowhere
        before = signal.signal(signal.SIGALRM, strike)
        sure: list[bytes] = []
        try:
            for number in range(150):
                body = b"%d" % number
                try:
                    signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + number))
                    WAYS[way](scene.topic(), [body])
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    sure.append(body)
                except Struck:
                    pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            gc.enable()
        scene.topic().put(b"last")
        scene.broker.flush()
        scene.topic()._check()
        rows = scene.rows()
        found = bodies(channel)
        assert rows == found
        assert len(set(found)) == len(found)
        assert set(sure) <= set(found)
        assert [*sorted(found[:-1], key=int), b"last"] == found


# Interval


def test_interval_shows_at_once(path: Path) -> None:
    """With sync="interval" a put is delivered at once and in the file after a flush."""
    with Scene(path, sync="interval") as scene:
        channel = scene.channel()
        scene.topic().put(b"1")
        scene.topic().put(b"2", timeout=1)
        scene.topic().put_many([b"3"])
        scene.topic().put(b"4")
        assert [b"1", b"2", b"3", b"4"] == [info.body for info in channel.peek()]
        assert [] == scene.rows()
        scene.broker.flush()
        assert [b"1", b"2", b"3", b"4"] == scene.rows()
        assert [(b"%d" % n, 1) for n in (1, 2, 3, 4)] == scene.disk()


def test_what_is_finished_before_it_is_written_never_is(path: Path) -> None:
    """A message that came and went between two flushes needs no place in the file."""
    with Scene(path, sync="interval") as scene:
        consumer = scene.consumer()
        for body in (b"1", b"2", b"3"):
            scene.topic().put(body)
        consumer.get(timeout=0).fin()
        consumer.get(timeout=0)
        scene.broker.flush()
        assert [b"2", b"3"] == scene.rows()
        assert [(b"2", 2), (b"3", 1)] == scene.disk()


def test_what_one_of_two_channels_has_finished_is_written(path: Path) -> None:
    """A message that one channel has done with is kept for the other."""
    with Scene(path, sync="interval") as scene:
        consumer = scene.consumer()
        scene.channel("audit")
        scene.topic().put(b"1")
        consumer.get(timeout=0).fin()
        scene.broker.flush()
        assert [(b"1", 1)] == scene.disk("audit")
        assert [] == scene.disk()


def test_a_failed_flush_loses_nothing(path: Path) -> None:
    """What could not be written late is written later, with what has happened since."""
    with Scene(path, sync="interval") as scene:
        consumer = scene.consumer()
        for body in (b"1", b"2"):
            scene.topic().put(body)
        scene.topic().put_many([b"3", b"4"])
        consumer.get(timeout=0).fin()
        with scene.spy.failing(), pytest.raises(StoreFull):
            scene.broker.flush()
        assert "NOK - store jobs.db: the disk is full" == scene.broker.health
        consumer.get(timeout=0).req()
        scene.topic().put(b"5")
        scene.broker.flush()
        assert "OK" == scene.broker.health
        assert [(b"2", 2), (b"3", 1), (b"4", 1), (b"5", 1)] == sorted(scene.disk())
        assert [b"3", b"4", b"2", b"5"] == bodies(scene.channel())


def test_interval_is_no_memory_without_end(path: Path) -> None:
    """While the disk fails puts go on for a while, and are then refused; nothing is lost."""
    with Scene(path, sync="interval", sync_every=5) as scene:
        channel = scene.channel()
        done: list[bytes] = []
        with scene.spy.failing():
            with pytest.raises(StoreFull):
                for number in range(100):
                    scene.topic().put(b"%d" % number)
                    done.append(b"%d" % number)
            assert 5 <= len(done) <= 11
            with pytest.raises(StoreFull):
                scene.topic().put(b"x")
        assert len(done) == channel.depth
        scene.topic().put(b"last")
        scene.broker.flush()
        assert [*done, b"last"] == scene.rows()


def test_interval_is_no_memory_without_end_in_batches(path: Path) -> None:
    """The same for puts that take the long way."""
    with Scene(path, sync="interval", sync_every=5) as scene:
        scene.channel()
        done: list[bytes] = []
        with scene.spy.failing(), pytest.raises(StoreFull):
            for number in range(100):
                scene.topic().put_many([b"%d" % number])
                done.append(b"%d" % number)
        assert 5 <= len(done) <= 11
        scene.broker.flush()
        assert done == scene.rows()


def test_of_so_many_the_store_hears_at_once(path: Path) -> None:
    """After `sync_every` puts the store's thread writes them, however long it may be late."""
    for way in WAYS.values():
        with Scene(path, sync="interval", sync_every=5) as scene:
            written = threading.Event()
            scene.channel().empty()
            scene.spy.once(written.set, ("write",), late=True)
            for _ in range(7):
                way(scene.topic(), [b"1"])
            assert written.wait(20)


def test_interval_goes_on_inside_another_call(path: Path) -> None:
    """In interval mode a put inside a write is shown, and written by the next, if it is plain."""
    with Scene(path, sync="interval") as scene:
        channel = scene.channel()

        def handler() -> None:
            scene.topic().put(b"2")
            with pytest.raises(Reentered):
                scene.topic().put(b"3", delay=1)

        scene.topic().put(b"1")
        scene.spy.once(handler)
        scene.broker.flush()
        assert [2, [b"1"]] == [channel.depth, scene.rows()]
        scene.broker.flush()
        assert [b"1", b"2"] == scene.rows()


def test_interval_is_paused_and_bounded(path: Path) -> None:
    """What takes the long way is shown at once too: a bound, a pause, a delay, a watcher."""
    clock = ManualClock()
    with Scene(path, sync="interval", clock=clock) as scene:
        channel = scene.channel(max_depth=1, when_full="raise")
        scene.topic().put(b"1")
        with pytest.raises(Full):
            scene.topic().put(b"2")
        assert 0 == channel._queue.reserved
        scene.topic().put(b"3", delay=5)
        scene.topic().pause()
        scene.topic().put(b"4")
        assert [1, 1, 1] == [channel.depth, channel.deferred_count, scene.topic().depth]
        scene.reopen()
        channel = scene.channel()
        assert [1, 1, 1] == [channel.depth, channel.deferred_count, scene.topic().depth]
        scene.topic().unpause()
        clock.advance(5)
        assert [b"1", b"3", b"4"] == sorted(bodies(channel))


# What only a signal brings about


def test_who_begins_to_observe_while_a_message_is_written_hears_of_it(path: Path) -> None:
    """A put on the short way that finds an observer when it is written tells it at once."""
    with Scene(path) as scene:
        topic = scene.topic()
        channel = topic.channel("billing")
        recorder = Recorder()
        with scene.spy.held() as held:
            call = Call(lambda: topic.put(b"1"))
            held.until_begun()
            topic.observe(recorder)
        call.result()
        assert ["published"] == [event.kind for event in recorder.events]
        assert [b"1"] == bodies(channel)
        topic._check()


def test_what_is_made_twice_is_done_once(path: Path) -> None:
    """To settle or show again what is settled or shown changes nothing."""
    with Scene(path) as scene:
        topic: Any = scene.topic()
        channel = topic.channel("billing")
        pending = topic._draft(topic._store, [b"1"])
        topic._send(pending, pending.size, None, 0)
        assert pending.first() == pending.names[0]
        scene.broker.flush()
        assert pending.settled
        for _ in range(2):
            topic._store.settle(pending)
            topic._show()
        assert pending.conclude() == scene.ids()
        assert [b"1"] == bodies(channel)
        assert [0, 0] == [len(scene.database.journal.queue), len(topic._store.settled)]


def test_what_was_refused_is_told_whenever_it_is_asked(path: Path) -> None:
    """What becomes of a put that does not block is known when it is settled."""
    with Scene(path) as scene:
        topic: Any = scene.topic()
        pending = topic._draft(topic._store, [b"1", b"2"])
        assert 2 == len(pending)
        topic._send(pending, pending.size, None, 0)
        with scene.spy.failing():
            topic._store.write(pending)
        for _ in range(2):
            with pytest.raises(StoreFull):
                topic._conclude(topic._store, pending)
            with pytest.raises(StoreFull):
                pending.conclude()
        assert [0, []] == [topic.depth, scene.rows()]


def test_a_message_moved_to_one_channel_in_interval_mode_is_there_once(path: Path) -> None:
    """What was shown before it was written is not shown again when it is."""
    with Scene(path, sync="interval") as scene:
        consumer = scene.consumer()
        audit = scene.channel("audit")
        scene.topic().put(b"1")
        audit.empty()
        consumer.move(consumer.get(timeout=0), audit)
        scene.broker.flush()
        scene.topic().put(b"2", timeout=1)
        assert [b"1", b"2"] == bodies(audit)
        scene.topic()._check()
        assert 2 == scene.topic().stats().message_count  # what is moved is not counted


def test_interval_waits_for_nothing(path: Path) -> None:
    """In interval mode a put writes nothing itself, as long as not too much waits for that."""
    with Scene(path, sync="interval", sync_every=4) as scene:
        scene.channel()
        scene.broker.flush()
        calls = len(scene.spy.calls)
        store: Any = scene.topic()._store
        with scene.busy():
            for behind in (False, False, False, False, True):
                assert behind == store.is_behind()
                assert calls == len(scene.spy.calls)
                scene.topic().put(b"1")
            assert calls + 1 == len(scene.spy.calls)
            assert not store.is_behind()


def test_an_interval_put_that_is_struck_is_in_every_channel(path: Path) -> None:
    """What was begun to be shown is shown to all, once, and written."""
    with Scene(path, sync="interval") as scene:
        channels = [scene.channel(name) for name in ("billing", "audit")]
        topic = scene.topic()
        topic.put(b"0")
        queue: Any = channels[0]._queue
        queue.ready = queue.back = _StruckAfter(queue.ready)
        with pytest.raises(KeyboardInterrupt):
            topic.put_many([b"1"])
        topic.put_many([b"2"])
        scene.broker.flush()
        topic._check()
        assert [[b"0", b"1", b"2"]] * 2 == [bodies(channel) for channel in channels]
        assert [b"0", b"1", b"2"] == scene.rows()


def test_a_plain_interval_put_that_is_struck_is_in_every_channel(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was shown in one piece is written although a signal strikes right after it."""
    with Scene(path, sync="interval") as scene:
        channels = [scene.channel(name) for name in ("billing", "audit")]
        topic = scene.topic()
        topic.put(b"0")
        strikes: list[BaseException] = [KeyboardInterrupt()]
        stir = scene.database.journal.stir_once

        def struck() -> None:
            if strikes:
                raise strikes.pop()
            stir()

        monkeypatch.setattr(topic._store, "stir", struck)
        scene.broker.flush()
        with pytest.raises(KeyboardInterrupt):
            topic.put(b"1")
        assert scene.database.journal.stirred
        scene.broker.flush()
        topic._check()
        assert [[b"0", b"1"]] * 2 == [bodies(channel) for channel in channels]
        assert [b"0", b"1"] == scene.rows()


@pytest.mark.parametrize("sync", ["normal", "interval"])
def test_a_plain_put_is_told_and_handed_over(path: Path, sync: Any) -> None:
    """Who observes hears of it, who waits gets it; in each channel there is."""
    with Scene(path, sync=sync) as scene:
        topic = scene.topic()
        consumers = [scene.consumer(name) for name in ("billing", "audit")]
        topic.put(b"0")  # the first one finds the way
        for consumer in consumers:
            consumer.get(timeout=0).fin()
        recorder = Recorder()
        for body in (b"1", b"2"):
            calls = [Call(consumer.get) for consumer in consumers]
            until(lambda: topic._monitor.waiting == 2)
            topic.put(body)
            assert [body, body] == [call.result().body for call in calls]
            topic.observe(recorder, kinds=["published"])
        topic.put(b"3")
        assert [b"2", b"3", b"3"] == [event.body for event in recorder.events]


def test_what_a_handler_leaves_is_done_before_a_plain_put_is_written(path: Path) -> None:
    """A put waits for the disk; what is due after the topic's lock does not wait for that."""
    acts: list[Callable[[], object]] = []

    class Acting(ManualClock):
        """A clock that a handler comes into when it is asked for the wall's time."""

        def _time_ns(self) -> int:
            if acts:
                acts.pop()()
            return super()._time_ns()

    with Scene(path, clock=Acting()) as scene:
        topic = scene.topic()
        channel = scene.channel()
        topic.put(b"0")
        logged: list[str] = []
        acts.append(lambda: topic._monitor.put_off(lambda: logged.append("done")))
        scene.spy.once(lambda: logged.append("written"))
        topic.put(b"1")
        assert ["done", "written"] == logged
        assert [b"0", b"1"] == bodies(channel)


class Text(bytes):
    """Bytes with a name of their own."""


@pytest.mark.parametrize("sync", ["normal", "interval"])
def test_what_is_counted_of_a_body_that_is_nearly_bytes(path: Path, sync: Any) -> None:
    """Its length, as of any bytes; and a body is as long as the first who names the topic says."""
    with Scene(path, sync=sync, codec="pickle") as scene:
        scene.channel()
        for body in (b"123", Text(b"456"), Text(b"789")):
            scene.topic().put(body)
        assert 9 == scene.topic().stats().message_bytes


def test_a_handler_that_closes_the_topic_before_a_put_is_reserved(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused, or counted: what is in the file is what is said to be there."""
    with Scene(path) as scene:
        topic = scene.topic()
        scene.channel()
        topic.put(b"1")
        prepare = TopicRecord.prepare_plain

        def closing(record: TopicRecord, *what: Any) -> str:
            monkeypatch.undo()
            topic.close()
            return prepare(record, *what)

        monkeypatch.setattr(TopicRecord, "prepare_plain", closing)
        with pytest.raises(Closed):
            topic.put(b"2")
    with Scene(path) as scene:
        assert 1 == scene.channel().depth == len(bodies(scene.channel()))


def test_a_plain_put_to_a_store_that_is_over(path: Path) -> None:
    """It is refused, whether it is written at once or later, and shown to nobody."""
    for sync in ("normal", "interval"):
        with Scene(path.with_name(f"{sync}.db"), sync=sync) as scene:
            channel = scene.channel()
            scene.topic().put(b"0")
            scene.broker.flush()
            scene.database.crash()
            with pytest.raises(Closed):
                scene.topic().put(b"1")
            assert 1 == channel.depth
            scene.database._storage.close()  # which who crashed does not


# What a bounded channel has in the file


@pytest.mark.parametrize("sync", ["normal", "interval"])
@pytest.mark.parametrize(
    ("when_full", "expected"),
    [("drop oldest", [b"2", b"3", b"n", b"n"]), ("drop newest", [b"0", b"1", b"2", b"3"])],
)
@pytest.mark.parametrize("way", ["put", "await"])
def test_what_is_dropped_may_lie_in_the_file(
    path: Path, sync: Any, when_full: Any, expected: list[bytes], way: str
) -> None:
    """A put that drops reads first what it may have to drop; so no bound is overrun."""
    with Scene(path) as scene:
        scene.channel(max_depth=4, when_full=when_full)
        scene.topic().put_many([b"0", b"1", b"2", b"3"])
    with Scene(path, sync=sync) as scene:
        channel = scene.channel(max_depth=4, when_full=when_full)
        scene.database._wanted.clear()  # as if the store's thread had not come to it yet
        topic = scene.topic()
        for _ in range(2):
            if way == "put":
                topic.put(b"n")
            else:
                asyncio.run(aio.put(topic, b"n"))
        assert 4 == channel.depth
        assert expected == bodies(channel)


# The port


@pytest.mark.parametrize(
    ("port", "kept"), [(QueuePersistence, Backlog), (TopicPersistence, TopicRecord)]
)
def test_a_store_has_all_that_the_core_asks_for(port: type, kept: type) -> None:
    """What keeps queues and topics in a store has the methods of the port, named alike."""
    asked = {name for name in vars(port) if not name.startswith("_")}
    assert asked
    assert [] == [name for name in asked if not hasattr(kept, name)]


# Publishing without ids


@pytest.mark.parametrize("sync", ["normal", "interval"])
def test_publish_tells_when_it_is_stored(path: Path, sync: Any) -> None:
    """What is published is told, with None, when it is stored as `sync` says."""
    told: list[object] = []
    with Scene(path, sync=sync) as scene:
        channel = scene.channel()
        scene.topic().publish([b"1", b"2"], told.append)
        until(lambda: told)
        scene.topic().publish([b"3"])
        scene.topic().publish([], told.append)
        assert ([None, None], [b"1", b"2", b"3"]) == (told, bodies(channel))


def test_publish_tells_why_it_could_not_be_stored(path: Path) -> None:
    """A store that refuses it has it told why, and nothing is put."""
    told: list[Any] = []
    with Scene(path) as scene:
        channel = scene.channel()
        error = StoreFull("here", "no room")
        with scene.spy.failing(error):
            scene.topic().publish([b"1"], told.append)
            until(lambda: told)
        assert ([error], 0) == (told, channel.depth)


def test_publish_never_waits_for_room(path: Path) -> None:
    """Where there is no room it raises at once."""
    with Scene(path) as scene:
        scene.topic().channel("billing", max_depth=1)
        with pytest.raises(Full):
            scene.topic().publish([b"1", b"2"], print)
        with pytest.raises(Full):
            scene.topic().publish([b"1", b"2"])


@pytest.mark.parametrize("sync", ["normal", "interval"])
def test_a_put_that_a_handler_pauses(path: Path, sync: Any) -> None:
    """A put that has begun when a handler pauses the topic comes after that, as in memory."""
    acts: list[Callable[[], object]] = []

    class Acting(ManualClock):
        """A clock that a handler comes into when it is asked for the wall's time."""

        def _time_ns(self) -> int:
            if acts:
                acts.pop()()
            return super()._time_ns()

    with Scene(path, sync=sync, clock=Acting()) as scene:
        topic = scene.topic()
        channel = scene.channel()
        topic.put(b"1")
        acts.append(topic.pause)
        topic.put(b"2")
        assert topic.paused
        topic.put(b"3")
        assert (1, 2) == (channel.depth, topic.depth)
        topic.unpause()
        assert [b"1", b"2", b"3"] == bodies(channel)


def test_a_put_in_a_loop_that_finds_no_room(path: Path) -> None:
    """A put to a bounded topic whose file is written later waits for room without blocking."""

    async def main() -> int:
        with nsqlite.Broker(store=nsqlite.SQLite(path, sync="interval")) as broker:
            topic = broker.topic("orders")
            consumer = nsqlite.aio.Consumer(topic.channel("billing", max_depth=1))
            await nsqlite.aio.put(topic, b"1")
            task = asyncio.ensure_future(nsqlite.aio.put(topic, b"2"))
            await asyncio.sleep(0)
            (await consumer.get()).fin()
            await task
            message = await consumer.get()
            message.fin()
            return int(message.body)

    assert 2 == asyncio.run(main())
