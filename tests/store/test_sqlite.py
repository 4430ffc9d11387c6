"""`nsqlite.SQLite`: the way to open a file."""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import Call

from nsqlite import Broker, InvalidOption, SQLite, StoreForeign, StoreInUse
from nsqlite.clock import Semaphore, SystemClock
from nsqlite.store.owner import Owner
from nsqlite.store.sqlite import in_turn
from nsqlite.testing import ManualClock
from store.processes import another_process, descriptors, said


@pytest.mark.parametrize("path", ["", ":memory:", b"jobs.db", 5, None])
def test_what_is_no_path_of_a_file(path: Any) -> None:
    """What cannot be a file is refused before anything is opened."""
    with pytest.raises(InvalidOption, match="path must be the path of a file, as text or a Path"):
        SQLite(path)


def test_options_are_checked(tmp_path: Path) -> None:
    """An option that is unknown or wrong is refused, and no file is made."""
    path = tmp_path / "jobs.db"
    wrong: list[Any] = [
        {"sync": "never"},
        {"attempts": 1},
        {"colour": "red"},
        {"sync_every": 0},
        {"wait": -1},
        {"checksums": None},
    ]
    for options in wrong:
        with pytest.raises(InvalidOption):
            SQLite(path, **options)
    SQLite(path)
    assert [] == list(tmp_path.iterdir())


def test_what_is_no_store() -> None:
    """A broker takes what can be opened and nothing else."""
    with pytest.raises(InvalidOption, match=r"store must be a store, as nsqlite.SQLite\(\"jobs.db"):
        Broker(store="jobs.db")  # type: ignore[arg-type]  # that is the point


def test_a_file_has_one_owner(tmp_path: Path) -> None:
    """A second broker is told who has it, and gets it when that is closed."""
    store = SQLite(tmp_path / "jobs.db")
    with Broker(store=store), pytest.raises(StoreInUse) as info:
        Broker(store=store)
    assert os.getpid() == info.value.pid
    assert str(tmp_path / "jobs.db") == info.value.where
    Broker(store=store).close()


def test_what_is_no_file_of_ours(tmp_path: Path) -> None:
    """What was there before is not touched, and can be opened by its own program."""
    path = tmp_path / "notes.txt"
    path.write_text("x" * 5000)
    for _ in "12":
        with pytest.raises(StoreForeign):
            Broker(store=SQLite(path))
    assert "x" * 5000 == path.read_text()


def test_it_shows_its_path(tmp_path: Path) -> None:
    """A store is shown by its path, as it was given."""
    assert "<SQLite 'jobs.db'>" == repr(SQLite("jobs.db"))
    assert str(tmp_path) == SQLite(tmp_path).path


def test_the_file_is_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that goes elsewhere still has the file where it was opened."""
    monkeypatch.chdir(tmp_path)
    with Broker(store=SQLite("jobs.db")) as broker:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        broker.topic("orders").put(b"1")
    assert ["elsewhere", "jobs.db"] == sorted(one.name for one in tmp_path.iterdir())
    assert [] == list((tmp_path / "elsewhere").iterdir())


# Waiting for the owner before

MS = 1_000_000


def busy(times: int | None, clock: ManualClock, looks: list[int]) -> Callable[[], str]:
    """Return what is in use so many times, None for always; it keeps when it was looked at."""
    begin = clock.monotonic_ns()

    def take() -> str:
        looks.append((clock.monotonic_ns() - begin) // MS)
        if times is None or len(looks) <= times:
            raise StoreInUse("jobs.db", 7, "it is in use by process 7: close that first")
        return "taken"

    return take


def test_what_is_free_is_taken_at_once() -> None:
    """Where nobody has it nobody waits, however long one might."""
    clock, looks = ManualClock(autojump=True, patience=0.001), list[int]()
    assert "taken" == in_turn(10**10, busy(0, clock, looks), clock)
    assert [0] == looks


def test_who_does_not_wait_is_refused_at_once() -> None:
    """Without patience it is looked at once, and the refusal is as it was."""
    clock, looks = ManualClock(autojump=True, patience=0.001), list[int]()
    with pytest.raises(StoreInUse) as info:
        in_turn(0, busy(None, clock, looks), clock)
    assert [0] == looks
    assert "it is in use by process 7: close that first" == info.value.problem


def test_pauses_grow() -> None:
    """It is looked at after pauses that grow to 50 ms, until it is free."""
    clock, looks = ManualClock(autojump=True, patience=0.001), list[int]()
    assert "taken" == in_turn(10**10, busy(9, clock, looks), clock)
    assert [0, 1, 3, 7, 15, 31, 63, 113, 163, 213] == looks


def test_who_has_waited_is_told_how_long() -> None:
    """At the end of the time it is looked at once more, and the refusal tells of the time."""
    clock, looks = ManualClock(autojump=True, patience=0.001), list[int]()
    with pytest.raises(StoreInUse) as info:
        in_turn(20 * MS, busy(None, clock, looks), clock)
    assert [0, 1, 3, 7, 15, 20] == looks
    assert ("jobs.db", 7) == (info.value.where, info.value.pid)
    assert (
        "it is in use by process 7: close that first (after waiting 0.02 s)" == info.value.problem
    )


def test_a_signal_ends_the_waiting() -> None:
    """What a signal throws while it waits goes on, and nothing more is looked at."""

    class Struck(SystemClock):
        def wait(self, semaphore: Semaphore, moment: int | None, who: str) -> bool:  # noqa: ARG002 - Clock's
            raise KeyboardInterrupt

    looks: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        in_turn(10**10, busy(None, ManualClock(), looks), Struck())
    assert [0] == looks


def test_a_broker_waits_for_the_one_before(tmp_path: Path) -> None:
    """A broker that may wait gets the file when another process ends, and what is in it."""
    path = tmp_path / "jobs.db"
    program = (
        "import sys, nsqlite\n"
        "with nsqlite.Broker(store=nsqlite.SQLite(sys.argv[1])) as broker:\n"
        "    broker.topic('orders').put(b'1')\n"
        "    print('mine', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with another_process(program, str(path)) as process:
        with pytest.raises(StoreInUse, match=r"in use by process .* \(after waiting 0\.001 s\)"):
            Broker(store=SQLite(path, wait=0.001))
        call = Call(partial(Broker, store=SQLite(path, wait=60)))
        assert process.stdin is not None
        process.stdin.close()
        with call.result() as broker:
            assert 1 == broker.topic("orders").depth


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
def test_a_real_signal_ends_the_waiting(tmp_path: Path) -> None:
    """Ctrl-C ends the waiting of a process, which then has nothing locked and nothing open."""
    path = str(tmp_path / "jobs.db")
    program = (
        "import sys, nsqlite\n"
        "try:\n"
        "    print('mine', flush=True)\n"
        "    nsqlite.Broker(store=nsqlite.SQLite(sys.argv[1], wait=600))\n"
        "except KeyboardInterrupt:\n"
        "    print('ended', flush=True)\n"
        "sys.stdin.read()\n"
    )
    before = descriptors()
    mine = Owner(path)
    with another_process(program, path) as process:
        process.send_signal(signal.SIGINT)
        assert "ended" == said(process)
        mine.release()
        Owner(path).release()
    assert before == descriptors()
