"""The tables of a store's file, and how a file of an earlier version becomes one of this.

The rule: a file says what it is (`application_id`) and which version wrote it (`user_version`), and
every step from one version to the next is a transaction.

The messages lie in partitions.  The first `OWN` topics have one each: there a commit writes one
page, since ids only grow.  All others share partition 0, where a second page is written, of the
index that finds a topic's messages; so it costs no more to have very many topics.

Next: store/paths.py
"""

import sqlite3
from collections.abc import Callable
from typing import Final

MARK: Final = 0x6E73716C
"""The `application_id` of a file of nsqlite: "nsql"."""

VERSION: Final = 4
"""The `user_version` of the tables below."""

SHARED: Final = 0
"""The partition of all topics that have none of their own."""

OWN: Final = 16
"""How many topics have a partition of their own, the numbers from 1 on."""

TABLES: Final = """
CREATE TABLE topic (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    partition INTEGER NOT NULL,
    paused INTEGER NOT NULL,
    handed INTEGER NOT NULL,
    held INTEGER NOT NULL,
    counted INTEGER NOT NULL,
    unheld INTEGER NOT NULL DEFAULT 0,
    gone INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX topic_name ON topic (name) WHERE NOT gone;
CREATE TABLE channel (
    number INTEGER PRIMARY KEY,
    topic INTEGER NOT NULL,
    name TEXT NOT NULL,
    paused INTEGER NOT NULL,
    since INTEGER NOT NULL,
    held INTEGER NOT NULL,
    gone INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX channel_name ON channel (topic, name) WHERE NOT gone;
CREATE TABLE copy (
    channel INTEGER NOT NULL,
    id INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    due INTEGER,
    gone INTEGER NOT NULL,
    PRIMARY KEY (channel, id)
) WITHOUT ROWID;
CREATE INDEX copy_due ON copy (channel, due) WHERE due IS NOT NULL;
CREATE TABLE highest (
    topic INTEGER NOT NULL,
    channel INTEGER NOT NULL,
    id INTEGER NOT NULL,
    now INTEGER NOT NULL DEFAULT 0,
    drift INTEGER NOT NULL DEFAULT 0
);
INSERT INTO highest VALUES (0, 0, 0, 0, 0)
"""
"""What every file has; `storage.py` tells what the columns mean.  `unheld`: messages that nobody
holds may be there.  `gone`: it was deleted, and what belongs to it is being forgotten.  `highest`:
the highest numbers and id that there ever were, since none is given again; the time when something
was requeued last, and how much the wall's time is ahead of that since it was set."""

MESSAGES: Final = """
CREATE TABLE IF NOT EXISTS messages_{0} (
    id INTEGER PRIMARY KEY,
    topic INTEGER NOT NULL,
    timestamp INTEGER NOT NULL,
    due INTEGER,
    only INTEGER,
    codec TEXT,
    crc INTEGER,
    data BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS apart_{0} ON messages_{0} (topic, due, id, only)
    WHERE due IS NOT NULL OR only IS NOT NULL
"""
"""A partition.  `crc`: see `statements.checksum`; NULL where none was made.  The index finds what
waits in the order in which it is due, and counts it without a look at the messages."""

FIND: Final = "CREATE INDEX of_topic ON messages_0 (topic)"
"""What finds the messages of a topic in the partition that many share."""


def create(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty file; inside a transaction."""
    _run(connection, TABLES)
    create_partition(connection, SHARED)
    connection.execute(FIND)
    connection.execute(f"PRAGMA application_id = {MARK}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def create_partition(connection: sqlite3.Connection, partition: int) -> None:
    """Make a partition if it is not there; inside a transaction."""
    _run(connection, MESSAGES.format(partition))


def _run(connection: sqlite3.Connection, script: str) -> None:
    for statement in script.split(";"):
        connection.execute(statement)


def upgrade(connection: sqlite3.Connection, version: int) -> None:
    """Make of a file of an earlier version one of this; inside a transaction."""
    for step in range(version, VERSION):
        STEPS[step](connection)
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _from_1(connection: sqlite3.Connection) -> None:
    """Move the messages, of which each topic had a table, into partitions.

    Nothing is counted, and topics that were deleted are left behind.
    """
    connection.execute("DROP INDEX topic_name")
    for table in ("topic", "channel", "copy", "highest"):
        connection.execute(f"ALTER TABLE {table} RENAME TO {table}_1")
    connection.execute("DROP INDEX copy_due")
    create(connection)
    connection.execute(
        "INSERT INTO channel (number, topic, name, paused, since, held)"
        " SELECT number, topic, name, paused, since, 0 FROM channel_1"
    )
    connection.execute(
        "UPDATE highest SET (topic, channel, id) = (SELECT topic, channel,"
        " max(id, (SELECT coalesce(max(last), 0) FROM topic_1)) FROM highest_1)"
    )
    there = connection.execute("SELECT number, gone FROM topic_1 ORDER BY number").fetchall()
    free = iter(range(1, OWN + 1))
    for number, gone in there:
        if not gone:
            _move_topic(connection, number, next(free, SHARED))
        connection.execute(f"DROP TABLE message_{number}")
    for table in ("topic", "channel", "copy", "highest"):
        connection.execute(f"DROP TABLE {table}_1")


def _move_topic(connection: sqlite3.Connection, number: int, partition: int) -> None:
    """Move a topic of version 1 with its messages, and what has become of them."""
    create_partition(connection, partition)
    connection.execute(
        "INSERT INTO topic (number, name, partition, paused, handed, held, counted, unheld)"
        " SELECT number, name, ?, paused, handed, 0, 0, unheld FROM topic_1 WHERE number = ?",
        (partition, number),
    )
    connection.execute(
        f"INSERT INTO messages_{partition} (id, topic, timestamp, due, only, codec, data)"
        f" SELECT id, {number}, timestamp, due, only, codec, data FROM message_{number}"
    )
    connection.execute(
        "INSERT INTO copy SELECT c.channel, c.id, c.attempts, c.due, c.gone"
        f" FROM message_{number} m CROSS JOIN copy_1 c ON c.id = m.id"
        " WHERE c.channel IN (SELECT number FROM channel WHERE topic = ?)",
        (number,),
    )


def _from_2(connection: sqlite3.Connection) -> None:
    """Add the time."""
    _add_to_highest(connection, "now")


def _add_to_highest(connection: sqlite3.Connection, column: str) -> None:
    """Add a column, unless an earlier step has made tables of this version."""
    columns = [row[1] for row in connection.execute("PRAGMA table_info(highest)")]
    if column not in columns:
        connection.execute(f"ALTER TABLE highest ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")


def _from_3(connection: sqlite3.Connection) -> None:
    """Have the index of what waits in the order in which it is due, and add the drift."""
    _add_to_highest(connection, "drift")
    query = "SELECT substr(name, 10) FROM sqlite_master WHERE type = 'table' AND name GLOB"
    for (partition,) in connection.execute(f"{query} 'messages_*'").fetchall():
        connection.execute(f"DROP INDEX apart_{partition}")
        create_partition(connection, partition)


STEPS: Final[dict[int, Callable[[sqlite3.Connection], None]]] = {
    1: _from_1,
    2: _from_2,
    3: _from_3,
}
"""By version, what makes of such a file one of the next version; inside a transaction."""
