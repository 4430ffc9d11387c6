"""Publishing: what only the inside shows; the rest is in test_topic.py."""

from collections.abc import Callable
from typing import Any

import pytest

import nsqlite
from nsqlite import Reentered, Topic
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

        __hash__ = None  # type: ignore[assignment]

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
