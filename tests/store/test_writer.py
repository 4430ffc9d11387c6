"""What writes to a file: what it knows, its transactions, and others that write there."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from helpers import bodies

from nsqlite import Broker, Consumer, SQLite
from nsqlite.store import GONE, Batch, Copy, Row
from nsqlite.store.sqlitefile import SQLiteFile
from nsqlite.store.statements import TOGETHER
from store.files import HIGHEST, count, finish, made, new_topic, read_apart, ready, row, tidy
from store.stores import Scene, until


def test_an_interrupted_end_is_rolled_back(
    file: SQLiteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is thrown in when all was written but the commit leaves nothing, and no transaction."""
    file.write_rows(1, [row(1), row(2)])

    put = file._writer._put

    def interrupt(number: int, partition: int, rows: list[Row]) -> None:
        put(number, partition, rows)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(file._writer, "_put", interrupt)
        with pytest.raises(KeyboardInterrupt):
            file.write(Batch(rows={1: [row(3)]}))
    assert not file._writer._connection.in_transaction
    assert [1, 2] == ready(file)


def test_what_was_committed_is_known_whatever_is_thrown_in_then(
    file: SQLiteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal between the commit and what is learned of it leaves both in one state."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    file.write(new_topic(2, 7))
    batch = new_topic(5, 9)
    batch.rows[5] = [row(1), row(2)]
    batch.gone_topics[2] = None
    with monkeypatch.context() as patch:
        patch.setattr(file._writer, "_learn", interrupt)
        with pytest.raises(KeyboardInterrupt):
            file.write(batch)
    assert {1, 5} == set(file._writer.topics)
    assert (0, {9: 2}) == file.count(5)
    file.write(new_topic(6, 10))
    file.write(batch)
    assert [1, 3, 4] == [file._writer.topics[number].partition for number in (1, 5, 6)]
    tidy(file)
    assert (3, 2) == (count(file, "topic"), len(file.read(5, 9, 0, HIGHEST, -1)))


def test_what_is_finished_here_and_there_is_deleted(file: SQLiteFile) -> None:
    """Many gaps, with copies and without, in one batch and one after the other."""
    identities = list(range(1, 201))
    file.write_rows(1, [row(identity) for identity in identities])
    file.write_attempts(1, 1, [(identity, 1) for identity in identities])
    finish(file, identities[::2])
    assert (identities[1::2], 100) == (ready(file), count(file, "copy"))
    gone: dict[int, Copy] = dict.fromkeys(identities[1::4], GONE)
    file.write(Batch(copies={(1, 1): gone}))
    file.write(Batch(copies={(1, 2): gone}))
    assert (identities[3::4], 50) == (ready(file), count(file, "copy"))


def test_what_was_counted_is_forgotten_with_its_message(path: Path, file: SQLiteFile) -> None:
    """No copy is left of a message that all have done with, whichever way it was written."""
    for _ in range(2):
        file.write_rows(1, [row(identity) for identity in range(1, 7)])
        file.write_attempts(1, 1, [(1, 1)])
        file.write_attempts(1, 2, [(2, 1), (3, 1)])
        file.write(Batch(copies={(1, 1): {4: (1, 9)}, (1, 2): {5: GONE}}))
        finish(file, [1, 2, 3, 4, 5, 6])
        assert (0, 0) == (count(file, "copy"), count(file, "messages_1"))
    file.write_row(1, row(7))
    file.write_attempts(1, 1, [(7, 1)])
    file.close()
    again = SQLiteFile(str(path), full=False)
    again.load()
    finish(again, [7])
    assert (0, 0) == (count(again, "copy"), count(again, "messages_1"))
    again.close()


def test_a_topic_with_one_channel_needs_no_copies(file: SQLiteFile) -> None:
    """What its one channel has done with is deleted, and no copy says so."""
    file.write(new_topic(5, 9))
    file.write_rows(5, [row(1), row(2)])
    file.write(Batch(copies={(5, 9): {1: GONE}}))
    assert (0, 1) == (count(file, "copy"), count(file, "messages_2"))


def test_another_program_writes(path: Path, file: SQLiteFile) -> None:
    """What it writes between two commits hinders neither, whatever way these take."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
        other.execute("CREATE TABLE theirs (x)")
        for identity in range(1, 8):
            if identity % 2:
                file.write_row(1, row(identity))
            else:
                file.write_attempts(1, 1, [(identity - 1, identity)])
            other.execute("INSERT INTO theirs VALUES (1)")
        assert 7 == other.execute("SELECT count(*) FROM theirs").fetchone()[0]
        assert [(1, 2), (3, 4), (5, 6), (7, 0)] == [
            (one[0], one[5]) for one in file.read(1, 1, 0, HIGHEST, -1)
        ]


@pytest.mark.parametrize("write", ["write", "write_rows", "tidy"])
def test_another_program_copies_the_log(path: Path, file: SQLiteFile, write: str) -> None:
    """It can do so, to the last page, as soon as more was written than a message."""
    file.write_row(1, row(1))
    if write == "write":
        file.write(made())
    elif write == "write_rows":
        file.write_rows(1, [row(identity) for identity in range(2, TOGETHER + 3)])
    else:
        file.tidy()
    with closing(sqlite3.connect(path, timeout=0)) as other:
        assert (0, 0, 0) == other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


@pytest.mark.parametrize("attempts", ["late", "durable"])
def test_another_program_copies_the_log_of_a_broker_at_rest(path: Path, attempts: Any) -> None:
    """Nothing hinders it for longer than `sync_timeout`, whatever was done last."""
    with Broker(store=SQLite(path, attempts=attempts, sync_timeout=0.001)) as broker:
        consumer = Consumer(broker.topic("orders").channel("billing"))
        with closing(sqlite3.connect(path, timeout=0)) as other:

            def is_free() -> bool:
                copied: tuple[int, ...] = other.execute(
                    "PRAGMA wal_checkpoint(TRUNCATE)"
                ).fetchone()
                return copied == (0, 0, 0)

            broker.topic("orders").put(b"1")
            until(is_free)
            message = consumer.get(timeout=0)
            until(is_free)
            message.fin()
            until(is_free)


def test_what_is_put_in_numbers(file: SQLiteFile) -> None:
    """However many rows come together, and whatever they are, all of them are there."""
    expected: list[tuple[int, int | None, str | None, bytes]] = []
    identity = 0
    for number in (1, TOGETHER - 1, TOGETHER, TOGETHER + 1, 3 * TOGETHER):
        for due, codec in ((None, None), (5, None), (None, "json")):
            rows: list[Row] = [
                (identity + i, 1, due, None, codec, b"%d" % i) for i in range(1, number + 1)
            ]
            identity += number
            file.write_rows(1, rows)
            expected += [(one[0], one[2], one[4], one[5]) for one in rows]
    found = file.read(1, 1, 0, HIGHEST, -1) + read_apart(file, 1, 1, 0, HIGHEST)
    assert expected == sorted((one[0], one[2], one[3], one[4]) for one in found)


def test_many_gaps_are_deleted(path: Path) -> None:
    """What is finished here and there is gone, and what lies between stays."""
    with Scene(path) as scene:
        scene.channel()
        scene.topic().put_many([b"%d" % number for number in range(80)])
        with Consumer(scene.channel()) as consumer:
            batch = consumer.get_many(80, timeout=0)
            consumer.fin_many(batch[::2])
            scene.broker.flush()
    with Scene(path) as scene:
        assert [b"%d" % number for number in range(1, 80, 2)] == bodies(scene.channel())
