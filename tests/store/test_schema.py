"""The tables, and files of other versions."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final
from unittest.mock import patch

import pytest

from nsqlite import StoreError, StoreForeign
from nsqlite.store import GONE, Batch, StoredChannel, StoredTopic, schema, sqlitefile
from nsqlite.store.sqlitefile import SQLiteFile
from store.files import HIGHEST

FIXTURE: Final = Path(__file__).with_name("version_1.db")
"""A file that the first version wrote; see `write_fixture`."""


def write_fixture(path: Path) -> None:
    """Write such a file.

    In the folder of the tests:

    python -c "from store.test_schema import *; write_fixture(FIXTURE)"

    Only for a new version, under a new name: a file that is there shows what its version wrote.
    """
    path.unlink(missing_ok=True)
    with patch.object(sqlitefile, "PAGE", 1024):  # to have a small file
        file = SQLiteFile(str(path), full=True)
    assert [] == file.load()
    channels = [
        StoredChannel(number=1, name="billing", since=100, held=4),
        StoredChannel(number=2, name="audit", paused=True, held=6),
    ]
    orders = StoredTopic(number=1, name="orders", handed=107, last=107, channels=channels)
    held = StoredTopic(number=2, name="held", handed=0, last=201, held=2)
    paused = StoredTopic(
        number=3,
        name="paused",
        paused=True,
        handed=300,
        last=301,
        held=1,
        channels=[StoredChannel(number=3, name="c", held=1)],
    )
    file.write(
        Batch(
            topics=[orders, held, paused, StoredTopic(number=4, name="deleted")],
            rows=[
                (
                    1,
                    [
                        (99, 9, None, None, None, b"before billing began"),
                        (101, 11, None, None, None, b"plain"),
                        (102, 12, None, None, "json", b'{"a":1}'),
                        (103, 13, 9000, None, None, b"deferred"),
                        (104, 14, None, None, None, b"done by billing"),
                        (105, 15, None, None, None, b"done by audit"),
                        (106, 16, None, 2, None, b"for audit alone"),
                    ],
                ),
                (2, [(200, 20, None, None, None, b"held"), (201, 21, 8000, None, None, b"later")]),
                (3, [(300, 30, None, None, None, b"handed"), (301, 31, None, None, None, b"not")]),
                (4, [(400, 40, None, None, None, b"gone")]),
            ],
        )
    )
    file.write(
        Batch(
            copies=[
                (1, 1, {101: (2, None), 102: (3, 7000), 104: GONE}),
                (1, 2, {105: GONE, 101: (1, None)}),
            ],
            gone_topics=[4],
        )
    )
    file.write_row(1, (107, 17, None, None, None, b"after the account"))
    file.write_row(1, (108, 18, None, None, None, b"after the account too"))
    file.close()


def exact_contents(file: SQLiteFile) -> None:
    """Check that a file has what `write_fixture` wrote."""
    topics = {topic.name: topic for topic in file.load()}
    assert {"orders", "held", "paused"} == set(topics)
    billing, audit = topics["orders"].channels
    assert ("billing", False, 100, 5) == (billing.name, billing.paused, billing.since, billing.held)
    assert ("audit", True, 0, 7) == (audit.name, audit.paused, audit.since, audit.held)
    orders, held, paused = (topics[name] for name in ("orders", "held", "paused"))
    assert (108, 108, 0) == (orders.handed, orders.last, orders.held)
    assert (0, 201, 2, []) == (held.handed, held.last, held.held, held.channels)
    assert (True, 300, 301, 1) == (paused.paused, paused.handed, paused.last, paused.held)
    assert [
        (101, 11, None, None, b"plain", 2),
        (105, 15, None, None, b"done by audit", 0),
        (107, 17, None, None, b"after the account", 0),
        (108, 18, None, None, b"after the account too", 0),
    ] == file.read(1, 1, 100, HIGHEST, -1)
    assert [
        (102, 12, 7000, "json", b'{"a":1}', 3),
        (103, 13, 9000, None, b"deferred", 0),
    ] == file.read_apart(1, 1, 100, HIGHEST)
    assert [99, 101, 102, 104, 107, 108] == [one[0] for one in file.read(1, 2, 0, HIGHEST, -1)]
    assert [
        (103, 13, 9000, None, b"deferred", 0),
        (106, 16, None, None, b"for audit alone", 0),
    ] == file.read_apart(1, 2, 0, HIGHEST)
    assert [b"held"] == [one[4] for one in file.read(2, None, 0, HIGHEST, -1)]
    assert [(b"later", 8000)] == [(one[4], one[2]) for one in file.read_apart(2, None, 0, HIGHEST)]
    assert [b"not"] == [one[4] for one in file.read(3, None, 300, HIGHEST, -1)]
    assert [b"handed"] == [one[4] for one in file.read(3, 3, 0, 300, -1)]


def pragma(path: Path, name: str) -> object:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]
    finally:
        connection.close()


def change(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


def new_file(path: Path) -> None:
    file = SQLiteFile(str(path), full=False)
    file.load()
    file.write(Batch(topics=[StoredTopic(number=1, name="orders")]))
    file.close()


def test_a_file_says_what_it_is(path: Path) -> None:
    """A new file has nsqlite's mark, the version, and pages that can be given back."""
    new_file(path)
    assert int.from_bytes(b"nsql", "big") == schema.MARK == pragma(path, "application_id")
    assert schema.VERSION == pragma(path, "user_version")
    assert (sqlitefile.PAGE, 2) == (pragma(path, "page_size"), pragma(path, "auto_vacuum"))
    assert "wal" == pragma(path, "journal_mode")


def test_the_tables_of_a_topic_are_its_own() -> None:
    """Each topic has a table, by its number, and each name is there once among those not gone."""
    connection = sqlite3.connect(":memory:")
    schema.create(connection)
    schema.create_topic(connection, 3)
    schema.create_topic(connection, 4)
    tables = {name for [name] in connection.execute("SELECT name FROM sqlite_master")}
    assert {"topic", "channel", "copy", "message_3", "message_4"} <= tables
    values = "(number, name, paused, handed, last, held, gone) VALUES (?, 'same', 0, 0, 0, 0, ?)"
    for number, gone in ((1, 1), (2, 1), (3, 0)):
        connection.execute(f"INSERT INTO topic {values}", (number, gone))
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(f"INSERT INTO topic {values}", (4, 0))
    connection.close()


def test_a_file_of_the_first_version(path: Path) -> None:
    """A file that the first version wrote is read with all that is in it, now and once more."""
    assert FIXTURE.stat().st_size < 40_000
    shutil.copy(FIXTURE, path)
    for _ in range(2):
        file = SQLiteFile(str(path), full=False)
        exact_contents(file)
        while file.tidy():
            pass
        file.close()
    assert schema.VERSION == pragma(path, "user_version")


def test_what_is_written_now_is_as_the_first_version_wrote_it(path: Path) -> None:
    """The helper that wrote the file still writes one with the same contents and tables."""
    write_fixture(path)
    file = SQLiteFile(str(path), full=False)
    exact_contents(file)
    file.close()
    if schema.VERSION == 1:
        texts = []
        for one in (path, FIXTURE):
            connection = sqlite3.connect(f"file:{one}?mode=ro&immutable=1", uri=True)
            texts.append(connection.execute("SELECT sql FROM sqlite_master ORDER BY 1").fetchall())
            connection.close()
        assert texts[0] == texts[1]


# Other versions


def test_a_file_of_a_later_version(path: Path) -> None:
    """What a later version wrote is not touched."""
    new_file(path)
    change(path, f"PRAGMA user_version = {schema.VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(StoreForeign) as info:
        SQLiteFile(str(path), full=False)
    later = f"(version {schema.VERSION + 1}; this one knows {schema.VERSION})"
    assert f"a later nsqlite wrote it {later}" == info.value.problem
    assert before == path.read_bytes()


@pytest.fixture
def two_steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make up two later versions, the second of which cannot be reached until it is repaired."""

    def first(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE topic ADD COLUMN colour TEXT")

    def second(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE topic SET colour = 'red'")
        if not repaired:
            connection.execute("UPDATE missing SET colour = 'red'")

    repaired: list[bool] = []
    monkeypatch.setattr(schema, "STEPS", {1: first, 2: second})
    for module in (schema, sqlitefile):
        monkeypatch.setattr(module, "VERSION", 3)
    return lambda: repaired.append(True)


def test_an_upgrade_goes_step_by_step(path: Path, two_steps: Callable[[], None]) -> None:
    """A file of an earlier version becomes one of this, with all that is in it."""
    two_steps()
    shutil.copy(FIXTURE, path)
    for _ in range(2):
        file = SQLiteFile(str(path), full=False)
        exact_contents(file)
        file.close()
        assert 3 == pragma(path, "user_version")
    connection = sqlite3.connect(path)
    assert {"red"} == {colour for [colour] in connection.execute("SELECT colour FROM topic")}
    connection.close()


def test_an_upgrade_that_fails_changes_nothing(path: Path, two_steps: Callable[[], None]) -> None:
    """All steps are one transaction: after a failure the file is as it was, and can be tried."""
    shutil.copy(FIXTURE, path)
    with pytest.raises(StoreError) as info:
        SQLiteFile(str(path), full=False)
    assert "it cannot be used (no such table: missing)" == info.value.problem
    assert 1 == pragma(path, "user_version")
    two_steps()
    file = SQLiteFile(str(path), full=False)
    exact_contents(file)
    file.close()


def test_the_version_needs_no_step() -> None:
    """There is a step from every earlier version."""
    assert set(range(1, schema.VERSION)) == set(schema.STEPS)


# Files of others


@pytest.mark.parametrize(
    "text", ["a text of some length, of which SQLite knows nothing\n" * 20, "xy"]
)
def test_a_file_that_is_none_of_sqlites(path: Path, text: str) -> None:
    """A text file is refused, and stays as it is."""
    path.write_text(text)
    with pytest.raises(StoreForeign) as info:
        SQLiteFile(str(path), full=False)
    assert "it is no SQLite file (file is not a database)" == info.value.problem
    assert text == path.read_text()
    assert ["jobs.db"] == [one.name for one in path.parent.iterdir()]


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE mine (x)", "PRAGMA application_id = 5", "PRAGMA user_version = 5"]
)
def test_a_file_of_another_program(path: Path, statement: str) -> None:
    """Another program's SQLite file is refused, and stays as it is, even if it has no table yet."""
    change(path, statement)
    before = path.read_bytes()
    with pytest.raises(StoreForeign) as info:
        SQLiteFile(str(path), full=False)
    assert "it is a SQLite file, but none of nsqlite's" == info.value.problem
    assert before == path.read_bytes()
    assert ["jobs.db"] == [one.name for one in path.parent.iterdir()]


def test_an_empty_file(path: Path) -> None:
    """A file of no bytes becomes a new one."""
    path.touch()
    new_file(path)
    assert schema.MARK == pragma(path, "application_id")
