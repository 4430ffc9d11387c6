"""Brokers on files, whose storage a test can watch, hold up and have fail."""

import contextlib
import shutil
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final, Self
from unittest.mock import patch

import pytest
from helpers import PATIENCE

import nsqlite
from nsqlite import Broker, Consumer, Empty, StoreFull
from nsqlite.clock import Clock
from nsqlite.store import (
    Batch,
    Database,
    Found,
    Row,
    Storage,
    StoredChannel,
    StoredTopic,
    statements,
    storage,
)

WRITES: Final = ("write_row", "write_rows", "write_attempts", "write")
"""The calls that write."""

LATE: Final = 3600.0
"""Seconds after which the store's thread writes by itself: a test does not last so long."""

Hook = Callable[[str], object]
"""Is told the name of a call of the storage."""


class Spy:
    """A storage around another one, which can be watched, held up, and made to fail.

    Attributes:
        calls: the calls that wrote and succeeded, and who made them.
        before: called before each call, in the thread that makes it.
        after: called after each call.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage: Final = storage
        self.calls: list[tuple[str, int]] = []
        self.reads: list[tuple[str, int]] = []
        self.batches: list[Batch] = []
        self.before: Hook = lambda _: None
        self.after: Hook = lambda _: None

    def _make(self, name: str, *arguments: object) -> Any:
        self.before(name)
        result = getattr(self._storage, name)(*arguments)
        calls = self.calls if name in WRITES else self.reads
        calls.append((name, threading.get_ident()))
        self.after(name)
        return result

    def load(self) -> tuple[list[StoredTopic], list[StoredChannel]]:
        found: tuple[list[StoredTopic], list[StoredChannel]] = self._make("load")
        return found

    def count(self, topic: int) -> tuple[int, dict[int, int]]:
        found: tuple[int, dict[int, int]] = self._make("count", topic)
        return found

    def last(self, topic: int) -> int:
        found: int = self._make("last", topic)
        return found

    def set_clock(self, now: int) -> None:
        self._make("set_clock", now)

    def copy_all(self) -> None:
        self._make("copy_all")

    def backup(self, path: str) -> None:
        self._make("backup", path)

    def highest(self) -> tuple[int, int, int]:
        found: tuple[int, int, int] = self._make("highest")
        return found

    def write_row(self, number: int, row: Row) -> None:
        self._make("write_row", number, row)

    def write_rows(self, number: int, rows: list[Row]) -> None:
        self._make("write_rows", number, rows)

    def write_attempts(self, number: int, channel: int, copies: list[tuple[int, int]]) -> None:
        self._make("write_attempts", number, channel, copies)

    def write(self, batch: Batch) -> None:
        self._make("write", batch)
        self.batches.append(batch)

    def read(
        self, topic: int, channel: int | None, after: int, upto: int, limit: int
    ) -> list[Found]:
        found: list[Found] = self._make("read", topic, channel, after, upto, limit)
        return found

    def read_apart(self, topic: int, channel: int | None, after: int, upto: int) -> list[Found]:
        found: list[Found] = self._make("read_apart", topic, channel, after, upto)
        return found

    def read_deferred(
        self,
        topic: int,
        channel: int | None,
        between: tuple[int, int],
        behind: tuple[int, int],
        limit: int,
    ) -> list[Found]:
        told = topic, channel, between, behind, limit
        found: list[Found] = self._make("read_deferred", *told)
        return found

    def count_deferred(self, topic: int, channel: int | None, between: tuple[int, int]) -> int:
        count: int = self._make("count_deferred", topic, channel, between)
        return count

    def find(self, topic: int, channel: int | None, identity: int) -> list[Found]:
        found: list[Found] = self._make("find", topic, channel, identity)
        return found

    def alone(self, topic: int, channel: int, above: int) -> list[int]:
        found: list[int] = self._make("alone", topic, channel, above)
        return found

    def copy_log(self) -> None:
        self._make("copy_log")

    def tidy(self) -> bool:
        more: bool = self._make("tidy")
        return more

    def close(self) -> None:
        self._make("close")

    def abandon(self) -> None:
        self._storage.abandon()

    # What a test makes of it

    def names(self) -> list[str]:
        """Return which calls have written so far."""
        return [name for name, _ in self.calls]

    def writers(self) -> set[int]:
        """Return which threads have written so far."""
        return {thread for _, thread in self.calls}

    @contextlib.contextmanager
    def failing(
        self,
        error: BaseException | None = None,
        names: tuple[str, ...] = WRITES,
        *,
        late: bool = False,
    ) -> Iterator[list[str]]:
        """Have calls fail for the time of the block; yields the names of those that did.

        Args:
            error: what they raise; by default that the disk is full.
            names: which calls.
            late: whether they do so after they are done.
        """
        failed: list[str] = []

        def fail(name: str) -> None:
            if name in names:
                failed.append(name)
                raise error or full()

        before, after = self.before, self.after
        if late:
            self.after = fail
        else:
            self.before = fail
        try:
            yield failed
        finally:
            self.before, self.after = before, after

    def once(
        self,
        hook: Callable[[], object],
        names: tuple[str, ...] = WRITES,
        *,
        late: bool = False,
    ) -> None:
        """Call something before, or after, the next of these calls, in the thread that makes it."""

        def strike(name: str) -> None:
            if name in names:
                if late:
                    self.after = after
                else:
                    self.before = before
                hook()

        before, after = self.before, self.after
        if late:
            self.after = strike
        else:
            self.before = strike

    @contextlib.contextmanager
    def held(self, names: tuple[str, ...] = WRITES) -> Iterator["Held"]:
        """Hold up the next of these calls until the end of the block, or until `let_go`."""
        held = Held()
        self.once(held.hold, names)
        try:
            yield held
        finally:
            held.let_go()


class Held:
    """A call that does not go on.

    Attributes:
        thread: who makes it.
        strike: what it raises when it goes on.
    """

    def __init__(self) -> None:
        self._begun, self._over = threading.Event(), threading.Event()
        self.thread = 0
        self.strike: BaseException | None = None

    def hold(self) -> None:
        self.thread = threading.get_ident()
        self._begun.set()
        assert self._over.wait(PATIENCE), "nobody lets it go on"
        if self.strike is not None:
            raise self.strike

    def until_begun(self) -> None:
        """Return when somebody has made the call."""
        assert self._begun.wait(PATIENCE), "nobody made the call"

    @property
    def begun(self) -> bool:
        """Whether somebody has made the call."""
        return self._begun.is_set()

    def let_go(self) -> None:
        """Let it go on."""
        self._over.set()


@contextlib.contextmanager
def pages_of(size: int) -> Iterator[None]:
    """Have pages end at so many bytes for the time of the block."""
    with patch.object(storage, "PAGE_BYTES", size), patch.object(statements, "PAGE_BYTES", size):
        yield


def until(condition: Callable[[], object]) -> None:
    """Return when something has come true that another thread is about to do."""
    for _ in range(int(PATIENCE * 1000)):
        if condition():
            return
        threading.Event().wait(0.001)
    pytest.fail("it never comes true")


def threads_in(function: str, file: str) -> int:
    """Return how many threads are in a function, or in what it calls."""
    count = 0
    for top in sys._current_frames().values():
        frame: FrameType | None = top
        while frame is not None:
            code = frame.f_code
            if (code.co_name, Path(code.co_filename).name) == (function, file):
                count += 1
                break
            frame = frame.f_back
    return count


def full() -> StoreFull:
    """Return what a full disk raises."""
    return StoreFull("jobs.db", "the disk is full")


def throw(error: BaseException) -> Callable[[], None]:
    """Return what raises an error."""

    def thrown() -> None:
        raise error

    return thrown


class SpiedStore(nsqlite.SQLite):
    """A file with a spy in front of it.

    Attributes:
        spy: of the file that was opened last.
    """

    def _storage(self) -> Storage:
        self.spy = Spy(super()._storage())
        return self.spy


class Scene:
    """A broker on a file.

    Attributes:
        path: the file.
        broker: the broker.
        spy: what stands before its file.
        database: what keeps its topics.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock | None = None,
        topics: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.path: Final = path
        self._clock: Final = clock
        self._topics: Final = topics or {}
        self._options: Final = {"sync_timeout": LATE, **options}
        self.open()

    def open(self) -> None:
        """Open the file."""
        store = SpiedStore(self.path, **self._options)
        self.broker = Broker(store=store, clock=self._clock, **self._topics)
        self.spy = store.spy
        database = self.broker._persistence
        assert isinstance(database, Database)
        self.database = database

    def reopen(self) -> None:
        """Close the file and open it again."""
        self.broker.close()
        self.open()

    @contextlib.contextmanager
    def as_on_disk(self, **options: Any) -> Iterator["Scene"]:
        """Open a copy of the file, as it would be found if the process died now."""
        folder = self.path.parent / f"copy {threading.get_ident()}"
        folder.mkdir()
        for suffix in ("", "-wal"):
            source = Path(f"{self.path}{suffix}")
            if source.exists():
                shutil.copyfile(source, folder / source.name)
        try:
            with Scene(
                folder / self.path.name,
                clock=self._clock,
                topics=self._topics,
                **{**self._options, **options},
            ) as scene:
                yield scene
        finally:
            shutil.rmtree(folder)

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Have the store's thread do nothing for the time of the block."""
        held = Held()
        self.database.send(held.hold, lambda _: None)
        held.until_begun()
        try:
            yield
        finally:
            held.let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.broker.close()

    # Looking

    def topic(self, name: str = "orders", **options: Any) -> nsqlite.Topic[Any]:
        return self.broker.topic(name, **options)

    def channel(
        self, name: str = "billing", topic: str = "orders", **options: Any
    ) -> nsqlite.Channel[Any]:
        return self.topic(topic).channel(name, **options)

    def consumer(self, name: str = "billing", topic: str = "orders") -> Consumer[Any]:
        return Consumer(self.channel(name, topic))

    def disk(self, name: str = "billing", topic: str = "orders") -> list[tuple[Any, int]]:
        """Return what a channel would hold if the process died now: bodies and attempts."""
        with self.as_on_disk() as copy:
            return everything(copy.channel(name, topic))

    def rows(self) -> list[bytes]:
        """Return the bytes of the messages in the file, by another connection."""
        return [data for _, _, data in self._messages()]

    def ids(self) -> list[str]:
        """Return the ids of the messages in the file, by another connection."""
        return [f"{identity:016x}" for _, identity, _ in self._messages()]

    def _messages(self) -> list[tuple[int, int, bytes]]:
        """Return topic, id and bytes of the messages in the file, topic by topic."""
        with reading(self.path) as connection:
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables = [name for (name,) in names if name.startswith("messages_")]
            found: list[tuple[int, int, bytes]] = []
            for table in tables:
                found += connection.execute(f"SELECT topic, id, data FROM {table}")  # noqa: S608 - ours
            return sorted(found)

    def names(self) -> list[str]:
        """Return the topics of the file, and their channels."""
        with reading(self.path) as connection:
            return [
                name
                for (name,) in connection.execute(
                    "SELECT name FROM topic WHERE NOT gone UNION ALL"
                    " SELECT t.name || ':' || c.name FROM channel c JOIN topic t"
                    " ON t.number = c.topic WHERE NOT t.gone AND NOT c.gone ORDER BY 1"
                )
            ]


def finished(messages: Iterable[nsqlite.Message[Any]]) -> list[Any]:
    """Finish messages one by one, and return their bodies."""
    found = []
    for message in messages:
        found.append(message.body)
        message.fin()
    return found


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Read a file beside its owner."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        yield connection


def everything(channel: nsqlite.Channel[Any]) -> list[tuple[Any, int]]:
    """Take all that is ready in a channel, finish it, and return bodies and attempts."""
    found: list[tuple[Any, int]] = []
    with contextlib.suppress(Empty), Consumer(channel) as consumer:
        while True:
            message = consumer.get(timeout=0)
            found.append((message.body, message.attempts))
            message.fin()
    return found
