"""What a file has already, for whoever adds to it.

The rule: no id is in two topics of a file.

Next: cli/load.py
"""

import json
from types import TracebackType
from typing import Final, Self

from nsqlite.cli.snapshot import connect
from nsqlite.store.statements import telling

COMMON: Final = "SELECT id FROM message_{0} WHERE id IN (SELECT value FROM json_each(?)) LIMIT 1"


class Taken:
    """The topics and ids of a file; a context manager.

    Every method raises `StoreError` where the file cannot be read.
    """

    def __init__(self, path: str) -> None:
        """Look at a file that is open elsewhere."""
        self._path: Final = path
        self._connection: Final = connect(path)

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the file."""
        self._connection.close()

    def _number(self, query: str) -> int:
        with telling(self._path):
            [number] = self._connection.execute(query).fetchone()
        return number or 0

    def topics_from(self, first: int) -> list[int]:
        """Return the numbers of the topics from a number on."""
        query = "SELECT number FROM topic WHERE number >= ? AND NOT gone ORDER BY number"
        with telling(self._path):
            return [number for (number,) in self._connection.execute(query, (first,))]

    def has_gone_topics(self) -> bool:
        """Return whether there are topics that were deleted and are not forgotten yet."""
        return self._number("SELECT count(*) FROM topic WHERE gone") > 0

    def find_common(self, topic: int, ids: list[int]) -> int | None:
        """Return one of these ids that a topic's messages have, None if they have none of them."""
        with telling(self._path):
            row = self._connection.execute(COMMON.format(topic), (json.dumps(ids),)).fetchone()
        return None if row is None else int(row[0])

    def span(self, topic: int) -> tuple[int, int]:
        """Return the lowest and the highest id of a topic's messages; 0 and 0 if it has none."""
        lowest = f"SELECT min(id) FROM message_{int(topic)}"  # noqa: S608 - a number names the table
        highest = f"SELECT max(id) FROM message_{int(topic)}"  # noqa: S608 - the same
        return self._number(lowest), self._number(highest)
