"""How a file takes over another one."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from storefiles import change, counts, fill, told_of

import nsqlite
from nsqlite.cli.lines import MessageLine, TopicLine
from nsqlite.cli.merge import merge
from nsqlite.store.schema import OWN, SHARED


def two(folder: Path) -> tuple[Path, Path]:
    """Make two files that have nothing in common."""
    path, new = folder / "jobs.db", folder / "new.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path)):
        pass
    fill(new)
    return path, new


def test_all_is_taken_over(tmp_path: Path) -> None:
    """All topics, channels, messages and copies of the other file are there, which stays."""
    path, new = two(tmp_path)
    expected = told_of(new)
    change(new, "UPDATE highest SET id = 1 << 62")
    merge(str(path), str(new))
    assert expected == told_of(path) == told_of(new)
    with nsqlite.Broker(store=nsqlite.SQLite(path, codec="json")) as broker:
        assert 1 << 62 < int(broker.topic("later").put(b"tea"), 16)


def test_it_is_all_or_nothing(tmp_path: Path) -> None:
    """Where the last step fails, nothing was taken over."""
    path, new = two(tmp_path)
    before = told_of(path)
    change(path, "CREATE TRIGGER no BEFORE UPDATE ON highest BEGIN SELECT RAISE(FAIL, 'no'); END")
    with pytest.raises(nsqlite.StoreError) as caught:
        merge(str(path), str(new))
    assert f"store {path}: it cannot be used (no)" == str(caught.value)
    assert before == told_of(path)


def test_what_is_there_already_is_not_mixed(tmp_path: Path) -> None:
    """A file that has the same topics takes over nothing."""
    path, new = two(tmp_path)
    shutil.copy(new, path)
    with pytest.raises(nsqlite.StoreError, match="UNIQUE constraint failed"):
        merge(str(path), str(new))
    lines = told_of(path)
    assert 4 == sum(isinstance(line, TopicLine) for line in lines)
    assert 12 == sum(isinstance(line, MessageLine) for line in lines)


def partitions(path: Path) -> list[int]:
    """Return where the messages of each topic are, by its number; every row must say its topic."""
    with closing(sqlite3.connect(path)) as connection:
        topics = dict(connection.execute("SELECT number, partition FROM topic ORDER BY number"))
        for partition in set(topics.values()):
            rows = connection.execute(f"SELECT DISTINCT topic FROM messages_{partition}")  # noqa: S608 - a number
            assert {n for n, at in topics.items() if at == partition} == {n for (n,) in rows}
        return list(topics.values())


def test_each_topic_gets_a_partition_that_is_free(tmp_path: Path) -> None:
    """Topics move into partitions that nobody has, and where there are none into the shared one."""
    path, new = tmp_path / "jobs.db", tmp_path / "new.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        for number in range(OWN + 2):
            broker.topic(f"old{number}").put(b"old")
        for number in (3, 7, 16):
            broker.topic(f"old{number}").delete()
        while broker._persistence.upkeep():  # type: ignore[union-attr]  # of the store alone
            pass
    with nsqlite.Broker(store=nsqlite.SQLite(new)) as broker:
        for number in range(OWN + 3):
            broker.topic(f"new{number}").channel("c")
            broker.topic(f"new{number}").put_many([b"tea", b"jam"])
    change(
        new,
        "UPDATE topic SET number = number + 100 WHERE number > 0",
        "UPDATE channel SET number = number + 100, topic = topic + 100",
        *(f"UPDATE messages_{at} SET topic = topic + 100, crc = NULL" for at in range(OWN + 1)),  # noqa: S608 - a number
    )
    expected = [*told_of(path)[:-1], *told_of(new)[1:]]
    merge(str(path), str(new))
    assert sorted(map(repr, expected)) == sorted(map(repr, told_of(path)))
    left = sorted({*range(1, OWN + 1)} - {4, 8})
    assert [*left, SHARED, 4, 8, *[SHARED] * (OWN + 1)] == partitions(path)


def test_what_is_taken_over_is_not_counted(tmp_path: Path) -> None:
    """A file that says how much a topic holds says nothing of it where it was taken over."""
    path, new = two(tmp_path)
    merge(str(path), str(new))
    with closing(sqlite3.connect(path)) as connection:
        assert [(0, 0)] == connection.execute("SELECT DISTINCT counted, held FROM topic").fetchall()
    assert counts(new) == counts(path)
