"""A storage in plain dicts."""

import os

import pytest

from nsqlite import StoreError, StoreInUse
from nsqlite.store import GONE, Batch, Row, StoredChannel, StoredTopic
from nsqlite.testing import MemoryStorage, StorageContract
from nsqlite.testing.memorystorage import Contents


class TestContract(StorageContract):
    """It does what every storage must do."""

    def setup_method(self) -> None:
        self.contents = Contents()

    def make(self) -> MemoryStorage:
        return MemoryStorage(self.contents)


def topic(held: int = 0) -> StoredTopic:
    return StoredTopic(
        number=1,
        name="orders",
        handed=2,
        last=2,
        channels=[StoredChannel(number=7, name="billing", held=held)],
    )


def row(identity: int) -> Row:
    return identity, identity, None, None, None, b"x"


def test_contents_have_one_owner() -> None:
    """A second storage of the same contents is refused, until the first is closed."""
    storage = MemoryStorage()
    with pytest.raises(StoreInUse) as info:
        MemoryStorage(storage.contents)
    assert os.getpid() == info.value.pid
    assert "store in memory: it is in use: close or crash that first" == str(info.value)
    storage.close()
    MemoryStorage(storage.contents).close()


def test_what_crashed_cannot_be_used() -> None:
    """Whoever still calls a storage that crashed changes nothing, also when it closes it."""
    storage = MemoryStorage()
    storage.write(Batch(topics=[topic()]))
    storage.crash()
    other = MemoryStorage(storage.contents)
    with pytest.raises(StoreError) as info:
        storage.write(Batch(gone_topics=[1]))
    assert "store in memory: it is closed" == str(info.value)
    for call in (storage.load, storage.tidy, storage.copy_log):
        with pytest.raises(StoreError):
            call()
    storage.close()
    assert ["orders"] == [one.name for one in other.load()]


def test_what_is_written_to_no_topic_is_refused() -> None:
    """There is no place for the messages of a topic that nobody wrote."""
    storage = MemoryStorage()
    with pytest.raises(StoreError) as info:
        storage.write_row(3, (1, 1, None, None, None, b"x"))
    assert "store in memory: it has no topic 3" == str(info.value)


def test_a_topic_that_is_not_there_cannot_be_read() -> None:
    """As of a file, it is told in an error of the store's."""
    storage = MemoryStorage()
    with pytest.raises(StoreError, match="it has no topic 1"):
        storage.read(1, 7, 0, 9, -1)


def test_what_a_topic_held_has_no_copies() -> None:
    """Of what the topic itself held only what is gone counts."""
    storage = MemoryStorage()
    rows: list[tuple[int, list[Row]]] = [(1, [row(1), row(2)])]
    storage.write(Batch(topics=[StoredTopic(number=1, name="orders")], rows=rows))
    storage.write(Batch(copies=[(1, None, {1: (5, 99), 2: GONE})]))
    assert [(1, 1, None, None, b"x", 0)] == storage.read(1, None, 0, 9, -1)


def test_its_contents_are_its_own() -> None:
    """What was written and what was loaded can be changed, and it knows nothing of it."""
    storage = MemoryStorage()
    written = topic()
    storage.write(Batch(topics=[written]))
    written.channels.clear()
    storage.load()[0].channels.clear()
    assert ["billing"] == [channel.name for channel in storage.load()[0].channels]


def test_it_checks_what_it_was_told() -> None:
    """An account whose counts are not those of the messages is found."""
    storage = MemoryStorage()
    rows: list[tuple[int, list[Row]]] = [(1, [row(1), row(2), row(3)])]
    storage.write(Batch(topics=[topic(held=2)], rows=rows))
    storage._check()
    storage.write(Batch(topics=[topic(held=2)], copies=[(1, 7, {1: GONE})]))
    with pytest.raises(AssertionError) as info:
        storage._check()
    assert "orders:billing holds 1 and was said to hold 2" == str(info.value)


def test_it_checks_what_a_topic_holds() -> None:
    """Of a topic's own messages too."""
    storage = MemoryStorage()
    rows: list[tuple[int, list[Row]]] = [(1, [row(1), row(2)])]
    storage.write(Batch(topics=[StoredTopic(number=1, name="orders", last=2, held=1)], rows=rows))
    with pytest.raises(AssertionError) as info:
        storage._check()
    assert "orders holds 2 and was said to hold 1" == str(info.value)
