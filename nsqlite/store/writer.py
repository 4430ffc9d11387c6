"""What writes to a file: one connection, and what it knows of what is there.

The rule: it is used by one thread at a time, whoever holds the lock of the press.

Next: store/sqlitefile.py
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from json import dumps
from typing import Final

from nsqlite.lock import ensure
from nsqlite.store.schema import create_topic
from nsqlite.store.statements import (
    BULK,
    COPY_LIST,
    COUNT,
    COUNT_LIST,
    DONE_LIST,
    EMPTY,
    IN_LIST,
    KIND,
    PLAIN,
    PLAIN_ROW,
    PUT,
    PUT_PLAIN,
    REFUSED,
    REST,
    TOGETHER,
    UNHELD,
    Statements,
    grouped,
    pieces,
    read_channels,
    runs,
    telling,
)
from nsqlite.store.store import GONE, Batch, Copy, Row, StoredTopic

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


class Writer:
    """The connection of a file that writes; what it does is told in `Storage`.

    Attributes:
        open_read: a cursor that is not at its end, and so keeps SQLite's lock for reading.
    """

    def __init__(self, where: str, connection: sqlite3.Connection) -> None:
        """Take a connection to a file that has its tables.

        Args:
            where: the file.
            connection: in autocommit mode.
        """
        self._where: Final = where
        self._connection: Final = connection
        self._holders: dict[int, dict[int, int]] = {}  # by topic: its channels, with their `since`
        self._unheld: dict[int, int] = {}  # topics to be swept, with the id from which on
        self._gone: list[int] = []  # topics that were deleted and are not swept yet
        self._copied: set[int] | None = set()  # ids that have copies; None if they may be any
        self._uncopied: set[int] = set()  # those of them that the batch deletes
        self._swept: int | None = None  # how far the last step of forgetting came, None to the end
        self.open_read: sqlite3.Cursor | None = None
        self._puts: Final = Statements(PUT)
        self._plain_puts: Final = {
            number: Statements(PUT_PLAIN + ", ".join([PLAIN_ROW] * number))
            for number in (*range(1, TOGETHER + 1), BULK)
        }  # by the number of rows
        self._counts: Final = Statements(COUNT)
        self._quick: Final = connection.cursor()  # to make one each time costs 0.4 us

    # One transaction

    def in_one(self, write: Callable[[], None]) -> None:
        """Write in one transaction, whatever is thrown in between."""
        connection = self._connection
        self.end_read()
        try:
            connection.execute("BEGIN IMMEDIATE")
            write()
            connection.execute("COMMIT")
        except BaseException:
            ensure(self._roll_back)
            raise

    def _begin_read(self) -> None:
        """Keep SQLite's lock for reading from one small commit to the next.

        To take and release it each time would be a quarter of the commit.  While it is held, the
        log cannot begin anew, and a commit fails if another program has written; so whatever takes
        longer begins with `end_read`.
        """
        self.open_read = self._connection.cursor().execute("SELECT topic FROM highest")

    def end_read(self) -> None:
        """Release the lock for reading."""
        if self.open_read is not None:
            self.open_read.close()
            self.open_read = None

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    # Loading

    def load(self) -> list[StoredTopic]:
        """See `Storage`."""
        with telling(self._where):
            rows = self._connection.execute(
                "SELECT number, name, paused, handed, last, held, unheld, gone FROM topic"
                " ORDER BY number"
            ).fetchall()
            topics = []
            if self._connection.execute("SELECT EXISTS (SELECT 1 FROM copy)").fetchone()[0]:
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
        with telling(self._where):
            [found] = self._connection.execute("SELECT topic, channel, id FROM highest")
        topic, channel, identity = found
        return topic, channel, identity

    def _load_channels(self, topic: StoredTopic) -> None:
        """Fill in the channels, and count what was put after the last account."""
        number = topic.number
        topic.channels = read_channels(self._connection, number)
        self._holders[number] = {channel.number: channel.since for channel in topic.channels}
        late: Counter[int | None] = Counter()
        for identity, only in self._connection.execute(
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
            if self.open_read is None:
                self._begin_read()
            self._quick.execute(statement, values)
        except REFUSED:  # the slow way does without the open read, and tells why
            return False
        return True

    def _put_slowly(self, number: int, rows: list[Row]) -> None:
        with telling(self._where):
            self.in_one(partial(self._put, number, rows))

    def _put(self, number: int, rows: list[Row]) -> None:
        writer = self._connection
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
            self._remember((identity,))
            if self._quickly(self._counts[number], (channel, attempts, identity)):
                return
        with telling(self._where):
            self.in_one(partial(self._count, number, channel, copies))
        self._remember([identity for identity, _ in copies])

    def _count(self, number: int, channel: int, copies: list[tuple[int, int]]) -> None:
        statement = COUNT_LIST.format(number)
        for attempts, identities in grouped(copies):
            self._connection.execute(statement, (channel, attempts, dumps(identities)))

    def write(self, batch: Batch) -> None:
        """See `Storage`."""
        self._uncopied = set()
        with telling(self._where):
            self.in_one(partial(self._write, batch))
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
        writer = self._connection
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
        writer = self._connection
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
        for (attempts, due), identities in grouped(kept):
            self._connection.execute(COPY_LIST, (channel, attempts, due, dumps(identities)))
        if done:
            self._connection.execute(DONE_LIST, (channel, dumps(done)))
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
        ranges = runs(all_done)
        self._delete_runs(f"DELETE FROM message_{number} WHERE ", all_done, ranges)
        if self._copied is not None:
            known = self._copied.intersection(all_done)
            self._uncopied |= known
            if len(known) < len(all_done):
                all_done = sorted(known)
                ranges = runs(all_done)
        self._delete_runs("DELETE FROM copy WHERE ", all_done, ranges)
        some_done = [identity for identity, count in counts.items() if count < holders]
        if some_done:
            self._delete(number, some_done, f" AND {UNHELD.format(number)}")

    def _delete_runs(
        self, delete: str, identities: list[int], ranges: list[tuple[int, int]]
    ) -> None:
        """Delete what has one of some ids, which are sorted, and are these runs."""
        if len(ranges) < FEW:
            self._connection.executemany(f"{delete} id BETWEEN ? AND ?", ranges)
        else:
            self._connection.execute(f"{delete} {IN_LIST}", (dumps(identities),))

    def _delete(self, number: int, identities: list[int], condition: str = "") -> None:
        """Delete those messages of some that meet a condition, and their copies."""
        values = (dumps(identities),)
        self._connection.execute(f"DELETE FROM message_{number} WHERE {IN_LIST}{condition}", values)
        self._connection.execute(
            f"DELETE FROM copy WHERE {IN_LIST} AND NOT EXISTS"
            f" (SELECT 1 FROM message_{number} m WHERE m.id = copy.id)",
            values,
        )

    # Upkeep

    def tidy(self) -> bool:
        """Forget, or give back, a little; return whether there is more to do."""
        if self._unheld:
            number = next(iter(self._unheld))
            self.in_one(partial(self._sweep, number, self._unheld[number]))
            if self._swept is None:
                del self._unheld[number]
            else:
                self._unheld[number] = self._swept
        elif self._gone:
            self.in_one(partial(self._sweep_gone, self._gone[0]))
            if self._swept is None:
                del self._gone[0]
        else:
            return self._vacuum()
        return True

    def _sweep(self, number: int, start: int) -> None:
        """Forget some messages that nobody holds, of those above an id."""
        writer = self._connection
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
        writer = self._connection
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
        [pages] = self._connection.execute("PRAGMA page_count").fetchone()
        if free <= max(SPARE, pages // 4):
            return False
        self._connection.executescript(f"PRAGMA incremental_vacuum({VACUUMED})")  # to its last step
        return self._free() < free  # a file that another program has rebuilt may give none back

    def _free(self) -> int:
        count: int = self._connection.execute("PRAGMA freelist_count").fetchone()[0]
        return count
