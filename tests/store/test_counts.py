"""How many messages topics and channels hold, counted from the rows.

That the counts are right in every case is shown by the contract and in test_storage.py.
"""

import pytest

from nsqlite.store import GONE, Batch, StoredChannel, StoredTopic
from nsqlite.store.counts import count_rows
from nsqlite.store.known import Known
from nsqlite.store.sqlitefile import SQLiteFile
from store.files import HIGHEST, made, new_topic, row


def asked(
    file: SQLiteFile, topic: int, known: Known
) -> tuple[tuple[int, dict[int, int]], list[str]]:
    """Return the counts, and what SQLite was asked."""
    connection = file._writer._connection
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    counts = count_rows(connection, topic, known)
    connection.set_trace_callback(None)
    return counts, statements


def test_a_topic_of_its_own_is_counted_without_a_look_at_its_rows(file: SQLiteFile) -> None:
    """Where nothing is meant for one alone, and each channel has all, cells are counted."""
    file.write_rows(1, [row(identity) for identity in range(1, 51)])
    counts, statements = asked(file, 1, file._writer.topics[1])
    assert (0, {1: 50, 2: 50}) == counts
    assert "SELECT count(*) FROM messages_1" in statements


def test_rows_are_counted_once_for_all_channels(file: SQLiteFile) -> None:
    """However many channels begin wherever: each part of the rows is counted one time."""
    file.write(
        Batch(
            channels={
                number: StoredChannel(number=number, topic=1, name=f"c{number}", since=since)
                for number, since in enumerate((10, 10, 20, 60, HIGHEST), 10)
            },
            copies={(1, 10): {15: GONE, 16: GONE}},
        )
    )
    file.write(Batch(rows={1: [row(identity) for identity in range(1, 51)]}))
    file.write(Batch(copies={(1, 10): {15: GONE, 16: GONE}}))
    counts, statements = asked(file, 1, file._writer.topics[1])
    assert (0, {1: 50, 2: 50, 10: 38, 11: 40, 12: 30, 13: 0, 14: 0}) == counts
    assert 4 == sum("FROM messages_1 m WHERE" in statement for statement in statements)


@pytest.mark.parametrize("partition", [0, 1])
def test_only_the_topics_own_messages_are_counted(file: SQLiteFile, partition: int) -> None:
    """Also where others lie in the same partition."""
    file._writer._free.clear()
    file.write(new_topic(2, 7))
    file.write(new_topic(3, 8))
    for number in (2, 3):
        rows = [(number * 10 + n, 1, 5 if n else None, None, None, b"x") for n in range(number)]
        file.write(Batch(rows={number: list(rows)}))
    file.write_rows(1, [row(1)])
    expected = {1: (0, {1: 1, 2: 1}), 2: (0, {7: 2}), 3: (0, {8: 3})}
    assert expected == {number: file.count(number) for number in expected}
    assert partition in {known.partition for known in file._writer.topics.values()}


def test_what_was_told_is_not_counted(file: SQLiteFile) -> None:
    """Where a topic is counted the counts are read, whatever they are."""
    batch = made(counted=True)
    batch.topics[1].held = 3
    batch.channels[1].held = 9
    file.write(batch)
    assert (3, {1: 9, 2: 0}) == file.count(1)
    file.write(Batch(topics={1: StoredTopic(number=1, name="orders")}))
    assert (0, {1: 0, 2: 0}) == file.count(1)
