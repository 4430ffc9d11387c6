"""What waits for its time and is not due soon lies in the file alone."""

import asyncio
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from helpers import Call, bodies

import nsqlite
from nsqlite import Consumer, Empty, StoreError
from nsqlite.aio import Consumer as AsyncConsumer
from nsqlite.queue import EVERYTHING, Queue
from nsqlite.store import Database, Undecodable
from nsqlite.store.backlog import Backlog
from nsqlite.store.deferred import Deferred
from nsqlite.store.journal import Journal
from nsqlite.store.record import TopicRecord
from nsqlite.testing import ManualClock
from store.stores import Scene, pages_of, until

SECOND = 1_000_000_000

DEFERRED = ("read_deferred",)


class Waiting(Scene):
    """A broker on a file, with a clock that is moved by hand.

    Attributes:
        clock: its clock.
    """

    def __init__(self, path: Path, size: int = 4, **options: Any) -> None:
        self.clock = ManualClock()
        super().__init__(path, clock=self.clock, mem_queue_size=size, **options)

    def queue(self, name: str = "billing") -> Any:
        return self.channel(name)._queue

    def backlog(self, name: str = "billing") -> Backlog:
        backlog = self.queue(name).persistence
        assert isinstance(backlog, Backlog)
        return backlog

    def put(self, *delays: float) -> list[str]:
        return [self.topic().put(b"%g" % delay, delay=delay) for delay in delays]

    def set_wall(self, seconds: int) -> None:
        """Set the wall's clock so much ahead; the time that has passed stays as it is."""
        self.clock._start += seconds * SECOND  # type: ignore[misc]  # final to all but who sets it

    def rest(self, name: str = "billing") -> None:
        """Return when no page is wanted, or being read."""
        backlog = self.backlog(name)
        while True:
            until(lambda: not backlog.wanted)
            with backlog._reading:
                if not backlog.wanted:
                    return

    def in_memory(self, name: str = "billing") -> int:
        return len(self.queue(name).deferred)

    def due(self, name: str = "billing") -> list[tuple[float, bytes]]:
        """Let time pass until nothing waits; return when, and what has come."""
        return list(self._due(self.consumer(name)))

    def _due(self, consumer: Consumer[Any]) -> Iterator[tuple[float, bytes]]:
        start = self.clock.time()
        while self.clock.time() < start + 200:
            with suppress(Empty):
                while True:
                    with consumer.get(timeout=0) as message:
                        yield self.clock.time() - start, message.body
            if not consumer.channel.deferred_count:
                return
            self.clock.advance(1)
            self.topic()._check()


def assert_empty(scene: Scene) -> None:
    """Check that the file has no message any more, once all is written and swept."""
    scene.database.flush()
    while scene.database.upkeep():
        pass
    assert [] == scene.rows()


def numbered(*numbers: float) -> list[tuple[float, bytes]]:
    return [(number, b"%g" % number) for number in numbers]


@pytest.mark.parametrize("sync", ["normal", "interval"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 9, 100])
def test_all_come_when_they_are_due(path: Path, size: int, sync: Any) -> None:
    """However few are held in memory, each comes once, in its time, now and after a restart."""
    delays = list(range(1, 61))
    random.Random(size).shuffle(delays)
    with Waiting(path, size, sync=sync) as scene:
        scene.channel()
        for number, delay in enumerate(delays):
            scene.put(delay)
            assert number + 1 == scene.channel().deferred_count
            assert scene.in_memory() <= size
        assert min(60, size) // 2 <= scene.in_memory()
        scene.topic()._check()
        scene.reopen()
        scene.put(61, 0.5)
        assert 62 == scene.channel().deferred_count
        assert scene.in_memory() <= size + 1
        found = scene.due()
        assert [0.5, *range(1, 62)] == [float(body) for _, body in found]
        assert [1, *range(1, 62)] == [round(moment) for moment, _ in found]
        assert EVERYTHING is scene.queue().horizon
        assert_empty(scene)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_many_of_the_same_moment(path: Path, size: int) -> None:
    """They come in the order of their ids, whether they were put one by one or at once."""
    with Waiting(path, size) as scene:
        scene.channel()
        for number in range(10):
            scene.topic().put(b"%d" % number, delay=5)
        scene.topic().put_many([b"%d" % number for number in range(10, 30)], delay=5)
        scene.topic().put(b"before", delay=4)
        assert 31 == scene.channel().deferred_count
        scene.reopen()
        scene.topic().put(b"last", delay=5)
        assert scene.in_memory() <= size + 1
        found = [body for _, body in scene.due()]
        assert [b"before", *(b"%d" % number for number in range(30)), b"last"] == found


def test_what_is_due_in_this_tick_stays_in_memory(path: Path) -> None:
    """However much it is; what is due later does not."""
    with Waiting(path, 1, topics={"resolution": 1.0}) as scene:
        scene.channel()
        scene.clock.advance(0.5)
        scene.put(0.1, 0.2, 0.3)
        assert [3, 0] == [scene.in_memory(), scene.queue().backend_deferred]
        scene.put(3, 4)
        assert [3, 2] == [scene.in_memory(), scene.queue().backend_deferred]
        found = [body for _, body in scene.due()]
        assert [b"0.1", b"0.2", b"0.3", b"3", b"4"] == found


@pytest.mark.parametrize("size", [1, 2, 5])
def test_what_is_requeued_waits_behind_the_horizon_or_before_it(path: Path, size: int) -> None:
    """It comes when it was to, its attempts counted, whatever else waits; also after a restart."""
    with Waiting(path, size) as scene:
        consumer = scene.consumer()
        scene.put(*range(3, 30, 3))
        scene.topic().put_many([b"%d" % number for number in range(1, 30) if number % 3])
        for message in consumer.get_many(100, timeout=0) or ():
            message.req(float(message.body))
        while scene.channel().depth:
            message = consumer.get(timeout=0)
            message.req(float(message.body))
        assert 29 == scene.channel().deferred_count
        assert scene.in_memory() <= size
        for _ in range(2):
            scene.topic()._check()
            scene.reopen()
        assert numbered(*range(1, 30)) == scene.due()


def test_a_page_is_read_ahead(path: Path) -> None:
    """So what falls due is in memory before; nobody who gets has to read."""
    with Waiting(path, 8) as scene:
        consumer = scene.consumer()
        scene.put(*range(1, 41))
        while scene.channel().deferred_count:
            scene.clock.advance(1)
            with consumer.get(timeout=0):
                pass
            scene.rest()
            assert scene.in_memory() >= min(2, scene.channel().deferred_count)
        assert not [name for name, thread in scene.spy.calls if name == "read_deferred" and thread]


# Who waits


def test_a_getter_that_waits_gets_what_only_the_file_had(path: Path) -> None:
    """As the clock comes to it, though it reads nothing itself."""
    with Waiting(path, 1) as scene:
        scene.put(1, 2, 3)
        call = Call(lambda: [scene.consumer().get(timeout=60).body for _ in range(3)])
        for _ in range(3):
            scene.clock.advance(1)
        assert [b"1", b"2", b"3"] == call.result()


def test_a_task_gets_what_only_the_file_had(path: Path) -> None:
    """The same in an event loop, which the file never holds up."""

    async def get(scene: Waiting) -> None:
        consumer = AsyncConsumer(scene.channel())
        with pytest.raises(Empty):
            await consumer.get(timeout=0)
        scene.clock.advance(2)
        assert [b"1", b"2"] == [(await consumer.get(timeout=0)).body for _ in range(2)]
        task = asyncio.ensure_future(consumer.get(timeout=60))
        await asyncio.sleep(0)
        scene.clock.advance(1)
        assert b"3" == (await task).body

    with Waiting(path, 1) as scene:
        scene.channel()
        scene.put(1, 2, 3)
        asyncio.run(get(scene))


def test_a_batch_has_what_is_due_in_the_file(path: Path) -> None:
    """Without waiting, too, and the next one has what is left."""
    with Waiting(path, 2) as scene:
        consumer = scene.consumer()
        scene.put(*range(1, 9))
        with pytest.raises(Empty):
            consumer.get_many(10, timeout=0)
        scene.clock.advance(6)
        found: list[bytes] = []
        while len(found) < 6:
            found += [message.body for message in consumer.get_many(10, timeout=0)]
        assert [b"%d" % number for number in range(1, 7)] == found
        with pytest.raises(Empty) as info:
            consumer.get(timeout=0)
        assert "2 deferred, the next due in" in str(info.value)


def test_what_is_due_waits_in_the_file_while_there_is_much_of_it(path: Path) -> None:
    """A channel that nobody gets from holds a little of it in memory, and all is there."""
    with Waiting(path, 4) as scene:
        scene.put(*range(1, 101))
        scene.clock.advance(200)
        scene.rest()
        scene.clock.advance(1)
        queue = scene.queue()
        assert len(queue.ready) + len(queue.deferred) <= 12
        assert 100 == scene.channel().depth + scene.channel().deferred_count
        assert [b"%d" % number for number in range(1, 101)] == [body for _, body in scene.due()]


def test_what_waits_is_not_starved_by_what_is_ready(path: Path) -> None:
    """However much is ready in the file, what falls due comes behind the next page."""
    with Waiting(path, 4) as scene:
        consumer = scene.consumer()
        scene.topic().put_many([b"ready"] * 1000)
        scene.put(*range(1, 9))
        scene.clock.advance(10)
        first = []
        for _ in range(60):
            with consumer.get(timeout=0) as message:
                first.append(message.body)
            scene.rest()
        assert {b"%d" % number for number in range(1, 9)} <= set(first)


# Beside a page that is being read


@pytest.mark.parametrize("size", [1, 4])
def test_what_comes_to_wait_while_a_page_is_read(path: Path, size: int) -> None:
    """It is neither lost nor does it come twice, before the page, within it or behind it."""
    with Waiting(path, size) as scene:
        consumer = scene.consumer()
        scene.topic().put_many([b"%g" % number for number in (2.5, 9.5, 20.5)])
        messages = [consumer.get(timeout=0) for _ in range(3)]
        with scene.spy.held(DEFERRED) as held:
            scene.put(*range(1, 20))
            scene.clock.advance(1)
            held.until_begun()
            for message in messages:
                message.req(float(message.body) - 1)
            scene.put(0.25, 6.25, 17.25)
            scene.database.flush()
            assert 25 == scene.channel().depth + scene.channel().deferred_count
        found = scene.due()
        expected = sorted([*range(2, 20), 2.5, 9.5, 20.5, 1.25, 7.25, 18.25])
        assert [1, *expected] == [
            float(body) + (1 if body in {b"0.25", b"6.25", b"17.25"} else 0) for _, body in found
        ]
        assert all(
            abs(moment + 1 - one) < 1 for (moment, _), one in zip(found[1:], expected, strict=True)
        )


@pytest.mark.parametrize("late", [False, True])
def test_a_page_of_a_channel_that_was_emptied(path: Path, late: bool) -> None:
    """It is thrown away; what is put then waits as usual."""
    with Waiting(path, 2) as scene:
        scene.channel()
        with scene.spy.held(DEFERRED) as held:
            scene.put(*range(1, 20))
            scene.clock.advance(3)
            held.until_begun()
            if late:
                scene.put(6)
            assert 19 + late == scene.channel().empty()
            scene.put(7, 8, 9, 10)
        assert [b"7", b"8", b"9", b"10"] == [body for _, body in scene.due()]
        assert_empty(scene)


def test_a_page_of_a_channel_that_was_deleted(path: Path) -> None:
    """Nothing is left of it."""
    with Waiting(path, 2) as scene:
        channel = scene.channel()
        with scene.spy.held(DEFERRED) as held:
            scene.put(*range(1, 20))
            scene.clock.advance(3)
            held.until_begun()
            assert 19 == channel.delete()
        assert 0 == scene.channel().deferred_count
        assert [] == scene.due()


def test_a_page_that_cannot_be_read_is_read_later(path: Path) -> None:
    """Whoever gets hears of it, and health tells; who waits gets it when it can be read."""
    with Waiting(path, 1) as scene:
        consumer = scene.consumer()
        with scene.spy.failing(StoreError("jobs.db", "it cannot be read"), DEFERRED):
            scene.put(1, 2, 3)
            until(lambda: scene.broker.health != "OK")
            call = Call(lambda: scene.consumer().get(timeout=100).body)
            until(lambda: scene.queue().waiters.threads)
            scene.clock.advance(1)
            with pytest.raises(StoreError, match="it cannot be read"):
                consumer.get(timeout=0)
            assert 3 == scene.channel().deferred_count
        assert b"1" == call.result()
        until(lambda: scene.broker.health == "OK")
        scene.clock.advance(1)
        assert b"2" == consumer.get(timeout=0).body


# What the topic holds


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("wait", [0, 7, 30])
def test_what_a_topic_holds_waits_in_the_file_too(
    path: Path, size: int, restart: bool, wait: int
) -> None:
    """When it is handed on, each channel has all of it, and what it had before, once."""
    with Waiting(path, size) as scene:
        scene.channel(), scene.channel("audit")
        scene.put(*range(1, 20, 2))
        scene.topic().pause()
        scene.put(*range(2, 21, 2))
        assert (10, 10) == (scene.topic().depth, scene.channel().deferred_count)
        assert len(scene.topic()._fan.held.deferred) <= size
        scene.clock.advance(wait)
        consumer = scene.consumer()
        flying = []
        with suppress(Empty):
            while True:
                flying.append(consumer.get(timeout=0))
        assert min(10, (wait + 1) // 2) == len(flying)
        if restart:
            scene.reopen()
        scene.topic().unpause()
        assert 0 == scene.topic().depth
        if not restart:
            assert 20 == scene.channel().stats().in_flight_count + (
                scene.channel().depth + scene.channel().deferred_count
            )
            for message in flying:
                message.fin()
        for name in ("billing", "audit"):
            gone = len(flying) if name == "billing" and not restart else 0
            found = sorted(int(body) for _, body in scene.due(name))
            left = set(range(1, 21)) - set(range(1, 20, 2)[:gone])
            assert sorted(left) == found
        assert_empty(scene)


def test_a_first_channel_gets_what_waited_for_it(path: Path) -> None:
    """One of a store, and an ephemeral one, which has all of it in memory."""
    for name in ("billing", "live#ephemeral"):
        path = path.with_name(f"{len(name)}.db")
        with Waiting(path, 2) as scene:
            scene.topic().put_many([b"same"] * 9, delay=5)
            scene.put(*range(1, 20))
            scene.reopen()
            assert 28 == scene.topic().depth
            assert 28 == scene.channel(name).deferred_count
            found = [body for _, body in scene.due(name)]
            assert sorted([b"same"] * 9 + [b"%d" % n for n in range(1, 20)]) == sorted(found)


def test_what_a_topic_holds_is_emptied(path: Path) -> None:
    """All of it, wherever it is; what waits for a channel already stays."""
    with Waiting(path, 2) as scene:
        scene.channel()
        scene.put(*range(1, 10))
        scene.topic().pause()
        scene.put(*range(1, 20))
        assert 19 == scene.topic().empty()
        scene.topic().unpause()
        assert [b"%d" % number for number in range(1, 10)] == [body for _, body in scene.due()]
        assert_empty(scene)


@pytest.mark.parametrize("restart", [False, True])
def test_what_was_moved_here_alone_is_emptied(path: Path, restart: bool) -> None:
    """Also where it waits in the file, and the topic is paused, so that its id says nothing."""
    with Waiting(path, 2) as scene:
        consumer = scene.consumer()
        other = Consumer(scene.channel("a", "other"))
        scene.topic("other").put_many([b"moved"] * 6)
        scene.topic().pause()
        for _ in range(6):
            other.move(other.get(timeout=0), scene.channel())
        for _ in range(6):
            consumer.get(timeout=0).req(50)
        if restart:
            scene.reopen()
        assert scene.in_memory() <= 2
        assert 6 == scene.channel().empty()
        scene.reopen()
        scene.topic().unpause()
        assert [] == scene.due()
        assert_empty(scene)


# Time


def test_a_clock_that_is_set_changes_no_wait(path: Path) -> None:
    """What waits in the file does so as long as was asked for, as what waits in memory."""
    with Waiting(path, 2) as scene:
        scene.channel()
        scene.put(*range(1, 6))
        scene.set_wall(3600)
        scene.put(*range(6, 11))
        scene.set_wall(-7200)
        scene.put(*range(11, 16))
        assert numbered(*range(1, 16)) == [
            (moment, body) for moment, body in scene.due() if moment < 1000
        ]


def test_a_time_that_is_damaged(path: Path) -> None:
    """It cannot be told until when such a message waits: it comes at once, as damaged."""
    with Waiting(path, 2) as scene:
        scene.channel()
        scene.put(*range(1, 10))
        scene.database.flush()
        scene.broker.close()
        with closing(sqlite3.connect(path)) as file, file:
            ids = [one for (one,) in file.execute("SELECT id FROM messages_1 ORDER BY id")]
            for identity, due in zip(ids[3:6], ("soon", b"later", 5.5), strict=True):
                file.execute("UPDATE messages_1 SET due = ? WHERE id = ?", (due, identity))
        scene.open()
        found: list[Any] = [body for _, body in scene.due()]
        assert 3 == sum(isinstance(body, Undecodable) for body in found)
        intact = [body for body in found if body.__class__ is bytes]
        assert [b"1", b"2", b"3", b"7", b"8", b"9"] == intact


def test_the_next_moment_is_known(path: Path) -> None:
    """A clock that moves from one to the next finds what is in the file alone."""
    with Waiting(path, 1) as scene:
        consumer = scene.consumer()
        scene.put(*range(10, 100, 10))
        bodies = []
        while scene.clock.advance_to_next() is not None:
            with suppress(Empty), consumer.get(timeout=0) as message:
                bodies.append(message.body)
            scene.rest()
        assert [b"%d" % number for number in range(10, 100, 10)] == bodies


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("sync", ["normal", "interval"])
def test_large_bodies_that_wait(path: Path, at_once: int, sync: Any) -> None:
    """So many of them are in memory as have room there, now and after a restart."""
    options: dict[str, Any] = {"mem_queue_bytes": 10_000, "sync": sync}
    with pages_of(5000), Waiting(path, 1000, **options) as scene:
        scene.channel()
        for delay in range(1, 41):
            scene.topic().put_many([b"%02d" % delay * 1000] * at_once, delay=delay)
            assert scene.in_memory() <= 8
        assert 40 * at_once == scene.channel().deferred_count
        scene.reopen()
        assert scene.in_memory() <= 4
        assert 40 * at_once == scene.channel().deferred_count
        assert [delay for delay in range(1, 41) for _ in range(at_once)] == [
            int(body[:2]) for _, body in scene.due()
        ]
        assert_empty(scene)


def test_what_is_requeued_with_a_large_body(path: Path) -> None:
    """The same, and what a codec makes of a body counts as that does, about."""
    options: dict[str, Any] = {"mem_queue_bytes": 10_000, "codec": "json"}
    with pages_of(5000), Waiting(path, 1000, **options) as scene:
        consumer = scene.consumer()
        for number in range(1, 41):
            scene.topic().put([number, "x" * 2000])
            consumer.get(timeout=0).req(number)
            assert scene.in_memory() <= 12
        assert 40 == scene.channel().deferred_count
        assert list(range(1, 41)) == [body[0] for _, body in scene.due()]


def test_a_bounded_channel_leaves_what_waits_to_the_file(path: Path) -> None:
    """It needs no room there, and takes it when it is due; what is ready is in memory."""
    with Waiting(path, 2) as scene:
        channel = scene.channel(max_depth=3)
        scene.put(*range(1, 20))
        scene.topic().put_many([b"a", b"b", b"c"])
        assert scene.in_memory() <= 2
        with pytest.raises(nsqlite.Full):
            scene.topic().put(b"d", timeout=0)
        assert (3, 19) == (channel.depth, channel.deferred_count)
        assert 22 == len(scene.due())


# Found by attacks


class CoarseClock(ManualClock):
    """A clock whose ticks are as long as the system's."""

    resolution = 10_000_000


def test_who_sleeps_is_served_after_a_pause(path: Path) -> None:
    """What a topic held in the file alone is read as soon as it is handed on."""
    with Waiting(path, 1) as scene:
        consumer = scene.consumer()
        scene.topic().pause()
        scene.put(1, 2)
        assert 0 == len(scene.topic()._fan.held.deferred)
        call = Call(lambda: consumer.get(timeout=60).body)
        until(lambda: scene.queue().waiters.threads)
        scene.topic().unpause()
        scene.rest()
        scene.clock.advance(1)
        assert b"1" == call.result()


@pytest.mark.parametrize("size", [1, 10])
@pytest.mark.parametrize("name", ["emit", "hear", "_note", "note", "wall"])
def test_a_signal_as_something_is_requeued(
    path: Path, name: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is noted all the same, so that the file knows until when it waits."""
    places: dict[str, Any] = {
        "emit": Queue,
        "hear": Backlog,
        "_note": Backlog,
        "note": Journal,
        "wall": TopicRecord,
    }
    with Waiting(path, size) as scene:
        consumer = scene.consumer()
        scene.put(1, 2)
        scene.topic().put(b"5")
        message = consumer.get(timeout=0)
        scene.rest()
        struck: list[str] = []

        def strike(*_: object, **__: object) -> None:
            monkeypatch.undo()
            struck.append(name)
            raise KeyboardInterrupt

        monkeypatch.setattr(places[name], name, strike)
        with pytest.raises(KeyboardInterrupt):
            message.req(5)
        assert [name] == struck
        scene.topic()._check()
        if size > 1:
            scene.reopen()
        assert numbered(1, 2, 5) == scene.due()


def test_a_page_beside_a_put_that_is_being_written(path: Path) -> None:
    """It has what was shown with a higher id, as what is moved is, and not the put."""
    with Waiting(path, 4) as scene:
        consumer = scene.consumer()
        other = Consumer(scene.channel("audit", "other"))
        scene.topic("other").put(b"15")
        moved = other.get(timeout=0)
        scene.put(1, 2, 20, 30, 40)
        scene.rest()
        scene.database.flush()
        with scene.spy.held() as held:
            call = Call(lambda: scene.topic().put(b"12", delay=12))
            held.until_begun()
            other.move(moved, scene.topic())
            consumer.get(timeout=0).req(15)
            scene.clock.advance(2)
            for _ in range(2):
                consumer.get(timeout=0).fin()
        call.result()
        scene.rest()
        assert [b"12", b"15", b"20", b"30", b"40"] == [body for _, body in scene.due()]


@pytest.mark.parametrize("held", [0, 3, 12])
@pytest.mark.parametrize("own", [3, 12])
@pytest.mark.parametrize("size", [2, 8, 40])
def test_ticks_of_another_length(path: Path, size: int, own: int, held: int) -> None:
    """A channel whose ticks are not its topic's, nor those that it had before, gets all in time.

    Whether what it had, or what the topic held, was in memory or in the file.
    """
    clock = CoarseClock()
    with Scene(path, clock=clock, mem_queue_size=size) as scene:
        scene.channel()
        number = 0
        for resolution in (0.001, 0.25, 0.003):
            scene.reopen()
            channel = scene.channel(resolution=resolution)
            for _ in range(own):
                number += 1
                scene.topic().put(b"x", delay=1 + number % 7 / 1000 + 0.0003)
            scene.topic().pause()
            for _ in range(held):
                number += 1
                scene.topic().put(b"x", delay=1 + number % 7 / 1000 + 0.0001)
            scene.topic().unpause()
            channel._check()
            assert number == channel.deferred_count
        consumer = Consumer(channel)
        clock.advance(0.5)
        with pytest.raises(Empty):
            consumer.get(timeout=0)
        clock.advance(0.8)
        assert number == len(bodies(channel))
        assert 0 == channel.deferred_count


def test_ticks_of_another_length_and_too_much_in_memory(path: Path) -> None:
    """All of it is left to the file, since its ticks do not say when it is due."""
    clock = CoarseClock()
    with Scene(path, clock=clock, mem_queue_size=10) as scene:
        scene.channel()
        for number in range(4):
            scene.topic().put(b"x", delay=1.0033 + number / 100)
        scene.reopen()
        channel = scene.channel(resolution=0.25)
        for number in range(12):
            scene.topic().put(b"x", delay=1.0033 + number / 100)
            channel._check()
            assert 5 + number == channel.deferred_count
        clock.advance(1.25)
        assert 16 == len(bodies(channel))


def test_what_is_taken_over_twice_is_there_once(path: Path) -> None:
    """As where a signal has struck who handed it on."""
    with Waiting(path, 2) as scene:
        scene.put(*range(1, 10))
        scene.reopen()
        held = scene.topic()._fan.held
        topic = scene.topic()
        monitor = topic._monitor
        backlog = scene.backlog()
        topic.pause()
        scene.put(*range(10, 20))
        with monitor.lock:
            for _ in range(2):
                backlog.take_over_deferred(held.persistence)
            taken = scene.queue().backend_deferred
        topic.unpause()
        assert 19 == scene.channel().deferred_count, taken
        topic._check()
        assert numbered(*range(1, 20)) == scene.due()


def test_what_waits_in_the_file_is_not_starved(path: Path) -> None:
    """Not by what comes back again and again, nor by a bound that is always reached."""
    bound: dict[str, Any] = {"max_depth": 20}
    for name, options in (("a", {}), ("b", bound)):
        with Waiting(path.with_name(f"{name}.db"), 4) as scene:
            channel = scene.channel(**options)
            scene.put(*range(1, 13))
            scene.topic().put_many([b"x"] * 20)
            consumer = Consumer(channel)
            scene.clock.advance(50)
            seen = set()
            for _ in range(400):
                message = consumer.get(timeout=0)
                seen.add(message.body)
                if options and message.body == b"x":
                    message.fin()
                    with suppress(nsqlite.Full):
                        scene.topic().put(b"x", timeout=0)
                elif message.body == b"x":
                    message.req()
                else:
                    message.fin()
                scene.rest()
            assert {b"%d" % number for number in range(1, 13)} < seen


@pytest.mark.parametrize("kind", [Consumer, AsyncConsumer])
def test_take_finds_what_has_fallen_due(path: Path, kind: Any) -> None:
    """In the file, too, page by page, where it may read."""
    with Waiting(path, 4) as scene:
        scene.channel()
        scene.put(*range(1, 31))
        scene.clock.advance(40)
        consumer = kind(scene.channel())
        found: list[bytes] = []
        while messages := consumer.take(100):
            found += [message.body for message in messages]
        assert [b"%d" % number for number in range(1, 31)] == found


@pytest.mark.parametrize("when_full", ["drop newest", "drop oldest"])
def test_a_channel_that_drops_has_all_that_waits_in_memory(path: Path, when_full: Any) -> None:
    """So what is dropped is what would be dropped without a store, also after a restart."""
    with Waiting(path, 4) as scene:
        for _ in range(2):
            channel = scene.channel(max_depth=10, when_full=when_full)
            scene.put(*range(1, 21))
            until(lambda: scene.in_memory() == scene.channel().deferred_count)
            scene.topic().pause()
            scene.put(*range(1, 11))
            scene.reopen()
            scene.channel(max_depth=10, when_full=when_full)
            scene.topic().unpause()
        channel = scene.channel(max_depth=10, when_full=when_full)
        assert 60 == channel.deferred_count
        until(lambda: scene.in_memory() == 60)
        scene.clock.advance(30)
        assert 60 == channel.depth
        scene.topic().put(b"new")
        assert (when_full == "drop oldest") is (b"new" in bodies(channel))


def test_a_file_that_takes_long_to_open_changes_no_wait(path: Path) -> None:
    """What is put then waits as long as was asked for, after another start as well."""
    with Waiting(path, 4) as scene:
        scene.channel()
        scene.reopen()
        set_clock = scene.database._storage.set_clock

        def slow(now: int) -> None:
            scene.clock._elapsed += 8 * SECOND
            set_clock(now)

        with patch.object(scene.spy, "set_clock", side_effect=slow):
            scene.channel()
        scene.put(5, 6)
        scene.reopen()
        assert numbered(5, 6) == scene.due()


def test_within_a_tick_nobody_reads_again_and_again(path: Path) -> None:
    """Whoever gets hears that nothing is due before the tick ends."""
    clock = CoarseClock()
    with Scene(path, clock=clock, mem_queue_size=4) as scene:
        consumer = scene.consumer()
        for number in range(8):
            scene.topic().put(b"%d" % number, delay=0.001 + number / 10_000)
        clock.advance(0.005)
        with pytest.raises(Empty):
            consumer.get(timeout=0)
        clock.advance(0.005)
        assert 8 == len(bodies(scene.channel()))


@pytest.mark.parametrize("step", [3600, -3600])
@pytest.mark.parametrize("size", [1, 10])
def test_a_clock_that_was_set_before_a_restart(path: Path, step: int, size: int) -> None:
    """What was put before that or after waits as long as was asked for."""
    with Waiting(path, size) as scene:
        consumer = scene.consumer()
        scene.topic().put(b"150")
        message = consumer.get(timeout=0)
        scene.put(*range(10, 60, 10))
        scene.set_wall(step)
        scene.put(*range(60, 120, 10))
        message.req(150)
        scene.reopen()
        assert numbered(*range(10, 120, 10), 150) == scene.due()


def test_a_signal_as_a_page_is_wanted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is wanted again: whoever sleeps is served."""
    with Waiting(path, 1) as scene:
        scene.channel()
        scene.put(1, 2, 3)
        scene.rest()
        calls = [Call(lambda: scene.consumer().get(timeout=60).body) for _ in range(3)]
        until(lambda: len(scene.queue().waiters.able) == 3)

        def strike(*_: object) -> None:
            monkeypatch.undo()
            raise KeyboardInterrupt

        monkeypatch.setattr(Database, "want", strike)
        with suppress(KeyboardInterrupt):
            scene.clock.advance(1)
        for _ in range(3):
            scene.rest()
            scene.clock.advance(1)
        assert [b"1", b"2", b"3"] == sorted(call.result() for call in calls)


def test_what_is_overdue_costs_a_put_little(path: Path) -> None:
    """Nobody sweeps it, and nothing of it can be left to the file."""
    with Waiting(path, 4) as scene:
        scene.channel()
        for _ in range(3):
            scene.put(*(number / 1000 for number in range(1, 5)))
            scene.clock._elapsed += SECOND  # as time passes, with nobody who looks
        deferred = scene.backlog()._deferred
        looks = []
        cut = deferred._cut

        def looked(until_: int) -> Any:
            looks.append(until_)
            return cut(until_)

        with patch.object(Deferred, "_cut", side_effect=looked):
            scene.put(*([0.001] * 100))
        assert len(looks) < 20
        assert 112 == len(scene.due())
