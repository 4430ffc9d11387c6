"""How many messages the topics and channels of a file hold, counted from the rows.

The rule: what is counted is what `read` and `read_apart` would return.

Next: store/writer.py
"""

import sqlite3
from functools import partial
from itertools import pairwise

from nsqlite.store.known import Known
from nsqlite.store.schema import SHARED
from nsqlite.store.statements import ALONE, GONE_COPIES, HAS_APART, SIZE
from nsqlite.store.storage import HIGHEST


def count_rows(
    connection: sqlite3.Connection, topic: int, known: Known
) -> tuple[int, dict[int, int]]:
    """Return how many messages a topic itself holds, and each of its channels, by number.

    Complexity: one look at each message of the topic, and at each copy.
    """
    execute = connection.execute
    common = partial(_count_common, connection, topic, known)
    edges = sorted({since for since in known.channels.values() if since < known.upto})
    between = {after: common(after, upto) for after, upto in pairwise([*edges, known.upto])}
    alone = dict(execute(ALONE[known.partition], {"topic": topic}))
    held = {}
    for number, since in known.channels.items():
        values = {"channel": number, "since": since, "upto": known.upto}
        [gone] = execute(GONE_COPIES[known.partition], values).fetchone()
        all_common = sum(count for after, count in between.items() if after >= since)
        held[number] = all_common + alone.get(number, 0) - gone
    return 0 if known.flows else common(known.handed, HIGHEST), held


def _count_common(
    connection: sqlite3.Connection, topic: int, known: Known, after: int, upto: int
) -> int:
    """Count what is meant for all channels between two ids."""
    values = {"topic": topic, "after": after, "upto": upto}
    has_apart = connection.execute(HAS_APART[known.partition], values).fetchone()
    if known.partition == SHARED or has_apart or after or upto < HIGHEST:
        what = "count(*) - count(m.only)" if has_apart else "count(*)"
        query = SIZE[known.partition].format(what=what)
    else:
        query = f"SELECT count(*) FROM messages_{known.partition}"  # a tenth of the time
    count: int = connection.execute(query, values).fetchone()[0]
    return count
