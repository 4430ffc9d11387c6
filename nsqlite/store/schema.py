"""The tables of a store's file, and how a file of an earlier version becomes one of this.

The rule: a file says what it is (`application_id`) and which version wrote it (`user_version`), and
every step from one version to the next is a transaction.

Next: store/owner.py
"""

import sqlite3
from collections.abc import Callable
from typing import Final

MARK: Final = 0x6E73716C
"""The `application_id` of a file of nsqlite: "nsql"."""

VERSION: Final = 1
"""The `user_version` of the tables below."""

TABLES: Final = """
CREATE TABLE topic (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    paused INTEGER NOT NULL,
    handed INTEGER NOT NULL,
    last INTEGER NOT NULL,
    held INTEGER NOT NULL,
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
    UNIQUE (topic, name)
);
CREATE TABLE copy (
    id INTEGER NOT NULL,
    channel INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    due INTEGER,
    gone INTEGER NOT NULL,
    PRIMARY KEY (id, channel)
) WITHOUT ROWID;
CREATE TABLE highest (
    topic INTEGER NOT NULL,
    channel INTEGER NOT NULL,
    id INTEGER NOT NULL
);
INSERT INTO highest VALUES (0, 0, 0);
CREATE INDEX copy_due ON copy (channel, due) WHERE due IS NOT NULL
"""
"""What every file has; `store.py` tells what the columns mean.  `unheld`: messages that nobody
holds may be there.  `gone`, of a topic: it was deleted, its messages are being forgotten.
`highest`: the highest numbers of topics and channels that there ever were, and of the messages of
topics that are no more, since none is ever given again."""

MESSAGES: Final = """
CREATE TABLE message_{0} (
    id INTEGER PRIMARY KEY,
    timestamp INTEGER NOT NULL,
    due INTEGER,
    only INTEGER,
    codec TEXT,
    data BLOB NOT NULL
);
CREATE INDEX message_{0}_apart ON message_{0} (id) WHERE due IS NOT NULL OR only IS NOT NULL
"""
"""What every topic has, by its number."""

STEPS: Final[dict[int, Callable[[sqlite3.Connection], None]]] = {}
"""By version, what makes of such a file one of the next version; inside a transaction."""


def create(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty file; inside a transaction."""
    for statement in TABLES.split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {MARK}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def create_topic(connection: sqlite3.Connection, number: int) -> None:
    """Make a topic's table; inside a transaction."""
    for statement in MESSAGES.format(number).split(";"):
        connection.execute(statement)


def upgrade(connection: sqlite3.Connection, version: int) -> None:
    """Make of a file of an earlier version one of this; inside a transaction."""
    for step in range(version, VERSION):
        STEPS[step](connection)
    connection.execute(f"PRAGMA user_version = {VERSION}")
