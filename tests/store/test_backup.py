"""A copy of a file that is in use, and a file whose log is missing."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers import bodies

import nsqlite
from nsqlite import StoreDamaged, StoreError, StoreForeign, StoreInUse
from nsqlite.store.backup import LOG_MISSING, copy_file, missing_log
from nsqlite.store.owner import Owner

OWNER = """
import sys, nsqlite
broker = nsqlite.Broker(store=nsqlite.SQLite(sys.argv[1]))
broker.topic("orders").channel("billing")
broker.topic("orders").put(b"tea")
print("open", flush=True)
sys.stdin.read()
broker.close()
"""


@contextmanager
def an_owner(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Have another process that owns a file until the end of the block, where it is killed."""
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-W", "error", "-c", OWNER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert "open\n" == process.stdout.readline()
            yield process
        finally:
            process.kill()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def found(path: Path) -> list[Any]:
    """Return the bodies that a broker finds in a file."""
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        return bodies(broker.topic("orders").channel("billing"))


def fill(path: Path, count: int = 3) -> list[bytes]:
    """Make a file with messages, and return their bodies."""
    all_bodies = [b"%d" % number for number in range(count)]
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        broker.topic("orders").channel("billing")
        broker.topic("orders").put_many(all_bodies)
    return all_bodies


def test_a_file_in_use_is_copied(tmp_path: Path) -> None:
    """What another process has put is in the copy, and that process goes on undisturbed."""
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    with an_owner(path) as owner:
        assert copy_file(str(path), str(copy)) == copy.stat().st_size
        owner.communicate("", timeout=60)
        assert 0 == owner.returncode
    assert ["copy.db", "jobs.db"] == names(tmp_path)
    assert [b"tea"] == found(copy)
    assert [b"tea"] == found(path)


def test_the_owner_itself_copies_its_file(tmp_path: Path) -> None:
    """In the owner's process its file is copied, with what it has put, and it can go on."""
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        broker.topic("orders").channel("billing")
        broker.topic("orders").put(b"tea")
        copy_file(str(path), str(copy))
        broker.topic("orders").put(b"jam")
    assert [b"tea"] == found(copy)
    assert [b"tea", b"jam"] == found(path)


def test_a_copy_is_of_one_moment(tmp_path: Path) -> None:
    """What is put while it is copied is not in the copy, and does not begin it anew."""
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        orders = broker.topic("orders")
        orders.channel("billing")
        before = [b"%d" % number * 1000 for number in range(3000)]
        orders.put_many(before)
        told = []

        def hear(copied: int, total: int) -> None:
            told.append((copied, total))
            orders.put(b"later")

        size = copy_file(str(path), str(copy), hear)
        assert len(told) > 1
        assert sorted(told) == told
        assert (size, size) == told[-1]
    assert before == found(copy)


def test_a_file_that_nobody_has_is_copied(tmp_path: Path) -> None:
    """A file that is not in use stays as it is, byte for byte; so does what a kill has left."""
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    expected = fill(path)
    before = path.read_bytes()
    copy_file(str(path), str(copy))
    assert before == path.read_bytes()
    assert ["copy.db", "jobs.db"] == names(tmp_path)
    assert expected == found(copy)


def test_a_log_that_a_kill_has_left_is_copied(tmp_path: Path) -> None:
    """What only the log of a dead owner has is in the copy, and the log stays."""
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    with an_owner(path):
        pass
    log = tmp_path / "jobs.db-wal"
    before = log.read_bytes()
    copy_file(str(path), str(copy))
    assert before == log.read_bytes()
    assert [b"tea"] == found(copy)


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    """A copy never takes the place of anything, the file itself least of all."""
    path = tmp_path / "jobs.db"
    fill(path)
    before = path.read_bytes()
    with pytest.raises(StoreError) as caught:
        copy_file(str(path), str(path))
    text = f"store {path}: {path} is there already: remove it, or name another file"
    assert text == str(caught.value)
    assert before == path.read_bytes()


def test_what_is_no_store_is_told(tmp_path: Path) -> None:
    """What is no file of nsqlite's is not copied."""
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"

    def told(kind: type[StoreError]) -> str:
        with pytest.raises(kind) as caught:
            copy_file(str(path), str(copy))
        assert str(path) == caught.value.where
        assert not copy.exists()
        return caught.value.problem

    assert "there is no such file" == told(StoreError)
    path.mkdir()
    assert "it is no file" == told(StoreError)
    path.rmdir()
    path.touch()
    assert "it is not a file of nsqlite" == told(StoreForeign)
    path.write_bytes(b"something else, and long enough to be looked at" * 9)
    assert "it is no SQLite file (file is not a database)" == told(StoreForeign)
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
    assert "it is not a file of nsqlite" == told(StoreForeign)


def test_what_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is too long, and a file that may not be read, are told as that."""
    long, path = str(tmp_path / ("a" * 300)), tmp_path / "jobs.db"
    with pytest.raises(StoreError) as caught:
        copy_file(long, str(tmp_path / "copy.db"))
    assert f"store {long}: it cannot be read: File name too long" == str(caught.value)
    fill(path)
    monkeypatch.setattr("os.access", lambda *_arguments: False)  # root may read all
    with pytest.raises(StoreError) as caught:
        copy_file(str(path), str(tmp_path / "copy.db"))
    assert f"store {path}: it cannot be read: Permission denied" == str(caught.value)


def test_what_ends_it_leaves_no_copy(tmp_path: Path) -> None:
    """Where it is interrupted, neither the copy nor a part of it is there."""
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    fill(path)

    def interrupt(_copied: int, _total: int) -> None:
        assert ["copy.db-partial", "copy.db-partial-owner"] == names(tmp_path)[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_file(str(path), str(copy), interrupt)
    assert ["jobs.db"] == names(tmp_path)


def test_two_do_not_make_the_same_copy(tmp_path: Path) -> None:
    """Who copies to where somebody else does is told, and disturbs nobody."""
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    fill(path)

    def meanwhile(_copied: int, _total: int) -> None:
        with pytest.raises(StoreInUse) as caught:
            copy_file(str(path), str(copy))
        assert str(copy) == caught.value.where

    copy_file(str(path), str(copy), meanwhile)
    assert ["copy.db", "jobs.db"] == names(tmp_path)


def test_a_disk_that_is_full_is_told_of_the_copy(tmp_path: Path) -> None:
    """Where the copy does not fit, that is told of the copy, and nothing is left of it."""
    path = tmp_path / "jobs.db"
    fill(path, 5000)
    program = (
        "import resource, sys\n"
        "from nsqlite.store.backup import copy_file\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))\n"
        "copy_file(*sys.argv[1:])\n"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", program, str(path), str(tmp_path / "copy.db")],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert f"StoreError: store {tmp_path / 'copy.db'}: " in done.stderr
    assert ["jobs.db"] == names(tmp_path)


def test_a_young_file_without_its_log_is_known(tmp_path: Path) -> None:
    """Of a file that was young when it was copied by itself it is known that it has no log."""
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    with an_owner(path):
        assert not missing_log(str(path))
        shutil.copy(path, copy)
        assert missing_log(str(copy))
        with pytest.raises(StoreDamaged) as caught:
            copy_file(str(copy), str(tmp_path / "second.db"))
        assert f"store {copy}: {LOG_MISSING}" == str(caught.value)
        shutil.copy(f"{path}-wal", f"{copy}-wal")
        assert not missing_log(str(copy))
    assert not missing_log(str(path))  # its owner was killed, and has left the log
    assert [b"tea"] == found(copy)


def test_who_was_killed_as_he_made_a_file_misses_nothing(tmp_path: Path) -> None:
    """A young file whose owner is there, or died before there was a log, misses none."""
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    with an_owner(path):
        shutil.copy(path, copy)
    owner = Owner(str(copy))
    assert not missing_log(str(copy))
    owner.release()
    assert missing_log(str(copy))


def test_a_file_that_was_just_made_as_the_power_was_lost_misses_nothing(tmp_path: Path) -> None:
    """SQLite's journal is beside it, and neither the log nor the lock: it is made anew."""
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    with an_owner(path):
        shutil.copy(path, copy)
    assert missing_log(str(copy))
    Path(f"{copy}-journal").touch()
    assert not missing_log(str(copy))
    with nsqlite.Broker(store=nsqlite.SQLite(copy)) as broker:
        assert [] == list(broker.topics)
        broker.topic("orders").put(b"tea")
    assert [b"tea"] == found(copy)


def test_a_file_with_many_tables_misses_no_log(tmp_path: Path) -> None:
    """A file that tells of its tables in pages below the first one is not taken for a young one."""
    path = tmp_path / "jobs.db"
    fill(path)
    page = bytearray(path.read_bytes())
    page[100] = 5  # as SQLite leaves it where the tables would not fit into the first page
    page[103:105] = b"\0\0"
    path.write_bytes(page)
    assert not missing_log(str(path))
    page[100] = 13
    path.write_bytes(page)
    assert missing_log(str(path))


def test_other_files_miss_no_log(tmp_path: Path) -> None:
    """Nothing else is taken for such a file: a store that was closed, an empty file, another's."""
    path = tmp_path / "jobs.db"
    assert not missing_log(str(path))
    assert not missing_log(str(tmp_path))
    path.touch()
    assert not missing_log(str(path))
    with nsqlite.Broker(store=nsqlite.SQLite(path)):
        assert not missing_log(str(path))
    assert not missing_log(str(path))
    for number, statement in enumerate(
        ("PRAGMA journal_mode = WAL", "VACUUM", "CREATE TABLE t (x)")
    ):
        other = tmp_path / f"{number}.db"
        with closing(sqlite3.connect(other, isolation_level=None)) as connection:
            connection.execute(statement).fetchall()
        assert not missing_log(str(other))
    path.write_bytes(b"something else, and long enough to be looked at" * 9)
    assert not missing_log(str(path))
