"""A store in one SQLite file: what it promises, its disk, and what goes wrong there."""

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

import pytest
from helpers import PATIENCE, bodies

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
from nsqlite.store import GONE, Batch, StoredTopic, sqlitefile, writer
from nsqlite.store.sqlitefile import LOG_LIMIT, PAGE, SQLiteFile
from nsqlite.store.writer import SPARE
from nsqlite.testing import StorageContract
from store.files import HIGHEST, count, finish, ready, row, tidy
from store.test_schema import FIXTURE, exact_contents


class TestContract(StorageContract):
    """It does what every storage must do."""

    path: Path

    @pytest.fixture(autouse=True)
    def _in(self, tmp_path: Path) -> None:
        self.path = tmp_path / "jobs.db"

    def make(self) -> SQLiteFile:
        return SQLiteFile(str(self.path), full=False)


class TestContractFull(TestContract):
    """It does so when everything is to survive a loss of power, too."""

    def make(self) -> SQLiteFile:
        return SQLiteFile(str(self.path), full=True)


class TestContractFewCopies(TestContract):
    """It does so when it has lost sight of which messages have copies, too."""

    @pytest.fixture(autouse=True)
    def _forgetful(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(writer, "COPIED", 1)


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
        lambda: file.write_row(1, row(1)),
        lambda: file.write_rows(1, [row(1)]),
        lambda: file.write_attempts(1, 1, [(1, 1)]),
        lambda: file.write_attempts(1, 1, [(1, 1), (2, 1)]),
        lambda: file.write(Batch()),
        lambda: file.read(1, 1, 0, 9, 1),
        lambda: file.read_apart(1, 1, 0, 9),
    ]
    for call in calls:
        with pytest.raises(StoreError):
            call()
    file.copy_log()  # has no log to copy


def test_a_file_that_was_removed(path: Path, file: SQLiteFile) -> None:
    """Whoever keeps the log small finds out that all is written into nothing."""
    path.unlink()
    with pytest.raises(StoreError, match="it was removed or replaced while it was open"):
        file.copy_log()


@pytest.mark.parametrize(("full", "expected"), [(False, 1), (True, 2)])
def test_what_a_commit_waits_for(path: Path, full: bool, expected: int) -> None:
    """Only if it is asked for a commit waits for the disk itself."""
    file = SQLiteFile(str(path), full=full)
    assert (expected,) == file._writer._connection.execute("PRAGMA synchronous").fetchone()
    file.close()


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
            file.read_apart(1, 1, 0, HIGHEST)
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
                topics=[StoredTopic(number=2, name="new")],
                rows=[(2, [row(10)]), (1, [row(9, LARGE)])],
                copies=[(1, 1, {1: GONE})],
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
    assert 1 == again.load()[0].number
    assert [2, 9] == [identity for identity in ready(again) if identity in (2, 9)]
    again.close()


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
    assert 0 == count(file, "message_1")
    file.write_row(1, row(30_000))
    file.close()
    assert path.stat().st_size <= (SPARE + 100) * PAGE


def test_it_gives_back_what_a_deleted_topic_took(path: Path, file: SQLiteFile) -> None:
    """A topic's messages are forgotten step by step, also by whoever opens the file next."""
    rows = [row(identity, b"x" * 1000) for identity in range(1, 8001)]
    file.write_rows(1, rows)
    file.write(Batch(gone_topics=[1]))
    steps = 3
    for _ in range(steps):
        assert file.tidy()
    left = len(rows) - steps * writer.SWEPT
    assert left == count(file, "message_1")
    file.close()
    again = SQLiteFile(str(path), full=False)
    assert [] == again.load()
    tidy(again)
    assert 0 == count(again, "topic")
    assert pages(again) <= SPARE + 100
    again.close()


def test_the_log_is_bounded(path: Path, file: SQLiteFile) -> None:
    """Ten times as much as the log may hold goes through it, and it does not grow."""
    log = path.with_name("jobs.db-wal")
    largest = 0
    data = b"x" * 100_000
    for identity in range(1, 10 * LOG_LIMIT // len(data)):
        file.write_row(1, row(identity, data))
        finish(file, [identity])
        file.copy_log()
        file.tidy()
        largest = max(largest, log.stat().st_size)
    assert 0.75 * LOG_LIMIT < largest < 1.25 * LOG_LIMIT


def test_the_log_is_copied_seldom(
    path: Path, file: SQLiteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is copied when it has grown, and not each time after it had once."""
    monkeypatch.setattr(sqlitefile, "LOG_LIMIT", 100_000)
    copied = 0
    for identity in range(1, 101):
        file.write_row(1, row(identity, b"x" * 10_000))
        file.copy_log()
        copied += file._restart
        file.tidy()
    assert 8 <= copied <= 20
    assert path.with_name("jobs.db-wal").stat().st_size < 120_000


def test_a_great_log_does_not_stay(path: Path, file: SQLiteFile) -> None:
    """What one great write has made of the log is given back when it is copied."""
    log = path.with_name("jobs.db-wal")
    file.write_rows(1, [row(identity, b"x" * 100_000) for identity in range(1, 201)])
    assert log.stat().st_size > 4 * LOG_LIMIT
    tidy(file)
    assert log.stat().st_size < LOG_LIMIT


def test_the_log_is_copied_beside_the_writes(file: SQLiteFile, monkeypatch: Any) -> None:
    """While one thread copies the log another one writes, and neither hinders the other."""
    monkeypatch.setattr(sqlitefile, "LOG_LIMIT", 1)
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
    problem = "it cannot be opened: look at its directory (unable to open database file)"
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
        other.execute("SELECT count(*) FROM message_1").fetchone()
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
        query = "SELECT rootpage FROM sqlite_master WHERE name LIKE 'message_%' AND type = 'table'"
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


# The end


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
