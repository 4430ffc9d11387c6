"""How a topic that is kept hands its messages on: to every channel once, asleep or awake."""

from pathlib import Path
from typing import Any

from helpers import bodies

from nsqlite.testing import ManualClock
from store.stores import Scene, everything


def reopened(scene: Scene) -> None:
    """Have two channels asleep and one awake."""
    for name in ("billing", "audit", "late"):
        scene.channel(name)
    scene.reopen()
    scene.channel("late")


def test_asleep_and_awake_get_the_same(path: Path) -> None:
    """Whatever way it is put, each channel gets it once and counts it."""
    clock = ManualClock()
    with Scene(path, clock=clock, mem_queue_size=2) as scene:
        reopened(scene)
        scene.topic().put(b"1")
        scene.topic().put_many([b"2", b"3"])
        scene.topic().put(b"4", delay=5)
        shelves = scene.topic()._fan.cabinet.shelves  # type: ignore[attr-defined]  # a KeptFanOut
        assert [4, 4, 0] == [shelves[name].asleep for name in ("billing", "audit", "late")]
        clock.advance(5)
        expected = [(b"%d" % number, 1) for number in (1, 2, 3, 4)]
        for name in ("billing", "audit", "late"):
            assert expected == sorted(scene.disk(name)) == sorted(everything(scene.channel(name)))
        scene.topic()._check()
        scene.broker.flush()
        assert [] == scene.rows()


def test_what_was_held_in_the_file_goes_to_all(path: Path) -> None:
    """What a topic held, in memory or in the file alone, due or not, is handed on once."""
    clock = ManualClock()
    with Scene(path, clock=clock) as scene:
        scene.channel()
        scene.channel("audit")
        scene.topic().pause()
        scene.topic().put_many([b"1", b"2"])
        scene.topic().put(b"3", delay=5)
        scene.topic().put(b"4", delay=50)
        scene.reopen()
        awake = scene.channel()
        passing = scene.channel("live#ephemeral")
        clock.advance(10)
        scene.topic().put(b"5")
        assert 5 == scene.topic().depth
        scene.topic().unpause()
        scene.topic()._check()
        assert 0 == scene.topic().depth
        assert [4, 1] == [awake.depth, awake.deferred_count]
        assert [b"1", b"2", b"3", b"5"] == sorted(bodies(awake))
        assert [b"1", b"2", b"3", b"5"] == sorted(bodies(passing))
        assert [b"1", b"2", b"3", b"5"] == sorted(bodies(scene.channel("audit")))
        clock.advance(50)
        for channel in (awake, scene.channel("audit")):
            assert [b"4"] == bodies(channel)
        scene.broker.flush()
        scene.topic()._check()
        assert [] == scene.rows()


def test_a_topic_of_ephemeral_channels_forgets(path: Path) -> None:
    """What only passing channels hold does not stay in the file for ever."""
    with Scene(path) as scene:
        passing = scene.channel("live#ephemeral")
        scene.topic().put(b"1")
        scene.topic().put_many([b"2"])
        scene.topic().put(b"3", delay=100)
        scene.broker.flush()
        while scene.keeper.upkeep():
            pass
        assert [] == scene.rows()
        assert [b"1", b"2"] == bodies(passing)
        kept = scene.channel()
        scene.topic().put(b"4")
        assert [(b"4", 1)] == scene.disk() == everything(kept)


def test_a_put_is_never_quite_free(path: Path) -> None:
    """A put to a kept topic may always have to wait, if only for the disk."""
    with Scene(path) as scene:
        fan: Any = scene.topic()._fan
        assert fan.is_bounded()
        assert not fan.is_flowing()
        scene.channel()
        assert fan.is_flowing()
        scene.topic().pause()
        assert not fan.is_flowing()


def test_a_message_for_one_channel_moves_the_mark(path: Path) -> None:
    """What is moved to a channel of a paused topic is there at once; what is held stays held."""
    with Scene(path) as scene:
        consumer = scene.consumer("source", "other")
        target = scene.channel()
        scene.topic().pause()
        scene.topic().put(b"held")
        scene.topic("other").put(b"moved")
        consumer.move(consumer.get(timeout=0), target)
        assert [1, 1] == [scene.topic().depth, target.depth]
        scene.reopen()
        assert [1, 1] == [scene.topic().depth, scene.channel().depth]
        scene.topic().unpause()
        assert [(b"held", 1), (b"moved", 1)] == sorted(everything(scene.channel()))
        scene.topic()._check()


def test_many_put_at_once_go_beyond(path: Path) -> None:
    """A batch that memory has no room for lies in the file alone, in order behind the others."""
    with Scene(path, mem_queue_size=3) as scene:
        channel = scene.channel()
        scene.topic().put(b"0")
        scene.topic().put_many([b"1", b"2", b"3"])
        scene.topic().put(b"4")
        assert 5 == channel.depth
        assert [b"0", b"1", b"2", b"3", b"4"] == bodies(channel)


def test_a_bounded_channel_is_all_in_memory(path: Path) -> None:
    """What has a bound of its own needs no other."""
    with Scene(path, mem_queue_size=2) as scene:
        channel = scene.channel(max_depth=10)
        scene.topic().put_many([b"1"] * 8)
        assert [8, 0] == [channel.depth, channel.stats().backend_depth]


def test_what_a_signal_has_interrupted_is_made_again(path: Path) -> None:
    """Handing the same on once more changes nothing."""
    with Scene(path) as scene:
        channel = scene.channel()
        first, second = scene.topic().put_many([b"1", b"2"])
        fan: Any = scene.topic()._fan
        records = list(channel._queue.ready)
        held = fan.cabinet.held
        before = held.top, held.since, channel.depth
        with scene.topic()._monitor.lock:
            fan._hand_to_shelves(records)
            fan._count_later(records)
            fan.count_alone(first)
        assert before == (held.top, held.since, channel.depth)
        assert second == held.top
        assert [b"1", b"2"] == bodies(channel)
