"""A storage in plain dicts."""

import os
from pathlib import Path
from typing import Any

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

    def restored(self, path: str) -> MemoryStorage:
        return MemoryStorage(Contents(self.contents.backups[path]))


def made(**fields: Any) -> Batch:
    """Return a batch with a topic and a channel."""
    topic = StoredTopic(number=1, name="orders", **fields)
    channel = StoredChannel(number=7, topic=1, name="billing", held=2)
    return Batch(topics={1: topic}, channels={7: channel})


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
    storage.write(made())
    storage.crash()
    other = MemoryStorage(storage.contents)
    with pytest.raises(StoreError) as info:
        storage.write(Batch(gone_topics={1: None}))
    assert "store in memory: it is closed" == str(info.value)
    for call in (storage.load, storage.tidy, storage.copy_log, storage.copy_all):
        with pytest.raises(StoreError):
            call()
    storage.close()
    assert ["orders"] == [one.name for one in other.load()[0]]


def test_what_is_written_to_no_topic_is_refused() -> None:
    """There is no place for the messages of a topic that nobody wrote."""
    storage = MemoryStorage()
    with pytest.raises(StoreError) as info:
        storage.write_row(3, (1, 1, None, None, None, b"x"))
    assert "store in memory: it has no topic 3" == str(info.value)


def test_what_a_topic_held_has_no_copies() -> None:
    """Of what the topic itself held only what is gone counts."""
    storage = MemoryStorage()
    topics = {1: StoredTopic(number=1, name="orders")}
    storage.write(Batch(topics=topics, rows={1: [row(1), row(2)]}))
    storage.write(Batch(copies={(1, None): {1: (5, 99), 2: GONE}}))
    assert [(1, 1, None, None, b"x", 0, True)] == storage.read(1, None, 0, 9, -1)


def test_its_contents_are_its_own() -> None:
    """What was written and what was loaded can be changed, and it knows nothing of it."""
    storage = MemoryStorage()
    written = made()
    storage.write(written)
    written.topics[1].paused = written.channels[7].paused = True
    loaded = storage.load()
    loaded[0][0].paused = loaded[1][0].paused = True
    [topic], [channel] = storage.load()
    assert (False, False) == (topic.paused, channel.paused)


def test_it_checks_what_it_was_told() -> None:
    """Counts that are not those of the messages are found, where a topic is counted."""
    storage = MemoryStorage()
    batch = made(counted=True)
    batch.rows[1] = [row(1), row(2)]
    storage.write(batch)
    storage._check()
    storage.write(Batch(copies={(1, 7): {1: GONE}}))
    storage._check()
    storage.write(made(counted=True))
    with pytest.raises(AssertionError, match=r"^orders:billing holds 1 and was said to hold 2"):
        storage._check()


def test_it_checks_what_a_topic_holds() -> None:
    """Of a topic's own messages too."""
    storage = MemoryStorage()
    topic = StoredTopic(number=1, name="orders", held=1, counted=True)
    storage.write(Batch(topics={1: topic}, rows={1: [row(1), row(2)]}))
    with pytest.raises(AssertionError, match=r"^orders holds 2 and was said to hold 1"):
        storage._check()


def test_a_backup_makes_no_file(tmp_path: Path) -> None:
    """It lies in the contents, under the path."""
    storage = MemoryStorage()
    storage.write(made())
    storage.backup(str(tmp_path / "copy"))
    assert [] == list(tmp_path.iterdir())
    assert {1} == set(storage.contents.backups[str(tmp_path / "copy")].topics)
    with pytest.raises(StoreError, match="there is a copy at"):
        storage.backup(str(tmp_path / "copy"))
