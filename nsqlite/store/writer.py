"""What writes to a file: one connection, and what it knows of what is there.

The rule: it is used by one thread at a time; what it knows is what was committed last, and a batch
changes it when it is.

Next: store/wal.py
"""

import sqlite3
from collections.abc import Callable, Collection, Iterable
from functools import partial
from json import dumps
from typing import Any, Final, TypeVar

from nsqlite.errors import StoreError
from nsqlite.lock import ensure
from nsqlite.store.counts import count_rows
from nsqlite.store.known import Known, Messages, changed, known_as, messages
from nsqlite.store.schema import OWN, SHARED, create_partition
from nsqlite.store.statements import (
    COPIED,
    COPY_LIST,
    COUNT,
    DONE_LIST,
    EMPTY,
    LAST,
    NEXT,
    PLAIN,
    PUT,
    PUT_LATER,
    PUT_NOW,
    PUT_ONE,
    PUT_PLAIN,
    RAISE_HIGHEST,
    REFUSED,
    SET_DRIFT,
    UNHELD,
    UNHELD_LIST,
    WAITING,
    WRITE_CHANNEL,
    WRITE_TOPIC,
    Statements,
    checksum,
    grouped,
    is_intact,
    no_checksum,
    pieces,
    plain_values,
    read_channels,
    read_topics,
    runs,
    telling,
    unchecked_values,
)
from nsqlite.store.storage import GONE, Batch, Copy, Row, StoredChannel, StoredTopic

SWEPT: Final = 100
"""How many messages are looked at in one step of forgetting; fewer where each takes longer."""

EACH: Final = 500
"""So many bytes take as long to forget as a message."""

FEW: Final = 20
"""Fewer runs of ids than this are deleted run by run."""

SPARE: Final = 1000
"""How many free pages are kept for messages to come."""

RENEWED: Final = 100
"""After so many small commits the lock for reading is taken anew."""

VACUUMED: Final = 50
"""How many free pages are given back in one step."""

T = TypeVar("T")


class Writer:
    """The connection of a file that writes; what it does is told in `Storage`.

    Attributes:
        open_read: a cursor that is not at its end, and so keeps SQLite's lock for reading.
        topics: what is known of each topic, by its number.
        refused: why nothing can be written any more, None if it can.
        has_vacuumed: pages were given back, which shortens the file when the log is copied.
    """

    def __init__(
        self, where: str, connection: sqlite3.Connection, *, checksums: bool = True
    ) -> None:
        """Take a connection to a file that has its tables.

        Args:
            where: the file.
            connection: in autocommit mode.
            checksums: whether new messages get one.
        """
        self._where: Final = where
        self._connection: Final = connection
        self._checksum: Final = checksum if checksums else no_checksum
        self._values: Final = plain_values if checksums else unchecked_values
        self._unheld: dict[int, int] = {}  # topics to be swept, with the id from which on
        self._gone: dict[int, int] = {}  # deleted topics to be swept, with their partitions
        self._gone_channels: dict[int, None] = {}  # deleted channels to be swept
        self._free: Final = set(range(1, OWN + 1))  # partitions that no topic has
        self._quick: Final = connection.cursor()  # to make one each time costs 0.4 us
        self._commits = 0  # small ones, so far
        self.topics: Final[dict[int, Known]] = {}
        self.open_read: sqlite3.Cursor | None = None
        self.refused: StoreError | None = None
        self.has_vacuumed: bool = False

    # One transaction

    def in_one(self, write: Callable[[], T]) -> T:
        """Write in one transaction, whatever is thrown in between."""
        self._require_allowed()
        connection = self._connection
        self.end_read()
        try:
            connection.execute("BEGIN IMMEDIATE")
            result = write()
            connection.execute("COMMIT")
        except BaseException:
            ensure(self._roll_back)
            raise
        return result

    def _commit(self, write: Callable[[], object], learn: Callable[[], object]) -> None:
        """Write in one transaction, and know then what is there."""
        with telling(self._where):
            try:
                self.in_one(write)
                learn()
            except (StoreError, *REFUSED):
                raise
            except BaseException:  # a signal's, perhaps when all was committed
                ensure(self._read_topics)
                raise

    def _require_allowed(self) -> None:
        if self.refused is not None:
            raise self.refused

    def _begin_read(self) -> None:
        """Keep SQLite's lock for reading from one small commit to the next.

        To take and release it each time would be a quarter of the commit.  While it is held, the
        log cannot begin anew, nor what was written since be copied, and a commit fails if another
        program has written; so it is renewed from time to time, and whatever takes longer begins
        with `end_read`.
        """
        self.open_read = self._connection.cursor().execute("SELECT topic FROM highest")

    def end_read(self) -> None:
        """Release the lock for reading."""
        if self.open_read is not None:
            self.open_read.close()
            self.open_read = None

    def close_cursors(self) -> None:
        """Let go of what keeps the file open, though its connection is closed."""
        self.end_read()
        self._quick.close()

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    # Loading

    def load(self) -> tuple[list[StoredTopic], list[StoredChannel]]:
        """See `Storage`."""
        with telling(self._where):
            return self._read_topics()

    def _read_topics(self) -> tuple[list[StoredTopic], list[StoredChannel]]:
        execute = self._connection.execute
        topics, channels = read_topics(self._connection), read_channels(self._connection)
        places = execute("SELECT number, partition, unheld, gone FROM topic").fetchall()
        partitions = {number: partition for number, partition, _, _ in places}
        gone = execute("SELECT number FROM channel WHERE gone").fetchall()
        self._free.difference_update(partitions.values())
        self._unheld = {number: 0 for number, _, unheld, gone in places if unheld and not gone}
        self._gone = {number: partition for number, partition, _, gone in places if gone}
        self._gone_channels = {number: None for (number,) in gone}
        known = {one.number: known_as(one, partitions[one.number], {}) for one in topics}
        for channel in channels:
            known[channel.topic].channels[channel.number] = channel.since
        self.topics.update(known)
        for number in self.topics.keys() - known.keys():
            del self.topics[number]
        return topics, channels

    def highest(self) -> tuple[int, int, int]:
        """See `Storage`."""
        with telling(self._where):
            execute = self._connection.execute
            topic, channel, identity = execute("SELECT topic, channel, id FROM highest").fetchone()
            own = (known.partition for known in self.topics.values())
            partitions = {SHARED, *own, *self._gone.values()}
            lasts = [
                execute(f"SELECT max(id) FROM messages_{one}").fetchone() for one in partitions
            ]
        return topic, channel, max([identity, *(last or 0 for (last,) in lasts)])

    def last(self, topic: int) -> int:
        """See `Storage`."""
        known = self.topics.get(topic)
        if known is None:
            return 0
        with telling(self._where):
            [last] = self._connection.execute(LAST[known.partition], {"topic": topic}).fetchone()
        return last or 0

    def set_clock(self, now: int) -> None:
        """See `Storage`."""
        with telling(self._where):
            execute = self._connection.execute
            [drift] = execute("SELECT drift FROM highest").fetchone()
            if drift:
                self.in_one(partial(self._correct, drift))
            [before] = execute("SELECT now FROM highest").fetchone()
            later = self._find_later(now)
            if now < before or later:
                self.in_one(partial(self._set_back, before, now, later))

    def _correct(self, drift: int) -> None:
        """Have all that waits do so until so much later."""
        execute = self._connection.execute
        self._shift_copies(drift)
        execute("UPDATE highest SET now = now + ?", (drift,))
        execute(SET_DRIFT, (0,))
        for partition in self._partitions():
            rows = execute(WAITING[partition]).fetchall()
            self._change_dues(partition, rows, lambda timestamp, due: (timestamp, due + drift))

    def _shift_copies(self, span: int) -> None:
        """Have what was requeued wait so much longer."""
        statement = "UPDATE copy SET due = due + ? WHERE due IS NOT NULL"
        self._connection.execute(statement, (span,))

    def _change_dues(
        self, partition: int, rows: Iterable[Any], change: Callable[[int, int], tuple[int, int]]
    ) -> None:
        """Write other timestamps and dues of messages, but of those that are damaged."""
        changed = []
        for *row, topic in rows:
            if is_intact(topic, tuple(row)):
                identity, timestamp, due, only, codec, data, crc = row
                new = identity, *change(timestamp, due), only, codec, data
                kept = None if crc is None else checksum(topic, new)
                changed.append((new[1], new[2], kept, identity))
        self._many(PUT_NOW[partition], changed)

    def _partitions(self) -> set[int]:
        """Return the partitions that topics have."""
        return {SHARED, *(known.partition for known in self.topics.values())}

    def _find_later(self, now: int) -> list[int]:
        """Return the partitions in which something waits that was put later than now."""
        return [
            partition
            for partition in self._partitions()
            if self._connection.execute(PUT_LATER[partition], (now,)).fetchone() is not None
        ]

    def _set_back(self, before: int, now: int, partitions: list[int]) -> None:
        execute = self._connection.execute
        if now < before:
            self._shift_copies(now - before)
            execute("UPDATE highest SET now = ?", (now,))
        for partition in partitions:
            rows = execute(PUT_LATER[partition], (now,)).fetchall()
            self._change_dues(partition, rows, lambda timestamp, due: (now, now + due - timestamp))

    # Counting

    def count(self, topic: int) -> tuple[int, dict[int, int]]:
        """See `Storage`."""
        known = self.topics.get(topic)
        if known is None:
            return 0, {}
        with telling(self._where):
            if not known.counted:
                return count_rows(self._connection, topic, known)
            execute = self._connection.execute
            [held] = execute("SELECT held FROM topic WHERE number = ?", (topic,)).fetchone()
            query = "SELECT number, held FROM channel WHERE topic = ? AND NOT gone"
            return held, dict(execute(query, (topic,)))

    # Writing of one topic

    def write_row(self, number: int, row: Row) -> None:
        """See `Storage`."""
        identity, timestamp, _, _, _, data = row
        try:
            crc = self._checksum(number, row)
            if row[2:5] == PLAIN:
                values = (identity, timestamp, data, number, crc)
                done = self._quickly(number, PUT_ONE, values)
            else:
                done = self._quickly(number, PUT, (*row, number, crc))
        except REFUSED:  # the slow way does without the open read, and tells why
            done = False
        if not done:
            self._put_slowly(number, [row])

    def write_rows(self, number: int, rows: list[Row]) -> None:
        """See `Storage`."""
        done = False
        if len(rows) in PUT_PLAIN and _are_plain(rows):
            try:
                done = self._quickly(number, PUT_PLAIN[len(rows)], self._values(number, rows))
            except REFUSED:  # the same
                done = False
        if not done:
            self._put_slowly(number, rows)

    def _quickly(self, number: int, statements: Statements, values: tuple[object, ...]) -> bool:
        """Make one statement a commit, if it can be one; else nothing has changed."""
        known = self.topics.get(number)
        if known is None or known.counted or self.refused is not None:
            return False
        if self._commits % RENEWED == 0 or self.open_read is None:
            self.end_read()
            self._begin_read()
        self._commits += 1
        self._quick.execute(statements[known.partition], values)
        return True

    def _put_slowly(self, number: int, rows: list[Row]) -> None:
        self._change(number, lambda known: self._put(number, known.partition, rows))

    def _change(self, number: int, write: Callable[[Known], object]) -> None:
        """Write something of a topic, which is then not counted, in one transaction."""
        known = self._require(number)
        learned = {number: known.uncounted()}
        self._commit(
            partial(self._write_uncounted, number, partial(write, known)),
            partial(self.topics.update, learned),
        )

    def _write_uncounted(self, number: int, write: Callable[[], object]) -> None:
        self._uncount(number)
        write()

    def _require(self, number: int) -> Known:
        """Return what is known of a topic."""
        if number not in self.topics:
            raise self._no_topic(number)
        return self.topics[number]

    def _no_topic(self, number: int) -> StoreError:
        return StoreError(self._where, f"it has no topic {number}")

    def _uncount(self, number: int) -> None:
        if self.topics[number].counted:
            self._connection.execute("UPDATE topic SET counted = 0 WHERE number = ?", (number,))

    def _put(self, number: int, partition: int, rows: list[Row]) -> None:
        rows = list(rows)
        execute = self._connection.execute
        if _are_plain(rows):
            for some in pieces(rows):
                execute(PUT_PLAIN[len(some)][partition], self._values(number, some))
        else:
            values = [(*row, number, self._checksum(number, row)) for row in rows]
            self._connection.executemany(PUT[partition], values)

    def write_attempts(self, number: int, channel: int, copies: list[tuple[int, int]]) -> None:
        """See `Storage`."""
        if number not in self.topics or channel not in self.topics[number].channels:
            return  # all that it held has gone
        done = False
        if len(copies) == 1:
            [(identity, attempts)] = copies
            try:
                done = self._quickly(number, COUNT, (channel, attempts, identity))
            except REFUSED:  # the same
                done = False
        if not done:
            noted: dict[int, Copy] = {identity: (attempts, None) for identity, attempts in copies}
            self._change(number, lambda known: self._keep_copies(known.partition, channel, noted))

    # Writing a batch

    def write(self, batch: Batch) -> None:
        """See `Storage`."""
        try:
            changes = changed(batch, self.topics, self._free)
        except KeyError as error:
            raise self._no_topic(error.args[0]) from None
        self._commit(partial(self._write, batch, changes), partial(self._learn, batch, changes))

    def _learn(self, batch: Batch, changes: dict[int, Known]) -> None:
        """Know what is there after a batch."""
        self.topics.update(changes)
        self._free.difference_update(known.partition for known in changes.values())
        self._unheld.update(dict.fromkeys(_unheld(batch, changes), 0))
        self._gone_channels.update(dict.fromkeys(batch.gone_channels))
        for number in batch.gone_topics:
            self._unheld.pop(number, None)
            known = self.topics.pop(number, None)
            if known is not None:  # else it was gone before
                self._gone[number] = known.partition
                self._gone_channels.update(dict.fromkeys(known.channels))

    def _write(self, batch: Batch, changes: dict[int, Known]) -> None:
        self._write_gone(batch)
        self._write_topics(batch, changes)
        self._write_channels(batch, changes)
        for number, told in messages(batch, changes).items():
            self._write_messages(number, changes[number], told)

    def _write_messages(self, number: int, known: Known, told: Messages) -> None:
        """Write new messages and what has become of old ones; what is finished is deleted."""
        self._put(number, known.partition, told.rows)
        for after, upto in told.emptied:
            self._empty(number, known, after, upto)
        for channel in told.copies.keys() - {None}:
            self._write_copies(known, channel, told)
        self._delete(number, known.partition, told.finished)
        self._delete_unheld(number, known, set().union(*told.gone.values()) - told.finished)

    def _write_gone(self, batch: Batch) -> None:
        topics = [(number,) for number in batch.gone_topics]
        self._many("UPDATE topic SET gone = 1 WHERE number = ?", topics)
        self._many("UPDATE channel SET gone = 1 WHERE topic = ?", topics)
        channels = [(number,) for number in batch.gone_channels]
        self._many("UPDATE channel SET gone = 1 WHERE number = ?", channels)

    def _write_topics(self, batch: Batch, changes: dict[int, Known]) -> None:
        for number in [one for one in changes if one not in self.topics]:
            create_partition(self._connection, changes[number].partition)
        values = [
            (number, changes[number].partition, *_told(topic))
            for number, topic in batch.topics.items()
            if number in changes
        ]
        self._many(WRITE_TOPIC, values)
        for number in changes.keys() - batch.topics.keys():
            self._uncount(number)
        unheld = [(number,) for number in _unheld(batch, changes)]
        self._many("UPDATE topic SET unheld = 1 WHERE number = ?", unheld)

    def _write_channels(self, batch: Batch, changes: dict[int, Known]) -> None:
        """Write the channels, and the highest numbers."""
        values = [
            (number, one.topic, one.name, one.paused, one.since, one.held)
            for number, one in batch.channels.items()
            if one.topic in changes and number not in batch.gone_channels
        ]
        self._many(WRITE_CHANNEL, values)
        topic, channel = max(batch.topics, default=0), max(batch.channels, default=0)
        if topic or channel or batch.highest or batch.now:
            highest = {"topic": topic, "channel": channel, "id": batch.highest, "now": batch.now}
            self._connection.execute(RAISE_HIGHEST, highest)
        if batch.drift is not None:
            self._connection.execute(SET_DRIFT, (batch.drift,))

    def _many(self, statement: str, values: Collection[tuple[object, ...]]) -> None:
        if values:
            self._connection.executemany(statement, values)

    def _empty(self, number: int, known: Known, after: int, upto: int) -> None:
        """Delete what a topic held, unless it is found by whoever sweeps: no channel gets it."""
        if known.channels or known.handed < upto:
            values = {"topic": number, "after": after, "upto": upto}
            self._connection.execute(EMPTY[known.partition], values)

    def _write_copies(self, known: Known, channel: int | None, told: Messages) -> None:
        """Write what has become of messages in a channel, but for those that nobody holds."""
        copies, gone, finished = told.copies[channel], told.gone[channel], told.finished
        if len(gone) < len(copies):
            kept = copies.keys() - gone - finished
            self._keep_copies(known.partition, channel, {one: copies[one] for one in kept})
        if not finished.issuperset(gone):
            values = {"channel": channel, "ids": dumps(list(gone - finished))}
            self._connection.execute(DONE_LIST[known.partition], values)

    def _keep_copies(self, partition: int, channel: int | None, copies: dict[int, Copy]) -> None:
        """Write copies that are not gone."""
        for copy, identities in grouped(copies.items()):
            assert copy is not GONE
            attempts, due = copy
            values = {"channel": channel, "attempts": attempts, "due": due}
            self._connection.execute(COPY_LIST[partition], {**values, "ids": dumps(identities)})

    def _delete_unheld(self, number: int, known: Known, identities: set[int]) -> None:
        """Delete those messages that nobody holds, of some that somebody has done with."""
        if identities:
            values = {"topic": number, "upto": known.upto, "ids": dumps(list(identities))}
            unheld = self._connection.execute(UNHELD_LIST[known.partition], values).fetchall()
            self._delete(number, known.partition, [identity for (identity,) in unheld])

    def _delete(self, number: int, partition: int, identities: Collection[int]) -> None:
        """Delete messages, and what has become of them in channels; many are often not there."""
        if not identities:
            return
        execute = self._connection.execute
        span = {"topic": number, "first": min(identities), "last": max(identities)}
        there = f"SELECT 1 FROM messages_{partition} WHERE id BETWEEN :first AND :last LIMIT 1"
        if execute(there, span).fetchone():
            self._delete_from(f"messages_{partition} WHERE", identities)
        for (channel,) in execute(COPIED, span).fetchall():
            self._delete_from("copy WHERE channel = ? AND", identities, channel)

    def _delete_from(self, what: str, identities: Collection[int], *channel: int) -> None:
        """Delete what has one of some ids."""
        ordered = sorted(identities)
        ranges = runs(ordered)
        if len(ranges) < FEW:
            values = [(*channel, first, last) for first, last in ranges]
            self._connection.executemany(f"DELETE FROM {what} id BETWEEN ? AND ?", values)
        else:
            listed = f"DELETE FROM {what} id IN (SELECT value FROM json_each(?))"
            self._connection.execute(listed, (*channel, dumps(ordered)))

    # Upkeep

    def tidy(self) -> bool:
        """Forget, or give back, a little; return whether there is more to do."""
        self._require_allowed()
        if self._unheld:
            number, after = next(iter(self._unheld.items()))
            last = self.in_one(partial(self._sweep_unheld, number, after))
            if last is None:
                del self._unheld[number]
            else:
                self._unheld[number] = last
        elif self._gone:
            number, partition = next(iter(self._gone.items()))
            if self.in_one(partial(self._sweep_topic, number, partition)):
                del self._gone[number]
                self._free.update({partition} - {SHARED})
        elif self._gone_channels:
            number = next(iter(self._gone_channels))
            if self.in_one(partial(self._sweep_channel, number)):
                del self._gone_channels[number]
        else:
            return self._vacuum()
        return True

    def _next(self, number: int, partition: int, after: int, limit: int) -> list[int]:
        """Return the ids of the next messages of a topic, so many as can be forgotten in a step."""
        values = {"topic": number, "after": after, "limit": limit}
        identities = []
        for identity, size in self._connection.execute(NEXT[partition], values).fetchall():
            identities.append(identity)
            limit -= 1 + size // EACH
            if limit <= 0:
                break
        return identities

    def _sweep_unheld(self, number: int, after: int) -> int | None:
        """Forget some messages that nobody holds, of those above an id.

        Returns:
            How far it came; None if it came to the end.
        """
        known = self.topics[number]
        limit = SWEPT // (1 + len(known.channels)) + 1  # each of which is asked for each message
        identities = self._next(number, known.partition, after, limit)
        if not identities:
            self._connection.execute("UPDATE topic SET unheld = 0 WHERE number = ?", (number,))
            return None
        last = identities[-1]
        values = {"topic": number, "after": after, "last": last, "upto": known.upto}
        unheld = self._connection.execute(UNHELD[known.partition], values).fetchall()
        self._delete(number, known.partition, [identity for (identity,) in unheld])
        return last

    def _sweep_topic(self, number: int, partition: int) -> bool:
        """Forget some messages of a topic that was deleted, or at last the topic; then say so."""
        identities = self._next(number, partition, 0, SWEPT)
        self._delete(number, partition, identities)
        if not identities:
            self._connection.execute("DELETE FROM topic WHERE number = ?", (number,))
        return not identities

    def _sweep_channel(self, number: int) -> bool:
        """Forget some copies of a channel that was deleted, or at last it; then say so."""
        deleted = self._connection.execute(
            "DELETE FROM copy WHERE channel = :channel AND id <= (SELECT max(id) FROM"
            " (SELECT id FROM copy WHERE channel = :channel ORDER BY id LIMIT :limit))",
            {"channel": number, "limit": SWEPT},
        )
        if not deleted.rowcount:
            self._connection.execute("DELETE FROM channel WHERE number = ?", (number,))
        return not deleted.rowcount

    def _vacuum(self) -> bool:
        """Give some of the free pages back if they are many."""
        free = self._free_pages()
        [pages] = self._connection.execute("PRAGMA page_count").fetchone()
        if free <= max(SPARE, pages // 4):
            return False
        self._connection.executescript(f"PRAGMA incremental_vacuum({VACUUMED})")  # to its last step
        self.has_vacuumed = True
        return self._free_pages() < free  # a file that others have rebuilt may give none back

    def _free_pages(self) -> int:
        count: int = self._connection.execute("PRAGMA freelist_count").fetchone()[0]
        return count


def _unheld(batch: Batch, changes: dict[int, Known]) -> set[int]:
    """Return the topics in which there may be messages, after a batch, that nobody holds."""
    return changes.keys() & {*batch.unheld, *(number for number, _, _ in batch.emptied)}


def _told(topic: StoredTopic) -> tuple[object, ...]:
    """Return what is written of a topic besides its number and partition."""
    return topic.name, topic.paused, topic.handed, topic.held, topic.counted


def _are_plain(rows: list[Row]) -> bool:
    return {row[2:5] for row in rows} <= {PLAIN}
