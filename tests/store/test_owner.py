"""Who owns a store's file."""

import errno
import os
import platform
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers import bodies

from nsqlite import Broker, SQLite, StoreError, StoreFull, StoreInUse
from nsqlite.store import filelocks, owner
from nsqlite.store.owner import Owner, has_owner
from store.processes import another_process, descriptors, in_child, needs_fork

HOLD = """
import sys
from nsqlite.store.owner import Owner

mine = Owner(sys.argv[1])
print("mine", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def where(tmp_path: Path) -> str:
    return str(tmp_path / "jobs.db")


def lock_of(where: str) -> Path:
    return Path(f"{where}-owner")


def pid_in(where: str) -> int:
    """Return whose number lies beside a file."""
    return int(lock_of(where).read_text().split("\n")[0])


def names(where: str) -> list[str]:
    """Return what lies where a file lies."""
    return sorted(one.name for one in Path(where).parent.iterdir())


def refusal(where: str) -> StoreInUse:
    with pytest.raises(StoreInUse) as info:
        Owner(where)
    return info.value


def is_refused(where: str) -> bool:
    """Say whether another process is refused a file; leave everything as it is."""

    def is_in_use() -> bool:
        before = names(where), descriptors()
        try:
            Owner(where).release()
        except StoreInUse:
            assert before == (names(where), descriptors())
            return True
        return False

    return in_child(is_in_use)


def test_the_owner_leaves_its_number(where: str) -> None:
    """Beside the file lies another with the number of the process, as long as it owns it."""
    before = descriptors()
    mine = Owner(where)
    assert os.getpid() == pid_in(where)
    assert platform.node() == lock_of(where).read_text().split("\n")[1]
    mine.release()
    assert ["jobs.db"] == names(where)
    assert before == descriptors()
    mine.release()
    mine.abandon()
    mine.check()
    Owner(where).release()


def test_the_owner_in_the_same_process(where: str) -> None:
    """A second owner in the same process is refused, with its own number."""
    mine = Owner(where)
    with pytest.raises(StoreInUse) as info:
        Owner(where)
    assert (where, os.getpid()) == (info.value.where, info.value.pid)
    assert "it is in use by another broker of this process: close that first" == info.value.problem
    assert os.getpid() == pid_in(where)
    mine.release()


def test_the_owner_is_another_process(where: str) -> None:
    """A second process is refused with the number of the first, until that has ended, however."""
    with another_process(HOLD, where) as process:
        with pytest.raises(StoreInUse) as info:
            Owner(where)
        assert process.pid == info.value.pid
        problem = f"it is in use by process {process.pid}: close that first"
        assert problem == info.value.problem
    assert lock_of(where).exists()
    mine = Owner(where)
    assert os.getpid() == pid_in(where)
    mine.release()


def test_an_owner_that_left_no_number(where: str) -> None:
    """Whoever has the lock and said nothing is unknown."""
    with another_process(HOLD, where):
        for text in ("", "nonsense"):
            lock_of(where).write_text(text)
            error = refusal(where)
            assert (None, "process unknown") == (error.pid, owner_of(where))


def test_a_disk_that_is_too_full_for_a_number(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file can be owned, and given back, without a word about by whom."""

    def fail(*_arguments: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        mine = Owner(where)
    assert "" == lock_of(where).read_text()
    assert "another broker of this process" == owner_of(where)
    mine.release()
    Owner(where).release()


def test_a_process_of_another_container(where: str) -> None:
    """A number that means no process here is told with its host, and not taken for one here."""
    mine = Owner(where)
    pid, host, space = lock_of(where).read_text().splitlines()
    number, lock = os.getpid(), lock_of(where)
    with another_process(HOLD, f"{where}2") as process:
        theirs = Path(f"{where}2-owner")
        for text, words in (
            (f"{pid}\nweb-2\n{space}x\n", f"process {pid} of another container or machine (web-2)"),
            (f"{pid}\n", f"process {pid} of another container or machine (unknown)"),
        ):
            theirs.write_text(text)
            error = refusal(f"{where}2")
            assert f"it is in use by {words}: close that first" == error.problem
            assert None is error.pid
        theirs.write_text(f"{process.pid}\n{host}\n{space}\n")
        assert process.pid == refusal(f"{where}2").pid
    lock.write_text(f"{number}\nweb-2\nanother\n")  # ours is known without its text
    assert (number, "another broker of this process") == (refusal(where).pid, owner_of(where))
    mine.release()


def owner_of(where: str) -> str:
    """Return who has a file, in the words of the refusal."""
    return (
        refusal(where).problem.removeprefix("it is in use by ").removesuffix(": close that first")
    )


def test_whether_there_may_be_an_owner(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not if nobody has signed, or who has is no more; nobody can tell of another container's."""
    assert not has_owner(where)
    mine = Owner(where)
    assert has_owner(where)
    mine.release()
    assert not has_owner(where)
    beside = Path(f"{where}-owner")

    def no_such(_pid: int, _signal: int) -> None:
        raise ProcessLookupError

    def forbidden(_pid: int, _signal: int) -> None:
        raise PermissionError

    for text, kill, expected in (
        (f"1\nhere\n{owner._space()}\n", forbidden, True),
        (f"1\nhere\n{owner._space()}\n", no_such, False),
        (f"{10**30}\nhere\n{owner._space()}\n", os.kill, False),
        ("1\nthere\nanother\n", no_such, True),
        ("", no_such, True),
    ):
        beside.write_text(text, "utf-8")
        monkeypatch.setattr(os, "kill", kill)
        assert expected == has_owner(where), text


def test_a_system_that_does_not_tell_its_namespaces(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no /proc, the processes of a machine are told apart from other machines'."""

    def fail(_path: Path) -> Path:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "readlink", fail)
    mine = Owner(where)
    assert [platform.node()] * 2 == lock_of(where).read_text().splitlines()[1:]
    mine.release()


def test_a_broker_of_another_process(where: str) -> None:
    """A broker is refused a file that a broker of another process has, and is told of which."""
    program = (
        "import sys, nsqlite\n"
        "broker = nsqlite.Broker(store=nsqlite.SQLite(sys.argv[1]))\n"
        "broker.topic('orders').put(b'1')\n"
        "print('mine', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with another_process(program, where) as process:
        with pytest.raises(StoreInUse) as info:
            Broker(store=SQLite(where))
        assert process.pid == info.value.pid
    with Broker(store=SQLite(where)) as broker:
        assert [b"1"] == bodies(broker.topic("orders").channel("billing"))


def test_a_broker_of_the_same_process(where: str) -> None:
    """A second broker of the same process is refused too, also by another path of the file."""
    with Broker(store=SQLite(where)) as broker:
        for path in (where, os.path.relpath(where), f"{Path(where).parent}/./jobs.db"):
            with pytest.raises(StoreInUse):
                Broker(store=SQLite(path))
        broker.topic("orders").put(b"1")
    Broker(store=SQLite(where)).close()


@needs_fork
def test_a_child_lets_go_of_it(where: str) -> None:
    """The child of a fork lets go of it, and its parent has it still."""
    mine = Owner(where)

    def child() -> None:
        mine.abandon()
        mine.release()
        mine.abandon()
        with pytest.raises(StoreInUse) as info:
            Owner(where)
        assert os.getppid() == info.value.pid

    in_child(child)
    with pytest.raises(StoreInUse):
        Owner(where)
    mine.release()


@needs_fork
def test_a_broker_in_a_child(tmp_path: Path) -> None:
    """In the child of a fork a broker's store is not there; the parent's goes on."""
    path = tmp_path / "jobs.db"
    with Broker(store=SQLite(path)) as broker:
        topic = broker.topic("orders")
        channel = topic.channel("billing")
        topic.put(b"1")

        def child() -> None:
            with pytest.raises(StoreInUse) as info:
                topic.put(b"child's")
            assert os.getppid() == info.value.pid
            with pytest.raises(StoreInUse):
                Broker(store=SQLite(path))
            with Broker(store=SQLite(tmp_path / "other.db")) as other:
                other.topic("orders").put(b"child's")

        in_child(child)
        topic.put(b"2")
        assert 2 == channel.depth
    for name, expected in (("jobs.db", [b"1", b"2"]), ("other.db", [b"child's"])):
        with Broker(store=SQLite(tmp_path / name)) as broker:
            assert expected == bodies(broker.topic("orders").channel("billing"))


def test_a_lock_that_was_removed_meanwhile(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who locks a file that its owner has just removed begins anew, and owns the one that is."""
    mine = Owner(where)
    lock = filelocks.lock_file
    tries = []

    def late(handle: int) -> None:
        tries.append(handle)
        if len(tries) == 1:
            mine.release()
        lock(handle)

    monkeypatch.setattr(owner, "lock_file", late)
    second = Owner(where)
    assert 2 == len(tries)
    assert os.getpid() == pid_in(where)
    with pytest.raises(StoreInUse):
        Owner(where)
    second.release()


def test_a_lock_that_is_another_file_by_now(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who locks a file in whose place there is another takes that one."""
    lock = filelocks.lock_file
    tries = []

    def late(handle: int) -> None:
        tries.append(handle)
        if len(tries) == 1:
            lock_of(where).unlink()
            lock_of(where).touch()
        lock(handle)

    monkeypatch.setattr(owner, "lock_file", late)
    Owner(where).release()
    assert 2 == len(tries)


# The lock of the file itself


@contextmanager
def opened(path: str | Path) -> Iterator[sqlite3.Connection]:
    """Have SQLite open a file, as a store does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS t(x)")
        yield connection


UNKNOWN = "process unknown, whose {}-owner is gone"


@needs_fork
def test_the_lock_beside_is_removed(where: str) -> None:
    """Who removes the file beside lets nobody in, and a refused one leaves none behind."""
    mine = Owner(where)
    with opened(where):
        mine.check()
        lock_of(where).unlink()
        assert is_refused(where)
        assert ["jobs.db", "jobs.db-shm", "jobs.db-wal"] == names(where)
    mine.release()
    assert not is_refused(where)


def test_the_lock_beside_is_removed_from_another_process(where: str) -> None:
    """Of an owner whose name was removed nothing is known."""
    with another_process(HOLD, where):
        lock_of(where).unlink()
        error = refusal(where)
        problem = f"it is in use by {UNKNOWN.format('jobs.db')}: close that first"
        assert (None, problem) == (error.pid, error.problem)
    Owner(where).release()


@needs_fork
@pytest.mark.parametrize("move", [os.rename, os.link])
def test_the_file_has_another_name(where: str, move: Any) -> None:
    """A file that was renamed, or has a second name, has the owner that it had."""
    mine = Owner(where)
    with opened(where):
        mine.check()
        moved = f"{where}2"
        move(where, moved)
        assert is_refused(moved)
        assert is_refused(where)  # the lock beside it holds
        assert "another broker of this process" == owner_of(moved)
    mine.release()
    assert not is_refused(moved)


@needs_fork
def test_a_second_broker_drops_no_lock(where: str) -> None:
    """A process that is refused its own file leaves its locks, and SQLite's, as they were."""
    mine = Owner(where)
    with opened(where) as connection:
        mine.check()
        lock_of(where).unlink()
        connection.execute("BEGIN IMMEDIATE")
        error = refusal(where)
        assert os.getpid() == error.pid
        assert is_refused(where)
        assert not in_child(lambda: is_last(where))
        connection.execute("ROLLBACK")
    mine.release()


def is_last(where: str) -> bool:
    """Say whether SQLite in another process believes that nobody else has a file open."""
    with closing(sqlite3.connect(where, timeout=0)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        try:
            connection.execute("SELECT * FROM t").fetchall()
            connection.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.OperationalError:
            return False
        return True


@needs_fork
def test_a_lock_that_this_process_has_dropped(where: str) -> None:
    """A lock that was dropped as the file was copied is taken again by a check."""
    mine = Owner(where)
    with opened(where):
        mine.check()
        lock_of(where).unlink()
        shutil.copy(where, f"{where}2")
        mine.check()
        assert is_refused(where)
    mine.release()


def test_a_lock_that_another_process_has_taken(where: str) -> None:
    """A check tells that there is a second owner, whenever it is made."""
    mine = Owner(where)
    lock_of(where).unlink()
    Path(where).read_bytes()  # which drops the lock
    with another_process(HOLD, where) as process:
        for _ in "12":
            with pytest.raises(StoreInUse) as info:
                mine.check()
            assert f"it is in use by {UNKNOWN.format('jobs.db')}: close that first" == (
                info.value.problem
            )
        mine.release()
        assert process.pid == pid_in(where)  # and not removed by the first
        assert process.pid == refusal(where).pid


@needs_fork
def test_a_child_has_no_lock_of_the_file(where: str) -> None:
    """The child of a fork that lets go of it drops no lock of its parent."""
    mine = Owner(where)
    with opened(where):
        mine.check()
        lock_of(where).unlink()
        in_child(mine.abandon)
        assert is_refused(where)
    mine.release()


@needs_fork
def test_a_child_that_has_not_let_go(where: str) -> None:
    """In a child that knows nothing of it the file is its parent's."""
    mine = Owner(where)
    assert in_child(lambda: refusal(where).pid == os.getppid())
    mine.release()


def test_an_owner_that_is_lost(where: str) -> None:
    """What nobody keeps, as when a signal has struck, is locked no more."""
    before = descriptors()
    Owner(where)
    assert before == descriptors()
    Owner(where).release()


@pytest.mark.parametrize("name", ["_sign", "_take_file", "_is_same", "_key"])
def test_a_signal_while_it_is_taken(where: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A signal that strikes while a file is taken leaves nothing locked, and nothing open."""
    place: Any = Owner if hasattr(Owner, name) else owner
    call, strikes = getattr(place, name), [KeyboardInterrupt]

    def strike(*arguments: Any) -> Any:
        if strikes:
            raise strikes.pop()
        return call(*arguments)

    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(place, name, strike)
        with pytest.raises(KeyboardInterrupt):
            Owner(where)
    Owner(where).release()
    assert before == descriptors()


# What the system refuses


@pytest.mark.parametrize("lock", ["lock_file", "lock_byte"])
def test_a_directory_without_locks(where: str, monkeypatch: pytest.MonkeyPatch, lock: str) -> None:
    """What cannot be locked is not said to be in use."""

    def fail(_handle: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(owner, lock, fail)
        with pytest.raises(StoreError) as info:
            Owner(where)
    assert StoreError is type(info.value)
    reason = "its file system has no locks: put it on a local disk"
    assert f"it cannot be locked: {reason}" == info.value.problem
    assert before == descriptors()
    Owner(where).release()


def test_a_disk_without_room_for_the_lock(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is too full for a file is told as that, and there will be none."""

    def fail(*_arguments: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.raises(StoreFull) as info:
            Owner(where)
    expected = "cannot write beside it: the disk is full"
    assert expected == info.value.problem
    assert [] == names(where)
