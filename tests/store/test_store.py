"""What a store is: its rows, and two storages that are told the same things at random."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nsqlite.store import GONE, Batch, Copy, Row, Storage, StoredChannel, StoredTopic
from nsqlite.store.sqlitefile import SQLiteFile
from nsqlite.store.store import name_of
from nsqlite.testing import MemoryStorage
from nsqlite.testing.memorystorage import Contents
from store.files import HIGHEST


def test_an_id_is_its_number_in_sixteen_characters() -> None:
    """The characters of an id are in the same order as its number."""
    assert ["0000000000000000", "00000000000000ff"] == [name_of(0), name_of(255)]
    assert "7fffffffffffffff" == name_of(HIGHEST)
    assert 255 == int(name_of(255), 16)


def test_a_batch_begins_empty() -> None:
    """Nothing is shared between two batches, topics or channels that were made without a field."""
    first, second = Batch(), Batch()
    first.topics.append(StoredTopic(number=1, name="orders"))
    first.unheld.add(1)
    assert Batch() == second
    first.topics[0].channels.append(StoredChannel(number=1, name="billing"))
    assert [] == StoredTopic(number=1, name="orders").channels


class _Interrupted(Exception):
    """What is thrown into the middle of a write."""


class _Interrupting(list[Row]):
    """Rows that throw behind the last one."""

    def __iter__(self) -> Iterator[Row]:
        yield from super().__iter__()
        raise _Interrupted


class _InterruptingCopies(dict[int, Copy]):
    """Copies that throw."""

    def items(self) -> Any:
        raise _Interrupted


class Twins(RuleBasedStateMachine):
    """A file and plain dicts, which hold the same after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.contents = Contents()
        self.highest = 0
        self.numbers = 0
        self.open()

    def open(self) -> None:
        self.memory = MemoryStorage(self.contents)
        self.file = SQLiteFile(str(self.folder / "jobs.db"), full=False)
        loaded = {topic.number: topic for topic in self.file.load()}
        for topic in loaded.values():
            topic.channels.sort(key=lambda channel: channel.number)
        assert self.topics() == loaded

    def teardown(self) -> None:
        self.memory.close()
        self.file.close()
        shutil.rmtree(self.folder)

    # What there is

    def topics(self) -> dict[int, StoredTopic]:
        """Return the topics as they are now, by number."""
        topics = {topic.number: topic for topic in self.memory.load()}
        for topic in topics.values():
            topic.channels.sort(key=lambda channel: channel.number)
        return topics

    def one(self, data: st.DataObject, *, channels: bool = False) -> StoredTopic | None:
        """Return one of the topics, or None if there is none."""
        topics = [topic for topic in self.topics().values() if topic.channels or not channels]
        return data.draw(st.sampled_from(topics)) if topics else None

    def held(self, topic: StoredTopic, channel: StoredChannel | None) -> list[int]:
        rows = self.contents.tables.held(topic, channel, HIGHEST)
        return [row[0] for row in rows]

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def rows(self, data: st.DataObject, topic: StoredTopic) -> list[Row]:
        """Make up new messages of a topic."""
        numbers: list[int | None] = [None, *(channel.number for channel in topic.channels)]
        only = st.none() | st.sampled_from(numbers)
        kinds = st.tuples(st.integers(1, 3), st.none() | st.integers(1, 99), only)
        rows: list[Row] = []
        for step, due, one in data.draw(st.lists(kinds, max_size=6)):
            self.highest += step
            rows.append((self.highest, step, due, one, None, b"x" * step))
        return rows

    # What is told to both

    def both(self, call: Callable[[Any], object], *, twice: bool = False) -> None:
        for storage in (self.memory, self.file) * (1 + twice):
            call(storage)

    def write(self, batch: Batch, *, twice: bool) -> None:
        """Write a batch, with its counts filled in."""
        tables = self.contents.tables.copy()
        tables.apply(batch)
        for topic in batch.topics:
            topic.held = len(tables.held(topic, None, topic.last))
            for channel in topic.channels:
                channel.held = len(tables.held(topic, channel, topic.last))
        self.both(lambda storage: storage.write(batch), twice=twice)
        assert self.memory.highest() == self.file.highest()
        self.memory._check()

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        for _ in range(2):
            self.make_topic(data, twice=False)
        self.make_channel(data, twice=False)

    @precondition(lambda self: len(self.topics()) < 3)
    @rule(data=st.data(), twice=st.booleans())
    def make_topic(self, data: st.DataObject, *, twice: bool) -> None:
        number = self.number()
        topic = StoredTopic(number=number, name=f"t{number}", paused=data.draw(st.booleans()))
        for _ in range(data.draw(st.integers(0, 2))):
            number = self.number()
            topic.channels.append(StoredChannel(number=number, name=f"c{number}"))
        self.write(
            Batch(topics=[topic], rows=[(topic.number, self.rows(data, topic))]), twice=twice
        )

    @rule(data=st.data(), twice=st.booleans())
    def make_channel(self, data: st.DataObject, *, twice: bool) -> None:
        topic = self.one(data)
        if topic is not None and len(topic.channels) < 3:
            number = self.number()
            new = StoredChannel(number=number, name=f"c{number}", since=topic.handed)
            topic.channels.append(new)
            self.write(Batch(topics=[handed_on(topic)]), twice=twice)

    @rule(data=st.data(), twice=st.booleans(), way=st.integers(0, 2))
    def put(self, data: st.DataObject, way: int, *, twice: bool) -> None:
        topic = self.one(data)
        if topic is not None:
            number, rows = topic.number, self.rows(data, topic)
            if way == 0:
                for row in rows:
                    self.both(partial(write_row, number, row), twice=twice)
            elif way == 1:
                self.both(lambda storage: storage.write_rows(number, rows), twice=twice)
            else:
                batch = Batch(rows=[(number, rows)])
                self.both(lambda storage: storage.write(batch), twice=twice)

    @rule(data=st.data(), twice=st.booleans())
    def deliver(self, data: st.DataObject, *, twice: bool) -> None:
        topic = self.one(data, channels=True)
        if topic is not None:
            channel = data.draw(st.sampled_from(topic.channels))
            held = self.held(topic, channel)
            if held:
                counts = st.dictionaries(st.sampled_from(held), st.integers(1, 9))
                copies = list(data.draw(counts).items())
                self.both(
                    lambda one: one.write_attempts(topic.number, channel.number, copies),
                    twice=twice,
                )

    @rule(data=st.data(), twice=st.booleans(), breaks=st.sampled_from(["", "rows", "copies"]))
    def account(self, data: st.DataObject, *, twice: bool, breaks: str) -> None:
        """Write a batch of everything; one of several is interrupted, and has changed nothing."""
        topic = self.one(data)
        if topic is None:
            return
        batch = Batch(topics=[topic])
        for channel in topic.channels:
            noted = self.copies(data, self.held(topic, channel))
            if noted:
                batch.copies.append((topic.number, channel.number, noted))
        if not topic.channels:
            gone = data.draw(st.sets(st.sampled_from(self.held(topic, None) or [0])))
            batch.copies.append((topic.number, None, dict.fromkeys(gone, GONE)))
        self.change(data, topic, batch)
        rows = self.rows(data, topic)
        if breaks == "rows":
            broken = attrs.evolve(batch, rows=[(topic.number, _Interrupting(rows))])
        else:
            last = (topic.number, None, _InterruptingCopies())
            broken = attrs.evolve(batch, copies=[*batch.copies, last])
        if breaks:
            for storage in (self.memory, self.file):
                assert is_interrupted(storage, broken)
        batch.rows.append((topic.number, rows))
        self.write(batch, twice=twice)

    def copies(self, data: st.DataObject, held: list[int]) -> dict[int, Copy]:
        if not held:
            return {}
        waiting = st.tuples(st.integers(0, 9), st.none() | st.integers(1, 99))
        copies = st.dictionaries(st.sampled_from(held), st.just(GONE) | waiting)
        return data.draw(copies)

    def change(self, data: st.DataObject, topic: StoredTopic, batch: Batch) -> None:
        """Have something happen to a topic or to one of its channels."""
        kinds = ["nothing", "pause", "empty topic"]
        if topic.channels:
            kinds += ["pause channel", "empty channel", "delete channel", "make channel again"]
        kind = data.draw(st.sampled_from(kinds))
        channel = data.draw(st.sampled_from(topic.channels)) if "channel" in kind else None
        if kind == "pause":
            topic.paused = not topic.paused
            handed_on(topic)
        elif kind == "empty topic":
            batch.emptied.append((topic.number, topic.handed, topic.last))
            topic.handed = topic.last
            batch.unheld.add(topic.number)
        elif kind == "pause channel" and channel is not None:
            channel.paused = not channel.paused
        elif kind == "empty channel" and channel is not None:
            channel.since = topic.handed
            batch.unheld.add(topic.number)
        elif channel is not None:
            topic.channels.remove(channel)
            batch.gone_channels.append((topic.number, channel.number))
            batch.copies = [copies for copies in batch.copies if copies[1] != channel.number]
            batch.unheld.add(topic.number)
            if kind == "make channel again":
                again = StoredChannel(number=self.number(), name=channel.name, since=topic.handed)
                topic.channels.append(again)

    @rule(data=st.data(), twice=st.booleans(), again=st.booleans())
    def delete_topic(self, data: st.DataObject, *, twice: bool, again: bool) -> None:
        topic = self.one(data)
        if topic is not None:
            batch = Batch(gone_topics=[topic.number])
            if again:
                batch.topics = [StoredTopic(number=self.number(), name=topic.name)]
            self.write(batch, twice=twice)

    @rule()
    def tidy(self) -> None:
        """Have the file forget what nobody holds: then it has the same messages, and no more."""
        self.file.copy_log()
        while self.file.tidy():
            pass
        execute = self.file._writer._connection.execute
        numbers = {number for [number] in execute("SELECT number FROM topic")}
        assert set(self.contents.tables.rows) == numbers
        known = set()
        for number, rows in self.contents.tables.rows.items():
            there = {i for [i] in execute(f"SELECT id FROM message_{number}")}  # noqa: S608
            assert set(rows) == there
            known |= there
        assert set() == {identity for [identity] in execute("SELECT id FROM copy")} - known

    @rule(crash=st.booleans())
    def reopen(self, *, crash: bool) -> None:
        self.memory.close()
        if crash:
            copy = self.folder / "copy"
            copy.mkdir()
            for file in self.folder.glob("jobs.db*"):
                if not file.name.endswith(("-owner", "-shm")):
                    shutil.copy(file, copy / file.name)
            self.file.close()
            (self.folder / "jobs.db").unlink()
            for file in copy.iterdir():
                file.rename(self.folder / file.name)
            copy.rmdir()
        else:
            self.file.close()
        self.open()

    @invariant()
    def both_hold_the_same(self) -> None:
        for topic in self.topics().values():
            flowing = topic.channels and not topic.paused
            upto = HIGHEST if flowing else topic.handed
            places = [(channel.number, channel.since, upto) for channel in topic.channels]
            for channel, after, last in [*places, (None, topic.handed, HIGHEST)]:
                found = [
                    (
                        storage.read(topic.number, channel, after, last, -1),
                        sorted(storage.read_apart(topic.number, channel, after, last)),
                    )
                    for storage in (self.memory, self.file)
                ]
                assert found[0] == found[1]


def handed_on(topic: StoredTopic) -> StoredTopic:
    """Have a topic hand on what it holds, if it can."""
    if topic.channels and not topic.paused:
        topic.handed = topic.last
    return topic


def write_row(number: int, row: Row, storage: Storage) -> None:
    storage.write_row(number, row)


def is_interrupted(storage: Storage, batch: Batch) -> bool:
    try:
        storage.write(batch)
    except _Interrupted:
        return True
    return False


TestTwins = Twins.TestCase
TestTwins.settings = settings(max_examples=40, stateful_step_count=30)
