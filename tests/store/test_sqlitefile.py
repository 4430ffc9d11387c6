"""A store in one SQLite file: what it promises, its disk, and what goes wrong there."""

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
from helpers import PATIENCE, Call, bodies

from nsqlite import (
    Broker,
    Consumer,
    SQLite,
    StoreDamaged,
    StoreError,
    StoreForeign,
    StoreFull,
    StoreInUse,
)
from nsqlite.store import GONE, Batch, Row, StoredChannel, StoredTopic, sqlitefile, wal, writer
from nsqlite.store.backup import LOG_MISSING
from nsqlite.store.sqlitefile import PAGE, SQLiteFile
from nsqlite.store.wal import LIMIT
from nsqlite.store.writer import SPARE
from nsqlite.testing import StorageContract
from store.files import HIGHEST, count, finish, made, read_apart, ready, row, tidy
from store.test_schema import FIXTURE, exact_contents


class TestContract(StorageContract):
    """It does what every storage must do."""

    path: Path

    @pytest.fixture(autouse=True)
    def _in(self, tmp_path: Path) -> None:
        self.path = tmp_path / "jobs.db"

    def make(self) -> SQLiteFile:
        return SQLiteFile(str(self.path), full=False)

    def restored(self, path: str) -> SQLiteFile:
        return SQLiteFile(path, full=False)


class TestContractFull(TestContract):
    """It does so when everything is to survive a loss of power, and without checksums, too."""

    def make(self) -> SQLiteFile:
        return SQLiteFile(str(self.path), full=True, checksums=False)


class TestContractShared(TestContract):
    """It does so where all topics share one partition, too."""

    @pytest.fixture(autouse=True)
    def _without_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(writer, "OWN", 0)


def in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[Exception]]:
    errors: list[Exception] = []

    def run() -> None:
        try:
            call()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


# Its parts


def test_a_closed_file_cannot_be_used(file: SQLiteFile) -> None:
    """Each call of a file that is closed raises a `StoreError`."""
    file.close()
    calls: list[Callable[[], object]] = [
        file.load,
        file.highest,
        file.tidy,
        file.copy_log,
        lambda: file.count(1),
        lambda: file.last(1),
        lambda: file.write_row(1, row(1)),
        lambda: file.write_rows(1, [row(1)]),
        lambda: file.write_attempts(1, 1, [(1, 1)]),
        lambda: file.write_attempts(1, 1, [(1, 1), (2, 1)]),
        lambda: file.write(Batch()),
        lambda: file.read(1, 1, 0, 9, 1),
        lambda: read_apart(file, 1, 1, 0, 9),
    ]
    for call in calls:
        with pytest.raises(StoreError):
            call()


@pytest.mark.parametrize("ending", ["", "-wal", "-shm"])
@pytest.mark.parametrize("way", ["removed", "replaced"])
@pytest.mark.parametrize("notices", ["copy_log", "write"])
def test_a_file_that_was_removed(
    path: Path, file: SQLiteFile, ending: str, way: str, notices: str
) -> None:
    """Upkeep or a batch finds out that all is written into nothing; then nothing is any more."""
    file.write_row(1, row(1))
    one = path.with_name(f"jobs.db{ending}")
    before = one.rename(path.with_name("before"))
    if way == "replaced":
        shutil.copy(before, one)
    problem = f"jobs.db{ending} was removed or replaced while it was open"
    with pytest.raises(StoreDamaged, match=problem):
        file.copy_log() if notices == "copy_log" else file.write(Batch())
    one.unlink(missing_ok=True)
    before.rename(one)
    for write in (
        file.tidy,
        file.copy_log,
        lambda: file.write(Batch()),
        lambda: file.write_row(1, row(2)),
        lambda: file.write_rows(1, [row(2), row(3)]),
        lambda: file.write_attempts(1, 1, [(1, 1)]),
    ):
        with pytest.raises(StoreDamaged, match="put the file in its place again, or a backup"):
            write()
    assert [1] == ready(file)


@pytest.mark.parametrize(("full", "expected"), [(False, 1), (True, 2)])
def test_what_a_commit_waits_for(path: Path, full: bool, expected: int) -> None:
    """Only if it is asked for a commit waits for the disk itself."""
    file = SQLiteFile(str(path), full=full)
    assert (expected,) == file._writer._connection.execute("PRAGMA synchronous").fetchone()
    file.close()


def test_the_names_of_a_new_file_are_on_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a loss of power could leave the file without its log; of an old one they are there.

    That of the lock is there before anything is in the file, so that a file that was just being
    made is not taken for one whose log is missing.
    """
    synced: list[tuple[bool, list[str]]] = []

    def sync(where: str) -> None:
        assert str(path) == where
        names = sorted(one.name for one in path.parent.iterdir())
        synced.append((bool(path.stat().st_size), names))

    monkeypatch.setattr(sqlitefile, "sync_directory", sync)
    for _ in range(2):
        SQLiteFile(str(path), full=False).close()
    made, names = synced
    assert (False, ["jobs.db", "jobs.db-owner"]) == made
    assert (True, ["jobs.db", "jobs.db-owner", "jobs.db-shm", "jobs.db-wal"]) == names


def test_only_its_own_files_lie_beside_it(path: Path, file: SQLiteFile) -> None:
    """While it is open there are three more files, afterwards there is one."""
    names = {one.name for one in path.parent.iterdir()}
    assert {"jobs.db", "jobs.db-owner", "jobs.db-shm", "jobs.db-wal"} == names
    file.close()
    assert ["jobs.db"] == [one.name for one in path.parent.iterdir()]


def test_a_second_thread_reads_while_one_writes(file: SQLiteFile) -> None:
    """A page is read from another thread at any time, in order and without a gap."""
    stop = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not stop.is_set():
            found = ready(file)
            assert list(range(1, len(found) + 1)) == found
            read_apart(file, 1, 1, 0, HIGHEST)
            seen.append(len(found))

    thread, errors = in_thread(read)
    for identity in range(1, 400):
        file.write_row(1, row(identity))
        if identity % 50 == 0:
            tidy(file)
    stop.set()
    thread.join(PATIENCE)
    assert ([], False) == (errors, thread.is_alive())
    assert sorted(seen) == seen


# A full disk


def limit(file: SQLiteFile, pages: int) -> None:
    """Leave so many pages for the file to grow."""
    [there] = file._writer._connection.execute("PRAGMA page_count").fetchone()
    file._writer._connection.execute(f"PRAGMA max_page_count = {there + pages}")


LARGE: Final = b"x" * 100_000


@pytest.mark.parametrize(
    "write",
    [
        lambda file: file.write_row(1, row(9, LARGE)),
        lambda file: file.write_rows(1, [row(8), row(9, LARGE)]),
        lambda file: file.write(
            Batch(
                topics={2: StoredTopic(number=2, name="new")},
                rows={2: [row(10)], 1: [row(9, LARGE)]},
                copies={(1, 1): {1: GONE}},
            )
        ),
    ],
    ids=["write_row", "write_rows", "write"],
)
def test_a_full_disk(path: Path, file: SQLiteFile, write: Any) -> None:
    """A write that finds no room changes nothing; when there is room it can be made again."""
    file.write_row(1, row(1))
    limit(file, 5)
    for _ in range(3):
        with pytest.raises(StoreFull) as info:
            write(file)
        problem = "the disk is full: make room, and it goes on by itself"
        assert f"{problem} (database or disk is full)" == info.value.problem
        assert ([1], 1) == (ready(file), count(file, "topic"))
        assert not file._writer._connection.in_transaction
    file.write_row(1, row(2))
    limit(file, 1000)
    write(file)
    assert 9 in ready(file)
    file.close()
    again = SQLiteFile(str(path), full=False)
    assert 1 == again.load()[0][0].number
    assert [2, 9] == [identity for identity in ready(again) if identity in (2, 9)]
    again.close()


def test_a_full_disk_is_relieved_by_what_is_finished(
    path: Path, file: SQLiteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is begun anew then, so that there is room to write what makes room."""
    file.write_rows(1, [row(identity, b"x" * 1000) for identity in range(1, 101)])
    size = path.with_name("jobs.db-wal").stat().st_size
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_bavail=0, f_frsize=512))
    for _ in range(2):  # since the last put holds up the log
        file.copy_log()
        file.tidy()
    finish(file, list(range(1, 101)))
    assert size == path.with_name("jobs.db-wal").stat().st_size
    assert 0 == count(file, "messages_1")


def test_a_full_disk_is_no_end_of_attempts(file: SQLiteFile) -> None:
    """Deliveries that cannot be counted are not, and can be later."""
    identities = range(1, 2000)
    file.write_rows(1, [row(identity) for identity in identities])
    limit(file, 0)
    with pytest.raises(StoreFull):
        file.write_attempts(1, 1, [(identity, 1) for identity in identities])
    assert 0 == count(file, "copy")
    limit(file, 1000)
    file.write_attempts(1, 1, [(identity, 1) for identity in identities])
    assert len(identities) == count(file, "copy")


def test_a_full_disk_under_a_broker(path: Path) -> None:
    """A put that finds no room is refused; the broker says so, and goes on when there is room."""
    with Broker(store=SQLite(path)) as broker:
        orders = broker.topic("orders")
        channel = orders.channel("billing")
        orders.put(b"1")
        broker.flush()
        keeper: Any = broker._persistence
        limit(keeper._storage, 5)
        for put in (lambda: orders.put(LARGE), lambda: orders.put_many([b"a", LARGE])):
            with pytest.raises(StoreFull) as info:
                put()
            assert f"NOK - {info.value}" == broker.health
        orders.put(b"2")
        assert (2, "OK") == (channel.depth, broker.health)
        limit(keeper._storage, 1000)
        orders.put(LARGE)
    with Broker(store=SQLite(path)) as broker:
        assert [b"1", b"2", LARGE] == bodies(broker.topic("orders").channel("billing"))


# Whether messages are intact


def put_some(file: SQLiteFile) -> None:
    rows: list[Row] = [row(1), row(2), row(3, b"longer")]
    file.write_rows(1, [*rows, (4, 4, 99, None, "json", b"{}"), (5, 5, None, 1, None, b"for 1")])
    file.write(Batch(copies={(1, 1): {3: (1, None), 2: (2, 77)}}))


def intact(file: SQLiteFile) -> dict[int, bool]:
    """Return whether each message of a channel is intact, by its id."""
    found = file.read(1, 1, 0, HIGHEST, -1) + read_apart(file, 1, 1, 0, HIGHEST)
    return {one[0]: one[6] for one in found}


def alter(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute(statement)
        other.commit()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("timestamp", "timestamp + 1"),
        ("timestamp", "'x'"),
        ("codec", "'jsom'"),
        ("codec", "CAST(x'ff' AS TEXT)"),
        ("data", "x'00'"),
        ("data", "CAST(data AS TEXT)"),
        ("data", "CAST(x'c3' AS TEXT)"),
        ("data", "5"),
        ("crc", "crc + 1"),
        ("crc", "'x'"),
        ("topic", "9"),
    ],
)
@pytest.mark.parametrize("identity", [1, 2, 3, 4, 5])
def test_a_message_that_was_changed(
    path: Path, file: SQLiteFile, column: str, value: str, identity: int
) -> None:
    """It is found, and said not to be intact; all others are."""
    put_some(file)
    alter(path, f"UPDATE messages_1 SET {column} = {value} WHERE id = {identity}")  # noqa: S608
    expected = {one: one != identity for one in (1, 2, 3, 4, 5)}
    if column == "topic":
        expected = {
            one: True for one in expected if one < 4 or one != identity
        }  # it is not looked at
    assert expected == intact(file)


def test_a_message_whose_copy_was_changed(path: Path, file: SQLiteFile) -> None:
    """How often it was delivered, or until when it waits, cannot be known."""
    put_some(file)
    alter(path, "UPDATE copy SET attempts = 'x' WHERE id = 3")
    alter(path, "UPDATE copy SET due = 'x' WHERE id = 2")
    assert {1: True, 2: False, 3: False, 4: True, 5: True} == intact(file)


def test_bits_that_flip(path: Path, file: SQLiteFile) -> None:
    """Of 100 bits that flip in bodies, every one is noticed, and no message is missing."""
    file.write_rows(1, [row(identity, b"%04d" % identity * 30) for identity in range(1, 101)])
    file.close()
    original = path.read_bytes()
    places = [original.index(b"%04d" % identity * 30) for identity in range(1, 101)]
    for number in range(100):
        place = places[number] + number
        flipped = bytearray(original)
        flipped[place] ^= 1 << number % 8
        path.write_bytes(flipped)
        other = SQLiteFile(str(path), full=False)
        other.load()
        found = intact(other)
        assert ({number + 1}, 100) == ({one for one in found if not found[one]}, len(found))
        other.close()


def test_without_checksums(path: Path) -> None:
    """None is made; a value of the wrong type is noticed, and what has a checksum is checked."""
    file = SQLiteFile(str(path), full=False, checksums=False)
    file.load()
    file.write(made())
    put_some(file)
    file.write_row(1, row(6))
    assert 0 == count(file, "messages_1 WHERE crc IS NOT NULL")
    alter(path, "UPDATE messages_1 SET data = 'x' WHERE id IN (1, 4)")
    assert {1: False, 2: True, 3: True, 4: False, 5: True, 6: True} == intact(file)
    file.close()


# What cannot be put


def test_a_body_that_is_too_long(file: SQLiteFile) -> None:
    """What SQLite cannot keep is refused, and all else can be put."""
    file._writer._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 5000)
    problem = "SQLite keeps no body of this length: put a shorter one"
    writes: list[Callable[[], object]] = [
        lambda: file.write_row(1, row(1, b"x" * 5001)),
        lambda: file.write_rows(1, [row(1), row(2, b"x" * 5001)]),
        lambda: file.write(Batch(rows={1: [row(1), row(2, b"x" * 5001)]})),
    ]
    for write in writes:
        with pytest.raises(StoreError, match=problem):
            write()
    file.write_row(1, row(3, b"x" * 4000))
    assert [3] == ready(file)


def test_an_id_that_is_too_high(file: SQLiteFile) -> None:
    """Ids have 63 bits; nothing is written of what has one that is higher."""
    high = HIGHEST + 1
    writes: list[Callable[[], object]] = [
        lambda: file.write_row(1, row(high)),
        lambda: file.write_row(1, (high, 1, None, None, "json", b"x")),
        lambda: file.write_rows(1, [row(1), row(high)]),
        lambda: file.write(Batch(rows={1: [row(1), row(high)]})),
        lambda: file.write(Batch(highest=high)),
    ]
    for write in writes:
        with pytest.raises(StoreError):
            write()
    assert [] == ready(file)


# Copies of it


def test_a_backup_is_a_file(path: Path, file: SQLiteFile) -> None:
    """Nothing lies beside it, and what is written goes on meanwhile."""
    file.write_rows(1, [row(identity, b"x" * 1000) for identity in range(1, 3001)])
    finish(file, list(range(1, 1000)))
    stop = threading.Event()
    written = []

    def write() -> None:
        for identity in range(10_000, 20_000):
            if stop.is_set():
                break
            file.write_row(1, row(identity))
            written.append(identity)

    thread, errors = in_thread(write)
    copy = path.with_name("copy.db")
    file.backup(str(copy))
    stop.set()
    thread.join(PATIENCE)
    assert [] == errors
    names = {one.name for one in path.parent.iterdir()}
    assert {"jobs.db", "jobs.db-owner", "jobs.db-shm", "jobs.db-wal", "copy.db"} == names
    other = SQLiteFile(str(copy), full=False)
    other.load()
    found = ready(other)
    assert list(range(1000, 3001)) == found[:2001]
    assert found[2001:] == written[: len(found) - 2001]
    tidy(other)
    assert found == ready(other)
    other.close()
    with closing(sqlite3.connect(copy)) as connection:
        assert "ok" == connection.execute("PRAGMA integrity_check").fetchone()[0]


@pytest.mark.parametrize("there", ["file", "directory", "no directory", "itself"])
def test_a_backup_that_cannot_be_made(path: Path, file: SQLiteFile, there: str) -> None:
    """What is there stays as it is; where there is no directory none is made."""
    file.write_row(1, row(1))
    copy = path.with_name("copy.db")
    if there == "file":
        copy.write_text("mine")
    elif there == "directory":
        copy.mkdir()
    elif there == "itself":
        copy = path
    else:
        copy = path.with_name("none") / "copy.db"
    before = sorted(path.parent.iterdir())
    with pytest.raises(StoreError) as info:
        file.backup(str(copy))
    assert str(copy) in str(info.value)
    assert before == sorted(path.parent.iterdir())
    assert there != "file" or "mine" == copy.read_text()
    assert [1] == ready(file)


def test_a_backup_that_fails_is_removed(
    path: Path, file: SQLiteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written of it goes, and the file itself is as it was."""
    file.write_row(1, row(1))
    copy = path.with_name("copy.db")
    connect: Any = sqlite3.connect

    def limited(where: str, **options: Any) -> Any:
        connection = connect(where, **options)
        if str(copy) in where:
            connection.execute("PRAGMA max_page_count = 1")
        return connection

    monkeypatch.setattr(sqlite3, "connect", limited)
    with pytest.raises(StoreFull) as info:
        file.backup(str(copy))
    assert str(copy) in str(info.value)
    assert not [one for one in path.parent.iterdir() if one.name.startswith("copy")]
    assert [1] == ready(file)


# Its size


def pages(file: SQLiteFile) -> int:
    return int(file._writer._connection.execute("PRAGMA page_count").fetchone()[0])


def test_it_does_not_grow_when_messages_come_and_go(file: SQLiteFile) -> None:
    """The room of what is finished is that of what comes next, whatever its size."""
    sizes = []
    highest = 0
    for turn in range(30):
        identities = list(range(highest + 1, highest + 101))
        highest += 100
        file.write_rows(
            1, [row(identity, b"x" * (100 + 97 * turn % 400)) for identity in identities]
        )
        file.write_attempts(1, 1, [(identity, 1) for identity in identities])
        finish(file, identities)
        tidy(file)
        sizes.append(pages(file))
    assert max(sizes[3:]) <= 1.5 * max(sizes[:3])


def test_it_gives_back_what_a_backlog_took(path: Path, file: SQLiteFile) -> None:
    """After a backlog of 20 MB is finished the file is small again, without being closed."""
    identities = list(range(1, 20_001))
    file.write_rows(1, [row(identity, b"x" * 1000) for identity in identities])
    assert pages(file) * PAGE > 20_000_000
    for start in range(0, len(identities), 5000):
        finish(file, identities[start : start + 5000])
    tidy(file)
    assert pages(file) <= SPARE + 100
    assert 0 == count(file, "messages_1")
    file.write_row(1, row(30_000))
    file.close()
    assert path.stat().st_size <= (SPARE + 100) * PAGE


def test_it_gives_back_what_a_deleted_topic_took(path: Path, file: SQLiteFile) -> None:
    """A topic's messages are forgotten step by step, also by whoever opens the file next."""
    rows = [row(identity, b"x" * 1000) for identity in range(1, 8001)]
    file.write_rows(1, rows)
    file.write(Batch(gone_topics={1: None}))
    steps = 3
    for _ in range(steps):
        assert file.tidy()
    left = len(rows) - steps * 34  # as each is as long as three
    assert left == count(file, "messages_1")
    file.close()
    again = SQLiteFile(str(path), full=False)
    assert ([], []) == again.load()
    tidy(again)
    assert 0 == count(again, "topic") + count(again, "channel")
    assert pages(again) <= SPARE + 100
    again.close()


def test_no_step_of_upkeep_takes_long(file: SQLiteFile) -> None:
    """Whatever is forgotten, a step looks at few messages, and gives few pages back."""
    file.write_rows(1, [row(identity, b"x" * 100) for identity in range(1, 20_001)])
    file.write_rows(1, [row(identity, b"x" * 10_000) for identity in range(20_001, 20_501)])
    since = {
        number: StoredChannel(number=number, topic=1, name=name, since=20_501)
        for number, name in ((1, "billing"), (2, "audit"))
    }
    file.write(Batch(channels=since, unheld={1}))
    for step in range(10_000):
        left, before = count(file, "messages_1"), pages(file)
        more = file.tidy()
        assert left - count(file, "messages_1") <= writer.SWEPT
        assert before - pages(file) <= writer.VACUUMED + 1  # with one that tells of others
        if not more:
            break
        if step % 100 == 0:
            file.copy_log()
    assert (0, True) == (count(file, "messages_1"), pages(file) <= SPARE + 100)


def test_the_file_is_shorter_when_the_last_pages_were_given_back(
    path: Path, file: SQLiteFile
) -> None:
    """The log is copied then, however little it has."""
    file.write_rows(1, [row(identity, b"x" * 1000) for identity in range(1, 4001)])
    finish(file, list(range(1, 4001)))
    tidy(file)
    assert path.stat().st_size <= (SPARE + 100) * PAGE


def test_the_log_is_bounded(path: Path, file: SQLiteFile) -> None:
    """Ten times as much as the log may hold goes through it, and it does not grow."""
    log = path.with_name("jobs.db-wal")
    largest = 0
    data = b"x" * 100_000
    for identity in range(1, 10 * LIMIT // len(data)):
        file.write_row(1, row(identity, data))
        finish(file, [identity])
        file.copy_log()
        file.tidy()
        largest = max(largest, log.stat().st_size)
    assert 0.75 * LIMIT < largest < 1.25 * LIMIT


def test_the_log_is_copied_seldom(
    path: Path, file: SQLiteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is copied when it has grown, and not each time after it had once."""
    monkeypatch.setattr(wal, "LIMIT", 100_000)
    copied = 0
    for identity in range(1, 101):
        file.write_row(1, row(identity, b"x" * 10_000))
        file.copy_log()
        copied += file._wal._is_copied
        file.tidy()
    assert 8 <= copied <= 20
    assert path.with_name("jobs.db-wal").stat().st_size < 120_000


def test_a_great_log_does_not_stay(path: Path, file: SQLiteFile) -> None:
    """What one great write has made of the log is given back when it is copied."""
    log = path.with_name("jobs.db-wal")
    file.write_rows(1, [row(identity, b"x" * 100_000) for identity in range(1, 201)])
    assert log.stat().st_size > 4 * LIMIT
    tidy(file)
    assert log.stat().st_size < LIMIT


def test_the_log_is_copied_beside_the_writes(file: SQLiteFile, monkeypatch: Any) -> None:
    """While one thread copies the log another one writes, and neither hinders the other."""
    monkeypatch.setattr(wal, "LIMIT", 1)
    stop = threading.Event()

    def copy() -> None:
        while not stop.is_set():
            file.copy_log()

    thread, errors = in_thread(copy)
    for identity in range(1, 300):
        file.write_row(1, row(identity))
        if identity % 20 == 0:
            file.tidy()
    stop.set()
    thread.join(PATIENCE)
    assert ([], False) == (errors, thread.is_alive())
    assert list(range(1, 300)) == ready(file)


# What cannot be opened


def is_free(path: Path) -> bool:
    """Return whether nobody owns a file, as it should be when it could not be opened."""
    return not path.with_name(f"{path.name}-owner").exists()


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    """The path of a directory is refused."""
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(StoreError) as info:
        SQLiteFile(str(path), full=False)
    problem = "it is no file, but a directory, pipe or device: give another path"
    assert problem == info.value.problem
    assert is_free(path)


def test_no_directory(tmp_path: Path) -> None:
    """A path in a directory that is not there is refused, and none is made."""
    with pytest.raises(StoreError):
        SQLiteFile(str(tmp_path / "none" / "jobs.db"), full=False)
    assert [] == list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is there and is read-only is refused when it is opened, not at the first put."""
    shutil.copy(FIXTURE, path)
    connect: Any = sqlite3.connect

    def read_only(where: str, **options: Any) -> Any:
        return connect(f"file:{where}?mode=ro", uri=True, **options)

    monkeypatch.setattr(sqlite3, "connect", read_only)
    with pytest.raises(StoreError) as info:
        SQLiteFile(str(path), full=False)
    assert info.value.problem.startswith("it cannot be written: look at the permissions")
    assert is_free(path)


def test_a_disk_on_which_there_can_be_no_log(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where SQLite cannot share memory it can keep no write-ahead log; this is said."""
    connect: Any = sqlite3.connect

    def without_memory(where: str, **options: Any) -> Any:
        return connect(f"file:{where}?vfs=unix-none", uri=True, **options)

    monkeypatch.setattr(sqlite3, "connect", without_memory)
    with pytest.raises(StoreError) as info:
        SQLiteFile(str(path), full=False)
    assert "SQLite cannot keep a write-ahead log here, only 'delete'" == info.value.problem
    assert is_free(path)


def test_another_program_has_locked_it(path: Path, file: SQLiteFile) -> None:
    """While another program holds on to the file a write fails, and can be made later."""
    file._writer._connection.execute("PRAGMA busy_timeout = 0")  # it would wait some seconds
    file.write_row(1, row(1))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for write in (file.write_row, file.write_rows):
            what: Any = row(2) if write == file.write_row else [row(2)]
            with pytest.raises(StoreError) as info:
                write(1, what)
            assert "another program has locked it (database is locked)" == info.value.problem
        assert [1] == ready(file)
        other.execute("ROLLBACK")
    file.write_row(1, row(2))
    assert [1, 2] == ready(file)


def test_another_program_reads(path: Path, file: SQLiteFile) -> None:
    """Another program may read the file while it is open, and hinders nothing."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM messages_1").fetchone()
        file.write_row(1, row(1))
        tidy(file)
        assert [1] == ready(file)


# What is damaged


def outcome(path: Path) -> str:
    """Return what becomes of a damaged copy of the fixture."""
    try:
        file = SQLiteFile(str(path), full=False)
    except StoreError as error:
        return type(error).__name__
    try:
        exact_contents(file)
        file.write_rows(1, [row(500), row(501)])
        tidy(file)
    except StoreError as error:
        return type(error).__name__
    finally:
        with suppress(StoreError):
            file.close()
    return "whole"


def test_damage_of_any_page(path: Path) -> None:
    """A page that is nonsense is found where it is needed; nothing wrong is read."""
    size = 1024
    original = FIXTURE.read_bytes()
    outcomes = []
    for start in range(0, len(original), size):
        path.write_bytes(original[:start] + b"\xff" * size + original[start + size :])
        outcomes.append(outcome(path))
        assert is_free(path)
        for one in path.parent.iterdir():
            one.unlink()
    assert "StoreForeign" == outcomes.pop(0)
    assert {"StoreDamaged", "whole"} >= set(outcomes)
    assert outcomes.count("StoreDamaged") > len(outcomes) // 2


def test_a_torn_file(path: Path) -> None:
    """A file whose end is missing is found to be damaged, wherever it was torn."""
    original = FIXTURE.read_bytes()
    for size in [*range(1024, len(original), 1024), 100, 700, len(original) - 1]:
        path.write_bytes(original[:size])
        assert outcome(path) in {"StoreDamaged", "StoreForeign"}, size
        for one in path.parent.iterdir():
            one.unlink()


def test_a_torn_log(path: Path, file: SQLiteFile) -> None:
    """A log whose end is missing loses the commits that are not whole, and no other."""
    for identity in range(1, 11):
        file.write_row(1, row(identity))
    copy = path.with_name("copy.db")
    log = path.with_name("jobs.db-wal").read_bytes()
    found = []
    for torn in range(0, 12_000, 1000):
        shutil.copy(path, copy)
        path.with_name("copy.db-wal").write_bytes(log[: len(log) - torn])
        other = SQLiteFile(str(copy), full=False)
        other.load()
        found.append(len(ready(other)))
        assert list(range(1, found[-1] + 1)) == ready(other)
        other.close()
    assert 10 == found[0] > found[-1]
    assert sorted(found, reverse=True) == found


def test_damage_under_a_broker(path: Path) -> None:
    """What cannot be read is said to who asks for a message; nothing is lost in silence."""
    with Broker(store=SQLite(path)) as broker:
        broker.topic("orders").channel("billing")
        broker.topic("orders").put_many([b"%d" % number * 200 for number in range(100)])
    data = bytearray(path.read_bytes())
    with closing(sqlite3.connect(path)) as other:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'messages_1'"
        [(page,)] = other.execute(query).fetchall()
    data[(page - 1) * PAGE : page * PAGE] = b"\xff" * PAGE
    path.write_bytes(data)
    with pytest.raises(StoreDamaged) as info:
        Broker(store=SQLite(path))
    assert info.value.problem.startswith("it is damaged: restore it from a backup (")
    assert is_free(path)


def test_a_file_that_was_replaced(path: Path) -> None:
    """A file that is no store any more is refused; the store that was can be put back."""
    with Broker(store=SQLite(path)) as broker:
        broker.topic("orders").put(b"1")
    kept = path.read_bytes()
    path.write_text("something else\n" * 100)
    with pytest.raises(StoreForeign):
        Broker(store=SQLite(path))
    path.write_bytes(kept)
    with Broker(store=SQLite(path)) as broker:
        consumer = Consumer(broker.topic("orders").channel("billing"))
        assert b"1" == consumer.get(timeout=0).body


def test_a_log_that_is_missing(path: Path, file: SQLiteFile) -> None:
    """A young file that was copied without its log is refused, and left as it is."""
    file.write_row(1, row(1))
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    before = copy.read_bytes()
    with pytest.raises(StoreDamaged) as info:
        SQLiteFile(str(copy), full=False)
    assert (str(copy), LOG_MISSING) == (info.value.where, info.value.problem)
    assert before == copy.read_bytes()
    assert not copy.with_name("copy.db-owner").exists()


def test_a_copy_of_it(path: Path, file: SQLiteFile) -> None:
    """What was written is in a copy, which goes to where nothing is."""
    file.write_row(1, row(1))
    copy = path.with_name("copy.db")
    file.backup(str(copy))
    file.write_row(1, row(2))
    with closing(SQLiteFile(str(copy), full=False)) as other:
        other.load()
        assert [1] == ready(other)
    with pytest.raises(StoreError, match="is there already"):
        file.backup(str(copy))
    assert [1, 2] == ready(file)


# The end


def test_it_is_closed_when_what_is_read_is_read(
    file: SQLiteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite would crash; what is read later is told that it is closed."""
    file.write(made())
    reads, goes_on = threading.Event(), threading.Event()
    select = SQLiteFile._select_all

    def slowly(of: SQLiteFile, *given: Any) -> None:
        reads.set()
        assert goes_on.wait(PATIENCE)
        select(of, *given)

    monkeypatch.setattr(SQLiteFile, "_select_all", slowly)
    reader = Call(lambda: file.read(1, None, 0, HIGHEST, 10))
    assert reads.wait(PATIENCE)
    closer = threading.Thread(target=file.close)
    closer.start()
    closer.join(0.02)
    assert closer.is_alive()
    goes_on.set()
    closer.join(PATIENCE)
    assert [] == reader.result()
    with pytest.raises(StoreError, match="closed"):
        file.read(1, None, 0, HIGHEST, 10)


def test_it_can_be_opened_again_when_it_is_closed(path: Path, file: SQLiteFile) -> None:
    """Nobody else can open it before."""
    with pytest.raises(StoreInUse) as info:
        SQLiteFile(str(path), full=False)
    assert os.getpid() == info.value.pid
    file.close()
    SQLiteFile(str(path), full=False).close()


def test_it_lets_go_of_the_file_when_it_cannot_be_closed(path: Path, file: SQLiteFile) -> None:
    """Whatever SQLite says at the end, the next one can open the file."""

    class Broken:
        def close(self) -> None:
            raise sqlite3.OperationalError("out of order")

    broken: Any = Broken()
    file._connections.append(broken)
    with pytest.raises(StoreError) as info:
        file.close()
    assert "it cannot be used (out of order)" == info.value.problem
    assert is_free(path)
    with pytest.raises(sqlite3.ProgrammingError):
        file._writer._connection.execute("SELECT 1")
