"""The tables, and files of other versions."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final
from unittest.mock import patch

import pytest

from nsqlite import StoreError, StoreForeign
from nsqlite.store import (
    GONE,
    Batch,
    Found,
    Row,
    StoredChannel,
    StoredTopic,
    schema,
    sqlitefile,
)
from nsqlite.store.sqlitefile import SQLiteFile
from store.files import HIGHEST, read_apart

FIRST: Final = Path(__file__).with_name("version_1.db")
"""A file that the first version wrote, with the contents of `write_fixture`."""

USED: Final = Path(__file__).with_name("version_1_used.db")
"""Another one of the first version, in which topics and channels were being swept."""

SECOND: Final = Path(__file__).with_name("version_2.db")
"""A file that the second version wrote, with the same contents."""

THIRD: Final = Path(__file__).with_name("version_3.db")
"""The same of the third version."""

FIXTURE: Final = Path(__file__).with_name("version_4.db")
"""A file that the fourth version wrote; see `write_fixture`."""


def write_fixture(path: Path) -> None:
    """Write such a file.

    In the folder of the tests:

    python -c "from store.test_schema import *; write_fixture(FIXTURE)"

    Only for a new version, under a new name: a file that is there shows what its version wrote.
    """
    path.unlink(missing_ok=True)
    with patch.object(sqlitefile, "PAGE", 1024):  # to have a small file
        file = SQLiteFile(str(path), full=True)
    assert ([], []) == file.load()
    file.write(
        Batch(
            topics={
                1: StoredTopic(number=1, name="orders"),
                2: StoredTopic(number=2, name="held", held=2, counted=True),
                3: StoredTopic(number=3, name="paused", paused=True, handed=300),
                4: StoredTopic(number=4, name="deleted"),
            },
            channels={
                1: StoredChannel(number=1, topic=1, name="billing", since=100),
                2: StoredChannel(number=2, topic=1, name="audit", paused=True),
                3: StoredChannel(number=3, topic=3, name="c"),
            },
            rows={
                1: [
                    (99, 9, None, None, None, b"before billing began"),
                    (101, 11, None, None, None, b"plain"),
                    (102, 12, None, None, "json", b'{"a":1}'),
                    (103, 13, 9000, None, None, b"deferred"),
                    (104, 14, None, None, None, b"done by billing"),
                    (105, 15, None, None, None, b"done by audit"),
                    (106, 16, None, 2, None, b"for audit alone"),
                ],
                2: [(200, 20, None, None, None, b"held"), (201, 21, 8000, None, None, b"later")],
                3: [(300, 30, None, None, None, b"handed"), (301, 31, None, None, None, b"not")],
                4: [(400, 40, None, None, None, b"gone")],
            },
            highest=400,
        )
    )
    file.write(
        Batch(
            copies={
                (1, 1): {101: (2, None), 102: (3, 7000), 104: GONE},
                (1, 2): {105: GONE, 101: (1, None)},
            },
            gone_topics={4: None},
        )
    )
    file.write_row(1, (107, 17, None, None, None, b"one more"))
    file.write_row(1, (108, 18, None, None, None, b"another one"))
    file.close()


def exact_contents(file: SQLiteFile) -> None:
    """Check that a file has what `write_fixture` wrote."""
    topics, channels = file.load()
    assert [(1, "orders", False), (2, "held", False), (3, "paused", True)] == [
        (topic.number, topic.name, topic.paused) for topic in topics
    ]
    assert [(1, 1, "billing", False, 100), (2, 1, "audit", True, 0), (3, 3, "c", False, 0)] == [
        (one.number, one.topic, one.name, one.paused, one.since) for one in channels
    ]
    assert [0, 300] == [topic.handed for topic in topics[1:]]
    assert [(0, {1: 6, 2: 8}), (2, {}), (1, {3: 1})] == [file.count(n) for n in (1, 2, 3)]
    assert [108, 201, 301] == [file.last(number) for number in (1, 2, 3)]
    assert (4, 3, 400) == file.highest()
    found = file.read(1, 1, 100, HIGHEST, -1)
    assert [(101, 11, 2), (105, 15, 0), (107, 17, 0), (108, 18, 0)] == [
        (one[0], one[1], one[5]) for one in found
    ]
    assert [b"plain", b"done by audit"] == [one[4] for one in found[:2]]
    assert [
        (102, 12, 7000, "json", b'{"a":1}', 3, True),
        (103, 13, 9000, None, b"deferred", 0, True),
    ] == read_apart(file, 1, 1, 100, HIGHEST)
    assert [99, 101, 102, 104, 107, 108] == [one[0] for one in file.read(1, 2, 0, HIGHEST, -1)]
    assert [
        (103, 13, 9000, None, b"deferred", 0, True),
        (106, 16, None, None, b"for audit alone", 0, True),
    ] == read_apart(file, 1, 2, 0, HIGHEST)
    assert [b"held"] == [one[4] for one in file.read(2, None, 0, HIGHEST, -1)]
    assert [(b"later", 8000)] == [(one[4], one[2]) for one in read_apart(file, 2, None, 0, HIGHEST)]
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
    file.write(Batch(topics={1: StoredTopic(number=1, name="orders")}))
    file.close()


def test_a_file_says_what_it_is(path: Path) -> None:
    """A new file has nsqlite's mark, the version, and pages that can be given back."""
    new_file(path)
    assert int.from_bytes(b"nsql", "big") == schema.MARK == pragma(path, "application_id")
    assert schema.VERSION == pragma(path, "user_version")
    assert (sqlitefile.PAGE, 2) == (pragma(path, "page_size"), pragma(path, "auto_vacuum"))
    assert "wal" == pragma(path, "journal_mode")


def test_the_first_topics_have_partitions_of_their_own(path: Path) -> None:
    """The others share one; a partition is free again when all of its topic was forgotten."""
    file = SQLiteFile(str(path), full=False)
    file.load()
    for number in range(1, schema.OWN + 4):
        rows: list[Row] = [(number, 1, None, None, None, b"x")]
        new = {number: StoredTopic(number=number, name=f"t{number}")}
        file.write(Batch(topics=new, rows={number: rows}))
    assert [*range(1, schema.OWN + 1), 0, 0, 0] == partitions(file)
    file.write(Batch(gone_topics={3: None}))
    file.write(Batch(topics={50: StoredTopic(number=50, name="t3")}))
    while file.tidy():
        pass
    file.write(Batch(topics={51: StoredTopic(number=51, name="t51")}))
    assert [0, 3] == partitions(file)[-2:]
    assert [number for number in range(1, schema.OWN + 4) if number != 3] == [
        one[0] for number in range(1, 60) for one in file.read(number, None, 0, HIGHEST, -1)
    ]
    file.close()


def partitions(file: SQLiteFile) -> list[int]:
    query = "SELECT partition FROM topic WHERE NOT gone ORDER BY number"
    return [partition for (partition,) in file._writer._connection.execute(query)]


def test_names_are_there_once() -> None:
    """Each name is there once among the topics, or a topic's channels, that are not gone."""
    connection = sqlite3.connect(":memory:")
    schema.create(connection)
    topic = "INSERT INTO topic (number, name, partition, paused, handed, held, counted, gone)"
    topic += " VALUES (?, 'same', 0, 0, 0, 0, 0, ?)"
    channel = "INSERT INTO channel (number, topic, name, paused, since, held, gone)"
    channel += " VALUES (?, 1, 'same', 0, 0, 0, ?)"
    for statement in (topic, channel):
        for values in ((1, 1), (2, 1), (3, 0)):
            connection.execute(statement, values)
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(statement, (4, 0))
    connection.close()


@pytest.mark.parametrize("fixture", [FIRST, SECOND, THIRD, FIXTURE], ids=["1", "2", "3", "4"])
def test_a_file_of_each_version(path: Path, fixture: Path) -> None:
    """A file that a version wrote is read with all that is in it, now and once more."""
    assert fixture.stat().st_size < 40_000
    shutil.copy(fixture, path)
    for _ in range(2):
        file = SQLiteFile(str(path), full=False)
        exact_contents(file)
        while file.tidy():
            pass
        file.close()
    assert schema.VERSION == pragma(path, "user_version")
    assert "ok" == pragma(path, "integrity_check")


@pytest.mark.parametrize("own", [0, 2, 16])
def test_a_used_file_of_the_first_version(
    path: Path, own: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting, requeued, for one alone, held back, gone, half swept: all is as it was."""
    monkeypatch.setattr(schema, "OWN", own)
    assert USED.stat().st_size < 40_000
    shutil.copy(USED, path)
    file = SQLiteFile(str(path), full=False)
    topics, channels = file.load()
    assert [1, 2, 3, 4, 5, 7] == [topic.number for topic in topics]
    assert not any(topic.counted for topic in topics)
    assert [(1, 1), (1, 3), (2, 4), (5, 5), (7, 8)] == [(one.topic, one.number) for one in channels]
    for _ in range(2):
        assert {
            1: (0, {1: 9, 3: 9}),
            2: (3, {4: 3}),
            3: (2, {}),
            4: (0, {}),
            5: (0, {5: 3}),
            7: (0, {8: 0}),
        } == {topic.number: file.count(topic.number) for topic in topics}
        assert (7, 8, 1029) == file.highest()
        assert [(11, 3), (15, 0), (17, 0), (20, 0), (21, 1)] == briefly(file.read(1, 1, 0, 99, -1))
        assert [(12, 1), (13, 2), (18, 0), (19, 0)] == briefly(read_apart(file, 1, 1, 0, 99))
        assert [99_000, 9000, 8000, 50] == [one[2] for one in read_apart(file, 1, 1, 0, 99)]
        assert [12, 16, 17, 19, 20, 21] == [one[0] for one in file.read(1, 3, 0, 99, -1)]
        assert [(13, 4), (14, 5), (15, 2)] == briefly(read_apart(file, 1, 3, 0, 99))
        assert [(31, 1)] == briefly(file.read(2, 4, 0, 32, -1))
        assert [(32, 0), (35, 0)] == briefly(read_apart(file, 2, 4, 0, 32))
        assert [33, 36] == [one[0] for one in file.read(2, None, 32, 99, -1)]
        assert [34] == [one[0] for one in read_apart(file, 2, None, 32, 99)]
        while file.tidy():
            pass
    [tables] = file._writer._connection.execute(
        "SELECT count(*) FROM sqlite_master WHERE name LIKE 'message!_%' ESCAPE '!'"
        " OR name LIKE '%!_1' ESCAPE '!' AND name LIKE 't%'"
    ).fetchone()
    assert 0 == tables
    file.close()


def briefly(found: list[Found]) -> list[tuple[int, int]]:
    """Return ids, and how often they were delivered."""
    return [(one[0], one[5]) for one in found]


def test_what_is_written_now_is_as_it_was(path: Path) -> None:
    """The helper that wrote the file still writes one with the same contents and tables."""
    write_fixture(path)
    file = SQLiteFile(str(path), full=False)
    exact_contents(file)
    file.close()
    if schema.VERSION == 4:
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
    monkeypatch.setattr(schema, "STEPS", {4: first, 5: second})
    for module in (schema, sqlitefile):
        monkeypatch.setattr(module, "VERSION", 6)
    return lambda: repaired.append(True)


def test_an_upgrade_goes_step_by_step(path: Path, two_steps: Callable[[], None]) -> None:
    """A file of an earlier version becomes one of this, with all that is in it."""
    two_steps()
    shutil.copy(FIXTURE, path)
    for _ in range(2):
        file = SQLiteFile(str(path), full=False)
        exact_contents(file)
        file.close()
        assert 6 == pragma(path, "user_version")
    connection = sqlite3.connect(path)
    assert {"red"} == {colour for [colour] in connection.execute("SELECT colour FROM topic")}
    connection.close()


def test_an_upgrade_that_fails_changes_nothing(path: Path, two_steps: Callable[[], None]) -> None:
    """All steps are one transaction: after a failure the file is as it was, and can be tried."""
    shutil.copy(FIXTURE, path)
    with pytest.raises(StoreError) as info:
        SQLiteFile(str(path), full=False)
    assert "it cannot be used (no such table: missing)" == info.value.problem
    assert 4 == pragma(path, "user_version")
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
    assert "it is a SQLite file, but not one of nsqlite" == info.value.problem
    assert before == path.read_bytes()
    assert ["jobs.db"] == [one.name for one in path.parent.iterdir()]


def test_an_empty_file(path: Path) -> None:
    """A file of no bytes becomes a new one."""
    path.touch()
    new_file(path)
    assert schema.MARK == pragma(path, "application_id")
