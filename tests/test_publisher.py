"""Publishing: bodies, ids, delays and the wait for room."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from helpers import Call, TellingClock, bodies

import nsqlite
from nsqlite import Closed, Consumer, Full, InvalidMessage, InvalidOption, Reentered, Topic
from nsqlite.clock import Bell
from nsqlite.guid import BLOCK
from nsqlite.publisher import index_of
from nsqlite.testing import ManualClock


def test_a_batch_may_need_several_blocks_of_ids() -> None:
    """However many messages a batch has, its ids follow each other and are counted."""
    topic = Topic("orders", clock=ManualClock())
    ids = topic.put_many(range(BLOCK * 2 + 5))
    numbers = [int(id_, 16) for id_ in ids]
    assert list(range(numbers[0], numbers[0] + len(ids))) == numbers
    assert len(ids) == topic.stats().message_count


def test_index_of_an_object() -> None:
    """The place of an object in a batch is found by identity, not by equality."""

    class Odd:
        """Equal to everything."""

        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]  # unhashable

    last = b""
    batch: list[Any] = [Odd(), b"1", last]
    assert 2 == index_of(batch, last)
    with pytest.raises(nsqlite.InvalidMessage) as info:
        Topic("orders").put_many(batch)
    assert 2 == info.value.index


def test_ids_of_refused_messages_are_not_counted() -> None:
    """A put that is refused takes an id and counts for nothing."""
    topic = Topic("orders", max_depth=1, when_full="raise")
    topic.put(b"1")
    with pytest.raises(nsqlite.Full):
        topic.put(b"2")
    assert 1 == topic.stats().message_count
    topic._check()


class ClockThatCalls(ManualClock):
    """Calls a function once when it is asked for the time."""

    def __init__(self) -> None:
        super().__init__(autojump=True)
        self.call: Callable[[], object] | None = None

    def _monotonic_ns(self) -> int:
        if self.call is not None:
            call, self.call = self.call, None
            call()
        return super()._monotonic_ns()


def test_a_put_to_a_closed_topic_in_the_middle_of_another_call() -> None:
    """It is refused at once, and the call around it is still under way."""
    topic = Topic("orders")
    topic.close()
    guard = topic._guard

    def put() -> bool:
        with pytest.raises(Closed):
            topic.put(b"1")
        return guard.broken

    assert guard.run(put)


def test_a_put_in_the_middle_of_a_bounded_put() -> None:
    """It cannot be judged there, and is refused at once."""
    clock = ClockThatCalls()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing", max_depth=2)
    refused: list[str] = []

    def put() -> None:
        with pytest.raises(Reentered) as info:
            topic.put(b"2")
        refused.append(info.value.call)

    clock.call = put
    topic.put(b"1")
    assert (["put"], 1) == (refused, channel.depth)
    topic._check()


def test_room_found_in_the_last_moment() -> None:
    """A put whose time is over looks once more before it gives up."""

    class Clock(ManualClock):
        """Makes room at the very end of a wait, and tells nobody."""

        def wait(self, bell: Bell, timeout: int | None, who: str) -> bool:
            channel._flow.ready.clear()
            return super().wait(bell, timeout and 0, who)

    topic = Topic("orders", clock=Clock())
    channel = topic.channel("billing", max_depth=1)
    topic.put(b"1")
    topic.put(b"2", timeout=1)
    assert [b"2"] == [info.body for info in channel.peek()]


def test_ids_are_nsqs() -> None:
    """An id is 16 hex characters and no two are equal."""
    topic = Topic("orders")
    ids = [topic.put(b"x") for _ in range(300)] + topic.put_many([b"x"] * 300)
    assert 600 == len(set(ids))
    assert all(len(id_) == 16 and int(id_, 16) >= 0 for id_ in ids)
    assert ids == sorted(ids)


def test_body_is_a_reference() -> None:
    """All channels deliver the object that was put, not a copy."""
    topic: Topic[list[int]] = Topic("orders")
    channels = [topic.channel("a"), topic.channel("b")]
    body = [1]
    topic.put(body)
    for channel in channels:
        assert Consumer(channel).get(timeout=0).body is body


@pytest.mark.parametrize("put", ["put", "put_many"])
def test_size_rule(put: str) -> None:
    """Bytes of 1 to max_msg_size pass; others are refused and nothing has changed."""
    topic = Topic("orders", max_msg_size=3)
    channel = topic.channel("billing")

    class MyBytes(bytes):
        pass

    def call(body: bytes) -> None:
        if put == "put":
            topic.put(body)
        else:
            topic.put_many([b"ok", body])

    place = "" if put == "put" else "message 1: "
    for empty in (b"", MyBytes()):
        with pytest.raises(InvalidMessage) as info:
            call(empty)
        assert f"{place}the body is empty: NSQ takes 1 byte or more" == str(info.value)
    for large in (b"1234", MyBytes(b"1234")):
        with pytest.raises(InvalidMessage) as info:
            call(large)
        assert f"{place}the body has 4 bytes, max_msg_size is 3" == str(info.value)
    assert 0 == channel.depth
    assert 0 == topic.stats().message_count
    call(MyBytes(b"123"))
    assert {"put": 3, "put_many": 5}[put] == topic.stats().message_bytes


def test_bodies_of_any_kind() -> None:
    """A body that is not bytes has no size: None and "" pass."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    topic.put(None)
    topic.put_many(["", (), {}])
    assert [None, "", (), {}] == bodies(channel)
    assert 0 == topic.stats().message_bytes


@pytest.mark.parametrize("one", [b"abc", bytearray(b"abc"), "abc"])
def test_put_many_of_one_body(one: Any) -> None:
    """A body where several are expected is refused; its parts are no bodies."""
    topic = Topic("orders")
    with pytest.raises(InvalidMessage) as info:
        topic.put_many(one)
    given = type(one).__name__
    assert f"put_many takes several bodies, not one {given}: use put" == str(info.value)
    assert 0 == topic.stats().message_count
    assert 3 == len(topic.put_many(list("abc")))


def test_put_many_of_nothing() -> None:
    """An empty batch gives no ids."""
    assert [] == Topic("orders").put_many(iter([]))


@pytest.mark.parametrize("delay", [-0.1, 3600.5, math.nan, math.inf, True, "1"])
def test_put_delay_out_of_range(delay: Any) -> None:
    """A delay out of range is refused, not clamped, and nothing has changed."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    with pytest.raises(InvalidOption) as info:
        topic.put(b"x", delay=delay)
    text = "a finite number of seconds, at least 0 and at most 3600"
    assert f"delay must be {text}, not {delay!r}" == str(info.value)
    with pytest.raises(InvalidOption):
        topic.put_many([b"x"], delay=delay)
    assert (0, 0) == (channel.depth, channel.deferred_count)
    assert 0 == topic.stats().message_count
    topic._check()


@pytest.mark.parametrize("timeout", [-1, math.nan, True, "soon"])
def test_put_timeout_out_of_range(timeout: Any) -> None:
    """A timeout that is no number of seconds is refused even where nothing is bounded."""
    topic = Topic("orders")
    topic.channel("billing")
    with pytest.raises(InvalidOption):
        topic.put(b"x", timeout=timeout)
    assert 0 == topic.stats().message_count


def test_deferred_put() -> None:
    """A deferred message is ready when its delay is over, to the nanosecond."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channels = topic.channel("a"), topic.channel("b")
    topic.put_many([b"1", b"2"], delay=2.5)
    topic.put(b"0", delay=0)
    clock.advance(2.499_999_999)
    for channel in channels:
        assert (1, 2) == (channel.depth, channel.deferred_count)
    clock.advance(0.000_000_001)
    for channel in channels:
        assert [b"0", b"1", b"2"] == bodies(channel)


def test_wait_raises_full_when_the_time_is_over() -> None:
    """A put that waits for room raises Full in the end and has put nothing."""
    clock = ManualClock(autojump=True)
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing", max_depth=1)
    topic.put(b"1")
    for timeout in (0, 2.5):
        before = clock.time()
        with pytest.raises(Full) as info:
            topic.put(b"2", timeout=timeout)
        assert timeout == clock.time() - before
        assert "orders:billing has no room for 1 more: max_depth=1" == str(info.value)
    assert 1 == channel.depth == topic.stats().message_count
    topic._check()


def test_blocked_puts_go_first_come_first_served() -> None:
    """A blocked put goes on when there is room for it, in the order of arrival."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing", max_depth=2)
    topic.put_many([b"1", b"2"])
    big = Call(lambda: topic.put_many([b"3", b"4"]))
    clock.until_waiting()
    small = Call(lambda: topic.put(b"5"))
    clock.until_waiting()
    consumer = Consumer(channel)
    consumer.get(timeout=0).fin()
    with pytest.raises(Full) as info:
        topic.put(b"6", timeout=0)
    assert "orders" in str(info.value)
    consumer.get(timeout=0).fin()
    assert 2 == len(big.result())
    assert [b"3", b"4"] == [consumer.get(timeout=5).body for _ in range(2)]
    assert isinstance(small.result(), str)
    assert b"5" == consumer.get(timeout=5).body
    topic._check()


@pytest.mark.parametrize("end", ["empty", "delete", "close", "drain"])
def test_blocked_put_is_woken(end: str) -> None:
    """Emptying a channel lets a blocked put go on; ending the topic raises Closed in it."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing", max_depth=1)
    topic.put(b"1")
    call = Call(lambda: topic.put(b"2"))
    clock.until_waiting()
    if end == "empty":
        channel.empty()
    elif end == "delete":
        topic.delete()
    else:
        topic.close(drain=end == "drain")
    assert isinstance(call.result(), str if end == "empty" else Closed)
    assert 0 == len(topic._fan._putters)


def test_deleting_the_full_channel_lets_a_put_go_on() -> None:
    """Without the full channel there is nothing to wait for."""
    clock = TellingClock()
    topic = Topic("orders", clock=clock)
    topic.channel("free")
    channel = topic.channel("billing", max_depth=1)
    topic.put(b"1")
    call = Call(lambda: topic.put(b"2"))
    clock.until_waiting()
    channel.delete()
    assert isinstance(call.result(), str)


def test_nothing_put_is_nothing() -> None:
    """An empty batch asks for no room and waits for nobody, but not on a closed topic."""
    topic = Topic("orders")
    topic.channel("billing", max_depth=1)
    topic.put(b"1")
    assert [] == topic.put_many([])
    topic.close()
    with pytest.raises(Closed):
        topic.put_many([])


@pytest.mark.parametrize("bodies", [None, 3, b"12", "12"])
def test_a_batch_is_several(bodies: Any) -> None:
    """What is no batch is refused by its type."""
    topic = Topic("orders")
    given = type(bodies).__name__
    with pytest.raises(InvalidMessage, match=f"put_many takes several bodies, not one {given}"):
        topic.put_many(bodies)
    assert 0 == topic.depth


def test_a_put_without_time_is_none() -> None:
    """A put whose clock fails raises what that raises, and puts nothing."""

    class Broken(ManualClock):
        def _time_ns(self) -> int:
            raise ZeroDivisionError

    topic = Topic("orders", clock=Broken())
    with pytest.raises(ZeroDivisionError):
        topic.put(b"1")
    assert 0 == topic.depth


def test_a_topic_in_memory_waits_for_no_store() -> None:
    """There is nothing to catch up with, to hurry or to wait for."""
    topic = Topic[bytes]("orders")
    topic.catch_up()
    assert [False] * 4 == [topic.kept, topic.lags(), topic.waits(), topic.hurry()]
