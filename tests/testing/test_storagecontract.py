"""The contract of storages: it finds each fault, and nothing in those that have none."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import nsqlite
from nsqlite.store import GONE, Batch, Copy, Found, Row
from nsqlite.testing import MemoryStorage, StorageContract
from nsqlite.testing.memorystorage import Contents, Tables

TESTS = [name for name in dir(StorageContract) if name.startswith("test_")]


class Subject(StorageContract):
    """The contract of a kind of storage."""

    def __init__(self, kind: Callable[[Contents], MemoryStorage]) -> None:
        self.contents = Contents()
        self.kind = kind

    def make(self) -> MemoryStorage:
        return self.kind(self.contents)

    def restored(self, path: str) -> MemoryStorage:
        return MemoryStorage(Contents(self.contents.backups[path]))


def failed(kind: Callable[[Contents], MemoryStorage]) -> set[str]:
    """Return the tests that a kind of storage fails."""
    names = set()
    for name in TESTS:
        try:
            getattr(Subject(kind), name)()
        except AssertionError:
            names.add(name.removeprefix("test_"))
    return names


class Forgetful(MemoryStorage):
    def write_row(self, number: int, row: Row) -> None:
        """Keep nothing."""


class OutOfOrder(MemoryStorage):
    def read(
        self, topic: int, channel: int | None, after: int, upto: int, limit: int
    ) -> list[Found]:
        return super().read(topic, channel, after, upto, limit)[::-1]


class WithoutLimit(MemoryStorage):
    def read(
        self,
        topic: int,
        channel: int | None,
        after: int,
        upto: int,
        limit: int,  # noqa: ARG002 - which is the fault
    ) -> list[Found]:
        return super().read(topic, channel, after, upto, -1)


class NothingApart(MemoryStorage):
    def read_apart(self, topic: int, channel: int | None, after: int, upto: int) -> list[Found]:
        return super().read(topic, channel, after, upto, -1)


class Restless(MemoryStorage):
    def tidy(self) -> bool:
        return True


class HalfWritten(MemoryStorage):
    def write(self, batch: Batch) -> None:
        self.contents.tables.apply(batch)


class Silent(MemoryStorage):
    def write(self, batch: Batch) -> None:
        try:
            super().write(batch)
        except Exception:
            return


class Careless(MemoryStorage):
    def write_rows(self, number: int, rows: list[Row]) -> None:
        """Leave a topic counted that is not any more."""
        topics = self.contents.tables.topics
        counted = {topic.number for topic in topics.values() if topic.counted}
        super().write_rows(number, rows)
        topics[number].counted = number in counted


class Trusting(MemoryStorage):
    def count(self, topic: int) -> tuple[int, dict[int, int]]:
        """Return what was written last."""
        tables = self.contents.tables
        if topic not in tables.topics:
            return 0, {}
        held = {channel.number: channel.held for channel in tables.channels_of(topic)}
        return tables.topics[topic].held, held


class Reusing(MemoryStorage):
    def highest(self) -> tuple[int, int, int]:
        tables = self.contents.tables
        return max(tables.topics, default=0), max(tables.channels, default=0), 0


class WithoutBackup(MemoryStorage):
    def backup(self, path: str) -> None:
        """Give away what is still written."""
        self.contents.backups[path] = self.contents.tables


class Overwriting(MemoryStorage):
    def backup(self, path: str) -> None:
        """Replace what is there."""
        self.contents.backups.pop(path, None)
        super().backup(path)


class Suspicious(MemoryStorage):
    def read(
        self, topic: int, channel: int | None, after: int, upto: int, limit: int
    ) -> list[Found]:
        return [(*one[:6], False) for one in super().read(topic, channel, after, upto, limit)]


class Different(MemoryStorage):
    """A storage with other tables."""

    tables: type[Tables]

    def __init__(self, contents: Contents) -> None:
        super().__init__(contents)
        if type(contents.tables) is Tables:
            contents.tables = self.tables()


class KeepsAll(Different):
    class tables(Tables):  # noqa: N801 - an attribute
        def forget(self, number: int) -> None:
            """Forget nothing."""


class ForgetsEarly(Different):
    class tables(Tables):  # noqa: N801 - the same
        def forget(self, number: int) -> None:
            super().forget(number)
            for channel in self.channels_of(number):
                for identity, copy in self.copies.get(channel.number, {}).items():
                    if copy is GONE:
                        self.rows[number].pop(identity, None)


class Twice(Different):
    class tables(Tables):  # noqa: N801 - the same
        def put(self, number: int, rows: list[Row]) -> None:
            for row in rows:
                known = row[0] in self.rows.get(number, {})
                super().put(number, [(row[0] + known, *row[1:])])


class Shared(Different):
    class tables(Tables):  # noqa: N801 - the same
        def put(self, number: int, rows: list[Row]) -> None:
            super().put(number, [(*row[:3], None, *row[4:]) for row in rows])


class KeepsGone(Different):
    class tables(Tables):  # noqa: N801 - the same
        def note(self, number: int, channel: int | None, copies: dict[int, Copy]) -> None:
            """Keep what is gone, unless it is so in one call alone."""
            super().note(number, channel, copies if len(copies) < 9 else {})


class KeepsEmptied(Different):
    class tables(Tables):  # noqa: N801 - the same
        def empty(self, number: int, after: int, upto: int) -> None:
            """Throw nothing away."""


@pytest.mark.parametrize(
    ("kind", "test"),
    [
        (Forgetful, "a_message_is_there_as_it_was_written"),
        (OutOfOrder, "messages_are_read_in_the_order_of_their_ids"),
        (WithoutLimit, "a_page_is_what_was_asked_for"),
        (NothingApart, "what_waits_is_read_apart"),
        (Restless, "a_topic_can_be_emptied"),
        (HalfWritten, "a_batch_that_is_interrupted_has_changed_nothing"),
        (Silent, "a_batch_that_is_interrupted_has_changed_nothing"),
        (Careless, "any_write_makes_a_topic_uncounted"),
        (Trusting, "who_holds_a_message_follows_from_the_rows"),
        (WithoutBackup, "a_backup_is_another_storage"),
        (Overwriting, "a_backup_replaces_nothing"),
        (Suspicious, "a_message_is_there_as_it_was_written"),
        (KeepsGone, "what_is_gone_in_every_channel_need_not_be_written"),
        (Reusing, "the_highest_numbers_are_kept"),
        (KeepsAll, "a_message_is_forgotten_when_the_last_has_done_with_it"),
        (ForgetsEarly, "a_message_is_forgotten_when_the_last_has_done_with_it"),
        (Twice, "rows_that_are_written_twice_are_there_once"),
        (Shared, "what_is_meant_for_one_channel_is_read_apart_there_alone"),
        (KeepsEmptied, "a_paused_topic_can_be_emptied"),
    ],
)
def test_it_finds_faults(kind: Callable[[Contents], MemoryStorage], test: str) -> None:
    """A storage with a fault fails the test of what it does wrong, and not all of them."""
    names = failed(kind)
    assert test in names
    assert len(names) < len(TESTS)


def test_it_finds_no_fault_where_there_is_none() -> None:
    """The storage in plain dicts passes each test."""
    assert set() == failed(MemoryStorage)
    assert 40 < len(TESTS)


def test_every_test_says_what_it_claims() -> None:
    """The tests that users run have docstrings, which tell what their storage does wrong."""
    assert [] == [name for name in TESTS if not getattr(StorageContract, name).__doc__]


def test_a_contract_without_a_storage() -> None:
    """A class that does not say how to open its storage is told so."""
    with pytest.raises(NotImplementedError):
        StorageContract().test_a_new_storage_is_empty()
    with pytest.raises(NotImplementedError):
        StorageContract().restored("copy")


def test_it_can_be_imported_without_pytest() -> None:
    """`nsqlite.testing` needs nothing that a user may not have."""
    program = (
        "import sys\n"
        "sys.modules['pytest'] = sys.modules['hypothesis'] = None\n"
        "from nsqlite.testing import StorageContract\n"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        check=False,
        cwd=Path(nsqlite.__file__).parent.parent,
        text=True,
        timeout=60,
    )
    assert (0, "") == (done.returncode, done.stderr)
