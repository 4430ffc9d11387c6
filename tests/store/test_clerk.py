"""The store's one thread: it sleeps until it is rung for, and never polls."""

import logging
import threading
from pathlib import Path

import pytest
from helpers import PATIENCE, Call

from nsqlite import Closed, StoreError
from nsqlite.store.clerk import AGAIN, Clerk
from nsqlite.testing import ManualClock
from store.stores import Scene, until

LATE = 3_600_000_000_000
SOON = 1_000_000


class Work:
    """What a clerk does, told call by call."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.problems: dict[str, list[Exception]] = {}
        self.more = 0
        self._told = threading.Semaphore(0)

    def _do(self, name: str) -> None:
        self.done.append(name)
        self._told.release()
        if self.problems.get(name):
            raise self.problems[name].pop(0)

    def commit(self) -> None:
        self._do("commit")

    def run_errands(self) -> None:
        self._do("run_errands")

    def flush(self) -> None:
        self._do("flush")

    def upkeep(self) -> bool:
        self._do("upkeep")
        self.more -= 1
        return self.more >= 0

    def finish(self) -> None:
        self._do("finish")

    def until_told(self, count: int) -> None:
        """Return when so many more calls were made."""
        for _ in range(count):
            assert self._told.acquire(timeout=PATIENCE), "the clerk does nothing"


class Office:
    """A clerk at work."""

    def __init__(self, late: int = LATE) -> None:
        self.work = Work()
        self.clerk = Clerk(self.work, "a clerk", late)
        self.clerk.start()

    def end(self) -> list[str]:
        """Have it finish, and return what it did."""
        self.clerk.stop()
        self.clerk.wait()
        return self.work.done


def test_it_sleeps_until_it_is_rung_for() -> None:
    """A clerk that nobody rings for flushes nothing; it looks once if it slept at the end."""
    assert Office().end() in (["finish"], ["commit", "run_errands", "finish"])


def test_it_looks_when_it_is_rung_for() -> None:
    """Rung for, it writes what is reserved and does its errands, and flushes nothing."""
    office = Office()
    until(office.clerk.is_at_rest)
    office.clerk.ring()
    office.work.until_told(2)
    assert ["commit", "run_errands"] == office.work.done
    until(office.clerk.is_at_rest)
    assert ["commit", "run_errands"] == office.work.done


def test_what_is_expected_is_flushed_when_it_is_due() -> None:
    """It flushes once for all that is expected, in time, and keeps the store small."""
    office = Office(SOON)
    office.clerk.expect()
    office.clerk.expect()
    until(lambda: "upkeep" in office.work.done)
    until(office.clerk.is_at_rest)
    assert 1 == office.work.done.count("flush") == office.work.done.count("upkeep")


def test_at_once_is_at_once() -> None:
    """What is expected at once does not wait for what may be late."""
    office = Office()
    office.clerk.expect()
    assert not office.clerk.is_at_rest()
    office.clerk.expect(at_once=True)
    until(lambda: "upkeep" in office.work.done)
    assert 1 == office.work.done.count("flush")


def test_upkeep_goes_on_step_by_step() -> None:
    """While there is more to do it comes again, and looks for other work in between."""
    office = Office()
    office.work.more = 3
    office.clerk.expect(at_once=True)
    until(lambda: office.work.done.count("upkeep") == 4)
    until(office.clerk.is_at_rest)
    assert 4 == office.work.done.count("upkeep")
    assert 4 <= office.work.done.count("commit")


@pytest.mark.parametrize("name", ["commit", "run_errands", "flush", "upkeep"])
def test_a_failure_is_logged_and_tried_again(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """What fails is logged, and the clerk comes back after a second."""
    office = Office()
    problem = StoreError("jobs.db", "torn")
    office.work.problems[name] = [problem]
    office.clerk.expect(at_once=True)
    until(lambda: caplog.records)
    assert not office.clerk.is_at_rest()
    [record] = caplog.records
    assert "a clerk failed, and tries again: " + str(problem) == record.getMessage()
    assert 1_000_000_000 == AGAIN
    until(lambda: office.work.done.count("upkeep") == (2 if name == "upkeep" else 1))
    assert "finish" == office.end()[-1]


def test_what_the_store_is_short_of_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The same again is not, until it was over; something else is."""
    office = Office()
    full, torn = StoreError("jobs.db", "full"), StoreError("jobs.db", "torn")

    def look(*problems: Exception) -> list[str]:
        before = len(caplog.records)
        for problem in problems:
            office.clerk._complain(problem)
        return [record.getMessage().rpartition(": ")[2] for record in caplog.records[before:]]

    assert ["full", "torn"] == look(full, full, torn, torn)
    office.work.problems["upkeep"] = [torn]
    office.clerk.expect(at_once=True)
    until(lambda: "upkeep" in office.work.done)  # it was flushed, but is not all over
    assert [] == look(torn)
    office.clerk.expect(at_once=True)
    until(lambda: office.work.done.count("upkeep") == 2)
    until(office.clerk.is_at_rest)
    assert ["torn"] == look(torn, torn)
    assert "finish" == office.end()[-1]


def test_what_is_no_error_of_the_store_is_logged_with_its_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is a defect, so each time."""
    office = Office()
    problem = ZeroDivisionError()
    for _ in range(2):
        office.clerk._complain(problem)
    assert [problem, problem] == [
        record.exc_info and record.exc_info[1] for record in caplog.records
    ]
    assert "finish" == office.end()[-1]


def test_the_end_of_a_broker_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    """An errand that finds its broker closed is not logged."""
    office = Office()
    office.work.problems["run_errands"] = [Closed("the broker")]
    office.clerk.ring()
    office.work.until_told(2)
    assert "finish" == office.end()[-1]
    assert [] == caplog.records


def test_a_failure_at_the_end_is_raised_once(caplog: pytest.LogCaptureFixture) -> None:
    """Who waits for the end hears what went wrong; what is no fault of the store is logged too."""
    for problem in (StoreError("jobs.db", "torn"), ValueError("no")):
        office = Office()
        office.work.problems["finish"] = [problem]
        with pytest.raises(type(problem)):
            office.end()
        office.clerk.wait()
    assert [("a clerk failed", logging.ERROR)] == [
        (record.getMessage(), record.levelno) for record in caplog.records
    ]


def test_it_cannot_wait_for_itself() -> None:
    """A wait in its own thread returns, and so does one for a clerk that never started."""
    office = Office()
    clerk = office.clerk
    waited = threading.Event()

    def commit() -> None:
        clerk.stop()
        clerk.wait()
        waited.set()

    office.work.commit = commit  # type: ignore[method-assign]  # a spy
    clerk.ring()
    assert waited.wait(PATIENCE)
    clerk.wait()
    Clerk(Work(), "unstarted", LATE).wait()


def test_a_store_has_one_named_thread(tmp_path: Path) -> None:
    """It is started by opening the file and joined by `close`."""
    before = threading.enumerate()
    scene = Scene(tmp_path / "jobs.db")
    [thread] = [one for one in threading.enumerate() if one not in before]
    assert f"nsqlite store {tmp_path / 'jobs.db'}" == thread.name
    assert thread.daemon
    scene.channel()
    scene.topic().put_many([b"1", b"2"])
    assert [thread] == [one for one in threading.enumerate() if one not in before]
    scene.broker.close()
    assert not thread.is_alive()


def test_a_manual_clock_does_not_wait_for_it(tmp_path: Path) -> None:
    """While it is asleep it holds up no clock that stands; while it is awake it does."""
    with Scene(tmp_path / "jobs.db", clock=ManualClock(autojump=True)) as scene:
        [thread] = [one for one in threading.enumerate() if one.name.startswith("nsqlite store")]
        until(lambda: scene.keeper._clerk._due is not None)
        assert not getattr(thread, "at_rest", None)
        scene.broker.flush()
        scene.keeper.confirm_soon()
        until(lambda: getattr(thread, "at_rest", None))
        Call(scene.broker.flush).result()
