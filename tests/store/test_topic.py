"""A topic that is kept: reserve, store, show; and what happens if that is refused or interrupted."""

import gc
import math
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers import Call, bodies

from nsqlite import (
    Broker,
    Closed,
    Consumer,
    Full,
    InvalidMessage,
    InvalidOption,
    Reentered,
    StoreError,
    StoreFull,
    Topic,
)
from nsqlite.testing import ManualClock
from store.stores import LATE, Scene, SpiedStore, everything, throw, until

Put = Callable[[Topic[Any], list[bytes]], Any]

WAYS: dict[str, Put] = {
    "put": lambda topic, batch: [topic.put(body) for body in batch],
    "put that may wait": lambda topic, batch: [topic.put(body, timeout=5) for body in batch],
    "put_many": lambda topic, batch: topic.put_many(batch),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


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
            until(lambda: len(scene.keeper.queue) == 5)
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
            assert 2 == channel._flow.reserved
        call.result()
        assert 0 == channel._flow.reserved
        assert [b"1", b"2"] == bodies(channel)
        with scene.spy.failing(), pytest.raises(StoreFull):
            scene.topic().put_many([b"3", b"4"])
        assert 0 == channel._flow.reserved
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
            until(lambda: scene.topic()._fan._putters)
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
        assert [1.0, 6.0] == [info.due for info in channel.deferred()]
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
        assert 0 == topic._guard.lock.owned()


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
        with scene.keeper.lock:
            last = Last()
            del last
            gc.collect()
        assert 1 == len(refused)
        topic.put(b"1")
        assert [b"1"] == bodies(channel)


class Struck(BaseException):
    """What a signal handler throws."""


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_an_interrupted_put_is_completed(path: Path, way: str, late: bool) -> None:
    """A put that a signal threw out of is in all channels, once, in its place."""
    with Scene(path) as scene:
        channels = [scene.channel(name) for name in ("billing", "audit")]
        scene.topic().put(b"0")
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
        assert 0 == scene.topic()._unused


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_an_interrupted_put_is_completed_by_the_stores_thread(
    path: Path, way: str, late: bool
) -> None:
    """Nobody has to come by: a consumer that waits gets it."""
    with Scene(path) as scene:
        consumer = scene.consumer()
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
@pytest.mark.parametrize("way", WAYS)
def test_signals_at_any_moment(path: Path, way: str) -> None:
    """Wherever a signal strikes a put, what it put is there once, in order, or not at all."""

    def strike(*_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise Struck

    with Scene(path) as scene:
        channel = scene.channel()
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
        assert [2, 3] == [int(row[5]) for _, rows in scene.spy.batches[-1].rows for row in rows]
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
            scene.spy.after = lambda name, event=written: name == "write" and event.set()
            for _ in range(7):
                way(scene.topic(), [b"1"])
            assert written.wait(20)


def test_interval_goes_on_inside_another_call(path: Path) -> None:
    """In interval mode too a put inside a write is refused."""
    with Scene(path, sync="interval") as scene:
        scene.channel()
        refused = []

        def handler() -> None:
            with suppress(Reentered):
                scene.topic().put(b"2")
                refused.append("not")

        scene.topic().put(b"1")
        scene.spy.once(handler)
        scene.broker.flush()
        assert [[], [b"1"]] == [refused, scene.rows()]


def test_interval_is_paused_and_bounded(path: Path) -> None:
    """What takes the long way is shown at once too: a bound, a pause, a delay, a watcher."""
    clock = ManualClock()
    with Scene(path, sync="interval", clock=clock) as scene:
        channel = scene.channel(max_depth=1, when_full="raise")
        scene.topic().put(b"1")
        with pytest.raises(Full):
            scene.topic().put(b"2")
        assert 0 == channel._flow.reserved
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


# Channels and topics of the file


def test_a_channel_gets_its_options_from_the_first_call(path: Path) -> None:
    """A channel that the file has takes the options of whoever asks first, and no others then."""
    with Scene(path) as scene:
        scene.channel()
        scene.topic().put_many([b"1", b"2"])
        scene.reopen()
        channel = scene.channel(max_depth=1, when_full="raise")
        assert [2, 1] == [channel.depth, channel.options.max_depth]
        with pytest.raises(Full):
            scene.topic().put(b"3")
        with pytest.raises(InvalidOption):
            scene.channel(max_depth=2)
        assert [b"1", b"2"] == bodies(channel)


def test_a_topic_gets_its_options_from_the_first_call(path: Path) -> None:
    """The same for topics; those that nobody asks for get the broker's."""
    with Scene(path) as scene:
        scene.topic("a")
        scene.topic("b")
        scene.reopen()
        assert 5 == scene.topic("a", msg_timeout=5).options.msg_timeout
        assert ["a", "b"] == sorted(scene.broker.topics)
        assert 60 == scene.topic("b").options.msg_timeout


@pytest.mark.parametrize(("kind", "name"), [("topic", "a b"), ("channel", "a b")])
def test_names_are_checked(path: Path, kind: str, name: str) -> None:
    """A name that breaks the rule makes nothing in the file."""
    with Scene(path) as scene:
        scene.topic()
        with pytest.raises(ValueError, match="is not valid"):
            scene.topic(name) if kind == "topic" else scene.channel(name)
        with pytest.raises(InvalidOption):
            scene.channel("audit", max_depth=-1)
        with pytest.raises(InvalidOption):
            scene.topic("other", msg_timeout=-1)
        assert ["orders"] == scene.names()


def test_topics_and_channels_are_in_the_file_when_they_are_made(path: Path) -> None:
    """A channel is there again after a crash, if `channel` has returned; a topic too."""
    with Scene(path) as scene:
        scene.topic("a")
        assert ["a"] == scene.names()
        scene.channel("billing", "a")
        assert ["a", "a:billing"] == scene.names()
        scene.topic("a").pause()
        scene.channel("billing", "a").pause()
        with scene.as_on_disk() as copy:
            assert copy.topic("a").paused
            assert copy.channel("billing", "a").paused
        scene.topic("a").unpause()
        scene.channel("billing", "a").unpause()
        with scene.as_on_disk() as copy:
            assert not copy.topic("a").paused
            assert not copy.channel("billing", "a").paused


def test_a_channel_that_cannot_be_written(path: Path) -> None:
    """A channel whose making cannot be written says so, and is written when that works again."""
    with Scene(path) as scene:
        topic = scene.topic()
        with scene.spy.failing(), pytest.raises(StoreFull):
            topic.channel("billing")
        assert ["orders"] == scene.names()
        topic.put(b"1")
        topic.channel("billing")
        scene.broker.flush()
        assert [(b"1", 1)] == scene.disk()


def test_a_topic_that_cannot_be_written(path: Path) -> None:
    """A put to a topic that could not be written yet writes it first."""
    with Scene(path) as scene:
        with scene.spy.failing(), pytest.raises(StoreFull):
            scene.topic()
        assert [] == scene.names()
        topic = scene.topic()
        with scene.spy.failing(), pytest.raises(StoreFull):
            topic.put(b"1")
        assert 0 == topic.depth
        topic.put(b"2")
        assert [["orders"], [b"2"]] == [scene.names(), scene.rows()]


def test_a_topic_that_cannot_be_written_takes_batches(path: Path) -> None:
    """The same for several at once, which fail one by one, each with its error."""
    with Scene(path) as scene:
        with scene.spy.failing(), suppress(StoreFull):
            scene.topic()
        topic = scene.topic()
        with scene.spy.failing(), pytest.raises(StoreFull):
            topic.put_many([b"1", b"2"])
        topic.put_many([b"3", b"4"])
        scene.channel()
        assert [b"3", b"4"] == scene.rows()
        assert [(b"3", 1), (b"4", 1)] == scene.disk()


def test_a_channel_that_changes_while_it_is_read_is_read_again(path: Path) -> None:
    """What is put while a channel of the file is being woken is in it, once."""
    with Scene(path) as scene:
        scene.channel("other")
        scene.channel()
        scene.topic().put(b"1", delay=0.001)
        scene.topic().put(b"2")
        scene.reopen()
        topic = scene.topic()
        scene.spy.once(lambda: Call(lambda: topic.put(b"3")).result(), ("read_apart",), late=True)
        channel = topic.channel("billing")
        scene.topic()._check()
        assert 3 == channel._flow.total()
        while channel.deferred_count:
            channel.advance()
        assert [b"1", b"2", b"3"] == sorted(bodies(channel))


def test_a_channel_made_by_two(path: Path) -> None:
    """Two who ask for a channel of the file at once get the same, with all its messages."""
    with Scene(path) as scene:
        scene.channel()
        scene.topic().put_many([b"1", b"2"])
        scene.reopen()
        topic = scene.topic()
        others: list[Any] = []
        scene.spy.once(
            lambda: others.append(Call(lambda: topic.channel("billing")).result()), ("read_apart",)
        )
        channel = topic.channel("billing")
        assert [channel] == others
        assert [b"1", b"2"] == bodies(channel)


def test_asleep_channels_are_counted(path: Path) -> None:
    """A channel that nobody has asked for gets what is put, and wakes with all of it."""
    with Scene(path) as scene:
        scene.channel()
        scene.channel("audit")
        scene.topic().put(b"1")
        scene.reopen()
        topic = scene.topic()
        channel = topic.channel("audit")
        topic.put(b"2")
        topic.put_many([b"3", b"4"])
        assert not topic.idle
        channel.empty()
        assert not topic.idle
        assert not topic.join(timeout=0)
        assert 4 == topic.channel("billing").depth
        assert [(b"%d" % n, 1) for n in (1, 2, 3, 4)] == everything(topic.channel("billing"))
        assert topic.join(timeout=0)
        topic._check()


def test_stats_wake_all(path: Path) -> None:
    """A snapshot of the broker has every channel of the file, counted exactly."""
    with Scene(path, mem_queue_size=2) as scene:
        scene.channel()
        scene.topic().put_many([b"1", b"2", b"3"])
        scene.topic().put(b"4", delay=100)
        scene.topic("other").put(b"5")
        scene.reopen()
        stats = scene.broker.stats()
        assert ["orders", "other"] == [topic.topic_name for topic in stats.topics]
        [billing] = stats.topics[0].channels
        assert (3, 3, 1) == (billing.depth, billing.backend_depth, billing.deferred_count)
        assert (1, 1) == (stats.topics[1].depth, stats.topics[1].backend_depth)
        assert "OK" == stats.health


def test_channels_wake_all(path: Path) -> None:
    """`channels` has those of the file; of a closed topic those that were awake."""
    with Scene(path) as scene:
        scene.channel()
        scene.channel("audit")
        scene.reopen()
        topic = scene.topic()
        assert ["audit", "billing"] == sorted(topic.channels)
        scene.reopen()
        topic = scene.topic()
        topic.close()
        assert {} == topic.channels


# Pause


def test_a_paused_topic_holds_in_the_file(path: Path) -> None:
    """What a paused topic holds goes to all its channels when it goes on, asleep ones too."""
    with Scene(path) as scene:
        scene.channel()
        scene.channel("audit")
        scene.topic().pause()
        scene.topic().put_many([b"1", b"2"])
        scene.topic().put(b"3", delay=1000)
        assert 3 == scene.topic().depth
        scene.reopen()
        topic = scene.topic()
        assert topic.paused
        assert 3 == topic.depth
        assert [0, 0] == [topic.channel("audit").depth, topic.channel("audit").deferred_count]
        topic.unpause()
        assert 0 == topic.depth
        for name in ("audit", "billing"):
            assert [(b"1", 1), (b"2", 1)] == scene.disk(name)
            assert [2, 1] == [topic.channel(name).depth, topic.channel(name).deferred_count]
        topic._check()
        assert [(b"1", 1), (b"2", 1)] == everything(topic.channel("billing"))


def test_a_channel_made_in_a_pause_gets_what_is_held(path: Path) -> None:
    """A channel that is made while the topic is paused gets all that the topic holds then."""
    with Scene(path) as scene:
        scene.channel()
        scene.topic().pause()
        scene.topic().put(b"1")
        late = scene.channel("late")
        scene.topic().put(b"2")
        scene.topic().unpause()
        assert [(b"1", 1), (b"2", 1)] == scene.disk("late") == scene.disk()
        assert [b"1", b"2"] == bodies(late) == bodies(scene.channel())


def test_emptied_while_it_holds(path: Path) -> None:
    """What a topic held and threw away is thrown away in the file; the channels keep theirs."""
    with Scene(path) as scene:
        scene.channel()
        scene.topic().put(b"1")
        scene.topic().pause()
        scene.topic().put_many([b"2", b"3"])
        assert 2 == scene.topic().empty()
        scene.topic().put(b"4")
        with scene.as_on_disk() as copy:
            copy.topic().unpause()
            assert [(b"1", 1), (b"4", 1)] == everything(copy.channel())
        scene.topic().unpause()
        assert [b"1", b"4"] == bodies(scene.channel())


# The end


def test_close_keeps_everything(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Closing throws nothing away and has nothing to log; all is there when the file is reopened."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        scene.topic().put_many([b"1", b"2", b"3"])
        scene.topic().put(b"4", delay=1000)
        scene.topic("other").put(b"5")
        consumer.get(timeout=0)
        assert [0, 0] == [scene.broker.close(), scene.broker.close()]
        assert [] == caplog.records
        scene.open()
        channel = scene.channel()
        assert [3, 1] == [channel.depth, channel.deferred_count]
        assert [(b"1", 2), (b"2", 1), (b"3", 1)] == everything(channel)
        assert 1 == scene.topic("other").depth


def test_a_closed_topic_can_be_asked_for_no_more(path: Path) -> None:
    """A topic that was closed stays so for the broker's life, and is open in the next one."""
    with Scene(path) as scene:
        topic = scene.topic()
        topic.channel("billing")
        topic.put(b"1")
        assert 0 == topic.close()
        assert topic is scene.topic()
        with pytest.raises(Closed):
            topic.channel("billing")
        with pytest.raises(Closed):
            topic.channel("new")
        scene.reopen()
        assert [(b"1", 1)] == everything(scene.channel())


def test_a_drain(path: Path) -> None:
    """A drain delivers what is there and ends; nothing of it is left in the file."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        scene.topic().put_many([b"1", b"2"])
        assert 0 == scene.topic().close(drain=True)
        with pytest.raises(Closed):
            scene.topic().put(b"3")
        assert [b"1", b"2"] == [message.fin() or message.body for message in consumer]
        assert scene.topic().closed
        scene.reopen()
        assert [] == everything(scene.channel())


def test_a_drain_that_is_cut_short(path: Path) -> None:
    """What a drain has not delivered yet stays in the file."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        scene.topic().put_many([b"1", b"2"])
        assert 0 == scene.broker.close(drain=True)
        consumer.get(timeout=0).fin()
        assert 0 == scene.broker.close()
        scene.open()
        assert [(b"2", 1)] == everything(scene.channel())


def test_a_drain_of_a_topic_without_channels(path: Path) -> None:
    """What a drained topic holds stays in the file."""
    with Scene(path) as scene:
        scene.topic().put(b"1")
        assert 0 == scene.topic().close(drain=True)
        scene.reopen()
        assert 1 == scene.topic().depth


def test_delete_really_deletes(path: Path) -> None:
    """A deleted topic is gone from the file with all that it had, and its name is free."""
    with Scene(path) as scene:
        scene.channel()
        scene.channel("audit")
        scene.topic().put_many([b"1", b"2"])
        scene.reopen()
        scene.topic().put(b"3")
        assert 6 == scene.topic().delete()
        assert [] == scene.names()
        assert [] == list(scene.broker.topics)
        scene.topic().put(b"4")
        assert ["orders"] == scene.names()
        assert 1 == scene.topic().depth
        scene.reopen()
        assert [(b"4", 1)] == everything(scene.channel())


def test_a_topic_is_deleted_while_it_is_written(path: Path) -> None:
    """A put whose topic is deleted while it is being written has returned, and nothing is left."""
    with Scene(path) as scene:
        topic = scene.topic()
        topic.channel("billing")
        with scene.spy.held() as held:
            call = Call(lambda: topic.put_many([b"1"]))
            held.until_begun()
            waiting = Call(lambda: topic.put_many([b"2"]))
            until(lambda: len(scene.keeper.queue) == 2)
            deleting = Call(topic.delete)
            until(lambda: topic.deleted)
        assert 1 == len(call.result())
        refused = waiting.result()
        assert isinstance(refused, Closed)
        assert "topic 'orders' is deleted" == str(refused)
        assert 0 == deleting.result()
        assert [] == scene.names()
        scene.reopen()
        assert {} == scene.broker.topics


def test_one_message_is_written_while_its_topic_is_deleted(path: Path) -> None:
    """The same on the short way."""
    with Scene(path) as scene:
        topic = scene.topic()
        topic.channel("billing")
        with scene.spy.held() as held:
            call = Call(lambda: topic.put(b"1"))
            held.until_begun()
            deleting = Call(topic.delete)
            until(lambda: topic.deleted)
        assert 16 == len(call.result())
        assert 0 == deleting.result()
        scene.broker.flush()
        assert [] == scene.names()
        assert 0 == len(scene.keeper.queue)


def test_one_message_is_written_while_its_topic_is_paused(path: Path) -> None:
    """A put on the short way that finds all changed when it is written is held by the topic."""
    with Scene(path) as scene:
        topic = scene.topic()
        channel = topic.channel("billing")
        with scene.spy.held() as held:
            call = Call(lambda: topic.put(b"1"))
            held.until_begun()
            pausing = Call(topic.pause)
            until(lambda: topic.paused)
        call.result()
        pausing.result()
        scene.broker.flush()
        assert [1, 0] == [topic.depth, channel.depth]
        topic.unpause()
        assert [(b"1", 1)] == scene.disk()
        assert [b"1"] == bodies(channel)
        topic._check()


def test_a_channel_is_made_while_a_message_is_written(path: Path) -> None:
    """A channel that is made before a message is shown gets it, in the file too."""
    with Scene(path) as scene:
        topic = scene.topic()
        topic.channel("billing")
        with scene.spy.held() as held:
            call = Call(lambda: topic.put_many([b"1"]))
            held.until_begun()
            making = Call(lambda: topic.channel("late"))
            until(lambda: "late" in topic._channels)
        call.result()
        late = making.result()
        scene.broker.flush()
        assert [(b"1", 1)] == scene.disk("late") == scene.disk()
        assert [b"1"] == bodies(late)


def test_ephemeral_is_never_kept(path: Path) -> None:
    """Ephemeral topics and channels are in memory alone, and get what is put."""
    with Scene(path) as scene:
        kept = scene.channel()
        passing = scene.channel("live#ephemeral")
        topic = scene.topic("live#ephemeral")
        own = topic.channel("billing")
        scene.topic().put(b"1")
        scene.topic().put_many([b"2", b"3"])
        topic.put(object())
        assert [b"1", b"2", b"3"] == bodies(passing) == bodies(kept)
        assert 1 == own.depth
        assert ["orders", "orders:billing"] == scene.names()
        scene.broker.flush()
        scene.reopen()
        assert ["billing"] == list(scene.topic().channels)
        assert ["orders"] == list(scene.broker.topics)


def test_an_ephemeral_channel_is_the_first(path: Path) -> None:
    """What a topic held goes to its first channel, though that is in memory alone."""
    with Scene(path) as scene:
        scene.topic().put_many([b"1", b"2"])
        scene.reopen()
        passing = scene.channel("live#ephemeral")
        scene.topic()._check()
        assert [b"1", b"2"] == bodies(passing)
        assert 0 == scene.topic().depth


def test_an_ephemeral_channel_sees_the_end_of_a_pause(path: Path) -> None:
    """What is held in memory and in the file reaches kept and passing channels once."""
    with Scene(path, mem_queue_size=1) as scene:
        scene.channel()
        scene.topic().pause()
        scene.topic().put_many([b"1", b"2"])
        scene.reopen()
        passing = scene.channel("live#ephemeral")
        kept = scene.channel()
        scene.topic().put(b"3")
        scene.topic().put(b"4", delay=0)
        scene.topic().unpause()
        scene.topic()._check()
        assert [b"1", b"2", b"3", b"4"] == bodies(passing) == bodies(kept)


def test_a_deleted_channel_is_gone(path: Path) -> None:
    """A channel that was deleted is gone from the file, and its messages with it; so is its name."""
    with Scene(path) as scene:
        scene.channel()
        scene.channel("audit")
        scene.topic().put_many([b"1", b"2"])
        assert 2 == scene.channel("audit").delete()
        assert ["orders", "orders:billing"] == scene.names()
        assert 0 == scene.channel("audit").depth
        scene.topic().put(b"3")
        scene.reopen()
        assert [(b"3", 1)] == everything(scene.channel("audit"))
        assert [(b"1", 1), (b"2", 1), (b"3", 1)] == everything(scene.channel())
        assert 0 == scene.channel("audit").delete()


# Moving


def test_a_move_is_one_transaction(path: Path) -> None:
    """What is moved to another topic is there and no longer here, in one write."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        dead = scene.topic("dead")
        scene.topic().put_many([b"1", b"2"])
        scene.broker.flush()
        before = len(scene.spy.calls)
        consumer.move(consumer.get(timeout=0), dead)
        assert ["write"] == scene.spy.names()[before:]
        with scene.as_on_disk() as copy:
            assert 1 == copy.topic("dead").depth
            assert [(b"2", 1)] == everything(copy.channel())
        assert [b"1"] == bodies(dead.channel("letters"))


def test_a_move_to_a_single_channel(path: Path) -> None:
    """What is moved to one channel is in that alone, in one write, before others in the file too."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        audit, other = scene.channel("audit"), scene.channel("other")
        scene.topic().put(b"1")
        message = consumer.get(timeout=0)
        audit.empty()
        other.empty()
        scene.broker.flush()
        before = len(scene.spy.calls)
        name = consumer.move(message, audit, b"moved")
        assert ["write"] == scene.spy.names()[before:]
        assert [name] == [info.id for info in audit.peek()]
        assert [[(b"moved", 1)], [], []] == [
            scene.disk("audit"),
            scene.disk("other"),
            scene.disk(),
        ]
        assert [1, 0, 0] == [channel.depth for channel in (audit, other, scene.channel())]
        scene.topic()._check()
        scene.topic().put(b"2")
        assert [b"moved", b"2"] == bodies(audit)
        assert 3 == audit.stats().message_count
        scene.broker.flush()
        assert [] == scene.disk("audit")


def test_a_move_that_fails_leaves_the_message_in_flight(path: Path) -> None:
    """A move that cannot be written has moved nothing: it can be answered as before."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        dead = scene.topic("dead")
        audit = scene.channel("audit")
        scene.topic().put(b"1")
        audit.empty()
        for to in (dead, audit):
            message = consumer.get(timeout=0)
            with scene.spy.failing(), pytest.raises(StoreFull):
                consumer.move(message, to)
            assert [1, 0, 0] == [scene.channel().in_flight_count, dead.depth, audit.depth]
            scene.topic()._check()
            message.req()
        scene.broker.flush()
        assert [(b"1", 3)] == scene.disk()
        assert [(b"1", 3)] == everything(scene.channel())


def test_a_failed_move_loses_nothing_to_another_write(path: Path) -> None:
    """What is written between the failure of a move and its end does not finish the message."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        dead = scene.topic("dead")
        scene.topic().put(b"1")
        message = consumer.get(timeout=0)
        scene.broker.flush()
        reached, failing = threading.Event(), threading.Event()

        def fail() -> None:
            reached.set()
            assert failing.wait(20)
            raise StoreFull("jobs.db", "full")

        scene.spy.once(fail)
        call = Call(lambda: consumer.move(message, dead))
        assert reached.wait(20)
        with dead._guard.lock:  # so the move cannot end
            failing.set()
            until(lambda: scene.keeper._problem)
            scene.broker.flush()
            held = scene.disk()
        assert isinstance(call.result(), StoreFull)
        scene.broker.flush()
        assert [(b"1", 2)] == scene.disk() == held


def test_a_move_of_what_another_store_keeps_is_refused(tmp_path: Path) -> None:
    """Between two stores there is no transaction; what is in memory alone can be moved in."""
    with Scene(tmp_path / "a.db") as scene, Scene(tmp_path / "b.db") as other:
        consumer = scene.consumer()
        scene.topic().put(b"1")
        message = consumer.get(timeout=0)
        for to in (other.topic("dead"), other.channel("letters", "dead")):
            with pytest.raises(InvalidOption, match="of the same store: put there, then finish"):
                consumer.move(message, to)
        message.touch()
        memory = Consumer(Topic("memory").channel("billing"))
        for to in (other.topic("dead"), other.channel("letters", "dead")):
            memory.channel._parent.put(b"in")  # type: ignore[attr-defined]  # a Topic
            memory.move(memory.get(timeout=0), to)
        assert [b"in", b"in"] == bodies(other.channel("letters", "dead"))
        outside: Topic[Any] = Topic("outside")
        consumer.move(message, outside)
        assert 1 == outside.depth
        scene.broker.flush()
        assert [] == scene.disk()


def test_a_move_to_what_is_closed(path: Path) -> None:
    """A move to a closed channel or topic is refused and leaves the message in flight."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        dead = scene.topic("dead")
        letters = dead.channel("letters")
        full = scene.channel("full", "bounded", max_depth=1, when_full="raise")
        scene.topic("bounded").put(b"0")
        scene.topic().put(b"1")
        message = consumer.get(timeout=0)
        with pytest.raises(Full):
            consumer.move(message, scene.topic("bounded"))
        letters.close()
        with pytest.raises(Closed):
            consumer.move(message, letters)
        dead.close()
        for to in (dead, letters):
            with pytest.raises(Closed):
                consumer.move(message, to)
        assert 1 == scene.channel().in_flight_count
        message.fin()
        assert [b"0"] == bodies(full)


def test_a_move_in_interval_mode(path: Path) -> None:
    """A move that is written later is one transaction too."""
    with Scene(path, sync="interval") as scene:
        consumer = scene.consumer()
        dead = scene.topic("dead")
        scene.topic().put(b"1")
        scene.broker.flush()
        consumer.move(consumer.get(timeout=0), dead)
        assert 1 == dead.depth
        assert [(b"1", 1)] == scene.disk()
        before = len(scene.spy.calls)
        scene.broker.flush()
        assert ["write"] == scene.spy.names()[before:]
        assert [] == scene.disk()
        assert [(b"1", 1)] == scene.disk("letters", "dead")


def test_a_channel_is_deleted_while_something_is_moved_to_it(path: Path) -> None:
    """What was moved to a channel that is gone when it is written has gone with it."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        letters = scene.channel("letters", "dead")
        scene.topic().put(b"1")
        message = consumer.get(timeout=0)
        with scene.spy.held() as held:
            call = Call(lambda: consumer.move(message, letters))
            held.until_begun()
            deleting = Call(letters.delete)
            until(lambda: letters.closed)
        call.result()
        deleting.result()
        assert [] == scene.disk()
        scene.topic("dead")._check()
        assert 0 == scene.channel("letters", "dead").depth


def test_a_channel_is_closed_while_something_is_moved_to_it(path: Path) -> None:
    """What was moved to a channel that is closed when it is written stays in the file."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        letters = scene.channel("letters", "dead")
        scene.topic().put(b"1")
        message = consumer.get(timeout=0)
        with scene.spy.held() as held:
            call = Call(lambda: consumer.move(message, letters))
            held.until_begun()
            closing = Call(letters.close)
            until(lambda: letters.closed)
        call.result()
        closing.result()
        scene.reopen()
        assert [(b"1", 1)] == everything(scene.channel("letters", "dead"))


def test_a_topic_lives_as_long_as_it_is_used(path: Path) -> None:
    """Who keeps a topic and forgets the broker can go on putting."""
    broker = Broker(store=SpiedStore(path, sync_timeout=LATE))
    topic = broker.topic("orders")
    keeper = broker._keeper
    del broker
    gc.collect()
    topic.put(b"1")
    assert keeper is not None
    keeper.close()


def test_a_store_error_is_no_end(path: Path) -> None:
    """Puts fail as long as the disk does, each with its own error, and go on afterwards."""
    with Scene(path) as scene:
        scene.channel()
        with scene.spy.failing():
            errors = []
            for _ in range(3):
                with pytest.raises(StoreError) as info:
                    scene.topic().put(b"1")
                errors.append(info.value)
            assert "NOK - store jobs.db: the disk is full" == scene.broker.health
        assert 3 == len({id(error) for error in errors})
        scene.topic().put(b"2")
        assert "OK" == scene.broker.health
        assert [b"2"] == scene.rows()
