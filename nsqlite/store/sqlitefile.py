"""A store in one SQLite file.

The rule: SQLite's transactions are the only way in which the file changes.

Three connections: one writes, one reads pages, one copies the write-ahead log into the file; so
none waits for another.

Next: store/shelf.py
"""

import ctypes
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from json import dumps
from operator import itemgetter
from pathlib import Path
from typing import Final, TypeVar

from nsqlite.errors import StoreDamaged, StoreError, StoreForeign, StoreFull
from nsqlite.lock import insist, make_section
from nsqlite.store.owner import Owner
from nsqlite.store.schema import MARK, VERSION, create, create_topic, upgrade
from nsqlite.store.store import GONE, Batch, Copy, Found, Row, StoredChannel, StoredTopic

PAGE: Final = 2048
"""Bytes in a page of a new file: a commit of a small message writes one page."""

LOG_LIMIT: Final = 4 << 20
"""Bytes of the write-ahead log from which on it is copied into the file."""

PATIENCE: Final = 5.0
"""Seconds to wait for another program, which locks the file for a moment while it opens it."""

SWEPT: Final = 1000
"""How many messages are looked at in one step of forgetting those that nobody holds."""

COPIED: Final = 100_000
"""How many messages are known to have copies; beyond it every one is looked for."""

FEW: Final = 20
"""Fewer runs of ids than this are deleted run by run."""

SPARE: Final = 1000
"""How many free pages are kept for messages to come."""

VACUUMED: Final = 500
"""How many free pages are given back in one step."""

PUT: Final = "INSERT OR IGNORE INTO message_{} VALUES (?, ?, ?, ?, ?, ?)"

PUT_PLAIN: Final = "INSERT OR IGNORE INTO message_{} VALUES "
PLAIN_ROW: Final = "(?, ?, NULL, NULL, NULL, ?)"
"""For bytes that are due at once and meant for all channels."""

TOGETHER: Final = 20
"""Up to so many plain messages are put by one statement, in half the time of as many."""

BULK: Final = 200
"""So many plain messages are put by one statement where there are more."""

EMPTY: Final = "DELETE FROM message_{} WHERE id > ? AND id <= ? AND only IS NULL"

IN_LIST: Final = "id IN (SELECT value FROM json_each(?))"
"""Of a list of ids; one statement for all of them, since each gives the interpreter's lock away."""

_COUNTED: Final = " ON CONFLICT DO UPDATE SET attempts = excluded.attempts"

COUNT: Final = "INSERT INTO copy SELECT id, ?, ?, NULL, 0 FROM message_{} WHERE id = ?" + _COUNTED
COUNT_LIST: Final = (
    f"INSERT INTO copy SELECT id, ?, ?, NULL, 0 FROM message_{{}} WHERE {IN_LIST}{_COUNTED}"
)
COPY_LIST: Final = (
    "INSERT INTO copy SELECT value, ?, ?, ?, 0 FROM json_each(?) WHERE true"
    f"{_COUNTED}, due = coalesce(excluded.due, due)"
)
DONE_LIST: Final = (
    "INSERT INTO copy SELECT value, ?, 0, NULL, 1 FROM json_each(?) WHERE true"
    " ON CONFLICT DO UPDATE SET due = NULL, gone = 1"
)

_FOUND: Final = """
SELECT m.id, m.timestamp, coalesce(c.due, m.due), m.codec, m.data, coalesce(c.attempts, 0)
FROM message_{0} m LEFT JOIN copy c ON c.id = m.id AND c.channel = :channel
"""

READY: Final = _FOUND + (
    "WHERE m.id > :after AND m.id <= :upto AND m.due IS NULL AND m.only IS NULL"
    " AND coalesce(c.gone, 0) = 0 AND c.due IS NULL ORDER BY m.id LIMIT :limit"
)
APART: Final = _FOUND + (
    "WHERE m.id > :after AND (m.due IS NOT NULL OR m.only IS NOT NULL)"
    " AND (m.only = :channel OR (m.only IS NULL AND m.id <= :upto)) AND coalesce(c.gone, 0) = 0"
)
REQUEUED: Final = _FOUND.replace("LEFT JOIN", "JOIN") + (
    "WHERE c.channel = :channel AND c.due IS NOT NULL AND c.id > :after"
    " AND c.id <= :upto AND m.due IS NULL AND m.only IS NULL AND c.gone = 0"
)

UNHELD: Final = """
NOT EXISTS (
    SELECT 1 FROM channel h WHERE h.topic = {0} AND h.since < message_{0}.id
    AND (message_{0}.only IS NULL OR message_{0}.only = h.number)
    AND NOT EXISTS (
        SELECT 1 FROM copy g WHERE g.id = message_{0}.id AND g.channel = h.number AND g.gone
    )
)
"""

PROBLEMS: Final[dict[int, tuple[type[StoreError], str]]] = {
    sqlite3.SQLITE_FULL: (StoreFull, "the disk is full: make room, and it goes on by itself"),
    sqlite3.SQLITE_CORRUPT: (StoreDamaged, "it is damaged: restore it from a backup"),
    sqlite3.SQLITE_NOTADB: (StoreForeign, "it is no SQLite file"),
    sqlite3.SQLITE_CANTOPEN: (StoreError, "it cannot be opened: look at its directory"),
    sqlite3.SQLITE_READONLY: (
        StoreError,
        "it cannot be written: look at the permissions, its own and its directory's",
    ),
    sqlite3.SQLITE_BUSY: (StoreError, "another program has locked it"),
}
"""What SQLite's errors mean to users."""


PLAIN: Final = (None, None, None)

KIND: Final = itemgetter(2, 3, 4)
"""What is `PLAIN` of a plain row: due, only, codec."""

REST: Final = itemgetter(0, 1, 5)
"""What a plain row has besides: id, timestamp, bytes."""

STATEMENTS: Final = 500
"""How many statements SQLite keeps prepared; each topic has some of its own."""


K = TypeVar("K")


class _Statements(dict[int, str]):
    """A statement for each topic, by its number."""

    def __init__(self, text: str) -> None:
        """Take the statement with a place for the number."""
        super().__init__()
        self._text: Final = text

    def __missing__(self, number: int) -> str:
        """Make it."""
        statement = self[number] = self._text.format(number)
        return statement


def _stat(path: str) -> tuple[int, int]:
    """Return a file's number and its size; 0 and 0 if there is none."""
    try:
        found = Path(path).stat()
    except OSError:
        return 0, 0
    return found.st_ino, found.st_size


def runs(identities: list[int]) -> list[tuple[int, int]]:
    """Return the first and last of each run of ids that follow upon each other, of sorted ones."""
    edges = [0]
    edges += [i for i in range(1, len(identities)) if identities[i] != identities[i - 1] + 1]
    ends = [*edges[1:], len(identities)]
    return [(identities[i], identities[j - 1]) for i, j in zip(edges, ends, strict=True) if j]


def pieces(rows: list[Row]) -> Iterator[list[Row]]:
    """Go through rows in pieces of `BULK`, then of `TOGETHER`, then what is left."""
    first = 0
    for size in (BULK, TOGETHER):
        last = len(rows) - size
        while first <= last:
            yield rows[first : first + size]
            first += size
    if first < len(rows):
        yield rows[first:]


def _grouped(pairs: Iterable[tuple[int, K]]) -> Iterable[tuple[K, list[int]]]:
    """Return ids by what goes with them."""
    groups: dict[K, list[int]] = {}
    for identity, key in pairs:
        groups.setdefault(key, []).append(identity)
    return groups.items()


REFUSED: Final = (sqlite3.Error, OverflowError, UnicodeError)
"""What `sqlite3` raises where it cannot do what it is told."""


def told(where: str, error: Exception) -> StoreError:
    """Return SQLite's error as one of ours."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    kind, text = PROBLEMS.get(code, (StoreError, "it cannot be used"))
    return kind(where, f"{text} ({error})")


class SQLiteFile:
    """An open file; see `Storage`."""

    def __init__(self, path: str, *, full: bool) -> None:
        """Open a file, or make it.

        Args:
            path: where it is.
            full: whether what is written is to survive a loss of power.

        Raises:
            StoreInUse: it has an owner already.
            StoreForeign: it is none of nsqlite's, or a later version's.
            StoreDamaged: it is damaged.
            StoreError: it cannot be opened or written.
        """
        self._path: Final = path
        self._holders: dict[int, dict[int, int]] = {}  # by topic: its channels, with their `since`
        self._unheld: dict[int, int] = {}  # topics to be swept, with the id from which on
        self._gone: list[int] = []  # topics that were deleted and are not swept yet
        self._copied: set[int] | None = set()  # ids that have copies; None if they may be any
        self._uncopied: set[int] = set()  # those of them that the batch deletes
        self._swept: int | None = None  # how far the last step of forgetting came, None to the end
        self._restart = False
        self._open_read: sqlite3.Cursor | None = None  # one that is not at its end, see there
        self._puts: Final = _Statements(PUT)
        self._plain_puts: Final = {
            number: _Statements(PUT_PLAIN + ", ".join([PLAIN_ROW] * number))
            for number in (*range(1, TOGETHER + 1), BULK)
        }  # by the number of rows
        self._counts: Final = _Statements(COUNT)
        self._reading: Final = make_section(rank=3)
        self._connections: Final[list[sqlite3.Connection]] = []
        self._owner: Final = Owner(path)
        try:
            with self._telling():
                self._writer: Final = self._connect()
                self._prepare(full=full)
                self._quick: Final = self._writer.cursor()  # to make one each time costs 0.4 us
                self._reader: Final = self._connect()
                self._reader.execute("PRAGMA query_only = 1")
                self._copier: Final = self._connect(patience=0)
                self._inode: Final = Path(path).stat().st_ino
        except BaseException:
            self._let_go()
            raise

    def _connect(self, patience: float = PATIENCE) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=patience,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=STATEMENTS,
        )
        self._connections.append(connection)
        return connection

    def _let_go(self) -> None:
        """Close what is open, the last one to write at last, and give the file back."""
        with ExitStack() as stack:
            stack.callback(self._owner.release)
            for connection in self._connections:
                stack.callback(connection.close)
            self._end_read()

    def _prepare(self, *, full: bool) -> None:
        writer = self._writer
        [mark] = writer.execute("PRAGMA application_id").fetchone()
        [version] = writer.execute("PRAGMA user_version").fetchone()
        [tables] = writer.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if mark != MARK and (tables or mark or version):
            raise StoreForeign(self._path, "it is a SQLite file, but none of nsqlite's")
        if version > VERSION:
            problem = f"a later nsqlite wrote it (version {version}; this one knows {VERSION})"
            raise StoreForeign(self._path, problem)
        if not tables:
            writer.execute(f"PRAGMA page_size = {PAGE}")
            writer.execute("PRAGMA auto_vacuum = INCREMENTAL")
        [mode] = writer.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError(
                self._path, f"SQLite cannot keep a write-ahead log here, only {mode!r}"
            )
        writer.execute("SELECT count(*) FROM json_each('[]')")  # which an old one may lack
        writer.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        if not tables:
            self._in_one(partial(create, writer))
        elif version < VERSION:
            self._in_one(partial(upgrade, writer, version))
        writer.execute(f"PRAGMA user_version = {VERSION}")  # if this cannot be written, no put can

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Tell SQLite's errors as ours."""
        try:
            yield
        except REFUSED as error:
            raise told(self._path, error) from error

    def _in_one(self, write: Callable[[], None]) -> None:
        """Write in one transaction, whatever is thrown in between."""
        writer = self._writer
        self._end_read()
        try:
            writer.execute("BEGIN IMMEDIATE")
            write()
            writer.execute("COMMIT")
        except BaseException:
            insist(self._roll_back)
            raise

    def _begin_read(self) -> None:
        """Keep SQLite's lock for reading from one small commit to the next.

        To take and release it each time would be a quarter of the commit.  While it is held, the
        log cannot begin anew, and a commit fails if another program has written; so whatever takes
        longer begins with `_end_read`.
        """
        self._open_read = self._writer.cursor().execute("SELECT topic FROM highest")

    def _end_read(self) -> None:
        """Release the lock for reading."""
        read, self._open_read = self._open_read, None
        if read is not None:
            read.close()

    def _roll_back(self) -> None:
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    # Reading

    def load(self) -> list[StoredTopic]:
        """See `Storage`."""
        with self._telling():
            rows = self._writer.execute(
                "SELECT number, name, paused, handed, last, held, unheld, gone FROM topic"
                " ORDER BY number"
            ).fetchall()
            topics = []
            if self._writer.execute("SELECT EXISTS (SELECT 1 FROM copy)").fetchone()[0]:
                self._copied = None
            for number, name, paused, handed, last, held, unheld, gone in rows:
                if gone:
                    self._gone.append(number)
                    continue
                if unheld:
                    self._unheld[number] = 0
                topic = StoredTopic(
                    number=number,
                    name=name,
                    paused=bool(paused),
                    handed=handed,
                    last=last,
                    held=held,
                )
                self._load_channels(topic)
                topics.append(topic)
            return topics

    def highest(self) -> tuple[int, int, int]:
        """See `Storage`."""
        with self._telling():
            [found] = self._writer.execute("SELECT topic, channel, id FROM highest")
        topic, channel, identity = found
        return topic, channel, identity

    def _load_channels(self, topic: StoredTopic) -> None:
        """Fill in the channels, and count what was put after the last account."""
        number = topic.number
        for row in self._writer.execute(
            "SELECT number, name, paused, since, held FROM channel WHERE topic = ? ORDER BY number",
            (number,),
        ):
            channel, name, paused, since, held = row
            topic.channels.append(
                StoredChannel(
                    number=channel, name=name, paused=bool(paused), since=since, held=held
                )
            )
        self._holders[number] = {channel.number: channel.since for channel in topic.channels}
        late: Counter[int | None] = Counter()
        for identity, only in self._writer.execute(
            f"SELECT id, only FROM message_{number} WHERE id > ? ORDER BY id", (topic.last,)
        ):
            topic.last = identity
            late[only] += 1
        flowing = bool(topic.channels) and not topic.paused
        for channel in topic.channels:
            channel.held += late[channel.number] + (late[None] if flowing else 0)
        if flowing:
            topic.handed = topic.last
            topic.held = 0
        else:
            topic.held += late[None]

    def read(
        self, topic: int, channel: int | None, after: int, upto: int, limit: int
    ) -> list[Found]:
        """See `Storage`."""
        with self._telling():
            values = {"channel": channel, "after": after, "upto": upto, "limit": limit}
            with self._reading:
                return self._reader.execute(READY.format(topic), values).fetchall()

    def read_apart(self, topic: int, channel: int | None, after: int, upto: int) -> list[Found]:
        """See `Storage`."""
        with self._telling():
            values = {"channel": channel, "after": after, "upto": upto}
            with self._reading:
                found = self._reader.execute(APART.format(topic), values).fetchall()
                if channel is not None:
                    found += self._reader.execute(REQUEUED.format(topic), values).fetchall()
            return sorted(found, key=itemgetter(0))

    # Writing

    def write_row(self, number: int, row: Row) -> None:
        """See `Storage`."""
        if row[2:5] == PLAIN:
            done = self._quickly(self._plain_puts[1][number], (row[0], row[1], row[5]))
        else:
            done = self._quickly(self._puts[number], row)
        if not done:
            self._put_slowly(number, [row])

    def write_rows(self, number: int, rows: list[Row]) -> None:
        """See `Storage`."""
        count = len(rows)
        if count > TOGETHER or set(map(KIND, rows)) != {PLAIN}:
            self._put_slowly(number, rows)
            return
        values = tuple(chain.from_iterable(map(REST, rows)))
        if not self._quickly(self._plain_puts[count][number], values):
            self._put_slowly(number, rows)

    def _quickly(self, statement: str, values: tuple[object, ...]) -> bool:
        """Make one statement a commit; return False if it is refused, and nothing has changed."""
        try:
            if self._open_read is None:
                self._begin_read()
            self._quick.execute(statement, values)
        except REFUSED:  # the slow way does without the open read, and tells why
            return False
        return True

    def _put_slowly(self, number: int, rows: list[Row]) -> None:
        with self._telling():
            self._in_one(partial(self._put, number, rows))

    def _put(self, number: int, rows: list[Row]) -> None:
        writer = self._writer
        if set(map(KIND, rows)) != {PLAIN}:
            writer.executemany(self._puts[number], rows)
            return
        for some in pieces(rows):
            values = tuple(chain.from_iterable(map(REST, some)))
            writer.execute(self._plain_puts[len(some)][number], values)

    def write_attempts(self, number: int, channel: int, copies: list[tuple[int, int]]) -> None:
        """See `Storage`."""
        if len(copies) == 1:
            [(identity, attempts)] = copies
            if self._quickly(self._counts[number], (channel, attempts, identity)):
                self._remember((identity,))
                return
        with self._telling():
            self._in_one(partial(self._count, number, channel, copies))
        self._remember([identity for identity, _ in copies])

    def _count(self, number: int, channel: int, copies: list[tuple[int, int]]) -> None:
        statement = COUNT_LIST.format(number)
        for attempts, identities in _grouped(copies):
            self._writer.execute(statement, (channel, attempts, dumps(identities)))

    def write(self, batch: Batch) -> None:
        """See `Storage`."""
        self._uncopied = set()
        with self._telling():
            self._in_one(partial(self._write, batch))
        if self._copied is not None:
            self._copied -= self._uncopied
        for topic in batch.topics:
            self._holders[topic.number] = {one.number: one.since for one in topic.channels}
        for number in batch.unheld:
            self._unheld[number] = 0
        for number in batch.gone_topics:
            self._unheld.pop(number, None)
            if self._holders.pop(number, None) is not None:  # else it was known before
                self._gone.append(number)

    def _write(self, batch: Batch) -> None:
        writer = self._writer
        holders = self._holders.copy()
        for number in holders.keys() & set(batch.gone_topics):  # else it was known before
            writer.execute(
                "UPDATE highest SET id = max(id, (SELECT last FROM topic WHERE number = ?),"
                f" (SELECT coalesce(max(id), 0) FROM message_{number}))",
                (number,),
            )
            writer.execute("UPDATE topic SET gone = 1 WHERE number = ?", (number,))
            writer.execute("DELETE FROM channel WHERE topic = ?", (number,))
        for _, number in batch.gone_channels:
            writer.execute("DELETE FROM channel WHERE number = ?", (number,))
        for topic in batch.topics:
            self._write_topic(topic)
            holders[topic.number] = {one.number: one.since for one in topic.channels}
        for number in batch.unheld:
            writer.execute("UPDATE topic SET unheld = 1 WHERE number = ?", (number,))
        for number, rows in batch.rows:
            self._put(number, rows)
        for number, after, upto in batch.emptied:
            writer.execute(EMPTY.format(number), (after, upto))
        gone: dict[int, Counter[int]] = {}
        for number, channel, copies in batch.copies:
            done = [identity for identity, copy in copies.items() if copy is GONE]
            if channel is None:
                self._forget(number, Counter(done), 1)
                continue
            gone.setdefault(number, Counter()).update(done)
            self._write_copies(channel, copies, [] if len(holders[number]) == 1 else done)
        for number, counts in gone.items():
            self._forget(number, counts, len(holders[number]))

    def _write_topic(self, topic: StoredTopic) -> None:
        writer = self._writer
        known = writer.execute(
            "UPDATE topic SET paused = ?, handed = ?, last = ?, held = ? WHERE number = ?",
            (topic.paused, topic.handed, topic.last, topic.held, topic.number),
        )
        if not known.rowcount:
            writer.execute(
                "INSERT INTO topic (number, name, paused, handed, last, held)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    topic.number,
                    topic.name,
                    topic.paused,
                    topic.handed,
                    topic.last,
                    topic.held,
                ),
            )
            create_topic(writer, topic.number)
        numbers = [one.number for one in topic.channels]
        if not numbers or not self._holders.get(topic.number, {}).keys() >= set(numbers):
            writer.execute(
                "UPDATE highest SET topic = max(topic, ?), channel = max(channel, ?)",
                (topic.number, max(numbers, default=0)),
            )
        writer.executemany(
            "INSERT INTO channel VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (number) DO UPDATE SET"
            " paused = excluded.paused, since = excluded.since, held = excluded.held",
            [
                (one.number, topic.number, one.name, one.paused, one.since, one.held)
                for one in topic.channels
            ],
        )

    def _write_copies(self, channel: int, copies: dict[int, Copy], done: list[int]) -> None:
        kept = [(identity, copy) for identity, copy in copies.items() if copy is not GONE]
        for (attempts, due), identities in _grouped(kept):
            self._writer.execute(COPY_LIST, (channel, attempts, due, dumps(identities)))
        if done:
            self._writer.execute(DONE_LIST, (channel, dumps(done)))
        self._remember([identity for identity, _ in kept])
        self._remember(done)

    def _remember(self, identities: Iterable[int]) -> None:
        """Take note of which messages have copies, as long as they are not too many."""
        copied = self._copied
        if copied is not None:
            copied.update(identities)
            if len(copied) > COPIED:
                self._copied = None

    def _forget(self, number: int, counts: Counter[int], holders: int) -> None:
        """Delete the messages that nobody holds any more, of those that somebody had done with."""
        all_done = sorted(identity for identity, count in counts.items() if count >= holders)
        self._delete_runs(f"DELETE FROM message_{number} WHERE ", all_done)
        if self._copied is not None:
            all_done = sorted(self._copied.intersection(all_done))
            self._uncopied.update(all_done)
        self._delete_runs("DELETE FROM copy WHERE ", all_done)
        some_done = [identity for identity, count in counts.items() if count < holders]
        if some_done:
            self._delete(number, some_done, f" AND {UNHELD.format(number)}")

    def _delete_runs(self, delete: str, identities: list[int]) -> None:
        """Delete what has one of some ids, which are sorted."""
        ranges = runs(identities)
        if len(ranges) < FEW:
            self._writer.executemany(f"{delete} id BETWEEN ? AND ?", ranges)
        else:
            self._writer.execute(f"{delete} {IN_LIST}", (dumps(identities),))

    def _delete(self, number: int, identities: list[int], condition: str = "") -> None:
        """Delete those messages of some that meet a condition, and their copies."""
        values = (dumps(identities),)
        self._writer.execute(f"DELETE FROM message_{number} WHERE {IN_LIST}{condition}", values)
        self._writer.execute(
            f"DELETE FROM copy WHERE {IN_LIST} AND NOT EXISTS"
            f" (SELECT 1 FROM message_{number} m WHERE m.id = copy.id)",
            values,
        )

    # Upkeep

    def copy_log(self) -> None:
        """See `Storage`."""
        inode, _ = _stat(self._path)
        _, size = _stat(f"{self._path}-wal")
        if inode != self._inode:
            problem = "it was removed or replaced while it was open: what is put now is lost"
            raise StoreError(self._path, problem)
        if size >= LOG_LIMIT:
            with self._telling():
                self._copier.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self._restart = True

    def tidy(self) -> bool:
        """See `Storage`."""
        with self._telling():
            self._end_read()
            if self._restart:
                self._restart = False
                self._copier.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if self._unheld:
                number = next(iter(self._unheld))
                self._in_one(partial(self._sweep, number, self._unheld[number]))
                if self._swept is None:
                    del self._unheld[number]
                else:
                    self._unheld[number] = self._swept
            elif self._gone:
                self._in_one(partial(self._sweep_gone, self._gone[0]))
                if self._swept is None:
                    del self._gone[0]
            else:
                return self._vacuum()
        return True

    def _sweep(self, number: int, start: int) -> None:
        """Forget some messages that nobody holds, of those above an id."""
        writer = self._writer
        [handed] = writer.execute("SELECT handed FROM topic WHERE number = ?", (number,)).fetchone()
        rows = writer.execute(
            f"SELECT id FROM message_{number} WHERE id > ? AND (id <= ? OR only IS NOT NULL)"
            " ORDER BY id LIMIT ?",
            (start, handed, SWEPT),
        ).fetchall()
        self._delete(number, [one for (one,) in rows], f" AND {UNHELD.format(number)}")
        if len(rows) < SWEPT:
            writer.execute("UPDATE topic SET unheld = 0 WHERE number = ?", (number,))
        self._swept = rows[-1][0] if len(rows) == SWEPT else None

    def _sweep_gone(self, number: int) -> None:
        """Forget some messages of a topic that was deleted, or at last the topic."""
        writer = self._writer
        rows = writer.execute(f"SELECT id FROM message_{number} LIMIT ?", (SWEPT,)).fetchall()
        if rows:
            self._delete(number, [one for (one,) in rows])
        else:
            writer.execute(f"DROP TABLE message_{number}")
            writer.execute("DELETE FROM topic WHERE number = ?", (number,))
        self._swept = rows[-1][0] if rows else None

    def _vacuum(self) -> bool:
        """Give some of the free pages back if they are many."""
        free = self._free()
        [pages] = self._writer.execute("PRAGMA page_count").fetchone()
        if free <= max(SPARE, pages // 4):
            return False
        self._writer.executescript(f"PRAGMA incremental_vacuum({VACUUMED})")  # to its last step
        return self._free() < free  # a file that another program has rebuilt may give none back

    def _free(self) -> int:
        count: int = self._writer.execute("PRAGMA freelist_count").fetchone()[0]
        return count

    # The end

    def close(self) -> None:
        """See `Storage`."""
        with self._telling():
            self._let_go()

    def abandon(self) -> None:
        """See `Storage`."""
        self._owner.abandon()
        for one in (self._open_read, *self._connections):
            # To close it would copy the log and remove it; so it must outlive the interpreter.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))
