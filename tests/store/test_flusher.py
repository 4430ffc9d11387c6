"""The store's one thread: it sleeps until it is woken, and never polls."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import PATIENCE

from nsqlite import Closed, StoreError
from nsqlite.clock import Semaphore, release
from nsqlite.store import flusher
from nsqlite.store.flusher import AGAIN, Flusher
from store.stores import Scene, until

LATE = 3_600_000_000_000
SOON = 1_000_000


class Work:
    """What a flusher does, told call by call."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.problems: dict[str, list[Exception]] = {}
        self.more = 0
        self.task: Callable[[], object] = lambda: None
        self._told = threading.Semaphore(0)

    def _do(self, name: str) -> None:
        self.done.append(name)
        self._told.release()
        if self.problems.get(name):
            raise self.problems[name].pop(0)

    def commit(self) -> None:
        self._do("commit")

    def run_tasks(self) -> None:
        self._do("run_tasks")
        self.task()

    def flush_late(self) -> None:
        self._do("flush_late")

    def upkeep(self) -> bool:
        self._do("upkeep")
        self.more -= 1
        return self.more >= 0

    def finish(self) -> None:
        self._do("finish")

    def until_told(self, count: int) -> None:
        """Return when so many more calls were made."""
        for _ in range(count):
            assert self._told.acquire(timeout=PATIENCE), "the flusher does nothing"


class Running:
    """A flusher at work."""

    def __init__(self, late: int = LATE) -> None:
        self.work = Work()
        self.flusher = Flusher(self.work, "a flusher", late)
        self.flusher.start()

    def end(self) -> list[str]:
        """Have it finish, and return what it did."""
        self.flusher.stop()
        self.flusher.wait()
        return self.work.done


def test_it_sleeps_until_it_is_rung_for() -> None:
    """A flusher that nobody wakes flushes nothing; it looks once if it slept at the end."""
    assert Running().end() in (["finish"], ["commit", "run_tasks", "finish"])


def test_it_looks_when_it_is_rung_for() -> None:
    """Rung for, it writes what is reserved and does its tasks, and flushes nothing."""
    running = Running()
    until(running.flusher.is_at_rest)
    running.flusher.wake()
    running.work.until_told(2)
    assert ["commit", "run_tasks"] == running.work.done
    until(running.flusher.is_at_rest)
    assert ["commit", "run_tasks"] == running.work.done


def test_what_is_expected_is_flushed_when_it_is_due() -> None:
    """It flushes once for all that is expected, in time, and keeps the store small."""
    running = Running(SOON)
    running.flusher.expect()
    running.flusher.expect()
    until(lambda: "upkeep" in running.work.done)
    until(running.flusher.is_at_rest)
    assert 1 == running.work.done.count("flush_late") == running.work.done.count("upkeep")


def test_at_once_is_at_once() -> None:
    """What is expected at once does not wait for what may be late."""
    running = Running()
    running.flusher.expect()
    assert not running.flusher.is_at_rest()
    running.flusher.expect(at_once=True)
    until(lambda: "upkeep" in running.work.done)
    assert 1 == running.work.done.count("flush_late")


def test_upkeep_goes_on_step_by_step() -> None:
    """While there is more to do it comes again, and looks for other work in between."""
    running = Running()
    running.work.more = 3
    running.flusher.expect(at_once=True)
    until(lambda: running.work.done.count("upkeep") == 4)
    until(running.flusher.is_at_rest)
    assert 4 == running.work.done.count("upkeep")
    assert 4 <= running.work.done.count("commit")


@pytest.mark.parametrize("name", ["commit", "run_tasks", "flush_late", "upkeep"])
def test_a_failure_is_logged_and_tried_again(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """What fails is logged, and the flusher comes back after a second."""
    running = Running()
    problem = StoreError("jobs.db", "torn")
    running.work.problems[name] = [problem]
    running.flusher.expect(at_once=True)
    until(lambda: caplog.records)
    assert not running.flusher.is_at_rest()
    [record] = caplog.records
    assert "a flusher failed, and tries again: " + str(problem) == record.getMessage()
    assert 1_000_000_000 == AGAIN
    until(lambda: running.work.done.count("upkeep") == (2 if name == "upkeep" else 1))
    assert "finish" == running.end()[-1]


def test_what_the_store_is_short_of_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The same again is not, until it was over; something else is."""
    running = Running()
    full, torn = StoreError("jobs.db", "full"), StoreError("jobs.db", "torn")

    def look(*problems: Exception) -> list[str]:
        before = len(caplog.records)
        for problem in problems:
            running.flusher._complain(problem)
        return [record.getMessage().rpartition(": ")[2] for record in caplog.records[before:]]

    assert ["full", "torn"] == look(full, full, torn, torn)
    running.work.problems["upkeep"] = [torn]
    running.flusher.expect(at_once=True)
    until(lambda: "upkeep" in running.work.done)  # it was flushed, but is not all over
    assert [] == look(torn)
    running.flusher.expect(at_once=True)
    until(lambda: running.work.done.count("upkeep") == 2)
    until(running.flusher.is_at_rest)
    assert ["torn"] == look(torn, torn)
    assert "finish" == running.end()[-1]


def test_what_is_no_error_of_the_store_is_logged_with_its_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is a defect, so each time."""
    running = Running()
    problem = ZeroDivisionError()
    for _ in range(2):
        running.flusher._complain(problem)
    assert [problem, problem] == [
        record.exc_info and record.exc_info[1] for record in caplog.records
    ]
    assert "finish" == running.end()[-1]


def test_the_end_of_a_broker_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    """A task that finds its broker closed is not logged."""
    running = Running()
    running.work.problems["run_tasks"] = [Closed("the broker")]
    running.flusher.wake()
    running.work.until_told(2)
    assert "finish" == running.end()[-1]
    assert [] == caplog.records


def test_a_failure_at_the_end_is_raised_once(caplog: pytest.LogCaptureFixture) -> None:
    """Who waits for the end hears what went wrong; what is no fault of the store is logged too."""
    for problem in (StoreError("jobs.db", "torn"), ValueError("no")):
        running = Running()
        running.work.problems["finish"] = [problem]
        with pytest.raises(type(problem)):
            running.end()
        running.flusher.wait()
    assert [("a flusher failed", logging.ERROR)] == [
        (record.getMessage(), record.levelno) for record in caplog.records
    ]


def test_it_cannot_wait_for_itself() -> None:
    """A wait in its own thread returns, and so does one for a flusher that never started."""
    running = Running()
    flusher = running.flusher
    waited = threading.Event()

    def commit() -> None:
        flusher.stop()
        flusher.wait()
        waited.set()

    running.work.commit = commit  # type: ignore[method-assign]  # a spy
    flusher.wake()
    assert waited.wait(PATIENCE)
    flusher.wait()
    Flusher(Work(), "unstarted", LATE).wait()


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


def test_a_manual_clock_does_not_wait_for_it() -> None:
    """It holds a clock back while it does something that may be waited for, and no longer."""
    running = Running(late=10**15)
    thread = running.flusher._thread
    until(lambda: thread.at_rest)
    running.flusher.expect()
    until(lambda: thread.at_rest and running.flusher._due is not None)
    begun, gate = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert gate.wait(PATIENCE)

    running.work.task = work
    running.flusher.wake()
    assert not thread.at_rest
    assert begun.wait(PATIENCE)
    assert not thread.at_rest
    gate.set()
    until(lambda: thread.at_rest)
    running.end()


def test_who_is_struck_as_he_expects_something_has_it_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else it would sleep on with what is due, and be thought to look by itself."""
    running = Running(late=0)
    strikes = [KeyboardInterrupt()]

    def struck(semaphore: Semaphore) -> None:
        if strikes:
            raise strikes.pop()
        release(semaphore)

    until(running.flusher.is_at_rest)
    monkeypatch.setattr(flusher, "release", struck)
    with pytest.raises(KeyboardInterrupt):
        running.flusher.expect()
    until(lambda: "upkeep" in running.work.done)
    running.end()
