"""A topic that is kept: its channels asleep and awake, its pause, its end, and moves."""

import asyncio
import gc
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
    InvalidOption,
    StoreError,
    StoreFull,
    Topic,
)
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
        assert 3 == channel._queue.total()
        until(lambda: channel.deferred_count == 0)
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

        async def move() -> None:
            consumer.move(message, dead)

        with scene.busy():  # so nobody brings the move to its end
            asyncio.run(move())
            with scene.spy.failing(), pytest.raises(StoreFull):
                scene.broker.flush()
            scene.broker.flush()
            assert [(b"1", 2)] == scene.disk()
        until(lambda: scene.channel().in_flight_count == 1)
        scene.broker.flush()
        assert [(b"1", 2)] == scene.disk()
        message.fin()
        scene.broker.flush()
        assert [] == scene.disk()


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
    keeper = broker._persistence
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
