"""How a file takes over all that is in another one.

The rule: it is one transaction, so SQLite itself sees to it that all is there or nothing, for
whoever reads the file meanwhile and for whoever finds it after a kill.

Next: cli/load.py
"""

import sqlite3
from contextlib import closing
from typing import Final

from nsqlite.store.schema import OWN, SHARED, create_partition
from nsqlite.store.statements import Statements, telling

TOPIC: Final = (
    "INSERT INTO main.topic"
    " (number, name, partition, paused, handed, held, counted, unheld, gone)"
    " SELECT number, name, :place, paused, handed, 0, 0, unheld, gone FROM new.topic"
    " WHERE number = :topic"
)

MESSAGES: Final = Statements(
    "INSERT INTO main.messages_{{0}} (id, topic, timestamp, due, only, codec, crc, data)"
    " SELECT m.id, m.topic, m.timestamp, m.due, m.only, m.codec, m.crc, m.data"
    " FROM new.messages_{0} m WHERE {mine} true ORDER BY m.id"
)

REST: Final = (
    (
        "INSERT INTO main.channel (number, topic, name, paused, since, held, gone)"
        " SELECT number, topic, name, paused, since, 0, gone FROM new.channel"
    ),
    (
        "INSERT INTO main.copy (channel, id, attempts, due, gone)"
        " SELECT channel, id, attempts, due, gone FROM new.copy"
    ),
    (
        "UPDATE main.highest SET"
        " topic = max(topic, (SELECT n.topic FROM new.highest n)),"
        " channel = max(channel, (SELECT n.channel FROM new.highest n)),"
        " id = max(id, (SELECT n.id FROM new.highest n))"
    ),
)
"""What is taken over besides topics with their messages."""


def merge(path: str, new: str) -> None:
    """Take over all of a file in one transaction, which is on the disk when this returns.

    A topic gets a partition that nobody has, or shares one.  What it holds is not counted.  The
    write-ahead log grows by what is taken over.

    Args:
        path: the file that takes it; of this version.
        new: the other one, of this version and closed.  None of its topics and channels has the
            number of one in `path`, none of its topics the name, none of its messages the id.

    Raises:
        StoreError: it cannot be written; nothing has changed.
    """
    with telling(path), closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("ATTACH ? AS new", (new,))
        connection.execute("BEGIN IMMEDIATE")
        taken = {place for (place,) in connection.execute("SELECT partition FROM main.topic")}
        free = iter(sorted({*range(1, OWN + 1)} - taken))
        topics = connection.execute("SELECT number, partition FROM new.topic ORDER BY number")
        for topic, partition in topics.fetchall():
            _take_topic(connection, topic, partition, next(free, SHARED))
        for statement in REST:
            connection.execute(statement)
        connection.execute("COMMIT")


def _take_topic(connection: sqlite3.Connection, topic: int, partition: int, place: int) -> None:
    """Take over a topic and its messages, from one partition into another one."""
    create_partition(connection, place)
    connection.execute(TOPIC, {"topic": topic, "place": place})
    connection.execute(MESSAGES[partition].format(place), {"topic": topic})
