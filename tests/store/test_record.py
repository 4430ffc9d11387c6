"""What the file has of a topic and its channels: how they are made, steered, moved to, and end."""

import gc
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers import Call, bodies
from stateful.strikes import Struck, strike

from nsqlite import (
    Broker,
    Channel,
    Closed,
    Consumer,
    Full,
    InvalidOption,
    StoreError,
    StoreFull,
    Topic,
)
from nsqlite.options import DEFAULTS
from nsqlite.store.backlog import Backlog
from nsqlite.testing import ManualClock, MemoryStore
from store.stores import LATE, Scene, SpiedStore, everything, finished, until

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


def test_what_is_put_while_a_channel_is_read_is_in_it_once(path: Path) -> None:
    """A channel whose bound has it read into memory gets what is put meanwhile, behind that."""
    with Scene(path) as scene:
        scene.channel("other")
        scene.channel()
        scene.topic().put(b"0", delay=0.001)
        scene.topic().put_many([b"1", b"2"])
        scene.reopen()
        topic = scene.topic()
        scene.spy.once(lambda: Call(lambda: topic.put(b"3")).result(), ("read",), late=True)
        channel = topic.channel("billing", max_depth=10, when_full="drop oldest")
        scene.topic()._check()
        assert 4 == channel._queue.total()
        assert 0 == channel.stats().backend_depth
        until(lambda: channel.deferred_count == 0)
        assert [b"1", b"2", b"3"] == [body for body in bodies(channel) if body != b"0"]


def test_a_channel_asked_for_by_two(path: Path) -> None:
    """Two who ask for a channel of the file at once get the same, with all its messages."""
    with Scene(path) as scene:
        scene.channel()
        scene.topic().put_many([b"1", b"2"])
        scene.reopen()
        topic = scene.topic()
        others: list[Any] = []
        scene.spy.once(
            lambda: others.append(Call(lambda: topic.channel("billing")).result()), ("read",)
        )
        channel = topic.channel("billing", max_depth=5, when_full="drop newest")
        assert [channel] == others
        assert [b"1", b"2"] == bodies(channel)


def test_channels_that_nobody_asked_for_are_counted(path: Path) -> None:
    """A channel of the file that nobody has asked for gets what is put, behind what it has."""
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


def test_stats_have_all(path: Path) -> None:
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


def test_channels_are_all_there(path: Path) -> None:
    """`channels` has those of the file, though nobody has asked for them; closed ones too."""
    with Scene(path) as scene:
        scene.channel()
        scene.channel("audit").pause()
        scene.reopen()
        topic = scene.topic()
        assert ["audit", "billing"] == sorted(topic.channels)
        assert [True, False] == [topic.channels[name].paused for name in ("audit", "billing")]
        topic.close()
        assert [True, True] == [channel.closed for channel in topic.channels.values()]


def test_options_of_what_was_only_looked_at(path: Path) -> None:
    """A channel that was only looked at takes the options of its topic when that is named."""
    with Scene(path) as scene:
        scene.channel()
        scene.channel("audit")
        scene.reopen()
        looked_at = scene.broker.topics["orders"]
        channel = looked_at.channels["billing"]
        audit = looked_at.channel("audit", msg_timeout=7)
        assert [60, 7] == [channel.options.msg_timeout, audit.options.msg_timeout]
        topic = scene.topic(msg_timeout=5)
        assert topic is looked_at
        assert [5, 5, 7] == [
            one.options.msg_timeout for one in (topic, channel, topic.channel("audit"))
        ]
        assert channel is topic.channel("billing", msg_timeout=9)
        assert 9 == channel.options.msg_timeout


# Pause


def test_a_paused_topic_holds_in_the_file(path: Path) -> None:
    """What a paused topic holds goes to all its channels when it goes on, after a reopening too."""
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
    """Closing throws nothing away and logs nothing; all is there when the file is reopened."""
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
        assert [b"1", b"2"] == finished(consumer)
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
            until(lambda: len(scene.database.journal.queue) == 2)
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
    """The same for one that is alone in its write."""
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
        assert 0 == len(scene.database.journal.queue)


def test_a_topic_is_paused_while_a_message_is_written(path: Path) -> None:
    """What was reserved before the pause is given to the channels, in the file too."""
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
        topic.put(b"2")
        scene.broker.flush()
        assert [1, 1] == [topic.depth, channel.depth]
        assert [(b"1", 1)] == scene.disk()
        assert [b"1"] == bodies(channel)
        topic.unpause()
        assert [(b"2", 1)] == scene.disk()
        assert [b"2"] == bodies(channel)
        topic._check()


def test_a_topic_goes_on_while_a_message_is_written(path: Path) -> None:
    """What was reserved in a pause and is shown after it is given to the channels, once."""
    with Scene(path) as scene:
        topic = scene.topic()
        channel = topic.channel("billing")
        topic.pause()
        topic.put(b"1")
        with scene.spy.held() as held:
            call = Call(lambda: topic.put(b"2"))
            held.until_begun()
            going_on = Call(topic.unpause)
            until(lambda: not topic.paused)
        call.result()
        going_on.result()
        assert [0, 2] == [topic.depth, channel.depth]
        assert [(b"1", 1), (b"2", 1)] == scene.disk()
        assert [b"1", b"2"] == bodies(channel)
        topic._check()


def test_a_topic_is_emptied_while_a_message_is_written(path: Path) -> None:
    """What was reserved before a paused topic was emptied is shown later, and held as before."""
    with Scene(path) as scene:
        topic = scene.topic()
        channel = topic.channel("billing")
        topic.pause()
        topic.put(b"1")
        with scene.spy.held() as held:
            call = Call(lambda: topic.put(b"2"))
            held.until_begun()
            emptying = Call(topic.empty)
            until(lambda: topic.depth == 0)
        call.result()
        assert 1 == emptying.result()
        topic.put(b"3")
        assert [2, 0] == [topic.depth, channel.depth]
        scene.broker.flush()
        assert [b"2", b"3"] == scene.rows()
        with scene.as_on_disk() as copy:
            assert 2 == copy.topic().depth
        topic.unpause()
        assert [(b"2", 1), (b"3", 1)] == scene.disk()
        assert [b"2", b"3"] == bodies(channel)
        topic._check()


def test_a_channel_is_made_while_a_message_is_written(path: Path) -> None:
    """A channel that is made when a message was reserved does not get it, in the file neither."""
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
        assert [[(b"1", 1)], []] == [scene.disk(), scene.disk("late")]
        topic.put(b"2")
        assert [b"2"] == bodies(late)
        assert [b"1", b"2"] == bodies(topic.channel("billing"))


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
    """A channel that was deleted is gone from the file with its messages; its name is free."""
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
    """What is moved is there at once, and is written later, as gone here and come there, in one."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        dead = scene.topic("dead")
        scene.topic().put_many([b"1", b"2"])
        scene.broker.flush()
        before = len(scene.spy.calls)
        consumer.move(consumer.get(timeout=0), dead)
        assert [[], 1] == [scene.spy.names()[before:], dead.depth]
        with scene.as_on_disk() as copy:
            assert 0 == copy.topic("dead").depth
            assert [(b"1", 1), (b"2", 1)] == everything(copy.channel())
        scene.broker.flush()
        assert ["write"] == scene.spy.names()[before:]
        with scene.as_on_disk() as copy:
            assert 1 == copy.topic("dead").depth
            assert [(b"2", 1)] == everything(copy.channel())
        assert [b"1"] == bodies(dead.channel("letters"))


def test_a_move_to_a_single_channel(path: Path) -> None:
    """What is moved to one channel is in that alone, in one write, in the file too."""
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
        assert [[], [(b"1", 2)]] == [scene.disk("audit"), scene.disk()]
        scene.broker.flush()
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


def test_a_move_that_cannot_be_written_stands(path: Path) -> None:
    """A move takes effect whatever the disk does; it is written when that works again."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        dead = scene.topic("dead")
        audit = scene.channel("audit")
        scene.topic().put_many([b"1", b"2"])
        audit.empty()
        with scene.spy.failing():
            for to in (dead, audit):
                consumer.move(consumer.get(timeout=0), to)
            assert [0, 1, 1] == [scene.channel().in_flight_count, dead.depth, audit.depth]
            with pytest.raises(StoreFull):
                scene.broker.flush()
            scene.topic()._check()
        assert [2, []] == [len(scene.disk()), scene.disk("audit")]
        scene.broker.flush()
        assert [[], [(b"2", 1)]] == [scene.disk(), scene.disk("audit")]
        assert [(b"1", 1)] == scene.disk("letters", "dead")


def tidied(scene: Scene) -> list[bytes]:
    """Return what is left in the file when all is forgotten that nobody holds."""
    scene.broker.flush()
    while scene.database.upkeep():
        pass
    return scene.rows()


def test_a_channel_is_emptied_of_what_was_moved_to_it(path: Path) -> None:
    """What came to a channel alone goes as everything else does, written or not."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        audit = scene.channel("audit")
        for write in (True, False):
            scene.topic().put(b"1")
            audit.empty()
            consumer.move(consumer.get(timeout=0), audit)
            if write:
                scene.broker.flush()
                scene.reopen()
                consumer, audit = scene.consumer(), scene.channel("audit")
            assert 1 == audit.empty()
            assert [] == tidied(scene)
            assert [] == scene.disk("audit")
            scene.topic()._check()


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
        dead.put(b"2")
        letters.close(drain=True)
        with pytest.raises(Closed):
            consumer.move(message, letters)
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


def test_a_channel_is_deleted_after_something_was_moved_to_it(path: Path) -> None:
    """What was moved to a channel that is gone when it is written has gone with it."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        letters = scene.channel("letters", "dead")
        scene.topic().put(b"1")
        consumer.move(consumer.get(timeout=0), letters)
        assert 1 == letters.delete()
        assert [] == tidied(scene)
        assert [] == scene.disk()
        scene.topic("dead")._check()
        assert 0 == scene.channel("letters", "dead").depth


def test_a_channel_is_closed_after_something_was_moved_to_it(path: Path) -> None:
    """What was moved to a channel that is closed when it is written stays in the file."""
    with Scene(path) as scene:
        consumer = scene.consumer()
        letters = scene.channel("letters", "dead")
        scene.topic().put(b"1")
        consumer.move(consumer.get(timeout=0), letters)
        letters.close()
        scene.reopen()
        assert [(b"1", 1)] == everything(scene.channel("letters", "dead"))


@pytest.mark.nsqlite(leaks=False)  # the broker's store is closed, and it is not
def test_a_topic_lives_as_long_as_it_is_used(path: Path) -> None:
    """Who keeps a topic and forgets the broker can go on putting."""
    broker = Broker(store=SpiedStore(path, sync_timeout=LATE))
    topic = broker.topic("orders")
    database = broker._persistence
    del broker
    gc.collect()
    topic.put(b"1")
    assert database is not None
    database.close()


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


def test_a_call_inside_another_one_waits_for_no_disk(path: Path) -> None:
    """What a signal handler steers under a topic's lock is written later."""
    with Scene(path) as scene:
        scene.channel()
        calls = len(scene.spy.calls)
        with scene.topic()._monitor.lock:
            scene.topic().pause()
        assert calls == len(scene.spy.calls)
        assert scene.topic().paused
        scene.broker.flush()
        with scene.as_on_disk() as copy:
            assert copy.topic().paused


def test_a_passing_channel_is_the_first_to_see_what_is_not_written(path: Path) -> None:
    """What a topic holds and has not written yet comes behind what lies in the file, in order."""
    with Scene(path, sync="interval") as scene:
        scene.topic().put(b"1")
        scene.topic("other").put_many([b"no"])
        scene.broker.flush()
        scene.topic().put_many([b"2", b"3"])
        scene.topic().put(b"4", delay=1000)
        scene.topic().put(b"5")
        scene.topic("other").put_many([b"no"])
        passing = scene.channel("live#ephemeral")
        scene.topic()._check()
        assert 1 == passing.deferred_count
        assert [b"1", b"2", b"3", b"5"] == bodies(passing)


def test_a_passing_channel_gets_what_was_held_and_no_more(path: Path) -> None:
    """What was handed on before it came, and is not written yet, is not for it."""
    with Scene(path, sync="interval") as scene:
        channel = scene.channel()
        scene.topic().put(b"1")
        scene.topic().pause()
        scene.topic().put(b"2")
        with scene.busy():
            scene.topic().unpause()
            scene.topic().put(b"3")
            scene.topic().put(b"4")
            with scene.topic()._monitor.lock:
                scene.topic().pause()
            scene.topic().put(b"5")
            passing = scene.topic()._monitor.run(
                scene.topic()._create, "live#ephemeral", scene.topic().options
            )
            with scene.topic()._monitor.lock:
                scene.topic().unpause()
            assert [b"5"] == bodies(passing)
        assert [b"1", b"2", b"3", b"4", b"5"] == bodies(channel)
        scene.topic()._check()


# Channels


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

    def number(channel: Channel[Any]) -> int:
        backlog = channel._queue.persistence
        assert isinstance(backlog, Backlog)
        assert backlog.key[1] is not None
        return backlog.key[1]

    with Scene(path) as scene:
        first = number(scene.channel())
        scene.reopen()
        again = scene.channel()
        assert first == number(again)
        again.delete()
        assert number(scene.channel()) > first


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


# Handing on


def test_all_channels_get_the_same(path: Path) -> None:
    """Whatever way it is put, each channel gets it once and counts it, asked for or not."""
    clock = ManualClock()
    names = ("billing", "audit", "late")
    with Scene(path, clock=clock, mem_queue_size=2) as scene:
        for name in names:
            scene.channel(name)
        scene.reopen()
        scene.channel("late")
        scene.topic().put(b"1")
        scene.topic().put_many([b"2", b"3"])
        scene.topic().put(b"4", delay=5)
        counts = [scene.topic().channels[name].stats().message_count for name in names]
        assert [4, 4, 4] == counts
        clock.advance(5)
        expected = [(b"%d" % number, 1) for number in (1, 2, 3, 4)]
        for name in names:
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
        assert [] == tidied(scene)
        assert [b"1", b"2"] == bodies(passing)
        kept = scene.channel()
        scene.topic().put(b"4")
        assert [(b"4", 1)] == scene.disk() == everything(kept)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("paused", [False, True])
def test_what_the_last_kept_channel_had_does_not_come_back(
    path: Path, when: str, *, paused: bool
) -> None:
    """It goes with the channel though an ephemeral one is left; what the topic holds stays."""
    with Scene(path) as scene:
        kept = scene.channel()
        if when == "before":
            scene.channel("live#ephemeral")
        scene.topic().put_many([b"1", b"2"])
        if when == "after":
            scene.channel("live#ephemeral")
        if paused:
            scene.topic().pause()
            scene.topic().put(b"held")
        kept.delete()
        scene.topic()._check()
        with scene.as_on_disk() as other:
            new = other.channel("new")
            other.topic().unpause()
            assert bodies(new) == ([b"held"] if paused else [])
            other.broker._check()


def test_what_a_put_in_memory_alone_notes(path: Path) -> None:
    """A put that only ephemeral channels get writes nothing, and is not missed in the file."""
    with Scene(path) as scene:
        passing = scene.channel("live#ephemeral")
        scene.broker.flush()
        calls = len(scene.spy.calls)
        scene.topic().put(b"1")
        scene.topic().put_many([b"2"], delay=0)
        assert calls == len(scene.spy.calls)
        kept = scene.channel()
        scene.topic().put(b"3")
        assert [b"1", b"2", b"3"] == bodies(passing)
        assert [(b"3", 1)] == scene.disk() == everything(kept)
        scene.topic()._check()


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


@pytest.mark.parametrize("when_full", ["drop newest", "drop oldest"])
def test_a_channel_that_drops_is_all_in_memory(path: Path, when_full: Any) -> None:
    """What has a bound of its own needs no other, and what is dropped must be at hand."""
    with Scene(path, mem_queue_size=2) as scene:
        channel = scene.channel(max_depth=10, when_full=when_full)
        scene.topic().put_many([b"1"] * 8)
        assert [8, 0] == [channel.depth, channel.stats().backend_depth]
    with Scene(path.with_name("large.db"), mem_queue_bytes=10) as scene:
        for _ in range(2):
            channel = scene.channel(max_depth=10, when_full=when_full)
            scene.topic().put_many([b"large" * 100] * 4)
            assert 0 == channel.stats().backend_depth
            assert len(channel._queue.ready) == channel.depth
            scene.reopen()
        assert 8 == scene.channel(max_depth=10, when_full=when_full).depth


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("when_full", ["wait", "raise"])
def test_a_channel_that_waits_or_raises_has_a_backlog(
    path: Path, when_full: Any, restart: bool
) -> None:
    """Its bound counts what is in the file alone, now and after a restart, page by page."""
    with Scene(path, mem_queue_size=2) as scene:
        scene.channel(max_depth=10, when_full=when_full)
        scene.topic().put_many(list(map(b"%d".__mod__, range(8))))
        if restart:
            scene.reopen()
        channel = scene.channel(max_depth=10, when_full=when_full)
        assert [8, 8] == [channel.depth, channel.stats().backend_depth]
        number = 8
        consumer = Consumer(channel)
        for round_ in range(20):
            while channel.depth < 10:
                scene.topic().put(b"%d" % number, timeout=0)
                number += 1
            for bodies_ in ([b"x"], [b"x"] * 2):
                with pytest.raises(Full):
                    scene.topic().put_many(bodies_, timeout=0)
            channel._check()
            for _ in range(1 + round_ % 10):
                with consumer.get(timeout=0):
                    pass
        assert [b"%d" % one for one in range(number - channel.depth, number)] == bodies(channel)


@pytest.mark.parametrize("sync", ["normal", "interval"])
@pytest.mark.parametrize("when_full", ["wait", "raise", "drop newest", "drop oldest"])
def test_a_put_leaves_no_room_reserved(path: Path, when_full: Any, sync: Any) -> None:
    """One message at a time, and a bound that is never reached, however many are put."""
    with Scene(path, sync=sync) as scene:
        channel = scene.channel(max_depth=2, when_full=when_full)
        consumer = Consumer(channel)
        for number in range(10):
            scene.topic().put(b"%d" % number, timeout=0)
            assert 0 == channel._queue.reserved
            scene.topic()._check()
            with consumer.get(timeout=0) as message:
                assert b"%d" % number == message.body


def test_what_a_signal_has_interrupted_is_made_again(path: Path) -> None:
    """Handing the same on once more changes nothing, though not all of it is in memory."""
    with Scene(path, mem_queue_size=2) as scene:
        channel = scene.channel()
        backlog = channel._queue.persistence
        assert isinstance(backlog, Backlog)
        scene.topic().put_many([b"1", b"2"])
        for body in (b"3", b"4"):
            scene.topic().put(body)
            before = backlog.top, backlog.cursor, channel.depth
            with scene.topic()._monitor.lock:
                scene.topic()._fan.complete()
                assert backlog._taken is not None
                backlog.take([backlog._taken])
            assert before == (backlog.top, backlog.cursor, channel.depth)
        assert [b"1", b"2", b"3", b"4"] == bodies(channel)


# A signal in the middle


def recovered(scene: Scene, topic: Topic[Any]) -> None:
    """Have a topic do what it does after a signal, and twice; then write that."""
    for _ in range(2):
        topic._monitor.run(topic._recover)
    topic._check()
    scene.broker.flush()


def test_to_recover_what_is_whole_changes_nothing(path: Path) -> None:
    """What was noted, and is noted again, is in the file as it was."""
    with Scene(path) as scene:
        topic = scene.topic()
        channel = scene.channel()
        scene.channel("audit").pause()
        topic.put(b"1")
        topic.pause()
        topic.put(b"2")
        recovered(scene, topic)
        with scene.as_on_disk() as copy:
            assert [True, 1] == [copy.topic().paused, copy.topic().depth]
            assert copy.channel("audit").paused
            assert [(b"1", 1)] == everything(copy.channel())
        topic.unpause()
        assert [b"1", b"2"] == bodies(channel)
        topic.delete()
        recovered(scene, topic)
        assert [[], []] == [scene.names(), tidied(scene)]
        other = scene.topic("other")
        scene.channel("billing", "other")
        other.put(b"3")
        other.close()
        recovered(scene, other)
        scene.reopen()
        assert [(b"3", 1)] == everything(scene.channel("billing", "other"))


def test_a_topic_recovers_while_a_message_is_written(path: Path) -> None:
    """The room that is kept for a put is so afterwards, and the put is shown once."""
    with Scene(path) as scene:
        topic = scene.topic()
        channel = scene.channel(max_depth=3, when_full="raise")
        with scene.spy.held() as held:
            call = Call(lambda: topic.put_many([b"1", b"2"]))
            held.until_begun()
            topic._monitor.run(topic._recover)
            assert 2 == channel._queue.reserved
            with pytest.raises(Full):
                topic.put_many([b"3", b"4"])
        call.result()
        recovered(scene, topic)
        assert 0 == channel._queue.reserved
        assert [b"1", b"2"] == bodies(channel)


def test_a_channel_that_was_not_made_to_the_end_is_none(path: Path) -> None:
    """What a signal keeps from being made is not in the file; made later it begins then."""
    with Scene(path) as scene:
        topic = scene.topic()
        assert topic._store is not None
        scene.channel()
        topic._store.add_channel("late")
        topic.put(b"1")
        recovered(scene, topic)
        assert ["orders", "orders:billing"] == scene.names()
        late = scene.channel("late")
        assert 0 == late.depth
        topic.put(b"2")
        assert [(b"2", 1)] == scene.disk("late")
        assert [b"2"] == bodies(late)


def test_what_a_signal_has_taken_over_twice(path: Path) -> None:
    """To show what is in the channels already, or to name what has its options, changes nothing."""
    with Scene(path) as scene:
        topic = scene.topic(msg_timeout=5)
        channel = scene.channel()
        pending = topic._draft(topic._store, [b"1"])  # type: ignore[arg-type]  # there is one
        topic._send(pending, pending.size, None, 0)
        scene.broker.flush()
        for _ in range(2):
            topic._monitor.run(topic._show_one, pending)
        topic._monitor.run(topic._set_options, DEFAULTS)
        assert 5 == topic.options.msg_timeout
        assert [b"1"] == bodies(channel)


def test_a_topic_that_holds_nothing_is_emptied(path: Path) -> None:
    """To empty a topic that hands on what it gets leaves its channels what they have."""
    with Scene(path) as scene:
        channel = scene.channel()
        scene.topic().put(b"1")
        assert 0 == scene.topic().empty()
        assert [(b"1", 1)] == scene.disk()
        assert [b"1"] == bodies(channel)


class Small:
    """A broker whose store is in memory, with little in it: a topic, and one that is paused."""

    def __init__(self) -> None:
        self.store = MemoryStore(sync="interval", sync_timeout=LATE)
        self.broker = Broker(store=self.store)
        self.topic = self.broker.topic("orders")
        self.channel = self.topic.channel("billing")
        self.consumer = Consumer(self.channel)
        self.topic.put_many([b"1", b"2"])
        self.message = self.consumer.get(timeout=0)
        self.held = self.broker.topic("held")
        self.other = self.held.channel("audit")
        self.held.put(b"3")
        self.held.pause()
        self.held.put(b"4")
        self.broker.flush()

    def left(self) -> Broker:
        """Return what would be found if the process died now."""
        store = MemoryStore()
        store.contents.tables = self.store.contents.tables.copy()
        return Broker(store=store)


def account(broker: Broker) -> dict[str, Any]:
    """Return what a broker has: how its topics and channels are, and all their messages."""
    return {
        name: (
            topic.paused,
            topic.depth,
            {
                known: (
                    channel.paused,
                    sorted(one.body for one in (*channel.peek(), *channel.in_flight())),
                )
                for known, channel in topic.channels.items()
            },
        )
        for name, topic in broker.topics.items()
    }


@pytest.mark.parametrize(
    "call",
    [
        lambda small: small.topic.put(b"x"),
        lambda small: small.held.put_many([b"x", b"y"]),
        lambda small: small.consumer.move(small.message, small.held),
        lambda small: small.consumer.move(small.message, small.other),
        lambda small: small.channel.empty(),
        lambda small: small.channel.delete(),
        lambda small: small.channel.pause(),
        lambda small: small.topic.pause(),
        lambda small: small.held.unpause(),
        lambda small: small.held.empty(),
        lambda small: small.held.delete(),
        lambda small: small.topic.channel("new"),
        lambda small: small.broker.topic("new"),
    ],
    ids=[
        "put",
        "put to what is paused",
        "move",
        "move to a channel",
        "empty a channel",
        "delete a channel",
        "pause a channel",
        "pause",
        "unpause",
        "empty",
        "delete",
        "make a channel",
        "make a topic",
    ],
)
def test_wherever_a_signal_strikes_the_file_has_what_memory_has(call: Any) -> None:
    """A call that is broken off leaves in the file what it leaves in memory, at the next flush."""
    wrong = []
    for run in strike(Small, call, drop=lambda small: small.broker.close(), often=1):
        with run.scene.broker as broker:
            assert run.error is None or isinstance(run.error, Struck), run.place
            broker.flush()
            broker._check()
            with run.scene.left() as left:
                if account(broker) != account(left):
                    wrong.append(run.place)
    assert [] == wrong


def test_what_was_emptied_is_noted_when_a_signal_has_kept_it_from_that(path: Path) -> None:
    """What the topic held, and holds no more, is gone from the file; a half made channel is not."""
    with Scene(path) as scene:
        topic = scene.topic()
        topic.channel("billing")
        topic.pause()
        topic.put(b"1")
        store = topic._store
        assert store is not None
        with topic._lock:
            topic._fan.held.clear()
            store.held.empty(store.last)  # type: ignore[attr-defined]  # as the record has it
            store.note_all(paused=True, channels=())
        scene.broker.flush()
        assert [] == scene.rows()
        assert ["orders", "orders:billing"] == scene.names()
