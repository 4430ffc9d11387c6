"""The messages of a file page by page, for who takes long over them.

The rule: no transaction is open while anybody does anything with what was read, so however long
that takes, the owner's write-ahead log can begin anew.

Topics, channels and the highest ids are those of one moment.  The messages are those which were
there in that moment and are there still when their page is read: what was put later is left out,
and what was finished before its page was read is missing.  What moves to another topic meanwhile is
both: it may be missing in the one and is left out in the other.  A topic or channel that is deleted
meanwhile holds nothing from then on.

A page ends at so many rows and bytes, so memory is bounded.

Next: cli/story.py
"""

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any, Final, TypeAlias

import attrs

from nsqlite.cli.lines import Held, MessageLine
from nsqlite.cli.snapshot import Reader, Snapshot, TopicThen, reading
from nsqlite.errors import shown
from nsqlite.store.codec import damaged
from nsqlite.store.statements import Statements, is_intact

PAGE: Final = 1 << 20
"""Bytes of a page."""

ROW: Final = 1 << 10
"""As how many bytes a message counts besides those of its body, and again for each channel."""

IS_THERE: Final = "SELECT count(*) FROM topic WHERE number = ? AND NOT gone"

FOUND: Final = Statements(
    "SELECT m.id, m.timestamp, m.due, m.only, m.codec, m.data, m.crc FROM messages_{0} m"
    " WHERE {mine} m.id > :after AND m.id <= :last ORDER BY m.id"
)
"""The messages of a topic after and up to an id."""

COPIES: Final = (
    "SELECT h.number, c.id, c.attempts, c.due, c.gone FROM channel h"
    " LEFT JOIN copy c ON c.channel = h.number AND c.id BETWEEN ? AND ?"
    " WHERE h.topic = ? AND NOT h.gone"
)
"""What has become of them in the channels that are there: a row for each copy, or one if there is
none."""

Copies: TypeAlias = dict[int, dict[int, tuple[int, int | None, int]]]
"""Attempts, due and whether it is gone, by the number of a channel that is there, and by id."""


@attrs.frozen(eq=False)
class Stored:
    """A message as it is in the file.

    Attributes:
        id: its id.
        timestamp: when it was put, in nanoseconds since the epoch.
        due: until when it waits in all that hold it.
        only: the number of the only channel that it is meant for.
        codec: the name of what made its bytes; see `damaged`.
        data: its bytes.
    """

    id: int
    timestamp: int
    due: int | None
    only: int | None
    codec: str | None
    data: bytes


class Pages(Reader):
    """A file that is read page by page.

    Every method raises `StoreError` where the file cannot be read.

    Attributes:
        topics: topics by name, with their channels by name; their counts are exact.
    """

    def __init__(self, path: str) -> None:
        """Open a file, and see its topics as they are now.

        Raises:
            StoreError: see `connect`.
        """
        with Snapshot(path) as snapshot:
            self.topics: Final = snapshot.topics
            self._lasts: Final = {
                topic.stored.number: snapshot.last(topic) for topic in self.topics
            }
        super().__init__(path)

    def messages(self, topic: TopicThen) -> Iterator[MessageLine]:
        """Go through the messages of a topic that somebody holds, in the order of their ids."""
        after = 0
        while True:
            page, copies = self._read(topic, after)
            if not page:
                return
            after = page[-1].id
            for message in page:
                with reading(self._path):
                    line = _line(topic, message, copies)
                if line is not None:
                    yield line

    def _read(self, topic: TopicThen, after: int) -> tuple[list[Stored], Copies]:
        """Return the next messages of a topic, in a transaction of its own; none at the end."""
        number = topic.stored.number
        with reading(self._path):
            self._connection.execute("BEGIN")
            try:
                if self._connection.execute(IS_THERE, (number,)).fetchone() == (0,):
                    return [], {}  # it was deleted, and what it had with it
                page = self._page(topic, after)
                return page, self._copies(number, page) if page else {}
            finally:
                self._connection.rollback()

    def _page(self, topic: TopicThen, after: int) -> list[Stored]:
        """Read messages until there are enough for a page."""
        number = topic.stored.number
        values = {"topic": number, "after": after, "last": self._lasts[number]}
        with closing(self._connection.execute(FOUND[topic.known.partition], values)) as rows:
            return _page(number, rows, ROW * (1 + len(topic.channels)))

    def _copies(self, topic: int, page: list[Stored]) -> Copies:
        """Read what has become of the messages of a page."""
        copies: Copies = {}
        values = page[0].id, page[-1].id, topic
        for number, identity, *copy in self._connection.execute(COPIES, values):
            copies.setdefault(number, {})[identity] = tuple(copy)
        return copies


def _page(topic: int, rows: Iterable[Any], each: int) -> list[Stored]:
    """Take rows until there are enough for a page; each counts as so many bytes, and its body."""
    page: list[Stored] = []
    size = 0
    for row in rows:
        identity, timestamp, due, only, codec, data, _ = row
        if not is_intact(topic, row):
            codec = damaged(codec)
        page.append(Stored(identity, timestamp, due, only, codec, data))
        size += each + len(data)
        if size >= PAGE:
            break
    return page


def _line(topic: TopicThen, message: Stored, copies: Copies) -> MessageLine | None:
    """Return the line of a message; None if nobody holds it."""
    if not isinstance(message.data, bytes):
        raise TypeError(f"body {shown(message.data)}")
    is_topics = message.only is None and message.id > topic.known.upto
    held = () if is_topics else tuple(_held(topic, message, copies))
    if not is_topics and not held:
        return None
    return MessageLine(
        topic=topic.stored.name,
        id=message.id,
        timestamp=message.timestamp,
        data=message.data,
        codec=message.codec,
        channels=held or None,
        due=message.due if is_topics else None,
    )


def _held(topic: TopicThen, message: Stored, copies: Copies) -> Iterator[Held]:
    """Go through the channels that hold a message, but for those that were deleted meanwhile."""
    for channel in topic.channels:
        if channel.number in copies and message.id > channel.since:
            found = copies[channel.number].get(message.id, (0, None, 0))
            attempts, due, gone = found
            if not gone and message.only in (None, channel.number):
                yield Held(channel.name, attempts, message.due if due is None else due)
