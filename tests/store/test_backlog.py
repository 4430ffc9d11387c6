"""A backlog: what lies in the file alone is read page by page, once; what happened is noted."""

import asyncio
import itertools
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import Call, bodies

from nsqlite import (
    Closed,
    Consumer,
    Empty,
    InvalidMessage,
    NotInFlight,
    Reentered,
    StoreError,
    StoreFull,
)
from nsqlite.events import Kind
from nsqlite.options import CENTURY
from nsqlite.queue import Queue
from nsqlite.store.backlog import Backlog
from nsqlite.store.deferred import PAGE
from nsqlite.testing import ManualClock
from nsqlite.timeline import Recorder
from store.stores import Scene, everything, finished, pages_of, threads_in, throw, until

SECOND = 1_000_000_000


def backlog_of(scene: Scene, name: str = "billing") -> Backlog:
    backlog = scene.channel(name)._queue.persistence
    assert isinstance(backlog, Backlog)
    return backlog


def numbered(*numbers: int) -> list[bytes]:
    return [b"%d" % number for number in numbers]


# Bytes


@pytest.mark.parametrize("sync", ["normal", "interval"])
@pytest.mark.parametrize("way", ["one by one", "at once", "some"])
def test_large_bodies_have_room_in_memory_for_a_few(path: Path, way: str, sync: Any) -> None:
    """What is more than that lies in the file, and all come in order."""
    options: dict[str, Any] = {"mem_queue_size": 1000, "mem_queue_bytes": 10_000, "sync": sync}
    with pages_of(5000), Scene(path, **options) as scene:
        queue = scene.channel()._queue
        large = [b"%02d" % number * 1000 for number in range(40)]
        size = {"one by one": 1, "at once": 40, "some": 3}[way]
        for first in range(0, 40, size):
            scene.topic().put_many(large[first : first + size])
            assert len(queue.ready) <= 5
        for body in large:
            scene.topic().put(body)
        assert len(queue.ready) <= 5
        assert 80 == scene.channel().depth
        most = 0
        for number in range(80):
            with scene.consumer().get(timeout=0) as message:
                assert large[number % 40] == message.body
            most = max(most, len(queue.ready))
        assert most <= 5


@pytest.mark.parametrize("sync", ["normal", "interval"])
def test_a_body_that_is_larger_than_all_memory(path: Path, sync: Any) -> None:
    """One is in memory, since something has to be; and small ones behind it are not refused."""
    options: dict[str, Any] = {"mem_queue_size": 100, "mem_queue_bytes": 1000, "sync": sync}
    with pages_of(1), Scene(path, **options) as scene:
        for number in range(3):
            scene.topic().put(b"%d" % number * 5000)
            scene.topic().put(b"small")
        assert len(scene.channel()._queue.ready) <= 3
        lengths = [len(body) for body in bodies(scene.channel())]
        assert [5000, 5] * 3 == lengths


def test_small_bodies_cost_no_sum(path: Path) -> None:
    """They count as messages: as many as `mem_queue_size` are in memory."""
    with Scene(path, mem_queue_size=100, mem_queue_bytes=1000) as scene:
        scene.channel()
        for _ in range(120):
            scene.topic().put(b"0123456789")
        assert [100, 20] == [
            len(scene.channel()._queue.ready),
            scene.channel().stats().backend_depth,
        ]


def test_bodies_of_a_codec_count_as_what_it_makes_of_them(path: Path) -> None:
    """About: as those that were put last did."""
    options: dict[str, Any] = {"mem_queue_size": 1000, "mem_queue_bytes": 10_000, "codec": "json"}
    with pages_of(5000), Scene(path, **options) as scene:
        for number in range(40):
            scene.topic().put([number, "x" * 2000])
            assert len(scene.channel()._queue.ready) <= 12
        assert list(range(40)) == [body[0] for body in bodies(scene.channel())]


# Pages


@pytest.mark.parametrize("sync", ["normal", "interval"])
@pytest.mark.parametrize("size", range(1, 8))
@pytest.mark.parametrize("way", ["get", "get_many", "at once", "mixed"])
def test_all_come_in_order(path: Path, size: int, way: str, sync: Any) -> None:
    """However few are held in memory, all come, once, in the order in which they were put."""
    with Scene(path, mem_queue_size=size, sync=sync) as scene:
        consumer = scene.consumer()
        for number in range(12):
            scene.topic().put(b"%d" % number)
        scene.topic().put_many(numbered(*range(12, 20)))
        assert 20 == scene.channel().depth
        assert 20 - size == scene.channel().stats().backend_depth
        scene.topic()._check()
        found: list[Any] = []
        more = numbered(*range(20, 25))
        while len(found) < 25:
            if way == "get_many" or (way == "mixed" and len(found) % 2):
                batch = consumer.get_many(3, timeout=5)
                found += [message.body for message in batch]
                consumer.fin_many(batch)
            else:
                message = consumer.get(timeout=0 if way == "at once" else 20)
                found.append(message.body)
                message.fin()
            scene.topic()._check()
            if len(found) >= 13 and more:
                scene.topic().put_many(more)
                more = []
        assert numbered(*range(25)) == found
        assert 0 == scene.channel().depth
        with pytest.raises(Empty):
            consumer.get(timeout=0)
        scene.broker.flush()
        assert [[], []] == [scene.disk(), scene.rows()]


@pytest.mark.parametrize("size", [1, 3])
def test_all_come_after_the_file_was_opened(path: Path, size: int) -> None:
    """A backlog of the file is read page by page, behind what is put meanwhile nothing is lost."""
    with Scene(path) as scene:
        scene.channel()
        scene.topic().put_many(numbered(*range(10)))
    with Scene(path, mem_queue_size=size) as scene:
        channel = scene.channel()
        assert [10, 10] == [channel.depth, channel.stats().backend_depth] or channel.depth == 10
        scene.topic().put(b"10")
        assert numbered(*range(11)) == bodies(channel)


def test_a_page_has_its_limit(path: Path) -> None:
    """No more than a page is read at a time, nor more than memory is to hold."""
    with Scene(path, mem_queue_size=3 * PAGE) as scene:
        scene.channel()
        scene.topic().put_many([b"1"] * (PAGE + 10))
        scene.reopen()
        channel = scene.channel()
        with Consumer(channel) as consumer:
            consumer.get(timeout=0)
        assert channel.depth == PAGE + 10
        assert len(channel._queue.ready) >= PAGE


def test_who_waits_is_fed(path: Path) -> None:
    """A consumer that waits gets what lies in the file, which the store's thread reads."""
    with Scene(path) as scene:
        scene.channel()
        scene.topic().put_many(numbered(1, 2))
    with Scene(path, mem_queue_size=1) as scene:
        consumer = scene.consumer()
        assert [b"1", b"2"] == [consumer.get(timeout=5).body for _ in "12"]
        waiting = Call(lambda: consumer.get(timeout=5).body)
        scene.topic().put_many(numbered(3, 4, 5))
        assert b"3" == waiting.result()
        assert [b"4", b"5"] == [consumer.get().body for _ in "45"]


def test_two_consumers_share_a_backlog(path: Path) -> None:
    """Consumers in threads get each message once while pages are read."""
    with Scene(path, mem_queue_size=3) as scene:
        scene.channel()
        scene.topic().put_many(numbered(*range(300)))

        def work() -> list[Any]:
            found: list[Any] = []
            with Consumer(scene.channel()) as consumer:
                while True:
                    try:
                        message = consumer.get(timeout=0)
                    except Empty:
                        return found
                    found.append(message.body)
                    message.fin()

        calls = [Call(work) for _ in range(4)]
        shares = [call.result() for call in calls]
        assert sorted(numbered(*range(300))) == sorted(body for share in shares for body in share)
        for share in shares:
            assert share == sorted(share, key=int)


def test_what_is_requeued_and_paged(path: Path) -> None:
    """What is requeued, or waits, while others lie in the file alone is delivered again, once."""
    clock = ManualClock()
    with Scene(path, mem_queue_size=2, clock=clock) as scene:
        consumer = scene.consumer()
        scene.topic().put_many(numbered(*range(6)))
        consumer.get(timeout=0).req()
        consumer.get(timeout=0).req(delay=5)
        assert b"2" == consumer.get(timeout=0).body  # what came back waits behind a page
        assert 4 == scene.channel().depth
        scene.topic()._check()
        scene.reopen()
        channel = scene.channel()
        assert [5, 1] == [channel.depth, channel.deferred_count]
        assert [5.0] == [info.due_in for info in channel.deferred()]
        clock.advance(5)
        found = everything(channel)
        assert [(b"0", 2), (b"1", 2), (b"2", 2), (b"3", 1), (b"4", 1), (b"5", 1)] == sorted(found)
        assert 0 == channel.depth


def test_peek_shows_what_is_in_the_file(path: Path) -> None:
    """A look at a channel with nothing in memory reads a page; at an empty one it reads none."""
    with Scene(path) as scene:
        scene.channel()
        scene.topic().put_many(numbered(1, 2, 3))
    with Scene(path, mem_queue_size=2) as scene:
        channel = scene.channel()
        assert [b"1", b"2"] == [info.body for info in channel.peek()]
        reads = len(scene.spy.reads)
        assert [b"1"] == [info.body for info in channel.peek(1)]
        assert reads == len(scene.spy.reads)
        assert 3 == channel.depth
        channel.empty()
        assert [] == channel.peek()
        assert reads == len(scene.spy.reads)


def test_a_paused_channel_is_not_read(path: Path) -> None:
    """A channel that delivers nothing just now has no page read by `get`."""
    with Scene(path, mem_queue_size=1) as scene:
        consumer = scene.consumer()
        scene.topic().put_many(numbered(1, 2))
        scene.channel().pause()
        with pytest.raises(Empty):
            consumer.get(timeout=0)
        scene.channel().unpause()
        assert [b"1", b"2"] == [consumer.get(timeout=0).body for _ in "12"]


def test_empty_while_a_page_is_read(path: Path) -> None:
    """A page that arrives after the channel was emptied is thrown away; what came since is not."""
    with Scene(path, mem_queue_size=1) as scene:
        channel = scene.channel()
        scene.topic().put_many(numbered(1, 2, 3))
        Consumer(channel).get(timeout=0)
        scene.reopen()
        channel = scene.channel()

        def meanwhile() -> None:
            assert 3 == Call(channel.empty).result()
            Call(lambda: scene.topic().put(b"4")).result()

        scene.spy.once(meanwhile, ("read",), late=True)
        assert [b"4"] == [info.body for info in channel.peek()]
        scene.topic()._check()
        assert [b"4"] == bodies(channel)
        scene.broker.flush()
        assert [] == scene.disk()


@pytest.mark.parametrize("end", ["close", "delete"])
def test_a_channel_ends_while_a_page_is_read(path: Path, end: str) -> None:
    """A page that arrives when the channel is over is forgotten."""
    with Scene(path) as scene:
        scene.channel()
        scene.topic().put_many(numbered(1, 2))
    with Scene(path, mem_queue_size=1) as scene:
        channel = scene.channel()
        scene.spy.once(lambda: Call(getattr(channel, end)).result(), ("read",), late=True)
        channel.peek()
        assert channel.closed
        scene.topic()._check()
        scene.reopen()
        expected = [(b"1", 1), (b"2", 1)] if end == "close" else []
        assert expected == everything(scene.channel())


def test_a_page_that_cannot_be_read(path: Path) -> None:
    """`get` without waiting raises what the store says; nothing has changed, and it can go on."""
    with Scene(path) as scene:
        scene.channel()
        scene.topic().put_many(numbered(1, 2))
    with Scene(path, mem_queue_size=1) as scene:
        problem = StoreError("jobs.db", "torn")
        with scene.spy.failing(problem, ("read",)):
            consumer = scene.consumer()
            with pytest.raises(StoreError, match="torn"):
                consumer.get(timeout=0)
            with pytest.raises(StoreError, match="torn"):
                scene.channel().peek()
        assert 2 == scene.channel().depth
        assert [b"1", b"2"] == [consumer.get(timeout=0).body for _ in "12"]


def test_a_count_that_was_wrong_is_put_right(path: Path) -> None:
    """Where the file has fewer messages than were counted, whoever asks comes to an end."""
    with Scene(path) as scene:
        channel = scene.channel()
        channel._queue.backend_depth = 5
        with pytest.raises(Empty):
            Consumer(channel).get(timeout=0)
        assert 0 == channel.depth


def test_more_than_was_counted(path: Path) -> None:
    """Where the file has more than was counted, all of it comes."""
    with Scene(path) as scene:
        scene.channel()
        scene.topic().put_many(numbered(1, 2, 3))
    with Scene(path, mem_queue_size=1) as scene:
        channel = scene.channel()
        channel.peek()
        channel._queue.backend_depth = 1
        assert numbered(1, 2, 3) == bodies(channel)


# What is noted


def test_answers_are_in_the_file_after_a_flush(path: Path) -> None:
    """FIN, REQ, attempts and time-outs are written late, and together."""
    clock = ManualClock()
    with Scene(path, clock=clock) as scene:
        consumer = scene.consumer()
        scene.topic().put_many(numbered(1, 2, 3, 4, 5))
        messages = [consumer.get(timeout=0) for _ in range(4)]
        messages[0].fin()
        messages[1].req()
        messages[2].req(delay=7)
        assert [(body, 1) for body in numbered(1, 2, 3, 4, 5)] == scene.disk()
        writes = len(scene.spy.calls)
        scene.broker.flush()
        assert ["write"] == scene.spy.names()[writes:]
        with scene.as_on_disk() as copy:
            channel = copy.channel()
            assert [(b"2", 2), (b"4", 2), (b"5", 1)] == everything(channel)
            assert [(7.0, 1, b"3")] == [(i.due_in, i.attempts, i.body) for i in channel.deferred()]
        clock.advance(60)
        assert [b"5", b"2", b"3", b"4"] == [info.body for info in scene.channel().peek()]
        scene.broker.flush()
        assert [(b"2", 2), (b"3", 2), (b"4", 2), (b"5", 1)] == sorted(scene.disk())


def test_what_nobody_answered_is_ready_again(path: Path) -> None:
    """What was in flight comes back ready, its attempts counted."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        scene.topic().put_many(numbered(1, 2))
        consumer.get_many(1, timeout=0)
        consumer.get_many(1, timeout=0)
        scene.broker.flush()
        assert [(b"1", 2), (b"2", 2)] == scene.disk()
        consumer.close()
        scene.broker.flush()
        assert [(b"1", 2), (b"2", 2)] == scene.disk()


def test_a_delivery_that_did_not_arrive_is_not_counted(path: Path) -> None:
    """What is given back as if it had never been delivered is not counted in the file either."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        scene.topic().put(b"1")
        message = consumer.get(timeout=0)
        scene.broker.flush()
        scene.channel()._monitor.run(consumer._return, [message])
        scene.broker.flush()
        assert [(b"1", 1)] == scene.disk()


def test_notes_that_cannot_be_written_are_kept(path: Path) -> None:
    """What could not be written is written later, the last of each message alone."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        scene.topic().put_many(numbered(1, 2, 3))
        first, second = (consumer.get(timeout=0) for _ in "12")
        first.fin()
        with scene.spy.failing(), pytest.raises(StoreFull):
            scene.broker.flush()
        second.fin()
        consumer.get(timeout=0)
        scene.broker.flush()
        assert [(b"3", 2)] == scene.disk()


def test_an_emptied_channel_is_empty_in_the_file(path: Path) -> None:
    """What was emptied does not come back, nor does what had been moved there alone."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        audit = scene.channel("audit")
        scene.topic().put_many(numbered(1, 2))
        scene.topic().put(b"3", delay=100)
        consumer.move(consumer.get(timeout=0), audit)
        assert 4 == audit.empty()
        assert 2 == scene.channel().empty()
        assert [] == scene.disk() == scene.disk("audit")
        while scene.database.upkeep():
            pass
        assert [] == scene.rows()
        scene.topic().put(b"4")
        assert [(b"4", 1)] == scene.disk() == scene.disk("audit")


def test_an_observer_changes_nothing(path: Path) -> None:
    """With somebody who observes, all is noted just the same."""
    with Scene(path) as scene:
        recorder = Recorder()
        scene.topic().observe(recorder)
        consumer = scene.consumer()
        scene.topic().put_many(numbered(1, 2, 3, 4))
        consumer.get(timeout=0).fin()
        consumer.get(timeout=0).req()
        consumer.get_many(1)[0].touch()
        scene.broker.flush()
        assert [(b"2", 2), (b"3", 2), (b"4", 1)] == sorted(scene.disk())
        kinds = {event.kind for event in recorder.events}
        assert {Kind.PUBLISHED, Kind.DELIVERED, Kind.FINISHED, Kind.REQUEUED} <= kinds


@pytest.mark.parametrize("attempts", ["late", "durable"])
def test_what_is_special_is_noted_the_same(path: Path, attempts: Any) -> None:
    """A measured channel, a window, another time-out and a bound change nothing of it."""
    measured = {"e2e_processing_latency_percentiles": [0.5]}
    with Scene(path, topics=measured, attempts=attempts) as scene:
        channel = scene.channel(max_depth=100)
        scene.topic().put_many(numbered(1, 2, 3, 4, 5))
        consumer = Consumer(channel, max_in_flight=2, msg_timeout=5)
        consumer.get(timeout=0).fin()
        consumer.get_many(2)[0].req()
        with pytest.raises(Empty):
            consumer.get_many(1, timeout=0)
            consumer.get(timeout=0)
        consumer.close()
        scene.broker.flush()
        found = dict(scene.disk())
        assert {b"2", b"3", b"4", b"5"} == set(found)
        assert 2 == found[b"2"]
        assert 1 == found[b"5"]


def test_what_is_refused_is_not_noted(path: Path) -> None:
    """Another's message, one that is answered, a full window, a closed consumer: all as ever."""
    with Scene(path) as scene:
        first, second = scene.consumer(), Consumer(scene.channel(), max_in_flight=1)
        scene.topic().put_many(numbered(1, 2, 3, 4))
        message = first.get(timeout=0)
        second.get(timeout=0)
        with pytest.raises(NotInFlight):
            second.fin(message)
        message.fin()
        with pytest.raises(NotInFlight):
            message.fin()
        with pytest.raises(Empty):
            second.get(timeout=0)
        with pytest.raises(InvalidMessage):
            first.fin(5)  # type: ignore[arg-type]  # that is the point
        second.close()
        with pytest.raises(Closed):
            second.get(timeout=0)
        assert [(b"2", 2), (b"3", 1), (b"4", 1)] == everything(scene.channel())


def test_a_backlog_of_a_closed_channel_reads_no_more(path: Path) -> None:
    """What it has delivered is not finished any more; all stays in the file."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        scene.topic().put_many(numbered(1, 2))
        message = consumer.get(timeout=0)
        backlog = backlog_of(scene)
        scene.channel().close()
        with pytest.raises(NotInFlight):
            message.fin()
        with pytest.raises(Closed):
            consumer.get(timeout=0)
        reads = len(scene.spy.reads)
        backlog.look()
        backlog.fetch()
        backlog.read_ahead()
        assert [2, reads] == [backlog.held, len(scene.spy.reads)]
        scene.topic().put(b"3")
        scene.reopen()
        assert [(b"1", 2), (b"2", 1), (b"3", 1)] == everything(scene.channel())


def test_what_is_not_due_counts_in_a_closed_channel(path: Path) -> None:
    """What is put with a delay to a channel that is closed is there when it is reopened."""
    with Scene(path) as scene:
        scene.channel().close()
        scene.topic().put(b"1", delay=100)
        scene.topic().put(b"2")
        scene.reopen()
        assert [1, 1] == [scene.channel().depth, scene.channel().deferred_count]


# Counted before `get` returns


def test_durable_attempts(path: Path) -> None:
    """A delivery is counted in the file before `get` returns, so it is after a crash."""
    with Scene(path, attempts="durable") as scene:
        consumer = scene.consumer()
        scene.topic().put_many(numbered(1, 2, 3, 4))
        consumer.get(timeout=0)
        assert [(b"1", 2), (b"2", 1), (b"3", 1), (b"4", 1)] == scene.disk()
        consumer.get_many(2)
        assert [(b"1", 2), (b"2", 2), (b"3", 2), (b"4", 1)] == scene.disk()
        assert ["write_attempts"] * 2 == scene.spy.names()[-2:]
        Call(lambda: consumer.get(timeout=5)).result()
        assert 2 == dict(scene.disk())[b"4"]


def test_durable_attempts_are_counted_again_and_again(path: Path) -> None:
    """A message that kills the process each time has one attempt more each time."""
    with Scene(path, attempts="durable") as scene:
        scene.channel()
        scene.topic().put(b"poison")
        consumer = scene.consumer()
        for times in range(1, 4):
            message = consumer.get(timeout=0)
            assert times == message.attempts
            assert [(b"poison", times + 1)] == scene.disk()
            message.req()


def test_durable_attempts_in_interval_mode(path: Path) -> None:
    """What is not in the file yet is written before its delivery is counted."""
    with Scene(path, attempts="durable", sync="interval") as scene:
        consumer = scene.consumer()
        scene.topic().put(b"1")
        scene.topic().put_many(numbered(2, 3))
        consumer.get(timeout=0)
        consumer.get(timeout=0)
        assert [(b"1", 2), (b"2", 2), (b"3", 1)] == scene.disk()


@pytest.mark.parametrize("sync", ["normal", "interval"])
@pytest.mark.parametrize("way", ["get", "get_many", "wait"])
def test_a_delivery_that_cannot_be_counted_is_given_back(path: Path, way: str, sync: Any) -> None:
    """`get` then raises, and the messages are at the head of the queue, as they were."""
    with Scene(path, attempts="durable", sync=sync) as scene:
        consumer = scene.consumer()
        scene.topic().put_many(numbered(1, 2, 3))
        scene.broker.flush()
        with scene.spy.failing(), pytest.raises(StoreFull):
            if way == "get":
                consumer.get(timeout=0)
            elif way == "wait":
                scene.channel().empty()
                scene.topic().put_many(numbered(1, 2, 3))
                consumer.get(timeout=5)
            else:
                consumer.get_many(2)
        assert [0, 0] == [consumer.in_flight_count, consumer.stats().message_count]
        if way != "wait":
            assert "NOK - store jobs.db: the disk is full" == scene.broker.health
            scene.topic()._check()
            scene.broker.flush()
            assert [(body, 1) for body in numbered(1, 2, 3)] == scene.disk()
            assert [(body, 1) for body in numbered(1, 2, 3)] == everything(scene.channel())


def test_what_is_taken_is_counted_too(path: Path) -> None:
    """`take` counts like `get`, and gives back what cannot be counted."""
    with Scene(path, attempts="durable") as scene:
        consumer = scene.consumer()
        assert [] == consumer.take(1)
        scene.topic().put_many(numbered(1, 2, 3))
        assert numbered(1, 2) == [message.body for message in consumer.take(2)]
        assert [(b"1", 2), (b"2", 2), (b"3", 1)] == scene.disk()
        with scene.spy.failing(), pytest.raises(StoreFull):
            consumer.take(2)
        assert [2, 1] == [consumer.in_flight_count, scene.channel().depth]
        scene.topic()._check()


def test_an_interrupted_count_gives_the_message_back(path: Path) -> None:
    """What a signal throws into the count of a delivery loses nothing."""
    with Scene(path, attempts="durable") as scene:
        consumer = scene.consumer()
        scene.topic().put(b"1")
        for late in (False, True):
            scene.spy.once(throw(KeyboardInterrupt()), late=late)
            with pytest.raises(KeyboardInterrupt):
                consumer.get(timeout=0)
            assert [0, 1] == [consumer.in_flight_count, scene.channel().depth]
        scene.broker.flush()
        assert [(b"1", 1)] == scene.disk()
        assert 1 == consumer.get(timeout=0).attempts


# What comes in any order


def test_what_comes_back_waits_behind_one_page(path: Path) -> None:
    """Neither what lies in the file nor what comes back is overtaken for ever."""
    with Scene(path, mem_queue_size=2) as scene:
        consumer = scene.consumer()
        scene.topic().put_many(numbered(*range(8)))
        until(lambda: len(scene.channel()._queue.ready) == 2)
        with scene.busy():
            found = []
            for _ in range(12):
                message = consumer.get(timeout=0)
                found.append((message.body, message.attempts))
                if message.body == b"0" and message.attempts < 4:
                    message.req()
                    assert scene.channel()._queue.back
                else:
                    message.fin()
                if len(found) == 11:
                    break
        times = [index for index, (body, _) in enumerate(found) if body == b"0"]
        assert [1, 2, 3, 4] == [attempts for body, attempts in found if body == b"0"]
        assert all(later - earlier <= 4 for earlier, later in itertools.pairwise(times))
        assert numbered(*range(1, 8)) == [body for body, _ in found if body != b"0"]
        assert 0 == scene.channel().depth
        scene.topic()._check()


def test_what_comes_back_when_nothing_is_in_the_file_is_next(path: Path) -> None:
    """It is behind what is in memory, as without a store."""
    with Scene(path, mem_queue_size=3) as scene:
        consumer = scene.consumer()
        scene.topic().put_many(numbered(1, 2))
        consumer.get(timeout=0).req()
        queue = scene.channel()._queue
        assert queue.back is queue.ready
        assert numbered(2, 1) == bodies(scene.channel())


def test_a_page_ends_before_what_is_being_put(path: Path) -> None:
    """A move may overtake a put that is being stored: its page is read up to that alone."""
    with Scene(path, mem_queue_size=1) as scene:
        consumer = scene.consumer()
        source = scene.consumer("work", "source")
        scene.topic("source").put(b"3")
        scene.topic().put(b"0")
        moved = source.get(timeout=0)
        backlog = backlog_of(scene)
        with scene.busy():
            with scene.spy.held(("write_row",)) as held:
                putting = Call(lambda: scene.topic().put(b"1"))
                held.until_begun()
                source.move(moved, scene.topic())
                assert [b"0"] == [consumer.get(timeout=0).body]
                with scene.topic()._monitor.lock:
                    assert int(backlog.top, 16) > int(backlog.cursor, 16)
                getting = Call(lambda: consumer.get(timeout=0).body)
                until(lambda: threads_in("_read", "backlog.py") == 1)
            assert isinstance(putting.result(), str)
            assert b"1" == getting.result()
        assert b"3" == consumer.get(timeout=0).body
        with pytest.raises(Empty):
            consumer.get(timeout=0)
        scene.topic()._check()


def test_a_page_is_only_what_is_being_put(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wants it writes it and shows it, although its put sleeps."""
    with Scene(path, mem_queue_size=1) as scene:
        consumer = scene.consumer()
        source = scene.consumer("work", "source")
        scene.topic("source").put(b"2")
        scene.topic().put(b"0")
        moved = source.get(timeout=0)
        journal = scene.database.journal
        commit, calls = journal.commit, []

        def commit_it() -> None:
            calls.append("commit")
            journal.noted_rows = True
            commit()

        with scene.busy():
            told: list[BaseException | None] = []
            scene.topic().publish([b"1"], told.append)
            source.move(moved, scene.topic())
            journal.noted_rows = False  # as if the move were written, and the put were not
            monkeypatch.setattr(journal, "commit", commit_it)
            assert b"0" == consumer.get(timeout=0).body
            assert b"1" == consumer.get(timeout=0).body
            assert [["commit"], [None]] == [calls, told]
            assert b"2" == consumer.get(timeout=0).body


def test_a_page_that_was_planned_before_the_channel_was_emptied(path: Path) -> None:
    """What was emptied does not come back, although the file still has it."""
    with Scene(path, mem_queue_size=1) as scene:
        channel = scene.channel()
        scene.topic().put_many(numbered(1, 2, 3))
        until(lambda: len(channel._queue.ready) == 1)
        backlog = backlog_of(scene)
        with scene.busy():
            Consumer(channel).take(1)
            require_rows = scene.database.journal.has_rows

            def empty() -> bool:
                scene.database.journal.has_rows = require_rows  # type: ignore[method-assign]  # a spy
                assert 3 == Call(channel.empty).result()
                Call(lambda: scene.topic().put_many(numbered(4, 5))).result()
                return False

            scene.database.journal.has_rows = empty  # type: ignore[method-assign]  # a spy
            backlog.fetch()
        assert numbered(4, 5) == bodies(channel)
        scene.topic()._check()


def test_a_channel_that_was_made_while_a_put_was_under_way(path: Path) -> None:
    """It does not get it, in memory or in the file; what nobody else holds is forgotten."""
    with Scene(path) as scene:
        scene.channel()
        with scene.spy.held() as held:
            putting = Call(lambda: scene.topic().put(b"1"))
            held.until_begun()
            audit = Call(lambda: scene.channel("audit"))
            until(lambda: "audit" in scene.topic().channels)
        assert isinstance(putting.result(), str)
        assert [1, 0] == [scene.channel().depth, audit.result().depth]
        assert [[(b"1", 1)], []] == [scene.disk(), scene.disk("audit")]
        scene.channel().delete()
        while scene.database.upkeep():
            pass
        assert [] == scene.rows()


def test_a_put_is_taken_once(path: Path) -> None:
    """What a signal's clean-up makes again counts once, in memory and behind it."""
    with Scene(path, mem_queue_size=1) as scene:
        queue = scene.channel()._queue
        backlog = backlog_of(scene)
        with scene.topic()._monitor.lock:
            for name in ("e", "f"):
                records = [(b"", 0, name * 13, "fff", 0)]
                backlog.take(records)
                backlog.take(records)
            assert [1, 1] == [len(queue.ready), queue.backend_depth]
            backlog.take_over(backlog)
            assert [1, 1] == [len(queue.ready), queue.backend_depth]
        scene.channel().empty()


@pytest.mark.parametrize("before", [0, 1, 3])
def test_what_a_topic_held_is_handed_on_in_the_file(path: Path, before: int) -> None:
    """It is behind what the channels have, there and in memory, and read like the rest."""
    with Scene(path, mem_queue_size=1) as scene:
        scene.channel()
        for number in range(before):
            scene.topic().put(b"%d" % number)
        scene.topic().pause()
        for number in range(before, before + 3):
            scene.topic().put(b"%d" % number)
        assert [before, 3] == [scene.channel().depth, scene.topic().depth]
        scene.topic().unpause()
        assert [before + 3, 0] == [scene.channel().depth, scene.topic().depth]
        scene.topic()._check()
        assert numbered(*range(before + 3)) == bodies(scene.channel())


@pytest.mark.parametrize("stored", ["billing", "billing#ephemeral"])
def test_the_first_channel_gets_what_the_topic_held(path: Path, stored: str) -> None:
    """Also one that no store keeps: all of it is brought into memory before."""
    with Scene(path, mem_queue_size=2) as scene:
        for number in range(5):
            scene.topic().put(b"%d" % number)
        assert 5 == scene.topic().depth
        scene.reopen()
        channel = scene.channel(stored)
        assert [0, 5] == [scene.topic().depth, channel.depth]
        assert numbered(*range(5)) == bodies(channel)


def test_what_was_moved_to_one_channel_alone(path: Path) -> None:
    """It is that channel's until it is finished or emptied there; the others never have it."""
    with Scene(path) as scene:
        consumer, audit = scene.consumer(), scene.channel("audit")
        scene.topic("source").channel("work")
        scene.topic("source").put_many(numbered(1, 2))
        source = scene.consumer("work", "source")
        for _ in "12":
            source.move(source.get(timeout=0), audit)
        scene.broker.flush()
        assert [[], [(b"1", 1), (b"2", 1)]] == [scene.disk(), scene.disk("audit")]
        backlog = backlog_of(scene, "audit")
        assert 2 == len(backlog.alone)
        with Consumer(audit) as other:
            other.get(timeout=0).fin()
        assert 1 == len(backlog.alone)
        assert 1 == audit.empty()
        assert set() == backlog.alone
        scene.broker.flush()
        assert [[], []] == [scene.disk(), scene.disk("audit")]
        with pytest.raises(Empty):
            consumer.get(timeout=0)


# Bounded queues


def test_a_bounded_channel_has_all_in_memory(path: Path) -> None:
    """What may be dropped must be known; what is in the file is loaded when it is asked for."""
    with Scene(path) as scene:
        scene.channel()
        scene.topic().put_many(numbered(*range(5)))
    with Scene(path, mem_queue_size=2) as scene:
        channel = scene.channel(max_depth=3, when_full="drop oldest")
        assert [5, 0] == [len(channel._queue.ready), channel.stats().backend_depth]
        scene.topic().put(b"5")
        assert b"5" == bodies(channel)[-1]


def test_what_cannot_be_loaded_is_told(path: Path) -> None:
    """The channel is there, and is loaded by the next who asks for it."""
    with Scene(path) as scene:
        scene.channel()
        scene.topic().put_many(numbered(*range(5)))
    with Scene(path, mem_queue_size=2) as scene, scene.busy():
        topic = scene.topic()
        backlog = topic.channels["billing"]._queue.persistence
        assert isinstance(backlog, Backlog)
        torn = StoreError("jobs.db", "torn")
        with scene.spy.failing(torn, ("read",)), pytest.raises(StoreError, match="torn"):
            backlog.load()
        assert 2 == backlog._capacity
        backlog.load()
        assert [5, 2] == [len(topic.channels["billing"]._queue.ready), backlog._capacity]


# One alone


def test_the_wall_of_a_moment(path: Path) -> None:
    """A moment of the monotonic scale is told by the wall's time."""
    clock = ManualClock(start=1000)
    with Scene(path, clock=clock) as scene:
        clock.advance(5)
        assert 1012 * SECOND == backlog_of(scene)._topic.wall(12 * SECOND)


def full_channel(scene: Scene, count: int) -> Queue[Any]:
    """Return the queue of a channel that was given so many messages, and has read a page."""
    scene.channel()
    scene.topic().put_many(numbered(*range(count)))
    queue = scene.channel()._queue
    until(lambda: len(queue.ready) == min(count, backlog_of(scene)._capacity))
    return queue


def test_reading_ahead_begins_at_half(path: Path) -> None:
    """When half of what memory holds is left, the store's thread reads a page."""
    with Scene(path, mem_queue_size=4) as scene:
        consumer = scene.consumer()
        queue = full_channel(scene, 10)
        reads = len(scene.spy.reads)
        consumer.get(timeout=0)
        assert [3, 6, reads] == [len(queue.ready), queue.backend_depth, len(scene.spy.reads)]
        assert b"1" == consumer.get(timeout=0).body
        until(lambda: [4, 4] == [len(queue.ready), queue.backend_depth])


@pytest.mark.parametrize("way", ["get", "get_many", "take"])
def test_who_finds_nothing_in_memory_reads(path: Path, way: str) -> None:
    """Whoever is faster than the store's thread reads the next page himself."""
    with Scene(path, mem_queue_size=4) as scene:
        consumer = scene.consumer()
        queue = full_channel(scene, 10)
        with scene.busy():
            reads = len(scene.spy.reads)
            assert 4 == len(consumer.take(4))
            assert [0, 6] == [len(queue.ready), queue.backend_depth]
            if way == "get":
                found = [consumer.get(timeout=0)]
            else:
                found = consumer.get_many(1, timeout=0) if way == "get_many" else consumer.take(1)
            assert [b"4"] == [message.body for message in found]
            assert [3, 2] == [len(queue.ready), queue.backend_depth]
            assert [("read", threading.get_ident())] == scene.spy.reads[reads:]


def test_who_finds_little_in_memory_reads_what_nobody_else_does(path: Path) -> None:
    """If nobody was asked for the next page, whoever gets a message reads it before."""
    with Scene(path, mem_queue_size=4) as scene:
        consumer = scene.consumer()
        queue = full_channel(scene, 10)
        with scene.busy():
            consumer.take(2)
            backlog_of(scene).wanted = False
            assert b"2" == consumer.get(timeout=0).body
            assert [3, 4] == [len(queue.ready), queue.backend_depth]


def test_a_loop_does_not_read_ahead(path: Path) -> None:
    """In an event loop it is the store's thread that reads."""
    with Scene(path, mem_queue_size=4) as scene:
        consumer = scene.consumer()
        queue = full_channel(scene, 10)
        reads = len(scene.spy.reads)

        async def get() -> None:
            for _ in range(2):
                consumer.get(timeout=0)

        asyncio.run(get())
        until(lambda: queue.backend_depth == 4)
        assert 4 == len(queue.ready)
        assert threading.get_ident() not in {thread for _, thread in scene.spy.reads[reads:]}


def test_who_cannot_read_ahead_gets_what_is_there(path: Path) -> None:
    """A page that cannot be read is for the store's thread to read again."""
    with Scene(path, mem_queue_size=4) as scene:
        consumer = scene.consumer()
        queue = full_channel(scene, 10)
        with scene.busy():
            consumer.take(2)
            backlog_of(scene).wanted = False
            with scene.spy.failing(names=("read",)) as failed:
                assert b"2" == consumer.get(timeout=0).body
            assert [["read"], 1, 6] == [failed, len(queue.ready), queue.backend_depth]
        until(lambda: [4, 3] == [len(queue.ready), queue.backend_depth])


def test_a_signal_while_it_reads_ahead(path: Path) -> None:
    """What is thrown into the reading loses nothing; the store's thread reads the page."""
    with Scene(path, mem_queue_size=4) as scene:
        consumer = scene.consumer()
        queue = full_channel(scene, 10)
        with scene.busy():
            consumer.take(2)
            backlog_of(scene).wanted = False
            scene.spy.once(throw(KeyboardInterrupt()), ("read",))
            with pytest.raises(KeyboardInterrupt):
                consumer.get(timeout=0)
        until(lambda: [4, 4] == [len(queue.ready), queue.backend_depth])
        assert numbered(*range(2, 10)) == finished(consumer.get(timeout=1) for _ in range(8))


def test_a_page_is_not_read_inside_the_reading_of_one(path: Path) -> None:
    """A signal handler that gets in the middle of that is refused, so nothing is read twice."""
    with Scene(path, mem_queue_size=4) as scene:
        consumer = scene.consumer()
        full_channel(scene, 10)
        refused: list[type[Exception]] = []

        def get() -> None:
            try:
                scene.channel()._queue.persistence.fetch()  # type: ignore[union-attr]  # it has one
            except Reentered:
                refused.append(Reentered)

        consumer.get(timeout=0)
        scene.spy.once(get, ("read",))
        assert numbered(*range(1, 10)) == finished(consumer.get(timeout=1) for _ in range(9))
        assert [Reentered] == refused


def test_the_reader_is_no_consumer(path: Path) -> None:
    """Nothing is read while memory is full."""
    with Scene(path, mem_queue_size=2) as scene:
        scene.channel()
        scene.topic().put_many(numbered(1, 2, 3))
        until(lambda: len(scene.channel()._queue.ready) == 2)
        reads = scene.spy.reads.copy()
        scene.topic().put(b"4")
        scene.channel()._queue.persistence.fetch()  # type: ignore[union-attr]  # it has one
        assert reads == scene.spy.reads
        assert threading.get_ident() not in {thread for name, thread in reads if name == "read"}


def test_a_signal_before_a_finish_is_noted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was finished when it strikes is finished in the file, too."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        scene.topic().put_many(numbered(1, 2))
        message = consumer.get(timeout=0)
        scene.broker.flush()  # so that nothing is noted, and it goes the long way
        strike = throw(KeyboardInterrupt())
        with monkeypatch.context() as patch:
            patch.setattr(scene.channel()._queue, "on_finished", lambda _: strike())
            with pytest.raises(KeyboardInterrupt):
                message.fin()
        assert 1 == scene.channel().depth
        scene.broker.flush()
        assert [(b"2", 1)] == scene.disk()


# One message, by its id


def many(scene: Scene) -> tuple[list[str], list[str]]:
    """Put some that are ready and some that wait, nearly all of them in the file alone."""
    ready = scene.topic().put_many(numbered(*range(20)))
    waiting = [scene.topic().put(b"%d" % number, delay=number) for number in range(20, 40)]
    return ready, waiting


@pytest.mark.parametrize("sync", ["normal", "interval"])
def test_what_lies_in_the_file_is_found(path: Path, sync: Any) -> None:
    """A message is found by its id in the file, too, and not when it has gone from there."""
    with Scene(path, clock=ManualClock(), mem_queue_size=3, sync=sync) as scene:
        channel, other = scene.channel(), scene.channel("audit")
        ready, waiting = many(scene)
        for number, name in enumerate([*ready, *waiting]):
            info = channel.find(name)
            assert info is not None
            state, due = ("ready", None) if number < 20 else ("deferred", number)
            assert (b"%d" % number, state, due) == (info.body, info.state, info.due_in)
        assert {"billing", "audit"} == set(scene.topic().find(waiting[-1]))
        assert 20 == len(everything(channel))
        assert channel.find(ready[-1]) is None
        assert other.find(ready[-1]) is not None
        later = scene.channel("later")
        assert [None, None] == [later.find(ready[-1]), later.find(waiting[-1])]


@pytest.mark.parametrize("sync", ["normal", "interval"])
def test_what_lies_in_the_file_can_be_taken_out(path: Path, sync: Any) -> None:
    """It is not delivered, counts no more, and is gone after a restart or a crash as well."""
    clock = ManualClock()
    with Scene(path, clock=clock, mem_queue_size=3, sync=sync) as scene:
        channel, other = scene.channel(), scene.channel("audit")
        ready, waiting = many(scene)
        gone = [*ready[1::3], *waiting[1::3]]
        assert all(channel.discard(name) for name in gone)
        assert not any(channel.discard(name) for name in gone)
        assert (13, 13) == (channel.depth, channel.deferred_count)
        assert (20, 20) == (other.depth, other.deferred_count)
        scene.broker._check()
        with scene.as_on_disk() as left:
            assert (13, 13) == (left.channel().depth, left.channel().deferred_count)
        scene.reopen()
        channel = scene.channel()
        assert (13, 13) == (channel.depth, channel.deferred_count)
        clock.advance(100)
        expected = [b"%d" % number for number in range(40)]
        kept = [one for one in expected if one not in expected[1:20:3] + expected[21:40:3]]
        assert sorted(kept) == sorted(bodies(channel))
        scene.broker._check()


def test_the_last_that_lies_in_the_file_can_be_taken_out(path: Path) -> None:
    """Then there is no backlog any more, and nothing is said to be left in the file."""
    with Scene(path, clock=ManualClock(), mem_queue_size=3) as scene:
        channel = scene.channel()
        ready, waiting = many(scene)
        for name in (*ready[::-1], *waiting[::-1]):
            assert channel.discard(name)
        assert (0, 0, 0) == (channel.depth, channel.deferred_count, channel._queue.backend_depth)
        assert channel.join(timeout=0)
        scene.topic().put(b"new")
        assert [b"new"] == bodies(channel)
        scene.broker._check()


@pytest.mark.parametrize("call", ["find", "discard"])
def test_a_file_that_cannot_be_read_has_lost_nothing(path: Path, call: str) -> None:
    """What is not in memory is looked for in the file; if that fails, nothing has changed."""
    with Scene(path, clock=ManualClock(), mem_queue_size=3) as scene:
        channel = scene.channel()
        ready, _ = many(scene)
        with scene.spy.failing(names=("find",)), pytest.raises(StoreFull):
            getattr(channel, call)(ready[10])
        assert 20 == channel.depth
        info = channel.find(ready[0])  # which is in memory
        assert info is not None
        assert [b"%d" % number for number in range(20)] == bodies(channel)


def test_what_comes_into_memory_meanwhile_is_found_there(path: Path) -> None:
    """Where a page is read between the look into memory and that into the file, all is right."""
    with Scene(path, clock=ManualClock(), mem_queue_size=6) as scene:
        channel = scene.channel()
        ready, _ = many(scene)
        consumer = Consumer(channel)
        persistence = channel._queue.persistence
        assert persistence is not None

        def read_a_page() -> None:
            for _ in range(6):
                consumer.get(timeout=0).fin()
            persistence.read_ahead()

        for call, expected in ((channel.discard, True), (channel.find, None)):
            read_a_page()
            assert call(ready[8]) is expected
        assert b"8" not in bodies(channel)
        scene.broker._check()


def test_a_call_inside_another_looks_into_no_file(path: Path) -> None:
    """A destructor or signal handler in the middle of another call is refused."""
    with Scene(path, clock=ManualClock(), mem_queue_size=3) as scene:
        channel = scene.channel()
        ready, _ = many(scene)
        with backlog_of(scene)._reading, pytest.raises(Reentered):
            channel.find(ready[10])
        with backlog_of(scene)._reading, pytest.raises(Reentered):
            channel.discard(ready[10])
        assert 20 == channel.depth


def test_what_came_back_can_be_taken_out(path: Path) -> None:
    """What was requeued waits behind the next page, in memory, and is taken out there."""
    with Scene(path, clock=ManualClock(), mem_queue_size=3) as scene:
        consumer = scene.consumer()
        many(scene)
        message = consumer.get(timeout=0)
        message.req()
        assert [message.id] == [record[2] + record[3] for record in consumer._queue.back]
        assert scene.channel().discard(message.id)
        scene.broker._check()
        assert [b"%d" % number for number in range(1, 20)] == bodies(scene.channel())


@pytest.mark.parametrize("delay", [0, 50])
def test_what_is_put_as_the_last_is_taken_out_is_not_lost(path: Path, delay: int) -> None:
    """What comes into the file while it is looked whether that was the last one stays there."""
    clock = ManualClock()
    with Scene(path, clock=clock, mem_queue_size=3) as scene:
        channel = scene.channel()
        ready, waiting = many(scene)
        queue = channel._queue
        backlog_of(scene).fetch()  # or the flusher would, as it likes
        stored = [name for name in (waiting if delay else ready) if queue.find(name) is None]
        for name in stored[1:]:
            assert channel.discard(name)
        assert 1 == (queue.backend_deferred if delay else queue.backend_depth)
        put = partial(scene.topic().put, b"new", delay=delay)
        scene.spy.once(put, names=("read_deferred" if delay else "read",), late=True)
        assert channel.discard(stored[0])
        scene.broker._check()
        clock.advance(100)
        assert b"new" in bodies(channel)
        scene.broker._check()


def test_what_a_signal_has_cut_short_is_noted(path: Path) -> None:
    """A message that was just taken out of memory as a signal struck is gone from the file, too."""
    with Scene(path) as scene:
        channel = scene.channel()
        scene.topic().put_many(numbered(1, 2))
        queue = channel._queue
        queue.discarded = queue.ready.popleft()
        scene.topic()._monitor.run(queue.restore)
        scene.reopen()
        assert [b"2"] == bodies(scene.channel())


def test_an_id_that_no_file_can_have(path: Path) -> None:
    """An id beyond 63 bits is nowhere, as in memory."""
    with Scene(path, clock=ManualClock(), mem_queue_size=3) as scene:
        channel = scene.channel()
        many(scene)
        assert (None, False) == (channel.find("f" * 16), channel.discard("8" + "0" * 15))


@pytest.fixture
def _nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no page read but by who asks for one."""
    monkeypatch.setattr(Backlog, "look", lambda _backlog: None)


@pytest.mark.usefixtures("_nothing_is_read")
def test_who_waits_for_room_is_told_of_the_last_that_was_taken_out(path: Path) -> None:
    """A put that waits has room when the last message in the file was discarded."""
    with Scene(path, mem_queue_size=1) as scene:
        channel = scene.topic().channel("billing", max_depth=2)
        scene.topic().put(b"1")
        last = scene.topic().put(b"2")
        assert channel._queue.find(last) is None
        put = Call(lambda: scene.topic().put(b"3", timeout=60))
        until(lambda: bool(scene.topic()._monitor.putters))
        assert channel.discard(last)
        assert 16 == len(put.result())
        assert [b"1", b"3"] == bodies(channel)


@pytest.mark.usefixtures("_nothing_is_read")
@pytest.mark.parametrize("delay", [0, 50])
@pytest.mark.parametrize("end", ["join", "drain"])
def test_who_joins_is_told_of_the_last_that_was_taken_out(path: Path, end: str, delay: int) -> None:
    """Though the last message in flight is finished while the last one in the file is taken out."""
    with Scene(path, clock=ManualClock(), mem_queue_size=1) as scene:
        channel = scene.channel()
        consumer = scene.consumer()
        scene.topic().put(b"1")
        message = consumer.get(timeout=0)
        names = [scene.topic().put(b"%d" % number, delay=delay) for number in range(4)]
        queue = channel._queue
        stored = [name for name in names if queue.find(name) is None]
        for name in {*names} - {stored[0]}:
            assert channel.discard(name)
        assert 1 == (queue.backend_deferred if delay else queue.backend_depth)
        if end == "drain":
            channel.close(drain=True)
        join = Call(lambda: channel.join(9))
        until(lambda: bool(scene.topic()._monitor.joins))
        scene.spy.once(message.fin, names=("read_deferred" if delay else "read",))
        assert channel.discard(stored[0])
        assert join.result() is True
        assert channel.closed is (end == "drain")


def test_the_longest_delay_fits_the_file(path: Path) -> None:
    """What waits for a century, which is the most, still does after a restart."""
    with Scene(path, clock=ManualClock(), topics={"max_req_timeout": CENTURY}) as scene:
        consumer = scene.consumer()
        scene.topic().put(b"1", delay=CENTURY)
        scene.topic().put(b"2")
        consumer.get(timeout=0).req(delay=1e300)
        scene.reopen()
        assert [CENTURY] * 2 == [info.due_in for info in scene.channel().deferred()]
