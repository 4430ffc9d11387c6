"""What a store is: its rows, and two storages that are told the same things at random."""

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nsqlite.store import GONE, Batch, Copy, Row, Storage, StoredChannel, StoredTopic, writer
from nsqlite.store.sqlitefile import SQLiteFile
from nsqlite.store.storage import LONGEST, name_of
from nsqlite.testing import MemoryStorage
from nsqlite.testing.memorystorage import Contents, Tables
from store.files import HIGHEST, read_apart


def test_an_id_is_its_number_in_sixteen_characters() -> None:
    """The characters of an id are in the same order as its number."""
    assert ["0000000000000000", "00000000000000ff"] == [name_of(0), name_of(255)]
    assert "7fffffffffffffff" == name_of(HIGHEST)
    assert 255 == int(name_of(255), 16)


def test_a_batch_begins_empty() -> None:
    """Nothing is shared between two batches that were made without a field."""
    first, second = Batch(), Batch()
    first.topics[1] = StoredTopic(number=1, name="orders")
    first.unheld.add(1)
    first.emptied.append((1, 0, 1))
    assert Batch() == second


def test_the_longest_body_is_one_that_sqlite_keeps() -> None:
    """A row of SQLite's has a limit, which a body of this length and all else of it keep."""
    with closing(sqlite3.connect(":memory:")) as connection:
        assert LONGEST + 1_000_000 <= connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH)


class _Interrupted(Exception):
    """What is thrown into the middle of a write."""


class _Interrupting(list[Row]):
    """Rows that throw behind the last one."""

    def __iter__(self) -> Iterator[Row]:
        yield from super().__iter__()
        raise _Interrupted


class Twins(RuleBasedStateMachine):
    """A file and plain dicts, which hold the same after every step.

    The copies are such as there can be: of what a channel holds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.contents = Contents()
        self.highest = 0
        self.numbers = 0
        self.memory = MemoryStorage(self.contents)
        self.file = SQLiteFile(str(self.folder / "jobs.db"), full=False)
        self.file.load()

    def teardown(self) -> None:
        self.memory.close()
        self.file.close()
        shutil.rmtree(self.folder)

    # What there is

    @property
    def tables(self) -> Tables:
        return self.contents.tables

    def one(self, data: st.DataObject) -> StoredTopic:
        """Return one of the topics, to be changed and written."""
        number = data.draw(st.sampled_from(sorted(self.tables.topics)))
        return attrs.evolve(self.tables.topics[number], counted=False)

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def flows(self, topic: StoredTopic) -> bool:
        return bool(self.tables.channels_of(topic.number)) and not topic.paused

    def rows(self, data: st.DataObject, number: int) -> list[Row]:
        """Make up new messages of a topic."""
        channels = [channel.number for channel in self.tables.channels_of(number)]
        only = st.none() | st.sampled_from([None, *channels])
        codec = st.sampled_from([None, None, "json"])
        kinds = st.tuples(st.integers(1, 3), st.none() | st.integers(1, 99), only, codec)
        rows: list[Row] = []
        for step, due, one, name in data.draw(st.lists(kinds, max_size=6)):
            self.highest += step
            rows.append((self.highest, step, due, one, name, b"x" * step))
        return rows

    # What is told to both

    def both(self, call: Callable[[Any], object], *, twice: bool) -> None:
        for storage in (self.memory, self.file) * (1 + twice):
            call(storage)

    def write(self, batch: Batch, *, twice: bool) -> None:
        batch.highest = self.highest
        self.both(lambda storage: storage.write(batch), twice=twice)
        assert self.memory.highest() == self.file.highest()
        self.memory._check()

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        for _ in range(2):
            self.make_topic(data, twice=False)

    @precondition(lambda self: len(self.tables.topics) < 3)
    @rule(data=st.data(), twice=st.booleans())
    def make_topic(self, data: st.DataObject, *, twice: bool) -> None:
        number = self.number()
        topic = StoredTopic(number=number, name=f"t{number}", paused=data.draw(st.booleans()))
        batch = Batch(topics={number: topic}, rows={number: self.rows(data, number)})
        for _ in range(data.draw(st.integers(0, 2))):
            new = self.number()
            batch.channels[new] = StoredChannel(number=new, topic=number, name=f"c{new}")
        self.write(batch, twice=twice)

    @rule(data=st.data(), twice=st.booleans(), way=st.integers(0, 1))
    def put(self, data: st.DataObject, way: int, *, twice: bool) -> None:
        number = self.one(data).number
        rows = self.rows(data, number)
        if way:
            self.both(lambda storage: storage.write_rows(number, rows), twice=twice)
        for row in rows:
            self.both(partial(write_row, number, row), twice=twice)

    @rule(data=st.data(), twice=st.booleans())
    def deliver(self, data: st.DataObject, *, twice: bool) -> None:
        number = self.one(data).number
        for channel in self.tables.channels_of(number):
            held = self.held(self.tables, number, channel)
            if held:
                counts = st.dictionaries(st.sampled_from(held), st.integers(1, 9))
                copies = list(data.draw(counts).items())
                write = partial(write_attempts, number, channel.number, copies)
                self.both(write, twice=twice)

    @rule(data=st.data(), twice=st.booleans(), breaks=st.booleans(), counts=st.booleans())
    def account(self, data: st.DataObject, *, twice: bool, breaks: bool, counts: bool) -> None:
        """Write a batch of everything; one that is interrupted has changed nothing."""
        batch = Batch()
        for _ in range(data.draw(st.integers(1, 2))):
            topic = self.one(data)
            if topic.number not in batch.rows:
                batch.rows[topic.number] = self.rows(data, topic.number)
                self.change(data, topic, batch)
                self.finish(data, topic.number, batch)
        if breaks:
            [*_, number] = batch.rows
            rows = {**batch.rows, number: _Interrupting(batch.rows[number])}
            broken = attrs.evolve(batch, rows=rows)
            for storage in (self.memory, self.file):
                assert is_interrupted(storage, broken)
        if counts:
            self.count(batch)
        self.write(batch, twice=twice)

    def change(self, data: st.DataObject, topic: StoredTopic, batch: Batch) -> None:
        """Have something happen to a topic or to one of its channels."""
        number, channels = topic.number, self.tables.channels_of(topic.number)
        kinds = ["nothing", "pause", "make channel"]
        kinds += ["delete channel", "empty channel", "pause channel"] if channels else []
        kinds += [] if self.flows(topic) else ["empty topic"]
        kind = data.draw(st.sampled_from(kinds))
        since = self.highest if self.flows(topic) else topic.handed
        if kind == "pause":
            topic.handed = since
            topic.paused = not topic.paused
            batch.topics[number] = topic
        elif kind == "make channel":
            new = self.number()
            name = f"c{new}"
            batch.channels[new] = StoredChannel(number=new, topic=number, name=name, since=since)
        elif kind == "empty topic":
            batch.emptied.append((number, topic.handed, self.highest))
            topic.handed = self.highest
            batch.topics[number] = topic
        elif "channel" in kind:
            channel = attrs.evolve(data.draw(st.sampled_from(channels)))
            batch.unheld.add(number)
            if kind == "delete channel":
                batch.gone_channels[channel.number] = number
                topic.handed = since
                batch.topics[number] = topic
            channel.since = since if kind == "empty channel" else channel.since
            channel.paused ^= kind == "pause channel"
            batch.channels[channel.number] = channel  # which is left out if it is gone

    def finish(self, data: st.DataObject, number: int, batch: Batch) -> None:
        """Have channels be done with messages, or the topic itself, once all else is written."""
        after = self.tables.copy()
        after.apply(batch)
        for channel in (None, *after.channels_of(number)):
            held = self.held(after, number, channel)
            if held:
                waiting = st.tuples(st.integers(0, 9), st.none() | st.integers(1, 99))
                kinds = [st.just(GONE), st.just(GONE) if channel is None else waiting]
                some: dict[int, Copy] = data.draw(
                    st.dictionaries(st.sampled_from(held), st.one_of(kinds))
                    | st.just(dict.fromkeys(held, GONE))
                )
                batch.copies[number, None if channel is None else channel.number] = some

    @staticmethod
    def held(tables: Tables, number: int, channel: StoredChannel | None) -> list[int]:
        return [row[0] for row in tables.held(tables.topics[number], channel)]

    def count(self, batch: Batch) -> None:
        """Have a batch tell how many there are then."""
        after = self.tables.copy()
        after.apply(batch)
        for number in batch.rows:
            topic = after.topics[number]
            held = len(self.held(after, number, None))
            batch.topics[number] = attrs.evolve(topic, held=held, counted=True)
            for channel in after.channels_of(number):
                held = len(self.held(after, number, channel))
                batch.channels[channel.number] = attrs.evolve(channel, held=held)

    @rule(data=st.data(), twice=st.booleans(), again=st.booleans())
    def delete_topic(self, data: st.DataObject, *, twice: bool, again: bool) -> None:
        topic = self.one(data)
        number = self.number()
        new = {number: StoredTopic(number=number, name=topic.name)}
        if again or len(self.tables.topics) > 1:
            batch = Batch(gone_topics={topic.number: None}, topics=new if again else {})
            self.write(batch, twice=twice)

    @rule()
    def tidy(self) -> None:
        """Have the file forget what nobody holds: then it has the same messages, and no more."""
        self.file.copy_log()
        while self.file.tidy():
            pass
        execute = self.file._writer._connection.execute
        there: dict[int, set[int]] = {}
        for number, part in execute("SELECT number, partition FROM topic").fetchall():
            query = f"SELECT id FROM messages_{part} WHERE topic = {number}"  # noqa: S608 - ours
            there[number] = {identity for (identity,) in execute(query)}
        assert {number: set(rows) for number, rows in self.tables.rows.items()} == there
        known = {
            (channel.number, identity)
            for channel in self.tables.channels.values()
            for identity in there[channel.topic]
        }
        assert set() == set(execute("SELECT channel, id FROM copy")) - known

    @rule(crash=st.booleans())
    def reopen(self, *, crash: bool) -> None:
        path = self.folder / "jobs.db"
        if crash:
            for ending in ("", "-wal"):
                shutil.copy(f"{path}{ending}", f"{path}{ending}.kept")
        self.file.close()
        if crash:
            for ending in ("", "-wal"):
                Path(f"{path}{ending}.kept").rename(f"{path}{ending}")
        self.file = SQLiteFile(str(path), full=False)
        assert self.memory.load() == self.file.load()

    @invariant()
    def both_hold_the_same(self) -> None:
        for topic in self.tables.topics.values():
            number = topic.number
            assert self.memory.count(number) == self.file.count(number)
            upto = HIGHEST if self.flows(topic) else topic.handed
            channels = self.tables.channels_of(number)
            places: list[tuple[int | None, int, int]] = [
                (channel.number, channel.since, upto) for channel in channels
            ]
            if not self.flows(topic):  # else it holds nothing, and what nobody holds may be there
                places.append((None, topic.handed, HIGHEST))
            for channel, after, last in places:
                found = [
                    (
                        storage.read(number, channel, after, last, -1),
                        read_apart(storage, number, channel, after, last),
                    )
                    for storage in (self.memory, self.file)
                ]
                assert found[0] == found[1]


def write_row(number: int, row: Row, storage: Storage) -> None:
    storage.write_row(number, row)


def write_attempts(
    number: int, channel: int, copies: list[tuple[int, int]], storage: Storage
) -> None:
    storage.write_attempts(number, channel, copies)


def is_interrupted(storage: Storage, batch: Batch) -> bool:
    try:
        storage.write(batch)
    except _Interrupted:
        return True
    return False


TestTwins = Twins.TestCase
TestTwins.settings = settings(max_examples=40, stateful_step_count=30)


class SharedTwins(Twins):
    """The same where all topics share a partition."""

    def __init__(self) -> None:
        with patch.object(writer, "OWN", 0):
            super().__init__()

    @rule(crash=st.booleans())
    def reopen(self, *, crash: bool) -> None:
        with patch.object(writer, "OWN", 0):
            super().reopen(crash=crash)


TestSharedTwins = SharedTwins.TestCase
TestSharedTwins.settings = settings(max_examples=15, stateful_step_count=30)
