"""The work of a broker with a store, and of a program that uses `sqlite3` by itself.

The rule: what is measured begins with a file that is there and has its tables, and ends when all
has been written, however late it may be; so a run ends with `flush`.  Nobody copies the write-ahead
log into the file at the end; in between each does as it always does.

Each function is a context with a loop in it: the file is closed at its end.

Next: backlogs.py
"""

import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, TypeAlias, Unpack

from loops import BODY, LONGEST
from timing import Loop, Run, seconds

from nsqlite import Broker, Consumer, Message, SQLite
from nsqlite.store import StoreOptions

Opened: TypeAlias = Callable[[str], AbstractContextManager[Loop]]
"""Makes a file where it is told to; the loop works on it."""

OUTSTANDING = 100
BATCH = 100
LETTER = b"x" * (10 << 10)


def run_in_file(opened: Opened, rounds: int, *, times: float = 1) -> Run:
    """Return a run that measures so many rounds on a new file, in real time.

    Args:
        opened: makes the file and what works on it.
        rounds: how often the work is done.
        times: what the seconds of a round are multiplied by.
    """

    def run() -> float:
        with TemporaryDirectory() as directory, opened(f"{directory}/bench.db") as loop:
            return seconds(lambda: loop(rounds), waits=True) / rounds * times

    return run


def _broker(path: str, **options: Unpack[StoreOptions]) -> Broker:
    return Broker(store=SQLite(path, **options), msg_timeout=LONGEST)


# Ours


def one_by_one(waiting: int = 0, **options: Unpack[StoreOptions]) -> Opened:
    """Put one, get one, finish the oldest, while so many wait and a hundred are in flight."""

    @contextmanager
    def opened(path: str) -> Iterator[Loop]:
        with _broker(path, **options) as broker:
            topic = broker.topic("bench")
            consumer = Consumer(topic.channel("a"))
            put, get, fin = topic.put, consumer.get, consumer.fin
            held: deque[Message[bytes]] = deque()
            keep, oldest = held.append, held.popleft
            _fill(topic, OUTSTANDING + waiting)
            for _ in range(OUTSTANDING):
                keep(get())
            broker.flush()

            def loop(rounds: int) -> None:
                for _ in range(rounds):
                    put(BODY)
                    keep(get())
                    fin(oldest())
                broker.flush()

            yield loop

    return opened


def _fill(topic: Any, count: int, body: bytes = BODY) -> None:
    """Put so many messages."""
    for first in range(0, count, 1000):
        topic.put_many([body] * min(1000, count - first))


def in_batches(**options: Unpack[StoreOptions]) -> Opened:
    """Put, get and finish a hundred at a time; a round is one message."""

    @contextmanager
    def opened(path: str) -> Iterator[Loop]:
        with _broker(path, **options) as broker:
            topic = broker.topic("bench")
            consumer = Consumer(topic.channel("a"))
            bodies = [BODY] * BATCH
            broker.flush()

            def loop(rounds: int) -> None:
                for _ in range(rounds // BATCH):
                    topic.put_many(bodies)
                    consumer.fin_many(consumer.get_many(BATCH))
                broker.flush()

            yield loop

    return opened


def putting(threads: int, commits: list[int] | None = None) -> Opened:
    """Put in so many threads and wait for the disk each time; a round is one message.

    Args:
        threads: how many.
        commits: gets how many transactions were written, after each loop.
    """

    @contextmanager
    def opened(path: str) -> Iterator[Loop]:
        with _broker(path, sync="full") as broker:
            topic = broker.topic("bench")
            topic.channel("a")
            broker.flush()
            written = _counted(broker) if commits is not None else [0]

            def produce(count: int) -> None:
                for _ in range(count):
                    topic.put(BODY)

            def loop(rounds: int) -> None:
                crew = [Thread(target=produce, args=(rounds // threads,)) for _ in range(threads)]
                for thread in crew:
                    thread.start()
                for thread in crew:
                    thread.join()
                if commits is not None:
                    commits.append(written[0])

            yield loop

    return opened


def _counted(broker: Broker) -> list[int]:
    """Have a store's transactions counted from now on."""
    storage: Any = broker._persistence._storage  # type: ignore[union-attr]  # of a protocol, and there
    counted = [0]

    def counting(write: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            counted[0] += 1
            return write(*arguments)

        return call

    for name in ("write_row", "write_rows", "write"):
        setattr(storage, name, counting(getattr(storage, name)))
    return counted


def file_size(channels: int, count: int) -> int:
    """Return how large the files are while so many letters of 10 KiB wait in so many channels."""
    with TemporaryDirectory() as directory:
        with _broker(f"{directory}/bench.db") as broker:
            topic = broker.topic("bench")
            for number in range(channels):
                topic.channel(f"c{number}")
            for first in range(0, count, 100):
                _fill(topic, min(100, count - first), LETTER)
        return sum(
            path.stat().st_size for path in Path(directory).iterdir() if "owner" not in path.name
        )


# Theirs


@contextmanager
def _database(path: str) -> Iterator[sqlite3.Connection]:
    """Open a new file in the mode in which commits cost least; all else is SQLite's default."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(
            "CREATE TABLE m (id INTEGER PRIMARY KEY, ts INTEGER, body BLOB, state INTEGER)"
        )
        yield connection
    finally:
        connection.close()


_INSERT = "INSERT INTO m (ts, body, state) VALUES (?, ?, 0)"
_UPDATE = "UPDATE m SET state = 1 WHERE id = ?"
_DELETE = "DELETE FROM m WHERE id = ?"


@contextmanager
def raw_one_by_one(path: str) -> Iterator[Loop]:
    """Insert, update and delete a row, each a commit, with a hundred rows outstanding."""
    with _database(path) as connection:
        execute, now = connection.execute, time.time_ns
        held: deque[int | None] = deque()
        for _ in range(OUTSTANDING):
            held.append(execute(_INSERT, (now(), BODY)).lastrowid)
            execute(_UPDATE, (held[-1],))

        def loop(rounds: int) -> None:
            keep, oldest = held.append, held.popleft
            for _ in range(rounds):
                number = execute(_INSERT, (now(), BODY)).lastrowid
                execute(_UPDATE, (number,))
                keep(number)
                execute(_DELETE, (oldest(),))

        yield loop


@contextmanager
def raw_in_batches(path: str) -> Iterator[Loop]:
    """Insert, update and delete a hundred rows at a time, each a commit; a round is one row."""
    with _database(path) as connection:
        execute, many, now = connection.execute, connection.executemany, time.time_ns

        def in_one(statement: str, rows: list[Any]) -> None:
            execute("BEGIN")
            many(statement, rows)
            execute("COMMIT")

        def loop(rounds: int) -> None:
            insert = "INSERT INTO m VALUES (?, ?, ?, 0)"
            for first in range(0, rounds, BATCH):
                numbers = range(first, first + BATCH)
                in_one(insert, [(number, now(), BODY) for number in numbers])
                in_one(_UPDATE, [(number,) for number in numbers])
                in_one(_DELETE, [(number,) for number in numbers])

        yield loop


def fsync_time(count: int) -> Run:
    """Measure an append of 2 KiB to a file, and that it is on the disk."""

    def run() -> float:
        with TemporaryDirectory() as directory, Path(directory, "x").open("ab", 0) as file:
            number = file.fileno()
            elapsed = 0.0
            for _ in range(count):
                file.write(b"x" * 2048)
                elapsed += seconds_of(lambda: os.fsync(number))
            return elapsed / count

    return run


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long something took, in real time; without a collection before."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
