"""Publishing: what only the inside shows; the rest is in test_topic.py."""

from typing import Any

import pytest

import nsqlite
from nsqlite import Topic
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
