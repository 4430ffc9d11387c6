"""Who owns a store's file."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers import bodies

from nsqlite import Broker, SQLite, StoreError, StoreInUse
from nsqlite.store import owner
from nsqlite.store.owner import Owner

HOLD = """
import sys
from nsqlite.store.owner import Owner

Owner(sys.argv[1])
print("mine", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def where(tmp_path: Path) -> str:
    return str(tmp_path / "jobs.db")


@contextmanager
def another_process(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program in a process of its own until the end of the block; it says something first."""
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-W", "error", "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert "mine" == process.stdout.readline().strip()
            yield process
        finally:
            process.kill()


def in_child(call: Callable[[], object]) -> None:
    """Make a call in a fork, which must come to its end."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            call()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert 0 == os.waitstatus_to_exitcode(status)


def lock_of(where: str) -> Path:
    return Path(f"{where}-owner")


def test_the_owner_leaves_its_number(where: str) -> None:
    """Beside the file lies another with the number of the process, as long as it owns it."""
    mine = Owner(where)
    assert f"{os.getpid()}\n" == lock_of(where).read_text()
    mine.release()
    assert not lock_of(where).exists()
    mine.release()
    mine.abandon()
    Owner(where).release()


def test_the_owner_in_the_same_process(where: str) -> None:
    """A second owner in the same process is refused, with its own number."""
    mine = Owner(where)
    with pytest.raises(StoreInUse) as info:
        Owner(where)
    assert (where, os.getpid()) == (info.value.where, info.value.pid)
    assert "it is in use by another broker of this process: close that first" == info.value.problem
    assert f"{os.getpid()}\n" == lock_of(where).read_text()
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
    assert f"{os.getpid()}\n" == lock_of(where).read_text()
    mine.release()


def test_an_owner_that_left_no_number(where: str) -> None:
    """Whoever has the lock and said nothing is unknown."""
    mine = Owner(where)
    for text in ("", "nonsense"):
        lock_of(where).write_text(text)
        with pytest.raises(StoreInUse) as info:
            Owner(where)
        assert None is info.value.pid
        assert "it is in use by process unknown: close that first" == info.value.problem
    mine.release()


def test_a_disk_that_is_too_full_for_a_number(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file can be owned, and given back, without a word about by whom."""

    def fail(*_arguments: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        mine = Owner(where)
    with pytest.raises(StoreInUse) as info:
        Owner(where)
    assert None is info.value.pid
    mine.release()
    Owner(where).release()


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
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
    lock = owner._lock
    tries = []

    def late(handle: int) -> None:
        tries.append(handle)
        if len(tries) == 1:
            mine.release()
        lock(handle)

    monkeypatch.setattr(owner, "_lock", late)
    second = Owner(where)
    assert 2 == len(tries)
    assert f"{os.getpid()}\n" == lock_of(where).read_text()
    with pytest.raises(StoreInUse):
        Owner(where)
    second.release()


def test_a_lock_that_is_another_file_by_now(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who locks a file in whose place there is another takes that one."""
    lock = owner._lock
    tries = []

    def late(handle: int) -> None:
        tries.append(handle)
        if len(tries) == 1:
            lock_of(where).unlink()
            lock_of(where).touch()
        lock(handle)

    monkeypatch.setattr(owner, "_lock", late)
    Owner(where).release()
    assert 2 == len(tries)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """A file cannot be owned where there is no directory, and none is made."""
    where = str(tmp_path / "none" / "jobs.db")
    with pytest.raises(StoreError) as info:
        Owner(where)
    assert f"store {where}: cannot write beside it: No such file or directory" == str(info.value)
    assert [] == list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_written(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file cannot be owned in a directory that is read-only."""

    def refuse(*_arguments: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreError) as info:
        Owner(where)
    assert "cannot write beside it: Permission denied" == info.value.problem


def test_a_directory_without_locks(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be locked is not said to be in use."""

    def fail(_handle: int) -> None:
        raise OSError(37, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr(owner, "_lock", fail)
        with pytest.raises(StoreError) as info:
            Owner(where)
    assert not isinstance(info.value, StoreInUse)
    assert "its directory takes no locks: No locks available" == info.value.problem
    Owner(where).release()
