"""Which jobs survive `kill -9`, in nsqlite and in huey's SqliteHuey.

    pip install -q huey && python tests/bench/survivors.py

Eight jobs are put, and four workers begin one each.  While they are at work the process is killed
with SIGKILL and started again, and finishes what it finds.  A line for each library tells which
jobs were finished; without huey the second is missing.

How to read it.  nsqlite takes a message out of its file when it is finished, so one whose process
dies is delivered again; its handler may run twice.  huey takes a task out of its file before it
runs it, so each task runs once at most, and one whose process is killed is lost.  Both are meant.
Retries do not change that: huey puts a task that has failed back itself, which a killed process
cannot.

Next: __main__.py
"""

import importlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, Final

import nsqlite

JOBS: Final = 8
WORKERS: Final = 4
PATIENCE: Final = 60.0
"""Seconds until a run that hangs is given up."""

Job = Callable[[int], None]


def say(text: str) -> None:
    """Tell the parent, at once and in one piece."""
    os.write(1, f"{text}\n".encode())


def hang(number: int) -> None:
    """Work until the process is killed."""
    say(f"begun {number}")
    threading.Event().wait()


def finish(number: int) -> None:
    """Do the work."""
    say(f"finished {number}")


def with_nsqlite(directory: str, job: Job, numbers: range) -> None:
    """Put jobs, and work until there are none."""
    store = nsqlite.SQLite(f"{directory}/jobs.db", codec="json")
    with nsqlite.Broker(store=store) as broker:
        jobs = broker.topic("jobs")
        channel = jobs.channel("work")
        jobs.put_many(numbers)
        with nsqlite.Worker(channel, lambda m: job(m.body), concurrency=WORKERS) as worker:
            worker.join()


def with_huey(directory: str, job: Job, numbers: range) -> None:
    """Put jobs, and work until there are none."""
    library: Any = importlib.import_module("huey")
    huey = library.SqliteHuey("jobs", filename=f"{directory}/huey.db")

    @huey.task(retries=5)  # type: ignore[untyped-decorator]
    def work(number: int) -> None:
        job(number)

    for number in numbers:
        work(number)
    consumer = huey.create_consumer(workers=WORKERS, worker_type="thread", periodic=False)
    consumer.start()
    while huey.pending_count():
        threading.Event().wait(0.05)
    consumer.stop(graceful=True)


LIBRARIES: Final = {"nsqlite": with_nsqlite, "huey": with_huey}


def heard(process: "subprocess.Popen[str]") -> Iterator[tuple[str, int]]:
    """Go through what a process tells."""
    assert process.stdout
    for line in process.stdout:
        word, number = line.split()
        yield word, int(number)


def begin(name: str, directory: str, run: str) -> "subprocess.Popen[str]":
    """Start a process that works."""
    command = [sys.executable, __file__, name, directory, run]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - this file


def survivors(name: str, directory: str) -> list[int]:
    """Kill a process at work, start it again, and return what was finished."""
    with begin(name, directory, "first") as process:
        alarm = threading.Timer(PATIENCE, process.kill)
        alarm.start()
        at_work = [number for _, (_, number) in zip(range(WORKERS), heard(process), strict=False)]
        process.kill()
        alarm.cancel()
    assert len(at_work) == WORKERS, f"{name} has begun {at_work} only"
    with begin(name, directory, "second") as process:
        alarm = threading.Timer(PATIENCE, process.kill)
        alarm.start()
        finished = [number for word, number in heard(process) if word == "finished"]
        alarm.cancel()
    assert process.returncode == 0, f"{name} has not come to an end"
    return sorted(set(finished))


def main() -> None:
    """Run each library that is installed."""
    for name in LIBRARIES:
        if not find_spec(name):
            print(f"{name:8} is not installed: pip install {name}")
            continue
        with tempfile.TemporaryDirectory() as directory:
            numbers = survivors(name, directory)
        lost = sorted(set(range(1, JOBS + 1)) - set(numbers))
        text = f"lost {', '.join(map(str, lost))}" if lost else "lost none"
        print(f"{name:8} finished {len(numbers)} of {JOBS}, {text}")


def work() -> None:
    """Be the process that is killed, or the one after it."""
    name, directory, run = sys.argv[1:]
    is_first = run == "first"
    numbers = range(1, JOBS + 1) if is_first else range(0)
    LIBRARIES[name](directory, hang if is_first else finish, numbers)


if __name__ == "__main__":
    work() if len(sys.argv) > 1 else main()
