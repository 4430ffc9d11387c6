"""`python -m nsqlite inspect --check`: what in a store's file is damaged, as far as one can tell.

The rule: every page and every message is read, and nothing is repaired.  Messages are read in short
readings; SQLite's own check is a long one, during which the write-ahead log of a file in use grows.

What cannot be told: whether a message without a checksum is what was put, and whether a flag or a
number of a topic or channel, or how often something was delivered, has become another one.

Next: cli/operate.py
"""

from collections.abc import Iterator
from typing import Any, Final

from nsqlite.cli.snapshot import Reader, reading
from nsqlite.store.statements import MESSAGE, is_intact
from nsqlite.store.storage import name_of

PAGE: Final = 1000
"""How many messages are read at a time."""

MOST: Final = 100
"""How many problems SQLite tells of a file."""

_PARTITIONS: Final = (
    "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'messages_*'"
)

_MESSAGES: Final = f"SELECT {MESSAGE}, topic FROM {{}} WHERE id > ? ORDER BY id LIMIT ?"

_LOST: Final = {
    "SELECT number, name, topic FROM channel WHERE topic NOT IN (SELECT number FROM topic)": (
        "channel {1!r} belongs to topic {2}, which is not there"
    ),
    "SELECT number, name, partition FROM topic WHERE 'messages_' || partition NOT IN"
    f" ({_PARTITIONS})": "topic {1!r} has its messages in table {2}, which is not there",
}
"""What is found by a query, and what that means."""


class Check(Reader):
    """A file that is being checked.

    Attributes:
        messages: how many were read so far.
        unknown: how many of these have no checksum.
    """

    def __init__(self, path: str) -> None:
        """Open a file.

        Raises:
            StoreError: it cannot be opened.
        """
        super().__init__(path)
        self.messages: int = 0
        self.unknown: int = 0

    def problems(self) -> Iterator[str]:
        """Yield what is damaged, a line each.

        Raises:
            StoreError: it is damaged so much that it cannot be read any further.
        """
        with reading(self._path):
            yield from self._of_pages()
            for query, text in _LOST.items():
                for row in self._connection.execute(query).fetchall():
                    yield text.format(*row)
            names: dict[Any, Any] = dict(self._connection.execute("SELECT number, name FROM topic"))
            for (partition,) in self._connection.execute(_PARTITIONS).fetchall():
                yield from self._of_messages(partition, names)

    def _of_pages(self) -> Iterator[str]:
        """Yield what SQLite finds in tables and indexes."""
        for (text,) in self._connection.execute(f"PRAGMA integrity_check({MOST})").fetchall():
            if text != "ok":
                yield f"SQLite: {' '.join(text.split())}"

    def _of_messages(self, partition: str, names: dict[Any, Any]) -> Iterator[str]:
        """Yield what is wrong with the messages of a table."""
        after = -1 << 63
        query = _MESSAGES.format(partition)
        while rows := self._connection.execute(query, (after, PAGE)).fetchall():
            after = rows[-1][0]
            self.messages += len(rows)
            for row in rows:
                topic = row[7]
                self.unknown += row[6] is None
                if topic not in names:
                    yield f"message {_shown(row[0])} belongs to topic {topic!r}, which is not there"
                elif not is_intact(topic, row[:7]):
                    yield f"message {_shown(row[0])} of topic {names[topic]!r} is not what was put"


def _shown(identity: int) -> str:
    """Return an id, as it is shown elsewhere, or a number that can be none."""
    return name_of(identity) if identity >= 0 else str(identity)
