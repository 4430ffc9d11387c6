"""What a file has already, for whoever adds to it.

The rule: no id is in a file twice, in whatever topics.

Next: cli/merge.py
"""

import json
from typing import Final

from nsqlite.cli.snapshot import Reader
from nsqlite.store.statements import telling

PARTITIONS: Final = "SELECT DISTINCT partition FROM topic"

COMMON: Final = "SELECT id FROM messages_{0} WHERE id IN (SELECT value FROM json_each(?)) LIMIT 1"


class Taken(Reader):
    """The deleted topics and the ids of a file, which is open elsewhere.

    Every method raises `StoreError` where the file cannot be read.
    """

    def has_gone_topics(self) -> bool:
        """Return whether there are topics that were deleted and are not forgotten yet."""
        with telling(self._path):
            query = "SELECT 1 FROM topic WHERE gone LIMIT 1"
            return self._connection.execute(query).fetchone() is not None

    def find_common(self, ids: list[int]) -> int | None:
        """Return one of these ids that a message has, None if there is none."""
        with telling(self._path):
            return self._find_common((json.dumps(ids),))

    def _find_common(self, listed: tuple[str]) -> int | None:
        for (partition,) in self._connection.execute(PARTITIONS).fetchall():
            row = self._connection.execute(COMMON.format(partition), listed).fetchone()
            if row is not None:
                return int(row[0])
        return None
