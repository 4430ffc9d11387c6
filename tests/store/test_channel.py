"""A channel that is kept: what steers it is in the file when the call returns."""

from pathlib import Path
from typing import Any

import pytest
from helpers import bodies

from nsqlite import Closed, Consumer, StoreFull
from store.stores import Scene, everything, finished


def test_what_steers_is_in_the_file(path: Path) -> None:
    """Pause, unpause, empty and delete are there again after a crash."""
    with Scene(path) as scene:
        channel = scene.channel()
        scene.topic().put_many([b"1", b"2"])
        channel.pause()
        with scene.as_on_disk() as copy:
            again = copy.channel()
            assert again.paused
            assert not Consumer(again)._is_short()
            again.unpause()
            assert [(b"1", 1), (b"2", 1)] == everything(again)
        channel.unpause()
        with scene.as_on_disk() as copy:
            assert not copy.channel().paused
        assert 2 == channel.empty()
        assert [] == scene.disk()
        channel.delete()
        assert ["orders"] == scene.names()


@pytest.mark.parametrize("call", ["pause", "empty", "delete"])
def test_what_cannot_be_written_is_done_and_said(path: Path, call: str) -> None:
    """A call that the disk refuses raises; it holds here, and is written when there is room."""
    with Scene(path) as scene:
        channel = scene.channel()
        scene.topic().put(b"1")
        with scene.spy.failing(), pytest.raises(StoreFull):
            getattr(channel, call)()
        assert [(b"1", 1)] == scene.disk()
        scene.broker.flush()
        with scene.as_on_disk() as copy:
            if call == "pause":
                assert copy.channel().paused
            else:
                assert [] == everything(copy.channel())


def test_a_closed_channel_keeps_all(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Closing throws nothing away; so what is put afterwards is there when it is reopened."""
    with Scene(path) as scene:
        channel = scene.channel()
        consumer = scene.consumer()
        scene.topic().put_many([b"1", b"2"])
        consumer.get(timeout=0)
        assert [0, 0] == [channel.close(), channel.close()]
        assert [] == caplog.records
        with pytest.raises(Closed):
            consumer.get(timeout=0)
        scene.topic().put(b"3")
        scene.topic().put_many([b"4"])
        scene.topic()._check()
        scene.reopen()
        assert [(b"1", 2), (b"2", 1), (b"3", 1), (b"4", 1)] == everything(scene.channel())


def test_a_drained_channel(path: Path) -> None:
    """A channel that drains delivers what it has, and leaves what comes later in the file."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        scene.topic().put_many([b"1", b"2"])
        assert 0 == scene.channel().close(drain=True)
        scene.topic().put(b"3")
        assert [b"1", b"2"] == finished(consumer)
        scene.reopen()
        assert [(b"3", 1)] == everything(scene.channel())


def test_a_drain_of_what_lies_in_the_file(path: Path) -> None:
    """A drain ends when all pages are delivered, and not before."""
    with Scene(path, mem_queue_size=2) as scene:
        consumer = scene.consumer()
        scene.topic().put_many([b"%d" % number for number in range(7)])
        scene.topic().close(drain=True)
        found = []
        for message in consumer:
            found.append(message.body)
            message.fin()
        assert [b"%d" % number for number in range(7)] == found
        assert scene.topic().closed


def test_its_number_stays(path: Path) -> None:
    """A channel has one number in the file; no later one gets that of a deleted one."""
    with Scene(path) as scene:
        first: Any = scene.channel()
        number = first.number
        scene.reopen()
        again: Any = scene.channel()
        assert number == again.number
        again.delete()
        other: Any = scene.channel()
        assert other.number > number


def test_peek_looks_into_the_file(path: Path) -> None:
    """Peek shows what is next though nothing is in memory; with the consumers' order unchanged."""
    with Scene(path) as scene:
        scene.channel()
        scene.topic().put_many([b"1", b"2", b"3"])
        scene.reopen()
        channel = scene.channel()
        assert [b"1", b"2"] == [info.body for info in channel.peek(2)]
        assert [b"1", b"2", b"3"] == bodies(channel)
        assert [] == channel.peek()
